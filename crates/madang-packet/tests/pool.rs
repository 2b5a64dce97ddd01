//! What a pool promises: figures that balance, a budget that refuses (P7), memory that stays or goes by policy (P6), and
//! an end that waits for the last packet, whatever happens to guards and threads.
#![cfg(not(loom))]

use std::thread;

use madang_packet::{Depot, Packet, PacketMut, Policy, PoolFigures, PoolSettings};

const SERVER: PoolSettings = PoolSettings { policy: Policy::Keep, budget_bytes: usize::MAX };
const CLIENT: PoolSettings =
    PoolSettings { policy: Policy::GiveBack { keep_bytes: 0 }, budget_bytes: usize::MAX };

fn blocks(figures: PoolFigures) -> (usize, usize) {
    (figures.in_use.blocks, figures.in_use.bytes)
}

fn packets(depot: &Depot, count: usize, capacity: usize) -> Vec<PacketMut> {
    (0..count).map(|_| depot.packet(capacity).expect("within the budget")).collect()
}

#[test]
fn figures_say_what_is_out_by_class() {
    let depot = Depot::new(SERVER);
    assert_eq!(blocks(depot.figures()), (0, 0));
    assert_eq!(depot.figures().capacity.bytes, 0, "no memory before it is asked for");
    let held = [packets(&depot, 3, 64), packets(&depot, 2, 4096), packets(&depot, 1, 1 << 20)];
    let figures = depot.figures();
    assert_eq!(blocks(figures), (6, 3 * 128 + 2 * 4160 + (1 << 20) + 64));
    let by_class: Vec<_> = figures.classes.iter().map(|class| (class.content_bytes, class.in_use)).collect();
    assert_eq!((by_class[0], by_class[6], by_class[14]), ((64, 3), (4096, 2), (1 << 20, 1)));
    assert_eq!(figures.classes[0].capacity, 511, "a slab of 64 KiB");
    assert_eq!(figures.capacity.blocks, 511 + 15 + 1);
    drop(held);
    let figures = depot.figures();
    assert_eq!(blocks(figures), (0, 0));
    assert_eq!(
        (figures.classes[14].capacity, figures.classes[14].high_water),
        (0, 1),
        "large ones go at once"
    );
    assert_eq!((figures.classes[0].capacity, figures.classes[0].high_water), (511, 3));
    assert_eq!(figures.high_water_bytes, 3 * 128 + 2 * 4160 + (1 << 20) + 64);
}

#[test]
fn figures_balance_whichever_thread_drops() {
    let (first, second) = (Depot::new(SERVER), Depot::new(SERVER));
    let make = |depot: &Depot| -> Vec<Packet> {
        packets(depot, 1000, 64).into_iter().map(PacketMut::freeze).collect()
    };
    let magazine = first.magazine();
    let installed = magazine.install();
    let (own, foreign) = (make(&first), make(&second));
    assert_eq!((first.figures().in_use.blocks, second.figures().in_use.blocks), (1000, 1000));
    thread::scope(|scope| {
        let clones = own.clone();
        // One without a magazine, one with a magazine of the other pool.
        scope.spawn(move || drop(clones));
        scope.spawn(|| {
            let magazine = second.magazine();
            let _installed = magazine.install();
            drop(own);
        });
    });
    drop(foreign);
    assert_eq!((first.figures().in_use.blocks, second.figures().in_use.blocks), (0, 0));
    drop(installed);
    assert!(first.figures().classes[0].high_water >= 1000);
}

#[test]
fn a_budget_refuses_and_serves_again_when_something_returns() {
    // A slab's line and three blocks of 128: a smaller slab than usual.
    let depot = Depot::new(SERVER.budget_bytes(64 + 3 * 128 + 127));
    let mut held = packets(&depot, 3, 64);
    let refused = depot.packet(10).expect_err("the budget is spent");
    assert_eq!((refused.asked, depot.figures().capacity.bytes), (64, 448));
    assert!(depot.packet(100_000).is_err(), "large ones count too");
    assert_eq!(depot.figures().refusals, 2);
    held.pop();
    held.push(depot.packet(64).expect("one came back"));
    assert!(depot.magazine().packet(64).is_err());
    drop(held);
    assert_eq!(blocks(depot.figures()), (0, 0));
    assert!(Depot::new(SERVER.budget_bytes(0)).packet(0).is_err());
}

