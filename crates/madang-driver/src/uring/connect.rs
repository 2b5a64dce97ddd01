//! Taking sockets in: those that a listener accepted, and our own outgoing ones.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::Fd;
use rustix::process::{Resource, getrlimit};
use socket2::{SockAddr, SockRef};

use super::Uring;
use super::ring::Ring;
use super::table::{Life, Place};
use crate::incoming::IncomingSocket;
use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Incoming, NetError, OpKind, Token, sockets,
};

impl Uring {
    pub(super) fn take_in(&mut self, incoming: Incoming) -> Result<Conn, AttachError> {
        if !matches!(incoming.socket, IncomingSocket::System(_)) {
            return Err(AttachError::Failed(NetError::Unsupported));
        }
        let Some(conn) = self.table.claim(Life::Open) else {
            // Places whose close is under way come free by themselves.
            let soon = self.table.closing > 0;
            return Err(if soon {
                AttachError::Full(incoming)
            } else {
                AttachError::Failed(NetError::TableFull)
            });
        };
        let IncomingSocket::System(socket) = incoming.socket else { unreachable!("looked at just now") };
        match self.files.place(&self.ring, conn.index(), socket.into()) {
            Ok(place) => {
                self.table.named(conn).socket = place;
                Ok(conn)
            }
            Err(error) => {
                self.table.release(conn.index());
                Err(AttachError::Failed(error))
            }
        }
    }

    pub(super) fn start_connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError> {
        let socket = sockets::outgoing(options).map_err(|error| ConnectError::Failed(error.into()))?;
        // The kernel answers EAGAIN on a non-blocking socket where it would otherwise wait for us.
        socket.set_nonblocking(false).map_err(|error| ConnectError::Failed(error.into()))?;
        let Some(conn) = self.table.claim(Life::Connecting) else {
            let soon = self.table.closing > 0;
            return Err(if soon { ConnectError::Full } else { ConnectError::Failed(NetError::TableFull) });
        };
        let remote = Box::new(SockAddr::from(options.remote));
        let submission =
            opcode::Connect::new(Fd(socket.as_raw_fd()), remote.as_ptr().cast(), remote.len()).build();
        let submission = submission.user_data(connect_token(conn));
        // SAFETY: the address is boxed and stays in `remotes` until the completion, or is leaked.
        if unsafe { self.ring.push(&submission) }.is_err() {
            self.table.release(conn.index());
            return Err(ConnectError::Full);
        }
        self.remotes.insert(conn.index(), remote);
        // A descriptor of the process until the connection stands: its own address is asked for then.
        self.table.named(conn).socket = Place::Process(socket.into());
        self.in_flight += 1;
        Ok(conn)
    }

    pub(super) fn on_connected(&mut self, conn: Conn, result: i32) -> Option<Completion> {
        self.in_flight -= 1;
        self.remotes.remove(&conn.index());
        let Some(entry) = self.table.meant(conn) else {
            self.stale += 1;
            return None;
        };
        entry.life = Life::Open;
        let aborted = entry.aborted;
        let result = match result {
            0 => self.settle(conn),
            _ if aborted => Err(NetError::Cancelled),
            error => Err(NetError::from_result(error)),
        };
        Some(Completion::Connected { conn, result })
    }

    /// A connect succeeded: what is our address, and where does the socket live from now on?
    fn settle(&mut self, conn: Conn) -> Result<std::net::SocketAddr, NetError> {
        let entry = self.table.named(conn);
        let Place::Process(socket) = std::mem::replace(&mut entry.socket, Place::Nowhere) else {
            unreachable!("a connecting socket is a descriptor of the process")
        };
        let local = SockRef::from(&socket).local_addr().and_then(sockets::address_of);
        let aborted = entry.aborted;
        // An aborted one keeps its descriptor: it has its linger set, and is about to be closed.
        let place = if aborted {
            Ok(Place::Process(socket))
        } else {
            self.files.place(&self.ring, conn.index(), socket)
        };
        let entry = self.table.named(conn);
        match place {
            Ok(place) => entry.socket = place,
            // Nothing to close is a place like another: retiring frees it.
            Err(error) => return Err(error),
        }
        Ok(local?)
    }
}

fn connect_token(conn: Conn) -> u64 {
    Token { conn, kind: OpKind::Connect }.to_u64()
}

/// Threads of the kernel that serve a ring.
const WORKERS_MAX: u32 = 4;

/// The ring's own file table: sockets in it need no descriptor of the process.
pub(super) struct Files {
    /// Slots that the kernel gave us; places past them keep descriptors.
    slots: usize,
}

impl Files {
    /// The kernel allows a table as long as RLIMIT_NOFILE.
    pub(super) fn new(ring: &Ring, wanted: bool, connections_max: usize) -> Files {
        if !wanted {
            return Files { slots: 0 };
        }
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let slots = connections_max.min(limit);
        // U17: not a reason to fail; the sockets stay where they are.
        if let Err(error) = ring.submitter().register_files_sparse(slots as u32) {
            tracing::warn!(%error, "no file table of the ring's own: sockets use descriptors of the process");
            return Files { slots: 0 };
        }
        if slots < connections_max {
            tracing::warn!(slots, connections_max, "the ring's file table ends at RLIMIT_NOFILE");
        }
        // Half-closes of sockets in the table are done by threads of the kernel, which never block at it: a few are enough.
        let _ = ring.submitter().register_iowq_max_workers(&mut [0, WORKERS_MAX]);
        Files { slots }
    }

    /// Moves a socket into the slot of its connection and closes the descriptor, if there is such a slot.
    fn place(&self, ring: &Ring, index: usize, socket: OwnedFd) -> Result<Place, NetError> {
        if index >= self.slots {
            return Ok(Place::Process(socket));
        }
        let descriptor: BorrowedFd<'_> = socket.as_fd();
        ring.submitter().register_files_update(index as u32, &[descriptor.as_raw_fd()])?;
        Ok(Place::Ring)
    }
}
