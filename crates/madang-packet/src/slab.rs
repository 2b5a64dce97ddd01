//! Slabs: the pool's memory, taken from the allocator a chunk at a time and carved into blocks of one class.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::{self, NonNull};

use crate::block::Block;
use crate::class::block_bytes;
use crate::sync::{AtomicPtr, Ordering};

/// What a slab keeps for itself in front of its blocks: a cache line, so that blocks begin on one.
pub(crate) const SLAB_HEADER_BYTES: usize = 64;

const _: () = assert!(size_of::<Slab>() <= SLAB_HEADER_BYTES);

/// Lies at the front of its own memory. `class` and `blocks` never change; `next` belongs to the list it is in.
pub(crate) struct Slab {
    next: *mut Slab,
    class: usize,
    blocks: usize,
}

impl Slab {
    pub(crate) const fn bytes(class: usize, blocks: usize) -> usize {
        SLAB_HEADER_BYTES + blocks * block_bytes(class)
    }

    /// A slab of `blocks` idle blocks of `class`, all in the caller's hand and in no list yet; `None` when the allocator
    /// has nothing.
    pub(crate) fn new(class: usize, blocks: usize) -> Option<NonNull<Slab>> {
        let layout = Slab::layout(class, blocks);
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc(layout) })?;
        let slab = memory.cast::<Slab>();
        // SAFETY: the memory is ours, aligned to a cache line, and begins with room for the slab's own header; block
        // offsets stay inside the layout.
        unsafe {
            slab.write(Slab { next: ptr::null_mut(), class, blocks });
            for index in 0..blocks {
                Block::carve(memory.add(SLAB_HEADER_BYTES + index * block_bytes(class)), class);
            }
        }
        Some(slab)
    }

    /// The block at `index`.
    ///
    /// # Safety
    /// The slab is alive and has more than `index` blocks.
    pub(crate) unsafe fn block(slab: NonNull<Slab>, index: usize) -> Block {
        // SAFETY: the caller keeps the slab alive; each of its blocks was carved, so its address is that of a header.
        unsafe {
            let class = (*slab.as_ptr()).class;
            debug_assert!(index < (*slab.as_ptr()).blocks);
            let at = slab.as_ptr().cast::<u8>().add(SLAB_HEADER_BYTES + index * block_bytes(class));
            Block::from_ptr(at.cast()).expect("an address inside an allocation is not null")
        }
    }

    /// How many blocks the slab has.
    ///
    /// # Safety
    /// The slab is alive.
    pub(crate) unsafe fn blocks(slab: NonNull<Slab>) -> usize {
        // SAFETY: as the caller promises; the count never changes.
        unsafe { (*slab.as_ptr()).blocks }
    }

    /// Gives the memory back and answers how many bytes that was.
    ///
    /// # Safety
    /// The slab and all its blocks are in the caller's hand, which gives them up; it is in no list.
    pub(crate) unsafe fn free(slab: NonNull<Slab>) -> usize {
        // SAFETY: `new` allocated the slab with this very layout, and the caller is the only hand.
        unsafe {
            let Slab { class, blocks, .. } = slab.read();
            for index in 0..blocks {
                Slab::block(slab, index).dissolve();
            }
            dealloc(slab.as_ptr().cast(), Slab::layout(class, blocks));
            Slab::bytes(class, blocks)
        }
    }

    fn layout(class: usize, blocks: usize) -> Layout {
        Layout::from_size_align(Slab::bytes(class, blocks), 64)
            .expect("a slab is at most 16 MiB and a little")
    }
}

/// All slabs of one class. Threads push; only a trim and the end of the pool take, everything at once, so that no thread
/// ever follows a pointer to a slab that may be freed.
pub(crate) struct SlabList(AtomicPtr<Slab>);

impl SlabList {
    pub(crate) fn new() -> SlabList {
        SlabList(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn push(&self, slab: NonNull<Slab>) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: the slab is not in the list yet: the caller's alone.
            unsafe { (*slab.as_ptr()).next = head };
            // Release: whoever takes the list (Acquire) sees the slab's header.
            match self.0.compare_exchange_weak(head, slab.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Empties the list into the caller's hand.
    pub(crate) fn take_all(&self) -> Vec<NonNull<Slab>> {
        let mut slabs = Vec::new();
        let mut at = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(slab) = NonNull::new(at) {
            slabs.push(slab);
            // SAFETY: taken by the swap, so ours alone.
            at = unsafe { (*slab.as_ptr()).next };
        }
        slabs
    }
}
