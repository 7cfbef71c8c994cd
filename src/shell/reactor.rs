//! The shell: the one loop that waits for sockets, tells the core what happened and does what it
//! asks for.
//!
//! A turn of the loop does the core's actions, sends its datagrams, writes the query log, waits,
//! reads the clock once, and tells the core every fact that came. What a socket gives in one turn is
//! bounded. One that may have more is remembered, as epoll will not tell of it again, and the next
//! turn does not wait.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::config::{Config, Upstream};
use crate::forwarder::{
    self, Action, Closed, ConnId, DatagramPath, Forwarder, Manner, UpstreamConnId,
    UpstreamIdentity, UpstreamIndex, sort_by_key,
};
use crate::host::clocks::{ClockChange, Clocks};
use crate::host::descriptors;
use crate::host::network::interfaces;
use crate::host::network::{Change, Network, Way};
use crate::host::os_error::{Logged, system_error};
use crate::host::signals::Termination;
use crate::host::stderr::Stderr;
use crate::shell::datagram::{Buffers, Calls};
use crate::shell::listener::{self, Listener};
use crate::shell::socket::{self, Context, Server, Socket};
use crate::tls::{self, Identity};

/// Everything that runs; see the [module](self).
pub struct Reactor {
    poll: Poll,
    cx: Context,
    termination: Termination,
    /// `None` where the kernel does not tell.
    network: Option<Network>,
    listeners: Vec<Listener>,
    datagrams: Buffers,
    sockets: Sockets,
    /// Sockets that may have more to read.
    unread: Vec<ConnId>,
    /// No connection can be accepted before this, unless one closes.
    accept_again: Option<Instant>,
    /// The listener whose clients are accepted first in the next turn.
    accept_from: usize,
    ending: Ending,
    clocks: Clocks,
    stderr: Stderr,
    logged: Logged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// A signal came in this turn.
    Asked,
    /// What is owed by then is owed no more.
    Until(Instant),
}

impl Reactor {
    /// Binds every listener and takes the signals over. The error is one line for the user.
    pub fn bind(config: &Config, stderr: Stderr) -> Result<Self, String> {
        let identities = config
            .upstreams
            .iter()
            .map(|upstream| Identity { name: upstream.name.as_deref(), pins: &upstream.pins });
        let roots = config.roots.file();
        let connectors = tls::connectors(roots, identities, socket::tls_limits(&config.sockets))
            .map_err(|error| if roots.is_some() { format!("--ca-file: {error}") } else { error })?;
        let servers = config.upstreams.iter().zip(connectors).map(|(upstream, connector)| Server {
            name: upstream.to_string().into(),
            address: upstream.address,
            connector,
            told: false,
        });
        let mut limits = config.limits.clone();
        let wanted = descriptors::Wanted {
            clients: limits.clients_max,
            listeners: config.listen.len(),
            upstream_conns: limits.upstream_conns_max,
        };
        limits.clients_max = wanted.clients_max()?;
        let cx = Context {
            forwarder: Forwarder::new(
                limits,
                config.policy.clone(),
                upstream_identities(&config.upstreams),
                random_seed(),
            ),
            now: now(),
            servers: servers.collect(),
            buffer: vec![0; config.sockets.read_buffer].into(),
            limits: config.sockets,
            unacknowledged: Vec::new(),
        };
        interfaces::await_addresses(&config.listen);
        let calls =
            config.listen.first().map_or(Ok(Calls::USUAL), |it| listener::find_calls(*it))?;
        let listeners: Result<Vec<_>, _> = (0..)
            .zip(&config.listen)
            .map(|(index, address)| {
                Listener::bind(index, *address, config.reuse_port, calls, &config.sockets)
            })
            .collect();
        Self::with(listeners?, cx, stderr)
            .map_err(|error| format!("cannot start: {}", system_error(&error)))
    }

