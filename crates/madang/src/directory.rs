//! Who lives in which slot: the one table that every thread may look into.
//!
//! One word per slot holds the id of the session that lives there and may be sent to, or zero. It answers a stale or
//! invented id at once from any thread; the shard that owns the slot has the last word on everything else.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::SessionId;
use crate::id::SlotLayout;

#[derive(Debug)]
pub(crate) struct Directory {
    layout: SlotLayout,
    /// By slot: the id that lives there. Slots that no shard can use are never written.
    words: Box<[AtomicU64]>,
}

impl Directory {
    pub(crate) fn new(layout: SlotLayout) -> Directory {
        Directory { layout, words: (0..layout.slots()).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn layout(&self) -> SlotLayout {
        self.layout
    }

    #[inline]
    fn word(&self, id: SessionId) -> Option<&AtomicU64> {
        self.words.get(id.slot())
    }

    /// Whether `id` may be sent to. The answer may be old by the time it is used; the shard decides.
    #[inline]
    pub(crate) fn is_live(&self, id: SessionId) -> bool {
        // Acquire pairs with `enter`'s Release: who sees the id also sees what its join published.
        self.word(id).is_some_and(|word| word.load(Ordering::Acquire) == id.to_u64())
    }

    /// The owning shard lets `id` in.
    pub(crate) fn enter(&self, id: SessionId) {
        let word = self.word(id).expect("a shard enters ids of its own slots");
        let before = word.swap(id.to_u64(), Ordering::Release);
        debug_assert_eq!(before, 0, "a slot is entered when the one before has left");
    }

    /// Marks `id` as leaving. True for exactly one caller: who gets it owes the shard the reason.
    /// From its return on, every thread's sends answer `Gone`.
    pub(crate) fn leave(&self, id: SessionId) -> bool {
        // AcqRel: whoever wins has seen the join, and what the loser does after sees the leave.
        self.word(id).is_some_and(|word| {
            word.compare_exchange(id.to_u64(), 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s05_only_the_current_id_of_a_slot_is_live() {
        let layout = SlotLayout::new(2, 4).unwrap();
        let directory = Directory::new(layout);
        let [old, new] = [1, 2].map(|serial| SessionId::new(layout.slot(1, 3), serial));
        directory.enter(old);
        assert!(directory.is_live(old) && !directory.is_live(new));
        assert!(directory.leave(old) && !directory.leave(old), "one leave wins");
        directory.enter(new);
        assert!(!directory.is_live(old) && !directory.leave(old) && directory.is_live(new));
        for invented in [u64::MAX, 1, (99 << 40) | 5] {
            let id = SessionId::from_u64(invented).unwrap();
            assert!(!directory.is_live(id) && !directory.leave(id));
        }
    }
}
