//! Pins: digests of public keys by which servers are known (RFC 7469 section 2.4).

use std::fmt::{self, Write};
use std::str::FromStr;

/// The SHA-256 digest of a `SubjectPublicKeyInfo`, the octets of a certificate that hold its public
/// key. Another certificate for the same key has the same pin.
///
/// `Display`: `sha256/` and 44 characters of base64, which is also how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; DIGEST_LEN]);

impl Pin {
    /// Characters of a digest in base64: four for three octets, and four for the last two.
    pub(crate) const BASE64_LEN: usize = 44;

    /// The pin of the key that has this digest.
    pub fn of_digest(digest: [u8; DIGEST_LEN]) -> Self {
        Self(digest)
    }

    /// The beginning of the pin, for lines that only tell one server from another.
    pub(crate) fn shortened(&self) -> impl fmt::Display {
        /// 72 bits: nobody finds another key that begins alike.
        const BASE64_SHOWN: usize = 12;

        let mut text = self.to_string();
        text.truncate(HASH.len() + 1 + BASE64_SHOWN);
        text + "..."
    }
}

/// A pin as [`Display`](fmt::Display) writes it. The error says what is wrong, to be read behind the text.
impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let base64 = match text.split_once('/') {
            Some((hash, base64)) if hash.eq_ignore_ascii_case(HASH) => base64,
            _ => return Err(format!("does not begin with {HASH}/, the only hash taken")),
        };
        if base64 == OF_NOTHING {
            return Err("is the digest of nothing: what made it was given no key".into());
        }
        let len = base64.chars().count();
        if len == Self::BASE64_LEN + 1 && base64.starts_with('/') {
            return Err(format!("has two slashes behind {HASH}; write one"));
        }
        if len != Self::BASE64_LEN {
            return Err(format!(
                "has {len} characters behind {HASH}/; copy all {}, the last is =",
                Self::BASE64_LEN
            ));
        }
        let Some(digits) = base64.strip_suffix('=') else {
            return Err("does not end in =, as 32 octets in base64 do".into());
        };
        let mut digest = [0; DIGEST_LEN];
        let mut octets = digest.iter_mut();
        let (mut bits, mut count) = (0_u32, 0);
        for digit in digits.chars() {
            let value = BASE64.iter().position(|known| char::from(*known) == digit);
            let value = value.ok_or_else(|| format!("has {digit:?}, which is not base64"))?;
            bits = bits << 6 | value as u32;
            count += 6;
            if count >= 8
                && let Some(octet) = octets.next()
            {
                count -= 8;
                *octet = (bits >> count) as u8;
            }
        }
        // What is behind the last octet is zero (RFC 4648 section 3.5): no pin has two spellings.
        if bits & 3 != 0 {
            return Err("does not end as 32 octets in base64 do; copy it again".into());
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH}/")?;
        for octets in self.0.chunks(3) {
            let bits = octets.iter().fold(0, |bits, octet| bits << 8 | usize::from(*octet));
            let bits = bits << (24 - 8 * octets.len());
            for digit in 0..=octets.len() {
                f.write_char(BASE64[bits >> (18 - 6 * digit) & 63].into())?;
            }
        }
        f.write_char('=')
    }
}

const HASH: &str = "sha256";

const DIGEST_LEN: usize = 32;

/// The digest of nothing, which `openssl dgst` prints where the server could not be asked for its key.
const OF_NOTHING: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

/// The digits of base64 (RFC 4648 section 4).
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of "abc", by `printf abc | openssl dgst -sha256 -binary | base64`.
    const OF_ABC: &str = "sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    #[test]
    fn text_and_digest() {
        let digest = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
            0xf2, 0x00, 0x15, 0xad,
        ];
        let pin = Pin::of_digest(digest);
        assert_eq!(pin.to_string(), OF_ABC);
        assert_eq!(OF_ABC.parse(), Ok(pin));
        assert_eq!(OF_ABC.replace("sha", "SHA").parse(), Ok(pin));
        assert_eq!(pin.shortened().to_string(), "sha256/ungWv48Bz+pB...");
    }

    #[test]
    fn every_octet_at_every_place_comes_back() {
        for place in 0..DIGEST_LEN {
            for octet in 0..=255 {
                let mut digest = [0xa5; DIGEST_LEN];
                digest[place] = octet;
                let pin = Pin::of_digest(digest);
                assert_eq!(pin.to_string().parse(), Ok(pin), "{octet} at {place}");
            }
        }
    }

    #[test]
    fn what_is_no_pin() {
        let good = OF_ABC.strip_prefix("sha256/").unwrap();
        for (text, error) in [
            (good.to_owned(), "does not begin with sha256/, the only hash taken"),
            (format!("sha1/{good}"), "does not begin with sha256/"),
            (format!("sha512/{good}"), "does not begin with sha256/"),
            (format!("pin-sha256=\"{good}\""), "does not begin with sha256/"),
            (format!("sha256:{good}"), "does not begin with sha256/"),
            (format!("sha256//{good}"), "has two slashes behind sha256; write one"),
            (format!("sha256/{}", &good[1..]), "has 43 characters behind sha256/; copy all 44"),
            (format!("sha256/{}", &good[..43]), "has 43 characters behind sha256/; copy all 44"),
            (format!("sha256/{good}="), "has 45 characters behind sha256/"),
            (format!("sha256/{OF_NOTHING}"), "is the digest of nothing"),
            ("sha256/".to_owned(), "has 0 characters behind sha256/"),
            (format!("sha256/{}A", &good[..43]), "does not end in =, as 32 octets in base64 do"),
            (format!("sha256/-{}", &good[1..]), "has '-', which is not base64"),
            (format!("sha256/{} =", &good[..42]), "has ' ', which is not base64"),
            (format!("sha256/{}==", &good[..42]), "has '=', which is not base64"),
            (format!("sha256/\u{fc}{}", &good[1..]), "has 'ü', which is not base64"),
            (format!("sha256/\n{}", &good[1..]), "has '\\n', which is not base64"),
            // One more than it should be: decodes to the same octets.
            (format!("sha256/{}V=", &good[..42]), "does not end as 32 octets in base64 do"),
        ] {
            let seen = text.parse::<Pin>().unwrap_err();
            assert!(seen.starts_with(error), "{text}: {seen}\n  should say: {error}");
        }
    }
}
