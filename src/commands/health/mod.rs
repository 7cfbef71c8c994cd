//! Whether the program that runs here answers.
//!
//! The question has EDNS version 1, which is answered with BADVERS by the program itself, under its name, to this host
//! whatever its flags say, and without a line in the query log. So the answer does not depend on upstreams, and an outage
//! of theirs does not have containers restarted in which all is well. [`Health::deep`] asks for the name servers
//! of the root as well, a question that every resolver has the answer to. `place` says where to ask, and `exchange`
//! asks.

mod exchange;
mod place;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{Health, Host};
use crate::forwarder::message::{Ede, Rcode, ResponseCheck, check_response};
use crate::host::os_error::system_error;
use exchange::{Outcome, QUESTION_END, ask, get, query};
use place::Place;

/// Asks, and gives a line that says what answered. The error is one line, with what to do.
pub fn run(health: &Health, host: Host) -> Result<String, String> {
    let deadline = Instant::now() + TIME_MAX;
    let place = Place::of(health, host).ok_or(UNKNOWN_PORT)?;
    if let Some(server) = place.metrics {
        let said = request(server, deadline)?;
        if !health.deep {
            return Ok(said);
        }
    }
    let listeners = place.listeners;
    let elsewhere = if place.is_guessed { ELSEWHERE } else { "" };
    let (listener, _) = ask(&listeners, &query(1), deadline, is_of_this_program)
        .map_err(|outcomes| failure(&outcomes, elsewhere))?;
    if !health.deep {
        return Ok(format!("{listener} answers"));
    }
    let query = query(0);
    match ask(&[listener], &query, deadline, |_, _| Ok(())) {
        Ok((_, answer)) => match problem(&answer, &query) {
            None => Ok(format!("{listener} answers, and so does an upstream")),
            Some(problem) => Err(format!("{listener} answers, but {problem}")),
        },
        Err(outcomes) if outcomes.iter().all(|(_, it)| matches!(it, Outcome::Silence)) => {
            Err(format!(
                "{listener} answers, but no upstream answered in {TIME_MAX:?}; its log says why, unless --deny \
                 or --rate-limit keeps this host from asking"
            ))
        }
        Err(outcomes) => Err(failure(&outcomes, elsewhere)),
    }
}

/// The same at the port of metrics, without a query.
fn request(server: SocketAddr, deadline: Instant) -> Result<String, String> {
    let page = format!("http://{server}{PAGE}");
    match get(server, PAGE, deadline) {
        Ok(status) if status.starts_with("200 ") => Ok(format!("{page} says {status}")),
        Ok(status) => Err(format!("{page} says {status}")),
        Err(outcome) => Err(match &outcome {
            Outcome::Silence => silence(&page),
            Outcome::Wrong(problem) => other(&page, problem),
            Outcome::Failed(error) if error.kind() == ErrorKind::ConnectionRefused => {
                absence(&server.to_string(), "TCP")
            }
            Outcome::Failed(error) => format!("cannot ask {page}: {}", system_error(error)),
        }),
    }
}

/// What is wrong with an answer if another program gave it.
fn is_of_this_program(answer: &[u8], query: &[u8]) -> Result<(), String> {
    let rcode = match check_response(answer, query, QUESTION_END) {
        ResponseCheck::Answer(info) => {
            let mut texts = info.opt.iter().flat_map(|opt| opt.ede_texts(answer));
            if info.rcode == Rcode::BADVERS && texts.any(|text| text == Ede::PROGRAM.text) {
                return Ok(());
            }
            info.rcode
        }
        ResponseCheck::ErrorWithoutQuestion(rcode) => rcode,
        ResponseCheck::Malformed(problem) => return Err(problem.into()),
        ResponseCheck::Unreadable => return Err("its answer cannot be read".into()),
    };
    Err(format!("EDNS version 1 gets {rcode} there, not that of dot-proxy"))
}

/// What is said where no answer was right: of what is most likely this program.
fn failure(outcomes: &[(SocketAddr, Outcome)], elsewhere: &str) -> String {
    let those = |is_one: fn(&Outcome) -> bool| {
        let those = outcomes.iter().filter(|(_, outcome)| is_one(outcome));
        those.map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(" or ")
    };
    let silent = those(|outcome| matches!(outcome, Outcome::Silence));
    if !silent.is_empty() {
        return silence(&silent) + elsewhere;
    }
    for (address, outcome) in outcomes {
        match outcome {
            Outcome::Wrong(problem) => return other(&address.to_string(), problem) + elsewhere,
            Outcome::Failed(error) if error.kind() != ErrorKind::ConnectionRefused => {
                return format!("cannot ask {address}: {}{elsewhere}", system_error(error));
            }
            _ => {}
        }
    }
    absence(&those(|_| true), "UDP") + elsewhere
}

fn silence(asked: &str) -> String {
    format!(
        "{asked} did not answer in {TIME_MAX:?}: what listens there hangs, is not dot-proxy, or is kept from answering \
         by a firewall"
    )
}

fn other(asked: &str, problem: &str) -> String {
    format!("{asked} does not answer as dot-proxy does: {problem}")
}

fn absence(asked: &str, transport: &str) -> String {
    format!("nothing listens on {asked}, {transport}: start it, its log says why it ended")
}

/// What keeps the answer to the deep question from being one, in words.
fn problem(answer: &[u8], query: &[u8]) -> Option<String> {
    let ResponseCheck::Answer(info) = check_response(answer, query, QUESTION_END) else {
        return Some("the answer to a query for . NS cannot be read".into());
    };
    if info.rcode == Rcode::NOERROR {
        let is_truncated = answer[2] & 0x02 != 0;
        return is_truncated.then(|| {
            "it limits the rate of this host: leave 127.0.0.0/8 and ::1 out with --rate-exempt"
                .into()
        });
    }
    let rcode = info.rcode;
    let text = info.opt.and_then(|opt| opt.ede_texts(answer).next());
    let because = text.map_or(String::new(), |text| format!(": {}", text.escape_debug()));
    Some(format!("a query for . NS got {rcode}{because}"))
}

/// It is served as long as the loop turns.
const PAGE: &str = "/healthz";

const ELSEWHERE: &str = "; if it listens elsewhere, give --listen ADDR:PORT";

const UNKNOWN_PORT: &str = "it serves a port that the system chose; give --listen ADDR:PORT with the one that it \
                            printed at its start";

/// Whoever asks for health has a limit of a second or more.
const TIME_MAX: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_deep_answer_says_is_told() {
        let query = query(0);
        let answer = |flags: [u8; 2]| {
            let mut answer = query.clone();
            answer[2..4].copy_from_slice(&flags);
            answer
        };
        assert_eq!(problem(&answer([0x81, 0x80]), &query), None);
        let said = |flags| problem(&answer(flags), &query).unwrap_or_default();
        assert!(said([0x81, 0x82]).contains("SERVFAIL"));
        assert!(said([0x81, 0x85]).contains("REFUSED"));
        assert!(said([0x83, 0x80]).contains("--rate-exempt"));
    }
}
