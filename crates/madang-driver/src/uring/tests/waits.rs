//! Sleeping, waking and deadlines.

use std::io::Write;

use super::*;

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
