//! The Noise handshake: `snow` runs it, over primitives and randomness that come from here.
//!
//! `snow` is built without any cryptography of its own. What it asks for is X25519 (which refuses an all-zero result:
//! Noise leaves that to the application), SHA-256, the two ciphers, and the 32 bytes of the ephemeral key.

mod primitives;

use self::primitives::Primitives;
use super::keys::{LinkSecret, PublicKey, Secret, SecretKey};
use super::suite::{Suite, TAG};

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

#[cfg(test)]
mod tests;
