//! What happened to each session, as its content and its peer saw it; and the rules that must hold whatever happens.
//!
//! Everything is written down at the moment of the call: a callback that comes, an answer that was given, a message that
//! arrived. A rule that is broken is noted once, with its name, and ends the run.

mod arrivals;
mod prefixes;
mod reasons;
mod requests;
mod rest;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::Time;
use madang_driver::sim::Random;

pub(super) use self::prefixes::Prefixes;
use super::chronicle::Chronicle;
use super::payload::{ANSWER, Payload, WAITING};
use crate::{Leave, LeaveReason, SessionId};

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name in `docs/simulation.md`.
    pub rule: String,
    /// What was seen.
    pub what: String,
}

/// Whose calls are in order with each other: for a session, those of its own shard, of another shard, of a thread.
pub(super) type Stream = u16;

/// The session's own shard.
pub(super) const OWN_SHARD: Stream = 0;

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A callback on a shard of a house.
    Shard { house: usize, shard: usize },
    /// Another thread.
    Thread(u16),
}

impl Caller {
    fn stream(self, tale: &Tale) -> Stream {
        match self {
            Caller::Shard { house, shard } if (house, shard) == (tale.house, tale.shard) => OWN_SHARD,
            Caller::Shard { house, shard } => 1 + house as u16 * 16 + shard as u16,
            Caller::Thread(thread) => 1_000 + thread,
        }
    }
}

/// Who a message was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    One(SessionId),
    Many(Vec<SessionId>),
    Group(u64),
    All,
}

struct Sending {
    house: usize,
    life: u32,
    caller: Caller,
    audience: Audience,
    len: usize,
    /// Droppable: a later one of the same key takes its place.
    key: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Joining,
    Joined,
    Left,
}

/// What is known of a session.
pub(super) struct Tale {
    pub(super) house: usize,
    pub(super) life: u32,
    pub(super) shard: usize,
    pub(super) stage: Stage,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// What its peer said of itself: the node and its life.
    node: Option<(String, u64)>,
    /// Messages that its peer must get, in order, by whose calls they were.
    owed: BTreeMap<Stream, VecDeque<u32>>,
    /// The last message of each stream that its peer got.
    got: BTreeMap<Stream, u32>,
    /// Droppable messages that its peer may get, and the last that it got of each caller and key.
    latest: BTreeSet<u32>,
    latest_got: BTreeMap<(Stream, u32), u32>,
    /// Events that it must get, likewise.
    events: BTreeMap<Stream, VecDeque<u32>>,
    /// How many messages of a scripted peer were delivered.
    arrived: u32,
    /// A `disconnect` won, or content saw it gone, at this time: nothing is delivered to it, nothing accepted for it.
    pub(super) cut_at: Option<Time>,
    /// By its own shard: not even a callback that came with the same batch follows.
    cut_here: bool,
    /// Content's `send_and_disconnect` was accepted.
    last_word: Option<LastWord>,
    codes: Vec<u32>,
    panicked: bool,
    job_panics: bool,
    /// Jobs whose answers its messages wait for.
    holds: u32,
    timers: BTreeMap<u64, Time>,
    /// Groups that it is in for sure; all that it may ever have been in; those about which other threads have a say.
    groups: BTreeSet<u64>,
    groups_ever: BTreeSet<u64>,
    groups_contested: BTreeSet<u64>,
    leave: Option<(LeaveReason, Time)>,
    in_hard_stop: bool,
    /// The liveness phase: a question went all the way and its answer came back.
    pub(super) has_answer: bool,
    pub(super) asked: Option<Time>,
}

struct LastWord {
    code: u32,
    at: Time,
    stream: Stream,
}

