//! What travels between threads and shards.

use madang_driver::Incoming;
use madang_packet::Packet;
use madang_wire::lan::RefusalReason;
use std::net::SocketAddr;
use std::sync::Arc;

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
    /// The gate gives an accepted socket to this shard. `placed`: its place is taken already (no greeting to wait for).
    Adopt { incoming: Incoming, placed: bool },
    /// The gate's answer to `Report::Proven`.
    Place { embryo: EmbryoKey, answer: Result<(), RefusalReason> },
    /// A job of `offload` is done.
    Finished(Finished),
    /// A new outgoing link.
    Connect(LinkSpec),
    /// Let go of an outgoing link for good.
    DropLink { link: u32 },
    /// To the gate's shard: something happened elsewhere.
    Report(Report),
    /// Stop accepting, and end all sessions in this gait; the shard ends when the last one left or at its deadline.
    Stop { graceful: bool },
}

/// What shards report to the gate.
pub(crate) enum Report {
    /// A greeting was fine: may it have a place?
    Proven { shard: usize, embryo: EmbryoKey, node: Arc<Node> },
    /// An embryo ended without becoming a session.
    EmbryoGone { shard: usize },
    /// A granted place was not used: the peer was gone.
    PlaceUnused,
    /// A connection that took its place at the door ended without becoming a session.
    NotJoined { shard: usize },
    /// An embryo became a session; of which node, if it has a name.
    Joined { node: Option<(Arc<Node>, SessionId)> },
    /// A session began to leave: its place is free for another, within the slack.
    Leaving,
    /// A session left.
    Left { shard: usize, node: Option<(Arc<Node>, SessionId)> },
}

/// Names an embryo of a shard across threads: its place and a number that is never used twice.
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
