//! One connection: what of it the system holds, and what is still to be told.
//!
//! ```text
//!   connect   Settled ── connect ──► Posted ── packet ──► Ended ── told ──► Settled
//!   send      Idle ── send ──► Posted ── packet ──► Ended ── told ──► Idle
//!                        └─ over at once, or never begun ──┘
//!   receive   Off ── recv_start ──► On ── Data, Data … ──► end told ──► Over
//!                                    └──── abort ────► (packet) ──► Ending ── told ──► Over
//!             while On: a wait is posted, or a read may bring something; never both
//! ```

use socket2::{SockAddr, Socket};
use windows_sys::Win32::Foundation::NTSTATUS;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::blocks::Blocks;
use super::sends::{Pinned, SEND_BUFFER_BYTES};
use super::system::{self, Begun, Extensions};
use crate::turn::{Memory, Place};
use crate::{Completion, Conn, DriverFigures, NetError, Outgoing, RecvEnd, sockets};

/// A place of the table and the connection in it.
pub(super) struct Connection {
    /// What a send carries, from `send` until `Sent` gives it back. The system reads it while the send is posted.
    outgoing: Outgoing,
    sending: Sending,
    generation: u32,
    /// `None` in a vacant place, and after an abort, which closes at once.
    socket: Option<Socket>,
    opening: Opening,
    receiving: Receiving,
    /// The wait for bytes is posted.
    waiting: bool,
    /// A read may bring something. Kept while nobody receives.
    readable: bool,
    paused: bool,
    /// The first error that an operation met. The system tells each error once: without this a receive behind a failed send
    /// would end as if the peer had left in peace.
    broken: Option<NetError>,
    /// What succeeds at once queues no packet.
    skips: bool,
    /// The socket has no send buffer.
    unbuffered: bool,
    /// Bytes of the room for sends without a buffer that the posted one takes.
    pinned_bytes: usize,
    queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// No connect is in flight.
    Settled,
    Posted,
    Ended(Result<(), NetError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Idle,
    Posted,
    /// To be told. A send is below 2^32 bytes: 64 packets of at most 16 MiB.
    Ended(Result<u32, NetError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Off,
    On,
    /// Ended by an abort, to be told.
    Ending,
    /// It ended for good.
    Over,
}

/// What all connections of a driver work with.
pub(super) struct Works {
    /// Two for each place: see [`Side`].
    pub(super) blocks: Blocks<OVERLAPPED>,
    pub(super) pinned: Pinned,
    pub(super) memory: Memory,
    pub(super) figures: DriverFigures,
}

/// Which of its place's operations a block is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The receive, or before it the connect.
    In,
    /// The send.
    Out,
}

impl Side {
    fn block(self, conn: Conn) -> usize {
        2 * conn.index() + usize::from(self == Side::Out)
    }

    /// What the block at `index` is of; `None` when that is another place than that of `conn`.
    pub(super) fn of_block(index: usize, conn: Conn) -> Option<Side> {
        [Side::In, Side::Out].into_iter().find(|side| side.block(conn) == index)
    }
}

impl Place for Connection {
    fn vacant() -> Connection {
        Connection {
            outgoing: Outgoing::new(),
            sending: Sending::Idle,
            generation: 0,
            socket: None,
            opening: Opening::Settled,
            receiving: Receiving::Off,
            waiting: false,
            readable: false,
            paused: false,
            broken: None,
            skips: false,
            unbuffered: false,
            pinned_bytes: 0,
            queued: false,
        }
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn is_due(&self) -> bool {
        matches!(self.sending, Sending::Ended(_))
            || match self.receiving {
                Receiving::On => self.readable && !self.paused,
                Receiving::Ending => true,
                Receiving::Off | Receiving::Over => false,
            }
            || matches!(self.opening, Opening::Ended(_))
    }

    fn queued(&mut self) -> &mut bool {
        &mut self.queued
    }

    /// The socket closes, orderly unless it was aborted.
    fn vacate(&mut self) {
        assert!(!self.is_in_flight(), "the retire rule: nothing is in flight when a connection is retired");
        *self = Connection {
            generation: self.generation.wrapping_add(1),
            queued: self.queued,
            ..Connection::vacant()
        };
    }
}

impl Connection {
    /// Moves a connected socket in, which is attached to the port.
    pub(super) fn settle(&mut self, socket: Socket, skips: bool, works: &Works) {
        if works.pinned.is_on() {
            // Where the system does not let it, sends are copied and the bound has nothing to do.
            self.unbuffered = socket.set_send_buffer_size(0).is_ok();
        }
        (self.socket, self.skips) = (Some(socket), skips);
    }

