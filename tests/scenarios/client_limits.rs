//! Clients that are many, or want too much: places, shares and memory.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dot_proxy::forwarder::{Action, Forwarder, Notice, UpstreamIdentity};

use crate::{
    ask_with_sig0, close_after, end, failures, long_question, numbered, question, warm, with_limits,
};
use simulator::dns::{NOERROR, SERVFAIL};
use simulator::{Do, State, Step, To, What, World, default_limits, dns, ms, path_from};

#[test]
fn no_timer_outlives_a_client_closed_for_what_it_holds() {
    let mut limits = default_limits();
    limits.client_bytes_max = 20;
    let mut forwarder = Forwarder::new(
        limits,
        crate::default_policy(),
        vec![UpstreamIdentity { shown: "up".into(), operator: 0 }],
        1,
    );
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
    forwarder.handle_stream(start, first.into(), &[&notify[..], &notify, b"\0"].concat());
    drain(&mut forwarder);
    assert_eq!(forwarder.counts().conns_held, 0);
    assert_eq!(forwarder.poll_timeout(), None);

    let second = connect(&mut forwarder, start + ms(9000), 1001);
    assert_eq!(first.key(), second.key());
    forwarder.handle_timeout(start + ms(10_000));
    assert_eq!(drain(&mut forwarder), [], "idle for a second");
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

#[test]
fn c06_a_full_table_answers_servfail_at_once() {
    let mut w = with_limits(|limits| limits.queries_max = 100);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    // A quarter of the places is not for datagrams.
    for n in 0..125 {
        w.ask_edns(&numbered(n));
    }
    w.run_ms(10);
    assert_eq!(w.oracle.responses.len(), 50);
    assert!(w.oracle.responses.iter().all(|r| r.rcode == SERVFAIL && r.extended_error == Some(0)));
    w.run_ms(2000);
    assert_eq!(failures(&w), 50);
    let told = |w: &World| {
        let is_it = |notice: &Notice| matches!(notice, Notice::TableFull { queries_max: 100, .. });
        w.notices.iter().filter(|(_, notice)| is_it(notice)).count()
    };
    assert_eq!(told(&w), 1, "of 50 at once");
    w.run_ms(60_000);
    for n in 0..125 {
        w.ask_edns(&numbered(1000 + n));
    }
    w.run_ms(2000);
    assert_eq!(told(&w), 2, "a minute later");
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
        // A quarter of the places is not for datagrams.
        let table = if over_tcp { TABLE } else { TABLE * 4 / 3 };
        let mut w = with_limits(|limits| limits.queries_max = table as usize);
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

/// A name that nobody answers, asked with an address that nobody has.
fn ask_forged(w: &mut World, n: u32) {
    let mut address = n.wrapping_mul(0x9e37_79b1).to_be_bytes();
    address[0] = 10;
    let forged = path_from(SocketAddr::from((address, 1024)));
    w.datagram(forged, dns::query(n as u16, &format!("lost{n}.example."), dns::A, None));
}

/// Names that nobody answers, asked with addresses that change all the time.
#[test]
fn c06_a_flood_from_forged_sources_keeps_nobody_out_of_few_places() {
    let mut w = with_limits(|limits| limits.queries_max = 192);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    w.ask("warm.example.");
    w.run_ms(100);
    // Half of what 144 places carry where each is held for 400 ms.
    for n in 0..4_500_u32 {
        ask_forged(&mut w, n);
        if n % 45 == 44 {
            let path = path_from(SocketAddr::from(([192, 168, 0, 1], 1024 + (n / 45) as u16)));
            w.datagram(path, question(n / 45));
        }
        w.run_for(Duration::from_micros(5_500));
    }
    w.run_ms(1000);
    let answered = (0..100).filter(|n| w.response(&numbered(*n)).rcode == NOERROR).count();
    assert!(answered >= 98, "{answered} of 100");
    w.run_ms(5000);
    end(w);
}

/// Names that nobody answers, asked with addresses that change all the time.
#[test]
fn c06_a_flood_from_forged_sources_keeps_nobody_out() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    for n in 0..12_000_u32 {
        ask_forged(&mut w, n);
        if n % 400 == 399 {
            let path = path_from(SocketAddr::from(([192, 168, 0, 1], 1024 + (n / 400) as u16)));
            w.datagram(path, question(n / 400));
            let client = client_at(&mut w, [192, 168, 0, 2]);
            w.tcp_send(client, dns::framed(&question(100 + n / 400)));
        }
        if n % 3 == 2 {
            w.run_ms(1);
        }
    }
    w.run_ms(1000);
    let took = |first: u32| {
        let mut took: Vec<_> = (first..first + 30)
            .map(|n| w.response(&numbered(n)))
            .inspect(|response| {
                assert_eq!(response.rcode, NOERROR, "{response:?}");
            })
            .map(simulator::Response::took)
            .collect();
        took.sort();
        took
    };
    let [datagrams, streams] = [took(0), took(100)];
    assert!(datagrams[29] < ms(300) && streams[29] < ms(300), "{datagrams:?} {streams:?}");
    w.run_ms(5000);
    end(w);
}

/// With so many forged addresses hardly any datagram finds a place. A quarter of the places is left to streams, since
/// nobody can forge their addresses.
#[test]
fn c06_a_flood_from_forged_sources_leaves_places_to_streams() {
    let mut w = with_limits(|limits| limits.queries_max = 192);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    w.ask("warm.example.");
    w.run_ms(100);
    // Ten times what 144 places carry where each is held for 400 ms.
    for n in 0..7_200_u32 {
        ask_forged(&mut w, n);
        if n % 180 == 179 {
            let client = client_at(&mut w, [192, 168, 0, 2]);
            w.tcp_send(client, dns::framed(&question(n / 180)));
        }
        w.run_for(Duration::from_micros(278));
    }
    w.run_ms(1000);
    let answered = (0..40).filter(|n| w.response(&numbered(*n)).rcode == NOERROR).count();
    assert_eq!(answered, 40);
    assert!(failures(&w) > 6_000, "{} of the flood", failures(&w));
    w.run_ms(5000);
    end(w);
}

/// One client asks names that fail after four seconds, and nothing else is asked for a while: the upstream seems to be
/// down. Others find out that it is not.
#[test]
fn c06_slow_names_of_one_client_take_no_upstream_from_others() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        if !ask.name.starts_with("slow") {
            return vec![ask.answer_after(10)];
        }
        vec![Step::after(4000, Do::Answer(dns::answer(ask.message, ask.serial, SERVFAIL, 0)))]
    });
    for n in 0..20_000 {
        let slow = dns::query(n, &format!("slow{n}.example."), dns::A, None);
        w.datagram(path_from(SocketAddr::from(([10, 9, 9, 9], 1024 + n))), slow);
        if n >= 8000 && n % 200 == 0 {
            let name = question((n / 200).into());
            if n % 400 == 0 {
                w.datagram(path_from(SocketAddr::from(([10, 0, 0, 1], 1024 + n))), name);
            } else {
                let client = client_at(&mut w, [10, 0, 0, 2]);
                w.tcp_send(client, dns::framed(&name));
            }
        }
        w.run_ms(1);
    }
    w.run_ms(5000);
    let answered = (40..100).filter(|n| w.response(&numbered(*n)).rcode == NOERROR).count();
    assert!(answered >= 58, "{answered} of 60");
    end(w);
}

