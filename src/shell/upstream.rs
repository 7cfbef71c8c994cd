//! Upstreams as connections are made to them, and the sockets of those connections: each moves octets
//! between the kernel and the core, through TLS.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use super::path::Path;
use super::sockets::{Context, Socket};
use super::stream::{BurstReader, Stream};
use crate::config::{Config, SocketLimits};
use crate::forwarder::{Closed, Manner, Stage, UpstreamConnId, UpstreamIndex};
use crate::host::network::source::Source;
use crate::host::os_error::system_error;
use crate::tls::{
    self, Connector, Failure, Files, Handshake, Identity, Progress, TlsLimits, TlsStream,
};

/// An upstream as connections are made to it.
pub(crate) struct UpstreamTarget {
    /// The upstream as log lines name it.
    shown: Box<str>,
    address: SocketAddr,
    connector: Connector,
    /// The first connection was logged.
    logged: bool,
    handshakes: HandshakeCounts,
}

/// TLS handshakes that ended, the full ones and those that resumed, or were to resume, a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandshakeCounts {
    pub(crate) done: [u64; 2],
    pub(crate) failed: [u64; 2],
}

impl UpstreamTarget {
    pub(crate) fn new(shown: Box<str>, address: SocketAddr, connector: Connector) -> Self {
        let handshakes = HandshakeCounts::default();
        Self { shown, address, connector, logged: false, handshakes }
    }

    /// Whether this is the upstream that is shown so, and as its connector would have it.
    pub(crate) fn is_same(&self, connector: &Connector) -> bool {
        self.connector.is_same(connector)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The upstream as log lines name it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn handshakes(&self) -> HandshakeCounts {
        self.handshakes
    }

    /// When its certificate ends, in seconds from 1970, as far as that is known.
    pub(crate) fn certificate_end(&self) -> Option<u64> {
        self.connector.certificate_end()
    }

    /// Makes the next TLS handshake a full one.
    pub(crate) fn forget_session(&mut self) {
        self.connector.forget_session();
    }

    fn note_connected(&mut self, handshake: Handshake) {
        self.handshakes.done[usize::from(handshake.resumed)] += 1;
        let level = if self.logged { log::Level::Debug } else { log::Level::Info };
        self.logged = true;
        log::log!(level, "{}: connected, {handshake}", self.shown);
    }

    /// Logs what the server, or the way there, did to a connection.
    fn log_ended(&self, how: &Closed) {
        match how {
            Closed::Eof => log::debug!("{}: closed by the server", self.shown),
            Closed::Failed { stage, detail } | Closed::Impostor { stage, detail } => {
                log::debug!("{}: {stage}: {detail}", self.shown);
            }
            Closed::Reset => log::debug!("{}: connection reset", self.shown),
        }
    }
}

/// The socket of a connection to an upstream, and the TLS on it.
pub(crate) struct UpstreamSocket {
    conn: UpstreamConnId,
    upstream: UpstreamIndex,
    stream: Stream,
    /// TLS, from when TCP stands: a ticket is used up by the handshake it is taken for.
    tls: Option<Box<TlsStream>>,
    state: State,
    /// More answers are to come, and nothing was written since the last ones were read.
    ack_due: bool,
    /// What TCP said when it was asked last.
    path: Option<Path>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Handshaking,
    Open,
    /// The core knows of the end of the connection.
    Dead,
}

impl UpstreamSocket {
    /// Begins to connect to `upstream`.
    pub(crate) fn connect(
        cx: &Context,
        conn: UpstreamConnId,
        upstream: UpstreamIndex,
    ) -> Result<Self, Closed> {
        let target = &cx.targets[upstream.index()];
        let stream = connect(target.address, &cx.source, &cx.limits).map_err(|detail| {
            let how = Closed::Failed { stage: Stage::Connect, detail };
            target.log_ended(&how);
            how
        })?;
        if let Err(error) = set_options(&stream) {
            log::debug!("{}: socket options: {}", target.shown, system_error(&error));
        }
        let (stream, state) = (Stream::new(stream), State::Connecting);
        Ok(Self { conn, upstream, stream, tls: None, state, ack_due: false, path: None })
    }

    /// The upstream that the connection leads to.
    pub(crate) fn upstream(&self) -> UpstreamIndex {
        self.upstream
    }

    /// Tells the core whether TCP waits for segments that were lost.
    pub(crate) fn inspect_path(&mut self, cx: &mut Context) {
        let path = Path::of(self.stream.tcp.as_fd()).ok();
        let is_losing = path.is_some_and(|path| path.is_losing(self.path));
        self.path = path.or(self.path);
        cx.forwarder.handle_path(cx.now, self.conn, is_losing);
    }

    /// The address of this host that the connection has.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.tcp.local_addr().ok()
    }

