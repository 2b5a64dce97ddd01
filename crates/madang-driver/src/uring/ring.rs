//! The pair of queues, and the one system call.
//!
//! ```text
//!   push ──► │ submission queue │ ──┐                       ┌──► run deferred work ──► │ completion queue │ ──► take
//!   defer ─► what found no room     └── io_uring_enter ─────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, opcode, squeue};

use super::probe::{Refused, RingFlags};
use crate::{Full, Time};

/// The most entries that the kernel gives a completion queue.
const CQ_ENTRIES_MAX: usize = 65_536;

/// How big the queues are made.
#[derive(Clone, Copy)]
pub(super) struct RingSize {
    pub(super) submissions: u32,
    pub(super) completions: u32,
}

impl RingSize {
    /// U06: per connection a receive, a send and a cancel of each may complete at once; 64 for listeners and the waker. An
    /// overflow is no loss (the kernel keeps a list), but it ends multishot operations and costs an allocation each.
    pub(super) fn for_connections(submissions_max: u32, connections_max: usize) -> RingSize {
        // Two at least: a chain is submitted as a whole.
        let submissions = submissions_max.clamp(2, 32_768).next_power_of_two();
        let wanted = connections_max.saturating_add(64).saturating_mul(4).max(2 * submissions as usize);
        RingSize { submissions, completions: wanted.min(CQ_ENTRIES_MAX).next_power_of_two() as u32 }
    }
}

/// What a submission or a wait met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Done,
    /// The kernel takes nothing more before completions are taken off (EBUSY) or memory is there (EAGAIN).
    Busy,
}

/// One io_uring, used by the thread that made it.
pub(super) struct Ring {
    /// Borrows `ring`; carries the ring's registered index, which spares the kernel a descriptor look-up per enter.
    submitter: Submitter<'static>,
    /// Leaked at the making and given back by `drop`, so that `submitter` may borrow it.
    ring: &'static IoUring,
    registered: bool,
    /// Submissions of the driver itself that found the queue full; they go first at the next poll. None of them refers to
    /// memory.
    deferred: VecDeque<squeue::Entry>,
    /// Submissions that were ever queued.
    pushed: u64,
    /// Descriptors that the kernel is to close, each with how many submissions it takes to have come to it.
    closes: VecDeque<(u64, RawFd)>,
    /// An absolute deadline can be given to the kernel (6.12), which spares a clock reading per wait.
    absolute: bool,
    /// Keeps a sleeping shard out of the machine's iowait figure (6.15).
    sleep_flags: EnterFlags,
    enters: u64,
    overflows: u64,
}

impl Ring {
    /// A ring with `wanted`, or with as much of it as this kernel knows.
    pub(super) fn open(size: RingSize, wanted: RingFlags) -> Result<(Ring, RingFlags), Refused> {
        let (ring, mut flags) = wanted.as_far_as(|flags| {
            let mut builder = IoUring::builder();
            flags.apply(&mut builder);
            builder.setup_cqsize(size.completions).setup_clamp().dontfork();
            builder.build(size.submissions)
        })?;
        let params = ring.params();
        if !(params.is_feature_ext_arg() && params.is_feature_nodrop() && params.is_feature_submit_stable()) {
            return Err(Refused::TooOld { lacks: "waiting with a deadline" });
        }
        let absolute = params.is_feature_min_timeout();
        let sleep_flags =
            if params.is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let ring: &'static IoUring = Box::leak(Box::new(ring));
        let mut submitter = ring.submitter();
        let registered = wanted.registered_ring && submitter.register_ring_fd().is_ok();
        flags.registered_ring = registered;
        let ring = Ring {
            submitter,
            ring,
            registered,
            deferred: VecDeque::new(),
            pushed: 0,
            closes: VecDeque::new(),
            absolute,
            sleep_flags,
            enters: 0,
            overflows: 0,
        };
        Ok((ring, flags))
    }

