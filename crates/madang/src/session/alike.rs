//! Broadcasts: sessions that have the same packets queued are sent the same chunk.
//!
//! ```text
//!   session 7   [A] [B] ──► copied into a chunk  [h│A│h│B]
//!   session 9   [A] [B] ──► the same chunk, counted once more
//!   session 12  [A] [C] ──► a chunk of its own
//! ```
//!
//! A broadcast leaves the same packets in a thousand queues, and with a framing that says the same to everybody their bytes
//! are the same, too. So the copy is made for the first of them, and the kernel reads the others' from cache lines that
//! are warm. Only the last chunk is remembered: who is in a broadcast stands in a row.

use madang_packet::{Packet, Shares};

use super::{Outbox, Queues};
use crate::Sent;
use crate::planted::{Planted, planted};

/// Remembers one chunk for the length of one flush. In between content may drop and make packets, and a place may name
/// another packet.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    /// A flush is under way.
    flushing: bool,
    /// The places of the packets in the chunk, in order.
    places: Vec<usize>,
    /// Those packets' shares that were in the queues of who is sent the chunk: they go back together, when it is forgotten.
    shares: Vec<Shares>,
    /// The chunk, once it is made.
    chunk: Option<(Packet, Sent)>,
}

impl Alike {
    /// Longer queues are not compared: what they cost is their bytes.
    const ENTRIES_MAX: usize = 64;

    pub(crate) fn begin(&mut self) {
        self.flushing = true;
    }

    /// Lets the chunk go.
    pub(crate) fn end(&mut self) {
        self.flushing = false;
        self.shares.clear();
        if !planted(Planted::ChunkRemembered) {
            self.forget();
        }
    }

    /// If somebody had all that `outbox` has, and nothing else: takes it off the queue, and answers his chunk and what it
    /// carries.
    pub(crate) fn find(&mut self, queues: &mut Queues, outbox: &mut Outbox) -> Option<(Packet, Sent)> {
        let (chunk, sent) = self.chunk.as_ref()?;
        if outbox.len() != self.places.len() || !queues.places(outbox).eq(self.places.iter().copied()) {
            return None;
        }
        let mut shares = self.shares.iter_mut();
        queues.drain(outbox, |packet, _, _| {
            // Compared just now: it is one of them.
            drop(shares.next().map(|shares| shares.take_back(packet)));
            None
        });
        Some((chunk.clone(), *sent))
    }

    /// A chunk is about to be made of all in `outbox`. False when it is not worth remembering: nobody else has this packet.
    pub(crate) fn expect(&mut self, queues: &Queues, outbox: &Outbox) -> bool {
        if !self.flushing || outbox.len() > Self::ENTRIES_MAX {
            return false;
        }
        self.forget();
        self.places.extend(queues.places(outbox));
        self.shares.extend(queues.packets(outbox).map(|packet| packet.clone().shares(1)));
        true
    }

    /// The chunk that was expected.
    pub(crate) fn remember(&mut self, chunk: &Packet, sent: Sent) {
        self.chunk = Some((chunk.clone(), sent));
    }

    fn forget(&mut self) {
        self.places.clear();
        self.shares.clear();
        self.chunk = None;
    }
}

#[cfg(test)]
mod tests {
    use madang_packet::{Depot, PoolSettings};

    use super::*;
    use crate::session::Author;

    #[test]
    fn a_chunk_is_shared_by_those_who_have_the_same_packets_and_by_nobody_else() {
        let depot = Depot::new(PoolSettings::default());
        let packet = |byte: u8| {
            let mut packet = depot.packet(1).unwrap();
            packet.u8(byte);
            packet.freeze()
        };
        let [a, b, c] = [1, 2, 3].map(packet);
        let chunk = packet(9);
        let mut queues = Queues::new();
        let mut queue = |packets: &[&Packet]| {
            let mut outbox = Outbox::EMPTY;
            for packet in packets {
                queues.push(&mut outbox, (*packet).clone(), Author::Content);
            }
            outbox
        };
        let mut first = queue(&[&a, &b]);
        let mut cases = [
            (queue(&[&a, &b]), true),
            (queue(&[&b, &a]), false),
            (queue(&[&a]), false),
            (queue(&[&a, &b, &c]), false),
            (queue(&[&a, &c]), false),
            (queue(&[]), false),
        ];
        let sent = Sent { messages: 2, bytes: 2 };

        let mut alike = Alike::default();
        assert!(!alike.expect(&queues, &first), "outside of a flush nothing is remembered");
        alike.begin();
        assert!(queues.is_shared(&first) && alike.expect(&queues, &first));
        assert!(alike.find(&mut queues, &mut first).is_none(), "it is not made yet");
        alike.remember(&chunk, sent);
        for (index, (outbox, shares)) in cases.iter_mut().enumerate() {
            let before = outbox.len();
            let found = alike.find(&mut queues, outbox);
            assert_eq!(found.is_some(), *shares, "case {index}");
            assert!(found.is_none_or(|(got, carried)| got.place() == chunk.place() && carried == sent));
            assert_eq!(outbox.len(), if *shares { 0 } else { before }, "case {index}");
            queues.clear(outbox);
        }
        alike.end();
        assert!(alike.find(&mut queues, &mut first).is_none(), "the flush is over");
        assert!(chunk.is_unique(), "nothing of the chunk is kept");
        queues.clear(&mut first);
        assert!([&a, &b, &c].iter().all(|packet| packet.is_unique()), "nor of what it is made of");
    }
}
