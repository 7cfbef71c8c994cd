//! More TCP clients than are usual, from one address that is not loopback: row C10; and clients of another
//! address beside them, also beside sources that are forged.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use support::message::{A, NOERROR};
use support::namespace::{Namespace, in_namespace, ip};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Act, Authority, DotServer, Proxy, Query, Response, Setup, TcpClient};

/// An address that clients have in common, as behind NAT.
const ADDRESS: &str = "192.168.7.1";

/// So few places that with the 256 in the backlog the sockets of a test are not too many.
const FEW: [&str; 4] = ["--tcp-clients-max", "40", "--tcp-clients-per-address-max", "10"];

/// A proxy at that address, in front of a server that takes 60 ms for an answer, and has none to names of
/// [`dead`].
fn start(flags: &[&str]) -> (Proxy, DotServer) {
    ip(&["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    let authority = Authority::new();
    let setup = Setup::new(authority.identity("dot.example"));
    let server = DotServer::start(setup.handler(|query| {
        let is_dead = query.name.starts_with("dead");
        let answer = || Act::After(Duration::from_millis(60), query.answer());
        (!is_dead).then(answer).into_iter().collect()
    }));
    let listen = format!("{ADDRESS}:0");
    let flags = [&["--listen", &listen, "--query-log", "off"], flags].concat();
    (Proxy::before(&authority, &[&server], &flags), server)
}

fn query(n: usize) -> Vec<u8> {
    Query::new(&format!("n{n}.c10.example"), A).bytes()
}

fn dead(n: usize) -> Vec<u8> {
    Query::new(&format!("dead{n}.c10.example"), A).bytes()
}

/// A socket of that address that is to be connected.
fn socket_of(ip: &str) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let ip: IpAddr = ip.parse().expect("an address");
    socket.bind(&SocketAddr::from((ip, 0)).into()).expect("an address of this host");
    socket
}

fn client_of(ip: &str, server: SocketAddr) -> TcpClient {
    let socket = socket_of(ip);
    socket.connect(&server.into()).expect("a listener");
    TcpClient::of(socket.into())
}

/// Connections that nobody waits for: the backlog may be full.
fn knock(ip: &str, server: SocketAddr) -> Socket {
    let socket = socket_of(ip);
    socket.set_nonblocking(true).expect("a socket");
    match socket.connect(&server.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            panic!("cannot connect: {error}")
        }
        _ => socket,
    }
}

#[track_caller]
fn assert_answered(client: &mut TcpClient) {
    let response = client.try_receive();
    let rcode = response.map(|octets| Response::read(&octets).rcode);
    assert!(matches!(rcode, Ok(NOERROR)), "{rcode:?}");
}

/// The peer of a connection to the own address is that address.
#[track_caller]
fn assert_not_loopback(client: &TcpClient) {
    let from = client.stream().local_addr().map(|address: SocketAddr| address.ip());
    assert_eq!(from.ok(), ADDRESS.parse().ok());
}

#[test]
fn c10_many_at_once_from_one_address() {
    in_namespace("c10_many_at_once_from_one_address", "", || {
        let (proxy, _server) = start(&[]);
        let mut clients: Vec<_> = (0..150).map(|_| TcpClient::new(proxy.address())).collect();
        assert_not_loopback(&clients[0]);
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&query(n));
        }
        clients.iter_mut().for_each(assert_answered);
        let lines = proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("TCP clients")), "{lines:#?}");
    });
}

/// glibc's `use-vc`: a connection for each look-up, closed when that is answered, in more threads
/// than there are places.
#[test]
fn c10_more_threads_than_places() {
    const THREADS: usize = 20;
    const EACH: usize = 5;

    in_namespace("c10_more_threads_than_places", "", || {
        let (proxy, _server) = start(&["--size", "small"]);
        let address = proxy.address();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let mut client = TcpClient::new(address);
                        client.send(&query(thread * EACH + n));
                        assert_answered(&mut client);
                    }
                });
            }
        });
        let lines = proxy.stop();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("TCP clients")).collect();
        assert!(told.iter().any(|line| line.contains("had to wait")), "{lines:#?}");
        // Some may have been idle, too, when the next came.
        assert!(told.len() <= 2, "one line of each kind: {lines:#?}");
        for line in told {
            assert!(line.starts_with("WARN") && line.contains(ADDRESS), "{line}");
            assert!(line.contains("--tcp-clients-max"), "{line}");
        }
    });
}

/// One address has all places, with four queries on each that nobody answers, and fills the backlog.
#[test]
fn one_address_with_slow_names_shuts_no_other_out() {
    in_namespace("one_address_with_slow_names_shuts_no_other_out", "", || {
        let (proxy, _server) = start(&FEW);
        ip(&["address", "add", "192.168.7.2/32", "dev", "lo"]);
        ip(&["address", "add", "192.168.7.3/32", "dev", "lo"]);
        let address = proxy.address();
        let mut crowd: Vec<_> = (0..40).map(|_| client_of("192.168.7.2", address)).collect();
        for (n, client) in crowd.iter_mut().enumerate() {
            (0..4).for_each(|name| client.send(&dead(4 * n + name)));
        }
        let _behind: Vec<_> = (0..280).map(|_| knock("192.168.7.2", address)).collect();

        let mut other = client_of("192.168.7.3", address);
        other.send(&query(0));
        assert_answered(&mut other);
        // The names of the first connection have not failed yet.
        let first = crowd[0].stream();
        first.set_nonblocking(true).expect("a socket");
        let nothing = first.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(ErrorKind::WouldBlock), "it came before the places were free");

        let line =
            proxy.await_line("who gave way", |line| line.contains("in favour of 192.168.7.3"));
        assert!(line.starts_with("WARN") && line.contains("40 of them by 192.168.7.2"), "{line}");
        let line = proxy.await_line("who was refused", |line| line.contains("was refused"));
        assert!(line.starts_with("WARN") && line.contains("192.168.7.2 was refused"), "{line}");
        let lines = proxy.stop();
        let told = lines.iter().filter(|line| line.contains("TCP clients"));
        assert_eq!(told.count(), 2, "{lines:#?}");
    });
}

