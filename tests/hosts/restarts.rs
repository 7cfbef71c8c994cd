//! One of two processes on a port is restarted again and again while clients connect: each connection that is made
//! gets its answer, however late the process was told to end.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use support::message::{A, NOERROR, framed};
use support::namespace::in_namespace;
use support::server::LIMIT;
use support::skip::skip;
use support::{Authority, DotServer, Proxy, Query, Response, Setup};

const RESTARTS: usize = 10;

/// Between two restarts.
const PART: usize = 6_000;

const CLIENTS: usize = 64;

/// The way of a query to the forwarder, in milliseconds.
const WAYS: [u64; 4] = [0, 1, 5, 20];

#[test]
fn h06_no_connection_ends_without_its_answer_when_one_of_two_restarts() {
    const NAME: &str = "h06_no_connection_ends_without_its_answer_when_one_of_two_restarts";

    in_namespace(NAME, "", || {
        // Without it the kernel resets what waits to be accepted when a process ends.
        let migrates = fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1");
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let start = |listen: &str| {
            let flags = ["--listen", listen, "--reuse-port", "on", "--query-log", "off"];
            Proxy::before(&authority, &[&server], &flags)
        };
        let stays = start("127.0.0.1:0");
        let address = stays.address();
        let mut restarted = Some(start(&address.to_string()));
        let next = AtomicUsize::new(0);
        let (sender, seen) = mpsc::channel();

        let mut counts = Counts::default();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let (next, sender) = (&next, sender.clone());
                scope.spawn(move || ask_until_all_have(address, next, &sender));
            }
            drop(sender);
            for (number, end) in seen.iter().enumerate() {
                counts.note(end);
                if (number + PART / 2).is_multiple_of(PART) {
                    restarted.take().map(Proxy::stop);
                    restarted = Some(start(&address.to_string()));
                }
            }
        });

        match migrates {
            Ok(()) => assert_eq!(counts, Counts { answered: TOTAL, ..Counts::default() }),
            Err(error) => skip(NAME, &format!("net.ipv4.tcp_migrate_req: {error}; {counts:?}")),
        }
    });
}

const TOTAL: usize = RESTARTS * PART;

/// What became of connections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    answered: usize,
    /// They ended before the answer.
    eof: usize,
    reset: usize,
    /// There was no answer in time, or something else.
    other: Vec<String>,
}

impl Counts {
    fn note(&mut self, end: std::io::Result<Vec<u8>>) {
        match end {
            Ok(response) if Response::read(&response).rcode == NOERROR => self.answered += 1,
            Ok(response) => self.other.push(format!("{:?}", Response::read(&response))),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof => self.eof += 1,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.reset += 1,
                _ => self.other.push(error.to_string()),
            },
        }
    }
}

/// Asks once on each connection, together with others, until there were enough.
fn ask_until_all_have(
    server: SocketAddr,
    next: &AtomicUsize,
    seen: &Sender<std::io::Result<Vec<u8>>>,
) {
    while let number = next.fetch_add(1, Ordering::Relaxed)
        && number < TOTAL
    {
        let query = Query::new(&format!("n{number}.example"), A).bytes();
        let way = Duration::from_millis(WAYS[number % WAYS.len()]);
        seen.send(ask(server, &query, way)).expect("it is received until the end");
    }
}

fn ask(server: SocketAddr, query: &[u8], way: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(LIMIT))?;
    std::thread::sleep(way);
    stream.write_all(&framed(query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut response)?;
    Ok(response)
}
