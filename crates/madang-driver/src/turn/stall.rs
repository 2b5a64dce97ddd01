//! Waiting out what keeps a listener from accepting.

use std::time::Duration;

use crate::{Time, host};

/// An error that has nothing to do with one peer: tried again later, and again, until the backlog moves freely.
#[derive(Default)]
pub(crate) struct Stall {
    waiting: Option<Waiting>,
}

struct Waiting {
    retry_at: Time,
    back_off: Duration,
}

const BACK_OFF_MIN: Duration = Duration::from_millis(1);
const BACK_OFF_MAX: Duration = Duration::from_millis(64);

impl Stall {
    pub(crate) fn is_stalled(&self) -> bool {
        self.waiting.is_some()
    }

    /// When to try again; `None` when nothing is in the way.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.waiting.as_ref().map(|waiting| waiting.retry_at)
    }

    /// Whether a try is to be made now.
    pub(crate) fn may_try(&self) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting.retry_at <= host::now())
    }

    /// Puts the next try off, each time twice as long. Answers whether this begins a stall.
    pub(crate) fn fall_back(&mut self) -> bool {
        let before = self.waiting.take();
        let back_off =
            before.as_ref().map_or(BACK_OFF_MIN, |waiting| (waiting.back_off * 2).min(BACK_OFF_MAX));
        self.waiting = Some(Waiting { retry_at: host::now() + back_off, back_off });
        before.is_none()
    }

    /// It went well again.
    pub(crate) fn end(&mut self) {
        self.waiting = None;
    }
}
