//! The TCP socket of a connection: it moves octets between the kernel and the core.
//!
//! epoll reports edges, so each socket remembers whether more may be read, and whether it took no
//! more when last written to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::{Event, Source};
use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use crate::config::SocketLimits;
use crate::forwarder::{
    ClientId, Closed, ConnId, Forwarder, Manner, Stage, UpstreamConnId, UpstreamIndex,
};
use crate::host::os_error::system_error;
use crate::shell::burst::Burst;
use crate::shell::outgoing::Outgoing;
use crate::tls::{Connector, Failure, Handshake, Progress, TlsLimits, TlsStream};

/// A connection's socket, of a client or to an upstream.
pub(crate) enum Socket {
    Client(Client),
    Upstream(Box<Upstream>),
}

/// What a socket works on: the core, and what the loop shares between sockets.
pub(crate) struct Context {
    pub(crate) forwarder: Forwarder,
    pub(crate) now: Instant,
    pub(crate) servers: Vec<Server>,
    /// What is read goes through here.
    pub(crate) buffer: Box<[u8]>,
    /// Connections to [acknowledge](Socket::acknowledge) what was read on.
    pub(crate) unacknowledged: Vec<UpstreamConnId>,
    pub(crate) limits: SocketLimits,
}

/// An upstream as connections are made to it.
pub(crate) struct Server {
    /// For the log.
    pub(crate) name: Box<str>,
    pub(crate) address: SocketAddr,
    pub(crate) connector: Connector,
    /// The first connection was told.
    pub(crate) told: bool,
}

impl Server {
    fn tell_connected(&mut self, handshake: Handshake) {
        let level = if self.told { log::Level::Debug } else { log::Level::Info };
        self.told = true;
        log::log!(level, "{}: connected, {handshake}", self.name);
    }

    /// What the server, or the way there, did to a connection.
    fn tell_ended(&self, how: &Closed) {
        match how {
            Closed::Eof => log::debug!("{}: closed by the server", self.name),
            Closed::Failed { stage, detail } => log::debug!("{}: {stage}: {detail}", self.name),
            Closed::Reset => log::debug!("{}: connection reset", self.name),
        }
    }
}

