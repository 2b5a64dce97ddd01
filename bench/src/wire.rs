//! What every server and client of the benchmark speaks: a 4-byte big-endian length, then that many payload bytes.
//! (Inside encrypted records the four bytes are those of the engine's own frames, see [`Framing`].)
//!
//! There is no greeting and no heartbeat. An *echo* server answers each frame with the same frame. A *broadcast*
//! server reads each payload as a [`Trigger`] and answers on every open connection, the trigger's own included.

use madang::wire::{Kind, lan};

/// Bytes before each payload.
pub const HEADER_BYTES: usize = 4;

/// Writes the header of a payload of `payload_bytes`.
pub fn header(payload_bytes: usize) -> [u8; HEADER_BYTES] {
    u32::try_from(payload_bytes).expect("the bench sends no payload of 4 GiB").to_be_bytes()
}

/// How messages travel. Headers are equally long, so that a load counts the same bytes either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Framing {
    /// A big-endian length and the payload.
    #[default]
    Be32,
    /// The engine's players' protocol: a handshake, then encrypted records with frames of its own in them.
    Wan,
}

impl Framing {
    /// As programs are told it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Be32 => "be32",
            Self::Wan => "wan",
        }
    }

    /// The header of a message of `payload_bytes`.
    #[must_use]
    pub fn header(self, payload_bytes: usize) -> [u8; HEADER_BYTES] {
        let be32 = header(payload_bytes);
        match self {
            Self::Be32 => be32,
            Self::Wan => lan::header(Kind::Message, u32::from_be_bytes(be32)),
        }
    }
}

const _: () = assert!(lan::HEADER == HEADER_BYTES);

/// The payload at the front of `bytes`, when it is there whole.
pub fn first_payload(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    rest.get(..u32::from_be_bytes(*header) as usize)
}

/// How many of the first bytes of `bytes` are whole frames.
pub fn whole_frames_bytes(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(payload) = first_payload(&bytes[end..]) {
        end += HEADER_BYTES + payload.len();
    }
    end
}

/// A request to a broadcast server, which content would call one turn of a game.
///
/// Payload: `messages` and `payload_bytes`, each 4 bytes big-endian. With `messages` = 0 the server echoes the
/// trigger to its sender alone; clients use that to learn that they have been accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Messages that every connection is to receive.
    pub messages: u32,
    /// Size of each of those messages without its header; at least [`Trigger::PAYLOAD_BYTES_MIN`].
    pub payload_bytes: u32,
}

impl Trigger {
    /// Bytes of a trigger's own payload.
    pub const BYTES: usize = 8;
    /// A broadcast payload starts with its 8-byte sequence number.
    pub const PAYLOAD_BYTES_MIN: u32 = 8;
    /// More would measure the socket buffers: 64 messages of 4 KiB are 256 KiB a connection and turn.
    pub const MESSAGES_MAX: u32 = 64;
    /// See [`Trigger::MESSAGES_MAX`].
    pub const PAYLOAD_BYTES_MAX: u32 = 4096;

    /// The trigger as a whole frame.
    pub fn frame(self, framing: Framing) -> Vec<u8> {
        let mut frame = framing.header(Self::BYTES).to_vec();
        frame.extend_from_slice(&self.messages.to_be_bytes());
        frame.extend_from_slice(&self.payload_bytes.to_be_bytes());
        frame
    }

    /// Reads a payload; `None` when it is not a trigger within the limits above.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (messages, payload_bytes) = payload.split_first_chunk::<4>()?;
        let trigger = Self {
            messages: u32::from_be_bytes(*messages),
            payload_bytes: u32::from_be_bytes(payload_bytes.try_into().ok()?),
        };
        let sizes = Self::PAYLOAD_BYTES_MIN..=Self::PAYLOAD_BYTES_MAX;
        (trigger.messages <= Self::MESSAGES_MAX && sizes.contains(&trigger.payload_bytes)).then_some(trigger)
    }
}

/// Appends the broadcast payload with this `sequence`: the number in 8 big-endian bytes, then its lowest byte.
///
/// A server counts its broadcast messages from zero, so that a receiver can tell loss, doubling and reordering.
pub fn append_broadcast_payload(out: &mut Vec<u8>, sequence: u64, payload_bytes: u32) {
    let end = out.len() + payload_bytes as usize;
    out.extend_from_slice(&sequence.to_be_bytes());
    out.resize(end, sequence as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_at_every_cut() {
        let mut bytes = Vec::new();
        for payload in [&b"a"[..], b"", b"four"] {
            bytes.extend_from_slice(&header(payload.len()));
            bytes.extend_from_slice(payload);
        }
        for cut in 0..=bytes.len() {
            let expected = [17, 9, 5].into_iter().find(|&end| end <= cut).unwrap_or(0);
            assert_eq!(whole_frames_bytes(&bytes[..cut]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn triggers_survive_the_wire_and_limits_hold() {
        let trigger = Trigger { messages: 8, payload_bytes: 200 };
        assert_eq!(Trigger::parse(first_payload(&trigger.frame(Framing::Be32)).unwrap()), Some(trigger));
        for (messages, payload_bytes) in [(65, 200), (1, 7), (1, 4097)] {
            let frame = Trigger { messages, payload_bytes }.frame(Framing::Be32);
            assert_eq!(Trigger::parse(&frame[HEADER_BYTES..]), None, "{messages} of {payload_bytes}");
        }
        assert_eq!(Trigger::parse(&[0; 7]), None);
        assert_eq!(Trigger::parse(&[0; 9]), None);
    }

    #[test]
    fn broadcast_payload_carries_its_sequence() {
        let mut out = vec![9];
        append_broadcast_payload(&mut out, 0x1ff, 10);
        assert_eq!(out, [9, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff]);
    }
}
