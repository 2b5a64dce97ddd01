//! The io_uring driver: one ring, one thread, one system call per turn.
//!
//! ```text
//!   engine          Uring                                                    kernel
//!   send     ─────► table: outgoing ── SEND ───────► │ submission queue │ ───►
//!   recv_start ───► table: armed ───── RECV multi ─► │                  │ ───►  buffers (kernel holds them)
//!   poll     ─────► enter: submit, wait, run deferred work ────────────────►
//!            ◄───── Data(range of a buffer), Sent … ◄── │ completion queue │ ◄──
//! ```
//!
//! # Who owns what, and until when
//! - **Receive memory** is the kernel's until a completion names a range of it; that range is the engine's until its `Lent`
//!   is dropped; a buffer is the kernel's again at the first poll after its last range came back.
//! - **Packets of a send** are in the connection's place of the connection table until the send's completion was taken.
//! - **A descriptor** belongs to its place, and to the kernel from the submission of its close.
//! - **A place** is handed out again only when every operation on it has completed, the close of a slot of the ring's own file
//!   table included (a descriptor leaves its place before it is closed); the generation in each operation's name is the
//!   second lock on the same door.
//!
//! # What it deliberately does not use
//! Zero-copy sends (they lose on loopback, and a slow reader pins the memory), registered send buffers (an extra copy), a
//! submission thread (it needs a core of its own), several sends in flight (they overtake each other).

mod accept;
mod buffers;
mod connect;
mod leave;
mod probe;
mod recv;
mod ring;
mod send;
mod table;
#[cfg(test)]
mod tests;
mod waker;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use io_uring::cqueue;
use socket2::SockAddr;

pub use probe::{Features, Refused, RingFlags, probe};

use accept::Door;
use buffers::Buffers;
use connect::Files;
use recv::KeptMemory;
use ring::{Ring, RingSize};
use send::Gathers;
use table::Table;
use waker::Doorbell;

use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverFigures, DriverSettings, Full,
    Incoming, Leaked, ListenError, ListenOptions, Listener, OpKind, Outgoing, Time, Token, Wait, Waker, host,
};

/// Receive buffers where the kernel cannot share one between connections: small, since each completion takes a whole one.
const WHOLE_BUFFER_BYTES: u32 = 16 * 1024;

/// How long a driver that is dropped without [`shutdown`](Driver::shutdown) waits for the kernel.
const DROP_PATIENCE: Duration = Duration::from_millis(100);

/// A driver on io_uring.
///
/// Made, used and dropped on one thread: the kernel refuses others (and the type is not `Send`). Linux 6.0 or later; what
/// newer kernels add is used where [`probe()`] found it to work.
pub struct Uring {
    // The order of the fields is the order of the end: the ring is closed before anything that it may refer to goes (U14).
    ring: Ring,
    buffers: Buffers,
    table: Table,
    gathers: Gathers,
    /// The addresses of connects in flight.
    remotes: BTreeMap<usize, Box<SockAddr>>,
    kept: KeptMemory,
    files: Files,
    doors: Vec<Option<Door>>,
    doorbell: Arc<Doorbell>,
    doorbell_armed: bool,
    /// What is to be told without a completion of the kernel's.
    ready: VecDeque<Ready>,
    /// Completions taken off the queue and not looked at yet: those of one go, and what ended inside a submit. No more than
    /// operations are in flight, and receives have buffers.
    taken: VecDeque<cqueue::Entry>,
    settings: DriverSettings,
    features: Features,
    now: Time,
    ended: bool,
    in_flight: usize,
    accepts_gone: u64,
    accept_stalls: u64,
    no_buffers: u64,
    stale: u64,
}

/// Something to be told by the next poll.
enum Ready {
    /// What was kept during a pause, or an end that no completion brings.
    Kept(Conn),
    /// A listener's last word.
    Unlistened(usize),
}

impl Uring {
    /// Makes a driver on the calling thread, which must be its shard's.
    ///
    /// # Errors
    /// [`Refused`] says why io_uring is not to be had here; [`Readiness`](crate::readiness) works everywhere.
    ///
    /// # Panics
    /// When `settings.connections_max` is more than a connection's index can name.
    pub fn new(settings: &DriverSettings) -> Result<Uring, Refused> {
        Uring::with_features(settings, probe()?)
    }

