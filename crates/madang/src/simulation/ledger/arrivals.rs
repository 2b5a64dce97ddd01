//! What arrives at the other end, and what of it was owed.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::{Audience, Ledger, OWN_SHARD, Stream};
use crate::simulation::payload::{ANSWER, Payload, WAITING};
use crate::{LeaveReason, SessionId};

impl Ledger {
    /// A scripted peer got a message; answers its flags.
    pub(in crate::simulation) fn peer_receives(&mut self, address: SocketAddr, bytes: &[u8]) -> u8 {
        if let Some(Payload::Engine { flags, .. }) = Payload::read(bytes) {
            if flags & WAITING != 0 {
                return 0;
            }
        }
        let Some(sender) = self.by_peer.get(&address).copied() else {
            self.fail("S5", format!("peer {address} gets a message before its session joined"));
            return 0;
        };
        match Payload::read(bytes) {
            Some(Payload::Engine { number, flags }) => {
                self.carried(sender, number, bytes.len(), flags);
                flags
            }
            _ => {
                self.fail("I1", format!("peer {address} gets {} altered bytes", bytes.len()));
                0
            }
        }
    }

    /// A peer was welcomed under this id.
    pub(in crate::simulation) fn peer_welcomed(&mut self, address: SocketAddr, id: u64) {
        if self.by_peer.get(&address).map(|known| known.to_u64()) != Some(id) {
            self.fail("S5", format!("peer {address} is welcomed as {id:#x}, which is another"));
        }
    }

    /// Message `number`, which `sender` sent, has arrived.
    pub(super) fn carried(&mut self, sender: SessionId, number: u32, len: usize, flags: u8) {
        self.mix(u64::from(number));
        self.note(|| format!("{sender}'s message {number} arrives"));
        let Some(sending) = self.sendings.get(number as usize) else {
            return self.fail("I1", format!("message {number} was never sent"));
        };
        let tale = self.sessions.get_mut(&sender).expect("a sender has a tale");
        let same_house = (tale.house, tale.life) == (sending.house, sending.life);
        let is_meant = same_house
            && match &sending.audience {
                Audience::One(id) => *id == sender,
                Audience::Many(ids) => ids.contains(&sender),
                Audience::Group(group) => tale.groups_ever.contains(group),
                Audience::All => true,
            };
        if !is_meant || sending.len != len {
            let what = format!("message {number} for {:?} arrives at the peer of {sender}", sending.audience);
            return self.fail("I1", what);
        }
        tale.has_answer |= flags & ANSWER != 0;
        let stream = sending.caller.stream(tale);
        if let Some(key) = sending.key {
            let is_owed = tale.latest.remove(&number) || !matches!(sending.audience, Audience::One(_));
            let before = tale.latest_got.insert((stream, key), number);
            if !is_owed || before.is_some_and(|before| before >= number) {
                let what =
                    format!("{sender}: droppable message {number} arrives behind {before:?}, or unaccepted");
                self.fail("P7", what);
            }
            return;
        }
        let owed = tale.owed.entry(stream).or_default();
        let last = tale.got.insert(stream, number);
        if owed.front() == Some(&number) {
            owed.pop_front();
        } else if owed.contains(&number) {
            let first = owed[0];
            self.fail("I4", format!("{sender}: message {number} arrives, but {first} before it did not"));
        } else if matches!(sending.audience, Audience::One(_)) || last.is_some_and(|last| last >= number) {
            self.fail("I4", format!("{sender}: message {number} arrives twice or without being accepted"));
        }
    }

    /// A scripted peer's connection ended.
    pub(in crate::simulation) fn peer_ended(&mut self, address: SocketAddr, in_order: bool) {
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.end.get_or_insert(in_order);
        }
        if let Some(id) = self.by_peer.get(&address).copied() {
            self.judge_last_word(id);
        }
    }

    /// S10: the last message and all that was queued before it reach a peer that reads.
    pub(super) fn judge_last_word(&mut self, id: SessionId) {
        let tale = &self.sessions[&id];
        let house = &self.houses[tale.house];
        let (Some(last), Some((reason, at))) = (&tale.last_word, tale.leave) else { return };
        let Some(peer) = self.peers.get(&tale.remote).filter(|_| house.is_server) else { return };
        let Some(in_order) = peer.end else { return };
        let unhurried = at < last.at + house.leave_timeout && !tale.in_hard_stop && !house.abortive_close;
        let by_it = reason == LeaveReason::Disconnected(last.code);
        let hastened = tale.cut_at.is_some_and(|cut| last.stream != OWN_SHARD && cut >= last.at);
        let polite = !tale.panicked
            && !tale.job_panics
            && peer.reads
            && !peer.leaves
            && !peer.is_hostile
            && peer.bytes <= house.drain_bytes_max;
        if !(self.harmless && unhurried && by_it && polite && !hastened) {
            return;
        }
        let owed = |stream: Stream| tale.owed.get(&stream).map_or(0, VecDeque::len);
        let lost = owed(OWN_SHARD) + if last.stream == OWN_SHARD { 0 } else { owed(last.stream) };
        if lost > 0 || !in_order {
            let what =
                format!("{id}: {lost} messages lost before the orderly end (seen as such: {in_order})");
            self.fail("I4", what);
        } else {
            self.did("last word heard");
        }
    }
}
