//! Clients over TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::Fact;

use crate::sim_support::dns::{self, NOERROR, SERVFAIL};
use crate::sim_support::{Do, Server, State, Step, To, What, World, default_limits, ms};
use crate::{close_after, end, failures, numbered, question, slow_name, warm, with_limits, world};

#[test]
fn c01_a_length_and_nothing_more_is_closed_after_10_s_whatever_trickles() {
    // It is not closed for being idle.
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
    assert_eq!(w.forwarder.poll_read(conn), 0);
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
    assert_eq!(w.forwarder.poll_read(conn), 0);
    assert_eq!(w.forwarder.counts().queries, 4);
    w.run_ms(1000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 12));
    assert!(w.forwarder.poll_read(conn) > 0);
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

/// A client at this address, connected after what came before.
fn client_at(w: &mut World, ip: impl Into<IpAddr>) -> usize {
    let client = w.tcp_client();
    let port = w.clients[client].peer.port();
    w.clients[client].peer = SocketAddr::new(ip.into(), port);
    client
}

/// Lines about clients that waited, and about those that made room.
fn told_of_places(w: &World) -> [usize; 2] {
    let count = |is: fn(&Fact) -> bool| w.facts.iter().filter(|(_, fact)| is(fact)).count();
    [
        count(|fact| matches!(fact, Fact::ClientWaited { .. })),
        count(|fact| matches!(fact, Fact::ClientMadeRoom { .. })),
    ]
}

#[test]
fn c10_one_address_may_have_every_place_that_is_free() {
    for (ip, clients, open) in [
        (IpAddr::from([192, 168, 0, 1]), 60, 60),
        (IpAddr::from([192, 168, 0, 1]), 150, 150),
        (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]), 150, 150),
        (Ipv4Addr::LOCALHOST.into(), 150, 150),
        (IpAddr::from([198, 51, 100, 1]), 30, 0),
    ] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| vec![ask.answer_after(60)]);
        for n in 0..clients {
            let client = client_at(&mut w, ip);
            w.tcp_send(client, dns::framed(&question(n)));
        }
        w.run_ms(100);
        let answered = w.oracle.responses.len() - 1;
        assert_eq!((failures(&w), answered), (0, open), "{ip}");
        let states = w.clients.iter().map(|client| client.state);
        assert_eq!(states.filter(|state| *state == State::Open).count(), open, "{ip}");
        assert_eq!(told_of_places(&w), [0, 0], "{ip}");
        end(w);
    }
}

/// Each has sent its query with its handshake, and none is refused.
#[test]
fn c10_more_than_there_are_places_for_wait_and_are_answered() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 8;
        limits.clients_per_address_max = 4;
    });
    w.ask("warm.example.");
    w.run_ms(100);
    w.servers[0].replies(|ask| vec![ask.answer_after(60)]);
    for n in 0..40 {
        let client = client_at(&mut w, [192, 168, 0, 1]);
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(59);
    assert_eq!(w.oracle.responses.len(), 1);
    w.run_ms(5 * 60);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 41), "in five rounds");
    assert_eq!(w.forwarder.counts().crowded_out, 0);
    assert_eq!(told_of_places(&w), [1, 1], "one line a minute of each kind");
    w.run_ms(60_000);
    for n in 40..60 {
        let client = client_at(&mut w, [192, 168, 0, 1]);
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(500);
    assert_eq!((failures(&w), told_of_places(&w)), (0, [2, 2]));
    end(w);
}

#[test]
fn c10_who_has_asked_nothing_yet_is_not_idle_for_a_second() {
    let mut w = with_limits(|limits| limits.clients_max = 3);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    let slow: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    w.run_ms(100);
    let newcomer = w.tcp_client();
    w.tcp_send(newcomer, dns::framed(&question(9)));
    w.run_ms(850);
    assert_eq!(w.clients[newcomer].state, State::Outside);
    // The query of one comes late, and the place that it leaves then is the newcomer's.
    w.tcp_send(slow[1], dns::framed(&question(1)));
    w.run_ms(40);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 2));
    let states = [0, 1, 2].map(|n| w.clients[slow[n]].state);
    assert_eq!(states, [State::Open, State::Closed, State::Open]);
    // With all places taken a second is the idle time of the others, too, the newcomer's among them.
    w.run_ms(20);
    assert_eq!(w.clients[slow[0]].state, State::Closed);
    end(w);
}