/// The queries of four seconds with the address of another, answered at one moment.
#[test]
fn late_answers_to_one_network_make_no_pulse() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let n: u64 = ask.name[1..].split('.').next().and_then(|n| n.parse().ok()).unwrap();
        let answer = dns::answer(ask.message, ask.serial, NOERROR, 1200);
        // Some are quick, so that the server is none that answers nothing.
        vec![Step::after(if n.is_multiple_of(25) { 10 } else { 4000 - n }, Do::Answer(answer))]
    });
    for n in 0..3900 {
        let victim = path_from(SocketAddr::from(([10, 9, 9, 9], 1024 + n)));
        let query = dns::query(
            n,
            &numbered(n.into()),
            dns::A,
            Some(dns::Edns { size: 1232, dnssec_ok: false }),
        );
        w.datagram(victim, query);
        w.run_ms(1);
    }
    w.run_ms(2500);
    let responses = &w.oracle.responses[1..];
    assert_eq!((responses.len(), failures(&w)), (3900, 0));
    let short: Vec<_> = responses.iter().filter(|r| r.truncated).collect();
    assert!(short.iter().all(|response| response.length < 60), "no longer than the query");
    // About as many wait for longer than a second as may, and the others are not late, or leave in turn.
    assert!((1800..3500).contains(&short.len()), "{}", short.len());
    let (datagrams, octets) = pulse(&w);
    assert!(datagrams <= 64, "{datagrams} datagrams, {octets} octets");
    let counts = w.forwarder.counts();
    assert_eq!((counts.cut_short, counts.answers_held), (short.len() as u64, 0));
    let told = w.notices.iter().map(|(_, notice)| notice.to_string());
    let told: Vec<_> = told.filter(|line| line.contains("--wait-limit")).collect();
    assert!(told.len() == 1 && told[0].starts_with("10.9.9.9: more than 1024 queries"), "{told:?}");
    end(w);
}

