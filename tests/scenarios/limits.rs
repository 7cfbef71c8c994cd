//! Back-pressure, limits, shutdown and the log.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::Manner;

use crate::sim_support::dns::{self, NOERROR, SERVFAIL};
use crate::sim_support::{Attempt, Do, State, Step, What, World, ms, path_from};
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
/// client's query once a second is answered as if there were no flood.
#[test]
fn c06_a_flood_gets_what_is_left_and_no_more() {
    const TABLE: u64 = 100;
    const ROUND_TRIP_MS: u64 = 100;
    const PER_MS: u64 = 10 * TABLE / ROUND_TRIP_MS;
    const SECONDS: u64 = 3;

    for over_tcp in [false, true] {
        let mut w = with_limits(|limits| limits.queries_max = TABLE as usize);
        w.servers[0].replies(|ask| vec![ask.answer_after(ROUND_TRIP_MS)]);
        w.ask("warm.example.");
        w.run_ms(200);
        let flooder = |port| SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), port));
        let streams: Vec<_> = (0..if over_tcp { 25 } else { 0 })
            .map(|port| {
                let client = w.tcp_client();
                w.clients[client].peer = flooder(port);
                client
            })
            .collect();
        for at in 0..SECONDS * 1000 {
            for n in (at * PER_MS..).take(PER_MS as usize) {
                let message = dns::query(n as u16, &format!("flood{n}.example."), dns::A, None);
                match streams.get(n as usize % streams.len().max(1)) {
                    Some(client) => w.tcp_send(*client, dns::framed(&message)),
                    None => w.datagram(path_from(flooder(20_000 + n as u16 % 40_000)), message),
                }
            }
            if at % 1000 == 500 {
                w.ask(&numbered(at as u32 / 1000));
            }
            w.run_ms(1);
        }
        let floods = w.oracle.responses.iter().filter(|r| r.name.starts_with("flood"));
        let answered = floods.filter(|r| r.rcode == NOERROR).count() as u64;
        let possible = TABLE * 1000 / ROUND_TRIP_MS * SECONDS;
        assert!(answered * 10 >= possible * 9, "{answered} of {possible}, TCP: {over_tcp}");
        for client in streams {
            w.schedule(Duration::ZERO, What::ClientResets { client });
        }
        w.run_ms(1000);
        for n in 0..SECONDS as u32 {
            assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
            assert_eq!(w.response(&numbered(n)).took(), ms(ROUND_TRIP_MS));
        }
        end(w);
    }
}

/// What was sent has cost the upstream its work, and its answer is near.
#[test]
fn c06_who_floods_gives_up_what_is_queued_before_what_is_sent() {
    let mut w = with_limits(|limits| limits.queries_max = 3000);
    w.servers[0].replies(|ask| vec![ask.answer_after(100)]);
    w.ask("warm.example.");
    w.run_ms(200);
    // 64 KiB wait on the connection, and the rest in the queue.
    w.links[0].room = Some(0);
    for n in 0..3000 {
        let path = path_from(SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), 1000 + n)));
        w.datagram(path, dns::query(n, &numbered(n.into()), dns::A, None));
    }
    w.run_ms(10);
    for n in 0..5 {
        w.ask(&format!("other{n}.example."));
    }
    w.run_ms(10);
    w.schedule(Duration::ZERO, What::ServersRead);
    w.run_ms(1000);
    let failed = w.oracle.responses.iter().filter(|response| response.rcode == SERVFAIL);
    let mut failed: Vec<_> = failed.map(|response| response.name.clone()).collect();
    failed.sort();
    assert_eq!(failed, (2995..3000).map(numbered).collect::<Vec<_>>());
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
    let path = w.next_path();
    w.datagram(path, long_question(11, "long.example.", 1000));
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
        w.datagram(path, long_question(n, &numbered(u32::from(n)), 1000));
    }
    w.run_ms(100);
    assert_eq!(failures(&w), 6, "four fit");
    end(w);
}

