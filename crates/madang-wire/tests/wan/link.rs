//! Sealed LAN links: who knows the secret, and that what N4 compares is authenticated. F04, F10, F11, F12.

use madang_wire::lan::{self, ControlError, Expect, Greeting, LanFraming, Refusal, RefusalReason};
use madang_wire::wan::{
    ExpectSeal, HandshakeError, LINK_SECRET_LEAST, LinkAnswer, LinkSecret, SEAL_FRAME, Secured, seal_link,
    wants_seal,
};
use madang_wire::{Find, FrameError, FrameLimit, Kind};

use crate::handshake::low_order_keys;
use crate::{frame, message, received, record, second};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn secret() -> LinkSecret {
    LinkSecret::derive(SECRET).unwrap()
}

fn begin(secret: &LinkSecret) -> (Vec<u8>, ExpectSeal) {
    let mut out = [0xEE; SEAL_FRAME];
    let (len, client) = ExpectSeal::begin(secret, FrameLimit::DEFAULT, [0xC1; 32], &mut out).unwrap();
    (out[..len].to_vec(), client)
}

fn answer(secret: &LinkSecret, frame: &[u8]) -> Result<(Vec<u8>, Secured), HandshakeError> {
    let mut out = [0xEE; SEAL_FRAME];
    let (len, server) = seal_link(secret, frame, FrameLimit::DEFAULT, [0x5E; 32], &mut out)?;
    Ok((out[..len].to_vec(), server))
}

