//! EDNS, and what it carries. Statements 43 to 57.

use std::time::Duration;

use super::client::{Client, exchange_on};
use super::proxying::{is_answer, rcode, sent};
use crate::answers;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::{self, Idle, NAME, Stage};
use crate::forwarder::subject::Subject;
use crate::message::{self, A, AXFR, BADVERS, FORMERR, NOERROR, NOTIMP, RD, SERVFAIL, TC, TXT};
use crate::server::RefusedPort;
use crate::view::View;
use crate::{Act, Authority, End, Query, Received};

const ECS: u16 = 8;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
const EDE: u16 = 15;
const LOCAL_USE: u16 = 65_001;

const DNSSEC_OK: u16 = 0x8000;
const AD: u16 = 0x20;
const CD: u16 = 0x10;

/// All queries below this domain, as the server got them.
fn all_sent(stage: &Stage, domain: &str) -> Vec<(usize, Vec<u8>)> {
    let log = stage.servers[0].log();
    let below =
        |query: &[u8]| message::question(query).is_some_and(|(name, ..)| name.ends_with(domain));
    log.queries.iter().filter(|(_, query)| below(query)).cloned().collect()
}

/// How many OPT records the response has, if it can be read.
fn opts(response: Option<&Vec<u8>>) -> Option<usize> {
    response.and_then(|octets| View::read(octets)).map(|view| view.opts())
}

fn option(message: Option<&Vec<u8>>, code: u16) -> Option<Vec<u8>> {
    View::read(message?)?.option(code).map(<[u8]>::to_vec)
}

/// A server that objects to OPT records, to padding, or to every query, by the name that it is asked for.
fn objecting(query: &Received<'_>) -> Vec<Act> {
    let mut answer = answers::answer(query.message).expect("a query");
    // A server that knows no OPT record answers so.
    let bare = |rcode| answers::objection(query.message, rcode, false);
    let with_opt = query.message[10..12] != [0, 0];
    match query.name.split('.').next() {
        Some("badcookie") if with_opt => {
            // RCODE 23: 1 in the OPT record, 7 in the header.
            answer[3] |= 7;
            let upper = answer.len() - 6;
            answer[upper] = 1;
            vec![Act::Send(answer)]
        }
        Some("formerr") if with_opt => vec![Act::Send(bare(FORMERR))],
        Some("notimp") if with_opt => vec![Act::Send(bare(NOTIMP))],
        Some("padded") if answers::has_option(query.message, PADDING) => {
            vec![Act::Send(answers::objection(query.message, FORMERR, true))]
        }
        Some("own") => vec![Act::Send(bare(FORMERR))],
        _ => vec![Act::Send(answer)],
    }
}

pub fn one_opt_or_none(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup.handler(objecting))?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    // Local errors, too.
    for (what, qtype) in [("answer", A), ("axfr", AXFR)] {
        for with_opt in [false, true] {
            let name = format!("{what}.{with_opt}.s43.example");
            for (how, response) in client.ask_both(&name, |name| {
                let query = Query::new(name, qtype);
                if with_opt { query.opt(1_232) } else { query }
            }) {
                let seen = opts(response.as_ref());
                outcome.promise(seen == Some(usize::from(with_opt)), || {
                    format!("{name}, {how}: {seen:?} OPT records")
                });
            }
        }
    }
    let response = client.ask(&Query::new("badcookie.s43.example", A));
    outcome.promise(rcode(response.as_ref()) == Some(SERVFAIL), || {
        format!("RCODE 23 became {:?} without OPT", rcode(response.as_ref()))
    });
    // First what the query itself earns, when nothing is known of the server yet.
    for with_opt in [false, true] {
        let query = Query::new("own.s43.example", A);
        let response = client.ask(&if with_opt { query.opt(1_232) } else { query });
        // A resolver would rather say that it failed.
        let is_error = matches!(rcode(response.as_ref()), Some(FORMERR | SERVFAIL));
        let seen = opts(response.as_ref());
        outcome.promise(is_error && seen == Some(usize::from(with_opt)), || {
            format!("FORMERR for any query, OPT {with_opt}: {seen:?} OPT records")
        });
    }
    for name in ["formerr.s43.example", "notimp.s43.example", "padded.s43.example"] {
        for with_opt in [false, true] {
            let query = Query::new(name, A);
            let response = client.ask(&if with_opt { query.opt(1_232) } else { query });
            outcome.promise(is_answer(response.as_ref()), || {
                let seen = rcode(response.as_ref());
                format!("{name}, OPT {with_opt}: RCODE {seen:?} from a server that objects")
            });
            let seen = opts(response.as_ref());
            outcome.promise(seen == Some(usize::from(with_opt)), || {
                format!("{name}, OPT {with_opt}: {seen:?} OPT records")
            });
        }
    }
    // What is said without an upstream.
    let port = RefusedPort::reserve();
    let upstreams = [(port.address(), NAME)];
    let running = stage::run(subject, &stage.authority, &upstreams, Idle::default())?;
    let mut client = Client::of(running.address());
    for (what, query, due) in [
        ("without", Query::new("a.s43.example", A), 0),
        ("with", Query::new("b.s43.example", A).opt(1_232), 1),
    ] {
        let seen = opts(client.ask(&query).as_ref());
        outcome.promise(seen == Some(due), || format!("SERVFAIL {what} OPT: {seen:?} of them"));
    }
    Ok(outcome)
}

