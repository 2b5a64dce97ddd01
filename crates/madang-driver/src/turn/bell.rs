//! How other threads end the driver's sleep.
//!
//! ```text
//!   driver   AWAKE ──► SLEEPING (epoll, kqueue, port) ──► AWAKE   lie_down / get_up
//!              └─────► NAPPING (the thread is parked) ──► AWAKE
//!   others   any ──► RUNG, and a system call only if the swap found it lying
//! ```
//!
//! A ring that finds the driver awake costs one swap: it is remembered, and the next `lie_down` refuses. All four states
//! are in one atomic, so its total order alone decides: either the ring sees that the driver lies and fires, or the driver
//! sees the ring and stays up.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::Wake;

const AWAKE: u8 = 0;
/// In the kernel's wait.
const SLEEPING: u8 = 1;
/// Parked, without an eye on the sockets.
const NAPPING: u8 = 2;
const RUNG: u8 = 3;

/// Ends the kernel's wait that a driver sleeps in. It outlives the driver: firing it then ends nothing.
pub(crate) trait Signal: Send + Sync {
    fn fire(&self) -> io::Result<()>;
}

pub(crate) struct Bell<S> {
    state: AtomicU8,
    signal: S,
    /// The driver's own thread.
    sleeper: Thread,
}

impl<S> Bell<S> {
    /// A bell for the calling thread, which is the driver's.
    pub(crate) fn new(signal: S) -> Bell<S> {
        Bell { state: AtomicU8::new(AWAKE), signal, sleeper: thread::current() }
    }

    /// Before the kernel's wait. Answers whether it may sleep: not when the bell has rung since the last sleep.
    pub(crate) fn lie_down(&self) -> bool {
        self.change_to(SLEEPING)
    }

    /// After the kernel's wait. Answers whether the bell rang.
    pub(crate) fn get_up(&self) -> bool {
        // Pairs with the swap in `wake`: who got up because of it sees what the ringer did before.
        self.state.swap(AWAKE, Ordering::AcqRel) == RUNG
    }

    /// Parks the thread for `span`, deaf to the sockets. Answers whether the bell rang.
    pub(crate) fn nap(&self, span: Duration) -> bool {
        if self.change_to(NAPPING) {
            thread::park_timeout(span);
        }
        self.get_up()
    }

    fn change_to(&self, lying: u8) -> bool {
        // Release pairs with the swap in `wake`, which fires only if it sees us lying. Nothing is read on failure: `get_up`
        // follows in either case.
        self.state.compare_exchange(AWAKE, lying, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

impl<S: Signal> Wake for Bell<S> {
    fn wake(&self) {
        // Pairs with `lie_down` and `get_up`.
        match self.state.swap(RUNG, Ordering::AcqRel) {
            SLEEPING => {
                if let Err(error) = self.signal.fire() {
                    tracing::error!(%error, "a sleeping driver could not be woken");
                }
            }
            NAPPING => self.sleeper.unpark(),
            _ => {}
        }
    }
}
