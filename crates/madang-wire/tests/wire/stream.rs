//! Finding and opening frames in a stream, however it was cut: catalogue F01, F02, F03, F12, F13.

use madang_wire::be32::{self, Be32};
use madang_wire::lan::{self, Heartbeat, LanFraming};
use madang_wire::{Find, FrameError, FrameLimit, Framing, Kind, Next, Overhead, seal_frame};
use proptest::prelude::*;

use crate::{LIMIT, Which, classic};

/// What came out of a stream: the frames in order, and what ended it, if it was not its end.
#[derive(Debug, PartialEq)]
struct Delivery {
    frames: Vec<(Kind, Vec<u8>)>,
    end: Option<FrameError>,
}

/// How often `find` is asked.
#[derive(Clone, Copy)]
enum Asking {
    /// After every read.
    Eager,
    /// Not before the bytes are there that it said it needs.
    Patient,
    /// Found and opened in one step, as the engine does.
    InOneStep,
}

/// Receives `stream` in reads of the given sizes (the last one takes the rest), as the engine does, and holds the
/// framing to its contract on the way.
fn receive(which: Which, stream: &[u8], reads: &[usize], asking: Asking) -> Delivery {
    let mut framing = which.framing();
    let mut delivery = Delivery { frames: Vec::new(), end: None };
    let (mut held, mut unread, mut needed) = (Vec::new(), stream, 0);
    let mut reads = reads.iter().copied().chain([usize::MAX]);
    while !unread.is_empty() {
        let (read, rest) = unread.split_at(reads.next().unwrap().min(unread.len()));
        held.extend_from_slice(read);
        unread = rest;
        if matches!(asking, Asking::Patient) && held.len() < needed && !unread.is_empty() {
            continue;
        }
        while !held.is_empty() {
            let next = match asking {
                Asking::InOneStep => framing.next(&mut held),
                Asking::Eager | Asking::Patient => in_two_steps(&mut *framing, &mut held),
            };
            match next {
                Ok(Next::Frame { len, opened }) => {
                    delivery.frames.push((opened.kind, held[opened.payload].to_vec()));
                    held.drain(..len);
                    needed = 0;
                }
                Ok(Next::Need { total }) => {
                    needed = total;
                    break;
                }
                Err(error) => return Delivery { end: Some(error), ..delivery },
            }
        }
    }
    delivery
}

/// What [`Framing::next`] does, by the two verbs that it stands for.
fn in_two_steps(framing: &mut dyn Framing, bytes: &mut [u8]) -> Result<Next, FrameError> {
    Ok(match find_twice(framing, bytes)? {
        Find::Frame { len } => Next::Frame { len, opened: framing.open(&mut bytes[..len])? },
        Find::Need { total } => Next::Need { total },
    })
}

/// Asks twice, because looking changes nothing, and checks that the answer keeps the promises of [`Find`].
fn find_twice(framing: &mut dyn Framing, bytes: &[u8]) -> Result<Find, FrameError> {
    let longest = framing.limit().max(lan::CONTROL_MAX) + framing.overhead().total();
    let found = framing.find(bytes);
    assert_eq!(found, framing.find(bytes), "looking changed the framing");
    match found {
        Ok(Find::Frame { len }) => assert!((1..=bytes.len().min(longest)).contains(&len), "{len}"),
        Ok(Find::Need { total }) => assert!(total > bytes.len() && total <= longest, "{total}"),
        Err(_) => {}
    }
    found
}

/// Whatever the cuts, the delivery is that of the stream in one read.
fn check_cuts(which: Which, stream: &[u8], reads: &[usize]) -> Delivery {
    let whole = receive(which, stream, &[], Asking::Eager);
    assert_eq!(receive(which, stream, reads, Asking::Eager), whole, "{which:?} asked after every read");
    assert_eq!(receive(which, stream, reads, Asking::Patient), whole, "{which:?} asked when it said");
    assert_eq!(receive(which, stream, reads, Asking::InOneStep), whole, "{which:?} in one step");
    whole
}

