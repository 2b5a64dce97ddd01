//! What the pool can tell about itself.

use crate::class::{CLASSES, block_bytes, content_bytes};
use crate::depot::Core;
use crate::sync::{AtomicUsize, Ordering};

/// A snapshot of a pool, from any thread, at any time; see [`Depot::figures`](crate::Depot::figures).
///
/// Taken while packets come and go it is a little old when it arrives; once nothing moves it is exact. A pool with no
/// packet out says zero, whichever threads made and dropped them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolFigures {
    /// What packets hold now.
    pub in_use: Usage,
    /// What the pool has from the allocator, in use or idle. `bytes` is what the budget counts: blocks and a line per
    /// slab.
    pub capacity: Usage,
    /// The most bytes of blocks that were ever out of the depot at one moment: in packets, or at hand in a magazine,
    /// which keeps at most two batches of a class.
    pub high_water_bytes: usize,
    /// Packets, or growths of packets, that were refused because of the budget or the allocator.
    pub refusals: u64,
    /// By size class, smallest first.
    pub classes: [ClassFigures; CLASSES],
}

/// Blocks and their bytes, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many blocks.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// One size class of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassFigures {
    /// Bytes of content that a block of this class holds.
    pub content_bytes: usize,
    /// Bytes that one block takes.
    pub block_bytes: usize,
    /// Blocks in packets now.
    pub in_use: usize,
    /// The most blocks that were ever out of the depot at one moment: in packets, or at hand in a magazine.
    pub high_water: usize,
    /// Blocks that the pool has, in use or idle.
    pub capacity: usize,
}

impl Core {
    pub(crate) fn figures(&self) -> PoolFigures {
        let classes = std::array::from_fn(|class| self.class_figures(class));
        let mut in_use = Usage::default();
        let mut capacity = Usage { blocks: 0, bytes: self.reserved_bytes.load(Ordering::Relaxed) };
        for class in &classes {
            in_use.blocks += class.in_use;
            in_use.bytes += class.in_use * class.block_bytes;
            capacity.blocks += class.capacity;
        }
        PoolFigures {
            in_use,
            capacity,
            high_water_bytes: self.out.bytes_most.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed) as u64,
            classes,
        }
    }

    fn class_figures(&self, class: usize) -> ClassFigures {
        // All that were released before all that were taken: a packet counts as taken before anyone can release it, so
        // the difference is never negative.
        let released: usize = self.counters().map(|counters| counters.released[class].read()).sum();
        let taken: usize = self.counters().map(|counters| counters.taken[class].read()).sum();
        ClassFigures {
            content_bytes: content_bytes(class),
            block_bytes: block_bytes(class),
            in_use: taken.wrapping_sub(released),
            high_water: self.out.blocks_most[class].load(Ordering::Relaxed),
            capacity: self.carved[class].load(Ordering::Relaxed),
        }
    }

    fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.stocks().map(|stock| &stock.counters).chain([&self.outside])
    }
}

/// How many blocks of each class one thread (or, shared, all threads without a magazine) took and released.
pub(crate) struct Counters {
    pub(crate) taken: [Counter; CLASSES],
    pub(crate) released: [Counter; CLASSES],
}

impl Counters {
    pub(crate) fn new() -> Counters {
        let zeros = || std::array::from_fn(|_| Counter(AtomicUsize::new(0)));
        Counters { taken: zeros(), released: zeros() }
    }
}

/// Only counts up; differences wrap correctly.
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    /// Counts one, on the only thread that writes this counter: a load, an add and a store, no locked instruction.
    #[inline(always)]
    pub(crate) fn count_alone(&self) {
        // Release: who reads that a packet was released (Acquire) also reads that it was taken, on whichever thread.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Counts one, on any thread.
    pub(crate) fn count_shared(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// What is out of the depot, counted a batch at a time, and the most it ever was.
pub(crate) struct Out {
    blocks: [AtomicUsize; CLASSES],
    blocks_most: [AtomicUsize; CLASSES],
    bytes: AtomicUsize,
    bytes_most: AtomicUsize,
}

impl Out {
    pub(crate) fn new() -> Out {
        let zeros = || std::array::from_fn(|_| AtomicUsize::new(0));
        Out {
            blocks: zeros(),
            blocks_most: zeros(),
            bytes: AtomicUsize::new(0),
            bytes_most: AtomicUsize::new(0),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn went(&self, class: usize, blocks: usize) {
        raise(&self.blocks[class], &self.blocks_most[class], blocks);
        raise(&self.bytes, &self.bytes_most, blocks * block_bytes(class));
    }

    pub(crate) fn came(&self, class: usize, blocks: usize) {
        self.blocks[class].fetch_sub(blocks, Ordering::Relaxed);
        self.bytes.fetch_sub(blocks * block_bytes(class), Ordering::Relaxed);
    }
}

fn raise(value: &AtomicUsize, most: &AtomicUsize, by: usize) {
    let now = value.fetch_add(by, Ordering::Relaxed) + by;
    if now > most.load(Ordering::Relaxed) {
        most.fetch_max(now, Ordering::Relaxed);
    }
}
