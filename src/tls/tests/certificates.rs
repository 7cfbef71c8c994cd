//! Certificates that are refused, and with what words.

use super::*;

/// What is wrong with a certificate, who signs it, how it comes to that, and what is said of it.
type BadCertificate<'a> = (&'a str, Signer<'a>, Change<'a>, &'a str);

/// Fails unless servers with these certificates are refused, and with these words.
fn assert_not_verified<const N: usize>(authority: &Authority, cases: [BadCertificate<'_>; N]) {
    for (case, signer, change, detail) in cases {
        for (version, words) in VERSIONS {
            let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
            change(&mut params);
            let server = server(version, &params, &signer, |_| ());
            let failure = Link::refused(&mut authority.connector(NAME), &server);
            assert_eq!(failure.stage, Stage::Certificate, "{case}, {words}");
            assert!(failure.detail.starts_with(detail), "{case}, {words}: {}", failure.detail);
        }
    }
}

#[test]
fn a_certificate_of_another_time_or_name_sees_no_query() {
    let authority = Authority::new();
    assert_not_verified(
        &authority,
        [
            (
                "expired",
                Signer::Issuer(&authority.issuer),
                &|params| params.not_after = date_time_ymd(2024, 2, 29),
                "the certificate expired on 2024-02-29 00:00:00 UTC, and the system clock says 20",
            ),
            (
                "not yet valid",
                Signer::Issuer(&authority.issuer),
                &|params| params.not_before = date_time_ymd(2999, 12, 31),
                "the certificate is not valid before 2999-12-31 00:00:00 UTC, and the system clock \
             says 20",
            ),
            (
                "wrong name",
                Signer::Issuer(&authority.issuer),
                &|params| {
                    let sans = ["one.example", "*.two.example", "192.0.2.7"];
                    *params = CertificateParams::new(sans.map(String::from)).unwrap();
                },
                "the certificate is for one.example, *.two.example, 192.0.2.7, not for dns.example",
            ),
            (
                "many wrong names",
                Signer::Issuer(&authority.issuer),
                &|params| {
                    let sans: Vec<_> = (0..9).map(|n| format!("n{n}.example")).collect();
                    *params = CertificateParams::new(sans).unwrap();
                },
                "the certificate is for n0.example, n1.example, n2.example, n3.example and 5 more, \
             not for dns.example",
            ),
            (
                "common name only",
                Signer::Issuer(&authority.issuer),
                &|params| {
                    params.subject_alt_names.clear();
                    params.distinguished_name.push(DnType::CommonName, NAME);
                },
                "the certificate has no subjectAltName, and the common name does not count; \
             dns.example was expected",
            ),
        ],
    );
}

#[test]
fn a_certificate_of_another_issuer_sees_no_query() {
    let authority = Authority::new();
    let stranger = Authority::named("stranger");
    let namesake = Authority::new();
    assert_not_verified(
        &authority,
        [
            (
                "unknown issuer",
                Signer::Issuer(&stranger.issuer),
                &|_| (),
                "the certificate was not issued by the test root; if its CA is your own, give that with --ca-file FILE, or \
             have the server send those in between",
            ),
            (
                "issuer of the same name",
                Signer::Issuer(&namesake.issuer),
                &|_| (),
                "a signature is wrong: the issuer has the name, but not the key, of the test root",
            ),
            (
                "self-signed",
                Signer::Itself,
                &|_| (),
                "the certificate was not issued by the test root; it is self-signed: write #",
            ),
            (
                "CA",
                Signer::Itself,
                &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
                "the certificate is that of a CA; one for a server was expected",
            ),
        ],
    );
}

#[test]
fn a_certificate_for_another_purpose_sees_no_query() {
    let authority = Authority::new();
    assert_not_verified(
        &authority,
        [
            (
                "not for servers",
                Signer::Issuer(&authority.issuer),
                &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
                "the certificate is not for a server; its extended key usage allows client \
             authentication",
            ),
            (
                "for anything",
                Signer::Issuer(&authority.issuer),
                &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
                "the certificate is not for a server; its extended key usage allows any \
             (anyExtendedKeyUsage), which does not count, and serverAuth was expected",
            ),
            (
                "for something else",
                Signer::Issuer(&authority.issuer),
                &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
                "the certificate is not for a server; its extended key usage allows \
             1.3.6.1.5.5.7.3.3",
            ),
            (
                "with an extension of its own",
                Signer::Issuer(&authority.issuer),
                &|params| {
                    let oid = [1, 3, 6, 1, 4, 1, 99];
                    let mut extension = CustomExtension::from_oid_content(&oid, vec![5, 0]);
                    extension.set_criticality(true);
                    params.custom_extensions.push(extension);
                },
                "the certificate, or one above it, has an extension that is marked critical and is \
             not understood here",
            ),
        ],
    );
}

#[test]
fn what_a_server_signed_for_itself_is_refused_with_its_pin() {
    let authority = Authority::new();
    // Certificates as `openssl req -x509` makes them, and as others do.
    for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
        for (version, words) in VERSIONS {
            let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
            params.is_ca = is_ca;
            let server = server(version, &params, &Signer::Itself, |_| ());
            let failure = Link::refused(&mut authority.connector(NAME), &server);
            let (_, rest) = failure.detail.split_once("self-signed: write #").unwrap();
            let pin = rest.split_once(" in place of the name").unwrap().0.parse().unwrap();
            let known = [Identity { name: None, pins: &[pin], sni: true }];
            let mut connectors = Authority::connectors_of(&[&authority], known.into_iter());
            Link::established(&mut connectors[0], &server);
            assert_eq!(failure.stage, Stage::Certificate, "{words}");
        }
    }
}

#[test]
fn a_server_is_told_its_name_unless_that_is_turned_off() {
    for sni in [true, false] {
        let server = Identity { sni, ..named(NAME) };
        let mut connectors =
            connectors(&Files::default(), [server].into_iter(), HYBRID, LIMITS).unwrap();
        let mut hello = Vec::new();
        start(&mut connectors[0]).flush(&mut hello).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).unwrap();
        let accepted = acceptor.accept().unwrap().expect("a whole ClientHello");
        assert_eq!(accepted.client_hello().server_name(), Some(NAME).filter(|_| sni));
    }
}

#[test]
fn an_address_must_be_among_the_alternative_names() {
    let authority = Authority::new();
    for (version, _) in VERSIONS {
        let server = authority.server(version, |_| ());
        Link::established(&mut authority.connector("192.0.2.1"), &server);
        Link::established(&mut authority.connector("2001:db8::1"), &server);
        let failure = Link::refused(&mut authority.connector("192.0.2.2"), &server);
        assert_eq!(failure.stage, Stage::Certificate);
        assert!(failure.detail.ends_with("2001:db8::1, not for 192.0.2.2"), "{failure:?}");
    }
}

#[test]
fn a_clock_that_was_never_set_is_named() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut connector = authority.connector(NAME);
    connector.config.time_provider = Arc::new(Time::from(75));
    let failure = Link::refused(&mut connector, &server);
    assert_eq!(failure.stage, Stage::Certificate);
    assert_eq!(
        &*failure.detail,
        "the certificate is not valid before 1975-01-01 00:00:00 UTC, \
         but the system clock is wrong: it says 1970-01-01 00:01:15 UTC; set it from an NTP server \
         known by its address, or give a pin in place of this server's name"
    );
}
