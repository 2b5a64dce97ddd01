//! Why a session ended: one enum, used by the callback, the goodbye on the wire, the client, logs and figures.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use madang_wire::FrameError;
use madang_wire::lan::{Goodbye, GoodbyeReason, RefusalReason};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveReason {
    // --- the peer left
    /// The peer closed its end.
    PeerClosed,
    /// The peer's system reset the connection: a crash, a kill, or an abortive close.
    PeerReset,
    /// The peer's engine said goodbye, why, and with which code of its content's, if that it was; then it closed.
    PeerGoodbye(Goodbye),
    /// An encrypted session whose stream ended without a goodbye: the peer crashed, or somebody in between cut it off. What
    /// was delivered before is whole.
    Truncated,

    // --- the peer misbehaved
    /// Bytes that are no frame.
    Malformed(FrameError),
    /// A record of an encrypted session did not open: it was changed, replayed, moved or left out on the way. Nothing of it
    /// was delivered.
    Tampered,
    /// It does not read what it is sent: over the limit of queued bytes or messages.
    SlowConsumer,
    /// No byte from it for the idle time-out.
    Idle,
    /// A frame was begun and not finished in time.
    Dribble,
    /// It went on sending faster than the settings' `recv_…` limits allow, though it was read no faster than that.
    TooFast,

    // --- the peer cannot be served
    /// One side's greeting did not suit the other.
    Refused(RefusalReason),

    // --- content
    /// Content asked for it, with its own code.
    Disconnected(u32),
    /// A callback of this session panicked.
    HandlerPanic,
    /// The user-object factory refused at join.
    Declined,

    // --- policy
    /// The server stops or drains.
    Stopping,
    /// A newer incarnation of the same node has joined.
    Superseded,
    /// The pool had no memory for the session's input.
    PoolExhausted,
    /// The pool's budget was nearly used up, and this session held the most of it.
    Evicted,
    /// The server was overloaded for long, and this was one of the sessions that read the least of what they were sent.
    Overload,

    // --- the system
    /// The system gave the connection up: time-out or unreachable.
    Unreachable,
    /// The kernel had no memory or buffers for it.
    SystemExhausted,
    /// Another system error.
    System,
}

/// Whose doing a leave was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody's: the peer went.
    PeerLeft,
    /// The peer broke a rule.
    PeerMisbehaved,
    /// The two sides do not fit together: another version, another schema.
    PeerIncompatible,
    /// Our own content.
    Content,
    /// A rule of the operator.
    Policy,
    /// The operating system or the network.
    System,
}

impl LeaveReason {
    /// How many reasons there are, for tables of counters.
    pub const COUNT: usize = 22;

    /// Whose doing it was.
    pub fn fault(self) -> Fault {
        use LeaveReason::*;
        match self {
            PeerClosed | PeerReset | PeerGoodbye(_) | Truncated => Fault::PeerLeft,
            Malformed(_) | Tampered | SlowConsumer | Idle | Dribble | TooFast => Fault::PeerMisbehaved,
            Refused(_) => Fault::PeerIncompatible,
            Disconnected(_) | HandlerPanic | Declined => Fault::Content,
            Stopping | Superseded | PoolExhausted | Evicted | Overload => Fault::Policy,
            Unreachable | SystemExhausted | System => Fault::System,
        }
    }

    /// What a goodbye on the wire says of it; `None` when the peer left by itself and is owed no word.
    pub(crate) fn goodbye(self) -> Option<Goodbye> {
        use LeaveReason::*;
        let reason = match self {
            PeerClosed | PeerReset | PeerGoodbye(_) | Truncated | Tampered | Unreachable | System => {
                return None;
            }
            Malformed(_) | Dribble => GoodbyeReason::Malformed,
            SlowConsumer => GoodbyeReason::SlowConsumer,
            TooFast => GoodbyeReason::Flooding,
            Idle => GoodbyeReason::Silent,
            Refused(_) => GoodbyeReason::Incompatible,
            Disconnected(_) | Declined => GoodbyeReason::Content,
            HandlerPanic => GoodbyeReason::HandlerPanic,
            Stopping => GoodbyeReason::Stopping,
            Superseded => GoodbyeReason::Replaced,
            PoolExhausted | Evicted | SystemExhausted => GoodbyeReason::Exhausted,
            Overload => GoodbyeReason::Overloaded,
        };
        let code = if let Disconnected(code) = self { code } else { 0 };
        Some(Goodbye { reason, code })
    }

