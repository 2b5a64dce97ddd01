//! `madang load`: a client that loads a server as hard as it is told to, and measures.
//!
//! It stands on the engine's drivers and framings, and on none of its sessions: what it takes from the machine is small
//! against what a server takes. Every echo is compared with what was said.
//!
//! ```text
//!  Plan ──► Crowd, one a thread ──► Link ──► Stream ──► driver
//!   │ └──► Visitors, a thread: strangers, garbage, log-ins ──► driver
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
pub(crate) mod stream;
mod together;
pub(crate) mod visitors;
mod words;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use madang::wire::wan::{PublicKey, Suite};
use madang_driver::{DriverKind, UseDriver};
use tracing::Level;

use self::crowd::Crowd;
use self::latency::Latency;
use self::outcome::{Interval, Outcome, Teller, Who};
use self::plan::Plan;
use self::report::{Drive, Line, Live, Report, Run};
use self::stream::Speech;
use self::stream::wan::Pinned;
use self::together::Together;
use self::visitors::{Came, Visitors, Visits};
use self::words::Words;
use crate::driver::Driver;
use crate::framing::Framing;
use crate::signals::Signals;
use crate::{log, process};

/// How often a run says how it goes: as often as people read.
const TELL_EACH: Duration = Duration::from_millis(500);

/// As often where a program guides the run: a burst of the machine's, some milliseconds long, leaves most of such intervals
/// alone.
const TELL_GUIDE_EACH: Duration = Duration::from_millis(100);

/// Descriptors that a process needs besides its connections: standard streams, and a ring or poll and an event for each
/// thread.
const DESCRIPTORS_BESIDES: usize = 64;

/// The longest token of a log-in (docs/wire.md).
const TOKEN_MAX: usize = 2_048;

/// Exit code 0: every connection was admitted, and every echo came and was right. 1: some were not. 2: it could not run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server; several, with commas, share the connections
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7777")]
    addr: Vec<SocketAddr>,
    /// Our own addresses, with commas: each carries some 28,000 connections to a server
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    sources: Vec<IpAddr>,
    /// As many addresses of our own from 127.1.0.1 on: a crowd that does not come from one place
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=60_000), conflicts_with = "sources")]
    spread: Option<u32>,
    /// Connections of all threads together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Threads, each with a driver of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// How messages are cut out of the stream
    #[arg(long, value_enum, default_value = "lan")]
    framing: Framing,
    /// A WAN server, and the public key that it must prove to have: encrypted in place of a framing
    #[arg(long, value_name = "PUBLIC_KEY", conflicts_with = "framing", value_parser = public_key)]
    wan: Option<PublicKey>,
    /// WAN: ChaCha20-Poly1305 in place of AES-GCM
    #[arg(long, requires = "wan")]
    chachapoly: bool,
    /// WAN: what the log-ins say
    #[arg(long, default_value = "", requires = "wan")]
    token: String,
    /// Beside the connections: so many strangers at a time, who say nothing; each that is sent away is followed by another
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    strangers: u32,
    /// Every second stranger says a byte of a greeting now and then
    #[arg(long)]
    dribble: bool,
    /// Beside the connections: so many a second that say no greeting but garbage
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    garbage: Option<u64>,
    /// Beside the connections: so many a second that log in, are welcome and go
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    storm: Option<u64>,
    /// With `--storm`: handshakes to begin before the run, and again before each time that they come, in place of those of
    /// the whole run (some KiB each)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    prepared: Option<u64>,
    /// Follow words on standard input, one a line: `come` and `rest` say whether those beside the connections come, `end`
    /// ends the run
    #[arg(long)]
    words: bool,
    /// Keep our threads to this processor, so that the server may have the others
    #[arg(long)]
    core: Option<usize>,
    /// Our threads' share of the processors, as Unix has it: up to 19, which gives way to everybody
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(-20..=19), allow_negative_numbers = true)]
    nice: i32,
    /// Our threads run only when nobody else wants their processor
    #[arg(long, conflicts_with = "nice")]
    idle: bool,
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
    /// Say each half second how it goes, or each tenth of one with --words
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
    let signals = Signals::listen()?;
    let words = if options.words { Words::listen(signals.clone()) } else { Words::none() };
    let together = Together::new(plan.threads + usize::from(plan.visits.any()), signals, words);
    let (tell, told) = channel();
    let (outcome, visitors) = std::thread::scope(|scope| {
        let teller = |who| Teller::new(who, options.tell_each(), options.live.then(|| tell.clone()));
        let visitors = plan.visits.any().then(|| {
            let visiting = Visiting { plan: &plan, together: &together, teller: teller(Who::Visitors) };
            scope.spawn(move || visiting.run())
        });
        let mut threads = Vec::new();
        for thread in 0..plan.threads {
            let teller = teller(Who::Thread(thread));
            let load = Load { plan: &plan, together: &together, thread, teller };
            threads.push(scope.spawn(move || load.run()));
        }
        drop(tell);
        show_live(&told, plan.threads, options.tell_each(), options.json);
        let outcome = threads.into_iter().map(joined).try_fold(Outcome::default(), |mut all, outcome| {
            all.add(outcome?);
            anyhow::Ok(all)
        })?;
        anyhow::Ok((outcome, visitors.map_or_else(|| Ok(Vec::new()), joined)?))
    })?;
    let failed = outcome.failed > 0
        || !outcome.failures.is_empty()
        || visitors.iter().any(|came| !came.failures.is_empty());
    let report = report(&plan, outcome, visitors);
    match (options.json, options.live) {
        (true, true) => println!("{}", serde_json::to_string(&Line::Report(report))?),
        (true, false) => println!("{}", serde_json::to_string_pretty(&report)?),
        (false, _) => print!("{report}"),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn joined<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Prints a line whenever all threads told an interval, until the last of them is done.
fn show_live(told: &Receiver<Interval>, threads: usize, every: Duration, json: bool) {
    let mut latest: Vec<Option<Interval>> = (0..threads).map(|_| None).collect();
    let (mut visitors, mut log_ins) = (0, Latency::coarse());
    let mut seconds = 0.0;
    for interval in told {
        match interval.who {
            Who::Thread(thread) => latest[thread] = Some(interval),
            Who::Visitors => {
                visitors = interval.here;
                log_ins.add(&interval.latency);
                continue;
            }
        }
        if latest.iter().any(Option::is_none) {
            continue;
        }
        let log_ins = std::mem::replace(&mut log_ins, Latency::coarse()).seen();
        let mut live = Live { seconds, visitors, log_ins, ..Live::default() };
        let mut latency = Latency::coarse();
        for interval in latest.iter_mut().filter_map(Option::take) {
            live.connections += interval.here;
            live.failed += interval.failed;
            latency.add(&interval.latency);
        }
        live.messages_per_second = latency.count() as f64 / every.as_secs_f64();
        live.latency = latency.percentiles();
        live.echoes = latency.seen();
        seconds += every.as_secs_f64();
        match serde_json::to_string(&Line::Live(live.clone())) {
            Ok(line) if json => println!("{line}"),
            _ => println!("{live}"),
        }
    }
}

fn report(plan: &Plan, outcome: Outcome, visitors: Vec<Came>) -> Report {
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
        seals: outcome.seals,
        broadcasts: outcome.broadcasts,
        visitors,
    };
    let framing = plan.speech.name().to_owned();
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
        self.plan.pin()?;
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

/// The visitors' thread until its driver's type is known.
struct Visiting<'a> {
    plan: &'a Plan,
    together: &'a Together,
    teller: Teller,
}

