//! Upstreams that cannot be connected to, and how they come back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use dot_proxy::forwarder::{Closed, Hedge, Notice, Order, Policy, Stage};

use crate::{copies, end, failures, numbered, slowest, warm, world, world_of};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{Attempt, Direction, Do, What, World, default_policy, ms};

#[test]
fn u05_mute_after_tcp() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::mute());
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!(w.response("a.example.").took(), ms(1500 + 20 + 10));
    end(w);

    let mut w = world(1);
    w.servers[0].attempts(Attempt::mute());
    w.ask_edns("a.example.");
    w.run_ms(4500);
    assert_eq!(w.response("a.example.").extended_error, Some(22));
    end(w);
}

#[test]
fn u06_a_handshake_of_3_s_is_not_thrown_away() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::slow_tls(3000));
    w.ask("a.example.");
    w.run_ms(3500);
    assert_eq!(w.response("a.example.").took(), ms(3010));
    assert_eq!(w.links.len(), 1);
    end(w);
}

#[test]
fn u06_an_attempt_outlives_the_queries_that_caused_it() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::slow_tls(6000));
    w.ask("a.example.");
    w.run_ms(5900);
    assert_eq!(w.response("a.example.").rcode, SERVFAIL);
    w.run_ms(200);
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.response("b.example.").took(), ms(10));
    assert_eq!(w.links.len(), 1);
    end(w);
}

#[test]
fn u06_after_1500_ms_without_a_connection_the_next_upstream_is_asked_too() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::slow_tls(3000));
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!(w.response("a.example.").took(), ms(1500 + 20 + 10));
    w.ask("b.example.");
    w.run_ms(20);
    assert_eq!(w.response("b.example.").took(), ms(10), "from the second, which is open");
    w.run_ms(1000);
    w.ask("c.example.");
    w.run_ms(20);
    assert_eq!(w.links_to(0)[0].names(), ["c.example."], "the first is open now, and preferred");
    assert_eq!(w.links.len(), 2);
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn several_upstreams_that_are_no_dns_servers_at_once_look_like_interception() {
    let mut w = world(3);
    for server in &mut w.servers {
        server.attempts(Attempt::failed(Stage::Negotiation, "no DNS here"));
    }
    w.ask("a.example.");
    w.run_ms(500);
    let details = w.notices.iter().filter_map(|(_, notice)| match notice {
        Notice::UpstreamFailed { detail, .. } => Some(&**detail),
        _ => None,
    });
    let hint = "no DNS here; other upstreams fail in the same way: something in between may \
                intercept TLS";
    assert_eq!(details.collect::<Vec<_>>(), ["no DNS here", hint, hint]);
    w.run_ms(4_500);
    end(w);
}

#[test]
fn u14_certificate_failures_are_answered_at_once() {
    let mut w = world(2);
    for server in &mut w.servers {
        server.attempts(Attempt::failed(Stage::Certificate, "expired on 2026-01-01"));
    }
    w.ask_edns("a.example.");
    w.run_ms(100);
    assert_eq!(w.response("a.example.").rcode, SERVFAIL);
    assert_eq!(w.response("a.example.").took(), ms(40), "one attempt at each upstream");
    assert_eq!(w.response("a.example.").extended_error, Some(0));
    w.ask("b.example.");
    w.run_ms(100);
    assert_eq!(w.response("b.example.").took(), ms(0));
    assert!(w.links.iter().all(|link| link.seen.is_empty()), "no query byte was sent");
    let told = |notice: &Notice| match notice {
        Notice::UpstreamFailed { stage, detail, .. } => {
            *stage == Stage::Certificate && &**detail == "expired on 2026-01-01"
        }
        _ => false,
    };
    assert!(
        w.notices.len() == 2 && w.notices.iter().all(|(_, notice)| told(notice)),
        "{:?}",
        w.notices
    );
    end(w);
}

