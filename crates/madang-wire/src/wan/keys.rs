//! Keys that people and files hand us: the server's key pairs and the secret of sealed links.

use std::fmt;
use std::str::FromStr;

use ring::{digest, hkdf};
use zeroize::Zeroize;

use super::curve;

/// The most server keys that are live at once: one that is used, one that will be, and two that old clients still pin.
pub const SERVER_KEYS_MAX: usize = 4;

/// The shortest secret of a sealed link, in bytes: 128 bits of randomness in hexadecimal digits. Who listened to one
/// handshake can try secrets at leisure, so a password is no secret.
pub const LINK_SECRET_LEAST: usize = 32;

/// Thirty-two bytes that are wiped when they are dropped and never printed.
pub(super) struct Secret([u8; 32]);

impl Secret {
    /// Takes a secret over and wipes where it was.
    pub(super) fn take(bytes: &mut [u8; 32]) -> Self {
        let secret = Self(*bytes);
        bytes.zeroize();
        secret
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The secret half of a server's key pair. Prints as `***`, is wiped when dropped, and cannot be cloned.
pub struct SecretKey(Secret);

impl SecretKey {
    /// A key made of 32 random bytes, which are wiped where they were.
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Self {
        Self(Secret::take(bytes))
    }

    /// The key whose 64 hexadecimal digits these are, or nothing.
    pub fn from_hex(digits: &str) -> Option<Self> {
        from_hex(digits).map(|mut bytes| Self::from_bytes(&mut bytes))
    }

    /// The half that clients pin.
    pub fn public(&self) -> PublicKey {
        PublicKey(curve::public(self.0.bytes()))
    }

    /// The key itself, to be written to its file and nowhere else.
    pub const fn expose(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The public half of a server's key pair: what a client pins. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these bytes. All strings of 32 bytes are keys; a worthless one fails its handshake.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Which of a server's keys this is.
    pub fn id(&self) -> KeyId {
        let hash = digest::digest(&digest::SHA256, &self.0);
        KeyId(hash.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl FromStr for PublicKey {
    type Err = NotAPublicKey;

    fn from_str(digits: &str) -> Result<Self, NotAPublicKey> {
        from_hex(digits).map(Self).ok_or(NotAPublicKey)
    }
}

/// A text is not the 64 hexadecimal digits of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key: 64 hexadecimal digits expected")]
pub struct NotAPublicKey;

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first four bytes of the SHA-256 of a public key: in the clear, so that a server knows which of its keys a client
/// pins. Prints as 8 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    pub const fn bytes(self) -> [u8; 4] {
        self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The secret that the two ends of a sealed LAN link share. Prints as `***` and is wiped when dropped.
pub struct LinkSecret(pub(super) Secret);

impl LinkSecret {
    /// The secret that a string of the settings stands for: HKDF-SHA256 with the salt `madang lan 1`, the string's
    /// bytes as input key, no info, 32 bytes. At least [`LINK_SECRET_LEAST`] bytes; 32 random bytes in hexadecimal
    /// digits are right.
    pub fn derive(text: &str) -> Result<Self, LinkSecretTooShort> {
        if text.len() < LINK_SECRET_LEAST {
            return Err(LinkSecretTooShort { len: text.len() });
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"madang lan 1");
        let mut key = [0; 32];
        // The only failure there is would be a length of more than 255 hashes.
        let _ = salt
            .extract(text.as_bytes())
            .expand(&[], hkdf::HKDF_SHA256)
            .and_then(|material| material.fill(&mut key));
        Ok(Self(Secret::take(&mut key)))
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secret of sealed links is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "link secret of {len} bytes, at least {LINK_SECRET_LEAST} needed: take 32 random bytes in hexadecimal digits"
)]
pub struct LinkSecretTooShort {
    /// Bytes of the secret given.
    pub len: usize,
}

/// Reads 64 hexadecimal digits of either case.
fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != bytes.len().saturating_mul(2) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low]: [u8; 2] = pair.try_into().ok()?;
        let (high, low) = (char::from(high).to_digit(16)?, char::from(low).to_digit(16)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}
