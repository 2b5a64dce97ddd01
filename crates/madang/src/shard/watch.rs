//! Deadlines of a shard, and the periodic look at each session.

use madang_driver::Driver;
use madang_wire::lan::Heartbeat;

use super::callbacks::Call;
use super::core::after;
use super::{Shard, Timer};
use crate::framing::Wire;
use crate::planted::{Planted, planted};
use crate::settings::ms;
use crate::{LeaveReason, SessionId, Settings};

/// Timers fired in one turn; those that are left are first in the next.
const TIMERS_A_TURN: usize = 1_024;

impl<D: Driver> Shard<D> {
    /// Fires what is due.
    pub(super) fn fire_timers(&mut self) {
        for _ in 0..TIMERS_A_TURN {
            let Some((key, timer)) = self.core.timers.pop(self.core.now) else { break };
            match timer {
                Timer::Greeting(embryo) => self.greeting_overdue(embryo),
                Timer::Check { local, id } => self.check(local, id),
                Timer::Leave { local, id } => self.leave_overdue(local, id),
                Timer::Throttle { local, id } => self.throttle_due(local, id),
                Timer::Content { local, id, key: name } => {
                    if let Some(details) = self.core.sessions.details(local) {
                        details.timers.retain(|(_, other)| *other != key);
                    }
                    let id = match self.core.sessions.get(local) {
                        Some(session) if planted(Planted::TimerWithoutSerial) => session.id,
                        _ => id,
                    };
                    if self.core.takes(local, id) {
                        self.call(local, id, Call::Timer(name));
                    }
                }
                Timer::Pool => self.look_at_pool(),
                Timer::Overload => self.overload_due(),
                Timer::Memory => self.memory_due(),
                Timer::Reconnect { link } => self.link_dial(link),
                Timer::Waiter(_) | Timer::Release | Timer::News | Timer::Accept => {
                    if let Some(gate) = &mut self.gate {
                        gate.timer(timer, &mut self.driver, &mut self.core);
                    }
                }
            }
            self.settle();
        }
    }

    /// The periodic look: is the peer alive, does it finish its frames, does it read?
    fn check(&mut self, local: u32, id: SessionId) {
        if !self.core.takes(local, id) {
            return;
        }
        let now = self.core.now;
        let patient = self.core.patient_now();
        let settings = &self.core.fabric.settings;
        let beats = matches!(self.wire, Wire::Own);
        let (silence_max, partial_max, soft_max, soft_bytes) = (
            ms(if beats { settings.dead_after_ms } else { settings.idle_timeout_ms }),
            ms(settings.partial_timeout_ms),
            ms(settings.queue_soft_ms),
            settings.queue_soft_bytes,
        );
        let period = check_period_ms(settings, beats);
        let (next, half_a_beat) = (after(now, period), settings.heartbeat_ms / 2);
        let Some((session, details)) = self.core.sessions.both(local) else { return };
        details.deadline = None;
        if details.over_soft_since.is_some() && session.outbox.bytes() <= soft_bytes {
            details.over_soft_since = None;
        }
        // While jobs or debts hold the messages, or no receive is started for want of buffers, the silence and the half frame are
        // ours, not the peer's.
        let held = session.holds > 0 || !session.receiving && !session.eof;
        let silence = patient.since(session.last_heard);
        let reason = if !silence_max.is_zero() && !held && silence >= silence_max {
            Some(LeaveReason::Idle)
        } else if !held && details.partial_since.is_some_and(|since| patient.since(since) >= partial_max) {
            Some(LeaveReason::Dribble)
        } else if details.over_soft_since.is_some_and(|since| patient.since(since) >= soft_max) {
            Some(LeaveReason::SlowConsumer)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.core.decide(local, reason, false);
            return;
        }
        details.deadline = Some(self.core.timers.set(next, Timer::Check { local, id }));
        details.quiet_looks = match std::mem::take(&mut session.spoke) {
            true => 0,
            false => details.quiet_looks.saturating_add(1),
        };
        if beats && details.quiet_looks > 0 && u64::from(details.quiet_looks) * period >= half_a_beat {
            details.quiet_looks = 0;
            self.core.queue_control(local, &Heartbeat { value: now.as_nanos() }.ping());
        }
    }
}

/// How often a session is looked at: a quarter of the shortest patience there is; where there are heartbeats at least twice
/// a beat, so that a side that has said nothing between two looks pings within the beat.
pub(super) fn check_period_ms(settings: &Settings, beats: bool) -> u64 {
    let silence = if beats { settings.dead_after_ms } else { settings.idle_timeout_ms };
    let patience = [silence, settings.queue_soft_ms, settings.partial_timeout_ms];
    let shortest = patience.into_iter().filter(|milliseconds| *milliseconds > 0).min().unwrap_or(u64::MAX);
    let period = (shortest / 4).clamp(10, 5_000);
    if beats { period.min(settings.heartbeat_ms / 2).max(1) } else { period }
}
