//! Which upstream is asked.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::connection::UpstreamConn;
use super::upstream::{PATIENCE, Upstream};
use crate::forwarder::action::{UpstreamIndex, UpstreamSet};
use crate::forwarder::collections::sort::sort_by_key;
use crate::forwarder::limits::{Hedge, Order};

impl Upstreams {
    /// Upstreams by preference, to be given back with [`Self::keep_ranking`].
    pub(crate) fn rank(&mut self, now: Instant) -> Vec<UpstreamIndex> {
        let mut ranking = std::mem::take(&mut self.ranking);
        match self.order {
            // As they are.
            Order::Ordered => {}
            Order::Fastest => sort_by_key(&mut ranking, |&index| {
                (self.list[index].round_trip.estimate(now), index)
            }),
            Order::Spread => sort_by_key(&mut ranking, |&index| {
                let upstream = &self.list[index];
                (self.in_flight_at(upstream), upstream.sends, index)
            }),
        }
        ranking
    }

    /// Keeps the memory and the order of a ranking for the next one.
    pub(crate) fn keep_ranking(&mut self, ranking: Vec<UpstreamIndex>) {
        self.ranking = ranking;
    }

    fn in_flight_at(&self, upstream: &Upstream) -> usize {
        match upstream.open.and_then(|open| self.conns.get(open)) {
            Some(conn) => conn.in_flight.waiting(),
            _ => 0,
        }
    }

    pub(crate) fn is_something_usable(&self) -> bool {
        self.list.iter().any(Upstream::is_usable)
    }

    /// How long a query may stay queued, if that is less than its whole time: with nothing up, long
    /// enough to see one attempt; a quick SERVFAIL protects the resolver in front of us. Where another
    /// attempt mends nothing, as with certificates, no longer than an attempt is under way.
    pub(crate) fn queue_timeout(&self) -> Option<Duration> {
        let mut only_lasting = true;
        for upstream in self.list.iter() {
            let outage = upstream.outage()?;
            if !outage.stage.is_lasting() {
                only_lasting = false;
                if !outage.is_long {
                    return None;
                }
            }
        }
        let no_attempt = self.list.iter().all(|upstream| upstream.attempts.is_empty());
        Some(if only_lasting && no_attempt { Duration::ZERO } else { PATIENCE })
    }

    /// A usable upstream other than `index` and those of the bits in `avoided`.
    pub(crate) fn another(
        &self,
        index: UpstreamIndex,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let is_wanted = |(other, upstream): &(UpstreamIndex, &Upstream)| {
            upstream.is_usable() && !avoided.contains(*other)
        };
        self.list.others(index).find(is_wanted).map(|(other, _)| other)
    }

    /// Who may get copies of what is late at upstream `index`; nobody, if none may be made.
    pub(crate) fn hedge_targets(
        &self,
        index: UpstreamIndex,
    ) -> impl Iterator<Item = (UpstreamIndex, &Upstream)> {
        let operator = self.list[index].operator;
        let allows_one = self.hedge != Hedge::Off && self.hedges.allows_one();
        self.list.others(index).filter(move |(_, upstream)| {
            let is_wanted = self.hedge == Hedge::Any || upstream.operator == operator;
            allows_one && is_wanted && upstream.is_usable()
        })
    }

    /// Who of these gets a copy: one of the same operator if there is one.
    pub(crate) fn hedge_target(&self, now: Instant, index: UpstreamIndex) -> Option<UpstreamIndex> {
        let operator = self.list[index].operator;
        let same = self.hedge_targets(index).find(|(_, other)| other.operator == operator);
        let other = same.or_else(|| match self.order {
            Order::Fastest => self
                .hedge_targets(index)
                .min_by_key(|(_, upstream)| upstream.round_trip.estimate(now)),
            Order::Ordered | Order::Spread => self.hedge_targets(index).next(),
        });
        other.map(|(other, _)| other)
    }

    /// When the next query on this connection is late, if that matters.
    pub(crate) fn next_hedge(&self, conn: &UpstreamConn) -> Option<Instant> {
        if !conn.phase.is_trusted() {
            return None;
        }
        let next = conn.sent.next_late(self.list[conn.upstream].round_trip.late_after())?;
        self.hedge_targets(conn.upstream).next().map(|_| next)
    }

    /// Who is asked a query that is overdue at upstream `index`; nobody of the bits in `avoided`.
    pub(crate) fn second_try(
        &self,
        now: Instant,
        index: UpstreamIndex,
        avoided: UpstreamSet,
    ) -> Option<UpstreamIndex> {
        let first = &self.list[index];
        let others = self.list.others(index).filter(|(other, _)| !avoided.contains(*other));
        let suited = others.filter_map(|(other, upstream)| {
            let candidate = Candidate {
                standing: Standing::of(upstream),
                is_same_operator: upstream.operator == first.operator,
            };
            let suitability = suitability(candidate, !first.is_usable(), self.hedge)?;
            Some((suitability, self.slowness(now, upstream), other))
        });
        suited.min_by_key(|(suitability, slowness, _)| (*suitability, *slowness)).map(|(.., it)| it)
    }

    /// What counts among upstreams that suit equally well.
    fn slowness(&self, now: Instant, upstream: &Upstream) -> Duration {
        match self.order {
            Order::Fastest => upstream.round_trip.estimate(now),
            Order::Ordered | Order::Spread => Duration::ZERO,
        }
    }
}

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
