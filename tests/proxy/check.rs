//! `dot-proxy check`: what is found out about upstreams, and what is said of those that are not usable.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::process::assert_refuses;
use support::message::{A, KEEPALIVE, PADDING, REFUSED, SERVFAIL};
use support::server::BlackHole;
use support::skip::skip;
use support::{
    Act, Authority, DotServer, End, Greeting, Identity, Json, Received, RefusedPort, Setup,
    Tickets, answers, message, proxy,
};

const NAME: &str = "dot.example";

static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// An upstream as it is given.
fn at(address: SocketAddr, auth: &str) -> String {
    format!("{address}#{auth}")
}

/// The arguments for these upstreams, with the authority trusted.
fn flags(authority: &Authority, upstreams: &[String]) -> Vec<String> {
    let mut flags = vec!["--ca-file".to_owned(), authority.file().display().to_string()];
    for upstream in upstreams {
        flags.extend(["--upstream".to_owned(), upstream.clone()]);
    }
    flags
}

/// Exit code, standard output and standard error of a check.
#[track_caller]
fn check(flags: &[String], more: &[&str]) -> (Option<i32>, String, String) {
    let words = ["check"].into_iter().chain(flags.iter().map(String::as_str));
    proxy::run(&words.chain(more.iter().copied()).collect::<Vec<_>>())
}

/// What a check says in JSON.
#[track_caller]
fn checked(flags: &[String]) -> Json {
    let (code, stdout, stderr) = check(flags, &["--json"]);
    assert!(stdout.ends_with("}\n") && stdout.lines().count() == 1, "{stdout}");
    let all = Json::read(&stdout);
    let is_usable = all["usable"] == Json::Bool(true);
    assert_eq!((code, stderr.is_empty()), (Some(i32::from(!is_usable)), is_usable), "{stderr}");
    all
}

/// A check in words in which all is well.
#[track_caller]
fn assert_usable(flags: &[String], more: &[&str], words: &[&str]) -> String {
    let (code, stdout, stderr) = check(flags, more);
    assert_eq!((code, &*stderr), (Some(0), ""), "{flags:?}: {stdout}");
    assert_words(&stdout, words);
    stdout
}

/// A check in words in which nothing is well.
#[track_caller]
fn assert_unusable(flags: &[String], more: &[&str], words: &[&str]) -> String {
    let (code, stdout, stderr) = check(flags, more);
    assert_eq!(code, Some(1), "{flags:?}: {stdout}");
    assert!(stderr.starts_with("dot-proxy: 0 of ") && stderr.lines().count() == 1, "{stderr}");
    assert_words(&stdout, words);
    stdout
}

#[track_caller]
fn assert_words(stdout: &str, words: &[&str]) {
    for word in words {
        assert!(stdout.contains(word), "{word:?} is not in\n{stdout}");
    }
    let controls: Vec<_> = stdout.matches(|c: char| c.is_control() && c != '\n').collect();
    assert!(controls.is_empty(), "{controls:?} in\n{stdout}");
}

/// The usual answer with options besides.
fn with_options(query: &Received<'_>, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for (code, data) in options {
        rdata.extend(code.to_be_bytes());
        rdata.extend((data.len() as u16).to_be_bytes());
        rdata.extend(*data);
    }
    let mut answer = answers::answer(query.message).expect("a query");
    let len = answer.len() - 2;
    answer[len..].copy_from_slice(&(rdata.len() as u16).to_be_bytes());
    answer.extend(rdata);
    answer
}

/// A server that has all that an upstream may have.
fn excellent(authority: &Authority) -> DotServer {
    let setup = Setup::new(authority.identity(NAME)).handler(|query| match query.name.as_str() {
        "" => {
            let bare = with_options(query, &[(KEEPALIVE, &[0, 105]), (PADDING, &[])]).len();
            let padding = vec![0; 468 - bare];
            vec![Act::Send(with_options(query, &[(KEEPALIVE, &[0, 105]), (PADDING, &padding)]))]
        }
        // Longer than an answer takes, whatever the machine has to do meanwhile.
        _ => vec![Act::After(Duration::from_millis(300), query.answer())],
    });
    DotServer::start(setup)
}

