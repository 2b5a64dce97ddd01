//! One client: an id, its connections one after the other, and what they add up to.

use std::time::{Duration, Instant};

use super::Settings;
use super::conversation::Conversation;
use super::link::{End, Link, NoLink, Patience};
use super::message::Speaker;
use super::queue::Turnstile;
use super::random::Random;
use super::tally::{Failure, Tally};

/// After so many failures in its connections a client stops: more of the same teach nothing.
const FAILURES_ENOUGH: u64 = 10;

/// How long a client waits when this machine has no local port left for it.
const PORT_WAIT: Duration = Duration::from_millis(20);

/// How far a connection comes in before something else is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HowFar {
    /// A stranger: nothing was said.
    Connected,
    /// WAN: the handshake is over, the log-in was not said.
    Accepted,
    /// Welcome.
    Joined,
}

/// The thread of a client owns it.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) id: u32,
    pub(crate) turnstile: &'a Turnstile,
    /// For the choices that a mode makes; messages have their own.
    pub(crate) random: Random,
    pub(crate) tally: Tally,
    /// When no new work is begun.
    deadline: Instant,
    /// The number of the next connection.
    connection: u32,
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a Settings, turnstile: &'a Turnstile, id: u32, start: Instant) -> Self {
        Self {
            settings,
            id,
            turnstile,
            random: Random::of(settings.seed, &[u64::from(id)]),
            tally: Tally::default(),
            deadline: start + settings.lasts,
            connection: 0,
        }
    }

    /// Whether there is time left, and reason, to go on.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.deadline
            && !self.settings.signals.raised()
            && self.tally.failed.values().sum::<u64>() < FAILURES_ENOUGH
    }

    /// Opens the next connection for messages. Without one the failure is counted and the mode asks
    /// [`Client::goes_on`] again.
    pub(crate) fn converse(&mut self, receive_buffer: Option<usize>) -> Option<Conversation> {
        let speaker =
            Speaker { seed: self.settings.seed, client: self.id, connection: self.next_connection() };
        let opened = Conversation::open(self.settings, speaker, receive_buffer, self.patience());
        self.opened(opened)
    }

    /// Opens the next connection without a judge, as far as it is to come in by itself.
    pub(crate) fn link(&mut self, how_far: HowFar) -> Option<Link> {
        let (settings, patience, random) = (self.settings, self.patience(), self.next_random());
        let opened = match (how_far, &settings.wan) {
            (HowFar::Joined, _) => Link::open(settings, None, patience, random),
            (HowFar::Accepted, Some(pinned)) => Link::connect(settings, None, patience, random)
                .and_then(|mut link| link.shake_hands(pinned).map(|()| link)),
            _ => Link::connect(settings, None, patience, random),
        };
        self.opened(opened)
    }

    /// Opens the next connection and asks to be let in, with a ticket of an earlier one or an empty one.
    pub(crate) fn knock(&mut self, ticket: &[u8]) -> Option<Link> {
        let (settings, patience, random) = (self.settings, self.patience(), self.next_random());
        let opened = Link::connect(settings, None, patience, random)
            .and_then(|mut link| link.knock(settings.wan.as_ref(), ticket).map(|()| link));
        self.opened(opened)
    }

    /// Talks over the connection that was opened last and is welcome.
    pub(crate) fn converse_on(&self, link: Link) -> Conversation {
        let connection = self.connection.saturating_sub(1);
        let speaker = Speaker { seed: self.settings.seed, client: self.id, connection };
        Conversation::on(link, self.settings, speaker)
    }

    /// Ends a conversation in which all that was said was due, and counts it.
    pub(crate) fn finish(&mut self, talk: Conversation, result: Result<(), End>) {
        self.tally.add(match result {
            Ok(()) => talk.finish_in_order(),
            Err(end) => talk.finish_broken(&end),
        });
    }

    /// Counts a connection that was not let in.
    pub(crate) fn refused(&mut self, why: NoLink) {
        self.opened::<()>(Err(why));
    }

    /// Counts a failure of the connection that was opened last.
    pub(crate) fn fail(&mut self, kind: &'static str, what: String) {
        let connection = self.connection.saturating_sub(1);
        self.tally.fail(1, Failure { client: self.id, connection, kind, what });
    }

    /// Each wait has the same patience; all together end soon after the mode does.
    fn patience(&self) -> Patience {
        let each = self.settings.patience;
        Patience { each, until: self.deadline.max(Instant::now()) + each * 2 }
    }

    /// The next connection's randomness. Not on the path of the judged connections: no two handshakes may share a key.
    fn next_random(&mut self) -> Random {
        let connection = self.next_connection();
        Random::of(self.settings.seed, &[u64::from(self.id), u64::from(connection), u64::MAX])
    }

    fn next_connection(&mut self) -> u32 {
        self.connection += 1;
        self.connection - 1
    }

    fn opened<T>(&mut self, opened: Result<T, NoLink>) -> Option<T> {
        match opened {
            Ok(opened) => return Some(opened),
            Err(NoLink::NoLocalPort) => {
                self.tally.no_local_port += 1;
                std::thread::sleep(PORT_WAIT);
            }
            Err(NoLink::Refused(why)) => self.fail("refused", why),
        }
        None
    }
}
