//! The gate: who may come in, and where to.
//!
//! It stands on shard 0, with the only listener and the only count of places: one writer, no lock. After the filter it
//! picks the peer's shard, once; greeting and session stay there. Shards report what became of those they were given.
//!
//! ```text
//!   accept ─► rules ─► limits ─► on_connection_request ─► room? ─► a shard ─► (greeting) ─► Proven ─► Place, or the queue
//!                                                                    └─ Gone, Joined, Leaving, Left ◄─┘
//! ```
//!
//! A stranger who is turned away costs no memory, no slot and no line in a log of his own: he is counted by cause, and
//! some of it is told.

#[cfg(feature = "simulation")]
mod audit;
mod book;
mod guests;
mod limits;
mod nodes;
mod prefix;
mod queue;
mod rules;
mod table;
mod turned_away;
mod waiting;

#[cfg(feature = "simulation")]
pub(crate) use self::audit::Counted;
pub(crate) use self::book::RuleBook;
pub(crate) use self::guests::GuestId;
pub use self::prefix::Prefix;
pub(crate) use self::queue::Turn;
pub use self::rules::{Rule, RuleError, RuleKind, RuleLine, RuleSet, Rules};
pub use self::turned_away::TurnedAway;

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use madang_driver::{Driver, Incoming, Listener, Time};
use madang_wire::lan::RefusalReason;

use self::guests::{Guest, Guests, Stage};
use self::limits::{Limits, Pace, PrefixLimits};
use self::nodes::Nodes;
use self::table::{Table, Verdict};
use self::waiting::{Knock, Waiting};
use crate::error::{Error, ErrorKind};
use crate::figures::Count;
use crate::framing::Protocol;
use crate::letters::{Entry, Report, Shown, Word};
use crate::planted::{Planted, planted};
use crate::shard::{Core, ErrorGate, Timer};
use crate::timers::TimerKey;
use crate::user::{Content, stranger};
use crate::{Admission, LeaveReason, Node, Refusal, Settings};

/// Guests that were told to make way and are still on their way out: for each there may be one more than `embryos_max`.
/// An abort takes a turn or two; in a flood that outruns this, newcomers are turned away instead.
pub(crate) const EVICTED_MAX: usize = 64;

/// Strangers turned away that are told a second; the rest is counted. So few that they leave room for other errors.
const TOLD_A_SECOND: u32 = 10;

pub(crate) struct Gate {
    door: Door,
    /// Peers greet before they have a place.
    greets: bool,
    /// Peers are servers of ours.
    is_lan: bool,
    /// A stop was announced.
    is_draining: bool,
    rules: Arc<RuleBook>,
    table: Box<Table>,
    limits: Limits,
    pacing: Option<Pacing>,
    places: Places,
    waiting: Waiting,
    guests: Guests,
    embryos_max: usize,
    /// Connections that each shard was given and has not reported gone.
    load: Vec<usize>,
    nodes: Nodes,
    told: ErrorGate,
}

/// How somebody enters whom neither the rules nor content turn away.
#[derive(Default)]
pub(crate) struct Entering {
    exempt: bool,
    priority: u8,
    /// He greets, and is answered with this.
    refusal: Option<Box<Refusal>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open(Listener),
    Closing,
    Closed,
}

/// How fast connections are accepted, whoever they are: past it they wait in the kernel's backlog.
struct Pacing {
    pace: Pace,
    due: Time,
    /// Accepting pauses, until this fires.
    pause: Option<TimerKey>,
}

/// The count of places. A session that leaves gives its place back at once, as long as the slots hold out.
struct Places {
    taken: usize,
    leaving: usize,
    sessions_max: usize,
    slots: usize,
}

impl Places {
    fn have_room(&self) -> bool {
        self.taken < self.sessions_max && self.taken + self.leaving < self.slots
    }

    fn take(&mut self) -> bool {
        let free = self.have_room();
        self.taken += usize::from(free);
        free
    }
}