/// However short the time is in which clients may be idle.
#[test]
fn c10_who_has_asked_nothing_yet_has_a_second_where_idle_clients_have_less() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 3;
        limits.client_idle_timeout = ms(1000);
    });
    let clients: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    w.run_ms(990);
    assert!(clients.iter().all(|client| w.clients[*client].state == State::Open));
    w.run_ms(20);
    assert!(clients.iter().all(|client| w.clients[*client].state == State::Closed));
    end(w);
}

#[test]
fn c02_with_the_table_of_clients_full_the_one_idle_for_longest_makes_room() {
    let mut w = with_limits(|limits| limits.clients_max = 3);
    w.servers[0]
        .replies(|ask| vec![ask.answer_after(if ask.name == numbered(0) { 1000 } else { 10 })]);
    let busy = w.tcp_client();
    w.tcp_send(busy, dns::framed(&question(0)));
    let idle = [w.tcp_client(), w.tcp_client()];
    for (n, client) in (1..).zip(idle) {
        w.tcp_send(client, dns::framed(&question(n)));
        w.run_ms(100);
    }
    let newcomer = w.tcp_client();
    w.run_ms(100);
    let states = [busy, idle[0], idle[1], newcomer].map(|client| w.clients[client].state);
    assert_eq!(states, [State::Open, State::Closed, State::Open, State::Open]);
    assert_eq!(told_of_places(&w), [0, 1]);
    w.run_ms(1000);
    assert_eq!(w.response(&numbered(0)).rcode, NOERROR);
    end(w);
}

#[test]
fn c02_a_thousand_idle_clients_keep_nobody_out() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(100)]);
    let busy = w.tcp_client();
    w.tcp_send(busy, dns::framed(&question(0)));
    let idle: Vec<_> = (0..1000).map(|_| w.tcp_client()).collect();
    w.run_ms(50);
    let newcomer = w.tcp_client();
    w.tcp_send(newcomer, dns::framed(&question(1)));
    w.run_ms(100);
    assert_eq!(w.response(&numbered(0)).rcode, NOERROR);
    assert!(!w.is_answered(&numbered(1)), "behind those that came before it");
    // In each second all places but those in use are free.
    w.run_ms(1000 / 149 * 1000 + 100);
    assert_eq!(w.response(&numbered(1)).took(), ms(100));
    assert!(idle[..850].iter().all(|client| w.clients[*client].state == State::Closed));
    assert_eq!((w.forwarder.counts().crowded_out, told_of_places(&w)), (0, [1, 1]));
    end(w);
}

#[test]
fn c02_an_address_with_all_its_clients_makes_room_among_them() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 4;
        limits.clients_per_address_max = 3;
        limits.client_idle_timeout = Duration::from_secs(60);
    });
    w.servers[0].replies(|ask| vec![ask.answer_after(1400)]);
    let of_address = |w: &mut World| {
        let client = client_at(w, [10, 9, 9, 9]);
        w.run_ms(10);
        client
    };
    let stranger = w.tcp_client();
    let busy = of_address(&mut w);
    w.tcp_send(busy, dns::framed(&question(0)));
    let idle = [of_address(&mut w), of_address(&mut w)];
    w.run_ms(1000);
    // The stranger is idle for longer, and who comes has its share already.
    let newcomers = [of_address(&mut w), of_address(&mut w)];
    for (n, client) in (1..).zip(newcomers) {
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(10);
    assert_eq!(idle.map(|client| w.clients[client].state), [State::Closed; 2]);
    let others = [busy, newcomers[0], newcomers[1]];
    assert_eq!(others.map(|client| w.clients[client].state), [State::Open; 3]);
    w.run_ms(1400);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 3));
    assert_eq!(w.clients[stranger].state, State::Open);
    end(w);
}

