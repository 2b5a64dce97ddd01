//! What the engine tells content, and that it survives content.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use madang::{Answer, Context, DriverChoice, ErrorKind, Handler, LeaveReason, Message, SessionId};

use crate::support::{
    ON_PURPOSE, PATIENCE, Raw, Recorder, Seen, be32, be32_frame, eventually, finish, hush_panics_on_purpose,
    pattern,
};

/// Peers from here are not wanted.
const BANNED: [u8; 4] = [127, 0, 0, 9];

each_driver! {
    h1_a_refused_peer_costs_no_session,
    h4_on_send_sums_up_to_all_that_was_sent,
    h6_a_worker_begins_and_ends_in_turn_once_a_turn_at_most,
    h7_errors_name_the_peer_and_are_no_flood,
    p01_a_panic_in_a_callback_ends_its_session_and_nothing_else,
    p01_a_panic_in_a_callback_without_a_session_ends_nothing,
    h9_timers_fire_in_time_are_replaced_and_cancelled_and_end_with_the_session,
    h9_a_session_has_so_many_timers_and_no_more,
    b15_a_storm_of_timers_does_not_hold_messages_up,
}

fn h1_a_refused_peer_costs_no_session(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let recorder = recorder.on_request(|peer| {
        assert!(peer.node.is_none() && peer.local.port() != 0);
        if peer.remote.ip() == std::net::IpAddr::from(BANNED) {
            madang::Admission::Refuse
        } else {
            madang::Admission::Accept
        }
    });
    let server = be32(driver).start(recorder).unwrap();
    for _ in 0..3 {
        assert!(Raw::connect_from(BANNED, server.local_addr()).is_cut());
        let mut peer = Raw::connect(server.local_addr());
        let (id, told) = watch.join_of_peer();
        assert_eq!((told.remote, told.local), (peer.local(), server.local_addr()));
        peer.be32(b"in");
        assert_eq!(peer.be32_next(), b"in");
        assert_eq!(watch.recv(id), b"in");
    }
    assert_eq!(server.figures().refused, 3);
    finish(server, &watch);
}

fn h4_on_send_sums_up_to_all_that_was_sent(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        for number in 0..500 {
            let packet = cx.packet(&pattern(number, 1 + (number as usize * 37) % 9_000));
            assert!(cx.send(id, packet).is_queued());
        }
    });
    let server = be32(driver).set(|settings| settings.queue_hard_bytes = 16 << 20).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let mut bytes = 0;
    for number in 0..500 {
        let message = peer.be32_next();
        assert!(message == pattern(number, 1 + (number as usize * 37) % 9_000), "message {number}");
        bytes += message.len();
    }
    let mut sum = (0, 0);
    while sum.0 < 500 {
        let sent = watch.find("a write completed", |seen| match seen {
            Seen::Sent(of, sent) if *of == id => Some(*sent),
            _ => None,
        });
        assert!(sent.messages > 0 && sent.bytes >= sent.messages, "{sent:?}");
        sum = (sum.0 + sent.messages, sum.1 + sent.bytes);
    }
    assert_eq!(sum, (500, bytes));
    let figures = server.figures();
    assert_eq!((figures.messages_out, figures.bytes_out), (500, (bytes + 500 * 4) as u64));
    assert!(figures.sends < 100, "what is queued in a turn leaves together: {} sends", figures.sends);
    finish(server, &watch);
}

