//! Queries that bring connections down, among others that do not.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dot_proxy::forwarder::{Closed, Notice};

use crate::{
    close_after, copies, distant, end, failures, numbered, warm, world, world_of, wrong_question,
};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{Ask, Do, Random, Response, Step, What, World, default_policy, ms};

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
    assert_eq!(w.notices, [], "its closes are not the upstream's failure");
    w.ask("good.example.");
    w.run_ms(200);
    assert_eq!(w.response("good.example.").took(), ms(30));
    end(w);
}

#[test]
fn queries_that_bring_connections_down_do_not_excuse_each_other() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        name if name.starts_with("poison") => vec![close_after(5)],
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..20 {
        w.ask(&format!("poison{n}.example."));
        w.run_ms(200);
        w.ask(&numbered(n));
        w.run_ms(200);
        assert_eq!(copies(&w, &format!("poison{n}.example.")), 2, "the {n}th");
    }
    assert_eq!((failures(&w), w.notices.len()), (20, 0), "{:?}", w.notices);
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
    // A suspend is no fault of the query, so the bound on sends without an answer does not apply.
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
    w.servers[0].replies(|ask| vec![Step::after(10, Do::Answer(wrong_question(ask)))]);
    w.ask("a.example.");
    w.run_ms(500);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn u23_a_poisonous_name_asked_for_by_several_types_costs_no_good_query() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("poison") {
            vec![close_after(0)]
        } else {
            vec![ask.answer_after(10)]
        }
    });
    for second in 0..10 {
        for n in 0..100 {
            if n == 37 {
                for kind in 0..3 {
                    w.ask_edns(&format!("poison{second}-{kind}.example."));
                }
            }
            w.ask(&numbered(second * 100 + n));
            w.run_ms(10);
        }
    }
    w.run_ms(4500);
    let good = w.oracle.responses.iter().filter(|r| !r.name.starts_with("poison"));
    assert_eq!(good.filter(|r| r.rcode != NOERROR).count(), 0);
    end(w);
}

#[test]
fn u23_one_a_second_that_closes_costs_no_other_query() {
    for round_trip in [20, 60] {
        let w = poisoned(round_trip, |_, round_trip| vec![close_after(round_trip)]);
        let connects = w.links.len();
        assert!(connects <= 1 + 20 * 3, "round trip {round_trip}: {connects} connects");
        let mut codes = poison(&w).into_iter().map(|response| response.extended_error);
        assert!(codes.all(|code| code == Some(23)), "round trip {round_trip}");
        end_poisoned(w, round_trip);
    }
}

#[test]
fn u10_one_a_second_with_a_bad_answer_costs_no_other_query() {
    for round_trip in [20, 60] {
        let w = poisoned(round_trip, |ask, round_trip| {
            vec![Step::after(round_trip, Do::Answer(wrong_question(ask)))]
        });
        for second in 0..20 {
            assert_eq!(copies(&w, &format!("poison{second}.example.")), 2);
        }
        let connects = w.links.len();
        assert!(connects <= 1 + 20 * 2, "round trip {round_trip}: {connects} connects");
        end_poisoned(w, round_trip);
    }
}

