//! Sending: the packets stay with the operation until they have left, or, as with a port, until its word is told.

use super::{Connect, Shard, Word, rule};
use crate::sim::faults::FaultKind;
use crate::sim::machine::Machine;
use crate::sim::trace::Event;
use crate::{Completion, Conn, NetError, Outgoing};

/// The most that one look at the socket gathers from the pieces.
const GATHER_MAX: usize = 64 * 1024;

/// A send in flight.
pub(super) struct Sending {
    outgoing: Outgoing,
    written: usize,
    /// Full means: wait for room until all has left, as io_uring can; or end short, as readiness does.
    waits_for_all: bool,
    /// What ends it inside its submit is told a while later.
    is_told_late: bool,
    result: Option<Result<usize, NetError>>,
}

impl Sending {
    pub(super) fn is_told_late(&self) -> bool {
        self.is_told_late
    }

    /// Lets go of what left: at once, as a system does that copies, or with the word, where that is a port's.
    fn release(&mut self) {
        if let Some(Ok(bytes)) = self.result {
            self.outgoing.advance(bytes);
        }
    }
}

impl Shard {
    pub(in crate::sim) fn send(
        &mut self,
        machine: &mut Machine,
        conn: Conn,
        outgoing: Outgoing,
    ) -> Result<(), Outgoing> {
        let place = self.place(conn);
        rule(place.connect == Connect::Done, "a send is started on a connection that is connected");
        rule(place.send.is_none(), "a connection has one send in flight");
        rule(!place.is_half_closed, "nothing is sent after half_close");
        rule(!outgoing.is_empty(), "a send carries at least one byte");
        if self.is_full(machine, FaultKind::FullSend) {
            return Err(outgoing);
        }
        let waits_for_all = machine.dice.random.coin();
        self.place(conn).send =
            Some(Sending { outgoing, written: 0, waits_for_all, is_told_late: false, result: None });
        let Some(stream) = self.place(conn).stream else {
            self.end_send(machine, conn, Err(NetError::Cancelled));
            return Ok(());
        };
        if machine.dice.fires(FaultKind::SendFailsAtOnce) {
            machine.fail(stream, NetError::Reset);
            self.end_send(machine, conn, Err(NetError::Reset));
        } else if machine.dice.fires(FaultKind::SendNoBufferSpace) {
            self.end_send(machine, conn, Err(NetError::NoBufferSpace));
        } else if machine.dice.fires(FaultKind::SendTakenLate) {
            self.late_sends.push(conn);
        } else {
            let is_told_late = machine.dice.fires(FaultKind::SentAtOnceToldLate);
            if let Some(sending) = &mut self.place(conn).send {
                sending.is_told_late = is_told_late;
            }
            self.progress_send(machine, conn);
        }
        Ok(())
    }

    /// Writes what there is room for; ends the send when all has left, or it shall end short, or it fails.
    pub(super) fn progress_send(&mut self, machine: &mut Machine, conn: Conn) {
        if !self.is_current(conn) {
            return;
        }
        let place = &mut self.places[conn.index()];
        let (Some(stream), Some(sending)) = (place.stream, &mut place.send) else { return };
        if sending.result.is_some() {
            return;
        }
        if machine.dice.fires(FaultKind::SendTimedOut) {
            machine.fail(stream, NetError::TimedOut);
            return self.end_send(machine, conn, Err(NetError::TimedOut));
        }
        if machine.dice.fires(FaultKind::SendBrokenPipe) {
            machine.sever(stream);
            return self.end_send(machine, conn, Err(NetError::BrokenPipe));
        }
        let total = sending.outgoing.len();
        let is_short = total - sending.written > 1 && machine.dice.fires(FaultKind::ShortWrite);
        let goal = if is_short { sending.written + machine.dice.cut(total - sending.written) } else { total };
        let result = loop {
            gather(
                &sending.outgoing,
                sending.written,
                (goal - sending.written).min(GATHER_MAX),
                &mut self.gathered,
            );
            match machine.write(stream, &self.gathered) {
                Ok(count) => {
                    sending.written += count;
                    if sending.written == goal {
                        break Some(Ok(goal));
                    }
                    if count < self.gathered.len() {
                        let ends_short = sending.written > 0 && !sending.waits_for_all;
                        break ends_short.then_some(Ok(sending.written));
                    }
                }
                Err(_) if sending.written > 0 => break Some(Ok(sending.written)),
                Err(_) if machine.tells_reset_to_send(stream) => break Some(Err(NetError::Reset)),
                Err(error) => break Some(Err(error)),
            }
        };
        if let Some(result) = result {
            self.end_send(machine, conn, result);
        }
    }

    /// An abort finds a send in flight: whatever its bytes became, it ends.
    pub(super) fn abort_send(&mut self, machine: &mut Machine, conn: Conn) {
        let place = &mut self.places[conn.index()];
        let Some(Sending { outgoing, written, result: None, .. }) = &place.send else { return };
        let (written, total) = (*written, outgoing.len());
        let result = if machine.dice.fires(FaultKind::CancelledAfterSuccess) {
            Ok(total)
        } else if machine.dice.fires(FaultKind::AbortedSendSucceeds) {
            // Taken by the system on the way to a peer that will not get it.
            Ok(machine.dice.random.between(written.max(1) as u64, total as u64) as usize)
        } else if written > 0 {
            Ok(written)
        } else {
            let errors = [NetError::Cancelled, NetError::Cancelled, NetError::BrokenPipe, NetError::Aborted];
            Err(errors[machine.dice.random.index(errors.len())])
        };
        self.end_send(machine, conn, result);
    }

    fn end_send(&mut self, machine: &mut Machine, conn: Conn, result: Result<usize, NetError>) {
        let sending = self.places[conn.index()].send.as_mut().expect("a send that ends is in flight");
        sending.result = Some(result);
        if !sending.is_told_late {
            sending.release();
        }
        self.have_word(machine, Word::Send(conn));
    }

    pub(super) fn tell_send(&mut self, machine: &mut Machine, conn: Conn, out: &mut Vec<Completion>) {
        let mut sending =
            self.places[conn.index()].send.take().expect("a send's word comes once, before its retirement");
        if sending.is_told_late {
            sending.release();
        }
        let result = sending.result.expect("a send's word comes after its end");
        machine.note(Event::Sent, conn.index() as u64, result.map_or(u64::MAX, |count| count as u64));
        out.push(Completion::Sent { conn, outgoing: sending.outgoing, result });
    }
}

/// Copies up to `count` bytes of what is left behind the first `skip`.
fn gather(outgoing: &Outgoing, mut skip: usize, count: usize, into: &mut Vec<u8>) {
    into.clear();
    for slice in outgoing.slices() {
        let rest = slice.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(slice.len());
        into.extend_from_slice(&rest[..rest.len().min(count - into.len())]);
    }
}
