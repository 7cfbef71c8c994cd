//! What a connection to an upstream carries, and how many there may be.

use std::collections::HashMap;
use std::time::Duration;

use dot_proxy::forwarder::{Limits, Notice, Order, Policy};

use crate::{
    allowing, ask_with_sig0, end, failures, long_question, numbered, slowest, warm, with_limits,
    world,
};
use simulator::dns::{NOERROR, framed};
use simulator::{
    Attempt, Do, Response, Server, Step, What, World, default_limits, default_policy, dns, ms,
};

/// Answers the first `answers` queries of each connection and is deaf from then on.
fn deaf_after(answers: usize) -> World {
    let mut w = world(1);
    w.servers[0].replies(
        move |ask| {
            if ask.nth <= answers { vec![ask.answer_after(10)] } else { Vec::new() }
        },
    );
    w
}

fn ask_steadily(w: &mut World, queries: u32, pause: u64) {
    let first = w.oracle.responses.len() as u32;
    for n in first..first + queries {
        w.ask(&numbered(n));
        w.run_ms(pause);
    }
    w.run_ms(4500);
}

/// Slower than a stall.
fn delayed(w: &World, from: Duration) -> usize {
    let late = w.oracle.responses.iter().filter(|response| response.asked >= from);
    late.filter(|response| response.took() >= ms(1000)).count()
}

#[test]
fn u08_answers_only_the_first_query_of_a_connection() {
    let mut w = deaf_after(1);
    // The first is suspected, and the second, ten seconds later, proves it.
    ask_steadily(&mut w, 80, 200);
    let learned = w.at();
    let before = failures(&w);
    ask_steadily(&mut w, 300, 200);
    assert_eq!(failures(&w), before, "afterwards every query is answered");
    assert_eq!(delayed(&w, learned), 0);
    end(w);
}

#[test]
fn names_that_are_slow_together_once_are_no_limit_for_long() {
    let mut w = world(1);
    let mut asked = std::collections::HashSet::new();
    w.servers[0].replies(move |ask| {
        let is_slow = ask.name.starts_with("slow") && asked.insert(ask.name.to_owned());
        vec![ask.answer_after(if is_slow { 3000 } else { 10 })]
    });
    w.ask("first.example.");
    w.run_ms(100);
    for n in 0..7 {
        w.ask(&format!("slow{n}.example."));
        w.run_ms(30);
    }
    w.run_ms(12_000);
    let before = w.links.len();
    ask_steadily(&mut w, 300, 20);
    assert_eq!(failures(&w), 0);
    assert!(w.links.len() <= before + 1, "{} connections", w.links.len() - before);
    end(w);
}

#[test]
fn u08_nothing_is_lost_while_the_limit_is_learned() {
    for answers in [1, 2, 5] {
        let mut w = deaf_after(answers);
        ask_steadily(&mut w, 40, 250);
        assert_eq!(failures(&w), 0, "{answers}");
        // A stall, and another one for what was sent beside the copy that told.
        assert!(slowest(&w) <= ms(1600), "{answers}: {:?}", slowest(&w));
        end(w);
    }
}

#[test]
fn u08_answers_the_first_five_queries_of_a_connection() {
    let mut w = deaf_after(5);
    ask_steadily(&mut w, 160, 100);
    let learned = w.at();
    let before = failures(&w);
    ask_steadily(&mut w, 600, 100);
    assert_eq!(failures(&w), before);
    assert_eq!(delayed(&w, learned), 0);
    end(w);
}

#[test]
fn u08_a_burst_gets_several_connections_but_not_one_each() {
    let mut w = deaf_after(1);
    ask_steadily(&mut w, 80, 200);
    let links = w.links.len();
    let before = failures(&w);
    for n in 1000..1100 {
        w.ask(&numbered(n));
    }
    let mut most = 0;
    for _ in 0..450 {
        w.run_ms(10);
        let open = w.links[links - 1..].iter().filter(|link| link.conn.is_some()).count();
        most = most.max(open);
    }
    // Eight that work, and what is left of as many that fell silent.
    assert!((4..=16).contains(&most), "{most} connections at a time");
    assert_eq!(failures(&w), before);
    end(w);
}

#[test]
fn u08_a_limit_is_forgotten_after_ten_minutes() {
    let mut w = deaf_after(2);
    ask_steadily(&mut w, 40, 200);
    w.servers[0].replies(|ask| vec![ask.answer_after(10)]);
    w.run_ms(600_000);
    let links = w.links.len();
    ask_steadily(&mut w, 200, 50);
    assert_eq!(w.links.len(), links + 1, "one connection carries everything");
    end(w);
}

