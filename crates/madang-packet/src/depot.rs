//! The depot: where memory enters a pool, and where its idle blocks pass from thread to thread.

use std::fmt;
use std::ptr::{self, NonNull};

use crate::block::Block;
use crate::chain::Chain;
use crate::class::{CLASSES, POOLED_CLASSES, class_for, slab_blocks};
use crate::figures::{Counters, Out, PoolFigures};
use crate::magazine::{Magazine, Stock, take_installed};
use crate::packet_mut::PacketMut;
use crate::shelf::Shelf;
use crate::slab::{SLAB_HEADER_BYTES, Slab, SlabList};
use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, spin_loop};

/// How a pool behaves; see [`Depot::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// What becomes of idle memory.
    pub policy: Policy,
    /// The most bytes of blocks that the pool takes from the allocator, in use or idle. Past it a packet is refused with
    /// [`PoolExhausted`]. `usize::MAX`, the default, is no limit; zero refuses everything.
    pub budget_bytes: usize,
}

/// What becomes of idle memory when someone calls [`Depot::trim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A server keeps the memory that it paid for: the next rush finds it ready. Only a pool that had to refuse gives
    /// idle slabs back, once, so that another size may have their share of the budget.
    Keep,
    /// A client gives idle memory back.
    GiveBack {
        /// Idle bytes that stay for the next burst.
        keep_bytes: usize,
    },
}

/// The pool had no block and its budget, or the allocator, had no memory for one.
///
/// Nothing was changed. The remedy is the caller's: drop what is droppable, disconnect who is slow, or raise
/// [`PoolSettings::budget_bytes`]. What the pool holds stands in its [`figures`](Depot::figures).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool's budget, or the system, has no memory for a packet of {asked} bytes")]
pub struct PoolExhausted {
    /// Bytes of content that were asked for. Above [`PACKET_BYTES_MAX`](crate::PACKET_BYTES_MAX) always refused.
    pub asked: u32,
}

/// A pool of packets: a handle that can be cloned and sent anywhere.
///
/// The pool lives until its last handle ([`Depot`] and [`Magazine`]) is gone *and* the last of its packets was dropped;
/// a packet never outlives its memory, in whichever order things end.
pub struct Depot {
    core: NonNull<Core>,
}

// SAFETY: a depot only reaches `Core`'s atomics and, through them, blocks that an exchange put into its hand.
unsafe impl Send for Depot {}
// SAFETY: as above; every method may run on any number of threads at once.
unsafe impl Sync for Depot {}

impl Depot {
    /// A pool that has no memory yet; it grows by slabs of 64 KiB as packets are made.
    pub fn new(settings: PoolSettings) -> Depot {
        let core = Box::new(Core::new(settings));
        Depot { core: NonNull::from(Box::leak(core)) }
    }

    /// A magazine for one thread: its own small stock of idle blocks.
    ///
    /// Magazines are made at a thread's start, not per packet: one takes a few hundred bytes that the pool keeps, and
    /// hands to the next thread when this one ends.
    pub fn magazine(&self) -> Magazine {
        Magazine::new(self.clone())
    }

    /// A packet with room for `capacity` bytes, on any thread.
    ///
    /// Uses the thread's installed magazine when it is one of this pool, and else goes to the depot: a few atomic
    /// operations, no lock.
    ///
    /// # Errors
    /// [`PoolExhausted`] when the budget or the allocator has nothing; nothing changed.
    #[inline]
    pub fn packet(&self, capacity: usize) -> Result<PacketMut, PoolExhausted> {
        let class = class_or_refuse(self.core(), capacity)?;
        let block = match take_installed(self.core, class) {
            Some(taken) => taken?,
            None => self.core().take_outside(class)?,
        };
        // SAFETY: the block was just taken from this pool into our hand.
        Ok(unsafe { PacketMut::open(block, self.core) })
    }

