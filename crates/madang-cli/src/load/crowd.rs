//! One thread of a load run: a driver and the connections that it carries, from the first connect to the last close.
//!
//! No session, handler or queue of the engine is here: connections speak to the driver directly. What is due becomes
//! said once a turn, so that all messages of a connection leave in one send, as a busy client's would.

mod turn;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use madang::packet::{Depot, Magazine, PoolSettings};
use madang_driver::{Completion, Conn, ConnectError, Driver, DriverSettings, Outgoing, Time};

use super::failure::Failure;
use super::link::{Heard, Link, Stage};
use super::message::Messages;
use super::outcome::{Outcome, Teller};
use super::plan::Plan;
use super::report::Drive;
use super::schedule::Schedule;
use super::together::Together;

/// Connections of one thread that are under way at the same time: well within the backlog and the embryo table of a
/// server, enough for some 10,000 a second on loopback.
const RAMP: usize = 128;

/// Completions of one poll.
const BATCH: usize = 256;

/// How often a thread looks up from its work.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// How long connections that leave in good order, and then those that were aborted, may take.
const LEAVE: Duration = Duration::from_secs(3);

pub(crate) struct Crowd<'a, D> {
    plan: &'a Plan,
    together: &'a Together,
    thread: usize,
    driver: D,
    magazine: Rc<Magazine>,
    messages: Messages,
    links: Vec<Link>,
    /// By the driver's index of a connection: which link it is, or was.
    places: Vec<usize>,
    /// Links that are neither ready nor failed.
    coming: usize,
    ready: usize,
    /// Links that want something of the driver.
    marked: Vec<usize>,
    pace: Option<Schedule>,
    /// Whether messages become due.
    speaking: bool,
    /// The link whose turn it is to say the next paced message.
    turn_of: usize,
    /// When the run's clock started: when the messages did.
    origin: Time,
    now: Time,
    outcome: Outcome,
    teller: Teller,
    failures: BTreeMap<String, u64>,
    heard: Heard,
    /// Frames on their way into a packet.
    scratch: Vec<u8>,
    /// Empty ones, kept for their room.
    spare: Vec<Outgoing>,
    completions: Vec<Completion>,
}

/// The size of driver that a thread needs.
pub(crate) fn driver_settings(plan: &Plan, thread: usize) -> DriverSettings {
    DriverSettings {
        connections_max: plan.share(thread).len(),
        own_file_table: plan.own_file_table,
        ..DriverSettings::default()
    }
}

impl<'a, D: Driver> Crowd<'a, D> {
    pub(crate) fn new(
        plan: &'a Plan,
        together: &'a Together,
        thread: usize,
        teller: Teller,
        driver: D,
    ) -> Self {
        let pace = match plan.drive {
            Drive::Closed { .. } => None,
            Drive::Paced { messages_per_second } => {
                Some(Schedule::new(messages_per_second, thread as u32, plan.threads as u32))
            }
        };
        let now = driver.now();
        Self {
            plan,
            together,
            thread,
            driver,
            magazine: Rc::new(Depot::new(PoolSettings::default()).magazine()),
            messages: Messages::new(plan.size),
            links: Vec::with_capacity(plan.share(thread).len()),
            places: vec![0; plan.share(thread).len()],
            coming: 0,
            ready: 0,
            marked: Vec::new(),
            pace,
            speaking: false,
            turn_of: 0,
            origin: now,
            now,
            outcome: Outcome::default(),
            teller,
            failures: BTreeMap::new(),
            heard: Heard::default(),
            scratch: Vec::new(),
            spare: Vec::new(),
            completions: Vec::with_capacity(BATCH),
        }
    }

    /// The whole run.
    pub(crate) fn run(mut self) -> Outcome {
        let magazine = Rc::clone(&self.magazine);
        let _installed = magazine.install();
        self.connect_all();
        self.wait_for_the_others();
        self.speak();
        self.hear_the_last();
        self.leave();
        let leaked = self.driver.shutdown(Duration::from_secs(1));
        if !leaked.is_none() {
            *self.failures.entry(leaked.to_string()).or_default() += 1;
        }
        self.outcome.failures = self.failures;
        self.outcome
    }

