//! Upstreams that misbehave about their answers: U7 to U12, U18, U19, U23 to U25, U27.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::answers;
use crate::forwarder::asker::{Asked, Asker};
use crate::forwarder::outcome::{DEADLINE, Outcome, SLACK};
use crate::forwarder::stage::{self, Idle, NAME, Stage};
use crate::forwarder::subject::Subject;
use crate::message::{self, A, FORMERR, NOERROR, NOTIMP, QR, SERVFAIL, TXT};
use crate::{Act, Authority, DotServer, End, Query, Response, Setup};

fn names(row: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("n{n}.{row}.example"))
}

pub fn never_answers(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::two(subject, |setup| setup.handler(|_| Vec::new()))?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(100), names("u7", 60));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_deadline();
    Ok(outcome)
}

pub fn never_answers_alone(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup.handler(|_| Vec::new()))?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(100), names("u7", 60));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_failed();
    outcome.promise_deadline();
    Ok(outcome)
}

pub fn only_the_first_query(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| if query.number == 0 { query.answer() } else { Vec::new() })
    })?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(250), names("u8", 60));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_deadline();
    Ok(outcome)
}

pub fn reverse_order(subject: &dyn Subject) -> Result<Outcome, String> {
    const SLOW: Duration = Duration::from_secs(3);
    const BURST: usize = 20;

    // The first of a burst waits longest; while the slow name waits, bursts come and go.
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let first = query.name.split('.').next().unwrap_or_default();
            let number = first.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
            let delay = match number {
                Some(n) => Duration::from_millis(10) * BURST.saturating_sub(n) as u32,
                None if first == "slow" => SLOW,
                None => Duration::ZERO,
            };
            vec![Act::After(delay, query.answer())]
        })
    })?;
    let mut asker = stage.asker();
    asker.send("slow.u9.example");
    for burst in 0..12 {
        for name in names(&format!("burst{burst}.u9"), BURST) {
            asker.send(&name);
        }
        asker.listen(Duration::from_millis(300));
    }
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_deadline();
    let slowest = asker.queries()[1..].iter().filter_map(Asked::delay).max().unwrap_or_default();
    outcome.promise(slowest < SLACK, || format!("a fast one took {slowest:.1?}"));
    Ok(outcome)
}

/// Good answers that were made bad, each for queries whose names begin so.
fn spoil(how: &str, answer: &[u8]) -> Vec<Act> {
    let mut bad = answer.to_vec();
    match how {
        "twice" => return vec![Act::Send(answer.to_vec()), Act::Send(bad)],
        "late" => return vec![Act::After(DEADLINE + SLACK, vec![Act::Send(bad)])],
        // The right answer follows what nobody asked for.
        "unknown" => {
            bad = message::with_id(&bad, message::id(&bad) ^ 0x8000);
            return vec![Act::Send(bad), Act::Send(answer.to_vec())];
        }
        "question" => bad[13] ^= 1,
        "query" => bad[2] &= 0x7f,
        "none" => bad = message::header(message::id(&bad), QR, [0; 4]),
        _ => return vec![Act::Send(bad)],
    }
    vec![Act::Send(bad)]
}

pub fn bad_answers(subject: &dyn Subject) -> Result<Outcome, String> {
    const BAD: [&str; 6] = ["twice", "late", "unknown", "question", "query", "none"];

    // The second try of each gets what it should.
    let mut seen = HashSet::new();
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let good = answers::answer(query.message).expect("a query");
            let how = query.name.split('.').next().unwrap_or_default();
            if seen.insert(query.name.clone()) { spoil(how, &good) } else { vec![Act::Send(good)] }
        })
    })?;
    let mut asker = stage.asker();
    let all = (0..5).flat_map(|round| {
        BAD.into_iter().flat_map(move |how| {
            [how, "sibling0", "sibling1", "sibling2"]
                .map(|first| format!("{first}.beside-{how}.round{round}.u10.example"))
        })
    });
    asker.ask_steadily(Duration::from_millis(25), all);
    asker.finish();
    // Late answers go to nobody, though their client is still there.
    asker.listen(2 * SLACK);
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    for asked in asker.queries().iter().filter(|asked| !asked.is_answered()) {
        let late = asked.name.starts_with("late.");
        outcome.promise(late, || format!("{} is not answered", asked.name));
    }
    Ok(outcome)
}

