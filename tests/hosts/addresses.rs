//! Row H4: several addresses, and listeners on all of them. Statements 8 and 45: how large datagrams are
//! where they leave the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::net::netdevice::name_to_index;

use support::message::{A, NOERROR, TXT};
use support::namespace::{Namespace, in_namespace, ip};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, TcpClient, answers};

/// Asks this address over UDP from a socket that takes answers from anywhere, and over TCP.
#[track_caller]
fn assert_answers_come_from(address: SocketAddr) {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a free port");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    let query = Query::new("a.example", A).bytes();
    socket.send_to(&query, address).expect("a reachable address");
    let mut octets = [0; 4096];
    let (len, from) = socket.recv_from(&mut octets).expect("an answer");
    assert_eq!(from, address);
    assert_eq!(Response::read(&octets[..len]).rcode, NOERROR, "{address}");

    assert_eq!(Response::read(&TcpClient::new(address).ask(&query)).rcode, NOERROR, "{address}");
}

#[test]
fn h04_answers_leave_from_the_address_asked() {
    in_namespace("h04_answers_leave_from_the_address_asked", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let clients = Namespace::new().expect("a second namespace");
        let near =
            ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/16", "fd00::1/64", "fd00::2/64", "fe80::1/64"];
        clients.connect("link", &near, &["10.0.0.9/24", "fd00::9/64", "fe80::9/64"]);
        let wildcards = ["--listen", "0.0.0.0:5300", "--listen", "[::]:5300"];
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &wildcards));

        let port = 5300;
        for own in ["127.0.0.1", "127.1.2.3", "::1", "10.0.0.2", "fd00::2"] {
            assert_answers_come_from((own.parse::<IpAddr>().expect("an address"), port).into());
        }
        clients.enter(|| {
            for far in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"] {
                assert_answers_come_from((far.parse::<IpAddr>().expect("an address"), port).into());
            }
            let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
            let scope = name_to_index(any, "link").expect("this end of the pair");
            let link_local = "fe80::1".parse().expect("an address");
            let link_local = SocketAddrV6::new(link_local, port, 0, scope);
            assert_answers_come_from(link_local.into());
        });
        proxy.stop();
    });
}

#[test]
fn an_address_that_comes_late_is_served_once_it_is_there() {
    in_namespace("an_address_that_comes_late_is_served_once_it_is_there", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let late = ["--listen", "10.9.9.9:5300", "--listen", "[fd09::9]:5300", "--freebind", "on"];
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &late));
        let is_warning = |line: &str| line.starts_with("WARN") && line.contains("--freebind");
        proxy.await_lines("warnings", 2, is_warning);
        ip(&["address", "add", "10.9.9.9/32", "dev", "lo"]);
        ip(&["address", "add", "fd09::9/128", "dev", "lo", "nodad"]);
        for listener in proxy.listeners() {
            assert_answers_come_from(*listener);
        }
        proxy.stop();
    });
}

/// An answer of as many octets as the proxy says it sends at most arrives whole over UDP, and none of one
/// more, from a client that takes 4,096.
#[track_caller]
fn assert_udp_size(host: &str, port: u16, udp_size: u16) {
    let address = SocketAddr::from((host.parse::<IpAddr>().expect("an address"), port));
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a free port");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    for (size, is_whole) in [(udp_size, true), (udp_size + 1, false)] {
        let name = format!("size-{}.example", usize::from(size) - answers::OPT_LEN);
        let query = Query::new(&name, TXT).opt(4_096).bytes();
        socket.send_to(&query, address).expect("a reachable address");
        let mut octets = [0; 8_192];
        let (len, _) = socket.recv_from(&mut octets).expect("an answer");
        let read = Response::read(&octets[..len]);
        let opt = read.opt.as_ref().map(|opt| opt.udp_size);
        assert_eq!((read.rcode, opt), (NOERROR, Some(udp_size)), "{address}");
        assert_eq!(read.is_truncated(), !is_whole, "{size} octets from {address}");
        assert_eq!(len == usize::from(size), is_whole, "{size} octets from {address}: {len}");
    }
}

#[test]
fn datagrams_of_1232_octets_at_most_leave_the_host_unless_told_otherwise() {
    let name = "datagrams_of_1232_octets_at_most_leave_the_host_unless_told_otherwise";
    in_namespace(name, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let clients = Namespace::new().expect("a second namespace");
        clients.connect("link", &["10.0.0.1/24", "fd00::1/64"], &["10.0.0.9/24", "fd00::9/64"]);
        let listen = |port: u16| {
            let [v4, v6] = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
            ["--listen".to_owned(), v4, "--listen".to_owned(), v6]
        };
        let start = |port: u16, more: &[&str]| {
            let flags = listen(port);
            let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
            let flags: Vec<_> = flags.collect();
            Proxy::start(&arguments(&authority, &[server.address()], &flags))
        };
        let proxy = start(5300, &[]);
        for own in ["127.0.0.1", "::1"] {
            assert_udp_size(own, 5300, 4_096);
        }
        // More than the network's packets hold arrives in fragments.
        let told = [(5301, 512), (5302, 1_400), (5303, 4_096)];
        let others = told.map(|(port, size)| start(port, &["--udp-size-max", &format!("{size}")]));
        clients.enter(|| {
            for far in ["10.0.0.1", "fd00::1"] {
                assert_udp_size(far, 5300, 1_232);
                for (port, size) in told {
                    assert_udp_size(far, port, size);
                }
            }
        });
        for proxy in others.into_iter().chain([proxy]) {
            proxy.stop();
        }
    });
}