    /// Connects with a bounded number under way, until all are ready or failed or the time for it is over.
    fn connect_all(&mut self) {
        let share = self.plan.share(self.thread);
        let mut next = share.start;
        let deadline = self.now + self.plan.ramp;
        while (next < share.end || self.coming > 0) && self.now < deadline && !self.together.is_over() {
            while next < share.end && self.coming < RAMP {
                match self.driver.connect(&self.plan.route(next)) {
                    Ok(conn) => self.add(next, conn),
                    Err(ConnectError::Full) => break,
                    Err(ConnectError::Failed(error)) => self.count(Failure::Connect(error)),
                }
                next += 1;
            }
            self.turn(self.now + LOOK_EACH);
        }
        // Whoever was told to stop is not to blame for what is missing.
        let blamed = !self.together.is_over();
        if blamed {
            (next..share.end).for_each(|_| self.count(Failure::NotAdmitted));
        }
        for at in 0..self.links.len() {
            match self.links[at].stage {
                Stage::Connecting | Stage::Greeting if blamed => self.fail(at, Failure::NotAdmitted),
                Stage::Connecting | Stage::Greeting => self.abort(at),
                _ => {}
            }
        }
    }

    fn add(&mut self, number: usize, conn: Conn) {
        let entropy = || {
            let mut bytes = [0; 32];
            self.driver.random(&mut bytes);
            bytes
        };
        let (stream, greeting) = self.plan.speech.begin(self.plan.size, number as u64, entropy);
        self.places[conn.index()] = self.links.len();
        self.links.push(Link::new(number, conn, stream, greeting));
        self.coming += 1;
    }

    fn wait_for_the_others(&mut self) {
        self.together.arrived();
        // Their ramp has the same deadline; they may be slower to notice.
        let deadline = self.now + self.plan.ramp;
        while !self.together.all_arrived() && self.now < deadline && !self.together.is_over() {
            self.turn(self.now + Duration::from_millis(1));
        }
    }

    /// Warm-up and measured time.
    fn speak(&mut self) {
        self.origin = self.now;
        self.speaking = true;
        let from = self.plan.warm_up;
        self.outcome.window = nanos(from)..nanos(from + self.plan.measured);
        if let Drive::Closed { depth } = self.plan.drive {
            for at in 0..self.links.len() {
                if self.links[at].is_ready() {
                    (0..depth).for_each(|_| self.links[at].due(0));
                    self.mark(at);
                }
            }
        }
        while self.clock() < self.outcome.window.end && self.ready > 0 && !self.together.is_over() {
            self.take_due();
            let end = self.origin + Duration::from_nanos(self.outcome.window.end);
            let due = self.pace.map(|pace| self.origin + Duration::from_nanos(pace.next_due_ns()));
            let look = self.now + LOOK_EACH;
            self.turn(due.map_or(look, |due| due.min(look)).min(end));
        }
        self.outcome.end(self.clock());
        self.speaking = false;
    }

    /// The messages that are due by now, each to the next link that is ready.
    fn take_due(&mut self) {
        let now = self.clock();
        while let Some(due) = self.pace.as_mut().and_then(|pace| pace.take(now)) {
            let links = self.links.len();
            let is_ready = |at: &usize| self.links[*at].is_ready();
            let Some(at) = (self.turn_of..self.turn_of + links).map(|at| at % links).find(is_ready) else {
                return;
            };
            self.turn_of = at + 1;
            self.links[at].due(due);
            self.mark(at);
        }
    }

    /// Waits for the echoes that are still out; those that do not come are latencies too, and failures.
    fn hear_the_last(&mut self) {
        let deadline = self.now + self.plan.patience;
        let outstanding = |links: &[Link]| links.iter().any(|link| link.is_ready() && link.outstanding() > 0);
        while outstanding(&self.links) && self.now < deadline {
            self.turn(self.now + Duration::from_millis(1));
        }
        for at in 0..self.links.len() {
            if self.links[at].is_ready() && self.links[at].outstanding() > 0 {
                self.fail(at, Failure::Silent);
            }
        }
    }

    /// Ends the connections in good order, so that the server sees players that leave and not a crash.
    fn leave(&mut self) {
        self.links.iter().for_each(|link| self.outcome.seal(link.seals()));
        let goodbye = self.plan.speech.goodbye();
        for at in 0..self.links.len() {
            if self.links[at].is_ready() {
                self.links[at].control(&goodbye);
                self.links[at].stage = Stage::Leaving { half_closed: false };
                self.mark(at);
            }
        }
        self.turns_until_all_are_gone();
        for at in 0..self.links.len() {
            self.abort(at);
        }
        self.turns_until_all_are_gone();
    }

    fn turns_until_all_are_gone(&mut self) {
        let deadline = self.now + LEAVE;
        while self.now < deadline && self.links.iter().any(|link| link.stage != Stage::Gone) {
            self.turn(self.now + LOOK_EACH);
        }
    }

    /// Nanoseconds since the messages started.
    fn clock(&self) -> u64 {
        nanos(self.now.since(self.origin))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
