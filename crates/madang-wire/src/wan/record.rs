//! Records: what travels once a handshake is over.
//!
//! ```text
//!  byte 0           2                                                   n
//!      ┌────────────┬───────────────────────────────────────────────────┬──────────┐
//!      │ n + 14, LE │ header │ payload │ header │ payload │ …          │ tag, 16  │
//!      ├────────────┼───────────────────────────────────────────────────┼──────────┤
//!      │ + 2^15     │ payload                                           │ tag, 16  │
//!      └────────────┴───────────────────────────────────────────────────┴──────────┘
//!        ciphertext   └ encrypted in place: whole frames, or one part of a long one;
//!        and tag        in a bare record one message without its header
//! ```
//!
//! Most records carry one message. Its header would say what the record says anyway, so such a record is *bare*: 4 bytes
//! less on the wire for each.
//!
//! A record has no number on the wire: both ends count. So one that is left out, repeated, moved or changed does not
//! open, and that ends the session. The length stands in the clear, and a wrong one moves the tag's place, so the record does not
//! open either: as in Noise's own transport messages, nothing is given to the cipher beside the text. That a record is bare stands
//! beside the length and in the nonce, so that neither kind opens as the other.

use std::borrow::BorrowMut;
use std::ops::Range;

use ring::aead::Nonce;

use super::FRAME_LIMIT_DEFAULT;
use super::control::LogIn;
use super::keys::Secret;
use super::suite::{AeadKey, Suite, TAG};
use crate::framing::{Find, FrameError, Kind, SealError};
use crate::lan::{self, LanFraming};

/// Room in front of a record's frames: its length.
pub const RECORD_HEAD: usize = 2;

/// Room behind a record's frames: its tag.
pub const RECORD_TAIL: usize = TAG;

/// The most bytes of frames in one record: a header and [`FRAME_LIMIT_DEFAULT`], so that under that limit no message is
/// ever cut. A receiver holds a whole record before it can look at
/// it, so this is what one peer can make it hold for nothing. Ciphers are at full speed well below.
pub const RECORD_FRAMES_MAX: usize = lan::HEADER + FRAME_LIMIT_DEFAULT.get() as usize;

/// The longest record.
pub const RECORD_MAX: usize = RECORD_HEAD + RECORD_FRAMES_MAX + RECORD_TAIL;

/// The bit of a record's first two bytes, little-endian, that says that it is bare. The others are its length.
pub const RECORD_BARE: u16 = 1 << 15;

/// The longest message of a bare record. With its header it would just fit any other.
pub const RECORD_MESSAGE_MAX: usize = RECORD_FRAMES_MAX - lan::HEADER;

/// After so many records of a direction its key makes the next one: at most 1 GiB under a key. For AES-GCM 2^26 blocks,
/// where an attacker's advantage is below 2^-76; ChaChaPoly has no such limit and keeps to the same count. At 20 records
/// a second a key lives for 55 minutes, so the change is no rare event that only age brings about, and it costs less
/// than a microsecond.
pub const REKEY_RECORDS: u64 = 1 << 16;

/// A direction ends after so many records. At a million records a second that is nine years; the counter that Noise
/// reserves for rekeying is far above.
pub const RECORDS_MAX: u64 = 1 << 48;

const LEAST_FRAME: usize = lan::HEADER + 1;

/// What lies in a record: its bit beside the length, and its bit in the nonce, far above all counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Frames,
    Message,
}

const BARE_NONCE: u64 = 1 << 63;
const _: () = assert!(RECORD_FRAMES_MAX + RECORD_TAIL < RECORD_BARE as usize && RECORDS_MAX < BARE_NONCE);

impl Content {
    #[inline]
    fn of(head: u16) -> Self {
        if head & RECORD_BARE == 0 { Self::Frames } else { Self::Message }
    }
}

