//! The handshake: against a second implementation, against whoever stands between, and against clever peers. F09, F10,
//! F11.

use madang_wire::lan::{ControlError, Refusal, RefusalReason};
use madang_wire::wan::{
    ANSWER_MAX, Answer, ExpectAnswer, Gate, GateError, HandshakeError, Hello, Preamble, PublicKey, Secured,
    Suite,
};
use madang_wire::{Find, FrameError, FrameLimit, Kind, WriteError};

use crate::{SERVER, accept, accepted, begin, frame, hello, keys, limit, record, second, secured};

/// Every string of 32 bytes under which all X25519 secrets are zero: the points of low order in each of their spellings,
/// and each with the bit set that X25519 does not look at.
pub(crate) fn low_order_keys() -> Vec<[u8; 32]> {
    let hex = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let parse = |hex: &str| -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
    };
    let plain = hex.map(parse);
    let with_bit = plain.map(|mut key| {
        key[31] |= 0x80;
        key
    });
    [plain, with_bit].concat()
}

/// What reading message 1 of a preamble comes to, once it is through the gate.
fn message_1(preamble: &[u8]) -> Result<(), HandshakeError> {
    let keys = keys();
    let Ok(Gate::Passed(preamble)) = keys.gate(preamble) else { panic!("it passes the gate") };
    preamble.read(limit(), [0x5E; 32]).map(|_| ())
}

fn answer_of(client: ExpectAnswer, answer: &[u8]) -> Result<Secured, HandshakeError> {
    let mut room = [0; ANSWER_MAX];
    match client.read(answer, &mut room)? {
        Answer::Accepted(_, secured) => Ok(secured),
        Answer::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[test]
fn both_ends_agree_and_no_two_handshakes_are_alike() {
    let mut hashes = Vec::new();
    for suite in Suite::ALL {
        let (client, server) = secured(suite);
        assert_eq!(client.hash, server.hash);
        hashes.push(*client.hash.bytes());

        let keys = keys();
        let (preamble, _) = begin(suite);
        let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!() };
        let mut out = [0; ANSWER_MAX];
        let (_, other) = preamble.read(limit(), [1; 32]).unwrap().accept(&accept(), &mut out).unwrap();
        hashes.push(*other.hash.bytes());
    }
    let all = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), all);
}

#[test]
fn a_second_client_and_a_second_server_understand_the_first_ones() {
    for suite in Suite::ALL {
        let server_key = second::public(SERVER);

        let (preamble, client) = second::Client::begin(&second::Hello::of(suite as u8), server_key, [4; 32]);
        let (answer, mut server) = accepted(&preamble);
        let (payload, mut client) = client.read(&answer).unwrap();
        let said = frame(Kind::Accept, &crate::accept_payload());
        assert_eq!(payload, said);
        assert_eq!(client.hash, *server.hash.bytes());
        let bytes = client.ours.seal(&crate::log_in());
        assert_eq!(crate::received(&mut server.opening, &bytes).unwrap()[0].0, Kind::LogIn);
        assert_eq!(client.theirs.open(&record(&mut server.sealing, b"frames")).unwrap(), b"frames");

        let (preamble, client) = begin(suite);
        let server = second::Server::read(&preamble, SERVER).unwrap();
        let (answer, mut server) = server.answer(&said, [6; 32]);
        let mut client = answer_of(client, &answer).unwrap();
        assert_eq!(*client.hash.bytes(), server.hash);
        assert_eq!(server.theirs.open(&record(&mut client.sealing, b"frames")).unwrap(), b"frames");
        let bytes = server.ours.seal(&frame(Kind::Ping, &[0; 8]));
        assert_eq!(crate::received(&mut client.opening, &bytes).unwrap()[0].0, Kind::Ping);
    }
}

/// F11: whoever stands between knows the public key and can make gate tags. All that a hello says is in the prologue, so
/// each change fails at message 1, before the server answered a byte.
#[test]
fn f11_a_hello_that_was_changed_on_the_way_fails_whatever_its_tag() {
    let server = second::public(SERVER);
    for suite in Suite::ALL {
        let (preamble, _) = begin(suite);
        message_1(&preamble).unwrap();
        for bit in 10 * 8..30 * 8 {
            let mut changed = preamble;
            changed[bit / 8] ^= 1 << (bit % 8);
            let tag = second::gate_tag(server, &changed[..78]);
            changed[78..].copy_from_slice(&tag);
            let error = message_1(&changed).unwrap_err();
            let suite_byte = changed[12];
            let expected = match Suite::from_u8(suite_byte) {
                Some(_) => HandshakeError::Forged,
                None => HandshakeError::Suite(suite_byte),
            };
            assert_eq!(error, expected, "bit {bit}");
        }
    }
}

