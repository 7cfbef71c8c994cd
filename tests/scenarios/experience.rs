//! What is learned about upstreams: how many queries a connection carries, and how long it may idle.

use std::collections::HashMap;
use std::time::Duration;

use dot_proxy::forwarder::{Closed, Fact};

use crate::sim_support::dns::{self, NOERROR};
use crate::sim_support::{Ask, Attempt, Do, Step, World, ms};
use crate::{end, failures, numbered, slowest, warm, world};

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

/// What two connections in a row leave unanswered says nothing of connections: whether nobody ever answers
/// it, or somebody who answers what was asked again first, and the first copy a moment later.
#[test]
fn u08_slow_names_of_one_client_teach_nothing_and_cost_others_nothing() {
    for (servers, slow) in [(1, None), (2, None), (1, Some(2000))] {
        let mut w = world(servers);
        for server in &mut w.servers {
            let mut first_asked = HashMap::new();
            server.replies(move |ask| match slow {
                _ if !ask.name.starts_with("slow") => vec![ask.answer_after(10)],
                Some(slow) => match first_asked.insert(ask.name.to_owned(), ask.at) {
                    None => vec![ask.answer_after(slow + 5)],
                    Some(first) => {
                        let left = (first + ms(slow)).saturating_sub(ask.at);
                        vec![ask.answer_after(left.as_millis() as u64)]
                    }
                },
                None => Vec::new(),
            });
        }
        w.ask("warm.example.");
        for n in 0..600 {
            w.ask(&format!("slow{n}.example."));
            // Now and then the connection is quiet for longer than a stall, and later not any more.
            if n > 200 || n % 19 == 0 {
                w.ask(&numbered(n));
            }
            w.run_ms(100);
        }
        w.run_ms(5000);
        let others = w.oracle.responses.iter().filter(|response| response.name.starts_with('n'));
        let late = others.filter(|response| response.rcode != NOERROR || response.took() > ms(100));
        assert_eq!(late.count(), 0, "{servers} {slow:?}: {:?}", w.facts);
        assert!(w.links.len() <= 40, "{servers} {slow:?}: {} connections", w.links.len());
        let is_silence = |fact: &Fact| matches!(fact, Fact::UpstreamFailed { detail, .. } if detail.contains("silent"));
        assert!(
            !w.facts.iter().any(|(_, fact)| is_silence(fact)),
            "{servers} {slow:?}: {:?}",
            w.facts
        );
        end(w);
    }
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
    assert_eq!((w.links.len(), ours), (10, 8), "the server closed two");
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
    w.schedule(ms(0), crate::What::NetworkChange { server: 0, lost: false });
    w.ask("b.example.");
    w.run_ms(10_000);
    w.ask("c.example.");
    w.run_ms(100);
    assert_eq!(w.links.len(), 2, "it idled for 10 s");
    end(w);
}

/// An answer that says for how long the connection may idle, in units of 100 ms (RFC 7828).
pub(crate) fn allowing(ask: &Ask<'_>, units: u16) -> Vec<Step> {
    let answer = dns::answer_with_option(ask.message, ask.serial, 11, &units.to_be_bytes());
    vec![Step::after(10, Do::Answer(answer))]
}

#[test]
fn u16_keepalive_zero_takes_no_new_query_and_is_drained_and_closed() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "zero.example." => allowing(ask, 0),
        _ => vec![ask.answer_after(300)],
    });
    w.ask("slow.example.");
    w.ask("zero.example.");
    w.run_ms(20);
    assert!(w.links[0].conn.is_some(), "an answer is owed on it");
    w.ask("next.example.");
    w.run_ms(400);
    assert_eq!(w.links[0].names(), ["warm.example.", "slow.example.", "zero.example."]);
    assert_eq!(w.links[1].names(), ["next.example."]);
    assert_eq!(w.links[0].closed.map(|(at, _)| at), Some(w.response("slow.example.").at));
    assert_eq!((w.response("slow.example.").took(), failures(&w)), (ms(300), 0));
    end(w);
}

#[test]
fn u16_keepalive_of_a_second_is_closed_before_the_server_does() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| allowing(ask, 10));
    w.servers[0].idle_close = Some(ms(1000));
    for n in 0..10 {
        w.ask(&numbered(n));
        w.run_ms(700);
    }
    assert_eq!(w.links.len(), 1, "it is used while it may be");
    w.run_ms(5000);
    assert!(!w.links[0].saw_server_close());
    w.ask("later.example.");
    w.run_ms(100);
    assert_eq!((w.links.len(), failures(&w)), (2, 0));
    end(w);
}

#[test]
fn u16_keepalive_longer_than_configured_changes_nothing() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| allowing(ask, u16::MAX));
    w.ask("a.example.");
    w.run_ms(14_900);
    assert!(w.links[0].conn.is_some());
    w.run_ms(200);
    assert!(w.links[0].conn.is_none(), "15 s are configured");
    end(w);
}

#[test]
fn keepalive_is_asked_for_once_on_each_connection() {
    let mut w = world(1);
    for n in 0..3 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w.run_ms(20_000);
    w.ask("again.example.");
    w.run_ms(100);
    let asked: Vec<Vec<bool>> = w
        .links
        .iter()
        .map(|link| link.seen.iter().map(|seen| seen.asks_keepalive).collect())
        .collect();
    assert_eq!(asked, [vec![true, false, false], vec![true]]);
    end(w);
}

#[test]
fn a_server_that_restarts_teaches_nothing_about_idle_time() {
    let mut w = world(1);
    for idle in [50, 3000, 12_000] {
        w.ask(&format!("n{idle}.example."));
        w.run_ms(30 + idle);
        let last = w.links.len() - 1;
        w.serve(last, Do::Close(Closed::Eof));
        w.run_ms(10);
    }
    w.ask("a.example.");
    w.run_ms(14_000);
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.links.len(), 4, "14 s are less than the 15 s that are configured");
    end(w);
}
