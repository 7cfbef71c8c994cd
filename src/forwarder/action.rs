//! What the core asks the shell to do, and how both name connections.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Notice;
use super::collections::arena::Id;
use super::collections::conn_table::ConnKey;

/// Names a connection from its start to the moment the shell takes its [`Action::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnId {
    /// A connection of a client.
    Client(ClientId),
    /// A connection to an upstream.
    Upstream(UpstreamConnId),
}

impl ConnId {
    /// The key among connections of its kind.
    pub fn key(self) -> usize {
        match self {
            Self::Client(client) => client.key(),
            Self::Upstream(conn) => conn.key(),
        }
    }
}

impl From<ClientId> for ConnId {
    fn from(client: ClientId) -> Self {
        Self::Client(client)
    }
}

impl From<UpstreamConnId> for ConnId {
    fn from(conn: UpstreamConnId) -> Self {
        Self::Upstream(conn)
    }
}

/// Names the connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub(super) Id);

impl ClientId {
    /// Small and dense among clients, and not given to another before this one's [`Action::Close`] was
    /// taken: an index for the shell's sockets.
    pub fn key(self) -> usize {
        self.0.key()
    }

    /// Ascends in the order in which clients connected, until it wraps around.
    pub(crate) fn serial(self) -> u32 {
        self.0.serial()
    }
}

/// Names a connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamConnId(pub(super) Id);

impl UpstreamConnId {
    /// Small and dense among connections to upstreams, and not given to another before this one's
    /// [`Action::Close`] was taken: an index for the shell's sockets.
    pub fn key(self) -> usize {
        self.0.key()
    }

    /// Ascends in the order in which attempts began, until it wraps around.
    pub(crate) fn serial(self) -> u32 {
        self.0.serial()
    }
}

impl ConnKey for ClientId {
    fn new(id: Id) -> Self {
        Self(id)
    }

    fn id(self) -> Id {
        self.0
    }
}

impl ConnKey for UpstreamConnId {
    fn new(id: Id) -> Self {
        Self(id)
    }

    fn id(self) -> Id {
        self.0
    }
}

/// The place of an upstream in the list given to [`Forwarder::new`](super::Forwarder::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamIndex(u8);

impl UpstreamIndex {
    /// The upstream in place `index`, which is below 16.
    pub fn new(index: usize) -> Self {
        debug_assert!(index < UPSTREAMS_MAX, "there is no upstream {index}");
        Self(index as u8)
    }

    /// The place in the list.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for UpstreamIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Upstreams that a forwarder has at most.
pub const UPSTREAMS_MAX: usize = u32::BITS as usize;

/// Some of the upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpstreamSet(u32);

impl UpstreamSet {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn only(upstream: UpstreamIndex) -> Self {
        Self(1 << upstream.0)
    }

    pub(crate) fn contains(self, upstream: UpstreamIndex) -> bool {
        self.0 & 1 << upstream.0 != 0
    }

    pub(crate) fn insert(&mut self, upstream: UpstreamIndex) {
        self.0 |= 1 << upstream.0;
    }

    pub(crate) fn remove(&mut self, upstream: UpstreamIndex) {
        self.0 &= !(1 << upstream.0);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The upstreams of the set, in order.
    pub(crate) fn iter(mut self) -> impl Iterator<Item = UpstreamIndex> {
        std::iter::from_fn(move || {
            let first = UpstreamIndex(self.0.trailing_zeros() as u8);
            (self.0 != 0).then(|| {
                self.remove(first);
                first
            })
        })
    }
}

impl FromIterator<UpstreamIndex> for UpstreamSet {
    fn from_iter<I: IntoIterator<Item = UpstreamIndex>>(upstreams: I) -> Self {
        let mut set = Self::EMPTY;
        for upstream in upstreams {
            set.insert(upstream);
        }
        set
    }
}

/// Upstreams that a query may go to. There is one route, of all upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteIndex(u8);

impl RouteIndex {
    pub(crate) const ALL: Self = Self(0);

    pub(crate) fn new(index: usize) -> Self {
        debug_assert!(index < ROUTES_MAX, "route {index}");
        Self(index as u8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn every() -> impl Iterator<Item = Self> {
        (0..ROUTES_MAX).map(Self::new)
    }
}

pub(crate) const ROUTES_MAX: usize = 1;

/// How an upstream is shown, and who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamIdentity {
    /// The name in logs and errors: `ADDRESS#NAME`.
    pub shown: Box<str>,
    /// The number of its operator: upstreams with the same number are run by the same.
    pub operator: u8,
}

/// An upstream that is asked from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUpdate {
    /// By which index the shell connects to it.
    pub index: UpstreamIndex,
    /// How it is shown, and who runs it.
    pub identity: UpstreamIdentity,
    /// It is not the one that has this index now: connections of that one get no new queries, and nothing that
    /// is known of it counts.
    pub is_new: bool,
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
        conn: UpstreamConnId,
        /// The upstream to connect to.
        upstream: UpstreamIndex,
    },
    /// Look whether TCP waits for segments of this connection that were lost, and tell it with
    /// [`Forwarder::handle_path`](super::Forwarder::handle_path).
    InspectPath(UpstreamConnId),
    /// Tell the person who runs this program.
    Log(Notice),
    /// A client that was not read because of back-pressure may be read again; no new edge will come.
    Read(ClientId),
    /// Everything owed to this client is written: shut the write side down, and go on reading (and
    /// telling) until the end of the stream, so that the close does not destroy what was written.
    ShutdownWrite(ClientId),
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
    /// An attempt failed as somebody else than the upstream answered: not by TLS, or with a certificate that is not
    /// for the upstream.
    Impostor {
        /// What was being done.
        stage: Stage,
        /// What was expected and what was seen, in words for the log.
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
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Tls, Self::Certificate, Self::Negotiation, Self::Read, Self::Write];

    /// The word for a label of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Negotiation => "negotiation",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

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
