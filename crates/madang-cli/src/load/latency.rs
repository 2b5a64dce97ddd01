//! Latencies of many messages as percentiles.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart; longer ones count as this.
const LONGEST_NS: u64 = 120 * 1_000_000_000;

/// Three significant digits: a percentile is right to 0.1 %, in about 200 KiB for the whole range.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies that one thread saw; add those of the others at the end.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

/// What a run's latencies come to, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) mean_us: f64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self::with_digits(SIGNIFICANT_DIGITS)
    }

    /// Right to a hundredth only, and small: for who makes many.
    pub(crate) fn coarse() -> Self {
        Self::with_digits(SIGNIFICANT_DIGITS - 1)
    }

    fn with_digits(digits: u8) -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, digits);
        Self { histogram: histogram.expect("the bounds are constants that the histogram takes") }
    }

    /// Records one echo: from when its message was due (paced) or sent (closed loop), to when it was whole. A clock
    /// that seems to run backwards between two cores counts as no time.
    pub(crate) fn record(&mut self, from_ns: u64, to_ns: u64) {
        self.histogram.saturating_record(to_ns.saturating_sub(from_ns).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds, if not the same digits");
    }

    /// Each latency that was seen, in ns, and how often.
    pub(crate) fn seen(&self) -> Vec<(u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect()
    }

    /// Puts together what [`seen`](Self::seen) took apart, to a hundredth.
    pub(crate) fn of_seen(seen: &[(u64, u64)]) -> Self {
        let mut all = Self::coarse();
        for (ns, count) in seen {
            all.histogram.saturating_record_n(*ns, *count);
        }
        all
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// All zero when nothing was recorded.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max() as f64 / 1e3,
            mean_us: self.histogram.mean() / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;

    const MS: u64 = 1_000_000;

    #[track_caller]
    fn check_near(got_us: f64, expected_us: f64) {
        assert!(
            (got_us - expected_us).abs() <= expected_us * 0.002,
            "{got_us} µs, expected {expected_us} µs"
        );
    }

    #[test]
    fn percentiles_of_a_known_set_are_right() {
        let mut latency = Latency::new();
        (1..=1_000).for_each(|us| latency.record(5, 5 + us * 1_000));
        let percentiles = latency.percentiles();
        check_near(percentiles.p50_us, 500.0);
        check_near(percentiles.p90_us, 900.0);
        check_near(percentiles.p99_us, 990.0);
        check_near(percentiles.p999_us, 999.0);
        check_near(percentiles.max_us, 1_000.0);
        check_near(percentiles.mean_us, 500.5);
    }

    #[test]
    fn extremes_are_kept_in_bounds() {
        let mut latency = Latency::new();
        latency.record(10, 9);
        latency.record(0, u64::MAX);
        assert_eq!(latency.count(), 2);
        check_near(latency.percentiles().max_us, LONGEST_NS as f64 / 1e3);
        assert_eq!(Latency::new().percentiles(), Percentiles::default());
    }

    #[test]
    fn adding_is_as_recording_all_in_one() {
        let (mut one, mut two, mut all) = (Latency::new(), Latency::new(), Latency::new());
        for us in 1..=500 {
            let part = if us % 3 == 0 { &mut one } else { &mut two };
            part.record(0, us * 7_000);
            all.record(0, us * 7_000);
        }
        one.add(&two);
        assert_eq!((one.count(), one.percentiles()), (all.count(), all.percentiles()));
    }

    #[test]
    fn what_was_seen_is_put_together_again_to_a_hundredth() {
        let mut latency = Latency::coarse();
        (1..=10_000).for_each(|us| latency.record(0, us * 1_000));
        let seen = latency.seen();
        assert!(seen.len() < 1_000, "{} values", seen.len());
        let (again, percentiles) = (Latency::of_seen(&seen), latency.percentiles());
        assert_eq!(again.count(), latency.count());
        for (got, expected) in [
            (again.percentiles().p99_us, percentiles.p99_us),
            (again.percentiles().p50_us, percentiles.p50_us),
        ] {
            assert!((got - expected).abs() <= expected * 0.015, "{got} for {expected}");
        }
        assert_eq!(Latency::of_seen(&[]).seen(), []);
    }

    /// A server answers in 1 ms, but stands still from second 4 to 5 of 10. At 1,000 messages a second a tenth of the
    /// messages falls into the pause, so p99 must be near its length. A client that measures from when it sent, and
    /// sends only when the last answer came, sees one slow answer among thousands.
    #[test]
    fn a_pause_of_the_server_is_not_omitted() {
        let pause = 4_000 * MS..5_000 * MS;
        let answer = |sent: u64| if pause.contains(&sent) { pause.end + MS } else { sent + MS };

        let mut paced = Latency::new();
        let mut schedule = Schedule::new(1_000, 0, 1);
        while let Some(due) = schedule.take(10_000 * MS - 1) {
            paced.record(due, answer(due));
        }
        let mut closed = Latency::new();
        let mut now = 0;
        while now < 10_000 * MS {
            closed.record(now, answer(now));
            now = answer(now);
        }
        assert_eq!(paced.count(), 10_000);
        check_near(paced.percentiles().p50_us, 1_000.0);
        check_near(paced.percentiles().p99_us, 902_000.0);
        check_near(closed.percentiles().p99_us, 1_000.0);
        check_near(closed.percentiles().max_us, 1_001_000.0);
    }
}
