//! Upstreams that close, and what is known about how long a connection may idle.

use std::time::Duration;

use dot_proxy::forwarder::{Closed, Manner, Notice, Stage};

use crate::{allowing, close_after, distant, end, failures, numbered, slowest, warm, world};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{Attempt, Do, Step, What, ms};

#[test]
fn u01_fin_after_every_answer() {
    let mut w = world(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(10), close_after(10)]);
    for n in 0..500 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    assert_eq!(failures(&w), 0);
    assert_eq!(w.links.len(), 500);
    assert!(slowest(&w) <= ms(30), "{:?}", slowest(&w));
    end(w);
}

#[test]
fn u02_fin_after_1500_ms_idle_is_nobodys_fault() {
    let mut w = world(1);
    w.servers[0].idle_close = Some(ms(1500));
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(2000);
    }
    assert_eq!(failures(&w), 0);
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn u03_reset_on_the_second_query_of_a_connection() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.nth {
        1 => vec![ask.answer_after(10)],
        _ => vec![Step::after(5, Do::Close(Closed::Reset))],
    });
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(200);
    }
    assert_eq!(failures(&w), 0);
    assert_eq!(w.links.len(), 100, "one connection for each query");
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn u13_a_close_without_close_notify_is_a_close_like_any() {
    for how in [Closed::Reset, Closed::Failed { stage: Stage::Read, detail: "eof".into() }] {
        let mut w = warm(1);
        w.ask("a.example.");
        w.run_ms(5);
        w.serve(0, Do::Close(how));
        w.run_ms(35);
        assert_eq!(w.response("a.example.").rcode, NOERROR);
        assert_eq!(w.notices, []);
        end(w);
    }
}

#[test]
fn why_a_connection_broke_is_told_in_the_log() {
    let detail = "the server closed with an alert: certificate required";
    let mut w = world(1);
    w.servers[0].replies(move |_| {
        let how = Closed::Failed { stage: Stage::Read, detail: detail.into() };
        vec![Step::after(5, Do::Close(how))]
    });
    w.ask_edns("a.example.");
    w.run_ms(6_000);
    let text = format!("connection broke before answering: {detail}");
    let told = w.notices.iter().filter(|(_, notice)| match notice {
        Notice::UpstreamFailed { stage, detail, .. } => *stage == Stage::Read && **detail == *text,
        _ => false,
    });
    assert_eq!(told.count(), 1, "{:?}", w.notices);
    let response = w.response("a.example.");
    assert_eq!(response.rcode, SERVFAIL);
    assert_eq!(response.extended_error, Some(23));
    end(w);
}

/// The next one that breaks may do so for another reason.
#[test]
fn a_client_is_not_told_why_another_connection_broke() {
    let broken = |after, detail: &str| {
        let how = Closed::Failed { stage: Stage::Read, detail: detail.into() };
        Step::after(after, Do::Close(how))
    };
    let mut w = warm(1);
    w.servers[0].replies(move |ask| match ask.name {
        "elder.example." => vec![broken(300, "the other reason")],
        "last.example." => allowing(ask, 0),
        "waits.example." => vec![broken(100, "its reason")],
        _ => vec![ask.answer_after(10)],
    });
    w.ask_edns("elder.example.");
    w.ask_edns("last.example.");
    w.run_ms(50);
    w.ask_edns("other.example.");
    w.ask_edns("waits.example.");
    w.run_ms(100);
    w.servers[0].attempts(Attempt::mute());
    w.run_ms(6_000);
    assert_eq!(w.links[1].names(), ["other.example.", "waits.example."]);
    for (name, end) in [
        ("elder.example.", "connection broke before answering: the other reason"),
        ("waits.example.", "connection broke before answering"),
    ] {
        let text = &w.response(name).extra_text;
        assert!(text.ends_with(end), "{name} {text}");
    }
    end(w);
}

#[test]
fn u13_closing_waits_for_no_upstream() {
    let mut w = warm(1);
    w.servers[0].replies(|_| Vec::new());
    w.run_ms(14_000);
    assert!(w.links[0].is_open());
    w.run_ms(1000);
    let (at, manner) = w.links[0].closed.expect("idle for 15 s");
    assert_eq!(manner, Manner::Orderly);
    assert_eq!(at, w.oracle.responses[0].at + ms(15_000));
    assert_eq!(w.forwarder.counts().conns_held, 0);
    assert_eq!(w.forwarder.poll_timeout(), None);
    end(w);
}

