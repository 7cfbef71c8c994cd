//! Upstreams that answer a part of the names only, or too late.

use dot_proxy::forwarder::{Hedge, Policy};

use crate::sim_support::{Server, World, default_limits, default_policy, ms};
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
