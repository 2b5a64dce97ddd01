//! What is this driver's own: edges that are told once, sends that block, turns between loud and quiet peers, sleep. What
//! every driver promises is in the contract suite.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use madang_packet::{Depot, Packet, PoolSettings};

use super::*;
use crate::{OUTGOING_PIECES_MAX, RecvEnd};

/// Longer than anything here takes; only a bug waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A driver with one listener, and a peer for whoever wants one.
struct Rig {
    driver: Readiness,
    listener: Listener,
    address: SocketAddr,
    depot: Depot,
    out: Vec<Completion>,
}

impl Rig {
    fn new(settings: DriverSettings) -> Rig {
        let mut driver = Readiness::new(&settings).unwrap();
        let (listener, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
        Rig { driver, listener, address, depot: Depot::new(PoolSettings::default()), out: Vec::new() }
    }

    /// Polls until `wanted` finds what it looks for among the completions; the others wait for the next call.
    fn expect<T>(&mut self, wanted: impl Fn(&Completion) -> Option<T>) -> T {
        let deadline = self.driver.precise_now() + PATIENCE;
        loop {
            if let Some(place) = self.out.iter().position(|completion| wanted(completion).is_some()) {
                return wanted(&self.out.remove(place)).unwrap();
            }
            assert!(self.driver.precise_now() < deadline, "it never came; told instead: {:?}", self.out);
            // Bytes that nobody expects are not kept: the loan ends here.
            self.out.retain(|completion| !matches!(completion, Completion::Data { .. }));
            self.driver.poll(&mut self.out, 64, Wait::until(deadline));
        }
    }

    /// A peer and the driver's end of it, attached, not yet receiving.
    fn pair(&mut self) -> (TcpStream, Conn) {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        self.driver.poll(&mut self.out, 64, Wait::FOREVER);
        let place = self.out.iter().position(|told| matches!(told, Completion::Accepted { .. })).unwrap();
        let Completion::Accepted { listener, incoming } = self.out.remove(place) else { unreachable!() };
        assert_eq!((listener, incoming.peer()), (self.listener, peer.local_addr().unwrap()));
        assert_eq!(incoming.local(), self.address);
        (peer, self.driver.attach(incoming).unwrap())
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.depot.packet(bytes.len()).unwrap();
        packet.set_limit(bytes.len());
        packet.extend_from_slice(bytes);
        assert_eq!(packet.len(), bytes.len());
        packet.freeze()
    }

    fn send(&mut self, conn: Conn, pieces: &[&[u8]]) {
        let mut outgoing = Outgoing::new();
        pieces.iter().for_each(|piece| outgoing.push(self.packet(piece)));
        self.driver.send(conn, outgoing).unwrap();
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

    /// Nothing is told of `conn` for a while.
    fn silent(&mut self, conn: Conn) {
        let until = self.driver.precise_now() + Duration::from_millis(20);
        while self.driver.precise_now() < until {
            self.driver.poll(&mut self.out, 64, Wait::until(until));
        }
        assert!(
            !self.out.iter().any(|told| matches!(told,
                Completion::Data { conn: of, .. } | Completion::RecvEnded { conn: of, .. } if *of == conn)),
            "told: {:?}",
            self.out
        );
    }

    /// Retires what is left, closes, and finds everything back at zero.
    fn finish(mut self, conns: &[Conn]) {
        conns.iter().for_each(|conn| self.driver.retire(*conn));
        self.driver.unlisten(self.listener);
        self.expect(|told| matches!(told, Completion::Unlistened { .. }).then_some(()));
        let figures = self.driver.figures();
        assert_eq!((figures.connections, figures.in_flight), (0, 0));
        assert!(self.driver.shutdown(Duration::ZERO).is_none());
    }
}

fn settings() -> DriverSettings {
    DriverSettings { connections_max: 16, ..DriverSettings::default() }
}

#[test]
fn bytes_that_came_before_the_receive_was_started_are_told() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    peer.write_all(b"early").unwrap();
    rig.silent(conn);
    rig.driver.recv_start(conn).unwrap();
    assert_eq!(rig.data(conn), b"early");
    peer.write_all(b"and late").unwrap();
    assert_eq!(rig.data(conn), b"and late");
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.end(conn), RecvEnd::Eof);
    rig.finish(&[conn]);
}

