//! The completion port driver: Windows.
//!
//! ```text
//!   recv_start ──► WSARecv of zero bytes ─┐
//!   send       ──► WSASend, gathered ─────┤──► the port ──► packets ──► flags of the place ──► queue of due places
//!   listen     ──► AcceptEx × 16 ─────────┘                              poll reads, tells ◄──┘
//! ```
//!
//! # How it works
//! Each shard has one port and is the one thread that takes packets from it. A receive is a wait for bytes that takes none
//! of them; on its packet `poll` reads into the turn's memory, so an idle session pins nothing. A send is one gathering
//! call, in flight until its packet. What a call has done at once tells no packet where the system allows that for certain,
//! and goes to the queue of due places instead.
//!
//! # Who owns what, when
//! - A *packet* under [`send`](Driver::send) is in its connection's place, read by the system, until the packet of its
//!   operation was taken and [`Completion::Sent`] gives it back.
//! - *Receive memory* belongs to the driver and is lent from `poll` to the next `poll`; the system never has any.
//! - An *operation's block* (its `OVERLAPPED`) is a fixed one of its place, the system's from the call until its packet was
//!   taken: not until a cancel, not until the close of the socket, not until that of the port.
//! - A *socket* belongs to its place. [`abort`](Driver::abort) closes it then and there, [`retire`](Driver::retire)
//!   otherwise. One that is accepted belongs to no port until [`attach`](Driver::attach): a handle is attached once.
//!
//! # Sleeping
//! The system's wait counts milliseconds and ends with its timer's tick: 15.6 ms, unless a program asks for better, which
//! each driver does for its life.

mod blocks;
mod connection;
mod doors;
mod handles;
mod port;
mod sends;
mod system;
#[cfg(test)]
mod tests;
mod tick;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockAddr, Socket};

pub use self::handles::open_handles;

use self::blocks::Blocks;
use self::connection::{Connection, Side, Works};
use self::doors::Doors;
use self::port::{Packet, Packets, Port, Source};
use self::sends::Pinned;
use self::system::Extensions;
use self::tick::FineTick;
use crate::incoming::IncomingSocket;
use crate::turn::{self, Bell, Fair, Memory, Place, Table, Turns};
use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverFigures, DriverSettings, Full,
    Incoming, Leaked, ListenError, ListenOptions, Listener, NetError, Outgoing, Time, Wait, Waker, host,
    sockets,
};

/// A [`Driver`] over an I/O completion port. Made, used and dropped on its shard's thread.
pub struct Iocp {
    port: Arc<Port>,
    packets: Packets,
    bell: Arc<Bell<Arc<Port>>>,
    table: Table<Connection>,
    doors: Doors,
    works: Works,
    /// W04: what succeeds at once may go without a packet here.
    may_skip: bool,
    now: Time,
    fair: Fair,
    _tick: FineTick,
}

/// How long a driver that is dropped without [`shutdown`](Driver::shutdown) waits for the system.
const DROP_PATIENCE: Duration = Duration::from_millis(100);

impl Iocp {
    /// A driver for the calling thread. Memory for the settings' limits is reserved now and touched when first used.
    ///
    /// # Errors
    /// What the system says when it has no handle for the port.
    pub fn new(settings: &DriverSettings) -> io::Result<Iocp> {
        Iocp::with_skipping(settings, system::all_providers_are_handles())
    }

    /// As [`new`](Iocp::new), with a packet for everything, also for what a call has done at once: as on a machine with a
    /// layered network provider. The tests walk this way too.
    ///
    /// # Errors
    /// As [`new`](Iocp::new).
    pub fn with_packets_always(settings: &DriverSettings) -> io::Result<Iocp> {
        Iocp::with_skipping(settings, false)
    }