fn h6_a_worker_begins_and_ends_in_turn_once_a_turn_at_most(driver: DriverChoice) {
    #[derive(Default)]
    struct Monitor {
        /// Per shard: begins, ends.
        turns: [(AtomicU64, AtomicU64); 2],
    }
    impl Handler for Monitor {
        fn on_recv(&self, cx: &mut Context<'_>, id: SessionId, message: Message<'_>) {
            let (begun, ended) = &self.turns[cx.shard()];
            assert_eq!(
                begun.load(Ordering::SeqCst),
                ended.load(Ordering::SeqCst) + 1,
                "callbacks lie in between"
            );
            crate::support::echo(cx, id, message);
        }
        fn on_worker_begin(&self, shard: usize) {
            let (begun, ended) = &self.turns[shard];
            assert_eq!(begun.fetch_add(1, Ordering::SeqCst), ended.load(Ordering::SeqCst), "one at a time");
        }
        fn on_worker_end(&self, shard: usize) {
            let (begun, ended) = &self.turns[shard];
            assert_eq!(ended.fetch_add(1, Ordering::SeqCst) + 1, begun.load(Ordering::SeqCst), "in turn");
        }
    }
    let monitor = Arc::new(Monitor::default());
    let server = be32(driver).workers(2).start_shared(Arc::clone(&monitor) as Arc<dyn Handler>).unwrap();
    let mut peers: Vec<Raw> = (0..4).map(|_| Raw::connect(server.local_addr())).collect();
    for round in 0..50u8 {
        for peer in &mut peers {
            peer.be32(&[round]);
        }
        for peer in &mut peers {
            assert_eq!(peer.be32_next(), [round]);
        }
    }
    let remote = server.remote();
    assert!(server.stop().unwrap().report().is_clean());
    let begun: u64 = monitor.turns.iter().map(|(begun, _)| begun.load(Ordering::SeqCst)).sum();
    let ended: u64 = monitor.turns.iter().map(|(_, ended)| ended.load(Ordering::SeqCst)).sum();
    assert_eq!(begun, ended);
    assert!(begun >= 50 && begun <= remote.figures().turns, "{begun} of {} turns", remote.figures().turns);
}

fn h7_errors_name_the_peer_and_are_no_flood(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    peer.write(&[0; 4]);
    let error = watch.error("malformed input", |kind| matches!(kind, ErrorKind::Malformed(_)));
    assert_eq!((error.session, error.peer), (Some(id), Some(peer.local())));
    assert!(peer.is_cut());
    // A thousand bad peers are at most some hundred errors a second; the others are counted.
    let begun = Instant::now();
    for _ in 0..400 {
        Raw::connect(server.local_addr()).write(&[0; 4]);
    }
    eventually("all are gone", || server.figures().errors == 401);
    let told = watch.rest().iter().filter(|seen| matches!(seen, Seen::Error(_))).count() as u64;
    assert!(told <= 100 * (begun.elapsed().as_secs() + 2), "{told} errors told");
    finish(server, &watch);
}

fn p01_a_panic_in_a_callback_ends_its_session_and_nothing_else(driver: DriverChoice) {
    hush_panics_on_purpose();
    for place in ["join", "recv", "sent", "event", "timer", "then", "job", "leave"] {
        let (recorder, watch) = Recorder::new();
        let victim: &'static Mutex<Option<SessionId>> = Box::leak(Box::default());
        let trip = move |at: &str, id: SessionId| {
            if at == place && victim.lock().unwrap().is_some_and(|victim| victim == id) {
                panic!("{ON_PURPOSE}");
            }
        };
        let recorder = recorder
            .on_join(move |cx, id| {
                victim.lock().unwrap().get_or_insert(id);
                assert!(cx.send(id, cx.packet(b"hello")).is_queued());
                trip("join", id);
            })
            .on_recv(move |cx, id, message| {
                crate::support::echo(cx, id, message);
                cx.post(id, 1u64).ignore();
                trip("recv", id);
            })
            .on_event(move |cx, id, _| {
                cx.timer(id, Duration::from_millis(1), 1).ignore();
                trip("event", id);
            })
            .on_timer(move |cx, id, _| {
                cx.offload(id, move || trip("job", id), move |_, id, ()| trip("then", id)).ignore();
                trip("timer", id);
            })
            .on_sent(move |_, id, _| trip("sent", id))
            .on_leave(move |_, id, _| trip("leave", id));
        let server = be32(driver).start(recorder).unwrap();
        // The reset of a session that ends in its join may be there before the connect returns.
        let mut peer = Raw::try_connect(server.local_addr());
        let id = watch.join();
        let mut bystander = Raw::connect(server.local_addr());
        assert_eq!(bystander.be32_next(), b"hello");
        if let Ok(peer) = &mut peer {
            let _ = std::io::Write::write_all(&mut peer.stream, &be32_frame(b"go on"));
        }
        if place == "leave" {
            drop(peer);
        }
        let error = watch.error("the panic is reported", |kind| {
            matches!(kind, ErrorKind::Panic(words) | ErrorKind::JobPanic(words) if words == ON_PURPOSE)
        });
        assert_eq!(matches!(error.kind, ErrorKind::JobPanic(_)), place == "job");
        assert_eq!(error.session, Some(id), "in {place}");
        let reason = watch.leave(id).reason;
        if place == "leave" {
            assert!(matches!(reason, LeaveReason::PeerClosed | LeaveReason::PeerReset), "{reason:?}");
        } else {
            assert_eq!(reason, LeaveReason::HandlerPanic, "in {place}");
        }
        bystander.be32(b"still there?");
        assert_eq!(bystander.be32_next(), b"still there?", "after a panic in {place}");
        finish(server, &watch);
    }
}

