//! A record as tables for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::contender::Contender;
use super::judge::{Limits, Ratio, Verdict, median};
use super::measure::{idle_rows, is_quiet};
use super::plan::{Load, Scenario};
use super::record::{Head, Round, Row, rounds};
use crate::load::Window;

/// Everything that a record says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The pieces it was measured in.
    pub heads: Vec<Head>,
    /// One for each load that has quiet rounds.
    pub loads: Vec<LoadReport>,
    /// Bytes of an idle session (the median of the readings).
    pub idle: BTreeMap<Contender, f64>,
    /// The limits and what they came to.
    pub limits: Vec<LimitReport>,
}

/// What one load gave.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Its name.
    pub name: String,
    /// What it was.
    pub load: Load,
    /// Rounds that were left out because something else used the CPUs.
    pub noisy_rounds: usize,
    /// The servers.
    pub servers: BTreeMap<Contender, ServerReport>,
}

/// What one load gave for one server: medians over the quiet rounds.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReport {
    /// Windows that the medians are of.
    pub windows: usize,
    /// Server CPU per message.
    pub ns_per_message: f64,
    /// The same, paired with each of the others.
    pub ratio_to: BTreeMap<Contender, Ratio>,
    /// Messages per second.
    pub rate: f64,
    /// Median latency.
    pub p50_us: f64,
    /// Its 99th percentile.
    pub p99_us: f64,
    /// Their quotient, window by window: 1 is a server that serves all alike.
    pub p99_over_p50: f64,
    /// Share of its CPU that the server used. Far below 1 in a closed loop: the client was the bottleneck.
    pub busy: f64,
}

/// A limit and what it came to.
#[derive(Clone, Debug, Serialize)]
pub struct LimitReport {
    /// Load, or `idle`.
    pub load: String,
    /// Ours.
    pub subject: Contender,
    /// What is limited, in words.
    pub what: String,
    /// The limit.
    pub limit: f64,
    /// What was measured.
    pub measured: f64,
    /// Its 95 % interval and the rounds, where it is a ratio.
    pub ratio: Option<Ratio>,
    /// Kept?
    pub verdict: Verdict,
}

impl Report {
    /// Reads `rows`. Rounds with more noise than `noise_max` do not count.
    #[must_use]
    pub fn new(rows: &[Row], scenarios: &[Scenario], limits: &Limits, noise_max: f64) -> Self {
        let mut heads: Vec<Head> = Vec::new();
        for row in rows {
            if let Row::Head(head) = row {
                if !heads.contains(head) {
                    heads.push(head.clone());
                }
            }
        }
        let loads: Vec<LoadReport> =
            scenarios.iter().filter_map(|scenario| LoadReport::new(rows, scenario, noise_max)).collect();
        let contenders = scenarios.iter().flat_map(|scenario| scenario.contenders.iter().copied());
        let idle: BTreeMap<Contender, f64> = contenders
            .filter_map(|contender| {
                let bytes: Vec<f64> = idle_rows(rows, contender).map(|row| row.bytes_per_session()).collect();
                Some((contender, median(&bytes)?))
            })
            .collect();
        let limits = judge(&loads, &idle, limits);
        Self { heads, loads, idle, limits }
    }

    /// As tables for `docs/performance.md`.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes everything");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for head in &self.heads {
            writeln!(out, "- {}, commit {}: {}", head.date, head.commit, head.machine)?;
            writeln!(out, "  `{}`", head.command)?;
        }
        if !self.limits.is_empty() {
            writeln!(out, "\n### Limits\n")?;
            writeln!(
                out,
                "| load | server | what | limit | measured | 95 % | rounds | |\n|---|---|---|--:|--:|---|--:|---|"
            )?;
            for limit in &self.limits {
                let (interval, rounds) = limit.ratio.map_or((String::new(), String::new()), |ratio| {
                    (format!("{:.3}–{:.3}", ratio.low, ratio.high), ratio.rounds.to_string())
                });
                writeln!(
                    out,
                    "| {} | {} | {} | {} | {} | {interval} | {rounds} | {} |",
                    limit.load,
                    limit.subject.name(),
                    limit.what,
                    limit.limit,
                    if limit.measured < 100.0 {
                        format!("{:.3}", limit.measured)
                    } else {
                        format!("{:.0}", limit.measured)
                    },
                    limit.verdict.name(),
                )?;
            }
        }
        for load in &self.loads {
            load.write(out)?;
        }
        if !self.idle.is_empty() {
            writeln!(out, "\n### Idle session, resident bytes\n\n| server | bytes |\n|---|--:|")?;
            for (contender, bytes) in &self.idle {
                writeln!(out, "| {} | {bytes:.0} |", contender.name())?;
            }
        }
        Ok(())
    }
}

