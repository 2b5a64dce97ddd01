//! The two sides of the WAN handshake, named for what they wait for.
//!
//! ```text
//!  client                                             server
//!  ExpectAnswer ── preamble, message 1 ─────────────►  gate ► ExpectVerdict
//!               ◄─────────── length, message 2 ──────  accept ► Secured, or refuse
//!  Secured      ◄════════════ records ══════════════►
//! ```

use super::FLIGHT_MAX;
use super::gate::ServerKey;
use super::keys::PublicKey;
use super::noise::{HandshakeError, MESSAGE_1, MESSAGE_2_OVERHEAD, Noise, Split};
use super::preamble::{GATE_TAG, GateKey, Hello, PREAMBLE, PROTOCOL, Parts};
use super::record::{Opening, Sealing};
use super::suite::Suite;
use crate::codec::{Reader, WriteError};
use crate::framing::{Find, FrameError, FrameLimit, Kind};
use crate::lan::control::write_frame;
use crate::lan::{self, ControlError, Expect, LanFraming, Refusal};

/// The longest answer to a preamble, its length included.
pub const ANSWER_MAX: usize = FLIGHT_MAX;

/// The length in front of message 2.
const ANSWER_HEAD: usize = 2;

/// The shortest message 2: a refusal without a text.
const MESSAGE_2_LEAST: usize = MESSAGE_2_OVERHEAD + lan::HEADER + 3;

/// What a finished handshake gives to either side.
#[derive(Debug)]
pub struct Secured {
    /// The same on both sides, and different for every handshake: what a log-in is bound to.
    pub hash: HandshakeHash,
    /// Our records.
    pub sealing: Sealing,
    /// The peer's.
    pub opening: Opening,
}

impl Secured {
    pub(super) fn of(split: Split, suite: Suite, we_began: bool, frames: LanFraming) -> Self {
        let (ours, theirs) = match we_began {
            true => (split.initiator, split.responder),
            false => (split.responder, split.initiator),
        };
        Self {
            hash: HandshakeHash(split.hash),
            sealing: Sealing::new(ours, suite),
            opening: Opening::new(theirs, suite, frames),
        }
    }
}

/// The hash of all that was said in a handshake. No secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandshakeHash([u8; 32]);

impl HandshakeHash {
    /// The bytes of the hash.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A client that has sent its preamble and waits for the answer.
#[derive(Debug)]
pub struct ExpectAnswer {
    noise: Noise,
    suite: Suite,
    limit: FrameLimit,
}

impl ExpectAnswer {
    /// Writes the preamble to the front of `out`, which has room for [`PREAMBLE`] bytes, and returns its length. `entropy`
    /// is 32 fresh random bytes of the driver's: never used before or again.
    pub fn begin(
        server: &PublicKey,
        hello: &Hello,
        entropy: [u8; 32],
        out: &mut [u8],
    ) -> Result<(usize, Self), HandshakeError> {
        let room = HandshakeError::Room { needed: PREAMBLE, available: out.len() };
        let out = out.get_mut(..PREAMBLE).ok_or(room)?;
        let prologue_len = hello.to_prologue(server, out).map_err(|_| room)?;
        let (tagged, tag) = out.split_last_chunk_mut::<GATE_TAG>().ok_or(room)?;
        let (prologue, message_1) = tagged.split_at_mut_checked(prologue_len).ok_or(room)?;
        let mut noise = Noise::client(hello.suite, server, prologue, entropy)?;
        let written = noise.write(&[], message_1)?;
        debug_assert_eq!((written, message_1.len()), (MESSAGE_1, MESSAGE_1));
        *tag = GateKey::of(server).tag(tagged);
        Ok((PREAMBLE, Self { noise, suite: hello.suite, limit: hello.frame_limit }))
    }

    /// Looks for the server's answer at the start of the stream.
    pub fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        let Some(head) = bytes.first_chunk() else { return Ok(Find::Need { total: ANSWER_HEAD }) };
        let len = usize::from(u16::from_le_bytes(*head));
        let limit = ANSWER_MAX.saturating_sub(ANSWER_HEAD);
        match len {
            _ if len < MESSAGE_2_LEAST => Err(FrameError::TooShort { len, least: MESSAGE_2_LEAST }),
            _ if len > limit => Err(FrameError::TooLong { len, limit }),
            _ => {
                let total = len.saturating_add(ANSWER_HEAD);
                Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
            }
        }
    }