#[test]
fn a_query_is_not_blamed_for_a_connection_that_answered_another() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (0 | 1, 1) => vec![close_after(10)],
        (2, 1) => vec![ask.answer_after(10), close_after(10)],
        (0..=2, _) => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("a.example.");
    w.ask("b.example.");
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    assert_eq!(w.response("b.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn a_query_is_not_blamed_for_the_bad_answers_of_others() {
    let mut w = warm(1);
    let mut lied_about = HashSet::new();
    w.servers[0].replies(move |ask| match ask.name {
        "slow.example." => vec![ask.answer_after(400)],
        name if name.starts_with("bad") && lied_about.insert(name.to_owned()) => {
            vec![Step::after(10, Do::Answer(wrong_question(ask)))]
        }
        _ => vec![ask.answer_after(5)],
    });
    w.ask("slow.example.");
    for n in 0..6 {
        for good in 0..3 {
            w.ask(&numbered(3 * n + good));
        }
        w.ask(&format!("bad{n}.example."));
        w.run_ms(60);
    }
    w.run_ms(1000);
    assert!(copies(&w, "slow.example.") > 3, "{}", copies(&w, "slow.example."));
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn u03_a_server_that_resets_on_every_second_query_costs_none() {
    let mut w = distant(20);
    w.servers[0].replies(|ask| match ask.nth {
        1 => vec![ask.answer_after(20)],
        2 => vec![Step::after(20, Do::Close(Closed::Reset))],
        _ => Vec::new(),
    });
    for n in 0..200 {
        w.ask(&numbered(n));
        w.run_ms(200);
    }
    w.run_ms(4500);
    assert_eq!(failures(&w), 0);
    end(w);
}

/// Each connection is reset by its first to its seventh query, whatever that is.
#[test]
fn u03_a_server_that_resets_after_a_few_queries_costs_next_to_none() {
    let mut failed = Vec::new();
    for pause in [50, 100, 400] {
        let mut w = distant(20);
        let mut random = Random::new(pause);
        let mut lasts = HashMap::new();
        w.servers[0].replies(move |ask| {
            let last = *lasts.entry(ask.link).or_insert_with(|| random.within(1, 7));
            match ask.nth.cmp(&last) {
                Ordering::Less => vec![ask.answer_after(20)],
                Ordering::Equal => vec![Step::after(0, Do::Close(Closed::Reset))],
                Ordering::Greater => Vec::new(),
            }
        });
        for n in 0..1000 {
            w.ask(&numbered(n));
            w.run_ms(pause);
        }
        w.run_ms(4500);
        failed.push(failures(&w));
        end(w);
    }
    assert!(failed.iter().all(|failed| *failed <= 5), "{failed:?} of 1000 each");
}

#[test]
fn an_upstream_that_only_brings_queries_down_has_failed() {
    let mut w = warm(2);
    w.servers[0].replies(|_| vec![close_after(5)]);
    for n in 0..20 {
        w.ask(&numbered(n));
        w.run_ms(500);
    }
    assert!(failures(&w) <= 1, "{} queries were blamed", failures(&w));
    let failed = |notice: &Notice| matches!(notice, Notice::UpstreamFailed { .. });
    assert_eq!(w.notices.iter().filter(|(_, notice)| failed(notice)).count(), 1, "{:?}", w.notices);
    end(w);
}

/// Twenty seconds of 100 queries each, with one among them that gets `reply`.
fn poisoned(round_trip: u64, reply: fn(&Ask<'_>, u64) -> Vec<Step>) -> World {
    let mut w = distant(round_trip);
    w.servers[0].replies(move |ask| {
        if ask.name.starts_with("poison") {
            reply(ask, round_trip)
        } else {
            vec![ask.answer_after(round_trip)]
        }
    });
    for second in 0..20 {
        for n in 0..100 {
            if n == 50 {
                w.ask_edns(&format!("poison{second}.example."));
            }
            w.ask(&numbered(second * 100 + n));
            w.run_ms(10);
        }
    }
    w.run_ms(4500);
    w
}

fn poison(w: &World) -> Vec<&Response> {
    w.oracle.responses.iter().filter(|response| response.name.starts_with("poison")).collect()
}

fn end_poisoned(w: World, round_trip: u64) {
    let poisonous = poison(&w);
    assert!(poisonous.iter().all(|response| response.rcode == SERVFAIL), "{poisonous:?}");
    assert_eq!(poisonous.len(), 20);
    assert_eq!(failures(&w), 20, "round trip {round_trip}: a good query was lost");
    assert_eq!(w.oracle.responses.len(), 20 + 2000);
    assert_eq!(w.notices, [], "round trip {round_trip}: not the upstream's failure");
    let late = w.oracle.responses.iter().filter(|response| response.rcode == NOERROR);
    let worst = late.map(Response::took).max();
    assert!(worst <= Some(ms(15 * round_trip)), "round trip {round_trip}: {worst:?}");
    end(w);
}

/// Names that bring their connections down come so often that each connection gets some; the others are
/// answered all the same.
#[test]
fn u23_many_poisonous_queries_do_not_bring_the_others_down() {
    // Upstreams by operator, queries a second, and how many of the good ones may fail.
    for (upstreams, bad, good, lost_max) in [
        (&[0][..], 20, 2, 0),
        (&[0], 5, 2, 0),
        (&[0], 5, 5, 0),
        (&[0], 5, 20, 0),
        // More than one connection after the other can tell apart.
        (&[0], 20, 20, 50),
        (&[0, 0], 20, 2, 0),
        (&[0, 0], 20, 20, 0),
        (&[0, 1], 5, 2, 0),
        (&[0, 1], 20, 2, 0),
        (&[0, 1], 20, 20, 0),
    ] {
        let mut w = world_of(default_policy(), upstreams);
        for server in &mut w.servers {
            server.replies(|ask| match ask.name {
                name if name.starts_with("poison") => vec![close_after(5)],
                _ => vec![ask.answer_after(5)],
            });
        }
        w.ask(&numbered(0));
        w.run_ms(500);
        let mut asked = 1;
        for ms in 0..20_000 {
            if ms % (1000 / bad) == 0 {
                w.ask(&format!("poison{ms}.example."));
            }
            if ms % (1000 / good) == 250 / good {
                w.ask(&numbered(asked));
                asked += 1;
            }
            w.run_ms(1);
        }
        w.run_ms(5000);
        let lost = w.oracle.responses.iter().filter(|r| r.rcode == SERVFAIL);
        let lost = lost.filter(|response| !response.name.starts_with("poison")).count();
        assert!(lost as u64 <= lost_max, "{upstreams:?}, {bad} and {good} a second: {lost} lost");
        end(w);
    }
}
