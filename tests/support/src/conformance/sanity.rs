//! What a message must be. Statements 58 to 61.

use super::client::Client;
use super::proxying::{is_answer, rcode};
use super::transports;
use crate::answers;
use crate::forwarder::outcome::Outcome;
use crate::forwarder::stage::Stage;
use crate::forwarder::subject::Subject;
use crate::message::{self, A, AXFR, FORMERR, NOERROR, NOTIMP, QR, RA, RD, TXT};
use crate::view::View;
use crate::{Act, Query, Random};

const OPCODE: u16 = 0x7800;
const CD: u16 = 0x10;

pub fn local_answers(subject: &dyn Subject) -> Result<Outcome, String> {
    let stage = Stage::one(subject, |setup| setup)?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let one = Query::new("a.s58.example", A).id(0x500).bytes();
    let mut two = [&one[..], &one[12..]].concat();
    two[5] = 2;
    for (what, response) in [("UDP", client.exchange(&two)), ("TCP", client.exchange_tcp(&two))] {
        // The header says it all; what follows may not be readable.
        let seen = response.map(|octets| message::flags(&octets) & 15);
        outcome.promise(seen == Some(FORMERR), || format!("two questions, {what}: RCODE {seen:?}"));
    }
    let with_opt = Query::new("a.s58.example", A).id(0x501).opt(1_232).bytes();
    for qdcount in [0, 2] {
        let mut query = match qdcount {
            0 => [&with_opt[..12], &with_opt[one.len()..]].concat(),
            _ => [&one[..], &one[12..], &with_opt[one.len()..]].concat(),
        };
        (query[5], query[11]) = (qdcount, 1);
        let opts = client.exchange(&query).and_then(|octets| Some(View::read(&octets)?.opts()));
        outcome.promise(opts == Some(1), || format!("QDCOUNT {qdcount}: {opts:?} OPT records"));
    }
    for (n, (what, flags)) in [("IQUERY", 1 << 11), ("UPDATE", 5 << 11), ("DSO", 6 << 11)]
        .into_iter()
        .flat_map(|(what, opcode)| [(what, opcode), (what, opcode | RD)])
        .enumerate()
    {
        let id = 0x600 + n as u16;
        let query = Query::new("a.s58.example", A).id(id).flags(flags | CD).opt(1_232);
        let response = client.exchange(&query.bytes());
        let seen = response.as_ref().map(|octets| message::flags(octets));
        // No other flag means anything under an opcode that one does not know (RFC 8906 section 3.1.4).
        let copied = seen.is_some_and(|seen| seen == QR | flags & OPCODE | NOTIMP);
        outcome.promise(copied, || format!("{what}: flags {flags:04x} became {seen:04x?}"));
        let opts = response.and_then(|octets| Some(View::read(&octets)?.opts()));
        outcome.promise(opts == Some(1), || format!("{what}: {opts:?} OPT records"));
    }
    for flags in [0, RD] {
        let query = Query::new("wWw.S58.ExAmPlE", AXFR).flags(flags).id(0x700 | flags);
        let octets = query.bytes();
        let response = client.exchange(&octets);
        let view = response.as_ref().and_then(|octets| View::read(octets));
        let local = view.is_some_and(|view| {
            view.question() == &octets[12..] && view.flags() & (RD | RA) == flags | RA
        });
        outcome.promise(local, || {
            format!("AXFR: RCODE {:?}, not with its question, RD and RA", rcode(response.as_ref()))
        });
    }
    Ok(outcome)
}

pub fn only_responses(subject: &dyn Subject) -> Result<Outcome, String> {
    transports::bad_answers(subject, "s59", &["query", "opcode"])
}

pub fn spelling(subject: &dyn Subject) -> Result<Outcome, String> {
    // The server writes all names in small letters, or as they were sent.
    let stage = Stage::one(subject, |setup| {
        setup.handler(|query| {
            let mut answer = answers::answer(query.message).expect("a query");
            if query.name.starts_with("small") {
                let end = message::question_end(&answer).expect("an answer") - 4;
                answer[12..end].make_ascii_lowercase();
            }
            vec![Act::Send(answer)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    for (what, name) in [("as sent", "kEpT.S60.ExAmPlE"), ("in small letters", "sMaLl.S60.ExAmPlE")]
    {
        let query = Query::new(name, A);
        let response = client.ask(&query);
        outcome.promise(is_answer(response.as_ref()), || {
            format!("{what}: RCODE {:?}", rcode(response.as_ref()))
        });
        let expected = query.bytes()[12..].to_vec();
        let view = response.as_ref().and_then(|octets| View::read(octets));
        let seen = view.map(|view| view.question().to_vec());
        outcome.promise(seen == Some(expected), || format!("{what}: another spelling arrives"));
    }
    let log = stage.servers[0].log();
    let wire = message::wire_name("kEpT.S60.ExAmPlE");
    let sent = log.queries.iter().any(|(_, query)| query[12..].starts_with(&wire));
    outcome.promise(sent, || "the client's spelling does not arrive upstream".to_owned());
    Ok(outcome)
}

/// Something wrong at one place, after this many octets.
fn damage(random: &mut Random, octets: &mut Vec<u8>, from: usize) {
    let at = from + random.index((octets.len() - from).max(1));
    match random.below(4) {
        0 => octets.truncate(at),
        1 => {
            let pointer = (0xc000 | random.below(0x200) as u16).to_be_bytes();
            octets.truncate(at);
            octets.extend(pointer);
        }
        2 => octets[at] = random.next_u64() as u8,
        _ => octets[at] ^= 0x40,
    }
}

pub fn garbage(subject: &dyn Subject) -> Result<Outcome, String> {
    const MESSAGES: usize = 2_000;

    let mut bad = Random::new(0x5eed);
    let stage = Stage::one(subject, |setup| {
        setup.handler(move |query| {
            let mut answer = answers::answer(query.message).expect("a query");
            if query.name.starts_with("bad") {
                let end = message::question_end(&answer).expect("an answer");
                damage(&mut bad, &mut answer, end);
            }
            vec![Act::Send(answer)]
        })
    })?;
    let mut client = Client::new(&stage);
    let mut outcome = Outcome::default();
    let mut garbage = Random::new(0xbad);
    for n in 0..MESSAGES {
        let mut octets = Query::new(&format!("g{n}.s61.example"), TXT).opt(1_232).bytes();
        match n % 4 {
            0 => {
                let length = garbage.index(200);
                octets = garbage.octets(length);
            }
            _ => damage(&mut garbage, &mut octets, 4),
        }
        client.send(&octets);
        if n % 50 == 0 {
            // Keeps the receive buffer from overflowing, and tells when it is over.
            let response = Client::new(&stage).ask(&Query::new(&format!("n{n}.s61.example"), A));
            if !is_answer(response.as_ref()) {
                outcome.promise(false, || format!("no answer after {n} bad messages"));
                return Ok(outcome);
            }
        }
    }
    let mut client = Client::new(&stage);
    for n in 0..200 {
        let query = Query::new(&format!("bad{n}.s61.example"), A);
        let response = client.ask(&query);
        // Whatever comes can be read.
        let readable = response.as_ref().is_some_and(|octets| View::read(octets).is_some());
        outcome.promise(readable, || format!("bad answer {n}: nothing readable was delivered"));
        if outcome.broken.len() > 3 {
            break;
        }
    }
    let response = client.ask(&Query::new("last.s61.example", A));
    outcome.promise(rcode(response.as_ref()) == Some(NOERROR), || {
        "no answer when it was over".to_owned()
    });
    Ok(outcome)
}
