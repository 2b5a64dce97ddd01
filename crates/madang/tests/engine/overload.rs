//! A server that does not keep up: whom it turns away, whom it cuts, whom it does not blame for its own stalls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use madang::{Context, DriverChoice, ErrorKind, LeaveReason, Message, SessionId, TurnedAway};

use crate::support::{Ended, Hello, Raw, Recorder, be32, be32_frame, echo, eventually, finish, lan};

each_driver! {
    b12_an_overloaded_server_lets_nobody_new_in_until_it_keeps_up_again,
    b12_on_a_lan_strangers_are_turned_away_first,
    b12_after_a_while_the_worst_consumer_is_cut,
    p05_a_process_near_its_memory_budget_takes_nobody_in,
    p07_a_server_that_stalled_does_not_blame_its_peers,
    s14_a_handler_that_blocks_is_told_and_the_other_shard_goes_on,
    b16_huge_messages_do_not_hold_the_others_up,
}

/// A callback that takes as many milliseconds as its message says, and answers; other messages are echoed.
fn work(cx: &mut Context<'_>, id: SessionId, message: Message<'_>) {
    if let Some(millis) = message.bytes().strip_prefix(b"work ") {
        let until = Instant::now() + Duration::from_millis(String::from_utf8_lossy(millis).parse().unwrap());
        while Instant::now() < until {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
    echo(cx, id, message);
}

fn turned_away(server: &madang::Server) -> u64 {
    server.figures().turned_away[usize::from(TurnedAway::Overloaded.code())]
}

fn b12_an_overloaded_server_lets_nobody_new_in_until_it_keeps_up_again(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.overload_lag_ms = 40;
        settings.overload_heavy_ms = 100;
    });
    let server = server.start(recorder.on_recv(work)).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    // The lag falls by itself within half a second: on a busy machine somebody may come too late to be turned away.
    eventually("somebody is turned away", || {
        peer.be32(b"work 600");
        assert_eq!(peer.be32_next(), b"work 600");
        let mut newcomer = Raw::connect(server.local_addr());
        newcomer.half_close();
        assert!(newcomer.is_cut());
        turned_away(&server) > 0
    });
    let error = watch.error("an overload", |kind| matches!(kind, ErrorKind::Overload { level: 2, .. }));
    assert_eq!(error.session, None);
    peer.be32(b"here all the same");
    assert_eq!(peer.be32_next(), b"here all the same");
    // Nothing happens, and still the level falls.
    watch.error("its end", |kind| matches!(kind, ErrorKind::Overload { level: 0, .. }));
    eventually("the figures say so", || server.figures().overload == 0);
    let mut newcomer = Raw::connect(server.local_addr());
    newcomer.be32(b"welcome");
    assert_eq!(newcomer.be32_next(), b"welcome");
    finish(server, &watch);
}

fn b12_on_a_lan_strangers_are_turned_away_first(driver: DriverChoice) {
    const BUSY: u8 = 18;
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.overload_lag_ms = 40;
        settings.overload_heavy_ms = 100;
    });
    let server = server.start(recorder.on_recv(work)).unwrap();
    let (mut peer, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    eventually("one is turned away at the door, another at his greeting", || {
        // This one is in already when the lag comes, and greets when it is there.
        let mut greeter = Raw::connect(server.local_addr());
        eventually("it is at the door", || server.figures().embryos == 1);
        peer.lan(crate::support::kind::MESSAGE, b"work 600");
        assert_eq!(peer.expect_message(), b"work 600");
        let mut stranger = Raw::connect(server.local_addr());
        stranger.write(&Hello::default().frame());
        greeter.write(&Hello::default().frame());
        let strangers_end = stranger.ended();
        let (mut kind, mut payload) = greeter.lan_next();
        if kind == crate::support::kind::GREETING {
            (kind, payload) = greeter.lan_next();
        }
        let is_busy = kind == crate::support::kind::REFUSAL && payload[0] == BUSY;
        drop((stranger, greeter));
        eventually("they are gone", || server.figures().embryos == 0);
        is_busy
            && (strangers_end == Ended::Reset || strangers_end == Ended::Eof(vec![]))
            && turned_away(&server) > 0
    });
    finish(server, &watch);
}

fn b12_after_a_while_the_worst_consumer_is_cut(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| {
        if message.bytes() == b"pile up" {
            for _ in 0..100 {
                let packet = cx.packet(&[9; 16 << 10]);
                assert!(cx.send(id, packet).is_queued());
            }
        } else {
            work(cx, id, message);
        }
    });
    let server = be32(driver).set(|settings| {
        settings.overload_lag_ms = 40;
        settings.overload_heavy_ms = 60;
        settings.overload_cut_after_ms = 400;
        settings.send_buffer_bytes = 64 << 10;
        settings.queue_soft_bytes = 2 << 20;
        settings.queue_soft_ms = 60_000;
        settings.queue_hard_bytes = 4 << 20;
    });
    let server = server.start(recorder).unwrap();
    let mut sluggish = Raw::connect(server.local_addr());
    let worst = watch.join();
    let mut busy = Raw::connect(server.local_addr());
    watch.join();
    sluggish.be32(b"pile up");
    for _ in 0..14 {
        busy.be32(b"work 150");
        assert_eq!(busy.be32_next(), b"work 150");
    }
    assert_eq!(watch.leave(worst).reason, LeaveReason::Overload);
    eventually("nobody else is cut", || server.figures().left() == 1 && server.figures().sessions == 1);
    eventually("it is over", || server.figures().overload == 0);
    finish(server, &watch);
}

