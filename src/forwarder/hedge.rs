//! Copies of queries: of what is late or overdue, and of what brings the connections of its upstream down.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::time::Instant;

use super::action::{UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::message::HEADER_LEN;
use super::queries::query::{Origin, Query, Sending};
use super::queries::waiting::Next;
use super::upstreams::in_flight::Found;
use super::upstreams::sends::OVERDUE_AFTER;
use super::upstreams::upstream::Upstream;
use super::{Forwarder, Hedge, Outcome};

impl Forwarder {
    /// The upstream failed: what waits for it goes another way.
    pub(super) fn redirect(&mut self, now: Instant, index: UpstreamIndex) {
        let mut again = Vec::new();
        while let Some(id) = self.queries.first_waiting(Next::Only(index)) {
            self.queries.stop_waiting(id);
            let has_held = self.queries.get(id).is_some_and(|query| query.held.is_some());
            if self.queries.expects_answer(id) {
                continue;
            }
            if has_held {
                self.deliver_held(now, id);
            } else if !self.upstreams.is_something_usable() {
                again.push(id);
            } else if !self.try_elsewhere(id, index) {
                if self.queries.get(id).is_some_and(Query::is_sent) {
                    again.push(id);
                } else {
                    self.fail_query(now, id);
                }
            }
        }
        self.resend(now, again);
    }

    /// Turns to an upstream that this query has not brought down, if no copy is out already. False if
    /// there is none, or it was sent often enough.
    pub(super) fn try_elsewhere(&mut self, id: Id, index: UpstreamIndex) -> bool {
        let Some(query) = self.queries.get_mut(id) else {
            return false;
        };
        query.history.avoided.insert(index);
        if self.queries.expects_answer(id) {
            return true;
        }
        let Some(query) = self.queries.get(id) else {
            return false;
        };
        if query.is_trial() || !query.may_be_sent() {
            return false;
        }
        let avoided = query.history.avoided;
        let Some(other) = self.upstreams.another(index, avoided) else {
            return false;
        };
        if let Some(query) = self.queries.get_mut(id) {
            query.history.losses = 0;
        }
        self.queries.wait_for(id, other);
        true
    }

    /// Copies what is late on this connection, as far as the budget goes.
    pub(super) fn hedge(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some(conn) = self.upstreams.conn(conn_id)
            && let index = conn.upstream
            && let Some(other) = self.upstreams.hedge_target(now, index)
            && let Some((conn, upstream)) = self.upstreams.with_upstream(conn_id)
            && conn.phase.is_trusted()
            && let after = upstream.experience.round_trip.late_after()
            && let Some(message_id) = conn.sent.pop_late(now, after)
        {
            let Found::Unanswered(id) = conn.in_flight.find(message_id) else {
                continue;
            };
            if !self.queries.may_be_copied(id) {
                continue;
            }
            let Some(query) = self.queries.get_mut(id).filter(|query| !query.history.hedged) else {
                continue;
            };
            if !self.upstreams.try_hedge() {
                return;
            }
            query.history.hedged = true;
            self.outbox.counts.hedged += 1;
            self.queries.wait_for(id, other);
        }
    }

    /// Looks at what is overdue on this connection. The budget of copies of late queries is for those
    /// that are made sooner: here it is [`super::queries::query::Query::may_be_sent`] that bounds them.
    pub(super) fn overdue(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some(conn) = self.upstreams.conn_mut(conn_id)
            && conn.phase.is_trusted()
            && let Some(message_id) = conn.sent.pop_overdue(now)
        {
            let index = conn.upstream;
            let Found::Unanswered(id) = conn.in_flight.find(message_id) else {
                continue;
            };
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            if let Origin::Trial { upstream, cause } = query.origin {
                self.overdue_trial(now, id, upstream, cause);
            } else if self.queries.may_be_copied(id) {
                let avoided = query.history.avoided;
                let other = self
                    .ask_of_another(now, index, id)
                    .or_else(|| self.upstreams.second_try(now, index, avoided));
                match other {
                    Some(other) => self.queries.wait_for(id, other),
                    None => self.revive_helpers(now, index, id),
                }
            }
        }
    }

    /// The upstream that is asked this query to find out whether upstream `index` fails or nobody answers
    /// such names: another operator if there is one, as addresses of one may fail together.
    fn ask_of_another(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        id: Id,
    ) -> Option<UpstreamIndex> {
        if !self.upstreams[index].experience.promptness.wants_probe(now) {
            return None;
        }
        let query = self.queries.get(id)?;
        let (_, number) = query.history.first.filter(|(first, _)| *first == index)?;
        let avoided = query.history.avoided;
        let operator = self.upstreams[index].operator;
        let is_another = |(other, upstream): &(UpstreamIndex, &Upstream)| {
            upstream.is_usable() && upstream.operator != operator && !avoided.contains(*other)
        };
        let of_another = self.upstreams.others(index).find(is_another).map(|(other, _)| other);
        let other = of_another.or_else(|| self.upstreams.another(index, avoided))?;
        self.upstreams[index].experience.promptness.note_probe(now, number);
        Some(other)
    }

    /// Nobody can be asked what is overdue at upstream `index`: who could be, but failed, is tried again
    /// beside the traffic, for later ones.
    fn revive_helpers(&mut self, now: Instant, index: UpstreamIndex, cause: Id) {
        let first = &self.upstreams[index];
        let operator = first.operator;
        let is_any =
            self.policy.hedge == Hedge::Any || first.experience.promptness.wants_probe(now);
        for other in self.upstreams.indexes().filter(|other| *other != index) {
            if is_any || self.upstreams[other].operator == operator {
                self.probe_failed(now, other, cause);
            }
        }
    }

    /// An upstream that must answer in time has not. That says nothing of it where the query itself has
    /// no answer yet: then it is the name.
    fn overdue_trial(&mut self, now: Instant, id: Id, index: UpstreamIndex, cause: Id) {
        let outage = self.upstreams[index].outage();
        if outage.is_none_or(|outage| !outage.proof.is_poor()) {
            return;
        }
        let is_answered_elsewhere = self.queries.get(cause).is_none();
        self.finish(now, id, Outcome::Orphaned);
        if is_answered_elsewhere {
            self.upstreams.note_trial(now, index, false, &mut self.outbox);
        }
    }

    /// A query ends. Where it was sent first and is overdue, that is held against the upstream, but not
    /// where it was sent afterwards: what others leave unanswered is no fair sample. Connections that fell
    /// silent are judged as a whole, not by what was sent on them.
    pub(super) fn note_overdue(
        &mut self,
        now: Instant,
        query: &Query,
        answered_by: Option<UpstreamIndex>,
    ) {
        let first = query.history.first;
        let Some((index, number)) = first.filter(|(first, _)| answered_by != Some(*first)) else {
            return;
        };
        let is_overdue = |sending: &Sending| match self.upstreams.conn(sending.conn) {
            Some(conn) if conn.upstream == index && conn.phase.is_trusted() => {
                // What was sent again after a stall has no time of its own, and has waited for long.
                conn.sent.start(sending.id).is_none_or(|start| now >= start + OVERDUE_AFTER)
            }
            _ => false,
        };
        if query.sendings.iter().any(is_overdue) {
            let by_another = answered_by.is_some();
            self.upstreams[index].experience.promptness.note_late(
                now,
                number,
                name_hash(query),
                by_another,
            );
        }
    }
}

/// Tells names apart, however they are spelled, whatever is asked of them; never 0.
fn name_hash(query: &Query) -> u32 {
    let end = query.parsed.question_end.saturating_sub(TYPE_AND_CLASS_LEN);
    let mut hasher = DefaultHasher::new();
    for octet in query.message.get(HEADER_LEN..end).unwrap_or_default() {
        hasher.write_u8(octet.to_ascii_lowercase());
    }
    hasher.finish() as u32 | 1
}

const TYPE_AND_CLASS_LEN: usize = 4;