    /// Connects a settled socket, which is bound.
    pub(super) fn connect(
        &mut self,
        conn: Conn,
        remote: &SockAddr,
        extensions: &Extensions,
        works: &mut Works,
    ) {
        let Some(socket) = &self.socket else { unreachable!("it was just settled") };
        works.figures.enters += 1;
        let overlapped = works.blocks.begin(Side::In.block(conn));
        // SAFETY: the block is of this place's incoming side, where nothing else is under way, and is kept until its packet:
        // the place is not vacated before, nor the blocks freed.
        self.opening = match unsafe { extensions.connect(socket, remote, overlapped, self.skips) } {
            Begun::Pending => {
                works.figures.in_flight += 1;
                Opening::Posted
            }
            Begun::Done(_) => Opening::Ended(Ok(())),
            Begun::Failed(error) => Opening::Ended(Err(error)),
        };
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.opening != Opening::Settled
            || self.sending != Sending::Idle
            || self.waiting
            || matches!(self.receiving, Receiving::On | Receiving::Ending)
    }

    pub(super) fn recv_start(&mut self, conn: Conn, works: &mut Works) {
        assert_eq!(self.opening, Opening::Settled, "a connection is connected before it receives");
        assert_eq!(self.receiving, Receiving::Off, "one receive at a time, and none after its end");
        self.paused = false;
        if self.socket.is_none() {
            self.receiving = Receiving::Ending;
            return;
        }
        self.receiving = Receiving::On;
        self.wait(conn, works);
    }

    /// Nothing posted is called off: a wait moves no bytes. What it finds is remembered.
    pub(super) fn recv_pause(&mut self) {
        self.paused = true;
    }

    pub(super) fn recv_resume(&mut self) {
        self.paused = false;
    }

    /// Posts the wait for bytes.
    fn wait(&mut self, conn: Conn, works: &mut Works) {
        let Some(socket) = &self.socket else { unreachable!("an abort ends the receive") };
        debug_assert!(!self.waiting && !self.readable);
        works.figures.enters += 1;
        let overlapped = works.blocks.begin(Side::In.block(conn));
        // SAFETY: as in `connect`.
        match unsafe { system::wait_readable(socket, overlapped, self.skips) } {
            Begun::Pending => {
                self.waiting = true;
                works.figures.in_flight += 1;
            }
            Begun::Done(_) => self.readable = true,
            // The read tells what is left to tell.
            Begun::Failed(error) => self.note_broken(error),
        }
    }

    pub(super) fn send(&mut self, conn: Conn, outgoing: Outgoing, works: &mut Works) {
        assert_eq!(self.opening, Opening::Settled, "a connection is connected before it sends");
        assert_eq!(self.sending, Sending::Idle, "one send at a time");
        assert!(!outgoing.is_empty(), "a send carries something");
        self.outgoing = outgoing;
        if self.socket.is_none() {
            self.sending = Sending::Ended(Err(NetError::Cancelled));
            return;
        }
        if self.unbuffered {
            self.pin(works);
        }
        let Some(socket) = &self.socket else { unreachable!("just seen") };
        works.figures.enters += 1;
        let overlapped = works.blocks.begin(Side::Out.block(conn));
        // SAFETY: as in `connect`. The bytes are those of packets, which nobody writes to; they are in `self.outgoing` until
        // the packet was taken.
        match unsafe { system::send(socket, &self.outgoing, overlapped, self.skips) } {
            Begun::Pending => {
                self.sending = Sending::Posted;
                works.figures.in_flight += 1;
            }
            Begun::Done(bytes) => self.end_send(Ok(bytes), works),
            Begun::Failed(error) => self.end_send(Err(error), works),
        }
    }

    /// Takes room for sending from the packets themselves, or gives the socket its send buffer back.
    fn pin(&mut self, works: &mut Works) {
        let bytes = self.outgoing.len();
        if works.pinned.take(bytes) {
            self.pinned_bytes = bytes;
        } else if let Some(socket) = &self.socket {
            // Where even that is refused, a send may meet WSAENOBUFS: the end of this connection, and of no other.
            let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
            self.unbuffered = false;
        }
    }

    fn end_send(&mut self, result: Result<u32, NetError>, works: &mut Works) {
        works.pinned.give_back(std::mem::take(&mut self.pinned_bytes));
        match result {
            // No packet is owed any more: what left is released before it is told.
            Ok(bytes) => self.outgoing.advance(bytes as usize),
            Err(error) => self.broken = self.broken.or(Some(error)),
        }
        self.sending = Sending::Ended(result);
    }

