//! The connection table: who lives where, and what of theirs is in the kernel's hands.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::squeue::Flags;
use io_uring::types::Fd;

use crate::{Conn, NetError, Outgoing, RecvEnd};

/// One place: a cache line, since a broadcast touches as many as it has receivers, and again at their completions.
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) generation: u32,
    pub(super) life: Life,
    /// The receive as the engine knows it.
    pub(super) recv: Recv,
    /// A multishot receive of this place is in the kernel's hands.
    pub(super) recv_armed: bool,
    /// Cancels submitted against the armed receive, or since the abort.
    pub(super) cancels: u8,
    /// `outgoing` is in the kernel's hands.
    pub(super) sending: bool,
    pub(super) aborted: bool,
    /// What broke the connection, as one of its operations was told. The kernel tells it once: a receive that comes after a
    /// send sees an end like any other.
    pub(super) broken: Option<NetError>,
    /// Stands in the ready list, to be told what was kept.
    pub(super) resuming: bool,
    /// Operations of the driver's own (cancel, shutdown, option, close) that the kernel still holds.
    pub(super) chores: u16,
    pub(super) socket: Place,
    /// What is being sent; empty unless `sending`.
    pub(super) outgoing: Outgoing,
    /// What came during a pause and has not been told.
    pub(super) kept: Option<Box<Kept>>,
}

const _: () = assert!(size_of::<Entry>() == 64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Free,
    Connecting,
    Open,
    /// Its close is under way.
    Retired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recv {
    /// Not started, or ended in a way that allows a new start.
    Idle,
    On,
    Paused,
    /// The end was told.
    Over,
}

/// Where the socket is.
pub(super) enum Place {
    Nowhere,
    /// A descriptor of the process.
    Process(OwnedFd),
    /// The slot of the ring's own file table that has the connection's index.
    Ring,
}

/// What came during a pause.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// The receive's end, if that came too.
    pub(super) end: Option<RecvEnd>,
}

impl Entry {
    fn new() -> Entry {
        Entry {
            generation: 0,
            life: Life::Free,
            recv: Recv::Idle,
            recv_armed: false,
            cancels: 0,
            sending: false,
            aborted: false,
            broken: None,
            resuming: false,
            chores: 0,
            socket: Place::Nowhere,
            outgoing: Outgoing::new(),
            kept: None,
        }
    }

    /// How a submission names the socket of the connection at `index`.
    pub(super) fn target(&self, index: usize) -> (Fd, Flags) {
        match &self.socket {
            Place::Process(descriptor) => (Fd(descriptor.as_raw_fd()), Flags::empty()),
            Place::Ring => (Fd(index as RawFd), Flags::FIXED_FILE),
            Place::Nowhere => unreachable!("a connection that is named has a socket"),
        }
    }

    /// Notes an error after which the connection is no more.
    pub(super) fn note_broken(&mut self, error: NetError) {
        if matches!(error, NetError::Reset | NetError::Aborted | NetError::TimedOut) {
            self.broken = Some(error);
        }
    }

    /// Whether an operation of the engine's is in flight: retiring has to wait for its terminal completion.
    pub(super) fn is_busy(&self) -> bool {
        self.life == Life::Connecting || self.sending || matches!(self.recv, Recv::On | Recv::Paused)
    }
}

/// All places. Reserved at start, touched when first used.
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Places used before and free again; the last one freed is the warmest.
    free: Vec<u32>,
    connections_max: usize,
    /// Retired, not yet free.
    pub(super) closing: usize,
}

impl Table {
    /// # Panics
    /// When `connections_max` is more than an index can name.
    pub(super) fn new(connections_max: usize) -> Table {
        assert!(
            connections_max <= Conn::INDEX_MAX as usize + 1,
            "a driver has at most {} connections",
            Conn::INDEX_MAX as usize + 1
        );
        Table {
            entries: Vec::with_capacity(connections_max),
            free: Vec::with_capacity(connections_max),
            connections_max,
            closing: 0,
        }
    }

    /// A free place, in the state of a connection that was just opened.
    pub(super) fn claim(&mut self, life: Life) -> Option<Conn> {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None if self.entries.len() < self.connections_max => {
                self.entries.push(Entry::new());
                self.entries.len() - 1
            }
            None => return None,
        };
        let entry = &mut self.entries[index];
        debug_assert_eq!(entry.life, Life::Free);
        entry.life = life;
        Some(Conn::new(index as u32, entry.generation))
    }

    /// Gives a place back: its next user has another generation.
    pub(super) fn release(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        let generation = entry.generation.wrapping_add(1);
        *entry = Entry { generation, ..Entry::new() };
        self.free.push(index as u32);
    }

    /// Places in use.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The place of a connection that the engine named.
    ///
    /// # Panics
    /// When the name is stale: retired, or of another driver.
    pub(super) fn named(&mut self, conn: Conn) -> &mut Entry {
        match self.entries.get_mut(conn.index()) {
            Some(entry)
                if entry.generation == conn.generation()
                    && matches!(entry.life, Life::Open | Life::Connecting) =>
            {
                entry
            }
            _ => panic!("{conn:?} is not a connection of this driver: it was retired, or is another's"),
        }
    }

    /// The place that a completion is meant for; none when it was handed on meanwhile.
    pub(super) fn meant(&mut self, conn: Conn) -> Option<&mut Entry> {
        self.entries
            .get_mut(conn.index())
            .filter(|entry| entry.generation == conn.generation() && entry.life != Life::Free)
    }

    /// Closes what the process has of them. What is in flight stays in flight, and each file with it.
    pub(super) fn close_descriptors(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.socket = Place::Nowhere);
    }

    /// The names of all connections that are not retired.
    pub(super) fn living(&self) -> impl Iterator<Item = Conn> {
        let named = |(index, entry): (usize, &Entry)| {
            matches!(entry.life, Life::Open | Life::Connecting)
                .then(|| Conn::new(index as u32, entry.generation))
        };
        self.entries.iter().enumerate().filter_map(named)
    }
}
