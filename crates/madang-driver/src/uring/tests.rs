//! What only this driver can get wrong; the contract suite has the rest. Peers are plain blocking sockets.

use std::io::{Read, Write};
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

#[test]
fn what_comes_goes_back_in_order_on_every_kernel_and_in_either_file_table() {
    for features in every_kernel() {
        for own_file_table in [false, true] {
            check_echo(rig_with(&DriverSettings { own_file_table, ..small() }, features).unwrap());
        }
    }
}

fn check_echo(mut rig: Rig) {
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
        let pieces: Vec<&[u8]> = received.chunks(length.div_ceil(crate::OUTGOING_PIECES_MAX)).collect();
        let outgoing = rig.outgoing(&pieces);
        rig.send_all(conn, outgoing);
        assert_eq!(reading.join().unwrap(), bytes);
    }
    rig.uring.half_close(conn);
    rig.poll_once(Duration::ZERO);
    // `read_to_end` goes on after an interruption, which a ring without deferred work may cause.
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0, "the peer sees our end");
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rig.await_end(conn), RecvEnd::Eof);
    rig.uring.retire(conn);
    rig.finish();
}

#[test]
fn u18_a_wake_ends_a_wait_for_many_on_every_kernel() {
    for features in every_kernel() {
        let mut rig = rig_with(&small(), features).unwrap();
        let waker = rig.uring.waker();
        for round in 0..20 {
            let (waker, delay) = (waker.clone(), Duration::from_millis(round % 4));
            let waking = std::thread::spawn(move || {
                std::thread::sleep(delay);
                waker.wake();
                waker.wake();
            });
            let start = Instant::now();
            let until = rig.uring.precise_now() + DEADLINE;
            rig.uring.poll(&mut Vec::new(), 256, Wait { until: Some(until), at_least: 60 });
            assert!(start.elapsed() < DEADLINE / 2, "the wake was not heard in round {round}, {features}");
            waking.join().unwrap();
        }
        rig.finish();
        waker.wake();
    }
}

#[test]
fn a_wait_for_many_ends_with_the_last_of_them_and_at_its_deadline() {
    let Some(mut rig) = rig(&small()) else { return };
    let (mut peers, conns): (Vec<_>, Vec<_>) = (0..8).map(|_| rig.accept()).unzip();
    for conn in conns {
        rig.uring.recv_start(conn).unwrap();
    }
    let writing = std::thread::spawn(move || {
        for peer in &mut peers {
            std::thread::sleep(Duration::from_millis(5));
            peer.write_all(b"x").unwrap();
        }
        peers
    });
    let mut out = Vec::new();
    let enters = rig.uring.figures().enters;
    rig.uring.poll(&mut out, 256, Wait { until: Some(rig.uring.precise_now() + DEADLINE), at_least: 8 });
    assert_eq!(out.len(), 8, "one poll tells all eight");
    assert!(rig.uring.figures().enters - enters <= 8, "not a call for each and more");
    drop((out, writing.join().unwrap()));
    let (start, span) = (Instant::now(), Duration::from_millis(30));
    let until = rig.uring.precise_now() + span;
    while rig.uring.now() < until {
        rig.uring.poll(&mut Vec::new(), 256, Wait { until: Some(until), at_least: 1_000 });
    }
    assert!(start.elapsed() >= span, "a deadline may be late, never early");
    assert!(start.elapsed() < DEADLINE / 2);
    rig.told.clear();
    rig.finish();
}

/// Exact-once accounting of a stream whose receive is paused, resumed and cut at random.
#[test]
fn b14_pauses_that_race_with_data_neither_lose_nor_double_a_byte() {
    let rounds = std::env::var("MADANG_PAUSES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    for features in every_kernel().into_iter().step_by(5) {
        for recv_buffers in [2, 16] {
            check_pauses(recv_buffers, features, rounds);
        }
    }
}

