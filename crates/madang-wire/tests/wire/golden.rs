//! The golden frames in `vectors/`: what we write is those bytes, and those bytes are read as what we meant.
//!
//! They were made by another program from docs/wire.md, so that a codec and its mirror image cannot be wrong together.
//! A change to one of them is a change of the protocol.

use std::collections::BTreeMap;

use madang_wire::be32::{self, Be32};
use madang_wire::lan::{
    self, Goodbye, GoodbyeReason, Greeting, Heartbeat, LanFraming, Refusal, RefusalReason, Welcome,
};
use madang_wire::{Find, FrameLimit, Framing, Kind, seal_frame};

use crate::classic;

/// The frames of one file by name. A test takes out what it checks; what is left nobody checked.
fn golden(text: &'static str) -> BTreeMap<&'static str, Vec<u8>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(": ").expect("name: hex");
            let byte = |digits| u8::from_str_radix(digits, 16).expect("hex digits");
            (name, (0..hex.len()).step_by(2).map(|at| byte(&hex[at..at + 2])).collect())
        })
        .collect()
}

#[test]
fn lan_frames_are_the_golden_ones() {
    let mut golden = golden(include_str!("../../vectors/lan.txt"));
    let mut frame = |name| golden.remove(name).unwrap_or_else(|| panic!("no golden frame {name}"));

    let chat = Greeting {
        ticket: &[],
        app_version: 3,
        frame_limit: FrameLimit::DEFAULT,
        incarnation: 7,
        schema_hash: 0x0123_4567_89AB_CDEF,
        service: "chat",
        node: "chat-3",
    };
    let least = Greeting { frame_limit: FrameLimit::new(1).unwrap(), ..Greeting::default() };
    let names = "s".repeat(64);
    let most = Greeting {
        ticket: &[],
        app_version: u32::MAX,
        frame_limit: FrameLimit::MAX,
        incarnation: u64::MAX,
        schema_hash: u64::MAX,
        service: &names,
        node: "마당",
    };
    for (name, greeting) in [("greeting", chat), ("greeting-least", least), ("greeting-most", most)] {
        let bytes = frame(name);
        assert_eq!(written(|out| greeting.to_frame(out)), bytes, "{name}");
        assert_eq!(Greeting::from_payload(&read(Kind::Greeting, &bytes)), Ok(greeting), "{name}");
    }

    let agreed = Welcome { session_id: 0x0000_0200_0000_0005, heartbeat_ms: 1000, dead_after_ms: 5000 };
    let silent = Welcome { session_id: 1, heartbeat_ms: 0, dead_after_ms: 0 };
    for (name, welcome) in [("welcome", agreed), ("welcome-silent", silent)] {
        let bytes = frame(name);
        assert_eq!(written(|out| welcome.to_frame(out)), bytes, "{name}");
        assert_eq!(Welcome::from_payload(&read(Kind::Welcome, &bytes)), Ok(welcome), "{name}");
    }

    let full = Refusal { reason: RefusalReason::Full, text: "try later" };
    let bare = Refusal { reason: RefusalReason::Protocol, text: "" };
    for (name, refusal) in [("refusal", full), ("refusal-bare", bare)] {
        let bytes = frame(name);
        assert_eq!(written(|out| refusal.to_frame(out)), bytes, "{name}");
        assert_eq!(Refusal::from_payload(&read(Kind::Refusal, &bytes)), Ok(refusal), "{name}");
    }

    let kicked = Goodbye { reason: GoodbyeReason::Content, code: 77 };
    let draining = Goodbye { reason: GoodbyeReason::Draining, code: 0 };
    for (name, goodbye) in [("goodbye", kicked), ("goodbye-draining", draining)] {
        let bytes = frame(name);
        assert_eq!(written(|out| goodbye.to_frame(out)), bytes, "{name}");
        assert_eq!(Goodbye::from_payload(&read(Kind::Goodbye, &bytes)), Ok(goodbye), "{name}");
    }

    let beat = Heartbeat { value: 0x1122_3344_5566_7788 };
    for (name, kind, bytes) in [("ping", Kind::Ping, beat.ping()), ("pong", Kind::Pong, beat.pong())] {
        let golden = frame(name);
        assert_eq!(bytes[..], golden, "{name}");
        assert_eq!(Heartbeat::from_payload(&read(kind, &golden)), Ok(beat), "{name}");
    }

    for (name, payload) in [("message", vec![1, 2, 3]), ("message-300", vec![0x5A; 300])] {
        let bytes = frame(name);
        assert_eq!(
            [&lan::header(Kind::Message, payload.len() as u32)[..], &payload].concat(),
            bytes,
            "{name}"
        );
        assert_eq!(read(Kind::Message, &bytes), payload, "{name}");
    }

    assert!(golden.is_empty(), "nobody checks {:?}", golden.keys());
}