impl LoadReport {
    fn new(rows: &[Row], scenario: &Scenario, noise_max: f64) -> Option<Self> {
        let rounds = rounds(rows, scenario.load);
        let quiet: Vec<&Round> = rounds.values().filter(|round| is_quiet(round, noise_max)).collect();
        let servers: BTreeMap<_, _> = scenario
            .contenders
            .iter()
            .filter_map(|&contender| Some((contender, ServerReport::new(&quiet, scenario, contender)?)))
            .collect();
        let noisy_rounds = rounds.len() - quiet.len();
        (!rounds.is_empty()).then(|| Self {
            name: scenario.load.name(),
            load: scenario.load,
            noisy_rounds,
            servers,
        })
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        // A reference earns its column by having taken part.
        let references: Vec<Contender> =
            [Contender::Floor, Contender::TokioTuned, Contender::TokioCodec, Contender::MadangUring]
                .into_iter()
                .filter(|reference| self.servers.contains_key(reference))
                .collect();
        writeln!(out, "\n### {}\n", self.name)?;
        if self.noisy_rounds > 0 {
            writeln!(out, "{} noisy rounds left out.\n", self.noisy_rounds)?;
        }
        write!(out, "| server | CPU ns/message |")?;
        for reference in &references {
            write!(out, " / {} |", reference.name())?;
        }
        writeln!(out, " messages/s | p50 µs | p99 µs | p99/p50 | busy | windows |")?;
        writeln!(out, "|---|--:|{}--:|--:|--:|--:|--:|--:|", "--:|".repeat(references.len()))?;
        for (contender, server) in &self.servers {
            write!(out, "| {} | {:.0} |", contender.name(), server.ns_per_message)?;
            for reference in &references {
                match server.ratio_to.get(reference) {
                    Some(ratio) => write!(out, " {:.2} |", ratio.median)?,
                    None => write!(out, " – |")?,
                }
            }
            writeln!(
                out,
                " {:.0} | {:.0} | {:.0} | {:.2} | {:.0} % | {} |",
                server.rate,
                server.p50_us,
                server.p99_us,
                server.p99_over_p50,
                100.0 * server.busy,
                server.windows,
            )?;
        }
        Ok(())
    }
}

impl ServerReport {
    fn new(rounds: &[&Round], scenario: &Scenario, contender: Contender) -> Option<Self> {
        let windows: Vec<&Window> = rounds.iter().filter_map(|round| round.get(&contender)).collect();
        let middle = |figure: &dyn Fn(&Window) -> f64| {
            median(&windows.iter().map(|window| figure(window)).collect::<Vec<f64>>())
        };
        let others = scenario.contenders.iter().filter(|&&other| other != contender);
        Some(Self {
            windows: windows.len(),
            ns_per_message: middle(&Window::server_ns_per_message)?,
            ratio_to: others
                .filter_map(|&other| Some((other, Ratio::of(rounds.iter().copied(), contender, other)?)))
                .collect(),
            rate: middle(&Window::rate)?,
            p50_us: middle(&|window| window.p50_us)?,
            p99_us: middle(&|window| window.p99_us)?,
            p99_over_p50: middle(&|window| window.p99_us / window.p50_us)?,
            busy: middle(&|window| window.server_ns as f64 / window.wall_ns as f64)?,
        })
    }
}

/// The limits that there are figures for.
fn judge(loads: &[LoadReport], idle: &BTreeMap<Contender, f64>, limits: &Limits) -> Vec<LimitReport> {
    let mut judged = Vec::new();
    for load in loads {
        for (&subject, against) in limits.ratio.get(&load.name).into_iter().flatten() {
            for (&base, &limit) in against {
                let ratio = load.servers.get(&subject).and_then(|server| server.ratio_to.get(&base));
                judged.extend(ratio.map(|&ratio| LimitReport {
                    load: load.name.clone(),
                    subject,
                    what: format!("CPU / {}", base.name()),
                    limit,
                    measured: ratio.median,
                    ratio: Some(ratio),
                    verdict: ratio.verdict(limit),
                }));
            }
        }
        if let Some(&limit) = limits.fairness.get(&load.name) {
            let ours = load.servers.iter().filter(|(contender, _)| contender.is_ours());
            judged.extend(ours.map(|(&subject, server)| LimitReport {
                load: load.name.clone(),
                subject,
                what: "p99 / p50".to_owned(),
                limit,
                measured: server.p99_over_p50,
                ratio: None,
                verdict: fairness(server, limit),
            }));
        }
    }
    for (&subject, &limit) in &limits.idle {
        judged.extend(idle.get(&subject).map(|&measured| LimitReport {
            load: "idle".to_owned(),
            subject,
            what: "bytes a session".to_owned(),
            limit,
            measured,
            ratio: None,
            verdict: plain(measured, limit),
        }));
    }
    judged
}

/// p99 / p50 needs no pairing, but one busy neighbour can double it: a few windows say nothing.
fn fairness(server: &ServerReport, limit: f64) -> Verdict {
    const WINDOWS_MIN: usize = 10;
    if server.windows < WINDOWS_MIN { Verdict::NotResolved } else { plain(server.p99_over_p50, limit) }
}

/// For figures that hardly scatter.
fn plain(measured: f64, limit: f64) -> Verdict {
    if measured <= limit { Verdict::Met } else { Verdict::Missed }
}
