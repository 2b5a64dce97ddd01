//! What a stranger or a broken client may do to a server, and what the server must answer: an end.
//!
//! Each attack is one connection. The server must end it within patience, without an answer where docs/wire.md says
//! that there is none. That honest clients do not notice is judged by the honest clients beside it.

mod wan;

use std::time::Duration;

use super::client::{Client, HowFar};
use super::framing::{CLASSIC_CODE, Framing, Kind, encode_frame};
use super::link::{End, Link};
use super::random::Random;
use super::wan::{Hello, Secured};
use super::{Settings, lan};

/// Between two attacks of one client, so that a loop of cheap attacks leaves the machine to the honest ones.
const PAUSE: Duration = Duration::from_millis(2);

/// Between two bytes of a greeting that never gets done.
const DRIBBLE: Duration = Duration::from_millis(500);

/// One hostile connection.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    name: &'static str,
    from: From,
    says: Says,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Never greeted: the server answers not a byte.
    Stranger,
    /// Greets in a way that is understood and refused: the server answers at most a greeting and a refusal.
    Refused,
    /// WAN: the handshake is over and the log-in wrong, or none.
    Accepted,
    /// Joined properly: the server may say goodbye.
    Joined,
}

#[derive(Clone, Debug)]
enum Says {
    These(Vec<u8>),
    /// WAN: what these make of the connection's own records. Of the messages among them the server may have taken so many
    /// before it noticed.
    Records(fn(&mut Secured, &mut Random) -> Vec<u8>, u64),
    /// WAN: a hello that must be refused for this reason.
    Hello(Hello, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Wait for the server to end it.
    Wait,
    /// End our direction and wait for the server to end its own.
    HalfClose,
    /// Not at once: byte by byte, so slowly that the server must lose its patience.
    Dribble,
}

/// Attacks again and again until the client's time is over.
pub(crate) fn attack(client: &mut Client<'_>) {
    // Attacks that make the server wait for its deadline have clients of their own, or there would be few others.
    let patient = client.id % 8 == 1 && !slow_attacks(client.settings).is_empty();
    while client.goes_on() {
        let attacks = match patient {
            true => slow_attacks(client.settings),
            false => attacks(client.settings, &mut client.random),
        };
        for attack in attacks {
            if !client.goes_on() {
                return;
            }
            let Some(link) = client.link(attack.from.how_far()) else { continue };
            match attack.play(link, client) {
                Ok(()) => client.tally.repelled += 1,
                Err((kind, what)) => client.fail(kind, format!("{}: {what}", attack.name)),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Attack {
    fn new(name: &'static str, from: From, bytes: &[u8], then: Then) -> Self {
        Self { name, from, says: Says::These(bytes.to_vec()), then }
    }

    fn play(&self, mut link: Link, client: &mut Client<'_>) -> Result<(), (&'static str, String)> {
        let (answered, end) = match (&self.says, &client.settings.wan) {
            (Says::These(bytes), _) => self.provoke(&mut link, bytes).unwrap_or_else(|end| (0, end)),
            (Says::Records(make, taken), _) => {
                let (echoes, end) = self.play_records(&mut link, *make, &mut client.random);
                if echoes > *taken {
                    return Err(("answered", format!("{echoes} echoes of what no server may take")));
                }
                (0, end)
            }
            (Says::Hello(hello, reason), Some(pinned)) => {
                match link.say_hello(pinned, *hello) {
                    Ok(Err(refused)) if refused.reason == *reason => {}
                    Ok(Err(refused)) => return Err(("answered", refused.words)),
                    Ok(Ok(_)) => return Err(("not-repelled", "it was accepted".into())),
                    Err(end) => return Err(("not-refused", end.to_string())),
                }
                link.drain()
            }
            (Says::Hello(..), None) => unreachable!("only attacks on the WAN have a hello"),
        };
        if !matches!(end, End::Closed | End::Reset) {
            return Err(("not-repelled", end.to_string()));
        }
        if answered > self.from.answer_longest() {
            return Err(("answered", format!("{answered} bytes came before the end")));
        }
        Ok(())
    }

    /// Says the records, and counts the echoes until the end. How cleanly it ends is not asked of a server that was
    /// attacked; that its records open is.
    fn play_records(
        &self,
        link: &mut Link,
        make: fn(&mut Secured, &mut Random) -> Vec<u8>,
        random: &mut Random,
    ) -> (u64, End) {
        let Some(secured) = link.secured() else { return (0, End::Malformed("no records here".into())) };
        let bytes = make(secured, random);
        let mut said = link.write(&bytes);
        if self.then == Then::HalfClose {
            link.half_close_without_goodbye();
        }
        let mut echoes = 0;
        loop {
            match said.and_then(|()| link.receive().map(|_echo| ())) {
                Ok(()) => echoes += 1,
                Err(End::Truncated | End::Cut { .. }) => return (echoes, End::Closed),
                Err(end) => return (echoes, end),
            }
            said = Ok(());
        }
    }

    fn provoke(&self, link: &mut Link, bytes: &[u8]) -> Result<(usize, End), End> {
        if self.then == Then::Dribble {
            for byte in bytes.chunks(1) {
                link.write(byte)?;
                if let Some(ended) = link.drain_for(DRIBBLE) {
                    return Ok(ended);
                }
            }
        } else {
            link.write(bytes)?;
        }
        if self.then == Then::HalfClose {
            link.half_close_without_goodbye();
        }
        Ok(link.drain())
    }
}

impl From {
    const fn how_far(self) -> HowFar {
        match self {
            Self::Stranger | Self::Refused => HowFar::Connected,
            Self::Accepted => HowFar::Accepted,
            Self::Joined => HowFar::Joined,
        }
    }

    const fn answer_longest(self) -> usize {
        match self {
            Self::Stranger => 0,
            Self::Refused => (4 + 512) + (4 + 131),
            // A goodbye, and the pings that were due until then.
            Self::Accepted | Self::Joined => 256,
        }
    }
}

/// Attacks that a server ends at the byte that is wrong.
fn attacks(settings: &Settings, random: &mut Random) -> Vec<Attack> {
    let framing = settings.framing;
    let mut noise = Vec::new();
    random.fill(64, &mut noise);
    let mut tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    random.fill(500, &mut tls);
    let stranger = |name, bytes: &[u8]| Attack::new(name, From::Stranger, bytes, Then::Wait);
    let cut = |name, bytes: &[u8]| Attack::new(name, From::Stranger, bytes, Then::HalfClose);
    let mut list = vec![
        stranger("HTTP probe", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        stranger("TLS probe", &tls),
        cut("gone at once", b""),
    ];
    match framing {
        Framing::Lan => {
            list.extend([
                stranger("random bytes", &never_a_frame(&noise, 3, 0x80)),
                stranger("message before the greeting", &frame(Kind::Message, b"too early")),
                stranger("greeting too long", &[1, 2, 0, 1]),
                stranger("greeting too short", &[5, 0, 0, 1]),
                stranger("wrong magic", &edited_greeting(3, b'H')),
                cut("header of the greeting cut", &[44, 0]),
                cut("greeting cut", &edited_greeting(0, b'M')[..20]),
            ]);
            list.extend(
                [
                    ("another protocol", 4, 2),
                    ("unknown flag", 7, 0x80),
                    ("frame limit above any", 15, 0x7f),
                    ("service name too long", 32, 65),
                ]
                .map(|(name, at, byte)| {
                    Attack::new(name, From::Refused, &edited_greeting(at, byte), Then::Wait)
                }),
            );
            let joined = |name, bytes: &[u8]| Attack::new(name, From::Joined, bytes, Then::Wait);
            list.extend([
                joined("joined: unknown kind", &[1, 0, 0, 8]),
                joined("joined: kind 0", &[1, 0, 0, 0]),
                joined("joined: empty message", &[0, 0, 0, 4]),
                joined("joined: longest length", &[0xff, 0xff, 0xff, 4]),
                joined("joined: short ping", &[4, 0, 0, 5]),
                joined("joined: second greeting", &edited_greeting(0, b'M')),
                joined("joined: random bytes", &never_a_frame(&noise, 3, 0x80)),
                Attack::new("joined: header cut", From::Joined, &[24, 0, 0], Then::HalfClose),
                Attack::new("joined: message cut", From::Joined, &[24, 0, 0, 4, b'E', 0], Then::HalfClose),
            ]);
        }
        Framing::Be32 => list.extend([
            stranger("random bytes", &never_a_frame(&noise, 0, 0x80)),
            stranger("empty message", &[0, 0, 0, 0]),
            stranger("longest length", &[0xff; 4]),
            stranger("length beyond any limit", &[1, 0, 0, 0]),
            cut("header cut", &[0, 0, 0]),
            cut("message cut", &[0, 0, 0, 24, b'E', 0]),
        ]),
        Framing::Classic => {
            let mut altered = Vec::new();
            framing.encode(b"a payload whose sum will not fit", random, &mut altered);
            // The mask of no other byte follows from the last, so that the sum is certain to change.
            altered.last_mut().into_iter().for_each(|byte| *byte ^= 1);
            list.extend([
                stranger("random bytes", &never_a_frame(&noise, 0, CLASSIC_CODE ^ 0xff)),
                stranger("another code", &[CLASSIC_CODE ^ 1]),
                stranger("empty message", &[CLASSIC_CODE, 0, 0, 1, 1]),
                stranger("altered payload", &altered),
                cut("header cut", &altered[..4]),
                cut("message cut", &altered[..9]),
            ]);
        }
        Framing::Wan => list.extend(wan::attacks(settings, random)),
    }
    list
}

/// Attacks that last until a deadline of the server; only greetings and log-ins have one.
fn slow_attacks(settings: &Settings) -> Vec<Attack> {
    let greeting = edited_greeting(0, b'M');
    match settings.framing {
        Framing::Lan => vec![
            Attack::new("mute", From::Stranger, b"", Then::Wait),
            Attack::new("half a header, then mute", From::Stranger, &greeting[..2], Then::Wait),
            Attack::new("half a greeting, then mute", From::Stranger, &greeting[..20], Then::Wait),
            Attack::new("greeting byte by byte", From::Stranger, &greeting, Then::Dribble),
        ],
        Framing::Wan => wan::slow_attacks(settings),
        Framing::Be32 | Framing::Classic => Vec::new(),
    }
}

/// A LAN greeting, whole and right but for the byte at `at` of its payload.
fn edited_greeting(at: usize, byte: u8) -> Vec<u8> {
    let mut payload = lan::greeting(0, b"");
    payload[at] = byte;
    frame(Kind::Greeting, &payload)
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(kind, payload, &mut frame);
    frame
}

/// Random bytes that cannot be a header by chance.
fn never_a_frame(noise: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = noise.to_vec();
    bytes[at] = byte;
    bytes
}
