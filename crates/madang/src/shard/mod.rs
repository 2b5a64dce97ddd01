//! A shard: one thread with its own driver, sessions, timers and magazine.
//!
//! ```text
//!   turn:   sleep ─► poll ─► complete ─► timers ─► mailbox ─► flush ─► closes, the line ─► (sleep)
//! ```
//!
//! Nothing here is shared: other threads leave letters in the mailbox. Connections stay on the shard that they were given
//! to, so a session's state needs no lock and its callbacks are never concurrent.

mod admission;
mod ahead;
mod announce;
#[cfg(feature = "simulation")]
mod audit;
mod callbacks;
mod compose;
mod connections;
mod core;
mod dial;
mod embryo;
mod embryos;
mod flush;
mod greeting;
#[cfg(feature = "wan")]
mod handshake;
mod in_place;
mod join;
mod leave;
#[cfg(feature = "wan")]
mod line;
mod mail;
mod overload;
mod pressure;
mod queueing;
mod receive;
#[cfg(feature = "wan")]
mod records;
mod retire;
#[cfg(feature = "wan")]
mod shaking;
mod throttle;
mod waiting;
mod watch;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use madang_driver::{Completion, Conn, Driver, Leaked, NetError, Outgoing, Time, Wait};
use madang_wire::FrameLimit;

use self::connections::{Connections, Owner};
pub(crate) use self::core::{Core, ErrorGate, Found, Timer};
use self::embryos::Embryos;
#[cfg(feature = "wan")]
pub(crate) use self::line::HANDSHAKES_OUT_MAX;
#[cfg(feature = "wan")]
pub(crate) use self::shaking::Shaken;
pub(crate) use self::throttle::Flood;
use crate::error::ErrorKind;
use crate::fabric::Fabric;
use crate::figures::Count;
use crate::framing::Wire;
use crate::gate::Gate;
use crate::id::Serials;
use crate::letters::{Adoption, Letter, Word};
use crate::links::Links;
use crate::mailbox::Mailbox;
use crate::planted::{Planted, planted};
use crate::session::Alike;
use crate::settings::ms;
use crate::user::Content;
use crate::{SessionId, WaitStrategy};

/// Receives tried when nothing tells whether there are buffers again.
const STARVED_TRIES: usize = 8;

/// Giving memory back walks all idle blocks: not more often than this.
const TRIM_PAUSE: Duration = Duration::from_secs(1);

/// One worker.
pub(crate) struct Shard<D: Driver> {
    driver: D,
    core: Core,
    content: Content,
    wire: Wire,
    frame_limit: FrameLimit,
    serials: Serials,
    connections: Connections,
    embryos: Embryos,
    /// Those who want in and cost much.
    #[cfg(feature = "wan")]
    line: line::Line,
    #[cfg(feature = "wan")]
    versions: handshake::Versions,
    /// Shard 0 of a server has the gate.
    gate: Option<Gate>,
    links: Links,
    /// Filled by `poll`, empty between turns.
    completions: Vec<Completion>,
    /// How many completions a turn takes now: fewer when they take long.
    batch: usize,
    /// Accepted sockets that the driver had no room for.
    unattached: Vec<Adoption>,
    /// Requests of other threads that were refused, as far as content was told.
    refused_letters: u64,
    /// Connections that are over and not closed yet.
    retiring: VecDeque<Conn>,
    /// Sends that the driver had no room for.
    unsent: Vec<(Conn, Outgoing)>,
    /// After the kernel had no buffers: sends are tried again then, and later if that goes on.
    unsent_until: Time,
    unsent_pause: Duration,
    /// The chunk that a broadcast's receivers share.
    alike: Alike,
    /// Emptied, with their room: so that sending allocates nothing.
    spare: Vec<Outgoing>,
    /// Receives that ended for want of a buffer or were refused as full, in the order in which they are started again.
    starved: VecDeque<(Conn, Owner)>,
    starved_pause: Duration,
    starved_until: Time,
    /// Receives that told bytes in this turn.
    fed: usize,
    next_tick: Time,
    /// When a client's idle memory was last given back.
    trimmed: Time,
    stopping: Option<Stopping>,
    /// When the server will stop, if that was announced.
    stops_at: Option<Time>,
}

/// A stop under way.
struct Stopping {
    deadline: Time,
}

