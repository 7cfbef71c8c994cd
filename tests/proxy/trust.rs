//! No query leaves before the server's certificate is verified for the configured name.

use rustls::SupportedProtocolVersion;

use support::message::{A, NOERROR, SERVFAIL};
use support::{Authority, Bed, DotServer, Identity, Proxy, Query, Response, Setup, UdpClient};

/// Which certificate, how it is made, and what the log says of it.
type Case = (&'static str, fn(&Authority) -> Identity, &'static [&'static str]);

const BAD: [Case; 7] = [
    ("expired", |ca| ca.expired("dot.example"), &["expired on 2002-01-01", "clock says 20"]),
    (
        "not yet valid",
        |ca| ca.not_yet_valid("dot.example"),
        &["not valid before 2901-01-01", "clock says 20"],
    ),
    ("for another name", |ca| ca.identity("other.example"), &["other.example", "dot.example"]),
    (
        "for a name in its subject only",
        |ca| ca.common_name_only("dot.example"),
        &["common name", "dot.example"],
    ),
    ("self-signed", |_| Identity::self_signed("dot.example"), &["self-signed"]),
    (
        "of an unknown authority",
        |_| Authority::new().identity("dot.example"),
        &["unknown issuer", "your own CA: --ca-file FILE"],
    ),
    (
        "of an authority that claims the name of the trusted one",
        |ca| Authority::named(ca.name()).identity("dot.example"),
        &["signature", "key"],
    ),
];

#[test]
fn bad_certificates_get_no_query() {
    for (name, identity, words) in BAD {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(identity(&authority)));
        let proxy = Proxy::before(&authority, &[&server], &[]);
        let client = UdpClient::new(proxy.address());

        let query = Query::new("secret.example", A).opt(1232).bytes();
        let response = Response::read(&client.ask(&query));
        assert_eq!(response.rcode, SERVFAIL, "{name}");
        let errors = response.opt.expect("OPT answers OPT").errors;
        let [(code, text)] = &errors[..] else { panic!("{name}: one EDE, not {errors:?}") };
        assert_eq!(*code, 0, "{name}: {text}");
        assert!(text.contains("certificate"), "{name}: {text}");

        let upstream = format!("{}#dot.example", server.address());
        let line = proxy.await_line("line about it", |line| line.contains("not usable"));
        for word in [&upstream, "certificate"].into_iter().chain(words.iter().copied()) {
            assert!(line.contains(word), "{name}: {word:?} is not in {line:?}");
        }

        server.await_log("the end of the connection", |log| log.connections[0].tls_error.is_some());
        let log = server.log();
        assert_eq!(log.application_octets(), 0, "{name}: {log:#?}");
        assert!(log.connections.iter().all(|c| c.first_octet == Some(22)), "{name}: clear text");
    }
}

/// Without a name the certificate must have the address itself (RFC 8310 section 8.1).
#[test]
fn an_address_alone_is_the_name() {
    type Spec = fn(std::net::SocketAddr) -> String;
    let cases: [(&str, Spec, _); 4] = [
        ("127.0.0.1", |at| at.to_string(), NOERROR),
        ("127.0.0.1", |at| format!("{}@{}", at.ip(), at.port()), NOERROR),
        ("127.0.0.2", |at| at.to_string(), SERVFAIL),
        ("dot.example", |at| at.to_string(), SERVFAIL),
    ];
    for (name, spec, rcode) in cases {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity(name)));
        let ca_file = authority.file().display().to_string();
        let spec = spec(server.address());
        let proxy = Proxy::start(&["--ca-file", &ca_file, "--upstream", &spec]);
        let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, rcode, "{spec} with a certificate for {name}");
        let log = server.log();
        assert_eq!(log.connections[0].server_name, None, "no name is sent");
        if rcode == SERVFAIL {
            assert_eq!(log.application_octets(), 0);
            let start = format!("{}: not usable: certificate", server.address());
            proxy.await_line("line about it", |line| line.contains(&start) && line.contains(name));
        }
    }
}

#[test]
fn the_at_of_other_programs_stands_before_a_port() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let ca_file = authority.file().display().to_string();
    let spec = format!("{}@{}#dot.example", server.address().ip(), server.address().port());
    let proxy = Proxy::start(&["--ca-file", &ca_file, "--upstream", &spec]);
    let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
    assert_eq!(Response::read(&response).rcode, NOERROR);
}