/// The most that clients at one address got within 5 ms of what they had waited for longer than 400 ms: datagrams,
/// and their octets.
fn pulse(w: &World) -> (usize, usize) {
    let mut lately: HashMap<IpAddr, VecDeque<&simulator::Response>> = HashMap::new();
    let mut most = (0, 0);
    for response in w.oracle.responses.iter().filter(|response| response.took() > ms(400)) {
        let To::Datagram(path) = response.to else { continue };
        let lately = lately.entry(path.client.ip()).or_default();
        lately.push_back(response);
        while lately.front().is_some_and(|first| first.at + ms(5) <= response.at) {
            lately.pop_front();
        }
        most = most.max((lately.len(), lately.iter().map(|response| response.length).sum()));
    }
    most
}

/// Whatever is said late: what ends so that others do not wait, what failed, and all of it to who asks again and again.
#[test]
fn nothing_that_is_said_late_makes_a_pulse() {
    let mut pulses = Vec::new();
    // How many queries, how often each is sent, after how many milliseconds all are answered, if they are.
    for (queries, times, answered) in [
        (3000, 1, None),
        (900, 4, None),
        (900, 4, Some(3000)),
        (700, 1, Some(1000)),
        (24, 1, Some(1000)),
    ] {
        let mut w = warm(1);
        w.servers[0].replies(move |ask| {
            let answer = dns::answer(ask.message, ask.serial, NOERROR, 1200);
            let at = answered.filter(|_| !ask.name.starts_with("warm"));
            at.map(|at| Step::after(at, Do::Answer(answer))).into_iter().collect()
        });
        let edns = Some(dns::Edns { size: 1232, dnssec_ok: false });
        for _ in 0..times {
            for n in 0..queries {
                let victim = path_from(SocketAddr::from(([10, 9, 9, 9], 1024 + n)));
                w.datagram(victim, dns::query(n, &numbered(n.into()), dns::A, edns));
            }
            w.run_ms(300);
        }
        w.run_ms(5000);
        let expected = usize::from(queries) * times;
        assert_eq!(w.oracle.responses.len(), 1 + expected);
        let took = w.oracle.responses.iter().map(simulator::Response::took).max();
        assert!(took.is_some_and(|took| took <= ms(4500 + 500)), "{took:?}");
        pulses.push((pulse(&w), queries, times, answered, took));
        end(w);
    }
    assert!(pulses.iter().all(|((datagrams, _), ..)| *datagrams <= 64), "{pulses:#?}");
}