#[test]
fn all_that_is_to_know_of_a_good_upstream_is_said() {
    let authority = Authority::new();
    let server = excellent(&authority);
    let upstream = at(server.address(), NAME);
    let flags = flags(&authority, std::slice::from_ref(&upstream));
    let names = ["TLS 1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768, ALPN dot, in "];
    let said = assert_usable(&flags, &[], &names);
    let pin = format!("--upstream {upstream},{}", server_pin(&said));
    for (label, text) in [
        ("connected", "in "),
        ("names", NAME),
        ("issuer", authority.name()),
        ("valid", "until "),
        ("pin", &pin),
        ("answers", "after "),
        ("resumption", "yes: an answer after "),
        ("keepalive", "10.5 s"),
        ("padding", "answers have 468 octets"),
        ("order", "answers overtake those that take longer"),
    ] {
        let line = format!("\n  {label:14}{text}");
        assert!(said.contains(&line), "{line:?} is not in\n{said}");
    }
    assert!(said.starts_with(&format!("{upstream}: usable\n")), "{said}");

    let all = checked(&flags);
    let [found] = all["upstreams"].array() else { panic!("one upstream: {all:?}") };
    let texts = [
        ("upstream", &*upstream),
        ("address", &server.address().to_string()),
        ("tls_version", "TLS 1.3"),
        ("cipher_suite", "TLS_AES_256_GCM_SHA384"),
        ("key_exchange", "X25519MLKEM768"),
        ("alpn", "dot"),
        ("issuer", authority.name()),
        ("pinned", pin.strip_prefix("--upstream ").expect("it is in front")),
    ];
    for (name, text) in texts {
        assert_eq!(found[name].text(), text, "{name}");
    }
    for (name, value) in [
        ("usable", Json::Bool(true)),
        ("verified", Json::Bool(true)),
        ("names", Json::Array(vec![Json::Text(NAME.to_owned())])),
        ("resumed", Json::Bool(true)),
        ("keepalive_s", Json::Number(10.5)),
        ("padded_octets", Json::Number(468.0)),
        ("out_of_order", Json::Bool(true)),
        ("failure", Json::Null),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    assert!(found["days_left"].number() > 300_000.0, "{found:?}");
    assert!(found["cold_ms"].number() >= found["connect_ms"].number(), "{found:?}");
    assert!(found["not_after"].text().ends_with('Z') && found["warm_ms"].number() > 0.0);
    assert_eq!(all["hints"], Json::Array(vec![]));
}

/// The first pin in what was said.
fn server_pin(said: &str) -> &str {
    let (_, rest) = said.split_once("sha256/").expect("a pin");
    let end = said.len() - rest.len() + 44;
    &said[end - 44 - "sha256/".len()..end]
}

#[test]
fn what_an_upstream_does_without_is_said() {
    let authority = Authority::new();
    let mut setup = Setup::new(authority.identity(NAME));
    setup.versions = TLS12;
    setup.alpn.clear();
    setup.tickets = Tickets::None;
    let mut held = Vec::new();
    // Answers in the order of the queries.
    let setup = setup.handler(move |query| match query.name.as_str() {
        "" if held.is_empty() => query.answer(),
        "" => {
            held.extend(query.answer());
            if held.len() < 3 {
                return Vec::new();
            }
            vec![Act::After(Duration::from_millis(400), std::mem::take(&mut held))]
        }
        _ => {
            held = query.answer();
            Vec::new()
        }
    });
    let server = DotServer::start(setup);
    let flags = flags(&authority, &[at(server.address(), NAME)]);
    let words = [
        "TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, X25519, no ALPN, in ",
        "no: it gave no ticket",
        "not said (RFC 7828)",
        "none: the length of answers tells",
        "answers wait for those that take longer",
    ];
    assert_usable(&flags, &[], &words);
    let all = checked(&flags);
    let found = &all["upstreams"].array()[0];
    assert_eq!(found["resumed"], Json::Bool(false));
    assert_eq!(found["out_of_order"], Json::Bool(false));
    for name in ["alpn", "keepalive_s", "padded_octets", "resumed_ms"] {
        assert_eq!(found[name], Json::Null, "{name}");
    }
}

#[test]
fn a_server_that_knows_no_edns_or_ends_every_connection_is_usable() {
    let authority = Authority::new();
    let without = Setup::new(authority.identity(NAME)).handler(|query| {
        let objects = answers::has_option(query.message, 0);
        vec![Act::Send(if objects {
            answers::objection(query.message, message::FORMERR, false)
        } else {
            answers::answer(query.message).expect("a query")
        })]
    });
    let brief = Setup::new(authority.identity(NAME))
        .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat());
    for (setup, words) in [
        (without, "order         not known: all"),
        (brief, "order         not known: the connection ended"),
    ] {
        let server = DotServer::start(setup);
        assert_usable(&flags(&authority, &[at(server.address(), NAME)]), &[], &[": usable", words]);
    }
}

