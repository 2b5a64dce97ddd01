//! Queueing for many, queueing what a newer one replaces, and what happens to who does not read.
//!
//! ```text
//!   queued  0 ───────────── soft ─────────────────────── hard
//!           │  all is well   │ after `queue_soft_ms`: leaves │ at once: leaves
//!           │                │ drop-marked: droppable ones   │
//!           │                │   are dropped, oldest first   │
//!           │                │ throttle: own shard's sends   │
//!           │                │   are answered `Throttled`    │
//! ```

use madang_packet::Packet;

use super::Core;
use crate::error::ErrorKind;
use crate::fabric::refuse;
use crate::figures::Count;
use crate::groups::GroupId;
use crate::planted::{Planted, planted};
use crate::session::{Author, Life};
use crate::{Answer, LeaveReason, WhenSlow};

impl Core {
    /// Queues content's droppable message: the one of the same key that waits, if one does, makes way for it.
    pub(crate) fn queue_latest(&mut self, local: u32, packet: Packet, key: u32) -> Answer {
        if let Some(answer) = refuse(&packet) {
            return answer;
        }
        let Some((session, details)) = self.sessions.both(local).filter(|(session, _)| !session.is_leaving())
        else {
            return self.gone();
        };
        let len = packet.len();
        if len > session.send_limit as usize {
            return Answer::TooLong;
        }
        let waiting = details.latest.node_of(key);
        let freed = waiting.and_then(|node| self.queues.len_of(node)).unwrap_or(0);
        let bytes = session.outbox.bytes() - freed + len;
        let entries = session.outbox.len() + usize::from(waiting.is_none());
        if bytes > self.limits.soft_bytes || entries > self.limits.hard_messages || details.latest.is_full() {
            return self.queue_latest_crowded(local, packet, key, waiting);
        }
        self.place_latest(local, packet, key, waiting)
    }

    /// As [`queue_latest`](Core::queue_latest), for a session that is near a limit.
    #[cold]
    fn queue_latest_crowded(&mut self, local: u32, packet: Packet, key: u32, waiting: Option<u32>) -> Answer {
        let len = packet.len();
        let drops = self.limits.when_slow == WhenSlow::DropMarked;
        let (session, details) = self.sessions.both(local).expect("the session was there a moment ago");
        if waiting.is_none() && (drops || details.latest.is_full()) {
            let most = if drops { self.limits.soft_bytes.saturating_sub(len) } else { usize::MAX };
            let most_entries = if details.latest.is_full() {
                session.outbox.len() - 1
            } else {
                self.limits.hard_messages - 1
            };
            let dropped = self.queues.shed(&mut session.outbox, &mut details.latest, most, most_entries);
            self.counters.add(Count::Dropped, dropped as u64);
            if drops && session.outbox.bytes() + len > self.limits.soft_bytes && !session.outbox.is_empty() {
                self.counters.add(Count::Dropped, 1);
                self.note_soft(local);
                return Answer::Dropped;
            }
        }
        let freed = waiting.and_then(|node| self.queues.len_of(node)).unwrap_or(0);
        let entries = session.outbox.len() + usize::from(waiting.is_none());
        let bytes = session.outbox.bytes() - freed + len;
        if bytes > self.limits.hard_bytes || entries > self.limits.hard_messages {
            return self.overflow(local);
        }
        if bytes > self.limits.soft_bytes {
            self.note_soft(local);
        }
        self.place_latest(local, packet, key, waiting)
    }

    fn place_latest(&mut self, local: u32, packet: Packet, key: u32, waiting: Option<u32>) -> Answer {
        let (session, details) = self.sessions.both(local).expect("the session was there a moment ago");
        let answer = match waiting {
            Some(node) => {
                self.queues.replace(&mut session.outbox, node, packet);
                self.counters.add(Count::Replaced, 1);
                Answer::Replaced
            }
            None => {
                let node = self.queues.push(&mut session.outbox, packet, Author::Droppable);
                self.droppable = true;
                details.latest.queued(key, node);
                Answer::Queued
            }
        };
        self.mark_dirty(local);
        answer
    }