impl Gate {
    /// `secret`: chance, from the driver.
    pub(crate) fn new(
        listener: Listener,
        protocol: &Protocol,
        settings: &Settings,
        rules: &Arc<RuleBook>,
        secret: [u8; 16],
        now: Time,
    ) -> Gate {
        let is_lan = protocol.is_lan();
        let accept_rate = settings.accept_rate(is_lan);
        Gate {
            door: Door::Open(listener),
            greets: protocol.greets(),
            is_lan,
            is_draining: false,
            rules: Arc::clone(rules),
            table: rules.table(),
            limits: Limits::new(PrefixLimits::new(settings, is_lan, protocol.greets()), secret),
            pacing: (accept_rate > 0).then(|| Pacing {
                // A tenth of a second's worth at once: what a turn may take in.
                pace: Pace::new(accept_rate, (accept_rate / 10).max(64)),
                due: Time::ZERO,
                pause: None,
            }),
            places: Places {
                taken: 0,
                leaving: 0,
                sessions_max: settings.max_sessions,
                slots: settings.slots_per_shard(),
            },
            waiting: Waiting::new(settings),
            guests: Guests::default(),
            embryos_max: settings.embryos_max,
            load: vec![0; settings.workers],
            nodes: Nodes::default(),
            told: ErrorGate::new(TOLD_A_SECOND, now),
        }
    }

    /// A peer is at the door.
    pub(crate) fn accepted(
        &mut self,
        incoming: Incoming,
        driver: &mut impl Driver,
        core: &mut Core,
        content: &Content,
    ) {
        core.counters.add(Count::Accepted, 1);
        let remote = incoming.peer();
        if let Some(entering) = self.looks_at(remote, incoming.local(), core, content) {
            self.let_in(incoming, entering, driver, core);
        }
        self.keep_pace(driver, core);
    }

    fn let_in(&mut self, incoming: Incoming, entering: Entering, driver: &mut impl Driver, core: &mut Core) {
        let remote = incoming.peer();
        // Level 1 has no time for those who must greet first, level 2 for anybody new.
        if !entering.exempt && core.fabric.overload() >= if self.greets { 1 } else { 2 } {
            return self.turn_away(TurnedAway::Overloaded, remote, core);
        }
        if self.greets && !self.has_room_for_a_stranger(core) {
            return self.turn_away(TurnedAway::Full, remote, core);
        }
        let Entering { exempt, priority, refusal } = entering;
        let stage = if self.greets { Stage::Unproven } else { Stage::Waits };
        let guest = Guest { shard: 0, address: remote.ip(), since: core.now, exempt, priority, stage };
        let guest = self.guests.add(guest);
        if !exempt {
            self.limits.came(remote.ip(), self.greets);
        }
        if self.greets {
            self.give(guest, incoming, Entry::Greets(refusal), core);
        } else {
            self.knock(Knock { guest, incoming: Some(incoming) }, driver, core);
        }
    }

    /// The gate's work for any stranger: turns him away, or answers how he enters.
    pub(crate) fn looks_at(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        core: &mut Core,
        content: &Content,
    ) -> Option<Entering> {
        match self.admits(remote, local, core, content) {
            Ok(entering) => Some(entering),
            Err(cause) => {
                self.turn_away(cause, remote, core);
                None
            }
        }
    }

