//! What became of the visitors of one sort.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::load::latency::{Latency, Percentiles};

/// Whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Stranger,
    Garbage,
    LogIn,
}

/// A sort's books, for the report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Came {
    pub(crate) sort: String,
    /// Connections that were made.
    pub(crate) came: u64,
    /// Of them, those that ended as they must.
    pub(crate) ended: u64,
    /// At a pace: those for whom there was no room here any more. The pace was not kept.
    pub(crate) missed: u64,
    /// The most at the same time.
    pub(crate) here_most: usize,
    /// How often what happened that must not.
    pub(crate) failures: BTreeMap<String, u64>,
    /// How long strangers were suffered, or how long a log-in took.
    pub(crate) took: Percentiles,
}

#[derive(Debug)]
pub(super) struct Group {
    came: Came,
    here: usize,
    took: Latency,
}

impl Sort {
    pub(crate) const ALL: [Self; 3] = [Self::Stranger, Self::Garbage, Self::LogIn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stranger => "strangers",
            Self::Garbage => "garbage",
            Self::LogIn => "log-ins",
        }
    }
}

impl Group {
    pub(super) fn new(sort: Sort) -> Self {
        let came = Came { sort: sort.name().into(), ..Came::default() };
        Self { came, here: 0, took: Latency::new() }
    }

    pub(super) fn here(&self) -> usize {
        self.here
    }

    pub(super) fn enter(&mut self) {
        self.came.came += 1;
        self.here += 1;
        self.came.here_most = self.came.here_most.max(self.here);
    }

    pub(super) fn leave(&mut self) {
        self.here -= 1;
    }

    pub(super) fn took(&mut self, from_ns: u64, to_ns: u64) {
        self.took.record(from_ns, to_ns);
    }

    pub(super) fn ended(&mut self) {
        self.came.ended += 1;
    }

    pub(super) fn missed(&mut self) {
        self.came.missed += 1;
    }

    pub(super) fn fail(&mut self, why: String) {
        *self.came.failures.entry(why).or_default() += 1;
    }

    pub(super) fn failed(&self) -> u64 {
        self.came.failures.values().sum()
    }

    /// Nothing when nobody came or was to come.
    pub(super) fn report(mut self) -> Option<Came> {
        self.came.took = self.took.percentiles();
        let silent = self.came.came == 0 && self.came.missed == 0 && self.came.failures.is_empty();
        (!silent).then_some(self.came)
    }
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sort, came, ended, missed, here_most, failures, took } = self;
        let ms = |us: f64| us / 1e3;
        write!(f, "{sort}: {came} came, {ended} ended as they must, {here_most} here at the most")?;
        write!(f, "; took p50 {:.2} ms, p99 {:.2} ms, ", ms(took.p50_us), ms(took.p99_us))?;
        write!(f, "max {:.2} ms", ms(took.max_us))?;
        if *missed > 0 {
            write!(f, "; {missed} MISSED for want of room")?;
        }
        failures.iter().try_for_each(|(why, count)| write!(f, "\n  {count} × {why}"))
    }
}
