//! What callbacks may touch of a shard: its sessions, queues and deadlines, but not its driver.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use madang_driver::Time;
use madang_packet::{Magazine, Packet};

use super::overload::Lag;
use super::pressure::Pressure;
use super::queueing::QueueLimits;
use crate::error::{Error, ErrorKind};
use crate::fabric::{Fabric, refuse};
use crate::figures::{Count, Counters};
use crate::gate::Turn;
use crate::groups::{GroupId, Groups};
use crate::letters::{EmbryoKey, Report, Word};
use crate::planted::{Planted, planted};
use crate::session::{Author, Gait, Intakes, Life, Queues, Sessions};
use crate::settings::ms;
use crate::timers::Timers;
use crate::{Answer, LeaveReason, SessionId};

/// What is due when a timer fires.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Timer {
    /// An embryo's total deadline.
    Greeting(EmbryoKey),
    /// A session's periodic look: silence, half frames, queues that stay long.
    Check { local: u32, id: SessionId },
    /// The end of patience with a session that leaves.
    Leave { local: u32, id: SessionId },
    /// What a session that sent too much owes is paid off.
    Throttle { local: u32, id: SessionId },
    /// Content's own.
    Content { local: u32, id: SessionId, key: u64 },
    /// The server is overloaded: is it still?
    Overload,
    /// The process's memory is looked at.
    Memory,
    /// The pool is short: a look at who holds the most.
    Pool,
    /// A link may be tried again.
    Reconnect { link: u32 },
    /// Somebody has waited long enough for a place, or been away from the queue for too long.
    Waiter(Turn),
    /// The pace of letting waiters in allows the next.
    Release,
    /// Waiters are told where they stand.
    News,
    /// Accepting, which paused for its rate, goes on.
    Accept,
}

/// Where a session is.
pub(crate) enum Found {
    /// On this shard, in this slot.
    Here(u32),
    /// On another shard, which has the last word.
    Elsewhere,
    /// Nowhere: it left, it is leaving, or the id was invented.
    Gone,
}

pub(crate) struct Core {
    pub(crate) shard: usize,
    pub(crate) now: Time,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) magazine: Rc<Magazine>,
    pub(crate) sessions: Sessions,
    pub(crate) queues: Queues,
    /// What sessions may send, where that is limited.
    pub(crate) intakes: Option<Intakes>,
    pub(crate) timers: Timers<Timer>,
    pub(crate) groups: Groups,
    /// Sessions with something to flush.
    pub(crate) dirty: Vec<u32>,
    /// Sessions whose leave was decided and has not begun.
    pub(crate) decided: Vec<u32>,
    /// Sessions whose messages are to wait, and the driver was not told.
    pub(crate) to_hold: Vec<u32>,
    /// What the shard has told itself, as long as the mailbox's lane for such words may get: see [`tell`](Core::tell).
    pub(crate) words: VecDeque<Word>,
    /// Errors to tell once no callback runs.
    pub(crate) errors: Vec<Error>,
    pub(crate) error_gate: ErrorGate,
    pub(crate) counters: Counters,
    pub(super) limits: QueueLimits,
    pub(super) pressure: Pressure,
    pub(super) lag: Lag,
    /// Whether a droppable message was ever queued here: else nobody looks for marks of them.
    pub(super) droppable: bool,
}

impl Core {
    pub(crate) fn new(shard: usize, now: Time, fabric: Arc<Fabric>, magazine: Rc<Magazine>) -> Core {
        let settings = &fabric.settings;
        Core {
            shard,
            now,
            magazine,
            sessions: Sessions::new(settings.slots_per_shard()),
            queues: Queues::new(),
            intakes: Intakes::new(settings),
            timers: Timers::new(),
            groups: Groups::default(),
            dirty: Vec::new(),
            decided: Vec::new(),
            to_hold: Vec::new(),
            words: VecDeque::new(),
            errors: Vec::with_capacity(ERRORS_AHEAD),
            error_gate: ErrorGate::new(ERRORS_A_SECOND, now),
            counters: Counters::default(),
            limits: QueueLimits {
                soft_bytes: settings.queue_soft_bytes,
                hard_bytes: settings.queue_hard_bytes,
                hard_messages: settings.queue_hard_messages,
                when_slow: settings.queue_when_slow,
            },
            pressure: Pressure::new(settings),
            lag: Lag::new(settings.overload_lag_ms > 0 || settings.memory_budget_bytes > 0),
            droppable: false,
            fabric,
        }
    }