fn check_pauses(recv_buffers: u16, features: Features, rounds: u32) {
    let settings = DriverSettings { recv_buffers, recv_buffer_bytes: 4_096, ..small() };
    let mut rig = rig_with(&settings, features).unwrap();
    let (mut peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    let writing = std::thread::spawn(move || {
        let mut random = Random(7);
        let mut written = 0usize;
        while let Ok(count) = peer.write(&numbered(written, 1 + random.below(3_000))) {
            written += count;
        }
        written
    });
    let mut random = Random(42);
    let (mut received, mut paused, mut pauses, mut kept) = (0, false, 0, 0);
    while pauses < rounds {
        rig.poll_once(Duration::from_micros(random.below(200) as u64));
        while let Some(completion) = rig.told.pop_front() {
            match completion {
                Completion::Data { bytes, more, .. } => {
                    assert!(!paused, "silence during a pause");
                    assert!(*bytes == *numbered(received, bytes.len()), "wrong bytes at {received}");
                    received += bytes.len();
                    kept += u32::from(bytes.len() > settings.recv_buffer_bytes as usize);
                    if !more {
                        rig.uring.recv_start(conn).unwrap();
                    }
                }
                Completion::RecvEnded { end: RecvEnd::NoBuffers, .. } => {
                    assert!(!paused, "silence during a pause");
                    rig.uring.recv_start(conn).unwrap();
                }
                other => panic!("expected data, was told {other:?}"),
            }
        }
        match random.below(4) {
            0 if !paused => {
                rig.uring.recv_pause(conn);
                (paused, pauses) = (true, pauses + 1);
            }
            1 | 2 if paused => {
                rig.uring.recv_resume(conn);
                paused = false;
            }
            // All three between two polls.
            3 if !paused => {
                rig.uring.recv_pause(conn);
                rig.uring.recv_resume(conn);
                rig.uring.recv_pause(conn);
                (paused, pauses) = (true, pauses + 2);
            }
            _ => {}
        }
    }
    assert!(received > 100_000, "the race had something to race with: {received} bytes");
    eprintln!("{rounds} pauses, {received} bytes, {kept} times bytes were kept");
    rig.leave(conn);
    rig.poll_once(Duration::ZERO);
    rig.finish();
    writing.join().unwrap();
}

/// The stream's bytes from `at` on: each tells where it is.
fn numbered(at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

/// xorshift64, by Marsaglia.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn k02_an_abort_ends_a_blocked_send_and_a_receive_without_the_peers_help() {
    for features in every_kernel() {
        for own_file_table in [false, true] {
            for paused in [false, true] {
                let settings = DriverSettings { own_file_table, ..small() };
                check_abort(rig_with(&settings, features).unwrap(), paused, own_file_table);
            }
        }
    }
}

fn check_abort(mut rig: Rig, paused: bool, own_file_table: bool) {
    let (mut peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    // A peer that never reads: the send blocks once both kernels are full.
    let big = vec![7; 1 << 20];
    let mut outgoing = rig.outgoing(&[big.as_slice(); 16]);
    loop {
        rig.uring.send(conn, outgoing).unwrap();
        rig.poll_once(Duration::from_millis(30));
        match rig.told.pop_front() {
            Some(Completion::Sent { outgoing: back, .. }) => outgoing = back,
            None => break,
            other => panic!("expected a short send, was told {other:?}"),
        }
    }
    if paused {
        rig.uring.recv_pause(conn);
        rig.poll_once(Duration::ZERO);
    }
    let start = Instant::now();
    rig.uring.abort(conn);
    rig.uring.abort(conn);
    let (mut sent, mut ended) = (false, false);
    while !(sent && ended) {
        match rig.next() {
            Completion::Sent { outgoing, .. } => {
                assert_eq!(outgoing.pieces(), 16);
                sent = true;
            }
            Completion::RecvEnded { end, .. } => {
                assert_eq!(end, RecvEnd::Error(NetError::Cancelled));
                ended = true;
            }
            other => panic!("expected the two ends, was told {other:?}"),
        }
    }
    rig.uring.retire(conn);
    while rig.uring.figures().connections > 0 {
        rig.poll_once(Duration::from_millis(1));
    }
    assert!(start.elapsed() < DEADLINE / 2, "nothing waited for the peer");
    if !own_file_table || rig.uring.features().option_commands {
        let mut received = Vec::new();
        let error = peer.read_to_end(&mut received).expect_err("a reset, not an end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    rig.finish();
}

#[test]
fn u01_starved_receives_say_so_and_go_on_when_buffers_are_back() {
    for features in every_kernel() {
        let settings = DriverSettings { recv_buffers: 1, recv_buffer_bytes: 64, ..small() };
        let mut rig = rig_with(&settings, features).unwrap();
        let mut links: Vec<_> = (0..4).map(|_| rig.accept()).collect();
        for (peer, conn) in &mut links {
            peer.write_all(&pattern(5_000)).unwrap();
            rig.uring.recv_start(*conn).unwrap();
        }
        let mut received = vec![Vec::new(); links.len()];
        while received.iter().any(|bytes| bytes.len() < 5_000) {
            match rig.next() {
                Completion::Data { conn, bytes, more } => {
                    received[conn.index()].extend_from_slice(&bytes);
                    if !more {
                        rig.uring.recv_start(conn).unwrap();
                    }
                }
                Completion::RecvEnded { conn, end: RecvEnd::NoBuffers } => {
                    rig.uring.recv_start(conn).unwrap()
                }
                other => panic!("expected data, was told {other:?}"),
            }
        }
        assert!(received.iter().all(|bytes| *bytes == pattern(5_000)));
        assert!(rig.uring.figures().no_buffers > 0);
        rig.finish();
    }
}

#[test]
fn u13_a_queue_of_two_serves_many_connections() {
    let Some(mut rig) = rig(&DriverSettings { submissions_max: 1, ..small() }) else { return };
    let mut links: Vec<_> = (0..40).map(|_| rig.accept()).collect();
    for round in 0..5 {
        for (peer, conn) in &mut links {
            if round == 0 {
                rig.uring.recv_start(*conn).unwrap();
            }
            peer.write_all(b"ping").unwrap();
        }
        let mut answered = 0;
        while answered < links.len() {
            match rig.next() {
                Completion::Data { conn, bytes, more: true } => {
                    let outgoing = rig.outgoing(&[&bytes[..2], &bytes[2..]]);
                    drop(bytes);
                    rig.uring.send(conn, outgoing).unwrap();
                }
                Completion::Sent { result, .. } => {
                    assert_eq!(result, Ok(4));
                    answered += 1;
                }
                other => panic!("expected an echo, was told {other:?}"),
            }
        }
        for (peer, _) in &mut links {
            let mut back = [0; 4];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"ping");
        }
    }
    rig.finish();
}

#[test]
fn u02_an_overflowing_completion_queue_loses_no_connection() {
    let Some(mut rig) = rig(&DriverSettings { connections_max: 1, ..small() }) else { return };
    // More than the queue's 512 entries, all in the backlog before the first look.
    let peers: Vec<_> = (0..700).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < peers.len() {
        let Completion::Accepted { incoming, .. } = rig.next() else { panic!("not an accept") };
        assert!(seen.insert(incoming.peer()));
    }
    assert!(rig.uring.figures().overflows > 0, "the test made it overflow");
    rig.finish();
}

#[test]
fn k17_a_connect_ends_once_whether_it_succeeds_fails_or_is_aborted() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for round in 0..50 {
            let remote = if round % 2 == 0 { taken.local_addr().unwrap() } else { closed };
            let conn = rig.uring.connect(&ConnectOptions::new(remote)).unwrap();
            let aborted = round % 3 == 0;
            if round % 5 == 0 {
                rig.poll_once(Duration::ZERO);
            }
            if aborted {
                rig.uring.abort(conn);
            }
            let Completion::Connected { conn: of, result } = rig.next() else { panic!("not a connect") };
            assert_eq!(of, conn);
            match (round % 2, aborted, result) {
                (0, _, Ok(local)) => {
                    let (mut peer, from) = taken.accept().unwrap();
                    assert_eq!(from, local);
                    if !aborted {
                        let outgoing = rig.outgoing(&[b"hello"]);
                        rig.send_all(conn, outgoing);
                        let mut hello = [0; 5];
                        peer.read_exact(&mut hello).unwrap();
                    }
                }
                (1, _, Err(NetError::Refused)) | (_, true, Err(NetError::Cancelled)) => {}
                other => panic!("round {round}: {other:?}"),
            }
            rig.uring.retire(conn);
        }
        rig.finish();
    }
}

#[test]
fn k09_a_place_is_used_again_under_another_name_only_when_the_kernel_let_go() {
    let Some(mut rig) = rig(&DriverSettings { connections_max: 1, own_file_table: true, ..small() }) else {
        return;
    };
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let peer = TcpStream::connect(rig.address).unwrap();
        let Completion::Accepted { mut incoming, .. } = rig.next() else { panic!("not an accept") };
        let conn = loop {
            match rig.uring.attach(incoming) {
                Ok(conn) => break conn,
                Err(AttachError::Full(back)) => incoming = back,
                Err(AttachError::Failed(error)) => panic!("{error}"),
            }
            rig.poll_once(Duration::from_millis(1));
        };
        assert!(names.insert(conn));
        rig.uring.recv_start(conn).unwrap();
        rig.leave(conn);
        drop(peer);
    }
    rig.finish();
}

