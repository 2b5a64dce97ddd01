//! What scripted peers of encrypted servers wear: the wire crate's client half. What they say inside is their own codec's, and
//! now and then somebody wears another's log-in.

use madang_driver::sim::Random;
use madang_wire::wan::{
    ANSWER_MAX, Answer, ExpectAnswer, ExpectSeal, Hello, LinkAnswer, LinkSecret, Opening, PREAMBLE_MAX,
    PublicKey, RECORD_HEAD, RECORD_MESSAGE_MAX, RECORD_TAIL, Sealing, SecretKey, Secured, ServerKeys, Step,
    Suite, log_in_proof, parts,
};
use madang_wire::{Find, FrameLimit, Kind, lan};

use super::codec::{self, LOG_IN, REFUSAL, Tongue};
use crate::wan::Check;
use crate::{Account, Credentials, LogIn, Verdict};

/// The secret of sealed links in every simulated cluster.
pub(super) const LINK_SECRET: &str = "the nodes of the simulated cluster know it";

/// What the log-in service and the server know of every player.
const PLAYERS_SECRET: &[u8] = b"of the simulated players";

/// The player of an engine's client.
const ENGINES_PLAYER: u32 = u32::MAX;

/// The server's key, the same over all its lives.
pub(super) fn server_keys() -> ServerKeys {
    ServerKeys::new([SecretKey::from_bytes(&mut [9; 32])]).expect("one key is a set of keys")
}

fn pinned() -> PublicKey {
    server_keys().public().next().expect("there is a key")
}

/// The server's check of log-ins: on its shard, or as a job.
pub(super) fn check(offloaded: bool) -> Check {
    let check = |log_in: &LogIn<'_>| match log_in.token.try_into().map(u32::from_le_bytes) {
        Ok(player) if log_in.is_proven(PLAYERS_SECRET) => Verdict::Admit(Account::new(player.into())),
        _ => Verdict::Refuse(lan::RefusalReason::LogIn.into()),
    };
    match offloaded {
        true => Check::Offloaded(std::sync::Arc::new(move |_, log_in| check(log_in))),
        false => Check::Here(std::sync::Arc::new(check)),
    }
}

/// The engine's client's side of the protocol.
pub(super) fn client() -> crate::wan::Wan {
    let credentials =
        |_, hash: &_| Credentials::token(ENGINES_PLAYER.to_le_bytes()).prove(PLAYERS_SECRET, hash);
    crate::wan::Wan {
        pins: vec![pinned()],
        credentials: Some(std::sync::Arc::new(credentials)),
        ..crate::wan::Wan::default()
    }
}

/// A peer's side of the encryption.
pub(super) struct Cloak {
    state: State,
    player: u32,
    /// The record sent last: to be sent again by who means harm.
    last: Vec<u8>,
    /// Some of a long message has come, and not all.
    in_long: bool,
}

enum State {
    Wan(ExpectAnswer),
    Link(ExpectSeal),
    Worn(Box<Secured>),
    /// It has seen that somebody touched what came.
    Torn,
}

/// What a cloak lets through, besides frames.
#[derive(Default)]
pub(super) struct Uncovered {
    /// Just now the handshake ended: the server's ephemeral key, and the log-in of this player.
    pub(super) worn: Option<([u8; 32], Proof)>,
}

/// What a log-in is proven with.
pub(super) type Proof = [u8; 32];

