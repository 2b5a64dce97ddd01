//! `madang edge`: what a WAN server must stand on the open internet, one scenario a file, each with a verdict.
//!
//! The server is in this process, so that its own figures can be asked; honest clients and those who do wrong are
//! processes of their own (`madang load`, `madang dummy`), so that neither is measured with the other. Everything stays
//! on loopback, from many addresses of it, and each run ends by itself.
//!
//! | scenario | who does wrong | the line that must hold |
//! |---|---|---|
//! | [`slow-loris`](slow_loris) | 2,000 strangers, mute or dribbling, at all times | honest p99 within 10 %; each gone by the deadline |
//! | [`never-readers`](never_readers) | 500 clients that read nothing of 20 messages a second to all | gone as slow consumers in time, nothing left of them |
//! | [`garbage`](garbage) | 5,000 connections a second that say no preamble | an honest log-in's p99 within 20 % |
//! | [`storm`](storm) | 2,000 log-ins a second | the joined sessions' p99 within 20 % |
//! | [`queue`](queue) | nobody; 1,000 clients for 100 places | all get in, in order; no turn is lost with a link |

mod comparison;
mod garbage;
mod guided;
mod line;
mod never_readers;
mod parts;
mod queue;
mod ratio;
mod slow_loris;
mod stage;
mod storm;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing::Level;

use self::line::{Line, print};
use self::ratio::Verdict;
use self::stage::Stage;
use crate::driver::Driver;
use crate::signals::Signals;
use crate::{log, process};

/// Exit code 0: every line holds. 1: one does not. 2: it could not run. 3: none fails, and the times of one are too far
/// apart to say.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What the server must stand
    #[arg(value_enum, default_value = "all")]
    scenario: Choice,
    /// The measured time of each part: undisturbed, disturbed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Such parts, in turn; below six nothing is sure
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// So many hundredths of the numbers that the scenario is about: for a small machine or a quick look
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    percent: u64,
    /// Shards of the server
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: u64,
    /// Threads of the server for handshakes, in place of the setting's default; 0: the shards work them out
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=64))]
    handshake_threads: Option<u64>,
    /// Keep the server's first shards to the first processors and the clients to the last, where there are several
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pin: bool,
    /// What moves the server's bytes
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Strangers who hold a place and say little or nothing
    SlowLoris,
    /// Clients that do not read what is sent to everybody
    NeverReaders,
    /// Connections that do not speak the protocol
    Garbage,
    /// Log-ins by the thousand
    Storm,
    /// Ten times as many clients as places
    Queue,
    /// Each in turn
    All,
}

/// No line fails, and one is neither kept nor missed for sure.
const NOT_RESOLVED: u8 = 3;

type Scenario = fn(&Stage<'_>) -> anyhow::Result<Vec<Line>>;

/// Plays the scenarios, prints a table and gives the exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // Peers that misbehave are what it is about.
    log::show(Level::ERROR);
    process::raise_descriptor_limit();
    let signals = Signals::listen()?;
    let stage = Stage::new(options, &signals);
    let mut verdicts = Vec::new();
    for (name, play) in options.scenario.scenarios() {
        println!("{name}");
        let lines = play(&stage)?;
        if signals.raised() {
            anyhow::bail!("interrupted: no verdict");
        }
        print(&lines);
        verdicts.extend(lines.iter().map(Line::verdict));
    }
    Ok(if verdicts.contains(&Verdict::Fails) {
        ExitCode::FAILURE
    } else if verdicts.contains(&Verdict::NotResolved) {
        ExitCode::from(NOT_RESOLVED)
    } else {
        ExitCode::SUCCESS
    })
}

impl Choice {
    fn scenarios(self) -> Vec<(&'static str, Scenario)> {
        let all: [(Choice, &str, Scenario); 5] = [
            (Self::SlowLoris, "slow-loris", slow_loris::play),
            (Self::NeverReaders, "never-readers", never_readers::play),
            (Self::Garbage, "garbage", garbage::play),
            (Self::Storm, "storm", storm::play),
            (Self::Queue, "queue", queue::play),
        ];
        let chosen = |choice: Choice| self == Self::All || self == choice;
        all.into_iter().filter(|(choice, ..)| chosen(*choice)).map(|(_, name, play)| (name, play)).collect()
    }
}
