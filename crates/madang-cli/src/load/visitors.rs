//! Connections beside those that are measured: strangers who hold a place and say little, garbage, and log-ins one after
//! the other. One thread with a driver of its own carries them all, while the crowd speaks.
//!
//! | who | says | must end | its time |
//! |---|---|---|---|
//! | stranger | nothing, or a greeting so slowly that it never gets done | by the server, without a byte | from connected to ended |
//! | garbage | a probe, noise, or a preamble with a wrong tag | by the server, without a byte | the same |
//! | log-in | what a client says until it is welcome, then goodbye | in good order | from when it was due to the welcome |
//!
//! What each of them wants is a system call of its own. A batch of them would be one that the honest, who share the processor,
//! wait for to its end where the kernel does not preempt itself: 100 µs in one of ten cases, 300 in one of a hundred, more than
//! all that the server takes.
//!
//! The handshakes of log-ins are begun before they come: a client's share of a storm would otherwise be measured with it.

mod group;
mod turn;
mod visitor;

use std::rc::Rc;
use std::time::Duration;

use madang::packet::{Depot, Magazine, PoolSettings};
use madang_driver::{Completion, Driver, DriverSettings, Time};

use self::group::Group;
pub(crate) use self::group::{Came, Sort};
use self::visitor::Visitor;
use super::outcome::Teller;
use super::plan::Plan;
use super::schedule::Schedule;
use super::stream::Speech;
use super::stream::wan::Prepared;
use super::together::Together;

/// Visitors that come at a pace and are here at the same time; those beyond are counted as missed. A server's deadline for
/// strangers times the pace must fit, or the pace is not what it says.
const PACED_MAX: usize = 16_384;

/// Handshakes that are begun before a run that says no number; some KiB each.
const PREPARED_MAX: u64 = 24_000;

/// Between two bytes of a stranger who dribbles: no pause in it is long, and no deadline is met.
const DRIBBLE: Duration = Duration::from_millis(250);

/// They do not all do it in the same moment, as no crowd of strangers does: each has its part of the pause, of half a
/// millisecond. Forty at once kept their processor from the honest for longer than any echo takes. Prime, so that it parts
/// those in even places too.
const DRIBBLE_PARTS: usize = 499;

/// Completions of one poll.
const BATCH: usize = 512;

/// How often the thread looks up from its work.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// How long all may take to go when the run is over: longer than any server's patience with a stranger.
const GO: Duration = Duration::from_secs(15);

/// Who visits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visits {
    /// So many at a time, within a second of the start; who was sent away is followed by another. They come one by one,
    /// or all of them would go, and come again, in the same moment.
    pub(crate) strangers: usize,
    /// Every second one of them dribbles.
    pub(crate) dribble: bool,
    /// Connections a second.
    pub(crate) garbage: Option<u64>,
    /// Log-ins a second.
    pub(crate) storm: Option<u64>,
    /// Handshakes of log-ins to begin before each time that they come.
    pub(crate) prepared: Option<u64>,
}

impl Visits {
    pub(crate) fn any(&self) -> bool {
        self.strangers > 0 || self.garbage.is_some() || self.storm.is_some()
    }

    /// The most that are here at the same time.
    pub(crate) fn connections_max(&self) -> usize {
        let paced = self.garbage.is_some() || self.storm.is_some();
        // Who is gone has its place until the driver gave all of it back; the next has come by then.
        self.strangers + self.strangers / 4 + if paced { PACED_MAX } else { 0 }
    }
}

/// The size of driver that the thread needs.
pub(crate) fn driver_settings(plan: &Plan) -> DriverSettings {
    DriverSettings {
        connections_max: plan.visits.connections_max(),
        own_file_table: plan.own_file_table,
        ..DriverSettings::default()
    }
}

pub(crate) struct Visitors<'a, D> {
    plan: &'a Plan,
    together: &'a Together,
    driver: D,
    magazine: Rc<Magazine>,
    /// By the driver's index of a connection.
    visitors: Vec<Option<Visitor>>,
    groups: [Group; Sort::ALL.len()],
    /// The pace at which strangers come as long as some are missing.
    strangers: Schedule,
    /// The paces of garbage and log-ins.
    paces: [Option<Schedule>; 2],
    /// When the paces began, in ns of the run's clock; nothing while nobody is to come.
    coming_since: Option<u64>,
    prepared: Vec<Prepared>,
    /// Those that want something of the driver.
    marked: Vec<usize>,
    next_dribble: Time,
    /// Whose turn to dribble it is then.
    dribbling: usize,
    /// How many have come, for where they come from and what they say.
    came: usize,
    origin: Time,
    now: Time,
    teller: Teller,
    completions: Vec<Completion>,
}

impl<'a, D: Driver> Visitors<'a, D> {
    pub(crate) fn new(plan: &'a Plan, together: &'a Together, teller: Teller, driver: D) -> Self {
        let now = driver.now();
        let (strangers, paces) = paces(&plan.visits);
        Self {
            plan,
            together,
            magazine: Rc::new(Depot::new(PoolSettings::default()).magazine()),
            visitors: (0..plan.visits.connections_max()).map(|_| None).collect(),
            groups: Sort::ALL.map(Group::new),
            strangers,
            paces,
            coming_since: None,
            prepared: Vec::new(),
            marked: Vec::new(),
            next_dribble: now,
            dribbling: 0,
            came: 0,
            origin: now,
            now,
            teller,
            completions: Vec::with_capacity(BATCH),
            driver,
        }
    }