impl<D: Driver> Shard<D> {
    /// Puts a shard together, on its own thread. Its first turn makes it reachable.
    pub(crate) fn new(shard: usize, driver: D, fabric: &Arc<Fabric>, gate: Option<Gate>) -> Shard<D> {
        let settings = &fabric.settings;
        let magazine = Rc::new(fabric.depot.magazine());
        let frame_limit = FrameLimit::new(settings.frame_limit_bytes).expect("the settings were checked");
        fabric.mailboxes[shard].set_waker(driver.waker());
        let now = driver.now();
        let mut shard = Shard {
            content: fabric.content.clone(),
            wire: fabric.protocol.wire(frame_limit),
            frame_limit,
            serials: Serials::new(fabric.serials.clone()),
            connections: Connections::default(),
            embryos: Embryos::default(),
            #[cfg(feature = "wan")]
            line: line::Line::default(),
            #[cfg(feature = "wan")]
            versions: handshake::Versions::default(),
            gate,
            links: Links::default(),
            completions: Vec::with_capacity(settings.turn_completions_max),
            batch: settings.turn_completions_max,
            unattached: Vec::new(),
            refused_letters: 0,
            retiring: VecDeque::new(),
            unsent: Vec::new(),
            unsent_until: Time::ZERO,
            unsent_pause: Duration::ZERO,
            alike: Alike::default(),
            spare: Vec::new(),
            starved: VecDeque::new(),
            starved_pause: Duration::ZERO,
            starved_until: Time::ZERO,
            fed: 0,
            next_tick: now,
            trimmed: now,
            stopping: None,
            stops_at: None,
            core: Core::new(shard, now, Arc::clone(fabric), magazine),
            driver,
        };
        shard.watch_memory();
        shard
    }

    /// Turns until a stop is complete, then ends the driver.
    pub(crate) fn run(mut self) -> Leaked {
        while !self.is_stopped() {
            self.turn();
        }
        self.end()
    }

    /// One pass of the loop.
    fn turn(&mut self) {
        let wait = self.before_sleep();
        self.after_sleep(wait);
    }

    /// How long the coming poll may sleep. From here on, until the poll returned, other threads wake the shard.
    pub(crate) fn before_sleep(&mut self) -> Wait {
        let spins = self.core.fabric.settings.wait == WaitStrategy::Spin;
        if self.has_work() || spins || !self.mailbox().fall_asleep() {
            return Wait::NO;
        }
        let deadlines = [
            self.core.timers.next(),
            (!self.starved.is_empty()).then_some(self.starved_until),
            (!self.unsent.is_empty()).then_some(self.unsent_until),
            self.stopping.as_ref().map(|stopping| stopping.deadline),
        ];
        let until = deadlines.into_iter().flatten().min();
        if self.ticks() {
            // A tick is where everything happens at once: sleep through to it, however much comes meanwhile.
            let tick = until.map_or(self.next_tick, |until| until.min(self.next_tick));
            return Wait { until: Some(tick), at_least: u32::MAX };
        }
        Wait { until, at_least: 1 }
    }

    /// The rest of the turn.
    pub(crate) fn after_sleep(&mut self, wait: Wait) {
        let magazine = Rc::clone(&self.core.magazine);
        let _installed = magazine.install();
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.poll(&mut completions, self.batch, wait);
        self.mailbox().wake_up();
        let last = std::mem::replace(&mut self.core.now, self.driver.now());
        self.take_lag(last, wait);

        self.fed = 0;
        let taken = completions.len();
        self.core.lag.was_full = taken == self.batch;
        if taken > 0 {
            self.call_worker(Content::on_worker_begin);
        }
        let mut rest = completions.drain(..);
        while let Some(completion) = rest.next() {
            self.look_ahead(rest.as_slice());
            self.complete(completion);
            self.settle();
        }
        drop(rest);
        self.completions = completions;
        self.fire_timers();
        self.read_mail();
        self.feed_starved();
        if !self.ticks() {
            self.flush(false);
        } else if self.tick_is_due(taken) {
            self.flush(false);
            self.next_tick = self.core.now + ms(self.core.fabric.settings.tick_ms);
        } else {
            self.flush(true);
        }
        self.watch_pool();
        self.settle();
        self.retire_some();
        #[cfg(feature = "wan")]
        self.serve_line(taken);
        if taken > 0 {
            self.call_worker(Content::on_worker_end);
        }
        self.close_the_books(taken);
        self.trim(taken);
    }