impl Cloak {
    /// A peer's first bytes.
    pub(super) fn begin(tongue: Tongue, player: u32, limit: u32, dice: &mut Random) -> (Cloak, Vec<u8>) {
        let mut entropy = [0; 32];
        entropy.iter_mut().for_each(|byte| *byte = dice.word() as u8);
        let limit = FrameLimit::new(limit).expect("a scenario's limit is one");
        let mut bytes = vec![0; PREAMBLE_MAX];
        let begun = if tongue == Tongue::Wan {
            let suite = if dice.coin() { Suite::AesGcm } else { Suite::ChaChaPoly };
            let hello = Hello { suite, app_version: 7, frame_limit: limit, schema_hash: 0 };
            ExpectAnswer::begin(&pinned(), &hello, entropy, &mut bytes)
                .map(|(len, wan)| (len, State::Wan(wan)))
        } else {
            let secret = LinkSecret::derive(LINK_SECRET).expect("it is long enough");
            ExpectSeal::begin(&secret, limit, entropy, &mut bytes).map(|(len, link)| (len, State::Link(link)))
        };
        let (len, state) = begun.expect("there is room for the first bytes");
        bytes.truncate(len);
        (Cloak { state, player, last: Vec::new(), in_long: false }, bytes)
    }

    pub(super) fn is_worn(&self) -> bool {
        matches!(self.state, State::Worn(_))
    }

