//! The application: content that does everything an application may do, at the worst moments that the seed finds.
//!
//! The same deeds are done from callbacks ([`Context`]) and from other threads ([`Remote`]).

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use madang_driver::sim::Random;
use madang_packet::{Packet, PacketMut};

use super::ledger::{Audience, Caller, Ledger};
use super::payload::{ANSWER, ENGINE_LEN_MIN, MARKER, Payload, WAITING};
use crate::{
    Admission, Answer, Context, Error, ErrorKind, Event, GroupId, Handler, Leave, Lobby, Message, Peer,
    Remote, Sent, SessionId, User, WaitState, Waiter,
};

/// The words of the panics that content means.
pub(super) const MEANT: &str = "simulated content panics";

/// Groups there are.
const GROUPS: u64 = 3;

/// Keys of droppable messages.
const KEYS: u64 = 3;

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

/// What an event carries.
struct Posted {
    to: SessionId,
    number: u32,
}

/// The hands that a deed is done with.
pub(super) trait Hands {
    fn packet(&self, bytes: &[u8]) -> PacketMut;
    fn send(&mut self, id: SessionId, packet: Packet, now: bool) -> Answer;
    fn send_latest(&mut self, id: SessionId, key: u32, packet: Packet) -> Answer;
    fn send_many(&mut self, ids: &[SessionId], key: Option<u32>, packet: &Packet) -> Answer;
    fn send_all(&mut self, key: Option<u32>, packet: &Packet) -> Answer;
    fn send_group(&mut self, group: GroupId, key: Option<u32>, packet: &Packet) -> Answer;
    fn group(&mut self, id: SessionId, group: GroupId, joins: bool) -> Answer;
    fn disconnect(&mut self, id: SessionId, code: u32) -> bool;
    fn last_word(&mut self, id: SessionId, packet: Packet, code: u32) -> Answer;
    fn post(&mut self, id: SessionId, event: PostedEvent) -> Answer;
}

/// An event on its way, opaque to the hands.
pub(super) struct PostedEvent(Posted);

macro_rules! hands {
    ($($who:ty),*) => {$(
        impl Hands for $who {
            fn packet(&self, bytes: &[u8]) -> PacketMut { <$who>::packet(self, bytes) }
            fn send(&mut self, id: SessionId, packet: Packet, now: bool) -> Answer {
                if now { <$who>::send_now(self, id, packet) } else { <$who>::send(self, id, packet) }
            }
            fn send_latest(&mut self, id: SessionId, key: u32, packet: Packet) -> Answer {
                <$who>::send_latest(self, id, key, packet)
            }
            fn send_many(&mut self, ids: &[SessionId], key: Option<u32>, packet: &Packet) -> Answer {
                match key {
                    None => <$who>::send_many(self, ids, packet),
                    Some(key) => <$who>::send_many_latest(self, ids, key, packet),
                }
            }
            fn send_all(&mut self, key: Option<u32>, packet: &Packet) -> Answer {
                match key {
                    None => <$who>::send_all(self, packet),
                    Some(key) => <$who>::send_all_latest(self, key, packet),
                }
            }
            fn send_group(&mut self, group: GroupId, key: Option<u32>, packet: &Packet) -> Answer {
                match key {
                    None => <$who>::send_group(self, group, packet),
                    Some(key) => <$who>::send_group_latest(self, group, key, packet),
                }
            }
            fn group(&mut self, id: SessionId, group: GroupId, joins: bool) -> Answer {
                if joins { <$who>::join_group(self, id, group) } else { <$who>::leave_group(self, id, group) }
            }
            fn disconnect(&mut self, id: SessionId, code: u32) -> bool { <$who>::disconnect(self, id, code) }
            fn last_word(&mut self, id: SessionId, packet: Packet, code: u32) -> Answer {
                <$who>::send_and_disconnect(self, id, packet, code)
            }
            fn post(&mut self, id: SessionId, event: PostedEvent) -> Answer { <$who>::post(self, id, event.0) }
        }
    )*};
}

