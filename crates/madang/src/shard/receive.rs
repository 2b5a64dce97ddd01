//! Bytes in: from lent memory to messages.

use madang_driver::{Driver, RecvEnd};
use madang_packet::PacketMut;
use madang_wire::lan::{Goodbye, Heartbeat};
use madang_wire::{Find, FrameError, Framing, Kind, Next};

use super::connections::Owner;
use super::{Shard, reason_of};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::framing::{Guarded, Wire};
use crate::planted::{Planted, planted};
use crate::session::{Gait, Life, Taken};
use crate::speech::Speech;
use crate::{LeaveReason, SessionId};

impl<D: Driver> Shard<D> {
    /// Bytes of a session came.
    pub(super) fn session_data(&mut self, local: u32, bytes: &mut [u8], more: bool) {
        self.fed();
        self.core.had_its_turn(local);
        let now = self.core.patient_now();
        let Some(session) = self.core.sessions.get_mut(local) else { return };
        session.receiving = more || planted(Planted::RearmOnResult);
        session.last_heard = now;
        match session.life {
            Life::Joined if session.holds == 0 || planted(Planted::DeliveredDuringHold) => {
                self.receive(local, bytes)
            }
            Life::Joined | Life::Joining => self.keep(local, bytes),
            Life::Leaving(_) => self.drained(local, bytes.len()),
        }
        if !more {
            self.resume_receive(local);
        }
    }