impl Visiting<'_> {
    fn run(self) -> anyhow::Result<Vec<Came>> {
        self.plan.pin()?;
        let settings = visitors::driver_settings(self.plan);
        let driver = self.plan.driver;
        driver.open(&settings, self).map_err(|(reason, this)| {
            this.together.arrived();
            anyhow!("the {driver} driver cannot be made: {reason}")
        })
    }
}

impl UseDriver for Visiting<'_> {
    type Output = Vec<Came>;

    fn with<D: madang_driver::Driver>(self, driver: D) -> Vec<Came> {
        Visitors::new(self.plan, self.together, self.teller, driver).run()
    }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|error: madang::wire::wan::NotAPublicKey| error.to_string())
}

impl Options {
    fn tell_each(&self) -> Duration {
        if self.words { TELL_GUIDE_EACH } else { TELL_EACH }
    }

    fn speech(&self) -> anyhow::Result<Speech> {
        let Some(server) = self.wan else { return Ok(Speech::Plain(self.framing)) };
        if self.token.len() > TOKEN_MAX {
            bail!("--token: at most {TOKEN_MAX} bytes");
        }
        let suite = if self.chachapoly { Suite::ChaChaPoly } else { Suite::AesGcm };
        Ok(Speech::Wan(Pinned { server, suite, token: self.token.clone().into_bytes() }))
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let speech = self.speech()?;
        let longest = speech.longest();
        if !(1..=longest).contains(&self.size) {
            bail!("--size: this framing carries 1 to {longest} bytes");
        }
        if self.threads > self.connections {
            bail!("--threads: more threads than connections");
        }
        let sources = match self.spread {
            None => self.sources.clone(),
            Some(count) => (1..=count).map(|at| Ipv4Addr::from(0x7f01_0000 + at).into()).collect(),
        };
        if let Some(other) = sources.iter().find(|source| source.is_ipv4() != self.addr[0].is_ipv4()) {
            bail!("--sources: {other} is not of the server's family of addresses");
        }
        let driver = self.driver.kind().map_err(anyhow::Error::msg)?;
        let visits = Visits {
            strangers: self.strangers as usize,
            dribble: self.dribble,
            garbage: self.garbage,
            storm: self.storm,
            prepared: self.prepared,
        };
        let connections = self.connections as usize;
        let limit = process::raise_descriptor_limit().map_or(usize::MAX, |limit| limit as usize);
        let too_many = connections + visits.connections_max() + DESCRIPTORS_BESIDES > limit;
        if too_many && driver != DriverKind::Uring {
            bail!(
                "--connections: this process may open {limit} files; raise the limit, or use several processes"
            );
        }
        Ok(Plan {
            targets: self.addr.clone(),
            sources,
            connections,
            threads: self.threads as usize,
            speech,
            driver,
            own_file_table: self.own_file_table || too_many,
            size: self.size,
            drive: match self.rate {
                Some(messages_per_second) => Drive::Paced { messages_per_second },
                None => Drive::Closed { depth: self.depth },
            },
            visits,
            core: self.core,
            nice: self.nice,
            idle: self.idle,
            warm_up: Duration::from_secs(self.warm_up_seconds),
            measured: Duration::from_secs(self.seconds),
            ramp: Duration::from_secs(self.ramp_seconds),
            patience: Duration::from_secs(self.patience_seconds),
        })
    }
}