/// A sound stream of this framing that carries `payloads`, and the frames that must come out.
fn sound_stream(which: Which, payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<(Kind, Vec<u8>)>) {
    let (mut stream, mut frames) = (Vec::new(), Vec::new());
    let control = |kind: Kind, frame: &[u8], stream: &mut Vec<u8>| {
        stream.extend_from_slice(frame);
        (kind, frame[lan::HEADER..].to_vec())
    };
    let mut room = [0; lan::CONTROL_FRAME_MAX];
    let greeting = lan::Greeting { service: "chat", node: "chat-1", incarnation: 3, ..Default::default() };
    if matches!(which, Which::LanServer | Which::LanClient) {
        let len = greeting.to_frame(&mut room).unwrap();
        frames.push(control(Kind::Greeting, &room[..len], &mut stream));
    }
    if which == Which::LanClient {
        let welcome = lan::Welcome { session_id: 9, heartbeat_ms: 1000, dead_after_ms: 5000 };
        let len = welcome.to_frame(&mut room).unwrap();
        frames.push(control(Kind::Welcome, &room[..len], &mut stream));
    }
    let mut framing = which.framing();
    let Overhead { head, tail } = framing.overhead();
    for (place, payload) in payloads.iter().enumerate() {
        let mut bytes = vec![0xEE; head + payload.len() + tail];
        bytes[head..head + payload.len()].copy_from_slice(payload);
        let len = seal_frame(&mut *framing, &mut bytes).unwrap();
        stream.extend_from_slice(&bytes[..len]);
        frames.push((Kind::Message, payload.clone()));
        if matches!(which, Which::LanServer | Which::LanClient) && place % 3 == 0 {
            let ping = Heartbeat { value: place as u64 }.ping();
            frames.push(control(Kind::Ping, &ping, &mut stream));
        }
    }
    (stream, frames)
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let len = prop_oneof![4 => 1..40_usize, 1 => 120..140_usize, 1 => Just(LIMIT as usize)];
    let payload = (len, any::<u8>(), any::<u8>()).prop_map(|(len, first, step)| {
        (0..len).map(|i| first.wrapping_add(step.wrapping_mul(i as u8))).collect()
    });
    prop::collection::vec(payload, 0..12)
}

fn reads() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..8_usize, 1..300_usize], 0..40)
}

fn which() -> impl Strategy<Value = Which> {
    prop::sample::select(&Which::ALL[..])
}

proptest! {
    #[test]
    fn f02_any_split_delivers_the_same_frames(which in which(), payloads in payloads(), reads in reads()) {
        let (stream, frames) = sound_stream(which, &payloads);
        let delivery = check_cuts(which, &stream, &reads);
        prop_assert_eq!(delivery, Delivery { frames, end: None });
    }

    #[test]
    fn f02_any_split_of_a_damaged_stream_ends_alike(
        which in which(), payloads in payloads(), reads in reads(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..3),
    ) {
        let (mut stream, _) = sound_stream(which, &payloads);
        if !stream.is_empty() {
            for (place, flip) in damage {
                let place = place.index(stream.len());
                stream[place] ^= flip;
            }
        }
        check_cuts(which, &stream, &reads);
    }

    #[test]
    fn f02_garbage_ends_alike_and_never_panics(
        which in which(), reads in reads(), stream in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        check_cuts(which, &stream, &reads);
    }

    #[test]
    fn opening_garbage_never_panics(which in which(), mut frame in prop::collection::vec(any::<u8>(), 0..64)) {
        let len = frame.len();
        if let Ok(opened) = which.framing().open(&mut frame) {
            prop_assert!(opened.payload.start <= opened.payload.end && opened.payload.end <= len);
        }
    }

    #[test]
    fn f03_every_lan_length_is_judged_without_overflow(header in any::<u32>(), limit in 1..=FrameLimit::MAX.get()) {
        let len = u64::from(header % (1 << 24));
        let header = lan::header(Kind::Message, len as u32);
        check_length(&mut traffic(FrameLimit::new(limit).unwrap()), &header, len, u64::from(limit));
    }

    #[test]
    fn f03_every_be32_length_is_judged_without_overflow(len in any::<u32>(), limit in 1..=FrameLimit::MAX.get()) {
        let mut framing = Be32::new(FrameLimit::new(limit).unwrap());
        check_length(&mut framing, &be32::header(len), u64::from(len), u64::from(limit));
    }

    #[test]
    fn f03_every_classic_length_is_judged_without_overflow(len in any::<u16>(), limit in 1..=u16::MAX) {
        let [low, high] = len.to_le_bytes();
        check_length(&mut classic(limit, 0), &[0x77, low, high, 0, 0], u64::from(len), u64::from(limit));
    }
}

