//! Upstreams that fall silent.

use std::time::Duration;

use dot_proxy::forwarder::{Closed, Notice, Stage};

use crate::{
    close_after, copies, distant, end, failures, numbered, slow_name, slowest, warm, world,
    world_of,
};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{
    Ask, Attempt, Do, Response, Server, Step, What, World, default_limits, default_policy, dns, ms,
};

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
    // One copy tells, and half a second later the connection has stalled.
    assert!(slowest(&w) < ms(1300), "found out once others wait for long: {:?}", slowest(&w));
    end(w);
}

#[test]
fn u04_forgotten_connection_first_victim_under_2500_ms() {
    let mut w = world(1);
    for n in 0..200 {
        if n == 50 {
            w.serve(0, Do::Forget);
        }
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(failures(&w), 0);
    assert_eq!(w.links.len(), 2, "one reconnect");
    // TCP knows after 200 ms that nothing arrives. The copy is answered when the handshake is done.
    assert_eq!(w.response(&numbered(50)).took(), ms(230 + 20 + 10));
    for n in 53..200 {
        assert!(w.response(&numbered(n)).took() <= ms(30), "query {n} is late");
    }
    assert_eq!(w.notices, [], "it answered before: not a failure");
    end(w);
}

#[test]
fn u04_steady_sending_does_not_hide_a_dead_connection() {
    let mut w = warm(1);
    w.serve(0, Do::Forget);
    for n in 0..1000 {
        w.ask(&numbered(n));
        w.run_ms(2);
    }
    w.run_ms(100);
    assert!(w.response(&numbered(0)).took() < ms(250));
    assert_eq!((failures(&w), w.links.len()), (0, 2));
    end(w);
}

/// Two connections lose what is in flight, and the third, which takes 3.3 s to come, answers nothing: after two
/// lossy closes one query at a time is sent.
fn two_lossy_closes_then_silence() -> World {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.link {
        0 | 1 if ask.nth > 1 => vec![close_after(5)],
        2 => Vec::new(),
        _ => vec![ask.answer_after(1)],
    });
    w.servers[0].attempt = Box::new(|link, _, _| match link {
        2 => Attempt::slow_tls(3300),
        _ => Attempt::good(10),
    });
    w
}

#[test]
fn a_dead_connection_is_noticed_although_queries_on_it_expire_within_the_stall_time() {
    let mut w = two_lossy_closes_then_silence();
    // Each query has waited long when it is sent.
    for n in 0..60 {
        w.ask(&numbered(n));
        w.run_ms(250);
    }
    w.run_ms(4500);
    assert!(w.links[2].seen[1].at - w.links[2].seen[0].at < ms(1500), "expired, not stalled");
    for n in 40..60 {
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR, "query {n}");
    }
    end(w);
}

#[test]
fn the_next_query_goes_out_when_the_one_that_filled_the_window_times_out() {
    let mut w = two_lossy_closes_then_silence();
    w.ask("a.example.");
    w.run_ms(100);
    w.ask("b.example.");
    w.run_ms(1000);
    w.ask("c.example.");
    w.run_ms(4000);
    assert_eq!(w.links[2].names(), ["b.example.", "c.example."]);
    assert_eq!(w.links[2].seen[1].at, w.response("b.example.").at);
    end(w);
}

#[test]
fn a_copy_sent_again_after_a_stall_does_not_stall_its_new_connection() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "slow.example." => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("slow.example.");
    w.run_ms(4600);
    assert_eq!(w.links.len(), 2);
    assert_eq!(copies(&w, "slow.example."), 2);
    assert!(w.links[1].is_open(), "the copy did not stall the second");
    assert_eq!(w.response("slow.example.").rcode, SERVFAIL);
    end(w);
}

#[test]
fn u04_an_upstream_that_is_far_away_has_three_times_as_long_before_it_stalls() {
    let mut w = distant(1500);
    w.ask("first.example.");
    w.run_ms(5000);
    w.servers[0].replies(|ask| vec![ask.answer_after(2500)]);
    for n in 0..5 {
        w.ask(&numbered(n));
        w.run_ms(4000);
        assert_eq!(w.response(&numbered(n)).took(), ms(2500));
        assert_eq!((copies(&w, &numbered(n)), w.links.len()), (1, 1), "not given up after 1.5 s");
    }
    end(w);
}

