//! The readiness driver: epoll and kqueue behind the completion contract, for systems without io_uring and for those that
//! forbid it.
//!
//! ```text
//!   send ──► tried at once ──► result kept in the place ─┐
//!   edges (epoll, kqueue) ──► flags of the place ────────┴──► queue of due places ──► poll reads, tells
//! ```
//!
//! # How it works
//! A socket is registered once, for both directions and for life, edge by edge: no operation costs a registration. An edge
//! only sets a flag. `poll` walks the queue of places that have something to try or to tell, first come first served, and
//! gives each one read, so that a loud peer waits for the others after every buffer it fills. A read that came back short
//! has drained the socket: the call that would only say so is saved.
//!
//! # Who owns what, when
//! - A *packet* under [`send`](Driver::send) is read by the one system call and held in the connection's place until
//!   [`Completion::Sent`] gives it back. The kernel copies; nothing of ours is ever in its hands.
//! - *Receive memory* belongs to the driver and is lent from `poll` to the next `poll`. The place for bytes is chosen when
//!   they are read, so an idle connection holds none. There is no `NoBuffers` here: when a turn has lent all, what is left
//!   stays with the kernel until the next turn has the memory back.
//! - A *socket* belongs to its place. [`abort`](Driver::abort) closes it then and there (nothing in the kernel waits for
//!   it), [`retire`](Driver::retire) otherwise.
//!
//! # Sleeping
//! The system's wait counts milliseconds, and a deadline is rounded up to the next one. Gathering for a tick
//! ([`Wait::at_least`] above one, with a deadline) sleeps beside the sockets and looks at them each millisecond: a wait
//! that ends at every message would spend the CPU that the tick is to save.

mod connection;
mod listeners;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::SockAddr;

use self::connection::Connection;
use self::listeners::Listeners;
use crate::incoming::IncomingSocket;
use crate::turn::{self, Bell, Fair, Memory, Signal, Table, Turns};
use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverFigures, DriverSettings, Full,
    Incoming, Leaked, ListenError, ListenOptions, Listener, NetError, Outgoing, Time, Wait, Waker, host,
    sockets,
};

/// A [`Driver`] over epoll (Linux) or kqueue (macOS, BSD). Made, used and dropped on its shard's thread.
pub struct Readiness {
    poll: Poll,
    events: Events,
    bell: Arc<Bell<mio::Waker>>,
    table: Table<Connection>,
    listeners: Listeners,
    memory: Memory,
    now: Time,
    figures: DriverFigures,
    fair: Fair,
}

/// Edges taken from the system at once. 12 KiB, and past a thousand the call costs nothing per edge.
const EDGES_PER_LOOK: usize = 1_024;

/// Places come first, then listeners, then the bell.
const FIRST_LISTENER: usize = Conn::INDEX_MAX as usize + 1;
const BELL: Token = Token(usize::MAX);

impl Readiness {
    /// A driver for the calling thread. Memory for the settings' limits is reserved now and touched when first used.
    ///
    /// # Errors
    /// What the system says when it has no descriptor for the selector or the waker: raise the descriptor limit.
    pub fn new(settings: &DriverSettings) -> io::Result<Readiness> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), BELL)?;
        Ok(Readiness {
            poll,
            events: Events::with_capacity(EDGES_PER_LOOK),
            bell: Arc::new(Bell::new(waker)),
            table: Table::new(settings.connections_max),
            listeners: Listeners::new(settings.listeners_max),
            memory: Memory::new(settings.recv_buffers.into(), settings.recv_buffer_bytes as usize),
            now: host::now(),
            figures: DriverFigures::default(),
            fair: Fair::new(),
        })
    }
}

impl Turns for Readiness {
    type Signal = mio::Waker;

    fn fair(&mut self) -> &mut Fair {
        &mut self.fair
    }

    fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn tell_doors(&mut self, out: &mut Vec<Completion>, limit: usize) {
        self.listeners.tell(out, limit, &mut self.figures);
    }

    fn are_doors_due(&self) -> bool {
        self.listeners.is_due()
    }

    fn connections_due(&self) -> usize {
        self.table.due()
    }

    fn tell_connection(&mut self, out: &mut Vec<Completion>, limit: usize) -> bool {
        let Some((conn, connection)) = self.table.next_due() else { return false };
        let was_cut = connection.tell(conn, &mut self.memory, out, limit, &mut self.figures);
        self.table.queue_if_due(conn.index());
        was_cut
    }

