//! Clients that are served, and others.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::{
    Access, AccessDenial, Limits, Notice, Policy, Prefix, QueryLogStyle, Rate,
};

use crate::{end, failures, numbered, question};
use simulator::dns::{Edns, NOERROR, REFUSED};
use simulator::{Server, What, World, default_limits, default_policy, dns, path_from};

fn prefix(address: &str, len: u8) -> Prefix {
    Prefix::of(address.parse().expect("an address"), len).expect("a length of it")
}

/// All of one network is served, but for another in it.
fn access(denial: AccessDenial) -> Access {
    Access {
        allowed: vec![prefix("203.0.113.0", 24), prefix("2001:db8::", 32)],
        denied: vec![prefix("203.0.113.8", 29)],
        subnets: true,
        denial,
    }
}

fn served(denial: AccessDenial) -> World {
    let policy = Policy { access: access(denial), ..default_policy() };
    World::with_policy(default_limits(), policy, vec![Server::healthy()], &[0], 1)
}

fn ask(w: &mut World, source: &str, name: &str) {
    let source: IpAddr = source.parse().expect("an address");
    let edns = Some(Edns { size: 1232, dnssec_ok: false });
    w.datagram(path_from(SocketAddr::from((source, 1000))), dns::query(1, name, dns::A, edns));
}

#[test]
fn only_who_is_allowed_is_answered() {
    let mut w = served(AccessDenial::Drop);
    for (n, source) in ["203.0.113.8", "10.0.0.1", "2001:db9::1", "127.0.0.1"].iter().enumerate() {
        ask(&mut w, source, &format!("stranger{n}.example."));
    }
    for (n, source) in ["203.0.113.7", "::ffff:203.0.113.16", "2001:db8::1"].iter().enumerate() {
        ask(&mut w, source, &format!("friend{n}.example."));
    }
    w.run_ms(100);
    let answered = w.oracle.responses.iter().filter(|response| response.rcode == NOERROR);
    assert_eq!((answered.count(), w.oracle.responses.len()), (3, 3));
    assert_eq!(w.forwarder.counts().refused, 4);
    end(w);
}

#[test]
fn who_is_denied_may_be_refused_and_costs_no_upstream_anything() {
    let mut w = served(AccessDenial::Refused);
    for n in 0..5 {
        ask(&mut w, "203.0.113.9", &format!("stranger{n}.example."));
    }
    let malformed = dns::query(1, "a.example.", dns::A, None)[..15].to_vec();
    w.datagram(path_from("203.0.113.9:1000".parse().unwrap()), malformed);
    w.run_ms(100);
    let refused = w.oracle.responses.iter().filter(|response| {
        response.rcode == REFUSED && response.extended_error == Some(18) && response.length < 60
    });
    assert_eq!((refused.count(), w.oracle.responses.len()), (5, 5));
    assert_eq!((w.forwarder.counts().refused, w.links.len()), (6, 0));
    end(w);
}

/// Each word is that of one reason.
#[test]
fn the_query_log_says_why_a_response_was_made_here() {
    let rate = Some(Rate {
        per_second: 1,
        burst: 4,
        v4_len: 32,
        v6_len: 56,
        exempt: vec![prefix("2001:db8::", 32)],
        places: 256,
    });
    let policy = Policy { access: access(AccessDenial::Refused), rate, ..default_policy() };
    let limits = Limits {
        query_log: Some(QueryLogStyle::default()),
        late_datagrams_max: 1,
        ..default_limits()
    };
    let mut w = World::with_policy(limits, policy, vec![Server::healthy()], &[0], 1);
    w.servers[0].replies(|_| Vec::new());
    ask(&mut w, "203.0.113.9", "denied.example.");
    ask(&mut w, "203.0.113.7", "host.local.");
    let at = path_from("203.0.113.7:1000".parse().unwrap());
    let opcode = [&[0, 1, 0x20, 0], &dns::query(1, "opcode.example.", dns::A, None)[4..]].concat();
    let cut_off = dns::query(1, "cut.example.", dns::A, None)[..15].to_vec();
    for message in [dns::query(1, "zone.example.", 252, None), opcode, cut_off] {
        w.datagram(at, message);
    }
    ask(&mut w, "203.0.113.7", "above.example.");
    for n in 0..2 {
        ask(&mut w, "2001:db8::1", &format!("slow{n}.example."));
    }
    w.run_ms(2_000);
    let why = w.query_log.iter().filter(|line| line.starts_with("LOCAL "));
    let why: Vec<_> = why.map(|line| line.rsplit(": ").next().unwrap_or_default()).collect();
    let expected = [
        "client not served",
        "special name",
        "zone transfer",
        "unknown opcode",
        "malformed query",
        "above --rate-limit",
        "--wait-limit",
    ];
    assert_eq!(why, expected, "{:#?}", w.query_log);
    end(w);
}

