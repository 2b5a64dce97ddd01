//! What travels between threads and shards.

use madang_driver::Incoming;
use madang_packet::Packet;
use madang_wire::lan::RefusalReason;
use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

use crate::gate::{GuestId, Turn};
use crate::groups::GroupId;
use crate::links::LinkSpec;
use crate::offload::Finished;
use crate::{Event, LeaveReason, Node, Peer, Refusal, SessionId, Standing};

/// In the bounded lane: content's requests.
pub(crate) enum Letter {
    Send {
        id: SessionId,
        packet: Packet,
        urgent: bool,
    },
    SendLatest {
        id: SessionId,
        packet: Packet,
        key: u32,
    },
    /// With a key: as `SendLatest` does, to each.
    SendMany {
        ids: Arc<[SessionId]>,
        packet: Packet,
        key: Option<u32>,
    },
    SendAll {
        packet: Packet,
        key: Option<u32>,
    },
    SendGroup {
        group: GroupId,
        packet: Packet,
        key: Option<u32>,
    },
    SendAndDisconnect {
        id: SessionId,
        packet: Packet,
        code: u32,
    },
    Post {
        id: SessionId,
        event: Event,
    },
    JoinGroup {
        id: SessionId,
        group: GroupId,
    },
    LeaveGroup {
        id: SessionId,
        group: GroupId,
    },
}

/// In the lane that is never full: one entry for something bounded each.
pub(crate) enum Word {
    /// Somebody won the right to end this session (see `Directory::leave`).
    Disconnect { id: SessionId, reason: LeaveReason },
    /// The gate gives an accepted socket to this shard.
    Adopt(Adoption),
    /// The gate's answer to `Report::Proven`.
    Place { guest: GuestId, answer: Result<(), RefusalReason> },
    /// A guest that has proven nothing makes way for another.
    Evict { guest: GuestId },
    /// A guest waits in the queue.
    Queued { guest: GuestId, news: Box<News> },
    /// Guests that wait have moved up.
    Moved(Vec<(GuestId, Standing)>),
    /// A guest that waits came back over another connection: this one ends, unheard.
    Dismiss { guest: GuestId },
    /// To the gate's shard: somebody who waits did not come back, and no shard has anything of him to tell it by.
    WaitOver(Kept),
    /// A job of `offload` is done.
    Finished(Finished),
    /// A log-in was checked by a job: what it says, or the words of its panic.
    #[cfg(feature = "wan")]
    LogIn { embryo: EmbryoKey, verdict: Result<crate::Verdict, String> },
    /// A handshake was worked out on a thread of its own: what came of it, or the words of a panic.
    #[cfg(feature = "wan")]
    Shaken { embryo: EmbryoKey, shaken: Result<Box<crate::shard::Shaken>, String> },
    /// A new outgoing link.
    Connect(LinkSpec),
    /// Let go of an outgoing link for good.
    DropLink { link: u32 },
    /// Another shard saw that the pool is short.
    PoolShort,
    /// Another shard saw that the pool had to refuse: what idles here may be what is missing there.
    GiveBack,
    /// To the gate's shard: something happened elsewhere.
    Report(Report),
    /// The server will stop in so long: whom it can be told hears it, and nobody else comes in.
    Announce { left: Duration },
    /// Stop accepting, and end all sessions in this gait; the shard ends when the last one left or at its deadline.
    Stop { graceful: bool },
}

/// An accepted socket on its way to its shard.
pub(crate) struct Adoption {
    pub(crate) incoming: Incoming,
    pub(crate) guest: GuestId,
    pub(crate) entry: Entry,
    /// Neither patch control nor the limits of its prefix apply to it.
    pub(crate) exempt: bool,
}

/// A turn in the queue whose connection is gone, and whose it is. Content has not heard that the wait is over.
pub(crate) struct Kept {
    pub(crate) turn: Turn,
    pub(crate) peer: Box<Peer>,
}

/// What comes next for an accepted socket.
pub(crate) enum Entry {
    /// It greets; and is answered with a refusal, if content wants it so.
    Greets(Option<Box<Refusal>>),
    /// There is no greeting, and its place is taken: it joins.
    Placed,
    /// There is no greeting, and it waits for its place.
    Queued(Box<News>),
}

/// What somebody in the queue is told first.
pub(crate) struct News {
    pub(crate) turn: Turn,
    pub(crate) standing: Standing,
    /// Keeps his turn when his connection breaks.
    pub(crate) ticket: Option<TicketBytes>,
    /// He has just come; else he is back in his turn.
    pub(crate) entered: bool,
}

/// The bytes that keep a turn in the queue: which turn it is, and 16 bytes of chance that only its waiter was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TicketBytes([u8; TicketBytes::LEN]);

impl TicketBytes {
    pub(crate) const LEN: usize = 25;

    pub(crate) fn new(turn: Turn, secret: [u8; 16]) -> TicketBytes {
        let mut bytes = [0; TicketBytes::LEN];
        bytes[0] = turn.priority.0;
        bytes[1..9].copy_from_slice(&turn.number.to_le_bytes());
        bytes[9..].copy_from_slice(&secret);
        TicketBytes(bytes)
    }

    /// What a peer showed, if it is as long as one of ours.
    pub(crate) fn read(bytes: &[u8]) -> Option<TicketBytes> {
        bytes.try_into().ok().map(TicketBytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The turn that it claims.
    pub(crate) fn turn(&self) -> Turn {
        let number = self.0[1..9].try_into().expect("eight bytes");
        Turn { priority: Reverse(self.0[0]), number: u64::from_le_bytes(number) }
    }

    /// Whether it holds this secret, in a time that does not depend on where it is wrong.
    pub(crate) fn proves(&self, secret: [u8; 16]) -> bool {
        self.0[9..].ct_eq(&secret).into()
    }
}

/// A ticket, and who shows it.
pub(crate) struct Shown {
    pub(crate) ticket: TicketBytes,
    pub(crate) peer: Peer,
}

/// What shards report to the gate.
pub(crate) enum Report {
    /// A greeting was fine: may he have a place?
    Proven { guest: GuestId, node: Arc<Node>, ticket: Option<Box<Shown>>, priority: u8 },
    /// Content and its peer were told that a guest is back in his turn, with the next ticket for it.
    Heard { guest: GuestId },
    /// A guest is gone without having joined. `keeps`: he waited, was not sent away, and has a ticket to come back with.
    Gone { guest: GuestId, keeps: Option<Kept> },
    /// A guest became a session; of which node, if it has a name.
    Joined { guest: GuestId, node: Option<(Arc<Node>, SessionId)> },
    /// A session began to leave: its place is free for another, within the slack. `counted_at`: the address whose prefix it is
    /// counted in.
    Leaving { counted_at: Option<IpAddr> },
    /// A session left; `counted_at` as above. `at_once`: in the moment in which it began to, and no `Leaving` told of it.
    Left { shard: usize, at_once: bool, counted_at: Option<IpAddr>, node: Option<(Arc<Node>, SessionId)> },
}

/// Names an embryo of a shard: its place and a number that is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EmbryoKey {
    pub(crate) index: u32,
    pub(crate) serial: u64,
}

/// Where a link goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
}
