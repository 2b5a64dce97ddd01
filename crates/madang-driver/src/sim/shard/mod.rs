//! One simulated driver's table and its words: what it knows, what it owes, when it sleeps.
//!
//! Nothing is told before `poll`. What could be told is a [`Word`] (the next thing of one direction of one connection), and
//! the words are what the faults play with: they are withheld, overtake each other, or wait for a clog to end. Bytes are
//! looked up when a word is spoken, so that no play can bring the bytes of one direction out of order.

mod accept;
mod leave;
mod recv;
mod send;
mod sleep;

use std::collections::VecDeque;
use std::net::SocketAddr;

use self::accept::Listening;
use self::recv::{LastWords, Recv};
use self::send::Sending;
pub(super) use self::sleep::Alarm;
use self::sleep::Sleep;
use super::faults::FaultKind;
use super::lending::Lending;
use super::machine::{Machine, Notice};
use super::random::Random;
use super::stream::StreamId;
use super::trace::Event;
use crate::{Completion, Conn, DriverFigures, DriverSettings, Time, Wait};

/// The state behind one `SimDriver`.
pub(super) struct Shard {
    pub(super) number: usize,
    settings: DriverSettings,
    places: Vec<Place>,
    free: VecDeque<u32>,
    listeners: Vec<Option<Listening>>,
    /// Words that may be told now.
    due: VecDeque<Word>,
    /// Words that are withheld, each until its time.
    held: Vec<(Time, Word)>,
    /// Sends whose bytes the system takes at the next poll.
    late_sends: Vec<Conn>,
    submitted: u32,
    famine: Option<Famine>,
    pub(super) sleep: Sleep,
    lending: Lending,
    notices: Vec<Notice>,
    gathered: Vec<u8>,
    entropy: Random,
    figures: DriverFigures,
}

/// The next thing of one direction of a connection, or of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Connect(Conn),
    Recv(Conn),
    Send(Conn),
    Accept(u32),
}

/// A place of the connection table.
struct Place {
    generation: u32,
    is_used: bool,
    /// `None` once aborted.
    stream: Option<StreamId>,
    connect: Connect,
    recv: Recv,
    is_paused: bool,
    is_recv_word_out: bool,
    /// Bytes that were taken off the socket and not told: in a pause, or found by an abort.
    kept: VecDeque<u8>,
    /// Whether the next word of the receive is that no buffer was free.
    is_starved: bool,
    last_words: LastWords,
    send: Option<Sending>,
    is_half_closed: bool,
    is_aborted: bool,
    /// What an abort ended is told from then on.
    silent_until: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connect {
    /// Accepted, or connected and told so.
    Done,
    /// The word is still out.
    Pending(SocketAddr),
    /// It failed, and was told so.
    Failed,
    /// Aborted before its end; what the word will be.
    Aborted(Option<SocketAddr>),
}

struct Famine {
    until: Time,
    buffers: usize,
}

impl Shard {
    pub(super) fn new(
        number: usize,
        settings: DriverSettings,
        entropy: Random,
        alarm: std::sync::Arc<Alarm>,
    ) -> Shard {
        Shard {
            number,
            lending: Lending::new(settings.recv_buffers.into(), settings.recv_buffer_bytes as usize),
            settings,
            places: Vec::new(),
            free: VecDeque::new(),
            listeners: Vec::new(),
            due: VecDeque::new(),
            held: Vec::new(),
            late_sends: Vec::new(),
            submitted: 0,
            famine: None,
            sleep: Sleep::new(alarm),
            notices: Vec::new(),
            gathered: Vec::new(),
            entropy,
            figures: DriverFigures::default(),
        }
    }

