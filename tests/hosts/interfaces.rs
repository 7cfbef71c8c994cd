//! Interfaces, addresses and routes that come and go: rows H9, and U4 and U17 where a change is real.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::steady::{Asked, ask_steadily, assert_all_answered};
use support::message::A;
use support::namespace::{Namespace, in_namespace, ip, ip_lines, while_interfaces_come_and_go};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Authority, DotServer, Proxy, Query, Setup, UdpClient};

/// A connection that falls silent is noticed after this. What is noticed at once takes a second at the
/// most, and a new connection.
const SILENCE: Duration = Duration::from_millis(1_500);

const DEBUG: [&str; 4] = ["--log-level", "debug", "--query-log", "off"];

/// Ways from here to a server.
struct Ways {
    far: Namespace,
    server: DotServer,
    authority: Authority,
}

impl Ways {
    /// A server with this address behind two links, each with a network of its own.
    fn to(address: &str) -> Self {
        let authority = Authority::new();
        let far = Namespace::new().expect("a second namespace");
        far.connect("old", &["10.1.0.1/24", "fd00:1::1/64"], &["10.1.0.2/24", "fd00:1::2/64"]);
        far.connect("new", &["10.2.0.1/24", "fd00:2::1/64"], &["10.2.0.2/24", "fd00:2::2/64"]);
        let server = far.enter(|| {
            ip(&["address", "add", "10.9.0.1/32", "dev", "lo"]);
            ip(&["address", "add", "fd00:9::1/128", "dev", "lo", "nodad"]);
            server_on(address, &authority)
        });
        Self { far, server, authority }
    }

    fn proxy(&self, other_upstreams: &[SocketAddr]) -> Proxy {
        await_neighbour(self.server.address().ip());
        let upstreams = [&[self.server.address()], other_upstreams].concat();
        Proxy::start(&arguments(&self.authority, &upstreams, &DEBUG))
    }

    fn connections(&self) -> usize {
        self.server.log().connections.len()
    }
}

fn server_on(address: &str, authority: &Authority) -> DotServer {
    let address = address.parse().expect("an address");
    DotServer::start_on(address, Setup::new(authority.identity("dot.example")))
        .expect("a free port")
}

/// Waits until this address is reached: an interface that has just come finds its neighbours of IPv6 in
/// the second attempt, after a second.
fn await_neighbour(address: IpAddr) {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a free port");
    // Nothing listens there, as its host says.
    socket.connect((address, 9)).expect("a route");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
    let deadline = Instant::now() + LIMIT;
    let refused = |error: &io::Error| error.kind() == ErrorKind::ConnectionRefused;
    while !socket.send(b"?").and_then(|_| socket.recv(&mut [0; 1])).is_err_and(|e| refused(&e)) {
        assert!(Instant::now() < deadline, "{address} is not reached");
    }
}

/// Asks twenty times a second for four seconds; after one of them, all this happens.
fn ask_around(proxy: &Proxy, change: impl Fn()) -> (Vec<Asked>, Instant) {
    let mut changed_at = None;
    let asked = ask_steadily(proxy.address(), 80, Duration::from_millis(50), |number| {
        if number == 20 {
            change();
            changed_at = Some(Instant::now());
        }
    });
    (asked, changed_at.expect("it happened"))
}

/// Everything was answered, and no query waited until silence was noticed.
#[track_caller]
fn assert_noticed_at_once(asked: &[Asked]) {
    let worst = assert_all_answered(asked);
    assert!(worst < SILENCE, "{worst:?}");
}

#[track_caller]
fn count_changes(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains("the network changed")).count()
}

#[test]
fn h09_a_failed_upstream_is_not_tried_early_while_interfaces_come_and_go() {
    in_namespace("h09_a_failed_upstream_is_not_tried_early", "", || {
        let authority = Authority::new();
        let first = DotServer::start(Setup::new(authority.identity("other.example")));
        let second = server_on("127.0.0.1:0", &authority);
        let upstreams = [first.address(), second.address()];
        let proxy = Proxy::start(&arguments(&authority, &upstreams, &DEBUG));
        let pauses = [250, 1_100, 400, 2_000].map(Duration::from_millis);
        let asked = while_interfaces_come_and_go(&pauses, || {
            ask_steadily(proxy.address(), 90, Duration::from_millis(100), |_| ())
        });
        assert_noticed_at_once(&asked);
        // After 0, 0.25, 0.75, 1.75, 3.75 and 7.75 s, a quarter sooner at the soonest.
        let attempts = first.log().connections.len();
        assert!(attempts <= 6, "{attempts} attempts in 9 s");
        assert_eq!(count_changes(&proxy.stop()), 0);
    });
}