#[test]
fn u17_unreachable_and_refused_move_on_at_once() {
    for (attempt, after) in [(Attempt::unreachable(), 0), (Attempt::refused(), 10)] {
        let mut w = world(2);
        w.servers[0].attempts(attempt);
        w.ask("a.example.");
        w.run_ms(100);
        assert_eq!(w.response("a.example.").took(), ms(after + 20 + 10));
        for n in 0..200 {
            w.ask(&numbered(n));
            w.run_ms(100);
            assert_eq!(w.response(&numbered(n)).took(), ms(10), "later queries pay nothing");
        }
        end(w);
    }
}

#[test]
fn u17_a_black_hole_costs_1500_ms_once() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::black_hole());
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!(w.response("a.example.").took(), ms(1500 + 20 + 10));
    for n in 0..200 {
        w.ask(&numbered(n));
        w.run_ms(100);
        assert_eq!(w.response(&numbered(n)).took(), ms(10), "later queries pay nothing");
    }
    let attempts = w.links_to(0);
    let (at, _) = attempts[0].closed.expect("given up");
    assert_eq!(at, attempts[0].attempted + ms(3000));
    end(w);
}

#[test]
fn one_attempt_at_a_time_and_backoff_between_them() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::refused());
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    let attempts: Vec<_> = w.links_to(0).iter().map(|link| link.attempted).collect();
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (n, pause) in pauses.iter().enumerate() {
        let nominal = ms(250) * 2_u32.pow(n as u32).min(20);
        // A quarter of jitter, 10 ms until the refusal, and up to 100 until the next query.
        assert!(*pause >= nominal * 3 / 4, "pause {n}: {pause:?}");
        assert!(*pause <= nominal * 5 / 4 + ms(110), "pause {n}: {pause:?}");
    }
    assert!((14..=24).contains(&attempts.len()), "{pauses:?}");
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_failed_upstream_comes_back_beside_the_traffic() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(100);
    w.servers[0].attempts(Attempt::slow_tls(1000));
    for n in 0..30 {
        w.ask(&numbered(n));
        w.run_ms(100);
        assert_eq!(w.response(&numbered(n)).took(), ms(10), "no query waits for the attempt");
    }
    assert!(matches!(
        w.notices[..],
        [(_, Notice::UpstreamFailed { .. }), (_, Notice::UpstreamUsable { .. })]
    ));
    let back = w.links_to(0)[1].connected.expect("connected");
    assert!(!w.links_to(0)[1].seen.is_empty(), "the first in order gets the queries again");
    assert!(w.links_to(1)[0].seen.iter().all(|seen| seen.at <= back));
    end(w);
}

#[test]
fn without_queries_a_failed_upstream_is_left_alone() {
    let mut w = world(2);
    w.servers[0].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(100);
    w.run_ms(600_000);
    assert_eq!(w.links_to(0).len(), 1);
    end(w);
}

#[test]
fn an_upstream_that_stalled_must_answer_a_copy_of_a_query_to_be_usable() {
    let mut w = world(2);
    let answers = Rc::new(Cell::new(false));
    let answering = Rc::clone(&answers);
    w.servers[0]
        .replies(move |ask| if answering.get() { vec![ask.answer_after(10)] } else { Vec::new() });
    w.ask("a.example.");
    w.run_ms(2000);
    for n in 0..100 {
        answers.set(n >= 50);
        w.ask(&numbered(n));
        w.run_ms(200);
        assert_eq!(w.response(&numbered(n)).took(), ms(10), "no query pays for the trial");
    }
    assert_eq!(failures(&w), 0);
    assert!(w.links_to(0).len() >= 3, "connected again, and did not answer");
    let usable: Vec<_> = w
        .notices
        .iter()
        .filter(|(_, notice)| matches!(notice, Notice::UpstreamUsable { .. }))
        .collect();
    assert_eq!(usable.len(), 1, "{:?}", w.notices);
    assert!(usable[0].0 > ms(2000 + 50 * 200), "connecting is not enough: {usable:?}");
    end(w);
}

