//! Second opinions, copies of what is late, and queries that turn to another upstream.

use dot_proxy::forwarder::{Closed, Hedge, Order, Policy};

use crate::sim_support::dns::{self, NOERROR, NXDOMAIN, REFUSED, SERVFAIL};
use crate::sim_support::{
    Ask, Attempt, Do, Server, Step, World, default_limits, default_policy, ms,
};
use crate::{close_after, copies, end, failures, numbered, slowest};

/// Servers of these operators.
fn world_of(policy: Policy, operators: &[usize]) -> World {
    let servers = operators.iter().map(|_| Server::healthy()).collect();
    World::with_policy(default_limits(), policy, servers, operators, 1)
}

fn says(ask: &Ask<'_>, rcode: u8) -> Vec<Step> {
    vec![Step::after(10, Do::Answer(dns::answer(ask.message, ask.serial, rcode, 0)))]
}

/// With an Extended DNS Error.
fn explains(ask: &Ask<'_>, rcode: u8, code: u16) -> Vec<Step> {
    let answer = dns::answer_with_error(ask.message, ask.serial, rcode, code);
    vec![Step::after(10, Do::Answer(answer))]
}

/// Queries enough to have saved up for some copies.
fn save_up(w: &mut World) {
    for n in 0..400 {
        w.ask(&format!("saved{n}.example."));
        w.run_ms(5);
    }
    w.run_ms(100);
    assert_eq!(failures(w), 0);
}

#[test]
fn u18_servfail_and_refused_are_asked_of_another_operator() {
    for rcode in [SERVFAIL, REFUSED] {
        let mut w = world_of(default_policy(), &[0, 0, 1]);
        w.servers[0].replies(move |ask| says(ask, rcode));
        w.ask("a.example.");
        w.run_ms(100);
        let response = w.response("a.example.");
        assert_eq!((response.rcode, response.took()), (NOERROR, ms(30 + 20 + 10)));
        assert_eq!(w.links_to(1).len(), 0, "the same operator would say the same");
        assert_eq!(w.forwarder.counts().retried, 1);
        end(w);
    }
}

#[test]
fn u18_half_the_answers_are_servfail() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, if ask.nth % 2 == 0 { SERVFAIL } else { NOERROR }));
    for n in 0..1000 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(100);
    let retried = w.forwarder.counts().retried;
    assert_eq!(retried, 1 + 1000 / 20, "as many as the budget allows");
    assert_eq!(failures(&w) as u64, 500 - retried, "all others are passed on");
    assert!(slowest(&w) <= ms(60));
    end(w);
}

#[test]
fn u18_nxdomain_is_an_answer() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, NXDOMAIN));
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!((w.response("a.example.").rcode, w.links_to(1).len()), (NXDOMAIN, 0));
    end(w);
}

#[test]
fn u18_failed_validation_and_policy_are_not_questioned() {
    for code in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18] {
        let mut w = world_of(default_policy(), &[0, 1]);
        w.servers[0].replies(move |ask| explains(ask, SERVFAIL, code));
        w.ask_edns("a.example.");
        w.run_ms(100);
        assert_eq!((w.response("a.example.").rcode, w.links_to(1).len()), (SERVFAIL, 0), "{code}");
        end(w);
    }
    for code in [0, 3, 13, 14, 22, 23] {
        let mut w = world_of(default_policy(), &[0, 1]);
        w.servers[0].replies(move |ask| explains(ask, SERVFAIL, code));
        w.ask_edns("a.example.");
        w.run_ms(100);
        assert_eq!(w.response("a.example.").rcode, NOERROR, "{code}");
        end(w);
    }
}

#[test]
fn u18_the_first_reply_is_delivered_if_the_second_fails_too() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| explains(ask, REFUSED, 0));
    w.servers[1].replies(|ask| says(ask, SERVFAIL));
    w.ask_edns("a.example.");
    w.run_ms(100);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.extended_error), (REFUSED, Some(0)));
    end(w);
}