hands!(Context<'_>, Remote);

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

    fn deed(&self, ledger: &mut Ledger, hands: &mut impl Hands, caller: Caller, me: Option<SessionId>) {
        let temper = &*self.temper;
        let target = self.target(ledger, me);
        let dice = &mut ledger.dice;
        if dice.chance(temper.disconnect) {
            ledger.did("disconnect");
            let code = ledger.code(target);
            let won = hands.disconnect(target, code);
            ledger.disconnected(target, won, caller, self.house);
        } else if dice.chance(temper.last_word) {
            self.last_word(ledger, hands, caller, target);
        } else if dice.chance(temper.broadcast) {
            self.broadcast(ledger, hands, caller);
        } else if dice.chance(temper.group) {
            let (group, joins) = (dice.below(GROUPS), dice.below(3) > 0);
            let answer = hands.group(target, GroupId(group), joins);
            ledger.did("group joined or left");
            if ledger.answered(target, answer, "group", self.house) {
                ledger.group_changed(target, group, joins, caller);
            }
        } else if dice.chance(temper.post) {
            ledger.did("post");
            let number = ledger.event();
            let answer = hands.post(target, PostedEvent(Posted { to: target, number }));
            if ledger.answered(target, answer, "post", self.house) {
                // Through the mailbox also on the own shard: an order of its own.
                ledger.posted(target, number, caller);
            }
        } else if dice.chance(temper.latest) {
            self.send_latest(ledger, hands, caller, target);
        } else {
            let len = length(dice, temper.len_max);
            self.send_one(ledger, hands, caller, target, len, 0);
        }
    }

    /// A droppable message with a key.
    fn send_latest(&self, ledger: &mut Ledger, hands: &mut impl Hands, caller: Caller, target: SessionId) {
        let len = length(&mut ledger.dice, self.temper.len_max).min(ledger.houses[self.house].frame_limit);
        let key = ledger.dice.below(KEYS) as u32;
        ledger.did("send_latest");
        let number = ledger.number(self.house, caller, Audience::One(target), len, Some(key));
        let packet = hands.packet(&Payload::Engine { number, flags: 0 }.bytes(len));
        let answer = hands.send_latest(target, key, packet.freeze());
        match answer {
            Answer::Replaced => ledger.did("answer Replaced"),
            Answer::Dropped => ledger.did("answer Dropped"),
            _ => {}
        }
        if ledger.answered(target, answer, "send_latest", self.house) {
            ledger.owes_latest(target, number);
        }
    }

    /// Whom a deed is about: mostly its own session, now and then one that left, of another house, or of nobody.
    fn target(&self, ledger: &mut Ledger, me: Option<SessionId>) -> SessionId {
        let dice = &mut ledger.dice;
        if dice.chance(self.temper.stale) {
            let id = match dice.below(3) {
                0 if !ledger.graves.is_empty() => Some(ledger.graves[dice.index(ledger.graves.len())]),
                1 if !ledger.alive.is_empty() => {
                    // The same slot under another serial: nobody.
                    let id = ledger.alive[dice.index(ledger.alive.len())];
                    SessionId::from_u64(id.to_u64() ^ (1 << 39))
                }
                _ => SessionId::from_u64(dice.word()),
            };
            if let Some(id) = id {
                ledger.did("stale or invented id");
                return id;
            }
        }
        if let Some(me) = me.filter(|_| ledger.dice.below(3) > 0) {
            return me;
        }
        let house = self.house;
        let dice = &mut ledger.dice;
        // A few draws: most of those that live are of this house.
        for _ in 0..4 {
            if ledger.alive.is_empty() {
                break;
            }
            let id = ledger.alive[dice.index(ledger.alive.len())];
            if ledger.sessions[&id].house == house {
                return id;
            }
        }
        me.or_else(|| SessionId::from_u64(dice.word() | 1)).expect("a number with a serial is a name")
    }

    fn send_one(
        &self,
        ledger: &mut Ledger,
        hands: &mut impl Hands,
        caller: Caller,
        target: SessionId,
        len: usize,
        flags: u8,
    ) -> bool {
        let too_long = flags == 0 && ledger.dice.chance(self.temper.too_long);
        let limit = ledger.houses[self.house].frame_limit;
        let len = if too_long { limit + 1 } else { len.clamp(ENGINE_LEN_MIN, limit) };
        let number = ledger.number(self.house, caller, Audience::One(target), len, None);
        let packet = hands.packet(&Payload::Engine { number, flags }.bytes(len));
        let now = ledger.dice.coin();
        let answer = hands.send(target, packet.freeze(), now);
        if too_long {
            ledger.did("too long a message");
            if answer.is_queued() || answer == Answer::Full {
                ledger.fail("P2", format!("{len} bytes over a limit of {limit} are answered {answer:?}"));
            }
        }
        if answer == Answer::Throttled {
            ledger.did("answer Throttled");
        }
        let accepted = ledger.answered(target, answer, "send", self.house);
        if accepted {
            ledger.owes(target, number);
        }
        accepted
    }

    fn last_word(&self, ledger: &mut Ledger, hands: &mut impl Hands, caller: Caller, target: SessionId) {
        let len =
            length(&mut ledger.dice, self.temper.len_max.min(200)).min(ledger.houses[self.house].frame_limit);
        ledger.did("send_and_disconnect");
        let number = ledger.number(self.house, caller, Audience::One(target), len, None);
        let packet = hands.packet(&Payload::Engine { number, flags: 0 }.bytes(len));
        let code = ledger.code(target);
        let answer = hands.last_word(target, packet.freeze(), code);
        if ledger.answered(target, answer, "last word", self.house) {
            ledger.owes(target, number);
            ledger.spoke_last(target, code, caller);
        }
    }

    fn broadcast(&self, ledger: &mut Ledger, hands: &mut impl Hands, caller: Caller) {
        let len = length(&mut ledger.dice, self.temper.len_max).min(ledger.houses[self.house].frame_limit);
        let audience = match ledger.dice.below(3) {
            0 => Audience::All,
            1 => Audience::Group(ledger.dice.below(GROUPS)),
            _ => {
                let mut ids: Vec<SessionId> =
                    (0..ledger.dice.below(6)).map(|_| self.target(ledger, None)).collect();
                ids.sort_unstable();
                ids.dedup();
                let dice = &mut ledger.dice;
                if ids.len() > 1 && dice.coin() {
                    let index = dice.index(ids.len());
                    ids.swap(0, index);
                }
                Audience::Many(ids)
            }
        };
        ledger.did("broadcast");
        let is_latest = ledger.dice.chance(self.temper.latest);
        let key = is_latest.then(|| ledger.dice.below(KEYS) as u32);
        let number = ledger.number(self.house, caller, audience.clone(), len, key);
        let packet = hands.packet(&Payload::Engine { number, flags: 0 }.bytes(len)).freeze();
        if packet.is_exhausted() {
            return;
        }
        let answer = match &audience {
            Audience::All => hands.send_all(key, &packet),
            Audience::Group(group) => hands.send_group(GroupId(*group), key, &packet),
            Audience::Many(ids) => hands.send_many(ids, key, &packet),
            Audience::One(_) => return,
        };
        ledger.note(|| format!("    broadcast {number} to {audience:?}: {answer:?}"));
        if key.is_none() {
            ledger.owes_audience(number, answer.is_queued());
        }
    }

    fn timer(&self, ledger: &mut Ledger, cx: &mut Context<'_>, me: SessionId) {
        let key = ledger.dice.below(4);
        if ledger.dice.below(4) == 0 {
            let answer = cx.cancel_timer(me, key);
            return ledger.timer_cancelled(me, key, answer);
        }
        ledger.did("timer");
        let after = span(&mut ledger.dice, self.temper.span_max);
        let answer = cx.timer(me, after, key);
        if ledger.answered(me, answer, "timer", self.house) {
            let at = ledger.now + after;
            ledger.timer_set(me, key, at);
        }
    }

    fn offload(&self, ledger: &mut Ledger, cx: &mut Context<'_>, me: SessionId) {
        let (ordered, panics) = (ledger.dice.coin(), ledger.dice.chance(self.temper.panic));
        let job = move || {
            if panics {
                std::panic::resume_unwind(Box::new(MEANT));
            }
            17u32
        };
        let content = self.clone();
        let then = move |cx: &mut Context<'_>, id: SessionId, result: u32| {
            content.job_done(cx, id, me, ordered, result)
        };
        let answer = if ordered { cx.offload(me, job, then) } else { cx.offload_unordered(me, job, then) };
        if ledger.answered(me, answer, "offload", self.house) {
            ledger.did(if ordered { "offload" } else { "offload_unordered" });
            if ordered {
                ledger.holds(me);
            }
            if panics {
                ledger.did("job panics");
                ledger.may_panic_later(me);
            }
        }
    }

    fn job_done(
        &self,
        cx: &mut Context<'_>,
        id: SessionId,
        asked_for: SessionId,
        ordered: bool,
        result: u32,
    ) {
        let mut ledger = self.open();
        ledger.is_called(id, "then");
        if id != asked_for || result != 17 {
            ledger.fail("B3", format!("the answer for {asked_for} reaches {id}"));
        }
        let panics = self.deeds(&mut ledger, cx, id, true);
        if ordered {
            ledger.released(id);
        }
        end_of_callback(ledger, panics);
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
        end_of_callback(ledger, panics);
        match prefers {
            _ if refuses => Admission::Refuse,
            Some(priority) => Admission::Priority(priority),
            None => Admission::Accept,
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

fn length(dice: &mut Random, len_max: usize) -> usize {
    // Mostly small, as in games; sometimes as long as may be.
    let most = if dice.below(16) == 0 { len_max } else { len_max.min(120) };
    dice.between(ENGINE_LEN_MIN as u64, most.max(ENGINE_LEN_MIN) as u64) as usize
}

fn span(dice: &mut Random, most: Duration) -> Duration {
    Duration::from_nanos(dice.below(most.as_nanos() as u64) >> dice.below(6))
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
    fn on_leave(&self, cx: &mut Context<'_>, session: SessionId, leave: &Leave) {
        self.leaves(cx, session, leave);
    }
    fn on_error(&self, error: &Error) {
        self.error(error);
    }
}

/// The user-object style of the same content.
pub(super) struct Guest {
    content: Content,
    id: SessionId,
    /// Between `enter` and the end of `on_leave`.
    is_owed_a_leave: bool,
}

/// The lobby that makes guests. It does not know shards: the id's place tells.
#[derive(Clone)]
pub(super) struct GuestBook {
    pub(super) content: Content,
    /// Slots of each shard, to tell the shard from an id.
    pub(super) slots_a_shard: usize,
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
