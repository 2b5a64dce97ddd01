//! A block: header and bytes in one allocation.
//!
//! ```text
//!  one cache line                                        │ content of the class            │
//!  link 8 │ refs 4 │ start end stop limit 16 │ class… 4 │ headroom 16 │ content … │ tailroom 16
//!                                                        ▲             ▲           ▲
//!                                                        32            start       end   stop
//! ```
//!
//! **The ownership rule.** A block is at any time in exactly one of three hands, and only that hand touches it:
//! an *idle list* (of a magazine, a shelf or a slab being carved), which owns `link` as the next block; one *writer*
//! (`PacketMut`), which owns everything; or *readers* (`Packet`s, counted by `refs`), which may read all but `refs`.
//! Every hand-over happens through a value that is moved, or through an atomic with Release on the giving and Acquire
//! on the taking side.

use std::ptr::{self, NonNull};

use crate::class::{CONTENT_START, HEADROOM, PACKET_BYTES_MAX, block_bytes};
use crate::depot::Core;
use crate::sync::{AtomicU32, Ordering, UnsafeCell};

#[repr(C, align(32))]
pub(crate) struct Header {
    /// While idle: the next block of its list. While out: the pool it belongs to.
    link: UnsafeCell<*mut ()>,
    pub(crate) refs: AtomicU32,
    fields: UnsafeCell<Fields>,
}

/// Offsets count from the block's first byte. Valid while the block is out, except `class` and `state`: always.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Fields {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Where writing has to stop and think: the end of the block or of the packet's limit, whichever comes first; the
    /// end of what was written once a write is missing. Never before `end`.
    pub(crate) stop: u32,
    /// The most bytes of content (what was prepended does not count).
    pub(crate) limit: u32,
    class: u8,
    pub(crate) flags: u8,
    state: u16,
}

/// A write went past the limit and wrote nothing.
pub(crate) const TOO_LONG: u8 = 1;
/// A write needed a larger block, which the pool refused, and wrote nothing.
pub(crate) const EXHAUSTED: u8 = 2;

const OUT: u16 = 0x4D44;
const IDLE: u16 = 0x1D1E;
const GONE: u16 = 0xDEAD;

/// What a debug build fills returned blocks with, so that a stale read is seen.
#[cfg(debug_assertions)]
const POISON: u8 = 0xDD;

/// Names a block; owns nothing by itself. Whoever holds one follows the ownership rule above.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Block(NonNull<Header>);

impl Block {
    /// Makes an idle block of `class` in fresh memory.
    ///
    /// # Safety
    /// `at` is aligned for `Header` and starts `block_bytes(class)` bytes that are the caller's to give away.
    pub(crate) unsafe fn carve(at: NonNull<u8>, class: usize) -> Block {
        let header = at.cast::<Header>();
        let fields =
            Fields { start: 0, end: 0, stop: 0, limit: 0, class: class as u8, flags: 0, state: IDLE };
        // SAFETY: the caller gives this memory away, large and aligned enough for a header.
        unsafe {
            header.write(Header {
                link: UnsafeCell::new(ptr::null_mut()),
                refs: AtomicU32::new(0),
                fields: UnsafeCell::new(fields),
            });
        }
        Block(header)
    }

    /// Ends the header's life; the memory may be freed after this.
    ///
    /// # Safety
    /// The block is idle and in the caller's hand, which gives it up.
    pub(crate) unsafe fn dissolve(self) {
        // SAFETY: the caller is the only hand, and lets go.
        unsafe {
            debug_assert_eq!(self.fields().state, IDLE, "only idle blocks go");
            self.edit(|fields| fields.state = GONE);
            self.0.drop_in_place();
        }
    }

    pub(crate) fn as_ptr(self) -> *mut Header {
        self.0.as_ptr()
    }

    pub(crate) fn from_ptr(header: *mut Header) -> Option<Block> {
        NonNull::new(header).map(Block)
    }

