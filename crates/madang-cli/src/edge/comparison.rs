//! Honest clients who stay connected, while others come and go beside them.
//!
//! ```text
//!   round 1:  nobody │ they come, settle ─ measured ─ go │ (the same, at the bystander's)
//!   round 2:  (at the bystander's) │ they come, settle ─ measured ─ go │ nobody        and so on
//! ```
//!
//! The bystander is a second server in this process, on the processor of the first and with the least share of it: who does
//! wrong there costs the machine what it costs here, and none of it stands in a shard's way. What the honest then see more
//! than undisturbed is the client's, the kernel's and the cache's, not the engine's.

use std::time::Duration;

use super::guided::Guided;
use super::line::Line;
use super::parts::{Of, Side};
use super::stage::{House, Stage};
use crate::load::report::Run;
use crate::load::visitors::{Came, Sort};

/// Those who come and go.
pub(crate) struct Others<'a> {
    /// Their load client's arguments.
    pub(crate) arguments: &'a str,
    /// So many are here before it counts.
    pub(crate) here: usize,
    /// And so long they have been.
    pub(crate) settle: Duration,
    /// Log-ins of theirs a second, whose handshakes are begun before they come.
    pub(crate) log_ins: u64,
}

/// What the honest saw.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) quiet: Side,
    pub(crate) disturbed: Side,
    /// None unless it was asked for.
    pub(crate) bystander: Option<Side>,
    pub(crate) honest: Run,
    /// Those who came here.
    pub(crate) others: Run,
}

/// Who is beside the honest, in which processes.
struct Beside<'a> {
    crowd: Option<Guided<'a>>,
    side: Side,
}

impl Comparison {
    /// Plays the rounds; `honest_log_ins` a second are begun before all.
    pub(crate) fn play(
        stage: &Stage<'_>,
        house: &House,
        honest: &str,
        honest_log_ins: u64,
        others: &Others<'_>,
    ) -> anyhow::Result<Self> {
        let bystander = stage.options.bystander.then(|| stage.bystander(house)).transpose()?;
        // Who does wrong is there first: it takes long to begin handshakes by the thousand.
        let wrong = |at: &House| {
            // Of one part: they prepare again before each.
            let prepared = others.log_ins * (stage.options.seconds + 3);
            let crowd = stage.yielding(at, &format!("{} --prepared {prepared}", others.arguments))?;
            crowd.until("it speaks", |live| live.messages_per_second > 0.0)?;
            anyhow::Ok(Beside { crowd: Some(crowd), side: Side::default() })
        };
        let mut sides = vec![Beside { crowd: None, side: Side::default() }, wrong(house)?];
        if let Some(bystander) = &bystander {
            sides.push(wrong(bystander)?);
        }
        let prepared =
            honest_log_ins * stage.options.rounds * sides.len() as u64 * (stage.options.seconds + 5);
        let mut honest = stage.guided(house, &format!("{honest} --prepared {prepared}"))?;
        honest.say("come")?;
        honest.until("it speaks", |live| live.messages_per_second > 0.0)?;
        for round in 0..stage.options.rounds {
            let count = sides.len();
            for at in 0..count {
                let at = if round % 2 == 0 { at } else { count - 1 - at };
                sides[at].part(stage, &honest, others)?;
            }
        }
        honest.say("rest")?;
        honest.until("nobody logs in any more", |live| live.visitors == 0)?;
        let honest = honest.end()?;
        let mut ended = Vec::new();
        for Beside { crowd, side } in sides {
            ended.push((side, crowd.map(Guided::end).transpose()?));
        }
        if let Some(bystander) = bystander {
            bystander.close()?;
        }
        let mut ended = ended.into_iter();
        let (quiet, _nobody) = ended.next().unwrap_or_default();
        let (disturbed, others) = ended.next().unwrap_or_default();
        let others = others.ok_or_else(|| anyhow::anyhow!("those who do wrong left no report"))?;
        Ok(Self { quiet, disturbed, bystander: ended.next().map(|(side, _)| side), honest, others })
    }

    /// What the p99 must hold, and what it was beside who does wrong elsewhere.
    pub(crate) fn judged(&self, what: &str, of: Of, hundredths: u32) -> Vec<Line> {
        let mut lines = vec![Line::within(what, of, &self.quiet, &self.disturbed, hundredths)];
        lines.extend(self.told(what, of));
        lines
    }

    /// The same without a bound.
    pub(crate) fn unjudged(&self, what: &str, of: Of) -> Vec<Line> {
        let mut lines = vec![Line::beside(what, of, &self.quiet, &self.disturbed)];
        lines.extend(self.told(what, of));
        lines
    }

    fn told(&self, what: &str, of: Of) -> Vec<Line> {
        let Some(bystander) = &self.bystander else { return Vec::new() };
        vec![
            Line::beside(&format!("{what}, them at a bystander's"), of, &self.quiet, bystander),
            Line::beside(&format!("{what}, here beside there"), of, bystander, &self.disturbed),
        ]
    }

    /// No honest connection failed.
    pub(crate) fn honest_failures(&self) -> Line {
        let Run { failed, failures, .. } = &self.honest;
        let reasons: Vec<_> = failures.keys().cloned().collect();
        Line::new(
            "honest connections that failed",
            format!("{failed} {}", reasons.join(", ")),
            "0",
            *failed == 0,
        )
    }

    /// Who came of a sort.
    pub(crate) fn came(&self, sort: Sort) -> Came {
        self.others.visitors.iter().find(|came| came.sort == sort.name()).cloned().unwrap_or_default()
    }

    /// The visitors of a sort: that there were any, all ended as they must, and their pace was kept.
    pub(crate) fn visitors(&self, sort: Sort) -> Vec<Line> {
        let Came { came, ended, missed, failures, .. } = self.came(sort);
        let failures: String = failures.iter().map(|(why, count)| format!("; {count} × {why}")).collect();
        vec![
            Line::new(
                format!("{} that ended as they must", sort.name()),
                format!("{ended} of {came}{failures}"),
                "all",
                came > 0 && ended == came && failures.is_empty(),
            ),
            Line::exactly("for whom there was no room at the client", missed, 0),
        ]
    }
}

impl Beside<'_> {
    fn part(&mut self, stage: &Stage<'_>, honest: &Guided<'_>, others: &Others<'_>) -> anyhow::Result<()> {
        if let Some(crowd) = &mut self.crowd {
            crowd.say("come")?;
            crowd.until("all are here", |live| {
                live.visitors >= others.here && (others.log_ins == 0 || !live.log_ins.is_empty())
            })?;
            std::thread::sleep(others.settle);
        }
        self.side.add(honest.seconds(stage.options.seconds)?);
        if let Some(crowd) = &mut self.crowd {
            crowd.say("rest")?;
            crowd.until("all are gone", |live| live.visitors == 0)?;
        }
        Ok(())
    }
}
