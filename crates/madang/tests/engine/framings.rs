//! Foreign framings: frames as other people's clients speak them, and content's own.

use std::panic::panic_any;

use madang::wire::classic::{Classic, ClassicSettings};
use madang::wire::{
    Find, FrameError, FrameLimit, Framing, Kind, Opened, Overhead, SealError, SealSlot, Sealed,
};
use madang::{DriverChoice, ErrorKind, ForeignFraming, LeaveReason};

use crate::support::{
    ON_PURPOSE, Raw, Recorder, be32, be32_frame, eventually, finish, foreign, hush_panics_on_purpose, pattern,
};

each_driver! {
    f01_a_be32_length_out_of_bounds_ends_the_session,
    f02_a_be32_header_cut_at_any_byte_is_the_same_message,
    n8_classic_frames_are_opened_and_sealed,
    n8_a_classic_frame_that_is_wrong_ends_the_session,
    n8_a_framing_of_contents_own_with_head_tail_and_state,
    p01_a_panic_in_a_framing_ends_its_session_and_nothing_else,
}

fn f01_a_be32_length_out_of_bounds_ends_the_session(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| settings.frame_limit_bytes = 1_000).start(recorder).unwrap();
    let before = server.figures().pool.in_use.bytes;
    for (len, expected) in [
        (0, FrameError::Zero),
        (1_001, FrameError::TooLong { len: 1_001, limit: 1_000 }),
        (1 << 24, FrameError::TooLong { len: 1 << 24, limit: 1_000 }),
        (u32::MAX, FrameError::TooLong { len: u32::MAX as usize, limit: 1_000 }),
        (0x8000_0000, FrameError::TooLong { len: 0x8000_0000, limit: 1_000 }),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        let id = watch.join();
        for fine in [1, 1_000] {
            raw.be32(&pattern(1, fine));
            assert_eq!(raw.be32_next(), pattern(1, fine));
        }
        raw.write(&len.to_be_bytes());
        assert_eq!(watch.leave(id).reason, LeaveReason::Malformed(expected));
        assert!(raw.is_cut());
    }
    assert_eq!(server.figures().pool.in_use.bytes, before, "no memory was made ready for it");
    finish(server, &watch);
}

fn f02_a_be32_header_cut_at_any_byte_is_the_same_message(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    let mut raw = Raw::connect(server.local_addr());
    let id = watch.join();
    let frame = be32_frame(b"mind the gap");
    for cut in 1..frame.len() {
        raw.write(&frame[..cut]);
        let so_far = ((cut - 1) * frame.len() + cut) as u64;
        eventually("the first part is read by itself", || server.figures().bytes_in == so_far);
        raw.write(&frame[cut..]);
        assert_eq!(raw.be32_next(), b"mind the gap", "cut at {cut}");
        assert_eq!(watch.recv(id), b"mind the gap");
    }
    finish(server, &watch);
}

/// The classic frame by hand, from the text of `docs/wire.md`.
fn classic_frame(key: u8, payload: &[u8]) -> Vec<u8> {
    let sum = payload.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let mut frame = vec![0x77];
    frame.extend((payload.len() as u16).to_le_bytes());
    frame.push(key);
    let mut last = key;
    for (index, plain) in [&[sum], payload].concat().into_iter().enumerate() {
        last = plain ^ last.rotate_left(3).wrapping_add(0xa9).wrapping_add(index as u8);
        frame.push(last);
    }
    frame
}

fn classic_next(raw: &mut Raw) -> Vec<u8> {
    let header = raw.read(4);
    assert_eq!(header[0], 0x77);
    let masked = raw.read(1 + usize::from(u16::from_le_bytes([header[1], header[2]])));
    let mut last = header[3];
    let mut plain = Vec::new();
    for (index, byte) in masked.into_iter().enumerate() {
        plain.push(byte ^ last.rotate_left(3).wrapping_add(0xa9).wrapping_add(index as u8));
        last = byte;
    }
    let sum = plain[1..].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(plain.remove(0), sum, "the checksum of the plain payload");
    plain
}

fn classic() -> ForeignFraming {
    ForeignFraming::custom(|limit: FrameLimit, seed| {
        let limit = u16::try_from(limit.get()).unwrap_or(u16::MAX);
        Classic::new(ClassicSettings { limit, ..ClassicSettings::default() }, seed)
    })
}

fn n8_classic_frames_are_opened_and_sealed(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = foreign(driver, classic()).workers(2).start(recorder).unwrap();
    let mut peers = [Raw::connect(server.local_addr()), Raw::connect(server.local_addr())];
    for _ in 0..2 {
        watch.join();
    }
    for round in 0..60u64 {
        for (number, raw) in peers.iter_mut().enumerate() {
            let messages: Vec<Vec<u8>> =
                (0..3).map(|step| pattern(round + step, 1 + (round as usize * 271) % 9_000)).collect();
            let stream: Vec<u8> = messages
                .iter()
                .flat_map(|message| classic_frame(round as u8 ^ number as u8, message))
                .collect();
            for piece in stream.chunks(1 + (round as usize * 97) % 5_000) {
                raw.write(piece);
            }
            for message in &messages {
                assert!(classic_next(raw) == *message, "round {round}");
            }
        }
    }
    finish(server, &watch);
}

