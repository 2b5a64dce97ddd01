//! Embryos: peers that are connected and have not proven who they are.
//!
//! ```text
//!   server:  adopted ─► ExpectGreeting ─► ExpectPlace ─► session
//!   client:  Connecting ─► ExpectWelcome ─────────────► session (of a link)
//!            any of them ─► Refusing (a last word, then close) or Aborting ─► gone
//! ```
//!
//! They live outside the session slots, have one deadline for all of it, and take the bytes of a greeting and no more:
//! strangers cannot fill the server.

use std::sync::Arc;

use madang_driver::{AttachError, Conn, Driver, Incoming, NetError, Outgoing, RecvEnd};
use madang_packet::PacketMut;
use madang_wire::lan::{self, Greeting, LanFraming, Refusal, RefusalReason, Welcome};
use madang_wire::{Find, FrameError, Framing, Kind};

use super::callbacks::Call;
use super::connections::Owner;
use super::core::after;
use super::watch::check_period_ms;
use super::{Shard, Timer};
use crate::error::{ErrorKind, LinkDown};
use crate::figures::Count;
use crate::framing::{Guarded, Wire};
use crate::letters::{EmbryoKey, Report};
use crate::planted::{Planted, planted};
use crate::session::{Details, Life, Outbox, Session};
use crate::timers::TimerKey;
use crate::user::{Content, stranger};
use crate::{LeaveReason, Node, Peer, Sent, SessionId};

/// Bytes behind a greeting that wait for the place: a peer that has more to say before it is welcome is paused.
const HELD_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// An outgoing connect is in flight.
    Connecting,
    /// The server's side: the greeting comes.
    ExpectGreeting,
    /// The server's side: the gate was asked.
    ExpectPlace,
    /// The client's side: the server's greeting and welcome come.
    ExpectWelcome,
    /// A last word goes out, then the close.
    Refusing,
    /// Reset; the operations in flight come back.
    Aborting,
}

pub(super) struct Embryo {
    serial: u64,
    conn: Conn,
    peer: Peer,
    stage: Stage,
    lan: LanFraming,
    inbox: Option<PacketMut>,
    /// The driver holds a connect, a receive, a send of it.
    connecting: bool,
    receiving: bool,
    sending: bool,
    eof: bool,
    paused: bool,
    deadline: TimerKey,
    /// The longest message that the peer takes.
    send_limit: u32,
    link: Option<u32>,
    /// The gate counts a place for it.
    placed: bool,
}

/// The embryos of a shard.
#[derive(Default)]
pub(super) struct Embryos {
    places: Vec<Option<Embryo>>,
    free: Vec<u32>,
    serial: u64,
    len: usize,
}

impl Embryos {
    fn reserve(&mut self) -> EmbryoKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.serial += 1;
        self.len += 1;
        EmbryoKey { index, serial: self.serial }
    }

    fn fill(&mut self, key: EmbryoKey, embryo: Embryo) {
        self.places[key.index as usize] = Some(embryo);
    }

    fn get(&mut self, index: u32) -> Option<&mut Embryo> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    fn by_key(&mut self, key: EmbryoKey) -> Option<&mut Embryo> {
        self.get(key.index).filter(|embryo| embryo.serial == key.serial)
    }

    fn take(&mut self, index: u32) -> Option<Embryo> {
        let embryo = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.len -= 1;
        Some(embryo)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Operations that the driver holds for them.
    #[cfg(feature = "simulation")]
    pub(super) fn in_flight(&self) -> usize {
        let ops = |embryo: &Embryo| {
            usize::from(embryo.receiving) + usize::from(embryo.sending) + usize::from(embryo.connecting)
        };
        self.places.iter().flatten().map(ops).sum()
    }

    /// What is wrong with one of them: a deadline that passed, too much kept.
    #[cfg(feature = "simulation")]
    pub(super) fn broken(&self, now: madang_driver::Time, inbox_max: usize) -> Option<String> {
        let kept = |embryo: &Embryo| embryo.inbox.as_ref().map_or(0, |inbox| inbox.len());
        let overdue = |embryo: &&Embryo| embryo.stage != Stage::Aborting && embryo.deadline.is_due(now);
        let embryos = || self.places.iter().flatten();
        embryos()
            .find(overdue)
            .map(|embryo| format!("embryo {:?} outlives its deadline", embryo.peer.remote))
            .or_else(|| {
                embryos()
                    .find(|embryo| kept(embryo) > inbox_max)
                    .map(|embryo| format!("an embryo keeps {} bytes", kept(embryo)))
            })
    }
}