#[test]
fn u08_a_slow_name_now_and_then_teaches_nothing() {
    let mut w = world(1);
    w.servers[0].replies(crate::slow_name);
    for n in 0..10 {
        ask_steadily(&mut w, 20 + n, 50);
        w.ask("slow.example.");
        w.run_ms(4000);
    }
    let links = w.links.len();
    ask_steadily(&mut w, 200, 20);
    assert!(w.links.len() <= links + 1, "one connection carries everything");
    assert_eq!(failures(&w), 0);
    end(w);
}

/// What two connections in a row leave unanswered says nothing of connections: whether nobody ever answers
/// it, or somebody who answers what was asked again first, and the first copy a moment later.
#[test]
fn u08_slow_names_of_one_client_teach_nothing_and_cost_others_nothing() {
    for (servers, slow) in [(1, None), (2, None), (1, Some(2000))] {
        let mut w = world(servers);
        for server in &mut w.servers {
            let mut first_asked = HashMap::new();
            server.replies(move |ask| match slow {
                _ if !ask.name.starts_with("slow") => vec![ask.answer_after(10)],
                Some(slow) => match first_asked.insert(ask.name.to_owned(), ask.at) {
                    None => vec![ask.answer_after(slow + 5)],
                    Some(first) => {
                        let left = (first + ms(slow)).saturating_sub(ask.at);
                        vec![ask.answer_after(left.as_millis() as u64)]
                    }
                },
                None => Vec::new(),
            });
        }
        w.ask("warm.example.");
        for n in 0..600 {
            w.ask(&format!("slow{n}.example."));
            // Now and then the connection is quiet for longer than a stall, and later not any more.
            if n > 200 || n % 19 == 0 {
                w.ask(&numbered(n));
            }
            w.run_ms(100);
        }
        w.run_ms(5000);
        let others = w.oracle.responses.iter().filter(|response| response.name.starts_with('n'));
        let late = others.filter(|response| response.rcode != NOERROR || response.took() > ms(100));
        assert_eq!(late.count(), 0, "{servers} {slow:?}: {:?}", w.notices);
        assert!(w.links.len() <= 40, "{servers} {slow:?}: {} connections", w.links.len());
        let is_silence = |notice: &Notice| matches!(notice, Notice::UpstreamFailed { detail, .. } if detail.contains("silent"));
        assert!(
            !w.notices.iter().any(|(_, notice)| is_silence(notice)),
            "{servers} {slow:?}: {:?}",
            w.notices
        );
        end(w);
    }
}

/// Has the server work for so long on each query of a connection, one at a time.
fn in_turn(w: &mut World, server: usize, each: u64) {
    let mut busy_until = HashMap::new();
    w.servers[server].replies(move |ask| {
        let until = busy_until.entry(ask.link).or_default();
        *until = ask.at.max(*until) + ms(each);
        vec![ask.answer_after((*until - ask.at).as_millis() as u64)]
    });
}

/// Asks so many at once; returns how many were answered of them.
fn burst(w: &mut World, queries: u32) -> usize {
    let first = w.oracle.responses.len();
    for n in 0..queries {
        w.ask(&numbered(first as u32 + n));
    }
    w.run_ms(6000);
    w.oracle.responses[first..].iter().filter(|response| response.rcode == NOERROR).count()
}

#[test]
fn u27_bursts_are_spread_over_connections() {
    for each in [50, 150, 250, 400] {
        let mut w = world(1);
        in_turn(&mut w, 0, each);
        let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 40)).collect();
        assert_eq!(answered, [40; 5], "{each} ms each");
        assert!(w.links.len() <= 20, "{} connections", w.links.len());
        w.run_ms(16_000);
        let open = w.links.iter().filter(|link| link.conn.is_some()).count();
        assert_eq!(open, 0, "connections that idle");
        assert_eq!(w.notices.len(), 1, "{:?}", w.notices);
        assert!(matches!(&w.notices[0].1, Notice::UpstreamInTurn { .. }));
        end(w);
    }
}

#[test]
fn u27_another_upstream_gets_what_one_cannot_answer_in_time() {
    let mut w = world(2);
    in_turn(&mut w, 0, 150);
    let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 40)).collect();
    assert_eq!(answered, [40; 5]);
    assert!(slowest(&w) <= ms(1800), "{:?}", slowest(&w));
    let later = w.oracle.responses[40..].iter().map(Response::took).max();
    assert!(later <= Some(ms(1500)), "{later:?}");
    // What it can answer in time is still asked of the first.
    let asked = w.links_to(0).iter().map(|link| link.seen.len()).sum::<usize>();
    assert!(asked >= 40 + 4 * 4, "{asked}");
    assert!(w.links_to(0).len() <= 12, "{} connections", w.links_to(0).len());
    end(w);
}

