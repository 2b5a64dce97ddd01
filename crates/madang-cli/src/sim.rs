//! `madang sim`: whole servers in the simulated world, many seeds or one.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use madang::simulation::{self, Report, Tally};

/// A batch of fewer seeds may well miss a kind of fault.
const SEEDS_FOR_ALL_KINDS: u64 = 2_000;

/// One seed in so many is run twice, to show that it replays.
const RUN_TWICE_EVERY: u64 = 50;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The seeds to run, as FROM..TO (TO is not run)
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["count", "seed"])]
    seeds: Option<String>,
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000, conflicts_with = "seed")]
    count: u64,
    /// The first seed of --count
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed: a replay
    #[arg(long)]
    seed: Option<u64>,
    /// Print the events of --seed as they happen
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Print how often each fault and each deed happened
    #[arg(long)]
    counts: bool,
    /// Plant a bug, by its name, or all of them in turn, and tell how many seeds find it
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "NAME|all", conflicts_with = "trace")]
    bug: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "planted")]
    if let Some(name) = &options.bug {
        return find_bugs(name, options);
    }
    if let Some(seed) = options.seed {
        let report = if options.trace { simulation::trace(seed) } else { simulation::run_twice(seed) };
        print!("{report}");
        println!();
        return Ok(verdict(report.violation.is_none()));
    }
    let (from, to) = range(options)?;
    let began = Instant::now();
    let (tally, failures) = batch(from, to, options.threads);
    let seconds = began.elapsed().as_secs_f64();
    for report in &failures {
        println!("{report}");
    }
    println!(
        "{} seeds in {seconds:.1} s ({:.0}/s): {} half turns, {} sessions, {} messages, {:.0} s of virtual time",
        tally.seeds,
        tally.seeds as f64 / seconds,
        tally.turns,
        tally.sessions,
        tally.messages,
        tally.virtual_time.as_secs_f64(),
    );
    if options.counts {
        for (what, count) in tally.counts() {
            println!("{count:>12}  {what}");
        }
    }
    let missing = tally.never_happened();
    if !missing.is_empty() {
        println!("never happened: {}", missing.join(", "));
    }
    let complete = missing.is_empty() || tally.seeds < SEEDS_FOR_ALL_KINDS;
    println!("{} of them broke a rule", failures.len());
    Ok(verdict(failures.is_empty() && complete))
}

fn verdict(clean: bool) -> ExitCode {
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn range(options: &Options) -> anyhow::Result<(u64, u64)> {
    let Some(seeds) = &options.seeds else {
        return Ok((options.from, options.from.saturating_add(options.count)));
    };
    let (from, to) = seeds.split_once("..").context("--seeds is FROM..TO, such as 0..10000")?;
    let (from, to) = (from.parse()?, to.parse()?);
    if from >= to {
        bail!("--seeds {seeds} names no seed");
    }
    Ok((from, to))
}

/// Runs all seeds; each thread takes the next. The failures in the order of their seeds, a few at most.
fn batch(from: u64, to: u64, threads: u8) -> (Tally, Vec<Report>) {
    const FAILURES_MAX: u64 = 5;
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let work = || {
        let (mut tally, mut failures) = (Tally::default(), Vec::new());
        while failed.load(Ordering::Relaxed) < FAILURES_MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                break;
            }
            let report =
                if seed % RUN_TWICE_EVERY == 0 { simulation::run_twice(seed) } else { simulation::run(seed) };
            tally.add(&report);
            if report.violation.is_some() {
                failed.fetch_add(1, Ordering::Relaxed);
                failures.push(report);
            }
        }
        (tally, failures)
    };
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (part, mut some) = thread.join().expect("a run's panics are its report");
            tally.merge(&part);
            failures.append(&mut some);
        }
    });
    failures.sort_by_key(|report| report.seed);
    (tally, failures)
}

/// A table of bugs, the seeds each one took, and the rule that it broke.
#[cfg(feature = "planted")]
fn find_bugs(name: &str, options: &Options) -> anyhow::Result<ExitCode> {
    use simulation::Planted;
    let bugs: Vec<Planted> =
        Planted::ALL.iter().copied().filter(|bug| name == "all" || format!("{bug:?}") == name).collect();
    if bugs.is_empty() {
        let names: Vec<String> = Planted::ALL.iter().map(|bug| format!("{bug:?}")).collect();
        bail!("there is no bug `{name}`; there are {}", names.join(", "));
    }
    let (from, to) = match options.seed {
        Some(seed) => (seed, seed + 1),
        None => range(options)?,
    };
    println!("| bug | what it is | seeds | broken rule |");
    println!("|---|---|---|---|");
    let mut all_found = true;
    for bug in bugs {
        let found = (from..to)
            .map(|seed| simulation::run_planted(seed, bug))
            .find(|report| report.violation.is_some());
        let result = match found.map(|report| (report.seed, report.violation)) {
            Some((seed, Some(violation))) => format!("{} | {}", seed - from + 1, violation.rule),
            _ => {
                all_found = false;
                format!("not found in {} | ", to - from)
            }
        };
        println!("| `{bug:?}` | {} | {result} |", bug.what());
    }
    Ok(verdict(all_found))
}
