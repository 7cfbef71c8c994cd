//! Clients over TCP: what one connection may expect.

use std::time::Duration;

use crate::{end, failures, numbered, question, slow_name, warm, with_limits, world};
use simulator::dns::NOERROR;
use simulator::{Do, Server, State, Step, To, What, World, default_limits, dns, ms};

#[test]
fn c01_a_length_and_nothing_more_is_closed_after_10_s_whatever_trickles() {
    // The client is not closed for being idle.
    let mut w = with_limits(|limits| limits.client_idle_timeout = ms(60_000));
    let client = w.tcp_client();
    w.clients[client].offender = true;
    w.tcp_send(client, vec![1, 0]);
    for _ in 0..9 {
        w.run_ms(1000);
        w.tcp_send(client, vec![0]);
    }
    w.run_ms(990);
    assert_eq!(w.clients[client].state, State::Open);
    w.run_ms(20);
    assert_eq!(w.clients[client].state, State::Closed);
    end(w);
}

#[test]
fn c01_an_idle_client_is_closed_after_10_s_and_only_whole_messages_refresh_that() {
    let mut w = world(1);
    let (quiet, slow, busy) = (w.tcp_client(), w.tcp_client(), w.tcp_client());
    for n in 0..5 {
        w.tcp_send(busy, dns::framed(&question(n)));
        if n == 3 {
            w.tcp_send(slow, vec![0]);
        }
        w.run_ms(2500);
    }
    assert_eq!(w.clients[quiet].state, State::Closed);
    assert_eq!(w.clients[slow].state, State::Closed);
    assert_eq!(w.clients[busy].state, State::Open);
    w.run_ms(7500);
    assert_eq!(w.clients[busy].state, State::Open);
    w.run_ms(200);
    assert_eq!(w.clients[busy].state, State::Closed);
    end(w);
}

#[test]
fn no_client_is_idle_while_it_is_owed_an_answer() {
    let mut limits = default_limits();
    limits.client_idle_timeout = ms(1000);
    let mut w = World::new(limits, vec![Server::healthy()], 1);
    w.servers[0].replies(|ask| vec![ask.answer_after(4000)]);
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&question(0)));
    w.run_ms(4100);
    assert_eq!(w.response(&numbered(0)).rcode, NOERROR);
    assert_eq!(w.clients[client].state, State::Open, "idle from the answer on");
    w.run_ms(1000);
    assert_eq!(w.clients[client].state, State::Closed);
    end(w);
}

#[test]
fn c03_half_closed_client_gets_its_answers() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(500)]);
    let client = w.tcp_client();
    w.tcp_send(client, (0..5).flat_map(|n| dns::framed(&question(n))).collect());
    w.schedule(Duration::ZERO, What::ClientFin { client });
    w.run_ms(490);
    assert_eq!(w.clients[client].state, State::Open);
    w.run_ms(100);
    let to_client = w.oracle.responses.iter().filter(|r| r.to == To::Stream(client));
    assert_eq!(to_client.filter(|response| response.rcode == NOERROR).count(), 5);
    assert_eq!(w.clients[client].state, State::Closed);
    end(w);
}

#[test]
fn c03_a_client_that_resets_leaks_nothing() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(500)]);
    let client = w.tcp_client();
    w.tcp_send(client, (0..5).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(100);
    w.schedule(Duration::ZERO, What::ClientResets { client });
    w.run_ms(10);
    let counts = w.forwarder.counts();
    assert_eq!((counts.owed, counts.conns_held, counts.orphaned), (0, 1, 5));
    w.run_ms(1000);
    assert_eq!(w.forwarder.counts().queries_held, 0);
    assert_eq!(w.oracle.responses.len(), 1, "only the warm-up's");
    assert_eq!((w.links.len(), w.links[0].is_open()), (1, true), "late answers are no offence");
    end(w);
}

#[test]
fn c04_a_client_that_never_reads_is_bounded_and_closed_after_10_s() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 20_000);
        vec![Step::after(10, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    w.clients[client].offender = true;
    for n in 0..200 {
        w.tcp_send(client, dns::framed(&question(n)));
        w.run_ms(20);
    }
    // 256 KiB, and the answer that passed it.
    let held = w.oracle.responses.len() - 1;
    assert!((13..=15).contains(&held), "{held} answers of 20,000 octets");
    let conn = w.clients[client].conn.expect("still open");
    assert_eq!(w.forwarder.poll_read(w.now, conn), 0);
    w.run_ms(5900);
    assert_eq!(w.clients[client].state, State::Open);
    w.run_ms(200);
    assert_eq!(w.clients[client].state, State::Closed);
    assert_eq!(w.forwarder.counts().conns_held, 1);
    end(w);
}

#[test]
fn c05_1000_queries_in_one_write_are_all_answered() {
    let mut w = warm(1);
    let client = w.tcp_client();
    w.tcp_send(client, (0..1000).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(1000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 1001));
    end(w);
}

#[test]
fn a_client_at_its_cap_is_not_read_and_then_read_again() {
    let mut w = with_limits(|limits| limits.client_queries_max = 4);
    w.servers[0].replies(|ask| vec![ask.answer_after(100)]);
    let client = w.tcp_client();
    for n in 0..12 {
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(10);
    let conn = w.clients[client].conn.expect("it is open");
    assert_eq!(w.forwarder.poll_read(w.now, conn), 0);
    assert_eq!(w.forwarder.counts().queries, 4);
    w.run_ms(1000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 12));
    assert!(w.forwarder.poll_read(w.now, conn) > 0);
    end(w);
}

#[test]
fn answers_over_tcp_go_out_as_they_become_ready() {
    let mut w = warm(1);
    w.servers[0].replies(slow_name);
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "slow.example.", dns::A, None)));
    w.tcp_send(client, dns::framed(&dns::query(1, "fast.example.", dns::A, None)));
    w.run_ms(3100);
    assert_eq!(w.response("fast.example.").took(), ms(10), "the same ID is no obstacle");
    assert_eq!(w.response("slow.example.").took(), ms(3000));
    end(w);
}

