//! How both sides come to a common secret: X25519 alone, or with ML-KEM-768 besides.
//!
//! `X25519MLKEM768` (draft-ietf-tls-ecdhe-mlkem) combines ring's X25519 with the ML-KEM-768 (FIPS 203) of the
//! crate `ml-kem`, which nobody has audited. The secret is made of both: it is as strong as X25519 whatever
//! ML-KEM is worth, and what is recorded today stays secret when X25519 falls, if ML-KEM holds.

use std::fmt;

use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey};
use ml_kem::{Decapsulate, KeyExport, Seed};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, ring};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::{Zeroize, Zeroizing};

/// The key exchanges that are offered to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519 with ML-KEM-768 first, and the classic ones for servers that do not know it.
    Hybrid,
    /// The classic ones only: X25519, P-256, P-384.
    Classic,
}

impl KeyExchange {
    /// The cryptography of all connections.
    pub(super) fn provider(self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if self == Self::Hybrid {
            // rustls sends shares of the first group and of its classic part.
            provider.kx_groups.insert(0, &Hybrid);
        }
        provider
    }
}

/// What to do about a handshake that ended by itself, to be added to how it did, for a server of which so
/// many octets were received.
///
/// A `ClientHello` with ML-KEM takes two segments, on which some middleboxes choke. Nothing falls back by
/// itself: whoever stands in between could then turn the hybrid off.
pub(super) fn advice(key_exchange: KeyExchange, received: usize) -> &'static str {
    match key_exchange {
        _ if received > 0 => "",
        KeyExchange::Hybrid => {
            "; nothing answered the ClientHello: this may not be a DNS-over-TLS port, the server may hang, or \
             the network loses long packets (try --key-exchange classic)"
        }
        KeyExchange::Classic => {
            "; nothing answered the ClientHello: this may not be a DNS-over-TLS port, or the server may hang"
        }
    }
}

/// The group `X25519MLKEM768`.
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classic = X25519.start()?;
        let key = generate()?;
        let mut share = Vec::with_capacity(CLIENT_SHARE_LEN);
        export(&key, &mut share);
        share.extend_from_slice(classic.pub_key());
        Ok(Box::new(Started { classic, key, share }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

impl fmt::Debug for Hybrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

/// A key exchange between our `ClientHello` and the server's answer.
struct Started {
    classic: Box<dyn ActiveKeyExchange>,
    /// Expanded already, as that takes more work than all the rest; it is zeroized when dropped.
    key: Box<DecapsulationKey>,
    /// What the server is sent: the encapsulation key, then the key of X25519.
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let (ciphertext, classic_share) =
            share.split_at_checked(size_of::<Ciphertext>()).ok_or(INVALID)?;
        let ciphertext = ciphertext.try_into().map_err(|_| INVALID)?;
        // X25519 refuses all other lengths, and keys that make the secret zero.
        let classic = self.classic.complete(classic_share)?;
        // With room for all of it: a vector that grows leaves a copy behind.
        let mut secret = Vec::with_capacity(2 * SECRET_LEN);
        decapsulate(&self.key, ciphertext, &mut secret);
        secret.extend_from_slice(classic.secret_bytes());
        Ok(secret.into())
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classic.group(), self.classic.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classic.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        Hybrid.name()
    }
}

/// A key of which nobody knows anything. What the stack had of it is zeroized as far as it is known here.
///
/// Inlined, as the next two, it would add up with them in one frame, and the stack of `--size small` is
/// not that deep.
#[inline(never)]
fn generate() -> Result<Box<DecapsulationKey>, Error> {
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    ring::default_provider()
        .secure_random
        .fill(&mut *seed)
        .map_err(|_| Error::FailedToGetRandomBytes)?;
    Ok(Box::new(DecapsulationKey::from_seed(Seed::from(*seed))))
}

#[inline(never)]
fn export(key: &DecapsulationKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.encapsulation_key().to_bytes());
}

/// Never fails: a ciphertext that was not made for the key gives a secret that nobody knows (FIPS 203 section
/// 6.3), and the handshake ends at the first message that the other side encrypts.
#[inline(never)]
fn decapsulate(key: &DecapsulationKey, ciphertext: &Ciphertext, out: &mut Vec<u8>) {
    let mut secret = key.decapsulate(ciphertext);
    out.extend_from_slice(&secret);
    secret.as_mut_slice().zeroize();
}

/// Octets that a key exchange has allocated while it waits for the server.
pub(super) const STARTED_OCTETS: usize =
    size_of::<Started>() + size_of::<DecapsulationKey>() + CLIENT_SHARE_LEN;

// The octets of a key (FIPS 203 section 8): with the feature `alloc` of ml-kem they would be elsewhere, and the
// bound would not count them.
const _: () = assert!(size_of::<DecapsulationKey>() > 2_400);

/// Octets of d and z (FIPS 203 section 7.1).
const SEED_LEN: usize = 64;

/// Octets of each of the two secrets.
const SECRET_LEN: usize = 32;

/// Octets of an encapsulation key and of a key of X25519.
pub(super) const CLIENT_SHARE_LEN: usize = 1_184 + 32;

#[cfg(test)]
mod tests;
