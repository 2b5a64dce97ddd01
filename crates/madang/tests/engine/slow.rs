//! The policy for slow consumers: what is replaced, what is dropped, who is told, and who leaves.

use std::sync::mpsc::{TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use madang::{Answer, Context, DriverChoice, GroupId, LeaveReason, SessionId, SlowConsumers};

use crate::support::{PATIENCE, Raw, Recorder, be32, be32_frame, eventually, finish};

each_driver! {
    p7_of_a_key_only_the_latest_is_sent_and_order_is_kept,
    p7_a_key_is_one_sessions_own_in_a_broadcast,
    p7_above_the_soft_limit_droppable_messages_go_oldest_first,
    p7_a_peer_that_reads_late_gets_the_latest_of_each_key,
    p7_a_sender_that_can_be_told_is_told,
    p7_a_throttled_session_that_never_reads_leaves,
    b01_never_reading_clients_leave_in_time_and_the_honest_do_not_notice,
    b03_a_hundredth_of_the_crowd_is_dead_and_costs_no_more_than_its_own_queues,
    b10_a_full_queue_to_the_game_thread_pauses_its_sessions_and_serves_them_in_turn,
}

/// A message of `len` bytes that says who it is.
fn message(cx: &Context<'_>, name: u8, len: usize) -> madang::packet::PacketMut {
    cx.packet(&vec![name; len])
}

fn p7_of_a_key_only_the_latest_is_sent_and_order_is_kept(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        for (name, key, answer) in [
            (b'a', Some(7), Answer::Queued),
            (b'b', None, Answer::Queued),
            (b'c', Some(u32::MAX), Answer::Queued),
            (b'd', Some(7), Answer::Replaced),
            (b'e', None, Answer::Queued),
            (b'f', Some(u32::MAX), Answer::Replaced),
            (b'g', Some(0), Answer::Queued),
        ] {
            let packet = message(cx, name, usize::from(name - b'`'));
            let given = match key {
                Some(key) => cx.send_latest(id, key, packet),
                None => cx.send(id, packet),
            };
            assert_eq!(given, answer, "{}", char::from(name));
        }
    });
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    for _ in 0..3 {
        peer.be32(b"go");
        for name in b"dbfeg" {
            assert_eq!(peer.be32_next(), vec![*name; usize::from(name - b'`')]);
        }
    }
    eventually("it is counted", || server.figures().replaced == 6);
    finish(server, &watch);
}

fn p7_a_key_is_one_sessions_own_in_a_broadcast(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let room = GroupId(3);
    let recorder = recorder.on_join(move |cx, id| {
        let first = message(cx, b'1', 10).freeze();
        assert!(cx.send_latest(id, 1, first.clone()).is_queued());
        assert!(cx.join_group(id, room).is_queued());
        // The others' queues are empty or hold their own.
        for name in [b'2', b'3'] {
            let packet = message(cx, name, 10).freeze();
            assert_eq!(cx.send_group_latest(room, 1, &packet), Answer::Queued);
            assert_eq!(cx.send_many_latest(&[id], 2, &packet), Answer::Queued);
        }
    });
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let mut first = Raw::connect(server.local_addr());
    let one = watch.join();
    assert_eq!([first.be32_next(), first.be32_next()], [[b'3'; 10], [b'3'; 10]]);
    let mut second = Raw::connect(server.local_addr());
    watch.join();
    assert_eq!([second.be32_next(), second.be32_next()], [[b'3'; 10], [b'3'; 10]]);
    // From another thread, to all; each peer gets the last of it.
    let remote = server.remote();
    for number in 0..=50u8 {
        let packet = remote.packet(&[number]).freeze();
        assert!(remote.send_all_latest(9, &packet).is_queued());
        assert!(remote.send_latest(one, 10, packet).is_queued());
    }
    for peer in [&mut first, &mut second] {
        while peer.be32_next() != [50] {}
    }
    finish(server, &watch);
}

fn p7_above_the_soft_limit_droppable_messages_go_oldest_first(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        for key in 0..20u8 {
            let packet = message(cx, key, 100);
            assert_eq!(cx.send_latest(id, key.into(), packet), Answer::Queued, "{key} drops an older one");
        }
        // Ten fit; a message that must arrive makes room for itself.
        let packet = message(cx, b'm', 250);
        assert_eq!(cx.send(id, packet), Answer::Queued);
        // With 700 bytes that must arrive beside it nothing droppable is left, and none is taken.
        let packet = message(cx, b'n', 700);
        assert_eq!(cx.send(id, packet), Answer::Queued);
        let packet = message(cx, b'x', 100);
        assert_eq!(cx.send_latest(id, 99, packet), Answer::Dropped);
    });
    let policy = SlowConsumers::drop_marked().soft(1_000, Duration::from_secs(60)).hard(20_000, 100);
    let server = be32(driver).set(|settings| settings.frame_limit_bytes = 1_000).slow_consumers(policy);
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    peer.be32(b"go");
    assert_eq!(peer.be32_next(), [b'm'; 250]);
    assert_eq!(peer.be32_next(), [b'n'; 700]);
    eventually("it is counted", || server.figures().dropped == 21);
    peer.be32(b"again");
    assert_eq!(peer.be32_next(), [b'm'; 250], "the session is none the worse");
    finish(server, &watch);
}

