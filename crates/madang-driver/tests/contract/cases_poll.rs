//! `poll` and what is around it: bounds, batches, full queues, time, entropy.

use std::time::{Duration, Instant};

use madang_driver::{Driver, DriverSettings, Time, Wait};

use crate::rig::{RawPeer, Rig};
use crate::station::{Station, settings};

pub fn poll_tells_no_more_than_asked_and_keeps_the_rest<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut pairs: Vec<_> = (0..20).map(|_| station.pair()).collect();
    for (conn, peer) in &mut pairs {
        station.peer_sends(peer, b"x");
        station.until("a started receive", |station| station.recv_start(*conn));
    }
    let start = Instant::now();
    let mut polls = 0;
    while pairs.iter().any(|(conn, _)| station.seen(*conn).bytes.is_empty()) {
        polls += 1;
        assert!(polls < 100_000, "what did not fit in a poll is lost");
        let wait = Wait::until(station.driver.now() + Duration::from_secs(10));
        let told = station.poll(1, wait);
        station.rig.pass(told == 0);
        for (conn, _) in &pairs {
            if station.seen(*conn).bytes.is_empty() {
                station.keep_receiving(*conn);
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(8), "poll slept although something was ready");
    station.finish();
}

pub fn what_ended_inside_a_submit_is_told_without_sleeping<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let start = Instant::now();
    for _ in 0..20 {
        let mut left = Some(station.outgoing(b"small", 5));
        station.until("an accepted send", |station| {
            left = left.take().and_then(|outgoing| station.send(conn, outgoing).err());
            left.is_none()
        });
        while station.is_sending(conn) {
            let wait = Wait::until(station.driver.now() + Duration::from_secs(10));
            let told = station.poll(8, wait);
            peer.read(&mut Vec::new());
            station.rig.pass(told == 0);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(8), "poll slept although a send had ended");
    station.finish();
}

pub fn u13_a_tiny_submission_queue_is_slow_and_right<R: Rig>(rig: R) {
    let tiny = DriverSettings { submissions_max: 2, ..settings() };
    let mut station = Station::with(rig, &tiny);
    let mut pairs: Vec<_> = (0..40).map(|_| station.pair()).collect();
    let mut unsent: Vec<_> = pairs.iter().map(|_| Some(station.outgoing(b"to the peer", 4))).collect();
    let (mut got, mut first) = (vec![Vec::new(); pairs.len()], 0);
    for (_, peer) in &mut pairs {
        station.peer_tries(peer, b"to us");
    }
    station.until("everything sent and received", |station| {
        let mut done = true;
        first += 1; // whoever asks first finds room: each in its turn
        for index in (0..40).map(|index| (first + index) % 40) {
            let (conn, peer) = &mut pairs[index];
            peer.read(&mut got[index]);
            station.keep_receiving(*conn);
            if let Some(outgoing) = unsent[index].take() {
                unsent[index] = station.send(*conn, outgoing).err();
            }
            if let Some((outgoing, result)) = station.seen(*conn).sent.take() {
                result.expect("nothing breaks this connection");
                unsent[index] = (!outgoing.is_empty()).then_some(outgoing);
            }
            done &= unsent[index].is_none()
                && !station.is_sending(*conn)
                && !station.seen(*conn).bytes.is_empty();
        }
        done
    });
    for ((conn, peer), mut got) in pairs.iter_mut().zip(got) {
        station.peer_reads(peer, &mut got, 11);
        assert_eq!(got, b"to the peer");
        assert!(b"to us".starts_with(&station.seen(*conn).bytes));
    }
    station.finish();
}

pub fn a_batch_waits_for_its_deadline_and_then_comes_whole<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut pairs: Vec<_> = (0..8).map(|_| station.pair()).collect();
    for (conn, peer) in &mut pairs {
        station.until("a started receive", |station| station.recv_start(*conn));
        station.peer_sends(peer, b"t");
    }
    let deadline = station.driver.now() + Duration::from_millis(30);
    station.until("the tick", |station| {
        let told = station.poll(64, Wait { until: Some(deadline), at_least: 1_000 });
        station.rig.pass(told == 0);
        station.driver.now() >= deadline
    });
    for (conn, _) in &pairs {
        station.receive(*conn, 1);
    }
    station.finish();
}

pub fn time_moves_only_in_poll<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let before = station.driver.now();
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(station.driver.now(), before);
    assert!(station.driver.precise_now() >= before && before > Time::ZERO);
    station.idle(Duration::from_millis(5));
    assert!(station.driver.now() >= before + Duration::from_millis(5));
    assert!(station.driver.wall() > Duration::from_secs(1_700_000_000), "the wall clock is of this century");
    station.finish();
}

pub fn entropy_differs_between_draws_and_drivers<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let mut other = station.sibling(&settings());
    let (mut one, mut two, mut three) = ([0; 32], [0; 32], [0; 32]);
    station.driver.random(&mut one);
    station.driver.random(&mut two);
    other.random(&mut three);
    assert!(one != two && one != three && two != three && one != [0; 32]);
    drop(other);
    station.finish();
}

pub fn a_wake_before_the_poll_is_not_lost_and_a_waker_outlives_its_driver<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let waker = station.driver.waker();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..1_000).for_each(|_| waker.wake()));
    });
    station.poll(8, Wait::until(station.driver.now() + Duration::from_secs(20)));
    assert!(start.elapsed() < Duration::from_secs(10), "a wake of an awake driver was lost");
    station.finish();
    waker.wake();
}
