//! Magazines: what one thread has at hand.
//!
//! A magazine keeps two chains of each class, *loaded* and *spare* (Bonwick's magazine layer). Taking and releasing
//! touch `loaded` with plain loads and stores; when it runs empty or full the two change places, and only when both are
//! empty, or both full, a whole batch moves from or to the depot. So a thread that takes and releases around any level
//! exchanges nothing, and one that only takes, while another only releases, pays one exchange a batch.
//!
//! A block goes to the magazine of the thread that *dropped* it, whoever made it. That keeps atomics away from each
//! packet that crosses threads (the batch crosses back through the depot), and leaves nothing behind for a thread that
//! ended: there is no home to return to. Only a thread without a magazine of the block's own pool pushes its blocks one
//! by one, onto the depot's shelf.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::block::Block;
use crate::chain::Chain;
use crate::class::{PACKET_BYTES_MAX, POOLED_CLASSES, batch_blocks};
use crate::depot::{Core, Depot, PoolExhausted, class_or_refuse};
use crate::figures::Counters;
use crate::packet_mut::PacketMut;
use crate::sync::{AtomicBool, Ordering, thread_local};

thread_local! {
    /// The stock of the magazine that is installed on this thread, or null. Const-initialised and without a destructor,
    /// so that reading it is one load: no check whether it was made yet, none whether it is gone.
    static INSTALLED: Cell<*const Stock> = const { Cell::new(ptr::null()) };
}

#[inline(always)]
fn installed() -> *const Stock {
    // Only loom takes a thread's locals away.
    INSTALLED.try_with(Cell::get).unwrap_or(ptr::null())
}

fn set_installed(stock: *const Stock) {
    INSTALLED.with(|installed| installed.set(stock));
}

/// One thread's stock of idle blocks.
///
/// It may move to another thread, but only one at a time uses it. While it is [installed](Magazine::install), packets
/// that are dropped on this thread go back to it. Dropping it gives its blocks to the depot.
pub struct Magazine {
    stock: NonNull<Stock>,
    depot: Depot,
}

// SAFETY: by the one-hand rule of `Stock` the racks are reached from the thread that has it installed, else from the
// one that has the magazine; moving the magazine moves the latter, and `Stock::usable` sees when the former stayed.
unsafe impl Send for Magazine {}

impl Magazine {
    pub(crate) fn new(depot: Depot) -> Magazine {
        let stock = Core::occupy_stock(NonNull::from(depot.core()));
        Magazine { stock, depot }
    }

    /// A packet with room for `capacity` bytes. When the magazine has one: a few plain loads and stores.
    ///
    /// # Errors
    /// [`PoolExhausted`] when the budget or the allocator has nothing; nothing changed.
    #[inline]
    pub fn packet(&self, capacity: usize) -> Result<PacketMut, PoolExhausted> {
        self.packet_within(capacity, PACKET_BYTES_MAX)
    }

    /// As [`packet`](Magazine::packet), with a [limit](PacketMut::set_limit) from the start.
    ///
    /// # Errors
    /// As [`packet`](Magazine::packet).
    #[inline]
    pub fn packet_within(&self, capacity: usize, limit: usize) -> Result<PacketMut, PoolExhausted> {
        let class = class_or_refuse(self.depot.core(), capacity)?;
        let block = match self.stock().usable() {
            true if class < POOLED_CLASSES => self.stock().take(class)?,
            _ => self.depot.core().take_outside(class)?,
        };
        let limit = limit.min(PACKET_BYTES_MAX) as u32;
        // SAFETY: the block was just taken from this pool into our hand.
        Ok(unsafe { PacketMut::open_within(block, NonNull::from(self.depot.core()), limit) })
    }

