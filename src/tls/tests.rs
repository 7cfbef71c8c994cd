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

type Change<'a> = &'a dyn Fn(&mut CertificateParams);

pub(super) const NAME: &str = "dns.example";
pub(super) const HYBRID: KeyExchange = KeyExchange::Hybrid;
pub(super) const LIMITS: TlsLimits =
    TlsLimits { output_max: 64 * 1024, handshake_max: 32 * 1024, tickets_max: 8 };
pub(super) const VERSIONS: [(&SupportedProtocolVersion, &str); 2] =
    [(&rustls::version::TLS12, "TLS 1.2"), (&rustls::version::TLS13, "TLS 1.3")];

#[test]
fn pieces_of_every_size_and_blocking_at_every_point() {
    let authority = Authority::new();
    let up: Vec<u8> = (0..LIMITS.output_max).map(|n| (n % 251) as u8).collect();
    let down: Vec<u8> = (0..LIMITS.output_max).map(|n| (n % 241) as u8).collect();
    for (version, words) in VERSIONS {
        let server = authority.server(version, |_| ());
        for (piece, choppy) in [(1, true), (2, false), (7, true), (1_000, true), (100_000, false)] {
            let stream = start(&mut authority.connector(NAME));
            let mut link = Link::new(stream, &server, piece, choppy);
            link.to_write = up.clone();
            link.answer.clone_from(&down);
            link.run();
            assert_eq!(link.failure, None);
            assert!(link.server_got == up, "{words}, pieces of {piece}");
            assert!(link.client_got == down, "{words}, pieces of {piece}");
            let handshake = link.client.handshake().unwrap();
            assert_eq!((handshake.version, handshake.resumed), (words, false));
        }
    }
}

#[test]
fn no_query_octet_is_taken_before_the_handshake_is_done() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, |_| ());
        let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 50, true);
        while link.client.is_handshaking() {
            assert_eq!(link.client.send(b"query"), 0);
            assert_eq!(link.client.handshake(), None);
            link.turn();
            assert_eq!(link.server_got, b"");
        }
        link.run();
        assert_eq!(link.client.send(b"query"), 5, "{words}");
    }
}

#[test]
fn nothing_is_taken_while_ciphertext_is_unsent_and_never_more_than_the_limit() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 4_096, false);
    link.run();
    let large = vec![0; LIMITS.output_max + 1];
    assert_eq!(link.client.send(&large), LIMITS.output_max);
    assert_eq!(link.client.send(b"more"), 0);

    let mut full = Wire { room: 100, ..Wire::new(60, false) };
    assert_eq!(link.client.flush(&mut full), Ok(false));
    assert_eq!(full.octets.len(), 100);
    assert_eq!(link.client.send(b"more"), 0);
    full.room = usize::MAX;
    assert_eq!(link.client.flush(&mut full), Ok(true));
    assert_eq!(link.client.send(b"more"), 4);
}

#[test]
fn a_read_stops_at_its_limit_and_says_so() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 512, false);
    link.run();
    link.server.writer().write_all(&[7; 10_000]).unwrap();
    link.server.write_tls(&mut link.to_client.octets).unwrap();
    let waiting = link.to_client.octets.len();

    let mut got = 0;
    let progress = link.client.receive(&mut link.to_client, 1_024, |octets| got += octets.len());
    assert_eq!(progress, Ok(Progress { closed: false, more: true }));
    assert_eq!(link.to_client.octets.len(), waiting - 1_024);
    let progress = link.client.receive(&mut link.to_client, 20_000, |octets| got += octets.len());
    assert_eq!(progress, Ok(Progress { closed: false, more: false }));
    assert_eq!(got, 10_000);
}

#[test]
fn octets_that_come_with_the_end_of_the_handshake_are_given_by_the_next_call() {
    let authority = Authority::new();
    // A TLS 1.3 server may write before the client has finished.
    let server = authority.server(&rustls::version::TLS13, |config| {
        config.send_half_rtt_data = true;
    });
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
    link.client.flush(&mut link.to_server).unwrap();
    link.serve();
    link.server.writer().write_all(b"early").unwrap();
    link.serve();

    let mut got = Vec::<u8>::new();
    let mut receive = |link: &mut Link| {
        link.client.receive(&mut link.to_client, 100_000, |octets| got.extend(octets)).unwrap()
    };
    assert!(receive(&mut link).more);
    assert!(!link.client.is_handshaking());
    assert!(!receive(&mut link).more);
    assert_eq!(got, b"early");
}