    /// Whether a peer that is cut off for it is told so first, where that can be done in a moment. Not: a peer that does not
    /// read or is not there, and one whose bytes are not to be answered.
    pub(crate) fn is_told_first(self) -> bool {
        use LeaveReason::*;
        matches!(self, Disconnected(_) | HandlerPanic | Stopping | Superseded | Evicted | Overload)
    }

    /// A number for each reason whatever it carries: an index below [`COUNT`](LeaveReason::COUNT) for counters. The
    /// numbers never change their meaning.
    pub fn code(self) -> u8 {
        use LeaveReason::*;
        match self {
            PeerClosed => 0,
            PeerReset => 1,
            PeerGoodbye(_) => 2,
            Malformed(_) => 3,
            SlowConsumer => 4,
            Idle => 5,
            Dribble => 6,
            Refused(_) => 7,
            Disconnected(_) => 8,
            HandlerPanic => 9,
            Declined => 10,
            Stopping => 11,
            Superseded => 12,
            PoolExhausted => 13,
            Unreachable => 14,
            SystemExhausted => 15,
            System => 16,
            TooFast => 17,
            Evicted => 18,
            Overload => 19,
            Truncated => 20,
            Tampered => 21,
        }
    }

    /// The label of the reason with this [`code`](LeaveReason::code), for metrics and logs.
    pub fn label_of(code: u8) -> &'static str {
        const LABELS: [&str; LeaveReason::COUNT] = [
            "peer_closed",
            "peer_reset",
            "peer_goodbye",
            "malformed",
            "slow_consumer",
            "idle",
            "dribble",
            "refused",
            "disconnected",
            "handler_panic",
            "declined",
            "stopping",
            "superseded",
            "pool_exhausted",
            "unreachable",
            "system_exhausted",
            "system",
            "too_fast",
            "evicted",
            "overload",
            "truncated",
            "tampered",
        ];
        LABELS.get(usize::from(code)).copied().unwrap_or("unknown")
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LeaveReason::*;
        match self {
            PeerClosed => f.write_str("the peer closed the connection"),
            PeerReset => f.write_str("the peer reset the connection"),
            PeerGoodbye(Goodbye { reason: GoodbyeReason::Content, code }) => {
                write!(f, "the peer's content said goodbye with code {code}")
            }
            PeerGoodbye(Goodbye { reason, .. }) => write!(f, "the peer said goodbye: {reason:?}"),
            Truncated => f.write_str("the stream was cut off"),
            Malformed(error) => write!(f, "the peer sent bytes that are no frame: {error}"),
            Tampered => f.write_str("what the peer sent was changed on the way"),
            SlowConsumer => f.write_str("the peer does not read what it is sent"),
            Idle => f.write_str("nothing came from the peer for too long"),
            Dribble => f.write_str("the peer began a frame and did not finish it in time"),
            Refused(reason) => write!(f, "the greeting was refused: {reason:?}"),
            Disconnected(code) => write!(f, "content disconnected it with code {code}"),
            HandlerPanic => f.write_str("a callback of this session panicked"),
            Declined => f.write_str("the user factory declined it"),
            Stopping => f.write_str("the server is stopping"),
            Superseded => f.write_str("a newer incarnation of the node joined"),
            TooFast => f.write_str("the peer sends faster than it may"),
            PoolExhausted => f.write_str("the packet pool is exhausted"),
            Evicted => f.write_str("the memory was short and it held the most"),
            Overload => f.write_str("the server is overloaded and it reads the least"),
            Unreachable => f.write_str("the peer is unreachable"),
            SystemExhausted => f.write_str("the system has no buffers for it"),
            System => f.write_str("a system error"),
        }
    }
}

