//! Bytes: order, pauses, want of buffers and of room in the queue.

use std::io::{Read, Write};

use super::*;

#[test]
fn what_comes_goes_back_in_order_on_every_kernel_and_in_either_file_table() {
    for features in every_kernel() {
        for own_file_table in [false, true] {
            check_echo(rig_with(&DriverSettings { own_file_table, ..small() }, features).unwrap());
        }
    }
}

fn check_echo(mut rig: Rig) {
    let (mut peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    for length in [1, 2, 100, 4_096, 70_000, 300_000] {
        let bytes = pattern(length);
        let (mut writer, sent) = (peer.try_clone().unwrap(), bytes.clone());
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let received = rig.receive(conn, length);
        writing.join().unwrap();
        assert_eq!(received, bytes);
        let mut reader = peer.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            let mut back = vec![0; length];
            reader.read_exact(&mut back).unwrap();
            back
        });
        let pieces: Vec<&[u8]> = received.chunks(length.div_ceil(crate::OUTGOING_PIECES_MAX)).collect();
        let outgoing = rig.outgoing(&pieces);
        rig.send_all(conn, outgoing);
        assert_eq!(reading.join().unwrap(), bytes);
    }
    rig.uring.half_close(conn);
    rig.poll_once(Duration::ZERO);
    // `read_to_end` goes on after an interruption, which a ring without deferred work may cause.
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0, "the peer sees our end");
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rig.await_end(conn), RecvEnd::Eof);
    rig.uring.retire(conn);
    rig.finish();
}

/// Exact-once accounting of a stream whose receive is paused, resumed and cut at random.
#[test]
fn b14_pauses_that_race_with_data_neither_lose_nor_double_a_byte() {
    let rounds = std::env::var("MADANG_PAUSES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    for features in every_kernel().into_iter().step_by(5) {
        for recv_buffers in [2, 16] {
            check_pauses(recv_buffers, features, rounds);
        }
    }
}

fn check_pauses(recv_buffers: u16, features: Features, rounds: u32) {
    let settings = DriverSettings { recv_buffers, recv_buffer_bytes: 4_096, ..small() };
    let mut rig = rig_with(&settings, features).unwrap();
    let (mut peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    let writing = std::thread::spawn(move || {
        let mut random = Random(7);
        let mut written = 0usize;
        while let Ok(count) = peer.write(&numbered(written, 1 + random.below(3_000))) {
            written += count;
        }
        written
    });
    let mut random = Random(42);
    let (mut received, mut paused, mut pauses, mut kept) = (0, false, 0, 0);
    while pauses < rounds {
        rig.poll_once(Duration::from_micros(random.below(200) as u64));
        while let Some(completion) = rig.told.pop_front() {
            match completion {
                Completion::Data { bytes, more, .. } => {
                    assert!(!paused, "silence during a pause");
                    assert!(*bytes == *numbered(received, bytes.len()), "wrong bytes at {received}");
                    received += bytes.len();
                    kept += u32::from(bytes.len() > settings.recv_buffer_bytes as usize);
                    if !more {
                        rig.uring.recv_start(conn).unwrap();
                    }
                }
                Completion::RecvEnded { end: RecvEnd::NoBuffers, .. } => {
                    assert!(!paused, "silence during a pause");
                    rig.uring.recv_start(conn).unwrap();
                }
                other => panic!("expected data, was told {other:?}"),
            }
        }
        match random.below(4) {
            0 if !paused => {
                rig.uring.recv_pause(conn);
                (paused, pauses) = (true, pauses + 1);
            }
            1 | 2 if paused => {
                rig.uring.recv_resume(conn);
                paused = false;
            }
            // All three between two polls.
            3 if !paused => {
                rig.uring.recv_pause(conn);
                rig.uring.recv_resume(conn);
                rig.uring.recv_pause(conn);
                (paused, pauses) = (true, pauses + 2);
            }
            _ => {}
        }
    }
    assert!(received > 100_000, "the race had something to race with: {received} bytes");
    eprintln!("{rounds} pauses, {received} bytes, {kept} times bytes were kept");
    rig.leave(conn);
    rig.poll_once(Duration::ZERO);
    rig.finish();
    writing.join().unwrap();
}

/// The stream's bytes from `at` on: each tells where it is.
fn numbered(at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

/// xorshift64, by Marsaglia.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn u01_starved_receives_say_so_and_go_on_when_buffers_are_back() {
    for features in every_kernel() {
        let settings = DriverSettings { recv_buffers: 1, recv_buffer_bytes: 64, ..small() };
        let mut rig = rig_with(&settings, features).unwrap();
        let mut links: Vec<_> = (0..4).map(|_| rig.accept()).collect();
        for (peer, conn) in &mut links {
            peer.write_all(&pattern(5_000)).unwrap();
            rig.uring.recv_start(*conn).unwrap();
        }
        let mut received = vec![Vec::new(); links.len()];
        while received.iter().any(|bytes| bytes.len() < 5_000) {
            match rig.next() {
                Completion::Data { conn, bytes, more } => {
                    received[conn.index()].extend_from_slice(&bytes);
                    if !more {
                        rig.uring.recv_start(conn).unwrap();
                    }
                }
                Completion::RecvEnded { conn, end: RecvEnd::NoBuffers } => {
                    rig.uring.recv_start(conn).unwrap()
                }
                other => panic!("expected data, was told {other:?}"),
            }
        }
        assert!(received.iter().all(|bytes| *bytes == pattern(5_000)));
        assert!(rig.uring.figures().no_buffers > 0);
        rig.finish();
    }
}

#[test]
fn u13_a_queue_of_two_serves_many_connections() {
    let Some(mut rig) = rig(&DriverSettings { submissions_max: 1, ..small() }) else { return };
    let mut links: Vec<_> = (0..40).map(|_| rig.accept()).collect();
    for round in 0..5 {
        for (peer, conn) in &mut links {
            if round == 0 {
                rig.uring.recv_start(*conn).unwrap();
            }
            peer.write_all(b"ping").unwrap();
        }
        let mut answered = 0;
        while answered < links.len() {
            match rig.next() {
                Completion::Data { conn, bytes, more: true } => {
                    let outgoing = rig.outgoing(&[&bytes[..2], &bytes[2..]]);
                    drop(bytes);
                    rig.uring.send(conn, outgoing).unwrap();
                }
                Completion::Sent { result, .. } => {
                    assert_eq!(result, Ok(4));
                    answered += 1;
                }
                other => panic!("expected an echo, was told {other:?}"),
            }
        }
        for (peer, _) in &mut links {
            let mut back = [0; 4];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"ping");
        }
    }
    rig.finish();
}

