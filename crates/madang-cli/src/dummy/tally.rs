//! What a mode did, what went wrong, and how both are shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::judge::Fault;
use super::link::End;

/// Failures that are kept whole for the report; beyond it they are only counted.
const FAILURES_KEPT: usize = 20;

/// Counts of one client, or of all clients of a mode.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Connections that were open for messages.
    pub(crate) connections: u64,
    /// Messages said.
    pub(crate) sent: u64,
    /// Echoes that were right, in place and on time.
    pub(crate) verified: u64,
    /// Messages whose echo was rightly not waited for, because one side ended the connection on purpose.
    pub(crate) waived: u64,
    /// Connections that the server ended in order.
    pub(crate) closed: u64,
    /// Connections that the server reset.
    pub(crate) reset: u64,
    /// Hostile connections, each of which the server ended.
    pub(crate) repelled: u64,
    /// Clients that did not read, for whom the time was over before the server lost its patience.
    pub(crate) unjudged: u64,
    /// queue: clients that had to wait and were told where they stand, and those of them that lost their link and had their
    /// turn back.
    pub(crate) waited: u64,
    pub(crate) came_back: u64,
    /// queue: how many places anyone was let in before or behind its turn.
    pub(crate) out_of_order_most: u64,
    /// Messages to everybody that came.
    pub(crate) broadcasts: u64,
    /// The longest that a client who does not read was suffered.
    pub(crate) slowest_end_us: u64,
    /// Times that this machine had no local port left; the client waited a moment and went on.
    pub(crate) no_local_port: u64,
    /// The longest time from a message to its echo, where one client waits for it.
    pub(crate) slowest_echo_us: u64,
    /// How often each kind of failure was seen, in messages or connections.
    pub(crate) failed: BTreeMap<&'static str, u64>,
    /// The first failures, each in a line.
    pub(crate) failures: Vec<Failure>,
}

/// One thing that must not be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) client: u32,
    pub(crate) connection: u32,
    pub(crate) kind: &'static str,
    pub(crate) what: String,
}

/// One mode, when it is over.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) mode: &'static str,
    pub(crate) framing: &'static str,
    pub(crate) clients: u32,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

impl Tally {
    /// Counts a failure that concerns `weight` messages or connections.
    pub(crate) fn fail(&mut self, weight: u64, failure: Failure) {
        *self.failed.entry(failure.kind).or_default() += weight;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure);
        }
    }

    pub(crate) fn slowest(&mut self, echo: Duration) {
        self.slowest_echo_us = self.slowest_echo_us.max(u64::try_from(echo.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn out_of_order(&mut self, places: u64) {
        self.out_of_order_most = self.out_of_order_most.max(places);
    }

    pub(crate) fn slowest_end(&mut self, end: Duration) {
        self.slowest_end_us = self.slowest_end_us.max(u64::try_from(end.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what another client counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.sent += other.sent;
        self.verified += other.verified;
        self.waived += other.waived;
        self.closed += other.closed;
        self.reset += other.reset;
        self.repelled += other.repelled;
        self.unjudged += other.unjudged;
        self.waited += other.waited;
        self.came_back += other.came_back;
        self.out_of_order_most = self.out_of_order_most.max(other.out_of_order_most);
        self.broadcasts += other.broadcasts;
        self.slowest_end_us = self.slowest_end_us.max(other.slowest_end_us);
        self.no_local_port += other.no_local_port;
        self.slowest_echo_us = self.slowest_echo_us.max(other.slowest_echo_us);
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        let room = FAILURES_KEPT - self.failures.len();
        self.failures.extend(other.failures.into_iter().take(room));
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

impl Failure {
    pub(crate) fn of_fault(client: u32, connection: u32, fault: &Fault, context: &str) -> Self {
        Self { client, connection, kind: fault.kind(), what: format!("{fault}{context}") }
    }

    pub(crate) fn of_end(client: u32, connection: u32, end: &End, context: &str) -> Self {
        let kind = match end {
            End::Closed | End::Reset => "ended",
            End::Cut { .. } | End::Truncated => "cut",
            End::Silent => "silent",
            End::Malformed(_) => "malformed",
            End::Failed(_) => "socket",
        };
        Self { client, connection, kind, what: format!("{end}{context}") }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, framing, clients, seconds, seed, tally } = self;
        let verdict = if tally.is_clean() { "ok" } else { "FAILED" };
        write!(f, "{mode:<18} {verdict:<6} {framing}, {clients} clients, {seconds:.1} s, seed {seed}: ")?;
        write!(f, "{} connections, {} sent, {} verified", tally.connections, tally.sent, tally.verified)?;
        for (count, what) in [
            (tally.waived, "waived"),
            (tally.closed, "closed by the server"),
            (tally.reset, "reset by the server"),
            (tally.repelled, "hostile repelled"),
            (tally.unjudged, "not judged for want of time"),
            (tally.waited, "waited in the queue"),
            (tally.came_back, "had their turn back"),
            (tally.out_of_order_most, "places out of order at the most"),
            (tally.broadcasts, "messages to everybody"),
            (tally.no_local_port, "waits for a local port"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if tally.slowest_echo_us > 0 {
            write!(f, ", slowest echo {:.1} ms", tally.slowest_echo_us as f64 / 1e3)?;
        }
        if tally.slowest_end_us > 0 {
            write!(f, ", slowest end {:.1} s", tally.slowest_end_us as f64 / 1e6)?;
        }
        for (kind, count) in &tally.failed {
            write!(f, ", {count} {kind}")?;
        }
        for Failure { client, connection, kind, what } in &tally.failures {
            write!(f, "\n  {kind}: client {client}, connection {connection}: {what}")?;
        }
        if tally.failures.len() == FAILURES_KEPT {
            let all: u64 = tally.failed.values().sum();
            write!(
                f,
                "\n  only the first {FAILURES_KEPT} are shown; {all} messages or connections failed in all"
            )?;
        }
        Ok(())
    }
}
