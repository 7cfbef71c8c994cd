//! Where two rules meet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dot_proxy::forwarder::{Action, Forwarder};

use crate::sim_support::dns::{self, NOERROR};
use crate::sim_support::{Ask, Attempt, Do, Step, What, default_limits, ms, path_from};
use crate::{close_after, copies, end, numbered, warm, with_limits, world};

#[test]
fn no_timer_outlives_a_client_closed_for_what_it_holds() {
    let mut limits = default_limits();
    limits.client_bytes_max = 20;
    let mut forwarder = Forwarder::new(limits, crate::default_policy(), vec!["up".into()], 1);
    let start = Instant::now();
    let connect = |forwarder: &mut Forwarder, at, port| {
        forwarder.handle_accept(at, SocketAddr::from(([127, 0, 0, 1], port))).unwrap()
    };
    let drain = |forwarder: &mut Forwarder| -> Vec<Action> {
        std::iter::from_fn(|| forwarder.poll_action()).collect()
    };
    let first = connect(&mut forwarder, start, 1000);
    // Two queries of another opcode, whose answers are too many octets, and a partial message.
    let notify = [0, 12, 0, 1, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    forwarder.handle_stream(start, first, &[&notify[..], &notify, b"\0"].concat());
    drain(&mut forwarder);
    assert_eq!(forwarder.counts().conns_held, 0);
    assert_eq!(forwarder.poll_timeout(), None);

    let second = connect(&mut forwarder, start + ms(9000), 1001);
    assert_eq!(first.key(), second.key());
    forwarder.handle_timeout(start + ms(10_000));
    assert_eq!(drain(&mut forwarder), [], "idle for a second");
}

#[test]
fn u10_who_lost_a_connection_by_anothers_bad_answer_has_two_tries_of_its_own() {
    let mut w = warm(1);
    let mut lied = false;
    let wrong = |ask: &Ask<'_>| {
        let mut answer = ask.answer();
        answer[13] ^= 1;
        vec![Step::after(5, Do::Answer(answer))]
    };
    w.servers[0].replies(move |ask| match (ask.name, ask.link) {
        ("victim.example.", 0) => wrong(ask),
        ("bystander.example.", 0) => vec![ask.answer_after(50)],
        ("bystander.example.", _) if !std::mem::replace(&mut lied, true) => wrong(ask),
        _ => vec![ask.answer_after(10)],
    });
    w.ask("victim.example.");
    w.ask("bystander.example.");
    w.run_ms(4000);
    assert_eq!(w.response("bystander.example.").rcode, NOERROR);
    end(w);
}

/// Queries that are given up for others keep their message IDs; those others must find new ones.
#[test]
fn c06_a_flood_of_names_that_are_never_answered_does_not_delay_others() {
    let mut w = with_limits(|limits| limits.queries_max = 400);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    let from = |last, n| path_from(SocketAddr::from(([10, 9, 9, last], 1024 + n)));
    for n in 0..4000 {
        w.datagram(from(9, n), dns::query(n, &format!("lost{n}.example."), dns::A, None));
        if n % 20 == 11 {
            w.datagram(from(8, n), dns::query(n, &numbered(u32::from(n)), dns::A, None));
        }
        if n % 2 == 1 {
            w.run_ms(5);
        }
    }
    w.run_ms(5000);
    let mut others: Vec<_> =
        w.oracle.responses.iter().filter(|r| !r.name.starts_with("lost")).collect();
    assert_eq!((others.len(), others.iter().filter(|r| r.rcode == NOERROR).count()), (200, 200));
    others.sort_by_key(|r| r.took());
    assert!(others[180].took() < ms(100), "{:?}", others[180]);
    end(w);
}

/// A stall may be found by its timer or by the query that comes just then.
#[test]
fn a_stall_that_a_query_finds_is_followed_by_the_whole_backoff() {
    let attempts = |late_max| {
        let mut w = world(2);
        w.roughness.late_max = late_max;
        w.servers[0].replies(|_| Vec::new());
        for n in 0..20_000 {
            let path = w.next_path();
            let message = dns::query(n, &numbered(u32::from(n)), dns::A, None);
            let at = Duration::from_millis(3 * u64::from(n));
            w.schedule(at, What::Datagram { path, message, cut: false });
        }
        w.run_ms(66_000);
        let attempted: Vec<_> = w.links_to(0).iter().map(|link| link.attempted).collect();
        // Each stalls 1.5 s after its first query, and no attempt follows at once.
        for pair in attempted.windows(2).skip(1) {
            assert!(pair[1] - pair[0] > ms(1650), "{attempted:?}");
        }
        attempted.len()
    };
    let (on_time, late) = (attempts(ms(0)), attempts(ms(3)));
    assert!(late <= on_time + 2, "{late} attempts, {on_time} on time");
}

#[test]
fn a_client_that_gives_up_early_does_not_make_the_next_query_stall() {
    let mut w = world(2);
    w.servers[0].replies(|ask| match ask.name {
        "slow.example." => vec![ask.answer_after(2000)],
        _ => vec![ask.answer_after(20)],
    });
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "slow.example.", dns::A, None)));
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::ClientResets { client });
    w.run_ms(1440);
    w.ask("next.example.");
    w.run_ms(100);
    assert_eq!(w.response("next.example.").took(), ms(20));
    assert_eq!(w.facts, []);
    w.run_ms(1000);
    end(w);
}

#[test]
fn a_query_that_stalled_before_everything_went_down_is_sent_again_when_it_is_up() {
    let mut w = warm(1);
    w.links[0].forgotten = true;
    w.servers[0].attempts(Attempt::refused());
    w.ask("stalled.example.");
    w.run_ms(3200);
    w.servers[0].attempts(Attempt::good(10));
    w.run_ms(500);
    w.ask("newer.example.");
    w.run_ms(1000);
    assert_eq!(w.response("newer.example.").rcode, NOERROR);
    assert_eq!(w.response("stalled.example.").rcode, NOERROR);
    assert_eq!(copies(&w, "stalled.example."), 1, "the first never arrived");
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
