//! What the floor and the load client share of io_uring: one set-up, a submission queue that never refuses, and a ring
//! of receive buffers.
//!
//! Every setting is the one that measured best on this kernel (6.18): deferred task work, incremental 64 KiB buffers,
//! a registered ring descriptor.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, squeue};

/// Room for one batch: a turn completes about 20 operations, a broadcast submits in blocks of this.
const SUBMISSIONS: u32 = 4096;
/// A broadcast to 10,000 connections completes 10,000 sends before the loop looks again; overflow would end the
/// multishot receives.
const COMPLETIONS: u32 = 32_768;

/// How the ring's owner learns of deferred work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It blocks in the kernel, as a server does.
    Blocking,
    /// It spins and looks at the ring's flag, as the load client does: waking it would cost the *server* 10 µs.
    Spinning,
}

/// Opens a ring for one thread. Needs Linux 6.6 (`NO_SQARRAY`).
///
/// # Errors
/// `EPERM` where io_uring is forbidden (seccomp, `kernel.io_uring_disabled`), `EINVAL` on an older kernel.
pub fn open(wait: Wait) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    builder.setup_submit_all().setup_no_sqarray().setup_cqsize(COMPLETIONS);
    if wait == Wait::Spinning {
        builder.setup_taskrun_flag();
    }
    builder.build(SUBMISSIONS)
}

/// The submitting half of a ring.
pub struct Submissions<'ring> {
    submitter: Submitter<'ring>,
    queue: SubmissionQueue<'ring>,
}

impl<'ring> Submissions<'ring> {
    /// Takes both halves of [`IoUring::split`] and registers the ring's own descriptor for them.
    ///
    /// # Errors
    /// `EBUSY` when the thread's 16 registered rings are used up.
    pub fn new(mut submitter: Submitter<'ring>, queue: SubmissionQueue<'ring>) -> io::Result<Self> {
        submitter.register_ring_fd()?;
        Ok(Self { submitter, queue })
    }

