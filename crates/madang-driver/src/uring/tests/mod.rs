//! What only this driver can get wrong; the contract suite has the rest. Peers are plain blocking sockets.

mod lives;
mod streams;
mod waits;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use madang_packet::{Depot, Packet, PoolSettings};

use super::*;
use crate::{NetError, RecvEnd};

/// Longer than any honest wait here, shorter than anybody's patience.
const DEADLINE: Duration = Duration::from_secs(10);

struct Rig {
    uring: Uring,
    listener: Listener,
    address: SocketAddr,
    told: VecDeque<Completion>,
    depot: Depot,
}

fn small() -> DriverSettings {
    DriverSettings { connections_max: 64, submissions_max: 64, recv_buffers: 8, ..DriverSettings::default() }
}

/// None where io_uring is refused; the test is then skipped, and says so.
fn features() -> Option<Features> {
    probe().inspect_err(|refused| eprintln!("skipped: {refused}")).ok()
}

fn rig(settings: &DriverSettings) -> Option<Rig> {
    rig_with(settings, features()?)
}

fn rig_with(settings: &DriverSettings, features: Features) -> Option<Rig> {
    let mut uring = Uring::with_features(settings, features).unwrap();
    let (listener, address) = uring.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let depot = Depot::new(PoolSettings::default());
    Some(Rig { uring, listener, address, told: VecDeque::new(), depot })
}

impl Rig {
    fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.depot.packet(bytes.len()).unwrap();
        packet.set_limit(1 << 24);
        packet.extend_from_slice(bytes);
        packet.freeze()
    }

    fn outgoing(&self, pieces: &[&[u8]]) -> Outgoing {
        let mut outgoing = Outgoing::new();
        for piece in pieces {
            outgoing.push(self.packet(piece));
        }
        outgoing
    }

    fn poll_once(&mut self, span: Duration) {
        let mut out = Vec::new();
        let until = self.uring.precise_now() + span;
        self.uring.poll(&mut out, 256, Wait::until(until));
        self.told.extend(out);
    }

    /// The next completion, within the deadline.
    fn next(&mut self) -> Completion {
        let start = Instant::now();
        loop {
            if let Some(completion) = self.told.pop_front() {
                return completion;
            }
            assert!(start.elapsed() < DEADLINE, "nothing was told; figures: {:?}", self.uring.figures());
            self.poll_once(Duration::from_millis(50));
        }
    }

    fn accept(&mut self) -> (TcpStream, Conn) {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        let Completion::Accepted { incoming, .. } = self.next() else { panic!("not an accept") };
        assert_eq!(incoming.peer(), peer.local_addr().unwrap());
        assert_eq!(incoming.local(), self.address);
        (peer, self.uring.attach(incoming).unwrap())
    }

    /// Receives `count` bytes of `conn`, starting again where a receive ended; answers them.
    fn receive(&mut self, conn: Conn, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next() {
                Completion::Data { conn: of, bytes: lent, more } => {
                    assert_eq!(of, conn);
                    bytes.extend_from_slice(&lent);
                    drop(lent);
                    if !more {
                        self.uring.recv_start(conn).unwrap();
                    }
                }
                Completion::RecvEnded { end: RecvEnd::NoBuffers, .. } => self.uring.recv_start(conn).unwrap(),
                other => panic!("expected data, was told {other:?}"),
            }
        }
        bytes
    }

    /// Sends all of it, however short the writes are.
    fn send_all(&mut self, conn: Conn, mut outgoing: Outgoing) {
        while !outgoing.is_empty() {
            self.uring.send(conn, outgoing).unwrap();
            let Completion::Sent { outgoing: back, result, .. } = self.next() else { panic!("not a sent") };
            result.unwrap();
            outgoing = back;
        }
    }

    fn leave(&mut self, conn: Conn) {
        self.uring.abort(conn);
        self.await_end(conn);
        self.uring.retire(conn);
    }

    fn await_end(&mut self, conn: Conn) -> RecvEnd {
        loop {
            match self.next() {
                Completion::RecvEnded { conn: of, end } if of == conn => return end,
                Completion::Data { .. } => {}
                other => panic!("expected the end, was told {other:?}"),
            }
        }
    }

    /// Ends the driver and checks that nothing is left.
    fn finish(mut self) {
        self.told.clear();
        assert!(self.uring.shutdown(DEADLINE).is_none());
        let figures = self.uring.figures();
        assert_eq!((figures.connections, figures.in_flight, figures.stale), (0, 0, 0), "{figures:?}");
        drop(self.uring);
        assert_eq!(self.depot.figures().in_use.blocks, 0, "every packet came back");
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// The kernel's features from all to none: what older ones leave this driver to work with.
fn every_kernel() -> Vec<Features> {
    let Some(newest) = features() else { return Vec::new() };
    let ring = newest.ring;
    let without = |change: fn(&mut Features)| {
        let mut features = newest;
        change(&mut features);
        features
    };
    vec![
        Features { ring, ..newest },
        without(|features| features.incremental_buffers = false),
        without(|features| features.option_commands = false),
        without(|features| features.ring.registered_ring = false),
        without(|features| features.ring.no_sqarray = false),
        without(|features| {
            let none = RingFlags { registered_ring: false, ..RingFlags::ALL };
            features.ring =
                RingFlags { no_sqarray: false, defer_taskrun: false, coop_taskrun: false, ..none };
            features.incremental_buffers = false;
        }),
    ]
}
