//! What was queued becomes the bytes of one send.
//!
//! ```text
//!   outbox   [msg 40 B] [msg 9 B] [msg 3 KB] [msg 12 B] [msg 70 KB, others have it too]
//!   pieces   [h│40 B│h│9 B] [h│3 KB] [h│12 B│h] [70 KB]                    h: a header
//!             └ one chunk ┘  └ its    └ a chunk  └ where it is
//!                              own packet
//! ```
//!
//! Small packets are copied, with their headers, into one chunk; large ones go out from where they are, and so does one that is
//! alone.

use madang_driver::{Driver, OUTGOING_PIECES_MAX, Outgoing};
use madang_packet::{Packet, PacketMut};
use madang_wire::{Framing, Kind, SealError, be32, lan, seal_frame};

#[cfg(feature = "wan")]
use super::records::Sealer;
use super::{Shard, in_place};
use crate::Sent;
use crate::framing::{Guarded, Wire};
use crate::session::{Author, Details, Outbox, Queues, is_own};
#[cfg(feature = "wan")]
use crate::speech::Speech;

/// From here on a packet that nobody else holds goes out in place, its header in front: one piece. Sixteen such echoes at
/// a time cost 0.97 of what copying them does at 2 KiB and 0.93 at 4; at 1 KiB it is the same.
const OWN_MIN: usize = 2 << 10;

/// Packets that others hold are copied up to this; larger ones go out in place, behind a chunk that ends with their header.
/// A copy of 4 KiB costs about 0.1 µs where it is near, and a piece of its own about as much in the system call.
const COPY_MAX: usize = 4 << 10;

/// One send carries about so much; the rest leaves with the next. Above what a socket takes at once, so that it does not
/// cost a send, and small enough that a slow peer does not turn its whole queue into chunks.
pub(super) const SEND_BYTES_MAX: usize = 256 << 10;

/// The largest chunk: what does not fit starts another.
pub(super) const CHUNK_MAX: usize = 60 << 10;

impl<D: Driver> Shard<D> {
    /// Takes entries off the queue and makes bytes of them: so many, if they are nobody else's.
    pub(super) fn compose(
        &mut self,
        local: u32,
        outgoing: &mut Outgoing,
        sent: &mut Sent,
    ) -> Result<usize, Unsendable> {
        // The rest of the session is looked at by those alone that have something there.
        let Some((session, details)) = self.core.sessions.apart(local) else { return Ok(0) };
        let (wire, magazine, queues) = (&mut self.wire, &self.core.magazine, &mut self.core.queues);
        #[cfg(feature = "wan")]
        if let Speech::Sealed(records) = &mut session.speech {
            let (records, outbox, counters) =
                (&mut records.ours, &mut session.outbox, &mut self.core.counters);
            return Sealer { records, queues, outbox, details, magazine, counters, outgoing, sent }.seal();
        }
        let head = match wire {
            Wire::Own => lan::HEADER,
            Wire::Be32(_) => be32::HEADER,
            Wire::Custom(_) => framing(details).overhead().total(),
        };
        // It has a state of its own, so it says everything differently to each, and seals in the chunk.
        let foreign = matches!(wire, Wire::Custom(_));
        let shared = !foreign && queues.is_shared(&session.outbox);
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
            // Room for the chunk that is open, and for two pieces more.
            let no_room = outgoing.pieces() + 3 > OUTGOING_PIECES_MAX;
            let is_full = |copied| no_room || total > 0 && total + copied > SEND_BYTES_MAX;
            let alone = total == 0 && session.outbox.len() == 1;
            if (alone || len >= OWN_MIN) && !is_full(head) {
                if let Some(frame) = framed_in_place(wire, queues, &mut session.outbox) {
                    if let Some(chunk) = chunk.take() {
                        outgoing.push(chunk.freeze());
                    }
                    total += frame.len();
                    outgoing.push(frame);
                    sent.messages += 1;
                    sent.bytes += len;
                    continue;
                }
            }
            let in_place = len > COPY_MAX && !foreign && author != Author::Engine;
            let copied = head + if in_place { 0 } else { len };
            if is_full(copied) {
                break;
            }
            if chunk.as_ref().is_some_and(|chunk| chunk.tailroom() < copied) {
                outgoing.push(chunk.take().expect("it was just looked at").freeze());
            }
            if chunk.is_none() {
                let all = session.outbox.bytes() + session.outbox.len() * head;
                let all_copied = foreign || all < OWN_MIN;
                let run = if all_copied { all } else { bytes_of_run(queues, &session.outbox, head) };
                let room = run.min(CHUNK_MAX).max(copied);
                chunk = Some(magazine.packet_past_budget(room).map_err(|_| Unsendable::NoMemory)?);
            }
            let into = chunk.as_mut().expect("it was just made");
            if !in_place {
                let most = into.tailroom().min(SEND_BYTES_MAX.saturating_sub(total));
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
            debug_assert!(chunk.is_whole(), "a chunk never grows: it had room for what was copied into it");
            if expected && outgoing.is_empty() && session.outbox.is_empty() {
                self.alike.remember(&chunk, *sent);
            }
            outgoing.push(chunk);
        }
        Ok(total)
    }
}