#[test]
fn c02_an_address_with_more_than_its_share_makes_room_for_others() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 6;
        limits.clients_per_address_max = 3;
    });
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    let ask = |w: &mut World, n, ip: [u8; 4]| {
        let client = client_at(w, ip);
        w.tcp_send(client, dns::framed(&question(n)));
        w.run_ms(100);
        client
    };
    let patient = ask(&mut w, 0, [10, 0, 0, 1]);
    let many: Vec<_> = (1..=5).map(|n| ask(&mut w, n, [10, 0, 0, 2])).collect();
    let newcomers: Vec<_> = (6..=8).map(|n| ask(&mut w, n, [10, 0, 0, n as u8])).collect();
    let state = |client: &usize| w.clients[*client].state;
    // Down to its share, it is treated as all others are.
    assert!(many[..2].iter().all(|client| state(client) == State::Closed));
    assert!(many[2..].iter().all(|client| state(client) == State::Open));
    assert_eq!(state(&patient), State::Closed);
    assert!(newcomers.iter().all(|client| state(client) == State::Open));
    assert_eq!(failures(&w), 0);
    let [(_, told)] = &w.facts[..] else { panic!("one line: {:?}", w.facts) };
    let told = told.to_string();
    assert!(told.contains("10.0.0.2") && told.contains("--tcp-clients-per-address-max"), "{told}");
    end(w);
}

/// Some crowd all places: each of these connections asks four names that nobody answers, or nothing.
fn crowd(w: &mut World, ip: [u8; 4], clients: u32, silent: bool) -> Vec<usize> {
    let connect = |n| {
        let client = client_at(w, ip);
        for name in (0..4).filter(|_| !silent) {
            w.tcp_send(client, dns::framed(&question(1000 + 4 * n + name)));
        }
        client
    };
    (0..clients).map(connect).collect()
}

#[test]
fn c02_one_address_shuts_no_other_out() {
    for (clients, silent) in [(150, false), (600, false), (150, true), (900, true)] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| match ask.name {
            "n0.example." => vec![ask.answer_after(10)],
            _ => Vec::new(),
        });
        let crowd = crowd(&mut w, [10, 9, 9, 9], clients, silent);
        w.run_ms(10);
        let newcomer = client_at(&mut w, [10, 0, 0, 1]);
        w.tcp_send(newcomer, dns::framed(&question(0)));
        w.run_ms(230);
        assert_eq!(w.clients[newcomer].state, State::Outside);
        w.run_ms(50);
        assert_eq!(w.response(&numbered(0)).rcode, NOERROR, "behind {clients}, {silent}");
        assert_eq!(w.clients[newcomer].state, State::Open);
        let counts = w.forwarder.counts();
        assert_eq!((counts.made_room, counts.crowded_out), (1, u64::from(clients) - 150));
        // The youngest of those with a place.
        let open = crowd.iter().filter(|client| w.clients[**client].state == State::Open);
        assert_eq!((open.count(), w.clients[crowd[149]].state), (149, State::Closed));
        let told: Vec<_> = w.facts.iter().map(|(_, fact)| fact.to_string()).collect();
        assert_eq!(told.len(), 1 + usize::from(clients > 150), "{told:#?}");
        for line in told {
            assert!(line.contains("of them by 10.9.9.9"), "{line}");
            assert!(line.contains("(--tcp-clients-per-address-max)"), "{line}");
        }
        end(w);
    }
}