/// A resolver in front asks all that it has at once, and its upstream takes half a second.
#[test]
fn late_answers_leave_some_milliseconds_later_and_to_this_host_at_once() {
    for (ip, last) in [([10, 0, 0, 1], 522), ([127, 0, 0, 1], 500)] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| vec![ask.answer_after(500)]);
        for n in 0..200 {
            let path = path_from(SocketAddr::from((ip, 1024 + n)));
            w.datagram(path, question(n.into()));
        }
        w.run_ms(600);
        let latest = w.oracle.responses.iter().map(simulator::Response::took).max();
        assert_eq!((failures(&w), w.oracle.responses.len()), (0, 201));
        assert!(
            latest.is_some_and(|latest| (ms(last)..ms(last + 5)).contains(&latest)),
            "{latest:?}"
        );
        assert_eq!(w.forwarder.counts().cut_short, 0);
        end(w);
    }
}

/// With an upstream that answers nothing, some of what a network asks by datagram is to be asked over TCP.
#[test]
fn queries_that_wait_for_long_are_bounded_for_each_network() {
    let asked = |ip: [u8; 4], limit: usize| {
        let mut w = with_limits(|limits| limits.late_datagrams_max = limit);
        w.ask("warm.example.");
        w.run_ms(100);
        w.servers[0].replies(|_| Vec::new());
        for n in 0..100 {
            let path = path_from(SocketAddr::from((ip, 1024 + n)));
            w.datagram(path, question(n.into()));
            w.run_ms(1);
        }
        w.run_ms(850);
        assert_eq!(w.oracle.responses.len(), 1);
        w.run_ms(200);
        let short: Vec<_> =
            w.oracle.responses.iter().filter(|r| r.truncated).map(|r| r.name.clone()).collect();
        assert_eq!(
            short,
            (0..short.len() as u32).map(numbered).collect::<Vec<_>>(),
            "oldest first"
        );
        w.run_ms(5000);
        assert_eq!(w.oracle.responses.len(), 101);
        end(w);
        short.len()
    };
    assert_eq!(asked([10, 0, 0, 1], 60), 40);
    assert_eq!(asked([10, 0, 0, 1], 100), 0);
    assert_eq!(asked([10, 0, 0, 1], usize::MAX), 0);
    assert_eq!(asked([127, 0, 0, 1], 60), 0);
}

