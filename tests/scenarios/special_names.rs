//! Names that are answered here.

use std::time::Duration;

use dot_proxy::forwarder::{Policy, SpecialNames};

use crate::{copies, end, failures, with_limits, world};
use simulator::dns::{Edns, NOERROR, NXDOMAIN, REFUSED, SERVFAIL};
use simulator::{
    Attempt, Do, Server, Step, What, World, default_limits, default_policy, dns, ms, special,
};

const DS: u16 = 43;

fn with_special_names(special_names: SpecialNames) -> World {
    let policy = Policy { special_names, ..default_policy() };
    World::with_policy(default_limits(), policy, vec![Server::healthy()], &[0], 1)
}

/// Asks for every special zone, and for a name below each, by every transport; the judge knows what is
/// due. Gives how many questions that were.
fn ask_for_all(w: &mut World, kinds: &[u16]) -> usize {
    let client = w.tcp_client();
    let mut questions = 0;
    for zone in special::zones() {
        for name in
            [zone.clone(), format!("Host-1.{zone}"), format!("_a._b.{}", zone.to_uppercase())]
        {
            for &kind in kinds {
                questions += 1;
                let edns = (questions % 2 == 0).then_some(Edns { size: 512, dnssec_ok: false });
                let message = dns::query(questions as u16, &name, kind, edns);
                w.tcp_send(client, dns::framed(&message));
                let path = w.next_path();
                w.datagram(path, message);
                w.run_ms(1);
            }
        }
    }
    questions
}

#[test]
fn rfc63_64_65_no_special_name_reaches_an_upstream() {
    let mut w = world(1);
    let questions = ask_for_all(&mut w, &[1, 2, 6, 12, 16, 28, 64, 255, 65_280]);
    w.run_ms(100);
    assert_eq!(w.oracle.responses.len(), 2 * questions);
    assert!(w.oracle.responses.iter().all(|r| r.took().is_zero() && !r.upstream));
    assert_eq!(w.links.len(), 0, "not even a connection");
    assert_eq!(w.forwarder.counts().local, 2 * questions as u64);
    end(w);
}

#[test]
fn rfc64_ds_at_an_apex_is_for_the_parent_to_answer() {
    let mut w = world(1);
    let questions = ask_for_all(&mut w, &[DS]);
    w.run_ms(1000);
    let (forwarded, local): (Vec<_>, Vec<_>) = w.oracle.responses.iter().partition(|r| r.upstream);
    // The apex of each zone but localhost and those without even that; and nothing else.
    assert_eq!(forwarded.len(), 2 * (special::zones().count() - 5));
    assert_eq!(local.len(), 2 * questions - forwarded.len());
    assert!(forwarded.iter().all(|r| special::zones().any(|zone| zone == r.name)));
    end(w);
}

#[test]
fn rfc66_names_that_others_know_are_forwarded() {
    let mut w = world(1);
    let names = [
        "ipv4only.arpa.",
        "a.internal.",
        "www.example.",
        "notlocal.",
        "xlocalhost.",
        "1.10.in-addr.arpa.example.",
        "8.8.8.8.in-addr.arpa.",
    ];
    for name in names {
        w.ask(name);
    }
    w.run_ms(100);
    for name in names {
        assert!(w.response(name).upstream, "{name}");
    }
    end(w);
}

#[test]
fn special_names_can_be_forwarded_all_of_them_or_some() {
    let mut w = with_special_names(SpecialNames::Forward);
    let questions = ask_for_all(&mut w, &[1]);
    w.run_ms(1000);
    assert_eq!(w.oracle.responses.iter().filter(|r| r.upstream).count(), 2 * questions);
    end(w);

    let forwarded = vec![b"\x03168\x03192\x07in-addr\x04arpa\0"[..].into()];
    let mut w = with_special_names(SpecialNames::Local { forwarded });
    w.ask("1.1.168.192.In-Addr.arpa.");
    w.ask("1.1.10.in-addr.arpa.");
    w.run_ms(100);
    let answer = w.response("1.1.168.192.In-Addr.arpa.");
    assert_eq!((answer.rcode, answer.upstream), (NOERROR, true));
    let answer = w.response("1.1.10.in-addr.arpa.");
    assert_eq!((answer.rcode, answer.upstream), (NXDOMAIN, false));
    end(w);
}

#[test]
fn special_names_are_answered_whatever_happens_to_upstreams_and_the_table() {
    let mut w = with_limits(|limits| limits.queries_max = 1);
    w.servers[0].attempts(Attempt::black_hole());
    w.ask("a.example.");
    w.ask("localhost.");
    w.run_ms(1);
    assert_eq!(w.response("localhost.").rcode, NOERROR);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.ask("host.local.");
    w.run_ms(1);
    assert_eq!(w.response("host.local.").rcode, NXDOMAIN);
    assert_eq!(copies(&w, "localhost."), 0);
    w.run_ms(5000);
    end(w);
}

