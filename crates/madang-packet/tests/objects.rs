//! `Pool<T>` (P9): both policies, the bound, and what a panic leaves behind.
#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use madang_packet::Pool;

/// Counts its constructions and destructions.
struct Tracked(Arc<[AtomicUsize; 2]>);

impl Tracked {
    fn new(counts: &Arc<[AtomicUsize; 2]>) -> Tracked {
        counts[0].fetch_add(1, Ordering::Relaxed);
        Tracked(Arc::clone(counts))
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

fn counts() -> (Arc<[AtomicUsize; 2]>, impl Fn() -> (usize, usize)) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let read = Arc::clone(&counts);
    (counts, move || (read[0].load(Ordering::Relaxed), read[1].load(Ordering::Relaxed)))
}

#[test]
fn construct_once_resets_what_comes_back() {
    let (made, read) = counts();
    let pool = Pool::construct_once(4, move || (Tracked::new(&made), 0), |object| object.1 += 100);
    for round in 0..5 {
        let mut object = pool.take().expect("within the bound");
        assert_eq!(object.1, round * 101);
        object.1 += 1;
    }
    assert_eq!(read(), (1, 0));
    drop(pool);
    assert_eq!(read(), (1, 1));
}

#[test]
fn construct_each_makes_and_drops_every_time() {
    let (made, read) = counts();
    let pool = Pool::construct_each(4, move || Tracked::new(&made));
    for round in 1..5 {
        let object = pool.take();
        assert_eq!(read(), (round, round - 1));
        drop(object);
        assert_eq!(read(), (round, round));
    }
    assert_eq!(pool.made(), 1, "the place is the same");
}

#[test]
fn a_pool_has_no_more_than_its_bound() {
    for most in [0, 1, 3] {
        let pool = Pool::construct_once(most, || 0, |_| ());
        let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((held.len(), pool.out(), pool.made()), (most, most, most));
        drop(held);
        assert_eq!((pool.out(), pool.made()), (0, most));
        assert_eq!(pool.take().is_some(), most > 0);
    }
}

#[test]
fn an_object_outlives_the_pool_and_crosses_threads() {
    let (made, read) = counts();
    let pool = Pool::construct_once(1, move || Tracked::new(&made), |_| ());
    let object = pool.take().expect("within the bound");
    drop(pool);
    assert_eq!(read(), (1, 0));
    thread::spawn(move || drop(object)).join().expect("no panic");
    assert_eq!(read(), (1, 1));
}

#[test]
fn a_panic_in_constructor_or_reset_loses_no_place() {
    let failures = Arc::new(AtomicUsize::new(2));
    let fail = move || {
        let left = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "on purpose");
    };
    let pool = Pool::construct_once(1, || 0, move |_| fail());
    drop(pool.take());
    for _ in 0..2 {
        assert!(catch_unwind(AssertUnwindSafe(|| pool.take())).is_err());
        assert_eq!(pool.out(), 0);
    }
    assert!(pool.take().is_some());

    let failures = AtomicUsize::new(1);
    let pool =
        Pool::construct_each(1, move || assert_ne!(failures.swap(0, Ordering::Relaxed), 1, "on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(|| pool.take())).is_err());
    assert!(pool.take().is_some());
}

#[test]
fn many_threads_never_hold_more_than_the_bound_or_the_same_object() {
    let pool = Pool::construct_once(3, || AtomicUsize::new(0), |_| ());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    if let Some(object) = pool.take() {
                        assert_eq!(object.fetch_add(1, Ordering::Relaxed), 0, "held twice");
                        assert!(pool.out() <= 3);
                        object.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(pool.out(), 0);
}