    /// Where the session `id` is, as of now. The one place where a callback's id is believed or not.
    #[inline]
    pub(crate) fn find(&self, id: SessionId) -> Found {
        let directory = &self.fabric.directory;
        match directory.layout().locate(id) {
            None => Found::Gone,
            Some((shard, _)) if shard != self.shard => Found::Elsewhere,
            // The directory knows of disconnects by other threads that have not reached us yet; and a leave that is decided
            // here is marked there first, so for a session of ours it is the only place to look.
            Some((_, local)) if directory.is_live(id) => {
                debug_assert!(self.takes(local, id), "who is live in the directory takes messages");
                Found::Here(local)
            }
            Some((_, local))
                if planted(Planted::SerialNotCompared)
                    && self.sessions.get(local).is_some_and(|session| !session.is_leaving()) =>
            {
                Found::Here(local)
            }
            Some(_) => Found::Gone,
        }
    }

    /// Whether the session in `local` is `id` and takes messages.
    pub(crate) fn takes(&self, local: u32, id: SessionId) -> bool {
        self.sessions.get(local).is_some_and(|session| session.id == id && !session.is_leaving())
    }

    pub(crate) fn gone(&mut self) -> Answer {
        self.counters.add(Count::Gone, 1);
        Answer::Gone
    }

