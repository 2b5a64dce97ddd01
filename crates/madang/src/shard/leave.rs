//! How sessions end.
//!
//! ```text
//!              ┌─ graceful ─► Flushing ── all left ──► Draining ── peer's end ──┐
//!   Decided ───┤                  └───────── deadline, error ──┐                ├─► retire ─► on_leave ─► slot free
//!              └─ abortive ────────────────────────────────► Aborting ─ terminals ┘
//! ```
//!
//! A graceful leave sends what is queued, half-closes, and reads the peer's input to its end before it closes: closing with
//! unread input makes a reset that destroys the tail in the peer's stack. Each step has our own deadline. An abortive leave
//! resets at once, which alone frees the kernel's memory at once. Either way a connection is retired only when the driver
//! holds nothing of it (the retire rule), and the slot is free only after `on_leave` returned. The close itself may be some
//! turns later (`retire.rs`).

use madang_driver::Driver;

use super::core::after;
use super::{Shard, Timer};
use crate::figures::Count;
use crate::framing::Wire;
use crate::letters::Report;
use crate::planted::{Planted, planted};
use crate::session::{Gait, Life};
use crate::{Leave, LeaveReason, SessionId};

impl<D: Driver> Shard<D> {
    /// Begins the leave that was decided, or hastens one that is under way.
    pub(super) fn begin_leave(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        let Life::Leaving(Gait::Decided { graceful }) = session.life else { return };
        let id = session.id;
        let first = !std::mem::replace(&mut details.leave_begun, true);
        if first {
            self.withdraw_from_everything(local);
            self.core.counters.add(Count::Leaving, 1);
            self.core.counters.sub(Count::Sessions, 1);
        }
        if planted(Planted::LeaveTwice) {
            let Some((session, details)) = self.core.sessions.both(local) else { return };
            let leave = Leave {
                reason: details.reason.expect("a leave has its reason first"),
                peer: details.remote(),
                duration: self.core.now.since(details.joined_at),
                messages_unsent: session.outbox.len(),
            };
            self.call_leave(local, id, &leave);
        }
        if planted(Planted::UnsentDropped) {
            if let Some(session) = self.core.sessions.get_mut(local) {
                self.core.queues.clear(&mut session.outbox);
            }
        }
        if graceful || first && self.is_told_first(local) {
            if !graceful {
                let Some((session, details)) = self.core.sessions.both(local) else { return };
                // The welcome stays: a goodbye before it would be out of turn.
                details.dropped(self.core.queues.clear_messages(&mut session.outbox));
                details.forget_droppable();
            }
            self.say_goodbye(local);
            if let Some(session) = self.core.sessions.get_mut(local) {
                session.life = Life::Leaving(Gait::Flushing);
            }
            self.core.mark_dirty(local);
            if let Some(session) = self.core.sessions.get_mut(local) {
                session.urgent = true;
            }
            self.advance_leave(local);
        } else {
            self.abort(local);
        }
        if first {
            self.leave_takes_time(local, id);
        }
    }

    /// A leave has begun: most are over by then. One that is not has a deadline, and the gate hears that a place is free.
    fn leave_takes_time(&mut self, local: u32, id: SessionId) {
        let Some((_, details)) = self.core.sessions.both(local).filter(|(session, _)| session.id == id)
        else {
            return;
        };
        let at = after(self.core.now, self.core.fabric.settings.leave_timeout_ms);
        details.deadline = Some(self.core.timers.set(at, Timer::Leave { local, id }));
        let counted_at = details.counted_at();
        if self.gate_counts() {
            self.core.report(Report::Leaving { counted_at });
        }
    }

    /// Out of groups, timers and waits: nothing but the connection is left.
    fn withdraw_from_everything(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        session.inbox = None;
        if let Some(look) = details.deadline.take() {
            self.core.timers.cancel(look);
        }
        let Some(rare) = details.rare() else { return };
        let mut timers = std::mem::take(&mut rare.timers);
        if planted(Planted::TimerWithoutSerial) {
            timers.clear();
        }
        let groups = std::mem::take(&mut rare.groups);
        let throttle = rare.flood.and_then(|flood| flood.timer);
        let content = timers.into_iter().map(|(_, timer)| timer);
        for timer in throttle.into_iter().chain(content) {
            self.core.timers.cancel(timer);
        }
        for membership in groups {
            self.core.leave_place(membership);
        }
    }

    /// Whether somebody who is cut off on an encrypted session hears why: what is queued is dropped, the goodbye goes out
    /// alone, and a peer that takes it is gone as soon as with a reset. Not behind a send that is still in flight: who does
    /// not read is reset at once.
    fn is_told_first(&mut self, local: u32) -> bool {
        let abortive = self.core.fabric.settings.abortive_close;
        self.core.sessions.both(local).is_some_and(|(session, details)| {
            let told = details.reason.is_some_and(LeaveReason::is_told_first);
            told && !abortive && session.speech.can_say_goodbye() && !session.sending && !session.eof
        })
    }