pub fn single_octets(subject: &dyn Subject) -> Result<Outcome, String> {
    /// What it is, whether messages have a record of their own, octets of a record and of a write.
    const SPLITS: [(&str, bool, usize, usize); 5] = [
        ("whole records", true, usize::MAX, usize::MAX),
        ("single octets in records", true, 1, usize::MAX),
        ("single octets in writes", true, usize::MAX, 1),
        ("three octets in records, single ones in writes", true, 3, 1),
        ("many messages in a record", false, usize::MAX, usize::MAX),
    ];
    const QUERIES: usize = 40;

    let mut outcome = Outcome::default();
    for (what, record_per_message, octets_per_record, octets_per_write) in SPLITS {
        // All are answered at the same time.
        let stage = Stage::one(subject, |setup| {
            Setup { record_per_message, octets_per_record, octets_per_write, ..setup }
                .handler(|query| vec![Act::After(Duration::from_millis(50), query.answer())])
        })?;
        let mut asker = stage.asker();
        for n in 0..QUERIES {
            let name = format!("size-{}.u11.example", 100 + n);
            asker.send_query(&name, TXT, |query| query.opt(1232));
        }
        asker.finish();
        let part = stage.outcome(&[&asker]);
        let whole = asker.queries().iter().enumerate().filter(|(n, asked)| {
            // Less the OPT record of the server.
            asked.reply.as_ref().is_some_and(|reply| reply.octets.len() >= 89 + n)
        });
        let whole = whole.count();
        outcome.promise(whole == QUERIES, || format!("{what}: {whole} of {QUERIES} answers whole"));
        outcome.count(&asker);
        outcome.connections += part.connections;
    }
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn largest_answer(subject: &dyn Subject) -> Result<Outcome, String> {
    // The message has an OPT record besides: 65,535 octets.
    const SIZE: usize = 65_535 - answers::OPT_LEN;

    let stage = Stage::one(subject, |setup| setup)?;
    let name = format!("size-{SIZE}.u12.example");
    let mut asker = stage.asker();
    asker.send_query(&name, TXT, |query| query.opt(1232));
    asker.finish();
    let mut tcp = stage.tcp();
    let query = Query::new(&name, TXT).opt(1232).bytes();
    tcp.send(&query);
    let response = tcp.try_receive().map(|octets| (octets.len(), Response::read(&octets)));

    let mut outcome = stage.outcome(&[&asker]);
    let truncated =
        asker.queries()[0].reply.as_ref().is_some_and(|r| Response::read(&r.octets).is_truncated());
    outcome.promise(truncated, || "not truncated over UDP".to_owned());
    match response {
        Ok((octets, response)) if response.rcode == NOERROR && !response.is_truncated() => {
            let records = Response::read(&answers::sized(&query, SIZE)).answers;
            let whole = response.answers;
            outcome.promise(whole == records, || format!("{whole} records of {records}"));
            outcome.note(format!("{octets} octets over TCP"));
            outcome.count_other(1, 0, 0);
        }
        Ok((_, response)) => {
            outcome.note(format!("RCODE {} over TCP", response.rcode));
            outcome.count_other(0, 1, 0);
        }
        Err(error) => {
            outcome.note(format!("over TCP: {error}"));
            outcome.count_other(0, 0, 1);
        }
    }
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

/// SERVFAIL for `bad` names, with an Extended DNS Error for `bogus` ones (RFC 8914 section 4.7).
fn failing(setup: Setup) -> Setup {
    const EXTENDED_ERROR: u16 = 15;
    const BOGUS: u16 = 6;

    setup.handler(|query| {
        let failure = answers::bare(query.message, SERVFAIL);
        match query.name.split('-').next() {
            Some("bad") => vec![Act::Send(failure)],
            Some("bogus") => {
                let option = BOGUS.to_be_bytes();
                vec![Act::Send(answers::with_option(failure, EXTENDED_ERROR, &option))]
            }
            _ => query.answer(),
        }
    })
}

/// Half of them get SERVFAIL, few as they come from caches that failed, most of the rest answers.
fn half_bad(row: &str) -> impl Iterator<Item = String> {
    (0..20).flat_map(move |n| {
        [
            format!("bad-{n}.{row}.example"),
            format!("good-{n}.{row}.example"),
            format!("bogus-{n}.{row}.example"),
            format!("nx.n{n}.{row}.example"),
        ]
    })
}

pub fn half_servfail(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, failing)?;
    let mut asker = stage.asker();
    asker.ask_each(half_bad("u18"));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_within(SLACK);
    for asked in asker.queries() {
        let good = asked.name.starts_with("good") || asked.name.starts_with("nx");
        outcome.promise(asked.is_answered() == good, || format!("{}: not as sent", asked.name));
    }
    Ok(outcome)
}

pub fn half_servfail_second_operator(subject: &dyn Subject) -> Result<Outcome, String> {
    const OTHER: &str = "other.example";

    let authority = Authority::new();
    let first = DotServer::start(failing(stage::good(&authority, NAME)));
    let second = DotServer::start(stage::good(&authority, OTHER));
    let upstreams = [(first.address(), NAME), (second.address(), OTHER)];
    let running = stage::run(subject, &authority, &upstreams, Idle::default())?;
    let mut asker = Asker::new(running.address());
    asker.ask_each(half_bad("u18"));
    let mut outcome = Outcome { lines: running.end(), ..Outcome::default() };
    outcome.count(&asker);
    outcome.count_connections(&first);
    outcome.count_connections(&second);
    outcome.promise_none_lost();
    outcome.promise_within(2 * SLACK);

    let log = second.log();
    let (mut saved, mut worst) = (0, 0);
    for asked in asker.queries() {
        // A forwarder that spreads queries asks the second one first now and then.
        let again = first.log().queries_for(&asked.name) > 0;
        let tried = if again { log.queries_for(&asked.name) } else { 0 };
        let answered = asked.is_answered();
        if asked.name.starts_with("bad-") {
            saved += usize::from(answered && again);
            worst = worst.max(tried);
            // Second tries have a budget: a SERVFAIL beyond it is passed on.
            outcome.promise(answered == (tried > 0 || !again), || {
                format!("{}: {tried} tries", asked.name)
            });
        } else {
            let name = &asked.name;
            outcome.promise(tried == 0, || format!("{name} was tried again"));
            let kept = !again || answered != name.starts_with("bogus");
            outcome.promise(kept, || format!("{name}: changed"));
        }
    }
    outcome.promise(worst <= 1, || format!("a name was tried {worst} times"));
    outcome.promise(saved > 0, || "no SERVFAIL was tried at the other upstream".to_owned());
    outcome.note(format!("{saved} of 20 SERVFAIL answered by the other"));
    Ok(outcome)
}

/// Answers a few queries of each connection, never the same number, then reads nothing more.
fn stops_reading(setup: Setup) -> Setup {
    let setup = Setup { receive_buffer: Some(4_096), ..setup };
    setup.handler(|query| {
        if query.number >= 5 + query.connection * 3 % 7 {
            vec![Act::StopReading]
        } else {
            query.answer()
        }
    })
}

/// Queries of this size fill the buffers of the kernel within a second.
fn ask_at_length(stage: &Stage) -> Outcome {
    const OPTION: u16 = 65_001;
    const GROWTH_MAX_KIB: usize = 16 << 10;

    let mut asker = stage.asker();
    asker.ask("first.u19.example");
    let before = stage.running.peak_memory();
    for name in names("u19", 1_000) {
        asker.send_query(&name, A, |query| query.opt(1232).option(OPTION, &[0; 1_000]));
        asker.listen(Duration::from_millis(4));
    }
    asker.finish();
    let after = stage.running.peak_memory();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    if let (Some(before), Some(after)) = (before, after) {
        let growth = after - before;
        outcome.promise(growth < GROWTH_MAX_KIB, || format!("memory grew by {growth} KiB"));
        outcome.note(format!("memory grew by {:.1} MiB", growth as f64 / 1_024.0));
    }
    outcome
}

pub fn stops_reading_first(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::two(subject, stops_reading)?;
    let mut outcome = ask_at_length(&stage);
    outcome.promise_all_answered();
    Ok(outcome)
}

pub fn stops_reading_alone(subject: &dyn Subject) -> Result<Outcome, String> {
    /// As many as over a connection for each few queries.
    const ANSWERED_MIN: usize = 620;

    let stage = Stage::one(subject, stops_reading)?;
    let mut outcome = ask_at_length(&stage);
    let answered = outcome.answered;
    outcome.promise(answered >= ANSWERED_MIN, || format!("{answered} answered"));
    Ok(outcome)
}

pub fn closes_on_one_query(subject: &dyn Subject) -> Result<Outcome, String> {
    const SECONDS: u32 = 8;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match query.name.split('.').next() {
            Some("poison") => vec![Act::End(End::Fin)],
            _ => query.answer(),
        })
    })?;
    let mut asker = stage.asker();
    let all = (0..SECONDS).flat_map(|second| {
        let good = (0..100).map(move |n| format!("n{n}.second{second}.u23.example"));
        good.chain([format!("poison.second{second}.u23.example")])
    });
    asker.ask_steadily(Duration::from_secs(1) / 101, all);
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    for asked in asker.queries() {
        let poison = asked.name.starts_with("poison");
        let kept = if poison { asked.is_failed() } else { asked.is_answered() };
        outcome.promise(kept, || format!("{}: not as it should be", asked.name));
    }
    Ok(outcome)
}

