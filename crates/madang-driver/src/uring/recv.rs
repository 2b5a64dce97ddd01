//! Receives: one multishot operation per connection, and what a pause makes of it.
//!
//! ```text
//!              recv_start              recv_pause: cancel            recv_resume
//!   engine  Idle ───────► On ────────────────► Paused ─────────────────► On ──► Data(kept), more …
//!   kernel        armed ─────────────────────► armed or not: what comes is kept    └► armed again if it ended meanwhile
//! ```
//!
//! The engine's view and the kernel's are apart on purpose. A cancel is a hint: completions that were under way still come,
//! and the receive may end for any reason, before or after the cancel's own completion. Only the receive's terminal
//! completion says that the kernel let go; an end that the pause itself brought about is never told.

use std::ptr::NonNull;
use std::rc::Rc;

use io_uring::{cqueue, opcode};

use super::Uring;
use super::buffers::GROUP;
use super::table::{Kept, Life, Recv};
use crate::{Completion, Conn, Desk, Full, Lent, NetError, OpKind, RecvEnd, Token};

/// The most bytes that one completion brings. The kernel looks at one connection up to 32 times before the others have
/// their turn (U19), so this bounds a connection's share of a turn at half a megabyte, and with it what a pause may find.
const RECV_BYTES_MAX: u32 = 16 * 1024;

/// A cancel that found nothing is tried once more: some kernels looked in the wrong place for an operation that was being
/// worked on (U05).
const CANCELS_MAX: u8 = 2;

impl Uring {
    pub(super) fn start_recv(&mut self, conn: Conn) -> Result<(), Full> {
        let entry = self.table.named(conn);
        assert!(entry.life == Life::Open, "{conn:?} is still connecting");
        assert!(entry.recv != Recv::Over, "{conn:?} was told the end of its receive");
        assert!(
            entry.recv == Recv::Idle && !entry.recv_armed,
            "{conn:?} has a receive in flight: at most one"
        );
        let submission = self.recv_submission(conn);
        // SAFETY: the operation writes into the ring's buffers only, which outlive the ring.
        unsafe { self.ring.push(&submission) }?;
        self.armed(conn);
        self.table.named(conn).recv = Recv::On;
        Ok(())
    }

    pub(super) fn pause_recv(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if entry.recv == Recv::On && !entry.aborted {
            entry.recv = Recv::Paused;
            if entry.recv_armed && entry.cancels == 0 {
                self.cancel_recv(conn);
            }
        }
    }

    pub(super) fn resume_recv(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if entry.recv != Recv::Paused {
            return;
        }
        entry.recv = Recv::On;
        if entry.kept.is_some() {
            self.tell_kept_later(conn);
        } else if !entry.recv_armed {
            self.arm_again(conn);
        }
    }

    /// What an abort means for the receive: nothing is held back any more, and its end follows.
    pub(super) fn abort_recv(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if entry.recv == Recv::Paused {
            entry.recv = Recv::On;
            if let Some(kept) = entry.kept.take() {
                self.kept.spare(kept);
            }
        }
        let entry = self.table.named(conn);
        if entry.recv == Recv::On && !entry.recv_armed {
            // The kernel holds nothing that could end: the ready list ends it.
            self.tell_kept_later(conn);
        }
    }

    pub(super) fn on_received(&mut self, conn: Conn, result: i32, flags: u32) -> Option<Completion> {
        // The buffer first: it goes its way whatever became of the connection.
        let bytes = self.buffers.lend(flags, result);
        let more = cqueue::more(flags);
        if !more {
            self.in_flight -= 1;
        }
        let Some(entry) = self.table.meant(conn) else {
            self.stale += 1;
            return None;
        };
        if !more {
            entry.recv_armed = false;
        }
        match (entry.recv, bytes) {
            (Recv::On, Some(bytes)) => {
                if !more {
                    entry.recv = Recv::Idle;
                }
                Some(Completion::Data { conn, bytes, more })
            }
            (Recv::On, None) if more => None,
            (Recv::On, None) => self.recv_ended(conn, result),
            (Recv::Paused, bytes) => {
                self.keep(conn, bytes, (!more).then_some(result));
                None
            }
            (Recv::Idle | Recv::Over, _) => {
                unreachable!("a receive tells nothing after its terminal completion")
            }
        }
    }