    /// Whether a peer may come in at all; and if so, how.
    fn admits(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        core: &mut Core,
        content: &Content,
    ) -> Result<Entering, TurnedAway> {
        if !self.is_open() {
            return Err(TurnedAway::Closing);
        }
        if self.is_lan && !is_inside(remote.ip(), &core.fabric.settings) {
            return Err(TurnedAway::Outsider);
        }
        if let Some(table) = self.rules.fresh() {
            self.table = table;
        }
        let exempt = match self.table.judge(remote.ip(), core.now) {
            Verdict::Enter { exempt } => exempt,
            Verdict::NotListed => return Err(TurnedAway::NotListed),
            Verdict::Banned(rule) => {
                self.rules.count(rule);
                return Err(TurnedAway::Banned);
            }
            Verdict::Blocked(rule) => {
                self.rules.count(rule);
                return Err(TurnedAway::Blocked);
            }
        };
        if !exempt || planted(Planted::ExemptLimited) {
            self.limits.admit(remote.ip(), core.now)?;
        }
        if self.is_draining && self.greets {
            let refusal = Some(Box::new(RefusalReason::Draining.into()));
            return Ok(Entering { exempt, priority: 0, refusal });
        } else if self.is_draining {
            return Err(TurnedAway::Closing);
        }
        let peer = stranger(remote, local);
        // A filter that panics lets nobody in.
        match catch_unwind(AssertUnwindSafe(|| content.on_connection_request(&peer))) {
            Ok(Admission::Accept) => Ok(Entering { exempt, ..Entering::default() }),
            Ok(Admission::Priority(priority)) => Ok(Entering { exempt, priority, refusal: None }),
            Ok(Admission::RefuseWith(refusal)) if self.greets => {
                Ok(Entering { exempt, priority: 0, refusal: Some(Box::new(refusal)) })
            }
            Ok(Admission::Refuse | Admission::RefuseWith(_)) => Err(TurnedAway::Content),
            Err(panic) => {
                core.error_of(ErrorKind::Panic(crate::offload::panic_text(&*panic)), None, Some(remote));
                Err(TurnedAway::Content)
            }
        }
    }

    /// Counts somebody who is not let in, and tells of some of them.
    fn turn_away(&mut self, cause: TurnedAway, remote: SocketAddr, core: &mut Core) {
        core.counters.turned_away(cause);
        if matches!(cause, TurnedAway::Content | TurnedAway::Closing) {
            return;
        }
        let kind = match cause {
            TurnedAway::Outsider => ErrorKind::Outsider,
            TurnedAway::Full => ErrorKind::ServerFull,
            cause => ErrorKind::TurnedAway(cause),
        };
        core.counters.add(Count::Errors, 1);
        if let Some(suppressed) = self.told.pass(core.now) {
            core.errors.push(Error { kind, session: None, peer: Some(remote), suppressed });
        }
    }

    /// Whether there is room for one more who has proven nothing; if need be, somebody makes it.
    fn has_room_for_a_stranger(&mut self, core: &mut Core) -> bool {
        if self.guests.staying() < self.embryos_max {
            return true;
        }
        if self.guests.evicted() >= EVICTED_MAX {
            return false;
        }
        let crowd = (self.embryos_max / 4).max(4) as u32;
        let Some(guest) = self.guests.least_welcome(core.now, crowd) else { return false };
        let shard = self.guests.get(guest).expect("who makes way is here").shard;
        self.set_stage(guest, Stage::Evicted);
        core.tell(shard, Word::Evict { guest });
        true
    }

    fn set_stage(&mut self, guest: GuestId, stage: Stage) {
        let Guest { address, exempt, stage: before, .. } = self.guests.set_stage(guest, stage);
        if exempt {
            return;
        }
        if before == Stage::Unproven {
            self.limits.proved(address);
        }
        if stage.is_leaving() && !before.is_leaving() {
            self.limits.leaves(address);
        }
    }

    /// A guest is gone before any shard had him, or when his shard says so.
    fn forget(&mut self, guest: GuestId) -> Option<Guest> {
        let guest = self.guests.remove(guest)?;
        match guest.stage {
            _ if guest.exempt => {}
            stage if stage.is_leaving() => self.limits.left(guest.address),
            stage => self.limits.went(guest.address, stage == Stage::Unproven),
        }
        Some(guest)
    }

    fn least_loaded(&self) -> usize {
        let least = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        least.map_or(0, |(shard, _)| shard)
    }

