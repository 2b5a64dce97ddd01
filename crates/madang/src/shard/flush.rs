//! Bytes out: what was queued in a turn becomes one send (`compose.rs`).
//!
//! Sends are what a server costs: one more message inside a send costs a tenth of a send. Framing happens here and not in
//! `Context::send`, because a shared packet is never written to, and because one seal may then carry many.

use std::time::Duration;

use madang_driver::{Driver, NetError, Outgoing};

use super::callbacks::Call;
use super::compose::Unsendable;
use super::{Shard, reason_of};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::planted::{Planted, planted};
use crate::session::{Gait, Life};
use crate::settings::ms;
use crate::{LeaveReason, Sent};

/// As soon as so much was made in a flush it is handed over, and comes back, before more is made. The chunks of five thousand
/// encrypted sessions are a large broadcast's 10 MB: they would leave the cache twice, before the kernel reads them and before
/// they are written again. Half of a usual L2, since the kernel has its own copies and its sockets there.
const HANDED_OVER_BYTES: usize = 512 << 10;

impl<D: Driver> Shard<D> {
    /// Sends what the dirty sessions have queued; with `urgent_only`, of those alone that cannot wait for the tick.
    pub(super) fn flush(&mut self, urgent_only: bool) {
        self.retry_unsent();
        let mut dirty = std::mem::take(&mut self.core.dirty);
        self.alike.begin();
        let (mut kept, mut made) = (0, 0);
        for at in 0..dirty.len() {
            self.look_ahead_of_flush(&dirty[at + 1..]);
            let local = dirty[at];
            let Some(session) = self.core.sessions.get_mut(local) else { continue };
            if !session.dirty {
                continue;
            }
            if urgent_only && !session.urgent {
                dirty[kept] = local;
                kept += 1;
                continue;
            }
            session.dirty = false;
            // With a send in flight the rest stays as urgent as it is, until that send's end lists it again.
            session.urgent &= session.sending;
            made += self.flush_session(local);
            if made >= HANDED_OVER_BYTES {
                self.driver.submit();
                made = 0;
            }
        }
        dirty.truncate(kept);
        self.alike.end();
        // Listed meanwhile were only those that found no memory; the room is kept.
        dirty.append(&mut self.core.dirty);
        self.core.dirty = dirty;
    }

    /// Submits one send with what is queued, unless one is in flight: its completion comes back here. Answers how many bytes
    /// were made for it.
    fn flush_session(&mut self, local: u32) -> usize {
        let Some(session) = self.core.sessions.get_mut(local) else { return 0 };
        if session.sending && !planted(Planted::TwoSends)
            || session.outbox.is_empty()
            || matches!(session.life, Life::Leaving(Gait::Aborting))
        {
            return 0;
        }
        let conn = session.conn;
        let mut outgoing = self.spare.pop().unwrap_or_default();
        let mut sent = Sent::default();
        let composed = self.compose(local, &mut outgoing, &mut sent);
        self.core.forget_sent(local);
        let made = match composed {
            Ok(made) => made,
            Err(Unsendable::NoMemory) if outgoing.is_empty() => {
                self.spare.push(outgoing);
                self.core.error(ErrorKind::PoolExhausted, Some(local));
                self.core.mark_dirty(local);
                return 0;
            }
            Err(Unsendable::NoMemory) => outgoing.len(),
            Err(Unsendable::Seal(error)) => {
                outgoing.clear();
                self.spare.push(outgoing);
                let panic = self
                    .core
                    .sessions
                    .details(local)
                    .and_then(|details| details.framing.as_mut()?.take_panic());
                let (kind, reason) = match panic {
                    Some(words) => (ErrorKind::Panic(words), LeaveReason::HandlerPanic),
                    None => (ErrorKind::Seal(error), LeaveReason::System),
                };
                self.core.error(kind, Some(local));
                self.core.decide(local, reason, false);
                return 0;
            }
        };
        let session = self.core.sessions.get_mut(local).expect("the session was there a moment ago");
        session.sending = true;
        session.spoke = true;
        session.in_flight = sent;
        self.core.counters.add(Count::Sends, 1);
        match self.driver.send(conn, outgoing) {
            Err(outgoing) if !planted(Planted::SendLostOnFull) => self.unsent.push((conn, outgoing)),
            _ => {}
        }
        made
    }