#[test]
fn u07_never_answers_moves_to_the_next_upstream() {
    let mut w = world(2);
    w.servers[0].replies(|_| Vec::new());
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!(w.response("a.example.").took(), ms(20 + 1500 + 20 + 10));
    assert_eq!(w.notices.len(), 1, "a fresh connection that stalls is a failure: {:?}", w.notices);
    assert!(matches!(&w.notices[0].1, Notice::UpstreamFailed { stage: Stage::Read, .. }));
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.response("b.example.").took(), ms(10), "later ones do not wait");
    end(w);
}

#[test]
fn u07_never_answers_alone() {
    let mut w = world(1);
    w.servers[0].replies(|_| Vec::new());
    for n in 0..120 {
        w.ask_edns(&numbered(n));
        w.run_ms(1000);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 120);
    assert!(w.oracle.responses.iter().all(|response| response.extended_error.is_some()));
    assert!(slowest(&w) <= ms(4500));
    assert!(w.notices.len() <= 4, "{:?}", w.notices);
    end(w);
}

#[test]
fn u09_reversed_answers() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(200 - ask.nth as u64)]);
    for n in 0..100 {
        w.ask(&numbered(n));
    }
    w.run_ms(300);
    assert_eq!(failures(&w), 0);
    let last = w.oracle.responses.last().map(|response| response.name.clone());
    assert_eq!(last, Some(numbered(0)));
    assert_eq!(w.links.len(), 1);
    end(w);
}

#[test]
fn u09_one_slow_name_among_fast_ones() {
    let mut w = warm(1);
    w.servers[0].replies(slow_name);
    w.ask("slow.example.");
    for n in 0..400 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    assert_eq!(w.response("slow.example.").took(), ms(3000));
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    let fast = w.oracle.responses.iter().filter(|response| response.name != "slow.example.");
    assert!(fast.map(Response::took).all(|took| took <= ms(30)));
    end(w);
}

#[test]
fn a_slow_name_on_a_quiet_connection_costs_others_no_handshake() {
    let mut w = warm(1);
    w.servers[0].replies(slow_name);
    w.ask("slow.example.");
    w.run_ms(2000);
    assert_eq!(w.links.len(), 2, "a second connection, and the first is not killed");
    assert!(w.links[0].is_open());
    w.ask("a.example.");
    w.run_ms(1100);
    assert_eq!(w.response("a.example.").took(), ms(10));
    assert_eq!(w.links[1].names(), ["slow.example.", "a.example."]);
    assert_eq!(w.response("slow.example.").took(), ms(3000), "from the retired connection");
    assert!(w.links[0].closed.is_some(), "nothing waits on it any more");
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn a_retired_connection_is_closed_after_the_linger_at_the_latest() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.ask("a.example.");
    w.run_ms(1600);
    assert_eq!(w.response("a.example.").took(), ms(1530));
    w.run_ms(6000);
    let (at, _) = w.links[0].closed.expect("retired 6 s ago");
    assert!(at <= w.response("a.example.").asked + ms(1500 + 4500), "{at:?}");
    end(w);
}

