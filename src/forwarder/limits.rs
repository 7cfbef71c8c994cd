//! Bounds of the forwarder, and what it does where there is a choice.

use std::time::Duration;

use super::clients::access::Access;
use super::clients::rates::Rate;
pub use super::message::edit::Ecs;
use super::message::frame;
pub use super::message::private::PrivateAnswers;
pub use super::message::special::SpecialNames;
pub use super::query_log::{ClientShown, QueryLogForm, QueryLogStyle};

/// What is done about queries where it is a matter of choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The choice of the upstream that gets a query.
    pub order: Order,
    /// Who gets a copy of a query whose answer is late.
    pub hedge: Hedge,
    /// Whether a query that an upstream answers with SERVFAIL or REFUSED is asked of one more, of another
    /// operator.
    pub retry_servfail: bool,
    /// What becomes of EDNS Client Subnet options.
    pub ecs: Ecs,
    /// Whose queries are answered.
    pub access: Access,
    /// How much each network may ask, if that is limited.
    pub rate: Option<Rate>,
    /// Whether names that are not for the public DNS are forwarded.
    pub special_names: SpecialNames,
    /// What becomes of answers with private addresses.
    pub private_answers: PrivateAnswers,
}

/// The choice among the usable upstreams for a query.
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
    /// No copies.
    Off,
    /// Another address of the same operator.
    Same,
    /// Another upstream, one of the same operator if there is one.
    Any,
}

/// Every bound of the forwarder. Defaults and their reasons are in `config/sizes.rs` and `config/options.rs`.
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
    /// Octets of answers held for a client connection, with those kept free for the answers it is owed,
    /// above which it is not read.
    pub client_output_max: usize,
    /// Octets of answers and partial messages held for all client connections.
    pub client_bytes_max: usize,
    /// The largest response by datagram, whatever the client takes; `None` for 1,232 octets, and 4,096 to
    /// loopback addresses.
    pub udp_size_max: Option<u16>,
    /// Octets of answers held for a batch of datagrams.
    pub datagram_bytes_max: usize,
    /// Answers in a batch of datagrams.
    pub datagrams_max: usize,
    /// Queries by datagram of one network, loopback excepted, that may wait for longer than a second.
    pub late_datagrams_max: usize,
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
    /// How a line per query is written to [`Forwarder::query_log`](super::Forwarder::query_log), if it is.
    pub query_log: Option<QueryLogStyle>,
}

impl Limits {
    /// Octets of a message of the greatest length behind its length (RFC 1035 section 4.2.2): bounds of
    /// what is held leave room for one.
    pub const FRAME_LEN_MAX: usize = frame::FRAME_LEN_MAX;

    /// Late responses by datagram that wait for others to leave: as many as there are places for queries by datagram
    /// of other hosts. In the time that makes a query late about as many leave.
    pub(super) fn late_answers_max(&self) -> usize {
        self.queries_max - self.queries_max / 4
    }

    /// Octets of those that are not short.
    pub(super) fn late_answer_bytes_max(&self) -> usize {
        self.datagram_bytes_max / 4
    }

    /// Takes over the bounds that size no table.
    pub(super) fn adopt(&mut self, other: &Self) {
        self.upstream_idle_timeout = other.upstream_idle_timeout;
        self.client_idle_timeout = other.client_idle_timeout;
        self.udp_size_max = other.udp_size_max;
        self.late_datagrams_max = other.late_datagrams_max;
        self.query_log = other.query_log;
    }

    /// Keys of clients. One that was closed may still have its key when the next is there.
    pub(super) fn client_keys_max(&self) -> usize {
        2 * self.clients_max
    }

    /// Keys of connections to upstreams, likewise.
    pub(super) fn upstream_keys_max(&self) -> usize {
        2 * self.upstream_conns_max
    }
}

/// Whether queries are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Serving,
    /// What clients have sent by now is taken, and nothing after that.
    Terminating,
    /// What is owed is answered, and nothing new is taken but the first query of who has just connected.
    Ending,
}