/// However many come, a crowd keeps what one address should have, and so does each of them.
#[test]
fn c02_a_crowd_is_left_its_share() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 12;
        limits.clients_per_address_max = 3;
    });
    w.servers[0].replies(|_| Vec::new());
    let crowd = crowd(&mut w, [10, 9, 9, 9], 12, false);
    w.run_ms(10);
    let ask = |w: &mut World, n, ip| {
        let client = client_at(w, ip);
        w.tcp_send(client, dns::framed(&question(n)));
        client
    };
    let second: Vec<_> = (0..4).map(|n| ask(&mut w, n, [10, 0, 0, 1])).collect();
    let others: Vec<_> = (4..16).map(|n| ask(&mut w, n, [10, 0, 1, n as u8])).collect();
    w.run_ms(1000);
    let open = |clients: &[usize]| {
        clients.iter().filter(|client| w.clients[**client].state == State::Open).count()
    };
    assert_eq!([&crowd, &second, &others].map(|clients| open(clients)), [3, 3, 6]);
    assert_eq!(open(&crowd[..3]), 3, "those that have waited for longest");
    assert_eq!((w.forwarder.counts().made_room, w.forwarder.counts().crowded_out), (9, 1));
    end(w);
}

/// With all within their limits, nobody loses an answer for another, however long that takes.
#[test]
fn c10_without_a_crowd_newcomers_wait_for_slow_names() {
    for per_address_max in [3, 6] {
        let mut w = with_limits(|limits| {
            limits.clients_max = 6;
            limits.clients_per_address_max = per_address_max;
        });
        w.servers[0].replies(|ask| vec![ask.answer_after(2000)]);
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
        for n in 0..12 {
            let ip = addresses[n as usize % (6 / per_address_max)];
            let client = client_at(&mut w, ip);
            w.tcp_send(client, dns::framed(&question(n)));
        }
        w.run_ms(4100);
        assert_eq!((failures(&w), w.oracle.responses.len()), (0, 12));
        assert_eq!(w.forwarder.counts().crowded_out, 0);
        end(w);
    }
}

/// Places that come and go are waited for.
#[test]
fn c10_newcomers_wait_while_a_crowd_has_its_answers_in_time() {
    let mut w = with_limits(|limits| {
        limits.clients_max = 8;
        limits.clients_per_address_max = 4;
    });
    w.ask("warm.example.");
    w.run_ms(100);
    w.servers[0].replies(|ask| vec![ask.answer_after(240)]);
    for n in 0..40 {
        let client = client_at(&mut w, [192, 168, 0, 1]);
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(5 * 250);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 41), "in five rounds");
    assert_eq!(w.forwarder.counts().crowded_out, 0);
    let waited = w.facts.iter().map(|(_, fact)| fact.to_string());
    let waited = waited.filter(|line| line.contains("had to wait")).collect::<Vec<_>>();
    assert_eq!(waited.len(), 1);
    assert!(waited[0].contains("8 of them by 192.168.0.1"), "{waited:?}");
    end(w);
}

/// RFC 7766 section 6.2.3: the fewer places are left, the shorter a client may be idle.
#[test]
fn c02_idle_time_shrinks_as_places_are_taken() {
    for (clients, seconds) in [(10, 10.0), (11, 9.1), (15, 5.5), (19, 1.9), (20, 1.0)] {
        let mut w = with_limits(|limits| limits.clients_max = 20);
        // The others are busy for as long as this takes.
        w.servers[0].replies(|_| Vec::new());
        let idle = w.tcp_client();
        w.run_for(Duration::from_secs_f64(seconds) - ms(1000));
        assert_eq!(w.clients[idle].state, State::Open);
        for n in 1..clients {
            let other = w.tcp_client();
            w.tcp_send(other, dns::framed(&question(n)));
        }
        w.run_ms(990);
        assert_eq!(w.clients[idle].state, State::Open, "{clients} clients");
        w.run_ms(20);
        assert_eq!(w.clients[idle].state, State::Closed, "{clients} clients");
        end(w);
    }
}

#[test]
fn c02_of_many_idle_clients_only_so_many_are_closed_early_as_others_need_places() {
    let mut w = with_limits(|limits| limits.clients_max = 20);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = w.tcp_client();
            w.run_ms(10);
            client
        })
        .collect();
    w.run_ms(1000);
    let open = |w: &World| clients.iter().filter(|c| w.clients[**c].state == State::Open).count();
    assert_eq!(open(&w), 19, "with one place free they have 1.9 s");
    w.run_ms(7800);
    assert_eq!(open(&w), 11);
    w.run_ms(2000);
    assert_eq!(open(&w), 0);
    end(w);
}

