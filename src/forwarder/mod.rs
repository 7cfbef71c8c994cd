//! The forwarder without its sockets: a state machine that is told events and queues outputs.
//!
//! # The surface
//!
//! The shell tells the forwarder what happened with `handle_*`, each event once, in any number before it
//! drains the outputs. Once in a turn of its loop it
//!
//! 1. takes every [`Action`] from [`Forwarder::poll_action`] and does it,
//! 2. sends [`Forwarder::datagrams`] and says with [`Forwarder::advance_datagrams`] how many left,
//! 3. waits no longer than [`Forwarder::poll_timeout`], and calls [`Forwarder::handle_timeout`] when that
//!    has passed, in every turn, not only when nothing else happened.
//!
//! Time comes in as an argument and does not run backwards. Nothing here reads the clock, opens a socket,
//! waits or calls out.
//!
//! The forwarder names connections; the shell has a socket for each name. A name is free for another
//! connection from when the shell takes its [`Action::Close`], never earlier, so that it never stands for two
//! sockets. Output stays the forwarder's until [`Forwarder::advance_output`]. A client is read only as far as
//! [`Forwarder::poll_read`] allows: when it says 0, [`Action::Read`] tells when to go on.
//!
//! # The life of a query
//!
//! ```text
//!  datagram, frame                                                     frame to an upstream
//!        │                                                                      ▲
//!        ▼            ┌────────────────── queries ───────────────────┐          │
//!     accept ────────▶│ waiting: for any upstream, or for one        │──▶ dispatch
//!        │            │                                              │◀── failure ◀── closed, silent
//!        │            │ in flight: on one or two connections         │◀── hedge ◀── time
//!        │            │                                              │◀── answer ◀── frame
//!        ▼            └──────────────────────┬───────────────────────┘
//!  answered here ──────────▶ finish ◀────────┘
//!                               │
//!                               ▼
//!                      datagram, frame to the client
//! ```
//!
//! 1. `accept` checks a client's message. What cannot be forwarded is answered at once: an error, a special
//!    name, a full table. A retransmission joins the query that it repeats. All else becomes a query, with a
//!    deadline, and waits.
//! 2. `dispatch` gives waiting queries to connections and makes connections where they are missing. The copy
//!    that is sent has a message ID of its connection (`upstreams/in_flight`) and EDNS of this hop
//!    (`message/edit`).
//! 3. `answer` finds the query of a response by connection and message ID, and compares the question. It is
//!    delivered, or held while a better one may come (`second_opinion`), or the query is asked again with less of EDNS.
//!    A late response to a query that has left ends there: its ID becomes free.
//! 4. `failure` has the queries of a connection that closed, broke off or fell silent sent again in the order in
//!    which they came, or to another upstream, or ends those that bring connections down or were sent often enough.
//!    A connection that fell silent has stalled: it gets no new queries, may still answer, and is closed when none of
//!    its queries waits for that, or after its time. `hedge` sends copies where an answer is late although its
//!    connection is alive.
//! 5. `finish` is the only way out. It writes the response for the client, once for each retransmission, with
//!    the client's message ID, and abandons what is still in flight.
//!
//! Each `handle_*` notes what was told, then `settle` does what follows from it, until nothing more does. So
//! `dispatch` has one caller, and `finish` and `send` are never entered from within, which is asserted in
//! debug builds.
//!
//! # The state machines
//!
//! ```text
//! query        waiting ──dispatch──▶ in flight ──answer──▶ finished
//!                 ▲                   │  ▲  │
//!                 └── connection lost ┘  └──┘ a copy is sent elsewhere: on two connections at most
//!              Beside these: held, while a better answer may come; later, on a stalled connection until an
//!              upstream can be used. From everywhere its deadline or its giving way finishes it; if its
//!              client goes while it is in flight, it is an orphan, and finished by the answer.
//!
//! message ID   free ──▶ waiting for an answer ──answer──▶ free
//!                           └── its query left this way ──▶ abandoned ──late answer──▶ free
//!              A query leaves when it is finished, orphaned, sent to a third connection, or sent again on the same
//!              one, as its answer went astray.
//!
//! connection   connecting ──▶ open ──▶ retired: no new queries ──nothing waits, or its time is over──▶ closed
//!                   │           │        └ stalled: what waits on it is sent elsewhere, too
//!                   │           ├── quiet: no new queries until something comes
//!                   │           └── idle ──▶ closed
//!                   └── not in time ──▶ closed
//!
//! upstream     usable ──fresh connections fail, or answers do not come──▶ failed ──backoff, then an attempt
//!                 ▲                                                          │     beside the traffic
//!                 └── an answer; after a failure to connect, a handshake ────┘
//!
//! client       open ──its last query──▶ half-closed ──answered──▶ closed
//!                │ └── idle ──▶ closed      ▲
//!                └── no DNS, too slow ──▶ draining ──answered──▶ lingering ──its end, or 1 s──▶ closed
//!
//! service      serving ──termination──▶ terminating ──shutdown──▶ ending ──all answered──▶ drained
//! ```
//!
//! # Who owns what
//!
//! `clients`, `queries` and `upstreams` own their tables, timers and limits, and do not know each other. What is
//! theirs others read, and tell them what happened; they alone change it. What one of them does that concerns
//! another is returned: a client that is closed gives back the queries that it was owed, a connection that
//! stalls those to send elsewhere; what one must know of another for that it asks a function that is passed in.
//! `Forwarder` has what needs two of them.
//!
//! | a question | its place |
//! |---|---|
//! | who is served | `clients/access`, asked by `clients`: `serves`, for datagrams and connections alike |
//! | which client has to go where there is no room for all | `clients/eviction` |
//! | how much a network may ask | `clients/rates` |
//! | what one network is where something is shared out | `network` |
//! | how much of the query table a network holds | `queries/fair_share` |
//! | when a response leaves that a client has waited for long | `late_answers` |
//! | where the answer of an upstream to a query that has left is dropped, or delivered if the query still waits | `answer`: `deliver_late` |
//! | whether a query has gone round | `message/hops` |
//! | where a query waits | `queries/waiting` |
//! | where every query is, as debug builds assert | `whereabouts` |
//! | which upstream is asked | `dispatch`, `upstreams/choice` |
//! | what is due of a connection, and when it counts as stalled | `upstreams/connection`: `due`, `stalls_at` |
//! | how a query is written to a connection | `upstreams/traffic`: `send` |
//! | what becomes of the queries of a connection to an upstream that is lost | `failure`: `lose`, for each `queries`: `fate` |
//! | whose fault a lost or silent connection is | `upstreams/blame` |
//! | when a connection is quiet, and new queries go another way | `upstreams/quiet` |
//! | when an upstream counts as failed | `upstreams/health` |
//! | other upstreams and policies while it runs | `reload`, `upstreams/reload` |
//! | what is known of an upstream | `upstreams/experience`, and a file for each thing beside it |
//! | whose answers are not for clients | `message/private` |
//! | what is changed in a message | `message/edit` |
//! | what the log says, and how often | `report` |
//! | how much memory is taken | `limits`, `bound` |
//!
//! # Words
//!
//! RFC 9499 has the general ones. Beside these:
//!
//! - *query*: a client's message that was accepted; *sending*: one copy of it on a connection.
//! - *waiting*: to be sent; *in flight*: sent, not answered; *abandoned*: in flight, and its query has left: it
//!   is finished, or waits for another sending.
//! - *held answer*: a SERVFAIL or REFUSED that is delivered if no better answer comes.
//! - *attempt*: a connection that is being made; *retired*: one that gets no new queries.
//! - *quiet*: a connection that owes answers and on which unusually long nothing came. It gets no new queries
//!   until something does.
//! - *stalled*: in flight for too long without any whole answer on the connection; *overdue*: one query without
//!   an answer, whatever the others get.
//! - *trial*: a copy of a query by which an upstream that failed proves that it answers; *hedge*: a copy sent
//!   because the answer is late.
//! - *operator*: who runs upstreams of the same name. What one of its addresses says, the others would.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::iter_over_hash_type)]

