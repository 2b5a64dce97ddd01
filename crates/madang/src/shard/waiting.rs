//! Embryos that wait in the queue of a full server, and links that wait there.
//!
//! ```text
//!   server:  ExpectPlace ── queued ─► and waits: told where it stands, pinged ─── place ─► session
//!                                          └─ link breaks ─► gone, and its ticket keeps the turn
//!   client:  ExpectWelcome ─ queue ─► and waits: tells content, answers pings ─ welcome ─► session
//! ```
//!
//! The total deadline of an embryo ends when its wait begins: from then on it must be alive, as a session must.

use std::cmp::Reverse;

use madang_driver::{Driver, Time};
use madang_packet::Packet;
use madang_wire::lan::{self, Heartbeat, QueueState, Ticket, TicketPurpose};
use madang_wire::{Kind, Next};

use super::compose::seal;
use super::embryo::SAID_BYTES_MAX;
use super::embryos::{Embryo, Origin, Stage};
use super::{Shard, Timer};
use crate::error::{ErrorKind, LinkDown};
use crate::framing::{Guarded, Wire};
use crate::gate::{GuestId, Turn};
use crate::letters::{Kept, News, Report, TicketBytes};
use crate::settings::ms;
use crate::speech::Speech;
use crate::{Link, Standing, WaitState, Waiter, WaiterId};

/// What an embryo that waits has of it.
pub(super) struct Wait {
    id: WaiterId,
    priority: u8,
    /// Its turn is kept when its connection breaks.
    pub(super) keeps: bool,
    /// A foreign framing's state, which the session will have.
    pub(super) framing: Option<Guarded>,
    /// By the patient clock.
    pub(super) heard: Time,
    /// A foreign framing: what content said last, when another word was under way.
    pub(super) word: Option<Packet>,
    /// What content says with the admission: ahead of all that the session sends.
    pub(super) first: Option<Packet>,
}

impl<D: Driver> Shard<D> {
    /// A guest waits in the queue.
    pub(super) fn queued(&mut self, guest: GuestId, news: News) {
        if let Some(index) = self.embryos.of_guest(guest) {
            self.begin_wait(index, &news);
        }
    }

    /// An embryo waits from here on, and is told so.
    pub(super) fn begin_wait(&mut self, index: u32, news: &News) {
        let heard = self.core.patient_now();
        let Some(embryo) = self.embryos.get(index).filter(|embryo| embryo.stage == Stage::ExpectPlace) else {
            return;
        };
        let framing = match &self.wire {
            Wire::Custom(make) => {
                // The seed only has to differ between connections.
                let seed = self.serials.take().unwrap_or(news.turn.number);
                match Guarded::make(make, self.frame_limit, seed) {
                    Ok(framing) => Some(framing),
                    Err(words) => {
                        let remote = embryo.peer.remote;
                        self.core.error_of(ErrorKind::Panic(words), None, Some(remote));
                        return self.embryo_abort(index);
                    }
                }
            }
            Wire::Own | Wire::Be32(_) => None,
        };
        let Turn { priority: Reverse(priority), number } = news.turn;
        embryo.wait = Some(Box::new(Wait {
            id: WaiterId(number),
            priority,
            keeps: news.ticket.is_some(),
            framing,
            heard,
            word: None,
            first: None,
        }));
        if let (false, Origin::Gate { guest, .. }) = (news.entered, embryo.origin) {
            self.core.report(Report::Heard { guest });
        }
        self.beat_again(index);
        let state =
            if news.entered { WaitState::Entered(news.standing) } else { WaitState::Moved(news.standing) };
        self.tell_waiter(index, state, news.ticket.as_ref());
    }

    /// Guests have moved up in the queue.
    pub(super) fn moved(&mut self, moved: &[(GuestId, Standing)]) {
        for (guest, standing) in moved {
            if let Some(index) = self.embryos.of_guest(*guest) {
                self.tell_waiter(index, WaitState::Moved(*standing), None);
            }
        }
    }

