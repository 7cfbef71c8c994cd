//! The shell: the one loop that waits for sockets, tells the core what happened and does what it
//! asks for.
//!
//! A turn of the loop does the core's actions, sends its datagrams, writes the query log, waits,
//! reads the clock once, and tells the core everything that came. What a socket gives in one turn is
//! bounded. A socket that may have more is remembered, as epoll will not tell of it again, and the next
//! turn does not wait.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use crate::config::{Config, UpstreamSpec};
use crate::forwarder::{
    Action, ClientId, Closed, ConnId, DatagramPath, Forwarder, Manner, UpstreamConnId,
    UpstreamIdentity, UpstreamIndex, UpstreamSet, sort_by_key,
};
use crate::host::clocks::{ClockChange, Clocks};
use crate::host::descriptors;
use crate::host::inherited::Pair;
use crate::host::network::{Change, Network, Way, interfaces};
use crate::host::notify::Manager;
use crate::host::os_error::{Logged, system_error};
use crate::host::signals::{Request, Termination};
use crate::host::stderr::Stderr;
use crate::shell::access::{ServedSubnets, log_served};
use crate::shell::client::ClientSocket;
use crate::shell::datagram::{Buffers, Calls};
use crate::shell::listener::{self, Listener};
use crate::shell::metrics::{MetricsServer, View};
use crate::shell::origin::Origin;
use crate::shell::reload::{Reloader, Source};
use crate::shell::sockets::{Context, Socket, Sockets};
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
    manager: Manager,
    /// The upstreams that the manager was last told are not usable.
    told_failed: UpstreamSet,
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

/// Whether the program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// SIGTERM came: service goes on until this moment.
    Draining(Instant),
    /// The end is to begin in this turn.
    Asked,
    /// The program ends at this moment, whatever is owed.
    Until(Instant),
}