#[test]
fn flags_of_a_run_are_taken_and_nothing_is_bound() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("127.0.0.1")));
    let file = std::env::temp_dir().join(format!("dot-proxy-check-{}.conf", std::process::id()));
    let ca_file = authority.file().display();
    fs::write(&file, format!("ca-file {ca_file}\nupstream {}\n", server.address()))
        .expect("a file");
    let path = file.display().to_string();
    // Nobody could bind these addresses.
    let serving = ["--listen", "192.0.2.1:53", "--metrics", "192.0.2.1:9153", "--size", "small"];
    let more =
        ["--sandbox", "require", "--query-log", "on", "--user", "root", "--log-format", "json"];
    let config = ["--config".to_owned(), path];
    let said =
        assert_usable(&config, &[&serving[..], &more].concat(), &["names         127.0.0.1"]);
    // Its name is its address.
    assert!(said.starts_with(&format!("{}: usable\n", server.address())), "{said}");
    fs::remove_file(file).expect("it was written");
    assert_refuses(&["check", "--ca-file", "/nowhere/x"], 2, &["--ca-file", "/nowhere/x"]);
    assert_refuses(&["check", "--upstream", "x"], 2, &["--upstream x"]);
}

#[test]
fn sni_and_client_certificates_are_as_in_a_run() {
    let authority = Authority::new();
    let mut setup = Setup::new(authority.identity(NAME));
    setup.clients = Some(authority.roots());
    let server = DotServer::start(setup);
    let flags = flags(&authority, &[at(server.address(), &format!("{NAME},sni=off"))]);
    let words = ["failed        read: ", "it wants a client certificate: give one"];
    assert_unusable(&flags, &[], &words);
    assert_eq!(server.log().connections[0].server_name, None);
    let file = std::env::temp_dir().join(format!("dot-proxy-check-{}.pem", std::process::id()));
    fs::write(&file, authority.client_pem()).expect("a file");
    let path = file.display().to_string();
    assert_usable(&flags, &["--client-cert", &path, "--client-key", &path], &["sni=off"]);
    fs::remove_file(file).expect("it was written");
}

/// What is expected of a check of a server with this certificate, which is not accepted.
#[track_caller]
fn assert_certificate(authority: &Authority, identity: &Identity, auth: &str, words: &[&str]) {
    let server = DotServer::start(Setup::new(identity.clone()));
    let flags = flags(authority, &[at(server.address(), auth)]);
    let pin = format!("pin           --upstream {}#{}", server.address(), identity.pin());
    let pin = [pin.as_str(), "a pin trusts whoever answered"];
    let said =
        assert_unusable(&flags, &[], &[&["failed        certificate: "], words, &pin].concat());
    assert_eq!(server.log().application_octets(), 0, "{said}");
    let all = checked(&flags);
    let found = &all["upstreams"].array()[0];
    assert_eq!(found["verified"], Json::Bool(false));
    assert_eq!(found["failure"]["stage"].text(), "certificate");
    assert_eq!(found["pins"].array()[0].text(), identity.pin());
    // It was shown, whatever else is wrong with it.
    let pinned = ["--upstream".to_owned(), found["pinned"].text().to_owned()];
    assert_usable(&pinned, &[], &["usable"]);
}

