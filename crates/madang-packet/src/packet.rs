//! The packet once it is written: shared, read-only, counted inside its own block.
//!
//! # Why this is as fast as counting by hand
//! A school that counts by hand keeps an integer in the packet, adds one per queue the packet enters, and takes one off
//! when a send completes. This is the same integer at the same place: the count lies in the block's header, on the cache
//! line of the packet's first bytes; there is no wrapper object, and a [`Packet`] is one pointer. What the hand knows,
//! the types know:
//!
//! - A packet that is moved, into a queue, into a send, to another thread, touches no count: that is a pointer copy.
//! - A clone is one relaxed add; it needs no ordering, because who clones already holds a reference.
//! - A drop first looks. Whoever reads a count of one is alone, nobody else can add to it, and so the common packet, sent
//!   to one session, is never written by a locked instruction at all. Only a packet that is truly shared pays one.
//! - A broadcast knows its number: [`Packet::shares`] adds it at once and hands out the shares for nothing.
//!
//! What the hand may forget, it cannot: no path out of a function leaves the count wrong.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::block::{Block, EXHAUSTED, TOO_LONG};
use crate::magazine::release_block;
use crate::packet_mut::PacketMut;
use crate::sync::{AtomicU32, Ordering};

/// A packet that can be shared and sent: one pointer wide, and so is `Option<Packet>`.
///
/// Cloning shares the bytes. They do not change and do not move while any clone lives, on whichever thread, so an
/// operation that holds a `Packet` may hand their address to the kernel. The last clone returns the block to its pool.
pub struct Packet {
    block: Block,
}

// SAFETY: holders of a `Packet` only read the block, count with atomics, and may release it on any thread.
unsafe impl Send for Packet {}
// SAFETY: as above.
unsafe impl Sync for Packet {}

/// More clones than memory could hold; reached only by leaking them. Far enough from the integer's end that threads which
/// pass it at the same moment cannot wrap it before one of them aborts.
const REFS_MAX: u32 = 1 << 31;

impl Packet {
    /// # Safety
    /// The block is out, and the caller gives up one of its references.
    #[inline(always)]
    pub(crate) unsafe fn from_block(block: Block) -> Packet {
        Packet { block }
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.fields().len()
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let fields = self.fields();
        // SAFETY: the bytes from `start` to `end` were written before the packet was shared, and never after.
        unsafe { std::slice::from_raw_parts(self.block.byte(fields.start as usize), fields.len()) }
    }

    /// Whether a write went past the limit while it was made, so that its content is not whole; see
    /// [`PacketMut::is_too_long`].
    #[inline]
    pub fn is_too_long(&self) -> bool {
        self.fields().flags & TOO_LONG != 0
    }

    /// Whether the pool refused it a larger block while it was made, so that its content is not whole; see
    /// [`PacketMut::is_exhausted`].
    #[inline]
    pub fn is_exhausted(&self) -> bool {
        self.fields().flags & EXHAUSTED != 0
    }

    /// Whether all that was written to it is there: neither [too long](Packet::is_too_long) nor
    /// [exhausted](Packet::is_exhausted).
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.fields().flags == 0
    }

    /// Bytes that can be [prepended](PacketMut::prepend) once it is writable again.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.fields().headroom()
    }

    /// Bytes that can be appended once it is writable again, without moving to a larger block.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.fields().tailroom()
    }

    /// Where it lies, as a number. Two packets in the same place are clones of each other, as long as one of them lives.
    #[inline]
    pub fn place(&self) -> usize {
        self.block.as_ptr().addr()
    }

    /// Whether this is the only reference at this moment. `true` stays true as long as the caller does not clone.
    #[inline]
    pub fn is_unique(&self) -> bool {
        // Acquire: what others read, they have read before they let go (their Release).
        self.refs().load(Ordering::Acquire) == 1
    }

    /// Makes it writable again, if this is the only reference; nothing is copied.
    ///
    /// # Errors
    /// The packet itself, unchanged, when it is shared.
    pub fn try_into_mut(self) -> Result<PacketMut, Packet> {
        if !self.is_unique() {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: the only reference, which `this` gives up.
        Ok(unsafe { PacketMut::from_block(this.block) })
    }

    /// The packet for `count` receivers: an iterator that yields it `count` times, for one atomic add at the beginning.
    ///
    /// Shares that are not taken are given back together when the iterator is dropped.
    ///
    /// ```
    /// # use madang_packet::{Depot, PoolSettings};
    /// # let depot = Depot::new(PoolSettings::default());
    /// # let packet = depot.packet(32)?.freeze();
    /// # let mut queues = vec![Vec::new(); 1000];
    /// for (queue, share) in queues.iter_mut().zip(packet.shares(1000)) {
    ///     queue.push(share);
    /// }
    /// # Ok::<_, madang_packet::PoolExhausted>(())
    /// ```
    pub fn shares(self, count: usize) -> Shares {
        let this = ManuallyDrop::new(self);
        let left = u32::try_from(count).ok().filter(|count| *count < REFS_MAX).unwrap_or_else(too_many);
        let shares = Shares { block: this.block, left };
        match left {
            // SAFETY: `this` is one reference, and gives it up.
            0 => unsafe { release_refs(this.block, 1) },
            1 => {}
            _ => add_refs(this.refs(), left - 1),
        }
        shares
    }

    fn refs(&self) -> &AtomicU32 {
        // SAFETY: this reference keeps the block.
        unsafe { &self.block.header().refs }
    }

    #[inline(always)]
    fn fields(&self) -> crate::block::Fields {
        // SAFETY: this reference keeps the block.
        unsafe { self.block.fields() }
    }
}

