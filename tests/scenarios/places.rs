//! Connections to upstreams where there may be few, and what they may hold together.

use dot_proxy::forwarder::{Limits, Order, Policy};

use crate::experience::allowing;
use crate::limits::long_question;
use crate::sim_support::dns::{NOERROR, framed};
use crate::sim_support::{Do, Server, Step, World, default_limits, default_policy, ms};
use crate::{end, failures, numbered, slowest};

/// So many servers, and so many connections.
fn few(servers: usize, conns: usize, change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = default_limits();
    limits.upstream_conns_max = conns;
    change(&mut limits);
    World::new(limits, (0..servers).map(|_| Server::healthy()).collect(), 1)
}

/// The same, where all servers are asked alike.
fn few_alike(servers: usize, conns: usize, change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = default_limits();
    limits.upstream_conns_max = conns;
    change(&mut limits);
    let policy = Policy { order: Order::Spread, ..default_policy() };
    let operators: Vec<usize> = (0..servers).collect();
    let servers = operators.iter().map(|_| Server::healthy()).collect();
    World::with_policy(limits, policy, servers, &operators, 1)
}

/// Connections there are now.
fn connections(w: &World) -> usize {
    w.links.iter().filter(|link| link.conn.is_some()).count()
}

#[test]
fn one_that_fell_silent_makes_way() {
    let mut w = few(1, 3, |_| ());
    // The first three fall silent, after an answer more each, and each lingers for 4.5 s.
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (link @ 0..3, nth) if nth > link + 1 => Vec::new(),
        _ if ask.name.starts_with("never") => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..60 {
        w.ask(&numbered(n));
        if n % 10 == 1 {
            // While something waits on it.
            w.ask(&format!("never{n}.example."));
        }
        w.run_ms(100);
        assert!(connections(&w) <= 3, "{} connections", connections(&w));
    }
    w.run_ms(1000);
    assert!(w.forwarder.counts().made_way >= 1);
    let (at, _) = w.links[1].closed.expect("it is closed");
    assert_eq!(at, w.links[4].attempted, "the oldest, when its place was needed");
    assert_eq!(w.response(&numbered(59)).rcode, NOERROR);
    end(w);
}

#[test]
fn one_that_may_answer_does_not_make_way() {
    let mut w = few(1, 3, |_| ());
    // Each query is the last of its connection, and its answer takes long.
    w.servers[0].replies(|ask| match ask.nth {
        1 => vec![ask.answer_after(10)],
        2 => vec![ask.answer_after(800)],
        _ => Vec::new(),
    });
    // That two queries are all is learned from two connections.
    for n in 0..60 {
        w.ask(&numbered(n));
        w.run_ms(if n < 8 { 2000 } else { 150 });
        assert!(connections(&w) <= 3, "{} connections", connections(&w));
    }
    w.run_ms(5000);
    let made_way = w.forwarder.counts().made_way;
    let before = failures(&w);
    // At the pace that three connections allow, all are answered, and none is sent twice.
    for n in 100..120 {
        w.ask(&numbered(n));
        w.run_ms(1000);
    }
    w.run_ms(2000);
    assert_eq!((failures(&w), w.forwarder.counts().made_way), (before, made_way));
    for n in 100..120 {
        assert!(w.response(&numbered(n)).took() <= ms(850), "query {n}");
    }
    end(w);
}

#[test]
fn an_upstream_leaves_room_for_one_that_has_none() {
    let mut w = few(2, 3, |_| ());
    // After a quick answer a connection takes no more, and a slow one keeps it.
    w.servers[0].replies(|ask| match ask.name.as_bytes()[0] {
        b'q' => allowing(ask, 0),
        _ => vec![ask.answer_after(1000)],
    });
    for n in 0..4 {
        w.ask(&format!("slow{n}.example."));
        w.ask(&format!("quick{n}.example."));
        w.run_ms(100);
    }
    assert_eq!((w.links_to(0).len(), w.links_to(1).len()), (2, 1));
    for n in 0..4 {
        assert!(w.response(&format!("quick{n}.example.")).took() <= ms(40), "query {n}");
    }
    w.run_ms(1000);
    assert_eq!((failures(&w), w.forwarder.counts().made_way), (0, 0));
    end(w);
}

#[test]
fn an_age_that_asks_for_another_connection_finds_room() {
    // Every second query comes an hour later: the connection wants to be replaced while it serves.
    let mut w = few(1, 3, |limits| limits.upstream_idle_timeout = ms(3_600_000));
    for n in 0..70 {
        w.ask(&numbered(n));
        w.run_ms(60_000);
    }
    assert_eq!((failures(&w), w.links.len()), (0, 2));
    assert!(slowest(&w) <= ms(30), "make before break");
    end(w);
}

#[test]
fn what_answers_in_part_take_is_bounded() {
    let part = || Do::Octets([vec![0xff; 2], vec![0; 60_000]].concat());
    let mut w = few_alike(4, 12, |limits| limits.upstream_bytes_max = 150_000);
    for server in 0..4 {
        w.servers[server].replies(move |ask| match ask.name {
            "part.example." => vec![Step { after: ms(10), what: part() }],
            _ => vec![ask.answer_after(if ask.name.starts_with("slow") { 500 } else { 10 })],
        });
    }
    for n in 0..8 {
        w.ask(&numbered(n));
        w.run_ms(300);
    }
    assert_eq!(connections(&w), 4);
    for n in 0..4 {
        w.ask(&format!("slow{n}.example."));
    }
    // It takes the answer of one server after the other into pieces.
    for server in 0..4 {
        w.serve(server, part());
        w.run_ms(1);
    }
    assert_eq!(w.forwarder.counts().made_way, 2, "two may have begun");
    w.run_ms(6000);
    assert_eq!(failures(&w), 0, "what waited there was sent again");
    w.ask("later.example.");
    w.run_ms(100);
    assert_eq!(w.response("later.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn long_queries_to_servers_that_do_not_read_are_bounded() {
    let mut w = few_alike(4, 12, |limits| {
        limits.upstream_bytes_max = 200_000;
        limits.upstream_output_max = 4_096;
    });
    for n in 0..8 {
        w.ask(&numbered(n));
        w.run_ms(300);
    }
    assert_eq!(connections(&w), 4);
    for link in 0..4 {
        w.serve(link, Do::StopReading);
    }
    // One for each, as nothing more is written where so much waits.
    for n in 0..4 {
        let client = w.tcp_client();
        let query = long_question(n, &format!("long{n}.example."), 60_000);
        w.tcp_send(client, framed(&query));
        w.run_ms(10);
    }
    let unsent = w.links.iter().filter_map(|link| link.conn);
    let unsent: usize = unsent.map(|conn| w.forwarder.output(conn).len()).sum();
    assert!(unsent <= 200_000, "{unsent} octets wait");
    assert!(w.forwarder.counts().made_way >= 1);
    w.run_ms(6000);
    w.ask("later.example.");
    w.run_ms(100);
    assert_eq!(w.response("later.example.").rcode, NOERROR);
    end(w);
}
