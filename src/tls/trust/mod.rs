//! Servers that are known by their names, by their keys, or by both (RFC 7858 section 4.2, RFC 8310
//! sections 6.4 and 8.1).

mod chain;
mod keys;
mod roots;
mod unfit;

use std::error;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm as Algorithm,
    SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};

use crate::tls::explain::KEY;
use crate::tls::pin::Pin;
use crate::tls::presented::Witness;

pub(super) use chain::{Checks, TooCostly};
pub(super) use keys::{RSA_BITS_MAX, RSA_BITS_MIN, pin};
pub(super) use roots::Roots;
pub(super) use unfit::Unfit;

/// How a server is known. A server with neither name nor pins is not accepted.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The name that its certificate must be good for, a DNS name or an IP address. If there is none,
    /// nothing of the certificate counts but its key, not even its dates.
    pub name: Option<&'a str>,
    /// The keys of which it must have one, or, if it has a name, an issuer of its certificate; none:
    /// any key will do.
    pub pins: &'a [Pin],
    /// Its name is sent in the clear in the `ClientHello` (RFC 6066 section 3), as most servers expect.
    pub sni: bool,
}

/// Accepts servers that have what is known of them: a certificate for their name, one of some keys, or
/// both. The signature in the handshake must prove that a server has the key its certificate shows.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    /// Keys that are accepted; none: any key will do, if the name is known.
    pins: Box<[Pin]>,
    /// Roots that a certificate for a name must lead to; without them nothing of a certificate counts but
    /// its key, no name, no issuer and no date.
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Is shown what the server shows, whether it is accepted or not.
    witness: Option<Arc<Witness>>,
}

impl Verifier {
    pub(super) fn new(
        pins: &[Pin],
        roots: Option<Arc<RootCertStore>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { pins: pins.into(), roots, algorithms, witness: None }
    }

    /// One that accepts the same, and keeps what servers show.
    pub(super) fn watched_by(&self, witness: Arc<Witness>) -> Self {
        Self { witness: Some(witness), ..self.clone() }
    }

