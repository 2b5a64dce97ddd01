//! Those who log in beside those who play: whose turn it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang::wire::Kind;
use madang::{Account, DriverChoice, LogIn, Verdict};

use crate::support::{Recorder, Sealed, eventually, finish, log_in, wan};

each_driver! {
    a_message_goes_before_the_log_ins_that_came_with_it,
    log_ins_are_let_in_by_a_shard_that_never_rests,
}

/// They come first, and all in one turn. (All of them were looked at, let in and welcomed before it.)
fn a_message_goes_before_the_log_ins_that_came_with_it(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (looked_at, heard) = (Arc::clone(&seen), Arc::clone(&seen));
    let server = server.log_in(move |_: &LogIn<'_>| {
        looked_at.lock().unwrap().push("log-in");
        Verdict::Admit(Account::new(1))
    });
    let (stands, may_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (still, go) = (Arc::clone(&stands), Arc::clone(&may_go));
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |_, _, message| {
        if message.bytes() == b"stand still" {
            still.store(true, Ordering::SeqCst);
            eventually("all have spoken", || go.load(Ordering::SeqCst));
        } else {
            heard.lock().unwrap().push("message");
        }
    });
    let server = server.start(recorder).unwrap();
    let mut player = Sealed::join(server.local_addr(), &key);
    let mut newcomers: Vec<Sealed> = (0..8).map(|_| Sealed::connect(server.local_addr(), &key)).collect();
    seen.lock().unwrap().clear();

    let first = player.message(b"stand still");
    player.raw.write(&first);
    eventually("the shard stands still", || stands.load(Ordering::SeqCst));
    for newcomer in &mut newcomers {
        let log_in = newcomer.record(&log_in(b""));
        newcomer.raw.write(&log_in);
    }
    let message = player.message(b"I play");
    player.raw.write(&message);
    may_go.store(true, Ordering::SeqCst);

    newcomers.iter_mut().for_each(|newcomer| assert_eq!(newcomer.next().0, Kind::Welcome));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen[0], "message", "{seen:?}");
    drop((player, newcomers));
    finish(server, &watch);
}

fn log_ins_are_let_in_by_a_shard_that_never_rests(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|_, _, _| std::thread::park_timeout(Duration::from_micros(200)));
    let server = server.start(recorder).unwrap();
    let mut player = Sealed::join(server.local_addr(), &key);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // More than is heard while the others log in, and no more than that is waited for.
        let speaks = scope.spawn(|| {
            (0..20_000).any(|_| {
                let message = player.message(&[7; 8 << 10]);
                player.raw.write(&message);
                is_over.load(Ordering::SeqCst)
            })
        });
        for _ in 0..4 {
            drop(Sealed::join(server.local_addr(), &key));
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(speaks.join().unwrap(), "it had nothing to say any more when they were let in");
    });
    drop(player);
    finish(server, &watch);
}