#[test]
fn be32_frames_are_the_golden_ones() {
    let golden = golden(include_str!("../../vectors/be32.txt"));
    let expected = BTreeMap::from([("message", vec![1, 2, 3]), ("message-300", vec![0x5A; 300])]);
    assert!(golden.keys().eq(expected.keys()));
    for (name, payload) in expected {
        assert_eq!([&be32::header(payload.len() as u32)[..], &payload].concat(), golden[name], "{name}");
        assert_eq!(opened(&mut Be32::new(FrameLimit::DEFAULT), &golden[name]), (Kind::Message, payload));
    }
}

#[test]
fn classic_frames_are_the_golden_ones() {
    let golden = golden(include_str!("../../vectors/classic.txt"));
    let expected = BTreeMap::from([
        ("key-00", vec![1, 2, 3]),
        ("key-5c-zero", vec![0]),
        ("key-80-300", vec![0x5A; 300]),
        ("key-ff", b"madang".to_vec()),
    ]);
    assert!(golden.keys().eq(expected.keys()));
    for (name, payload) in expected {
        assert_eq!(
            opened(&mut classic(u16::MAX, 0), &golden[name]),
            (Kind::Message, payload.clone()),
            "{name}"
        );
        assert_eq!(sealed_under_key(&payload, golden[name][3]), golden[name], "{name}");
    }
}

/// Seals until the framing draws this frame key: it draws each of the 256 sooner or later.
fn sealed_under_key(payload: &[u8], key: u8) -> Vec<u8> {
    let mut framing = classic(u16::MAX, 0);
    let head = framing.overhead().head;
    for _ in 0..100_000 {
        let mut bytes = [&vec![0; head], payload].concat();
        seal_frame(&mut framing, &mut bytes).unwrap();
        if bytes[3] == key {
            return bytes;
        }
    }
    panic!("key {key:#04x} was never drawn");
}

fn written(write: impl FnOnce(&mut [u8]) -> Result<usize, madang_wire::WriteError>) -> Vec<u8> {
    let mut room = [0; lan::CONTROL_FRAME_MAX];
    let len = write(&mut room).unwrap();
    room[..len].to_vec()
}

/// The payload of a golden LAN frame, read in the state in which its kind is in turn.
fn read(kind: Kind, frame: &[u8]) -> Vec<u8> {
    let golden = golden(include_str!("../../vectors/lan.txt"));
    let mut framing = LanFraming::client(FrameLimit::DEFAULT);
    let before: &[&str] = match kind {
        Kind::Greeting | Kind::Refusal => &[],
        Kind::Welcome => &["greeting"],
        _ => &["greeting", "welcome"],
    };
    for name in before {
        framing.open(&golden[name]).unwrap();
    }
    let (opened, payload) = opened(&mut framing, frame);
    assert_eq!(opened, kind);
    payload
}

fn opened(framing: &mut dyn Framing, frame: &[u8]) -> (Kind, Vec<u8>) {
    assert_eq!(framing.find(frame), Ok(Find::Frame { len: frame.len() }));
    let mut frame = frame.to_vec();
    let opened = framing.open(&mut frame).unwrap();
    (opened.kind, frame[opened.payload].to_vec())
}