    /// Whether both accept the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let roots = |verifier: &Self| verifier.roots.clone();
        let has_same_roots = match (roots(self), roots(other)) {
            (Some(these), Some(those)) => these.roots == those.roots,
            (these, those) => these.is_none() && those.is_none(),
        };
        self.pins == other.pins && has_same_roots
    }

    /// Verifies a chain, with what is left of `checks`.
    pub(super) fn verify(
        &self,
        checks: &Checks,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        time: UnixTime,
    ) -> Result<(), Error> {
        chain::check_count(rest)?;
        // The certificate comes before the key, as the reason why it does not verify is the better one.
        let certificate = ParsedCertificate::try_from(first)?;
        let algorithms = checks.limit(&self.algorithms);
        let algorithms: Vec<_> =
            algorithms.iter().map(|limited| limited as &dyn Algorithm).collect();
        if let Some(roots) = &self.roots {
            let own = EndEntityCert::try_from(first).map_err(|_| CertificateError::BadEncoding)?;
            chain::check_search(&own, rest, roots)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, rest, time, &algorithms)
                .map_err(|error| match checks.reason() {
                    Some(reason) => reason.into(),
                    None => unfit::of_chain(error, &own, rest, roots),
                })?;
            verify_server_name(&certificate, name)?;
            if self.pins.is_empty() {
                return Ok(());
            }
        }
        let key = certificate.subject_public_key_info();
        // The path is built once more only for pins of issuers, which are rare.
        if self.is_pinned(&key) || self.has_pinned_issuer(first, rest, time, &algorithms) {
            return Ok(());
        }
        let wrong = WrongKey {
            seen: pin(&key),
            expected: self.pins.clone(),
            or_issuers: self.roots.is_some(),
        };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn is_pinned(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        self.pins.contains(&pin(key))
    }

    /// Whether the certificate verifies by a path with a pinned key above it (RFC 7469 section 2.6).
    ///
    /// Only certificates on such a path count, not others that the server sent: to send one of somebody
    /// else's with it costs an attacker nothing.
    fn has_pinned_issuer(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        time: UnixTime,
        algorithms: &[&dyn Algorithm],
    ) -> bool {
        let is_pinned = |path: &VerifiedPath<'_>| {
            let mut issuers = path.intermediate_certificates().map(Cert::subject_public_key_info);
            if issuers.any(|key| self.is_pinned(&key))
                || self.is_pinned(&spki_for_anchor(path.anchor()))
            {
                return Ok(());
            }
            // Another path may have one.
            Err(webpki::Error::UnknownIssuer)
        };
        let Some(roots) = &self.roots else { return false };
        EndEntityCert::try_from(first).is_ok_and(|certificate| {
            let path = certificate.verify_for_usage(
                algorithms,
                &roots.roots,
                rest,
                time,
                KeyUsage::server_auth(),
                None,
                Some(&is_pinned),
            );
            path.is_ok()
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        time: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(witness) = &self.witness {
            witness.note(first, rest);
        }
        self.verify(&Checks::default(), first, rest, name, time)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
            .map_err(|error| unfit::of_handshake(error, certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
            .map_err(|error| unfit::of_handshake(error, certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A server has another key than was expected.
#[derive(Debug)]
pub(super) struct WrongKey {
    seen: Pin,
    expected: Box<[Pin]>,
    /// The key of an issuer would have done.
    or_issuers: bool,
}

impl error::Error for WrongKey {}

impl fmt::Display for WrongKey {
    /// What was seen stands in front, as Extended DNS Errors are cut off somewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.or_issuers { "it or an issuer's" } else { "it" };
        let expected: Vec<_> = self.expected.iter().map(Pin::to_string).collect();
        let expected = expected.join(" or ");
        write!(f, "{KEY}{}; {whose} was expected to be {expected}", self.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData,
        date_time_ymd,
    };
    use rustls::crypto::ring as provider;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::{self, CertifiedKey, SingleCertAndKey};
    use rustls::{ServerConfig, SupportedProtocolVersion};

    use super::keys::tests::Rsa;
    use super::*;
    use crate::forwarder::Stage;
    use crate::tls::Connector;
    use crate::tls::tests::{Authority, Link, NAME, Time, VERSIONS, extension, hello_of, start};

    const OTHER_NAME: &str = "other.example";

    #[test]
    fn name_and_pins_must_both_be_right() {
        let authority = Authority::new();
        let key = key();
        let server_of = |version| server(version, vec![leaf(&key, &authority.issuer)], &key);
        let (right, wrong) = (pin_of(&key), pin_of(&KeyPair::generate().unwrap()));
        let also_wrong = pin_of(&KeyPair::generate().unwrap());
        let wrong_name = format!("the certificate is for {NAME}, not for {OTHER_NAME}");
        let wrong_key = |whose: &str, expected: &str| {
            format!("the server's key is {right}; {whose} was expected to be {expected}")
        };
        let one = wrong.to_string();
        let two = format!("{wrong} or {also_wrong}");
        let nothing = "";
        for (name, pins, error) in [
            (Some(NAME), &[][..], None),
            (Some(NAME), &[right], None),
            (Some(NAME), &[wrong, right], None),
            (Some(NAME), &[wrong], Some(wrong_key("it or an issuer's", &one))),
            (Some(NAME), &[wrong, also_wrong], Some(wrong_key("it or an issuer's", &two))),
            (Some(OTHER_NAME), &[], Some(wrong_name.clone())),
            (Some(OTHER_NAME), &[right], Some(wrong_name.clone())),
            (Some(OTHER_NAME), &[wrong], Some(wrong_name)),
            (None, &[right], None),
            (None, &[wrong, right], None),
            (None, &[wrong], Some(wrong_key("it", &one))),
            (None, &[wrong, also_wrong], Some(wrong_key("it", &two))),
            (None, &[], Some(wrong_key("it", nothing))),
        ] {
            for (version, words) in VERSIONS {
                let mut connector = connector(&[&authority], name, pins);
                let server = server_of(version);
                match &error {
                    None => drop(Link::established(&mut connector, &server)),
                    Some(error) => assert_refused(&mut connector, &server, error),
                }
                assert_eq!(connector.session.is_some(), error.is_none(), "{name:?}, {words}");
            }
        }
    }

    #[test]
    fn where_pins_stand_alone_nothing_but_the_key_counts() {
        type Change = fn(&mut CertificateParams);

        let stranger = Authority::named("stranger");
        let (key, certified) = (key(), |params: &CertificateParams, key: &KeyPair| {
            params.signed_by(key, &stranger.issuer).unwrap().der().clone()
        });
        let changes: [(&str, Change); 6] = [
            ("unknown issuer", |_| ()),
            ("expired", |params| params.not_after = date_time_ymd(2001, 1, 1)),
            ("not yet valid", |params| params.not_before = date_time_ymd(2999, 1, 1)),
            ("no name", |params| params.subject_alt_names.clear()),
            ("CA", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            ("for clients", |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ];
        let trusted = Authority::new();
        for (version, words) in VERSIONS {
            let accept = |certificate: CertificateDer<'static>| {
                let server = server(version, vec![certificate], &key);
                let mut connector = connector(&[&trusted], None, &[pin_of(&key)]);
                connector.config.time_provider = Arc::new(Time::from(0));
                Link::established(&mut connector, &server);
                assert!(Link::established(&mut connector, &server).resumed, "{words}");
            };
            for (_, change) in changes {
                let mut params = CertificateParams::new([OTHER_NAME.to_owned()]).unwrap();
                change(&mut params);
                accept(certified(&params, &key));
                accept(params.self_signed(&key).unwrap().der().clone());
            }
        }
    }

    #[test]
    fn a_pinned_key_must_be_proved() {
        let authority = Authority::new();
        let (key, other) = (key(), KeyPair::generate().unwrap());
        for (version, _) in VERSIONS {
            // The impostor shows the certificate, which everybody can see, and signs with what it has.
            let impostor = server(version, vec![leaf(&key, &authority.issuer)], &other);
            let mut alone = connector(&[&authority], None, &[pin_of(&key)]);
            let error = "the server does not have the key that its certificate shows";
            assert_refused(&mut alone, &impostor, error);
            for pins in [&[][..], &[pin_of(&key)]] {
                let mut named = connector(&[&authority], Some(NAME), pins);
                assert_refused(&mut named, &impostor, error);
            }
        }
    }

    #[test]
    fn a_server_with_a_weak_key_is_told_so() {
        #[derive(Debug)]
        struct Garbage;

        impl sign::SigningKey for Garbage {
            fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
                Some(Box::new(Self))
            }

            fn algorithm(&self) -> rustls::SignatureAlgorithm {
                rustls::SignatureAlgorithm::RSA
            }
        }

        impl sign::Signer for Garbage {
            fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
                Ok(vec![1; 128])
            }

            fn scheme(&self) -> SignatureScheme {
                SignatureScheme::RSA_PSS_SHA256
            }
        }

        let authority = Authority::new();
        let key = Rsa::new(1_024);
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap().der().clone();
        let pin = pin(&key.subject_public_key_info().as_slice().into());
        for (version, _) in VERSIONS {
            let certified = CertifiedKey::new(vec![certificate.clone()], Arc::new(Garbage));
            let server = server_with(version, certified);
            for (name, pins) in [(Some(NAME), &[][..]), (Some(NAME), &[pin]), (None, &[pin])] {
                let error = "the server's RSA key is too weak: it has 1024 bits, and 2048 to 8192 are \
                             taken";
                assert_refused(&mut connector(&[&authority], name, pins), &server, error);
            }
        }
    }

    #[test]
    fn issuers_on_the_verified_path_may_be_pinned_with_a_name() {
        let authority = Authority::new();
        let middle = Middle::new("middle", &authority.issuer);
        let key = key();
        let root = pin_of(authority.issuer.key());
        let middle_pin = pin_of(middle.issuer.key());
        for (version, words) in VERSIONS {
            let chain = vec![leaf(&key, &middle.issuer), middle.certificate.clone()];
            let server = server(version, chain, &key);
            for pin in [pin_of(&key), middle_pin, root] {
                let mut named = connector(&[&authority], Some(NAME), &[pin]);
                Link::established(&mut named, &server);
                let mut renamed = connector(&[&authority], Some(OTHER_NAME), &[pin]);
                let failure = Link::refused(&mut renamed, &server);
                assert!(failure.detail.contains("not for other.example"), "{words}: {failure:?}");
            }
            for pin in [middle_pin, root] {
                let mut alone = connector(&[&authority], None, &[pin]);
                let error =
                    format!("the server's key is {}; it was expected to be {pin}", pin_of(&key));
                assert_refused(&mut alone, &server, &error);
            }
        }
    }

    #[test]
    fn what_a_server_sends_besides_its_path_is_no_issuer() {
        let authority = Authority::new();
        let pinned = Middle::new("middle", &authority.issuer);
        // Another issuer of the same name, so that the pinned one is tried and found not to have signed.
        let other = Middle::new("middle", &authority.issuer);
        let key = key();
        for (version, _) in VERSIONS {
            for chain in [
                vec![leaf(&key, &authority.issuer), pinned.certificate.clone()],
                vec![
                    leaf(&key, &other.issuer),
                    pinned.certificate.clone(),
                    other.certificate.clone(),
                ],
                vec![
                    leaf(&key, &other.issuer),
                    other.certificate.clone(),
                    pinned.certificate.clone(),
                ],
            ] {
                let server = server(version, chain, &key);
                Link::established(&mut connector(&[&authority], Some(NAME), &[]), &server);
                let pin = pin_of(pinned.issuer.key());
                let error = format!(
                    "the server's key is {}; it or an issuer's was expected to be {pin}",
                    pin_of(&key)
                );
                for name in [Some(NAME), None] {
                    let error = match name {
                        Some(_) => error.clone(),
                        None => error.replace("it or an issuer's", "it"),
                    };
                    assert_refused(&mut connector(&[&authority], name, &[pin]), &server, &error);
                }
            }
        }
    }

    #[test]
    fn any_path_that_verifies_will_do() {
        let (old, new) = (Authority::named("old root"), Authority::named("new root"));
        let middle = Middle::new("middle", &old.issuer);
        let again = middle.signed_by(&new.issuer);
        let key = key();
        let chain = vec![leaf(&key, &middle.issuer), middle.certificate.clone(), again];
        let server = server(&rustls::version::TLS13, chain, &key);
        for root in [&old, &new] {
            let pin = pin_of(root.issuer.key());
            Link::established(&mut connector(&[&old, &new], Some(NAME), &[pin]), &server);
        }
        // A root that is not trusted is on no path.
        let pin = pin_of(new.issuer.key());
        let failure = Link::refused(&mut connector(&[&old], Some(NAME), &[pin]), &server);
        assert!(failure.detail.ends_with(&format!("expected to be {pin}")), "{failure:?}");
    }

    #[test]
    fn without_a_name_none_is_sent() {
        const SERVER_NAME: u16 = 0;

        let authority = Authority::new();
        let pin = pin_of(&key());
        for (name, is_sent) in [(None, false), (Some(NAME), true), (Some("192.0.2.1"), false)] {
            let hello = hello_of(&mut start(&mut connector(&[&authority], name, &[pin])));
            assert_eq!(extension(&hello, SERVER_NAME).is_some(), is_sent, "{name:?}");
        }
    }

    #[test]
    fn sessions_of_pins_alone_end_after_a_day_and_not_with_the_certificate() {
        const HOUR: Duration = Duration::from_secs(60 * 60);

        let authority = Authority::new();
        let key = key();
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.not_after = date_time_ymd(2001, 1, 1);
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        for (version, words) in VERSIONS {
            let server = server(version, vec![certificate.der().clone()], &key);
            let mut connector = connector(&[&authority], None, &[pin_of(&key)]);
            let begin = Instant::now();
            let mut is_resumed =
                |at| Link::established_at(begin + at, &mut connector, &server).resumed;
            assert!(!is_resumed(Duration::ZERO), "{words}");
            assert!(is_resumed(23 * HOUR), "{words}");
            assert!(!is_resumed(24 * HOUR), "{words}");
        }
    }

    #[test]
    fn who_has_another_key_now_is_not_accepted_for_an_old_ticket() {
        let authority = Authority::new();
        let (key, other) = (key(), KeyPair::generate().unwrap());
        for (version, words) in VERSIONS {
            let good = server(version, vec![leaf(&key, &authority.issuer)], &key);
            let bad = server(version, vec![leaf(&other, &authority.issuer)], &other);
            for name in [Some(NAME), None] {
                let mut connector = connector(&[&authority], name, &[pin_of(&key)]);
                Link::established(&mut connector, &good);
                let failure = Link::refused(&mut connector, &bad);
                assert_eq!(failure.stage, Stage::Certificate, "{words}");
                assert!(!Link::established(&mut connector, &good).resumed, "{words}");
            }
        }
    }

    #[test]
    fn the_longest_error_names_every_pin() {
        let pins = [7; 8].map(|octet| Pin::of_digest([octet; 32]));
        let wrong = WrongKey { seen: pins[0], expected: pins.into(), or_issuers: true }.to_string();
        assert_eq!(wrong.matches("sha256/").count(), 9);
        assert!(wrong.len() < 600, "{} octets", wrong.len());
    }

    #[track_caller]
    fn assert_refused(connector: &mut Connector, server: &Arc<ServerConfig>, error: &str) {
        let failure = Link::refused(connector, server);
        assert_eq!((failure.stage, &*failure.detail), (Stage::Certificate, error));
    }

    fn connector(authorities: &[&Authority], name: Option<&str>, pins: &[Pin]) -> Connector {
        let server = [Identity { name, pins, sni: true }].into_iter();
        Authority::connectors_of(authorities, server).pop().unwrap()
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn pin_of(key: &KeyPair) -> Pin {
        pin(&key.subject_public_key_info().into())
    }

    /// A certificate for [`NAME`].
    fn leaf(key: &KeyPair, issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.signed_by(key, issuer).unwrap().der().clone()
    }

    /// A server with tickets, so that sessions can be resumed; `key` need not be that of the certificate.
    fn server(
        version: &'static SupportedProtocolVersion,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
    ) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider::sign::any_supported_type(&key).unwrap();
        server_with(version, CertifiedKey::new(chain, key))
    }

    fn server_with(
        version: &'static SupportedProtocolVersion,
        certified: CertifiedKey,
    ) -> Arc<ServerConfig> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.ticketer = provider::Ticketer::new().unwrap();
        Arc::new(config)
    }

    /// An authority below another.
    struct Middle {
        params: CertificateParams,
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    impl Middle {
        fn new(name: &str, above: &Issuer<'static, KeyPair>) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, above).unwrap().der().clone();
            Self { params: params.clone(), issuer: Issuer::new(params, key), certificate }
        }

        /// The key and name of this one with another signature.
        fn signed_by(&self, above: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
            self.params.signed_by(self.issuer.key(), above).unwrap().der().clone()
        }
    }
}
