//! The golden bytes in `vectors/wan.txt`: what we write is those bytes, and those bytes are read as what we meant. They
//! were made by a third program. A change to one of them is a change of the protocol.

use std::collections::BTreeMap;

use madang_wire::lan::{self, Goodbye, GoodbyeReason, Greeting, Heartbeat, Refusal, RefusalReason, Welcome};
use madang_wire::wan::{
    ANSWER_MAX, Answer, Draining, ExpectSeal, Gate, LinkAnswer, LinkSecret, LogIn, PROOF, QueueState,
    REKEY_RECORDS, SEAL_FRAME, Suite, Ticket, TicketPurpose, log_in_proof, seal_link,
};
use madang_wire::{FrameLimit, Kind};

use crate::{accepted, begin, frame, keys, limit, received, record};

/// The bytes by name. A test takes out what it checks; what is left nobody checked.
fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let text = include_str!("../../vectors/wan.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(": ").expect("name: hex");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
            (name, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn written(write: impl FnOnce(&mut [u8]) -> Result<usize, madang_wire::WriteError>) -> Vec<u8> {
    let mut room = [0; LogIn::FRAME_MAX];
    let len = write(&mut room).unwrap();
    room[..len].to_vec()
}

#[test]
fn a_connection_is_the_golden_one() {
    let mut golden = golden();
    golden.retain(|name, _| !name.starts_with("link"));
    for (suite, name) in [(Suite::AesGcm, "aesgcm"), (Suite::ChaChaPoly, "chachapoly")] {
        let mut bytes = |what: &str| {
            let name = format!("{name}-{what}");
            golden.remove(&*name).unwrap_or_else(|| panic!("no golden {name}"))
        };
        let (preamble, client) = begin(suite);
        assert_eq!(preamble[..], bytes("preamble"));
        let (answer, mut server) = accepted(&preamble);
        assert_eq!(answer, bytes("answer"));
        let mut room = [0; ANSWER_MAX];
        let Ok(Answer::Accepted(_, mut client)) = client.read(&answer, &mut room) else { panic!() };
        assert_eq!(client.hash.bytes()[..], bytes("hash"));

        let log_in = LogIn { token: b"token", ..LogIn::default() };
        let frames = [written(|out| log_in.to_frame(out)), frame(Kind::Message, &[1, 2, 3])].concat();
        let first = record(&mut client.sealing, &frames);
        assert_eq!(first, bytes("client-0"));
        let got = received(&mut server.opening, &first).unwrap();
        assert_eq!(LogIn::from_payload(&got[0].1), Ok(log_in));
        assert_eq!(got[1], (Kind::Message, vec![1, 2, 3]));
        let ping = record(&mut client.sealing, &Heartbeat { value: 0x1122_3344_5566_7788 }.ping());
        assert_eq!(ping, bytes("client-1"));
        received(&mut server.opening, &ping).unwrap();
        let proof: [u8; PROOF] = bytes("proof").try_into().unwrap();
        assert_eq!(log_in_proof(b"secret", &client.hash), proof);

        let waiting = QueueState { position: 5, length: 9, estimate_ms: Some(30_000) };
        let next = QueueState { position: 1, length: 9, estimate_ms: None };
        let frames = [written(|out| waiting.to_frame(out)), written(|out| next.to_frame(out))].concat();
        let queue = record(&mut server.sealing, &frames);
        assert_eq!(queue, bytes("server-0"));
        let got = received(&mut client.opening, &queue).unwrap();
        assert_eq!(QueueState::from_payload(&got[0].1), Ok(waiting));
        assert_eq!(QueueState::from_payload(&got[1].1), Ok(next));

        let ticket = Ticket { purpose: TicketPurpose::Place, grace_ms: 60_000, bytes: b"ticket" };
        let welcome = Welcome { session_id: 5, heartbeat_ms: 1000, dead_after_ms: 5000 };
        let frames = [written(|out| ticket.to_frame(out)), written(|out| welcome.to_frame(out))].concat();
        let joined = record(&mut server.sealing, &frames);
        assert_eq!(joined, bytes("server-1"));
        let got = received(&mut client.opening, &joined).unwrap();
        assert_eq!(Ticket::from_payload(&got[0].1), Ok(ticket));
        assert_eq!(Welcome::from_payload(&got[1].1), Ok(welcome));

        let draining = Draining { grace_ms: 10_000 };
        let goodbye = Goodbye { reason: GoodbyeReason::Draining, code: 0 };
        let frames = [written(|out| draining.to_frame(out)), written(|out| goodbye.to_frame(out))].concat();
        let end = record(&mut server.sealing, &frames);
        assert_eq!(end, bytes("server-2"));
        let got = received(&mut client.opening, &end).unwrap();
        assert_eq!(Draining::from_payload(&got[0].1), Ok(draining));
        assert_eq!(Goodbye::from_payload(&got[1].1), Ok(goodbye));

        let (mut sealing, mut opening) = (client.sealing.expand(), server.opening.expand());
        while sealing.half().records() < REKEY_RECORDS - 1 {
            let mut sealed = record_room(&frame(Kind::Message, &[9]));
            sealing.seal(&mut sealed).unwrap();
            opening.next(&mut sealed).unwrap();
        }
        for (what, byte) in [("client-65535", 7), ("client-65536", 8)] {
            let mut sealed = record_room(&frame(Kind::Message, &[byte]));
            sealing.seal(&mut sealed).unwrap();
            assert_eq!(sealed, bytes(what));
            opening.next(&mut sealed).unwrap();
        }
        let mut bare = record_room(&[9]);
        sealing.seal_message(&mut bare).unwrap();
        assert_eq!(bare, bytes("client-65537"));
        opening.next(&mut bare).unwrap();
        assert_eq!(bare[2..3], [9]);
    }

    let refused = golden.remove("aesgcm-refused").expect("a refusal");
    let (preamble, client) = begin(Suite::AesGcm);
    let keys = keys();
    let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!() };
    let refusal = Refusal { reason: RefusalReason::AppVersion, text: "please update" };
    let mut answer = [0; ANSWER_MAX];
    let len = preamble.read(limit(), [0x5E; 32]).unwrap().refuse(&refusal, &mut answer).unwrap();
    assert_eq!(answer[..len], refused);
    let mut room = [0; ANSWER_MAX];
    let Ok(Answer::Refused(read)) = client.read(&refused, &mut room) else { panic!("it is a refusal") };
    assert_eq!(read, refusal);

    assert!(golden.is_empty(), "nobody checks {:?}", golden.keys());
}

/// Frames with room for a record around them.
fn record_room(frames: &[u8]) -> Vec<u8> {
    [&[0; 2][..], frames, &[0; 16]].concat()
}

#[test]
fn a_sealed_link_is_the_golden_one() {
    let mut golden = golden();
    golden.retain(|name, _| name.starts_with("link"));
    let mut bytes = |name| golden.remove(name).unwrap_or_else(|| panic!("no golden {name}"));

    let secret = LinkSecret::derive("0123456789abcdef0123456789abcdef").unwrap();
    let (mut first, mut second) = ([0; SEAL_FRAME], [0; SEAL_FRAME]);
    let (_, client) = ExpectSeal::begin(&secret, FrameLimit::DEFAULT, [0xC1; 32], &mut first).unwrap();
    assert_eq!(first[..], bytes("link-client"));
    let (_, mut server) = seal_link(&secret, &first, FrameLimit::DEFAULT, [0x5E; 32], &mut second).unwrap();
    assert_eq!(second[..], bytes("link-server"));
    let Ok(LinkAnswer::Sealed(mut client)) = client.read(&second) else { panic!("it is sealed") };
    assert_eq!(client.hash.bytes()[..], bytes("link-hash"));

    let greeting = Greeting {
        ticket: &[],
        app_version: 3,
        frame_limit: FrameLimit::DEFAULT,
        incarnation: 7,
        schema_hash: 0x0123_4567_89AB_CDEF,
        service: "chat",
        node: "chat-3",
    };
    let mut room = [0; lan::CONTROL_FRAME_MAX];
    let len = greeting.to_frame(&mut room).unwrap();
    let sealed = record(&mut client.sealing, &room[..len]);
    assert_eq!(sealed, bytes("link-client-0"));
    let got = received(&mut server.opening, &sealed).unwrap();
    assert_eq!(Greeting::from_payload(&got[0].1), Ok(greeting));

    assert!(golden.is_empty(), "nobody checks {:?}", golden.keys());
}