/// F11, the other way: a client of a later version is told so by the server itself.
#[test]
fn f11_a_mismatch_is_refused_in_words_that_can_be_trusted() {
    type Change = fn(&mut second::Hello);
    let table: [(Change, ControlError, RefusalReason); 5] = [
        (|hello| hello.protocol = 2, ControlError::Protocol { theirs: 2 }, RefusalReason::Protocol),
        (
            |hello| {
                hello.protocol = 3;
                hello.more = vec![7; 418];
            },
            ControlError::Protocol { theirs: 3 },
            RefusalReason::Protocol,
        ),
        (|hello| hello.frame_limit = 0, ControlError::FrameLimit(0), RefusalReason::FrameLimit),
        (|hello| hello.flags = 4, ControlError::Flags(4), RefusalReason::Malformed),
        (
            |hello| hello.more = vec![0],
            ControlError::Read(madang_wire::ReadError::Trailing(1)),
            RefusalReason::Malformed,
        ),
    ];
    for (change, error, reason) in table {
        let mut hello = second::Hello::of(second::AES_GCM);
        change(&mut hello);
        let (preamble, client) = second::Client::begin(&hello, second::public(SERVER), [4; 32]);
        let keys = keys();
        let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!("{error:?} passes the gate") };
        assert_eq!(preamble.hello(), Err(error));
        assert_eq!(error.refusal(), Some(reason));
        let (payload, _) = client.read(&refuse(&preamble, reason, "please update")).unwrap();
        assert_eq!(
            payload,
            frame(Kind::Refusal, &[&[reason.to_u8(), 13, 0], &b"please update"[..]].concat())
        );
    }
}

fn refuse(preamble: &Preamble<'_>, reason: RefusalReason, text: &str) -> Vec<u8> {
    let mut answer = [0; ANSWER_MAX];
    let verdict = preamble.read(limit(), [0x5E; 32]).unwrap();
    let len = verdict.refuse(&Refusal { reason, text }, &mut answer).unwrap();
    answer[..len].to_vec()
}

#[test]
fn every_refusal_reaches_the_client_and_nobody_can_change_it() {
    let longest = "가".repeat(42);
    for (at, reason) in RefusalReason::NAMED.iter().enumerate() {
        let text = if at % 2 == 0 { &*longest } else { "" };
        let keys = keys();
        let (preamble, client) = begin(Suite::ChaChaPoly);
        let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!() };
        let answer = refuse(&preamble, *reason, text);
        assert_eq!(client.find(&answer), Ok(Find::Frame { len: answer.len() }));
        let mut room = [0; ANSWER_MAX];
        match client.read(&answer, &mut room).unwrap() {
            Answer::Refused(refusal) => assert_eq!(refusal, Refusal { reason: *reason, text }),
            Answer::Accepted(..) => panic!("{reason:?} was an acceptance"),
        }
    }
}

#[test]
fn a_refusal_that_no_client_would_read_is_not_sent() {
    let keys = keys();
    let (preamble, _) = begin(Suite::AesGcm);
    let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!() };
    let long = WriteError::TextTooLong { len: 129, limit: 128 };
    for (text, error) in [(&*"x".repeat(129), long), ("\n", WriteError::TextControl)] {
        let verdict = preamble.read(limit(), [0x5E; 32]).unwrap();
        let refusal = Refusal { reason: RefusalReason::Full, text };
        let refused = verdict.refuse(&refusal, &mut [0; ANSWER_MAX]);
        assert_eq!(refused, Err(HandshakeError::Unsayable(error)));
    }
}

#[test]
fn f09_an_answer_with_one_byte_changed_is_none() {
    for suite in Suite::ALL {
        let (answer, _) = accepted(&begin(suite).0);
        assert_eq!(answer.len(), 74);
        for at in 0..answer.len() {
            let mut changed = answer.clone();
            changed[at] ^= 1 << (at % 8);
            let (_, client) = begin(suite);
            match client.find(&changed) {
                Ok(Find::Frame { len }) if len == answer.len() => {
                    assert_eq!(answer_of(client, &changed).err(), Some(HandshakeError::Forged), "byte {at}");
                }
                // The length was changed: what is there is too short, or cut elsewhere.
                _ => assert!(at < 2),
            }
            let (_, client) = begin(suite);
            assert!(answer_of(client, &answer[..at]).is_err(), "cut to {at} bytes");
        }
    }
}

#[test]
fn f09_an_answer_of_another_length_is_refused_at_once() {
    let (_, client) = begin(Suite::AesGcm);
    assert_eq!(client.find(&[]), Ok(Find::Need { total: 2 }));
    assert_eq!(client.find(&[74]), Ok(Find::Need { total: 2 }));
    for len in 0..=u16::MAX {
        let found = client.find(&len.to_le_bytes());
        let len = usize::from(len);
        let expected = match len {
            0..55 => Err(FrameError::TooShort { len, least: 55 }),
            55..=510 => Ok(Find::Need { total: len + 2 }),
            _ => Err(FrameError::TooLong { len, limit: 510 }),
        };
        assert_eq!(found, expected);
    }
}

