//! What travels between threads and shards.

use madang_driver::Incoming;
use madang_packet::Packet;
use madang_wire::lan::RefusalReason;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::gate::GuestId;
use crate::groups::GroupId;
use crate::links::LinkSpec;
use crate::offload::Finished;
use crate::{Event, LeaveReason, Node, SessionId};

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
    /// A job of `offload` is done.
    Finished(Finished),
    /// A log-in was checked by a job: what it says, or the words of its panic.
    #[cfg(feature = "wan")]
    LogIn { embryo: EmbryoKey, verdict: Result<crate::Verdict, String> },
    /// A new outgoing link.
    Connect(LinkSpec),
    /// Let go of an outgoing link for good.
    DropLink { link: u32 },
    /// Another shard saw that the pool is short.
    PoolShort,
    /// To the gate's shard: something happened elsewhere.
    Report(Report),
    /// Stop accepting, and end all sessions in this gait; the shard ends when the last one left or at its deadline.
    Stop { graceful: bool },
}

/// An accepted socket on its way to its shard.
pub(crate) struct Adoption {
    pub(crate) incoming: Incoming,
    pub(crate) guest: GuestId,
    /// Its place is taken already: there is no greeting to wait for.
    pub(crate) placed: bool,
    /// Neither patch control nor the limits of its prefix apply to it.
    pub(crate) exempt: bool,
}

/// What shards report to the gate.
pub(crate) enum Report {
    /// A greeting was fine: may he have a place?
    Proven { guest: GuestId, node: Arc<Node> },
    /// A guest is gone without having joined.
    Gone { guest: GuestId },
    /// A guest became a session; of which node, if it has a name.
    Joined { guest: GuestId, node: Option<(Arc<Node>, SessionId)> },
    /// A session began to leave: its place is free for another, within the slack.
    Leaving,
    /// A session left; `counted_at`: the address whose prefix it was counted in.
    Left { shard: usize, counted_at: Option<IpAddr>, node: Option<(Arc<Node>, SessionId)> },
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
