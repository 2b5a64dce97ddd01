//! What waits to be sent: one queue a session, all of a shard's queues in one slab.
//!
//! ```text
//!   session 7  head ─► [packet A] ─► [packet B] ◄─ tail        a node is 16 bytes: packet, next, what it is
//!   session 9  head ─► [packet A] ◄─ tail                      (a broadcast: the same packet, counted twice)
//! ```
//!
//! An idle session pins nothing here, and after warm-up nothing is allocated: nodes are reused last in, first out, while
//! they are in the cache. When nothing at all waits, which is after most flushes, they are handed out anew from the first
//! on: so a broadcast fills them, and its flush finds them, in the order in which they lie.

use madang_packet::{Packet, PacketMut};

use super::Latest;
use crate::planted::{Planted, planted};

const NIL: u32 = u32::MAX;

/// Whose word an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Content's message: the framing goes around it at the drain.
    Content,
    /// Content's message that a newer one of its key replaces, and that may be dropped: the session's [`Latest`] has a mark
    /// of it.
    Droppable,
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

/// Whether nobody else has a packet, and there is so much room around what is in it.
#[inline]
pub(crate) fn is_own(packet: &Packet, head: usize, tail: usize) -> bool {
    packet.is_unique() && packet.headroom() >= head && packet.tailroom() >= tail
}

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
    /// Nodes that were given back.
    free: u32,
    /// From here on none was handed out since nothing waited.
    fresh: u32,
    /// Nodes that are queued.
    queued: u32,
    /// Bytes queued in all sessions together.
    bytes: usize,
}

impl Queues {
    pub(crate) fn new() -> Queues {
        Queues { nodes: Vec::new(), free: NIL, fresh: 0, queued: 0, bytes: 0 }
    }

    /// Bytes that wait in all of the shard's queues.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues behind the others, and answers the node. The limits were checked: what goes in stays bounded by them.
    #[inline(always)]
    pub(crate) fn push(&mut self, outbox: &mut Outbox, packet: Packet, author: Author) -> u32 {
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
        at
    }

    #[inline]
    fn node(&mut self, packet: Packet, author: Author) -> u32 {
        self.queued += 1;
        if let Some(node) = self.nodes.get_mut(self.free as usize) {
            let at = std::mem::replace(&mut self.free, node.next);
            node.put(packet);
            (node.next, node.author) = (NIL, author);
            return at;
        }
        let at = self.fresh;
        self.fresh += 1;
        let Some(node) = self.nodes.get_mut(at as usize) else { return self.grow(packet, author) };
        node.put(packet);
        (node.next, node.author) = (NIL, author);
        at
    }

    #[cold]
    fn grow(&mut self, packet: Packet, author: Author) -> u32 {
        self.nodes.push(Node { packet: Some(packet), next: NIL, author });
        u32::try_from(self.nodes.len() - 1).expect("the queue limits keep the nodes below 2^32")
    }

    /// A chain of `count` nodes is free again.
    #[inline]
    fn give_back(&mut self, first: u32, last: u32, count: usize) {
        self.queued -= count as u32;
        if self.queued == 0 {
            (self.free, self.fresh) = (NIL, 0);
        } else {
            self.nodes[last as usize].next = std::mem::replace(&mut self.free, first);
        }
    }

    /// The length of the entry in front, and whose it is.
    #[inline]
    pub(crate) fn front(&self, outbox: &Outbox) -> Option<(usize, Author)> {
        let node = self.nodes.get(outbox.head as usize)?;
        node.packet.as_ref().map(|packet| (packet.len(), node.author))
    }

    /// The packet in front.
    #[cfg(feature = "wan")]
    pub(crate) fn peek(&self, outbox: &Outbox) -> Option<&Packet> {
        self.nodes.get(outbox.head as usize)?.packet.as_ref()
    }

    /// The entry in front is about to leave in pieces: if it is droppable, it is so no more.
    #[cfg(feature = "wan")]
    pub(crate) fn settle_front(&mut self, outbox: &mut Outbox, latest: &mut Latest) {
        if self.nodes.get(outbox.head as usize).is_none_or(|node| node.author != Author::Droppable) {
            return;
        }
        let Some((packet, _)) = self.pop(outbox) else { return };
        latest.forget_sent(self);
        let bytes = packet.len();
        let at = self.node(packet, Author::Content);
        self.nodes[at as usize].next = outbox.head;
        outbox.head = at;
        if outbox.tail == NIL {
            outbox.tail = at;
        }
        outbox.len += 1;
        outbox.bytes += bytes as u32;
        self.bytes += bytes;
    }