    /// As [`new`](Uring::new), with no more than these features: how the tests walk the ways of older kernels.
    fn with_features(settings: &DriverSettings, mut features: Features) -> Result<Uring, Refused> {
        let size = RingSize::for_connections(settings.submissions_max, settings.connections_max);
        let (ring, flags) = Ring::open(size, features.ring)?;
        features.ring = flags;
        let (buffers, buffer_bytes) = if features.incremental_buffers {
            (settings.recv_buffers, settings.recv_buffer_bytes)
        } else {
            let bytes = u32::from(settings.recv_buffers).saturating_mul(settings.recv_buffer_bytes);
            let size = settings.recv_buffer_bytes.min(WHOLE_BUFFER_BYTES);
            ((bytes / size.max(1)).min(1 << 15) as u16, size)
        };
        let buffers = Buffers::new(&ring, buffers, buffer_bytes.max(1), features.incremental_buffers)?;
        let files = Files::new(&ring, settings.own_file_table, settings.connections_max);
        let doorbell = Doorbell::new().map_err(|error| Refused::at("making the waker")(&error.into()))?;
        Ok(Uring {
            ring,
            buffers,
            table: Table::new(settings.connections_max),
            gathers: Gathers::default(),
            remotes: BTreeMap::new(),
            kept: KeptMemory::new(),
            files,
            doors: Vec::with_capacity(settings.listeners_max),
            doorbell,
            doorbell_armed: false,
            ready: VecDeque::new(),
            taken: VecDeque::with_capacity(TAKEN_MAX),
            settings: settings.clone(),
            features,
            now: host::now(),
            ended: false,
            in_flight: 0,
            accepts_gone: 0,
            accept_stalls: 0,
            no_buffers: 0,
            stale: 0,
        })
    }

    /// What this driver's ring can do.
    pub fn features(&self) -> Features {
        self.features
    }

    fn arm_doorbell(&mut self) {
        let chain = self.doorbell.entries(DOORBELL_POLL, DOORBELL_TIMEOUT);
        // SAFETY: the entries point to a static only.
        self.doorbell_armed = unsafe { self.ring.push_chain(&chain) }.is_ok();
    }

    fn loans_out(&self) -> usize {
        self.buffers.loans_out() + self.kept.loans_out()
    }

    /// Waits as told, and not at all when there is something to tell.
    fn enter(&mut self, max: usize, wait: Wait) {
        let completed = self.taken.len() + self.ring.completed();
        if completed >= max {
            // More than this turn can tell: no new work is let in before it is told, or the queue would grow.
            self.ring.submit();
        } else if completed > 0 || !self.ready.is_empty() {
            self.ring.run();
        } else {
            let until = match (wait.until, self.next_retry()) {
                (Some(until), Some(retry)) => Some(until.min(retry)),
                (until, retry) => until.or(retry),
            };
            if until.is_some_and(|until| until <= self.now) {
                self.ring.run();
            } else {
                self.sleep(wait.at_least, until);
            }
        }
    }

    fn sleep(&mut self, at_least: u32, until: Option<Time>) {
        let (true, Some(until)) = (at_least > 1, until) else { return self.ring.sleep(1, until) };
        let at_least = at_least.min(self.ring.awaited_max());
        // A wake that is heard before the kernel begins to count would not end the count. So what takes long comes first, and
        // what may still slip through is found at the end of a slice.
        self.ring.run();
        loop {
            let now = host::now();
            if until <= now || self.doorbell.has_rung() || self.ring.completed() >= at_least as usize {
                return;
            }
            self.ring.sleep(at_least, Some(until.min(now + SLICE)));
        }
    }

    /// Takes completions off the queue and tells at most `max`.
    fn reap(&mut self, out: &mut Vec<Completion>, max: usize) {
        let mut room = max;
        while room > 0 {
            let Some(completion) = self.taken.pop_front() else {
                self.ring.take(&mut self.taken, room.min(TAKEN_MAX));
                if self.taken.is_empty() {
                    return;
                }
                continue;
            };
            if let Some(completion) = self.on_completion(&completion) {
                out.push(completion);
                room -= 1;
            }
        }
    }

    /// One completion of the kernel's: at most one of ours.
    fn on_completion(&mut self, completion: &cqueue::Entry) -> Option<Completion> {
        let (result, flags) = (completion.result(), completion.flags());
        let token = Token::from_u64(completion.user_data())?;
        let conn = token.conn;
        match token.kind {
            OpKind::Recv => return self.on_received(conn, result, flags),
            OpKind::Send => return self.on_sent(conn, result),
            OpKind::Accept if conn.generation() == accept::ACCEPT => {
                return self.on_accepted(conn.index(), result, flags);
            }
            OpKind::Accept => self.on_accept_cancelled(conn.index()),
            OpKind::Connect => return self.on_connected(conn, result),
            OpKind::Cancel | OpKind::Shutdown | OpKind::Close | OpKind::Option => {
                self.on_chore(conn, token.kind, result);
            }
            OpKind::Wake => {
                self.doorbell.heard();
                // The next poll arms it again.
                self.doorbell_armed = false;
            }
            // Has done its work by firing.
            OpKind::Timer => {}
        }
        None
    }

