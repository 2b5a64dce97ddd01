//! P3's claim, that a packet counted inside its pooled block is as fast as counting by hand: taking, sharing, dropping
//! and crossing threads, beside what one would write without this crate.
//!
//! `cargo bench -p madang-packet`

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use madang_packet::{Depot, Packet, PoolSettings};

const SIZES: [usize; 3] = [32, 256, 4096];

/// Receivers of a broadcast.
const FAN_OUT: usize = 1000;

/// Packets that cross to the other thread in one message, so that the channel costs little beside them.
const CROSSING: usize = 1000;

fn allocate_and_free(c: &mut Criterion) {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let content = [7u8; 4096];
    let mut group = c.benchmark_group("take, write, drop");
    for size in SIZES {
        group.bench_function(BenchmarkId::new("packet", size), |b| {
            b.iter(|| {
                let mut packet = magazine.packet(size).expect("no limit");
                packet.extend_from_slice(&content[..black_box(size)]);
                black_box(packet.freeze())
            });
        });
        group.bench_function(BenchmarkId::new("malloc + Arc<[u8]>", size), |b| {
            b.iter(|| black_box(Arc::<[u8]>::from(&content[..black_box(size)])));
        });
        group.bench_function(BenchmarkId::new("Bytes", size), |b| {
            b.iter(|| {
                let mut bytes = BytesMut::with_capacity(size);
                bytes.put_slice(&content[..black_box(size)]);
                black_box(bytes.freeze())
            });
        });
    }
    group.bench_function("packet/empty", |b| {
        b.iter(|| black_box(magazine.packet(black_box(32)).expect("no limit")));
    });
    group.finish();
}

fn write_typed_values(c: &mut Criterion) {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let mut group = c.benchmark_group("ten u32 into an empty buffer");
    group.bench_function("packet", |b| {
        let mut packet = magazine.packet(64).expect("no limit");
        b.iter(|| {
            packet.clear();
            (0..10).for_each(|value| _ = packet.u32(black_box(value)));
            black_box(packet.len())
        });
    });
    group.bench_function("BytesMut", |b| {
        let mut bytes = BytesMut::with_capacity(64);
        b.iter(|| {
            bytes.clear();
            (0..10).for_each(|value| bytes.put_u32_le(black_box(value)));
            black_box(bytes.len())
        });
    });
    group.finish();
}

fn clone_and_drop(c: &mut Criterion) {
    let depot = Depot::new(PoolSettings::default());
    let mut group = c.benchmark_group("clone, drop");
    let packet = depot.packet(32).expect("no limit").freeze();
    group.bench_function("packet", |b| b.iter(|| black_box(packet.clone())));
    let arc = Arc::<[u8]>::from([7u8; 32]);
    group.bench_function("Arc<[u8]>", |b| b.iter(|| black_box(arc.clone())));
    let bytes = Bytes::copy_from_slice(&[7; 32]);
    // Its first clone makes the shared part.
    let _shared = bytes.clone();
    group.bench_function("Bytes", |b| b.iter(|| black_box(bytes.clone())));
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let mut group = c.benchmark_group("fan-out to 1000 queues, 200 B");
    group.throughput(Throughput::Elements(FAN_OUT as u64));
    let mut queue = Vec::with_capacity(FAN_OUT);
    group.bench_function("packet, shares", |b| {
        b.iter(|| {
            let mut packet = magazine.packet(200).expect("no limit");
            packet.extend_from_slice(&[7; 200]);
            queue.extend(packet.freeze().shares(FAN_OUT));
            queue.clear();
        });
    });
    group.bench_function("packet, clones", |b| {
        b.iter(|| {
            let mut packet = magazine.packet(200).expect("no limit");
            packet.extend_from_slice(&[7; 200]);
            let packet = packet.freeze();
            queue.extend((0..FAN_OUT).map(|_| packet.clone()));
            queue.clear();
        });
    });
    let mut queue = Vec::with_capacity(FAN_OUT);
    group.bench_function("malloc + Arc<[u8]>", |b| {
        b.iter(|| {
            let arc = Arc::<[u8]>::from([7; 200]);
            queue.extend((0..FAN_OUT).map(|_| arc.clone()));
            queue.clear();
        });
    });
    let mut queue = Vec::with_capacity(FAN_OUT);
    group.bench_function("Bytes", |b| {
        b.iter(|| {
            let bytes = Bytes::copy_from_slice(&[7; 200]);
            queue.extend((0..FAN_OUT).map(|_| bytes.clone()));
            queue.clear();
        });
    });
    group.finish();
}

/// Made here, dropped there: the figure is the time of both threads together, per packet.
fn cross_threads(c: &mut Criterion) {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let mut group = c.benchmark_group("made here, dropped on another thread, 256 B");
    group.throughput(Throughput::Elements(CROSSING as u64));
    let make = || {
        let mut packet = magazine.packet(256).expect("no limit");
        packet.extend_from_slice(&[7; 256]);
        packet.freeze()
    };
    let with_magazine = || {
        let magazine = depot.magazine();
        move |inbox: Receiver<Vec<Packet>>, back: SyncSender<Vec<Packet>>| {
            let _installed = magazine.install();
            drop_all(inbox, back);
        }
    };
    group.bench_function("packet, both have magazines", |b| {
        b.iter_custom(|rounds| crossing(rounds, make, with_magazine()));
    });
    group.bench_function("packet, dropped without a magazine", |b| {
        b.iter_custom(|rounds| crossing(rounds, make, drop_all));
    });
    group.bench_function("malloc + Arc<[u8]>", |b| {
        b.iter_custom(|rounds| crossing(rounds, || Arc::<[u8]>::from([7; 256]), drop_all));
    });
    group.bench_function("Bytes", |b| {
        b.iter_custom(|rounds| crossing(rounds, || Bytes::copy_from_slice(&[7; 256]), drop_all));
    });
    group.finish();
}

/// Sends `rounds` vectors of what `make` makes to a thread that runs `drop_all`, two on the way at any time.
fn crossing<T: Send>(
    rounds: u64,
    make: impl Fn() -> T,
    drop_all: impl FnOnce(Receiver<Vec<T>>, SyncSender<Vec<T>>) + Send,
) -> Duration {
    let (to, inbox) = sync_channel(2);
    let (back, returned) = sync_channel(2);
    thread::scope(|scope| {
        scope.spawn(move || drop_all(inbox, back));
        let mut empty = vec![Vec::with_capacity(CROSSING), Vec::with_capacity(CROSSING)];
        let began = Instant::now();
        for _ in 0..rounds {
            let mut full =
                empty.pop().unwrap_or_else(|| returned.recv().expect("the other thread returns them"));
            full.extend((0..CROSSING).map(|_| make()));
            to.send(full).expect("the other thread listens");
        }
        drop(to);
        returned.iter().for_each(drop);
        began.elapsed()
    })
}

fn drop_all<T>(inbox: Receiver<Vec<T>>, back: SyncSender<Vec<T>>) {
    for mut full in inbox {
        full.clear();
        // The sender may have stopped.
        let _ = back.send(full);
    }
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
}

criterion_group! {
    name = benches;
    config = short();
    targets = allocate_and_free, write_typed_values, clone_and_drop, fan_out, cross_threads
}
criterion_main!(benches);
