//! SERVFAIL and REFUSED, which another upstream may know better.

use dot_proxy::forwarder::Policy;

use crate::{close_after, copies, end, failures, numbered, slowest, world_of};
use simulator::dns::{NOERROR, NXDOMAIN, REFUSED, SERVFAIL};
use simulator::{Ask, Attempt, Do, Step, default_policy, dns, ms};

fn says(ask: &Ask<'_>, rcode: u8) -> Vec<Step> {
    vec![Step::after(10, Do::Answer(dns::answer(ask.message, ask.serial, rcode, 0)))]
}

/// With an Extended DNS Error.
fn explains(ask: &Ask<'_>, rcode: u8, code: u16) -> Vec<Step> {
    let answer = dns::answer_with_error(ask.message, ask.serial, rcode, code);
    vec![Step::after(10, Do::Answer(answer))]
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
