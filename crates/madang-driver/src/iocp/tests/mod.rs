//! What only this driver can get wrong, by the fault catalogue's W01–W12; the contract suite has the rest. Peers are plain
//! blocking sockets.

mod cancels;
mod doors;
mod ends;
mod packets;

use std::net::TcpStream;
use std::time::Instant;

use madang_packet::{Depot, Packet, PoolSettings};

use super::*;
use crate::RecvEnd;

/// Longer than anything here takes; only a bug waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A driver with one listener, and a peer for whoever wants one.
struct Rig {
    driver: Iocp,
    listener: Listener,
    address: SocketAddr,
    depot: Depot,
    out: Vec<Completion>,
}

fn settings() -> DriverSettings {
    DriverSettings { connections_max: 16, recv_buffers: 4, ..DriverSettings::default() }
}

impl Rig {
    fn new() -> Rig {
        Rig::of(Iocp::new(&settings()).unwrap())
    }

    fn of(mut driver: Iocp) -> Rig {
        let (listener, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let mut rig =
            Rig { driver, listener, address, depot: Depot::new(PoolSettings::default()), out: Vec::new() };
        // The accepts are posted by a poll.
        rig.poll(Duration::ZERO);
        rig
    }

    fn poll(&mut self, span: Duration) {
        // Bytes that nobody expected are not kept: the loan ends here.
        self.out.retain(|completion| !matches!(completion, Completion::Data { .. }));
        let until = self.driver.precise_now() + span;
        self.driver.poll(&mut self.out, 64, Wait::until(until));
    }

    /// Polls until `wanted` finds what it looks for among the completions; the others wait for the next call.
    fn expect<T>(&mut self, wanted: impl Fn(&Completion) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(place) = self.out.iter().position(|completion| wanted(completion).is_some()) {
                return wanted(&self.out.remove(place)).unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "it never came; told instead: {:?}", self.out);
            self.poll(Duration::from_millis(50));
        }
    }

    /// A peer and the driver's end of it, attached, not yet receiving.
    fn pair(&mut self) -> (TcpStream, Conn) {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let incoming = self.next_incoming();
        assert_eq!(incoming.peer(), peer.local_addr().unwrap());
        (peer, self.driver.attach(incoming).unwrap())
    }

    fn next_incoming(&mut self) -> Incoming {
        let start = Instant::now();
        loop {
            if let Some(place) = self.out.iter().position(|told| matches!(told, Completion::Accepted { .. }))
            {
                let Completion::Accepted { incoming, .. } = self.out.remove(place) else { unreachable!() };
                return incoming;
            }
            assert!(start.elapsed() < PATIENCE, "nobody at the door: {:?}", self.out);
            self.poll(Duration::from_millis(50));
        }
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.depot.packet(bytes.len()).unwrap();
        packet.set_limit(1 << 24);
        packet.extend_from_slice(bytes);
        packet.freeze()
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let mut outgoing = Outgoing::new();
        outgoing.push(self.packet(bytes));
        self.driver.send(conn, outgoing).unwrap();
    }

    /// Sends until a send stays in the system's hands; answers how much has left.
    fn clog(&mut self, conn: Conn, block: &[u8]) -> usize {
        let mut left = 0;
        for _ in 0..10_000 {
            self.send(conn, block);
            let start = Instant::now();
            loop {
                self.poll(Duration::from_millis(5));
                let mine =
                    |told: &Completion| matches!(told, Completion::Sent { conn: of, .. } if *of == conn);
                if let Some(place) = self.out.iter().position(mine) {
                    let Completion::Sent { result, .. } = self.out.remove(place) else { unreachable!() };
                    left += result.unwrap();
                    break;
                }
                if start.elapsed() > Duration::from_millis(200) {
                    return left;
                }
            }
        }
        panic!("{left} bytes went to a peer that does not read");
    }

    fn sent(&mut self, conn: Conn) -> Result<usize, NetError> {
        self.expect(|told| match told {
            Completion::Sent { conn: of, result, .. } if *of == conn => Some(*result),
            _ => None,
        })
    }

    fn data(&mut self, conn: Conn) -> Vec<u8> {
        self.expect(|told| match told {
            Completion::Data { conn: of, bytes, more: true } if *of == conn => Some(bytes.to_vec()),
            _ => None,
        })
    }

    fn end(&mut self, conn: Conn) -> RecvEnd {
        self.expect(|told| match told {
            Completion::RecvEnded { conn: of, end } if *of == conn => Some(*end),
            _ => None,
        })
    }

    /// How many packets the system owes.
    fn in_flight(&self) -> usize {
        self.driver.figures().in_flight
    }

    /// Retires what is left, closes, and finds everything back at zero.
    fn finish(mut self, conns: &[Conn]) {
        conns.iter().for_each(|conn| self.driver.retire(*conn));
        self.driver.unlisten(self.listener);
        self.expect(|told| matches!(told, Completion::Unlistened { .. }).then_some(()));
        let figures = self.driver.figures();
        assert_eq!((figures.connections, figures.in_flight, figures.stale), (0, 0, 0));
        assert!(self.driver.shutdown(PATIENCE).is_none());
        drop(self.driver);
        self.out.clear();
        assert_eq!(self.depot.figures().in_use.blocks, 0);
    }
}