    pub(super) fn half_close(&mut self) {
        assert_eq!(self.sending, Sending::Idle, "the end of the stream is sent behind what was sent");
        if let Some(socket) = &self.socket {
            // It fails only where the connection is broken already, and then the receive tells.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Calls everything off, resets and closes now. What was posted has its packets all the same (W01, W02): until then its
    /// memory stays where it is. Nothing that succeeds after this is lost: the engine asked for the end.
    pub(super) fn abort(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        // It fails where nothing is connected; the plain close is abrupt enough there.
        let _ = sockets::reset_on_close(&socket);
        if self.waiting || self.sending == Sending::Posted || self.opening == Opening::Posted {
            system::cancel(&socket);
        }
        drop(socket);
        if self.receiving == Receiving::On && !self.waiting {
            self.receiving = Receiving::Ending;
        }
    }

    /// The packet of one of its operations.
    pub(super) fn note(&mut self, side: Side, status: NTSTATUS, bytes: u32, works: &mut Works) {
        let mut outcome = system::outcome(status);
        if self.socket.is_none() {
            // The many names that the system has for it.
            outcome = outcome.map_err(|_| NetError::Cancelled);
        }
        match side {
            Side::Out => {
                assert_eq!(self.sending, Sending::Posted, "a packet is of a posted operation");
                self.end_send(outcome.map(|()| bytes), works);
            }
            Side::In if self.opening == Opening::Posted => self.opening = Opening::Ended(outcome),
            Side::In => {
                assert!(self.waiting, "a packet is of a posted operation");
                self.waiting = false;
                match outcome {
                    _ if self.socket.is_none() => self.receiving = Receiving::Ending,
                    Ok(()) => self.readable = true,
                    Err(error) => self.note_broken(error),
                }
            }
        }
    }

    /// The wait ended badly: what came before is read first, and the read tells the end.
    fn note_broken(&mut self, error: NetError) {
        self.broken = self.broken.or(Some(error));
        self.readable = true;
    }

    /// Tries and tells what is due, each direction once, at most until `out` has `limit` entries. Answers whether a read was
    /// cut by its room: the peer is a busy one, and others are to be looked at before its next read.
    pub(super) fn tell(
        &mut self,
        conn: Conn,
        out: &mut Vec<Completion>,
        limit: usize,
        works: &mut Works,
    ) -> bool {
        if out.len() < limit {
            self.tell_opening(conn, out);
        }
        if out.len() < limit {
            self.tell_sending(conn, out);
        }
        out.len() < limit && !works.memory.is_used_up() && self.tell_receiving(conn, out, works)
    }

    fn tell_opening(&mut self, conn: Conn, out: &mut Vec<Completion>) {
        let Opening::Ended(result) = self.opening else { return };
        self.opening = Opening::Settled;
        let socket = self.socket.as_ref().ok_or(NetError::Cancelled);
        let result = result.and(socket).and_then(|socket| {
            system::finish_connect(socket)?;
            Ok(sockets::connected_address(socket)?)
        });
        out.push(Completion::Connected { conn, result });
    }

    fn tell_sending(&mut self, conn: Conn, out: &mut Vec<Completion>) {
        let Sending::Ended(result) = self.sending else { return };
        self.sending = Sending::Idle;
        let outgoing = std::mem::take(&mut self.outgoing);
        out.push(Completion::Sent { conn, outgoing, result: result.map(|bytes| bytes as usize) });
    }

    fn tell_receiving(&mut self, conn: Conn, out: &mut Vec<Completion>, works: &mut Works) -> bool {
        let (end, busy) = match self.receiving {
            Receiving::Ending => (Some(RecvEnd::Error(NetError::Cancelled)), false),
            Receiving::On if self.readable && !self.paused => self.read(conn, out, works),
            _ => return false,
        };
        if let Some(end) = end {
            self.receiving = Receiving::Over;
            out.push(Completion::RecvEnded { conn, end });
        }
        busy
    }

    /// One read, told if it brought bytes. Answers how the receive ended, if it did, and whether the read was cut short.
    fn read(&mut self, conn: Conn, out: &mut Vec<Completion>, works: &mut Works) -> (Option<RecvEnd>, bool) {
        let Some(socket) = &self.socket else { unreachable!("an abort ends the receive") };
        works.figures.enters += 1;
        match works.memory.fill(|room| system::read(socket, room)) {
            Ok(filled) => match filled.bytes {
                Some(bytes) => {
                    out.push(Completion::Data { conn, bytes, more: true });
                    // A stream that gave less than there was room for is drained.
                    self.readable = filled.to_the_brim || self.broken.is_some();
                    if !self.readable {
                        self.wait(conn, works);
                    }
                    (None, filled.to_the_brim)
                }
                None => (Some(self.broken.map_or(RecvEnd::Eof, RecvEnd::Error)), false),
            },
            Err(NetError::WouldBlock) => match self.broken {
                Some(error) => (Some(RecvEnd::Error(error)), false),
                None => {
                    self.readable = false;
                    self.wait(conn, works);
                    (None, false)
                }
            },
            Err(error) => (Some(RecvEnd::Error(error)), false),
        }
    }
}