#[test]
fn a_certificate_that_is_not_accepted_is_shown_with_what_to_do() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let other = authority.identity("other.example");
    assert_certificate(
        &authority,
        &other,
        NAME,
        &[
            "the certificate is for other.example, not for dot.example",
            "if that is the server you mean, write --upstream 127.0.0.1:",
            "#other.example\n",
            "names         other.example\n",
        ],
    );
    let words =
        ["the certificate expired on 2002-01-01", "renew it, or set the clock", ": no more"];
    assert_certificate(&authority, &authority.expired(NAME), NAME, &words);
    let words =
        ["is not valid before 2901-01-01", "set the clock", "valid         from 2901-01-01"];
    assert_certificate(&authority, &authority.not_yet_valid(NAME), NAME, &words);
    let words = ["has no subjectAltName", "names         none"];
    assert_certificate(&authority, &authority.common_name_only(NAME), NAME, &words);
    let issuer = format!("issuer        {}", stranger.name());
    let words = [
        "the certificate was not issued by the root in ",
        "add the certificate of its CA",
        &issuer,
    ];
    assert_certificate(&authority, &stranger.identity(NAME), NAME, &words);
    let identity = Identity::self_signed(NAME);
    assert_certificate(&authority, &identity, NAME, &["self-signed"]);
    let words = ["the server's key is sha256/", "compare its pin with what its operator says"];
    assert_certificate(&authority, &identity, &stranger.pin(), &words);
}

#[test]
fn a_name_that_is_right_leads_to_a_check_that_succeeds() {
    let authority = Authority::new();
    for (name, right) in [("other.example", "other.example"), ("127.0.0.1", "127.0.0.1")] {
        let server = DotServer::start(Setup::new(authority.identity(name)));
        let said =
            assert_unusable(&flags(&authority, &[at(server.address(), NAME)]), &[], &[right]);
        let (_, rest) = said.split_once("you mean, write --upstream ").expect("what to write");
        let (upstream, _) = rest.split_once('\n').expect("the end of the line");
        assert_eq!(upstream, at(server.address(), right));
        assert_usable(&flags(&authority, &[upstream.to_owned()]), &[], &[]);
    }
}

#[test]
fn names_in_certificates_do_nothing_to_a_terminal() {
    let authority = Authority::named("evil\u{1b}]0;x\u{7}\u{9b}\"\\");
    let identity = authority.identity("\u{1b}[2J\r\n\"\\,");
    let words = ["names         \\u{1b}[2J\\r\\n\\\"\\\\,\n", "evil\\u{1b}]0;x\\u{7}\\u{9b}"];
    assert_certificate(&authority, &identity, NAME, &words);
    let long = authority.identity(&"x".repeat(9_000));
    assert_certificate(&authority, &long, NAME, &["names         xxx", "xxx...\n"]);
    assert_certificate(&authority, &authority.wordy_identity("x", 300), NAME, &[" and 297 more\n"]);
}

#[test]
fn what_is_no_dns_over_tls_server_is_told_apart() {
    let authority = Authority::new();
    let http = b"HTTP/1.1 400 Bad\x1bRequest\r\nServer: x\r\n\r\n".to_vec();
    let setup = || Setup::new(authority.identity(NAME));
    let web = setup().greeting({
        let http = http.clone();
        move |_| Greeting::Raw(http.clone())
    });
    let mut encrypted_web = setup().handler(move |_| vec![Act::Raw(http.clone())]);
    encrypted_web.alpn.clear();
    let mut other = setup();
    other.alpn = vec![b"h2".to_vec()];
    // An alert of TLS, which is no clear text.
    let silent = setup().greeting(|_| Greeting::Raw(vec![21, 3, 3, 0, 2, 2, 40]));
    let (_, stdout, _) = {
        let server = DotServer::start(silent);
        check(&flags(&authority, &[at(server.address(), NAME)]), &[])
    };
    assert!(stdout.contains("TLS handshake: ") && !stdout.contains("clear text"), "{stdout}");
    let cases: [(Setup, &[&str]); 7] = [
        (
            web,
            &[
                "TLS handshake: ",
                "it answers HTTP: HTTP/1.1 400 Bad\\u{1b}Request: ",
                "captive portal",
            ],
        ),
        (encrypted_web, &["read: the server speaks HTTP in TLS", "DNS over TLS is on port 853"]),
        (other, &["TLS negotiation: the server does not speak DNS (ALPN \"dot\")", "853"]),
        (
            setup().greeting(|_| Greeting::Raw(b"SSH-2.0-x\r\n".to_vec())),
            &["the server does not speak TLS on this port", "in clear text it says SSH-2.0-x: "],
        ),
        // An alert: protocol_version.
        (
            setup().greeting(|_| Greeting::Raw(vec![21, 3, 1, 0, 2, 2, 70])),
            &["TLS negotiation: the server offers no TLS 1.2 or 1.3", "operator has to update it"],
        ),
        (setup().greeting(|_| Greeting::Reset), &["TLS handshake: ", " during the handshake"]),
        (
            setup().handler(|_| vec![Act::End(End::Notify)]),
            &["read: closed by the server before it answered", "ask its operator"],
        ),
    ];
    for (setup, words) in cases {
        let server = DotServer::start(setup);
        assert_unusable(&flags(&authority, &[at(server.address(), NAME)]), &[], words);
    }
}

