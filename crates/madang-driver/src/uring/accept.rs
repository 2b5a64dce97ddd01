//! Listeners: one multishot accept each, armed again by us whenever the kernel lets go of it.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue};
use socket2::{SockAddr, SockAddrStorage, Socket};

use super::{Ready, Uring};
use crate::incoming::IncomingSocket;
use crate::{
    Completion, Conn, Incoming, ListenError, ListenOptions, Listener, NetError, OpKind, Time, Token, sockets,
};

/// The back-off at the descriptor limit (K13, K15): short enough that nobody at the door gives up, long enough that the
/// shard does not spin.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(64);

/// A listening socket and its accept.
pub(super) struct Door {
    socket: Socket,
    address: SocketAddr,
    /// Where the accept in flight tells who came.
    room: Option<PeerRoom>,
    /// A multishot accept is in the kernel's hands.
    armed: bool,
    /// Cancels of it that are in the kernel's hands.
    cancels: u8,
    paused: bool,
    /// `unlisten` was called: closes when the accept has ended.
    closing: bool,
    /// Set while accepting backs off.
    retry_at: Option<Time>,
    backoff: Duration,
}

impl Door {
    fn wants_accept(&self) -> bool {
        !(self.armed || self.paused || self.closing)
    }
}

impl Uring {
    pub(super) fn open_door(
        &mut self,
        options: &ListenOptions,
    ) -> Result<(Listener, SocketAddr), ListenError> {
        let refused = |error| ListenError { address: options.address, error };
        let index = match self.doors.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.doors.len() < self.settings.listeners_max => {
                self.doors.push(None);
                self.doors.len() - 1
            }
            None => return Err(refused(NetError::TableFull)),
        };
        let (socket, address) = sockets::listening(options)?;
        // The kernel answers EAGAIN on a non-blocking socket where it would otherwise wait for us.
        socket.set_nonblocking(false).map_err(|error| refused(error.into()))?;
        // Without this flag the kernel may accept at any time, also between our looks at its queue and at the room.
        let room = self.features.ring.defer_taskrun.then(PeerRoom::new);
        self.doors[index] = Some(Door {
            socket,
            address,
            room,
            armed: false,
            cancels: 0,
            paused: false,
            closing: false,
            retry_at: None,
            backoff: Duration::ZERO,
        });
        self.arm_door(index);
        Ok((Listener(index as u32), address))
    }

    pub(super) fn pause_door(&mut self, listener: Listener) {
        let index = self.door_index(listener);
        self.door(index).paused = true;
        self.cancel_accept(index);
    }

    pub(super) fn resume_door(&mut self, listener: Listener) {
        let index = self.door_index(listener);
        let door = self.door(index);
        door.paused = false;
        if door.retry_at.is_none() && door.wants_accept() {
            self.arm_door(index);
        }
    }

    pub(super) fn close_door(&mut self, listener: Listener) {
        let index = self.door_index(listener);
        let door = self.door(index);
        door.closing = true;
        door.retry_at = None;
        self.cancel_accept(index);
        self.close_if_quiet(index);
    }

    pub(super) fn close_all_doors(&mut self) {
        for index in 0..self.doors.len() {
            if self.doors[index].as_ref().is_some_and(|door| !door.closing) {
                self.close_door(Listener(index as u32));
            }
        }
    }

    /// Arms the listeners whose back-off is over.
    pub(super) fn retry_doors(&mut self, now: Time) {
        for index in 0..self.doors.len() {
            let due = |door: &Door| door.retry_at.is_some_and(|at| at <= now);
            if self.doors[index].as_ref().is_some_and(due) {
                let door = self.door(index);
                door.retry_at = None;
                if door.wants_accept() {
                    self.arm_door(index);
                }
            }
        }
    }

    /// When the next back-off ends.
    pub(super) fn next_retry(&self) -> Option<Time> {
        self.doors.iter().flatten().filter_map(|door| door.retry_at).min()
    }

    /// `is_last`: nobody was accepted here since.
    pub(super) fn on_accepted(
        &mut self,
        index: usize,
        result: i32,
        flags: u32,
        is_last: bool,
    ) -> Option<Completion> {
        // SAFETY: a result that is not negative is a new descriptor of ours (not direct), told once.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        if !cqueue::more(flags) {
            self.in_flight -= 1;
            self.door(index).armed = false;
        }
        let completion = match accepted {
            Some(socket) => self.welcome(index, Socket::from(socket), is_last),
            None => self.accept_failed(index, result),
        };
        let door = self.door(index);
        if door.retry_at.is_none() && door.wants_accept() {
            self.arm_door(index);
        }
        self.close_if_quiet(index);
        completion
    }

    pub(super) fn on_accept_cancelled(&mut self, index: usize) {
        self.in_flight -= 1;
        let door = self.door(index);
        door.cancels -= 1;
        // The cancel came too early or too late, and the accept lives: ask again.
        if door.armed && (door.paused || door.closing) {
            self.cancel_accept(index);
        }
        self.close_if_quiet(index);
    }

    fn welcome(&mut self, index: usize, socket: Socket, is_last: bool) -> Option<Completion> {
        let door = self.doors[index].as_mut().expect("an accept in flight keeps its listener");
        door.backoff = Duration::ZERO;
        // The kernel told the address of the last one; a call asks for those of the others.
        let told = door.room.as_ref().filter(|_| is_last).map(PeerRoom::address);
        // K11, K12: the peer may be gone. U11: a descriptor that is not a connection of ours fails here too.
        let addresses = told
            .map_or_else(|| socket.peer_addr(), Ok)
            .and_then(sockets::address_of)
            .and_then(|peer| sockets::local_address(&socket, door.address).map(|local| (peer, local)));
        match addresses {
            Ok((peer, local)) => {
                let incoming = Incoming::new(IncomingSocket::System(socket), peer, local);
                Some(Completion::Accepted { listener: Listener(index as u32), incoming })
            }
            Err(_) => {
                self.accepts_gone += 1;
                None
            }
        }
    }

    fn accept_failed(&mut self, index: usize, result: i32) -> Option<Completion> {
        if result == -libc::ECANCELED {
            return None;
        }
        let door = self.doors[index].as_mut().expect("an accept in flight keeps its listener");
        let first = door.backoff.is_zero();
        // K14: a connection that died in the backlog is no reason to wait, but errors in a row are.
        let passing = matches!(
            result.wrapping_neg(),
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::EINTR
                | libc::EAGAIN
                | libc::ETIMEDOUT
        );
        if passing && first {
            self.accepts_gone += 1;
            return None;
        }
        door.backoff = (door.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        door.retry_at = Some(self.now + door.backoff);
        self.accept_stalls += 1;
        let error = NetError::from_result(result);
        first.then_some(Completion::AcceptStalled { listener: Listener(index as u32), error })
    }

    fn arm_door(&mut self, index: usize) {
        let door = self.door(index);
        door.armed = true;
        let submission = accept_multi(Fd(door.socket.as_raw_fd()), door.room.as_ref());
        // SAFETY: the entry points to the door's room at most, and the door stays until the accept's terminal completion.
        unsafe { self.ring.push_or_defer(submission.user_data(door_token(index, ACCEPT))) };
        self.in_flight += 1;
    }

    fn cancel_accept(&mut self, index: usize) {
        let door = self.door(index);
        if door.armed && door.cancels == 0 {
            door.cancels += 1;
            let submission = opcode::AsyncCancel::new(door_token(index, ACCEPT)).build();
            // SAFETY: the entry points to no memory.
            unsafe { self.ring.push_or_defer(submission.user_data(door_token(index, CANCEL))) };
            self.in_flight += 1;
        }
    }

    /// To be called where the last operation may have ended: it ends once.
    fn close_if_quiet(&mut self, index: usize) {
        let quiet = |door: &Door| door.closing && !door.armed && door.cancels == 0;
        if self.doors[index].as_ref().is_some_and(quiet) {
            // The last word is told by the ready list; until then the name is taken.
            self.ready.push_back(Ready::Unlistened(index));
        }
    }

    /// Closes the socket and frees the name.
    pub(super) fn tell_unlistened(&mut self, index: usize) -> Completion {
        self.doors[index] = None;
        Completion::Unlistened { listener: Listener(index as u32) }
    }

    /// # Panics
    /// When the listener is closed, or of another driver.
    fn door_index(&self, listener: Listener) -> usize {
        let index = listener.0 as usize;
        let open = |door: &Door| !door.closing;
        assert!(
            self.doors.get(index).and_then(Option::as_ref).is_some_and(open),
            "{listener:?} is not a listener of this driver: it was closed, or is another's"
        );
        index
    }

    fn door(&mut self, index: usize) -> &mut Door {
        self.doors[index].as_mut().expect("an operation in flight keeps its listener")
    }
}

