//! TLS towards the upstreams: a rustls client over any [`Read`] and [`Write`], and whom it trusts.
//!
//! TLS 1.2 and 1.3 only (RFC 8310 section 9), without early data, which has no profile for DNS
//! (RFC 8446 section 2.3). The certificate is verified for the configured name (RFC 8310 section
//! 8.1), the key for the configured pins, and nothing here can turn that off; a resumed handshake
//! relies on the one that was.

mod chain;
mod client_certificate;
mod explain;
mod keys;
mod meter;
pub mod pin;
mod sessions;
mod trust;

use std::fmt;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, PeerIncompatible,
    PeerMisbehaved, ProtocolVersion, RootCertStore,
};

use crate::host::os_error::system_error;
use crate::tls::pin::Pin;
use chain::Checks;
use client_certificate::ClientCertificate;
use explain::{OLD_TLS, alert_words, camel_words, certificate_words, pem_words};
use meter::{Meter, Metered, READ_MAX, RECORDS_MAX, UNUSED_MAX};
use sessions::{SESSION_LEN_MAX, Session, SessionStore};
use trust::Verifier;

/// What a connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets encrypted and not yet written.
    pub output_max: usize,
    /// Octets received in a handshake.
    pub handshake_max: usize,
    /// Session tickets, of all connections of a connector.
    pub tickets_max: usize,
}

/// How a server is known. One with neither name nor pins is not accepted.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The name that its certificate must be good for, a DNS name or an IP address. If there is none,
    /// nothing of the certificate counts but its key, not even its dates.
    pub name: Option<&'a str>,
    /// The keys of which it must have one, or, if it has a name, an issuer of its certificate; none:
    /// any key will do.
    pub pins: &'a [Pin],
}

/// One connector per server, in order. Each keeps its own session, so that no ticket is shown to
/// another upstream, not even one of the same name (RFC 8446 section C.4).
///
/// `roots` is a file of root certificates in PEM form; `None` means Mozilla's, which are built in.
/// The error is one line that says which file or name is wrong and how.
pub fn connectors<'a>(
    roots: Option<&Path>,
    servers: impl Iterator<Item = Identity<'a>>,
    limits: Limits,
) -> Result<Vec<Connector>, String> {
    let Some(file) = roots else {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>();
        let trust = format!("the {} built-in roots", roots.len());
        return connectors_with(roots, &trust, servers, limits);
    };
    let roots = read_roots(file)?;
    let trust = match roots.len() {
        1 => format!("the root in {}", file.display()),
        n => format!("the {n} roots in {}", file.display()),
    };
    connectors_with(roots, &trust, servers, limits)
}

/// Starts TLS connections to one upstream, and remembers the session that they may resume.
#[derive(Debug)]
pub struct Connector {
    config: ClientConfig,
    verifier: Arc<Verifier>,
    name: ServerName<'static>,
    /// The roots in words, if they count.
    trust: Option<Arc<str>>,
    limits: Limits,
    session: Option<Session>,
    /// One for all connections: rustls resumes no session with another.
    certificate: Arc<ClientCertificate>,
}

impl Connector {
    /// A new connection; its first flight waits to be [flushed](TlsStream::flush).
    pub fn start(&mut self, now: Instant) -> Result<TlsStream, Failure> {
        if !self.may_resume(now) {
            self.forget_session();
        }
        if self.session.is_none() {
            self.certificate.forget();
        }
        let earlier = self.session.as_ref().map(Session::tickets);
        let sessions = Arc::new(SessionStore::new(earlier, self.limits.tickets_max));
        let mut config = self.config.clone();
        config.resumption = Resumption::store(Arc::<SessionStore>::clone(&sessions));
        match ClientConnection::new(Arc::new(config), self.name.clone()) {
            Ok(mut conn) => {
                conn.set_buffer_limit(Some(self.limits.output_max));
                Ok(TlsStream {
                    conn,
                    trust: self.trust.clone(),
                    sessions,
                    certificate: Arc::clone(&self.certificate),
                    meter: Meter::default(),
                    limits: self.limits,
                })
            }
            Err(error) => Err(Failure::new(FailedAt::Handshake, error.to_string())),
        }
    }

