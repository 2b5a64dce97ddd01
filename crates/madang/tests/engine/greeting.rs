//! The greeting of a LAN server: who is let in, who is told why not, and who is just gone.

use std::thread;
use std::time::{Duration, Instant};

use madang::wire::FrameError;
use madang::wire::lan::{Goodbye, GoodbyeReason, RefusalReason};
use madang::{DriverChoice, ErrorKind, LeaveReason};

use crate::support::{Ended, Hello, Raw, Recorder, eventually, finish, kind, lan, lan_frame};

each_driver! {
    n4_a_peer_is_told_who_it_is_and_what_it_proved,
    n4_a_greeting_that_does_not_suit_is_refused_with_the_reason,
    n4_no_greeting_is_gone_without_an_answer,
    b06_a_peer_that_never_greets_or_only_half_is_gone_by_the_deadline,
    l05_an_older_life_of_a_node_is_refused_and_a_newer_one_takes_its_place,
    b06_strangers_do_not_take_the_places_of_peers,
    a_full_server_says_so_and_lets_in_whoever_comes_when_somebody_left,
    frames_out_of_bounds_or_out_of_turn_end_the_link,
    l02_a_silent_link_is_cut_and_one_that_pings_is_not,
    l02_a_side_that_says_nothing_pings_though_it_hears_much,
    a_goodbye_tells_its_receiver_why,
    many_pings_make_no_queue,
}

fn n4_a_peer_is_told_who_it_is_and_what_it_proved(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).start(recorder).unwrap();
    let hello =
        Hello { service: "chat", node: "chat-3", incarnation: 77, app_version: 12, ..Hello::default() };
    let (raw, id) = Raw::join_lan(server.local_addr(), &hello);
    let (session, peer) = watch.join_of_peer();
    assert_eq!(session.to_u64(), id);
    assert_eq!((peer.remote, peer.local), (raw.local(), server.local_addr()));
    let node = peer.node.unwrap();
    assert_eq!((&*node.service, &*node.name, node.incarnation, node.app_version), ("chat", "chat-3", 77, 12));
    finish(server, &watch);
}

fn n4_a_greeting_that_does_not_suit_is_refused_with_the_reason(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.app_version_min = 5;
        settings.schema_hash = 0xabc;
    });
    let server = server.start(recorder).unwrap();
    let good = Hello { app_version: 5, schema: 0xabc, ..Hello::default() };
    let cases = [
        (Hello { protocol: 2, ..good.clone() }, 2, RefusalReason::Protocol),
        (Hello { app_version: 4, ..good.clone() }, 3, RefusalReason::AppVersion),
        (Hello { schema: 0xabd, ..good.clone() }, 4, RefusalReason::Schema),
        (Hello { frame_limit: 0, ..good.clone() }, 6, RefusalReason::FrameLimit),
        (Hello { frame_limit: 1 << 24, ..good.clone() }, 6, RefusalReason::FrameLimit),
        (Hello { flags: 1, ..good.clone() }, 7, RefusalReason::Sealing),
        (Hello { flags: 2, ..good.clone() }, 1, RefusalReason::Malformed),
    ];
    let number = cases.len() as u64;
    for (hello, code, reason) in cases {
        let mut raw = Raw::connect(server.local_addr());
        raw.write(&hello.frame());
        assert_eq!(raw.refused(), code);
        let error = watch.error("a refusal", |kind| matches!(kind, ErrorKind::Refused(_)));
        assert_eq!(error.kind, ErrorKind::Refused(reason.into()));
        assert_eq!(error.peer, Some(raw.local()));
    }
    // Without a schema of its own a peer is not asked for one.
    let (_none, _) = Raw::join_lan(server.local_addr(), &Hello { schema: 0, ..good.clone() });
    let (_good, _) = Raw::join_lan(server.local_addr(), &good);
    eventually("the refused are gone", || server.figures().failed == number && server.figures().embryos == 0);
    finish(server, &watch);
}

