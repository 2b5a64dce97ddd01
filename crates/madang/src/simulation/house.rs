//! One engine in the world: a server's or client's shards, each on a simulated driver, and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_driver::sim::{Random, SimDriver, World};
use madang_driver::{DriverSettings, Time, Wait};

use super::content::Content;
use super::jobs::SimJobs;
use super::ledger::Ledger;
use crate::engine::{Plan, open_gate};
use crate::fabric::Fabric;
use crate::gate::Counted;
use crate::id::SerialSource;
use crate::letters::{Letter, Route, Word};
use crate::links::{LinkCell, LinkSpec};
use crate::shard::Shard;
use crate::{LeaveReason, Remote, SessionId, Settings, TurnedAway};

/// A house: it is built, lives, stops and is built again; each time with the same plan.
pub(super) struct House {
    pub(super) number: usize,
    pub(super) content: Content,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    world: World,
    plan: Plan,
    driver: DriverSettings,
    serials: SerialSource,
    links: Vec<SocketAddr>,
    pub(super) life: Option<Life>,
}

/// A house between its start and the end of its stop.
pub(super) struct Life {
    pub(super) fabric: Arc<Fabric>,
    jobs: Arc<SimJobs>,
    /// Those of handshake threads; nothing ever waits here if there are none.
    handshakes: Arc<SimJobs>,
    /// Jobs that are done and whose answer is still on its way.
    answers: Vec<(Time, usize, Word)>,
    seats: Vec<Option<Desk>>,
    pub(super) cells: Vec<LinkCell>,
    stops_since: Option<Time>,
    /// A stop was announced for then.
    stops_at: Option<Time>,
    pub(super) remote: Remote,
}

/// A shard at work.
struct Desk {
    shard: Shard<SimDriver>,
    driver: usize,
    /// How its next poll sleeps; `None` while it is between two turns and has not said so.
    wait: Option<Wait>,
    /// A callback blocks it until then.
    busy_until: Time,
}

impl House {
    pub(super) fn new(
        number: usize,
        world: World,
        plan: Plan,
        driver: DriverSettings,
        serials: SerialSource,
        links: Vec<SocketAddr>,
        content: Content,
    ) -> House {
        let ledger = Arc::clone(&content.ledger);
        House { number, content, ledger, world, plan, driver, serials, links, life: None }
    }

    /// Starts it. False when there is no descriptor for its listener: later, perhaps.
    pub(super) fn start(&mut self) -> bool {
        let jobs = Arc::new(SimJobs::new(self.plan.settings.offload_jobs_max));
        let handshakes_max = self.plan.handshakes_max();
        let handshakes = Arc::new(SimJobs::new(handshakes_max.unwrap_or(0)));
        let fabric = self
            .plan
            .assemble(
                Arc::clone(&jobs) as Arc<_>,
                handshakes_max.map(|_| Arc::clone(&handshakes) as Arc<_>),
                self.serials.clone(),
            )
            .expect("a scenario's settings are right");
        let mut seats = Vec::new();
        for shard in 0..self.plan.settings.workers {
            let mut driver = self.world.driver(self.driver.clone());
            let number = driver.number();
            let gate = if shard == 0 && fabric.is_server {
                match open_gate(&mut driver, &fabric) {
                    Ok((gate, _)) => Some(gate),
                    Err(_) => return false,
                }
            } else {
                None
            };
            let shard = Shard::new(shard, driver, &fabric, gate);
            seats.push(Some(Desk { shard, driver: number, wait: None, busy_until: Time::ZERO }));
        }
        {
            let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
            let number = self.number;
            let tale = &mut ledger.houses[number];
            tale.life += 1;
            tale.stops = false;
            tale.stops_hard = false;
            tale.announced = None;
            (tale.joins, tale.leaves, tale.declined) = (0, 0, 0);
            ledger.house_starts(number);
        }
        let remote = Remote { fabric: Arc::clone(&fabric) };
        let mut life = Life {
            fabric,
            jobs,
            handshakes,
            answers: Vec::new(),
            seats,
            cells: Vec::new(),
            stops_since: None,
            stops_at: None,
            remote,
        };
        for (link, remote) in self.links.iter().enumerate() {
            let cell: LinkCell = Arc::new(AtomicU64::new(0));
            life.cells.push(Arc::clone(&cell));
            let spec = LinkSpec { link: link as u32, route: Route { remote: *remote, local: None }, cell };
            life.fabric.mailboxes[link % self.plan.settings.workers].control(Word::Connect(spec));
        }
        self.life = Some(life);
        true
    }

    /// Asks it to stop.
    pub(super) fn stop(&mut self, graceful: bool) {
        let Some(life) = &mut self.life else { return };
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        let tale = &mut ledger.houses[self.number];
        tale.stops = true;
        tale.stops_hard |= !graceful;
        ledger.did(if graceful { "graceful stop" } else { "hard stop" });
        ledger.note(|| format!("house {} stops, gracefully: {graceful}", self.number));
        life.stops_since.get_or_insert(self.world.now());
        crate::engine::ask_to_stop(&life.fabric, graceful);
    }

