//! The receive memory of a simulated shard.

use std::ptr::NonNull;
use std::rc::Rc;

use crate::{Desk, Lent};

/// What is written over memory that was given back: whoever still reads it reads this.
const POISON: u8 = 0xdb;

/// Buffers of one size. One is filled at a time, front to back, with the bytes of many connections; a buffer comes back
/// when its last loan has ended.
pub(super) struct Lending {
    desk: Rc<Desk>,
    buffer_bytes: usize,
    /// Each allocated when first used. Raw, since loans write to parts of a buffer while others are filled.
    buffers: Vec<Option<NonNull<[u8]>>>,
    free: Vec<u32>,
    filling: Option<Filling>,
}

struct Filling {
    buffer: u32,
    used: usize,
}

impl Lending {
    pub(super) fn new(buffers: usize, buffer_bytes: usize) -> Lending {
        Lending {
            desk: Desk::new(buffers),
            buffer_bytes: buffer_bytes.max(1),
            buffers: vec![None; buffers],
            free: (0..buffers as u32).rev().collect(),
            filling: None,
        }
    }

    pub(super) fn loans_out(&self) -> usize {
        self.desk.loans_out()
    }

    /// Poisons what was given back and has it ready again.
    pub(super) fn recollect(&mut self) {
        self.stop_filling();
        while let Some(buffer) = self.desk.take_returned() {
            let memory = self.buffers[buffer as usize].expect("a lent buffer has memory");
            // SAFETY: `memory` is this buffer's own allocation; the desk says that neither a loan nor `filling` holds it,
            // and its whole length is initialised (allocated zeroed).
            unsafe { (*memory.as_ptr()).fill(POISON) };
            self.free.push(buffer);
        }
    }

    /// Memory for up to `want` bytes, fewer if one buffer has no more, at most `buffers_max` buffers in use at once:
    /// `fill` writes it. `None`: no buffer is left.
    pub(super) fn lend(
        &mut self,
        want: usize,
        buffers_max: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Option<Lent> {
        if self.filling.as_ref().is_some_and(|filling| filling.used == self.buffer_bytes) {
            self.stop_filling();
        }
        if self.filling.is_none() {
            let in_use = self.buffers.len() - self.free.len();
            let buffer = if in_use < buffers_max { self.free.pop()? } else { return None };
            self.buffers[buffer as usize].get_or_insert_with(|| allocate(self.buffer_bytes));
            self.desk.hold(buffer);
            self.filling = Some(Filling { buffer, used: 0 });
        }
        let filling = self.filling.as_mut().expect("there is one now");
        let memory = self.buffers[filling.buffer as usize].expect("it was allocated");
        let len = want.min(self.buffer_bytes - filling.used);
        // SAFETY: `used + len` is within the allocation of `buffer_bytes`, so the pointer stays inside it.
        let start = unsafe { memory.cast::<u8>().add(filling.used) };
        // SAFETY: the range was not lent since the buffer was last recollected (`used` only grows, below), so nobody else
        // has a reference into it; it is initialised (zeroed at first, then written or poisoned).
        fill(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) });
        filling.used += len;
        // SAFETY: the range is initialised, is not lent again until `recollect` finds its loan ended, and its memory lives
        // as long as `self`, or for ever if `self` is dropped while loans are out (see `Drop`).
        Some(unsafe { self.desk.lend(filling.buffer, start, len as u32) })
    }

    fn stop_filling(&mut self) {
        if let Some(filling) = self.filling.take() {
            self.desk.let_go(filling.buffer);
        }
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if self.desk.loans_out() > 0 {
            return; // leaked: a loan that outlives its driver must still find its memory
        }
        for memory in self.buffers.drain(..).flatten() {
            // SAFETY: it came from `allocate`, once, and no loan refers to it any more.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        }
    }
}

fn allocate(bytes: usize) -> NonNull<[u8]> {
    NonNull::from(Box::leak(vec![0; bytes].into_boxed_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lend(lending: &mut Lending, bytes: &[u8]) -> Option<Lent> {
        lending.lend(bytes.len(), usize::MAX, |into| into.copy_from_slice(&bytes[..into.len()]))
    }

    #[test]
    fn one_buffer_carries_many_loans_and_comes_back_poisoned_after_the_last() {
        let mut lending = Lending::new(1, 8);
        let first = lend(&mut lending, b"abc").unwrap();
        let second = lend(&mut lending, b"defgh").unwrap();
        assert_eq!((&*first, &*second), (b"abc".as_slice(), b"defgh".as_slice()));
        assert!(lend(&mut lending, b"x").is_none(), "the only buffer is full");
        drop(first);
        lending.recollect();
        assert!(lend(&mut lending, b"x").is_none(), "its second loan is out");
        drop(second);
        lending.recollect();
        let poisoned = lending.lend(4, 1, |into| assert!(into.iter().all(|byte| *byte == POISON)));
        assert!(poisoned.is_some());
    }

    #[test]
    fn a_loan_outlives_its_driver() {
        let mut lending = Lending::new(1, 8);
        let loan = lend(&mut lending, b"late").unwrap();
        drop(lending);
        assert_eq!(&*loan, b"late");
    }
}
