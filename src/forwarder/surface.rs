//! The words in which the shell and the core talk.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::arena::Id;
use super::edit::Ecs;
use super::{Fact, SpecialNames};

/// Names a connection, of a client or to an upstream, from its start to the moment the shell takes
/// its [`Action::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(super) Id);

impl ConnId {
    /// Small and dense, and not given to another connection before this one's [`Action::Close`] was
    /// taken: an index for the shell's sockets.
    pub fn key(self) -> usize {
        self.0.key()
    }
}

/// Where a datagram came from and how it arrived, which is how its answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramPath {
    /// Index of the listener it arrived on.
    pub listener: u16,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The local address it was sent to; `None` where the listener has one address only.
    pub local: Option<IpAddr>,
    /// Index of the interface it arrived on, 0 if unknown; link-local answers need it.
    pub interface: u32,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the connection and drop its socket; the [`ConnId`] is free from now on.
    Close {
        /// The connection.
        conn: ConnId,
        /// Whether to say goodbye.
        manner: Manner,
        /// Why, in words for the log; `None` of a client.
        why: Option<&'static str>,
    },
    /// Open a TCP connection to the upstream of this index and start TLS on it.
    Connect {
        /// The new connection's name.
        conn: ConnId,
        /// Index into the list given to [`Forwarder::new`](super::Forwarder::new).
        upstream: usize,
    },
    /// Tell the person who runs this program.
    Log(Fact),
    /// A client that was not read because of back-pressure may be read again; no new edge will come.
    Read(ConnId),
    /// Everything owed to this client is written: shut the write side down, and go on reading (and
    /// telling) until the end of the stream, so that the close does not destroy what was written.
    ShutdownWrite(ConnId),
    /// [`Forwarder::output`](super::Forwarder::output) of this connection has grown.
    Transmit(ConnId),
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once, whatever is unsent.
    Abort,
    /// With `close_notify` towards an upstream, as far as it can be written without waiting.
    Orderly,
}

/// How a connection ended on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed: end of stream, or `close_notify` (RFC 8446 section 6.1). From a client it
    /// means only that no more queries follow (RFC 7766 section 6.2.4).
    Eof,
    /// An attempt failed, or an established connection did in a way worth telling.
    Failed {
        /// What was being done.
        stage: Stage,
        /// What happened, in words for the log: "connection refused".
        detail: Box<str>,
    },
    /// Reset, or a write failed.
    Reset,
}

/// The phase of an upstream connection in which something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Establishing TCP.
    Connect,
    /// The rest of the TLS handshake.
    Tls,
    /// The server's certificate did not verify.
    Certificate,
    /// The server speaks no TLS version or no protocol (ALPN) that we speak.
    Negotiation,
    /// Waiting for answers.
    Read,
    /// Sending queries.
    Write,
}

impl Stage {
    /// Whether it will hardly go better a second later.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self, Self::Certificate | Self::Negotiation)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Tls => "TLS handshake",
            Self::Certificate => "certificate",
            Self::Negotiation => "TLS negotiation",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What is done about queries where it is a matter of choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which upstream gets a query.
    pub order: Order,
    /// Who gets a copy of a query whose answer is late.
    pub hedge: Hedge,
    /// Whether a query that an upstream answers with SERVFAIL or REFUSED is asked of one more, of another
    /// operator.
    pub retry_servfail: bool,
    /// What becomes of EDNS Client Subnet options.
    pub ecs: Ecs,
    /// Whether names that are not for the public DNS are forwarded.
    pub special_names: SpecialNames,
}

/// Which of the usable upstreams gets a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first.
    Ordered,
    /// The one that answered fastest lately.
    Fastest,
    /// The one with the fewest queries in flight.
    Spread,
}

/// Who gets a copy of a query whose answer is late. A copy to another operator shows the query's name
/// to one party more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// Nobody.
    Off,
    /// Another address of the same operator.
    Same,
    /// Another upstream, one of the same operator if there is one.
    Any,
}

