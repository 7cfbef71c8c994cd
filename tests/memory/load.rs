//! The worst load.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dot_proxy::config::{self, Command, Config, Host};
use socket2::{Domain, Type};

use support::answers::{self, OPT_LEN};
use support::message::{A, NOERROR, TXT, framed};
use support::server::LIMIT;
use support::{Act, Authority, DotServer, Query, Received, Response, Setup, UdpClient};

/// Upstreams that take and give as much as they can, and what is asked of them.
pub(crate) struct Load {
    _servers: Vec<DotServer>,
    arguments: Vec<String>,
    config: Box<Config>,
    _authority: Authority,
}

impl Load {
    pub(crate) fn new(size: &str, more: &[&str]) -> Self {
        let authority = Authority::new();
        let servers: Vec<_> = (0..UPSTREAMS).map(|_| DotServer::start(setup(&authority))).collect();
        let mut arguments = vec![
            "--ca-file".to_owned(),
            authority.file().display().to_string(),
            "--listen".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        for server in &servers {
            arguments
                .extend(["--upstream".to_owned(), format!("{}#dot.example", server.address())]);
        }
        let flags = ["--size", size, "--query-log", "on", "--upstream-policy", "spread"];
        arguments.extend(flags.iter().chain(more).map(|&flag| flag.to_owned()));
        let words = arguments.iter().map(Into::into).collect();
        let Ok(Command::Run(config)) = config::parse(words, Host::default()) else {
            panic!("these are arguments to run with");
        };
        Self { _servers: servers, arguments, config, _authority: authority }
    }

    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Puts it on a program, several times, and checks that all is well afterwards.
    pub(crate) fn run(&self, proxy: SocketAddr) {
        let response = ask(proxy, &Query::new("first.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR, "before the load");
        for round in 0..ROUNDS {
            self.round(proxy, round);
            assert_answers(proxy);
        }
        recover(proxy);
    }

    fn round(&self, proxy: SocketAddr, round: usize) {
        let limits = &self.config.limits;
        let name = |what: &str, n: usize| format!("{what}-{round}-{n}.example");
        // Every upstream has a connection, or several.
        settle(proxy, &name("before", 0));

        // Clients that read nothing: half ask for long answers, half send long queries in part.
        let mut clients: Vec<Client> = Vec::new();
        for n in 0..limits.clients_max {
            let mut client = Client::new(proxy);
            if n % 2 == 0 {
                for m in 0..4 {
                    client.send(&framed(&Query::new(&name("long", 4 * n + m), TXT).bytes()));
                }
            } else {
                client.send(&[&[0xff, 0xff][..], &vec![0; 60_000]].concat());
            }
            clients.push(client);
        }
        settle(proxy, &name("after-clients", 0));

        // Answers that stop in the middle.
        let udp = UdpClient::new(proxy);
        for n in 0..4 * UPSTREAMS {
            udp.send(&Query::new(&name("part", n), A).id(n as u16).bytes());
        }
        settle(proxy, &name("after-parts", 0));

        // Long queries first, then as many as fit of those that are not.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(proxy).expect("a loopback address");
        let long = limits.query_bytes_max / 4_000;
        for n in 0..limits.queries_max + long {
            let len = if n < long { 4_000 } else { 512 };
            let query = padded(&name("hold", n), n as u16, len);
            socket.send(&query).expect("room for a datagram");
            // The socket of the proxy is not to overflow.
            if n % (16_384 / len) == 0 {
                assert_answers(proxy);
            }
        }

        // Upstreams that read no more, with queries of 60 KB for them.
        for n in 0..8 * UPSTREAMS {
            udp.send(&Query::new(&name("stop", n), A).id(n as u16).bytes());
        }
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&framed(&padded(&name("hold-long", n), n as u16, 60_000)));
        }
        for n in 0..2 * limits.queries_max {
            socket.send(&padded(&name("hold-more", n), n as u16, 512)).expect("a datagram");
            if n % 32 == 0 {
                assert_answers(proxy);
            }
        }
        // Until the oldest have been given up.
        let end = Instant::now() + limits.query_timeout;
        while Instant::now() < end {
            assert_answers(proxy);
            for client in &mut clients {
                client.go_on();
            }
        }
    }
}

/// Waits until what was asked before has been dealt with, as far as it is.
fn settle(proxy: SocketAddr, name: &str) {
    for n in 0..4 * UPSTREAMS {
        ask(proxy, &Query::new(&format!("{n}.{name}"), A).bytes());
    }
}

/// Everything is answered again.
fn recover(proxy: SocketAddr) {
    let end = Instant::now() + LIMIT;
    let mut n = 0;
    loop {
        n += 1;
        let query = Query::new(&format!("recovered-{n}.example"), A).bytes();
        if Response::read(&ask(proxy, &query)).rcode == NOERROR {
            break;
        }
        assert!(Instant::now() < end, "nothing is answered after the load");
    }
    let mut client = support::TcpClient::new(proxy);
    let query = Query::new(&format!("size-{}.example", 60_000), TXT).bytes();
    let response = client.ask(&query);
    assert_eq!(Response::read(&response).rcode, NOERROR);
    assert!(response.len() >= 60_000 - OPT_LEN);
}

fn setup(authority: &Authority) -> Setup {
    let mut setup = Setup::new(authority.wordy_identity("dot.example", CERTIFICATE_NAMES));
    setup.receive_buffer = Some(4_096);
    setup.handler(handle)
}

fn handle(query: &Received<'_>) -> Vec<Act> {
    let what = query.name.split('-').next().unwrap_or_default();
    match what {
        "hold" => vec![],
        "long" => vec![Act::Send(answers::sized(query.message, 65_000))],
        "part" => vec![Act::Raw([&[0xff, 0xff][..], &vec![0; 65_000]].concat())],
        "stop" => vec![Act::StopReading],
        _ => query.answer(),
    }
}

/// A query of this length, with an option that no server has a use for.
fn padded(name: &str, id: u16, len: usize) -> Vec<u8> {
    let query = Query::new(name, A).id(id).opt(4_096);
    let empty = query.clone().option(65_001, &[]).bytes().len();
    query.option(65_001, &vec![0; len - empty]).bytes()
}

/// The proxy answers what needs no upstream, and so has taken what was sent before.
#[track_caller]
fn assert_answers(proxy: SocketAddr) {
    let response = ask(proxy, &Query::new("localhost", A).bytes());
    assert_eq!(Response::read(&response).rcode, NOERROR);
}

/// The answer, whatever it is. A full socket of the proxy drops what comes, so the query is repeated.
#[track_caller]
fn ask(proxy: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(proxy).expect("a loopback address");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
    let end = Instant::now() + LIMIT;
    let mut response = vec![0; 4_096];
    while Instant::now() < end {
        socket.send(query).expect("room for a datagram");
        if let Ok(len) = socket.recv(&mut response) {
            response.truncate(len);
            return response;
        }
    }
    panic!("nothing is answered");
}

/// A client that takes nothing, not into the buffers of the kernel either, as far as it can help it.
struct Client {
    stream: TcpStream,
    /// To be sent when there is room.
    rest: Vec<u8>,
}

impl Client {
    fn new(proxy: SocketAddr) -> Self {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(2_048).expect("a size");
        socket.connect(&proxy.into()).expect("a listener");
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).expect("a socket");
        Self { stream, rest: Vec::new() }
    }

    fn send(&mut self, octets: &[u8]) {
        self.rest.extend_from_slice(octets);
        self.go_on();
    }

    fn go_on(&mut self) {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(len) => drop(self.rest.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client was closed for what all hold.
                Err(_) => self.rest.clear(),
            }
        }
    }
}

const UPSTREAMS: usize = 4;

/// A certificate of 7 KB, which is near what small takes.
const CERTIFICATE_NAMES: usize = 260;

/// The second finds what the first left behind.
const ROUNDS: usize = 2;
