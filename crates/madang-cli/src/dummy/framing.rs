//! The dummy's own codec, written from the bytes that docs/wire.md lays down and from nothing else.
//!
//! It is as simple as it can be: a header of fixed length says how long the payload is. A bug in the engine's codec
//! cannot be hidden by the same bug here, because they share no line.

mod classic;
#[cfg(test)]
mod vectors;

use std::ops::RangeInclusive;

use super::random::Random;

pub(crate) use self::classic::CODE as CLASSIC_CODE;
#[cfg(test)]
pub(crate) use self::vectors::golden;

/// How messages are cut out of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Framing {
    /// Madang's own server-to-server framing: 24-bit length and kind, a greeting first
    Lan,
    /// A 4-byte big-endian length, then the payload
    Be32,
    /// The school's header of code, length, key and checksum before a masked payload
    Classic,
    /// LAN frames inside encrypted records; chosen by the server's key (`--wan`)
    #[value(skip)]
    Wan,
}

/// What a frame is: on a LAN the kinds up to the goodbye and those of the queue, inside WAN records all but the greeting.
/// The other framings know messages only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Greeting,
    Welcome,
    Refusal,
    Message,
    Ping,
    Pong,
    Goodbye,
    Accept,
    LogIn,
    Queue,
    Ticket,
    Draining,
}

/// A header that was read: what follows it, and how to open that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Bytes of payload behind the header.
    pub(crate) len: usize,
    /// Classic only: the random key of this message and the checksum of its plain payload.
    classic: (u8, u8),
}

/// Bytes that are no frame, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Kind {
    const ALL: [Self; 12] = [
        Self::Greeting,
        Self::Welcome,
        Self::Refusal,
        Self::Message,
        Self::Ping,
        Self::Pong,
        Self::Goodbye,
        Self::Accept,
        Self::LogIn,
        Self::Queue,
        Self::Ticket,
        Self::Draining,
    ];

    /// The number on the wire: 1 to 12 in the order above.
    pub(crate) const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// How long its payload may be.
    const fn lengths(self) -> RangeInclusive<usize> {
        match self {
            Self::Greeting => 6..=512,
            Self::Welcome => 16..=16,
            Self::Refusal => 3..=131,
            Self::Message => 1..=0xff_ffff,
            Self::Ping | Self::Pong => 8..=8,
            Self::Goodbye => 5..=5,
            Self::Accept => 20..=20,
            Self::LogIn => 6..=2_246,
            Self::Queue => 12..=12,
            Self::Ticket => 7..=135,
            Self::Draining => 4..=4,
        }
    }
}

impl Framing {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Be32 => "be32",
            Self::Classic => "classic",
            Self::Wan => "wan",
        }
    }

    pub(crate) const fn header_len(self) -> usize {
        match self {
            Self::Lan | Self::Be32 | Self::Wan => 4,
            Self::Classic => classic::HEADER,
        }
    }

    /// Whether its streams carry control frames: a greeting or log-in, heartbeats, a goodbye.
    pub(crate) const fn has_control(self) -> bool {
        matches!(self, Self::Lan | Self::Wan)
    }

    fn has(self, kind: Kind) -> bool {
        match self {
            Self::Wan => !matches!(kind, Kind::Greeting | Kind::Accept),
            _ => kind.number() <= Kind::Goodbye.number() || matches!(kind, Kind::Queue | Kind::Ticket),
        }
    }

    /// The longest payload that the header can say and the framing allows.
    pub(crate) const fn longest(self) -> usize {
        match self {
            Self::Lan | Self::Be32 | Self::Wan => 0xff_ffff,
            Self::Classic => 0xffff,
        }
    }

    /// Appends `payload` as one message. `random` gives the classic key.
    pub(crate) fn encode(self, payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
        debug_assert!(!payload.is_empty() && payload.len() <= self.longest());
        match self {
            Self::Lan | Self::Wan => encode_frame(Kind::Message, payload, out),
            Self::Be32 => {
                out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                out.extend_from_slice(payload);
            }
            Self::Classic => classic::encode(payload, random.next() as u8, out),
        }
    }

    /// Reads a header; `bytes` has [`Framing::header_len`] of them.
    pub(crate) fn header(self, bytes: &[u8]) -> Result<Header, Malformed> {
        let header = match self {
            Self::Lan | Self::Wan => {
                let word = u32::from_le_bytes(four(bytes)?);
                let number = (word >> 24) as u8;
                let known = |kind: &Kind| kind.number() == number && self.has(*kind);
                let kind = Kind::ALL.into_iter().find(known);
                let kind = kind.ok_or_else(|| Malformed(format!("a frame of unknown kind {number}")))?;
                let len = (word & 0xff_ffff) as usize;
                if !kind.lengths().contains(&len) {
                    return Err(Malformed(format!("a {kind:?} of {len} bytes")));
                }
                Header { kind, len, classic: (0, 0) }
            }
            Self::Be32 => Header {
                kind: Kind::Message,
                len: u32::from_be_bytes(four(bytes)?) as usize,
                classic: (0, 0),
            },
            Self::Classic => classic::header(bytes)?,
        };
        if header.len == 0 {
            return Err(Malformed("a message of no bytes".into()));
        }
        Ok(header)
    }

    /// Turns the payload on the wire into the plain one, in place. `whole` says whether all of it is there, so that
    /// its checksum can be verified.
    pub(crate) fn open(self, header: Header, payload: &mut [u8], whole: bool) -> Result<(), Malformed> {
        match self {
            Self::Lan | Self::Be32 | Self::Wan => Ok(()),
            Self::Classic => classic::open(header.classic, payload, whole),
        }
    }
}

