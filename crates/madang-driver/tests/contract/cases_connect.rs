//! Outgoing connections.

use std::net::SocketAddr;

use madang_driver::{ConnectError, ConnectOptions, Driver, NetError, RecvEnd};

use crate::rig::{RawListener, RawPeer, Rig};
use crate::station::{Recv, Station, pattern};

pub fn a_connect_tells_our_address_and_carries_bytes_both_ways<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut listener = station.rig.peer_listener();
    for local in [None, Some("127.0.0.5:0".parse::<SocketAddr>().unwrap())] {
        let conn = station.connect(&ConnectOptions { local, ..ConnectOptions::new(listener.address()) });
        station.until("the connect's end", |station| station.seen(conn).connected.is_some());
        let ours = station.seen(conn).connected.unwrap().expect("somebody listens");
        if let Some(local) = local {
            assert_eq!(ours.ip(), local.ip());
        }
        let mut accepted = None;
        station.until("the link at the peer", |_| {
            accepted = accepted.take().or_else(|| listener.accept());
            accepted.is_some()
        });
        let mut peer = accepted.unwrap();
        let bytes = pattern(station.amount(20_000));
        let outgoing = station.outgoing(&bytes, 900);
        let mut got = Vec::new();
        station.send_all(conn, outgoing, |_| {
            peer.read(&mut got);
        });
        station.peer_reads(&mut peer, &mut got, bytes.len());
        assert!(got == bytes);
        station.peer_writes(conn, &mut peer, &bytes);
        peer.shutdown_write();
        assert_eq!(station.receive_to_end(conn), RecvEnd::Eof);
        assert!(station.seen(conn).bytes == bytes);
        station.settle(conn);
    }
    station.finish();
}

pub fn a_refused_connect_says_so_once_and_is_retired<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let listener = station.rig.peer_listener();
    let nobody = listener.address();
    drop(listener);
    for _ in 0..5 {
        let conn = station.connect(&ConnectOptions::new(nobody));
        station.until("the connect's end", |station| station.seen(conn).connected.is_some());
        assert_eq!(station.seen(conn).connected, Some(Err(NetError::Refused)));
        station.retire(conn);
    }
    station.finish();
}

pub fn k17_a_connect_that_races_its_abort_ends_exactly_once<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut listener = station.rig.peer_listener();
    let rounds = if station.rig.is_unruly() { 20 } else { 150 };
    let mut made = 0;
    for round in 0..rounds {
        let conn = station.connect(&ConnectOptions::new(listener.address()));
        for _ in 0..round % 3 {
            station.turn();
        }
        let seen = station.leave(conn);
        assert_eq!(seen.recv, Recv::Idle);
        made += usize::from(seen.connected.expect("a connect has one end").is_ok());
        while listener.accept().is_some() {}
    }
    assert!(made <= rounds);
    station.finish();
}

pub fn a_local_address_that_is_not_ours_fails_at_once<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let listener = station.rig.peer_listener();
    let foreign = "192.0.2.1:0".parse().unwrap();
    let options = ConnectOptions { local: Some(foreign), ..ConnectOptions::new(listener.address()) };
    let mut failed = None;
    station.until("an answer", |station| {
        failed = station.driver.connect(&options).err();
        failed != Some(ConnectError::Full)
    });
    assert_eq!(failed, Some(ConnectError::Failed(NetError::AddrNotAvailable)));
    station.finish();
}
