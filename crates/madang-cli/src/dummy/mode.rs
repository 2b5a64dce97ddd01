//! The modes: what a client does until its time is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::Client;
use super::conversation::{Conversation, Expected};
use super::hostile;
use super::judge::Due;
use super::link::{End, Flushed};
use super::message::Command;
use super::queue::queue;

/// A way to load the server and to judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Steady,
    OverSend,
    Churn,
    RandomDisconnect,
    Reset,
    NeverRead,
    Garbage,
    Deaf,
    Queue,
}

/// over-send: the client's receive buffer, small so that the echoes fill the server's side soon.
const OVER_SEND_RECEIVE_BUFFER: usize = 16 * 1024;

/// over-send: messages that leave in one write.
const OVER_SEND_GROUP: u64 = 16;

/// over-send: how long the client leaves the server to itself when there is no room to write, before it looks again.
const OVER_SEND_WAIT: Duration = Duration::from_millis(20);

/// over-send: how long there is no room to write before the client reads an echo to make some.
const OVER_SEND_STUCK: Duration = Duration::from_millis(100);

/// never-read: as little as the system permits, so that the server's side is what fills.
const NEVER_READ_RECEIVE_BUFFER: usize = 4 * 1024;

/// never-read: messages that leave in one write.
const NEVER_READ_GROUP: u64 = 16;

/// never-read: how soon the end is noticed when there is no room to write.
const NEVER_READ_PAUSE: Duration = Duration::from_millis(20);

/// deaf: how often it says a word.
const DEAF_WORD: Duration = Duration::from_secs(1);

/// deaf: how soon the end is noticed.
const DEAF_PAUSE: Duration = Duration::from_millis(100);

impl Mode {
    /// What `all` plays: what every echo server must stand. A deaf client is judged only where the server has something to
    /// say to everybody, a queue only where there is one.
    pub(crate) const EACH: [Self; 7] = [
        Self::Steady,
        Self::OverSend,
        Self::Churn,
        Self::RandomDisconnect,
        Self::Reset,
        Self::NeverRead,
        Self::Garbage,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::OverSend => "over-send",
            Self::Churn => "churn",
            Self::RandomDisconnect => "random-disconnect",
            Self::Reset => "reset",
            Self::NeverRead => "never-read",
            Self::Garbage => "garbage",
            Self::Deaf => "deaf",
            Self::Queue => "queue",
        }
    }

    /// Plays the mode on the client's own thread until its time is over.
    pub(crate) fn play(self, client: &mut Client<'_>) {
        match self {
            Self::Steady => steady(client),
            Self::OverSend => over_send(client),
            Self::Churn => churn(client),
            Self::RandomDisconnect => random_disconnect(client),
            Self::Reset => reset(client),
            // Odd clients attack, even ones are honest and must not notice.
            Self::Garbage if client.id % 2 == 1 => hostile::attack(client),
            // The same with those who do not read.
            Self::NeverRead if client.id % 2 == 1 => never_read(client),
            Self::Garbage | Self::NeverRead => steady(client),
            Self::Deaf => deaf(client),
            Self::Queue => queue(client),
        }
    }

    /// Whether some clients do wrong and others are honest beside them.
    pub(crate) const fn has_sides(self) -> bool {
        matches!(self, Self::NeverRead | Self::Garbage)
    }
}

/// Keeps `depth` messages outstanding on one connection and verifies each echo.
fn steady(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(None) else { continue };
        let result = keep_outstanding(client, &mut talk);
        client.finish(talk, result);
    }
}

fn keep_outstanding(client: &mut Client<'_>, talk: &mut Conversation) -> Result<(), End> {
    let depth = client.settings.depth;
    let mut pace = Pace::new(client);
    let mut said_at = VecDeque::new();
    while client.goes_on() {
        pace.wait();
        while talk.said() - talk.heard() < depth {
            talk.say(Command::Echo);
            said_at.push_back(Instant::now());
        }
        talk.flush()?;
        // Paced, the whole burst is heard before the next; else each echo makes room for a message.
        let leave = if pace.interval.is_zero() { depth - 1 } else { 0 };
        while talk.said() - talk.heard() > leave {
            let heard = talk.heard();
            talk.hear()?;
            for _ in heard..talk.heard() {
                client.tally.slowest(said_at.pop_front().map_or(Duration::ZERO, |at| at.elapsed()));
            }
        }
    }
    talk.hear_all()
}

/// Sends a burst without reading, waits, then reads and verifies all of it.
fn over_send(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(Some(OVER_SEND_RECEIVE_BUFFER)) else { continue };
        let mut result = Ok(());
        while result.is_ok() && client.goes_on() {
            let pause = Duration::from_millis(client.random.between(10, 200) as u64);
            result = burst(&mut talk, client.settings.burst, client.settings.patience).and_then(|()| {
                std::thread::sleep(pause);
                talk.hear_all()
            });
        }
        client.finish(talk, result);
    }
}

/// Says `count` messages and reads only when writing stands still: a server that stops reading while its echoes are
/// not taken is within its rights.
fn burst(talk: &mut Conversation, count: u64, patience: Duration) -> Result<(), End> {
    let end = talk.said() + count;
    while talk.said() < end {
        let written = talk.said();
        for _ in 0..OVER_SEND_GROUP.min(end - written) {
            talk.say(Command::Echo);
        }
        let mut moved = Instant::now();
        loop {
            match talk.flush_some()? {
                Flushed::All => break,
                Flushed::Part => moved = Instant::now(),
                Flushed::Nothing if moved.elapsed() < OVER_SEND_STUCK => std::thread::sleep(OVER_SEND_WAIT),
                // Only what was written whole has an echo that is sure to come.
                Flushed::Nothing if talk.heard() < written => talk.hear()?,
                Flushed::Nothing if moved.elapsed() > patience => return Err(End::Silent),
                Flushed::Nothing => std::thread::sleep(OVER_SEND_WAIT),
            }
        }
    }
    Ok(())
}

