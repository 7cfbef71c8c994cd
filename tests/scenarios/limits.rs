//! Back-pressure, limits, shutdown and the log.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::Manner;

use crate::sim_support::dns::{self, NOERROR, SERVFAIL};
use crate::sim_support::{Attempt, Do, State, Step, What, ms, path_from};
use crate::{end, failures, numbered, question, slowest, warm, with_limits, world};

#[test]
fn u19_a_server_that_stops_reading_gets_no_query_past_its_deadline() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| if ask.link == 0 { Vec::new() } else { vec![ask.answer_after(10)] });
    w.servers[0].attempts(Attempt::mute());
    w.links[0].room = Some(0);
    // More than the 64 KiB that may wait on a connection.
    for n in 0..3000 {
        w.ask(&numbered(n));
    }
    w.run_ms(5000);
    assert_eq!(failures(&w), 3000);
    assert_eq!(slowest(&w), ms(4500));
    w.servers[0].attempts(Attempt::good(10));
    w.schedule(Duration::ZERO, What::ServersRead);
    w.run_ms(10_000);
    let seen: usize = w.links.iter().map(|link| link.seen.len()).sum();
    assert!(seen < 2000, "{seen} queries past their deadline were written");
    w.ask("a.example.");
    w.run_ms(1000);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn u19_others_are_served_while_one_server_stops_reading() {
    let mut w = warm(2);
    w.links[0].room = Some(0);
    for n in 0..300 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    w.run_ms(1000);
    assert_eq!(failures(&w), 0);
    assert_eq!(slowest(&w), ms(1530), "found out by the stall rule");
    end(w);
}

#[test]
fn c06_a_full_table_answers_servfail_at_once() {
    let mut w = with_limits(|limits| limits.queries_max = 100);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    for n in 0..150 {
        w.ask_edns(&numbered(n));
    }
    w.run_ms(10);
    assert_eq!(w.oracle.responses.len(), 50);
    assert!(w.oracle.responses.iter().all(|r| r.rcode == SERVFAIL && r.extended_error == Some(0)));
    w.run_ms(2000);
    assert_eq!(failures(&w), 50);
    end(w);
}

/// Ten times what the table can turn over, from one client: it gets nine tenths of that, and another
/// client's query once a second is always answered.
#[test]
fn c06_a_flood_gets_what_is_left_and_no_more() {
    const TABLE: usize = 64;
    const ROUND_TRIP_MS: u64 = 100;
    const SECONDS: usize = 3;

    let mut w = with_limits(|limits| limits.queries_max = TABLE);
    w.servers[0].replies(|ask| vec![ask.answer_after(ROUND_TRIP_MS)]);
    w.ask("warm.example.");
    w.run_ms(200);
    let flooder = |n: u16| path_from(SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), n)));
    let per_ms = 10 * TABLE as u64 / ROUND_TRIP_MS;
    for at in 0..SECONDS as u64 * 1000 {
        for k in 0..per_ms {
            let n = at * per_ms + k;
            let message = dns::query(n as u16, &format!("flood{n}.example."), dns::A, None);
            w.datagram(flooder(20_000 + n as u16 % 40_000), message);
        }
        if at % 1000 == 500 {
            w.ask(&numbered(at as u32 / 1000));
        }
        w.run_ms(1);
    }
    w.run_ms(1000);
    for n in 0..SECONDS as u32 {
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
    }
    let floods = w.oracle.responses.iter().filter(|r| r.name.starts_with("flood"));
    let answered = floods.filter(|r| r.rcode == NOERROR).count();
    let possible = TABLE * 1000 / ROUND_TRIP_MS as usize * SECONDS;
    assert!(answered * 10 >= possible * 9, "{answered} of {possible}");
    end(w);
}

#[test]
fn a_long_query_that_is_refused_costs_nobody_a_place() {
    let mut w = with_limits(|limits| {
        limits.queries_max = 10;
        limits.query_bytes_max = 600;
    });
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    let flooder = |n: u16| path_from(SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), n)));
    for n in 0..10 {
        w.datagram(flooder(1000 + n), dns::query(n, &numbered(n.into()), dns::A, None));
    }
    let mut long = dns::query(11, "long.example.", dns::A, None);
    // An OPT record with an option of 1,000 octets.
    long[11] = 1;
    long.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0x03, 0xec, 0xfd, 0xe9, 0x03, 0xe8]);
    long.extend([0; 1000]);
    let path = w.next_path();
    w.datagram(path, long);
    w.run_ms(2000);
    assert_eq!(w.response("long.example.").rcode, SERVFAIL);
    for n in 0..10 {
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR, "query {n}");
    }
    end(w);
}

#[test]
fn long_queries_are_bounded_in_octets() {
    let mut w = with_limits(|limits| limits.query_bytes_max = 5000);
    for n in 0..10 {
        let path = w.next_path();
        let mut message = dns::query(n, &numbered(u32::from(n)), dns::A, None);
        // An OPT record with an option of 1,000 octets.
        message[11] = 1;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0x03, 0xec, 0xfd, 0xe9, 0x03, 0xe8]);
        message.extend([0; 1000]);
        w.datagram(path, message);
    }
    w.run_ms(100);
    assert_eq!(failures(&w), 6, "four fit");
    end(w);
}

