//! Listeners: one multishot accept each, armed again by us whenever the kernel lets go of it.
//!
//! A multishot accept takes all that wait in the backlog within one system call, some 20 µs each. Whoever pauses accepting
//! has too many callers, and finds the backlog full after each pause: thousands at a time, and no session is heard meanwhile.
//! So for some time after a pause accepts are taken one by one, and a poll brings one.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode};
use socket2::Socket;

use super::{Ready, Uring};
use crate::incoming::IncomingSocket;
use crate::{
    Completion, Conn, Incoming, ListenError, ListenOptions, Listener, NetError, OpKind, Time, Token, sockets,
};

/// The back-off at the descriptor limit (K13, K15): short enough that nobody at the door gives up, long enough that the
/// shard does not spin.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(64);

/// So long after a pause accepts are taken one by one; who keeps a pace pauses again before that.
const ONE_BY_ONE: Duration = Duration::from_secs(1);

/// A listening socket and its accept.
pub(super) struct Door {
    socket: Socket,
    address: SocketAddr,
    /// An accept is in the kernel's hands.
    armed: bool,
    /// Cancels of it that are in the kernel's hands.
    cancels: u8,
    paused: bool,
    /// Until then an accept takes one connection.
    one_by_one_until: Time,
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
        self.doors[index] = Some(Door {
            socket,
            address,
            armed: false,
            cancels: 0,
            paused: false,
            one_by_one_until: Time::ZERO,
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
        let until = self.now + ONE_BY_ONE;
        let door = self.door(index);
        door.paused = false;
        door.one_by_one_until = until;
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

    pub(super) fn on_accepted(&mut self, index: usize, result: i32, flags: u32) -> Option<Completion> {
        // SAFETY: a result that is not negative is a new descriptor of ours (not direct), told once.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        if !cqueue::more(flags) {
            self.in_flight -= 1;
            self.door(index).armed = false;
        }
        let completion = match accepted {
            Some(socket) => self.welcome(index, Socket::from(socket)),
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

    fn welcome(&mut self, index: usize, socket: Socket) -> Option<Completion> {
        let door = self.doors[index].as_mut().expect("an accept in flight keeps its listener");
        door.backoff = Duration::ZERO;
        // K11, K12: the peer may be gone. U11: a descriptor that is not a connection of ours fails here too.
        let addresses = socket
            .peer_addr()
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
        let now = self.now;
        let door = self.door(index);
        door.armed = true;
        let listener = Fd(door.socket.as_raw_fd());
        let submission = if now < door.one_by_one_until {
            opcode::Accept::new(listener, ptr::null_mut(), ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build()
        } else {
            opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build()
        };
        // SAFETY: the entry points to no memory.
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

/// In a listener's token the generation tells the accept from its cancel: its name is taken until both have ended.
pub(super) const ACCEPT: u32 = 0;
pub(super) const CANCEL: u32 = 1;

fn door_token(index: usize, operation: u32) -> u64 {
    Token { conn: Conn::new(index as u32, operation), kind: OpKind::Accept }.to_u64()
}
