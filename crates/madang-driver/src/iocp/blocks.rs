//! The fixed memory of operations: what the system writes to until a packet comes back.
//!
//! ```text
//!   block   0        1        2        3      …            2·i: the receive, or the connect, of connection i
//!        [ recv 0 | send 0 | recv 1 | send 1 | …    ]      2·i + 1: its send
//! ```
//!
//! A block belongs to one operation of one place for good, so a packet's `OVERLAPPED` names its operation by where it
//! lies, never by a socket's number, which the system hands out again at once. It is read and written through pointers
//! alone: the system does so too, at any time until the packet was taken.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use windows_sys::Win32::Foundation::NTSTATUS;
use windows_sys::Win32::System::IO::OVERLAPPED;

/// What begins with an `OVERLAPPED` (or is one), and may be all zero.
///
/// # Safety
/// Both have to be true: a pointer to the block is used as one to an `OVERLAPPED` and back.
pub(super) unsafe trait Block {}

// SAFETY: it is one; a null pointer, zero and no event are what a fresh one has.
unsafe impl Block for OVERLAPPED {}

/// So many blocks, reserved at once and never moved; a page is touched when its first block is used.
///
/// Whoever drops it has seen the packet of every operation that was begun here, or forgets it instead: the system writes
/// into it until then.
pub(super) struct Blocks<B> {
    first: NonNull<B>,
    len: usize,
}

impl<B: Block> Blocks<B> {
    pub(super) fn new(len: usize) -> Blocks<B> {
        let len = len.max(1);
        // SAFETY: the layout is not empty: there is a block at least, and it holds an `OVERLAPPED`.
        let first = unsafe { alloc_zeroed(Blocks::<B>::layout(len)) };
        let Some(first) = NonNull::new(first.cast()) else { handle_alloc_error(Blocks::<B>::layout(len)) };
        Blocks { first, len }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<B>(len).expect("the settings' limits fit into the address space")
    }

    /// The block, for the system and for reading after its packet.
    ///
    /// # Panics
    /// Past the end.
    pub(super) fn at(&self, index: usize) -> *mut B {
        assert!(index < self.len, "block {index} of {}", self.len);
        // SAFETY: inside the one allocation, as just asserted.
        unsafe { self.first.add(index).as_ptr() }
    }

    /// W08: clears the block's `OVERLAPPED`, which is to be done before each submission. No operation may be under way there.
    pub(super) fn begin(&self, index: usize) -> *mut OVERLAPPED {
        let overlapped: *mut OVERLAPPED = self.at(index).cast();
        // SAFETY: a block begins with its `OVERLAPPED`, inside the allocation; nobody reads or writes it now, since no
        // operation is under way there.
        unsafe { overlapped.write(OVERLAPPED::default()) };
        overlapped
    }

    /// W03: which block this is; `None` for memory that is not ours.
    pub(super) fn index_of(&self, overlapped: *mut OVERLAPPED) -> Option<usize> {
        let offset = (overlapped as usize).checked_sub(self.first.as_ptr() as usize)?;
        let index = offset / size_of::<B>();
        (index < self.len && offset % size_of::<B>() == 0).then_some(index)
    }

    /// How the operation of this block ended, once its packet was taken.
    pub(super) fn status(&self, index: usize) -> NTSTATUS {
        let overlapped: *mut OVERLAPPED = self.at(index).cast();
        // SAFETY: as in `begin`; the system has written its last word there before it queued the packet. Volatile, because
        // the compiler has not seen that write.
        unsafe { (&raw const (*overlapped).Internal).read_volatile() as NTSTATUS }
    }
}

impl<B> Drop for Blocks<B> {
    fn drop(&mut self) {
        let layout = Layout::array::<MaybeUninit<B>>(self.len).expect("it was allocated");
        // SAFETY: `new` allocated it with the same layout, and nobody freed it since. Blocks own nothing, and the system has
        // given all of them back: the promise of whoever drops this.
        unsafe { dealloc(self.first.as_ptr().cast(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w03_an_operation_is_found_by_its_memory_and_by_nothing_else() {
        let blocks = Blocks::<OVERLAPPED>::new(10);
        for index in 0..10 {
            assert_eq!(blocks.index_of(blocks.at(index)), Some(index));
        }
        let first = blocks.at(0);
        let odd =
            [first.wrapping_byte_add(1), first.wrapping_sub(1), first.wrapping_add(10), std::ptr::null_mut()];
        for overlapped in odd {
            assert_eq!(blocks.index_of(overlapped), None);
        }
    }

    #[test]
    fn w08_a_block_is_clean_before_each_submission() {
        let blocks = Blocks::<OVERLAPPED>::new(1);
        // SAFETY: the block is ours, nothing is under way there.
        unsafe { (*blocks.at(0)).Internal = usize::MAX };
        assert_ne!(blocks.status(0), 0);
        blocks.begin(0);
        assert_eq!(blocks.status(0), 0);
    }
}