    fn with_skipping(settings: &DriverSettings, may_skip: bool) -> io::Result<Iocp> {
        let port = Port::open()?;
        let connections_max = settings.connections_max.min(Conn::INDEX_MAX as usize + 1);
        Ok(Iocp {
            packets: Packets::new(),
            bell: Arc::new(Bell::new(Arc::clone(&port))),
            port,
            table: Table::new(connections_max),
            doors: Doors::new(settings.listeners_max),
            works: Works {
                blocks: Blocks::new(2 * connections_max),
                pinned: Pinned::new(settings.unbuffered_sends_bytes_max),
                memory: Memory::new(settings.recv_buffers.into(), settings.recv_buffer_bytes as usize),
                figures: DriverFigures::default(),
            },
            may_skip,
            now: host::now(),
            fair: Fair::new(),
            _tick: FineTick::begin(),
        })
    }

    /// One packet: at most one flag of one place.
    fn note(&mut self, packet: &Packet) {
        let is_ours = match packet.source {
            Some(Source::Bell) => true,
            Some(Source::Door(name)) => self.doors.note(name, packet.overlapped, &mut self.works.figures),
            Some(Source::Connection(conn)) => self.note_connection(conn, packet),
            None => false,
        };
        if !is_ours {
            self.works.figures.stale += 1;
        }
    }

    /// The key names the connection, the memory its operation, and both have to be of one place.
    fn note_connection(&mut self, conn: Conn, packet: &Packet) -> bool {
        let Some(block) = self.works.blocks.index_of(packet.overlapped) else { return false };
        let Some(side) = Side::of_block(block, conn) else { return false };
        let Some(connection) =
            self.table.place(conn.index()).filter(|place| place.generation() == conn.generation())
        else {
            return false;
        };
        self.works.figures.in_flight -= 1;
        let status = self.works.blocks.status(block);
        connection.note(side, status, packet.bytes, &mut self.works);
        self.table.queue_if_due(conn.index());
        true
    }

    /// Attaches `socket` to the port under the name of a new place, and moves it in.
    fn take_in(&mut self, socket: Socket) -> Result<Conn, NetError> {
        let conn = self.table.take().ok_or(NetError::TableFull)?;
        let attached = self.port.attach(&socket, Source::Connection(conn)).and_then(|()| {
            // However the socket was made: a read never blocks.
            socket.set_nonblocking(true)
        });
        if let Err(error) = attached {
            self.table.vacate(conn);
            return Err(NetError::from_io(&error));
        }
        let skips = self.may_skip && system::skip_packets_on_success(&socket);
        self.table.at(conn).settle(socket, skips, &self.works);
        Ok(conn)
    }

    /// Closes everything and takes packets until none is owed or `patience` is over.
    fn end(&mut self, patience: Duration) -> Leaked {
        self.doors.close_all();
        self.table.places().for_each(Connection::abort);
        let deadline = host::now() + patience;
        while self.works.figures.in_flight > 0 {
            let left = deadline - host::now();
            if left.is_zero() {
                break;
            }
            self.look(Some(left));
        }
        if self.works.figures.in_flight == 0 {
            self.doors = Doors::new(0);
            self.table.clear();
        }
        Leaked { operations: self.works.figures.in_flight, connections: 0 }
    }
}

impl Turns for Iocp {
    type Signal = Arc<Port>;

    fn fair(&mut self) -> &mut Fair {
        &mut self.fair
    }

    fn memory(&mut self) -> &mut Memory {
        &mut self.works.memory
    }

    fn tell_doors(&mut self, out: &mut Vec<Completion>, limit: usize) {
        self.doors.tell(out, limit, &mut self.works.figures);
    }

    fn are_doors_due(&self) -> bool {
        self.doors.is_due()
    }

    fn connections_due(&self) -> usize {
        self.table.due()
    }

    fn tell_connection(&mut self, out: &mut Vec<Completion>, limit: usize) -> bool {
        let Some((conn, connection)) = self.table.next_due() else { return false };
        let was_cut = connection.tell(conn, out, limit, &mut self.works);
        self.table.queue_if_due(conn.index());
        was_cut
    }

    fn look(&mut self, span: Option<Duration>) {
        self.works.figures.enters += 1;
        self.port.take(&mut self.packets, span);
        for number in 0..self.packets.len() {
            let packet = self.packets.at(number);
            self.note(&packet);
        }
    }

    fn retry_at(&self) -> Option<Time> {
        self.doors.retry_at()
    }

    fn bell(&self) -> &Bell<Arc<Port>> {
        &self.bell
    }
}