    /// A shard tells what became of somebody.
    pub(crate) fn reported(&mut self, report: Report, driver: &mut impl Driver, core: &mut Core) {
        match report {
            Report::Proven { guest, node, ticket, priority } => {
                self.guests.raise(guest, priority);
                self.proven(guest, &node, ticket, driver, core)
            }
            Report::Heard { guest } => self.return_heard(guest),
            Report::Gone { guest: id, keeps } => {
                let Some(guest) = self.forget(id) else { return };
                self.load[guest.shard] -= 1;
                self.waiter_gone(id, &guest, keeps, core);
                if guest.stage == Stage::Placed {
                    self.places.taken -= 1;
                    self.serve(core);
                }
            }
            Report::Joined { guest, node } => {
                self.guests.remove(guest);
                self.waiting.placed.remove(&guest);
                if let Some((node, id)) = node {
                    if !self.nodes.joined(&node, id) {
                        core.fabric.disconnect(id, LeaveReason::Superseded);
                    }
                }
            }
            Report::Leaving { counted_at } => {
                if let Some(address) = counted_at {
                    self.limits.leaves(address);
                }
                self.places.taken -= 1;
                self.places.leaving += 1;
                self.serve(core);
            }
            Report::Left { shard, at_once, counted_at, node } => {
                let count = if at_once { &mut self.places.taken } else { &mut self.places.leaving };
                *count -= usize::from(!planted(Planted::PlaceKept));
                self.load[shard] -= 1;
                match counted_at {
                    Some(address) if at_once => self.limits.went(address, false),
                    Some(_) if planted(Planted::PrefixKept) => {}
                    Some(address) => self.limits.left(address),
                    None => {}
                }
                if let Some((node, id)) = node {
                    self.nodes.left(&node, id);
                }
                self.serve(core);
            }
        }
    }

    /// A peer has greeted and wants a place. An older life of its node makes way, if there is one.
    fn proven(
        &mut self,
        guest: GuestId,
        node: &Node,
        ticket: Option<Box<Shown>>,
        driver: &mut impl Driver,
        core: &mut Core,
    ) {
        let Some(&Guest { address, exempt: is_exempt, stage: Stage::Unproven, .. }) = self.guests.get(guest)
        else {
            return; // he was told to go before his greeting came
        };
        let older = if core.fabric.overload() >= 2 && !is_exempt {
            Err(RefusalReason::Busy)
        } else if self.is_welcoming() {
            if node.name.is_empty() { Ok(Vec::new()) } else { self.nodes.admit(node) }
        } else {
            Err(RefusalReason::Draining)
        };
        self.set_stage(guest, Stage::Waits);
        match older {
            Ok(older) => {
                for id in older {
                    core.fabric.disconnect(id, LeaveReason::Superseded);
                }
                if ticket.as_ref().is_some_and(|shown| self.is_unsettled(&shown.ticket)) {
                    return self.refuse(guest, RefusalReason::Busy, core);
                }
                if ticket.is_some_and(|shown| self.returns(guest, *shown, driver, core)) {
                    return;
                }
                // Now is the time to look: his old session, if he has one, was told to go, and he has no turn of his own. It
                // counts until it is gone, so that at its prefix's limit a later life may hear "busy" once, and comes again.
                if !is_exempt && self.limits.has_too_many(address) {
                    core.error_of(ErrorKind::TurnedAway(TurnedAway::PrefixConnections), None, None);
                    return self.refuse(guest, RefusalReason::Busy, core);
                }
                self.knock(Knock { guest, incoming: None }, driver, core);
            }
            Err(reason) => self.refuse(guest, reason, core),
        }
    }

    /// One of the gate's timers is due.
    pub(crate) fn timer(&mut self, timer: Timer, driver: &mut impl Driver, core: &mut Core) {
        match timer {
            Timer::Waiter(turn) => self.waiter_overdue(turn, core),
            Timer::Release => self.release_again(core),
            Timer::News => self.spread_news(core),
            Timer::Accept => self.accept_again(driver),
            _ => debug_assert!(false, "no timer of the gate: {timer:?}"),
        }
    }