/// Answers half of the names at once and the others never, as a resolver does that lost a part of its own
/// way out.
fn half_the_names(setup: Setup) -> Setup {
    setup.handler(|query| {
        let digits: String = query.name.chars().filter(char::is_ascii_digit).collect();
        if digits.ends_with(['0', '2', '4', '6', '8']) { query.answer() } else { Vec::new() }
    })
}

fn half_dead_names() -> impl Iterator<Item = String> {
    (0..120).map(|n| format!("n{n}.half.example"))
}

pub fn half_dead(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::two(subject, half_the_names)?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(100), half_dead_names());
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(Duration::from_millis(1500) + SLACK);
    Ok(outcome)
}

/// What a half-dead first upstream costs with one of another operator behind it, which learns no name as
/// long as the first works.
fn taken_over(
    subject: &dyn Subject,
    change: impl FnOnce(Setup) -> Setup,
) -> Result<Outcome, String> {
    /// What may be lost before it is seen that the first fails.
    const LOST_MAX: usize = 10;
    /// By then it is.
    const SEEN: Duration = Duration::from_secs(4);

    let authority = Authority::new();
    let first = DotServer::start(change(stage::good(&authority, NAME)));
    let second = DotServer::start(stage::good(&authority, "other.example"));
    let upstreams = [(first.address(), NAME), (second.address(), "other.example")];
    let running = stage::run(subject, &authority, &upstreams, Idle::default())?;
    let mut asker = Asker::new(running.address());
    asker.ask_steadily(Duration::from_millis(100), half_dead_names());
    asker.finish();
    let mut outcome = Outcome { lines: running.end(), ..Outcome::default() };
    outcome.count(&asker);
    outcome.count_connections(&first);
    outcome.count_connections(&second);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    let failed: Vec<&Asked> = asker.queries().iter().filter(|a| !a.is_answered()).collect();
    outcome.promise(failed.len() <= LOST_MAX, || format!("{} are not answered", failed.len()));
    let last = failed.last().map(|asked| asked.at).unwrap_or_default();
    outcome.promise(last < SEEN, || format!("still one lost that was asked after {last:.1?}"));
    Ok(outcome)
}

