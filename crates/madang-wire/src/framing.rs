//! What a framing is: it *finds* a frame in a stream, *opens* it in place, and *seals* a payload into one.
//!
//! A value of a framing is the state of one connection, both directions. It never sees the stream as a whole and
//! keeps no bytes: the engine shows it what has arrived, keeps a partial frame itself, and asks again.
//!
//! ```text
//! arrived:  ┌── frame ───────────────┬── frame ──...      find → Frame { len } | Need { total } | error
//!           │ head │ payload │ tail  │                    open → kind, where the payload lies
//!
//! leaving:  │ head │ payload │ tail  │                    the payload is copied in; seal fills head and tail,
//!                                                         and may mask the payload in place
//! ```
//!
//! The engine's limits stand around every framing: it asks `find` again only when `total` bytes are there, holds no
//! more than one frame of [`Framing::limit`] plus overhead, and ends the session on the first error.

use std::ops::Range;

/// One connection's framing, both directions: the engine's own implement it, and a game that already has clients
/// implements it for its own header.
///
/// Called on the session's shard only, never concurrently; it must not block. All four methods see bytes or lengths
/// that a stranger may have chosen: they return, whatever comes. A panic in one ends the session like a panic in a
/// callback.
pub trait Framing: Send {
    /// Looks for one frame at the start of `bytes`, which is the stream from the end of the last frame, and may
    /// hold more than one frame or less.
    ///
    /// It consumes nothing. Asked again with more bytes behind the same ones it gives the same frame or the same
    /// error; a `Need` may grow into any of the three, but never needs less than was said. The length limits are
    /// checked here, as soon as the length is readable, so that no memory is reserved for a frame that will be refused.
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError>;

    /// Opens `frame`, the bytes of exactly one frame that [`find`](Self::find) gave: verifies it, undoes a mask in
    /// place, moves the receiving state on. Called once for each frame, in stream order. After an error the bytes
    /// and the state are worthless and the connection ends.
    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError>;

    /// [`find`](Self::find) and [`open`](Self::open) in one step, for a frame that is whole: what the engine does for each
    /// message. A framing that would read the same header twice may answer from one look; the result must be the same.
    fn next(&mut self, bytes: &mut [u8]) -> Result<Next, FrameError> {
        Ok(match self.find(bytes)? {
            Find::Need { total } => Next::Need { total },
            Find::Frame { len } => {
                let frame = bytes.get_mut(..len).ok_or(FrameError::NotOneFrame)?;
                Next::Frame { len, opened: self.open(frame)? }
            }
        })
    }

    /// The most that [`seal`](Self::seal) adds. The same for the life of the connection.
    fn overhead(&self) -> Overhead;

    /// The longest payload in bytes, either way, at least 1. The same for the life of the connection. The engine
    /// answers `TooLong` to a send over it, so that `seal` never sees one.
    fn limit(&self) -> usize;

    /// Makes one frame around a payload that was copied between the head and tail room, which are of the sizes that
    /// [`overhead`](Self::overhead) gave. Fills the room it uses and may transform the payload in place; moves the
    /// sending state on. Called once for each frame, in the order in which they leave.
    ///
    /// A head shorter than its room stands at the *end* of it, next to the payload; a tail at the start of its room.
    /// A fixed head costs nothing; a shorter one makes [`seal_frame`] move the frame to close the gap.
    ///
    /// An error leaves the payload unsent, is reported, and ends the session: it is a fault of ours, not the peer's.
    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError>;
}

/// What [`Framing::find`] saw at the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// The first `len` bytes are one whole frame.
    Frame {
        /// Bytes of the frame, head and tail included; at least 1, at most what was shown.
        len: usize,
    },
    /// There is no whole frame yet.
    Need {
        /// Bytes of the stream, counted from the frame's start, below which asking again is pointless. More than
        /// were shown, and never more than the longest frame.
        total: usize,
    },
}

/// What [`Framing::next`] took from the start of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The first `len` bytes were one whole frame, and it is opened.
    Frame {
        /// Bytes of the frame, head and tail included.
        len: usize,
        /// What it is.
        opened: Opened,
    },
    /// There is no whole frame yet; see [`Find::Need`].
    Need {
        /// Bytes of the stream, counted from the frame's start, below which asking again is pointless.
        total: usize,
    },
}

