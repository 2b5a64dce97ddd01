//! `madang load`: a client that loads a server as hard as it is told to, and measures.
//!
//! It stands on the engine's drivers and framings, and on none of its sessions: what it takes from the machine is small
//! against what a server takes. Every echo is compared with what was said.
//!
//! ```text
//!  Plan ──► Crowd, one a thread ──► Link ──► Stream ──► driver
//!                │ Schedule: when is a message due?
//!                ▼ Latency, Outcome ──► Report: table or JSON
//! ```
//!
//! Messages are *due*: in the closed loop as soon as an echo made room, paced at even times whatever the server does.
//! Latency counts from then, so that a server that stands still cannot keep its slow time out of the figures.

mod crowd;
mod failure;
pub(crate) mod latency;
mod link;
mod message;
mod outcome;
mod plan;
pub(crate) mod report;
mod schedule;
mod stream;
mod together;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use madang_driver::{DriverKind, UseDriver};
use tracing::Level;

use self::crowd::Crowd;
use self::latency::Latency;
use self::outcome::{INTERVAL, Interval, Outcome, Teller};
use self::plan::Plan;
use self::report::{Drive, Line, Live, Report, Run};
use self::together::Together;
use crate::driver::Driver;
use crate::framing::Framing;
use crate::signals::Signals;
use crate::{log, process};

/// Descriptors that a process needs besides its connections: standard streams, and a ring or poll and an event for each
/// thread.
const DESCRIPTORS_BESIDES: usize = 64;

/// Exit code 0: every connection was admitted, and every echo came and was right. 1: some were not. 2: it could not run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server; several, with commas, share the connections
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7777")]
    addr: Vec<SocketAddr>,
    /// Our own addresses, with commas: each carries some 28,000 connections to a server
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    sources: Vec<IpAddr>,
    /// Connections of all threads together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Threads, each with a driver of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// How messages are cut out of the stream
    #[arg(long, value_enum, default_value = "lan")]
    framing: Framing,
    /// Payload bytes of each message; from 9 on they carry a sequence number
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// Closed loop: messages outstanding on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536), conflicts_with = "rate")]
    depth: u32,
    /// Paced: messages a second over all connections, due at even times whatever the server does (best with uring:
    /// readiness wakes by the millisecond, and its lateness counts)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// The measured time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Traffic before the measured time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up_seconds: u64,
    /// How long it may take to connect all
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    ramp_seconds: u64,
    /// How late echoes may be at the end
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    patience_seconds: u64,
    /// What moves the bytes
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// io_uring: sockets live in the rings' own tables, past the descriptor limit (by itself where that is too low)
    #[arg(long)]
    own_file_table: bool,
    /// Say each half second how it goes
    #[arg(long)]
    live: bool,
    /// JSON instead of a table (with --live: one object a line, `live` or `report`)
    #[arg(long)]
    json: bool,
}

