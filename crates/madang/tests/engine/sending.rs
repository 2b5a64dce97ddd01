//! Sending: one packet to many, slow consumers, the pool's budget, the tick.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use madang::packet::{HEADROOM, Packet};
use madang::{Answer, Context, DriverChoice, ErrorKind, LeaveReason, SessionId};

use crate::support::{PATIENCE, Raw, Recorder, be32, be32_frame, eventually, finish, lan, pattern};

each_driver! {
    p3_one_packet_goes_to_all_without_a_copy_in_content,
    p3_a_packet_made_anywhere_can_be_sent_anywhere,
    p3_a_message_that_content_keeps_is_not_framed_under_its_hand,
    p3_small_and_large_packets_keep_their_order_in_one_stream,
    p2_a_packet_that_is_too_long_or_empty_is_not_sent,
    b01_over_the_hard_limit_a_consumer_is_slow_at_once,
    b01_over_the_count_of_messages_too,
    b01_over_the_soft_limit_a_consumer_is_slow_after_a_time,
    b03_a_broadcast_with_a_dead_receiver_reaches_the_others,
    b02_a_pool_without_budget_refuses_and_recovers,
    b13_what_is_queued_as_a_send_ends_leaves_too,
    p8_a_tick_gathers_what_is_sent_and_send_now_does_not_wait,
    p8_a_flood_does_not_put_the_tick_off,
}

fn p3_one_packet_goes_to_all_without_a_copy_in_content(driver: DriverChoice) {
    const PEERS: usize = 9;
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(3).set(|settings| {
        settings.frame_limit_bytes = 1 << 20;
        settings.queue_hard_bytes = 4 << 20;
    });
    let server = server.start(recorder).unwrap();
    let (mut peers, ids): (Vec<Raw>, Vec<SessionId>) =
        (0..PEERS).map(|_| (Raw::connect(server.local_addr()), watch.join())).unzip();
    let remote = server.remote();
    let before = server.figures().pool.in_use.blocks;
    for len in [200, 700_000] {
        let sends = server.figures().sends;
        let packet = remote.packet(&pattern(len, len as usize)).freeze();
        assert_eq!(remote.send_all(&packet), Answer::Queued);
        assert_eq!(remote.send_many(&ids[..4], &packet), Answer::Queued);
        if len == 700_000 {
            // Nobody has read it whole yet, so the packet waits in every queue: one block of its size, shared.
            eventually("it is on its way to all", || server.figures().sends >= sends + PEERS as u64);
            let pool = server.figures().pool;
            let large = pool.classes.iter().find(|class| class.content_bytes >= 700_000).unwrap();
            assert_eq!(large.in_use, 1, "{pool:?}");
        }
        drop(packet);
        assert_eq!(remote.send_all(&remote.packet(b"end").freeze()), Answer::Queued);
        for (number, peer) in peers.iter_mut().enumerate() {
            for _ in 0..if number < 4 { 2 } else { 1 } {
                assert!(peer.be32_next() == pattern(len, len as usize));
            }
            assert_eq!(peer.be32_next(), b"end", "and nothing more");
        }
    }
    eventually("all went back", || server.figures().pool.in_use.blocks == before);
    finish(server, &watch);
}

fn p3_a_packet_made_anywhere_can_be_sent_anywhere(driver: DriverChoice) {
    // Made under a server that is gone by then, on a thread of nobody's, sent through another server's two shards.
    let (recorder, watch) = Recorder::new();
    let other = lan(driver).start(recorder).unwrap();
    let mut foreign = other.remote().packet(b"made elsewhere");
    foreign.u8(b'!');
    let foreign = foreign.freeze();
    let stopped = other.stop().unwrap();
    assert_eq!(stopped.report().packets_out, 1, "it is content's, and counted");
    watch.check_ledger();

    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let mut peers = [Raw::connect(server.local_addr()), Raw::connect(server.local_addr())];
    for _ in 0..2 {
        let id = watch.join();
        assert_eq!(server.remote().send(id, foreign.clone()), Answer::Queued);
    }
    drop((foreign, stopped));
    for peer in &mut peers {
        assert_eq!(peer.be32_next(), b"made elsewhere!");
    }
    finish(server, &watch);
}

fn p3_a_message_that_content_keeps_is_not_framed_under_its_hand(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| settings.frame_limit_bytes = 1 << 20).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    let before = server.figures().pool.in_use.blocks;
    for len in [1, 64, 300, 5_000, 700_000] {
        let message = pattern(len as u64, len);
        let kept = remote.packet(&message).freeze();
        assert_eq!(remote.send(id, kept.clone()), Answer::Queued);
        assert!(peer.be32_next() == message);
        assert!(kept[..] == message, "of {len} bytes");
        // And the same packet once nobody keeps it.
        assert_eq!(remote.send(id, kept), Answer::Queued);
        assert!(peer.be32_next() == message, "of {len} bytes");
    }
    eventually("all went back", || server.figures().pool.in_use.blocks == before);
    finish(server, &watch);
}