    /// The handshake of `stream`, which was started here, has ended well.
    pub fn handle_connected(&mut self, now: Instant, stream: &TlsStream) {
        if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            stream.sessions.handle_resumed();
            return;
        }
        let certificates = stream.conn.peer_certificates();
        let time = self.config.time_provider.current_time();
        self.forget_session();
        self.session = certificates
            .zip(time)
            .map(|(certificates, time)| Session::new(certificates, now, time, &stream.sessions));
    }

    /// The next handshake is a full one: the clocks by which a session ends cannot be relied on.
    pub fn forget_session(&mut self) {
        if let Some(session) = self.session.take() {
            // Its connections may live on, and must not hold what nobody will use.
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
    trust: Option<Arc<str>>,
    sessions: Arc<SessionStore>,
    certificate: Arc<ClientCertificate>,
    meter: Meter,
    limits: Limits,
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
                    return Err(
                        self.tls_failure(&Error::AlertReceived(AlertDescription::CloseNotify))
                    );
                }
                Ok(0) => {
                    return Ok(Progress { closed: true, more: false });
                }
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress { closed: false, more: false });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.io_failure(FailedAt::Read, &error)),
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
        })
    }

    /// Encrypts the front of `plaintext`, as much as may be held, and returns how many octets it took.
    ///
    /// It takes nothing during the handshake: no octet of a query may be written before the server
    /// is authenticated (RFC 8310 section 6.6). Nor while earlier ciphertext is unsent: queries
    /// that cannot be written yet stay with the caller, who may still give them up.
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
                _ => return Err(self.io_failure(FailedAt::Write, &error)),
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

    /// Must run after every read, as rustls refuses to read on with plaintext waiting. Whether there was
    /// any.
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

    /// rustls holds what it cannot use yet, and what it was told of the server. A server that makes it
    /// hold too much is left.
    fn check_meter(&self) -> Result<(), Failure> {
        if self.is_handshaking() {
            let most = self.limits.handshake_max;
            if self.meter.is_over(most) {
                let detail = format!(
                    "the server's handshake is longer than {most} octets or {RECORDS_MAX} TLS records"
                );
                return Err(Failure::new(FailedAt::Handshake, detail));
            }
        } else if self.meter.is_over(UNUSED_MAX) {
            let detail = format!(
                "the server sent more than {UNUSED_MAX} octets, {RECORDS_MAX} TLS records or as many \
                 tickets without an answer"
            );
            return Err(Failure::new(FailedAt::Read, detail));
        }
        Ok(())
    }

    fn io_failure(&self, at: FailedAt, error: &io::Error) -> Failure {
        if self.is_handshaking() {
            let detail = format!("{} during the handshake", system_error(error));
            return Failure::new(FailedAt::Handshake, detail);
        }
        Failure::new(at, system_error(error))
    }

    fn tls_failure(&self, error: &Error) -> Failure {
        let at = match error {
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => FailedAt::Certificate,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)
            | Error::AlertReceived(
                AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion,
            ) if self.is_handshaking() => FailedAt::Negotiation,
            _ if self.is_handshaking() => FailedAt::Handshake,
            _ => FailedAt::Read,
        };
        let detail = match error {
            Error::InvalidCertificate(error) => certificate_words(error, self.trust.as_deref()),
            Error::NoCertificatesPresented => "the server sent no certificate".into(),
            Error::AlertReceived(alert) => {
                alert_words(*alert, at, self.certificate.was_asked_for())
            }
            Error::DecryptError => "a record of the server could not be decrypted".into(),
            Error::FailedToGetCurrentTime => "the system clock is set before 1970".into(),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                "the server sent a TLS message out of turn".into()
            }
            // Whatever answers is taken for TLS once its ServerHello made sense.
            Error::InvalidMessage(_) if self.conn.protocol_version().is_none() => {
                "the server does not speak TLS on this port".into()
            }
            Error::InvalidMessage(what) => {
                format!("the server sent a malformed TLS message: {}", camel_words(what))
            }
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => OLD_TLS.into(),
            Error::PeerIncompatible(why) => {
                format!("the server and we have too little TLS in common: {}", camel_words(why))
            }
            Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
                "the server chose another protocol than DNS (ALPN \"dot\")".into()
            }
            Error::PeerMisbehaved(how) => {
                format!("the server broke the TLS protocol: {}", camel_words(how))
            }
            Error::PeerSentOversizedRecord => "the server sent too long a TLS record".into(),
            other => other.to_string(),
        };
        Failure::new(at, detail)
    }
}