/// What [`on_leave`](crate::Handler::on_leave) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leave {
    /// Why.
    pub reason: LeaveReason,
    /// Who it was.
    pub peer: SocketAddr,
    /// From join to leave.
    pub duration: Duration,
    /// Messages that were queued and never left.
    pub messages_unsent: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One enum end to end: what content is told here is the label of the figures and the logs, and the goodbye from which
    /// the other side's content learns it.
    #[test]
    fn a_reason_is_the_same_in_callback_label_goodbye_and_at_the_other_side() {
        use Fault::{Content, PeerIncompatible, PeerLeft, PeerMisbehaved, Policy};
        use GoodbyeReason as G;
        use LeaveReason::*;
        let content = Goodbye { reason: G::Content, code: 9 };
        let table = [
            (PeerClosed, PeerLeft, "peer_closed", None),
            (PeerReset, PeerLeft, "peer_reset", None),
            (PeerGoodbye(content), PeerLeft, "peer_goodbye", None),
            (Truncated, PeerLeft, "truncated", None),
            (Malformed(FrameError::Zero), PeerMisbehaved, "malformed", Some((G::Malformed, 0))),
            (Tampered, PeerMisbehaved, "tampered", None),
            (SlowConsumer, PeerMisbehaved, "slow_consumer", Some((G::SlowConsumer, 0))),
            (Idle, PeerMisbehaved, "idle", Some((G::Silent, 0))),
            (Dribble, PeerMisbehaved, "dribble", Some((G::Malformed, 0))),
            (TooFast, PeerMisbehaved, "too_fast", Some((G::Flooding, 0))),
            (Refused(RefusalReason::Schema), PeerIncompatible, "refused", Some((G::Incompatible, 0))),
            (Disconnected(9), Content, "disconnected", Some((G::Content, 9))),
            (HandlerPanic, Content, "handler_panic", Some((G::HandlerPanic, 0))),
            (Declined, Content, "declined", Some((G::Content, 0))),
            (Stopping, Policy, "stopping", Some((G::Stopping, 0))),
            (Superseded, Policy, "superseded", Some((G::Replaced, 0))),
            (PoolExhausted, Policy, "pool_exhausted", Some((G::Exhausted, 0))),
            (Evicted, Policy, "evicted", Some((G::Exhausted, 0))),
            (Overload, Policy, "overload", Some((G::Overloaded, 0))),
            (Unreachable, Fault::System, "unreachable", None),
            (SystemExhausted, Fault::System, "system_exhausted", Some((G::Exhausted, 0))),
            (LeaveReason::System, Fault::System, "system", None),
        ];
        assert_eq!(table.len(), LeaveReason::COUNT);
        for (reason, fault, label, goodbye) in table {
            assert_eq!(reason.fault(), fault, "{reason:?}");
            assert_eq!(LeaveReason::label_of(reason.code()), label, "{reason:?}");
            let said = reason.goodbye();
            assert_eq!(said, goodbye.map(|(reason, code)| Goodbye { reason, code }), "{reason:?}");
            assert!(!reason.is_told_first() || said.is_some(), "{reason:?}: told first, with which words?");
            // What the other side reads of it is what was said.
            if let Some(said) = said {
                let mut frame = [0; 16];
                let len = said.to_frame(&mut frame).unwrap();
                let read = Goodbye::from_payload(&frame[madang_wire::lan::HEADER..len]).unwrap();
                assert_eq!(read, said);
            }
        }
    }

    #[test]
    fn every_reason_has_a_code_of_its_own_below_count() {
        use LeaveReason::*;
        let all = [
            PeerClosed,
            PeerReset,
            PeerGoodbye(Goodbye { reason: GoodbyeReason::Stopping, code: 0 }),
            Malformed(FrameError::Zero),
            SlowConsumer,
            Idle,
            Dribble,
            Refused(RefusalReason::Full),
            Disconnected(9),
            HandlerPanic,
            Declined,
            Stopping,
            Superseded,
            PoolExhausted,
            Unreachable,
            SystemExhausted,
            System,
            TooFast,
            Evicted,
            Overload,
            Truncated,
            Tampered,
        ];
        assert_eq!(all.len(), LeaveReason::COUNT);
        for (index, reason) in all.into_iter().enumerate() {
            assert_eq!(usize::from(reason.code()), index, "{reason:?}");
            assert_ne!(LeaveReason::label_of(reason.code()), "unknown");
        }
    }
}