/// The same, and it asks nothing.
#[test]
fn one_silent_address_shuts_no_other_out() {
    in_namespace("one_silent_address_shuts_no_other_out", "", || {
        let (proxy, _server) = start(&FEW);
        ip(&["address", "add", "192.168.7.2/32", "dev", "lo"]);
        ip(&["address", "add", "192.168.7.3/32", "dev", "lo"]);
        let address = proxy.address();
        let _crowd: Vec<_> = (0..320).map(|_| knock("192.168.7.2", address)).collect();
        let mut other = client_of("192.168.7.3", address);
        other.send(&query(0));
        assert_answered(&mut other);
        // The line shows that no place was made by those that are idle after a second.
        proxy.await_line("who was refused", |line| line.contains("192.168.7.2 was refused"));
    });
}

/// Clients of one listener that come and go all the time do not hold up those of another.
#[test]
fn a_crowd_at_one_listener_leaves_the_others_their_turn() {
    const CROWD: usize = 64;

    let authority = Authority::new();
    let setup = Setup::new(authority.identity("dot.example"));
    let server = DotServer::start(
        setup.handler(|query| vec![Act::After(Duration::from_millis(100), query.answer())]),
    );
    let listen = ["--listen", "127.0.0.1:0"];
    let flags = [&listen, &listen, &["--tcp-clients-max", "8"][..]].concat();
    let proxy = Proxy::before(&authority, &[&server], &flags);
    let [first, second] = proxy.listeners() else { panic!("two: {:?}", proxy.listeners()) };

    let connect = |n| {
        let mut client = TcpClient::new(*first);
        client.send(&query(n));
        client
    };
    let mut crowd: Vec<_> = (0..CROWD).map(connect).collect();
    let mut other = TcpClient::new(*second);
    other.send(&query(CROWD));
    assert_answered(&mut other);
    let before = server.log().queries.len();
    assert!(before < CROWD * 3 / 4, "{before} queries came first");
    crowd.iter_mut().for_each(assert_answered);
}

/// Answers to sources that are on the link and do not exist wait in the kernel for three seconds each, until
/// the link layer gives up, and fill the send buffer of the listener that was asked.
#[test]
fn answers_that_the_network_does_not_take_hold_up_no_other_listener() {
    const NAME: &str = "answers_that_the_network_does_not_take_hold_up_no_other_listener";
    const FORGED: usize = 600;

    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let far = Namespace::new().expect("a second namespace");
        far.connect("link", &["10.0.0.1/16"], &["10.0.0.2/16"]);
        let flags = ["--listen", "10.0.0.1:5300", "--listen", "127.0.0.1:5300", "--size", "small"];
        let proxy = Proxy::start(&arguments(&authority, &[server.address()], &flags));
        let query = Query::new("localhost", A).bytes();
        far.enter(|| {
            for n in 0..FORGED {
                let source = Ipv4Addr::new(10, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8);
                forged_from(source).send_to(&query, "10.0.0.1:5300").expect("a way there");
            }
        });
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(LIMIT)).expect("a time");
        for _ in 0..5 {
            let asked = Instant::now();
            socket.send_to(&query, "127.0.0.1:5300").expect("loopback");
            socket.recv(&mut [0; 512]).expect("an answer");
            assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        }
        proxy.stop();
    });
}

/// A socket that sends from an address which nobody has.
fn forged_from(source: Ipv4Addr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_ip_transparent_v4(true).expect("root may");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("any address will do");
    socket.into()
}

/// Clients of this host have every place but those that are left to others, and one more waits. A client of another
/// address is let in all the same, though the listener of this host was asked first and its client stays outside.
#[test]
fn c10_a_listener_that_has_no_place_keeps_no_other_waiting() {
    in_namespace("c10_a_listener_that_has_no_place_keeps_no_other_waiting", "", || {
        let (proxy, _server) = start(&[&FEW[..], &["--listen", "127.0.0.1:0"]].concat());
        let [shared, own] = *proxy.listeners() else { panic!("{:?}", proxy.listeners()) };
        let mut busy: Vec<_> = (0..40).map(|_| TcpClient::new(own)).collect();
        for (n, client) in busy.iter_mut().enumerate() {
            client.send(&dead(n));
        }
        let _waits = knock("127.0.0.1", own);
        let mut other = client_of(ADDRESS, shared);
        other.send(&query(1));
        assert_answered(&mut other);
        // Not because a place became free.
        for client in &busy {
            let stream = client.stream();
            stream.set_nonblocking(true).expect("a socket");
            let closed = stream.peek(&mut [0]).err().map(|error| error.kind());
            if closed == Some(ErrorKind::WouldBlock) {
                return;
            }
        }
        panic!("nobody waits any more");
    });
}