#[test]
fn answers_that_are_of_no_use_are_named() {
    type Bad = fn(&Received<'_>) -> Vec<Act>;

    let authority = Authority::new();
    let cases: [(Bad, &[&str]); 5] = [
        (
            |query| vec![Act::Send(answers::bare(query.message, REFUSED))],
            &["NOERROR was expected for . NS, and REFUSED came", "its operator has to allow it"],
        ),
        (
            |query| vec![Act::Send(with_ede(query, b"\0\x16out\x1b[0m"))],
            &["and SERVFAIL came (out\\u{1b}[0m)", "its own log"],
        ),
        (
            |query| {
                let mut other = answers::bare(query.message, SERVFAIL);
                other[0] ^= 0x80;
                vec![Act::Send(other); 100]
            },
            &["answers to what nobody asked"],
        ),
        (
            |query| {
                let mut answer = answers::answer(query.message).expect("a query");
                answer[2] &= 0x7f;
                vec![Act::Send(answer)]
            },
            &["it is not a response (QR is 0)"],
        ),
        (|query| vec![Act::Send(query.message[..2].to_vec())], &["it is shorter than a header"]),
    ];
    for (bad, words) in cases {
        let server = DotServer::start(Setup::new(authority.identity(NAME)).handler(bad));
        assert_unusable(&flags(&authority, &[at(server.address(), NAME)]), &[], words);
    }
}

/// SERVFAIL with this as the only option of code 15.
fn with_ede(query: &Received<'_>, data: &[u8]) -> Vec<u8> {
    let answer = answers::bare(query.message, SERVFAIL);
    answers::with_option(answer, message::EDE, data)
}

#[test]
fn each_upstream_is_told_of_and_one_that_fails_decides() {
    let authority = Authority::new();
    let good = DotServer::start(Setup::new(authority.identity(NAME)));
    let refused = RefusedPort::reserve();
    let upstreams = [at(refused.address(), NAME), at(good.address(), NAME)];
    let (code, stdout, stderr) = check(&flags(&authority, &upstreams), &[]);
    assert_eq!((code, &*stderr), (Some(1), "dot-proxy: 1 of 2 upstreams are usable\n"));
    let heads: Vec<_> = stdout.lines().filter(|line| line.contains("usable")).collect();
    assert_eq!(
        heads,
        [format!("{}: not usable", upstreams[0]), format!("{}: usable", upstreams[1])]
    );
    let words = ["connect: connection refused", "nothing listens on port "];
    assert_words(&stdout, &words);

    let all = checked(&flags(&authority, &upstreams));
    let [first, second] = all["upstreams"].array() else { panic!("two: {all:?}") };
    assert_eq!(first.keys(), second.keys(), "the same members");
    assert_eq!((&first["usable"], &second["usable"]), (&Json::Bool(false), &Json::Bool(true)));
    assert_eq!(first["failure"]["stage"].text(), "connect");
    // One operator alone has a fault of its own.
    assert_eq!(all["hints"], Json::Array(vec![]));
}

#[test]
fn operators_that_fail_alike_are_a_fault_of_the_network() {
    let authority = Authority::new();
    let portal =
        |_| Greeting::Raw(b"HTTP/1.0 302 Found\r\nLocation: http://login\r\n\r\n".to_vec());
    let portals =
        [0; 2].map(|_| DotServer::start(Setup::new(authority.identity(NAME)).greeting(portal)));
    let closed = [0; 2].map(|_| RefusedPort::reserve());
    let expired = [0; 2].map(|_| DotServer::start(Setup::new(authority.expired(NAME))));
    let good = DotServer::start(Setup::new(authority.identity(NAME)));
    let address = DotServer::address;
    for (addresses, hint) in [
        (
            portals.each_ref().map(address),
            Some("2 operators fail alike: something in this network"),
        ),
        (closed.each_ref().map(RefusedPort::address), Some("2 operators cannot be connected to")),
        (expired.each_ref().map(address), Some("certificates of 2 operators are not valid")),
        ([portals[0].address(), closed[0].address()], None),
    ] {
        let upstreams = [at(addresses[0], NAME), at(addresses[1], "other.example")];
        let all = checked(&flags(&authority, &upstreams));
        let hints: Vec<_> = all["hints"].array().iter().map(Json::text).collect();
        assert_eq!(hints.len(), usize::from(hint.is_some()), "{hints:?}");
        assert!(hint.is_none_or(|hint| hints[0].contains(hint)), "{hints:?}");
        // Of one of them another address works.
        let upstreams = [&upstreams[..], &[at(good.address(), NAME)]].concat();
        assert_eq!(checked(&flags(&authority, &upstreams))["hints"], Json::Array(vec![]));
    }
}

/// A server of another kind, which does this with everybody.
fn serving(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // Both end with the process.
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(tcp));
        }
    });
    address
}