impl Reactor {
    /// Binds every listener and takes the signals over. The error is one line for the user.
    pub fn bind(config: &Config, mut given: Given) -> Result<Self, String> {
        let connectors = upstream::connectors(config)?;
        let targets = config.upstreams.iter().zip(connectors).map(|(upstream, connector)| {
            UpstreamTarget::new(upstream.to_string().into(), upstream.address, connector)
        });
        let mut limits = config.limits.clone();
        let wanted = descriptors::Wanted {
            clients: limits.clients_max,
            listeners: config.listeners().len(),
            upstream_conns: limits.upstream_conns_max,
            metrics_conns: config.metrics.map_or(0, |_| config.sockets.metrics_conns),
        };
        limits.clients_max = wanted.clients_max()?;
        let mut cx = Context {
            forwarder: Forwarder::new(
                limits,
                config.policy.clone(),
                upstream_identities(&config.upstreams),
                random_seed(),
            ),
            now: now(),
            targets: targets.collect(),
            buffer: vec![0; config.sockets.read_buffer].into(),
            limits: config.sockets,
            unacknowledged: Vec::new(),
        };
        let listeners = listeners(config, std::mem::take(&mut given.sockets))?;
        let metrics = MetricsServer::bind(config)?;
        let access = &config.policy.access;
        log_served(&config.policy, listeners.iter().map(Listener::address));
        // The kernel sends messages before subnets are listed, so that none is missed in between.
        let upstreams: Vec<_> = cx.targets.iter().map(UpstreamTarget::address).collect();
        let network = match Network::listen(Origin::Network.token(), &upstreams, cx.now) {
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
        reactor.map_err(|error| format!("cannot start: {}", system_error(&error)))
    }

    fn with(
        mut listeners: Vec<Listener>,
        network: Option<Network>,
        subnets: Option<ServedSubnets>,
        cx: Context,
        (reloader, given): (Reloader, Given),
    ) -> io::Result<Self> {
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
        Ok(Self {
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
            cx,
            accept_again: None,
            accept_from: 0,
            ending: Ending::No,
            drain: Duration::ZERO,
            clocks: Clocks::default(),
            reloader,
            stderr: given.stderr,
            manager: given.manager,
            told_failed: UpstreamSet::EMPTY,
            logged: Logged::default(),
        })
    }

    fn with_metrics(mut self, metrics: Option<MetricsServer>, drain: Duration) -> io::Result<Self> {
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

    /// Where metrics are served, if they are, with the actual port.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Takes note that everything is open, and how much memory the process takes at most, for metrics.
    pub fn start_metrics(&mut self, memory_bound: usize) {
        if let Some(metrics) = &mut self.metrics {
            metrics.start(memory_bound);
        }
    }

    /// The addresses that are listened on, with their actual ports, in the order of the command line.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().copied()
    }

    /// Has SIGHUP read the files again, and the configuration by `source`. Returns the files, which must be
    /// readable from then on; none, if SIGHUP means something else.
    pub fn reload_from(&mut self, source: Source) -> Vec<PathBuf> {
        if !self.termination.may_reload() {
            return Vec::new();
        }
        self.reloader.set_source(source)
    }

    /// From now on no other ports than those of upstreams can be connected to.
    pub fn note_confined_ports(&mut self) {
        self.reloader.note_confined_ports();
    }

    /// Runs until a signal ends it. The error is one line for the user.
    pub fn run(&mut self) -> Result<(), String> {
        self.log_receive_buffer();
        self.manager.ready(self.cx.now, &status(&self.cx));
        self.turns().map_err(|error| format!("the event loop failed: {}", system_error(&error)))
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.act();
            self.send_datagrams()?;
            self.acknowledge();
            self.write_query_log();
            self.tell_manager();
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
            if self.termination.take_reload() && self.ending == Ending::No {
                self.reload();
            }
            if self.ending == Ending::Asked {
                self.shut_down();
            }
            self.termination.handle_timeout(self.cx.now);
            self.manager.handle_timeout(self.cx.now);
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
            self.manager.poll_timeout(),
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
                Action::Log(notice) => log::log!(notice.level(), "{notice}"),
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

    fn insert_client(&mut self, client: ClientId, stream: TcpStream) {
        let mut socket = ClientSocket::new(client, stream);
        if self.register(client.into(), socket.source()) {
            self.sockets.clients.insert(socket);
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

    /// Sends the core's datagrams, those of each listener in order. A listener that takes no more holds up
    /// its own alone: answers to sources that nobody has wait in the kernel until the link layer gives up.
    fn send_datagrams(&mut self) -> io::Result<()> {
        while let Some(listener) = self.next_sender() {
            let index = usize::from(listener);
            let datagrams = self.cx.forwarder.datagrams();
            let batch = datagrams.filter(|(path, _)| path.listener == listener);
            let registry = self.poll.registry();
            let (now, token) = (self.cx.now, Origin::Udp(index).token());
            let buffers = &mut self.datagrams;
            let sent = self.listeners[index].send(now, registry, token, buffers, batch)?;
            self.cx.forwarder.advance_datagrams(listener, sent.taken, sent.skipped);
        }
        Ok(())
    }

    /// The listener that has the oldest datagram to send, of those that take datagrams.
    fn next_sender(&self) -> Option<u16> {
        let mut listeners = self.cx.forwarder.datagrams().map(|(path, _)| path.listener);
        listeners.find(|index| !self.listeners[usize::from(*index)].is_blocked())
    }

    fn write_query_log(&mut self) {
        // A call without lines makes up for lines of an earlier turn that did not go.
        self.stderr.write_query_log(self.cx.forwarder.query_log());
        self.cx.forwarder.clear_query_log();
    }

    /// Says which upstreams are not usable, once that has changed.
    fn tell_manager(&mut self) {
        if !self.manager.is_there() || self.ending != Ending::No {
            return;
        }
        let failed = self.cx.forwarder.failed_upstreams().map(|(index, ..)| index).collect();
        if failed != self.told_failed {
            self.told_failed = failed;
            self.manager.status(&status(&self.cx));
        }
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

    fn handle_termination(&mut self) {
        match self.termination.take(self.cx.now) {
            Some(Request::Drain) => {
                log::info!("SIGTERM: serving on for {} s (--drain)", self.drain.as_secs());
                self.ending = Ending::Draining(self.cx.now + self.drain);
            }
            Some(Request::End) => self.ending = Ending::Asked,
            None => {}
        }
    }

    /// Has the end begin once the service that goes on after SIGTERM has had its time.
    fn end_drain(&mut self) {
        if let Ending::Draining(until) = self.ending
            && until <= self.cx.now
        {
            self.termination.end_drain();
            self.ending = Ending::Asked;
        }
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

    fn handle_network_message(&mut self) {
        let Some(network) = &mut self.network else { return };
        if let Err(error) = network.handle_message(self.poll.registry(), self.cx.now) {
            self.give_up_network(&error);
        }
    }

    fn look_at_network(&mut self) {
        let Some(network) = &mut self.network else { return };
        match network.begin_look(self.poll.registry(), self.cx.now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.give_up_network(&error),
        }
        for (index, target) in self.cx.targets.iter().enumerate() {
            let Some(change) = network.poll_way(index, target.address()) else { continue };
            let upstream = UpstreamIndex::new(index);
            let connected = self.sockets.upstreams.iter().filter(|it| it.upstream() == upstream);
            let lost: Vec<UpstreamConnId> = connected
                .filter(|socket| {
                    let local = socket.local_address();
                    local.is_some_and(|local| network.is_lost(change, local))
                })
                .map(Socket::id)
                .collect();
            if change.is_another_way() || !lost.is_empty() {
                log::debug!("{}: {}", target.shown(), changed(change, lost.len()));
                self.cx.forwarder.handle_network_change(self.cx.now, upstream, &lost);
            }
        }
        if let Some(subnets) = &mut self.subnets
            && let Err(error) = subnets.look(self.cx.now, &mut self.cx.forwarder)
        {
            let level = self.logged.level(self.cx.now, "subnets", &error);
            log::log!(
                level,
                "{}, and served are those known before",
                ServedSubnets::unknown(&error)
            );
            // Another look follows, as after a message.
            self.handle_network_message();
        }
    }

    /// The subnets that are served stay as they are, too.
    fn give_up_network(&mut self, error: &io::Error) {
        let is_served = self.subnets.is_some();
        log_unnoticed(if is_served { log::Level::Warn } else { log::Level::Debug }, error);
        self.network = None;
    }

    fn read_unread(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        for conn in in_order_of_reading(unread) {
            if self.sockets.read(&mut self.cx, conn) {
                self.unread.push(conn);
            }
        }
    }

    fn receive_datagrams(&mut self, batches_max: usize) {
        let Context { forwarder, now, .. } = &mut self.cx;
        for listener in &mut self.listeners {
            if listener.is_readable() {
                let mut own = 0;
                let sink = |path: DatagramPath, message: &[u8], truncated| {
                    if is_from_listener(&self.addresses, path) {
                        own += 1;
                        return;
                    }
                    log_unserved(forwarder, path.client);
                    forwarder.handle_datagram(*now, path, message, truncated);
                };
                let ignored = listener.receive(*now, &mut self.datagrams, batches_max, sink);
                forwarder.handle_ignored_datagrams(ignored + own);
            }
        }
    }

    fn accept_clients(&mut self, max: usize) {
        if self.accept_again.is_some_and(|at| self.cx.now < at) {
            return;
        }
        self.accept_again = None;
        let first = self.accept_from;
        let mut declined = None;
        for index in (first..self.listeners.len()).chain(0..first) {
            for accepted in 0..max {
                if !self.listeners[index].is_acceptable() {
                    break;
                }
                let only_host = self.listeners[index].is_for_host();
                if !self.cx.forwarder.poll_accept(self.cx.now, only_host) {
                    // A listener that had a place in this turn is the last in the next. Another may be served
                    // although this one is not: of this host's clients and of others not the same are let in.
                    declined.get_or_insert(index + usize::from(accepted > 0));
                    break;
                }
                match self.listeners[index].accept(self.cx.now) {
                    Ok(None) => break,
                    Ok(Some((stream, peer))) => {
                        log_unserved(&self.cx.forwarder, peer);
                        if let Some(client) = self.cx.forwarder.handle_accept(self.cx.now, peer) {
                            self.insert_client(client, stream);
                        }
                        // The core may have closed another for this one: its descriptor is needed.
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
        if let Some(next) = declined {
            self.accept_from = next % self.listeners.len();
        }
        for only_host in [false, true] {
            let mut waiting = self.listeners.iter().filter(|it| it.is_acceptable());
            if !waiting.any(|listener| listener.is_for_host() == only_host) {
                self.cx.forwarder.handle_none_waiting(only_host);
            }
        }
    }

    /// Takes what had arrived before the signal, once, and nothing after that.
    fn shut_down(&mut self) {
        self.manager.stopping();
        self.listeners.iter_mut().for_each(Listener::leave);
        self.listeners.iter_mut().for_each(Listener::look_again);
        self.receive_datagrams(LAST_BATCHES_MAX);
        self.accept_again = None;
        self.accept_clients(LAST_ACCEPTS_MAX);
        self.listeners.iter_mut().for_each(Listener::stop);
        self.cx.forwarder.handle_termination();
        for socket in self.sockets.clients.iter_mut() {
            if socket.read_unasked(&mut self.cx) {
                self.unread.push(socket.id().into());
            }
        }
        self.cx.forwarder.handle_shutdown(self.cx.now);
        self.ending = Ending::Until(self.cx.now + SHUTDOWN_TIMEOUT);
    }

    fn reload(&mut self) {
        // What a connection was named must not be another's yet.
        self.act();
        self.manager.reloading();
        let Self { reloader, cx, network, subnets, .. } = self;
        if reloader.reload(cx, network.as_mut(), subnets)
            && let Some(metrics) = &mut self.metrics
        {
            metrics.relabel(reloader.upstreams());
        }
        self.manager.ready(self.cx.now, &status(&self.cx));
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

    fn log_receive_buffer(&self) {
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
        listeners.push(Listener::bind(index, *address, config.reuse_port, calls, limits)?);
    }
    Ok(listeners)
}

/// How the service does, in a line for the service manager.
fn status(cx: &Context) -> String {
    let failed = cx.forwarder.failed_upstreams();
    let failed: Vec<_> =
        failed.map(|(_, name, stage, detail)| format!("{name}: {stage}: {detail}")).collect();
    let all = cx.forwarder.upstreams_asked().count();
    let words = match failed.len() {
        0 => String::new(),
        _ => format!("; not usable: {}", failed.join("; ")),
    };
    format!("{} of {all} upstreams usable{words}", all - failed.len())
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

fn changed(change: Change, lost: usize) -> String {
    let from = |way: Way| way.map_or("no way there".into(), |local| format!("from {local}"));
    let (before, now) = (from(change.before), from(change.now));
    format!("the network changed: {now}, was {before}; connections given up: {lost}")
}

/// Whether a datagram says that it comes from a listener, so that its answer would be a query: from its
/// address and port, or from its port at the address that was asked, or at loopback, where it has all
/// addresses.
fn is_from_listener(listeners: &[SocketAddr], path: DatagramPath) -> bool {
    let source = path.client;
    listeners.iter().filter(|own| own.port() == source.port()).any(|own| {
        let is_here = path.local == Some(source.ip()) || source.ip().is_loopback();
        own.ip() == source.ip() || own.ip().is_unspecified() && is_here
    })
}

/// Logs each source that is not served, where the core reports the last of them once in a while.
fn log_unserved(forwarder: &Forwarder, source: SocketAddr) {
    if log::log_enabled!(log::Level::Debug) && !forwarder.serves(source.ip()) {
        log::debug!("a query from {source} was dropped: its address is not served");
    }
}

/// Logs that changes of the network go unnoticed. Nothing is lost but time: what failed is tried again after
/// its backoff.
fn log_unnoticed(level: log::Level, error: &io::Error) {
    log::log!(
        level,
        "changes of routes and addresses go unnoticed: netlink: {}",
        system_error(error)
    );
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

/// Batches received from one listener before the others get their turn.
const BATCHES_MAX: usize = 4;

/// Clients accepted from one listener before the others get their turn.
const ACCEPTS_MAX: usize = 64;

/// Batches received after a signal: more than a receive buffer of 4 MiB holds. A flood cannot put the end
/// off.
const LAST_BATCHES_MAX: usize = 128;

/// Clients accepted after a signal: more than the backlog.
const LAST_ACCEPTS_MAX: usize = 4096;

/// The pause before clients are accepted again, when no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// From the signal to the end at the latest: a query has its answer 4.5 s after it came, and the process
/// must have ended 5 s after the signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_from_a_listener_is_known_by_address_and_port() {
        let listeners =
            ["127.0.0.1:53", "10.0.0.1:53", "[fd00::1]:53", "0.0.0.0:5300", "[::]:5300"];
        let listeners = listeners.map(|text| text.parse().expect("an address"));
        for (source, local, expected) in [
            ("10.0.0.1:53", Some("10.0.0.1"), true),
            ("10.0.0.1:53", Some("127.0.0.1"), true),
            ("[fd00::1]:53", None, true),
            ("127.0.0.1:53", None, true),
            // Another port, or another host's.
            ("10.0.0.1:54", Some("10.0.0.1"), false),
            ("10.0.0.9:53", Some("10.0.0.1"), false),
            ("127.0.0.2:53", None, false),
            // Of a listener on all addresses: the one that was asked, and loopback.
            ("10.0.0.2:5300", Some("10.0.0.2"), true),
            ("127.9.9.9:5300", Some("10.0.0.2"), true),
            ("[::1]:5300", Some("fd00::2"), true),
            ("[fd00::2]:5300", Some("fd00::2"), true),
            ("10.0.0.9:5300", Some("10.0.0.2"), false),
            ("10.0.0.2:5301", Some("10.0.0.2"), false),
        ] {
            let client = source.parse().expect("an address");
            let local = local.map(|local| local.parse().expect("an address"));
            let path = DatagramPath { listener: 0, client, local, interface: 1 };
            assert_eq!(is_from_listener(&listeners, path), expected, "{source} to {local:?}");
        }
    }
}
