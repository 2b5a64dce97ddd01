//! What a peer says, how it ends, and how both get out.

#[cfg(feature = "wan")]
use madang_driver::sim::Random;

use super::manners::{Ending, Manners};
use super::{ASK_EVERY, Expects, Line, PATIENCE, Pending, Table};
#[cfg(feature = "wan")]
use crate::simulation::cloak::Cloak;
use crate::simulation::codec::{self, GOODBYE, Introduction, PING, Tongue};
use crate::simulation::ledger::Ledger;
use crate::simulation::payload::{MARKER, PEER_LEN_MIN, Payload};

impl Line {
    /// Says a frame: as it is, or in the next record.
    pub(super) fn put(&mut self, frame: &[u8], is_message: bool) {
        if self.is_half_closed || self.said_goodbye {
            return;
        }
        if self.is_cloaked() {
            self.pending.push_back(Pending { frame: frame.to_vec(), is_message });
            return;
        }
        self.put_bytes(frame);
        if is_message {
            self.ends.push_back(self.queued);
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.queued += bytes.len() as u64;
        self.outgoing.extend(bytes);
    }

    pub(super) fn is_cloaked(&self) -> bool {
        #[cfg(feature = "wan")]
        return self.cloak.is_some();
        #[cfg(not(feature = "wan"))]
        false
    }

    /// Seals what is to go out, as many frames in a record as chance has it. The first frame has a record of its own.
    #[cfg(feature = "wan")]
    fn cover(&mut self, dice: &mut Random) {
        let Some(cloak) = self.cloak.as_mut().filter(|cloak| cloak.is_worn()) else { return };
        while let Some(Pending { mut frame, is_message }) = self.pending.pop_front() {
            let mut messages = usize::from(is_message);
            let more = if std::mem::replace(&mut self.logged_in, true) { dice.index(4) } else { 0 };
            for _ in 0..more {
                let fits =
                    |next: &Pending| frame.len() + next.frame.len() <= madang_wire::wan::RECORD_FRAMES_MAX;
                if !self.pending.front().is_some_and(fits) {
                    break;
                }
                let next = self.pending.pop_front().expect("it was just looked at");
                frame.extend(next.frame);
                messages += usize::from(next.is_message);
            }
            let records = cloak.cover(&frame);
            self.queued += records.len() as u64;
            self.outgoing.extend(records);
            self.ends.extend(std::iter::repeat_n(self.queued, messages));
        }
    }

    /// Begins a message.
    fn say(&mut self, table: &mut Table, ledger: &mut Ledger, flags: u8) {
        let most = if table.dice.below(16) == 0 { table.len_max } else { table.len_max.min(100) };
        let len = table.dice.between(PEER_LEN_MIN as u64, most.max(PEER_LEN_MIN) as u64) as usize;
        let payload = Payload::Peer { key: self.key, counter: self.counter, flags }.bytes(len);
        self.counter += 1;
        let frame = codec::message(table.tongue, &payload, &mut table.dice);
        self.put(&frame, true);
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.begun = self.counter;
        }
    }

    pub(super) fn speak(&mut self, table: &mut Table, ledger: &mut Ledger, calm: bool) {
        if self.is_over || calm && self.gives_up(table, ledger) {
            return;
        }
        if self.fins || !self.peer.is_open() {
            return;
        }
        if calm {
            if !self.greeted {
                self.greet(table, ledger);
            }
            // It has said its last word already.
            let tale = ledger.peers.get_mut(&self.peer.local());
            if let Some(tale) = tale.filter(|tale| tale.says_goodbye || tale.is_hostile) {
                tale.leaves = true;
                self.fins = true;
                return;
            }
            let now = table.world.now();
            // One question waits with who waits for a place; several would all be answered at once, and fill a small queue.
            let asks_again = ledger.session_of_peer(self.peer.local()).is_some();
            if self.expects == Expects::Traffic
                && self.asked.is_none_or(|at| asks_again && now.since(at) > ASK_EVERY)
            {
                self.asked = Some(now);
                self.say(table, ledger, MARKER);
            }
            return;
        }
        if self.manners.is_mute {
            return;
        }
        self.acts += 1;
        if !self.greeted {
            self.greet(table, ledger);
            if self.manners.is_eager {
                for _ in 0..table.dice.below(4) {
                    self.say(table, ledger, 0);
                }
            }
        }
        let may_talk = self.expects == Expects::Traffic || self.manners.is_eager;
        while may_talk
            && self.outgoing.len() < 2_000
            && self.pending.len() < 20
            && table.dice.chance(self.manners.talks)
        {
            self.say(table, ledger, 0);
        }
        if self.expects == Expects::Traffic && table.tongue.is_own() && table.dice.below(40) == 0 {
            self.put(&codec::lan_frame(PING, &7u64.to_le_bytes()), false);
        }
        if self.acts >= self.manners.acts {
            self.end(table, ledger);
        }
    }

