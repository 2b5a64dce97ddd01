//! The waiting queue and the IP rules, as content and peers see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use madang_driver::Time;

use super::Ledger;
use crate::{WaitState, Waiter, WaiterId};

/// A wait of one life of a house. A client's links wait again and again under one name.
type Name = (usize, u32, WaiterId);

#[derive(Default)]
pub(super) struct Waits {
    known: BTreeMap<Name, Wait>,
    /// Tickets that peers were told: for whose wait, and whether one was taken.
    tickets: BTreeMap<Vec<u8>, (Name, bool)>,
    /// The last one, by priority, that each shard let in of those who never lost their links.
    admitted: BTreeMap<(usize, u32, usize, u8), WaiterId>,
    blocks: Vec<(IpAddr, Time, Time)>,
}

struct Wait {
    peer: SocketAddr,
    is_over: bool,
    /// When content last heard of it, and where it stood.
    told: Time,
    position: u32,
    /// It came back over another link.
    broke: bool,
}

impl Waits {
    /// Whether an address was ever blocked: whose turn came then has lost it, and content may hear of that long after.
    fn was_blocked(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|(blocked, ..)| *blocked == address)
    }
}

impl Ledger {
    /// Content hears of a waiter.
    pub(in crate::simulation) fn waits(
        &mut self,
        house: usize,
        shard: usize,
        waiter: &Waiter,
        state: WaitState,
    ) {
        let name = (house, self.houses[house].life, waiter.id);
        self.mix(waiter.id.0 ^ 0x7761_6974);
        self.note(|| format!("{} of house {house} on shard {shard}: {state:?}", waiter.id));
        let known = self.waits.known.get(&name).map(|wait| wait.is_over);
        match state {
            WaitState::Entered(standing) => {
                self.did("waits in the queue");
                if known.is_some_and(|is_over| !is_over || self.houses[house].is_server) {
                    self.fail("H10", format!("{} enters the queue twice", waiter.id));
                }
                self.look_for_a_lost_turn(house, waiter.peer.remote);
                let (peer, told, position) = (waiter.peer.remote, self.now, standing.position);
                let wait = Wait { peer, is_over: false, told, position, broke: false };
                self.waits.known.insert(name, wait);
            }
            _ if known != Some(false) => {
                self.fail("H10", format!("{} is told {state:?} and does not wait", waiter.id));
            }
            WaitState::Moved(standing) => {
                let (now, remote) = (self.now, waiter.peer.remote);
                let is_server = self.houses[house].is_server;
                if is_server && self.waits.known[&name].peer != remote {
                    self.has_its_turn_back(name, remote);
                }
                let has_priorities = self.has_priorities;
                let wait = self.waits.known.get_mut(&name).expect("it waits");
                wait.broke |= wait.peer != remote;
                (wait.peer, wait.told) = (remote, now);
                let before = std::mem::replace(&mut wait.position, standing.position);
                // Who had a place and lost the link before it joined is back in its turn, ahead of those who came later.
                let first = (name.0, name.1, WaiterId(0));
                let ahead = self.waits.known.range(first..name).filter(|(_, other)| !other.is_over).count();
                if standing.position > before && standing.position as usize > ahead + 1 && !has_priorities {
                    let what = format!("{} falls from {before} to {}", waiter.id, standing.position);
                    self.fail("O4", what);
                }
            }
            WaitState::Admitted => {
                let wait = self.waits.known.get_mut(&name).expect("it waits");
                wait.is_over = true;
                if self.houses[house].is_server && !self.waits.known[&name].broke {
                    let line = (house, name.1, shard, waiter.priority);
                    let last = self.waits.admitted.insert(line, waiter.id);
                    if let Some(last) = last.filter(|last| *last > waiter.id) {
                        self.fail("O4", format!("{} is let in after {last}, which came later", waiter.id));
                    }
                }
            }
            WaitState::Gone => {
                let wait = self.waits.known.get_mut(&name).expect("it waits");
                wait.is_over = true;
                let (told, peer) = (wait.told, wait.peer);
                let tale = &self.houses[house];
                // What was touched on its way breaks a rule, though not the peer's fault.
                let is_promised = tale.is_server
                    && tale.keeps_turns
                    && !tale.stops
                    && tale.announced.is_none()
                    && !self.tampered;
                let earns_it =
                    self.peers.get(&peer).is_none_or(|peer| !peer.says_goodbye && !peer.is_hostile);
                let grace = tale.grace;
                if is_promised
                    && earns_it
                    && !self.waits.was_blocked(peer.ip())
                    && self.now.since(told) < grace
                {
                    let ago = self.now.since(told);
                    self.fail("O4", format!("{} lost its turn {ago:?} after it was told of it", waiter.id));
                }
            }
        }
    }

    /// Content panicked when it heard of a waiter: its connection ends, and content hears no more of it.
    pub(in crate::simulation) fn wait_panics(&mut self, house: usize, id: WaiterId) {
        let name = (house, self.houses[house].life, id);
        if let Some(wait) = self.waits.known.get_mut(&name) {
            wait.is_over = true;
        }
    }

