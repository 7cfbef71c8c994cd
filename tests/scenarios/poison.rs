//! Queries that bring connections down, among others that do not.

use std::collections::HashSet;

use dot_proxy::forwarder::{Closed, Fact};

use crate::sim_support::dns::{NOERROR, SERVFAIL};
use crate::sim_support::{Ask, Do, Response, Step, World, ms};
use crate::{close_after, copies, distant, end, failures, numbered, warm, world, wrong_question};

#[test]
fn u23_one_a_second_that_closes_costs_no_other_query() {
    for round_trip in [20, 60] {
        let w = poisoned(round_trip, |_, round_trip| vec![close_after(round_trip)]);
        let connects = w.links.len();
        assert!(connects <= 1 + 20 * 3, "round trip {round_trip}: {connects} connects");
        let mut codes = poison(&w).into_iter().map(|response| response.extended_error);
        assert!(codes.all(|code| code == Some(23)), "round trip {round_trip}");
        end_poisoned(w, round_trip);
    }
}

#[test]
fn u10_one_a_second_with_a_bad_answer_costs_no_other_query() {
    for round_trip in [20, 60] {
        let w = poisoned(round_trip, |ask, round_trip| {
            vec![Step::after(round_trip, Do::Answer(wrong_question(ask)))]
        });
        for second in 0..20 {
            assert_eq!(copies(&w, &format!("poison{second}.example.")), 2);
        }
        let connects = w.links.len();
        assert!(connects <= 1 + 20 * 2, "round trip {round_trip}: {connects} connects");
        end_poisoned(w, round_trip);
    }
}

#[test]
fn a_query_is_not_blamed_for_a_connection_that_answered_another() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0 | 1, 1) => vec![close_after(10)],
        (2, 1) => vec![ask.answer_after(10), close_after(10)],
        (0..=2, _) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("a.example.");
    w.ask("b.example.");
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    assert_eq!(w.response("b.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn a_query_is_not_blamed_for_the_bad_answers_of_others() {
    let mut w = warm(1);
    let mut lied_about = HashSet::new();
    w.servers[0].replies(move |ask| match ask.name {
        "slow.example." => vec![ask.answer_after(400)],
        name if name.starts_with("bad") && lied_about.insert(name.to_owned()) => {
            vec![Step::after(10, Do::Answer(wrong_question(ask)))]
        }
        _ => vec![ask.answer_after(5)],
    });
    w.ask("slow.example.");
    for n in 0..6 {
        for good in 0..3 {
            w.ask(&numbered(3 * n + good));
        }
        w.ask(&format!("bad{n}.example."));
        w.run_ms(60);
    }
    w.run_ms(1000);
    assert!(copies(&w, "slow.example.") > 3, "{}", copies(&w, "slow.example."));
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn u03_a_server_that_resets_on_every_second_query_costs_none() {
    let mut w = distant(20);
    w.servers[0].replies(|ask| match ask.nth {
        1 => vec![ask.answer_after(20)],
        2 => vec![Step::after(20, Do::Close(Closed::Reset))],
        _ => Vec::new(),
    });
    for n in 0..200 {
        w.ask(&numbered(n));
        w.run_ms(200);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn an_upstream_that_only_brings_queries_down_has_failed() {
    let mut w = warm(2);
    w.servers[0].replies(|_| vec![close_after(5)]);
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(500);
    }
    assert!(failures(&w) <= 1, "{} queries were blamed", failures(&w));
    let failed = |fact: &Fact| matches!(fact, Fact::UpstreamFailed { .. });
    assert_eq!(w.facts.iter().filter(|(_, fact)| failed(fact)).count(), 1, "{:?}", w.facts);
    end(w);
}

/// Twenty seconds of 100 queries each, with one among them that gets `reply`.
fn poisoned(round_trip: u64, reply: fn(&Ask<'_>, u64) -> Vec<Step>) -> World {
    let mut w = distant(round_trip);
    w.servers[0].replies(move |ask| {
        if ask.name.starts_with("poison") {
            reply(ask, round_trip)
        } else {
            vec![ask.answer_after(round_trip)]
        }
    });
    for second in 0..20 {
        for n in 0..100 {
            if n == 50 {
                w.ask_edns(&format!("poison{second}.example."));
            }
            w.ask(&numbered(second * 100 + n));
            w.run_ms(10);
        }
    }
    w.run_ms(4500);
    w
}

fn poison(w: &World) -> Vec<&Response> {
    w.oracle.responses.iter().filter(|response| response.name.starts_with("poison")).collect()
}

fn end_poisoned(w: World, round_trip: u64) {
    let poisonous = poison(&w);
    assert!(poisonous.iter().all(|response| response.rcode == SERVFAIL), "{poisonous:?}");
    assert_eq!(poisonous.len(), 20);
    assert_eq!(failures(&w), 20, "round trip {round_trip}: a good query was lost");
    assert_eq!(w.oracle.responses.len(), 20 + 2000);
    assert_eq!(w.facts, [], "round trip {round_trip}: not the upstream's failure");
    let late = w.oracle.responses.iter().filter(|response| response.rcode == NOERROR);
    let worst = late.map(Response::took).max();
    assert!(worst <= Some(ms(15 * round_trip)), "round trip {round_trip}: {worst:?}");
    end(w);
}
