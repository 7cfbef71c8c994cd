//! The certificate by which servers that ask for one know us (RFC 8446 section 4.4.2, RFC 5246 section 7.4.6).

use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};

use super::explain::{certificate_words, pem_words};
use super::files;

/// The certificate, its issuers behind it, and the key, of two files in PEM form, which may be one. The error is
/// one line that names the flag and the file and says what is wrong.
pub(super) fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesClientCert>, String> {
    let chain =
        files::certificates(certificate).map_err(|error| format!("--client-cert: {error}"))?;
    let octets: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if octets > CHAIN_MAX {
        let file = certificate.display();
        return Err(format!(
            "--client-cert: the certificates in {file} have {octets} octets, and {CHAIN_MAX} are the most \
             that is shown: leave out those that the server has"
        ));
    }
    let private = private_key(key).map_err(|error| format!("--client-key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        let (key, certificate) = (key.display(), certificate.display());
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "--client-key: {key} is not the key of {certificate}, whose first certificate must be the \
                 one that it is for"
            ),
            Error::InvalidCertificate(error) => {
                format!("--client-cert: {certificate}: {}", certificate_words(&error, None))
            }
            _ => format!(
                "--client-key: the key in {key} cannot be used: it is damaged, or none of RSA of 2048 to \
                 4096 bits, P-256, P-384 or Ed25519"
            ),
        }
    })?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let octets = files::read(file)?;
    let path = file.display();
    if String::from_utf8_lossy(&octets).contains("ENCRYPTED") {
        return Err(format!(
            "the key in {path} is encrypted, and nobody can be asked for its passphrase; openssl pkey -in \
             {path} writes it as it is needed"
        ));
    }
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| match error {
        pem::Error::NoItemsFound => format!(
            "{path} holds no key; one in PEM form, \"-----BEGIN PRIVATE KEY-----\", was expected"
        ),
        other => format!("the key in {path} is damaged: {}", pem_words(&other)),
    })
}

/// Octets of the certificates that are shown: a few, with RSA keys of 4096 bits.
pub(super) const CHAIN_MAX: usize = 8 * 1024;
