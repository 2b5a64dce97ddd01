//! Receiving: what the socket has becomes `Data`, cut and ended as the faults will have it.

use std::collections::VecDeque;

use super::{Connect, Shard, Word, rule};
use crate::sim::faults::FaultKind;
use crate::sim::machine::Machine;
use crate::sim::trace::Event;
use crate::{Completion, Conn, Full, NetError, RecvEnd};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recv {
    /// May be started.
    Idle,
    /// In flight: a terminal completion is owed.
    Started,
    /// Ended by `Eof` or an error: not to be started again.
    Over,
}

/// How a receive ends that an abort found in flight.
pub(super) struct LastWords {
    end: RecvEnd,
    /// The last bytes that the abort found are the terminal.
    ends_with_data: bool,
    /// They are told in several pieces.
    in_pieces: bool,
}

impl Default for LastWords {
    fn default() -> LastWords {
        LastWords { end: RecvEnd::Error(NetError::Cancelled), ends_with_data: false, in_pieces: false }
    }
}

impl Shard {
    pub(in crate::sim) fn recv_start(&mut self, machine: &mut Machine, conn: Conn) -> Result<(), Full> {
        let place = self.place(conn);
        rule(place.connect == Connect::Done, "a receive is started on a connection that is connected");
        rule(place.recv != Recv::Started, "a connection has one receive in flight");
        rule(place.recv == Recv::Idle, "a receive is not started again after Eof or an error");
        if self.is_full(machine, FaultKind::FullRecvStart) {
            return Err(Full);
        }
        let place = self.place(conn);
        place.recv = Recv::Started;
        place.is_paused = false;
        place.is_starved = !place.is_readable(machine) && machine.dice.fires(FaultKind::NoBuffersIdle);
        self.notice_recv(machine, conn);
        Ok(())
    }

    pub(in crate::sim) fn recv_pause(&mut self, machine: &mut Machine, conn: Conn) {
        let bytes_max = self.settings.pause_bytes_max;
        let place = self.place(conn);
        if place.is_aborted {
            return;
        }
        // Its end may have been handed out already and lie in the caller's batch, unread: then there is nothing to pause.
        if place.recv != Recv::Started {
            return;
        }
        place.is_paused = true;
        place.take_kept(machine, bytes_max);
    }

    pub(in crate::sim) fn recv_resume(&mut self, machine: &mut Machine, conn: Conn) {
        self.place(conn).is_paused = false;
        self.notice_recv(machine, conn);
    }

    /// Something about the receive may have changed: bytes, an end, a start, a resume, an abort.
    pub(super) fn notice_recv(&mut self, machine: &mut Machine, conn: Conn) {
        let is_famine = self.famine.as_ref().is_some_and(|famine| famine.buffers == 0);
        let bytes_max = self.settings.pause_bytes_max;
        let place = &mut self.places[conn.index()];
        if place.recv != Recv::Started || place.is_recv_word_out {
            return;
        }
        if place.is_paused && !place.is_aborted {
            return place.take_kept(machine, bytes_max);
        }
        if place.is_readable(machine) || place.is_starved {
            place.is_recv_word_out = true;
            if is_famine {
                // With no buffer at all the word would be the same again at once: let time pass in between.
                self.held.push((machine.now() + machine.dice.hold(), Word::Recv(conn)));
            } else {
                self.have_word(machine, Word::Recv(conn));
            }
        }
    }

    pub(super) fn tell_recv(&mut self, machine: &mut Machine, conn: Conn, out: &mut Vec<Completion>) {
        if !self.is_current(conn) {
            return;
        }
        let place = &mut self.places[conn.index()];
        place.is_recv_word_out = false;
        if place.recv != Recv::Started || (place.is_paused && !place.is_aborted) {
            return;
        }
        if std::mem::take(&mut place.is_starved) {
            return self.end_recv(machine, conn, RecvEnd::NoBuffers, out);
        }
        let available = place.available(machine);
        if available == 0 {
            if let Some(end) = place.end(machine) {
                self.end_recv(machine, conn, end, out);
            }
            return; // else an earlier word has told it all
        }
        if !place.is_aborted && machine.dice.fires(FaultKind::RecvError) {
            let error =
                if machine.dice.random.coin() { NetError::TimedOut } else { NetError::HostUnreachable };
            let stream = place.stream.expect("a connection that was not aborted has its stream");
            machine.fail(stream, error);
            return self.end_recv(machine, conn, RecvEnd::Error(error), out);
        }
        if machine.dice.fires(FaultKind::NoBuffers) {
            return self.end_recv(machine, conn, RecvEnd::NoBuffers, out);
        }
        self.tell_data(machine, conn, available, out);
    }