/// Appends a frame of any kind, as LAN streams and WAN records carry them.
pub(crate) fn encode_frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let word = payload.len() as u32 | u32::from(kind.number()) << 24;
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(payload);
}

fn four(bytes: &[u8]) -> Result<[u8; 4], Malformed> {
    bytes.try_into().map_err(|_| Malformed(format!("a header of {} bytes", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: Framing = Framing::Lan;
    const BE32: Framing = Framing::Be32;
    const CLASSIC: Framing = Framing::Classic;
    const WAN: Framing = Framing::Wan;

    /// These frames were worked out by hand from docs/wire.md.
    #[test]
    fn frames_are_the_bytes_of_the_wire_document() {
        let mut lan = Vec::new();
        LAN.encode(b"abc", &mut Random::new(0), &mut lan);
        assert_eq!(lan, [3, 0, 0, 4, b'a', b'b', b'c']);

        let mut be32 = Vec::new();
        BE32.encode(b"abc", &mut Random::new(0), &mut be32);
        assert_eq!(be32, [0, 0, 0, 3, b'a', b'b', b'c']);

        // Sum of 01 02 is 03. Masks: rotl3(10)=80 +a9+0=29, 03^29=2a; rotl3(2a)=51 +a9+1=fb, 01^fb=fa;
        // rotl3(fa)=d7 +a9+2=82, 02^82=80.
        let mut classic = Vec::new();
        classic::encode(&[1, 2], 0x10, &mut classic);
        assert_eq!(classic, [0x77, 2, 0, 0x10, 0x2a, 0xfa, 0x80]);
    }

    #[test]
    fn what_was_encoded_opens_again() {
        let mut random = Random::new(3);
        for framing in [LAN, BE32, CLASSIC] {
            for len in [1, 2, 255, 256, 257, 0xffff] {
                let mut payload = Vec::new();
                random.fill(len, &mut payload);
                let mut frame = Vec::new();
                framing.encode(&payload, &mut random, &mut frame);
                let (head, body) = frame.split_at_mut(framing.header_len());
                let header = framing.header(head).expect("our own header");
                assert_eq!((header.kind, header.len), (Kind::Message, body.len()));
                framing.open(header, body, true).expect("our own frame");
                assert_eq!(body, payload, "{framing:?} {len}");
            }
        }
    }

    #[test]
    fn classic_opens_the_beginning_of_a_cut_payload() {
        let mut frame = Vec::new();
        CLASSIC.encode(b"a payload", &mut Random::new(5), &mut frame);
        let header = CLASSIC.header(&frame[..5]).expect("our own header");
        CLASSIC.open(header, &mut frame[5..9], false).expect("no checksum over a part");
        assert_eq!(frame[5..9], *b"a pa");
    }

    #[test]
    fn classic_notices_each_altered_bit_of_checksum_and_payload() {
        let mut frame = Vec::new();
        CLASSIC.encode(b"payload", &mut Random::new(6), &mut frame);
        let opens = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            let (head, body) = frame.split_at_mut(5);
            CLASSIC.header(head).and_then(|header| CLASSIC.open(header, body, true))
        };
        assert_eq!(opens(&frame), Ok(()));
        // The bits of the last byte reach no other byte through the mask, so the sum is certain to change.
        for bit in 0..8 {
            let mut altered = frame.clone();
            *altered.last_mut().expect("not empty") ^= 1 << bit;
            assert!(opens(&altered).is_err(), "bit {bit}");
            let mut foreign = frame.clone();
            foreign[0] ^= 1 << bit;
            assert!(opens(&foreign).is_err(), "code bit {bit}");
        }
    }

    #[test]
    fn headers_that_no_receiver_may_take_are_malformed() {
        let table: [(Framing, &[u8]); 16] = [
            (LAN, &[0, 0, 0, 4]),
            (LAN, &[1, 0, 0, 0]),
            (LAN, &[1, 0, 0, 8]),
            (LAN, &[1, 0, 0, 0xff]),
            (LAN, &[5, 0, 0, 1]),
            (LAN, &[1, 2, 0, 1]),
            (LAN, &[15, 0, 0, 2]),
            (LAN, &[132, 0, 0, 3]),
            (LAN, &[7, 0, 0, 5]),
            (LAN, &[4, 0, 0, 7]),
            (WAN, &[6, 0, 0, 1]),
            (WAN, &[20, 0, 0, 8]),
            (WAN, &[5, 0, 0, 9]),
            (WAN, &[4, 0, 0, 13]),
            (BE32, &[0, 0, 0, 0]),
            (CLASSIC, &[0x77, 0, 0, 1, 1]),
        ];
        for (framing, bytes) in table {
            assert!(framing.header(bytes).is_err(), "{framing:?} {bytes:?}");
        }
    }
}
