//! Listening sockets: accepting in bounded batches, and waiting out a stall.

use std::net::SocketAddr;

use socket2::Socket;

use crate::incoming::IncomingSocket;
use crate::turn::Stall;
use crate::{Completion, DriverFigures, Incoming, Listener, NetError, Time, sockets};

pub(super) struct Listeners {
    slots: Vec<Slot>,
}

enum Slot {
    Free,
    Open(Listening),
    /// Closed; its last word is still to be told.
    Closed,
}

struct Listening {
    socket: Socket,
    address: SocketAddr,
    /// The backlog may hold somebody.
    ready: bool,
    /// The engine's wish.
    paused: bool,
    stall: Stall,
}

/// Accepts of one listener in a row: some milliseconds of later work, after which connections get their turn.
const ACCEPTS_PER_TURN: usize = 64;

impl Listeners {
    pub(super) fn new(listeners_max: usize) -> Listeners {
        Listeners { slots: (0..listeners_max).map(|_| Slot::Free).collect() }
    }

    /// A name for one more, or `None` when all are taken.
    pub(super) fn free(&self) -> Option<Listener> {
        self.slots.iter().position(|slot| matches!(slot, Slot::Free)).map(|slot| Listener(slot as u32))
    }

    pub(super) fn open(
        &mut self,
        listener: Listener,
        socket: Socket,
        address: SocketAddr,
        figures: &mut DriverFigures,
    ) {
        figures.in_flight += 1;
        let listening = Listening { socket, address, ready: false, paused: false, stall: Stall::default() };
        self.slots[listener.0 as usize] = Slot::Open(listening);
    }

    pub(super) fn pause(&mut self, listener: Listener, paused: bool) {
        self.listening(listener).paused = paused;
    }

    /// Closes the socket; the system resets whoever waited in its backlog.
    pub(super) fn close(&mut self, listener: Listener) {
        self.listening(listener);
        self.slots[listener.0 as usize] = Slot::Closed;
    }

    fn listening(&mut self, listener: Listener) -> &mut Listening {
        match self.slots.get_mut(listener.0 as usize) {
            Some(Slot::Open(listening)) => listening,
            _ => panic!("{listener:?} is not open"),
        }
    }

    /// The system's edge.
    pub(super) fn note(&mut self, slot: usize) {
        if let Some(Slot::Open(listening)) = self.slots.get_mut(slot) {
            listening.ready = true;
        }
    }

    /// Whether [`tell`](Listeners::tell) has something to do now; a stall is waited out by [`retry_at`](Listeners::retry_at).
    pub(super) fn is_due(&self) -> bool {
        self.slots.iter().any(|slot| match slot {
            Slot::Free => false,
            Slot::Open(listening) => listening.ready && !listening.paused && !listening.stall.is_stalled(),
            Slot::Closed => true,
        })
    }

    /// When the first stall is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let stall = |slot: &Slot| match slot {
            Slot::Open(listening) if listening.ready && !listening.paused => listening.stall.retry_at(),
            _ => None,
        };
        self.slots.iter().filter_map(stall).min()
    }

    /// Accepts, and tells last words, at most until `out` has `limit` entries.
    pub(super) fn tell(&mut self, out: &mut Vec<Completion>, limit: usize, figures: &mut DriverFigures) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let listener = Listener(index as u32);
            match slot {
                Slot::Open(listening) if listening.ready && !listening.paused => {
                    listening.accept(listener, out, limit, figures);
                }
                Slot::Closed if out.len() < limit => {
                    figures.in_flight -= 1;
                    out.push(Completion::Unlistened { listener });
                    *slot = Slot::Free;
                }
                _ => {}
            }
        }
    }

    /// Closes all without a word.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }
}

impl Listening {
    fn accept(
        &mut self,
        listener: Listener,
        out: &mut Vec<Completion>,
        limit: usize,
        figures: &mut DriverFigures,
    ) {
        if !self.stall.may_try() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if out.len() == limit {
                return;
            }
            figures.enters += 1;
            match self.accept_one().map_err(|error| NetError::from_io(&error)) {
                Ok(incoming) => out.push(Completion::Accepted { listener, incoming }),
                Err(NetError::WouldBlock) => {
                    self.ready = false;
                    self.stall.end();
                    return;
                }
                Err(NetError::Interrupted) => {}
                // K12, K14: the peer's trouble and not ours; the next one in the backlog is as good as before.
                Err(
                    NetError::Aborted
                    | NetError::Reset
                    | NetError::NotConnected
                    | NetError::TimedOut
                    | NetError::HostUnreachable
                    | NetError::NetworkUnreachable,
                ) => figures.accepts_gone += 1,
                // K13, K15, and whatever else the system may think of: no error ends the loop, and none makes it spin.
                Err(error) => {
                    if self.stall.fall_back() {
                        figures.accept_stalls += 1;
                        out.push(Completion::AcceptStalled { listener, error });
                    }
                    return;
                }
            }
        }
        // Not drained, but not stuck either: the next turn goes on.
        self.stall.end();
    }

    fn accept_one(&self) -> std::io::Result<Incoming> {
        let (socket, peer) = sockets::accept(&self.socket)?;
        let gone = |_| std::io::Error::from(std::io::ErrorKind::NotConnected);
        let peer = sockets::address_of(peer).map_err(gone)?;
        let local = sockets::local_address(&socket, self.address).map_err(gone)?;
        Ok(Incoming::new(IncomingSocket::System(socket), peer, local))
    }
}
