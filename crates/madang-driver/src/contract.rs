//! The contract between a shard and whatever moves its bytes.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{
    Completion, Conn, ConnectOptions, Incoming, ListenError, ListenOptions, Listener, NetError, Outgoing,
    Time, Waker,
};

/// Completion I/O for one shard: submit here, learn what became of it from [`poll`](Driver::poll), and nowhere else.
///
/// # One thread
/// A driver is made, used and dropped on its shard's thread. Only its [`Waker`] and an [`Incoming`] socket cross threads.
///
/// # Operations
/// A connection has at most one receive and at most one send in flight. Each operation that was accepted yields any number
/// of intermediate completions (`Data` with `more`) and **exactly one terminal completion**, which may carry data. Within
/// one direction of one connection bytes keep their order; nothing else is ordered: the end of a receive may be told before
/// or after that of a send, and connections overtake each other.
///
/// # The retire rule
/// [`retire`](Driver::retire) is legal only when neither a connect, a receive nor a send of that connection is in flight,
/// that is, after the terminal completion of each was taken from `poll`. Until then the memory of the operation belongs to
/// the driver: not until cancel, not until close, not until the ring's end. Breaking the rule is the caller's bug, and the
/// drivers assert it.
///
/// # Full
/// [`attach`](Driver::attach), [`connect`](Driver::connect), [`recv_start`](Driver::recv_start) and
/// [`send`](Driver::send) may answer *full* at any time and give back what they were given; nothing has happened then. Try
/// again after the next `poll`. The verbs on the way out (`recv_pause`, `recv_resume`, `half_close`, `abort`, `retire`,
/// `unlisten`) never fail for want of room.
///
/// # Time
/// [`now`](Driver::now) moves only in `poll`. A deadline given to `poll` may be noticed late, never early.
pub trait Driver {
    /// The monotonic time as of the last `poll` (at first: of the driver's making).
    fn now(&self) -> Time;

    /// Reads the clock itself: for measuring work inside a turn. In simulation it equals [`now`](Driver::now).
    fn precise_now(&self) -> Time;

    /// Wall-clock time since the Unix epoch, for people and logs. No deadline depends on it.
    fn wall(&self) -> Duration;

    /// Fills `bytes` with entropy of cryptographic quality (in simulation: from the seed).
    fn random(&mut self, bytes: &mut [u8]);

    /// A handle by which any thread ends this driver's sleep in `poll`, now or the next time it would sleep.
    /// Wakes coalesce, and `poll` may also return without one.
    fn waker(&self) -> Waker;

    /// Opens a listening socket and starts to accept: `Accepted` completions follow, until [`unlisten`](Driver::unlisten).
    /// Answers the address really bound (port 0 asks for a free one).
    ///
    /// No error ends the accept loop: at the descriptor limit the driver pauses, backs off (1 → 64 ms), re-arms, and tells
    /// once per stall by [`Completion::AcceptStalled`].
    ///
    /// # Errors
    /// [`ListenError`] names the address and says what to change: port in use, address not of this machine, no permission.
    fn listen(&mut self, options: &ListenOptions) -> Result<(Listener, SocketAddr), ListenError>;

    /// Stops taking connections off the backlog (they wait there), for a rate cap. Those already accepted may still be
    /// told; where accepts are posted ahead of their peers (completion ports) as many more may be taken, and wait untold.
    /// Idempotent.
    fn accept_pause(&mut self, listener: Listener);

    /// Accepts again after [`accept_pause`](Driver::accept_pause). Idempotent. Those who called meanwhile come in parts, so that
    /// sessions are heard in between: one a poll with io_uring, 64 with readiness, as many as accepts are posted with iocp.
    fn accept_resume(&mut self, listener: Listener);

    /// Closes the listening socket. Accepts that were already under way may still complete; the last word is
    /// [`Completion::Unlistened`], after which the listener's name is free for reuse.
    fn unlisten(&mut self, listener: Listener);

    /// Takes a socket that some shard's listener accepted into this driver's table, once: a Windows handle belongs to one
    /// port for life, and on Linux the socket may move into this ring's own file table.
    ///
    /// # Errors
    /// [`AttachError::Full`] gives the socket back; [`AttachError::Failed`] has closed it (a peer that is gone, no room in
    /// the connection table).
    fn attach(&mut self, incoming: Incoming) -> Result<Conn, AttachError>;

    /// Starts an outgoing connection. Its terminal completion is [`Completion::Connected`]; on an error there the
    /// connection still has to be retired. There is no time-out of its own: [`abort`](Driver::abort) ends it early.
    ///
    /// # Errors
    /// [`ConnectError::Full`]: try again after the next poll. [`ConnectError::Failed`]: refused at once (no descriptor, no
    /// such local address); nothing to retire.
    fn connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError>;

    /// Starts to receive: [`Completion::Data`] as bytes come, until one terminal: `Data` without `more`, or
    /// [`Completion::RecvEnded`]. After a terminal `Data` or `NoBuffers` it may be started again; after `Eof` or an error
    /// it may not. The decision to start again is made by `more` alone.
    ///
    /// # Errors
    /// [`Full`]: nothing was started.
    fn recv_start(&mut self, conn: Conn) -> Result<(), Full>;

    /// Asks for silence on a started receive: from this call's return until [`recv_resume`](Driver::recv_resume), `poll`
    /// tells nothing of it, except after `abort`. Not a cancel: bytes that still come are kept, in order, within the bound
    /// of [`DriverSettings::pause_bytes_max`](crate::DriverSettings::pause_bytes_max), and the rest stays with the kernel.
    /// `Data` of this connection that `poll` has already handed out stays the caller's to keep. Idempotent, and without
    /// effect on a receive whose terminal completion `poll` has already handed out.
    fn recv_pause(&mut self, conn: Conn);