pub fn malformed_opt(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let plain = Query::new("a.s44.example", A).bytes();
    let with_opt = Query::new("a.s44.example", A).opt(1_232).bytes();
    let opt = &with_opt[plain.len()..];
    let counted = |additional: u8, rest: &[u8]| {
        let mut message = [&plain, rest].concat();
        message[11] = additional;
        message
    };
    let mut in_answer = with_opt.clone();
    (in_answer[7], in_answer[11]) = (1, 0);
    let cases = [
        ("two OPT records", counted(2, &[opt, opt].concat())),
        ("OPT in the answer section", in_answer),
        ("an owner of OPT", counted(1, &[b"\x01a", opt].concat())),
    ];
    for (n, (what, query)) in cases.into_iter().enumerate() {
        let query = message::with_id(&query, 0x400 + n as u16);
        for (how, response) in
            [("UDP", client.exchange(&query)), ("TCP", client.exchange_tcp(&query))]
        {
            let seen = rcode(response.as_ref());
            outcome.promise(seen == Some(FORMERR), || format!("{what}, {how}: RCODE {seen:?}"));
            // The OPT could be read, but for one whose owner is not the root.
            let with_opt = n == 2 || opts(response.as_ref()) == Some(1);
            outcome.promise(with_opt, || format!("{what}, {how}: no OPT in the answer"));
        }
    }
    for version in [1, 2, 255] {
        let query = Query::new("version.s44.example", A).opt(1_232).edns_version(version);
        let response = client.ask(&query);
        let seen = rcode(response.as_ref());
        outcome.promise(seen == Some(BADVERS), || format!("version {version}: RCODE {seen:?}"));
        let view = response.as_ref().and_then(|octets| View::read(octets));
        let own = view.and_then(|view| Some(view.opt()?.ttl >> 16 & 0xff));
        outcome.promise(own == Some(0), || format!("version {version}: answered with {own:?}"));
    }
    Ok(outcome)
}

pub fn payload_sizes(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for (what, size, octets, whole) in [
        ("no OPT", None, 480, true),
        ("no OPT", None, 600, false),
        ("size 0", Some(0), 480, true),
        ("size 100", Some(100), 480, true),
        ("size 511", Some(511), 600, false),
    ] {
        let name = format!("size-{octets}.c{}.s45.example", size.unwrap_or(1));
        let query = Query::new(&name, TXT);
        let query = if let Some(size) = size { query.opt(size) } else { query };
        let response = client.ask(&query);
        let length = response.as_ref().map_or(0, Vec::len);
        let got = response.as_ref().is_some_and(|r| message::flags(r) & TC == 0);
        let kept = response.is_some() && got == whole && length <= 512;
        outcome.promise(kept, || format!("{what}, answer of {octets}: {length} octets, {got}"));
    }
    let response = client.ask(&Query::new("size-5000.s45.example", TXT).opt(512));
    let view = response.as_ref().and_then(|octets| View::read(octets));
    let minimal = view.is_some_and(|view| {
        view.question().len() > 5 && view.opts() == 1 && view.count(0) + view.count(1) == 0
    });
    outcome.promise(minimal, || "what is truncated is not header, question and OPT".to_owned());

    // What the server is told.
    client.ask(&Query::new("none.s45.example", A));
    client.ask(&Query::new("own.s45.example", A).opt(3_333).edns_flags(0xc001));
    for (name, class, flags) in [("none.s45.example", 1_232, 0), ("own.s45.example", 3_333, 0xc001)]
    {
        let query = sent(&stage, name);
        let view = query.as_ref().and_then(|octets| View::read(octets));
        let opt = view.and_then(|view| view.opt().map(|opt| (opt.class, opt.ttl)));
        outcome.promise(opt == Some((class, flags)), || {
            format!("{name}: OPT with (size, flags) {opt:x?} upstream")
        });
    }
    Ok(outcome)
}