fn p7_a_peer_that_reads_late_gets_the_latest_of_each_key(driver: DriverChoice) {
    const KEYS: u32 = 4;
    const LAST: u32 = 3_000;
    let policy = SlowConsumers::drop_marked().soft(64 << 10, Duration::from_millis(300)).hard(1 << 20, 100);
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).slow_consumers(policy).set(|settings| settings.send_buffer_bytes = 64 << 10);
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    for number in 0..=LAST {
        let mut packet = remote.packet(&number.to_le_bytes());
        packet.bytes(&[5; 8_000]);
        let packet = packet.freeze();
        for key in 0..KEYS {
            // The shard may be behind: its mailbox says so, and nothing is lost.
            eventually("there is room", || remote.send_latest(id, key, packet.clone()).is_queued());
        }
    }
    eventually("newer ones replaced older ones", || server.figures().replaced > 1_000);
    let figures = server.figures();
    assert!(figures.queued_bytes <= 64 << 10, "{figures:?}");
    assert_eq!(figures.left(), 0, "it never reads and stays: nothing but the latest waits for it");
    let mut latest = 0;
    while latest < KEYS {
        let number = u32::from_le_bytes(*peer.be32_next().first_chunk().unwrap());
        latest += u32::from(number == LAST);
    }
    finish(server, &watch);
}

fn p7_a_sender_that_can_be_told_is_told(driver: DriverChoice) {
    let (tell, told) = channel();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, _| {
        let mut sent = 0;
        let answer = loop {
            let packet = message(cx, b't', 1_000);
            match cx.send(id, packet) {
                Answer::Queued => sent += 1,
                other => break other,
            }
        };
        // Who is not told per session queues on; so does the last word.
        let all = message(cx, b'a', 1_000).freeze();
        assert_eq!(cx.send_all(&all), Answer::Queued);
        tell.send((sent, answer)).unwrap();
    });
    let policy = SlowConsumers::throttle().soft(10_000, Duration::from_secs(60)).hard(100_000, 1_000);
    let server = be32(driver).slow_consumers(policy).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    for round in 0..3 {
        peer.be32(b"go");
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (11, Answer::Throttled), "round {round}");
        for _ in 0..11 {
            assert_eq!(peer.be32_next(), [b't'; 1_000]);
        }
        assert_eq!(peer.be32_next(), [b'a'; 1_000]);
    }
    eventually("it is counted", || server.figures().sends_throttled == 3);
    finish(server, &watch);
}

fn p7_a_throttled_session_that_never_reads_leaves(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let fill = |cx: &mut Context<'_>, id: SessionId| {
        for _ in 0..1_000 {
            let packet = message(cx, b't', 10_000);
            if !cx.send(id, packet).is_queued() {
                break;
            }
        }
        cx.timer(id, Duration::from_millis(5), 1).ignore();
    };
    let recorder = recorder.on_recv(move |cx, id, _| fill(cx, id)).on_timer(move |cx, id, _| fill(cx, id));
    let policy = SlowConsumers::throttle().soft(100_000, Duration::from_millis(300)).hard(1 << 20, 1_000);
    let server = be32(driver).slow_consumers(policy).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    peer.be32(b"go");
    assert_eq!(watch.leave(id).reason, LeaveReason::SlowConsumer);
    assert!(server.figures().sends_throttled > 0);
    finish(server, &watch);
}

fn b01_never_reading_clients_leave_in_time_and_the_honest_do_not_notice(driver: DriverChoice) {
    let half: usize =
        std::env::var("MADANG_CROWD").map_or(40, |crowd| crowd.parse().expect("a number of clients"));
    check_crowd(driver, half, half);
}

fn b03_a_hundredth_of_the_crowd_is_dead_and_costs_no_more_than_its_own_queues(driver: DriverChoice) {
    check_crowd(driver, 198, 2);
}