mod accept;
mod action;
mod answer;
mod bound;
mod clients;
mod collections;
mod datagrams;
mod denial;
mod dispatch;
mod failure;
mod finish;
mod hedge;
mod late_answers;
mod limits;
mod loss;
pub(crate) mod measures;
pub mod message;
mod network;
mod outbox;
mod queries;
mod query_log;
mod reload;
mod report;
mod second_opinion;
mod upstreams;
#[cfg(debug_assertions)]
mod whereabouts;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub(crate) use action::UpstreamSet;
pub use action::{
    Action, ClientId, Closed, ConnId, DatagramPath, Manner, Stage, UPSTREAMS_MAX, UpstreamConnId,
    UpstreamIdentity, UpstreamIndex, UpstreamUpdate,
};
pub use bound::{MemoryBound, Term, memory_bound};
pub use clients::access::{Access, AccessDenial, Prefix, shown_prefixes};
pub use clients::rates::Rate;
use clients::response_size::ResponseSize;
use clients::{Admission, Clients};
pub(crate) use collections::sort::sort_by_key;
use denial::Denials;
use finish::Outcome;
use limits::Service;
pub use limits::{
    ClientShown, Ecs, Hedge, Limits, Order, Policy, PrivateAnswers, QueryLogForm, QueryLogStyle,
    SpecialNames,
};
pub use measures::{Answered, Measures};
pub use message::edit::Edns;
pub use message::opt::Ede;
pub(crate) use network::Network;
use outbox::Outbox;
use queries::Queries;
use queries::waiting::Next;
use report::OnceAMinute;
pub use report::{Counts, Crowd, Held, Notice, UpstreamState};
use upstreams::Upstreams;