/// What is shared by the table is shared by the store of long queries: a client that fills it does
/// not keep the long queries of others out.
#[test]
fn c06_a_flood_of_long_queries_leaves_others_their_share() {
    let mut w = with_limits(|limits| limits.query_bytes_max = 64 << 10);
    w.servers[0].replies(|ask| vec![ask.answer_after(100)]);
    w.ask("warm.example.");
    w.run_ms(200);
    let flooder = |n: u16| path_from(SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), n)));
    for at in 0..3000 {
        // Ten times 16 in 100 ms, and the store holds 16 at a time.
        for k in 0..2 {
            let n = 2 * at + k;
            let name = format!("flood{n}.example.");
            w.datagram(flooder(20_000 + n), long_question(n, &name, 3900));
        }
        if at % 100 == 50 {
            let path = w.next_path();
            w.datagram(path, long_question(at, &numbered(u32::from(at)), 3900));
        }
        w.run_ms(1);
    }
    w.run_ms(1000);
    for at in (50..3000).step_by(100) {
        assert_eq!(w.response(&numbered(at)).took(), ms(100));
        assert_eq!(w.response(&numbered(at)).rcode, NOERROR);
    }
    let floods = w.oracle.responses.iter().filter(|r| r.name.starts_with("flood"));
    let answered = floods.filter(|r| r.rcode == NOERROR).count();
    assert!(answered * 10 >= 16 * 30 * 9, "{answered} of {}", 16 * 30);
    end(w);
}

