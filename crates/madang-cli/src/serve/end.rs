//! When a server has served for long enough.

use std::time::{Duration, Instant};

use madang::Server;

use crate::signals::Signals;

/// How soon an end is noticed: at once for somebody at a keyboard.
const LOOK_EACH: Duration = Duration::from_millis(50);

/// The end of serving: a signal, a moment, or the last player's leave, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) signals: &'a Signals,
    pub(crate) deadline: Option<Instant>,
    /// The server that need not serve on once all its players have left.
    pub(crate) empties: Option<&'a Server>,
}

impl<'a> End<'a> {
    /// A signal, or `deadline`.
    pub(crate) fn of(signals: &'a Signals, deadline: Option<Instant>) -> Self {
        Self { signals, deadline, empties: None }
    }

    fn has_come(&self) -> bool {
        self.signals.raised()
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || self.empties.is_some_and(|server| server.figures().sessions == 0)
    }

    /// Sleeps until the end.
    pub(crate) fn wait(&self) {
        while !self.comes_before(Instant::now() + LOOK_EACH) {}
    }

    /// Sleeps until the end, or until something is due; whether it is the end.
    pub(crate) fn comes_before(&self, due: Instant) -> bool {
        loop {
            if self.has_come() {
                return true;
            }
            let next = self.deadline.map_or(due, |deadline| deadline.min(due));
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.has_come();
            }
            std::thread::sleep(left.min(LOOK_EACH));
        }
    }
}
