//! Queries that have waited for so long that their answers are hardly to be expected: each is sent once
//! more, to another upstream, and what becomes of it is held against the first.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use super::connection::UpstreamConn;
use super::in_flight::Found;
use super::sends::OVERDUE_AFTER;
use super::upstream::Upstream;
use crate::forwarder::action::{UpstreamConnId, UpstreamIndex, UpstreamSet};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::message::HEADER_LEN;
use crate::forwarder::queries::query::{Origin, Place, Query};
use crate::forwarder::{Forwarder, Hedge, Order, Outcome};

/// What is known of an upstream beside the one that a query is overdue at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    standing: Standing,
    /// It belongs to the operator who knows the query already.
    is_same_operator: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Usable,
    /// Connected, but it answers too few in time.
    Poor,
    Failed,
}

impl Standing {
    fn of(upstream: &Upstream) -> Self {
        match upstream.outage() {
            None => Self::Usable,
            Some(outage) if outage.proof.is_poor() && upstream.open.is_some() => Self::Poor,
            Some(_) => Self::Failed,
        }
    }
}

/// How well an upstream suits for a query that is overdue at another one, the least the best; `None`: it
/// is not asked.
///
/// Whoever belongs to the same operator learns nothing new. Who does not is asked if that is wanted of
/// late queries anyway, or to take over for an upstream that failed. One that answers too few is better
/// than nothing.
fn suitability(candidate: Candidate, has_failed: bool, hedge: Hedge) -> Option<u8> {
    match (candidate.standing, candidate.is_same_operator) {
        (Standing::Usable, true) => Some(0),
        (Standing::Usable, false) if has_failed || hedge == Hedge::Any => Some(1),
        (Standing::Poor, true) => Some(2),
        (Standing::Usable | Standing::Poor | Standing::Failed, _) => None,
    }
}

impl Forwarder {
    /// Looks at what is overdue on this connection. The budget of copies of late queries is for those
    /// that are made sooner: here it is [`crate::forwarder::Query::may_be_sent`] that bounds them.
    pub(crate) fn overdue(&mut self, now: Instant, conn_id: UpstreamConnId) {
        while let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && conn.phase.is_trusted()
            && let Some(message_id) = conn.sent.pop_overdue(now)
        {
            let index = conn.upstream;
            let Found::Waiting(id) = conn.in_flight.find(message_id) else {
                continue;
            };
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            if let Origin::Trial { upstream, cause } = query.origin {
                self.overdue_trial(now, id, upstream, cause);
            } else if query.may_be_copied() {
                let avoided = query.avoided;
                let other =
                    self.probe(now, index, id).or_else(|| self.second_try(now, index, avoided));
                match other {
                    Some(other) => self.bind(now, id, other),
                    None => self.revive_helpers(now, index, id),
                }
            }
        }
    }

    /// Who is asked this query to find out whether upstream `index` fails or nobody answers such names:
    /// another operator if there is one, as addresses of one may fail together.
    fn probe(&mut self, now: Instant, index: UpstreamIndex, id: Id) -> Option<UpstreamIndex> {
        if !self.upstreams.list[index].promptness.wants_probe(now) {
            return None;
        }
        let query = self.queries.get(id)?;
        let (_, number) = query.first.filter(|(first, _)| *first == index)?;
        let avoided = query.avoided;
        let operator = self.upstreams.list[index].operator;
        let is_another = |(other, upstream): &(UpstreamIndex, &Upstream)| {
            upstream.is_usable() && upstream.operator != operator && !avoided.contains(*other)
        };
        let of_another = self.upstreams.list.others(index).find(is_another).map(|(other, _)| other);
        let other = of_another.or_else(|| self.another(index, avoided))?;
        self.upstreams.list[index].promptness.note_probe(now, number);
        Some(other)
    }

    /// Nobody can be asked what is overdue at upstream `index`: who could be, but failed, is tried again
    /// beside the traffic, for later ones.
    fn revive_helpers(&mut self, now: Instant, index: UpstreamIndex, cause: Id) {
        let first = &self.upstreams.list[index];
        let operator = first.operator;
        let is_any = self.policy.hedge == Hedge::Any || first.promptness.wants_probe(now);
        for other in self.upstreams.list.indexes().filter(|other| *other != index) {
            if is_any || self.upstreams.list[other].operator == operator {
                self.revive_one(now, other, cause);
            }
        }
    }