    /// What the pool holds at this moment. Costs some hundred loads; for a metrics page, not for each packet.
    pub fn figures(&self) -> PoolFigures {
        self.core().figures()
    }

    /// Bytes of blocks that are in packets, or at hand in a magazine: never less than
    /// [`figures().in_use.bytes`](PoolFigures::in_use), for one load. What to watch the budget with.
    pub fn out_bytes(&self) -> usize {
        self.core().out.bytes()
    }

    /// Whether the pool had to refuse since it was last trimmed: what idles in one size, or in a magazine, is wanted in
    /// another.
    pub fn has_refused(&self) -> bool {
        self.core().pressed.load(Ordering::Relaxed)
    }

    /// Gives idle memory back to the allocator, as far as the [`Policy`] says, and answers how many bytes.
    ///
    /// Only whole slabs whose blocks all lie in the depot can go; what lies in a magazine comes with
    /// [`Magazine::trim`]. Walks all idle blocks and allocates: for a slow timer, never the hot path. Nobody is
    /// blocked: while one thread trims, a second call returns 0, and others find the depot empty for a moment.
    pub fn trim(&self) -> usize {
        self.core().trim()
    }

    /// What this pool was made with.
    pub fn settings(&self) -> PoolSettings {
        self.core().settings
    }

    pub(crate) fn core(&self) -> &Core {
        // SAFETY: a handle keeps the core alive.
        unsafe { self.core.as_ref() }
    }
}

impl Clone for Depot {
    fn clone(&self) -> Depot {
        // Relaxed: the caller's own handle keeps the core.
        self.core().handles.fetch_add(1, Ordering::Relaxed);
        Depot { core: self.core }
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        // SAFETY: this handle is one, and is not used again.
        unsafe { Core::drop_handle(self.core) }
    }
}

impl fmt::Debug for Depot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.figures();
        f.debug_struct("Depot")
            .field("settings", &self.settings())
            .field("in_use", &figures.in_use)
            .field("capacity", &figures.capacity)
            .finish()
    }
}

impl Default for PoolSettings {
    /// A server's pool without a limit.
    fn default() -> PoolSettings {
        PoolSettings { policy: Policy::Keep, budget_bytes: usize::MAX }
    }
}

impl PoolSettings {
    /// The same with another policy.
    pub fn policy(self, policy: Policy) -> PoolSettings {
        PoolSettings { policy, ..self }
    }

    /// The same with another budget.
    pub fn budget_bytes(self, budget_bytes: usize) -> PoolSettings {
        PoolSettings { budget_bytes, ..self }
    }

    /// The least budget with which so many threads do not take each other's memory by what idles: each has a slab of every
    /// pooled size, from which its magazine is loaded, and on one of them a packet grows to `capacity` bytes.
    pub fn least_budget_bytes(threads: usize, capacity: usize) -> usize {
        let slabs: usize = (0..POOLED_CLASSES).map(|class| Slab::bytes(class, slab_blocks(class))).sum();
        let class = class_for(capacity).unwrap_or(CLASSES - 1);
        // It grows by doubling, and has both blocks while it moves.
        let grows: usize = (class.saturating_sub(1)..=class).map(|class| Slab::bytes(class, 1)).sum();
        threads.saturating_mul(slabs).saturating_add(grows)
    }
}

/// What all handles and packets of one pool share.
///
/// # How a pool ends
/// `handles` counts depots, magazines and large packets. The last one to go *closes* the shelves: it learns how many
/// blocks lie idle, hence how many are still out. From then on a returning packet finds its shelf closed and counts
/// `late` down instead; who brings it to zero frees everything.
pub(crate) struct Core {
    pub(crate) settings: PoolSettings,
    pub(crate) shelves: [Shelf; POOLED_CLASSES],
    pub(crate) slabs: [SlabList; POOLED_CLASSES],
    /// Blocks that exist, by class.
    pub(crate) carved: [AtomicUsize; CLASSES],
    /// Bytes from the allocator; never above the budget.
    pub(crate) reserved_bytes: AtomicUsize,
    /// What threads without a magazine of this pool took and released.
    pub(crate) outside: Counters,
    pub(crate) out: Out,
    pub(crate) refusals: AtomicUsize,
    /// The pool refused since the last trim.
    pub(crate) pressed: AtomicBool,
    pub(crate) trimming: AtomicBool,
    /// Every stock there ever was; pushed only, freed with the core.
    stocks: AtomicPtr<Stock>,
    handles: AtomicUsize,
    /// Packets still out when the pool closed, counted down as they return; wraps below zero until the closer has added
    /// its sum.
    late: AtomicUsize,
}

