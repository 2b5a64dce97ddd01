//! Receiving: pause and resume, the want of buffers, the ends of a receive.

use std::time::Duration;

use madang_driver::{Driver, DriverSettings, ListenOptions, RecvEnd};

use crate::rig::{RawPeer, Rig};
use crate::station::{Recv, Station, pattern, settings};

pub fn a_paused_receive_is_silent_and_loses_nothing<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    station.keep_receiving(conn);
    station.peer_writes(conn, &mut peer, b"before ");
    station.receive(conn, 7);
    station.keep_receiving(conn);
    station.pause(conn);
    let is_paused = station.seen(conn).recv == Recv::Started;
    station.peer_sends(&mut peer, b"!");
    station.idle(Duration::from_millis(50));
    if is_paused {
        assert_eq!(station.seen(conn).bytes, b"before ", "nothing is told in a pause");
    }
    station.resume(conn);
    station.receive(conn, 8);
    assert_eq!(station.seen(conn).bytes, b"before !");
    station.finish();
}

pub fn bytes_that_race_a_pause_are_told_once_and_in_order<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let rounds = if station.rig.is_unruly() { 60 } else { 400 };
    let bytes = pattern(rounds * 100);
    let mut written = 0;
    for round in 0..rounds {
        written += peer.write(&bytes[written..(round + 1) * 100]);
        station.keep_receiving(conn);
        if round % 3 == 0 {
            station.turn();
        }
        station.pause(conn);
        station.pause(conn); // idempotent
        written += peer.write(&bytes[written..(round + 1) * 100]);
        for _ in 0..round % 4 {
            station.turn();
        }
        station.resume(conn);
        if round % 5 == 0 {
            station.turn();
            station.resume(conn); // without effect
        }
    }
    station.peer_writes(conn, &mut peer, &bytes[written..]);
    station.receive(conn, bytes.len());
    assert!(station.seen(conn).bytes == bytes);
    station.finish();
}

pub fn a_pause_holds_the_peer_back_and_keeps_a_bounded_part<R: Rig>(rig: R) {
    let bounded = DriverSettings { pause_bytes_max: 32 * 1024, ..settings() };
    let mut station = Station::with(rig, &bounded);
    let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
    options.socket.recv_buffer_bytes = Some(64 * 1024);
    station.listen(&options);
    let (conn, mut peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    station.pause(conn);
    let chunk = pattern(64 * 1024);
    let (mut sent, mut quiet) = (Vec::new(), 0);
    while quiet < 10 {
        let count = peer.write(&chunk);
        sent.extend_from_slice(&chunk[..count]);
        quiet = if count == 0 { quiet + 1 } else { 0 };
        station.turn();
        assert!(sent.len() < 64 << 20, "a peer is not held back by a pause");
    }
    assert!(station.seen(conn).bytes.is_empty());
    station.resume(conn);
    station.receive(conn, sent.len());
    assert!(station.seen(conn).bytes == sent, "all that was sent comes after the pause");
    station.finish();
}

pub fn an_end_that_comes_in_a_pause_is_told_after_the_bytes_before_it<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    station.pause(conn);
    station.peer_sends(&mut peer, b"t");
    peer.shutdown_write();
    station.idle(Duration::from_millis(30));
    assert!(station.seen(conn).bytes.is_empty() && station.seen(conn).end.is_none());
    station.resume(conn);
    assert_eq!(station.receive_to_end(conn), RecvEnd::Eof);
    assert_eq!(station.seen(conn).bytes, b"t");
    station.settle(conn);
    station.finish();
}

pub fn an_abort_ends_a_paused_receive<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    for with_data in [false, true] {
        let (conn, mut peer) = station.pair();
        station.until("a started receive", |station| station.recv_start(conn));
        station.pause(conn);
        if with_data {
            station.peer_tries(&mut peer, b"never asked for");
            station.idle(Duration::from_millis(10));
        }
        let seen = station.leave(conn);
        assert!(b"never asked for".starts_with(&seen.bytes), "an abort tells a prefix of what came");
    }
    station.finish();
}

pub fn u01_k13_a_want_of_buffers_starves_nobody_and_does_not_spin<R: Rig>(rig: R) {
    let scarce = DriverSettings { recv_buffers: 2, recv_buffer_bytes: 1024, ..settings() };
    let mut station = Station::with(rig, &scarce);
    let mut pairs: Vec<_> = (0..16).map(|_| station.pair()).collect();
    let stream = pattern(station.amount(8 * 1024));
    let mut written = vec![0; pairs.len()];
    let mut polls = 0;
    station.until("every connection's bytes", |station| {
        polls += 1;
        let mut done = true;
        for (index, (conn, peer)) in pairs.iter_mut().enumerate() {
            written[index] += peer.write(&stream[written[index]..]);
            station.keep_receiving(*conn);
            done &= station.seen(*conn).bytes.len() == stream.len();
        }
        done
    });
    // 16 × 8 KiB through two buffers of 1 KiB: 64 polls at best.
    assert!(station.rig.is_unruly() || polls < 4_000, "{polls} polls");
    for (conn, _) in &pairs {
        assert!(station.seen(*conn).bytes == stream);
        station.keep_receiving(*conn);
    }
    // Now all are idle: an idle receive does not come back again and again.
    if !station.rig.is_unruly() {
        station.idle(Duration::from_millis(20));
        let before: usize = pairs.iter().map(|(conn, _)| station.seen(*conn).no_buffers).sum();
        station.idle(Duration::from_millis(50));
        let after: usize = pairs.iter().map(|(conn, _)| station.seen(*conn).no_buffers).sum();
        assert_eq!(before, after, "idle receives end for want of buffers");
    }
    station.finish();
}

pub fn u19_a_loud_connection_does_not_silence_a_quiet_one<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (loud, mut shouting) = station.pair();
    let (quiet, mut whispering) = station.pair();
    let noise = pattern(64 * 1024);
    let mut heard_at = Vec::new();
    station.peer_sends(&mut whispering, b"!");
    station.until("the quiet one's byte", |station| {
        for _ in 0..4 {
            shouting.write(&noise);
        }
        station.keep_receiving(loud);
        station.keep_receiving(quiet);
        heard_at.push(station.seen(loud).bytes.len());
        !station.seen(quiet).bytes.is_empty()
    });
    assert!(station.rig.is_unruly() || heard_at.len() < 200, "{} polls", heard_at.len());
    station.finish();
}

pub fn eof_is_told_once_and_behind_the_bytes<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    for len in [0, 1, 5, station.amount(70_000)] {
        let (conn, mut peer) = station.pair();
        let bytes = pattern(len);
        station.peer_writes(conn, &mut peer, &bytes);
        peer.shutdown_write();
        assert_eq!(station.receive_to_end(conn), RecvEnd::Eof);
        assert!(station.seen(conn).bytes == bytes, "{len} bytes before the end");
        station.settle(conn);
    }
    station.finish();
}

pub fn an_idle_connection_pins_no_buffer<R: Rig>(rig: R) {
    // Fewer buffers than connections: each is served although all the others hold a started receive.
    let few = DriverSettings { recv_buffers: 2, recv_buffer_bytes: 4 * 1024, ..settings() };
    let mut station = Station::with(rig, &few);
    let mut pairs: Vec<_> = (0..32).map(|_| station.pair()).collect();
    for round in 1..=3 {
        for (conn, peer) in &mut pairs {
            station.peer_writes(*conn, peer, b"ping");
            station.receive(*conn, round * 4);
            station.keep_receiving(*conn);
        }
    }
    assert!(station.driver.figures().connections >= 32);
    station.finish();
}