    /// Makes this the magazine of the current thread until the guard is dropped; then the one before is restored.
    ///
    /// A shard does this once a turn. Guards are meant to be dropped in reverse order. Where they are not, or one is
    /// leaked, nothing breaks, but the magazine is bound to that thread: elsewhere it only passes requests to the
    /// depot, and its stock is lost if it is dropped there. Installing one that is installed already, has no effect.
    pub fn install(&self) -> Installed<'_> {
        let previous = installed();
        let active = !self.stock().installed.replace(true);
        if active {
            set_installed(self.stock.as_ptr());
        }
        Installed { magazine: self, previous, active, this_thread: PhantomData }
    }

    /// Gives this magazine's idle blocks to the depot, and then [trims](Depot::trim) it: for a thread that has been idle
    /// for a while. Answers how many bytes went to the allocator.
    pub fn trim(&self) -> usize {
        if self.stock().usable() {
            self.stock().unload();
        }
        self.depot.trim()
    }

    /// The pool that this magazine is of.
    pub fn depot(&self) -> &Depot {
        &self.depot
    }

    fn stock(&self) -> &Stock {
        // SAFETY: stocks live as long as the core, which our depot keeps.
        unsafe { self.stock.as_ref() }
    }
}

impl Drop for Magazine {
    fn drop(&mut self) {
        let stock = self.stock();
        if stock.installed.get() {
            if installed() != self.stock.as_ptr() {
                // A guard was leaked, and some thread may go on using this stock: it, and the pool, must stay.
                std::mem::forget(self.depot.clone());
                return;
            }
            set_installed(ptr::null());
            stock.installed.set(false);
        }
        stock.unload();
        stock.vacate();
    }
}

impl fmt::Debug for Magazine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Magazine").field("depot", &self.depot).finish_non_exhaustive()
    }
}

/// Keeps a magazine installed on the current thread; see [`Magazine::install`].
#[must_use = "the magazine is installed until this guard is dropped"]
pub struct Installed<'a> {
    magazine: &'a Magazine,
    previous: *const Stock,
    /// Whether this guard is the one that installed it.
    active: bool,
    /// The guard stays on its thread.
    this_thread: PhantomData<*const ()>,
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        // Another stock in our place means that guards are dropped out of order: then this one stays marked installed,
        // because that other guard is going to bring it back.
        if self.active && installed() == self.magazine.stock.as_ptr() {
            set_installed(self.previous);
            self.magazine.stock().installed.set(false);
        }
    }
}

impl fmt::Debug for Installed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installed").field("active", &self.active).finish_non_exhaustive()
    }
}

/// The part of a magazine that a thread's locals can name.
///
/// **The one-hand rule.** Racks and `installed` are touched by the thread whose `INSTALLED` names this stock, if there
/// is one, and else by the holder of its magazine; never by both. It holds because `INSTALLED` names a stock only while
/// `installed` is true: it is set with it, and cleared when the name is taken out. Counters are written by the same
/// hand and read by all.
#[repr(align(128))]
pub(crate) struct Stock {
    core: NonNull<Core>,
    installed: Cell<bool>,
    racks: [Rack; POOLED_CLASSES],
    pub(crate) counters: Counters,
    /// No magazine has this stock: the next one may.
    vacant: AtomicBool,
    /// Set before the stock is in the core's list, never changed after.
    pub(crate) next: *mut Stock,
}

struct Rack {
    loaded: UnsafeCell<Chain>,
    /// Empty or a full batch.
    spare: UnsafeCell<Chain>,
}

impl Stock {
    pub(crate) fn new(core: NonNull<Core>) -> Stock {
        let rack = |_| Rack { loaded: UnsafeCell::new(Chain::EMPTY), spare: UnsafeCell::new(Chain::EMPTY) };
        Stock {
            core,
            installed: Cell::new(false),
            racks: std::array::from_fn(rack),
            counters: Counters::new(),
            vacant: AtomicBool::new(false),
            next: ptr::null_mut(),
        }
    }

