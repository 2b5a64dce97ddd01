//! Many threads make, write, share, send and drop packets of two pools at once, while figures are read and memory is
//! trimmed. Every packet says whose it is and how it goes on, so one that is handed out twice, or freed early, is seen.
//! At the end both pools balance (P5, I7).
//!
//! The seed is printed; `MADANG_SEED` sets it. (Real threads: a seed fixes what each does, not how they interleave.)
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use madang_packet::{Depot, Packet, Policy, PoolSettings};

const THREADS: usize = 6;
const STEPS: usize = if cfg!(debug_assertions) { 20_000 } else { 60_000 };
const HELD_MAX: usize = 300;

#[test]
fn packets_cross_threads_and_pools_and_all_come_back() {
    let seed: u64 =
        std::env::var("MADANG_SEED").map_or(1, |seed| seed.parse().expect("MADANG_SEED is a number"));
    println!("MADANG_SEED={seed}");
    let pools = [
        Depot::new(PoolSettings::default().policy(Policy::GiveBack { keep_bytes: 100_000 })),
        // Tight enough that some packets are refused.
        Depot::new(PoolSettings::default().budget_bytes(1_500_000)),
    ];
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::sync_channel(64)).unzip();
    let (running, serial) = (AtomicBool::new(true), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| {
                let worker = Worker {
                    pools: &pools,
                    random: Random(seed.wrapping_mul(1_000_003) + index as u64),
                    serial: &serial,
                    inbox,
                    peers: senders.clone(),
                    held: Vec::new(),
                };
                scope.spawn(move || worker.run(index))
            })
            .collect();
        drop(senders);
        let observer = scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                for pool in &pools {
                    let figures = pool.figures();
                    assert!(figures.in_use.blocks < usize::MAX / 2, "more returned than were taken");
                    assert!(figures.capacity.bytes <= pool.settings().budget_bytes);
                    pool.trim();
                }
                thread::yield_now();
            }
        });
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        running.store(false, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.expect("no worker panicked"));
        observer.join().expect("the figures were sound");
    });
    for pool in &pools {
        let figures = pool.figures();
        assert_eq!((figures.in_use.blocks, figures.in_use.bytes), (0, 0));
        assert!(figures.high_water_bytes > 0);
    }
    assert!(pools[1].figures().refusals > 0, "the tight pool was meant to refuse");
}

struct Worker<'a> {
    pools: &'a [Depot; 2],
    random: Random,
    serial: &'a AtomicU64,
    inbox: mpsc::Receiver<Packet>,
    peers: Vec<mpsc::SyncSender<Packet>>,
    held: Vec<Packet>,
}

impl Worker<'_> {
    /// Every third thread has no magazine, the others one of either pool.
    fn run(mut self, index: usize) {
        let magazine = (index % 3 < 2).then(|| self.pools[index % 3].magazine());
        for _ in 0..8 {
            let installed = magazine.as_ref().map(|magazine| magazine.install());
            for _ in 0..STEPS / 8 {
                self.step();
            }
            drop(installed);
            if let Some(magazine) = &magazine {
                magazine.trim();
            }
        }
        drop(self.peers);
        self.held.iter().chain(self.inbox.iter().collect::<Vec<_>>().iter()).for_each(check);
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=3 => self.make(),
            4..=5 => self.send(),
            6..=7 => {
                if let Ok(packet) = self.inbox.try_recv() {
                    check(&packet);
                    self.held.push(packet);
                }
            }
            8 => self.rewrite(),
            _ => self.drop_one(),
        }
        while self.held.len() > HELD_MAX {
            self.drop_one();
        }
    }

    fn make(&mut self) {
        let pool = &self.pools[self.random.below(2)];
        let Ok(mut packet) = pool.packet(self.random.below(200)) else { return };
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        packet.u64(serial);
        let words = match self.random.below(50) {
            0 => self.random.below(20_000),
            _ => self.random.below(40),
        };
        for word in 0..words {
            packet.u64(serial.wrapping_mul(31).wrapping_add(word as u64));
        }
        self.held.push(packet.freeze());
    }

    fn send(&mut self) {
        let Some(packet) = self.pick() else { return };
        check(&packet);
        match self.random.below(3) {
            0 => self.post(packet),
            1 => {
                self.post(packet.clone());
                self.held.push(packet);
            }
            _ => {
                let (count, taken) = (self.random.below(8), self.random.below(8));
                packet.shares(count).take(taken).for_each(|share| self.post(share));
            }
        }
    }

    fn rewrite(&mut self) {
        let Some(packet) = self.pick() else { return };
        match packet.try_into_mut() {
            Ok(mut packet) => {
                let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                packet.clear();
                packet.u64(serial).u64(serial.wrapping_mul(31));
                self.held.push(packet.freeze());
            }
            Err(shared) => check(&shared),
        }
    }

    fn drop_one(&mut self) {
        if let Some(packet) = self.pick() {
            check(&packet);
        }
    }

    fn pick(&mut self) -> Option<Packet> {
        let index = self.random.below(self.held.len().max(1));
        (index < self.held.len()).then(|| self.held.swap_remove(index))
    }

    /// A full inbox drops it: nobody waits for anybody here.
    fn post(&mut self, packet: Packet) {
        let peer = self.random.below(self.peers.len());
        let _ = self.peers[peer].try_send(packet);
    }
}

fn check(packet: &Packet) {
    let mut words = packet.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    let Some(serial) = words.next() else { return };
    for (index, word) in words.enumerate() {
        assert_eq!(
            word,
            serial.wrapping_mul(31).wrapping_add(index as u64),
            "packet {serial} was overwritten"
        );
    }
}

/// xorshift64*: enough to choose with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}
