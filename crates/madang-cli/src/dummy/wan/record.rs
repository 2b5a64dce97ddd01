//! Records: a length, LAN frames under a cipher, a tag. Both ends count them; no number is on the wire. A bare one holds a single
//! message without its header.

use super::Suite;
use super::noise::{Cipher, TAG};
use crate::dummy::framing::Malformed;
use crate::dummy::random::Random;

/// The length in front.
const HEAD: usize = 2;

/// The header of a frame.
const FRAME_HEAD: usize = 4;

/// The most bytes of frames in a record.
pub(crate) const FRAMES_MAX: usize = 16_388;

/// In the length: the record is bare.
const BARE: u16 = 0x8000;

/// The longest message of a bare record.
const BARE_MAX: usize = FRAMES_MAX - FRAME_HEAD;

/// The kind of a message's frame.
const MESSAGE: u32 = 4;

/// After so many records a key makes the next one.
const REKEY: u64 = 65_536;

/// The most frames that are put into one record, so that records of many kinds leave.
const FRAMES_TOGETHER: usize = 24;

/// Both directions of a connection whose handshake is over.
pub(crate) struct Secured {
    ours: Direction,
    theirs: Direction,
    /// Bytes that arrived and are no whole record yet.
    partial: Vec<u8>,
    /// Bytes of a long message that are still to come, each record full but the last.
    part_left: usize,
}

/// A cipher and how often it was used.
struct Direction {
    suite: Suite,
    cipher: Cipher,
    counter: u64,
}

impl Secured {
    pub(super) fn new(suite: Suite, ours: [u8; 32], theirs: [u8; 32]) -> Self {
        Self {
            ours: Direction::new(suite, ours),
            theirs: Direction::new(suite, theirs),
            partial: Vec::new(),
            part_left: 0,
        }
    }

    /// Puts whole frames into records: as many together as chance will have it, a message that is too long for one record
    /// into as many as it fills. A message that is alone is bare, or not.
    pub(crate) fn wrap(&mut self, mut frames: &[u8], random: &mut Random, out: &mut Vec<u8>) {
        while !frames.is_empty() {
            let mut taken = frame_len(frames);
            for _ in 1..random.between(1, FRAMES_TOGETHER) {
                let next = taken + frame_len(&frames[taken..]);
                if next == taken || next > FRAMES_MAX {
                    break;
                }
                taken = next;
            }
            let (together, rest) = frames.split_at(taken);
            match lone_message(together) {
                Some(payload) if random.between(0, 1) == 0 => self.seal_message(payload, out),
                _ => together.chunks(FRAMES_MAX).for_each(|part| self.seal(part, out)),
            }
            frames = rest;
        }
    }

    /// Makes one record of these bytes, whatever they are.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.seal_as(0, plain, out);
    }

    /// Makes a bare record of this message.
    pub(crate) fn seal_message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.seal_as(BARE, payload, out);
    }

    fn seal_as(&mut self, bare: u16, plain: &[u8], out: &mut Vec<u8>) {
        let head = ((plain.len() + TAG) as u16 | bare).to_le_bytes();
        let mut text = plain.to_vec();
        let tag = self.ours.cipher.seal(self.ours.nonce(bare), &[], &mut text);
        self.ours.used();
        out.extend(head);
        out.extend(text);
        out.extend(tag);
    }

    /// Takes bytes of the stream and appends the frames of all records that are whole now.
    pub(crate) fn arrived(&mut self, bytes: &[u8], frames: &mut Vec<u8>) -> Result<(), Malformed> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((head, rest)) = self.partial[at..].split_first_chunk::<HEAD>() {
            let bare = u16::from_le_bytes(*head) & BARE;
            let len = self.check_len(*head)?;
            let Some(sealed) = rest.get(..len) else { break };
            let mut text = sealed.to_vec();
            let opened = self.theirs.cipher.open(self.theirs.nonce(bare), &[], &mut text);
            opened.ok_or_else(|| Malformed(format!("record {} does not open", self.theirs.counter)))?;
            self.theirs.used();
            if bare == 0 {
                self.part_left = part_left(self.part_left, &text)?;
            } else {
                frames.extend((text.len() as u32 | MESSAGE << 24).to_le_bytes());
            }
            frames.extend(text);
            at += HEAD + len;
        }
        self.partial.drain(..at);
        Ok(())
    }

    /// Whether the stream stands within a record.
    pub(crate) fn within_a_record(&self) -> bool {
        !self.partial.is_empty()
    }

    fn check_len(&self, head: [u8; HEAD]) -> Result<usize, Malformed> {
        let head = u16::from_le_bytes(head);
        let len = usize::from(head & !BARE);
        let plain = len.saturating_sub(TAG);
        let fits = match (self.part_left, head & BARE) {
            (0, 0) => (FRAME_HEAD + 1..=FRAMES_MAX).contains(&plain),
            (0, _) => (1..=BARE_MAX).contains(&plain),
            (left, 0) => plain == left.min(FRAMES_MAX),
            (_, _) => false,
        };
        if fits { Ok(len) } else { Err(Malformed(format!("a record with {plain} bytes of frames"))) }
    }
}