    /// Takes a vacant stock for a new magazine.
    pub(crate) fn occupy(&self) -> bool {
        // Acquire: partner of `vacate`, for the racks and counters that the last magazine left.
        self.vacant.load(Ordering::Relaxed)
            && self.vacant.compare_exchange(true, false, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn vacate(&self) {
        self.vacant.store(true, Ordering::Release);
    }

    /// Whether the magazine's holder is the one hand: it is installed here, or nowhere.
    #[inline(always)]
    fn usable(&self) -> bool {
        ptr::eq(installed(), self) || !self.installed.get()
    }

    #[inline(always)]
    fn take(&self, class: usize) -> Result<Block, PoolExhausted> {
        // SAFETY: the one-hand rule; the borrow ends with the statement.
        let block = match unsafe { (*self.racks[class].loaded.get()).pop() } {
            Some(block) => block,
            None => self.reload(class)?,
        };
        self.counters.taken[class].count_alone();
        Ok(block)
    }

    /// # Safety
    /// The block is idle, belongs to this stock's core, is of a pooled class, and is in the caller's hand, which gives
    /// it up.
    #[inline(always)]
    unsafe fn release(&self, block: Block, class: usize) {
        self.counters.released[class].count_alone();
        let loaded = self.racks[class].loaded.get();
        // SAFETY: the one-hand rule; neither borrow lasts over `make_room`. The block is as the caller promises.
        unsafe {
            if (*loaded).len() >= batch_blocks(class) {
                self.make_room(class);
            }
            (*loaded).push(block);
        }
    }

    /// `loaded` is empty: loads the spare chain, or a batch from the depot, and takes one.
    #[cold]
    #[inline(never)]
    fn reload(&self, class: usize) -> Result<Block, PoolExhausted> {
        let rack = &self.racks[class];
        // SAFETY: the one-hand rule; the caller holds no borrow of either, and the supply knows nothing of stocks.
        let (loaded, spare) = unsafe { (&mut *rack.loaded.get(), &mut *rack.spare.get()) };
        *loaded = match spare.len() {
            0 => self.core().supply(class, batch_blocks(class))?,
            _ => std::mem::replace(spare, Chain::EMPTY),
        };
        Ok(loaded.pop().expect("a supply is never empty"))
    }

    /// `loaded` is full: it becomes the spare one, and the spare one goes to the depot.
    #[cold]
    #[inline(never)]
    fn make_room(&self, class: usize) {
        let rack = &self.racks[class];
        // SAFETY: the one-hand rule; the caller holds no borrow of either.
        let (loaded, spare) = unsafe { (&mut *rack.loaded.get(), &mut *rack.spare.get()) };
        let full = std::mem::replace(loaded, Chain::EMPTY);
        let surplus = std::mem::replace(spare, full);
        if surplus.len() > 0 {
            self.core().store(class, surplus);
        }
    }

    /// Gives everything to the depot.
    fn unload(&self) {
        for (class, rack) in self.racks.iter().enumerate() {
            for cell in [&rack.loaded, &rack.spare] {
                // SAFETY: the one-hand rule.
                let chain = unsafe { std::mem::replace(&mut *cell.get(), Chain::EMPTY) };
                if chain.len() > 0 {
                    self.core().store(class, chain);
                }
            }
        }
    }

    fn core(&self) -> &Core {
        // SAFETY: the core outlives its stocks.
        unsafe { self.core.as_ref() }
    }
}

/// A block of `class` from this thread's magazine if it is one of `core`'s; `None` says to ask the depot.
#[inline]
pub(crate) fn take_installed(core: NonNull<Core>, class: usize) -> Option<Result<Block, PoolExhausted>> {
    // SAFETY: the thread's locals name only stocks that are alive, and whose hand this thread is.
    let stock = unsafe { installed().as_ref() }?;
    (stock.core == core && class < POOLED_CLASSES).then(|| stock.take(class))
}

/// Returns a block to its pool: into this thread's magazine if it is one of that pool, else to the depot.
///
/// # Safety
/// The block is out, and the caller its last hand, which gives it up.
#[inline(always)]
pub(crate) unsafe fn release_block(block: Block) {
    // SAFETY: as the caller promises; the thread's locals name only stocks that are alive.
    unsafe {
        let core = block.shut();
        let class = block.class();
        match installed().as_ref() {
            Some(stock) if stock.core == core && class < POOLED_CLASSES => stock.release(block, class),
            _ => Core::release_outside(core, block),
        }
    }
}
