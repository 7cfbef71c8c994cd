//! Which upstream gets a query, also where some answer a part of the names only, or too late.

use dot_proxy::forwarder::{Closed, Hedge, Notice, Order, Policy, Stage};

use crate::{close_after, end, failures, numbered, slowest};
use simulator::dns::SERVFAIL;
use simulator::{Attempt, Response, Server, What, World, default_limits, default_policy, ms};

fn world_by(order: Order, servers: usize) -> World {
    let policy = Policy { order, ..default_policy() };
    let operators: Vec<usize> = (0..servers).collect();
    let servers = operators.iter().map(|_| Server::healthy()).collect();
    World::with_policy(default_limits(), policy, servers, &operators, 1)
}

/// Queries each server got.
fn shares(w: &World) -> Vec<usize> {
    let seen = |server| w.links_to(server).iter().map(|link| link.seen.len()).sum();
    (0..w.servers.len()).map(seen).collect()
}

fn ask_steadily(w: &mut World, queries: u32, pause: u64) {
    let first = w.oracle.responses.len() as u32;
    for n in first..first + queries {
        w.ask(&numbered(n));
        w.run_ms(pause);
    }
}

#[test]
fn fastest_finds_the_fastest_and_stays_with_it() {
    let mut w = world_by(Order::Fastest, 3);
    for (server, round_trip) in [80, 20, 50].into_iter().enumerate() {
        w.servers[server].replies(move |ask| vec![ask.answer_after(round_trip)]);
    }
    ask_steadily(&mut w, 1000, 100);
    w.run_ms(100);
    let shares = shares(&w);
    assert!(shares[1] >= 980, "{shares:?}");
    assert!(shares[0] >= 1 && shares[2] >= 1, "all were tried: {shares:?}");
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn fastest_notices_that_another_became_faster() {
    let mut w = world_by(Order::Fastest, 2);
    w.servers[0].replies(|ask| vec![ask.answer_after(20)]);
    w.servers[1].replies(|ask| vec![ask.answer_after(if ask.at < ms(60_000) { 100 } else { 5 })]);
    ask_steadily(&mut w, 600, 100);
    let before = shares(&w)[1];
    assert!(before <= 5, "{before}");
    ask_steadily(&mut w, 6000, 100);
    let after = shares(&w)[1];
    assert!(after >= 3000, "{after}");
    end(w);
}

#[test]
fn fastest_does_not_wait_for_a_connection_to_one_that_is_unknown() {
    let mut w = world_by(Order::Fastest, 2);
    w.servers[1].attempts(Attempt::black_hole());
    ask_steadily(&mut w, 100, 100);
    w.run_ms(100);
    assert_eq!(
        slowest(&w),
        ms(30),
        "the first one waits for its handshake, nobody for the second's"
    );
    end(w);
}

#[test]
fn spread_gives_each_its_part() {
    let mut w = world_by(Order::Spread, 4);
    ask_steadily(&mut w, 400, 20);
    w.run_ms(100);
    let shares = shares(&w);
    assert!(shares.iter().all(|share| (90..=110).contains(share)), "{shares:?}");
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn spread_gives_a_slow_one_less() {
    let mut w = world_by(Order::Spread, 2);
    w.servers[1].replies(|ask| vec![ask.answer_after(200)]);
    ask_steadily(&mut w, 1000, 5);
    w.run_ms(300);
    let shares = shares(&w);
    assert!(shares[1] < shares[0] / 4, "{shares:?}");
    end(w);
}

#[test]
fn the_others_serve_while_one_is_down_and_it_gets_its_part_again() {
    for order in [Order::Fastest, Order::Spread] {
        let mut w = world_by(order, 2);
        ask_steadily(&mut w, 50, 50);
        w.servers[0].attempts(Attempt::refused());
        w.servers[0].replies(|_| vec![close_after(1)]);
        ask_steadily(&mut w, 200, 50);
        w.servers[0].attempts(Attempt::good(10));
        w.servers[0].replies(|ask| vec![ask.answer_after(1)]);
        let before = shares(&w)[0];
        ask_steadily(&mut w, 400, 50);
        w.run_ms(100);
        assert_eq!(failures(&w), 0, "{order:?}");
        assert!(shares(&w)[0] >= before + 100, "{order:?}: {:?}", shares(&w));
        end(w);
    }
}

#[test]
fn ordered_asks_the_first_alone() {
    let mut w = world_by(Order::Ordered, 3);
    w.servers[0].replies(|ask| vec![ask.answer_after(80)]);
    w.servers[0].idle_close = Some(ms(1500));
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(2000);
    }
    assert_eq!(shares(&w), [20, 0, 0]);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_restart_of_two_seconds_costs_no_query() {
    let mut w = world_by(Order::Ordered, 1);
    ask_steadily(&mut w, 20, 20);
    w.servers[0].attempts(Attempt::refused());
    w.serve(0, crate::Do::Close(Closed::Reset));
    ask_steadily(&mut w, 400, 5);
    w.servers[0].attempts(Attempt::good(10));
    ask_steadily(&mut w, 400, 5);
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(3300));
    end(w);
}

#[test]
fn spread_gives_its_part_to_one_whose_connections_do_not_last() {
    let mut w = world_by(Order::Spread, 2);
    w.servers[0].idle_close = Some(ms(500));
    ask_steadily(&mut w, 40, 2000);
    let shares = shares(&w);
    assert!(shares[0] >= 16 && shares[1] >= 16, "{shares:?}");
    assert_eq!((failures(&w), slowest(&w)), (0, ms(30)));
    end(w);
}

#[test]
fn a_certificate_that_turns_out_wrong_during_an_outage_is_told() {
    let mut w = world_by(Order::Ordered, 1);
    w.servers[0].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(500);
    w.servers[0].attempts(Attempt::failed(Stage::Certificate, "unknown issuer"));
    for n in 0..10 {
        w.ask(&numbered(n));
        w.run_ms(500);
    }
    let stages: Vec<_> = w
        .notices
        .iter()
        .map(|(_, notice)| match notice {
            Notice::UpstreamFailed { stage, .. } => *stage,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(stages, [Stage::Connect, Stage::Certificate]);
    end(w);
}

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
    assert_eq!(w.notices.len(), 1, "{:?}", w.notices);
    let Notice::UpstreamFailed { stage: Stage::Read, detail, .. } = &w.notices[0].1 else {
        panic!("{:?}", w.notices);
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
    assert!(w.notices.len() <= 2, "{:?}", w.notices);
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
    assert!(matches!(&w.notices[1].1, Notice::UpstreamUsable { .. }), "{:?}", w.notices);
    assert_eq!(w.notices.len(), 2);
    let seen = w.links_to(1).iter().flat_map(|link| &link.seen).count();
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!(w.links_to(1).iter().flat_map(|link| &link.seen).count(), seen);
    end(w);
}

#[test]
fn u26_who_comes_and_goes_is_told_of_now_and_then() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    // Half of the servers behind this upstream are broken: for half a minute it reaches these.
    w.servers[0].replies(|ask| match ask.at.as_secs() / 30 % 2 {
        0 if !number(ask.name).is_multiple_of(2) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..6000 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert!(w.notices.len() <= 12, "{:?}", w.notices);
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
        assert!(w.notices.len() <= 2, "{:?}", w.notices);
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
                assert_eq!((failures(&w), &w.notices[..]), (600, &[][..]), "{hedge:?} {distinct}");
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
        assert_eq!(failures(&w) - dead, 0, "{hedge:?}: {:?}", w.notices);
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
        assert!(
            failures(&w) - before < 10,
            "{hedge:?}: {}: {:?}",
            failures(&w) - before,
            w.notices
        );
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
    assert!(failures(&w) - before < 15, "{}: {:?}", failures(&w) - before, w.notices);
    end(w);
}

#[test]
fn u26_the_pause_of_one_ends_by_no_other_that_comes_back() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    for n in 0..65 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(w.notices.len(), 1, "{:?}", w.notices);
    let seen = |w: &World| w.links_to(0).iter().flat_map(|link| &link.seen).count();
    let before = seen(&w);
    w.schedule(ms(0), What::ClockSet);
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(20);
    }
    assert_eq!(seen(&w), before, "{:?}", w.notices);
    end(w);
}

#[test]
fn u24_one_in_a_hundred_brings_no_upstream_down() {
    let mut w = half_dead(default_policy(), &[0, 1]);
    // Numbers as good as random, so that some come together.
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
    assert_eq!((&w.notices[..], w.links_to(1).len()), (&[][..], 0));
    end(w);
}
