//! Sealed LAN links: the same frames as on a plain one, inside records.
//!
//! ```text
//!  client                                                              server
//!  ExpectSeal ── greeting frame: magic, protocol, flag, message 1 ───►  begun
//!             ◄─ greeting frame: magic, protocol, flag, message 2 ────  Secured
//!  Secured    ◄══ records: greeting, greeting, welcome, messages … ══►
//! ```
//!
//! Both sides know a secret, which the handshake (`Noise_NNpsk0_25519_AESGCM_SHA256`) proves. The greetings that say who
//! is there travel *inside* the first records and not in the handshake: message 1 can be replayed by whoever recorded it,
//! and a replayed greeting would speak for a node that is not there.

use super::handshake::Secured;
use super::keys::LinkSecret;
use super::noise::{HandshakeError, MESSAGE_1, Noise};
use super::suite::Suite;
use crate::codec::{Reader, WriteError, Writer};
use crate::framing::{Find, FrameError, FrameLimit, Kind};
use crate::lan::greeting::SEALED;
use crate::lan::{self, ControlError, Expect, LanFraming, Refusal};

/// Bytes of the frame that either side begins with: a greeting whose flag asks for a sealed link.
pub const SEAL_FRAME: usize = lan::HEADER + SEAL_PAYLOAD as usize;
const SEAL_PAYLOAD: u32 = 56;
const _: () = assert!(SEAL_FRAME == PROLOGUE + MESSAGE_1);

/// Frame header, magic, protocol version and flags: the prologue of the handshake.
const PROLOGUE: usize = lan::HEADER + 8;

/// A client of a sealed link that has begun and waits for the server.
#[derive(Debug)]
pub struct ExpectSeal {
    noise: Noise,
    limit: FrameLimit,
    frames: LanFraming,
}

impl ExpectSeal {
    /// Writes the first frame to the front of `out`, which has room for [`SEAL_FRAME`] bytes. `limit` is for the payloads
    /// that we accept; `entropy` is 32 fresh random bytes of the driver's: never used before or again.
    pub fn begin(
        secret: &LinkSecret,
        limit: FrameLimit,
        entropy: [u8; 32],
        out: &mut [u8],
    ) -> Result<(usize, Self), HandshakeError> {
        let room = HandshakeError::Room { needed: SEAL_FRAME, available: out.len() };
        let out = out.get_mut(..SEAL_FRAME).ok_or(room)?;
        let (prologue, message) = out.split_at_mut_checked(PROLOGUE).ok_or(room)?;
        write_prologue(prologue).map_err(|_| room)?;
        let mut noise = Noise::link_client(secret, prologue, entropy)?;
        noise.write(&[], message)?;
        Ok((SEAL_FRAME, Self { noise, limit, frames: LanFraming::client(limit) }))
    }

    /// Looks for the server's first frame.
    pub fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        self.frames.find(bytes)
    }

    /// Reads the server's first frame, the bytes that [`find`](Self::find) found. A refusal is *not* authenticated: a
    /// plain server, or one with another secret, can give no other. A plain greeting is none: a link that was to be
    /// sealed is never made plain.
    pub fn read<'a>(mut self, frame: &'a [u8]) -> Result<LinkAnswer<'a>, HandshakeError> {
        let opened = self.frames.open(frame).map_err(|_| HandshakeError::Forged)?;
        let payload = frame.get(opened.payload).unwrap_or_default();
        if opened.kind == Kind::Refusal {
            return Ok(LinkAnswer::Refused(Refusal::from_payload(payload)?));
        }
        self.noise.read(message(payload)?, &mut [])?;
        let frames = LanFraming::inside(self.limit, Expect::Answer);
        Ok(LinkAnswer::Sealed(Secured::of(self.noise.split()?, Suite::AesGcm, true, frames)))
    }
}

/// What a server answers to a client that wants the link sealed.
#[derive(Debug)]
pub enum LinkAnswer<'a> {
    /// It knows the secret. The client's greeting goes next, in a record.
    Sealed(Secured),
    /// No, and why; whoever said so did not prove who it is.
    Refused(Refusal<'a>),
}

/// Whether the payload of a client's greeting frame asks for a sealed link; a server with a secret asks before it reads
/// it, and refuses ([`Sealing`](crate::lan::RefusalReason::Sealing)) one that does not.
pub fn wants_seal(greeting_payload: &[u8]) -> bool {
    message(greeting_payload).is_ok()
}

/// A server answers `frame`, a client's greeting frame that [wants the link sealed](wants_seal): writes its own first
/// frame to the front of `out`, which has room for [`SEAL_FRAME`] bytes. The client's greeting comes next, in a record.
///
/// A wrong secret is [`HandshakeError::Forged`], found without a Diffie-Hellman; then the server refuses (Sealing) in the
/// clear, because it happens to honest people who mistyped a secret, and tells nothing that its silence would not.
pub fn seal_link(
    secret: &LinkSecret,
    frame: &[u8],
    limit: FrameLimit,
    entropy: [u8; 32],
    out: &mut [u8],
) -> Result<(usize, Secured), HandshakeError> {
    let room = HandshakeError::Room { needed: SEAL_FRAME, available: out.len() };
    let payload = frame.get(lan::HEADER..).ok_or(HandshakeError::Forged)?;
    let message_1 = message(payload)?;
    let prologue = frame.get(..PROLOGUE).ok_or(HandshakeError::Forged)?;
    let mut noise = Noise::link_server(secret, prologue, entropy)?;
    noise.read(message_1, &mut [])?;
    let out = out.get_mut(..SEAL_FRAME).ok_or(room)?;
    let (prologue, message_2) = out.split_at_mut_checked(PROLOGUE).ok_or(room)?;
    write_prologue(prologue).map_err(|_| room)?;
    noise.write(&[], message_2)?;
    let frames = LanFraming::inside(limit, Expect::Greeting);
    Ok((SEAL_FRAME, Secured::of(noise.split()?, Suite::AesGcm, false, frames)))
}

fn write_prologue(out: &mut [u8]) -> Result<(), WriteError> {
    let mut out = Writer::new(out);
    out.bytes(&lan::header(Kind::Greeting, SEAL_PAYLOAD))?;
    out.bytes(&lan::MAGIC)?;
    out.u16(lan::PROTOCOL)?;
    out.u16(SEALED)
}

/// The handshake message in the payload of a greeting that asks for a sealed link.
fn message(payload: &[u8]) -> Result<&[u8], ControlError> {
    let mut read = Reader::new(payload);
    if read.array()? != lan::MAGIC {
        return Err(ControlError::Magic);
    }
    match read.u16()? {
        lan::PROTOCOL => {}
        theirs => return Err(ControlError::Protocol { theirs }),
    }
    match read.u16()? {
        SEALED => {}
        flags => return Err(ControlError::Flags(flags)),
    }
    let message = read.take(MESSAGE_1)?;
    read.finish()?;
    Ok(message)
}
