//! How late the loop is, and what the server does about it.
//!
//! ```text
//!   lag  0 ──────── overload_lag_ms ──────── overload_heavy_ms ──── that, for overload_cut_after_ms
//!        level 0     1: no new embryos        2: no new joins        3: the worst consumers are cut
//! ```
//!
//! The lag is what an event may have had to wait: the length of a turn, a sleep that overran, or, while polls come back full
//! turn after turn, the time until the same session has its turn again. It is smoothed over [`SMOOTH`], so that one slow
//! callback is no overload, and a level falls when the lag is half of what raised it.
//!
//! A loop that was late has not heard what came meanwhile. So the patience with peers is measured by a clock of its own,
//! which stands still for as long as the loop was late: a server that stalled does not cut everybody (P07).

use std::time::Duration;

use madang_driver::{Driver, Time, Wait};

use super::core::after;
use super::{Core, Shard, Timer};
use crate::LeaveReason;
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::planted::{Planted, planted};
use crate::settings::ms;
use crate::timers::TimerKey;

/// The lag's memory: a callback of 100 ms counts as 33, one of a second as 830.
const SMOOTH: Duration = Duration::from_millis(200);

/// From here on a late loop is a stall, told as such by the patient clock.
const STALL: Duration = Duration::from_millis(100);

/// How often a level is looked at while the shard has nothing else to do, and a worst consumer is cut.
const PACE_MS: u64 = 100;

/// A poll that took so much longer than the last turn has slept: the loop was not behind.
const SLEPT: Duration = Duration::from_millis(1);

/// The session by whose return the backlog is measured is another one after so long: it may have nothing to say.
const CANARY_PATIENCE: Duration = Duration::from_secs(10);

/// No session.
const NOBODY: u32 = u32::MAX;

/// What a shard knows of its own lag.
#[derive(Debug)]
pub(crate) struct Lag {
    is_watched: bool,
    /// How long the last turn took.
    pub(super) busy: Duration,
    /// Whether its poll came back full.
    pub(super) was_full: bool,
    /// How long the loop was late in all stalls together.
    stalled: Duration,
    /// While polls come back full: a session that had its turn then, and how long it was until the next, when it came.
    canary: u32,
    canary_since: Time,
    sweep: Duration,
    lag: Duration,
    level: u8,
    heavy_since: Option<Time>,
    /// The process holds nine tenths of its memory budget.
    memory_is_short: bool,
    cut_next: Time,
    /// While the level is above 0.
    timer: Option<TimerKey>,
    memory_timer: Option<TimerKey>,
}

impl Lag {
    pub(super) fn new(is_watched: bool) -> Lag {
        Lag {
            is_watched,
            busy: Duration::ZERO,
            was_full: false,
            stalled: Duration::ZERO,
            canary: NOBODY,
            canary_since: Time::ZERO,
            sweep: Duration::ZERO,
            lag: Duration::ZERO,
            level: 0,
            heavy_since: None,
            memory_is_short: false,
            cut_next: Time::ZERO,
            timer: None,
            memory_timer: None,
        }
    }

    /// How long an event may have had to wait, as a turn begins at `now` that followed one of `last`.
    fn sample(&mut self, last: Time, now: Time, wait: Wait) -> Duration {
        let due = wait.until.map_or(now, |until| until.max(last));
        let late = now.since(due).max(self.busy);
        if !self.was_full || now.since(last) > self.busy + SLEPT {
            (self.canary, self.sweep) = (NOBODY, Duration::ZERO);
        }
        late
    }

    /// Whether the shard keeps up.
    #[cfg(feature = "simulation")]
    pub(super) fn is_calm(&self) -> bool {
        self.level == 0
    }

    /// Takes a sample of `late` into the lag, `past` after the last one.
    fn smooth(&mut self, late: Duration, past: Duration) {
        let micros = |span: Duration| span.as_micros().min(1 << 30) as u64;
        let (late, past, memory) = (micros(late.max(self.sweep)), micros(past), micros(SMOOTH));
        self.lag = Duration::from_micros((micros(self.lag) * memory + late * past) / (past + memory));
    }

