//! X25519, SHA-256, the ciphers and one key's worth of randomness, as `snow` wants them.

use ring::digest;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::wan::FLIGHT_MAX;
use crate::wan::curve;
use crate::wan::keys::{PublicKey, Secret};
use crate::wan::suite::{AeadKey, Suite, TAG};

/// What `snow` makes a handshake of.
pub(super) struct Primitives {
    pub(super) ephemeral: Secret,
    /// The server's own key pair, so that its public half is not computed again for each handshake.
    pub(super) known: Option<(Secret, PublicKey)>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(copy(&self.ephemeral)))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let known = self.known.as_ref().map(|(secret, public)| (copy(secret), *public));
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 { secret: [0; 32], public: [0; 32], known })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256(digest::Context::new(&digest::SHA256)))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let suite = match choice {
            CipherChoice::AESGCM => Suite::AesGcm,
            CipherChoice::ChaChaPoly => Suite::ChaChaPoly,
        };
        Some(Box::new(Aead { suite, key: None }))
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::take(&mut { *secret.bytes() })
}

/// Randomness for one ephemeral key; asked again it has none, so that no key is ever made twice of the same bytes.
struct Once(Option<Secret>);

impl Random for Once {
    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), snow::Error> {
        let secret = self.0.take().ok_or(snow::Error::Rng)?;
        if room.len() != secret.bytes().len() {
            return Err(snow::Error::Rng);
        }
        room.copy_from_slice(secret.bytes());
        Ok(())
    }
}

struct X25519 {
    secret: [u8; 32],
    public: [u8; 32],
    known: Option<(Secret, PublicKey)>,
}

impl X25519 {
    fn take(&mut self, secret: [u8; 32]) {
        self.secret = secret;
        self.public = match &self.known {
            Some((known, public)) if bool::from(known.bytes().ct_eq(&secret)) => *public.bytes(),
            _ => curve::public(&secret),
        };
    }
}

impl Drop for X25519 {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = secret.first_chunk().copied().unwrap_or_default();
        self.take(bytes);
        bytes.zeroize();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = [0; 32];
        random.try_fill_bytes(&mut bytes)?;
        self.take(bytes);
        bytes.zeroize();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = theirs.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = curve::shared(&self.secret, theirs).ok_or(snow::Error::Dh)?;
        *out.first_chunk_mut().ok_or(snow::Error::Dh)? = *shared.bytes();
        Ok(())
    }
}

struct Sha256(digest::Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = digest::Context::new(&digest::SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.clone().finish();
        for (place, byte) in out.iter_mut().zip(hash.as_ref()) {
            *place = *byte;
        }
    }
}

struct Aead {
    suite: Suite,
    key: Option<AeadKey>,
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        match self.suite {
            Suite::AesGcm => "AESGCM",
            Suite::ChaChaPoly => "ChaChaPoly",
        }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Some(self.suite.expand(key));
    }

    /// Answers 0 where there is no room, which no peer would take; `snow` looks at the room before it asks.
    fn encrypt(&self, counter: u64, data: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let mut sealed = || {
            let (text, behind) = out.split_at_mut_checked(plain.len())?;
            text.copy_from_slice(plain);
            *behind.first_chunk_mut()? = self.key.as_ref()?.seal(self.suite.nonce(counter), data, text)?;
            plain.len().checked_add(TAG)
        };
        sealed().unwrap_or(0)
    }

    fn decrypt(
        &self,
        counter: u64,
        data: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        // `out` need not have room for the tag.
        let mut text = [0; FLIGHT_MAX];
        let text = text.get_mut(..sealed.len()).ok_or(snow::Error::Decrypt)?;
        text.copy_from_slice(sealed);
        let key = self.key.as_ref().ok_or(snow::Error::Decrypt)?;
        let len = key.open(self.suite.nonce(counter), data, text).ok_or(snow::Error::Decrypt)?;
        let (room, plain) = out.get_mut(..len).zip(text.get(..len)).ok_or(snow::Error::Decrypt)?;
        room.copy_from_slice(plain);
        Ok(len)
    }
}