/// A server-side LAN framing whose greeting is done.
fn traffic(limit: FrameLimit) -> LanFraming {
    let mut framing = LanFraming::server(limit);
    let mut room = [0; lan::CONTROL_FRAME_MAX];
    let len = lan::Greeting::default().to_frame(&mut room).unwrap();
    framing.open(&room[..len]).unwrap();
    framing
}

/// Shows a bare header that announces `len` bytes and compares the verdict with one computed in `u64`.
fn check_length(framing: &mut dyn Framing, header: &[u8], len: u64, limit: u64) {
    let expected = match len {
        0 => Err(FrameError::Zero),
        _ if len > limit => Err(FrameError::TooLong { len: len as usize, limit: limit as usize }),
        _ => Ok(Find::Need { total: len as usize + header.len() }),
    };
    assert_eq!(framing.find(header), expected, "length {len}, limit {limit}");
    if let Err(error) = expected {
        assert_eq!(framing.open(&mut header.to_vec()), Err(error), "length {len}, limit {limit}");
    }
}

#[test]
fn f01_only_lengths_from_one_to_the_limit_pass() {
    const EDGES: [u32; 9] =
        [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 0xFFFF, 0x1_0000, FrameLimit::MAX.get(), u32::MAX];
    for limit in [1, LIMIT, 0xFFFE, 0xFFFF, FrameLimit::MAX.get()] {
        let frame_limit = FrameLimit::new(limit).unwrap();
        for len in EDGES {
            let verdict = |framing: &mut dyn Framing, header: &[u8]| {
                check_length(framing, header, u64::from(len), u64::from(limit));
            };
            verdict(&mut Be32::new(frame_limit), &be32::header(len));
            if len <= FrameLimit::MAX.get() {
                verdict(&mut traffic(frame_limit), &lan::header(Kind::Message, len));
            }
            if let (Ok(len), Ok(limit)) = (u16::try_from(len), u16::try_from(limit)) {
                let [low, high] = len.to_le_bytes();
                verdict(&mut classic(limit, 0), &[0x77, low, high, 0, 0]);
            }
        }
    }
}

#[test]
fn f01_the_longest_frame_goes_through_each_framing() {
    let limits: [(Box<dyn Framing>, usize); 3] = [
        (Box::new(traffic(FrameLimit::MAX)), FrameLimit::MAX.get() as usize),
        (Box::new(Be32::new(FrameLimit::MAX)), FrameLimit::MAX.get() as usize),
        (Box::new(classic(u16::MAX, 1)), usize::from(u16::MAX)),
    ];
    for (mut framing, longest) in limits {
        assert_eq!(framing.limit(), longest);
        let head = framing.overhead().head;
        let mut bytes = vec![0xA5; head + longest];
        let len = seal_frame(&mut *framing, &mut bytes).unwrap();
        assert_eq!(framing.find(&bytes), Ok(Find::Frame { len }));
        let payload = framing.open(&mut bytes).unwrap().payload;
        assert_eq!(payload.len(), longest);
        assert!(bytes[payload].iter().all(|byte| *byte == 0xA5));
    }
}