    pub(super) fn poll(&mut self, machine: &mut Machine, out: &mut Vec<Completion>, max: usize, wait: Wait) {
        rule(self.lending.loans_out() == 0, "lent memory is given back before the next poll");
        machine.advance(machine.now());
        machine.maybe_jump_wall_clock();
        self.lending.recollect();
        self.submitted = 0;
        self.figures.enters += 1;
        for conn in std::mem::take(&mut self.late_sends) {
            self.progress_send(machine, conn);
        }
        self.absorb_notices(machine);
        self.admit_held(machine.now());
        self.change_weather(machine);
        self.sleep.begin(machine, wait);

        let told_before = out.len();
        let is_empty_handed = !self.due.is_empty() && machine.dice.fires(FaultKind::EarlyEmptyPoll);
        if !self.sleep.is_clogged(machine.now()) && !is_empty_handed {
            while out.len() - told_before < max {
                let Some(word) = self.next_word(machine) else { break };
                self.tell(machine, word, out);
            }
        }
        let told = out.len() - told_before;
        self.sleep.did_not_fit(told == max && !self.due.is_empty());
        machine.note(Event::Poll, self.number as u64, told as u64);
    }

    fn next_word(&mut self, machine: &mut Machine) -> Option<Word> {
        if self.due.len() > 1 && machine.dice.fires(FaultKind::CompletionsReordered) {
            let index = machine.dice.random.index(self.due.len());
            return self.due.swap_remove_back(index);
        }
        self.due.pop_front()
    }

    fn tell(&mut self, machine: &mut Machine, word: Word, out: &mut Vec<Completion>) {
        match word {
            Word::Connect(conn) => self.tell_connect(machine, conn, out),
            Word::Recv(conn) => self.tell_recv(machine, conn, out),
            Word::Send(conn) => self.tell_send(machine, conn, out),
            Word::Accept(listener) => self.tell_accept(machine, listener, out),
        }
    }

    /// Has something to tell: at once, or after a while.
    fn have_word(&mut self, machine: &mut Machine, word: Word) {
        let told_late = match word {
            Word::Send(conn) => self.places[conn.index()].send.as_ref().is_some_and(Sending::is_told_late),
            _ => false,
        };
        let mut until = if machine.dice.fires(FaultKind::CompletionWithheld) || told_late {
            machine.now() + machine.dice.hold()
        } else {
            machine.now()
        };
        // What an abort left of a receive may be told in hundreds of pieces: no system holds back each of them.
        if matches!(word, Word::Recv(conn) if self.places[conn.index()].is_aborted) {
            until = machine.now();
        }
        let until = until.max(self.silent_until(word));
        if until > machine.now() {
            self.held.push((until, word));
        } else {
            self.due.push_back(word);
        }
    }

    fn silent_until(&self, word: Word) -> Time {
        match word {
            Word::Recv(conn) | Word::Send(conn) | Word::Connect(conn) => {
                self.places[conn.index()].silent_until
            }
            Word::Accept(_) => Time::ZERO,
        }
    }

    fn admit_held(&mut self, now: Time) {
        let mut index = 0;
        while index < self.held.len() {
            if self.held[index].0 <= now {
                let (_, word) = self.held.remove(index);
                self.due.push_back(word);
            } else {
                index += 1;
            }
        }
    }

    /// Looks at what has changed since the last time.
    fn absorb_notices(&mut self, machine: &mut Machine) {
        let mut notices = std::mem::take(&mut self.notices);
        machine.swap_notices(self.number, &mut notices);
        for notice in notices.drain(..) {
            match notice {
                Notice::Conn(conn) if self.is_current(conn) => {
                    self.notice_connect(machine, conn);
                    self.notice_recv(machine, conn);
                    self.progress_send(machine, conn);
                }
                Notice::Conn(_) => {}
                Notice::Listener(listener) => self.notice_listener(machine, listener),
            }
        }
        self.notices = notices;
    }

