//! Sessions: who lives in a shard's slots.
//!
//! ```text
//!   Free ──► Joining ──► Joined ──► Leaving ──► Free
//!             on_join     on_recv    on_leave
//! ```
//!
//! A session is two parts side by side: [`Session`], what the data path touches (one or two cache lines), and
//! [`Details`], what joins, leaves and rare events need.

mod alike;
mod intake;
mod latest;
mod outbox;
mod table;

pub(crate) use alike::Alike;
pub(crate) use intake::{Intakes, Taken};
pub(crate) use latest::Latest;
pub(crate) use outbox::{Author, Outbox, Queues, is_own};
pub(crate) use table::Sessions;

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};

use madang_driver::{Conn, Time};
use madang_packet::PacketMut;

use crate::framing::Guarded;
use crate::groups::GroupId;
use crate::shard::Flood;
use crate::speech::Speech;
use crate::timers::TimerKey;
use crate::user::AnyUser;
use crate::{LeaveReason, Peer, SessionId};

/// Where a session stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Set up; `on_join` has not returned.
    Joining,
    /// Messages flow.
    Joined,
    /// On the way out: nothing is delivered, nothing more is queued.
    Leaving(Gait),
}

/// How a session leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gait {
    /// Decided inside a callback; the shard starts it when the callback has returned.
    Decided {
        /// Whether what was queued goes out first.
        graceful: bool,
    },
    /// What was queued goes out.
    Flushing,
    /// Our direction is closed; the peer's input is read to its end, undelivered.
    Draining,
    /// Reset; the operations in flight come back.
    Aborting,
}

/// The data path's part of a session.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) conn: Conn,
    pub(crate) life: Life,
    /// A receive is started in the driver and its terminal completion has not come.
    pub(crate) receiving: bool,
    /// A send is in flight.
    pub(crate) sending: bool,
    /// Listed for the next flush.
    pub(crate) dirty: bool,
    /// Something queued asked to leave this turn, tick or not.
    pub(crate) urgent: bool,
    /// Offloaded jobs that hold the messages back.
    pub(crate) holds: u32,
    /// The driver was told to pause.
    pub(crate) paused: bool,
    /// Content's own object takes the callbacks.
    pub(crate) has_user: bool,
    /// The peer ended its direction.
    pub(crate) eof: bool,
    pub(crate) outbox: Outbox,
    /// Messages and payload bytes that the send in flight carries.
    pub(crate) in_flight: crate::Sent,
    /// Bytes of the stream that wait: the start of a frame, or all that came during a hold.
    pub(crate) inbox: Option<PacketMut>,
    /// By the shard's patient clock, as all that is about the peer's pace.
    pub(crate) last_heard: Time,
    /// Something was sent since the last periodic look.
    pub(crate) spoke: bool,
    /// The longest message that may be sent to this peer.
    pub(crate) send_limit: u32,
    /// How its frames lie in its bytes.
    pub(crate) speech: Speech,
}

impl Session {
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.life, Life::Leaving(_))
    }

    /// Whether the driver still holds something of it: see the contract's retire rule.
    pub(crate) fn in_flight(&self) -> bool {
        self.receiving || self.sending
    }
}

/// The rest of a session: what every one has, and [`Rare`], which most never need.
pub(crate) struct Details {
    pub(crate) peer: Peer,
    pub(crate) joined_at: Time,
    /// Since when the inbox holds the start of a frame.
    pub(crate) partial_since: Option<Time>,
    /// Periodic looks in a row at which we had said nothing since the one before.
    pub(crate) quiet_looks: u16,
    /// The periodic look at it; of one that leaves, the end of patience with that.
    pub(crate) deadline: Option<TimerKey>,
    /// Its leave has begun: it is out of everything but its connection.
    pub(crate) leave_begun: bool,
    /// Valid while `life` is `Leaving`: another thread's disconnect came first, and its reason is on its way to us. It was
    /// promised to that thread, so the leave is not told before.
    pub(crate) reason_owed: bool,
    /// Valid while `life` is `Leaving`: why, set before anything else of the leave happens.
    pub(crate) reason: Option<LeaveReason>,
    /// A foreign framing's state.
    pub(crate) framing: Option<Guarded>,
    pub(crate) user: Option<Box<dyn AnyUser>>,
    /// The link it belongs to, in a client.
    pub(crate) link: Option<u32>,
    /// The gate does not count it among its prefix.
    pub(crate) exempt: bool,
    rare: Option<Box<Rare>>,
}

/// What only some sessions have, or only once: apart, because an idle session is to cost little. It is read and written
/// through [`Details`]; the first write makes it.
#[derive(Default)]
pub(crate) struct Rare {
    /// What the peer's goodbye said, told when the close follows.
    pub(crate) goodbye: Option<LeaveReason>,
    pub(crate) unsent: usize,
    /// Since when the queue is over its soft limit.
    pub(crate) over_soft_since: Option<Time>,
    /// Its droppable messages that wait.
    pub(crate) latest: Latest,
    /// What it owes for sending too much, if it ever did.
    pub(crate) flood: Option<Flood>,
    /// Bytes read and thrown away while draining.
    pub(crate) drained_bytes: usize,
    /// Content's timers, by their key in the shard's timers.
    pub(crate) timers: Vec<(u64, TimerKey)>,
    /// Groups it is in, with its place in each.
    pub(crate) groups: Vec<(GroupId, u32)>,
}

/// What a session has that needed none of it yet.
static NOTHING: Rare = Rare {
    goodbye: None,
    unsent: 0,
    over_soft_since: None,
    latest: Latest::new(),
    flood: None,
    drained_bytes: 0,
    timers: Vec::new(),
    groups: Vec::new(),
};

impl Deref for Details {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Details {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Details {
    pub(crate) fn new(peer: Peer, joined_at: Time) -> Details {
        Details {
            peer,
            joined_at,
            partial_since: None,
            quiet_looks: 0,
            deadline: None,
            leave_begun: false,
            reason_owed: false,
            reason: None,
            framing: None,
            user: None,
            link: None,
            exempt: false,
            rare: None,
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.peer.remote
    }

    /// The address whose prefix the gate counts it in.
    pub(crate) fn counted_at(&self) -> Option<IpAddr> {
        (!self.exempt).then_some(self.peer.remote.ip())
    }

    /// What it has of the rare things, if it has any: looked at without making them, as most leave without.
    pub(crate) fn rare(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Messages were dropped that content had queued for it.
    pub(crate) fn dropped(&mut self, messages: usize) {
        if messages > 0 {
            self.unsent += messages;
        }
    }

    /// None of its droppable messages waits any more.
    pub(crate) fn forget_droppable(&mut self) {
        if let Some(rare) = self.rare() {
            rare.latest.clear();
        }
    }
}