    /// Tells content where an embryo stands, and the peer: in content's words, or where the engine has some, in those.
    fn tell_waiter(&mut self, index: u32, state: WaitState, ticket: Option<&TicketBytes>) {
        let waits = |embryo: &mut Embryo| embryo.stage == Stage::ExpectPlace && embryo.wait.is_some();
        if !self.embryos.get(index).is_some_and(waits) {
            return;
        }
        let Some(said) = self.call_waiter(index, state) else { return };
        let (WaitState::Entered(standing) | WaitState::Moved(standing)) = state else { return };
        let embryo = self.embryos.get(index).expect("it waits");
        if matches!(embryo.speech, Speech::Foreign) {
            if let Some(said) = said.filter(|said| said.len() <= SAID_BYTES_MAX) {
                embryo.wait.as_mut().expect("it waits").word = Some(said);
                if !embryo.sending {
                    self.say_word(index);
                }
            }
            return;
        }
        let greets = self.core.fabric.protocol.is_lan() && !std::mem::replace(&mut embryo.greeted, true);
        let mut frames = [0; 3 * lan::CONTROL_FRAME_MAX];
        let mut len = 0;
        if greets {
            let greeting = self.core.own_greeting(self.frame_limit, &[]);
            len += greeting.to_frame(&mut frames).expect("the names were checked");
        }
        if let Some(ticket) = ticket {
            let grace_ms = u32::try_from(self.core.fabric.settings.queue_grace_ms).unwrap_or(u32::MAX);
            let ticket = Ticket { purpose: TicketPurpose::Queue, grace_ms, bytes: ticket.bytes() };
            len += ticket.to_frame(&mut frames[len..]).expect("a ticket of ours is short");
        }
        let estimate_ms = standing.estimate.map(|estimate| {
            // The largest number stands for "nobody can tell".
            u32::try_from(estimate.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1)
        });
        let queue = QueueState { position: standing.position, length: standing.length, estimate_ms };
        len += queue.to_frame(&mut frames[len..]).expect("it has its size");
        self.embryo_say(index, &frames[..len]);
    }

    /// Sends what content said last to a waiter with a foreign framing; no send is in flight. It is sealed no sooner than
    /// that: a framing may count its frames, so none may be made that does not leave.
    pub(super) fn say_word(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        let remote = embryo.peer.remote;
        let Some(wait) = &mut embryo.wait else { return };
        let Some(word) = wait.word.take().filter(|word| crate::fabric::refuse(word).is_none()) else {
            return;
        };
        let Ok(mut frame) = self.core.magazine.packet_past_budget(word.len()) else { return };
        let sealed = match (&self.wire, &mut wait.framing) {
            (Wire::Be32(be32), _) => seal(&mut be32.clone(), &mut frame, &word),
            (_, Some(framing)) => seal(framing, &mut frame, &word),
            (_, None) => return,
        };
        match sealed {
            Ok(()) => self.embryo_send(index, frame),
            Err(error) => {
                self.core.error_of(ErrorKind::Seal(error), None, Some(remote));
                self.keep_no_turn(index);
                self.embryo_abort(index);
            }
        }
    }

    /// Calls content about a waiter: what it says. `None` when it panicked; the connection ends then.
    pub(super) fn call_waiter(&mut self, index: u32, state: WaitState) -> Option<Option<Packet>> {
        let embryo = self.embryos.get(index)?;
        let waiter = waiter_of(embryo)?;
        match self.call_wait(&waiter, state) {
            Ok(said) => Some(said),
            Err(()) => {
                // Whoever content cannot bear to hear of has no turn to come back to.
                let embryo = self.embryos.get(index)?;
                embryo.wait = None;
                self.embryo_abort(index);
                None
            }
        }
    }

    /// An embryo that waits is gone: content hears of it, unless the turn is kept.
    pub(super) fn end_wait(&mut self, embryo: &mut Embryo) -> Option<Kept> {
        let waiter = waiter_of(embryo)?;
        let wait = embryo.wait.take()?;
        if wait.keeps {
            let turn = Turn { priority: Reverse(wait.priority), number: wait.id.0 };
            return Some(Kept { turn, peer: Box::new(waiter.peer) });
        }
        let _ = self.call_wait(&waiter, WaitState::Gone);
        None
    }

    /// Whoever breaks a rule or says goodbye has no turn to come back to.
    pub(super) fn keep_no_turn(&mut self, index: u32) {
        if let Some(wait) = self.embryos.get(index).and_then(|embryo| embryo.wait.as_mut()) {
            wait.keeps = false;
        }
    }

