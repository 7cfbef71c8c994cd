//! The simulated network and the shell around the forwarder, under a virtual clock.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use dot_proxy::forwarder::{
    Access, ClientId, ConnId, DatagramPath, Forwarder, Limits, Notice, Policy, Prefix, Stage,
    UpstreamConnId, UpstreamIdentity,
};

use super::client::{State, TcpClient};
use super::default_policy;
use super::oracle::Oracle;
use super::path::Manner;
use super::rates::Meter;
use super::server::{Do, Link, Server};
use super::ways_round::WaysRound;
use support::Random;

/// How roughly the shell and the network treat the octets.
#[derive(Clone, Copy, Debug)]
pub struct Roughness {
    /// The most octets of one read; they are cut at random up to this.
    pub read_max: usize,
    /// Writes take a random part of what is offered.
    pub short_writes: bool,
    /// A turn starts up to this late, and takes in all that happened until then.
    pub late_max: Duration,
}

impl Roughness {
    pub const NONE: Self =
        Self { read_max: usize::MAX, short_writes: false, late_max: Duration::ZERO };

    /// How much of `waiting` octets one read gives. Only the last few of many are cut small.
    pub(super) fn read_length(&self, waiting: usize, rng: &mut Random) -> usize {
        let most = waiting.min(16 * 1024);
        match self.read_max {
            usize::MAX => most,
            _ if waiting > 2000 => rng.within(1, most),
            small => rng.within(1, most.min(small)),
        }
    }
}

/// Everything there is: the forwarder, its shell, servers, clients, the clock and the judge.
pub struct World {
    pub forwarder: Forwarder,
    pub oracle: Oracle,
    pub servers: Vec<Server>,
    /// Every connection to a server there ever was, in order of the attempts.
    pub links: Vec<Link>,
    pub clients: Vec<TcpClient>,
    /// What was logged, and when.
    pub notices: Vec<(Duration, Notice)>,
    /// Lines of the query log.
    pub query_log: Vec<String>,
    pub roughness: Roughness,
    /// What the path of the next connection is like: by its server and the time.
    pub path: Box<dyn FnMut(usize, Duration) -> Manner>,
    /// The longest round trip, where the paths are all that is bad: then what goes another way is judged.
    pub round_trip: Option<Duration>,
    pub(super) ways_round: WaysRound,
    pub rng: Random,
    /// A digest of what the forwarder did, turn by turn.
    pub turns: Vec<u64>,
    pub trace: bool,
    pub(super) limits: Limits,
    pub(super) access: Access,
    /// The subnets of the host's interfaces.
    pub(super) subnets: Vec<Prefix>,
    pub(super) meter: Meter,
    /// When the forwarder was told to end.
    pub(super) ended_at: Option<Duration>,
    /// Clients that the forwarder has not accepted, in order.
    pub(super) backlog: VecDeque<usize>,
    pub(super) waiting: Waiting,
    /// Clients that kept the rules and were closed for what all held.
    pub(super) blameless_shed: u64,
    pub(super) base: Instant,
    pub now: Instant,
    pub(super) events: BinaryHeap<Reverse<Event>>,
    pub(super) events_made: u64,
    /// By the key of the connection.
    pub(super) sockets: Sockets,
    pub(super) serial: u64,
    pub(super) asked: u16,
    /// Datagrams in the forwarder's buffer that were judged, but not sent yet.
    pub(super) datagrams_judged: usize,
    pub(super) datagrams_blocked: bool,
    pub(super) idle_turns: usize,
    /// How long the process will be stopped after this turn.
    pub(super) frozen_for: Duration,
    pub(super) digest: DefaultHasher,
}

/// Since when clients have waited to be accepted, and whom another may be closed for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The earliest that it can be.
    pub(super) since: Option<Duration>,
    /// The latest time that it can have begun.
    pub(super) surely_since: Option<Duration>,
    /// One that has waited for long is being accepted: who crowds it out gives way, whatever it is owed.
    pub(super) favours_newcomer: bool,
}

/// The sockets of the shell, by key.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    clients: Vec<Option<Socket>>,
    upstreams: Vec<Option<Socket>>,
}

