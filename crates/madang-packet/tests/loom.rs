//! Models of the lock-free parts, explored by loom on the very types that ship: MC5 (count and return) and MC6 (stocks,
//! shelves, and their ends) of the fault catalogue.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p madang-packet --release --test loom`
//!
//! Under loom a slab has two blocks, a batch one, and a shelf one slot, so that a few packets reach every path. loom
//! sees each access to a block's header; that no byte of content is read or written by the wrong hand follows, because
//! content is reached through the header's fields.
#![cfg(loom)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use loom::model::Builder;
use loom::thread;
use madang_packet::{Depot, Packet, PacketMut, Policy, PoolSettings};

/// Two threads are explored without a bound; with three, schedules of up to three preemptions.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check(move || {
        let before = LINES.get();
        model();
        assert_eq!(LINES.get() - before, 0, "the pool's memory is gone with it, and gone once");
    });
}

thread_local! {
    /// Allocations that start on a cache line and are alive: slabs, stocks and depots, and nothing of loom's. All threads
    /// of a model run on one real one.
    static LINES: Cell<isize> = const { Cell::new(0) };
}

struct CountLines;

#[global_allocator]
static ALLOCATOR: CountLines = CountLines;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for CountLines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LINES.set(LINES.get() + isize::from(layout.align() >= 64));
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LINES.set(LINES.get() - isize::from(layout.align() >= 64));
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A pool with memory for exactly `blocks` small packets, in slabs of two with a line of 64 bytes each.
fn pool(blocks: usize) -> Depot {
    let unlimited = Depot::new(PoolSettings::default());
    let bytes = unlimited.figures().classes[0].block_bytes;
    Depot::new(PoolSettings { policy: Policy::Keep, budget_bytes: 64 * blocks.div_ceil(2) + blocks * bytes })
}

fn take(depot: &Depot) -> PacketMut {
    depot.packet(1).expect("the model never holds more than there is")
}

fn written(depot: &Depot, value: u32) -> Packet {
    let mut packet = take(depot);
    packet.u32(value);
    packet.freeze()
}

fn check_read(packet: &Packet, value: u32) {
    assert_eq!(packet[..], value.to_le_bytes());
}

fn check_balance(depot: &Depot) {
    assert_eq!(depot.figures().in_use.blocks, 0);
}

/// MC5: whoever drops last, the block is free once, and only after the last look at it.
#[test]
fn mc5_clone_drop_return() {
    explore(Some(3), || {
        let depot = pool(1);
        let packet = written(&depot, 1);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let clone = packet.clone();
                thread::spawn(move || {
                    check_read(&clone, 1);
                    drop(clone);
                })
            })
            .collect();
        check_read(&packet, 1);
        drop(packet);
        // Only once the last one dropped it can it be taken again, and then written.
        if let Ok(mut packet) = depot.packet(1) {
            packet.u32(2);
        }
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        let packet = written(&depot, 3);
        check_read(&packet, 3);
        drop(packet);
        check_balance(&depot);
    });
}

/// MC5, with the counts taken in advance, and those that were not used given back while others are dropped.
#[test]
fn mc5_shares_given_back_while_others_drop() {
    explore(Some(3), || {
        let depot = pool(1);
        let mut shares = written(&depot, 1).shares(4);
        let first = shares.next().expect("four");
        let reader = thread::spawn(move || check_read(&first, 1));
        let second = shares.next().expect("four");
        let giver = thread::spawn(move || drop(shares));
        check_read(&second, 1);
        drop(second);
        reader.join().expect("no panic");
        giver.join().expect("no panic");
        check_balance(&depot);
        drop(written(&depot, 4));
    });
}

/// MC5, with shares that come back and go together, as others are dropped: the last of all may be on either side.
#[test]
fn mc5_shares_taken_back_while_others_drop() {
    explore(None, || {
        let depot = pool(1);
        let mut shares = written(&depot, 1).shares(3);
        let [first, second, third] = [(); 3].map(|()| shares.next().expect("three"));
        let reader = thread::spawn(move || check_read(&first, 1));
        shares.take_back(second).expect("it is one of them");
        shares.take_back(third).expect("it is one of them");
        drop(shares);
        reader.join().expect("no panic");
        check_balance(&depot);
        drop(written(&depot, 4));
    });
}

/// MC5, the way back: who finds itself the last writes where the other has read.
#[test]
fn mc5_the_last_holder_writes_again() {
    explore(None, || {
        let depot = pool(1);
        let packet = written(&depot, 1);
        let other = packet.clone();
        // In this order: loom runs the main thread first, and finds fewer of the schedules in which it comes late.
        let writer = thread::spawn(move || {
            if let Ok(mut packet) = other.try_into_mut() {
                packet.clear();
                packet.u32(2);
            }
        });
        check_read(&packet, 1);
        drop(packet);
        writer.join().expect("no panic");
        check_balance(&depot);
    });
}

