//! Encrypted sessions' bytes: out of records, and into them.
//!
//! ```text
//!   in    │ len │ frame frame frame │ tag │ …      opened where it arrived; its frames are delivered there
//!   out   queue ─► │ room │ h│40 B│h│9 B│h│… │ room │ ─► sealed in the chunk: one record for all that a turn queued
//! ```
//!
//! A message that is alone has a bare record, without a header, and is sealed where it is if nobody else holds it (`in_place.rs`). A
//! seal costs what three hundred bytes in it cost, so many small messages under one are nearly free. A message that is too long
//! for a record is cut into several, and put together again in a packet that grows with what really came.

use std::ops::Range;

use madang_driver::{Driver, OUTGOING_PIECES_MAX, Outgoing};
use madang_packet::{Magazine, PacketMut};
use madang_wire::wan::{RECORD_FRAMES_MAX, RECORD_HEAD, RECORD_TAIL, Step};
use madang_wire::{FrameError, Kind, lan};

use super::compose::{CHUNK_MAX, SEND_BYTES_MAX, Unsendable};
use super::{Shard, in_place};
use crate::error::ErrorKind;
use crate::figures::{Count, Counters};
use crate::planted::{Planted, planted};
use crate::session::{Author, Details, Outbox, Queues, Taken};
use crate::speech::{OurRecords, TheirRecords};
use crate::{LeaveReason, Sent, SessionId};

/// What a record adds to its frames.
const AROUND: usize = RECORD_HEAD + RECORD_TAIL;

impl<D: Driver> Shard<D> {
    /// As [`deliver_frames`](Self::deliver_frames): the frames of the records at the front of `bytes`.
    pub(super) fn deliver_records(
        &mut self,
        local: u32,
        id: SessionId,
        records: &mut TheirRecords,
        bytes: &mut [u8],
        taken: &mut Taken,
    ) -> (usize, Option<FrameError>) {
        let TheirRecords { opening, long } = records;
        let before = opening.half().records();
        let was_long = long.is_some();
        let mut used = 0;
        let mut wrong = None;
        while used < bytes.len() && self.may_deliver(local, id) {
            let rest = &mut bytes[used..];
            match opening.next(rest) {
                Ok(Step::Need { .. }) => break,
                Ok(Step::Frame { kind, payload, used: len }) => {
                    used += len;
                    taken.frame(len);
                    let payload = &rest[payload];
                    if kind == Kind::Message {
                        self.core.counters.add(Count::MessagesIn, 1);
                        taken.message(payload.len());
                        self.call_recv(local, id, payload);
                    } else {
                        self.control_frame(local, kind, payload);
                    }
                }
                Ok(Step::Part { payload, left, used: len }) => {
                    used += len;
                    taken.frame(len);
                    match self.assemble(local, long, &rest[payload]) {
                        true if left == 0 => {
                            let Some(message) = long.take() else { break };
                            self.core.counters.add(Count::MessagesIn, 1);
                            taken.message(message.len());
                            self.call_recv(local, id, &message);
                        }
                        true => {}
                        false => break,
                    }
                }
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        self.core.counters.add(Count::RecordsIn, opening.half().records() - before);
        if long.is_some() != was_long {
            let now = self.core.now;
            if let Some(details) = self.core.sessions.details(local) {
                details.partial_since = long.is_some().then_some(now);
            }
        }
        (used, wrong)
    }

    /// Adds a part to a long message. False when there is no memory for it; the session leaves then.
    fn assemble(&mut self, local: u32, long: &mut Option<PacketMut>, part: &[u8]) -> bool {
        if long.is_none() {
            *long = self.core.magazine.packet(part.len()).ok();
        }
        let whole = long.as_mut().is_some_and(|long| {
            long.bytes(part);
            !long.is_exhausted() && !long.is_too_long()
        });
        if !whole {
            self.core.error(ErrorKind::PoolExhausted, Some(local));
            self.core.decide(local, LeaveReason::PoolExhausted, false);
        }
        whole
    }
}

/// Makes records of what is queued: the encrypted half of `compose`.
pub(super) struct Sealer<'a> {
    pub(super) records: &'a mut OurRecords,
    pub(super) queues: &'a mut Queues,
    pub(super) outbox: &'a mut Outbox,
    /// Looked at for long messages alone: it lies in another cache line than the rest.
    pub(super) details: &'a mut Option<Details>,
    pub(super) magazine: &'a Magazine,
    pub(super) counters: &'a mut Counters,
    pub(super) outgoing: &'a mut Outgoing,
    pub(super) sent: &'a mut Sent,
}

impl Sealer<'_> {
    /// Takes entries off the queue, seals them, and hands over what can be sent: so many bytes.
    pub(super) fn seal(mut self) -> Result<usize, Unsendable> {
        let before = self.records.sealing.half().records();
        let mut chunk = None;
        let outcome = self.alone().unwrap_or_else(|| self.fill(&mut chunk));
        self.counters.add(Count::RecordsOut, self.records.sealing.half().records() - before);
        if let Some(chunk) = chunk {
            self.outgoing.push(chunk.freeze());
        }
        outcome
    }

