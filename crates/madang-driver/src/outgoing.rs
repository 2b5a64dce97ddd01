//! What one send carries.

use std::collections::VecDeque;
use std::io::IoSlice;

use madang_packet::Packet;

/// The most pieces one send may have: the systems' own limit is 1,024 (IOV_MAX); past 64 a second send costs nothing
/// noticeable, and the slot that holds the pieces' addresses stays small.
pub const OUTGOING_PIECES_MAX: usize = 64;

/// The packets that one send carries, in order, with how much of the first has already left.
///
/// It owns a reference to each packet, so the memory lives as long as the operation does. A packet is released by
/// [`advance`](Outgoing::advance) once all its bytes have left. The room for the pieces is kept by
/// [`clear`](Outgoing::clear): a shard that reuses its `Outgoing`s allocates nothing.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Here and not among the others: most sends have one piece, and then touch no memory but their own.
    first: Option<Packet>,
    /// The pieces behind the first. The room is made for the first send that needs it.
    #[expect(clippy::box_collection, reason = "three words that are moved with every send, instead of six")]
    others: Option<Box<VecDeque<Packet>>>,
    /// Bytes of the first piece that have left.
    skip: usize,
}

const _: () = assert!(size_of::<Outgoing>() == 24, "it is moved some five times on its way");

impl Outgoing {
    /// Carries nothing yet.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Adds a packet behind the others. Empty packets are dropped: they have nothing to send.
    ///
    /// # Panics
    /// Past [`OUTGOING_PIECES_MAX`] pieces: the caller counts.
    #[inline]
    pub fn push(&mut self, packet: Packet) {
        if packet.is_empty() {
            return;
        }
        if self.first.is_none() {
            self.first = Some(packet);
            return;
        }
        let others = self.others.get_or_insert_default();
        assert!(
            others.len() + 1 < OUTGOING_PIECES_MAX,
            "a send carries at most {OUTGOING_PIECES_MAX} pieces"
        );
        others.push_back(packet);
    }

    /// How many pieces are left.
    #[inline]
    pub fn pieces(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.as_ref().map_or(0, |others| others.len())
    }

    /// Whether nothing is left to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes left to send.
    pub fn len(&self) -> usize {
        self.packets().map(|piece| piece.len()).sum::<usize>() - self.skip
    }

    /// What is left, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.skip;
        self.packets().map(move |piece| &piece[std::mem::take(&mut skip)..])
    }

    /// The first piece's bytes: all there is to send when [`pieces`](Outgoing::pieces) is 1.
    #[inline]
    pub fn first(&self) -> &[u8] {
        self.first.as_ref().map_or(&[], |piece| &piece[self.skip..])
    }

    /// Fills `into` with what is left and answers how many entries are in use.
    pub fn io_slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slot, bytes) in into.iter_mut().zip(self.slices()) {
            *slot = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// `bytes` of it have left: releases each packet that is done.
    ///
    /// # Panics
    /// When more bytes left than there were: the caller's count is wrong.
    #[inline]
    pub fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let first = self.first.as_ref().expect("no more bytes leave than were given");
            let left = first.len() - self.skip;
            if bytes < left {
                self.skip += bytes;
                return;
            }
            bytes -= left;
            self.skip = 0;
            self.first = self.others.as_mut().and_then(|others| others.pop_front());
        }
    }

    /// Releases all packets, keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.first = None;
        if let Some(others) = &mut self.others {
            others.clear();
        }
        self.skip = 0;
    }

    fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.first.iter().chain(self.others.iter().flat_map(|others| others.iter()))
    }
}

#[cfg(test)]
mod tests {
    use madang_packet::{Depot, PoolSettings};

    use super::*;

    /// What is left of a send of these pieces after each of these writes.
    fn check(pieces: &[&str], writes: &[usize], left: &[&[&str]]) {
        let depot = Depot::new(PoolSettings::default());
        let mut outgoing = Outgoing::new();
        // Twice: the second time in the room of the first.
        for _ in 0..2 {
            for piece in pieces {
                let mut packet = depot.packet(8).unwrap();
                packet.bytes(piece.as_bytes());
                outgoing.push(packet.freeze());
            }
            for (bytes, left) in writes.iter().zip(left) {
                outgoing.advance(*bytes);
                let got: Vec<&[u8]> = outgoing.slices().collect();
                let left: Vec<&[u8]> = left.iter().map(|piece| piece.as_bytes()).collect();
                assert_eq!(got, left, "{pieces:?} after {bytes} bytes of {writes:?}");
                assert_eq!(outgoing.first(), left.first().copied().unwrap_or_default());
                assert_eq!((outgoing.pieces(), outgoing.is_empty()), (left.len(), left.is_empty()));
                assert_eq!(outgoing.len(), left.concat().len());
                let packets = depot.figures().in_use.blocks;
                assert_eq!(packets, left.len(), "a packet is released when it has left");
            }
            outgoing.clear();
            assert!(outgoing.is_empty());
            assert_eq!((outgoing.len(), depot.figures().in_use.blocks), (0, 0));
        }
    }

    #[test]
    fn packets_leave_in_order_each_when_its_last_byte_has_left() {
        check(&["abc"], &[0, 1, 2], &[&["abc"], &["bc"], &[]]);
        check(&["abc", "", "de", "f"], &[2, 2, 1, 1], &[&["c", "de", "f"], &["e", "f"], &["f"], &[]]);
        check(&["a", "b", "c"], &[2, 1], &[&["c"], &[]]);
        check(&["a", "b", "c"], &[1], &[&["b", "c"]]);
        check(&["", ""], &[0], &[&[]]);
    }

    #[test]
    #[should_panic(expected = "at most 64 pieces")]
    fn more_pieces_than_a_send_carries_are_the_callers_bug() {
        let depot = Depot::new(PoolSettings::default());
        let mut outgoing = Outgoing::new();
        for count in 0..=OUTGOING_PIECES_MAX {
            assert_eq!(outgoing.pieces(), count);
            let mut packet = depot.packet(1).unwrap();
            packet.u8(1);
            outgoing.push(packet.freeze());
        }
    }
}
