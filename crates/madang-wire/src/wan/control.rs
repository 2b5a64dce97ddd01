//! The words between the engines inside a WAN connection's records, beside those that a LAN has too.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::handshake::HandshakeHash;
use crate::codec::{Reader, WriteError};
use crate::framing::Kind;
use crate::lan::control::write_frame;
use crate::lan::kinds::{PROOF_MAX, TICKET_MAX, TOKEN_MAX};
use crate::lan::queue::{put_bytes, take_bytes};
use crate::lan::{ControlError, HEADER};

/// Bytes of a proof made by [`log_in_proof`].
pub const PROOF: usize = 32;

/// Who the player is: a client's first frame, sent at once when it was accepted, in a record of its own (a server makes
/// no more room than that takes before it knows who it is). What the token means is between content
/// and its log-in service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogIn<'a> {
    /// From the log-in service, at most 2,048 bytes; empty where there is none.
    pub token: &'a [u8],
    /// That the sender may use the token, *on this connection*: [`log_in_proof`], or a signature over the handshake
    /// hash, at most 64 bytes; empty where tokens are not bound. A token without a proof can be used by whoever it was
    /// ever shown to.
    pub proof: &'a [u8],
    /// Keeps a place that the client had: see [`Ticket`](crate::lan::Ticket); empty where it had none.
    pub ticket: &'a [u8],
}

impl<'a> LogIn<'a> {
    /// The longest frame.
    pub const FRAME_MAX: usize = HEADER + *Kind::LogIn.payload_bounds().end();

    /// Writes the whole frame to the front of `out` and returns its length.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::LogIn, out, |out| {
            put_bytes(out, self.token, TOKEN_MAX)?;
            put_bytes(out, self.proof, PROOF_MAX)?;
            put_bytes(out, self.ticket, TICKET_MAX)
        })
    }

    /// Reads the payload of a log-in frame.
    pub fn from_payload(payload: &'a [u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let log_in = Self {
            token: take_bytes(&mut read, TOKEN_MAX)?,
            proof: take_bytes(&mut read, PROOF_MAX)?,
            ticket: take_bytes(&mut read, TICKET_MAX)?,
        };
        read.finish()?;
        Ok(log_in)
    }
}

/// The proof that whoever sends a token knows the secret that goes with it, for this connection alone: HMAC-SHA256 under
/// `secret` of `madang log-in 1` and the handshake hash. The log-in service gave token and secret to the player, and can
/// tell the server the secret of a token.
pub fn log_in_proof(secret: &[u8], hash: &HandshakeHash) -> [u8; PROOF] {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    mac.update(b"madang log-in 1");
    mac.update(hash.bytes());
    mac.sign().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Whether `proof` is [`log_in_proof`] of the same, in a time that does not depend on where they differ.
pub fn log_in_is_proven(secret: &[u8], hash: &HandshakeHash, proof: &[u8]) -> bool {
    log_in_proof(secret, hash).ct_eq(proof).into()
}

/// The server will go away: a client had better come to a good place to stop, and go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Until it says goodbye, in milliseconds.
    pub grace_ms: u32,
}

impl Draining {
    /// Writes the whole frame to the front of `out` and returns its length, 8 bytes.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Draining, out, |out| out.u32(self.grace_ms))
    }

    /// Reads the payload of a draining frame.
    pub fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let draining = Self { grace_ms: read.u32()? };
        read.finish()?;
        Ok(draining)
    }
}