/// What came first has cost the upstream its work, and its answer is near.
#[test]
fn c06_who_floods_gives_up_what_came_last() {
    let mut w = with_limits(|limits| limits.queries_max = 4000);
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
        limits.queries_max = 13;
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
            // Nothing is said but that the table is full, once.
            let mut told = w.notices.iter().map(|(_, notice)| notice);
            let is_full = |notice: &Notice| matches!(notice, Notice::TableFull { .. });
            assert!(told.len() <= 1 && told.all(is_full), "{:?}", w.notices);
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
    let seen = |w: &World| w.links.iter().map(|link| link.seen.len()).sum::<usize>();
    assert!(seen(&w) <= 1 + 16, "{} queries", seen(&w));
    // Others have theirs.
    w.ask("other.example.");
    w.run_ms(100);
    assert_eq!(w.response("other.example.").took(), ms(10));
    w.run_ms(2900);
    assert!(w.links[0].names().contains(&"slow0-0.example."));
    let before = seen(&w);
    ask_and_reset(&mut w, 100, 10);
    assert!(seen(&w) > before, "when its answers have come, it may ask again");
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
            ask_with_sig0(&mut w, &numbered(n), id);
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

/// A client at this address, connected after what came before.
fn client_at(w: &mut World, ip: impl Into<IpAddr>) -> usize {
    let client = w.tcp_client();
    let port = w.clients[client].peer.port();
    w.clients[client].peer = SocketAddr::new(ip.into(), port);
    client
}

/// Lines about clients that waited, and about those that made room.
fn told_of_places(w: &World) -> [usize; 2] {
    let count = |is: fn(&Notice) -> bool| w.notices.iter().filter(|(_, notice)| is(notice)).count();
    [
        count(|notice| matches!(notice, Notice::ClientWaited { .. })),
        count(|notice| matches!(notice, Notice::ClientMadeRoom { .. })),
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
    let [(_, told)] = &w.notices[..] else { panic!("one line: {:?}", w.notices) };
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
        let told: Vec<_> = w.notices.iter().map(|(_, notice)| notice.to_string()).collect();
        assert_eq!(told.len(), 1 + usize::from(clients > 150), "{told:#?}");
        for line in told {
            assert!(line.contains("of them by 10.9.9.9"), "{line}");
        }
        end(w);
    }
}

/// However many come, each network has as many places as the others, as far as they go round.
#[test]
fn c02_places_are_shared_out_evenly() {
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
    let second: Vec<_> = (0..8).map(|n| ask(&mut w, n, [10, 0, 0, 1])).collect();
    w.run_ms(1000);
    let open = |w: &World, clients: &[usize]| {
        clients.iter().filter(|client| w.clients[**client].state == State::Open).count()
    };
    assert_eq!([&crowd, &second].map(|clients| open(&w, clients)), [6, 6]);
    assert_eq!(open(&w, &crowd[..6]), 6, "those that have waited for longest");
    let others: Vec<_> = (8..16).map(|n| ask(&mut w, n, [10, 0, 1, n as u8])).collect();
    w.run_ms(1000);
    assert_eq!([&crowd, &second, &others].map(|clients| open(&w, clients)), [2, 2, 8]);
    assert_eq!((w.forwarder.counts().made_room, w.forwarder.counts().crowded_out), (14, 2));
    end(w);
}

/// Somebody has all places, each with a slow query, from many addresses of one network, from six addresses, or
/// on this host.
#[test]
fn c02_whoever_has_most_places_gives_some_up() {
    let of_network = |n: u16| IpAddr::from([0xfd00, 0, 0, n % 2, 0, 0, 0, n]);
    let of_six = |n: u16| IpAddr::from([10, 9, 9, (n % 6) as u8]);
    let of_host = |n: u16| IpAddr::from([127, 0, 0, (n % 250) as u8]);
    let holders: [&dyn Fn(u16) -> IpAddr; 3] = [&of_network, &of_six, &of_host];
    for holder in holders {
        let mut w = warm(1);
        w.servers[0].replies(|ask| {
            if ask.name.starts_with('n') { vec![ask.answer_after(10)] } else { Vec::new() }
        });
        for n in 0..160 {
            let client = client_at(&mut w, holder(n));
            let slow = dns::query(n, &format!("slow{n}.example."), dns::A, None);
            w.tcp_send(client, dns::framed(&slow));
            // Some of them are told to go, or refused.
            w.clients[client].offender = true;
        }
        w.run_ms(10);
        for n in 0..20 {
            let newcomer = client_at(&mut w, [10, 0, 0, n as u8]);
            w.tcp_send(newcomer, dns::framed(&question(n)));
            w.run_ms(100);
        }
        w.run_ms(300);
        for n in 0..20 {
            assert_eq!(w.response(&numbered(n)).rcode, NOERROR, "{}: {n}", holder(0));
            assert!(w.response(&numbered(n)).took() < ms(300), "{}: {n}", holder(0));
        }
        let told: Vec<_> = w.notices.iter().map(|(_, notice)| notice.to_string()).collect();
        let favour =
            told.iter().filter(|line| line.contains("with 1 queries unanswered, in favour"));
        assert_eq!(favour.count(), 1, "{told:#?}");
        end(w);
    }
}

/// Nobody loses an answer for another that has as much, however long that takes.
#[test]
fn c10_without_a_crowd_newcomers_wait_for_slow_names() {
    let mut w = with_limits(|limits| limits.clients_max = 6);
    w.servers[0].replies(|ask| vec![ask.answer_after(2000)]);
    for n in 0..12 {
        let client = client_at(&mut w, [10, 0, 0, n as u8]);
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(4100);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 12));
    assert_eq!(w.forwarder.counts().crowded_out, 0);
    end(w);
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
    let waited = w.notices.iter().map(|(_, notice)| notice.to_string());
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
    // The client takes none of its next answers, which are local and large enough together.
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

/// Each answer that a client is owed counts before it comes.
#[test]
fn c04_no_more_is_asked_than_there_is_room_for_the_answers() {
    let mut w = with_limits(|limits| limits.client_output_max = 66 << 10);
    w.ask("warm.example.");
    w.run_ms(100);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    let client = w.tcp_client();
    w.tcp_send(client, (0..300).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(900);
    let asked = w.links.iter().map(|link| link.names().len()).sum::<usize>() - 1;
    assert!((60..=100).contains(&asked), "{asked} at a time");
    w.run_ms(8000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 301));
    end(w);
}

/// Answers far longer than what is kept free for each have room with the others for a while.
#[test]
fn c04_a_client_that_reads_long_answers_is_not_cut_off() {
    let mut w = warm(1);
    answer_with(&mut w, 12_000);
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    w.tcp_send(client, (0..256).flat_map(|n| dns::framed(&question(n))).collect());
    for _ in 0..100 {
        read_steadily(&mut w, &[client]);
    }
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 257));
    assert_eq!(w.forwarder.counts().shed, 0);
    end(w);
}

