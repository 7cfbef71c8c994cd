//! The forwarder without its sockets: a state machine that is told facts and queues outputs.
//!
//! The shell tells it what happened with `handle_*`, each fact once, in any number before it drains
//! the outputs. After that it takes every [`Action`] from [`Forwarder::poll_action`], then sends
//! [`Forwarder::datagrams`], and waits no longer than [`Forwarder::poll_timeout`]. Time comes in as
//! an argument and must not run backwards. Nothing here reads the clock, opens a socket or calls out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::iter_over_hash_type)]

mod accept;
mod action;
mod answer;
mod bound;
mod clients;
mod collections;
mod denial;
mod dispatch;
mod failure;
mod finish;
mod hedge;
mod limits;
pub mod message;
mod queries;
mod query_log;
mod report;
mod upstreams;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use action::{Action, Closed, ConnId, DatagramPath, Manner, Stage};
pub use bound::{Footprint, Term};
use clients::Clients;
use clients::access::Strangers;
pub use clients::access::is_local;
use clients::client::Client;
use clients::response_size::Room;
use collections::arena::{Arena, Id};
use collections::budget::Budget;
use collections::output::DatagramOutput;
use collections::random::Random;
pub(crate) use collections::sort::sort_by_key;
use collections::timeouts::Timeouts;
use denial::Denials;
use finish::Outcome;
pub use limits::{Hedge, Limits, Order, Policy};
pub use message::edit::{Ecs, Edns};
pub use message::opt::Ede;
pub use message::special::SpecialNames;
use queries::fair_share::Shares;
use queries::query::{Messages, Query};
use queries::retransmissions::Joinable;
use query_log::QueryLog;
pub use report::{Counts, Fact};
use upstreams::connection::UpstreamConn;
use upstreams::upstream::{self, Upstream};

/// The forwarder.
///
/// Facts come in by `handle_*`, each told once, `now` never running backwards; outputs go out by
/// [`Self::poll_action`], [`Self::output`] and [`Self::datagrams`], drained once per turn. Any number
/// of facts may come before a drain.
#[derive(Debug)]
pub struct Forwarder {
    limits: Limits,
    policy: Policy,
    random: Random,
    /// What clients have sent by now is taken, as nothing is after that.
    terminating: bool,
    shutting_down: bool,

    queries: Arena<Query>,
    messages: Messages,
    /// Responses owed to clients: one for each query, and one for each retransmission that joined.
    owed: usize,
    /// All queries, by key.
    by_arrival: Timeouts,
    /// Those to be sent, by key.
    queue: Timeouts,
    /// When the queue is looked at again although nothing happens.
    dispatch_at: Option<Instant>,
    /// Upstreams that something is bound for, or was: bit by index.
    bound_upstreams: u16,
    /// Those with an answer that is kept while a better one may come, by key.
    kept: Timeouts,
    hedges: Budget,
    retries: Budget,
    /// Those of clients, by key.
    shares: Shares,
    /// What retransmissions join.
    joinable: Joinable,
    denials: Denials,

    conns: Arena<Conn>,
    clients: Clients,
    strangers: Strangers,
    upstreams: Vec<Upstream>,
    /// Their indexes, the preferred first, as of the last look.
    ranking: Vec<usize>,
    /// When the next line about upstreams that are still down may be written.
    summary_at: Option<Instant>,
    summary_pause: Duration,

    actions: VecDeque<Action>,
    datagrams: DatagramOutput,
    query_log: QueryLog,
    counts: Counts,
}

