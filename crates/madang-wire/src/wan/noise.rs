//! The Noise handshake: `snow` runs it, over primitives and randomness that come from here.
//!
//! `snow` is built without any cryptography of its own. What it asks for is X25519 (which refuses an all-zero result:
//! Noise leaves that to the application), SHA-256, the two ciphers, and the 32 bytes of the ephemeral key.

use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::digest;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::keys::{LinkSecret, PublicKey, Secret, SecretKey};
use super::suite::{AeadKey, Suite, TAG};

/// The first message of either pattern without a payload: an ephemeral key and a tag.
pub(super) const MESSAGE_1: usize = 32 + TAG;

/// What the second message adds to its payload.
pub(super) const MESSAGE_2_OVERHEAD: usize = 32 + TAG;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's message does not open: it was changed on the way, or made for another key, hello or secret. Close
    /// without an answer.
    #[error("handshake message does not open")]
    Forged,
    /// The peer's key is one of the few under which every secret is the same. Close without an answer.
    #[error("worthless public key")]
    LowOrderKey,
    /// A suite that this build does not know. Close without an answer: there is no cipher to give one in.
    #[error("suite {0}")]
    Suite(u8),
    /// What the peer's message holds means nothing.
    #[error(transparent)]
    Content(#[from] crate::lan::ControlError),
    /// What we have to say cannot be said: a refusal whose text is too long or holds control characters. Local.
    #[error(transparent)]
    Unsayable(#[from] crate::WriteError),
    /// The room for the message is too small: local.
    #[error("{needed} bytes of room needed, {available} given")]
    Room {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// The handshake refused for a reason that none of its callers can cause: a fault of this crate.
    #[error("handshake in disorder")]
    Disorder,
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt => Self::Forged,
            snow::Error::Dh => Self::LowOrderKey,
            _ => Self::Disorder,
        }
    }
}

/// One side of a handshake under way.
#[derive(Debug)]
pub(super) struct Noise {
    state: snow::HandshakeState,
}

/// What both sides share when it is over.
pub(super) struct Split {
    /// Of all that was said: the same on both sides, and different for every handshake.
    pub(super) hash: [u8; 32],
    /// Of the initiator's records.
    pub(super) initiator: Secret,
    /// Of the responder's records.
    pub(super) responder: Secret,
}

impl Noise {
    /// A client that pins `server`.
    pub(super) fn client(
        suite: Suite,
        server: &PublicKey,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let builder = builder(nk(suite), ephemeral, None)?;
        let state = builder.prologue(prologue)?.remote_public_key(server.bytes())?.build_initiator()?;
        Ok(Self { state })
    }

    /// The server that has the secret half of the key that a client pins.
    pub(super) fn server(
        suite: Suite,
        secret: &SecretKey,
        public: &PublicKey,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let known = Some((Secret::take(&mut { *secret.expose() }), *public));
        let builder = builder(nk(suite), ephemeral, known)?;
        let state = builder.prologue(prologue)?.local_private_key(secret.expose())?.build_responder()?;
        Ok(Self { state })
    }

    /// The side of a sealed link that connects.
    pub(super) fn link_client(
        secret: &LinkSecret,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let builder = builder(NNPSK0, ephemeral, None)?;
        let state = builder.prologue(prologue)?.psk(0, secret.0.bytes())?.build_initiator()?;
        Ok(Self { state })
    }

    /// The side of a sealed link that listens.
    pub(super) fn link_server(
        secret: &LinkSecret,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let builder = builder(NNPSK0, ephemeral, None)?;
        let state = builder.prologue(prologue)?.psk(0, secret.0.bytes())?.build_responder()?;
        Ok(Self { state })
    }

    /// Writes this side's message around `payload` to the front of `out`.
    pub(super) fn write(&mut self, payload: &[u8], out: &mut [u8]) -> Result<usize, HandshakeError> {
        Ok(self.state.write_message(payload, out)?)
    }

    /// Reads the peer's message; its payload goes to the front of `out`.
    pub(super) fn read(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, HandshakeError> {
        Ok(self.state.read_message(message, out)?)
    }

    /// The end: the hash and the keys of both directions.
    pub(super) fn split(mut self) -> Result<Split, HandshakeError> {
        let hash = self.state.get_handshake_hash().first_chunk().copied();
        let (mut initiator, mut responder) = self.state.dangerously_get_raw_split();
        let split = Split {
            hash: hash.unwrap_or_default(),
            initiator: Secret::take(&mut initiator),
            responder: Secret::take(&mut responder),
        };
        if !self.state.is_handshake_finished() {
            return Err(HandshakeError::Disorder);
        }
        Ok(split)
    }
}

const fn nk(suite: Suite) -> &'static str {
    match suite {
        Suite::AesGcm => "Noise_NK_25519_AESGCM_SHA256",
        Suite::ChaChaPoly => "Noise_NK_25519_ChaChaPoly_SHA256",
    }
}