    /// A newcomer whose greeting had a ticket that was still good has lost its turn.
    fn look_for_a_lost_turn(&mut self, house: usize, remote: SocketAddr) {
        if !self.houses[house].is_server {
            return;
        }
        let Some(ticket) = self.peers.get(&remote).and_then(|peer| peer.shows.clone()) else { return };
        if let Some((name, false)) = self.waits.tickets.get(&ticket) {
            // Behind the grace nothing is owed, though content may hear of it a moment later than the newcomer.
            let grace = self.houses[house].grace;
            let wait = self.waits.known.get(name);
            let is_owed = wait.is_some_and(|wait| {
                let is_in_time = self.now.since(wait.told) < grace;
                !wait.is_over && is_in_time && !self.waits.was_blocked(wait.peer.ip())
            });
            let same_life = (name.0, name.1) == (house, self.houses[house].life);
            if same_life && is_owed {
                let what = format!("peer {remote} shows a good ticket of {}, and is a newcomer", name.2);
                self.fail("S14", what);
            }
        }
    }

    /// Somebody has this turn over another link: by the newest ticket for it, which is spent with that.
    fn has_its_turn_back(&mut self, name: Name, remote: SocketAddr) {
        // A link of the other house keeps its ticket to itself: only what our own peers show is known here.
        let Some(peer) = self.peers.get(&remote) else { return };
        let shown = peer.shows.clone().unwrap_or_default();
        match self.waits.tickets.get_mut(&shown) {
            Some((of, spent @ false)) if *of == name => {
                *spent = true;
                self.did("comes back with a ticket");
            }
            _ => self.fail("S14", format!("peer {remote} has the turn of {} without a good ticket", name.2)),
        }
    }

    /// A peer was told a ticket for the wait that it is in.
    pub(in crate::simulation) fn peer_gets_ticket(&mut self, address: SocketAddr, ticket: &[u8]) {
        let life = self.houses[0].life;
        let own = |(name, wait): (&Name, &Wait)| {
            ((name.0, name.1) == (0, life) && wait.peer == address).then_some(*name)
        };
        // The newest of its address: addresses are used again.
        if let Some(name) = self.waits.known.iter().rev().find_map(own) {
            let before = self.waits.tickets.insert(ticket.to_vec(), (name, false));
            if matches!(before, Some((_, true))) {
                let what = format!("peer {address} is told a ticket for {} that was taken already", name.2);
                self.fail("S14", what);
            }
        }
    }

    /// All shards of a house have ended: nobody waits any more.
    pub(in crate::simulation) fn look_at_waits(&mut self, house: usize) {
        let life = self.houses[house].life;
        let mut left = self.waits.known.iter().filter(|(name, _)| (name.0, name.1) == (house, life));
        if let Some((name, _)) = left.find(|(_, wait)| !wait.is_over) {
            let what = format!("{} was neither let in nor told to be gone", name.2);
            self.fail("H10", what);
        }
    }

    /// An address is blocked for so long.
    pub(in crate::simulation) fn blocks(&mut self, address: IpAddr, lasts: Duration) {
        self.did("block");
        self.note(|| format!("{address} is blocked for {lasts:?}"));
        self.waits.blocks.push((address, self.now, self.now + lasts));
    }

    /// A peer or a link of ours hears how long there is left.
    pub(in crate::simulation) fn hears_draining(&mut self, who: &dyn std::fmt::Display, left: Duration) {
        self.did("draining heard");
        // The server may have stopped and begun anew while the word was under way.
        let server = &self.houses[0];
        let was_said = server.announced.is_some_and(|most| left <= most);
        if !was_said && server.life <= 1 {
            self.fail("O2", format!("{who} hears that {left:?} are left, and nobody said so"));
        }
    }

    /// Content does not want a peer. In words, if it is one of those who hear some.
    pub(in crate::simulation) fn turn_down(&mut self, peer: SocketAddr) -> Option<String> {
        let words = (peer.port() % 2 == 0).then(|| format!("nobody from port {}", peer.port()));
        if let (Some(words), Some(tale)) = (&words, self.peers.get_mut(&peer)) {
            tale.turned_down = Some(words.clone());
        }
        words
    }

    /// A peer reads why it is not let in: words are content's own, and its alone.
    pub(in crate::simulation) fn peer_refused(&mut self, peer: SocketAddr, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload.get(3..).unwrap_or_default()).into_owned();
        let Some(tale) = self.peers.get(&peer) else { return };
        let words = tale.turned_down.as_deref().unwrap_or_default();
        // Whose greeting could not be read hears that, and content's words are for nobody.
        let is_unread = text.is_empty() && (tale.is_hostile || self.tampered);
        if text != words && !is_unread {
            let what = format!("peer {} is refused with {text:?}, and content said {words:?}", tale.key);
            self.fail("H1", what);
        } else if !words.is_empty() {
            self.did("refusal in words");
        }
    }

    /// Content is asked about a peer: none that is blocked, or too many of their prefix.
    pub(in crate::simulation) fn asks_for(&mut self, address: IpAddr) {
        let now = self.now;
        self.passes_limits(address);
        let blocked = |(blocked, from, until): &&(IpAddr, Time, Time)| {
            *blocked == address && *from <= now && now < *until
        };
        if let Some((_, _, until)) = self.waits.blocks.iter().find(blocked) {
            let yet = until.since(now);
            self.fail("O3", format!("{address} comes in, and is blocked for {yet:?} yet"));
        }
    }
}