    /// Visits while the crowd speaks, and sees all visitors out.
    pub(crate) fn run(mut self) -> Vec<Came> {
        let magazine = Rc::clone(&self.magazine);
        let _installed = magazine.install();
        self.prepare();
        self.together.arrived();
        // One turn at the least: the driver's clock stood still while the handshakes were prepared.
        self.turn(self.now);
        let deadline = self.now + self.plan.ramp;
        while !self.together.all_arrived() && self.now < deadline && !self.together.is_over() {
            self.turn(self.now + Duration::from_millis(1));
        }
        self.origin = self.now;
        let end = self.origin + self.plan.warm_up + self.plan.measured;
        while self.now < end && !self.together.is_over() {
            self.arrive();
            self.dribble();
            let next = self.paces.iter().flatten().map(Schedule::next_due_ns).min();
            let due =
                self.coming_since.zip(next).map(|(since, ns)| self.origin + Duration::from_nanos(since + ns));
            let mut look = self.now + LOOK_EACH;
            if self.plan.visits.dribble {
                look = look.min(self.next_dribble);
            }
            self.turn(due.map_or(look, |due| due.min(look)).min(end));
        }
        self.see_out();
        let leaked = self.driver.shutdown(Duration::from_secs(1));
        if !leaked.is_none() {
            self.groups[0].fail(leaked.to_string());
        }
        self.groups.into_iter().filter_map(Group::report).collect()
    }

    fn prepare(&mut self) {
        let (Speech::Wan(pinned), Some(rate)) = (&self.plan.speech, self.plan.visits.storm) else { return };
        let seconds = (self.plan.warm_up + self.plan.measured).as_secs() + 1;
        let of_the_run = || rate.saturating_mul(seconds).min(PREPARED_MAX);
        let wanted = self.plan.visits.prepared.unwrap_or_else(of_the_run) as usize;
        while self.prepared.len() < wanted {
            self.prepared.push(Prepared::new(pinned, self.plan.size, entropy(&mut self.driver)));
        }
    }

    /// Those whose time to come it is. After a rest the paces begin anew: nobody makes up for it.
    fn arrive(&mut self) {
        if !self.together.visitors_come() {
            self.coming_since = None;
            return;
        }
        let since = match self.coming_since {
            Some(since) => since,
            None => self.come(),
        };
        let now = self.clock() - since;
        while let Some(due) = self.strangers.take(now) {
            if self.groups[Sort::Stranger as usize].here() < self.plan.visits.strangers {
                self.connect(Sort::Stranger, since + due);
            }
        }
        for (at, sort) in [Sort::Garbage, Sort::LogIn].into_iter().enumerate() {
            while let Some(due) = self.paces[at].as_mut().and_then(|pace| pace.take(now)) {
                self.connect(sort, since + due);
            }
        }
    }

    /// Begins the paces anew, with all that they need, and gives the moment.
    fn come(&mut self) -> u64 {
        self.prepare();
        // The driver's clock stood still meanwhile.
        self.turn(self.now);
        (self.strangers, self.paces) = paces(&self.plan.visits);
        let since = self.clock();
        self.coming_since = Some(since);
        since
    }

    fn here(&self) -> usize {
        self.groups.iter().map(Group::here).sum()
    }

    /// A byte of each who dribbles and whose moment it is.
    fn dribble(&mut self) {
        if self.now < self.next_dribble {
            return;
        }
        self.next_dribble = self.now + DRIBBLE / DRIBBLE_PARTS as u32;
        let part = self.dribbling;
        self.dribbling = (part + 1) % DRIBBLE_PARTS;
        for at in (part..self.visitors.len()).step_by(DRIBBLE_PARTS) {
            if self.visitors[at].as_mut().is_some_and(Visitor::dribble) {
                self.marked.push(at);
            }
        }
    }

    /// Waits for the server to end all that are still here, and then ends them itself.
    fn see_out(&mut self) {
        let deadline = self.now + GO;
        while self.now < deadline && self.here() > 0 && !self.together.is_over() {
            self.dribble();
            self.turn(self.now + DRIBBLE / DRIBBLE_PARTS as u32);
        }
        // Whoever was told to stop is not to blame for those who are still here.
        let blame = (!self.together.is_over()).then_some("still here when all should be gone");
        for at in 0..self.visitors.len() {
            self.end(at, blame);
        }
        let deadline = self.now + Duration::from_secs(3);
        while self.now < deadline && self.visitors.iter().any(Option::is_some) {
            self.turn(self.now + LOOK_EACH);
        }
    }

    /// Nanoseconds since the messages started.
    fn clock(&self) -> u64 {
        u64::try_from(self.now.since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The pace of strangers, and those of garbage and log-ins.
fn paces(visits: &Visits) -> (Schedule, [Option<Schedule>; 2]) {
    let pace = |rate: Option<u64>| rate.map(|rate| Schedule::new(rate, 0, 1));
    let strangers = Schedule::new(visits.strangers.max(1) as u64 * 3 / 2, 0, 1);
    (strangers, [pace(visits.garbage), pace(visits.storm)])
}

fn entropy(driver: &mut impl Driver) -> [u8; 32] {
    let mut bytes = [0; 32];
    driver.random(&mut bytes);
    bytes
}