    /// Looks after the pool now and then. A client gives its idle memory back, in a turn that had nothing else to do (its
    /// heartbeats bring some). A server keeps what it paid for; but after the pool had to refuse, all its shards let go of
    /// what lies idle with them, or one size of packets could hold the whole budget for ever, a few in each magazine.
    fn trim(&mut self, taken: usize) {
        if self.core.now.since(self.trimmed) < TRIM_PAUSE {
            return;
        }
        if self.core.fabric.is_server {
            self.give_back_after_refusal();
        } else if taken == 0 {
            self.core.magazine.trim();
        } else {
            return;
        }
        self.trimmed = self.core.now;
    }

    fn give_back_after_refusal(&self) {
        if !self.core.fabric.depot.has_refused() || self.stopping.is_some() {
            return;
        }
        for (shard, mailbox) in self.core.fabric.mailboxes.iter().enumerate() {
            if shard != self.core.shard {
                mailbox.control(Word::GiveBack);
            }
        }
        self.core.magazine.trim();
    }

    /// Adapts the batch to the time it took, and publishes the counters.
    fn close_the_books(&mut self, taken: usize) {
        let busy = self.driver.precise_now().since(self.core.now);
        self.core.lag.busy = busy;
        let settings = &self.core.fabric.settings;
        if taken == self.batch && busy > Duration::from_micros(settings.turn_us_max) {
            self.batch = (self.batch / 2).max(16).min(settings.turn_completions_max);
        } else if self.batch < settings.turn_completions_max {
            self.batch = (self.batch * 2).min(settings.turn_completions_max);
        }
        let counters = &mut self.core.counters;
        counters.add(Count::Turns, 1);
        counters.add(Count::BusyNanos, busy.as_nanos() as u64);
        counters
            .set(Count::LongestTurnNanos, counters.get(Count::LongestTurnNanos).max(busy.as_nanos() as u64));
        counters.set(Count::Queued, self.core.queues.bytes() as u64);
        counters.set(Count::Embryos, self.embryos.len() as u64);
        counters.set(Count::Waiting, self.gate.as_ref().map_or(0, Gate::waiting) as u64);
        counters.publish(&self.core.fabric.figures[self.core.shard]);
    }