    fn look(&mut self, span: Option<Duration>) {
        self.figures.enters += 1;
        match self.poll.poll(&mut self.events, span) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => panic!("the selector of a living driver can be waited on: {error}"),
        }
        for event in &self.events {
            match event.token() {
                BELL => {}
                Token(listener) if listener >= FIRST_LISTENER => {
                    self.listeners.note(listener - FIRST_LISTENER)
                }
                Token(index) => {
                    if let Some(connection) = self.table.place(index) {
                        connection.note(event);
                        self.table.queue_if_due(index);
                    }
                }
            }
        }
    }

    fn retry_at(&self) -> Option<Time> {
        self.listeners.retry_at()
    }

    fn bell(&self) -> &Bell<mio::Waker> {
        &self.bell
    }
}

impl Signal for mio::Waker {
    fn fire(&self) -> io::Result<()> {
        self.wake()
    }
}

/// Registers `socket` for its life under `token`. It needs no taking back: the close of the socket does that.
fn register(registry: &Registry, socket: &impl AsRawFd, token: usize, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(token), interest)
}

impl Driver for Readiness {
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
        let listener = self.listeners.free().ok_or(failed(NetError::TableFull))?;
        let (socket, address) = sockets::listening(options)?;
        let token = FIRST_LISTENER + listener.0 as usize;
        register(self.poll.registry(), &socket, token, Interest::READABLE)
            .map_err(|error| failed(NetError::from_io(&error)))?;
        self.listeners.open(listener, socket, address, &mut self.figures);
        Ok((listener, address))
    }

    fn accept_pause(&mut self, listener: Listener) {
        self.listeners.pause(listener, true);
    }

    fn accept_resume(&mut self, listener: Listener) {
        self.listeners.pause(listener, false);
    }

    fn unlisten(&mut self, listener: Listener) {
        self.listeners.close(listener);
    }

    fn attach(&mut self, incoming: Incoming) -> Result<Conn, AttachError> {
        let IncomingSocket::System(socket) = incoming.socket else {
            return Err(AttachError::Failed(NetError::Unsupported));
        };
        let socket = OwnedFd::from(socket);
        let conn = self.table.take().ok_or(AttachError::Failed(NetError::TableFull))?;
        let registered =
            register(self.poll.registry(), &socket, conn.index(), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = registered {
            self.table.vacate(conn);
            return Err(AttachError::Failed(NetError::from_io(&error)));
        }
        self.table.at(conn).settle(socket);
        Ok(conn)
    }

    fn connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError> {
        let failed = |error| ConnectError::Failed(NetError::from_io(&error));
        let conn = self.table.take().ok_or(ConnectError::Failed(NetError::TableFull))?;
        let begin = || {
            let socket = sockets::outgoing(options)?;
            let begun = match socket.connect(&SockAddr::from(options.remote)) {
                Ok(()) => Ok(()),
                Err(error) if is_under_way(&error) => Ok(()),
                // What the network says is told as a completion, whether it says so at once or later.
                Err(error) => Err(NetError::from_io(&error)),
            };
            // Not before: an unconnected socket has an edge of its own.
            register(self.poll.registry(), &socket, conn.index(), Interest::READABLE | Interest::WRITABLE)?;
            Ok((OwnedFd::from(socket), begun))
        };
        match begin() {
            Ok((socket, begun)) => {
                self.table.at(conn).begin(socket, begun, &mut self.figures);
                self.table.queue_if_due(conn.index());
                Ok(conn)
            }
            Err(error) => {
                self.table.vacate(conn);
                Err(failed(error))
            }
        }
    }

    fn recv_start(&mut self, conn: Conn) -> Result<(), Full> {
        self.table.at(conn).recv_start(&mut self.figures);
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
        self.table.at(conn).send(outgoing, &mut self.figures);
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
        DriverFigures { connections: self.table.len(), ..self.figures }
    }

    fn shutdown(&mut self, _patience: Duration) -> Leaked {
        self.listeners.clear();
        self.table.places().for_each(Connection::abort);
        self.table.clear();
        self.figures.in_flight = 0;
        Leaked::default()
    }
}

/// Whether a connect goes on behind our back; an interrupted one does, too.
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(libc::EINPROGRESS)
}
