//! What a server saw.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};

use rustls::{NamedGroup, ProtocolVersion};

use super::super::message;
use super::LIMIT;

/// What a server saw.
#[derive(Default)]
pub struct Log {
    pub connections: Vec<ConnectionLog>,
    /// The queries of all connections in the order of their arrival, with the connection's number.
    pub queries: Vec<(usize, Vec<u8>)>,
}

impl Log {
    /// The octets of application data over all connections.
    pub fn application_octets(&self) -> usize {
        self.connections.iter().map(|connection| connection.application_octets).sum()
    }

    /// Connections that finished their handshake.
    pub fn handshakes(&self) -> impl Iterator<Item = &Handshake> {
        self.connections.iter().filter_map(|connection| connection.handshake.as_ref())
    }

    /// The number of connections on which a query for a name below this one came.
    pub fn connections_for(&self, domain: &str) -> usize {
        let below = |query: &[u8]| {
            message::question(query).is_some_and(|(name, ..)| name.ends_with(domain))
        };
        let asked = self.queries.iter().filter(|(_, query)| below(query));
        asked.map(|(connection, _)| connection).collect::<BTreeSet<_>>().len()
    }

    /// How often a query of this name came.
    pub fn queries_for(&self, name: &str) -> usize {
        let named = |(_, query): &&(usize, Vec<u8>)| {
            message::question(query).is_some_and(|(asked, ..)| asked == name)
        };
        self.queries.iter().filter(named).count()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = self.queries.iter().map(|(connection, query)| {
            let name = message::question(query).map_or_else(String::new, |(name, ..)| name);
            format!("{name} on {connection}")
        });
        f.debug_struct("Log")
            .field("connections", &self.connections)
            .field("queries", &queries.collect::<Vec<_>>())
            .finish()
    }
}

/// What a server saw of one connection.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// The first octet that came, if any: 22 is a TLS handshake record.
    pub first_octet: Option<u8>,
    /// The records that the `ClientHello` came in.
    pub hello: Vec<u8>,
    /// SNI.
    pub server_name: Option<String>,
    /// The protocols of the ALPN extension.
    pub alpn_offered: Vec<Vec<u8>>,
    pub handshake: Option<Handshake>,
    /// Decrypted octets.
    pub application_octets: usize,
    pub queries: usize,
    /// TLS failed: an alert came, or what came was not TLS.
    pub tls_error: Option<String>,
    /// How the other side ended it first.
    pub ended: Option<Ended>,
    /// The server ended it, because it was idle for so long as the setup says.
    pub idled_out: bool,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Handshake {
    pub resumed: bool,
    pub version: ProtocolVersion,
    /// Of the key exchange, if there was one.
    pub group: Option<NamedGroup>,
    /// The protocol agreed on.
    pub alpn: Option<Vec<u8>>,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// FIN without `close_notify`.
    Fin,
    Notify,
    Reset,
}

/// The log as the server's thread writes it and a test reads it.
#[derive(Default)]
pub(super) struct SharedLog {
    log: Mutex<Log>,
    changed: Condvar,
}

impl SharedLog {
    pub(super) fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("whoever held it has not panicked")
    }

    pub(super) fn record(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the log shows `what`.
    #[track_caller]
    pub(super) fn wait(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        let (log, waited) = self
            .changed
            .wait_timeout_while(self.lock(), LIMIT, |log| !condition(log))
            .expect("whoever held it has not panicked");
        assert!(!waited.timed_out(), "the server waits in vain for {what}; it saw {log:#?}");
    }
}
