//! RFC 7858, 8310, 9325 and 8446: the TLS side. Statements 26, 27, 29, 31, 33 to 37 and 39 to 41.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use super::client::Client;
use super::hello::Hello;
use super::proxying::is_answer;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::{self, Idle, NAME, Stage};
use crate::forwarder::subject::{Pins, Subject, own_host};
use crate::message::A;
use crate::{Act, Authority, DotServer, End, Greeting, Identity, Query, Setup, Tickets};

/// The first octet of TLS.
const HANDSHAKE: u8 = 22;

/// A server that ends every connection behind its answer.
fn ending(setup: Setup) -> Setup {
    setup.handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat())
}

/// All that came to this server was TLS, and no data.
fn promise_no_query(outcome: &mut Outcome, what: &str, server: &DotServer) {
    let log = server.log();
    let octets = log.application_octets();
    outcome.promise(octets == 0, || format!("{what}: {octets} octets of data sent"));
    let clear = log.connections.iter().filter_map(|connection| connection.first_octet);
    let clear = clear.filter(|octet| *octet != HANDSHAKE).count();
    outcome.promise(clear == 0, || format!("{what}: {clear} connections in clear text"));
}

pub(super) fn hellos(server: &DotServer) -> Result<Vec<Hello>, String> {
    let log = server.log();
    let hellos = log.connections.iter().filter(|connection| !connection.hello.is_empty());
    let hellos: Option<Vec<_>> = hellos.map(|connection| Hello::read(&connection.hello)).collect();
    hellos.filter(|hellos| !hellos.is_empty()).ok_or_else(|| "no readable ClientHello".to_owned())
}

pub fn no_early_data(subject: &dyn Subject) -> Result<Outcome, String> {
    const EARLY_DATA: u16 = 42;

    let stage =
        Stage::one(subject, |setup| ending(Setup { tickets: Tickets::WithEarlyData, ..setup }))?;
    let mut asker = stage.asker();
    asker.ask_each((0..4).map(|n| format!("n{n}.s26.example")));
    let mut outcome = stage.outcome(&[&asker]);
    let early = hellos(&stage.servers[0])?
        .iter()
        .filter(|hello| hello.extension(EARLY_DATA).is_some())
        .count();
    outcome.promise(early == 0, || format!("early data in {early} connections"));
    Ok(outcome)
}

pub fn never_in_clear(subject: &dyn Subject) -> Result<Outcome, String> {
    type Change = fn(&Authority, Setup) -> Setup;

    const CASES: [(&str, Change); 4] = [
        ("not TLS", |_, setup| setup.greeting(|_| Greeting::Raw(b"\0\x0c no TLS here".to_vec()))),
        ("RST", |_, setup| setup.greeting(|_| Greeting::Reset)),
        ("a wrong certificate", |authority, setup| Setup {
            identity: authority.identity("other.example"),
            ..setup
        }),
        ("another protocol", |_, setup| Setup { alpn: vec![b"h2".to_vec()], ..setup }),
    ];
    const ANOTHER_PROTOCOL: usize = 3;

    let mut outcome = Outcome::default();
    for (case, (what, change)) in CASES.into_iter().enumerate() {
        let host = own_host();
        let authority = Authority::new();
        let setup = change(&authority, stage::good(&authority, NAME));
        let server = DotServer::start_on((host, 8853).into(), setup)
            .map_err(|error| format!("{host} has no port 8853: {error}"))?;
        // A forwarder that would fall back does so at one of these.
        let plain: SocketAddr = (host, 53).into();
        let tcp = TcpListener::bind(plain).ok();
        if let Some(tcp) = &tcp {
            tcp.set_nonblocking(true).expect("a socket");
        } else if outcome.notes.is_empty() {
            outcome.note("without port 53 of the upstream, which cannot be had here");
        }
        let udp = [53, 8853].map(|port| UdpSocket::bind((host, port)).ok());
        let upstreams = [(server.address(), NAME)];
        let running = stage::run(subject, &authority, &upstreams, Idle::default())?;
        let mut client = Client::of(running.address());
        let response = client.ask(&Query::new("secret.s27.example", A));
        if case != ANOTHER_PROTOCOL {
            let answered = is_answer(response.as_ref());
            outcome.promise(!answered, || format!("{what}: answered nevertheless"));
            promise_no_query(&mut outcome, what, &server);
        }
        for socket in udp.iter().flatten() {
            socket.set_nonblocking(true).expect("a socket");
            let quiet = socket.recv(&mut [0; 512]).is_err();
            outcome.promise(quiet, || format!("{what}: a datagram was sent to the upstream"));
        }
        let asked = tcp.is_some_and(|tcp| tcp.accept().is_ok());
        outcome.promise(!asked, || format!("{what}: port 53 of the upstream was connected to"));
    }
    Ok(outcome)
}