impl Drop for TlsStream {
    /// A server that was asked for a handshake and did not finish it may be one that chokes on the
    /// session it was offered: the next attempt does without.
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
    /// It stopped before `io` would block, so there may be more to read now.
    pub more: bool,
}

/// How a handshake went. `Display`: "TLS 1.3, resumed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// "TLS 1.2" or "TLS 1.3".
    pub version: &'static str,
    /// It took up an earlier session.
    pub resumed: bool,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.resumed { "resumed" } else { "full handshake" };
        write!(f, "{}, {kind}", self.version)
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub at: FailedAt,
    /// What happened, in words: what was expected and what was seen.
    pub detail: Box<str>,
}

impl Failure {
    fn new(at: FailedAt, detail: impl Into<Box<str>>) -> Self {
        Self { at, detail: detail.into() }
    }
}

/// The stages in which TLS can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedAt {
    /// Verifying the server's certificate.
    Certificate,
    /// The rest of the handshake.
    Handshake,
    /// Agreeing on a TLS version and a protocol (ALPN).
    Negotiation,
    /// Reading after the handshake.
    Read,
    /// Writing after the handshake.
    Write,
}

fn connectors_with<'a>(
    roots: RootCertStore,
    trust: &str,
    servers: impl Iterator<Item = Identity<'a>>,
    limits: Limits,
) -> Result<Vec<Connector>, String> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots);
    let trust = Arc::from(trust);
    servers.map(|server| connector(server, &provider, &roots, &trust, limits)).collect()
}

fn connector(
    server: Identity<'_>,
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    trust: &Arc<str>,
    limits: Limits,
) -> Result<Connector, String> {
    let name = match server.name {
        Some(name) => ServerName::try_from(name)
            .map_err(|_| format!("{name:?} is not a DNS name or an IP address"))?
            .to_owned(),
        None => NAMELESS.into(),
    };
    let roots = server.name.map(|_| Arc::clone(roots));
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(Verifier::new(server.pins, roots, algorithms));
    let certificate = Arc::<ClientCertificate>::default();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
        .with_client_cert_resolver(Arc::<ClientCertificate>::clone(&certificate));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection gets its own; the usual one has room for 256 sessions.
    config.resumption = Resumption::disabled();
    let trust = server.name.map(|_| Arc::clone(trust));
    Ok(Connector { config, verifier, name, trust, limits, session: None, certificate })
}

fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let path = file.display();
    let octets = fs::read(file).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::IsADirectory => "; one file was expected: `cat` puts several into one",
            io::ErrorKind::PermissionDenied => {
                "; the user that this program runs as must be able to read it and to enter the \
                 directories above it"
            }
            _ => "",
        };
        format!("cannot read {path}: {}{remedy}", system_error(&error))
    })?;
    if octets.is_empty() {
        return Err(format!("{path} is empty; certificates in PEM form were expected"));
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&octets).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|error| {
            format!("certificate {number} in {path} is damaged: {}", pem_words(&error))
        })?;
        roots.add(certificate).map_err(|_| {
            format!("certificate {number} in {path} is damaged: it is not an X.509 certificate")
        })?;
    }
    // Those of OpenSSL with a purpose, and those that do not begin a line.
    let passed_over = certificates_begun(&octets).saturating_sub(roots.len());
    if passed_over > 0 {
        return Err(format!(
            "{path}: {passed_over} of {} certificates cannot be read; each is expected between lines of \
             its own, \"-----BEGIN CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"; openssl x509 -in \
             FILE writes one so",
            roots.len() + passed_over
        ));
    }
    if roots.is_empty() {
        return Err(format!(
            "{path} holds no certificate; one in PEM form, \"-----BEGIN CERTIFICATE-----\", was \
             expected"
        ));
    }
    Ok(roots)
}

