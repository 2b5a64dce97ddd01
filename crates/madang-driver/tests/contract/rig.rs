//! What a case needs from a system: drivers of it, raw peers in it, and time that passes in it.

use std::net::SocketAddr;

use madang_driver::{Driver, DriverSettings};

/// One system under test. A case gets a fresh one and asks it for as many drivers and peers as it wants.
pub trait Rig {
    type Driver: Driver;
    type Peer: RawPeer;
    type PeerListener: RawListener<Peer = Self::Peer>;

    fn driver(&self, settings: &DriverSettings) -> Self::Driver;

    /// Starts to connect to a listening driver, from a loopback address of this number.
    fn peer_from(&self, host: u8, to: SocketAddr) -> Self::Peer;

    fn peer(&self, to: SocketAddr) -> Self::Peer {
        self.peer_from(1, to)
    }

    /// Whether nobody answers there.
    fn refuses(&self, to: SocketAddr) -> bool;

    fn peer_listener(&self) -> Self::PeerListener;

    /// Lets the system have only so many descriptors more than are open now; `None`: as many as ever.
    fn limit_descriptors(&self, more: Option<usize>);

    /// Called after each poll: lets time pass where it does not pass by itself. `idle`: the poll told nothing.
    fn pass(&self, idle: bool);

    /// Whether every fault that the contract permits is on: figures and moments are then not what they are on a good day.
    fn is_unruly(&self) -> bool {
        false
    }

    /// Whether a reset is heard as one at the other end, and not only as an end.
    fn tells_resets(&self) -> bool {
        true
    }

    /// Asserts that nothing is left of the drivers, which are gone.
    fn check_balance(&self) {}
}

/// The other end, without any engine code. Nothing here blocks.
pub trait RawPeer {
    fn local(&self) -> SocketAddr;

    fn is_connected(&self) -> bool;

    /// Sends what has room; answers how much.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Appends what has come to `into`.
    fn read(&mut self, into: &mut Vec<u8>) -> Heard;

    fn shutdown_write(&mut self);

    fn reset(self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Bytes,
    Nothing,
    Eof,
    /// Reset, or broken in another way.
    Broken,
}

/// A raw listener for a driver's outgoing connections.
pub trait RawListener {
    type Peer: RawPeer;

    fn address(&self) -> SocketAddr;
    fn accept(&mut self) -> Option<Self::Peer>;
}