#[test]
fn whatever_a_server_does_the_end_comes() {
    const LIMIT: Duration = Duration::from_secs(25);

    let authority = Authority::new();
    let mute = DotServer::start(Setup::new(authority.identity(NAME)).greeting(|_| Greeting::Mute));
    let silent = DotServer::start(Setup::new(authority.identity(NAME)).handler(|_| Vec::new()));
    let drips = serving(|mut tcp| {
        let mut octets = [22, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(0));
        while octets.next().is_some_and(|octet| tcp.write_all(&[octet]).is_ok()) {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let gushes = serving(|mut tcp| {
        let mut read = tcp.try_clone().expect("a socket");
        std::thread::spawn(move || while read.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
        while tcp.write_all(&[22, 3, 3, 0, 4, 2, 0xff, 0xff, 0xff].repeat(1000)).is_ok() {}
    });
    let endless = DotServer::start(
        Setup::new(authority.identity(NAME)).handler(|_| vec![Act::Raw(vec![0xff; 4_000_000])]),
    );
    let hole = BlackHole::reserve();
    if hole.is_none() {
        skip("whatever_a_server_does_the_end_comes", "connections into a full backlog are taken");
    }
    let mut cases = vec![
        (mute.address(), "TLS handshake: timed out; nothing answered the ClientHello"),
        (silent.address(), "read: no answer in 4.5 s"),
        (drips, "TLS handshake: timed out"),
        (gushes, "TLS handshake: "),
        (endless.address(), "read: "),
    ];
    cases.extend(hole.iter().map(|hole| (hole.address(), "connect: timed out")));
    let upstreams: Vec<_> = cases.iter().map(|(address, _)| at(*address, NAME)).collect();
    let start = Instant::now();
    let (code, stdout, _) = check(&flags(&authority, &upstreams), &[]);
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    assert_eq!(code, Some(1));
    for ((_, words), upstream) in cases.iter().zip(&upstreams) {
        let head = format!("{upstream}: not usable\n  failed        {words}");
        assert!(stdout.contains(&head), "{head:?} is not in\n{stdout}");
        assert!(stdout.len() < 10_000, "{stdout}");
    }
    assert!(hole.is_none() || stdout.contains("a firewall drops TCP to port "), "{stdout}");
}

/// The query of a client gets no answer in this test: nobody listens, so nothing reaches the upstream but what
/// `check` asks.
#[test]
fn what_is_asked_is_what_a_run_would_ask() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity(NAME)));
    assert_usable(&flags(&authority, &[at(server.address(), NAME)]), &["--ecs", "strip"], &[]);
    let log = server.log();
    assert_eq!(log.connections.len(), 2);
    let names: Vec<_> =
        log.queries.iter().filter_map(|(_, query)| message::question(query)).collect();
    let roots = names.iter().filter(|(name, qtype, _)| name.is_empty() && *qtype == 2).count();
    let [unknown] = &names.iter().filter(|(name, ..)| !name.is_empty()).collect::<Vec<_>>()[..]
    else {
        panic!("{names:?}");
    };
    assert!(unknown.0.ends_with(".example.com") && unknown.1 == A, "{names:?}");
    assert_eq!((roots, names.len()), (5, 6), "{names:?}");
    for (_, query) in &log.queries {
        assert_eq!(query.len() % 128, 0, "padded");
        assert!(answers::has_option(query, PADDING), "{query:?}");
    }
    assert!(answers::has_option(&log.queries[0].1, KEEPALIVE));
}
