//! The gate: who is told apart from whom, at which byte, and that nobody gets through by chance. F01, F09, F12, F13, F16,
//! F19.

use madang_wire::lan::LanFraming;
use madang_wire::wan::{
    Gate, GateError, MAGIC, PREAMBLE, PREAMBLE_MAX, PublicKey, SERVER_KEYS_MAX, SecretKey, ServerKeys,
    ServerKeysError, Stranger, Suite,
};
use madang_wire::{FrameError, FrameLimit, Framing};

use crate::{SERVER, begin, hello, keys, second};

fn need(keys: &ServerKeys, bytes: &[u8]) -> usize {
    match keys.gate(bytes) {
        Ok(Gate::Need { total }) => total,
        Ok(Gate::Passed(_)) => panic!("{} bytes passed", bytes.len()),
        Err(error) => panic!("{} bytes: {error}", bytes.len()),
    }
}

fn refused(keys: &ServerKeys, bytes: &[u8]) -> GateError {
    match keys.gate(bytes) {
        Err(error) => error,
        Ok(_) => panic!("{bytes:02x?} was not refused"),
    }
}

#[test]
fn a_preamble_passes_when_all_of_it_is_there_and_not_before() {
    let keys = keys();
    for suite in Suite::ALL {
        let (preamble, _) = begin(suite);
        for len in 0..PREAMBLE {
            assert_eq!(need(&keys, &preamble[..len]), if len < 6 { 6 } else { PREAMBLE }, "{len} bytes");
        }
        let more = [&preamble[..], b"more"].concat();
        for bytes in [&preamble[..], &more] {
            let Ok(Gate::Passed(passed)) = keys.gate(bytes) else { panic!("it did not pass") };
            assert_eq!(passed.used(), PREAMBLE);
            assert_eq!(passed.hello(), Ok(hello(suite)));
            assert_eq!(passed.server_key(), keys.public().next().unwrap());
        }
    }
}

/// Each of the table is closed on in one read, at the first byte that differs from ours.
#[test]
fn f12_f13_strangers_are_told_apart_at_their_first_bytes() {
    let keys = keys();
    let table: [(&[u8], Stranger); 12] = [
        (b"GET / HTTP/1.1\r\n", Stranger::Http),
        (b"OPTIONS * HTTP/1.1\r\n", Stranger::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Stranger::Http),
        (b"G", Stranger::Http),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3], Stranger::Tls),
        (&[0x16], Stranger::Tls),
        (&[0x80, 0x2E, 1, 3, 1], Stranger::Tls),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Stranger::Ssh),
        (&[46, 0, 0, 1, b'M', b'D', b'N', b'G', 1, 0], Stranger::Lan),
        (&[b'M', 0, 0, 1, b'M', b'D'], Stranger::Lan),
        (&[3, 0, 0, 4, 1, 2, 3], Stranger::Unknown),
        (b"MDWM", Stranger::Unknown),
    ];
    for (bytes, stranger) in table {
        assert_eq!(refused(&keys, bytes), GateError::Stranger(stranger), "{bytes:02x?}");
        let same = bytes.iter().zip(&MAGIC).take_while(|(theirs, ours)| theirs == ours).count();
        need(&keys, &bytes[..same]);
        assert!(matches!(refused(&keys, &bytes[..same + 1]), GateError::Stranger(_)), "{bytes:02x?}");
    }
}

#[test]
fn f12_a_wan_client_on_a_plain_port_is_no_frame() {
    let (preamble, _) = begin(Suite::AesGcm);
    let mut server = LanFraming::server(FrameLimit::DEFAULT);
    assert_eq!(Framing::find(&mut server, &preamble), Err(FrameError::UnknownKind(b'N')));
}

#[test]
fn f01_a_preamble_of_another_length_is_refused_as_soon_as_it_says_so() {
    let keys = keys();
    for (len, sound) in
        [(0, false), (76, false), (77, true), (94, true), (512, true), (513, false), (65_535, false)]
    {
        let bytes = [&MAGIC[..], &u16::to_le_bytes(len)].concat();
        match sound {
            true => assert_eq!(need(&keys, &bytes), usize::from(len)),
            false => assert_eq!(refused(&keys, &bytes), GateError::Length { len: len.into() }),
        }
    }
    assert_eq!(PREAMBLE_MAX, 512);
}

/// F09, F19: the tag covers every bit, and every bit of the tag counts.
#[test]
fn f09_f19_a_preamble_with_one_bit_changed_never_passes() {
    let keys = keys();
    let (preamble, _) = begin(Suite::ChaChaPoly);
    for bit in 0..PREAMBLE * 8 {
        let mut changed = preamble;
        changed[bit / 8] ^= 1 << (bit % 8);
        match (bit / 8, keys.gate(&changed)) {
            (0..4, Err(GateError::Stranger(_))) => {}
            // A longer one is waited for, until the deadline of its embryo.
            (4..6, Err(GateError::Length { .. } | GateError::Tag) | Ok(Gate::Need { .. })) => {}
            (6..10, Err(GateError::Key { .. })) => {}
            (10.., Err(GateError::Tag)) => {}
            _ => panic!("bit {bit}"),
        }
    }
}

#[test]
fn f16_clients_that_pin_any_live_key_pass_and_others_learn_nothing() {
    let secret = |byte| SecretKey::from_bytes(&mut [byte; 32]);
    let preamble = |byte: u8| {
        let server = second::public([byte; 32]);
        second::Client::begin(&second::Hello::of(1), server, [9; 32]).0
    };
    let keys = ServerKeys::new([1, 2, 3, 4].map(secret)).unwrap();
    for byte in [1, 2, 3, 4] {
        let bytes = preamble(byte);
        let Ok(Gate::Passed(passed)) = keys.gate(&bytes) else { panic!("key {byte} is live") };
        assert_eq!(*passed.server_key().bytes(), second::public([byte; 32]));
    }
    let id = PublicKey::from_bytes(second::public([5; 32])).id();
    assert_eq!(refused(&keys, &preamble(5)), GateError::Key { id });
    assert_eq!(GateError::Key { id }.to_string(), format!("key id {id} is none of ours"));
}

#[test]
fn a_server_has_one_to_four_different_keys() {
    let make = |bytes: &[u8]| {
        let secrets: Vec<_> = bytes.iter().map(|byte| SecretKey::from_bytes(&mut [*byte; 32])).collect();
        ServerKeys::new(secrets).map(|keys| keys.public().count())
    };
    assert_eq!(make(&[]), Err(ServerKeysError::None));
    assert_eq!(make(&[1]), Ok(1));
    assert_eq!(make(&[1, 2, 3, 4]), Ok(SERVER_KEYS_MAX));
    assert_eq!(make(&[1, 2, 3, 4, 5]), Err(ServerKeysError::TooMany));
    let id = PublicKey::from_bytes(second::public([1; 32])).id();
    assert_eq!(make(&[1, 2, 1]), Err(ServerKeysError::SameId { id }));
}

#[test]
fn f15_secrets_do_not_print() {
    let secret = SecretKey::from_bytes(&mut SERVER.clone());
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(secret.public().to_string().len(), 64);
    let mut source = SERVER;
    SecretKey::from_bytes(&mut source);
    assert_eq!(source, [0; 32], "where it was is wiped");
}
