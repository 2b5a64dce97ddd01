//! The preamble: what a client sends before anyone knows it.
//!
//! ```text
//!  byte 0        4        6        10                30            78         94
//!      ┌────────┬────────┬────────┬────────────────┬──────────────┬──────────┐
//!      │ magic  │ length │ key id │ hello          │ message 1    │ gate tag │
//!      └────────┴────────┴────────┴────────────────┴──────────────┴──────────┘
//!       └ the prologue of the handshake ──────────┘
//!       └ what the gate tag covers ──────────────────────────────┘
//! ```
//!
//! The hello is in the clear so that a server can answer another version with words, under the tag so that strangers
//! cost no Diffie-Hellman, and in the prologue so that nobody on the way can change it.

use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::FLIGHT_MAX;
use super::keys::PublicKey;
use super::noise::MESSAGE_1;
use super::suite::Suite;
use crate::codec::{Reader, WriteError, Writer};
use crate::framing::FrameLimit;
use crate::lan::ControlError;

/// The first four bytes on a WAN connection.
pub const MAGIC: [u8; 4] = *b"MDWN";

/// The version of everything in this module. A hello of another version is refused, in words that can be trusted.
pub const PROTOCOL: u16 = 1;

/// Bytes of the gate tag.
pub const GATE_TAG: usize = 16;

/// Bytes of a preamble of this version.
pub const PREAMBLE: usize = PREAMBLE_LENGTH as usize;
const PREAMBLE_LENGTH: u16 = 94;
const _: () = assert!(PREAMBLE == HELLO_AT + HELLO + FIXED_TAIL);

/// The longest preamble of any version: what an embryo holds for a stranger.
pub const PREAMBLE_MAX: usize = FLIGHT_MAX;

/// The shortest preamble of any version: protocol version and suite are always there.
pub(super) const PREAMBLE_LEAST: usize = HELLO_AT + 3 + FIXED_TAIL;

pub(super) const LENGTH_AT: usize = 4;
pub(super) const KEY_ID_AT: usize = 6;
const HELLO_AT: usize = 10;
const HELLO: usize = 20;
const FIXED_TAIL: usize = MESSAGE_1 + GATE_TAG;

/// What a client asks for. All of it can be read on the way, none of it can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The cipher of the connection: the client's choice, which a server's settings may refuse.
    pub suite: Suite,
    /// The application's own version; the server's settings say which are admitted.
    pub app_version: u32,
    /// The longest message payload that the client accepts.
    pub frame_limit: FrameLimit,
    /// Of the interface files both sides were built from; 0 when there are none.
    pub schema_hash: u64,
}

impl Hello {
    /// Writes the part of a preamble up to message 1 to the front of `out` and returns its length.
    pub(super) fn to_prologue(self, server: &PublicKey, out: &mut [u8]) -> Result<usize, WriteError> {
        let mut out = Writer::new(out);
        out.bytes(&MAGIC)?;
        out.u16(PREAMBLE_LENGTH)?;
        out.bytes(&server.id().bytes())?;
        out.u16(PROTOCOL)?;
        out.u8(self.suite as u8)?;
        out.u8(0)?;
        out.u32(self.app_version)?;
        out.u32(self.frame_limit.get())?;
        out.u64(self.schema_hash)?;
        Ok(out.position())
    }

    /// Reads the hello of a whole preamble. Another protocol version is an error of its own, found before anything that
    /// this version defines is looked at.
    pub(super) fn from_preamble(preamble: &[u8]) -> Result<Self, ControlError> {
        let parts = Parts::of(preamble).ok_or(ControlError::Magic)?;
        let mut read = Reader::new(parts.prologue);
        read.take(HELLO_AT)?;
        match read.u16()? {
            PROTOCOL => {}
            theirs => return Err(ControlError::Protocol { theirs }),
        }
        let suite = read.u8()?;
        let suite =
            Suite::from_u8(suite).ok_or(ControlError::Field { field: "suite", value: suite.into() })?;
        match read.u8()? {
            0 => {}
            flags => return Err(ControlError::Flags(flags.into())),
        }
        let app_version = read.u32()?;
        let frame_limit = read.u32()?;
        let hello = Self {
            suite,
            app_version,
            frame_limit: FrameLimit::new(frame_limit).ok_or(ControlError::FrameLimit(frame_limit))?,
            schema_hash: read.u64()?,
        };
        read.finish()?;
        Ok(hello)
    }
}

/// A whole preamble, cut where every version is.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) prologue: &'a [u8],
    pub(super) message_1: &'a [u8],
    pub(super) tagged: &'a [u8],
    pub(super) tag: &'a [u8; GATE_TAG],
    /// The suite's byte, at the same place in every version.
    pub(super) suite: u8,
}

impl<'a> Parts<'a> {
    pub(super) fn of(preamble: &'a [u8]) -> Option<Self> {
        let (tagged, tag) = preamble.split_last_chunk()?;
        let (prologue, message_1) = tagged.split_last_chunk::<MESSAGE_1>()?;
        Some(Self { prologue, message_1, tagged, tag, suite: *prologue.get(HELLO_AT + 2)? })
    }
}

/// The key under which the preambles for one server key are tagged: HMAC-SHA256 under the SHA-256 of `madang gate 1` and
/// the public key. Whoever knows the public key can make tags: they keep strangers out, not attackers.
#[derive(Debug)]
pub(super) struct GateKey(hmac::Key);

impl GateKey {
    pub(super) fn of(server: &PublicKey) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"madang gate 1");
        hash.update(server.bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref()))
    }

    pub(super) fn tag(&self, tagged: &[u8]) -> [u8; GATE_TAG] {
        hmac::sign(&self.0, tagged).as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Compares in a time that does not depend on where the tags differ.
    pub(super) fn verify(&self, tagged: &[u8], tag: &[u8; GATE_TAG]) -> bool {
        self.tag(tagged).ct_eq(tag).into()
    }
}
