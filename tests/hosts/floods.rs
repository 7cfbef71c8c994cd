//! Queries that wait for long in the name of one network, and in names of sources that are forged.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use support::message::{A, NOERROR, with_id};
use support::namespace::{Namespace, in_namespace, ip};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Act, Authority, DotServer, Proxy, Query, Response, Setup, TcpClient};

const PROXY: &str = "10.0.0.1:5300";

/// A proxy at 10.0.0.1, and other hosts at 10.0.0.2 and 10.0.0.3. Names that begin with `slow` are answered after
/// `slow`, if at all.
fn start(slow: Option<Duration>, flags: &[&str]) -> (Namespace, Proxy, DotServer) {
    let authority = Authority::new();
    let setup = Setup::new(authority.identity("dot.example"));
    let server = DotServer::start(setup.handler(move |query| {
        if !query.name.starts_with("slow") {
            return vec![Act::After(Duration::from_millis(5), query.answer())];
        }
        slow.map(|after| Act::After(after, query.answer())).into_iter().collect()
    }));
    let others = Namespace::new().expect("a second namespace");
    others.connect("link", &["10.0.0.1/24"], &["10.0.0.2/24", "10.0.0.3/24"]);
    let flags = [&["--listen", PROXY], flags].concat();
    let proxy = Proxy::start(&arguments(&authority, &[server.address()], &flags));
    (others, proxy, server)
}

fn slow(n: usize) -> Vec<u8> {
    with_id(&Query::new(&format!("slow{n}.floods.example"), A).bytes(), n as u16)
}

fn prompt(n: usize) -> Vec<u8> {
    with_id(&Query::new(&format!("n{n}.floods.example"), A).bytes(), n as u16)
}

fn socket_of(source: &str) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).expect("an address of this host");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    socket
}

fn tcp_client_of(source: &str) -> TcpClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: Ipv4Addr = source.parse().expect("an address");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this host");
    let proxy: SocketAddr = PROXY.parse().expect("an address");
    socket.connect(&proxy.into()).expect("a listener");
    TcpClient::of(socket.into())
}

/// Asks up to three times, as stubs do.
fn is_answered(socket: &UdpSocket, query: &[u8]) -> bool {
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a time");
    (0..3).any(|_| {
        socket.send_to(query, PROXY).expect("a route");
        let mut octets = [0; 512];
        while let Ok(len) = socket.recv(&mut octets) {
            if octets[..2] == query[..2] {
                return Response::read(&octets[..len]).rcode == NOERROR;
            }
        }
        false
    })
}

#[test]
fn above_the_wait_limit_the_oldest_end_with_tc_and_others_are_served() {
    const ASKED: usize = 60;
    const LIMIT_OF_WAITING: usize = 20;

    in_namespace("above_the_wait_limit_the_oldest_end_with_tc_and_others_are_served", "", || {
        let flags = ["--wait-limit", &LIMIT_OF_WAITING.to_string()];
        let (others, proxy, _server) = start(None, &flags);
        others.enter(|| {
            assert!(is_answered(&socket_of("10.0.0.3"), &prompt(0)));
            let crowd = socket_of("10.0.0.2");
            for n in 0..ASKED {
                crowd.send_to(&slow(n), PROXY).expect("a route");
            }
            let mut short = Vec::new();
            let mut octets = [0; 512];
            for _ in 0..ASKED - LIMIT_OF_WAITING {
                let len = crowd.recv(&mut octets).expect("a response");
                let response = Response::read(&octets[..len]);
                let n = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
                assert_eq!((response.rcode, response.is_truncated()), (NOERROR, true), "{n}");
                assert!(len <= slow(n).len(), "{n}: {len} octets");
                short.push(n);
            }
            assert_eq!(short, (0..short.len()).collect::<Vec<_>>(), "oldest first");
            assert!(is_answered(&socket_of("10.0.0.3"), &prompt(1)));
            // Over TCP the crowd is served, too.
            let response = tcp_client_of("10.0.0.2").ask(&prompt(2));
            assert_eq!(Response::read(&response).rcode, NOERROR);
            // Those that may wait fail when their time is over.
            for _ in 0..LIMIT_OF_WAITING {
                let len = crowd.recv(&mut octets).expect("a response");
                assert!(!Response::read(&octets[..len]).is_truncated());
            }
        });
        let is_it = |line: &str| line.starts_with("WARN") && line.contains("--wait-limit");
        let line = proxy.await_line("who asks so much", is_it);
        assert!(line.contains("10.0.0.2: more than 20 queries"), "{line}");
        let lines = proxy.stop();
        assert_eq!(lines.iter().filter(|line| is_it(line)).count(), 1, "{lines:#?}");
    });
}

/// Slow names in the name of sources that are forged take all places. There are 144 of them for datagrams, and after 400
/// ms a query makes way for another, so that 360 a second are taken in.
#[test]
fn a_flood_from_forged_sources_leaves_others_their_answers() {
    const SOURCES: usize = 200;
    const GOOD: usize = 30;
    const PAUSE: Duration = Duration::from_millis(4);

    in_namespace("a_flood_from_forged_sources_leaves_others_their_answers", "", || {
        let (others, proxy, _server) = start(Some(Duration::from_secs(4)), &["--size", "small"]);
        // What is said to these addresses ends at the other host.
        ip(&["route", "add", "10.7.0.0/16", "via", "10.0.0.2"]);
        let forged: Vec<_> = others.enter(|| (0..SOURCES).map(forged_source).collect());
        let (end, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for (n, socket) in (0..).zip(forged.iter().cycle()) {
                    // What cannot be sent is no part of the flood.
                    drop(socket.send_to(&slow(n), PROXY));
                    if ended.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Disconnected) {
                        break;
                    }
                }
            });
            // The end of this scope, however it comes, ends the flood.
            let _end = end;
            let made_way = |line: &str| line.contains("too many queries at once");
            proxy.await_line("a query that made way", made_way);
            let [datagrams, streams] = others.enter(|| {
                let socket = socket_of("10.0.0.3");
                let mut client = tcp_client_of("10.0.0.3");
                let datagrams = (0..GOOD).filter(|n| is_answered(&socket, &prompt(*n))).count();
                let streams = (GOOD..2 * GOOD).filter(|n| {
                    let response = client.ask(&prompt(*n));
                    Response::read(&response).rcode == NOERROR
                });
                [datagrams, streams.count()]
            });
            assert_eq!([datagrams, streams], [GOOD; 2], "{:#?}", proxy.lines().len());
        });
        proxy.stop();
    });
}

/// A socket that sends from an address which nobody has.
fn forged_source(n: usize) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_ip_transparent_v4(true).expect("root may");
    let source = Ipv4Addr::new(10, 7, (n / 200) as u8, 1 + (n % 200) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("any address will do");
    socket.into()
}