#[test]
fn u20_unreachable_for_ten_minutes_then_back() {
    for attempt in [Attempt::unreachable(), Attempt::black_hole(), Attempt::refused()] {
        let mut w = warm(2);
        w.servers.iter_mut().for_each(|server| server.attempts(attempt.clone()));
        for server in 0..2 {
            w.schedule(Duration::ZERO, What::ServerDies { server });
        }
        for n in 0..600 {
            w.ask(&numbered(n));
            w.run_ms(1000);
        }
        w.run_ms(4500);
        assert_eq!(failures(&w), 600);
        assert!(w.notices.len() <= 12, "{} lines in ten minutes", w.notices.len());
        let back = w.at();
        w.servers.iter_mut().for_each(|server| server.attempts(Attempt::good(10)));
        for n in 1000..1010 {
            w.ask(&numbered(n));
            w.run_ms(1000);
        }
        let first = w.oracle.responses.iter().find(|r| r.asked >= back && r.rcode == NOERROR);
        let first = first.expect("it is back").at;
        assert!(first <= back + ms(5000), "{:?} after the return", first - back);
        assert_eq!(w.response(&numbered(1009)).took(), ms(10));
        end(w);
    }
}

#[test]
fn u21_500_cold_queries_one_connect() {
    let mut w = world(1);
    for n in 0..500 {
        w.ask(&numbered(n));
    }
    w.run_ms(100);
    assert_eq!((failures(&w), w.links.len()), (0, 1));
    assert_eq!(w.forwarder.counts().connects, 1);
    assert_eq!(slowest(&w), ms(30));
    end(w);
}

#[test]
fn with_nothing_up_one_attempt_a_second_and_a_quick_servfail() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::refused());
    for n in 0..3000 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(2000);
    assert_eq!(failures(&w), 3000);
    assert!((29..=36).contains(&w.links.len()), "{} attempts in 30 s", w.links.len());
    for n in 200..3000 {
        assert!(w.response(&numbered(n)).took() <= ms(1500), "query {n}");
    }
    end(w);
}

#[test]
fn with_nothing_up_a_query_waits_for_an_upstream_to_return() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(100);
    assert!(!w.is_answered("a.example."), "one failure is not the end");
    w.servers[0].attempts(Attempt::good(10));
    w.run_ms(1500);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn every_query_is_answered_by_its_deadline() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::mute());
    w.ask_edns("a.example.");
    w.run_ms(1000);
    w.ask("b.example.");
    w.run_ms(4500);
    assert_eq!(w.response("a.example.").took(), ms(4500));
    assert_eq!(w.response("b.example.").took(), ms(4500));
    end(w);
}

/// A world whose first two of three servers have failed for long, and a query is answered by the third.
fn two_of_three_backed_off() -> World {
    let mut w = world(3);
    for server in [0, 1] {
        w.servers[server].attempts(Attempt::failed(Stage::Certificate, "not yet valid"));
    }
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w
}

#[test]
fn a_change_of_the_network_ends_the_backoff_of_its_upstream_alone() {
    let mut w = two_of_three_backed_off();
    let before = [0, 1].map(|server| w.links_to(server).len());
    w.schedule(Duration::ZERO, What::NetworkChange { server: 0, lost: false });
    w.ask("a.example.");
    w.run_ms(10);
    let after = [0, 1].map(|server| w.links_to(server).len());
    assert_eq!(after, [before[0] + 1, before[1]], "tried again with the next query");
    end(w);
}

