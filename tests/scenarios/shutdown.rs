//! The end of the program: what is owed is answered, and nobody is waited for.

use std::time::Duration;

use dot_proxy::forwarder::Manner;

use crate::{close_after, copies, end, failures, question, warm, world, world_of};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{State, What, default_policy, dns};

#[test]
fn h06_a_shutdown_answers_what_is_owed_and_ends() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(800)]);
    let (busy, idle) = (w.tcp_client(), w.tcp_client());
    w.run_ms(1000);
    w.tcp_send(busy, dns::framed(&question(0)));
    w.ask("a.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(10);
    assert_eq!(w.clients[idle].state, State::Closed);
    assert!(!w.forwarder.is_drained());
    let late = w.tcp_client();
    w.run_ms(10);
    assert_eq!(w.clients[late].state, State::Outside, "no new client");
    w.run_ms(700);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 3));
    end(w);
}

#[test]
fn h06_who_has_just_connected_may_still_ask() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(200)]);
    let long_silent = w.tcp_client();
    w.run_ms(1000);
    let [asks, begins, silent] = [(); 3].map(|()| w.tcp_client());
    let begun = dns::framed(&question(2));
    w.tcp_send(begins, begun[..9].to_vec());
    w.run_ms(20);

    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(0);
    assert_eq!(w.clients[long_silent].state, State::Closed, "it had its time");
    w.run_ms(49);
    w.tcp_send(asks, [question(0), question(1)].map(|query| dns::framed(&query)).concat());
    w.tcp_send(begins, begun[9..].to_vec());
    w.run_ms(0);
    assert_eq!(w.clients[silent].state, State::Open);
    w.run_ms(1);
    assert_eq!(w.clients[silent].state, State::Closed);
    // Its query may be asked elsewhere: it sees the end before it has an answer to anything.
    w.tcp_send(asks, dns::framed(&question(3)));
    w.run_ms(300);

    let names: Vec<_> =
        w.oracle.responses[1..].iter().map(|r| (r.name.as_str(), r.rcode)).collect();
    let [n0, n1, n2] = ["n0.example.", "n1.example.", "n2.example."];
    assert_eq!(names, [(n0, NOERROR), (n1, NOERROR), (n2, NOERROR)]);
    assert!(w.clients[asks].saw_end && w.clients[begins].saw_end);
    assert_eq!(w.links.len(), 1, "the connection to the upstream was there until then");
    assert!(w.forwarder.is_drained(), "{:?}", w.forwarder.counts());
    end(w);
}

#[test]
fn h06_nobody_is_waited_for_that_is_gone() {
    let mut w = warm(1);
    let client = w.tcp_client();
    w.run_ms(10);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(10);
    assert!(!w.forwarder.is_drained());
    w.schedule(Duration::ZERO, What::ClientFin { client });
    w.run_ms(0);
    assert!(w.forwarder.is_drained(), "{:?}", w.forwarder.counts());
    end(w);
}

/// RFC 7828 section 3.3: nobody is to stay, whether it asks for how long it may or not.
#[test]
fn h06_answers_owed_at_a_shutdown_tell_tcp_clients_to_go() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        "lost.example." => Vec::new(),
        _ => vec![ask.answer_after(800)],
    });
    let client = w.tcp_client();
    let edns = Some(dns::Edns { size: 1232, dnssec_ok: false });
    for query in [
        dns::query(1, "plain.example.", dns::A, None),
        dns::query(2, "edns.example.", dns::A, edns),
        dns::query_with_keepalive(3, "asks.example.", dns::A),
        dns::query(4, "lost.example.", dns::A, edns),
    ] {
        w.tcp_send(client, dns::framed(&query));
    }
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(5000);
    let told = ["plain.example.", "edns.example.", "asks.example.", "lost.example."]
        .map(|name| (w.response(name).rcode, w.response(name).keepalive));
    let to_go = Some(0);
    assert_eq!(told, [(NOERROR, None), (NOERROR, to_go), (NOERROR, to_go), (SERVFAIL, to_go)]);
    end(w);
}

#[test]
fn h06_a_shutdown_with_nothing_owed_takes_no_time() {
    let mut w = warm(2);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(0);
    assert!(w.forwarder.is_drained());
    assert_eq!(w.forwarder.poll_timeout(), None);
    assert_eq!(w.links[0].closed.map(|(_, manner)| manner), Some(Manner::Orderly));
}

#[test]
fn h06_a_shutdown_does_not_wait_for_a_client_that_lingers() {
    let mut w = world(1);
    let client = w.tcp_client();
    w.clients[client].polite = false;
    w.tcp_send(client, vec![0, 0]);
    w.run_ms(10);
    assert!(w.clients[client].saw_end);
    assert_eq!(w.clients[client].state, State::Open);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(0);
    assert!(w.forwarder.is_drained());
}

#[test]
fn h06_a_shutdown_does_not_wait_for_the_proof_about_a_special_zone() {
    let mut w = warm(1);
    w.servers[0].replies(|_| Vec::new());
    let client = w.tcp_client();
    let edns = Some(dns::Edns { size: 1232, dnssec_ok: true });
    w.tcp_send(client, dns::framed(&dns::query(1, "a.local.", dns::A, edns)));
    w.run_ms(100);
    assert_eq!(copies(&w, "local."), 1);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(10);
    w.schedule(Duration::ZERO, What::ClientResets { client });
    w.run_ms(10);
    assert!(w.forwarder.is_drained(), "{:?}", w.forwarder.counts());
    end(w);
}

#[test]
fn h06_a_shutdown_does_not_wait_for_an_upstream_to_prove_that_it_answers() {
    let mut w = world_of(default_policy(), &[0, 0]);
    w.servers[0].replies(|ask| match ask.name {
        "first.example." => vec![close_after(5)],
        _ => Vec::new(),
    });
    w.servers[1].replies(|ask| match ask.name {
        "slow.example." => vec![ask.answer_after(2000)],
        _ => vec![ask.answer_after(10)],
    });
    w.ask("first.example.");
    w.run_ms(100);
    w.ask("slow.example.");
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(1890);
    assert_eq!(w.links_to(0)[1].names(), ["slow.example."], "the copy that it must answer");
    w.run_ms(20);
    assert_eq!(w.response("slow.example.").rcode, NOERROR);
    assert!(w.forwarder.is_drained(), "{:?}", w.forwarder.counts());
    end(w);
}