fn p3_small_and_large_packets_keep_their_order_in_one_stream(driver: DriverChoice) {
    // Some around each size from which on packets are sent in another way; and more large ones than a send has pieces.
    let lengths = |round: u64| {
        let mixed = [1, 40, 2_047, 4_096, 4_097, 9, 70_000, 12, 2_048, 262_144, 61_440, 3_000, 5, 300_000, 2];
        let large = [2_200; 150];
        let lengths: &[usize] = if round % 4 == 3 { &large } else { &mixed };
        lengths.iter().map(|len| len + round as usize % 3).collect::<Vec<_>>()
    };
    let kept: &'static Mutex<Vec<Packet>> = Box::leak(Box::default());
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, message| {
        let round = u64::from(message.bytes()[0]);
        for (number, len) in lengths(round).into_iter().enumerate() {
            let bytes = pattern(len as u64, len);
            // Every fifth has a header of content's own where ours would be written.
            let own = if number % 5 == 0 { HEADROOM.min(len - 1) } else { 0 };
            let mut packet = cx.packet(&bytes[own..]);
            packet.prepend(&bytes[..own]).unwrap();
            let packet = packet.freeze();
            // Every third is content's as well, as a broadcast's is.
            if (number as u64 + round) % 3 == 0 {
                kept.lock().unwrap().push(packet.clone());
            }
            assert!(cx.send(id, packet).is_queued());
        }
    });
    let server = be32(driver).set(|settings| {
        settings.frame_limit_bytes = 1 << 20;
        settings.queue_hard_bytes = 64 << 20;
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    // All rounds are asked for at once, so sends wait behind sends and writes are short.
    peer.write(&(0..12u8).flat_map(|round| be32_frame(&[round])).collect::<Vec<u8>>());
    for round in 0..12 {
        for len in lengths(round) {
            assert!(peer.be32_next() == pattern(len as u64, len), "{len} bytes in round {round}");
        }
    }
    for packet in kept.lock().unwrap().drain(..) {
        assert!(
            packet[..] == pattern(packet.len() as u64, packet.len()),
            "{} bytes that were kept",
            packet.len()
        );
    }
    finish(server, &watch);
}

fn p2_a_packet_that_is_too_long_or_empty_is_not_sent(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        let empty = cx.packet(b"");
        assert_eq!(cx.send(id, empty), Answer::Empty);
        let long = cx.packet(&[1; 1_001]);
        assert_eq!(cx.send(id, long), Answer::TooLong);
        let mut grown = cx.packet(&[1; 999]);
        grown.u16(7);
        assert_eq!(cx.send(id, grown), Answer::TooLong, "a write past the limit is remembered");
        let long = cx.packet(&[1; 1_001]).freeze();
        assert_eq!(cx.send_all(&long), Answer::TooLong);
        assert_eq!(cx.send_many(&[id], &long), Answer::TooLong);
        assert_eq!(cx.send_and_disconnect(id, long, 1), Answer::TooLong);
        let fits = cx.packet(&[1; 1_000]);
        assert_eq!(cx.send(id, fits), Answer::Queued);
    });
    let server = be32(driver).set(|settings| settings.frame_limit_bytes = 1_000).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    assert_eq!(peer.be32_next(), [1; 1_000]);
    let remote = server.remote();
    assert_eq!(remote.send(id, remote.packet(b"")), Answer::Empty);
    assert_eq!(remote.send(id, remote.packet(&[1; 1_001])), Answer::TooLong);
    assert!(remote.send(id, remote.packet(b"well")).is_queued());
    assert_eq!(peer.be32_next(), b"well", "the session is none the worse");
    finish(server, &watch);

    // On a LAN the peer's own limit counts too.
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        let packet = cx.packet(&[1; 501]);
        assert_eq!(cx.send(id, packet), Answer::TooLong);
        let packet = cx.packet(&[1; 500]);
        assert_eq!(cx.send(id, packet), Answer::Queued);
    });
    let server = lan(driver).start(recorder).unwrap();
    let modest = crate::support::Hello { frame_limit: 500, ..Default::default() };
    let (mut peer, _) = Raw::join_lan(server.local_addr(), &modest);
    assert_eq!(peer.expect_message(), [1; 500]);
    finish(server, &watch);
}

/// Sends until an answer is not `Queued`, and tells it.
fn send_until_refused(cx: &mut Context<'_>, id: SessionId, bytes: usize) -> (usize, Answer) {
    for sent in 0.. {
        let packet = cx.packet(&vec![9; bytes]);
        match cx.send(id, packet) {
            Answer::Queued => {}
            other => return (sent, other),
        }
    }
    unreachable!("some limit is reached")
}

