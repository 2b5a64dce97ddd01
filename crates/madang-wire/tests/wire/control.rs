//! The LAN control frames: their bounds, and which may come when. Catalogue F01, F09, F12, L05 (the field), A07.

use madang_wire::lan::{
    self, ControlError, Expect, Goodbye, GoodbyeReason, Greeting, Heartbeat, LanFraming, NAME_MAX, Refusal,
    RefusalReason, Welcome,
};
use madang_wire::{Find, FrameError, FrameLimit, Kind, ReadError, Reader, WriteError};
use proptest::prelude::*;

/// The payload of the frame that `write` makes, whose header is checked on the way.
fn payload(kind: Kind, write: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut room = [0xEE; lan::CONTROL_FRAME_MAX];
    let len = write(&mut room).unwrap();
    let payload = room[lan::HEADER..len].to_vec();
    assert_eq!(room[..lan::HEADER], lan::header(kind, payload.len() as u32));
    assert!(kind.payload_bounds().contains(&payload.len()), "{kind:?} of {} bytes", payload.len());
    assert!(room[len..].iter().all(|byte| *byte == 0xEE), "wrote behind the frame");
    payload
}

fn greeting() -> Greeting<'static> {
    Greeting {
        app_version: 3,
        frame_limit: FrameLimit::DEFAULT,
        incarnation: 7,
        schema_hash: 0xABCD,
        service: "chat",
        node: "chat-3",
        ticket: &[],
    }
}

fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| {
        let mut name = String::new();
        for char in text.chars().filter(|char| !char.is_control()) {
            if name.len() + char.len_utf8() <= NAME_MAX {
                name.push(char);
            }
        }
        name
    })
}

