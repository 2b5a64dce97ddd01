//! The mode `queue`: more clients than a server has places. Each waits, plays for a moment, and goes.
//!
//! They come one after the other, each when the one before it knows where it stands, so that the order in which they must
//! be let in is that of their ids. Every tenth loses its link while it waits and comes back with its ticket.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::Client;
use super::link::{Link, News};

/// How long a client plays.
const PLAYS: Duration = Duration::from_secs(1);

/// How long one that lost its link stays away.
const AWAY: Duration = Duration::from_secs(2);

/// How soon the next client comes at the most. Those further back look less often, or a thousand of them would do nothing
/// else.
const LOOK_EACH: Duration = Duration::from_millis(1);

/// What all clients of a run have in common.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    /// The client whose turn it is to come.
    comes: AtomicU32,
    welcomed: AtomicU64,
}

impl Turnstile {
    /// Waits for the turn to come. False when the run is over first.
    fn wait(&self, client: &Client<'_>) -> bool {
        loop {
            let before = client.id.saturating_sub(self.comes.load(Ordering::Acquire));
            if before == 0 || !client.goes_on() {
                return before == 0;
            }
            std::thread::sleep(LOOK_EACH * before);
        }
    }

    fn next(&self, id: u32) {
        self.comes.fetch_max(id + 1, Ordering::AcqRel);
    }

    /// How many were welcome before.
    fn welcome(&self) -> u64 {
        self.welcomed.fetch_add(1, Ordering::AcqRel)
    }
}

pub(crate) fn queue(client: &mut Client<'_>) {
    let turnstile = client.turnstile;
    if !turnstile.wait(client) {
        return client.fail("late", "its turn to come was not before the end".into());
    }
    let link = come_in(client, turnstile);
    // Whatever became of it, the next one must not wait for it.
    turnstile.next(client.id);
    let Some(link) = link else { return };
    let place = turnstile.welcome();
    client.tally.out_of_order(place.abs_diff(client.id.into()));
    play(client, link);
}

/// Waits until it is welcome, and on the way lets the next one come.
fn come_in(client: &mut Client<'_>, turnstile: &Turnstile) -> Option<Link> {
    let mut link = client.knock(b"")?;
    // Far enough back that its turn does not come while it is away: it has to keep it, not to be passed over.
    let far = client.settings.clients / 3;
    let mut to_lose = client.id % 10 == 3;
    let mut waited = false;
    loop {
        let news = match link.news() {
            Ok(news) => news,
            Err(why) => {
                client.refused(why);
                return None;
            }
        };
        let position = match news {
            News::Welcome => break,
            News::Nothing => continue,
            News::Position(position) => position,
        };
        if !std::mem::replace(&mut waited, true) {
            client.tally.waited += 1;
            turnstile.next(client.id);
        }
        if to_lose && position > far && !link.ticket().is_empty() {
            to_lose = false;
            let ticket = link.ticket().to_vec();
            link.reset();
            std::thread::sleep(AWAY);
            link = client.knock(&ticket)?;
            link.must_not_stand_behind(position);
            client.tally.came_back += 1;
        }
    }
    Some(link)
}

/// Says a word now and then until its time is over, and leaves.
fn play(client: &mut Client<'_>, link: Link) {
    let mut talk = client.converse_on(link);
    let end = Instant::now() + PLAYS;
    let mut result = Ok(());
    while result.is_ok() && Instant::now() < end {
        talk.say_some(1);
        result = talk.flush().and_then(|()| talk.hear());
        std::thread::sleep(PLAYS / 4);
    }
    client.finish(talk, result);
}
