//! What must not come through to an encrypted server: strangers, broken handshakes, records that were touched on the way.
//! Each ends as docs/wire.md says, and content hears of nothing but what was whole.

use std::time::{Duration, Instant};

use madang::keys::PublicKey;
use madang::wire::lan::{Goodbye, GoodbyeReason};
use madang::wire::wan::{GateError, Hello, RECORD_FRAMES_MAX, REKEY_RECORDS, Stranger};
use madang::wire::{FrameError, Kind};
use madang::{DriverChoice, ErrorKind, LeaveReason, Server};

use crate::support::{
    Ended, Raw, Recorder, Sealed, Seen, Watch, eventually, finish, frame, lan, lan_frame, log_in, preamble,
    wan,
};

each_driver! {
    f04_a_flipped_bit_ends_the_session_and_nothing_of_the_record_is_delivered,
    f05_a_record_that_does_not_open_ends_all_be_the_next_one_right_or_not,
    f06_a_record_that_is_replayed_moved_or_left_out_ends_the_session,
    f06_a_stream_that_ends_without_a_goodbye_was_cut_off,
    f08_keys_change_on_the_way_and_nobody_notices,
    f08_a_recorded_conversation_is_worth_nothing_to_a_server_that_started_again,
    f09_a_handshake_out_of_order_twice_or_too_long_gets_no_byte,
    f11_a_hello_that_was_changed_on_the_way_gets_no_byte,
    f12_f13_whoever_speaks_something_else_gets_no_byte,
    f12_an_encrypted_client_on_a_lan_port_is_closed,
    frames_out_of_turn_end_the_session,
    a_client_that_never_finishes_its_handshake_is_gone_at_the_deadline,
    b06_a_long_message_has_one_deadline_for_all_its_records,
}

fn started(driver: DriverChoice) -> (Server, PublicKey, Watch) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    (server.start(recorder).unwrap(), key, watch)
}

/// What content was told of messages, and nothing else.
fn delivered(watch: &Watch) -> Vec<Vec<u8>> {
    let told = |seen| if let Seen::Recv(_, bytes) = seen { Some(bytes) } else { None };
    watch.rest().into_iter().filter_map(told).collect()
}

/// That whoever sent `bytes` is closed and gets nothing for it.
#[track_caller]
fn gets_no_byte(server: &Server, bytes: &[u8]) {
    let mut raw = Raw::connect(server.local_addr());
    raw.write(bytes);
    let ended = raw.ended();
    assert!(matches!(&ended, Ended::Reset) || ended == Ended::Eof(vec![]), "{ended:?} for {bytes:02x?}");
}

fn f04_a_flipped_bit_ends_the_session_and_nothing_of_the_record_is_delivered(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    // Of the length a bit whose flip leaves a length that may be: the record is then shorter or longer than it was. And the one
    // that says that a record is bare.
    let framed = [0, 2, 5, 6, 25, 26, 41].map(|byte| (false, byte, 1));
    let bare = [0, 2, 21, 22, 37].map(|byte| (true, byte, 1));
    for (is_bare, byte, mask) in [&framed[..], &bare, &[(false, 1, 0x80), (true, 1, 0x80)]].concat() {
        let mut peer = Sealed::join(server.local_addr(), &key);
        let id = watch.join();
        let before = peer.message(b"before");
        let mut record = if is_bare { peer.bare(&[7; 20]) } else { peer.message(&[7; 20]) };
        assert_eq!(record.len(), if is_bare { 38 } else { 42 });
        record[byte] ^= mask;
        peer.raw.write(&before);
        assert_eq!(peer.expect_message(), b"before");
        let behind = peer.message(&[8; 40]);
        peer.raw.write(&[record, behind].concat());
        assert!(peer.raw.is_cut());
        assert_eq!(watch.leave(id).reason, LeaveReason::Tampered, "byte {byte}");
        watch.error("the broken record", |kind| *kind == ErrorKind::Malformed(FrameError::Forged));
        assert_eq!(delivered(&watch), [b"before"], "byte {byte}");
    }
    finish(server, &watch);
}

/// On a stream a record that does not open is the end: the counter stands where it stood, so the true record would still open,
/// and must not be looked at.
fn f05_a_record_that_does_not_open_ends_all_be_the_next_one_right_or_not(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    type Forge = fn(&[u8]) -> Vec<u8>;
    let forgeries: [Forge; 3] = [
        |right| right.iter().enumerate().map(|(at, byte)| if at < 2 { *byte } else { byte ^ 0x55 }).collect(),
        |right| [&right[..2], &vec![0; right.len() - 2]].concat(),
        |right| [&right[..2], &right[2..].iter().rev().copied().collect::<Vec<_>>()].concat(),
    ];
    for forge in forgeries {
        let mut peer = Sealed::join(server.local_addr(), &key);
        let id = watch.join();
        let right = peer.message(b"the right one");
        peer.raw.write(&[forge(&right), right].concat());
        assert!(peer.raw.is_cut());
        assert_eq!(watch.leave(id).reason, LeaveReason::Tampered);
        assert!(delivered(&watch).is_empty(), "the right one came too late");
    }
    finish(server, &watch);
}

