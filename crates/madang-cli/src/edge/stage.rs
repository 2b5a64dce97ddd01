//! What every scenario stands on: a WAN server in this process, and crowds that are processes of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use madang::wire::wan::PublicKey;
use madang::{Figures, Remote, Server, Settings};
use serde::de::DeserializeOwned;

use super::Options;
use super::guided::Guided;
use super::line::Line;
use crate::child::{Crowd, Ended};
use crate::load::report::{self, Run};
use crate::serve::echo::Echo;
use crate::serve::stopped::Books;
use crate::signals::Signals;
use crate::{process, serve, wan};

/// Honest clients who are joined.
const JOINED: u64 = 500;

/// How often the lines of crowds are looked for.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// How late a crowd may be: it connects, prepares its handshakes and sees its visitors out besides.
const LATE: Duration = Duration::from_secs(90);

/// A crowd that is guided comes to its end by this time at the latest, whatever becomes of who guides it.
const GUIDED_SECONDS: u64 = 3_600;

/// How the machine is shared, and how long each run is.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a Options,
    signals: &'a Signals,
    /// The processor of all clients; none lets the system choose.
    clients_core: Option<usize>,
}

/// A WAN echo server that is on.
pub(crate) struct House {
    server: Server,
    settings: Settings,
    key: PublicKey,
    descriptors: Option<usize>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(options: &'a Options, signals: &'a Signals) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let clients_core = (options.pin && processors > 1).then(|| processors - 1);
        Self { options, signals, clients_core }
    }

    /// So many, or as many hundredths of it as the options say.
    pub(crate) fn scaled(&self, number: u64) -> u64 {
        (number * self.options.percent / 100).max(1)
    }

    /// How many honest clients are joined.
    pub(crate) fn joined(&self) -> u64 {
        self.scaled(JOINED)
    }

    /// The load client's arguments for them, each of whom speaks so often in a second.
    pub(crate) fn joined_crowd(&self, hertz: u64) -> String {
        format!("--connections {} --rate {} --size 64 --spread 50", self.joined(), self.joined() * hertz)
    }

    /// Opens a server for players, but for what the scenario changes. What an honest client of ours sends is no limit's
    /// business here.
    pub(crate) fn open(&self, change: impl Fn(&mut Settings)) -> anyhow::Result<House> {
        let mut settings = serve::defaults();
        let players = Settings::for_players();
        settings.queue_soft_bytes = players.queue_soft_bytes;
        settings.queue_soft_ms = players.queue_soft_ms;
        settings.queue_hard_bytes = players.queue_hard_bytes;
        settings.queue_hard_messages = players.queue_hard_messages;
        settings.frame_limit_bytes = players.frame_limit_bytes;
        settings.bind = ([127, 0, 0, 1], 0).into();
        settings.workers = self.options.workers as usize;
        settings.driver = self.options.driver.choice();
        if let Some(threads) = self.options.handshake_threads {
            settings.handshake_threads = threads as usize;
        }
        if let Some(last) = self.clients_core {
            settings.cores = (0..settings.workers).map(|shard| shard % last).collect();
        }
        change(&mut settings);
        Self::start(settings)
    }

    fn start(settings: Settings) -> anyhow::Result<House> {
        let descriptors = process::descriptors();
        let (builder, public) = wan::server(settings.clone())?;
        let server = builder.start(Echo)?;
        let key = *public.first().ok_or_else(|| anyhow!("a WAN server without a key"))?;
        Ok(House { server, settings, key, descriptors })
    }

    /// Starts a crowd of the load client that stays until it is told to end.
    pub(crate) fn guided(&self, house: &House, arguments: &str) -> anyhow::Result<Guided<'_>> {
        let mut all: Vec<String> = ["--live", "--json", "--words", "--wan"].map(String::from).into();
        all.push(house.key.to_string());
        let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
        add("--addr", house.server.local_addr().to_string());
        add("--seconds", GUIDED_SECONDS.to_string());
        add("--warm-up-seconds", "0".to_owned());
        if let Some(core) = self.clients_core {
            add("--core", core.to_string());
        }
        all.extend(arguments.split_whitespace().map(String::from));
        Ok(Guided::new(self, Crowd::start("load", &all)?))
    }

    /// The same of those who do wrong. Where all clients have one processor the honest come first, and at once: what they
    /// wait for is to be the server.
    pub(crate) fn yielding(&self, house: &House, arguments: &str) -> anyhow::Result<Guided<'_>> {
        let gives_way = self.clients_core.map_or("", |_| "--idle ");
        self.guided(house, &format!("{gives_way}{arguments}"))
    }

    /// Waits for the end of a crowd and gives its report.
    pub(crate) fn report(&self, crowd: Crowd) -> anyhow::Result<Run> {
        let mut run = None;
        self.lines(crowd, |line: report::Line| {
            if let report::Line::Report(report) = line {
                run = report.runs.into_iter().next();
            }
        })?;
        run.context("a crowd ended without a report")
    }

    /// Starts dummies, who say how it went with one line a mode.
    pub(crate) fn dummies(
        &self,
        house: &House,
        mode: &str,
        clients: u64,
        seconds: u64,
    ) -> anyhow::Result<Crowd> {
        let arguments = format!(
            "--report json-lines --mode {mode} --broadcasts --clients {clients} --seconds {seconds} \
             --patience-seconds {seconds} --addr {} --wan {}",
            house.server.local_addr(),
            house.key
        );
        let arguments: Vec<_> = arguments.split_whitespace().map(String::from).collect();
        Crowd::start("dummy", &arguments)
    }

    /// Waits for the end of a crowd and hands each of its lines out.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        crowd: Crowd,
        mut each: impl FnMut(T),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + LATE;
        loop {
            match self.next_line(&crowd, deadline)? {
                Some(line) => each(serde_json::from_str(&line)?),
                // Its verdict is in its report as well, by name.
                None => return crowd.verdict().map(|_right| ()),
            }
        }
    }

    /// The next line, or nothing at the end of all.
    pub(crate) fn next_line(&self, crowd: &Crowd, deadline: Instant) -> anyhow::Result<Option<String>> {
        loop {
            match crowd.line() {
                Ok(Some(line)) => return Ok(Some(line)),
                Err(Ended) => return Ok(None),
                Ok(None) if self.signals.raised() => bail!("interrupted: no verdict"),
                Ok(None) if Instant::now() > deadline => bail!("a crowd did not come to its end"),
                Ok(None) => std::thread::sleep(LOOK_EACH),
            }
        }
    }
}

impl House {
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn remote(&self) -> Remote {
        self.server.remote()
    }

    pub(crate) fn figures(&self) -> Figures {
        self.server.remote().figures()
    }

    /// Stops the server: everything must be back.
    pub(crate) fn close(self) -> anyhow::Result<Line> {
        let books = Books::close(self.server, self.descriptors)?;
        let balance = books.to_string().lines().last().unwrap_or_default().trim().to_owned();
        let told = balance.trim_start_matches("balance").trim();
        Ok(Line::new("after the stop", told, "all back", books.balance()))
    }
}
