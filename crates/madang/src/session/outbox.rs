//! What waits to be sent: one queue a session, all of a shard's queues in one slab.
//!
//! ```text
//!   session 7  head ─► [packet A] ─► [packet B] ◄─ tail        a node is 16 bytes: packet, next, what it is
//!   session 9  head ─► [packet A] ◄─ tail                      (a broadcast: the same packet, counted twice)
//! ```
//!
//! An idle session pins nothing here, and after warm-up nothing is allocated: nodes are reused last in, first out, while
//! they are in the cache.

use madang_packet::Packet;

const NIL: u32 = u32::MAX;

/// Whose word an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Content's message: the framing goes around it at the drain.
    Content,
    /// The engine's own word, framed already.
    Engine,
}

#[derive(Debug)]
struct Node {
    /// There while the node is queued.
    packet: Option<Packet>,
    next: u32,
    author: Author,
}

impl Node {
    /// Fills an empty place. Said so that nothing of what was there is looked at: this is done for every message.
    #[inline(always)]
    fn put(&mut self, packet: Packet) {
        let before = self.packet.replace(packet);
        debug_assert!(before.is_none(), "the place is empty");
        std::mem::forget(before);
    }
}

const _: () = assert!(size_of::<Node>() == 16, "four nodes share a cache line");

/// One session's queue: ends and sums. The nodes are the shard's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outbox {
    head: u32,
    tail: u32,
    len: u32,
    bytes: u32,
}

impl Outbox {
    pub(crate) const EMPTY: Outbox = Outbox { head: NIL, tail: NIL, len: 0, bytes: 0 };

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Their bytes, framing not counted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

/// What some entries come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) entries: usize,
    /// Framing not counted.
    pub(crate) bytes: usize,
}

/// The nodes of all queues of a shard.
#[derive(Debug)]
pub(crate) struct Queues {
    nodes: Vec<Node>,
    free: u32,
    /// Bytes queued in all sessions together.
    bytes: usize,
}

impl Queues {
    pub(crate) fn new() -> Queues {
        Queues { nodes: Vec::new(), free: NIL, bytes: 0 }
    }

    /// Bytes that wait in all of the shard's queues.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues behind the others. The limits were checked: what goes in stays bounded by them.
    #[inline(always)]
    pub(crate) fn push(&mut self, outbox: &mut Outbox, packet: Packet, author: Author) {
        let bytes = packet.len();
        let at = self.node(packet, author);
        match self.nodes.get_mut(outbox.tail as usize) {
            Some(tail) => tail.next = at,
            None => outbox.head = at,
        }
        outbox.tail = at;
        outbox.len += 1;
        outbox.bytes += bytes as u32;
        self.bytes += bytes;
    }

    #[inline]
    fn node(&mut self, packet: Packet, author: Author) -> u32 {
        let at = self.free;
        let Some(node) = self.nodes.get_mut(at as usize) else { return self.grow(packet, author) };
        self.free = node.next;
        node.put(packet);
        (node.next, node.author) = (NIL, author);
        at
    }

    #[cold]
    fn grow(&mut self, packet: Packet, author: Author) -> u32 {
        self.nodes.push(Node { packet: Some(packet), next: NIL, author });
        u32::try_from(self.nodes.len() - 1).expect("the queue limits keep the nodes below 2^32")
    }

    /// The length of the entry in front, and whose it is.
    #[inline]
    pub(crate) fn front(&self, outbox: &Outbox) -> Option<(usize, Author)> {
        let node = self.nodes.get(outbox.head as usize)?;
        node.packet.as_ref().map(|packet| (packet.len(), node.author))
    }

    /// Takes the entry in front.
    pub(crate) fn pop(&mut self, outbox: &mut Outbox) -> Option<(Packet, Author)> {
        let mut front = None;
        self.drain(outbox, |packet, author, _| match front {
            None => {
                front = Some((packet, author));
                None
            }
            Some(_) => Some(packet),
        });
        front
    }

    /// Gives `take` the entries from the front on, each with the sums of those before it, until it hands one back; those
    /// that it kept are off the queue.
    #[inline]
    pub(crate) fn drain(
        &mut self,
        outbox: &mut Outbox,
        mut take: impl FnMut(Packet, Author, Sums) -> Option<Packet>,
    ) -> Sums {
        let first = outbox.head;
        let (mut at, mut last) = (first, NIL);
        let mut sums = Sums { entries: 0, bytes: 0 };
        while let Some(node) = self.nodes.get_mut(at as usize) {
            let packet = node.packet.take().expect("a queued node has a packet");
            let len = packet.len();
            if let Some(packet) = take(packet, node.author, sums) {
                node.put(packet);
                break;
            }
            sums.entries += 1;
            sums.bytes += len;
            last = at;
            at = node.next;
        }
        // The nodes go back in one piece.
        let Some(last) = self.nodes.get_mut(last as usize) else { return sums };
        last.next = self.free;
        self.free = first;
        outbox.head = at;
        if at == NIL {
            outbox.tail = NIL;
        }
        outbox.len -= sums.entries as u32;
        outbox.bytes -= sums.bytes as u32;
        self.bytes -= sums.bytes;
        sums
    }

    /// Drops all that waits, and answers how many of it were content's messages.
    pub(crate) fn clear(&mut self, outbox: &mut Outbox) -> usize {
        let mut words = 0;
        let all = self.drain(outbox, |_, author, _| {
            words += usize::from(author == Author::Engine);
            None
        });
        all.entries - words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_packet::{Depot, PoolSettings};

    fn packet(depot: &Depot, byte: u8) -> Packet {
        let mut packet = depot.packet(1).unwrap();
        packet.u8(byte);
        packet.freeze()
    }

    #[test]
    fn queues_that_share_a_slab_keep_their_own_order_and_reuse_nodes() {
        let depot = Depot::new(PoolSettings::default());
        let mut queues = Queues::new();
        let mut outboxes = [Outbox::EMPTY; 3];
        for round in 0..50u8 {
            for step in 0..4 {
                for (who, outbox) in outboxes.iter_mut().enumerate() {
                    queues.push(outbox, packet(&depot, round ^ (step * 3 + who as u8)), Author::Content);
                }
            }
            assert_eq!(queues.bytes(), 12);
            for (who, outbox) in outboxes.iter_mut().enumerate() {
                for step in 0..4 {
                    let (got, _) = queues.pop(outbox).expect("a message is queued");
                    assert_eq!(got[0], round ^ (step * 3 + who as u8));
                }
                assert!(queues.pop(outbox).is_none() && outbox.is_empty() && outbox.bytes() == 0);
            }
        }
        assert_eq!(queues.nodes.len(), 12, "nodes are reused");
    }
}
