//! The whole forwarder, told events in any order while time goes by.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dot_proxy::forwarder::{
    Action, Closed, ConnId, DatagramPath, Ecs, Forwarder, Hedge, Limits, Order, Policy,
    QueryLogStyle, Stage, UpstreamConnId, UpstreamIdentity, UpstreamIndex,
};

use super::Choices;

/// Choices, and octets where there are some to be received.
pub fn forwarder(octets: &[u8]) {
    let mut choices = Choices::new(octets);
    let mut shell = Shell::new(choices.octet());
    for _ in 0..STEPS_MAX {
        if choices.is_over() {
            break;
        }
        shell.step(&mut choices);
        shell.drain(&mut choices);
        shell.check();
    }
    shell.end();
}

const STEPS_MAX: usize = 2_000;

/// What the forwarder believes in.
struct Shell {
    forwarder: Forwarder,
    upstreams: usize,
    now: Instant,
    conns: Vec<Conn>,
}

struct Conn {
    id: ConnId,
    kind: Kind,
}

enum Kind {
    Client,
    Connecting,
    Open {
        /// What was written and is no whole frame yet.
        written: Vec<u8>,
        /// Queries in the order they came.
        queries: VecDeque<Vec<u8>>,
    },
}

impl Shell {
    fn new(bits: u8) -> Self {
        let ms = Duration::from_millis;
        // Small, so that they are reached.
        let limits = Limits {
            query_timeout: ms(4_500),
            upstream_idle_timeout: ms(15_000),
            client_idle_timeout: ms(10_000),
            queries_max: 16,
            query_bytes_max: 4_096,
            clients_max: 6,
            clients_per_address_max: 3,
            client_queries_max: 4,
            client_output_max: 2_048,
            client_bytes_max: 4_096,
            udp_size_max: None,
            datagram_bytes_max: 4_096,
            datagrams_max: 16,
            late_datagrams_max: 4,
            upstream_conns_max: 4,
            upstream_output_max: 1_024,
            upstream_bytes_max: 160 << 10,
            output_kept: 256,
            query_log_max: 8 << 10,
            query_log: (bits & 1 != 0).then(QueryLogStyle::default),
        };
        let policy = Policy {
            order: [Order::Ordered, Order::Fastest, Order::Spread][usize::from(bits >> 1) % 3],
            hedge: [Hedge::Off, Hedge::Same, Hedge::Any][usize::from(bits >> 3) % 3],
            retry_servfail: bits & 0x20 != 0,
            ecs: if bits & 0x40 != 0 { Ecs::Pass } else { Ecs::Strip },
            ..crate::default_policy()
        };
        let upstreams = ["192.0.2.1#a.example", "192.0.2.2#a.example", "192.0.2.3#b.example"];
        let upstreams = upstreams[..=usize::from(bits >> 6) % 3].iter();
        let upstreams: Vec<_> = upstreams
            .map(|name| UpstreamIdentity {
                shown: (*name).into(),
                operator: u8::from(name.ends_with("b.example")),
            })
            .collect();
        let count = upstreams.len();
        let forwarder = Forwarder::new(limits, policy, upstreams, bits.into());
        Self { forwarder, upstreams: count, now: base(), conns: Vec::new() }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let now = self.now;
        match choices.octet() % 16 {
            0 => {
                let length = choices.octet() % 64;
                let (path, cut) = (path(choices.octet()), choices.octet() % 8 == 7);
                self.forwarder.handle_datagram(now, path, choices.take(length.into()), cut);
            }
            1 | 2 => {
                let path = path(choices.octet());
                self.forwarder.handle_datagram(now, path, &query(choices), false);
            }
            3 => {
                let peer = path(choices.octet()).client;
                if let Some(id) = self.forwarder.handle_accept(now, peer) {
                    self.conns.push(Conn { id: id.into(), kind: Kind::Client });
                }
            }
            4 => {
                let octets = choices.octet() % 64;
                self.client_octets(choices.octet(), choices.take(octets.into()));
            }
            5 | 6 => {
                let client = choices.octet();
                let query = query(choices);
                let frame = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
                self.client_octets(client, &frame);
            }
            7 => self.open(choices.octet()),
            8 => {
                let (which, how) = (choices.octet(), choices.octet());
                if let Some(conn) = pick(&mut self.conns, which, |_| true) {
                    let id = conn.id;
                    self.forwarder.handle_closed(now, id, closed(how));
                }
            }
            9 => {
                let (which, length) = (choices.octet(), choices.octet() % 64);
                let octets = choices.take(length.into());
                if let Some(conn) = pick(&mut self.conns, which, is_open) {
                    let id = conn.id;
                    self.forwarder.handle_stream(now, id, octets);
                }
            }
            10..=12 => self.answer(choices),
            13 => {
                self.now += Duration::from_millis(choices.word().into());
                self.time_passes();
            }
            14 => {
                if let Some(at) = self.forwarder.poll_timeout() {
                    self.now = self.now.max(at);
                    self.time_passes();
                }
            }
            _ => match choices.octet() % 8 {
                0 => self.change_network(choices.octet()),
                1 => self.forwarder.handle_clock_set(now),
                2 => self.forwarder.handle_resume(now),
                _ => {}
            },
        }
    }

