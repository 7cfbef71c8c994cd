//! What the TLS of an upstream costs, counted in instructions by callgrind: nothing that an upstream
//! sends, authenticated or not, holds the loop up for long.
#![expect(clippy::unwrap_used, reason = "what cannot be made ends the program that is counted")]

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use dot_proxy::tls::pin::Pin;
use dot_proxy::tls::{self, Connector, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use ring::digest::{SHA256, digest};
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{Error, ServerConfig, ServerConnection, SignatureScheme};

use support::key_exchange;
use support::skip::skip;

/// Instructions of one call in the loop: 50 ms on a machine that is not fast.
const INSTRUCTIONS_MAX: u64 = 150_000_000;

/// With it, the test binary is the program that is counted.
const COUNTED: &str = "DOT_PROXY_INSTRUCTIONS";

const NAME: &str = "dot.example";

/// What the loop reads in one call: 32 KiB, and a buffer that was not empty by then.
const READ_MAX: usize = 48 << 10;

#[test]
fn no_upstream_holds_the_loop_up() {
    const TEST: &str = "instructions::no_upstream_holds_the_loop_up";

    if std::env::var_os(COUNTED).is_some() {
        return run();
    }
    let directory = Directory::new();
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-after=*callgrind_dumps_here*"])
        .arg(format!("--callgrind-out-file={}", directory.0.join("counts").display()))
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", TEST, "--nocapture"])
        .env(COUNTED, "")
        .stdin(Stdio::null())
        .output();
    let output = match valgrind {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skip(TEST, "no valgrind, which scripts/install-test-packages installs");
        }
        output => output.expect("valgrind runs"),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let calls: Vec<_> = stdout.lines().filter_map(|line| line.strip_prefix("counted ")).collect();
    assert!(calls.len() > CASES.len(), "{stdout}");
    // What is between two calls is in a file of its own.
    let counts = (1..=calls.len()).map(|number| directory.count(2 * number));
    let mut too_long = Vec::new();
    for (call, count) in calls.into_iter().zip(counts) {
        println!("{count:>13} {call}");
        if count > INSTRUCTIONS_MAX {
            too_long.push(format!("{call}: {count} instructions"));
        }
    }
    assert!(too_long.is_empty(), "more than {INSTRUCTIONS_MAX}:\n{}", too_long.join("\n"));
}

/// Where callgrind puts what it counted, in a file for each call.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("dot-proxy-instructions-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a writable directory for temporary files");
        Self(directory)
    }

    fn count(&self, number: usize) -> u64 {
        let file = self.0.join(format!("counts.{number}"));
        let text = fs::read_to_string(&file).expect("a file for each call");
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
        totals.and_then(|count| count.trim().parse().ok()).expect("a count")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Counts one call in the loop, and says which it was.
fn count<R>(label: &str, run: impl FnOnce() -> R) -> R {
    callgrind_dumps_here();
    let result = run();
    callgrind_dumps_here();
    println!("counted {label}");
    result
}

/// At its end callgrind writes what was counted since it last did.
#[inline(never)]
fn callgrind_dumps_here() {
    std::hint::black_box(());
}

/// A server, and what it sends behind its handshake.
#[derive(Default)]
struct Hostile {
    chain: Vec<CertificateDer<'static>>,
    tickets: usize,
    updates: bool,
    /// The scheme of signatures that are none.
    garbage: Option<SignatureScheme>,
}

type Make = fn(&World, &KeyPair) -> Hostile;

const CASES: [(&str, Make); 18] = [
    ("an honest server", |world, key| chain(&[(leaf(), key, &world.root)])),
    ("six issuers in a row", |world, key| {
        let mut chain = Vec::new();
        let mut above = Issuer::new(ca("root"), world.root.key());
        let keys: Vec<_> = (0..6).map(|_| p384()).collect();
        for (number, key) in keys.iter().enumerate() {
            let params = ca(&format!("issuer {number}"));
            chain.push(params.signed_by(key, &above).unwrap().der().clone());
            above = Issuer::new(params, key);
        }
        chain.push(leaf().signed_by(key, &above).unwrap().der().clone());
        chain.reverse();
        Hostile { chain, ..Hostile::default() }
    }),
    ("nine of one name and many that fit nowhere", |_, key| {
        let (fake, other) = (issuer("middle", p256()), issuer("other", p256()));
        let (keys, junk) = (keys(9), keys(60));
        let mut certificates = vec![(leaf(), key, &fake)];
        certificates.extend(keys.iter().map(|key| (ca("middle"), key, &fake)));
        certificates.extend(junk.iter().map(|key| (ca("other"), key, &other)));
        chain(&certificates)
    }),
    ("six with the name of the root", |_, key| namesakes(key, "root", 6, |_| ())),
    ("three with the name of the root", |_, key| namesakes(key, "root", 3, |_| ())),
    ("six keys of one issuer, none of which has signed", |world, key| {
        let keys: Vec<_> = (0..6).map(|_| p384()).collect();
        let fake = issuer("middle", p384());
        let mut certificates = vec![(leaf(), key, &fake)];
        certificates.extend(keys.iter().map(|key| (ca("middle"), key, &world.root)));
        chain(&certificates)
    }),
    ("six of one name", |_, key| namesakes(key, "middle", 6, |_| ())),
    ("six of one name with many purposes", |_, key| namesakes(key, "middle", 6, many_purposes)),
    ("three of one name with many purposes", |_, key| namesakes(key, "middle", 3, many_purposes)),
    ("six of one name with many extensions", |_, key| namesakes(key, "middle", 6, many_extensions)),
    ("three of one name with many extensions", |_, key| {
        namesakes(key, "middle", 3, many_extensions)
    }),
    ("a thousand certificates", |world, key| {
        let mut hostile = chain(&[(leaf(), key, &world.root)]);
        hostile.chain.extend((0..1_000).map(|_| CertificateDer::from(vec![0x30; 20])));
        hostile
    }),
    ("many names and constraints", |world, key| world.constrained(key, 450, 450, 4)),
    ("names and constraints as many as may be", |world, key| world.constrained(key, 200, 40, 1)),
    ("many names, none of them right", |world, key| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = (0..4_000).map(|n| dns_name(&format!("a{n}"))).collect();
        chain(&[(params, key, &world.root)])
    }),
    ("the longest RSA key", |world, _| Hostile {
        garbage: Some(SignatureScheme::RSA_PSS_SHA256),
        ..world.chain_of_rsa()
    }),
    ("many tickets", |world, key| Hostile {
        tickets: 1_000,
        ..chain(&[(leaf(), key, &world.root)])
    }),
    ("many updates of keys", |world, key| Hostile {
        updates: true,
        ..chain(&[(leaf(), key, &world.root)])
    }),
];

