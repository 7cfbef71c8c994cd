//! The shell: the one loop that waits for sockets, tells the core what happened and does what it
//! asks for.
//!
//! A turn of the loop does the core's actions, sends its datagrams, writes the query log, waits,
//! reads the clock once, and tells the core everything that came. What a socket gives in one turn is
//! bounded. A socket that may have more is remembered, as epoll will not tell of it again, and the next
//! turn does not wait.

mod accept;
mod datagrams;
mod end;
mod network;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use accept::ACCEPTS_MAX;
use datagrams::BATCHES_MAX;
use end::Ending;
use network::log_unnoticed;

use crate::config::{Config, UpstreamSpec};
use crate::forwarder::{
    Action, Closed, ConnId, Forwarder, Manner, UpstreamConnId, UpstreamIdentity, UpstreamIndex,
    sort_by_key,
};
use crate::host::clocks::{ClockChange, Clocks};
use crate::host::descriptors;
use crate::host::inherited::Pair;
use crate::host::network::{Network, interfaces};
use crate::host::notify::Manager;
use crate::host::os_error::{Logged, system_error};
use crate::host::sandbox::Confined;
use crate::host::signals::Termination;
use crate::host::stderr::Stderr;
use crate::shell::access::ServedSubnets;
use crate::shell::datagram::{Buffers, Calls};
use crate::shell::listener::{self, Listener, Options};
use crate::shell::metrics::{MetricsServer, ProcessBound, View};
use crate::shell::origin::Origin;
use crate::shell::reload::{Reload, Reloader, Source};
use crate::shell::sockets::{Context, Socket, Sockets};
use crate::shell::start::Served;
use crate::shell::status::Reporter;
use crate::shell::upstream::{self, UpstreamSocket, UpstreamTarget};

/// Everything that runs; see the [module](self).
pub struct Reactor {
    poll: Poll,
    cx: Context,
    termination: Termination,
    /// The ways to the upstreams; `None` where the kernel does not announce changes.
    network: Option<Network>,
    subnets: Option<ServedSubnets>,
    listeners: Vec<Listener>,
    /// Their addresses.
    addresses: Vec<SocketAddr>,
    metrics: Option<MetricsServer>,
    datagrams: Buffers,
    sockets: Sockets,
    /// Connections whose sockets may have more to read.
    unread: Vec<ConnId>,
    /// When to accept clients again, unless a connection closes before: no descriptor was free.
    accept_again: Option<Instant>,
    /// The listener whose clients are accepted first in the next turn.
    accept_from: usize,
    ending: Ending,
    /// How long service goes on after SIGTERM.
    drain: Duration,
    clocks: Clocks,
    reloader: Reloader,
    stderr: Stderr,
    reporter: Reporter,
    logged: Logged,
}

/// What whoever started the process gave it.
#[derive(Debug, Default)]
pub struct Given {
    /// Where the log goes.
    pub stderr: Stderr,
    /// Sockets that are bound already.
    pub sockets: Vec<Pair>,
    /// Who is told how the service does.
    pub manager: Manager,
}

impl Reactor {
    /// Binds every listener and takes the signals over. The error is one line for the user. It is kept in one place from
    /// the start: a move through each step would take more of the stack than all that it does later.
    pub fn bind(config: &Config, mut given: Given) -> Result<Box<Self>, String> {
        let mut limits = config.limits.clone();
        let wanted = descriptors::Wanted {
            clients: limits.clients_max,
            listeners: config.listen.len(),
            upstream_conns: limits.upstream_conns_max,
            metrics_conns: config.metrics.map_or(0, |_| config.sockets.metrics_conns),
        };
        let clients_max = wanted.clients_max()?;
        limits.clients_max = clients_max;
        let connectors = upstream::connectors(config)?;
        let targets = config.upstreams.iter().zip(connectors).map(|(upstream, connector)| {
            UpstreamTarget::new(upstream.to_string().into(), upstream.address, connector)
        });
        let mut cx = Context {
            forwarder: Forwarder::new(
                limits,
                config.policy.clone(),
                upstream_identities(&config.upstreams),
                random_seed(),
            ),
            now: now(),
            targets: targets.collect(),
            source: config.upstream_source.clone(),
            buffer: vec![0; config.sockets.read_buffer].into(),
            limits: config.sockets,
            unacknowledged: Vec::new(),
        };
        let listeners = listeners(config, std::mem::take(&mut given.sockets))?;
        let metrics = MetricsServer::bind(config)?;
        let access = &config.policy.access;
        // The kernel sends messages before subnets are listed, so that none is missed in between.
        let upstreams: Vec<_> = cx.targets.iter().map(UpstreamTarget::address).collect();
        let source = &config.upstream_source;
        let network = match Network::listen(Origin::Network.token(), &upstreams, source, cx.now) {
            Ok(network) => Some(network),
            Err(error) if access.subnets => return Err(ServedSubnets::unknown(&error)),
            Err(error) => {
                log_unnoticed(log::Level::Debug, &error);
                None
            }
        };
        let subnets = ServedSubnets::open(access, cx.now, &mut cx.forwarder)?;
        let reloader = Reloader::new(config);
        let reactor = Self::with(listeners, network, subnets, cx, (reloader, given))
            .and_then(|reactor| reactor.with_metrics(metrics, config.drain));
        let reactor = reactor.inspect(|_| wanted.log_fewer(clients_max));
        reactor.map_err(|error| format!("cannot start: {}", system_error(&error)))
    }