const DNSSEC: Edns = Edns { size: 1232, dnssec_ok: true };

/// A client that validates asks over UDP.
fn ask_for_proof(w: &mut World, name: &str, kind: u16) {
    let path = w.next_path();
    w.datagram(path, dns::query(7, name, kind, Some(DNSSEC)));
}

/// One server, which proves that no special zone exists, for `ttl` seconds, or breaks off.
fn denying(ttl: u32) -> World {
    let mut w = world(1);
    w.servers[0]
        .replies(move |ask| vec![Step::after(10, Do::Answer(dns::denial(ask.message, ttl, 64)))]);
    w
}

/// The names that servers saw.
fn seen(w: &World) -> Vec<&str> {
    w.links.iter().flat_map(|link| link.names()).collect()
}

#[test]
fn with_do_set_special_names_get_the_proof_that_the_public_dns_has() {
    let mut w = denying(86_400);
    let names = ["printer.local.", "a.b.LOCAL.", "local."];
    for name in names {
        ask_for_proof(&mut w, name, 1);
    }
    w.run_ms(100);
    for name in names {
        assert_eq!(w.response(name).rcode, NXDOMAIN, "{name}");
        assert_eq!(w.response(name).took(), ms(30), "with the connection, all at once");
    }
    // For every type, over both transports, for an hour.
    w.run_for(Duration::from_secs(3_599));
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "tcp.local.", 65, Some(DNSSEC))));
    ask_for_proof(&mut w, "later.local.", 28);
    w.run_ms(1);
    assert!(
        w.response("tcp.local.").took().is_zero() && w.response("later.local.").took().is_zero()
    );
    assert_eq!(seen(&w), ["local."]);
    w.run_ms(1000);
    ask_for_proof(&mut w, "at-last.local.", 1);
    w.run_ms(100);
    assert_eq!((seen(&w), w.response("at-last.local.").rcode), (vec!["local."; 2], NXDOMAIN));
    assert!(w.oracle.responses.iter().all(|response| !response.upstream && !response.truncated));
    end(w);
}

#[test]
fn without_do_and_for_names_that_nobody_may_be_asked_about_nothing_is_asked() {
    let mut w = denying(86_400);
    for name in ["printer.local.", "a.test.", "1.64.100.in-addr.arpa."] {
        w.ask(name);
    }
    for name in ["a.localhost.", "a.onion.", "_dns.resolver.arpa."] {
        ask_for_proof(&mut w, name, 1);
    }
    w.run_ms(10);
    assert_eq!((w.oracle.responses.len(), w.links.len()), (6, 0));
    end(w);
}

/// A zone that exists, as those of private addresses do, or an upstream that has no proof.
#[test]
fn without_a_proof_special_names_are_answered_as_ever() {
    for rcode in [NOERROR, NXDOMAIN, SERVFAIL, REFUSED] {
        let mut w = world(1);
        w.servers[0].replies(move |ask| {
            let answer = dns::answer(ask.message, ask.serial, rcode, 0);
            vec![Step::after(10, Do::Answer(answer))]
        });
        for name in ["1.1.10.in-addr.arpa.", "printer.local.", "b.local."] {
            ask_for_proof(&mut w, name, 12);
        }
        w.run_ms(100);
        ask_for_proof(&mut w, "c.local.", 12);
        w.run_ms(100);
        assert_eq!(seen(&w), ["10.in-addr.arpa.", "local."], "RCODE {rcode}");
        assert_eq!((w.oracle.responses.len(), failures(&w)), (4, 0));
        // A failure is soon tried again; that there is no proof is kept for an hour.
        w.run_for(Duration::from_secs(60));
        ask_for_proof(&mut w, "d.local.", 12);
        w.run_ms(100);
        let is_failure = [SERVFAIL, REFUSED].contains(&rcode);
        assert_eq!(seen(&w).len(), 2 + usize::from(is_failure), "RCODE {rcode}");
        end(w);
    }
}

#[test]
fn a_server_that_lets_nothing_be_kept_is_asked_once_a_minute() {
    let mut w = denying(0);
    for n in 0..120 {
        ask_for_proof(&mut w, &format!("h{n}.local."), 1);
        w.run_for(Duration::from_secs(1));
    }
    assert_eq!((seen(&w), w.oracle.responses.len(), failures(&w)), (vec!["local."; 2], 120, 0));
    end(w);
}

