//! Row C15: datagrams to many hosts, datagrams from port 0, and answers that somebody wants in fragments.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::Instant;

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::start::assert_one_line;
use support::message::{A, NOERROR, TXT};
use support::namespace::{Namespace, counted, in_namespace, ip, nft};
use support::proxy::{arguments, run};
use support::server::LIMIT;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, answers};

const PORT: u16 = 5300;

const NEAR: [&str; 2] = ["10.0.0.1/24", "fd00::1/64"];
const FAR: [&str; 2] = ["10.0.0.9/24", "fd00::9/64"];

fn start(authority: &Authority, server: &DotServer, more: &[&str]) -> Proxy {
    let flags = [&["--listen", "0.0.0.0:5300", "--listen", "[::]:5300"], more].concat();
    Proxy::start(&arguments(authority, &[server.address()], &flags))
}

fn address(host: &str) -> SocketAddr {
    (host.parse::<IpAddr>().expect("an address"), PORT).into()
}

/// Asks this address, from one of the network that the caller is in.
#[track_caller]
fn ask(address: SocketAddr, query: &[u8]) -> Vec<u8> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a free port");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    socket.send_to(query, address).expect("a reachable address");
    let mut octets = [0; 4_096];
    let (len, from) = socket.recv_from(&mut octets).expect("an answer");
    assert_eq!(from, address);
    octets[..len].to_vec()
}

#[track_caller]
fn assert_answered(address: SocketAddr, name: &str) {
    let response = Response::read(&ask(address, &Query::new(name, A).bytes()));
    assert_eq!(response.rcode, NOERROR, "{address}");
}

#[test]
fn c15_what_is_sent_to_many_is_not_answered() {
    in_namespace("c15_what_is_sent_to_many_is_not_answered", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &NEAR, &FAR);
        // Addresses that are local without being an interface's. (IPv6 answers from no such address.)
        ip(&["route", "add", "local", "10.9.0.0/16", "dev", "lo"]);
        let proxy = start(&authority, &server, &[]);
        far.enter(|| {
            ip(&["route", "add", "10.9.0.0/16", "via", "10.0.0.1"]);
            let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
            let scope = name_to_index(any, "link").expect("this end of the pair");
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            for many in [
                address("10.0.0.255"),
                address("255.255.255.255"),
                address("224.0.0.1"),
                SocketAddrV6::new(all_nodes, PORT, 0, scope).into(),
            ] {
                let own: IpAddr = if many.is_ipv4() {
                    [10, 0, 0, 9].into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((own, 0)).expect("an address of this host");
                socket.set_broadcast(true).expect("a socket");
                let link = Some(&b"link"[..]);
                SockRef::from(&socket).bind_device(link).expect("this end of the pair");
                socket.send_to(&Query::new("many.example", A).bytes(), many).expect("a network");
                // The query is dropped before another one is answered.
                assert_answered(
                    address(if many.is_ipv4() { "10.0.0.1" } else { "fd00::1" }),
                    "a.example",
                );
                socket.set_nonblocking(true).expect("a socket");
                let nothing = socket.recv(&mut [0; 512]).expect_err("no answer");
                assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{many}");
            }
            assert_answered(address("10.9.8.7"), "a.example");
        });
        assert_answered(address("127.0.0.2"), "a.example");
        assert_eq!(server.log().queries_for("many.example"), 0);
        proxy.stop();
    });
}

#[test]
fn c15_nobody_listens_on_a_broadcast_address() {
    in_namespace("c15_nobody_listens_on_a_broadcast_address", "", || {
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &NEAR, &FAR);
        let result = run(&["--listen", "10.0.0.255:5300"]);
        assert_one_line(
            &result,
            1,
            &["10.0.0.255:5300", "broadcast", "not an address of this host"],
        );
    });
}

