//! `madang demo`: a real server carrying thousands of real connections on this machine, with figures, in a quarter of a
//! minute.
//!
//! The server is in this process, so its figures, memory and processor time are read where they are. The clients are
//! processes of their own: `madang load` for the mass, `madang dummy` for the verdict. Three acts:
//!
//! | act | the crowd | the dummies |
//! |---|---|---|
//! | players | ten messages a second each, at an even pace | verify every echo |
//! | flat out | 16 messages in flight each | verify every echo |
//! | trouble | an even pace again | over-send, churn, reset, never read, garbage: each mode in turn |

mod act;
mod meter;
mod screen;
pub(crate) mod words;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use tracing::Level;

use self::act::{Act, Cast, Review};
use self::screen::Screen;
use self::words::{grouped, mebibytes, time};
use crate::driver::Driver;
use crate::framing::Framing;
use crate::load::report::Drive;
use crate::serve::echo::Echo;
use crate::serve::stopped::Books;
use crate::signals::Signals;
use crate::{log, process, serve, wan};

/// A player's pace in most games: input, movement, chat.
const MESSAGES_PER_SECOND_EACH: u64 = 10;

/// The school's measure of a busy connection.
const FLAT_OUT_DEPTH: u32 = 16;

/// Descriptors of the server besides its sessions, and room for the dummies' short-lived ones.
const DESCRIPTORS_BESIDES: u64 = 256;

/// A stranger that does not greet is cut off after so long, so that the dummies need not wait for the usual 3 s.
const GREETING_TIMEOUT_MS: u64 = 1_000;

/// Exit code 0: no echo was lost, doubled, reordered or altered, and the server stopped with nothing left over. 1:
/// something went wrong. 2: it could not run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Connections of the crowd
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    connections: u64,
    /// Clients that verify everything beside it
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    dummies: u64,
    /// About how long it takes
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Shards of the server [default: a quarter of the processors]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: Option<u64>,
    /// What moves the bytes
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// A server for players: encrypted sessions, under a key that is thrown away
    #[arg(long)]
    wan: bool,
}

/// Plays the three acts, prints a summary and gives the exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // Peers that misbehave are part of the show, and told in the summary.
    log::show(Level::ERROR);
    let signals = Signals::listen()?;
    let mut screen = Screen::new();
    let connections = options.connections_that_fit(&mut screen);
    let workers = options.workers.unwrap_or_else(quarter_of_the_processors);

    let mut settings = serve::defaults();
    settings.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    settings.workers = workers as usize;
    settings.max_sessions = (connections + options.dummies) as usize + DESCRIPTORS_BESIDES as usize;
    settings.greeting_timeout_ms = GREETING_TIMEOUT_MS;
    settings.service = "demo".into();
    settings.driver = options.driver.choice();
    let descriptors = process::descriptors();
    let (builder, wan) = match options.wan {
        true => {
            let (builder, public) = wan::server(settings)?;
            (builder, public.first().copied())
        }
        false => (Framing::Lan.server(settings), None),
    };
    let server = builder.start(Echo)?;
    let cast = Cast {
        server: server.local_addr(),
        driver: server.driver(),
        threads: workers as usize,
        connections: connections as usize,
        dummies: options.dummies as usize,
        wan,
    };
    announce(&cast, options.driver, &mut screen);

    let mut reviews = Vec::new();
    for act in acts(connections, options.seconds) {
        if signals.raised() {
            break;
        }
        reviews.push(act.play(&cast, &server.remote(), &signals, &mut screen)?);
        screen.clear();
    }
    let resident = process::resident();
    let books = Books::close(server, descriptors)?;
    Ok(if summary(&reviews, resident, &books, &mut screen) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    /// As many connections as this user's descriptor limit carries: the server and the crowd need one each.
    fn connections_that_fit(&self, screen: &mut Screen) -> u64 {
        let limit = process::raise_descriptor_limit().unwrap_or(u64::MAX);
        let fit = limit.saturating_sub(DESCRIPTORS_BESIDES + 2 * self.dummies).max(1);
        if fit < self.connections {
            screen.say(&format!("  {fit} connections: a process may open {limit} files here (ulimit -Hn)"));
        }
        fit.min(self.connections)
    }
}

fn quarter_of_the_processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64 / 4).clamp(1, 4)
}

