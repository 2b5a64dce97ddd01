//! The WAN's side of a stream: handshake, then records with LAN frames in them.

use std::fmt;

use madang::wire::wan::{
    ANSWER_MAX, Answer, ExpectAnswer, Hello, LogIn, PREAMBLE_MAX, PublicKey, RECORD_FRAMES_MAX, RECORD_HEAD,
    RECORD_MESSAGE_MAX, RECORD_TAIL, Secured, Step, Suite,
};
use madang::wire::{Find, Kind, SealError, lan};

use super::limit_for;
use crate::load::failure::Failure;

/// Who the server must be, and what the clients log in with.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    pub(crate) server: PublicKey,
    pub(crate) suite: Suite,
    pub(crate) token: Vec<u8>,
}

/// A preamble and the state that awaits its answer: what costs the most of a client's handshake, made before it connects.
pub(crate) struct Prepared {
    expect: ExpectAnswer,
    preamble: Vec<u8>,
}

impl Prepared {
    pub(crate) fn new(pinned: &Pinned, size: usize, entropy: [u8; 32]) -> Self {
        let hello = Hello { suite: pinned.suite, frame_limit: limit_for(size), ..Hello::default() };
        let mut preamble = vec![0; PREAMBLE_MAX];
        let (len, expect) = ExpectAnswer::begin(&pinned.server, &hello, entropy, &mut preamble)
            .expect("there is room for every preamble, and the key was given as such");
        preamble.truncate(len);
        Self { expect, preamble }
    }
}

/// A client of a WAN server.
pub(super) struct Wan {
    state: State,
    /// The log-in's frame, until it was asked for.
    log_in: Vec<u8>,
    /// The longest message of ours.
    size: usize,
    /// The parts of a message that is too long for one record.
    long: Vec<u8>,
}

enum State {
    /// The answer is awaited; nothing once it came and was a refusal.
    Shaking(Option<Box<ExpectAnswer>>),
    Secured(Secured),
}

impl Wan {
    /// A client, and the preamble that it says first.
    pub(super) fn new(pinned: &Pinned, prepared: Prepared, size: usize) -> (Self, Vec<u8>) {
        let mut log_in = vec![0; LogIn::FRAME_MAX];
        let len = LogIn { token: &pinned.token, ..LogIn::default() }
            .to_frame(&mut log_in)
            .expect("the length of the token was checked");
        log_in.truncate(len);
        let Prepared { expect, preamble } = prepared;
        (Self { state: State::Shaking(Some(Box::new(expect))), log_in, size, long: Vec::new() }, preamble)
    }

    /// Records so far, ours and the server's; the engine's own words, such as a log-in, lie in some.
    pub(super) fn records(&self) -> (u64, u64) {
        match &self.state {
            State::Shaking(_) => (0, 0),
            State::Secured(secured) => (secured.sealing.records(), secured.opening.records()),
        }
    }

    /// Puts whole frames into records; a preamble is none and goes as it is.
    pub(super) fn pack(&mut self, mut frames: &[u8], out: &mut Vec<u8>) {
        let State::Secured(secured) = &mut self.state else { return out.extend_from_slice(frames) };
        let mut sealing = secured.sealing.expanded();
        while !frames.is_empty() {
            let (together, rest) = frames.split_at(whole_frames(frames));
            frames = rest;
            match lone_message(together) {
                Some(payload) => append(out, payload, |record| sealing.seal_message(record)),
                None => together
                    .chunks(RECORD_FRAMES_MAX)
                    .for_each(|part| append(out, part, |record| sealing.seal(record))),
            }
        }
    }

    /// Hands each frame that is whole by now to `each`, in order; how many bytes are used up. With [`Kind::Accept`] comes
    /// the frame that is to be said to it: the log-in.
    pub(super) fn hear(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Kind, &[u8]) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let mut used = 0;
        if let State::Shaking(expect) = &mut self.state {
            let Some(waiting) = expect else { return Err(Failure::Ended) };
            let Find::Frame { len } = waiting.find(bytes)? else { return Ok(0) };
            let mut room = [0; ANSWER_MAX];
            let secured = match expect.take().map(|expect| expect.read(&bytes[..len], &mut room)) {
                Some(Ok(Answer::Accepted(accept, secured))) => {
                    let limit = accept.frame_limit.get();
                    if self.size > limit as usize {
                        return Err(Failure::TooLong { limit });
                    }
                    secured
                }
                Some(Ok(Answer::Refused(refusal))) => return Err(Failure::Refused(refusal.into())),
                Some(Err(error)) => return Err(Failure::Handshake(error)),
                None => return Err(Failure::Ended),
            };
            self.state = State::Secured(secured);
            each(Kind::Accept, &std::mem::take(&mut self.log_in))?;
            used = len;
        }
        let State::Secured(secured) = &mut self.state else { return Ok(used) };
        let mut opening = secured.opening.expanded();
        loop {
            let rest = &mut bytes[used..];
            match opening.next(rest)? {
                Step::Frame { kind, payload, used: more } => {
                    each(kind, &rest[payload])?;
                    used += more;
                }
                Step::Part { payload, left, used: more } => {
                    self.long.extend_from_slice(&rest[payload]);
                    if left == 0 {
                        each(Kind::Message, &std::mem::take(&mut self.long))?;
                    }
                    used += more;
                }
                Step::Need { .. } => return Ok(used),
            }
        }
    }
}

/// How many bytes of whole frames at the front go into records together: as many as one holds, or one long message.
fn whole_frames(frames: &[u8]) -> usize {
    let mut taken = 0;
    while let Some(head) = frames[taken..].first_chunk::<{ lan::HEADER }>() {
        let len = lan::HEADER + (u32::from_le_bytes(*head) & 0xff_ffff) as usize;
        if taken > 0 && taken + len > RECORD_FRAMES_MAX {
            break;
        }
        taken += len;
    }
    taken
}

/// Puts a record with `text` behind what `out` holds, sealed by `seal`.
fn append(out: &mut Vec<u8>, text: &[u8], seal: impl FnOnce(&mut [u8]) -> Result<(), SealError>) {
    let start = out.len();
    out.extend([0; RECORD_HEAD]);
    out.extend_from_slice(text);
    out.extend([0; RECORD_TAIL]);
    seal(&mut out[start..]).expect("text within a record's bounds");
}

/// The payload of the only frame here, if it is a message that a bare record takes.
fn lone_message(frames: &[u8]) -> Option<&[u8]> {
    let payload = frames.get(lan::HEADER..).filter(|payload| payload.len() <= RECORD_MESSAGE_MAX)?;
    frames.starts_with(&lan::header(Kind::Message, payload.len() as u32)).then_some(payload)
}

impl fmt::Debug for Wan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Shaking(_) => "Wan(shaking hands)",
            State::Secured(_) => "Wan(secured)",
        })
    }
}
