//! Public keys as certificates have them.

use ring::digest::{SHA256, digest};
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};

use crate::tls::pin::Pin;

/// The pin of a key.
pub(in crate::tls) fn pin(key: &SubjectPublicKeyInfoDer<'_>) -> Pin {
    let digest = digest(&SHA256, key.as_ref());
    Pin::of_digest(digest.as_ref().try_into().expect("SHA-256 gives 32 octets"))
}

/// The length of an RSA key that is too short or too long: ring finds every signature wrong then.
pub(super) fn unsupported_rsa_bits(key: &SubjectPublicKeyInfoDer<'_>) -> Option<usize> {
    let (info, _) = value(SEQUENCE, key)?;
    let (algorithm, rest) = value(SEQUENCE, info)?;
    if algorithm != alg_id::RSA_ENCRYPTION.as_ref() {
        return None;
    }
    // In front of a bit string is the number of bits that are not used: none.
    let (bits, _) = value(BIT_STRING, rest)?;
    let (numbers, _) = value(SEQUENCE, bits.strip_prefix(&[0])?)?;
    let (modulus, _) = value(INTEGER, numbers)?;
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let first = modulus.get(zeros)?;
    let bits = (modulus.len() - zeros) * 8 - first.leading_zeros() as usize;
    (!(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits)).then_some(bits)
}

/// The content of the value in front, if it has this tag, and what is behind it (X.690 section 8.1).
fn value(tag: u8, octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[seen, first], rest) = octets.split_first_chunk()?;
    let (len, rest) = match first {
        0x81 => rest.split_first().map(|(&len, rest)| (usize::from(len), rest))?,
        0x82 => rest
            .split_first_chunk()
            .map(|(&len, rest)| (usize::from(u16::from_be_bytes(len)), rest))?,
        0x00..=0x7f => (usize::from(first), rest),
        _ => return None,
    };
    if seen != tag {
        return None;
    }
    rest.split_at_checked(len)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// Lengths of RSA keys whose signatures ring verifies.
pub(in crate::tls) const RSA_BITS_MIN: usize = 2_048;
pub(in crate::tls) const RSA_BITS_MAX: usize = 8_192;

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};

    use super::*;

    #[test]
    fn rsa_keys_that_are_too_short_or_too_long_are_found() {
        for (bits, expected) in [
            (512, Some(512)),
            (1_023, Some(1_023)),
            (1_024, Some(1_024)),
            (2_047, Some(2_047)),
            (2_048, None),
            (3_072, None),
            (8_192, None),
            (8_193, Some(8_193)),
            (16_384, Some(16_384)),
        ] {
            let key = Rsa::new(bits).subject_public_key_info();
            assert_eq!(unsupported_rsa_bits(&key.as_slice().into()), expected, "{bits} bits");
            for cut in 0..key.len() {
                // Whatever it is, it is no reason to panic.
                unsupported_rsa_bits(&key[..cut].into());
            }
        }
        for len in [0x80, 0x83, 0xff] {
            assert_eq!(
                value(SEQUENCE, &[&[SEQUENCE, len][..], &[0; 300]].concat()),
                None,
                "{len:#x}"
            );
        }
        let other = KeyPair::generate().unwrap().subject_public_key_info();
        assert_eq!(unsupported_rsa_bits(&other.as_slice().into()), None);
    }

    /// A public key to which nobody has the private one.
    pub(in crate::tls) struct Rsa(Vec<u8>);

    impl Rsa {
        pub(in crate::tls) fn new(bits: usize) -> Self {
            let mut modulus = vec![0xff; bits.div_ceil(8)];
            if let Some(more) = 8_usize.checked_sub(bits % 8).filter(|more| *more < 8) {
                modulus[0] >>= more;
            }
            // With its first bit set, a number would be negative.
            if modulus[0] & 0x80 != 0 {
                modulus.insert(0, 0);
            }
            let wrap = |tag: u8, content: &[u8]| {
                [&[tag, 0x82][..], &(content.len() as u16).to_be_bytes(), content].concat()
            };
            let numbers = [wrap(INTEGER, &modulus), vec![INTEGER, 3, 1, 0, 1]].concat();
            Self(wrap(SEQUENCE, &numbers))
        }
    }

    impl PublicKeyData for Rsa {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &rcgen::PKCS_RSA_SHA256
        }
    }

    /// Signs with what is no signature.
    impl SigningKey for Rsa {
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(vec![1; 128])
        }
    }
}
