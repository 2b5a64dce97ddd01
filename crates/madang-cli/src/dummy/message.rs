//! What the dummy says: a message that proves where it belongs.
//!
//! ```text
//!  0        1          5              9           17
//!  +--------+----------+--------------+-----------+----------------------+
//!  | command| client   | connection   | sequence  | pattern …            |
//!  | u8     | u32 LE   | u32 LE       | u64 LE    | 7 bytes at the least |
//!  +--------+----------+--------------+-----------+----------------------+
//! ```
//!
//! Length and pattern follow from the run's seed and the four fields before, so an echo is checked byte by byte
//! against a message made anew, and a message of another client, of an earlier connection in the same slot or of an
//! earlier run cannot pass for the right one.
//!
//! The echo server acts on the first byte alone:
//!
//! | command | byte | the server |
//! |---|---|---|
//! | echo | `E` | sends the payload back |
//! | disconnect | `D` | disconnects the session and sends nothing more; queued echoes may be dropped |
//! | farewell | `F` | sends the payload back as the last message and disconnects: all that was queued arrives |

use super::random::Random;

/// The bytes before the pattern.
pub(crate) const HEADER: usize = 17;

/// The least size of a message: seven bytes of pattern make a false match by chance a matter of 2⁻⁵⁶.
pub(crate) const SMALLEST: usize = 24;

/// What a message asks of the echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Echo,
    Disconnect,
    Farewell,
}

impl Command {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Echo => b'E',
            Self::Disconnect => b'D',
            Self::Farewell => b'F',
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Disconnect, Self::Farewell].into_iter().find(|command| command.byte() == byte)
    }
}

/// The sizes that messages take, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl std::str::FromStr for Sizes {
    type Err = String;

    /// Reads `256` or `32..512`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{text:?}: {error}"));
        let (min, max) = match text.split_once("..") {
            Some((min, max)) => (number(min)?, number(max.trim_start_matches('='))?),
            None => (number(text)?, number(text)?),
        };
        if min < SMALLEST || max < min {
            return Err(format!("a size must be at least {SMALLEST} bytes, and the range must not be empty"));
        }
        Ok(Self { min, max })
    }
}

/// The one connection of the one client that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) seed: u64,
    pub(crate) client: u32,
    pub(crate) connection: u32,
}

/// The fields in front of the pattern, as somebody claims them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) command: Command,
    pub(crate) client: u32,
    pub(crate) connection: u32,
    pub(crate) sequence: u64,
}

impl Claim {
    /// Reads the fields; none if this is no message of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (&command, rest) = payload.split_first()?;
        let (client, rest) = rest.split_first_chunk()?;
        let (connection, rest) = rest.split_first_chunk()?;
        let (sequence, _pattern) = rest.split_first_chunk()?;
        Some(Self {
            command: Command::of(command)?,
            client: u32::from_le_bytes(*client),
            connection: u32::from_le_bytes(*connection),
            sequence: u64::from_le_bytes(*sequence),
        })
    }

    /// Appends the whole message that has these fields under `seed`.
    pub(crate) fn write(self, seed: u64, sizes: Sizes, out: &mut Vec<u8>) {
        let place = [self.command.byte().into(), self.client.into(), self.connection.into(), self.sequence];
        let mut random = Random::of(seed, &place);
        let size = random.between(sizes.min, sizes.max);
        out.push(self.command.byte());
        out.extend_from_slice(&self.client.to_le_bytes());
        out.extend_from_slice(&self.connection.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        random.fill(size - HEADER, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim =
        Claim { command: Command::Farewell, client: 0x0102_0304, connection: 5, sequence: 0x0607 };

    #[test]
    fn fields_lie_where_the_table_says() {
        let mut bytes = Vec::new();
        CLAIM.write(9, Sizes { min: 40, max: 40 }, &mut bytes);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..HEADER], [b'F', 4, 3, 2, 1, 5, 0, 0, 0, 7, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Claim::read(&bytes), Some(CLAIM));
    }

    #[test]
    fn every_field_and_the_seed_change_the_pattern() {
        let sizes = Sizes { min: 64, max: 64 };
        let pattern = |seed, claim: Claim| {
            let mut bytes = Vec::new();
            claim.write(seed, sizes, &mut bytes);
            bytes.split_off(HEADER)
        };
        let others = [
            (1, CLAIM),
            (9, Claim { command: Command::Echo, ..CLAIM }),
            (9, Claim { client: 1, ..CLAIM }),
            (9, Claim { connection: 6, ..CLAIM }),
            (9, Claim { sequence: 0, ..CLAIM }),
        ];
        for (seed, claim) in others {
            assert_ne!(pattern(9, CLAIM), pattern(seed, claim), "{seed} {claim:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_refused() {
        for (text, expected) in
            [("24", Some((24, 24))), ("32..512", Some((32, 512))), ("32..=64", Some((32, 64)))]
        {
            let sizes = text.parse::<Sizes>().ok().map(|sizes| (sizes.min, sizes.max));
            assert_eq!(sizes, expected, "{text}");
        }
        for text in ["23", "64..32", "", "a", "1..", "..9"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