fn n4_no_greeting_is_gone_without_an_answer(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    // The deadline is far: what is wrong ends the connection by itself.
    let server = lan(driver).set(|settings| settings.greeting_timeout_ms = 60_000).start(recorder).unwrap();
    let wrong_magic = Hello { magic: *b"MDNH", ..Hello::default() }.frame();
    let long_name = {
        let mut frame = Hello::default().frame();
        frame[36] = 200;
        frame
    };
    let cases: [(&str, Vec<u8>); 8] = [
        ("an HTTP probe", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS hello", [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 500]].concat()),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("the wrong magic", wrong_magic),
        ("a message first", lan_frame(kind::MESSAGE, b"hello")),
        ("a ping first", lan_frame(kind::PING, &[0; 8])),
        ("a greeting of a megabyte", (1u32 << 20 | 1 << 24).to_le_bytes().to_vec()),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::connect(server.local_addr());
        let _ = std::io::Write::write_all(&mut raw.stream, &bytes);
        match raw.ended() {
            Ended::Eof(answer) => assert_eq!(answer, [], "{what} is answered nothing"),
            Ended::Reset => {}
        }
        watch.error(what, |kind| matches!(kind, ErrorKind::Malformed(_)));
    }
    // A greeting whose text overruns it is a greeting still: refused, in words.
    let mut raw = Raw::connect(server.local_addr());
    raw.write(&long_name);
    assert_eq!(raw.refused(), 1);
    drop(raw);
    eventually("all are gone", || server.figures().embryos == 0);
    assert_eq!(server.figures().joins, 0);
    finish(server, &watch);
}

fn b06_a_peer_that_never_greets_or_only_half_is_gone_by_the_deadline(driver: DriverChoice) {
    const DEADLINE: Duration = Duration::from_millis(400);
    let (recorder, watch) = Recorder::echo();
    let server = lan(driver).set(|settings| settings.greeting_timeout_ms = DEADLINE.as_millis() as u64);
    let server = server.start(recorder).unwrap();
    let frame = Hello::default().frame();
    let begun = Instant::now();
    // Nothing; and a greeting cut at every byte.
    let mut strangers: Vec<Raw> = (0..frame.len())
        .map(|cut| {
            let mut raw = Raw::connect(server.local_addr());
            raw.write(&frame[..cut]);
            raw
        })
        .collect();
    // One more sends a byte now and then: the deadline is for the whole greeting.
    let slow = Raw::connect(server.local_addr());
    thread::scope(|scope| {
        let mut slow = slow.stream.try_clone().unwrap();
        let frame = &frame;
        scope.spawn(move || {
            for byte in &frame[..frame.len() - 1] {
                if std::io::Write::write_all(&mut slow, &[*byte]).is_err() {
                    return;
                }
                thread::park_timeout(DEADLINE / 20);
            }
        });
        // Honest peers are served meanwhile.
        let (mut honest, _) = Raw::join_lan(server.local_addr(), &Hello::default());
        honest.lan(kind::MESSAGE, b"me");
        assert_eq!(honest.expect_message(), b"me");
        for raw in &mut strangers {
            assert!(raw.is_cut());
        }
    });
    assert!(begun.elapsed() >= DEADLINE);
    let number = strangers.len() as u64 + 1;
    eventually("all strangers are gone", || {
        server.figures().failed == number && server.figures().embryos == 0
    });
    watch.error("a deadline", |kind| *kind == ErrorKind::GreetingTimeout);
    assert_eq!(server.figures().errors, number, "each is told, and nothing else");
    finish(server, &watch);
}

fn l05_an_older_life_of_a_node_is_refused_and_a_newer_one_takes_its_place(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    // There is one place only: the newer life gets it although the older one holds it still.
    let server = lan(driver).workers(2).max_sessions(1).start(recorder).unwrap();
    let life = |incarnation| Hello { node: "game-1", incarnation, ..Hello::default() };
    let (mut second, _) = Raw::join_lan(server.local_addr(), &life(2));
    let second_id = watch.join();
    let mut first = Raw::connect(server.local_addr());
    first.write(&life(1).frame());
    assert_eq!(first.refused(), 8);
    watch.error("an old life", |kind| *kind == ErrorKind::Refused(RefusalReason::Incarnation.into()));

    let (mut third, _) = Raw::join_lan(server.local_addr(), &life(3));
    assert_eq!(watch.leave(second_id).reason, LeaveReason::Superseded);
    assert!(second.is_cut());
    watch.join();
    third.lan(kind::PING, &[1; 8]);
    assert_eq!(third.lan_next(), (kind::PONG, vec![1; 8]));
    finish(server, &watch);
}

fn b06_strangers_do_not_take_the_places_of_peers(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.embryos_max = 4;
        settings.greeting_timeout_ms = 1_500;
    });
    let server = server.start(recorder).unwrap();
    let (mut joined, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut strangers: Vec<Raw> = (0..4).map(|_| Raw::connect(server.local_addr())).collect();
    assert!(Raw::connect(server.local_addr()).is_cut(), "they have only just come, and stay");
    watch.error("no room", |kind| *kind == ErrorKind::ServerFull);
    joined.lan(kind::PING, &[2; 8]);
    assert_eq!(joined.lan_next(), (kind::PONG, vec![2; 8]));
    // Soon an honest peer finds room although all of it is taken: b08.
    std::thread::park_timeout(Duration::from_millis(600));
    Raw::join_lan(server.local_addr(), &Hello::default());
    assert_eq!((server.figures().evicted, server.figures().refused), (1, 1));
    for raw in &mut strangers {
        assert!(raw.is_cut());
    }
    eventually("nobody waits any more", || server.figures().embryos == 0);
    watch.error("a deadline", |kind| *kind == ErrorKind::GreetingTimeout);
    finish(server, &watch);
}