/// Takes the message in front behind its header, if that can be written into its own packet.
fn framed_in_place(wire: &Wire, queues: &mut Queues, outbox: &mut Outbox) -> Option<Packet> {
    match wire {
        Wire::Own => in_place::framed(queues, outbox, |len| lan::header(Kind::Message, len)),
        Wire::Be32(_) => in_place::framed(queues, outbox, be32::header),
        Wire::Custom(_) => None,
    }
}

/// Whether a message is not copied, under a framing of ours.
#[inline]
fn goes_in_place(packet: &Packet, head: usize) -> bool {
    packet.len() > COPY_MAX || packet.len() >= OWN_MIN && is_own(packet, head, 0)
}

/// Bytes of the messages in front that are copied into one chunk, and of the header behind them if the next one is not. A chunk
/// for all that waits would be one of 64 KiB for a few small messages between large ones.
fn bytes_of_run(queues: &Queues, outbox: &Outbox, head: usize) -> usize {
    let mut bytes = 0;
    for packet in queues.packets(outbox) {
        bytes += head;
        if goes_in_place(packet, head) || bytes >= CHUNK_MAX {
            break;
        }
        bytes += packet.len();
    }
    bytes
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
            if before.entries > 0 && (goes_in_place(&packet, HEADER) || total > self.most) {
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

#[cfg(test)]
mod tests {
    use madang_packet::{Depot, HEADROOM, PoolSettings};

    use super::*;

    /// Small messages between large ones had a chunk of 64 KiB each; and one whose headroom content had used was left out, so
    /// that its chunk had to grow, which a pool without memory refuses.
    #[test]
    fn a_chunk_is_made_for_what_is_copied_into_it() {
        const HEAD: usize = 4;
        let depot = Depot::new(PoolSettings::default());
        let packet = |len: usize| {
            let mut packet = depot.packet(len).unwrap();
            packet.bytes(&vec![7; len]);
            packet.freeze()
        };
        let kept = [packet(3_000), packet(5_000)];
        let shared = |at: usize| kept[at].clone();
        let mut no_headroom = packet(3_000 - HEADROOM).try_into_mut().unwrap();
        no_headroom.prepend(&[7; HEADROOM]).unwrap();
        let no_headroom = no_headroom.freeze();
        let cases = [
            ("small ones", vec![packet(40), packet(9)], HEAD + 40 + HEAD + 9),
            ("up to a large one", vec![packet(40), packet(3_000), packet(40)], HEAD + 40 + HEAD),
            ("large, but others have it", vec![packet(40), shared(0), packet(40)], 3 * HEAD + 3_080),
            ("large, but its headroom is used", vec![packet(40), no_headroom, packet(40)], 3 * HEAD + 3_080),
            ("too large to be copied", vec![packet(40), shared(1), packet(40)], HEAD + 40 + HEAD),
            ("its header alone", vec![shared(1), packet(40)], HEAD),
            ("more than a chunk", (0..70).map(|_| packet(1_000)).collect(), CHUNK_MAX),
        ];
        for (name, packets, bytes) in cases {
            let (mut queues, mut outbox) = (Queues::new(), Outbox::EMPTY);
            for packet in packets {
                queues.push(&mut outbox, packet, Author::Content);
            }
            assert_eq!(bytes_of_run(&queues, &outbox, HEAD).min(CHUNK_MAX), bytes, "{name}");
        }
    }
}
