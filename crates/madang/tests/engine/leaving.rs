//! How sessions end: at once or in good order, always with one leave, the right reason, and within its deadline.

use std::thread;
use std::time::{Duration, Instant};

use madang::{Answer, DriverChoice, LeaveReason, SessionId};

use crate::support::{
    Ended, PATIENCE, Raw, Recorder, be32, be32_frame, eventually, finish, lan, pattern, tells_resets,
};

each_driver! {
    s8_a_peer_that_never_reads_is_disconnected_at_once_with_the_code,
    s8_the_code_stands_whatever_the_peer_does_meanwhile,
    s07_many_threads_disconnect_once,
    s08_disconnect_is_legal_in_every_callback,
    s09_nothing_is_sent_in_on_leave_or_after,
    k03_the_tail_arrives_though_the_peers_input_is_unread,
    k03_the_tail_arrives_with_a_tick,
    s10_a_peer_that_never_reads_its_last_message_is_reset_at_the_deadline,
    s10_a_disconnect_hastens_a_graceful_leave_and_the_first_reason_stands,
    s11_an_abortive_close_is_a_reset,
    k04_a_peer_that_half_closes_still_gets_its_answers,
    k16_each_end_of_a_peer_has_its_reason,
    b06_a_silent_peer_is_cut_and_a_dribbler_too,
}

/// Content that queues far more than the kernels take for each session that joins.
fn flooding(messages: usize, bytes: usize) -> (Recorder, crate::support::Watch) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(move |cx, id| {
        for _ in 0..messages {
            let packet = cx.packet(&vec![5; bytes]);
            assert_eq!(cx.send(id, packet), Answer::Queued);
        }
    });
    (recorder, watch)
}

fn s8_a_peer_that_never_reads_is_disconnected_at_once_with_the_code(driver: DriverChoice) {
    let (recorder, watch) = flooding(400, 64 << 10);
    let server = lan(driver).workers(2).start(recorder).unwrap();
    let mut peers: Vec<Raw> = (0..4).map(|_| Raw::connect(server.local_addr())).collect();
    for peer in &mut peers {
        peer.write(&crate::support::Hello::default().frame());
    }
    let ids: Vec<SessionId> = peers.iter().map(|_| watch.join()).collect();
    let remote = server.remote();
    eventually("the kernels are full", || server.figures().sends > 0);
    for (code, id) in ids.into_iter().enumerate() {
        let asked = Instant::now();
        assert!(remote.disconnect(id, code as u32));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(remote.send(id, remote.packet(b"late")), Answer::Gone));
            }
        });
        let leave = watch.leave(id);
        assert_eq!(leave.reason, LeaveReason::Disconnected(code as u32));
        assert!(leave.messages_unsent > 0, "{leave:?}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    eventually("what was queued went back", || server.figures().queued_bytes == 0);
    finish(server, &watch);
}

fn s8_the_code_stands_whatever_the_peer_does_meanwhile(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).start(recorder).unwrap();
    let remote = server.remote();
    for round in 0..150 {
        let peer = Raw::connect(server.local_addr());
        let id = watch.join();
        let asked = thread::scope(|scope| {
            scope.spawn(move || if round % 2 == 0 { drop(peer) } else { peer.reset() });
            scope.spawn(|| remote.disconnect(id, 9)).join().unwrap()
        });
        let reason = watch.leave(id).reason;
        if asked {
            assert_eq!(reason, LeaveReason::Disconnected(9), "it was promised");
        } else {
            assert!(matches!(reason, LeaveReason::PeerClosed | LeaveReason::PeerReset), "{reason:?}");
        }
    }
    finish(server, &watch);
}

fn s07_many_threads_disconnect_once(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).start(recorder).unwrap();
    let remote = server.remote();
    for _ in 0..20 {
        let _peer = Raw::connect(server.local_addr());
        let id = watch.join();
        let won: Vec<u32> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|code| {
                    scope.spawn({
                        let remote = &remote;
                        move || remote.disconnect(id, code).then_some(code)
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1);
        assert_eq!(watch.leave(id).reason, LeaveReason::Disconnected(won[0]));
    }
    finish(server, &watch);
}

fn s08_disconnect_is_legal_in_every_callback(driver: DriverChoice) {
    for place in ["join", "recv", "sent", "event", "timer", "then"] {
        let (recorder, watch) = Recorder::new();
        let end = move |at: &str, cx: &mut madang::Context<'_>, id: SessionId| {
            if at == place {
                assert!(cx.disconnect(id, 4) && !cx.disconnect(id, 5), "the first decides");
                let packet = cx.packet(b"late");
                assert_eq!(cx.send(id, packet), Answer::Gone);
                assert_eq!(cx.timer(id, Duration::ZERO, 1), Answer::Gone);
                assert_eq!(cx.post(id, 1u64), Answer::Gone);
            }
        };
        let recorder = recorder
            .on_join(move |cx, id| {
                end("join", cx, id);
                cx.post(id, 1u64).ignore();
            })
            .on_event(move |cx, id, _| {
                end("event", cx, id);
                cx.timer(id, Duration::from_millis(1), 1).ignore();
            })
            .on_timer(move |cx, id, _| {
                end("timer", cx, id);
                cx.offload_unordered(
                    id,
                    || (),
                    move |cx, id, ()| {
                        end("then", cx, id);
                        let packet = cx.packet(b"now you");
                        cx.send(id, packet).ignore();
                    },
                )
                .ignore();
            })
            .on_sent(move |cx, id, _| end("sent", cx, id))
            .on_recv(move |cx, id, _| end("recv", cx, id))
            .on_leave(|cx, id, _| assert!(!cx.disconnect(id, 6) && !cx.is_live(id)));
        let server = be32(driver).start(recorder).unwrap();
        // The reset of a session that ends in its join may be there before the connect returns.
        let peer = Raw::try_connect(server.local_addr());
        let id = watch.join();
        if place == "recv" {
            let mut peer = peer.unwrap();
            assert_eq!(peer.be32_next(), b"now you");
            peer.be32(b"one");
            // The second message is not delivered: the first one's callback ended the session.
            let _ = std::io::Write::write_all(&mut peer.stream, &be32_frame(b"two"));
        }
        assert_eq!(watch.leave(id).reason, LeaveReason::Disconnected(4), "in {place}");
        let messages =
            watch.rest().iter().filter(|seen| matches!(seen, crate::support::Seen::Recv(..))).count();
        assert_eq!(messages, usize::from(place == "recv"));
        finish(server, &watch);
    }
}