fn sealed(client: ExpectSeal, frame: &[u8]) -> Result<Secured, HandshakeError> {
    match client.read(frame)? {
        LinkAnswer::Sealed(secured) => Ok(secured),
        LinkAnswer::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn link() -> (Secured, Secured) {
    let (first, client) = begin(&secret());
    let (second, server) = answer(&secret(), &first).unwrap();
    (sealed(client, &second).unwrap(), server)
}

fn greeting(node: &str) -> Vec<u8> {
    let mut out = [0; lan::CONTROL_FRAME_MAX];
    let greeting = Greeting { service: "chat", node, incarnation: 7, ..Greeting::default() };
    let len = greeting.to_frame(&mut out).unwrap();
    out[..len].to_vec()
}

/// The whole of a LAN's life, inside records: greetings, welcome, messages of a megabyte, goodbye.
#[test]
fn a_sealed_link_carries_what_a_plain_one_does() {
    let (mut client, mut server) = link();
    assert_eq!(client.hash, server.hash);
    assert_eq!((client.opening.expect(), server.opening.expect()), (Expect::Answer, Expect::Greeting));

    let bytes = record(&mut client.sealing, &greeting("chat-1"));
    let got = received(&mut server.opening, &bytes).unwrap();
    assert_eq!(Greeting::from_payload(&got[0].1).unwrap().node, "chat-1");
    let answer = [greeting("login-1"), frame(Kind::Welcome, &[0; 16])].concat();
    let bytes = record(&mut server.sealing, &answer);
    assert_eq!(received(&mut client.opening, &bytes).unwrap().len(), 2);

    let long = vec![7; FrameLimit::DEFAULT.get() as usize];
    let bytes = message(&mut client.sealing, &long);
    assert!(received(&mut server.opening, &bytes).unwrap() == [(Kind::Message, long)]);
    let bytes = record(&mut server.sealing, &frame(Kind::Goodbye, &[0x44, 0, 0, 0, 0]));
    received(&mut client.opening, &bytes).unwrap();
    assert_eq!(client.opening.expect(), Expect::End);
}

#[test]
fn a_second_end_of_a_link_understands_the_first() {
    let (first, client) = second::LinkClient::begin(SECRET, [4; 32], second::public([4; 32]));
    assert!(wants_seal(&first[lan::HEADER..]));
    let (bytes, mut server) = answer(&secret(), &first).unwrap();
    let mut client = client.read(&bytes).unwrap();
    assert_eq!(client.hash, *server.hash.bytes());
    let bytes = client.ours.seal(&greeting("chat-1"));
    assert_eq!(received(&mut server.opening, &bytes).unwrap()[0].0, Kind::Greeting);

    let (first, client) = begin(&secret());
    let (bytes, mut server) = second::link_answer(SECRET, &first, [6; 32]).unwrap();
    let mut client = sealed(client, &bytes).unwrap();
    assert_eq!(server.hash, *client.hash.bytes());
    assert_eq!(server.theirs.open(&record(&mut client.sealing, b"frames")).unwrap(), b"frames");
    assert!(received(&mut client.opening, &server.ours.seal(&greeting("login-1"))).is_ok());
}

#[test]
fn another_secret_is_found_out_on_either_side() {
    let other = LinkSecret::derive("another secret of thirty-two byte").unwrap();
    let (first, client) = begin(&other);
    assert_eq!(answer(&secret(), &first).err(), Some(HandshakeError::Forged));
    // A server that answers without the secret.
    let (answer, _) = second::link_answer("another secret of thirty-two byte", &first, [6; 32]).unwrap();
    let (_, honest) = begin(&secret());
    assert_eq!(sealed(honest, &answer).err(), Some(HandshakeError::Forged));
    assert!(sealed(client, &answer).is_ok());
}

#[test]
fn f04_a_first_frame_with_one_bit_changed_is_refused() {
    let (first, _) = begin(&secret());
    let (second, _) = answer(&secret(), &first).unwrap();
    for bit in 0..SEAL_FRAME * 8 {
        let change = |frame: &[u8]| {
            let mut changed = frame.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed
        };
        assert!(answer(&secret(), &change(&first)).is_err(), "bit {bit}");
        let (_, client) = begin(&secret());
        let changed = change(&second);
        assert!(!matches!(client.read(&changed), Ok(LinkAnswer::Sealed(_))), "bit {bit}");
    }
}

#[test]
fn f10_worthless_keys_are_refused_on_both_ends_of_a_link() {
    for key in low_order_keys() {
        let (first, _) = second::LinkClient::begin(SECRET, [4; 32], key);
        assert_eq!(answer(&secret(), &first).err(), Some(HandshakeError::LowOrderKey), "{key:02x?}");

        let (_, client) = begin(&secret());
        let frame = [&second::LINK_PROLOGUE[..], &key, &[0; 16]].concat();
        assert_eq!(sealed(client, &frame).err(), Some(HandshakeError::LowOrderKey), "{key:02x?}");
    }
}

/// F11, F12: a plain server reads a sealed first frame as a greeting with a wish that it has to refuse, and a client that
/// wants a seal takes no plain greeting.
#[test]
fn f11_f12_plain_and_sealed_ends_refuse_each_other() {
    let (first, client) = begin(&secret());
    let mut plain = LanFraming::server(FrameLimit::DEFAULT);
    assert_eq!(plain.find(&first), Ok(Find::Frame { len: SEAL_FRAME }));
    let opened = plain.open(&first).unwrap();
    let error = Greeting::from_payload(&first[opened.payload]).unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalReason::Sealing));

    let plain = greeting("login-1");
    assert!(!wants_seal(&plain[lan::HEADER..]));
    assert_eq!(client.find(&plain), Ok(Find::Frame { len: plain.len() }));
    assert_eq!(sealed(client, &plain).err(), Some(HandshakeError::Content(ControlError::Flags(0))));

    let mut refusal = [0; lan::CONTROL_FRAME_MAX];
    let len = Refusal { reason: RefusalReason::Sealing, text: "" }.to_frame(&mut refusal).unwrap();
    let (_, client) = begin(&secret());
    let Ok(LinkAnswer::Refused(refusal)) = client.read(&refusal[..len]) else { panic!("it is a refusal") };
    assert_eq!(refusal.reason, RefusalReason::Sealing);
}

/// F06: a recorded first frame begins a handshake that whoever replays it cannot end: its greeting never comes.
#[test]
fn f06_a_replayed_first_frame_speaks_for_nobody() {
    let (first, _) = begin(&secret());
    let (_, mut once) = answer(&secret(), &first).unwrap();
    let mut out = [0; SEAL_FRAME];
    let (_, mut again) = seal_link(&secret(), &first, FrameLimit::DEFAULT, [0x99; 32], &mut out).unwrap();
    let (mut client, _) = link();
    let recorded = record(&mut client.sealing, &greeting("chat-1"));
    assert!(received(&mut once.opening, &recorded).is_ok());
    assert_eq!(received(&mut again.opening, &recorded), Err(FrameError::Forged));
}

#[test]
fn a_secret_is_derived_as_documented_and_never_shown() {
    assert_eq!(format!("{:?}", secret()), "***");
    for len in [0, LINK_SECRET_LEAST - 1] {
        let error = LinkSecret::derive(&"x".repeat(len)).unwrap_err();
        let words = format!(
            "link secret of {len} bytes, at least 32 needed: take 32 random bytes in hexadecimal digits"
        );
        assert_eq!(error.to_string(), words);
    }
}
