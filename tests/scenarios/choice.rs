//! Which upstream gets a query.

use dot_proxy::forwarder::{Closed, Fact, Order, Policy, Stage};

use crate::sim_support::{Attempt, Server, World, default_limits, default_policy, ms};
use crate::{close_after, end, failures, numbered, slowest};

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
        .facts
        .iter()
        .map(|(_, fact)| match fact {
            Fact::UpstreamFailed { stage, .. } => *stage,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(stages, [Stage::Connect, Stage::Certificate]);
    end(w);
}