/// The forwarder: see the [module](self) for how it is used.
#[derive(Debug)]
pub struct Forwarder {
    limits: Limits,
    policy: Policy,
    service: Service,
    clients: Clients,
    queries: Queries,
    denials: Denials,
    upstreams: Upstreams,
    outbox: Outbox,
    logged: Logged,
    entered: Entered,
}

/// When the log said what of queries.
#[derive(Debug, Default)]
struct Logged {
    came_back: OnceAMinute,
    stripped: OnceAMinute,
    table_full: OnceAMinute,
    wait_limit: OnceAMinute,
}

/// Events in.
impl Forwarder {
    /// `upstreams` are in order of preference, at most [`UPSTREAMS_MAX`]. `seed` feeds jitter and hashing.
    pub fn new(
        limits: Limits,
        policy: Policy,
        upstreams: Vec<UpstreamIdentity>,
        seed: u64,
    ) -> Self {
        debug_assert!(upstreams.len() <= UPSTREAMS_MAX, "{} upstreams", upstreams.len());
        Self {
            service: Service::Serving,
            clients: Clients::new(&limits, &policy, seed),
            queries: Queries::new(&limits, seed),
            denials: Denials::new(),
            upstreams: Upstreams::new(&limits, &policy, upstreams, seed),
            outbox: Outbox::new(&limits),
            logged: Logged::default(),
            entered: Entered::default(),
            policy,
            limits,
        }
    }

    /// Has [`Self::measures`] count from now on, which costs every query some instructions.
    pub fn enable_measures(&mut self) {
        self.outbox.measures.turn_on();
    }

    /// So many datagrams came that are nobody's query.
    pub fn handle_ignored_datagrams(&mut self, count: usize) {
        self.outbox.counts.ignored += count as u64;
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
        self.settle(now);
    }

