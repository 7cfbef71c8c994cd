//! The metrics server: what happened so far, and whether the program serves, over HTTP.
//!
//! It has few connections, each with a bound on its request, its response and its time, so that whoever asks it
//! slowly or wrongly takes nothing from queries. A response is written as it is asked for, in one piece of memory, and
//! leaves as fast as the client takes it.

mod conn;
mod http;
mod text;

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use self::conn::{Conn, REQUEST_MAX, Rank, Then};
use self::http::{EXPOSITION, HEAD_MAX, PLAIN, Page, Refusal, Request, Response, Status};
use crate::config::{Config, SocketLimits, UpstreamSpec};
use crate::forwarder::Forwarder;
use crate::host::network::source;
use crate::host::os_error::system_error;
use crate::host::process::{Process, time_of_day};
use crate::shell::listener::{log_early, right_to_bind};
use crate::shell::origin::Origin;
use crate::shell::upstream::UpstreamTarget;

/// The metrics server.
pub(crate) struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
    conns: Box<[Option<Conn>]>,
    /// Connections may wait to be accepted.
    acceptable: bool,
    /// When to accept again: no descriptor was free.
    accept_again: Option<Instant>,
    facts: Facts,
}

/// What does not change while the program runs.
struct Facts {
    /// How each upstream is told apart, in order.
    labels: Box<[Box<str>]>,
    process: Process,
    memory_bound: ProcessBound,
    /// Octets of the process at most.
    octets_max: usize,
    reloads: Reloads,
}

/// Octets of the process at most, with a configuration.
#[derive(Clone, Copy, Debug)]
pub struct ProcessBound {
    /// How they follow from the configuration, and from `program`.
    pub of: fn(&Config, usize) -> usize,
    /// What the program itself and its libraries take.
    pub program: usize,
}

impl ProcessBound {
    fn octets(self, config: &Config) -> usize {
        (self.of)(config, self.program)
    }
}

/// What came of reading the configuration again, and when it was read the last time, at the start or later, without
/// an error.
#[derive(Clone, Copy, Debug, Default)]
struct Reloads {
    done: u64,
    failed: u64,
    has_last_failed: bool,
    /// From 1970.
    read_at: Duration,
}

/// What the responses are about.
pub(crate) struct View<'a> {
    pub(crate) forwarder: &'a Forwarder,
    pub(crate) targets: &'a [UpstreamTarget],
    /// No signal asked for the end.
    pub(crate) is_serving: bool,
    /// Files that are open beside those that were when serving began.
    pub(crate) files: usize,
}

impl MetricsServer {
    /// Listens where the configuration says, if it does. The error is one line for the user.
    pub(crate) fn bind(config: &Config) -> Result<Option<Self>, String> {
        let Some(address) = config.metrics else { return Ok(None) };
        let failed = |error: io::Error| {
            format!("cannot listen on {address} for metrics: {}", reason(&error, address.port()))
        };
        let listener = bind(address, config).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let labels = labels(&config.upstreams);
        let conns = (0..config.sockets.metrics_conns).map(|_| None).collect();
        Ok(Some(Self {
            listener,
            address,
            conns,
            acceptable: false,
            accept_again: None,
            facts: Facts {
                labels,
                process: Process::open(),
                memory_bound: ProcessBound { of: |_, _| 0, program: 0 },
                octets_max: 0,
                reloads: Reloads { read_at: time_of_day(), ..Reloads::default() },
            },
        }))
    }

    /// Where it listens, with the actual port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes note that everything is open, and how much memory the process takes at most.
    pub(crate) fn start(&mut self, memory_bound: ProcessBound, config: &Config) {
        self.facts.memory_bound = memory_bound;
        self.facts.octets_max = memory_bound.octets(config);
        self.facts.process = Process::open();
    }

    /// The configuration was read again, and is this now; or it was wrong.
    pub(crate) fn note_reload(&mut self, config: Option<&Config>) {
        let Facts { labels: shown, reloads, memory_bound, octets_max, .. } = &mut self.facts;
        reloads.has_last_failed = config.is_none();
        match config {
            None => reloads.failed += 1,
            Some(config) => {
                *shown = labels(&config.upstreams);
                *octets_max = memory_bound.octets(config);
                reloads.done += 1;
                reloads.read_at = time_of_day();
            }
        }
    }