    /// For registering files and buffers.
    pub fn submitter(&self) -> &Submitter<'ring> {
        &self.submitter
    }

    /// Queues one operation, submitting what is queued when there is no room.
    ///
    /// # Safety
    /// The memory that `entry` points to stays valid, and unread (received into) or unwritten (sent from), until the
    /// operation's last completion.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that push asks for.
        while unsafe { self.queue.push(entry) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Queues operations that are linked to each other, so that no submit parts them.
    ///
    /// # Safety
    /// As [`Submissions::push`], for each entry.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`.
    pub unsafe fn push_linked(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that push_multiple asks for.
        while unsafe { self.queue.push_multiple(entries) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Submits what is queued and sleeps until there is a completion.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`; an interrupted wait is not an error.
    pub fn submit_and_wait(&mut self) -> io::Result<()> {
        self.enter(1)
    }

    /// Submits what is queued and runs deferred work, when there is any of either; never sleeps.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`.
    pub fn submit_and_look(&mut self) -> io::Result<()> {
        if self.queue.is_empty() && !self.queue.taskrun() {
            return Ok(());
        }
        self.enter(0)
    }

    fn submit(&mut self) -> io::Result<()> {
        self.enter(0)
    }

    fn enter(&mut self, at_least: usize) -> io::Result<()> {
        self.queue.sync();
        let entered = self.submitter.submit_and_wait(at_least);
        self.queue.sync();
        match entered {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

/// Receive memory that the kernel fills front to back and hands over piece by piece (`IOU_PBUF_RING_INC`).
///
/// One for a whole ring: an idle connection pins none of it.
///
/// ```text
///   buffer 0 │ taken │ taken │ free ................ │   each completion takes the next piece,
///   buffer 1 │ free ................................ │   the last piece of a buffer makes it spent,
///      ...                                               `recycle` gives spent buffers back
/// ```
pub struct ReceiveBuffers {
    /// The ring of descriptors, shared with the kernel; lives as long as the process.
    entries: *mut BufRingEntry,
    /// `COUNT` buffers of `SIZE`; lives as long as the process.
    memory: *mut u8,
    /// Bytes already taken of each buffer.
    taken: [u32; Self::COUNT as usize],
    spent: Vec<u16>,
    tail: u16,
}

/// The kernel wants its descriptor ring on a page boundary.
#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page(#[expect(dead_code, reason = "memory for the kernel")] [u8; 4096]);

impl ReceiveBuffers {
    /// The one buffer group of a ring.
    pub const GROUP: u16 = 0;
    /// With 64 KiB each: 4 MiB, which is as much as the second-level caches of this machine's two cores can use.
    const COUNT: u16 = 64;
    const SIZE: u32 = 64 * 1024;
    /// From the kernel's `io_uring.h`; the crate keeps it to itself.
    const INCREMENTAL: u16 = 2;

    /// Registers the buffers with the ring. The memory is never freed: the kernel may write into it until the ring is
    /// gone, and the ring lives as long as the process.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.12, `ENOMEM`.
    pub fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let pages = (Self::COUNT as usize * size_of::<BufRingEntry>()).div_ceil(size_of::<Page>());
        let entries = Box::leak(vec![Page([0; 4096]); pages].into_boxed_slice()).as_mut_ptr().cast();
        let memory = Box::leak(vec![0u8; usize::from(Self::COUNT) * Self::SIZE as usize].into_boxed_slice());
        // SAFETY: `entries` has room for COUNT descriptors on a page boundary and is never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(
                entries as u64,
                Self::COUNT,
                Self::GROUP,
                Self::INCREMENTAL,
            )?;
        }
        let spent = (0..Self::COUNT).collect();
        let taken = [0; Self::COUNT as usize];
        let mut buffers = Self { entries, memory: memory.as_mut_ptr(), taken, spent, tail: 0 };
        buffers.recycle();
        Ok(buffers)
    }

    /// The bytes that a completion delivered: `length` is its positive result, `flags` are its flags.
    ///
    /// Call it for every receive completion with a positive result, in order: the place of a piece follows from the
    /// pieces before it. The bytes are the caller's until [`ReceiveBuffers::recycle`].
    ///
    /// # Panics
    /// When the completion names no buffer, which the kernel does not do for a receive that selects one.
    pub fn take(&mut self, flags: u32, length: u32) -> &[u8] {
        let buffer = cqueue::buffer_select(flags).expect("a receive with data names its buffer");
        let start = self.taken[usize::from(buffer)];
        self.taken[usize::from(buffer)] += length;
        assert!(self.taken[usize::from(buffer)] <= Self::SIZE, "the kernel stays within a buffer");
        if !cqueue::buffer_more(flags) {
            self.spent.push(buffer);
        }
        let offset = usize::from(buffer) * Self::SIZE as usize + start as usize;
        // SAFETY: the piece lies inside `memory` (asserted above), which is never freed; the kernel gave it up with this
        // completion and gets it back only in `recycle`, which needs `&mut self` and so ends this borrow.
        unsafe { std::slice::from_raw_parts(self.memory.add(offset), length as usize) }
    }

    /// Gives spent buffers back to the kernel. Call it once per batch, when the taken bytes have been copied.
    pub fn recycle(&mut self) {
        if self.spent.is_empty() {
            return;
        }
        while let Some(buffer) = self.spent.pop() {
            self.taken[usize::from(buffer)] = 0;
            // SAFETY: the index is masked to COUNT; the kernel does not read this descriptor before the tail covers it.
            unsafe {
                let entry = &mut *self.entries.add(usize::from(self.tail % Self::COUNT));
                entry.set_addr(self.memory.add(usize::from(buffer) * Self::SIZE as usize) as u64);
                entry.set_len(Self::SIZE);
                entry.set_bid(buffer);
            }
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies in the first descriptor's reserved field, where only this thread writes; the kernel reads
        // it with acquire, which pairs with this release and makes the descriptors above visible.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
