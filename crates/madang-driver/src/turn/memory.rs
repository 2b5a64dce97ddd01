//! Receive memory, filled by one connection behind the other.
//!
//! ```text
//!   buffer 0   [ conn A │ conn B │ conn C │ next read …            ]     loans of this turn, bump by bump
//!   buffer 1   [                                                   ]     used once 0 has no good room left
//! ```
//!
//! A poll starts at the beginning again, since all loans are back by then: what a quiet turn touches stays the same few
//! cache lines, and an idle connection pins nothing. The rest of the memory is reserved and, until a loud turn comes,
//! untouched.

use std::ptr::NonNull;
use std::rc::Rc;

use crate::{Desk, Lent};

pub(crate) struct Memory {
    /// Counts the loans. The driver holds every buffer itself, all the time, so none is ever listed as returned.
    desk: Rc<Desk>,
    /// `buffers` × `buffer_bytes` bytes of the heap, ours until drop.
    bytes: NonNull<u8>,
    buffers: usize,
    buffer_bytes: usize,
    /// The buffer that is being filled; `buffers` when all are used up.
    buffer: usize,
    /// How much of it is lent.
    lent_bytes: usize,
}

/// What one read brought.
pub(crate) struct Filled {
    /// `None`: the read answered zero, the end of the stream.
    pub(crate) bytes: Option<Lent>,
    /// The read took all the room it was offered: there may be more.
    pub(crate) to_the_brim: bool,
}

/// So much is lent in one poll, rounded up to a read. What came in a turn, and the packets that content makes of it, should
/// still lie near the processor when the turn flushes. With sixteen messages of 256 bytes on each of 1,000 connections,
/// turns of a megabyte cost 1.12 of what turns of this size cost a message; 128 KiB lie between.
const POLL_BYTES: usize = 32 << 10;

/// Reads start on their own cache line: neighbours are opened and copied by turns.
const ALIGN: usize = 64;

impl Memory {
    /// At least one buffer of one byte.
    pub(crate) fn new(buffers: usize, buffer_bytes: usize) -> Memory {
        let (buffers, buffer_bytes) = (buffers.max(1), buffer_bytes.max(1));
        let desk = Desk::new(buffers);
        (0..buffers as u32).for_each(|buffer| desk.hold(buffer));
        // Zeroed by the system, page by page, when first touched.
        let bytes = Box::leak(vec![0; buffers * buffer_bytes].into_boxed_slice());
        Memory { desk, bytes: NonNull::from(bytes).cast(), buffers, buffer_bytes, buffer: 0, lent_bytes: 0 }
    }

    /// Starts over.
    ///
    /// # Panics
    /// When a loan is still out: the caller broke the rule of [`Lent`], and its bytes would be written over.
    pub(crate) fn rewind(&mut self) {
        assert_eq!(self.desk.loans_out(), 0, "every loan is given back before the next poll");
        (self.buffer, self.lent_bytes) = (0, 0);
    }

    /// Nothing is to be read until the next poll.
    pub(crate) fn is_used_up(&self) -> bool {
        self.buffer == self.buffers || self.buffer * self.buffer_bytes + self.lent_bytes >= POLL_BYTES
    }

    /// Lets `read` write into the next room and lends what it wrote; with an error nothing is lent.
    ///
    /// # Panics
    /// When the memory is used up, or `read` claims more than it was offered.
    pub(crate) fn fill<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Filled, E> {
        assert!(!self.is_used_up(), "the memory has room");
        let offset = self.buffer * self.buffer_bytes + self.lent_bytes;
        let room_bytes = self.buffer_bytes - self.lent_bytes;
        // SAFETY: the range lies inside the one allocation, whose bytes were all initialised by its zeroing. Nobody else
        // reads or writes it: the loans of this buffer end at `lent_bytes`, and `rewind` let none survive.
        let (start, room) = unsafe {
            let start = self.bytes.add(offset);
            (start, std::slice::from_raw_parts_mut(start.as_ptr(), room_bytes))
        };
        let taken = read(room)?;
        assert!(taken <= room_bytes, "a read stays within the room it was offered");
        // SAFETY: those bytes are initialised, inside the buffer, and behind `lent_bytes` from here on: neither `fill` nor
        // another loan touches them before `rewind`, which waits for this loan. The allocation outlives all loans (`drop`).
        let bytes = (taken > 0).then(|| unsafe { self.desk.lend(self.buffer as u32, start, taken as u32) });
        self.use_up(taken);
        Ok(Filled { bytes, to_the_brim: taken == room_bytes })
    }

