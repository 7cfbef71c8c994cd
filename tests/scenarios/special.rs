//! Names that are answered here.

use std::time::Duration;

use dot_proxy::forwarder::{Policy, SpecialNames};

use crate::sim_support::dns::{self, Edns, NOERROR, NXDOMAIN};
use crate::sim_support::{Attempt, Server, What, World, default_limits, default_policy, special};
use crate::{copies, end, with_limits, world};

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
                let edns = (questions % 2 == 0).then_some(Edns { size: 512, dnssec_ok: true });
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
    // Of each zone but localhost and those without even an apex; and of those nothing else.
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