    /// A send of a session ended.
    pub(super) fn session_sent(&mut self, local: u32, outgoing: Outgoing, result: Result<usize, NetError>) {
        let Some(session) = self.core.sessions.get_mut(local) else { return };
        let conn = session.conn;
        let aborting =
            matches!(session.life, Life::Leaving(Gait::Aborting | Gait::Decided { graceful: false }));
        match result {
            Ok(bytes) => {
                self.core.counters.add(Count::BytesOut, bytes as u64);
                self.unsent_pause = Duration::ZERO;
                if !outgoing.is_empty() && !aborting && !planted(Planted::ShortWriteIsWhole) {
                    // A short write: the rest of the same bytes goes first.
                    if let Err(outgoing) = self.driver.send(conn, outgoing) {
                        self.unsent.push((conn, outgoing));
                    }
                    return;
                }
                session.sending = false;
                let sent = std::mem::take(&mut session.in_flight);
                let id = session.id;
                let all_left = outgoing.is_empty();
                if !session.outbox.is_empty() && !session.dirty {
                    session.dirty = true;
                    // Who leaves in good order does not wait for a tick.
                    session.urgent |= session.is_leaving();
                    self.core.dirty.push(local);
                }
                self.recycle(outgoing);
                if all_left {
                    self.core.counters.add(Count::MessagesOut, sent.messages as u64);
                    if sent.messages > 0 && self.core.takes(local, id) {
                        self.call(local, id, Call::Sent(sent));
                    }
                } else {
                    self.count_unsent(local, sent.messages);
                }
            }
            Err(NetError::NoBufferSpace | NetError::OutOfMemory) if !aborting => {
                self.core.error(ErrorKind::SystemExhausted, Some(local));
                return self.send_later(conn, outgoing);
            }
            Err(error) => {
                session.sending = false;
                let sent = std::mem::take(&mut session.in_flight);
                self.recycle(outgoing);
                self.count_unsent(local, sent.messages);
                let goodbye = self.core.sessions.details(local).and_then(|details| details.goodbye);
                self.core.decide(local, goodbye.unwrap_or(reason_of(error)), false);
            }
        }
        if self.core.sessions.get(local).is_some_and(|session| session.is_leaving()) {
            self.advance_leave(local);
        }
    }

    fn count_unsent(&mut self, local: u32, messages: usize) {
        if let Some(details) = self.core.sessions.details(local) {
            details.dropped(messages);
        }
    }

    /// Lets the packets go and keeps the room.
    pub(super) fn recycle(&mut self, mut outgoing: Outgoing) {
        outgoing.clear();
        self.spare.push(outgoing);
    }

    /// Submits again what the driver had no room for.
    fn retry_unsent(&mut self) {
        if self.unsent.is_empty() || self.core.now < self.unsent_until {
            return;
        }
        for (conn, outgoing) in std::mem::take(&mut self.unsent) {
            if let Err(outgoing) = self.driver.send(conn, outgoing) {
                self.unsent.push((conn, outgoing));
            }
        }
    }

    /// The kernel had no buffers for a send: it is tried again after a while (1 → 64 ms). Nothing of it has left.
    pub(super) fn send_later(&mut self, conn: madang_driver::Conn, outgoing: Outgoing) {
        if self.unsent_until <= self.core.now {
            self.unsent_pause = (self.unsent_pause * 2).clamp(ms(1), ms(64));
            self.unsent_until = self.core.now + self.unsent_pause;
        }
        self.unsent.push((conn, outgoing));
    }

    /// Takes back a send that never reached the driver. Whether there was one.
    pub(super) fn withdraw_unsent(&mut self, conn: madang_driver::Conn) -> bool {
        let Some(at) = self.unsent.iter().position(|(other, _)| *other == conn) else { return false };
        let (_, outgoing) = self.unsent.swap_remove(at);
        self.recycle(outgoing);
        true
    }
}
