//! Ending a driver's sleep from another thread.

use std::fmt;
use std::sync::Arc;

/// What a driver offers behind its [`Waker`].
pub trait Wake: Send + Sync {
    /// Ends the driver's sleep in `poll`, or the next one. May be called at any time, also after the driver is gone.
    fn wake(&self);
}

/// The only part of a driver that other threads may use. Cheap to clone.
///
/// A wake costs 10–14 µs at the sleeper's end whatever carries it, so whoever feeds a shard calls it once per batch and
/// only when the shard sleeps.
#[derive(Clone)]
pub struct Waker(Arc<dyn Wake>);

impl Waker {
    /// Wraps a driver's own way to be woken.
    pub fn new(wake: Arc<dyn Wake>) -> Waker {
        Waker(wake)
    }

    /// Ends the driver's sleep in `poll`, or the next one. Never blocks; wakes coalesce.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