    fn with(
        mut listeners: Vec<Listener>,
        network: Option<Network>,
        subnets: Option<ServedSubnets>,
        cx: Context,
        (reloader, given): (Reloader, Given),
    ) -> io::Result<Box<Self>> {
        let poll = Poll::new()?;
        let mut termination = Termination::new()?;
        poll.registry().register(
            &mut termination,
            Origin::Termination.token(),
            Interest::READABLE,
        )?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            let (udp, tcp) = (Origin::Udp(index).token(), Origin::Tcp(index).token());
            listener.register(poll.registry(), udp, tcp)?;
        }
        Ok(Box::new(Self {
            poll,
            termination,
            network,
            subnets,
            addresses: listeners.iter().map(Listener::address).collect(),
            listeners,
            metrics: None,
            datagrams: Buffers::new(cx.limits.datagram_batch),
            sockets: Sockets::default(),
            unread: Vec::new(),
            reporter: Reporter::new(given.manager, cx.now),
            cx,
            accept_again: None,
            accept_from: 0,
            ending: Ending::No,
            drain: Duration::ZERO,
            clocks: Clocks::default(),
            reloader,
            stderr: given.stderr,
            logged: Logged::default(),
        }))
    }

    fn with_metrics(
        mut self: Box<Self>,
        metrics: Option<MetricsServer>,
        drain: Duration,
    ) -> io::Result<Box<Self>> {
        self.metrics = metrics;
        if self.metrics.is_some() {
            self.cx.forwarder.enable_measures();
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.register(self.poll.registry())?;
        }
        self.drain = drain;
        self.termination.drains(!drain.is_zero());
        Ok(self)
    }

    /// Where clients are served, in the order of the command line, and metrics, with the actual ports.
    pub fn served(&self) -> Served {
        let metrics = self.metrics.as_ref().map(MetricsServer::address);
        Served { clients: self.addresses.clone(), metrics }
    }

    /// Takes note that everything is open, and how much memory the process takes at most, for metrics.
    pub fn start_metrics(&mut self, memory_bound: ProcessBound, config: &Config) {
        if let Some(metrics) = &mut self.metrics {
            metrics.start(memory_bound, config);
        }
    }

    /// Has SIGHUP read the files again, and the configuration by `source`. Returns the files, which must be
    /// readable from then on; none, if SIGHUP means something else.
    pub fn reload_from(&mut self, source: Source) -> Vec<PathBuf> {
        if !self.termination.may_reload() {
            return Vec::new();
        }
        self.reloader.set_source(source)
    }

    /// From now on this is out of reach.
    pub fn note_confined(&mut self, confined: Confined) {
        self.reloader.note_confined(confined);
    }

    /// Runs until a signal ends it. The error is one line for the user.
    pub fn run(&mut self) -> Result<(), String> {
        self.log_receive_buffer();
        self.reporter.ready(&self.cx);
        self.turns().map_err(|error| format!("the event loop failed: {}", system_error(&error)))
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.act();
            self.send_datagrams()?;
            self.acknowledge();
            self.write_query_log();
            if self.ending == Ending::No {
                self.reporter.look(&self.cx);
            }
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
            if let Some(metrics) = &mut self.metrics {
                metrics.handle_turn(self.poll.registry(), self.cx.now);
            }
            self.end_drain();
            self.termination.handle_timeout(self.cx.now);
            if self.termination.take_reload(self.cx.now) {
                if self.ending == Ending::No {
                    self.reload();
                } else {
                    log::warn!("SIGHUP: nothing is read again, as SIGTERM came");
                }
            }
            if self.termination.take_summary(self.cx.now) {
                self.summarize();
            }
            if self.ending == Ending::Asked {
                self.shut_down();
            }
            self.reporter.handle_timeout(&self.cx);
            // Every turn, or steady traffic would starve the deadlines.
            if self.cx.forwarder.poll_timeout().is_some_and(|at| at <= self.cx.now) {
                self.cx.forwarder.handle_timeout(self.cx.now);
            }
        }
    }

    /// How long to wait. The time counts from the turn's clock reading, so a deadline may be met late by
    /// what the turn's work took.
    fn timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() || self.listeners.iter().any(Listener::is_readable) {
            return Some(Duration::ZERO);
        }
        let acceptable = self.listeners.iter().filter(|listener| listener.is_acceptable());
        let accept = acceptable
            .filter_map(|it| self.cx.forwarder.accept_at(self.cx.now, it.is_for_host()))
            .min();
        let accept = accept.max(accept.and(self.accept_again));
        let ending = match self.ending {
            Ending::Draining(at) | Ending::Until(at) => Some(at),
            Ending::No | Ending::Asked => None,
        };
        let network = self.network.as_ref().and_then(Network::poll_timeout);
        let until = [
            self.cx.forwarder.poll_timeout(),
            accept,
            network,
            ending,
            self.termination.poll_timeout(),
            self.metrics.as_ref().and_then(MetricsServer::poll_timeout),
            self.reporter.poll_timeout(),
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
                Action::InspectPath(conn) => {
                    if let Some(socket) = self.sockets.upstreams.find(conn) {
                        socket.inspect_path(&mut self.cx);
                    }
                }
                Action::Log(notice) => {
                    log::log!(self.reporter.level(self.cx.now, &notice), "{notice}");
                }
                // The client is not read now: one that sends without end would keep this loop going.
                Action::Read(client) => self.unread.push(client.into()),
                Action::ShutdownWrite(client) => {
                    if let Some(socket) = self.sockets.clients.find(client) {
                        socket.shutdown_write();
                    }
                }
                Action::Transmit(conn) => self.sockets.write(&mut self.cx, conn),
            }
        }
    }

    fn acknowledge(&mut self) {
        let mut unacknowledged = std::mem::take(&mut self.cx.unacknowledged);
        for conn in unacknowledged.drain(..) {
            if let Some(socket) = self.sockets.upstreams.find(conn) {
                socket.acknowledge(&self.cx);
            }
        }
        self.cx.unacknowledged = unacknowledged;
    }

    fn connect(&mut self, conn: UpstreamConnId, upstream: UpstreamIndex) {
        let change = self.clocks.poll_wall_clock(self.cx.now);
        self.handle_clock_change(change);
        match UpstreamSocket::connect(&self.cx, conn, upstream) {
            Ok(mut socket) => {
                if self.register(conn.into(), socket.source()) {
                    self.sockets.upstreams.insert(socket);
                }
            }
            Err(how) => self.cx.forwarder.handle_closed(self.cx.now, conn.into(), how),
        }
    }

    /// Has events of the stream of `conn` come. False: the connection is given up. Its name lives on until
    /// the core's close is taken.
    fn register(&mut self, conn: ConnId, stream: &mut TcpStream) -> bool {
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Origin::of(conn).token();
        if let Err(error) = self.poll.registry().register(stream, token, all) {
            let level = self.logged.level(self.cx.now, "epoll", &error);
            log::log!(level, "a connection is given up: epoll: {}", system_error(&error));
            self.cx.forwarder.handle_closed(self.cx.now, conn, Closed::Reset);
            return false;
        }
        true
    }

    fn close(&mut self, conn: ConnId, manner: Manner, why: Option<&'static str>) {
        let is_closed = match conn {
            ConnId::Client(client) => self.sockets.clients.remove(client).is_some(),
            ConnId::Upstream(conn) => self
                .sockets
                .upstreams
                .remove(conn)
                .map(|socket| socket.close(&mut self.cx, manner, why))
                .is_some(),
        };
        if is_closed {
            // A descriptor is free.
            self.accept_again = None;
        }
    }

    fn write_query_log(&mut self) {
        // A call without lines makes up for lines of an earlier turn that did not go.
        self.stderr.write_query_log(self.cx.forwarder.query_log());
        self.cx.forwarder.clear_query_log();
    }
}

