//! TLS towards the upstreams: a rustls client over any [`Read`] and [`Write`], and whom it trusts.
//!
//! TLS 1.2 and 1.3 only (RFC 8310 section 9), without early data, which has no profile for DNS
//! (RFC 8446 section 2.3). The certificate is verified for the configured name (RFC 8310 section
//! 8.1), the key for the configured pins, and nothing here can turn that off; a resumed handshake
//! relies on the one that was.
//!
//! - `trust`: names, pins and roots by which servers are accepted; [`pin`]: digests of keys.
//! - `client_certificate`: by what servers know us; `files`: where certificates and keys are;
//!   `contents`: what else is there.
//! - `sessions`: what handshakes are resumed by.
//! - `key_exchange`: X25519 with ML-KEM-768 besides.
//! - `meter`: how much a server makes us hold; `bound`: what that comes to.
//! - `explain`: errors in words; `presented`: what servers show, for people.

pub(crate) mod bound;
mod client_certificate;
mod contents;
mod explain;
mod files;
mod key_exchange;
mod meter;
pub mod pin;
mod presented;
mod sessions;
mod trust;
mod validity;

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup,
    ProtocolVersion,
};

use crate::forwarder::Stage;
use crate::host::os_error::system_error;
use client_certificate::ClientCertificate;
use explain::Circumstances;
use meter::{Meter, Metered, RECORDS_MAX, UNUSED_MAX};
use sessions::{Session, SessionStore};
use trust::{Checks, Roots, Verifier};

pub(crate) use explain::{OLD_TLS, fit_for_terminal, list, other_name, other_pin};
pub use files::Files;
pub use key_exchange::KeyExchange;
pub use presented::{Presented, Witness, is_unset, shown_date};
pub use trust::Identity;

/// What TLS may hold of one server.
#[derive(Clone, Copy, Debug)]
pub struct TlsLimits {
    /// Octets encrypted and not yet written, of a connection.
    pub output_max: usize,
    /// Octets received in a handshake, of a connection.
    pub handshake_max: usize,
    /// Session tickets, of all connections of a connector.
    pub tickets_max: usize,
}

/// A connector per server, in order. Each connector keeps its own session, so that no ticket is shown to
/// another upstream, not even one of the same name (RFC 8446 section C.4).
///
/// The error is one line that says which file or name is wrong and how.
pub fn connectors<'a>(
    files: &Files,
    servers: impl Iterator<Item = Identity<'a>>,
    key_exchange: KeyExchange,
    limits: TlsLimits,
) -> Result<Vec<Connector>, String> {
    let mut reading = files.reading();
    let mut common = Common::new(Roots::of(files, &mut reading)?, key_exchange, limits);
    if let Some((certificate, key)) = &files.client {
        let provider = &common.provider;
        common.client = Some(client_certificate::read(certificate, key, &mut reading, provider)?);
    }
    common.connectors(servers)
}

/// What all connectors have in common.
struct Common {
    roots: Roots,
    /// Shown to servers that ask for one.
    client: Option<ClientCertificate>,
    provider: Arc<CryptoProvider>,
    key_exchange: KeyExchange,
    limits: TlsLimits,
}

impl Common {
    fn new(roots: Roots, key_exchange: KeyExchange, limits: TlsLimits) -> Self {
        let provider = Arc::new(key_exchange.provider());
        Self { roots, client: None, provider, key_exchange, limits }
    }

    fn connectors<'a>(
        &self,
        servers: impl Iterator<Item = Identity<'a>>,
    ) -> Result<Vec<Connector>, String> {
        servers.map(|server| self.connector(server)).collect()
    }

    fn connector(&self, server: Identity<'_>) -> Result<Connector, String> {
        let &Self { key_exchange, limits, .. } = self;
        let name = match server.name {
            Some(name) => ServerName::try_from(name)
                .map_err(|_| format!("{name:?} is not a DNS name or an IP address"))?
                .to_owned(),
            None => NAMELESS.into(),
        };
        let roots = server.name.map(|_| self.roots.clone());
        let (store, shown) = roots.map(|Roots { store, shown }| (store, shown)).unzip();
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(server.pins, store, algorithms));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier));
        let mut config = match &self.client {
            Some(client) => builder.with_client_cert_resolver(Arc::clone(&client.resolver)),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = server.sni;
        // Each connection gets its own; the usual one has room for 256 sessions.
        config.resumption = Resumption::disabled();
        Ok(Connector {
            config,
            verifier,
            name,
            roots: shown,
            client: self.client.as_ref().map(|client| Arc::clone(&client.chain)),
            key_exchange,
            limits,
            session: None,
            certificate_end: None,
        })
    }
}

