//! Ctrl-C and termination signals, as a question that a command asks now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How soon a signal is noticed: at once for somebody at a keyboard.
const LOOK_EACH: Duration = Duration::from_millis(50);

/// What a shell reports of a program that SIGINT ended.
const ENDED_BY_SIGINT: i32 = 130;

/// Whether somebody asked the command to come to its end. A second signal ends the process on the spot, so that a
/// shutdown that hangs never takes a terminal with it. The default hears none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on, for the rest of the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_shutdown(signal, ENDED_BY_SIGINT, Arc::clone(&raised))?;
            flag::register(signal, Arc::clone(&raised))?;
        }
        Ok(Self { raised })
    }

    /// Asks for the end as a signal does.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }

    pub(crate) fn raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Sleeps until `deadline` (for good if there is none) or a signal; whether it was a signal.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.raised() {
                return true;
            }
            let left =
                deadline.map_or(LOOK_EACH, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_EACH));
        }
    }
}
