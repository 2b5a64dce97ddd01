//! The golden frames that docs/wire.md names, against this codec. Test data is all that the two codecs share.

use super::*;
use crate::dummy::lan;

/// Reads `name: hex` from a file of golden frames.
#[track_caller]
pub(crate) fn golden(text: &str, name: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let hex = line.unwrap_or_else(|| panic!("no golden frame {name}")).trim();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The frame reads as a message of this payload, and the payload is encoded as this frame.
#[track_caller]
fn check_message(framing: Framing, frame: &[u8], payload: &[u8]) {
    let (head, body) = frame.split_at(framing.header_len());
    let header = framing.header(head).expect("a golden header");
    let mut opened = body.to_vec();
    framing.open(header, &mut opened, true).expect("a golden frame");
    assert_eq!((header.kind, header.len, &opened[..]), (Kind::Message, body.len(), payload));

    let mut encoded = Vec::new();
    match framing {
        Framing::Classic => classic::encode(payload, frame[3], &mut encoded),
        _ => framing.encode(payload, &mut Random::new(0), &mut encoded),
    }
    assert_eq!(encoded, frame);
}

/// The payload of a golden LAN frame, whose header says this kind.
#[track_caller]
fn control(name: &str, kind: Kind) -> Vec<u8> {
    let frame = golden(LAN, name);
    let header = Framing::Lan.header(&frame[..4]).expect("a golden header");
    assert_eq!((header.kind, header.len), (kind, frame.len() - 4), "{name}");
    frame[4..].to_vec()
}

const LAN: &str = include_str!("../../../../madang-wire/vectors/lan.txt");
const BE32: &str = include_str!("../../../../madang-wire/vectors/be32.txt");
const CLASSIC: &str = include_str!("../../../../madang-wire/vectors/classic.txt");

#[test]
fn messages_of_each_framing() {
    let long = [0x5a; 300];
    check_message(Framing::Lan, &golden(LAN, "message"), &[1, 2, 3]);
    check_message(Framing::Lan, &golden(LAN, "message-300"), &long);
    check_message(Framing::Be32, &golden(BE32, "message"), &[1, 2, 3]);
    check_message(Framing::Be32, &golden(BE32, "message-300"), &long);
    check_message(Framing::Classic, &golden(CLASSIC, "key-00"), &[1, 2, 3]);
    check_message(Framing::Classic, &golden(CLASSIC, "key-5c-zero"), &[0]);
    check_message(Framing::Classic, &golden(CLASSIC, "key-ff"), b"madang");
    check_message(Framing::Classic, &golden(CLASSIC, "key-80-300"), &long);
}

#[test]
fn control_messages() {
    for (name, frame_limit) in [("greeting", 1_048_576), ("greeting-least", 1), ("greeting-most", 16_777_215)]
    {
        let checked = lan::check_greeting(&control(name, Kind::Greeting));
        assert_eq!(checked, Ok(frame_limit), "{name}");
    }
    for name in ["welcome", "welcome-silent"] {
        assert_eq!(lan::check_welcome(&control(name, Kind::Welcome)), Ok(()), "{name}");
    }
    for (name, words) in
        [("refusal", "refusal 16 (Full): \"try later\""), ("refusal-bare", "refusal 2 (Protocol): \"\"")]
    {
        assert_eq!(lan::describe_refusal(&control(name, Kind::Refusal)), words);
    }
    for (name, words) in [
        ("goodbye", "goodbye 0x31 (Content), code 77"),
        ("goodbye-draining", "goodbye 0x45 (Draining), code 0"),
    ] {
        assert_eq!(lan::describe_goodbye(&control(name, Kind::Goodbye)), words);
    }
    let value = 0x1122_3344_5566_7788_u64.to_le_bytes();
    for (name, kind) in [("ping", Kind::Ping), ("pong", Kind::Pong)] {
        assert_eq!(control(name, kind), value);
        let mut encoded = Vec::new();
        encode_frame(kind, &value, &mut encoded);
        assert_eq!(encoded, golden(LAN, name));
    }
}
