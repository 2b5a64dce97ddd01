//! Ratios, how sure they are, and the limits of `limits.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::contender::Contender;
use super::plan::GATE_ROUNDS;
use super::record::Round;

/// `limits.toml`: the promises of the engine, and nothing that depends on a machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Load → ours → whom it is compared with → largest ratio of server CPU per message.
    pub ratio: BTreeMap<String, BTreeMap<Contender, BTreeMap<Contender, f64>>>,
    /// Load → largest p99 / p50 of ours in the closed loop.
    pub fairness: BTreeMap<String, f64>,
    /// Ours → most bytes of an idle session.
    pub idle: BTreeMap<Contender, f64>,
}

impl Limits {
    /// Reads the file.
    ///
    /// # Errors
    /// It is missing, or says something that has no meaning here.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// What a limit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole 95 % interval keeps the limit.
    Met,
    /// None of it does.
    Missed,
    /// The limit lies inside the interval, or there are too few rounds.
    NotResolved,
}

impl Verdict {
    /// As tables write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::NotResolved => "not resolved",
        }
    }
}

/// A paired ratio: the median over rounds of one server's CPU per message over another's in the same round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Rounds in which both took part.
    pub rounds: usize,
    /// The median.
    pub median: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Ratio {
    /// Of `subject` over `base`; `None` when they never met.
    #[must_use]
    pub fn of<'rounds>(
        rounds: impl IntoIterator<Item = &'rounds Round>,
        subject: Contender,
        base: Contender,
    ) -> Option<Self> {
        let logs: Vec<f64> = rounds
            .into_iter()
            .filter_map(|round| {
                let ratio =
                    round.get(&subject)?.server_ns_per_message() / round.get(&base)?.server_ns_per_message();
                ratio.is_finite().then(|| ratio.ln())
            })
            .collect();
        let median = median(&logs)?;
        let (low, high) = median_interval(&logs);
        Some(Self { rounds: logs.len(), median: median.exp(), low: low.exp(), high: high.exp() })
    }

    /// Whether it keeps `limit`.
    #[must_use]
    pub fn verdict(&self, limit: f64) -> Verdict {
        if self.rounds < GATE_ROUNDS {
            Verdict::NotResolved
        } else if self.high <= limit {
            Verdict::Met
        } else if self.low > limit {
            Verdict::Missed
        } else {
            Verdict::NotResolved
        }
    }
}

/// The middle of `values`; `None` of none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// By linear interpolation between the neighbours.
#[must_use]
pub fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = quantile * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// A 95 % interval of the median: the values whose ranks lie 0.98 √n from the middle (the binomial distribution's 1.96
/// standard deviations). Nothing is assumed of how the values scatter; they have a long tail, since something else always
/// runs. Below six values there is no such interval, and this is simply the smallest and the largest.
fn median_interval(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let rank = ((count - 1.96 * count.sqrt()) / 2.0).floor().max(0.0) as usize;
    (sorted[rank], sorted[sorted.len() - 1 - rank])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 3.0, 4.0]), Some(2.5));
        assert_eq!(quantile(&[0.0, 10.0], 0.25), Some(2.5));
    }

    /// Of many samples of a known distribution, about 95 % of the intervals must hold the true median.
    #[test]
    fn intervals_hold_the_true_median_as_often_as_they_say() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        let holds = (0..1000)
            .filter(|_| {
                let sample: Vec<f64> = (0..80).map(|_| -uniform().max(1e-9).ln()).collect();
                let (low, high) = median_interval(&sample);
                (low..=high).contains(&2.0_f64.ln())
            })
            .count();
        assert!((930..=975).contains(&holds), "{holds} of 1000");
    }

    #[test]
    fn a_verdict_needs_its_whole_interval_and_enough_rounds() {
        let ratio = |rounds, low, high| Ratio { rounds, median: 1.0, low, high };
        for (ratio, expected) in [
            (ratio(80, 0.9, 1.08), Verdict::Met),
            (ratio(80, 1.07, 1.09), Verdict::NotResolved),
            (ratio(80, 1.09, 1.2), Verdict::Missed),
            (ratio(79, 0.9, 1.0), Verdict::NotResolved),
        ] {
            assert_eq!(ratio.verdict(1.08), expected, "{ratio:?}");
        }
    }
}
