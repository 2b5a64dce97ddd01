//! `madang serve`: an echo server with the settings of a file, until a signal or its time is over.

pub(crate) mod broadcast;
pub(crate) mod echo;
pub(crate) mod end;
pub(crate) mod stopped;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;
use madang::{Server, Settings};
use tracing::Level;

use self::broadcast::Broadcast;
use self::echo::Echo;
use self::end::End;
use self::stopped::Books;
use crate::driver::Driver;
use crate::framing::Framing;
use crate::signals::Signals;
use crate::{log, process, wan};

/// More than the load client's usual 10,000 with room for those that come back at once.
const MAX_SESSIONS: usize = 20_000;

/// A ramp of the load client, many times over.
const EMBRYOS_MAX: usize = 4_096;

/// Exit code 0: when it stopped, every packet, descriptor, slot and session was back. 1: something was not. 2: it could
/// not start.
///
/// The first byte of a message is a command: `D` disconnects its session, `F` sends it back as the last one and
/// disconnects; every other message is sent back.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Settings, a TOML file: the keys of the engine's settings at the top level
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7777]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<SocketAddr>,
    /// How messages are cut out of the stream
    #[arg(long, value_enum, default_value = "lan")]
    framing: Framing,
    /// Serve players instead, over encrypted sessions: under the keys of `--key` or `key_files`, or one that is thrown away
    #[arg(long, conflicts_with = "framing")]
    wan: bool,
    /// WAN: the server's key file (`madang keygen`); may be given up to four times
    #[arg(long = "key", value_name = "FILE", requires = "wan")]
    keys: Vec<PathBuf>,
    /// Send so many messages a second to everybody, each beginning with `!`
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    broadcast: Option<u32>,
    /// The bytes of each
    #[arg(long, default_value_t = 256, requires = "broadcast", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    broadcast_size: u32,
    /// What moves the bytes
    #[arg(long, value_enum)]
    driver: Option<Driver>,
    /// Shards, each a thread
    #[arg(long)]
    workers: Option<usize>,
    /// One more setting, over the file's; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Stop by itself after so long
    #[arg(long)]
    seconds: Option<u64>,
    /// Announce a stop: players of a WAN hear how long is left, newcomers are turned away, and whoever is in is served until
    /// all have left or so many seconds are over. Another signal stops at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=86_400))]
    drain_seconds: u32,
}

/// Serves, stops, prints what was left behind and gives the exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    log::show(Level::INFO);
    let settings = options.settings()?;
    process::raise_descriptor_limit();
    let signals = Signals::listen()?;
    let descriptors = process::descriptors();

    let (name, builder, public) = match options.wan {
        true => {
            let (builder, public) = wan::server(settings)?;
            ("wan", builder, public)
        }
        false => (options.framing.name(), options.framing.server(settings), Vec::new()),
    };
    let server = builder.start(Echo)?;
    println!("serving {name} on {} with the {} driver", server.local_addr(), server.driver());
    for key in public {
        println!("clients pin {key}");
    }
    let deadline = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    options.serve_until(End::of(&signals, deadline), &server);
    if options.drain_seconds > 0 {
        let left = Duration::from_secs(options.drain_seconds.into());
        signals.lower();
        server.announce(left);
        println!("stopping in {} s, or when all have left", options.drain_seconds);
        let end = End { empties: Some(&server), ..End::of(&signals, Some(Instant::now() + left)) };
        options.serve_until(end, &server);
    }

    println!("stopping");
    let books = Books::close(server, descriptors)?;
    println!("{books}");
    Ok(if books.balance() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an echo server starts from when nobody says otherwise.
pub(crate) fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.bind = SocketAddr::from(([127, 0, 0, 1], 7777));
    settings.max_sessions = MAX_SESSIONS;
    settings.embryos_max = EMBRYOS_MAX;
    settings.service = "echo".into();
    settings
}

impl Options {
    /// Serves until the end, and says what is to be said to everybody meanwhile.
    fn serve_until(&self, end: End<'_>, server: &Server) {
        match self.broadcast {
            Some(per_second) => {
                Broadcast { per_second, bytes: self.broadcast_size as usize }.run(&server.remote(), end)
            }
            None => end.wait(),
        }
    }

    /// The defaults, under the file, under the options, under `--set`.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = defaults();
        if let Some(path) = &self.config {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            settings = settings.overlay(&text).with_context(|| path.display().to_string())?;
        }
        settings.bind = self.bind.unwrap_or(settings.bind);
        if !self.keys.is_empty() {
            settings.key_files = self.keys.clone();
        }
        settings.workers = self.workers.unwrap_or(settings.workers);
        settings.driver = self.driver.map_or(settings.driver, Driver::choice);
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| anyhow!("--set {pair}: write key=value"))?;
            settings = overlay(&settings, key.trim(), value.trim())?;
        }
        Ok(settings)
    }
}

/// One setting more; what is no TOML value is a text, so that nobody needs to quote it twice.
fn overlay(settings: &Settings, key: &str, value: &str) -> anyhow::Result<Settings> {
    let value = value.parse().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
    let table = toml::Table::from_iter([(key.to_owned(), value)]);
    Ok(settings.overlay(&table.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_takes_numbers_texts_and_lists() {
        let all = [
            ("workers", "3"),
            ("driver", "uring"),
            ("cores", "[0, 1]"),
            ("service", "\"7\""),
            ("nodelay", "false"),
        ];
        let settings =
            all.iter().fold(defaults(), |settings, (key, value)| overlay(&settings, key, value).expect(key));
        assert_eq!((settings.workers, settings.driver), (3, madang::DriverChoice::Uring));
        assert_eq!((settings.cores, &*settings.service, settings.nodelay), (vec![0, 1], "7", false));
        assert_eq!(settings.max_sessions, MAX_SESSIONS);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (key, value) in [("worker", "3"), ("workers", "many"), ("driver", "rio")] {
            let error = overlay(&defaults(), key, value).expect_err(key).to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
