//! Bytes out: what was queued in a turn becomes one send.
//!
//! ```text
//!   outbox   [msg 40 B] [msg 9 B] [msg 70 KB] [msg 12 B]
//!   pieces   [h│40 B│h│9 B│h] [70 KB, in place] [h│12 B]      h: a header
//!             └ one chunk ──┘                    └ a chunk
//! ```
//!
//! Sends are what a server costs: one more message inside a send costs a tenth of a send. So small packets are copied, with
//! their headers, into one chunk; large ones go out from where they are, and so does one that is alone (`lone.rs`). Framing
//! happens here and not in `send`, because a shared packet is never written to, and because one seal may then carry many.

use std::time::Duration;

use madang_driver::{Driver, NetError, OUTGOING_PIECES_MAX, Outgoing};
use madang_packet::{Packet, PacketMut};
use madang_wire::{Framing, Kind, SealError, be32, lan, seal_frame};

use super::callbacks::Call;
#[cfg(feature = "wan")]
use super::records::Sealer;
use super::{Shard, lone, reason_of};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::framing::{Guarded, Wire};
use crate::planted::{Planted, planted};
use crate::session::{Author, Details, Gait, Life, Outbox, Queues};
use crate::settings::ms;
#[cfg(feature = "wan")]
use crate::speech::Speech;
use crate::{LeaveReason, Sent};

/// Packets up to this are copied into the chunk, larger ones go out in place. A copy of 4 KiB costs about 0.1 µs, a piece of
/// its own about as much in the system call, and the copy lets the packet go back at once.
const COPY_MAX: usize = 4 << 10;

/// One send carries about so much; the rest leaves with the next. Above what a socket takes at once, so that it does not
/// cost a send, and small enough that a slow peer does not turn its whole queue into chunks.
pub(super) const SEND_BYTES_MAX: usize = 256 << 10;

/// As soon as so much was made in a flush it is handed over, and comes back, before more is made. The chunks of five thousand
/// encrypted sessions are a large broadcast's 10 MB: they would leave the cache twice, before the kernel reads them and before
/// they are written again. Half of a usual L2, since the kernel has its own copies and its sockets there.
const HANDED_OVER_BYTES: usize = 512 << 10;

/// The largest chunk: what does not fit starts another.
pub(super) const CHUNK_MAX: usize = 60 << 10;

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

    /// Takes entries off the queue and makes bytes of them: so many, if they are nobody else's.
    fn compose(&mut self, local: u32, outgoing: &mut Outgoing, sent: &mut Sent) -> Result<usize, Unsendable> {
        // The rest of the session is looked at by those alone that have something there.
        let Some((session, details)) = self.core.sessions.apart(local) else { return Ok(0) };
        let (wire, magazine, queues) = (&mut self.wire, &self.core.magazine, &mut self.core.queues);
        #[cfg(feature = "wan")]
        if let Speech::Sealed(records) = &mut session.speech {
            let (outbox, counters) = (&mut session.outbox, &mut self.core.counters);
            return Sealer { records, queues, outbox, details, magazine, counters, outgoing, sent }.seal();
        }
        let head = match wire {
            Wire::Own => lan::HEADER,
            Wire::Be32(_) => be32::HEADER,
            Wire::Custom(_) => framing(details).overhead().total(),
        };
        let alone = match wire {
            Wire::Own => lone::framed(queues, &mut session.outbox, |len| lan::header(Kind::Message, len)),
            Wire::Be32(_) => lone::framed(queues, &mut session.outbox, be32::header),
            Wire::Custom(_) => None,
        };
        if let Some((frame, carried)) = alone {
            let len = frame.len();
            outgoing.push(frame);
            *sent = carried;
            return Ok(len);
        }
        let estimate = |bytes: usize, entries: usize| (bytes + entries * head).min(CHUNK_MAX);
        // A framing with a state of its own says everything differently to each.
        let shared = !matches!(wire, Wire::Custom(_)) && queues.is_shared(&session.outbox);
        if shared {
            if let Some((chunk, carried)) = self.alike.find(queues, &mut session.outbox) {
                outgoing.push(chunk);
                *sent = carried;
                return Ok(0);
            }
        }
        let expected = shared && self.alike.expect(queues, &session.outbox);
        let mut chunk: Option<PacketMut> = None;
        let mut total = 0;
        while let Some((len, author)) = queues.front(&session.outbox) {
            let in_place = len > COPY_MAX && !matches!(wire, Wire::Custom(_)) && author != Author::Engine;
            let copied = head + if in_place { 0 } else { len };
            // Room for the chunk that is open, and for two pieces more.
            if outgoing.pieces() + 3 > OUTGOING_PIECES_MAX || total > 0 && total + copied > SEND_BYTES_MAX {
                break;
            }
            if chunk.as_ref().is_some_and(|chunk| chunk.len() + copied > chunk.capacity().max(CHUNK_MAX)) {
                outgoing.push(chunk.take().expect("it was just looked at").freeze());
            }
            if chunk.is_none() {
                let rest = estimate(session.outbox.bytes(), session.outbox.len());
                let room = if in_place { rest.min(COPY_MAX) } else { rest.max(copied) };
                chunk = Some(magazine.packet_past_budget(room).map_err(|_| Unsendable::NoMemory)?);
            }
            let into = chunk.as_mut().expect("it was just made");
            if !in_place {
                let most =
                    (into.capacity().max(CHUNK_MAX) - into.len()).min(SEND_BYTES_MAX.saturating_sub(total));
                let run = Run { queues, outbox: &mut session.outbox, into, most, sent };
                total += match wire {
                    Wire::Own => run.copy(|len| lan::header(Kind::Message, len)),
                    Wire::Be32(_) => run.copy(be32::header),
                    Wire::Custom(_) => run.seal(framing(details)).map_err(Unsendable::Seal)?,
                };
                continue;
            }
            let (packet, _) = queues.pop(&mut session.outbox).expect("it was just looked at");
            match wire {
                Wire::Own => into.bytes(&lan::header(Kind::Message, len as u32)),
                Wire::Be32(_) => into.bytes(&be32::header(len as u32)),
                Wire::Custom(_) => unreachable!("a foreign framing seals in the chunk"),
            };
            sent.messages += 1;
            sent.bytes += len;
            outgoing.push(chunk.take().expect("it was just written").freeze());
            outgoing.push(packet);
            total += head + len;
        }
        if let Some(chunk) = chunk {
            let chunk = chunk.freeze();
            if expected && outgoing.is_empty() && session.outbox.is_empty() {
                self.alike.remember(&chunk, *sent);
            }
            outgoing.push(chunk);
        }
        Ok(total)
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

/// The framing of a foreign session.
fn framing(details: &mut Option<Details>) -> &mut Guarded {
    let framing = details.as_mut().and_then(|details| details.framing.as_mut());
    framing.expect("a foreign session has its framing")
}

pub(super) enum Unsendable {
    NoMemory,
    Seal(SealError),
}

/// The entries at the front of a queue that go into the open chunk: the first one in any case, and those behind it that
/// are small, as long as they fit.
struct Run<'a> {
    queues: &'a mut Queues,
    outbox: &'a mut Outbox,
    into: &'a mut PacketMut,
    /// Bytes, headers included.
    most: usize,
    sent: &'a mut Sent,
}