/// One direction's key and counter, without an expanded key: 48 bytes. Neither half can be cloned, and each is moved on
/// by its own calls alone, so that a counter has one owner and is used once.
#[derive(Debug)]
struct Direction {
    secret: Secret,
    counter: u64,
    suite: Suite,
}

impl Direction {
    fn new(secret: Secret, suite: Suite) -> Self {
        Self { secret, counter: 0, suite }
    }

    #[inline]
    fn expand(&self) -> AeadKey {
        self.suite.expand(self.secret.bytes())
    }

    /// The next record's. Whoever uses it calls [`advance`](Self::advance).
    #[inline]
    fn nonce(&self, content: Content) -> Nonce {
        self.suite.nonce(match content {
            Content::Frames => self.counter,
            Content::Message => self.counter | BARE_NONCE,
        })
    }

    /// Moves on behind a record. The key follows when its time has come; the counter never starts again.
    #[inline]
    fn advance(&mut self, key: &mut AeadKey) {
        self.counter = self.counter.saturating_add(1);
        if self.counter % REKEY_RECORDS == 0 {
            self.rekey(key);
        }
    }

    #[cold]
    fn rekey(&mut self, key: &mut AeadKey) {
        match key.next_secret(self.suite) {
            Some(secret) => self.secret = secret,
            // Cannot be: but nothing more is sealed or opened under a key that had to change.
            None => self.counter = RECORDS_MAX,
        }
        *key = self.expand();
    }
}

/// The sending half of a secured connection.
///
/// Compact: 48 bytes, and the key is expanded anew for each [`seal`](Self::seal). Use [`expanded`](Self::expanded) for
/// the records of one flush, or keep an [`Expanded`] of it (about half a KiB more) where sealing happens often.
#[derive(Debug)]
pub struct Sealing(Direction);

impl Sealing {
    pub(super) fn new(secret: Secret, suite: Suite) -> Self {
        Self(Direction::new(secret, suite))
    }

    /// Seals one record in place: `record` is [`RECORD_HEAD`] bytes of room, frames, and [`RECORD_TAIL`] bytes of room,
    /// exactly. The frames are whole, or one part of a long message: see [`parts`].
    ///
    /// Records must leave in the order in which they were sealed. After an error nothing of `record` is worth sending.
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        self.expanded().seal(record)
    }

    /// Seals one message in place as a bare record: `record` is [`RECORD_HEAD`] bytes of room, the message's payload without
    /// a header, at most [`RECORD_MESSAGE_MAX`], and [`RECORD_TAIL`] bytes of room, exactly.
    ///
    /// For a message that has a record to itself. The rest is as with [`seal`](Self::seal).
    pub fn seal_message(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        self.expanded().seal_message(record)
    }

    /// The key expanded for a while: for the records of one flush.
    #[inline]
    pub fn expanded(&mut self) -> Expanded<&mut Self> {
        Expanded { key: self.0.expand(), half: self }
    }

    /// The key expanded for good: for a session that keeps it so.
    pub fn expand(self) -> Expanded<Self> {
        Expanded { key: self.0.expand(), half: self }
    }

    /// Records sealed so far.
    pub const fn records(&self) -> u64 {
        self.0.counter
    }
}

impl<H: BorrowMut<Sealing>> Expanded<H> {
    /// As [`Sealing::seal`].
    #[inline]
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        self.seal_content(Content::Frames, record)
    }

    /// As [`Sealing::seal_message`].
    #[inline]
    pub fn seal_message(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        self.seal_content(Content::Message, record)
    }

    #[inline]
    fn seal_content(&mut self, content: Content, record: &mut [u8]) -> Result<(), SealError> {
        let direction = &mut self.half.borrow_mut().0;
        let available = record.len();
        let needed = RECORD_HEAD.saturating_add(RECORD_TAIL);
        let room = SealError::Room { needed, available };
        let (head, behind) = record.split_first_chunk_mut().ok_or(room)?;
        let (text, tail) = behind.split_last_chunk_mut().ok_or(room)?;
        let (limit, bit) = match content {
            Content::Frames => (RECORD_FRAMES_MAX, 0),
            Content::Message => (RECORD_MESSAGE_MAX, RECORD_BARE),
        };
        match text.len() {
            0 => return Err(SealError::Empty),
            len if len > limit => return Err(SealError::TooLong { len, limit }),
            _ => {}
        }
        if direction.counter >= RECORDS_MAX {
            return Err(SealError::Exhausted);
        }
        let sealed_len = u16::try_from(text.len().saturating_add(RECORD_TAIL)).unwrap_or(u16::MAX);
        *head = (sealed_len | bit).to_le_bytes();
        *tail = self.key.seal(direction.nonce(content), &[], text).ok_or(SealError::Exhausted)?;
        direction.advance(&mut self.key);
        Ok(())
    }
}