#[test]
fn u18_the_first_reply_is_delivered_if_the_second_upstream_cannot_be_connected_to() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, REFUSED));
    w.servers[1].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!(w.response("a.example.").took(), ms(30 + 10));
    assert_eq!(w.response("a.example.").rcode, REFUSED);
    end(w);
}

#[test]
fn u18_the_first_reply_is_delivered_if_the_second_closes() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, REFUSED));
    w.servers[1].replies(|_| vec![close_after(10)]);
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!(w.response("a.example.").rcode, REFUSED);
    assert_eq!(copies(&w, "a.example."), 2);
    end(w);
}

#[test]
fn u18_the_first_reply_is_not_held_back_for_more_than_a_second() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, SERVFAIL));
    w.servers[1].replies(|ask| vec![ask.answer_after(2000)]);
    w.ask("a.example.");
    w.run_ms(3000);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.upstream), (SERVFAIL, true));
    assert_eq!(response.took(), ms(30 + 1000));
    end(w);
}

#[test]
fn u18_a_large_reply_is_passed_on_at_once() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, SERVFAIL, 600);
        vec![Step::after(10, Do::Answer(answer))]
    });
    w.ask_edns("a.example.");
    w.run_ms(100);
    assert_eq!((w.response("a.example.").rcode, w.links_to(1).len()), (SERVFAIL, 0));
    end(w);
}

#[test]
fn u18_a_second_opinion_is_sought_only_if_wanted() {
    let policy = Policy { retry_servfail: false, ..default_policy() };
    let mut w = world_of(policy, &[0, 1]);
    w.servers[0].replies(|ask| says(ask, SERVFAIL));
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!((w.response("a.example.").rcode, w.links_to(1).len()), (SERVFAIL, 0));
    end(w);
}

#[test]
fn a_failed_upstream_is_revived_for_second_opinions() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| says(ask, SERVFAIL));
    w.servers[1].attempts(Attempt::refused());
    w.ask("a.example.");
    w.run_ms(1000);
    w.servers[1].attempts(Attempt::good(10));
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    assert_eq!(w.links_to(1).len(), 2);
    assert_eq!(w.links_to(1)[1].seen.len(), 5);
    end(w);
}

#[test]
fn a_late_answer_is_sought_at_another_address_of_the_operator() {
    let mut w = world_of(default_policy(), &[0, 1, 0]);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    w.ask("a.example.");
    w.run_ms(1100);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.took()), (NOERROR, ms(20 + 250 + 20 + 10)));
    assert_eq!((w.links_to(1).len(), w.links_to(2).len()), (0, 1));
    assert_eq!(w.facts, [], "slow, but not failed");
    end(w);
}

#[test]
fn late_is_three_times_the_usual() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0]
        .replies(|ask| vec![ask.answer_after(if ask.name == "b.example." { 900 } else { 200 })]);
    save_up(&mut w);
    w.run_ms(500);
    let asked = w.at();
    w.ask("b.example.");
    w.run_ms(1000);
    let seen = w.links_to(1)[0].seen[0].at;
    assert!((asked + ms(600)..asked + ms(650)).contains(&seen), "{asked:?} {seen:?}");
    end(w);
}

#[test]
fn copies_of_late_queries_keep_to_their_budget() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| vec![ask.answer_after(if ask.nth % 20 > 0 { 10 } else { 800 })]);
    for n in 0..3000 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.run_ms(2000);
    let hedged = w.forwarder.counts().hedged;
    assert!((59..=61).contains(&hedged), "two percent: {hedged}");
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_name_is_not_shown_to_another_operator_unless_wanted() {
    let slow = |w: &mut World| {
        w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
        w.ask("a.example.");
        w.run_ms(1100);
    };
    for (order, hedge, shown) in [
        (Order::Ordered, Hedge::Same, 0),
        (Order::Ordered, Hedge::Any, 1),
        (Order::Fastest, Hedge::Any, 1),
        (Order::Fastest, Hedge::Same, 0),
        (Order::Spread, Hedge::Any, 1),
        (Order::Ordered, Hedge::Off, 0),
    ] {
        let mut w = world_of(Policy { order, hedge, ..default_policy() }, &[0, 1]);
        slow(&mut w);
        let seen: usize = w.links_to(1).iter().map(|link| link.seen.len()).sum();
        assert_eq!(seen, shown, "{order:?} {hedge:?}");
        end(w);
    }
}