    /// After an accept: whether it is time for a pause.
    fn keep_pace(&mut self, driver: &mut impl Driver, core: &mut Core) {
        let (Some(pacing), Door::Open(listener)) = (&mut self.pacing, self.door) else { return };
        // Who is accepted is here, also past the pace: an accept brings all that a turn has room for.
        if !pacing.pace.take(&mut pacing.due, core.now) {
            pacing.due = pacing.pace.past(pacing.due);
        }
        let next = pacing.pace.next(pacing.due);
        if next > core.now && pacing.pause.is_none() {
            driver.accept_pause(listener);
            pacing.pause = Some(core.timers.set(next, Timer::Accept));
            core.counters.add(Count::AcceptPauses, 1);
        }
    }

    /// A pause for the rate of accepting is over.
    fn accept_again(&mut self, driver: &mut impl Driver) {
        if let (Some(pacing), Door::Open(listener)) = (&mut self.pacing, self.door) {
            pacing.pause = None;
            driver.accept_resume(listener);
        }
    }

    /// Closes the listener: nobody comes in any more.
    pub(crate) fn close(&mut self, driver: &mut impl Driver, core: &mut Core) {
        if let Door::Open(listener) = self.door {
            self.door = Door::Closing;
            driver.unlisten(listener);
        }
        if let Some(pause) = self.pacing.as_mut().and_then(|pacing| pacing.pause.take()) {
            core.timers.cancel(pause);
        }
        self.end_waiting(core);
    }

    pub(crate) fn unlistened(&mut self) {
        self.door = Door::Closed;
    }

    /// The server will stop: from now on newcomers are refused in words, and so is whoever waits.
    pub(crate) fn announce(&mut self, core: &mut Core) {
        self.is_draining = true;
        self.end_waiting(core);
    }

    /// Whether somebody new may get a place, now or later.
    fn is_welcoming(&self) -> bool {
        self.is_open() && !self.is_draining
    }

    fn is_open(&self) -> bool {
        matches!(self.door, Door::Open(_))
    }

    /// Whether the listener is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.door == Door::Closed
    }

    /// Whether all counts are back to nothing: every shard has told of everybody it was given.
    pub(crate) fn is_balanced(&self) -> bool {
        self.waiting.is_empty()
            && self.places.taken == 0
            && self.places.leaving == 0
            && self.guests.is_empty()
            && self.limits.is_empty()
            && self.load.iter().all(|load| *load == 0)
    }
}

/// Whether an address may be a server of ours: loopback, private, link-local, or listed.
pub(crate) fn is_inside(ip: IpAddr, settings: &Settings) -> bool {
    let ip = ip.to_canonical();
    let private = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    private
        || settings.allow_public
        || settings.allowed_peers.iter().any(|allowed| allowed.to_canonical() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_only_inside_addresses_are_inside() {
        let settings =
            Settings { allowed_peers: vec!["203.0.113.9".parse().unwrap()], ..Settings::default() };
        let check =
            |ip: &str, inside: bool| assert_eq!(is_inside(ip.parse().unwrap(), &settings), inside, "{ip}");
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
        ] {
            check(ip, true);
        }
        for ip in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            check(ip, false);
        }
        check("::ffff:10.0.0.1", true);
        check("203.0.113.9", true);
    }

    #[test]
    fn s10_places_of_leaving_sessions_are_given_again_within_the_slack() {
        let mut places = Places { taken: 0, leaving: 0, sessions_max: 2, slots: 3 };
        assert!(places.take() && places.take() && !places.take());
        places.taken -= 1;
        places.leaving += 1;
        assert!(places.take(), "the slack holds the one that leaves");
        places.taken -= 1;
        places.leaving += 1;
        assert!(!places.take(), "the slots are used up");
    }
}
