//! The server's gate: who knocks, told apart at the price of one hash.

use super::handshake::ExpectVerdict;
use super::keys::{KeyId, PublicKey, SERVER_KEYS_MAX, SecretKey};
use super::noise::HandshakeError;
use super::preamble::{GateKey, Hello, KEY_ID_AT, LENGTH_AT, MAGIC, PREAMBLE_LEAST, PREAMBLE_MAX, Parts};
use crate::framing::FrameLimit;
use crate::lan::{self, ControlError};

/// The keys that a server answers under: one to four, so that clients which still pin an old one get in while the new one
/// spreads. Shared between threads as it is; another set is another value.
#[derive(Debug)]
pub struct ServerKeys {
    keys: Vec<ServerKey>,
}

/// One key pair, with what follows from it.
#[derive(Debug)]
pub(super) struct ServerKey {
    pub(super) secret: SecretKey,
    pub(super) public: PublicKey,
    id: KeyId,
    gate: GateKey,
}

impl ServerKeys {
    /// The keys that are live, in any order.
    pub fn new(secrets: impl IntoIterator<Item = SecretKey>) -> Result<Self, ServerKeysError> {
        let mut keys: Vec<ServerKey> = Vec::new();
        for secret in secrets {
            let public = secret.public();
            let id = public.id();
            if keys.len() == SERVER_KEYS_MAX {
                return Err(ServerKeysError::TooMany);
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(ServerKeysError::SameId { id });
            }
            keys.push(ServerKey { gate: GateKey::of(&public), secret, public, id });
        }
        if keys.is_empty() {
            return Err(ServerKeysError::None);
        }
        Ok(Self { keys })
    }

    /// The public halves, in the order given.
    pub fn public(&self) -> impl Iterator<Item = PublicKey> {
        self.keys.iter().map(|key| key.public)
    }

    /// Looks at the first bytes of a connection, all that have come. Costs one hash at most, no Diffie-Hellman and no
    /// memory; asked again with more bytes behind the same ones it says the same or more.
    ///
    /// After an error the connection is closed *without an answer*: no byte goes to whoever does not speak the protocol.
    pub fn gate<'a>(&'a self, bytes: &'a [u8]) -> Result<Gate<'a>, GateError> {
        if bytes.iter().zip(&MAGIC).any(|(theirs, ours)| theirs != ours) {
            return Err(GateError::Stranger(Stranger::of(bytes)));
        }
        let Some(length) = bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk()) else {
            return Ok(Gate::Need { total: KEY_ID_AT });
        };
        let total = usize::from(u16::from_le_bytes(*length));
        if !(PREAMBLE_LEAST..=PREAMBLE_MAX).contains(&total) {
            return Err(GateError::Length { len: total });
        }
        let Some(preamble) = bytes.get(..total) else { return Ok(Gate::Need { total }) };
        let id = preamble.get(KEY_ID_AT..).and_then(|rest| rest.first_chunk());
        let id = KeyId::from_bytes(id.copied().unwrap_or_default());
        let key = self.keys.iter().find(|key| key.id == id).ok_or(GateError::Key { id })?;
        let parts = Parts::of(preamble).ok_or(GateError::Length { len: total })?;
        if !key.gate.verify(parts.tagged, parts.tag) {
            return Err(GateError::Tag);
        }
        Ok(Gate::Passed(Preamble { bytes: preamble, parts, key }))
    }
}

/// What the gate thinks of the bytes that have come.
#[derive(Debug)]
pub enum Gate<'a> {
    /// No more before `total` bytes are there, at most [`PREAMBLE_MAX`].
    Need {
        /// More than were shown.
        total: usize,
    },
    /// A preamble whose tag is right: worth the price of a handshake, if the server can afford one.
    Passed(Preamble<'a>),
}

/// A preamble that came through the gate. Its sender knows our public key, and nothing else is known of it.
#[derive(Debug)]
pub struct Preamble<'a> {
    bytes: &'a [u8],
    parts: Parts<'a>,
    key: &'a ServerKey,
}

