//! Upstreams, and the connections to them.

mod attempts;
mod blame;
pub(crate) mod choice;
pub(crate) mod connection;
mod connections;
mod diagnosis;
mod experience;
pub(crate) mod health;
pub(crate) mod in_flight;
pub(crate) mod promptness;
pub(crate) mod query_limit;
pub(crate) mod quiet;
mod reload;
pub(crate) mod replacements;
pub(crate) mod round_trip;
pub(crate) mod sends;
mod serving;
pub(crate) mod tolerance;
mod traffic;
pub(crate) mod turns;
pub(crate) mod upstream;

use std::ops::Index;
use std::time::{Duration, Instant};

use crate::forwarder::action::{
    ROUTES_MAX, RouteIndex, UpstreamConnId, UpstreamIdentity, UpstreamIndex, UpstreamSet,
};
use crate::forwarder::collections::budget::Budget;
use crate::forwarder::collections::conn_table::ConnTable;
use crate::forwarder::collections::random::Random;
use crate::forwarder::limits::{Hedge, Limits, Order, Policy};
use crate::forwarder::message::edit::Edns;
use crate::forwarder::message::frame::KEPT_CAPACITY_MAX;
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::Notice;
pub(crate) use attempts::Place;
pub(crate) use connection::Due;
use connection::UpstreamConn;
pub(crate) use connections::{Ended, Stalled};
pub(crate) use traffic::{Arriving, Outgoing, Sent};
use upstream::{Upstream, UpstreamList};

/// All upstreams, and the connections to them.
#[derive(Debug)]
pub(crate) struct Upstreams {
    list: UpstreamList,
    conns: ConnTable<UpstreamConnId, UpstreamConn>,
    /// To whom queries go that may go to any upstream of their route.
    routes: [UpstreamSet; ROUTES_MAX],
    /// The preferred first, as of the last look.
    ranking: Vec<UpstreamIndex>,
    /// Copies of queries whose answers are late.
    hedges: Budget,
    /// Copies of queries that wait on a connection which waits for lost segments, or whose answers went astray.
    rescues: Budget,
    /// Queries asked of another operator for want of a good answer.
    retries: Budget,
    /// When the next line about upstreams that are still down may be written.
    summary_at: Option<Instant>,
    summary_pause: Duration,
    /// To this connection so much was added that what all hold is to be looked at.
    large: Option<UpstreamConnId>,
    random: Random,
    limits: Limits,
    order: Order,
    hedge: Hedge,
}

impl Upstreams {
    pub(crate) fn new(
        limits: &Limits,
        policy: &Policy,
        upstreams: Vec<UpstreamIdentity>,
        seed: u64,
    ) -> Self {
        let list = UpstreamList::new(upstreams);
        Self {
            routes: [list.indexes().collect(); ROUTES_MAX],
            ranking: list.indexes().collect(),
            list,
            conns: ConnTable::with_capacity(limits.upstream_keys_max()),
            hedges: Budget::new(HEDGES_PERCENT, COPIES_MAX),
            rescues: Budget::new(RESCUES_PERCENT, RESCUES_MAX).saved_up(),
            retries: Budget::new(RETRIES_PERCENT, COPIES_MAX),
            summary_at: None,
            summary_pause: Duration::ZERO,
            large: None,
            random: Random::new(seed),
            limits: limits.clone(),
            order: policy.order,
            hedge: policy.hedge,
        }
    }

    /// How many are asked.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The upstreams of a route.
    pub(crate) fn of_route(&self, route: RouteIndex) -> UpstreamSet {
        self.routes[route.index()]
    }

    /// Those that are asked, in order of preference.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = UpstreamIndex> + use<> {
        self.list.indexes()
    }

    /// All indexes, those included that are asked no more.
    pub(crate) fn places(&self) -> impl Iterator<Item = UpstreamIndex> + use<> {
        self.list.places()
    }

    /// Those that are asked, in order of preference.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.list.iter()
    }

    /// A query of a client came, which lets more copies be made.
    pub(crate) fn note_query(&mut self) {
        self.hedges.note_query();
        self.rescues.note_query();
        self.retries.note_query();
    }

    /// Takes one of the copies that may be made of late queries.
    pub(crate) fn try_hedge(&mut self) -> bool {
        self.hedges.try_take()
    }

    /// Takes one of the copies that may be made of what seems to be lost.
    pub(crate) fn try_ask_again(&mut self) -> bool {
        self.rescues.try_take()
    }

    /// A connection; `None` if it was closed.
    pub(crate) fn conn(&self, id: UpstreamConnId) -> Option<&UpstreamConn> {
        self.conns.get(id)
    }

    /// Keys that are taken, those of connections that the shell has not closed yet included.
    pub(crate) fn keys(&self) -> usize {
        self.conns.len()
    }

    /// The shell has closed its socket.
    pub(crate) fn free_key(&mut self, id: UpstreamConnId) {
        self.conns.free(id);
    }

    /// Octets that it takes for the table of connections.
    pub(crate) fn octets(limits: &Limits) -> usize {
        ConnTable::<UpstreamConnId, UpstreamConn>::octets(limits.upstream_keys_max())
    }
}

