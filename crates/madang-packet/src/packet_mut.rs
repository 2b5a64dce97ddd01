//! The packet while it is being written: unique, writable, growing.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use crate::block::{Block, EXHAUSTED, TOO_LONG};
use crate::class::{CONTENT_START, PACKET_BYTES_MAX, block_bytes, class_for};
use crate::depot::Core;
use crate::magazine::release_block;
use crate::packet::Packet;

/// A packet that one owner writes.
///
/// Made by a [`Magazine`](crate::Magazine) or a [`Depot`](crate::Depot), never otherwise; returns to its pool when it is
/// dropped, on any thread. [`freeze`](PacketMut::freeze) makes it a [`Packet`], which can be shared but not written.
///
/// # Writing
/// The typed writers append little-endian values and answer `self`, so that they chain; they cannot fail at the call. A
/// write that would pass the [`limit`](PacketMut::limit) writes nothing and is remembered:
/// [`is_too_long`](PacketMut::is_too_long). One that needs a larger block, which the pool refuses, likewise:
/// [`is_exhausted`](PacketMut::is_exhausted). From then on nothing more is written, so that what there is, is always a
/// clean beginning. Both stay with the packet when it is frozen: whoever is about to send it asks once, at the end.
///
/// ```
/// # use madang_packet::{Depot, PoolSettings};
/// # let depot = Depot::new(PoolSettings::default());
/// let mut packet = depot.packet(32)?;
/// packet.u16(7).str("마당").f32(0.5);
/// assert_eq!(packet.len(), 2 + (2 + 6) + 4);
/// assert!(!packet.is_too_long());
/// # Ok::<_, madang_packet::PoolExhausted>(())
/// ```
///
/// Only bytes that were written can be read back: a recycled block never shows what it held before.
// One word, with its cursor in the block's header and not at hand. That was measured the other way round: a row of ten
// writes then takes 10 ns and not 12, but each packet that is returned or moved pays 12 ns, because a copy reads in one
// piece what was just stored in three, which a processor cannot forward.
pub struct PacketMut {
    block: Block,
}

// SAFETY: a `PacketMut` is the only hand on its block, and a block may be released on any thread.
unsafe impl Send for PacketMut {}
// SAFETY: through `&PacketMut` the block is only read.
unsafe impl Sync for PacketMut {}

impl PacketMut {
    /// # Safety
    /// The block is idle and in the caller's hand, which gives it up; it belongs to `owner`.
    #[inline(always)]
    pub(crate) unsafe fn open(block: Block, owner: NonNull<Core>) -> PacketMut {
        // SAFETY: as the caller promises.
        unsafe { PacketMut::open_within(block, owner, PACKET_BYTES_MAX as u32) }
    }

    /// As [`open`](PacketMut::open), with a limit from the start.
    ///
    /// # Safety
    /// As [`open`](PacketMut::open).
    #[inline(always)]
    pub(crate) unsafe fn open_within(block: Block, owner: NonNull<Core>, limit: u32) -> PacketMut {
        // SAFETY: as the caller promises.
        unsafe { block.open(owner, limit) };
        PacketMut { block }
    }

    /// # Safety
    /// The caller is the only hand on the block, which is out, and gives it up.
    pub(crate) unsafe fn from_block(block: Block) -> PacketMut {
        PacketMut { block }
    }

    /// Makes it a packet that can be shared. Nothing is copied; room that was not used stays with the block.
    #[inline]
    pub fn freeze(self) -> Packet {
        let this = ManuallyDrop::new(self);
        // SAFETY: the block is out with one reference, which `this` gives up.
        unsafe { Packet::from_block(this.block) }
    }

