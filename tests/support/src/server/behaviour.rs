//! What a server can be told to do.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::super::answers;
use super::super::authority::Identity;
use super::super::key_exchange;

/// How a server behaves.
pub struct Setup {
    pub identity: Identity,
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Who must vouch for its clients; none: it does not ask who they are.
    pub clients: Option<RootCertStore>,
    /// The groups of its key exchanges, by preference.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// The protocols it agrees to; none means that it knows no ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// What its sessions are resumed by.
    pub tickets: Tickets,
    /// What the connection of this number, from 0, meets.
    pub greeting: Box<dyn FnMut(usize) -> Greeting + Send>,
    /// What is done about a query.
    pub handler: Handler,
    /// How a connection ends that was idle for so long.
    pub idle: Option<(Duration, End)>,
    /// Whether every message has a record of its own; otherwise those sent together share one.
    pub record_per_message: bool,
    pub octets_per_record: usize,
    pub octets_per_write: usize,
    /// Whether it closes when the other side has.
    pub closes_back: bool,
    /// The receive buffer asked of the kernel, so that a server that stops reading is soon full.
    pub receive_buffer: Option<usize>,
}

impl Setup {
    /// A server that does everything right and answers any query.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            versions: rustls::ALL_VERSIONS,
            clients: None,
            groups: key_exchange::hybrid().kx_groups,
            alpn: vec![b"dot".to_vec()],
            tickets: Tickets::Usual,
            greeting: Box::new(|_| Greeting::Tls),
            handler: Box::new(answer),
            idle: None,
            record_per_message: false,
            octets_per_record: usize::MAX,
            octets_per_write: usize::MAX,
            closes_back: true,
            receive_buffer: None,
        }
    }

    pub fn handler(
        mut self,
        handler: impl FnMut(&Received<'_>) -> Vec<Act> + Send + 'static,
    ) -> Self {
        self.handler = Box::new(handler);
        self
    }

    pub fn greeting(mut self, greeting: impl FnMut(usize) -> Greeting + Send + 'static) -> Self {
        self.greeting = Box::new(greeting);
        self
    }

    /// The TLS side of it, with this certificate and no memory of sessions.
    pub(super) fn tls_config(&self, identity: &Identity) -> Arc<ServerConfig> {
        let provider = CryptoProvider { kx_groups: self.groups.clone(), ..key_exchange::hybrid() };
        let provider = Arc::new(provider);
        let clients = match self.clients.clone() {
            Some(roots) => {
                WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                    .build()
                    .expect("a root")
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("versions that the provider has")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .expect("a key that fits the certificate");
        config.alpn_protocols.clone_from(&self.alpn);
        match self.tickets {
            Tickets::Usual => {}
            Tickets::WithEarlyData => config.max_early_data_size = 1 << 14,
            Tickets::None => {
                config.send_tls13_tickets = 0;
                config.session_storage = Arc::new(NoServerSessionStorage {});
            }
        }
        Arc::new(config)
    }
}

/// What a server lets sessions be resumed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tickets {
    /// Nothing.
    None,
    Usual,
    /// Tickets that allow early data.
    WithEarlyData,
}

/// Decides what happens when a query has arrived.
pub type Handler = Box<dyn FnMut(&Received<'_>) -> Vec<Act> + Send>;

/// A query as the handler is told of it.
pub struct Received<'a> {
    /// Number of its connection, from 0.
    pub connection: usize,
    /// The query's number on that connection, from 0.
    pub number: usize,
    pub message: &'a [u8],
    /// In lower case, without the last dot; empty if it cannot be read.
    pub name: String,
}

impl Received<'_> {
    /// The usual answer.
    pub fn answer(&self) -> Vec<Act> {
        answers::answer(self.message).map(Act::Send).into_iter().collect()
    }
}

fn answer(query: &Received<'_>) -> Vec<Act> {
    query.answer()
}

/// What a server does about a query.
#[derive(Clone, Debug)]
pub enum Act {
    /// Does the rest later, and serves other queries meanwhile.
    After(Duration, Vec<Act>),
    /// Ends the connection, when what was sent before has been written.
    End(End),
    /// Sends octets without a length in front.
    Raw(Vec<u8>),
    /// Sends a message.
    Send(Vec<u8>),
    /// Reads nothing more; what is sent is still written.
    StopReading,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN without `close_notify`.
    Fin,
    /// The connection stays open, but nothing is read or written any more: as when its server hangs.
    Forget,
    /// `close_notify` and FIN.
    Notify,
    /// RST.
    Reset,
    /// The connection stays open, but whatever is sent on it is lost on the way: as behind a NAT that forgot it.
    Unreachable,
}

/// What a new connection meets.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// The connection is read, but nothing is ever said.
    Mute,
    /// Octets instead of TLS, then FIN.
    Raw(Vec<u8>),
    /// RST.
    Reset,
    Tls,
    /// TLS whose handshake is not answered before this time is over.
    TlsAfter(Duration),
}