    /// Reads `answer`, the bytes that [`find`](Self::find) found. What it says comes from the server whose key is pinned,
    /// and answers this very hello; `room` is for a refusal's text.
    pub fn read<'a>(
        mut self,
        answer: &[u8],
        room: &'a mut [u8; ANSWER_MAX],
    ) -> Result<Answer<'a>, HandshakeError> {
        let message = answer.get(ANSWER_HEAD..).ok_or(HandshakeError::Forged)?;
        let len = self.noise.read(message, room)?;
        let (kind, payload) = one_frame(room.get(..len).unwrap_or_default())?;
        match kind {
            Kind::Refusal => Ok(Answer::Refused(Refusal::from_payload(payload)?)),
            _ => {
                let accept = Accept::from_payload(payload)?;
                let frames = LanFraming::inside(self.limit, Expect::Queue);
                Ok(Answer::Accepted(accept, Secured::of(self.noise.split()?, self.suite, true, frames)))
            }
        }
    }
}

/// What a server answers to a hello.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The hello suits it: the log-in goes next.
    Accepted(Accept, Secured),
    /// It does not, and why. The server closes behind it.
    Refused(Refusal<'a>),
}

/// A server that has read a preamble and owes an answer.
#[derive(Debug)]
pub struct ExpectVerdict {
    noise: Noise,
    suite: Suite,
    limit: FrameLimit,
}

impl ExpectVerdict {
    pub(super) fn read(
        key: &ServerKey,
        preamble: &Parts<'_>,
        limit: FrameLimit,
        entropy: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let suite = Suite::from_u8(preamble.suite).ok_or(HandshakeError::Suite(preamble.suite))?;
        let mut noise = Noise::server(suite, &key.secret, &key.public, preamble.prologue, entropy)?;
        noise.read(preamble.message_1, &mut [])?;
        Ok(Self { noise, suite, limit })
    }

    /// Takes the client: writes the answer to the front of `out`, which has room for [`ANSWER_MAX`] bytes, and returns
    /// its length. From here on both sides speak in records.
    pub fn accept(mut self, accept: &Accept, out: &mut [u8]) -> Result<(usize, Secured), HandshakeError> {
        let len = answer(&mut self.noise, out, |frame| accept.to_frame(frame))?;
        let frames = LanFraming::inside(self.limit, Expect::LogIn);
        Ok((len, Secured::of(self.noise.split()?, self.suite, false, frames)))
    }

    /// Turns the client away, in words that it can trust: writes the answer to the front of `out` and returns its
    /// length. The connection is closed behind it.
    pub fn refuse(mut self, refusal: &Refusal<'_>, out: &mut [u8]) -> Result<usize, HandshakeError> {
        answer(&mut self.noise, out, |frame| refusal.to_frame(frame))
    }
}

/// Writes message 2 around a frame, and its length before it.
fn answer(
    noise: &mut Noise,
    out: &mut [u8],
    frame: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>,
) -> Result<usize, HandshakeError> {
    let room = HandshakeError::Room { needed: ANSWER_MAX, available: out.len() };
    let (head, message) =
        out.get_mut(..ANSWER_MAX).and_then(|out| out.split_first_chunk_mut()).ok_or(room)?;
    let mut plain = [0; ANSWER_MAX];
    let len = frame(&mut plain)?;
    let len = noise.write(plain.get(..len).unwrap_or_default(), message)?;
    *head = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
    Ok(len.saturating_add(ANSWER_HEAD))
}

/// The one frame of an answer, filling it exactly.
fn one_frame(bytes: &[u8]) -> Result<(Kind, &[u8]), ControlError> {
    let mut read = Reader::new(bytes);
    let [low, middle, high, kind] = read.array()?;
    let (len, payload) = (u32::from_le_bytes([low, middle, high, 0]), read.rest());
    if len as usize != payload.len() {
        return Err(ControlError::Field { field: "length", value: len.into() });
    }
    match Kind::from_u8(kind) {
        Some(kind @ (Kind::Accept | Kind::Refusal)) => Ok((kind, payload)),
        _ => Err(ControlError::Field { field: "kind", value: kind.into() }),
    }
}

/// A server takes a client's hello, and says what the client must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// The server application's version, for the client's log.
    pub app_version: u32,
    /// The longest message payload that the server accepts.
    pub frame_limit: FrameLimit,
    /// Of the server's interface files; 0 when there are none.
    pub schema_hash: u64,
}

impl Accept {
    fn to_frame(self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Accept, out, |out| {
            out.u16(PROTOCOL)?;
            out.u16(0)?;
            out.u32(self.app_version)?;
            out.u32(self.frame_limit.get())?;
            out.u64(self.schema_hash)
        })
    }

    fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        match read.u16()? {
            PROTOCOL => {}
            theirs => return Err(ControlError::Protocol { theirs }),
        }
        match read.u16()? {
            0 => {}
            flags => return Err(ControlError::Flags(flags)),
        }
        let app_version = read.u32()?;
        let frame_limit = read.u32()?;
        let accept = Self {
            app_version,
            frame_limit: FrameLimit::new(frame_limit).ok_or(ControlError::FrameLimit(frame_limit))?,
            schema_hash: read.u64()?,
        };
        read.finish()?;
        Ok(accept)
    }
}
