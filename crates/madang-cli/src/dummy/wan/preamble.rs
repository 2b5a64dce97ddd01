//! The preamble and the answer to it: all that is said before the records begin.

use super::noise::{Client, Keys, hmac_sha256, sha256};
use super::record::Secured;
use super::{Pinned, PublicKey, Suite, words};
use crate::dummy::framing::{Kind, Malformed};
use crate::dummy::lan;

const MAGIC: &[u8; 4] = b"MDWN";

/// Bytes of a preamble of this version.
const PREAMBLE: usize = 94;

/// What every preamble ends with.
#[cfg(test)]
const MESSAGE_1: usize = 48;
const GATE_TAG: usize = 16;

/// The length in front of an answer, and the longest answer with it.
const ANSWER_HEAD: usize = 2;
const ANSWER_MAX: usize = 512;

/// The shortest message 2: an ephemeral key, a refusal without a text, a tag.
const MESSAGE_2_LEAST: usize = 32 + 4 + 3 + 16;

/// The fields of a hello as numbers, so that wrong ones can be said too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello {
    pub(crate) protocol: u16,
    pub(crate) suite: u8,
    pub(crate) flags: u8,
    pub(crate) app_version: u32,
    pub(crate) frame_limit: u32,
    pub(crate) schema: u64,
    /// Bytes behind the fields of this version; there should be none.
    pub(crate) more: u8,
}

impl Hello {
    pub(crate) fn new(suite: Suite, longest: usize) -> Self {
        Self {
            protocol: 1,
            suite: suite as u8,
            flags: 0,
            app_version: 0,
            frame_limit: words::FRAME_LIMIT.max(longest as u32),
            schema: 0,
            more: 0,
        }
    }
}

/// A client whose preamble is on its way.
#[derive(Debug)]
pub(crate) struct Shaking {
    noise: Client,
    suite: Suite,
}

impl Shaking {
    /// Makes the preamble.
    pub(crate) fn begin(pinned: &Pinned, hello: Hello, ephemeral: [u8; 32]) -> (Self, Vec<u8>) {
        let mut preamble = MAGIC.to_vec();
        preamble.extend((PREAMBLE as u16 + u16::from(hello.more)).to_le_bytes());
        preamble.extend(key_id(pinned.server));
        preamble.extend(hello.protocol.to_le_bytes());
        preamble.extend([hello.suite, hello.flags]);
        preamble.extend(hello.app_version.to_le_bytes());
        preamble.extend(hello.frame_limit.to_le_bytes());
        preamble.extend(hello.schema.to_le_bytes());
        preamble.extend(vec![0; hello.more.into()]);
        let (noise, message_1) = Client::begin(pinned.suite, &preamble, pinned.server, ephemeral, b"");
        preamble.extend(message_1);
        preamble.extend([0; GATE_TAG]);
        retag(&mut preamble, pinned.server);
        (Self { noise, suite: pinned.suite }, preamble)
    }

    /// How long the answer is that begins with `head`.
    pub(crate) fn answer_len(head: [u8; ANSWER_HEAD]) -> Result<usize, Malformed> {
        let len = usize::from(u16::from_le_bytes(head));
        if (MESSAGE_2_LEAST..=ANSWER_MAX - ANSWER_HEAD).contains(&len) {
            Ok(len)
        } else {
            Err(Malformed(format!("an answer of {len} bytes")))
        }
    }

    /// Reads the answer, without the length in front of it: the longest message that the server accepts and the records
    /// that begin now, or why it will not have us.
    pub(crate) fn end(self, message_2: &[u8]) -> Result<Result<(usize, Secured), Refusal>, Malformed> {
        let (answer, keys) = self.noise.end(message_2)?;
        let (head, payload) =
            answer.split_first_chunk().ok_or_else(|| Malformed("an answer without a frame".into()))?;
        let word = u32::from_le_bytes(*head);
        if (word & 0xff_ffff) as usize != payload.len() {
            return Err(Malformed(format!("an answer whose frame does not fill it: {word:#010x}")));
        }
        match (word >> 24) as u8 {
            kind if kind == Kind::Accept.number() => {
                Ok(Ok((words::check_accept(payload)?, secured(self.suite, &keys))))
            }
            kind if kind == Kind::Refusal.number() => {
                let reason = payload.first().copied().unwrap_or(0);
                Ok(Err(Refusal { reason, words: lan::describe_refusal(payload) }))
            }
            kind => Err(Malformed(format!("an answer of kind {kind}"))),
        }
    }
}

/// A refusal that the server's key vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: u8,
    pub(crate) words: String,
}

fn secured(suite: Suite, keys: &Keys) -> Secured {
    Secured::new(suite, keys.client, keys.server)
}

/// Gives a preamble the tag that fits what now stands before it.
pub(crate) fn retag(preamble: &mut [u8], server: PublicKey) {
    let key = sha256(&[b"madang gate 1", &server.0]);
    let (tagged, tag) = preamble.split_at_mut(preamble.len() - GATE_TAG);
    tag.copy_from_slice(&hmac_sha256(&key, &[tagged])[..GATE_TAG]);
}

