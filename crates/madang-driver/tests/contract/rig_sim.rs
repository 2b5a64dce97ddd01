//! The simulated world as a rig: on a good day, and on days when all that the contract permits happens.

use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::sim::{FaultKind, Faults, Peer, PeerListener, PeerState, SimDriver, World};
use madang_driver::{DriverSettings, ListenOptions};

use crate::rig::{Heard, RawListener, RawPeer, Rig};

pub struct SimRig {
    world: World,
    is_unruly: bool,
}

/// How many unruly seeds each case sees. `MADANG_SEED` runs one alone, `MADANG_SEEDS` so many.
const SEEDS: u64 = 25;

pub fn run_calm(case: fn(SimRig)) {
    case(SimRig { world: World::new(1, Faults::none()), is_unruly: false });
    case(SimRig { world: World::new(2, Faults::calm()), is_unruly: false });
}

pub fn run_unruly(case: fn(SimRig)) {
    let number =
        |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a seed is a number"));
    let seeds = match number("MADANG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MADANG_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let _name = NameOnFailure(seed);
        // Cases count each byte that is sent, so a send's error, which loses none, has a case of its own.
        let faults = Faults::swarm(seed).harmless().with(FaultKind::SendNoBufferSpace, 0);
        case(SimRig { world: World::new(seed, faults), is_unruly: true });
    }
}

struct NameOnFailure(u64);

impl Drop for NameOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with MADANG_SEED={}", self.0);
        }
    }
}

impl Rig for SimRig {
    type Driver = SimDriver;
    type Peer = Peer;
    type PeerListener = PeerListener;

    fn driver(&self, settings: &DriverSettings) -> SimDriver {
        self.world.driver(settings.clone())
    }

    fn peer_from(&self, host: u8, to: SocketAddr) -> Peer {
        let from = match to {
            SocketAddr::V4(_) => SocketAddr::from(([127, 0, 0, host], 0)),
            SocketAddr::V6(_) => "[::1]:0".parse().unwrap(),
        };
        self.world.peer(from, to).expect("a loopback address is the world's")
    }

    fn refuses(&self, to: SocketAddr) -> bool {
        let peer = self.peer(to);
        while peer.state() == PeerState::Connecting {
            self.world.step();
        }
        matches!(peer.state(), PeerState::Failed(_))
    }

    fn peer_listener(&self) -> PeerListener {
        self.world.peer_listener(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).expect("a free port")
    }

    fn limit_descriptors(&self, more: Option<usize>) {
        self.world.set_descriptors_max(more.map_or(usize::MAX, |more| self.world.open_sockets() + more));
    }

    fn pass(&self, idle: bool) {
        if idle {
            self.world.step();
        } else {
            // A driver that always has something to tell must not stop the clock.
            self.world.advance(self.world.now() + Duration::from_micros(1));
        }
    }

    fn is_unruly(&self) -> bool {
        self.is_unruly
    }

    fn check_balance(&self) {
        assert_eq!(self.world.open_sockets(), 0, "descriptors that drivers still hold");
    }
}

impl RawPeer for Peer {
    fn local(&self) -> SocketAddr {
        Peer::local(self)
    }

    fn is_connected(&self) -> bool {
        self.is_open()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        Peer::write(self, bytes)
    }

    fn read(&mut self, into: &mut Vec<u8>) -> Heard {
        let before = into.len();
        into.resize(before + self.unread(), 0);
        let count = Peer::read(self, &mut into[before..]);
        match self.state() {
            _ if count > 0 => Heard::Bytes,
            PeerState::Ended => Heard::Eof,
            PeerState::Failed(_) | PeerState::Closed => Heard::Broken,
            PeerState::Open | PeerState::Connecting => Heard::Nothing,
        }
    }

    fn shutdown_write(&mut self) {
        Peer::shutdown_write(self);
    }

    fn reset(mut self) {
        Peer::reset(&mut self);
    }
}

impl RawListener for PeerListener {
    type Peer = Peer;

    fn address(&self) -> SocketAddr {
        PeerListener::address(self)
    }

    fn accept(&mut self) -> Option<Peer> {
        PeerListener::accept(self)
    }
}
