//! Upstreams that misbehave about their connections: U1 to U4, U13, U15, U16, U20, U22.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::answers;
use crate::forwarder::asker::{Asked, Asker};
use crate::forwarder::outcome::{Outcome, SLACK};
use crate::forwarder::stage::{self, Idle, NAME, Stage};
use crate::forwarder::subject::{Subject, own_host};
use crate::server::log::Ended;
use crate::{Act, Authority, DotServer, End, Setup};

fn names(row: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("n{n}.{row}.example"))
}

pub fn fin_after_every_answer(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| [query.answer(), vec![Act::End(End::Fin)]].concat())
    })?;
    let mut asker = stage.asker();
    asker.ask_each(names("u1", 500));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn fin_after_idle(subject: &dyn Subject) -> Result<Outcome, String> {
    const IDLE: Duration = Duration::from_millis(1_500);
    /// Well behind the close and, as they are measured from the answer, about when it comes.
    const GAPS_MS: [u64; 8] = [2_000, 1_490, 1_496, 1_499, 1_501, 1_504, 1_510, 2_000];

    let stage = Stage::one(subject, |setup| Setup { idle: Some((IDLE, End::Fin)), ..setup })?;
    let mut asker = stage.asker();
    asker.ask("first.u2.example");
    for (n, gap) in GAPS_MS.into_iter().enumerate() {
        asker.listen(Duration::from_millis(gap));
        asker.ask(&format!("n{n}.u2.example"));
    }
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn rst_on_second_query(subject: &dyn Subject) -> Result<Outcome, String> {
    const QUERIES: usize = 50;

    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match query.number {
            0 => query.answer(),
            _ => vec![Act::End(End::Reset)],
        })
    })?;
    let mut asker = stage.asker();
    asker.ask_each(names("u3", QUERIES));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_connections(&stage.servers[0], QUERIES);
    Ok(outcome)
}

pub fn forgotten_connection(subject: &dyn Subject) -> Result<Outcome, String> {
    /// 0.4 s, and as much again for the handshake and a slow machine.
    const VICTIM: Duration = Duration::from_millis(800);
    const LONE: Duration = Duration::from_secs(1);
    const EVERY: Duration = Duration::from_millis(50);

    // The first connection is forgotten by its server in the middle of the traffic, and the second by a NAT, behind
    // which nothing arrives any more, when there is none.
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match (query.connection, query.number) {
            (0, 20) => vec![Act::End(End::Forget)],
            _ if query.name.starts_with("last.") => {
                let forgotten = vec![Act::End(End::Unreachable)];
                [query.answer(), vec![Act::After(EVERY, forgotten)]].concat()
            }
            _ => query.answer(),
        })
    })?;
    let mut asker = stage.asker();
    asker.ask_steadily(EVERY, names("u4", 140));
    asker.finish();
    let mut lone = stage.asker();
    lone.ask("last.u4.example");
    lone.listen(4 * EVERY);
    lone.ask("lone.u4.example");
    let mut outcome = stage.outcome(&[&asker, &lone]);
    outcome.promise_all_answered();
    outcome.promise_within(LONE);
    let slowest = |asked: &mut dyn Iterator<Item = &Asked>| {
        asked.filter_map(Asked::delay).max().unwrap_or_default()
    };
    let victim = slowest(&mut asker.queries().iter());
    outcome.promise(victim < VICTIM, || format!("one in the traffic took {victim:.1?}"));
    let mut later = asker.queries().iter().filter(|asked| asked.at > EVERY * 20 + VICTIM);
    let late = slowest(&mut later);
    outcome.promise(late < VICTIM / 2, || format!("a later one took {late:.1?}"));
    outcome.promise_connections(&stage.servers[0], 3);
    Ok(outcome)
}

pub fn never_a_clean_close(subject: &dyn Subject) -> Result<Outcome, String> {
    const CONNECTIONS: usize = 20;

    // FIN without close_notify instead of every fifth answer, and no end when we have ended.
    let stage = Stage::one(subject, |setup| {
        let setup = Setup { closes_back: false, ..setup };
        setup.handler(|query| match query.number {
            4 => vec![Act::End(End::Fin)],
            _ => query.answer(),
        })
    })?;
    let mut asker = stage.asker();
    asker.ask("first.u13.example");
    let files_before = stage.running.open_files();
    asker.ask_each(names("u13", 4 * CONNECTIONS));
    let files_after = stage.running.open_files();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    if let (Some(before), Some(after)) = (files_before, files_after) {
        outcome.promise(after < before + CONNECTIONS / 2, || {
            format!("{after} open files at the end, {before} at the start")
        });
    }
    Ok(outcome)
}

/// Closes an idle connection itself, and does not wait for the server's close: needs the idle time.
pub fn close_never_returned(subject: &dyn Subject) -> Result<Outcome, String> {
    let idle = Idle { upstream: Some(1), ..Idle::default() };
    let stage = Stage::one_idle(subject, idle, |setup| Setup { closes_back: false, ..setup })?;
    let mut asker = stage.asker();
    for n in 0..3 {
        asker.ask(&format!("n{n}.u13.example"));
        stage.servers[0].await_log("close_notify", |log| {
            log.connections.get(n).is_some_and(|log| log.ended == Some(Ended::Notify))
        });
    }
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}