pub(crate) fn key_id(server: PublicKey) -> [u8; 4] {
    sha256(&[&server.0])[..4].try_into().expect("four of 32 bytes")
}

/// The server's side, for the tests' double: judges a whole preamble as docs/wire.md says.
#[cfg(test)]
impl super::Server {
    /// `Err` closes without an answer. `Ok` is the whole answer with its length, and the records unless it refuses.
    pub(crate) fn answer(
        &self,
        preamble: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<(Vec<u8>, Option<Secured>), Malformed> {
        let refuse = |why: &str| Err(Malformed(why.into()));
        if preamble[6..10] != key_id(self.public()) {
            return refuse("key");
        }
        let mut tagged = preamble.to_vec();
        retag(&mut tagged, self.public());
        let suite = match preamble[12] {
            _ if tagged != preamble => return refuse("tag"),
            1 => Suite::Aesgcm,
            2 => Suite::Chachapoly,
            _ => return refuse("suite"),
        };
        let frame_limit = u32::from_le_bytes(preamble[18..22].try_into().expect("four bytes"));
        let reason = match preamble[13] {
            _ if preamble[10..12] != [1, 0] => Some(2),
            _ if preamble.len() != PREAMBLE => Some(1),
            0 if frame_limit == 0 || frame_limit > 0xff_ffff => Some(6),
            0 => None,
            _ => Some(1),
        };
        let mut frame = Vec::new();
        match reason {
            Some(reason) => crate::dummy::framing::encode_frame(Kind::Refusal, &[reason, 0, 0], &mut frame),
            None => crate::dummy::framing::encode_frame(Kind::Accept, &words::accept(0xff_ffff), &mut frame),
        }
        let tagged = &preamble[..preamble.len() - GATE_TAG];
        let (prologue, message_1) = tagged.split_at(tagged.len() - MESSAGE_1);
        let (message_2, keys) = self.respond(suite, prologue, message_1, ephemeral, |_| frame)?;
        let mut answer = (message_2.len() as u16).to_le_bytes().to_vec();
        answer.extend(message_2);
        Ok((answer, reason.is_none().then(|| Secured::new(suite, keys.server, keys.client))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(suite: Suite) -> (super::super::Server, Pinned) {
        let server = super::super::Server::new([3; 32]);
        let pinned = Pinned { server: server.public(), suite, token: Vec::new() };
        (server, pinned)
    }

    #[test]
    fn a_preamble_is_accepted_and_both_sides_have_the_same_records() {
        for suite in [Suite::Aesgcm, Suite::Chachapoly] {
            let (server, pinned) = pinned(suite);
            let (shaking, preamble) = Shaking::begin(&pinned, Hello::new(suite, 0), [5; 32]);
            assert_eq!((preamble.len(), &preamble[..6]), (94, &b"MDWN\x5e\0"[..]));
            let (answer, theirs) = server.answer(&preamble, [6; 32]).expect("our own preamble");
            let (head, message_2) = answer.split_first_chunk().expect("a length");
            assert_eq!(Shaking::answer_len(*head), Ok(message_2.len()));
            let (limit, mut ours) = shaking.end(message_2).expect("it opens").expect("it accepts");
            assert_eq!(limit, 0xff_ffff);
            let (mut sealed, mut opened) = (Vec::new(), Vec::new());
            ours.seal(b"\x03\0\0\x04abc", &mut sealed);
            theirs.expect("records").arrived(&sealed, &mut opened).expect("our own record");
            assert_eq!(opened, b"\x03\0\0\x04abc");
        }
    }

    #[test]
    fn a_hello_that_does_not_suit_is_refused_with_a_reason() {
        let (server, pinned) = pinned(Suite::Aesgcm);
        type Edit = fn(&mut Hello);
        let edits: [(Edit, u8); 5] = [
            (|hello| hello.protocol = 2, 2),
            (|hello| hello.flags = 1, 1),
            (|hello| hello.frame_limit = 0, 6),
            (|hello| hello.frame_limit = 1 << 24, 6),
            (|hello| hello.more = 1, 1),
        ];
        for (edit, reason) in edits {
            let mut hello = Hello::new(Suite::Aesgcm, 0);
            edit(&mut hello);
            let (shaking, preamble) = Shaking::begin(&pinned, hello, [5; 32]);
            let (answer, records) = server.answer(&preamble, [6; 32]).expect("its tag is right");
            assert!(records.is_none());
            let refused = shaking.end(&answer[2..]).expect("it opens").expect_err("it refuses");
            assert_eq!(refused.reason, reason, "{refused:?}");
        }
    }

    #[test]
    fn an_answer_is_no_longer_than_an_embryo_waits_for() {
        for (len, fits) in [(0, false), (54, false), (55, true), (510, true), (511, false)] {
            assert_eq!(Shaking::answer_len(u16::to_le_bytes(len)).is_ok(), fits, "{len}");
        }
    }
}