fn run() {
    let world = World::new();
    let limits = tls::TlsLimits { output_max: 64 << 10, handshake_max: 32 << 10, tickets_max: 8 };
    for (name, make) in CASES {
        let key = p384();
        let hostile = make(&world, &key);
        let config = config(&hostile, &key);
        let pin = pin_of(&hostile.chain[0]);
        for (known_by, identity) in [
            ("name", tls::Identity { name: Some(NAME), pins: &[], sni: true }),
            ("key", tls::Identity { name: None, pins: &[pin], sni: true }),
            (
                "name and the key of an issuer",
                tls::Identity { name: Some(NAME), pins: &[world.pin], sni: true },
            ),
        ] {
            let label = format!("{name}, known by {known_by}");
            let mut connector = tls::connectors(
                &tls::Files { roots: vec![world.file.clone()], ..Default::default() },
                [identity].into_iter(),
                tls::KeyExchange::Hybrid,
                limits,
            )
            .expect("a file with a root")
            .remove(0);
            connect(&label, &mut connector, &config, &hostile);
        }
    }
}

fn connect(label: &str, connector: &mut Connector, config: &Arc<ServerConfig>, hostile: &Hostile) {
    let now = Instant::now();
    let mut client = count(&format!("{label}: start"), || connector.start(now).unwrap());
    let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut wire = Wire::default();
    for flight in 0..3 {
        client.flush(&mut wire.up).unwrap();
        wire.serve(&mut server);
        if flight == 1 && hostile.updates && !server.is_handshaking() {
            while wire.down.len() < READ_MAX {
                for _ in 0..32 {
                    server.refresh_traffic_keys().unwrap();
                }
                server.writer().write_all(b"x").unwrap();
                wire.serve(&mut server);
            }
        }
        let received = count(&format!("{label}: flight {flight}"), || wire.receive(&mut client));
        if let Err(failure) = received {
            println!("refused: {}", failure.detail);
            return;
        }
    }
    assert!(!client.is_handshaking(), "{label}");
    connector.handle_connected(now, &client);
    drop(count(&format!("{label}: resumption"), || connector.start(now).unwrap()));
}

/// What is between the two.
#[derive(Default)]
struct Wire {
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Wire {
    fn serve(&mut self, server: &mut ServerConnection) {
        let up = std::mem::take(&mut self.up);
        let mut up = &up[..];
        while !up.is_empty() {
            server.read_tls(&mut up).unwrap();
            // An alert, perhaps.
            drop(server.process_new_packets());
        }
        while server.wants_write() {
            server.write_tls(&mut self.down).unwrap();
        }
    }

    fn receive(&mut self, client: &mut TlsStream) -> Result<tls::Progress, tls::Failure> {
        let max = if client.is_handshaking() { 32 << 10 } else { usize::MAX };
        let mut taken = Blocking(&self.down);
        let result = client.receive(&mut taken, max, |_| ());
        let left = taken.0.len();
        self.down.drain(..self.down.len() - left);
        result
    }
}

/// Octets that have arrived; more may follow.
struct Blocking<'a>(&'a [u8]);

impl Read for Blocking<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.read(out)
    }
}

/// A root of the longest keys that are usual, in a file.
struct World {
    root: Issuer<'static, KeyPair>,
    file: PathBuf,
    pin: Pin,
}