/// Facts in.
impl Forwarder {
    /// `upstreams` are the display names, `ADDRESS#NAME`, in order of preference, at most 16; those with
    /// the same NAME are one operator's. `seed` feeds jitter and hashing.
    pub fn new(limits: Limits, policy: Policy, upstreams: Vec<Box<str>>, seed: u64) -> Self {
        debug_assert!(upstreams.len() <= u16::BITS as usize, "a query has a bit for each");
        Self {
            policy,
            random: Random::new(seed),
            terminating: false,
            shutting_down: false,
            queries: Arena::with_capacity(limits.queries_max),
            messages: Messages::new(limits.queries_max, limits.query_bytes_max),
            owed: 0,
            by_arrival: Timeouts::with_capacity(limits.queries_max),
            queue: Timeouts::with_capacity(limits.queries_max),
            dispatch_at: None,
            bound_upstreams: 0,
            kept: Timeouts::with_capacity(limits.queries_max),
            hedges: Budget::new(HEDGES_PERCENT),
            retries: Budget::new(RETRIES_PERCENT),
            shares: Shares::new(seed, limits.queries_max),
            joinable: Joinable::new(seed, limits.queries_max),
            denials: Denials::new(),
            conns: Arena::with_capacity(limits.conns_max()),
            clients: Clients::new(&limits),
            strangers: Strangers::default(),
            ranking: (0..upstreams.len()).collect(),
            upstreams: upstream::list(upstreams),
            summary_at: None,
            summary_pause: Duration::ZERO,
            actions: VecDeque::new(),
            datagrams: DatagramOutput::new(limits.datagram_bytes_max, limits.datagrams_max),
            query_log: QueryLog::new(limits.query_log, limits.query_log_max),
            counts: Counts::default(),
            limits,
        }
    }

    /// What a forwarder with these limits and so many upstreams allocates at most.
    pub fn footprint(limits: &Limits, upstreams: usize) -> Footprint {
        bound::footprint(limits, upstreams)
    }

    /// So many datagrams came that are nobody's query.
    pub fn handle_ignored_datagrams(&mut self, count: usize) {
        self.counts.ignored += count as u64;
    }

    /// A datagram of a client; `truncated` if it was cut at the receive buffer's size.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: DatagramPath,
        message: &[u8],
        truncated: bool,
    ) {
        self.client_datagram(now, path, message, truncated);
    }

    /// A client connected, which [`Self::poll_accept`] had allowed. `None`: it is refused, drop the socket.
    pub fn handle_accept(&mut self, now: Instant, peer: SocketAddr) -> Option<ConnId> {
        self.accept_client(now, peer)
    }

    /// The TCP connection of an upstream attempt stands; TLS begins.
    pub fn handle_established(&mut self, now: Instant, conn: ConnId) {
        self.conn_established(now, conn);
    }

    /// The TLS handshake of an upstream attempt is done and its certificate verified.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId) {
        self.conn_opened(now, conn);
    }

    /// Octets arrived: a client's, or an upstream's after decryption.
    pub fn handle_stream(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        match self.conns.get(conn.0) {
            Some(Conn::Client(_)) => self.client_stream(now, conn, bytes),
            Some(Conn::Upstream(_)) => self.upstream_stream(now, conn, bytes),
            Some(Conn::Closing) | None => {}
        }
    }

    /// A connection ended on its own. The shell keeps its socket until it takes [`Action::Close`].
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, how: Closed) {
        match self.conns.get(conn.0) {
            Some(Conn::Client(_)) => {
                self.client_closed(now, conn, &how);
                // What it gave up may have made room for others.
                self.dispatch(now);
            }
            Some(Conn::Upstream(_)) => self.upstream_closed(now, conn, how),
            Some(Conn::Closing) | None => {}
        }
    }

    /// [`Self::poll_timeout`] has passed. A call that is not due does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.by_arrival.pop(now, self.limits.query_timeout) {
            if let Some(id) = self.queries.id_at(key) {
                self.expire(now, id);
            }
        }
        self.kept_timeouts(now);
        self.upstream_timeouts(now);
        self.queue_timeouts(now);
        self.client_timeouts(now);
        self.dispatch(now);
    }

    /// There is another way to this upstream than before, or one again, or none any more. What failed
    /// may work now, so its backoff ends. `lost` are those of its connections that come through no more;
    /// what waits on them is sent again.
    pub fn handle_network_change(&mut self, now: Instant, upstream: usize, lost: &[ConnId]) {
        self.upstreams[upstream].forget_experience();
        self.upstreams[upstream].end_backoff(now);
        for conn in &self.upstreams[upstream].conns {
            if let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn.0) {
                conn.replacement_failed_at = None;
            }
        }
        // One that has ended by itself may not be taken yet.
        let conns = self.upstreams[upstream].conns.iter();
        let lost = conns.filter(|conn| lost.contains(conn)).copied().collect();
        self.drop_upstream_conns(now, lost, "the way to it changed");
    }

    /// The time of day was set: certificates that were not valid may be now, so backoffs end.
    pub fn handle_clock_set(&mut self, now: Instant) {
        self.end_backoffs(now);
        self.dispatch(now);
    }

    /// The machine was suspended: every upstream connection is dropped, as none can be trusted.
    pub fn handle_resume(&mut self, now: Instant) {
        self.denials.forget();
        for upstream in &mut self.upstreams {
            upstream.forget_experience();
            upstream.end_backoff(now);
        }
        let all = self.upstreams.iter().flat_map(|upstream| upstream.conns.iter().copied());
        self.drop_upstream_conns(now, all.collect(), "the machine was suspended");
    }

    /// The end was asked for: clients may be read for all that they have sent, so that
    /// [`Self::handle_shutdown`] finds it owed.
    pub fn handle_termination(&mut self) {
        self.terminating = true;
    }

    /// Answers what is owed, takes nothing new, then closes everything.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.shutting_down = true;
        self.drain_clients(now);
        for index in 0..self.upstreams.len() {
            if let Some(trial) = self.upstreams[index].outage().and_then(|outage| outage.trial) {
                self.finish(now, trial, Outcome::Orphaned);
            }
        }
        let orphans: Vec<Id> =
            self.queries.iter().filter(|(_, query)| query.is_orphan()).map(|(id, _)| id).collect();
        for orphan in orphans {
            self.finish(now, orphan, Outcome::Orphaned);
        }
        self.close_upstreams_if_done();
    }
}