/// To the core.
impl Reactor {
    fn handle_event(&mut self, event: &Event) -> io::Result<()> {
        match Origin::from(event.token()) {
            Origin::Termination => {
                self.handle_termination();
            }
            Origin::Metrics(place) => self.handle_metrics_event(place, event),
            Origin::Network => self.handle_network_message(),
            Origin::Udp(index) => {
                let (registry, token) = (self.poll.registry(), event.token());
                self.listeners[index].handle_udp_event(registry, token, event.is_writable())?;
            }
            Origin::Tcp(index) => self.listeners[index].handle_tcp_event(),
            Origin::Client(place) => {
                if let Some(socket) = self.sockets.clients.at(place)
                    && socket.handle_event(&mut self.cx, event)
                {
                    self.unread.push(socket.id().into());
                }
            }
            Origin::Upstream(place) => {
                if let Some(socket) = self.sockets.upstreams.at(place)
                    && socket.handle_event(&mut self.cx, event)
                {
                    self.unread.push(socket.id().into());
                }
            }
        }
        Ok(())
    }

    fn handle_metrics_event(&mut self, place: usize, event: &Event) {
        let Some(metrics) = &mut self.metrics else { return };
        let sockets = self.sockets.clients.iter().count() + self.sockets.upstreams.iter().count();
        let view = View {
            forwarder: &self.cx.forwarder,
            targets: &self.cx.targets,
            is_serving: self.ending == Ending::No,
            files: sockets + metrics.conns(),
        };
        metrics.handle_event(place, event, &view);
    }

