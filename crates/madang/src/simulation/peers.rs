//! Scripted peers: raw connections without any engine code, each with manners of its own.
//!
//! They speak through a codec of the simulation's own and judge every frame that comes: its kind in its turn, its bytes, its
//! owner. How they behave is drawn, from impeccable to hostile.

mod hearing;
mod manners;
mod speech;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang_driver::Time;
use madang_driver::sim::{Peer, PeerState, Random, World};

use self::manners::{Manners, Reads};
#[cfg(feature = "wan")]
use super::cloak::{Cloak, Proof};
use super::codec::Tongue;
use super::ledger::{Ledger, PeerTale};

/// How often a peer looks up in the liveness phase.
const CALM_PACE: Duration = Duration::from_millis(40);

/// How often it asks there: an answer may find its queue full, and who is silent is idle.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(150);

/// How long it waits there for an answer before it takes the connection for dead, which it may be without its knowing.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long somebody stays away there whose prefix is at its limit: all of them together must leave others a slow pace of
/// accepts.
pub(super) const KNOCK_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Greeting,
    Welcome,
    Traffic,
    Nothing,
}

/// One place at the table: a peer that connects, and connects again.
pub(super) struct Seat {
    number: u32,
    line: Option<Line>,
    pub(super) next_act: Time,
    /// Connections that it may still begin in the safety phase.
    pub(super) lives: u32,
    tickets: Tickets,
}

/// What a seat has of tickets for the waiting queue.
#[derive(Default, Clone)]
struct Tickets {
    /// The newest one that it was told, while it is of use.
    good: Option<Vec<u8>>,
    /// One that was taken, or that a newer one replaced.
    spent: Option<Vec<u8>>,
}

/// What all peers of a run share.
pub(super) struct Table {
    pub(super) world: World,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) tongue: Tongue,
    pub(super) frame_limit: u32,
    pub(super) len_max: usize,
    pub(super) pace: Duration,
    pub(super) dice: Random,
    pub(super) keys: u32,
    /// Where the server is.
    pub(super) to: SocketAddr,
    /// How often each kind of bad manners is drawn, per million connections.
    pub(super) rudeness: u32,
    /// The proof of a log-in that somebody made, for somebody else to steal.
    #[cfg(feature = "wan")]
    pub(super) loot: Option<Proof>,
}

struct Line {
    peer: Peer,
    key: u32,
    manners: Manners,
    expects: Expects,
    incoming: Vec<u8>,
    /// Where what travels is in records: what has come of frames, the cloak, and what is to go into it.
    #[cfg(feature = "wan")]
    plain: Vec<u8>,
    #[cfg(feature = "wan")]
    cloak: Option<Cloak>,
    #[cfg(feature = "wan")]
    logged_in: bool,
    pending: VecDeque<Pending>,
    outgoing: VecDeque<u8>,
    /// Where in the stream each message that is not out yet ends.
    ends: VecDeque<u64>,
    queued: u64,
    written: u64,
    counter: u32,
    acts: u32,
    greeted: bool,
    /// It has ended its direction, or all.
    is_over: bool,
    /// It will end its direction behind what it has said.
    fins: bool,
    is_half_closed: bool,
    said_goodbye: bool,
    asked: Option<Time>,
    calm_since: Option<Time>,
    refused: bool,
    /// Its framing has a word for a stop that is announced.
    hears_draining: bool,
    tickets: Tickets,
    /// What its greeting shows.
    shows: Option<Vec<u8>>,
}

/// A frame that is to go into a record.
struct Pending {
    #[cfg_attr(not(feature = "wan"), expect(dead_code, reason = "sealed worlds alone ask"))]
    frame: Vec<u8>,
    is_message: bool,
}

impl Seat {
    pub(super) fn new(number: u32, lives: u32, starts: Time) -> Seat {
        Seat { number, line: None, next_act: starts, lives, tickets: Tickets::default() }
    }

    /// Where it calls from.
    pub(super) fn address(&self) -> IpAddr {
        [127, 0, 0, 2 + (self.number % 4) as u8].into()
    }

    /// Whether bytes wait for it that it would read.
    pub(super) fn has_mail(&self, calm: bool) -> bool {
        self.line
            .as_ref()
            .is_some_and(|line| (calm || line.manners.reads == Reads::All) && line.peer.unread() > 0)
    }