impl Core {
    fn new(settings: PoolSettings) -> Core {
        Core {
            settings,
            shelves: std::array::from_fn(|_| Shelf::new()),
            slabs: std::array::from_fn(|_| SlabList::new()),
            carved: std::array::from_fn(|_| AtomicUsize::new(0)),
            reserved_bytes: AtomicUsize::new(0),
            outside: Counters::new(),
            out: Out::new(),
            refusals: AtomicUsize::new(0),
            pressed: AtomicBool::new(false),
            trimming: AtomicBool::new(false),
            stocks: AtomicPtr::new(ptr::null_mut()),
            handles: AtomicUsize::new(1),
            late: AtomicUsize::new(0),
        }
    }

    /// Up to `most` idle blocks of a pooled class, from the shelf or from new memory; at least one.
    ///
    /// Before it refuses, it lets those put their blocks on the shelf who hold some for a moment. That is bounded: a
    /// thread that was preempted there is not waited for.
    #[cold]
    #[inline(never)]
    pub(crate) fn supply(&self, class: usize, most: usize) -> Result<Chain, PoolExhausted> {
        let shelf = &self.shelves[class];
        for _ in 0..LOOKS_MAX {
            let ended = shelf.visits_ended();
            if let Some(chain) = shelf.take(most).or_else(|| self.grow(class, most)) {
                self.out.went(class, chain.len());
                return Ok(chain);
            }
            // Our own look and attempt to grow were visits too.
            if shelf.was_quiet_since(ended.wrapping_add(OWN_VISITS)) {
                break;
            }
            spin_loop();
        }
        Err(self.refuse(class))
    }

    /// Takes blocks back from a magazine.
    pub(crate) fn store(&self, class: usize, chain: Chain) {
        self.out.came(class, chain.len());
        self.shelves[class].give(chain);
    }

