//! Who may ask, by their source addresses.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use support::message::{A, NOERROR, REFUSED, with_id};
use support::namespace::{Namespace, in_namespace, ip, ip_lines};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, TcpClient};

/// INFO-CODE of RFC 8914 section 4.19.
const PROHIBITED: u16 = 18;

/// A host with several networks, and another one in all of them, where clients are.
struct Networks {
    clients: Namespace,
    authority: Authority,
    server: DotServer,
}

impl Networks {
    fn new() -> Self {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let clients = Namespace::new().expect("a second namespace");
        let near = ["10.0.0.1/24", "203.0.113.1/24", "2001:db8::1/64"];
        clients.connect("link", &near, &["10.0.0.9/24"]);
        clients.enter(|| {
            ip_lines(
                "address add 203.0.113.9/24 dev link
                 address add 203.0.113.10/24 dev link
                 address add 2001:db8::9/64 dev link nodad
                 address add 2001:db8::a/64 dev link nodad",
            );
        });
        Self { clients, authority, server }
    }

    fn proxy(&self, flags: &[&str]) -> Proxy {
        let listeners = ["--listen", "0.0.0.0:5300", "--listen", "[::]:5300"];
        let flags = [&listeners, flags].concat();
        Proxy::start(&arguments(&self.authority, &[self.server.address()], &flags))
    }

    /// Asks from all these addresses, over UDP and TCP; no others than `served` get an answer.
    #[track_caller]
    fn assert_served(&self, served: &[&str], others: &[&str]) {
        self.clients.enter(|| {
            let others: Vec<_> = others.iter().map(|source| (*source, ask(source))).collect();
            // Datagrams are read in the order in which they came.
            for source in served {
                assert_eq!(answer(&ask(source)).rcode, NOERROR, "{source}");
                let response = tcp_client(source).ask(&query());
                assert_eq!(Response::read(&response).rcode, NOERROR, "{source}");
            }
            for (source, socket) in others {
                socket.set_nonblocking(true).expect("a socket");
                let nothing = socket.recv(&mut [0; 512]).expect_err(source);
                assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{source}");
                assert!(tcp_client(source).try_receive().is_err(), "{source} may stay connected");
            }
        });
    }
}

fn query() -> Vec<u8> {
    Query::new("a.example", A).opt(1232).bytes()
}

/// The address of the proxy in the network of a client.
fn near(source: &str) -> SocketAddr {
    let near = match source {
        "10.0.0.9" => "10.0.0.1",
        "::ffff:203.0.113.9" => "::ffff:203.0.113.1",
        _ if source.contains(':') => "2001:db8::1",
        _ => "203.0.113.1",
    };
    (near.parse::<IpAddr>().expect("an address"), 5300).into()
}

fn ask(source: &str) -> UdpSocket {
    let source: IpAddr = source.parse().expect("an address");
    let socket = UdpSocket::bind((source, 0)).expect("an address of this host");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    socket.send_to(&query(), near(&source.to_string())).expect("a route");
    socket
}

#[track_caller]
fn answer(socket: &UdpSocket) -> Response {
    let mut octets = [0; 512];
    let len = socket.recv(&mut octets).expect("an answer");
    Response::read(&octets[..len])
}

fn tcp_client(source: &str) -> TcpClient {
    let server = near(source);
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
    let source: IpAddr = source.parse().expect("an address");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this host");
    socket.connect(&server.into()).expect("a listener");
    TcpClient::of(socket.into())
}

#[test]
fn networks_are_served_that_are_allowed_and_not_denied() {
    in_namespace("networks_are_served_that_are_allowed_and_not_denied", "", || {
        let networks = Networks::new();
        let private = "10.0.0.9";
        let public = ["203.0.113.9", "203.0.113.10", "2001:db8::9", "2001:db8::a"];
        let proxy = networks.proxy(&[]);
        networks.assert_served(&[private], &public);
        let lines = proxy.stop();
        let says = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
        assert!(says(&lines, "served are loopback, private, shared"), "{lines:#?}");
        assert!(says(&lines, "WARN") && says(&lines, "--allow local"), "{lines:#?}");

        // An IPv4 network, written as IPv6 has it.
        let allowed = ["--allow", "::ffff:203.0.113.0/120", "--allow", "2001:db8::/32"];
        let denied = ["--deny", "203.0.113.8/30", "--allow", "203.0.113.9", "--deny=2001:db8::a"];
        let proxy = networks.proxy(&[&allowed[..], &denied].concat());
        let served = ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::9"];
        networks.assert_served(&served, &[private, "203.0.113.10", "2001:db8::a"]);
        let lines = proxy.stop();
        let text = "served are 203.0.113.0/24, 2001:db8::/32, 203.0.113.9/32, 127.0.0.0/8, ::1/128, but not \
                    203.0.113.8/30, 2001:db8::a/128";
        assert!(says(&lines, text), "{lines:#?}");

        let proxy = networks.proxy(&["--deny", "10.0.0.0/8", "--allow", "0.0.0.0/0"]);
        networks.assert_served(&public[..2], &[private, "2001:db8::9"]);
        assert!(says(&proxy.stop(), "WARN  [dot_proxy] --allow 0.0.0.0/0 without --rate-limit: "));

        let proxy = networks.proxy(&["--allow", "0.0.0.0/0", "--rate-limit", "off"]);
        assert!(says(&proxy.stop(), "WARN  [dot_proxy] --allow 0.0.0.0/0 with --rate-limit off: "));
        let proxy = networks.proxy(&["--deny", "0.0.0.0/0"]);
        networks.assert_served(&[private], &public);
        let lines = proxy.stop();
        assert!(says(&lines, "--deny 0.0.0.0/0: takes nothing away"), "{lines:#?}");
        assert!(says(&lines, ": give --allow default with --allow "), "{lines:#?}");
        let proxy = networks.proxy(&["--allow", "203.0.113.0/24", "--deny", "203.0.113.8/30"]);
        networks.assert_served(&[], &public[..2]);
        let lines = proxy.stop();
        let denied = ": it is in --deny 203.0.113.8/30; --allow 203.0.113.9/32 serves it";
        assert!(says(&lines, denied), "{lines:#?}");
        let besides = ["--allow", "default", "--allow", "203.0.113.9/32"];
        let proxy = networks.proxy(&besides);
        networks.assert_served(&[private, public[0]], &public[1..]);
        drop(proxy);
    });
}

