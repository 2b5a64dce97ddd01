//! Sessions: their names, their order, and how they begin.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use madang::{Answer, DriverChoice, SessionId};

use crate::support::{Hello, PATIENCE, Raw, Recorder, be32, be32_frame, eventually, finish, lan, pattern};

each_driver! {
    s05_a_stale_or_invented_id_is_gone_and_harms_nobody,
    s03_nothing_is_delivered_before_on_join_returned,
    s03_what_lies_behind_a_greeting_waits_for_on_join,
    s04_many_messages_in_one_read_and_one_message_in_many_reads_come_whole_and_in_order,
    s17_callbacks_of_a_session_are_never_concurrent_and_end_with_its_leave,
    k11_peers_that_die_before_accept_cost_nothing,
    s10_a_client_that_reconnects_at_once_gets_in_though_its_old_session_still_leaves,
    s15_events_come_in_the_order_in_which_a_thread_posted_them,
    s15_a_full_mailbox_says_so_and_a_disconnect_needs_no_room_in_it,
}

fn s05_a_stale_or_invented_id_is_gone_and_harms_nobody(driver: DriverChoice) {
    static STALE: Mutex<Option<SessionId>> = Mutex::new(None);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| {
        // The same requests from inside a callback.
        if let Some(stale) = *STALE.lock().unwrap() {
            let packet = cx.packet(b"for nobody");
            assert_eq!(cx.send(stale, packet), Answer::Gone);
            assert_eq!(cx.timer(stale, Duration::ZERO, 1), Answer::Gone);
            assert_eq!(cx.offload(stale, || (), |_, _, ()| unreachable!("nobody is there")), Answer::Gone);
            assert!(!cx.cancel_timer(stale, 1) && !cx.disconnect(stale, 1) && !cx.is_live(stale));
        }
        crate::support::echo(cx, id, message);
    });
    let server = be32(driver).max_sessions(4).start(recorder).unwrap();
    let remote = server.remote();

    let _first = Raw::connect(server.local_addr());
    let stale = watch.join();
    assert!(remote.is_live(stale) && remote.disconnect(stale, 1));
    watch.leave(stale);
    let mut second = Raw::connect(server.local_addr());
    let id = watch.join();
    assert_eq!(id.slot(), stale.slot(), "the slot is used again");
    *STALE.lock().unwrap() = Some(stale);

    let slot_bits = (id.slot() as u64) << 40;
    let invented = [1, u64::MAX, slot_bits | 1, slot_bits | ((1 << 40) - 1), (9_999 << 40) | 7];
    let invented = invented.map(|number| SessionId::from_u64(number).expect("a number with a serial"));
    for nobody in [stale].into_iter().chain(invented.into_iter().filter(|other| *other != id)) {
        assert_eq!(remote.send(nobody, remote.packet(b"for nobody")), Answer::Gone, "{nobody}");
        assert_eq!(remote.send_and_disconnect(nobody, remote.packet(b"for nobody"), 1), Answer::Gone);
        assert_eq!(remote.post(nobody, 1u64), Answer::Gone);
        assert_eq!(remote.join_group(nobody, madang::GroupId(1)), Answer::Gone);
        assert!(!remote.disconnect(nobody, 1) && !remote.is_live(nobody));
        remote.send_many(&[nobody], &remote.packet(b"for nobody").freeze()).ignore();
    }
    for round in 0..10u8 {
        second.be32(&[round]);
        assert_eq!(second.be32_next(), [round], "nothing meant for others reaches it");
    }
    assert!(server.figures().gone >= 15, "{:?}", server.figures());
    *STALE.lock().unwrap() = None;
    finish(server, &watch);
    assert_eq!(remote.send(id, remote.packet(b"too late")), Answer::Gone, "also when the server has stopped");
}

fn s03_nothing_is_delivered_before_on_join_returned(driver: DriverChoice) {
    let (go, wait) = channel();
    let wait = Mutex::new(wait);
    let joined = AtomicBool::new(false);
    let joined: &'static AtomicBool = Box::leak(Box::new(joined));
    let (recorder, watch) = Recorder::new();
    let recorder = recorder
        .on_join(move |cx, id| {
            assert!(cx.send(id, cx.packet(b"the server speaks first")).is_queued());
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            joined.store(true, Ordering::SeqCst);
        })
        .on_recv(move |cx, id, message| {
            assert!(joined.load(Ordering::SeqCst), "delivered before on_join returned");
            crate::support::echo(cx, id, message);
        });
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    for early in [b"a", b"b", b"c"] {
        peer.be32(early);
    }
    go.send(()).unwrap();
    assert_eq!(peer.be32_next(), b"the server speaks first");
    for early in [b"a", b"b", b"c"] {
        assert_eq!(peer.be32_next(), early);
        assert_eq!(watch.recv(id), early);
    }
    finish(server, &watch);
}