    /// In the liveness phase: whether it has waited long enough for an answer. Then it closes, and comes again.
    fn gives_up(&mut self, table: &Table, ledger: &mut Ledger) -> bool {
        let now = table.world.now();
        let session = ledger.session_of_peer(self.peer.local());
        let is_answered = session.is_some_and(|id| ledger.sessions[&id].has_answer);
        if is_answered || now.since(*self.calm_since.get_or_insert(now)) <= PATIENCE {
            return false;
        }
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.leaves = true;
        }
        self.is_over = true;
        self.peer.close();
        true
    }

    fn greet(&mut self, table: &mut Table, ledger: &mut Ledger) {
        self.greeted = true;
        #[cfg(feature = "wan")]
        if table.tongue.is_sealed() {
            let limit = self.manners.limit as u32;
            let (cloak, bytes) = Cloak::begin(table.tongue, self.key, limit, &mut table.dice);
            self.cloak = Some(cloak);
            return self.put_bytes(&bytes);
        }
        if table.tongue == Tongue::Lan {
            self.choose_ticket(table, ledger);
            let frame = self.introduce(ledger);
            self.put(&frame, false);
        }
    }

    pub(super) fn introduce(&self, ledger: &mut Ledger) -> Vec<u8> {
        let Manners { node, incarnation, limit, .. } = &self.manners;
        ledger.greets(node, *incarnation);
        let ticket = self.shows.as_deref().unwrap_or_default();
        Introduction { frame_limit: *limit as u32, node, incarnation: *incarnation, ticket }.frame()
    }

    /// What its greeting or log-in shows: its good ticket; now and then one that is spent, or that it made up.
    pub(super) fn choose_ticket(&mut self, table: &mut Table, ledger: &mut Ledger) {
        self.shows = match table.dice.below(6) {
            0 if self.tickets.spent.is_some() => {
                ledger.did("shows a spent ticket");
                self.tickets.spent.clone()
            }
            1 => Some((0..25).map(|_| table.dice.word() as u8).collect()),
            _ => self.tickets.good.clone(),
        };
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.shows = self.shows.clone();
        }
    }

    fn end(&mut self, table: &mut Table, ledger: &mut Ledger) {
        let ending = self.manners.ending;
        if ending == Ending::Stays {
            return;
        }
        let address = self.peer.local();
        let Some(tale) = ledger.peers.get_mut(&address) else { return };
        match ending {
            Ending::HalfCloses | Ending::SaysGoodbye => {
                let says = ending == Ending::SaysGoodbye
                    && table.tongue.is_own()
                    && self.expects == Expects::Traffic;
                if says && !tale.says_goodbye {
                    tale.says_goodbye = true;
                    tale.leaves = true;
                    let mut goodbye = vec![0x44];
                    goodbye.extend(0u32.to_le_bytes());
                    self.put(&codec::lan_frame(GOODBYE, &goodbye), false);
                    self.said_goodbye = true;
                    self.manners.talks = 0;
                    return;
                }
                if !self.fins {
                    // Some last messages, and the end right behind them.
                    self.fins = true;
                    self.manners.talks = 0;
                    tale.leaves = true;
                    let says_more = !tale.says_goodbye && self.expects == Expects::Traffic;
                    for _ in 0..if says_more { table.dice.below(6) } else { 0 } {
                        self.say(table, ledger, 0);
                    }
                    ledger.did("peer half-closes");
                }
            }
            Ending::Closes => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.close();
                ledger.did("peer closes");
            }
            Ending::Resets => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.reset();
                ledger.did("peer resets");
            }
            Ending::Vanishes => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.vanish();
                ledger.did("peer vanishes");
            }
            Ending::TurnsHostile => {
                tale.is_hostile = true;
                if self.outgoing.is_empty() && self.pending.is_empty() {
                    #[cfg(feature = "wan")]
                    let mischief = self.cloak.as_mut().map(|cloak| cloak.mischief(&mut table.dice));
                    #[cfg(not(feature = "wan"))]
                    let mischief = None;
                    let bytes = mischief
                        .unwrap_or_else(|| codec::garbage(table.tongue, table.frame_limit, &mut table.dice));
                    self.put_bytes(&bytes);
                    self.manners.ending = Ending::Stays;
                    self.manners.talks = 0;
                    self.manners.is_mute = true;
                    ledger.did("peer turns hostile");
                }
            }
            Ending::Stays => {}
        }
    }

    pub(super) fn write(&mut self, table: &mut Table, ledger: &mut Ledger) {
        #[cfg(feature = "wan")]
        self.cover(&mut table.dice);
        if self.is_over || self.outgoing.is_empty() {
            return;
        }
        let most = if self.manners.dribbles && !ledger.calm { 1 + table.dice.index(3) } else { usize::MAX };
        let mut total = 0;
        while total < most && !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            let len = front.len().min(most - total);
            let count = self.peer.write(&front[..len]);
            self.outgoing.drain(..count);
            total += count;
            if count < len {
                break;
            }
        }
        self.written += total as u64;
        while self.ends.front().is_some_and(|end| *end <= self.written) {
            self.ends.pop_front();
        }
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            let pending = self.pending.iter().filter(|pending| pending.is_message).count();
            tale.whole = self.counter - (self.ends.len() + pending) as u32;
            tale.bytes = self.written as usize;
            if total > 0 {
                tale.silent_for = ledger.now.since(tale.alive_at);
                tale.alive_at = ledger.now;
            }
        }
    }

    /// Ends its direction once all that it has said is out.
    pub(super) fn fin(&mut self, ledger: &mut Ledger) {
        if self.fins
            && self.outgoing.is_empty()
            && self.pending.is_empty()
            && !self.is_half_closed
            && !self.is_over
            && self.peer.is_open()
        {
            self.is_half_closed = true;
            self.peer.shutdown_write();
            if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                tale.fins = true;
            }
        }
    }
}
