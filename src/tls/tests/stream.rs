//! Handshakes and streams, with servers that do them well and badly.

use super::link::Broken;
use super::*;

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
             be a DNS-over-TLS port, the server may hang, or the network loses long packets (try --key-exchange \
             classic)",
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
