//! What the RFCs ask where a whole network is needed to see it; by number, as in the conformance tests.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use support::message::{self, A, NOERROR};
use support::namespace::{Namespace, counted, in_namespace, ip};
use support::proxy::{self, arguments};
use support::server::LIMIT;
use support::{
    Act, Authority, DotServer, End, Proxy, Query, Response, Setup, TcpClient, UdpClient,
};

/// RFC 5625 section 6.2.
#[test]
fn s11_by_default_nobody_else_reaches_the_listener() {
    in_namespace("s11_by_default_nobody_else_reaches_the_listener", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &["10.0.0.1/24"], &["10.0.0.9/24"]);
        let proxy = Proxy::start_where_it_likes(&arguments(&authority, &[server.address()], &[]));
        assert!(proxy.address().ip().is_loopback(), "{}", proxy.address());
        let query = Query::new("a.example", A).bytes();
        assert_eq!(Response::read(&UdpClient::new(proxy.address()).ask(&query)).rcode, NOERROR);

        let outside = SocketAddr::from(([10, 0, 0, 1], proxy.address().port()));
        far.enter(|| {
            let refused = TcpStream::connect(outside).expect_err("nothing listens there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
            socket.connect(outside).expect("a route");
            socket.set_read_timeout(Some(LIMIT)).expect("a time");
            socket.send(&query).expect("room for a datagram");
            let refused = socket.recv(&mut [0; 512]).expect_err("nothing listens there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        });
        proxy.stop();
    });
}

/// RFC 5625 section 6.2: with a listener that everybody reaches, who is no neighbour is not served.
#[test]
fn s11_strangers_are_not_served() {
    in_namespace("s11_strangers_are_not_served", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let far = Namespace::new().expect("a second namespace");
        let [near_addresses, far_addresses] =
            [["10.0.0.1/24", "203.0.113.1/24"], ["10.0.0.9/24", "203.0.113.9/24"]];
        far.connect("link", &near_addresses, &far_addresses);
        let flags = ["--listen", "0.0.0.0:5300", "--log-level", "debug"];
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &flags));
        let query = Query::new("a.example", A).bytes();
        far.enter(|| {
            let stranger = UdpSocket::bind(("203.0.113.9", 0)).expect("an address of this host");
            stranger.connect("203.0.113.1:5300").expect("a route");
            stranger.send(&query).expect("room for a datagram");
            // The query is dropped before the neighbour's is answered.
            let neighbour = UdpSocket::bind(("10.0.0.9", 0)).expect("an address of this host");
            neighbour.connect("10.0.0.1:5300").expect("a route");
            neighbour.set_read_timeout(Some(LIMIT)).expect("a time");
            neighbour.send(&query).expect("room for a datagram");
            let mut octets = [0; 512];
            let len = neighbour.recv(&mut octets).expect("an answer");
            assert_eq!(Response::read(&octets[..len]).rcode, NOERROR);
            stranger.set_nonblocking(true).expect("a socket");
            let nothing = stranger.recv(&mut octets).expect_err("a stranger is not answered");
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);

            let mut stranger = TcpClient::new("203.0.113.1:5300".parse().expect("an address"));
            assert!(stranger.try_receive().is_err(), "a stranger may stay connected");
        });
        let dropped = |line: &str| line.contains("DEBUG") && line.contains(" was dropped: ");
        proxy.await_lines("a line for each that was dropped", 2, dropped);
        assert_eq!(server.log().queries_for("a.example"), 1);
        proxy.stop();
    });
}

/// RFC 7858 section 3.1.
#[test]
fn s28_the_port_is_853_unless_told_and_never_53() {
    in_namespace("s28_the_port_is_853_unless_told_and_never_53", "", || {
        ip(&["address", "add", "9.9.9.9/32", "dev", "lo"]);
        ip(&["address", "add", "149.112.112.112/32", "dev", "lo"]);
        for (upstream, host, name) in [
            ("127.0.0.1#dot.example", "127.0.0.1", "dot.example"),
            ("quad9", "9.9.9.9", "dns.quad9.net"),
            ("quad9", "149.112.112.112", "dns.quad9.net"),
        ] {
            let authority = Authority::new();
            let address = format!("{host}:853").parse().expect("an address");
            let setup = Setup::new(authority.identity(name));
            let server = DotServer::start_on(address, setup).expect("a free port");
            let plain = TcpListener::bind((host, 53)).expect("a free port");
            plain.set_nonblocking(true).expect("a socket");
            let trust = authority.file().display().to_string();
            let proxy = Proxy::start(&["--ca-file", &trust, "--upstream", upstream]);
            let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
            assert_eq!(Response::read(&response).rcode, NOERROR, "{upstream}");
            assert_eq!(server.log().queries.len(), 1, "{upstream}");
            let nobody = plain.accept().expect_err("port 53 is not connected to");
            assert_eq!(nobody.kind(), ErrorKind::WouldBlock, "{upstream}");
            proxy.stop();
        }
        let (code, _, told) = proxy::run(&["--upstream", "127.0.0.1:53#dot.example"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("port 53"), "{told}");
    });
}

/// RFC 8310 section 7: upstreams have addresses on the command line, and no name is looked up, be it
/// theirs or another.
#[test]
fn s42_nothing_is_looked_up() {
    // Plain, multicast and link-local DNS.
    let rules = "table inet lookups { chain output {
        type filter hook output priority 0;
        udp dport { 53, 5353, 5355 } counter
        tcp dport { 53, 5353, 5355 } counter; }; }";
    in_namespace("s42_nothing_is_looked_up", rules, || {
        let authority = Authority::new();
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &["10.0.0.1/24"], &["10.0.0.2/24"]);
        // So that what is sent to any resolver leaves.
        ip(&["route", "add", "default", "via", "10.0.0.2"]);
        // Each query costs a connection.
        let setup = Setup::new(authority.identity("dot.example"))
            .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat());
        let server = DotServer::start(setup);
        // The sandbox would hide what is tried.
        let more = ["--sandbox", "off"];
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &more));
        let mut asked = Vec::new();
        for n in 0..3 {
            let name = format!("n{n}.example");
            let query = Query::new(&name, A).bytes();
            let response = UdpClient::new(proxy.address()).ask(&query);
            assert_eq!(Response::read(&response).rcode, NOERROR, "{name}");
            asked.push(Some((name, A, 1)));
        }
        let log = server.log();
        assert_eq!(log.connections.len(), 3);
        let sent: Vec<_> = log.queries.iter().map(|(_, query)| message::question(query)).collect();
        assert_eq!(sent, asked, "only what the client asked for");
        drop(log);
        // With an upstream that cannot be reached, too.
        let port = support::RefusedPort::reserve();
        let other = Proxy::start(&arguments(&authority, &[port.address()], &more));
        UdpClient::new(other.address()).ask(&Query::new("n.example", A).bytes());
        assert_eq!(counted(), 0, "a resolver was asked");
        for proxy in [proxy, other] {
            proxy.stop();
        }
        let (code, _, told) = proxy::run(&["--upstream", "dot.example#dot.example"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("not looked up"), "{told}");
        assert_eq!(counted(), 0, "a resolver was asked");

        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        socket.send_to(b"?", "192.0.2.53:53").expect("a route");
        assert_eq!(counted(), 1, "what is sent to a resolver is counted");
    });
}