#[test]
fn f02_a_dribble_of_single_bytes_delivers_all() {
    let payloads = [vec![1], vec![2; 127], vec![3; 128], vec![4; LIMIT as usize], vec![5, 6]];
    for which in Which::ALL {
        let (stream, frames) = sound_stream(which, &payloads);
        let delivery = check_cuts(which, &stream, &vec![1; stream.len()]);
        assert_eq!(delivery, Delivery { frames, end: None }, "{which:?}");
    }
}

#[test]
fn f02_a_stream_cut_at_any_byte_keeps_what_was_whole() {
    let payloads = [vec![1, 2, 3], vec![4; 130], vec![5]];
    for which in Which::ALL {
        let (stream, frames) = sound_stream(which, &payloads);
        for cut in 0..=stream.len() {
            let head = receive(which, &stream[..cut], &[], Asking::Eager);
            assert_eq!(head.end, None, "{which:?} cut at {cut}");
            assert_eq!(head.frames, frames[..head.frames.len()], "{which:?} cut at {cut}");
            let both = receive(which, &stream, &[cut], Asking::Patient);
            assert_eq!(both.frames, frames, "{which:?} in two reads at {cut}");
        }
    }
}

#[test]
fn open_takes_exactly_one_frame() {
    for which in [Which::Be32, Which::Classic, Which::Varint] {
        let (stream, _) = sound_stream(which, &[vec![1, 2, 3, 4]]);
        for len in 0..stream.len() {
            assert!(which.framing().open(&mut stream[..len].to_vec()).is_err(), "{which:?}: {len} bytes");
        }
        let longer = [&stream[..], &[0]].concat();
        assert_eq!(which.framing().open(&mut longer.clone()), Err(FrameError::NotOneFrame), "{which:?}");
    }
    let mut framing = traffic(FrameLimit::DEFAULT);
    let frame = [&lan::header(Kind::Message, 2)[..], &[1, 2]].concat();
    assert_eq!(framing.open(&frame[..5]), Err(FrameError::NotOneFrame));
    assert_eq!(framing.open(&[&frame[..], &[3]].concat()), Err(FrameError::NotOneFrame));
    assert!(framing.open(&frame).is_ok());
}

/// What a stranger's first bytes are turned away with, and by which byte at the latest.
#[test]
fn f12_f13_strangers_are_turned_away_at_the_first_bytes() {
    fn check(first: &[u8], by: usize, expected: FrameError) {
        let framing = LanFraming::server(FrameLimit::DEFAULT);
        for seen in 0..first.len() {
            let verdict = framing.find(&first[..seen]);
            let expected = if seen < by { Ok(()) } else { Err(expected) };
            assert_eq!(verdict.map(|_| ()), expected, "{first:?}, {seen} bytes seen");
        }
    }
    let frame = |kind, len, payload: &[u8]| [&lan::header(kind, len), payload].concat();
    let greeting = |payload: &[u8]| frame(Kind::Greeting, 40, payload);

    check(b"GET / HTTP/1.1\r\n", 4, FrameError::UnknownKind(b' '));
    check(b"SSH-2.0-OpenSSH\r\n", 4, FrameError::UnknownKind(b'-'));
    check(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], 4, FrameError::OutOfTurn(Kind::Welcome));
    check(&[0x16, 0x03, 0x01, 0x01, 0x00, 0x01], 4, FrameError::TooLong { len: 0x1_0316, limit: 512 });
    check(&frame(Kind::Greeting, 513, b"MDNG"), 4, FrameError::TooLong { len: 513, limit: 512 });
    check(&frame(Kind::Greeting, 5, b"MDNG"), 4, FrameError::TooShort { len: 5, least: 6 });
    check(&frame(Kind::Greeting, 0, b"MDNG"), 4, FrameError::Zero);
    check(&frame(Kind::Message, 8, b"12345678"), 4, FrameError::OutOfTurn(Kind::Message));
    check(&greeting(b"XDNG12"), 5, FrameError::Magic);
    check(&greeting(b"MXNG12"), 6, FrameError::Magic);
    check(&greeting(b"MDNX12"), 8, FrameError::Magic);
}