/// With the least budget nobody is refused for what idles elsewhere; with a byte less there is somebody who can be.
#[test]
fn the_least_budget_is_enough_for_every_size_on_every_thread_and_no_larger() {
    const CONTENT: usize = 1 << 20;
    let refused = |threads: usize, less: usize| {
        let budget = PoolSettings::least_budget_bytes(threads, CONTENT) - less;
        let depot = Depot::new(SERVER.budget_bytes(budget));
        let magazines: Vec<_> = (0..threads).map(|_| depot.magazine()).collect();
        for magazine in &magazines {
            let _installed = magazine.install();
            let sizes = (6..=16).map(|power| magazine.packet(1 << power));
            assert!(sizes.collect::<Vec<_>>().iter().all(Result::is_ok), "{:?}", depot.figures());
        }
        let _installed = magazines[0].install();
        let mut packet = depot.packet(0).expect("one is at hand");
        while packet.len() < CONTENT && !packet.is_exhausted() {
            packet.bytes(&[7; 64]);
        }
        packet.is_exhausted()
    };
    for threads in [1, 2, 16] {
        assert!(!refused(threads, 0), "{threads} threads");
    }
    assert!(refused(1, 1));
    // It is a sum that cannot overflow.
    assert_eq!(PoolSettings::least_budget_bytes(usize::MAX, usize::MAX), usize::MAX);
}

#[test]
fn growth_that_the_pool_refuses_is_remembered_and_writes_nothing() {
    let depot = Depot::new(SERVER.budget_bytes(64 + 128));
    let mut packet = depot.packet(0).expect("one block");
    packet.bytes(&[1; 64]);
    packet.bytes(&[2; 64]);
    assert!(packet.is_exhausted() && !packet.is_too_long());
    assert_eq!(&packet[..], &[1; 64]);
    assert!(packet.freeze().is_exhausted());
    assert_eq!(depot.figures().refusals, 1);
}

#[test]
fn a_packet_returns_to_the_magazine_of_the_thread_that_drops_it() {
    let depot = Depot::new(SERVER);
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let packet = depot.packet(64).expect("no limit");
    let at = packet.as_ptr();
    drop(packet);
    assert_eq!(magazine.packet(64).expect("no limit").as_ptr(), at, "last in, first out");

    // The other thread's drop puts it into the depot, where we find it when ours has run out.
    let packet = magazine.packet(64).expect("no limit");
    thread::scope(|scope| scope.spawn(move || drop(packet)).join()).expect("no panic");
    let all: Vec<_> = (0..511).map(|_| magazine.packet(64).expect("no limit")).collect();
    assert_eq!(depot.figures().classes[0].capacity, 511, "nothing was lost, so nothing new was needed");
    drop(all);
}

#[test]
fn a_magazine_that_ends_leaves_its_stock_to_the_others() {
    let depot = Depot::new(SERVER);
    for _ in 0..10 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let magazine = depot.magazine();
                let _installed = magazine.install();
                drop(packets(&depot, 511, 64));
            });
        });
    }
    assert_eq!(depot.figures().classes[0].capacity, 511);
    assert_eq!(blocks(depot.figures()), (0, 0));
}

#[test]
fn a_server_keeps_its_memory_and_a_client_gives_it_back() {
    for (settings, kept) in [
        (SERVER, usize::MAX),
        (CLIENT, 0),
        (CLIENT.policy(Policy::GiveBack { keep_bytes: 1 << 20 }), 1 << 20),
    ] {
        let depot = Depot::new(settings);
        let magazine = depot.magazine();
        let held: Vec<_> = (0..2000).map(|_| magazine.packet(1000).expect("no limit")).collect();
        let before = depot.figures().capacity.bytes;
        assert!(before > 2_000_000);
        assert_eq!(magazine.trim(), 0, "all of it is in use, or beside something that is");
        drop(held);
        let freed = magazine.trim();
        let after = depot.figures().capacity.bytes;
        assert_eq!(before - after, freed);
        assert!(after <= kept && (kept == usize::MAX || after + 65_536 > kept), "{settings:?} kept {after}");
        assert!(depot.figures().classes[4].capacity * 1088 <= after);
        drop(magazine.packet(1000).expect("the pool serves on"));
        assert_eq!(blocks(depot.figures()), (0, 0));
    }
}