#[test]
fn the_server_sees_the_name_and_the_protocol() {
    let authority = Authority::new();
    for (version, _) in VERSIONS {
        let server = authority.server(version, |config| {
            config.alpn_protocols = vec![b"h2".to_vec(), b"dot".to_vec()];
        });
        for (name, sni) in [(NAME, Some(NAME)), ("192.0.2.1", None), ("2001:db8::1", None)] {
            let mut link = Link::new(start(&mut authority.connector(name)), &server, 999, false);
            link.run();
            assert_eq!(link.failure, None);
            assert_eq!(link.server.server_name(), sni);
            assert_eq!(link.server.alpn_protocol(), Some(&b"dot"[..]));
        }
    }
}

#[test]
fn the_client_hello_offers_only_new_versions_and_no_early_data() {
    let hello = hello_of(&mut start(&mut Authority::new().connector(NAME)));
    assert_eq!(extension(&hello, 43), Some(&[4, 3, 4, 3, 3][..]), "supported_versions");
    assert_eq!(extension(&hello, 42), None, "early_data");
}

#[test]
fn another_protocol_is_refused_by_either_side() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, |config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
        });
        let failure = Link::refused(&mut authority.connector(NAME), &server);
        assert_eq!(failure.stage, Stage::Negotiation, "{words}");
        assert_eq!(&*failure.detail, "the server does not speak DNS (ALPN \"dot\") on this port");
    }
    let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    let failure = told(&server_hello([3, 3], &alpn));
    assert_eq!(failure.stage, Stage::Negotiation);
    assert_eq!(&*failure.detail, "the server chose another protocol than DNS (ALPN \"dot\")");
}

#[test]
fn what_is_not_tls_or_too_old_is_refused() {
    let alert = |description: u8| vec![21, 3, 3, 0, 2, 2, description];
    for (octets, detail) in [
        (server_hello([3, 1], &[]), "the server offers no TLS 1.2 or 1.3"),
        (server_hello([3, 2], &[]), "the server offers no TLS 1.2 or 1.3"),
        (alert(70), "the server offers no TLS 1.2 or 1.3"),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "the server does not speak TLS on this port"),
        (b"HTTP/1.1 400 Bad Request".to_vec(), "the server does not speak TLS on this port"),
        (b"220 mail.example".to_vec(), "the server does not speak TLS on this port"),
        (b"\x00\x1dplain DNS".to_vec(), "the server does not speak TLS on this port"),
        (alert(40), "the server refused the handshake: handshake failure (alert)"),
        (alert(48), "the server refused the handshake: unknown CA (alert)"),
        (alert(112), "the server refused the handshake: unrecognised name (alert)"),
        (alert(0), "closed by the server during the handshake"),
        (
            Vec::new(),
            "closed by the server during the handshake; nothing answered the ClientHello: this may not \
             be a DNS-over-TLS port, or the network loses long packets (try --key-exchange classic)",
        ),
        (server_hello([3, 3], &[])[..30].to_vec(), "closed by the server during the handshake"),
    ] {
        let at = if detail.contains("offers no TLS") { Stage::Negotiation } else { Stage::Tls };
        let failure = told(&octets);
        assert_eq!((failure.stage, &*failure.detail), (at, detail));
    }
}

#[test]
fn a_handshake_is_bounded_in_octets_and_in_records() {
    let long = format!(
        "the server's handshake is longer than {} octets or {RECORDS_MAX} TLS records",
        LIMITS.handshake_max
    );
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        for (names, fits) in [(1_200, true), (1_500, false)] {
            let sans = (0..names).map(|n| format!("name-{n:09}.example")).chain([NAME.into()]);
            let params = CertificateParams::new(sans.collect::<Vec<_>>()).unwrap();
            let server = server(version, &params, &Signer::Issuer(&authority.issuer), |_| ());
            for piece in [1_000, 100_000] {
                let stream = start(&mut authority.connector(NAME));
                let mut link = Link::new(stream, &server, piece, false);
                link.run();
                let failure = link.failure.map(|failure| (failure.stage, failure.detail));
                let expected = (!fits).then(|| (Stage::Tls, long.as_str().into()));
                assert_eq!(failure, expected, "{words}, {names} names, pieces of {piece}");
            }
        }
    }
    // One message in records of an octet.
    let hello = server_hello([3, 3], &[&[0xfa, 0xfa, 0, 60][..], &[0; 60]].concat());
    let octets = hello[5..].iter().flat_map(|octet| [22, 3, 3, 0, 1, *octet]);
    let failure = told(&octets.take(6 * (RECORDS_MAX + 1)).collect::<Vec<_>>());
    assert_eq!((failure.stage, &*failure.detail), (Stage::Tls, &*long));
}

