//! Upstreams to which no connection comes about, or only late: U5, U6, U14, U17, U21.

use std::net::SocketAddr;
use std::time::Duration;

use crate::forwarder::outcome::{Outcome, SLACK};
use crate::forwarder::stage::{self, Idle, NAME, Stage};
use crate::forwarder::subject::{Pins, Subject};
use crate::message::{self, A, QR};
use crate::server::{BlackHole, RefusedPort};
use crate::{Authority, DotServer, Greeting, Identity, Query, Setup};

/// After this long without a connection the next upstream is asked.
const NEXT: Duration = Duration::from_millis(1_500);

fn names(row: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("n{n}.{row}.example"))
}

pub fn never_speaks_tls(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::two(subject, |setup| setup.greeting(|_| Greeting::Mute))?;
    let mut asker = stage.asker();
    asker.ask_each(names("u5", 20));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_deadline();
    Ok(outcome)
}

pub fn never_speaks_tls_alone(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup.greeting(|_| Greeting::Mute))?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(250), names("u5", 12));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_failed();
    outcome.promise_deadline();
    Ok(outcome)
}

pub fn slow_handshake(subject: &dyn Subject) -> Result<Outcome, String> {
    const HANDSHAKE: Duration = Duration::from_secs(3);

    let stage = Stage::one(subject, |setup| setup.greeting(|_| Greeting::TlsAfter(HANDSHAKE)))?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(250), names("u6", 24));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    let later = asker.queries().iter().filter(|asked| asked.at > HANDSHAKE + SLACK);
    let failed = later.filter(|asked| !asked.is_answered()).count();
    outcome.promise(failed == 0, || format!("{failed} later ones failed"));
    outcome.promise_connections(&stage.servers[0], 1);
    Ok(outcome)
}

pub fn bad_certificates(subject: &dyn Subject) -> Result<Outcome, String> {
    type Bad = fn(&Authority) -> Identity;

    const BAD: [(&str, Bad); 7] = [
        ("expired", |ca| ca.expired(NAME)),
        ("not yet valid", |ca| ca.not_yet_valid(NAME)),
        ("wrong name", |ca| ca.identity("other.example")),
        ("common name only", |ca| ca.common_name_only(NAME)),
        ("self-signed", |_| Identity::self_signed(NAME)),
        ("unknown CA", |_| Authority::new().identity(NAME)),
        ("CA of the same name", |ca| Authority::named(ca.name()).identity(NAME)),
    ];

    let mut outcome = Outcome::default();
    for (what, identity) in BAD {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(identity(&authority)));
        let upstreams = [(server.address(), NAME)];
        let running = stage::run(subject, &authority, &upstreams, Idle::default())?;
        let mut asker = crate::forwarder::asker::Asker::new(running.address());
        asker.ask("secret.u14.example");
        outcome.count(&asker);
        promise_no_query(&mut outcome, what, &server);
        outcome.lines.extend(running.end());
    }
    outcome.promise_all_failed();
    outcome.promise_deadline();
    Ok(outcome)
}

/// With everything right but the key, once with and once without a name that counts.
pub fn wrong_keys(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for (what, alone) in [("name and pin", false), ("pin alone", true)] {
        let authority = Authority::new();
        let server = DotServer::start(stage::good(&authority, NAME));
        let upstreams = [(server.address(), NAME)];
        let pins = Pins { any_of: &[authority.identity(NAME).pin()], alone };
        let running = stage::run_pinned(subject, &authority, &upstreams, pins)?;
        let mut asker = crate::forwarder::asker::Asker::new(running.address());
        asker.ask("secret.u14.example");
        outcome.count(&asker);
        promise_no_query(&mut outcome, what, &server);
        outcome.lines.extend(running.end());
    }
    outcome.promise_all_failed();
    outcome.promise_deadline();
    Ok(outcome)
}

/// Counts the server, to which nothing came but handshakes.
fn promise_no_query(outcome: &mut Outcome, what: &str, server: &DotServer) {
    outcome.count_connections(server);
    let octets = server.log().application_octets();
    outcome.promise(octets == 0, || format!("{what}: {octets} octets of data sent"));
    let clear = |octet: Option<u8>| octet.is_some_and(|octet| octet != 22);
    let clear = server.log().connections.iter().any(|log| clear(log.first_octet));
    outcome.promise(!clear, || format!("{what}: clear text sent"));
}

pub fn black_hole(subject: &dyn Subject) -> Result<Outcome, String> {
    let hole = BlackHole::reserve()
        .ok_or("this kernel takes connections for which the backlog has no room")?;
    let stage = Stage::behind(subject, hole.address())?;
    let mut outcome = upstream_without_connection(&stage);
    outcome.promise_within(NEXT + SLACK);
    Ok(outcome)
}

pub fn refused(subject: &dyn Subject) -> Result<Outcome, String> {
    let port = RefusedPort::reserve();
    let stage = Stage::behind(subject, port.address())?;
    let mut outcome = upstream_without_connection(&stage);
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn unreachable(subject: &dyn Subject) -> Result<Outcome, String> {
    // The kernel knows no way to connect to a broadcast address.
    let nowhere = SocketAddr::from(([127, 255, 255, 255], 853));
    match std::net::TcpStream::connect_timeout(&nowhere, SLACK) {
        Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => {}
        result => return Err(format!("connecting to {nowhere} gives {result:?} here")),
    }
    let stage = Stage::behind(subject, nowhere)?;
    let mut outcome = upstream_without_connection(&stage);
    outcome.promise_within(SLACK);
    Ok(outcome)
}

/// Long enough that attempts to bring the first upstream back fall into it.
fn upstream_without_connection(stage: &Stage) -> Outcome {
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(200), names("u17", 40));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    let later = asker.queries().iter().filter(|asked| asked.at > NEXT + SLACK);
    let slowest = later.filter_map(crate::forwarder::asker::Asked::delay).max().unwrap_or_default();
    outcome.promise(slowest < SLACK, || format!("a later one took {slowest:.1?}"));
    outcome
}

pub fn cold_burst(subject: &dyn Subject) -> Result<Outcome, String> {
    /// Datagrams that every receive buffer takes; the rest goes over TCP.
    const UDP: usize = 200;
    const TCP: u16 = 300;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut tcp = [stage.tcp(), stage.tcp()];
    let mut asker = stage.asker();
    for name in names("udp.u21", UDP) {
        asker.send(&name);
    }
    for (n, client) in tcp.iter_mut().enumerate() {
        let queries = (0..TCP / 2).map(|id| {
            let name = format!("n{id}.tcp{n}.u21.example");
            message::framed(&Query::new(&name, A).id(id).bytes())
        });
        client.send_raw(&queries.collect::<Vec<_>>().concat());
    }
    asker.finish();
    let mut answered = 0;
    for client in &mut tcp {
        let responses = (0..TCP / 2).map_while(|_| client.try_receive().ok());
        let is_answer = |octets: &Vec<u8>| message::flags(octets) & (QR | 15) == QR;
        answered += responses.filter(is_answer).count();
    }
    let mut outcome = stage.outcome(&[&asker]);
    outcome.count_other(answered, 0, usize::from(TCP) - answered);
    outcome.promise_all_answered();
    outcome.promise_connections(&stage.servers[0], 1);
    Ok(outcome)
}
