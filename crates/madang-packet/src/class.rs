//! Size classes: how much memory a packet of a given content gets.
//!
//! A block is one cache line of ours and a power of two of yours: 32 bytes of header, 16 of headroom in front of the
//! content, 16 of tailroom behind it, and 64 · 2ⁿ bytes of content. Content comes in powers of two and just above (a
//! 4 KiB page, a 256-byte state), and a block that was *itself* a power of two would send each of those to the next
//! class, half empty. This way a payload of exactly 4,096 bytes takes a block of 4,160, a block's content is more than
//! half asked for (above 64 bytes), every block starts on a cache line, and the odd stride spreads the headers over the
//! sets of the cache.
//!
//! | class | content | block | blocks a slab | blocks a magazine |
//! |---|---|---|---|---|
//! | 0 | 64 | 128 | 511 | 256 |
//! | 1 | 128 | 192 | 341 | 256 |
//! | 2 | 256 | 320 | 204 | 204 |
//! | 3 | 512 | 576 | 113 | 113 |
//! | 4 | 1 Ki | 1,088 | 60 | 60 |
//! | 6 | 4 Ki | 4,160 | 15 | 15 |
//! | 10 | 64 Ki | 65,600 | 1 | 1 |
//! | 11–18 | 128 Ki – 16 Mi | + 64 | straight from the allocator | – |

use crate::block::Header;

/// Content sizes go from 64 bytes to 16 MiB by doubling: the largest holds any frame with a 24-bit length.
pub(crate) const CLASSES: usize = 19;

/// Classes below this one are kept in slabs and magazines. Above 64 KiB a copy costs more than the allocator does, and
/// a block that stays for good would be memory that hardly anyone asks for again.
pub(crate) const POOLED_CLASSES: usize = 11;

/// The most bytes of content in one packet: what a 24-bit length can say.
pub const PACKET_BYTES_MAX: usize = (1 << 24) - 1;

/// Room in front of the content of a fresh packet: enough for every framing's header (the largest of ours has 4 bytes).
pub const HEADROOM: usize = 16;

/// Room behind the content that was asked for: a seal's tag (16 bytes) never makes a full packet grow.
pub const TAILROOM: usize = 16;

/// Where content begins in a fresh block.
pub(crate) const CONTENT_START: usize = OVERHEAD - TAILROOM;

/// Bytes of a block that are not content. One cache line; more only under loom, whose atomics are large.
const OVERHEAD: usize = (size_of::<Header>() + HEADROOM + TAILROOM).next_multiple_of(64);

const SMALLEST_CONTENT: usize = 64;

/// What one growth asks of the allocator: a burst of small packets takes few calls, and an idle class costs little.
const SLAB_BYTES: usize = 64 * 1024;

/// The most blocks that move between a magazine and the depot at a time. A turn of a busy shard takes some hundred
/// small packets before its flush gives them back: that swing should stay inside the magazine, because an exchange walks
/// the whole string (with 64 it was 2 % of a pipelined echo). More would only let one thread sit on what another needs.
const BATCH_BLOCKS_MAX: usize = 256;

#[cfg(not(loom))]
const _: () = assert!(OVERHEAD == 64 && size_of::<Header>() == 32, "a block's own part is one cache line");
const _: () =
    assert!(content_bytes(CLASSES - 1) > PACKET_BYTES_MAX, "the largest class holds the longest packet");
const _: () = assert!(BATCH_BLOCKS_MAX <= u16::MAX as usize, "a batch fits the table in `batch_blocks`");
const _: () = assert!(block_bytes(CLASSES - 1) <= u32::MAX as usize, "offsets fit the header");

/// The class whose content holds `bytes`; `None` above [`PACKET_BYTES_MAX`].
#[inline]
pub(crate) const fn class_for(bytes: usize) -> Option<usize> {
    if bytes > PACKET_BYTES_MAX {
        return None;
    }
    // The doublings from 64 up: 0 for 0..=64, 1 for 65..=128, and so on.
    let doublings = usize::BITS - (bytes.saturating_sub(1) / SMALLEST_CONTENT).leading_zeros();
    Some(doublings as usize)
}

/// Bytes of content that a block of `class` promises.
#[inline]
pub(crate) const fn content_bytes(class: usize) -> usize {
    SMALLEST_CONTENT << class
}

/// Bytes that a block of `class` takes, all told.
#[inline]
pub(crate) const fn block_bytes(class: usize) -> usize {
    OVERHEAD + content_bytes(class)
}

/// Blocks carved from one slab.
pub(crate) const fn slab_blocks(class: usize) -> usize {
    if cfg!(loom) {
        return 2;
    }
    let blocks = (SLAB_BYTES - crate::slab::SLAB_HEADER_BYTES) / block_bytes(class);
    if blocks == 0 { 1 } else { blocks }
}

/// Blocks in one full batch of a pooled class: what a magazine takes from the depot, or gives to it, at a time.
#[inline(always)]
pub(crate) fn batch_blocks(class: usize) -> usize {
    // A table: the sum has a division, and this stands on the way of every packet that is dropped.
    const BATCHES: [u16; POOLED_CLASSES] = {
        let mut batches = [1; POOLED_CLASSES];
        let mut class = 0;
        while class < POOLED_CLASSES {
            let blocks = slab_blocks(class);
            let blocks = if blocks < BATCH_BLOCKS_MAX { blocks } else { BATCH_BLOCKS_MAX };
            batches[class] = if cfg!(loom) { 1 } else { blocks as u16 };
            class += 1;
        }
        batches
    };
    BATCHES[class] as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_content_size_gets_the_smallest_class_that_holds_it() {
        for bytes in 0..=PACKET_BYTES_MAX.min(200_000) {
            let class = class_for(bytes).expect("below the longest packet");
            assert!(content_bytes(class) >= bytes, "{bytes} in class {class}");
            assert!(class == 0 || content_bytes(class - 1) < bytes, "{bytes} in class {class}");
        }
        assert_eq!(class_for(PACKET_BYTES_MAX), Some(CLASSES - 1));
        assert_eq!(class_for(PACKET_BYTES_MAX + 1), None);
        assert_eq!(class_for(usize::MAX), None);
    }

    #[test]
    fn the_table_in_the_docs_is_true() {
        let row = |class| (content_bytes(class), block_bytes(class), slab_blocks(class), batch_blocks(class));
        assert_eq!(row(0), (64, 128, 511, 256));
        assert_eq!(row(1), (128, 192, 341, 256));
        assert_eq!(row(2), (256, 320, 204, 204));
        assert_eq!(row(3), (512, 576, 113, 113));
        assert_eq!(row(4), (1024, 1088, 60, 60));
        assert_eq!(row(6), (4096, 4160, 15, 15));
        assert_eq!(row(10), (65536, 65600, 1, 1));
        assert_eq!(POOLED_CLASSES, 11);
    }
}