#[test]
fn data_and_end_of_stream_in_one_edge_are_both_told() {
    for length in [1, 63, 64, 65, 4_096] {
        let small = DriverSettings { recv_buffers: 1, recv_buffer_bytes: 64, ..settings() };
        let mut rig = Rig::new(small);
        let (mut peer, conn) = rig.pair();
        peer.write_all(&vec![7; length]).unwrap();
        drop(peer);
        rig.driver.recv_start(conn).unwrap();
        let mut got = 0;
        while got < length {
            got += rig.data(conn).len();
        }
        assert_eq!((got, rig.end(conn)), (length, RecvEnd::Eof));
        rig.finish(&[conn]);
    }
}

#[test]
fn a_paused_receive_is_silent_and_loses_nothing() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    for round in 0..20u8 {
        rig.driver.recv_pause(conn);
        peer.write_all(&[round; 100]).unwrap();
        if round == 19 {
            peer.shutdown(Shutdown::Write).unwrap();
        }
        rig.silent(conn);
        rig.driver.recv_resume(conn);
        assert_eq!(rig.data(conn), [round; 100]);
    }
    assert_eq!(rig.end(conn), RecvEnd::Eof);
    rig.finish(&[conn]);
}

#[test]
fn k07_a_blocked_send_waits_for_room_and_every_byte_arrives_once() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    let block: Vec<u8> = (0..60_000u32).map(|number| number as u8).collect();
    let mut given = 0;
    // Until the kernel takes no more.
    loop {
        rig.send(conn, &[&block]);
        rig.driver.poll(&mut rig.out, 64, Wait::NO);
        if rig.out.is_empty() {
            break;
        }
        let bytes = rig.sent(conn).unwrap();
        assert!(bytes > 0 && bytes <= block.len());
        given += bytes;
    }
    assert_eq!(rig.driver.figures().in_flight, 2, "the listener and the blocked send");
    let mut got = vec![0; given];
    peer.read_exact(&mut got).unwrap();
    let last = rig.sent(conn).unwrap();
    assert!(last > 0);
    got.resize(last, 0);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, block[..last]);
    rig.finish(&[conn]);
}

#[test]
fn a_send_of_any_number_of_pieces_arrives_in_order() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    for count in [1, 2, 3, 63, OUTGOING_PIECES_MAX] {
        let bytes: Vec<u8> = (0..count as u8).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        rig.send(conn, &pieces);
        assert_eq!(rig.sent(conn), Ok(count));
        let mut got = vec![0; count];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }
    rig.finish(&[conn]);
}

#[test]
fn k16_a_reset_is_no_peaceful_end_even_if_a_send_met_it_first() {
    for send_first in [false, true] {
        let mut rig = Rig::new(settings());
        let (peer, conn) = rig.pair();
        sockets::reset_on_close(&socket2::SockRef::from(&peer)).unwrap();
        drop(peer);
        if send_first {
            rig.send(conn, &[b"into the void"]);
            assert_eq!(rig.sent(conn), Err(NetError::Reset));
        }
        rig.driver.recv_start(conn).unwrap();
        assert_eq!(rig.end(conn), RecvEnd::Error(NetError::Reset));
        rig.finish(&[conn]);
    }
}

#[test]
fn an_abort_ends_what_is_in_flight_and_the_peer_sees_a_reset_before_the_retire() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    let block = [7; 60_000];
    loop {
        rig.send(conn, &[&block]);
        rig.driver.poll(&mut rig.out, 64, Wait::NO);
        if rig.out.is_empty() {
            break;
        }
        rig.sent(conn).unwrap();
    }
    rig.driver.abort(conn);
    rig.driver.abort(conn);
    assert_eq!(rig.sent(conn), Err(NetError::Cancelled));
    assert_eq!(rig.end(conn), RecvEnd::Error(NetError::Cancelled));
    let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    // Whatever is asked of it now ends at once.
    rig.send(conn, &[b"late"]);
    assert_eq!(rig.sent(conn), Err(NetError::Cancelled));
    rig.finish(&[conn]);
}

