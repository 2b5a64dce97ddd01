//! The embryos of a shard, by place.

use std::collections::BTreeMap;

use madang_driver::Conn;
use madang_packet::PacketMut;
use madang_wire::Kind;

use super::waiting::Wait;
use crate::gate::GuestId;
use crate::letters::{EmbryoKey, Shown, TicketBytes};
use crate::speech::Speech;
use crate::timers::TimerKey;
use crate::{Peer, Refusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// An outgoing connect is in flight.
    Connecting,
    /// The server's side: the greeting comes.
    ExpectGreeting,
    /// The server's side: the gate was asked.
    ExpectPlace,
    /// The client's side: the server's greeting and welcome come.
    ExpectWelcome,
    /// The server's side of a WAN: the preamble comes.
    #[cfg(feature = "wan")]
    ExpectPreamble,
    /// The server's side of a WAN: the preamble is there and waits for its handshake to be worked out.
    #[cfg(feature = "wan")]
    ExpectTurn,
    /// The client's side of a handshake: the server's part of it comes.
    #[cfg(feature = "wan")]
    ExpectAnswer,
    /// The server's side of a WAN: the log-in comes.
    #[cfg(feature = "wan")]
    ExpectLogIn,
    /// The server's side of a WAN: the log-in has begun to come and waits for its turn.
    #[cfg(feature = "wan")]
    ExpectLogInTurn,
    /// The server's side of a WAN: its turn has come, and the log-in is looked at as soon as it is whole.
    #[cfg(feature = "wan")]
    LogsIn,
    /// The server's side of a WAN: the log-in is checked on another thread.
    #[cfg(feature = "wan")]
    ExpectVerdict,
    /// A last word goes out, then the close.
    Refusing,
    /// Reset; the operations in flight come back.
    Aborting,
}

impl Stage {
    /// Whether what the peer sends is of interest.
    pub(super) fn listens(self) -> bool {
        !matches!(self, Stage::Connecting | Stage::Refusing | Stage::Aborting)
    }

    /// Whether it waits for an answer of our own, and what the peer sends meanwhile is kept.
    pub(super) fn waits(self) -> bool {
        match self {
            Stage::ExpectPlace => true,
            #[cfg(feature = "wan")]
            Stage::ExpectTurn | Stage::ExpectLogInTurn | Stage::ExpectVerdict => true,
            _ => false,
        }
    }
}

pub(super) struct Embryo {
    pub(super) serial: u64,
    pub(super) conn: Conn,
    pub(super) peer: Peer,
    pub(super) stage: Stage,
    pub(super) speech: Speech,
    /// A client's handshake under way.
    #[cfg(feature = "wan")]
    pub(super) handshake: Option<Box<super::handshake::Handshake>>,
    pub(super) inbox: Option<PacketMut>,
    /// Frames that wait for the send in flight.
    pub(super) outbox: Option<PacketMut>,
    /// The driver holds a connect, a receive, a send of it.
    pub(super) connecting: bool,
    pub(super) receiving: bool,
    pub(super) sending: bool,
    pub(super) eof: bool,
    pub(super) paused: bool,
    pub(super) deadline: TimerKey,
    /// The longest message that the peer takes.
    pub(super) send_limit: u32,
    /// A LAN server's greeting went out already.
    pub(super) greeted: bool,
    /// A WAN client's log-in had a ticket.
    #[cfg(feature = "wan")]
    pub(super) ticket: Option<TicketBytes>,
    /// What its greeting is answered with, where content does not want it.
    pub(super) refusal: Option<Box<Refusal>>,
    /// It waits in the queue of a full server. Then `deadline` is that of the next look at it.
    pub(super) wait: Option<Box<Wait>>,
    /// Whose it is: a peer that the gate let in, or an outgoing link.
    pub(super) origin: Origin,
}

/// Where an embryo comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The gate gave it to us.
    Gate {
        guest: GuestId,
        /// Neither patch control nor the limits of its prefix apply to it.
        exempt: bool,
    },
    /// It is a try of this link.
    Link(u32),
}

impl Origin {
    /// The link that it is a try of.
    pub(super) fn link(self) -> Option<u32> {
        match self {
            Origin::Link(link) => Some(link),
            Origin::Gate { .. } => None,
        }
    }
}

impl Embryo {
    pub(super) fn key(&self, index: u32) -> EmbryoKey {
        EmbryoKey { index, serial: self.serial }
    }

    /// Whether it waits in the queue and its next bytes are a word between the engines: read now, not held for the session.
    pub(super) fn hears_while_waiting(&self, bytes: &[u8]) -> bool {
        match &self.speech {
            Speech::Plain(_) if self.wait.is_some() => {
                bytes.get(3).is_none_or(|kind| *kind != Kind::Message as u8)
            }
            // A record cannot be looked into without taking it out of the stream, where it may have to wait.
            _ => false,
        }
    }

    /// A ticket that it shows, as the gate is told of it.
    pub(super) fn shows(&self, ticket: TicketBytes) -> Box<Shown> {
        Box::new(Shown { ticket, peer: self.peer.clone() })
    }

    /// The link that it is a try of.
    pub(super) fn link(&self) -> Option<u32> {
        self.origin.link()
    }
}

/// The embryos of a shard.
#[derive(Default)]
pub(super) struct Embryos {
    pub(super) places: Vec<Option<Embryo>>,
    free: Vec<u32>,
    serial: u64,
    len: usize,
    by_guest: BTreeMap<GuestId, u32>,
}

impl Embryos {
    pub(super) fn reserve(&mut self) -> EmbryoKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.serial += 1;
        self.len += 1;
        EmbryoKey { index, serial: self.serial }
    }

    pub(super) fn fill(&mut self, key: EmbryoKey, embryo: Embryo) {
        if let Origin::Gate { guest, .. } = embryo.origin {
            self.by_guest.insert(guest, key.index);
        }
        self.places[key.index as usize] = Some(embryo);
    }

    pub(super) fn get(&mut self, index: u32) -> Option<&mut Embryo> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn by_key(&mut self, key: EmbryoKey) -> Option<&mut Embryo> {
        self.get(key.index).filter(|embryo| embryo.serial == key.serial)
    }

    /// Where the embryo of a guest is.
    pub(super) fn of_guest(&self, guest: GuestId) -> Option<u32> {
        self.by_guest.get(&guest).copied()
    }

    pub(super) fn take(&mut self, index: u32) -> Option<Embryo> {
        let embryo = self.places.get_mut(index as usize)?.take()?;
        if let Origin::Gate { guest, .. } = embryo.origin {
            self.by_guest.remove(&guest);
        }
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
