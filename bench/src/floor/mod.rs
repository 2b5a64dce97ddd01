//! The floor: the barest io_uring server that still does the work, so that what it costs is what the kernel costs.
//!
//! No sessions, no framing beyond what echo and broadcast need, no limits, no back pressure: a peer that never reads
//! makes it grow. What it does have is everything that measured as faster: one ring with deferred task work, direct
//! descriptors, multishot accept and receive, incremental receive buffers, and **one coalesced send per connection and
//! batch, one in flight at most**.
//!
//! ```text
//!   wait ──► completions: accept · receive (copy into the connection's chunk) · send ──► flush: one send per dirty
//!    ▲                                                                                   connection ──┐
//!    └────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

mod broadcast;
mod connection;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::{cqueue, opcode, types};

use crate::ring::{self, ReceiveBuffers, Submissions, Wait};
use crate::sockets;
use broadcast::Broadcasts;
use connection::{Chunks, Connection, Outgoing};

/// What the server does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Every byte goes back to its sender.
    Echo,
    /// Payloads are triggers; see [`crate::wire::Trigger`].
    Broadcast,
    /// Echo for connections that live for one message. The ring needs nothing else for those, so this is `Echo` by the
    /// name of its scenario.
    Accept,
}

/// Slots of the ring's file table. The kernel bounds it by the descriptor limit, 20,000 here.
const CONNECTIONS_MAX: u32 = 16_384;

/// Serves until the process is killed. `listening` is called with the address once connections can be made.
///
/// # Errors
/// The port is taken, or the kernel lacks something that [`ring::open`] and [`ReceiveBuffers::register`] name.
pub fn serve(mode: Mode, address: SocketAddr, listening: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let listener = sockets::listen(address)?;
    let mut ring = ring::open(Wait::Blocking)?;
    let (submitter, queue, mut completions) = ring.split();
    let submissions = Submissions::new(submitter, queue)?;
    submissions.submitter().register_files_sparse(CONNECTIONS_MAX)?;
    let buffers = ReceiveBuffers::register(submissions.submitter())?;

    let mut floor = Floor {
        submissions,
        buffers,
        listener: listener.as_raw_fd(),
        accepting: false,
        connections: Vec::new(),
        dirty: Vec::new(),
        chunks: Chunks::default(),
        broadcasts: (mode == Mode::Broadcast).then(Broadcasts::default),
    };
    floor.accept()?;
    listening(listener.local_addr()?.as_socket().expect("a TCP listener has a socket address"));
    loop {
        floor.submissions.submit_and_wait()?;
        completions.sync();
        for completion in &mut completions {
            floor.handle(&completion)?;
        }
        floor.buffers.recycle();
        floor.flush()?;
    }
}

/// What an operation was; travels in the top byte of its user data, above the slot.
///
/// The slot needs no generation: it is closed, and so reused, only when its receive has ended and no send is in flight.
#[derive(Clone, Copy)]
enum Op {
    Accept,
    Receive,
    Send,
    Close,
}

impl Op {
    fn at(self, slot: u32) -> u64 {
        (self as u64) << 56 | u64::from(slot)
    }

    fn of(user_data: u64) -> (Self, u32) {
        let op = match user_data >> 56 {
            0 => Self::Accept,
            1 => Self::Receive,
            2 => Self::Send,
            _ => Self::Close,
        };
        (op, user_data as u32)
    }
}

struct Floor<'ring> {
    submissions: Submissions<'ring>,
    buffers: ReceiveBuffers,
    listener: i32,
    accepting: bool,
    /// Indexed by slot of the file table; grows with the highest slot that was used.
    connections: Vec<Connection>,
    /// Slots with something to send that are not yet told to the kernel.
    dirty: Vec<u32>,
    chunks: Chunks,
    /// Present in broadcast mode only.
    broadcasts: Option<Broadcasts>,
}

