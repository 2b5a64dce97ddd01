//! Sends: one in flight per connection, its packets in the connection's place until the completion.
//!
//! A send of one piece points at the packet's bytes. One of several needs a header and a list of pieces; the kernel copies
//! both when it takes the submission, so they live in a pool that is used again after each enter.
//!
//! No MSG_WAITALL: a short count tells the engine that a slow peer takes something, and releases the packets that left.

use std::ptr;

use io_uring::{opcode, squeue};

use super::Uring;
use super::table::Life;
use crate::{Completion, Conn, NetError, OUTGOING_PIECES_MAX, OpKind, Outgoing, Token};

impl Uring {
    pub(super) fn start_send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing> {
        let entry = self.table.named(conn);
        assert!(entry.life == Life::Open, "{conn:?} is still connecting");
        assert!(!entry.sending, "{conn:?} has a send in flight: at most one");
        assert!(!outgoing.is_empty(), "a send carries at least one byte");
        let (target, target_flags) = entry.target(conn.index());
        let submission = if outgoing.pieces() == 1 {
            let bytes = outgoing.first();
            let len = u32::try_from(bytes.len()).expect("a packet is shorter than 4 GiB");
            opcode::Send::new(target, bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
        } else {
            let header = self.gathers.list(&outgoing);
            opcode::SendMsg::new(target, header).flags(libc::MSG_NOSIGNAL as u32).build()
        };
        let submission = submission.flags(target_flags).user_data(token(conn));
        self.start(conn, outgoing, &submission)
    }

    fn start(&mut self, conn: Conn, outgoing: Outgoing, submission: &squeue::Entry) -> Result<(), Outgoing> {
        // SAFETY: the bytes belong to packets that `outgoing` holds, in blocks that do not move; it stays in the connection's
        // place until the completion, or is leaked. The list of pieces is in the pool until the queue was handed over.
        if unsafe { self.ring.push(submission) }.is_err() {
            return Err(outgoing);
        }
        let entry = self.table.named(conn);
        entry.outgoing = outgoing;
        entry.sending = true;
        self.in_flight += 1;
        Ok(())
    }

    pub(super) fn on_sent(&mut self, conn: Conn, result: i32) -> Option<Completion> {
        self.in_flight -= 1;
        let Some(entry) = self.table.meant(conn) else {
            self.stale += 1;
            return None;
        };
        debug_assert!(entry.sending, "a send completes once");
        entry.sending = false;
        let mut outgoing = std::mem::take(&mut entry.outgoing);
        let result = usize::try_from(result).map_err(|_| NetError::from_result(result));
        match result {
            // Released before it is told.
            Ok(_) if outgoing.is_empty() => {}
            Ok(bytes) => outgoing.advance(bytes),
            Err(error) => entry.note_broken(error),
        }
        Some(Completion::Sent { conn, outgoing, result })
    }

    /// The lists of pieces that the kernel has copied may be used again.
    pub(super) fn clear_gathers(&mut self) {
        if self.ring.queued() == 0 {
            self.gathers.clear();
        }
    }

    /// Takes what is complete off the kernel's queue, to be told by the next poll, and releases what left whole at once: its
    /// blocks are the next that the shard writes to, and are still in the cache.
    pub(super) fn release_sent(&mut self) {
        let told_before = self.taken.len();
        self.ring.take(&mut self.taken, usize::MAX);
        for completion in self.taken.range(told_before..) {
            let Some(Token { conn, kind: OpKind::Send }) = Token::from_u64(completion.user_data()) else {
                continue;
            };
            let Some(entry) = self.table.meant(conn) else { continue };
            if usize::try_from(completion.result()) == Ok(entry.outgoing.len()) {
                entry.outgoing.clear();
            }
        }
    }
}

fn token(conn: Conn) -> u64 {
    Token { conn, kind: OpKind::Send }.to_u64()
}

/// Lists of pieces for the sends that the kernel has not taken yet.
#[derive(Default)]
pub(super) struct Gathers {
    #[expect(clippy::vec_box, reason = "a queued submission points at its list while the pool grows")]
    lists: Vec<Box<Gather>>,
    used: usize,
}

struct Gather {
    header: libc::msghdr,
    pieces: [libc::iovec; OUTGOING_PIECES_MAX],
}

impl Gathers {
    /// The header of a list of `outgoing`'s pieces, valid until [`clear`](Gathers::clear).
    fn list(&mut self, outgoing: &Outgoing) -> *const libc::msghdr {
        if self.used == self.lists.len() {
            let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
            // SAFETY: all zeros is a header without address, pieces and control data.
            let header = unsafe { std::mem::zeroed() };
            self.lists.push(Box::new(Gather { header, pieces: [none; OUTGOING_PIECES_MAX] }));
        }
        let list = &mut self.lists[self.used];
        self.used += 1;
        let mut count = 0;
        for (piece, bytes) in list.pieces.iter_mut().zip(outgoing.slices()) {
            *piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            count += 1;
        }
        list.header.msg_iov = list.pieces.as_mut_ptr();
        list.header.msg_iovlen = count;
        &raw const list.header
    }

    /// The kernel has taken all that was queued: the lists may be used again.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}
