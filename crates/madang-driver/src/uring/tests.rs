//! What only this driver can get wrong; the contract suite has the rest. Peers are plain blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use madang_packet::{Depot, Packet, PoolSettings};

use super::*;
use crate::RecvEnd;

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
fn rig(settings: &DriverSettings) -> Option<Rig> {
    let mut uring = match Uring::new(settings) {
        Ok(uring) => uring,
        Err(refused) => {
            eprintln!("skipped: {refused}");
            return None;
        }
    };
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
            outgoing = back;
            outgoing.advance(result.unwrap());
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

#[test]
fn what_comes_goes_back_in_order_with_and_without_an_own_file_table() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let (mut peer, conn) = rig.accept();
        rig.uring.recv_start(conn).unwrap();
        for length in [1, 2, 100, 4_096, 70_000, 300_000] {
            let bytes = pattern(length);
            let (mut writer, sent) = (peer.try_clone().unwrap(), bytes.clone());
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            let received = rig.receive(conn, length);
            writing.join().unwrap();
            assert_eq!(received, bytes);
            let mut reader = peer.try_clone().unwrap();
            let reading = std::thread::spawn(move || {
                let mut back = vec![0; length];
                reader.read_exact(&mut back).unwrap();
                back
            });
            let pieces: Vec<&[u8]> = received.chunks(length.div_ceil(OUTGOING_PIECES)).collect();
            let outgoing = rig.outgoing(&pieces);
            rig.send_all(conn, outgoing);
            assert_eq!(reading.join().unwrap(), bytes);
        }
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(rig.await_end(conn), RecvEnd::Eof);
        rig.uring.retire(conn);
        let _ = peer.read(&mut [0]);
        rig.finish();
    }
}

const OUTGOING_PIECES: usize = crate::OUTGOING_PIECES_MAX;

#[test]
fn the_probe_says_what_is_missing() {
    match probe() {
        Ok(features) => eprintln!("{features}: {features:?}"),
        Err(refused) => eprintln!("{refused}"),
    }
}