#[test]
fn h09_connections_stay_while_interfaces_come_and_go() {
    in_namespace("h09_connections_stay_while_interfaces_come_and_go", "", || {
        for address in ["10.9.0.1:853", "[fd00:9::1]:853"] {
            let ways = Ways::to(address);
            ip(&["route", "replace", "10.9.0.1", "via", "10.1.0.2"]);
            ip(&["route", "replace", "fd00:9::1", "via", "fd00:1::2"]);
            let proxy = ways.proxy(&[]);
            let pauses = [250, 1_100].map(Duration::from_millis);
            let asked = while_interfaces_come_and_go(&pauses, || {
                ask_around(&proxy, || {
                    // What is renewed at once was never gone, and other ways are no matter.
                    ip_lines(
                        "address delete 10.1.0.1/24 dev old
                         address add 10.1.0.1/24 dev old
                         route replace 10.9.0.1 via 10.1.0.2
                         route add 10.77.0.0/16 via 10.2.0.2
                         address delete 10.2.0.1/24 dev new",
                    );
                })
            });
            assert_noticed_at_once(&asked.0);
            assert_eq!(ways.connections(), 1, "{address}");
            assert_eq!(count_changes(&proxy.stop()), 0, "{address}");
            for interface in ["old", "new"] {
                ip(&["link", "delete", "dev", interface]);
            }
        }
    });
}

#[test]
fn u04_a_route_that_moves_is_noticed_at_once() {
    in_namespace("u04_a_route_that_moves_is_noticed_at_once", "", || {
        let ways = Ways::to("10.9.0.1:853");
        ip(&["route", "add", "10.9.0.1", "via", "10.1.0.2"]);
        let proxy = ways.proxy(&[]);
        // The way changes there and back: each look sees it as it is then.
        for (count, (from, to)) in
            [("10.1.0.1", "10.2.0"), ("10.2.0.1", "10.1.0")].iter().enumerate()
        {
            let (asked, _) = ask_around(&proxy, || {
                // A VPN does so: the old address stays, but nothing comes back to it.
                ways.far.enter(|| ip(&["route", "add", "blackhole", from]));
                let way = format!("{to}.2");
                ip(&["route", "replace", "10.9.0.1", "via", &way, "src", &format!("{to}.1")]);
            });
            assert_noticed_at_once(&asked);
            assert_eq!(ways.connections(), count + 2, "one new one");
            ways.far.enter(|| ip(&["route", "delete", "blackhole", from]));
        }
        let lines = proxy.stop();
        assert_eq!(count_changes(&lines), 2, "{lines:#?}");
    });
}

#[test]
fn u17_a_route_that_goes_is_noticed_at_once() {
    for (address, gone) in [
        ("10.9.0.1:853", &["route", "delete", "10.9.0.1"][..]),
        ("10.9.0.1:853", &["route", "add", "blackhole", "10.9.0.1", "metric", "1"]),
        ("10.9.0.1:853", &["rule", "add", "to", "10.9.0.1", "prohibit"]),
        ("10.9.0.1:853", &["link", "delete", "dev", "old"]),
        ("[fd00:9::1]:853", &["-6", "rule", "add", "to", "fd00:9::1", "unreachable"]),
        ("[fd00:9::1]:853", &["link", "delete", "dev", "old"]),
    ] {
        in_namespace("u17_a_route_that_goes_is_noticed_at_once", "", || {
            let ways = Ways::to(address);
            ip(&["route", "add", "10.9.0.1", "via", "10.1.0.2", "metric", "9"]);
            ip(&["route", "add", "fd00:9::1", "via", "fd00:1::2"]);
            let second = server_on("127.0.0.1:853", &ways.authority);
            let proxy = ways.proxy(&[second.address()]);
            let (asked, gone_at) = ask_around(&proxy, || ip(gone));
            assert_noticed_at_once(&asked);
            let late = asked.iter().filter(|one| one.sent > gone_at + SILENCE).count();
            let lines = proxy.stop();
            let second = second.log().queries.len();
            assert!(second >= late, "{gone:?}: {second} of {late}, {lines:#?}");
            assert_eq!(ways.connections(), 1, "{gone:?}: {lines:#?}");
            assert!(lines.iter().any(|line| line.contains("no way there")), "{lines:#?}");
        });
    }
}

#[test]
fn u04_a_temporary_address_takes_the_place_of_another() {
    in_namespace("u04_a_temporary_address_takes_the_place_of_another", "", || {
        let ways = Ways::to("[fd00:9::1]:853");
        ip(&["route", "add", "fd00:9::1", "via", "fd00:1::2"]);
        let proxy = ways.proxy(&[]);
        let (asked, _) = ask_around(&proxy, || {
            ip(&["address", "add", "fd00:1::a/64", "dev", "old", "nodad"]);
            ip(&["address", "change", "fd00:1::1/64", "dev", "old", "preferred_lft", "0"]);
        });
        assert_noticed_at_once(&asked);
        assert_eq!(ways.connections(), 1, "the old address is ours still");
        let other = Proxy::start(&arguments(&ways.authority, &[ways.server.address()], &DEBUG));
        UdpClient::new(other.address()).ask(&Query::new("a.example", A).bytes());
        assert_eq!(ways.connections(), 2);
        other.stop();

        // Another one after that, and the one that it is connected from is gone.
        let (asked, _) = ask_around(&proxy, || {
            ip(&["address", "add", "fd00:1::b/64", "dev", "old", "nodad"]);
            ip_lines(
                "address change fd00:1::a/64 dev old preferred_lft 0
                 address delete fd00:1::1/64 dev old",
            );
        });
        assert_noticed_at_once(&asked);
        assert_eq!(ways.connections(), 3, "one new one");
        let lines = proxy.stop();
        assert_eq!(count_changes(&lines), 1, "{lines:#?}");
    });
}