proptest! {
    #[test]
    fn a_greeting_is_read_as_it_was_written(
        app_version: u32, limit in 1..=FrameLimit::MAX.get(), incarnation: u64, schema_hash: u64, service in name(), node in name(),
        ticket in proptest::collection::vec(any::<u8>(), 0..=128),
    ) {
        let frame_limit = FrameLimit::new(limit).unwrap();
        let greeting =
            Greeting { app_version, frame_limit, incarnation, schema_hash, service: &service, node: &node, ticket: &ticket };
        let bytes = payload(Kind::Greeting, |out| greeting.to_frame(out));
        prop_assert_eq!(Greeting::from_payload(&bytes), Ok(greeting));
    }

    #[test]
    fn a_welcome_is_read_as_it_was_written(session_id: u64, heartbeat_ms in 10..=600_000_u32, more in 0..1_000_000_u32) {
        let welcome = Welcome { session_id, heartbeat_ms, dead_after_ms: heartbeat_ms + more };
        let bytes = payload(Kind::Welcome, |out| welcome.to_frame(out));
        prop_assert_eq!(Welcome::from_payload(&bytes), Ok(welcome));
    }

    #[test]
    fn refusals_goodbyes_and_heartbeats_are_read_as_they_were_written(reason: u8, text in name(), code: u32, value: u64) {
        let refusal = Refusal { reason: RefusalReason::from_u8(reason), text: &text };
        let bytes = payload(Kind::Refusal, |out| refusal.to_frame(out));
        prop_assert_eq!(Refusal::from_payload(&bytes), Ok(refusal));

        let goodbye = Goodbye { reason: GoodbyeReason::from_u8(reason), code };
        let bytes = payload(Kind::Goodbye, |out| goodbye.to_frame(out));
        prop_assert_eq!(Goodbye::from_payload(&bytes), Ok(goodbye));

        let heartbeat = Heartbeat { value };
        prop_assert_eq!(heartbeat.ping()[..4].to_vec(), lan::header(Kind::Ping, 8));
        prop_assert_eq!(heartbeat.pong()[..4].to_vec(), lan::header(Kind::Pong, 8));
        prop_assert_eq!(Heartbeat::from_payload(&heartbeat.ping()[4..]), Ok(heartbeat));
        prop_assert_eq!(Heartbeat::from_payload(&heartbeat.pong()[4..]), Ok(heartbeat));
    }

    /// Whatever bytes a reader takes for a control frame are the bytes that a writer makes: there is one way to say
    /// each thing, so nothing can hide beside it.
    #[test]
    fn f09_a_damaged_control_frame_is_refused_or_means_what_it_says(
        place: prop::sample::Index, flip: u8, cut in 0..3_usize, more in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let damage = |mut bytes: Vec<u8>| {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            bytes.truncate(bytes.len() - cut);
            bytes.extend_from_slice(&more);
            bytes
        };
        let bytes = damage(payload(Kind::Greeting, |out| greeting().to_frame(out)));
        if let Ok(read) = Greeting::from_payload(&bytes) {
            prop_assert_eq!(payload(Kind::Greeting, |out| read.to_frame(out)), bytes);
        }
        let welcome = Welcome { session_id: 1, heartbeat_ms: 1000, dead_after_ms: 5000 };
        let bytes = damage(payload(Kind::Welcome, |out| welcome.to_frame(out)));
        if let Ok(read) = Welcome::from_payload(&bytes) {
            prop_assert_eq!(payload(Kind::Welcome, |out| read.to_frame(out)), bytes);
        }
        let refusal = Refusal { reason: RefusalReason::Full, text: "try later" };
        let bytes = damage(payload(Kind::Refusal, |out| refusal.to_frame(out)));
        if let Ok(read) = Refusal::from_payload(&bytes) {
            prop_assert_eq!(payload(Kind::Refusal, |out| read.to_frame(out)), bytes);
        }
        let goodbye = Goodbye { reason: GoodbyeReason::Content, code: 77 };
        let bytes = damage(payload(Kind::Goodbye, |out| goodbye.to_frame(out)));
        if let Ok(read) = Goodbye::from_payload(&bytes) {
            prop_assert_eq!(payload(Kind::Goodbye, |out| read.to_frame(out)), bytes);
        }
    }

    #[test]
    fn f09_garbage_in_control_frames_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Greeting::from_payload(&bytes);
        let _ = Greeting::from_payload(&[&b"MDNG\x01\x00\x00\x00"[..], &bytes].concat());
        let _ = Welcome::from_payload(&bytes);
        let _ = Refusal::from_payload(&bytes);
        let _ = Goodbye::from_payload(&bytes);
        let _ = Heartbeat::from_payload(&bytes);
    }
}

/// Each field of a greeting out of its bounds: the error, and what a server answers.
#[test]
fn f09_a_greeting_with_a_field_out_of_bounds_is_refused_by_name() {
    fn check(patch: impl FnOnce(&mut Vec<u8>), error: ControlError, refusal: Option<RefusalReason>) {
        let mut bytes = payload(Kind::Greeting, |out| greeting().to_frame(out));
        patch(&mut bytes);
        assert_eq!(Greeting::from_payload(&bytes), Err(error));
        assert_eq!(error.refusal(), refusal, "{error:?}");
    }
    let malformed = Some(RefusalReason::Malformed);
    let truncated = |needed, available| ControlError::Read(ReadError::Truncated { needed, available });
    let long = |len| ControlError::TextTooLong { len, limit: NAME_MAX };

    check(|bytes| bytes[0] = b'm', ControlError::Magic, None);
    check(|bytes| bytes[3] = 0, ControlError::Magic, None);
    check(|bytes| bytes[4] = 2, ControlError::Protocol { theirs: 2 }, Some(RefusalReason::Protocol));
    check(|bytes| bytes[5] = 1, ControlError::Protocol { theirs: 257 }, Some(RefusalReason::Protocol));
    // Nothing behind another version's number is looked at.
    check(
        |bytes| bytes.splice(4.., [9, 0]).for_each(drop),
        ControlError::Protocol { theirs: 9 },
        Some(RefusalReason::Protocol),
    );
    check(|bytes| bytes[6] = 1, ControlError::Flags(1), Some(RefusalReason::Sealing));
    check(|bytes| bytes[6] = 3, ControlError::Flags(3), malformed);
    check(|bytes| bytes[7] = 0x80, ControlError::Flags(0x8000), malformed);
    check(|bytes| bytes[6] = 2, truncated(2, 0), malformed);
    let empty = ControlError::Field { field: "ticket", value: 0 };
    let with_an_empty_one = |bytes: &mut Vec<u8>| {
        bytes[6] = 2;
        bytes.extend([0, 0]);
    };
    check(with_an_empty_one, empty, malformed);
    check(|bytes| bytes[12..16].fill(0), ControlError::FrameLimit(0), Some(RefusalReason::FrameLimit));
    check(|bytes| bytes[15] = 1, ControlError::FrameLimit(0x0110_0000), Some(RefusalReason::FrameLimit));
    check(|bytes| bytes[32] = 65, long(65), malformed);
    check(|bytes| bytes[32..34].fill(0xFF), long(65_535), malformed);
    check(|bytes| bytes[32] = 64, truncated(64, 12), malformed);
    check(|bytes| bytes[38] = 7, truncated(7, 6), malformed);
    check(|bytes| bytes[34] = 0xFF, ControlError::Read(ReadError::Utf8), malformed);
    check(|bytes| bytes[34] = b'\n', ControlError::TextControl, malformed);
    check(|bytes| bytes[45] = 0x1B, ControlError::TextControl, malformed);
    check(|bytes| bytes.push(0), ControlError::Read(ReadError::Trailing(1)), malformed);
}