#[test]
fn u19_a_loud_peer_waits_for_the_quiet_ones_after_each_read() {
    let small = DriverSettings { recv_buffers: 1, recv_buffer_bytes: 1_024, ..settings() };
    let mut rig = Rig::new(small);
    let (mut loud, loud_conn) = rig.pair();
    let (mut quiet, quiet_conn) = rig.pair();
    rig.driver.recv_start(loud_conn).unwrap();
    rig.driver.recv_start(quiet_conn).unwrap();
    let mut loud_got = 0;
    for round in 0..50u8 {
        loud.write_all(&[0; 8 * 1_024]).unwrap();
        // The loud one is being read; the quiet one comes later.
        loud_got += rig.data(loud_conn).len();
        quiet.write_all(&[round]).unwrap();
        let mut loud_reads = 0;
        loop {
            rig.out.clear();
            rig.driver.poll(&mut rig.out, 64, Wait::FOREVER);
            let mut served = false;
            for told in &rig.out {
                match told {
                    Completion::Data { conn, bytes, .. } if *conn == loud_conn => {
                        loud_got += bytes.len();
                        loud_reads += 1;
                    }
                    Completion::Data { bytes, .. } => {
                        assert_eq!(&**bytes, [round]);
                        served = true;
                    }
                    told => panic!("{told:?}"),
                }
            }
            if served {
                break;
            }
        }
        assert!(loud_reads <= 3, "{loud_reads} reads of the loud peer before the quiet one's");
        rig.out.clear();
    }
    while loud_got < 50 * 8 * 1_024 {
        loud_got += rig.data(loud_conn).len();
    }
    rig.driver.abort(loud_conn);
    rig.driver.abort(quiet_conn);
    rig.end(loud_conn);
    rig.end(quiet_conn);
    rig.finish(&[loud_conn, quiet_conn]);
}

#[test]
fn a_small_max_tells_everything_in_the_end_and_each_thing_once() {
    let mut rig = Rig::new(settings());
    let pairs: Vec<(TcpStream, Conn)> = (0..8).map(|_| rig.pair()).collect();
    for (peer, conn) in &pairs {
        (&mut &*peer).write_all(b"x").unwrap();
        rig.driver.recv_start(*conn).unwrap();
        rig.send(*conn, &[b"y"]);
    }
    let (mut data, mut sent) = (0, 0);
    while data + sent < 16 {
        rig.driver.poll(&mut rig.out, 1, Wait::until(rig.driver.precise_now() + PATIENCE));
        assert_eq!(rig.out.len(), 1);
        match rig.out.pop() {
            Some(Completion::Data { .. }) => data += 1,
            Some(Completion::Sent { result: Ok(1), .. }) => sent += 1,
            told => panic!("{told:?}"),
        }
    }
    assert_eq!((data, sent), (8, 8));
    let conns: Vec<Conn> = pairs.iter().map(|pair| pair.1).collect();
    for conn in &conns {
        rig.driver.abort(*conn);
        rig.end(*conn);
    }
    rig.finish(&conns);
}

#[test]
fn a_deadline_is_never_early_and_an_idle_sleep_is_one_call() {
    let mut rig = Rig::new(settings());
    for (millis, at_least) in [(0, 1), (1, 1), (5, 1), (20, 1_000)] {
        let before = rig.driver.figures().enters;
        let deadline = rig.driver.precise_now() + Duration::from_millis(millis);
        rig.driver.poll(&mut rig.out, 64, Wait { until: Some(deadline), at_least });
        assert!(rig.out.is_empty());
        assert!(rig.driver.now() >= deadline, "{millis} ms were cut short");
        let looks = rig.driver.figures().enters - before;
        assert!(looks <= 4, "{looks} looks in {millis} ms");
    }
    rig.finish(&[]);
}