fn s09_nothing_is_sent_in_on_leave_or_after(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_leave(|cx, id, _| {
        let packet = cx.packet(b"late");
        assert_eq!(cx.send(id, packet), Answer::Gone);
        let packet = cx.packet(b"late");
        assert_eq!(cx.send_and_disconnect(id, packet, 1), Answer::Gone);
        assert_eq!(cx.post(id, 1u64), Answer::Gone);
        assert_eq!(cx.timer(id, Duration::ZERO, 1), Answer::Gone);
        assert_eq!(cx.join_group(id, madang::GroupId(1)), Answer::Gone);
        assert_eq!(cx.offload(id, || (), |_, _, ()| ()), Answer::Gone);
    });
    let server = be32(driver).start(recorder).unwrap();
    drop(Raw::connect(server.local_addr()));
    watch.leave(watch.join());
    eventually("each was counted", || server.figures().gone == 6);
    finish(server, &watch);
}

/// Content that answers the first message by two megabytes, the last of them with the leave behind it.
fn answering_at_length() -> (Recorder, crate::support::Watch) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        for part in 0..32 {
            let packet = cx.packet(&pattern(part, 64 << 10));
            if part < 31 {
                assert!(cx.send(id, packet).is_queued());
            } else {
                assert!(cx.send_and_disconnect(id, packet, 8).is_queued());
            }
        }
    });
    (recorder, watch)
}

fn check_the_tail(driver: DriverChoice, tick: Duration) {
    let (recorder, watch) = answering_at_length();
    let server = be32(driver).tick(tick).set(|settings| {
        settings.frame_limit_bytes = 1 << 20;
        settings.queue_hard_bytes = 8 << 20;
        settings.leave_timeout_ms = PATIENCE.as_millis() as u64;
    });
    let server = server.start(recorder).unwrap();
    for flood_bytes in [0, 60_000, 3 << 20] {
        let mut peer = Raw::connect(server.local_addr());
        let id = watch.join();
        peer.be32(b"tell me all");
        // The peer says much that nobody reads, before it reads anything itself.
        let chatter: Vec<u8> = be32_frame(&[1; 1_000]).repeat(64);
        peer.flood(&chatter, flood_bytes);
        for part in 0..32 {
            assert!(
                peer.be32_next() == pattern(part, 64 << 10),
                "part {part} after a flood of {flood_bytes}"
            );
        }
        assert_eq!(peer.ended(), Ended::Eof(vec![]), "after a flood of {flood_bytes}");
        drop(peer);
        let leave = watch.leave(id);
        assert_eq!((leave.reason, leave.messages_unsent), (LeaveReason::Disconnected(8), 0));
    }
    finish(server, &watch);
}

fn k03_the_tail_arrives_though_the_peers_input_is_unread(driver: DriverChoice) {
    check_the_tail(driver, Duration::ZERO);
}

fn k03_the_tail_arrives_with_a_tick(driver: DriverChoice) {
    check_the_tail(driver, Duration::from_millis(20));
}

fn s10_a_peer_that_never_reads_its_last_message_is_reset_at_the_deadline(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.frame_limit_bytes = 1 << 20;
        settings.queue_hard_bytes = 64 << 20;
        settings.leave_timeout_ms = 300;
    });
    let server = server.start(recorder).unwrap();
    let remote = server.remote();
    // One does not read what is queued; the other reads all and never closes.
    let _deaf = Raw::connect(server.local_addr());
    let deaf = watch.join();
    let mut stubborn = Raw::connect(server.local_addr());
    let stubborn_id = watch.join();
    for _ in 0..32 {
        assert!(remote.send(deaf, remote.packet(&vec![1; 1 << 20])).is_queued());
    }
    let asked = Instant::now();
    for id in [deaf, stubborn_id] {
        assert!(remote.send_and_disconnect(id, remote.packet(b"bye"), 2).is_queued());
    }
    assert_eq!(stubborn.be32_next(), b"bye");
    for id in [deaf, stubborn_id] {
        let leave = watch.leave(id);
        assert_eq!(leave.reason, LeaveReason::Disconnected(2));
        assert_eq!(leave.messages_unsent > 0, id == deaf, "{leave:?}");
    }
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1_300), "{took:?}");
    finish(server, &watch);
}

