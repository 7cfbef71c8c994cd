//! RFC 7766 and 9210: TCP on both sides. Statements 13 to 25.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::client::{Client, exchange_on, receive_on};
use super::proxying::{is_answer, rcode};
use crate::answers;
use crate::forwarder::asker::Asked;
use crate::forwarder::outcome::{Outcome, SLACK};
use crate::forwarder::stage::{Idle, Stage};
use crate::forwarder::subject::Subject;
use crate::message::{self, A, NOERROR, QR, REFUSED, TC, TXT};
use crate::server::behaviour::Received;
use crate::server::log::{ConnectionLog, Ended};
use crate::view::View;
use crate::{Act, End, Query};

/// Longer than most keep what is idle.
const IDLE_MAX: Duration = Duration::from_secs(40);

/// Where idle times can be told, they are short.
const IDLE: Idle = Idle { client: Some(1), upstream: Some(1) };

fn names(statement: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("n{n}.{statement}.example"))
}

/// Answers `slow` names a second late.
fn slow(query: &Received<'_>) -> Vec<Act> {
    if query.name.starts_with("slow") {
        vec![Act::After(Duration::from_secs(1), query.answer())]
    } else {
        query.answer()
    }
}

fn is_for(response: Option<&Vec<u8>>, id: u16, name: &str) -> bool {
    response.is_some_and(|octets| {
        message::id(octets) == id && message::question(octets) == Some((name.to_owned(), A, 1))
    })
}

pub fn same_way_back(subject: &dyn Subject) -> Result<Outcome, String> {
    const ID: u16 = 99;

    let stage = Stage::one(subject, |setup| setup.handler(slow))?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    // The answers come in the reverse order of the queries.
    let names = ["slow-left.s13.example", "right.s13.example", "udp.s13.example"];
    let queries = names.map(|name| Query::new(name, A).id(ID).bytes());
    let [mut left, mut right] = [client.connect(), client.connect()];
    for (stream, query) in [&mut left, &mut right].into_iter().zip(&queries) {
        let stream = stream.as_mut().ok_or("no connection")?;
        stream.write_all(&message::framed(query)).map_err(|error| error.to_string())?;
    }
    let udp = client.exchange(&queries[2]);
    let streams = [&mut left, &mut right].map(|stream| stream.as_mut().and_then(receive_on));
    let [left, right] = streams;
    for (name, response) in names.into_iter().zip([left, right, udp]) {
        outcome.promise(is_for(response.as_ref(), ID, name), || format!("{name}: not answered"));
    }
    Ok(outcome)
}

/// What is wrong with answers whose names begin so.
pub fn spoiled(how: &str, answer: &[u8]) -> Vec<Act> {
    let mut bad = answer.to_vec();
    match how {
        // The right one follows.
        "unknown" => {
            bad = message::with_id(&bad, message::id(&bad) ^ 0x8000);
            *bad.last_mut().expect("not empty") = 66;
            return vec![Act::Send(bad), Act::Send(answer.to_vec())];
        }
        "name" => bad[13] ^= 1,
        "type" => {
            let end = message::question_end(&bad).expect("an answer");
            bad[end - 3] ^= 1;
        }
        "class" => {
            let end = message::question_end(&bad).expect("an answer");
            bad[end - 1] = 3;
        }
        "twice" => return vec![Act::Send(bad.clone()), Act::Send(bad)],
        "none" => bad = message::header(message::id(&bad), QR, [0; 4]),
        "query" => bad[2] &= 0x7f,
        "opcode" => bad[2] |= 0x10,
        _ => return vec![Act::Send(bad)],
    }
    // What tells that the answer is false is all that differs from the one that follows.
    if bad.ends_with(&[192, 0, 2, 1]) {
        *bad.last_mut().expect("not empty") = 66;
    }
    vec![Act::Send(bad)]
}

/// Bad answers first, then good ones: none of the former is delivered, and the query is answered.
pub fn bad_answers(
    subject: &dyn Subject,
    statement: &'static str,
    ways: &[&str],
) -> Result<Outcome, String> {
    let mut seen = BTreeSet::new();
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let mut good = answers::answer(query.message).expect("a query");
            // An OPT record of the forwarder's own is of no interest here.
            if let Some(view) = View::read(&good) {
                good = [&message::id(&good).to_be_bytes()[..], &view.without_opt()].concat();
            }
            match query.name.split('.').next() {
                Some(how) if seen.insert(query.name.clone()) => spoiled(how, &good),
                _ => vec![Act::Send(good)],
            }
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for how in ways {
        let query = Query::new(&format!("{how}.{statement}.example"), A);
        let response = client.ask(&query);
        let view = response.as_ref().and_then(|octets| View::read(octets));
        let good = view.as_ref().is_some_and(|view| {
            view.rcode() == NOERROR
                && view.records.first().is_some_and(|r| view.data(r) == [192, 0, 2, 1])
        });
        outcome.promise(good, || match rcode(response.as_ref()) {
            Some(NOERROR) => format!("{how}: the bad answer was delivered"),
            rcode => format!("{how}: no second try, RCODE {rcode:?}"),
        });
    }
    Ok(outcome)
}

