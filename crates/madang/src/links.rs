//! Links: the outgoing connections of a client, kept.
//!
//! A link that is down is tried again, with a pause that doubles up to a bound and a full jitter over it, so that the peers
//! of a server that restarts do not all come at once. Each connection that succeeds is a new session with a new id; while
//! the link is down there is none, and nothing is queued for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::SessionId;
use crate::error::LinkDown;
use crate::letters::Route;
use crate::timers::TimerKey;

/// The name of one outgoing link of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub(crate) u32);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What other threads see of a link: the id of its session, or 0 while it is down.
pub(crate) type LinkCell = Arc<AtomicU64>;

/// A link on its way to its shard.
pub(crate) struct LinkSpec {
    pub(crate) link: u32,
    pub(crate) route: Route,
    pub(crate) cell: LinkCell,
}

pub(crate) struct LinkState {
    pub(crate) spec: LinkSpec,
    /// The pause before the next try.
    pub(crate) pause: Duration,
    /// Why the last try failed, until it is told or forgotten.
    pub(crate) down: Option<LinkDown>,
    /// Tries that a server did not answer: the next one takes the next of the pinned keys.
    pub(crate) unanswered: usize,
    /// Its being down was told.
    pub(crate) told: bool,
    pub(crate) dropped: bool,
    pub(crate) redial: Option<TimerKey>,
    /// Keeps its turn in the server's waiting queue; empty where it has none.
    pub(crate) ticket: Vec<u8>,
}

/// The links of a shard. A client's links are dealt out over its shards by number.
#[derive(Default)]
pub(crate) struct Links {
    links: Vec<(u32, LinkState)>,
    /// No link is tried any more.
    pub(crate) stopped: bool,
}

impl Links {
    pub(crate) fn add(&mut self, spec: LinkSpec) {
        let state = LinkState {
            pause: Duration::ZERO,
            down: None,
            unanswered: 0,
            told: false,
            dropped: false,
            redial: None,
            ticket: Vec::new(),
            spec,
        };
        self.links.push((state.spec.link, state));
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut LinkState> {
        self.links.iter_mut().map(|(_, state)| state)
    }

    pub(crate) fn get(&mut self, link: u32) -> Option<&mut LinkState> {
        self.links.iter_mut().find(|(name, _)| *name == link).map(|(_, state)| state)
    }

    /// What its next greeting or log-in shows.
    pub(crate) fn ticket(&mut self, link: Option<u32>) -> &[u8] {
        link.and_then(|link| self.get(link)).map_or(&[], |state| &state.ticket)
    }

    /// Remembers why a try failed; the first reason of a try stands.
    pub(crate) fn note(&mut self, link: u32, why: LinkDown) {
        if let Some(state) = self.get(link) {
            if state.down.is_none() && matches!(why, LinkDown::NoAnswer | LinkDown::Untrusted) {
                state.unanswered += 1;
            }
            state.down.get_or_insert(why);
        }
    }

    /// Which of the pinned keys the link tries now, counted on and on.
    #[cfg(feature = "wan")]
    pub(crate) fn pin_of(&mut self, link: u32) -> usize {
        self.get(link).map_or(0, |state| state.unanswered)
    }

    /// The link has a session.
    pub(crate) fn up(&mut self, link: u32, id: SessionId) {
        if let Some(state) = self.get(link) {
            state.spec.cell.store(id.to_u64(), Ordering::Release);
            state.down = None;
            state.told = false;
            state.pause = Duration::ZERO;
            state.ticket = Vec::new();
        }
    }
}