    fn tell_ready(&mut self, out: &mut Vec<Completion>, max: usize) -> usize {
        let mut told = 0;
        // What a resume puts behind its bytes is told in the same poll, if there is room.
        while told < max {
            let completion = match self.ready.pop_front() {
                Some(Ready::Kept(conn)) => self.tell_kept(conn),
                Some(Ready::Unlistened(index)) => Some(self.tell_unlistened(index)),
                None => break,
            };
            if let Some(completion) = completion {
                out.push(completion);
                told += 1;
            }
        }
        told
    }
}

/// The longest that a wait for many completions goes without a look at the waker. Longer than a game's tick (16 to 50 ms), so
/// that a tick is one wait: each end of one lets in what came so far, and a wait of 20 ms in two halves receives twice as
/// often. A wake that slips through is at most so late, and in a tick no later than the tick.
const SLICE: Duration = Duration::from_millis(50);

/// As many completions as one enter mostly makes, times four.
const TAKEN_MAX: usize = 128;

/// The names of the waker's two operations.
const DOORBELL_POLL: u64 = OpKind::Wake as u64;
const DOORBELL_TIMEOUT: u64 = OpKind::Timer as u64;

impl Driver for Uring {
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
        Waker::new(self.doorbell.clone())
    }

    fn listen(&mut self, options: &ListenOptions) -> Result<(Listener, SocketAddr), ListenError> {
        self.open_door(options)
    }

    fn accept_pause(&mut self, listener: Listener) {
        self.pause_door(listener);
    }

    fn accept_resume(&mut self, listener: Listener) {
        self.resume_door(listener);
    }

    fn unlisten(&mut self, listener: Listener) {
        self.close_door(listener);
    }

    fn attach(&mut self, incoming: Incoming) -> Result<Conn, AttachError> {
        self.take_in(incoming)
    }

    fn connect(&mut self, options: &ConnectOptions) -> Result<Conn, ConnectError> {
        self.start_connect(options)
    }

    fn recv_start(&mut self, conn: Conn) -> Result<(), Full> {
        self.start_recv(conn)
    }

    fn recv_pause(&mut self, conn: Conn) {
        self.pause_recv(conn);
    }

    fn recv_resume(&mut self, conn: Conn) {
        self.resume_recv(conn);
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing> {
        self.start_send(conn, outgoing)
    }

    fn half_close(&mut self, conn: Conn) {
        self.close_half(conn);
    }

    fn abort(&mut self, conn: Conn) {
        self.start_abort(conn);
    }

    fn retire(&mut self, conn: Conn) {
        self.start_retire(conn);
    }

    fn submit(&mut self) {
        self.ring.submit();
        self.clear_gathers();
        self.release_sent();
    }

    fn poll(&mut self, out: &mut Vec<Completion>, max: usize, wait: Wait) {
        assert!(self.loans_out() == 0, "receive memory that was lent must be back before the next poll");
        self.buffers.take_back();
        self.kept.take_back();
        self.ring.push_deferred();
        if !self.doorbell_armed {
            self.arm_doorbell();
        }
        self.retry_doors(self.now);
        self.enter(max, wait);
        self.now = host::now();
        self.clear_gathers();
        let told = self.tell_ready(out, max);
        self.reap(out, max - told);
    }

    fn figures(&self) -> DriverFigures {
        DriverFigures {
            connections: self.table.len(),
            in_flight: self.in_flight,
            accepts_gone: self.accepts_gone,
            accept_stalls: self.accept_stalls,
            no_buffers: self.no_buffers,
            stale: self.stale,
            overflows: self.ring.overflows(),
            enters: self.ring.enters(),
        }
    }

    fn shutdown(&mut self, patience: Duration) -> Leaked {
        self.end(patience)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // A driver that panicked may have its promises half kept, and one whose memory is still lent may not receive: neither
        // is polled again.
        if !std::thread::panicking() && self.loans_out() == 0 {
            self.end(DROP_PATIENCE);
        }
        if self.in_flight > 0 {
            // Closing a ring is no barrier: what the kernel may still read or write is never freed. Descriptors are no memory, and
            // while one is open its peer waits.
            self.table.close_descriptors();
            self.buffers.leak();
            std::mem::forget(std::mem::replace(&mut self.table, Table::new(0)));
            std::mem::forget(std::mem::take(&mut self.remotes));
            std::mem::forget(std::mem::take(&mut self.gathers));
        }
    }
}