fn f06_a_record_that_is_replayed_moved_or_left_out_ends_the_session(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    let orders: [&[usize]; 4] = [&[0, 0], &[0, 2, 1], &[0, 2], &[1]];
    for order in orders {
        let mut peer = Sealed::join(server.local_addr(), &key);
        let id = watch.join();
        let records = [peer.message(b"0"), peer.bare(b"1"), peer.message(b"2")];
        // All at once: the server may reset the connection at the second already.
        peer.raw.write(&order.iter().flat_map(|record| records[*record].clone()).collect::<Vec<u8>>());
        assert!(peer.raw.is_cut());
        assert_eq!(watch.leave(id).reason, LeaveReason::Tampered, "{order:?}");
        let whole: Vec<_> =
            order.iter().take_while(|record| **record == 0).take(1).map(|_| b"0".to_vec()).collect();
        assert_eq!(delivered(&watch), whole, "{order:?}");
    }
    finish(server, &watch);
}

fn f06_a_stream_that_ends_without_a_goodbye_was_cut_off(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    let goodbye = Goodbye { reason: GoodbyeReason::Content, code: 5 };
    let mut farewell = [0; 16];
    let farewell_len = goodbye.to_frame(&mut farewell).unwrap();
    let goodbye_len = 2 + farewell_len + 16;
    for cut in [0, 1, 20, goodbye_len - 1, goodbye_len] {
        let mut peer = Sealed::join(server.local_addr(), &key);
        let id = watch.join();
        let whole = peer.message(b"whole");
        let mut last = peer.record(&farewell[..farewell_len]);
        last.truncate(cut);
        peer.raw.write(&[whole, last].concat());
        peer.raw.half_close();
        let reason = match cut == goodbye_len {
            true => LeaveReason::PeerGoodbye(goodbye),
            false => LeaveReason::Truncated,
        };
        assert_eq!(watch.leave(id).reason, reason, "cut at {cut}");
        assert_eq!(delivered(&watch), [b"whole"]);
    }
    finish(server, &watch);
}

fn f08_keys_change_on_the_way_and_nobody_notices(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let count = std::sync::atomic::AtomicU64::new(0);
    let recorder = recorder.on_recv(move |cx, id, _| {
        let so_far = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        if so_far == REKEY_RECORDS + 10 {
            let all = cx.packet(b"all of them");
            cx.send(id, all).ignore();
        }
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Sealed::join(server.local_addr(), &key);
    for _ in 0..(REKEY_RECORDS + 10) / 10 {
        let records: Vec<_> = (0..10).flat_map(|_| peer.message(b"x")).collect();
        peer.raw.write(&records);
    }
    let rest: Vec<_> = (0..10).flat_map(|_| peer.message(b"x")).collect();
    peer.raw.write(&rest);
    assert_eq!(peer.expect_message(), b"all of them");
    drop(peer);
    finish(server, &watch);
}

fn f08_a_recorded_conversation_is_worth_nothing_to_a_server_that_started_again(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    let address = server.local_addr();
    let (hello, expect) = preamble(&key, &Hello::default());
    // What an honest client sent: its preamble, its log-in and a message.
    let mut peer = Sealed::connect(address, &key);
    let recorded = [hello.clone(), peer.record(&log_in(b"")), peer.message(b"buy")].concat();
    drop((peer, expect));
    let stopped = server.stop().unwrap();
    let server = stopped.start_again().unwrap();
    let mut thief = Raw::connect(server.local_addr());
    thief.write(&hello);
    // The server answers: anybody may have recorded a preamble. But what follows does not open.
    let len = u16::from_le_bytes(thief.read(2).try_into().unwrap());
    thief.read(len.into());
    thief.write(&recorded[hello.len()..]);
    assert!(thief.is_cut());
    watch.error("a log-in of another handshake", |kind| *kind == ErrorKind::Malformed(FrameError::Forged));
    assert_eq!(server.figures().joins, 0);
    finish(server, &watch);
}

fn f09_a_handshake_out_of_order_twice_or_too_long_gets_no_byte(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    let (hello, _) = preamble(&key, &Hello::default());
    let mut too_long = hello.clone();
    too_long[4..6].copy_from_slice(&600u16.to_le_bytes());
    too_long.resize(600, 0);
    let mut too_short = hello.clone();
    too_short[4..6].copy_from_slice(&20u16.to_le_bytes());
    for bytes in [too_long, too_short, hello[30..].to_vec()] {
        gets_no_byte(&server, &bytes);
    }
    assert_eq!(server.figures().handshakes, 0, "no Diffie-Hellman for any of them");
    // Twice at once: nobody sends on before it was answered.
    gets_no_byte(&server, &[hello.clone(), hello.clone()].concat());
    // Twice, the second time for a log-in.
    let mut peer = Sealed::connect(server.local_addr(), &key);
    peer.raw.write(&hello);
    assert!(peer.raw.is_cut());
    // One Diffie-Hellman for the one that was honest so far.
    eventually("it is counted", || server.figures().failed == 5);
    assert_eq!(server.figures().handshakes, 1);
    finish(server, &watch);
}

fn f11_a_hello_that_was_changed_on_the_way_gets_no_byte(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    let (hello, _) = preamble(&key, &Hello::default());
    for byte in 0..hello.len() {
        let mut changed = hello.clone();
        changed[byte] ^= 0x10;
        // A length that grew is a preamble that is not all there: its end is the deadline's.
        if byte != 4 {
            gets_no_byte(&server, &changed);
        }
    }
    assert_eq!(server.figures().handshakes, 0, "the tag covers all of it");
    finish(server, &watch);
}

fn f12_f13_whoever_speaks_something_else_gets_no_byte(driver: DriverChoice) {
    let (server, _, watch) = started(driver);
    let greeting = crate::support::Hello::default().frame();
    let probes: [(&[u8], Stranger); 8] = [
        (b"GET / HTTP/1.1\r\nHost: game\r\n\r\n", Stranger::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Stranger::Http),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Stranger::Tls),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Stranger::Ssh),
        (&greeting, Stranger::Lan),
        (&[0; 64], Stranger::Unknown),
        (&[0xff; 700], Stranger::Unknown),
        (b"\0", Stranger::Unknown),
    ];
    for (bytes, sort) in probes {
        gets_no_byte(&server, bytes);
        watch.error("a stranger", |kind| *kind == ErrorKind::Stranger(GateError::Stranger(sort)));
    }
    eventually("all are counted", || server.figures().strangers == 8);
    assert_eq!(server.figures().handshakes, 0);
    finish(server, &watch);
}

