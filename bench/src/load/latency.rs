//! Times to an answer, in a histogram of two digits.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub(super) struct Latency {
    histogram: Histogram<u32>,
    epoch: Instant,
}

impl Latency {
    /// Far beyond any deadline here; slower answers count as this.
    const MAX_NS: u64 = 60_000_000_000;

    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(100, Self::MAX_NS, 2).expect("the bounds are in order");
        Self { histogram, epoch: Instant::now() }
    }

    /// Nanoseconds since this histogram was made: stamps of 8 bytes instead of 16.
    pub(super) fn stamp(&self, at: Instant) -> u64 {
        (at - self.epoch).as_nanos() as u64
    }

    pub(super) fn record(&mut self, from: u64, until: u64, messages: u32) {
        self.histogram.saturating_record_n(until.saturating_sub(from), messages);
    }

    pub(super) fn clear(&mut self) {
        self.histogram.clear();
    }

    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile)).as_secs_f64() * 1e6
    }
}
