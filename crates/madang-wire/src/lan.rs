//! The engine's framing between servers: a `u32` header and the payload, nothing else.
//!
//! ```text
//!  byte 0        1        2        3        4
//!      ┌────────┬────────┬────────┬────────┬──────────────
//!      │ payload length, u24 LE   │ kind   │ payload …
//!      └────────┴────────┴────────┴────────┴──────────────
//! ```
//!
//! The first frame of either side is a [`Greeting`] (a server may refuse instead). [`LanFraming`] knows which kinds
//! may come when, so that whoever gets a frame from it gets one that is in turn.
//!
//! There is no checksum (TCP has one) and no protection: LAN links belong on addresses that only our own servers
//! reach, or go sealed: the same frames inside records (module `wan`, feature `wan`).

pub(crate) mod control;
pub(crate) mod greeting;
pub(crate) mod kinds;
pub(crate) mod queue;

pub use control::{ControlError, Goodbye, GoodbyeReason, Heartbeat, Refusal, RefusalReason, Welcome};
pub use greeting::{Greeting, NAME_MAX};
pub use kinds::Expect;
pub use queue::{QueueState, Ticket, TicketPurpose};

use crate::framing::{
    Find, FrameError, FrameLimit, Framing, Kind, Next, Opened, Overhead, SealError, SealSlot, Sealed,
};

/// Bytes of the header.
pub const HEADER: usize = 4;

/// The version of everything in this module. Greetings of another version are refused.
pub const PROTOCOL: u16 = 1;

/// The first four bytes of a greeting's payload.
pub const MAGIC: [u8; 4] = *b"MDNG";

/// The longest payload of a control frame. This version's longest greeting has 294 bytes; the rest is room for later
/// ones, which must fit so that a server can tell them "please update" instead of nothing.
pub const CONTROL_MAX: usize = 512;

/// The longest control frame, header included: room of this size fits any `to_frame`.
pub const CONTROL_FRAME_MAX: usize = HEADER + CONTROL_MAX;

/// The header of a frame. The length is that of the payload, at most [`FrameLimit::MAX`]; more would spill into the
/// kind, so it is cut to 24 bits (and asserted in debug builds).
#[inline]
pub const fn header(kind: Kind, payload_len: u32) -> [u8; HEADER] {
    debug_assert!(payload_len <= FrameLimit::MAX.get());
    let [low, middle, high, _] = payload_len.to_le_bytes();
    [low, middle, high, kind as u8]
}

/// The LAN framing of one connection: how long a message may be, and which kinds may come next.
///
/// The engine puts messages out itself, as [`header`] and payload in one write; [`Framing::seal`] does the same for
/// whoever has only the trait.
#[derive(Clone, Debug)]
pub struct LanFraming {
    limit: FrameLimit,
    expect: Expect,
}

impl LanFraming {
    /// Reads what a client sends to this server: its greeting first. `limit` is for message payloads received; what
    /// the peer accepts stands in its greeting.
    pub const fn server(limit: FrameLimit) -> Self {
        Self { limit, expect: Expect::Greeting }
    }

    /// Reads what a server sends to this client: its greeting or a refusal first.
    pub const fn client(limit: FrameLimit) -> Self {
        Self { limit, expect: Expect::Answer }
    }

    /// The same header and payload inside records, from any state on.
    #[cfg(feature = "wan")]
    pub(crate) const fn inside(limit: FrameLimit, expect: Expect) -> Self {
        Self { limit, expect }
    }

    /// Which kinds may come next.
    pub const fn expect(&self) -> Expect {
        self.expect
    }

    /// The longest message payload that is taken.
    #[cfg(feature = "wan")]
    pub(crate) const fn limit(&self) -> usize {
        self.limit.get() as usize
    }

