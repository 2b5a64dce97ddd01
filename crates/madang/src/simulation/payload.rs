//! What the messages of a simulation carry: who sent it, which one it is, and bytes that follow from both.
//!
//! ```text
//!   engine's   │ 1 │ flags │ number u32 │ filler …     one number per message, in all houses
//!   peer's     │ 2 │ flags │ peer u32 │ counter u32 │ filler …
//! ```
//!
//! The filler is a function of what stands before it, so one altered, lost or foreign byte shows (I1).

/// The shortest message of an engine's content.
pub(super) const ENGINE_LEN_MIN: usize = 6;
/// The shortest message of a scripted peer.
pub(super) const PEER_LEN_MIN: usize = 10;

/// Asks for an answer: the liveness phase.
pub(super) const MARKER: u8 = 1;
/// Is one.
pub(super) const ANSWER: u8 = 2;

/// Tells a waiter where it stands: no message of a session.
pub(super) const WAITING: u8 = 4;

/// A message whose bytes are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// Sent by some engine's content.
    Engine { number: u32, flags: u8 },
    /// Sent by a scripted peer.
    Peer { key: u32, counter: u32, flags: u8 },
}

impl Payload {
    /// The message in `len` bytes, or in as few as it needs.
    pub(super) fn bytes(self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        match self {
            Payload::Engine { number, flags } => {
                bytes.extend([1, flags]);
                bytes.extend(number.to_le_bytes());
            }
            Payload::Peer { key, counter, flags } => {
                bytes.extend([2, flags]);
                bytes.extend(key.to_le_bytes());
                bytes.extend(counter.to_le_bytes());
            }
        }
        let seed = self.seed();
        bytes.extend((bytes.len()..len).map(|at| filler(seed, at)));
        bytes
    }

    /// The message that these bytes are, if every one of them is right.
    pub(super) fn read(bytes: &[u8]) -> Option<Payload> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (payload, head) = match *bytes {
            [1, flags, ..] => (Payload::Engine { number: word(2)?, flags }, ENGINE_LEN_MIN),
            [2, flags, ..] => (Payload::Peer { key: word(2)?, counter: word(6)?, flags }, PEER_LEN_MIN),
            _ => return None,
        };
        let seed = payload.seed();
        let is_right = bytes.iter().enumerate().skip(head).all(|(at, byte)| *byte == filler(seed, at));
        is_right.then_some(payload)
    }

    fn seed(self) -> u32 {
        let word = match self {
            Payload::Engine { number, flags } => number ^ (u32::from(flags) << 24) ^ 0x5eed,
            Payload::Peer { key, counter, flags } => key.rotate_left(16) ^ counter ^ (u32::from(flags) << 24),
        };
        word.wrapping_mul(0x9e37_79b9)
    }
}

fn filler(seed: u32, at: usize) -> u8 {
    (seed >> 16) as u8 ^ (at as u8).wrapping_mul(29) ^ (at >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i01_a_message_is_read_back_and_any_altered_byte_of_it_shows() {
        for payload in [
            Payload::Engine { number: 70_000, flags: MARKER },
            Payload::Peer { key: 9, counter: 300, flags: 0 },
        ] {
            let bytes = payload.bytes(40);
            assert_eq!(Payload::read(&bytes), Some(payload));
            assert_eq!(Payload::read(&bytes[..12]), Some(payload));
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 0x10;
                assert_ne!(Payload::read(&altered), Some(payload), "byte {at}");
            }
        }
    }
}
