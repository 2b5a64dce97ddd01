//! `madang dummy`: clients as simple as they can be, so that they can be trusted to judge the engine.
//!
//! Blocking sockets of the standard library, one thread a client, a codec written from docs/wire.md alone, none of the
//! engine's code. Each client says messages that prove where they belong ([`message`]) to an echo server and hands
//! what comes back to a [`judge`].
//!
//! ```text
//! mode ──► client ──► conversation ──┬──► link ──► framing, lan, wan bytes
//!                                    └──► judge ──► message          verdict
//!                          tally ◄───────┘                           report and exit code
//! ```
//!
//! Every wait is bounded by `--patience-seconds`: a server that hangs is reported as silent and never hangs the dummy.

mod client;
mod conversation;
mod framing;
mod hostile;
mod judge;
mod lan;
mod link;
mod message;
mod mode;
mod queue;
mod random;
mod tally;
pub(crate) mod wan;

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use self::client::Client;
use self::framing::Framing;
use self::message::Sizes;
use self::mode::Mode;
use self::queue::Turnstile;
use self::tally::{Summary, Tally};
use self::wan::{Pinned, PublicKey, Suite};
use crate::signals::Signals;

/// A client keeps its buffers on the heap; its stack holds one chunk of a read and a few frames.
const CLIENT_STACK_BYTES: usize = 128 * 1024;

/// Exit code 0: nothing was lost, doubled, reordered or altered, and nothing else failed. 1: something was. 2: it could
/// not run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The echo server
    #[arg(long, default_value = "127.0.0.1:7777")]
    addr: SocketAddr,
    /// Clients, each a thread
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long each mode runs
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What the clients do
    #[arg(long, value_enum, default_value = "all")]
    mode: ModeChoice,
    /// How messages are cut out of the stream
    #[arg(long, value_enum, default_value = "lan")]
    framing: Framing,
    /// A WAN server, and the public key that it must prove to have: encrypted in place of a framing
    #[arg(long, value_name = "PUBLIC_KEY", conflicts_with = "framing")]
    wan: Option<PublicKey>,
    /// WAN: the cipher
    #[arg(long, value_enum, default_value = "aesgcm", requires = "wan")]
    suite: Suite,
    /// WAN: what the log-in says
    #[arg(long, default_value = "", requires = "wan")]
    token: String,
    /// Payload bytes, one number or a range
    #[arg(long, value_name = "MIN..MAX", default_value = "32..512")]
    size: Sizes,
    /// Pass over messages to everybody, which begin with `!` (`madang serve --broadcast`)
    #[arg(long)]
    broadcasts: bool,
    /// steady: messages outstanding at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    depth: u32,
    /// steady: messages a second and client; 0 sends the next as soon as an echo came
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// over-send: messages sent before the first is read
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    burst: u32,
    /// Plays the same messages and choices again; drawn from the clock when absent, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// How long a connection may stand still before it is reported as silent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    patience_seconds: u64,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    report: Report,
}

/// One mode, or each in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeChoice {
    /// Keep `depth` messages outstanding and verify each echo
    Steady,
    /// Send far more than is read for a while, then read and verify all
    OverSend,
    /// Connect, a few echoes, close, and at once again
    Churn,
    /// Ask the server to disconnect at random moments, abruptly or after a last echo
    RandomDisconnect,
    /// Reset the connection in the middle of traffic
    Reset,
    /// Half of the clients ask and never read, and must be cut off; the others must not notice
    NeverRead,
    /// Join once and read nothing, until a server that has something to say to everybody ends it (not in `all`)
    Deaf,
    /// Wait for a place, each in its turn, play for a second and go; some lose their link and come back (not in `all`)
    Queue,
    /// Half of the clients send garbage and must be cut off; the others must not notice
    Garbage,
    /// Each mode in turn
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Report {
    /// A line for each mode, and one for each failure
    Text,
    /// One JSON array with an object for each mode
    Json,
    /// The same objects, each on a line of its own as its mode ends
    JsonLines,
}

/// What every client of a run shares.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    address: SocketAddr,
    clients: u32,
    lasts: Duration,
    framing: Framing,
    /// With [`Framing::Wan`] and no other.
    wan: Option<Pinned>,
    sizes: Sizes,
    broadcasts: bool,
    depth: u64,
    rate: u32,
    burst: u64,
    seed: u64,
    patience: Duration,
    /// Ctrl-C ends a run early, in good order.
    signals: Signals,
}

/// Runs the chosen modes one after the other, prints the report and gives the exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let wan = options.wan.map(|server| Pinned {
        server,
        suite: options.suite,
        token: options.token.clone().into_bytes(),
    });
    let framing = if wan.is_some() { Framing::Wan } else { options.framing };
    let longest = framing.longest();
    if options.size.max > longest {
        anyhow::bail!("--size: this framing carries at most {longest} bytes");
    }
    let modes = options.mode.modes();
    if let Some(mode) = modes.iter().find(|mode| mode.has_sides() && options.clients < 2) {
        anyhow::bail!(
            "--clients: {} needs one client to do wrong and one to be honest beside it",
            mode.name()
        );
    }
    let settings = Settings {
        address: options.addr,
        clients: options.clients,
        lasts: Duration::from_secs(options.seconds),
        framing,
        wan,
        sizes: options.size,
        broadcasts: options.broadcasts,
        depth: options.depth.into(),
        rate: options.rate,
        burst: options.burst.into(),
        seed: options.seed.unwrap_or_else(seed_from_clock),
        patience: Duration::from_secs(options.patience_seconds),
        signals: Signals::listen()?,
    };
    let mut summaries = Vec::new();
    for mode in modes {
        if settings.signals.raised() {
            break;
        }
        let summary = play(mode, &settings)?;
        match options.report {
            Report::Text => println!("{summary}"),
            Report::JsonLines => println!("{}", serde_json::to_string(&summary)?),
            Report::Json => {}
        }
        summaries.push(summary);
    }
    if options.report == Report::Json {
        println!("{}", serde_json::to_string_pretty(&summaries)?);
    }
    let clean = summaries.iter().all(|summary| summary.tally.is_clean());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one mode with all its clients to its end.
fn play(mode: Mode, settings: &Settings) -> anyhow::Result<Summary> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let turnstile = &Turnstile::default();
    std::thread::scope(|scope| -> std::io::Result<()> {
        let mut threads = Vec::new();
        for id in 0..settings.clients {
            let client = std::thread::Builder::new().stack_size(CLIENT_STACK_BYTES);
            threads.push(client.spawn_scoped(scope, move || {
                let mut client = Client::new(settings, turnstile, id, start);
                mode.play(&mut client);
                client.tally
            })?);
        }
        for thread in threads {
            tally.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        Ok(())
    })?;
    Ok(Summary {
        mode: mode.name(),
        framing: settings.framing.name(),
        clients: settings.clients,
        seconds: start.elapsed().as_secs_f64(),
        seed: settings.seed,
        tally,
    })
}

impl ModeChoice {
    fn modes(self) -> Vec<Mode> {
        match self {
            Self::Steady => vec![Mode::Steady],
            Self::OverSend => vec![Mode::OverSend],
            Self::Churn => vec![Mode::Churn],
            Self::RandomDisconnect => vec![Mode::RandomDisconnect],
            Self::Reset => vec![Mode::Reset],
            Self::NeverRead => vec![Mode::NeverRead],
            Self::Deaf => vec![Mode::Deaf],
            Self::Queue => vec![Mode::Queue],
            Self::Garbage => vec![Mode::Garbage],
            Self::All => Mode::EACH.to_vec(),
        }
    }
}

fn seed_from_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