/// What is known of a scripted peer's connection.
#[derive(Default)]
pub(super) struct PeerTale {
    pub(super) key: u32,
    /// Messages begun, and messages whose last byte found room.
    pub(super) begun: u32,
    pub(super) whole: u32,
    pub(super) bytes: usize,
    /// When it last gave a sign of life, and how long it had given none before: its connect is the first one, then bytes of it
    /// that found room.
    pub(super) alive_at: Time,
    pub(super) silent_for: Duration,
    /// The longest message that it takes.
    pub(super) limit: usize,
    /// It sends what is no frame.
    pub(super) is_hostile: bool,
    /// It ends the connection, one way or another; by itself.
    pub(super) leaves: bool,
    pub(super) says_goodbye: bool,
    /// It sent FIN behind all that it had said, and no fault of this run can destroy what is under way.
    pub(super) fins: bool,
    /// It reads all that comes, soon.
    pub(super) reads: bool,
    /// The ticket that its greeting showed.
    pub(super) shows: Option<Vec<u8>>,
    /// How the connection ended for it: in order, or not.
    pub(super) end: Option<bool>,
    /// It logged in with what another had proven.
    pub(super) is_thief: bool,
    /// Content's words for not letting it in.
    pub(super) turned_down: Option<String>,
}

/// What is known of a house.
#[derive(Default)]
pub(super) struct HouseTale {
    pub(super) life: u32,
    pub(super) is_server: bool,
    pub(super) stops: bool,
    pub(super) stops_hard: bool,
    /// A stop was announced, for so long at most.
    pub(super) announced: Option<Duration>,
    /// Waiters have tickets, and keep their turns for so long.
    pub(super) keeps_turns: bool,
    pub(super) grace: Duration,
    pub(super) leave_timeout: Duration,
    pub(super) frame_limit: usize,
    pub(super) drain_bytes_max: usize,
    pub(super) abortive_close: bool,
    pub(super) pool_is_ample: bool,
    pub(super) pool_may_be_short: bool,
    /// How long a peer may be silent, where no fault of the run keeps its bytes back.
    pub(super) silence_max: Option<Duration>,
    pub(super) may_be_overloaded: bool,
    pub(super) limits_input: bool,
    pub(super) joins: u64,
    pub(super) leaves: u64,
    pub(super) declined: u64,
}

pub(super) struct Ledger {
    pub(super) dice: Random,
    pub(super) now: Time,
    pub(super) chronicle: Chronicle,
    pub(super) violation: Option<Violation>,
    /// No fault of this run kills connections.
    pub(super) harmless: bool,
    /// What travels is in records, and whether somebody in between touches it.
    pub(super) sealed: bool,
    pub(super) tampered: bool,
    /// Ephemeral keys of the server that were seen.
    #[cfg_attr(not(feature = "wan"), expect(dead_code, reason = "sealed worlds alone ask"))]
    ephemerals: BTreeSet<[u8; 32]>,
    /// Waiters may have different priorities.
    pub(super) has_priorities: bool,
    /// The liveness phase: content answers and does nothing else.
    pub(super) calm: bool,
    pub(super) houses: Vec<HouseTale>,
    pub(super) sessions: BTreeMap<SessionId, Tale>,
    /// Those that have not left, and those that have.
    pub(super) alive: Vec<SessionId>,
    pub(super) graves: Vec<SessionId>,
    serials: BTreeSet<u64>,
    pub(super) peers: BTreeMap<SocketAddr, PeerTale>,
    waits: waits::Waits,
    /// What the server takes from a prefix, if it limits that.
    pub(super) prefixes: Option<Prefixes>,
    /// Server sessions by the peer's address; client sessions by their own.
    by_peer: BTreeMap<SocketAddr, SessionId>,
    by_self: BTreeMap<SocketAddr, SessionId>,
    sendings: Vec<Sending>,
    codes: u32,
    events: u32,
    /// The newest life of each node that greeted, and that joined.
    greeted: BTreeMap<String, u64>,
    newest: BTreeMap<String, u64>,
    /// Messages before this one were sent in the safety phase.
    healed_at: u32,
    /// The callback that runs asks for so much time.
    pub(super) blocks: Option<Duration>,
    pub(super) deeds: BTreeMap<&'static str, u64>,
    pub(super) delivered: u64,
    pub(super) hash: u64,
}

