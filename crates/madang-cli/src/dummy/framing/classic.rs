//! The classic header and mask (docs/wire.md 3.2).

use super::{Header, Kind, Malformed};

/// Code, length, key, checksum.
pub(super) const HEADER: usize = 5;

/// Which game: the first byte of each frame.
pub(crate) const CODE: u8 = 0x77;

/// What both sides know.
const FIXED_KEY: u8 = 0xa9;

/// The rolling mask; each byte on the wire goes into the mask of the next.
struct Mask {
    last: u8,
    index: u8,
}

impl Mask {
    const fn new(key: u8) -> Self {
        Self { last: key, index: 0 }
    }

    fn next(&mut self) -> u8 {
        let mask = self.last.rotate_left(3).wrapping_add(FIXED_KEY).wrapping_add(self.index);
        self.index = self.index.wrapping_add(1);
        mask
    }

    fn mask(&mut self, plain: u8) -> u8 {
        self.last = plain ^ self.next();
        self.last
    }

    fn unmask(&mut self, masked: u8) -> u8 {
        let plain = masked ^ self.next();
        self.last = masked;
        plain
    }
}

pub(super) fn encode(payload: &[u8], key: u8, out: &mut Vec<u8>) {
    let mut mask = Mask::new(key);
    let [low, high] = (payload.len() as u16).to_le_bytes();
    out.extend_from_slice(&[CODE, low, high, key, mask.mask(sum(payload))]);
    out.extend(payload.iter().map(|&byte| mask.mask(byte)));
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, Malformed> {
    let &[code, low, high, key, checksum] = bytes else {
        return Err(Malformed(format!("a header of {} bytes", bytes.len())));
    };
    if code != CODE {
        return Err(Malformed(format!("code {code:#04x} in place of {CODE:#04x}")));
    }
    let len = u16::from_le_bytes([low, high]).into();
    Ok(Header { kind: Kind::Message, len, classic: (key, checksum) })
}

pub(super) fn open((key, checksum): (u8, u8), payload: &mut [u8], whole: bool) -> Result<(), Malformed> {
    let mut mask = Mask::new(key);
    let expected = mask.unmask(checksum);
    for byte in payload.iter_mut() {
        *byte = mask.unmask(*byte);
    }
    let got = sum(payload);
    if whole && got != expected {
        return Err(Malformed(format!("checksum {expected:#04x}, but the bytes sum to {got:#04x}")));
    }
    Ok(())
}

fn sum(payload: &[u8]) -> u8 {
    payload.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}