fn check_hard_limit(driver: DriverChoice, bytes: usize, expected: usize) {
    let (recorder, watch) = Recorder::new();
    let (tell, refused) = channel();
    let recorder = recorder.on_recv(move |cx, id, _| {
        tell.send(send_until_refused(cx, id, bytes)).unwrap();
        let packet = cx.packet(b"late");
        assert_eq!(cx.send(id, packet), Answer::Gone);
    });
    let server = be32(driver).set(|settings| {
        settings.queue_soft_bytes = 64 << 10;
        settings.queue_hard_bytes = 128 << 10;
        settings.queue_hard_messages = 100;
    });
    let server = server.start(recorder).unwrap();
    let mut slow = Raw::connect(server.local_addr());
    let id = watch.join();
    let mut brisk = Raw::connect(server.local_addr());
    let brisk_id = watch.join();
    slow.be32(b"too much, please");
    assert_eq!(refused.recv_timeout(PATIENCE).unwrap(), (expected, Answer::Full));
    let error = watch.error("a queue overflow", |kind| *kind == ErrorKind::QueueOverflow);
    assert_eq!(error.session, Some(id));
    let leave = watch.leave(id);
    assert_eq!((leave.reason, leave.messages_unsent), (LeaveReason::SlowConsumer, expected));
    assert!(slow.is_cut());
    let remote = server.remote();
    assert!(remote.send(brisk_id, remote.packet(b"unharmed")).is_queued());
    assert_eq!(brisk.be32_next(), b"unharmed");
    finish(server, &watch);
}

fn b01_over_the_hard_limit_a_consumer_is_slow_at_once(driver: DriverChoice) {
    check_hard_limit(driver, 16 << 10, 8);
}

fn b01_over_the_count_of_messages_too(driver: DriverChoice) {
    check_hard_limit(driver, 10, 100);
}

fn b01_over_the_soft_limit_a_consumer_is_slow_after_a_time(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.queue_soft_bytes = 64 << 10;
        settings.queue_soft_ms = 1_000;
        settings.queue_hard_bytes = 256 << 20;
        settings.send_buffer_bytes = 64 << 10;
    });
    let server = server.start(recorder).unwrap();
    let remote = server.remote();
    // One never reads; the other is over the limit for a moment, and then catches up.
    let _slow = Raw::connect(server.local_addr());
    let slow = watch.join();
    let mut late = Raw::connect(server.local_addr());
    let late_id = watch.join();
    let begun = Instant::now();
    let large = remote.packet(&[4; 16_000]).freeze();
    for _ in 0..800 {
        assert!(remote.send_many(&[slow, late_id], &large).is_queued());
    }
    for _ in 0..800 {
        assert_eq!(late.be32_next().len(), 16_000);
    }
    let leave = watch.leave(slow);
    assert_eq!(leave.reason, LeaveReason::SlowConsumer);
    assert!(leave.messages_unsent > 0);
    drop(large);
    assert!(begun.elapsed() >= Duration::from_millis(1_000));
    assert!(remote.is_live(late_id), "who catches up stays");
    finish(server, &watch);
}

fn b03_a_broadcast_with_a_dead_receiver_reaches_the_others(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(2).set(|settings| {
        settings.queue_soft_bytes = 128 << 10;
        settings.queue_hard_bytes = 128 << 10;
    });
    let server = server.start(recorder).unwrap();
    let dead = Raw::connect(server.local_addr());
    let dead_id = watch.join();
    let mut peers: Vec<Raw> = (0..5).map(|_| Raw::connect(server.local_addr())).collect();
    for _ in 0..5 {
        watch.join();
    }
    let remote = server.remote();
    let packet = remote.packet(&pattern(3, 10_000)).freeze();
    let mut rounds = 0;
    while remote.is_live(dead_id) {
        assert!(rounds < 5_000, "the dead receiver's queue is bounded");
        rounds += 1;
        assert_eq!(remote.send_all(&packet), Answer::Queued);
        for peer in &mut peers {
            assert!(peer.be32_next() == pattern(3, 10_000));
        }
    }
    assert_eq!(watch.leave(dead_id).reason, LeaveReason::SlowConsumer);
    drop((dead, packet));
    finish(server, &watch);
}

