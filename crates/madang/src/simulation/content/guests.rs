//! The user-object style of the same content.

use madang_packet::Packet;

use super::Content;
use crate::{
    Admission, Context, Error, Event, Leave, Lobby, Message, Peer, Sent, SessionId, User, WaitState, Waiter,
};

/// A user object, for one session.
pub(in crate::simulation) struct Guest {
    content: Content,
    id: SessionId,
    /// Between `enter` and the end of `on_leave`.
    is_owed_a_leave: bool,
}

/// The lobby that makes guests. It does not know shards: the id's place tells.
#[derive(Clone)]
pub(in crate::simulation) struct GuestBook {
    pub(in crate::simulation) content: Content,
    /// Slots of each shard, to tell the shard from an id.
    pub(in crate::simulation) slots_a_shard: usize,
}

impl Lobby for GuestBook {
    type User = Guest;

    fn on_connection_request(&self, peer: &Peer) -> Admission {
        self.content.request(peer)
    }
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        self.content.waits(cx, waiter, state)
    }
    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Guest> {
        let mut ledger = self.content.open();
        ledger.joins(session, self.content.house, session.slot() / self.slots_a_shard, peer);
        if !ledger.calm && ledger.dice.chance(self.content.temper.decline) {
            ledger.did("user declined");
            ledger.declined(session);
            return None;
        }
        Some(Guest { content: self.content.clone(), id: session, is_owed_a_leave: true })
    }
    fn on_error(&self, error: &Error) {
        self.content.error(error);
    }
}

impl User for Guest {
    fn on_join(&mut self, cx: &mut Context<'_>, _: &Peer) {
        self.content.joins(cx, self.id);
    }
    fn on_recv(&mut self, cx: &mut Context<'_>, message: Message<'_>) {
        self.content.receives(cx, self.id, &message);
    }
    fn on_send(&mut self, cx: &mut Context<'_>, sent: Sent) {
        self.content.sent(cx, self.id, sent);
    }
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        self.content.event(cx, self.id, event);
    }
    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) {
        self.content.timer_fires(cx, self.id, key);
    }
    fn on_leave(&mut self, cx: &mut Context<'_>, leave: &Leave) {
        self.is_owed_a_leave = false;
        self.content.leaves(cx, self.id, leave);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.is_owed_a_leave {
            self.content.open().dropped_uncalled(self.id);
        }
    }
}
