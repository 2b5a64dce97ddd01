//! Sessions that send more than they may.
//!
//! ```text
//!   debt ─► held: not read, nothing delivered ─► paid off ─► read again ─► quiet for a second: forgotten
//!                          └─ goes on for `recv_over_ms` ─► leaves: TooFast
//! ```
//!
//! Holding is what a job's session knows already: what was read is kept, TCP holds the peer back, silence and half frames
//! are not the peer's meanwhile.

use std::time::Duration;

use madang_driver::{Driver, Time};

use super::{Shard, Timer};
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::framing::Wire;
use crate::planted::{Planted, planted};
use crate::session::Taken;
use crate::settings::ms;
use crate::timers::TimerKey;
use crate::{LeaveReason, SessionId};

/// Who was not held for so long floods no more. An honest peer that caught up after a stall of the network is held once.
const QUIET: Duration = Duration::from_secs(1);

/// What a session that was ever in debt has of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    /// Since when it sends too much.
    since: Time,
    /// When it was last read again.
    read_again: Time,
    /// There while it is held.
    pub(crate) timer: Option<TimerKey>,
}

impl<D: Driver> Shard<D> {
    /// Charges what a batch of bytes was. A session in debt is held until it is paid off.
    #[inline]
    pub(super) fn charge(&mut self, local: u32, id: SessionId, taken: &Taken) {
        let Some(intakes) = &mut self.core.intakes else { return };
        if let Some(paid_at) = intakes.charge(local, self.core.now, taken) {
            self.throttle(local, id, paid_at);
        }
    }

    #[cold]
    fn throttle(&mut self, local: u32, id: SessionId, paid_at: Time) {
        if !self.core.takes(local, id) {
            return;
        }
        let now = self.core.now;
        let patience = ms(self.core.fabric.settings.recv_over_ms);
        let details = self.core.sessions.details(local).expect("a session has details");
        let fresh = Flood { since: now, read_again: now, timer: None };
        let flood = match details.flood {
            Some(flood) if flood.timer.is_some() => return, // more of the batch that began it
            Some(flood) if now.since(flood.read_again) < QUIET => flood,
            _ => fresh,
        };
        let at = paid_at.min(flood.since + patience).max(now);
        let timer = self.core.timers.set(at, Timer::Throttle { local, id });
        let details = self.core.sessions.details(local).expect("it was just there");
        details.flood = Some(Flood { timer: Some(timer), ..flood });
        self.core.counters.add(Count::InputThrottled, 1);
        self.core.hold(local);
    }

    /// The debt of a session is paid off, or patience with it is over.
    pub(super) fn throttle_due(&mut self, local: u32, id: SessionId) {
        if !self.core.takes(local, id) {
            return;
        }
        let now = self.core.now;
        let patience = ms(self.core.fabric.settings.recv_over_ms);
        let Some(flood) = self.core.sessions.details(local).and_then(|details| details.flood) else { return };
        let intakes = self.core.intakes.as_mut().expect("who is in debt has buckets");
        let in_debt = intakes.charge(local, now, &Taken::default()).is_some();
        if in_debt && now >= flood.since + patience {
            self.core.error(ErrorKind::TooFast, Some(local));
            // Where a last word can be said the peer is told; what it still sends is thrown away, in bounds.
            let says_goodbye = matches!(self.wire, Wire::Own);
            self.core.decide(local, LeaveReason::TooFast, says_goodbye);
            return;
        }
        if planted(Planted::ThrottleNeverLifted) {
            return;
        }
        if let Some(details) = self.core.sessions.details(local) {
            details.flood = Some(Flood { read_again: now, timer: None, ..flood });
        }
        self.release_hold(local, id);
    }
}