impl Floor<'_> {
    fn handle(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (result, flags) = (completion.result(), completion.flags());
        match Op::of(completion.user_data()) {
            (Op::Receive, slot) => self.received(slot, result, flags),
            (Op::Send, slot) => self.sent(slot, result),
            (Op::Accept, _) => self.accepted(result, flags),
            // A slot came free: the accept may have ended for want of one.
            (Op::Close, _) if !self.accepting => self.accept(),
            (Op::Close, _) => Ok(()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        self.accepting = true;
        let entry = opcode::AcceptMulti::new(types::Fd(self.listener)).allocate_file_index(true).build();
        // SAFETY: the operation points to no memory.
        unsafe { self.submissions.push(&entry.user_data(Op::Accept.at(0))) }
    }

    fn accepted(&mut self, result: i32, flags: u32) -> io::Result<()> {
        self.accepting = cqueue::more(flags);
        if let Ok(slot) = u32::try_from(result) {
            let connections = self.connections.len().max(slot as usize + 1);
            self.connections.resize_with(connections, Connection::default);
            self.connections[slot as usize].open = true;
            self.receive(slot)?;
        }
        // Out of slots (ENFILE): the next close arms it again. Anything else concerned one connection that is gone.
        if self.accepting || result == -libc::ENFILE { Ok(()) } else { self.accept() }
    }

    fn receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fixed(slot), ReceiveBuffers::GROUP).build();
        // SAFETY: the memory is that of the registered buffers, which are never freed.
        unsafe { self.submissions.push(&entry.user_data(Op::Receive.at(slot))) }
    }

    fn received(&mut self, slot: u32, result: i32, flags: u32) -> io::Result<()> {
        if let Ok(length @ 1..) = u32::try_from(result) {
            let bytes = self.buffers.take(flags, length);
            if let Some(broadcasts) = &mut self.broadcasts {
                broadcasts.hear(slot, bytes);
                self.broadcast(slot)?;
            } else {
                let connection = &mut self.connections[slot as usize];
                connection.append(bytes, &mut self.chunks);
                if connection.mark_dirty() {
                    self.dirty.push(slot);
                }
            }
        }
        if cqueue::more(flags) {
            return Ok(());
        }
        if result > 0 || result == -libc::ENOBUFS {
            return self.receive(slot);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.forget(slot);
        }
        let connection = &mut self.connections[slot as usize];
        connection.ended = true;
        if result < 0 {
            connection.drop_pending(&mut self.chunks);
        }
        self.close_when_done(slot)
    }

    /// Answers what connection `slot` asked for, if it asked for anything whole.
    fn broadcast(&mut self, slot: u32) -> io::Result<()> {
        let Some(broadcasts) = &mut self.broadcasts else { return Ok(()) };
        while let Some(answer) = broadcasts.next(slot) {
            let receivers = match answer {
                broadcast::Answer::Sender(_) => slot..slot + 1,
                broadcast::Answer::Everyone(_) => 0..self.connections.len() as u32,
            };
            let (broadcast::Answer::Sender(bytes) | broadcast::Answer::Everyone(bytes)) = answer;
            for receiver in receivers {
                let connection = &mut self.connections[receiver as usize];
                if !connection.open || connection.ended {
                    continue;
                }
                if connection.is_quiet() {
                    connection.in_flight = Outgoing::Shared(bytes.clone());
                    send(&mut self.submissions, connection, receiver)?;
                } else {
                    connection.append(&bytes, &mut self.chunks);
                    if connection.mark_dirty() {
                        self.dirty.push(receiver);
                    }
                }
            }
        }
        Ok(())
    }

    fn sent(&mut self, slot: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        match u32::try_from(result) {
            Ok(bytes @ 1..) if connection.advance(bytes) => {
                return send(&mut self.submissions, connection, slot);
            }
            Ok(1..) => connection.release(&mut self.chunks),
            // The peer is gone; the receive will say so too, and closes.
            _ => {
                connection.release(&mut self.chunks);
                connection.drop_pending(&mut self.chunks);
            }
        }
        if connection.has_pending() {
            if connection.mark_dirty() {
                self.dirty.push(slot);
            }
            return Ok(());
        }
        self.close_when_done(slot)
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(slot) = self.dirty.pop() {
            let connection = &mut self.connections[slot as usize];
            connection.dirty = false;
            if connection.start_pending() {
                send(&mut self.submissions, connection, slot)?;
            }
        }
        Ok(())
    }

    /// Closes once the receive has ended and what was to be sent is out.
    fn close_when_done(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if !(connection.open && connection.ended && connection.is_quiet()) {
            return Ok(());
        }
        connection.retire();
        let entry = opcode::Close::new(types::Fixed(slot)).build();
        // SAFETY: the operation points to no memory.
        unsafe { self.submissions.push(&entry.user_data(Op::Close.at(slot))) }
    }
}

/// Sends what is left of the connection's bytes in flight.
fn send(submissions: &mut Submissions<'_>, connection: &Connection, slot: u32) -> io::Result<()> {
    let bytes = connection.unsent();
    let entry = opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build();
    // SAFETY: `in_flight` owns the bytes, is replaced only when this send has completed, and its heap memory stays where
    // it is when the connection moves.
    unsafe { submissions.push(&entry.user_data(Op::Send.at(slot))) }
}