impl Driver for Iocp {
    fn now(&self) -> Time {
        self.now
    }

    fn precise_now(&self) -> Time {
        host::now()
    }

    fn wall(&self) -> Duration {
        host::wall()
    }

    fn random(&mut self, bytes: &mut [u8]) {
        host::random(bytes);
    }

    fn waker(&self) -> Waker {
        Waker::new(self.bell.clone())
    }

    fn listen(&mut self, options: &ListenOptions) -> Result<(Listener, SocketAddr), ListenError> {
        let failed = |error| ListenError { address: options.address, error };
        let (listener, name) = self.doors.free().ok_or(failed(NetError::TableFull))?;
        let (socket, address) = sockets::listening(options)?;
        let extensions = self
            .port
            .attach(&socket, Source::Door(name))
            .and_then(|()| Extensions::of(&socket))
            .map_err(|error| failed(NetError::from_io(&error)))?;
        self.doors.open(listener, socket, address, extensions, options.socket.clone());
        Ok((listener, address))
    }

    fn accept_pause(&mut self, listener: Listener) {
        self.doors.pause(listener, true);
    }

    fn accept_resume(&mut self, listener: Listener) {
        self.doors.pause(listener, false);
    }

    fn unlisten(&mut self, listener: Listener) {
        self.doors.close(listener);
    }

    fn attach(&mut self, incoming: Incoming) -> Result<Conn, AttachError> {
        let IncomingSocket::System(socket) = incoming.socket else {
            return Err(AttachError::Failed(NetError::Unsupported));
        };
        self.take_in(socket).map_err(AttachError::Failed)
    }

    fn connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError> {
        let failed = |error: io::Error| ConnectError::Failed(NetError::from_io(&error));
        let socket = sockets::outgoing(options).map_err(failed)?;
        let extensions = Extensions::of(&socket).map_err(failed)?;
        let conn = self.take_in(socket).map_err(ConnectError::Failed)?;
        let remote = SockAddr::from(options.remote);
        self.table.at(conn).connect(conn, &remote, &extensions, &mut self.works);
        self.table.queue_if_due(conn.index());
        Ok(conn)
    }

    fn recv_start(&mut self, conn: Conn) -> Result<(), Full> {
        self.table.at(conn).recv_start(conn, &mut self.works);
        self.table.queue_if_due(conn.index());
        Ok(())
    }

    fn recv_pause(&mut self, conn: Conn) {
        self.table.at(conn).recv_pause();
    }

    fn recv_resume(&mut self, conn: Conn) {
        self.table.at(conn).recv_resume();
        self.table.queue_if_due(conn.index());
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing> {
        self.table.at(conn).send(conn, outgoing, &mut self.works);
        self.table.queue_if_due(conn.index());
        Ok(())
    }

    fn half_close(&mut self, conn: Conn) {
        self.table.at(conn).half_close();
    }

    fn abort(&mut self, conn: Conn) {
        self.table.at(conn).abort();
        self.table.queue_if_due(conn.index());
    }

    fn retire(&mut self, conn: Conn) {
        self.table.vacate(conn);
    }

    fn poll(&mut self, out: &mut Vec<Completion>, max: usize, wait: Wait) {
        turn::poll(self, out, max, wait);
        self.now = host::now();
    }

    fn figures(&self) -> DriverFigures {
        DriverFigures { connections: self.table.len(), ..self.works.figures }
    }

    fn shutdown(&mut self, patience: Duration) -> Leaked {
        self.end(patience)
    }
}

impl Drop for Iocp {
    fn drop(&mut self) {
        // One that panicked may have its promises half kept: it is not polled again.
        if !std::thread::panicking() {
            self.end(DROP_PATIENCE);
        }
        if self.works.figures.in_flight > 0 {
            // Closing a port is no barrier: what the system may still read or write is never freed.
            std::mem::forget(std::mem::replace(&mut self.works.blocks, Blocks::new(0)));
            std::mem::forget(std::mem::replace(&mut self.table, Table::new(0)));
            std::mem::forget(std::mem::replace(&mut self.doors, Doors::new(0)));
        }
    }
}
