//! `Noise_NK_25519_AESGCM_SHA256` and `…ChaChaPoly…`, by hand: both patterns are two messages.
//!
//! ```text
//!  pre-message   ← s          the server's key, pinned
//!  message 1     → e, es
//!  message 2     ← e, ee
//! ```

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::PublicKey;
use crate::dummy::framing::Malformed;

/// Bytes of a key and of a hash.
const KEY: usize = 32;

/// Bytes of an authentication tag.
pub(super) const TAG: usize = 16;

/// The cipher of a connection; the value is the byte in the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// AES-256-GCM: for processors with AES instructions
    Aesgcm = 1,
    /// ChaCha20-Poly1305
    Chachapoly = 2,
}

/// What both sides know when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) client: [u8; KEY],
    pub(super) server: [u8; KEY],
    /// Of all that was said. The dummy binds no token to it; the tests compare it.
    pub(super) hash: [u8; KEY],
}

/// A client that pins a server's key.
#[derive(Clone, Debug)]
pub(super) struct Client {
    symmetric: Symmetric,
    ephemeral: [u8; KEY],
}

impl Client {
    /// Makes message 1.
    pub(super) fn begin(
        suite: Suite,
        prologue: &[u8],
        server: PublicKey,
        ephemeral: [u8; KEY],
        payload: &[u8],
    ) -> (Self, Vec<u8>) {
        let mut symmetric = Symmetric::new(suite, prologue, server);
        let public = public(ephemeral);
        let mut message = public.to_vec();
        symmetric.mix_hash(&public);
        symmetric.mix_key(&x25519(ephemeral, server.0));
        message.extend(symmetric.seal(payload));
        (Self { symmetric, ephemeral }, message)
    }

    /// Reads message 2 and gives its payload.
    pub(super) fn end(mut self, message: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        let payload = read_ephemeral(&mut self.symmetric, self.ephemeral, message)?;
        Ok((payload, self.symmetric.split()))
    }
}

/// The other side, for the tests' double.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Server {
    secret: [u8; KEY],
}

#[cfg(test)]
impl Server {
    pub(crate) fn new(secret: [u8; KEY]) -> Self {
        Self { secret }
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(public(self.secret))
    }

    /// Reads message 1 and answers with a message 2 around what `answer` makes of the first payload.
    pub(super) fn respond(
        &self,
        suite: Suite,
        prologue: &[u8],
        message_1: &[u8],
        ephemeral: [u8; KEY],
        answer: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<(Vec<u8>, Keys), Malformed> {
        let mut symmetric = Symmetric::new(suite, prologue, self.public());
        let theirs = message_1.first_chunk().copied().unwrap_or_default();
        let payload = read_ephemeral(&mut symmetric, self.secret, message_1)?;
        let public = public(ephemeral);
        symmetric.mix_hash(&public);
        symmetric.mix_key(&x25519(ephemeral, theirs));
        let mut message = public.to_vec();
        message.extend(symmetric.seal(&answer(payload)));
        Ok((message, symmetric.split()))
    }
}

/// Tokens `e` and one Diffie-Hellman with `secret`, then the payload.
fn read_ephemeral(
    symmetric: &mut Symmetric,
    secret: [u8; KEY],
    message: &[u8],
) -> Result<Vec<u8>, Malformed> {
    let Some((theirs, sealed)) = message.split_first_chunk::<KEY>() else {
        return Err(Malformed(format!("a handshake message of {} bytes", message.len())));
    };
    let shared = x25519(secret, *theirs);
    if shared == [0; KEY] {
        return Err(Malformed("a worthless ephemeral key".into()));
    }
    symmetric.mix_hash(theirs);
    symmetric.mix_key(&shared);
    symmetric.open(sealed).ok_or_else(|| Malformed("a handshake message that does not open".into()))
}

fn public(secret: [u8; KEY]) -> [u8; KEY] {
    x25519(secret, X25519_BASEPOINT_BYTES)
}

/// Noise's symmetric state.
#[derive(Clone, Debug)]
struct Symmetric {
    suite: Suite,
    chaining: [u8; KEY],
    hash: [u8; KEY],
    /// Used once after each Diffie-Hellman here, so that its counter is always 0.
    key: [u8; KEY],
}

impl Symmetric {
    fn new(suite: Suite, prologue: &[u8], server: PublicKey) -> Self {
        let name: &[u8] = match suite {
            Suite::Aesgcm => b"Noise_NK_25519_AESGCM_SHA256",
            Suite::Chachapoly => b"Noise_NK_25519_ChaChaPoly_SHA256",
        };
        // Neither name is longer than a hash, so that none has to be hashed itself.
        let mut hash = [0; KEY];
        hash[..name.len()].copy_from_slice(name);
        let mut symmetric = Self { suite, chaining: hash, hash, key: [0; KEY] };
        symmetric.mix_hash(prologue);
        symmetric.mix_hash(&server.0);
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    fn mix_key(&mut self, secret: &[u8]) {
        [self.chaining, self.key] = hkdf(&self.chaining, secret);
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let tag = Cipher::new(self.suite, &self.key).seal(0, &self.hash, &mut text);
        text.extend(tag);
        self.mix_hash(&text);
        text
    }

    fn open(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut text = sealed.to_vec();
        Cipher::new(self.suite, &self.key).open(0, &self.hash, &mut text)?;
        self.mix_hash(sealed);
        Some(text)
    }

    fn split(self) -> Keys {
        let [client, server] = hkdf(&self.chaining, &[]);
        Keys { client, server, hash: self.hash }
    }
}

/// A key, ready for use. Whoever uses it counts.
pub(super) struct Cipher {
    suite: Suite,
    key: LessSafeKey,
}

impl Cipher {
    pub(super) fn new(suite: Suite, key: &[u8; KEY]) -> Self {
        let algorithm = match suite {
            Suite::Aesgcm => &AES_256_GCM,
            Suite::Chachapoly => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).expect("both take 32 bytes");
        Self { suite, key: LessSafeKey::new(key) }
    }