#[test]
fn what_comes_without_an_answer_is_bounded() {
    let authority = Authority::new();
    for (tickets, fits) in [(RECORDS_MAX, true), (RECORDS_MAX + 1, false)] {
        let server = authority.server(&rustls::version::TLS13, |config| {
            config.ticketer = ring::Ticketer::new().unwrap();
            config.send_tls13_tickets = tickets;
        });
        let stream = start(&mut authority.connector(NAME));
        let mut link = Link::new(stream, &server, 100_000, false);
        link.to_write = b"query".to_vec();
        link.run();
        let failure = link.failure.as_ref().map(|failure| failure.stage);
        assert_eq!(failure, (!fits).then_some(Stage::Read), "{tickets} tickets");
    }
    // Answers of any length in between are as many as they like to be.
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 700, false);
    link.answer = vec![7; 200_000];
    link.run();
    assert_eq!((link.failure, link.client_got.len()), (None, 200_000));
}

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
                "the certificate is self-signed or from an unknown issuer; one that leads to the \
             test root was expected",
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
                "the certificate is self-signed or from an unknown issuer; one that leads to the \
             test root was expected",
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

#[test]
fn close_notify_ends_the_stream_after_what_came_before() {
    let authority = Authority::new();
    for (version, words) in VERSIONS {
        let server = authority.server(version, |_| ());
        for (piece, choppy) in [(1, true), (100_000, false)] {
            let stream = start(&mut authority.connector(NAME));
            let mut link = Link::new(stream, &server, piece, choppy);
            link.run();
            link.server.writer().write_all(b"before").unwrap();
            link.server.send_close_notify();
            link.serve();
            // rustls encrypts on after its close_notify; a record of its own is as good.
            link.to_client.octets.extend([23, 3, 3, 0, 20]);
            link.to_client.octets.extend([0; 20]);
            link.run();
            assert_eq!(link.failure, None);
            assert!(link.closed);
            assert_eq!(link.client_got, b"before", "{words}, pieces of {piece}");
        }
    }
}

#[test]
fn an_end_of_stream_without_close_notify_is_a_close() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 3, true);
    link.run();
    link.server.writer().write_all(b"whole").unwrap();
    link.serve();
    link.server.writer().write_all(b"cut").unwrap();
    link.serve();
    link.to_client.octets.pop_back();
    link.to_client.ended = true;
    link.run();
    assert_eq!((link.failure, link.closed), (None, true));
    assert_eq!(link.client_got, b"whole");
}

#[test]
fn what_was_decrypted_before_a_failure_is_delivered() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
    link.run();
    link.server.writer().write_all(b"good").unwrap();
    link.serve();
    link.server.writer().write_all(b"damaged").unwrap();
    link.serve();
    *link.to_client.octets.back_mut().unwrap() ^= 1;
    link.run();
    assert_eq!(link.client_got, b"good");
    let failure = link.failure.unwrap();
    assert_eq!(failure.stage, Stage::Read);
    assert_eq!(&*failure.detail, "a record of the server could not be decrypted");
    assert_eq!(link.server_failure, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    assert_eq!(link.client.send(b"query"), 0);
}

#[test]
fn an_alert_after_the_handshake_is_named() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS12, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
    link.run();
    // A damaged record of ours makes the server send one.
    assert_eq!(link.client.send(b"query"), 5);
    link.client.flush(&mut link.to_server).unwrap();
    *link.to_server.octets.back_mut().unwrap() ^= 1;
    link.run();
    let failure = link.failure.unwrap();
    assert_eq!(failure.stage, Stage::Read);
    assert_eq!(&*failure.detail, "the server closed with an alert: bad record mac");
}

