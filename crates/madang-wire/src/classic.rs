//! A foreign framing of the classic sort: `code · length · key · checksum`, and a masked payload.
//!
//! ```text
//!  byte 0      1        2        3      4          5
//!      ┌──────┬────────┬────────┬──────┬──────────┬────────────
//!      │ code │ length, u16 LE  │ key  │ checksum │ payload …
//!      └──────┴────────┴────────┴──────┴──────────┴────────────
//!                                       └ masked ──────────────┘
//! ```
//!
//! The code tells the game; the length is that of the payload; the key is random for each frame; the checksum is the
//! sum of the plain payload's bytes, modulo 256. Checksum and payload are masked together by a rolling XOR: each
//! masked byte depends on the key of the frame, the fixed key that both sides know, its place, and the masked byte
//! before it.
//!
//! **This is obfuscation, not protection.** Whoever has a client has the fixed key, and nothing here keeps a frame
//! from being forged, replayed or read. It exists so that a game with such clients can move its server first.

use crate::framing::{Find, FrameError, Framing, Kind, Opened, Overhead, SealError, SealSlot, Sealed};

/// Bytes of the header.
pub const HEADER: usize = 5;

/// What both sides of a game agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicSettings {
    /// The first byte of each frame.
    pub code: u8,
    /// The fixed half of the mask.
    pub fixed_key: u8,
    /// The longest payload in bytes; 0 counts as 1.
    pub limit: u16,
}

impl Default for ClassicSettings {
    /// The game of the examples in `docs/wire.md`: code `0x77`, fixed key `0xA9`, and the longest payload that the
    /// header can say.
    fn default() -> Self {
        Self { code: 0x77, fixed_key: 0xa9, limit: u16::MAX }
    }
}

/// The framing of one connection: what was agreed on, and where the random keys of its frames come from.
#[derive(Clone, Debug)]
pub struct Classic {
    settings: ClassicSettings,
    keys: u64,
}

impl Classic {
    /// A framing whose frame keys follow from `seed`, which the engine draws for each connection. The keys need no
    /// secrecy (each stands in its frame), only variety.
    pub const fn new(settings: ClassicSettings, seed: u64) -> Self {
        Self { settings, keys: seed }
    }

    fn limit(&self) -> u16 {
        self.settings.limit.max(1)
    }

    /// Checks as much of a header as there is; the payload's length once that is readable.
    fn check(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let expected = self.settings.code;
        if let Some(&found) = bytes.first().filter(|found| **found != expected) {
            return Err(FrameError::Code { expected, found });
        }
        let Some(&[_, low, high]) = bytes.first_chunk() else { return Ok(None) };
        match u16::from_le_bytes([low, high]) {
            0 => Err(FrameError::Zero),
            len if len > self.limit() => {
                Err(FrameError::TooLong { len: usize::from(len), limit: usize::from(self.limit()) })
            }
            len => Ok(Some(usize::from(len))),
        }
    }

    /// The next frame key: splitmix64, which is good for any seed and needs one word of state.
    fn next_key(&mut self) -> u8 {
        self.keys = self.keys.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.keys;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [.., top] = mixed.to_le_bytes();
        top
    }
}

impl Framing for Classic {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        let Some(payload_len) = self.check(bytes)? else {
            return Ok(Find::Need { total: HEADER });
        };
        let total = payload_len.saturating_add(HEADER);
        Ok(if total <= bytes.len() { Find::Frame { len: total } } else { Find::Need { total } })
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        let payload_len = self.check(frame)?.ok_or(FrameError::NotOneFrame)?;
        let len = frame.len();
        if payload_len.saturating_add(HEADER) != len {
            return Err(FrameError::NotOneFrame);
        }
        let [_, _, _, key, masked @ ..] = frame else { return Err(FrameError::NotOneFrame) };
        let mut mask = Mask::new(*key, self.settings.fixed_key);
        masked.iter_mut().for_each(|byte| *byte = mask.unmask(*byte));
        let [announced, payload @ ..] = masked else { return Err(FrameError::NotOneFrame) };
        if *announced != checksum(payload) {
            return Err(FrameError::Checksum);
        }
        Ok(Opened { kind: Kind::Message, payload: HEADER..len })
    }

    fn overhead(&self) -> Overhead {
        Overhead { head: HEADER, tail: 0 }
    }

    fn limit(&self) -> usize {
        usize::from(Classic::limit(self))
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        let SealSlot { head, payload, .. } = slot;
        let (len, limit) = (payload.len(), Classic::limit(self));
        let too_long = SealError::TooLong { len, limit: usize::from(limit) };
        let [low, high] = match u16::try_from(len) {
            Ok(0) => return Err(SealError::Empty),
            Ok(len) if len <= limit => len.to_le_bytes(),
            _ => return Err(too_long),
        };
        let room = SealError::Room { needed: HEADER, available: head.len() };
        let head = head.last_chunk_mut::<HEADER>().ok_or(room)?;

        let key = self.next_key();
        let mut mask = Mask::new(key, self.settings.fixed_key);
        *head = [self.settings.code, low, high, key, mask.mask(checksum(payload))];
        payload.iter_mut().for_each(|byte| *byte = mask.mask(*byte));
        Ok(Sealed { head: HEADER, tail: 0 })
    }
}

/// The sum of the bytes, modulo 256.
fn checksum(payload: &[u8]) -> u8 {
    payload.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The rolling mask over one frame:
///
/// ```text
/// masked[i] = plain[i] ^ (rotate_left(masked[i - 1], 3) + fixed_key + i)     modulo 256, i from 0 at the checksum
/// masked[-1] = key
/// ```
struct Mask {
    last: u8,
    fixed_key: u8,
    place: u8,
}

impl Mask {
    fn new(key: u8, fixed_key: u8) -> Self {
        Self { last: key, fixed_key, place: 0 }
    }

    fn mask(&mut self, plain: u8) -> u8 {
        let masked = plain ^ self.next();
        self.last = masked;
        masked
    }

    fn unmask(&mut self, masked: u8) -> u8 {
        let plain = masked ^ self.next();
        self.last = masked;
        plain
    }

    fn next(&mut self) -> u8 {
        let mask = self.last.rotate_left(3).wrapping_add(self.fixed_key).wrapping_add(self.place);
        self.place = self.place.wrapping_add(1);
        mask
    }
}