/// Four parts for each of the first two acts and seven for the third, which has seven modes.
fn acts(connections: u64, seconds: u64) -> [Act; 3] {
    let even = Drive::Paced { messages_per_second: connections * MESSAGES_PER_SECOND_EACH };
    let part = (seconds * 4 / 15).max(1);
    let mode_seconds = (seconds / 15).max(1);
    let players = grouped(connections);
    [
        Act {
            name: "players",
            story: format!("{players} connections, {MESSAGES_PER_SECOND_EACH} messages a second each"),
            drive: even,
            seconds: part,
            mode: "steady",
            mode_seconds: part,
        },
        Act {
            name: "flat out",
            story: format!("{players} connections, {FLAT_OUT_DEPTH} messages in flight on each"),
            drive: Drive::Closed { depth: FLAT_OUT_DEPTH },
            seconds: part,
            mode: "steady",
            mode_seconds: part,
        },
        Act {
            name: "trouble",
            story: format!("{players} players, beside churn, resets, over-sending and garbage"),
            drive: even,
            seconds: mode_seconds * 7,
            mode: "all",
            mode_seconds,
        },
    ]
}

fn announce(cast: &Cast, wanted: Driver, screen: &mut Screen) {
    let Cast { server, driver, threads, dummies, wan, .. } = cast;
    let kind = if wan.is_some() { "an encrypted WAN" } else { "a LAN" };
    let shards = if *threads == 1 { "one shard".to_owned() } else { format!("{threads} shards") };
    screen.say("");
    screen.say(&format!(
        "  {}  {kind} echo server on {server}: {driver} driver, {shards}",
        screen.bold("madang demo")
    ));
    if let (Driver::Auto, Err(reason)) = (wanted, Driver::Uring.kind()) {
        screen.say(&format!("  {reason}"));
    }
    let crowd = format!("the clients are processes of their own; {dummies} dummies judge. Ctrl-C ends it.");
    screen.say(&screen.dim(&format!("  {crowd}")));
}

/// Prints how it went; whether all was right.
fn summary(
    reviews: &[Review],
    resident: Option<process::Resident>,
    books: &Books,
    screen: &mut Screen,
) -> bool {
    screen.say("");
    for review in reviews {
        screen.say(&format!("  {}  {}", screen.bold(&format!("{:<9}", review.act.name)), review.act.story));
        screen.say(&format!("             {}", figures_of(review)));
        for (reason, count) in review.run.iter().flat_map(|run| &run.failures) {
            screen.say(&format!("             {}", screen.bad(&format!("{count} × {reason}"))));
        }
    }
    let verdicts = || reviews.iter().flat_map(|review| &review.verdicts);
    let sum = |count: fn(&act::Verdict) -> u64| grouped(verdicts().map(count).sum());
    screen.say("");
    screen.say(&format!(
        "  dummies    {} echoes verified over {} connections, {} hostile ones repelled",
        sum(|verdict| verdict.verified),
        sum(|verdict| verdict.connections),
        sum(|verdict| verdict.repelled),
    ));
    for verdict in verdicts().filter(|verdict| !verdict.failed.is_empty()) {
        let failed: Vec<_> = verdict.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        screen.say(&format!(
            "             {}",
            screen.bad(&format!("{}: {}", verdict.mode, failed.join(", ")))
        ));
    }
    if let Some(resident) = resident {
        let pool = mebibytes(books.figures.pool.high_water_bytes as u64);
        screen.say(&format!(
            "  memory     {} resident at the most, {pool} of it in packets",
            mebibytes(resident.most)
        ));
    }
    for line in books.to_string().lines() {
        // Their words are ten columns wide, ours eleven.
        let (name, text) = line.split_at(10.min(line.len()));
        screen.say(&format!("  {name} {text}"));
    }
    screen.say("");
    let right = reviews.iter().all(|review| review.right) && books.balance();
    screen.say(&match right {
        true => format!(
            "  {}  nothing lost, doubled, reordered or altered; nothing left behind",
            screen.good("all right")
        ),
        false => format!("  {}  see above", screen.bad("FAILED")),
    });
    screen.say("");
    right
}

fn figures_of(review: &Review) -> String {
    let Some(run) = &review.run else { return "ended before it was measured".to_owned() };
    let mut text = format!(
        "{} messages/s, round trip p50 {}, p99 {}",
        grouped(run.messages_per_second() as u64),
        time(run.latency.p50_us),
        time(run.latency.p99_us),
    );
    if let Some(rates) = review.rates {
        text += &format!(", {:.2} sends per message", rates.sends_per_message);
        if let Some(cpu) = rates.cpu_us_per_message {
            text += &format!(", {} of server CPU each", time(cpu));
        }
    }
    text
}