fn n8_a_classic_frame_that_is_wrong_ends_the_session(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = foreign(driver, classic()).start(recorder).unwrap();
    let good = classic_frame(9, b"hello");
    let changed = |at: usize, by: u8| {
        let mut frame = good.clone();
        frame[at] ^= by;
        frame
    };
    type Expected = fn(&FrameError) -> bool;
    let cases: [(&str, Vec<u8>, Expected); 6] = [
        ("another game's code", changed(0, 1), |error| {
            matches!(error, FrameError::Code { expected: 0x77, found: 0x76 })
        }),
        ("a wrong checksum", changed(4, 1), |error| *error == FrameError::Checksum),
        ("a changed payload", changed(9, 0x40), |error| *error == FrameError::Checksum),
        ("another key", changed(3, 2), |error| *error == FrameError::Checksum),
        ("a zero length", vec![0x77, 0, 0, 1, 1], |error| *error == FrameError::Zero),
        ("over the limit", vec![0x77, 0xff, 0xff, 1, 1], |error| matches!(error, FrameError::TooLong { .. })),
    ];
    for (what, bytes, expected) in cases {
        let mut raw = Raw::connect(server.local_addr());
        let id = watch.join();
        raw.write(&good);
        assert_eq!(classic_next(&mut raw), b"hello");
        raw.write(&bytes);
        let reason = watch.leave(id).reason;
        assert!(matches!(reason, LeaveReason::Malformed(error) if expected(&error)), "{what}: {reason:?}");
        assert!(raw.is_cut());
    }
    finish(server, &watch);
}

/// Written for this test: a line of text, `<length>:<payload>#<counter>;`, where the head's length varies and the counter
/// of each direction is the framing's own state.
struct Lines {
    received: u8,
    sent: u8,
}

impl Framing for Lines {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        let Some(colon) = bytes.iter().take(5).position(|byte| *byte == b':') else {
            return if bytes.len() < 5 {
                Ok(Find::Need { total: bytes.len() + 1 })
            } else {
                Err(FrameError::Magic)
            };
        };
        let digits =
            std::str::from_utf8(&bytes[..colon]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let len = digits.ok_or(FrameError::Magic)?;
        if !(1..=self.limit()).contains(&len) {
            return Err(FrameError::TooLong { len, limit: self.limit() });
        }
        let total = colon + 1 + len + 3;
        Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        assert!(!frame.ends_with(b"!;"), "{ON_PURPOSE}");
        self.received = self.received.wrapping_add(1) % 10;
        let start = frame.iter().position(|byte| *byte == b':').ok_or(FrameError::NotOneFrame)? + 1;
        let end = frame.len() - 3;
        if frame[end..] != [b'#', b'0' + self.received, b';'] {
            return Err(FrameError::Checksum);
        }
        Ok(Opened { kind: Kind::Message, payload: start..end })
    }

    fn overhead(&self) -> Overhead {
        Overhead { head: 5, tail: 3 }
    }

    fn limit(&self) -> usize {
        9_999
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        if slot.payload == b"seal me not" {
            panic_any(ON_PURPOSE);
        }
        self.sent = self.sent.wrapping_add(1) % 10;
        let head = format!("{}:", slot.payload.len());
        let start = slot.head.len() - head.len();
        slot.head[start..].copy_from_slice(head.as_bytes());
        slot.tail.copy_from_slice(&[b'#', b'0' + self.sent, b';']);
        Ok(Sealed { head: head.len(), tail: 3 })
    }
}

fn line(number: usize, payload: &str) -> Vec<u8> {
    format!("{}:{payload}#{};", payload.len(), number % 10).into_bytes()
}

fn lines() -> ForeignFraming {
    ForeignFraming::custom(|_, _| Lines { received: 0, sent: 0 })
}

fn n8_a_framing_of_contents_own_with_head_tail_and_state(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = foreign(driver, lines()).start(recorder).unwrap();
    let mut raw = Raw::connect(server.local_addr());
    let id = watch.join();
    for number in 1..=40 {
        let payload = "x".repeat(1 + number * number % 3_000);
        let frame = line(number, &payload);
        for piece in frame.chunks(1 + number % 7 * 100) {
            raw.write(piece);
        }
        let answer = raw.read(frame.len());
        assert!(answer == frame, "an echo looks the same, its counter included");
    }
    let long = vec![b'x'; 10_000];
    let remote = server.remote();
    assert!(
        remote.send(id, remote.packet(&long)).is_queued(),
        "the mailbox does not know the framing's limit"
    );
    raw.write(&line(3, "out of step"));
    assert_eq!(watch.leave(id).reason, LeaveReason::Malformed(FrameError::Checksum));
    finish(server, &watch);
}

fn p01_a_panic_in_a_framing_ends_its_session_and_nothing_else(driver: DriverChoice) {
    hush_panics_on_purpose();
    let (recorder, watch) = Recorder::echo();
    let server = foreign(driver, lines()).start(recorder).unwrap();
    let mut bystander = Raw::connect(server.local_addr());
    watch.join();
    for (round, bytes) in [&b"4:trap#!;"[..], b"11:seal me not#1;"].into_iter().enumerate() {
        let mut raw = Raw::connect(server.local_addr());
        let id = watch.join();
        raw.write(bytes);
        let error = watch.error("a panic", |kind| matches!(kind, ErrorKind::Panic(_)));
        assert_eq!(error.session, Some(id));
        assert_eq!(watch.leave(id).reason, LeaveReason::HandlerPanic);
        assert!(raw.is_cut());
        bystander.write(&line(round + 1, "well?"));
        assert_eq!(bystander.read(10), line(round + 1, "well?"));
    }
    finish(server, &watch);
}
