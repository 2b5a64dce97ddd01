//! Giving idle memory back.

use std::ptr::NonNull;

use crate::block::Block;
use crate::chain::Chain;
use crate::class::POOLED_CLASSES;
use crate::depot::{Core, Policy};
use crate::slab::Slab;
use crate::sync::Ordering;

impl Core {
    pub(crate) fn trim(&self) -> usize {
        let pressed = self.pressed.load(Ordering::Relaxed);
        let keep_bytes = match self.settings.policy {
            Policy::GiveBack { keep_bytes } if !pressed => keep_bytes,
            Policy::Keep if !pressed => return 0,
            _ => 0,
        };
        if self.trimming.swap(true, Ordering::Acquire) {
            return 0;
        }
        self.pressed.store(false, Ordering::Relaxed);
        let mut kept = 0;
        let mut freed = 0;
        // The largest first: they are the fewest to walk, and the rarest to be wanted again.
        for class in (0..POOLED_CLASSES).rev() {
            freed += self.trim_class(class, keep_bytes, &mut kept);
        }
        self.trimming.store(false, Ordering::Release);
        freed
    }

    /// Frees the slabs of a class that lie wholly on its shelf, except while `kept` is below `keep_bytes`.
    fn trim_class(&self, class: usize, keep_bytes: usize, kept: &mut usize) -> usize {
        let shelf = &self.shelves[class];
        let visit = shelf.visit();
        // Blocks first and slabs after: each block that we hold has its slab in the list (see `Core::grow`).
        let blocks = shelf.take_all(&visit);
        let mut slabs = Slabs::new(self.slabs[class].take_all());
        for block in &blocks {
            slabs.count(*block);
        }
        let mut freed = 0;
        slabs.0.retain_mut(|entry| {
            // SAFETY: the list was emptied into our hand; only we free slabs.
            let all = unsafe { Slab::blocks(entry.slab) };
            let bytes = Slab::bytes(class, all);
            entry.goes = entry.idle == all && *kept + bytes > keep_bytes;
            if entry.goes {
                freed += all;
            } else {
                *kept += bytes.min(entry.idle * crate::class::block_bytes(class));
            }
            true
        });
        let mut stays = Chain::EMPTY;
        for block in blocks.into_iter().filter(|block| !slabs.of(*block).goes) {
            // SAFETY: `take_all` put the block into our hand.
            unsafe { stays.push(block) };
        }
        shelf.give(stays);
        self.carved[class].fetch_sub(freed, Ordering::Relaxed);
        let mut bytes = 0;
        for entry in slabs.0 {
            if entry.goes {
                // SAFETY: all its blocks were on the shelf and are in our hand now.
                bytes += unsafe { Slab::free(entry.slab) };
            } else {
                self.slabs[class].push(entry.slab);
            }
        }
        self.unreserve(bytes);
        bytes
    }
}

/// The slabs of one class by address, with how many of their blocks lie idle.
struct Slabs(Vec<Entry>);

struct Entry {
    slab: NonNull<Slab>,
    idle: usize,
    goes: bool,
}

impl Slabs {
    fn new(slabs: Vec<NonNull<Slab>>) -> Slabs {
        let mut entries: Vec<_> =
            slabs.into_iter().map(|slab| Entry { slab, idle: 0, goes: false }).collect();
        entries.sort_unstable_by_key(|entry| entry.slab);
        Slabs(entries)
    }

    fn count(&mut self, block: Block) {
        let index = self.index(block);
        self.0[index].idle += 1;
    }

    fn of(&self, block: Block) -> &Entry {
        &self.0[self.index(block)]
    }

    /// A block's slab is the last one that begins in front of it.
    fn index(&self, block: Block) -> usize {
        let address = block.as_ptr().addr();
        self.0.partition_point(|entry| entry.slab.as_ptr().addr() <= address) - 1
    }
}
