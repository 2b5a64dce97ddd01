//! The attacks that only a WAN has: broken preambles, hellos that do not suit, records that no key vouches for.

use super::{Attack, From, Says, Then, edited_greeting, frame, never_a_frame};
use crate::dummy::Settings;
use crate::dummy::framing::Kind;
use crate::dummy::random::Random;
use crate::dummy::wan::{Hello, Pinned, Secured, Shaking, record, retag, words};

/// Where the parts of a preamble lie.
const LENGTH: usize = 4;
const KEY_ID: usize = 6;
const SUITE: usize = 12;
const MESSAGE_1: usize = 30;
const TAG: usize = 78;

/// The tag behind a record.
const RECORD_TAG: usize = 16;

/// Attacks that a server ends at the byte that is wrong.
pub(super) fn attacks(settings: &Settings, random: &mut Random) -> Vec<Attack> {
    let Some(pinned) = &settings.wan else { return Vec::new() };
    let noise: [u8; 64] = random.bytes();
    let mut preamble = Preamble { pinned, random };
    let mut list = preamble.broken();
    list.push(Attack::new(
        "random bytes",
        From::Stranger,
        &never_a_frame(&noise, 0, b'M' ^ 0x80),
        Then::Wait,
    ));
    list.extend(refused(pinned));
    list.extend(accepted());
    list.extend(joined());
    list
}

/// Attacks that last until a deadline of the server.
pub(super) fn slow_attacks(settings: &Settings) -> Vec<Attack> {
    let Some(pinned) = &settings.wan else { return Vec::new() };
    let preamble = Preamble { pinned, random: &mut Random::new(settings.seed) }.whole();
    let slow = |name, from, bytes: &[u8], then| Attack::new(name, from, bytes, then);
    vec![
        slow("mute", From::Stranger, b"", Then::Wait),
        slow("half a preamble, then mute", From::Stranger, &preamble[..50], Then::Wait),
        slow("preamble byte by byte", From::Stranger, &preamble, Then::Dribble),
        // It is answered as it was the first time, and whoever repeats it has no keys for the answer.
        slow("preamble of another time, then mute", From::Refused, &preamble, Then::Wait),
        slow("accepted, then mute", From::Accepted, b"", Then::Wait),
    ]
}

/// Makes preambles that a client could have sent, and edits them.
struct Preamble<'a> {
    pinned: &'a Pinned,
    random: &'a mut Random,
}

impl Preamble<'_> {
    fn whole(&mut self) -> Vec<u8> {
        Shaking::begin(self.pinned, Hello::new(self.pinned.suite, 0), self.random.bytes()).1
    }

    /// One that was changed on the way, so that its tag is wrong.
    fn altered(&mut self, at: usize, edit: impl FnOnce(&mut u8)) -> Vec<u8> {
        let mut preamble = self.whole();
        edit(&mut preamble[at]);
        preamble
    }

    /// One that somebody made who knows the public key: its tag is right.
    fn forged(&mut self, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut preamble = self.whole();
        edit(&mut preamble);
        retag(&mut preamble, self.pinned.server);
        preamble
    }

    /// None of these gets a byte.
    fn broken(&mut self) -> Vec<Attack> {
        let bit = 1 << self.random.between(0, 7);
        let mut tagged = || self.random.between(KEY_ID + 4, TAG - 1);
        let (somewhere, elsewhere) = (tagged(), tagged());
        let stranger = |name, bytes: &[u8]| Attack::new(name, From::Stranger, bytes, Then::Wait);
        vec![
            stranger("SSH probe", b"SSH-2.0-OpenSSH_9.9\r\n"),
            stranger("LAN greeting", &edited_greeting(0, b'M')),
            stranger("wrong magic", &self.altered(3, |byte| *byte ^= bit)),
            stranger("preamble too short", &self.altered(LENGTH, |byte| *byte = 76)),
            stranger("preamble too long", &self.altered(LENGTH + 1, |byte| *byte = 2)),
            stranger("another server's key", &self.altered(KEY_ID + 1, |byte| *byte ^= bit)),
            stranger("altered under its tag", &self.altered(somewhere, |byte| *byte ^= bit)),
            stranger("altered under its tag", &self.altered(elsewhere, |byte| *byte ^= bit)),
            stranger("tag altered", &self.altered(TAG + 15, |byte| *byte ^= bit)),
            stranger("message 1 altered, tag right", &self.forged(|bytes| bytes[TAG - 1] ^= bit)),
            stranger("suite changed, tag right", &self.forged(|bytes| bytes[SUITE] ^= 3)),
            stranger("no such suite, tag right", &self.forged(|bytes| bytes[SUITE] = 0x7f)),
            stranger("worthless key 0", &self.forged(|bytes| bytes[MESSAGE_1..MESSAGE_1 + 32].fill(0))),
            stranger(
                "worthless key 1",
                &self.forged(|bytes| {
                    bytes[MESSAGE_1..MESSAGE_1 + 32].fill(0);
                    bytes[MESSAGE_1] = 1;
                }),
            ),
            Attack::new("preamble cut", From::Stranger, &self.whole()[..TAG], Then::HalfClose),
        ]
    }
}

