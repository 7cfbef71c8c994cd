//! Certificates for tests: a certification authority of its own, good leaves and bad ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certification authority and, once asked for, the file that holds its root, removed with it.
pub(crate) struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: OnceLock<PathBuf>,
}

impl Authority {
    /// Every authority has a name and a key of its own.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("dot-proxy test root {number}"))
    }

    /// One that may claim the name of another, but has its own key.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a root certificate");
        Self { name: name.to_owned(), issuer, file: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The PEM file of the root, for `--ca-file`.
    pub(crate) fn file(&self) -> &Path {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        self.file.get_or_init(|| {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("dot-proxy-ca-{}-{number}.pem", std::process::id());
            let file = std::env::temp_dir().join(name);
            fs::write(&file, self.pem()).expect("a writable directory for temporary files");
            file
        })
    }

    /// The root as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A good certificate for this name.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.sign(&leaf(name))
    }

    /// A certificate whose time is over.
    pub(crate) fn expired(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&params)
    }

    /// A certificate whose time has not come.
    pub(crate) fn not_yet_valid(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.not_before = date_time_ymd(2901, 1, 1);
        params.not_after = date_time_ymd(2902, 1, 1);
        self.sign(&params)
    }

    /// A certificate that has the name in its subject only (RFC 9525 section 2).
    pub(crate) fn common_name_only(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.subject_alt_names.clear();
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf certificate");
        Identity { certificate: certificate.der().clone(), key: key.into() }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(file) = self.file.get() {
            // Whoever removed it first did what is wanted here.
            drop(fs::remove_file(file));
        }
    }
}

/// What a server shows: a certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A certificate that nobody vouches for but itself.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = key();
        let certificate = leaf(name).self_signed(&key).expect("a self-signed certificate");
        Self { certificate: certificate.der().clone(), key: key.into() }
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { certificate: self.certificate.clone(), key: self.key.clone_key() }
    }
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}