/// An opened frame: what it is, and where its payload lies in the bytes that were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What the frame carries. A foreign framing has messages only.
    pub kind: Kind,
    /// The payload inside the frame's bytes; for a [`Kind::Message`] never empty.
    pub payload: Range<usize>,
}

/// What a frame carries: content's message, or a word between the engines. The value is the byte on the LAN wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Who the sender is: the first frame of either side.
    Greeting = 1,
    /// The server has a place: the client is joined.
    Welcome = 2,
    /// The server has none, and why; it closes behind it.
    Refusal = 3,
    /// Content's message.
    Message = 4,
    /// Asks for a [`Kind::Pong`].
    Ping = 5,
    /// Answers a [`Kind::Ping`].
    Pong = 6,
    /// Why the sender is about to close; its last frame.
    Goodbye = 7,
    /// WAN: the server takes the client's hello, inside its answer to the handshake.
    Accept = 8,
    /// WAN: who the client's player is; its first frame.
    LogIn = 9,
    /// WAN: where the client stands in the waiting queue.
    Queue = 10,
    /// WAN: a ticket that keeps a place.
    Ticket = 11,
    /// WAN: the server will go away.
    Draining = 12,
}

impl Kind {
    /// Every kind, in the order of their values.
    pub const ALL: [Self; 12] = [
        Self::Greeting,
        Self::Welcome,
        Self::Refusal,
        Self::Message,
        Self::Ping,
        Self::Pong,
        Self::Goodbye,
        Self::Accept,
        Self::LogIn,
        Self::Queue,
        Self::Ticket,
        Self::Draining,
    ];

    /// The kind whose byte this is.
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Greeting,
            2 => Self::Welcome,
            3 => Self::Refusal,
            4 => Self::Message,
            5 => Self::Ping,
            6 => Self::Pong,
            7 => Self::Goodbye,
            8 => Self::Accept,
            9 => Self::LogIn,
            10 => Self::Queue,
            11 => Self::Ticket,
            12 => Self::Draining,
            _ => return None,
        })
    }
}

/// The most that sealing adds around a payload, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// In front of the payload.
    pub head: usize,
    /// Behind the payload.
    pub tail: usize,
}

impl Overhead {
    /// Head and tail together.
    #[inline]
    pub const fn total(self) -> usize {
        self.head.saturating_add(self.tail)
    }
}

/// One frame in the making: three parts that stand behind each other in the session's chunk.
#[derive(Debug)]
pub struct SealSlot<'a> {
    /// Room for the head, of [`Overhead::head`] bytes, with any content.
    pub head: &'a mut [u8],
    /// The payload, ours alone: it may be masked in place.
    pub payload: &'a mut [u8],
    /// Room for the tail, of [`Overhead::tail`] bytes, with any content.
    pub tail: &'a mut [u8],
}

/// How much of the head and tail room a seal used; the rest is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes at the end of the head room.
    pub head: usize,
    /// Bytes at the start of the tail room.
    pub tail: usize,
}

/// Seals the payload that stands in `bytes` between room for the framing's head and tail, and returns the length of
/// the frame, which starts at the first of `bytes`: so that frames follow each other without a gap.
///
/// `bytes` is head room, payload and tail room, exactly. On an error `bytes` holds nothing worth sending.
pub fn seal_frame<F: Framing + ?Sized>(framing: &mut F, bytes: &mut [u8]) -> Result<usize, SealError> {
    let overhead = framing.overhead();
    let available = bytes.len();
    let room = SealError::Room { needed: overhead.total(), available };
    let payload_len = available.checked_sub(overhead.total()).ok_or(room)?;
    if payload_len == 0 {
        return Err(SealError::Empty);
    }
    if payload_len > framing.limit() {
        return Err(SealError::TooLong { len: payload_len, limit: framing.limit() });
    }

    let (head, behind) = bytes.split_at_mut_checked(overhead.head).ok_or(room)?;
    let (payload, tail) = behind.split_at_mut_checked(payload_len).ok_or(room)?;
    let sealed = framing.seal(SealSlot { head, payload, tail })?;

    let gap = overhead.head.checked_sub(sealed.head).ok_or(room)?;
    let spare = overhead.tail.checked_sub(sealed.tail).ok_or(room)?;
    let end = available.saturating_sub(spare);
    if gap > 0 {
        bytes.copy_within(gap..end, 0);
    }
    Ok(end.saturating_sub(gap))
}

