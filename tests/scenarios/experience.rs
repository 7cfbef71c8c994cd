//! What is learned about upstreams: how many queries a connection carries, and how long it may idle.

use std::time::Duration;

use crate::sim_support::{Attempt, World, ms};
use crate::{end, failures, numbered, slowest, world};

/// Answers the first `answers` queries of each connection and is deaf from then on.
fn deaf_after(answers: usize) -> World {
    let mut w = world(1);
    w.servers[0].replies(
        move |ask| {
            if ask.nth <= answers { vec![ask.answer_after(10)] } else { Vec::new() }
        },
    );
    w
}

fn ask_steadily(w: &mut World, queries: u32, pause: u64) {
    let first = w.oracle.responses.len() as u32;
    for n in first..first + queries {
        w.ask(&numbered(n));
        w.run_ms(pause);
    }
    w.run_ms(4500);
}

/// Slower than a stall.
fn delayed(w: &World, from: Duration) -> usize {
    let late = w.oracle.responses.iter().filter(|response| response.asked >= from);
    late.filter(|response| response.took() >= ms(1000)).count()
}

#[test]
fn u08_answers_only_the_first_query_of_a_connection() {
    let mut w = deaf_after(1);
    ask_steadily(&mut w, 40, 200);
    let learned = w.at();
    let before = failures(&w);
    ask_steadily(&mut w, 300, 200);
    assert_eq!(failures(&w), before, "afterwards every query is answered");
    let delayed = delayed(&w, learned);
    assert!(delayed <= 20, "it seldom finds out whether the limit still holds: {delayed}");
    end(w);
}

#[test]
fn u08_answers_the_first_five_queries_of_a_connection() {
    let mut w = deaf_after(5);
    ask_steadily(&mut w, 60, 100);
    let learned = w.at();
    let before = failures(&w);
    ask_steadily(&mut w, 600, 100);
    assert_eq!(failures(&w), before);
    let delayed = delayed(&w, learned);
    assert!(delayed <= 40, "{delayed}");
    end(w);
}

#[test]
fn u08_a_burst_gets_several_connections_but_not_one_each() {
    let mut w = deaf_after(1);
    ask_steadily(&mut w, 40, 200);
    let links = w.links.len();
    let before = failures(&w);
    for n in 1000..1100 {
        w.ask(&numbered(n));
    }
    let mut most = 0;
    for _ in 0..450 {
        w.run_ms(10);
        let open = w.links[links - 1..].iter().filter(|link| link.conn.is_some()).count();
        most = most.max(open);
    }
    // Eight that work, and what is left of as many that fell silent.
    assert!((4..=16).contains(&most), "{most} connections at a time");
    assert_eq!(failures(&w), before);
    end(w);
}

#[test]
fn u08_a_limit_is_forgotten_after_ten_minutes() {
    let mut w = deaf_after(2);
    ask_steadily(&mut w, 40, 200);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    w.run_ms(600_000);
    let links = w.links.len();
    ask_steadily(&mut w, 200, 50);
    assert_eq!(w.links.len(), links + 1, "one connection carries everything");
    end(w);
}

#[test]
fn u08_a_limit_that_no_longer_holds_goes_away_by_itself() {
    let mut w = deaf_after(2);
    ask_steadily(&mut w, 40, 200);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    ask_steadily(&mut w, 400, 50);
    let links = w.links.len();
    ask_steadily(&mut w, 200, 50);
    assert!(w.links.len() <= links + 2, "{} more connections", w.links.len() - links);
    end(w);
}

#[test]
fn u08_a_slow_name_now_and_then_teaches_nothing() {
    let mut w = world(1);
    w.servers[0].replies(crate::slow_name);
    for n in 0..10 {
        ask_steadily(&mut w, 20 + n, 50);
        w.ask("slow.example.");
        w.run_ms(4000);
    }
    let links = w.links.len();
    ask_steadily(&mut w, 200, 20);
    assert!(w.links.len() <= links + 1, "one connection carries everything");
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn u02_idle_connections_are_closed_before_the_server_does() {
    let mut w = world(1);
    w.servers[0].idle_close = Some(ms(5000));
    for n in 0..10 {
        w.ask(&numbered(n));
        w.run_ms(20_000);
    }
    let ours =
        w.links.iter().filter(|link| link.conn.is_none() && !link.saw_server_close()).count();
    assert_eq!((w.links.len(), ours), (10, 9), "the server closed the first");
    assert_eq!(failures(&w), 0);
    for n in 10..20 {
        w.ask(&numbered(n));
        w.run_ms(3000);
    }
    assert_eq!(w.links.len(), 11, "3 s are shorter than what it allows");
    assert!(slowest(&w) <= ms(30));
    end(w);
}

#[test]
fn what_is_known_about_idle_time_is_forgotten_when_the_network_changes() {
    let mut w = world(1);
    w.servers[0].idle_close = Some(ms(2000));
    w.servers[0].attempts(Attempt::good(10));
    w.ask("a.example.");
    w.run_ms(3000);
    w.servers[0].idle_close = None;
    w.schedule(ms(0), crate::What::NetworkChange);
    w.ask("b.example.");
    w.run_ms(10_000);
    w.ask("c.example.");
    w.run_ms(100);
    assert_eq!(w.links.len(), 2, "it idled for 10 s");
    end(w);
}