    pub(super) fn seal(&self, counter: u64, data: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let tag = self.key.seal_in_place_separate_tag(self.nonce(counter), Aad::from(data), text);
        tag.expect("far below the longest text").as_ref().try_into().expect("both make 16 bytes")
    }

    /// Opens `text` and takes its tag off.
    pub(super) fn open(&self, counter: u64, data: &[u8], text: &mut Vec<u8>) -> Option<()> {
        let plain = self.key.open_in_place(self.nonce(counter), Aad::from(data), text).ok()?.len();
        text.truncate(plain);
        Some(())
    }

    /// The key that follows this one: 32 zeros, sealed under the last counter.
    pub(super) fn next_key(&self) -> [u8; KEY] {
        let mut zeros = [0; KEY];
        self.seal(u64::MAX, &[], &mut zeros);
        zeros
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&match self.suite {
            Suite::Aesgcm => counter.to_be_bytes(),
            Suite::Chachapoly => counter.to_le_bytes(),
        });
        Nonce::assume_unique_for_key(nonce)
    }
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; KEY] {
    let mut hash = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hash.update(part));
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; KEY] {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| mac.update(part));
    mac.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The two outputs that Noise takes of its HKDF.
fn hkdf(chaining: &[u8; KEY], secret: &[u8]) -> [[u8; KEY]; 2] {
    let extracted = hmac_sha256(chaining, &[secret]);
    let first = hmac_sha256(&extracted, &[&[1]]);
    [first, hmac_sha256(&extracted, &[&first, &[2]])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dummy::framing::golden;

    const VECTORS: &str = include_str!("../../../../madang-wire/vectors/noise.txt");

    /// The public vectors, both sides: handshake, hash, and the first messages behind it.
    #[test]
    fn the_public_noise_vectors_hold() {
        for (suite, name) in [(Suite::Aesgcm, "nk-aesgcm"), (Suite::Chachapoly, "nk-chachapoly")] {
            let field = |field: &str| golden(VECTORS, &format!("{name}-cacophony.{field}"));
            let key = |name: &str| -> [u8; 32] { field(name).try_into().expect("32 bytes") };
            let (prologue, server) = (field("prologue"), Server::new(key("responder-static")));
            assert_eq!(server.public().0, key("responder-public"));

            let (client, message_1) = Client::begin(
                suite,
                &prologue,
                server.public(),
                key("initiator-ephemeral"),
                &field("payload-0"),
            );
            assert_eq!(message_1, field("message-0"), "{name}");
            let (message_2, theirs) = server
                .respond(suite, &prologue, &message_1, key("responder-ephemeral"), |payload| {
                    assert_eq!(payload, field("payload-0"));
                    field("payload-1")
                })
                .expect("our own message");
            assert_eq!(message_2, field("message-1"), "{name}");
            let (payload, ours) = client.end(&message_2).expect("the double's message");
            assert_eq!((payload, &ours), (field("payload-1"), &theirs));
            assert_eq!(ours.hash, key("hash"), "{name}");

            for (at, key) in [(2, ours.client), (3, ours.server)] {
                let mut text = field(&format!("payload-{at}"));
                let tag = Cipher::new(suite, &key).seal(0, &[], &mut text);
                text.extend(tag);
                assert_eq!(text, field(&format!("message-{at}")), "{name}");
                Cipher::new(suite, &key).open(0, &[], &mut text).expect("what was just sealed");
                assert_eq!(text, field(&format!("payload-{at}")));
            }
        }
    }

    #[test]
    fn an_altered_or_worthless_answer_does_not_open() {
        let server = Server::new([7; 32]);
        let (client, message_1) = Client::begin(Suite::Aesgcm, b"", server.public(), [8; 32], b"");
        let (message_2, _) =
            server.respond(Suite::Aesgcm, b"", &message_1, [9; 32], |_| b"yes".to_vec()).expect("our own");
        for at in 0..message_2.len() {
            let mut altered = message_2.clone();
            altered[at] ^= 1;
            assert!(client.clone().end(&altered).is_err(), "byte {at}");
            assert!(client.clone().end(&message_2[..at]).is_err(), "cut at {at}");
        }
        let mut worthless = message_2;
        worthless[..32].fill(0);
        assert_eq!(client.end(&worthless), Err(Malformed("a worthless ephemeral key".into())));
    }
}