/// Each goes to an address that may be forged.
#[test]
fn refused_leaves_so_often_in_a_second_and_no_more() {
    let mut w = served(AccessDenial::Refused);
    for n in 0..1000 {
        ask(&mut w, "203.0.113.9", &numbered(n));
    }
    w.run_ms(100);
    assert_eq!((w.oracle.responses.len(), w.forwarder.counts().refused), (100, 1000));
    end(w);
}

#[test]
fn subnets_come_and_go() {
    let mut w = served(AccessDenial::Drop);
    let subnets = vec![prefix("198.51.100.0", 24), prefix("203.0.113.8", 29)];
    w.schedule(Duration::ZERO, What::Subnets { subnets });
    w.run_ms(1);
    for (address, is_served) in
        [("198.51.100.1", true), ("203.0.113.1", true), ("203.0.113.9", false)]
    {
        assert_eq!(w.forwarder.serves(address.parse().unwrap()), is_served, "{address}");
    }
    let [stranger, neighbour] = ["198.51.100.1", "203.0.113.1"].map(|ip| {
        let client = w.tcp_client();
        w.clients[client].peer.set_ip(ip.parse().unwrap());
        client
    });
    w.tcp_send(stranger, dns::framed(&question(1)));
    w.run_ms(5);
    w.schedule(Duration::ZERO, What::Subnets { subnets: Vec::new() });
    w.run_ms(5);
    assert!(!w.forwarder.serves("198.51.100.1".parse().unwrap()));
    let states = [stranger, neighbour].map(|client| w.clients[client].state);
    assert_eq!(states, [simulator::State::Closed, simulator::State::Open]);
    // More than count.
    let many = (0..=Access::SUBNETS_MAX).map(|n| format!("10.{}.{}.0", n / 256, n % 256));
    let many: Vec<_> = many.map(|address| prefix(&address, 24)).collect();
    w.forwarder.handle_subnets(w.now, &many);
    assert!(w.forwarder.serves("10.0.255.1".parse().unwrap()));
    assert!(!w.forwarder.serves("10.1.0.1".parse().unwrap()));
    end(w);
}

/// A network may ask ten queries a second, and twenty at once; one is exempt.
fn limited() -> World {
    limited_to(10, 20)
}

fn limited_to(per_second: u32, burst: u32) -> World {
    limited_in(default_limits(), per_second, burst)
}

fn limited_in(limits: Limits, per_second: u32, burst: u32) -> World {
    let rate = Rate {
        per_second,
        burst,
        v4_len: 24,
        v6_len: 56,
        exempt: vec![prefix("10.9.0.0", 16)],
        places: 256,
    };
    let policy = Policy { rate: Some(rate), ..default_policy() };
    World::with_policy(limits, policy, vec![Server::healthy()], &[0], 1)
}

fn named(w: &World) -> Vec<(String, bool)> {
    let notices = w.notices.iter().filter_map(|(_, notice)| match notice {
        Notice::AboveRate { network, over_tcp, .. } => Some((network.to_string(), *over_tcp)),
        _ => None,
    });
    notices.collect()
}