pub fn nothing_carried_over(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let name = "size-1100.s46.example";
    let large = client.ask(&Query::new(name, TXT).opt(4_096).option(LOCAL_USE, b"mine"));
    let whole = large.is_some_and(|response| message::flags(&response) & TC == 0);
    outcome.promise(whole, || "1,100 octets for a client that takes 4,096".to_owned());
    for (what, query, with_opt) in
        [("without OPT", Query::new(name, TXT), 0), ("with 512", Query::new(name, TXT).opt(512), 1)]
    {
        let response = client.ask(&query);
        let seen = opts(response.as_ref());
        outcome.promise(seen == Some(with_opt), || format!("{what}: {seen:?} OPT records"));
        let fits = response.is_some_and(|r| r.len() <= 512 && message::flags(&r) & TC != 0);
        outcome.promise(fits, || format!("{what}: the size of another client counts"));
    }
    let with_option = all_sent(&stage, name)
        .iter()
        .filter(|(_, query)| option(Some(query), LOCAL_USE).is_some())
        .count();
    outcome.promise(with_option <= 1, || format!("an option of one in {with_option} queries"));
    Ok(outcome)
}

/// Puts an option into every answer that has an OPT record.
fn adding(subject: &dyn Subject, code: u16, data: &'static [u8]) -> Result<Stage, String> {
    Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let answer = answers::answer(query.message).expect("a query");
            vec![Act::Send(answers::with_option(answer, code, data))]
        })
    })
}

/// An option of the server's reaches no client, over either transport, asked for or not.
fn promise_kept_back(outcome: &mut Outcome, client: &mut Client, row: &str, code: u16, ask: &[u8]) {
    for asks in [false, true] {
        let name = format!("{asks}.{row}.example");
        for (how, response) in client.ask_both(&name, |name| {
            let query = Query::new(name, A).opt(1_232);
            if asks { query.option(code, ask) } else { query }
        }) {
            let answered = is_answer(response.as_ref());
            outcome.promise(answered, || format!("{name}, {how}: not answered"));
            let seen = option(response.as_ref(), code);
            let octets = seen.as_ref().map_or(0, Vec::len);
            outcome.promise(seen.is_none(), || {
                format!("{name}, {how}: {octets} octets to the client")
            });
        }
    }
}

pub fn no_padding_in_clear(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = adding(subject, PADDING, &[0; 400])?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    promise_kept_back(&mut outcome, &mut client, "s47", PADDING, b"not zeros");
    for (_, query) in all_sent(&stage, ".s47.example") {
        let Some(view) = View::read(&query) else { continue };
        let options = view.options();
        let padding: Vec<_> = options.iter().filter(|(code, _)| *code == PADDING).collect();
        let own = padding.iter().all(|(_, data)| !data.starts_with(b"not zeros"));
        outcome.promise(padding.len() <= 1 && own, || "the client's padding upstream".to_owned());
    }
    Ok(outcome)
}