impl Upstreams {
    /// What was learned of an upstream or of the way to it may hold no longer, and what failed may work now.
    pub(crate) fn forget_experience(&mut self, now: Instant, index: UpstreamIndex) {
        let upstream = &mut self.list[index];
        upstream.forget_experience();
        upstream.end_backoff(now);
        for conn in &upstream.conns {
            if let Some(conn) = self.conns.get_mut(*conn) {
                conn.replacement_failed_at = None;
            }
        }
    }

    /// It answered a query: what went wrong before is forgotten.
    pub(crate) fn note_answer(&mut self, now: Instant, index: UpstreamIndex) {
        self.list[index].experience.note_answer(now, self.limits.queries_max);
    }

    /// It answers what is sent with so much of EDNS, and not what is sent with more, for a name of the domain with
    /// this hash.
    pub(crate) fn learn_tolerance(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        edns: Edns,
        domain: u32,
        outbox: &mut Outbox,
    ) {
        let upstream = &mut self.list[index];
        if upstream.experience.tolerance.learn(now, edns, domain) {
            outbox.log(Notice::UpstreamObjects { upstream: upstream.name.clone(), edns });
        }
    }

    /// It answered a query that had so much of EDNS.
    pub(crate) fn prove_tolerance(&mut self, index: UpstreamIndex, edns: Edns) {
        self.list[index].experience.tolerance.prove(edns);
    }

    /// Above the limit on what all connections hold, who has to go: the one that holds most, but not the one
    /// to which something was added last.
    pub(crate) fn above_limit(&mut self) -> Option<UpstreamConnId> {
        let spared = self.large?;
        let held = |id: &UpstreamConnId| self.conns.get(*id).map_or(0, UpstreamConn::buffer_octets);
        let all: usize = self.conn_ids().map(held).sum();
        let others = self.conn_ids().filter(|other| **other != spared);
        let heaviest = others.max_by_key(|other| held(other)).copied();
        let goes = heaviest.filter(|_| all > self.limits.upstream_bytes_max);
        if goes.is_none() {
            self.large = None;
        }
        goes
    }

    /// Connections, those being made included.
    pub(crate) fn conns_len(&self) -> usize {
        self.conn_ids().count()
    }

    /// Octets that all connections hold.
    pub(crate) fn held_octets(&self) -> usize {
        let held = |id| self.conns.get(id).map_or(0, UpstreamConn::buffer_octets);
        self.conn_ids().copied().map(held).sum()
    }

    /// All connections, those being closed excepted.
    pub(crate) fn conn_ids(&self) -> impl Iterator<Item = &UpstreamConnId> {
        self.list.every().flat_map(|upstream| &upstream.conns)
    }
}

impl Index<UpstreamIndex> for Upstreams {
    type Output = Upstream;

    fn index(&self, upstream: UpstreamIndex) -> &Upstream {
        &self.list[upstream]
    }
}

/// What a connection holds is looked at when there is more of it than what every connection may keep.
const LARGE: usize = KEPT_CAPACITY_MAX;

/// Of all queries: late answers that are waited for are few, or the upstream is slow for all, and twice
/// the load would not make it faster.
const HEDGES_PERCENT: u32 = 2;

/// Copies at once after a quiet time: copies help when many queries are in trouble, but an upstream that became
/// slow must not get all its queries twice.
const COPIES_MAX: u32 = 8;

/// Of all queries: they go to the same upstream, on another connection, and where segments are lost the server is
/// not slow.
const RESCUES_PERCENT: u32 = 10;

/// As many as are sent within 30 ms at 2,000 a second.
const RESCUES_MAX: u32 = 64;

/// Of all queries: names that are broken everywhere are common, and asking everybody about them mends
/// nothing.
const RETRIES_PERCENT: u32 = 5;
