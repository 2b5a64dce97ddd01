//! From an embryo, or straight from the accept, to a session: set-up, welcome, `on_join`, and the first messages.

use madang_driver::{Conn, Driver};
use madang_packet::PacketMut;
use madang_wire::Framing;
use madang_wire::lan::{self, Welcome};

use super::callbacks::Call;
use super::connections::Owner;
use super::core::after;
use super::embryos::{Embryo, Origin, Stage};
use super::waiting::Wait;
use super::watch::check_period_ms;
use super::{Shard, Timer};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::framing::{Guarded, Wire};
use crate::letters::Report;
use crate::planted::{Planted, planted};
use crate::session::{Details, Life, Outbox, Session};
use crate::speech::Speech;
use crate::user::Content;
use crate::{LeaveReason, Peer, Sent, SessionId};

/// Who is about to join: what a session takes over from the embryo that it was.
pub(super) struct Entrant {
    conn: Conn,
    peer: Peer,
    speech: Speech,
    inbox: Option<PacketMut>,
    outbox: Option<PacketMut>,
    receiving: bool,
    sending: bool,
    paused: bool,
    send_limit: u32,
    greeted: bool,
    wait: Option<Box<Wait>>,
    origin: Origin,
}

impl From<Embryo> for Entrant {
    fn from(embryo: Embryo) -> Entrant {
        let Embryo { conn, peer, speech, inbox, outbox, receiving, sending, paused, .. } = embryo;
        let Embryo { send_limit, greeted, wait, origin, .. } = embryo;
        Entrant {
            conn,
            peer,
            speech,
            inbox,
            outbox,
            receiving,
            sending,
            paused,
            send_limit,
            greeted,
            wait,
            origin,
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A connection without a greeting joins at once: it is never an embryo, with a place and a deadline of one.
    pub(super) fn join_directly(&mut self, conn: Conn, peer: Peer, origin: Origin) {
        self.promote(Entrant {
            conn,
            peer,
            speech: Speech::Foreign,
            inbox: None,
            outbox: None,
            receiving: false,
            sending: false,
            paused: false,
            send_limit: self.frame_limit.get(),
            greeted: false,
            wait: None,
            origin,
        });
    }

    /// Makes a session: set-up, welcome, `on_join`, then what was held, then the receive.
    pub(super) fn promote(&mut self, mut entrant: Entrant) -> Option<u32> {
        let Some((local, id)) = self.session_name() else {
            self.core.error_of(ErrorKind::ServerFull, None, None);
            return self.promote_failed(entrant);
        };
        let (waited, words) = match entrant.wait.take() {
            Some(wait) => (wait.framing, [wait.word, wait.first]),
            None => (None, [None, None]),
        };
        let framing = match &self.wire {
            Wire::Custom(_) if waited.is_some() => waited,
            Wire::Custom(make) => match Guarded::make(make, self.frame_limit, id.serial()) {
                Ok(framing) => Some(framing),
                Err(words) => {
                    self.core.error_of(ErrorKind::Panic(words), None, Some(entrant.peer.remote));
                    self.core.sessions.free(local);
                    return self.promote_failed(entrant);
                }
            },
            Wire::Own | Wire::Be32(_) => None,
        };
        let Entrant {
            conn,
            peer,
            speech,
            mut inbox,
            outbox,
            receiving,
            sending,
            paused,
            send_limit,
            greeted,
            origin,
            ..
        } = entrant;
        let link = origin.link();
        let greets = matches!(self.wire, Wire::Own);
        let mut details = Details::new(peer.clone(), self.core.now);
        details.link = link;
        details.exempt = matches!(origin, Origin::Gate { exempt: true, .. });
        details.framing = framing;
        let send_limit = match &details.framing {
            Some(framing) => send_limit.min(framing.limit() as u32),
            None => send_limit,
        };
        let period = check_period_ms(&self.core.fabric.settings, greets);
        details.deadline =
            Some(self.core.timers.set(after(self.core.now, period), Timer::Check { local, id }));
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
            last_heard: self.core.patient_now(),
            spoke: false,
            send_limit,
            speech: speech.joined(),
        };
        self.core.sessions.fill(local, session, details);
        if let Some(intakes) = &mut self.core.intakes {
            intakes.begin(local);
        }
        self.connections.set(conn, Owner::Session(local));
        self.core.fabric.directory.enter(id);
        self.core.counters.add(Count::Sessions, 1);
        if let Some(said) = outbox {
            self.core.queue_control(local, &said);
        }
        if greets && link.is_none() {
            self.welcome(local, id, greeted);
        }
        for word in words.into_iter().flatten().filter(|_| !greets) {
            self.core.queue(local, word, true).ignore();
        }
        match origin {
            Origin::Link(link) => self.links.up(link, id, self.core.now),
            Origin::Gate { guest, .. } => {
                let node = peer.node.clone().filter(|node| !node.name.is_empty()).map(|node| (node, id));
                self.core.report(Report::Joined { guest, node });
            }
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

    /// No slot, no serial or no framing: who did not join lives on as an embryo, just long enough to be reset.
    fn promote_failed(&mut self, entrant: Entrant) -> Option<u32> {
        let Entrant { conn, peer, receiving, sending, origin, .. } = entrant;
        self.connections.clear(conn);
        let index = self.embryo(conn, peer, Stage::Aborting, origin);
        let again = self.embryos.get(index).expect("it was just made");
        again.receiving = receiving;
        again.sending = sending;
        self.embryo_abort(index);
        None
    }

    /// On a LAN the server's greeting, unless it went out already; and the welcome: ahead of whatever content sends.
    fn welcome(&mut self, local: u32, id: SessionId, greeted: bool) {
        let settings = &self.core.fabric.settings;
        let welcome = Welcome {
            session_id: id.to_u64(),
            heartbeat_ms: settings.heartbeat_ms as u32,
            dead_after_ms: settings.dead_after_ms as u32,
        };
        let mut frames = [0; 2 * lan::CONTROL_FRAME_MAX];
        let mut len = 0;
        if self.core.fabric.protocol.is_lan() && !greeted {
            let greeting = self.core.own_greeting(self.frame_limit, &[]);
            len += greeting.to_frame(&mut frames).expect("the names were checked");
        }
        len += welcome.to_frame(&mut frames[len..]).expect("the heartbeat was checked");
        self.core.queue_control(local, &frames[..len]);
        // A place was its own before the stop was announced.
        self.say_draining(local);
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