pub fn half_dead_other_operator(subject: &dyn Subject) -> Result<Outcome, String> {
    taken_over(subject, half_the_names)
}

pub fn late_other_operator(subject: &dyn Subject) -> Result<Outcome, String> {
    taken_over(subject, |setup| {
        setup.handler(|query| {
            let digits: String = query.name.chars().filter(char::is_ascii_digit).collect();
            let delay = if digits.ends_with('0') { 0 } else { 6 };
            vec![Act::After(Duration::from_secs(delay), query.answer())]
        })
    })
}

/// A server that objects to this option, or (0) to any OPT record, with how it says so.
fn objects_to(setup: Setup, option: u16, rcode: u16, with_opt: bool) -> Setup {
    setup.handler(move |query| {
        if answers::has_option(query.message, option) {
            vec![Act::Send(answers::objection(query.message, rcode, with_opt))]
        } else {
            query.answer()
        }
    })
}

pub fn objections(subject: &dyn Subject) -> Result<Outcome, String> {
    const OPTIONS: [(&str, u16); 4] =
        [("OPT", 0), ("client subnet", 8), ("keepalive", 11), ("padding", 12)];
    /// RCODE, and whether there is an OPT record with it.
    const HOW: [(u16, bool); 4] =
        [(FORMERR, true), (FORMERR, false), (NOTIMP, true), (NOTIMP, false)];
    const QUERIES: usize = 10;
    /// One with EDNS is asked twice more at most until it is known.
    const SENDS_MAX: usize = QUERIES + 3;

    let mut outcome = Outcome::default();
    for ((what, option), (rcode, with_opt)) in
        OPTIONS.into_iter().flat_map(|option| HOW.map(|how| (option, how)))
    {
        let stage = Stage::one(subject, |setup| objects_to(setup, option, rcode, with_opt))?;
        let mut asker = stage.asker();
        for (n, name) in names("u28", QUERIES).enumerate() {
            let with_edns = n % 2 == 0;
            asker.send_query(&name, A, |query| if with_edns { query.opt(1232) } else { query });
            asker.finish();
        }
        let sends = stage.servers[0].log().queries.len();
        outcome.promise(sends <= SENDS_MAX, || {
            format!("{what}, RCODE {rcode}, OPT {with_opt}: {sends} queries sent for {QUERIES}")
        });
        let part = stage.outcome(&[&asker]);
        outcome.promise(part.answered == QUERIES, || {
            format!("{what}, RCODE {rcode}, OPT {with_opt}: {} answered", part.answered)
        });
        outcome.count(&asker);
        outcome.connections += part.connections;
        outcome.lines.extend(part.lines);
    }
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn one_percent_never(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: usize = 5_000;

    let stage = Stage::one(subject, |setup| {
        setup.handler(
            |query| {
                if query.name.starts_with("never") { Vec::new() } else { query.answer() }
            },
        )
    })?;
    let mut asker = stage.asker();
    let name = |n: usize| match n % 100 {
        50 => format!("never{n}.u24.example"),
        _ => format!("n{n}.u24.example"),
    };
    asker.ask_steadily(Duration::from_millis(2), (0..QUERIES).map(name));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    let wrong = asker
        .queries()
        .iter()
        .filter(|asked| asked.is_answered() == asked.name.starts_with("never"));
    let wrong = wrong.count();
    outcome.promise(wrong == 0, || format!("{wrong} answered that should not be, or the reverse"));
    let slowest = asker.queries().iter().filter(|a| a.is_answered()).filter_map(Asked::delay).max();
    let slowest = slowest.unwrap_or_default();
    outcome.promise(slowest < SLACK, || format!("an answer took {slowest:.1?}"));
    Ok(outcome)
}

/// Asks the first, and others every quarter of a second, of which all that come after three seconds are
/// answered soon.
fn ask_beside(stage: &Stage, first: &str) -> Outcome {
    const EVERY: Duration = Duration::from_millis(250);
    const BY_THEN: Duration = Duration::from_secs(3);
    const SOON: Duration = Duration::from_secs(2);

    let mut asker = stage.asker();
    asker.send(&format!("{first}.u25.example"));
    asker.ask_steadily(EVERY, names("u25", 32));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    for asked in asker.queries().iter().filter(|asked| asked.at >= BY_THEN) {
        let soon = asked.is_answered() && asked.delay().is_some_and(|delay| delay <= SOON);
        outcome.promise(soon, || format!("{}: not answered in {SOON:.1?}", asked.name));
    }
    outcome.promise_connections(&stage.servers[0], 2);
    outcome
}

pub fn trickling_answer(subject: &dyn Subject) -> Result<Outcome, String> {
    const EVERY: Duration = Duration::from_millis(700);

    // Nothing can follow on its connection before it is whole, which takes half a day.
    let mut busy = HashSet::new();
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            if query.name.starts_with("large") {
                busy.insert(query.connection);
                let answer = message::framed(&answers::sized(query.message, 60_000));
                let octets = (0..40)
                    .zip(answer)
                    .map(|(n, octet)| Act::After(EVERY * n, vec![Act::Raw(vec![octet])]));
                return octets.collect();
            }
            if busy.contains(&query.connection) { Vec::new() } else { query.answer() }
        })
    })?;
    Ok(ask_beside(&stage, "large"))
}