    /// [`Framing::find`], without the trait.
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        let Some(header) = bytes.first_chunk() else {
            return Ok(Find::Need { total: HEADER });
        };
        let (_, payload_len) = self.check(*header, bytes)?;
        let total = payload_len.saturating_add(HEADER);
        Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
    }

    /// [`Framing::open`], without the trait. LAN frames carry no mask, so the bytes are only looked at.
    #[inline]
    pub fn open(&mut self, frame: &[u8]) -> Result<Opened, FrameError> {
        let header = frame.first_chunk().ok_or(FrameError::NotOneFrame)?;
        let (kind, payload_len) = self.check(*header, frame)?;
        if payload_len.saturating_add(HEADER) != frame.len() {
            return Err(FrameError::NotOneFrame);
        }
        self.took(kind);
        Ok(Opened { kind, payload: HEADER..frame.len() })
    }

    /// [`Framing::next`], without the trait: one look at the header.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, FrameError> {
        let Some(header) = bytes.first_chunk() else {
            return Ok(Next::Need { total: HEADER });
        };
        let (kind, payload_len) = self.check(*header, bytes)?;
        let len = payload_len.saturating_add(HEADER);
        if len > bytes.len() {
            return Ok(Next::Need { total: len });
        }
        self.took(kind);
        Ok(Next::Frame { len, opened: Opened { kind, payload: HEADER..len } })
    }

    /// Moves on behind a frame that [`check`](Self::check) let through.
    #[inline]
    pub(crate) fn took(&mut self, kind: Kind) {
        self.expect = self.expect.after(kind);
    }

    /// Checks all that a header says, before anyone makes room for the payload: the kind and the payload's length.
    /// `bytes` starts with the header.
    #[inline]
    pub(crate) fn check(&self, header: [u8; HEADER], bytes: &[u8]) -> Result<(Kind, usize), FrameError> {
        let [low, middle, high, kind] = header;
        let len = u32::from_le_bytes([low, middle, high, 0]);
        if kind == Kind::Message as u8 && self.expect.carries_messages() {
            return match len {
                0 => Err(FrameError::Zero),
                _ if len > self.limit.get() => Err(self.too_long(len)),
                _ => Ok((Kind::Message, len as usize)),
            };
        }
        self.check_control(kind, len as usize, bytes)
    }

    /// Everything but a message in its place. Out of the way of the hot path.
    #[cold]
    fn check_control(&self, kind: u8, len: usize, bytes: &[u8]) -> Result<(Kind, usize), FrameError> {
        let kind = Kind::from_u8(kind).ok_or(FrameError::UnknownKind(kind))?;
        if !self.expect.allows(kind) {
            return Err(FrameError::OutOfTurn(kind));
        }
        let bounds = kind.payload_bounds();
        match len {
            0 => return Err(FrameError::Zero),
            _ if len < *bounds.start() => return Err(FrameError::TooShort { len, least: *bounds.start() }),
            _ if len > *bounds.end() => return Err(FrameError::TooLong { len, limit: *bounds.end() }),
            _ => {}
        }
        // A stranger is turned away by the first byte of the magic that is wrong, not after all it announced.
        let mut magic = bytes.iter().skip(HEADER).zip(&MAGIC);
        if kind == Kind::Greeting && magic.any(|(theirs, ours)| theirs != ours) {
            return Err(FrameError::Magic);
        }
        Ok((kind, len))
    }

    #[cold]
    fn too_long(&self, len: u32) -> FrameError {
        FrameError::TooLong { len: len as usize, limit: self.limit.get() as usize }
    }
}

impl Framing for LanFraming {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        LanFraming::find(self, bytes)
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        LanFraming::open(self, frame)
    }

    fn next(&mut self, bytes: &mut [u8]) -> Result<Next, FrameError> {
        LanFraming::next(self, bytes)
    }

    fn overhead(&self) -> Overhead {
        Overhead { head: HEADER, tail: 0 }
    }

    fn limit(&self) -> usize {
        self.limit.get() as usize
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        crate::framing::seal_head(slot, self.limit, |len| header(Kind::Message, len))
    }
}
