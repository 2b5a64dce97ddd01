//! The ways out: half-close, abort, retire, and the end of the whole driver.
//!
//! The order is the same as for every driver of completions: call off, await what the kernel holds, close, and only when the
//! close is done does the place get a new name. `close` with a receive pending would do nothing visible: no completion, no
//! FIN, and the kernel may still write.

use std::mem;
use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::Uring;
use super::table::{Life, Place};
use crate::{Conn, Driver, Leaked, OpKind, Time, Token, Wait, host};

impl Uring {
    pub(super) fn close_half(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        assert!(entry.life == Life::Open, "{conn:?} is still connecting");
        assert!(!entry.sending, "{conn:?} has a send in flight: a half-close goes behind it");
        self.shut_down(conn, Shutdown::Write);
    }

    pub(super) fn start_abort(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        if mem::replace(&mut entry.aborted, true) {
            return;
        }
        entry.cancels = 0;
        // Of a broken connection there is nothing left to reset. Its operations are called off all the same: a receive does not
        // always end by itself when a send was told of the reset.
        if entry.broken.is_none() {
            self.linger_zero(conn);
        }
        self.call_off(conn);
        self.abort_recv(conn);
    }

    /// Ends the operations of an aborted connection. A shutdown would do it too, but its FIN could end in the TIME_WAIT that a
    /// reset spares us.
    ///
    /// Each is called off by its name first, which the kernel looks up; all of a socket's it finds by going through whatever
    /// waits in the ring, thousands of receives for each abort. A cancel may miss an operation that is just being worked on: so
    /// who was missed is looked for everywhere, and who is missed again is shut down.
    fn call_off(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        let in_flight = [
            (entry.life == Life::Connecting, OpKind::Connect),
            (entry.sending, OpKind::Send),
            (entry.recv_armed, OpKind::Recv),
        ];
        if !in_flight.iter().any(|(is, _)| *is) {
            return;
        }
        entry.cancels = entry.cancels.saturating_add(1);
        match entry.cancels {
            1 => {
                for (_, kind) in in_flight.into_iter().filter(|(is, _)| *is) {
                    let name = Token { conn, kind }.to_u64();
                    self.chore(conn, OpKind::Cancel, opcode::AsyncCancel::new(name).build());
                }
            }
            2 => {
                let socket = match entry.socket {
                    Place::Ring => CancelBuilder::fd(Fixed(conn.index() as u32)),
                    Place::Process(_) | Place::Nowhere => CancelBuilder::fd(entry.target(conn.index()).0),
                };
                self.chore(conn, OpKind::Cancel, opcode::AsyncCancel2::new(socket.all()).build());
            }
            3 => self.shut_down(conn, Shutdown::Both),
            _ => {}
        }
    }

    pub(super) fn start_retire(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        assert!(
            !entry.is_busy() && !entry.recv_armed,
            "the retire rule: {conn:?} has an operation in flight"
        );
        entry.life = Life::Retired;
        if let Some(kept) = entry.kept.take() {
            self.kept.spare(kept);
        }
        self.table.closing += 1;
        let entry = self.table.meant(conn).expect("retired just now");
        // With the next poll, beside everything else that it hands over: a system call of its own costs more.
        match mem::replace(&mut entry.socket, Place::Nowhere) {
            Place::Process(descriptor) => self.ring.close(descriptor),
            Place::Ring => {
                self.chore(conn, OpKind::Close, opcode::Close::new(Fixed(conn.index() as u32)).build());
            }
            Place::Nowhere => {}
        }
        self.release_if_quiet(conn);
    }

    /// An operation of the driver's own on a connection's behalf, which keeps the place from being freed.
    pub(super) fn chore(&mut self, conn: Conn, kind: OpKind, submission: squeue::Entry) {
        // SAFETY: cancels, shutdowns, closes and options point to no memory but a static.
        unsafe { self.ring.push_or_defer(submission.user_data(Token { conn, kind }.to_u64())) };
        self.in_flight += 1;
        self.table.meant(conn).expect("chores are done for places in use").chores += 1;
    }

