//! Simulated TCP connections, as the system sees them: each end is a [`Stream`].
//!
//! An end that was closed is gone at once; what it had sent lives on in the other end's pipe. What is sent to an end that
//! is gone comes back as a reset, as on a real machine.

use std::net::SocketAddr;
use std::time::Duration;

use super::faults::FaultKind;
use super::machine::{Due, Machine, Notice};
use super::pipe::Pipe;
use super::trace::Event;
use crate::{Conn, NetError, SocketOptions};

/// Names one end of a connection, for ever: serials are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId {
    index: u32,
    serial: u32,
}

/// Who has an end in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A listener's backlog.
    Backlog,
    /// An `Incoming` that nobody has attached yet.
    Incoming,
    /// A connection of a driver.
    Shard { shard: usize, conn: Conn },
    /// A scripted peer.
    Peer,
}

impl Owner {
    fn holds_descriptor(self) -> bool {
        matches!(self, Owner::Incoming | Owner::Shard { .. })
    }
}

/// What is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// Not connected yet.
    Nobody,
    /// That end, or its place when it is gone.
    Stream(StreamId),
    /// Silence: nothing comes back, no reset either. So many bytes were sent into it.
    Void { swallowed: usize },
}

pub(super) struct Stream {
    serial: u32,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) owner: Owner,
    pub(super) inbound: Pipe,
    other: Other,
    fin_sent: bool,
    /// What broke it; for good.
    pub(super) error: Option<NetError>,
    /// Whether a send was told of it, as the only one: the receive then just ends.
    pub(super) is_error_told: bool,
    /// Whether the answer to our connect is still out.
    pub(super) is_connecting: bool,
    user_timeout: Option<Duration>,
    keepalive: Option<Duration>,
    is_patience_running: bool,
}

