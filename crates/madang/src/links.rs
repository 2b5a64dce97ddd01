//! Links: the outgoing connections of a client, kept.
//!
//! A link that is down is tried again, with a pause that doubles up to a bound and a full jitter over it, so that the peers
//! of a server that restarts do not all come at once. The doubling begins anew after a session that has lived for the longest
//! pause, and not before: a server that takes each connection and ends it at once is not knocked at as fast as it can. Each
//! connection that succeeds is a new session with a new id; while the link is down there is none, and nothing is queued for
//! it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_driver::Time;

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
    /// The pause before the last try.
    pause: Duration,
    /// When its session began, while there is one.
    up_since: Option<Time>,
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
            up_since: None,
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
    pub(crate) fn up(&mut self, link: u32, id: SessionId, now: Time) {
        if let Some(state) = self.get(link) {
            state.spec.cell.store(id.to_u64(), Ordering::Release);
            state.down = None;
            state.told = false;
            state.up_since = Some(now);
            state.ticket = Vec::new();
        }
    }
}

impl LinkState {
    /// A session or a try has ended: the longest that the pause before the next try may be.
    pub(crate) fn next_pause(&mut self, now: Time, least: Duration, most: Duration) -> Duration {
        if self.up_since.take().is_some_and(|since| now.since(since) >= most) {
            self.pause = Duration::ZERO;
        }
        self.pause = (self.pause * 2).clamp(least, most);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ms;

    #[test]
    fn n5_the_pause_doubles_until_a_session_has_lived_for_the_longest() {
        /// How long the session lived in ms, if the try brought one, and the pause after it.
        type Steps = &'static [(Option<u64>, u64)];
        let cases: [(&str, Steps); 3] = [
            (
                "nobody there",
                &[(None, 100), (None, 200), (None, 400), (None, 800), (None, 1_000), (None, 1_000)],
            ),
            ("a server that ends each session at once", &[(Some(0), 100), (Some(0), 200), (Some(999), 400)]),
            ("a session that lived", &[(None, 100), (None, 200), (Some(1_000), 100), (Some(0), 200)]),
        ];
        for (what, steps) in cases {
            let mut links = Links::default();
            let route = Route { remote: ([127, 0, 0, 1], 1).into(), local: None };
            links.add(LinkSpec { link: 0, route, cell: LinkCell::default() });
            let mut now = Time::ZERO;
            for (step, (lived, pause)) in steps.iter().enumerate() {
                if let Some(lived) = lived {
                    links.up(0, SessionId::from_u64(1).expect("not zero"), now);
                    now = now + ms(*lived);
                }
                let state = links.get(0).expect("it was added");
                assert_eq!(state.next_pause(now, ms(100), ms(1_000)), ms(*pause), "{what}, step {step}");
            }
        }
    }
}
