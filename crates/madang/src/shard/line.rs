//! The line of those who want in. What a log-in costs is done step by step, and when no message waits for it.
//!
//! ```text
//!   preamble ─► read it (29 µs) ─► answer (37 µs) ─ … ─► log-in ─► look at it, check, place, welcome (20 µs and more)
//!               └── a step ──┘     └─ a step ─┘                    └───────────────── a step ─────────────────┘
//! ```
//!
//! Each step takes as long as some thirty messages, and a storm brings them in bunches. So a turn takes one
//! (`turn_handshakes_max`), when everything else is done and handed over, and only if its poll told nothing: else the next
//! poll comes first, for what arrived meanwhile. A message then waits for the rest of one step at most. A shard that always
//! has something to do takes a step after [`PUT_OFF_MAX`] all the same. First come first served, those first whose handshake
//! is behind them; the line is no longer than there are embryos.
//!
//! With `handshake_threads` the first two steps are other threads', and only log-ins wait here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use madang_driver::{Driver, Time};

use super::Shard;
use super::embryos::{Embryo, Stage};
use super::shaking::{Begun, Knock};
use crate::letters::EmbryoKey;

/// Handshakes of a shard that threads have at the same time. Some milliseconds' work, so that none of them runs dry; whoever
/// comes later waits on the shard, where he can be evicted for nothing.
pub(crate) const HANDSHAKES_OUT_MAX: usize = 32;

/// So long messages keep a step waiting: of a shard that never rests the line has a quarter, and some thousand log-ins a
/// second are let in.
const PUT_OFF_MAX: Duration = Duration::from_micros(100);

/// Who waits; each is here once at most. Who was here under a name may be gone.
#[derive(Default)]
pub(super) struct Line {
    /// Their preambles are there.
    handshakes: VecDeque<EmbryoKey>,
    /// The one of them whose preamble was read.
    begun: Option<(EmbryoKey, Begun)>,
    /// Their log-ins have begun to come.
    log_ins: VecDeque<EmbryoKey>,
    /// Handshakes that other threads work out now.
    pub(super) out: usize,
    /// Since when a step waits for messages.
    put_off: Option<Time>,
}

impl Line {
    pub(super) fn knocked(&mut self, key: EmbryoKey) {
        self.handshakes.push_back(key);
    }

    pub(super) fn wants_to_log_in(&mut self, key: EmbryoKey) {
        self.log_ins.push_back(key);
    }

    /// Whether other threads may have one more.
    fn can_give_away(&self) -> bool {
        !self.handshakes.is_empty() && self.out < HANDSHAKES_OUT_MAX
    }
}

impl<D: Driver> Shard<D> {
    /// Whether somebody in the line can be helped now.
    pub(super) fn has_line(&self) -> bool {
        self.has_steps() || self.line.can_give_away() && self.core.fabric.handshakes.is_some()
    }

    /// Takes a step of those in the line, unless this turn's poll told something.
    pub(super) fn serve_line(&mut self, told: usize) {
        if self.line.can_give_away() {
            self.give_away_handshakes();
        }
        if !self.has_steps() {
            self.line.put_off = None;
            return;
        }
        let now = self.core.now;
        if told > 0 && now.since(*self.line.put_off.get_or_insert(now)) < PUT_OFF_MAX {
            return;
        }
        self.line.put_off = None;
        for _ in 0..self.core.fabric.settings.turn_handshakes_max {
            // What the others are sent does not wait for it.
            self.driver.submit();
            if !self.step() {
                return;
            }
            self.settle();
        }
    }

    /// The next step; whether there was one.
    fn step(&mut self) -> bool {
        if let Some((key, begun)) = self.line.begun.take().filter(|(key, _)| self.awaits_answer(*key)) {
            self.worked_out(key, begun.answer());
            return true;
        }
        while let Some(key) = self.line.log_ins.pop_front() {
            let waits = |embryo: &&mut Embryo| embryo.stage == Stage::ExpectLogInTurn;
            let Some(embryo) = self.embryos.by_key(key).filter(waits) else { continue };
            embryo.stage = Stage::LogsIn;
            let Some(mut inbox) = embryo.inbox.take() else { continue };
            self.embryo_bytes(key.index, inbox.as_mut_slice());
            return true;
        }
        if self.core.fabric.handshakes.is_some() {
            return false;
        }
        let Some(key) = self.next_handshake() else { return false };
        match self.knock(key).map(Knock::read) {
            Some(Ok(begun)) => self.line.begun = Some((key, begun)),
            Some(Err(shaken)) => self.worked_out(key, *shaken),
            None => {}
        }
        true
    }

    fn give_away_handshakes(&mut self) {
        let fabric = Arc::clone(&self.core.fabric);
        let Some(threads) = &fabric.handshakes else { return };
        // Those who turn out not to speak our protocol are none that are out, and not all of them are this turn's.
        for _ in self.line.out..HANDSHAKES_OUT_MAX {
            let Some(key) = self.next_handshake() else { return };
            if let Some(knock) = self.knock(key) {
                self.give_away(&**threads, key, knock);
            }
            self.settle();
        }
    }

    /// The next whose handshake still waits.
    fn next_handshake(&mut self) -> Option<EmbryoKey> {
        loop {
            let key = self.line.handshakes.pop_front()?;
            if self.awaits_answer(key) {
                return Some(key);
            }
        }
    }

    fn has_steps(&self) -> bool {
        let Line { handshakes, begun, log_ins, .. } = &self.line;
        let ours = self.core.fabric.handshakes.is_none();
        begun.is_some() || !log_ins.is_empty() || ours && !handshakes.is_empty()
    }
}
