//! Other upstreams, and other choices, in the place of those that were there, while queries are under way.

use std::time::Instant;

use super::action::{UpstreamIndex, UpstreamUpdate};
use super::clients::access::Prefix;
use super::queries::waiting::Next;
use super::{Access, Forwarder, Limits, Manner, Outcome, Policy};

impl Forwarder {
    /// Indexes that another upstream may have, in order: none that is asked has one of these, and no connection
    /// or query has to do with one that had it.
    pub fn free_upstreams(&self) -> impl Iterator<Item = UpstreamIndex> {
        let known = self.queries.upstreams();
        self.upstreams.unused().iter().filter(move |index| !known.contains(*index))
    }

    /// The upstreams that are asked, in order of preference.
    pub fn upstreams_asked(&self) -> impl Iterator<Item = UpstreamIndex> + use<> {
        self.upstreams.indexes()
    }

    /// These upstreams are asked from now on, in order of preference, at least one. Another one gets no new
    /// queries; what waits for it goes elsewhere, and what it was sent may still be answered by it. A new
    /// one has an index that it had before or one of [`Self::free_upstreams`], of those above the highest the next.
    pub fn handle_upstreams(&mut self, now: Instant, updates: Vec<UpstreamUpdate>) {
        debug_assert!(!updates.is_empty(), "somebody is asked");
        for trial in self.upstreams.update(now, updates, &mut self.outbox) {
            self.finish(now, trial, Outcome::Orphaned);
        }
        // Of those that are new, nothing is known that would speak against them.
        self.queries.end_later();
        self.settle(now);
    }

    /// This is chosen from now on, and those of the limits count that size no table. Served are `subnets`, too, if
    /// the policy says so. Clients that are not served any more are closed.
    pub fn handle_policy(
        &mut self,
        now: Instant,
        policy: Policy,
        limits: &Limits,
        subnets: &[Prefix],
    ) {
        if policy.rate != self.policy.rate {
            self.clients.limit(policy.rate.clone());
        }
        let has_other_access = policy.access != self.policy.access;
        self.limits.adopt(limits);
        self.clients.adopt(limits);
        self.queries.adopt(limits);
        self.upstreams.adopt(&policy, limits);
        self.outbox.query_log.restyle(limits.query_log);
        self.policy = policy;
        if has_other_access {
            let counted = subnets.len().min(Access::SUBNETS_MAX);
            for client in self.clients.serve(self.policy.access.served(&subnets[..counted])) {
                self.close_client(now, client, Manner::Orderly);
            }
        }
        self.settle(now);
    }

    /// What waits for an upstream that is asked no more goes another way.
    pub(super) fn turn_away(&mut self, now: Instant, index: UpstreamIndex) {
        let mut again = Vec::new();
        while let Some(id) = self.queries.first_waiting(Next::Only(index), false) {
            self.queries.stop_waiting(id);
            let Some(query) = self.queries.get(id).filter(|it| !it.sendings.expects_answer())
            else {
                continue;
            };
            let avoided = query.history.avoided;
            if query.is_trial() {
                self.finish(now, id, Outcome::Orphaned);
            } else if query.held.is_some() {
                self.fail_query(now, id);
            } else if let Some(other) =
                self.upstreams.another(index, avoided).filter(|_| !avoided.is_empty())
            {
                self.queries.turn_to(id, other);
            } else {
                again.push(id);
            }
        }
        self.queries.wait_again(again);
    }
}
