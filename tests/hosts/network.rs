//! Networks that lose, refuse and forget: rows U4, U17 and U20 where only a network can do it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::observe::ports_connected_to;
use crate::steady::{Asked, ask_steadily, assert_all_answered};
use support::message::NOERROR;
use support::namespace::{Namespace, counted, in_namespace, ip, nft};
use support::proxy::arguments;
use support::{Authority, DotServer, Proxy, Setup};

/// After this the next upstream is asked, or a connection that says nothing is replaced. A query that
/// took as long has waited for it.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The first victim of a connection that was forgotten is answered in less; `PATIENCE` and a new
/// connection.
const FORGOTTEN_MAX: Duration = Duration::from_millis(2_500);

const FILTER: &str = "table inet faults { chain input { type filter hook input priority 0; }; }";

fn server_on(address: &str, authority: &Authority) -> DotServer {
    let address = address.parse().expect("an address");
    DotServer::start_on(address, Setup::new(authority.identity("dot.example")))
        .expect("a free port")
}

/// Answered as if nothing was wrong.
#[track_caller]
fn assert_at_once(asked: &[Asked]) {
    let worst = assert_all_answered(asked);
    assert!(worst < PATIENCE, "{worst:?} is not at once");
}

#[test]
fn u17_syn_black_hole() {
    let rules = "table inet faults { chain input {
        type filter hook input priority 0; ip daddr 10.0.0.1 drop; }; }";
    in_namespace("u17_syn_black_hole", rules, || {
        ip(&["address", "add", "10.0.0.1/32", "dev", "lo"]);
        let authority = Authority::new();
        let second = server_on("127.0.0.1:853", &authority);
        let upstreams = [SocketAddr::from(([10, 0, 0, 1], 853)), second.address()];
        let proxy = Proxy::start(&arguments(&authority, &upstreams, &[]));
        let first = ask_steadily(proxy.address(), 1, PATIENCE, |_| ());
        let delay = assert_all_answered(&first);
        assert!(delay < FORGOTTEN_MAX, "{delay:?}");
        // Attempts at the first go on meanwhile, at nobody's cost.
        assert_at_once(&ask_steadily(proxy.address(), 100, Duration::from_millis(50), |_| ()));
        assert_eq!(second.log().queries.len(), 101);
    });
}

#[test]
fn u17_network_unreachable_ipv6_broken() {
    in_namespace("u17_network_unreachable_ipv6_broken", "", || {
        let authority = Authority::new();
        let second = server_on("127.0.0.1:853", &authority);
        let broken = "[fd00:1::1]:853".parse().expect("an address");
        let proxy = Proxy::start(&arguments(&authority, &[broken, second.address()], &[]));
        assert_at_once(&ask_steadily(proxy.address(), 20, Duration::from_millis(50), |_| ()));
        proxy.await_line("line about the first", |line| {
            line.contains("[fd00:1::1]#dot.example: not usable") && line.contains("unreachable")
        });
    });
}

#[test]
fn u04_forgotten_by_nat() {
    in_namespace("u04_forgotten_by_nat", FILTER, || {
        let authority = Authority::new();
        let server = server_on("127.0.0.1:853", &authority);
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &[]));
        let mut forgotten_at = None;
        let asked = ask_steadily(proxy.address(), 100, Duration::from_millis(50), |number| {
            if number == 20 {
                let ports = ports_connected_to(proxy.pid(), server.address());
                let [port] = ports[..] else { panic!("one connection, not {ports:?}") };
                nft(&format!(
                    "add rule inet faults input tcp sport {port} tcp dport 853 drop
                     add rule inet faults input tcp sport 853 tcp dport {port} drop"
                ));
                forgotten_at = Some(Instant::now());
            }
        });
        assert_replaced_once(&asked, forgotten_at, &server);
    });
}

#[test]
fn u04_route_change() {
    in_namespace("u04_route_change", "", || {
        let authority = Authority::new();
        let far = Namespace::new().expect("a second namespace");
        far.connect("old", &["10.1.0.1/24"], &["10.1.0.2/24"]);
        far.connect("new", &["10.2.0.1/24"], &["10.2.0.2/24"]);
        let server = far.enter(|| {
            ip(&["address", "add", "10.9.0.1/32", "dev", "lo"]);
            server_on("10.9.0.1:853", &authority)
        });
        ip(&["route", "add", "10.9.0.1", "via", "10.1.0.2"]);
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &[]));
        let mut changed_at = None;
        let asked = ask_steadily(proxy.address(), 100, Duration::from_millis(50), |number| {
            if number == 20 {
                // Another way, and another address of ours: no packet of the old connection comes back.
                ip(&["route", "replace", "10.9.0.1", "via", "10.2.0.2"]);
                ip(&["address", "delete", "10.1.0.1/24", "dev", "old"]);
                changed_at = Some(Instant::now());
            }
        });
        assert_replaced_once(&asked, changed_at, &server);
    });
}

