//! Listening sockets, each with a pool of posted accepts.
//!
//! ```text
//!   accept   Vacant ── AcceptEx ──► Posted(socket) ── packet ──► Arrived(socket) ── told ──► Vacant
//!              ▲                       └── packet with an error ──┐                             │
//!              └──────────────────────────────────────────────────┴─────────────────────────────┘
//! ```
//!
//! AcceptEx wants the socket before there is a peer, and one call takes one peer. Who comes while all are posted waits for
//! none of them; who comes while all have arrived and wait to be told is in the system's backlog.

use std::collections::VecDeque;
use std::net::SocketAddr;

use socket2::Socket;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::blocks::{Block, Blocks};
use super::system::{self, ADDRESS_BYTES, Begun, Extensions};
use crate::incoming::IncomingSocket;
use crate::turn::Stall;
use crate::{Completion, Conn, DriverFigures, Incoming, Listener, NetError, SocketOptions, Time, sockets};

/// Accepts posted at once, of each listener. Past it peers wait in the system's backlog for the next poll, which posts as
/// many again: 16,000 peers a second at a thousand polls.
pub(super) const ACCEPTS: usize = 16;

pub(super) struct Doors {
    places: Vec<DoorPlace>,
}

struct DoorPlace {
    generation: u32,
    door: Option<Door>,
}

struct Door {
    /// `None` once it is to close.
    socket: Option<Socket>,
    extensions: Extensions,
    address: SocketAddr,
    /// For what it accepts.
    options: SocketOptions,
    accepts: [Accept; ACCEPTS],
    /// Which of them have arrived, first come first served.
    arrived: VecDeque<usize>,
    posted: usize,
    /// The engine's wish. What arrives meanwhile waits untold.
    paused: bool,
    stall: Stall,
    /// The stall that is to be told.
    stalled: Option<NetError>,
    blocks: Blocks<AcceptBlock>,
}

enum Accept {
    Vacant,
    Posted(Socket),
    Arrived(Socket),
}

#[repr(C)]
struct AcceptBlock {
    overlapped: OVERLAPPED,
    addresses: [u8; 2 * ADDRESS_BYTES],
}

// SAFETY: it begins with one, and zero is a value of all that it holds.
unsafe impl Block for AcceptBlock {}

impl Doors {
    pub(super) fn new(listeners_max: usize) -> Doors {
        Doors { places: (0..listeners_max).map(|_| DoorPlace { generation: 0, door: None }).collect() }
    }

    /// A name for one more, and how its packets are to be named; `None` when all are taken.
    pub(super) fn free(&self) -> Option<(Listener, Conn)> {
        let index = self.places.iter().position(|place| place.door.is_none())? as u32;
        Some((Listener(index), Conn::new(index, self.places[index as usize].generation)))
    }

    pub(super) fn open(
        &mut self,
        listener: Listener,
        socket: Socket,
        address: SocketAddr,
        extensions: Extensions,
        options: SocketOptions,
    ) {
        self.places[listener.0 as usize].door = Some(Door {
            socket: Some(socket),
            extensions,
            address,
            options,
            accepts: [const { Accept::Vacant }; ACCEPTS],
            arrived: VecDeque::with_capacity(ACCEPTS),
            posted: 0,
            paused: false,
            stall: Stall::default(),
            stalled: None,
            blocks: Blocks::new(ACCEPTS),
        });
    }

    pub(super) fn pause(&mut self, listener: Listener, paused: bool) {
        self.named(listener).paused = paused;
    }

    pub(super) fn close(&mut self, listener: Listener) {
        self.named(listener).close();
    }

    fn named(&mut self, listener: Listener) -> &mut Door {
        match self.places.get_mut(listener.0 as usize).and_then(|place| place.door.as_mut()) {
            Some(door) if door.socket.is_some() => door,
            _ => panic!("{listener:?} is not open"),
        }
    }

    /// The packet of an accept. Answers whether it is one of these.
    pub(super) fn note(
        &mut self,
        name: Conn,
        overlapped: *mut OVERLAPPED,
        figures: &mut DriverFigures,
    ) -> bool {
        let place = self.places.get_mut(name.index()).filter(|place| place.generation == name.generation());
        let Some(door) = place.and_then(|place| place.door.as_mut()) else { return false };
        let Some(index) = door.blocks.index_of(overlapped) else { return false };
        door.note(index, figures);
        true
    }

    /// Whether [`tell`](Doors::tell) has something to do now.
    pub(super) fn is_due(&self) -> bool {
        self.places.iter().filter_map(|place| place.door.as_ref()).any(Door::is_due)
    }

    /// When the first stall is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let doors = self.places.iter().filter_map(|place| place.door.as_ref());
        doors.filter(|door| door.wants_accepts()).filter_map(|door| door.stall.retry_at()).min()
    }

    /// Tells who has arrived, posts as many accepts again, and tells last words; at most until `out` has `limit` entries.
    pub(super) fn tell(&mut self, out: &mut Vec<Completion>, limit: usize, figures: &mut DriverFigures) {
        for (index, place) in self.places.iter_mut().enumerate() {
            let listener = Listener(index as u32);
            let Some(door) = &mut place.door else { continue };
            if door.socket.is_some() {
                door.tell(listener, out, limit, figures);
            } else if door.posted == 0 && out.len() < limit {
                place.door = None;
                place.generation = place.generation.wrapping_add(1);
                out.push(Completion::Unlistened { listener });
            }
        }
    }

    /// Closes all that are open.
    pub(super) fn close_all(&mut self) {
        self.places.iter_mut().filter_map(|place| place.door.as_mut()).for_each(Door::close);
    }
}