#[test]
fn u27_a_steady_load_that_one_connection_cannot_bear_is_borne_by_several() {
    let mut w = world(1);
    in_turn(&mut w, 0, 150);
    for n in 0..600 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    w.run_ms(5000);
    assert!(failures(&w) <= 2, "{} of 600 failed", failures(&w));
    let late = w.oracle.responses[100..].iter().filter(|response| response.took() > ms(2000));
    assert_eq!(late.count(), 0);
    end(w);
}

#[test]
fn u27_where_few_connections_may_be_they_carry_what_they_can() {
    let mut limits = default_limits();
    limits.upstream_conns_max = 3;
    let mut w = World::new(limits, vec![Server::healthy()], 1);
    in_turn(&mut w, 0, 150);
    let answered: Vec<_> = (0..5).map(|_| burst(&mut w, 120)).collect();
    assert!(answered[1..].iter().all(|answered| *answered >= 40), "{answered:?}");
    assert!(slowest(&w) <= ms(4500));
    end(w);
}

#[test]
fn u27_a_server_that_works_on_all_at_once_keeps_its_one_connection() {
    let mut w = world(1);
    // Names that take from nothing to 3 s, among them all those of a burst.
    w.servers[0].replies(|ask| {
        let hash = ask.name.bytes().fold(7_u64, |hash, octet| hash * 31 % 1009 + u64::from(octet));
        vec![ask.answer_after(10 + hash * hash % 3000)]
    });
    for _ in 0..10 {
        assert_eq!(burst(&mut w, 40), 40);
    }
    assert_eq!((w.links.len(), w.notices.len()), (1, 0), "{:?}", w.notices);
    end(w);
}

#[test]
fn u27_what_was_learned_is_forgotten_when_it_no_longer_holds() {
    let mut w = world(1);
    in_turn(&mut w, 0, 150);
    assert_eq!((burst(&mut w, 40), burst(&mut w, 40)), (40, 40));
    w.servers[0].replies(|ask| vec![ask.answer_after(200 - ask.nth as u64 % 100)]);
    burst(&mut w, 40);
    // Connections that are there are used; once they have idled for too long, one is enough.
    w.run_ms(20_000);
    let links = w.links.len();
    burst(&mut w, 40);
    assert!(w.links.len() <= links + 1, "{} more connections", w.links.len() - links);
    end(w);
}

#[test]
fn u27_nobody_waits_behind_what_has_expired() {
    let mut w = world(1);
    let mut busy_until = HashMap::new();
    w.servers[0].replies(move |ask| {
        // Nothing is worked on for the first 6 s, and all of it afterwards.
        let until = busy_until.entry(ask.link).or_insert(ms(6000));
        *until = ask.at.max(*until) + ms(150);
        vec![ask.answer_after((*until - ask.at).as_millis() as u64)]
    });
    assert_eq!(burst(&mut w, 40), 0);
    assert_eq!((burst(&mut w, 40), burst(&mut w, 40)), (40, 40));
    end(w);
}

#[test]
fn u27_a_connection_serves_query_after_query_however_long_each_takes() {
    // At most one at a time, and two.
    for each in [400, 600, 1200] {
        let mut w = world(1);
        in_turn(&mut w, 0, each);
        burst(&mut w, 12);
        w.run_ms(5000);
        assert_eq!(w.notices.len(), 1, "{each} ms each: {:?}", w.notices);
        let (links, failed) = (w.links.len(), failures(&w));
        for n in 100..150 {
            w.ask(&numbered(n));
            w.run_ms(5000);
            assert_eq!(w.response(&numbered(n)).rcode, NOERROR);
        }
        assert!(w.links.len() <= links + 1, "{} more for 50 queries", w.links.len() - links);
        // More than it bears, all the time: what is open is used again.
        let links = w.links.len();
        for n in 200..400 {
            w.ask(&numbered(n));
            w.run_ms(each / 3);
        }
        w.run_ms(5000);
        assert_eq!(failures(&w), failed, "{each} ms each");
        assert!(w.links.len() <= links + 8, "{} more for 200 queries", w.links.len() - links);
        end(w);
    }
}

#[test]
fn u27_a_server_that_takes_one_connection_is_asked_in_turn_on_that() {
    let mut w = world(1);
    in_turn(&mut w, 0, 400);
    burst(&mut w, 12);
    w.run_ms(5000);
    let failed = failures(&w);
    w.ask("a.example.");
    w.run_ms(500);
    w.servers[0].attempts(Attempt::refused());
    let links = w.links.len();
    for n in 0..4 {
        for m in 0..5 {
            w.ask(&format!("b{n}-{m}.example."));
            w.run_ms(20);
        }
        w.run_ms(4900);
    }
    assert_eq!((failures(&w), w.notices.len()), (failed, 1), "{:?}", w.notices);
    assert!(w.links.len() <= links + 4 * 3, "{} attempts", w.links.len() - links);
    end(w);
}

