//! Answers with addresses of hosts here, which names of others are not to have (DNS rebinding).

use dot_proxy::forwarder::{Policy, PrivateAnswers};

use crate::end;
use simulator::dns::{self, NOERROR};
use simulator::{Do, Server, Step, World, default_limits, default_policy};

/// A server whose answers have this address, and a forwarder with this policy.
fn world_with(private_answers: PrivateAnswers, address: [u8; 4]) -> World {
    let policy = Policy { private_answers, ..default_policy() };
    let mut w = World::with_policy(default_limits(), policy, vec![Server::healthy()], &[0], 1);
    w.servers[0].replies(move |ask| {
        let answer = dns::answer_with_address(ask.message, ask.serial, NOERROR, address);
        vec![Step::after(10, Do::Answer(answer))]
    });
    w
}

fn strip(loopback: bool) -> PrivateAnswers {
    let corp = b"\x04corp\x07example\0"[..].into();
    PrivateAnswers::Strip { loopback, except: vec![corp], except_special: false }
}

#[test]
fn an_answer_with_a_private_address_loses_its_records() {
    let mut w = world_with(strip(false), [192, 168, 1, 1]);
    w.ask("private.plain.example.");
    w.ask_edns("private.edns.example.");
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "private.tcp.example.", dns::A, None)));
    w.run_ms(100);
    for name in ["plain", "edns", "tcp"] {
        let response = w.response(&format!("private.{name}.example."));
        let extended_error = (name == "edns").then_some(17);
        assert_eq!((response.rcode, response.extended_error), (NOERROR, extended_error), "{name}");
        assert!(!response.upstream, "{name}: with records");
    }
    let text = &w.response("private.edns.example.").extra_text;
    assert!(text.contains("--private-answers"), "{text}");
    let counts = w.forwarder.counts();
    assert_eq!((counts.stripped, counts.local, counts.answered), (3, 3, 0));
    end(w);
}

#[test]
fn the_rcode_of_an_answer_with_a_private_address_stays() {
    let mut w = world_with(strip(false), [192, 168, 1, 1]);
    w.servers[0].replies(|ask| {
        let answer =
            dns::answer_with_address(ask.message, ask.serial, dns::NXDOMAIN, [10, 0, 0, 1]);
        vec![Step::after(10, Do::Answer(answer))]
    });
    w.ask_edns("private.nowhere.example.");
    w.run_ms(100);
    let response = w.response("private.nowhere.example.");
    assert_eq!((response.rcode, response.extended_error), (dns::NXDOMAIN, Some(17)));
    end(w);
}

#[test]
fn private_addresses_pass_where_they_are_wanted() {
    for (private_answers, address, name) in [
        (PrivateAnswers::Pass, [10, 0, 0, 1], "anybody.example."),
        (strip(true), [10, 0, 0, 1], "nas.CORP.example."),
        (strip(true), [10, 0, 0, 1], "corp.example."),
        (strip(true), [8, 8, 8, 8], "public.example."),
        (strip(false), [127, 0, 0, 1], "blocked.example."),
    ] {
        let mut w = world_with(private_answers, address);
        w.ask(name);
        w.run_ms(100);
        assert!(w.response(name).upstream, "{name} {address:?}");
        assert_eq!(w.forwarder.counts().stripped, 0);
        end(w);
    }
}
