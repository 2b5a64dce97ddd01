//! Who is there: the first frame of either side.

use crate::codec::{Reader, WriteError};
use crate::framing::{FrameLimit, Kind};
use crate::lan::control::{self, ControlError};
use crate::lan::kinds::TICKET_MAX;
use crate::lan::queue::{put_bytes, take_bytes};
use crate::lan::{MAGIC, PROTOCOL};

/// The longest service or node name, in bytes.
pub const NAME_MAX: usize = 64;

/// What a plain link asks for. Each bit is a wish that the other side must understand or refuse.
const NO_FLAGS: u16 = 0;

/// The flag of a greeting with a ticket behind its names.
const HAS_TICKET: u16 = 2;

/// The flag that is reserved for "I want this link authenticated and sealed".
pub(crate) const SEALED: u16 = 1;

/// Who the sender is, and what it must agree on before a message means anything. Mismatched builds look like
/// corruption; a greeting makes them look like what they are.
///
/// Borrowed on both sides: from the settings when it is sent, from the frame when it was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// The application's own version; the server's settings say which are admitted.
    pub app_version: u32,
    /// The longest message payload that the sender of this greeting accepts. A message over it is never sent to it.
    pub frame_limit: FrameLimit,
    /// Which life of the node this is: it grows with every start, so that an older one can be told from a newer.
    pub incarnation: u64,
    /// Of the interface files both sides were built from; 0 when there are none.
    pub schema_hash: u64,
    /// What the sender does, like `chat`: at most [`NAME_MAX`] bytes, no control characters.
    pub service: &'a str,
    /// Which one it is, like `chat-3`: unique in the cluster, at most [`NAME_MAX`] bytes, no control characters.
    /// Empty for a peer that is no node: its incarnation is not compared.
    pub node: &'a str,
    /// Keeps a place in the waiting queue that the sender had when its connection broke, see
    /// [`Ticket`](crate::lan::Ticket): at most 128 bytes; empty where it had none.
    pub ticket: &'a [u8],
}

impl<'a> Greeting<'a> {
    /// Writes the whole frame to the front of `out` and returns its length, at most 298 bytes. Refuses names that the
    /// peer would have to refuse, so that the mistake is found where it was made.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        control::write_frame(Kind::Greeting, out, |out| {
            out.bytes(&MAGIC)?;
            out.u16(PROTOCOL)?;
            out.u16(if self.ticket.is_empty() { NO_FLAGS } else { HAS_TICKET })?;
            out.u32(self.app_version)?;
            out.u32(self.frame_limit.get())?;
            out.u64(self.incarnation)?;
            out.u64(self.schema_hash)?;
            control::put_text(out, self.service, NAME_MAX)?;
            control::put_text(out, self.node, NAME_MAX)?;
            if self.ticket.is_empty() { Ok(()) } else { put_bytes(out, self.ticket, TICKET_MAX) }
        })
    }

    /// Reads the payload of a greeting frame. Another protocol version is an error of its own, found before anything
    /// that this version defines is looked at.
    pub fn from_payload(payload: &'a [u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        if read.array()? != MAGIC {
            return Err(ControlError::Magic);
        }
        match read.u16()? {
            PROTOCOL => {}
            theirs => return Err(ControlError::Protocol { theirs }),
        }
        let has_ticket = match read.u16()? {
            NO_FLAGS => false,
            HAS_TICKET => true,
            flags => return Err(ControlError::Flags(flags)),
        };
        let app_version = read.u32()?;
        let frame_limit = read.u32()?;
        let greeting = Self {
            app_version,
            frame_limit: FrameLimit::new(frame_limit).ok_or(ControlError::FrameLimit(frame_limit))?,
            incarnation: read.u64()?,
            schema_hash: read.u64()?,
            service: control::take_text(&mut read, NAME_MAX)?,
            node: control::take_text(&mut read, NAME_MAX)?,
            ticket: if has_ticket { take_bytes(&mut read, TICKET_MAX)? } else { &[] },
        };
        if has_ticket && greeting.ticket.is_empty() {
            return Err(ControlError::Field { field: "ticket", value: 0 });
        }
        read.finish()?;
        Ok(greeting)
    }
}
