//! Where two rules meet: queries with several ways to an answer, one of which is a dead end, among them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dot_proxy::forwarder::{Hedge, Notice, Policy};

use crate::{close_after, copies, end, numbered, warm, world, world_of};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{Ask, Attempt, Do, Step, What, default_policy, dns, ms};

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
    assert_eq!(w.notices, []);
    w.run_ms(1000);
    end(w);
}

#[test]
fn a_query_that_stalled_before_everything_went_down_is_sent_again_when_it_is_up() {
    let mut w = warm(1);
    w.serve(0, Do::Forget);
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

/// Knows no EDNS.
fn formerr(ask: &Ask<'_>) -> Vec<Step> {
    let has_opt = ask.message[11] != 0;
    if has_opt {
        let refusal = dns::answer_without_edns(ask.message, ask.serial, dns::FORMERR);
        vec![Step::after(10, Do::Answer(refusal))]
    } else {
        vec![ask.answer_after(10)]
    }
}

#[test]
fn a_copy_lost_with_its_connection_is_sent_again_although_a_stalled_one_lingers() {
    let mut w = warm(1);
    // A reused one: it answers b and closes on a.
    w.servers[0].replies(|ask| match (ask.link, ask.name) {
        (1, "a.example.") => vec![close_after(30)],
        _ => vec![ask.answer_after(10)],
    });
    w.serve(0, Do::Forget);
    w.ask("a.example.");
    w.run_ms(1530);
    w.ask("b.example.");
    w.run_ms(5000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn the_first_copy_is_sent_again_when_it_is_lost_and_the_second_has_stalled() {
    let mut w = world_of(default_policy(), &[0, 0]);
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.servers[0].replies(|ask| match (ask.link, ask.name) {
        (0, "a.example.") => vec![close_after(2500)],
        (0, "slow.example.") => vec![ask.answer_after(2490)],
        _ => vec![ask.answer_after(10)],
    });
    w.servers[1].replies(|_| Vec::new());
    w.ask("a.example.");
    // The first is kept alive by answers.
    for n in 200..250 {
        w.run_ms(100);
        w.ask(&numbered(n));
    }
    w.run_ms(5000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn a_server_without_edns_is_asked_again_although_a_copy_lingers_on_a_forgotten_connection() {
    let mut w = world(1);
    w.servers[0].replies(formerr);
    w.ask("warm.example.");
    w.run_ms(100);
    w.serve(0, Do::Forget);
    w.ask("a.example.");
    w.run_ms(5000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert!(w.response("a.example.").took() < ms(2500), "U4");
    end(w);
}

#[test]
fn an_error_is_delivered_although_a_copy_lingers_on_a_forgotten_connection() {
    let mut w = warm(1);
    w.servers[0]
        .replies(|ask| vec![Step::after(10, Do::Answer(dns::questionless(ask.message, SERVFAIL)))]);
    w.serve(0, Do::Forget);
    w.ask("a.example.");
    w.run_ms(5000);
    assert!(w.response("a.example.").took() < ms(2500));
    end(w);
}

#[test]
fn an_unreadable_answer_waits_for_the_other_copy() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| {
        let mut answer = ask.answer();
        answer[7] += 1;
        vec![Step::after(300, Do::Answer(answer))]
    });
    w.servers[1].replies(|ask| vec![ask.answer_after(100)]);
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn what_is_bound_for_an_upstream_outlives_a_suspend() {
    let mut w = world_of(Policy { hedge: Hedge::Off, ..default_policy() }, &[0, 1]);
    w.servers[0].replies(|ask| match ask.name {
        "a.example." => vec![close_after(10)],
        _ => vec![ask.answer_after(10)],
    });
    w.servers[1].attempts(Attempt::slow_tls(500));
    w.ask("warm.example.");
    w.run_ms(100);
    w.ask("a.example.");
    w.run_ms(300);
    w.schedule(ms(0), What::Resume);
    w.run_ms(5000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn a_query_that_stalled_twice_and_finds_no_other_upstream_is_sent_again() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| match (ask.link, ask.name) {
        (0, "k.example.") => {
            let answer = dns::answer_with_option(ask.message, ask.serial, 11, &[0, 0]);
            vec![Step::after(10, Do::Answer(answer))]
        }
        (0 | 1, "a.example.") => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    w.servers[1].attempts(Attempt::refused());
    w.ask("a.example.");
    w.ask_edns("k.example.");
    w.run_ms(100);
    w.ask("b.example.");
    w.run_ms(6000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn u04_a_forgotten_connection_that_only_second_opinions_use_is_noticed() {
    let mut w = world_of(default_policy(), &[0, 1]);
    for n in 0..400 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.servers[0].replies(|ask| {
        let fails = ask.name.starts_with('f');
        let rcode = if fails { SERVFAIL } else { NOERROR };
        vec![Step::after(10, Do::Answer(dns::answer(ask.message, ask.serial, rcode, 0)))]
    });
    w.ask("first.example.");
    w.run_ms(1000);
    assert_eq!(w.response("first.example.").rcode, NOERROR);
    w.schedule(ms(0), What::ServerDies { server: 1 });
    for n in 0..100u32 {
        w.ask(&format!("f{n}.example."));
        for m in 0..40 {
            w.ask(&format!("other{n}-{m}.example."));
            w.run_ms(75);
        }
    }
    w.run_ms(5000);
    let failed = w.oracle.responses.iter().filter(|r| r.rcode == SERVFAIL).count();
    assert!(failed < 5);
    end(w);
}

#[test]
fn u04_a_forgotten_connection_that_only_late_copies_use_is_noticed() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0]
        .replies(|ask| vec![ask.answer_after(if ask.name.starts_with('s') { 1200 } else { 10 })]);
    for n in 0..400 {
        w.ask(&numbered(n));
        w.run_ms(5);
    }
    w.ask("s.example.");
    w.run_ms(2000);
    w.schedule(ms(0), What::ServerDies { server: 1 });
    for n in 0..60u32 {
        w.ask(&format!("s{n}.example."));
        for m in 0..60 {
            w.ask(&format!("other{n}-{m}.example."));
            w.run_ms(50);
        }
    }
    w.run_ms(5000);
    let slow = w.oracle.responses.iter().filter(|r| r.took() > ms(1000)).count();
    assert!(slow < 5);
    end(w);
}

/// Behind a server that ends its TLS, an upstream may be this program itself: what is sent there comes back as
/// a client's query.
#[test]
fn a_query_that_goes_round_ends() {
    let mut w = world(1);
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    w.servers[0].replies(move |ask| {
        log.lock().unwrap().push(dns::hops(ask.message));
        vec![
            Step::after(1, Do::Return(ask.message.to_vec())),
            Step::after(500, Do::Answer(ask.answer())),
        ]
    });
    for name in ["round.example.", "again.example."] {
        w.ask_edns(name);
        w.run_ms(1_000);
        assert_eq!(std::mem::take(&mut *sent.lock().unwrap()), [0, 1, 2, 3]);
        let all: Vec<_> = w.oracle.responses.iter().filter(|it| it.name == name).collect();
        let [came_back, others @ ..] = &all[..] else { panic!("no response for {name}") };
        assert_eq!((came_back.rcode, came_back.extended_error), (SERVFAIL, Some(0)));
        assert_eq!(
            came_back.extra_text,
            "the query went round: an upstream leads back to dot-proxy"
        );
        assert!(others.len() == 4 && others.iter().all(|it| it.rcode == NOERROR), "{others:?}");
    }
    assert_eq!((w.forwarder.counts().came_back, w.forwarder.counts().failed), (2, 2));
    let told = w.notices.iter().filter(|(_, notice)| *notice == Notice::CameBack);
    assert_eq!(told.count(), 1, "once a minute");
    end(w);
}

/// Both upstreams lead back, and answer SERVFAIL as a query ends that has gone round.
#[test]
fn a_query_that_goes_round_is_not_doubled_on_its_way() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    for n in 0..1_000 {
        w.ask(&numbered(n));
        w.run_ms(2);
    }
    let sent = Arc::new(AtomicUsize::new(0));
    for server in 0..2 {
        let sent = Arc::clone(&sent);
        w.servers[server].replies(move |ask| {
            sent.fetch_add(1, Ordering::Relaxed);
            let failure = dns::answer(ask.message, ask.serial, SERVFAIL, 0);
            vec![
                Step::after(1, Do::Return(ask.message.to_vec())),
                Step::after(100, Do::Answer(failure)),
            ]
        });
    }
    for name in ["round.example.", "again.example."] {
        w.ask_edns(name);
        w.run_ms(3_000);
        // Four hops, and four more for the second opinion that the client's own query gets.
        assert_eq!(sent.swap(0, Ordering::Relaxed), 8, "{name}");
    }
    end(w);
}

/// A program that forwards over TLS to a server in front of this one gets second opinions like other clients.
#[test]
fn a_client_that_pads_gets_a_second_opinion() {
    let mut w = world_of(default_policy(), &[0, 1]);
    w.servers[0].replies(|ask| {
        let rcode = if ask.name.starts_with("bad") { SERVFAIL } else { NOERROR };
        vec![Step::after(10, Do::Answer(dns::answer(ask.message, ask.serial, rcode, 0)))]
    });
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(2);
    }
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query_with_option(1, "bad.example.", dns::A, 12)));
    w.run_ms(1_000);
    assert_eq!(w.response("bad.example.").rcode, NOERROR);
    end(w);
}

/// So do those of a forwarder that pads, behind a server that ends its TLS.
#[test]
fn a_client_that_pads_asks_the_same_as_often_as_it_likes() {
    let mut w = world(1);
    let client = w.tcp_client();
    for id in 0..20 {
        let query = dns::query_with_option(id, "same.example.", dns::A, 12);
        w.tcp_send(client, dns::framed(&query));
    }
    w.run_ms(1_000);
    let answered = w.oracle.responses.iter().filter(|response| response.rcode == NOERROR);
    assert_eq!(answered.count(), 20);
    end(w);
}