    /// An attempt to connect succeeds.
    fn open(&mut self, which: u8) {
        if let Some(conn) = pick(&mut self.conns, which, |kind| matches!(kind, Kind::Connecting))
            && let ConnId::Upstream(id) = conn.id
        {
            conn.kind = Kind::Open { written: Vec::new(), queries: VecDeque::new() };
            self.forwarder.handle_established(self.now, id);
            self.forwarder.handle_connected(self.now, id);
        }
    }

    /// The way to an upstream is another; every second connection is lost with it.
    fn change_network(&mut self, which: u8) {
        let upstream = usize::from(which) % self.upstreams;
        let lost = self.conns.iter().step_by(2).filter_map(|conn| match conn.id {
            ConnId::Upstream(conn) => Some(conn),
            ConnId::Client(_) => None,
        });
        let lost: Vec<UpstreamConnId> = lost.collect();
        self.forwarder.handle_network_change(self.now, UpstreamIndex::new(upstream), &lost);
    }

    fn client_octets(&mut self, which: u8, octets: &[u8]) {
        let conn = pick(&mut self.conns, which, |kind| matches!(kind, Kind::Client));
        if let Some(ConnId::Client(client)) = conn.map(|conn| conn.id) {
            let id = ConnId::Client(client);
            let most = self.forwarder.poll_read(self.now, client).min(octets.len());
            if most > 0 {
                self.forwarder.handle_stream(self.now, id, &octets[..most]);
            }
        }
    }

    /// An upstream answers a query that it has got, well or nearly so.
    fn answer(&mut self, choices: &mut Choices<'_>) {
        let Some(conn) = pick(&mut self.conns, choices.octet(), is_open) else { return };
        let Kind::Open { queries, .. } = &mut conn.kind else { return };
        let Some(mut answer) = queries.pop_front() else { return };
        answer[2] |= 0x80;
        match choices.octet() % 8 {
            0 => answer[3] |= choices.octet() & 15,
            1 => {
                let at = usize::from(choices.word()) % answer.len();
                answer[at] ^= choices.octet();
            }
            2 => answer.truncate(usize::from(choices.word()) % answer.len()),
            3 => {
                // Behind the last record, which a count may include.
                answer[11] = answer[11].wrapping_add(choices.octet() % 3);
                let length = choices.octet() % 64;
                answer.extend(choices.take(length.into()));
            }
            _ => {}
        }
        let id = conn.id;
        let frame = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
        self.forwarder.handle_stream(self.now, id, &frame);
    }

    fn time_passes(&mut self) {
        if self.forwarder.poll_timeout().is_some_and(|at| at <= self.now) {
            self.forwarder.handle_timeout(self.now);
        }
    }

    fn drain(&mut self, choices: &mut Choices<'_>) {
        /// More than any state calls for.
        const TURNS_MAX: usize = 1_000;

        // Now and then a socket takes nothing.
        let blocked = choices.octet() % 8 == 7;
        let mut turns = 0;
        while self.act() || !blocked && self.write() {
            turns += 1;
            assert!(turns < TURNS_MAX, "the forwarder never stops acting");
        }
        let mut count = 0;
        for (_, datagram) in self.forwarder.datagrams() {
            assert!(datagram.len() >= 12 && datagram[2] & 0x80 != 0, "{datagram:02x?}");
            count += 1;
        }
        self.forwarder.advance_datagrams(0, count, 0);
        let log = String::from_utf8(self.forwarder.query_log().to_vec());
        let log = log.expect("the query log is text");
        assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
        self.forwarder.clear_query_log();
    }

    /// Does what the forwarder asks for; whether there was anything.
    fn act(&mut self) -> bool {
        /// More than any state calls for.
        const ACTIONS_MAX: usize = 10_000;

        let mut taken = 0;
        while let Some(action) = self.forwarder.poll_action() {
            taken += 1;
            assert!(taken < ACTIONS_MAX, "the forwarder never stops acting: {action:?}");
            match action {
                // One whose `Connect` was overtaken by its end is not known here.
                Action::Close { conn, .. } => self.conns.retain(|one| one.id != conn),
                Action::InspectPath(conn) => {
                    // Either, in turn.
                    let is_losing = taken % 2 == 0;
                    self.forwarder.handle_path(self.now, conn, is_losing);
                }
                Action::Connect { conn, .. } => {
                    assert!(self.conns.iter().all(|one| one.id != conn.into()));
                    self.conns.push(Conn { id: conn.into(), kind: Kind::Connecting });
                }
                Action::Log(_) | Action::Read(_) | Action::ShutdownWrite(_) => {}
                Action::Transmit(conn) => {
                    assert!(self.conns.iter().any(|one| one.id == conn));
                }
            }
        }
        taken > 0
    }