    /// The level that the lag asks for, given the one that holds.
    fn level(&mut self, now: Time, limits: Limits) -> u8 {
        let is_over =
            |limit: Duration, held: bool| !limit.is_zero() && self.lag > if held { limit / 2 } else { limit };
        let heavy = is_over(limits.heavy, self.level >= 2);
        self.heavy_since = if heavy { self.heavy_since.or(Some(now)) } else { None };
        let for_long = self.heavy_since.is_some_and(|since| now.since(since) >= limits.cut_after);
        match () {
            () if self.memory_is_short => 3,
            () if heavy && for_long && !limits.cut_after.is_zero() => 3,
            () if heavy => 2,
            () if is_over(limits.lag, self.level >= 1) => 1,
            () => 0,
        }
    }
}

/// The settings' `overload_…`; zero is never.
#[derive(Debug, Clone, Copy)]
struct Limits {
    lag: Duration,
    heavy: Duration,
    cut_after: Duration,
}

impl Core {
    /// The clock by which the patience with peers is measured.
    #[inline]
    pub(super) fn patient_now(&self) -> Time {
        Time::from_nanos(self.now.as_nanos().saturating_sub(self.lag.stalled.as_nanos() as u64))
    }

    /// A session had its turn.
    #[inline]
    pub(super) fn had_its_turn(&mut self, local: u32) {
        if self.lag.was_full && self.lag.is_watched {
            self.measure_sweep(local);
        }
    }

    #[cold]
    fn measure_sweep(&mut self, local: u32) {
        let lag = &mut self.lag;
        let waited = self.now.since(lag.canary_since);
        if lag.canary == local && !waited.is_zero() {
            lag.sweep = waited;
        } else if lag.canary != NOBODY && waited < CANARY_PATIENCE {
            return;
        }
        (lag.canary, lag.canary_since) = (local, self.now);
    }
}

impl<D: Driver> Shard<D> {
    /// A turn begins: how late is it?
    pub(super) fn take_lag(&mut self, last: Time, wait: Wait) {
        let now = self.core.now;
        let late = self.core.lag.sample(last, now, wait);
        if late >= STALL {
            self.stalled(late);
        }
        if self.core.lag.is_watched {
            self.core.lag.smooth(late, now.since(last));
            self.take_level();
        }
    }

    #[cold]
    fn stalled(&mut self, late: Duration) {
        if !planted(Planted::StallBlamed) {
            self.core.lag.stalled += late;
        }
        let slow = self.core.fabric.settings.slow_turn_ms;
        if slow > 0 && late >= ms(slow) {
            self.core.counters.add(Count::SlowTurns, 1);
            self.core.error_of(ErrorKind::Stalled { shard: self.core.shard, late }, None, None);
        }
    }

    fn take_level(&mut self) {
        let now = self.core.now;
        let settings = &self.core.fabric.settings;
        let limits = Limits {
            lag: ms(settings.overload_lag_ms),
            heavy: if settings.overload_lag_ms > 0 { ms(settings.overload_heavy_ms) } else { Duration::ZERO },
            cut_after: ms(settings.overload_cut_after_ms),
        };
        let before = self.core.lag.level;
        let level = self.core.lag.level(now, limits);
        self.core.lag.level = level;
        self.core.counters.set(Count::OverloadLevel, level.into());
        self.core.counters.set(Count::LagNanos, self.core.lag.lag.as_nanos() as u64);
        if level != before {
            let (shard, lag) = (self.core.shard, self.core.lag.lag);
            self.core.error_of(ErrorKind::Overload { shard, level, lag }, None, None);
            // Newcomers and the other shards go by what is published.
            self.core.counters.publish(&self.core.fabric.figures[shard]);
        }
        if level > 0 && self.core.lag.timer.is_none() && self.stopping.is_none() {
            self.core.lag.timer = Some(self.core.timers.set(after(now, PACE_MS), Timer::Overload));
        }
        if level == 3 && now >= self.core.lag.cut_next {
            self.core.lag.cut_next = after(now, PACE_MS);
            self.cut_worst();
        }
    }

    /// Cuts the session that reads the least of what it is sent, if there is one that does not keep up.
    fn cut_worst(&mut self) {
        let worst = self.core.largest_holder();
        if let Some((local, _)) = worst.filter(|(_, held)| *held > self.core.limits.soft_bytes / 4) {
            self.core.decide(local, LeaveReason::Overload, false);
        }
    }

    /// A look at the level, though nothing else happens: the turn that it makes has taken it.
    pub(super) fn overload_due(&mut self) {
        self.core.lag.timer = None;
        self.take_level();
    }