    fn tell_data(&mut self, machine: &mut Machine, conn: Conn, available: usize, out: &mut Vec<Completion>) {
        let place = &mut self.places[conn.index()];
        let want = if available == 1 || machine.dice.fires(FaultKind::OneByteRead) {
            1
        } else if place.last_words.in_pieces || machine.dice.fires(FaultKind::PartialRead) {
            machine.dice.cut(available)
        } else {
            available
        };
        let (kept, stream) = (&mut place.kept, place.stream);
        let fill = |into: &mut [u8]| {
            let from_kept = take(kept, into);
            if let (Some(stream), true) = (stream, from_kept < into.len()) {
                machine.read(stream, &mut into[from_kept..]);
            }
        };
        let buffers_max = self.famine.as_ref().map_or(usize::MAX, |famine| famine.buffers);
        let Some(bytes) = self.lending.lend(want, buffers_max, fill) else {
            return self.end_recv(machine, conn, RecvEnd::NoBuffers, out);
        };
        let place = &mut self.places[conn.index()];
        let is_terminal = if place.is_aborted {
            place.last_words.ends_with_data && place.kept.is_empty()
        } else {
            machine.dice.fires(FaultKind::RecvEndsWithData)
        };
        if is_terminal {
            place.recv = Recv::Idle;
        }
        machine.note(Event::Data, conn.index() as u64, u64::from(is_terminal));
        machine.trace.bytes(&bytes);
        out.push(Completion::Data { conn, bytes, more: !is_terminal });
        self.notice_recv(machine, conn);
    }

    fn end_recv(&mut self, machine: &mut Machine, conn: Conn, end: RecvEnd, out: &mut Vec<Completion>) {
        let place = &mut self.places[conn.index()];
        place.recv = if end == RecvEnd::NoBuffers { Recv::Idle } else { Recv::Over };
        self.figures.no_buffers += u64::from(end == RecvEnd::NoBuffers);
        let word = match end {
            RecvEnd::Eof => 0,
            RecvEnd::NoBuffers => 1,
            RecvEnd::Error(error) => 2 + error as u64,
        };
        machine.note(Event::RecvEnded, conn.index() as u64, word);
        out.push(Completion::RecvEnded { conn, end });
    }

    /// An abort finds a receive in flight: nothing, some or all of what came is told before its end.
    pub(super) fn abort_recv(&mut self, machine: &mut Machine, conn: Conn) {
        let place = &mut self.places[conn.index()];
        if place.recv != Recv::Started {
            return;
        }
        if place.available(machine) > 0 {
            if machine.dice.fires(FaultKind::CancelledAfterSuccess)
                || machine.dice.fires(FaultKind::AbortTellsAllData)
            {
                place.keep_all(machine);
                place.last_words.ends_with_data = true;
            } else if place.available(machine) > 1 && machine.dice.fires(FaultKind::AbortTellsSomeData) {
                place.keep_all(machine);
                let some = machine.dice.cut(place.kept.len());
                place.kept.truncate(some);
            } else {
                place.kept.clear();
            }
            place.last_words.in_pieces =
                place.kept.len() > 1 && machine.dice.fires(FaultKind::AbortTellsPieces);
        }
        if machine.dice.fires(FaultKind::AbortEndsOtherwise) {
            let others = [
                RecvEnd::Eof,
                RecvEnd::NoBuffers,
                RecvEnd::Error(NetError::Aborted),
                RecvEnd::Error(NetError::Reset),
                RecvEnd::Error(NetError::NotConnected),
            ];
            place.last_words.end = others[machine.dice.random.index(others.len())];
        }
    }
}

impl super::Place {
    /// Bytes that could be told.
    fn available(&self, machine: &Machine) -> usize {
        let arrived = self
            .stream
            .and_then(|stream| machine.stream(stream))
            .map_or(0, |stream| stream.inbound.arrived());
        self.kept.len() + arrived
    }

    fn is_readable(&self, machine: &Machine) -> bool {
        self.available(machine) > 0 || self.end(machine).is_some()
    }

    /// What the receive ends with once all bytes are told.
    fn end(&self, machine: &Machine) -> Option<RecvEnd> {
        if self.is_aborted {
            return Some(self.last_words.end);
        }
        let stream = machine.stream(self.stream?)?;
        match stream.error {
            Some(_) if stream.is_error_told => Some(RecvEnd::Eof),
            Some(error) => Some(RecvEnd::Error(error)),
            None => stream.inbound.is_at_end().then_some(RecvEnd::Eof),
        }
    }

    /// A pause may find bytes that are the driver's already.
    fn take_kept(&mut self, machine: &mut Machine, bytes_max: usize) {
        let arrived = self.available(machine) - self.kept.len();
        let count = arrived.min(bytes_max.saturating_sub(self.kept.len()));
        if count > 0 && machine.dice.fires(FaultKind::PauseTakesBytes) {
            self.keep(machine, count);
        }
    }

    fn keep_all(&mut self, machine: &mut Machine) {
        self.keep(machine, self.available(machine) - self.kept.len());
    }

    fn keep(&mut self, machine: &mut Machine, count: usize) {
        let mut bytes = vec![0; count];
        if let Some(stream) = self.stream {
            let count = machine.read(stream, &mut bytes);
            self.kept.extend(&bytes[..count]);
        }
    }
}

fn take(from: &mut VecDeque<u8>, into: &mut [u8]) -> usize {
    let count = into.len().min(from.len());
    for (slot, byte) in into.iter_mut().zip(from.drain(..count)) {
        *slot = byte;
    }
    count
}
