//! Honest clients who stay connected, while others come and go beside them.
//!
//! ```text
//!   round 1:  nobody │ they come, settle ─ measured ─ go
//!   round 2:  they come, settle ─ measured ─ go │ nobody        and so on
//! ```

use std::time::Duration;

use super::guided::Guided;
use super::line::Line;
use super::parts::{Of, Part, Side};
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
    pub(crate) honest: Run,
    /// Those who came here.
    pub(crate) others: Run,
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
        // Of one part: they prepare again before each. It takes long by the thousand, so they are here first.
        let prepared = others.log_ins * (stage.options.seconds + 3);
        let mut crowd = stage.yielding(house, &format!("{} --prepared {prepared}", others.arguments))?;
        crowd.until("it speaks", |live| live.messages_per_second > 0.0)?;
        let prepared = honest_log_ins * stage.options.rounds * 2 * (stage.options.seconds + 5);
        let mut honest = stage.guided(house, &format!("{honest} --prepared {prepared}"))?;
        honest.say("come")?;
        honest.until("it speaks", |live| live.messages_per_second > 0.0)?;
        let (mut quiet, mut disturbed) = (Side::default(), Side::default());
        for round in 0..stage.options.rounds {
            if round % 2 == 0 {
                quiet.add(honest.seconds(stage.options.seconds)?);
            }
            disturbed.add(others.part(&mut crowd, &honest, stage.options.seconds)?);
            if round % 2 == 1 {
                quiet.add(honest.seconds(stage.options.seconds)?);
            }
        }
        honest.say("rest")?;
        honest.until("nobody logs in any more", |live| live.visitors == 0)?;
        Ok(Self { quiet, disturbed, honest: honest.end()?, others: crowd.end()? })
    }

    /// What the p99 must hold.
    pub(crate) fn judged(&self, what: &str, of: Of, hundredths: u32) -> Line {
        Line::within(what, of, &self.quiet, &self.disturbed, hundredths)
    }

    /// The same without a bound.
    pub(crate) fn unjudged(&self, what: &str, of: Of) -> Line {
        Line::beside(what, of, &self.quiet, &self.disturbed)
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

impl Others<'_> {
    /// They come, and go again; what the honest see in between.
    fn part(&self, crowd: &mut Guided<'_>, honest: &Guided<'_>, seconds: u64) -> anyhow::Result<Part> {
        crowd.say("come")?;
        crowd.until("all are here", |live| {
            live.visitors >= self.here && (self.log_ins == 0 || !live.log_ins.is_empty())
        })?;
        std::thread::sleep(self.settle);
        let seen = honest.seconds(seconds)?;
        crowd.say("rest")?;
        crowd.until("all are gone", |live| live.visitors == 0)?;
        Ok(seen)
    }
}