/// Each of these is refused in words that the server's key vouches for.
fn refused(pinned: &Pinned) -> Vec<Attack> {
    let hello = Hello::new(pinned.suite, 0);
    [
        ("another protocol", Hello { protocol: 2, ..hello }, 2),
        ("unknown flag", Hello { flags: 0x80, ..hello }, 1),
        ("no frame limit", Hello { frame_limit: 0, ..hello }, 6),
        ("frame limit above any", Hello { frame_limit: 1 << 24, ..hello }, 6),
        ("a byte more than its version has", Hello { more: 1, ..hello }, 1),
    ]
    .map(|(name, hello, reason)| Attack {
        name,
        from: From::Refused,
        says: Says::Hello(hello, reason),
        then: Then::Wait,
    })
    .into()
}

/// The handshake is over, and what should be a log-in is none.
fn accepted() -> Vec<Attack> {
    let records =
        |name, make| Attack { name, from: From::Accepted, says: Says::Records(make, 0), then: Then::Wait };
    vec![
        records("accepted: message before the log-in", |ours, _| sealed(ours, &echo())),
        records("accepted: bare message before the log-in", |ours, _| bare(ours, b"Echo")),
        records("accepted: log-in with a byte too many", |ours, _| {
            let mut payload = words::log_in(b"", b"");
            payload.push(0);
            sealed(ours, &frame(Kind::LogIn, &payload))
        }),
        records("accepted: log-in altered", |ours, random| {
            altered(sealed(ours, &frame(Kind::LogIn, &words::log_in(b"", b""))), random)
        }),
        records("accepted: log-in in the clear", |_, _| frame(Kind::LogIn, &words::log_in(b"", b""))),
        records("accepted: a welcome", |ours, _| sealed(ours, &frame(Kind::Welcome, &[0; 16]))),
        // Who has not said who it is gets no more room than a log-in takes.
        records("accepted: record too long", |_, _| record(2_250 + RECORD_TAG as u16 + 1, &[])),
        Attack::new("accepted: gone at once", From::Accepted, b"", Then::HalfClose),
    ]
}

