//! One measurement, and when it starts and ends.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::latency::Latency;
use crate::host::CpuTime;

/// How long to load before measuring, and how long to measure. Both last longer where the load itself is slow: what all
/// connections have outstanding must have come back once before, and twice within, or a window would show the part of
/// the connections that were served first.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Loads caches, fills queues; not counted.
    pub warm_up: Duration,
    /// The window itself.
    pub measure: Duration,
}

impl Span {
    /// However slow the load, warm-up and window end after this.
    const LONGEST: Duration = Duration::from_secs(5);
    const WARM_UP_ROTATIONS: u64 = 1;
    const MEASURE_ROTATIONS: u64 = 2;
}

/// What one window gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    /// Messages that came back: echoed, delivered to a receiver, or connections served.
    pub messages: u64,
    /// Length of the window.
    pub wall_ns: u64,
    /// CPU time of all the server's threads.
    pub server_ns: u64,
    /// Time that the server was ready while something else had its CPU. More than a few percent: a noisy machine.
    pub server_waited_ns: u64,
    /// CPU time of the kernel's network thread on the server's CPU, which is in nobody else's figure.
    pub softirq_ns: u64,
    /// CPU time that the client was ready but did not get.
    pub client_waited_ns: u64,
    /// Median time to an answer, in microseconds. What it is measured from depends on the load.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Window {
    /// The figure that everything is about. NaN for a window without messages.
    #[must_use]
    pub fn server_ns_per_message(&self) -> f64 {
        self.server_ns as f64 / self.messages as f64
    }

    /// Messages per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 * 1e9 / self.wall_ns as f64
    }
}

/// Whose CPU time is read around a window.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The server's process.
    pub server: u32,
    /// The kernel's network thread on the server's CPU.
    pub softirq: Option<u32>,
}

impl Probe {
    fn read(self) -> anyhow::Result<Reading> {
        let server = CpuTime::of(self.server).context("the server is gone")?;
        let softirq = self.softirq.and_then(|thread| CpuTime::of(thread).ok()).unwrap_or_default();
        let client = CpuTime::of(std::process::id())?;
        Ok(Reading { at: Instant::now(), server, softirq, client })
    }
}

struct Reading {
    at: Instant,
    server: CpuTime,
    softirq: CpuTime,
    client: CpuTime,
}

/// Walks a load through warm-up and window: the load calls [`Stopwatch::look`] each turn until it says to stop.
pub(super) struct Stopwatch {
    probe: Probe,
    span: Span,
    /// Messages outstanding at a time.
    rotation: u64,
    started: (Instant, u64),
    opened: Option<(Reading, u64)>,
    closed: Option<(Reading, u64)>,
}

impl Stopwatch {
    /// `messages` is the load's running count, `rotation` how many it has outstanding at a time.
    pub(super) fn start(probe: Probe, span: Span, messages: u64, rotation: u64) -> Self {
        Self { probe, span, rotation, started: (Instant::now(), messages), opened: None, closed: None }
    }

    /// Opens or closes the window if it is time. False: stop loading.
    pub(super) fn look(
        &mut self,
        now: Instant,
        messages: u64,
        latency: &mut Latency,
    ) -> anyhow::Result<bool> {
        let over = |(since, count): (Instant, u64), at_least: Duration, rotations: u64| {
            let elapsed = now.saturating_duration_since(since);
            elapsed >= at_least && (messages - count >= rotations * self.rotation || elapsed >= Span::LONGEST)
        };
        match &self.opened {
            None if over(self.started, self.span.warm_up, Span::WARM_UP_ROTATIONS) => {
                latency.clear();
                self.opened = Some((self.probe.read()?, messages));
            }
            Some((opened, first))
                if over((opened.at, *first), self.span.measure, Span::MEASURE_ROTATIONS) =>
            {
                self.closed = Some((self.probe.read()?, messages));
                return Ok(false);
            }
            _ => {}
        }
        Ok(true)
    }

    /// The window, once `look` said to stop.
    pub(super) fn window(self, latency: &Latency) -> anyhow::Result<Window> {
        let ((opened, first), (closed, last)) =
            self.opened.zip(self.closed).context("the load stopped before its window closed")?;
        let server = closed.server.since(opened.server);
        Ok(Window {
            messages: last - first,
            wall_ns: (closed.at - opened.at).as_nanos() as u64,
            server_ns: server.ran_ns,
            server_waited_ns: server.waited_ns,
            softirq_ns: closed.softirq.since(opened.softirq).ran_ns,
            client_waited_ns: closed.client.since(opened.client).waited_ns,
            p50_us: latency.quantile_us(0.5),
            p99_us: latency.quantile_us(0.99),
            max_us: latency.quantile_us(1.0),
        })
    }
}