impl<D: Driver> Shard<D> {
    /// Takes a socket that the gate let in.
    pub(super) fn adopt(&mut self, incoming: Incoming, placed: bool) {
        if self.stopping.is_some() {
            return self.not_adopted(placed);
        }
        let peer = stranger(incoming.peer(), incoming.local());
        match self.driver.attach(incoming) {
            Ok(conn) if placed => self.join_directly(conn, peer),
            Ok(conn) => {
                let index = self.embryo(conn, peer, Stage::ExpectGreeting, None);
                self.embryo_receive(index);
            }
            // The next turn tries again: there is room after a poll at the earliest.
            Err(AttachError::Full(incoming)) => self.unattached.push((incoming, placed)),
            Err(AttachError::Failed(error)) => {
                if matches!(error, NetError::NoBufferSpace | NetError::OutOfMemory | NetError::TooManyFiles) {
                    self.core.error_of(ErrorKind::SystemExhausted, None, Some(peer.remote));
                }
                self.not_adopted(placed);
            }
        }
    }

    fn not_adopted(&mut self, placed: bool) {
        self.core.counters.add(Count::Failed, 1);
        let shard = self.core.shard;
        self.core.fabric.report(if placed {
            Report::NotJoined { shard }
        } else {
            Report::EmbryoGone { shard }
        });
    }

    /// Starts the connection of a link.
    pub(super) fn embryo_of_link(&mut self, conn: Conn, peer: Peer, link: u32) {
        self.embryo(conn, peer, Stage::Connecting, Some(link));
    }

    fn embryo(&mut self, conn: Conn, peer: Peer, stage: Stage, link: Option<u32>) -> u32 {
        let key = self.embryos.reserve();
        let settings = &self.core.fabric.settings;
        let patience =
            if link.is_some() { settings.connect_timeout_ms } else { settings.greeting_timeout_ms };
        let deadline = self.core.timers.set(after(self.core.now, patience), Timer::Greeting(key));
        let lan = match link {
            Some(_) => LanFraming::client(self.frame_limit),
            None => LanFraming::server(self.frame_limit),
        };
        self.embryos.fill(
            key,
            Embryo {
                serial: key.serial,
                conn,
                peer,
                stage,
                lan,
                inbox: None,
                connecting: stage == Stage::Connecting,
                receiving: false,
                sending: false,
                eof: false,
                paused: false,
                deadline,
                send_limit: self.frame_limit.get(),
                link,
                placed: false,
            },
        );
        self.connections.set(conn, Owner::Embryo(key.index));
        key.index
    }