    /// Has events come as [`Origin::Metrics`].
    pub(crate) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.listener, Origin::Metrics(0).token(), Interest::READABLE)
    }

    /// An event of the listener, or of the connection in this place, counted from 1.
    pub(crate) fn handle_event(&mut self, place: usize, event: &Event, view: &View<'_>) {
        let Some(index) = place.checked_sub(1) else {
            self.acceptable = true;
            return;
        };
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else { return };
        let mut then = conn.handle_event(event);
        if let Then::Answer(request) = then {
            self.answer(&mut conn, request, view);
            then = conn.write();
        }
        if then == Then::Await {
            self.conns[index] = Some(conn);
        }
    }

    /// Accepts who waits, as far as there are places, and ends what has had its time.
    pub(crate) fn handle_turn(&mut self, registry: &Registry, now: Instant) {
        for place in &mut self.conns {
            if let Some(conn) = place.take_if(|conn| conn.ends_at() <= now) {
                conn.time_out();
            }
        }
        if self.accept_again.is_some_and(|at| now < at) {
            return;
        }
        self.accept_again = None;
        while self.acceptable
            && let Some(index) = self.place(now)
        {
            match self.listener.accept() {
                Ok((mut stream, client)) => {
                    let token = Origin::Metrics(index + 1).token();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    match registry.register(&mut stream, token, both) {
                        // Whoever had the place goes now that another is there.
                        Ok(()) => self.conns[index] = Some(Conn::new(stream, client, now)),
                        Err(error) => log::debug!("metrics: epoll: {}", system_error(&error)),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.acceptable = false,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::debug!("metrics: accept: {}", system_error(&error));
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// When [`Self::handle_turn`] has something to do, if nothing happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.conns.iter().flatten();
        let ends = conns.map(Conn::ends_at).min();
        let accepts = self.acceptable.then(|| {
            let evicts = self.next_to_give_way().map(|(_, at, _)| at);
            self.accept_again.or(evicts)
        });
        ends.into_iter().chain(accepts.flatten()).min()
    }

    /// How many connections there are.
    pub(crate) fn conns(&self) -> usize {
        self.conns.iter().flatten().count()
    }

    /// A place for a connection; when all are taken, that of one that is to give way by now.
    fn place(&self, now: Instant) -> Option<usize> {
        if let Some(free) = self.conns.iter().position(Option::is_none) {
            return Some(free);
        }
        self.next_to_give_way().filter(|(_, at, _)| *at <= now).map(|(.., index)| index)
    }

    /// The connection that gives way next if all places are taken, by rank, and from when on.
    fn next_to_give_way(&self) -> Option<(Rank, Instant, usize)> {
        let conns = || self.conns.iter().flatten();
        let has_most = |network| {
            let places = conns().filter(|conn| conn.network() == network).count();
            places > self.conns.len() / 2
        };
        let all = self.conns.iter().enumerate().filter_map(|(index, conn)| {
            let conn = conn.as_ref()?;
            let (rank, at) = conn.gives_way(has_most(conn.network()));
            Some((rank, at, index))
        });
        all.min()
    }

    fn answer(&mut self, conn: &mut Conn, request: Result<Request, Refusal>, view: &View<'_>) {
        let (status, is_head, page) = match request {
            Ok(Request { page, is_head }) => (status(page, view), is_head, Some(page)),
            Err(Refusal { status, is_head }) => (status, is_head, None),
        };
        let mut response;
        let content_type = if page == Some(Page::Metrics) {
            let content_max = text::octets_max(&self.facts.labels);
            response = Response::with_room(content_max);
            text::write(&mut response, &self.facts, view);
            debug_assert!(response.content_len() <= content_max);
            EXPOSITION
        } else {
            response = Response::with_room(CONTENT_MAX);
            // Writing to a response does not fail.
            writeln!(response, "{}", status.line()).ok();
            PLAIN
        };
        response.finish(status, content_type, is_head);
        conn.respond(response);
    }

    /// Octets of a connection, for these upstreams, or so many others. It has its request, and then the response.
    pub(crate) fn octets(upstreams: &[UpstreamSpec], others: usize) -> usize {
        let content = text::octets_max(&labels(upstreams)).max(text::octets_of_any(others));
        size_of::<Option<Conn>>() + REQUEST_MAX.max(HEAD_MAX + content)
    }
}

fn status(page: Page, view: &View<'_>) -> Status {
    let is_ready = match page {
        Page::Metrics | Page::Health => true,
        // Upstreams do not count unless that is asked: when they fail, all replicas would be taken out at
        // once, and nobody would be told what is wrong.
        Page::Ready { with_upstream } => {
            let mut states = view.forwarder.upstream_states();
            view.is_serving && (!with_upstream || states.any(|state| state.is_usable))
        }
    };
    if is_ready { Status::Ok } else { Status::Unavailable }
}

/// Labels of upstreams: without pins, which are secret to nobody but change, and no two alike.
fn labels(upstreams: &[UpstreamSpec]) -> Box<[Box<str>]> {
    let mut labels: Vec<Box<str>> = Vec::with_capacity(upstreams.len());
    for upstream in upstreams {
        let label = text::escaped(&upstream.without_pins());
        let alike = |label: &str| labels.iter().any(|other| **other == *label);
        let numbered = (2..).map(|number| format!("{label} ({number})").into());
        let mut all = std::iter::once(label.clone()).chain(numbered);
        labels.extend(all.find(|label| !alike(label)));
    }
    labels.into()
}

fn bind(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Connections inherit the sizes of buffers.
    socket.set_send_buffer_size(config.sockets.metrics_send_asked)?;
    socket.set_recv_buffer_size(RECEIVE_ASKED)?;
    if source::bind(&SockRef::from(&socket), address, config.freebind)? {
        log_early(address);
    }
    socket.listen(backlog(&config.sockets).into())?;
    Ok(TcpListener::from_std(socket.into()))
}

fn reason(error: &io::Error, port: u16) -> String {
    let why = system_error(error);
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{why}; `ss -lntp` shows who has it (--metrics)"),
        _ => format!("{why} (--metrics){}", right_to_bind(port, error)),
    }
}

/// Connections that wait to be accepted: as many as there are places.
#[expect(clippy::cast_possible_truncation, reason = "a few")]
pub(crate) fn backlog(sockets: &SocketLimits) -> u16 {
    sockets.metrics_conns as u16
}

/// Octets asked for what a connection receives.
pub(crate) const RECEIVE_ASKED: usize = 4 << 10;

/// Octets of the content of a response that is one line, at most.
const CONTENT_MAX: usize = 64;

/// The pause before connections are accepted again, when no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use crate::config::{self, Command, Host};

    use super::*;

    #[test]
    fn labels_have_no_pins_and_are_told_apart() {
        let pin = |octet: u8| {
            let digits = char::from(octet).to_string().repeat(42);
            format!("sha256/{digits}A=")
        };
        let name = format!("{}aaa", "a.".repeat(125));
        let longest = format!("[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535#{name}");
        let specs = [
            "192.0.2.1#dot.example".to_owned(),
            format!("192.0.2.1#dot.example,{}", pin(b'A')),
            format!("192.0.2.2:8853#{}", pin(b'E')),
            format!("192.0.2.2:8853#{}", pin(b'I')),
            "[2001:db8::1]:853#dot.example".to_owned(),
            longest.clone(),
        ];
        // The first two are one upstream to the command line.
        let args = specs.iter().skip(1).map(|spec| format!("--upstream={spec}").into());
        let config = match config::parse(args.collect(), Host::default()) {
            Ok(Command::Run(config)) => config,
            other => panic!("{other:?}"),
        };
        let labels = labels(&config.upstreams);
        let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
        assert!(labels.iter().all(|label| label.len() + " (16)".len() <= text::LABEL_MAX));
        let expected = [
            "192.0.2.1#dot.example",
            "192.0.2.2:8853",
            "192.0.2.2:8853 (2)",
            "[2001:db8::1]#dot.example",
            &longest,
        ];
        assert_eq!(labels, expected);
    }
}
