//! An accepted socket on its way to the shard that will own it.

use std::fmt;
use std::net::SocketAddr;

use crate::sim::SimSocket;

/// A peer's socket that a listener accepted and no driver owns yet. It may cross threads; [`attach`](crate::Driver::attach)
/// takes it in, dropping it closes it.
pub struct Incoming {
    pub(crate) socket: IncomingSocket,
    peer: SocketAddr,
    local: SocketAddr,
}

pub(crate) enum IncomingSocket {
    /// A socket of this system, non-blocking where the driver needs it so.
    System(socket2::Socket),
    /// A socket of the simulated world.
    Simulated(SimSocket),
}

impl Incoming {
    pub(crate) fn new(socket: IncomingSocket, peer: SocketAddr, local: SocketAddr) -> Incoming {
        Incoming { socket, peer, local }
    }

    /// The peer's address, as the accept told it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Our own address that the peer connected to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({} → {})", self.peer, self.local)
    }
}