/// A half with its key expanded: borrowed (`Expanded<&mut Sealing>`) for a while, or owned (`Expanded<Sealing>`).
#[derive(Debug)]
pub struct Expanded<H> {
    key: AeadKey,
    half: H,
}

impl<H> Expanded<H> {
    /// Lets the expanded key go.
    pub fn compact(self) -> H {
        self.half
    }

    /// The half whose key this is.
    pub const fn half(&self) -> &H {
        &self.half
    }
}

/// How a message's payload is cut into records, as ranges of it. One range: header and payload fit into one record,
/// beside other frames. More: each but the last fills its record alone, the first with the header before it.
pub fn parts(payload_len: usize) -> impl Iterator<Item = Range<usize>> {
    let first = RECORD_FRAMES_MAX.saturating_sub(lan::HEADER).min(payload_len);
    let mut at = 0usize;
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let len = next?;
        let part = at..at.saturating_add(len);
        at = part.end;
        let left = payload_len.saturating_sub(at);
        next = (left > 0).then_some(left.min(RECORD_FRAMES_MAX));
        Some(part)
    })
}

/// The receiving half of a secured connection: opens records in place, and gives their frames one at a time.
///
/// Like a framing it keeps no bytes: the stream is shown to it again and again, from the first byte that is not used.
/// Unlike a framing it may have opened some of those already, so bytes that it was shown must be kept *as it left them*,
/// and in one piece up to what [`find`](Self::find) says.
#[derive(Debug)]
pub struct Opening {
    direction: Direction,
    frames: LanFraming,
    /// Bytes of frames at the front of the stream that are opened and not taken; a tag lies behind them.
    opened: usize,
    /// Bytes of a long message that are still to come.
    part_left: usize,
}

/// What [`Opening::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No more before `total` bytes of the stream are there, counted from what was shown.
    Need {
        /// More than were shown, at most [`RECORD_MAX`].
        total: usize,
    },
    /// A whole frame, or a bare record's message.
    Frame {
        /// What it carries; in turn.
        kind: Kind,
        /// Where its payload lies in what was shown.
        payload: Range<usize>,
        /// Bytes of the stream to move on by.
        used: usize,
    },
    /// A part of a message that is too long for one record. The parts of one message follow each other; no other frame
    /// comes between them.
    Part {
        /// Where the part lies in what was shown.
        payload: Range<usize>,
        /// Bytes of the same message still to come; 0 with the last part. With the first one, the message is as long as
        /// the part and this together: within the frame limit.
        left: usize,
        /// Bytes of the stream to move on by.
        used: usize,
    },
}

impl Opening {
    pub(super) fn new(secret: Secret, suite: Suite, frames: LanFraming) -> Self {
        Self { direction: Direction::new(secret, suite), frames, opened: 0, part_left: 0 }
    }

