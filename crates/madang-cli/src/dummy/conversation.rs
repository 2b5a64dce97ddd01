//! One connection of one client with its judge: say, hear, and a verdict at the end.

use super::Settings;
use super::judge::{Due, Judge};
use super::link::{End, Flushed, Link, NoLink, Patience};
use super::message::{Claim, Command, Sizes, Speaker};
use super::random::Random;
use super::tally::{Failure, Tally};

/// Say messages with [`Conversation::say`] and [`Conversation::flush`], hear echoes with [`Conversation::hear`], and
/// end with one of the `finish` verbs: only they count what happened.
#[derive(Debug)]
pub(crate) struct Conversation {
    link: Link,
    judge: Judge,
    speaker: Speaker,
    sizes: Sizes,
    /// A payload in the making.
    payload: Vec<u8>,
    /// What was noticed on the way.
    noticed: Tally,
}

/// How the connection may end without fault, and what must have come back by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) due: Due,
    /// The server may end it by a reset or within a frame, as an abortive disconnect does.
    pub(crate) abrupt: bool,
}

impl Conversation {
    pub(crate) fn open(
        settings: &Settings,
        speaker: Speaker,
        receive_buffer: Option<usize>,
        patience: Patience,
    ) -> Result<Self, NoLink> {
        let random = Random::of(speaker.seed, &[u64::from(speaker.client), u64::from(speaker.connection)]);
        Ok(Self::on(Link::open(settings, receive_buffer, patience, random)?, settings, speaker))
    }

    /// A conversation over a link that is welcome already.
    pub(crate) fn on(link: Link, settings: &Settings, speaker: Speaker) -> Self {
        let sizes = settings.sizes;
        Self {
            link,
            judge: Judge::new(speaker, sizes),
            speaker,
            sizes,
            payload: Vec::new(),
            noticed: Tally { connections: 1, ..Tally::default() },
        }
    }

    /// Puts one more message behind those that wait to be written.
    pub(crate) fn say(&mut self, command: Command) {
        let Speaker { seed, client, connection } = self.speaker;
        let sequence = self.judge.say();
        self.payload.clear();
        Claim { command, client, connection, sequence }.write(seed, self.sizes, &mut self.payload);
        self.link.put_message(&self.payload);
    }

    /// Says so many messages that ask for an echo.
    pub(crate) fn say_some(&mut self, count: u64) {
        (0..count).for_each(|_| self.say(Command::Echo));
    }

    /// Whether something that was said is not written yet.
    pub(crate) fn waits_to_be_written(&self) -> bool {
        self.link.waits_to_be_written()
    }

    /// Whether the server has ended the connection, seen without reading: not before all that it sent was taken, unless it
    /// was reset.
    pub(crate) fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    /// Writes all that was said.
    pub(crate) fn flush(&mut self) -> Result<(), End> {
        self.link.flush()
    }

    /// Writes as much of what was said as there is room for now.
    pub(crate) fn flush_some(&mut self) -> Result<Flushed, End> {
        self.link.flush_some()
    }

    /// Writes only a beginning of what was said, of any length short of the whole.
    pub(crate) fn flush_cut(&mut self) -> Result<(), End> {
        self.link.flush_cut()
    }

    /// Waits for one echo and judges it.
    pub(crate) fn hear(&mut self) -> Result<(), End> {
        let payload = self.link.receive()?;
        if let Err(fault) = self.judge.hear(payload) {
            self.notice(&fault, "");
        }
        Ok(())
    }

    /// Waits for the echo of everything said.
    pub(crate) fn hear_all(&mut self) -> Result<(), End> {
        while self.judge.heard() < self.judge.said() {
            self.hear()?;
        }
        Ok(())
    }

    /// Hears until the connection ends.
    pub(crate) fn hear_end(&mut self) -> End {
        loop {
            if let Err(end) = self.hear() {
                return end;
            }
        }
    }

    /// Messages said so far.
    pub(crate) const fn said(&self) -> u64 {
        self.judge.said()
    }

    /// Messages whose echo came or was passed over.
    pub(crate) const fn heard(&self) -> u64 {
        self.judge.heard()
    }

    /// All is said and must have been heard: closes in order and makes sure that nothing more comes.
    pub(crate) fn finish_in_order(mut self) -> Tally {
        self.link.half_close();
        let end = self.hear_end();
        let all = self.judge.said();
        let expected = Expected { due: Due { at_least: all, at_most: all }, abrupt: false };
        self.finish_ended(&end, expected)
    }

    /// All is said and heard: closes at once without waiting for the server.
    pub(crate) fn finish_at_once(self) -> Tally {
        let all = self.judge.said();
        self.verdict(Due { at_least: all, at_most: all }, "")
    }

    /// Resets the connection, whatever is still in flight.
    pub(crate) fn finish_by_reset(self) -> Tally {
        let due = Due { at_least: 0, at_most: self.judge.said() };
        let Self { link, judge, speaker, mut noticed, .. } = self;
        noticed.broadcasts += link.broadcasts();
        link.reset();
        tally(&judge, speaker, noticed, due, "")
    }

    /// The server ended the connection though all that was said was due.
    pub(crate) fn finish_broken(mut self, end: &End) -> Tally {
        let all = self.judge.said();
        if matches!(end, End::Closed | End::Reset) && self.judge.heard() == all {
            self.notice_end(end);
        }
        self.finish_ended(end, Expected { due: Due { at_least: all, at_most: all }, abrupt: false })
    }

    /// The server ended the connection, as was asked of it or as it likes.
    pub(crate) fn finish_ended(mut self, end: &End, expected: Expected) -> Tally {
        match end {
            End::Closed => self.noticed.closed += 1,
            End::Reset => self.noticed.reset += 1,
            // Where the server may reset there need be no goodbye.
            End::Truncated if expected.abrupt => self.noticed.closed += 1,
            End::Cut { payload, reset } if expected.abrupt => {
                let ends = &mut self.noticed;
                *(if *reset { &mut ends.reset } else { &mut ends.closed }) += 1;
                if let Err(fault) = self.judge.hear_cut(payload) {
                    self.notice(&fault, " (cut by the end of the stream)");
                }
            }
            _ => self.notice_end(end),
        }
        let goodbye = self.link.goodbye().map(|goodbye| format!(", saying {goodbye}")).unwrap_or_default();
        self.verdict(expected.due, &format!("; {end}{goodbye}"))
    }

    fn verdict(mut self, due: Due, context: &str) -> Tally {
        self.noticed.broadcasts += self.link.broadcasts();
        tally(&self.judge, self.speaker, self.noticed, due, context)
    }

    fn notice(&mut self, fault: &super::judge::Fault, context: &str) {
        let Speaker { client, connection, .. } = self.speaker;
        self.noticed.fail(fault.messages(), Failure::of_fault(client, connection, fault, context));
    }

    fn notice_end(&mut self, end: &End) {
        let Speaker { client, connection, .. } = self.speaker;
        let progress = format!(" ({} of {} echoes were there)", self.judge.heard(), self.judge.said());
        self.noticed.fail(1, Failure::of_end(client, connection, end, &progress));
    }
}

fn tally(judge: &Judge, speaker: Speaker, mut noticed: Tally, due: Due, context: &str) -> Tally {
    for fault in judge.finish(due) {
        let Speaker { client, connection, .. } = speaker;
        noticed.fail(fault.messages(), Failure::of_fault(client, connection, &fault, context));
    }
    noticed.sent += judge.said();
    noticed.verified += judge.verified();
    noticed.waived += judge.said() - judge.heard().max(due.at_least);
    noticed
}