impl Clone for Packet {
    #[inline]
    fn clone(&self) -> Packet {
        add_refs(self.refs(), 1);
        Packet { block: self.block }
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is one reference, and gives it up.
        unsafe { release_refs(self.block, 1) }
    }
}

impl Deref for Packet {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<PacketMut> for Packet {
    fn from(packet: PacketMut) -> Packet {
        packet.freeze()
    }
}

impl fmt::Debug for Packet {
    /// Says how long it is and not what is in it: contents do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.len())
            .field("is_too_long", &self.is_too_long())
            .field("is_exhausted", &self.is_exhausted())
            .finish()
    }
}

/// Shares of one packet; see [`Packet::shares`].
pub struct Shares {
    block: Block,
    /// References that this iterator still owns. The block is ours only while it is not zero.
    left: u32,
}

// SAFETY: a number of `Packet`s, which may be sent.
unsafe impl Send for Shares {}
// SAFETY: nothing can be done through `&Shares` but reading the number.
unsafe impl Sync for Shares {}

impl Shares {
    /// Takes a share back, if it is one of this packet: it is given up with all others, for one atomic subtraction at the
    /// end. The other way round than [`Packet::shares`], for who holds many of them.
    ///
    /// # Errors
    /// The packet itself, when it is another one.
    #[inline]
    pub fn take_back(&mut self, packet: Packet) -> Result<(), Packet> {
        if packet.block.as_ptr() != self.block.as_ptr() {
            return Err(packet);
        }
        // Its reference is ours from here on, and keeps the block if none of ours was left to do so.
        self.left += 1;
        std::mem::forget(packet);
        Ok(())
    }
}

impl Iterator for Shares {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: one of the references that were added in advance.
        Some(unsafe { Packet::from_block(self.block) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Shares {}
impl std::iter::FusedIterator for Shares {}

impl Drop for Shares {
    #[inline]
    fn drop(&mut self) {
        if self.left > 0 {
            // SAFETY: the references that were not handed out.
            unsafe { release_refs(self.block, self.left) }
        }
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("left", &self.left).finish_non_exhaustive()
    }
}

#[inline(always)]
fn add_refs(refs: &AtomicU32, count: u32) {
    // Relaxed: the caller's own reference keeps the block, and a new one is handed on by whatever hands on the packet.
    if refs.fetch_add(count, Ordering::Relaxed) >= REFS_MAX {
        too_many();
    }
}

/// # Safety
/// The caller gives up `count` of the block's references.
#[inline(always)]
unsafe fn release_refs(block: Block, count: u32) {
    // SAFETY: the caller's references keep the block until they are given up.
    let refs = unsafe { &block.header().refs };
    // All that there are: nobody else can add one, so the count needs no write. Acquire pairs with the Release below, in
    // the drops of the others: what they read, they have read.
    if refs.load(Ordering::Acquire) != count {
        if refs.fetch_sub(count, Ordering::Release) != count {
            return;
        }
        // The same pairing for who was last by the subtraction. A load and not a fence: ThreadSanitizer sees it.
        refs.load(Ordering::Acquire);
    }
    // SAFETY: these were the last references.
    unsafe { release_block(block) }
}

/// Like `Arc`: going on would let the count wrap and free what is in use.
#[cold]
#[inline(never)]
fn too_many() -> u32 {
    eprintln!("madang-packet: a packet has more than {REFS_MAX} references: they are being leaked");
    std::process::abort();
}
