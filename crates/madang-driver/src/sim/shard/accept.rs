//! Ways in: listening, accepting, attaching, connecting.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Connect, Shard, Word, rule};
use crate::incoming::IncomingSocket;
use crate::sim::SimSocket;
use crate::sim::faults::FaultKind;
use crate::sim::machine::Machine;
use crate::sim::ports::PortOwner;
use crate::sim::stream::{Owner, StreamId};
use crate::sim::trace::Event;
use crate::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Incoming, ListenError, ListenOptions,
    Listener, NetError,
};

const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(64);

/// A listener of this shard.
pub(super) struct Listening {
    port: u32,
    is_paused: bool,
    is_word_out: bool,
    /// Zero unless it is stalled.
    backoff: Duration,
    /// Set by `unlisten`: connections whose accept was under way then, to be told still.
    late: Option<VecDeque<StreamId>>,
}

impl Shard {
    pub(in crate::sim) fn listen(
        &mut self,
        machine: &mut Machine,
        options: &ListenOptions,
    ) -> Result<(Listener, SocketAddr), ListenError> {
        let slot = match self.listeners.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.listeners.len() < self.settings.listeners_max => {
                self.listeners.push(None);
                self.listeners.len() - 1
            }
            None => return Err(ListenError { address: options.address, error: NetError::TableFull }),
        };
        let listener = slot as u32;
        let (port, address) = machine.listen(options, PortOwner::Shard { shard: self.number, listener })?;
        self.listeners[slot] = Some(Listening {
            port,
            is_paused: false,
            is_word_out: false,
            backoff: Duration::ZERO,
            late: None,
        });
        Ok((Listener(listener), address))
    }

    pub(in crate::sim) fn accept_pause(&mut self, listener: Listener) {
        self.listening(listener).is_paused = true;
    }

    pub(in crate::sim) fn accept_resume(&mut self, machine: &mut Machine, listener: Listener) {
        self.listening(listener).is_paused = false;
        self.notice_listener(machine, listener.0);
    }

    pub(in crate::sim) fn unlisten(&mut self, machine: &mut Machine, listener: Listener) {
        let port = self.listening(listener).port;
        let mut waiting = machine.unlisten(port);
        let mut late = VecDeque::new();
        while late.len() < 3 && !waiting.is_empty() && machine.dice.fires(FaultKind::LateAccept) {
            late.extend(waiting.pop_front());
        }
        for stream in waiting {
            machine.reset(stream);
        }
        let listening = self.listening(listener);
        listening.late = Some(late);
        listening.is_word_out = true;
        self.have_word(machine, Word::Accept(listener.0));
    }

    pub(super) fn notice_listener(&mut self, machine: &mut Machine, listener: u32) {
        let Some(Some(listening)) = self.listeners.get_mut(listener as usize) else { return };
        let is_waiting = machine.ports.get(&listening.port).is_some_and(|port| !port.backlog.is_empty());
        if is_waiting && !listening.is_paused && !std::mem::replace(&mut listening.is_word_out, true) {
            self.have_word(machine, Word::Accept(listener));
        }
    }

    pub(super) fn tell_accept(&mut self, machine: &mut Machine, index: u32, out: &mut Vec<Completion>) {
        let Some(listening) = self.listeners[index as usize].as_mut() else { return };
        listening.is_word_out = false;
        let listener = Listener(index);
        let stream = match &mut listening.late {
            Some(late) => match late.pop_front() {
                Some(stream) => stream,
                None => {
                    self.listeners[index as usize] = None;
                    machine.note(Event::Unlistened, index.into(), 0);
                    out.push(Completion::Unlistened { listener });
                    return;
                }
            },
            None if listening.is_paused => return,
            None => {
                if machine.ports[&listening.port].backlog.is_empty() {
                    return;
                }
                let is_at_limit = machine.descriptors >= machine.descriptors_max;
                if is_at_limit || machine.dice.fires(FaultKind::AcceptStall) {
                    return self.stall(machine, index, out);
                }
                listening.backoff = Duration::ZERO;
                let port = machine.ports.get_mut(&listening.port).expect("an open listener has its port");
                port.backlog.pop_front().expect("it was not empty")
            }
        };
        if listening.late.is_some() {
            listening.is_word_out = true;
            self.due.push_back(Word::Accept(index));
        } else {
            self.notice_listener(machine, index);
        }
        self.hand_over(machine, listener, stream, out);
    }

    /// Tells of the stall once, and looks again after the back-off.
    fn stall(&mut self, machine: &mut Machine, index: u32, out: &mut Vec<Completion>) {
        let listening = self.listeners[index as usize].as_mut().expect("the caller has seen it");
        if listening.backoff.is_zero() {
            self.figures.accept_stalls += 1;
            machine.note(Event::Stalled, index.into(), 0);
            out.push(Completion::AcceptStalled { listener: Listener(index), error: NetError::TooManyFiles });
        }
        listening.backoff = (listening.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        listening.is_word_out = true;
        self.held.push((machine.now() + listening.backoff, Word::Accept(index)));
    }

    /// Tells of an accepted connection, alive, dead or dying.
    fn hand_over(
        &mut self,
        machine: &mut Machine,
        listener: Listener,
        id: StreamId,
        out: &mut Vec<Completion>,
    ) {
        let stream = machine.stream(id).expect("nobody closes a stream of a backlog");
        let (peer, local) = (stream.remote, stream.local);
        let is_dead = stream.error.is_some();
        if is_dead && machine.dice.random.coin() || machine.dice.fires(FaultKind::GoneBeforeAccept) {
            self.figures.accepts_gone += 1;
            machine.sever(id);
            machine.close(id);
            return;
        }
        machine.set_owner(id, Owner::Incoming);
        if machine.dice.fires(FaultKind::AcceptedThenFin) {
            machine.other_leaves(id);
        } else if machine.dice.fires(FaultKind::AcceptedThenReset) {
            machine.stream_mut(id).expect("it is open").inbound.lose_all();
            machine.sever(id);
        } else if machine.stream(id).is_some_and(|stream| stream.inbound.arrived() > 0)
            && machine.dice.fires(FaultKind::AcceptedDataThenReset)
        {
            machine.sever(id);
        }
        machine.note(Event::Accepted, listener.0.into(), peer.port().into());
        let socket = SimSocket::new(id, Arc::clone(&machine.dropped));
        out.push(Completion::Accepted {
            listener,
            incoming: Incoming::new(IncomingSocket::Simulated(socket), peer, local),
        });
    }

    pub(in crate::sim) fn attach(
        &mut self,
        machine: &mut Machine,
        incoming: Incoming,
    ) -> Result<Conn, AttachError> {
        let IncomingSocket::Simulated(socket) = &incoming.socket else {
            return Err(AttachError::Failed(NetError::Unsupported));
        };
        rule(socket.is_of(&machine.dropped), "a simulated socket stays in its world");
        let stream = socket.stream();
        if self.is_full(machine, FaultKind::FullAttach) {
            return Err(AttachError::Full(incoming));
        }
        let is_dead = machine.stream(stream).is_none_or(|stream| stream.error.is_some());
        if is_dead && machine.dice.random.coin() || machine.dice.fires(FaultKind::AttachFails) {
            return Err(AttachError::Failed(NetError::NotConnected));
        }
        let Some(conn) = self.take_place(machine, Connect::Done) else {
            return Err(AttachError::Failed(NetError::TableFull));
        };
        if let IncomingSocket::Simulated(socket) = incoming.socket {
            self.places[conn.index()].stream = Some(socket.take());
        }
        machine.set_owner(stream, Owner::Shard { shard: self.number, conn });
        Ok(conn)
    }

    pub(in crate::sim) fn connect(
        &mut self,
        machine: &mut Machine,
        options: &ConnectOptions,
    ) -> Result<Conn, ConnectError> {
        if self.is_full(machine, FaultKind::FullConnect) {
            return Err(ConnectError::Full);
        }
        let failed = ConnectError::Failed;
        // The place first gets a name of its own, since the stream is told its owner when it is opened.
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let conn = self.take_place(machine, Connect::Pending(unknown)).ok_or(failed(NetError::TableFull))?;
        let owner = Owner::Shard { shard: self.number, conn };
        match machine.connect(options.local, options.remote, owner, &options.socket) {
            Ok(stream) => {
                let local = machine.stream(stream).expect("it was just opened").local;
                let place = self.place(conn);
                place.stream = Some(stream);
                place.connect = Connect::Pending(local);
                Ok(conn)
            }
            Err(error) => {
                self.free_place(conn);
                Err(failed(error))
            }
        }
    }

    pub(super) fn notice_connect(&mut self, machine: &mut Machine, conn: Conn) {
        let place = &self.places[conn.index()];
        let Some(stream) = place.stream.and_then(|stream| machine.stream(stream)) else { return };
        if matches!(place.connect, Connect::Pending(_))
            && !stream.is_connecting
            && !self.is_out(Word::Connect(conn))
        {
            self.have_word(machine, Word::Connect(conn));
        }
    }

    pub(super) fn tell_connect(&mut self, machine: &mut Machine, conn: Conn, out: &mut Vec<Completion>) {
        if !self.is_current(conn) {
            return;
        }
        let place = &mut self.places[conn.index()];
        let result = match place.connect {
            Connect::Pending(local) => {
                let error =
                    place.stream.and_then(|stream| machine.stream(stream)).and_then(|stream| stream.error);
                // A connection that was made and broke since is told as made: the rest is the receive's word.
                let refusal = error.filter(|error| *error != NetError::Reset);
                refusal.map_or(Ok(local), Err)
            }
            Connect::Aborted(local) => local.ok_or(NetError::Cancelled),
            Connect::Done | Connect::Failed => return,
        };
        place.connect = if result.is_ok() { Connect::Done } else { Connect::Failed };
        machine.note(Event::Connected, conn.index() as u64, u64::from(result.is_ok()));
        out.push(Completion::Connected { conn, result });
    }

    /// Whether this word waits to be told. Only for words that come once in a connection's life.
    pub(super) fn is_out(&self, word: Word) -> bool {
        self.due.contains(&word) || self.held.iter().any(|(_, held)| *held == word)
    }

    fn listening(&mut self, listener: Listener) -> &mut Listening {
        let listening = self.listeners.get_mut(listener.0 as usize).and_then(Option::as_mut);
        let is_open = listening.as_ref().is_some_and(|listening| listening.late.is_none());
        rule(is_open, "a listener is not named after unlisten");
        listening.expect("it is open")
    }

    pub(super) fn close_listeners(&mut self, machine: &mut Machine) {
        for listening in self.listeners.drain(..).flatten() {
            let waiting = machine.unlisten(listening.port);
            for stream in waiting.into_iter().chain(listening.late.into_iter().flatten()) {
                machine.reset(stream);
            }
        }
    }
}
