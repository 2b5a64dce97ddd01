//! Models of the lock-free parts, explored by loom on the very types that ship: MC5 (count and return) and MC6 (stocks,
//! shelves, and their ends) of the fault catalogue.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p madang-packet --release --test loom`
//!
//! Under loom a slab has two blocks, a batch one, and a shelf one slot, so that a few packets reach every path. loom
//! sees each access to a block's header; that no byte of content is read or written by the wrong hand follows, because
//! content is reached through the header's fields.
#![cfg(loom)]

use loom::model::Builder;
use loom::thread;
use madang_packet::{Depot, Packet, PacketMut, Policy, PoolSettings};

/// Two threads are explored without a bound; with three, schedules of up to three preemptions.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check(model);
}

/// A pool with memory for exactly `blocks` small packets, in one slab.
fn pool(blocks: usize) -> Depot {
    let unlimited = Depot::new(PoolSettings::default());
    let bytes = unlimited.figures().classes[0].block_bytes;
    Depot::new(PoolSettings { policy: Policy::Keep, budget_bytes: 64 + blocks * bytes })
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
        let again = depot.packet(1).map(|mut packet| _ = packet.u32(2));
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        drop(again);
        let packet = written(&depot, 3);
        check_read(&packet, 3);
        drop(packet);
        check_balance(&depot);
    });
}

/// MC5, with the counts taken in advance, and the last holder writing again.
#[test]
fn mc5_shares_and_the_way_back_to_a_writer() {
    explore(Some(3), || {
        let depot = pool(1);
        let mut shares = written(&depot, 1).shares(3);
        let first = shares.next().expect("three");
        let reader = thread::spawn(move || check_read(&first, 1));
        let second = shares.next().expect("three");
        let giver = thread::spawn(move || drop(shares));
        if let Ok(mut packet) = second.try_into_mut() {
            packet.clear();
            packet.u32(2);
        }
        reader.join().expect("no panic");
        giver.join().expect("no panic");
        check_balance(&depot);
        drop(written(&depot, 4));
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
        let early = depot.packet(1).ok().map(|mut packet| _ = packet.u32(7));
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