/// Starts TLS connections to one upstream, and remembers the session that they may resume.
#[derive(Debug)]
pub struct Connector {
    config: ClientConfig,
    verifier: Arc<Verifier>,
    name: ServerName<'static>,
    /// The roots in words, if the certificate must lead to one.
    roots: Option<Arc<str>>,
    /// The certificates by which the server may know us.
    client: Option<Arc<[CertificateDer<'static>]>>,
    key_exchange: KeyExchange,
    limits: TlsLimits,
    session: Option<Session>,
    /// When the certificate of the last full handshake ends, in seconds from 1970.
    certificate_end: Option<u64>,
}

impl Connector {
    /// Whether both trust the same, and show and offer servers the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.verifier.is_same(&other.verifier)
            && self.client == other.client
            && self.key_exchange == other.key_exchange
            && self.config.enable_sni == other.config.enable_sni
    }

    /// A new connection; its first flight waits to be [flushed](TlsStream::flush).
    pub fn start(&mut self, now: Instant) -> Result<TlsStream, Failure> {
        if !self.may_resume(now) {
            self.forget_session();
        }
        let earlier = self.session.as_ref().map(Session::tickets);
        let offers_session = self.session.as_ref().is_some_and(Session::has_tickets);
        let sessions = Arc::new(SessionStore::new(earlier, self.limits.tickets_max));
        let mut config = self.config.clone();
        config.resumption = Resumption::store(Arc::<SessionStore>::clone(&sessions));
        match ClientConnection::new(Arc::new(config), self.name.clone()) {
            Ok(mut conn) => {
                conn.set_buffer_limit(Some(self.limits.output_max));
                Ok(TlsStream {
                    conn,
                    roots: self.roots.clone(),
                    shows_certificate: self.config.client_auth_cert_resolver.has_certs(),
                    sessions,
                    offers_session,
                    meter: Meter::default(),
                    limits: self.limits,
                    key_exchange: self.key_exchange,
                })
            }
            Err(error) => Err(Failure::new(Stage::Tls, error.to_string())),
        }
    }

    /// Takes note that the handshake of `stream`, which was started here, has ended well.
    pub fn handle_connected(&mut self, now: Instant, stream: &TlsStream) {
        if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            stream.sessions.handle_resumed();
            return;
        }
        let certificates = stream.conn.peer_certificates();
        let first = certificates.and_then(|certificates| certificates.first());
        self.certificate_end = first.and_then(|first| validity::not_after(first));
        let time = self.config.time_provider.current_time();
        self.forget_session();
        self.session = certificates
            .zip(time)
            .map(|(certificates, time)| Session::new(certificates, now, time, &stream.sessions));
    }

    /// When the certificate of the last full handshake ends, in seconds from 1970.
    pub fn certificate_end(&self) -> Option<u64> {
        self.certificate_end
    }

    /// Makes the next handshake a full one: the clocks by which a session ends cannot be relied on.
    pub fn forget_session(&mut self) {
        if let Some(session) = self.session.take() {
            // Connections of the session may live on, and must not hold what nobody will use.
            session.discard();
        }
    }

    fn may_resume(&mut self, now: Instant) -> bool {
        let time = self.config.time_provider.current_time();
        let checks = Checks::default();
        let verifies = |certificates: &[CertificateDer<'_>], time| {
            certificates.split_first().is_some_and(|(first, rest)| {
                self.verifier.verify(&checks, first, rest, &self.name, time).is_ok()
            })
        };
        self.session.as_mut().is_some_and(|session| session.is_resumable(now, time, verifies))
    }
}

/// A TLS connection to an upstream, without its socket.
///
/// After every call but [`Self::close`] there may be something to [flush](Self::flush). After a
/// [`Failure`] only [`Self::close`] is of use, which sends the alert that says why.
#[derive(Debug)]
pub struct TlsStream {
    conn: ClientConnection,
    /// The roots in words, if the certificate must lead to one.
    roots: Option<Arc<str>>,
    /// A server that asks for a certificate of ours is shown one.
    shows_certificate: bool,
    sessions: Arc<SessionStore>,
    /// The handshake may be a resumed one.
    offers_session: bool,
    meter: Meter,
    limits: TlsLimits,
    key_exchange: KeyExchange,
}

