//! Suites: which cipher stands under the handshake and the records.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::keys::Secret;

/// Bytes of an authentication tag.
pub(super) const TAG: usize = 16;

/// A cipher with X25519 and SHA-256. The value is the byte on the wire.
///
/// The client chooses: `AesGcm` where its processor has AES instructions (all current PCs, consoles and phones),
/// `ChaChaPoly` elsewhere. The choice is part of the prologue, so nobody on the way can change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// `25519_AESGCM_SHA256`.
    #[default]
    AesGcm = 1,
    /// `25519_ChaChaPoly_SHA256`.
    ChaChaPoly = 2,
}

impl Suite {
    /// Both suites, in the order of their values.
    pub const ALL: [Self; 2] = [Self::AesGcm, Self::ChaChaPoly];

    /// The suite whose byte this is.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::AesGcm),
            2 => Some(Self::ChaChaPoly),
            _ => None,
        }
    }

    /// The key, ready for use: about half a KiB of round keys and tables.
    #[inline]
    pub(super) fn expand(self, secret: &[u8; 32]) -> AeadKey {
        let algorithm = match self {
            Self::AesGcm => &AES_256_GCM,
            Self::ChaChaPoly => &CHACHA20_POLY1305,
        };
        // The only failure there is would be a key of another length than 32 bytes, which both suites have.
        AeadKey(UnboundKey::new(algorithm, secret).map(LessSafeKey::new).ok())
    }

    /// Noise's nonce: four zeros, then the counter, big-endian under AES-GCM and little-endian under ChaChaPoly.
    #[inline]
    pub(super) fn nonce(self, counter: u64) -> Nonce {
        let counter = match self {
            Self::AesGcm => counter.swap_bytes(),
            Self::ChaChaPoly => counter,
        };
        // One number, so that it is written as it is read a moment later: a read across two writes would wait for both.
        let bytes = (u128::from(counter) << 32).to_le_bytes();
        Nonce::assume_unique_for_key(bytes.first_chunk().copied().unwrap_or_default())
    }
}

/// An expanded key, which prints no byte of itself. Knows neither suite nor counter: the records and the handshake, who
/// keep both, bring a nonce.
#[derive(Debug)]
pub(super) struct AeadKey(Option<LessSafeKey>);

impl AeadKey {
    /// Encrypts `text` in place and gives its tag; `None` for a text of 64 GiB, which nothing here comes near.
    #[inline]
    pub(super) fn seal(&self, nonce: Nonce, data: &[u8], text: &mut [u8]) -> Option<[u8; TAG]> {
        let key = self.0.as_ref()?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(data), text).ok()?;
        tag.as_ref().first_chunk().copied()
    }

    /// Verifies and decrypts `text`, which ends with its tag, in place, and gives the length without it. After a
    /// `None` the bytes are worthless.
    #[inline]
    pub(super) fn open(&self, nonce: Nonce, data: &[u8], text: &mut [u8]) -> Option<usize> {
        let key = self.0.as_ref()?;
        key.open_in_place(nonce, Aad::from(data), text).ok().map(|plain| plain.len())
    }

    /// Noise's `Rekey`: what the key makes of 32 zeros under the last counter, which nothing else may use.
    pub(super) fn next_secret(&self, suite: Suite) -> Option<Secret> {
        let mut zeros = [0; 32];
        self.seal(suite.nonce(u64::MAX), &[], &mut zeros)?;
        Some(Secret::take(&mut zeros))
    }
}