const NNPSK0: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

fn builder(
    name: &str,
    mut ephemeral: [u8; 32],
    known: Option<(Secret, PublicKey)>,
) -> Result<snow::Builder<'static>, HandshakeError> {
    let primitives = Primitives { ephemeral: Secret::take(&mut ephemeral), known };
    Ok(snow::Builder::with_resolver(name.parse()?, Box::new(primitives)))
}

/// What `snow` makes a handshake of.
struct Primitives {
    ephemeral: Secret,
    /// The server's own key pair, so that its public half is not computed again for each handshake.
    known: Option<(Secret, PublicKey)>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(copy(&self.ephemeral)))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let known = self.known.as_ref().map(|(secret, public)| (copy(secret), *public));
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 { secret: [0; 32], public: [0; 32], known })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256(digest::Context::new(&digest::SHA256)))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let suite = match choice {
            CipherChoice::AESGCM => Suite::AesGcm,
            CipherChoice::ChaChaPoly => Suite::ChaChaPoly,
        };
        Some(Box::new(Aead { suite, key: None }))
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::take(&mut { *secret.bytes() })
}

/// Randomness for one ephemeral key; asked again it has none, so that no key is ever made twice of the same bytes.
struct Once(Option<Secret>);

impl Random for Once {
    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), snow::Error> {
        let secret = self.0.take().ok_or(snow::Error::Rng)?;
        if room.len() != secret.bytes().len() {
            return Err(snow::Error::Rng);
        }
        room.copy_from_slice(secret.bytes());
        Ok(())
    }
}

struct X25519 {
    secret: [u8; 32],
    public: [u8; 32],
    known: Option<(Secret, PublicKey)>,
}

impl X25519 {
    fn take(&mut self, secret: [u8; 32]) {
        self.secret = secret;
        self.public = match &self.known {
            Some((known, public)) if bool::from(known.bytes().ct_eq(&secret)) => *public.bytes(),
            _ => MontgomeryPoint::mul_base_clamped(secret).to_bytes(),
        };
    }
}

impl Drop for X25519 {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = secret.first_chunk().copied().unwrap_or_default();
        self.take(bytes);
        bytes.zeroize();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = [0; 32];
        random.try_fill_bytes(&mut bytes)?;
        self.take(bytes);
        bytes.zeroize();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = theirs.first_chunk().ok_or(snow::Error::Dh)?;
        let mut shared = MontgomeryPoint(*theirs).mul_clamped(self.secret).to_bytes();
        let worthless = bool::from(shared.ct_eq(&[0; 32]));
        let room = out.first_chunk_mut().ok_or(snow::Error::Dh)?;
        *room = shared;
        shared.zeroize();
        if worthless { Err(snow::Error::Dh) } else { Ok(()) }
    }
}

struct Sha256(digest::Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = digest::Context::new(&digest::SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.clone().finish();
        for (place, byte) in out.iter_mut().zip(hash.as_ref()) {
            *place = *byte;
        }
    }
}

struct Aead {
    suite: Suite,
    key: Option<AeadKey>,
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        match self.suite {
            Suite::AesGcm => "AESGCM",
            Suite::ChaChaPoly => "ChaChaPoly",
        }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Some(self.suite.expand(key));
    }

    /// Answers 0 where there is no room, which no peer would take; `snow` looks at the room before it asks.
    fn encrypt(&self, counter: u64, data: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let mut sealed = || {
            let (text, behind) = out.split_at_mut_checked(plain.len())?;
            text.copy_from_slice(plain);
            *behind.first_chunk_mut()? = self.key.as_ref()?.seal(counter, data, text)?;
            plain.len().checked_add(TAG)
        };
        sealed().unwrap_or(0)
    }

    fn decrypt(
        &self,
        counter: u64,
        data: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        // `out` need not have room for the tag.
        let mut text = [0; super::FLIGHT_MAX];
        let text = text.get_mut(..sealed.len()).ok_or(snow::Error::Decrypt)?;
        text.copy_from_slice(sealed);
        let key = self.key.as_ref().ok_or(snow::Error::Decrypt)?;
        let len = key.open(counter, data, text).ok_or(snow::Error::Decrypt)?;
        let (room, plain) = out.get_mut(..len).zip(text.get(..len)).ok_or(snow::Error::Decrypt)?;
        room.copy_from_slice(plain);
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