impl Run<'_> {
    /// Copies them, each behind its header. Answers how many bytes they were.
    #[inline]
    fn copy<const HEADER: usize>(self, header: impl Fn(u32) -> [u8; HEADER]) -> usize {
        let mut words = Sent::default();
        let all = self.queues.drain(self.outbox, |packet, author, before| {
            let len = packet.len();
            let total = before.bytes + (before.entries + 1) * HEADER + len;
            if before.entries > 0 && (len > COPY_MAX || total > self.most) {
                return Some(packet);
            }
            if author != Author::Engine {
                self.into.extend_from_parts(header(len as u32), &packet);
            } else {
                self.into.bytes(&packet);
                words.messages += 1;
                words.bytes += len;
            }
            None
        });
        self.sent.messages += all.entries - words.messages;
        self.sent.bytes += all.bytes - words.bytes;
        all.bytes + all.entries * HEADER
    }

    /// Has a foreign framing close each around its message, in the chunk.
    fn seal(self, framing: &mut Guarded) -> Result<usize, SealError> {
        let overhead = framing.overhead().total();
        let mut outcome = Ok(());
        let all = self.queues.drain(self.outbox, |packet, _, before| {
            let total = before.bytes + (before.entries + 1) * overhead + packet.len();
            if outcome.is_err() || before.entries > 0 && total > self.most {
                return Some(packet);
            }
            outcome = seal(framing, self.into, &packet);
            None
        });
        self.sent.messages += all.entries;
        self.sent.bytes += all.bytes;
        outcome.map(|()| all.bytes + all.entries * overhead)
    }
}

/// Puts a message into the chunk with room around it, and has the framing close it.
pub(super) fn seal(
    framing: &mut dyn Framing,
    into: &mut PacketMut,
    packet: &Packet,
) -> Result<(), SealError> {
    let overhead = framing.overhead();
    let start = into.len();
    pad(into, overhead.head);
    into.bytes(packet);
    pad(into, overhead.tail);
    let len = seal_frame(framing, &mut into.as_mut_slice()[start..])?;
    into.truncate(start + len);
    Ok(())
}

/// Room for a head or tail, with any content.
fn pad(into: &mut PacketMut, mut bytes: usize) {
    const ZEROS: [u8; 64] = [0; 64];
    while bytes > 0 {
        let step = bytes.min(ZEROS.len());
        into.bytes(&ZEROS[..step]);
        bytes -= step;
    }
}
