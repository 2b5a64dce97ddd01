//! What the gate decides of a peer: a shard takes its socket in, gives it a place, or says no.

use madang_driver::{AttachError, Driver, NetError};
use madang_wire::lan::{self, RefusalReason};

use super::Shard;
use super::embryos::{Origin, Stage};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::gate::GuestId;
use crate::letters::{Adoption, Entry, Report};
use crate::user::stranger;
use crate::{Refusal, WaitState};

impl<D: Driver> Shard<D> {
    /// Takes a socket that the gate let in.
    pub(super) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { incoming, guest, entry, exempt } = adoption;
        if self.stopping.is_some() {
            return self.not_adopted(guest);
        }
        let peer = stranger(incoming.peer(), incoming.local());
        let origin = Origin::Gate { guest, exempt };
        match self.driver.attach(incoming) {
            Ok(conn) => match entry {
                Entry::Placed => self.join_directly(conn, peer, origin),
                Entry::Greets(refusal) => {
                    let stage = match &self.core.fabric.protocol {
                        #[cfg(feature = "wan")]
                        crate::framing::Protocol::Wan(_) => Stage::ExpectPreamble,
                        _ => Stage::ExpectGreeting,
                    };
                    let index = self.embryo(conn, peer, stage, origin);
                    self.embryos.get(index).expect("it was just made").refusal = refusal;
                    self.embryo_receive(index);
                }
                Entry::Queued(news) => {
                    let index = self.embryo(conn, peer, Stage::ExpectPlace, origin);
                    self.embryo_receive(index);
                    self.begin_wait(index, &news);
                }
            },
            // The next turn tries again: there is room after a poll at the earliest.
            Err(AttachError::Full(incoming)) => {
                self.unattached.push(Adoption { incoming, guest, entry, exempt });
            }
            Err(AttachError::Failed(error)) => {
                if matches!(error, NetError::NoBufferSpace | NetError::OutOfMemory | NetError::TooManyFiles) {
                    self.core.error_of(ErrorKind::SystemExhausted, None, Some(peer.remote));
                }
                self.not_adopted(guest);
            }
        }
    }

    fn not_adopted(&mut self, guest: GuestId) {
        self.core.counters.add(Count::Failed, 1);
        self.core.report(Report::Gone { guest, keeps: None });
    }

    /// The gate's answer. Who is gone meanwhile has told, or will.
    pub(super) fn placed(&mut self, guest: GuestId, answer: Result<(), RefusalReason>) {
        let Some(index) = self.embryos.of_guest(guest) else {
            return self.placed_unattached(guest, answer.is_ok());
        };
        let waits = self.embryos.get(index).is_some_and(|embryo| embryo.stage == Stage::ExpectPlace);
        match answer {
            _ if !waits => {}
            Ok(()) => {
                let waited = self.embryos.get(index).is_some_and(|embryo| embryo.wait.is_some());
                if waited {
                    let Some(said) = self.call_waiter(index, WaitState::Admitted) else { return };
                    let wait = self.embryos.get(index).and_then(|embryo| embryo.wait.as_mut());
                    wait.expect("it waited").first = said;
                }
                let embryo = self.remove_embryo(index).expect("it was just there");
                debug_assert_eq!(embryo.speech.expect(), lan::Expect::Traffic, "it has greeted");
                self.promote(embryo.into());
            }
            Err(reason) => self.refuse(index, reason),
        }
    }

    /// The same for one that the driver had no room for yet.
    fn placed_unattached(&mut self, guest: GuestId, placed: bool) {
        let Some(at) = self.unattached.iter().position(|adoption| adoption.guest == guest) else { return };
        if placed {
            self.unattached[at].entry = Entry::Placed;
        } else {
            self.unattached.remove(at);
            self.not_adopted(guest);
        }
    }

    /// It makes way for another stranger.
    pub(super) fn evict(&mut self, guest: GuestId) {
        if let Some(index) = self.embryos.of_guest(guest) {
            self.core.counters.add(Count::Evicted, 1);
            self.embryo_abort(index);
        } else if let Some(at) = self.unattached.iter().position(|adoption| adoption.guest == guest) {
            self.core.counters.add(Count::Evicted, 1);
            self.unattached.remove(at);
            self.not_adopted(guest);
        }
    }

    /// Says no, in words that the peer can read, and closes behind them.
    pub(super) fn refuse(&mut self, index: u32, refusal: impl Into<Refusal>) {
        let refusal = refusal.into();
        let Some(embryo) = self.embryos.get(index) else { return };
        let remote = embryo.peer.remote;
        embryo.stage = Stage::Refusing;
        self.refused_waiter(index);
        let mut room = [0; lan::CONTROL_FRAME_MAX];
        let frame = refusal.frame(&mut room);
        self.core.error_of(ErrorKind::Refused(refusal.clone()), None, Some(remote));
        if !self.core.fabric.protocol.greets() {
            // No word that we know of says so in a foreign framing.
            return self.embryo_abort(index);
        }
        self.embryo_say(index, frame);
    }
}