#[test]
fn what_left_inside_a_submit_is_released_there_and_told_by_the_next_poll() {
    let Some(mut rig) = rig(&small()) else { return };
    let mut links: Vec<_> = (0..3).map(|_| rig.accept()).collect();
    for (_, conn) in &links {
        rig.uring.recv_start(*conn).unwrap();
    }
    for round in 0..3 {
        for (peer, conn) in &mut links {
            peer.write_all(b"ping").unwrap();
            let outgoing = rig.outgoing(&[b"po", b"ng"]);
            rig.uring.send(*conn, outgoing).unwrap();
        }
        let in_flight = rig.uring.figures().in_flight;
        rig.uring.submit();
        assert_eq!(rig.depot.figures().in_use.blocks, 0, "round {round}: the packets are back");
        assert_eq!(rig.uring.figures().in_flight, in_flight, "and nothing is told");
        let (mut sent, mut received) = (0, 0);
        while sent < links.len() || received < links.len() * 4 {
            match rig.next() {
                Completion::Sent { outgoing, result, .. } => {
                    assert!(outgoing.is_empty() && result == Ok(4), "{result:?}");
                    sent += 1;
                }
                Completion::Data { bytes, more: true, .. } => received += bytes.len(),
                other => panic!("expected an echo's two words, was told {other:?}"),
            }
        }
        for (peer, _) in &mut links {
            let mut pong = [0; 4];
            peer.read_exact(&mut pong).unwrap();
            assert_eq!(&pong, b"pong");
        }
    }
    rig.finish();
}

#[test]
fn a_write_that_a_submit_finds_short_goes_on_at_the_exact_byte() {
    let Some(mut rig) = rig(&small()) else { return };
    let (mut peer, conn) = rig.accept();
    let bytes = pattern(16 << 20);
    let reader = std::thread::spawn({
        let mut got = vec![0; bytes.len()];
        move || peer.read_exact(&mut got).map(|()| (peer, got)).unwrap()
    });
    let mut left = rig.outgoing(&bytes.chunks(1 << 20).collect::<Vec<_>>());
    while !left.is_empty() {
        let given = left.len();
        rig.uring.send(conn, left).unwrap();
        rig.uring.submit();
        let sent = loop {
            // Whenever it ends, in a poll or in a submit.
            rig.uring.submit();
            rig.poll_once(Duration::ZERO);
            if let Some(Completion::Sent { outgoing, result, .. }) = rig.told.pop_front() {
                left = outgoing;
                break result.unwrap();
            }
        };
        assert_eq!(left.len(), given - sent);
    }
    let (_peer, got) = reader.join().unwrap();
    assert!(got == bytes);
    assert_eq!(rig.depot.figures().in_use.blocks, 0);
    rig.finish();
}
