//! The application: content that does everything an application may do, at the worst moments that the seed finds.
//!
//! The same deeds are done from callbacks ([`Context`]) and from other threads ([`Remote`]).

mod deeds;
mod guests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use madang_packet::Packet;
use madang_wire::lan::RefusalReason;

use self::deeds::{Posted, length, span};
pub(super) use self::guests::GuestBook;
use super::ledger::{Caller, Ledger};
use super::payload::{ANSWER, ENGINE_LEN_MIN, MARKER, Payload, WAITING};
use crate::{
    Admission, Context, Error, ErrorKind, Event, Handler, Leave, Message, Peer, Refusal, Remote, Sent,
    SessionId, WaitState, Waiter,
};

/// The words of the panics that content means.
pub(super) const MEANT: &str = "simulated content panics";

/// How content is disposed: how often it does what, per million callbacks.
#[derive(Debug, Clone, Default)]
pub(super) struct Temper {
    /// Deeds that each callback does: up to so many.
    pub(super) deeds_max: u64,
    pub(super) refuse: u32,
    /// Gives somebody a priority in the queue.
    pub(super) prefer: u32,
    /// Another thread blocks an address for a while.
    pub(super) shut_out: u32,
    pub(super) decline: u32,
    pub(super) panic: u32,
    pub(super) block: u32,
    pub(super) disconnect: u32,
    pub(super) last_word: u32,
    pub(super) offload: u32,
    pub(super) broadcast: u32,
    pub(super) group: u32,
    pub(super) post: u32,
    /// Of its messages, how many are droppable ones with a key.
    pub(super) latest: u32,
    pub(super) timer: u32,
    pub(super) stale: u32,
    pub(super) too_long: u32,
    pub(super) len_max: usize,
    /// Timers and blocking: up to so long.
    pub(super) span_max: Duration,
}

/// A house's content: its handler, or its lobby.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) temper: Arc<Temper>,
    pub(super) house: usize,
}