    /// Says that it will stop in so long.
    pub(super) fn announce(&mut self, left: Duration) {
        let Some(life) = self.life.as_mut().filter(|life| life.stops_since.is_none()) else { return };
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        let tale = &mut ledger.houses[self.number];
        tale.announced = Some(tale.announced.map_or(left, |before| before.max(left)));
        ledger.did("stop announced");
        ledger.note(|| format!("house {} announces a stop in {left:?}", self.number));
        life.stops_at = Some(self.world.now() + left);
        life.fabric.announce(left);
    }

    /// Stops it where that was announced and is due: when `now` is at hand, or in any case.
    pub(super) fn stop_as_announced(&mut self, now: Option<Time>) {
        let at = self.life.as_ref().and_then(|life| life.stops_at);
        if at.is_some_and(|at| now.is_none_or(|now| at <= now)) && !self.is_stopping() {
            self.stop(true);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.stops_since.is_some())
    }

    /// None of its shards takes a step for so long.
    pub(super) fn stand_still(&mut self, span: Duration) {
        let until = self.world.now() + span;
        let Some(life) = &mut self.life else { return };
        for desk in life.seats.iter_mut().flatten() {
            desk.busy_until = desk.busy_until.max(until);
        }
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        ledger.did("house stands still");
        ledger.note(|| format!("house {} stands still for {span:?}", self.number));
    }

    /// Its shards that could take a step now.
    pub(super) fn ready(&self, runnable: &[usize], into: &mut Vec<(usize, usize)>) {
        let Some(life) = &self.life else { return };
        let now = self.world.now();
        for (index, desk) in life.seats.iter().enumerate() {
            if let Some(desk) = desk {
                if desk.busy_until <= now && (desk.wait.is_none() || runnable.contains(&desk.driver)) {
                    into.push((self.number, index));
                }
            }
        }
    }

    /// When something happens here by itself.
    pub(super) fn next_event(&self) -> Option<Time> {
        let life = self.life.as_ref()?;
        let now = self.world.now();
        let busy = life.seats.iter().flatten().map(|desk| desk.busy_until).filter(|at| *at > now).min();
        let answers = life.answers.iter().map(|(at, ..)| *at).min();
        let jobs = (life.jobs.len() + life.handshakes.len() > 0).then(|| now + Duration::from_millis(1));
        [busy, answers, jobs].into_iter().flatten().min()
    }

    /// Half a turn of a shard: it goes to sleep, or it wakes and does all that a turn does.
    pub(super) fn step(&mut self, index: usize) {
        let inbox_max = self.inbox_max();
        let Some(life) = &mut self.life else { return };
        let Some(desk) = &mut life.seats[index] else { return };
        match desk.wait.take() {
            None => {
                let wait = desk.shard.before_sleep();
                self.world.plan_wait(desk.driver, wait);
                desk.wait = Some(wait);
            }
            Some(wait) => {
                self.ledger.lock().expect("nothing panics under this lock").now = self.world.now();
                desk.shard.after_sleep(wait);
                let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
                if let Some(span) = ledger.blocks.take() {
                    desk.busy_until = self.world.now() + span;
                }
            }
        }
        let outcome = desk.shard.audit(inbox_max);
        let stopped = desk.wait.is_none() && desk.shard.is_stopped();
        let outcome = outcome.and_then(|()| self.audit_gate());
        if let Err((rule, what)) = outcome {
            self.ledger.lock().expect("nothing panics under this lock").fail(rule, what);
        }
        if stopped {
            self.end_shard(index);
        }
    }

    /// A server's sessions are within the limits of their prefixes, and between letters the gate's counts are what is here.
    fn audit_gate(&self) -> Result<(), (&'static str, String)> {
        let Some(life) = self.life.as_ref().filter(|life| life.fabric.is_server) else { return Ok(()) };
        let shards = || life.seats.iter().flatten().map(|desk| &desk.shard);
        let sessions: Vec<Counted> = shards().flat_map(|shard| shard.counted()).collect();
        self.ledger.lock().expect("nothing panics under this lock").look_at_prefixes(&sessions);
        match shards().find_map(|shard| shard.gate()) {
            Some(gate) if shards().all(|shard| shard.has_read_all()) => {
                gate.audit(&sessions).map_err(|what| ("I17", what))
            }
            _ => Ok(()),
        }
    }

    /// The most input that a session may keep: one frame, and what one poll can tell of it.
    fn inbox_max(&self) -> usize {
        let batch = self.plan.settings.turn_completions_max.min(self.driver.recv_buffers.into());
        let lent = batch.max(1) * self.driver.recv_buffer_bytes as usize;
        self.plan.settings.frame_limit_bytes as usize + 16 + lent + self.driver.pause_bytes_max + (64 << 10)
    }