/// Joined, and then a record that no key vouches for, or one that holds what no client may say.
fn joined() -> Vec<Attack> {
    type Make = fn(&mut Secured, &mut Random) -> Vec<u8>;
    let wait: [(&'static str, u64, Make); 22] = [
        ("joined: record altered", 0, |ours, random| altered(sealed(ours, &echo()), random)),
        ("joined: record's length altered", 0, |ours, _| {
            // The tag stands one byte from where the length says: it must not open.
            let mut record = sealed(ours, &echo());
            record[0] -= 1;
            record
        }),
        ("joined: record twice", 1, |ours, _| sealed(ours, &echo()).repeat(2)),
        ("joined: records in the wrong order", 0, |ours, _| {
            let first = sealed(ours, &echo());
            [sealed(ours, &echo()), first].concat()
        }),
        ("joined: bare record twice", 1, |ours, _| bare(ours, b"Echo").repeat(2)),
        ("joined: frames said to be a bare message", 0, |ours, _| {
            let mut record = sealed(ours, &echo());
            record[1] ^= 0x80;
            record
        }),
        ("joined: bare message said to be frames", 0, |ours, _| {
            let mut record = bare(ours, &echo());
            record[1] ^= 0x80;
            record
        }),
        ("joined: bare record of nothing", 0, |ours, _| bare(ours, &[])),
        ("joined: bare record too long", 0, |_, _| record(0x8000 + 16_384 + RECORD_TAG as u16 + 1, &[])),
        ("joined: record left out", 0, |ours, _| {
            let _left_out = sealed(ours, &echo());
            sealed(ours, &echo())
        }),
        ("joined: in the clear", 0, |_, _| frame(Kind::Ping, &[0; 8])),
        ("joined: random record", 0, |_, random| record(64, &random.bytes::<64>())),
        ("joined: record too short", 0, |_, _| record(RECORD_TAG as u16 + 4, &[0; 20])),
        ("joined: record of nothing", 0, |ours, _| sealed(ours, &[])),
        ("joined: record too long", 0, |_, _| record(16_388 + RECORD_TAG as u16 + 1, &[])),
        ("joined: unknown kind", 0, |ours, _| sealed(ours, &[1, 0, 0, 13, 0])),
        ("joined: kind 0", 0, |ours, _| sealed(ours, &[1, 0, 0, 0, 0])),
        ("joined: empty message", 1, |ours, _| sealed(ours, &[&echo()[..], &[0, 0, 0, 4]].concat())),
        ("joined: second log-in", 1, |ours, _| {
            sealed(ours, &[echo(), frame(Kind::LogIn, &words::log_in(b"", b""))].concat())
        }),
        ("joined: message cut by its record", 0, |ours, _| sealed(ours, &echo()[..19])),
        ("joined: header cut by its record", 1, |ours, _| sealed(ours, &[&echo()[..], &[1, 0, 0]].concat())),
        ("joined: longest length", 0, |ours, _| {
            let mut frames = vec![0xff, 0xff, 0xff, 4];
            frames.resize(16_388, b'E');
            sealed(ours, &frames)
        }),
    ];
    let cut: [(&'static str, u64, Make); 3] = [
        ("joined: gone within a length", 1, |ours, _| {
            let mut record = sealed(ours, &echo());
            record.push(30);
            record
        }),
        ("joined: gone within a record", 0, |ours, _| {
            let mut record = sealed(ours, &echo());
            record.pop();
            record
        }),
        // An end of stream without a goodbye: the message counts, the end is told as cut off.
        ("joined: gone without a goodbye", 1, |ours, _| sealed(ours, &echo())),
    ];
    let attack = |then| {
        move |(name, taken, make)| Attack { name, from: From::Joined, says: Says::Records(make, taken), then }
    };
    wait.into_iter().map(attack(Then::Wait)).chain(cut.into_iter().map(attack(Then::HalfClose))).collect()
}

fn sealed(ours: &mut Secured, frames: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    ours.seal(frames, &mut record);
    record
}

fn bare(ours: &mut Secured, message: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    ours.seal_message(message, &mut record);
    record
}

/// Any bit behind the length, so that the record is whole and does not open.
fn altered(mut record: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.between(2, record.len() - 1);
    record[at] ^= 1 << random.between(0, 7);
    record
}

/// A message that any echo server sends back.
fn echo() -> Vec<u8> {
    frame(Kind::Message, b"Echo of a record")
}