impl TlsStream {
    /// Reads until `io` would block, the server closes, or about `max` octets were read, and gives
    /// what it decrypts to `sink`.
    ///
    /// What arrived before a close or a failure is given to `sink` first; what follows a
    /// `close_notify` is ignored (RFC 8446 section 6.1). The call in which the handshake ends gives
    /// `sink` nothing and returns with `more`: the caller learns of the one before the other.
    pub fn receive(
        &mut self,
        io: &mut impl Read,
        max: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Progress, Failure> {
        self.drain(&mut sink);
        let mut read = 0;
        while read < max {
            let handshaking = self.is_handshaking();
            let octets_max = if handshaking { self.limits.handshake_max } else { UNUSED_MAX };
            match self.conn.read_tls(&mut Metered::new(io, &mut self.meter, octets_max)) {
                Ok(0) if handshaking => {
                    let closed = Error::AlertReceived(AlertDescription::CloseNotify);
                    let Failure { stage, detail, .. } = self.tls_failure(&closed);
                    return Err(Failure::new(stage, String::from(detail) + self.advice()));
                }
                Ok(0) => {
                    return Ok(Progress { closed: true, more: false });
                }
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress { closed: false, more: false });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.io_failure(Stage::Read, &error)),
            }
            self.sessions.expect(self.meter.octets());
            let processed = self.conn.process_new_packets();
            if !handshaking && self.drain(&mut sink) {
                self.meter.reset();
            }
            if let Err(error) = processed {
                // A session that failed must not be resumed (RFC 5246 section 7.2, RFC 8446 section
                // 6.2).
                self.sessions.discard();
                return Err(self.tls_failure(&error));
            }
            if handshaking && !self.is_handshaking() {
                self.meter.reset();
                break;
            }
            self.meter.note_tickets(self.sessions.take_given());
            self.check_meter()?;
        }
        Ok(Progress { closed: false, more: true })
    }

    /// Whether the handshake, and with it the verification of the certificate, is unfinished.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Whether the server was offered to resume a session.
    pub fn offers_session(&self) -> bool {
        self.offers_session
    }

    /// What the handshake came to; `None` while it is unfinished.
    pub fn handshake(&self) -> Option<Handshake> {
        if self.is_handshaking() {
            return None;
        }
        Some(Handshake {
            version: match self.conn.protocol_version()? {
                ProtocolVersion::TLSv1_3 => "TLS 1.3",
                _ => "TLS 1.2",
            },
            resumed: self.conn.handshake_kind()? == HandshakeKind::Resumed,
            group: self.conn.negotiated_key_exchange_group().map(SupportedKxGroup::name),
        })
    }

    /// The cipher suite by its name in the registry of IANA, once it is agreed on.
    pub fn cipher_suite(&self) -> Option<String> {
        // Those of TLS 1.3 have another beginning in rustls.
        Some(self.conn.negotiated_cipher_suite()?.suite().as_str()?.replace("TLS13_", "TLS_"))
    }

    /// Whether the server agreed to speak DNS by ALPN; one that knows no ALPN says nothing.
    pub fn has_alpn(&self) -> bool {
        self.conn.alpn_protocol().is_some()
    }

    /// Encrypts the front of `plaintext`, as much as may be held, and returns how many octets it took.
    ///
    /// Nothing is taken during the handshake: no octet of a query may be written before the server
    /// is authenticated (RFC 8310 section 6.6). Nor is anything taken while earlier ciphertext is
    /// unsent: queries that cannot be written yet stay with the caller, who may still give them up.
    pub fn send(&mut self, plaintext: &[u8]) -> usize {
        if self.is_handshaking() || self.conn.wants_write() {
            return 0;
        }
        let front = &plaintext[..plaintext.len().min(self.limits.output_max)];
        // The only error is an earlier one, which the caller was told.
        self.conn.writer().write(front).unwrap_or(0)
    }

    /// Writes what is ready to be sent; false if `io` would block first.
    ///
    /// A server that refuses us may have closed by the time we write: on a failure, what
    /// [`Self::receive`] says is the better reason.
    pub fn flush(&mut self, io: &mut impl Write) -> Result<bool, Failure> {
        while self.conn.wants_write() {
            let error = match self.conn.write_tls(io) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(false),
                _ => return Err(self.io_failure(Stage::Write, &error)),
            }
        }
        Ok(true)
    }

    /// Says goodbye: writes what is unsent and `close_notify`, or the alert of an earlier failure,
    /// as far as that goes without waiting. The peer need not hear it.
    pub fn close(&mut self, io: &mut impl Write) {
        self.conn.send_close_notify();
        self.flush(io).ok();
    }

    /// Gives all plaintext that waits to `sink`, and returns whether there was any. To be called after
    /// every read, as rustls refuses to read on with plaintext waiting.
    fn drain(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        let mut any = false;
        let mut reader = self.conn.reader();
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            let len = chunk.len();
            sink(chunk);
            reader.consume(len);
            any = true;
        }
        any
    }

    /// Fails if the server makes rustls hold too much, of what it cannot use yet and of what it was told
    /// of the server.
    fn check_meter(&self) -> Result<(), Failure> {
        if self.is_handshaking() {
            let octets_max = self.limits.handshake_max;
            if self.meter.is_over(octets_max) {
                let detail = format!(
                    "the server's handshake is longer than {octets_max} octets or {RECORDS_MAX} TLS \
                     records"
                );
                return Err(Failure::new(Stage::Tls, detail));
            }
        } else if self.meter.is_over(UNUSED_MAX) {
            let detail = format!(
                "the server sent more than {UNUSED_MAX} octets, {RECORDS_MAX} TLS records or as many \
                 tickets without an answer"
            );
            return Err(Failure::new(Stage::Read, detail));
        }
        Ok(())
    }

    /// What to do about a handshake that ends now, for the log; empty if there is nothing to say.
    pub fn advice(&self) -> &'static str {
        key_exchange::advice(self.key_exchange, self.meter.octets())
    }

    fn io_failure(&self, stage: Stage, error: &io::Error) -> Failure {
        if self.is_handshaking() {
            let detail = format!("{} during the handshake", system_error(error));
            return Failure::new(Stage::Tls, detail + self.advice());
        }
        Failure::new(stage, system_error(error))
    }

    fn tls_failure(&self, error: &Error) -> Failure {
        let circumstances = Circumstances {
            is_handshaking: self.is_handshaking(),
            has_version: self.conn.protocol_version().is_some(),
            roots: self.roots.as_deref(),
            shows_certificate: self.shows_certificate,
        };
        explain::failure(error, &circumstances)
    }
}

