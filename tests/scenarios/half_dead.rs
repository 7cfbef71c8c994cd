//! Upstreams that answer a part of the names only, or too late.

use dot_proxy::forwarder::{Fact, Hedge, Policy, Stage};

use crate::sim_support::dns::SERVFAIL;
use crate::sim_support::{Response, Server, World, default_limits, default_policy, ms};
use crate::{end, failures, numbered, slowest};

/// Servers of these operators, the first of which never answers the odd ones of [`numbered`] names.
fn half_dead(policy: Policy, operators: &[usize]) -> World {
    let servers = operators.iter().map(|_| Server::healthy()).collect();
    let mut w = World::with_policy(default_limits(), policy, servers, operators, 1);
    answers_even_names(&mut w, 0);
    w
}

fn answers_even_names(w: &mut World, server: usize) {
    w.servers[server].replies(|ask| match number(ask.name) % 2 {
        0 => vec![ask.answer_after(10)],
        _ => Vec::new(),
    });
}

fn number(name: &str) -> u32 {
    let digits = name.trim_start_matches('n').split('.').next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[test]
fn u26_what_is_overdue_is_asked_of_another_address_of_the_operator() {
    for hedge in [Hedge::Off, Hedge::Same, Hedge::Any] {
        let mut w = half_dead(Policy { hedge, ..default_policy() }, &[0, 1, 0]);
        for n in 0..40 {
            w.ask(&numbered(n));
            w.run_ms(20);
        }
        w.run_ms(2000);
        assert_eq!((w.oracle.responses.len(), failures(&w)), (40, 0), "{hedge:?}");
        assert!(slowest(&w) <= ms(1500 + 20 + 10), "{:?}", slowest(&w));
        assert_eq!(w.links_to(1).len(), 0, "another operator learns nothing");
        end(w);
    }
}

#[test]
fn u26_what_is_overdue_is_asked_of_another_operator_if_that_is_wanted() {
    for (hedge, lost) in [(Hedge::Any, 0), (Hedge::Same, 5), (Hedge::Off, 5)] {
        let mut w = half_dead(Policy { hedge, ..default_policy() }, &[0, 1]);
        for n in 0..10 {
            w.ask(&numbered(n));
            w.run_ms(20);
        }
        w.run_ms(4500);
        assert_eq!(failures(&w), lost, "{hedge:?}");
        end(w);
    }
}

#[test]
fn u26_another_operator_takes_over_for_one_that_answers_half_of_the_names() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w.run_ms(4500);
    assert!((5..=9).contains(&failures(&w)), "{}", failures(&w));
    let first_lost = w.oracle.responses.iter().find(|r| r.rcode == SERVFAIL).expect("a few");
    let (since, lost) = (first_lost.at + ms(2000), |r: &&Response| r.rcode == SERVFAIL);
    assert_eq!(w.oracle.responses.iter().filter(|r| r.at > since).filter(lost).count(), 0);
    assert_eq!(w.facts.len(), 1, "{:?}", w.facts);
    let Fact::UpstreamFailed { stage: Stage::Read, detail, .. } = &w.facts[0].1 else {
        panic!("{:?}", w.facts);
    };
    assert!(detail.starts_with("7 of its last 20 queries had no answer in time; "), "{detail}");
    end(w);
}

#[test]
fn u26_answers_after_the_deadline_are_none() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| {
        vec![ask.answer_after(if number(ask.name).is_multiple_of(10) { 10 } else { 6000 })]
    });
    for n in 0..300 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w.run_ms(4500);
    assert!(failures(&w) <= 9, "{}", failures(&w));
    assert!(w.facts.len() <= 2, "{:?}", w.facts);
    end(w);
}

#[test]
fn u26_who_answers_again_is_used_again() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for n in 0..200 {
        if n == 100 {
            w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
        }
        w.ask(&numbered(n));
        w.run_ms(200);
    }
    assert!(matches!(&w.facts[1].1, Fact::UpstreamUsable { .. }), "{:?}", w.facts);
    assert_eq!(w.facts.len(), 2);
    let seen = w.links_to(1).iter().flat_map(|link| &link.seen).count();
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!(w.links_to(1).iter().flat_map(|link| &link.seen).count(), seen);
    end(w);
}

#[test]
fn u26_who_comes_and_goes_is_told_of_now_and_then() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    // As an upstream does half of whose servers are broken: for half a minute it reaches these.
    w.servers[0].replies(|ask| match ask.at.as_secs() / 30 % 2 {
        0 if !number(ask.name).is_multiple_of(2) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..6000 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert!(w.facts.len() <= 12, "{:?}", w.facts);
    assert!(failures(&w) <= 60, "{}", failures(&w));
    end(w);
}

#[test]
fn u26_where_all_are_half_dead_queries_go_to_the_best_there_is() {
    for operators in [[0, 0], [0, 1]] {
        let mut w = half_dead(default_policy(), &operators);
        answers_even_names(&mut w, 1);
        for n in 0..600 {
            w.ask(&numbered(n));
            w.run_ms(50);
        }
        w.run_ms(4500);
        assert_eq!(failures(&w), 300, "what neither answers");
        assert!(w.facts.len() <= 2, "{:?}", w.facts);
        end(w);
    }
}

#[test]
fn u26_names_that_nobody_answers_bring_no_upstream_down() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for server in 0..2 {
        w.servers[server].replies(|ask| match ask.name {
            name if name.starts_with("dead") => Vec::new(),
            _ => vec![ask.answer_after(10)],
        });
    }
    for n in 0..600 {
        w.ask(&numbered(n));
        w.ask(&format!("dead{}.example.", n % 6));
        w.run_ms(100);
    }
    w.run_ms(4500);
    assert_eq!((failures(&w), w.facts.len(), w.links_to(1).len()), (600, 0, 0));
    end(w);
}

#[test]
fn u24_one_in_a_hundred_brings_no_upstream_down() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    // As good as random, so that some come together.
    w.servers[0].replies(|ask| {
        let n = u64::from(number(ask.name)) + 1;
        match (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 100 {
            0 => Vec::new(),
            _ => vec![ask.answer_after(10)],
        }
    });
    for n in 0..60_000 {
        w.ask(&numbered(n));
        w.run_ms(1);
    }
    w.run_ms(4500);
    assert!((300..900).contains(&failures(&w)), "{}", failures(&w));
    assert_eq!((&w.facts[..], w.links_to(1).len()), (&[][..], 0));
    end(w);
}