/// Connects, verifies a few echoes, closes, and connects at once again.
fn churn(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(None) else { continue };
        let echoes = client.random.between(0, 8);
        let result = (0..echoes).try_for_each(|_| {
            talk.say(Command::Echo);
            talk.flush()?;
            talk.hear()
        });
        match result {
            Ok(()) if client.random.one_in(2) => client.tally.add(talk.finish_at_once()),
            result => client.finish(talk, result),
        }
    }
}

/// Asks the server to end the connection in the middle of traffic, in either of its two gaits.
fn random_disconnect(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(None) else { continue };
        let gait = if client.random.one_in(2) { Command::Disconnect } else { Command::Farewell };
        let (before, behind) = (client.random.between(0, 32), client.random.between(0, 16));
        (0..before).for_each(|_| talk.say(Command::Echo));
        let asked = talk.said();
        talk.say(gait);
        (0..behind).for_each(|_| talk.say(Command::Echo));
        let end = talk.flush().map_or_else(|end| end, |()| talk.hear_end());
        // A disconnect drops what is queued; a farewell is the last message, and all before it arrives.
        let expected = match gait {
            Command::Farewell => {
                Expected { due: Due { at_least: asked + 1, at_most: asked + 1 }, abrupt: false }
            }
            _ => Expected { due: Due { at_least: 0, at_most: asked }, abrupt: true },
        };
        client.tally.add(talk.finish_ended(&end, expected));
    }
}

/// Resets the connection while echoes are in flight, at times in the middle of a frame.
fn reset(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(None) else { continue };
        let said = client.random.between(1, 64);
        let heard = client.random.between(0, said - 1);
        (0..said).for_each(|_| talk.say(Command::Echo));
        let mut result = talk.flush().and_then(|()| (0..heard).try_for_each(|_| talk.hear()));
        if result.is_ok() && client.random.one_in(2) {
            talk.say(Command::Echo);
            result = talk.flush_cut();
        }
        match result {
            Ok(()) => client.tally.add(talk.finish_by_reset()),
            Err(end) => client.tally.add(talk.finish_broken(&end)),
        }
    }
}

/// Asks for echoes, as long as there is room to write, and takes none: the server must end it.
fn never_read(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(Some(NEVER_READ_RECEIVE_BUFFER)) else { continue };
        let begun = Instant::now();
        let end = loop {
            if talk.has_ended() {
                break Ok(());
            }
            if begun.elapsed() > client.settings.patience {
                break Err("not-cut-off");
            }
            // A server that has more to send than echoes needs no more than that nobody reads.
            if !talk.waits_to_be_written() {
                talk.say_some(NEVER_READ_GROUP);
            }
            match talk.flush_some() {
                Ok(Flushed::All) => {}
                Ok(_) => std::thread::sleep(NEVER_READ_PAUSE),
                Err(_) => break Err("socket"),
            }
            if !client.goes_on() {
                client.tally.unjudged += 1;
                return client.tally.add(talk.finish_by_reset());
            }
        };
        client.tally.add(talk.finish_by_reset());
        match end {
            Ok(()) => {
                client.tally.repelled += 1;
                client.tally.slowest_end(begun.elapsed());
            }
            Err(kind) => client.fail(kind, "the server keeps a client that takes nothing".into()),
        }
    }
}

/// Joins and reads nothing, until the server ends it. It says a word now and then, or it would be cut off as silent.
fn deaf(client: &mut Client<'_>) {
    while client.goes_on() {
        let Some(mut talk) = client.converse(Some(NEVER_READ_RECEIVE_BUFFER)) else { continue };
        let (begun, mut word) = (Instant::now(), Instant::now());
        while !talk.has_ended() {
            if Instant::now() >= word && !talk.waits_to_be_written() {
                word += DEAF_WORD;
                talk.say(Command::Echo);
            }
            // A server that ended it is seen above.
            let _ended = talk.flush_some();
            if !client.goes_on() {
                client.tally.unjudged += 1;
                return client.tally.add(talk.finish_by_reset());
            }
            if begun.elapsed() > client.settings.patience {
                client.tally.add(talk.finish_by_reset());
                return client.fail("not-cut-off", "the server keeps a client that takes nothing".into());
            }
            std::thread::sleep(DEAF_PAUSE);
        }
        client.tally.repelled += 1;
        client.tally.slowest_end(begun.elapsed());
        return client.tally.add(talk.finish_by_reset());
    }
}

/// When the next burst of a paced client is due.
struct Pace {
    /// Zero when the client is not paced.
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// Spreads the clients over the first interval, so that they do not all speak at once.
    fn new(client: &mut Client<'_>) -> Self {
        let nanos = match client.settings.rate {
            0 => 0,
            rate => 1_000_000_000 * client.settings.depth / u64::from(rate),
        };
        let phase = client.random.next() % nanos.max(1);
        Self { interval: Duration::from_nanos(nanos), next: Instant::now() + Duration::from_nanos(phase) }
    }

    fn wait(&mut self) {
        if self.interval.is_zero() {
            return;
        }
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next += self.interval;
    }
}