impl Sockets {
    pub(super) fn get(&self, conn: ConnId) -> Option<Socket> {
        let table = match conn {
            ConnId::Client(_) => &self.clients,
            ConnId::Upstream(_) => &self.upstreams,
        };
        table.get(conn.key()).copied().flatten()
    }

    /// Every socket that is open.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.clients.iter().chain(&self.upstreams).flatten()
    }

    /// The place of this key.
    pub(super) fn place(&mut self, conn: ConnId) -> &mut Option<Socket> {
        let table = match conn {
            ConnId::Client(_) => &mut self.clients,
            ConnId::Upstream(_) => &mut self.upstreams,
        };
        if table.len() <= conn.key() {
            table.resize(conn.key() + 1, None);
        }
        &mut table[conn.key()]
    }
}

/// What a socket of the shell is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Socket {
    Client { conn: ClientId, client: usize },
    Upstream { conn: UpstreamConnId, link: usize },
}

/// Something that happens at a time.
#[derive(Debug)]
pub(super) struct Event {
    at: Instant,
    /// Breaks ties, so that a run repeats.
    number: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What can happen.
#[derive(Debug)]
pub enum What {
    ClientBytes {
        client: usize,
        bytes: Vec<u8>,
    },
    ClientConnects {
        client: usize,
    },
    ClientFin {
        client: usize,
    },
    /// The client takes everything from now on.
    ClientReads {
        client: usize,
    },
    ClientResets {
        client: usize,
    },
    Datagram {
        path: DatagramPath,
        message: Vec<u8>,
        cut: bool,
    },
    /// Nothing runs for this long: the process was stopped.
    Freeze {
        length: Duration,
    },
    /// The way to a server is another, which its connections survive or not.
    NetworkChange {
        server: usize,
        lost: bool,
    },
    Resume,
    ClockSet,
    /// A server does something to one of its connections.
    Serve {
        link: usize,
        what: Do,
    },
    /// All connections of a server are forgotten, as when it or the way to it dies.
    ServerDies {
        server: usize,
    },
    /// Servers that stopped reading go on.
    ServersRead,
    Shutdown,
    /// These servers are asked from now on, in order; a new one is another in the place of the one before.
    Upstreams {
        asked: Vec<(usize, bool)>,
    },
    /// The subnets of the host's interfaces are others.
    Subnets {
        subnets: Vec<Prefix>,
    },
    // The rest the network makes itself.
    AttemptFails {
        link: usize,
        stage: Stage,
        detail: &'static str,
    },
    ClientReadable {
        client: usize,
    },
    ClientWritable {
        client: usize,
    },
    Connected {
        link: usize,
    },
    DatagramsWritable,
    Established {
        link: usize,
    },
    LinkIdle {
        link: usize,
        since: Duration,
    },
    LinkReadable {
        link: usize,
    },
    LinkWritable {
        link: usize,
    },
    /// Octets that were under way are there.
    LinkGoesOn {
        link: usize,
    },
}

/// Building it and letting time pass.
impl World {
    /// Servers of an operator each, in order.
    pub fn new(limits: Limits, servers: Vec<Server>, seed: u64) -> Self {
        let operators: Vec<usize> = (0..servers.len()).collect();
        Self::with_policy(limits, default_policy(), servers, &operators, seed)
    }

