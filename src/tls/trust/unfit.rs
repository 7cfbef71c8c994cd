//! What can be seen in certificates themselves, where an error of rustls does not tell.

use std::error;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use webpki::{EndEntityCert, spki_for_anchor};

use super::keys;
use crate::tls::pin::Pin;

/// What rustls does not tell of a certificate that is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Unfit {
    /// An RSA key has a length that is not supported.
    Rsa {
        /// The owner of the key, to be read in a sentence: "the server's", "an issuer's".
        whose: &'static str,
        bits: usize,
    },
    /// The server has signed its certificate itself.
    SelfSigned { is_ca: bool, pin: Pin },
    /// A signature by an issuer is wrong, not the server's in the handshake.
    Signature,
}

impl error::Error for Unfit {}

impl fmt::Display for Unfit {
    /// The name of the variant; [`explain`](crate::tls::explain) has words for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<Unfit> for Error {
    fn from(why: Unfit) -> Self {
        CertificateError::Other(OtherError(Arc::new(why))).into()
    }
}

/// The error about a chain, or a better one in its place.
pub(super) fn of_chain(
    error: Error,
    first: &EndEntityCert<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
) -> Error {
    let Error::InvalidCertificate(why) = &error else { return error };
    let is_ca = matches!(
        why,
        CertificateError::Other(why)
            if matches!(why.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
    );
    let is_self_signed = first.issuer() == first.subject();
    match why {
        CertificateError::BadSignature => match unsupported_issuer_bits(first, rest, roots) {
            Some(bits) => Unfit::Rsa { whose: "an issuer's", bits }.into(),
            None => Unfit::Signature.into(),
        },
        _ if is_self_signed && (is_ca || matches!(why, CertificateError::UnknownIssuer)) => {
            Unfit::SelfSigned { is_ca, pin: keys::pin(&first.subject_public_key_info()) }.into()
        }
        _ => error,
    }
}

/// The error about the signature of a handshake, or a better one if the key cannot make a good one.
pub(super) fn of_handshake(error: Error, certificate: &CertificateDer<'_>) -> Error {
    if error != CertificateError::BadSignature.into() {
        return error;
    }
    EndEntityCert::try_from(certificate)
        .ok()
        .and_then(|own| keys::unsupported_rsa_bits(&own.subject_public_key_info()))
        .map_or(error, |bits| Unfit::Rsa { whose: "the server's", bits }.into())
}

/// The length of an issuer's RSA key, if it is not supported.
fn unsupported_issuer_bits(
    first: &EndEntityCert<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
) -> Option<usize> {
    let others: Vec<_> =
        rest.iter().filter_map(|other| EndEntityCert::try_from(other).ok()).collect();
    let is_issuer = |subject: &[u8]| {
        first.issuer() == subject || others.iter().any(|other| other.issuer() == subject)
    };
    let of_others = others
        .iter()
        .filter(|other| is_issuer(other.subject()))
        .map(|other| other.subject_public_key_info());
    let of_roots = roots.roots.iter().filter(|root| is_issuer(&root.subject));
    let mut keys = of_others.chain(of_roots.map(spki_for_anchor));
    keys.find_map(|key| keys::unsupported_rsa_bits(&key))
}