#[test]
fn who_is_not_served_may_be_told_so() {
    in_namespace("who_is_not_served_may_be_told_so", "", || {
        let networks = Networks::new();
        let proxy = networks.proxy(&["--deny", "10.0.0.9", "--refuse-denied", "refused"]);
        networks.clients.enter(|| {
            for source in ["10.0.0.9", "203.0.113.9", "2001:db8::9"] {
                let response = answer(&ask(source));
                let errors = response.opt.map(|opt| opt.errors).unwrap_or_default();
                assert_eq!((response.rcode, errors), (REFUSED, vec![(PROHIBITED, String::new())]));
                assert!(tcp_client(source).try_receive().is_err(), "{source} may stay connected");
            }
        });
        assert_eq!(networks.server.log().queries_for("a.example"), 0);
        proxy.stop();
    });
}

#[test]
fn networks_of_interfaces_are_served_while_they_are_there() {
    in_namespace("networks_of_interfaces_are_served_while_they_are_there", "", || {
        let networks = Networks::new();
        let proxy = networks.proxy(&["--allow", "local", "--deny", "203.0.113.10"]);
        let [v4, v6] = ["203.0.113.9", "2001:db8::9"];
        networks.assert_served(&["10.0.0.9", v4, v6], &["203.0.113.10"]);
        let change = |lines: &str, network: &str| {
            ip_lines(lines);
            let is_it = |line: &str| line.contains("--allow local: ") && line.contains(network);
            proxy.await_line("the networks as they are now", is_it);
        };
        // The addresses here stay reachable, but the networks behind them are other ones.
        change(
            "address delete 203.0.113.1/24 dev link
             address add 203.0.113.1/32 dev link
             route add 203.0.113.0/24 dev link",
            "203.0.113.1/32",
        );
        networks.assert_served(&["10.0.0.9", v6], &[v4]);
        change(
            "address delete 203.0.113.1/32 dev link
             address delete 2001:db8::1/64 dev link
             address add 203.0.113.1/25 dev link
             address add 2001:db8::1/128 dev link nodad
             route add 2001:db8::/64 dev link",
            "203.0.113.0/25, 2001:db8::1/128",
        );
        networks.assert_served(&[v4], &[v6]);
        let lines = proxy.stop();
        let text = "served are 127.0.0.0/8, ::1/128, the networks of this host's interfaces, but not \
                    203.0.113.10/32";
        assert!(lines.iter().any(|line| line.contains(text)), "{lines:#?}");
        ip(&["link", "delete", "dev", "link"]);
    });
}

#[test]
fn above_its_rate_a_client_is_told_to_use_tcp_where_it_is_answered() {
    in_namespace("above_its_rate_a_client_is_told_to_use_tcp_where_it_is_answered", "", || {
        let networks = Networks::new();
        let flags =
            ["--allow", "0.0.0.0/0", "--rate-limit", "1/10", "--rate-exempt", "10.0.0.0/24"];
        let proxy = networks.proxy(&flags);
        networks.clients.enter(|| {
            let started = Instant::now();
            let socket = ask("203.0.113.9");
            for id in 1..30 {
                let query = with_id(&query(), id);
                socket.send_to(&query, near("203.0.113.9")).expect("a route");
            }
            // Ten at once and one a second are answered; of the others every second one is not.
            let mut truncated = 0;
            let mut whole = 0;
            while whole + 2 * truncated < 30 {
                let response = answer(&socket);
                assert_eq!(response.rcode, NOERROR);
                *if response.is_truncated() { &mut truncated } else { &mut whole } += 1;
            }
            let seconds = started.elapsed().as_secs() as usize + 1;
            assert!((10..=10 + seconds).contains(&whole), "{whole} and {truncated} in {seconds} s");

            let mut client = tcp_client("203.0.113.9");
            for _ in 0..12 {
                client.send(&query());
            }
            for _ in 0..12 {
                assert_eq!(Response::read(&client.receive()).rcode, NOERROR);
            }
            // Another of that network prefix has its own, and one is exempt.
            for source in ["203.0.113.10", "10.0.0.9"] {
                assert_eq!(answer(&ask(source)).rcode, NOERROR);
            }
            let sockets: Vec<_> = (0..30).map(|_| ask("10.0.0.9")).collect();
            assert!(sockets.iter().all(|socket| !answer(socket).is_truncated()));
        });
        let lines = proxy.stop();
        for transport in ["UDP", "TCP"] {
            let text = format!("203.0.113.9/32 asks more over {transport} than 1 queries a second");
            let named = lines.iter().filter(|line| line.contains(&text)).count();
            assert!(named <= 1, "{lines:#?}");
        }
        let says = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(says("203.0.113.9/32 asks more over UDP"), "{lines:#?}");
        assert!(
            says("; each network (/32, /56) may ask 1 queries a second, 10 at once"),
            "{lines:#?}"
        );
    });
}