pub fn backoff(subject: &dyn Subject) -> Result<Outcome, String> {
    /// For 6 s.
    const QUERIES: usize = 180;
    /// Two a second: what is meant is one, after two or three that come sooner.
    const ATTEMPTS_MAX: usize = 12;

    let stage = Stage::one(subject, |setup| setup.greeting(|_| Greeting::Reset))?;
    let mut asker = stage.asker();
    let names = (0..QUERIES).map(|n| format!("n{n}.s29.example"));
    asker.ask_steadily(Duration::from_secs(6) / QUERIES as u32, names);
    let attempts = stage.servers[0].log().connections.len();
    let mut outcome = stage.outcome(&[]);
    outcome.promise(attempts <= ATTEMPTS_MAX, || {
        format!("{attempts} attempts to connect in 6 s, with {QUERIES} queries")
    });
    outcome.promise(attempts > 1, || "no second attempt to connect".to_owned());
    Ok(outcome)
}

pub fn resumption(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, ending)?;
    let mut asker = stage.asker();
    asker.ask_each((0..5).map(|n| format!("n{n}.s31.example")));
    let mut outcome = stage.outcome(&[&asker]);
    let log = stage.servers[0].log();
    let full = log.handshakes().filter(|handshake| !handshake.resumed).count();
    let all = log.handshakes().count();
    outcome.promise(all > 1 && full <= 1, || format!("{full} of {all} handshakes were full"));
    Ok(outcome)
}