    /// A pause's cancel found nothing, for what that is worth.
    pub(super) fn on_recv_missed(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if entry.recv == Recv::Paused && entry.recv_armed && entry.cancels < CANCELS_MAX {
            self.cancel_recv(conn);
        }
    }

    /// Tells what was kept for a connection on the ready list: first the bytes, then the end, if there is one.
    pub(super) fn tell_kept(&mut self, conn: Conn) -> Option<Completion> {
        let entry = self.table.meant(conn)?;
        entry.resuming = false;
        if entry.recv != Recv::On {
            return None;
        }
        let end = match entry.kept.as_mut() {
            Some(kept) if !kept.bytes.is_empty() => {
                let bytes = std::mem::take(&mut kept.bytes);
                let end = kept.end;
                if end.is_none() {
                    let kept = entry.kept.take().expect("looked at just now");
                    self.kept.spare(kept);
                }
                let entry = self.table.named(conn);
                if end.is_some() || (entry.aborted && !entry.recv_armed) {
                    self.tell_kept_later(conn);
                } else if !entry.recv_armed {
                    self.arm_again(conn);
                }
                return Some(Completion::Data { conn, bytes: self.kept.lend(bytes), more: true });
            }
            Some(kept) => kept.end,
            None => None,
        };
        if let Some(kept) = entry.kept.take() {
            self.kept.spare(kept);
        }
        let entry = self.table.named(conn);
        if entry.recv_armed {
            return None;
        }
        let end = if entry.aborted { Some(RecvEnd::Error(NetError::Cancelled)) } else { end };
        match end {
            Some(end) => {
                let end = after(entry.broken, end);
                entry.recv = Recv::Over;
                Some(Completion::RecvEnded { conn, end })
            }
            None => {
                self.arm_again(conn);
                None
            }
        }
    }

    /// A receive that the engine waits for ended without bytes.
    fn recv_ended(&mut self, conn: Conn, result: i32) -> Option<Completion> {
        let entry = self.table.named(conn);
        let end = match end_of(result) {
            _ if entry.aborted => RecvEnd::Error(NetError::Cancelled),
            Some(end) => after(entry.broken, end),
            None if result == -libc::ENOBUFS => RecvEnd::NoBuffers,
            // A pause's cancel that was overtaken by the resume, or an interruption: the engine asked for neither.
            None => {
                self.arm_again(conn);
                return None;
            }
        };
        if let RecvEnd::Error(error) = end {
            entry.note_broken(error);
        }
        entry.recv = if end == RecvEnd::NoBuffers { Recv::Idle } else { Recv::Over };
        self.no_buffers += u64::from(end == RecvEnd::NoBuffers);
        Some(Completion::RecvEnded { conn, end })
    }

    /// Something came for a paused receive. The ring's buffer goes back at once: one kept for every paused connection would
    /// starve all others.
    fn keep(&mut self, conn: Conn, bytes: Option<Lent>, terminal: Option<i32>) {
        let end = terminal.filter(|_| bytes.is_none()).and_then(end_of);
        if bytes.is_none() && end.is_none() {
            return;
        }
        let entry = self.table.named(conn);
        let kept = entry.kept.get_or_insert_with(|| self.kept.take_spare());
        if let Some(bytes) = bytes {
            kept.bytes.extend_from_slice(&bytes);
        }
        kept.end = kept.end.or(end);
    }

    fn tell_kept_later(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if !entry.resuming {
            entry.resuming = true;
            self.ready.push_back(super::Ready::Kept(conn));
        }
    }