fn s03_what_lies_behind_a_greeting_waits_for_on_join(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let recorder = recorder.on_join(|cx, id| assert!(cx.send(id, cx.packet(b"first")).is_queued()));
    let server = lan(driver).workers(2).start(recorder).unwrap();
    for early in [1, 1_000, 60_000, 300_000] {
        let mut peer = Raw::connect(server.local_addr());
        let message = pattern(early as u64, early);
        let bytes = [Hello::default().frame(), crate::support::lan_frame(4, &message)].concat();
        // One thread writes while the other reads: what is beyond the bound stays in the kernel until the join.
        thread::scope(|scope| {
            let mut writer = peer.stream.try_clone().unwrap();
            scope.spawn(move || std::io::Write::write_all(&mut writer, &bytes).unwrap());
            let welcome = peer.welcomed();
            assert_eq!(peer.expect_message(), b"first", "what on_join sends is ahead of all");
            assert_eq!(peer.expect_message(), message);
            let id = watch.join();
            assert_eq!(id.to_u64(), welcome);
            watch.recv(id);
        });
    }
    finish(server, &watch);
}

fn s04_many_messages_in_one_read_and_one_message_in_many_reads_come_whole_and_in_order(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| settings.frame_limit_bytes = 1 << 20);
    let server = server.set(|settings| settings.queue_hard_bytes = 8 << 20).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let messages: Vec<Vec<u8>> = [1, 2, 3, 4_000, 4_096, 4_097, 65_531, 65_536, 200_000, 1 << 20, 5]
        .map(|len| pattern(len as u64, len))
        .into();
    let stream: Vec<u8> = messages.iter().flat_map(|message| be32_frame(message)).collect();
    // In one piece; in single bytes while they are small, then in odd pieces.
    for cut in [usize::MAX, 1, 7, 4_095, 65_537] {
        let stream = if cut < 4_000 { &stream[..30_000] } else { &stream[..] };
        let whole = messages.iter().scan(0, |end, message| {
            *end += 4 + message.len();
            Some((*end, message))
        });
        let expected: Vec<&Vec<u8>> =
            whole.take_while(|(end, _)| *end <= stream.len()).map(|(_, message)| message).collect();
        let whole_bytes: usize = expected.iter().map(|message| 4 + message.len()).sum();
        thread::scope(|scope| {
            let mut writer = peer.stream.try_clone().unwrap();
            scope.spawn(move || {
                for piece in stream[..whole_bytes].chunks(cut.min(stream.len())) {
                    std::io::Write::write_all(&mut writer, piece).unwrap();
                }
            });
            for message in expected {
                assert!(peer.be32_next() == *message, "{} bytes cut by {cut}", message.len());
                assert!(watch.recv(id) == *message);
            }
        });
    }
    finish(server, &watch);
}

fn s17_callbacks_of_a_session_are_never_concurrent_and_end_with_its_leave(driver: DriverChoice) {
    const PEERS: usize = 24;
    let (recorder, watch) = Recorder::new();
    let inside: &'static [AtomicUsize] = Box::leak((0..1 << 12).map(|_| AtomicUsize::new(0)).collect());
    let recorder = recorder.on_recv(move |cx, id, message| {
        assert_eq!(
            inside[id.slot()].fetch_add(1, Ordering::SeqCst),
            0,
            "two callbacks of one session at once"
        );
        crate::support::echo(cx, id, message);
        inside[id.slot()].fetch_sub(1, Ordering::SeqCst);
    });
    let server = be32(driver).workers(3).max_sessions(PEERS).start(recorder).unwrap();
    assert!(server.remote().slots() <= inside.len(), "content can index arrays by slot");
    let address = server.local_addr();
    thread::scope(|scope| {
        for peer in 0..PEERS as u32 {
            scope.spawn(move || {
                let mut raw = Raw::connect(address);
                for round in 0..50u32 {
                    let burst: Vec<u8> = (0..10u32)
                        .flat_map(|step| be32_frame(&(peer << 16 | round << 4 | step).to_le_bytes()))
                        .collect();
                    raw.write(&burst);
                    for step in 0..10u32 {
                        assert_eq!(raw.be32_next(), (peer << 16 | round << 4 | step).to_le_bytes());
                    }
                }
                // A third ends in order, a third by a reset, a third stays until the stop.
                match peer % 3 {
                    0 => drop(raw),
                    1 => raw.reset(),
                    _ => std::mem::forget(raw),
                }
            });
        }
    });
    eventually("two thirds leave", || server.figures().left() == PEERS as u64 * 2 / 3);
    // A peer has its last echo before the server has taken the end of that send.
    let echoed = 500 * PEERS as u64;
    eventually("all echoes are counted", || {
        let figures = server.figures();
        (figures.messages_in, figures.messages_out) == (echoed, echoed)
    });
    finish(server, &watch);
}

