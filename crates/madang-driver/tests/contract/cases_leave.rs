//! Ways out: reset by the peer, abort and its races, retire, index reuse, shutdown.

use std::time::Duration;

use madang_driver::{Driver, NetError, RecvEnd};

use crate::rig::{Heard, RawPeer, Rig};
use crate::station::{Recv, Station, pattern, peer_hears_end};

pub fn k16_a_reset_by_the_peer_ends_each_operation_once_at_every_point<R: Rig>(rig: R) {
    enum Point {
        BeforeTheReceive,
        WhileReceiving,
        WithUnreadData,
        InAPause,
        WithABlockedSend,
    }
    use Point::*;
    let mut station = Station::new(rig);
    for point in [BeforeTheReceive, WhileReceiving, WithUnreadData, InAPause, WithABlockedSend] {
        let (conn, mut peer) = station.pair();
        match point {
            BeforeTheReceive => {}
            WhileReceiving => station.until("a started receive", |station| station.recv_start(conn)),
            WithUnreadData => station.peer_tries(&mut peer, b"unread"),
            InAPause => {
                station.until("a started receive", |station| station.recv_start(conn));
                station.pause(conn);
            }
            WithABlockedSend => station.clog(conn),
        }
        station.idle(Duration::from_millis(5));
        peer.reset();
        station.idle(Duration::from_millis(5));
        if matches!(point, InAPause) {
            assert_eq!(station.seen(conn).end, None, "an error, too, waits for the pause's end");
            station.resume(conn);
        }
        let end = station.receive_to_end(conn);
        let seen = station.settle(conn);
        let sent = seen.sent.map(|(_, result)| result);
        // Some systems tell a reset once: to the send, if one is there first; the receive then just ends.
        let is_told_to_send = end == RecvEnd::Eof && sent == Some(Err(NetError::Reset));
        let is_heard = is_told_to_send || end == RecvEnd::Error(NetError::Reset);
        assert!(is_heard || !station.rig.tells_resets(), "{end:?}, {sent:?}");
        assert!(
            b"unread".starts_with(&seen.bytes),
            "what came before the reset may be told or not, but as it was"
        );
        if let Some(Err(error)) = sent {
            assert!(matches!(error, NetError::Reset | NetError::BrokenPipe), "{error}");
        }
    }
    station.finish();
}

pub fn a_send_to_a_peer_that_is_gone_fails_without_a_signal_k18<R: Rig>(rig: R) {
    restore_sigpipe();
    let mut station = Station::new(rig);
    let (conn, peer) = station.pair();
    peer.reset();
    let mut failed = false;
    station.until("a failed send", |station| {
        if !station.is_sending(conn) {
            failed |= station.seen(conn).sent.take().is_some_and(|(_, result)| result.is_err());
            let outgoing = station.outgoing(b"into the void", 5);
            let _ = !failed && station.send(conn, outgoing).is_ok();
        }
        failed
    });
    station.settle(conn);
    station.finish();
}

/// The standard library has SIGPIPE ignored, which would hide a signal that is raised.
fn restore_sigpipe() {
    #[cfg(unix)]
    // SAFETY: setting a signal's default action has no precondition; no handler is installed.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

pub fn an_abort_frees_a_send_that_a_peer_never_reads<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    station.clog(conn);
    let start = station.driver.now();
    station.abort(conn);
    station.abort(conn); // idempotent
    station.settle(conn);
    let took = station.driver.now().since(start);
    assert!(station.rig.is_unruly() || took < Duration::from_secs(1), "an abort took {took:?}");
    let (_, heard) = peer_hears_end(&mut station, &mut peer);
    assert!(heard == Heard::Broken || !station.rig.tells_resets(), "an abort is a reset to the peer");
    station.finish();
}