fn a_full_server_says_so_and_lets_in_whoever_comes_when_somebody_left(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).max_sessions(2).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let (_second, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut third = Raw::connect(server.local_addr());
    third.write(&Hello::default().frame());
    assert_eq!(third.refused(), 16);
    watch.error("the server is full", |kind| *kind == ErrorKind::ServerFull);
    drop(first);
    Raw::join_lan(server.local_addr(), &Hello::default());
    finish(server, &watch);

    let (recorder, watch) = Recorder::new();
    let server = crate::support::be32(driver).max_sessions(2).start(recorder).unwrap();
    let _two = [Raw::connect(server.local_addr()), Raw::connect(server.local_addr())];
    assert!(Raw::connect(server.local_addr()).is_cut());
    eventually("it is counted", || server.figures().refused == 1);
    finish(server, &watch);
}

fn frames_out_of_bounds_or_out_of_turn_end_the_link(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = lan(driver).set(|settings| settings.frame_limit_bytes = 1_000).start(recorder).unwrap();
    type Expected = fn(&FrameError) -> bool;
    let cases: [(&str, Vec<u8>, Expected); 9] = [
        ("a zero length", vec![0, 0, 0, 4], |error| *error == FrameError::Zero),
        ("over the limit", vec![0xe9, 3, 0, 4], |error| {
            *error == FrameError::TooLong { len: 1_001, limit: 1_000 }
        }),
        ("far over it", vec![0xff, 0xff, 0xff, 4], |error| matches!(error, FrameError::TooLong { .. })),
        ("an unknown kind", vec![1, 0, 0, 99], |error| *error == FrameError::UnknownKind(99)),
        ("kind zero", vec![1, 0, 0, 0], |error| *error == FrameError::UnknownKind(0)),
        ("a second greeting", Hello::default().frame(), |error| matches!(error, FrameError::OutOfTurn(_))),
        ("a welcome to the server", lan_frame(2, &[0; 16]), |error| {
            matches!(error, FrameError::OutOfTurn(_))
        }),
        ("a ping that is too long", lan_frame(5, &[0; 9]), |error| {
            matches!(error, FrameError::TooLong { .. })
        }),
        (
            "a message behind the goodbye",
            [lan_frame(7, &[0x31, 0, 0, 0, 0]), lan_frame(4, b"x")].concat(),
            |error| matches!(error, FrameError::OutOfTurn(_)),
        ),
    ];
    for (what, bytes, expected) in cases {
        let (mut raw, _) = Raw::join_lan(server.local_addr(), &Hello::default());
        let id = watch.join();
        raw.lan(kind::MESSAGE, &[1; 1_000]);
        assert_eq!(raw.expect_message(), [1; 1_000], "the longest message is fine");
        raw.write(&bytes);
        let reason = watch.leave(id).reason;
        assert!(matches!(reason, LeaveReason::Malformed(error) if expected(&error)), "{what}: {reason:?}");
        assert!(raw.is_cut());
        watch.error(what, |kind| matches!(kind, ErrorKind::Malformed(error) if expected(error)));
    }
    finish(server, &watch);
}