fn b02_a_pool_without_budget_refuses_and_recovers(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| {
        settings.pool_budget_bytes = 2 << 20;
        settings.queue_soft_bytes = 64 << 20;
        settings.queue_hard_bytes = 64 << 20;
    });
    let server = server.start(recorder).unwrap();
    let mut deaf = Raw::connect(server.local_addr());
    let deaf_id = watch.join();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    // Content hoards packets until there is no more.
    let mut hoard = Vec::new();
    loop {
        let packet = remote.packet(&[8; 10_000]);
        if packet.is_exhausted() {
            assert_eq!(remote.send(id, packet), Answer::PoolExhausted);
            break;
        }
        hoard.push(packet);
        assert!(hoard.len() < 1_000, "the budget is a bound");
    }
    assert!(server.figures().pool.capacity.bytes <= 2 << 20);
    assert!(server.figures().pool.refusals > 0);
    // The hoard can still be sent: what carries it is the engine's own.
    let number = hoard.len();
    for packet in hoard {
        assert!(remote.send(deaf_id, packet).is_queued());
    }
    for _ in 0..number {
        assert_eq!(deaf.be32_next(), [8; 10_000]);
    }
    eventually("memory is back", || !remote.packet(&[8; 10_000]).is_exhausted());
    peer.be32(&[1; 10_000]);
    assert_eq!(peer.be32_next(), [1; 10_000]);
    finish(server, &watch);
}

fn p8_a_tick_gathers_what_is_sent_and_send_now_does_not_wait(driver: DriverChoice) {
    const TICK: Duration = Duration::from_millis(300);
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).tick(TICK).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    assert!(remote.send(id, remote.packet(b"wait for a tick")).is_queued());
    peer.be32_next();
    // A tick has just been: the next one is most of a tick away.
    eventually("figures are published", || server.figures().sends == 1);
    let begun = Instant::now();
    for number in 0..20u8 {
        assert!(remote.send(id, remote.packet(&[number])).is_queued());
        std::thread::park_timeout(Duration::from_millis(2));
    }
    for number in 0..20u8 {
        assert_eq!(peer.be32_next(), [number]);
    }
    let took = begun.elapsed();
    assert!(took > TICK / 3, "they waited for the tick: {took:?}");
    eventually("figures are published", || server.figures().messages_out >= 21);
    assert_eq!(server.figures().sends, 2, "twenty messages of forty milliseconds left as one send");

    let begun = Instant::now();
    assert!(remote.send(id, remote.packet(b"first")).is_queued());
    assert!(remote.send_now(id, remote.packet(b"now")).is_queued());
    assert_eq!(peer.be32_next(), b"first", "order stands");
    assert_eq!(peer.be32_next(), b"now");
    assert!(begun.elapsed() < TICK * 2 / 3, "{:?}", begun.elapsed());
    finish(server, &watch);
}

fn p8_a_flood_does_not_put_the_tick_off(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let ids: &'static Mutex<Vec<SessionId>> = Box::leak(Box::default());
    let recorder = recorder.on_join(move |_, id| ids.lock().unwrap().push(id)).on_recv(move |cx, _, _| {
        // Content takes longer than the peers do, so there is always more to come.
        std::thread::park_timeout(Duration::from_micros(200));
        let Some(quiet) = ids.lock().unwrap().first().copied() else { return };
        let packet = cx.packet(b"tick");
        cx.send(quiet, packet).ignore();
    });
    let server = be32(driver).tick(Duration::from_millis(20)).set(|settings| {
        settings.turn_completions_max = 2;
        settings.recv_buffer_bytes = 4 << 10;
    });
    let server = server.start(recorder).unwrap();
    let address = server.local_addr();
    let mut quiet = Raw::connect(address);
    watch.join();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut loud = Raw::connect(address);
                let shout = be32_frame(&[1; 20]).repeat(50);
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    loud.flood(&shout, shout.len());
                }
                loud.reset();
            });
        }
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(quiet.be32_next(), b"tick");
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    });
    finish(server, &watch);
}

/// Another thread queues while the send before ends, at each moment of it: nothing is left behind without a send to carry it,
/// which a session that then falls silent would show.
fn b13_what_is_queued_as_a_send_ends_leaves_too(driver: DriverChoice) {
    const ROUNDS: u64 = 2_000;
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    for round in 0..ROUNDS {
        assert!(remote.send(id, remote.packet(&round.to_le_bytes())).is_queued());
        // From at once to a tenth of a millisecond later: somewhere there the shard wakes, and the send before ends.
        for _ in 0..round % 512 * 64 {
            std::hint::spin_loop();
        }
        assert!(remote.send(id, remote.packet(&(!round).to_le_bytes())).is_queued());
        // Silence: the next round begins when both are there.
        assert_eq!(peer.be32_next(), round.to_le_bytes());
        assert_eq!(peer.be32_next(), (!round).to_le_bytes(), "the second of round {round}");
    }
    let figures = server.figures();
    assert!(figures.queued_bytes == 0 && figures.sends > ROUNDS, "not all shared a send: {figures:?}");
    finish(server, &watch);
}