impl Ledger {
    pub(super) fn new(dice: Random, chronicle: Chronicle, harmless: bool) -> Ledger {
        Ledger {
            dice,
            now: Time::ZERO,
            chronicle,
            violation: None,
            harmless,
            sealed: false,
            tampered: false,
            ephemerals: BTreeSet::new(),
            has_priorities: false,
            calm: false,
            houses: Vec::new(),
            sessions: BTreeMap::new(),
            alive: Vec::new(),
            graves: Vec::new(),
            serials: BTreeSet::new(),
            peers: BTreeMap::new(),
            waits: waits::Waits::default(),
            prefixes: None,
            by_peer: BTreeMap::new(),
            by_self: BTreeMap::new(),
            sendings: Vec::new(),
            codes: 0,
            events: 0,
            greeted: BTreeMap::new(),
            newest: BTreeMap::new(),
            healed_at: u32::MAX,
            blocks: None,
            deeds: BTreeMap::new(),
            delivered: 0,
            hash: 0,
        }
    }

    /// A rule is broken; the first one stands.
    pub(super) fn fail(&mut self, rule: &str, what: impl Into<String>) {
        let what = what.into();
        self.chronicle.note(self.now, || format!("BROKEN {rule}: {what}"));
        self.violation.get_or_insert(Violation { rule: rule.to_owned(), what });
    }

    pub(super) fn note(&mut self, event: impl FnOnce() -> String) {
        self.chronicle.note(self.now, event);
    }

    /// The faults are over.
    pub(super) fn heals(&mut self) {
        self.calm = true;
        self.healed_at = self.sendings.len() as u32;
        self.note(|| "the world heals".to_owned());
    }

    /// What a gate knew of nodes ends with its house.
    pub(super) fn house_starts(&mut self, house: usize) {
        if self.houses[house].is_server {
            self.newest.clear();
            self.forget_rates();
        }
        self.note(|| format!("house {house} starts"));
    }

    /// A peer greets as a life of a node.
    pub(super) fn greets(&mut self, node: &str, incarnation: u64) {
        let newest = self.greeted.entry(node.to_owned()).or_default();
        *newest = (*newest).max(incarnation);
    }