    /// A client connected, which [`Self::poll_accept`] had allowed. `None`: it is refused, drop the socket.
    pub fn handle_accept(&mut self, now: Instant, peer: SocketAddr) -> Option<ClientId> {
        if !self.is_served(now, peer.ip()) || self.service == Service::Ending {
            return None;
        }
        match self.clients.admit(now, peer, &mut self.outbox) {
            Admission::Free => {}
            Admission::InPlaceOf(client) => {
                self.close_client(now, client, Manner::Orderly);
                self.settle(now);
            }
            Admission::Refused => return None,
        }
        self.outbox.measures.clients_accepted += 1;
        Some(self.clients.insert(now, peer))
    }

    /// No client waits to be accepted any more where others than this host can connect, or where `only_host` can.
    pub fn handle_none_waiting(&mut self, only_host: bool) {
        self.clients.note_none_waiting(only_host);
    }

    /// The TCP connection of an upstream attempt stands. Whether TLS is to begin: not where another address of the
    /// same operator was there first, while this one was slow (RFC 8305 section 5).
    pub fn handle_established(&mut self, now: Instant, conn: UpstreamConnId) -> bool {
        let is_awaited = |index| self.queries.waiting(Next::Only(index)) > 0;
        if self.upstreams.note_established(now, conn, is_awaited).is_none() {
            return true;
        }
        let why = "another address of its operator was there first";
        self.upstreams.close(conn, Manner::Abort, why, &mut self.outbox);
        self.settle(now);
        false
    }

    /// The TLS handshake of the connection goes on. `advice` is added to what is told if it takes too long.
    pub fn handle_handshake(&mut self, conn: UpstreamConnId, advice: &'static str) {
        self.upstreams.note_handshake(conn, advice);
    }

    /// The TLS handshake of an upstream attempt is done and its certificate verified.
    pub fn handle_connected(&mut self, now: Instant, conn: UpstreamConnId) {
        if let Some(index) = self.upstreams.open(now, conn, &mut self.outbox) {
            if self.upstreams[index].outage().is_some_and(|outage| !outage.proof.wants_trial()) {
                self.recover(now, index);
            }
            // Whatever waits may be sent on it.
            self.queries.end_later();
        }
        self.settle(now);
    }

    /// Octets arrived: a client's, or an upstream's after decryption.
    pub fn handle_stream(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        match conn {
            ConnId::Client(client) => self.client_stream(now, client, bytes),
            ConnId::Upstream(conn) => self.upstream_stream(now, conn, bytes),
        }
        self.settle(now);
    }