    /// `operators` has the number of each server's operator.
    pub fn with_policy(
        limits: Limits,
        policy: Policy,
        servers: Vec<Server>,
        operators: &[usize],
        seed: u64,
    ) -> Self {
        let names = operators.iter().enumerate();
        let names = names.map(|(n, operator)| UpstreamIdentity {
            shown: format!("192.0.2.{n}#dns{operator}.example").into(),
            operator: *operator as u8,
        });
        let base = Instant::now();
        Self {
            oracle: Oracle::new(&limits, &policy),
            limits: limits.clone(),
            access: policy.access.clone(),
            subnets: Vec::new(),
            meter: Meter::new(policy.rate.clone()),
            ended_at: None,
            backlog: VecDeque::new(),
            waiting: Waiting::default(),
            blameless_shed: 0,
            forwarder: Forwarder::new(limits, policy, names.collect(), seed),
            servers,
            links: Vec::new(),
            clients: Vec::new(),
            notices: Vec::new(),
            query_log: Vec::new(),
            roughness: Roughness::NONE,
            path: Box::new(|_, _| Manner::default()),
            round_trip: None,
            ways_round: WaysRound::default(),
            rng: Random::new(seed ^ 0x5eed),
            turns: Vec::new(),
            trace: false,
            base,
            now: base,
            events: BinaryHeap::new(),
            events_made: 0,
            sockets: Sockets::default(),
            serial: 0,
            asked: 0,
            datagrams_judged: 0,
            datagrams_blocked: false,
            idle_turns: 0,
            frozen_for: Duration::ZERO,
            digest: DefaultHasher::new(),
        }
    }

    /// Octets of answers that clients have not taken.
    pub fn held_for_clients(&self) -> usize {
        let clients = self.clients.iter().filter_map(|client| client.conn);
        clients.map(|conn| self.forwarder.output(conn.into()).len()).sum()
    }

    /// Time since the start.
    pub fn at(&self) -> Duration {
        self.now - self.base
    }

    /// `what` happens `after` from now.
    pub fn schedule(&mut self, after: Duration, what: What) {
        let number = self.events_made;
        self.events_made += 1;
        self.events.push(Reverse(Event { at: self.now + after, number, what }));
    }

