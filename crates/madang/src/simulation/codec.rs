//! The bytes of scripted peers, written from `docs/wire.md` and apart from `madang-wire`: two readers of one text rarely
//! misread it alike.

use madang_driver::sim::Random;

/// Which framing a house speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tongue {
    Lan,
    /// Players, encrypted.
    #[cfg(feature = "wan")]
    Wan,
    /// A LAN whose links are sealed.
    #[cfg(feature = "wan")]
    Sealed,
    Be32,
    Classic,
}

impl Tongue {
    /// What is spoken inside, where something is around it.
    pub(super) fn inside(self) -> Tongue {
        match self {
            #[cfg(feature = "wan")]
            Tongue::Wan | Tongue::Sealed => Tongue::Lan,
            other => other,
        }
    }

    /// Whether it is the engine's own: with heartbeats and a goodbye.
    pub(super) fn is_own(self) -> bool {
        self.inside() == Tongue::Lan
    }

    /// Whether it is servers that talk to each other.
    pub(super) fn is_lan(self) -> bool {
        match self {
            Tongue::Lan => true,
            #[cfg(feature = "wan")]
            Tongue::Sealed => true,
            _ => false,
        }
    }

    /// Whether what travels is in records.
    pub(super) fn is_sealed(self) -> bool {
        self.is_own() && self != Tongue::Lan
    }
}

pub(super) const GREETING: u8 = 1;
pub(super) const WELCOME: u8 = 2;
pub(super) const REFUSAL: u8 = 3;
pub(super) const MESSAGE: u8 = 4;
pub(super) const PING: u8 = 5;
pub(super) const PONG: u8 = 6;
pub(super) const GOODBYE: u8 = 7;
#[cfg(feature = "wan")]
pub(super) const LOG_IN: u8 = 9;
pub(super) const QUEUE: u8 = 10;
pub(super) const TICKET: u8 = 11;
pub(super) const DRAINING: u8 = 12;

const CODE: u8 = 0x77;
const FIXED_KEY: u8 = 0xa9;

/// What a peer says of itself.
pub(super) struct Introduction<'a> {
    pub(super) frame_limit: u32,
    pub(super) node: &'a str,
    pub(super) incarnation: u64,
    pub(super) ticket: &'a [u8],
}

impl Introduction<'_> {
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut body = Vec::from(*b"MDNG");
        body.extend(1u16.to_le_bytes());
        let flags: u16 = if self.ticket.is_empty() { 0 } else { 2 };
        body.extend(flags.to_le_bytes());
        body.extend(7u32.to_le_bytes());
        body.extend(self.frame_limit.to_le_bytes());
        body.extend(self.incarnation.to_le_bytes());
        body.extend(0u64.to_le_bytes());
        for name in ["peer", self.node] {
            body.extend((name.len() as u16).to_le_bytes());
            body.extend(name.as_bytes());
        }
        if !self.ticket.is_empty() {
            body.extend((self.ticket.len() as u16).to_le_bytes());
            body.extend(self.ticket);
        }
        lan_frame(GREETING, &body)
    }
}

pub(super) fn lan_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from((body.len() as u32 | u32::from(kind) << 24).to_le_bytes());
    frame.extend(body);
    frame
}

/// A message in its frame.
pub(super) fn message(tongue: Tongue, payload: &[u8], dice: &mut Random) -> Vec<u8> {
    match tongue.inside() {
        Tongue::Lan => lan_frame(MESSAGE, payload),
        Tongue::Be32 => {
            let mut frame = Vec::from((payload.len() as u32).to_be_bytes());
            frame.extend(payload);
            frame
        }
        _ => {
            let [low, high] = (payload.len() as u16).to_le_bytes();
            let key = dice.word() as u8;
            let sum = payload.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            let mut frame = vec![CODE, low, high, key];
            let mut last = key;
            for (place, plain) in [sum].iter().chain(payload).enumerate() {
                last = plain ^ mask(last, place);
                frame.push(last);
            }
            frame
        }
    }
}

fn mask(last: u8, place: usize) -> u8 {
    last.rotate_left(3).wrapping_add(FIXED_KEY).wrapping_add(place as u8)
}

/// A frame that came: its kind (a foreign framing has messages only) and payload.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

/// Takes one frame off the front of what came, if it is there whole.
pub(super) fn take_frame(tongue: Tongue, stream: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    let (head, kind, len) = match (tongue.inside(), stream.as_slice()) {
        (Tongue::Lan, [a, b, c, kind, ..]) => (4, *kind, u32::from_le_bytes([*a, *b, *c, 0]) as usize),
        (Tongue::Be32, [a, b, c, d, ..]) => (4, MESSAGE, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        (Tongue::Classic, [code, low, high, _, _, ..]) => {
            if *code != CODE {
                return Err(format!("a classic frame with the code {code:#x}"));
            }
            (5, MESSAGE, u16::from_le_bytes([*low, *high]) as usize)
        }
        _ => return Ok(None),
    };
    let known = (GREETING..=GOODBYE).contains(&kind) || (QUEUE..=DRAINING).contains(&kind);
    if len == 0 || !known {
        return Err(format!("a frame of kind {kind} and {len} bytes"));
    }
    if stream.len() < head + len {
        return Ok(None);
    }
    let mut frame: Vec<u8> = stream.drain(..head + len).collect();
    if tongue == Tongue::Classic {
        let mut last = frame[3];
        for (place, byte) in frame[4..].iter_mut().enumerate() {
            let masked = *byte;
            *byte = masked ^ mask(last, place);
            last = masked;
        }
        if frame[4] != frame[5..].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) {
            return Err("a classic frame with a wrong checksum".into());
        }
    }
    Ok(Some(Frame { kind, payload: frame.split_off(head) }))
}

/// Bytes that are no frame in any state of a connection.
pub(super) fn garbage(tongue: Tongue, limit: u32, dice: &mut Random) -> Vec<u8> {
    let coin = dice.coin();
    match tongue.inside() {
        Tongue::Lan if coin => vec![0, 0, 0, MESSAGE],
        Tongue::Lan => vec![9, 0, 0, 99],
        Tongue::Be32 if coin => vec![0; 4],
        Tongue::Be32 => (limit + 1).to_be_bytes().to_vec(),
        _ if coin => vec![CODE ^ 1],
        _ => vec![CODE, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_at_any_split_and_garbage_is_none() {
        for tongue in [Tongue::Lan, Tongue::Be32, Tongue::Classic] {
            let mut dice = Random::new(5);
            let mut stream = Vec::new();
            let mut got = Vec::new();
            for len in [1, 2, 300] {
                for byte in message(tongue, &vec![len as u8; len], &mut dice) {
                    stream.push(byte);
                    if let Some(frame) = take_frame(tongue, &mut stream).unwrap() {
                        got.push((frame.kind, frame.payload.len()));
                    }
                }
            }
            assert_eq!(got, [(MESSAGE, 1), (MESSAGE, 2), (MESSAGE, 300)], "{tongue:?}");
        }
    }
}