impl Socket {
    /// A client that was accepted as `conn`.
    pub(crate) fn client(conn: ClientId, stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("client: TCP_NODELAY: {}", system_error(&error));
        }
        let state = ClientState::Open;
        Self::Client(Client {
            conn,
            stream,
            state,
            readable: false,
            ended: false,
            blocked: false,
            begun: 0,
        })
    }

    /// Begins to connect to server `index`.
    pub(crate) fn connect(
        cx: &Context,
        conn: UpstreamConnId,
        index: UpstreamIndex,
    ) -> Result<Self, Closed> {
        let index = index.index();
        let server = &cx.servers[index];
        let stream = connect(server.address, &cx.limits).map_err(|error| {
            let how = connect_failed(&error);
            server.tell_ended(&how);
            how
        })?;
        if let Err(error) = set_options(&stream) {
            log::debug!("{}: socket options: {}", server.name, system_error(&error));
        }
        let state = UpstreamState::Connecting;
        let upstream = Upstream {
            conn,
            server: index,
            stream,
            tls: None,
            state,
            readable: false,
            ended: false,
            blocked: false,
            ack_due: false,
            begun: 0,
        };
        Ok(Self::Upstream(Box::new(upstream)))
    }

    /// Whose socket it is.
    pub(crate) fn conn(&self) -> ConnId {
        match self {
            Self::Client(client) => client.conn.into(),
            Self::Upstream(upstream) => upstream.conn.into(),
        }
    }

    /// The connection to server `index` that it is a socket of, and the address of ours that it has.
    pub(crate) fn local_address_to(&self, index: usize) -> Option<(UpstreamConnId, SocketAddr)> {
        match self {
            Self::Upstream(upstream) if upstream.server == index => {
                Some((upstream.conn, upstream.stream.local_addr().ok()?))
            }
            Self::Upstream(_) | Self::Client(_) => None,
        }
    }

    /// What to register.
    pub(crate) fn source(&mut self) -> &mut impl Source {
        match self {
            Self::Client(client) => &mut client.stream,
            Self::Upstream(upstream) => &mut upstream.stream,
        }
    }

    /// Does what an event allows. True: there is more to read, to be asked for with [`Self::read`].
    pub(crate) fn ready(&mut self, cx: &mut Context, event: &Event) -> bool {
        // An error or hang-up is found by reading. Urgent data, which no DNS program sends, ends a read
        // early: what is behind it would wait for ever.
        let ended = event.is_read_closed() || event.is_error() || event.is_priority();
        let readable = event.is_readable() || ended;
        match self {
            Self::Client(client) => {
                client.ended |= ended;
                client.ready(cx, readable, event)
            }
            Self::Upstream(upstream) => {
                upstream.ended |= ended;
                upstream.ready(cx, readable, event.is_writable())
            }
        }
    }

    /// Reads what is known to wait. True: there is still more.
    pub(crate) fn read(&mut self, cx: &mut Context) -> bool {
        match self {
            Self::Client(client) => client.read(cx),
            Self::Upstream(upstream) => upstream.read(cx),
        }
    }

    /// Reads a client, whether or not an event has told of something new.
    pub(crate) fn read_unasked(&mut self, cx: &mut Context) -> bool {
        match self {
            Self::Client(client) => {
                client.readable = true;
                client.read(cx)
            }
            Self::Upstream(_) => false,
        }
    }

    /// Writes the core's output, as much as goes.
    pub(crate) fn write(&mut self, cx: &mut Context) {
        match self {
            Self::Client(client) => client.write(cx),
            Self::Upstream(upstream) => upstream.write(cx),
        }
    }

    /// Acknowledges the answers that were read, unless something written did.
    ///
    /// The system would put that off for 40 ms, and a server that writes each answer by itself, without
    /// `TCP_NODELAY` (unbound), holds the next one back until then (RFC 1122 section 4.2.3.4).
    pub(crate) fn acknowledge(&mut self, cx: &Context) {
        if let Self::Upstream(upstream) = self
            && std::mem::take(&mut upstream.ack_due)
            && let Err(error) = SockRef::from(&upstream.stream).set_tcp_quickack(true)
        {
            log::trace!(
                "{}: TCP_QUICKACK: {}",
                cx.servers[upstream.server].name,
                system_error(&error)
            );
        }
    }

    /// Tells a client that nothing more follows.
    pub(crate) fn shutdown_write(&mut self) {
        if let Self::Client(client) = self
            && let Err(error) = client.stream.shutdown(std::net::Shutdown::Write)
        {
            // It is gone already, as reading will tell.
            log::trace!("client: shutdown: {}", system_error(&error));
        }
    }

    /// Says why a connection is closed here, unless its end was told.
    pub(crate) fn tell_closed(&self, cx: &Context, why: Option<&'static str>) {
        if let (Self::Upstream(upstream), Some(why)) = (self, why)
            && upstream.state != UpstreamState::Dead
        {
            log::debug!("{}: closed here: {why}", cx.servers[upstream.server].name);
        }
    }

    /// Says goodbye where that is due. The socket closes when it is dropped.
    pub(crate) fn close(self, manner: Manner, segment_max: usize) {
        if let (Self::Upstream(mut upstream), Manner::Orderly) = (self, manner)
            && upstream.is_alive()
        {
            upstream.say_goodbye(segment_max);
        }
    }
}

/// The socket of a client.
pub(crate) struct Client {
    conn: ClientId,
    stream: TcpStream,
    state: ClientState,
    readable: bool,
    /// An event has told of the end of its stream, of an error or of urgent data: a short read does not
    /// say that nothing is left.
    ended: bool,
    blocked: bool,
    /// See [`Outgoing`].
    begun: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    Open,
    /// The end of its stream was told; it may still be written to.
    HalfClosed,
    /// Its reset was told.
    Dead,
}