/// Outputs.
impl Forwarder {
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let action = self.actions.pop_front()?;
            match action {
                Action::Close { conn, .. } => {
                    self.conns.remove(conn.0);
                }
                Action::Transmit(conn) => match self.conns.get_mut(conn.0) {
                    Some(Conn::Client(client)) => client.transmitting = false,
                    Some(Conn::Upstream(upstream)) => upstream.transmitting = false,
                    Some(Conn::Closing) | None => continue,
                },
                Action::Connect { conn, .. } | Action::Read(conn) | Action::ShutdownWrite(conn) => {
                    // Overtaken by its own end: only the Close that follows matters.
                    if !matches!(self.conns.get(conn.0), Some(Conn::Client(_) | Conn::Upstream(_)))
                    {
                        continue;
                    }
                }
                Action::Log(_) => {}
            }
            return Some(action);
        }
    }

    /// When [`Self::handle_timeout`] is due. It may be in the past.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.by_arrival.next(self.limits.query_timeout),
            self.queue_timeout().and_then(|after| self.queue.next(after)),
            self.dispatch_at.filter(|_| !self.queue.is_empty() || self.bound_upstreams != 0),
            self.next_kept_timeout(),
            self.next_upstream_timeout(),
            self.next_client_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// How many octets may be read of this connection now. 0: it is a client that must not be read
    /// because of back-pressure, until [`Action::Read`]; the rest waits in its socket.
    pub fn poll_read(&mut self, conn: ConnId) -> usize {
        match self.conns.get(conn.0) {
            Some(Conn::Client(_)) => self.poll_client_read(conn),
            Some(Conn::Upstream(_)) => usize::MAX,
            Some(Conn::Closing) | None => 0,
        }
    }

    /// Whether answers are still to come on this connection to an upstream.
    pub fn awaits_answers(&self, conn: ConnId) -> bool {
        matches!(self.conns.get(conn.0), Some(Conn::Upstream(conn)) if conn.in_flight.waiting() > 0)
    }

    /// What is to be written on this connection.
    pub fn output(&self, conn: ConnId) -> &[u8] {
        match self.conns.get(conn.0) {
            Some(Conn::Client(client)) => client.output.pending(),
            Some(Conn::Upstream(upstream)) => upstream.output.pending(),
            Some(Conn::Closing) | None => &[],
        }
    }

    /// The first `n` octets of [`Self::output`] were written.
    pub fn advance_output(&mut self, now: Instant, conn: ConnId, n: usize) {
        match self.conns.get_mut(conn.0) {
            Some(Conn::Client(client)) => {
                let before = client.output.len();
                client.output.advance(n);
                self.clients.bytes -= before - client.output.len();
                self.client_output_advanced(now, conn);
            }
            Some(Conn::Upstream(upstream)) => {
                upstream.output.advance(n);
                self.dispatch(now);
            }
            Some(Conn::Closing) | None => {}
        }
    }

    /// The datagrams to send, oldest first.
    pub fn datagrams(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> {
        self.datagrams.iter()
    }

    /// The first `n` of [`Self::datagrams`] left, `failed` of them because they could not be sent.
    pub fn advance_datagrams(&mut self, n: usize, failed: usize) {
        self.datagrams.advance(n);
        self.counts.datagrams_dropped += failed as u64;
    }

    /// Lines of the query log since [`Self::clear_query_log`], each with its line feed.
    pub fn query_log(&self) -> &[u8] {
        self.query_log.lines()
    }

    /// The lines of [`Self::query_log`] were taken.
    pub fn clear_query_log(&mut self) {
        self.query_log.clear();
    }

    /// Nothing is held, owed or unsent any more: after [`Self::handle_shutdown`] the shell may end.
    pub fn is_drained(&self) -> bool {
        self.queries.is_empty()
            && self.conns.is_empty()
            && self.datagrams.is_empty()
            && self.actions.is_empty()
    }

    /// Queries that nothing will send, although they wait and may be sent: none, ever. For tests, as it
    /// looks at all.
    pub fn neglected(&self) -> usize {
        let nothing_up = !self.is_something_usable();
        let is_neglected = |(id, query): &(Id, &Query)| {
            // It is queued again when a connection opens.
            if nothing_up && query.is_sent() {
                return false;
            }
            let is_bound = query.bound_for.is_some_and(|index| {
                // One that is open or being made, or as many as there may be, of which one will end.
                !self.upstreams[index].conns.is_empty() || self.is_at_upstream_limit()
            });
            let waits = query.is_special
                || is_bound
                || query.kept.is_some()
                || self.queue.is_armed(id.key());
            !waits && !self.is_out(*id) && query.may_be_sent() && !query.is_trial()
        };
        self.queries.iter().filter(is_neglected).count()
    }

    /// For tests and metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            owed: self.owed,
            queries_held: self.queries.len(),
            conns_held: self.conns.len(),
            ..self.counts
        }
    }
}

/// An entry of the connection table.
#[derive(Debug)]
enum Conn {
    Client(Box<Client>),
    Upstream(Box<UpstreamConn>),
    /// Its `Close` is queued: it takes no input, and its key is kept until the shell takes it.
    Closing,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Datagram(DatagramPath),
    Stream(ConnId),
}

/// Of all queries: late answers that are waited for are few, or the upstream is slow for all, and twice
/// the load would not make it faster.
const HEDGES_PERCENT: u32 = 2;

/// Of all queries: names that are broken everywhere are common, and asking everybody about them mends
/// nothing.
const RETRIES_PERCENT: u32 = 5;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    pub(super) use super::collections::random::Random;

    /// Some instant to count from.
    #[expect(clippy::disallowed_methods, reason = "the one clock reading of the core's tests")]
    pub(super) fn base() -> Instant {
        Instant::now() + std::time::Duration::from_secs(3600)
    }
}
