//! The dummy's own codec of the WAN, written from part 4 of docs/wire.md: preamble, handshake, records.
//!
//! ```text
//!  Pinned ─► Shaking ── preamble ───────────────► server
//!               │  ◄── answer: accept or refusal ──┘
//!            Secured: Sealing ► records, Opening ◄ records, LAN frames inside
//! ```
//!
//! The ciphers are a library's (the engine's own: `ring`), everything around them is written out here a second time.
//! A dummy keeps no secret, so that its ephemeral keys follow from the run's seed like everything else it says.

mod noise;
mod preamble;
mod record;
#[cfg(test)]
mod vectors;
pub(crate) mod words;

#[cfg(test)]
pub(crate) use self::noise::Server;
pub(crate) use self::noise::Suite;
pub(crate) use self::preamble::{Hello, Refusal, Shaking, retag};
pub(crate) use self::record::{Secured, record};

/// What a client of a WAN server knows before it connects.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    pub(crate) server: PublicKey,
    pub(crate) suite: Suite,
    /// What the log-in says; empty where the server asks for nothing.
    pub(crate) token: Vec<u8>,
}

/// The public half of the server's key, as `madang keygen` and `madang serve --wan` print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(pub(crate) [u8; 32]);

impl std::str::FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a public key is 64 hexadecimal digits, as the server prints it".into());
        }
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|error| error.to_string())?;
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_64_digits() {
        let text = "00ff".repeat(16);
        let key: PublicKey = text.parse().expect("64 digits");
        assert_eq!((key.0[0], key.0[1], key.0[31]), (0, 0xff, 0xff));
        for wrong in
            ["", &text[1..], &format!("{text}0"), &text.replace("ff", "+f"), &text.replace("ff", "fg")]
        {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }
}