#[test]
fn c15_nothing_is_answered_to_port_0() {
    in_namespace("c15_nothing_is_answered_to_port_0", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let proxy = start(&authority, &server, &[]);
        let query = Query::new("nobody.example", A).bytes();
        let length = u16::try_from(8 + query.len()).expect("a datagram");
        // A checksum of zero is none.
        let header = [[0; 2], PORT.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).expect("root");
        let to = SocketAddr::from(([127, 0, 0, 1], 0));
        raw.send_to(&[header, query].concat(), &to.into()).expect("a network");
        assert_answered(address("127.0.0.1"), "a.example");
        assert_eq!(server.log().queries_for("nobody.example"), 0);
        let lines = proxy.stop();
        assert!(!lines.iter().any(|line| line.starts_with("WARN")), "{lines:#?}");
    });
}

/// An ICMP message that says that a datagram from this port here to there was longer than `mtu`.
fn too_big_v4(port: u16, mtu: u16) -> Vec<u8> {
    let mut datagram = vec![0x45, 0, 5, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
    datagram.extend(port.to_be_bytes());
    datagram.extend([0x99, 0x99, 4, 0xec, 0, 0]);
    let mut message = [&[3, 4, 0, 0, 0, 0], &mtu.to_be_bytes()[..], &datagram].concat();
    let words = message.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let checksum = !u16::try_from((sum >> 16) + (sum & 0xffff)).expect("folded twice");
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The same for IPv6, whose checksum the kernel fills in.
fn too_big_v6(port: u16, mtu: u32) -> Vec<u8> {
    let [near, far] = ["fd00::1", "fd00::9"].map(|ip| ip.parse::<Ipv6Addr>().expect("an address"));
    let mut datagram = vec![0x60, 0, 0, 0, 5, 0, 17, 64];
    datagram.extend(near.octets());
    datagram.extend(far.octets());
    datagram.extend(port.to_be_bytes());
    datagram.extend([0x99, 0x99, 5, 0, 0, 0]);
    [&[2, 0, 0, 0], &mtu.to_be_bytes()[..], &datagram].concat()
}

/// Has a socket on this port of the other side believe that its datagrams are too long.
fn forge(port: u16) {
    let v4 = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root");
    v4.send_to(&too_big_v4(port, 552), &address("10.0.0.1").into()).expect("a network");
    let v6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root");
    let to = SocketAddr::new(address("fd00::1").ip(), 0);
    v6.send_to(&too_big_v6(port, 1_280), &to.into()).expect("a network");
}

/// Whether the kernel believes it of the ways to the other side.
fn is_believed() -> bool {
    [("10.0.0.9", "mtu 552"), ("fd00::9", "mtu 1280")].iter().all(|(far, mtu)| {
        let output = Command::new("ip").args(["route", "get", far]).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).contains(mtu)
    })
}

#[test]
fn c15_a_forged_icmp_makes_no_fragments() {
    const SIZE: u16 = 1_400;
    const FRAGMENTS: &str = "table inet fragments { chain input {
        type filter hook prerouting priority -500;
        ip frag-off & 0x3fff != 0 counter
        exthdr frag exists counter; }; }";

    in_namespace("c15_a_forged_icmp_makes_no_fragments", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &NEAR, &FAR);
        let proxy = start(&authority, &server, &["--udp-size-max", &SIZE.to_string()]);
        let assert_whole = || {
            far.enter(|| {
                for near in ["10.0.0.1", "fd00::1"] {
                    let name = format!("size-{}.example", usize::from(SIZE) - answers::OPT_LEN);
                    let query = Query::new(&name, TXT).opt(4_096).bytes();
                    assert_eq!(ask(address(near), &query).len(), usize::from(SIZE), "{near}");
                }
                assert_eq!(counted(), 0, "an answer came in fragments");
            });
        };
        far.enter(|| {
            nft(FRAGMENTS);
            forge(PORT);
        });
        assert_whole();

        // Other sockets believe it, and then the way is so for all.
        let others =
            ["10.0.0.1:5301", "[fd00::1]:5301"].map(|near| UdpSocket::bind(near).expect("a port"));
        far.enter(|| forge(5301));
        let start = Instant::now();
        while !is_believed() {
            assert!(start.elapsed() < LIMIT, "nobody believes it");
        }
        assert_whole();
        for (socket, to) in others.iter().zip(["10.0.0.9", "fd00::9"]) {
            socket.send_to(&[0; SIZE as usize], address(to)).expect("a network");
        }
        assert!(far.enter(counted) >= 4, "fragments are counted");
        proxy.stop();
    });
}