pub fn strict(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, ending)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let response = client.ask(&Query::new("first.s33.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    // The server knows its old tickets no more, so that the certificate counts again.
    stage.servers[0].replace_identity(stage.authority.identity("other.example"));
    let before = stage.servers[0].log().application_octets();
    let response = client.ask(&Query::new("secret.s33.example", A));
    outcome.promise(!is_answer(response.as_ref()), || "answered without trust".to_owned());
    let log = stage.servers[0].log();
    let octets = log.application_octets() - before;
    outcome.promise(octets == 0, || format!("{octets} octets of data sent without trust"));
    let clear = log.connections.iter().any(|log| log.first_octet.is_some_and(|o| o != HANDSHAKE));
    outcome.promise(!clear, || "clear text was sent".to_owned());
    Ok(outcome)
}

/// Asks through a server that shows this certificate, and is known by this name.
fn promise_trust(
    outcome: &mut Outcome,
    subject: &dyn Subject,
    what: &str,
    (authority, identity, name): (&Authority, Identity, &str),
    is_good: bool,
) -> Result<(), String> {
    let server = DotServer::start(stage::good(authority, NAME));
    // No connection has been made yet.
    server.replace_identity(identity);
    let running = stage::run(subject, authority, &[(server.address(), name)], Idle::default())?;
    let response = Client::of(running.address()).ask(&Query::new("secret.trust.example", A));
    let answered = is_answer(response.as_ref());
    if is_good {
        outcome.promise(answered, || format!("{what}: refused"));
    } else {
        outcome.promise(!answered, || format!("{what}: answered"));
        promise_no_query(outcome, what, &server);
    }
    Ok(())
}

pub fn unauthenticated(subject: &dyn Subject) -> Result<Outcome, String> {
    type Bad = fn(&Authority) -> Identity;

    const BAD: [(&str, Bad); 5] = [
        ("expired", |authority| authority.expired(NAME)),
        ("not yet valid", |authority| authority.not_yet_valid(NAME)),
        ("self-signed", |_| Identity::self_signed(NAME)),
        ("unknown CA", |_| Authority::new().identity(NAME)),
        ("wrong name", |authority| authority.identity("other.example")),
    ];

    let mut outcome = Outcome::default();
    for (what, identity) in BAD {
        let authority = Authority::new();
        let shown = (&authority, identity(&authority), NAME);
        promise_trust(&mut outcome, subject, what, shown, false)?;
    }
    Ok(outcome)
}

pub fn certificate_names(subject: &dyn Subject) -> Result<Outcome, String> {
    /// Name in the certificate, name of the upstream, whether they fit.
    const NAMES: [(&str, &str, bool); 5] = [
        ("*.dot.example", "a.dot.example", true),
        ("*.dot.example", "a.b.dot.example", false),
        ("*.dot.example", "dot.example", false),
        ("d*.example", "dot.example", false),
        ("DOT.Example", "dot.example", true),
    ];

    let mut outcome = Outcome::default();
    let authority = Authority::new();
    let shown = (&authority, authority.common_name_only(NAME), NAME);
    promise_trust(&mut outcome, subject, "the name in the subject only", shown, false)?;
    for (certified, name, is_good) in NAMES {
        let authority = Authority::new();
        let shown = (&authority, authority.identity(certified), name);
        let what = format!("a certificate for {certified} as {name}");
        promise_trust(&mut outcome, subject, &what, shown, is_good)?;
    }
    Ok(outcome)
}

/// Asks through a server that must have one of these keys, and gives what the forwarder wrote.
fn promise_pinned(
    outcome: &mut Outcome,
    subject: &dyn Subject,
    what: &str,
    (authority, identity, name): (&Authority, Identity, &str),
    pins: Pins<'_>,
    is_good: bool,
) -> Result<Vec<String>, String> {
    let server = DotServer::start(Setup { identity, ..stage::good(authority, NAME) });
    let running = stage::run_pinned(subject, authority, &[(server.address(), name)], pins)?;
    let response = Client::of(running.address()).ask(&Query::new("secret.pins.example", A));
    let answered = is_answer(response.as_ref());
    if is_good {
        outcome.promise(answered, || format!("{what}: refused"));
    } else {
        outcome.promise(!answered, || format!("{what}: answered"));
        promise_no_query(outcome, what, &server);
    }
    Ok(running.end())
}

pub fn name_and_pins(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for (what, name, pin_is_right) in [
        ("name and pin right", NAME, true),
        ("pin wrong", NAME, false),
        ("name wrong", "other.example", true),
        ("name and pin wrong", "other.example", false),
    ] {
        let authority = Authority::new();
        let identity = authority.identity(NAME);
        let pin = if pin_is_right { identity.pin() } else { authority.identity(NAME).pin() };
        let shown = (&authority, identity, name);
        let pins = Pins { any_of: &[pin], alone: false };
        let is_good = name == NAME && pin_is_right;
        promise_pinned(&mut outcome, subject, what, shown, pins, is_good)?;
    }
    Ok(outcome)
}

pub fn pins(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let authority = Authority::new();
    let identity = authority.identity(NAME);
    let right = identity.pin_by_openssl().unwrap_or_else(|reason| {
        outcome.note(format!("without the pin as openssl gives it: {reason}"));
        identity.pin()
    });
    let spare = authority.identity(NAME).pin();
    let own = Identity::self_signed(NAME);
    let own_pin = own.pin();
    for (what, identity, any_of, is_good) in [
        ("the right pin", &identity, &[right.clone()][..], true),
        ("a spare one in front", &identity, &[spare.clone(), right.clone()], true),
        ("a spare one behind", &identity, &[right, spare.clone()], true),
        ("its own issuer", &own, &[own_pin], true),
        ("another key", &identity, &[spare], false),
    ] {
        let shown = (&authority, identity.clone(), NAME);
        let pins = Pins { any_of, alone: true };
        let lines = promise_pinned(&mut outcome, subject, what, shown, pins, is_good)?;
        if !is_good {
            let is_told = |line: &String| {
                let line = line.to_lowercase();
                line.contains("pin") || line.contains("key")
            };
            let told = lines.iter().any(is_told);
            outcome.promise(told, || format!("{what}: not told"));
        }
    }
    Ok(outcome)
}

pub fn versions_and_suites(subject: &dyn Subject) -> Result<Outcome, String> {
    static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    /// What comes before TLS 1.2, and what only looks like a version (RFC 8701).
    const OLD: std::ops::Range<u16> = 0x0300..0x0303;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let response = client.ask(&Query::new("first.s39.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    let log = stage.servers[0].log();
    let version = log.handshakes().next().map(|handshake| handshake.version);
    let newest = version == Some(rustls::ProtocolVersion::TLSv1_3);
    outcome.promise(newest, || format!("{version:?} where 1.3 is to be had"));
    drop(log);
    for hello in hellos(&stage.servers[0])? {
        let old = hello.versions().is_none_or(|versions| versions.iter().any(|v| OLD.contains(v)));
        outcome.promise(!old, || format!("versions {:x?} offered", hello.versions()));
        outcome.promise(hello.compression == [0], || "compression offered".to_owned());
        let weak: Vec<_> = hello.suites.iter().filter(|suite| is_weak(**suite)).collect();
        outcome.promise(weak.is_empty(), || format!("weak cipher suites offered: {weak:04x?}"));
    }
    let stage = Stage::one(subject, |setup| Setup { versions: TLS12, ..setup })?;
    let response = Client::new(&stage).ask(&Query::new("second.s39.example", A));
    outcome.promise(is_answer(response.as_ref()), || "a server with TLS 1.2 is refused".to_owned());
    Ok(outcome)
}

/// Without encryption or authentication, with RC4, DES, 3DES or export keys (RFC 9325 section 4.1).
fn is_weak(suite: u16) -> bool {
    matches!(
        suite,
        0x0000..=0x001b
            | 0x002c..=0x002e
            | 0x0034
            | 0x003a..=0x003b
            | 0x0046
            | 0x006c..=0x006d
            | 0x0089
            | 0x008a..=0x008b
            | 0x008e..=0x008f
            | 0x0092..=0x0093
            | 0xc001..=0xc003
            | 0xc006..=0xc008
            | 0xc00b..=0xc00d
            | 0xc010..=0xc012
            | 0xc015..=0xc019
    )
}

pub fn name_and_protocol(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut outcome = Outcome::default();
    let response = Client::new(&stage).ask(&Query::new("first.s40.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    {
        let log = stage.servers[0].log();
        let seen = log.connections.iter().find(|connection| !connection.hello.is_empty());
        let seen = seen.ok_or("no ClientHello")?;
        let sni = seen.server_name.as_deref();
        outcome.promise(sni == Some(NAME), || format!("SNI {sni:?}"));
        let dot = seen.alpn_offered.iter().any(|protocol| protocol == b"dot");
        outcome.promise(dot, || "ALPN dot is not offered".to_owned());
    }
    let stage = Stage::one(subject, |setup| Setup { alpn: Vec::new(), ..setup })?;
    let response = Client::new(&stage).ask(&Query::new("second.s40.example", A));
    outcome.promise(is_answer(response.as_ref()), || "a server without ALPN is refused".to_owned());
    let stage = Stage::one(subject, |setup| Setup { alpn: vec![b"h2".to_vec()], ..setup })?;
    let response = Client::new(&stage).ask(&Query::new("third.s40.example", A));
    outcome.promise(!is_answer(response.as_ref()), || "answered by a server of h2".to_owned());
    Ok(outcome)
}

pub fn tickets(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, ending)?;
    let mut asker = stage.asker();
    asker.ask_each((0..5).map(|n| format!("n{n}.s41.example")));
    let mut outcome = stage.outcome(&[&asker]);
    let tickets: Vec<_> = hellos(&stage.servers[0])?.iter().filter_map(Hello::ticket).collect();
    if tickets.len() < 2 {
        return Err("it does not resume TLS 1.3 sessions".to_owned());
    }
    let different = tickets.iter().collect::<BTreeSet<_>>().len();
    let used = tickets.len();
    outcome.promise(different == used, || format!("{used} connections with {different} tickets"));
    Ok(outcome)
}
