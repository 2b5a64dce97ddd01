//! Errors of starting, and errors that are told while running.

use std::net::SocketAddr;

use crate::{Link, Refusal, SessionId, TurnedAway};

/// The result of starting something.
pub type Result<T, E = StartError> = std::result::Result<T, E>;

/// Why a server or client did not start. Each says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting has a value that cannot work.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The listening socket could not be opened.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said, and what to do.
        reason: String,
    },
    /// The driver that the settings name cannot be used here.
    #[error("driver `{driver}` cannot be used here: {reason}")]
    Driver {
        /// As in the settings.
        driver: &'static str,
        /// What the system said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
}

/// A wrong setting, by its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{key}`: {problem}")]
pub struct SettingError {
    /// The key, as it stands in a settings file.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl SettingError {
    pub(crate) fn new(key: &str, problem: impl Into<String>) -> SettingError {
        SettingError { key: key.to_owned(), problem: problem.into() }
    }
}

/// Something the engine could not do, as told to [`Handler::on_error`](crate::Handler::on_error).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// What.
    pub kind: ErrorKind,
    /// Whose session, where there is one.
    pub session: Option<SessionId>,
    /// The peer's address, where it is known.
    pub peer: Option<SocketAddr>,
    /// How many errors were not told since the last one that was: peers cannot make a flood of them.
    pub suppressed: u64,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A peer's bytes are no frame, or a frame out of turn. Its connection ends.
    #[error("malformed input: {0}")]
    Malformed(#[from] madang_wire::FrameError),
    /// A peer was refused in words: its greeting or log-in does not suit, or content wants it so. Its connection ends.
    #[error("greeting refused: {0}")]
    Refused(Refusal),
    /// A peer that may not connect here (a LAN server takes loopback, private and listed addresses only).
    #[error("a peer from outside was turned away")]
    Outsider,
    /// A peer that the IP rules or the limits of its prefix do not let in; a few a second are told, all are counted.
    #[error("a peer was turned away: {}", TurnedAway::label_of(.0.code()))]
    TurnedAway(TurnedAway),
    /// No place for another peer: `max_sessions`, or `embryos_max` for peers that have not greeted yet.
    #[error("the server is full")]
    ServerFull,
    /// A greeting did not come in time.
    #[error("a peer did not greet in time")]
    GreetingTimeout,
    /// A session's queue is over its hard limit; the session leaves as a slow consumer.
    #[error("a session's send queue is over its limit")]
    QueueOverflow,
    /// A session went on sending faster than the settings' `recv_…` limits allow; it leaves. An honest client that is cut
    /// so needs higher limits, or a longer `recv_burst_ms`.
    #[error("a session sends faster than it may")]
    TooFast,
    /// A shard's mailbox is full: requests of other threads are answered `Full`. Raise `mailbox_messages_max`.
    #[error("a shard's mailbox is full")]
    MailboxFull,
    /// A shard's lag went over or below a limit of the settings' `overload_…`; told once for each change. Level 1 takes no new
    /// peers in, 2 lets none join, 3 cuts those that read the least; 0 is over.
    #[error("shard {shard} is overloaded: level {level}, {lag:?} late")]
    Overload {
        /// Which.
        shard: usize,
        /// From now on.
        level: u8,
        /// How late it is, smoothed.
        lag: std::time::Duration,
    },
    /// A shard stood still: a callback that blocks, or the whole machine. Put work that waits on `Context::offload`.
    #[error("shard {shard} stood still for {late:?}")]
    Stalled {
        /// Which.
        shard: usize,
        /// For how long.
        late: std::time::Duration,
    },
    /// The pool is short (see `pool_short_bytes`): sessions that hold much get no broadcasts, and the largest holders leave
    /// with [`Evicted`](crate::LeaveReason::Evicted) until it is better. Told once each time. Raise `pool_budget_bytes` or lower
    /// the per-session limits.
    #[error("the packet pool runs short")]
    PoolShort,
    /// The pool's budget is used up. Raise `pool_budget_bytes` or lower the per-session limits.
    #[error("the packet pool's budget is used up")]
    PoolExhausted,
    /// The kernel has no buffers or memory (ENOBUFS, ENOMEM).
    #[error("the kernel has no buffers")]
    SystemExhausted,
    /// The driver ran out of receive buffers; the starved sessions are served in turn. Raise `recv_buffers`.
    #[error("no receive buffer was free")]
    RecvBuffersExhausted,
    /// Accepting pauses and will go on by itself: mostly the descriptor limit.
    #[error("accepting pauses: {0}")]
    AcceptStalled(String),
    /// A callback panicked; its session leaves.
    #[error("a callback panicked: {0}")]
    Panic(String),
    /// Content's framing could not seal a message; the session leaves.
    #[error("a message could not be sealed: {0}")]
    Seal(#[from] madang_wire::SealError),
    /// A link could not be made, told once until it is up again; it is tried on.
    #[error("link to {remote} is down: {reason}")]
    LinkDown {
        /// Which.
        link: Link,
        /// Where to.
        remote: SocketAddr,
        /// Why.
        reason: LinkDown,
    },
    /// Somebody knocked at a WAN server who does not speak its protocol or does not know its key; he got no byte.
    #[cfg(feature = "wan")]
    #[error("a stranger was turned away: {0}")]
    Stranger(#[from] madang_wire::wan::GateError),
    /// A handshake failed; the connection ends.
    #[cfg(feature = "wan")]
    #[error("a handshake failed: {0}")]
    Handshake(#[from] madang_wire::wan::HandshakeError),
    /// What a client logs in with cannot be sent: a token of more than 2,048 bytes, or a proof of more than 64.
    #[cfg(feature = "wan")]
    #[error("the log-in cannot be sent: {0}")]
    Credentials(String),
    /// An offloaded job panicked; its session leaves.
    #[error("an offloaded job panicked: {0}")]
    JobPanic(String),
    /// All 2^40 serials of this process are used up: no session can join any more. Restart the process.
    #[error("the process has no session serials left")]
    SerialsExhausted,
}

/// Why a link is not up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkDown {
    /// Nobody listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer or its network cannot be reached, or does not answer in time.
    #[error("unreachable")]
    Unreachable,
    /// The server answered with a refusal, perhaps with a text for whoever sits in front of it.
    #[error("refused by the server: {0}")]
    Refused(Refusal),
    /// What answers there does not speak this protocol, or closed before the welcome.
    #[error("the server did not complete the greeting")]
    NoWelcome,
    /// Who answers there did not prove to be the server whose key is pinned, or to know the secret of sealed links: another
    /// server, or somebody in between. Or it is a server of another kind.
    #[error("who answers there is not the server that is trusted")]
    Untrusted,
    /// The server closed without an answer to the handshake: it does not know the key that is pinned (an old one, after a
    /// change of keys?), or is no WAN server.
    #[error("no answer to the handshake: a key that the server does not have, or no WAN server")]
    NoAnswer,
    /// Something local: no descriptor, the local address is not ours.
    #[error("a local error")]
    Local,
}