    /// For registering buffers and files.
    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    pub(super) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Queues a submission; makes room by submitting when the queue is full (U13).
    ///
    /// # Safety
    /// What the entry points to stays valid and unshared until its terminal completion (or, where the kernel copies it, until
    /// [`queued`](Ring::queued) is zero).
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> Result<(), Full> {
        // SAFETY: the caller keeps the promise that `push` asks for.
        unsafe {
            if self.push_now(entry) {
                return Ok(());
            }
            self.submit();
            if self.push_now(entry) { Ok(()) } else { Err(Full) }
        }
    }

    /// Queues linked submissions, all of them or none: a chain that is cut by a submit is no chain.
    ///
    /// # Safety
    /// As for [`push`](Ring::push).
    pub(super) unsafe fn push_chain(&mut self, entries: &[squeue::Entry]) -> Result<(), Full> {
        for attempt in 0..2 {
            // SAFETY: no other view of the submission queue exists (see `queued`); the caller promises the memory.
            if unsafe { self.ring.submission_shared().push_multiple(entries) }.is_ok() {
                self.pushed += entries.len() as u64;
                return Ok(());
            }
            if attempt == 0 {
                self.submit();
            }
        }
        Err(Full)
    }

    /// Queues a submission of the driver's own, at the next poll if there is no room now.
    ///
    /// # Safety
    /// The entry points to no memory, or to memory that lives for ever.
    pub(super) unsafe fn push_or_defer(&mut self, entry: squeue::Entry) {
        // Behind those that wait already: a cancel must not overtake what it calls off.
        // SAFETY: there is no memory to keep valid, the caller promised.
        if !self.deferred.is_empty() || unsafe { self.push(&entry) }.is_err() {
            self.deferred.push_back(entry);
        }
    }

    /// Queues what was deferred, as far as there is room.
    pub(super) fn push_deferred(&mut self) {
        while let Some(entry) = self.deferred.pop_front() {
            // SAFETY: deferred entries point to no memory (`push_or_defer`'s promise).
            if unsafe { self.push(&entry) }.is_err() {
                return self.deferred.push_front(entry);
            }
        }
    }

    /// Closes a descriptor with the next submit. Nobody has to know when that is, for its number is taken until then: a
    /// completion would end the coming sleep at once, with nothing to do. One that no submit comes for is closed with the ring.
    pub(super) fn close(&mut self, descriptor: OwnedFd) {
        let taken = self.taken();
        while self.closes.front().is_some_and(|(number, _)| *number <= taken) {
            self.closes.pop_front();
        }
        let descriptor = descriptor.into_raw_fd();
        let entry = opcode::Close::new(Fd(descriptor)).build().flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry points to no memory. Should it fail, its completion, which names nothing, is passed over.
        unsafe { self.push_or_defer(entry) };
        // What is deferred may be overtaken: then it seems to be taken too soon, and never too late.
        self.closes.push_back((self.pushed + self.deferred.len() as u64, descriptor));
    }

    /// How many of those pushed the kernel has taken.
    fn taken(&self) -> u64 {
        self.pushed - self.queued() as u64
    }

    /// Submissions that the kernel has not taken yet.
    pub(super) fn queued(&self) -> usize {
        // SAFETY: no other view of the submission queue exists: each lives for one expression of this type's methods.
        unsafe { self.ring.submission_shared() }.len()
    }

    /// Submissions that the kernel has not taken yet, those among them that found no room in the queue.
    pub(super) fn unsubmitted(&self) -> usize {
        self.queued() + self.deferred.len()
    }

    /// Completions that wait to be taken.
    pub(super) fn completed(&self) -> usize {
        // SAFETY: no other view of the completion queue exists: each lives for one expression of this type's methods.
        unsafe { self.ring.completion_shared() }.len()
    }

    /// The most completions that it makes sense to wait for: half of what the queue holds, so that the other half is room for
    /// what comes meanwhile. (The kernel does not cut a larger number down: a wait for 2³¹ and more ends at once.)
    pub(super) fn awaited_max(&self) -> u32 {
        self.ring.params().cq_entries() / 2
    }