/// Every bound of the forwarder. Defaults and their reasons are in `config.rs`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A query is answered this long after it arrived, if not by an upstream then by SERVFAIL.
    pub query_timeout: Duration,
    /// An upstream connection idle for this long is closed.
    pub upstream_idle_timeout: Duration,
    /// A client connection idle for this long is closed, sooner if there are many (RFC 7766
    /// section 6.2.3).
    pub client_idle_timeout: Duration,
    /// Client queries held at a time.
    pub queries_max: usize,
    /// Octets of held queries that are longer than 512 octets.
    pub query_bytes_max: usize,
    /// Client connections at a time.
    pub clients_max: usize,
    /// Client connections per source address, loopback excepted, of which those beyond make room first
    /// where no places are left.
    pub clients_per_address_max: usize,
    /// Queries in flight per client connection.
    pub client_queries_max: usize,
    /// Octets of answers held for a client connection, or to be expected, above which it is not read.
    pub client_output_max: usize,
    /// Octets of answers and partial messages held for all client connections.
    pub client_bytes_max: usize,
    /// The largest response by datagram, whatever the client takes; `None` for 1,232 octets, and 4,096 to
    /// loopback addresses.
    pub udp_size_max: Option<u16>,
    /// Octets of answers held for a batch of datagrams.
    pub datagram_bytes_max: usize,
    /// Such answers.
    pub datagrams_max: usize,
    /// Connections to upstreams at a time, those included that are being made or get no new queries.
    pub upstream_conns_max: usize,
    /// Octets unsent on a connection to an upstream above which it gets no more.
    pub upstream_output_max: usize,
    /// Octets of memory for partial answers and unsent queries of all connections to upstreams.
    pub upstream_bytes_max: usize,
    /// Octets of memory for output that a connection keeps while there is none.
    pub output_kept: usize,
    /// Octets of lines of the query log in a turn.
    pub query_log_max: usize,
    /// Whether a line per query is written to [`Forwarder::query_log`](super::Forwarder::query_log).
    pub query_log: bool,
}

impl Limits {
    /// Connections at a time, of clients and to upstreams. A connection that was closed may still have
    /// its place when the next is there.
    pub(super) fn conns_max(&self) -> usize {
        2 * (self.clients_max + self.upstream_conns_max)
    }
}

/// What happened so far and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that call for a response, retransmissions included: as many as are answered,
    /// failed, local, orphaned and owed, together.
    pub queries: u64,
    /// Answered with an upstream's response.
    pub answered: u64,
    /// Answered with a SERVFAIL made here.
    pub failed: u64,
    /// Other answers made here.
    pub local: u64,
    /// Without a response, as their client went away.
    pub orphaned: u64,
    /// Datagrams that were not for this host alone, or came from port 0.
    pub ignored: u64,
    /// Messages dropped: QR=1 or under 12 octets (RFC 5625 section 6.3).
    pub dropped: u64,
    /// Retransmissions dropped: more of one query than are answered.
    pub repeated: u64,
    /// Client connections closed because clients held too many octets.
    pub shed: u64,
    /// Client connections refused because there were too many, of their network too.
    pub crowded_out: u64,
    /// Client connections closed to make room for others: idle ones, or those of a network with too many.
    pub made_room: u64,
    /// Datagrams and connections from addresses that are not served.
    pub refused: u64,
    /// Datagrams to clients that could not be sent, or found the buffer full.
    pub datagrams_dropped: u64,
    /// Responses of an upstream that belonged to no query.
    pub unmatched: u64,
    /// Connections to upstreams attempted.
    pub connects: u64,
    /// Queries sent again after the first time.
    pub resent: u64,
    /// Copies sent because an answer was late.
    pub hedged: u64,
    /// Queries asked again with less of EDNS, as an upstream objected to it.
    pub asked_plainer: u64,
    /// Queries asked of another operator because of SERVFAIL or REFUSED.
    pub retried: u64,
    /// Connections to upstreams closed to make room for others.
    pub made_way: u64,
    /// Held now: responses owed to clients.
    pub owed: usize,
    /// Held now: places in the query table.
    pub queries_held: usize,
    /// Held now: connections, clients and upstreams, including those not yet closed by the shell.
    pub conns_held: usize,
}