/// Loads, prints the report and gives the exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    log::show(Level::WARN);
    let plan = options.plan()?;
    let together = Together::new(plan.threads, Signals::listen()?);
    let (tell, told) = channel();
    let outcome = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for thread in 0..plan.threads {
            let teller = Teller::new(thread, options.live.then(|| tell.clone()));
            let load = Load { plan: &plan, together: &together, thread, teller };
            threads.push(scope.spawn(move || load.run()));
        }
        drop(tell);
        show_live(&told, plan.threads, options.json);
        threads.into_iter().map(joined).try_fold(Outcome::default(), |mut all, outcome| {
            all.add(outcome?);
            anyhow::Ok(all)
        })
    })?;
    let failed = outcome.failed > 0 || !outcome.failures.is_empty();
    let report = report(&plan, outcome);
    match (options.json, options.live) {
        (true, true) => println!("{}", serde_json::to_string(&Line::Report(report))?),
        (true, false) => println!("{}", serde_json::to_string_pretty(&report)?),
        (false, _) => print!("{report}"),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn joined(thread: ScopedJoinHandle<'_, anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Prints a line whenever all threads told an interval, until the last of them is done.
fn show_live(told: &Receiver<Interval>, threads: usize, json: bool) {
    let mut latest: Vec<Option<Interval>> = (0..threads).map(|_| None).collect();
    let mut seconds = 0.0;
    for interval in told {
        let thread = interval.thread;
        latest[thread] = Some(interval);
        if latest.iter().any(Option::is_none) {
            continue;
        }
        let mut live = Live { seconds, ..Live::default() };
        let mut latency = Latency::new();
        for interval in latest.iter_mut().filter_map(Option::take) {
            live.connections += interval.ready;
            live.failed += interval.failed;
            latency.add(&interval.latency);
        }
        live.messages_per_second = latency.count() as f64 / INTERVAL.as_secs_f64();
        live.latency = latency.percentiles();
        seconds += INTERVAL.as_secs_f64();
        match serde_json::to_string(&Line::Live(live.clone())) {
            Ok(line) if json => println!("{line}"),
            _ => println!("{live}"),
        }
    }
}

fn report(plan: &Plan, outcome: Outcome) -> Report {
    let target: Vec<_> = plan.targets.iter().map(SocketAddr::to_string).collect();
    let run = Run {
        connections: plan.connections as u32,
        size: plan.size,
        drive: plan.drive,
        seconds: outcome.seconds(),
        sent: outcome.sent,
        received: outcome.received,
        failed: outcome.failed,
        failures: outcome.failures,
        latency: outcome.latency.percentiles(),
    };
    let framing = plan.framing.name().to_owned();
    Report { target: target.join(", "), framing, driver: plan.driver.name().to_owned(), runs: vec![run] }
}

/// A thread until its driver's type is known.
struct Load<'a> {
    plan: &'a Plan,
    together: &'a Together,
    thread: usize,
    teller: Teller,
}

impl Load<'_> {
    fn run(self) -> anyhow::Result<Outcome> {
        let settings = crowd::driver_settings(self.plan, self.thread);
        let driver = self.plan.driver;
        driver.open(&settings, self).map_err(|(reason, this)| {
            this.together.arrived();
            anyhow!("the {driver} driver cannot be made: {reason}")
        })
    }
}

impl UseDriver for Load<'_> {
    type Output = Outcome;

    fn with<D: madang_driver::Driver>(self, driver: D) -> Outcome {
        Crowd::new(self.plan, self.together, self.thread, self.teller, driver).run()
    }
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        let longest = stream::longest(self.framing);
        if !(1..=longest).contains(&self.size) {
            bail!("--size: this framing carries 1 to {longest} bytes");
        }
        if self.threads > self.connections {
            bail!("--threads: more threads than connections");
        }
        if let Some(other) = self.sources.iter().find(|source| source.is_ipv4() != self.addr[0].is_ipv4()) {
            bail!("--sources: {other} is not of the server's family of addresses");
        }
        let driver = self.driver.kind().map_err(anyhow::Error::msg)?;
        let connections = self.connections as usize;
        let limit = process::raise_descriptor_limit().map_or(usize::MAX, |limit| limit as usize);
        let too_many = connections + DESCRIPTORS_BESIDES > limit;
        if too_many && driver != DriverKind::Uring {
            bail!(
                "--connections: this process may open {limit} files; raise the limit, or use several processes"
            );
        }
        Ok(Plan {
            targets: self.addr.clone(),
            sources: self.sources.clone(),
            connections,
            threads: self.threads as usize,
            framing: self.framing,
            driver,
            own_file_table: self.own_file_table || too_many,
            size: self.size,
            drive: match self.rate {
                Some(messages_per_second) => Drive::Paced { messages_per_second },
                None => Drive::Closed { depth: self.depth },
            },
            warm_up: Duration::from_secs(self.warm_up_seconds),
            measured: Duration::from_secs(self.seconds),
            ramp: Duration::from_secs(self.ramp_seconds),
            patience: Duration::from_secs(self.patience_seconds),
        })
    }
}