    /// Every socket takes all there is; whether there was anything.
    fn write(&mut self) -> bool {
        let mut any = false;
        for conn in &mut self.conns {
            let output = self.forwarder.output(conn.id);
            let length = output.len();
            if length == 0 {
                continue;
            }
            any = true;
            match &mut conn.kind {
                Kind::Client => {}
                Kind::Connecting => panic!("{length} octets for a connection that is none yet"),
                Kind::Open { written, queries } => {
                    written.extend(output);
                    while let Some((size, rest)) = written.split_first_chunk() {
                        let size = usize::from(u16::from_be_bytes(*size));
                        let Some(query) = rest.get(..size) else { break };
                        assert!(query.len() > 12 && query[2] & 0x80 == 0, "{query:02x?}");
                        queries.push_back(query.to_vec());
                        written.drain(..2 + size);
                    }
                }
            }
            self.forwarder.advance_output(self.now, conn.id, length);
        }
        any
    }

    fn check(&self) {
        let counts = self.forwarder.counts();
        let left =
            counts.answered + counts.failed + counts.local + counts.cut_short + counts.orphaned;
        assert_eq!(counts.queries, left + counts.owed as u64, "{counts:?}");
        assert_eq!(counts.conns_held, self.conns.len(), "{counts:?}");
    }

    /// Nothing more happens but time: everything owed goes out, and nothing is left.
    fn end(mut self) {
        const TURNS_MAX: usize = 10_000;

        self.forwarder.handle_shutdown(self.now);
        for _ in 0..TURNS_MAX {
            // Action by action until there is none: closing may free what another waits for.
            self.drain(&mut Choices::new(&[]));
            self.check();
            if self.forwarder.is_drained() {
                break;
            }
            if let Some(at) = self.forwarder.poll_timeout() {
                self.now = self.now.max(at);
                self.time_passes();
            }
        }
        let counts = self.forwarder.counts();
        assert!(self.forwarder.is_drained(), "not drained: {counts:?}");
        assert_eq!((counts.owed, counts.queries_held, counts.conns_held), (0, 0, 0), "{counts:?}");
        assert_eq!(self.forwarder.poll_timeout(), None, "a timer is left");
    }
}

/// The beginning of time.
fn base() -> Instant {
    use std::sync::OnceLock;

    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

fn is_open(kind: &Kind) -> bool {
    matches!(kind, Kind::Open { .. })
}

/// One of those that are so.
fn pick(conns: &mut [Conn], which: u8, is_so: impl Fn(&Kind) -> bool) -> Option<&mut Conn> {
    let mut all: Vec<_> = conns.iter_mut().filter(|conn| is_so(&conn.kind)).collect();
    let count = all.len();
    (count > 0).then(|| all.swap_remove(usize::from(which) % count))
}

fn path(which: u8) -> DatagramPath {
    // Few clients, one of which is not served.
    let client: SocketAddr = match which % 8 {
        7 => ([203, 0, 113, 1], 1_000).into(),
        n => ([127, 0, 0, n % 3 + 1], 1_000 + u16::from(n)).into(),
    };
    DatagramPath { listener: 0, client, local: None, interface: 0 }
}

fn closed(how: u8) -> Closed {
    const STAGES: [Stage; 6] = [
        Stage::Connect,
        Stage::Tls,
        Stage::Certificate,
        Stage::Negotiation,
        Stage::Read,
        Stage::Write,
    ];

    match how % 8 {
        0 => Closed::Reset,
        1 => Closed::Eof,
        n => Closed::Failed {
            stage: STAGES[usize::from(n - 2)],
            detail: "the words of the shell".into(),
        },
    }
}

/// A query that can be forwarded, or almost one.
fn query(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut query = vec![0, choices.octet() % 4, 1, choices.octet() & 0x70];
    let kind = choices.octet();
    query.extend([0, 1, 0, 0, 0, 0, 0, u8::from(kind & 1 != 0), 1, b'a' + kind % 16, 0]);
    query.extend([0, if kind & 2 == 0 { 1 } else { 249 }, 0, 1]);
    if kind & 1 != 0 {
        query.extend([0, 0, 41, 16, 0, 0, 0, choices.octet() & 0x80, 0]);
        let options = match kind >> 5 {
            // Padding, keepalive, a client subnet, or anything.
            0 => vec![0, 12, 0, 1, 0],
            1 => vec![0, 11, 0, 0],
            2 => vec![0, 8, 0, 4, 0, 1, 0, 0],
            3 => {
                let length = choices.octet() % 64;
                choices.take(length.into()).to_vec()
            }
            _ => Vec::new(),
        };
        query.extend((options.len() as u16).to_be_bytes());
        query.extend(options);
    }
    query
}
