//! The server's side of X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem), of which the program has the client's
//! side only.

use std::fmt;

use ml_kem::B32;
use ml_kem::ml_kem_768::EncapsulationKey;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup, ring as provider,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

/// The cryptography of servers that know the hybrid, and prefer it.
pub fn hybrid() -> CryptoProvider {
    with_first(&Hybrid)
}

/// The cryptography of servers that prefer this group.
pub fn with_first(group: &'static dyn SupportedKxGroup) -> CryptoProvider {
    let mut provider = provider::default_provider();
    provider.kx_groups.insert(0, group);
    provider
}

/// The group, for servers alone.
pub struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Err(Error::General("a server answers the share of a client".into()))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let (key, classic_share) = share.split_at_checked(KEY_LEN).ok_or(INVALID)?;
        let key = EncapsulationKey::new(key.try_into().map_err(|_| INVALID)?);
        let key = key.map_err(|_| INVALID)?;
        let mut message = B32::default();
        SystemRandom::new().fill(&mut message).map_err(|_| Error::FailedToGetRandomBytes)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&message);
        let classic = X25519.start_and_complete(classic_share)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [&ciphertext[..], &classic.pub_key].concat(),
            secret: [&secret[..], classic.secret.secret_bytes()].concat().into(),
        })
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

/// Octets of a key to encapsulate for.
const KEY_LEN: usize = 1_184;
