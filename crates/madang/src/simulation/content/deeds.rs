//! What content does of its own accord, from callbacks and from other threads alike.

use std::time::Duration;

use madang_driver::sim::Random;
use madang_packet::{Packet, PacketMut};

use super::{Content, MEANT, end_of_callback};
use crate::simulation::ledger::{Audience, Caller, Ledger};
use crate::simulation::payload::{ENGINE_LEN_MIN, Payload};
use crate::{Answer, Context, GroupId, Remote, SessionId};

/// Groups there are.
const GROUPS: u64 = 3;

/// Keys of droppable messages.
const KEYS: u64 = 3;

/// What an event carries.
pub(super) struct Posted {
    pub(super) to: SessionId,
    pub(super) number: u32,
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
    pub(super) fn deed(
        &self,
        ledger: &mut Ledger,
        hands: &mut impl Hands,
        caller: Caller,
        me: Option<SessionId>,
    ) {
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

    pub(super) fn send_one(
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

    pub(super) fn timer(&self, ledger: &mut Ledger, cx: &mut Context<'_>, me: SessionId) {
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

    pub(super) fn offload(&self, ledger: &mut Ledger, cx: &mut Context<'_>, me: SessionId) {
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
}

pub(super) fn length(dice: &mut Random, len_max: usize) -> usize {
    // Mostly small, as in games; sometimes as long as may be.
    let most = if dice.below(16) == 0 { len_max } else { len_max.min(120) };
    dice.between(ENGINE_LEN_MIN as u64, most.max(ENGINE_LEN_MIN) as u64) as usize
}

pub(super) fn span(dice: &mut Random, most: Duration) -> Duration {
    Duration::from_nanos(dice.below(most.as_nanos() as u64) >> dice.below(6))
}
