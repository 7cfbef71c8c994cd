//! Back-pressure, limits, shutdown and the log.

use std::time::Duration;

use dot_proxy::forwarder::Manner;

use crate::sim_support::dns::{self, NOERROR, SERVFAIL};
use crate::sim_support::{Attempt, State, What, ms};
use crate::{end, failures, numbered, question, slowest, warm, with_limits};

#[test]
fn u19_a_server_that_stops_reading_gets_no_query_past_its_deadline() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.servers[0].attempts(Attempt::mute());
    w.links[0].room = Some(0);
    // More than the 64 KiB that may wait on a connection.
    for n in 0..3000 {
        w.ask(&numbered(n));
    }
    w.run_ms(5000);
    assert_eq!(failures(&w), 3000);
    assert_eq!(slowest(&w), ms(4500));
    w.servers[0].attempts(Attempt::good(10));
    w.schedule(Duration::ZERO, What::ServersRead);
    w.run_ms(10_000);
    let seen: usize = w.links.iter().map(|link| link.seen.len()).sum();
    assert!(seen < 2000, "{seen} queries past their deadline were written");
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn u19_others_are_served_while_one_server_stops_reading() {
    let mut w = warm(2);
    w.links[0].room = Some(0);
    for n in 0..300 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    assert_eq!(slowest(&w), ms(1530), "found out by the stall rule");
    end(w);
}

#[test]
fn c06_a_full_table_answers_servfail_at_once() {
    let mut w = with_limits(|limits| limits.queries_max = 100);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    for n in 0..150 {
        w.ask_edns(&numbered(n));
    }
    w.run_ms(10);
    assert_eq!(w.oracle.responses.len(), 50);
    assert!(w.oracle.responses.iter().all(|r| r.rcode == SERVFAIL && r.extended_error == Some(0)));
    w.run_ms(2000);
    assert_eq!(failures(&w), 50);
    end(w);
}

#[test]
fn long_queries_are_bounded_in_octets() {
    let mut w = with_limits(|limits| limits.query_bytes_max = 5000);
    for n in 0..10 {
        let path = w.next_path();
        let mut message = dns::query(n, &numbered(u32::from(n)), dns::A, None);
        // An OPT record with an option of 1,000 octets.
        message[11] = 1;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0x03, 0xec, 0xfd, 0xe9, 0x03, 0xe8]);
        message.extend([0; 1000]);
        w.datagram(path, message);
    }
    w.run_ms(100);
    assert_eq!(failures(&w), 6, "four fit");
    end(w);
}

#[test]
fn h06_a_shutdown_answers_what_is_owed_and_ends() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(800)]);
    let (busy, idle) = (w.tcp_client(), w.tcp_client());
    w.tcp_send(busy, dns::framed(&question(0)));
    w.ask("a.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(10);
    assert_eq!(w.clients[idle].state, State::Closed);
    assert!(!w.forwarder.is_drained());
    let late = w.tcp_client();
    w.run_ms(10);
    assert_eq!(w.clients[late].state, State::Outside, "no new client");
    w.run_ms(700);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 3));
    end(w);
}

#[test]
fn h06_a_shutdown_with_nothing_owed_takes_no_time() {
    let mut w = warm(2);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(0);
    assert!(w.forwarder.is_drained());
    assert_eq!(w.forwarder.poll_timeout(), None);
    assert_eq!(w.links[0].closed.map(|(_, manner)| manner), Some(Manner::Orderly));
}

#[test]
fn the_query_log_has_a_line_for_every_response() {
    let mut w = with_limits(|limits| limits.query_log = true);
    w.servers[0].replies(|ask| match ask.name {
        "lost.example." => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for name in ["a.example.", "evil\u{1b}[2J\n.example.", "lost.example."] {
        w.ask(name);
    }
    let path = w.next_path();
    w.datagram(path, dns::query(1, "zone.example.", 252, None));
    w.run_ms(5000);
    let words: Vec<_> = w.query_log.iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["LOCAL", "SUCCESS", "SUCCESS", "FAILURE"].map(Some), "{:?}", w.query_log);
    assert!(w.query_log[1].starts_with("SUCCESS a.example. A NOERROR 1 answer "));
    end(w);
}
