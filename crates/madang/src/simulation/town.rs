//! One run: a town of houses and peers, from its foundation to its end.
//!
//! ```text
//!   safety    faults, bad manners, restarts: whatever happens, no rule is broken
//!   liveness  no more faults: soon everybody is served and nothing is under way
//!   end       all houses stop: everything is back where it came from
//! ```

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang_driver::Time;
use madang_driver::sim::{FaultCounts, Faults, Random, World};
use madang_wire::classic::{Classic, ClassicSettings};

use super::codec::Tongue;
use super::content::{Content, GuestBook};
use super::house::House;
use super::ledger::{HouseTale, Ledger, Prefixes, Violation};
use super::peers::{ASK_EVERY, Seat, Table};
use super::scenario::Scenario;
use crate::engine::{Plan, no_state};
use crate::framing::Protocol;
use crate::gate::RuleBook;
use crate::id::SerialSource;
use crate::{ForeignFraming, Rules, SessionId, Settings};

/// The server, and the client beside it.
const SERVER: usize = 0;

/// Virtual time in which a healed world must come to rest.
const REST_AFTER: Duration = Duration::from_secs(60);

/// How late what has to happen in time may be: completions withheld, wakes delayed, shards clogged and blocked.
const SLACK: Duration = Duration::from_secs(12);

/// Steps in which it must, too: an endless loop of busy shards is no rest.
const STEPS_MAX: u32 = 400_000;

/// Every so many steps, the rules are looked at that look at everything.
const LOOK_EVERY: u32 = 64;

pub(super) struct Town {
    world: World,
    ledger: Arc<Mutex<Ledger>>,
    dice: Random,
    houses: Vec<House>,
    seats: Vec<Seat>,
    table: Table,
    threads: u16,
    restarts: u32,
    stalls: u32,
    stalls_again: Time,
    steps: u32,
    /// Half turns of shards so far.
    pub(super) turns: u64,
    ready: Vec<(usize, usize)>,
}

/// What came of a run.
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) trace_hash: u64,
    pub(super) faults: FaultCounts,
    pub(super) turns: u64,
    pub(super) virtual_time: Duration,
}