/// Twenty IDs of the only connection belong to queries that nobody waits for, and another is refused.
fn with_a_worn_connection() -> World {
    let mut w = with_limits(|limits| limits.queries_max = 64);
    w.servers[0].replies(|ask| {
        if ask.name.starts_with("lost") { Vec::new() } else { vec![ask.answer_after(10)] }
    });
    let client = w.tcp_client();
    for n in 0..20 {
        let lost = dns::query(n, &format!("lost{n}.example."), dns::A, None);
        w.tcp_send(client, framed(&lost));
    }
    w.run_ms(100);
    w.servers[0].attempts(Attempt::refused());
    w.schedule(Duration::ZERO, What::ClientResets { client });
    w
}

#[test]
fn a_worn_connection_whose_replacement_is_refused_serves_on_and_causes_no_storm() {
    let mut w = with_a_worn_connection();
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
    assert_eq!(w.notices, []);
    end(w);
}

#[test]
fn a_worn_connection_is_replaced_when_the_network_changes_whatever_was_refused_before() {
    let mut w = with_a_worn_connection();
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
            w.tcp_send(client, framed(&lost));
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
fn message_ids_out_of_the_ordinary_that_were_all_given_up_are_to_be_had_on_the_next_connection() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| match ask.name {
        name if name.starts_with("lost") => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..16 {
        ask_with_sig0(&mut w, &format!("lost{n}.example."), 60_000 + n);
    }
    for n in 0..100 {
        w.ask(&numbered(n));
        w.run_ms(50);
    }
    ask_with_sig0(&mut w, "other.example.", 61_000);
    w.run_ms(4500);
    let other = w.response("other.example.");
    assert_eq!((other.rcode, w.links.len()), (NOERROR, 2), "{:?}", other.took());
    end(w);
}

#[test]
fn how_often_connections_were_replaced_is_forgotten_when_the_network_changes() {
    for change in [What::Resume, What::NetworkChange { server: 0, lost: true }] {
        let mut w = warm(1);
        w.servers[0].replies(|ask| match ask.name {
            name if name.starts_with("lost") => Vec::new(),
            _ => vec![ask.answer_after(10)],
        });
        let mut asked = 0;
        let mut lose_one = |w: &mut World| {
            ask_with_sig0(w, &format!("lost{asked}.example."), 5000);
            for _ in 0..100 {
                w.ask(&numbered(asked));
                asked += 1;
                w.run_ms(46);
            }
        };
        // Each causes a replacement; the pause before another is 16 s then.
        for n in 0..4 {
            lose_one(&mut w);
            ask_with_sig0(&mut w, &format!("late{n}.example."), 5000);
            w.run_ms(if n < 3 { 100 } else { 4000 });
        }
        w.schedule(ms(0), change);
        lose_one(&mut w);
        ask_with_sig0(&mut w, "a.example.", 5000);
        w.run_ms(100);
        assert_eq!(w.response("a.example.").took(), ms(30));
        end(w);
    }
}

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
    let mut w = few(1, 2, |_| ());
    // The first two fall silent, the second after more answers, and each lingers for 4.5 s.
    w.servers[0].replies(|ask| match (ask.link, ask.nth) {
        (link @ 0..2, nth) if nth > [20, 23][link] => Vec::new(),
        _ if ask.name.starts_with("never") => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for n in 0..120 {
        w.ask(&numbered(n));
        if n % 10 == 1 {
            // While something waits on it.
            w.ask(&format!("never{n}.example."));
        }
        w.run_ms(100);
        assert!(connections(&w) <= 2, "{} connections", connections(&w));
    }
    w.run_ms(1000);
    assert_eq!(w.forwarder.counts().made_way, 1);
    let (at, _) = w.links[0].closed.expect("it is closed");
    assert_eq!(at, w.links[2].attempted, "the oldest, when its place was needed");
    assert_eq!(w.response(&numbered(119)).rcode, NOERROR);
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
    // Two connections teach that two queries are all.
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
    // The answer of one server after the other comes in pieces.
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
    let unsent: usize = unsent.map(|conn| w.forwarder.output(conn.into()).len()).sum();
    assert!(unsent <= 200_000, "{unsent} octets wait");
    assert!(w.forwarder.counts().made_way >= 1);
    w.run_ms(6000);
    w.ask("later.example.");
    w.run_ms(100);
    assert_eq!(w.response("later.example.").rcode, NOERROR);
    end(w);
}
