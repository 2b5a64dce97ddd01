//! The door: addresses, pauses, peers that are gone before they were let in, listeners' ends.

use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::{AttachError, Driver, ListenOptions, NetError, RecvEnd};

use crate::rig::{Heard, RawPeer, Rig};
use crate::station::{Station, peer_hears_end, settings};

pub fn an_accepted_peer_comes_with_both_addresses<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let address = station.address();
    for host in [1, 2, 77] {
        let peer = station.rig.peer_from(host, address);
        station.until("a peer at the door", |station| !station.accepted.is_empty());
        let (_, incoming) = station.accepted.pop_front().unwrap();
        assert_eq!((incoming.peer(), incoming.local()), (peer.local(), address));
    }
    station.finish();
}

pub fn k10_dropping_a_peer_at_the_door_closes_it<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let address = station.address();
    let mut peer = station.rig.peer(address);
    station.until("a peer at the door", |station| !station.accepted.is_empty());
    let (_, incoming) = station.accepted.pop_front().unwrap();
    std::thread::spawn(move || drop(incoming)).join().unwrap();
    peer_hears_end(&mut station, &mut peer);
    station.finish();
}

pub fn a_peer_is_attached_to_another_shard_than_accepted_it<R: Rig>(rig: R) {
    let mut gate = Station::new(rig);
    let address = gate.address();
    let mut peer = gate.rig.peer(address);
    gate.until("a peer at the door", |station| !station.accepted.is_empty());
    let (_, incoming) = gate.accepted.pop_front().unwrap();
    let mut shard = gate.sibling(&settings());
    let mut offered = Some(incoming);
    let mut attached = None;
    for _ in 0..1_000 {
        match shard.attach(offered.take().unwrap()) {
            Ok(conn) => attached = Some(conn),
            Err(AttachError::Full(incoming)) => offered = Some(incoming),
            Err(AttachError::Failed(error)) => panic!("{error}"),
        }
        if attached.is_some() {
            break;
        }
        shard.poll(&mut Vec::new(), 8, madang_driver::Wait::NO);
    }
    shard.retire(attached.expect("a thousand polls make room"));
    let (mut bytes, mut heard) = (Vec::new(), Heard::Nothing);
    gate.until("the end at the peer", |_| {
        shard.poll(&mut Vec::new(), 8, madang_driver::Wait::NO); // a close may be under way there
        heard = peer.read(&mut bytes);
        heard != Heard::Nothing
    });
    assert_eq!(heard, Heard::Eof);
    assert!(shard.shutdown(Duration::from_secs(5)).is_none());
    drop(shard);
    gate.finish();
}

pub fn while_accepting_is_paused_peers_wait_in_the_backlog<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (listener, address) = station.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap()));
    for _ in 0..3 {
        station.driver.accept_pause(listener);
        station.driver.accept_pause(listener);
        station.idle(Duration::from_millis(20));
        station.accepted.clear();
        let peers: Vec<_> = (0..5).map(|_| station.rig.peer(address)).collect();
        station.idle(Duration::from_millis(30));
        assert!(station.accepted.len() <= 1, "{} told in a pause", station.accepted.len());
        station.driver.accept_resume(listener);
        station.driver.accept_resume(listener);
        station.until("those who waited", |station| station.accepted.len() == 5);
        let mut told: Vec<_> = station.accepted.iter().map(|(_, incoming)| incoming.peer()).collect();
        let mut waited: Vec<_> = peers.iter().map(RawPeer::local).collect();
        told.sort();
        waited.sort();
        assert_eq!(told, waited);
        station.accepted.clear();
    }
    station.finish();
}

pub fn unlisten_has_a_last_word_and_frees_name_and_port<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
    for _ in 0..10 {
        let (listener, address) = station.listen(&options);
        let peers: Vec<_> = (0..4).map(|_| station.rig.peer(address)).collect();
        station.unlisten(listener);
        station.until("the listener's last word", |station| station.unlistened.pop().is_some());
        let told = station.accepted.len();
        station.idle(Duration::from_millis(10));
        assert_eq!(station.accepted.len(), told, "nothing is accepted after the last word");
        assert!(station.rig.refuses(address), "nobody listens any more");
        drop(peers);
        station.accepted.clear();
        // K05: the port is free at once, and more listeners than the table has places were used by now.
        let (again, same) = station.listen(&ListenOptions::new(address));
        assert_eq!(same, address);
        station.unlisten(again);
        station.until("the listener's last word", |station| station.unlistened.pop().is_some());
    }
    station.finish();
}

