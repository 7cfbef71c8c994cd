//! Copies of queries: of what is late or overdue on a connection.

use std::time::Instant;

use super::action::UpstreamConnId;
use super::collections::arena::Id;
use super::message::same_question;
use super::queries::query::Origin;
use super::{Forwarder, Outcome};

impl Forwarder {
    /// Copies what is late on this connection, as far as the budget goes.
    pub(super) fn hedge(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some((id, other)) = self.upstreams.pop_late(now, conn_id) {
            if !self.queries.may_be_hedged(id) {
                continue;
            }
            if !self.upstreams.try_hedge() {
                return;
            }
            self.outbox.counts.hedged += 1;
            self.queries.hedge(id, other);
        }
    }

    /// Looks at the silence of this connection, if that is unusually long.
    pub(super) fn look(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if self.upstreams.look(now, conn_id, &mut self.outbox) {
            self.rescue(now, conn_id);
        }
    }

    /// Copies what waits on this quiet connection for another one to the same upstream, as far as the budget goes.
    pub(super) fn rescue(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if !self.upstreams.has_way_round(now, conn_id) {
            return;
        }
        while let Some((index, id)) = self.upstreams.pop_held_up(conn_id) {
            if self.queries.may_be_copied(id)
                && self.upstreams.try_rescue(conn_id, &mut self.outbox)
            {
                self.queries.rescue(now, id, index);
            }
        }
    }

    /// A response came under an ID that nothing was asked with. The query on this connection that has its question is
    /// asked again, once, as far as the budget goes: another answer may not come. An answer that comes all the same is
    /// delivered.
    #[cold]
    pub(super) fn ask_again(&mut self, conn_id: UpstreamConnId, response: &[u8]) {
        let Some(conn) = self.upstreams.conn(conn_id).filter(|conn| conn.phase.is_trusted()) else {
            return;
        };
        let index = conn.upstream;
        let is_answered = |id: &Id| {
            let query = self.queries.get(*id).filter(|_| self.queries.may_be_hedged(*id));
            query.is_some_and(|it| same_question(response, &it.message, it.parsed.question_end))
        };
        let waiting = conn.sent.waiting().take(LOOKED_AT_MAX);
        let asked = waiting.filter_map(|it| conn.in_flight.query(it)).find(is_answered);
        if let Some(id) = asked
            && self.upstreams.try_ask_again()
        {
            self.outbox.counts.rescued += 1;
            self.queries.ask_again(id, index);
        }
    }

    /// Looks at what is overdue on this connection. The budget of copies of late queries is for those
    /// that are made sooner: here it is [`super::queries::query::Query::may_be_sent`] that bounds them.
    pub(super) fn overdue(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some((index, id)) = self.upstreams.pop_overdue(now, conn_id)
            && let Some(query) = self.queries.get(id)
        {
            if let Origin::Trial { cause, .. } = query.origin {
                // An upstream that must answer in time has not. That says nothing of it where the query itself
                // has no answer yet: then it is the name.
                if self.upstreams[index].outage().is_some_and(|outage| outage.proof.is_poor()) {
                    let is_answered_elsewhere = self.queries.get(cause).is_none();
                    self.finish(now, id, Outcome::Orphaned);
                    if is_answered_elsewhere {
                        self.upstreams.fail_trial(now, index, &mut self.outbox);
                    }
                }
            } else if self.queries.may_be_copied(id) {
                let (first, avoided) = (query.history.first, query.history.avoided);
                if let Some(other) = self.upstreams.overdue_target(now, index, first, avoided) {
                    self.queries.wait_for(id, other);
                    continue;
                }
                // Who could be asked, but failed, is tried again beside the traffic, for later ones.
                for other in self.upstreams.helpers(now, index).iter() {
                    self.probe_failed(now, other, id);
                }
            }
        }
    }
}

/// Of those that wait on a connection, the oldest so many are asked about when an answer went astray, however many
/// there are.
const LOOKED_AT_MAX: usize = 64;