fn l02_a_silent_link_is_cut_and_one_that_pings_is_not(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.heartbeat_ms = 100;
        settings.dead_after_ms = 600;
    });
    let server = server.start(recorder).unwrap();
    let (mut silent, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let silent_id = watch.join();
    let (mut alive, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let alive_id = watch.join();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        alive.lan(kind::PING, &7u64.to_le_bytes());
        assert_eq!(alive.lan_next(), (kind::PONG, 7u64.to_le_bytes().to_vec()));
        thread::park_timeout(Duration::from_millis(100));
    }
    let leave = watch.leave(silent_id);
    assert_eq!(leave.reason, LeaveReason::Idle);
    assert!(
        leave.duration >= Duration::from_millis(600) && leave.duration < Duration::from_millis(1_400),
        "{leave:?}"
    );
    assert!(silent.is_cut());
    assert!(server.remote().is_live(alive_id));
    finish(server, &watch);
}

fn l02_a_side_that_says_nothing_pings_though_it_hears_much(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| settings.heartbeat_ms = 200).start(recorder).unwrap();
    let (mut raw, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let joined = Instant::now();
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = raw.stream.try_clone().unwrap();
        let over = &over;
        scope.spawn(move || {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                std::io::Write::write_all(&mut writer, &lan_frame(kind::MESSAGE, b"chatter")).unwrap();
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        // A peer that counts on the agreed heartbeat hears from us three times in so many beats.
        for _ in 0..3 {
            let header = raw.read(4);
            assert_eq!(header, [8, 0, 0, kind::PING]);
            raw.read(8);
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(joined.elapsed() < Duration::from_millis(5_000), "{:?}", joined.elapsed());
    finish(server, &watch);
}

fn a_goodbye_tells_its_receiver_why(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        let last = cx.packet(b"last");
        assert!(cx.send_and_disconnect(id, last, 1_234).is_queued());
    });
    let server = lan(driver).start(recorder).unwrap();
    let (mut raw, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let id = watch.join();
    raw.lan(kind::MESSAGE, b"end it");
    assert_eq!(raw.expect_message(), b"last");
    assert_eq!(
        raw.lan_next(),
        (kind::GOODBYE, [&[0x31][..], &1_234u32.to_le_bytes()].concat()),
        "content, and its code"
    );
    assert_eq!(raw.ended(), Ended::Eof(vec![]));
    drop(raw);
    watch.leave(id);

    let (mut raw, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let id = watch.join();
    raw.lan(kind::GOODBYE, &[0x44, 0, 0, 0, 0]);
    raw.half_close();
    let reason = watch.leave(id).reason;
    assert_eq!(reason, LeaveReason::PeerGoodbye(Goodbye { reason: GoodbyeReason::Stopping, code: 0 }));
    finish(server, &watch);
}

fn many_pings_make_no_queue(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).start(recorder).unwrap();
    let (mut raw, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let pings = lan_frame(kind::PING, &[9; 8]).repeat(1_000);
    raw.flood(&pings, 8 << 20);
    let queued = server.figures().queued_bytes;
    assert!(queued <= 64 * 12, "{queued} bytes of pongs");
    finish(server, &watch);
}
