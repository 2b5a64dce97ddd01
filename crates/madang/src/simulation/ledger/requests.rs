//! What content asks for, and what it was answered.

use madang_driver::Time;

use super::{Audience, Caller, LastWord, Ledger, OWN_SHARD, Sending, Stage};
use crate::SessionId;

impl Ledger {
    /// Whether a request for this id must be answered `Gone`.
    pub(in crate::simulation) fn is_dead(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_none_or(|tale| tale.stage == Stage::Left || tale.cut_at.is_some())
    }

    /// A number for a message that is about to be sent.
    pub(in crate::simulation) fn number(
        &mut self,
        house: usize,
        caller: Caller,
        audience: Audience,
        len: usize,
        key: Option<u32>,
    ) -> u32 {
        let life = self.houses[house].life;
        self.sendings.push(Sending { house, life, caller, audience, len, key });
        self.sendings.len() as u32 - 1
    }

    /// Message `number` was accepted for this session.
    pub(in crate::simulation) fn owes(&mut self, id: SessionId, number: u32) {
        let len = self.sendings[number as usize].len;
        let limit = self.send_limit(id);
        let caller = self.sendings[number as usize].caller;
        let Some(tale) = self.sessions.get_mut(&id) else { return };
        let stream = caller.stream(tale);
        if len > limit {
            // From elsewhere the shard finds out too late to answer; here it must have said so.
            if stream == OWN_SHARD {
                self.fail("answer", format!("{len} bytes were accepted for {id}, whose peer takes {limit}"));
            }
            return;
        }
        // Behind a last word that travels in the same mailbox there is nothing to hope for.
        if tale.last_word.as_ref().is_none_or(|last| last.stream != stream || last.stream == OWN_SHARD) {
            tale.owed.entry(stream).or_default().push_back(number);
        }
    }

    /// Droppable message `number` was accepted for this session.
    pub(in crate::simulation) fn owes_latest(&mut self, id: SessionId, number: u32) {
        if let Some(tale) = self.sessions.get_mut(&id) {
            tale.latest.insert(number);
        }
    }

    fn send_limit(&self, id: SessionId) -> usize {
        let Some(tale) = self.sessions.get(&id) else { return 0 };
        let own = self.houses[tale.house].frame_limit;
        self.peers.get(&tale.remote).map_or(own, |peer| own.min(peer.limit))
    }

    /// The answer to a request about one session. Answers whether it was accepted.
    pub(in crate::simulation) fn answered(
        &mut self,
        id: SessionId,
        answer: crate::Answer,
        what: &str,
        house: usize,
    ) -> bool {
        self.note(|| format!("    {what} to {id}: {answer:?}"));
        if self.is_dead(id) || self.sessions[&id].house != house {
            if answer.is_queued() {
                self.fail("I12", format!("{what} to {id}, which is gone, is answered {answer:?}"));
            }
            return false;
        }
        let now = self.now;
        if answer == crate::Answer::Gone {
            // The engine decided its leave: from here on content knows it.
            self.tale(id).cut_at.get_or_insert(now);
        }
        answer.is_queued()
    }

    /// A broadcast was accepted everywhere: who is joined must get it.
    pub(in crate::simulation) fn owes_audience(&mut self, number: u32, queued_elsewhere: bool) {
        let Sending { house, life, caller, audience, .. } = &self.sendings[number as usize];
        let (house, life, caller, audience) = (*house, *life, *caller, audience.clone());
        if self.houses[house].pool_may_be_short {
            return; // broadcasts pass over those who hold much
        }
        for id in self.alive.clone() {
            let tale = &self.sessions[&id];
            let is_joined = tale.stage == Stage::Joined && tale.cut_at.is_none() && tale.last_word.is_none();
            let is_meant = match &audience {
                Audience::One(_) => false,
                Audience::Many(ids) => ids.contains(&id),
                Audience::Group(group) => tale.groups.contains(group),
                Audience::All => true,
            };
            let same_house = (tale.house, tale.life) == (house, life);
            let stream = caller.stream(tale);
            // Elsewhere a group's members may be others by the time the letter is read.
            let certain = stream == OWN_SHARD || queued_elsewhere && !matches!(audience, Audience::Group(_));
            let is_slim = self.sendings[number as usize].len <= self.send_limit(id);
            if is_joined && is_meant && same_house && certain && is_slim {
                self.tale(id).owed.entry(stream).or_default().push_back(number);
            }
        }
    }

    /// A code that names this request for ever.
    pub(in crate::simulation) fn code(&mut self, id: SessionId) -> u32 {
        self.codes += 1;
        let code = self.codes;
        if let Some(tale) = self.sessions.get_mut(&id) {
            tale.codes.push(code);
        }
        code
    }