    /// A look at the process's memory, on the gate's shard.
    pub(super) fn memory_due(&mut self) {
        let budget = self.core.fabric.settings.memory_budget_bytes;
        if let Some(resident) = madang_driver::resident_bytes() {
            // A tenth between on and off, so that it does not flap.
            let tenths = if self.core.lag.memory_is_short { 8 } else { 9 };
            self.core.lag.memory_is_short = resident >= budget / 10 * tenths;
            self.take_level();
        }
        self.watch_memory();
    }

    /// Looks at the process's memory from now on, if it has a budget: on the gate's shard, for all.
    pub(super) fn watch_memory(&mut self) {
        if self.gate.is_some() && self.core.fabric.settings.memory_budget_bytes > 0 {
            let at = after(self.core.now, MEMORY_PACE_MS);
            self.core.lag.memory_timer = Some(self.core.timers.set(at, Timer::Memory));
        }
    }

    /// A shard that stops looks at nothing any more: everybody leaves.
    pub(super) fn forget_overload(&mut self) {
        for timer in [self.core.lag.timer.take(), self.core.lag.memory_timer.take()].into_iter().flatten() {
            self.core.timers.cancel(timer);
        }
    }
}

/// How often the process's memory is looked at: one small read of the system's.
const MEMORY_PACE_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        lag: Duration::from_millis(50),
        heavy: Duration::from_millis(200),
        cut_after: Duration::from_millis(1_000),
    };

    /// Plays turns of so many milliseconds, back to back or asleep between, and tells the level after each.
    fn play(turns: &[(u64, u64)]) -> Vec<u8> {
        let mut lag = Lag::new(true);
        let mut last = Time::from_nanos(1);
        let levels = turns.iter().map(|(busy, asleep)| {
            let now = last + ms(*busy) + ms(*asleep);
            lag.busy = ms(*busy);
            let late = lag.sample(last, now, Wait::until(now));
            lag.smooth(late, now.since(last));
            lag.level = lag.level(now, LIMITS);
            last = now;
            lag.level
        });
        levels.collect()
    }

    #[test]
    fn b12_levels_rise_with_the_lag_and_fall_below_half_of_it() {
        let check = |what: &str, turns: &[(u64, u64)], last: u8| {
            let levels = play(turns);
            assert_eq!(levels.last(), Some(&last), "{what}: {levels:?}");
        };
        check("brisk turns", &[(1, 9); 50], 0);
        check("one slow callback", &[(1, 9), (80, 0)], 0);
        check("slow turns", &[(60, 0); 20], 1);
        check("one stall of a second", &[(1, 9), (1_000, 0)], 2);
        check("and what is left of it soon after", &[&[(1, 9), (1_000, 0)][..], &[(1, 200); 4]].concat(), 1);
        check("and later", &[&[(1, 9), (1_000, 0)][..], &[(1, 100); 30]].concat(), 0);
        check("heavy turns", &[(250, 0); 5], 2);
        check("for long", &[(250, 0); 12], 3);
        check("hysteresis", &[&[(60, 0); 20][..], &[(35, 0); 20]].concat(), 1);
        check("never raised", &[(35, 0); 40], 0);
    }

    #[test]
    fn b12_a_backlog_of_short_turns_is_a_lag() {
        // Turns of 16 ms that come back full; a session has its turn in every twentieth.
        let mut lag = Lag::new(true);
        let mut now = Time::from_nanos(1);
        for turn in 0..60 {
            let last = now;
            now = now + ms(16);
            (lag.busy, lag.was_full) = (ms(16), true);
            let late = lag.sample(last, now, Wait::NO);
            if turn == 0 {
                (lag.canary, lag.canary_since) = (7, now);
            } else if turn % 20 == 0 {
                lag.sweep = now.since(lag.canary_since);
                lag.canary_since = now;
            }
            lag.smooth(late, now.since(last));
            lag.level = lag.level(now, LIMITS);
        }
        assert_eq!(lag.level, 2, "{lag:?}");
        // A poll that finds less than it could take ends it.
        (lag.busy, lag.was_full) = (ms(1), false);
        lag.sample(now, now + ms(1), Wait::NO);
        assert_eq!((lag.canary, lag.sweep), (NOBODY, Duration::ZERO));
    }

    #[test]
    fn p05_a_process_short_of_memory_is_overloaded_at_once() {
        let mut lag = Lag::new(true);
        lag.memory_is_short = true;
        assert_eq!(lag.level(Time::ZERO, LIMITS), 3);
        lag.memory_is_short = false;
        assert_eq!(lag.level(Time::ZERO, LIMITS), 0);
    }
}
