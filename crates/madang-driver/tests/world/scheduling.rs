//! Who is runnable when: sleeps, wakes, deadlines.

use std::time::Duration;

use madang_driver::sim::{FaultKind, Faults, World};
use madang_driver::{Driver, DriverSettings, Wait};

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn a_sleeping_driver_is_runnable_at_its_deadline_and_not_before() {
    let world = World::new(1, Faults::none());
    let mut driver = world.driver(DriverSettings::default());
    assert_eq!(world.runnable(), [0], "the first poll is not slept through");
    let deadline = world.now() + MILLISECOND;
    driver.poll(&mut Vec::new(), 8, Wait::until(deadline));
    assert_eq!((world.runnable(), world.next_event()), (vec![], Some(deadline)));
    assert!(world.step());
    assert_eq!((world.runnable(), world.now()), (vec![0], deadline));
    assert!(driver.now() < deadline, "a driver's time moves in its poll");
    driver.poll(&mut Vec::new(), 8, Wait::FOREVER);
    assert_eq!((driver.now(), world.next_event(), world.step()), (deadline, None, false));
}

#[test]
fn a_late_timer_is_late_and_never_early() {
    let world = World::new(1, Faults::none().with(FaultKind::LateTimer, 1_000_000));
    let mut driver = world.driver(DriverSettings::default());
    for _ in 0..50 {
        let deadline = world.now() + MILLISECOND;
        driver.poll(&mut Vec::new(), 8, Wait::until(deadline));
        world.step();
        assert!(world.now() > deadline && world.runnable() == [0]);
    }
    assert_eq!(world.fault_counts().of(FaultKind::LateTimer), 50);
}

#[test]
fn a_wake_makes_runnable_at_once_or_late_but_always() {
    for late in [false, true] {
        let rate = if late { 1_000_000 } else { 0 };
        let world = World::new(1, Faults::none().with(FaultKind::DelayedWake, rate));
        let mut driver = world.driver(DriverSettings::default());
        driver.poll(&mut Vec::new(), 8, Wait::FOREVER);
        let waker = driver.waker();
        std::thread::spawn(move || (0..5).for_each(|_| waker.wake())).join().unwrap();
        assert_eq!(world.runnable().is_empty(), late);
        world.step();
        assert_eq!(world.runnable(), [0]);
        driver.poll(&mut Vec::new(), 8, Wait::FOREVER);
        assert!(world.runnable().is_empty(), "wakes coalesce");
    }
}

#[test]
fn a_planned_wait_replaces_the_last_polls() {
    let world = World::new(1, Faults::none());
    let mut driver = world.driver(DriverSettings::default());
    driver.poll(&mut Vec::new(), 8, Wait::FOREVER);
    let deadline = world.now() + MILLISECOND;
    world.plan_wait(driver.number(), Wait::until(deadline));
    assert_eq!(world.next_event(), Some(deadline));
    world.plan_wait(driver.number(), Wait::NO);
    assert_eq!(world.runnable(), [0]);
}

#[test]
fn wall_time_jumps_and_the_clock_does_not() {
    let world = World::new(3, Faults::none().with(FaultKind::WallClockJump, 1_000_000));
    let mut driver = world.driver(DriverSettings::default());
    let before = (driver.now(), driver.wall());
    let mut went_back = false;
    for _ in 0..20 {
        let wall = driver.wall();
        driver.poll(&mut Vec::new(), 8, Wait::NO);
        went_back |= driver.wall() < wall;
    }
    assert!(went_back && driver.now() == before.0);
}
