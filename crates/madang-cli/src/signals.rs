//! Ctrl-C and termination signals, as a question that a command asks now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

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

    /// Takes a signal as heard: what comes next is a first one again.
    pub(crate) fn lower(&self) {
        self.raised.store(false, Ordering::Release);
    }
}