/// Seals for a framing whose head is four bytes made of the length, and which has no tail and no mask.
pub(crate) fn seal_head(
    slot: SealSlot<'_>,
    limit: FrameLimit,
    header: impl FnOnce(u32) -> [u8; 4],
) -> Result<Sealed, SealError> {
    let (len, limit) = (slot.payload.len(), limit.get());
    let header = match u32::try_from(len) {
        Ok(0) => return Err(SealError::Empty),
        Ok(len) if len <= limit => header(len),
        _ => return Err(SealError::TooLong { len, limit: limit as usize }),
    };
    let room = SealError::Room { needed: header.len(), available: slot.head.len() };
    *slot.head.last_chunk_mut().ok_or(room)? = header;
    Ok(Sealed { head: header.len(), tail: 0 })
}

/// The longest payload of a frame, checked: 1 byte to 16 MiB − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameLimit(u32);

impl FrameLimit {
    /// 1 MiB: far above any game message, far below what a peer could hurt a shard with.
    pub const DEFAULT: Self = Self(1 << 20);
    /// 16 MiB − 1: what the 24-bit length of the LAN header can say. The other framings keep to it too, so that one
    /// setting means one thing.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// `bytes` as a limit; `None` unless it is 1 to 16,777,215.
    #[inline]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes >= 1 && bytes <= Self::MAX.0 { Some(Self(bytes)) } else { None }
    }

    /// The limit in bytes.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for FrameLimit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a peer's bytes are no frame. Always the peer's fault, and the end of its connection: a stream that lost its
/// frames cannot find them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header announces no payload.
    #[error("frame without a payload")]
    Zero,
    /// The header announces less than a frame of this kind holds.
    #[error("frame of {len} bytes, at least {least} expected")]
    TooShort {
        /// Bytes announced.
        len: usize,
        /// The least for this kind.
        least: usize,
    },
    /// The header announces more than is allowed; nothing was reserved for it.
    #[error("frame of {len} bytes, at most {limit} allowed")]
    TooLong {
        /// Bytes announced.
        len: usize,
        /// The most for this kind, or the framing's limit.
        limit: usize,
    },
    /// The header's kind has no meaning.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The kind has a meaning, but not now: a message before the greeting, or anything after the goodbye.
    #[error("frame of kind {0:?} out of turn")]
    OutOfTurn(Kind),
    /// A greeting does not begin with the magic: the peer speaks another protocol.
    #[error("not a greeting of this protocol")]
    Magic,
    /// The code byte of the classic header is not this game's.
    #[error("code {found:#04x} instead of {expected:#04x}")]
    Code {
        /// This game's.
        expected: u8,
        /// The peer's.
        found: u8,
    },
    /// The checksum does not match the payload.
    #[error("checksum does not match")]
    Checksum,
    /// [`Framing::open`] was given bytes that are not exactly one frame. (The engine gives what `find` found, so this
    /// is a framing whose `find` and `open` disagree.)
    #[error("not exactly one frame")]
    NotOneFrame,
    /// A record does not open: it was changed, replayed, left out or put out of order, or it is under another key.
    #[error("record does not open")]
    Forged,
    /// A frame that fits a record lies across two, or a part of a long one is not as long as it must be.
    #[error("frame does not keep to its records")]
    Straddles,
    /// The records of this direction are used up: see `wan::RECORDS_MAX`.
    #[error("records are used up")]
    Exhausted,
    /// A foreign framing's own reason.
    #[error("{0}")]
    Foreign(&'static str),
}

/// Why a payload could not be sealed: always local, never a peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A payload is at least one byte.
    #[error("empty payload")]
    Empty,
    /// The payload is over the framing's limit.
    #[error("payload of {len} bytes, at most {limit} allowed")]
    TooLong {
        /// Bytes of the payload.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The room is not what [`Framing::overhead`] asks for, or more of it was used than there is.
    #[error("{needed} bytes of room needed, {available} given")]
    Room {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// The records of this direction are used up: see `wan::RECORDS_MAX`. End the session.
    #[error("records are used up")]
    Exhausted,
    /// A foreign framing's own reason.
    #[error("{0}")]
    Foreign(&'static str),
}
