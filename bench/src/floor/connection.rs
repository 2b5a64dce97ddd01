//! One connection's bytes on their way out.

use std::rc::Rc;

/// What a slot of the file table is used for.
#[derive(Default)]
pub(super) struct Connection {
    /// The slot holds a connection.
    pub(super) open: bool,
    /// The receive has ended: nothing more will come.
    pub(super) ended: bool,
    /// The slot stands in the list of those to flush.
    pub(super) dirty: bool,
    /// Bytes of `in_flight` that are out.
    sent_bytes: u32,
    /// With the kernel; at most one send at a time, since two could interleave.
    pub(super) in_flight: Outgoing,
    /// To be sent next; without memory while there is nothing, so that an idle connection costs none.
    pending: Vec<u8>,
}

/// The memory of a send.
#[derive(Default)]
pub(super) enum Outgoing {
    #[default]
    Nothing,
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Connection {
    pub(super) fn append(&mut self, bytes: &[u8], chunks: &mut Chunks) {
        if self.pending.capacity() == 0 {
            self.pending = chunks.take();
        }
        self.pending.extend_from_slice(bytes);
    }

    /// True when the slot was not dirty before, so that its list holds it once.
    pub(super) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing in flight and nothing pending.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.in_flight, Outgoing::Nothing) && !self.has_pending()
    }

    /// Puts what is pending in flight, when the way is free; true if it did.
    pub(super) fn start_pending(&mut self) -> bool {
        let start = self.has_pending() && matches!(self.in_flight, Outgoing::Nothing);
        if start {
            self.in_flight = Outgoing::Own(std::mem::take(&mut self.pending));
        }
        start
    }

    pub(super) fn unsent(&self) -> &[u8] {
        let bytes: &[u8] = match &self.in_flight {
            Outgoing::Nothing => &[],
            Outgoing::Own(bytes) => bytes,
            Outgoing::Shared(bytes) => bytes,
        };
        &bytes[self.sent_bytes as usize..]
    }

    /// Counts sent bytes; true if some are left.
    pub(super) fn advance(&mut self, bytes: u32) -> bool {
        self.sent_bytes += bytes;
        !self.unsent().is_empty()
    }

    /// Gives up the memory of the send that has completed.
    pub(super) fn release(&mut self, chunks: &mut Chunks) {
        self.sent_bytes = 0;
        if let Outgoing::Own(chunk) = std::mem::take(&mut self.in_flight) {
            chunks.give(chunk);
        }
    }

    /// Makes the slot free. The list of dirty slots may still name it until the batch is flushed, so that mark stays.
    pub(super) fn retire(&mut self) {
        *self = Self { dirty: self.dirty, ..Self::default() };
    }

    pub(super) fn drop_pending(&mut self, chunks: &mut Chunks) {
        if self.pending.capacity() > 0 {
            chunks.give(std::mem::take(&mut self.pending));
        }
    }
}

/// Memory for bytes on their way out, last in first out: a batch of some twenty sends keeps using the same few chunks,
/// which stay in the first-level cache.
#[derive(Default)]
pub(super) struct Chunks(Vec<Vec<u8>>);

impl Chunks {
    /// A 4 KiB message, or sixteen of 256 B, with headers.
    const BYTES: usize = 4096 + 256;

    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(Self::BYTES))
    }

    fn give(&mut self, mut chunk: Vec<u8>) {
        chunk.clear();
        self.0.push(chunk);
    }
}
