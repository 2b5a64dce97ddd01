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
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, spin_loop};

/// Strings that can lie side by side, so that threads that exchange at the same moment do not meet: one cache line of
/// pointers. More threads than that at the same instant still find the stack.
const SLOTS: usize = if cfg!(loom) { 1 } else { 8 };

/// How often a thread that would be refused looks again while another one has the shelf's blocks in its hands: at about
/// 10 ns each some microseconds, far longer than cutting a batch takes.
const LOOKS_MAX: usize = if cfg!(loom) { 2 } else { 500 };

#[repr(align(128))]
pub(crate) struct Shelf {
    slots: [AtomicPtr<Header>; SLOTS],
    /// Pushed by anyone, taken whole. `CLOSED` once the pool ended.
    stack: AtomicPtr<Header>,
    /// Threads that hold a string from here and have not put the rest back.
    walkers: AtomicUsize,
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
            walkers: AtomicUsize::new(0),
        }
    }

    /// Takes up to `most` blocks.
    pub(crate) fn take(&self, most: usize) -> Option<Chain> {
        self.walkers.fetch_add(1, Ordering::Relaxed);
        let string = self.take_string();
        // SAFETY: the exchange gave us the whole string.
        let (chain, rest) = unsafe { Chain::cut(string, most) };
        self.put(rest);
        // Release: who reads the count (Acquire, `take_patiently`) finds the rest on the shelf.
        self.walkers.fetch_sub(1, Ordering::Release);
        (chain.len() > 0).then_some(chain)
    }

    /// Takes up to `most` blocks; before answering that there are none, lets those put theirs back who hold some for the
    /// length of a cut. Bounded: a thread that was preempted there is not waited for.
    pub(crate) fn take_patiently(&self, most: usize) -> Option<Chain> {
        for _ in 0..LOOKS_MAX {
            let quiet = self.walkers.load(Ordering::Acquire) == 0;
            let chain = self.take(most);
            if chain.is_some() || quiet {
                return chain;
            }
            spin_loop();
        }
        None
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

    /// Takes all there is: the caller brings it back with `give_string`, or frees it. Between the two the caller counts
    /// as a walker, so that others are patient.
    pub(crate) fn take_all(&self) -> Vec<Block> {
        self.walkers.fetch_add(1, Ordering::Relaxed);
        let mut blocks = Vec::new();
        for holder in self.slots.iter().chain([&self.stack]) {
            collect(holder.swap(ptr::null_mut(), Ordering::Acquire), &mut blocks);
        }
        blocks
    }

    /// Ends what `take_all` began.
    pub(crate) fn give_all(&self, blocks: Vec<Block>) {
        let mut chain = Chain::EMPTY;
        for block in blocks {
            // SAFETY: `take_all` put these blocks into our hand.
            unsafe { chain.push(block) };
        }
        self.give(chain);
        self.walkers.fetch_sub(1, Ordering::Release);
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
            // also sees the walker that emptied it.
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