#[test]
fn servfail_waits_while_another_copy_is_out() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, SERVFAIL, 0);
        vec![Step::after(300, Do::Answer(answer))]
    });
    w.servers[1].replies(|ask| vec![ask.answer_after(500)]);
    w.ask("a.example.");
    w.run_ms(1000);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.took()), (NOERROR, ms(20 + 250 + 20 + 500)));
    end(w);
}

#[test]
fn a_stalled_upstream_with_another_address_costs_no_stall() {
    let mut w = world_of(default_policy(), &[0, 0]);
    save_up(&mut w);
    w.serve(0, Do::Forget);
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!(w.response("a.example.").took(), ms(250 + 20 + 10));
    end(w);
}

#[test]
fn an_upstream_that_turns_into_one_that_closes_costs_nothing_while_another_works() {
    let mut w = world_of(default_policy(), &[0, 1]);
    for n in 0..100 {
        if n == 20 {
            w.servers[0].replies(|_| vec![close_after(10)]);
        }
        w.ask(&numbered(n));
        w.run_ms(30);
    }
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn u23_a_poisonous_query_is_tried_elsewhere_and_harms_nobody_there() {
    let mut w = world_of(default_policy(), &[0, 1]);
    for server in &mut w.servers {
        server.replies(|ask| match ask.name {
            name if name.starts_with("poison") => vec![close_after(10)],
            _ => vec![ask.answer_after(10)],
        });
    }
    for n in 0..2000 {
        w.ask(&if n % 100 == 50 { format!("poison{n}.example.") } else { numbered(n) });
        w.run_ms(10);
    }
    w.run_ms(5000);
    let lost: Vec<_> = w.oracle.responses.iter().filter(|r| r.rcode == SERVFAIL).collect();
    assert!(lost.iter().all(|response| response.name.starts_with("poison")), "{lost:?}");
    assert_eq!(lost.len(), 20);
    end(w);
}

#[test]
fn a_query_whose_answers_are_bad_is_tried_elsewhere() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| vec![Step::after(10, Do::Answer(crate::wrong_question(ask)))]);
    w.ask("a.example.");
    w.run_ms(500);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn what_is_bound_for_an_upstream_that_fails_is_not_lost() {
    let mut w = world_of(default_policy(), &[0, 1, 2]);
    w.servers[0].replies(|ask| match ask.name {
        "a.example." => vec![close_after(10)],
        _ => vec![ask.answer_after(10)],
    });
    w.servers[1].attempts(Attempt::failed(dot_proxy::forwarder::Stage::Tls, "handshake failure"));
    w.ask("warm.example.");
    w.run_ms(100);
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!(w.links_to(2)[0].names(), ["a.example."]);
    end(w);
}

#[test]
fn a_copy_that_is_lost_leaves_the_first_one_alone() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    w.servers[1].replies(|_| vec![Step::after(10, Do::Close(Closed::Reset))]);
    w.ask("a.example.");
    w.run_ms(2000);
    assert_eq!((w.response("a.example.").took(), copies(&w, "a.example.")), (ms(1020), 2));
    end(w);
}

#[test]
fn u19_a_server_that_answers_some_and_falls_silent_costs_little_while_another_works() {
    for answers in [5, 11] {
        let mut w = world_of(default_policy(), &[0, 1]);
        w.servers[0].replies(move |ask| match ask.nth {
            nth if nth <= answers + ask.link % 3 => vec![ask.answer_after(10)],
            _ => vec![Step::after(0, Do::StopReading)],
        });
        for n in 0..1000 {
            w.ask(&numbered(n));
            w.run_ms(4);
        }
        w.run_ms(4500);
        assert_eq!(failures(&w), 0);
        let late = w.oracle.responses.iter().filter(|r| r.took() >= ms(1000)).count();
        assert!(late <= 800, "two stalls: {late}");
        end(w);
    }
}
