//! Waiting for a place: what content is told.

use std::fmt;
use std::time::Duration;

use crate::{Link, Peer};

/// Somebody who waits for a place, as [`on_wait`](crate::Handler::on_wait) is told of him: a peer of a full server; on a
/// client, one of its own links.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// His name while he waits, also over a connection that broke and came back with its ticket.
    pub id: WaiterId,
    /// Who he is; with a framing that greets, what his greeting said too. On a client: the server.
    pub peer: Peer,
    /// Who has more of it waits ahead; see [`Admission::Priority`](crate::Admission). Zero on a client.
    pub priority: u8,
    /// On a client: the link that waits.
    pub link: Option<Link>,
}

/// Names a waiter; never used twice while the server runs. On a client it is the number of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub(crate) u64);

impl fmt::Display for WaiterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiter {}", self.0)
    }
}

/// What became of a waiter. Each that [`Entered`](WaitState::Entered) is in the end either [`Admitted`](WaitState::Admitted)
/// or [`Gone`](WaitState::Gone).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitState {
    /// Every place is taken, and he waits for one.
    Entered(Standing),
    /// He has moved up, or his connection broke and he is back in his place. Told at most once in `queue_update_ms`.
    Moved(Standing),
    /// A place is his: `on_join` follows.
    Admitted,
    /// He waits no more: he left, did not come back in time, or the server stops.
    Gone,
}

/// Where a waiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// From 1, the next to be let in.
    pub position: u32,
    /// All that wait, he among them.
    pub length: u32,
    /// How long it will take as far as the last admissions tell; `None` before there were any.
    pub estimate: Option<Duration>,
}