    /// Whether others have the packet in front, too.
    #[inline]
    pub(crate) fn is_shared(&self, outbox: &Outbox) -> bool {
        let front = self.nodes.get(outbox.head as usize).and_then(|node| node.packet.as_ref());
        front.is_some_and(|packet| !packet.is_unique())
    }

    /// Takes content's message off the front, if its framing may be written around it: see [`is_own`].
    #[inline]
    pub(crate) fn take_own(&mut self, outbox: &mut Outbox, head: usize, tail: usize) -> Option<PacketMut> {
        let node = self.nodes.get(outbox.head as usize)?;
        let packet = node.packet.as_ref().filter(|_| node.author != Author::Engine)?;
        if !is_own(packet, head, tail) {
            return None;
        }
        let (packet, _) = self.pop(outbox)?;
        Some(packet.try_into_mut().expect("who is alone with a packet stays so"))
    }

    /// Where the packets lie that wait, in order.
    pub(crate) fn places(&self, outbox: &Outbox) -> impl Iterator<Item = usize> {
        self.packets(outbox).map(Packet::place)
    }

    /// The packets that wait, in order.
    pub(crate) fn packets(&self, outbox: &Outbox) -> impl Iterator<Item = &Packet> {
        let first = self.nodes.get(outbox.head as usize);
        let nodes = std::iter::successors(first, |node| self.nodes.get(node.next as usize));
        nodes.filter_map(|node| node.packet.as_ref())
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
        if last == NIL {
            return sums;
        }
        self.give_back(first, last, sums.entries);
        outbox.head = at;
        if at == NIL {
            outbox.tail = NIL;
        }
        outbox.len -= sums.entries as u32;
        outbox.bytes -= sums.bytes as u32;
        self.bytes -= sums.bytes;
        sums
    }

    /// The message in `node` makes way for a newer one, which is sent in its turn.
    pub(crate) fn replace(&mut self, outbox: &mut Outbox, node: u32, packet: Packet) {
        let new = packet.len();
        let old = self.nodes[node as usize].packet.replace(packet).expect("a marked node has a packet").len();
        outbox.bytes = outbox.bytes - old as u32 + new as u32;
        self.bytes = self.bytes + new - if planted(Planted::BudgetLeaks) { 0 } else { old };
    }

    /// How long the message in `node` is; `None` when it was taken and nothing was queued since.
    pub(crate) fn len_of(&self, node: u32) -> Option<usize> {
        self.nodes[node as usize].packet.as_ref().map(|packet| packet.len())
    }

    /// Drops droppable messages, oldest first, until no more than so many bytes and entries wait. Answers how many.
    pub(crate) fn shed(
        &mut self,
        outbox: &mut Outbox,
        latest: &mut Latest,
        most_bytes: usize,
        most_entries: usize,
    ) -> usize {
        let mut dropped = 0;
        let (mut before, mut at) = (NIL, outbox.head);
        while at != NIL && (outbox.bytes() > most_bytes || outbox.len() > most_entries) {
            let Some(oldest) = latest.oldest() else { break };
            let next = self.nodes[at as usize].next;
            if at != oldest {
                (before, at) = (at, next);
                continue;
            }
            match before {
                NIL => outbox.head = next,
                before => self.nodes[before as usize].next = next,
            }
            if next == NIL {
                outbox.tail = before;
            }
            let node = &mut self.nodes[at as usize];
            let len = node.packet.take().map_or(0, |packet| packet.len());
            self.give_back(at, at, 1);
            outbox.len -= 1;
            outbox.bytes -= len as u32;
            self.bytes -= len;
            latest.left();
            dropped += 1;
            at = next;
        }
        dropped
    }

    /// How many of content's messages wait.
    #[cfg(feature = "simulation")]
    pub(crate) fn messages(&self, outbox: &Outbox) -> usize {
        let first = self.nodes.get(outbox.head as usize);
        let nodes = std::iter::successors(first, |node| self.nodes.get(node.next as usize));
        nodes.filter(|node| node.author != Author::Engine).count()
    }