fn p01_a_panic_in_a_callback_without_a_session_ends_nothing(driver: DriverChoice) {
    hush_panics_on_purpose();
    struct Clumsy(&'static str);
    impl Clumsy {
        fn trip(&self, at: &str) {
            if at == self.0 {
                panic!("{ON_PURPOSE}");
            }
        }
    }
    impl Handler for Clumsy {
        fn on_connection_request(&self, peer: &madang::Peer) -> madang::Admission {
            if peer.remote.ip() == std::net::IpAddr::from(BANNED) {
                self.trip("request");
            }
            madang::Admission::Accept
        }
        fn on_recv(&self, cx: &mut Context<'_>, id: SessionId, message: Message<'_>) {
            crate::support::echo(cx, id, message);
        }
        fn on_worker_begin(&self, _: usize) {
            self.trip("begin");
        }
        fn on_worker_end(&self, _: usize) {
            self.trip("end");
        }
        fn on_error(&self, _: &madang::Error) {
            self.trip("error");
        }
    }
    for place in ["request", "begin", "end", "error"] {
        let server = be32(driver).start(Clumsy(place)).unwrap();
        for _ in 0..3 {
            Raw::connect(server.local_addr()).write(&[0; 4]);
            let mut banned = Raw::connect_from(BANNED, server.local_addr());
            if place == "request" {
                assert!(banned.is_cut(), "a filter that panics lets nobody in");
            }
            let mut peer = Raw::connect(server.local_addr());
            peer.be32(b"still there?");
            assert_eq!(peer.be32_next(), b"still there?", "after a panic in {place}");
        }
        assert!(server.stop().unwrap().report().is_clean());
    }
}

fn h9_timers_fire_in_time_are_replaced_and_cancelled_and_end_with_the_session(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let (tell, late) = channel();
    let joined = tell.clone();
    let recorder = recorder
        .on_join(move |cx, id| {
            let ms = Duration::from_millis;
            joined.send((0, cx.now())).unwrap();
            assert!(cx.timer(id, ms(30), 2).is_queued());
            assert!(cx.timer(id, ms(10), 3).is_queued());
            assert!(cx.timer(id, ms(20), 3).is_queued(), "3 is replaced: it fires once");
            assert!(cx.timer(id, ms(15), 4).is_queued());
            assert!(cx.cancel_timer(id, 4) && !cx.cancel_timer(id, 4) && !cx.cancel_timer(id, 99));
            assert!(cx.timer(id, Duration::MAX, 5).is_queued(), "far away is not an overflow");
        })
        .on_timer(move |cx, id, key| {
            tell.send((key, cx.now())).unwrap();
            match key {
                // Set again from inside; what comes next is only set then, as a busy machine fires all that is due at once.
                2 => assert!(cx.timer(id, Duration::ZERO, 7).is_queued()),
                7 => {
                    assert!(cx.timer(id, Duration::from_millis(60), 6).is_queued());
                    assert!(cx.timer(id, Duration::from_millis(30), 1).is_queued());
                }
                1 => assert!(cx.disconnect(id, 0)),
                _ => {}
            }
        });
    let server = be32(driver).start(recorder).unwrap();
    let begun = Instant::now();
    let _peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let fired: Vec<u64> = (0..4).map(|_| watch.timer(id)).collect();
    assert_eq!(fired, [3, 2, 7, 1]);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    watch.leave(id);
    let fired: Vec<(u64, Duration)> = late.try_iter().collect();
    for ((key, at), least) in fired.iter().zip([0, 20, 30, 30, 60]) {
        assert!(*at - fired[0].1 >= Duration::from_millis(least), "{key} is never early: {fired:?}");
    }
    // Number 6 would be due while this one runs.
    let _other = Raw::connect(server.local_addr());
    let other = watch.join();
    assert_eq!((0..4).map(|_| watch.timer(other)).collect::<Vec<_>>(), [3, 2, 7, 1]);
    watch.leave(other);
    let left = Instant::now();
    eventually("the other's is overdue as well", || left.elapsed() > Duration::from_millis(60));
    assert!(!watch.rest().iter().any(|seen| matches!(seen, Seen::Timer(..))), "none after the leave");
    finish(server, &watch);
}

fn h9_a_session_has_so_many_timers_and_no_more(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        let long = Duration::from_secs(60);
        for key in 0..3 {
            assert_eq!(cx.timer(id, long, key), Answer::Queued);
        }
        assert_eq!(cx.timer(id, long, 3), Answer::Full);
        assert_eq!(cx.timer(id, Duration::ZERO, 0), Answer::Queued, "replacing takes no room");
    });
    let server = be32(driver).set(|settings| settings.session_timers_max = 3).start(recorder).unwrap();
    let _peer = Raw::connect(server.local_addr());
    let id = watch.join();
    assert_eq!(watch.timer(id), 0);
    finish(server, &watch);
}