/// Some clients read a broadcast of 20 a second, the others never read.
fn check_crowd(driver: DriverChoice, honest: usize, dead: usize) {
    const LEN: usize = 12 << 10;
    const HARD: usize = 1 << 20;
    let policy = SlowConsumers::kick().soft(64 << 10, Duration::from_millis(500)).hard(HARD, 1_024);
    let server = be32(driver).workers(2).slow_consumers(policy).set(|settings| {
        settings.max_sessions = 2_000;
        settings.send_buffer_bytes = 64 << 10;
    });
    let server = server.start(Recorder::silent()).unwrap();
    let (address, remote) = (server.local_addr(), server.remote());
    // A thread for some clients each: a broadcast comes to all of them within a moment.
    let crowd: Vec<Vec<Raw>> = (0..honest.div_ceil(50))
        .map(|group| (group * 50..honest.min(group * 50 + 50)).map(|_| Raw::connect(address)).collect())
        .collect();
    let silent: Vec<Raw> = (0..dead).map(|_| Raw::connect(address)).collect();
    eventually("all are here", || remote.figures().sessions == (honest + dead) as u64);
    let baseline = remote.figures().pool.in_use.bytes;
    let (mut sent, mut held_most) = (0u32, 0);
    let began = Instant::now();
    thread::scope(|scope| {
        let readers: Vec<_> = crowd
            .into_iter()
            .map(|mut group| {
                scope.spawn(move || {
                    let (mut number, mut slowest) = (0u32, Duration::ZERO);
                    loop {
                        let since = Instant::now();
                        for peer in &mut group {
                            let message = peer.be32_next();
                            let got = u32::from_le_bytes(*message.first_chunk().unwrap());
                            if got == u32::MAX {
                                return (number, slowest, group);
                            }
                            assert_eq!(
                                (got, message.len()),
                                (number, LEN),
                                "each broadcast, once and in order"
                            );
                        }
                        slowest = slowest.max(since.elapsed());
                        number += 1;
                    }
                })
            })
            .collect();
        let slow = |figures: &madang::Figures| figures.leaves[usize::from(LeaveReason::SlowConsumer.code())];
        while slow(&remote.figures()) < dead as u64 {
            assert!(began.elapsed() < PATIENCE, "they do not leave: {:?}", remote.figures());
            let mut packet = remote.packet(&sent.to_le_bytes());
            packet.bytes(&[3; LEN - 4]);
            assert_eq!(remote.send_all(&packet.freeze()), Answer::Queued);
            sent += 1;
            held_most = held_most.max(remote.figures().pool.in_use.bytes);
            thread::park_timeout(Duration::from_millis(50));
        }
        assert_eq!(remote.send_all(&remote.packet(&u32::MAX.to_le_bytes()).freeze()), Answer::Queued);
        let mut slowest = Duration::ZERO;
        let stayed: Vec<Raw> = readers
            .into_iter()
            .flat_map(|reader| {
                let (number, gap, group) = reader.join().unwrap();
                assert_eq!(number, sent);
                slowest = slowest.max(gap);
                group
            })
            .collect();
        println!(
            "{honest} read, {dead} do not: {sent} broadcasts in {:.1} s; slowest gap {slowest:?}; {held_most} B held at most",
            began.elapsed().as_secs_f64()
        );
        let figures = remote.figures();
        assert_eq!((figures.left(), figures.sessions), (dead as u64, stayed.len() as u64), "{figures:?}");
        assert!(slowest < Duration::from_secs(2), "the honest waited {slowest:?} for one of 20 a second");
        // What waits for the dead is shared, and what is being sent is at most a send each.
        assert!(held_most <= baseline + dead * HARD, "{held_most} bytes for {dead} dead");
    });
    drop(silent);
    eventually("the pool is back at its baseline", || remote.figures().pool.in_use.bytes <= baseline);
    assert!(server.stop().unwrap().report().is_clean());
}

fn b10_a_full_queue_to_the_game_thread_pauses_its_sessions_and_serves_them_in_turn(driver: DriverChoice) {
    const PEERS: usize = 8;
    const MESSAGES: usize = 60;
    // The game thread takes its time, and its queue is short: who finds it full waits for room on an offload thread,
    // and its session's messages wait with it.
    let (game, inbox) = sync_channel::<(SessionId, u32)>(2);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, message| {
        let number = u32::from_le_bytes(*message.bytes().first_chunk().unwrap());
        if let Err(TrySendError::Full(event)) = game.try_send((id, number)) {
            let game = game.clone();
            assert_eq!(cx.offload(id, move || game.send(event), |_, _, _| ()), Answer::Queued);
        }
    });
    let server = be32(driver).start(recorder).unwrap();
    let mut peers: Vec<(Raw, SessionId)> =
        (0..PEERS).map(|_| (Raw::connect(server.local_addr()), watch.join())).collect();
    for (peer, _) in &mut peers {
        let all = (0..MESSAGES as u32)
            .flat_map(|number| be32_frame(&[&number.to_le_bytes()[..], &[0; 200]].concat()));
        peer.write(&all.collect::<Vec<u8>>());
    }
    let mut served = Vec::new();
    while served.len() < PEERS * MESSAGES {
        served.push(inbox.recv_timeout(PATIENCE).unwrap());
        thread::park_timeout(Duration::from_micros(200));
    }
    for (_, id) in &peers {
        let places: Vec<usize> = (0..served.len()).filter(|at| served[*at].0 == *id).collect();
        let numbers: Vec<u32> = places.iter().map(|at| served[*at].1).collect();
        assert!(numbers.iter().copied().eq(0..MESSAGES as u32), "in order: {numbers:?}");
        // After the start, in which whoever comes first finds room, all have their turns. Which of the waiting threads the
        // system wakes first is its own affair; who starved would wait for nearly all the messages of the others.
        let gap = places.windows(2).skip(4).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(gap <= PEERS * MESSAGES / 4, "{id} waited for {gap} others");
    }
    finish(server, &watch);
}