#[test]
fn the_timeout_of_one_query_harms_no_other() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "lost.example." => Vec::new(),
        "late.example." => vec![ask.answer_after(2000)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("lost.example.");
    for n in 0..60 {
        if n == 40 {
            w.ask("late.example.");
        }
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(w.response("lost.example.").took(), ms(4500));
    assert_eq!(w.response("late.example.").took(), ms(2000));
    assert_eq!((failures(&w), w.links.len()), (1, 1));
    end(w);
}

#[test]
fn the_id_of_a_query_that_timed_out_is_reserved_until_its_late_answer() {
    let mut limits = default_limits();
    limits.queries_max = 8;
    let mut w = World::new(limits, vec![Server::healthy()], 1);
    w.servers[0].replies(|ask| match ask.name {
        "late.example." => vec![ask.answer_after(6000)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("late.example.");
    for n in 0..700 {
        // The judge fails the story if the ID goes out again before the late answer.
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    assert_eq!(w.response("late.example.").rcode, SERVFAIL);
    assert_eq!(failures(&w), 1);
    assert_eq!(w.links.len(), 1, "a late answer is no offence");
    assert_eq!(w.forwarder.counts().unmatched, 0);
    let late = w.links[0].seen[0].id;
    let again = w.links[0].seen.iter().filter(|seen| seen.id == late);
    assert!(again.count() > 1, "free after the late answer");
    end(w);
}

#[test]
fn u24_lost_answers_wear_a_connection_out_and_it_is_replaced_before_it_is_full() {
    let mut w = world(1);
    w.servers[0].replies(|ask| {
        if ask.name.ends_with("7.example.") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    for n in 0..30_000 {
        w.ask(&numbered(n));
        w.run_ms(1);
    }
    w.run_ms(5000);
    for response in &w.oracle.responses {
        let is_lost = response.name.ends_with("7.example.");
        let rcode = if is_lost { SERVFAIL } else { NOERROR };
        assert_eq!(response.rcode, rcode, "{response:?}");
        assert!(is_lost || response.took() <= ms(30), "{response:?}");
    }
    assert!((2..=5).contains(&w.links.len()), "{} connections", w.links.len());
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn a_connection_of_an_hour_is_replaced_before_it_is_retired() {
    let mut w = world(1);
    for n in 0..900 {
        w.ask(&numbered(n));
        w.run_ms(5000);
    }
    let slow = w.oracle.responses.iter().filter(|response| response.took() > ms(10));
    assert_eq!(slow.count(), 1, "the first query alone paid for a handshake");
    assert_eq!(w.links.len(), 2, "in 75 minutes");
    let (retired, _) = w.links[0].closed.expect("retired with nothing in flight");
    assert!((ms(54 * 60_000)..=ms(67 * 60_000)).contains(&retired), "{retired:?}");
    assert!(w.links[1].connected <= Some(retired));
    end(w);
}

#[test]
fn queries_of_one_instant_are_copied_after_a_stall_in_the_order_they_came() {
    let mut w = warm(1);
    let names: Vec<_> = (0..10).map(numbered).collect();
    for n in 10..30 {
        w.ask(&numbered(n));
    }
    w.run_ms(100);
    w.serve(0, Do::Forget);
    for name in &names {
        w.ask(name);
    }
    w.run_ms(1600);
    assert_eq!(w.links[1].names(), names);
    end(w);
}

#[test]
fn an_upstream_that_takes_two_seconds_to_answer_is_usable() {
    let mut w = world(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(2000)]);
    for n in 0..12 {
        w.ask(&numbered(n));
        w.run_ms(5000);
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
    }
    assert!(slowest(&w) <= ms(2030), "{:?}", slowest(&w));
    assert!(w.links.len() <= 24, "{} connects", w.links.len());
    end(w);
}

#[test]
fn with_nothing_up_a_late_answer_brings_its_upstream_back() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.name {
        "late.example." => vec![ask.answer_after(2000)],
        _ => vec![ask.answer_after(10)],
    });
    w.servers[0].attempt = Box::new(|_, at, _| match at {
        at if at < ms(10) || at > ms(2050) => Attempt::good(10),
        _ => Attempt::refused(),
    });
    w.ask("late.example.");
    w.run_ms(2100);
    assert_eq!(w.response("late.example.").took(), ms(20 + 2000));
    w.ask("a.example.");
    w.run_ms(50);
    assert_eq!(w.response("a.example.").took(), ms(30), "no backoff is waited for");
    end(w);
}

#[test]
fn a_late_answer_makes_a_connection_one_that_answered() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "slow.example." => vec![ask.answer_after(if ask.link == 0 { 1600 } else { 200 })],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("slow.example.");
    w.run_ms(2000);
    assert_eq!(w.response("slow.example.").took(), ms(1600));
    assert_eq!(w.links[1].names(), ["slow.example."], "its answer came for an abandoned ID");
    w.ask("a.example.");
    w.run_ms(5);
    w.schedule(ms(0), What::Serve { link: 1, what: Do::Close(Closed::Eof) });
    w.run_ms(100);
    assert_eq!(w.notices, [], "the close of a reused connection is nobody's fault");
    assert_eq!(w.response("a.example.").took(), ms(5 + 20 + 10));
    end(w);
}

#[test]
fn a_copy_on_an_older_connection_that_is_dead_too_is_noticed() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(1000);
    w.servers[0].attempts(Attempt::good(10));
    w.servers[0].replies(|_| Vec::new());
    w.ask("b.example.");
    w.run_ms(5000);
    assert!(w.links_to(0)[1].is_open() && w.links_to(1)[0].is_open());
    w.serve(1, Do::Forget);
    assert_eq!(w.links[1].server, 1);
    w.ask("c.example.");
    w.run_ms(4500);
    assert_eq!(w.links_to(0)[1].names(), ["c.example."]);
    assert_eq!(w.response("c.example.").rcode, NOERROR);
    assert_eq!(w.response("c.example.").took(), ms(1500 + 1500 + 20 + 10));
    end(w);
}

#[test]
fn h02_a_stopped_process_does_not_send_on_a_connection_past_its_stall_deadline() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.ask("a.example.");
    w.run_ms(100);
    w.schedule(ms(0), What::Freeze { length: ms(20_000) });
    w.run_ms(0);
    // In one turn with the timer, and before it.
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.links[0].names(), ["warm.example.", "a.example."]);
    assert_eq!(w.response("b.example.").took(), ms(30));
    end(w);
}

#[test]
fn u04_a_dead_first_upstream_holds_queries_up_no_longer_than_a_stall_and_a_moment() {
    let mut w = world(2);
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.serve(0, Do::Forget);
    w.servers[0].attempts(Attempt::black_hole());
    for n in 100..600 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(1500 + 250 + 50), "{:?}", slowest(&w));
    end(w);
}

