mod certificates;
mod link;
mod roots;
mod stream;

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use rustls::AlertDescription;
use rustls::crypto::ring;
use rustls::pki_types::UnixTime;
use support::key_exchange as server_side;

use super::*;
pub(super) use link::{Link, Wire};

type Change<'a> = &'a dyn Fn(&mut CertificateParams);

pub(super) const NAME: &str = "dns.example";
pub(super) const HYBRID: KeyExchange = KeyExchange::Hybrid;
pub(super) const LIMITS: TlsLimits =
    TlsLimits { output_max: 64 * 1024, handshake_max: 32 * 1024, tickets_max: 8 };
pub(super) const VERSIONS: [(&SupportedProtocolVersion, &str); 2] =
    [(&rustls::version::TLS12, "TLS 1.2"), (&rustls::version::TLS13, "TLS 1.3")];

pub(super) fn roots_in(file: &Path) -> Files {
    Files { roots: vec![file.into()], ..Files::default() }
}

pub(super) fn named(name: &str) -> Identity<'_> {
    Identity { name: Some(name), pins: &[], sni: true }
}

pub(super) fn start(connector: &mut Connector) -> TlsStream {
    connector.start(Instant::now()).unwrap()
}

/// The time of day, in seconds since 1970.
#[derive(Debug)]
pub(super) struct Time(AtomicU64);

impl Time {
    pub(super) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl From<u64> for Time {
    fn from(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) root: CertificateDer<'static>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("test root")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (root, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), root, pem }
    }

    pub(super) fn connectors(&self, names: &[&str]) -> Vec<Connector> {
        Self::connectors_of(&[self], names.iter().map(|name| named(name)))
    }

    pub(super) fn connector(&self, name: &str) -> Connector {
        self.connectors(&[name]).pop().unwrap()
    }

    /// Connectors that trust all of these authorities.
    pub(super) fn connectors_of<'a>(
        authorities: &[&Self],
        servers: impl Iterator<Item = Identity<'a>>,
    ) -> Vec<Connector> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.root.clone()).unwrap();
        }
        Common::new(Roots::new(roots, "the test root"), HYBRID, LIMITS).connectors(servers).unwrap()
    }

    pub(super) fn classic_connector(&self, name: &str) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let (roots, servers) = (Roots::new(roots, "the test root"), [named(name)].into_iter());
        Common::new(roots, KeyExchange::Classic, LIMITS).connectors(servers).unwrap().remove(0)
    }

    /// A server with a good certificate for [`NAME`] and two addresses.
    pub(super) fn server(
        &self,
        version: &'static SupportedProtocolVersion,
        change: impl Fn(&mut ServerConfig),
    ) -> Arc<ServerConfig> {
        self.server_with(server_side::hybrid(), version, change)
    }

    /// The same with this cryptography.
    pub(super) fn server_with(
        &self,
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
        change: impl Fn(&mut ServerConfig),
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        server_with(provider, version, &params, &Signer::Issuer(&self.issuer), change)
    }
}

pub(super) enum Signer<'a> {
    Issuer(&'a Issuer<'static, KeyPair>),
    Itself,
}

pub(super) fn server(
    version: &'static SupportedProtocolVersion,
    params: &CertificateParams,
    signer: &Signer,
    change: impl Fn(&mut ServerConfig),
) -> Arc<ServerConfig> {
    server_with(server_side::hybrid(), version, params, signer, change)
}

fn server_with(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    params: &CertificateParams,
    signer: &Signer,
    change: impl Fn(&mut ServerConfig),
) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = match signer {
        Signer::Issuer(issuer) => params.signed_by(&key, *issuer).unwrap(),
        Signer::Itself => params.self_signed(&key).unwrap(),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    change(&mut config);
    Arc::new(config)
}

/// The octets of the `ClientHello` of a stream.
pub(super) fn hello_of(stream: &mut TlsStream) -> Vec<u8> {
    let mut wire = Wire::new(100_000, false);
    stream.flush(&mut wire).unwrap();
    wire.octets.into()
}

/// The body of an extension in a record with a `ClientHello`.
pub(super) fn extension(hello: &[u8], wanted: u16) -> Option<&[u8]> {
    let number = |at: usize| usize::from(hello[at]) << 8 | usize::from(hello[at + 1]);
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let compression = suites + 2 + number(suites);
    let mut at = compression + 1 + usize::from(hello[compression]) + 2;
    while at < hello.len() {
        let (kind, len) = (number(at), number(at + 2));
        if kind == usize::from(wanted) {
            return Some(&hello[at + 4..at + 4 + len]);
        }
        at += 4 + len;
    }
    None
}

pub(super) struct TempFile(pub(super) std::path::PathBuf);

impl TempFile {
    pub(super) fn new(name: &str, content: &[u8]) -> Self {
        // Tests of one process run side by side.
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("dot-proxy-tls-{}-{number}-{name}", process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