/// RFC 7828 section 3.3: who asks is told how long it may be idle. With few places left all who have
/// EDNS are told to go, and who is idle is closed without a word.
#[test]
fn c02_clients_are_told_their_idle_time_and_to_go_when_places_run_out() {
    /// What a client without EDNS is told, one that does not ask, and one that does, which has an answer
    /// from a server, one about a special name and one to what is not forwarded.
    fn told(clients: usize) -> [Option<u16>; 5] {
        let mut w = with_limits(|limits| limits.clients_max = 20);
        let all: Vec<_> = (0..clients).map(|_| w.tcp_client()).collect();
        w.run_ms(10);
        let edns = Some(dns::Edns { size: 1232, dnssec_ok: false });
        let queries = [
            dns::query(0, "none.example.", dns::A, None),
            dns::query(1, "silent.example.", dns::A, edns),
            dns::query_with_keepalive(2, "asks.example.", dns::A),
            dns::query_with_keepalive(3, "a.test.", dns::A),
            dns::query_with_keepalive(4, "axfr.example.", 252),
        ];
        for (&client, query) in all.iter().cycle().zip(&queries) {
            w.tcp_send(client, dns::framed(query));
        }
        // Over UDP nothing is told.
        let path = w.next_path();
        w.datagram(path, dns::query_with_keepalive(5, "udp.example.", dns::A));
        w.run_ms(100);
        assert_eq!(w.response("udp.example.").keepalive, None);
        let names = ["none.example.", "silent.example.", "asks.example.", "a.test."];
        let [none, silent, asks, special] = names.map(|name| w.response(name).keepalive);
        let told = [none, silent, asks, special, w.response("axfr.example.").keepalive];
        assert_eq!((failures(&w), w.oracle.responses.len()), (0, 6));
        end(w);
        told
    }

    for (clients, units) in [(1, 100), (10, 100), (15, 55), (18, 28)] {
        let [none, rest @ ..] = told(clients);
        let asked = Some(units);
        assert_eq!((none, rest), (None, [None, asked, asked, asked]), "{clients} clients");
    }
    for clients in [19, 20] {
        assert_eq!(told(clients), [None, Some(0), Some(0), Some(0), Some(0)], "{clients} clients");
    }
}

#[test]
fn the_window_that_a_clients_queries_filled_is_free_when_the_client_is_gone() {
    for half_closed in [false, true] {
        let mut w = warm(1);
        let client = fill_window(&mut w);
        if half_closed {
            w.schedule(Duration::ZERO, What::ClientFin { client });
        }
        w.ask("waiting.example.");
        w.run_ms(100);
        assert!(!w.links[2].names().contains(&"waiting.example."), "the window is full");
        w.schedule(Duration::ZERO, What::ClientResets { client });
        w.run_ms(20);
        assert_eq!(w.response("waiting.example.").took(), ms(105), "half-closed: {half_closed}");
        end(w);
    }
}