/// Frames lie whole in a record; only a message that no record could hold begins one, fills it and goes on in the next.
fn part_left(left: usize, record: &[u8]) -> Result<usize, Malformed> {
    if left > 0 {
        return Ok(left - record.len());
    }
    let mut at = 0;
    while at < record.len() {
        let len = frame_len(&record[at..]);
        match record.len() - at {
            rest if rest < FRAME_HEAD => return Err(Malformed("a header cut by its record".into())),
            rest if len <= rest => at += len,
            rest if at == 0 && rest == FRAMES_MAX && len > FRAMES_MAX => return Ok(len - rest),
            rest => return Err(Malformed(format!("{rest} bytes of a frame of {len} in its record"))),
        }
    }
    Ok(0)
}

/// The payload of the only frame here, if it is a message that a bare record takes.
fn lone_message(frames: &[u8]) -> Option<&[u8]> {
    let (head, payload) = frames.split_first_chunk()?;
    let is_message = u32::from_le_bytes(*head) == payload.len() as u32 | MESSAGE << 24;
    (is_message && payload.len() <= BARE_MAX).then_some(payload)
}

/// Of the frame at the start, as its header says it; 0 where there is no header.
fn frame_len(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |head| FRAME_HEAD + (u32::from_le_bytes(*head) & 0xff_ffff) as usize)
}

/// The bytes of a record whose length and content are as said and whose tag is zeros.
pub(crate) fn record(len: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

impl Direction {
    fn new(suite: Suite, key: [u8; 32]) -> Self {
        Self { suite, cipher: Cipher::new(suite, &key), counter: 0 }
    }

    /// A bare record is numbered in the upper half of the numbers.
    fn nonce(&self, bare: u16) -> u64 {
        if bare == 0 { self.counter } else { self.counter | 1 << 63 }
    }

    fn used(&mut self) {
        self.counter += 1;
        if self.counter % REKEY == 0 {
            self.cipher = Cipher::new(self.suite, &self.cipher.next_key());
        }
    }
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secured({} records out, {} in)", self.ours.counter, self.theirs.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(suite: Suite) -> (Secured, Secured) {
        (Secured::new(suite, [1; 32], [2; 32]), Secured::new(suite, [2; 32], [1; 32]))
    }

    fn message(len: usize) -> Vec<u8> {
        let mut frame = (len as u32 | 4 << 24).to_le_bytes().to_vec();
        frame.extend((0..len).map(|at| at as u8));
        frame
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        for suite in [Suite::Aesgcm, Suite::Chachapoly] {
            let mut random = Random::new(1);
            for sizes in [&[1, 2, 300, 16_384][..], &[16_385, 1], &[5, 40_000, 3], &[32_772, 32_773]] {
                let (mut ours, mut theirs) = pair(suite);
                let frames: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
                let (mut wire, mut opened) = (Vec::new(), Vec::new());
                ours.wrap(&frames, &mut random, &mut wire);
                for piece in wire.chunks(random.between(1, 5_000)) {
                    theirs.arrived(piece, &mut opened).expect("our own records");
                }
                assert!(opened == frames && !theirs.within_a_record(), "{sizes:?}");
            }
        }
    }

    #[test]
    fn a_record_opens_once_in_its_place_and_unaltered() {
        let mut wire = Vec::new();
        let mut ours = pair(Suite::Aesgcm).0;
        ours.seal(&message(3), &mut wire);
        let first = wire.len();
        ours.seal(&message(4), &mut wire);
        let opens = |bytes: &[u8]| pair(Suite::Aesgcm).1.arrived(bytes, &mut Vec::new()).is_ok();
        assert!(opens(&wire));
        assert!(!opens(&wire[first..]), "the second alone");
        assert!(!opens(&[&wire[first..], &wire[..first]].concat()), "in the other order");
        assert!(!opens(&[&wire[..first], &wire[..first]].concat()), "twice");
        for at in 2..first {
            let mut altered = wire.clone();
            altered[at] ^= 0x80;
            assert!(!opens(&altered), "byte {at}");
        }
    }

    #[test]
    fn a_key_makes_the_next_after_65_536_records() {
        let (mut ours, mut theirs) = pair(Suite::Chachapoly);
        let (mut wire, mut opened) = (Vec::new(), Vec::new());
        let before = ours.ours.cipher.seal(0, &[], &mut []);
        for number in 0..REKEY + 2 {
            assert_eq!(ours.ours.cipher.seal(0, &[], &mut []) == before, number < REKEY, "{number}");
            wire.clear();
            ours.seal(&message(1), &mut wire);
            theirs.arrived(&wire, &mut opened).expect("our own record");
        }
        assert_eq!((ours.ours.counter, theirs.theirs.counter), (REKEY + 2, REKEY + 2));
    }

    #[test]
    fn records_that_no_receiver_may_take_are_malformed() {
        let mut too_long = message(16_384);
        too_long.extend(message(1));
        let table = [
            ("nothing", vec![]),
            ("half a header", vec![5, 0, 0, 4]),
            ("a frame cut by its record", message(9)[..10].to_vec()),
            ("frames, then one that is cut", [message(1), message(9)[..10].to_vec()].concat()),
            ("a long message that does not fill", message(20_000)[..16_000].to_vec()),
            ("too long", too_long),
        ];
        for (name, plain) in table {
            let (mut ours, mut theirs) = pair(Suite::Aesgcm);
            let mut wire = Vec::new();
            ours.seal(&plain, &mut wire);
            assert!(theirs.arrived(&wire, &mut Vec::new()).is_err(), "{name}");
        }
    }
}