#[test]
fn a_long_query_above_its_share_costs_nobody_anything() {
    let mut w = with_limits(|limits| limits.query_bytes_max = 10_000);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    let from = |last, n: u16| path_from(SocketAddr::from((Ipv4Addr::new(10, 9, 9, last), n)));
    for n in 0..4 {
        w.datagram(from(9, 1000 + n), long_question(n, &numbered(n.into()), 2000));
    }
    w.datagram(from(8, 1000), long_question(9, "over.example.", 5500));
    w.run_ms(10);
    assert_eq!(w.response("over.example.").rcode, SERVFAIL);
    w.datagram(from(8, 1000), long_question(10, "within.example.", 4500));
    w.run_ms(2000);
    assert_eq!(w.response("within.example.").rcode, NOERROR);
    let failed = |n| w.response(&numbered(n)).rcode == SERVFAIL;
    assert_eq!([0, 1, 2, 3].map(failed), [false, false, true, true], "the youngest");
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
    for n in 5000..6300 {
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
fn a_worn_connection_is_replaced_when_the_network_changes_whatever_was_refused_before() {
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
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(10);
    }
    assert_eq!((w.links.len(), w.links[0].closed.is_some()), (2, false));
    w.servers[0].attempts(Attempt::good(10));
    w.schedule(Duration::ZERO, What::NetworkChange { server: 0, lost: false });
    w.ask("a.example.");
    w.run_ms(100);
    assert_eq!((w.links.len(), w.links[0].closed.is_some()), (3, true), "replaced");
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
fn clients_together_hold_no_more_than_they_may_and_the_slowest_is_closed() {
    let mut w = with_limits(|limits| {
        limits.client_bytes_max = 1 << 20;
        limits.client_output_max = 1 << 20;
    });
    w.servers[0].replies(|ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 65_000);
        vec![Step::after(10, Do::Answer(answer))]
    });
    // Eight answers, then three for each of the others.
    let clients: Vec<_> = (0..5).map(|_| w.tcp_client()).collect();
    for &client in &clients[..4] {
        w.clients[client].room = Some(0);
        w.clients[client].offender = true;
    }
    for (client, count) in [(0, 8), (1, 3), (2, 3), (4, 3), (3, 3)] {
        if client == 4 {
            w.run_ms(1000);
        }
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
    assert!((2 << 20..=4 << 20).contains(&held), "{held} octets held");
    // Within their first second they cannot be told from clients that read.
    assert!(w.forwarder.counts().shed >= 40, "{:?}", w.forwarder.counts());
    w.ask("a.example.");
    w.run_ms(20);
    assert_eq!(w.response("a.example.").took(), ms(10), "others are served");
    end(w);
}

/// A query with an option of `len` octets in its OPT record.
pub(crate) fn long_question(id: u16, name: &str, len: u16) -> Vec<u8> {
    let mut message = dns::query(id, name, dns::A, None);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    message.extend((len + 4).to_be_bytes());
    message.extend([0xfd, 0xe9]);
    message.extend(len.to_be_bytes());
    message.resize(message.len() + usize::from(len), 0);
    message
}

/// Asks three slow names over TCP and resets, again and again from one address.
fn ask_and_reset(w: &mut World, times: u16, every: u64) {
    for burst in 0..times {
        let client = w.tcp_client();
        w.clients[client].peer = SocketAddr::from((Ipv4Addr::new(10, 1, 0, 1), 1024 + burst));
        for n in 0..3 {
            let slow = dns::query(n, &format!("slow{burst}-{n}.example."), dns::A, None);
            w.tcp_send(client, dns::framed(&slow));
        }
        w.schedule(ms(2), What::ClientResets { client });
        w.run_ms(every);
    }
}

#[test]
fn c11_clients_that_reset_cause_few_connections() {
    // Names that take their time, and names that nobody answers; 22 and 500 resets a second.
    for slow in [Some(3000), None] {
        for (times, every) in [(176, 45), (4000, 2)] {
            let mut w = warm(1);
            w.servers[0].replies(move |ask| match slow {
                _ if !ask.name.starts_with("slow") => vec![ask.answer_after(10)],
                Some(after) => vec![ask.answer_after(after)],
                None => Vec::new(),
            });
            w.run_ms(100);
            ask_and_reset(&mut w, times, every);
            w.ask("good.example.");
            w.run_ms(100);
            assert_eq!(w.response("good.example.").took(), ms(10), "{slow:?} {every}");
            let most = if every == 45 { 4 } else { 8 };
            assert!(w.links.len() <= most, "{slow:?} {every}: {} connections", w.links.len());
            assert_eq!(w.facts, []);
            w.run_ms(5000);
            assert_eq!(w.forwarder.counts().queries_held, 0);
            end(w);
        }
    }
}

#[test]
fn c11_what_a_client_that_reset_has_asked_stays_in_its_share() {
    let mut w = with_limits(|limits| limits.queries_max = 16);
    w.servers[0].replies(|ask| {
        let slow = ask.name.starts_with("slow");
        vec![ask.answer_after(if slow { 3000 } else { 10 })]
    });
    w.ask("warm.example.");
    w.run_ms(100);
    ask_and_reset(&mut w, 100, 10);
    let seen = w.links[0].seen.len();
    assert!(seen <= 1 + 16, "{seen} queries");
    // Others have theirs.
    w.ask("other.example.");
    w.run_ms(100);
    assert_eq!(w.response("other.example.").took(), ms(10));
    w.run_ms(2900);
    assert!(w.links[0].names().contains(&"slow0-0.example."));
    let seen = w.links[0].seen.len();
    ask_and_reset(&mut w, 100, 10);
    assert!(w.links[0].seen.len() > seen, "when its answers have come, it may ask again");
    end(w);
}

#[test]
fn c11_signed_queries_cause_no_connection_each() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with('n') { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    for n in 0..60 {
        for id in 5000..5020 {
            crate::once::ask_with_sig0(&mut w, &numbered(n), id);
        }
        for m in 0..100 {
            w.ask(&format!("good{n}-{m}.example."));
            w.run_ms(10);
        }
    }
    assert!(w.links.len() <= 12, "{} connections in a minute", w.links.len());
    w.run_ms(5000);
    end(w);
}
