//! Ways out: half-close, abort, retire, and the end of everything.

use super::recv::Recv;
use super::{Connect, Shard, Word, rule};
use crate::Conn;
use crate::sim::faults::FaultKind;
use crate::sim::machine::Machine;

impl Shard {
    pub(in crate::sim) fn half_close(&mut self, machine: &mut Machine, conn: Conn) {
        let place = self.place(conn);
        rule(place.connect == Connect::Done, "half_close comes after connect");
        rule(place.send.is_none(), "half_close comes while no send is in flight");
        rule(!place.is_half_closed, "half_close comes once");
        place.is_half_closed = true;
        if let Some(stream) = place.stream {
            machine.half_close(stream);
        }
    }

    pub(in crate::sim) fn abort(&mut self, machine: &mut Machine, conn: Conn) {
        let place = self.place(conn);
        if std::mem::replace(&mut place.is_aborted, true) {
            return;
        }
        let is_in_flight = matches!(place.connect, Connect::Pending(_))
            || place.recv == Recv::Started
            || place.send.is_some();
        if is_in_flight && machine.dice.fires(FaultKind::WordsAfterClose) {
            place.silent_until = machine.now() + machine.dice.hold();
        }
        if let Connect::Pending(local) = place.connect {
            let succeeds = machine.dice.fires(FaultKind::AbortedConnectSucceeds);
            place.connect = Connect::Aborted(succeeds.then_some(local));
            if !self.is_out(Word::Connect(conn)) {
                self.have_word(machine, Word::Connect(conn));
            }
        }
        self.abort_recv(machine, conn);
        self.abort_send(machine, conn);
        if let Some(stream) = self.place(conn).stream.take() {
            machine.reset(stream);
        }
        self.notice_recv(machine, conn);
    }

    pub(in crate::sim) fn retire(&mut self, machine: &mut Machine, conn: Conn) {
        let place = self.place(conn);
        let is_connecting = matches!(place.connect, Connect::Pending(_) | Connect::Aborted(_));
        rule(!is_connecting, "retire comes after the connect's terminal completion");
        rule(place.recv != Recv::Started, "retire comes after the receive's terminal completion");
        rule(place.send.is_none(), "retire comes after the send's terminal completion");
        if let Some(stream) = place.stream.take() {
            machine.close(stream);
        }
        self.free_place(conn);
    }

    pub(super) fn free_place(&mut self, conn: Conn) {
        let place = self.place(conn);
        place.is_used = false;
        place.generation = place.generation.wrapping_add(1);
        self.free.push_back(conn.index() as u32);
        self.figures.connections -= 1;
    }

    /// Closes whatever is open, as a process's end does; packets and sockets go with it.
    pub(in crate::sim) fn close_all(&mut self, machine: &mut Machine, by_reset: bool) {
        self.close_listeners(machine);
        for place in &mut self.places {
            place.send = None;
            if let Some(stream) = place.stream.take() {
                if by_reset { machine.reset(stream) } else { machine.close(stream) }
            }
            place.is_used = false;
        }
        self.figures.connections = 0;
        self.due.clear();
        self.held.clear();
    }
}