pub fn padding(subject: &dyn Subject) -> Result<Outcome, String> {
    const BLOCK: usize = 128;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    // With what follows, names of 20 to 250 octets.
    for length in (1..=231).step_by(5) {
        let labels: String = (0..length).map(|n| if n % 50 == 49 { '.' } else { 'a' }).collect();
        let domain = format!("{}.n{length}.s48.example", labels.trim_end_matches('.'));
        let query = Query::new(&domain, A);
        client.ask(&match length % 4 {
            0 => query,
            1 => query.opt(1_232),
            2 => query.opt(1_232).edns_flags(DNSSEC_OK),
            _ => query.opt(1_232).option(ECS, b"\0\x01\x18\0\xc0\0\x02").option(LOCAL_USE, b"x"),
        });
    }
    client.ask_tcp(&Query::new("long.s48.example", A).opt(1_232).option(LOCAL_USE, &[1; 3_000]));
    let queries = all_sent(&stage, ".s48.example");
    outcome.promise(queries.len() >= 48, || format!("{} queries came", queries.len()));
    let mut counts = [0; 3];
    for (_, query) in &queries {
        counts[0] += usize::from(query.len() % BLOCK != 0);
        let options = View::read(query).map(|view| {
            view.options().iter().map(|(code, data)| (*code, data.to_vec())).collect::<Vec<_>>()
        });
        let options = options.unwrap_or_default();
        let padding = options.iter().filter(|(code, _)| *code == PADDING).count();
        counts[1] += usize::from(padding != 1);
        counts[2] += usize::from(
            options
                .iter()
                .any(|(code, data)| *code == PADDING && data.iter().any(|octet| *octet != 0)),
        );
    }
    let [odd, unpadded, not_zero] = counts;
    let all = queries.len();
    outcome.promise(odd == 0, || format!("{odd} of {all} are no multiple of {BLOCK} octets"));
    outcome.promise(unpadded == 0, || format!("{unpadded} of {all} without one padding option"));
    outcome.promise(not_zero == 0, || format!("{not_zero} of {all} not padded with zeros"));
    Ok(outcome)
}

pub fn padding_last(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    client.ask(&Query::new("none.s49.example", A));
    client.ask(&Query::new("empty.s49.example", A).opt(1_232));
    let query = Query::new("before.s49.example", A).opt(1_232).option(PADDING, &[0; 9]);
    client.ask(&query.option(LOCAL_USE, b"x").option(3, b""));
    let queries = all_sent(&stage, ".s49.example");
    let mut padded = 0;
    for (_, query) in &queries {
        let view = View::read(query);
        let codes: Vec<_> = view.iter().flat_map(View::options).map(|(code, _)| code).collect();
        if let Some(place) = codes.iter().position(|code| *code == PADDING) {
            padded += 1;
            outcome.promise(place + 1 == codes.len(), || format!("options in order {codes:?}"));
        }
    }
    if padded == 0 {
        return Err("it does not pad".to_owned());
    }
    Ok(outcome)
}

pub fn keepalive_upstream(subject: &dyn Subject) -> Result<Outcome, String> {
    // A connection has three queries.
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match query.number {
            2 => [query.answer(), vec![Act::End(End::Notify)]].concat(),
            _ => query.answer(),
        })
    })?;
    let mut asker = stage.asker();
    asker.ask_each((0..9).map(|n| format!("n{n}.s50.example")));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    let mut first_of = std::collections::BTreeSet::new();
    let mut missing = 0;
    for (connection, query) in all_sent(&stage, ".s50.example") {
        let seen = option(Some(&query), KEEPALIVE);
        outcome.promise(seen.as_ref().is_none_or(Vec::is_empty), || {
            format!("keepalive with {seen:?} in a query")
        });
        missing += usize::from(first_of.insert(connection) && seen.is_none());
    }
    let all = first_of.len();
    outcome.promise(missing == 0, || format!("{missing} of {all} first queries ask for none"));
    Ok(outcome)
}