#[test]
fn h06_a_shutdown_answers_what_is_owed_and_ends() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(800)]);
    let (busy, idle) = (w.tcp_client(), w.tcp_client());
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
fn h06_a_shutdown_with_nothing_owed_takes_no_time() {
    let mut w = warm(2);
    w.schedule(Duration::ZERO, What::Shutdown);
    w.run_ms(0);
    assert!(w.forwarder.is_drained());
    assert_eq!(w.forwarder.poll_timeout(), None);
    assert_eq!(w.links[0].closed.map(|(_, manner)| manner), Some(Manner::Orderly));
}

#[test]
fn the_query_log_has_a_line_for_every_response() {
    let mut w = with_limits(|limits| limits.query_log = true);
    w.servers[0].replies(|ask| match ask.name {
        "lost.example." => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for name in ["a.example.", "evil\u{1b}[2J\n.example.", "lost.example."] {
        w.ask(name);
    }
    let path = w.next_path();
    w.datagram(path, dns::query(1, "zone.example.", 252, None));
    w.run_ms(5000);
    let words: Vec<_> = w.query_log.iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["LOCAL", "SUCCESS", "SUCCESS", "FAILURE"].map(Some), "{:?}", w.query_log);
    assert!(w.query_log[1].starts_with("SUCCESS a.example. A NOERROR 1 answer "));
    end(w);
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
fn a_worn_connection_whose_replacement_is_refused_serves_on_and_causes_no_storm() {
    let mut w = with_limits(|limits| limits.queries_max = 64);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    let client = w.tcp_client();
    for n in 0..20 {
        let lost = dns::query(n, &format!("lost{n}.example."), dns::A, None);
        w.tcp_send(client, dns::framed(&lost));
    }
    w.run_ms(100);
    w.servers[0].attempts(Attempt::refused());
    w.schedule(Duration::ZERO, What::ClientResets { client });
    for n in 0..5000 {
        w.ask(&numbered(n));
        w.run_ms(10);
        assert_eq!(w.response(&numbered(n)).took(), ms(10));
    }
    assert_eq!(w.links.len(), 2, "one attempt to replace it within a minute");
    w.servers[0].attempts(Attempt::good(10));
    for n in 5000..6100 {
        w.ask(&numbered(n));
        w.run_ms(10);
        assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
    }
    assert_eq!(w.links.len(), 3);
    assert!(w.links[0].closed.is_some(), "replaced");
    assert_eq!(w.facts, []);
    end(w);
}

#[test]
fn an_upstream_whose_only_connection_has_no_message_id_left_is_connected_to_again() {
    let mut w = with_limits(|limits| limits.queries_max = 16);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    w.ask("warm.example.");
    w.run_ms(100);
    w.servers[0].attempts(Attempt::refused());
    for burst in 0..2 {
        let client = w.tcp_client();
        for n in 0..8 {
            let lost = dns::query(n, &format!("lost{burst}-{n}.example."), dns::A, None);
            w.tcp_send(client, dns::framed(&lost));
        }
        w.run_ms(50);
        w.schedule(Duration::ZERO, What::ClientResets { client });
        w.run_ms(50);
    }
    w.servers[0].attempts(Attempt::good(10));
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(100);
    }
    let failed = failures(&w);
    assert!(failed <= 20, "{failed} of 100 failed with the upstream up");
    end(w);
}

#[test]
fn clients_together_hold_no_more_than_they_may_and_the_one_that_holds_most_is_closed() {
    let mut w = with_limits(|limits| {
        limits.client_bytes_max = 1 << 20;
        limits.client_output_max = 1 << 20;
    });
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 65_000);
        vec![Step::after(10, Do::Answer(answer))]
    });
    // Eight answers, then three for each of the others: 17 do not fit.
    let clients: Vec<_> = (0..5).map(|_| w.tcp_client()).collect();
    for &client in &clients[..4] {
        w.clients[client].room = Some(0);
        w.clients[client].offender = true;
    }
    for (client, count) in [(0, 8), (1, 3), (2, 3), (4, 8), (3, 3)] {
        for n in 0..count {
            w.tcp_send(clients[client], dns::framed(&question(100 * client as u32 + n)));
        }
        w.run_ms(100);
    }
    let states: Vec<_> = clients.iter().map(|client| w.clients[*client].state).collect();
    let [open, closed] = [State::Open, State::Closed];
    assert_eq!(states, [closed, open, open, open, open]);
    assert_eq!(w.forwarder.counts().shed, 1);
    assert_eq!(failures(&w), 0);
    end(w);
}

#[test]
fn a_flood_of_clients_that_never_read_stays_within_what_clients_may_hold() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 65_535);
        vec![Step::after(10, Do::Answer(answer))]
    });
    for n in 0..100 {
        let client = w.tcp_client();
        w.clients[client].room = Some(0);
        w.clients[client].offender = true;
        w.tcp_send(client, (0..8).flat_map(|m| dns::framed(&question(8 * n + m))).collect());
        w.run_ms(20);
    }
    // The bound itself is checked after every turn.
    let held: usize = w.held_for_clients();
    assert!((3 << 20..=4 << 20).contains(&held), "{held} octets held");
    assert!(w.forwarder.counts().shed >= 80, "{:?}", w.forwarder.counts());
    w.ask("a.example.");
    w.run_ms(20);
    assert_eq!(w.response("a.example.").took(), ms(10), "others are served");
    end(w);
}
