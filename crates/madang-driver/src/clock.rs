//! The clock, for threads that have no driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Time, host};

/// The clock that the drivers of a process read, or those of a simulated world: for threads that are no shard and must
/// name a moment to one, such as the end of a block. Cheap to clone, and the same on every thread.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine,
    World(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's.
    pub fn machine() -> Clock {
        Clock(Source::Machine)
    }

    /// A simulated world's: the nanoseconds stand in `now`.
    pub(crate) fn world(now: Arc<AtomicU64>) -> Clock {
        Clock(Source::World(now))
    }

    /// The monotonic time, on the scale of [`Driver::now`](crate::Driver::now).
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Machine => host::now(),
            // Relaxed: a world has one thread.
            Source::World(now) => Time::from_nanos(now.load(Ordering::Relaxed)),
        }
    }

    /// Wall-clock time since the Unix epoch; a simulated world begins in 2026.
    pub fn wall(&self) -> Duration {
        match &self.0 {
            Source::Machine => host::wall(),
            Source::World(_) => Duration::from_secs(1_767_225_600) + self.now().since(Time::ZERO),
        }
    }
}
