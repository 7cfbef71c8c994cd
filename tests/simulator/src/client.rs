//! A TCP client's end of the simulated network.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use dot_proxy::forwarder::ClientId;

/// A TCP client.
#[derive(Debug)]
pub struct TcpClient {
    pub peer: SocketAddr,
    /// `None` before it is accepted and after the forwarder closed it.
    pub conn: Option<ClientId>,
    pub state: State,
    /// How many octets it still takes; `None`: it reads everything.
    pub room: Option<usize>,
    /// The forwarder shut its write side down.
    pub saw_end: bool,
    /// Closes when it saw the end.
    pub polite: bool,
    /// Breaks the rules, so that it may be closed with answers owed.
    pub offender: bool,
    /// Octets that arrived and were not read by the forwarder.
    pub(super) unread: VecDeque<u8>,
    pub(super) fin: Fin,
    /// Octets handed to the forwarder that make no whole frame yet.
    pub(super) partial: Vec<u8>,
    pub(super) partial_since: Option<Duration>,
    /// When the client was accepted that has sent no whole frame since.
    pub(super) fresh_since: Option<Duration>,
    /// Octets of the forwarder's output that were looked at already.
    pub(super) looked: usize,
    /// Looked-at octets that make no whole frame yet.
    pub(super) response: Vec<u8>,
    pub(super) dealings: Dealings,
    /// Output waits, and since then it has taken none.
    pub(super) stuck_since: Option<Duration>,
    /// Since when it has waited for the forwarder to read what it has sent.
    pub(super) waits_since: Option<Duration>,
}

/// How the forwarder deals with a client.
#[derive(Debug, Default)]
pub(super) struct Dealings {
    /// No query is taken from it any more.
    pub(super) ended: bool,
    /// The client may get no answers any more.
    pub(super) excused: bool,
    /// The forwarder is still to be told that the client takes more.
    pub(super) writable_due: bool,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not accepted yet, or refused, or gone before that.
    Outside,
    Open,
    /// The client reset the connection.
    Reset,
    /// The forwarder closed it.
    Closed,
}

/// The end of the client's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    None,
    Arrived,
    Told,
}

impl TcpClient {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            conn: None,
            state: State::Outside,
            room: None,
            saw_end: false,
            polite: true,
            offender: false,
            unread: VecDeque::new(),
            fin: Fin::None,
            partial: Vec::new(),
            partial_since: None,
            fresh_since: None,
            looked: 0,
            response: Vec::new(),
            dealings: Dealings::default(),
            stuck_since: None,
            waits_since: None,
        }
    }

    /// Whether the client's first query may be on its way.
    pub(super) fn is_fresh(&self, at: Duration) -> bool {
        self.fresh_since.is_some_and(|since| at < since + Duration::from_secs(1))
    }
}