    /// Drops content's messages, and answers how many. The engine's own words wait on.
    pub(crate) fn clear_messages(&mut self, outbox: &mut Outbox) -> usize {
        let entries = outbox.len();
        for _ in 0..entries {
            if let Some((packet, Author::Engine)) = self.pop(outbox) {
                self.push(outbox, packet, Author::Engine);
            }
        }
        entries - outbox.len()
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

    #[test]
    fn when_nothing_waits_nodes_are_handed_out_from_the_first_on_and_none_that_waits_is_handed_out_twice() {
        let depot = Depot::new(PoolSettings::default());
        let mut queues = Queues::new();
        let mut outboxes = [Outbox::EMPTY; 4];
        let broadcast = |queues: &mut Queues, outboxes: &mut [Outbox], byte: u8| -> Vec<u32> {
            let each = outboxes.iter_mut();
            each.map(|outbox| queues.push(outbox, packet(&depot, byte), Author::Content)).collect()
        };
        for _ in 0..3 {
            assert_eq!(broadcast(&mut queues, &mut outboxes, 1), [0, 1, 2, 3]);
            assert_eq!(broadcast(&mut queues, &mut outboxes, 2), [4, 5, 6, 7]);
            for outbox in &mut outboxes {
                assert_eq!(queues.clear(outbox), 2);
            }
        }
        // One that does not read keeps its nodes; the others' are given back, and the last of them is the first again.
        broadcast(&mut queues, &mut outboxes, 3);
        outboxes[1..].iter_mut().for_each(|outbox| assert_eq!(queues.clear(outbox), 1));
        assert_eq!(broadcast(&mut queues, &mut outboxes, 4), [3, 2, 1, 4]);
        let kept: Vec<u8> = queues.packets(&outboxes[0]).map(|packet| packet[0]).collect();
        assert_eq!(kept, [3, 4]);
        for outbox in &mut outboxes {
            queues.clear(outbox);
        }
        assert_eq!(broadcast(&mut queues, &mut outboxes, 5), [0, 1, 2, 3]);
        for outbox in &mut outboxes {
            queues.clear(outbox);
        }
        assert_eq!((queues.nodes.len(), queues.bytes()), (8, 0));
    }

    #[test]
    fn p7_the_latest_takes_the_place_of_the_one_that_waits_and_the_oldest_are_shed_first() {
        let depot = Depot::new(PoolSettings::default());
        let (mut queues, mut outbox, mut latest) = (Queues::new(), Outbox::EMPTY, Latest::new());
        let push =
            |queues: &mut Queues, outbox: &mut Outbox, latest: &mut Latest, byte: u8, key: Option<u32>| {
                let entry = packet(&depot, byte);
                match key {
                    None => drop(queues.push(outbox, entry, Author::Content)),
                    Some(key) => match latest.node_of(key) {
                        Some(node) => queues.replace(outbox, node, entry),
                        None => latest.queued(key, queues.push(outbox, entry, Author::Droppable)),
                    },
                }
            };
        for (byte, key) in
            [(1, Some(7)), (2, None), (3, Some(8)), (4, Some(7)), (5, None), (6, Some(9)), (7, Some(9))]
        {
            push(&mut queues, &mut outbox, &mut latest, byte, key);
        }
        // In the queue: 4 of key 7, 2, 3 of key 8, 5, 7 of key 9.
        assert_eq!((outbox.len(), outbox.bytes(), queues.bytes()), (5, 5, 5));
        assert_eq!(queues.shed(&mut outbox, &mut latest, 4, 9), 1, "the oldest goes");
        assert_eq!(queues.shed(&mut outbox, &mut latest, 9, 3), 1, "and the next");
        assert_eq!(queues.shed(&mut outbox, &mut latest, 3, 3), 0);
        push(&mut queues, &mut outbox, &mut latest, 8, Some(7));
        let mut rest = Vec::new();
        while let Some((got, _)) = queues.pop(&mut outbox) {
            rest.push(got[0]);
        }
        assert_eq!(rest, [2, 5, 7, 8]);
        latest.forget_sent(&queues);
        assert!(latest.is_empty(), "what was sent is not replaced any more");

        // What cannot be dropped stays, and a queue of one that was shed whole is as good as new.
        push(&mut queues, &mut outbox, &mut latest, 1, Some(1));
        assert_eq!(queues.shed(&mut outbox, &mut latest, 0, 0), 1);
        push(&mut queues, &mut outbox, &mut latest, 2, None);
        push(&mut queues, &mut outbox, &mut latest, 3, Some(1));
        assert_eq!(queues.shed(&mut outbox, &mut latest, 0, 0), 1);
        push(&mut queues, &mut outbox, &mut latest, 4, None);
        assert_eq!((outbox.len(), queues.bytes()), (2, 2));
        assert_eq!(queues.clear(&mut outbox), 2);
    }
}