impl Client {
    fn ready(&mut self, cx: &mut Context, readable: bool, event: &Event) -> bool {
        if self.state == ClientState::HalfClosed && event.is_error() {
            self.reset(cx);
        }
        self.readable |= readable;
        self.blocked &= !event.is_writable();
        let more = self.read(cx);
        self.write(cx);
        more
    }

    fn read(&mut self, cx: &mut Context) -> bool {
        let mut budget = READ_MAX;
        while self.readable && self.state == ClientState::Open {
            // One that may not be read stays readable: `Action::Read` will ask again.
            let most = cx.forwarder.poll_read(self.conn).min(cx.buffer.len());
            if most == 0 {
                return false;
            }
            if budget == 0 {
                return true;
            }
            match self.stream.read(&mut cx.buffer[..most]) {
                Ok(0) => {
                    self.readable = false;
                    self.state = ClientState::HalfClosed;
                    cx.forwarder.handle_closed(cx.now, self.conn.into(), Closed::Eof);
                }
                Ok(len) => {
                    budget = budget.saturating_sub(len);
                    // As with a `Burst`: it is empty.
                    self.readable = self.ended || len == most;
                    cx.forwarder.handle_stream(cx.now, self.conn.into(), &cx.buffer[..len]);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => self.readable = false,
                    _ => self.reset(cx),
                },
            }
        }
        false
    }

    fn write(&mut self, cx: &mut Context) {
        while !self.blocked && self.state != ClientState::Dead {
            let output = cx.forwarder.output(self.conn.into());
            if output.is_empty() {
                return;
            }
            let segment_max = cx.limits.segment_max;
            let mut outgoing = Outgoing::new(&self.stream, &mut self.begun, segment_max);
            match outgoing.write(output) {
                Ok(len) => cx.forwarder.advance_output(cx.now, self.conn.into(), len),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => self.blocked = true,
                    _ => self.reset(cx),
                },
            }
        }
    }

    fn reset(&mut self, cx: &mut Context) {
        self.state = ClientState::Dead;
        cx.forwarder.handle_closed(cx.now, self.conn.into(), Closed::Reset);
    }
}

/// The socket of a connection to an upstream, and the TLS on it.
#[expect(clippy::struct_excessive_bools, reason = "each is something that is so by itself")]
pub(crate) struct Upstream {
    conn: UpstreamConnId,
    /// Index into [`Context::servers`].
    server: usize,
    stream: TcpStream,
    /// From when TCP stands: a ticket is used up by the handshake it is taken for.
    tls: Option<TlsStream>,
    state: UpstreamState,
    readable: bool,
    /// As with clients.
    ended: bool,
    blocked: bool,
    /// More answers are to come, and nothing was written since the last ones were read.
    ack_due: bool,
    begun: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamState {
    Connecting,
    Handshaking,
    Open,
    /// Its end was told.
    Dead,
}

impl Upstream {
    fn ready(&mut self, cx: &mut Context, readable: bool, writable: bool) -> bool {
        if self.state == UpstreamState::Connecting && !self.establish(cx) {
            return false;
        }
        self.readable |= readable;
        self.blocked &= !writable;
        let more = self.read(cx);
        self.write(cx);
        more
    }