#[test]
fn c04_clients_that_read_long_answers_at_once_are_not_cut_off() {
    let mut w = warm(1);
    answer_with(&mut w, 6_000);
    let clients: Vec<_> = (0..10).map(|_| w.tcp_client()).collect();
    for (n, &client) in (0..).zip(&clients) {
        w.clients[client].room = Some(0);
        let questions = (64 * n..).take(64);
        w.tcp_send(client, questions.flat_map(|n| dns::framed(&question(n))).collect());
    }
    for _ in 0..50 {
        read_steadily(&mut w, &clients);
    }
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 641));
    assert_eq!(w.forwarder.counts().shed, 0);
    end(w);
}

/// Far more than clients may hold is on its way, and it is told so of what does not fit.
#[test]
fn c04_a_client_alone_that_reads_more_than_there_is_room_for_is_not_cut_off() {
    let mut w = warm(1);
    answer_with(&mut w, 60_000);
    let client = w.tcp_client();
    w.clients[client].room = Some(0);
    w.tcp_send(client, (0..256).flat_map(|n| dns::framed(&question(n))).collect());
    for _ in 0..200 {
        read_steadily(&mut w, &[client]);
    }
    assert_eq!((w.clients[client].state, w.forwarder.counts().shed), (State::Open, 0));
    assert_eq!(w.oracle.responses.len(), 257);
    assert!((100..200).contains(&failures(&w)), "{} failed", failures(&w));
    end(w);
}

