//! The forwarder's core at work, without sockets, TLS and clock: `scripts/core-bench` counts its
//! instructions.
//!
//! Clients ask and servers answer in turns, as they do in the loop of the program: a batch of queries
//! comes in, what the core sends is cut into frames, and as many answers come back as keep the number of
//! queries in flight. Time passes by a millisecond a turn. What clients and servers do here is counted,
//! too: it is little, and always the same.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dot_proxy::config::{self, Command, Config, Host};
use dot_proxy::forwarder::{
    Action, ClientId, ConnId, DatagramPath, Forwarder, UpstreamConnId, UpstreamIdentity,
};
use support::Query;
use support::message::{A, framed};

const USAGE: &str = "\
usage: core-bench [--queries N] [--tcp] [--in-flight N] [--clients N] [--upstreams N] [--edns] [--with FLAG]
  --queries N     how many queries are asked (20000)
  --tcp           over TCP connections, not UDP
  --in-flight N   queries that wait for their answers at a time (100)
  --clients N     addresses that ask, over TCP with a connection each (8)
  --upstreams N   configured; the first is asked (1)
  --edns          queries have an OPT record with the DO bit
  --with FLAG     a flag of the program, such as --deny=10.0.0.0/8: what gets no answer counts as done
";

/// Queries that arrive in a turn, and answers.
const BATCH: usize = 32;

const TURN: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    match parse() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(options)) => {
            let answered = Bench::new(&options).run(options.queries);
            println!("{answered} answered");
            if answered == options.queries { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("core-bench: {error}; see --help");
            ExitCode::from(2)
        }
    }
}

struct Options {
    queries: usize,
    tcp: bool,
    in_flight: usize,
    clients: usize,
    upstreams: usize,
    edns: bool,
    with: Option<OsString>,
}

/// `None`: only help was wanted.
fn parse() -> Result<Option<Options>, String> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{USAGE}");
        return Ok(None);
    }
    let options = Options {
        tcp: args.contains("--tcp"),
        edns: args.contains("--edns"),
        queries: number(&mut args, "--queries", 20_000)?,
        in_flight: number(&mut args, "--in-flight", 100)?,
        clients: number(&mut args, "--clients", 8)?,
        upstreams: number(&mut args, "--upstreams", 1)?,
        with: args.opt_value_from_str("--with").map_err(|error| error.to_string())?,
    };
    match args.finish().first() {
        Some(stray) => Err(format!("unknown argument {}", stray.display())),
        None => Ok(Some(options)),
    }
}

fn number(
    args: &mut pico_args::Arguments,
    flag: &'static str,
    default: usize,
) -> Result<usize, String> {
    let value = args.opt_value_from_str(flag).map_err(|error| error.to_string())?;
    Ok(value.unwrap_or(default).max(1))
}

struct Bench {
    forwarder: Forwarder,
    now: Instant,
    in_flight: usize,
    clients: Vec<Client>,
    upstream: Option<UpstreamConnId>,
    /// The query that is asked, but for its ID and the digits of its name.
    query: Vec<u8>,
    asked: usize,
    answered: usize,
    /// Frames that the server has not answered, the first of them not whole perhaps.
    received: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
    /// Spent buffers of [`Self::waiting`].
    spent: Vec<Vec<u8>>,
}

struct Client {
    path: DatagramPath,
    conn: Option<ClientId>,
}

impl Bench {
    fn new(options: &Options) -> Self {
        let mut forwarder = forwarder(options.upstreams, options.with.clone());
        let now = start();
        let clients = (0..options.clients).map(|number| {
            // Each client is of its own network, as far as there are such.
            let address = Ipv4Addr::new(10, (number >> 8) as u8, number as u8, 1);
            let client = SocketAddr::new(IpAddr::V4(address), 4000);
            let path = DatagramPath { listener: 0, client, local: None, interface: 0 };
            let conn = options.tcp.then(|| forwarder.handle_accept(now, client)).flatten();
            Client { path, conn }
        });
        let clients: Vec<Client> = clients.collect();
        assert!(
            !options.tcp || clients.iter().all(|client| client.conn.is_some()),
            "every client is accepted"
        );
        Self {
            forwarder,
            now,
            in_flight: options.in_flight,
            clients,
            upstream: None,
            query: query(options.edns),
            asked: 0,
            answered: 0,
            received: Vec::new(),
            waiting: VecDeque::new(),
            spent: Vec::new(),
        }
    }