/// MC6: two threads without a magazine return packets while the owner takes: none is lost, none is handed out twice.
#[test]
fn mc6_an_owner_and_two_remote_returns() {
    explore(Some(3), || {
        let depot = pool(2);
        let magazine = depot.magazine();
        let installed = magazine.install();
        let remote: Vec<_> = (0..2)
            .map(|value| {
                let packet = written(&depot, value);
                thread::spawn(move || check_read(&packet, value))
            })
            .collect();
        let early = depot.packet(1).ok();
        remote.into_iter().for_each(|other| other.join().expect("no panic"));
        drop(early);
        let (one, two) = (written(&depot, 1), written(&depot, 2));
        check_read(&one, 1);
        check_read(&two, 2);
        drop((one, two));
        check_balance(&depot);
        drop(installed);
    });
}

/// MC6: two magazines exchange through the depot, and neither is refused while there is enough for both.
#[test]
fn mc6_two_magazines_exchange_through_the_depot() {
    explore(Some(3), || {
        let depot = pool(2);
        let other = {
            let depot = depot.clone();
            thread::spawn(move || {
                let magazine = depot.magazine();
                let _installed = magazine.install();
                let packet = written(&depot, 1);
                check_read(&packet, 1);
                packet
            })
        };
        let magazine = depot.magazine();
        let _installed = magazine.install();
        let packet = written(&depot, 2);
        check_read(&packet, 2);
        let others = other.join().expect("no panic");
        check_read(&others, 1);
        drop((packet, others));
        check_balance(&depot);
    });
}

/// A packet is made under one magazine and dropped under another, whose stock then overflows into the depot.
#[test]
fn mc6_packets_cross_between_magazines() {
    explore(Some(2), || {
        let depot = pool(3);
        let magazine = depot.magazine();
        let _installed = magazine.install();
        let crossing: Vec<_> = (0..3).map(|value| written(&depot, value)).collect();
        let other = {
            let depot = depot.clone();
            thread::spawn(move || {
                let magazine = depot.magazine();
                let _installed = magazine.install();
                drop(crossing);
            })
        };
        let early = depot.packet(1).ok();
        drop(early);
        other.join().expect("no panic");
        drop([written(&depot, 0), written(&depot, 1), written(&depot, 2)]);
        check_balance(&depot);
    });
}

/// A thread ends while another one begins: its stock, counters included, passes on or lies in the depot.
#[test]
fn mc6_a_stock_passes_from_an_ended_thread_to_a_new_one() {
    explore(None, || {
        let depot = pool(1);
        let ending = {
            let magazine = depot.magazine();
            let packet = written(&depot, 1);
            thread::spawn(move || {
                let installed = magazine.install();
                drop(packet);
                drop(installed);
                drop(magazine);
            })
        };
        let magazine = depot.magazine();
        let installed = magazine.install();
        drop(depot.packet(1));
        ending.join().expect("no panic");
        drop(written(&depot, 2));
        check_balance(&depot);
        drop(installed);
    });
}

/// The last handle and the last packets go at the same moment: the memory goes once, after all of them.
#[test]
fn the_pool_ends_with_its_last_packet() {
    explore(Some(3), || {
        let depot = pool(2);
        let others: Vec<_> = (0..2)
            .map(|value| {
                let packet = written(&depot, value);
                thread::spawn(move || check_read(&packet, value))
            })
            .collect();
        drop(depot);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
    });
}

/// A packet grows while the last handle goes: it finds the pool alive, or it is exhausted; never a pool half gone.
#[test]
fn growth_races_with_the_end_of_the_pool() {
    explore(None, || {
        let depot = Depot::new(PoolSettings::default());
        let mut packet = take(&depot);
        let growing = thread::spawn(move || {
            packet.bytes(&[7; 100]);
            assert!(packet.is_exhausted() || packet[..] == [7; 100]);
        });
        drop(depot);
        growing.join().expect("no panic");
    });
}

/// A trim runs while packets are taken and returned: what is in use stays, what goes is gone once.
#[test]
fn trim_races_with_take_and_return() {
    explore(Some(3), || {
        let settings = PoolSettings::default().policy(Policy::GiveBack { keep_bytes: 0 });
        let depot = Depot::new(settings);
        let packet = written(&depot, 1);
        let trimming = {
            let depot = depot.clone();
            thread::spawn(move || _ = depot.trim())
        };
        let other = written(&depot, 2);
        check_read(&packet, 1);
        drop(packet);
        check_read(&other, 2);
        drop(other);
        trimming.join().expect("no panic");
        depot.trim();
        let figures = depot.figures();
        assert_eq!((figures.in_use.blocks, figures.capacity.bytes), (0, 0));
    });
}

/// Figures read while a packet crosses: it is out or it is back, never less than nothing.
#[test]
fn figures_never_count_a_return_before_its_take() {
    explore(None, || {
        let depot = pool(1);
        let (taking, dropping) = (depot.magazine(), depot.magazine());
        let reading = depot.clone();
        let reader = thread::spawn(move || assert!(reading.figures().in_use.blocks <= 1));
        let packet = taking.packet(1).expect("one");
        let installed = dropping.install();
        drop(packet);
        drop(installed);
        reader.join().expect("no panic");
        check_balance(&depot);
    });
}