#[test]
fn u04_connections_lost_with_a_change_of_the_network_are_given_up_at_once() {
    let mut w = warm(2);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.ask("a.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::NetworkChange { server: 0, lost: true });
    w.run_ms(100);
    assert!(w.links[0].closed.is_some());
    assert_eq!(w.response("a.example.").took(), ms(100 + 20 + 10), "sent again, where it was");
    assert_eq!(failures(&w), 0, "nobody's fault");
    // What was learned of others and their connections are as before.
    w.ask("b.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::NetworkChange { server: 1, lost: true });
    w.ask("c.example.");
    w.run_ms(100);
    assert_eq!(w.response("c.example.").took(), ms(10));
    assert_eq!(w.links.len(), 2);
    end(w);
}

#[test]
fn u04_an_attempt_that_is_lost_with_a_change_of_the_network_is_made_anew() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::black_hole());
    w.ask("a.example.");
    w.run_ms(500);
    w.servers[0].attempts(Attempt::good(10));
    w.schedule(Duration::ZERO, What::NetworkChange { server: 0, lost: true });
    w.run_ms(100);
    assert_eq!(w.response("a.example.").took(), ms(500 + 20 + 10));
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn h02_after_a_suspend_no_old_connection_is_trusted() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.ask("a.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::Resume);
    w.run_ms(100);
    assert!(w.links[0].closed.is_some());
    assert_eq!(w.response("a.example.").took(), ms(100 + 20 + 10), "sent again");
    end(w);
}

#[test]
fn h02_a_stopped_process_does_not_send_on_a_connection_past_its_idle_deadline() {
    let mut w = warm(1);
    w.schedule(Duration::ZERO, What::Freeze { length: ms(20_000) });
    w.run_ms(0);
    // In one turn with the timer, and before it.
    w.ask("a.example.");
    w.run_ms(100);
    assert!(!w.links[0].names().contains(&"a.example."));
    assert_eq!(w.response("a.example.").took(), ms(30), "as from cold");
    end(w);
}

#[test]
fn what_another_second_does_not_mend_backs_off_to_a_minute() {
    for stage in [Stage::Certificate, Stage::Negotiation] {
        let mut w = world(1);
        w.servers[0].attempts(Attempt::failed(stage, "no luck"));
        for n in 0..600 {
            w.ask(&numbered(n));
            w.run_ms(1000);
        }
        w.run_ms(100);
        assert_eq!(failures(&w), 600);
        let attempts: Vec<_> = w.links.iter().map(|link| link.attempted).collect();
        assert!((14..=22).contains(&attempts.len()), "{stage}: {} attempts", attempts.len());
        let longest = attempts.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(longest >= Some(ms(45_000)) && longest <= Some(ms(76_000)), "{longest:?}");
        end(w);
    }
}

#[test]
fn after_an_outage_by_certificate_the_first_query_behind_the_backoff_is_answered() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::failed(Stage::Certificate, "expired"));
    for n in 0..120 {
        w.ask(&numbered(n));
        w.run_ms(1000);
    }
    assert_eq!(failures(&w), 120);
    w.run_ms(76_000);
    w.ask("a.example.");
    w.run_ms(15);
    assert!(!w.is_answered("a.example."), "it waits for the attempt it caused");
    w.run_ms(100);
    assert_eq!(w.response("a.example.").rcode, SERVFAIL, "no longer than that");
    w.servers[0].attempts(Attempt::good(10));
    w.run_ms(76_000);
    w.ask("b.example.");
    w.run_ms(10);
    w.ask("c.example.");
    w.run_ms(100);
    assert_eq!(w.response("b.example.").rcode, NOERROR);
    assert_eq!(w.response("b.example.").took(), ms(30));
    assert_eq!(w.response("c.example.").took(), ms(20));
    end(w);
}

