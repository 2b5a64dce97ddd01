//! Which kinds may come when, and how long they may be.

use std::ops::RangeInclusive;

use crate::framing::{FrameLimit, Kind};
use crate::lan::CONTROL_MAX;

/// Which kinds a peer may send next. The words of one direction are a line:
///
/// ```text
/// client → server:  Greeting ─► Traffic ─► (goodbye) End
/// server → client:  Answer ─► Place ─► Traffic ─► (goodbye) End
///                     └─────────┴─ (refusal) ─────────► End
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// A server hears a client for the first time: its greeting and nothing else.
    Greeting,
    /// A client hears the server for the first time: its greeting, or a refusal.
    Answer,
    /// A client was greeted and waits for its place: a welcome, a refusal, a heartbeat or a goodbye; no message yet.
    Place,
    /// Messages, heartbeats, and at last a goodbye.
    Traffic,
    /// The peer has said its last word.
    End,
}

impl Expect {
    /// Whether a frame of this kind is in turn.
    #[inline]
    pub const fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Greeting => matches!(kind, Kind::Greeting),
            Self::Answer => matches!(kind, Kind::Greeting | Kind::Refusal),
            Self::Place => {
                matches!(kind, Kind::Welcome | Kind::Refusal | Kind::Ping | Kind::Pong | Kind::Goodbye)
            }
            Self::Traffic => matches!(kind, Kind::Message | Kind::Ping | Kind::Pong | Kind::Goodbye),
            Self::End => false,
        }
    }

    /// What comes after a frame that was in turn.
    #[inline]
    pub const fn after(self, kind: Kind) -> Self {
        match (self, kind) {
            (_, Kind::Refusal | Kind::Goodbye) => Self::End,
            (Self::Greeting, Kind::Greeting) | (Self::Place, Kind::Welcome) => Self::Traffic,
            (Self::Answer, Kind::Greeting) => Self::Place,
            _ => self,
        }
    }
}

impl Kind {
    /// The shortest and longest payload that the LAN wire allows for this kind; a message is bounded further by the
    /// receiver's own limit.
    pub const fn payload_bounds(self) -> RangeInclusive<usize> {
        match self {
            // Magic and protocol version are the same for ever; what follows depends on the version.
            Self::Greeting => 6..=CONTROL_MAX,
            Self::Welcome => 16..=16,
            Self::Refusal => 3..=131,
            Self::Message => 1..=FrameLimit::MAX.get() as usize,
            Self::Ping | Self::Pong => 8..=8,
            Self::Goodbye => 5..=5,
        }
    }
}
