//! The certificate by which servers that ask for one know us (RFC 8446 section 4.4.2, RFC 5246 section 7.4.6).

use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};

use super::contents;
use super::explain::{certificate_words, pem_words};
use super::files::{self, CLIENT_CERT, CLIENT_KEY, Reading, named};

/// A certificate of ours.
#[derive(Clone, Debug)]
pub(super) struct ClientCertificate {
    pub(super) resolver: Arc<dyn ResolvesClientCert>,
    /// The certificate, and its issuers behind it.
    pub(super) chain: Arc<[CertificateDer<'static>]>,
}

/// The certificate, its issuers behind it, and the key, of two files in PEM form, which may be one. The error is
/// one line that names the flag and the file and says what is wrong.
pub(super) fn read(
    certificate: &Path,
    key: &Path,
    reading: &mut Reading,
    provider: &CryptoProvider,
) -> Result<ClientCertificate, String> {
    let chain = files::certificates(CLIENT_CERT, certificate, reading)?;
    let octets: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if octets > CHAIN_MAX {
        let problem = format!(
            "its certificates have {octets} octets, and {CHAIN_MAX} are the most that is shown: leave out \
             those that the server has"
        );
        return Err(named(CLIENT_CERT, certificate, &problem));
    }
    let private = private_key(key, reading)?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let problem = format!(
                "is not the key of {}, whose first certificate must be the one that it is for",
                certificate.display()
            );
            named(CLIENT_KEY, key, &problem)
        }
        Error::InvalidCertificate(error) => {
            named(CLIENT_CERT, certificate, &certificate_words(&error, None))
        }
        _ => named(
            CLIENT_KEY,
            key,
            "its key cannot be used: it is damaged, or none of RSA of 2048 to 4096 bits, P-256, P-384 or \
             Ed25519",
        ),
    })?;
    Ok(ClientCertificate {
        chain: certified.cert.as_slice().into(),
        resolver: Arc::new(SingleCertAndKey::from(certified)),
    })
}

fn private_key(file: &Path, reading: &mut Reading) -> Result<PrivateKeyDer<'static>, String> {
    let octets = files::read(CLIENT_KEY, file, reading)?;
    let named = |problem: &str| named(CLIENT_KEY, file, problem);
    if is_encrypted(&String::from_utf8_lossy(&octets)) {
        return Err(named(&format!(
            "its key is encrypted, and nobody can be asked for its passphrase; openssl pkey -in {} writes it \
             as it is needed",
            file.display()
        )));
    }
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| match error {
        pem::Error::NoItemsFound => named(&contents::unexpected(&octets, CLIENT_KEY, file)),
        other => named(&format!("its key is damaged: {}", pem_words(&other))),
    })
}

/// Whether a key is encrypted, by its label (PKCS #8) or its header (OpenSSL before 1.0). Comments and bag
/// attributes may say anything.
fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| {
        line.contains("-----BEGIN ENCRYPTED")
            || line.trim_start().starts_with("Proc-Type:") && line.contains("ENCRYPTED")
    })
}

