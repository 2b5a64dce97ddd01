//! Ending the ring's sleep from another thread.
//!
//! An eventfd carries the wake: cheaper to fire than a message between rings, and it outlives the ring. The ring polls it
//! once at a time. A wait for many completions counts this one like any other and would sleep on, so a time-out of zero is
//! linked behind the poll: the kernel ends every wait during which a time-out fires.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::squeue::Flags;
use io_uring::types::{Fd, Timespec};
use io_uring::{opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};

use crate::Wake;

/// A time-out that has fired already.
static AT_ONCE: Timespec = Timespec::new();

/// The part of the waker that threads share.
pub(super) struct Doorbell {
    eventfd: OwnedFd,
    /// A wake is on its way: further ones need no call.
    rung: AtomicBool,
}

impl Doorbell {
    pub(super) fn new() -> rustix::io::Result<Arc<Doorbell>> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Doorbell { eventfd, rung: AtomicBool::new(false) }))
    }

    /// What the ring waits on, once; `poll` and `timeout` name the two completions.
    pub(super) fn entries(&self, poll: u64, timeout: u64) -> [squeue::Entry; 2] {
        let descriptor = Fd(self.eventfd.as_raw_fd());
        [
            opcode::PollAdd::new(descriptor, libc::POLLIN as u32)
                .build()
                .flags(Flags::IO_LINK)
                .user_data(poll),
            opcode::Timeout::new(&raw const AT_ONCE).build().user_data(timeout),
        ]
    }

    /// A wake is on its way and has not been heard.
    pub(super) fn has_rung(&self) -> bool {
        // Relaxed: this only ends a sleep; what the waking thread did is seen by way of `heard`.
        self.rung.load(Ordering::Relaxed)
    }

    /// The poll has fired: the next wake rings again.
    pub(super) fn heard(&self) {
        // The count first: a wake between the two finds `rung` and makes no call, and this poll returns for it too.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.eventfd, &mut count);
        // Pairs with the swap in `wake`: what the waking thread did before it is seen after this poll.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Doorbell {
    fn wake(&self) {
        // Pairs with the swap in `heard`.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, which also means that the ring is about to wake.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