    /// A receive of a session ended without bytes.
    pub(super) fn session_recv_ended(&mut self, local: u32, end: RecvEnd) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        session.receiving = false;
        let conn = session.conn;
        // An aborted receive may end with this word as with any other.
        if end == RecvEnd::NoBuffers && session.life != Life::Leaving(Gait::Aborting) {
            self.starve(conn, Owner::Session(local));
            return;
        }
        session.eof = true;
        if session.is_leaving() {
            return self.advance_leave(local);
        }
        match end {
            RecvEnd::Error(error) => {
                let reason = details.goodbye.unwrap_or(reason_of(error));
                self.core.decide(local, reason, false);
            }
            // The end lies behind messages that wait for a job: their turn comes first.
            _ if session.holds > 0 && !planted(Planted::EndOvertakesHeld) => {}
            _ => self.peer_closed(local),
        }
    }

    /// The peer ended its stream in order, and all that lay before the end was delivered. It may still read: what is queued
    /// goes out first.
    fn peer_closed(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        let reason = match details.goodbye {
            Some(goodbye) => goodbye,
            None if session.speech.is_cut_off() => LeaveReason::Truncated,
            None => LeaveReason::PeerClosed,
        };
        self.core.decide(local, reason, true);
    }

    /// Starts the receive of a session if it should run and does not.
    pub(super) fn resume_receive(&mut self, local: u32) {
        let Some(session) = self.core.sessions.get_mut(local) else { return };
        let wanted = match session.life {
            Life::Joining => false,
            // While jobs hold the messages nothing is read: what would come had to be kept, without a bound.
            Life::Joined => session.holds == 0,
            Life::Leaving(Gait::Draining) => true,
            Life::Leaving(_) => false,
        };
        if !wanted || session.receiving || session.eof {
            return;
        }
        let conn = session.conn;
        if self.start_receive(conn, Owner::Session(local)) {
            if let Some(session) = self.core.sessions.get_mut(local) {
                session.receiving = true;
            }
        }
    }

    /// Takes stream bytes: whole frames are delivered where they lie, the start of one is kept.
    pub(super) fn receive(&mut self, local: u32, mut bytes: &mut [u8]) {
        let Some(session) = self.core.sessions.get_mut(local) else { return };
        let id = session.id;
        if !self.core.fabric.directory.is_live(id) {
            return; // disconnected by another thread, whose word is in the mailbox: nothing of this is delivered
        }
        if let Some(mut partial) = session.inbox.take() {
            // The kept bytes are the start of one frame. Complete it, and nothing more: the rest is delivered in place.
            loop {
                match self.find(local, &mut partial) {
                    Ok(Find::Frame { .. }) => break,
                    Ok(Find::Need { total }) => {
                        let missing = total - partial.len();
                        let (next, rest) = bytes.split_at_mut(missing.min(bytes.len()));
                        partial.bytes(next);
                        bytes = rest;
                        if partial.is_exhausted() {
                            self.core.error(ErrorKind::PoolExhausted, Some(local));
                            self.core.decide(local, LeaveReason::PoolExhausted, false);
                            return;
                        }
                        if next.len() < missing {
                            if let Some(session) = self.core.sessions.get_mut(local) {
                                session.inbox = Some(partial);
                            }
                            return;
                        }
                    }
                    Err(error) => return self.malformed(local, error),
                }
            }
            if let Some((session, details)) = self.core.sessions.both(local) {
                // A long message has one deadline for all its records.
                if !session.speech.is_assembling() {
                    details.partial_since = None;
                }
            }
            // A frame is delivered whole. Of a record's frames some may have to wait, and what lies behind them.
            let used = self.deliver(local, id, partial.as_mut_slice());
            if used < partial.len() && self.may_keep(local, id) {
                self.keep(local, &partial[used..]);
            }
        }
        let used = self.deliver(local, id, bytes);
        if used < bytes.len() && self.may_keep(local, id) && !planted(Planted::PartialDropped) {
            self.keep(local, &bytes[used..]);
        }
    }

    /// Keeps stream bytes for later: the start of a frame, or all of them while the session's messages wait.
    pub(super) fn keep(&mut self, local: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = self.core.patient_now();
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        details.partial_since.get_or_insert(now);
        let mut inbox = match session.inbox.take() {
            Some(inbox) => inbox,
            None => match self.core.magazine.packet(bytes.len()) {
                Ok(fresh) => fresh,
                Err(_) => {
                    self.core.error(ErrorKind::PoolExhausted, Some(local));
                    self.core.decide(local, LeaveReason::PoolExhausted, false);
                    return;
                }
            },
        };
        inbox.bytes(bytes);
        if inbox.is_exhausted() || inbox.is_too_long() {
            self.core.error(ErrorKind::PoolExhausted, Some(local));
            self.core.decide(local, LeaveReason::PoolExhausted, false);
            return;
        }
        session.inbox = Some(inbox);
    }

    /// Delivers what was kept while the session's messages waited.
    pub(super) fn receive_kept(&mut self, local: u32) {
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        if !session.speech.is_assembling() {
            details.partial_since = None;
        }
        let id = session.id;
        let Some(mut kept) = session.inbox.take() else { return };
        let used = self.deliver(local, id, kept.as_mut_slice());
        if used < kept.len() && self.may_keep(local, id) {
            self.keep(local, &kept[used..]);
        }
    }

    fn find(&mut self, local: u32, partial: &mut PacketMut) -> Result<Find, FrameError> {
        let Some((session, details)) = self.core.sessions.both(local) else {
            return Err(FrameError::NotOneFrame);
        };
        match &self.wire {
            Wire::Own => session.speech.find(partial),
            Wire::Be32(be32) => be32.find(partial),
            Wire::Custom(_) => {
                details.framing.as_mut().expect("a foreign session has its framing").find(partial)
            }
        }
    }

    /// Delivers the whole frames at the front of `bytes`, in place and in order, until the session stops taking them.
    /// Answers how many bytes they were.
    fn deliver(&mut self, local: u32, id: SessionId, bytes: &mut [u8]) -> usize {
        let mut taken = Taken::default();
        let (used, wrong) = match &self.wire {
            Wire::Be32(be32) => {
                let mut framing = be32.clone();
                self.deliver_frames(local, id, &mut framing, bytes, &mut taken)
            }
            Wire::Own => {
                let Some(session) = self.core.sessions.get_mut(local) else { return 0 };
                let mut speech = std::mem::replace(&mut session.speech, Speech::Foreign);
                let outcome = match &mut speech {
                    Speech::Plain(framing) => self.deliver_frames(local, id, framing, bytes, &mut taken),
                    #[cfg(feature = "wan")]
                    Speech::Sealed(records) => {
                        self.deliver_records(local, id, &mut records.theirs, bytes, &mut taken)
                    }
                    _ => return 0, // taken: a delivery of it is under way
                };
                if let Some(session) = self.core.sessions.get_mut(local).filter(|session| session.id == id) {
                    session.speech = speech;
                }
                outcome
            }
            Wire::Custom(_) => {
                let Some(mut framing) =
                    self.core.sessions.details(local).and_then(|details| details.framing.take())
                else {
                    return 0;
                };
                let outcome = self.deliver_frames(local, id, &mut framing, bytes, &mut taken);
                if let Some(details) = self.core.sessions.details(local) {
                    details.framing = Some(framing);
                }
                outcome
            }
        };
        if let Some(error) = wrong {
            self.malformed(local, error);
        }
        self.charge(local, id, &taken);
        used
    }

    /// As [`deliver`](Self::deliver), and what is wrong with the frame behind the last one, if it is.
    pub(super) fn deliver_frames<F: Framing>(
        &mut self,
        local: u32,
        id: SessionId,
        framing: &mut F,
        bytes: &mut [u8],
        taken: &mut Taken,
    ) -> (usize, Option<FrameError>) {
        let mut used = 0;
        while used < bytes.len() && self.may_deliver(local, id) {
            let rest = &mut bytes[used..];
            match framing.next(rest) {
                Ok(Next::Need { .. }) => break,
                Ok(Next::Frame { len, opened }) => {
                    used += len;
                    taken.frame(len);
                    let payload = &rest[opened.payload];
                    if opened.kind == Kind::Message {
                        self.core.counters.add(Count::MessagesIn, 1);
                        taken.message(payload.len());
                        self.call_recv(local, id, payload);
                    } else {
                        self.control_frame(local, opened.kind, payload);
                    }
                }
                Err(error) => return (used, Some(error)),
            }
        }
        (used, None)
    }

    /// Whether what is not delivered now may be later.
    fn may_keep(&self, local: u32, id: SessionId) -> bool {
        self.core.takes(local, id) && self.core.fabric.directory.is_live(id)
    }

    /// Whether the session takes a message now: it is not leaving, no other thread disconnected it, no job holds it.
    #[inline]
    pub(super) fn may_deliver(&self, local: u32, id: SessionId) -> bool {
        // Who is live in the directory lives in this slot and is not leaving: see `Core::find`.
        self.core.fabric.directory.is_live(id)
            && self.core.sessions.get(local).is_some_and(|session| {
                session.life == Life::Joined && (session.holds == 0 || planted(Planted::DeliveredDuringHold))
            })
    }

    /// A word of the peer's engine.
    pub(super) fn control_frame(&mut self, local: u32, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::Ping => {
                if let Ok(ping) = Heartbeat::from_payload(payload) {
                    self.pong(local, ping);
                }
            }
            Kind::Goodbye => {
                if let (Ok(goodbye), Some(details)) =
                    (Goodbye::from_payload(payload), self.core.sessions.details(local))
                {
                    details.goodbye = Some(LeaveReason::PeerGoodbye(goodbye));
                }
            }
            #[cfg(feature = "wan")]
            Kind::Draining => self.hear_draining(local, payload),
            // A pong has said what it had to by arriving; the framing lets no other kind through.
            _ => {}
        }
    }

    /// Answers a ping, once a turn at most: a peer that only pings gets no queue of pongs.
    fn pong(&mut self, local: u32, ping: Heartbeat) {
        let queued =
            self.core.sessions.get(local).is_some_and(|session| session.outbox.len() < Self::PONG_QUEUE_MAX);
        if queued {
            self.core.queue_control(local, &ping.pong());
        }
    }

    /// With so many entries queued the peer will hear from us anyway.
    pub(super) const PONG_QUEUE_MAX: usize = 64;

    #[cold]
    pub(super) fn malformed(&mut self, local: u32, error: FrameError) {
        if error == Guarded::PANICKED {
            let framing = self.core.sessions.details(local).and_then(|details| details.framing.as_mut());
            let words = framing.and_then(Guarded::take_panic).unwrap_or_default();
            self.core.error(ErrorKind::Panic(words), Some(local));
            self.core.decide(local, LeaveReason::HandlerPanic, false);
            return;
        }
        self.core.error(ErrorKind::Malformed(error), Some(local));
        let reason = match error {
            FrameError::Forged => LeaveReason::Tampered,
            error => LeaveReason::Malformed(error),
        };
        self.core.decide(local, reason, false);
    }

    /// Tells the driver to hold a session's bytes back while jobs hold its messages. A receive that is not started is not
    /// paused: it is not started before the last job came back.
    pub(super) fn pause_if_held(&mut self, local: u32) {
        if let Some(session) = self.core.sessions.get_mut(local) {
            if session.holds > 0 && session.receiving && !session.paused && !session.is_leaving() {
                session.paused = true;
                self.driver.recv_pause(session.conn);
            }
        }
    }

    /// One job less holds the session's messages.
    pub(super) fn release_hold(&mut self, local: u32, id: SessionId) {
        let patient = self.core.patient_now();
        let Some(session) = self.core.sessions.get_mut(local).filter(|session| session.id == id) else {
            return;
        };
        if planted(Planted::HoldForgotten) {
            return;
        }
        session.holds -= 1;
        if session.holds > 0 || session.is_leaving() {
            return;
        }
        // The silence meanwhile was ours.
        session.last_heard = patient;
        self.receive_kept(local);
        let Some(session) = self.core.sessions.get_mut(local).filter(|session| session.id == id) else {
            return;
        };
        if session.holds > 0 || session.is_leaving() {
            return;
        }
        if session.eof {
            return self.peer_closed(local);
        }
        if std::mem::take(&mut session.paused) {
            self.driver.recv_resume(session.conn);
        }
        self.resume_receive(local);
    }
}
