//! How a link comes in: the LAN's greeting, or the WAN's handshake and log-in, and the wait for a welcome.

use super::{End, Link, NoLink};
use crate::dummy::framing::{Framing, Kind, Malformed};
use crate::dummy::lan;
use crate::dummy::wan::{Hello, Pinned, Refusal, Shaking, words};

impl Link {
    /// Greets as the framing asks for it, and waits to be welcomed.
    pub(super) fn join(&mut self, wan: Option<&Pinned>) -> Result<(), NoLink> {
        match (self.framing, wan) {
            (Framing::Lan, _) => {
                self.put(Kind::Greeting, &lan::greeting(self.longest_message));
                self.flush().map_err(during_the_greeting)?;
                self.await_welcome(false)
            }
            (Framing::Wan, Some(pinned)) => {
                self.shake_hands(pinned)?;
                self.put(Kind::LogIn, &words::log_in(&pinned.token, &[]));
                self.flush().map_err(during_the_greeting)?;
                self.await_welcome(true)
            }
            _ => Ok(()),
        }
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

    /// Reads until the server has a place for us.
    fn await_welcome(&mut self, mut greeted: bool) -> Result<(), NoLink> {
        loop {
            let (kind, payload) = self.frame().map_err(during_the_greeting)?;
            let payload = &self.inbox[payload];
            let checked = match kind {
                Kind::Greeting if !greeted => {
                    greeted = true;
                    lan::check_greeting(payload).and_then(|limit| self.check_limit(limit))
                }
                Kind::Welcome if greeted => {
                    return lan::check_welcome(payload).map_err(|error| during_the_greeting(error.into()));
                }
                Kind::Ping if greeted => {
                    let pong = payload.to_vec();
                    self.put(Kind::Pong, &pong);
                    self.flush().map_err(during_the_greeting)?;
                    Ok(())
                }
                Kind::Queue if greeted => words::check_queue(payload).and_then(|state| {
                    let last = self.position.replace(state.position);
                    match last {
                        Some(last) if last < state.position => Err(Malformed(format!(
                            "the position in the queue rose from {last} to {}",
                            state.position
                        ))),
                        _ => Ok(()),
                    }
                }),
                Kind::Ticket if greeted => words::check_ticket(payload).map(|_ticket| ()),
                Kind::Draining if greeted => Ok(()),
                Kind::Refusal => return Err(NoLink::Refused(lan::describe_refusal(payload))),
                Kind::Goodbye if greeted => return Err(NoLink::Refused(lan::describe_goodbye(payload))),
                _ => Err(Malformed(format!("{kind:?} out of turn"))),
            };
            checked.map_err(|malformed| during_the_greeting(malformed.into()))?;
        }
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