#[test]
fn what_waited_on_a_closed_connection_goes_out_at_once_and_in_order_of_arrival() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    for name in ["a.example.", "b.example.", "c.example."] {
        w.ask(name);
        w.run_ms(10);
    }
    w.serve(0, Do::Close(Closed::Eof));
    w.ask("d.example.");
    w.run_ms(40);
    assert_eq!(w.links[1].names(), ["a.example.", "b.example.", "c.example.", "d.example."]);
    assert_eq!(w.response("a.example.").took(), ms(60));
    assert_eq!(w.links.len(), 2);
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn an_answer_before_the_close_still_counts() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.link {
        0 => vec![ask.answer_after(10), close_after(10)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("a.example.");
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.response("a.example.").took(), ms(10));
    assert_eq!(w.response("b.example.").took(), ms(40), "sent again");
    end(w);
}

#[test]
fn u22_closes_every_20_queries() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.nth {
        20 => vec![ask.answer_after(10), close_after(10)],
        21.. => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..2000 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(100);
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(80), "{:?}", slowest(&w));
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn after_two_lossy_closes_one_query_is_in_flight_at_a_time_and_the_window_doubles() {
    let mut w = warm(1);
    // Two connections close with queries waiting, the second after an answer.
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0, _) => vec![close_after(5)],
        (1, 1) => vec![ask.answer_after(1), close_after(2)],
        (1, _) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..9 {
        w.ask(&numbered(n));
    }
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    let sent: Vec<_> = w.links[2].seen.iter().map(|seen| seen.at).collect();
    let start = sent[0];
    let after: Vec<_> = sent.iter().map(|at| (*at - start).as_millis()).collect();
    assert_eq!(after, [0, 10, 10, 20, 20, 20, 20, 20], "eight remain");
    end(w);
}

#[test]
fn u22_closes_every_20_answers_at_200_queries_a_second() {
    let mut w = distant(20);
    w.servers[0].replies(|ask| match ask.nth {
        20 => vec![ask.answer_after(20), close_after(20)],
        21.. => Vec::new(),
        _ => vec![ask.answer_after(20)],
    });
    for n in 0..2000 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(150), "{:?}", slowest(&w));
    let sent: usize = w.links.iter().map(|link| link.seen.len()).sum();
    assert!(sent <= 3000, "2000 queries were sent {sent} times");
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn u01_a_burst_against_a_server_that_closes_after_every_answer() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::good(0));
    w.servers[0].replies(|ask| match ask.nth {
        1 => vec![ask.answer_after(0), close_after(0)],
        _ => Vec::new(),
    });
    for n in 0..200 {
        w.ask(&numbered(n));
    }
    w.run_ms(4500);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 200));
    assert_eq!(w.links.len(), 200, "each answered one");
    end(w);
}

#[test]
fn an_upstream_that_closes_every_connection_unanswered_causes_no_storm() {
    let mut w = world(1);
    w.servers[0].replies(|_| vec![close_after(10)]);
    for n in 0..6000 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 6000);
    let attempts: Vec<_> = w.links.iter().map(|link| link.attempted).collect();
    assert!(attempts.len() <= 75, "{} attempts in a minute", attempts.len());
    // At the start queries are blamed, one after the other, before it is the upstream.
    let settled = attempts.partition_point(|at| *at < ms(1000));
    assert!(settled <= 10, "{attempts:?}");
    for pair in attempts[settled..].windows(2) {
        assert!(pair[1] - pair[0] >= ms(990), "{attempts:?}");
    }
    end(w);
}

#[test]
fn queries_of_one_instant_go_back_to_the_queue_in_the_order_they_came() {
    let mut w = warm(1);
    let names: Vec<_> = (0..10).map(numbered).collect();
    // Places in the table that were used before are taken again in another order.
    for n in 10..30 {
        w.ask(&numbered(n));
    }
    w.run_ms(100);
    w.servers[0].replies(|ask| match ask.link {
        0 => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for name in &names {
        w.ask(name);
    }
    w.run_ms(5);
    w.schedule(Duration::ZERO, What::Serve { link: 0, what: Do::Close(Closed::Eof) });
    w.run_ms(100);
    assert_eq!(w.links[1].names(), names);
    end(w);
}

#[test]
fn u22_closes_that_are_too_many_for_one_upstream_leave_queries_to_the_next() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::good(20));
    w.servers[0].replies(|ask| match ask.nth {
        20 => vec![ask.answer_after(50), close_after(50)],
        21.. => Vec::new(),
        _ => vec![ask.answer_after(50)],
    });
    for n in 0..3000 {
        w.ask(&numbered(n));
        w.run_ms(2);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    end(w);
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