    fn arm_again(&mut self, conn: Conn) {
        let submission = self.recv_submission(conn);
        // SAFETY: the entry points to no memory; the operation writes into the ring's buffers only, which outlive the ring.
        unsafe { self.ring.push_or_defer(submission) };
        self.armed(conn);
    }

    fn armed(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        entry.recv_armed = true;
        entry.cancels = 0;
        self.in_flight += 1;
    }

    fn cancel_recv(&mut self, conn: Conn) {
        self.table.named(conn).cancels += 1;
        let submission = opcode::AsyncCancel::new(recv_token(conn)).build();
        self.chore(conn, OpKind::Cancel, submission);
    }

    fn recv_submission(&mut self, conn: Conn) -> io_uring::squeue::Entry {
        let (target, flags) = self.table.named(conn).target(conn.index());
        let submission = opcode::RecvMulti::new(target, GROUP).len(RECV_BYTES_MAX).build();
        submission.flags(flags).user_data(recv_token(conn))
    }
}

fn recv_token(conn: Conn) -> u64 {
    Token { conn, kind: OpKind::Recv }.to_u64()
}

/// The end that a terminal result without bytes means to the engine, whoever asked; none for those that mean nothing to it.
fn end_of(result: i32) -> Option<RecvEnd> {
    match result.wrapping_neg() {
        0 => Some(RecvEnd::Eof),
        libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => None,
        _ => Some(RecvEnd::Error(NetError::from_result(result))),
    }
}

/// An end of the stream is none behind an error that a send was told.
fn after(broken: Option<NetError>, end: RecvEnd) -> RecvEnd {
    match (broken, end) {
        (Some(error), RecvEnd::Eof) => RecvEnd::Error(error),
        _ => end,
    }
}

/// Memory for what came during pauses. Grows with the pauses that are on, and keeps a few blocks for the next ones.
pub(super) struct KeptMemory {
    #[expect(clippy::vec_box, reason = "the boxes move into places of the table and back")]
    spare: Vec<Box<Kept>>,
    /// Lent in this turn. Valid until the next poll, when all loans are back.
    lent: Vec<Vec<u8>>,
    /// Counts the loans of `lent`, as if all of it were one buffer; the driver holds it for ever.
    desk: Rc<Desk>,
}

/// As many blocks as pauses are likely to overlap, and as big as one turn's share: 2 MiB at most are kept warm.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 128 * 1024;

impl KeptMemory {
    pub(super) fn new() -> KeptMemory {
        let desk = Desk::new(1);
        desk.hold(0);
        KeptMemory { spare: Vec::new(), lent: Vec::new(), desk }
    }

    pub(super) fn loans_out(&self) -> usize {
        self.desk.loans_out()
    }

    /// All loans are back: their memory is free.
    pub(super) fn take_back(&mut self) {
        for mut bytes in self.lent.drain(..) {
            let worth_keeping = bytes.capacity() <= SPARE_BYTES_MAX;
            if let Some(kept) = self.spare.iter_mut().find(|kept| worth_keeping && kept.bytes.capacity() == 0)
            {
                bytes.clear();
                kept.bytes = bytes;
            }
        }
    }

    fn take_spare(&mut self) -> Box<Kept> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn spare(&mut self, mut kept: Box<Kept>) {
        kept.end = None;
        kept.bytes.clear();
        if self.spare.len() < SPARE_MAX && kept.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(kept);
        }
    }

    fn lend(&mut self, mut bytes: Vec<u8>) -> Lent {
        let start = NonNull::new(bytes.as_mut_ptr()).expect("a vector's memory has an address");
        let len = u32::try_from(bytes.len()).expect("a pause keeps less than 4 GiB");
        self.lent.push(bytes);
        // SAFETY: the vector holds `len` bytes there, lies untouched in `lent` until `take_back`, which is called only when no
        // loan is out, and each is lent once.
        unsafe { self.desk.lend(0, start, len) }
    }
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        if self.desk.loans_out() > 0 {
            // Somebody still reads it. Leaking is the only safe way left.
            std::mem::forget(std::mem::take(&mut self.lent));
        }
    }
}