fn s10_a_disconnect_hastens_a_graceful_leave_and_the_first_reason_stands(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        let packet = cx.packet(b"bye");
        assert!(cx.send_and_disconnect(id, packet, 1).is_queued());
        let packet = cx.packet(b"late");
        assert_eq!(cx.send(id, packet), Answer::Gone, "nothing goes behind the last message");
        assert!(!cx.disconnect(id, 2));
    });
    let server = be32(driver).set(|settings| settings.leave_timeout_ms = 400).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    peer.be32(b"end it");
    assert_eq!(peer.be32_next(), b"bye");
    assert_eq!(watch.leave(id).reason, LeaveReason::Disconnected(1));
    finish(server, &watch);
}

fn s11_an_abortive_close_is_a_reset(driver: DriverChoice) {
    for abortive in [false, true] {
        let (recorder, watch) = Recorder::new();
        let recorder = recorder.on_recv(|cx, id, _| {
            let packet = cx.packet(b"bye");
            cx.send_and_disconnect(id, packet, 1).ignore();
        });
        let server = be32(driver).set(|settings| settings.abortive_close = abortive).start(recorder).unwrap();
        let mut peer = Raw::connect(server.local_addr());
        let id = watch.join();
        peer.be32(b"end it");
        if abortive {
            watch.leave(id);
            // After the reset a write fails, whatever the reads made of it.
            eventually("the connection is reset", || std::io::Write::write(&mut peer.stream, b"x").is_err());
        } else {
            assert_eq!(peer.be32_next(), b"bye");
            assert_eq!(peer.ended(), Ended::Eof(vec![]));
            drop(peer);
            watch.leave(id);
        }
        finish(server, &watch);
    }
}

fn k04_a_peer_that_half_closes_still_gets_its_answers(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| settings.leave_timeout_ms = PATIENCE.as_millis() as u64);
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let messages: Vec<Vec<u8>> = (0..300).map(|number| pattern(number, 1_000)).collect();
    peer.write(&messages.iter().flat_map(|message| be32_frame(message)).collect::<Vec<u8>>());
    peer.half_close();
    for message in &messages {
        assert!(peer.be32_next() == *message);
    }
    assert_eq!(peer.ended(), Ended::Eof(vec![]));
    assert_eq!(watch.leave(id).reason, LeaveReason::PeerClosed);
    finish(server, &watch);
}

fn k16_each_end_of_a_peer_has_its_reason(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    let check = |end: &dyn Fn(Raw), expected: &[LeaveReason]| {
        let mut peer = Raw::connect(server.local_addr());
        let id = watch.join();
        peer.be32(b"hello");
        assert_eq!(peer.be32_next(), b"hello");
        end(peer);
        let reason = watch.leave(id).reason;
        assert!(expected.contains(&reason), "{reason:?}");
    };
    let of_a_reset: &[LeaveReason] = if tells_resets() {
        &[LeaveReason::PeerReset]
    } else {
        &[LeaveReason::PeerReset, LeaveReason::PeerClosed]
    };
    check(&drop, &[LeaveReason::PeerClosed]);
    check(&Raw::reset, of_a_reset);
    check(&|peer| peer.half_close(), &[LeaveReason::PeerClosed]);
    // In the middle of a header and of a payload: an end is an end.
    for cut in 1..8 {
        check(
            &|mut peer| {
                peer.write(&be32_frame(b"mute")[..cut]);
                peer.reset();
            },
            of_a_reset,
        );
    }
    finish(server, &watch);
}

fn b06_a_silent_peer_is_cut_and_a_dribbler_too(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.idle_timeout_ms = 400;
        settings.partial_timeout_ms = 300;
    });
    let server = server.start(recorder).unwrap();
    let since = Instant::now();
    let mut silent = Raw::connect(server.local_addr());
    let silent_id = watch.join();
    let dribbler = Raw::connect(server.local_addr());
    let dribbler_id = watch.join();
    let reason = thread::scope(|scope| {
        let mut stream = dribbler.stream.try_clone().unwrap();
        // A byte now and then: never idle, never done.
        scope.spawn(move || {
            for byte in be32_frame(&[3; 5_000]) {
                if std::io::Write::write_all(&mut stream, &[byte]).is_err() {
                    return;
                }
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        watch.leave(dribbler_id).reason
    });
    assert_eq!(reason, LeaveReason::Dribble);
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(watch.leave(silent_id).reason, LeaveReason::Idle);
    assert!(since.elapsed() >= Duration::from_millis(400));
    assert!(silent.is_cut());
    finish(server, &watch);
}