impl Door {
    /// Every posted accept still has its packet; the last one of them lets the door's last word be told. Who has arrived and
    /// was not told is hung up on, like those in the backlog.
    fn close(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        system::cancel(&socket);
        for index in self.arrived.drain(..) {
            self.accepts[index] = Accept::Vacant;
        }
    }

    fn is_due(&self) -> bool {
        match self.socket {
            None => self.posted == 0,
            Some(_) => {
                self.stalled.is_some()
                    || !self.paused && !self.arrived.is_empty()
                    || self.wants_accepts() && !self.stall.is_stalled()
            }
        }
    }

    fn wants_accepts(&self) -> bool {
        self.socket.is_some() && !self.paused && self.posted + self.arrived.len() < ACCEPTS
    }

    fn note(&mut self, index: usize, figures: &mut DriverFigures) {
        let Accept::Posted(socket) = std::mem::replace(&mut self.accepts[index], Accept::Vacant) else {
            panic!("a packet is of a posted accept");
        };
        self.posted -= 1;
        figures.in_flight -= 1;
        if self.socket.is_none() {
            return;
        }
        match system::outcome(self.blocks.status(index)) {
            Ok(()) => {
                self.accepts[index] = Accept::Arrived(socket);
                self.arrived.push_back(index);
            }
            Err(error) => self.note_error(error, figures),
        }
    }

    fn note_error(&mut self, error: NetError, figures: &mut DriverFigures) {
        match error {
            NetError::Interrupted => {}
            // K12, K14: the peer's trouble and not ours; the next one in the backlog is as good as before.
            NetError::Aborted
            | NetError::Reset
            | NetError::NotConnected
            | NetError::TimedOut
            | NetError::HostUnreachable
            | NetError::NetworkUnreachable => figures.accepts_gone += 1,
            // K13, K15, and whatever else the system may think of: no error ends the loop, and none makes it spin.
            error => {
                if self.stall.fall_back() {
                    figures.accept_stalls += 1;
                    self.stalled = Some(error);
                }
            }
        }
    }

    fn tell(
        &mut self,
        listener: Listener,
        out: &mut Vec<Completion>,
        limit: usize,
        figures: &mut DriverFigures,
    ) {
        while !self.paused && out.len() < limit {
            let Some(index) = self.arrived.pop_front() else { break };
            let Accept::Arrived(socket) = std::mem::replace(&mut self.accepts[index], Accept::Vacant) else {
                unreachable!("what has arrived is there");
            };
            match self.greet(index, socket) {
                Ok(incoming) => out.push(Completion::Accepted { listener, incoming }),
                Err(_) => figures.accepts_gone += 1,
            }
        }
        if self.wants_accepts() && self.stall.may_try() {
            self.post(figures);
        }
        if out.len() < limit {
            if let Some(error) = self.stalled.take() {
                out.push(Completion::AcceptStalled { listener, error });
            }
        }
    }

    /// Makes a whole socket of what an accept left. It fails where the peer is gone already.
    fn greet(&self, index: usize, socket: Socket) -> std::io::Result<Incoming> {
        let Some(listener) = &self.socket else { unreachable!("nobody arrives at a closed door") };
        system::finish_accept(&socket, listener)?;
        // What was set before is the listener's now, and under Wine 8 (which accepts a socket of its own) nobody's.
        sockets::apply(&socket, &self.options)?;
        // SAFETY: the accept's packet was taken, so nobody writes there until the next accept is posted.
        let addresses = unsafe { &(*self.blocks.at(index)).addresses };
        let (local, peer) = self.extensions.accept_addresses(addresses)?;
        let (local, peer) = (sockets::address_of(local)?, sockets::address_of(peer)?);
        Ok(Incoming::new(IncomingSocket::System(socket), peer, local))
    }

    /// Posts an accept in each vacant place, until one is refused.
    fn post(&mut self, figures: &mut DriverFigures) {
        let Some(listener) = &self.socket else { return };
        let mut refused = None;
        for (index, accept) in self.accepts.iter_mut().enumerate() {
            if !matches!(accept, Accept::Vacant) {
                continue;
            }
            figures.enters += 1;
            let socket = match socket_for(self.address) {
                Ok(socket) => socket,
                Err(error) => {
                    refused = Some(NetError::from_io(&error));
                    break;
                }
            };
            let overlapped = self.blocks.begin(index);
            // SAFETY: the block is this accept's, which is vacant; it is kept until its packet was taken, like the door. The
            // addresses lie behind the `OVERLAPPED` in it.
            let begun = unsafe {
                let addresses = &raw mut (*self.blocks.at(index)).addresses;
                self.extensions.accept(listener, &socket, addresses, overlapped)
            };
            match begun {
                Begun::Pending | Begun::Done(_) => {
                    *accept = Accept::Posted(socket);
                    self.posted += 1;
                    figures.in_flight += 1;
                }
                // W08: the socket made for it is dropped here, and nowhere else.
                Begun::Failed(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        match refused {
            None => self.stall.end(),
            Some(error) => self.note_error(error, figures),
        }
    }
}

#[cfg(not(test))]
use sockets::accepting as socket_for;

/// K15: Windows has no limit of sockets that a test could set.
#[cfg(test)]
fn socket_for(listening: SocketAddr) -> std::io::Result<Socket> {
    let left = SOCKETS_LEFT.get();
    if left == 0 {
        return Err(std::io::Error::from_raw_os_error(windows_sys::Win32::Networking::WinSock::WSAEMFILE));
    }
    SOCKETS_LEFT.set(left.saturating_sub(1));
    sockets::accepting(listening)
}

#[cfg(test)]
thread_local! {
    /// How many sockets this test's doors may still make.
    pub(super) static SOCKETS_LEFT: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}