#[test]
fn above_its_rate_a_network_is_told_to_use_tcp_every_second_time() {
    let mut w = limited();
    for n in 0..100 {
        ask(&mut w, &format!("10.0.0.{n}"), &numbered(n));
        ask(&mut w, &format!("10.9.0.{n}"), &numbered(n));
        ask(&mut w, &format!("fd00:0:{n}::1"), &numbered(n));
    }
    w.run_ms(500);
    let got = |network: &str, truncated: bool| {
        let all = w.oracle.responses.iter().filter(|response| {
            let simulator::To::Datagram(path) = response.to else { return false };
            path.client.ip().to_string().starts_with(network) && response.truncated == truncated
        });
        all.count()
    };
    assert_eq!((got("10.0.", false), got("10.0.", true)), (20, 40));
    assert_eq!((got("10.9.", false), got("10.9.", true)), (100, 0));
    assert_eq!((got("fd00:", false), got("fd00:", true)), (100, 0), "networks of their own");
    assert_eq!(w.forwarder.counts().above_rate, 80);
    assert_eq!(named(&w), [("10.0.0.0/24".to_owned(), false)]);
    // A second later ten more are answered.
    w.run_ms(500);
    let before = w.oracle.responses.len();
    for n in 0..100 {
        ask(&mut w, "10.0.0.1", &numbered(1_000 + n));
    }
    w.run_ms(500);
    assert_eq!(w.oracle.responses.len() - before, 10 + 45);
    end(w);
}

/// However many connections a network has, and long before they ask.
#[test]
fn over_tcp_a_network_has_its_burst_once() {
    let mut w = limited();
    let clients: Vec<_> = (0..10).map(|_| w.tcp_client()).collect();
    w.run_ms(100);
    for client in clients {
        for n in 0..10 {
            w.tcp_send(client, dns::framed(&question(100 * client as u32 + n)));
        }
    }
    w.run_ms(50);
    assert_eq!(w.oracle.responses.len(), 20);
    w.run_ms(20_000);
    assert_eq!(w.oracle.responses.len(), 100);
    end(w);
}

/// A client that has sent at once what its network may ask in 25 seconds.
fn asks_for_25_s(w: &mut World) -> usize {
    let busy = w.tcp_client();
    for n in 0..250 {
        w.tcp_send(busy, dns::framed(&question(n)));
    }
    w.run_ms(10);
    busy
}

/// What it has sent waits for longer than an idle client may.
#[test]
fn who_is_not_read_for_the_rate_of_its_network_is_not_idle() {
    let mut w = limited();
    let busy = asks_for_25_s(&mut w);
    let other = w.tcp_client();
    w.tcp_send(other, dns::framed(&question(1000)));
    w.run_ms(30_000);
    assert_eq!(w.response(&numbered(1000)).rcode, NOERROR);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 251));
    // Nothing waits any more, and it is idle from then on.
    w.run_ms(15_000);
    assert!(
        [busy, other].iter().all(|client| w.clients[*client].state == simulator::State::Closed)
    );
    end(w);
}

/// Whatever comes meanwhile.
#[test]
fn who_sends_on_above_the_rate_of_its_network_is_not_idle() {
    let mut w = limited();
    asks_for_25_s(&mut w);
    let other = w.tcp_client();
    for n in 0..240 {
        w.tcp_send(other, dns::framed(&question(1000 + n)));
        w.run_ms(50);
    }
    w.run_ms(60_000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 490));
    end(w);
}

/// One client asks all that its network may, for as long as it likes.
#[test]
fn over_tcp_who_asks_much_leaves_others_of_its_network_their_turn() {
    let mut w = limited();
    asks_for_25_s(&mut w);
    let others: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    for other in others {
        w.tcp_send(other, dns::framed(&question(1000 + other as u32)));
    }
    w.run_ms(2_000);
    for other in 1001..=1003 {
        assert!(w.is_answered(&numbered(other)), "{other}");
    }
    w.run_ms(30_000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 253));
    end(w);
}