#[test]
fn f09_control_frames_cut_at_any_byte_are_errors() {
    fn check<T: std::fmt::Debug>(bytes: &[u8], from_payload: impl Fn(&[u8]) -> Result<T, ControlError>) {
        assert!(from_payload(bytes).is_ok());
        for len in 0..bytes.len() {
            let error = from_payload(&bytes[..len]).unwrap_err();
            assert!(
                matches!(error, ControlError::Read(ReadError::Truncated { .. })),
                "{len} bytes: {error:?}"
            );
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(from_payload(&longer).unwrap_err(), ControlError::Read(ReadError::Trailing(1)));
    }
    let bytes = payload(Kind::Greeting, |out| greeting().to_frame(out));
    check(&bytes, |bytes| Greeting::from_payload(bytes).map(drop));
    let welcome = Welcome { session_id: 1, heartbeat_ms: 0, dead_after_ms: 0 };
    check(&payload(Kind::Welcome, |out| welcome.to_frame(out)), Welcome::from_payload);
    let refusal = Refusal { reason: RefusalReason::Full, text: "later" };
    check(&payload(Kind::Refusal, |out| refusal.to_frame(out)), |bytes| {
        Refusal::from_payload(bytes).map(drop)
    });
    let goodbye = Goodbye { reason: GoodbyeReason::Idle, code: 0 };
    check(&payload(Kind::Goodbye, |out| goodbye.to_frame(out)), Goodbye::from_payload);
    check(&Heartbeat { value: 1 }.ping()[4..], Heartbeat::from_payload);
}

#[test]
fn a_name_that_a_peer_would_refuse_is_not_sent() {
    let mut room = [0; lan::CONTROL_FRAME_MAX];
    let long = "n".repeat(NAME_MAX + 1);
    let too_long = Err(WriteError::TextTooLong { len: 65, limit: NAME_MAX });
    assert_eq!(Greeting { service: &long, ..greeting() }.to_frame(&mut room), too_long);
    assert_eq!(Greeting { node: &long, ..greeting() }.to_frame(&mut room), too_long);
    assert_eq!(Greeting { node: "a\nb", ..greeting() }.to_frame(&mut room), Err(WriteError::TextControl));
    let too_long = Err(WriteError::TextTooLong { len: 129, limit: 128 });
    assert_eq!(Greeting { ticket: &[1; 129], ..greeting() }.to_frame(&mut room), too_long);

    let text = "t".repeat(129);
    let refusal = |text| Refusal { reason: RefusalReason::Full, text };
    let too_long = Err(WriteError::TextTooLong { len: 129, limit: 128 });
    assert_eq!(refusal(&text).to_frame(&mut room), too_long);
    assert_eq!(refusal("\u{7f}").to_frame(&mut room), Err(WriteError::TextControl));
    assert_eq!(refusal(&text[1..]).to_frame(&mut room), Ok(135));
}

#[test]
fn the_longest_greeting_fits_and_smaller_room_is_an_error() {
    let name = "n".repeat(NAME_MAX);
    let longest = Greeting { service: &name, node: &name, ticket: &[7; 128], ..greeting() };
    let mut room = [0; 298];
    assert_eq!(longest.to_frame(&mut room), Ok(298));
    for len in 0..298 {
        assert!(matches!(longest.to_frame(&mut room[..len]), Err(WriteError::Full { .. })), "{len}");
    }
}

#[test]
fn a_heartbeat_that_would_flood_or_never_end_is_refused() {
    for (heartbeat_ms, dead_after_ms, sound) in [
        (0, 0, true),
        (0, 1, false),
        (1, 100, false),
        (9, 100, false),
        (10, 9, false),
        (10, 10, true),
        (1000, 5000, true),
        (1000, 999, false),
        (600_000, 600_000, true),
        (600_000, u32::MAX, true),
        (600_001, u32::MAX, false),
        (u32::MAX, u32::MAX, false),
    ] {
        let welcome = Welcome { session_id: 1, heartbeat_ms, dead_after_ms };
        let bytes = payload(Kind::Welcome, |out| welcome.to_frame(out));
        let expected =
            if sound { Ok(welcome) } else { Err(ControlError::Heartbeat { heartbeat_ms, dead_after_ms }) };
        assert_eq!(Welcome::from_payload(&bytes), expected);
    }
}

#[test]
fn every_reason_byte_is_a_reason_and_keeps_its_value() {
    for byte in 0..=255 {
        assert_eq!(RefusalReason::from_u8(byte).to_u8(), byte);
        assert_eq!(GoodbyeReason::from_u8(byte).to_u8(), byte);
    }
    let named = RefusalReason::NAMED.iter().filter(|reason| matches!(reason, RefusalReason::Unknown(_)));
    assert_eq!((RefusalReason::NAMED.len(), named.count()), (15, 0));
    for reason in GoodbyeReason::NAMED {
        assert!((1..=5).contains(&(reason.to_u8() >> 4)), "{reason:?} is in no group of fault");
    }
    for kind in 0..=255 {
        let expected = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        assert_eq!(Kind::from_u8(kind), expected);
    }
}

/// The table of docs/wire.md, part 2, row by row.
#[test]
fn each_state_takes_the_kinds_of_its_row_and_no_other() {
    use Expect::{Answer, End, Greeting, Place, Traffic};
    let rows: [(Expect, &[(Kind, Expect)]); 5] = [
        (Greeting, &[(Kind::Greeting, Traffic)]),
        (Answer, &[(Kind::Greeting, Place), (Kind::Refusal, End)]),
        (
            Place,
            &[
                (Kind::Welcome, Traffic),
                (Kind::Queue, Place),
                (Kind::Ticket, Place),
                (Kind::Ping, Place),
                (Kind::Pong, Place),
                (Kind::Refusal, End),
                (Kind::Goodbye, End),
            ],
        ),
        (
            Traffic,
            &[(Kind::Message, Traffic), (Kind::Ping, Traffic), (Kind::Pong, Traffic), (Kind::Goodbye, End)],
        ),
        (End, &[]),
    ];
    for (state, row) in rows {
        for kind in Kind::ALL {
            let entry = row.iter().find(|(allowed, _)| *allowed == kind);
            check_in_state(state, kind, entry.map(|(_, after)| *after));
        }
    }
}

/// Shows a frame of `kind` to a framing in `state`: it opens and leads to `after`, or is out of turn at its header.
fn check_in_state(state: Expect, kind: Kind, after: Option<Expect>) {
    let mut framing = framing_in(state);
    let frame = frame_of(kind);
    match after {
        Some(after) => {
            assert_eq!(framing.find(&frame), Ok(Find::Frame { len: frame.len() }), "{kind:?} in {state:?}");
            assert_eq!(framing.open(&frame).map(|opened| opened.kind), Ok(kind));
            assert_eq!(framing.expect(), after, "{kind:?} in {state:?}");
        }
        None => {
            let out_of_turn = FrameError::OutOfTurn(kind);
            assert_eq!(framing.find(&frame[..4]), Err(out_of_turn), "{kind:?} in {state:?}");
            assert_eq!(framing.open(&frame), Err(out_of_turn), "{kind:?} in {state:?}");
            assert_eq!(framing.expect(), state);
        }
    }
}

/// A framing that was led to `state` by frames, as an engine's is.
fn framing_in(state: Expect) -> LanFraming {
    let (mut framing, path): (_, &[Kind]) = match state {
        Expect::Greeting => (LanFraming::server(FrameLimit::DEFAULT), &[]),
        Expect::Answer => (LanFraming::client(FrameLimit::DEFAULT), &[]),
        Expect::Place => (LanFraming::client(FrameLimit::DEFAULT), &[Kind::Greeting]),
        Expect::Traffic => (LanFraming::client(FrameLimit::DEFAULT), &[Kind::Greeting, Kind::Welcome]),
        Expect::End => (LanFraming::server(FrameLimit::DEFAULT), &[Kind::Greeting, Kind::Goodbye]),
        Expect::LogIn | Expect::Queue | Expect::Served => unreachable!("no state of a LAN: tests/wan"),
    };
    for kind in path {
        framing.open(&frame_of(*kind)).unwrap();
    }
    assert_eq!(framing.expect(), state);
    framing
}

/// The shortest frame of this kind.
fn frame_of(kind: Kind) -> Vec<u8> {
    let least = *kind.payload_bounds().start();
    let mut frame = [&lan::header(kind, least as u32)[..], &vec![0; least]].concat();
    if kind == Kind::Greeting {
        frame[4..8].copy_from_slice(&lan::MAGIC);
    }
    frame
}

/// The lengths of docs/wire.md, part 1.1.
#[test]
fn f01_control_frames_of_any_other_length_are_refused_at_the_header() {
    for (state, kind, least, limit) in [
        (Expect::Greeting, Kind::Greeting, 6, 512),
        (Expect::Answer, Kind::Refusal, 3, 131),
        (Expect::Place, Kind::Welcome, 16, 16),
        (Expect::Place, Kind::Ping, 8, 8),
        (Expect::Traffic, Kind::Pong, 8, 8),
        (Expect::Traffic, Kind::Goodbye, 5, 5),
    ] {
        let framing = framing_in(state);
        let verdict = |len: usize| framing.find(&lan::header(kind, len as u32));
        assert_eq!(verdict(0), Err(FrameError::Zero), "{kind:?}");
        assert_eq!(verdict(least - 1), Err(FrameError::TooShort { len: least - 1, least }), "{kind:?}");
        assert_eq!(verdict(least), Ok(Find::Need { total: 4 + least }), "{kind:?}");
        assert_eq!(verdict(limit), Ok(Find::Need { total: 4 + limit }), "{kind:?}");
        assert_eq!(verdict(limit + 1), Err(FrameError::TooLong { len: limit + 1, limit }), "{kind:?}");
        assert_eq!(verdict(0xFF_FFFF), Err(FrameError::TooLong { len: 0xFF_FFFF, limit }), "{kind:?}");
    }
}

#[test]
fn the_magic_and_version_stand_where_every_version_has_them() {
    let bytes = payload(Kind::Greeting, |out| greeting().to_frame(out));
    let mut read = Reader::new(&bytes);
    assert_eq!(read.array(), Ok(*b"MDNG"));
    assert_eq!(read.u16(), Ok(lan::PROTOCOL));
}
