//! Queries that are sent to an upstream of their own: because the first answer is late or no help, or
//! because they bring the first upstream's connections down.

use std::time::{Duration, Instant};

use super::action::{UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::message::{Rcode, ResponseInfo};
use super::queries::query::{Kept, Query};
use super::upstreams::in_flight::Found;
use super::{Forwarder, Outcome};

impl Forwarder {
    /// Sends the query, or a copy of it, to this upstream, as soon as that has a connection.
    pub(super) fn bind(&mut self, now: Instant, id: Id, index: UpstreamIndex) {
        if let Some(conn) = self.open_conn(now, index)
            && self.upstreams.takes_more(now, conn)
            && self.send(now, id, conn)
        {
            self.queries.queue.disarm(id.key());
            return;
        }
        if self.queries.get(id).is_some_and(|query| !query.is_sent()) {
            self.queries.shares.note_queued(id.key());
        }
        self.push_bound(id, index);
        self.connect(now, index);
    }

    /// Has the query wait for a connection of this upstream that takes it.
    pub(super) fn push_bound(&mut self, id: Id, index: UpstreamIndex) {
        let Some(query) = self.queries.get_mut(id) else {
            return;
        };
        query.bound_for = Some(index);
        if self.upstreams.list[index].bound.len() >= 2 * self.limits.queries_max {
            self.sweep_bound(index);
        }
        self.upstreams.list[index].bound.push_back(id);
        self.upstreams.bound_upstreams.insert(index);
    }

    /// Takes out what is no longer bound for this upstream, or is there twice.
    fn sweep_bound(&mut self, index: UpstreamIndex) {
        let queries = &mut self.queries;
        let bound = &mut self.upstreams.list[index].bound;
        // Who was seen is marked as not bound until all were seen.
        bound.retain(|id| {
            let query = queries.get_mut(*id);
            query.is_some_and(|query| query.bound_for.take_if(|to| *to == index).is_some())
        });
        for id in bound {
            if let Some(query) = queries.get_mut(*id) {
                query.bound_for = Some(index);
            }
        }
    }

    /// Sends what is bound for certain upstreams, connecting to them if need be.
    pub(super) fn dispatch_bound(&mut self, now: Instant) {
        for index in self.upstreams.bound_upstreams.iter() {
            let mut last = None;
            while let Some(conn) = self.open_conn(now, index)
                && last.replace(conn) != Some(conn)
            {
                self.send_bound(now, conn);
            }
            while let Some(&id) = self.upstreams.list[index].bound.front()
                && !self.is_bound(id, index)
            {
                self.upstreams.list[index].bound.pop_front();
            }
            if self.upstreams.list[index].bound.is_empty() {
                self.upstreams.bound_upstreams.remove(index);
            } else if self.upstreams.list[index]
                .open
                .is_none_or(|open| self.upstreams.is_busy(now, open))
            {
                self.connect(now, index);
            }
        }
    }

    fn is_bound(&self, id: Id, index: UpstreamIndex) -> bool {
        self.queries.get(id).is_some_and(|query| query.bound_for == Some(index))
    }

    /// Sends what is bound for this connection's upstream, as much as goes.
    fn send_bound(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.conns.get(conn_id) else {
            return;
        };
        let index = conn.upstream;
        let mut in_vain = 0;
        while in_vain < TRIES_IN_VAIN_MAX
            && let Some(&id) = self.upstreams.list[index].bound.front()
        {
            if !self.is_bound(id, index) {
                self.upstreams.list[index].bound.pop_front();
                continue;
            }
            if !self.upstreams.takes_more(now, conn_id) {
                return;
            }
            self.upstreams.list[index].bound.pop_front();
            if self.send(now, id, conn_id) {
                // It may have lost its other connection meanwhile.
                self.queries.queue.disarm(id.key());
            } else {
                // Its message ID is taken, and those behind it may have others.
                self.upstreams.list[index].bound.push_back(id);
                if self.needs_own_id(id) {
                    self.replace_for_own_id(now, id, conn_id);
                }
                in_vain += 1;
            }
        }
    }

    /// The upstream failed: what was bound for it goes another way.
    pub(super) fn unbind(&mut self, now: Instant, index: UpstreamIndex) {
        let mut again = Vec::new();
        for id in std::mem::take(&mut self.upstreams.list[index].bound) {
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            let was_bound = query.bound_for.take_if(|bound_for| *bound_for == index).is_some();
            let has_kept = query.kept.is_some();
            if !was_bound || self.is_out(id) || self.queries.queue.is_armed(id.key()) {
                continue;
            }
            if has_kept {
                self.deliver_kept(now, id);
            } else if !self.upstreams.is_something_usable() {
                again.push(id);
            } else if !self.try_elsewhere(now, id, index) {
                if self.queries.get(id).is_some_and(Query::is_sent) {
                    again.push(id);
                } else {
                    self.fail_query(now, id);
                }
            }
        }
        self.requeue(now, again);
    }

    /// Turns to an upstream that this query has not brought down, if no copy is out already. False if
    /// there is none, or it was sent often enough.
    pub(super) fn try_elsewhere(&mut self, now: Instant, id: Id, index: UpstreamIndex) -> bool {
        let Some(query) = self.queries.get_mut(id) else {
            return false;
        };
        query.avoided.insert(index);
        if self.is_out(id) {
            return true;
        }
        let Some(query) = self.queries.get(id) else {
            return false;
        };
        if query.is_trial() || !query.may_be_sent() {
            return false;
        }
        let avoided = query.avoided;
        let Some(other) = self.upstreams.another(index, avoided) else {
            return false;
        };
        if let Some(query) = self.queries.get_mut(id) {
            query.losses = 0;
        }
        self.bind(now, id, other);
        true
    }

    /// Copies what is late on this connection, as far as the budget goes.
    pub(super) fn hedge(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some(conn) = self.upstreams.conns.get(conn_id)
            && let index = conn.upstream
            && let Some(other) = self.upstreams.hedge_target(now, index)
            && let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && conn.phase.is_trusted()
            && let after = self.upstreams.list[index].round_trip.late_after()
            && let Some(message_id) = conn.sent.pop_late(now, after)
        {
            let Found::Waiting(id) = conn.in_flight.find(message_id) else {
                continue;
            };
            let Some(query) = self.queries.get_mut(id).filter(|query| may_be_hedged(query)) else {
                continue;
            };
            query.hedged = true;
            self.upstreams.hedges.take();
            self.outbox.counts.hedged += 1;
            self.bind(now, id, other);
        }
    }

    /// An upstream answered with an error that another may not have. True: that answer waits, for a
    /// copy that is out already, or for one that is asked of another operator now.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
        response: &[u8],
        info: &ResponseInfo,
    ) -> bool {
        let Some(query) = self.queries.get(id) else {
            return false;
        };
        if !matches!(info.rcode, Rcode::SERVFAIL | Rcode::REFUSED) || query.is_trial() {
            return false;
        }
        let is_out = self.is_out(id);
        if query.kept.is_some() {
            // Nobody has a better answer.
            if !is_out {
                self.deliver_kept(now, id);
            }
            return true;
        }
        if response.len() > KEPT_LEN_MAX
            || self.queries.kept.len() >= kept_max(self.limits.queries_max)
        {
            return false;
        }
        let mut other = None;
        if !is_out {
            if !is_final(response, info) {
                other = self.second_opinion(now, id, index);
            }
            if other.is_none() {
                return false;
            }
        }
        let kept = Kept { upstream: index, response: response.to_vec(), info: *info };
        if let Some(query) = self.queries.get_mut(id) {
            query.kept = Some(Box::new(kept));
        }
        self.queries.kept.arm(id.key(), now);
        if let Some(other) = other {
            self.upstreams.retries.take();
            self.outbox.counts.retried += 1;
            self.bind(now, id, other);
        }
        true
    }

    /// The same for an error that came without the question, which is no answer to keep. True: a better
    /// one may come, or was at hand.
    pub(super) fn has_better(&mut self, now: Instant, id: Id, rcode: Rcode) -> bool {
        let Some(query) = self.queries.get(id) else {
            return false;
        };
        if !matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED) || query.is_trial() {
            return false;
        }
        if self.is_out(id) {
            return true;
        }
        let is_kept = query.kept.is_some();
        self.deliver_kept(now, id);
        is_kept
    }

    /// Who is asked a query that upstream `index` failed to resolve.
    fn second_opinion(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
    ) -> Option<UpstreamIndex> {
        let query = self.queries.get(id)?;
        if !self.policy.retry_servfail
            || !query.may_be_sent()
            || !self.upstreams.retries.allows_one()
        {
            return None;
        }
        let operator = self.upstreams.list[index].operator;
        let others =
            || self.upstreams.list.others(index).filter(|(_, other)| other.operator != operator);
        if let Some((other, _)) = others().find(|(_, other)| other.is_usable()) {
            return Some(other);
        }
        // One that failed is tried again beside the traffic, for later ones.
        let failed: Vec<UpstreamIndex> = others().map(|(other, _)| other).collect();
        for other in failed {
            self.revive_one(now, other, id);
        }
        None
    }

    /// Delivers the answer that was kept.
    pub(super) fn deliver_kept(&mut self, now: Instant, id: Id) {
        let Some(kept) = self.queries.get_mut(id).and_then(|query| query.kept.take()) else {
            return;
        };
        let Kept { upstream, response, info } = *kept;
        self.finish(now, id, Outcome::Answer { upstream, response: &response, info: &info });
    }

    pub(super) fn kept_timeouts(&mut self, now: Instant) {
        while let Some(key) = self.queries.kept.pop(now, KEPT_TIMEOUT) {
            if let Some(id) = self.queries.id_at(key) {
                self.deliver_kept(now, id);
            }
        }
    }

    pub(super) fn next_kept_timeout(&self) -> Option<Instant> {
        self.queries.kept.next(KEPT_TIMEOUT)
    }
}

/// Answers that are kept at a time.
pub(super) fn kept_max(queries_max: usize) -> usize {
    (queries_max / KEPT_PART).max(KEPT_MIN)
}

/// One copy, of a query that is out once.
fn may_be_hedged(query: &Query) -> bool {
    !query.hedged && query.may_be_copied()
}

/// Whether the upstream says why, and another would have to say the same, or to know less: an answer
/// that did not validate, or is not given as a matter of policy (RFC 8914 section 4).
fn is_final(response: &[u8], info: &ResponseInfo) -> bool {
    info.opt.is_some_and(|opt| {
        opt.ede_codes(response).any(|code| matches!(code, 1 | 2 | 4..=12 | 15..=18))
    })
}

/// Copies are made of a few queries in a hundred.
const KEPT_PART: usize = 16;
const KEPT_MIN: usize = 8;

/// A reply that says no more than that it failed is short.
pub(super) const KEPT_LEN_MAX: usize = 512;

/// What is at hand is not held back for longer.
const KEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client can have all its queries wait for one message ID, and each event looks at a few only.
const TRIES_IN_VAIN_MAX: usize = 4;