    /// The engine's last word to a peer that can still read it.
    fn say_goodbye(&mut self, local: u32) {
        let Wire::Own = self.wire else { return };
        let Some(details) = self.core.sessions.details(local) else { return };
        let Some(goodbye) = details.reason.and_then(LeaveReason::goodbye) else { return };
        let mut frame = [0; madang_wire::lan::CONTROL_FRAME_MAX];
        if let Ok(len) = goodbye.to_frame(&mut frame) {
            self.core.queue_control(local, &frame[..len]);
        }
    }

    /// Resets the connection and waits for what the driver still holds.
    pub(super) fn abort(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        session.life = Life::Leaving(Gait::Aborting);
        details.dropped(self.core.queues.clear(&mut session.outbox));
        details.forget_droppable();
        let conn = session.conn;
        if self.withdraw_unsent(conn) {
            let (session, details) =
                self.core.sessions.both(local).expect("the session was there a moment ago");
            session.sending = false;
            details.dropped(std::mem::take(&mut session.in_flight).messages);
        }
        self.driver.abort(conn);
        self.advance_leave(local);
    }

    /// Takes the next step of a leave, if it is time for it.
    pub(super) fn advance_leave(&mut self, local: u32) {
        let Some(session) = self.core.sessions.get_mut(local) else { return };
        let conn = session.conn;
        match session.life {
            Life::Leaving(Gait::Flushing) if session.outbox.is_empty() && !session.sending => {
                if self.core.fabric.settings.abortive_close || planted(Planted::CloseWithoutDrain) {
                    return self.abort(local);
                }
                if session.eof {
                    return self.finish(local);
                }
                session.life = Life::Leaving(Gait::Draining);
                if std::mem::take(&mut session.paused) {
                    self.driver.recv_resume(conn);
                }
                self.driver.half_close(conn);
                self.resume_receive(local);
            }
            Life::Leaving(Gait::Draining) if session.eof && !session.in_flight() => self.finish(local),
            Life::Leaving(Gait::Aborting)
                if !session.in_flight() || planted(Planted::RetireWithSend) && !session.receiving =>
            {
                self.finish(local);
            }
            _ => {}
        }
    }

    /// Bytes came while the session leaves: they are accounted and dropped.
    pub(super) fn drained(&mut self, local: u32, bytes: usize) {
        let most = self.core.fabric.settings.drain_bytes_max;
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        let ended = !session.receiving;
        // What comes before our own end is sent may come for as long as the deadline lasts: it is the tail that counts.
        if session.life == Life::Leaving(Gait::Draining) {
            details.drained_bytes += bytes;
        }
        if details.drained_bytes > most && session.life == Life::Leaving(Gait::Draining) {
            self.abort(local);
        } else if ended {
            self.advance_leave(local);
        }
    }

    /// Patience with a leave is over: reset.
    pub(super) fn leave_overdue(&mut self, local: u32, id: SessionId) {
        let session = self.core.sessions.get(local).filter(|session| session.id == id);
        if session.is_some_and(|session| session.life != Life::Leaving(Gait::Aborting)) {
            self.abort(local);
        }
    }

    /// The driver holds nothing any more: the connection retires, content is told, the slot is free.
    fn finish(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        if details.reason_owed {
            return;
        }
        debug_assert!(!session.in_flight(), "the retire rule");
        let (id, conn) = (session.id, session.conn);
        let reason = details.reason.expect("a leave has its reason first");
        details.dropped(self.core.queues.clear(&mut session.outbox));
        details.forget_droppable();
        let leave = Leave {
            reason,
            peer: details.remote(),
            duration: self.core.now.since(details.joined_at),
            messages_unsent: details.unsent,
        };
        let (deadline, link, counted_at) = (details.deadline.take(), details.link, details.counted_at());
        let node = details.peer.node.take();
        if let Some(deadline) = deadline {
            self.core.timers.cancel(deadline);
        }
        self.connections.clear(conn);
        self.retiring.push_back(conn);
        if reason != LeaveReason::Declined {
            self.call_leave(local, id, &leave);
        }
        self.core.counters.sub(Count::Leaving, 1);
        self.core.counters.left(reason);
        self.core.sessions.free(local);
        if self.gate_counts() {
            let node = node.filter(|node| !node.name.is_empty()).map(|node| (node, id));
            let (shard, at_once) = (self.core.shard, deadline.is_none());
            self.core.report(Report::Left { shard, at_once, counted_at, node });
        }
        if let Some(link) = link {
            self.link_down(link);
        }
    }

    /// Whether there is a gate that counts this shard's sessions: servers have one, clients do not.
    pub(super) fn gate_counts(&self) -> bool {
        self.core.fabric.is_server
    }
}
