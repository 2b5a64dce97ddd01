//! The user-object style: content's own object for each connection.

use std::any::Any;
use std::net::SocketAddr;

use madang_packet::Packet;

use crate::{Admission, Context, Error, Event, Leave, Message, Peer, Sent, SessionId, WaitState, Waiter};

/// One player's own object. Made by a [`Lobby`] just before the join, owned by the session, called on its shard only: so
/// its methods take `&mut self` and need no lock.
///
/// It lives until its `on_leave` returned. An object whose callback panicked is dropped without another call.
#[expect(unused_variables, reason = "the names are documentation for whoever implements the methods")]
pub trait User: Send + 'static {
    /// The session is ready; see [`Handler::on_join`](crate::Handler::on_join).
    fn on_join(&mut self, cx: &mut Context<'_>, peer: &Peer) {}
    /// One whole message.
    fn on_recv(&mut self, cx: &mut Context<'_>, message: Message<'_>) {}
    /// A write completed.
    fn on_send(&mut self, cx: &mut Context<'_>, sent: Sent) {}
    /// An event that was posted to this session.
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {}
    /// A timer of this session is due.
    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) {}
    /// The session's release is finished; the last call.
    fn on_leave(&mut self, cx: &mut Context<'_>, leave: &Leave) {}
}

/// Makes the [`User`] objects of a server, and takes the callbacks that belong to no session. Shared by all shards.
#[expect(unused_variables, reason = "the names are documentation for whoever implements the methods")]
pub trait Lobby: Send + Sync + 'static {
    /// The objects it makes.
    type User: User;

    /// A peer was accepted; nothing is set up for it yet.
    fn on_connection_request(&self, peer: &Peer) -> Admission {
        Admission::Accept
    }

    /// Makes the object for a session that is about to join. Strangers that never greet cost none. `None` declines: the
    /// session leaves ([`LeaveReason::Declined`](crate::LeaveReason::Declined)) without a callback.
    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Self::User>;

    /// Somebody waits for a place; see [`Handler::on_wait`](crate::Handler::on_wait).
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        None
    }

    /// A worker begins to handle a batch of completions.
    fn on_worker_begin(&self, shard: usize) {}
    /// The worker is done with the batch that it began.
    fn on_worker_end(&self, shard: usize) {}
    /// Something the engine could not do.
    fn on_error(&self, error: &Error) {}
}

/// A [`User`] as the engine keeps it: called through the trait, and known again by whoever made it.
pub(crate) trait AnyUser: User {
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<U: User> AnyUser for U {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A [`Lobby`] with its user type erased: what the engine keeps.
pub(crate) trait AnyLobby: Send + Sync + 'static {
    fn on_connection_request(&self, peer: &Peer) -> Admission;
    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Box<dyn AnyUser>>;
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet>;
    fn on_worker_begin(&self, shard: usize);
    fn on_worker_end(&self, shard: usize);
    fn on_error(&self, error: &Error);
}

impl<L: Lobby> AnyLobby for L {
    fn on_connection_request(&self, peer: &Peer) -> Admission {
        Lobby::on_connection_request(self, peer)
    }
    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Box<dyn AnyUser>> {
        Lobby::enter(self, session, peer).map(|user| Box::new(user) as Box<dyn AnyUser>)
    }
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        Lobby::on_wait(self, cx, waiter, state)
    }
    fn on_worker_begin(&self, shard: usize) {
        Lobby::on_worker_begin(self, shard);
    }
    fn on_worker_end(&self, shard: usize) {
        Lobby::on_worker_end(self, shard);
    }
    fn on_error(&self, error: &Error) {
        Lobby::on_error(self, error);
    }
}

/// What takes the callbacks of a server: one handler for all sessions, or an object for each.
#[derive(Clone)]
pub(crate) enum Content {
    Handler(std::sync::Arc<dyn crate::Handler>),
    Lobby(std::sync::Arc<dyn AnyLobby>),
}

impl Content {
    pub(crate) fn on_connection_request(&self, peer: &Peer) -> Admission {
        match self {
            Content::Handler(handler) => handler.on_connection_request(peer),
            Content::Lobby(lobby) => lobby.on_connection_request(peer),
        }
    }

    pub(crate) fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        match self {
            Content::Handler(handler) => handler.on_wait(cx, waiter, state),
            Content::Lobby(lobby) => lobby.on_wait(cx, waiter, state),
        }
    }

    pub(crate) fn on_worker_begin(&self, shard: usize) {
        match self {
            Content::Handler(handler) => handler.on_worker_begin(shard),
            Content::Lobby(lobby) => lobby.on_worker_begin(shard),
        }
    }

    pub(crate) fn on_worker_end(&self, shard: usize) {
        match self {
            Content::Handler(handler) => handler.on_worker_end(shard),
            Content::Lobby(lobby) => lobby.on_worker_end(shard),
        }
    }

    pub(crate) fn on_error(&self, error: &Error) {
        match self {
            Content::Handler(handler) => handler.on_error(error),
            Content::Lobby(lobby) => lobby.on_error(error),
        }
    }
}

/// A peer before its greeting.
pub(crate) fn stranger(remote: SocketAddr, local: SocketAddr) -> Peer {
    Peer { remote, local, node: None, account: None }
}