    /// Acknowledges the answers that were read, unless something written did.
    ///
    /// The system would put that off for 40 ms, and a server that writes each answer by itself, without
    /// `TCP_NODELAY` (unbound), holds the next one back until then (RFC 1122 section 4.2.3.4).
    pub(crate) fn acknowledge(&mut self, cx: &Context) {
        if std::mem::take(&mut self.ack_due)
            && let Err(error) = SockRef::from(&self.stream.tcp).set_tcp_quickack(true)
        {
            log::trace!("{}: TCP_QUICKACK: {}", self.target(cx).shown, system_error(&error));
        }
    }

    /// Closes the connection, with a goodbye where that is due, and logs why if the connection is closed
    /// here. The socket closes when it is dropped.
    pub(crate) fn close(mut self, cx: &mut Context, manner: Manner, why: Option<&'static str>) {
        self.note_handshake_lost(cx);
        if let Some(why) = why
            && self.state != State::Dead
        {
            log::debug!("{}: closed here: {why}", self.target(cx).shown);
        }
        if manner == Manner::Orderly && self.is_alive() {
            self.say_goodbye(cx.limits.segment_max);
        }
    }

    /// Whether the TCP connection stands now.
    fn establish(&mut self, cx: &mut Context) -> bool {
        let tcp = &self.stream.tcp;
        let result = match tcp.take_error() {
            Ok(None) => tcp.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                if !cx.forwarder.handle_established(cx.now, self.conn) {
                    return false;
                }
                self.state = State::Handshaking;
                match cx.targets[self.upstream.index()].connector.start(cx.now) {
                    Ok(tls) => {
                        cx.forwarder.handle_handshake(self.conn, tls.advice());
                        self.tls = Some(Box::new(tls));
                    }
                    Err(failure) => self.fail(cx, failure),
                }
                self.is_alive()
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => false,
            Err(error) => {
                self.end(cx, connect_failed(&error));
                false
            }
        }
    }

    /// Reads, decrypts and gives to the core. True: there may be more.
    fn receive(&mut self, cx: &mut Context) -> Result<bool, Failure> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let Context { forwarder, now, targets, buffer, limits, unacknowledged, .. } = cx;
        let sink = |bytes: &[u8]| forwarder.handle_stream(*now, self.conn.into(), bytes);
        let progress = if self.state == State::Handshaking {
            // TLS stops where the handshake ends, with octets left.
            let progress = tls.receive(&mut self.stream.tcp, READ_MAX, sink)?;
            forwarder.handle_handshake(self.conn, tls.advice());
            progress
        } else {
            let Stream { tcp, ended, .. } = &mut self.stream;
            let mut burst = BurstReader::new(tcp, buffer, READ_MAX, *ended);
            let progress = tls.receive(&mut burst, usize::MAX, sink)?;
            let more = burst.has_more();
            if !self.ack_due && forwarder.awaits_answers(self.conn) {
                self.ack_due = true;
                unacknowledged.push(self.conn);
            }
            Progress { more, ..progress }
        };
        if self.state == State::Handshaking
            && let Some(handshake) = tls.handshake()
        {
            self.state = State::Open;
            self.path = Path::of(self.stream.tcp.as_fd()).ok();
            forwarder.handle_connected(*now, self.conn);
            let target = &mut targets[self.upstream.index()];
            target.connector.handle_connected(*now, tls);
            target.note_connected(handshake);
        }
        if progress.closed {
            self.say_goodbye(limits.segment_max);
            self.end(cx, Closed::Eof);
        }
        Ok(progress.more)
    }

    /// Encrypts and writes, as much as goes.
    fn send(&mut self, cx: &mut Context) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        loop {
            if !tls.flush(&mut self.stream.writer(cx.limits.segment_max))? {
                self.stream.blocked = true;
                return Ok(());
            }
            if self.state != State::Open {
                return Ok(());
            }
            let output = cx.forwarder.output(self.conn.into());
            if output.is_empty() {
                return Ok(());
            }
            match tls.send(output) {
                0 => return Ok(()),
                len => cx.forwarder.advance_output(cx.now, self.conn.into(), len),
            }
            self.ack_due = false;
        }
    }

    fn fail(&mut self, cx: &mut Context, failure: Failure) {
        self.say_goodbye(cx.limits.segment_max);
        let Failure { stage, detail, is_impostor } = failure;
        let how = if is_impostor {
            Closed::Impostor { stage, detail }
        } else {
            Closed::Failed { stage, detail }
        };
        self.end(cx, how);
    }

    /// Sends `close_notify`, or the alert that tells the server why.
    fn say_goodbye(&mut self, segment_max: usize) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.stream.writer(segment_max));
        }
    }

    /// Counts the handshake as failed if it is under way.
    fn note_handshake_lost(&self, cx: &mut Context) {
        if self.state == State::Handshaking {
            let is_resumed = self.tls.as_ref().is_some_and(|tls| tls.offers_session());
            let target = &mut cx.targets[self.upstream.index()];
            target.handshakes.failed[usize::from(is_resumed)] += 1;
        }
    }

    fn end(&mut self, cx: &mut Context, how: Closed) {
        self.note_handshake_lost(cx);
        self.state = State::Dead;
        // TLS goes before anything else is done, with what the server made it hold.
        self.tls = None;
        self.target(cx).log_ended(&how);
        cx.forwarder.handle_closed(cx.now, self.conn.into(), how);
    }

    /// Whether TCP stands, and its end is not known.
    fn is_alive(&self) -> bool {
        matches!(self.state, State::Handshaking | State::Open)
    }

    fn target<'a>(&self, cx: &'a Context) -> &'a UpstreamTarget {
        &cx.targets[self.upstream.index()]
    }
}

