//! What one thread of a run saw, while it goes on and at its end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::Sender;
use std::time::Duration;

use madang_driver::Time;

use super::latency::Latency;
use super::report::Seals;

/// Counts of the measured time.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The measured time, in ns of the run's clock. Empty until the messages start.
    pub(crate) window: Range<u64>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Messages that the server sent to everybody.
    pub(crate) broadcasts: u64,
    /// Of all messages that were *due* in the window, whenever their echo came.
    pub(crate) latency: Latency,
    /// Of the whole run, from the first log-in to the end; none on plain connections.
    pub(crate) seals: Option<Seals>,
    /// Connections that failed at any time.
    pub(crate) failed: u64,
    /// The same by reason.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Default for Outcome {
    fn default() -> Self {
        let (latency, failures) = (Latency::new(), BTreeMap::new());
        Self { window: 0..0, sent: 0, received: 0, broadcasts: 0, latency, seals: None, failed: 0, failures }
    }
}

impl Outcome {
    pub(crate) fn said(&mut self, now_ns: u64, messages: u64) {
        if self.window.contains(&now_ns) {
            self.sent += messages;
        }
    }

    pub(crate) fn broadcasts(&mut self, messages: u64, now_ns: u64) {
        if self.window.contains(&now_ns) {
            self.broadcasts += messages;
        }
    }

    pub(crate) fn echo(&mut self, due_ns: u64, now_ns: u64) {
        self.received += u64::from(self.window.contains(&now_ns));
        self.lost(due_ns, now_ns);
    }

    /// No echo will come: the time that it was waited for is a latency like another, or the worst would be left out.
    pub(crate) fn lost(&mut self, due_ns: u64, now_ns: u64) {
        if self.window.contains(&due_ns) {
            self.latency.record(due_ns, now_ns);
        }
    }

    /// Adds the records of a connection, or of many.
    pub(crate) fn seal(&mut self, more: Option<Seals>) {
        let Some(more) = more else { return };
        let Seals { records_out, messages_out, records_in, messages_in } = self.seals.get_or_insert_default();
        *records_out += more.records_out;
        *messages_out += more.messages_out;
        *records_in += more.records_in;
        *messages_in += more.messages_in;
    }

    /// The measured time is over, perhaps earlier than planned.
    pub(crate) fn end(&mut self, now_ns: u64) {
        self.window.end = self.window.end.min(now_ns).max(self.window.start);
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.window.end - self.window.start) as f64 / 1e9
    }

    /// Adds what another thread saw at the same time.
    pub(crate) fn add(&mut self, other: Self) {
        self.window = self.window.start.max(other.window.start)..self.window.end.max(other.window.end);
        self.sent += other.sent;
        self.received += other.received;
        self.broadcasts += other.broadcasts;
        self.latency.add(&other.latency);
        self.seal(other.seals);
        self.failed += other.failed;
        for (reason, count) in other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
    }
}

/// What a thread saw since it last told.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) who: Who,
    /// Connections that are admitted, or visitors, at its end.
    pub(crate) here: usize,
    pub(crate) failed: u64,
    /// Of echoes, or of log-ins.
    pub(crate) latency: Latency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The crowd's thread of this number.
    Thread(usize),
    Visitors,
}

/// Tells the intervals of one thread to whoever listens, if anybody does.
#[derive(Debug)]
pub(crate) struct Teller {
    who: Who,
    every: Duration,
    to: Option<Sender<Interval>>,
    /// Valid after the first call.
    next: Time,
    latency: Latency,
}

impl Teller {
    pub(crate) fn new(who: Who, every: Duration, to: Option<Sender<Interval>>) -> Self {
        Self { who, every, to, next: Time::ZERO, latency: Latency::coarse() }
    }

    pub(crate) fn took(&mut self, due_ns: u64, now_ns: u64) {
        if self.to.is_some() {
            self.latency.record(due_ns, now_ns);
        }
    }

    /// Tells when it is time to.
    pub(crate) fn tell(&mut self, now: Time, here: usize, failed: u64) {
        let Some(to) = &self.to else { return };
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        let latency = std::mem::replace(&mut self.latency, Latency::coarse());
        let interval = Interval { who: self.who, here, failed, latency };
        if to.send(interval).is_err() {
            self.to = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_by_when_a_message_was_due_and_throughput_by_when_its_echo_came() {
        let mut outcome = Outcome { window: 100..200, ..Outcome::default() };
        // Before, across the start, within, across the end, after.
        for (due, now) in [(10, 90), (90, 110), (110, 120), (190, 260), (210, 220)] {
            outcome.echo(due, now);
        }
        outcome.lost(150, 10_000);
        outcome.said(199, 2);
        outcome.said(200, 1);
        assert_eq!((outcome.received, outcome.latency.count(), outcome.sent), (2, 3, 2));
        assert!(outcome.latency.percentiles().max_us > 9.0);
        outcome.end(150);
        assert!((outcome.seconds() - 50e-9).abs() < 1e-12);
    }
}
