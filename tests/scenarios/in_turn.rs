//! Servers that work on one query of a connection at a time.

use std::collections::HashMap;

use dot_proxy::forwarder::Fact;

use crate::sim_support::dns::NOERROR;
use crate::sim_support::{Attempt, Response, Server, World, default_limits, ms};
use crate::{end, failures, numbered, slowest, world};

/// Has the server work for so long on each query of a connection, one at a time.
fn in_turn(w: &mut World, server: usize, each: u64) {
    let mut busy_until = HashMap::new();
    w.servers[server].replies(move |ask| {
        let until = busy_until.entry(ask.link).or_default();
        *until = ask.at.max(*until) + ms(each);
        vec![ask.answer_after((*until - ask.at).as_millis() as u64)]
    });
}

/// Asks so many at once; returns how many were answered of them.
fn burst(w: &mut World, queries: u32) -> usize {
    let first = w.oracle.responses.len();
    for n in 0..queries {
        w.ask(&numbered(first as u32 + n));
    }
    w.run_ms(6000);
    w.oracle.responses[first..].iter().filter(|response| response.rcode == NOERROR).count()
}

#[test]
fn u27_bursts_are_spread_over_connections() {
    for each in [50, 150, 250, 400] {
        let mut w = world(1);
        in_turn(&mut w, 0, each);
        let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 40)).collect();
        assert_eq!(answered, [40; 5], "{each} ms each");
        assert!(w.links.len() <= 20, "{} connections", w.links.len());
        w.run_ms(16_000);
        let open = w.links.iter().filter(|link| link.conn.is_some()).count();
        assert_eq!(open, 0, "connections that idle");
        assert_eq!(w.facts.len(), 1, "{:?}", w.facts);
        assert!(matches!(&w.facts[0].1, Fact::UpstreamInTurn { .. }));
        end(w);
    }
}

#[test]
fn u27_another_upstream_gets_what_one_cannot_answer_in_time() {
    let mut w = world(2);
    in_turn(&mut w, 0, 150);
    let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 40)).collect();
    assert_eq!(answered, [40; 5]);
    assert!(slowest(&w) <= ms(1800), "{:?}", slowest(&w));
    let later = w.oracle.responses[40..].iter().map(Response::took).max();
    assert!(later <= Some(ms(1500)), "{later:?}");
    // What it can answer in time is still asked of the first.
    let asked = w.links_to(0).iter().map(|link| link.seen.len()).sum::<usize>();
    assert!(asked >= 40 + 4 * 4, "{asked}");
    assert!(w.links_to(0).len() <= 12, "{} connections", w.links_to(0).len());
    end(w);
}

#[test]
fn u27_a_steady_load_that_one_connection_cannot_bear_is_borne_by_several() {
    let mut w = world(1);
    in_turn(&mut w, 0, 150);
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    w.run_ms(5000);
    assert!(failures(&w) <= 2, "{} of 600 failed", failures(&w));
    let late = w.oracle.responses[100..].iter().filter(|response| response.took() > ms(2000));
    assert_eq!(late.count(), 0);
    end(w);
}

#[test]
fn u27_where_few_connections_may_be_they_carry_what_they_can() {
    let mut limits = default_limits();
    limits.upstream_conns_max = 3;
    let mut w = World::new(limits, vec![Server::healthy()], 1);
    in_turn(&mut w, 0, 150);
    let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 120)).collect();
    assert!(answered[1..].iter().all(|answered| *answered >= 40), "{answered:?}");
    assert!(slowest(&w) <= ms(4500));
    end(w);
}

#[test]
fn u27_a_server_that_works_on_all_at_once_keeps_its_one_connection() {
    let mut w = world(1);
    // Names that take from nothing to 3 s, among them all those of a burst.
    w.servers[0].replies(|ask| {
        let hash = ask.name.bytes().fold(7_u64, |hash, octet| hash * 31 % 1009 + u64::from(octet));
        vec![ask.answer_after(10 + hash * hash % 3000)]
    });
    for _ in 0..10 {
        assert_eq!(burst(&mut w, 40), 40);
    }
    assert_eq!((w.links.len(), w.facts.len()), (1, 0), "{:?}", w.facts);
    end(w);
}

#[test]
fn u27_what_was_learned_is_forgotten_when_it_no_longer_holds() {
    let mut w = world(1);
    in_turn(&mut w, 0, 150);
    assert_eq!((burst(&mut w, 40), burst(&mut w, 40)), (40, 40));
    w.servers[0].replies(|ask| vec![ask.answer_after(200 - ask.nth as u64 % 100)]);
    burst(&mut w, 40);
    let links = w.links.len();
    burst(&mut w, 40);
    assert!(w.links.len() <= links + 1, "{} more connections", w.links.len() - links);
    end(w);
}

#[test]
fn u27_nobody_waits_behind_what_has_expired() {
    let mut w = world(1);
    let mut busy_until = HashMap::new();
    w.servers[0].replies(move |ask| {
        // Nothing is worked on for the first 6 s, and all of it afterwards.
        let until = busy_until.entry(ask.link).or_insert(ms(6000));
        *until = ask.at.max(*until) + ms(150);
        vec![ask.answer_after((*until - ask.at).as_millis() as u64)]
    });
    assert_eq!(burst(&mut w, 40), 0);
    assert_eq!((burst(&mut w, 40), burst(&mut w, 40)), (40, 40));
    end(w);
}

#[test]
fn u27_a_connection_serves_query_after_query_however_long_each_takes() {
    // At most one at a time, and two.
    for each in [400, 600, 1200] {
        let mut w = world(1);
        in_turn(&mut w, 0, each);
        burst(&mut w, 12);
        w.run_ms(5000);
        assert_eq!(w.facts.len(), 1, "{each} ms each: {:?}", w.facts);
        let (links, failed) = (w.links.len(), failures(&w));
        for n in 100..150 {
            w.ask(&numbered(n));
            w.run_ms(5000);
            assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
        }
        assert!(w.links.len() <= links + 1, "{} more for 50 queries", w.links.len() - links);
        // More than it bears, all the time: what is open is used again.
        let links = w.links.len();
        for n in 200..400 {
            w.ask(&numbered(n));
            w.run_ms(each / 3);
        }
        w.run_ms(5000);
        assert_eq!(failures(&w), failed, "{each} ms each");
        assert!(w.links.len() <= links + 8, "{} more for 200 queries", w.links.len() - links);
        end(w);
    }
}

#[test]
fn u27_a_server_that_takes_one_connection_is_asked_in_turn_on_that() {
    let mut w = world(1);
    in_turn(&mut w, 0, 400);
    burst(&mut w, 12);
    w.run_ms(5000);
    let failed = failures(&w);
    w.ask("a.example.");
    w.run_ms(500);
    w.servers[0].attempts(Attempt::refused());
    let links = w.links.len();
    for n in 0..4 {
        for m in 0..5 {
            w.ask(&format!("b{n}-{m}.example."));
            w.run_ms(20);
        }
        w.run_ms(4900);
    }
    assert_eq!((failures(&w), w.facts.len()), (failed, 1), "{:?}", w.facts);
    assert!(w.links.len() <= links + 4 * 3, "{} attempts", w.links.len() - links);
    end(w);
}