/// A client that sends a little all the time sends just when its network may ask again, which is before the next look at
/// who waits, since a third of a second is no multiple of the time between two looks. The others have their turn all the
/// same.
#[test]
fn over_tcp_who_sends_all_the_time_leaves_others_of_its_network_their_turn() {
    let mut w = limited_to(3, 1);
    let busy = w.tcp_client();
    let other = w.tcp_client();
    w.run_ms(10);
    for n in 0..10 {
        w.tcp_send(other, dns::framed(&question(20_000 + n)));
    }
    for n in 0..8_000 {
        w.tcp_send(busy, dns::framed(&question(n)));
        w.run_ms(1);
    }
    let of_other = (20_000..20_010).filter(|n| w.is_answered(&numbered(*n))).count();
    let of_busy = w.oracle.responses.len() - of_other;
    assert!(of_other >= 9 && of_busy >= 9, "{of_other} and {of_busy} answers");
}

#[test]
fn who_waits_for_its_rate_is_read_when_there_is_none_any_more() {
    let mut w = limited_to(1, 1);
    let client = w.tcp_client();
    for n in 0..50 {
        w.tcp_send(client, dns::framed(&question(n)));
    }
    w.run_ms(5_000);
    assert!(w.oracle.responses.len() < 10, "{}", w.oracle.responses.len());
    w.decide_by(default_policy());
    w.run_ms(2_000);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 50));
    end(w);
}

/// What waits to be read waits for the rate of its own network, which is no matter of others.
#[test]
fn who_is_not_read_for_the_rate_makes_room_for_others() {
    let mut w = limited_in(Limits { clients_max: 3, ..default_limits() }, 1, 1);
    let clients: Vec<_> = (0..3).map(|_| w.tcp_client()).collect();
    for n in 0..60 {
        w.tcp_send(clients[n as usize % 3], dns::framed(&question(n)));
    }
    w.run_ms(15_000);
    assert!(clients.iter().all(|client| w.clients[*client].state == simulator::State::Open));
    let newcomer = w.tcp_client();
    w.clients[newcomer].peer.set_ip([10, 9, 0, 1].into());
    w.tcp_send(newcomer, dns::framed(&question(1000)));
    w.run_ms(1_000);
    assert_eq!(w.response(&numbered(1000)).rcode, NOERROR);
    assert_eq!(w.forwarder.counts().made_room, 1);
    end(w);
}

#[test]
fn over_tcp_a_network_is_read_at_its_rate_and_gets_every_answer() {
    let mut w = limited();
    let clients = [w.tcp_client(), w.tcp_client()];
    w.run_ms(10);
    for client in clients {
        for n in 0..40 {
            w.tcp_send(client, dns::framed(&question(100 * client as u32 + n)));
        }
    }
    let mut answered = Vec::new();
    for _ in 0..8 {
        w.run_ms(1_000);
        answered.push(w.oracle.responses.len());
    }
    for (second, count) in answered.iter().enumerate() {
        assert!((20..=31 + 10 * second).contains(count), "{answered:?}");
    }
    assert_eq!(answered.last(), Some(&80), "{answered:?}");
    assert!(w.oracle.responses.iter().all(|response| response.rcode == NOERROR));
    assert_eq!(named(&w), [("10.1.0.0/24".to_owned(), true)]);
    // A newcomer of the network has its part, and others theirs.
    w.run_for(Duration::from_secs(5));
    end(w);
}

#[test]
fn who_waits_to_be_read_at_the_rate_is_not_idle() {
    let mut w = limited_to(1, 1);
    let clients: Vec<_> = (0..15).map(|_| w.tcp_client()).collect();
    w.run_ms(10);
    for round in 0..2 {
        for client in &clients {
            w.tcp_send(*client, dns::framed(&question(100 * round + *client as u32)));
        }
        w.run_ms(1_000);
    }
    // The last are read after more time than a client may be idle.
    w.run_for(Duration::from_secs(60));
    assert_eq!(w.oracle.responses.len(), 30);
    assert!(clients.iter().all(|client| w.clients[*client].conn.is_none()), "idle at last");
    end(w);
}