    /// A connection ended on its own. The shell keeps its socket until it takes [`Action::Close`].
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, how: Closed) {
        match conn {
            ConnId::Client(client) => {
                let owed = self.clients.ended(now, client, &how, &mut self.outbox);
                self.orphan(now, owed);
            }
            ConnId::Upstream(conn) => self.upstream_closed(now, conn, how),
        }
        self.settle(now);
    }

    /// TCP waits for segments of this connection that were lost, or has all there is, as [`Action::InspectPath`]
    /// asked.
    pub fn handle_path(&mut self, now: Instant, conn: UpstreamConnId, is_losing: bool) {
        if self.upstreams.note_path(now, conn, is_losing) {
            self.rescue(now, conn);
        }
        self.settle(now);
    }

    /// [`Self::poll_timeout`] has passed. A call that is not due does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.queries.pop_expired(now) {
            self.expire(now, id);
        }
        while let Some(id) = self.queries.pop_late(now) {
            self.cut_short(now, id);
        }
        self.outbox.send_late_answers(now);
        while let Some(id) = self.queries.pop_held(now) {
            self.deliver_held(now, id);
        }
        self.upstream_timeouts(now);
        // With nothing up, queries do not wait for their whole time.
        while let Some(patience) = self.upstreams.queue_timeout()
            && let Some(id) = self.queries.pop_impatient(now, patience)
        {
            self.fail_query(now, id);
        }
        while let Some(owed) = self.clients.pop_timeout(now, &mut self.outbox) {
            self.orphan(now, owed);
        }
        self.settle(now);
    }

    /// The way to this upstream is another one than before, or there is one again, or none any more. What
    /// failed may work now, so its backoff ends. `lost` are those of its connections that come through no more;
    /// what waits on them is sent again.
    pub fn handle_network_change(
        &mut self,
        now: Instant,
        upstream: UpstreamIndex,
        lost: &[UpstreamConnId],
    ) {
        self.upstreams.forget_experience(now, upstream);
        // One that has ended by itself may not be taken yet.
        let conns = self.upstreams[upstream].conns.iter();
        let lost = conns.filter(|conn| lost.contains(conn)).copied().collect();
        self.drop_upstream_conns(now, lost, Manner::Abort, "the way to it changed");
        self.settle(now);
    }

    /// The time of day was set: certificates that were not valid may be now, so backoffs end.
    pub fn handle_clock_set(&mut self, now: Instant) {
        self.upstreams.end_backoffs(now);
        self.settle(now);
    }

    /// The machine was suspended: every upstream connection is dropped, as none can be trusted.
    pub fn handle_resume(&mut self, now: Instant) {
        self.denials.forget();
        for upstream in self.upstreams.indexes() {
            self.upstreams.forget_experience(now, upstream);
        }
        let all = self.upstreams.conn_ids().copied();
        let why = "the machine was suspended";
        self.drop_upstream_conns(now, all.collect(), Manner::Abort, why);
        self.settle(now);
    }

    /// The subnets of this host's interfaces are these now, of which those beyond [`Access::SUBNETS_MAX`] do
    /// not count. To be told only if the policy has them served.
    /// Clients that are not served any more are closed.
    pub fn handle_subnets(&mut self, now: Instant, subnets: &[Prefix]) {
        let counted = subnets.len().min(Access::SUBNETS_MAX);
        for client in self.clients.serve(self.policy.access.served(&subnets[..counted])) {
            self.close_client(now, client, Manner::Orderly);
        }
        self.settle(now);
    }

    /// The end was asked for: clients may be read for all that they have sent, so that
    /// [`Self::handle_shutdown`] finds it owed.
    pub fn handle_termination(&mut self) {
        if self.service == Service::Serving {
            self.service = Service::Terminating;
        }
        self.clients.leave();
    }

    /// Answers what is owed, takes nothing new, then closes everything. A client that has just connected may still
    /// send its first query, within 50 ms: it has no way to know that it came too late.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.service = Service::Ending;
        self.clients.drain(now, &mut self.outbox);
        self.settle(now);
    }

    /// What follows from anything that was told, until nothing more does: queries are sent, upstream connections
    /// that hold too much are closed, and who waited for a proof is answered.
    fn settle(&mut self, now: Instant) {
        while self.dispatch(now) | self.shed_upstreams(now) | self.finish_denied(now) {}
        self.close_upstreams_if_done(now);
        #[cfg(debug_assertions)]
        self.assert_whereabouts();
    }
}

