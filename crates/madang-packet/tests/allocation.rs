//! P04, P5: after the warm-up nothing on a packet's way asks the allocator; and a pool that ended leaves nothing behind.
#![cfg(not(loom))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::thread;

use madang_packet::{Depot, Magazine, Packet, PacketMut, Policy, Pool, PoolSettings};

thread_local! {
    /// How often this thread asked the allocator for something.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// Allocations alive that start on a cache line: the pools' slabs, stocks and depots, and little else.
static LINES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        LINES.fetch_add((layout.align() >= 64).into(), Ordering::SeqCst);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LINES.fetch_sub((layout.align() >= 64).into(), Ordering::SeqCst);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs `work` once to warm up, and then answers how often it asks the allocator in `rounds` more.
fn asked(rounds: usize, mut work: impl FnMut()) -> usize {
    work();
    let before = ASKED.get();
    for _ in 0..rounds {
        work();
    }
    ASKED.get() - before
}

/// A day's work of a shard: each class, growth, sharing, more packets at once than a magazine holds.
fn work(magazine: &Magazine, held: &mut Vec<Packet>) {
    for capacity in [0, 100, 1000, 4096, 65_536] {
        let mut packet = magazine.packet(capacity).expect("no limit");
        packet.u32(7).str("text").values(&[1u16, 2, 3]);
        let packet = packet.freeze();
        let clone = packet.clone();
        held.extend(packet.shares(100));
        drop(clone.try_into_mut());
    }
    held.extend((0..500).map(|_| magazine.packet(64).expect("no limit").freeze()));
    let mut growing = magazine.packet(0).expect("no limit");
    (0..1000u64).for_each(|value| _ = growing.u64(value));
    held.clear();
}

#[test]
fn p04_no_allocation_after_warm_up() {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let mut held = Vec::with_capacity(2000);
    {
        let _installed = magazine.install();
        assert_eq!(asked(20, || work(&magazine, &mut held)), 0, "with a magazine");
    }
    assert_eq!(asked(20, || work(&magazine, &mut held)), 0, "with a magazine that is not installed");
    let mut held: Vec<PacketMut> = Vec::with_capacity(2000);
    let mut through_the_depot = || {
        held.extend((0..500).map(|index| depot.packet(index * 10).expect("no limit")));
        held.clear();
    };
    assert_eq!(asked(20, &mut through_the_depot), 0, "through the depot");

    let once = Pool::construct_once(3, || Vec::<u8>::with_capacity(100), Vec::clear);
    assert_eq!(asked(20, || once.take().expect("one of three").push(1)), 0, "objects, constructed once");
    let each = Pool::construct_each(3, || [0u64; 100]);
    assert_eq!(asked(20, || each.take().expect("one of three")[0] = 1), 0, "objects, constructed each time");
}

#[test]
fn a_new_thread_finds_what_an_ended_one_left() {
    let depot = Depot::new(PoolSettings::default());
    let shift = || {
        let magazine = depot.magazine();
        let _installed = magazine.install();
        let mut held = Vec::with_capacity(2000);
        let before = ASKED.get();
        work(&magazine, &mut held);
        ASKED.get() - before
    };
    thread::scope(|scope| {
        assert!(scope.spawn(shift).join().expect("no panic") > 0, "the first pays");
        assert_eq!(scope.spawn(shift).join().expect("no panic"), 0, "the second finds it paid");
    });
}

/// The last packet may be dropped by any thread, long after the depot.
#[test]
fn the_end_of_a_pool_leaves_nothing_behind() {
    // Alone in its process, so that no other test's pool is counted.
    if std::env::var_os("MADANG_ALONE").is_none() {
        let test = std::env::current_exe().expect("this test's own file");
        let run = std::process::Command::new(test)
            .args(["--exact", "the_end_of_a_pool_leaves_nothing_behind"])
            .env("MADANG_ALONE", "1")
            .status();
        assert!(run.expect("it starts").success());
        return;
    }
    let before = LINES.load(Ordering::SeqCst);
    for policy in [Policy::Keep, Policy::GiveBack { keep_bytes: 0 }] {
        for round in 0..100 {
            let depot = Depot::new(PoolSettings::default().policy(policy));
            let (one, two) = (depot.magazine(), depot.magazine());
            let mut held = Vec::new();
            {
                let _installed = one.install();
                work(&one, &mut held);
                held.extend((0..1000).map(|index| one.packet(index * 10).expect("no limit").freeze()));
                held.push(two.packet(1 << 20).expect("no limit").freeze());
            }
            if round % 2 == 0 {
                drop((one, two));
            } else {
                drop((two, one));
            }
            let others = held.split_off(500);
            let dropping = thread::spawn(move || drop(others));
            drop(depot);
            drop(held);
            dropping.join().expect("no panic");
            assert_eq!(LINES.load(Ordering::SeqCst) - before, 0, "round {round}, {policy:?}");
        }
    }
}