    /// Ends a pause: what was kept is told first. Idempotent, and without effect on a receive that is not paused.
    fn recv_resume(&mut self, conn: Conn);

    /// Starts to send `outgoing`, whose memory is the driver's from here on. Packets that have left are released by the driver,
    /// at the latest with [`Completion::Sent`] and maybe before; `Sent` says how many bytes left and gives back the others. A
    /// short count is a success: send the rest. At most one send in flight per connection. Never raises a signal.
    ///
    /// # Errors
    /// Gives `outgoing` back untouched: full.
    ///
    /// # Panics
    /// Sending nothing, or a second send, is the caller's bug.
    fn send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing>;

    /// Ends our direction of the stream (FIN) behind what was sent. Legal once, while no send is in flight; no send may
    /// follow. It completes nothing:
    /// what the peer makes of it is learnt from the receive, and nothing here waits for it, so give it a deadline.
    fn half_close(&mut self, conn: Conn);

    /// Ends the connection in both directions at once, with a reset where the system can: unsent data is thrown away, the
    /// kernel's memory is freed, and no TIME_WAIT stays. Operations in flight end soon, each with its own terminal
    /// completion, which may still carry data or success. Idempotent. After it: await the terminals, then `retire`.
    fn abort(&mut self, conn: Conn);

    /// Gives the connection's place back and closes the socket (orderly, unless it was aborted). See *the retire rule*.
    /// `conn` names nothing afterwards; its index may be handed out again with another generation.
    fn retire(&mut self, conn: Conn);

    /// Hands over what is queued, without waiting and without telling anything, and releases the packets of sends that the
    /// system took whole: for who has something long to do before the next [`poll`](Driver::poll), or many packets to make, which
    /// are then made in memory that is still near. Nothing to do where each submit reaches the system at once.
    fn submit(&mut self) {}

    /// Submits what is queued, sleeps as `wait` says, and appends at most `max` completions to `out`.
    ///
    /// It does not sleep when something is ready already: operations that ended inside a submit, or completions that did
    /// not fit the last time. It may return early and empty. All memory lent by earlier completions ([`Lent`](crate::Lent))
    /// must be back: an idle connection pins none, and the drivers assert it.
    fn poll(&mut self, out: &mut Vec<Completion>, max: usize, wait: Wait);

    /// Counters of what the driver met, for figures and for tests.
    fn figures(&self) -> DriverFigures;

    /// Ends everything: closes listeners, aborts connections and polls until nothing is in flight or `patience` is over.
    /// What is in flight then is leaked and counted rather than freed under the kernel's hands. Completions still to be
    /// told are dropped, their sockets closed and their packets released. The driver is good for nothing but `drop` after.
    fn shutdown(&mut self, patience: Duration) -> Leaked;
}

/// How long [`Driver::poll`] may sleep, and for how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Sleep no longer than this; `None` sleeps until something happens; a time that has come does not sleep.
    pub until: Option<Time>,
    /// Sleep on until so many completions are there (a hint: fewer are fine). How a tick batches: a large number and the
    /// tick's deadline. 1 otherwise.
    pub at_least: u32,
}

impl Wait {
    /// Do not sleep: take what is there.
    pub const NO: Wait = Wait { until: Some(Time::ZERO), at_least: 0 };

    /// Sleep until the first completion or wake.
    pub const FOREVER: Wait = Wait { until: None, at_least: 1 };

    /// Sleep until the first completion, a wake, or `deadline`.
    pub fn until(deadline: Time) -> Wait {
        Wait { until: Some(deadline), at_least: 1 }
    }
}

/// The driver has no room for the operation now. Nothing has happened; try again after the next `poll`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver's submission queue is full; try again after the next poll")]
pub struct Full;

/// Why [`Driver::attach`] did not take the socket.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No room now: the socket comes back, try again after the next poll.
    #[error("the driver's submission queue is full; try again after the next poll")]
    Full(Incoming),
    /// The socket is closed. `NetError::TableFull`: raise the connection limit of the driver's settings.
    #[error("the accepted socket could not be attached: {0}")]
    Failed(NetError),
}

/// Why [`Driver::connect`] did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No room now; try again after the next poll.
    #[error("the driver's submission queue is full; try again after the next poll")]
    Full,
    /// It cannot work as asked: no descriptor left, the local address is not ours, the table is full.
    #[error("the connection could not be started: {0}")]
    Failed(NetError),
}

/// What a driver met since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverFigures {
    /// Connections in the table, retired ones whose close is still under way included.
    pub connections: usize,
    /// Operations that the system still holds, of every kind.
    pub in_flight: usize,
    /// Peers that were gone before their socket could be handed over.
    pub accepts_gone: u64,
    /// Times the accept loop had to back off.
    pub accept_stalls: u64,
    /// Receives that ended for want of a buffer.
    pub no_buffers: u64,
    /// Completions of a connection that was retired before: released, never told.
    pub stale: u64,
    /// Times the kernel's completion queue overflowed.
    pub overflows: u64,
    /// System calls that submitted or waited.
    pub enters: u64,
}

/// What [`Driver::shutdown`] had to leave behind; all zero is the rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaked {
    /// Operations still in the system's hands; their memory was leaked.
    pub operations: usize,
    /// Connections that could not be closed.
    pub connections: usize,
}

impl Leaked {
    /// Whether the driver ended clean.
    pub fn is_none(&self) -> bool {
        *self == Leaked::default()
    }
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations and {} connections leaked", self.operations, self.connections)
    }
}