pub fn unmatched_answers(subject: &dyn Subject) -> Result<Outcome, String> {
    const EVERY: Duration = Duration::from_millis(700);

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match (query.connection, query.number) {
            (0, 0) => {
                let answer = answers::answer(query.message).expect("a query");
                let other = message::with_id(&answer, message::id(&answer) ^ 0x8000);
                let others = (1..40).map(|n| Act::After(EVERY * n, vec![Act::Send(other.clone())]));
                [Act::Send(answer)].into_iter().chain(others).collect()
            }
            (0, _) => Vec::new(),
            _ => query.answer(),
        })
    })?;
    Ok(ask_beside(&stage, "first"))
}

pub fn large_on_slow_path(subject: &dyn Subject) -> Result<Outcome, String> {
    const PART: usize = 400;
    const EVERY: Duration = Duration::from_millis(20);

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let answer = message::framed(&answers::sized(query.message, 64_000));
            let parts = (0..).zip(answer.chunks(PART));
            parts.map(|(n, part)| Act::After(EVERY * n, vec![Act::Raw(part.to_vec())])).collect()
        })
    })?;
    let mut client = stage.tcp();
    client.send(&Query::new("large.u25.example", TXT).bytes());
    let answered = client.try_receive().is_ok_and(|answer| answer.len() > 60_000);
    let mut outcome = stage.outcome(&[]);
    outcome.count_other(usize::from(answered), 0, usize::from(!answered));
    outcome.promise_all_answered();
    outcome.promise_connections(&stage.servers[0], 1);
    Ok(outcome)
}