    /// Queues content's message for a session of this shard.
    #[inline]
    pub(crate) fn queue(&mut self, local: u32, packet: Packet, urgent: bool) -> Answer {
        if let Some(answer) = refuse(&packet) {
            return answer;
        }
        let Some(session) = self.sessions.get_mut(local).filter(|session| !session.is_leaving()) else {
            return self.gone();
        };
        let len = packet.len();
        if len > session.send_limit as usize {
            return Answer::TooLong;
        }
        let slip = usize::from(planted(Planted::LimitOffByOne));
        if session.outbox.bytes() + len > self.limits.soft_bytes
            || session.outbox.len() >= self.limits.hard_messages + slip
        {
            return self.queue_crowded(local, packet, urgent);
        }
        self.queues.push(&mut session.outbox, packet, Author::Content);
        session.urgent |= urgent;
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(local);
        }
        Answer::Queued
    }

    /// Queues the engine's own word, past the limits: it is small, and at most a few wait.
    pub(crate) fn queue_control(&mut self, local: u32, frame: &[u8]) -> bool {
        let Ok(mut packet) = self.magazine.packet_past_budget(frame.len()) else { return false };
        packet.bytes(frame);
        let Some(session) = self.sessions.get_mut(local) else { return false };
        self.queues.push(&mut session.outbox, packet.freeze(), Author::Engine);
        session.urgent = true;
        self.mark_dirty(local);
        true
    }

    /// Tells a shard something. What it tells itself needs no mailbox, which is for other threads; but it is read no earlier.
    pub(crate) fn tell(&mut self, shard: usize, word: Word) {
        if shard == self.shard {
            self.words.push_back(word);
        } else {
            self.fabric.mailboxes[shard].control(word);
        }
    }

    /// Tells the gate, which stands on shard 0.
    pub(crate) fn report(&mut self, report: Report) {
        self.tell(0, Word::Report(report));
    }

    /// Lists a session for the next flush.
    pub(crate) fn mark_dirty(&mut self, local: u32) {
        if let Some(session) = self.sessions.get_mut(local) {
            if !session.dirty {
                session.dirty = true;
                self.dirty.push(local);
            }
        }
    }

    /// Queues a last message and decides the leave behind it.
    pub(crate) fn queue_last(&mut self, local: u32, packet: Packet, reason: LeaveReason) -> Answer {
        let answer = self.queue(local, packet, true);
        if answer.is_queued() {
            self.decide(local, reason, true);
        }
        answer
    }

    pub(crate) fn join_group(&mut self, local: u32, group: GroupId) -> Answer {
        if self.sessions.get(local).is_none_or(|session| session.is_leaving()) {
            return self.gone();
        }
        let details = self.sessions.details(local).expect("a session has details");
        if details.groups.iter().all(|(other, _)| *other != group) {
            details.groups.push(self.groups.join(group, local));
        }
        Answer::Queued
    }

    pub(crate) fn leave_group(&mut self, local: u32, group: GroupId) -> Answer {
        let Some(details) = self.sessions.details(local) else { return self.gone() };
        let Some(at) = details.groups.iter().position(|(other, _)| *other == group) else {
            return Answer::Queued;
        };
        let membership = details.groups.swap_remove(at);
        self.leave_place(membership);
        Answer::Queued
    }

    /// Takes a membership back, and tells whoever moved into its place.
    pub(crate) fn leave_place(&mut self, (group, place): crate::groups::Membership) {
        let moved = self.groups.leave((group, place));
        if let Some(moved) = moved.filter(|_| !planted(Planted::GroupIndexStale)) {
            let details = self.sessions.details(moved).expect("a member is a session");
            let theirs = details.groups.iter_mut().find(|(other, _)| *other == group);
            theirs.expect("a member knows its membership").1 = place;
        }
    }

    /// The session's messages wait for one more job.
    pub(crate) fn hold(&mut self, local: u32) {
        if let Some(session) = self.sessions.get_mut(local) {
            session.holds += 1;
            if session.holds == 1 {
                self.to_hold.push(local);
            }
        }
    }

    /// Decides that a session leaves; the shard begins the leave when no callback runs. False if it was decided before (a
    /// later abortive decision still hastens a graceful leave; the first reason stands).
    pub(crate) fn decide(&mut self, local: u32, reason: LeaveReason, graceful: bool) -> bool {
        let Some((session, details)) = self.sessions.both(local) else { return false };
        match session.life {
            Life::Leaving(Gait::Aborting | Gait::Decided { graceful: false }) => return false,
            Life::Leaving(Gait::Decided { graceful: true }) => {
                if !graceful {
                    session.life = Life::Leaving(Gait::Decided { graceful: false });
                }
                return false;
            }
            Life::Leaving(Gait::Flushing | Gait::Draining) if graceful => return false,
            Life::Leaving(_) => {
                session.life = Life::Leaving(Gait::Decided { graceful: false });
                self.decided.push(local);
                return false;
            }
            Life::Joining | Life::Joined => {}
        }
        session.life = Life::Leaving(Gait::Decided { graceful });
        details.reason = Some(reason);
        details.reason_owed = !self.fabric.directory.leave(session.id);
        self.decided.push(local);
        true
    }

    /// The word of whoever marked the session in the directory: its reason stands, also over one that was faster here.
    pub(crate) fn decide_marked(&mut self, local: u32, reason: LeaveReason) {
        self.decide(local, reason, false);
        if let Some(details) = self.sessions.details(local) {
            // Whoever was declined never joined: it has no leave to be told.
            if details.reason != Some(LeaveReason::Declined) {
                details.reason = Some(reason);
            }
            details.reason_owed = false;
        }
    }

    /// Notes an error to be told; the gate bounds how many are.
    pub(crate) fn error(&mut self, kind: ErrorKind, local: Option<u32>) {
        let (session, peer) = match local.and_then(|local| self.sessions.both(local)) {
            Some((session, details)) => (Some(session.id), Some(details.remote())),
            None => (None, None),
        };
        self.error_of(kind, session, peer);
    }

    pub(crate) fn error_of(
        &mut self,
        kind: ErrorKind,
        session: Option<SessionId>,
        peer: Option<std::net::SocketAddr>,
    ) {
        self.counters.add(Count::Errors, 1);
        if let Some(suppressed) = self.error_gate.pass(self.now) {
            self.errors.push(Error { kind, session, peer, suppressed });
        }
    }
}

/// Enough to see what goes on; 1,000 bad peers a second show as 100 errors and a count.
const ERRORS_A_SECOND: u32 = 100;

/// The room made ahead for the errors of one turn: a shard that was stalled says so without asking for memory.
const ERRORS_AHEAD: usize = 8;

/// Lets so many errors a second through to content, so that peers cannot make a flood of them.
pub(crate) struct ErrorGate {
    per_second: u32,
    tokens: u32,
    refilled: Time,
    suppressed: u64,
}

impl ErrorGate {
    pub(crate) fn new(per_second: u32, now: Time) -> ErrorGate {
        ErrorGate { per_second, tokens: per_second, refilled: now, suppressed: 0 }
    }

    /// How many were suppressed before this one; `None` if this one is, too.
    pub(crate) fn pass(&mut self, now: Time) -> Option<u64> {
        if now.since(self.refilled) >= ms(1_000) {
            self.tokens = self.per_second;
            self.refilled = now;
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Time as a duration since the clock's start: what content sees.
pub(crate) fn after(now: Time, milliseconds: u64) -> Time {
    now + Duration::from_millis(milliseconds)
}
