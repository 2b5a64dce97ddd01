//! Scripted peers: the other end of a connection, in a test's hands.

use std::fmt;
use std::net::SocketAddr;

use super::World;
use super::ports::PortOwner;
use super::stream::{Owner, StreamId};
use crate::{ListenError, ListenOptions, NetError, SocketOptions};

/// A raw TCP peer without any engine code. Nothing blocks: what has come is read, what has room is written, and time passes
/// only by the world's doing. Dropping it closes it.
pub struct Peer {
    world: World,
    stream: StreamId,
    local: SocketAddr,
    remote: SocketAddr,
}

/// How a [`Peer`] fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// The connect is under way.
    Connecting,
    /// Connected; bytes may come.
    Open,
    /// The other end has sent FIN and everything was read. This end may still write.
    Ended,
    /// Refused, reset or timed out. Bytes that came before may still be read.
    Failed(NetError),
    /// Closed, reset or vanished by this end.
    Closed,
}

impl Peer {
    pub(super) fn connect(world: &World, from: SocketAddr, to: SocketAddr) -> Result<Peer, NetError> {
        let stream = world.with(|machine, _| {
            let stream = machine.connect(Some(from), to, Owner::Peer, &SocketOptions::default())?;
            Ok((stream, machine.stream(stream).map_or(from, |stream| stream.local)))
        });
        stream.map(|(stream, local)| Peer { world: world.clone(), stream, local, remote: to })
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other end's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// How it fares now.
    pub fn state(&self) -> PeerState {
        self.world.with(|machine, _| match machine.stream(self.stream) {
            None => PeerState::Closed,
            Some(stream) => match stream.error {
                Some(error) => PeerState::Failed(error),
                None if stream.is_connecting => PeerState::Connecting,
                None if stream.inbound.is_at_end() && stream.inbound.arrived() == 0 => PeerState::Ended,
                None => PeerState::Open,
            },
        })
    }

    /// Whether it is connected and neither direction is known to have failed.
    pub fn is_open(&self) -> bool {
        matches!(self.state(), PeerState::Open | PeerState::Ended)
    }

    /// Sends what has room and answers how many bytes that were: none while connecting, or when the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.world.with(|machine, _| match machine.stream(self.stream) {
            Some(stream) if !stream.is_connecting => machine.write(self.stream, bytes).unwrap_or(0),
            _ => 0,
        })
    }

    /// Reads what has come, at most what `into` holds, and answers how many bytes that were.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        self.world.with(|machine, _| machine.read(self.stream, into))
    }

    /// Bytes that have come and wait to be read.
    pub fn unread(&self) -> usize {
        self.world.with(|machine, _| machine.stream(self.stream).map_or(0, |stream| stream.inbound.arrived()))
    }

    /// How many bytes may be on their way to this peer or wait unread in it; 0 stops the other end.
    pub fn set_window(&mut self, bytes: usize) {
        self.world.with(|machine, _| {
            if let Some(stream) = machine.stream_mut(self.stream) {
                stream.inbound.set_window(bytes);
            }
            machine.tell_room(self.stream);
        });
    }

    /// Ends this direction (FIN) behind what was written.
    pub fn shutdown_write(&mut self) {
        self.world.with(|machine, _| machine.half_close(self.stream));
    }

    /// Closes as `close(2)` does: with a reset if something was left unread.
    pub fn close(&mut self) {
        self.world.with(|machine, _| machine.close(self.stream));
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        self.world.with(|machine, _| machine.reset(self.stream));
    }

    /// Is gone without a word, as a host that lost its power: the other end is half-open.
    pub fn vanish(&mut self) {
        self.world.with(|machine, _| machine.vanish(self.stream));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({} → {})", self.local, self.remote)
    }
}

/// A raw listener: where an engine's outgoing links arrive. Dropping it closes it, with the connections that wait.
pub struct PeerListener {
    world: World,
    port: u32,
    address: SocketAddr,
}

impl PeerListener {
    pub(super) fn listen(world: &World, options: &ListenOptions) -> Result<PeerListener, ListenError> {
        let (port, address) = world.with(|machine, _| machine.listen(options, PortOwner::Peer))?;
        Ok(PeerListener { world: world.clone(), port, address })
    }

    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection that waits longest, if one does.
    pub fn accept(&mut self) -> Option<Peer> {
        self.world.with(|machine, _| {
            let stream = machine.ports.get_mut(&self.port)?.backlog.pop_front()?;
            machine.set_owner(stream, Owner::Peer);
            let open = machine.stream(stream).expect("nobody closes a stream of a backlog");
            let (local, remote) = (open.local, open.remote);
            Some(Peer { world: self.world.clone(), stream, local, remote })
        })
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.world.with(|machine, _| {
            for stream in machine.unlisten(self.port) {
                machine.reset(stream);
            }
        });
    }
}

impl fmt::Debug for PeerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerListener({})", self.address)
    }
}
