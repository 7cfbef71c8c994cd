//! Certificates for tests: a certification authority of its own, good leaves and bad ones.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::utils::base64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use webpki::EndEntityCert;

/// A certification authority and, once asked for, the file that holds its root, removed with it.
pub struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: OnceLock<PathBuf>,
}

impl Authority {
    /// Every authority has a name and a key of its own.
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("dot-proxy test root {number}"))
    }

    /// One that may claim the name of another, but has its own key.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a root certificate");
        Self { name: name.to_owned(), issuer, file: OnceLock::new() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The PEM file of the root, for `--ca-file`.
    pub fn file(&self) -> &Path {
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
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The pin of its key, as `--upstream` takes it.
    pub fn pin(&self) -> String {
        pin(&self.issuer.key().subject_public_key_info())
    }

    /// A good certificate for this name.
    pub fn identity(&self, name: &str) -> Identity {
        self.sign(&leaf(name))
    }

    /// Another certificate for the same key.
    pub fn renewed(&self, identity: &Identity, name: &str) -> Identity {
        let key = KeyPair::try_from(identity.key.secret_der()).expect("a key pair");
        let certificate = leaf(name).signed_by(&key, &self.issuer).expect("a leaf certificate");
        Identity { certificate: certificate.der().clone(), ..identity.clone() }
    }

    /// A good certificate for this name and so many others.
    pub fn wordy_identity(&self, name: &str, others: usize) -> Identity {
        let mut params = leaf(name);
        let others = (0..others).map(|n| format!("other-name-{n:05}.example"));
        params
            .subject_alt_names
            .extend(others.map(|other| SanType::DnsName(other.try_into().expect("a DNS name"))));
        self.sign(&params)
    }

    /// A certificate whose time is over.
    pub fn expired(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&params)
    }

    /// A certificate whose time has not come.
    pub fn not_yet_valid(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.not_before = date_time_ymd(2901, 1, 1);
        params.not_after = date_time_ymd(2902, 1, 1);
        self.sign(&params)
    }

    /// A certificate that has the name in its subject only (RFC 9525 section 2).
    pub fn common_name_only(&self, name: &str) -> Identity {
        let mut params = leaf(name);
        params.subject_alt_names.clear();
        self.sign(&params)
    }

    /// A client's certificate and key, in PEM form.
    pub fn client_pem(&self) -> String {
        let mut params = leaf("client.example");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf certificate");
        certificate.pem() + &key.serialize_pem()
    }

    /// The root, for servers that ask for certificates.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        roots
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
            // A file that is gone already is as good.
            drop(fs::remove_file(file));
        }
    }
}

/// What a server shows: a certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A certificate that nobody vouches for but itself.
    pub fn self_signed(name: &str) -> Self {
        let key = key();
        let certificate = leaf(name).self_signed(&key).expect("a self-signed certificate");
        Self { certificate: certificate.der().clone(), key: key.into() }
    }

    /// The same as `openssl req -x509` makes it: as that of a CA.
    pub fn self_signed_ca(name: &str) -> Self {
        let mut params = leaf(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.clear();
        let key = key();
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        Self { certificate: certificate.der().clone(), key: key.into() }
    }

    /// The pin of its key, as `--upstream` takes it.
    pub fn pin(&self) -> String {
        let certificate = EndEntityCert::try_from(&self.certificate).expect("a certificate");
        pin(&certificate.subject_public_key_info())
    }

    /// The same as everybody else finds it out, or why that cannot be.
    pub fn pin_by_openssl(&self) -> Result<String, String> {
        const PIPELINE: &str = "set -e; openssl x509 -inform der -pubkey -noout |
            openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64";

        let mut child = Command::new("sh")
            .args(["-c", PIPELINE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run sh: {error}"))?;
        let mut stdin = child.stdin.take().expect("a pipe");
        // Where there is no openssl, nobody reads it.
        stdin.write_all(&self.certificate).ok();
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.stderr.is_empty() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("openssl, which scripts/install-test-packages installs: {error}"));
        }
        Ok(format!("sha256/{}", String::from_utf8_lossy(&output.stdout).trim()))
    }
}

/// The pin of a key as certificates have it.
fn pin(key: &[u8]) -> String {
    format!("sha256/{}", base64::encode_string(digest(&SHA256, key).as_ref()))
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