/// Works for 150 ms on each query, one of a connection at a time, in the order in which they come.
fn in_turn(setup: Setup) -> Setup {
    const EACH: Duration = Duration::from_millis(150);

    let mut busy_until = HashMap::new();
    setup.handler(move |query| {
        let now = Instant::now();
        let until = busy_until.entry(query.connection).or_insert(now);
        *until = now.max(*until) + EACH;
        vec![Act::After(*until - now, query.answer())]
    })
}

/// Asks bursts of 40, each when the one before is over, all of which are answered.
fn ask_in_bursts(stage: &Stage) -> Outcome {
    let mut askers: Vec<_> = (0..4).map(|_| stage.asker()).collect();
    for (burst, asker) in askers.iter_mut().enumerate() {
        for name in names(&format!("burst{burst}.u27"), 40) {
            asker.send(&name);
        }
        asker.finish();
    }
    let mut outcome = stage.outcome(&askers.iter().collect::<Vec<_>>());
    outcome.promise_all_answered();
    outcome.promise_deadline();
    outcome
}

pub fn one_at_a_time(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, in_turn)?;
    let mut outcome = ask_in_bursts(&stage);
    outcome.promise_connections(&stage.servers[0], 4 * 16);
    Ok(outcome)
}

pub fn one_at_a_time_first(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::two(subject, in_turn)?;
    Ok(ask_in_bursts(&stage))
}
