//! What a load run did, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::latency::Percentiles;
use super::visitors::Came;

/// How the clients were driven; it says what the latencies mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Drive {
    /// Each connection keeps so many messages outstanding: the server sets the pace. Latency is from when an echo made
    /// room for the message, and a slow server is asked less often: good for throughput, flattering for percentiles.
    Closed { depth: u32 },
    /// So many messages a second over all connections, due at even times whatever the server does. Latency is from
    /// when a message was due.
    Paced { messages_per_second: u64 },
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) connections: u32,
    /// Payload bytes of each message.
    pub(crate) size: usize,
    pub(crate) drive: Drive,
    /// The measured time, without warm-up.
    pub(crate) seconds: f64,
    /// Messages sent, and echoes received, within the measured time.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Connections that ended, or answered wrongly, before the run did.
    pub(crate) failed: u64,
    /// What happened to them, by how often.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) latency: Percentiles,
    /// WAN: records of the whole run, and the messages in them.
    #[serde(default)]
    pub(crate) seals: Option<Seals>,
    /// Messages that the server sent to everybody and that nobody asked for.
    #[serde(default)]
    pub(crate) broadcasts: u64,
    /// Who came beside the connections that were measured.
    #[serde(default)]
    pub(crate) visitors: Vec<Came>,
}

/// Records and the messages under their seals, ours and the server's. The engine's own words, such as log-in and welcome,
/// lie in records too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seals {
    pub(crate) records_out: u64,
    pub(crate) messages_out: u64,
    pub(crate) records_in: u64,
    pub(crate) messages_in: u64,
}

/// Runs side by side: `Display` is the table, serialization the JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) framing: String,
    pub(crate) driver: String,
    pub(crate) runs: Vec<Run>,
}

/// How a run goes: each half second, or each tenth of one where a program guides it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Since it started to connect.
    pub(crate) seconds: f64,
    /// Connections that are admitted now.
    pub(crate) connections: usize,
    /// Connections that failed so far.
    pub(crate) failed: u64,
    /// Of the time since the last one, as is all below.
    pub(crate) messages_per_second: f64,
    pub(crate) latency: Percentiles,
    /// Each latency in ns, and how often it was, to a hundredth: for who adds several of these.
    #[serde(default)]
    pub(crate) echoes: Vec<(u64, u64)>,
    /// Those beside the connections that are here, and how long log-ins of theirs took.
    #[serde(default)]
    pub(crate) visitors: usize,
    #[serde(default)]
    pub(crate) log_ins: Vec<(u64, u64)>,
}

/// One line of the JSON that a run prints while it goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Live(Live),
    Report(Report),
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, connections, failed, messages_per_second, latency, visitors, .. } = self;
        let (p50, p99) = (micros(latency.p50_us), micros(latency.p99_us));
        write!(f, "{seconds:6.1} s  {connections} connections, {messages_per_second:.0} messages/s, ")?;
        write!(f, "p50 {p50} µs, p99 {p99} µs, {failed} failed")?;
        if *visitors > 0 { write!(f, ", {visitors} beside them") } else { Ok(()) }
    }
}

impl Run {
    pub(crate) fn messages_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.received as f64 / self.seconds } else { 0.0 }
    }

    /// Payload bytes that came back a second, in MiB.
    pub(crate) fn mebibytes_per_second(&self) -> f64 {
        self.messages_per_second() * self.size as f64 / (1024.0 * 1024.0)
    }

    fn cells(&self) -> [String; 11] {
        let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self.latency;
        [
            self.connections.to_string(),
            self.size.to_string(),
            self.drive.to_string(),
            format!("{:.0}", self.messages_per_second()),
            format!("{:.1}", self.mebibytes_per_second()),
            micros(p50_us),
            micros(p90_us),
            micros(p99_us),
            micros(p999_us),
            micros(max_us),
            self.failed.to_string(),
        ]
    }
}

