//! How encrypted sessions end when the server wants it: a code, a stop, a drain, and a stop that was announced.

use std::time::{Duration, Instant};

use madang::wire::Kind;
use madang::wire::lan::{Goodbye, GoodbyeReason, RefusalReason};
use madang::{DriverChoice, LeaveReason, LinkDown, WaitState};

use crate::support::{Recorder, Sealed, Seen, Watch, eventually, finish, log_in, wan};
use crate::wan::{client, down, joined};

each_driver! {
    the_code_of_a_disconnect_reaches_the_client,
    a_stop_and_a_drain_say_goodbye,
    o2_a_stop_that_is_announced_is_heard_and_players_finish_first,
    o2_whoever_waits_or_comes_behind_the_announcement_is_refused,
}

fn the_code_of_a_disconnect_reaches_the_client(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| match message.bytes() {
        b"at once" => assert!(cx.disconnect(id, 77)),
        _ => {
            let last = cx.packet(b"farewell");
            cx.send_and_disconnect(id, last, 78).ignore();
        }
    });
    let server = server.start(recorder).unwrap();
    for (word, code) in [("at once", 77), ("in good order", 78)] {
        let (client, seen, id) = joined(client(driver, &server, key));
        let remote = client.remote();
        remote.send(id, remote.packet(word.as_bytes())).ignore();
        let goodbye = Goodbye { reason: GoodbyeReason::Content, code };
        assert_eq!(seen.leave(id).reason, LeaveReason::PeerGoodbye(goodbye), "{word}");
        assert_eq!(watch.leave(watch.join()).reason, LeaveReason::Disconnected(code), "{word}");
        client.stop().unwrap();
    }
    finish(server, &watch);
}

fn a_stop_and_a_drain_say_goodbye(driver: DriverChoice) {
    let stopping = LeaveReason::PeerGoodbye(Goodbye { reason: GoodbyeReason::Stopping, code: 0 });
    for graceful in [false, true] {
        // The server stops.
        let (server, key) = wan(driver);
        let (recorder, watch) = Recorder::echo();
        let server = server.start(recorder).unwrap();
        let (client, seen, id) = joined(client(driver, &server, key));
        let stopped = if graceful { server.drain() } else { server.stop() };
        assert!(stopped.unwrap().report().is_clean());
        assert_eq!(seen.leave(id).reason, stopping, "graceful: {graceful}");
        assert_eq!(watch.leave(watch.join()).reason, LeaveReason::Stopping);
        client.stop().unwrap();

        // The client does.
        let (server, key) = wan(driver);
        let (recorder, watch) = Recorder::echo();
        let server = server.start(recorder).unwrap();
        let (client, ..) = joined(self::client(driver, &server, key));
        let id = watch.join();
        assert!(if graceful { client.drain() } else { client.stop() }.unwrap().is_clean());
        assert_eq!(watch.leave(id).reason, stopping, "graceful: {graceful}");
        eventually("it is gone", || server.figures().sessions_leaving == 0);
        finish(server, &watch);
    }
}

fn o2_a_stop_that_is_announced_is_heard_and_players_finish_first(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.workers(2).start(recorder).unwrap();
    let (stays, stays_seen, stays_id) = joined(client(driver, &server, key));
    let (leaves, leaves_seen, leaves_id) = joined(client(driver, &server, key));
    let hears = |seen: &Watch, id| {
        seen.find("how long there is", |seen| match seen {
            Seen::Draining(session, left) if *session == id => Some(*left),
            _ => None,
        })
    };
    server.announce(Duration::from_secs(3_600));
    for (seen, id) in [(&stays_seen, stays_id), (&leaves_seen, leaves_id)] {
        let left = hears(seen, id);
        assert!(left <= Duration::from_secs(3_600) && left > Duration::from_secs(3_500), "{left:?}");
    }
    // Who has heard it is served as before.
    let remote = stays.remote();
    assert!(remote.send(stays_id, remote.packet(b"one more round")).is_queued());
    assert_eq!(stays_seen.recv(stays_id), b"one more round");
    leaves.drain().unwrap();
    // The drain counts anew, and waits for those who stay: not for ever.
    let began = Instant::now();
    let drained = std::thread::spawn(move || server.drain_in(Duration::from_millis(300)));
    let left = hears(&stays_seen, stays_id);
    assert!(left <= Duration::from_millis(300), "{left:?}");
    let Ok(stopped) = drained.join().unwrap() else { panic!("no callback stops it") };
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(stopped.report().is_clean(), "{:?}", stopped.report());
    let leave = stays_seen.leave(stays_id);
    let goodbye = Goodbye { reason: GoodbyeReason::Stopping, code: 0 };
    assert_eq!(leave.reason, LeaveReason::PeerGoodbye(goodbye));
    stays.stop().unwrap();
    watch.check_ledger();
    // With nobody there is nothing to wait for.
    let server = stopped.start_again().unwrap();
    let began = Instant::now();
    let Ok(stopped) = server.drain_in(Duration::from_secs(3_600)) else { panic!("no callback stops it") };
    assert!(began.elapsed() < Duration::from_secs(60));
    // A server that is started again lets everybody in.
    let server = stopped.start_again().unwrap();
    joined(client(driver, &server, key)).0.drain().unwrap();
    finish(server, &watch);
}

fn o2_whoever_waits_or_comes_behind_the_announcement_is_refused(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.max_sessions(1).set(|settings| settings.queue_max = 10).start(recorder).unwrap();
    let (inside, _seen, _) = joined(client(driver, &server, key));
    let mut waits = Sealed::connect(server.local_addr(), &key);
    let token = waits.record(&log_in(b""));
    waits.raw.write(&token);
    watch.wait("it waits", |state| matches!(state, WaitState::Entered(_)));
    server.announce(Duration::from_secs(3_600));
    let refusal = loop {
        match waits.next() {
            (Kind::Refusal, payload) => break payload,
            (kind, _) => assert!(matches!(kind, Kind::Ticket | Kind::Queue), "{kind:?}"),
        }
    };
    assert_eq!(refusal, [17, 0, 0]);
    watch.wait("it is told", |state| *state == WaitState::Gone);
    let (late, why) = down(client(driver, &server, key));
    assert_eq!(why, LinkDown::Refused(RefusalReason::Draining.into()));
    late.stop().unwrap();
    inside.drain().unwrap();
    // Nobody takes the place that is free now.
    let (late, why) = down(client(driver, &server, key));
    assert_eq!(why, LinkDown::Refused(RefusalReason::Draining.into()));
    late.stop().unwrap();
    finish(server, &watch);
}
