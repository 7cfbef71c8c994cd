//! Copies of what is late, and queries that turn to another upstream.

use dot_proxy::forwarder::{Closed, Hedge, Order, Policy};

use crate::{close_after, copies, end, failures, numbered, world_of};
use simulator::dns::NOERROR;
use simulator::{Attempt, Do, Step, World, default_policy, ms};

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
fn a_late_answer_is_sought_at_another_address_of_the_operator() {
    let mut w = world_of(default_policy(), &[0, 1, 0]);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    w.ask("a.example.");
    w.run_ms(1100);
    let response = w.response("a.example.");
    assert_eq!((response.rcode, response.took()), (NOERROR, ms(20 + 250 + 20 + 10)));
    assert_eq!((w.links_to(1).len(), w.links_to(2).len()), (0, 1));
    assert_eq!(w.notices, [], "slow, but not failed");
    end(w);
}

/// The first late answer comes before there is another connection, which then is there for the next.
#[test]
fn a_connection_for_a_copy_is_made_also_if_the_answer_comes_meanwhile() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| {
        vec![ask.answer_after(match ask.name {
            "a.example." => 300,
            "b.example." => 1000,
            _ => 10,
        })]
    });
    w.servers[1].attempts(Attempt::good(100));
    save_up(&mut w);
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!((w.response("a.example.").took(), w.links_to(1).len()), (ms(300), 1));
    w.ask("b.example.");
    w.run_ms(1100);
    assert_eq!(w.response("b.example.").took(), ms(250 + 10));
    assert_eq!(w.links_to(1).len(), 1);
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