/// An answer of 60,000 octets, of which so many arrive at a time.
fn paced(ask: &Ask<'_>, octets: usize, pause: u64) -> Vec<Step> {
    let answer = dns::answer(ask.message, ask.serial, NOERROR, 60_000);
    let pace = Do::Pace(octets, ms(pause));
    vec![Step::after(10, pace), Step::after(10, Do::Answer(answer))]
}

#[test]
fn u25_an_answer_that_trickles_holds_up_no_other() {
    // The query comes as the first of all, or after others; all connections do that to it, or but one.
    for (first, always) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut w = if first { world(1) } else { warm(1) };
        w.servers[0].replies(move |ask| match ask.name {
            "large.example." if always || ask.link == 0 => paced(ask, 1, 700),
            _ => vec![ask.answer_after(10)],
        });
        w.ask("large.example.");
        for n in 0..24 {
            w.run_ms(500);
            w.ask(&numbered(n));
        }
        w.run_ms(5000);
        for n in 0..24 {
            let response = w.response(&numbered(n));
            assert_eq!(response.rcode, NOERROR, "{first} {always}: {response:?}");
            assert!(response.took() <= ms(1600), "{first} {always}: {response:?}");
            assert!(n < 5 || response.took() <= ms(30), "{first} {always}: {response:?}");
        }
        assert_eq!(w.links.len(), 2, "{first} {always}");
        end(w);
    }
}

#[test]
fn u25_connections_whose_second_answer_trickles_do_not_make_their_server_a_deaf_one() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0 | 1, 2) => paced(ask, 1, 700),
        (0 | 1, 3) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("first.example.");
    w.run_ms(100);
    for link in 0..2 {
        w.ask(&format!("trickles{link}.example."));
        w.ask(&format!("behind{link}.example."));
        w.run_ms(5000);
    }
    for n in 0..10 {
        w.ask(&numbered(n));
        w.run_ms(100);
        assert_eq!(w.response(&numbered(n)).took(), ms(10));
    }
    assert_eq!(w.links.len(), 3);
    end(w);
}

#[test]
fn u25_an_answer_that_trickles_is_asked_of_another_upstream() {
    let mut w = world(2);
    w.servers[0].replies(|ask| paced(ask, 1, 700));
    w.ask("large.example.");
    w.run_ms(2000);
    assert_eq!(w.response("large.example.").took(), ms(20 + 1500 + 20 + 10));
    w.ask("a.example.");
    w.run_ms(50);
    assert_eq!(w.response("a.example.").took(), ms(10), "the first has failed");
    end(w);
}

#[test]
fn u25_who_is_taken_for_the_one_whose_answer_trickles_is_sent_again() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match (ask.link, ask.name) {
        (0, "large.example.") => paced(ask, 1, 700),
        (0, _) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("other.example.");
    w.ask("large.example.");
    w.run_ms(5000);
    // The fourth octet is there after 10 + 3 * 700 ms.
    assert_eq!(w.response("other.example.").took(), ms(2110 + 10));
    assert_eq!(w.response("large.example.").took(), ms(1530));
    end(w);
}