#[test]
fn an_upstream_that_fails_and_returns_all_the_time_is_told_of_once_a_minute() {
    let mut w = world(2);
    w.servers[0].attempt = Box::new(|_, at, _| match at.as_secs() % 4 {
        0 | 1 => Attempt::refused(),
        _ => Attempt::good(10),
    });
    for n in 0..6000 {
        if n % 40 == 0 {
            let open = w.links.iter().position(|link| link.server == 0 && link.is_open());
            if let Some(link) = open {
                w.serve(link, Do::Close(Closed::Reset));
            }
        }
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    assert_eq!(failures(&w), 0);
    let (failed, usable): (Vec<_>, Vec<_>) =
        w.notices.iter().partition(|(_, notice)| matches!(notice, Notice::UpstreamFailed { .. }));
    assert!(w.links_to(0).len() > 200, "it comes and goes");
    assert!((9..=11).contains(&failed.len()), "{:?}", w.notices);
    assert!(failed.windows(2).all(|pair| pair[1].0 - pair[0].0 >= ms(60_000)), "{failed:?}");
    assert!(usable.len() <= failed.len(), "{:?}", w.notices);
    end(w);
}

/// Nor does a summary speak of one of which the last word was that it is usable.
#[test]
fn an_upstream_that_fails_soon_after_its_return_and_stays_so_is_told_of_when_a_minute_is_over() {
    for (other_returns, failed, returned, failed_again) in [(1000, 0, 2, 6), (40, 30, 32, 36)] {
        let mut w = world_of(Policy { order: Order::Fastest, ..default_policy() }, &[0, 1, 2]);
        let dead = |is_dead| if is_dead { Attempt::refused() } else { Attempt::good(10) };
        let is_dead =
            move |at: Duration| at >= ms(failed_again) || (ms(failed)..ms(returned)).contains(&at);
        w.servers[0].attempt = Box::new(move |_, at, _| dead(is_dead(at / 1000)));
        w.servers[1].attempt = Box::new(move |_, at, _| dead(at / 1000 < ms(other_returns)));
        w.servers[2].replies(|ask| vec![ask.answer_after(100)]);
        for n in 0..2000 {
            let open = w.links.iter().position(|link| link.server == 0 && link.is_open());
            if let Some(link) = open.filter(|_| is_dead(w.at() / 1000)) {
                w.serve(link, Do::Close(Closed::Reset));
            }
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        let of_it = |notice: &Notice| match notice {
            Notice::UpstreamFailed { upstream, .. } => Some((upstream.clone(), "failed")),
            Notice::UpstreamStillFailed { upstream, .. } => Some((upstream.clone(), "still")),
            Notice::UpstreamUsable { upstream, .. } => Some((upstream.clone(), "usable")),
            _ => None,
        };
        let all = w.notices.iter().filter_map(|(at, notice)| Some((*at, of_it(notice)?)));
        let told = all.filter(|(_, (upstream, _))| upstream.starts_with("192.0.2.0#"));
        let told: Vec<_> = told.map(|(at, (_, what))| (at.as_secs(), what)).collect();
        let words: Vec<_> = told.iter().map(|(_, what)| *what).take(3).collect();
        assert_eq!(words, ["failed", "usable", "failed"], "{:?}", w.notices);
        assert!(told[1].0 < failed_again, "{told:?}");
        assert!((failed + 60..failed + 70).contains(&told[2].0), "{told:?}");
        assert_eq!(failures(&w), 0);
        end(w);
    }
}

#[test]
fn u19_a_query_past_its_deadline_is_never_written() {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::slow_tls(4600));
    w.ask("late.example.");
    // Stopped meanwhile, it learns of the connection and of the deadline at once.
    w.schedule(ms(4000), What::Freeze { length: ms(1000) });
    w.run_ms(4400);
    w.run_ms(1000);
    assert_eq!(w.response("late.example.").rcode, SERVFAIL);
    assert_eq!((w.links.len(), copies(&w, "late.example.")), (1, 0));
    end(w);
}

/// A dead address in front of a good one of the same operator, as where IPv6 leads nowhere (RFC 8305).
#[test]
fn u17_the_next_address_of_an_operator_is_tried_after_250_ms() {
    for attempt in [Attempt::black_hole(), Attempt::mute()] {
        let mut w = world_of(default_policy(), &[0, 0, 1]);
        w.servers[0].attempts(attempt.clone());
        for n in 0..100 {
            w.ask(&numbered(n));
            w.run_ms(100);
        }
        w.run_ms(1000);
        let first = w.response(&numbered(0));
        assert_eq!(first.took(), ms(250 + 20 + 10), "{attempt:?}");
        // Later ones pay nothing, also when the first attempt has come to its end.
        for n in 3..100 {
            let took = w.response(&numbered(n)).took();
            assert_eq!(took, ms(10), "{attempt:?}: {n}");
        }
        assert_eq!(w.links_to(2).len(), 0, "{attempt:?}: the other operator sees nothing");
        assert_eq!(failures(&w), 0);
        end(w);
    }
}

#[test]
fn u17_another_operator_is_asked_as_early_if_that_is_wanted() {
    for (hedge, took) in [(Hedge::Same, 1500), (Hedge::Any, 250)] {
        let policy = Policy { hedge, ..default_policy() };
        let mut w = world_of(policy, &[0, 1]);
        w.servers[0].attempts(Attempt::black_hole());
        w.ask("a.example.");
        w.run_ms(3000);
        assert_eq!(w.response("a.example.").took(), ms(took + 20 + 10), "{hedge:?}");
        end(w);
    }
}

/// The one that comes too late is closed before it says anything, and costs nobody anything later.
#[test]
fn an_address_that_was_slow_to_connect_is_closed_before_its_handshake() {
    let mut w = world_of(default_policy(), &[0, 0]);
    let late = Attempt { established: Some(ms(400)), end: Some((ms(800), Ok(()))) };
    w.servers[0].attempts(late);
    for n in 0..50 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    w.run_ms(100);
    assert_eq!(w.response(&numbered(0)).took(), ms(280));
    let links = w.links_to(0);
    assert_eq!(links.len(), 1, "it is not tried again while the other serves");
    let (at, _) = links[0].closed.expect("it is closed");
    assert_eq!((at, links[0].connected), (ms(400), None));
    for n in 3..50 {
        assert_eq!(w.response(&numbered(n)).took(), ms(10), "{n}");
    }
    // It is tried once the other is gone.
    w.servers[0].attempts(Attempt::good(10));
    w.serve(1, Do::Close(Closed::Eof));
    w.run_ms(100);
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!((w.links_to(0).len(), w.response("a.example.").took()), (2, ms(30)));
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn a_distant_address_is_not_slow_once_its_distance_is_known() {
    let mut w = world_of(default_policy(), &[0, 0]);
    for server in &mut w.servers {
        server.attempts(Attempt::good(600));
        server.replies(|ask| vec![ask.answer_after(600)]);
    }
    w.ask("a.example.");
    w.run_ms(3000);
    let links = w.links.len();
    assert!(
        links <= 2,
        "{:?}",
        w.links.iter().map(|l| (l.server, l.attempted, l.connected, l.closed)).collect::<Vec<_>>()
    );
    w.run_ms(20_000);
    w.ask("b.example.");
    w.run_ms(3000);
    assert_eq!(w.links.len(), links + 1, "idle for long, and one attempt");
    assert_eq!(failures(&w), 0);
    end(w);
}

/// The one that was there first may hang in its handshake, or fail.
#[test]
fn an_address_that_was_passed_over_is_tried_again_when_the_other_does_not_serve() {
    let mut w = world_of(default_policy(), &[0, 0]);
    let late = Attempt { established: Some(ms(300)), end: Some((ms(320), Ok(()))) };
    w.servers[0].attempts(late);
    w.servers[1].attempts(Attempt::mute());
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!(w.links_to(0).len(), 2, "closed at 300 ms, and tried again");
    // The other handshake is slow 250 ms after its attempt.
    assert_eq!(w.response("a.example.").took(), ms(500 + 320 + 10));
    end(w);
}

/// Else an attempt would be made and given up, again and again.
#[test]
fn an_address_that_was_passed_over_is_used_while_the_other_is_quiet() {
    let mut w = world_of(default_policy(), &[0, 0]);
    // Slow once.
    let late = Attempt { established: Some(ms(300)), end: Some((ms(320), Ok(()))) };
    w.servers[0].attempts(late);
    w.ask("a.example.");
    w.run_ms(400);
    w.servers[0].attempts(Attempt::good(20));
    assert_eq!((w.links.len(), w.links[0].closed.is_some()), (2, true), "passed over");
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.serve(1, Do::Hold(Direction::FromServer, ms(800)));
    for n in 20..120 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(1000);
    assert!(w.links.len() <= 4, "{} connections", w.links.len());
    assert!(slowest(&w) <= ms(300), "{:?}", slowest(&w));
    assert_eq!(failures(&w), 0);
    end(w);
}