/// How many certificates a file has, whether they can be read or not, and under whatever name OpenSSL
/// has for them: "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE".
fn certificates_begun(octets: &[u8]) -> usize {
    let text = String::from_utf8_lossy(octets);
    let labels = text.split("-BEGIN ").skip(1).filter_map(|behind| behind.split('-').next());
    labels.filter(|label| label.trim_end().ends_with("CERTIFICATE")).count()
}

/// Stands for no name: servers are told none that is an address (RFC 6066 section 3).
const NAMELESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// RFC 7858's protocol in the registry of ALPN.
const ALPN: &[u8] = b"dot";

/// What a connection allocates at most, as rustls 0.23 does it.
pub(crate) fn connection_octets(limits: &Limits) -> usize {
    // The connection itself, its configuration and its state, in boxes.
    let own = size_of::<TlsStream>() + size_of::<ClientConfig>() + STATE_OCTETS;
    // `DeframerVecBuffer`: what was received and not yet understood, and room for a read, in a vector
    // that doubles. It holds a record of the greatest length, or a message in several records, which
    // the meter bounds.
    let in_records = UNUSED_MAX.max(limits.handshake_max) + READ_MAX;
    let received = 2 * RECORD_WIRE_MAX.max(in_records);
    // `sendable_tls`: what waits to be written, in records.
    let sent = limits.output_max + (limits.output_max / RECORD_MAX + 2) * RECORD_OVERHEAD;
    // `received_plaintext`: empty, but as long as it once was.
    let plaintext = RECORDS_READ_MAX.next_power_of_two() * size_of::<Vec<u8>>();
    // `peer_certificates`, for as long as it lives.
    let certificates = limits.handshake_max;
    own + received + sent + plaintext + certificates
}

/// What is kept of an upstream for the next connection: its certificates, and tickets of TLS 1.3, or a
/// session of TLS 1.2 that came in the handshake, each with those certificates.
pub(crate) fn session_octets(limits: &Limits) -> usize {
    let tickets = limits.tickets_max * (limits.handshake_max + SESSION_LEN_MAX + TICKET_OCTETS);
    let session = 2 * limits.handshake_max + TICKET_OCTETS;
    limits.handshake_max + tickets.max(session) + size_of::<Session>()
}

/// What is allocated while octets are looked at, for one connection at a time.
pub(crate) fn message_octets(limits: &Limits) -> usize {
    // `HandshakeDeframer`: a note of 40 octets for each message in a record, which has four octets or
    // more, in a vector that doubles, and a copy of one.
    let notes = RECORD_MAX / 4 * 40 * 3 / 2 + RECORD_MAX;
    // A certificate that is for other names is told with all of them, each of six octets or more as a
    // string of 40.
    let names = limits.handshake_max / 6 * 64;
    notes.max(names)
}

/// `received_plaintext`: a record, and what else a read brought, while that is given away.
pub(crate) const PLAINTEXT_OCTETS: usize = RECORD_WIRE_MAX + READ_MAX;

/// Records in what is read at a time: each has 24 octets or more.
const RECORDS_READ_MAX: usize = READ_MAX / 24 + 1;

/// Keys, transcript and state of a connection, and the notes of [`RECORDS_MAX`] records.
const STATE_OCTETS: usize = 10 * 1024;

/// What belongs to a ticket beside its octets.
const TICKET_OCTETS: usize = 512;

/// RFC 8446 section 5.1.
const RECORD_MAX: usize = 16 * 1024;

/// A record with all that may be around it (RFC 5246 section 6.2.3).
const RECORD_WIRE_MAX: usize = RECORD_MAX + 2048 + 5;

/// Header, tag, content type or explicit nonce, and the vector it is in.
const RECORD_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests;
