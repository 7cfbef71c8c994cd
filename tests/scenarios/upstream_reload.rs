//! Other upstreams and other choices while queries are under way.

use std::time::Duration;

use dot_proxy::forwarder::{Access, Limits, Order, Policy, Prefix, Rate, UpstreamIndex};

use crate::{copies, end, failures, numbered, warm, world, world_of};
use simulator::dns::{self, NOERROR, SERVFAIL};
use simulator::{Ask, Attempt, Server, State, Step, What, World, default_limits, default_policy};

/// These servers are asked from now on, those with `true` as others in the place of the ones before.
fn ask_of(w: &mut World, asked: &[(usize, bool)]) {
    w.schedule(Duration::ZERO, What::Upstreams { asked: asked.to_vec() });
    w.run_ms(1);
}

/// Slow, and not so slow that its connection stalls.
fn slow_name(ask: &Ask<'_>) -> Vec<Step> {
    vec![ask.answer_after(if ask.name == "slow.example." { 1_200 } else { 10 })]
}

/// Names that begin so are slow at these servers.
fn slow_names(ask: &Ask<'_>) -> Vec<Step> {
    vec![ask.answer_after(if ask.name.starts_with("slow") { 1_200 } else { 10 })]
}

fn is_free(w: &World, server: usize) -> bool {
    w.forwarder.free_upstreams().any(|index| index == UpstreamIndex::new(server))
}

/// How many connections to a server are open.
fn open(w: &World, server: usize) -> usize {
    w.links_to(server).iter().filter(|link| link.is_open()).count()
}

#[test]
fn what_is_in_flight_on_one_that_is_removed_is_answered_there() {
    let mut w = warm(2);
    w.servers[0].replies(slow_name);
    w.ask("slow.example.");
    w.run_ms(5);
    ask_of(&mut w, &[(1, false)]);
    w.ask("new.example.");
    w.run_ms(100);
    assert_eq!(w.response("new.example.").rcode, NOERROR);
    assert_eq!(w.links_to(1).iter().map(|link| link.seen.len()).sum::<usize>(), 1);
    assert_eq!((open(&w, 0), is_free(&w, 0)), (1, false));
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    w.run_ms(3_000);
    assert_eq!(w.response("slow.example.").rcode, NOERROR);
    assert_eq!((open(&w, 0), is_free(&w, 0)), (0, true));
    assert_eq!(failures(&w), 0);
    end(w);
}

/// Where there are no more places for connections than for upstreams, those to upstreams that are removed make way.
#[test]
fn all_upstreams_are_replaced_at_once_where_places_for_connections_are_few() {
    let limits = Limits { upstream_conns_max: 4, ..default_limits() };
    let policy = Policy { order: Order::Spread, ..default_policy() };
    let servers = (0..8).map(|_| Server::healthy()).collect();
    let mut w = World::with_policy(limits, policy, servers, &[0, 1, 2, 3, 4, 5, 6, 7], 1);
    let all = |from: usize| (from..from + 4).map(|server| (server, from > 0)).collect::<Vec<_>>();
    ask_of(&mut w, &all(0));
    for server in 0..4 {
        w.servers[server].replies(slow_names);
    }
    for n in 0..16 {
        w.ask(&format!("slow{n}.example."));
        w.run_ms(20);
    }
    assert_eq!((0..4).map(|server| open(&w, server)).sum::<usize>(), 4);
    ask_of(&mut w, &all(4));
    for n in 0..16 {
        w.ask(&numbered(n));
        w.run_ms(20);
    }
    w.run_ms(200);
    let slowest = (0..16).map(|n| w.response(&numbered(n)).took()).max();
    assert!(slowest.is_some_and(|took| took < Duration::from_millis(100)), "{slowest:?}");
    w.run_ms(3_000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 32));
    assert!((0..4).all(|server| is_free(&w, server)));
    end(w);
}

#[test]
fn what_waits_for_a_connection_to_one_that_is_removed_goes_to_another_at_once() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::slow_tls(4_000));
    w.ask("a.example.");
    w.run_ms(100);
    assert!(!w.is_answered("a.example."));
    ask_of(&mut w, &[(1, false)]);
    w.run_ms(40);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!((open(&w, 0), is_free(&w, 0)), (0, true));
    end(w);
}