    fn end_shard(&mut self, index: usize) {
        let Some(life) = &mut self.life else { return };
        let Some(desk) = life.seats[index].take() else { return };
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        ledger.note(|| format!("shard {index} of house {} has stopped", self.number));
        let left_over = desk.shard.left_over();
        if !left_over.is_empty() {
            ledger.fail(
                "I7",
                format!("shard {index} of house {} ends with {}", self.number, left_over.join(", ")),
            );
        }
        drop(ledger);
        let leaked = desk.shard.end();
        if !leaked.is_none() {
            self.ledger
                .lock()
                .expect("nothing panics under this lock")
                .fail("I7", format!("a driver ends with {leaked}"));
        }
        if life.seats.iter().all(Option::is_none) {
            self.end();
        }
    }

    /// All shards have ended: everything is back where it came from.
    fn end(&mut self) {
        let life = self.life.take().expect("it was alive");
        for mailbox in &life.fabric.mailboxes {
            while mailbox.pop_control().is_some() {}
            while let Some(letter) = mailbox.pop() {
                drop::<Letter>(letter);
            }
        }
        life.jobs.clear();
        life.handshakes.clear();
        drop(life.answers);
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        ledger.look_at_waits(self.number);
        let figures = life.fabric.figures();
        let packets = life.fabric.depot.figures().in_use.blocks;
        if packets > 0 {
            ledger.fail("I7", format!("house {} ends with {packets} packets out", self.number));
        }
        if figures.leaves[usize::from(LeaveReason::Evicted.code())] > 0 {
            ledger.did("largest holder cut");
        }
        if figures.turned_away[usize::from(TurnedAway::Overloaded.code())] > 0 {
            ledger.did("refusal for overload");
        }
        if figures.leaves[usize::from(LeaveReason::Overload.code())] > 0 {
            ledger.did("worst consumer cut");
        }
        if figures.input_throttled > 0 {
            ledger.did("input held back");
        }
        let tale = &ledger.houses[self.number];
        let (joins, leaves, declined) = (tale.joins, tale.leaves, tale.declined);
        let mut books = vec![
            ("joins, the declined among them", joins + declined, figures.joins),
            ("leaves of all joins", joins, leaves),
            ("leaves counted", figures.left(), leaves + declined),
            (
                "sessions, leaving ones, embryos, queued bytes",
                0,
                figures.sessions + figures.sessions_leaving + figures.embryos + figures.queued_bytes,
            ),
        ];
        if life.fabric.is_server {
            let ends = figures.refused + figures.failed + figures.joins;
            books.push(("accepted = refused + failed + joined", figures.accepted, ends));
        }
        for (what, one, other) in books {
            if one != other {
                ledger.fail("I19", format!("house {}: {what}: {one} and {other}", self.number));
            }
        }
        ledger.note(|| format!("house {} has stopped", self.number));
    }

    /// Looks whether a stop takes too long.
    pub(super) fn look(&self) {
        if let Some(since) = self.life.as_ref().and_then(|life| life.stops_since) {
            let patience =
                Duration::from_millis(self.plan.settings.leave_timeout_ms) + Duration::from_secs(12);
            if self.world.now().since(since) > patience {
                let what = format!("house {} was asked to stop at {since:?} and has not", self.number);
                self.ledger.lock().expect("nothing panics under this lock").fail("I21", what);
            }
        }
    }

    /// A thread beside the shards takes a job, or hands an answer over.
    pub(super) fn work(&mut self, dice: &mut Random, calm: bool) {
        let now = self.world.now();
        let Some(life) = &mut self.life else { return };
        for crew in [&life.jobs, &life.handshakes] {
            let Some((shard, word)) = crew.perform(|count| dice.index(count)) else { continue };
            let late = if calm { 0 } else { dice.below(20_000_000) >> dice.below(12) };
            life.answers.push((now + Duration::from_nanos(late), shard, word));
        }
        while let Some(index) = life.answers.iter().position(|(at, ..)| *at <= now) {
            let (_, shard, word) = life.answers.swap_remove(index);
            life.fabric.mailboxes[shard].control(word);
        }
    }

    /// What its shards look like inside, for the end of a failed run.
    pub(super) fn describe(&self) -> Vec<String> {
        let desks = self.life.iter().flat_map(|life| life.seats.iter().enumerate());
        let living = desks.filter_map(|(index, desk)| desk.as_ref().map(|desk| (index, desk)));
        living
            .map(|(index, Desk { shard, wait, .. })| {
                format!("house {} shard {index}, {wait:?}, {shard:?}", self.number)
            })
            .collect()
    }

    /// Whether nothing is under way in it.
    pub(super) fn is_quiet(&self) -> bool {
        self.life.as_ref().is_none_or(|life| {
            life.answers.is_empty()
                && life.jobs.len() + life.handshakes.len() == 0
                && life.seats.iter().flatten().all(|desk| desk.shard.is_quiet())
        })
    }

    /// The sessions of its links.
    pub(super) fn link_sessions(&self) -> Vec<Option<SessionId>> {
        let cells = self.life.iter().flat_map(|life| &life.cells);
        cells.map(|cell| SessionId::from_u64(cell.load(Ordering::Acquire))).collect()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.plan.settings
    }
}