    /// Counts something that the run did, so that a batch can tell what never happened.
    pub(super) fn did(&mut self, deed: &'static str) {
        *self.deeds.entry(deed).or_default() += 1;
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    // --- the life of a session, as content sees it

    /// `on_join` begins, or a user object is asked for.
    pub(super) fn joins(&mut self, id: SessionId, house: usize, shard: usize, peer: &crate::Peer) {
        self.mix(id.to_u64());
        let life = self.houses[house].life;
        if !self.serials.insert(id.serial()) {
            self.fail("I12", format!("{id} joins with a serial that was used before"));
        }
        let node = peer.node.as_ref().filter(|node| !node.name.is_empty());
        let caller = self.peers.get(&peer.remote).filter(|_| self.houses[house].is_server);
        if let Some(words) = caller.and_then(|caller| caller.turned_down.as_ref()) {
            self.fail("H1", format!("{id} joins, though content refused it with {words:?}"));
        } else if caller.is_some_and(|caller| caller.is_thief) {
            self.fail("I15", format!("{id} joins with a log-in that was proven for another connection"));
        } else if let (Some(caller), Some(account)) = (caller, &peer.account) {
            if account.id != u64::from(caller.key) {
                self.fail("H2", format!("{id} joins as player {}, who is another", account.id));
            }
        }
        let tale = Tale {
            house,
            life,
            shard,
            stage: Stage::Joining,
            local: peer.local,
            remote: peer.remote,
            node: node.map(|node| (node.name.clone(), node.incarnation)),
            owed: BTreeMap::new(),
            got: BTreeMap::new(),
            latest: BTreeSet::new(),
            latest_got: BTreeMap::new(),
            events: BTreeMap::new(),
            arrived: 0,
            cut_at: None,
            cut_here: false,
            last_word: None,
            codes: Vec::new(),
            panicked: false,
            job_panics: false,
            holds: 0,
            timers: BTreeMap::new(),
            groups: BTreeSet::new(),
            groups_ever: BTreeSet::new(),
            groups_contested: BTreeSet::new(),
            leave: None,
            in_hard_stop: false,
            has_answer: false,
            asked: None,
        };
        let is_server = self.houses[house].is_server;
        let by_address = if is_server { &mut self.by_peer } else { &mut self.by_self };
        by_address.insert(if is_server { peer.remote } else { peer.local }, id);
        if is_server {
            if let Some((name, incarnation)) = &tale.node {
                let newest = self.newest.entry(name.clone()).or_default();
                *newest = (*newest).max(*incarnation);
            }
        }
        self.sessions.insert(id, tale);
        self.alive.push(id);
        self.houses[house].joins += 1;
        self.note(|| format!("{id} of house {house} joins on shard {shard}: {peer:?}"));
    }

    /// The factory of user objects declines.
    pub(super) fn declined(&mut self, id: SessionId) {
        let house = self.tale(id).house;
        self.houses[house].joins -= 1;
        self.houses[house].declined += 1;
        self.bury(id);
    }

    pub(super) fn joined(&mut self, id: SessionId) {
        let tale = self.tale(id);
        if tale.stage == Stage::Joining {
            tale.stage = Stage::Joined;
        }
    }

    /// A callback for this session begins.
    pub(super) fn is_called(&mut self, id: SessionId, callback: &str) {
        self.mix(id.to_u64() ^ callback.len() as u64);
        self.note(|| format!("{id} {callback}"));
        let now = self.now;
        match self.sessions.get(&id) {
            None => self.fail("I2", format!("{callback} for {id}, which never joined")),
            Some(tale) if tale.stage == Stage::Left => {
                self.fail("I2", format!("{callback} for {id} after its leave"));
            }
            Some(tale) if tale.panicked => self.fail("H8", format!("{callback} for {id} after it panicked")),
            Some(tale) if tale.stage == Stage::Joining => {
                self.fail("I5", format!("{callback} for {id} before its on_join returned"));
            }
            Some(Tale { cut_at: Some(at), cut_here, .. })
                if *cut_here || matches!(callback, "on_recv" | "on_event") =>
            {
                let ago = now.since(*at);
                self.fail("S8", format!("{callback} for {id}, which was disconnected {ago:?} ago"));
            }
            Some(_) => {}
        }
    }

    /// A message was delivered; answers the flags that it carries.
    pub(super) fn receives(&mut self, id: SessionId, bytes: &[u8]) -> u8 {
        self.is_called(id, "on_recv");
        self.delivered += 1;
        let Some(tale) = self.sessions.get(&id) else { return 0 };
        if tale.holds > 0 {
            self.fail("B3", format!("{id} gets a message while a job holds its messages"));
        }
        let (house, local, remote) = {
            let tale = &self.sessions[&id];
            (tale.house, tale.local, tale.remote)
        };
        match Payload::read(bytes) {
            None => {
                self.fail("I1", format!("{id} gets {} altered bytes", bytes.len()));
                0
            }
            Some(Payload::Peer { key, counter, flags }) => {
                let expected = self.sessions[&id].arrived;
                match self.peers.get(&remote) {
                    Some(peer) if peer.key == key => {
                        let begun = peer.begun;
                        if counter != expected || counter >= begun {
                            let what =
                                format!("{id} gets message {counter} where {expected} of {begun} was next");
                            self.fail("I3", what);
                        }
                    }
                    _ => self.fail("I1", format!("{id} gets a message of peer {key}, which is another's")),
                }
                self.tale(id).arrived = counter.wrapping_add(1);
                flags
            }
            // A foreign client's engine hears the word of its wait as its first message.
            Some(Payload::Engine { flags, .. }) if flags & WAITING != 0 => 0,
            Some(Payload::Engine { number, flags }) => {
                let other = if self.houses[house].is_server {
                    self.by_self.get(&remote).copied()
                } else {
                    self.by_peer.get(&local).copied()
                };
                self.tale(id).has_answer |= flags & ANSWER != 0;
                match other {
                    Some(sender) => self.carried(sender, number, bytes.len(), flags),
                    None => self.fail("I1", format!("{id} gets message {number} of nobody")),
                }
                flags
            }
        }
    }

    pub(super) fn leaves(&mut self, id: SessionId, leave: &Leave) {
        self.mix(u64::from(leave.reason.code()));
        self.note(|| format!("{id} on_leave: {leave:?}"));
        match self.sessions.get(&id).map(|tale| tale.stage) {
            None => return self.fail("I2", format!("{id} leaves, which never joined")),
            Some(Stage::Left) => return self.fail("I2", format!("{id} leaves twice")),
            Some(Stage::Joining) => {
                return self.fail("I5", format!("{id} leaves before its on_join returned"));
            }
            Some(Stage::Joined) => {}
        }
        if let Err(why) = self.is_plausible(id, leave.reason) {
            self.fail("leave reason", format!("{id} leaves with {:?}, but {why}", leave.reason));
        }
        let now = self.now;
        let hard_stop = self.houses[self.sessions[&id].house].stops_hard;
        let tale = self.tale(id);
        tale.leave = Some((leave.reason, now));
        tale.in_hard_stop = hard_stop;
        let (remote, arrived, cut, house) = (tale.remote, tale.arrived, tale.cut_at.is_some(), tale.house);
        self.houses[house].leaves += 1;
        let in_order = matches!(
            leave.reason,
            LeaveReason::PeerClosed | LeaveReason::PeerGoodbye(_) | LeaveReason::Truncated
        );
        // A reset may be told to the send alone, and look like an end in order to the receive: FIN it must have been.
        let fins = |peer: &&PeerTale| peer.fins && self.harmless;
        if let Some(peer) = self.peers.get(&remote).filter(|_| in_order && !cut).filter(fins) {
            if arrived != peer.whole {
                let whole = peer.whole;
                self.fail(
                    "I3",
                    format!("{id}: {arrived} of {whole} messages came before the peer's orderly end"),
                );
            }
        }
        self.bury(id);
        self.judge_last_word(id);
    }

    /// A user object that panicked is dropped uncalled: content hears no more of its session.
    pub(super) fn dropped_uncalled(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|tale| tale.stage != Stage::Left) {
            if !self.sessions[&id].panicked {
                self.fail("I2", format!("the object of {id} is dropped without its on_leave"));
            }
            let house = self.sessions[&id].house;
            self.houses[house].leaves += 1;
            self.bury(id);
        }
    }

    fn bury(&mut self, id: SessionId) {
        self.tale(id).stage = Stage::Left;
        self.alive.retain(|other| *other != id);
        self.graves.push(id);
    }

    /// A handshake showed the server's ephemeral key: keys that were used before would seal other records under the same
    /// numbers.
    #[cfg(feature = "wan")]
    pub(super) fn ephemeral(&mut self, key: [u8; 32]) {
        if !self.ephemerals.insert(key) {
            self.fail("I14", "an ephemeral key of the server comes a second time".to_owned());
        }
    }

    pub(super) fn tale(&mut self, id: SessionId) -> &mut Tale {
        self.sessions.get_mut(&id).expect("content names sessions that it met")
    }

    /// The session of the peer with this address, if it is here.
    pub(super) fn session_of_peer(&self, address: SocketAddr) -> Option<SessionId> {
        self.by_peer.get(&address).copied().filter(|id| self.sessions[id].stage != Stage::Left)
    }

    /// Sessions of a house that have not left.
    pub(super) fn living_in(&self, house: usize) -> usize {
        self.alive.iter().filter(|id| self.sessions[id].house == house).count()
    }
}