/// The connection was dead from then on: everything was answered, the first victim in time, what was
/// asked after its answer at once, and over one new connection.
#[track_caller]
fn assert_replaced_once(asked: &[Asked], dead_at: Option<Instant>, server: &DotServer) {
    let dead_at = dead_at.expect("it happened");
    let worst = assert_all_answered(asked);
    assert!(worst < FORGOTTEN_MAX, "{worst:?}");
    let victims = asked.iter().filter(|one| one.sent >= dead_at);
    let replaced = victims.map(Asked::answered).min().expect("victims");
    let later: Vec<_> = asked.iter().filter(|one| one.sent > replaced).copied().collect();
    assert!(later.len() > 20, "too few to tell: {}", later.len());
    assert_at_once(&later);
    assert_eq!(server.log().connections.len(), 2);
}

#[test]
fn u04_one_packet_in_a_hundred_is_lost() {
    // Both ways between the proxy and its upstream, the first packets of a connection too.
    let rules = "table inet faults { chain input {
        type filter hook input priority 0;
        tcp dport 853 numgen random mod 100 == 0 counter drop
        tcp sport 853 numgen random mod 100 == 0 counter drop; }; }";
    in_namespace("u04_one_packet_in_a_hundred_is_lost", rules, || {
        let authority = Authority::new();
        let server = server_on("127.0.0.1:853", &authority);
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &[]));
        let pace = Duration::from_millis(4);
        assert_all_answered(&ask_steadily(proxy.address(), 1_000, pace, |_| ()));
        assert!(counted() > 0, "nothing was lost on the way");
    });
}

#[test]
fn u20_a_route_that_comes_back() {
    in_namespace("u20_a_route_that_comes_back", "", || {
        let authority = Authority::new();
        let far = Namespace::new().expect("a second namespace");
        far.connect("old", &["10.1.0.1/24"], &["10.1.0.2/24"]);
        let server = far.enter(|| {
            ip(&["address", "add", "10.9.0.1/32", "dev", "lo"]);
            server_on("10.9.0.1:853", &authority)
        });
        let proxy =
            Proxy::start(&arguments(&authority, &[server.address()], &["--query-log", "off"]));
        let mut back_at = None;
        let asked = ask_steadily(proxy.address(), 120, Duration::from_millis(100), |number| {
            if number == 60 {
                ip(&["route", "add", "10.9.0.1", "via", "10.1.0.2"]);
                back_at = Some(Instant::now());
            }
        });
        let back_at = back_at.expect("it happened");
        let answered = asked.iter().filter(|one| one.rcode == NOERROR);
        let first = answered.map(Asked::answered).min().expect("answers");
        let took = first.saturating_duration_since(back_at);
        assert!(took < Duration::from_secs(5), "{took:?} after the return");
        assert!(asked.iter().filter(|one| one.sent > first).all(|one| one.rcode == NOERROR));
        let lines = proxy.stop();
        assert!(lines.len() <= 12, "{lines:#?}");
    });
}

#[test]
fn u17_a_route_that_comes_ends_the_backoff() {
    in_namespace("u17_a_route_that_comes_ends_the_backoff", "", || {
        let authority = Authority::new();
        let far = Namespace::new().expect("a second namespace");
        // No address of its own comes on the interface later.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("root may");
        far.connect("new", &["10.1.0.1/24"], &["10.1.0.2/24"]);
        let first = far.enter(|| {
            ip(&["address", "add", "10.9.0.1/32", "dev", "lo"]);
            server_on("10.9.0.1:853", &authority)
        });
        let second = server_on("127.0.0.1:853", &authority);
        let upstreams = [first.address(), second.address()];
        let proxy = Proxy::start(&arguments(&authority, &upstreams, &["--log-level", "debug"]));
        // Attempts after 0, 0.25, 0.75 and 1.75 s, about; the next has its time after 3 s at the least.
        assert_at_once(&ask_steadily(proxy.address(), 20, Duration::from_millis(100), |_| ()));
        assert_eq!(first.log().connections.len(), 0);

        ip(&["route", "add", "10.9.0.1", "via", "10.1.0.2"]);
        proxy.await_line("line about the route", |line| line.contains("the network changed"));
        // One query, which does not wait for it, causes the attempt.
        assert_at_once(&ask_steadily(proxy.address(), 1, PATIENCE, |_| ()));
        first.await_log("the connection", |log| log.connections.len() == 1);
        proxy.await_line("line about the first", |line| line.contains("usable again"));
        assert_at_once(&ask_steadily(proxy.address(), 1, PATIENCE, |_| ()));
        assert_eq!((first.log().queries.len(), second.log().queries.len()), (1, 21));
    });
}