    /// A block for a packet that grows, whose pool may have ended meanwhile: then it is refused.
    ///
    /// # Safety
    /// The caller holds a packet of this core, which keeps its memory but not the pool alive.
    pub(crate) unsafe fn take_for_growth(core: NonNull<Core>, class: usize) -> Result<Block, PoolExhausted> {
        // An installed magazine is a handle.
        if let Some(taken) = take_installed(core, class) {
            return taken;
        }
        // SAFETY: the caller's packet keeps the core's memory.
        let this = unsafe { core.as_ref() };
        let mut handles = this.handles.load(Ordering::Relaxed);
        while handles != 0 {
            match this.handles.compare_exchange_weak(
                handles,
                handles + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let depot = Depot { core };
                    return depot.core().take_outside(class);
                }
                Err(now) => handles = now,
            }
        }
        Err(this.refuse(class))
    }

    /// One block for a thread without a magazine, or of a class that no magazine keeps.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_outside(&self, class: usize) -> Result<Block, PoolExhausted> {
        let block = if class < POOLED_CLASSES {
            self.supply(class, 1)?.pop().expect("a supply is never empty")
        } else {
            self.allocate_large(class)?
        };
        self.outside.taken[class].count_shared();
        Ok(block)
    }

    /// Takes one block back from a thread without a magazine, or of a class that no magazine keeps. The core may be
    /// gone when this returns.
    ///
    /// # Safety
    /// The block is idle, belongs to this core, and is in the caller's hand, which gives it up.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn release_outside(core: NonNull<Core>, block: Block) {
        // SAFETY: a block that was not returned yet keeps its core: as a handle when it is large, else because the pool
        // does not end before `late` has counted it. Neither has happened before the last line of each branch.
        unsafe {
            let this = core.as_ref();
            let class = block.class();
            this.outside.released[class].count_shared();
            this.out.came(class, 1);
            if class >= POOLED_CLASSES {
                this.free_large(block, class);
                Core::drop_handle(core);
            } else if this.shelves[class].give_one(block).is_err()
                && this.late.fetch_sub(1, Ordering::AcqRel) == 1
            {
                Core::destroy(core);
            }
        }
    }

    /// Takes a slab from the allocator, keeps up to `most` of its blocks and shelves the others.
    fn grow(&self, class: usize, most: usize) -> Option<Chain> {
        let _visit = self.shelves[class].visit();
        let blocks = self.reserve(class, slab_blocks(class))?;
        let Some(slab) = Slab::new(class, blocks) else {
            self.unreserve(Slab::bytes(class, blocks));
            return None;
        };
        self.carved[class].fetch_add(blocks, Ordering::Relaxed);
        // In the list before any of its blocks is on the shelf: a trim that finds a block finds its slab.
        self.slabs[class].push(slab);
        let (mut kept, mut rest) = (Chain::EMPTY, Chain::EMPTY);
        for index in (0..blocks).rev() {
            let chain = if index < most { &mut kept } else { &mut rest };
            // SAFETY: fresh blocks, in nobody else's hand; no trim frees a slab whose blocks are not all shelved.
            unsafe { chain.push(Slab::block(slab, index)) };
        }
        self.shelves[class].give(rest);
        Some(kept)
    }

    /// A block with memory of its own. It counts as a handle, so that its return finds the core.
    fn allocate_large(&self, class: usize) -> Result<Block, PoolExhausted> {
        self.reserve(class, 1).ok_or_else(|| self.refuse(class))?;
        let Some(slab) = Slab::new(class, 1) else {
            self.unreserve(Slab::bytes(class, 1));
            return Err(self.refuse(class));
        };
        self.carved[class].fetch_add(1, Ordering::Relaxed);
        self.out.went(class, 1);
        self.handles.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a slab of one block, ours alone.
        Ok(unsafe { Slab::block(slab, 0) })
    }

    /// # Safety
    /// The block is from `allocate_large`, idle and in the caller's hand, which gives it up.
    unsafe fn free_large(&self, block: Block, class: usize) {
        self.carved[class].fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the block is the only one of the slab whose header lies just in front of it, in the same allocation.
        let bytes = unsafe {
            let slab = block.as_ptr().cast::<u8>().sub(SLAB_HEADER_BYTES).cast::<Slab>();
            Slab::free(NonNull::new_unchecked(slab))
        };
        self.unreserve(bytes);
    }

    /// Takes bytes for a slab of up to `blocks` blocks out of the budget: near its end a smaller slab does. Answers how
    /// many blocks.
    fn reserve(&self, class: usize, blocks: usize) -> Option<usize> {
        // Acquire and Release: whoever finds the budget spent also sees that the visit which spent it began.
        let mut reserved = self.reserved_bytes.load(Ordering::Acquire);
        loop {
            let left = self.settings.budget_bytes.saturating_sub(reserved).saturating_sub(SLAB_HEADER_BYTES);
            let blocks = blocks.min(left / crate::class::block_bytes(class));
            if blocks == 0 {
                return None;
            }
            let after = reserved + Slab::bytes(class, blocks);
            match self.reserved_bytes.compare_exchange_weak(
                reserved,
                after,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(blocks),
                Err(now) => reserved = now,
            }
        }
    }

    pub(crate) fn unreserve(&self, bytes: usize) {
        self.reserved_bytes.fetch_sub(bytes, Ordering::Release);
    }

    fn refuse(&self, class: usize) -> PoolExhausted {
        self.refused(crate::class::content_bytes(class))
    }

    /// Counts a refusal and words it.
    #[cold]
    pub(crate) fn refused(&self, asked: usize) -> PoolExhausted {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        self.pressed.store(true, Ordering::Relaxed);
        PoolExhausted { asked: u32::try_from(asked).unwrap_or(u32::MAX) }
    }

    /// A stock for one thread: one that a magazine left, or a new one.
    pub(crate) fn occupy_stock(core: NonNull<Core>) -> NonNull<Stock> {
        // SAFETY: the caller is a handle.
        let this = unsafe { core.as_ref() };
        if let Some(stock) = this.stocks().find(|stock| stock.occupy()) {
            return NonNull::from(stock);
        }
        let stock = NonNull::from(Box::leak(Box::new(Stock::new(core))));
        let mut head = this.stocks.load(Ordering::Relaxed);
        loop {
            // SAFETY: not in the list yet: ours alone.
            unsafe { (*stock.as_ptr()).next = head };
            // Release: partner of the Acquire in `stocks`.
            match this.stocks.compare_exchange_weak(
                head,
                stock.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return stock,
                Err(now) => head = now,
            }
        }
    }

    pub(crate) fn stocks(&self) -> impl Iterator<Item = &Stock> {
        let mut at = self.stocks.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: stocks are never freed before the core.
            let stock = unsafe { at.as_ref() }?;
            at = stock.next;
            Some(stock)
        })
    }

    /// # Safety
    /// The caller is a handle (or a large packet), and gives it up.
    unsafe fn drop_handle(core: NonNull<Core>) {
        // Release what this handle did, acquire what all others did: the last one ends the pool.
        // SAFETY: until the count went down the handle keeps the core.
        if unsafe { core.as_ref() }.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: no handle is left.
            unsafe { Core::close(core) }
        }
    }

    /// # Safety
    /// No handle is left; called once.
    #[cold]
    unsafe fn close(core: NonNull<Core>) {
        // SAFETY: only the closer, and whoever brings `late` to zero after it, frees the core.
        let this = unsafe { core.as_ref() };
        let mut missing = 0;
        for (shelf, carved) in this.shelves.iter().zip(&this.carved) {
            missing += carved.load(Ordering::Relaxed) - shelf.close();
        }
        if this.late.fetch_add(missing, Ordering::AcqRel).wrapping_add(missing) == 0 {
            // SAFETY: all blocks are idle and nobody is left to touch them.
            unsafe { Core::destroy(core) }
        }
    }

    /// # Safety
    /// Nothing names the core any more, and all its blocks are idle.
    unsafe fn destroy(core: NonNull<Core>) {
        // SAFETY: made by `Box::leak` in `Depot::new`; the caller is the last.
        let this = unsafe { Box::from_raw(core.as_ptr()) };
        for slab in this.slabs.iter().flat_map(SlabList::take_all) {
            // SAFETY: all blocks are idle, and the list was emptied into our hand.
            unsafe { Slab::free(slab) };
        }
        let mut at = this.stocks.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: made by `Box::leak` in `occupy_stock`, and no magazine is left.
            let stock = unsafe { Box::from_raw(at) };
            at = stock.next;
        }
    }
}

/// How often a thread that would be refused looks again while others have blocks in their hands: at some 50 ns each
/// about 10 µs, longer than carving a slab takes.
const LOOKS_MAX: usize = if cfg!(loom) { 4 } else { 200 };

/// Visits that one attempt of `supply` makes itself: to take, and to grow.
const OWN_VISITS: usize = 2;

/// The class for `capacity`, or the refusal of what no packet can hold.
#[inline]
pub(crate) fn class_or_refuse(core: &Core, capacity: usize) -> Result<usize, PoolExhausted> {
    class_for(capacity).ok_or_else(|| core.refused(capacity))
}