    /// Takes what came off `stream`, and puts the frames that were in it onto `plain`, as they are on a plain link.
    pub(super) fn uncover(&mut self, stream: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<Uncovered, String> {
        let mut uncovered = Uncovered::default();
        loop {
            match std::mem::replace(&mut self.state, State::Torn) {
                State::Torn => {
                    stream.clear();
                    return Ok(uncovered);
                }
                State::Worn(mut secured) => {
                    let read = uncover_records(&mut secured.opening, &mut self.in_long, stream, plain);
                    if read.is_ok() {
                        self.state = State::Worn(secured);
                    }
                    return read.map(|()| uncovered);
                }
                waits => {
                    let found = match &waits {
                        State::Wan(wan) => wan.find(stream),
                        State::Link(link) => link.find(stream),
                        State::Worn(_) | State::Torn => return Ok(uncovered),
                    };
                    let len = match found {
                        Ok(Find::Frame { len }) => len,
                        Ok(Find::Need { .. }) => {
                            self.state = waits;
                            return Ok(uncovered);
                        }
                        Err(error) => return Err(format!("an answer that is none: {error}")),
                    };
                    let key_at = if matches!(waits, State::Wan(_)) { KEY_AT } else { LINK_KEY_AT };
                    let answer: Vec<u8> = stream.drain(..len).collect();
                    match accepted(waits, &answer)? {
                        Ok(secured) => {
                            let ephemeral = *answer[key_at..].first_chunk().expect("it was read");
                            uncovered.worn = Some((ephemeral, log_in_proof(PLAYERS_SECRET, &secured.hash)));
                            self.state = State::Worn(Box::new(secured));
                        }
                        Err(refusal) => {
                            plain.extend(codec::lan_frame(REFUSAL, &refusal));
                            return Ok(uncovered);
                        }
                    }
                }
            }
        }
    }

    /// The log-in of this player, with a proof that should be of this handshake.
    pub(super) fn log_in(&self, proof: &Proof, ticket: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for field in [&self.player.to_le_bytes()[..], proof, ticket] {
            body.extend((field.len() as u16).to_le_bytes());
            body.extend(field);
        }
        codec::lan_frame(LOG_IN, &body)
    }

    /// Records around whole frames that fit one together, or around a message that is too long for it. Of those with one message
    /// alone every other one is bare.
    pub(super) fn cover(&mut self, frames: &[u8]) -> Vec<u8> {
        let State::Worn(secured) = &mut self.state else { return Vec::new() };
        let mut records = Vec::new();
        let payload_len = frames.len() - lan::HEADER;
        let is_message = frames.starts_with(&lan::header(Kind::Message, payload_len as u32));
        if is_message && payload_len <= RECORD_MESSAGE_MAX && secured.sealing.records() % 2 == 0 {
            self.last = [&[0; RECORD_HEAD][..], &frames[lan::HEADER..], &[0; RECORD_TAIL]].concat();
            secured.sealing.seal_message(&mut self.last).expect("what a peer says fits its records");
            return self.last.clone();
        }
        for cut in parts(payload_len) {
            let from = if cut.start == 0 { 0 } else { lan::HEADER + cut.start };
            let part = &frames[from..lan::HEADER + cut.end];
            self.last = [&[0; RECORD_HEAD][..], part, &[0; RECORD_TAIL]].concat();
            seal(&mut secured.sealing, &mut self.last);
            records.extend(&self.last);
        }
        records
    }

    /// Bytes that no honest client sends here: what is no record, a record again, a record that was touched, a record with
    /// something in it that is no frame.
    pub(super) fn mischief(&mut self, dice: &mut Random) -> Vec<u8> {
        let State::Worn(secured) = &mut self.state else {
            return (0..40).map(|_| dice.word() as u8).collect();
        };
        let mut inside = |bytes: &[u8]| {
            let mut record = [&[0; RECORD_HEAD][..], bytes, &[0; RECORD_TAIL]].concat();
            seal(&mut secured.sealing, &mut record);
            record
        };
        match dice.below(6) {
            0 if !self.last.is_empty() => self.last.clone(),
            1 => {
                let mut touched = inside(&codec::lan_frame(codec::PING, &[1; 8]));
                let at = RECORD_HEAD + dice.index(touched.len() - RECORD_HEAD);
                touched[at] ^= 1 << dice.below(8);
                touched
            }
            2 => inside(&[0, 0, 0, codec::MESSAGE, 0]),
            3 => inside(&[9, 0, 0, 99, 0]),
            4 => {
                let mut as_bare = inside(&codec::lan_frame(codec::PING, &[1; 8]));
                as_bare[1] ^= 0x80;
                as_bare
            }
            _ => vec![3, 0, 1, 1, 1],
        }
    }
}

fn seal(sealing: &mut Sealing, record: &mut [u8]) {
    sealing.seal(record).expect("what a peer says fits its records");
}

/// Where the server's ephemeral key begins in its answer: behind the length, and behind a link's header, magic, version and
/// flags.
const KEY_AT: usize = 2;
const LINK_KEY_AT: usize = 12;

/// The records that an answer leads to, or the refusal that it holds.
fn accepted(waits: State, answer: &[u8]) -> Result<Result<Secured, Vec<u8>>, String> {
    let touched =
        |error: madang_wire::wan::HandshakeError| format!("an answer that is not the server's: {error}");
    let mut room = [0; ANSWER_MAX];
    match waits {
        State::Wan(wan) => match wan.read(answer, &mut room).map_err(touched)? {
            Answer::Accepted(_, secured) => Ok(Ok(secured)),
            Answer::Refused(refusal) => Ok(Err(payload(&refusal))),
        },
        State::Link(link) => match link.read(answer).map_err(touched)? {
            LinkAnswer::Sealed(secured) => Ok(Ok(secured)),
            LinkAnswer::Refused(refusal) => Ok(Err(payload(&refusal))),
        },
        State::Worn(_) | State::Torn => Err("two answers".to_owned()),
    }
}

fn payload(refusal: &lan::Refusal<'_>) -> Vec<u8> {
    let len = refusal.text.len() as u8;
    [&[refusal.reason.to_u8(), len, 0], refusal.text.as_bytes()].concat()
}

fn uncover_records(
    opening: &mut Opening,
    in_long: &mut bool,
    stream: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Result<(), String> {
    let mut used = 0;
    let outcome = loop {
        match opening.next(&mut stream[used..]) {
            Ok(Step::Need { .. }) => break Ok(()),
            Ok(Step::Frame { kind, payload, used: len }) => {
                plain.extend(codec::lan_frame(kind as u8, &stream[used..][payload]));
                used += len;
            }
            Ok(Step::Part { payload, left, used: len }) => {
                let part = &stream[used..][payload];
                // The first part of a message knows how long it will be.
                if !std::mem::replace(in_long, left > 0) {
                    plain.extend(lan::header(Kind::Message, (part.len() + left) as u32));
                }
                plain.extend(part);
                used += len;
            }
            Err(error) => break Err(format!("a record that does not open: {error}")),
        }
    };
    stream.drain(..used);
    outcome
}