#[test]
fn accepting_pauses_resumes_and_ends_with_a_last_word() {
    let Some(mut rig) = rig(&small()) else { return };
    for _ in 0..20 {
        rig.uring.accept_pause(rig.listener);
        rig.poll_once(Duration::from_millis(1));
        rig.poll_once(Duration::from_millis(1));
        assert!(rig.told.is_empty());
        let _waiting = TcpStream::connect(rig.address).unwrap();
        rig.poll_once(Duration::from_millis(2));
        assert!(rig.told.is_empty(), "a paused listener leaves its peers in the backlog");
        rig.uring.accept_resume(rig.listener);
        rig.uring.accept_pause(rig.listener);
        rig.uring.accept_resume(rig.listener);
        assert!(matches!(rig.next(), Completion::Accepted { .. }));
    }
    rig.uring.unlisten(rig.listener);
    assert!(matches!(rig.next(), Completion::Unlistened { listener } if listener == rig.listener));
    assert!(TcpStream::connect(rig.address).is_err(), "nobody listens");
    let (again, _) = rig.uring.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    assert_eq!(again, rig.listener, "the name is free");
    rig.finish();
}

#[test]
fn u14_a_driver_dropped_in_the_middle_of_everything_leaves_no_packet_and_no_socket() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let mut links: Vec<_> = (0..10).map(|_| rig.accept()).collect();
        for (_, conn) in &links {
            rig.uring.recv_start(*conn).unwrap();
            let big = vec![1; 1 << 20];
            let outgoing = rig.outgoing(&[big.as_slice(); 8]);
            rig.uring.send(*conn, outgoing).unwrap();
        }
        rig.poll_once(Duration::ZERO);
        let Rig { uring, told, depot, address, .. } = rig;
        drop((told, uring));
        assert_eq!(depot.figures().in_use.blocks, 0);
        for (peer, _) in &mut links {
            // An end or a reset: a socket that is still open somewhere would run into the peer's time-out.
            let error = peer.read_to_end(&mut Vec::new()).err().map(|error| error.kind());
            assert!(matches!(error, None | Some(std::io::ErrorKind::ConnectionReset)), "{error:?}");
        }
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }
}

#[test]
fn u16_a_refusal_says_why() {
    let table = [
        (libc::EPERM, "forbidden"),
        (libc::ENOSYS, "no io_uring"),
        (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (libc::EMFILE, "RLIMIT_NOFILE"),
        (libc::EIO, "error number 5"),
    ];
    for (errno, word) in table {
        let refused = Refused::at("setting up io_uring")(&std::io::Error::from_raw_os_error(errno));
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
#[should_panic(expected = "at most one")]
fn k08_two_sends_in_flight_are_the_callers_bug() {
    let Some(mut rig) = rig(&small()) else { panic!("at most one: skipped") };
    let (_peer, conn) = rig.accept();
    for _ in 0..2 {
        let outgoing = rig.outgoing(&[b"x"]);
        rig.uring.send(conn, outgoing).unwrap();
    }
}

#[test]
#[should_panic(expected = "the retire rule")]
fn k06_retiring_with_a_receive_in_flight_is_the_callers_bug() {
    let Some(mut rig) = rig(&small()) else { panic!("the retire rule: skipped") };
    let (_peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    rig.uring.retire(conn);
}