    /// The liveness phase asks: does this peer have what it came for, or is there no room for it?
    pub(super) fn is_served(&self, ledger: &Ledger, is_full: bool) -> Result<(), String> {
        match &self.line {
            Some(line) if line.expects == Expects::Traffic => {
                let Some(id) = ledger.session_of_peer(line.peer.local()) else {
                    if is_full {
                        return Ok(());
                    }
                    return Err(format!("peer {} has no session", line.key));
                };
                if ledger.sessions[&id].has_answer {
                    Ok(())
                } else {
                    Err(format!("{id} has no answer for its peer"))
                }
            }
            _ if is_full => Ok(()),
            Some(line) => {
                Err(format!("peer {} is not let in: {:?}, {:?}", line.key, line.expects, line.peer.state()))
            }
            None => Err(format!("seat {} finds no way in", self.number)),
        }
    }

    /// One act: read, answer, talk, end.
    pub(super) fn act(&mut self, table: &mut Table, calm: bool) {
        let now = table.world.now();
        // In a world at rest mail wakes a peer; by itself it looks up seldom.
        let pace = if calm { CALM_PACE } else { table.pace }.as_nanos() as u64;
        self.next_act = now + Duration::from_nanos(table.dice.between(pace / 8, pace));
        let Some(line) = &mut self.line else {
            if calm || self.lives > 0 {
                self.lives = self.lives.saturating_sub(1);
                self.begin(table, calm);
            }
            return;
        };
        let shared = Arc::clone(&table.ledger);
        let mut ledger = shared.lock().expect("nothing panics under this lock");
        line.read(table, &mut ledger, calm);
        line.speak(table, &mut ledger, calm);
        line.write(table, &mut ledger);
        line.fin(&mut ledger);
        let is_gone = match line.peer.state() {
            PeerState::Connecting => false,
            PeerState::Open => false,
            PeerState::Ended | PeerState::Failed(_) if line.peer.unread() > 0 && !line.is_over => false,
            PeerState::Ended => {
                if line.is_cut_off() && !ledger.tampered && ledger.harmless {
                    ledger.fail("I16", format!("the stream to peer {} ends without a goodbye", line.key));
                }
                // All that was sent to it has come.
                ledger.peer_ended(line.peer.local(), true);
                true
            }
            PeerState::Failed(_) => {
                ledger.peer_ended(line.peer.local(), false);
                true
            }
            PeerState::Closed => true,
        };
        if is_gone {
            let is_at_limit = calm && ledger.has_all_it_may(line.peer.local().ip());
            if is_at_limit {
                self.next_act = now + KNOCK_AGAIN;
            } else if line.expects != Expects::Traffic || calm {
                // Turned away: it comes back, but not at once.
                self.next_act = now + Duration::from_millis(20);
            }
            ledger.note(|| format!("peer {} is gone ({:?})", line.key, line.peer.state()));
            // A socket that is not needed any more is closed: what the other end still sends finds nobody.
            if let Some(tale) = ledger.peers.get_mut(&line.peer.local()) {
                tale.leaves |= tale.end.is_none();
            }
            drop(ledger);
            self.tickets = line.tickets.clone();
            self.line = None;
        }
    }

    fn begin(&mut self, table: &mut Table, calm: bool) {
        let manners = Manners::draw(table, calm, self.number);
        let Ok(peer) = table.world.peer(SocketAddr::new(self.address(), 0), table.to) else { return };
        table.keys += 1;
        let key = table.keys;
        let tale = PeerTale {
            key,
            limit: manners.limit,
            reads: manners.reads == Reads::All,
            alive_at: table.world.now(),
            ..PeerTale::default()
        };
        let mut ledger = table.ledger.lock().expect("nothing panics under this lock");
        ledger.note(|| format!("peer {key} connects from {}: {manners:?}", peer.local()));
        ledger.did("peer connects");
        ledger.peers.insert(peer.local(), tale);
        let expects = match table.tongue {
            tongue if tongue.is_lan() => Expects::Greeting,
            // The handshake's answer is the cloak's to judge.
            tongue if tongue.is_own() => Expects::Welcome,
            _ => Expects::Traffic,
        };
        self.line = Some(Line {
            peer,
            key,
            manners,
            expects,
            incoming: Vec::new(),
            #[cfg(feature = "wan")]
            plain: Vec::new(),
            #[cfg(feature = "wan")]
            cloak: None,
            #[cfg(feature = "wan")]
            logged_in: false,
            pending: VecDeque::new(),
            outgoing: VecDeque::new(),
            ends: VecDeque::new(),
            queued: 0,
            written: 0,
            counter: 0,
            acts: 0,
            greeted: false,
            is_over: false,
            fins: false,
            is_half_closed: false,
            said_goodbye: false,
            asked: None,
            calm_since: None,
            refused: false,
            hears_draining: table.tongue.is_own() && !table.tongue.is_lan(),
            shows: None,
            tickets: self.tickets.clone(),
        });
    }
}