#[test]
fn the_window_that_a_clients_queries_filled_is_free_when_the_client_is_shed() {
    let mut w = with_limits(|limits| {
        limits.client_bytes_max = 150_000;
        limits.client_output_max = 100_000;
    });
    w.ask("warm.example.");
    w.run_ms(100);
    let client = fill_window(&mut w);
    // It takes none of its next answers, which are local and large enough together.
    w.clients[client].room = Some(0);
    w.clients[client].offender = true;
    let zone = dns::framed(&dns::query(1, "zone.example.", 252, None));
    w.tcp_send(client, zone.repeat(3000));
    w.ask("waiting.example.");
    w.run_ms(100);
    assert!(!w.is_answered("waiting.example."), "the window is full");
    assert_eq!(w.clients[client].state, State::Open);
    // Partial messages of others count too.
    for _ in 0..2 {
        let other = w.tcp_client();
        w.clients[other].offender = true;
        w.tcp_send(other, [vec![255, 255], vec![0; 60_000]].concat());
    }
    w.run_ms(100);
    assert_eq!(w.clients[client].state, State::Closed);
    assert_eq!(w.response("waiting.example.").took(), ms(105));
    end(w);
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
    assert_eq!(w.forwarder.poll_read(conn), 0);
    w.tcp_send(client, second[5..].to_vec());
    // It takes 400 octets a second, and so is in nobody's debt.
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

/// A client whose query is alone in flight, and will be for as long as it waits: after two lossy
/// closes the third connection carries one at a time.
fn fill_window(w: &mut World) -> usize {
    w.servers[0].replies(|ask| match (ask.link, ask.name) {
        (2, "client.example.") => Vec::new(),
        (0 | 1, "client.example.") => vec![close_after(10)],
        _ => vec![ask.answer_after(5)],
    });
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&dns::query(1, "client.example.", dns::A, None)));
    w.run_ms(15);
    // So that the second connection has answered one, too.
    w.run_ms(15);
    w.ask("other.example.");
    w.run_ms(40);
    assert_eq!(w.response("other.example.").rcode, NOERROR);
    assert_eq!(w.links[2].names(), ["client.example."]);
    client
}

/// Takes 40,000 octets every 10 ms, 4 MB a second, of what the clients are sent.
fn read_steadily(w: &mut World, clients: &[usize]) {
    for &client in clients {
        let room = w.clients[client].room.unwrap_or(0);
        w.clients[client].room = Some((room + 40_000).min(80_000));
        w.schedule(Duration::ZERO, What::ClientWritable { client });
    }
    w.run_ms(10);
}

fn answer_with(w: &mut World, size: usize) {
    w.servers[0].replies(move |ask| {
        let answer = dns::answer(ask.message, ask.serial, NOERROR, size);
        vec![Step::after(20, Do::Answer(answer))]
    });
}

#[test]
fn c04_a_client_that_reads_long_answers_is_not_cut_off() {
    let mut w = warm(1);
    answer_with(&mut w, 60_000);
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    w.tcp_send(client, (0..256).flat_map(|n| dns::framed(&question(n))).collect());
    let mut held_max = 0;
    for _ in 0..500 {
        read_steadily(&mut w, &[client]);
        held_max = held_max.max(w.held_for_clients());
    }
    // Those that were read, and had their answers, at 4 MB a second.
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 257));
    assert!(held_max <= 3 << 19, "{held_max} octets held");
    assert_eq!(w.forwarder.counts().shed, 0);
    end(w);
}

/// Nobody knows how long the first answers are going to be. Of what comes for all at once, more than
/// clients may hold, each has its share; nobody is closed for the rest, which fails.
#[test]
fn c04_clients_that_read_long_answers_at_once_are_not_cut_off() {
    let mut w = warm(1);
    answer_with(&mut w, 60_000);
    let clients: Vec<_> = (0..10).map(|_| w.tcp_client()).collect();
    for (n, &client) in (0..).zip(&clients) {
        w.clients[client].room = Some(0);
        let questions = (64 * n..).take(64);
        w.tcp_send(client, questions.flat_map(|n| dns::framed(&question(n))).collect());
    }
    for _ in 0..150 {
        read_steadily(&mut w, &clients);
    }
    assert_eq!(w.oracle.responses.len(), 641);
    assert_eq!(w.forwarder.counts().shed, 0);
    // Of the first 200, until they are out of the way.
    let failed = w.oracle.responses.iter().filter(|response| response.rcode != NOERROR);
    let late = failed.clone().find(|response| response.asked >= ms(200));
    assert!(late.is_none(), "{late:?}");
    let failed = failed.count();
    assert!((1..200).contains(&failed), "{failed} failed");
    assert!(clients.iter().all(|client| w.clients[*client].state == State::Open));
    end(w);
}