#[test]
fn what_is_no_dns_over_tcp_ends_in_a_shutdown_behind_the_answers_owed() {
    for polite in [true, false] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| vec![ask.answer_after(500)]);
        let client = w.tcp_client();
        w.clients[client].polite = polite;
        let mut response = question(9);
        response[2] |= 0x80;
        let mut bytes = dns::framed(&question(0));
        bytes.extend(dns::framed(&response));
        bytes.extend(dns::framed(&question(1)));
        w.tcp_send(client, bytes);
        w.run_ms(499);
        assert!(!w.clients[client].saw_end);
        w.run_ms(2);
        assert!(w.clients[client].saw_end);
        assert_eq!(w.response(&numbered(0)).rcode, NOERROR);
        assert!(!w.is_answered(&numbered(1)), "nothing is taken behind it");
        assert_eq!(w.clients[client].state, State::Open, "until it closed its side, or for 1 s");
        w.run_ms(if polite { 10 } else { 980 });
        assert_eq!(w.clients[client].state == State::Closed, polite);
        w.run_ms(30);
        assert_eq!(w.clients[client].state, State::Closed);
        end(w);
    }
}

#[test]
fn a_partial_message_does_not_age_while_its_client_is_not_read() {
    let mut w = with_limits(|limits| limits.client_output_max = 4096);
    w.servers[0].replies(|ask| {
        let size = if ask.name == numbered(0) { 12_000 } else { 0 };
        let answer = dns::answer(ask.message, ask.serial, NOERROR, size);
        vec![Step::after(10, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    let second = dns::framed(&question(1));
    w.tcp_send(client, [dns::framed(&question(0)), second[..5].to_vec()].concat());
    w.run_ms(100);
    let conn = w.clients[client].conn.expect("it is open");
    assert_eq!(w.forwarder.poll_read(w.now, conn), 0);
    w.tcp_send(client, second[5..].to_vec());
    // The client takes 400 octets a second, and so keeps nobody waiting.
    for _ in 0..18 {
        w.clients[client].room = Some(400);
        w.schedule(Duration::ZERO, What::ClientWritable { client });
        w.run_ms(1000);
        assert_eq!(w.clients[client].state, State::Open);
    }
    assert!(!w.is_answered(&numbered(1)));
    w.schedule(Duration::ZERO, What::ClientReads { client });
    w.run_ms(100);
    assert_eq!(w.response(&numbered(1)).rcode, NOERROR);
    assert_eq!(w.clients[client].state, State::Open);
    end(w);
}

#[test]
fn a_partial_message_has_its_ten_seconds_once_its_client_is_read_again() {
    let mut w = with_limits(|limits| {
        limits.client_output_max = 4096;
        limits.client_idle_timeout = ms(60_000);
    });
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 12_000);
        vec![Step::after(10, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    w.tcp_send(client, [dns::framed(&question(0)), vec![0, 40, 1]].concat());
    w.run_ms(9000);
    w.schedule(Duration::ZERO, What::ClientReads { client });
    w.run_ms(9900);
    assert_eq!(w.clients[client].state, State::Open);
    w.run_ms(200);
    assert_eq!(w.clients[client].state, State::Closed);
    end(w);
}

#[test]
fn no_client_is_idle_while_it_has_answers_to_take() {
    let mut w = world(1);
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    let zone = dns::framed(&dns::query(1, "zone.example.", 252, None));
    w.tcp_send(client, zone.repeat(400));
    // The client takes 500 octets a second of some 12,000.
    for _ in 0..20 {
        w.clients[client].room = Some(500);
        w.schedule(Duration::ZERO, What::ClientWritable { client });
        w.run_ms(1000);
        assert_eq!(w.clients[client].state, State::Open);
    }
    w.schedule(Duration::ZERO, What::ClientReads { client });
    w.run_ms(9900);
    assert_eq!(w.clients[client].state, State::Open);
    w.run_ms(200);
    assert_eq!((w.clients[client].state, w.oracle.responses.len()), (State::Closed, 400));
    end(w);
}

#[test]
fn slow_answers_hold_the_queries_behind_them_back_for_a_second_at_most() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let is_slow = (0..60).map(numbered).any(|name| name == ask.name);
        vec![ask.answer_after(if is_slow { 4000 } else { 10 })]
    });
    let client = w.tcp_client();
    w.tcp_send(client, (0..100).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(1020);
    let fast = (60..100).filter(|n| w.is_answered(&numbered(*n)));
    assert_eq!(fast.count(), 40);
    w.run_ms(4000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 101));
    end(w);
}

#[test]
fn queries_pipelined_on_a_new_connection_do_not_wait_for_each_other() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    let client = w.tcp_client();
    w.tcp_send(client, (0..256).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(1250);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 257));
    end(w);
}