    /// An upstream that must answer in time has not. That says nothing of it where the query itself has
    /// no answer yet: then it is the name.
    fn overdue_trial(&mut self, now: Instant, id: Id, index: UpstreamIndex, cause: Id) {
        let outage = self.upstreams.list[index].outage();
        if outage.is_none_or(|outage| !outage.proof.is_poor()) {
            return;
        }
        let is_answered_elsewhere = self.queries.get(cause).is_none();
        self.finish(now, id, Outcome::Orphaned);
        if is_answered_elsewhere {
            self.note_trial(now, index, false);
        }
    }

    /// When the next query on this connection is overdue.
    pub(crate) fn next_overdue(conn: &UpstreamConn) -> Option<Instant> {
        if conn.phase.is_trusted() { conn.sent.next_overdue() } else { None }
    }

    /// Who is asked a query that is overdue at upstream `index`; nobody of the bits in `avoided`.
    pub(crate) fn second_try(
        &self,
        now: Instant,
        index: UpstreamIndex,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let first = &self.upstreams.list[index];
        let others =
            self.upstreams.list.others(index).filter(|(other, _)| !avoided.contains(*other));
        let suited = others.filter_map(|(other, upstream)| {
            let candidate = Candidate {
                standing: Standing::of(upstream),
                is_same_operator: upstream.operator == first.operator,
            };
            let suitability = suitability(candidate, !first.is_usable(), self.policy.hedge)?;
            Some((suitability, self.slowness(now, upstream), other))
        });
        suited.min_by_key(|(suitability, slowness, _)| (*suitability, *slowness)).map(|(.., it)| it)
    }

    /// A query ends. Where it was sent first and is overdue, that is held against the upstream, but not
    /// where it was sent afterwards: what others leave unanswered is no fair sample. Connections that fell
    /// silent are judged as a whole, not by what was sent on them.
    pub(crate) fn note_overdue(
        &mut self,
        now: Instant,
        query: &Query,
        answered_by: Option<UpstreamIndex>,
    ) {
        let Some((index, number)) = query.first.filter(|(first, _)| answered_by != Some(*first))
        else {
            return;
        };
        let is_overdue = |place: &Place| match self.upstreams.conns.get(place.conn) {
            Some(conn) if conn.upstream == index && conn.phase.is_trusted() => {
                // What was sent again after a stall has no time of its own, and has waited for long.
                conn.sent.start(place.id).is_none_or(|start| now >= start + OVERDUE_AFTER)
            }
            _ => false,
        };
        if query.places.iter().flatten().any(is_overdue) {
            let by_another = answered_by.is_some();
            self.upstreams.list[index].promptness.note_late(
                now,
                number,
                name_hash(query),
                by_another,
            );
        }
    }

    /// What counts among upstreams that suit equally well.
    fn slowness(&self, now: Instant, upstream: &Upstream) -> Duration {
        match self.policy.order {
            Order::Fastest => upstream.round_trip.estimate(now),
            Order::Ordered | Order::Spread => Duration::ZERO,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_operator_is_asked_if_that_is_wanted_or_needed() {
        use Standing::{Failed, Poor, Usable};

        let cases = [
            // what it is, of the same operator, whether the first one failed, --hedge, how well it suits
            (Usable, true, false, Hedge::Off, Some(0)),
            (Usable, true, false, Hedge::Same, Some(0)),
            (Usable, true, false, Hedge::Any, Some(0)),
            (Usable, true, true, Hedge::Off, Some(0)),
            (Usable, false, false, Hedge::Off, None),
            (Usable, false, false, Hedge::Same, None),
            (Usable, false, false, Hedge::Any, Some(1)),
            (Usable, false, true, Hedge::Off, Some(1)),
            (Usable, false, true, Hedge::Same, Some(1)),
            (Poor, true, false, Hedge::Off, Some(2)),
            (Poor, true, true, Hedge::Same, Some(2)),
            (Poor, false, true, Hedge::Any, None),
            (Failed, true, false, Hedge::Any, None),
            (Failed, true, true, Hedge::Any, None),
            (Failed, false, true, Hedge::Any, None),
        ];
        for (standing, is_same_operator, has_failed, hedge, expected) in cases {
            let candidate = Candidate { standing, is_same_operator };
            let seen = suitability(candidate, has_failed, hedge);
            assert_eq!(seen, expected, "{candidate:?} {has_failed} {hedge:?}");
        }
    }
}
