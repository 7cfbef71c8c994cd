//! Upstreams that are known by pins of their keys, besides or in place of their names.

use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use support::message::{A, NOERROR, SERVFAIL};
use support::skip::skip;
use support::{
    Act, Authority, DotServer, End, Identity, Proxy, Query, Received, Response, Setup, UdpClient,
};

const NAME: &str = "dot.example";

/// A proxy in front of the server, which it knows by this.
fn before(authority: &Authority, server: &DotServer, auth: &str) -> Proxy {
    let ca_file = authority.file().display().to_string();
    let upstream = format!("{}#{auth}", server.address());
    Proxy::start(&["--ca-file", &ca_file, "--upstream", &upstream])
}

fn ask(proxy: &Proxy, name: &str) -> Response {
    let query = Query::new(name, A).opt(1232).bytes();
    Response::read(&UdpClient::new(proxy.address()).ask(&query))
}

/// No query reached the server, and client and log are told what is wrong. Gives the line.
#[track_caller]
fn assert_refused(proxy: &Proxy, server: &DotServer, shown: &str, words: &[&str]) -> String {
    let response = ask(proxy, "secret.example");
    assert_eq!(response.rcode, SERVFAIL);
    let errors = response.opt.expect("OPT answers OPT").errors;
    let [(0, text)] = &errors[..] else { panic!("one EDE of code 0, not {errors:?}") };
    assert!(text.contains("certificate") && text.contains(words[0]), "{words:?}: {text}");

    let upstream = format!("{}#{shown}: ", server.address());
    let line = proxy.await_line("line about it", |line| line.contains("not usable"));
    for word in [&*upstream, "certificate"].iter().chain(words) {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    server.await_log("the end of the connection", |log| log.connections[0].tls_error.is_some());
    let log = server.log();
    assert_eq!(log.application_octets(), 0, "{log:#?}");
    assert!(log.connections.iter().all(|c| c.first_octet == Some(22)), "clear text");
    line
}

/// As it stands in the log.
fn shortened(pin: &str) -> String {
    format!("{}...", &pin[.."sha256/".len() + 12])
}

#[test]
fn name_and_pin_must_both_be_right() {
    static VERSIONS: [&[&SupportedProtocolVersion]; 2] =
        [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

    let authority = Authority::new();
    let wrong = Authority::new().pin();
    for versions in VERSIONS {
        for (name, pin_is_right) in
            [(NAME, true), (NAME, false), ("other.example", true), ("other.example", false)]
        {
            let identity = authority.identity(NAME);
            let right = identity.pin();
            let server = DotServer::start(Setup { versions, ..Setup::new(identity) });
            let pin = if pin_is_right { &right } else { &wrong };
            let proxy = before(&authority, &server, &format!("{name},{pin}"));
            if name == NAME && pin_is_right {
                assert_eq!(ask(&proxy, "a.example").rcode, NOERROR);
            } else if name == NAME {
                assert_refused(&proxy, &server, NAME, &[&right, &wrong]);
            } else {
                assert_refused(&proxy, &server, name, &["dot.example, not for other.example"]);
            }
            assert_eq!(server.log().connections[0].server_name.as_deref(), Some(name));
        }
    }
}

#[test]
fn backup_pins_and_pins_of_issuers_will_do() {
    let authority = Authority::new();
    let spare = Authority::new().pin();
    let identity = authority.identity(NAME);
    let pin = identity.pin();
    let server = DotServer::start(Setup::new(identity));
    for auth in [
        format!("{spare},{pin}"),
        format!("{spare},{NAME},{pin}"),
        format!("{},{NAME}", authority.pin()),
    ] {
        let proxy = before(&authority, &server, &auth);
        assert_eq!(ask(&proxy, "a.example").rcode, NOERROR, "{auth}");
    }
    let alone = before(&authority, &server, &authority.pin());
    assert_eq!(ask(&alone, "a.example").rcode, SERVFAIL, "it is not the server's key");
}

#[test]
fn pins_alone_ask_nothing_else_of_a_certificate() {
    let authority = Authority::new();
    for (what, identity) in [
        ("expired", authority.expired(NAME)),
        ("not yet valid", authority.not_yet_valid(NAME)),
        ("for another name", authority.identity("other.example")),
        ("without names", authority.common_name_only(NAME)),
        ("self-signed", Identity::self_signed(NAME)),
        ("of an unknown authority", Authority::new().identity(NAME)),
    ] {
        let pin = identity.pin();
        let server = DotServer::start(Setup::new(identity));
        let proxy = before(&authority, &server, &pin);
        assert_eq!(ask(&proxy, "a.example").rcode, NOERROR, "{what}");
        let log = server.log();
        assert_eq!(log.connections[0].server_name, None, "{what}");
        assert_eq!(log.connections[0].alpn_offered, [b"dot".to_vec()], "{what}");
    }
}

#[test]
fn another_key_gets_no_query_and_its_pin_can_be_copied_from_the_log() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(Identity::self_signed(NAME)));
    let expected = [Authority::new().pin(), Authority::new().pin()];
    let proxy = before(&authority, &server, &expected.join(","));
    let line = assert_refused(
        &proxy,
        &server,
        &shortened(&expected[0]),
        &["the server's key is sha256/", &format!("to be {} or {}", expected[0], expected[1])],
    );
    let (_, seen) = line.split_once("the server's key is ").expect("it was there");
    let (seen, _) = seen.split_once(';').expect("what was expected follows");
    let proxy = before(&authority, &server, seen);
    assert_eq!(ask(&proxy, "a.example").rcode, NOERROR);
}

