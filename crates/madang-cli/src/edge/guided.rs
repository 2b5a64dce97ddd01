//! A crowd of the load client that stays, tells how it goes, and is told when those beside it are to come.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::parts::{Part, SLICES_A_SECOND, Slice};
use super::stage::Stage;
use crate::child::Crowd;
use crate::load::latency::Latency;
use crate::load::report::{self, Live, Run};

/// Until something comes to pass that is waited for: a crowd connects, prepares its handshakes, sees its visitors out.
const LATE: Duration = Duration::from_secs(90);

pub(crate) struct Guided<'a> {
    stage: &'a Stage<'a>,
    crowd: Crowd,
}

impl<'a> Guided<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, crowd: Crowd) -> Self {
        Self { stage, crowd }
    }

    pub(crate) fn say(&mut self, word: &str) -> anyhow::Result<()> {
        self.crowd.say(word)
    }

    /// Waits until what it tells from now on is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Live) -> bool) -> anyhow::Result<()> {
        self.drain();
        let deadline = Instant::now() + LATE;
        while !so(&self.live()?) {
            if Instant::now() > deadline {
                bail!("a crowd did not come to this: {what}");
            }
        }
        Ok(())
    }

    /// The next so many seconds of what its honest clients see.
    pub(crate) fn seconds(&self, seconds: u64) -> anyhow::Result<Part> {
        self.forget()?;
        (0..seconds * SLICES_A_SECOND).map(|_| self.slice()).collect()
    }

    /// The same, as long as something is so.
    pub(crate) fn while_so(&self, so: impl Fn() -> bool) -> anyhow::Result<Part> {
        self.forget()?;
        let mut part = Part::new();
        while so() {
            part.push(self.slice()?);
        }
        Ok(part)
    }

    /// The crowd's whole report, once it was told to come to its end.
    pub(crate) fn end(mut self) -> anyhow::Result<Run> {
        self.say("end")?;
        self.stage.report(self.crowd)
    }

    fn slice(&self) -> anyhow::Result<Slice> {
        let Live { echoes, log_ins, .. } = self.live()?;
        Ok(Slice { echoes: Latency::of_seen(&echoes), log_ins: Latency::of_seen(&log_ins) })
    }

    /// What was told so far lies behind us, and so does the interval that is under way.
    fn forget(&self) -> anyhow::Result<()> {
        self.drain();
        self.live().map(drop)
    }

    fn drain(&self) {
        while let Ok(Some(_)) = self.crowd.line() {}
    }

    /// How it goes, in its next words.
    fn live(&self) -> anyhow::Result<Live> {
        let deadline = Instant::now() + LATE;
        while let Some(line) = self.stage.next_line(&self.crowd, deadline)? {
            if let report::Line::Live(live) = serde_json::from_str(&line)? {
                return Ok(live);
            }
        }
        bail!("a crowd ended before it should: {}", self.crowd.complaint())
    }
}