    /// Lets time pass.
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let event = self.events.peek().map(|Reverse(event)| event.at);
            let timeout = self.forwarder.poll_timeout();
            let accept = self.accept_at();
            let Some(next) = event.into_iter().chain(timeout).chain(accept).min() else {
                break;
            };
            if next > end {
                break;
            }
            let late = self.rng.up_to(self.roughness.late_max);
            self.now = self.now.max(next + late);
            self.turn();
        }
        self.now = self.now.max(end);
    }

    pub fn run_ms(&mut self, milliseconds: u64) {
        self.run_for(Duration::from_millis(milliseconds));
    }

    /// The forwarder decides by this from now on, as after its configuration was read again.
    pub fn decide_by(&mut self, policy: Policy) {
        self.meter = Meter::new(policy.rate.clone());
        self.access = policy.access.clone();
        self.expect_strangers_to_go();
        self.forwarder.handle_policy(self.now, policy, &self.limits, &[]);
    }

    /// Shuts down, and checks that nothing is left.
    pub fn finish(&mut self) {
        self.schedule(Duration::ZERO, What::Shutdown);
        self.run_ms(1);
        for _ in 0..100 {
            if self.forwarder.is_drained() {
                break;
            }
            self.run_ms(100);
        }
        assert!(self.forwarder.is_drained(), "not drained 10 s after the shutdown");
        assert!(self.oracle.owes_nothing(), "drained with answers owed");
        let counts = self.forwarder.counts();
        assert_eq!((counts.queries_held, counts.conns_held), (0, 0), "held at the end");
        assert_eq!(self.forwarder.poll_timeout(), None, "a timer is left at the end");
        assert!(self.sockets.iter().next().is_none(), "a socket is left at the end");
        let counted = counts.answered + counts.failed + counts.local + counts.cut_short;
        let responses = self.oracle.responses.len() as u64 + self.oracle.gone();
        let blameless = self.clients.iter().all(|c| c.state != State::Reset && !c.offender);
        let matches = if blameless { counted == responses } else { counted >= responses };
        assert!(matches, "{responses} responses, but {counts:?}");
    }

    /// One turn of the shell's loop, at the present time.
    fn turn(&mut self) {
        let mut told = false;
        while let Some(Reverse(event)) = self.events.peek()
            && event.at <= self.now
        {
            let Some(Reverse(event)) = self.events.pop() else {
                break;
            };
            told = true;
            self.deliver(event.what);
        }
        self.accept();
        if self.forwarder.poll_timeout().is_some_and(|due| due <= self.now) {
            self.note(format_args!("handle_timeout"));
            self.forwarder.handle_timeout(self.now);
        }
        self.drain();
        self.check(told);
        let frozen_for = std::mem::take(&mut self.frozen_for);
        self.oracle.note_frozen(frozen_for);
        self.now += frozen_for;
    }

    /// What must hold after every turn.
    fn check(&mut self, told: bool) {
        let is_due = self.forwarder.poll_timeout().is_some_and(|due| due <= self.now);
        self.idle_turns = if is_due && !told { self.idle_turns + 1 } else { 0 };
        assert!(self.idle_turns < 4, "the timers do not advance at {:?}", self.at());
        self.oracle.check_deadlines(self.at(), &self.forwarder.counts());
        let all_keep_rules = self.clients.iter().all(|client| !client.offender);
        self.oracle.check_counts(self.at(), &self.forwarder.counts(), all_keep_rules);
        if let Some(round_trip) = self.round_trip {
            let (responses, copies) = (&self.oracle.responses, &self.oracle.copies);
            self.ways_round.check(responses, &self.links, copies, round_trip);
        }
        let held = self.held_for_clients();
        assert!(held <= self.limits.client_bytes_max, "{held} octets are held for clients");
        let is_upstream = |socket: &&Socket| matches!(socket, Socket::Upstream { .. });
        let upstreams = self.sockets.iter().filter(is_upstream).count();
        assert!(
            upstreams <= self.limits.upstream_conns_max,
            "{upstreams} connections to upstreams"
        );
        let counts = self.forwarder.counts();
        let may_ask = self.clients.iter().any(|c| c.conn.is_some() && !c.dealings.ended);
        let is_done = self.ended_at.is_some() && !may_ask && counts.owed == 0;
        let left = (counts.queries_held, upstreams);
        assert!(
            !is_done || left == (0, 0),
            "nothing is owed any more, and these are left: {left:?}"
        );
        let shed = counts.shed;
        assert!(self.blameless_shed <= shed, "closed with answers owed, and not for what all held");
        self.check_places();
        for socket in self.sockets.iter() {
            match *socket {
                Socket::Upstream { conn, link } => {
                    let link = &self.links[link];
                    assert!(!link.told_end, "{conn:?} ended, and is not closed");
                    let output = self.forwarder.output(conn.into()).len();
                    assert!(link.connected.is_some() || output == 0, "{conn:?}: output before TLS");
                    assert!(output <= 128 * 1024, "{conn:?}: {output} octets of output");
                }
                Socket::Client { conn, client } => {
                    let reset = self.clients[client].state == State::Reset;
                    assert!(!reset, "{conn:?} was reset, and is not closed");
                }
            }
        }
        self.turns.push(self.digest.finish());
    }

    /// The most connections to a server at a time on which queries were sent then or later.
    pub fn most_conns_in_use(&self, server: usize) -> usize {
        let uses = |link: &&Link| Some((link.connected?, link.last_asked?));
        let uses: Vec<_> = self.links_to(server).iter().filter_map(uses).collect();
        let at_a_time =
            |at| uses.iter().filter(|(from, until)| (*from..*until).contains(at)).count();
        uses.iter().map(|(from, _)| at_a_time(from)).max().unwrap_or_default()
    }

    /// Queries on connections that missed segments and were to be answered on others.
    pub fn judged_ways_round(&self) -> u64 {
        self.ways_round.judged()
    }

    /// Not all of the places for clients are taken.
    pub(super) fn are_places_free(&self) -> bool {
        let connected = self.clients.iter().filter(|client| client.conn.is_some());
        connected.count() < self.limits.clients_max
    }

    /// No more clients are connected than may be.
    fn check_places(&self) {
        let connected = || self.clients.iter().filter(|client| client.conn.is_some());
        let all = connected().count();
        assert!(all <= self.limits.clients_max, "{all} clients are connected");
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        if self.trace {
            // Not `eprintln!`, which the test harness holds back.
            let at = self.at().as_secs_f64() * 1e3;
            writeln!(io::stderr(), "{at:>10.3} ms  {what}").expect("stderr is open");
        }
    }
}

impl Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
