//! What the honest saw, slice by slice, in the parts of a comparison.

use super::ratio::median;
use crate::load::latency::Latency;

/// A load client that is guided tells so often.
pub(super) const SLICES_A_SECOND: u64 = 10;

/// So many slices have a p99 of log-ins together: there are fewer of them than of echoes.
const SLICES_OF_LOG_INS: usize = 5;

/// Of which time a p99 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Echoes,
    LogIns,
}

/// What was seen in a tenth of a second.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) echoes: Latency,
    pub(crate) log_ins: Latency,
}

pub(crate) type Part = Vec<Slice>;

/// The parts of one side of a comparison, one a round.
///
/// A burst of the machine's, some milliseconds in which nothing runs, is the p99 of the second that it falls into, and with
/// one or two of them a second it is the p99 of a whole run, whatever the server does. So the p99 is taken of each tenth of a
/// second, a thousand echoes; of a part its slices' median; and parts that lie beside each other in time are compared in
/// pairs. What comes in each slice shows, however short it is; what comes seldom is told as the p99 of all slices as one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    parts: Vec<Part>,
}

impl Side {
    pub(crate) fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// The p99 of each part in µs.
    pub(crate) fn p99s(&self, of: Of) -> impl Iterator<Item = f64> {
        self.parts.iter().map(move |part| median(slices(part, of)))
    }

    /// The median of all slices' p99 in µs.
    pub(crate) fn median_p99(&self, of: Of) -> f64 {
        median(self.parts.iter().flat_map(|part| slices(part, of)).collect())
    }

    /// The p99 of all slices as one, in µs, bursts and all.
    pub(crate) fn pooled_p99(&self, of: Of) -> f64 {
        p99(self.parts.iter().flatten(), of)
    }
}

/// The p99 of each slice, or of so many together.
fn slices(part: &Part, of: Of) -> Vec<f64> {
    let together = match of {
        Of::Echoes => 1,
        Of::LogIns => SLICES_OF_LOG_INS,
    };
    part.chunks(together).map(|slices| p99(slices, of)).collect()
}

/// Nothing seen is no good time.
fn p99<'a>(slices: impl IntoIterator<Item = &'a Slice>, of: Of) -> f64 {
    let mut all = Latency::coarse();
    for Slice { echoes, log_ins } in slices {
        all.add(match of {
            Of::Echoes => echoes,
            Of::LogIns => log_ins,
        });
    }
    if all.count() == 0 { f64::INFINITY } else { all.percentiles().p99_us }
}
