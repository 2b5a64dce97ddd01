//! The words about waiting for a place, on a LAN and on the WAN.

use crate::codec::{Reader, WriteError, Writer};
use crate::framing::Kind;
use crate::lan::control::{ControlError, write_frame};
use crate::lan::kinds::TICKET_MAX;

/// Where a client stands in the waiting queue: sent when it enters, and when it moves, not more than once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// From 1: the next to be let in.
    pub position: u32,
    /// All that wait, this client among them.
    pub length: u32,
    /// How long it will take, in milliseconds, as far as anyone can tell; `None` where nobody can.
    pub estimate_ms: Option<u32>,
}

impl QueueState {
    /// What stands for "nobody can tell".
    const NO_ESTIMATE: u32 = u32::MAX;

    /// Writes the whole frame to the front of `out` and returns its length, 16 bytes. An estimate of more than 49 days is
    /// none.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Queue, out, |out| {
            out.u32(self.position)?;
            out.u32(self.length)?;
            out.u32(self.estimate_ms.unwrap_or(Self::NO_ESTIMATE))
        })
    }

    /// Reads the payload of a queue frame.
    pub fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let (position, length, estimate) = (read.u32()?, read.u32()?, read.u32()?);
        read.finish()?;
        if position == 0 || position > length {
            return Err(ControlError::Field { field: "position", value: position.into() });
        }
        let estimate_ms = (estimate != Self::NO_ESTIMATE).then_some(estimate);
        Ok(Self { position, length, estimate_ms })
    }
}

/// Keeps a client's place for a while when its connection breaks: it sends the bytes in its next greeting (LAN) or
/// log-in (WAN). Opaque to the client; the server makes them as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket<'a> {
    /// What it keeps.
    pub purpose: TicketPurpose,
    /// For how long after the connection broke, in milliseconds.
    pub grace_ms: u32,
    /// At most 128 bytes; none: the earlier ticket is worth nothing any more.
    pub bytes: &'a [u8],
}

/// What a ticket keeps. The value is the byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TicketPurpose {
    /// The place in the waiting queue.
    Queue = 1,
    /// The place on the server.
    Place = 2,
}

impl TicketPurpose {
    /// The purpose whose byte this is.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Queue),
            2 => Some(Self::Place),
            _ => None,
        }
    }
}

impl<'a> Ticket<'a> {
    /// Writes the whole frame to the front of `out` and returns its length, at most 139 bytes.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Ticket, out, |out| {
            out.u8(self.purpose as u8)?;
            out.u32(self.grace_ms)?;
            put_bytes(out, self.bytes, TICKET_MAX)
        })
    }

    /// Reads the payload of a ticket frame.
    pub fn from_payload(payload: &'a [u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let purpose = read.u8()?;
        let ticket = Self {
            purpose: TicketPurpose::from_u8(purpose)
                .ok_or(ControlError::Field { field: "purpose", value: purpose.into() })?,
            grace_ms: read.u32()?,
            bytes: take_bytes(&mut read, TICKET_MAX)?,
        };
        read.finish()?;
        Ok(ticket)
    }
}

pub(crate) fn put_bytes(out: &mut Writer<'_>, bytes: &[u8], limit: usize) -> Result<(), WriteError> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    if bytes.len() > limit {
        return Err(WriteError::TextTooLong { len: bytes.len(), limit });
    }
    out.u16(len)?;
    out.bytes(bytes)
}

/// Bytes whose length is checked before they are looked at.
pub(crate) fn take_bytes<'a>(read: &mut Reader<'a>, limit: usize) -> Result<&'a [u8], ControlError> {
    let len = usize::from(read.u16()?);
    if len > limit {
        return Err(ControlError::TextTooLong { len, limit });
    }
    Ok(read.take(len)?)
}
