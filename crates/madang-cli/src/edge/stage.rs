//! What every scenario stands on: a WAN server in this process, and crowds that are processes of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use madang::wire::wan::PublicKey;
use madang::{Figures, Remote, Server, Settings};
use serde::de::DeserializeOwned;

use super::Options;
use super::line::Line;
use crate::child::{Crowd, Ended};
use crate::load::report::{self, Run};
use crate::serve::echo::Echo;
use crate::serve::stopped::Books;
use crate::signals::Signals;
use crate::{process, serve, wan};

/// How often the lines of crowds are looked for.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// How late a crowd may be: it connects, prepares its handshakes and sees its visitors out besides.
const LATE: Duration = Duration::from_secs(90);

/// The share of a processor of those who do wrong, as Unix has it: the least there is.
const GIVES_WAY: i32 = 19;

/// A crowd's traffic before its measured time.
const WARM_UP_SECONDS: u64 = 1;

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

    /// Opens a server for players, but for what the scenario changes. What an honest client of ours sends is no limit's
    /// business here.
    pub(crate) fn open(&self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<House> {
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
        if let Some(last) = self.clients_core {
            settings.cores = (0..settings.workers).map(|shard| shard % last).collect();
        }
        change(&mut settings);
        let descriptors = process::descriptors();
        let (builder, public) = wan::server(settings)?;
        let server = builder.start(Echo)?;
        let key = *public.first().ok_or_else(|| anyhow!("a WAN server without a key"))?;
        Ok(House { server, key, descriptors })
    }

    /// Starts a crowd of the load client that runs beside others; `seconds` of it are after its warm-up.
    pub(crate) fn load(&self, house: &House, seconds: u64, arguments: &str) -> anyhow::Result<Crowd> {
        let mut all: Vec<String> = ["--live", "--json", "--wan"].map(String::from).into();
        all.push(house.key.to_string());
        let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
        add("--addr", house.server.local_addr().to_string());
        add("--seconds", seconds.to_string());
        add("--warm-up-seconds", WARM_UP_SECONDS.to_string());
        if let Some(core) = self.clients_core {
            add("--core", core.to_string());
        }
        all.extend(arguments.split_whitespace().map(String::from));
        Crowd::start("load", &all)
    }

    /// A crowd from its first connect to its report.
    pub(crate) fn measure(&self, house: &House, arguments: &str) -> anyhow::Result<Run> {
        let crowd = self.load(house, self.options.seconds, arguments)?;
        self.report(crowd)
    }

    /// What an honest crowd sees while others do wrong: `(honest, the others)`.
    pub(crate) fn measure_beside(
        &self,
        house: &House,
        honest: &str,
        others: &str,
    ) -> anyhow::Result<(Run, Run)> {
        // They begin before the honest crowd is measured, and end after it. Where both have one processor the honest come
        // first: what they wait for is to be the server.
        let seconds = self.options.seconds + 2 * WARM_UP_SECONDS + 3;
        let gives_way = self.clients_core.map_or_else(String::new, |_| format!("--nice {GIVES_WAY} "));
        let others = self.load(house, seconds, &(gives_way + others))?;
        self.wait_until_it_speaks(&others)?;
        let honest = self.measure(house, honest)?;
        Ok((honest, self.report(others)?))
    }

    /// Undisturbed and disturbed runs in turn.
    pub(crate) fn compare(&self, house: &House, honest: &str, others: &str) -> anyhow::Result<Comparison> {
        let mut comparison = Comparison::default();
        for _ in 0..self.options.rounds {
            if self.signals.raised() {
                break;
            }
            comparison.quiet.push(self.measure(house, honest)?);
            let (disturbed, others) = self.measure_beside(house, honest, others)?;
            comparison.disturbed.push(disturbed);
            comparison.others.push(others);
        }
        Ok(comparison)
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
        let deadline = Instant::now() + Duration::from_secs(self.options.seconds) + LATE;
        loop {
            match self.next_line(&crowd, deadline)? {
                Some(line) => each(serde_json::from_str(&line)?),
                // Its verdict is in its report as well, by name.
                None => return crowd.verdict().map(|_right| ()),
            }
        }
    }

    fn wait_until_it_speaks(&self, crowd: &Crowd) -> anyhow::Result<()> {
        let deadline = Instant::now() + LATE;
        while let Some(line) = self.next_line(crowd, deadline)? {
            match serde_json::from_str(&line)? {
                report::Line::Live(live) if live.messages_per_second > 0.0 => return Ok(()),
                _ => {}
            }
        }
        bail!("a crowd ended before it spoke")
    }

    /// The next line, or nothing at the end of all.
    fn next_line(&self, crowd: &Crowd, deadline: Instant) -> anyhow::Result<Option<String>> {
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

/// Runs of an honest crowd, alone and beside others.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) quiet: Vec<Run>,
    pub(crate) disturbed: Vec<Run>,
    pub(crate) others: Vec<Run>,
}

impl Comparison {
    /// The median of a time of the runs alone, and of those beside others.
    pub(crate) fn medians(&self, time_us: impl Fn(&Run) -> f64) -> (f64, f64) {
        let median = |runs: &[Run]| super::line::median(runs.iter().map(&time_us).collect());
        (median(&self.quiet), median(&self.disturbed))
    }

    /// No honest connection failed in any run.
    pub(crate) fn honest_failures(&self) -> Line {
        let runs = || self.quiet.iter().chain(&self.disturbed);
        let failed: u64 = runs().map(|run| run.failed).sum();
        let reasons: Vec<_> = runs().flat_map(|run| run.failures.keys().cloned()).collect();
        Line::new(
            "honest connections that failed",
            format!("{failed} {}", reasons.join(", ")),
            "0",
            failed == 0,
        )
    }

    /// The visitors of a sort, over all runs: that there were any, all ended as they must, and their pace was kept.
    pub(crate) fn visitors(&self, sort: crate::load::visitors::Sort) -> Vec<Line> {
        let came: Vec<_> = self
            .others
            .iter()
            .flat_map(|run| &run.visitors)
            .filter(|came| came.sort == sort.name())
            .collect();
        let sum =
            |count: fn(&crate::load::visitors::Came) -> u64| came.iter().map(|came| count(came)).sum::<u64>();
        let failures: Vec<_> = came
            .iter()
            .flat_map(|came| &came.failures)
            .map(|(why, count)| format!("{count} × {why}"))
            .collect();
        let (all, ended, missed) = (sum(|came| came.came), sum(|came| came.ended), sum(|came| came.missed));
        vec![
            Line::new(
                format!("{} that ended as they must", sort.name()),
                format!("{ended} of {all}{}", failures.iter().map(|f| format!("; {f}")).collect::<String>()),
                "all",
                all > 0 && ended == all && failures.is_empty(),
            ),
            Line::exactly("for whom there was no room at the client", missed, 0),
        ]
    }
}
