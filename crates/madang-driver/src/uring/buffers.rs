//! Receive memory: a ring of buffers that the kernel fills, lent range by range.
//!
//! ```text
//!   kernel's ring   ─► buffer 3 [ A's bytes | B's bytes | A's bytes |  not filled yet … ]   used ─┐
//!                                 └─ Lent     └─ Lent     └─ Lent    ▲                            │
//!                                                                    └────────────────────────────┘
//! ```
//!
//! The kernel holds a buffer until a completion without BUF_MORE; each loan is a further holder. The last one to let go
//! lists it at the [`Desk`], and [`take_back`](Buffers::take_back) gives it to the kernel again.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::cqueue;
use io_uring::types::{BufRingEntry, IOU_PBUF_RING_INC};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::probe::Refused;
use super::ring::Ring;
use crate::{Desk, Lent};

/// The group that all receives take their buffers from.
pub(super) const GROUP: u16 = 0;

/// The most slots a ring of buffers can have.
const SLOTS_MAX: u32 = 32_768;

/// The receive buffers of one ring. It must be dropped after the ring (U14).
pub(super) struct Buffers {
    slots: ManuallyDrop<Pages>,
    /// Slots are a power of two, at least as many as buffers.
    mask: u16,
    tail: u16,
    memory: ManuallyDrop<Pages>,
    buffer_bytes: u32,
    incremental: bool,
    /// How far the kernel has filled each buffer; valid while the kernel holds it.
    used: Box<[u32]>,
    desk: Rc<Desk>,
    leaked: bool,
}

impl Buffers {
    /// Makes `count` buffers and gives all of them to the kernel.
    pub(super) fn new(
        ring: &Ring,
        count: u16,
        buffer_bytes: u32,
        incremental: bool,
    ) -> Result<Buffers, Refused> {
        let count = u32::from(count).clamp(1, SLOTS_MAX);
        let slots_count = count.next_power_of_two();
        let slots = ManuallyDrop::new(Pages::map(slots_count as usize * size_of::<BufRingEntry>())?);
        let memory = ManuallyDrop::new(Pages::map(count as usize * buffer_bytes as usize)?);
        let flags = if incremental { IOU_PBUF_RING_INC as u16 } else { 0 };
        // SAFETY: the slots are zeroed pages of the length given, and outlive the ring (the type's promise).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                slots.start.as_ptr() as u64,
                slots_count as u16,
                GROUP,
                flags,
            )
        }
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => Refused::TooOld { lacks: "rings of receive buffers" },
            _ => Refused::at("registering receive buffers")(&error),
        })?;
        let mut buffers = Buffers {
            slots,
            mask: (slots_count - 1) as u16,
            tail: 0,
            memory,
            buffer_bytes,
            incremental,
            used: vec![0; count as usize].into(),
            desk: Desk::new(count as usize),
            leaked: false,
        };
        for buffer in 0..count {
            buffers.give(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Loans that are out.
    pub(super) fn loans_out(&self) -> usize {
        self.desk.loans_out()
    }

    /// The bytes that a completion brought, if any; and notes when the kernel is done with their buffer. To be called once
    /// for every receive completion, in order, whatever became of its connection (K10).
    pub(super) fn lend(&mut self, flags: u32, result: i32) -> Option<Lent> {
        let buffer = u32::from(cqueue::buffer_select(flags)?);
        let start = self.used[buffer as usize];
        let len = u32::try_from(result).unwrap_or(0);
        assert!(len <= self.buffer_bytes - start, "the kernel fills a buffer within its bounds");
        self.used[buffer as usize] = start + len;
        let lent = (len > 0).then(|| {
            // SAFETY: the range is inside the allocation, by the assertion.
            let bytes = unsafe { self.memory.start.add(self.at(buffer) + start as usize) };
            // SAFETY: the completion says that the kernel wrote `len` bytes there and is past them; each range is lent once
            // (`used` only grows until the buffer is back), and the memory is freed only when no loan is out.
            unsafe { self.desk.lend(buffer, bytes, len) }
        });
        if !(self.incremental && cqueue::buffer_more(flags)) {
            self.desk.let_go(buffer);
        }
        lent
    }

    /// Gives the kernel all buffers back that nobody holds any more.
    pub(super) fn take_back(&mut self) {
        let tail = self.tail;
        while let Some(buffer) = self.desk.take_returned() {
            self.give(buffer);
        }
        if self.tail != tail {
            self.publish();
        }
    }

    fn at(&self, buffer: u32) -> usize {
        buffer as usize * self.buffer_bytes as usize
    }

    fn give(&mut self, buffer: u32) {
        self.desk.hold(buffer);
        self.used[buffer as usize] = 0;
        // SAFETY: `buffer` is one of those allocated.
        let bytes = unsafe { self.memory.start.add(self.at(buffer)) };
        let slot = usize::from(self.tail & self.mask);
        // SAFETY: the slot is inside the allocation, zeroed or written before, and not the kernel's: between its head and our
        // tail are only buffers it holds, and there are no more buffers than slots.
        let entry = unsafe { self.slots.start.cast::<BufRingEntry>().add(slot).as_mut() };
        entry.set_addr(bytes.as_ptr() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(buffer as u16);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the first slot is initialised (zeroed), and the tail is a field of it that `give` does not write.
        let tail = unsafe { BufRingEntry::tail(self.slots.start.cast().as_ptr()) };
        // SAFETY: the field is aligned, lives as long as the slots, and is read by the kernel atomically.
        // Release: the kernel sees the slots' contents before the tail that covers them.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.store(self.tail, Ordering::Release);
    }

    /// Never frees the memory: operations that may still write into it are in the kernel's hands.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // With a loan out somebody still reads the memory: leaking is the only safe way left.
        if !self.leaked && self.desk.loans_out() == 0 {
            // SAFETY: dropped here only, and not used after.
            unsafe {
                ManuallyDrop::drop(&mut self.memory);
                ManuallyDrop::drop(&mut self.slots);
            }
        }
    }
}

/// Zeroed pages, there when touched.
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    fn map(bytes: usize) -> Result<Pages, Refused> {
        let bytes = bytes.max(1);
        // SAFETY: a mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let start = start.map_err(|_| Refused::NoMemory)?;
        Ok(Pages { start: NonNull::new(start.cast()).ok_or(Refused::NoMemory)?, bytes })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, unmapped once, and nobody refers to it any more (`Buffers` sees to that).
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
