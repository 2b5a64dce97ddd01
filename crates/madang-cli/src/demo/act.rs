//! The three acts of the demo: who plays, what is seen meanwhile, and how it went.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use madang::Remote;
use madang::wire::wan::PublicKey;
use serde::Deserialize;

use super::meter::{Rates, Reading};
use super::screen::{Scene, Screen};
use crate::child::{Crowd, Ended};
use crate::load::report::{Drive, Line, Live, Run};
use crate::process;
use crate::signals::Signals;

/// How often the screen is drawn.
const DRAW_EACH: Duration = Duration::from_millis(500);

/// How often the crowds' lines are looked for.
const LOOK_EACH: Duration = Duration::from_millis(50);

/// Crowds end by themselves; if one does not, the demo does.
const LATE: Duration = Duration::from_secs(60);

/// Crowds that were asked to end get so long.
const LATE_AFTER_INTERRUPT: Duration = Duration::from_secs(10);

/// What is played.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) name: &'static str,
    pub(crate) story: String,
    pub(crate) drive: Drive,
    pub(crate) seconds: u64,
    /// The dummy's mode.
    pub(crate) mode: &'static str,
    /// Of each of the dummy's modes.
    pub(crate) mode_seconds: u64,
}

/// Who plays in every act.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    pub(crate) server: SocketAddr,
    pub(crate) driver: &'static str,
    pub(crate) threads: usize,
    pub(crate) connections: usize,
    pub(crate) dummies: usize,
    /// The key that the clients pin; none on a LAN.
    pub(crate) wan: Option<PublicKey>,
}

/// How an act went.
#[derive(Clone, Debug)]
pub(crate) struct Review {
    pub(crate) act: Act,
    /// What the load client measured; none when it did not get so far.
    pub(crate) run: Option<Run>,
    /// The server's side of it; none when it did not get so far.
    pub(crate) rates: Option<Rates>,
    /// The dummies' verdicts, by mode.
    pub(crate) verdicts: Vec<Verdict>,
    /// Both crowds say that all was right.
    pub(crate) right: bool,
}

/// What the dummies say of one mode.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) mode: String,
    pub(crate) connections: u64,
    pub(crate) verified: u64,
    pub(crate) repelled: u64,
    pub(crate) failed: BTreeMap<String, u64>,
}

impl Act {
    /// Plays it to its end, or to a signal.
    pub(crate) fn play(
        self,
        cast: &Cast,
        server: &Remote,
        signals: &Signals,
        screen: &mut Screen,
    ) -> anyhow::Result<Review> {
        let mut play = Play::begin(self, cast, server)?;
        let mut deadline = Instant::now() + Duration::from_secs(play.review.act.seconds) + LATE;
        let mut interrupted = false;
        let mut next_draw = Instant::now();
        while play.goes_on()? {
            play.measure(cast, server);
            if signals.raised() && !interrupted {
                interrupted = true;
                play.load.interrupt();
                play.dummies.interrupt();
                deadline = Instant::now() + LATE_AFTER_INTERRUPT;
            }
            if Instant::now() > deadline {
                anyhow::bail!("the crowds of \"{}\" did not come to an end", play.review.act.name);
            }
            if Instant::now() >= next_draw {
                next_draw += DRAW_EACH;
                play.draw(server, screen);
            }
            std::thread::sleep(LOOK_EACH);
        }
        play.end()
    }
}

/// An act that is being played.
struct Play {
    load: Crowd,
    dummies: Crowd,
    review: Review,
    live: Live,
    /// When all had joined.
    first: Option<Reading>,
    last: Reading,
}

impl Play {
    fn begin(act: Act, cast: &Cast, server: &Remote) -> anyhow::Result<Self> {
        let review = Review { act, run: None, rates: None, verdicts: Vec::new(), right: false };
        Ok(Self {
            load: Crowd::start("load", &review.act.load_arguments(cast))?,
            dummies: Crowd::start("dummy", &review.act.dummy_arguments(cast))?,
            live: Live::default(),
            first: None,
            last: Reading::take(server.figures()),
            review,
        })
    }

    /// Takes in what the crowds said; whether one of them still plays.
    fn goes_on(&mut self) -> anyhow::Result<bool> {
        let load = loop {
            match self.load.line() {
                Ok(Some(line)) => match serde_json::from_str(&line)? {
                    Line::Live(live) => self.live = live,
                    Line::Report(report) => self.review.run = report.runs.into_iter().next(),
                },
                Ok(None) => break true,
                Err(Ended) => break false,
            }
        };
        let dummies = loop {
            match self.dummies.line() {
                Ok(Some(line)) => self.review.verdicts.push(serde_json::from_str(&line)?),
                Ok(None) => break true,
                Err(Ended) => break false,
            }
        };
        Ok(load || dummies)
    }

    /// The server's rates from when all had joined until the crowd was done.
    fn measure(&mut self, cast: &Cast, server: &Remote) {
        if self.review.run.is_some() {
            return;
        }
        let now = Reading::take(server.figures());
        match &self.first {
            Some(first) if now.figures().sessions >= cast.connections as u64 => {
                self.review.rates = now.since(first);
            }
            // Those of the last act may still be leaving while the first of this one join.
            None if self.live.connections == cast.connections => self.first = Some(now),
            _ => {}
        }
    }

    fn draw(&mut self, server: &Remote, screen: &mut Screen) {
        let now = Reading::take(server.figures());
        let rates = now.since(&self.last);
        screen.draw(&Scene {
            act: &self.review.act,
            figures: now.figures(),
            rates: rates.unwrap_or_default(),
            latency: self.live.latency,
            resident: process::resident().map(|resident| resident.now),
            verdicts: &self.review.verdicts,
        });
        self.last = now;
    }

    fn end(mut self) -> anyhow::Result<Review> {
        let (load, dummies) = (self.load.verdict()?, self.dummies.verdict()?);
        self.review.right = load && dummies;
        Ok(self.review)
    }
}

impl Cast {
    /// What the crowds speak, as an option of theirs.
    fn speech(&self) -> (&'static str, String) {
        match self.wan {
            Some(key) => ("--wan", key.to_string()),
            None => ("--framing", "lan".to_owned()),
        }
    }
}

impl Act {
    fn load_arguments(&self, cast: &Cast) -> Vec<String> {
        // The client takes the best driver whatever the server is told to use: its clock is part of the figures.
        // The first second of a crowd that just came in says more about the start than about the act.
        let warm_up = self.seconds.min(2) - 1;
        let mut arguments = words("--live --json");
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--addr", cast.server.to_string());
        let (speech, which) = cast.speech();
        add(speech, which);
        add("--connections", cast.connections.to_string());
        add("--threads", cast.threads.to_string());
        add("--warm-up-seconds", warm_up.to_string());
        add("--seconds", (self.seconds - warm_up).to_string());
        match self.drive {
            Drive::Closed { depth } => add("--depth", depth.to_string()),
            Drive::Paced { messages_per_second } => add("--rate", messages_per_second.to_string()),
        }
        arguments
    }

    fn dummy_arguments(&self, cast: &Cast) -> Vec<String> {
        let mut arguments = words("--report json-lines --rate 20 --burst 256");
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--addr", cast.server.to_string());
        let (speech, which) = cast.speech();
        add(speech, which);
        add("--clients", cast.dummies.to_string());
        add("--mode", self.mode.to_owned());
        add("--seconds", self.mode_seconds.to_string());
        arguments
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