impl World {
    fn new() -> Self {
        let (params, key) = (ca("root"), p384());
        let certificate = params.self_signed(&key).unwrap();
        let file = format!("dot-proxy-instructions-{}.pem", std::process::id());
        let file = std::env::temp_dir().join(file);
        fs::write(&file, certificate.pem()).expect("a writable directory for temporary files");
        Self { pin: pin_of(certificate.der()), root: Issuer::new(params, key), file }
    }

    fn constrained(&self, key: &KeyPair, names: usize, constraints: usize, len: usize) -> Hostile {
        let mut params = ca("middle");
        let part = "a".repeat(len);
        let subtree = |n| GeneralSubtree::DnsName(format!("{part}.x{n}.b{part}"));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: (0..constraints).map(subtree).collect(),
        });
        let middle = Issuer::new(params.clone(), p384());
        let mut leaf = leaf();
        leaf.subject_alt_names
            .extend((0..names).map(|n| dns_name(&format!("{part}.y{n}.a{part}"))));
        chain(&[(leaf, key, &middle), (params, middle.key(), &self.root)])
    }

    fn chain_of_rsa(&self) -> Hostile {
        let certificate = leaf().signed_by(&Rsa::longest(), &self.root).unwrap();
        Hostile { chain: vec![certificate.der().clone()], ..Hostile::default() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.file));
    }
}

fn chain(certificates: &[(CertificateParams, &KeyPair, &Issuer<'static, KeyPair>)]) -> Hostile {
    let sign =
        |(params, key, issuer): &(CertificateParams, &KeyPair, &Issuer<'static, KeyPair>)| {
            params.signed_by(*key, *issuer).unwrap().der().clone()
        };
    Hostile { chain: certificates.iter().map(sign).collect(), ..Hostile::default() }
}

/// So many with the same name, which issue each other and the server's, as far as names go.
fn namesakes(
    key: &KeyPair,
    name: &str,
    count: usize,
    change: fn(&mut CertificateParams),
) -> Hostile {
    let fake = issuer(name, p384());
    let mut params = ca(name);
    change(&mut params);
    let keys = keys(count);
    let mut certificates = vec![(leaf(), key, &fake)];
    certificates.extend(keys.iter().map(|key| (params.clone(), key, &fake)));
    chain(&certificates)
}

fn many_purposes(params: &mut CertificateParams) {
    let other = |n| ExtendedKeyUsagePurpose::Other(vec![1, 3, n % 100_u64]);
    params.extended_key_usages = (0..900).map(other).collect();
    // The last, so that all are read.
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
}

fn many_extensions(params: &mut CertificateParams) {
    let extension = |n| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, n], Vec::new());
    params.custom_extensions = (0..350).map(extension).collect();
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn leaf() -> CertificateParams {
    CertificateParams::new([NAME.to_owned()]).unwrap()
}

fn issuer(name: &str, key: KeyPair) -> Issuer<'static, KeyPair> {
    Issuer::new(ca(name), key)
}

fn dns_name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn p256() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn p384() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()
}

fn keys(count: usize) -> Vec<KeyPair> {
    (0..count).map(|_| p256()).collect()
}

fn pin_of(certificate: &CertificateDer<'_>) -> Pin {
    let certificate = webpki::EndEntityCert::try_from(certificate).unwrap();
    let digest = digest(&SHA256, &certificate.subject_public_key_info());
    Pin::of_digest(digest.as_ref().try_into().unwrap())
}

fn config(hostile: &Hostile, key: &KeyPair) -> Arc<ServerConfig> {
    let key: Arc<dyn SigningKey> = if let Some(scheme) = hostile.garbage {
        Arc::new(Garbage(scheme))
    } else {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        provider::sign::any_supported_type(&key).unwrap()
    };
    let certified = CertifiedKey::new(hostile.chain.clone(), key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(key_exchange::hybrid()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ticketer = provider::Ticketer::new().unwrap();
    config.send_tls13_tickets = hostile.tickets.max(2);
    Arc::new(config)
}

/// A public key to which nobody has the private one.
struct Rsa(Vec<u8>);

impl Rsa {
    /// 8,192 bits, and the exponent that takes most work.
    fn longest() -> Self {
        let integer = |octets: &[u8]| {
            let len = octets.len() as u16;
            [&[0x02, 0x82][..], &len.to_be_bytes(), octets].concat()
        };
        let modulus = [&[0][..], &[0xa5; 1_024]].concat();
        let exponent = [0x02, 5, 0x01, 0xff, 0xff, 0xff, 0xff];
        let content = [&integer(&modulus)[..], &exponent].concat();
        Self([&[0x30, 0x82][..], &(content.len() as u16).to_be_bytes(), &content].concat())
    }
}

impl PublicKeyData for Rsa {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

/// Signs with what is no signature.
#[derive(Debug)]
struct Garbage(SignatureScheme);

impl SigningKey for Garbage {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(self.0)))
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::RSA
    }
}

impl Signer for Garbage {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![0x5a; 1_024])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}