#[test]
fn the_last_alert_and_close_notify_are_flushed_by_close() {
    let authority = Authority::new();
    let stranger = Authority::named("stranger");
    for (version, words) in VERSIONS {
        let server = stranger.server(version, |_| ());
        let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
        link.run();
        let alert = Some(Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(link.server_failure, alert, "{words}");

        let server = authority.server(version, |_| ());
        let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
        link.run();
        link.client.close(&mut link.to_server);
        link.serve();
        assert!(link.server_closed, "{words}");
    }
}

#[test]
fn close_waits_for_nothing_and_minds_no_error() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
    link.run();
    assert_eq!(link.client.send(&[0; 1_000]), 1_000);
    let mut full = Wire { room: 10, ..Wire::new(10, false) };
    link.client.close(&mut full);
    assert_eq!(full.octets.len(), 10);
    link.client.close(&mut Broken(io::ErrorKind::BrokenPipe));
}

#[test]
fn errors_of_the_socket_are_told_in_words() {
    let authority = Authority::new();
    let server = authority.server(&rustls::version::TLS13, |_| ());
    let mut broken = Broken(io::ErrorKind::ConnectionReset);
    let mut stream = start(&mut authority.connector(NAME));
    for failure in [
        stream.flush(&mut broken).unwrap_err(),
        stream.receive(&mut broken, 4_096, |_| ()).unwrap_err(),
    ] {
        assert_eq!(failure.stage, Stage::Tls);
        let (what, advice) = failure.detail.split_once("; ").unwrap();
        assert_eq!(what, "connection reset by peer during the handshake");
        assert!(advice.contains("--key-exchange classic"), "{advice}");
    }

    let mut link = Link::new(start(&mut authority.connector(NAME)), &server, 100_000, false);
    link.run();
    let failure = link.client.receive(&mut broken, 4_096, |_| ()).unwrap_err();
    assert_eq!(failure, Failure::new(Stage::Read, "connection reset by peer"));
    assert_eq!(link.client.send(b"query"), 5);
    let failure = link.client.flush(&mut broken).unwrap_err();
    assert_eq!(failure, Failure::new(Stage::Write, "connection reset by peer"));
}

