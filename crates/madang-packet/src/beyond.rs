//! Memory past the budget, for the engine itself.
//!
//! A pool that is full of packets waiting to be sent must still find the chunk to send them from, and a writer must get a
//! packet that can say that there is none. Both are bounded by whoever asks (one chunk a connection, one refused packet a
//! call), not by the budget.

use std::ptr::NonNull;

use crate::block::Block;
use crate::class::POOLED_CLASSES;
use crate::depot::{Core, Depot, PoolExhausted, class_or_refuse};
use crate::magazine::Magazine;
use crate::packet_mut::PacketMut;
use crate::slab::Slab;
use crate::sync::Ordering;

impl Magazine {
    /// As [`packet`](Magazine::packet), past the budget if need be: for the chunk that carries queued packets out, and so
    /// makes room. The caller has a bound of its own. Blocks above 64 KiB stay within the budget.
    ///
    /// # Errors
    /// [`PoolExhausted`] when the allocator has nothing, or for a large block past the budget.
    #[inline]
    pub fn packet_past_budget(&self, capacity: usize) -> Result<PacketMut, PoolExhausted> {
        self.packet(capacity).or_else(|error| past_budget(self.depot(), capacity).ok_or(error))
    }
}

impl Depot {
    /// A packet that takes no writes and says [`is_exhausted`](PacketMut::is_exhausted): what a writer gets instead of an
    /// error, so that it may write first and ask once, at the send.
    ///
    /// # Panics
    /// When the allocator has not even a hundred bytes.
    #[cold]
    pub fn exhausted(&self) -> PacketMut {
        // The pool first: the blocks that earlier refusals added are the smallest, and may lie idle.
        let packet = self.packet(0).ok().or_else(|| past_budget(self, 0));
        let mut packet = packet.expect("the allocator has a hundred bytes");
        packet.mark_exhausted();
        packet
    }
}

#[cold]
fn past_budget(depot: &Depot, capacity: usize) -> Option<PacketMut> {
    let class = class_or_refuse(depot.core(), capacity).ok().filter(|class| *class < POOLED_CLASSES)?;
    let block = depot.core().take_past_budget(class)?;
    // SAFETY: the block was just taken from this pool into our hand.
    Some(unsafe { PacketMut::open(block, NonNull::from(depot.core())) })
}

impl Core {
    /// A block in a slab of its own, whatever the budget says. It stays with the pool like any other.
    fn take_past_budget(&self, class: usize) -> Option<Block> {
        let slab = Slab::new(class, 1)?;
        self.reserved_bytes.fetch_add(Slab::bytes(class, 1), Ordering::AcqRel);
        self.carved[class].fetch_add(1, Ordering::Relaxed);
        self.slabs[class].push(slab);
        self.out.went(class, 1);
        self.outside.taken[class].count_shared();
        // SAFETY: a slab of one block, which is in nobody else's hand.
        Some(unsafe { Slab::block(slab, 0) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Depot, PoolSettings};

    #[test]
    fn past_the_budget_a_chunk_is_found_and_a_writer_learns_of_it_at_the_send() {
        let depot = Depot::new(PoolSettings::default().budget_bytes(0));
        let magazine = depot.magazine();
        assert!(magazine.packet(10).is_err());
        let mut chunk = magazine.packet_past_budget(60_000).unwrap();
        chunk.bytes(&[7; 60_000]);
        assert!(!chunk.is_exhausted() && chunk.len() == 60_000);
        let mut refused = depot.exhausted();
        refused.u32(7).str("nothing of this stays");
        assert!(refused.is_exhausted() && refused.is_empty());
        assert!(refused.freeze().is_exhausted());
        drop(chunk);
        assert_eq!(depot.figures().in_use.blocks, 0);
        let before = depot.figures().capacity;
        (0..100).for_each(|_| drop(depot.exhausted()));
        assert_eq!(depot.figures().capacity, before, "a refusal costs a block only while it is looked at");
        assert!(magazine.packet_past_budget(60_000).is_ok(), "and the block is used again");
    }
}
