//! A foreign framing of the plainest sort: a 4-byte big-endian length, then the payload.
//!
//! No greeting, heartbeat or goodbye, no checksum, no protection. It is what `LengthDelimitedCodec` of tokio-util
//! speaks by default, so the engine can be measured against it byte for byte.

use crate::framing::{
    Find, FrameError, FrameLimit, Framing, Kind, Next, Opened, Overhead, SealError, SealSlot, Sealed,
    seal_head,
};

/// Bytes of the header.
pub const HEADER: usize = 4;

/// The header of a frame whose payload has this length.
#[inline]
pub const fn header(payload_len: u32) -> [u8; HEADER] {
    payload_len.to_be_bytes()
}

/// The framing of one connection; it has no state but its limit.
#[derive(Clone, Debug)]
pub struct Be32 {
    limit: FrameLimit,
}

impl Be32 {
    /// A framing for payloads up to `limit`.
    pub const fn new(limit: FrameLimit) -> Self {
        Self { limit }
    }

    /// [`Framing::find`], without the trait.
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        let Some(header) = bytes.first_chunk() else {
            return Ok(Find::Need { total: HEADER });
        };
        let total = self.check(*header)?.saturating_add(HEADER);
        Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
    }

    /// [`Framing::open`], without the trait. There is no mask, so the bytes are only looked at.
    #[inline]
    pub fn open(&self, frame: &[u8]) -> Result<Opened, FrameError> {
        let header = frame.first_chunk().ok_or(FrameError::NotOneFrame)?;
        if self.check(*header)?.saturating_add(HEADER) != frame.len() {
            return Err(FrameError::NotOneFrame);
        }
        Ok(Opened { kind: Kind::Message, payload: HEADER..frame.len() })
    }

    /// [`Framing::next`], without the trait.
    #[inline]
    pub fn next(&self, bytes: &[u8]) -> Result<Next, FrameError> {
        Ok(match self.find(bytes)? {
            Find::Need { total } => Next::Need { total },
            // What was found is what would be opened: there is nothing more to look at.
            Find::Frame { len } => {
                Next::Frame { len, opened: Opened { kind: Kind::Message, payload: HEADER..len } }
            }
        })
    }

    #[inline]
    fn check(&self, header: [u8; HEADER]) -> Result<usize, FrameError> {
        let (len, limit) = (u32::from_be_bytes(header), self.limit.get());
        match len {
            0 => Err(FrameError::Zero),
            _ if len > limit => Err(FrameError::TooLong { len: len as usize, limit: limit as usize }),
            _ => Ok(len as usize),
        }
    }
}

impl Framing for Be32 {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        Be32::find(self, bytes)
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        Be32::open(self, frame)
    }

    fn next(&mut self, bytes: &mut [u8]) -> Result<Next, FrameError> {
        Be32::next(self, bytes)
    }

    fn overhead(&self) -> Overhead {
        Overhead { head: HEADER, tail: 0 }
    }

    fn limit(&self) -> usize {
        self.limit.get() as usize
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        seal_head(slot, self.limit, header)
    }
}