#[test]
fn a_certificate_may_change_and_its_key_may_not() {
    let authority = Authority::new();
    let identity = authority.identity(NAME);
    let pin = identity.pin();
    for auth in [pin.clone(), format!("{NAME},{pin}")] {
        let setup = Setup::new(identity.clone())
            .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat());
        let server = DotServer::start(setup);
        let proxy = before(&authority, &server, &auth);
        assert_eq!(ask(&proxy, "first.example").rcode, NOERROR, "{auth}");

        // It knows its old tickets no more, so that the certificate counts again.
        server.replace_identity(authority.renewed(&identity, NAME));
        assert_eq!(ask(&proxy, "second.example").rcode, NOERROR, "{auth}");
        assert_eq!(server.log().handshakes().filter(|handshake| !handshake.resumed).count(), 2);

        server.replace_identity(authority.identity(NAME));
        assert_eq!(ask(&proxy, "third.example").rcode, SERVFAIL, "{auth}");
        assert_eq!(server.log().queries_for("third.example"), 0, "{auth}");
    }
}

#[test]
fn an_upstream_with_another_key_hands_its_queries_on() {
    let authority = Authority::new();
    let [first, second] = [0; 2].map(|_| authority.identity(NAME));
    let pins = [Authority::new().pin(), second.pin()];
    let servers = [first, second].map(|identity| DotServer::start(Setup::new(identity)));
    let ca_file = authority.file().display().to_string();
    let mut args = vec!["--ca-file".to_owned(), ca_file];
    for (server, pin) in servers.iter().zip(pins) {
        args.extend(["--upstream".to_owned(), format!("{}#{NAME},{pin}", server.address())]);
    }
    let proxy = Proxy::start(&args);
    for n in 0..5 {
        assert_eq!(ask(&proxy, &format!("n{n}.example")).rcode, NOERROR);
    }
    assert_eq!(servers[1].log().queries.len(), 5);
    assert_eq!(servers[0].log().application_octets(), 0);
}

#[test]
fn first_pins_tell_operators_apart() {
    fn late(query: &Received<'_>) -> Vec<Act> {
        match query.name.as_str() {
            "late.example" => vec![Act::After(Duration::from_millis(900), query.answer())],
            _ => query.answer(),
        }
    }

    let spare = Authority::new().pin();
    let [one, other] = [0; 2].map(|_| Identity::self_signed(NAME));
    // Copies of what is late go to other addresses of the same operator only.
    for (second, auth, is_copied) in [
        (&one, one.pin(), true),
        (&one, format!("{},{spare}", one.pin()), true),
        (&one, format!("{spare},{}", one.pin()), false),
        (&other, other.pin(), false),
        (&one, format!("{NAME},{}", one.pin()), false),
    ] {
        let first = DotServer::start(Setup::new(one.clone()).handler(late));
        let second = DotServer::start(Setup::new(second.clone()));
        let upstreams = [(&first, one.pin()), (&second, auth.clone())];
        let args = upstreams.map(|(server, auth)| {
            ["--upstream".to_owned(), format!("{}#{auth}", server.address())]
        });
        let proxy = Proxy::start(&args.concat());
        assert_eq!(ask(&proxy, "warm.example").rcode, NOERROR);
        assert_eq!(ask(&proxy, "late.example").rcode, NOERROR);
        let copies = second.log().queries_for("late.example");
        assert_eq!(copies, usize::from(is_copied), "{auth}");
    }
}

#[test]
fn openssl_gives_the_same_pins_for_keys_of_every_kind() {
    const TEST: &str = "openssl_gives_the_same_pins_for_keys_of_every_kind";
    const KINDS: [&[&str]; 4] = [
        &["rsa:2048"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["ed25519"],
    ];

    let authority = Authority::new();
    for kind in KINDS {
        // What a person makes who follows any guide: an authority of its own, for ever.
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-subj", "/CN=router", "-days", "36500"])
            .args(["-keyout", "-", "-out", "-", "-newkey"])
            .args(kind)
            .output();
        let pem = match output {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => return skip(TEST, &String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skip(TEST, &format!("cannot run openssl: {error}")),
        };
        let identity = Identity {
            certificate: CertificateDer::from_pem_slice(&pem).expect("a certificate"),
            key: PrivateKeyDer::from_pem_slice(&pem).expect("a key"),
        };
        let pin = match identity.pin_by_openssl() {
            Ok(pin) => pin,
            Err(reason) => return skip(TEST, &reason),
        };
        assert_eq!(pin, identity.pin(), "{kind:?}");
        let server = DotServer::start(Setup::new(identity.clone()));
        let proxy = before(&authority, &server, &pin);
        assert_eq!(ask(&proxy, "a.example").rcode, NOERROR, "{kind:?}");
        let server = DotServer::start(Setup::new(identity));
        let proxy = before(&authority, &server, &authority.pin());
        assert_refused(&proxy, &server, &shortened(&authority.pin()), &[&pin]);
    }
}