impl Machine {
    pub(super) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(id.index as usize)?.as_ref().filter(|stream| stream.serial == id.serial)
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id.index as usize)?.as_mut().filter(|stream| stream.serial == id.serial)
    }

    /// A socket that is connected to nobody yet.
    pub(super) fn open(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        owner: Owner,
        options: &SocketOptions,
    ) -> StreamId {
        self.stream_serial += 1;
        let tiny = self.dice.fires(FaultKind::TinyWindow);
        let window =
            if tiny { self.dice.random.between(1, 16) as usize } else { self.dice.faults.window_bytes };
        let stream = Stream {
            serial: self.stream_serial,
            local,
            remote,
            owner,
            inbound: Pipe::new(window),
            other: Other::Nobody,
            fin_sent: false,
            error: None,
            is_error_told: false,
            is_connecting: false,
            user_timeout: options.user_timeout,
            keepalive: options.keepalive,
            is_patience_running: false,
        };
        self.descriptors += usize::from(owner.holds_descriptor());
        let index = self.streams_free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() as u32 - 1
        });
        self.streams[index as usize] = Some(stream);
        StreamId { index, serial: self.stream_serial }
    }

    pub(super) fn widen_windows(&mut self, bytes: usize) {
        for index in 0..self.streams.len() {
            let Some(stream) = self.streams[index].as_mut() else { continue };
            if stream.inbound.widen(bytes) {
                let id = StreamId { index: index as u32, serial: stream.serial };
                self.tell_room(id);
            }
        }
    }

    pub(super) fn link(&mut self, one: StreamId, another: StreamId) {
        for (end, other) in [(one, another), (another, one)] {
            self.stream_mut(end).expect("both ends are open").other = Other::Stream(other);
        }
    }

    pub(super) fn set_owner(&mut self, id: StreamId, owner: Owner) {
        let stream = self.stream_mut(id).expect("an owner is told of an open stream");
        let before = std::mem::replace(&mut stream.owner, owner);
        self.descriptors += usize::from(owner.holds_descriptor());
        self.descriptors -= usize::from(before.holds_descriptor());
    }

    /// Tells whoever has this end that something about it has changed. Scripted peers look by themselves.
    pub(super) fn notify(&mut self, id: StreamId) {
        if let Some(Stream { owner: Owner::Shard { shard, conn }, .. }) = self.stream(id) {
            let (shard, conn) = (*shard, *conn);
            self.owe(shard, Notice::Conn(conn));
        }
    }

    /// Sends bytes; answers how many found room (0: be told of room later).
    pub(super) fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, NetError> {
        let Some(stream) = self.stream(id) else { return Err(NetError::NotConnected) };
        if stream.error.is_some() || stream.fin_sent {
            return Err(NetError::BrokenPipe);
        }
        let window = stream.inbound.room() + stream.inbound.arrived();
        let written = match stream.other {
            Other::Nobody => return Err(NetError::NotConnected),
            Other::Void { swallowed } => {
                let count = bytes.len().min(window.saturating_sub(swallowed));
                self.stream_mut(id).expect("it was here").other =
                    Other::Void { swallowed: swallowed + count };
                count
            }
            Other::Stream(other) => match self.stream_mut(other) {
                Some(target) => {
                    let count = bytes.len().min(target.inbound.room());
                    target.inbound.writer_waits = count < bytes.len();
                    self.send_segments(other, &bytes[..count]);
                    count
                }
                None => {
                    let latency = self.dice.latency();
                    self.after(latency, Due::Reset(id));
                    bytes.len()
                }
            },
        };
        self.start_patience(id);
        Ok(written)
    }

    /// Whether a send that finds this stream reset is the one to be told so.
    pub(super) fn tells_reset_to_send(&mut self, id: StreamId) -> bool {
        let is_untold = self
            .stream(id)
            .is_some_and(|stream| stream.error == Some(NetError::Reset) && !stream.is_error_told);
        let is_told = is_untold && self.dice.fires(FaultKind::ResetToldToSend);
        if let (true, Some(stream)) = (is_told, self.stream_mut(id)) {
            stream.is_error_told = true;
        }
        is_told
    }

    fn send_segments(&mut self, to: StreamId, written: &[u8]) {
        let mut touched = Vec::new();
        let mut bytes = written;
        if !bytes.is_empty() && self.dice.tampers(FaultKind::BitFlipped) {
            touched.extend_from_slice(bytes);
            touched[self.dice.random.index(bytes.len())] ^= 1 << self.dice.random.below(8);
            bytes = &touched;
        } else if self.dice.tampers(FaultKind::SegmentReplayed) {
            touched.extend_from_slice(bytes);
            touched.extend_from_slice(bytes);
            bytes = &touched;
        } else if self.dice.tampers(FaultKind::CutOff) {
            return self.cut_off(to);
        }
        while !bytes.is_empty() {
            let splits = bytes.len() > 1 && self.dice.fires(FaultKind::SegmentSplit);
            let len = if splits { self.dice.cut(bytes.len()) } else { bytes.len() };
            let (segment, rest) = bytes.split_at(len);
            bytes = rest;
            let in_flight = self.stream(to).is_some_and(|stream| stream.inbound.is_in_flight());
            if in_flight && self.dice.fires(FaultKind::SegmentsCoalesced) {
                self.stream_mut(to).expect("it was here").inbound.ride(segment, false);
            } else {
                self.send_segment(to, segment, false);
            }
        }
    }

    /// Both ends see the other's FIN, and hear nothing more of it.
    fn cut_off(&mut self, id: StreamId) {
        let other = match self.stream(id) {
            Some(Stream { other: Other::Stream(other), .. }) => Some(*other),
            _ => None,
        };
        for end in [Some(id), other].into_iter().flatten() {
            self.send_segment(end, &[], true);
            if let Some(stream) = self.stream_mut(end) {
                stream.other = Other::Void { swallowed: 0 };
            }
        }
    }

    fn send_segment(&mut self, to: StreamId, bytes: &[u8], fin: bool) {
        let mut due = self.now() + self.dice.latency();
        if self.dice.fires(FaultKind::SegmentDelayed) {
            due = due + self.dice.span(Duration::from_millis(50));
        }
        if self.dice.fires(FaultKind::LinkStalled) {
            due = due + self.dice.span(Duration::from_secs(2));
        }
        let Some(target) = self.stream_mut(to) else { return };
        let due = target.inbound.push(bytes, fin, due);
        self.at(due, Due::Segment(to));
    }

    pub(super) fn segment_arrives(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        // A segment that was lost meanwhile, with all that was on its way, leaves an appointment without a segment.
        let Some(len) = stream.inbound.arrive() else { return };
        let other = stream.other;
        if stream.error.is_some() {
            stream.inbound.lose_all();
            if let Other::Stream(writer) = other {
                let latency = self.dice.latency();
                self.after(latency, Due::Reset(writer));
            }
            return;
        }
        self.note(Event::Arrive, u64::from(id.serial), len as u64);
        if self.dice.fires(FaultKind::ConnectionReset) {
            self.sever(id);
        } else if self.dice.fires(FaultKind::LinkVanished) {
            self.fall_silent(id);
        }
        self.notify(id);
    }

    /// Reads what has arrived; tells the writer of the room.
    pub(super) fn read(&mut self, id: StreamId, into: &mut [u8]) -> usize {
        let Some(stream) = self.stream_mut(id) else { return 0 };
        let count = stream.inbound.read(into);
        if count > 0 {
            self.tell_room(id);
        }
        count
    }

    /// Tells the writer, if it waits, that this end has room.
    pub(super) fn tell_room(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        if let (Other::Stream(writer), true) =
            (stream.other, std::mem::take(&mut stream.inbound.writer_waits))
        {
            if self.dice.fires(FaultKind::RoomToldLate) {
                let span = self.dice.span(Duration::from_millis(20));
                self.after(span, Due::Room(writer));
            } else {
                self.notify(writer);
            }
        }
    }

    /// Sends FIN behind what was written.
    pub(super) fn half_close(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let is_connected = stream.error.is_none() && stream.other != Other::Nobody;
        if !is_connected || std::mem::replace(&mut stream.fin_sent, true) {
            return;
        }
        if let Other::Stream(other) = stream.other {
            let in_flight = self.stream(other).is_some_and(|other| other.inbound.is_in_flight());
            if in_flight && self.dice.fires(FaultKind::FinWithData) {
                self.stream_mut(other).expect("it was here").inbound.ride(&[], true);
            } else {
                self.send_segment(other, &[], true);
            }
        }
    }

    /// Closes as `close(2)` does: with FIN, or with a reset when something unread was thrown away [M7].
    pub(super) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.stream(id) else { return };
        if stream.inbound.arrived() > 0 && stream.error.is_none() {
            self.reset(id);
            return;
        }
        self.half_close(id);
        let stream = self.remove(id).expect("it was here");
        if let (Other::Stream(other), true) = (stream.other, stream.inbound.is_in_flight()) {
            // What still comes finds nobody.
            let latency = self.dice.latency();
            self.after(latency, Due::Reset(other));
        }
    }

    /// Ends both directions at once: what this end had sent and has not arrived is lost.
    pub(super) fn reset(&mut self, id: StreamId) {
        let Some(stream) = self.remove(id) else { return };
        if let Other::Stream(other) = stream.other {
            if let Some(target) = self.stream_mut(other) {
                target.inbound.lose_in_flight();
            }
            let latency = self.dice.latency();
            self.after(latency, Due::Reset(other));
        }
    }

    /// This end's host loses its power: nobody is told.
    pub(super) fn vanish(&mut self, id: StreamId) {
        let Some(stream) = self.remove(id) else { return };
        if let Other::Stream(other) = stream.other {
            self.lose_sight(other, stream.inbound.len());
        }
    }

    pub(super) fn reset_arrives(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        if stream.error.is_some() {
            return;
        }
        stream.inbound.lose_in_flight();
        if stream.inbound.arrived() > 0 && self.dice.fires(FaultKind::ResetDropsUnread) {
            self.stream_mut(id).expect("it was here").inbound.lose_all();
        }
        self.break_off(id, NetError::Reset);
    }

    /// A reset from the middle: both ends learn of it.
    pub(super) fn sever(&mut self, id: StreamId) {
        if let Some(Stream { other: Other::Stream(other), .. }) = self.stream(id) {
            let other = *other;
            self.reset_arrives(other);
        }
        self.reset_arrives(id);
    }

    /// The other end sends FIN and is gone: what is sent to it comes back as a reset.
    pub(super) fn other_leaves(&mut self, id: StreamId) {
        if let Some(Stream { other: Other::Stream(other), .. }) = self.stream(id) {
            let other = *other;
            self.half_close(other);
            self.break_off(other, NetError::Reset);
        }
    }

    /// The system gives up on this end; the other end learns nothing.
    pub(super) fn fail(&mut self, id: StreamId, error: NetError) {
        if self.stream(id).is_some_and(|stream| stream.error.is_none()) {
            self.fall_silent(id);
            self.break_off(id, error);
        }
    }

    fn break_off(&mut self, id: StreamId, error: NetError) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.error.get_or_insert(error);
        self.note(Event::Reset, u64::from(id.serial), error as u64);
        self.notify(id);
    }

    /// Neither end hears of the other again.
    fn fall_silent(&mut self, id: StreamId) {
        let Some(stream) = self.stream(id) else { return };
        let Other::Stream(other) = stream.other else { return };
        let (from_other, from_us) =
            (stream.inbound.len(), self.stream(other).map_or(0, |other| other.inbound.len()));
        self.lose_sight(other, from_other);
        self.lose_sight(id, from_us);
    }

    /// Whoever is at the other end is not heard of again, and has not acknowledged so many bytes.
    fn lose_sight(&mut self, id: StreamId, unacknowledged: usize) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.other = Other::Void { swallowed: unacknowledged };
        stream.inbound.lose_in_flight();
        let keepalive = stream.keepalive;
        self.note(Event::Vanish, u64::from(id.serial), 0);
        if let Some(idle) = keepalive {
            // The probes follow at a third of it; after three without an answer the system gives up.
            self.after(idle * 2, Due::GiveUp(id));
        }
    }

    /// A writer with a user time-out looks whether its bytes are taken in.
    fn start_patience(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        if let (Some(span), false) = (stream.user_timeout, stream.is_patience_running) {
            stream.is_patience_running = true;
            let read_total = self.progress(id).1;
            self.after(span, Due::Patience { writer: id, read_total });
        }
    }

    pub(super) fn patience_ends(&mut self, writer: StreamId, read_total_before: u64) {
        let (is_waiting, read_total) = self.progress(writer);
        let Some(stream) = self.stream_mut(writer) else { return };
        stream.is_patience_running = false;
        if is_waiting && read_total == read_total_before {
            self.fail(writer, NetError::TimedOut);
        } else if is_waiting {
            self.start_patience(writer);
        }
    }

    /// Whether bytes of this writer wait to be taken in, and how many ever were.
    fn progress(&self, writer: StreamId) -> (bool, u64) {
        match self.stream(writer).map(|stream| stream.other) {
            Some(Other::Stream(other)) => self
                .stream(other)
                .map_or((false, 0), |reader| (reader.inbound.is_unacknowledged(), reader.inbound.read_total)),
            Some(Other::Void { swallowed }) => (swallowed > 0, u64::MAX),
            Some(Other::Nobody) | None => (false, 0),
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.stream(id)?;
        let stream = self.streams[id.index as usize].take()?;
        self.streams_free.push(id.index);
        self.descriptors -= usize::from(stream.owner.holds_descriptor());
        self.note(Event::Close, u64::from(id.serial), 0);
        Some(stream)
    }
}
