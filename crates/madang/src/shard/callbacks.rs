//! Calling content, and surviving it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "wan")]
use std::time::Duration;

use madang_driver::Driver;
use madang_packet::Packet;

use super::Shard;
use crate::error::ErrorKind;
use crate::offload::{Then, panic_text};
use crate::user::Content;
use crate::{Context, Event, Leave, LeaveReason, Message, Peer, Sent, SessionId, WaitState, Waiter};

/// A callback that carries a session.
pub(super) enum Call<'a> {
    Join(&'a Peer),
    Recv(Message<'a>),
    Sent(Sent),
    Event(Event),
    Timer(u64),
    /// To a client's handler.
    #[cfg(feature = "wan")]
    Draining(Duration),
    Then(Then),
}

impl<D: Driver> Shard<D> {
    /// Calls content for a session. A panic is caught here: the session leaves, everything else goes on.
    pub(super) fn call(&mut self, local: u32, id: SessionId, call: Call<'_>) {
        let user = match self.core.sessions.get(local) {
            Some(session) if session.has_user => {
                self.core.sessions.details(local).and_then(|details| details.user.take())
            }
            _ => None,
        };
        let content = &self.content;
        let mut cx = Context::new(&mut self.core);
        // Unwind safety: what a panic may have left half done is the user object, which is dropped uncalled, and the
        // handler, which is content's to keep whole. `Context` only queues, and each of its steps is complete.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Some(mut user) = user else {
                match content {
                    Content::Handler(handler) => match call {
                        Call::Join(peer) => handler.on_join(&mut cx, id, peer),
                        Call::Recv(message) => handler.on_recv(&mut cx, id, message),
                        Call::Sent(sent) => handler.on_send(&mut cx, id, sent),
                        Call::Event(event) => handler.on_event(&mut cx, id, event),
                        Call::Timer(key) => handler.on_timer(&mut cx, id, key),
                        #[cfg(feature = "wan")]
                        Call::Draining(left) => handler.on_draining(&mut cx, id, left),
                        Call::Then(then) => then(&mut cx, id, None),
                    },
                    Content::Lobby(_) => {}
                }
                return None;
            };
            match call {
                Call::Join(peer) => user.on_join(&mut cx, peer),
                Call::Recv(message) => user.on_recv(&mut cx, message),
                Call::Sent(sent) => user.on_send(&mut cx, sent),
                Call::Event(event) => user.on_event(&mut cx, event),
                Call::Timer(key) => user.on_timer(&mut cx, key),
                // Users are a server's, and no client tells it such a thing.
                #[cfg(feature = "wan")]
                Call::Draining(_) => {}
                Call::Then(then) => then(&mut cx, id, Some(user.as_any())),
            }
            Some(user)
        }));
        match outcome {
            Ok(None) => {}
            Ok(user) => {
                if let Some(details) = self.core.sessions.details(local) {
                    details.user = user;
                }
            }
            Err(panic) => self.panicked(local, &*panic),
        }
    }

    /// A message for content: [`call`](Self::call) without the ways that a message to a shared handler never takes.
    #[inline(always)]
    pub(super) fn call_recv(&mut self, local: u32, id: SessionId, payload: &[u8]) {
        let Content::Handler(handler) = &self.content else {
            return self.call(local, id, Call::Recv(Message::new(payload)));
        };
        let mut cx = Context::new(&mut self.core);
        let outcome = catch_unwind(AssertUnwindSafe(|| handler.on_recv(&mut cx, id, Message::new(payload))));
        if let Err(panic) = outcome {
            self.panicked(local, &*panic);
        }
    }

    #[cold]
    fn panicked(&mut self, local: u32, panic: &(dyn Any + Send)) {
        self.core.error(ErrorKind::Panic(panic_text(panic)), Some(local));
        self.core.decide(local, LeaveReason::HandlerPanic, false);
    }

    /// The last callback of a session.
    pub(super) fn call_leave(&mut self, local: u32, id: SessionId, leave: &Leave) {
        let user = self.core.sessions.details(local).and_then(|details| details.user.take());
        let content = &self.content;
        let mut cx = Context::new(&mut self.core);
        let outcome = catch_unwind(AssertUnwindSafe(|| match (user, content) {
            (Some(mut user), _) => user.on_leave(&mut cx, leave),
            (None, Content::Handler(handler)) => handler.on_leave(&mut cx, id, leave),
            (None, Content::Lobby(_)) => {}
        }));
        if let Err(panic) = outcome {
            self.core.error(ErrorKind::Panic(panic_text(&*panic)), Some(local));
        }
    }

    /// Tells content of somebody who waits; what content says to him. An error when it panicked.
    pub(super) fn call_wait(&mut self, waiter: &Waiter, state: WaitState) -> Result<Option<Packet>, ()> {
        let content = &self.content;
        let mut cx = Context::new(&mut self.core);
        let outcome = catch_unwind(AssertUnwindSafe(|| content.on_wait(&mut cx, waiter, state)));
        outcome.map_err(|panic| {
            let words = ErrorKind::Panic(panic_text(&*panic));
            self.core.error_of(words, None, Some(waiter.peer.remote));
        })
    }

    /// A callback of the worker itself.
    pub(super) fn call_worker(&mut self, call: fn(&Content, usize)) {
        let (content, shard) = (&self.content, self.core.shard);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(content, shard))) {
            self.core.error(ErrorKind::Panic(panic_text(&*panic)), None);
        }
    }

    /// Tells content what went wrong since. A panic in there is swallowed: there is nobody left to tell.
    pub(super) fn tell_errors(&mut self) {
        let content = &self.content;
        for error in self.core.errors.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| content.on_error(&error)));
        }
    }
}