    /// As [`queue`](Core::queue), when the message would take the queue past a limit.
    #[cold]
    pub(super) fn queue_crowded(&mut self, local: u32, packet: Packet, urgent: bool) -> Answer {
        let (limits, len) = (self.limits, packet.len());
        let (session, details) = self.sessions.both(local).expect("the session was there a moment ago");
        if limits.when_slow == WhenSlow::DropMarked && !details.latest.is_empty() {
            let (most, entries) = (limits.soft_bytes.saturating_sub(len), limits.hard_messages - 1);
            let dropped = self.queues.shed(&mut session.outbox, &mut details.latest, most, entries);
            self.counters.add(Count::Dropped, dropped as u64);
        }
        let bytes = session.outbox.bytes() + len;
        if bytes > limits.hard_bytes || session.outbox.len() >= limits.hard_messages {
            if planted(Planted::PacketLeaked) {
                std::mem::forget(packet);
            }
            return self.overflow(local);
        }
        self.queues.push(&mut session.outbox, packet, Author::Content);
        session.urgent |= urgent;
        self.mark_dirty(local);
        if bytes > limits.soft_bytes {
            self.note_soft(local);
        }
        Answer::Queued
    }

    /// Whether a sender who can be told is to wait: the policy says so, and more waits already than may for long.
    #[inline]
    pub(crate) fn throttles(&mut self, local: u32) -> bool {
        let throttles = self.limits.when_slow == WhenSlow::Throttle
            && self
                .sessions
                .get(local)
                .is_some_and(|session| session.outbox.bytes() > self.limits.soft_bytes);
        if throttles {
            self.counters.add(Count::SendsThrottled, 1);
        }
        throttles
    }

    fn overflow(&mut self, local: u32) -> Answer {
        self.counters.add(Count::Full, 1);
        self.error(ErrorKind::QueueOverflow, Some(local));
        self.decide(local, LeaveReason::SlowConsumer, false);
        Answer::Full
    }

    fn note_soft(&mut self, local: u32) {
        let now = self.patient_now();
        if let Some(details) = self.sessions.details(local) {
            details.over_soft_since.get_or_insert(now);
        }
    }

    /// Messages of a session were taken off its queue: those of them that a newer one could replace are gone.
    #[inline]
    pub(super) fn forget_sent(&mut self, local: u32) {
        if self.droppable {
            if let Some(details) = self.sessions.details(local).filter(|details| !details.latest.is_empty()) {
                details.latest.forget_sent(&self.queues);
            }
        }
    }

    /// Queues one packet for all joined sessions of this shard.
    pub(crate) fn queue_all(&mut self, packet: &Packet, key: Option<u32>) {
        let mut shares = packet.clone().shares(self.sessions.live());
        for local in 0..self.sessions.end() {
            if self.sessions.get(local).is_some_and(|session| session.life == Life::Joined) {
                if let Some(share) = shares.next() {
                    self.queue_share(local, share, key);
                }
            }
        }
    }

    /// Queues one packet for this shard's members of a group.
    pub(crate) fn queue_group(&mut self, group: GroupId, packet: &Packet, key: Option<u32>) {
        let members = self.groups.take(group);
        let mut shares = packet.clone().shares(members.len());
        for (local, share) in members.iter().zip(&mut shares) {
            self.queue_share(*local, share, key);
        }
        self.groups.put_back(group, members);
    }

    /// Queues one session's share of a broadcast.
    pub(crate) fn queue_share(&mut self, local: u32, share: Packet, key: Option<u32>) {
        if self.sessions.get(local).is_some_and(|session| self.pressure.is_worst(session)) {
            return self.counters.add(Count::BroadcastsRefused, 1);
        }
        match key {
            None => self.queue(local, share, false).ignore(),
            Some(key) => self.queue_latest(local, share, key).ignore(),
        }
    }
}

/// The limits of a queue, and what happens past them: the settings' `queue_…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) soft_bytes: usize,
    pub(crate) hard_bytes: usize,
    pub(crate) hard_messages: usize,
    pub(crate) when_slow: WhenSlow,
}