    fn handle_clock_change(&mut self, change: Option<ClockChange>) {
        if change.is_some() {
            // A session ends with its certificate, or a day after its handshake: one clock each, and one
            // of them has jumped.
            self.cx.targets.iter_mut().for_each(UpstreamTarget::forget_session);
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

    fn read_unread(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        for conn in in_order_of_reading(unread) {
            if self.sockets.read(&mut self.cx, conn) {
                self.unread.push(conn);
            }
        }
    }

    fn reload(&mut self) {
        // What a connection was named must not be another's yet.
        self.act();
        self.reporter.reloading(self.cx.now);
        let Self { reloader, cx, network, subnets, .. } = self;
        let reload = reloader.reload(cx, network.as_mut(), subnets);
        if reload == Reload::Done {
            self.reporter.note_reload();
        }
        if let Some(metrics) = &mut self.metrics
            && reload != Reload::Nothing
        {
            metrics.note_reload((reload == Reload::Done).then(|| reloader.config()));
        }
        self.reporter.ready(&self.cx);
    }

    /// Says how the service does, as SIGUSR1 asks.
    fn summarize(&mut self) {
        for line in self.reporter.summary(&self.cx).lines() {
            self.stderr.write_remark(line);
        }
        if self.ending == Ending::No {
            self.reporter.tell(&self.cx);
        }
    }
}

/// Takes over the sockets that were handed over, and binds the others.
fn listeners(config: &Config, handed_over: Vec<Pair>) -> Result<Vec<Listener>, String> {
    interfaces::await_addresses(&config.listen);
    let first = config.listeners().next();
    let calls = first.map_or(Ok(Calls::USUAL), listener::find_calls)?;
    let limits = &config.sockets;
    let mut listeners = Vec::with_capacity(config.listeners().len());
    for pair in handed_over {
        listeners.push(Listener::adopt(listeners.len() as u16, pair, calls, limits)?);
    }
    for address in &config.listen {
        let index = listeners.len() as u16;
        let options = Options { reuse_port: config.reuse_port, freebind: config.freebind };
        listeners.push(Listener::bind(index, *address, options, calls, limits)?);
    }
    Ok(listeners)
}

/// Each of these connections once: upstreams first, as answers free what clients wait for, then clients in the
/// order in which their turn came.
fn in_order_of_reading(unread: Vec<ConnId>) -> impl Iterator<Item = ConnId> {
    let mut unread: Vec<(usize, ConnId)> = unread.into_iter().enumerate().collect();
    // A client that the core asked for may have been left unread, too.
    sort_by_key(&mut unread, |(turn, conn)| (*conn, *turn));
    unread.dedup_by_key(|(_, conn)| *conn);
    sort_by_key(&mut unread, |(turn, conn)| (matches!(conn, ConnId::Client(_)), *turn));
    unread.into_iter().map(|(_, conn)| conn)
}

/// What the core is told of upstreams.
pub(super) fn upstream_identities(upstreams: &[UpstreamSpec]) -> Vec<UpstreamIdentity> {
    let operator = |upstream: &UpstreamSpec| {
        let first = upstreams.iter().position(|other| other.has_operator_of(upstream));
        first.unwrap_or_default() as u8
    };
    let identity = |upstream: &UpstreamSpec| UpstreamIdentity {
        shown: upstream.to_string().into(),
        operator: operator(upstream),
    };
    upstreams.iter().map(identity).collect()
}

/// Logs each source that is not served, where the core reports the last of them once in a while.
fn log_unserved(forwarder: &Forwarder, source: SocketAddr) {
    if log::log_enabled!(log::Level::Debug) && !forwarder.serves(source.ip()) {
        log::debug!("a query from {source} was dropped: its address is not served");
    }
}

/// The one reading of the clock, once at the start and once in each turn.
#[expect(clippy::disallowed_methods, reason = "here time comes from")]
fn now() -> Instant {
    Instant::now()
}

/// A random number: the seed that the standard library gives its hash maps from the system, stirred.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Events taken in one turn; the kernel keeps others for the next.
const EVENTS_MAX: usize = 256;