/// With the limits of a small router: the long answers of two clients leave room for no third one, but for
/// short ones. A failure would save next to nothing.
#[test]
fn c04_a_short_answer_behind_a_long_one_does_not_fail() {
    let mut w = with_limits(|limits| {
        limits.client_bytes_max = 132 << 10;
        limits.client_output_max = 66 << 10;
    });
    w.servers[0].replies(|ask| {
        let is_short = ask.name == numbered(2);
        let (after, size) = if is_short { (20, 0) } else { (10, 60_000) };
        let answer = dns::answer(ask.message, ask.serial, NOERROR, size);
        vec![Step::after(after, Do::Answer(answer))]
    });
    let clients = [w.tcp_client(), w.tcp_client()];
    for (client, asked) in [(clients[0], &[0, 2, 3][..]), (clients[1], &[1])] {
        w.clients[client].room = Some(0);
        w.tcp_send(client, asked.iter().flat_map(|n| dns::framed(&question(*n))).collect());
    }
    w.run_ms(500);
    let rcodes = [0, 1, 2, 3].map(|n| w.response(&numbered(n)).rcode);
    assert_eq!(rcodes, [NOERROR, NOERROR, NOERROR, SERVFAIL]);
    assert_eq!(w.forwarder.counts().shed, 0);
    for client in clients {
        w.schedule(Duration::ZERO, What::ClientReads { client });
    }
    w.run_ms(10);
    end(w);
}

#[test]
fn who_sends_long_messages_slowly_does_not_push_out_who_reads() {
    let mut w = with_limits(|limits| limits.client_bytes_max = 3 << 20);
    answer_with(&mut w, 60_000);
    let reader = w.tcp_client();
    w.clients[reader].room = Some(0);
    // What they send is all that may be held when the reader begins, and more comes.
    for n in 0..350 {
        if n == 150 {
            w.tcp_send(reader, (0..100).flat_map(|n| dns::framed(&question(n))).collect());
        }
        if n % 3 == 0 && n < 300 {
            let slow = w.tcp_client();
            w.clients[slow].offender = true;
            w.tcp_send(slow, [vec![255, 255], vec![0; 60_000]].concat());
        }
        read_steadily(&mut w, &[reader]);
    }
    assert_eq!(w.oracle.responses.len(), 100);
    // Of the first 20, whose length nobody knew.
    assert!(failures(&w) <= 3, "{} failed", failures(&w));
    assert!(w.forwarder.counts().shed >= 5, "{:?}", w.forwarder.counts());
    assert_eq!(w.clients[reader].state, State::Open);
    end(w);
}

#[test]
fn a_client_with_a_window_narrowed_by_others_is_read_again() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let is_first = [0, 1].map(numbered).iter().any(|name| name == ask.name);
        let (after, size) = if is_first { (50, 40_000) } else { (4000, 100) };
        let answer = dns::answer(ask.message, ask.serial, NOERROR, size);
        vec![Step::after(after, Do::Answer(answer))]
    });
    let client = w.tcp_client();
    w.tcp_send(client, dns::framed(&question(0)));
    w.run_ms(100);
    w.tcp_send(client, dns::framed(&question(1)));
    // With 140 others busy there is room for one query like these.
    for n in 2..142 {
        let other = w.tcp_client();
        w.tcp_send(other, dns::framed(&question(n)));
    }
    w.run_ms(10);
    w.tcp_send(client, dns::framed(&question(200)));
    w.run_ms(30);
    assert_eq!(w.forwarder.counts().queries, 143);
    w.run_ms(30);
    assert_eq!(w.forwarder.counts().queries, 144);
    w.run_ms(5000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 144));
    end(w);
}

#[test]
fn no_client_is_idle_while_it_has_answers_to_take() {
    let mut w = world(1);
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    let zone = dns::framed(&dns::query(1, "zone.example.", 252, None));
    w.tcp_send(client, zone.repeat(400));
    // It takes 500 octets a second of some 12,000.
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
