//! The gate: who may come in, and where to.
//!
//! It stands on shard 0, with the only listener and the only count of places: one writer, no lock. After the filter it
//! picks the peer's shard, once; greeting and session stay there. Shards report what became of those they were given.
//!
//! ```text
//!   accept ─► filter ─► on_connection_request ─► room? ─► a shard ─► (greeting) ─► Proven ─► Place
//!                                                            └─ Leaving, Left, EmbryoGone, Joined … ◄─┘
//! ```

mod doorstep;
mod nodes;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use madang_driver::{Driver, Incoming, Listener};
use madang_wire::lan::RefusalReason;

use self::doorstep::{Doorstep, Knock, PATIENCE};
use self::nodes::Nodes;
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::letters::{EmbryoKey, Report, Word};
use crate::planted::{Planted, planted};
use crate::shard::{Core, Timer};
use crate::user::{Content, stranger};
use crate::{Admission, LeaveReason, Node, Settings};

pub(crate) struct Gate {
    door: Door,
    /// Peers greet before they have a place.
    greets: bool,
    places: Places,
    doorstep: Doorstep,
    /// Peers that were given to a shard and are not joined, those with a place included.
    embryos: usize,
    embryos_max: usize,
    /// Connections that each shard was given and has not reported gone.
    load: Vec<usize>,
    nodes: Nodes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open(Listener),
    Closing,
    Closed,
}

/// The count of places. A session that leaves gives its place back at once, as long as the slots hold out.
struct Places {
    taken: usize,
    leaving: usize,
    sessions_max: usize,
    slots: usize,
}

impl Places {
    fn take(&mut self) -> bool {
        let free = self.taken < self.sessions_max && self.taken + self.leaving < self.slots;
        self.taken += usize::from(free);
        free
    }
}

impl Gate {
    pub(crate) fn new(listener: Listener, greets: bool, settings: &Settings) -> Gate {
        Gate {
            door: Door::Open(listener),
            greets,
            places: Places {
                taken: 0,
                leaving: 0,
                sessions_max: settings.max_sessions,
                slots: settings.slots_per_shard(),
            },
            doorstep: Doorstep::new(settings.slack()),
            embryos: 0,
            embryos_max: settings.embryos_max,
            load: vec![0; settings.workers],
            nodes: Nodes::default(),
        }
    }

    /// A peer is at the door.
    pub(crate) fn accepted(&mut self, incoming: Incoming, core: &mut Core, content: &Content) {
        core.counters.add(Count::Accepted, 1);
        if !self.admits(&incoming, core, content) {
            core.counters.add(Count::Refused, 1);
        } else if !self.greets {
            self.knock(Knock::Incoming(incoming), core);
        } else if self.embryos < self.embryos_max {
            self.embryos += 1;
            self.give(incoming, core);
        } else {
            self.full(Knock::Incoming(incoming), core);
        }
    }

    fn admits(&mut self, incoming: &Incoming, core: &mut Core, content: &Content) -> bool {
        if self.door == Door::Closing || self.door == Door::Closed {
            return false;
        }
        let remote = incoming.peer();
        if self.greets && !is_inside(remote.ip(), &core.fabric.settings) {
            core.error_of(ErrorKind::Outsider, None, Some(remote));
            return false;
        }
        let peer = stranger(remote, incoming.local());
        // A filter that panics lets nobody in.
        match catch_unwind(AssertUnwindSafe(|| content.on_connection_request(&peer))) {
            Ok(Admission::Accept) => true,
            Ok(Admission::Refuse) => false,
            Err(panic) => {
                core.error_of(ErrorKind::Panic(crate::offload::panic_text(&*panic)), None, Some(remote));
                false
            }
        }
    }

    /// Hands a socket to the shard where it will stay.
    fn give(&mut self, incoming: Incoming, core: &mut Core) {
        let shard = self.least_loaded();
        self.load[shard] += 1;
        core.fabric.mailboxes[shard].control(Word::Adopt { incoming, placed: !self.greets });
    }

    /// Somebody wants a place: he gets it, or waits for one behind those who wait already, or hears that there is none.
    fn knock(&mut self, knock: Knock, core: &mut Core) {
        if self.doorstep.is_empty() && self.places.take() {
            return self.enter(knock, core);
        }
        if self.doorstep.is_full() {
            return self.full(knock, core);
        }
        let patience = core.timers.set(core.now + PATIENCE, Timer::Doorstep);
        self.doorstep.wait(patience, knock);
    }

