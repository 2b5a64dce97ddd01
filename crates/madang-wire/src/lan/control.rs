//! The words between the engines after the greeting.

use crate::codec::{ReadError, Reader, WriteError, Writer};
use crate::framing::Kind;
use crate::lan::greeting::SEALED;
use crate::lan::{HEADER, header};

/// A place was given: the client that reads this is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The session's id on the server, for the logs of both ends. It gives no right to anything.
    pub session_id: u64,
    /// How often each side sends when it has nothing else to send, in milliseconds; 0 for no heartbeat, else
    /// [`Welcome::HEARTBEAT_MS_LEAST`] to [`Welcome::HEARTBEAT_MS_MOST`].
    pub heartbeat_ms: u32,
    /// After how long a silence the other side is held for dead, in milliseconds; with a heartbeat at least as long
    /// as that, without one 0.
    pub dead_after_ms: u32,
}

impl Welcome {
    /// The quickest heartbeat that a server may ask of a client.
    pub const HEARTBEAT_MS_LEAST: u32 = 10;
    /// The slowest heartbeat: ten minutes.
    pub const HEARTBEAT_MS_MOST: u32 = 600_000;

    /// Writes the whole frame to the front of `out` and returns its length, 20 bytes.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Welcome, out, |out| {
            out.u64(self.session_id)?;
            out.u32(self.heartbeat_ms)?;
            out.u32(self.dead_after_ms)
        })
    }

    /// Reads the payload of a welcome frame.
    pub fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let welcome = Self { session_id: read.u64()?, heartbeat_ms: read.u32()?, dead_after_ms: read.u32()? };
        read.finish()?;
        let Self { heartbeat_ms, dead_after_ms, .. } = welcome;
        let sound = match heartbeat_ms {
            0 => dead_after_ms == 0,
            Self::HEARTBEAT_MS_LEAST..=Self::HEARTBEAT_MS_MOST => dead_after_ms >= heartbeat_ms,
            _ => false,
        };
        if sound { Ok(welcome) } else { Err(ControlError::Heartbeat { heartbeat_ms, dead_after_ms }) }
    }
}

/// No place, and why. The server closes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// For the program that reads it.
    pub reason: RefusalReason,
    /// For the person who reads its log: at most 128 bytes, no control characters, may be empty.
    pub text: &'a str,
}

impl<'a> Refusal<'a> {
    /// The most bytes of a text.
    pub const TEXT_MAX: usize = 128;

    /// Writes the whole frame to the front of `out` and returns its length, at most 135 bytes.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Refusal, out, |out| {
            out.u8(self.reason.to_u8())?;
            put_text(out, self.text, Self::TEXT_MAX)
        })
    }

    /// Reads the payload of a refusal frame. Its layout is the same in every protocol version.
    pub fn from_payload(payload: &'a [u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let refusal =
            Self { reason: RefusalReason::from_u8(read.u8()?), text: take_text(&mut read, Self::TEXT_MAX)? };
        read.finish()?;
        Ok(refusal)
    }
}

/// Lists a byte-valued enum once: its names, its values, and both ways between them.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
            /// A reason that this build has no name for.
            Unknown(u8),
        }

        impl $name {
            /// Every reason that has a name, in the order of their bytes.
            pub const NAMED: &[Self] = &[$(Self::$item),*];

            /// The byte on the wire.
            pub const fn to_u8(self) -> u8 {
                match self {
                    $(Self::$item => $value,)*
                    Self::Unknown(byte) => byte,
                }
            }

            /// The reason whose byte this is; every byte is one.
            pub const fn from_u8(byte: u8) -> Self {
                match byte {
                    $($value => Self::$item,)*
                    _ => Self::Unknown(byte),
                }
            }
        }
    };
}

reasons! {
    /// Why a server gives no place. Retrying helps only against the last group.
    RefusalReason {
        /// The greeting is one of this protocol, but wrong: a field out of its bounds.
        Malformed = 1,
        /// Another protocol version: the two engines must be of one.
        Protocol = 2,
        /// An app version that is not admitted: update.
        AppVersion = 3,
        /// Another schema hash: the two programs were built from different interface files.
        Schema = 4,
        /// Not a service that this server talks to: a wrong address in the settings.
        Service = 5,
        /// A frame limit that this server cannot live with.
        FrameLimit = 6,
        /// One side wants the link sealed and the other does not.
        Sealing = 7,
        /// The same node has already been here in a later life.
        Incarnation = 8,
        /// The server's rules do not admit this peer.
        NotAllowed = 9,
        /// A suite that this server's settings do not admit.
        Suite = 10,
        /// The log-in was not taken: a token that is wrong, worn out, or another's.
        LogIn = 11,
        /// This player or address is banned.
        Banned = 12,
        /// Every place is taken; try later.
        Full = 16,
        /// The server is going away; try later, or elsewhere.
        Draining = 17,
        /// The server has more to do than it can: try later.
        Busy = 18,
    }
}

/// Why the sender closes. Its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The cause, as the sender saw it.
    pub reason: GoodbyeReason,
    /// With [`GoodbyeReason::Content`] the code that content gave; else 0.
    pub code: u32,
}

impl Goodbye {
    /// Writes the whole frame to the front of `out` and returns its length, 9 bytes.
    pub fn to_frame(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        write_frame(Kind::Goodbye, out, |out| {
            out.u8(self.reason.to_u8())?;
            out.u32(self.code)
        })
    }

    /// Reads the payload of a goodbye frame.
    pub fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let goodbye = Self { reason: GoodbyeReason::from_u8(read.u8()?), code: read.u32()? };
        read.finish()?;
        Ok(goodbye)
    }
}

