//! Embryos: peers that are connected and have not proven who they are.
//!
//! ```text
//!   server:  adopted ─► ExpectGreeting ─► ExpectPlace ─► session
//!   client:  Connecting ─► ExpectWelcome ─────────────► session (of a link)
//!            any of them ─► Refusing (a last word, then close) or Aborting ─► gone
//!
//!   with a handshake before (handshake.rs):
//!   server:  adopted ─► ExpectPreamble (─► ExpectTurn) ─► ExpectLogIn (─► ExpectLogInTurn) ─► LogsIn
//!            (─► ExpectVerdict) ─► ExpectPlace
//!   client:  Connecting ─► ExpectAnswer ─► ExpectWelcome
//! ```
//!
//! They live outside the session slots, have one deadline for all of it, and take the bytes of a greeting and no more:
//! strangers cannot fill the server.

use std::sync::Arc;

use madang_driver::{Conn, Driver, NetError, Outgoing, RecvEnd};
use madang_packet::PacketMut;
use madang_wire::lan::{self, Greeting, Heartbeat, LanFraming};
use madang_wire::{FrameError, Kind, Next};

use super::connections::Owner;
use super::core::after;
use super::embryos::{Embryo, Origin, Stage};
use super::{Shard, Timer};
use crate::error::{ErrorKind, LinkDown};
use crate::figures::Count;
use crate::letters::{EmbryoKey, Report, TicketBytes};
use crate::planted::{Planted, planted};
use crate::speech::Speech;
use crate::{Node, Peer, Refusal, WaitState};

/// Bytes of frames that an embryo may have waiting for its send: a few dozen, and a peer that takes none of them is gone.
pub(super) const SAID_BYTES_MAX: usize = 4 << 10;

/// Bytes behind a greeting that wait for the place: a peer that has more to say before it is welcome is paused.
const HELD_BYTES_MAX: usize = 64 << 10;

impl<D: Driver> Shard<D> {
    /// Starts the connection of a link.
    pub(super) fn embryo_of_link(&mut self, conn: Conn, peer: Peer, link: u32) {
        self.embryo(conn, peer, Stage::Connecting, Origin::Link(link));
    }