    /// A place is taken for him.
    fn enter(&mut self, knock: Knock, core: &mut Core) {
        match knock {
            Knock::Incoming(incoming) => self.give(incoming, core),
            Knock::Proven { shard, embryo } => {
                core.fabric.mailboxes[shard].control(Word::Place { embryo, answer: Ok(()) });
            }
        }
    }

    /// There is no place for him.
    fn full(&mut self, knock: Knock, core: &mut Core) {
        let remote = match &knock {
            Knock::Incoming(incoming) => Some(incoming.peer()),
            Knock::Proven { .. } => None,
        };
        core.error_of(ErrorKind::ServerFull, None, remote);
        self.turn_away(knock, RefusalReason::Full, core);
    }

    fn turn_away(&mut self, knock: Knock, reason: RefusalReason, core: &mut Core) {
        match knock {
            Knock::Incoming(_) => core.counters.add(Count::Refused, 1),
            Knock::Proven { shard, embryo } => {
                core.fabric.mailboxes[shard].control(Word::Place { embryo, answer: Err(reason) });
            }
        }
    }

    /// A place came free: those on the doorstep come first.
    fn serve_doorstep(&mut self, core: &mut Core) {
        while !self.doorstep.is_empty() && self.places.take() {
            let (patience, first) = self.doorstep.first().expect("somebody waits");
            core.timers.cancel(patience);
            self.enter(first, core);
        }
    }

    /// Patience on the doorstep is over for somebody.
    pub(crate) fn doorstep_overdue(&mut self, core: &mut Core) {
        while let Some(knock) = self.doorstep.overdue(core.now) {
            self.full(knock, core);
        }
    }

    fn least_loaded(&self) -> usize {
        let least = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        least.map_or(0, |(shard, _)| shard)
    }

    /// A shard tells what became of somebody.
    pub(crate) fn reported(&mut self, report: Report, core: &mut Core) {
        match report {
            Report::Proven { shard, embryo, node } => self.proven(shard, embryo, node, core),
            Report::EmbryoGone { shard } => {
                self.embryos -= 1;
                self.load[shard] -= 1;
            }
            Report::PlaceUnused => {
                self.places.taken -= 1;
                self.serve_doorstep(core);
            }
            Report::NotJoined { shard } => {
                self.places.taken -= 1;
                self.load[shard] -= 1;
                self.serve_doorstep(core);
            }
            Report::Joined { node } => {
                self.embryos -= 1;
                if let Some((node, id)) = node {
                    if !self.nodes.joined(&node, id) {
                        core.fabric.disconnect(id, LeaveReason::Superseded);
                    }
                }
            }
            Report::Leaving => {
                self.places.taken -= 1;
                self.places.leaving += 1;
                self.serve_doorstep(core);
            }
            Report::Left { shard, node } => {
                self.places.leaving -= usize::from(!planted(Planted::PlaceKept));
                self.load[shard] -= 1;
                if let Some((node, id)) = node {
                    self.nodes.left(&node, id);
                }
                self.serve_doorstep(core);
            }
        }
    }

    /// A peer has greeted and wants a place. An older life of its node makes way, if there is one.
    fn proven(&mut self, shard: usize, embryo: EmbryoKey, node: Arc<Node>, core: &mut Core) {
        let older = if matches!(self.door, Door::Open(_)) {
            if node.name.is_empty() { Ok(Vec::new()) } else { self.nodes.admit(&node) }
        } else {
            Err(RefusalReason::Draining)
        };
        let knock = Knock::Proven { shard, embryo };
        match older {
            Ok(older) => {
                for id in older {
                    core.fabric.disconnect(id, LeaveReason::Superseded);
                }
                self.knock(knock, core);
            }
            Err(reason) => self.turn_away(knock, reason, core),
        }
    }

    /// Closes the listener: nobody comes in any more.
    pub(crate) fn close(&mut self, driver: &mut impl Driver, core: &mut Core) {
        if let Door::Open(listener) = self.door {
            self.door = Door::Closing;
            driver.unlisten(listener);
        }
        while let Some((patience, knock)) = self.doorstep.first() {
            core.timers.cancel(patience);
            self.turn_away(knock, RefusalReason::Draining, core);
        }
    }

    pub(crate) fn unlistened(&mut self) {
        self.door = Door::Closed;
    }

    /// Whether the listener is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.door == Door::Closed
    }

    /// Whether all counts are back to nothing: every shard has told of everybody it was given.
    pub(crate) fn is_balanced(&self) -> bool {
        self.doorstep.is_empty()
            && self.places.taken == 0
            && self.places.leaving == 0
            && self.embryos == 0
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
