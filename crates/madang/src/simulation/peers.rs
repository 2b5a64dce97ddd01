//! Scripted peers: raw connections without any engine code, each with manners of its own.
//!
//! They speak through a codec of the simulation's own and judge every frame that comes: its kind in its turn, its bytes, its
//! owner. How they behave is drawn, from impeccable to hostile.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang_driver::Time;
use madang_driver::sim::{Peer, PeerState, Random, World};

#[cfg(feature = "wan")]
use super::cloak::{Cloak, Proof};
use super::codec::{
    self, DRAINING, GOODBYE, GREETING, Introduction, MESSAGE, PING, PONG, QUEUE, REFUSAL, TICKET, Tongue,
    WELCOME,
};
use super::ledger::{Ledger, PeerTale};
use super::payload::{MARKER, PEER_LEN_MIN, Payload};

/// How often a peer looks up in the liveness phase.
const CALM_PACE: Duration = Duration::from_millis(40);

/// How often it asks there: an answer may find its queue full, and who is silent is idle.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(150);

/// How long it waits there for an answer before it takes the connection for dead, which it may be without its knowing.
const PATIENCE: Duration = Duration::from_secs(4);

/// How a peer ends its connection, once it has said enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Never by itself.
    Stays,
    /// A half-close; it reads on to the end.
    HalfCloses,
    /// A goodbye first, then as `HalfCloses`.
    SaysGoodbye,
    Closes,
    Resets,
    Vanishes,
    /// Bytes that are no frame.
    TurnsHostile,
}

/// How a peer behaves, drawn for each connection.
#[derive(Debug, Clone)]
struct Manners {
    /// Reads all that comes at once; or now and then; or never before the liveness phase.
    reads: Reads,
    /// Per million times that it acts: begins a message.
    talks: u32,
    /// Puts out a byte now and then rather than all.
    dribbles: bool,
    /// Never says a word.
    is_mute: bool,
    /// Has messages right behind its greeting, before any welcome.
    is_eager: bool,
    /// Logs in with what another proved.
    #[cfg(feature = "wan")]
    is_thief: bool,
    ending: Ending,
    /// Times that it acts before its ending.
    acts: u32,
    limit: usize,
    node: String,
    incarnation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    Seldom,
    Never,
}

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
    tickets: Tickets,
    /// What its greeting shows.
    shows: Option<Vec<u8>>,
}

/// A frame that is to go into a record.
struct Pending {
    frame: Vec<u8>,
    is_message: bool,
}

impl Seat {
    pub(super) fn new(number: u32, lives: u32, starts: Time) -> Seat {
        Seat { number, line: None, next_act: starts, lives, tickets: Tickets::default() }
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
            if line.expects != Expects::Traffic || calm {
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
        let from = SocketAddr::from(([127, 0, 0, 2 + (self.number % 4) as u8], 0));
        let Ok(peer) = table.world.peer(from, table.to) else { return };
        table.keys += 1;
        let key = table.keys;
        let tale =
            PeerTale { key, limit: manners.limit, reads: manners.reads == Reads::All, ..PeerTale::default() };
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
            shows: None,
            tickets: self.tickets.clone(),
        });
    }
}

impl Manners {
    fn draw(table: &mut Table, calm: bool, seat: u32) -> Manners {
        let rudeness = if calm { 0 } else { table.rudeness };
        let frame_limit = table.frame_limit as usize;
        let dice = &mut table.dice;
        let endings = [
            Ending::HalfCloses,
            Ending::SaysGoodbye,
            Ending::Closes,
            Ending::Resets,
            Ending::Vanishes,
            Ending::TurnsHostile,
        ];
        let named = !calm && dice.below(6) == 0;
        Manners {
            reads: match () {
                () if dice.chance(rudeness / 2) => Reads::Seldom,
                () if dice.chance(rudeness / 4) => Reads::Never,
                () => Reads::All,
            },
            talks: if calm { 0 } else { dice.between(50_000, 700_000) as u32 },
            dribbles: dice.chance(rudeness / 2),
            is_mute: dice.chance(rudeness / 4),
            is_eager: !calm && dice.coin(),
            ending: if dice.chance(rudeness) { endings[dice.index(endings.len())] } else { Ending::Stays },
            acts: dice.below(40) as u32,
            #[cfg(feature = "wan")]
            is_thief: table.tongue == Tongue::Wan && table.loot.is_some() && dice.chance(rudeness / 4),
            limit: if dice.below(8) == 0 && table.tongue.is_own() {
                dice.between(20, 90) as usize
            } else {
                frame_limit
            },
            node: if named { format!("node-{}", seat % 3) } else { String::new() },
            incarnation: dice.between(1, 3),
        }
    }
}