fn p05_a_process_near_its_memory_budget_takes_nobody_in(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    // This test's process holds more than a mebibyte, wherever it runs.
    let server = be32(driver).set(|settings| settings.memory_budget_bytes = 1 << 20).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    if !cfg!(target_os = "linux") {
        return drop(finish(server, &watch));
    }
    watch.error("a shortage", |kind| matches!(kind, ErrorKind::Overload { level: 3, .. }));
    let mut newcomer = Raw::connect(server.local_addr());
    newcomer.half_close();
    assert!(newcomer.is_cut());
    eventually("it is counted", || turned_away(&server) == 1 && server.figures().overload == 3);
    peer.be32(b"who reads stays");
    assert_eq!(peer.be32_next(), b"who reads stays");
    finish(server, &watch);
}

fn p07_a_server_that_stalled_does_not_blame_its_peers(driver: DriverChoice) {
    const PEERS: usize = 12;
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        // One completion a turn: when the first deadline is looked at, most of what came meanwhile is unread.
        settings.turn_completions_max = 1;
        settings.idle_timeout_ms = 700;
        settings.partial_timeout_ms = 700;
    });
    let server = server.start(recorder.on_recv(|cx, id, message| {
        if message.bytes() != b"alive" {
            work(cx, id, message);
        }
    }));
    let server = server.unwrap();
    let peers: Vec<Raw> = (0..PEERS).map(|_| Raw::connect(server.local_addr())).collect();
    for _ in 0..PEERS {
        watch.join();
    }
    let mut blocker = Raw::connect(server.local_addr());
    watch.join();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut peers = peers;
            while !over.load(Ordering::SeqCst) {
                peers.iter_mut().for_each(|peer| peer.write(&be32_frame(b"alive")));
                thread::park_timeout(Duration::from_millis(100));
            }
        });
        for _ in 0..2 {
            blocker.be32(b"work 1500");
            assert_eq!(blocker.be32_next(), b"work 1500");
        }
        // Who is really silent goes all the same, and only he.
        eventually("the blocker is idle", || server.figures().left() > 0);
        let figures = server.figures();
        over.store(true, Ordering::SeqCst);
        assert_eq!(
            (figures.left(), figures.leaves[usize::from(LeaveReason::Idle.code())]),
            (1, 1),
            "{figures:?}"
        );
    });
    finish(server, &watch);
}

fn s14_a_handler_that_blocks_is_told_and_the_other_shard_goes_on(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(2).set(|settings| settings.slow_turn_ms = 300);
    let server = server.start(recorder.on_recv(work)).unwrap();
    let mut peers = [Raw::connect(server.local_addr()), Raw::connect(server.local_addr())];
    for _ in 0..2 {
        watch.join();
    }
    peers[0].be32(b"work 1000");
    let began = Instant::now();
    peers[1].be32(b"meanwhile");
    assert_eq!(peers[1].be32_next(), b"meanwhile");
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "the other shard waited too: {:?}",
        began.elapsed()
    );
    assert_eq!(peers[0].be32_next(), b"work 1000");
    let is_stall = |kind: &ErrorKind| matches!(kind, ErrorKind::Stalled { late, .. } if *late >= Duration::from_millis(900));
    watch.error("a stall", is_stall);
    eventually("it is counted", || server.figures().slow_turns > 0);
    assert!(server.figures().longest_turn >= Duration::from_millis(900));
    finish(server, &watch);
}

fn b16_huge_messages_do_not_hold_the_others_up(driver: DriverChoice) {
    const HUGE: usize = 8 << 20;
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| {
        if message.len() < HUGE {
            echo(cx, id, message);
        }
    });
    let server = be32(driver).set(|settings| {
        settings.frame_limit_bytes = HUGE as u32;
        settings.queue_hard_bytes = 2 * HUGE;
    });
    let server = server.start(recorder).unwrap();
    let address = server.local_addr();
    let mut small = Raw::connect(address);
    watch.join();
    let over = AtomicBool::new(false);
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut huge = Raw::connect(address);
            let frame = be32_frame(&vec![7; HUGE]);
            while !over.load(Ordering::SeqCst) {
                huge.write(&frame);
            }
        });
        eventually("huge messages come", || server.figures().messages_in > 0);
        for _ in 0..200 {
            let asked = Instant::now();
            small.be32(b"small");
            assert_eq!(small.be32_next(), b"small");
            slowest = slowest.max(asked.elapsed());
        }
        over.store(true, Ordering::SeqCst);
    });
    // Each is taken in as it comes, in chunks: no turn takes long, and none waits for the rest of one.
    let figures = server.figures();
    assert!(figures.messages_in > 200, "some were huge: {figures:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}, longest turn {:?}", figures.longest_turn);
    finish(server, &watch);
}