impl Content {
    fn open(&self) -> MutexGuard<'_, Ledger> {
        // Held through a whole callback. The engine never calls back from inside a call, so finding it locked means that it
        // did: the callback is lost, but the run ends.
        self.ledger.try_lock().expect("a callback is never called from inside another")
    }

    /// One deed of an "other thread".
    pub(super) fn meddle(&self, remote: &mut Remote, thread: u16) {
        let mut ledger = self.open();
        ledger.did("call from another thread");
        let is_server = ledger.houses[self.house].is_server;
        if is_server && !ledger.calm && ledger.dice.chance(self.temper.shut_out) {
            // Of the scripted peers, or of the engine's client.
            let address = [127, 0, 0, 1 + ledger.dice.below(5) as u8].into();
            let lasts = span(&mut ledger.dice, Duration::from_millis(400));
            if remote.rules().block(address, lasts).is_ok() {
                ledger.blocks(address, lasts);
            }
        }
        self.deed(&mut ledger, remote, Caller::Thread(thread), None);
    }

    /// Asks over every session of this house whether it is alive: the liveness phase of a client.
    /// False when the question did not even get into the mailbox.
    pub(super) fn ask(&self, remote: &mut Remote, id: SessionId) -> bool {
        self.send_one(&mut self.open(), remote, Caller::Thread(99), id, ENGINE_LEN_MIN, MARKER)
    }

    /// Some deeds, for a callback of `me`. What the callback has to do at its end, if it is to end badly.
    fn deeds(&self, ledger: &mut Ledger, cx: &mut Context<'_>, me: SessionId, may_panic: bool) -> bool {
        if ledger.calm {
            return false;
        }
        let caller = Caller::Shard { house: self.house, shard: cx.shard() };
        for _ in 0..ledger.dice.below(self.temper.deeds_max + 1) {
            if ledger.dice.chance(self.temper.offload) {
                self.offload(ledger, cx, me);
            } else if ledger.dice.chance(self.temper.timer) {
                self.timer(ledger, cx, me);
            } else {
                self.deed(ledger, cx, caller, Some(me));
            }
        }
        if ledger.dice.chance(self.temper.block) {
            ledger.did("callback blocks");
            ledger.blocks = Some(span(&mut ledger.dice, self.temper.span_max));
        }
        let panics = may_panic && ledger.dice.chance(self.temper.panic);
        if panics {
            ledger.did("callback panics");
            ledger.will_panic(me);
        }
        panics
    }

    // --- callbacks, whichever style

    fn joins(&self, cx: &mut Context<'_>, id: SessionId) {
        let mut ledger = self.open();
        let mut panics = false;
        if !ledger.calm {
            // Sending first, and disconnecting inside on_join, are what this callback is dangerous for.
            if ledger.dice.coin() {
                ledger.did("send inside on_join");
                let caller = Caller::Shard { house: self.house, shard: cx.shard() };
                let len = length(&mut ledger.dice, self.temper.len_max);
                self.send_one(&mut ledger, cx, caller, id, len, 0);
            }
            panics = self.deeds(&mut ledger, cx, id, true);
        }
        ledger.joined(id);
        end_of_callback(ledger, panics);
    }

    fn receives(&self, cx: &mut Context<'_>, id: SessionId, message: &Message<'_>) {
        let mut ledger = self.open();
        let flags = ledger.receives(id, message.bytes());
        let caller = Caller::Shard { house: self.house, shard: cx.shard() };
        let echoes = !ledger.calm && ledger.dice.coin();
        if flags & MARKER != 0 {
            self.send_one(&mut ledger, cx, caller, id, ENGINE_LEN_MIN, ANSWER);
        } else if echoes {
            self.send_one(&mut ledger, cx, caller, id, message.len(), 0);
        }
        let panics = self.deeds(&mut ledger, cx, id, true);
        end_of_callback(ledger, panics);
    }

    fn sent(&self, cx: &mut Context<'_>, id: SessionId, sent: Sent) {
        let mut ledger = self.open();
        ledger.is_called(id, "on_send");
        if sent.messages == 0 {
            ledger.fail("H4", format!("{id} is told of a write without messages"));
        }
        let acts = ledger.dice.below(8) == 0;
        let panics = acts && self.deeds(&mut ledger, cx, id, true);
        end_of_callback(ledger, panics);
    }

    fn event(&self, cx: &mut Context<'_>, id: SessionId, event: Event) {
        let mut ledger = self.open();
        match event.downcast::<Posted>() {
            Ok(Posted { to, number }) => ledger.event_came(id, to, number),
            Err(_) => ledger.fail("S15", "an event of another type"),
        }
        let panics = self.deeds(&mut ledger, cx, id, true);
        end_of_callback(ledger, panics);
    }

    fn timer_fires(&self, cx: &mut Context<'_>, id: SessionId, key: u64) {
        let mut ledger = self.open();
        ledger.timer_fired(id, key);
        let panics = self.deeds(&mut ledger, cx, id, true);
        end_of_callback(ledger, panics);
    }

    fn leaves(&self, cx: &mut Context<'_>, id: SessionId, leave: &Leave) {
        let mut ledger = self.open();
        ledger.leaves(id, leave);
        // Requests for a session that is gone, from inside its own last callback (S08, S09).
        let panics = self.deeds(&mut ledger, cx, id, false);
        end_of_callback(ledger, panics);
    }

    fn request(&self, peer: &Peer) -> Admission {
        let mut ledger = self.open();
        ledger.asks_for(peer.remote.ip());
        if ledger.calm {
            return Admission::Accept;
        }
        let prefers = ledger.dice.chance(self.temper.prefer).then(|| ledger.dice.below(3) as u8);
        let panics = ledger.dice.chance(self.temper.panic);
        let refuses = ledger.dice.chance(self.temper.refuse);
        if refuses {
            ledger.did("refusal at the door");
        }
        let words = (refuses && !panics).then(|| ledger.turn_down(peer.remote)).flatten();
        end_of_callback(ledger, panics);
        match (words, prefers) {
            (Some(words), _) => Admission::RefuseWith(Refusal::new(RefusalReason::NotAllowed, &words)),
            _ if refuses => Admission::Refuse,
            (None, Some(priority)) => Admission::Priority(priority),
            (None, None) => Admission::Accept,
        }
    }

    fn waits(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        let mut ledger = self.open();
        ledger.waits(self.house, cx.shard(), waiter, state);
        let panics = !ledger.calm && ledger.dice.chance(self.temper.panic);
        if panics {
            ledger.did("callback panics");
            ledger.wait_panics(self.house, waiter.id);
        }
        let speaks = ledger.houses[self.house].is_server && ledger.dice.coin();
        end_of_callback(ledger, panics);
        let number = waiter.id.0 as u32;
        let words = Payload::Engine { number, flags: WAITING }.bytes(ENGINE_LEN_MIN);
        speaks.then(|| cx.packet(&words).freeze())
    }

    fn error(&self, error: &Error) {
        let mut ledger = self.open();
        ledger.note(|| format!("house {} on_error: {error:?}", self.house));
        match &error.kind {
            ErrorKind::Panic(text) | ErrorKind::JobPanic(text) if text != MEANT => {
                ledger.fail("no panic", format!("the engine panicked inside a callback: {text}"));
            }
            ErrorKind::TurnedAway(cause) => ledger.turned_away(*cause, error.peer),
            ErrorKind::Seal(what) => ledger.fail("I15", format!("a message could not be sealed: {what}")),
            kind if is_of_broken_bytes(kind) => {
                let hostile =
                    error.peer.and_then(|peer| ledger.peers.get(&peer)).is_some_and(|peer| peer.is_hostile);
                if !hostile && !ledger.tampered {
                    let what = format!("{:?}: {kind}, and its peer is not hostile", error.session);
                    ledger.fail("I1", what);
                }
            }
            _ => {}
        }
    }
}

