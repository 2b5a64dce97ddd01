//! A game's own framing, as an outsider would write it: a LEB128 length, the payload, one byte of XOR over it.

use madang_wire::{Find, FrameError, Framing, Kind, Opened, Overhead, SealError, SealSlot, Sealed};

pub(crate) struct Varint {
    pub(crate) limit: usize,
}

impl Varint {
    /// The length and the bytes it took, once its last byte is there.
    fn length(&self, bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let mut len = 0;
        for (place, byte) in bytes.iter().take(2).enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return match len {
                    0 => Err(FrameError::Zero),
                    _ if len > self.limit => Err(FrameError::TooLong { len, limit: self.limit }),
                    _ => Ok(Some((len, place + 1))),
                };
            }
        }
        if bytes.len() < 2 { Ok(None) } else { Err(FrameError::Foreign("length of more than two bytes")) }
    }
}

impl Framing for Varint {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        Ok(match self.length(bytes)? {
            None => Find::Need { total: bytes.len() + 1 },
            Some((len, head)) if head + len < bytes.len() => Find::Frame { len: head + len + 1 },
            Some((len, head)) => Find::Need { total: head + len + 1 },
        })
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        let (len, head) = self.length(frame)?.ok_or(FrameError::NotOneFrame)?;
        if frame.len() != head + len + 1 {
            return Err(FrameError::NotOneFrame);
        }
        let payload = head..head + len;
        if xor(&frame[payload.clone()]) != frame[head + len] {
            return Err(FrameError::Checksum);
        }
        Ok(Opened { kind: Kind::Message, payload })
    }

    fn overhead(&self) -> Overhead {
        Overhead { head: 2, tail: 1 }
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        let len = slot.payload.len();
        slot.tail[0] = xor(slot.payload);
        let head = if len < 0x80 {
            slot.head[1] = len as u8;
            1
        } else {
            slot.head[0] = len as u8 | 0x80;
            slot.head[1] = (len >> 7) as u8;
            2
        };
        Ok(Sealed { head, tail: 1 })
    }
}

fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}