pub fn keepalive_obeyed(subject: &dyn Subject) -> Result<Outcome, String> {
    /// The server keeps connections longer than it says, for the sake of a slow machine.
    const GAP: Duration = Duration::from_millis(1_200);

    let mut outcome = Outcome::default();
    // In units of 100 ms: no more, a second, half a minute.
    for (timeout, data, gap, reused) in [
        (0, &b"\0\0"[..], Duration::ZERO, false),
        (10, &b"\0\x0a"[..], GAP, false),
        (300, &b"\x01\x2c"[..], GAP, true),
    ] {
        let stage = adding(subject, KEEPALIVE, data)?;
        let mut asker = stage.asker();
        for n in 0..4 {
            asker.ask(&format!("n{n}.t{timeout}.s51.example"));
            asker.listen(gap);
        }
        let part = stage.outcome(&[&asker]);
        outcome.count(&asker);
        let used = stage.servers[0].log().connections_for(".s51.example");
        let kept = if reused { used == 1 } else { used == 4 };
        outcome.promise(kept, || {
            format!("TIMEOUT {timeout}: {used} connections for 4 queries, {gap:?} apart")
        });
        outcome.connections += part.connections;
    }
    outcome.promise_all_answered();
    Ok(outcome)
}

pub fn keepalive_hop_by_hop(subject: &dyn Subject) -> Result<Outcome, String> {
    /// TIMEOUT of the server: 1,234.5 s.
    const THEIRS: &[u8] = b"\x30\x39";

    let stage = adding(subject, KEEPALIVE, THEIRS)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for asks in [false, true] {
        let name = format!("{asks}.s52.example");
        for (how, response) in client.ask_both(&name, |name| {
            let query = Query::new(name, A).opt(1_232);
            if asks { query.option(KEEPALIVE, b"") } else { query }
        }) {
            outcome.promise(is_answer(response.as_ref()), || format!("{name}, {how}: no answer"));
            let seen = option(response.as_ref(), KEEPALIVE);
            let theirs = seen.as_deref() == Some(THEIRS);
            outcome.promise(!theirs, || format!("{name}, {how}: the upstream's keepalive passed"));
            let over_udp = how == "UDP" && seen.is_some();
            outcome.promise(!over_udp, || format!("{name}: keepalive over UDP"));
        }
    }
    let response = client.ask_tcp(&Query::new("none.s52.example", A));
    outcome.promise(opts(response.as_ref()) == Some(0), || "OPT to a client without".to_owned());
    Ok(outcome)
}

pub fn keepalive_told(subject: &dyn Subject) -> Result<Outcome, String> {
    const SECONDS: u32 = 3;

    let idle = Idle { client: Some(SECONDS), ..Idle::default() };
    let stage = Stage::one_idle(subject, idle, |setup| setup)?;
    let client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let mut stream = client.connect().ok_or("no connection")?;
    let query = Query::new("a.s52.example", A).opt(1_232).option(KEEPALIVE, b"");
    let response = exchange_on(&mut stream, &query.bytes());
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    let Some(timeout) = option(response.as_ref(), KEEPALIVE) else {
        return Err("it tells TCP clients no idle timeout".to_owned());
    };
    let told = <[u8; 2]>::try_from(&timeout[..]).map(u16::from_be_bytes);
    let told = told.map(|units| Duration::from_millis(100) * units.into());
    outcome.promise(told.is_ok(), || format!("keepalive with {timeout:02x?}"));
    let told = told.unwrap_or_default();
    // What was told is kept, and not for much longer.
    let start = std::time::Instant::now();
    stream
        .set_read_timeout(Some(told + Duration::from_secs(10)))
        .map_err(|error| error.to_string())?;
    let ended = std::io::Read::read(&mut stream, &mut [0; 16]);
    let after = start.elapsed();
    let kept = matches!(ended, Ok(0)) && after + Duration::from_millis(100) >= told;
    outcome.promise(kept, || format!("told {told:?}, and {ended:?} after {after:.1?}"));
    Ok(outcome)
}

pub fn client_subnet(subject: &dyn Subject) -> Result<Outcome, String> {
    /// 192.0.2.0/24.
    const CLIENT: &[u8] = b"\0\x01\x18\0\xc0\0\x02";

    let stage = adding(subject, ECS, b"\0\x01\x18\x18\xc0\0\x02")?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    promise_kept_back(&mut outcome, &mut client, "s53", ECS, CLIENT);
    client.ask(&Query::new("none.s53.example", A));
    for (_, query) in all_sent(&stage, ".s53.example") {
        let seen = option(Some(&query), ECS);
        outcome.promise(seen.as_deref() == Some(b"\0\x01\0\0"), || {
            format!("client subnet {seen:02x?} upstream")
        });
    }
    outcome.broken.dedup();
    Ok(outcome)
}

