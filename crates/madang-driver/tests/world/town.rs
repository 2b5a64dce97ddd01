//! A town: servers, clients and raw peers in one world, meddled with, then left to come to rest.

use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::sim::{FaultCounts, Faults, Peer, Random, World};
use madang_driver::{Driver, DriverSettings};

use crate::clerk::Clerk;

pub struct Report {
    pub faults: FaultCounts,
    pub completions: u64,
    pub trace_hash: u64,
}

const STEPS: usize = 1_500;
/// Steps in which a town without faults, all of it winding up, is at rest.
const REST_STEPS: usize = 60_000;

pub fn live(seed: u64) -> Report {
    let _name = NameOnFailure(seed);
    let world = World::new(seed, Faults::swarm(seed));
    let mut random = world.random();
    let mut town = Town::new(&world, &mut random);
    for _ in 0..STEPS {
        town.step(&world, &mut random);
    }
    world.set_faults(Faults::none());
    town.rest(&world);
    let report = Report {
        faults: world.fault_counts(),
        completions: town.clerks.iter().map(|clerk| clerk.completions).sum(),
        trace_hash: world.trace_hash(),
    };
    town.clerks.into_iter().for_each(Clerk::check_gone);
    assert_eq!(world.open_sockets(), 0, "descriptors are left");
    report
}

struct NameOnFailure(u64);

impl Drop for NameOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with MADANG_SEED={}", self.0);
        }
    }
}

struct Town {
    /// The first listens, the last connects, all of them serve.
    clerks: Vec<Clerk>,
    address: SocketAddr,
    peers: Vec<Visitor>,
}

/// A raw peer that wants its own bytes back.
struct Visitor {
    peer: Peer,
    script: Vec<u8>,
    written: usize,
    got: usize,
}

impl Town {
    fn new(world: &World, random: &mut Random) -> Town {
        let settings = DriverSettings {
            connections_max: random.between(2, 40) as usize,
            listeners_max: 4,
            submissions_max: random.between(1, 64) as u32,
            recv_buffers: random.between(1, 16) as u16,
            recv_buffer_bytes: random.between(16, 8_192) as u32,
            pause_bytes_max: random.below(4_096) as usize,
            ..DriverSettings::default()
        };
        let mut clerks: Vec<Clerk> =
            (0..random.between(2, 4)).map(|_| Clerk::new(world, settings.clone())).collect();
        if random.below(4) == 0 {
            world.set_descriptors_max(random.between(2, 30) as usize);
        }
        let address = clerks[0].listen("127.0.0.1:7000".parse().unwrap());
        Town { clerks, address, peers: Vec::new() }
    }

    fn step(&mut self, world: &World, random: &mut Random) {
        match random.below(40) {
            0 => self.visit(world, random),
            1 => {
                let script = script(random);
                let last = self.clerks.len() - 1;
                self.clerks[last].connect(self.address, script);
            }
            2 | 16 | 17 => {
                let clerk = random.index(self.clerks.len());
                self.clerks[clerk].meddle(random);
            }
            3 if random.below(8) == 0 => self.reopen(),
            4 => {
                let clerk = random.index(self.clerks.len());
                self.clerks[clerk].driver.waker().wake();
            }
            5 => {
                if let Some(listener) = self.clerks[0].listeners.first().copied() {
                    if random.coin() {
                        self.clerks[0].driver.accept_pause(listener);
                    } else {
                        self.clerks[0].driver.accept_resume(listener);
                    }
                }
            }
            6..=15 if !self.peers.is_empty() => {
                let index = random.index(self.peers.len());
                if !self.peers[index].act(random) {
                    self.peers.swap_remove(index);
                }
            }
            _ => {}
        }
        self.advance(world, random);
    }

    /// One clerk's turn, or time passes.
    fn advance(&mut self, world: &World, random: &mut Random) {
        let Some(number) = world.pick_runnable() else {
            world.step();
            return;
        };
        let wait = self.clerks[number].turn();
        world.plan_wait(number, wait);
        for incoming in std::mem::take(&mut self.clerks[number].at_the_door) {
            let shard = random.index(self.clerks.len());
            if let Some(refused) = self.clerks[shard].attach(incoming) {
                self.clerks[number].at_the_door.push(refused);
            }
        }
        world.advance(world.now() + Duration::from_nanos(random.below(20_000)));
    }

    fn visit(&mut self, world: &World, random: &mut Random) {
        let from = SocketAddr::from(([10, 0, 0, random.between(2, 9) as u8], 0));
        let peer = world.peer(from, self.address).expect("10/8 is the world's");
        self.peers.push(Visitor { peer, script: script(random), written: 0, got: 0 });
    }

    /// The listener goes and another comes to the same port.
    fn reopen(&mut self) {
        let listeners = &mut self.clerks[0].listeners;
        if listeners.len() == 1 {
            let listener = listeners.pop().expect("there is one");
            self.clerks[0].driver.unlisten(listener);
            if let Ok((listener, _)) =
                self.clerks[0].driver.listen(&madang_driver::ListenOptions::new(self.address))
            {
                self.clerks[0].listeners.push(listener);
            }
        }
    }

    fn rest(&mut self, world: &World) {
        world.set_descriptors_max(usize::MAX);
        let mut random = world.random();
        for step in 0..REST_STEPS {
            if step % 5_000 == 0 {
                // First with patience, so that what can end in order does; then everything that is left.
                self.clerks.iter_mut().for_each(|clerk| clerk.wind_up(step > 0));
            }
            for visitor in &mut self.peers {
                visitor.finish();
            }
            self.advance(world, &mut random);
            if self.clerks.iter().all(Clerk::is_at_rest) && step > 200 {
                self.peers.clear();
                while world.open_sockets() > 0 && world.runnable().is_empty() && world.step() {}
                if world.open_sockets() == 0 {
                    return;
                }
            }
        }
        panic!("the town does not come to rest");
    }
}

impl Visitor {
    /// `false` when it has left.
    fn act(&mut self, random: &mut Random) -> bool {
        match random.below(60) {
            0 => self.peer.reset(),
            1 => self.peer.vanish(),
            2 => self.peer.close(),
            3 => self.peer.shutdown_write(),
            4 => self.peer.set_window(random.between(1, 3_000) as usize),
            5..=30 => {
                let end = (self.written + random.between(1, 2_000) as usize).min(self.script.len());
                self.written += self.peer.write(&self.script[self.written..end]);
            }
            _ => self.read(),
        }
        !matches!(self.peer.state(), madang_driver::sim::PeerState::Closed)
    }

    fn read(&mut self) {
        let mut bytes = vec![0; self.peer.unread()];
        self.peer.read(&mut bytes);
        assert!(self.script[self.got..].starts_with(&bytes), "an echo is what was sent");
        self.got += bytes.len();
        assert!(self.got <= self.written, "an echo is not longer than what was sent");
    }

    fn finish(&mut self) {
        self.read();
        self.peer.shutdown_write();
    }
}

fn script(random: &mut Random) -> Vec<u8> {
    let mut script = vec![0; random.between(1, 6_000) as usize];
    random.fill(&mut script);
    script
}