/// Room for one address, into which the kernel writes that of each peer that it accepts, over the one before.
///
/// So it is the address of the last one. Which completion is his is known where the ring accepts in our own system calls alone
/// (deferred task work): see [`Uring::reap`].
struct PeerRoom(NonNull<Room>);

struct Room {
    address: SockAddrStorage,
    /// In: how much room there is. Out: how much of it the address takes.
    len: libc::socklen_t,
}

impl PeerRoom {
    fn new() -> PeerRoom {
        let room = Room { address: SockAddrStorage::zeroed(), len: ROOM_BYTES };
        PeerRoom(NonNull::from(Box::leak(Box::new(room))))
    }

    /// What the kernel wrote last.
    fn address(&self) -> SockAddr {
        // SAFETY: the memory is ours until `drop`, and the kernel writes to it in this thread's system calls only, so not now.
        // What it writes is an address, with its length; no address is longer than the room.
        unsafe {
            let Room { address, len } = self.0.read();
            SockAddr::new(address, len.min(ROOM_BYTES))
        }
    }
}

impl Drop for PeerRoom {
    fn drop(&mut self) {
        // SAFETY: `new` leaked this box. A door goes when its accept has ended, so the kernel has let go of it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// For the end of a driver whose accepts may not have ended.
pub(super) fn leak_rooms(doors: &mut [Option<Door>]) {
    for door in doors.iter_mut().flatten() {
        std::mem::forget(door.room.take());
    }
}

const ROOM_BYTES: libc::socklen_t = size_of::<SockAddrStorage>() as libc::socklen_t;

/// A multishot accept that tells addresses where there is room for one.
fn accept_multi(listener: Fd, room: Option<&PeerRoom>) -> squeue::Entry {
    let Some(PeerRoom(room)) = room else {
        return opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build();
    };
    let room = room.as_ptr();
    // SAFETY: no reference is made; the places are those of a living `Room`.
    let (address, len) = unsafe { (&raw mut (*room).address, &raw mut (*room).len) };
    let mut entry = opcode::Accept::new(listener, address.cast(), len).flags(libc::SOCK_CLOEXEC).build();
    // `AcceptMulti` has no address and `Accept` is no multishot one: what makes the difference is one bit.
    // SAFETY: an entry is a `struct io_uring_sqe` and nothing else (the crate's type has its layout), in which the third and
    // fourth bytes are `ioprio`, where an accept has its flags.
    unsafe { (&raw mut entry).cast::<u16>().add(1).write(MULTISHOT) };
    entry
}

/// IORING_ACCEPT_MULTISHOT.
const MULTISHOT: u16 = 1;

const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// In a listener's token the generation tells the accept from its cancel: its name is taken until both have ended.
pub(super) const ACCEPT: u32 = 0;
pub(super) const CANCEL: u32 = 1;

fn door_token(index: usize, operation: u32) -> u64 {
    Token { conn: Conn::new(index as u32, operation), kind: OpKind::Accept }.to_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate's own two kinds of accept, and ours that is both.
    #[test]
    fn an_accept_with_room_for_addresses_is_the_multishot_one_but_for_the_room() {
        let bytes = |entry: &squeue::Entry| {
            // SAFETY: an entry is 64 bytes without padding.
            unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() }
        };
        let room = PeerRoom::new();
        let ours = bytes(&accept_multi(Fd(7), Some(&room)));
        let multi = bytes(&accept_multi(Fd(7), None));
        let differ: Vec<usize> = (0..64).filter(|at| ours[*at] != multi[*at]).collect();
        assert!(differ.iter().all(|at| (8..24).contains(at)), "{differ:?}: not the two addresses alone");
        assert_eq!(ours[16..24], (room.0.as_ptr() as u64).to_ne_bytes(), "the address goes to the room");
    }
}
