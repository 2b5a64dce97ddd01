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
    pieces: VecDeque<Packet>,
    /// Bytes of the first piece that have left.
    skip: usize,
}

impl Outgoing {
    /// Carries nothing yet.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Adds a packet behind the others. Empty packets are dropped: they have nothing to send.
    ///
    /// # Panics
    /// Past [`OUTGOING_PIECES_MAX`] pieces: the caller counts.
    pub fn push(&mut self, packet: Packet) {
        assert!(
            self.pieces.len() < OUTGOING_PIECES_MAX,
            "a send carries at most {OUTGOING_PIECES_MAX} pieces"
        );
        if !packet.is_empty() {
            self.pieces.push_back(packet);
        }
    }

    /// How many pieces are left.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes left to send.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum::<usize>() - self.skip
    }

    /// What is left, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.skip;
        self.pieces.iter().map(move |piece| &piece[std::mem::take(&mut skip)..])
    }

    /// The first piece's bytes: all there is to send when [`pieces`](Outgoing::pieces) is 1.
    pub fn first(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[self.skip..])
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
    pub fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let first = self.pieces.front().expect("no more bytes leave than were given");
            let left = first.len() - self.skip;
            if bytes < left {
                self.skip += bytes;
                return;
            }
            bytes -= left;
            self.skip = 0;
            self.pieces.pop_front();
        }
    }

    /// Releases all packets, keeps the room.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.skip = 0;
    }
}
