//! What the honest saw, second by second, in the parts of a comparison.

use super::ratio::median;
use crate::load::latency::Latency;

/// Of which time a p99 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Echoes,
    LogIns,
}

/// A second's echoes and log-ins.
pub(crate) type Second = (Latency, Latency);

/// The parts of one side of a comparison, one a round.
///
/// A burst of the machine's, tens of milliseconds in which nothing runs, fills the p99 of a second or two and of a run that
/// it falls into. So the p99 is taken of each second, of a part its seconds' median, and parts that lie beside each other in
/// time are compared in pairs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    parts: Vec<Vec<Second>>,
}

impl Side {
    pub(crate) fn add(&mut self, part: Vec<Second>) {
        self.parts.push(part);
    }

    /// The p99 of each part in µs.
    pub(crate) fn p99s(&self, of: Of) -> impl Iterator<Item = f64> {
        self.parts.iter().map(move |part| median(part.iter().map(|second| p99(second, of)).collect()))
    }

    /// The median of all seconds' p99 in µs.
    pub(crate) fn median_p99(&self, of: Of) -> f64 {
        median(self.seconds().map(|second| p99(second, of)).collect())
    }

    /// The p99 of all seconds as one, in µs, bursts and all.
    pub(crate) fn pooled_p99(&self, of: Of) -> f64 {
        let mut all = Latency::new();
        self.seconds().for_each(|second| all.add(pick(second, of)));
        all.percentiles().p99_us
    }

    fn seconds(&self) -> impl Iterator<Item = &Second> {
        self.parts.iter().flatten()
    }
}

fn pick((echoes, log_ins): &Second, of: Of) -> &Latency {
    match of {
        Of::Echoes => echoes,
        Of::LogIns => log_ins,
    }
}

/// Nothing seen in a second is no good second.
fn p99(second: &Second, of: Of) -> f64 {
    let latency = pick(second, of);
    if latency.count() == 0 { f64::INFINITY } else { latency.percentiles().p99_us }
}