    /// An outgoing connect ended.
    pub(super) fn embryo_connected(&mut self, index: u32, result: Result<std::net::SocketAddr, NetError>) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let (conn, aborting) = (embryo.conn, embryo.stage == Stage::Aborting);
        embryo.connecting = false;
        match result {
            Ok(local) if !aborting => {
                embryo.peer.local = local;
                if !self.core.fabric.protocol.greets() {
                    let embryo = self.remove_embryo(index).expect("it was just there");
                    self.promote(embryo);
                    return;
                }
                embryo.stage = Stage::ExpectWelcome;
                let mut frame = [0; lan::CONTROL_FRAME_MAX];
                let len = self
                    .core
                    .own_greeting(self.frame_limit)
                    .to_frame(&mut frame)
                    .expect("the names were checked");
                self.embryo_send(index, &frame[..len]);
                self.embryo_receive(index);
            }
            // It came through although it was called off, or it failed: either way nothing is in flight.
            Ok(_) => self.embryo_gone(index, LinkDown::Unreachable),
            Err(error) => {
                debug_assert_eq!(self.connections.of(conn), Some(Owner::Embryo(index)));
                let down = match error {
                    NetError::Refused => LinkDown::ConnectionRefused,
                    NetError::AddrNotAvailable | NetError::AddrInUse | NetError::TooManyFiles => {
                        LinkDown::Local
                    }
                    _ => LinkDown::Unreachable,
                };
                self.embryo_gone(index, down);
            }
        }
    }

    pub(super) fn embryo_receive(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        if embryo.receiving || embryo.paused || embryo.eof || embryo.stage == Stage::Aborting {
            return;
        }
        let conn = embryo.conn;
        if self.start_receive(conn, Owner::Embryo(index)) {
            self.embryos.get(index).expect("it was just there").receiving = true;
        }
    }

    /// Bytes of an embryo came.
    pub(super) fn embryo_data(&mut self, index: u32, bytes: &mut [u8], more: bool) {
        self.fed();
        let Some(embryo) = self.embryos.get(index) else { return };
        embryo.receiving = more;
        let serial = embryo.serial;
        match embryo.stage {
            Stage::ExpectGreeting | Stage::ExpectWelcome | Stage::ExpectPlace => {
                self.embryo_bytes(index, bytes)
            }
            Stage::Refusing | Stage::Aborting | Stage::Connecting => {}
        }
        // It may have become a session, or be gone.
        match self.embryos.get(index) {
            Some(embryo) if embryo.serial == serial => {
                if !more && embryo.stage == Stage::Aborting {
                    self.embryo_advance(index);
                } else if !more {
                    self.embryo_receive(index);
                }
            }
            _ => {}
        }
    }

    fn embryo_bytes(&mut self, index: u32, mut bytes: &mut [u8]) {
        // A stranger's bytes are a greeting and what lies right behind it: small, so they are gathered before a look.
        let Some(embryo) = self.embryos.get(index) else { return };
        let mut kept = embryo.inbox.take();
        if kept.is_none() && embryo.stage == Stage::ExpectPlace {
            kept = self.core.magazine.packet(bytes.len()).ok();
        }
        let Some(mut kept) = kept else {
            let used = self.embryo_frames(index, bytes);
            bytes = &mut bytes[used..];
            return self.embryo_keep(index, bytes);
        };
        kept.bytes(bytes);
        if kept.is_exhausted() {
            self.core.error_of(ErrorKind::PoolExhausted, None, None);
            return self.embryo_abort(index);
        }
        let used = self.embryo_frames(index, kept.as_mut_slice());
        let rest = &mut kept.as_mut_slice()[used..];
        self.embryo_keep(index, rest);
    }

    /// Keeps what is not used yet, by whoever the connection belongs to by now.
    fn embryo_keep(&mut self, index: u32, rest: &mut [u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(embryo) = self.embryos.get(index) else { return };
        if !matches!(embryo.stage, Stage::ExpectGreeting | Stage::ExpectWelcome | Stage::ExpectPlace) {
            return;
        }
        let Ok(mut inbox) = self.core.magazine.packet(rest.len()) else {
            self.core.error_of(ErrorKind::PoolExhausted, None, None);
            return self.embryo_abort(index);
        };
        inbox.bytes(rest);
        let held = inbox.len();
        let embryo = self.embryos.get(index).expect("it was just there");
        embryo.inbox = Some(inbox);
        if held >= HELD_BYTES_MAX && !embryo.paused {
            embryo.paused = true;
            let conn = embryo.conn;
            self.driver.recv_pause(conn);
        }
    }

    /// Takes the frames that are in turn before a session exists. Answers how many bytes they were; all of them, when the
    /// rest went to the session.
    fn embryo_frames(&mut self, index: u32, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(embryo) = self.embryos.get(index) else { return bytes.len() };
            if !matches!(embryo.stage, Stage::ExpectGreeting | Stage::ExpectWelcome) {
                return used;
            }
            let rest = &mut bytes[used..];
            let opened = match embryo.lan.find(rest) {
                Ok(Find::Frame { len }) => {
                    used += len;
                    embryo.lan.open(&rest[..len])
                }
                Ok(Find::Need { .. }) => return used,
                Err(error) => Err(error),
            };
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.embryo_malformed(index, error);
                    return bytes.len();
                }
            };
            let payload = &rest[opened.payload];
            match opened.kind {
                Kind::Greeting => self.greeted(index, payload),
                Kind::Refusal => {
                    let reason = Refusal::from_payload(payload)
                        .map_or(RefusalReason::Malformed, |refusal| refusal.reason);
                    self.embryo_down(index, LinkDown::Refused(reason));
                }
                Kind::Welcome => {
                    let Some(embryo) = self.remove_embryo(index) else { return bytes.len() };
                    if let Some(local) = self.promote(embryo) {
                        self.receive(local, &mut bytes[used..]);
                    }
                    return bytes.len();
                }
                Kind::Goodbye => self.embryo_down(index, LinkDown::NoWelcome),
                Kind::Ping | Kind::Pong | Kind::Message => {}
            }
        }
    }

    /// The other side's greeting came.
    fn greeted(&mut self, index: u32, payload: &[u8]) {
        let checked = match Greeting::from_payload(payload) {
            Err(error) => Err(error.refusal()),
            Ok(theirs) => self.core.check_greeting(&theirs).map(|()| theirs).map_err(Some),
        };
        let Some(embryo) = self.embryos.get(index) else { return };
        match checked {
            Ok(theirs) => {
                let node = Arc::new(Node {
                    service: theirs.service.to_owned(),
                    name: theirs.node.to_owned(),
                    incarnation: theirs.incarnation,
                    app_version: theirs.app_version,
                });
                embryo.send_limit = theirs.frame_limit.get().min(self.frame_limit.get());
                embryo.peer.node = Some(Arc::clone(&node));
                if embryo.stage == Stage::ExpectGreeting {
                    embryo.stage = Stage::ExpectPlace;
                    let key = EmbryoKey { index, serial: embryo.serial };
                    self.core.fabric.report(Report::Proven { shard: self.core.shard, embryo: key, node });
                }
            }
            Err(Some(reason)) if embryo.link.is_none() => self.refuse(index, reason),
            Err(Some(reason)) => self.embryo_down(index, LinkDown::Refused(reason)),
            Err(None) => self.embryo_malformed(index, FrameError::Magic),
        }
    }

    /// The gate's answer.
    pub(super) fn placed(&mut self, key: EmbryoKey, answer: Result<(), RefusalReason>) {
        let waiting = self.embryos.by_key(key).is_some_and(|embryo| embryo.stage == Stage::ExpectPlace);
        match answer {
            Ok(()) if waiting => {
                let embryo = self.remove_embryo(key.index).expect("it was just there");
                debug_assert_eq!(embryo.lan.expect(), lan::Expect::Traffic, "it has greeted");
                self.promote(embryo);
            }
            Ok(()) => self.core.fabric.report(Report::PlaceUnused),
            Err(reason) if waiting => self.refuse(key.index, reason),
            Err(_) => {}
        }
    }

    /// Says no, in words that the peer can read, and closes behind them.
    fn refuse(&mut self, index: u32, reason: RefusalReason) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let remote = embryo.peer.remote;
        embryo.stage = Stage::Refusing;
        self.core.error_of(ErrorKind::Refused(reason), None, Some(remote));
        let mut frame = [0; lan::CONTROL_FRAME_MAX];
        let len = Refusal { reason, text: "" }.to_frame(&mut frame).expect("a refusal fits its room");
        self.embryo_send(index, &frame[..len]);
    }

    fn embryo_send(&mut self, index: u32, frame: &[u8]) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let Ok(mut packet) = self.core.magazine.packet_past_budget(frame.len()) else {
            return self.embryo_abort(index);
        };
        packet.bytes(frame);
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.push(packet.freeze());
        embryo.sending = true;
        let conn = embryo.conn;
        if let Err(outgoing) = self.driver.send(conn, outgoing) {
            self.unsent.push((conn, outgoing));
        }
    }

    /// A send of an embryo ended.
    pub(super) fn embryo_sent(
        &mut self,
        index: u32,
        mut outgoing: Outgoing,
        result: Result<usize, NetError>,
    ) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let conn = embryo.conn;
        embryo.sending = false;
        match result {
            Ok(bytes) => {
                self.core.counters.add(Count::BytesOut, bytes as u64);
                outgoing.advance(bytes);
                if !outgoing.is_empty() && embryo.stage != Stage::Aborting {
                    embryo.sending = true;
                    if let Err(outgoing) = self.driver.send(conn, outgoing) {
                        self.unsent.push((conn, outgoing));
                    }
                    return;
                }
                self.recycle(outgoing);
                let embryo = self.embryos.get(index).expect("it was just there");
                if embryo.stage == Stage::Refusing && !embryo.eof {
                    self.driver.half_close(conn);
                    self.embryo_receive(index);
                }
                self.embryo_advance(index);
            }
            Err(NetError::NoBufferSpace | NetError::OutOfMemory) if embryo.stage != Stage::Aborting => {
                embryo.sending = true;
                self.send_later(conn, outgoing);
            }
            Err(_) => {
                self.recycle(outgoing);
                self.embryo_abort(index);
            }
        }
    }

    /// A receive of an embryo ended without bytes.
    pub(super) fn embryo_recv_ended(&mut self, index: u32, end: RecvEnd) {
        let Some(embryo) = self.embryos.get(index) else { return };
        embryo.receiving = false;
        // An aborted receive may end with this word as with any other.
        if end == RecvEnd::NoBuffers && embryo.stage != Stage::Aborting {
            let conn = embryo.conn;
            return self.starve(conn, Owner::Embryo(index));
        }
        embryo.eof = true;
        match embryo.stage {
            Stage::Refusing | Stage::Aborting => self.embryo_advance(index),
            _ => self.embryo_down(index, LinkDown::NoWelcome),
        }
    }

    fn embryo_malformed(&mut self, index: u32, error: FrameError) {
        let remote = self.embryos.get(index).map(|embryo| embryo.peer.remote);
        self.core.error_of(ErrorKind::Malformed(error), None, remote);
        self.embryo_down(index, LinkDown::NoWelcome);
    }

    /// It will not become a session: remember why for its link, and reset it.
    fn embryo_down(&mut self, index: u32, why: LinkDown) {
        if let Some(link) = self.embryos.get(index).and_then(|embryo| embryo.link) {
            self.links.note(link, why);
        }
        self.embryo_abort(index);
    }

    fn embryo_abort(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        embryo.stage = Stage::Aborting;
        let conn = embryo.conn;
        if self.withdraw_unsent(conn) {
            self.embryos.get(index).expect("it was just there").sending = false;
        }
        self.driver.abort(conn);
        self.embryo_advance(index);
    }

    /// Lets an embryo go whose last word is said and of which the driver holds nothing.
    fn embryo_advance(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let idle = !embryo.connecting && !embryo.receiving && !embryo.sending;
        let done = match embryo.stage {
            Stage::Refusing => idle && embryo.eof,
            Stage::Aborting => idle,
            _ => false,
        };
        if done {
            self.embryo_gone(index, LinkDown::NoWelcome);
        }
    }

    fn embryo_gone(&mut self, index: u32, why: LinkDown) {
        let Some(embryo) = self.remove_embryo(index) else { return };
        self.connections.clear(embryo.conn);
        self.driver.retire(embryo.conn);
        self.core.counters.add(Count::Failed, 1);
        match embryo.link {
            Some(link) => {
                self.links.note(link, why);
                self.link_down(link);
            }
            None if self.core.fabric.protocol.greets() => {
                self.core.fabric.report(Report::EmbryoGone { shard: self.core.shard });
                if embryo.placed {
                    self.core.fabric.report(Report::PlaceUnused);
                }
            }
            None => self.core.fabric.report(Report::NotJoined { shard: self.core.shard }),
        }
    }

    fn remove_embryo(&mut self, index: u32) -> Option<Embryo> {
        let embryo = self.embryos.take(index)?;
        self.core.timers.cancel(embryo.deadline);
        Some(embryo)
    }

    /// Patience with an embryo is over.
    pub(super) fn greeting_overdue(&mut self, key: EmbryoKey) {
        let Some(embryo) = self.embryos.by_key(key) else { return };
        let (remote, link) = (embryo.peer.remote, embryo.link);
        if embryo.stage == Stage::Aborting || planted(Planted::GreetingWithoutEnd) {
            return;
        }
        if link.is_none() {
            self.core.error_of(ErrorKind::GreetingTimeout, None, Some(remote));
        }
        self.embryo_down(key.index, LinkDown::Unreachable);
    }

    /// Calls off what is under way for a link.
    pub(super) fn embryos_of_link_stop(&mut self, link: u32) {
        for index in 0..self.embryos.places.len() as u32 {
            let theirs = |embryo: &mut Embryo| embryo.link == Some(link) && embryo.stage != Stage::Aborting;
            if self.embryos.get(index).is_some_and(theirs) {
                self.embryo_abort(index);
            }
        }
    }

    pub(super) fn embryos_stop(&mut self) {
        for index in 0..self.embryos.places.len() as u32 {
            self.embryo_abort(index);
        }
    }

    /// A connection without a greeting joins at once.
    fn join_directly(&mut self, conn: Conn, peer: Peer) {
        let index = self.embryo(conn, peer, Stage::ExpectPlace, None);
        let embryo = self.remove_embryo(index).expect("it was just made");
        self.promote(embryo);
    }

    /// Makes a session of an embryo: set-up, welcome, `on_join`, then what was held, then the receive.
    fn promote(&mut self, embryo: Embryo) -> Option<u32> {
        let Some((local, id)) = self.session_name() else {
            self.core.error_of(ErrorKind::ServerFull, None, None);
            return self.promote_failed(embryo);
        };
        let framing = match &self.wire {
            Wire::Custom(make) => match Guarded::make(make, self.frame_limit, id.serial()) {
                Ok(framing) => Some(framing),
                Err(words) => {
                    self.core.error_of(ErrorKind::Panic(words), None, Some(embryo.peer.remote));
                    self.core.sessions.free(local);
                    return self.promote_failed(embryo);
                }
            },
            Wire::Lan | Wire::Be32(_) => None,
        };
        let Embryo { conn, peer, lan, mut inbox, receiving, paused, send_limit, link, sending, .. } = embryo;
        debug_assert!(!sending || link.is_some(), "only a client's greeting may still be on its way");
        let greets = matches!(self.wire, Wire::Lan);
        let mut details = Details::new(peer.clone(), self.core.now);
        details.link = link;
        details.framing = framing;
        let send_limit = match &details.framing {
            Some(framing) => send_limit.min(framing.limit() as u32),
            None => send_limit,
        };
        let period = check_period_ms(&self.core.fabric.settings, greets);
        details.check = Some(self.core.timers.set(after(self.core.now, period), Timer::Check { local, id }));
        let session = Session {
            id,
            conn,
            life: Life::Joining,
            receiving,
            sending,
            dirty: false,
            urgent: false,
            holds: 0,
            paused,
            has_user: false,
            eof: false,
            outbox: Outbox::EMPTY,
            in_flight: Sent::default(),
            inbox: None,
            last_heard: self.core.now,
            spoke: false,
            send_limit,
            lan: greets.then_some(lan),
        };
        self.core.sessions.fill(local, session, details);
        self.connections.set(conn, Owner::Session(local));
        self.core.fabric.directory.enter(id);
        self.core.counters.add(Count::Sessions, 1);
        if greets && link.is_none() {
            self.welcome(local, id);
        }
        if let Some(link) = link {
            self.links.up(link, id);
        } else if greets {
            let node = peer.node.clone().filter(|node| !node.name.is_empty()).map(|node| (node, id));
            self.core.fabric.report(Report::Joined { node });
        }
        if planted(Planted::ReceiveBeforeJoin) {
            self.core.sessions.get_mut(local).expect("it was just filled").life = Life::Joined;
            if let Some(held) = &mut inbox {
                self.receive(local, held.as_mut_slice());
            }
        }
        self.join(local, id, &peer);
        if planted(Planted::FreedInsideJoin) && !self.core.takes(local, id) {
            self.core.sessions.free(local);
            return None;
        }
        if self.core.takes(local, id) {
            if let Some(mut held) = inbox {
                self.receive(local, held.as_mut_slice());
            }
        }
        if self.core.takes(local, id) {
            let session = self.core.sessions.get_mut(local).expect("it takes messages");
            if session.holds == 0 && std::mem::take(&mut session.paused) {
                self.driver.recv_resume(conn);
            }
            self.resume_receive(local);
        }
        Some(local)
    }

    /// A slot and a serial, or why there is no session to be had.
    fn session_name(&mut self) -> Option<(u32, SessionId)> {
        let local = self.core.sessions.reserve()?;
        let Some(serial) = self.serials.take() else {
            self.core.sessions.free(local);
            self.core.error_of(ErrorKind::SerialsExhausted, None, None);
            return None;
        };
        Some((
            local,
            SessionId::new(self.core.fabric.directory.layout().slot(self.core.shard, local), serial),
        ))
    }

    /// No slot, no serial or no framing: the embryo lives on just long enough to be reset.
    fn promote_failed(&mut self, embryo: Embryo) -> Option<u32> {
        let Embryo { conn, peer, receiving, sending, link, .. } = embryo;
        self.connections.clear(conn);
        let index = self.embryo(conn, peer, Stage::Aborting, link);
        let again = self.embryos.get(index).expect("it was just made");
        again.receiving = receiving;
        again.sending = sending;
        again.placed = true;
        self.embryo_abort(index);
        None
    }

    /// The server's greeting and the welcome: ahead of whatever content sends.
    fn welcome(&mut self, local: u32, id: SessionId) {
        let settings = &self.core.fabric.settings;
        let welcome = Welcome {
            session_id: id.to_u64(),
            heartbeat_ms: settings.heartbeat_ms as u32,
            dead_after_ms: settings.dead_after_ms as u32,
        };
        let mut frames = [0; 2 * lan::CONTROL_FRAME_MAX];
        let mut len =
            self.core.own_greeting(self.frame_limit).to_frame(&mut frames).expect("the names were checked");
        len += welcome.to_frame(&mut frames[len..]).expect("the heartbeat was checked");
        self.core.queue_control(local, &frames[..len]);
    }

    /// Content learns of the session.
    fn join(&mut self, local: u32, id: SessionId, peer: &Peer) {
        self.core.counters.add(Count::Joins, 1);
        if let Content::Lobby(lobby) = &self.content {
            let entered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lobby.enter(id, peer)));
            let (session, details) = self.core.sessions.both(local).expect("it was just filled");
            match entered {
                Ok(Some(user)) => {
                    session.has_user = true;
                    details.user = Some(user);
                }
                Ok(None) => {
                    self.core.decide(local, LeaveReason::Declined, true);
                    return;
                }
                Err(panic) => {
                    self.core.error(ErrorKind::Panic(crate::offload::panic_text(&*panic)), Some(local));
                    self.core.decide(local, LeaveReason::Declined, false);
                    return;
                }
            }
        }
        self.call(local, id, Call::Join(peer));
        if let Some(session) = self.core.sessions.get_mut(local) {
            if session.life == Life::Joining {
                session.life = Life::Joined;
            }
        }
    }
}