    /// Whether the TCP connection stands.
    fn establish(&mut self, cx: &mut Context) -> bool {
        let result = match self.stream.take_error() {
            Ok(None) => self.stream.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.state = UpstreamState::Handshaking;
                cx.forwarder.handle_established(cx.now, self.conn);
                match cx.servers[self.server].connector.start(cx.now) {
                    Ok(tls) => self.tls = Some(tls),
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

    fn read(&mut self, cx: &mut Context) -> bool {
        if !self.readable || !self.is_alive() {
            return false;
        }
        match self.receive(cx) {
            Ok(more) => {
                self.readable = more;
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
        if self.blocked || !self.is_alive() {
            return;
        }
        let Err(failure) = self.send(cx) else { return };
        // What came before it broke still counts: answers, or an alert that says why. They may be
        // followed by the reason itself.
        match self.receive(cx) {
            Ok(_) if self.is_alive() => self.fail(cx, failure),
            Ok(_) => {}
            Err(reason) => self.fail(cx, reason),
        }
    }

    /// Reads, decrypts and tells. True: there may be more.
    fn receive(&mut self, cx: &mut Context) -> Result<bool, Failure> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let Context { forwarder, now, servers, buffer, limits, unacknowledged } = cx;
        let sink = |bytes: &[u8]| forwarder.handle_stream(*now, self.conn.into(), bytes);
        let progress = if self.state == UpstreamState::Handshaking {
            // Which stops where the handshake ends, with octets left.
            tls.receive(&mut self.stream, UPSTREAM_READ_MAX, sink)?
        } else {
            let mut burst = Burst::new(&mut self.stream, buffer, UPSTREAM_READ_MAX, self.ended);
            let progress = tls.receive(&mut burst, usize::MAX, sink)?;
            let more = burst.has_more();
            if !self.ack_due && forwarder.awaits_answers(self.conn) {
                self.ack_due = true;
                unacknowledged.push(self.conn);
            }
            Progress { more, ..progress }
        };
        if self.state == UpstreamState::Handshaking
            && let Some(handshake) = tls.handshake()
        {
            self.state = UpstreamState::Open;
            forwarder.handle_connected(*now, self.conn);
            let server = &mut servers[self.server];
            server.connector.handle_connected(*now, tls);
            server.tell_connected(handshake);
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
            let segment_max = cx.limits.segment_max;
            if !tls.flush(&mut Outgoing::new(&self.stream, &mut self.begun, segment_max))? {
                self.blocked = true;
                return Ok(());
            }
            if self.state != UpstreamState::Open {
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
        let Failure { stage, detail } = failure;
        self.end(cx, Closed::Failed { stage, detail });
    }

    /// `close_notify`, or the alert that tells the server why.
    fn say_goodbye(&mut self, segment_max: usize) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut Outgoing::new(&self.stream, &mut self.begun, segment_max));
        }
    }

    fn end(&mut self, cx: &mut Context, how: Closed) {
        self.state = UpstreamState::Dead;
        // With what the server made it hold, before anything else is done.
        self.tls = None;
        cx.servers[self.server].tell_ended(&how);
        cx.forwarder.handle_closed(cx.now, self.conn.into(), how);
    }

    /// TCP stands and its end was not told.
    fn is_alive(&self) -> bool {
        matches!(self.state, UpstreamState::Handshaking | UpstreamState::Open)
    }
}

fn connect_failed(error: &io::Error) -> Closed {
    Closed::Failed { stage: Stage::Connect, detail: system_error(error) }
}

/// Begins to connect. The buffers come first: what they are then is what the peer is told of them.
fn connect(address: SocketAddr, limits: &SocketLimits) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(limits.upstream_receive_asked)?;
    socket.set_send_buffer_size(limits.upstream_send_asked)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// The core notices a silent upstream long before these do; they free a socket that nothing is asked
/// of any more.
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

/// What the TLS of a connection may hold.
pub(crate) fn tls_limits(limits: &SocketLimits) -> TlsLimits {
    TlsLimits {
        output_max: limits.tls_output_max,
        handshake_max: limits.handshake_max,
        tickets_max: limits.tickets_max,
    }
}

/// Octets of a place for a socket, and of notes that it is to be read and acknowledged, in lists that
/// double.
pub(crate) const OCTETS_EACH: usize = 2 * (size_of::<Option<Socket>>() + 2 * size_of::<ConnId>());

/// Octets read from one connection before the others get their turn.
const READ_MAX: usize = 64 * 1024;

/// The same for upstreams, and at most a bufferful more. The smallest records ask for new keys: each has
/// 27 octets and takes 40,000 instructions.
const UPSTREAM_READ_MAX: usize = 32 * 1024;

/// Longer than any query waits, so that it never decides about one.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
