//! What can be seen in certificates themselves, where an error of rustls does not tell.

use std::error;
use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};
use webpki::EndEntityCert;

use super::pin;
use crate::tls::pin::Pin;

/// What rustls does not tell of a certificate that is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Unfit {
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
pub(super) fn of_chain(error: Error, first: &EndEntityCert<'_>) -> Error {
    let Error::InvalidCertificate(why) = &error else { return error };
    let is_ca = matches!(
        why,
        CertificateError::Other(why)
            if matches!(why.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
    );
    let is_self_signed = first.issuer() == first.subject();
    match why {
        CertificateError::BadSignature => Unfit::Signature.into(),
        _ if is_self_signed && (is_ca || matches!(why, CertificateError::UnknownIssuer)) => {
            Unfit::SelfSigned { is_ca, pin: pin(&first.subject_public_key_info()) }.into()
        }
        _ => error,
    }
}
