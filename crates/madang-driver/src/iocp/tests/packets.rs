//! Packets: whose they are, how many there are, what they say.

use std::io::{Read, Write};
use std::os::windows::io::AsRawHandle;
use std::ptr;

use windows_sys::Win32::System::IO::{OVERLAPPED, PostQueuedCompletionStatus};

use super::*;
use crate::iocp::doors::ACCEPTS;

/// Queues a packet that no operation sent.
fn forge(rig: &Rig, source: Source, overlapped: *mut OVERLAPPED) {
    // SAFETY: the port is open. The driver is to find out whether the memory is an operation's before it looks at it.
    let posted = unsafe {
        PostQueuedCompletionStatus(rig.driver.port.as_raw_handle(), 7, source.to_key(), overlapped)
    };
    assert_ne!(posted, 0);
}

#[test]
fn w03_a_packet_that_is_of_no_living_operation_is_counted_and_not_told() {
    let mut rig = Rig::new();
    let (_peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    let mine = rig.driver.works.blocks.at(2 * conn.index());
    let others = rig.driver.works.blocks.at(2 * conn.index() + 2);
    let mut foreign = OVERLAPPED::default();
    let before = Conn::new(conn.index() as u32, conn.generation().wrapping_sub(1));
    let nobody = Conn::new(15, 0);
    let door = Conn::new(0, 9);
    let forged = [
        (Source::Connection(before), mine),
        (Source::Connection(conn), others),
        (Source::Connection(conn), mine.wrapping_byte_add(8)),
        (Source::Connection(conn), &raw mut foreign),
        (Source::Connection(conn), ptr::null_mut()),
        (Source::Connection(nobody), others),
        (Source::Door(door), mine),
        (Source::Door(Conn::new(3, 0)), mine),
    ];
    let in_flight = rig.in_flight();
    for (number, (source, overlapped)) in forged.into_iter().enumerate() {
        forge(&rig, source, overlapped);
        rig.poll(Duration::from_millis(20));
        assert!(rig.out.is_empty(), "{source:?}: {:?}", rig.out);
        assert_eq!(rig.driver.figures().stale, number as u64 + 1, "{source:?}");
    }
    assert_eq!(rig.in_flight(), in_flight);
    rig.driver.works.figures.stale = 0;
    rig.driver.abort(conn);
    rig.end(conn);
    rig.finish(&[conn]);
}

#[test]
fn w03_the_next_user_of_a_socket_number_gets_nothing_of_the_last_one() {
    let mut rig = Rig::new();
    for round in 0..50u8 {
        let (mut peer, conn) = rig.pair();
        rig.driver.recv_start(conn).unwrap();
        peer.write_all(&[round; 20]).unwrap();
        if round % 2 == 0 {
            assert_eq!(rig.data(conn), [round; 20]);
        }
        // Its number is free from here on, and its wait is not over.
        rig.driver.abort(conn);
        let (mut next_peer, next) = rig.pair();
        rig.driver.recv_start(next).unwrap();
        next_peer.write_all(b"mine").unwrap();
        assert_eq!(rig.data(next), b"mine");
        rig.end(conn);
        rig.driver.retire(conn);
        rig.driver.abort(next);
        rig.end(next);
        rig.driver.retire(next);
    }
    rig.finish(&[]);
}

#[test]
fn w04_what_succeeds_at_once_is_told_once_with_its_packet_or_without() {
    for driver in [Iocp::new(&settings()), Iocp::with_packets_always(&settings())] {
        let mut rig = Rig::of(driver.unwrap());
        let skips = rig.driver.may_skip;
        let (mut peer, conn) = rig.pair();
        for round in 0..100u8 {
            let before = rig.in_flight();
            rig.send(conn, &[round; 100]);
            assert_eq!(rig.in_flight() > before, !skips, "a packet is owed unless it is skipped");
            assert_eq!(rig.sent(conn), Ok(100));
            let mut got = [0; 100];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, [round; 100]);
        }
        // Bytes that are there already: the wait is over at once.
        peer.write_all(b"early").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        rig.driver.recv_start(conn).unwrap();
        assert_eq!(rig.data(conn), b"early");
        rig.poll(Duration::from_millis(50));
        assert!(rig.out.is_empty(), "nothing is told twice: {:?}", rig.out);
        assert_eq!(rig.in_flight(), ACCEPTS + 1, "the accepts and the wait");
        rig.driver.abort(conn);
        rig.end(conn);
        rig.finish(&[conn]);
    }
}

#[test]
fn w05_a_call_that_fails_at_once_is_told_once_and_owes_no_packet() {
    let mut rig = Rig::new();
    let (_peer, conn) = rig.pair();
    rig.driver.half_close(conn);
    let before = rig.in_flight();
    // Not what an engine does: the system refuses it on the spot.
    rig.send(conn, b"behind the end");
    assert_eq!(rig.in_flight(), before);
    assert_eq!(rig.sent(conn), Err(NetError::BrokenPipe));
    rig.poll(Duration::from_millis(50));
    assert!(rig.out.is_empty(), "{:?}", rig.out);
    rig.finish(&[conn]);
}

#[test]
fn w10_a_connection_that_would_pass_the_bound_gets_its_send_buffer_back() {
    let bound = 300_000;
    let few = DriverSettings { unbuffered_sends_bytes_max: bound, ..settings() };
    let mut rig = Rig::of(Iocp::new(&few).unwrap());
    let block = vec![7; 100_000];
    let mut pairs = Vec::new();
    for _ in 0..5 {
        let (peer, conn) = rig.pair();
        let left = rig.clog(conn, &block);
        pairs.push((peer, conn, left));
    }
    // Three of them took all the room; the others are clogged behind buffers of their own.
    assert!(!rig.driver.works.pinned.take(1), "the bound is reached");
    for (peer, conn, left) in &mut pairs {
        let mut got = vec![0; *left + block.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got.iter().all(|byte| *byte == 7));
        assert_eq!(rig.sent(*conn), Ok(block.len()));
    }
    assert!(rig.driver.works.pinned.take(bound), "nothing is pinned any more");
    rig.driver.works.pinned.give_back(bound);
    let conns: Vec<Conn> = pairs.iter().map(|pair| pair.1).collect();
    rig.finish(&conns);
}

#[test]
fn w12_a_failure_in_a_packet_is_that_operations_and_no_time_out() {
    let mut rig = Rig::new();
    // Nobody listens: a port that was just given back.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let before = rig.in_flight();
    let conn = rig.driver.connect(&ConnectOptions::new(nobody)).unwrap();
    assert_eq!(rig.in_flight(), before + 1, "the refusal comes as a packet");
    let result = rig.expect(|told| match told {
        Completion::Connected { conn: of, result } if *of == conn => Some(*result),
        _ => None,
    });
    assert_eq!(result, Err(NetError::Refused));
    assert_eq!(rig.in_flight(), before);
    rig.finish(&[conn]);
}

#[test]
fn a_time_out_takes_no_packet() {
    let port = Port::open().unwrap();
    let mut packets = Packets::new();
    for _ in 0..20 {
        port.take(&mut packets, Some(Duration::from_millis(1)));
        assert_eq!(packets.len(), 0);
    }
    turn::Signal::fire(&port).unwrap();
    port.take(&mut packets, None);
    assert_eq!((packets.len(), packets.at(0).source), (1, Some(Source::Bell)));
}