#[test]
fn roots_come_from_a_file() {
    let authority = Authority::new();
    // What else stands in such files does no harm.
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let pem = [&*authority.pem, "Issuer: CERTIFICATE\n", request, &key, &authority.pem].concat();
    let file = TempFile::new("good.pem", pem.as_bytes());
    let mut connector = connectors(&roots_in(&file.0), [named(NAME)].into_iter(), HYBRID, LIMITS)
        .unwrap()
        .pop()
        .unwrap();
    let trust = format!("the 2 roots in {}", file.0.display());
    assert_eq!(connector.roots.as_deref(), Some(&*trust));
    let server = authority.server(&rustls::version::TLS13, |_| ());
    Link::established(&mut connector, &server);

    let both = Files { builtin_roots: true, ..roots_in(&file.0) };
    let other = TempFile::new("other.pem", Authority::new().pem.as_bytes());
    let several = Files { roots: vec![file.0.clone(), other.0.clone()], ..Files::default() };
    let built_in =
        format!("{trust} or the {} built-in roots", webpki_roots::TLS_SERVER_ROOTS.len());
    for (files, trust) in
        [(both, built_in), (several, format!("{trust} or the root in {}", other.0.display()))]
    {
        let mut connector =
            connectors(&files, [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap().remove(0);
        assert_eq!(connector.roots.as_deref(), Some(&*trust));
        Link::established(&mut connector, &server);
    }

    let server = Authority::named("stranger").server(&rustls::version::TLS13, |_| ());
    let failure = Link::refused(&mut connector, &server);
    assert!(failure.detail.contains(&*file.0.to_string_lossy()), "{failure:?}");
}

#[test]
fn a_bad_file_of_roots_is_named_with_what_is_wrong() {
    let good = Authority::new().pem;
    let key = KeyPair::generate().unwrap().serialize_pem();
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let passed_over = |how_many| {
        format!(
            "{how_many} certificates cannot be read; each is expected between lines of its \
             own, \"-----BEGIN CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"; openssl x509 \
             -in FILE writes one so"
        )
    };
    for (content, error) in [
        (String::new(), "is empty; something in PEM form was expected"),
        (
            key,
            "holds \"-----BEGIN PRIVATE KEY-----\"; a certificate in PEM form, \
             \"-----BEGIN CERTIFICATE-----\", was expected",
        ),
        (good.replace("-----END", "====="), "certificate 1 is damaged: its END line is missing"),
        (
            good.clone() + &good.replacen('M', "!", 1),
            "certificate 2 is damaged: it is not valid base64",
        ),
        (good.clone() + der, "certificate 2 is damaged: it is not an X.509 certificate"),
        (good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), &passed_over("1 of 1")),
        (good.clone() + &good.replace("CERTIFICATE", "X509 CERTIFICATE"), &passed_over("1 of 2")),
        // Files put together whose last lines do not end.
        (good.trim_end().repeat(3), &passed_over("2 of 3")),
        (format!("{good}  {good}"), &passed_over("1 of 2")),
        (format!("\u{feff}{good}{good}"), &passed_over("1 of 2")),
    ] {
        let file = TempFile::new("bad.pem", content.as_bytes());
        let expected = format!("--ca-file {}: {error}", file.0.display());
        let error =
            connectors(&roots_in(&file.0), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap_err();
        assert_eq!(error, expected);
    }
    let gone = Path::new("/nonexistent/roots.pem");
    assert_eq!(
        connectors(&roots_in(gone), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap_err(),
        "--ca-file /nonexistent/roots.pem: cannot be read: no such file or directory"
    );
    assert_eq!(
        connectors(&roots_in(Path::new("/")), [named(NAME)].into_iter(), HYBRID, LIMITS)
            .unwrap_err(),
        "--ca-file /: cannot be read: is a directory; one file was expected: `cat` puts several into one, and \
         Docker makes a directory where the file to be mounted is not there"
    );
}

#[test]
fn the_built_in_roots_trust_none_of_ours() {
    let mut built_in =
        connectors(&Files::default(), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap();
    let server = Authority::new().server(&rustls::version::TLS13, |_| ());
    let failure = Link::refused(&mut built_in[0], &server);
    assert_eq!(failure.stage, Stage::Certificate);
    assert!(failure.detail.contains("built-in roots"), "{failure:?}");
    assert_eq!(
        connectors(&Files::default(), [named("not a name")].into_iter(), HYBRID, LIMITS)
            .unwrap_err(),
        "\"not a name\" is not a DNS name or an IP address"
    );
}

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

/// A client and a server, and the two directions between them.
pub(super) struct Link {
    pub(super) client: TlsStream,
    server: ServerConnection,
    pub(super) to_server: Wire,
    to_client: Wire,
    /// What the client is to send.
    pub(super) to_write: Vec<u8>,
    /// What the server is to send when the handshake is done.
    answer: Vec<u8>,
    client_got: Vec<u8>,
    server_got: Vec<u8>,
    closed: bool,
    server_closed: bool,
    pub(super) failure: Option<Failure>,
    server_failure: Option<Error>,
}

impl Link {
    pub(super) fn new(
        client: TlsStream,
        server: &Arc<ServerConfig>,
        piece: usize,
        choppy: bool,
    ) -> Self {
        Self {
            client,
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
            to_server: Wire::new(piece, choppy),
            to_client: Wire::new(piece, choppy),
            to_write: Vec::new(),
            answer: Vec::new(),
            client_got: Vec::new(),
            server_got: Vec::new(),
            closed: false,
            server_closed: false,
            failure: None,
            server_failure: None,
        }
    }

    /// A connection over which a query goes.
    pub(super) fn established(connector: &mut Connector, server: &Arc<ServerConfig>) -> Handshake {
        Self::established_at(Instant::now(), connector, server)
    }

    pub(super) fn established_at(
        now: Instant,
        connector: &mut Connector,
        server: &Arc<ServerConfig>,
    ) -> Handshake {
        let stream = connector.start(now).unwrap();
        Self::finished_at(now, connector, stream, server).client.handshake().unwrap()
    }

    pub(super) fn finished_at(
        now: Instant,
        connector: &mut Connector,
        stream: TlsStream,
        server: &Arc<ServerConfig>,
    ) -> Self {
        let mut link = Self::new(stream, server, 100_000, false);
        link.to_write = b"query".to_vec();
        while link.client.is_handshaking() {
            link.turn();
            assert_eq!(link.failure, None);
        }
        connector.handle_connected(now, &link.client);
        link.run();
        assert_eq!(link.failure, None);
        assert_eq!(link.server_got, b"query");
        link
    }

    /// The reason why a connection with a query to send failed before the server saw any of it.
    pub(super) fn refused(connector: &mut Connector, server: &Arc<ServerConfig>) -> Failure {
        let mut link = Self::new(start(connector), server, 100, true);
        link.to_write = b"query".to_vec();
        link.run();
        assert_eq!(link.client.send(b"query"), 0);
        assert_eq!(link.server_got, b"");
        assert_eq!(link.client.handshake(), None);
        link.failure.expect("the server was accepted")
    }

    /// Runs until nothing moves any more.
    pub(super) fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 8 {
            let before = (self.to_server.moved, self.to_client.moved);
            self.turn();
            let moved = before != (self.to_server.moved, self.to_client.moved);
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    pub(super) fn turn(&mut self) {
        if self.failure.is_some() || self.closed {
            return;
        }
        let taken = self.client.send(&self.to_write);
        self.to_write.drain(..taken);
        self.client.flush(&mut self.to_server).unwrap();
        self.serve();
        let (got, handshaking) = (&mut self.client_got, self.client.is_handshaking());
        let result = self.client.receive(&mut self.to_client, 8_192, |octets| {
            assert!(!handshaking);
            got.extend(octets);
        });
        match result {
            Ok(progress) => self.closed = progress.closed,
            Err(failure) => {
                self.failure = Some(failure);
                self.to_server.choppy = false;
                self.client.close(&mut self.to_server);
                self.serve();
            }
        }
    }

    fn serve(&mut self) {
        while self.server_failure.is_none() && !self.to_server.octets.is_empty() {
            self.server.read_tls(&mut self.to_server.octets).unwrap();
            match self.server.process_new_packets() {
                Ok(state) => self.server_closed |= state.peer_has_closed(),
                Err(error) => self.server_failure = Some(error),
            }
            let mut got = vec![0; 20_000];
            while let Ok(len @ 1..) = self.server.reader().read(&mut got) {
                self.server_got.extend(&got[..len]);
            }
        }
        if !self.server.is_handshaking() && self.server_failure.is_none() {
            let taken = self.server.writer().write(&self.answer).unwrap();
            self.answer.drain(..taken);
        }
        while self.server.wants_write() {
            self.server.write_tls(&mut self.to_client.octets).unwrap();
        }
    }
}

/// One direction of a connection, which moves `piece` octets at a time at most. A choppy one is
/// interrupted, then blocks, before each piece.
pub(super) struct Wire {
    pub(super) octets: VecDeque<u8>,
    room: usize,
    piece: usize,
    choppy: bool,
    ended: bool,
    calls: usize,
    moved: usize,
}

impl Wire {
    fn new(piece: usize, choppy: bool) -> Self {
        let octets = VecDeque::new();
        Self { octets, room: usize::MAX, piece, choppy, ended: false, calls: 0, moved: 0 }
    }

    fn disturb(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.calls % 3 {
            1 if self.choppy => Err(io::ErrorKind::Interrupted.into()),
            2 if self.choppy => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.disturb()?;
        let len = to.len().min(self.piece).min(self.octets.len());
        if len == 0 && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.moved += len;
        self.octets.read(&mut to[..len])
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.disturb()?;
        let len = from.len().min(self.piece).min(self.room);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= len;
        self.moved += len;
        self.octets.write(&from[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken(io::ErrorKind);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
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

/// What the client makes of a server that says this and closes.
fn told(octets: &[u8]) -> Failure {
    let [in_pieces, at_once] = [1, 100_000].map(|piece| {
        let mut wire = Wire { ended: true, ..Wire::new(piece, false) };
        wire.octets.extend(octets);
        let mut stream = start(&mut Authority::new().connector(NAME));
        stream.receive(&mut wire, 100_000, |_| unreachable!()).unwrap_err()
    });
    assert_eq!(in_pieces, at_once);
    at_once
}

fn server_hello(version: [u8; 2], extensions: &[u8]) -> Vec<u8> {
    let mut hello = version.to_vec();
    hello.extend([9; 32]); // random
    hello.push(0); // no session ID
    hello.extend([0xc0, 0x2f, 0]); // ECDHE-RSA with AES-128-GCM, no compression
    if !extensions.is_empty() {
        hello.extend([0, extensions.len() as u8]);
        hello.extend(extensions);
    }
    let len = hello.len() as u8;
    [&[22, version[0], version[1], 0, len + 4, 2, 0, 0, len][..], &hello].concat()
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
