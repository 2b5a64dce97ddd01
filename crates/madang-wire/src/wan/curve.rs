//! X25519 (RFC 7748): the whole price of a handshake, so the fastest writing that the processor can run.
//!
//! | processor | writing | a secret of two keys, a public key |
//! |---|---|---|
//! | x86-64 with ADX, BMI and AVX2 (from about 2015), aarch64 with AES and SHA-2 | `graviola`: proven assembly of s2n-bignum | 24, 7 µs |
//! | any other | `curve25519-dalek` | 54, 17 µs |
//!
//! Both need the same time whatever the secret is, and both give the same 32 bytes. Which of them runs is looked up once.

use subtle::ConstantTimeEq;

use super::keys::Secret;

/// The public half of a secret key.
pub(super) fn public(secret: &[u8; 32]) -> [u8; 32] {
    fast::public(secret).unwrap_or_else(|| portable::public(secret))
}

/// What the holder of `secret` and the holder of the other half of `theirs` share. `None` if `theirs` is one of the few keys
/// under which everybody shares 32 zeros: RFC 7748 leaves it to us to refuse them.
pub(super) fn shared(secret: &[u8; 32], theirs: &[u8; 32]) -> Option<Secret> {
    let mut shared = fast::shared(secret, theirs).unwrap_or_else(|| portable::shared(secret, theirs));
    let shared = Secret::take(&mut shared);
    let worthless = bool::from(shared.bytes().ct_eq(&[0; 32]));
    (!worthless).then_some(shared)
}

mod portable {
    use curve25519_dalek::montgomery::MontgomeryPoint;

    pub(super) fn public(secret: &[u8; 32]) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(*secret).to_bytes()
    }

    pub(super) fn shared(secret: &[u8; 32], theirs: &[u8; 32]) -> [u8; 32] {
        MontgomeryPoint(*theirs).mul_clamped(*secret).to_bytes()
    }
}

/// `None` where this processor cannot.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fast {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};

    pub(super) fn public(secret: &[u8; 32]) -> Option<[u8; 32]> {
        runs().then(|| StaticPrivateKey::from_array(secret).public_key().as_bytes())
    }

    pub(super) fn shared(secret: &[u8; 32], theirs: &[u8; 32]) -> Option<[u8; 32]> {
        let secret = || StaticPrivateKey::from_array(secret);
        // Its only failure is the worthless key, whose secret is all zero.
        runs().then(|| {
            secret().diffie_hellman(&PublicKey::from_array(theirs)).map_or([0; 32], |shared| shared.0)
        })
    }

    /// What `graviola` asks of a processor; it panics on any other.
    #[cfg(target_arch = "x86_64")]
    fn runs() -> bool {
        is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("avx")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
    }

    /// What `graviola` asks of a processor; it panics on any other.
    #[cfg(target_arch = "aarch64")]
    fn runs() -> bool {
        use std::arch::is_aarch64_feature_detected;

        is_aarch64_feature_detected!("neon")
            && is_aarch64_feature_detected!("aes")
            && is_aarch64_feature_detected!("pmull")
            && is_aarch64_feature_detected!("sha2")
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod fast {
    pub(super) fn public(_secret: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }

    pub(super) fn shared(_secret: &[u8; 32], _theirs: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wan::PublicKey;

    fn bytes(digits: &str) -> [u8; 32] {
        digits.parse().map_or([0; 32], |key: PublicKey| *key.bytes())
    }

    fn both_share(secret: &[u8; 32], theirs: &[u8; 32]) -> Option<[u8; 32]> {
        shared(secret, theirs).map(|shared| *shared.bytes())
    }

    /// RFC 7748, 5.2.
    #[test]
    fn both_writings_know_the_vectors_of_the_standard() {
        for [secret, theirs, expected] in [
            [
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ],
            [
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ],
        ] {
            let [secret, theirs, expected] = [secret, theirs, expected].map(bytes);
            assert_eq!(portable::shared(&secret, &theirs), expected);
            assert_eq!(both_share(&secret, &theirs), Some(expected));
        }
    }

    #[test]
    fn a_worthless_key_shares_nothing() {
        for worthless in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            assert_eq!(both_share(&[7; 32], &worthless), None);
        }
    }

    proptest! {
        #[test]
        fn both_writings_give_the_same(secret: [u8; 32], theirs: [u8; 32]) {
            let expected = portable::shared(&secret, &theirs);
            prop_assert_eq!(both_share(&secret, &theirs), (expected != [0; 32]).then_some(expected));
            prop_assert_eq!(public(&secret), portable::public(&secret));
        }
    }
}