/// Whether an error says that bytes came which no honest peer sends.
fn is_of_broken_bytes(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::Malformed(_) => true,
        #[cfg(feature = "wan")]
        ErrorKind::Stranger(_) | ErrorKind::Handshake(_) => true,
        _ => false,
    }
}

/// Panics outside the ledger's lock, and without the noise of a panic that nobody meant.
fn end_of_callback(ledger: MutexGuard<'_, Ledger>, panics: bool) {
    drop(ledger);
    if panics {
        std::panic::resume_unwind(Box::new(MEANT));
    }
}

impl Handler for Content {
    fn on_connection_request(&self, peer: &Peer) -> Admission {
        self.request(peer)
    }
    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        self.waits(cx, waiter, state)
    }
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, peer: &Peer) {
        self.open().joins(session, self.house, cx.shard(), peer);
        self.joins(cx, session);
    }
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        self.receives(cx, session, &message);
    }
    fn on_send(&self, cx: &mut Context<'_>, session: SessionId, sent: Sent) {
        self.sent(cx, session, sent);
    }
    fn on_event(&self, cx: &mut Context<'_>, session: SessionId, event: Event) {
        self.event(cx, session, event);
    }
    fn on_timer(&self, cx: &mut Context<'_>, session: SessionId, key: u64) {
        self.timer_fires(cx, session, key);
    }
    fn on_draining(&self, _: &mut Context<'_>, session: SessionId, left: Duration) {
        self.open().hears_draining(&session, left);
    }
    fn on_leave(&self, cx: &mut Context<'_>, session: SessionId, leave: &Leave) {
        self.leaves(cx, session, leave);
    }
    fn on_error(&self, error: &Error) {
        self.error(error);
    }
}