pub fn matching(subject: &dyn Subject) -> Result<Outcome, String> {
    let ways = ["unknown", "name", "type", "class", "none", "twice"];
    let mut outcome = bad_answers(subject, "s14", &ways)?;
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match query.name.split('.').next() {
            Some("refused") => {
                let id = message::id(query.message);
                vec![Act::Send(message::header(id, QR | REFUSED, [0; 4]))]
            }
            _ => query.answer(),
        })
    })?;
    let mut client = Client::new(&stage);
    let response = client.ask(&Query::new("refused.s14.example", A));
    let view = response.as_ref().and_then(|octets| View::read(octets));
    let question = Query::new("refused.s14.example", A).bytes();
    let local =
        view.is_some_and(|view| view.rcode() == REFUSED && view.question() == &question[12..]);
    outcome.promise(local, || {
        format!("REFUSED without question became RCODE {:?}", rcode(response.as_ref()))
    });
    Ok(outcome)
}

pub fn any_order(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: usize = 100;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let first = query.name.split('.').next().unwrap_or_default();
            let number = first.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
            let place = QUERIES.saturating_sub(number.unwrap_or(QUERIES));
            vec![Act::After(Duration::from_millis(5 * place as u64), query.answer())]
        })
    })?;
    let mut asker = stage.asker();
    for name in names("s15", QUERIES) {
        asker.send(&name);
    }
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    // What is not taken at once is answered again later, if at all.
    outcome.promise_within(Duration::from_millis(5 * QUERIES as u64) + SLACK);
    Ok(outcome)
}

pub fn pipelining(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: u16 = 100;

    let stage = Stage::one(subject, |setup| setup.handler(slow))?;
    let client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let mut stream = client.connect().ok_or("no connection")?;
    let queries = (0..QUERIES).map(|id| {
        let first = if id == 0 { "slow".to_owned() } else { format!("n{id}") };
        message::framed(&Query::new(&format!("{first}.s16.example"), A).id(id).bytes())
    });
    let octets = queries.collect::<Vec<_>>().concat();
    stream.write_all(&octets).map_err(|error| error.to_string())?;
    let responses: Vec<_> =
        (0..QUERIES).map_while(|_| receive_on(&mut stream)).map(|r| message::id(&r)).collect();
    let different = responses.iter().collect::<BTreeSet<_>>().len();
    outcome.promise(different == usize::from(QUERIES), || {
        format!("{different} of {QUERIES} queries in one write were answered")
    });
    outcome
        .promise(responses.last() == Some(&0), || "the others waited for the slow one".to_owned());
    Ok(outcome)
}

pub fn reuse(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut asker = stage.asker();
    asker.ask_each(names("s17", 500));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_connections(&stage.servers[0], 1);
    Ok(outcome)
}

pub fn no_waiting(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: usize = 50;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| vec![Act::After(Duration::from_secs(1), query.answer())])
    })?;
    let mut asker = stage.asker();
    for name in names("s18", QUERIES) {
        asker.send(&name);
    }
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    // One after the other would take them 50 s.
    outcome.promise_within(4 * SLACK);
    let used = stage.servers[0].log().connections_for(".s18.example");
    outcome.promise(used <= QUERIES / 5, || format!("{used} connections for {QUERIES} queries"));
    Ok(outcome)
}

pub fn one_connection(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| vec![Act::After(Duration::from_millis(20), query.answer())])
    })?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(2), names("s19", 500));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_connections(&stage.servers[0], 1);
    Ok(outcome)
}

/// Waits, asking for nothing, until the first connection that took a query has ended.
fn await_end(stage: &Stage) -> Option<Ended> {
    let start = Instant::now();
    let mut listener = stage.asker();
    let ended = |log: &ConnectionLog| if log.queries > 0 { log.ended } else { None };
    while start.elapsed() < IDLE_MAX {
        if let Some(how) = stage.servers[0].log().connections.iter().find_map(ended) {
            return Some(how);
        }
        listener.listen(Duration::from_millis(50));
    }
    None
}

