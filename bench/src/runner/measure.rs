//! The rounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::contender::Contender;
use super::plan::{Load, Scenario};
use super::process::{LoadClient, Server, Stage};
use super::record::{IdleRow, Record, Round, Row, WindowRow, rounds};
use crate::host;
use crate::load::{Span, Window};

/// How a measurement runs.
#[derive(Clone, Debug)]
pub struct Method {
    /// Programs and CPUs.
    pub stage: Stage,
    /// Of each window.
    pub span: Span,
    /// A round counts only if no server was kept from its CPU for a larger share of its window.
    pub noise_max: f64,
    /// When to stop, between two rounds.
    pub until: Option<Instant>,
    /// Ctrl-C: stop, between two windows.
    pub interrupted: Arc<AtomicBool>,
}

/// Rounds between two fresh starts of all processes.
const GENERATION_ROUNDS: usize = 10;

/// A scenario on a machine that is never quiet ends after so many times its rounds.
const NOISY_FACTOR: usize = 3;

impl Method {
    /// Brings every scenario to its number of rounds, counting those that the record has already. Scenarios take turns by
    /// generation, so that a measurement that is stopped has something of each, spread over time.
    ///
    /// # Errors
    /// A process fails, or the record cannot be written.
    pub fn measure(&self, scenarios: &[Scenario], record: &mut Record) -> anyhow::Result<()> {
        loop {
            let mut worked = false;
            for scenario in scenarios {
                if self.is_over() {
                    return Ok(());
                }
                let contenders = self.present(scenario);
                if contenders.is_empty() || self.is_complete(scenario, record, &contenders) {
                    continue;
                }
                worked = true;
                let name = scenario.load.name();
                if let Load::Idle { connections } = scenario.load {
                    self.idle(scenario.load, connections, &contenders, record)
                } else {
                    self.generation(scenario, &contenders, record)
                }
                .with_context(|| format!("scenario {name}"))?;
            }
            if !worked {
                return Ok(());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Those whose program is there: the engine's server can be absent while it is being written.
    fn present(&self, scenario: &Scenario) -> Vec<Contender> {
        let built = |contender: &Contender| contender.is_built(&self.stage.programs);
        scenario.contenders.iter().copied().filter(built).collect()
    }

    fn is_complete(&self, scenario: &Scenario, record: &Record, contenders: &[Contender]) -> bool {
        if let Load::Idle { .. } = scenario.load {
            return contenders
                .iter()
                .all(|&contender| idle_rows(&record.rows, contender).count() >= scenario.rounds);
        }
        let rounds = rounds(&record.rows, scenario.load);
        let whole = |round: &&Round| contenders.iter().all(|contender| round.contains_key(contender));
        let quiet = rounds.values().filter(whole).filter(|round| is_quiet(round, self.noise_max)).count();
        quiet >= scenario.rounds || rounds.len() >= NOISY_FACTOR * scenario.rounds
    }

    /// Some rounds with fresh processes.
    fn generation(
        &self,
        scenario: &Scenario,
        contenders: &[Contender],
        record: &mut Record,
    ) -> anyhow::Result<()> {
        let load = scenario.load;
        let mut pairs = Vec::new();
        for &contender in contenders {
            let server = Server::start(&self.stage, contender, load.mode())?;
            let client = LoadClient::start(&self.stage, &server, &load.arguments())
                .with_context(|| format!("loading {}", contender.name()))?;
            pairs.push((contender, client, server));
        }
        let first = rounds(&record.rows, load).keys().next_back().map_or(0, |last| last + 1);
        for round in first..first + GENERATION_ROUNDS {
            if self.is_over() || self.is_complete(scenario, record, contenders) {
                break;
            }
            let mut windows = Round::new();
            let order: Vec<usize> =
                if round % 2 == 0 { (0..pairs.len()).collect() } else { (0..pairs.len()).rev().collect() };
            for index in order {
                let (contender, client, _) = &mut pairs[index];
                let window =
                    client.window(self.span).with_context(|| format!("loading {}", contender.name()))?;
                windows.insert(*contender, window);
                if self.interrupted.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            progress(load, round, &windows, self.noise_max);
            for (contender, window) in windows {
                record.add(Row::Window(WindowRow { load, round, contender, window }))?;
            }
        }
        Ok(())
    }

    /// One reading of each contender's memory: with one session whose traffic has been through all of the server's
    /// receive memory, then with all sessions after one 200 B echo each.
    fn idle(
        &self,
        load: Load,
        connections: usize,
        contenders: &[Contender],
        record: &mut Record,
    ) -> anyhow::Result<()> {
        /// At 4 KiB a message some 200 MiB, several times what any server here receives into.
        const CYCLE: Span = Span { warm_up: Duration::ZERO, measure: Duration::from_secs(1) };
        const AT_MOST: usize = 100;

        for &contender in contenders {
            let server = Server::start(&self.stage, contender, load.mode())?;
            let one = ["echo", "--connections", "1", "--size", "4096"].map(str::to_owned);
            let mut one = LoadClient::start(&self.stage, &server, &one)?;
            one.window(CYCLE)?;
            let one_bytes = host::resident_bytes(server.process())?;
            let mut many = LoadClient::start(&self.stage, &server, &load.arguments())?;
            many.sweep(AT_MOST)?;
            let many_bytes = host::resident_bytes(server.process())?;
            let row = IdleRow { load, contender, one_bytes, many_bytes, sessions: connections - 1 };
            eprintln!("{} {}: {:.0} B a session", load.name(), contender.name(), row.bytes_per_session());
            record.add(Row::Idle(row))?;
        }
        Ok(())
    }
}

/// Readings of one contender's memory.
pub(super) fn idle_rows(rows: &[Row], contender: Contender) -> impl Iterator<Item = &IdleRow> {
    rows.iter().filter_map(move |row| match row {
        Row::Idle(row) if row.contender == contender => Some(row),
        _ => None,
    })
}

/// Whether every server of a round had its CPU to itself.
pub(super) fn is_quiet(round: &Round, noise_max: f64) -> bool {
    round.values().all(|window| noise(window) <= noise_max)
}

/// The share of the window in which server or client waited for their CPUs.
fn noise(window: &Window) -> f64 {
    window.server_waited_ns.max(window.client_waited_ns) as f64 / window.wall_ns as f64
}

fn progress(load: Load, round: usize, windows: &Round, noise_max: f64) {
    let figures: BTreeMap<_, _> = windows.iter().map(|(who, window)| (who.name(), window)).collect();
    let text: Vec<String> = figures
        .iter()
        .map(|(who, window)| format!("{who} {:.0} ns", window.server_ns_per_message()))
        .collect();
    let noisy = if is_quiet(windows, noise_max) { "" } else { " (noisy)" };
    eprintln!("{} round {round}: {}{noisy}", load.name(), text.join(", "));
}
