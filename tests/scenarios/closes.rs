//! Upstreams that close.

use std::time::Duration;

use dot_proxy::forwarder::{Closed, Fact, Manner, Stage};

use crate::experience::allowing;
use crate::sim_support::dns::{NOERROR, SERVFAIL};
use crate::sim_support::{Attempt, Do, Step, What, ms};
use crate::{close_after, copies, distant, end, failures, numbered, slowest, warm, world};

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
    assert_eq!(w.facts, []);
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
    assert_eq!(w.facts, []);
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
        assert_eq!(w.facts, []);
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
    let told = w.facts.iter().filter(|(_, fact)| match fact {
        Fact::UpstreamFailed { stage, detail, .. } => *stage == Stage::Read && **detail == *text,
        _ => false,
    });
    assert_eq!(told.count(), 1, "{:?}", w.facts);
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
    assert_eq!(w.facts, []);
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
    assert_eq!(w.facts, []);
    end(w);
}

#[test]
fn u23_poisonous_query() {
    let mut w = world(1);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("poison") {
            vec![close_after(0)]
        } else {
            vec![ask.answer_after(10)]
        }
    });
    for second in 0..20 {
        for n in 0..100 {
            if n == 37 {
                w.ask_edns(&format!("poison{second}.example."));
            }
            w.ask(&numbered(second * 100 + n));
            w.run_ms(10);
        }
    }
    w.run_ms(4500);
    let (poisonous, good): (Vec<_>, Vec<_>) =
        w.oracle.responses.iter().partition(|response| response.name.starts_with("poison"));
    assert_eq!(good.iter().filter(|response| response.rcode != NOERROR).count(), 0);
    assert_eq!((poisonous.len(), good.len()), (20, 2000));
    for response in poisonous {
        assert_eq!((response.rcode, response.extended_error), (SERVFAIL, Some(23)));
        assert!(response.took() < ms(4500), "{response:?}");
    }
    end(w);
}

#[test]
fn a_query_alone_on_two_connections_that_close_gets_servfail_and_harms_nobody() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "poison.example." => vec![close_after(5)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("poison.example.");
    w.run_ms(200);
    assert_eq!(w.response("poison.example.").rcode, SERVFAIL);
    assert_eq!(w.response("poison.example.").took(), ms(5 + 20 + 5));
    assert_eq!(w.facts, [], "its closes are not the upstream's failure");
    w.ask("good.example.");
    w.run_ms(200);
    assert_eq!(w.response("good.example.").took(), ms(30));
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
fn a_query_is_sent_three_times_without_an_answer_and_no_more() {
    let mut w = world(1);
    w.servers[0].replies(|_| vec![close_after(5)]);
    for name in ["a.example.", "b.example."] {
        w.ask_edns(name);
    }
    w.run_ms(4600);
    for name in ["a.example.", "b.example."] {
        assert_eq!(w.response(name).rcode, SERVFAIL);
        assert_eq!(w.response(name).extended_error, Some(23));
        assert!((2..=3).contains(&copies(&w, name)), "{}", copies(&w, name));
    }
    end(w);
}

#[test]
fn a_query_is_sent_sixteen_times_at_most() {
    let mut w = world(1);
    w.servers[0].replies(|_| Vec::new());
    w.ask("a.example.");
    // Nobody is to blame for a suspend, so the bound on sends without an answer does not apply.
    for _ in 0..20 {
        w.run_ms(100);
        w.schedule(Duration::ZERO, What::Resume);
    }
    w.run_ms(100);
    assert_eq!(copies(&w, "a.example."), 16);
    assert_eq!(w.response("a.example.").rcode, SERVFAIL);
    assert_eq!(w.response("a.example.").took(), ms(1600), "with the loss of the last");
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
    assert_eq!(w.facts, []);
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
    assert!(attempts.len() <= 70, "{} attempts in a minute", attempts.len());
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