    /// # Safety
    /// The block's memory outlives `'a`: it is in one of the caller's hands for that long.
    #[inline(always)]
    pub(crate) unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: a header was written by `carve` and the caller keeps the memory alive.
        unsafe { self.0.as_ref() }
    }

    /// Makes an idle block a writer's: empty, unflagged, one reference. Nothing else is touched: content is not
    /// cleared, because a writer can only show what it wrote.
    ///
    /// # Safety
    /// The block is idle and in the caller's hand; it belongs to `owner`.
    #[inline(always)]
    pub(crate) unsafe fn open(self, owner: NonNull<Core>, limit: u32) {
        debug_assert!(limit as usize <= PACKET_BYTES_MAX, "a limit is at most the longest packet");
        // SAFETY: as the caller promises.
        let (header, class, state) = unsafe { (self.header(), self.class(), self.fields().state) };
        debug_assert_eq!(state, IDLE, "only an idle block is taken");
        header.refs.store(1, Ordering::Relaxed);
        header.link.with_mut(|link| {
            // SAFETY: the caller is the only hand.
            unsafe { *link = owner.as_ptr().cast() }
        });
        let end_of_block = block_bytes(class) as u32;
        let fresh = Fields {
            start: CONTENT_START as u32,
            end: CONTENT_START as u32,
            stop: end_of_block.min(CONTENT_START as u32 + limit),
            limit,
            class: class as u8,
            flags: 0,
            state: OUT,
        };
        // SAFETY: the caller is the only hand.
        header.fields.with_mut(|fields| unsafe { *fields = fresh });
    }

    /// Makes a block idle again and answers the pool it belongs to.
    ///
    /// # Safety
    /// The block is out, and the caller its last hand.
    #[inline(always)]
    pub(crate) unsafe fn shut(self) -> NonNull<Core> {
        // SAFETY: the caller is the last hand; the header of a block that is out names its pool.
        unsafe {
            let header = self.header();
            debug_assert_eq!(self.fields().state, OUT, "a block is returned once");
            header.fields.with_mut(|fields| (*fields).state = IDLE);
            self.poison();
            header.link.with(|link| NonNull::new_unchecked((*link).cast()))
        }
    }

    /// The pool that a block which is out belongs to.
    ///
    /// # Safety
    /// The block is out and in one of the caller's hands.
    #[inline(always)]
    pub(crate) unsafe fn owner(self) -> NonNull<Core> {
        // SAFETY: as the caller promises; `open` stored a non-null pool.
        unsafe { self.header().link.with(|link| NonNull::new_unchecked((*link).cast())) }
    }

    /// # Safety
    /// The block is idle and in the caller's hand.
    #[inline(always)]
    pub(crate) unsafe fn next(self) -> *mut Header {
        // SAFETY: as the caller promises.
        unsafe { self.header().link.with(|link| (*link).cast()) }
    }

    /// # Safety
    /// The block is idle and in the caller's hand.
    #[inline(always)]
    pub(crate) unsafe fn set_next(self, next: *mut Header) {
        // SAFETY: as the caller promises.
        unsafe { self.header().link.with_mut(|link| *link = next.cast()) }
    }

    /// # Safety
    /// The block is in one of the caller's hands.
    #[inline(always)]
    pub(crate) unsafe fn fields(self) -> Fields {
        // SAFETY: readers never write fields, and a writer or an idle list is the only hand.
        unsafe { self.header().fields.with(|fields| *fields) }
    }

    /// # Safety
    /// The caller is the only hand, and `edit` does not reach the block by another way.
    #[inline(always)]
    pub(crate) unsafe fn edit<R>(self, edit: impl FnOnce(&mut Fields) -> R) -> R {
        // SAFETY: as the caller promises.
        unsafe { self.header().fields.with_mut(|fields| edit(&mut *fields)) }
    }

    /// # Safety
    /// The block is in one of the caller's hands.
    #[inline(always)]
    pub(crate) unsafe fn class(self) -> usize {
        // SAFETY: as the caller promises; the class never changes.
        unsafe { self.header().fields.with(|fields| (*fields).class as usize) }
    }

    /// The byte at `offset` from the block's first.
    ///
    /// # Safety
    /// The block's memory is alive and `offset` within it.
    #[inline(always)]
    pub(crate) unsafe fn byte(self, offset: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset) }
    }

    /// # Safety
    /// The caller is the only hand.
    #[cfg(debug_assertions)]
    unsafe fn poison(self) {
        let from = size_of::<Header>();
        // SAFETY: these bytes are the block's own, behind its header, and nobody else's to read.
        unsafe { ptr::write_bytes(self.byte(from), POISON, block_bytes(self.class()) - from) }
    }

    #[cfg(not(debug_assertions))]
    #[inline(always)]
    unsafe fn poison(self) {}
}

impl Fields {
    /// Sets `stop` from the limit and the block's end, or right here when a write is missing already.
    pub(crate) fn find_stop(&mut self) {
        let end_of_block = block_bytes(self.class as usize);
        self.stop = match self.flags {
            0 => end_of_block.min(CONTENT_START + self.limit as usize) as u32,
            _ => self.end,
        };
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Bytes of room in front of what was written.
    #[inline(always)]
    pub(crate) fn headroom(&self) -> usize {
        self.start as usize - (CONTENT_START - HEADROOM)
    }

    /// Bytes of room behind what was written.
    #[inline(always)]
    pub(crate) fn tailroom(&self) -> usize {
        block_bytes(self.class as usize) - self.end as usize
    }
}