pub fn ticket_key_changed(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat())
    })?;
    let mut asker = stage.asker();
    for round in 0..3 {
        if round > 0 {
            stage.servers[0].replace_identity(stage.authority.identity(NAME));
        }
        asker.ask_each(names(&format!("round{round}.u15"), 10));
    }
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    let (mut full, mut resumed) = (0, 0);
    for handshake in stage.servers[0].log().handshakes() {
        *if handshake.resumed { &mut resumed } else { &mut full } += 1;
    }
    outcome.note(format!("{full} full handshakes, {resumed} resumed"));
    Ok(outcome)
}

/// Says in its answers how long it keeps an idle connection, in units of 100 ms (RFC 7828).
fn keeping_alive(setup: Setup, timeout: u16) -> Setup {
    const KEEPALIVE: u16 = 11;

    setup.handler(move |query| {
        let answer = answers::answer(query.message).into_iter();
        let answer =
            answer.map(|answer| answers::with_option(answer, KEEPALIVE, &timeout.to_be_bytes()));
        answer.map(Act::Send).collect()
    })
}

pub fn keepalive_zero(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| keeping_alive(setup, 0))?;
    let mut asker = stage.asker();
    asker.ask_each(names("u16", 10));
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    // Drained already: each query came when the answer before it had gone.
    let log = stage.servers[0].log();
    let more = log.connections.iter().filter(|connection| connection.queries > 1).count();
    outcome.promise(more == 0, || format!("{more} connections used after TIMEOUT 0"));
    Ok(outcome)
}

pub fn keepalive_one_second(subject: &dyn Subject) -> Result<Outcome, String> {
    /// The server keeps connections longer than it says, for the sake of a slow machine.
    const REALLY: Duration = Duration::from_millis(1_600);
    const GAP: Duration = Duration::from_millis(1_200);

    let stage = Stage::one(subject, |setup| {
        let setup = Setup { idle: Some((REALLY, End::Reset)), ..setup };
        keeping_alive(setup, 10)
    })?;
    let mut asker = stage.asker();
    for n in 0..6 {
        asker.ask(&format!("n{n}.u16.example"));
        asker.listen(GAP);
    }
    asker.listen(REALLY);
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    let log = stage.servers[0].log();
    let more = log.connections.iter().filter(|connection| connection.queries > 1).count();
    outcome.promise(more == 0, || format!("{more} connections used after their TIMEOUT"));
    let late = log.connections.iter().filter(|connection| connection.idled_out).count();
    outcome.promise(late == 0, || format!("{late} connections left for the server to close"));
    Ok(outcome)
}

pub fn outage(subject: &dyn Subject) -> Result<Outcome, String> {
    const EVERY: Duration = Duration::from_millis(500);
    /// For 30 s.
    const OUTAGE_QUERIES: usize = 60;
    const BACK: Duration = Duration::from_secs(5);
    const LONGEST_RETURN: Duration = Duration::from_secs(30);

    let authority = Authority::new();
    let address = SocketAddr::from((own_host(), 8853));
    let serve = || {
        let setup = stage::good(&authority, NAME);
        DotServer::start_on(address, setup).expect("an address of our own")
    };
    let server = serve();
    let running = stage::run(subject, &authority, &[(address, NAME)], Idle::default())?;
    let mut asker = Asker::new(running.address());
    asker.ask_each(names("before.u20", 5));
    let mut connections = server.log().connections.len();
    drop(server);
    asker.ask_steadily(EVERY, names("during.u20", OUTAGE_QUERIES));
    let lines = running.lines().len();

    let server = serve();
    let (back, since) = (Instant::now(), asker.queries().len());
    while back.elapsed() < LONGEST_RETURN {
        asker.ask_steadily(EVERY, names(&format!("after{}.u20", asker.queries().len()), 2));
        if asker.queries()[since..].iter().any(Asked::is_answered) {
            break;
        }
    }
    let returned = asker.queries()[since..]
        .iter()
        .find(|asked| asked.is_answered())
        .map(|asked| asked.at + asked.delay().expect("it is answered"));
    let first = asker.queries()[since].at;
    asker.ask_each(names("again.u20", 5));
    asker.finish();
    connections += server.log().connections.len();

    let mut outcome = Outcome { connections, lines: running.end(), ..Outcome::default() };
    outcome.count(&asker);
    outcome.promise_none_lost();
    outcome.promise_deadline();
    match returned.map(|at| at.saturating_sub(first)) {
        Some(after) => {
            outcome.promise(after < BACK, || format!("answers {after:.1?} after the return"));
            outcome.note(format!("answers {:.1} s after the return", after.as_secs_f32()));
        }
        None => outcome.promise(false, || "no answers after the return".to_owned()),
    }
    outcome.promise(lines <= 12, || format!("{lines} log lines"));
    Ok(outcome)
}

pub fn close_every_twenty(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| match query.number {
            19 => [query.answer(), vec![Act::End(End::Notify)]].concat(),
            _ => query.answer(),
        })
    })?;
    let mut asker = stage.asker();
    asker.ask_steadily(Duration::from_millis(5), names("u22", 1_000));
    asker.finish();
    let mut outcome = stage.outcome(&[&asker]);
    outcome.promise_all_answered();
    outcome.promise_within(SLACK);
    Ok(outcome)
}