#[test]
fn while_upstreams_are_silent_or_gone_special_names_do_not_fail() {
    for attempt in [Attempt::black_hole(), Attempt::refused(), Attempt::good(10)] {
        let mut w = world(1);
        w.servers[0].attempts(attempt);
        w.servers[0].replies(|_| Vec::new());
        for n in 0..70 {
            ask_for_proof(&mut w, &format!("h{n}.local."), 1);
        }
        w.run_ms(1);
        assert_eq!(w.oracle.responses.len(), 6, "more than 64 do not wait");
        w.run_ms(5000);
        assert_eq!((w.oracle.responses.len(), failures(&w)), (70, 0));
        ask_for_proof(&mut w, "late.local.", 1);
        w.run_ms(1);
        assert!(w.response("late.local.").took().is_zero());
        w.run_ms(10_000);
        end(w);
    }
}

#[test]
fn a_special_name_waits_for_a_second_for_its_proof_and_not_at_all_for_an_upstream_that_failed() {
    let mut w = denying(86_400);
    w.servers[0].replies(move |ask| {
        vec![Step::after(1300, Do::Answer(dns::denial(ask.message, 86_400, 64)))]
    });
    ask_for_proof(&mut w, "a.local.", 1);
    w.run_ms(500);
    ask_for_proof(&mut w, "b.local.", 1);
    w.run_ms(700);
    ask_for_proof(&mut w, "c.local.", 1);
    w.run_ms(100);
    let took = ["a.local.", "b.local.", "c.local."].map(|name| w.response(name).took());
    assert_eq!(took, [ms(1000), ms(500), ms(0)]);
    w.run_ms(2000);
    assert_eq!(seen(&w), ["local."], "its answer is kept, late as it is");
    end(w);

    let mut w = world(1);
    w.servers[0].attempts(Attempt::refused());
    ask_for_proof(&mut w, "a.local.", 1);
    w.run_ms(100);
    assert_eq!(w.response("a.local.").took(), ms(10));
    ask_for_proof(&mut w, "b.local.", 1);
    w.run_ms(1);
    assert_eq!(w.response("b.local.").took(), ms(0));
    end(w);
}

/// An outage teaches nothing of a zone.
#[test]
fn a_zone_is_asked_for_as_soon_as_an_upstream_that_had_failed_is_back() {
    let mut w = world(1);
    w.servers[0].replies(|ask| match ask.name {
        "local." => vec![Step::after(10, Do::Answer(dns::denial(ask.message, 86_400, 64)))],
        _ => vec![ask.answer_after(10)],
    });
    w.servers[0].attempts(Attempt::refused());
    w.ask("first.example.");
    w.run_ms(100);
    ask_for_proof(&mut w, "a.local.", 1);
    w.run_ms(10_000);
    assert_eq!(w.response("a.local.").took(), ms(0));
    w.servers[0].attempts(Attempt::good(10));
    w.ask("second.example.");
    w.run_ms(5000);
    ask_for_proof(&mut w, "b.local.", 1);
    w.run_ms(1000);
    assert_eq!(seen(&w).last(), Some(&"local."), "{:?}", seen(&w));
    end(w);
}

#[test]
fn a_proof_that_is_too_large_for_a_datagram_comes_over_tcp() {
    let mut w = world(1);
    w.servers[0]
        .replies(|ask| vec![Step::after(10, Do::Answer(dns::denial(ask.message, 60, 600)))]);
    ask_for_proof(&mut w, "printer.local.", 1);
    w.run_ms(100);
    assert!(w.response("printer.local.").truncated);
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "tcp.local.", 1, Some(DNSSEC))));
    w.run_ms(100);
    let response = w.response("tcp.local.");
    assert!(!response.truncated && response.length > 1_232, "{response:?}");
    end(w);
}

#[test]
fn with_the_table_full_or_at_the_end_special_names_do_not_fail() {
    let mut w = with_limits(|limits| limits.queries_max = 3);
    w.servers[0].replies(|ask| match ask.name {
        "local." => vec![Step::after(500, Do::Answer(dns::denial(ask.message, 60, 64)))],
        _ => vec![ask.answer_after(500)],
    });
    ask_for_proof(&mut w, "a.local.", 1);
    ask_for_proof(&mut w, "b.local.", 1);
    ask_for_proof(&mut w, "c.local.", 1);
    ask_for_proof(&mut w, "a.test.", 1);
    w.run_ms(1);
    // One of the first three gave way, and for another zone there is no place.
    assert!(w.oracle.responses.len() == 2 && w.is_answered("a.test."));
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(1);
    ask_for_proof(&mut w, "d.local.", 1);
    w.run_ms(1);
    assert_eq!(w.response("d.local.").rcode, NXDOMAIN);
    w.run_ms(1000);
    assert_eq!((w.oracle.responses.len(), failures(&w)), (5, 0));
    end(w);
}