    /// How much of the stream the next [`next`](Self::next) wants in one piece: a record, or what is left of one that is
    /// open. Judges a record by its length before anyone makes room for it.
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        let total = if self.opened > 0 {
            self.opened.saturating_add(RECORD_TAIL)
        } else {
            match bytes.first_chunk() {
                Some(head) => self.record_len(u16::from_le_bytes(*head))?,
                None => return Ok(Find::Need { total: RECORD_HEAD }),
            }
        };
        Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
    }

    /// Takes the next frame off the stream, of which `bytes` starts with the first byte that is not used, and opens the
    /// record in which it lies if that has not been done.
    ///
    /// After an error the connection ends: the error says whose fault it is, and the peer is not told.
    pub fn next(&mut self, bytes: &mut [u8]) -> Result<Step, FrameError> {
        if self.opened > 0 {
            return self.frame(bytes, 0);
        }
        let mut key = None;
        match self.open(bytes, |direction| key.insert(direction.expand()))? {
            Some(step) => Ok(step),
            None => self.frame(bytes, RECORD_HEAD),
        }
    }

    /// The key expanded for a while: for the records of one receive.
    #[inline]
    pub fn expanded(&mut self) -> Expanded<&mut Self> {
        Expanded { key: self.direction.expand(), half: self }
    }

    /// The key expanded for good: for a session that keeps it so.
    pub fn expand(self) -> Expanded<Self> {
        Expanded { key: self.direction.expand(), half: self }
    }

    /// Which kinds may come next. [`lan::Expect::End`] where the stream ends: the peer said goodbye. Anything else
    /// there: the end was cut off, by whoever stands between.
    pub const fn expect(&self) -> lan::Expect {
        self.frames.expect()
    }

    /// Records opened so far.
    pub const fn records(&self) -> u64 {
        self.direction.counter
    }

    /// Bytes of the record with these first two, or what is wrong with it.
    #[inline]
    fn record_len(&self, head: u16) -> Result<usize, FrameError> {
        let sealed_len = usize::from(head & !RECORD_BARE);
        let (least, limit) = match (Content::of(head), self.part_left) {
            (Content::Frames, 0) => (LEAST_FRAME, self.first_limit()),
            (Content::Frames, left) => {
                let part = left.min(RECORD_FRAMES_MAX);
                (part, part)
            }
            (Content::Message, 0) if self.frames.expect().carries_messages() => {
                (1, RECORD_MESSAGE_MAX.min(self.frames.limit()))
            }
            (Content::Message, _) => return Err(FrameError::OutOfTurn(Kind::Message)),
        };
        let len = sealed_len.saturating_sub(RECORD_TAIL);
        match len {
            _ if len < least => Err(FrameError::TooShort { len, least }),
            _ if len > limit => Err(FrameError::TooLong { len, limit }),
            _ => Ok(sealed_len.saturating_add(RECORD_HEAD)),
        }
    }

    /// The most bytes of frames in the next record. Who has not said who it is gets no more room than that takes.
    #[inline]
    const fn first_limit(&self) -> usize {
        match self.frames.expect() {
            lan::Expect::LogIn => LogIn::FRAME_MAX,
            lan::Expect::Greeting => lan::CONTROL_FRAME_MAX,
            _ => RECORD_FRAMES_MAX,
        }
    }

    /// Opens the record at the front of `bytes`. Answers what that already says: how much is missing, or a bare record's
    /// message. Otherwise its frames are next.
    #[inline]
    fn open<'k>(
        &mut self,
        bytes: &mut [u8],
        key: impl FnOnce(&Direction) -> &'k mut AeadKey,
    ) -> Result<Option<Step>, FrameError> {
        let len = match self.find(bytes)? {
            Find::Need { total } => return Ok(Some(Step::Need { total })),
            Find::Frame { len } => len,
        };
        if self.direction.counter >= RECORDS_MAX {
            return Err(FrameError::Exhausted);
        }
        let key = key(&self.direction);
        let record = bytes.get_mut(..len).ok_or(FrameError::NotOneFrame)?;
        let (head, sealed) = record.split_first_chunk_mut().ok_or(FrameError::NotOneFrame)?;
        let content = Content::of(u16::from_le_bytes(*head));
        let opened = key.open(self.direction.nonce(content), &[], sealed).ok_or(FrameError::Forged)?;
        self.direction.advance(key);
        Ok(match content {
            Content::Frames => {
                self.opened = opened;
                None
            }
            Content::Message => {
                self.frames.took(Kind::Message);
                let payload = RECORD_HEAD..RECORD_HEAD.saturating_add(opened);
                Some(Step::Frame { kind: Kind::Message, payload, used: len })
            }
        })
    }

    /// The frame at `start`, which is 0 or behind the length of a record that was just opened.
    #[inline]
    fn frame(&mut self, bytes: &[u8], start: usize) -> Result<Step, FrameError> {
        let end = start.saturating_add(self.opened);
        let record_end = end.saturating_add(RECORD_TAIL);
        if bytes.len() < record_end {
            return Ok(Step::Need { total: record_end });
        }
        let frames = bytes.get(start..end).ok_or(FrameError::NotOneFrame)?;
        if self.part_left > 0 {
            self.opened = 0;
            self.part_left = self.part_left.saturating_sub(frames.len());
            return Ok(Step::Part { payload: start..end, left: self.part_left, used: record_end });
        }

        let header = frames.first_chunk().ok_or(FrameError::Straddles)?;
        let (kind, payload_len) = self.frames.check(*header, frames)?;
        let frame_len = payload_len.saturating_add(lan::HEADER);
        let payload = start.saturating_add(lan::HEADER);
        if frame_len > frames.len() {
            // Only a message that begins its record and fills it is cut: had another frame come before it, or did it fit
            // a record, there would be less than a full record here.
            if frames.len() < RECORD_FRAMES_MAX {
                return Err(FrameError::Straddles);
            }
            self.opened = 0;
            self.part_left = frame_len.saturating_sub(frames.len());
            return Ok(Step::Part { payload: payload..end, left: self.part_left, used: record_end });
        }
        self.frames.took(kind);
        self.opened = self.opened.saturating_sub(frame_len);
        let frame_end = start.saturating_add(frame_len);
        let used = if self.opened == 0 { record_end } else { frame_end };
        Ok(Step::Frame { kind, payload: payload..frame_end, used })
    }
}