    /// `disconnect` was answered.
    pub(in crate::simulation) fn disconnected(
        &mut self,
        id: SessionId,
        won: bool,
        caller: Caller,
        house: usize,
    ) {
        self.note(|| format!("    disconnect {id}: {won}"));
        if self.is_dead(id) || self.sessions[&id].house != house {
            if won {
                self.fail("I12", format!("a disconnect of {id}, which is gone, won"));
            }
            return;
        }
        let now = self.now;
        if let Some(tale) = self.sessions.get_mut(&id) {
            tale.cut_at.get_or_insert(now);
            tale.cut_here |= won && caller.stream(tale) == OWN_SHARD;
        }
    }

    /// `send_and_disconnect` was accepted.
    pub(in crate::simulation) fn spoke_last(&mut self, id: SessionId, code: u32, caller: Caller) {
        let now = self.now;
        let tale = self.tale(id);
        let stream = caller.stream(tale);
        if stream == OWN_SHARD {
            tale.cut_at.get_or_insert(now);
            tale.cut_here = true;
        }
        tale.last_word.get_or_insert(LastWord { code, at: now, stream });
    }

    pub(in crate::simulation) fn will_panic(&mut self, id: SessionId) {
        self.note(|| format!("    a callback of {id} panics"));
        if let Some(tale) = self.sessions.get_mut(&id) {
            tale.panicked = true;
        }
    }

    /// A job of this session panics: it leaves as if a callback had, though its object is whole.
    pub(in crate::simulation) fn may_panic_later(&mut self, id: SessionId) {
        if let Some(tale) = self.sessions.get_mut(&id) {
            tale.job_panics = true;
        }
    }

    pub(in crate::simulation) fn holds(&mut self, id: SessionId) {
        self.tale(id).holds += 1;
    }

    pub(in crate::simulation) fn released(&mut self, id: SessionId) {
        let tale = self.tale(id);
        tale.holds = tale.holds.saturating_sub(1);
    }

    pub(in crate::simulation) fn timer_set(&mut self, id: SessionId, key: u64, at: Time) {
        self.tale(id).timers.insert(key, at);
    }

    /// `cancel_timer` was answered. False from a session that is leaving already: its timers are none of content's then.
    pub(in crate::simulation) fn timer_cancelled(&mut self, id: SessionId, key: u64, answer: bool) {
        if answer && self.tale(id).timers.remove(&key).is_none() {
            self.fail("H9", format!("{id}: timer {key} was cancelled, which was not set"));
        }
    }

    pub(in crate::simulation) fn timer_fired(&mut self, id: SessionId, key: u64) {
        self.is_called(id, "on_timer");
        let now = self.now;
        let Some(tale) = self.sessions.get_mut(&id) else { return };
        match tale.timers.remove(&key) {
            None => self.fail("H9", format!("{id}: timer {key} fires, which is not set")),
            Some(at) if at > now => self.fail("H9", format!("{id}: timer {key} fires {:?} early", at - now)),
            Some(_) => {}
        }
    }

    /// A number for an event that is about to be posted.
    pub(in crate::simulation) fn event(&mut self) -> u32 {
        self.events += 1;
        self.events
    }

    pub(in crate::simulation) fn posted(&mut self, id: SessionId, number: u32, caller: Caller) {
        let tale = self.tale(id);
        let stream = caller.stream(tale);
        tale.events.entry(stream).or_default().push_back(number);
    }

    pub(in crate::simulation) fn event_came(&mut self, id: SessionId, to: SessionId, number: u32) {
        self.is_called(id, "on_event");
        if id != to {
            return self.fail("I12", format!("an event for {to} reaches {id}"));
        }
        let Some(tale) = self.sessions.get_mut(&id) else { return };
        let next = tale.events.values_mut().find(|events| events.front() == Some(&number));
        match next {
            Some(events) => drop(events.pop_front()),
            None => self.fail("S15", format!("{id} gets event {number} twice or out of order")),
        }
    }

    pub(in crate::simulation) fn group_changed(
        &mut self,
        id: SessionId,
        group: u64,
        joins: bool,
        caller: Caller,
    ) {
        let tale = self.tale(id);
        if caller.stream(tale) != OWN_SHARD {
            // Its letter is read some time later, between any two calls of the shard's own.
            tale.groups_contested.insert(group);
        }
        if joins {
            tale.groups_ever.insert(group);
        }
        if joins && !tale.groups_contested.contains(&group) {
            tale.groups.insert(group);
        } else {
            tale.groups.remove(&group);
        }
    }
}
