//! When a simulated shard sleeps, and what ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sim::faults::FaultKind;
use crate::sim::machine::Machine;
use crate::{Time, Wait, Wake};

/// What a simulated waker rings. The world looks at it when it next decides who runs.
#[derive(Default)]
pub(in crate::sim) struct Alarm {
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(&self) {
        // Release: partners the Acquire in `Sleep::hear_alarm`, so that what was done before the wake is seen after it.
        self.rung.store(true, Ordering::Release);
    }
}

/// How a shard's next poll would sleep.
pub(in crate::sim) struct Sleep {
    alarm: Arc<Alarm>,
    /// When a wake arrives, and when its double does.
    woken_at: Option<Time>,
    woken_again_at: Option<Time>,
    /// `None` before the first poll: it is not slept through.
    wait: Option<Wait>,
    /// When the deadline of `wait` is noticed: never early.
    deadline_noticed: Option<Time>,
    clogged_until: Time,
    has_left_over: bool,
}

impl Sleep {
    pub(super) fn new(alarm: Arc<Alarm>) -> Sleep {
        Sleep {
            alarm,
            woken_at: None,
            woken_again_at: None,
            wait: None,
            deadline_noticed: None,
            clogged_until: Time::ZERO,
            has_left_over: false,
        }
    }

    /// A poll: what woke it is spent, and from its return on the shard is taken to sleep as it asked this time.
    pub(super) fn begin(&mut self, machine: &mut Machine, wait: Wait) {
        self.hear_alarm(machine);
        if self.woken_at.is_some_and(|at| at <= machine.now()) {
            self.woken_at = self.woken_again_at.take();
        }
        if machine.dice.fires(FaultKind::SpuriousWake) {
            let at = machine.now() + machine.dice.span(Duration::from_millis(10));
            self.woken_at = Some(self.woken_at.map_or(at, |other| other.min(at)));
        }
        self.plan(machine, wait);
    }

    /// The shard will sleep so in its next poll.
    pub(in crate::sim) fn plan(&mut self, machine: &mut Machine, wait: Wait) {
        let is_same = self.wait.is_some_and(|before| before.until == wait.until);
        self.wait = Some(wait);
        if is_same && wait.until.is_none_or(|deadline| deadline > machine.now()) {
            return; // the same deadline again: its lateness is drawn already
        }
        self.deadline_noticed = wait.until.map(|deadline| {
            let is_ahead = deadline > machine.now() && deadline < Time::MAX;
            if is_ahead && machine.dice.fires(FaultKind::LateTimer) {
                deadline + machine.dice.hold()
            } else {
                deadline
            }
        });
    }

    pub(super) fn is_over(&mut self, machine: &mut Machine, words: usize) -> bool {
        self.hear_alarm(machine);
        let now = machine.now();
        let Some(wait) = self.wait else { return true };
        self.woken_at.is_some_and(|at| at <= now)
            || self.deadline_noticed.is_some_and(|at| at <= now)
            || (words >= self.at_least(wait) && !self.is_clogged(now))
    }

    /// How many words end the sleep: one is enough when some did not fit the last time.
    fn at_least(&self, wait: Wait) -> usize {
        if self.has_left_over { 1 } else { wait.at_least.max(1) as usize }
    }

    /// Whether the last poll had more to tell than it was asked for.
    pub(super) fn did_not_fit(&mut self, has_left_over: bool) {
        self.has_left_over = has_left_over;
    }

    pub(super) fn next_event(&self) -> Option<Time> {
        [self.woken_at, self.deadline_noticed].into_iter().flatten().filter(|at| *at < Time::MAX).min()
    }

    pub(super) fn clog(&mut self, until: Time) {
        self.clogged_until = until;
    }

    pub(super) fn is_clogged(&self, now: Time) -> bool {
        now < self.clogged_until
    }

    pub(super) fn clogged_until(&self) -> Time {
        self.clogged_until
    }

    fn hear_alarm(&mut self, machine: &mut Machine) {
        // Looked at first, since this is asked at every step and the answer is mostly no.
        if !self.alarm.rung.load(Ordering::Relaxed) || !self.alarm.rung.swap(false, Ordering::Acquire) {
            return;
        }
        let now = machine.now();
        let at = if machine.dice.fires(FaultKind::DelayedWake) { now + machine.dice.hold() } else { now };
        self.woken_at = Some(self.woken_at.map_or(at, |other| other.min(at)));
        if machine.dice.fires(FaultKind::DuplicateWake) {
            self.woken_again_at = Some(at + machine.dice.hold());
        }
    }
}