impl Line {
    fn read(&mut self, table: &mut Table, ledger: &mut Ledger, calm: bool) {
        let reads = match self.manners.reads {
            Reads::All => true,
            Reads::Seldom => calm || table.dice.below(8) == 0,
            Reads::Never => calm,
        };
        if !reads || self.is_over {
            return;
        }
        let mut room = [0; 4096];
        loop {
            let count = self.peer.read(&mut room);
            if count == 0 {
                break;
            }
            self.incoming.extend_from_slice(&room[..count]);
        }
        #[cfg(feature = "wan")]
        if self.cloak.is_some() {
            self.uncover(table, ledger);
        }
        loop {
            #[cfg(feature = "wan")]
            let stream = if self.cloak.is_some() { &mut self.plain } else { &mut self.incoming };
            #[cfg(not(feature = "wan"))]
            let stream = &mut self.incoming;
            match codec::take_frame(table.tongue, stream) {
                Ok(Some(frame)) => self.judge(table, ledger, frame.kind, &frame.payload),
                Ok(None) => break,
                Err(what) => {
                    stream.clear();
                    ledger.fail("I4", format!("peer {} gets {what}", self.key));
                    break;
                }
            }
        }
    }

    /// Takes what came out of its records. At the end of the handshake the log-in, or the greeting, goes first.
    #[cfg(feature = "wan")]
    fn uncover(&mut self, table: &mut Table, ledger: &mut Ledger) {
        let Some(cloak) = &mut self.cloak else { return };
        match cloak.uncover(&mut self.incoming, &mut self.plain) {
            Ok(uncovered) => {
                let Some((ephemeral, proof)) = uncovered.worn else { return };
                ledger.ephemeral(ephemeral);
                self.choose_ticket(table, ledger);
                let frame = if table.tongue == Tongue::Wan {
                    let stolen = table.loot.filter(|_| self.manners.is_thief);
                    table.loot = Some(proof);
                    if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                        tale.is_thief = stolen.is_some();
                    }
                    if stolen.is_some() {
                        ledger.did("log-in with a stolen proof");
                    }
                    let ticket = self.shows.as_deref().unwrap_or_default();
                    let cloak = self.cloak.as_ref().expect("it is worn");
                    cloak.log_in(&stolen.unwrap_or(proof), ticket)
                } else {
                    self.introduce(ledger)
                };
                self.pending.push_front(Pending { frame, is_message: false });
            }
            Err(_) if ledger.tampered => {
                // Whoever sees that hangs up, and comes again.
                if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                    tale.leaves = true;
                }
                self.is_over = true;
                self.peer.reset();
            }
            Err(what) => ledger.fail("I15", format!("peer {} gets {what}", self.key)),
        }
    }

    /// Whether a frame may come now, and what it says.
    fn judge(&mut self, table: &mut Table, ledger: &mut Ledger, kind: u8, payload: &[u8]) {
        let address = self.peer.local();
        ledger.note(|| format!("peer {} gets a frame of kind {kind}, {} bytes", self.key, payload.len()));
        let next = match (self.expects, kind) {
            (Expects::Greeting, GREETING) if payload.starts_with(b"MDNG") => Expects::Welcome,
            (Expects::Greeting | Expects::Welcome, REFUSAL) => {
                self.refused = true;
                Expects::Nothing
            }
            (Expects::Welcome, TICKET) => {
                let ticket = payload.get(7..).unwrap_or_default().to_vec();
                ledger.peer_gets_ticket(address, &ticket);
                let older = self.tickets.good.replace(ticket);
                self.tickets.spent = older.or(self.tickets.spent.take());
                Expects::Welcome
            }
            (Expects::Welcome, PING) => {
                if !self.manners.is_mute || ledger.calm {
                    self.put(&codec::lan_frame(PONG, payload), false);
                }
                Expects::Welcome
            }
            (Expects::Welcome, WELCOME) => {
                let spent = self.tickets.good.take();
                self.tickets.spent = spent.or(self.tickets.spent.take());
                let id = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                ledger.peer_welcomed(address, id);
                Expects::Traffic
            }
            (Expects::Traffic, MESSAGE) => {
                ledger.peer_receives(address, payload);
                Expects::Traffic
            }
            (Expects::Traffic, PING) => {
                if !self.manners.is_mute || ledger.calm {
                    self.put(&codec::lan_frame(PONG, payload), false);
                }
                Expects::Traffic
            }
            (Expects::Traffic, PONG) => Expects::Traffic,
            (Expects::Welcome, QUEUE | DRAINING) => Expects::Welcome,
            (Expects::Traffic, TICKET | DRAINING) => Expects::Traffic,
            (Expects::Traffic | Expects::Welcome, GOODBYE) => Expects::Nothing,
            (expects, kind) => {
                ledger.fail(
                    "S5",
                    format!("peer {} gets a frame of kind {kind} where it expects {expects:?}", self.key),
                );
                expects
            }
        };
        let _ = table;
        self.expects = next;
    }

    /// Says a frame: as it is, or in the next record.
    fn put(&mut self, frame: &[u8], is_message: bool) {
        if self.is_half_closed || self.said_goodbye {
            return;
        }
        if self.is_cloaked() {
            self.pending.push_back(Pending { frame: frame.to_vec(), is_message });
            return;
        }
        self.put_bytes(frame);
        if is_message {
            self.ends.push_back(self.queued);
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.queued += bytes.len() as u64;
        self.outgoing.extend(bytes);
    }

    /// Whether a stream in records that ends here was cut off: who is joined hears a goodbye first, unless it ended first.
    fn is_cut_off(&self) -> bool {
        self.is_cloaked()
            && self.expects == Expects::Traffic
            && !self.fins
            && !self.is_over
            && !self.said_goodbye
    }

    fn is_cloaked(&self) -> bool {
        #[cfg(feature = "wan")]
        return self.cloak.is_some();
        #[cfg(not(feature = "wan"))]
        false
    }

    /// Seals what is to go out, as many frames in a record as chance has it. The first frame has a record of its own.
    #[cfg(feature = "wan")]
    fn cover(&mut self, dice: &mut Random) {
        let Some(cloak) = self.cloak.as_mut().filter(|cloak| cloak.is_worn()) else { return };
        while let Some(Pending { mut frame, is_message }) = self.pending.pop_front() {
            let mut messages = usize::from(is_message);
            let more = if std::mem::replace(&mut self.logged_in, true) { dice.index(4) } else { 0 };
            for _ in 0..more {
                let fits =
                    |next: &Pending| frame.len() + next.frame.len() <= madang_wire::wan::RECORD_FRAMES_MAX;
                if !self.pending.front().is_some_and(fits) {
                    break;
                }
                let next = self.pending.pop_front().expect("it was just looked at");
                frame.extend(next.frame);
                messages += usize::from(next.is_message);
            }
            let records = cloak.cover(&frame);
            self.queued += records.len() as u64;
            self.outgoing.extend(records);
            self.ends.extend(std::iter::repeat_n(self.queued, messages));
        }
    }

    /// Begins a message.
    fn say(&mut self, table: &mut Table, ledger: &mut Ledger, flags: u8) {
        let most = if table.dice.below(16) == 0 { table.len_max } else { table.len_max.min(100) };
        let len = table.dice.between(PEER_LEN_MIN as u64, most.max(PEER_LEN_MIN) as u64) as usize;
        let payload = Payload::Peer { key: self.key, counter: self.counter, flags }.bytes(len);
        self.counter += 1;
        let frame = codec::message(table.tongue, &payload, &mut table.dice);
        self.put(&frame, true);
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.begun = self.counter;
        }
    }

    fn speak(&mut self, table: &mut Table, ledger: &mut Ledger, calm: bool) {
        if self.is_over || calm && self.gives_up(table, ledger) {
            return;
        }
        if self.fins || !self.peer.is_open() {
            return;
        }
        if calm {
            if !self.greeted {
                self.greet(table, ledger);
            }
            // It has said its last word already.
            let tale = ledger.peers.get_mut(&self.peer.local());
            if let Some(tale) = tale.filter(|tale| tale.says_goodbye || tale.is_hostile) {
                tale.leaves = true;
                self.fins = true;
                return;
            }
            let now = table.world.now();
            // One question waits with who waits for a place; several would all be answered at once, and fill a small queue.
            let asks_again = ledger.session_of_peer(self.peer.local()).is_some();
            if self.expects == Expects::Traffic
                && self.asked.is_none_or(|at| asks_again && now.since(at) > ASK_EVERY)
            {
                self.asked = Some(now);
                self.say(table, ledger, MARKER);
            }
            return;
        }
        if self.manners.is_mute {
            return;
        }
        self.acts += 1;
        if !self.greeted {
            self.greet(table, ledger);
            if self.manners.is_eager {
                for _ in 0..table.dice.below(4) {
                    self.say(table, ledger, 0);
                }
            }
        }
        let may_talk = self.expects == Expects::Traffic || self.manners.is_eager;
        while may_talk
            && self.outgoing.len() < 2_000
            && self.pending.len() < 20
            && table.dice.chance(self.manners.talks)
        {
            self.say(table, ledger, 0);
        }
        if self.expects == Expects::Traffic && table.tongue.is_own() && table.dice.below(40) == 0 {
            self.put(&codec::lan_frame(PING, &7u64.to_le_bytes()), false);
        }
        if self.acts >= self.manners.acts {
            self.end(table, ledger);
        }
    }

    /// In the liveness phase: whether it has waited long enough for an answer. Then it closes, and comes again.
    fn gives_up(&mut self, table: &Table, ledger: &mut Ledger) -> bool {
        let now = table.world.now();
        let session = ledger.session_of_peer(self.peer.local());
        let is_answered = session.is_some_and(|id| ledger.sessions[&id].has_answer);
        if is_answered || now.since(*self.calm_since.get_or_insert(now)) <= PATIENCE {
            return false;
        }
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.leaves = true;
        }
        self.is_over = true;
        self.peer.close();
        true
    }

    fn greet(&mut self, table: &mut Table, ledger: &mut Ledger) {
        self.greeted = true;
        #[cfg(feature = "wan")]
        if table.tongue.is_sealed() {
            let limit = self.manners.limit as u32;
            let (cloak, bytes) = Cloak::begin(table.tongue, self.key, limit, &mut table.dice);
            self.cloak = Some(cloak);
            return self.put_bytes(&bytes);
        }
        if table.tongue == Tongue::Lan {
            self.choose_ticket(table, ledger);
            let frame = self.introduce(ledger);
            self.put(&frame, false);
        }
    }

    fn introduce(&self, ledger: &mut Ledger) -> Vec<u8> {
        let Manners { node, incarnation, limit, .. } = &self.manners;
        ledger.greets(node, *incarnation);
        let ticket = self.shows.as_deref().unwrap_or_default();
        Introduction { frame_limit: *limit as u32, node, incarnation: *incarnation, ticket }.frame()
    }

    /// What its greeting or log-in shows: its good ticket; now and then one that is spent, or that it made up.
    fn choose_ticket(&mut self, table: &mut Table, ledger: &mut Ledger) {
        self.shows = match table.dice.below(6) {
            0 if self.tickets.spent.is_some() => {
                ledger.did("shows a spent ticket");
                self.tickets.spent.clone()
            }
            1 => Some((0..25).map(|_| table.dice.word() as u8).collect()),
            _ => self.tickets.good.clone(),
        };
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            tale.shows = self.shows.clone();
        }
    }

    fn end(&mut self, table: &mut Table, ledger: &mut Ledger) {
        let ending = self.manners.ending;
        if ending == Ending::Stays {
            return;
        }
        let address = self.peer.local();
        let Some(tale) = ledger.peers.get_mut(&address) else { return };
        match ending {
            Ending::HalfCloses | Ending::SaysGoodbye => {
                let says = ending == Ending::SaysGoodbye
                    && table.tongue.is_own()
                    && self.expects == Expects::Traffic;
                if says && !tale.says_goodbye {
                    tale.says_goodbye = true;
                    tale.leaves = true;
                    let mut goodbye = vec![0x44];
                    goodbye.extend(0u32.to_le_bytes());
                    self.put(&codec::lan_frame(GOODBYE, &goodbye), false);
                    self.said_goodbye = true;
                    self.manners.talks = 0;
                    return;
                }
                if !self.fins {
                    // Some last messages, and the end right behind them.
                    self.fins = true;
                    self.manners.talks = 0;
                    tale.leaves = true;
                    let says_more = !tale.says_goodbye && self.expects == Expects::Traffic;
                    for _ in 0..if says_more { table.dice.below(6) } else { 0 } {
                        self.say(table, ledger, 0);
                    }
                    ledger.did("peer half-closes");
                }
            }
            Ending::Closes => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.close();
                ledger.did("peer closes");
            }
            Ending::Resets => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.reset();
                ledger.did("peer resets");
            }
            Ending::Vanishes => {
                tale.leaves = true;
                self.is_over = true;
                self.peer.vanish();
                ledger.did("peer vanishes");
            }
            Ending::TurnsHostile => {
                tale.is_hostile = true;
                if self.outgoing.is_empty() && self.pending.is_empty() {
                    #[cfg(feature = "wan")]
                    let mischief = self.cloak.as_mut().map(|cloak| cloak.mischief(&mut table.dice));
                    #[cfg(not(feature = "wan"))]
                    let mischief = None;
                    let bytes = mischief
                        .unwrap_or_else(|| codec::garbage(table.tongue, table.frame_limit, &mut table.dice));
                    self.put_bytes(&bytes);
                    self.manners.ending = Ending::Stays;
                    self.manners.talks = 0;
                    self.manners.is_mute = true;
                    ledger.did("peer turns hostile");
                }
            }
            Ending::Stays => {}
        }
    }

    fn write(&mut self, table: &mut Table, ledger: &mut Ledger) {
        #[cfg(feature = "wan")]
        self.cover(&mut table.dice);
        if self.is_over || self.outgoing.is_empty() {
            return;
        }
        let most = if self.manners.dribbles && !ledger.calm { 1 + table.dice.index(3) } else { usize::MAX };
        let mut total = 0;
        while total < most && !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            let len = front.len().min(most - total);
            let count = self.peer.write(&front[..len]);
            self.outgoing.drain(..count);
            total += count;
            if count < len {
                break;
            }
        }
        self.written += total as u64;
        while self.ends.front().is_some_and(|end| *end <= self.written) {
            self.ends.pop_front();
        }
        if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
            let pending = self.pending.iter().filter(|pending| pending.is_message).count();
            tale.whole = self.counter - (self.ends.len() + pending) as u32;
            tale.bytes = self.written as usize;
            if total > 0 {
                tale.wrote_last = Some(ledger.now);
            }
        }
    }

    /// Ends its direction once all that it has said is out.
    fn fin(&mut self, ledger: &mut Ledger) {
        if self.fins
            && self.outgoing.is_empty()
            && self.pending.is_empty()
            && !self.is_half_closed
            && !self.is_over
            && self.peer.is_open()
        {
            self.is_half_closed = true;
            self.peer.shutdown_write();
            if let Some(tale) = ledger.peers.get_mut(&self.peer.local()) {
                tale.fins = true;
            }
        }
    }
}
