//! A simulated socket on its way between threads.

use std::sync::Arc;

use crossbeam_queue::SegQueue;

use super::stream::StreamId;

/// A socket that a simulated listener accepted and no driver owns yet. It crosses threads although its world does not:
/// dropped, it only leaves its name in a lock-free list, and the world closes it when it next looks.
pub struct SimSocket {
    stream: StreamId,
    dropped: Arc<SegQueue<StreamId>>,
    is_taken: bool,
}

impl SimSocket {
    pub(super) fn new(stream: StreamId, dropped: Arc<SegQueue<StreamId>>) -> SimSocket {
        SimSocket { stream, dropped, is_taken: false }
    }

    /// Whether it is of the world that keeps this list.
    pub(super) fn is_of(&self, dropped: &Arc<SegQueue<StreamId>>) -> bool {
        Arc::ptr_eq(&self.dropped, dropped)
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Into a driver's table: nothing is closed when this name goes.
    pub(super) fn take(mut self) -> StreamId {
        self.is_taken = true;
        self.stream
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if !self.is_taken {
            self.dropped.push(self.stream);
        }
    }
}