impl Socket for UpstreamSocket {
    type Id = UpstreamConnId;

    fn id(&self) -> UpstreamConnId {
        self.conn
    }

    fn source(&mut self) -> &mut TcpStream {
        &mut self.stream.tcp
    }

    fn handle_event(&mut self, cx: &mut Context, event: &Event) -> bool {
        self.stream.handle_event(event);
        if self.state == State::Connecting && !self.establish(cx) {
            return false;
        }
        let more = self.read(cx);
        self.write(cx);
        more
    }

    fn read(&mut self, cx: &mut Context) -> bool {
        if !self.stream.readable || !self.is_alive() {
            return false;
        }
        match self.receive(cx) {
            Ok(more) => {
                self.stream.readable = more;
                // The handshake and key updates are answered by what they read.
                self.write(cx);
                more && self.is_alive()
            }
            Err(failure) => {
                self.fail(cx, failure);
                false
            }
        }
    }

    fn write(&mut self, cx: &mut Context) {
        if self.stream.blocked || !self.is_alive() {
            return;
        }
        let Err(failure) = self.send(cx) else { return };
        // What came before the connection broke still counts: answers, or an alert that says why, and
        // behind them perhaps the reason itself.
        match self.receive(cx) {
            Ok(_) if self.is_alive() => self.fail(cx, failure),
            Ok(_) => {}
            Err(reason) => self.fail(cx, reason),
        }
    }
}

fn connect_failed(error: &io::Error) -> Closed {
    Closed::Failed { stage: Stage::Connect, detail: system_error(error) }
}

/// Begins to connect. The error is words for the log.
fn connect(
    address: SocketAddr,
    source: &Source,
    limits: &SocketLimits,
) -> Result<TcpStream, Box<str>> {
    let socket = new_socket(address, limits).map_err(|error| system_error(&error))?;
    source.bind(&SockRef::from(&socket), address)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(system_error(&error))
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// A socket with the sizes of its buffers, as the peer learns what they are when it is connected.
fn new_socket(address: SocketAddr, limits: &SocketLimits) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(limits.upstream_receive_asked)?;
    socket.set_send_buffer_size(limits.upstream_send_asked)?;
    Ok(socket)
}

/// Sets timeouts that free a socket of which nothing is asked any more. The core notices a silent upstream
/// long before they pass.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

/// A connector for each upstream, in order, from the files that are there now. The error is one line for the user.
pub fn connectors(config: &Config) -> Result<Vec<Connector>, String> {
    let identities = config.upstreams.iter().map(|upstream| Identity {
        name: upstream.name.as_deref(),
        pins: &upstream.pins,
        sni: upstream.sni,
    });
    let limits = tls_limits(&config.sockets);
    tls::connectors(&config.files, identities, config.key_exchange, limits)
        .map_err(|error| config.placed(error))
}

/// What is wrong with each of the files of certificates, a line each.
pub fn file_problems(config: &Config) -> Vec<String> {
    let Files { roots, client, .. } = &config.files;
    let one = |files: Files| connectors(&Config { files, ..config.clone() }).err();
    let roots = roots.iter().map(|file| Files { roots: vec![file.clone()], ..Files::default() });
    let client = client.iter().map(|both| Files { client: Some(both.clone()), ..Files::default() });
    roots.chain(client).filter_map(one).collect()
}

/// What the TLS of a connection may hold.
pub(crate) fn tls_limits(limits: &SocketLimits) -> TlsLimits {
    TlsLimits {
        output_max: limits.tls_output_max,
        handshake_max: limits.handshake_max,
        tickets_max: limits.tickets_max,
    }
}

/// Octets read from one connection before the others get their turn, and at most a bufferful more. The
/// smallest records ask for new keys: each has 27 octets and takes 40,000 instructions.
const READ_MAX: usize = 32 * 1024;

/// The timeout of what was written, longer than any query waits, so that it never decides about one.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
