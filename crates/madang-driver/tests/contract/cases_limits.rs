//! The descriptor limit. On a real system it is the process's, so these cases run there in a process of their own.

use std::time::Duration;

use madang_driver::{Driver, ListenOptions, NetError};

use crate::rig::Rig;
use crate::station::Station;

pub fn k15_at_the_descriptor_limit_accepting_stalls_without_spinning_and_recovers<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (listener, address) = station.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap()));
    station.driver.accept_pause(listener);
    station.idle(Duration::from_millis(20));
    let peers: Vec<_> = (0..8).map(|_| station.rig.peer(address)).collect();
    station.idle(Duration::from_millis(20));
    station.rig.limit_descriptors(Some(2));
    station.driver.accept_resume(listener);
    station.until("a stall", |station| !station.stalls.is_empty());
    assert_eq!(station.stalls[0], NetError::TooManyFiles);

    let enters = station.driver.figures().enters;
    station.idle(Duration::from_millis(200));
    let spent = station.driver.figures().enters - enters;
    // `idle` itself polls each 2 ms, and the back-off adds a few: a spinning accept would be thousands.
    assert!(station.rig.is_unruly() || spent < 1_000, "{spent} system calls while stalled");
    assert!(station.rig.is_unruly() || station.stalls.len() == 1, "a stall is told once");
    assert!(station.accepted.len() < peers.len());

    if let Some((_, incoming)) = station.accepted.pop_front() {
        let left = station.accepted.len();
        drop(incoming);
        station.until("the next one for the free descriptor", |station| station.accepted.len() > left);
        station.rig.limit_descriptors(None);
        station.until("everybody else", |station| station.accepted.len() == peers.len() - 1);
    } else {
        station.rig.limit_descriptors(None);
        station.until("everybody", |station| station.accepted.len() == peers.len());
    }
    assert!(station.driver.figures().accept_stalls >= 1);
    station.finish();
}