    /// A waiter's stream has ended: whether it gave its turn up lies behind what was held.
    pub(super) fn look_for_goodbye(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index).filter(|embryo| embryo.wait.is_some()) else { return };
        let Some(mut held) = embryo.inbox.take() else { return };
        let mut rest = held.as_mut_slice();
        while let Ok(Next::Frame { len, opened }) = embryo.speech.next(rest) {
            if opened.kind == Kind::Goodbye {
                return self.keep_no_turn(index);
            }
            rest = &mut rest[len..];
        }
    }

    /// The server sends a waiter away: content hears of it now.
    pub(super) fn refused_waiter(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        if let Some(waiter) = waiter_of(embryo) {
            embryo.wait = None;
            let _ = self.call_wait(&waiter, WaitState::Gone);
        }
    }

    /// Somebody who waited did not come back.
    pub(super) fn wait_over(&mut self, kept: Kept) {
        let Turn { priority: Reverse(priority), number } = kept.turn;
        let waiter = Waiter { id: WaiterId(number), peer: *kept.peer, priority, link: None };
        let _ = self.call_wait(&waiter, WaitState::Gone);
    }

    /// A guest came back over another connection.
    pub(super) fn dismiss(&mut self, guest: GuestId) {
        if let Some(index) = self.embryos.of_guest(guest) {
            if let Some(embryo) = self.embryos.get(index) {
                embryo.wait = None;
            }
            self.embryo_abort(index);
        }
    }

    /// The periodic look at an embryo that waits: with words of the engine's own it must be alive, and a server asks.
    pub(super) fn wait_beat(&mut self, index: u32) {
        let now = self.core.now;
        let Some(embryo) = self.embryos.get(index) else { return };
        let asks = embryo.link().is_none();
        let Some(wait) = &embryo.wait else { return };
        if matches!(self.wire, Wire::Own) {
            let silence = self.core.patient_now().since(wait.heard);
            if silence >= ms(self.core.fabric.settings.dead_after_ms) {
                return self.embryo_down(index, LinkDown::Unreachable);
            }
            // Behind news that is under way: whoever is not asked has nothing to say.
            if asks {
                self.embryo_say(index, &Heartbeat { value: now.as_nanos() }.ping());
            }
        }
        self.beat_again(index);
    }

    fn beat_again(&mut self, index: u32) {
        let pause = ms((self.core.fabric.settings.dead_after_ms / 2).max(1));
        let Some(embryo) = self.embryos.get(index) else { return };
        let (key, old) = (embryo.key(index), embryo.deadline);
        self.core.timers.cancel(old);
        let next = self.core.timers.set(self.core.now + pause, Timer::Greeting(key));
        self.embryos.get(index).expect("it was just there").deadline = next;
    }

    /// A link's server says where the link stands in its queue.
    pub(super) fn link_queued(&mut self, index: u32, payload: &[u8]) {
        let heard = self.core.patient_now();
        let Some(embryo) = self.embryos.get(index) else { return };
        let Some(link) = embryo.link() else { return };
        let Ok(queue) = QueueState::from_payload(payload) else {
            return self.embryo_down(index, LinkDown::NoWelcome);
        };
        let standing = Standing {
            position: queue.position,
            length: queue.length,
            estimate: queue.estimate_ms.map(|estimate| ms(estimate.into())),
        };
        let entered = embryo.wait.is_none();
        embryo.wait.get_or_insert_with(|| {
            Box::new(Wait {
                id: WaiterId(link.into()),
                priority: 0,
                keeps: false,
                framing: None,
                heard,
                word: None,
                first: None,
            })
        });
        if entered {
            self.beat_again(index);
        }
        let state = if entered { WaitState::Entered(standing) } else { WaitState::Moved(standing) };
        self.call_waiter(index, state);
    }

    /// A link's server gives it a ticket for its place in the queue.
    pub(super) fn link_ticket(&mut self, index: u32, payload: &[u8]) {
        let link = self.embryos.get(index).and_then(|embryo| embryo.link());
        if let (Some(link), Ok(ticket)) = (link, Ticket::from_payload(payload)) {
            if let Some(state) = self.links.get(link).filter(|_| ticket.purpose == TicketPurpose::Queue) {
                state.ticket = ticket.bytes.to_vec();
            }
        }
    }
}

fn waiter_of(embryo: &Embryo) -> Option<Waiter> {
    let wait = embryo.wait.as_ref()?;
    let link = match embryo.origin {
        Origin::Link(link) => Some(Link(link)),
        Origin::Gate { .. } => None,
    };
    Some(Waiter { id: wait.id, peer: embryo.peer.clone(), priority: wait.priority, link })
}
