//! What an event of the loop comes from, as the token of its socket says it.

use mio::Token;

use crate::forwarder::ConnId;

/// What an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Termination,
    Network,
    /// The UDP socket of the listener in this place.
    Udp(usize),
    /// The TCP socket of the listener in this place.
    Tcp(usize),
    /// The client whose key this is.
    Client(usize),
    /// The connection to an upstream whose key this is.
    Upstream(usize),
    /// The metrics server: 0 is its listener, others are its connections.
    Metrics(usize),
}

impl Origin {
    pub(crate) fn of(conn: ConnId) -> Self {
        match conn {
            ConnId::Client(_) => Self::Client(conn.key()),
            ConnId::Upstream(_) => Self::Upstream(conn.key()),
        }
    }

    pub(crate) fn token(self) -> Token {
        let (kind, place) = match self {
            Self::Termination => (0, 0),
            Self::Network => (1, 0),
            Self::Udp(index) => (2, index),
            Self::Tcp(index) => (3, index),
            Self::Client(key) => (4, key),
            Self::Upstream(key) => (5, key),
            Self::Metrics(place) => (6, place),
        };
        Token(ORIGINS * place + kind)
    }
}

impl From<Token> for Origin {
    fn from(token: Token) -> Self {
        let place = token.0 / ORIGINS;
        match token.0 % ORIGINS {
            0 => Self::Termination,
            1 => Self::Network,
            2 => Self::Udp(place),
            3 => Self::Tcp(place),
            4 => Self::Client(place),
            5 => Self::Upstream(place),
            _ => Self::Metrics(place),
        }
    }
}

/// Kinds of [`Origin`].
const ORIGINS: usize = 7;
