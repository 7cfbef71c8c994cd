//! The servers' end of the simulated network, above TLS.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use dot_proxy::forwarder::{Closed, Manner, Stage, UpstreamConnId};

use super::dns;
use super::path::Path;
use support::Random;

/// What becomes of an attempt: by the number of its [`Link`] and the time.
pub(crate) type Decide = Box<dyn FnMut(usize, Duration, &mut Random) -> Attempt>;

/// What follows a query.
pub(crate) type Reply = Box<dyn FnMut(&Ask<'_>, &mut Random) -> Vec<Step>>;

/// A DoT server: what becomes of connection attempts and of queries.
pub struct Server {
    pub attempt: Decide,
    pub reply: Reply,
    /// Connections without traffic for this long are closed.
    pub idle_close: Option<Duration>,
}

impl Server {
    /// Connects in 20 ms and answers everything after 10 ms.
    pub fn healthy() -> Self {
        Self {
            attempt: Box::new(|_, _, _| Attempt::good(10)),
            reply: Box::new(|ask, _| vec![ask.answer_after(10)]),
            idle_close: None,
        }
    }

    /// From now on every attempt ends like this.
    pub fn attempts(&mut self, attempt: Attempt) {
        self.attempt = Box::new(move |_, _, _| attempt.clone());
    }

    /// From now on this follows each query.
    pub fn replies(&mut self, mut reply: impl FnMut(&Ask<'_>) -> Vec<Step> + 'static) {
        self.reply = Box::new(move |ask, _| reply(ask));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// The stage of a failed attempt, and what happened.
pub(crate) type Failure = (Stage, &'static str);

/// What becomes of a connection attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When TCP stands, counted from the attempt.
    pub established: Option<Duration>,
    /// How it goes on, counted from the attempt; `None` is silence.
    pub end: Option<(Duration, Result<(), Failure>)>,
}

impl Attempt {
    /// Two round trips of `round_trip` milliseconds.
    pub fn good(round_trip: u64) -> Self {
        let round_trip = Duration::from_millis(round_trip);
        Self { established: Some(round_trip), end: Some((2 * round_trip, Ok(()))) }
    }

    /// TCP stands after 10 ms, TLS `milliseconds` after the attempt.
    pub fn slow_tls(milliseconds: u64) -> Self {
        let end = Some((Duration::from_millis(milliseconds), Ok(())));
        Self { established: Some(Duration::from_millis(10)), end }
    }

    pub fn refused() -> Self {
        let failure = Err((Stage::Connect, "connection refused"));
        Self { established: None, end: Some((Duration::from_millis(10), failure)) }
    }

    pub fn unreachable() -> Self {
        let failure = Err((Stage::Connect, "network is unreachable"));
        Self { established: None, end: Some((Duration::ZERO, failure)) }
    }

    pub fn black_hole() -> Self {
        Self { established: None, end: None }
    }

    /// Accepts TCP and never speaks TLS.
    pub fn mute() -> Self {
        Self { established: Some(Duration::from_millis(10)), end: None }
    }

    pub fn failed(stage: Stage, detail: &'static str) -> Self {
        let established = Some(Duration::from_millis(10));
        Self { established, end: Some((Duration::from_millis(20), Err((stage, detail)))) }
    }
}

/// A query as a server gets it.
#[derive(Debug)]
pub struct Ask<'a> {
    pub at: Duration,
    pub link: usize,
    /// 1 for the first query on this connection.
    pub nth: usize,
    /// The name as it is spelled.
    pub name: &'a str,
    pub message: &'a [u8],
    /// For [`dns::answer`]; no other answer has it.
    pub serial: u64,
    /// Answers already given on this connection.
    pub answered: usize,
}

impl Ask<'_> {
    pub fn answer(&self) -> Vec<u8> {
        dns::answer(self.message, self.serial, dns::NOERROR, 0)
    }

    pub fn answer_after(&self, milliseconds: u64) -> Step {
        Step::after(milliseconds, Do::Answer(self.answer()))
    }
}

/// Something a server does after a while.
#[derive(Clone, Debug)]
pub struct Step {
    pub after: Duration,
    pub what: Do,
}

impl Step {
    pub fn after(milliseconds: u64, what: Do) -> Self {
        Self { after: Duration::from_millis(milliseconds), what }
    }
}

/// What a server can do to a connection.
#[derive(Clone, Debug)]
pub enum Do {
    /// Send this message; it need not be a good answer.
    Answer(Vec<u8>),
    /// Close, behind what was sent (`Eof`) or at once.
    Close(Closed),
    /// Send octets, whatever they are.
    Octets(Vec<u8>),
    /// From now on what is sent arrives so many octets at a time, with this pause between.
    Pace(usize, Duration),
    /// Forget the connection: nothing more goes either way, and nobody is told.
    Forget,
    /// A segment of this direction is lost, and again when it is sent again: what is sent arrives after this time,
    /// in order.
    Hold(Direction, Duration),
    /// Have this query come to a listener, as it does behind a server that ends TLS for the forwarder.
    Return(Vec<u8>),
    /// Take no more octets.
    StopReading,
}

/// Where octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    FromServer,
}

/// One connection to a server, kept for the story after it is closed.
#[derive(Debug)]
pub struct Link {
    pub server: usize,
    /// `None` once closed by the forwarder.
    pub conn: Option<UpstreamConnId>,
    pub attempted: Duration,
    pub connected: Option<Duration>,
    pub closed: Option<(Duration, Manner)>,
    /// Every query that arrived.
    pub seen: Vec<Seen>,
    pub forgotten: bool,
    pub(super) path: Path,
    /// Octets the network still takes from a server that stopped reading.
    pub room: Option<usize>,
    /// The end was told to the forwarder.
    pub(super) told_end: bool,
    pub(super) end: Option<Closed>,
    pub(super) pace: Option<(usize, Duration)>,
    /// Octets that the forwarder wrote and that make no whole frame yet.
    pub(super) written: Vec<u8>,
    /// Queries that it wrote, and when the last.
    pub(super) asked: usize,
    pub last_asked: Option<Duration>,
    /// Octets from the forwarder that have arrived and make no whole frame yet.
    pub(super) inbound: Vec<u8>,
    /// Octets for the forwarder that were not read yet.
    pub(super) outbound: VecDeque<u8>,
    /// Since when there were always some, and until when, where they were not all read at once.
    pub(super) unread: Option<RangeInclusive<Duration>>,
    /// IDs of queries without an answer so far.
    pub(super) outstanding: HashMap<u16, Vec<u8>>,
    /// IDs under which a response without a question was sent although no query had them: it passes for
    /// that of the next query under its ID, which the server still believes outstanding then.
    pub(super) misleading: HashSet<u16>,
    pub(super) answered: usize,
    pub(super) active: Duration,
    pub(super) due: Edges,
}

/// Edges that the forwarder is still to be told.
#[derive(Debug, Default)]
pub(super) struct Edges {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// A query that reached a server.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Duration,
    pub id: u16,
    pub name: String,
    pub has_opt: bool,
    pub asks_keepalive: bool,
    /// Octets of the message.
    pub length: usize,
}

impl Link {
    pub(super) fn new(server: usize, conn: UpstreamConnId, at: Duration, path: Path) -> Self {
        Self {
            server,
            conn: Some(conn),
            attempted: at,
            connected: None,
            closed: None,
            seen: Vec::new(),
            forgotten: false,
            path,
            room: None,
            told_end: false,
            end: None,
            pace: None,
            written: Vec::new(),
            asked: 0,
            last_asked: None,
            inbound: Vec::new(),
            outbound: VecDeque::new(),
            unread: None,
            outstanding: HashMap::new(),
            misleading: HashSet::new(),
            answered: 0,
            active: at,
            due: Edges::default(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.connected.is_some() && self.conn.is_some() && !self.told_end
    }

    /// The server closed it, and the forwarder was told.
    pub fn saw_server_close(&self) -> bool {
        self.told_end
    }

    /// Nothing goes either way any more.
    pub fn forget(&mut self, at: Duration) {
        self.forgotten = true;
        self.path.forget(at);
    }

    /// Whether the forwarder sent something after this time, or would have closed the connection if it never will.
    pub(super) fn is_used_after(&self, at: Duration) -> bool {
        self.is_open() && (self.last_asked >= Some(at) || self.asked == self.answered)
    }

    /// Some octets were read, and others may be left.
    pub(super) fn note_read(&mut self, at: Duration, was_behind: bool) {
        let since = self.unread.as_ref().filter(|_| was_behind).map_or(at, |it| *it.start());
        self.unread = Some(since..=at);
    }

    /// Names of the queries that arrived, in order.
    pub fn names(&self) -> Vec<&str> {
        self.seen.iter().map(|seen| seen.name.as_str()).collect()
    }
}