#[test]
fn what_one_that_is_removed_does_not_answer_goes_to_another() {
    let mut w = warm(2);
    w.servers[0].replies(|_| Vec::new());
    w.ask("a.example.");
    w.run_ms(5);
    ask_of(&mut w, &[(1, false)]);
    w.run_ms(2_000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    // Its silence is nobody's concern any more.
    assert_eq!(w.notices, []);
    w.run_ms(60_000);
    assert!(is_free(&w, 0));
    end(w);
}

#[test]
fn connections_of_one_that_stays_stay_whatever_its_place() {
    let mut w = warm(2);
    ask_of(&mut w, &[(1, false), (0, false)]);
    // It is the first now.
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!(w.links_to(1).len(), 1);
    ask_of(&mut w, &[(0, false)]);
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!((w.links.len(), w.links_to(0).len(), open(&w, 1)), (2, 1, 0));
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_new_one_in_the_place_of_the_old_has_connections_of_its_own() {
    let mut w = warm(1);
    w.servers[0].replies(slow_name);
    w.ask("slow.example.");
    w.run_ms(5);
    for _ in 0..3 {
        ask_of(&mut w, &[(0, true)]);
        w.ask("slow.example.");
        w.run_ms(50);
    }
    assert_eq!((w.links.len(), open(&w, 0)), (4, 4));
    w.ask("a.example.");
    w.run_ms(50);
    assert_eq!(w.links[3].seen.last().map(|seen| &*seen.name), Some("a.example."));
    w.run_ms(4_000);
    assert_eq!((failures(&w), open(&w, 0)), (0, 1));
    end(w);
}

#[test]
fn all_are_replaced_under_load_and_nothing_is_lost() {
    let mut w = warm(3);
    for round in 0..30 {
        for n in 0..10 {
            w.ask(&numbered(round * 10 + n));
            w.run_ms(1);
        }
        let next = round as usize % 3;
        let is_new = is_free(&w, next);
        ask_of(&mut w, &[(next, is_new)]);
    }
    w.run_ms(200);
    assert_eq!(failures(&w), 0);
    assert!((0..300).all(|n| w.response(&numbered(n)).rcode == NOERROR));
    end(w);
}

#[test]
fn a_held_answer_is_delivered_when_nobody_else_is_asked_any_more() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| {
        vec![Step::after(
            10,
            simulator::Do::Answer(dns::answer(ask.message, ask.serial, SERVFAIL, 0)),
        )]
    });
    w.servers[1].attempts(Attempt::slow_tls(4_000));
    w.ask("a.example.");
    w.run_ms(100);
    assert!(!w.is_answered("a.example."), "a better answer may come");
    ask_of(&mut w, &[(0, false)]);
    w.run_ms(1);
    assert_eq!(w.response("a.example.").rcode, SERVFAIL);
    end(w);
}

#[test]
fn a_copy_of_a_late_query_at_one_that_is_removed_changes_nothing() {
    let mut w = world_of(default_policy(), &[0, 0]);
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(20);
    }
    w.servers[0].replies(slow_name);
    w.servers[1].replies(|_| Vec::new());
    w.ask("slow.example.");
    w.run_ms(1_000);
    assert_eq!(copies(&w, "slow.example."), 2);
    ask_of(&mut w, &[(0, false)]);
    w.run_ms(3_000);
    assert_eq!(w.response("slow.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn one_that_has_to_prove_itself_may_be_removed() {
    for asked in [&[(1, false)][..], &[(0, true), (1, false)]] {
        let mut w = warm(2);
        w.servers[0].replies(|_| Vec::new());
        for n in 0..400 {
            w.ask(&numbered(n));
            w.run_ms(25);
        }
        ask_of(&mut w, asked);
        w.run_ms(5_000);
        w.ask("a.example.");
        w.run_ms(3_000);
        assert_eq!(w.response("a.example.").rcode, NOERROR);
        end(w);
    }
}

#[test]
fn with_all_down_a_new_one_is_asked_what_waits() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::refused());
    ask_of(&mut w, &[(0, false)]);
    w.ask("a.example.");
    w.run_ms(300);
    ask_of(&mut w, &[(1, true)]);
    w.run_ms(50);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn who_is_served_and_how_much_changes_in_place() {
    let mut w = warm(1);
    let client = w.tcp_client();
    w.run_ms(1);
    assert_eq!(w.clients[client].state, State::Open);
    let mut policy = default_policy();
    policy.order = Order::Spread;
    policy.rate = Some(Rate {
        per_second: 1,
        burst: 1,
        v4_len: 32,
        v6_len: 56,
        exempt: Vec::new(),
        places: 64,
    });
    w.decide_by(policy.clone());
    w.run_ms(1);
    assert_eq!(w.clients[client].state, State::Open, "it is still served");
    let peer = w.clients[client].peer.ip();
    policy.access = Access {
        allowed: Vec::new(),
        denied: Vec::from_iter(Prefix::of(peer, 32)),
        ..policy.access
    };
    w.decide_by(policy);
    w.run_ms(5);
    assert!(!w.forwarder.serves(peer));
    end(w);
}
