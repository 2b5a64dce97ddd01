//! One connection: what its operations wait for, and what of them is still to be told.
//!
//! ```text
//!   connect   Settled ── connect ──► Waiting ──writable──► Answered ─┐
//!                                       └──── abort ────► Failed ────┴─ told ─► Settled
//!   send      Idle ── send ──► (tried at once) ──► Ended ── told ──► Idle
//!                                   └─ would block ─► Blocked ──writable──► Unblocked ── tried again
//!   receive   Off ── recv_start ──► On ── Data, Data … ──► end told ──► Over
//!                                    └──── abort ────► Ending ── told ──► Over
//! ```
//!
//! Nothing is ever in the kernel's hands here: a send copies, a receive happens inside `poll`. What makes an operation "in
//! flight" is only that its terminal completion was not told yet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Event;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::SockRef;

use crate::sockets;
use crate::turn::{Memory, Place};
use crate::{Completion, Conn, DriverFigures, NetError, OUTGOING_PIECES_MAX, Outgoing, RecvEnd};

/// A place of the table and the connection in it. One cache line: ten thousand of them are walked in a broadcast.
pub(super) struct Connection {
    /// What of a send has not left, from `send` until `Sent` gives it back.
    outgoing: Outgoing,
    sending: Sending,
    /// How often the place was used before.
    generation: u32,
    /// `None` in a vacant place, and after an abort, which closes at once.
    socket: Option<OwnedFd>,
    opening: Opening,
    receiving: Receiving,
    /// The first error that a send met. The kernel tells each error once: without this a receive behind a failed send would
    /// end as if the peer had left in peace.
    broken: Option<NetError>,
    /// A read may bring something. Kept while nobody receives: an edge is told once.
    readable: bool,
    /// The peer's end or an error was seen at the socket: a short read is not the last one then.
    read_closed: bool,
    paused: bool,
    /// The place stands in the queue of those that are due.
    queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// No connect is in flight.
    Settled,
    Waiting,
    /// The system has an answer.
    Answered,
    Failed(NetError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Idle,
    /// The kernel had no room; an edge will tell.
    Blocked,
    Unblocked,
    /// To be told. A send is below 2^32 bytes: 64 packets of at most 16 MiB.
    Ended(Result<u32, NetError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Off,
    On,
    /// Ended by an abort, to be told.
    Ending(RecvEnd),
    /// It ended for good.
    Over,
}

const _: () = assert!(size_of::<Connection>() <= 64, "a connection is one cache line");

impl Place for Connection {
    fn vacant() -> Connection {
        Connection {
            outgoing: Outgoing::new(),
            sending: Sending::Idle,
            generation: 0,
            socket: None,
            opening: Opening::Settled,
            receiving: Receiving::Off,
            broken: None,
            readable: false,
            read_closed: false,
            paused: false,
            queued: false,
        }
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn is_due(&self) -> bool {
        matches!(self.sending, Sending::Unblocked | Sending::Ended(_))
            || match self.receiving {
                Receiving::On => self.readable && !self.paused,
                Receiving::Ending(_) => true,
                Receiving::Off | Receiving::Over => false,
            }
            || matches!(self.opening, Opening::Answered | Opening::Failed(_))
    }

    fn queued(&mut self) -> &mut bool {
        &mut self.queued
    }

    /// The socket closes, orderly unless it was aborted.
    fn vacate(&mut self) {
        assert!(!self.is_in_flight(), "the retire rule: nothing is in flight when a connection is retired");
        // A queue that still names the place finds nothing due there.
        *self = Connection {
            generation: self.generation.wrapping_add(1),
            queued: self.queued,
            ..Connection::vacant()
        };
    }
}

impl Connection {
    /// Moves a connected socket in.
    pub(super) fn settle(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
    }

    /// Moves a connecting socket in: `begun` is what the system said at once.
    pub(super) fn begin(
        &mut self,
        socket: OwnedFd,
        begun: Result<(), NetError>,
        figures: &mut DriverFigures,
    ) {
        self.socket = Some(socket);
        self.opening = begun.map_or_else(Opening::Failed, |()| Opening::Waiting);
        figures.in_flight += 1;
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.opening != Opening::Settled
            || self.sending != Sending::Idle
            || matches!(self.receiving, Receiving::On | Receiving::Ending(_))
    }

    /// The system's edge.
    pub(super) fn note(&mut self, event: &Event) {
        if event.is_read_closed() || event.is_error() {
            (self.readable, self.read_closed) = (true, true);
        }
        if event.is_readable() {
            self.readable = true;
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            if self.sending == Sending::Blocked {
                self.sending = Sending::Unblocked;
            }
            if self.opening == Opening::Waiting {
                self.opening = Opening::Answered;
            }
        }
    }

    pub(super) fn recv_start(&mut self, figures: &mut DriverFigures) {
        assert_eq!(self.opening, Opening::Settled, "a connection is connected before it receives");
        assert_eq!(self.receiving, Receiving::Off, "one receive at a time, and none after its end");
        self.paused = false;
        self.receiving = match self.socket {
            Some(_) => Receiving::On,
            None => Receiving::Ending(RecvEnd::Error(NetError::Cancelled)),
        };
        figures.in_flight += 1;
    }

    pub(super) fn recv_pause(&mut self) {
        self.paused = true;
    }

    pub(super) fn recv_resume(&mut self) {
        self.paused = false;
    }

    /// Takes `outgoing` and tries at once: mostly the kernel has room, and waiting to be told so would cost a turn.
    pub(super) fn send(&mut self, outgoing: Outgoing, figures: &mut DriverFigures) {
        assert_eq!(self.opening, Opening::Settled, "a connection is connected before it sends");
        assert_eq!(self.sending, Sending::Idle, "one send at a time");
        assert!(!outgoing.is_empty(), "a send carries something");
        self.outgoing = outgoing;
        figures.in_flight += 1;
        self.transmit(figures);
    }

    fn transmit(&mut self, figures: &mut DriverFigures) {
        let Some(socket) = &self.socket else {
            self.sending = Sending::Ended(Err(NetError::Cancelled));
            return;
        };
        figures.enters += 1;
        self.sending = match retry_on_intr(|| send_some(socket.as_fd(), &self.outgoing)) {
            Ok(bytes) => {
                // Released at once: the next that is written to is then still in the cache.
                self.outgoing.advance(bytes);
                Sending::Ended(Ok(bytes as u32))
            }
            Err(Errno::AGAIN) => Sending::Blocked,
            Err(errno) => {
                let error = net_error(errno);
                self.broken = self.broken.or(Some(error));
                Sending::Ended(Err(error))
            }
        };
    }

    pub(super) fn half_close(&mut self) {
        assert_eq!(self.sending, Sending::Idle, "the end of the stream is sent behind what was sent");
        if let Some(socket) = &self.socket {
            // It fails only where the connection is broken already, and then the receive tells.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        }
    }

    /// Resets and closes now: the kernel holds nothing of ours, so only the terminals are left to tell.
    pub(super) fn abort(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        // It fails where nothing is connected; the plain close is abrupt enough there.
        let _ = sockets::reset_on_close(&SockRef::from(&socket));
        drop(socket);
        if matches!(self.opening, Opening::Waiting | Opening::Answered) {
            self.opening = Opening::Failed(NetError::Cancelled);
        }
        if matches!(self.sending, Sending::Blocked | Sending::Unblocked) {
            self.sending = Sending::Ended(Err(NetError::Cancelled));
        }
        if self.receiving == Receiving::On {
            self.receiving = Receiving::Ending(RecvEnd::Error(NetError::Cancelled));
        }
    }

    /// Tries and tells what is due, each direction once, at most until `out` has `limit` entries. Answers whether a read was
    /// cut by its room: the peer is a busy one, and others are to be looked at before its next read.
    pub(super) fn tell(
        &mut self,
        conn: Conn,
        memory: &mut Memory,
        out: &mut Vec<Completion>,
        limit: usize,
        figures: &mut DriverFigures,
    ) -> bool {
        if out.len() < limit {
            self.tell_opening(conn, out, figures);
        }
        if out.len() < limit {
            self.tell_sending(conn, out, figures);
        }
        out.len() < limit && !memory.is_used_up() && self.tell_receiving(conn, memory, out, figures)
    }

    fn tell_opening(&mut self, conn: Conn, out: &mut Vec<Completion>, figures: &mut DriverFigures) {
        let result = match self.opening {
            Opening::Settled | Opening::Waiting => return,
            Opening::Failed(error) => Err(error),
            Opening::Answered => match self.socket.as_ref().map(answer) {
                Some(Some(result)) => result,
                Some(None) => {
                    self.opening = Opening::Waiting;
                    return;
                }
                None => Err(NetError::Cancelled),
            },
        };
        self.opening = Opening::Settled;
        figures.in_flight -= 1;
        out.push(Completion::Connected { conn, result });
    }

    fn tell_sending(&mut self, conn: Conn, out: &mut Vec<Completion>, figures: &mut DriverFigures) {
        if self.sending == Sending::Unblocked {
            self.transmit(figures);
        }
        let Sending::Ended(result) = self.sending else { return };
        self.sending = Sending::Idle;
        figures.in_flight -= 1;
        let outgoing = std::mem::take(&mut self.outgoing);
        out.push(Completion::Sent { conn, outgoing, result: result.map(|bytes| bytes as usize) });
    }

    fn tell_receiving(
        &mut self,
        conn: Conn,
        memory: &mut Memory,
        out: &mut Vec<Completion>,
        figures: &mut DriverFigures,
    ) -> bool {
        let (end, busy) = match self.receiving {
            Receiving::Ending(end) => (Some(end), false),
            Receiving::On if self.readable && !self.paused => self.read(conn, memory, out, figures),
            _ => return false,
        };
        if let Some(end) = end {
            self.receiving = Receiving::Over;
            figures.in_flight -= 1;
            out.push(Completion::RecvEnded { conn, end });
        }
        busy
    }

    /// One read, told if it brought bytes. Answers how the receive ended, if it did, and whether the read was cut short.
    fn read(
        &mut self,
        conn: Conn,
        memory: &mut Memory,
        out: &mut Vec<Completion>,
        figures: &mut DriverFigures,
    ) -> (Option<RecvEnd>, bool) {
        let Some(socket) = &self.socket else { unreachable!("an abort ends the receive") };
        figures.enters += 1;
        let filled = memory.fill(|room| {
            // However the socket was accepted, this never blocks.
            retry_on_intr(|| rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT))
                .map(|(taken, _)| taken)
        });
        match filled {
            Ok(filled) => match filled.bytes {
                Some(bytes) => {
                    // A stream that gave less than there was room for is drained: the next byte makes a new edge.
                    self.readable = filled.to_the_brim || self.read_closed;
                    out.push(Completion::Data { conn, bytes, more: true });
                    (None, filled.to_the_brim)
                }
                None => (Some(self.broken.map_or(RecvEnd::Eof, RecvEnd::Error)), false),
            },
            Err(Errno::AGAIN) => {
                (self.readable, self.read_closed) = (false, false);
                (None, false)
            }
            Err(errno) => (Some(RecvEnd::Error(net_error(errno))), false),
        }
    }
}

/// One system call's worth of `outgoing`.
fn send_some(socket: BorrowedFd<'_>, outgoing: &Outgoing) -> rustix::io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // There the socket itself was told to raise no signal when it was made.
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::DONTWAIT;

    if outgoing.pieces() == 1 {
        return rustix::net::send(socket, outgoing.first(), flags);
    }
    let mut slices = [io::IoSlice::new(&[]); OUTGOING_PIECES_MAX];
    let used = outgoing.io_slices(&mut slices);
    rustix::net::sendmsg(socket, &slices[..used], &mut SendAncillaryBuffer::default(), flags)
}

/// What became of a connect on which the system stirred: `None` when it was a false alarm.
fn answer(socket: &OwnedFd) -> Option<Result<SocketAddr, NetError>> {
    let socket = SockRef::from(socket);
    let outcome = match socket.take_error() {
        Ok(None) => sockets::connected_address(&socket),
        Ok(Some(error)) | Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        outcome => Some(outcome.map_err(|error| NetError::from_io(&error))),
    }
}

fn net_error(errno: Errno) -> NetError {
    NetError::from_io(&errno.into())
}