impl Town {
    pub(super) fn found(seed: u64, scenario: Scenario, ledger: &Arc<Mutex<Ledger>>) -> Town {
        let Scenario { tongue, settings, temper, faults, .. } = scenario;
        let world = World::new(seed, faults);
        world.set_descriptors_max(scenario.descriptors_max);
        let mut dice = world.random();
        let has_priorities = temper.prefer > 0;
        let temper = Arc::new(temper);
        let serials = SerialSource::World(Arc::new(AtomicU64::new(1)));
        let mut houses = Vec::new();
        let server = Content { ledger: Arc::clone(ledger), temper: Arc::clone(&temper), house: SERVER };
        let content = if scenario.user_style {
            let slots_a_shard = settings.slots_per_shard().max(2).next_power_of_two();
            crate::user::Content::Lobby(Arc::new(GuestBook { content: server.clone(), slots_a_shard }))
        } else {
            crate::user::Content::Handler(Arc::new(server.clone()))
        };
        let rules = Rules { book: Arc::new(RuleBook::new(world.clock(), settings.rules_max)) };
        if let Some(address) = scenario.exempt {
            rules.exempt(address).expect("there is room for one");
        }
        let plan = Plan {
            settings: settings.clone(),
            protocol: protocol(tongue, &settings, true),
            content,
            make_state: no_state(),
            rules: rules.book,
            is_server: true,
        };
        houses.push(House::new(
            SERVER,
            world.clone(),
            plan,
            scenario.driver.clone(),
            serials.clone(),
            vec![],
            server,
        ));
        if let Some((workers, links)) = scenario.client {
            let client = Content { ledger: Arc::clone(ledger), temper, house: SERVER + 1 };
            let settings = Settings { workers, node: String::new(), ..settings.clone() };
            let plan = Plan {
                protocol: protocol(tongue, &settings, false),
                content: crate::user::Content::Handler(Arc::new(client.clone())),
                make_state: no_state(),
                rules: Arc::new(RuleBook::new(world.clock(), settings.rules_max)),
                is_server: false,
                settings,
            };
            let links = vec![settings_address(&plan.settings); links];
            let house =
                House::new(SERVER + 1, world.clone(), plan, scenario.driver.clone(), serials, links, client);
            houses.push(house);
        }
        {
            let mut ledger = ledger.lock().expect("nothing panics under this lock");
            ledger.harmless = scenario.harmless;
            ledger.sealed = tongue.is_sealed();
            ledger.tampered = scenario.tampered;
            ledger.has_priorities = has_priorities;
            ledger.prefixes = Prefixes::new(&settings, tongue.is_lan(), scenario.exempt);
            for house in &houses {
                ledger.houses.push(HouseTale {
                    is_server: house.number == SERVER,
                    keeps_turns: tongue.is_own() && settings.queue_max > 0 && settings.queue_grace_ms > 0,
                    grace: Duration::from_millis(settings.queue_grace_ms),
                    leave_timeout: Duration::from_millis(settings.leave_timeout_ms),
                    frame_limit: settings.frame_limit_bytes as usize,
                    drain_bytes_max: settings.drain_bytes_max,
                    abortive_close: settings.abortive_close,
                    may_be_overloaded: settings.overload_lag_ms > 0 && settings.overload_cut_after_ms > 0,
                    silence_max: scenario.faultless.then(|| {
                        let own = !matches!(tongue, Tongue::Be32 | Tongue::Classic);
                        Duration::from_millis(if own {
                            settings.dead_after_ms
                        } else {
                            settings.idle_timeout_ms
                        })
                    }),
                    pool_may_be_short: settings.pool_short_bytes > 0 || settings.pool_budget_bytes < 1 << 26,
                    pool_is_ample: settings.pool_budget_bytes >= 1 << 26,
                    limits_input: settings.recv_messages_per_s + settings.recv_bytes_per_s > 0,
                    ..HouseTale::default()
                });
            }
        }
        let now = world.now();
        let seats = (0..scenario.seats)
            .map(|number| {
                let starts = now + Duration::from_nanos(dice.below(scenario.pace.as_nanos() as u64 * 4));
                Seat::new(number, scenario.lives, starts)
            })
            .collect();
        let table = Table {
            world: world.clone(),
            ledger: Arc::clone(ledger),
            tongue,
            frame_limit: settings.frame_limit_bytes,
            len_max: (settings.frame_limit_bytes as usize).min(4_000),
            pace: scenario.pace,
            dice: dice.fork(),
            keys: 0,
            to: settings_address(&settings),
            rudeness: scenario.rudeness,
            #[cfg(feature = "wan")]
            loot: None,
        };
        Town {
            world,
            ledger: Arc::clone(ledger),
            dice,
            houses,
            seats,
            table,
            threads: scenario.threads,
            restarts: scenario.restarts,
            stalls: scenario.stalls,
            stalls_again: now,
            steps: scenario.steps,
            turns: 0,
            ready: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let began = self.world.now();
        self.safety();
        if !self.is_broken() {
            self.liveness();
        }
        if !self.is_broken() {
            self.end();
        }
        let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
        if ledger.violation.is_some() {
            for line in self.houses.iter().flat_map(House::describe) {
                ledger.note(|| line);
            }
        }
        Outcome {
            violation: ledger.violation.clone(),
            trace_hash: self.world.trace_hash() ^ ledger.hash.rotate_left(1),
            faults: self.world.fault_counts(),
            turns: self.turns,
            virtual_time: self.world.now().since(began),
        }
    }

    fn safety(&mut self) {
        for house in &mut self.houses {
            house.start();
        }
        for step in 0..self.steps {
            self.meddle();
            self.step(false);
            if step % LOOK_EVERY == 0 {
                self.look();
            }
            if self.is_broken() {
                return;
            }
        }
    }

    fn liveness(&mut self) {
        self.world.set_faults(Faults::none());
        self.world.set_descriptors_max(usize::MAX);
        // Some bytes at a time a long message takes more steps than there are; short ones get through, and must.
        if self.houses[SERVER].settings().frame_limit_bytes > 1_000 {
            self.world.widen_windows(4_096);
        }
        self.lock().heals();
        for house in &mut self.houses {
            house.stop_as_announced(None);
        }
        let until = self.world.now() + REST_AFTER;
        let mut step = 0u32;
        let mut restless = String::new();
        loop {
            for house in &mut self.houses {
                if house.life.is_none() {
                    house.start();
                }
            }
            self.step(true);
            step += 1;
            if step % LOOK_EVERY == 0 {
                self.look();
                match self.is_at_rest() {
                    Ok(()) => return,
                    Err(what) if self.world.now() > until => {
                        self.lock().fail("I23", what);
                    }
                    Err(what) => restless = what,
                }
                self.ask_over_links();
            }
            if step > STEPS_MAX {
                self.lock().fail("I9", format!("so much happens, and still: {restless}"));
            }
            if self.is_broken() {
                return;
            }
        }
    }

    fn end(&mut self) {
        for house in self.houses.iter_mut().rev() {
            house.stop(self.dice.coin());
        }
        let mut step = 0u32;
        while self.houses.iter().any(|house| house.life.is_some()) {
            self.step(true);
            step += 1;
            if step % LOOK_EVERY == 0 {
                self.look();
            }
            if step > STEPS_MAX {
                self.lock().fail("I21", "the houses do not come to their end although so much happens");
            }
            if self.is_broken() {
                return;
            }
        }
        let open = self.world.open_sockets();
        if open > 0 {
            self.lock().fail("I7", format!("{open} sockets are open at the end"));
        }
    }

    /// What nobody asked for: other threads call, somebody stops a house.
    fn meddle(&mut self) {
        if self.threads > 0 && self.dice.below(6) == 0 {
            let index = self.dice.index(self.houses.len());
            let thread = self.dice.below(self.threads.into()) as u16;
            let house = &mut self.houses[index];
            if let Some(life) = &mut house.life {
                self.ledger.lock().expect("nothing panics under this lock").now = self.world.now();
                house.content.meddle(&mut life.remote, thread);
            }
        }
        if self.dice.chance(self.restarts) {
            let index = self.dice.index(self.houses.len());
            let graceful = self.dice.coin();
            // Every other graceful stop of the server is announced before.
            match index {
                SERVER if graceful && self.turns % 2 == 0 => {
                    let left = Duration::from_micros(self.turns % 60_000);
                    self.houses[index].announce(left);
                }
                _ => self.houses[index].stop(graceful),
            }
        }
        let now = self.world.now();
        for house in &mut self.houses {
            house.stop_as_announced(Some(now));
        }
        if self.stalls > 0 && self.dice.chance(self.stalls) {
            let index = self.dice.index(self.houses.len());
            let span = Duration::from_millis(self.dice.between(100, 3_000));
            // One at a time: what must happen in time may be late by one of them, not by a row.
            let now = self.world.now();
            if now >= self.stalls_again {
                self.houses[index].stand_still(span);
                self.stalls_again = now + SLACK + span;
            }
        }
        for house in &mut self.houses {
            if house.life.is_none() && self.dice.below(20) == 0 {
                house.start();
            }
        }
    }

    /// The next thing happens: a shard's half turn, a peer's act, an offload thread's, or time passes.
    fn step(&mut self, calm: bool) {
        let now = self.world.now();
        self.lock().now = now;
        let runnable = self.world.runnable();
        self.ready.clear();
        for house in &self.houses {
            house.ready(&runnable, &mut self.ready);
        }
        let due: Option<usize> = {
            let count = self.seats.len();
            let from = self.dice.index(count.max(1));
            (0..count).map(|index| (index + from) % count).find(|index| {
                let seat = &self.seats[*index];
                seat.next_act <= now || seat.has_mail(calm)
            })
        };
        let choice = self.dice.below(8);
        if let Some(seat) = due.filter(|_| choice < 3 || self.ready.is_empty()) {
            self.seats[seat].act(&mut self.table, calm);
        } else if choice == 3
            || self.ready.is_empty() && self.houses.iter().any(|house| house.next_event() <= Some(now))
        {
            let index = self.dice.index(self.houses.len());
            self.houses[index].work(&mut self.dice, calm);
            if self.ready.is_empty() {
                self.pass_time(now);
            }
        } else if !self.ready.is_empty() {
            let (house, shard) = self.ready[self.dice.index(self.ready.len())];
            self.turns += 1;
            self.houses[house].step(shard);
        } else {
            for house in &mut self.houses {
                house.work(&mut self.dice, calm);
            }
            self.pass_time(now);
        }
    }

    /// Time moves to the next moment at which something is different.
    fn pass_time(&mut self, now: Time) {
        let seats = self.seats.iter().map(|seat| seat.next_act);
        let houses = self.houses.iter().filter_map(House::next_event);
        let ours = seats.chain(houses).filter(|at| *at > now).min();
        let worlds = self.world.next_event().filter(|at| *at > now);
        match worlds.into_iter().chain(ours).min() {
            Some(at) => self.world.advance(at),
            None => self.world.advance(now + Duration::from_millis(1)),
        }
    }

    /// Rules that look at everything.
    fn look(&mut self) {
        self.lock().look(SLACK);
        for house in &self.houses {
            house.look();
        }
    }

    /// A client's content asks over each link that is up.
    fn ask_over_links(&mut self) {
        for house in self.houses.iter_mut().skip(SERVER + 1) {
            let mut sessions: Vec<SessionId> = house.link_sessions().into_iter().flatten().collect();
            // A mailbox may have room for one question only: each link is first now and then.
            let first = self.dice.index(sessions.len());
            sessions.rotate_left(first);
            for id in sessions {
                let now = self.world.now();
                let is_due = {
                    let mut ledger = self.ledger.lock().expect("nothing panics under this lock");
                    ledger.now = now;
                    let tale = ledger.sessions.get(&id);
                    tale.is_some_and(|tale| tale.asked.is_none_or(|at| now.since(at) > ASK_EVERY))
                };
                let Some(life) = house.life.as_mut().filter(|_| is_due) else { continue };
                if house.content.ask(&mut life.remote, id) {
                    self.ledger.lock().expect("nothing panics under this lock").tale(id).asked = Some(now);
                }
            }
        }
    }

    /// Whether everybody is served, and nothing is under way.
    fn is_at_rest(&self) -> Result<(), String> {
        let ledger = self.lock();
        let is_full = ledger.living_in(SERVER) >= self.houses[SERVER].settings().max_sessions;
        let has_no_room_for = |address| is_full || ledger.has_all_it_may(address);
        for seat in &self.seats {
            seat.is_served(&ledger, has_no_room_for(seat.address()))?;
        }
        let no_room_for_links = has_no_room_for(Ipv4Addr::LOCALHOST.into());
        for house in self.houses.iter().skip(SERVER + 1) {
            for (link, id) in house.link_sessions().into_iter().enumerate() {
                match id {
                    None if !no_room_for_links => return Err(format!("link {link} does not come up")),
                    Some(id)
                        if !no_room_for_links
                            && !ledger.sessions.get(&id).is_some_and(|tale| tale.has_answer) =>
                    {
                        return Err(format!("link {link} ({id}) has no answer"));
                    }
                    _ => {}
                }
            }
        }
        ledger.look_at_rest(no_room_for_links)?;
        ledger.look_at_nodes()?;
        let somebody_is_outside =
            no_room_for_links || self.seats.iter().any(|seat| has_no_room_for(seat.address()));
        drop(ledger);
        if somebody_is_outside {
            return Ok(()); // those outside knock on: there is always something under way
        }
        match self.houses.iter().find(|house| house.is_stopping() || !house.is_quiet()) {
            Some(house) => Err(format!("something is still under way in house {}", house.number)),
            None => Ok(()),
        }
    }

    fn is_broken(&self) -> bool {
        self.lock().violation.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nothing panics under this lock")
    }
}

fn settings_address(settings: &Settings) -> std::net::SocketAddr {
    settings.bind
}

#[cfg_attr(not(feature = "wan"), expect(unused_variables, reason = "sealed worlds alone ask"))]
fn protocol(tongue: Tongue, settings: &Settings, is_server: bool) -> Protocol {
    match tongue {
        Tongue::Lan => Protocol::Lan,
        #[cfg(feature = "wan")]
        Tongue::Sealed => Protocol::Lan,
        #[cfg(feature = "wan")]
        Tongue::Wan if is_server => Protocol::Wan(crate::wan::Wan {
            keys: Some(Arc::new(super::cloak::server_keys())),
            check: super::cloak::check(settings.offload_jobs_max > 1),
            ..crate::wan::Wan::default()
        }),
        #[cfg(feature = "wan")]
        Tongue::Wan => Protocol::Wan(super::cloak::client()),
        Tongue::Be32 => Protocol::Be32,
        Tongue::Classic => {
            let limit = settings.frame_limit_bytes.min(65_535) as u16;
            let classic = ClassicSettings { limit, ..ClassicSettings::default() };
            ForeignFraming::custom(move |_, seed| Classic::new(classic, seed)).0
        }
    }
}