    pub(super) fn on_chore(&mut self, conn: Conn, kind: OpKind, result: i32) {
        self.in_flight -= 1;
        let Some(entry) = self.table.meant(conn) else {
            self.stale += 1;
            return;
        };
        entry.chores -= 1;
        match (kind, entry.life) {
            (_, Life::Retired) => self.release_if_quiet(conn),
            (OpKind::Cancel, _) if !missed(result) => {}
            (OpKind::Cancel, _) if entry.aborted => self.call_off(conn),
            (OpKind::Cancel, _) => self.on_recv_missed(conn),
            _ => {}
        }
    }

    fn release_if_quiet(&mut self, conn: Conn) {
        if let Some(entry) = self.table.meant(conn) {
            if entry.life == Life::Retired && entry.chores == 0 {
                self.table.closing -= 1;
                self.table.release(conn.index());
            }
        }
    }

    fn linger_zero(&mut self, conn: Conn) {
        let entry = self.table.named(conn);
        match entry.socket {
            // A failure means that the connection is gone already: there is nothing to reset.
            Place::Process(ref descriptor) => {
                let _ = sockopt::set_socket_linger(descriptor, Some(Duration::ZERO));
            }
            Place::Ring if self.features.option_commands => {
                let (target, flags) = entry.target(conn.index());
                self.chore(conn, OpKind::Option, linger_zero(target, flags));
            }
            Place::Ring | Place::Nowhere => {}
        }
    }

    fn shut_down(&mut self, conn: Conn, how: Shutdown) {
        let entry = self.table.named(conn);
        match entry.socket {
            // A failure means that the connection is gone already, which its operations tell.
            Place::Process(ref descriptor) => {
                let _ = shutdown(descriptor, how);
            }
            Place::Ring => {
                let (target, flags) = entry.target(conn.index());
                let how = if matches!(how, Shutdown::Write) { libc::SHUT_WR } else { libc::SHUT_RDWR };
                self.chore(conn, OpKind::Shutdown, opcode::Shutdown::new(target, how).build().flags(flags));
            }
            Place::Nowhere => {}
        }
    }

    pub(super) fn end(&mut self, patience: Duration) -> Leaked {
        if mem::replace(&mut self.ended, true) {
            return Leaked::default();
        }
        self.close_all_doors();
        for conn in self.table.living().collect::<Vec<_>>() {
            self.start_abort(conn);
        }
        self.drain(host::now() + patience);
        if self.in_flight > 0 {
            self.call_off_the_rest();
            self.drain(host::now());
        }
        let operations = self.in_flight + self.ring.unsubmitted();
        let leaked = Leaked { operations, connections: self.table.len() };
        if !leaked.is_none() {
            tracing::warn!(%leaked, "the driver ended with operations in the kernel's hands");
        }
        leaked
    }

    /// Retires what has come to rest and polls, until nothing is in flight or `deadline` has come; once at least.
    fn drain(&mut self, deadline: Time) {
        let mut dropped = Vec::new();
        let mut is_over = false;
        loop {
            for conn in self.table.living().collect::<Vec<_>>() {
                if !self.table.named(conn).is_busy() {
                    self.start_retire(conn);
                }
            }
            let told_all = self.in_flight == 0 && self.ready.is_empty() && self.ring.unsubmitted() == 0;
            if told_all || is_over {
                return;
            }
            self.poll(&mut dropped, usize::MAX, Wait::until(deadline));
            dropped.clear();
            is_over = host::now() >= deadline;
        }
    }

    /// What outlived the patience.
    fn call_off_the_rest(&mut self) {
        let submission = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: the entry points to no memory. Its completion, which names nothing, is passed over.
        unsafe { self.ring.push_or_defer(submission) };
    }
}

/// Whether a cancel found nothing, or something that cannot be called off just now. What it found ends by itself.
fn missed(result: i32) -> bool {
    result == -libc::ENOENT || result == -libc::EALREADY
}

/// Linger of zero seconds: closing is a reset.
static LINGER_ZERO: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Sets it on a socket by a submission.
pub(super) fn linger_zero(target: Fd, flags: Flags) -> squeue::Entry {
    let value = (&raw const LINGER_ZERO).cast();
    let len = size_of::<libc::linger>() as u32;
    opcode::SetSockOpt::new(target, libc::SOL_SOCKET as u32, libc::SO_LINGER as u32, value, len)
        .build()
        .flags(flags)
}