/// Octets of the certificates that are shown: a few, with RSA keys of 4096 bits.
pub(super) const CHAIN_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};

    use super::super::tests::{
        Authority, HYBRID, LIMITS, Link, NAME, TempFile, VERSIONS, named, roots_in, start,
    };
    use super::super::{Files, connectors};
    use super::*;
    use crate::forwarder::Stage;

    #[test]
    fn a_server_that_wants_a_certificate_of_ours_is_told_of_or_shown_it() {
        let authority = Authority::new();
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let roots = TempFile::new("roots.pem", authority.pem.as_bytes());
        let (certificate, key) = client(&authority);
        let certificate = TempFile::new("client.pem", certificate.as_bytes());
        let key = TempFile::new("client.key", key.as_bytes());
        let shown = Some((certificate.0.clone(), key.0.clone()));
        let (stranger, strange_key) = client(&Authority::named("stranger"));
        let stranger = TempFile::new("stranger.pem", stranger.as_bytes());
        let strange_key = TempFile::new("stranger.key", strange_key.as_bytes());
        let strange = Some((stranger.0.clone(), strange_key.0.clone()));
        let wanted = "it wants a client certificate: give one that it trusts with --client-cert and \
                      --client-key";
        let refused = "it does not accept the certificate of --client-cert";
        for (version, words) in VERSIONS {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([NAME.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &authority.issuer).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let provider = Arc::new(ring::default_provider());
            let server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_client_cert_verifier(Arc::clone(&verifier))
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            let server = Arc::new(server);
            for (client, what_to_do) in
                [(None, Some(wanted)), (shown.clone(), None), (strange.clone(), Some(refused))]
            {
                let files = Files { client, ..roots_in(&roots.0) };
                let mut connectors =
                    connectors(&files, [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap();
                let mut link = Link::new(start(&mut connectors[0]), &server, 100_000, false);
                link.to_write = b"query".to_vec();
                link.run();
                let Some(what_to_do) = what_to_do else {
                    assert_eq!(link.failure, None, "{words}");
                    continue;
                };
                let failure = link.failure.expect("it is refused");
                // TLS 1.3 has no say before our handshake is done.
                let at = if words == "TLS 1.3" { Stage::Read } else { Stage::Tls };
                assert_eq!(failure.stage, at, "{words}");
                assert!(
                    failure.detail.ends_with(&format!("; {what_to_do}")),
                    "{words}: {failure:?}"
                );
            }
        }
    }

    #[test]
    fn a_key_is_encrypted_if_its_label_or_header_says_so() {
        for (line, expected) in [
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", true),
            ("Proc-Type: 4,ENCRYPTED", true),
            ("-----BEGIN PRIVATE KEY-----", false),
            ("    friendlyName: NOT ENCRYPTED", false),
            ("# openssl pkcs8 -in ENCRYPTED.pem", false),
        ] {
            assert_eq!(
                is_encrypted(&format!("Bag Attributes\n{line}\nAAAA\n")),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn a_bad_certificate_or_key_of_ours_is_named_with_what_is_wrong() {
        let (certificate, key) = &client(&Authority::new());
        let (_, other) = &client(&Authority::new());
        let damaged = &key.replacen('M', "!", 1);
        let encrypted = &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let odd = &"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned();
        let long = &certificate.repeat(CHAIN_MAX / 200);
        let bad = &"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        let curve = &KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for (certificate, key, error) in [
            (
                &String::new(),
                key,
                "--client-cert CERT: is empty; something in PEM form was expected",
            ),
            (key, key, "--client-cert CERT: holds \"-----BEGIN PRIVATE "),
            (certificate, certificate, "--client-key KEY: holds \"-----BEGIN "),
            (certificate, damaged, "--client-key KEY: its key is damaged: it is not valid base64"),
            (
                certificate,
                encrypted,
                "--client-key KEY: its key is encrypted, and nobody can be asked",
            ),
            (
                certificate,
                other,
                "--client-key KEY: is not the key of CERT, whose first certificate",
            ),
            (
                certificate,
                curve,
                "--client-key KEY: is not the key of CERT, whose first certificate",
            ),
            (
                certificate,
                odd,
                "--client-key KEY: its key cannot be used: it is damaged, or none of",
            ),
            (long, key, "--client-cert CERT: its certificates have "),
            (bad, key, "--client-cert CERT: the certificate is malformed"),
        ] {
            let certificate = TempFile::new("client.pem", certificate.as_bytes());
            let key = TempFile::new("client.key", key.as_bytes());
            let client = Some((certificate.0.clone(), key.0.clone()));
            let expected = error
                .replace("CERT", &certificate.0.to_string_lossy())
                .replace("KEY", &key.0.to_string_lossy());
            let files = Files { client, ..Files::default() };
            let seen = connectors(&files, [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap_err();
            assert!(seen.starts_with(&expected), "{seen}\n  should say: {expected}");
        }
    }

    /// A certificate for a client, and its key, in PEM form.
    fn client(authority: &Authority) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