/// The client takes some of its answers all the time, more often than the others take theirs.
#[test]
fn c04_who_holds_more_than_its_share_is_closed_before_those_that_hold_little() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| {
        let size = if ask.name.starts_with("little") { 3_000 } else { 60_000 };
        let answer = dns::answer(ask.message, ask.serial, NOERROR, size);
        vec![Step::after(20, Do::Answer(answer))]
    });
    let little = |n: usize| dns::query(n as u16, &format!("little{n}.example."), dns::A, None);
    let others: Vec<_> = (0..20).map(|_| w.tcp_client()).collect();
    for (n, &client) in others.iter().enumerate() {
        w.clients[client].room = Some(0);
        w.tcp_send(client, dns::framed(&little(n)));
    }
    let greedy = w.tcp_client();
    w.clients[greedy].offender = true;
    w.clients[greedy].room = Some(0);
    w.tcp_send(greedy, (0..256).flat_map(|n| dns::framed(&question(n))).collect());
    w.run_ms(1);
    for n in 20..40 {
        read_steadily(&mut w, &[greedy]);
        w.tcp_send(others[n - 20], dns::framed(&little(n)));
    }
    for _ in 0..10 {
        read_steadily(&mut w, &others);
    }
    assert!(others.iter().all(|client| w.clients[*client].state == State::Open));
    assert!((0..40).all(|n| w.response(&format!("little{n}.example.")).rcode == NOERROR));
    assert!(w.forwarder.counts().shed <= 1, "{:?}", w.forwarder.counts());
    end(w);
}

/// With the limits of a small router there is room for two such answers.
#[test]
fn c04_a_long_answer_that_does_not_fit_fails_and_nobody_is_closed() {
    let mut w = with_limits(|limits| {
        limits.client_bytes_max = 132 << 10;
        limits.client_output_max = 66 << 10;
    });
    answer_with(&mut w, 60_000);
    let clients: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    for (n, &client) in (0..).zip(&clients) {
        w.clients[client].room = Some(0);
        w.tcp_send(client, dns::framed(&question(n)));
        w.run_ms(1);
    }
    w.run_ms(100);
    for _ in 0..10 {
        read_steadily(&mut w, &clients);
    }
    assert!(clients.iter().all(|client| w.clients[*client].state == State::Open));
    let rcodes = [0, 1, 2].map(|n| w.response(&numbered(n)).rcode);
    assert_eq!((rcodes, w.forwarder.counts().shed), ([NOERROR, NOERROR, SERVFAIL], 0));
    // The client asks again, and has its answer.
    w.tcp_send(clients[2], dns::framed(&question(3)));
    for _ in 0..10 {
        read_steadily(&mut w, &clients);
    }
    assert_eq!(w.response(&numbered(3)).rcode, NOERROR);
    end(w);
}

/// The answers are longer than what is kept free for each, and all of them more than clients may hold.
#[test]
fn c04_above_the_limit_who_reads_nothing_is_closed_before_who_reads() {
    let mut w = with_limits(|limits| limits.client_bytes_max = 1 << 20);
    answer_with(&mut w, 60_000);
    let clients: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    for (n, &client) in (0..).zip(&clients) {
        w.clients[client].room = Some(0);
        w.clients[client].offender = n < 2;
        if n == 2 {
            w.run_ms(1000);
        }
        w.tcp_send(client, (6 * n..).take(6).flat_map(|n| dns::framed(&question(n))).collect());
        w.run_ms(100);
    }
    for _ in 0..30 {
        read_steadily(&mut w, &clients[2..]);
    }
    let states: Vec<_> = clients.iter().map(|client| w.clients[*client].state).collect();
    assert_eq!(states, [State::Closed, State::Open, State::Open]);
    assert_eq!((failures(&w), w.forwarder.counts().shed), (0, 1));
    assert!((12..18).all(|n| w.is_answered(&numbered(n))));
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
            w.tcp_send(reader, (0..40).flat_map(|n| dns::framed(&question(n))).collect());
        }
        if n % 3 == 0 && n < 300 {
            let slow = w.tcp_client();
            w.clients[slow].offender = true;
            w.tcp_send(slow, [vec![255, 255], vec![0; 60_000]].concat());
        }
        read_steadily(&mut w, &[reader]);
    }
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 40));
    assert!(w.forwarder.counts().shed >= 5, "{:?}", w.forwarder.counts());
    assert_eq!(w.clients[reader].state, State::Open);
    end(w);
}