    /// Returns how many of the queries were answered, or are not to be.
    fn run(&mut self, queries: usize) -> usize {
        let mut answers = Vec::new();
        while self.answered < queries {
            let before = self.answered;
            self.ask(BATCH.min(queries - self.asked));
            self.drain();
            self.cut();
            let kept = if self.asked < queries { self.in_flight.saturating_sub(BATCH) } else { 0 };
            self.answer(self.waiting.len().saturating_sub(kept).min(BATCH), &mut answers);
            self.drain();
            self.now += TURN;
            if self.forwarder.poll_timeout().is_some_and(|at| at <= self.now) {
                self.forwarder.handle_timeout(self.now);
            }
            if self.answered == before && self.asked == queries && self.waiting.is_empty() {
                break;
            }
        }
        let counts = self.forwarder.counts();
        // Of those above a rate some get an answer that is made here.
        self.answered + (counts.refused + counts.above_rate - counts.local) as usize
    }

    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.asked;
            self.asked += 1;
            self.query[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            let mut rest = number;
            for digit in self.query[DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let client = &self.clients[number % self.clients.len()];
            match client.conn {
                Some(conn) => {
                    // A shell must not read a client that is held back.
                    if self.forwarder.poll_read(self.now, conn) > 0 {
                        self.forwarder.handle_stream(self.now, conn.into(), &self.query);
                    } else {
                        self.asked -= 1;
                        return;
                    }
                }
                None => {
                    self.forwarder.handle_datagram(self.now, client.path, &self.query[2..], false);
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Connect { conn, .. } => {
                    self.upstream = Some(conn);
                    self.forwarder.handle_established(self.now, conn);
                    self.forwarder.handle_connected(self.now, conn);
                }
                Action::Transmit(conn) => {
                    let output = self.forwarder.output(conn);
                    let len = output.len();
                    if self.upstream.map(ConnId::Upstream) == Some(conn) {
                        self.received.extend_from_slice(output);
                    } else {
                        self.answered += frames(output);
                    }
                    self.forwarder.advance_output(self.now, conn, len);
                }
                Action::Close { .. }
                | Action::Log(_)
                | Action::InspectPath(_)
                | Action::Read(_)
                | Action::ShutdownWrite(_) => {}
            }
        }
        let count = self.forwarder.datagrams().count();
        self.answered += count;
        self.forwarder.advance_datagrams(0, count, 0);
    }

    /// What arrived at the server, as messages.
    fn cut(&mut self) {
        let mut at = 0;
        while let Some(len) = frame_len(&self.received[at..]) {
            let mut message = self.spent.pop().unwrap_or_default();
            message.clear();
            message.extend_from_slice(&self.received[at + 2..at + 2 + len]);
            self.waiting.push_back(message);
            at += 2 + len;
        }
        self.received.drain(..at);
    }

    /// The server's answers to the oldest queries.
    fn answer(&mut self, count: usize, answers: &mut Vec<u8>) {
        answers.clear();
        for message in self.waiting.drain(..count) {
            let len = QUESTION_END + ANSWER.len() + OPT.len();
            answers.extend_from_slice(&(len as u16).to_be_bytes());
            let start = answers.len();
            answers.extend_from_slice(&message[..QUESTION_END]);
            answers[start + 2..start + 12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
            answers.extend_from_slice(ANSWER);
            answers.extend_from_slice(OPT);
            self.spent.push(message);
        }
        if let Some(conn) = self.upstream
            && !answers.is_empty()
        {
            self.forwarder.handle_stream(self.now, conn.into(), answers);
        }
    }
}

fn forwarder(upstreams: usize, flag: Option<OsString>) -> Forwarder {
    let Ok(Command::Run(config)) = config::parse(Vec::from_iter(flag), Host::default()) else {
        panic!("not a flag of the program");
    };
    let Config { mut limits, policy, metrics, .. } = *config;
    // So that all may come from one address.
    limits.clients_per_address_max = limits.clients_max;
    let names = (1..=upstreams).map(|number| UpstreamIdentity {
        shown: format!("192.0.2.{number}:853#dot.example").into(),
        operator: 0,
    });
    let mut forwarder = Forwarder::new(limits, policy, names.collect(), 1);
    if metrics.is_some() {
        forwarder.enable_measures();
    }
    forwarder
}

fn start() -> Instant {
    Instant::now()
}

/// The length of the frame in front, if it is whole.
fn frame_len(octets: &[u8]) -> Option<usize> {
    let len = usize::from(u16::from_be_bytes(*octets.first_chunk()?));
    (octets.len() >= 2 + len).then_some(len)
}

fn frames(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while let Some(len) = frame_len(octets) {
        octets = &octets[2 + len..];
        count += 1;
    }
    count
}

/// A frame with a query for `n00000000.bench.example. IN A`, with RD.
fn query(edns: bool) -> Vec<u8> {
    let query = Query::new("n00000000.bench.example", A).id(0);
    let query = if edns { query.opt(1232).edns_flags(0x8000) } else { query };
    framed(&query.bytes())
}

/// The digits of the name, in a frame.
const DIGITS: std::ops::Range<usize> = 16..24;

/// The end of the question of [`query`], without the length of its frame.
const QUESTION_END: usize = 12 + 25 + 4;

const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01";

/// With padding to 128 octets; servers pad to 468, which is as much work.
const OPT: &[u8] = &{
    let mut opt = [0; 11 + 4 + PADDING];
    opt[2] = 41;
    opt[3] = 0x04;
    opt[4] = 0xd0;
    opt[10] = 4 + PADDING as u8;
    opt[12] = 12;
    opt[14] = PADDING as u8;
    opt
};

const PADDING: usize = 128 - QUESTION_END - 16 - 15;