#[test]
fn u25_answers_to_nothing_asked_are_no_sign_of_life() {
    let mut w = warm(1);
    let unmatched =
        dns::framed(&dns::answer(&dns::query(9999, "x.example.", dns::A, None), 0, 0, 0));
    for n in 0..200 {
        w.schedule(ms(n * 700), What::Serve { link: 0, what: Do::Octets(unmatched.clone()) });
    }
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    for n in 0..24 {
        w.ask(&numbered(n));
        w.run_ms(500);
    }
    assert_eq!(failures(&w), 0);
    assert!(slowest(&w) <= ms(1530), "{:?}", slowest(&w));
    assert_eq!(w.links.len(), 2);
    end(w);
}

#[test]
fn u25_who_answers_what_nobody_asked_is_not_taken_for_one_that_answers_the_first_queries_alone() {
    let mut w = world(1);
    let unmatched =
        dns::framed(&dns::answer(&dns::query(9999, "x.example.", dns::A, None), 0, 0, 0));
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0, 2..) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("first.example.");
    w.run_ms(50);
    for n in 1..20 {
        w.schedule(ms(n * 700), What::Serve { link: 0, what: Do::Octets(unmatched.clone()) });
    }
    for n in 0..32 {
        w.ask(&numbered(n));
        w.run_ms(250);
    }
    assert_eq!((failures(&w), w.links.len()), (0, 2));
    end(w);
}

#[test]
fn a_burst_of_names_that_are_slow_alike_is_answered() {
    let mut w = warm(1);
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    w.servers[0].replies(|ask| vec![ask.answer_after(2600)]);
    for n in 20..50 {
        w.ask(&numbered(n));
        w.run_ms(20);
    }
    w.run_ms(5000);
    assert_eq!(failures(&w), 0);
    end(w);
}

/// What was made beside the connection that is quiet would have been silent for too long half a second before the
/// first answer of the other.
#[test]
fn a_stream_of_names_that_are_slow_alike_is_answered() {
    for (delay, every) in [(2000, 20), (2600, 20), (2600, 100), (3000, 10), (3000, 100)] {
        let mut w = warm(1);
        for n in 0..20 {
            w.ask(&numbered(n));
            w.run_ms(50);
        }
        w.servers[0].replies(move |ask| vec![ask.answer_after(delay)]);
        for n in 20..20 + 4000 / every as u32 {
            w.ask(&numbered(n));
            w.run_ms(every);
        }
        w.run_ms(5000);
        assert_eq!(failures(&w), 0, "{delay} ms, one in {every} ms");
        end(w);
    }
}

#[test]
fn clients_that_leave_at_once_say_nothing_of_the_connection() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(200)]);
    w.run_ms(2000);
    for n in 0..20 {
        let client = w.tcp_client();
        w.tcp_send(client, dns::framed(&dns::query(n, &numbered(n.into()), dns::A, None)));
        w.run_ms(20);
        w.schedule(Duration::ZERO, What::ClientResets { client });
        w.run_ms(5);
    }
    w.run_ms(2000);
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    end(w);
}

#[test]
fn u25_a_large_answer_on_a_slow_path_arrives() {
    // The first on its connection, or not; alone, or with small ones behind it.
    for (first, others) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut w = if first { world(1) } else { warm(1) };
        w.servers[0].replies(|ask| match ask.name {
            "large.example." => paced(ask, 400, 20),
            _ => vec![ask.answer_after(10)],
        });
        let client = w.tcp_client();
        w.tcp_send(client, dns::framed(&dns::query(1, "large.example.", dns::A, None)));
        for n in 0..8 {
            w.run_ms(500);
            if others {
                w.ask(&numbered(n));
            }
        }
        w.run_ms(5000);
        let response = w.response("large.example.");
        assert_eq!(response.rcode, NOERROR, "{first} {others}");
        assert!(response.took() <= ms(3100), "{first} {others}: {:?}", response.took());
        assert_eq!(copies(&w, "large.example."), 1, "it would take from the slow path");
        assert_eq!((failures(&w), w.notices.len()), (0, 0), "{first} {others}: {:?}", w.notices);
        end(w);
    }
}