    /// Seals the only message there is in its own packet, if that can be.
    fn alone(&mut self) -> Option<Result<usize, Unsendable>> {
        let OurRecords { sealing, cut_at } = &mut *self.records;
        let len = self.outbox.bytes();
        if self.outbox.len() != 1 || *cut_at > 0 || lan::HEADER + len > most_frames() {
            return None;
        }
        let mut record = in_place::with_room_for_seal(self.queues, self.outbox)?;
        Some(match sealing.seal_message(record.as_mut_slice()) {
            Ok(()) => {
                *self.sent = Sent { messages: 1, bytes: len };
                let made = record.len();
                self.outgoing.push(record.freeze());
                Ok(made)
            }
            Err(error) => Err(Unsendable::Seal(error)),
        })
    }

    fn fill(&mut self, open: &mut Option<PacketMut>) -> Result<usize, Unsendable> {
        let OurRecords { sealing, cut_at } = &mut *self.records;
        let (queues, outbox, sent) = (&mut *self.queues, &mut *self.outbox, &mut *self.sent);
        let mut total = 0;
        while let Some((len, author)) = queues.front(outbox) {
            let frame = frame_len(len, author);
            let part = (frame > most_frames()).then(|| next_part(len, *cut_at));
            let body = match &part {
                Some(part) if part.start == 0 => lan::HEADER + part.len(),
                Some(part) => part.len(),
                None => frame,
            };
            if total > 0 && total + body > SEND_BYTES_MAX {
                break;
            }
            if open.as_ref().is_some_and(|chunk| chunk.tailroom() < AROUND + body) {
                self.outgoing.push(open.take().expect("it was just looked at").freeze());
            }
            if self.outgoing.pieces() == OUTGOING_PIECES_MAX {
                break;
            }
            let chunk = match open {
                Some(chunk) => chunk,
                None => {
                    let rest = outbox.bytes() + outbox.len() * lan::HEADER;
                    let room = rest + (rest / RECORD_FRAMES_MAX + 1) * AROUND;
                    let room = room.min(CHUNK_MAX).max(AROUND + body);
                    open.insert(self.magazine.packet_past_budget(room).map_err(|_| Unsendable::NoMemory)?)
                }
            };
            let start = chunk.len();
            chunk.bytes(&[0; RECORD_HEAD]);
            let is_bare = part.is_none() && outbox.len() == 1 && author != Author::Engine;
            match part {
                None if is_bare => {
                    let (message, _) = queues.pop(outbox).expect("an entry is in front");
                    chunk.bytes(&message);
                    sent.messages += 1;
                    sent.bytes += len;
                }
                None => {
                    let room = (chunk.tailroom() - RECORD_TAIL).min(most_frames());
                    let most = room.min(SEND_BYTES_MAX.saturating_sub(total)).max(frame);
                    fill_record(queues, outbox, chunk, most, sent);
                }
                Some(part) => {
                    if part.start == 0 {
                        // From here on no newer message may take its place.
                        let details = self.details.as_mut().expect("a session has details");
                        queues.settle_front(outbox, &mut details.latest);
                        chunk.bytes(&lan::header(Kind::Message, len as u32));
                    }
                    let message = queues.peek(outbox).expect("an entry is in front");
                    chunk.bytes(&message[part.clone()]);
                    *cut_at = part.end;
                    if part.end == len {
                        *cut_at = 0;
                        queues.pop(outbox);
                        sent.messages += 1;
                        sent.bytes += len;
                    }
                }
            }
            chunk.bytes(&[0; RECORD_TAIL]);
            let record = &mut chunk.as_mut_slice()[start..];
            total += record.len();
            let sealed = if is_bare { sealing.seal_message(record) } else { sealing.seal(record) };
            sealed.map_err(Unsendable::Seal)?;
        }
        Ok(total)
    }
}

/// Bytes of frames that a record takes.
fn most_frames() -> usize {
    RECORD_FRAMES_MAX + usize::from(planted(Planted::RecordLimitOffByOne))
}

/// The part of a long message's payload that follows what has left: all records but the last are full.
fn next_part(len: usize, cut_at: usize) -> Range<usize> {
    let head = if cut_at == 0 { lan::HEADER } else { 0 };
    cut_at..(cut_at + most_frames() - head).min(len)
}

/// Takes the entries at the front of the queue that fit `most` bytes together; the first one does.
fn fill_record(queues: &mut Queues, outbox: &mut Outbox, into: &mut PacketMut, most: usize, sent: &mut Sent) {
    let start = into.len();
    queues.drain(outbox, |packet, author, _| {
        let len = packet.len();
        if into.len() - start + frame_len(len, author) > most {
            return Some(packet);
        }
        if author == Author::Engine {
            into.bytes(&packet);
        } else {
            into.extend_from_parts(lan::header(Kind::Message, len as u32), &packet);
            sent.messages += 1;
            sent.bytes += len;
        }
        None
    });
}

/// Bytes of an entry as a frame: the engine's own words have their header already.
fn frame_len(len: usize, author: Author) -> usize {
    if author == Author::Engine { len } else { lan::HEADER + len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_as_the_wire_wants_it() {
        for len in [RECORD_FRAMES_MAX - 3, RECORD_FRAMES_MAX, 2 * RECORD_FRAMES_MAX, 100_000, 1 << 20] {
            let mut cut_at = 0;
            for part in madang_wire::wan::parts(len) {
                assert_eq!(next_part(len, cut_at), part, "of {len} bytes");
                cut_at = part.end;
            }
            assert_eq!(cut_at, len);
        }
    }
}