fn k11_peers_that_die_before_accept_cost_nothing(driver: DriverChoice) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let (recorder, watch) = Recorder::echo();
    // The first peer holds the gate's shard up, so that all others are dead before they are accepted.
    let recorder = recorder
        .on_request(move |_| {
            let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            madang::Admission::Accept
        })
        .on_join(|cx, id| cx.send(id, cx.packet(&[7; 5_000])).ignore());
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let address = server.local_addr();
    let holder = Raw::connect(address);
    watch.find("the gate is held", |seen| matches!(seen, crate::support::Seen::Request).then_some(()));
    for round in 0..60u8 {
        let mut peer = Raw::connect(address);
        match round % 3 {
            0 => drop(peer),
            1 => peer.reset(),
            _ => {
                peer.be32(b"last words");
                peer.reset();
            }
        }
    }
    drop(go);
    let mut honest = Raw::connect(address);
    assert_eq!(honest.be32_next(), [7; 5_000]);
    honest.be32(b"still served?");
    assert_eq!(honest.be32_next(), b"still served?");
    drop(holder);
    eventually("the dead are gone", || {
        server.figures().sessions == 1 && server.figures().sessions_leaving == 0
    });
    let figures = server.figures();
    // A driver may notice already at accept that nobody is there any more.
    assert!((2..=62).contains(&figures.accepted), "{figures:?}");
    assert_eq!(figures.joins, figures.left() + 1, "{figures:?}");
    assert!(figures.errors <= 62, "at most an error for each: {figures:?}");
    finish(server, &watch);
}

fn s10_a_client_that_reconnects_at_once_gets_in_though_its_old_session_still_leaves(driver: DriverChoice) {
    const PLAYERS: usize = 8;
    for greets in [false, true] {
        let (recorder, watch) = Recorder::echo();
        let builder = if greets { lan(driver) } else { be32(driver) };
        let server = builder.workers(2).max_sessions(PLAYERS).start(recorder).unwrap();
        let address = server.local_addr();
        thread::scope(|scope| {
            for player in 0..PLAYERS {
                scope.spawn(move || {
                    for round in 0..40 {
                        // Every player is in, then goes and comes back at once: there is never a free place but his own.
                        let echo = [player as u8, round];
                        if greets {
                            let (mut raw, _) = Raw::join_lan(address, &Hello::default());
                            raw.lan(4, &echo);
                            assert_eq!(raw.expect_message(), echo);
                        } else {
                            let mut raw = Raw::connect(address);
                            raw.be32(&echo);
                            assert_eq!(raw.be32_next(), echo);
                        }
                    }
                });
            }
        });
        let figures = server.figures();
        assert_eq!((figures.refused, figures.failed), (0, 0), "{figures:?}");
        finish(server, &watch);
    }
}

fn s15_events_come_in_the_order_in_which_a_thread_posted_them(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_event(|cx, id, number| {
        // An event posts the next one to its own session: delivered later, never from inside this callback.
        if number == 999 {
            assert!(cx.post(id, 1_000u64).is_queued());
            assert!(cx.send(id, cx.packet(b"all events came")).is_queued());
        }
    });
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    for number in 0..1_000u64 {
        assert_eq!(remote.post(id, number), Answer::Queued);
    }
    assert_eq!(peer.be32_next(), b"all events came");
    for number in 0..=1_000 {
        assert_eq!(watch.event(id), number);
    }
    assert!(remote.disconnect(id, 5));
    assert_eq!(remote.post(id, 1u64), Answer::Gone);
    watch.leave(id);
    finish(server, &watch);
}

fn s15_a_full_mailbox_says_so_and_a_disconnect_needs_no_room_in_it(driver: DriverChoice) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |_, _, _| {
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
    });
    let server = be32(driver).set(|settings| settings.mailbox_messages_max = 16).start(recorder).unwrap();
    let mut busy = Raw::connect(server.local_addr());
    let busy_id = watch.join();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    busy.be32(b"hold the shard up");
    watch.recv(busy_id);
    let remote = server.remote();
    let answers: Vec<Answer> = (0..20u64).map(|number| remote.post(id, number)).collect();
    assert_eq!(answers[..16], [Answer::Queued; 16]);
    assert_eq!(answers[16..], [Answer::Full; 4]);
    assert_eq!(remote.send(id, remote.packet(b"no room")), Answer::Full);
    assert_eq!(remote.send_all(&remote.packet(b"no room").freeze()), Answer::Full);
    assert!(remote.disconnect(busy_id, 3), "a disconnect always has room");
    assert_eq!(remote.send(busy_id, remote.packet(b"late")), Answer::Gone);
    drop(go);
    assert_eq!(watch.leave(busy_id).reason, madang::LeaveReason::Disconnected(3));
    assert!(busy.is_cut());
    for number in 0..16 {
        assert_eq!(watch.event(id), number, "what was queued is delivered, and nothing else");
    }
    assert!(server.figures().full >= 6);
    watch.error("the mailbox was full", |kind| *kind == madang::ErrorKind::MailboxFull);
    assert!(remote.send(id, remote.packet(b"room again")).is_queued());
    assert_eq!(peer.be32_next(), b"room again");
    finish(server, &watch);
}
