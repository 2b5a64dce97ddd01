//! A shelf: the depot's idle blocks of one class, free for any thread to give and to take.
//!
//! ```text
//!   give a batch ──►┌ slots ──────────────┐──► take: one swap, then cut off what is needed
//!                   │ ▣─▣─▣   ▣─▣   ·   · │        and put the rest back
//!   give one block ►│ stack ▣─▣─▣─▣       │──► when the slots are empty: the whole stack, one swap
//!                   └─────────────────────┘
//! ```
//!
//! A slot holds a string of blocks of any length. A string changes hands whole, by one exchange of its first pointer,
//! and nobody follows a pointer that is still on the shelf; so a stale pointer is never compared with and used (the ABA
//! problem has nowhere to stand), and nothing waits for anything: no lock, no retry but on the stack's push.

use std::ptr;

use crate::block::{Block, Header};
use crate::chain::{Chain, last_of};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// Strings that can lie side by side, so that threads that exchange at the same moment do not meet: one cache line of
/// pointers. More threads than that at the same instant still find the stack.
const SLOTS: usize = if cfg!(loom) { 1 } else { 8 };

#[repr(align(128))]
pub(crate) struct Shelf {
    slots: [AtomicPtr<Header>; SLOTS],
    /// Pushed by anyone, taken whole. `CLOSED` once the pool ended.
    stack: AtomicPtr<Header>,
    /// How many times a thread went to hold blocks for a moment, of which it puts some on the shelf again; and how many
    /// times it was done.
    visits_begun: AtomicUsize,
    visits_ended: AtomicUsize,
}

/// A thread has blocks of this shelf in its hand for a moment: while it cuts a string, carves a slab, or trims.
pub(crate) struct Visit<'a>(&'a Shelf);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Release: who counts this end (Acquire, in `visits_ended`) finds on the shelf what was put there.
        self.0.visits_ended.fetch_add(1, Ordering::Release);
    }
}

/// The pool has ended: its memory goes with the last packet.
pub(crate) struct Closed;

/// Stands in `stack` after the end. No block has this address: headers are aligned.
const CLOSED: *mut Header = ptr::without_provenance_mut(1);

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf {
            slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            stack: AtomicPtr::new(ptr::null_mut()),
            visits_begun: AtomicUsize::new(0),
            visits_ended: AtomicUsize::new(0),
        }
    }

    /// Takes up to `most` blocks.
    pub(crate) fn take(&self, most: usize) -> Option<Chain> {
        let _visit = self.visit();
        let string = self.take_string();
        // SAFETY: the exchange gave us the whole string.
        let (chain, rest) = unsafe { Chain::cut(string, most) };
        self.put(rest);
        (chain.len() > 0).then_some(chain)
    }

    /// Begins to hold blocks that the shelf, for that moment, seems not to have.
    pub(crate) fn visit(&self) -> Visit<'_> {
        // Relaxed: whoever misses the blocks because of this visit learnt it by an Acquire of what the visit wrote after.
        self.visits_begun.fetch_add(1, Ordering::Relaxed);
        Visit(self)
    }

    pub(crate) fn visits_ended(&self) -> usize {
        self.visits_ended.load(Ordering::Acquire)
    }

    /// Whether nobody was on a visit from when `ended` was read until now: then what was not found was not there.
    pub(crate) fn was_quiet_since(&self, ended: usize) -> bool {
        // A begin that this misses is one whose effects the caller did not meet either.
        self.visits_begun.load(Ordering::Relaxed) == ended
    }

    /// Puts a chain on the shelf.
    pub(crate) fn give(&self, chain: Chain) {
        self.put(chain.into_head());
    }

    /// Puts one block on the shelf, from a thread that may not even keep the pool alive: once this succeeded the pool
    /// may be gone.
    ///
    /// # Safety
    /// The block is idle and in the caller's hand, which gives it up.
    pub(crate) unsafe fn give_one(&self, block: Block) -> Result<(), Closed> {
        // SAFETY: one block is a string that ends with itself.
        unsafe { self.push(block, block) }
    }

    /// Takes all there is. The caller is on a visit and puts back what it does not free.
    pub(crate) fn take_all(&self, _visit: &Visit<'_>) -> Vec<Block> {
        let mut blocks = Vec::new();
        for holder in self.slots.iter().chain([&self.stack]) {
            collect(holder.swap(ptr::null_mut(), Ordering::AcqRel), &mut blocks);
        }
        blocks
    }

    /// Closes the shelf for good and answers how many blocks lay on it. From now on `give_one` answers `Closed`.
    ///
    /// Only the end of the pool calls this: no thread is left that takes.
    pub(crate) fn close(&self) -> usize {
        let mut blocks = Vec::new();
        for slot in &self.slots {
            collect(slot.swap(ptr::null_mut(), Ordering::Acquire), &mut blocks);
        }
        collect(self.stack.swap(CLOSED, Ordering::Acquire), &mut blocks);
        blocks.len()
    }

    fn take_string(&self) -> *mut Header {
        for holder in self.slots.iter().chain([&self.stack]) {
            // A look first: an exchange on an empty place would only take the cache line from its writer. Acquire: the
            // blocks' headers as their giver (Release) left them. The look acquires too: whoever finds a place empty
            // also sees that the visit which emptied it began.
            if !holder.load(Ordering::Acquire).is_null() {
                let string = holder.swap(ptr::null_mut(), Ordering::AcqRel);
                if !string.is_null() {
                    return string;
                }
            }
        }
        ptr::null_mut()
    }

    fn put(&self, string: *mut Header) {
        let Some(head) = Block::from_ptr(string) else { return };
        // The stack's place comes last and only while it is empty: no need to know the string's end.
        for holder in self.slots.iter().chain([&self.stack]) {
            // Release: partner of the Acquire in `take_string`.
            let empty = holder.load(Ordering::Relaxed).is_null();
            if empty
                && holder
                    .compare_exchange(ptr::null_mut(), string, Ordering::Release, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
        }
        // SAFETY: the string is still in our hand.
        let pushed = unsafe {
            let (last, _) = last_of(head);
            self.push(head, last)
        };
        debug_assert!(pushed.is_ok(), "a shelf closes after all who use it left");
    }

    /// # Safety
    /// `head` to `last` is a string of idle blocks in the caller's hand, which gives it up.
    unsafe fn push(&self, head: Block, last: Block) -> Result<(), Closed> {
        let mut top = self.stack.load(Ordering::Relaxed);
        loop {
            if top == CLOSED {
                return Err(Closed);
            }
            // SAFETY: not on the shelf yet: ours.
            unsafe { last.set_next(top) };
            // Release: partner of the Acquire in `take_string`.
            match self.stack.compare_exchange_weak(top, head.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => top = now,
            }
        }
    }
}

/// Collects a string that an exchange put into our hand.
fn collect(string: *mut Header, into: &mut Vec<Block>) {
    let mut at = string;
    while let Some(block) = Block::from_ptr(at) {
        into.push(block);
        // SAFETY: in our hand.
        at = unsafe { block.next() };
    }
}