reasons! {
    /// The cause of a goodbye. The upper four bits are the group of fault, seen from the sender: 1 the peer
    /// misbehaved, 2 the peer is incompatible, 3 content, 4 policy, 5 the operating system. So a reader knows whose
    /// fault it was even when it has no name for the reason.
    GoodbyeReason {
        /// What the peer sent is no frame, or a frame out of turn.
        Malformed = 0x11,
        /// The peer sent more, or faster, than it may.
        Flooding = 0x12,
        /// The peer was silent longer than agreed.
        Silent = 0x13,
        /// The peer does not read, so that what is queued for it only grows.
        SlowConsumer = 0x14,
        /// A client cannot live with what the server's greeting says.
        Incompatible = 0x21,
        /// Content asked for it; the code is its own.
        Content = 0x31,
        /// A callback of content panicked.
        HandlerPanic = 0x32,
        /// Nothing was asked of this session for longer than the settings allow.
        Idle = 0x41,
        /// A later life of the same node, or a second log-in, took its place.
        Replaced = 0x42,
        /// An operator removed it.
        Kicked = 0x43,
        /// The sender is being stopped.
        Stopping = 0x44,
        /// The sender gives its sessions up in good order: connect again, perhaps elsewhere.
        Draining = 0x45,
        /// The sender is overloaded and gives up those who read the least.
        Overloaded = 0x46,
        /// The sender ran out of memory, descriptors or buffers.
        Exhausted = 0x51,
    }
}

/// A ping or a pong: a value of the sender's choice, which the answer repeats, so that the round trip can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Opaque to whoever answers.
    pub value: u64,
}

impl Heartbeat {
    /// The whole frame of a ping.
    pub fn ping(self) -> [u8; 12] {
        self.frame(Kind::Ping)
    }

    /// The whole frame of a pong.
    pub fn pong(self) -> [u8; 12] {
        self.frame(Kind::Pong)
    }

    /// Reads the payload of a ping or pong frame.
    pub fn from_payload(payload: &[u8]) -> Result<Self, ControlError> {
        let mut read = Reader::new(payload);
        let heartbeat = Self { value: read.u64()? };
        read.finish()?;
        Ok(heartbeat)
    }

    fn frame(self, kind: Kind) -> [u8; 12] {
        let mut frame = [0; 12];
        let (head, payload) = frame.split_at_mut(HEADER);
        head.copy_from_slice(&header(kind, 8));
        payload.copy_from_slice(&self.value.to_le_bytes());
        frame
    }
}

/// Why the payload of a control frame means nothing. The peer's fault, and the end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The fields do not fit the payload.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not a greeting of this protocol: close, answer nothing.
    #[error("not a greeting of this protocol")]
    Magic,
    /// Another protocol version.
    #[error("protocol version {theirs}")]
    Protocol {
        /// The peer's.
        theirs: u16,
    },
    /// The greeting asks for something that this build does not have; bit 0 is a sealed link.
    #[error("greeting flags {0:#06x}")]
    Flags(u16),
    /// A text is longer than its limit.
    #[error("text of {len} bytes, at most {limit} allowed")]
    TextTooLong {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A text holds control characters, which have no place in names and logs.
    #[error("text with control characters")]
    TextControl,
    /// A frame limit that is none: 0, or more than a header can say.
    #[error("frame limit of {0} bytes")]
    FrameLimit(u32),
    /// A field is outside its bounds: which, and its value.
    #[error("{field} is {value}")]
    Field {
        /// The field's name in docs/wire.md.
        field: &'static str,
        /// As announced.
        value: u64,
    },
    /// A heartbeat outside its bounds, or a silence that ends before the next beat.
    #[error("heartbeat every {heartbeat_ms} ms, dead after {dead_after_ms} ms")]
    Heartbeat {
        /// As announced.
        heartbeat_ms: u32,
        /// As announced.
        dead_after_ms: u32,
    },
}

impl ControlError {
    /// What a server answers to a greeting with this error; `None` when it answers nothing, because whoever sent it
    /// does not speak this protocol and is owed no byte.
    pub const fn refusal(self) -> Option<RefusalReason> {
        match self {
            Self::Magic => None,
            Self::Protocol { .. } => Some(RefusalReason::Protocol),
            Self::Flags(SEALED) => Some(RefusalReason::Sealing),
            Self::FrameLimit(_) => Some(RefusalReason::FrameLimit),
            _ => Some(RefusalReason::Malformed),
        }
    }
}

/// Writes the payload behind room for its header, then the header.
pub(crate) fn write_frame(
    kind: Kind,
    out: &mut [u8],
    payload: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<usize, WriteError> {
    let available = out.len();
    let (head, behind) = out.split_first_chunk_mut().ok_or(WriteError::Full { needed: HEADER, available })?;
    let mut writer = Writer::new(behind);
    payload(&mut writer)?;
    let len = writer.position();
    *head = header(kind, u32::try_from(len).unwrap_or(u32::MAX));
    Ok(len.saturating_add(HEADER))
}

/// Writes a text that [`take_text`] will take.
pub(super) fn put_text(out: &mut Writer<'_>, text: &str, limit: usize) -> Result<(), WriteError> {
    if text.len() > limit {
        return Err(WriteError::TextTooLong { len: text.len(), limit });
    }
    if text.contains(char::is_control) {
        return Err(WriteError::TextControl);
    }
    out.str(text)
}

/// A text whose length is checked before its bytes are looked at.
pub(super) fn take_text<'a>(read: &mut Reader<'a>, limit: usize) -> Result<&'a str, ControlError> {
    let len = usize::from(read.clone().u16()?);
    if len > limit {
        return Err(ControlError::TextTooLong { len, limit });
    }
    let text = read.str()?;
    if text.contains(char::is_control) {
        return Err(ControlError::TextControl);
    }
    Ok(text)
}
