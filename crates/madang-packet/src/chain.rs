//! Idle blocks strung together through their own headers.

use crate::block::{Block, Header};
use std::ptr;

/// A last-in-first-out list of idle blocks: what was used last, and is still in the cache, is used next. It owns its
/// blocks: they are in nobody else's hand.
pub(crate) struct Chain {
    head: *mut Header,
    len: usize,
}

impl Chain {
    pub(crate) const EMPTY: Chain = Chain { head: ptr::null_mut(), len: 0 };

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// The block is idle and in the caller's hand, which gives it to the chain.
    #[inline(always)]
    pub(crate) unsafe fn push(&mut self, block: Block) {
        // SAFETY: as the caller promises.
        unsafe { block.set_next(self.head) };
        self.head = block.as_ptr();
        self.len += 1;
    }

    /// The block is in the caller's hand after this.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Block> {
        let block = Block::from_ptr(self.head)?;
        // SAFETY: the chain owns its blocks.
        self.head = unsafe { block.next() };
        self.len -= 1;
        Some(block)
    }

    /// Takes up to `most` blocks off the string that begins at `head`, and answers them with what is left.
    ///
    /// # Safety
    /// `head` is null or begins a string of idle blocks in the caller's hand, ended by null.
    pub(crate) unsafe fn cut(head: *mut Header, most: usize) -> (Chain, *mut Header) {
        let mut last = None;
        let (mut at, mut len) = (head, 0);
        while let Some(block) = Block::from_ptr(at).filter(|_| len < most) {
            // SAFETY: the string is in the caller's hand.
            at = unsafe { block.next() };
            last = Some(block);
            len += 1;
        }
        let Some(last) = last else { return (Chain::EMPTY, at) };
        // SAFETY: as above.
        unsafe { last.set_next(ptr::null_mut()) };
        (Chain { head, len }, at)
    }

    /// Gives up the chain: its first block, which leads to the others.
    pub(crate) fn into_head(self) -> *mut Header {
        self.head
    }
}

/// The last block of the string that begins at `head`, and how many there are.
///
/// # Safety
/// `head` begins a string of idle blocks in the caller's hand, ended by null.
pub(crate) unsafe fn last_of(head: Block) -> (Block, usize) {
    let (mut last, mut len) = (head, 1);
    // SAFETY: the string is in the caller's hand.
    while let Some(next) = Block::from_ptr(unsafe { last.next() }) {
        last = next;
        len += 1;
    }
    (last, len)
}
