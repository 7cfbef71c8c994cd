//! How many connections to upstreams there may be, and how much they may hold.

pub(crate) mod connection;
pub(crate) mod health;
pub(crate) mod in_flight;
pub(crate) mod overdue;
pub(crate) mod promptness;
pub(crate) mod query_limit;
pub(crate) mod replacements;
pub(crate) mod round_trip;
pub(crate) mod sends;
pub(crate) mod tolerance;
pub(crate) mod turns;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

use crate::forwarder::Forwarder;
use crate::forwarder::action::{
    Manner, UpstreamConnId, UpstreamIdentity, UpstreamIndex, UpstreamSet,
};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::collections::budget::Budget;
use crate::forwarder::collections::conn_table::ConnTable;
use crate::forwarder::collections::random::Random;
use crate::forwarder::limits::Limits;
use crate::forwarder::message::frame::KEPT_CAPACITY_MAX;
use connection::{Phase, UpstreamConn};
use upstream::UpstreamList;

/// All upstreams, and the connections to them.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(crate) list: UpstreamList,
    pub(crate) conns: ConnTable<UpstreamConnId, UpstreamConn>,
    /// The preferred first, as of the last look.
    pub(crate) ranking: Vec<UpstreamIndex>,
    /// Upstreams that something is bound for, or was.
    pub(crate) bound_upstreams: UpstreamSet,
    /// Copies of queries whose answers are late.
    pub(crate) hedges: Budget,
    /// Queries asked of another operator for want of a good answer.
    pub(crate) retries: Budget,
    /// When the next line about upstreams that are still down may be written.
    pub(crate) summary_at: Option<Instant>,
    pub(crate) summary_pause: Duration,
    pub(crate) random: Random,
}

impl Upstreams {
    pub(crate) fn new(limits: &Limits, upstreams: Vec<UpstreamIdentity>, seed: u64) -> Self {
        let list = UpstreamList::new(upstreams);
        Self {
            ranking: list.indexes().collect(),
            list,
            conns: ConnTable::with_capacity(limits.upstream_keys_max()),
            bound_upstreams: UpstreamSet::EMPTY,
            hedges: Budget::new(HEDGES_PERCENT),
            retries: Budget::new(RETRIES_PERCENT),
            summary_at: None,
            summary_pause: Duration::ZERO,
            random: Random::new(seed),
        }
    }

    /// Octets that it takes for the table of connections.
    pub(crate) fn octets(limits: &Limits) -> usize {
        ConnTable::<UpstreamConnId, UpstreamConn>::octets(limits.upstream_keys_max())
    }
}

impl Forwarder {
    /// Makes room for another attempt at upstream `index`; false if there is none for now.
    ///
    /// Connections that fell silent make way, but none of which answers may be expected: at the limit,
    /// nothing would live long enough to be answered. Upstreams that have one of those leave room for
    /// one that has none.
    pub(crate) fn make_way(&mut self, now: Instant, index: UpstreamIndex) -> bool {
        let (mut live, mut is_bare, mut others_bare) = (0, false, false);
        for (other, upstream) in self.upstreams.list.indexes().zip(self.upstreams.list.iter()) {
            let of_it = upstream.conns.iter().filter(|conn_id| !self.is_stalled(**conn_id)).count();
            live += of_it;
            is_bare |= of_it == 0 && other == index;
            others_bare |= of_it == 0 && other != index;
        }
        let reserved = usize::from(others_bare && !is_bare);
        if live + 1 + reserved > self.limits.upstream_conns_max {
            return false;
        }
        while self.upstream_conns().count() >= self.limits.upstream_conns_max {
            let Some(stalled) = self.oldest_stalled() else {
                debug_assert!(false, "what is not live is stalled");
                return false;
            };
            self.close_early(now, stalled);
        }
        true
    }

    /// Whether an attempt may have to wait for the end of a connection.
    pub(crate) fn is_at_upstream_limit(&self) -> bool {
        self.upstream_conns().count() + 1 >= self.limits.upstream_conns_max
    }

    /// Above the limit on what all connections hold, those that hold most are closed, but not this one,
    /// to which something has just been added.
    pub(crate) fn shed_upstream_bytes(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let held = |id: &UpstreamConnId| match self.upstreams.conns.get(*id) {
            Some(conn) => conn.buffer_octets(),
            _ => 0,
        };
        let all: usize = self.upstream_conns().map(held).sum();
        if all <= self.limits.upstream_bytes_max {
            return;
        }
        let others = self.upstream_conns().filter(|other| **other != conn_id);
        if let Some(&heaviest) = others.max_by_key(|other| held(other)) {
            self.close_early(now, heaviest);
            self.shed_upstream_bytes(now, conn_id);
        }
    }

    fn upstream_conns(&self) -> impl Iterator<Item = &UpstreamConnId> {
        self.upstreams.list.iter().flat_map(|upstream| &upstream.conns)
    }

    fn is_stalled(&self, conn_id: UpstreamConnId) -> bool {
        self.stalled_until(conn_id).is_some()
    }

    fn stalled_until(&self, conn_id: UpstreamConnId) -> Option<Instant> {
        match self.upstreams.conns.get(conn_id) {
            Some(conn) => match conn.phase {
                Phase::Retired { until, stalled: true } => Some(until),
                _ => None,
            },
            _ => None,
        }
    }

    fn oldest_stalled(&self) -> Option<UpstreamConnId> {
        let stalled = self
            .upstream_conns()
            .filter_map(|conn| Some((self.stalled_until(*conn)?, conn.serial(), *conn)));
        stalled.min().map(|(.., conn_id)| conn_id)
    }

    /// Closes a connection that did nothing wrong: its queries are sent again.
    fn close_early(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.close_upstream(conn_id, Manner::Orderly, "others need its room")
        else {
            return;
        };
        self.outbox.counts.made_way += 1;
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        for &id in &waiting {
            if let Some(query) = self.queries.get_mut(id) {
                query.remove_place(conn_id);
            }
        }
        self.requeue(now, waiting);
    }
}

/// What a connection holds is looked at when there is more of it than what every connection may keep.
pub(crate) const LARGE: usize = KEPT_CAPACITY_MAX;

/// Of all queries: late answers that are waited for are few, or the upstream is slow for all, and twice
/// the load would not make it faster.
const HEDGES_PERCENT: u32 = 2;

/// Of all queries: names that are broken everywhere are common, and asking everybody about them mends
/// nothing.
const RETRIES_PERCENT: u32 = 5;