impl Preamble<'_> {
    /// Bytes of the stream that it is. A client sends nothing behind it before it was answered.
    pub const fn used(&self) -> usize {
        self.bytes.len()
    }

    /// Which of our keys the client pins.
    pub const fn server_key(&self) -> PublicKey {
        self.key.public
    }

    /// What the client asks for, or why it cannot be served: [`ControlError::refusal`] has the reason to give. Not
    /// authenticated before [`read`](Self::read).
    pub fn hello(&self) -> Result<Hello, ControlError> {
        Hello::from_preamble(self.bytes)
    }

    /// Reads message 1: one Diffie-Hellman, the price of a stranger who took the trouble of a tag. `limit` is for the
    /// payloads that we accept, `entropy` 32 fresh random bytes of the driver's.
    ///
    /// After an error the connection is closed without an answer.
    pub fn read(&self, limit: FrameLimit, entropy: [u8; 32]) -> Result<ExpectVerdict, HandshakeError> {
        ExpectVerdict::read(self.key, &self.parts, limit, entropy)
    }
}

/// Why the gate closes. The peer gets no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Not our protocol, seen at the first wrong byte.
    #[error("not a WAN preamble: {0}")]
    Stranger(Stranger),
    /// A preamble is never of this length.
    #[error("preamble of {len} bytes, {PREAMBLE_LEAST} to {PREAMBLE_MAX} expected")]
    Length {
        /// Bytes announced.
        len: usize,
    },
    /// The client pins a key that is none of ours: an old build after a rotation, or another server's client.
    #[error("key id {id} is none of ours")]
    Key {
        /// Of the key it pins.
        id: KeyId,
    },
    /// The gate tag is wrong.
    #[error("wrong gate tag")]
    Tag,
}

/// Who it was that does not speak our protocol, as far as its first bytes tell: for counters, nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Stranger {
    /// A client of a LAN server: a wrong port in somebody's settings.
    #[error("a LAN greeting")]
    Lan,
    /// A browser, a load balancer's check, a scanner.
    #[error("HTTP")]
    Http,
    /// The same, over TLS.
    #[error("TLS")]
    Tls,
    /// A scanner.
    #[error("SSH")]
    Ssh,
    /// Something else.
    #[error("unknown")]
    Unknown,
}

impl Stranger {
    /// Every sort, for tables of counters.
    pub const ALL: [Self; 5] = [Self::Lan, Self::Http, Self::Tls, Self::Ssh, Self::Unknown];

    /// Judges by what has come, be it one byte.
    pub fn of(bytes: &[u8]) -> Self {
        const HTTP: [&[u8]; 10] = [
            b"GET ",
            b"HEAD ",
            b"POST ",
            b"PUT ",
            b"DELETE ",
            b"OPTIONS ",
            b"CONNECT ",
            b"TRACE ",
            b"PATCH ",
            b"PRI * HTTP/2",
        ];
        let begins = |with: &[u8]| bytes.iter().zip(with).all(|(theirs, known)| theirs == known);
        let greets = |rest: &[u8]| rest.iter().zip(&lan::MAGIC).all(|(theirs, known)| theirs == known);
        match bytes {
            [] => Self::Unknown,
            [_, _, 0, 1, rest @ ..] if greets(rest) => Self::Lan,
            // A handshake record of any version, or the old hello of version 2.
            [0x16] | [0x16, 3, ..] | [0x80, _, 1, 3, ..] => Self::Tls,
            _ if begins(b"SSH-") => Self::Ssh,
            _ if HTTP.into_iter().any(begins) => Self::Http,
            _ => Self::Unknown,
        }
    }
}

/// These keys cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerKeysError {
    /// No key at all: give one.
    #[error("no server key")]
    None,
    /// More than [`SERVER_KEYS_MAX`]: retire the oldest.
    #[error("more than {SERVER_KEYS_MAX} server keys")]
    TooMany,
    /// The same key twice, or two whose ids collide (once in four billion pairs): take one out.
    #[error("two server keys with id {id}")]
    SameId {
        /// Their id.
        id: KeyId,
    },
}