impl Drop for TlsStream {
    /// Discards the session of a handshake that was not finished: the server may be one that chokes on
    /// the session it was offered, so the next attempt does without.
    fn drop(&mut self) {
        if self.is_handshaking() {
            self.sessions.discard();
        }
    }
}

/// What [`TlsStream::receive`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The server closed, with `close_notify` or without; nothing more will arrive.
    pub closed: bool,
    /// The call stopped before `io` would block, so there may be more to read now.
    pub more: bool,
}

/// How a handshake went. `Display`: "TLS 1.3, X25519MLKEM768, resumed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// "TLS 1.2" or "TLS 1.3".
    pub version: &'static str,
    /// An earlier session was taken up.
    pub resumed: bool,
    /// The group of the key exchange; a session of TLS 1.2 is resumed without one.
    pub group: Option<NamedGroup>,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.resumed { "resumed" } else { "full handshake" };
        f.write_str(self.version)?;
        if let Some(group) = self.group {
            write!(f, ", {}", group.as_str().unwrap_or("unknown group"))?;
        }
        write!(f, ", {kind}")
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done; never [`Stage::Connect`].
    pub stage: Stage,
    /// What happened, in words: what was expected and what was seen.
    pub detail: Box<str>,
    /// Somebody else answered than who was to: not by TLS, or with a certificate that is not for its name or from
    /// nobody who is trusted.
    pub is_impostor: bool,
}

impl Failure {
    fn new(stage: Stage, detail: impl Into<Box<str>>) -> Self {
        Self { stage, detail: detail.into(), is_impostor: false }
    }
}

/// Stands for no name: servers are told none that is an address (RFC 6066 section 3).
const NAMELESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The name of RFC 7858's protocol in the registry of ALPN.
const ALPN: &[u8] = b"dot";

#[cfg(test)]
mod tests;