#[test]
fn gathering_waits_for_enough_or_for_the_tick() {
    let mut rig = Rig::new(settings());
    let (peers, conns): (Vec<TcpStream>, Vec<Conn>) = (0..4).map(|_| rig.pair()).unzip();
    for conn in &conns {
        rig.driver.recv_start(*conn).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for mut peer in &peers {
                thread::sleep(Duration::from_millis(3));
                peer.write_all(b"tick").unwrap();
            }
        });
        // Enough is there long before the tick.
        let tick = rig.driver.precise_now() + PATIENCE;
        rig.driver.poll(&mut rig.out, 64, Wait { until: Some(tick), at_least: 3 });
        assert!(rig.out.len() >= 3 && rig.driver.now() < tick, "{:?}", rig.out);
        let so_far = rig.out.len();
        rig.out.clear();
        // What is left is never enough: the tick ends it.
        let tick = rig.driver.precise_now() + Duration::from_millis(30);
        rig.driver.poll(&mut rig.out, 64, Wait { until: Some(tick), at_least: 1_000 });
        assert_eq!(so_far + rig.out.len(), 4);
        assert!(rig.driver.now() >= tick);
    });
    rig.out.clear();
    for conn in &conns {
        rig.driver.abort(*conn);
        rig.end(*conn);
    }
    rig.finish(&conns);
}

#[test]
fn gathering_looks_once_a_millisecond_however_many_messages_come() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peer.write_all(b"x").unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        });
        let before = rig.driver.figures().enters;
        let tick = rig.driver.precise_now() + Duration::from_millis(20);
        rig.driver.poll(&mut rig.out, 1_000, Wait { until: Some(tick), at_least: 1_000 });
        done.store(true, Ordering::Relaxed);
        // A look and a read each time, and the looks of falling asleep and of the end.
        let enters = rig.driver.figures().enters - before;
        assert!(enters <= 2 * (20 + 4), "{enters} calls in 20 ms");
    });
    rig.out.clear();
    rig.driver.abort(conn);
    rig.end(conn);
    rig.finish(&[conn]);
}

#[test]
fn a_wake_ends_a_sleep_a_nap_and_the_sleep_to_come() {
    let mut rig = Rig::new(settings());
    let (mut peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    // Rung while awake, thrice: the next sleep does not happen, the one after it does.
    let waker = rig.driver.waker();
    (0..3).for_each(|_| waker.wake());
    rig.driver.poll(&mut rig.out, 64, Wait::NO);
    rig.driver.poll(&mut rig.out, 64, Wait::FOREVER);
    let deadline = rig.driver.precise_now() + Duration::from_millis(10);
    rig.driver.poll(&mut rig.out, 64, Wait::until(deadline));
    assert!(rig.driver.now() >= deadline && rig.out.is_empty());
    // Rung while asleep, and while gathering with something in hand already.
    for gathers in [false, true] {
        if gathers {
            peer.write_all(b"something").unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                    waker.wake();
                }
            });
            let started = rig.driver.precise_now();
            let until = Some(started + PATIENCE);
            rig.driver.poll(&mut rig.out, 64, Wait { until, at_least: if gathers { 1_000 } else { 1 } });
            assert!(rig.driver.now() - started < PATIENCE / 2, "the wake was lost");
            done.store(true, Ordering::Relaxed);
        });
        rig.out.clear();
    }
    rig.driver.abort(conn);
    rig.end(conn);
    rig.finish(&[conn]);
    // The driver is gone, its waker is harmless.
    waker.wake();
}

#[test]
fn no_wake_is_lost_between_awake_and_asleep() {
    let mut driver = Readiness::new(&settings()).unwrap();
    let waker = driver.waker();
    let posted = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000u32 {
                while posted.swap(true, Ordering::AcqRel) {
                    std::hint::spin_loop();
                }
                waker.wake();
                // At every distance from the other side's falling asleep.
                (0..round % 97).for_each(|_| std::hint::spin_loop());
                while posted.load(Ordering::Acquire) {
                    thread::yield_now();
                }
            }
        });
        let mut out = Vec::new();
        let mut taken = 0;
        while taken < 20_000 {
            let deadline = driver.precise_now() + PATIENCE;
            driver.poll(&mut out, 1, Wait::until(deadline));
            assert!(driver.now() < deadline, "the wake of message {taken} was lost");
            taken += u32::from(posted.swap(false, Ordering::AcqRel));
        }
    });
}