impl<H: BorrowMut<Opening>> Expanded<H> {
    /// As [`Opening::next`].
    #[inline]
    pub fn next(&mut self, bytes: &mut [u8]) -> Result<Step, FrameError> {
        let (half, key) = (self.half.borrow_mut(), &mut self.key);
        if half.opened > 0 {
            return half.frame(bytes, 0);
        }
        match half.open(bytes, |_| key)? {
            Some(step) => Ok(step),
            None => half.frame(bytes, RECORD_HEAD),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{FrameLimit, lan::Expect};

    /// F08: at the end of its records a direction stops on both sides, and no counter is used twice.
    #[test]
    fn f08_the_last_record_is_the_last() {
        for suite in Suite::ALL {
            let secret = || Secret::take(&mut [7; 32]);
            let frames = LanFraming::inside(FrameLimit::DEFAULT, Expect::Traffic);
            let (mut sealing, mut opening) =
                (Sealing::new(secret(), suite), Opening::new(secret(), suite, frames));
            sealing.0.counter = RECORDS_MAX.saturating_sub(1);
            opening.direction.counter = RECORDS_MAX.saturating_sub(1);

            let mut last = [0, 0, 1, 0, 0, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let mut more = last;
            sealing.seal(&mut last).unwrap();
            assert_eq!(sealing.seal(&mut more), Err(SealError::Exhausted));
            let found = opening.next(&mut last).unwrap();
            assert_eq!(found, Step::Frame { kind: Kind::Message, payload: 6..7, used: 23 });
            assert_eq!(opening.next(&mut last), Err(FrameError::Exhausted));
            assert_eq!((sealing.records(), opening.records()), (RECORDS_MAX, RECORDS_MAX));
        }
    }
}