#[test]
fn trim_spares_what_is_in_use_and_its_neighbours() {
    let depot = Depot::new(CLIENT);
    let mut held = packets(&depot, 3 * 511, 64);
    for (index, packet) in held.iter_mut().enumerate() {
        packet.u32(index as u32);
    }
    held.retain(|packet| packet[..4] == 700u32.to_le_bytes());
    assert_eq!(depot.trim(), 2 * (64 + 511 * 128), "the slab with the survivor stays");
    assert_eq!(&held[0][..4], &700u32.to_le_bytes());
    drop(held);
    assert_eq!(depot.trim(), 64 + 511 * 128);
    assert_eq!(depot.figures().capacity.bytes, 0);
}

/// A pool that keeps would otherwise refuse one size for ever because another had a rush once.
#[test]
fn a_refusal_lets_trim_move_budget_between_sizes() {
    let depot = Depot::new(SERVER.budget_bytes(1 << 20));
    let rush: Vec<_> = std::iter::from_fn(|| depot.packet(64).ok()).collect();
    assert!(rush.len() > 8000);
    drop(rush);
    depot.trim();
    let held = depot.packet(4096).expect("the rush's end was a refusal, so its slabs could go");
    assert_eq!(depot.trim(), 0, "and from then on the pool keeps again");
    drop(held);
}

#[test]
fn a_pool_lives_until_its_last_packet() {
    let depot = Depot::new(SERVER);
    let magazine = depot.magazine();
    let packet = magazine.packet(64).expect("no limit").freeze();
    let mut growing = magazine.packet(64).expect("no limit");
    let large = magazine.packet(1 << 20).expect("no limit").freeze();
    let elsewhere = packet.clone();
    drop((depot, magazine));
    growing.bytes(&[1; 100]);
    assert_eq!(growing.len(), 100, "a large packet is a handle: the pool goes on");
    drop(large);
    growing.bytes(&[2; 100]);
    assert!(growing.is_exhausted() && growing.len() == 100, "an ended pool has nothing to grow into");
    assert_eq!(&packet[..], b"");
    thread::spawn(move || drop(elsewhere)).join().expect("no panic");
    drop(growing);
    drop(packet);
}

#[test]
fn guards_dropped_in_any_order_or_never_break_nothing() {
    // What happens to the two guards, in which order, and whether the magazines then move to another thread.
    for case in 0..16 {
        let depot = Depot::new(SERVER);
        let (a, b) = (depot.magazine(), depot.magazine());
        {
            let (first, second, again) = (a.install(), b.install(), a.install());
            let held = packets(&depot, 600, 64);
            match case % 4 {
                0 => drop((again, second, first)),
                1 => drop((first, second, again)),
                2 => {
                    std::mem::forget(second);
                    drop(first);
                }
                _ => {
                    std::mem::forget((first, second));
                    drop(again);
                }
            }
            drop(held);
        }
        let use_both = move || {
            let guard = b.install();
            let held: Vec<_> = [&a, &b].into_iter().map(|m| m.packet(64).expect("no limit")).collect();
            drop(guard);
            drop(held);
            drop(if case & 4 == 0 { (a, b) } else { (b, a) });
        };
        match case & 8 {
            0 => use_both(),
            _ => thread::spawn(use_both).join().expect("no panic"),
        }
        drop(packets(&depot, 600, 64));
        assert_eq!(blocks(depot.figures()), (0, 0), "case {case}");
    }
}

#[test]
fn what_is_out_is_never_less_than_what_packets_hold() {
    let depot = Depot::new(PoolSettings::default());
    let mut packets = Vec::new();
    for round in 1..=40 {
        packets.push(depot.packet(round * 1_000).unwrap());
        let in_use = depot.figures().in_use.bytes;
        assert!(depot.out_bytes() >= in_use && in_use >= round * 1_000, "{round}");
    }
    packets.clear();
    assert_eq!(
        (depot.out_bytes(), depot.figures().in_use.bytes),
        (0, 0),
        "without a magazine nothing is at hand"
    );
}