/// 19,200 timers are due at the same instant. The first of them waits until a message has come; the message is delivered
/// long before the last of them, and none of them is lost.
fn b15_a_storm_of_timers_does_not_hold_messages_up(driver: DriverChoice) {
    const SESSIONS: usize = 300;
    const EACH: u64 = 64;
    const ALL: u64 = SESSIONS as u64 * EACH;
    let fired = Arc::new(AtomicU64::new(0));
    let (firing, fired_before) = (Arc::clone(&fired), Arc::clone(&fired));
    let (first, is_first) = channel();
    let (written, is_written) = channel();
    let is_written = Mutex::new(is_written);
    let everybody: Arc<Mutex<Vec<SessionId>>> = Arc::default();
    let joining = Arc::clone(&everybody);
    let (delivered, at) = channel();
    let recorder = Recorder::silent()
        .on_join(move |_, id| joining.lock().unwrap().push(id))
        .on_recv(move |cx, _, message| match message.bytes() {
            // In one callback, so that one instant is meant for all.
            b"storm" => {
                for id in everybody.lock().unwrap().iter() {
                    for key in 0..EACH {
                        assert!(cx.timer(*id, Duration::from_millis(5), key).is_queued());
                    }
                }
            }
            _ => delivered.send(fired_before.load(Ordering::Relaxed)).unwrap(),
        })
        .on_timer(move |_, _, _| {
            if firing.fetch_add(1, Ordering::Relaxed) == 0 {
                first.send(()).unwrap();
                is_written.lock().unwrap().recv_timeout(PATIENCE).expect("the test writes");
            }
        });
    let server = be32(driver).start(recorder).unwrap();
    let mut peers: Vec<Raw> = (0..SESSIONS).map(|_| Raw::connect(server.local_addr())).collect();
    eventually("all are here", || server.figures().sessions == SESSIONS as u64);
    peers[0].be32(b"storm");
    is_first.recv_timeout(PATIENCE).expect("timers fire");
    peers[1].be32(b"a message");
    written.send(()).unwrap();
    let before = at.recv_timeout(PATIENCE).expect("the message is delivered");
    assert!(before < ALL / 4, "behind {before} of {ALL} timers");
    eventually("all have fired", || fired.load(Ordering::Relaxed) == ALL);
    assert!(server.stop().unwrap().report().is_clean());
    assert_eq!(fired.load(Ordering::Relaxed), ALL, "each fired once");
}
