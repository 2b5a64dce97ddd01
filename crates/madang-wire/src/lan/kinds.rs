//! Which kinds may come when, and how long they may be.

use std::ops::RangeInclusive;

use crate::framing::{FrameLimit, Kind};
use crate::lan::CONTROL_MAX;

/// The longest ticket: 54 bytes of our own (docs/wire.md) and room for those of another service.
pub(crate) const TICKET_MAX: usize = 128;

/// The longest token of a log-in: a signed web token with a page of claims.
pub(crate) const TOKEN_MAX: usize = 2048;

/// The longest proof of a log-in: an Ed25519 signature.
pub(crate) const PROOF_MAX: usize = 64;

/// The longest log-in: its three parts, each behind a `u16` length.
const LOG_IN_MAX: usize = 6 + TOKEN_MAX + PROOF_MAX + TICKET_MAX;

/// Which kinds a peer may send next. The words of one direction are a line; those of the WAN lie in records:
///
/// ```text
/// LAN  client → server:  Greeting ─► Traffic ─► (goodbye) End
///      server → client:  Answer ─► Place ─► Traffic ─► (goodbye) End
///                          └─────────┴─ (refusal) ─────────► End
///
/// WAN  client → server:  LogIn ─► Traffic ─► (goodbye) End
///      server → client:  Queue ─► Served ─► (goodbye) End
///                          └─ (refusal) ─────────► End
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// A server hears a client for the first time: its greeting and nothing else.
    Greeting,
    /// A client hears the server for the first time: its greeting, or a refusal.
    Answer,
    /// A client was greeted and waits for its place: a welcome, a refusal, where it stands in the waiting queue, a
    /// heartbeat or a goodbye; no message yet.
    Place,
    /// Messages, heartbeats, and at last a goodbye.
    Traffic,
    /// The peer has said its last word.
    End,
    /// A WAN server hears what a client says first: its log-in.
    LogIn,
    /// A WAN client waits for its place: as `Place`, and what a server has to announce.
    Queue,
    /// A WAN client is joined: as `Traffic`, and what a server has to announce.
    Served,
}

impl Expect {
    /// Whether a frame of this kind is in turn.
    #[inline]
    pub const fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Greeting => matches!(kind, Kind::Greeting),
            Self::Answer => matches!(kind, Kind::Greeting | Kind::Refusal),
            Self::Place => matches!(
                kind,
                Kind::Welcome
                    | Kind::Refusal
                    | Kind::Queue
                    | Kind::Ticket
                    | Kind::Ping
                    | Kind::Pong
                    | Kind::Goodbye
            ),
            Self::Traffic => matches!(kind, Kind::Message | Kind::Ping | Kind::Pong | Kind::Goodbye),
            Self::End => false,
            Self::LogIn => matches!(kind, Kind::LogIn),
            Self::Queue => Self::Place.allows(kind) || Self::announces(kind),
            Self::Served => {
                Self::Traffic.allows(kind) || Self::announces(kind) && !matches!(kind, Kind::Queue)
            }
        }
    }

    /// Whether messages may come.
    #[inline]
    pub const fn carries_messages(self) -> bool {
        matches!(self, Self::Traffic | Self::Served)
    }

    const fn announces(kind: Kind) -> bool {
        matches!(kind, Kind::Queue | Kind::Ticket | Kind::Draining)
    }

    /// What comes after a frame that was in turn.
    #[inline]
    pub const fn after(self, kind: Kind) -> Self {
        match (self, kind) {
            (_, Kind::Refusal | Kind::Goodbye) => Self::End,
            (Self::Greeting, Kind::Greeting) | (Self::Place, Kind::Welcome) => Self::Traffic,
            (Self::Answer, Kind::Greeting) => Self::Place,
            (Self::LogIn, Kind::LogIn) => Self::Traffic,
            (Self::Queue, Kind::Welcome) => Self::Served,
            _ => self,
        }
    }
}

impl Kind {
    /// The shortest and longest payload that the wire allows for this kind; a message is bounded further by the
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
            Self::Accept => 20..=20,
            Self::LogIn => 6..=LOG_IN_MAX,
            Self::Queue => 12..=12,
            Self::Ticket => 7..=7 + TICKET_MAX,
            Self::Draining => 4..=4,
        }
    }
}