    /// Hands the queued submissions over, without waiting and without running deferred work.
    pub(super) fn submit(&mut self) {
        if self.queued() > 0 {
            self.enter(0, EnterFlags::empty(), None);
        }
    }

    /// Hands the queued submissions over and runs what is due, without waiting.
    pub(super) fn run(&mut self) {
        self.enter(0, EnterFlags::GETEVENTS, None);
    }

    /// As [`run`](Ring::run), and sleeps until `at_least` completions are there or `until` has come.
    pub(super) fn sleep(&mut self, at_least: u32, until: Option<Time>) {
        debug_assert!(at_least <= self.awaited_max());
        let wait = EnterFlags::GETEVENTS | self.sleep_flags;
        let Some(until) = until else {
            self.enter(at_least, wait, None);
            return;
        };
        let (nanos, mode) = if self.absolute {
            (until.as_nanos(), EnterFlags::ABS_TIMER)
        } else {
            (until.since(crate::host::now()).as_nanos() as u64, EnterFlags::empty())
        };
        let deadline = Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
        self.enter(at_least, wait | mode, Some(&deadline));
    }

    /// Takes at most `max` completions off the queue.
    pub(super) fn take(&mut self, into: &mut impl Extend<cqueue::Entry>, max: usize) {
        // SAFETY: no other view of the completion queue exists: each lives for one expression of this type's methods.
        into.extend(unsafe { self.ring.completion_shared() }.take(max));
    }

    /// # Safety
    /// As for [`push`](Ring::push).
    unsafe fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: no other view of the submission queue exists (see `queued`); the entry's memory is the caller's promise.
        let pushed = unsafe { self.ring.submission_shared().push(entry) }.is_ok();
        self.pushed += u64::from(pushed);
        pushed
    }

    fn enter(&mut self, at_least: u32, flags: EnterFlags, until: Option<&Timespec>) -> Entered {
        self.enters += 1;
        let submissions = self.queued() as u32;
        let result = match until {
            Some(until) => {
                let args = SubmitArgs::new().timespec(until);
                let flags = flags | EnterFlags::EXT_ARG;
                // SAFETY: EXT_ARG says that the argument is of SubmitArgs's type; it and the deadline live through the call.
                unsafe { self.submitter.enter(submissions, at_least, flags.bits(), Some(&args)) }
            }
            // SAFETY: without EXT_ARG the argument is a signal mask, and none is given.
            None => unsafe {
                self.submitter.enter::<libc::sigset_t>(submissions, at_least, flags.bits(), None)
            },
        };
        // SAFETY: no other view of the submission queue exists (see `queued`).
        if unsafe { self.ring.submission_shared() }.cq_overflow() {
            self.overflows += 1;
        }
        match result.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR)) => Entered::Done,
            Err(Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM)) => Entered::Busy,
            // U07: one operation's state is unknown from here on, and with it who owns its memory.
            Err(Some(libc::EBADR)) => {
                panic!("io_uring lost a completion for want of memory: the driver cannot go on")
            }
            Err(other) => panic!(
                "io_uring_enter failed: {}; a driver is used on the thread that made it",
                other.map_or("unknown error".into(), |errno| io::Error::from_raw_os_error(errno).to_string())
            ),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.registered {
            // The registration holds the ring open by itself until the thread's end.
            let _ = self.submitter.unregister_ring_fd();
        }
        let taken = self.taken();
        for (_, descriptor) in self.closes.drain(..).filter(|(number, _)| *number > taken) {
            // SAFETY: `close` was given it to own, and the kernel, which was to close it, has not been told and will not be.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
        // SAFETY: `open` leaked this box, nobody but `submitter` borrows it, and `submitter`, dropped after this, has no
        // drop code that would look at it.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self.ring).cast_mut()) });
    }
}