pub fn cookies(subject: &dyn Subject) -> Result<Outcome, String> {
    const CLIENT: &[u8] = b"8 octets";

    let stage = adding(subject, COOKIE, b"8 octetsand of the server")?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for asks in [false, true] {
        let name = format!("{asks}.s54.example");
        for (how, response) in client.ask_both(&name, |name| {
            let query = Query::new(name, A).opt(1_232);
            if asks { query.option(COOKIE, CLIENT) } else { query }
        }) {
            outcome.promise(is_answer(response.as_ref()), || format!("{name}, {how}: no answer"));
            // One of the forwarder's own is for a client that sent one.
            let seen = option(response.as_ref(), COOKIE);
            let own = seen.as_ref().is_none_or(|cookie| {
                asks && cookie.len() >= 16 && !cookie.ends_with(b"and of the server")
            });
            outcome.promise(own, || format!("{name}, {how}: {seen:02x?} to the client"));
        }
    }
    for (_, query) in all_sent(&stage, ".s54.example") {
        let seen = option(Some(&query), COOKIE);
        let theirs = seen.is_some_and(|cookie| cookie.starts_with(CLIENT));
        outcome.promise(!theirs, || "the client's cookie upstream".to_owned());
    }
    outcome.broken.dedup();
    Ok(outcome)
}

pub fn extended_errors(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let authority = Authority::new();
    let port = RefusedPort::reserve();
    let upstreams = [(port.address(), NAME)];
    let running = stage::run(subject, &authority, &upstreams, Idle::default())?;
    let mut client = Client::of(running.address());
    let response = client.ask(&Query::new("refused.s55.example", A).opt(1_232));
    let error = option(response.as_ref(), EDE);
    let code = error.as_ref().and_then(|data| Some(u16::from_be_bytes([data[0], *data.get(1)?])));
    outcome.promise(matches!(code, Some(22 | 23)), || format!("EDE {code:?} without an upstream"));
    let named = error.is_some_and(|data| {
        let text = String::from_utf8_lossy(&data[2..]).into_owned();
        text.contains(&port.address().ip().to_string()) && text.len() < 150
    });
    outcome.promise(named, || "the text of the EDE does not name the upstream".to_owned());
    let response = client.ask(&Query::new("plain.s55.example", A));
    let seen = opts(response.as_ref());
    outcome.promise(seen == Some(0), || format!("{seen:?} OPT to a client without"));

    let stage = adding(subject, EDE, b"\0\x06bogus")?;
    let mut client = Client::new(&stage);
    let response = client.ask(&Query::new("passed.s55.example", A).opt(1_232));
    outcome.promise(is_answer(response.as_ref()), || "an answer with EDE: acted on".to_owned());
    let seen = option(response.as_ref(), EDE);
    outcome.promise(seen.as_deref() == Some(b"\0\x06bogus"), || {
        format!("EDE {seen:02x?} of the upstream's")
    });
    let response = client.ask(&Query::new("kept.s55.example", A));
    outcome.promise(opts(response.as_ref()) == Some(0), || "OPT to a client without".to_owned());
    Ok(outcome)
}

/// RFC 3225 section 3.
fn copy_dnssec_ok(query: &[u8], answer: &mut [u8]) {
    if let Some(ttl) = View::read(query).and_then(|view| Some(view.opt()?.ttl)) {
        // OPT is the last record, and has no option.
        let flags = answer.len() - 4;
        answer[flags] |= (ttl >> 8) as u8 & 0x80;
    }
}

