//! What the threads of a run do together: they start when all are connected, and end when a signal says so.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::words::Words;
use crate::signals::Signals;

#[derive(Debug)]
pub(crate) struct Together {
    awaited: AtomicUsize,
    signals: Signals,
    words: Words,
}

impl Together {
    pub(crate) fn new(threads: usize, signals: Signals, words: Words) -> Self {
        Self { awaited: AtomicUsize::new(threads), signals, words }
    }

    /// One thread has connected all it could; once for each.
    pub(crate) fn arrived(&self) {
        self.awaited.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn all_arrived(&self) -> bool {
        self.awaited.load(Ordering::Acquire) == 0
    }

    /// Whether those beside the connections are to come now.
    pub(crate) fn visitors_come(&self) -> bool {
        self.words.come()
    }

    /// Whether somebody asked the run to end early.
    pub(crate) fn is_over(&self) -> bool {
        self.signals.raised()
    }
}