    fn change_weather(&mut self, machine: &mut Machine) {
        let now = machine.now();
        if self.famine.as_ref().is_some_and(|famine| famine.until <= now) {
            self.famine = None;
        }
        if self.famine.is_none() && machine.dice.fires(FaultKind::BufferFamine) {
            let buffers = machine.dice.random.index(5);
            self.famine = Some(Famine { until: now + machine.dice.hold(), buffers });
        }
        if !self.due.is_empty() && machine.dice.fires(FaultKind::ShardClogged) {
            self.sleep.clog(now + machine.dice.hold());
        }
    }

    /// Whether a poll, as the shard means to sleep in it, would return now.
    pub(super) fn is_runnable(&mut self, machine: &mut Machine) -> bool {
        self.absorb_notices(machine);
        self.admit_held(machine.now());
        self.sleep.is_over(machine, self.due.len())
    }

    /// When something happens next for this shard, if nothing else does.
    pub(super) fn next_event(&mut self, machine: &mut Machine) -> Option<Time> {
        if self.is_runnable(machine) {
            return Some(machine.now());
        }
        let clogged =
            (!self.due.is_empty()).then(|| self.sleep.clogged_until()).filter(|until| *until > machine.now());
        let held = self.held.iter().map(|(at, _)| *at).min();
        [clogged, held, self.sleep.next_event()].into_iter().flatten().min()
    }

    /// Whether the submission queue has no room, for real or by a fault.
    fn is_full(&mut self, machine: &mut Machine, kind: FaultKind) -> bool {
        if self.submitted >= self.settings.submissions_max || machine.dice.fires(kind) {
            return true;
        }
        self.submitted += 1;
        false
    }

    fn is_current(&self, conn: Conn) -> bool {
        self.places
            .get(conn.index())
            .is_some_and(|place| place.is_used && place.generation == conn.generation())
    }

    /// The place of a connection that its user names.
    fn place(&mut self, conn: Conn) -> &mut Place {
        rule(self.is_current(conn), "a connection is not named after its retirement");
        &mut self.places[conn.index()]
    }

    fn take_place(&mut self, machine: &mut Machine, connect: Connect) -> Option<Conn> {
        let reuse = !self.free.is_empty() && machine.dice.fires(FaultKind::IndexReusedAtOnce);
        let fresh = self.places.len() as u32;
        let index = if reuse {
            self.free.pop_back()?
        } else if (fresh as usize) < self.settings.connections_max {
            self.places.push(Place::unused());
            fresh
        } else {
            self.free.pop_front()?
        };
        let place = &mut self.places[index as usize];
        *place = Place { generation: place.generation, is_used: true, connect, ..Place::unused() };
        self.figures.connections += 1;
        Some(Conn::new(index, place.generation))
    }

    pub(super) fn random(&mut self, bytes: &mut [u8]) {
        self.entropy.fill(bytes);
    }

    pub(super) fn figures(&self) -> DriverFigures {
        let in_flight = |place: &Place| {
            usize::from(matches!(place.connect, Connect::Pending(_) | Connect::Aborted(_)))
                + usize::from(place.recv == Recv::Started)
                + usize::from(place.send.is_some())
        };
        let connections: usize = self.places.iter().filter(|place| place.is_used).map(in_flight).sum();
        DriverFigures { in_flight: connections + self.listeners.iter().flatten().count(), ..self.figures }
    }
}

impl Place {
    fn unused() -> Place {
        Place {
            generation: 0,
            is_used: false,
            stream: None,
            connect: Connect::Done,
            recv: Recv::Idle,
            is_paused: false,
            is_recv_word_out: false,
            kept: VecDeque::new(),
            is_starved: false,
            last_words: LastWords::default(),
            send: None,
            is_half_closed: false,
            is_aborted: false,
            silent_until: Time::ZERO,
        }
    }
}

/// A rule of the contract that the driver's user keeps.
///
/// # Panics
/// When it is broken: a simulation that goes on after that would prove nothing.
#[track_caller]
fn rule(kept: bool, rule: &str) {
    assert!(kept, "the driver contract was broken: {rule}");
}
