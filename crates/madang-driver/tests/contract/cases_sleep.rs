//! Real sleep: only where a driver really blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use madang_driver::{Driver, Wait};

use crate::rig::{RawPeer, Rig};
use crate::station::Station;

pub fn a_sleeping_driver_is_woken_from_another_thread<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    for _ in 0..5 {
        let waker = station.driver.waker();
        let start = Instant::now();
        let rung = Arc::new(AtomicBool::new(false));
        let ringer = Arc::clone(&rung);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            // Before the wake, as with a mailbox: the poll that the wake ends may be the last one it ends.
            ringer.store(true, Ordering::Release);
            waker.wake();
        });
        // Early returns are legal; what is not is to sleep through the wake.
        let deadline = station.driver.now() + Duration::from_secs(20);
        while !rung.load(Ordering::Acquire) {
            station.poll(8, Wait::until(deadline));
        }
        thread.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "a wake was slept through");
    }
    station.finish();
}

pub fn a_wake_is_spent_by_the_poll_it_ended<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let waker = station.driver.waker();
    (0..100).for_each(|_| waker.wake());
    let deadline = station.driver.now() + Duration::from_millis(100);
    let mut polls = 0;
    while station.driver.now() < deadline {
        station.poll(8, Wait::until(deadline));
        polls += 1;
    }
    assert!(polls < 50, "{polls} polls in 100 ms: wakes do not coalesce");
    station.finish();
}

pub fn k21_a_deadline_is_never_early_and_no_busy_wait<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, _peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    for millis in [1, 3, 10, 40] {
        station.poll(8, Wait::NO);
        let (start, now) = (Instant::now(), station.driver.now());
        let deadline = now + Duration::from_millis(millis);
        let mut polls = 0;
        while station.driver.now() < deadline {
            station.poll(8, Wait::until(deadline));
            polls += 1;
        }
        let took = start.elapsed() + Duration::from_millis(1); // the driver read its clock a little before we read ours
        assert!(took >= Duration::from_millis(millis), "{millis} ms took {took:?}");
        assert!(polls < 100, "{polls} polls in {millis} ms");
    }
    station.finish();
}

pub fn a_wait_for_more_than_can_ever_come_sleeps_until_its_deadline<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, _peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    for at_least in [2, 1 << 20, 1 << 31, u32::MAX] {
        station.poll(8, Wait::NO);
        let before = station.driver.figures().enters;
        let deadline = station.driver.now() + Duration::from_millis(50);
        while station.driver.now() < deadline {
            station.poll(8, Wait { until: Some(deadline), at_least });
        }
        // Looks a millisecond, at most: a driver that spins makes many thousands.
        let spent = station.driver.figures().enters - before;
        assert!(spent < 200, "{spent} system calls in 50 ms of waiting for {at_least}");
    }
    station.finish();
}

pub fn a_poll_that_shall_not_sleep_does_not<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let start = Instant::now();
    for _ in 0..200 {
        station.poll(8, Wait::NO);
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    station.finish();
}

pub fn a_sleeping_driver_is_woken_by_its_connections<R: Rig<Peer: Send + 'static>>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    station.until("a started receive", |station| station.recv_start(conn));
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(peer.write(b"good morning"), 12);
        peer
    });
    let start = Instant::now();
    while station.seen(conn).bytes.len() < 12 {
        station.poll(8, Wait::FOREVER);
        station.keep_receiving(conn);
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(thread.join().unwrap());
    station.finish();
}
