//! The simulated machine: its clock, what is due when, and the notices it owes its shards.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as MemoryOrder};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use super::faults::{Dice, FaultKind, Faults};
use super::ports::Port;
use super::stream::{Stream, StreamId};
use super::trace::{Event, Trace};
use crate::{Conn, NetError, Time};

/// Everything in a world but its drivers. Streams and ports are `impl`s of their own files.
pub(super) struct Machine {
    now: Time,
    /// The same, for threads without a driver.
    clock: Arc<AtomicU64>,
    agenda: BinaryHeap<Reverse<Appointment>>,
    appointments_made: u64,
    pub(super) dice: Dice,
    pub(super) trace: Trace,
    pub(super) streams: Vec<Option<Stream>>,
    pub(super) streams_free: Vec<u32>,
    pub(super) stream_serial: u32,
    pub(super) ports: BTreeMap<u32, Port>,
    pub(super) port_serial: u32,
    pub(super) ephemeral_next: u16,
    /// Descriptors that drivers hold: listeners, accepted and attached sockets.
    pub(super) descriptors: usize,
    pub(super) descriptors_max: usize,
    /// Sockets whose `Incoming` was dropped, on whatever thread.
    pub(super) dropped: Arc<SegQueue<StreamId>>,
    /// What each shard has yet to look at.
    notices: Vec<Vec<Notice>>,
    wall_offset_seconds: i64,
}

/// Something that a shard should look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// A connection's socket: bytes, an end, an error, room to write, or the word on its connect.
    Conn(Conn),
    /// A listener's backlog, by the listener's index.
    Listener(u32),
}

/// What happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The next segment towards this stream is here.
    Segment(StreamId),
    /// A reset reaches this stream.
    Reset(StreamId),
    /// There is room again for what this stream sends.
    Room(StreamId),
    /// This stream's wish to connect reaches the other side.
    Knock { from: StreamId, to: SocketAddr, tries: u8 },
    /// The answer to a knock.
    Answer { to: StreamId, error: Option<NetError> },
    /// Whether the reader took in anything since `read_total` said so.
    Patience { writer: StreamId, read_total: u64 },
    /// The system gives up on this stream.
    GiveUp(StreamId),
}

struct Appointment {
    at: Time,
    number: u64,
    due: Due,
}

impl Machine {
    pub(super) fn new(seed: u64, faults: Faults) -> Machine {
        // Not zero: a deadline of zero has come already, also at the world's beginning.
        let now = Time::from_nanos(1_000_000_000);
        Machine {
            now,
            clock: Arc::new(AtomicU64::new(now.as_nanos())),
            agenda: BinaryHeap::new(),
            appointments_made: 0,
            dice: Dice::new(seed, faults),
            trace: Trace::new(seed),
            streams: Vec::new(),
            streams_free: Vec::new(),
            stream_serial: 0,
            ports: BTreeMap::new(),
            port_serial: 0,
            ephemeral_next: 49_152,
            descriptors: 0,
            descriptors_max: usize::MAX,
            dropped: Arc::new(SegQueue::new()),
            notices: Vec::new(),
            wall_offset_seconds: 0,
        }
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// 2026-01-01 and what has passed since, with the jumps that people and time servers make.
    pub(super) fn wall(&self) -> Duration {
        let seconds = 1_767_225_600_i64.saturating_add(self.wall_offset_seconds);
        Duration::from_secs(seconds.max(0) as u64) + self.now.since(Time::ZERO)
    }

    pub(super) fn maybe_jump_wall_clock(&mut self) {
        if self.dice.fires(FaultKind::WallClockJump) {
            self.wall_offset_seconds += self.dice.random.between(0, 7_200) as i64 - 3_600;
        }
    }

    /// Something happened, as the trace has it.
    pub(super) fn note(&mut self, event: Event, what: u64, more: u64) {
        self.trace.note(self.now, event, what, more);
    }

    /// Lets `due` happen after `span`.
    pub(super) fn after(&mut self, span: Duration, due: Due) {
        self.at(self.now + span, due);
    }

    pub(super) fn at(&mut self, at: Time, due: Due) {
        self.appointments_made += 1;
        self.agenda.push(Reverse(Appointment { at, number: self.appointments_made, due }));
    }

    pub(super) fn next_appointment(&self) -> Option<Time> {
        self.agenda.peek().map(|Reverse(appointment)| appointment.at)
    }

    /// Moves the clock, and lets all that is due on the way happen at its own moment.
    pub(super) fn advance(&mut self, to: Time) {
        self.note(Event::Advance, to.as_nanos(), 0);
        loop {
            self.close_dropped();
            match self.agenda.peek() {
                Some(Reverse(next)) if next.at <= to => {
                    let Reverse(next) = self.agenda.pop().expect("it was just seen");
                    self.now = self.now.max(next.at);
                    self.happen(next.due);
                }
                _ => break,
            }
        }
        self.now = self.now.max(to);
        // Relaxed: a world has one thread.
        self.clock.store(self.now.as_nanos(), MemoryOrder::Relaxed);
    }

    pub(super) fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.clock)
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Segment(stream) => self.segment_arrives(stream),
            Due::Reset(stream) => self.reset_arrives(stream),
            Due::Room(stream) => self.notify(stream),
            Due::Knock { from, to, tries } => self.knock_arrives(from, to, tries),
            Due::Answer { to, error } => self.answer_arrives(to, error),
            Due::Patience { writer, read_total } => self.patience_ends(writer, read_total),
            Due::GiveUp(stream) => self.fail(stream, NetError::TimedOut),
        }
    }

    pub(super) fn close_dropped(&mut self) {
        while let Some(stream) = self.dropped.pop() {
            self.close(stream);
        }
    }

    pub(super) fn add_shard(&mut self) {
        self.notices.push(Vec::new());
    }

    pub(super) fn owe(&mut self, shard: usize, notice: Notice) {
        self.notices[shard].push(notice);
    }

    /// Hands a shard its notices, and takes the empty list of last time for the next ones.
    pub(super) fn swap_notices(&mut self, shard: usize, list: &mut Vec<Notice>) {
        std::mem::swap(&mut self.notices[shard], list);
    }
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Appointment) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Appointment {}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Appointment) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Appointment {
    /// By time; of one moment, the one made first.
    fn cmp(&self, other: &Appointment) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