    fn with(mut listeners: Vec<Listener>, cx: Context, stderr: Stderr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut termination = Termination::new()?;
        poll.registry().register(&mut termination, TERMINATION, Interest::READABLE)?;
        let upstreams: Vec<_> = cx.servers.iter().map(|server| server.address).collect();
        let network = Network::listen(poll.registry(), NETWORK, &upstreams, cx.now)
            .inspect_err(tell_unnoticed)
            .ok();
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), udp_token(index), tcp_token(index))?;
        }
        Ok(Self {
            poll,
            termination,
            network,
            listeners,
            datagrams: Buffers::new(cx.limits.datagram_batch),
            sockets: Sockets::default(),
            unread: Vec::new(),
            cx,
            accept_again: None,
            accept_from: 0,
            ending: Ending::No,
            clocks: Clocks::default(),
            stderr,
            logged: Logged::default(),
        })
    }

    /// The addresses that are listened on, with their actual ports, in the order of the command line.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(Listener::address)
    }

    /// Runs until a signal ends it. The error is one line for the user.
    pub fn run(mut self) -> Result<(), String> {
        self.tell_receive_buffer();
        self.turns().map_err(|error| format!("the event loop failed: {}", system_error(&error)))
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.act();
            self.send_datagrams()?;
            self.acknowledge();
            self.write_query_log();
            if self.is_finished() {
                return Ok(());
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.cx.now = now(),
            }
            let change = self.clocks.poll(self.cx.now);
            self.handle_clock_change(change);
            self.look_at_network();
            self.read_unread();
            for event in &events {
                self.handle_event(event)?;
            }
            self.receive_datagrams(BATCHES_MAX);
            self.accept_clients(ACCEPTS_MAX);
            if self.ending == Ending::Asked {
                self.shut_down();
            }
            self.termination.handle_timeout(self.cx.now);
            // Every turn, or steady traffic would starve the deadlines.
            if self.cx.forwarder.poll_timeout().is_some_and(|at| at <= self.cx.now) {
                self.cx.forwarder.handle_timeout(self.cx.now);
            }
        }
    }

    /// How long to wait. It counts from the turn's clock reading, so a deadline may be met late by
    /// what the turn's work took.
    fn timeout(&self) -> Option<Duration> {
        let acceptable = self.listeners.iter().any(Listener::is_acceptable);
        if !self.unread.is_empty() || self.listeners.iter().any(Listener::is_readable) {
            return Some(Duration::ZERO);
        }
        let accept = acceptable.then(|| self.cx.forwarder.accept_at(self.cx.now)).flatten();
        let accept = accept.max(accept.and(self.accept_again));
        let ending = match self.ending {
            Ending::Until(at) => Some(at),
            Ending::No | Ending::Asked => None,
        };
        let network = self.network.as_ref().and_then(Network::poll_timeout);
        let until = [
            self.cx.forwarder.poll_timeout(),
            accept,
            network,
            ending,
            self.termination.poll_timeout(),
        ];
        until.into_iter().flatten().min().map(|at| at.saturating_duration_since(self.cx.now))
    }
}