fn f12_an_encrypted_client_on_a_lan_port_is_closed(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = lan(driver).start(recorder).unwrap();
    let (_, key) = wan(driver);
    let (hello, _) = preamble(&key, &Hello::default());
    gets_no_byte(&server, &hello);
    finish(server, &watch);
}

fn frames_out_of_turn_end_the_session(driver: DriverChoice) {
    let (server, key, watch) = started(driver);
    // Before the log-in: an embryo.
    for first in
        [frame(Kind::Message, b"too early"), frame(Kind::Ping, &[0; 8]), frame(Kind::Welcome, &[0; 16])]
    {
        let mut peer = Sealed::connect(server.local_addr(), &key);
        let record = peer.record(&first);
        peer.raw.write(&record);
        assert!(peer.raw.is_cut());
        watch.error("a frame out of turn", |kind| {
            matches!(kind, ErrorKind::Malformed(FrameError::OutOfTurn(_)))
        });
    }
    // Behind it: a session.
    let late: [(Vec<u8>, FrameError); 4] = [
        (log_in(b"again"), FrameError::OutOfTurn(Kind::LogIn)),
        (frame(Kind::Draining, &[0; 4]), FrameError::OutOfTurn(Kind::Draining)),
        (lan_frame(99, b"what?"), FrameError::UnknownKind(99)),
        (lan_frame(4, b""), FrameError::TooShort { len: 4, least: 5 }),
    ];
    for (bytes, error) in late {
        let mut peer = Sealed::join(server.local_addr(), &key);
        let id = watch.join();
        let record = peer.record(&bytes);
        peer.raw.write(&record);
        assert!(peer.raw.is_cut());
        assert_eq!(watch.leave(id).reason, LeaveReason::Malformed(error));
    }
    assert_eq!(delivered(&watch), Vec::<Vec<u8>>::new());
    finish(server, &watch);
}

fn a_client_that_never_finishes_its_handshake_is_gone_at_the_deadline(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(|settings| settings.greeting_timeout_ms = 300).start(recorder).unwrap();
    let begun = Instant::now();
    let (hello, _) = preamble(&key, &Hello::default());
    let silent = Raw::connect(server.local_addr());
    let mut half = Raw::connect(server.local_addr());
    half.write(&hello[..50]);
    let mut mute = Sealed::connect(server.local_addr(), &key);
    let half_log_in = mute.record(&log_in(b"who I am"));
    mute.raw.write(&half_log_in[..10]);
    for mut peer in [silent, half, mute.raw] {
        assert!(peer.is_cut());
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.figures().joins, 0);
    finish(server, &watch);
}

fn b06_a_long_message_has_one_deadline_for_all_its_records(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(|settings| {
        settings.frame_limit_bytes = 1 << 20;
        settings.queue_hard_bytes = 2 << 20;
        settings.partial_timeout_ms = 400;
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Sealed::join(server.local_addr(), &key);
    let id = watch.join();
    let whole = frame(Kind::Message, &[7; 500_000]);
    // Each record comes in time by itself.
    for part in whole.chunks(RECORD_FRAMES_MAX) {
        let record = peer.record(part);
        if std::io::Write::write_all(&mut peer.raw.stream, &record).is_err() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(watch.leave(id).reason, LeaveReason::Dribble);
    finish(server, &watch);
}
