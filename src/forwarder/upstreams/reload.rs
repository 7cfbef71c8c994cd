//! Other upstreams in the place of those that were asked.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::connection::{Phase, RETIRED_TIMEOUT};
use super::upstream::{Health, Upstream};
use crate::forwarder::action::{Manner, ROUTES_MAX, UpstreamIndex, UpstreamSet};
use crate::forwarder::action::{UPSTREAMS_MAX, UpstreamUpdate};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::limits::{Limits, Policy};
use crate::forwarder::outbox::Outbox;

impl Upstreams {
    /// Whether queries are sent to it.
    pub(crate) fn is_asked(&self, index: UpstreamIndex) -> bool {
        self.list.is_asked(index)
    }

    /// Indexes by which no upstream that is asked, and no connection, is known.
    pub(crate) fn unused(&self) -> UpstreamSet {
        let is_unused = |index: &UpstreamIndex| {
            let mut conns = self.list.every().skip(index.index()).take(1);
            !self.list.is_asked(*index) && conns.all(|upstream| upstream.conns.is_empty())
        };
        (0..UPSTREAMS_MAX).map(UpstreamIndex::new).filter(is_unused).collect()
    }

    /// These are asked from now on. Returns copies of queries that others were to answer to prove themselves.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        updates: Vec<UpstreamUpdate>,
        outbox: &mut Outbox,
    ) -> Vec<Id> {
        let mut trials = Vec::new();
        let stays = |index| updates.iter().any(|it| it.index == index && !it.is_new);
        for index in self.list.places().filter(|index| !stays(*index)) {
            trials.extend(self.dismiss(now, index, outbox));
        }
        let asked: UpstreamSet = updates.iter().map(|update| update.index).collect();
        for index in self.list.places().filter(|index| !asked.contains(*index)) {
            // Nothing goes to others because they are of its operator, whose number may be another's now.
            self.list[index].operator = u8::MAX;
        }
        self.list.ask(updates.iter().map(|update| update.index));
        for UpstreamUpdate { index, identity, is_new } in updates {
            if is_new {
                self.list.put(index, identity);
            } else {
                let upstream = &mut self.list[index];
                (upstream.name, upstream.operator) = (identity.shown, identity.operator);
            }
        }
        // Whoever has files read again may have mended what failed.
        self.end_backoffs(now);
        self.routes = [asked; ROUTES_MAX];
        self.ranking = self.list.indexes().collect();
        if self.list.iter().all(Upstream::is_usable) {
            self.summary_at = None;
            self.summary_pause = Duration::ZERO;
        }
        trials
    }

    /// The upstream gets no new queries. What its connections were sent may still be answered.
    fn dismiss(&mut self, now: Instant, index: UpstreamIndex, outbox: &mut Outbox) -> Option<Id> {
        let upstream = &mut self.list[index];
        let trial = upstream.outage_mut().and_then(|outage| outage.trial.take());
        upstream.health = Health::Usable;
        upstream.open = None;
        for conn_id in upstream.attempts.clone() {
            self.close(conn_id, Manner::Abort, "its upstream is asked no more", outbox);
        }
        for conn_id in self.list[index].conns.clone() {
            if let Some(conn) = self.conns.get_mut(conn_id)
                && matches!(conn.phase, Phase::Open)
            {
                conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: false };
            }
            self.close_if_done(now, conn_id, outbox);
        }
        trial
    }

    /// Upstreams are chosen so from now on.
    pub(crate) fn adopt(&mut self, policy: &Policy, limits: &Limits) {
        (self.order, self.hedge) = (policy.order, policy.hedge);
        self.ranking = self.list.indexes().collect();
        self.limits.adopt(limits);
    }
}