    /// What the driver told, one closed set.
    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Data { conn, mut bytes, more } => {
                self.core.counters.add(Count::BytesIn, bytes.len() as u64);
                match self.connections.of(conn) {
                    Some(Owner::Session(local)) => self.session_data(local, &mut bytes, more),
                    Some(Owner::Embryo(index)) => self.embryo_data(index, &mut bytes, more),
                    None => debug_assert!(false, "data of a connection that nobody has: {conn:?}"),
                }
            }
            Completion::Sent { conn, outgoing, result } => match self.connections.of(conn) {
                Some(Owner::Session(local)) => self.session_sent(local, outgoing, result),
                Some(Owner::Embryo(index)) => self.embryo_sent(index, outgoing, result),
                None => debug_assert!(false, "a send of a connection that nobody has: {conn:?}"),
            },
            Completion::RecvEnded { conn, end } => match self.connections.of(conn) {
                Some(Owner::Session(local)) => self.session_recv_ended(local, end),
                Some(Owner::Embryo(index)) => self.embryo_recv_ended(index, end),
                None => debug_assert!(false, "a receive of a connection that nobody has: {conn:?}"),
            },
            Completion::Connected { conn, result } => match self.connections.of(conn) {
                Some(Owner::Embryo(index)) => self.embryo_connected(index, result),
                owner => debug_assert!(false, "a connect of {owner:?}: {conn:?}"),
            },
            Completion::Accepted { incoming, .. } => match &mut self.gate {
                Some(gate) => gate.accepted(incoming, &mut self.driver, &mut self.core, &self.content),
                None => drop(incoming),
            },
            Completion::AcceptStalled { error, .. } => {
                self.core.error_of(ErrorKind::AcceptStalled(error.to_string()), None, None);
            }
            Completion::Unlistened { .. } => {
                if let Some(gate) = &mut self.gate {
                    gate.unlistened();
                }
            }
        }
    }

    /// Does what callbacks decided, now that none runs. Each step may decide more; each session leaves once, so it ends.
    fn settle(&mut self) {
        loop {
            if let Some(local) = self.core.decided.pop() {
                self.begin_leave(local);
            } else if let Some(local) = self.core.to_hold.pop() {
                self.pause_if_held(local);
            } else if !self.core.errors.is_empty() {
                self.tell_errors();
            } else {
                return;
            }
        }
    }

    /// Starts a receive, or lists it to be started.
    fn start_receive(&mut self, conn: Conn, owner: Owner) -> bool {
        if self.driver.recv_start(conn).is_ok() {
            return true;
        }
        // The driver was full, which it is no more after the next poll: no pause for that.
        self.starved.push_back((conn, owner));
        self.starved_until = self.core.now;
        false
    }

    /// A receive ended for want of buffers: its turn comes again.
    fn starve(&mut self, conn: Conn, owner: Owner) {
        if !planted(Planted::StarvedForgotten) {
            self.starved.push_back((conn, owner));
        }
        self.core.error_of(ErrorKind::RecvBuffersExhausted, None, None);
    }

    /// Starts receives that starved, first come first served: as many as gave memory back in this turn. Starting all of
    /// them would be a lottery that the same few can win for seconds, since only some find a buffer and the others go to
    /// the end of the line. While nothing comes back, a few are tried after a pause that grows.
    fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let places = match self.fed {
            0 if self.core.now < self.starved_until => return,
            0 => {
                self.starved_until = self.core.now + self.starved_pause;
                self.starved_pause = (self.starved_pause * 2).clamp(ms(1), ms(64));
                STARVED_TRIES
            }
            fed => fed,
        };
        let mut tried = 0;
        while tried < places {
            let Some((conn, owner)) = self.starved.pop_front() else { break };
            if self.connections.of(conn) != Some(owner) {
                continue; // gone, and no reason for the others to wait
            }
            tried += 1;
            let behind = self.starved.len();
            match owner {
                Owner::Session(local) => self.resume_receive(local),
                Owner::Embryo(index) => self.embryo_receive(index),
            }
            if self.starved.len() > behind {
                // The driver is full: it stays the first.
                self.starved.rotate_right(1);
                break;
            }
        }
    }

    /// Bytes came: their memory goes back at the end of the turn.
    fn fed(&mut self) {
        self.fed += 1;
        self.starved_pause = Duration::ZERO;
    }

    /// Whether the tick's flush comes now. While a turn was full there is more to take in first, but not for ever: a flood
    /// puts the tick off by one tick at most.
    fn tick_is_due(&self, taken: usize) -> bool {
        let now = self.core.now;
        now >= self.next_tick
            && (taken < self.batch || now >= self.next_tick + ms(self.core.fabric.settings.tick_ms))
    }

    fn ticks(&self) -> bool {
        self.core.fabric.settings.tick_ms > 0
    }

    /// Whether another turn is due without anything new.
    pub(crate) fn has_work(&self) -> bool {
        #[cfg(feature = "wan")]
        if self.has_line() {
            return true;
        }
        (!self.unsent.is_empty() && self.core.now >= self.unsent_until)
            || !self.unattached.is_empty()
            || !self.retiring.is_empty()
            || !self.core.decided.is_empty()
            || !self.core.words.is_empty()
            || (!self.core.dirty.is_empty() && !self.ticks())
            || (!self.starved.is_empty() && self.core.now >= self.starved_until)
    }

    /// Whether a stop was asked for and nothing is left, or its patience is over.
    pub(crate) fn is_stopped(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let empty = self.core.sessions.live() == 0
            && self.embryos.is_empty()
            && self.unattached.is_empty()
            && self.gate.as_ref().is_none_or(|gate| gate.is_closed() && gate.is_balanced());
        empty || self.core.now >= stopping.deadline
    }

    /// Ends the driver, and tells what it had to leave behind.
    pub(crate) fn end(mut self) -> Leaked {
        self.retire_all();
        let leaked = self.driver.shutdown(ms(1_000));
        self.core.counters.publish(&self.core.fabric.figures[self.core.shard]);
        leaked
    }

    fn mailbox(&self) -> &Mailbox<Letter, Word> {
        &self.core.fabric.mailboxes[self.core.shard]
    }

    fn owner_of_session(&self, id: SessionId) -> Option<u32> {
        let (shard, local) = self.core.fabric.directory.layout().locate(id)?;
        (shard == self.core.shard && self.core.sessions.get(local).is_some_and(|session| session.id == id))
            .then_some(local)
    }
}

/// The leave reason for a broken connection.
fn reason_of(error: NetError) -> crate::LeaveReason {
    use crate::LeaveReason;
    match error {
        NetError::Reset
        | NetError::BrokenPipe
        | NetError::Aborted
        | NetError::NotConnected
        | NetError::Cancelled => LeaveReason::PeerReset,
        NetError::TimedOut | NetError::HostUnreachable | NetError::NetworkUnreachable | NetError::Refused => {
            LeaveReason::Unreachable
        }
        NetError::NoBufferSpace | NetError::OutOfMemory | NetError::TooManyFiles => {
            LeaveReason::SystemExhausted
        }
        _ => LeaveReason::System,
    }
}