/// Outputs.
impl Forwarder {
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let action = self.outbox.actions.pop_front()?;
            let is_current = match action {
                Action::Close { conn: ConnId::Client(client), .. } => {
                    self.clients.free_key(client);
                    true
                }
                Action::Close { conn: ConnId::Upstream(conn), .. } => {
                    self.upstreams.free_key(conn);
                    true
                }
                Action::Transmit(ConnId::Client(client)) => self.clients.note_transmitting(client),
                Action::Transmit(ConnId::Upstream(conn)) => self.upstreams.note_transmitting(conn),
                Action::Connect { conn, .. } | Action::InspectPath(conn) => {
                    self.upstreams.conn(conn).is_some()
                }
                Action::Read(client) | Action::ShutdownWrite(client) => {
                    self.clients.is_connected(client)
                }
                Action::Log(_) => true,
            };
            // What was overtaken by the end of its connection is left out: only the close matters.
            if is_current {
                return Some(action);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due. It may be in the past.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.queries.next_timeout(self.upstreams.queue_timeout()),
            self.upstreams.next_timeout(),
            self.clients.next_timeout(),
            self.denials.next_timeout(),
            self.outbox.late_answers.next_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// How many octets may be read of this client now. 0: it must not be read because of back-pressure,
    /// until [`Action::Read`]; the rest waits in its socket.
    pub fn poll_read(&mut self, now: Instant, client: ClientId) -> usize {
        self.clients.poll_read(now, client, &mut self.outbox)
    }

    /// Whether queries from this address are answered.
    pub fn serves(&self, source: IpAddr) -> bool {
        self.clients.serves(source)
    }

    /// Whether a client may be accepted now. To be asked before each, and only if one may be waiting. `only_host`:
    /// none but this host can connect there.
    pub fn poll_accept(&mut self, now: Instant, only_host: bool) -> bool {
        self.clients.poll_accept(now, only_host)
    }

    /// From when on the next client may be accepted there, as things stand; `None`: not until a client is done.
    pub fn accept_at(&self, now: Instant, only_host: bool) -> Option<Instant> {
        self.clients.accept_at(now, only_host)
    }

    /// Whether answers are still to come on this connection to an upstream.
    pub fn awaits_answers(&self, conn: UpstreamConnId) -> bool {
        self.upstreams.conn(conn).is_some_and(|conn| conn.in_flight.unanswered() > 0)
    }

    /// What is to be written on this connection.
    pub fn output(&self, conn: ConnId) -> &[u8] {
        match conn {
            ConnId::Client(client) => self.clients.output(client),
            ConnId::Upstream(conn) => {
                self.upstreams.conn(conn).map_or(&[], |conn| conn.output.pending())
            }
        }
    }

    /// The first `n` octets of [`Self::output`] were written.
    pub fn advance_output(&mut self, now: Instant, conn: ConnId, n: usize) {
        match conn {
            ConnId::Client(client) => {
                self.clients.advance_output(now, client, n, &mut self.outbox);
            }
            ConnId::Upstream(conn) => self.upstreams.advance_output(conn, n),
        }
        self.settle(now);
    }

    /// The datagrams to send, oldest first.
    pub fn datagrams(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> {
        self.outbox.datagrams.iter()
    }

    /// The first `n` of [`Self::datagrams`] that are for this listener left, `failed` of them because they
    /// could not be sent.
    pub fn advance_datagrams(&mut self, listener: u16, n: usize, failed: usize) {
        self.outbox.datagrams.advance(listener, n);
        self.outbox.counts.datagrams_dropped += failed as u64;
    }

    /// Lines of the query log since [`Self::clear_query_log`], each with its line feed.
    pub fn query_log(&self) -> &[u8] {
        self.outbox.query_log.lines()
    }

    /// The lines of [`Self::query_log`] were taken.
    pub fn clear_query_log(&mut self) {
        self.outbox.query_log.clear();
    }

    /// Nothing is held, owed or unsent any more: after [`Self::handle_shutdown`] the shell may end.
    pub fn is_drained(&self) -> bool {
        self.queries.is_empty()
            && self.clients.keys() == 0
            && self.upstreams.keys() == 0
            && self.outbox.datagrams.is_empty()
            && self.outbox.late_answers.is_empty()
            && self.outbox.actions.is_empty()
    }

    /// What queries were and what became of them.
    pub fn measures(&self) -> &Measures {
        &self.outbox.measures
    }

    /// How it stands with each upstream, in order.
    pub fn upstream_states(&self) -> impl Iterator<Item = UpstreamState<'_>> {
        self.upstreams.iter().map(|upstream| UpstreamState {
            shown: &upstream.name,
            is_usable: upstream.is_usable(),
            conns: upstream.conns.len() - upstream.attempts.len(),
            sends: upstream.sends,
            failures: &upstream.failures,
            took: upstream.experience.round_trip.smoothed(),
            outage: upstream.outage().map(|it| (it.since, it.stage, &*it.detail)),
        })
    }

    /// What is held now of what is bounded.
    pub fn held(&self) -> Held {
        Held {
            queries: (self.queries.len(), self.limits.queries_max),
            clients: (self.clients.len(), self.limits.clients_max),
            client_octets: (self.clients.held_octets(), self.limits.client_bytes_max),
            upstream_conns: (self.upstreams.conns_len(), self.limits.upstream_conns_max),
            upstream_octets: (self.upstreams.held_octets(), self.limits.upstream_bytes_max),
        }
    }

    /// Upstreams that are not usable now: which, their display names, and the phase and the reason of the last
    /// failure.
    pub fn failed_upstreams(&self) -> impl Iterator<Item = (UpstreamIndex, &str, Stage, &str)> {
        let all = self.upstreams.indexes().zip(self.upstreams.iter());
        all.filter_map(|(index, upstream)| {
            let outage = upstream.outage()?;
            Some((index, &*upstream.name, outage.stage, &*outage.detail))
        })
    }

    /// Whether an upstream is usable.
    pub fn is_something_usable(&self) -> bool {
        self.upstreams.is_something_usable()
    }

    /// Whether there is a connection to an upstream that takes queries.
    pub fn is_something_open(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.open.is_some())
    }