pub fn idle(subject: &dyn Subject) -> Result<Outcome, String> {
    const EVERY: Duration = Duration::from_millis(300);

    let stage = Stage::one_idle(subject, IDLE, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let response = client.ask(&Query::new("first.s20.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    let closed = await_end(&stage).is_some();
    outcome.promise(closed, || format!("the upstream was still connected after {IDLE_MAX:.0?}"));
    // A whole query every 300 ms keeps a connection, an octet does not.
    let mut trickle = client.connect().ok_or("no connection")?;
    trickle.set_read_timeout(Some(EVERY)).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let mut is_closed = false;
    for octet in message::framed(&vec![0; 0x7fff]) {
        let written = (&trickle).write_all(&[octet]);
        let read = trickle.read(&mut [0; 16]);
        is_closed = written.is_err()
            || match read {
                Ok(octets) => octets == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
        if is_closed || start.elapsed() > IDLE_MAX {
            break;
        }
    }
    outcome.promise(is_closed, || format!("an octet at a time is kept for {IDLE_MAX:.0?}"));
    Ok(outcome)
}

pub fn retry(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: usize = 10;

    let mut outcome = Outcome::default();
    for end in [End::Fin, End::Reset, End::Notify] {
        // The first connection of a query answers half of them, and ends a little later.
        let mut first = None;
        let stage = Stage::one(subject, |setup| {
            setup.handler(move |query| {
                if *first.get_or_insert(query.connection) != query.connection {
                    return query.answer();
                }
                match query.number {
                    0 => {
                        let end = Act::After(Duration::from_millis(200), vec![Act::End(end)]);
                        [query.answer(), vec![end]].concat()
                    }
                    number if number < QUERIES / 2 => query.answer(),
                    _ => Vec::new(),
                }
            })
        })?;
        let mut asker = stage.asker();
        for name in names(&format!("{end:?}.s21").to_lowercase(), QUERIES) {
            asker.send(&name);
        }
        asker.finish();
        let failed = asker.queries().iter().filter(|asked| !asked.is_answered()).count();
        outcome.promise(failed == 0, || format!("{end:?}: {failed} of {QUERIES} not answered"));
    }
    let stage = Stage::one(subject, |setup| setup.handler(slow))?;
    let mut stream = Client::new(&stage).connect().ok_or("no connection")?;
    for id in 0..2 {
        let query = Query::new(&format!("slow-{id}.s21.example"), A).id(id).bytes();
        stream.write_all(&message::framed(&query)).map_err(|error| error.to_string())?;
    }
    stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
    let owed = (0..2).filter_map(|_| receive_on(&mut stream)).count();
    outcome.promise(owed == 2, || format!("{owed} of 2 answers after a half-close"));
    Ok(outcome)
}

pub fn segmentation(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for (what, record_per_message, octets_per_record, octets_per_write) in [
        ("single octets in records", true, 1, usize::MAX),
        ("single octets in writes", true, usize::MAX, 1),
        ("many messages in a record", false, usize::MAX, usize::MAX),
    ] {
        let stage = Stage::one(subject, |setup| {
            crate::Setup { record_per_message, octets_per_record, octets_per_write, ..setup }
                .handler(|query| vec![Act::After(Duration::from_millis(50), query.answer())])
        })?;
        let mut asker = stage.asker();
        for n in 0..20 {
            let name = format!("size-{}.s22.example", 100 + n);
            asker.send_query(&name, TXT, |query| query.opt(1232));
        }
        asker.finish();
        let whole = |(n, asked): &(usize, &Asked)| {
            asked.reply.as_ref().is_some_and(|reply| reply.octets.len() >= 89 + n)
        };
        let whole = asker.queries().iter().enumerate().filter(whole).count();
        outcome.promise(whole == 20, || format!("{what}: {whole} of 20 answers"));
    }
    let stage = Stage::one(subject, |setup| setup)?;
    let mut stream = Client::new(&stage).connect().ok_or("no connection")?;
    for n in 0..20 {
        for octet in message::framed(&Query::new(&format!("octets-{n}.s22.example"), A).bytes()) {
            stream.write_all(&[octet]).map_err(|error| error.to_string())?;
        }
        // One write is one segment on loopback; two may have arrived by now, but not every time.
        let mut octets = [0; 1_024];
        let first = stream.read(&mut octets).unwrap_or(0);
        let whole =
            first > 2 && first == 2 + usize::from(u16::from_be_bytes([octets[0], octets[1]]));
        outcome.promise(whole, || format!("{first} octets of the answer in the first segment"));
        if !whole {
            break;
        }
    }
    Ok(outcome)
}

pub fn many_clients(subject: &dyn Subject) -> Result<Outcome, String> {
    const CLIENTS: usize = 200;

    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let idle: Vec<_> =
        (0..CLIENTS).map_while(|_| TcpStream::connect(stage.address()).ok()).collect();
    let count = idle.len();
    outcome.promise(count == CLIENTS, || format!("{count} of {CLIENTS} connected"));
    let response = client.ask_tcp(&Query::new("tcp.s23.example", A));
    outcome.promise(is_answer(response.as_ref()), || {
        format!("a query over TCP beside {CLIENTS} idle connections is not answered")
    });
    let response = client.ask(&Query::new("udp.s23.example", A));
    outcome.promise(is_answer(response.as_ref()), || {
        format!("a query over UDP beside {CLIENTS} idle connections is not answered")
    });
    Ok(outcome)
}

pub fn any_transport(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for (how, response) in client.ask_both("a.s24.example", |name| Query::new(name, A)) {
        let untruncated = response.as_ref().is_some_and(|octets| message::flags(octets) & TC == 0);
        outcome.promise(untruncated && is_answer(response.as_ref()), || {
            format!("{how}: RCODE {:?}, or TC without need", rcode(response.as_ref()))
        });
    }
    // Many on one connection, and then none at all.
    let mut stream = client.connect().ok_or("no connection")?;
    for n in 0..5 {
        let query = Query::new(&format!("n{n}.s24.example"), A).id(n).bytes();
        let response = exchange_on(&mut stream, &query);
        outcome.promise(is_answer(response.as_ref()), || format!("query {n} of a connection"));
    }
    Ok(outcome)
}

pub fn closes(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one_idle(subject, IDLE, |setup| setup)?;
    let client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let mut stream = client.connect().ok_or("no connection")?;
    let response = exchange_on(&mut stream, &Query::new("first.s25.example", A).bytes());
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    // At once: the server lets the client close first.
    let again = exchange_on(&mut stream, &Query::new("second.s25.example", A).bytes());
    outcome.promise(is_answer(again.as_ref()), || "closed after an answer".to_owned());
    stream.set_read_timeout(Some(IDLE_MAX)).map_err(|error| error.to_string())?;
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(octets) => outcome.promise(false, || format!("{octets} octets to no query")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            outcome.promise(false, || format!("an idle client is kept for {IDLE_MAX:.0?}"));
        }
        Err(error) => outcome.promise(false, || format!("not ended by FIN: {error}")),
    }
    let mut client = Client::new(&stage);
    stage.servers[0].perform(Act::End(End::Reset));
    let response = client.ask(&Query::new("third.s25.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not connected again".to_owned());
    Ok(outcome)
}

/// A clean close of ours, and an unclean one of the server in the middle of a message.
pub fn close_notify(subject: &dyn Subject) -> Result<Outcome, String> {
    let mut cut = BTreeSet::new();
    let stage = Stage::one_idle(subject, IDLE, |setup| {
        setup.handler(move |query| {
            if !query.name.starts_with("cut.") || !cut.insert(query.name.clone()) {
                return query.answer();
            }
            let answer = message::framed(&answers::answer(query.message).expect("a query"));
            vec![Act::Raw(answer[..answer.len() - 3].to_vec()), Act::End(End::Fin)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let response = client.ask(&Query::new("first.s32.example", A));
    outcome.promise(is_answer(response.as_ref()), || "not answered".to_owned());
    let how = await_end(&stage);
    outcome.promise(how.is_some(), || format!("no close of the idle connection in {IDLE_MAX:.0?}"));
    outcome.promise(how.is_none_or(|how| how == Ended::Notify), || format!("closed by {how:?}"));
    let response = client.ask(&Query::new("cut.s32.example", A));
    outcome.promise(is_answer(response.as_ref()), || {
        format!("an answer that was cut: RCODE {:?}", rcode(response.as_ref()))
    });
    Ok(outcome)
}

/// Ends of every kind at every place, under steady queries.
pub fn abrupt_closes(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            if query.number < 3 + query.connection * 7 % 11 {
                return query.answer();
            }
            let end = [End::Fin, End::Reset, End::Notify][query.connection % 3];
            let before = if query.connection % 2 == 0 { query.answer() } else { Vec::new() };
            [before, vec![Act::End(end)]].concat()
        })
    })?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(5), names("s30", 400));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    Ok(outcome)
}