#[test]
fn the_pin_of_a_certificate_that_a_server_signed_itself_can_be_copied_from_the_log() {
    for identity in [Identity::self_signed_ca("dot.example"), Identity::self_signed("dot.example")]
    {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(identity));
        let proxy = Proxy::before(&authority, &[&server], &[]);
        let client = UdpClient::new(proxy.address());
        let query = Query::new("secret.example", A).opt(1232).bytes();
        assert_eq!(Response::read(&client.ask(&query)).rcode, SERVFAIL);
        let line = proxy.await_line("line about it", |line| line.contains("not usable"));
        let (_, pin) = line.split_once("write #").expect("what to write");
        let (pin, _) = pin.split_once(' ').expect("what it stands for");

        let upstream = format!("{}#{pin}", server.address());
        let proxy = Proxy::start(&["--upstream", &upstream]);
        let response = UdpClient::new(proxy.address()).ask(&query);
        assert_eq!(Response::read(&response).rcode, NOERROR, "{line}");
    }
}

#[test]
fn a_server_that_wants_a_certificate_of_its_clients_is_told_of() {
    static VERSIONS: [&[&SupportedProtocolVersion]; 2] =
        [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

    for versions in VERSIONS {
        let bed = Bed::with(|setup| Setup { wants_client_certificate: true, versions, ..setup });
        let query = Query::new("secret.example", A).opt(1232).bytes();
        let response = Response::read(&bed.udp().ask(&query));
        assert_eq!(response.rcode, SERVFAIL);
        let errors = response.opt.expect("OPT answers OPT").errors;
        let [(_, text)] = &errors[..] else { panic!("one EDE, not {errors:?}") };
        let line = bed.proxy.await_line("line about it", |line| line.contains("not usable"));
        let upstream = format!("{}#dot.example", bed.server.address());
        for word in [&upstream, "certificate required", "asks its clients for certificates"] {
            assert!(line.contains(word), "{versions:?}: {word:?} is not in {line:?}");
            assert!(text.contains(word), "{versions:?}: {word:?} is not in {text:?}");
        }
        assert_eq!(bed.server.log().queries.len(), 0);
    }
}

#[test]
fn upstreams_that_are_no_dns_servers_at_several_addresses_look_like_interception() {
    let authority = Authority::new();
    let servers = [0, 1].map(|_| {
        let setup = Setup::new(authority.identity("dot.example"));
        DotServer::start(Setup { alpn: vec![b"h2".to_vec()], ..setup })
    });
    let proxy = Proxy::before(&authority, &[&servers[0], &servers[1]], &[]);
    let query = Query::new("secret.example", A).opt(1232).bytes();
    let response = Response::read(&UdpClient::new(proxy.address()).ask(&query));
    assert_eq!(response.rcode, SERVFAIL);
    let errors = response.opt.expect("OPT answers OPT").errors;
    assert!(errors[0].1.contains("may intercept TLS"), "{errors:?}");
    proxy.await_line("line about it", |line| {
        line.contains("not usable") && line.contains("something in between may intercept TLS")
    });
}

#[test]
fn upstream_with_a_bad_certificate_hands_its_queries_on() {
    let authority = Authority::new();
    let first = DotServer::start(Setup::new(authority.identity("other.example")));
    let second = DotServer::start(Setup::new(authority.identity("dot.example")));
    let proxy = Proxy::before(&authority, &[&first, &second], &[]);
    let client = UdpClient::new(proxy.address());
    for n in 0..5 {
        let response = client.ask(&Query::new(&format!("n{n}.example"), A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
    }
    assert_eq!(second.log().queries.len(), 5);
    assert_eq!(first.log().application_octets(), 0);
}

#[test]
fn server_of_another_protocol_is_refused() {
    let bed = Bed::with(|setup| Setup { alpn: vec![b"h2".to_vec()], ..setup });
    let response = bed.udp().ask(&Query::new("a.example", A).bytes());
    assert_eq!(Response::read(&response).rcode, SERVFAIL);
    bed.proxy.await_line("line about it", |line| {
        line.contains("not usable") && line.contains("TLS negotiation") && line.contains("ALPN")
    });
    assert_eq!(bed.server.log().application_octets(), 0);
}