pub fn k11_k12_a_peer_that_is_dead_before_it_is_accepted_leaks_nothing<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (listener, address) = station.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap()));
    for (way, says) in [("fin", ""), ("fin", "b"), ("rst", ""), ("rst", "bye!!")] {
        station.driver.accept_pause(listener);
        station.idle(Duration::from_millis(10));
        let gone_before = station.driver.figures().accepts_gone;
        let mut peer = station.rig.peer(address);
        station.until("a connected peer", |_| peer.is_connected());
        if !says.is_empty() {
            station.peer_tries(&mut peer, says.as_bytes());
        }
        station.idle(Duration::from_millis(10));
        if way == "fin" {
            peer.shutdown_write();
        } else {
            peer.reset();
        }
        station.idle(Duration::from_millis(10));
        station.driver.accept_resume(listener);
        station.until("the dead at the door, or counted", |station| {
            !station.accepted.is_empty() || station.driver.figures().accepts_gone > gone_before
        });
        let Some((_, incoming)) = station.accepted.pop_front() else {
            assert_eq!(way, "rst", "who has only finished speaking is not gone");
            continue;
        };
        let Some(conn) = station.try_attach(incoming) else {
            assert_eq!(way, "rst");
            continue;
        };
        let end = station.receive_to_end(conn);
        if way == "fin" {
            assert_eq!(end, RecvEnd::Eof);
            assert_eq!(station.seen(conn).bytes, says.as_bytes());
        } else {
            assert!(matches!(end, RecvEnd::Error(_)) || !station.rig.tells_resets(), "{end:?}");
            assert!(says.as_bytes().starts_with(&station.seen(conn).bytes));
        }
        station.settle(conn);
    }
    station.finish();
}

pub fn a_port_in_use_is_an_error_that_names_the_address<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let address = station.address();
    let error = station.driver.listen(&ListenOptions::new(address)).expect_err("the port is taken");
    assert_eq!((error.address, error.error), (address, NetError::AddrInUse));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let error =
        station.driver.listen(&ListenOptions::new(foreign)).expect_err("not an address of this machine");
    assert_eq!((error.address, error.error), (foreign, NetError::AddrNotAvailable));
    station.finish();
}

pub fn wildcards_and_ipv6_are_reached_and_tell_the_real_local_address<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let ways = [("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.1")];
    for (listen, reach) in ways {
        let listened = station.driver.listen(&ListenOptions::new(listen.parse().unwrap()));
        let Ok((listener, bound)) = listened else {
            assert!(listen.starts_with('['), "{listened:?}");
            eprintln!("skipped: no IPv6 here");
            continue;
        };
        let target = SocketAddr::new(reach.parse().unwrap(), bound.port());
        let peer = station.rig.peer(target);
        station.until("a peer at the door", |station| !station.accepted.is_empty());
        let (told, incoming) = station.accepted.pop_front().unwrap();
        assert_eq!(
            (told, incoming.local(), incoming.peer()),
            (listener, target, peer.local()),
            "{listen} by {reach}"
        );
        drop(incoming);
        station.unlisten(listener);
        station.until("the listener's last word", |station| station.unlistened.pop().is_some());
    }
    station.finish();
}

pub fn k05_a_port_with_connections_in_time_wait_is_bound_again_at_once<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (listener, address) = station.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap()));
    for _ in 0..5 {
        // We end first and orderly: the waiting is ours.
        let (conn, mut peer) = station.pair();
        station.driver.half_close(conn);
        peer_hears_end(&mut station, &mut peer);
        drop(peer);
        station.receive_to_end(conn);
        station.settle(conn);
    }
    station.unlisten(listener);
    station.until("the listener's last word", |station| station.unlistened.pop().is_some());
    let (_, again) = station.listen(&ListenOptions::new(address));
    assert_eq!(again, address);
    station.pair();
    station.finish();
}

pub fn each_listener_tells_its_own_peers_and_the_table_of_listeners_is_bounded<R: Rig>(rig: R) {
    let two = madang_driver::DriverSettings { listeners_max: 2, ..settings() };
    let mut station = Station::with(rig, &two);
    let options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
    let (one, first) = station.listen(&options);
    let (other, second) = station.listen(&options);
    let error = station.driver.listen(&options).expect_err("the table has two places");
    assert_eq!(error.error, NetError::TableFull);
    let at_first = station.rig.peer(first);
    let at_second = station.rig.peer(second);
    station.until("both", |station| station.accepted.len() == 2);
    for (listener, incoming) in station.accepted.drain(..) {
        let expected = if incoming.peer() == at_first.local() { one } else { other };
        assert_eq!(listener, expected);
        assert!([at_first.local(), at_second.local()].contains(&incoming.peer()));
    }
    station.finish();
}

pub fn a_burst_at_the_door_is_accepted_whole<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let address = station.address();
    let peers: Vec<_> = (0..100).map(|_| station.rig.peer(address)).collect();
    station.until("everybody", |station| station.accepted.len() == peers.len());
    let mut told: Vec<_> = station.accepted.drain(..).map(|(_, incoming)| incoming.peer()).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), peers.len(), "each once");
    station.finish();
}

pub fn a_full_connection_table_refuses_and_closes<R: Rig>(rig: R) {
    let tiny = madang_driver::DriverSettings { connections_max: 4, ..settings() };
    let mut station = Station::with(rig, &tiny);
    let mut pairs: Vec<_> = (0..4).map(|_| station.pair()).collect();
    let address = station.address();
    let mut peer = station.rig.peer(address);
    station.until("a peer at the door", |station| !station.accepted.is_empty());
    let (_, incoming) = station.accepted.pop_front().unwrap();
    assert!(station.try_attach(incoming).is_none(), "there is no fifth place");
    peer_hears_end(&mut station, &mut peer);
    // A place that is given back serves the next.
    let (conn, _) = pairs.pop().unwrap();
    station.leave(conn);
    station.until("a closed connection", |station| station.driver.figures().connections == 3);
    pairs.push(station.pair());
    station.finish();
}