    /// Why no upstream is usable: the name of the first in order, the phase and the reason of its failure, and what to
    /// do; `None` if one is usable.
    pub fn outage(&self) -> Option<(&str, Stage, &str, Option<&'static str>)> {
        let (name, outage, advice) = self.upstreams.outage()?;
        Some((name, outage.stage, &outage.detail, advice))
    }

    /// For tests and metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            queries_held: self.queries.len(),
            answers_held: self.outbox.late_answers.unsent(),
            conns_held: self.clients.keys() + self.upstreams.keys(),
            ..self.outbox.counts
        }
    }
}

/// Asserts in debug builds that neither the exit nor the sending of queries is entered again from within.
#[derive(Debug, Default)]
struct Entered(Vec<Part>);

/// What must not be entered again from within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Finish,
    Send,
}

impl Entered {
    fn enter(&mut self, part: Part) {
        if cfg!(debug_assertions) {
            assert!(!self.0.contains(&part), "{part:?} is entered from within");
            self.0.push(part);
        }
    }

    fn leave(&mut self, part: Part) {
        if cfg!(debug_assertions) {
            assert_eq!(self.0.pop(), Some(part));
        }
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Datagram(DatagramPath),
    Stream(ClientId),
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::collections::arena::Id;
    pub(super) use super::collections::random::Random;
    use super::{DatagramPath, Forwarder, UpstreamIdentity};
    use crate::config::{self, Command, Config, Host};

    /// Some instant to count from.
    #[expect(clippy::disallowed_methods, reason = "the one clock reading of the core's tests")]
    pub(super) fn base() -> Instant {
        Instant::now() + std::time::Duration::from_secs(3600)
    }

    /// What the program does without arguments.
    pub(super) fn config() -> Config {
        let Ok(Command::Run(config)) = config::parse(Vec::new(), Host::default()) else {
            panic!("no arguments are fine");
        };
        *config
    }

    /// With the default limits and one upstream.
    pub(super) fn forwarder() -> Forwarder {
        let config = config();
        let upstreams = vec![UpstreamIdentity { shown: "192.0.2.1".into(), operator: 0 }];
        Forwarder::new(config.limits, config.policy, upstreams, 1)
    }

    /// A query that came by datagram, and waits for a connection.
    pub(super) fn query(forwarder: &mut Forwarder, now: Instant) -> Id {
        let client = SocketAddr::from(([127, 0, 0, 1], 5353));
        let path = DatagramPath { listener: 0, client, local: None, interface: 0 };
        forwarder.handle_datagram(
            now,
            path,
            b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01",
            false,
        );
        forwarder
            .queries
            .first_waiting(
                super::queries::waiting::Next::Anyone(super::action::RouteIndex::ALL),
                false,
            )
            .expect("it waits")
    }
}