pub fn unknown_things(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let mut answer = answers::answer(query.message).expect("a query");
            copy_dnssec_ok(query.message, &mut answer);
            vec![Act::Send(answer)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let new = Query::new("", A);
    let edns = Query::new("", A).opt(1_232);
    // The cases of RFC 8906 section 8, with the RCODE that is due.
    let mut cases = vec![
        ("type", Query::new("", 1_000), NOERROR),
        ("cd", new.clone().flags(RD | CD), NOERROR),
        ("ad", new.clone().flags(RD | AD), NOERROR),
        ("z", new.clone().flags(RD | 0x40), NOERROR),
        ("edns", edns.clone(), NOERROR),
        ("large", new.clone().opt(65_535), NOERROR),
        ("version", edns.clone().edns_version(1), BADVERS),
        ("option", edns.clone().option(100, b""), NOERROR),
        ("flags", edns.clone().edns_flags(0x0040), NOERROR),
        ("all", edns.clone().edns_version(1).edns_flags(0x40).option(100, b""), BADVERS),
        ("do", edns.clone().edns_flags(DNSSEC_OK), NOERROR),
        ("do-version", edns.clone().edns_flags(DNSSEC_OK).edns_version(1), BADVERS),
        ("nsid", edns.option(3, b""), NOERROR),
    ];
    let opcode = |opcode: u16| ("opcode", new.clone().flags(opcode << 11 | RD), NOTIMP);
    // NOTIFY and UPDATE are known, whatever is said to them.
    cases.extend((1..16).filter(|opcode| ![4, 5].contains(opcode)).map(opcode));
    for (n, (what, query, due)) in cases.into_iter().enumerate() {
        for (how, response) in
            client.ask_both(&format!("{what}{n}.s56.example"), |name| query.clone().name(name))
        {
            let seen = rcode(response.as_ref());
            outcome.promise(seen == Some(due), || match seen {
                Some(seen) => format!("{what} {n}, {how}: RCODE {seen}, not {due}"),
                None => format!("{what} {n}, {how}: no answer"),
            });
            if what.starts_with("do") {
                let view = response.as_ref().and_then(|octets| View::read(octets));
                let copied = view.is_some_and(|view| {
                    view.opt().is_some_and(|opt| opt.ttl & u32::from(DNSSEC_OK) != 0)
                });
                outcome.promise(copied, || format!("{what}, {how}: DO is not copied"));
            }
        }
    }
    Ok(outcome)
}

pub fn dnssec_bits(subject: &dyn Subject) -> Result<Outcome, String> {
    /// The header of every answer: AA, RD, RA and AD, then without AA and AD.
    const HEADERS: [u16; 2] = [0x85a0, 0x8180];

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let mut answer = answers::answer(query.message).expect("a query");
            let bits = HEADERS[usize::from(!query.name.starts_with("secure"))];
            let kept = message::flags(query.message) & CD;
            answer[2..4].copy_from_slice(&(bits | kept).to_be_bytes());
            copy_dnssec_ok(query.message, &mut answer);
            vec![Act::Send(answer)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for bits in 0..8_u16 {
        let has = |bit: u16, flag: u16| if bits & bit == 0 { 0 } else { flag };
        let (header, dnssec_ok) = (RD | has(1, AD) | has(2, CD), has(4, DNSSEC_OK));
        for (kind, expected) in [("secure", HEADERS[0]), ("insecure", HEADERS[1])] {
            let name = format!("{kind}.b{bits}.s57.example");
            let query = Query::new(&name, A).flags(header).opt(1_232).edns_flags(dnssec_ok);
            let response = client.ask(&query);
            let query = sent(&stage, &name);
            let view = query.as_ref().and_then(|octets| View::read(octets));
            let seen = view.map(|view| {
                let ttl = view.opt().map_or(0, |opt| opt.ttl as u16);
                (view.flags() & (AD | CD), ttl & DNSSEC_OK)
            });
            outcome.promise(seen == Some((header & (AD | CD), dnssec_ok)), || {
                format!("AD|CD {:02x}, DO {dnssec_ok:x}: {seen:x?} upstream", header & (AD | CD))
            });
            let seen = response.as_ref().map(|octets| message::flags(octets));
            outcome.promise(seen == Some(expected | header & CD), || {
                format!("{name}: header {seen:04x?}, not {:04x}", expected | header & CD)
            });
        }
    }
    // Local answers.
    let query = Query::new("local.s57.example", AXFR).flags(RD | AD).opt(1_232);
    let response = client.ask(&query);
    let set = response.is_none_or(|octets| message::flags(&octets) & AD != 0);
    outcome.promise(!set, || "AD in a local answer, or none".to_owned());
    Ok(outcome)
}
