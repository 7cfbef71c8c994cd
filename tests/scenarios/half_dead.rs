//! Upstreams that answer a part of the names only, or too late.

use dot_proxy::forwarder::{Fact, Hedge, Policy, Stage};

use crate::sim_support::dns::SERVFAIL;
use crate::sim_support::{
    Attempt, Response, Server, What, World, default_limits, default_policy, ms,
};
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
    assert!(
        detail.starts_with("7 of its last 20 queries had no answer in time, each for "),
        "{detail}"
    );
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
    for hedge in [Hedge::Off, Hedge::Same, Hedge::Any] {
        for operators in [[0, 0], [0, 1]] {
            for distinct in [6, 12, 600] {
                let mut w = dead_names(Policy { hedge, ..default_policy() }, &operators);
                for n in 0..600 {
                    w.ask(&numbered(n));
                    w.ask(&format!("dead{}.example.", n % distinct));
                    w.run_ms(100);
                }
                w.run_ms(4500);
                assert_eq!((failures(&w), &w.facts[..]), (600, &[][..]), "{hedge:?} {distinct}");
                let seen = w.links_to(1).iter().flat_map(|link| &link.seen).count();
                if operators == [0, 1] && hedge != Hedge::Any {
                    let allowed = if distinct == 6 { 0 } else { 20 };
                    assert!(seen <= allowed, "another operator sees one name now and then: {seen}");
                }
                end(w);
            }
        }
    }
}

/// Servers of these operators, none of which answers names that begin with "dead".
fn dead_names(policy: Policy, operators: &[usize]) -> World {
    let mut w = half_dead(policy, operators);
    for server in 0..operators.len() {
        w.servers[server].replies(|ask| match ask.name {
            name if name.starts_with("dead") => Vec::new(),
            _ => vec![ask.answer_after(10)],
        });
    }
    w
}

#[test]
fn u26_names_that_nobody_answers_bring_no_other_address_of_the_operator_down() {
    for (hedge, operators) in
        [(Hedge::Same, &[0, 0, 0, 0][..]), (Hedge::Off, &[0, 0]), (Hedge::Any, &[0, 1])]
    {
        let mut w = dead_names(Policy { hedge, ..default_policy() }, operators);
        for n in 0..600 {
            w.ask(&numbered(n));
            if n % 100 == 50 {
                w.ask(&format!("dead{n}.example."));
            }
            w.run_ms(100);
        }
        let dead = failures(&w);
        answers_even_names(&mut w, 0);
        for n in 0..600 {
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        w.run_ms(4500);
        assert_eq!(failures(&w) - dead, 0, "{hedge:?}: {:?}", w.facts);
        end(w);
    }
}

#[test]
fn u26_another_address_that_failed_is_tried_again_when_it_can_help() {
    for (hedge, operators) in [(Hedge::Same, [0, 0]), (Hedge::Off, [0, 0]), (Hedge::Any, [0, 1])] {
        let mut w = half_dead(Policy { hedge, ..default_policy() }, &operators);
        w.servers[1].attempts(Attempt::refused());
        for n in 0..100 {
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        w.servers[1].attempts(Attempt::good(10));
        w.run_ms(10_000);
        let before = failures(&w);
        for n in 100..700 {
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        w.run_ms(4500);
        assert!(failures(&w) - before < 10, "{hedge:?}: {}: {:?}", failures(&w) - before, w.facts);
        end(w);
    }
}

#[test]
fn u26_another_operator_that_failed_is_tried_again_when_it_could_take_over() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for server in &mut w.servers {
        server.attempts(Attempt::refused());
    }
    w.ask(&numbered(0));
    w.run_ms(500);
    w.servers[0].attempts(Attempt::good(10));
    w.run_ms(10_000);
    w.servers[1].attempts(Attempt::good(10));
    let before = failures(&w);
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w.run_ms(4500);
    assert!(failures(&w) - before < 15, "{}: {:?}", failures(&w) - before, w.facts);
    end(w);
}

#[test]
fn u26_the_pause_of_one_ends_by_no_other_that_comes_back() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for n in 0..65 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(w.facts.len(), 1, "{:?}", w.facts);
    let seen = |w: &World| w.links_to(0).iter().flat_map(|link| &link.seen).count();
    let before = seen(&w);
    w.schedule(ms(0), What::ClockSet);
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(20);
    }
    assert_eq!(seen(&w), before, "{:?}", w.facts);
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
