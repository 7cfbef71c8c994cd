//! Upstreams that are known by pins of their keys, besides or in place of their names.

use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use support::message::{A, NOERROR, SERVFAIL};
use support::skip::skip;
use support::{
    Act, Authority, DotServer, Identity, Proxy, Query, Received, Response, Setup, UdpClient,
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

/// A pin as it stands in the log.
fn shortened(pin: &str) -> String {
    format!("{}...", &pin[.."sha256/".len() + 12])
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
