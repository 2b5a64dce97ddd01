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

/// What stands in a queue.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Content's message: the framing goes around it at the drain.
    Message(Packet),
    /// The engine's own word, framed already.
    Control(Packet),
}

#[derive(Debug)]
struct Node {
    /// There while the node is queued.
    packet: Option<Packet>,
    next: u32,
    /// The engine's own word.
    control: bool,
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
    pub(crate) fn push(&mut self, outbox: &mut Outbox, entry: Entry) {
        let (packet, control) = match entry {
            Entry::Message(packet) => (packet, false),
            Entry::Control(packet) => (packet, true),
        };
        let bytes = packet.len();
        let at = self.node(packet, control);
        if outbox.tail == NIL {
            outbox.head = at;
        } else {
            self.nodes[outbox.tail as usize].next = at;
        }
        outbox.tail = at;
        outbox.len += 1;
        outbox.bytes += bytes as u32;
        self.bytes += bytes;
    }

    #[inline]
    fn node(&mut self, packet: Packet, control: bool) -> u32 {
        let at = self.free;
        let Some(node) = self.nodes.get_mut(at as usize) else { return self.grow(packet, control) };
        self.free = node.next;
        *node = Node { packet: Some(packet), next: NIL, control };
        at
    }

    #[cold]
    fn grow(&mut self, packet: Packet, control: bool) -> u32 {
        self.nodes.push(Node { packet: Some(packet), next: NIL, control });
        u32::try_from(self.nodes.len() - 1).expect("the queue limits keep the nodes below 2^32")
    }

    /// The length of the entry in front, and whether it is content's message.
    #[inline]
    pub(crate) fn front(&self, outbox: &Outbox) -> Option<(usize, bool)> {
        let node = self.nodes.get(outbox.head as usize)?;
        node.packet.as_ref().map(|packet| (packet.len(), !node.control))
    }

    /// Takes the entry in front.
    pub(crate) fn pop(&mut self, outbox: &mut Outbox) -> Option<Entry> {
        let at = outbox.head;
        let node = self.nodes.get_mut(at as usize)?;
        let packet = node.packet.take().expect("a queued node has a packet");
        let control = node.control;
        outbox.head = node.next;
        node.next = self.free;
        self.free = at;
        if outbox.head == NIL {
            outbox.tail = NIL;
        }
        outbox.len -= 1;
        outbox.bytes -= packet.len() as u32;
        self.bytes -= packet.len();
        Some(if control { Entry::Control(packet) } else { Entry::Message(packet) })
    }

    /// Drops all that waits, and answers how many of it were content's messages.
    pub(crate) fn clear(&mut self, outbox: &mut Outbox) -> usize {
        let mut messages = 0;
        while let Some(entry) = self.pop(outbox) {
            messages += usize::from(matches!(entry, Entry::Message(_)));
        }
        messages
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
                    queues.push(outbox, Entry::Message(packet(&depot, round ^ (step * 3 + who as u8))));
                }
            }
            assert_eq!(queues.bytes(), 12);
            for (who, outbox) in outboxes.iter_mut().enumerate() {
                for step in 0..4 {
                    let Some(Entry::Message(got)) = queues.pop(outbox) else { panic!("a message is queued") };
                    assert_eq!(got[0], round ^ (step * 3 + who as u8));
                }
                assert!(queues.pop(outbox).is_none() && outbox.is_empty() && outbox.bytes() == 0);
            }
        }
        assert_eq!(queues.nodes.len(), 12, "nodes are reused");
    }
}