const HEADINGS: [&str; 11] = [
    "conns",
    "bytes",
    "drive",
    "msg/s",
    "MiB/s",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
    "max µs",
    "failed",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> =
            std::iter::once(HEADINGS.map(String::from)).chain(self.runs.iter().map(Run::cells)).collect();
        writeln!(f, "{} ({}, from {})", self.target, self.framing, self.driver)?;
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                line += &format!("{cell:>width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for (reason, count) in self.runs.iter().flat_map(|run| &run.failures) {
            writeln!(f, "{count} × {reason}")?;
        }
        for run in &self.runs {
            if let Some(seals) = run.seals {
                writeln!(f, "{seals}")?;
            }
            if run.broadcasts > 0 {
                writeln!(f, "{} messages to everybody", run.broadcasts)?;
            }
            for came in &run.visitors {
                writeln!(f, "{came}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records_out, messages_out, records_in, messages_in } = self;
        let under = |messages: u64, records: u64| messages as f64 / records.max(1) as f64;
        write!(
            f,
            "{records_out} records out ({:.2} messages under each), ",
            under(*messages_out, *records_out)
        )?;
        write!(f, "{records_in} in ({:.2})", under(*messages_in, *records_in))
    }
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { depth } => write!(f, "depth {depth}"),
            Self::Paced { messages_per_second } => write!(f, "{messages_per_second}/s"),
        }
    }
}

/// A tenth of a microsecond says something below 100 µs, and is noise above.
fn micros(us: f64) -> String {
    if us < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let latency = Percentiles {
            p50_us: 81.25,
            p90_us: 99.94,
            p99_us: 100.4,
            p999_us: 2_500.6,
            max_us: 10_000.0,
            mean_us: 90.0,
        };
        let closed = Run {
            connections: 1_000,
            size: 32,
            drive: Drive::Closed { depth: 16 },
            seconds: 2.0,
            sent: 2_000_016,
            received: 2_000_000,
            failed: 0,
            failures: BTreeMap::new(),
            seals: None,
            broadcasts: 0,
            visitors: vec![],
            latency,
        };
        let drive = Drive::Paced { messages_per_second: 100_000 };
        let failures = [("ended by the server".to_owned(), 3)].into();
        let seals =
            Some(Seals { records_out: 1_000, messages_out: 2_500, records_in: 800, messages_in: 2_400 });
        let paced =
            Run { drive, seals, size: 4_096, received: 200_000, failed: 3, failures, ..closed.clone() };
        let (target, framing, driver) = ("127.0.0.1:7777".into(), "be32".into(), "uring".into());
        Report { target, framing, driver, runs: vec![closed, paced] }
    }

    #[test]
    fn the_table_lines_up() {
        let expected = "\
127.0.0.1:7777 (be32, from uring)
conns  bytes     drive    msg/s  MiB/s  p50 µs  p90 µs  p99 µs  p99.9 µs  max µs  failed
 1000     32  depth 16  1000000   30.5    81.2    99.9     100      2501   10000       0
 1000   4096  100000/s   100000  390.6    81.2    99.9     100      2501   10000       3
3 × ended by the server
1000 records out (2.50 messages under each), 800 in (3.00)
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn json_carries_every_figure_with_its_unit() {
        let json = serde_json::to_value(report()).expect("plain data");
        let run = &json["runs"][1];
        assert_eq!(run["drive"], serde_json::json!({ "paced": { "messages_per_second": 100_000 } }));
        assert_eq!(run["latency"]["p999_us"], 2_500.6);
        assert_eq!(run["seals"]["records_in"], 800);
        assert_eq!((&run["received"], &run["failed"]), (&200_000.into(), &3.into()));
    }

    #[test]
    fn a_run_of_no_time_has_no_rate() {
        let run = Run { seconds: 0.0, ..report().runs[0].clone() };
        assert_eq!((run.messages_per_second(), run.mebibytes_per_second()), (0.0, 0.0));
    }
}
