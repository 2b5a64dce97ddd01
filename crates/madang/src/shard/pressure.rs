//! The pool's budget runs short: the largest holder goes first.
//!
//! ```text
//!   in packets  ──────────── 8/9 ───────── `pool_short_bytes` ─── `pool_budget_bytes`
//!                 at ease ◄──┤    whoever holds half as much as    ├── sends are answered `PoolExhausted`
//!                            │    the largest gets no broadcasts   │
//!                            └──────────────────┤ and every look cuts the largest
//! ```
//!
//! The pool is every shard's, the holders are each one's own: the first to see the shortage tells the others, each says what
//! its largest holds, and only the shard with the largest of all cuts. A look walks the shard's sessions, so there is a
//! pause between two; without a shortage a turn costs one load.

use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_driver::Driver;

use super::{Core, Shard, Timer};
use crate::error::ErrorKind;
use crate::letters::Word;
use crate::session::Session;
use crate::timers::TimerKey;
use crate::{LeaveReason, Settings};

/// Between two looks: a walk through 20,000 sessions takes 0.1 ms.
const PAUSE: Duration = Duration::from_millis(5);

/// Sessions that one look cuts, at most: what they held comes back before the next, and may do.
const CUT_A_LOOK: usize = 4;

/// Looks in which a shard waits for what the others hold: 50 ms.
const LOOKS_FOR_OTHERS: u32 = 10;

/// Who holds less is no cause of a shortage: one chunk of small messages.
const HOLDER_MIN: usize = 4 << 10;

/// What a shard knows of the pool's shortage.
#[derive(Debug)]
pub(crate) struct Pressure {
    high: usize,
    low: usize,
    /// While there is a shortage.
    timer: Option<TimerKey>,
    looks: u32,
    /// Sessions with more queued get no broadcasts.
    broadcast_max: usize,
}

impl Pressure {
    pub(super) fn new(settings: &Settings) -> Pressure {
        let high = match settings.pool_short_bytes {
            0 => settings.pool_budget_bytes / 10 * 9,
            bytes => bytes,
        };
        Pressure { high, low: high / 9 * 8, timer: None, looks: 0, broadcast_max: usize::MAX }
    }

    /// Whether the session is one of those that make the pool short.
    #[inline]
    pub(super) fn is_worst(&self, session: &Session) -> bool {
        session.outbox.bytes() > self.broadcast_max
    }

    /// Whether the pool is at ease.
    #[cfg(feature = "simulation")]
    pub(super) fn is_off(&self) -> bool {
        self.timer.is_none()
    }
}

/// What the pool holds for a session: what waits, what is being sent, and what it began to send us.
fn held(session: &Session) -> usize {
    session.outbox.bytes() + session.in_flight.bytes + session.inbox.as_ref().map_or(0, |inbox| inbox.len())
}

impl Core {
    /// The session that holds the most and stays, and how much that is.
    pub(super) fn largest_holder(&self) -> Option<(u32, usize)> {
        let sessions = (0..self.sessions.end())
            .filter_map(|local| Some((local, self.sessions.get(local)?)))
            .filter(|(_, session)| !session.is_leaving());
        sessions.map(|(local, session)| (local, held(session))).max_by_key(|(_, held)| *held)
    }
}

impl<D: Driver> Shard<D> {
    /// Looks at the end of each turn whether the pool runs short.
    #[inline]
    pub(super) fn watch_pool(&mut self) {
        if self.core.fabric.depot.out_bytes() >= self.core.pressure.high {
            self.pool_is_short();
        }
    }

    #[cold]
    fn pool_is_short(&mut self) {
        // What lies at hand in magazines is out, but in no packet: the exact sum decides.
        let looks = self.core.pressure.timer.is_some() || self.stopping.is_some();
        if !looks && self.core.fabric.depot.figures().in_use.bytes >= self.core.pressure.high {
            self.core.error_of(ErrorKind::PoolShort, None, None);
            for (shard, mailbox) in self.core.fabric.mailboxes.iter().enumerate() {
                if shard != self.core.shard {
                    mailbox.control(Word::PoolShort);
                }
            }
            self.relieve_pool();
        }
    }

    /// Begins to look after the pool, unless that is under way.
    pub(super) fn relieve_pool(&mut self) {
        if self.core.pressure.timer.is_none() && self.stopping.is_none() {
            self.core.pressure.looks = 0;
            self.look_at_pool();
        }
    }

    /// One look. Whoever is cut leaves when no callback runs.
    pub(super) fn look_at_pool(&mut self) {
        self.core.pressure.timer = None;
        let used = self.core.fabric.depot.figures().in_use.bytes;
        let says = |core: &Core, held: usize| {
            // Relaxed: a number that stands for itself, and the next look sees a later one.
            core.fabric.figures[core.shard].largest_holder.store(held, Ordering::Relaxed);
        };
        if used < self.core.pressure.low || self.stopping.is_some() {
            self.core.pressure.broadcast_max = usize::MAX;
            return says(&self.core, 0);
        }
        let mut excess = used.saturating_sub(self.core.pressure.high);
        for cut in 0..CUT_A_LOOK {
            let (local, held) = self.core.largest_holder().unwrap_or_default();
            self.core.pressure.broadcast_max = (held / 2).max(HOLDER_MIN);
            if cut == 0 {
                // It stands until the next look: what is cut here is back by then, and no other shard cuts for it, too.
                says(&self.core, held.max(1));
            }
            if excess == 0 || held < HOLDER_MIN || !self.holds_most(held) {
                break;
            }
            self.core.decide(local, LeaveReason::Evicted, false);
            excess = excess.saturating_sub(held);
        }
        self.core.pressure.looks += 1;
        self.core.pressure.timer = Some(self.core.timers.set(self.core.now + PAUSE, Timer::Pool));
    }

    /// Whether no other shard has a larger holder, as far as they have said. The first look stops broadcasts and tells; one
    /// that stands still does not keep the others from helping themselves for long.
    fn holds_most(&self, held: usize) -> bool {
        let looks = self.core.pressure.looks;
        let figures = self.core.fabric.figures.iter().enumerate();
        let mut others = figures
            .filter(|(shard, _)| *shard != self.core.shard)
            .map(|(_, figures)| figures.largest_holder.load(Ordering::Relaxed));
        looks > 0 && others.all(|other| other <= held && (other > 0 || looks >= LOOKS_FOR_OTHERS))
    }

    /// A shard that stops has no shortage any more: everybody leaves.
    pub(super) fn forget_pool(&mut self) {
        if let Some(timer) = self.core.pressure.timer.take() {
            self.core.timers.cancel(timer);
        }
    }
}