/// F09: answers to another hello, from another server, or recorded.
#[test]
fn f09_an_answer_to_another_handshake_is_none() {
    let server = keys().public().next().unwrap();
    let fresh = || {
        let mut out = [0; ANSWER_MAX];
        ExpectAnswer::begin(&server, &hello(Suite::AesGcm), [0x77; 32], &mut out).unwrap().1
    };
    let (recorded, _) = accepted(&begin(Suite::AesGcm).0);
    assert_eq!(answer_of(fresh(), &recorded).err(), Some(HandshakeError::Forged));

    // Who has not the server's secret key cannot even read the question.
    assert!(second::Server::read(&begin(Suite::AesGcm).0, SERVER).is_some());
    let (preamble, _) = begin(Suite::AesGcm);
    let keys = madang_wire::wan::ServerKeys::new([madang_wire::wan::SecretKey::from_bytes(&mut [8; 32])]);
    assert!(matches!(keys.unwrap().gate(&preamble), Err(GateError::Key { .. })));
}

#[test]
fn f09_what_an_answer_holds_is_one_frame_of_two_kinds() {
    let accept = [&[1, 0, 0, 0][..], &[0; 4], &[0, 1, 0, 0], &[0; 8]].concat();
    let sound = frame(Kind::Accept, &accept);
    let mut other_version = sound.clone();
    other_version[4] = 2;
    let mut flags = sound.clone();
    flags[6] = 1;
    let mut no_limit = sound.clone();
    no_limit[12..16].fill(0);
    let says = |len: u32| [&madang_wire::lan::header(Kind::Accept, len)[..], &accept].concat();
    let table: [(&str, Vec<u8>, bool); 13] = [
        ("sound", sound.clone(), true),
        ("a header that says less", says(19), false),
        ("a header that says more", says(21), false),
        ("nothing behind a header", sound[..4].to_vec(), false),
        ("cut", sound[..23].to_vec(), false),
        ("two frames", [&sound[..], &sound].concat(), false),
        ("a message", frame(Kind::Message, &accept), false),
        ("a welcome", frame(Kind::Welcome, &[0; 16]), false),
        ("another version", other_version, false),
        ("flags", flags, false),
        ("no frame limit", no_limit, false),
        ("a kind of a later version", [&[20, 0, 0, 99], &accept[..]].concat(), false),
        ("a refusal with a text that is longer than it", frame(Kind::Refusal, &[16, 9, 0, b'x']), false),
    ];
    for (what, payload, takes) in table {
        let (preamble, client) = begin(Suite::AesGcm);
        let (answer, _) = second::Server::read(&preamble, SERVER).unwrap().answer(&payload, [6; 32]);
        let read = answer_of(client, &answer).map(|_| ());
        match takes {
            true => assert_eq!(read, Ok(()), "{what}"),
            false => assert!(matches!(read, Err(HandshakeError::Content(_))), "{what}: {read:?}"),
        }
    }
}

#[test]
fn f10_worthless_keys_are_refused_on_both_sides() {
    let server = second::public(SERVER);
    let keys = low_order_keys();
    assert_eq!(keys.len(), 14);
    for suite in Suite::ALL {
        for key in &keys {
            let hello_of_theirs = second::Hello::of(suite as u8);
            let (preamble, _) = second::Client::begin_with_key(&hello_of_theirs, server, [4; 32], *key);
            assert_eq!(message_1(&preamble), Err(HandshakeError::LowOrderKey), "{key:02x?}");

            let (preamble, client) = begin(suite);
            let theirs = second::Server::read(&preamble, SERVER).unwrap();
            let (answer, _) = theirs.answer_with_key(&frame(Kind::Accept, &[0; 20]), [6; 32], *key);
            assert_eq!(answer_of(client, &answer).err(), Some(HandshakeError::LowOrderKey), "{key:02x?}");

            let pinned = PublicKey::from_bytes(*key);
            let begun = ExpectAnswer::begin(&pinned, &hello(suite), [4; 32], &mut [0; ANSWER_MAX]);
            assert_eq!(begun.err(), Some(HandshakeError::LowOrderKey), "{key:02x?}");
        }
    }
}

#[test]
fn too_little_room_is_an_error_and_no_panic() {
    let server = keys().public().next().unwrap();
    for available in [0, 93] {
        let begun = ExpectAnswer::begin(&server, &Hello::default(), [4; 32], &mut vec![0; available]);
        assert_eq!(begun.err(), Some(HandshakeError::Room { needed: 94, available }));
    }
    let keys = keys();
    let (preamble, _) = begin(Suite::AesGcm);
    let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!() };
    for available in [0, 1, 511] {
        let verdict = preamble.read(FrameLimit::DEFAULT, [0x5E; 32]).unwrap();
        let error = verdict.accept(&accept(), &mut vec![0; available]).err();
        assert_eq!(error, Some(HandshakeError::Room { needed: ANSWER_MAX, available }));
    }
}
