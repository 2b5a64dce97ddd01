//! What the engine tells content.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use madang_packet::Packet;

use crate::{Context, Error, Event, Leave, Message, Refusal, SessionId, WaitState, Waiter};

/// The callbacks of a server or client. All are empty by default; fill in what you need.
///
/// One handler is shared by all shards, so it takes `&self`; what belongs to one player and should need no lock goes into
/// a [`User`](crate::User) instead. Those that carry a session run on its shard's thread, one at a time and in order:
/// `on_join`, then messages, events and timers, then `on_leave`, and nothing after. [`on_connection_request`] runs on the
/// gate's shard, [`on_error`] on any. None is ever called under a lock, or from inside another.
///
/// A callback that blocks stalls every session of its shard: put work that waits on [`Context::offload`].
///
/// A panic in a callback ends that session ([`LeaveReason::HandlerPanic`](crate::LeaveReason::HandlerPanic)) and is
/// reported through [`on_error`]; other sessions go on.
///
/// [`on_connection_request`]: Handler::on_connection_request
/// [`on_error`]: Handler::on_error
#[expect(unused_variables, reason = "the names are documentation for whoever implements the methods")]
pub trait Handler: Send + Sync + 'static {
    /// A peer was accepted; nothing is set up for it yet. Refusing costs next to nothing.
    fn on_connection_request(&self, peer: &Peer) -> Admission {
        Admission::Accept
    }

    /// The session is ready. Sending and disconnecting are fine here, and what is sent here leaves before any message
    /// of the peer is delivered.
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, peer: &Peer) {}

    /// One whole message, however TCP cut or joined it.
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {}

    /// A write completed: what it carried is in the kernel's hands (the peer may not have it yet).
    fn on_send(&self, cx: &mut Context<'_>, session: SessionId, sent: Sent) {}

    /// An event that was [posted](Context::post) to the session.
    fn on_event(&self, cx: &mut Context<'_>, session: SessionId, event: Event) {}

    /// A [timer](Context::timer) of the session is due.
    fn on_timer(&self, cx: &mut Context<'_>, session: SessionId, key: u64) {}

    /// The session's release is finished: no callback for this id comes after. Exactly once for each `on_join`.
    fn on_leave(&self, cx: &mut Context<'_>, session: SessionId, leave: &Leave) {}

    /// Somebody waits for a place: he entered the waiting queue of a full server (`queue_max`), moved up in it, was admitted, or
    /// is gone. Runs on the shard that has his connection; for one whose connection broke and who did not come back, on
    /// the gate's.
    ///
    /// The packet, if any, goes to him in the server's framing: how a foreign framing, which has no words of the engine's
    /// own for it, tells its clients. A newer one replaces one that has not left yet; one of more than 4 KiB is not sent. LAN
    /// and WAN clients are told by the engine itself; a packet for one is dropped.
    ///
    /// On a client it tells of its own links that wait, see [`Waiter::link`].
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        None
    }

    /// On a client: the server of this session will stop in so long, and the session goes on until then. A good moment to come
    /// to a good place. Told again when the server counts anew; by WAN servers alone, see [`Server::announce`](crate::Server::announce).
    fn on_draining(&self, cx: &mut Context<'_>, session: SessionId, left: Duration) {}

    /// A worker begins to handle a batch of completions. At most once a turn; for thread monitoring.
    fn on_worker_begin(&self, shard: usize) {}

    /// The worker is done with the batch that it began.
    fn on_worker_end(&self, shard: usize) {}

    /// Something the engine could not do. Rate-limited: a peer cannot make it a flood.
    fn on_error(&self, error: &Error) {}
}

/// What [`Handler::on_connection_request`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// Let it in, if there is a place.
    Accept,
    /// Close it at once, without a word.
    Refuse,
    /// Let it greet, and answer with this: "maintenance until 9". It never joins. Costs what a stranger costs, on a WAN a
    /// handshake; where the framing has no word for it (a foreign one) it is `Refuse`.
    RefuseWith(Refusal),
    /// As `Accept`; and if it must wait for a place, it waits ahead of all with a lower number. `Accept` is `Priority(0)`.
    Priority(u8),
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our own address that the connection came in on, or went out from.
    pub local: SocketAddr,
    /// What the peer's greeting said; `None` before the greeting and in framings without one. Of a WAN client it knows the
    /// app version alone.
    pub node: Option<Arc<Node>>,
    /// Who the player is, as the log-in's check found; `None` without one.
    pub account: Option<Arc<Account>>,
}

/// Who a player is: what the check of a log-in says of it, for content to find in [`Peer::account`].
#[derive(Clone)]
pub struct Account {
    /// Content's own number.
    pub id: u64,
    /// The priority class in the waiting queue: 0 for most, higher ones are let in first.
    pub class: u8,
    value: Option<Arc<dyn Any + Send + Sync>>,
}

impl Account {
    /// An account by content's own number, of class 0.
    pub fn new(id: u64) -> Account {
        Account { id, class: 0, value: None }
    }

    /// Sets the priority class.
    #[must_use]
    pub fn class(self, class: u8) -> Account {
        Account { class, ..self }
    }

    /// Gives it something of content's own: what the database knew, say.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(self, value: T) -> Account {
        Account { value: Some(Arc::new(value)), ..self }
    }

    /// What it was given with [`with`](Account::with); `None` if that was no `T`.
    pub fn value<T: Any>(&self) -> Option<&T> {
        self.value.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("id", &self.id).field("class", &self.class).finish_non_exhaustive()
    }
}

impl PartialEq for Account {
    /// Equal in number and class, and with the very same value.
    fn eq(&self, other: &Account) -> bool {
        let same_value = match (&self.value, &other.value) {
            (Some(value), Some(other)) => Arc::ptr_eq(value, other),
            (None, None) => true,
            _ => false,
        };
        (self.id, self.class) == (other.id, other.class) && same_value
    }
}

impl Eq for Account {}

/// What a peer's greeting said of it. On a LAN without a secret it is a claim, protected by the address filter alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// What it does, like `chat`.
    pub service: String,
    /// Which one it is, like `chat-3`; empty for a peer that is no node.
    pub name: String,
    /// Which life of the node this is.
    pub incarnation: u64,
    /// The application's own version.
    pub app_version: u32,
}

/// What one completed write carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Messages whose last byte left with it.
    pub messages: usize,
    /// Payload bytes of those messages.
    pub bytes: usize,
}