pub fn k01_k02_an_abort_that_races_data_and_a_send_ends_each_once<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let rounds = if station.rig.is_unruly() { 20 } else { 150 };
    let bytes = pattern(6_000);
    for round in 0..rounds {
        let (conn, mut peer) = station.pair();
        if round % 2 == 0 {
            station.keep_receiving(conn);
        }
        peer.write(&bytes[..1 + round * 37 % 5_000]);
        if round % 3 == 0 {
            station.keep_receiving(conn);
        }
        if round % 4 != 0 {
            let outgoing = station.outgoing(&bytes[..1 + round * 11 % 5_000], 700);
            let _ = station.send(conn, outgoing);
        }
        for _ in 0..round % 3 {
            station.turn();
        }
        let seen = station.leave(conn);
        assert!(bytes.starts_with(&seen.bytes), "round {round}: what is told is a prefix of what was sent");
    }
    station.finish();
}

pub fn s02_a_send_may_end_before_the_first_receive_is_started<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let outgoing = station.outgoing(b"welcome", 3);
    let mut got = Vec::new();
    station.send_all(conn, outgoing, |_| {
        peer.read(&mut got);
    });
    station.peer_reads(&mut peer, &mut got, 7);
    assert_eq!(got, b"welcome");
    assert_eq!(station.seen(conn).recv, Recv::Idle);
    station.retire(conn);
    let (_, heard) = peer_hears_end(&mut station, &mut peer);
    assert_eq!(heard, Heard::Eof, "a retirement without an abort is orderly");
    station.finish();
}

pub fn k04_a_peer_that_lingers_in_half_close_is_left_by_abort<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    station.driver.half_close(conn);
    station.idle(Duration::from_millis(20));
    assert_ne!(station.seen(conn).recv, Recv::Over, "the peer has said nothing");
    station.leave(conn);
    drop(peer);
    station.finish();
}

pub fn k09_an_index_that_is_used_again_has_another_generation<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut names = Vec::new();
    for round in 0..200usize {
        let (conn, mut peer) = station.pair();
        assert!(!names.contains(&conn), "{conn:?} names two connections");
        names.push(conn);
        // Something is always on its way to the place when it is given back: it must not reach the next one there.
        let word = format!("only for {round}");
        station.peer_tries(&mut peer, word.as_bytes());
        if round % 2 == 0 {
            station.keep_receiving(conn);
        }
        let seen = station.leave(conn);
        assert!(word.as_bytes().starts_with(&seen.bytes), "the bytes of another connection");
    }
    let reused = names.iter().filter(|name| name.generation() > 0).count();
    assert!(reused > 0, "no index was used twice in 200 rounds of a table of 128");
    station.finish();
}

pub fn u14_k06_shutdown_with_work_in_flight_leaks_nothing<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut peers = Vec::new();
    for number in 0..12 {
        let (conn, mut peer) = station.pair();
        match number % 4 {
            0 => station.until("a started receive", |station| station.recv_start(conn)),
            1 => station.clog(conn),
            2 => {
                station.until("a started receive", |station| station.recv_start(conn));
                station.pause(conn);
                station.peer_tries(&mut peer, b"kept");
            }
            _ => {
                station.peer_tries(&mut peer, b"unread");
                station.keep_receiving(conn);
                let outgoing = station.outgoing(b"on its way", 4);
                let _ = station.send(conn, outgoing);
            }
        }
        peers.push(peer);
    }
    // One peer is at the door, untold.
    let address = station.address();
    peers.push(station.rig.peer(address));
    let start = std::time::Instant::now();
    let leaked = station.driver.shutdown(Duration::from_secs(10));
    assert!(leaked.is_none(), "{leaked}");
    assert!(start.elapsed() < Duration::from_secs(5), "shutdown waited for nothing");
    station.check_gone();
}

pub fn shutdown_of_an_idle_driver_is_quick<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    station.address();
    let start = std::time::Instant::now();
    let leaked = station.driver.shutdown(Duration::from_secs(10));
    assert!(leaked.is_none(), "{leaked}");
    assert!(start.elapsed() < Duration::from_secs(2), "shutdown took {:?}", start.elapsed());
    station.check_gone();
}
