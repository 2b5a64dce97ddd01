//! The public vectors of the patterns in use (`vectors/noise.txt`): both sides, each message, and the first records'
//! cipher behind them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice)]
#![allow(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Fields = BTreeMap<&'static str, Vec<u8>>;

/// The vectors by name, each with its fields.
fn vectors() -> BTreeMap<&'static str, Fields> {
    let mut vectors: BTreeMap<_, Fields> = BTreeMap::new();
    let text = include_str!("../../../vectors/noise.txt");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, hex) = line.split_once(": ").expect("name.field: hex");
        let (name, field) = name.split_once('.').expect("name.field");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        let bytes = (0..hex.len()).step_by(2).map(byte).collect();
        vectors.entry(name).or_default().insert(field, bytes);
    }
    vectors
}

#[test]
fn the_public_noise_vectors_hold() {
    let mut patterns = BTreeSet::new();
    for (name, fields) in vectors() {
        let (pattern, _) = name.rsplit_once('-').expect("pattern-set");
        patterns.insert(pattern);
        check(name, pattern, &fields);
    }
    assert_eq!(patterns, BTreeSet::from(["nk-aesgcm", "nk-chachapoly", "nnpsk0-aesgcm"]));
}

fn check(name: &str, pattern: &str, fields: &Fields) {
    let key = |field: &str| -> [u8; 32] { fields[field].as_slice().try_into().unwrap() };
    let (prologue, ours, theirs) =
        (&fields["prologue"], key("initiator-ephemeral"), key("responder-ephemeral"));
    let suite = if pattern.ends_with("chachapoly") { Suite::ChaChaPoly } else { Suite::AesGcm };

    let (client, server) = if pattern.starts_with("nk") {
        let secret = SecretKey::from_bytes(&mut key("responder-static"));
        let public = secret.public();
        assert_eq!(*public.bytes(), key("responder-public"), "{name}");
        let client = Noise::client(suite, &public, prologue, ours);
        (client, Noise::server(suite, &secret, &public, prologue, theirs))
    } else {
        let secret = LinkSecret(Secret::take(&mut key("psk")));
        (Noise::link_client(&secret, prologue, ours), Noise::link_server(&secret, prologue, theirs))
    };
    let (mut client, mut server) = (client.unwrap(), server.unwrap());

    let hand_over = |message: &str, payload: &str, from: &mut Noise, to: &mut Noise| {
        let (mut written, mut read) = ([0; 512], [0; 512]);
        let len = from.write(&fields[payload], &mut written).unwrap();
        assert_eq!(written[..len], fields[message], "{name} {message}");
        let len = to.read(&written[..len], &mut read).unwrap();
        assert_eq!(read[..len], fields[payload], "{name} {payload}");
    };
    hand_over("message-0", "payload-0", &mut client, &mut server);
    hand_over("message-1", "payload-1", &mut server, &mut client);

    let (client, server) = (client.split().unwrap(), server.split().unwrap());
    assert_eq!(client.hash, server.hash, "{name}");
    if let Some(hash) = fields.get("hash") {
        assert_eq!(client.hash[..], *hash, "{name}");
    }
    assert_eq!(client.initiator.bytes(), server.initiator.bytes(), "{name}");
    assert_eq!(client.responder.bytes(), server.responder.bytes(), "{name}");

    let mut transported = 0;
    while let Some(message) = fields.get(format!("message-{}", transported + 2).as_str()) {
        let payload = &fields[format!("payload-{}", transported + 2).as_str()];
        let secret = if transported % 2 == 0 { &client.initiator } else { &client.responder };
        let (key, counter) = (suite.expand(secret.bytes()), transported / 2);
        let mut text = payload.clone();
        let tag = key.seal(suite.nonce(counter), &[], &mut text).unwrap();
        text.extend(tag);
        assert_eq!(text, *message, "{name} message {transported} of the transport");
        assert_eq!(key.open(suite.nonce(counter), &[], &mut text), Some(payload.len()), "{name}");
        transported += 1;
    }
    assert!(transported >= 2, "{name}");
}