    /// Bytes written, prepended ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.fields().len()
    }

    /// Whether nothing was written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the packet can hold before it moves to a larger block; at least what it was made with.
    pub fn capacity(&self) -> usize {
        let fields = self.fields();
        self.block_end() - fields.start as usize
    }

    /// Bytes that can be [prepended](PacketMut::prepend): [`HEADROOM`](crate::HEADROOM) in a fresh packet.
    pub fn headroom(&self) -> usize {
        self.fields().headroom()
    }

    /// Bytes that can be appended without moving to a larger block.
    pub fn tailroom(&self) -> usize {
        self.fields().tailroom()
    }

    /// The most bytes that the packet may be written to, [`PACKET_BYTES_MAX`] unless set; prepended ones do not count.
    pub fn limit(&self) -> usize {
        self.fields().limit as usize
    }

    /// Sets the limit, at most [`PACKET_BYTES_MAX`]. If more was written already, the packet is too long from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.edit(|fields| {
            fields.limit = limit.min(PACKET_BYTES_MAX) as u32;
            if fields.end as usize > CONTENT_START + fields.limit as usize {
                fields.flags |= TOO_LONG;
            }
            fields.find_stop();
        });
    }

    /// Whether a write went past the limit, and so is missing. Stays until [`clear`](PacketMut::clear).
    #[inline]
    pub fn is_too_long(&self) -> bool {
        self.fields().flags & TOO_LONG != 0
    }

    /// Whether a write is missing because the pool refused the larger block that it needed. Stays until
    /// [`clear`](PacketMut::clear).
    #[inline]
    pub fn is_exhausted(&self) -> bool {
        self.fields().flags & EXHAUSTED != 0
    }

    /// What was written.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let fields = self.fields();
        // SAFETY: the bytes from `start` to `end` were written, and no one writes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.block.byte(fields.start as usize), fields.len()) }
    }

    /// What was written, to change in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let fields = self.fields();
        // SAFETY: the bytes from `start` to `end` were written, and `self` is the only hand.
        unsafe { std::slice::from_raw_parts_mut(self.block.byte(fields.start as usize), fields.len()) }
    }

    /// Keeps the first `len` bytes; does nothing when there are not more.
    pub fn truncate(&mut self, len: usize) {
        self.edit(|fields| {
            let len = len.min(fields.len()) as u32;
            fields.end = fields.start + len;
            fields.find_stop();
        });
    }

    /// Forgets what was written, and that something was too long. The limit stays.
    pub fn clear(&mut self) {
        self.edit(|fields| {
            (fields.start, fields.end) = (CONTENT_START as u32, CONTENT_START as u32);
            fields.flags = 0;
            fields.find_stop();
        });
    }

    /// Appends the bytes as they are. The unchained twin of [`bytes`](PacketMut::bytes).
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if let Some(room) = self.claim(bytes.len()) {
            // SAFETY: `claim` answered room for that many bytes of this block, which no slice of the caller overlaps.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), room, bytes.len()) }
        }
    }

    /// Appends a header and what stands behind it in one step; both are written, or neither. What a framing does for each
    /// message that it copies.
    #[inline]
    pub fn extend_from_parts<const HEADER: usize>(&mut self, header: [u8; HEADER], bytes: &[u8]) {
        let Some(all) = bytes.len().checked_add(HEADER) else { return self.mark_too_long() };
        if let Some(room) = self.claim(all) {
            // SAFETY: `claim` answered room for both of this block, which no slice of the caller overlaps.
            unsafe {
                ptr::copy_nonoverlapping(header.as_ptr(), room, HEADER);
                ptr::copy_nonoverlapping(bytes.as_ptr(), room.add(HEADER), bytes.len());
            }
        }
    }

    /// Puts a header in front of what was written: no byte of it moves. Does not count towards the limit.
    ///
    /// # Errors
    /// [`NoHeadroom`], and nothing is written, when the header is longer than the [`headroom`](PacketMut::headroom).
    pub fn prepend(&mut self, header: &[u8]) -> Result<(), NoHeadroom> {
        let headroom = self.headroom();
        if header.len() > headroom {
            return Err(NoHeadroom { asked: header.len(), headroom });
        }
        let start = self.edit(|fields| {
            fields.start -= header.len() as u32;
            fields.start as usize
        });
        // SAFETY: these bytes lie behind the block's header, in front of the content, and are ours alone.
        unsafe { ptr::copy_nonoverlapping(header.as_ptr(), self.block.byte(start), header.len()) }
        Ok(())
    }

    /// Room for `count` more bytes, which now count as written: the caller writes all of them.
    #[inline(always)]
    pub(crate) fn claim(&mut self, count: usize) -> Option<*mut u8> {
        let end = self.edit(|fields| {
            if (fields.stop - fields.end) as usize >= count {
                fields.end += count as u32;
                Some(fields.end as usize - count)
            } else {
                None
            }
        });
        match end {
            // SAFETY: `stop` is within the block.
            Some(end) => Some(unsafe { self.block.byte(end) }),
            None => self.claim_slowly(count),
        }
    }

    #[cold]
    #[inline(never)]
    fn claim_slowly(&mut self, count: usize) -> Option<*mut u8> {
        let fields = self.fields();
        if fields.flags != 0 {
            return None;
        }
        let end = (fields.end as usize).checked_add(count);
        match end.map(|end| end.saturating_sub(CONTENT_START)) {
            Some(content) if content <= self.limit() => self.grow(content)?,
            _ => {
                self.mark(TOO_LONG);
                return None;
            }
        }
        self.claim(count)
    }

    /// Moves to a block that holds `content` bytes. Sizes double, so a packet moves a few times at most.
    fn grow(&mut self, content: usize) -> Option<()> {
        let class = class_for(content).expect("a limit is at most the longest packet");
        let old = self.fields();
        // SAFETY: this packet is one of its owner's; the new block comes from there, idle and into our hand; it is
        // larger than the old one, whose written bytes keep their offsets.
        let grown = unsafe {
            let owner = self.block.owner();
            let Ok(block) = Core::take_for_growth(owner, class) else {
                self.mark(EXHAUSTED);
                return None;
            };
            let mut grown = PacketMut::open(block, owner);
            let start = old.start as usize;
            ptr::copy_nonoverlapping(self.block.byte(start), grown.block.byte(start), old.len());
            grown.edit(|fields| {
                (fields.start, fields.end) = (old.start, old.end);
                (fields.limit, fields.flags) = (old.limit, old.flags);
                fields.find_stop();
            });
            grown
        };
        *self = grown;
        Some(())
    }

    pub(crate) fn mark_too_long(&mut self) {
        self.mark(TOO_LONG);
    }

    /// From now on it takes no writes, and says why.
    pub(crate) fn mark_exhausted(&mut self) {
        self.mark(EXHAUSTED);
    }

    fn mark(&mut self, flag: u8) {
        self.edit(|fields| {
            fields.flags |= flag;
            fields.find_stop();
        });
    }

    fn block_end(&self) -> usize {
        // SAFETY: the block is ours.
        block_bytes(unsafe { self.block.class() })
    }

    #[inline(always)]
    fn fields(&self) -> crate::block::Fields {
        // SAFETY: the block is ours.
        unsafe { self.block.fields() }
    }

    #[inline(always)]
    fn edit<R>(&mut self, edit: impl FnOnce(&mut crate::block::Fields) -> R) -> R {
        // SAFETY: `self` is the only hand.
        unsafe { self.block.edit(edit) }
    }
}

impl Drop for PacketMut {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is the only hand, and gives it up.
        unsafe { release_block(self.block) }
    }
}

impl Deref for PacketMut {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for PacketMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl AsRef<[u8]> for PacketMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PacketMut {
    /// Says how long it is and not what is in it: contents do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketMut")
            .field("len", &self.len())
            .field("limit", &self.limit())
            .field("is_too_long", &self.is_too_long())
            .field("is_exhausted", &self.is_exhausted())
            .finish()
    }
}

/// A header is longer than the room in front of the content. The remedy: a fresh packet, whose headroom is
/// [`HEADROOM`](crate::HEADROOM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header of {asked} bytes does not fit the {headroom} in front of the content")]
pub struct NoHeadroom {
    /// Bytes to prepend.
    pub asked: usize,
    /// Bytes that there are.
    pub headroom: usize,
}