/// From the core.
impl Reactor {
    fn act(&mut self) {
        while let Some(action) = self.cx.forwarder.poll_action() {
            match action {
                Action::Close { conn, manner, why } => self.close(conn, manner, why),
                Action::Connect { conn, upstream } => self.connect(conn, upstream),
                Action::Log(fact) => log::log!(fact.level(), "{fact}"),
                // Not now: a client that sends without end would keep this loop going.
                Action::Read(client) => self.unread.push(client.into()),
                Action::ShutdownWrite(client) => {
                    if let Some(socket) = self.sockets.find(client) {
                        socket.shutdown_write();
                    }
                }
                Action::Transmit(conn) => {
                    if let Some(socket) = self.sockets.find(conn) {
                        socket.write(&mut self.cx);
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self) {
        let mut unacknowledged = std::mem::take(&mut self.cx.unacknowledged);
        for conn in unacknowledged.drain(..) {
            if let Some(socket) = self.sockets.find(conn) {
                socket.acknowledge(&self.cx);
            }
        }
        self.cx.unacknowledged = unacknowledged;
    }

    fn connect(&mut self, conn: UpstreamConnId, upstream: UpstreamIndex) {
        let change = self.clocks.poll_wall_clock(self.cx.now);
        self.handle_clock_change(change);
        match Socket::connect(&self.cx, conn, upstream) {
            Ok(socket) => self.insert(conn.into(), socket),
            Err(how) => self.cx.forwarder.handle_closed(self.cx.now, conn.into(), how),
        }
    }

    /// Without a socket, the [`ConnId`] lives on until the core's close is taken.
    fn insert(&mut self, conn: ConnId, mut socket: Socket) {
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = self.socket_token(conn);
        if let Err(error) = self.poll.registry().register(socket.source(), token, all) {
            let level = self.logged.level(self.cx.now, "epoll", &error);
            log::log!(level, "a connection is given up: epoll: {}", system_error(&error));
            self.cx.forwarder.handle_closed(self.cx.now, conn, Closed::Reset);
            return;
        }
        self.sockets.insert(conn, socket);
    }

    fn socket_token(&self, conn: ConnId) -> Token {
        Token(FIRST_LISTENER + 2 * self.listeners.len() + Sockets::place(conn))
    }

    fn close(&mut self, conn: ConnId, manner: Manner, why: Option<&'static str>) {
        if let Some(socket) = self.sockets.remove(conn) {
            socket.tell_closed(&self.cx, why);
            socket.close(manner, self.cx.limits.segment_max);
            // A descriptor is free.
            self.accept_again = None;
        }
    }

    /// Sends the core's datagrams, in order. A listener that takes no more holds up those of the
    /// others behind it: its buffer empties by itself, so never for long.
    fn send_datagrams(&mut self) -> io::Result<()> {
        loop {
            let Some((first, _)) = self.cx.forwarder.datagrams().next() else {
                return Ok(());
            };
            let index = usize::from(first.listener);
            let listener = &mut self.listeners[index];
            if listener.is_blocked() {
                return Ok(());
            }
            let datagrams = self.cx.forwarder.datagrams();
            let batch = datagrams.take_while(|(path, _)| path.listener == first.listener);
            let registry = self.poll.registry();
            let (now, token) = (self.cx.now, udp_token(index));
            let sent = listener.send(now, registry, token, &mut self.datagrams, batch)?;
            self.cx.forwarder.advance_datagrams(sent.taken, sent.skipped);
        }
    }

    fn write_query_log(&mut self) {
        // Without lines too: some of an earlier turn may not have gone.
        self.stderr.write_lines(self.cx.forwarder.query_log());
        self.cx.forwarder.clear_query_log();
    }
}

/// To the core.
impl Reactor {
    fn handle_event(&mut self, event: &Event) -> io::Result<()> {
        let token = event.token();
        if token == TERMINATION {
            if self.termination.take(self.cx.now) {
                self.ending = Ending::Asked;
            }
            return Ok(());
        }
        if token == NETWORK {
            self.network_message_came();
            return Ok(());
        }
        let index = token.0 - FIRST_LISTENER;
        if let Some(listener) = self.listeners.get_mut(index / 2) {
            if token == tcp_token(index / 2) {
                listener.tcp_ready();
                return Ok(());
            }
            return listener.udp_ready(self.poll.registry(), token, event.is_writable());
        }
        let place = index - 2 * self.listeners.len();
        if let Some(socket) = self.sockets.at(place)
            && socket.ready(&mut self.cx, event)
        {
            self.unread.push(socket.conn());
        }
        Ok(())
    }

    fn handle_clock_change(&mut self, change: Option<ClockChange>) {
        if change.is_some() {
            // A session ends with its certificate, or a day after: one clock each, and one of them
            // has jumped.
            for server in &mut self.cx.servers {
                server.connector.forget_session();
            }
        }
        match change {
            Some(ClockChange::Suspended) => {
                log::info!("the machine was suspended: connections to upstreams are made anew");
                self.cx.forwarder.handle_resume(self.cx.now);
            }
            Some(ClockChange::Set) => {
                log::info!("the clock was set: upstreams that failed are tried again");
                self.cx.forwarder.handle_clock_set(self.cx.now);
            }
            None => {}
        }
    }

    fn network_message_came(&mut self) {
        let Some(network) = &mut self.network else { return };
        if let Err(error) = network.handle_message(self.poll.registry(), self.cx.now) {
            tell_unnoticed(&error);
            self.network = None;
        }
    }

    fn look_at_network(&mut self) {
        let Some(network) = &mut self.network else { return };
        match network.begin_look(self.poll.registry(), self.cx.now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tell_unnoticed(&error);
                self.network = None;
                return;
            }
        }
        for (index, server) in self.cx.servers.iter().enumerate() {
            let Some(change) = network.poll_way(index, server.address) else { continue };
            let connected =
                self.sockets.upstreams.iter().flatten().filter_map(|s| s.local_address_to(index));
            let lost: Vec<UpstreamConnId> = connected
                .filter(|(_, local)| network.is_lost(change, *local))
                .map(|(conn, _)| conn)
                .collect();
            if change.is_another_way() || !lost.is_empty() {
                log::debug!("{}: {}", server.name, changed(change, lost.len()));
                let upstream = UpstreamIndex::new(index);
                self.cx.forwarder.handle_network_change(self.cx.now, upstream, &lost);
            }
        }
    }

    fn read_unread(&mut self) {
        let mut unread = std::mem::take(&mut self.unread);
        // One that the core asked for may have been left unread, too.
        sort_by_key(&mut unread, |conn| *conn);
        unread.dedup();
        for conn in unread {
            if let Some(socket) = self.sockets.find(conn)
                && socket.read(&mut self.cx)
            {
                self.unread.push(conn);
            }
        }
    }

    fn receive_datagrams(&mut self, batches_max: usize) {
        let Context { forwarder, now, .. } = &mut self.cx;
        for listener in &mut self.listeners {
            if listener.is_readable() {
                let sink = |path: DatagramPath, message: &[u8], truncated| {
                    tell_dropped(path.client);
                    forwarder.handle_datagram(*now, path, message, truncated);
                };
                let ignored = listener.receive(*now, &mut self.datagrams, batches_max, sink);
                forwarder.handle_ignored_datagrams(ignored);
            }
        }
    }

    fn accept_clients(&mut self, max: usize) {
        if self.accept_again.is_some_and(|at| self.cx.now < at) {
            return;
        }
        self.accept_again = None;
        let first = self.accept_from;
        for index in (first..self.listeners.len()).chain(0..first) {
            for accepted in 0..max {
                if !self.listeners[index].is_acceptable() {
                    break;
                }
                if !self.cx.forwarder.poll_accept(self.cx.now) {
                    // Who had a place in this turn is the last in the next.
                    let next = index + usize::from(accepted > 0);
                    self.accept_from = next % self.listeners.len();
                    return;
                }
                match self.listeners[index].accept(self.cx.now) {
                    Ok(None) => break,
                    Ok(Some((stream, peer))) => {
                        tell_dropped(peer);
                        if let Some(conn) = self.cx.forwarder.handle_accept(self.cx.now, peer) {
                            self.insert(conn.into(), Socket::client(conn, stream));
                        }
                        // The core may have closed one for it: its descriptor is needed.
                        self.act();
                    }
                    Err(_) => {
                        // Most likely no descriptor is free, and trying at once would only spin.
                        self.accept_again = Some(self.cx.now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
        if !self.listeners.iter().any(Listener::is_acceptable) {
            self.cx.forwarder.handle_none_waiting();
        }
    }

    /// Takes what had arrived before the signal, once, and nothing after that.
    fn shut_down(&mut self) {
        self.listeners.iter_mut().for_each(Listener::leave);
        self.listeners.iter_mut().for_each(Listener::look_again);
        self.receive_datagrams(LAST_BATCHES_MAX);
        self.accept_again = None;
        self.accept_clients(LAST_ACCEPTS_MAX);
        self.listeners.iter_mut().for_each(Listener::stop);
        self.cx.forwarder.handle_termination();
        for socket in self.sockets.clients.iter_mut().flatten() {
            if socket.read_unasked(&mut self.cx) {
                self.unread.push(socket.conn());
            }
        }
        self.cx.forwarder.handle_shutdown(self.cx.now);
        self.ending = Ending::Until(self.cx.now + SHUTDOWN_TIMEOUT);
    }

    fn is_finished(&self) -> bool {
        let Ending::Until(at) = self.ending else {
            return false;
        };
        if self.cx.forwarder.is_drained() {
            return true;
        }
        if self.cx.now < at {
            return false;
        }
        let counts = self.cx.forwarder.counts();
        let (queries, conns) = (counts.queries_held, counts.conns_held);
        let unsent = self.cx.forwarder.datagrams().count();
        // Clients that were answered and did not close are nobody's loss.
        let level = if queries + unsent > 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(
            level,
            "ended with {queries} queries, {unsent} datagrams and {conns} connections unfinished"
        );
        true
    }

    fn tell_receive_buffer(&self) {
        let Some(granted) = self.listeners.iter().map(Listener::receive_buffer).min() else {
            return;
        };
        let asked = self.cx.limits.datagram_receive_asked;
        if granted < asked {
            log::info!(
                "UDP receive buffer: {granted} octets granted of {asked}; \
                 net.core.rmem_max limits it"
            );
        } else {
            log::debug!("UDP receive buffer: {granted} octets");
        }
    }
}

/// The sockets of all connections, in two tables that are indexed by the core's keys. A slot is emptied
/// when the core's close is taken, and the core gives its key away only after that, so an event finds the
/// socket it is for, or none.
#[derive(Default)]
struct Sockets {
    clients: Vec<Option<Socket>>,
    upstreams: Vec<Option<Socket>>,
}

impl Sockets {
    fn insert(&mut self, conn: ConnId, socket: Socket) {
        let table = self.table(conn);
        if table.len() <= conn.key() {
            table.resize_with(conn.key() + 1, || None);
        }
        table[conn.key()] = Some(socket);
    }

    fn find(&mut self, conn: impl Into<ConnId>) -> Option<&mut Socket> {
        let conn = conn.into();
        self.table(conn).get_mut(conn.key())?.as_mut().filter(|socket| socket.conn() == conn)
    }

    fn remove(&mut self, conn: ConnId) -> Option<Socket> {
        self.find(conn)?;
        self.table(conn)[conn.key()].take()
    }

    /// Where a socket is found again: the keys of clients are even places, those of upstreams odd ones.
    fn place(conn: ConnId) -> usize {
        2 * conn.key() + usize::from(matches!(conn, ConnId::Upstream(_)))
    }

    /// The socket whose [`Self::place`] it is.
    fn at(&mut self, place: usize) -> Option<&mut Socket> {
        let table = if place % 2 == 0 { &mut self.clients } else { &mut self.upstreams };
        table.get_mut(place / 2)?.as_mut()
    }

    fn table(&mut self, conn: ConnId) -> &mut Vec<Option<Socket>> {
        match conn {
            ConnId::Client(_) => &mut self.clients,
            ConnId::Upstream(_) => &mut self.upstreams,
        }
    }
}

/// What the core is told of upstreams.
fn upstream_identities(upstreams: &[Upstream]) -> Vec<UpstreamIdentity> {
    let operator = |upstream: &Upstream| {
        let first = upstreams.iter().position(|other| other.has_operator_of(upstream));
        first.unwrap_or_default() as u8
    };
    let identity = |upstream: &Upstream| UpstreamIdentity {
        shown: upstream.to_string().into(),
        operator: operator(upstream),
    };
    upstreams.iter().map(identity).collect()
}

fn udp_token(listener: usize) -> Token {
    Token(FIRST_LISTENER + 2 * listener)
}

fn tcp_token(listener: usize) -> Token {
    Token(FIRST_LISTENER + 2 * listener + 1)
}

fn changed(change: Change, lost: usize) -> String {
    let from = |way: Way| way.map_or("no way there".into(), |local| format!("from {local}"));
    let (before, now) = (from(change.before), from(change.now));
    format!("the network changed: {now}, was {before}; connections given up: {lost}")
}

/// Each of those who are not served, where the core tells of the last of them once in a while.
fn tell_dropped(source: SocketAddr) {
    if log::log_enabled!(log::Level::Debug) && !forwarder::is_local(source.ip()) {
        log::debug!("a query from {source} was dropped: its address is not served");
    }
}

/// Nothing is lost but time: what failed is tried again after its backoff.
fn tell_unnoticed(error: &io::Error) {
    log::debug!("changes of routes and addresses go unnoticed: netlink: {}", system_error(error));
}

/// The one reading of the clock, once at the start and once in each turn.
#[expect(clippy::disallowed_methods, reason = "here time comes from")]
fn now() -> Instant {
    Instant::now()
}

/// The standard library seeds its hash maps from the system; this is that seed, stirred.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

const TERMINATION: Token = Token(0);
const NETWORK: Token = Token(1);
const FIRST_LISTENER: usize = 2;

/// The kernel keeps those past it for the next turn.
const EVENTS_MAX: usize = 256;

/// Batches received from one listener before the others get their turn.
const BATCHES_MAX: usize = 4;

/// Clients accepted from one listener before the others get their turn.
const ACCEPTS_MAX: usize = 64;

/// More than a receive buffer of 4 MiB holds, in batches, and than the backlog, in clients: a flood
/// cannot put the end off.
const LAST_BATCHES_MAX: usize = 128;
const LAST_ACCEPTS_MAX: usize = 4096;

/// Without a free descriptor, accepting is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A query has its answer 4.5 s after it came, and the process must have ended 5 s after the signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4900);
