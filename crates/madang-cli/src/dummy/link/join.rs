//! How a link comes in: the LAN's greeting, or the WAN's handshake and log-in, and the wait for a welcome.

use super::{End, Link, NoLink};
use crate::dummy::framing::{Framing, Kind, Malformed};
use crate::dummy::lan;
use crate::dummy::wan::{Hello, Pinned, Refusal, Shaking, words};

/// What a server says to a client that it knows and has not let in yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is in.
    Welcome,
    /// It waits, and this is where it stands now.
    Position(u32),
    /// Nothing that changes anything.
    Nothing,
}

impl Link {
    /// Asks to be let in, with a ticket from an earlier link or an empty one. Where the framing has no greeting it is in.
    pub(crate) fn knock(&mut self, wan: Option<&Pinned>, ticket: &[u8]) -> Result<(), NoLink> {
        match (self.framing, wan) {
            (Framing::Lan, _) => self.put(Kind::Greeting, &lan::greeting(self.longest_message, ticket)),
            (Framing::Wan, Some(pinned)) => {
                self.shake_hands(pinned)?;
                self.put(Kind::LogIn, &words::log_in(&pinned.token, ticket));
                // The answer to the handshake was the greeting.
                self.greeted = true;
            }
            _ => return Ok(()),
        }
        self.flush().map_err(during_the_greeting)
    }

    /// Waits for the welcome, however long the queue is, as long as it moves or the server pings.
    pub(super) fn await_welcome(&mut self) -> Result<(), NoLink> {
        while self.news()? != News::Welcome {}
        Ok(())
    }

    /// Waits for the server's next word.
    pub(crate) fn news(&mut self) -> Result<News, NoLink> {
        if !self.framing.has_control() {
            return Ok(News::Welcome);
        }
        let (kind, payload) = self.frame().map_err(during_the_greeting)?;
        let payload = &self.inbox[payload];
        let news = match kind {
            Kind::Greeting if !self.greeted => {
                self.greeted = true;
                lan::check_greeting(payload).and_then(|limit| self.check_limit(limit)).map(|()| News::Nothing)
            }
            Kind::Welcome if self.greeted => lan::check_welcome(payload).map(|()| News::Welcome),
            Kind::Ping if self.greeted => {
                let pong = payload.to_vec();
                self.put(Kind::Pong, &pong);
                self.flush().map_err(during_the_greeting)?;
                Ok(News::Nothing)
            }
            Kind::Queue if self.greeted => {
                words::check_queue(payload).and_then(|position| match self.position.replace(position) {
                    Some(last) if last < position => {
                        Err(Malformed(format!("the position in the queue rose from {last} to {position}")))
                    }
                    _ => Ok(News::Position(position)),
                })
            }
            Kind::Ticket if self.greeted => words::check_ticket(payload).map(|ticket| {
                self.ticket = ticket.to_vec();
                News::Nothing
            }),
            Kind::Draining | Kind::Pong if self.greeted => Ok(News::Nothing),
            Kind::Refusal => return Err(NoLink::Refused(lan::describe_refusal(payload))),
            Kind::Goodbye if self.greeted => return Err(NoLink::Refused(lan::describe_goodbye(payload))),
            _ => Err(Malformed(format!("{kind:?} out of turn"))),
        };
        news.map_err(|malformed| during_the_greeting(malformed.into()))
    }

    /// The ticket that keeps our turn, if we wait and were given one.
    pub(crate) fn ticket(&self) -> &[u8] {
        &self.ticket
    }

    /// The handshake alone: from here on both sides speak in records, and the server waits for a log-in.
    pub(crate) fn shake_hands(&mut self, pinned: &Pinned) -> Result<(), NoLink> {
        let hello = Hello::new(pinned.suite, self.longest_message);
        match self.say_hello(pinned, hello).map_err(during_the_greeting)? {
            Ok(limit) => self.check_limit(limit).map_err(|malformed| during_the_greeting(malformed.into())),
            Err(refused) => Err(NoLink::Refused(refused.words)),
        }
    }

    /// Sends a preamble with this hello and reads the answer: the longest message that the server accepts, or a refusal
    /// that its key vouches for.
    pub(crate) fn say_hello(&mut self, pinned: &Pinned, hello: Hello) -> Result<Result<usize, Refusal>, End> {
        let (shaking, preamble) = Shaking::begin(pinned, hello, self.random.bytes());
        self.write(&preamble)?;
        // Two bytes first, so that nothing of the records behind the answer is read with it.
        let mut head = [0; 2];
        self.read_exactly(&mut head)?;
        let mut answer = vec![0; Shaking::answer_len(head)?];
        self.read_exactly(&mut answer)?;
        Ok(shaking.end(&answer)?.map(|(limit, secured)| {
            self.secured = Some(secured);
            limit
        }))
    }

    fn check_limit(&self, limit: usize) -> Result<(), Malformed> {
        if limit >= self.longest_message {
            return Ok(());
        }
        Err(Malformed(format!("it accepts only {limit} bytes, and --size goes beyond")))
    }

    fn read_exactly(&mut self, room: &mut [u8]) -> Result<(), End> {
        let mut filled = 0;
        while filled < room.len() {
            filled += self.socket.read(&mut room[filled..])?;
        }
        Ok(())
    }
}

fn during_the_greeting(end: End) -> NoLink {
    NoLink::Refused(format!("during the greeting: {end}"))
}