    pub(super) fn embryo(&mut self, conn: Conn, peer: Peer, stage: Stage, origin: Origin) -> u32 {
        let key = self.embryos.reserve();
        let settings = &self.core.fabric.settings;
        let is_lan = self.core.fabric.protocol.is_lan();
        let (patience, lan) = match origin {
            Origin::Link(_) => (settings.connect_timeout_ms, LanFraming::client(self.frame_limit)),
            Origin::Gate { .. } => (settings.greeting_timeout_ms, LanFraming::server(self.frame_limit)),
        };
        let speech = if is_lan { Speech::Plain(lan) } else { Speech::Foreign };
        let deadline = self.core.timers.set(after(self.core.now, patience), Timer::Greeting(key));
        self.embryos.fill(
            key,
            Embryo {
                serial: key.serial,
                conn,
                peer,
                stage,
                speech,
                #[cfg(feature = "wan")]
                handshake: None,
                inbox: None,
                outbox: None,
                connecting: stage == Stage::Connecting,
                receiving: false,
                sending: false,
                eof: false,
                paused: false,
                deadline,
                send_limit: self.frame_limit.get(),
                greeted: false,
                #[cfg(feature = "wan")]
                ticket: None,
                refusal: None,
                wait: None,
                origin,
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
                    self.promote(embryo.into());
                    return;
                }
                self.embryo_begins(index);
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

    /// A link is connected: the first word is ours.
    fn embryo_begins(&mut self, index: u32) {
        #[cfg(feature = "wan")]
        if self.core.fabric.seals() {
            return self.begin_handshake(index);
        }
        self.greet(index);
    }

    /// The client's greeting.
    pub(super) fn greet(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        embryo.stage = Stage::ExpectWelcome;
        let link = embryo.link();
        let mut frame = [0; lan::CONTROL_FRAME_MAX];
        let greeting = self.core.own_greeting(self.frame_limit, self.links.ticket(link));
        let len = greeting.to_frame(&mut frame).expect("the names were checked, and so was the ticket");
        self.embryo_say(index, &frame[..len]);
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
        if let Some(wait) = &mut embryo.wait {
            wait.heard = self.core.patient_now();
        }
        let serial = embryo.serial;
        if embryo.stage.listens() {
            self.embryo_bytes(index, bytes);
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

    pub(super) fn embryo_bytes(&mut self, index: u32, mut bytes: &mut [u8]) {
        // A stranger's bytes are a greeting and what lies right behind it: small, so they are gathered before a look.
        let Some(embryo) = self.embryos.get(index) else { return };
        let mut kept = embryo.inbox.take();
        if kept.is_none() && embryo.stage.waits() && embryo.wait.is_none() {
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
        if !embryo.stage.listens() {
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
            let rest = &mut bytes[used..];
            match embryo.stage {
                Stage::ExpectGreeting | Stage::ExpectWelcome => {}
                #[cfg(feature = "wan")]
                Stage::LogsIn => {}
                #[cfg(feature = "wan")]
                Stage::ExpectLogIn => {
                    self.wants_to_log_in(index);
                    return used;
                }
                #[cfg(feature = "wan")]
                Stage::ExpectPreamble | Stage::ExpectAnswer => {
                    let Some(taken) = self.embryo_handshake(index, rest) else { return used };
                    used += taken;
                    continue;
                }
                // Signs of life, or a goodbye; a message waits for its session, and all behind it.
                Stage::ExpectPlace if embryo.hears_while_waiting(rest) => {}
                _ => return used,
            }
            let (len, opened) = match embryo.speech.next(rest) {
                Ok(Next::Frame { len, opened }) => (len, opened),
                Ok(Next::Need { .. }) => return used,
                Err(error) => {
                    self.embryo_malformed(index, error);
                    return bytes.len();
                }
            };
            used += len;
            let payload = &rest[opened.payload];
            match opened.kind {
                #[cfg(feature = "wan")]
                Kind::Greeting if self.has_to_seal(index) => self.seal_link(index, &rest[..len]),
                #[cfg(feature = "wan")]
                Kind::LogIn => self.log_in(index, payload),
                Kind::Greeting => self.greeted(index, payload),
                Kind::Refusal => {
                    let refusal = Refusal::read(payload);
                    self.embryo_down(index, LinkDown::Refused(refusal));
                }
                Kind::Welcome => {
                    let waited = self.embryos.get(index).is_some_and(|embryo| embryo.wait.is_some());
                    if waited && self.call_waiter(index, WaitState::Admitted).is_none() {
                        return bytes.len();
                    }
                    let Some(embryo) = self.remove_embryo(index) else { return bytes.len() };
                    if let Some(local) = self.promote(embryo.into()) {
                        self.receive(local, &mut bytes[used..]);
                    }
                    return bytes.len();
                }
                Kind::Goodbye => {
                    // Who says goodbye does not come back for his turn.
                    self.keep_no_turn(index);
                    self.embryo_down(index, LinkDown::NoWelcome);
                }
                Kind::Queue => self.link_queued(index, payload),
                Kind::Ticket => self.link_ticket(index, payload),
                Kind::Ping => {
                    if let Ok(ping) = Heartbeat::from_payload(payload) {
                        self.embryo_say(index, &ping.pong());
                    }
                }
                // A pong has said what it had to by arriving; the framing lets no other kind through.
                _ => {}
            }
        }
    }

    /// The other side's greeting came.
    fn greeted(&mut self, index: u32, payload: &[u8]) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let checked = match Greeting::from_payload(payload) {
            Err(error) => Err(error.refusal().map(Refusal::from)),
            Ok(theirs) => match self.core.check_greeting(&theirs, embryo.origin) {
                Err(reason) => Err(Some(reason.into())),
                Ok(()) => embryo.refusal.take().map_or(Ok(theirs), |refusal| Err(Some(*refusal))),
            },
        };
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
                if let (Stage::ExpectGreeting, Origin::Gate { guest, .. }) = (embryo.stage, embryo.origin) {
                    embryo.stage = Stage::ExpectPlace;
                    let ticket = TicketBytes::read(theirs.ticket).map(|ticket| embryo.shows(ticket));
                    self.core.report(Report::Proven { guest, node, ticket, priority: 0 });
                }
            }
            Err(Some(refusal)) if embryo.link().is_none() => self.refuse(index, refusal),
            Err(Some(refusal)) => self.embryo_down(index, LinkDown::Refused(refusal)),
            Err(None) => self.embryo_malformed(index, FrameError::Magic),
        }
    }

    /// Says a frame of the engine's: now, or behind the send that is in flight.
    pub(super) fn embryo_say(&mut self, index: u32, frame: &[u8]) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let mut said = match embryo.outbox.take() {
            Some(said) => said,
            None => match self.core.magazine.packet_past_budget(frame.len()) {
                Ok(fresh) => fresh,
                Err(_) => return self.embryo_abort(index),
            },
        };
        said.bytes(frame);
        if said.is_exhausted() || said.len() > SAID_BYTES_MAX {
            return self.embryo_abort(index);
        }
        embryo.outbox = Some(said);
        if !embryo.sending {
            self.embryo_flush(index);
        }
    }

    /// Sends what was said, sealed where it has to be.
    fn embryo_flush(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let Some(said) = embryo.outbox.take() else { return };
        #[cfg(feature = "wan")]
        let Ok(said) = embryo.speech.seal(said, &self.core.magazine) else { return self.embryo_abort(index) };
        self.embryo_send(index, said);
    }

    /// Submits bytes as they are; no send is in flight.
    pub(super) fn embryo_send(&mut self, index: u32, packet: PacketMut) {
        let Some(embryo) = self.embryos.get(index) else { return };
        debug_assert!(!embryo.sending, "one send at a time");
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.push(packet.freeze());
        embryo.sending = true;
        let conn = embryo.conn;
        if let Err(outgoing) = self.driver.send(conn, outgoing) {
            self.unsent.push((conn, outgoing));
        }
    }

    /// A send of an embryo ended.
    pub(super) fn embryo_sent(&mut self, index: u32, outgoing: Outgoing, result: Result<usize, NetError>) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let conn = embryo.conn;
        embryo.sending = false;
        match result {
            Ok(bytes) => {
                self.core.counters.add(Count::BytesOut, bytes as u64);
                if !outgoing.is_empty() && embryo.stage != Stage::Aborting {
                    embryo.sending = true;
                    if let Err(outgoing) = self.driver.send(conn, outgoing) {
                        self.unsent.push((conn, outgoing));
                    }
                    return;
                }
                self.recycle(outgoing);
                let embryo = self.embryos.get(index).expect("it was just there");
                if embryo.outbox.is_some() && embryo.stage != Stage::Aborting {
                    return self.embryo_flush(index);
                }
                if embryo.wait.as_ref().is_some_and(|wait| wait.word.is_some()) {
                    return self.say_word(index);
                }
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
        self.look_for_goodbye(index);
        let Some(embryo) = self.embryos.get(index) else { return };
        match embryo.stage {
            Stage::Refusing | Stage::Aborting => self.embryo_advance(index),
            #[cfg(feature = "wan")]
            Stage::ExpectAnswer => self.embryo_down(index, LinkDown::NoAnswer),
            _ => self.embryo_down(index, LinkDown::NoWelcome),
        }
    }

    pub(super) fn embryo_malformed(&mut self, index: u32, error: FrameError) {
        let remote = self.embryos.get(index).map(|embryo| embryo.peer.remote);
        self.keep_no_turn(index);
        self.core.error_of(ErrorKind::Malformed(error), None, remote);
        self.embryo_down(index, LinkDown::NoWelcome);
    }

    /// It will not become a session: remember why for its link, and reset it.
    pub(super) fn embryo_down(&mut self, index: u32, why: LinkDown) {
        if let Some(link) = self.embryos.get(index).and_then(|embryo| embryo.link()) {
            self.links.note(link, why);
        }
        self.embryo_abort(index);
    }

    pub(super) fn embryo_abort(&mut self, index: u32) {
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
        let Some(mut embryo) = self.remove_embryo(index) else { return };
        self.connections.clear(embryo.conn);
        self.retiring.push_back(embryo.conn);
        self.core.counters.add(Count::Failed, 1);
        let keeps = self.end_wait(&mut embryo);
        match embryo.origin {
            Origin::Link(link) => {
                self.links.note(link, why);
                self.link_down(link);
            }
            Origin::Gate { guest, .. } => self.core.report(Report::Gone { guest, keeps }),
        }
    }

    pub(super) fn remove_embryo(&mut self, index: u32) -> Option<Embryo> {
        let embryo = self.embryos.take(index)?;
        self.core.timers.cancel(embryo.deadline);
        Some(embryo)
    }

    /// Patience with an embryo is over.
    pub(super) fn greeting_overdue(&mut self, key: EmbryoKey) {
        let Some(embryo) = self.embryos.by_key(key) else { return };
        if embryo.wait.is_some() && matches!(embryo.stage, Stage::ExpectPlace | Stage::ExpectWelcome) {
            return self.wait_beat(key.index);
        }
        let (remote, link) = (embryo.peer.remote, embryo.link());
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
            let theirs = |embryo: &mut Embryo| embryo.link() == Some(link) && embryo.stage != Stage::Aborting;
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
}