#[test]
fn k17_a_connect_ends_in_exactly_one_way() {
    let mut rig = Rig::new(settings());
    let connected = |rig: &mut Rig, conn: Conn| {
        rig.expect(|told| match told {
            Completion::Connected { conn: of, result } if *of == conn => Some(*result),
            _ => None,
        })
    };
    // It succeeds.
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap();
    let local = "127.0.0.1:0".parse().ok();
    let open = rig.driver.connect(&ConnectOptions { local, ..ConnectOptions::new(address) }).unwrap();
    let ours = connected(&mut rig, open).unwrap();
    let (mut peer, from) = echo.accept().unwrap();
    assert_eq!(ours, from);
    rig.driver.recv_start(open).unwrap();
    peer.write_all(b"welcome").unwrap();
    assert_eq!(rig.data(open), b"welcome");
    drop(peer);
    assert_eq!(rig.end(open), RecvEnd::Eof);
    // Nobody listens: a port that was just given back.
    drop(echo);
    let refused = rig.driver.connect(&ConnectOptions::new(address)).unwrap();
    assert_eq!(connected(&mut rig, refused), Err(NetError::Refused));
    // Nobody listens, and the system picks the very port as ours: TCP would connect the socket to itself.
    let options = ConnectOptions { local: Some(address), ..ConnectOptions::new(address) };
    let itself = rig.driver.connect(&options).unwrap();
    assert_eq!(connected(&mut rig, itself), Err(NetError::Refused));
    // Called off.
    let called_off = rig.driver.connect(&ConnectOptions::new(rig.address)).unwrap();
    rig.driver.abort(called_off);
    assert_eq!(connected(&mut rig, called_off), Err(NetError::Cancelled));
    // Not of this machine: at once, and nothing is left to retire.
    let local = "192.0.2.1:0".parse().ok();
    let error = rig.driver.connect(&ConnectOptions { local, ..ConnectOptions::new(address) }).unwrap_err();
    assert_eq!(error, ConnectError::Failed(NetError::AddrNotAvailable));
    rig.finish(&[open, refused, itself, called_off]);
}

#[test]
fn a_full_table_refuses_and_a_retired_place_has_a_new_name() {
    let mut rig = Rig::new(DriverSettings { connections_max: 1, ..settings() });
    let (_peer, conn) = rig.pair();
    let _second = TcpStream::connect(rig.address).unwrap();
    rig.driver.poll(&mut rig.out, 64, Wait::FOREVER);
    let Some(Completion::Accepted { incoming, .. }) = rig.out.pop() else {
        panic!("somebody is at the door")
    };
    assert!(matches!(rig.driver.attach(incoming), Err(AttachError::Failed(NetError::TableFull))));
    rig.driver.retire(conn);
    let (_peer, next) = rig.pair();
    assert_eq!(next.index(), conn.index());
    assert_ne!(next.generation(), conn.generation());
    rig.finish(&[next]);
}

/// Runs in a process of its own, since the descriptor limit is the process's: see the test below.
#[test]
#[ignore = "k15 is what starts it: k15_at_the_descriptor_limit_accepting_backs_off_and_recovers"]
fn child_at_the_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let mut rig = Rig::new(settings());
    let before = getrlimit(Resource::Nofile);
    let peers: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    // The lowest free number is what the next accept would get.
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: before.maximum }).unwrap();
    let told = rig.expect(|told| match told {
        Completion::AcceptStalled { listener, error } => Some((*listener, *error)),
        _ => None,
    });
    assert_eq!(told, (rig.listener, NetError::TooManyFiles));
    // Told once, tried again with growing pauses: 1 + 2 + 4 … + 64 + 64 ms.
    let enters = rig.driver.figures().enters;
    let until = rig.driver.precise_now() + Duration::from_millis(300);
    while rig.driver.precise_now() < until {
        rig.driver.poll(&mut rig.out, 64, Wait::until(until));
        assert!(rig.out.is_empty(), "{:?}", rig.out);
    }
    let enters = rig.driver.figures().enters - enters;
    assert!((4..60).contains(&enters), "{enters} calls in 300 ms");
    assert_eq!(rig.driver.figures().accept_stalls, 1);
    setrlimit(Resource::Nofile, before).unwrap();
    for _ in &peers {
        rig.expect(|told| matches!(told, Completion::Accepted { .. }).then_some(()));
    }
    rig.finish(&[]);
}

#[test]
fn k15_at_the_descriptor_limit_accepting_backs_off_and_recovers() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "readiness::tests::child_at_the_descriptor_limit"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}