#[test]
fn u25_several_large_answers_on_slow_connections_arrive() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| paced(ask, 400, 20));
    for n in 0..6 {
        let client = w.tcp_client();
        w.tcp_send(client, dns::framed(&dns::query(1, &numbered(n), dns::A, None)));
        w.run_ms(1600);
    }
    w.run_ms(5000);
    assert_eq!((failures(&w), w.notices.len()), (0, 0), "{:?}", w.notices);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    w.ask("a.example.");
    w.run_ms(1600);
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.response("b.example.").took(), ms(10));
    end(w);
}

#[test]
fn u04_a_connection_that_dies_in_the_middle_of_an_answer_loses_none() {
    fn begun(ask: &Ask<'_>) -> Vec<u8> {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 60_000);
        dns::framed(&answer)[..1400].to_vec()
    }

    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.link {
        0 => vec![Step::after(10, Do::Octets(begun(ask))), Step::after(20, Do::Forget)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("a.example.");
    w.run_ms(2000);
    // TCP misses nothing, as the server has acknowledged the query.
    assert_eq!(w.response("a.example.").took(), ms(1530));
    end(w);
}

#[test]
fn u04_an_answer_that_breaks_off_is_asked_for_again_however_late_it_began() {
    for begun in [10, 200, 300, 400, 1000] {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| match ask.link {
            0 => {
                let whole = dns::framed(&dns::answer(ask.message, ask.serial, NOERROR, 60_000));
                vec![
                    Step::after(begun, Do::Octets(whole[..1400].to_vec())),
                    Step::after(begun, Do::Forget),
                ]
            }
            _ => vec![ask.answer_after(10)],
        });
        let client = w.tcp_client();
        w.tcp_send(client, dns::framed(&dns::query(1, "a.example.", dns::A, None)));
        w.run_ms(6000);
        let response = w.response("a.example.");
        assert_eq!((response.rcode, copies(&w, "a.example.")), (NOERROR, 2), "{begun} ms");
        // The later of the stall deadline and the longest pause between octets.
        let noticed = ms(1500).max(ms(begun + 1250));
        assert!(response.took() <= noticed + ms(40), "{begun} ms: {:?}", response.took());
        end(w);
    }
}

#[test]
fn what_waits_for_an_upstream_that_cannot_be_connected_to_goes_to_another_in_time() {
    let mut w = world_of(default_policy(), &[0, 0, 1]);
    w.servers[0].replies(|_| Vec::new());
    w.servers[1].attempts(Attempt::mute());
    w.ask("a.example.");
    w.run_ms(4500);
    // It is first to be asked of the second address of the same operator.
    assert_eq!(w.links_to(1)[0].attempted, ms(20 + 250));
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!(w.response("a.example.").took(), ms(20 + 250 + 1500 + 30));
    end(w);
}

/// A server that was too weak for all that waited would not survive that a second time.
#[test]
fn a_new_connection_after_a_loss_or_a_stall_gets_sixteen_queries_until_an_answer_comes() {
    let stories: [fn(&mut World); 3] = [
        // It closes, ...
        |w| {
            w.servers[0].replies(|ask| match (ask.link, ask.nth) {
                (0, 500) => vec![close_after(100)],
                (0, _) => Vec::new(),
                _ => vec![ask.answer_after(50)],
            });
        },
        // ... or is silent, ...
        |w| {
            w.servers[0].replies(|ask| match ask.link {
                0 => Vec::new(),
                _ => vec![ask.answer_after(50)],
            });
        },
        // ... or cannot be connected to.
        |w| {
            w.servers[0].attempt = Box::new(|link, _, _| match link {
                0 => Attempt::refused(),
                _ => Attempt::good(10),
            });
            w.servers[0].replies(|ask| vec![ask.answer_after(50)]);
        },
    ];
    for (number, story) in stories.into_iter().enumerate() {
        let mut w = world(1);
        story(&mut w);
        for n in 0..500 {
            w.ask(&numbered(n));
        }
        w.run_ms(4500);
        assert_eq!((failures(&w), w.oracle.responses.len()), (0, 500), "story {number}");
        let seen = &w.links[1].seen;
        let at_first = seen.iter().filter(|one| one.at < seen[0].at + ms(50)).count();
        assert_eq!(at_first, 16, "story {number}");
        assert!(slowest(&w) < ms(2000), "story {number}: {:?}", slowest(&w));
        end(w);
    }
}