    /// Moves on behind `taken` bytes, and to the next buffer when less than a quarter of this one is left: short rooms make
    /// many reads of one.
    fn use_up(&mut self, taken: usize) {
        self.lent_bytes = (self.lent_bytes + taken.next_multiple_of(ALIGN)).min(self.buffer_bytes);
        let left = self.buffer_bytes - self.lent_bytes;
        if left == 0 || left < self.buffer_bytes / 4 {
            (self.buffer, self.lent_bytes) = (self.buffer + 1, 0);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A loan may outlive the driver in safe code; then its memory has to live on.
        if self.desk.loans_out() == 0 {
            let bytes = NonNull::slice_from_raw_parts(self.bytes, self.buffers * self.buffer_bytes);
            // SAFETY: `new` leaked exactly this slice from a box, nobody freed it since, and no loan points into it.
            drop(unsafe { Box::from_raw(bytes.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::*;

    fn read(bytes: &[u8]) -> impl FnOnce(&mut [u8]) -> Result<usize, ()> {
        move |room| {
            let taken = bytes.len().min(room.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            Ok(taken)
        }
    }

    #[test]
    fn loans_of_a_turn_never_overlap_and_the_next_turn_reuses_their_memory() {
        let mut memory = Memory::new(3, 1_000);
        let mut first = None;
        for turn in 0..3u8 {
            let mut loans: Vec<(Lent, u8)> = Vec::new();
            // Around the alignment, and far from it.
            for (value, length) in (turn..).zip([1, 63, 64, 65, 128, 200, 256].into_iter().cycle()) {
                if memory.is_used_up() {
                    break;
                }
                let filled = memory.fill(read(&vec![value; length])).unwrap();
                loans.push((filled.bytes.unwrap(), value));
            }
            for (bytes, value) in &loans {
                assert!(!bytes.is_empty() && bytes.iter().all(|byte| byte == value));
            }
            let start = loans[0].0.as_ptr();
            assert_eq!(*first.get_or_insert(start), start);
            drop(loans);
            memory.rewind();
        }
    }

    #[test]
    fn an_empty_read_and_a_failed_read_use_nothing_up() {
        let mut memory = Memory::new(1, 64);
        let empty = memory.fill(read(b"")).unwrap();
        assert!(empty.bytes.is_none() && !empty.to_the_brim);
        assert!(memory.fill(|_| Err(())).is_err());
        let all = memory.fill(read(&[7; 100])).unwrap();
        assert_eq!(&**all.bytes.as_ref().unwrap(), [7; 64]);
        assert!(all.to_the_brim && memory.is_used_up());
    }

    #[test]
    fn a_loan_that_outlives_the_driver_keeps_its_bytes() {
        let mut memory = Memory::new(2, 256);
        let loan = memory.fill(read(b"still here")).unwrap().bytes.unwrap();
        drop(memory);
        assert_eq!(&*loan, b"still here");
        // The memory is leaked, as it must be; a leak checker that can still see it does not mind.
        static KEPT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
        KEPT.store(loan.as_ptr().cast_mut(), Ordering::Relaxed);
    }

    #[test]
    #[should_panic(expected = "every loan is given back")]
    fn a_loan_that_is_out_at_the_next_poll_is_the_callers_bug() {
        let mut memory = Memory::new(2, 256);
        let _loan = memory.fill(read(b"kept")).unwrap();
        memory.rewind();
    }
}
