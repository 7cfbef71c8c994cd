//! Queries that have waited for so long that their answers are hardly to be expected: each is sent once
//! more, to another upstream.

use std::time::{Duration, Instant};

use super::in_flight::Found;
use super::upstream::Upstream;
use super::upstream_conn::UpstreamConn;
use super::{Conn, ConnId, Forwarder, Hedge, Order};

/// What is known of an upstream beside the one that a query is overdue at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    is_usable: bool,
    /// It belongs to the operator who knows the query already.
    is_same_operator: bool,
}

/// How well an upstream suits for a query that is overdue at another one, the least the best; `None`: it
/// is not asked.
///
/// Whoever belongs to the same operator learns nothing new. Who does not is asked if that is wanted of
/// late queries anyway, or to take over for an upstream that failed.
fn suitability(candidate: Candidate, has_failed: bool, hedge: Hedge) -> Option<u8> {
    match candidate {
        Candidate { is_usable: false, .. } => None,
        Candidate { is_same_operator: true, .. } => Some(0),
        Candidate { .. } if has_failed || hedge == Hedge::Any => Some(1),
        Candidate { .. } => None,
    }
}

impl Forwarder {
    /// Looks at what is overdue on this connection. The budget of copies of late queries is for those
    /// that are made sooner: here it is [`super::Query::may_be_sent`] that bounds them.
    pub(super) fn overdue(&mut self, now: Instant, conn_id: ConnId) {
        while let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0)
            && conn.phase.is_trusted()
            && let Some(message_id) = conn.sent.pop_overdue(now)
        {
            let index = conn.upstream;
            if let Found::Waiting(id) = conn.in_flight.find(message_id)
                && let Some(query) = self.queries.get(id).filter(|query| query.may_be_copied())
                && let Some(other) = self.second_try(now, index, query.avoided)
            {
                self.bind(now, id, other);
            }
        }
    }

    /// When the next query on this connection is overdue.
    pub(super) fn next_overdue(conn: &UpstreamConn) -> Option<Instant> {
        if conn.phase.is_trusted() { conn.sent.next_overdue() } else { None }
    }

    /// Who is asked a query that is overdue at upstream `index`; nobody of the bits in `avoided`.
    pub(super) fn second_try(&self, now: Instant, index: usize, avoided: u16) -> Option<usize> {
        let first = &self.upstreams[index];
        let others = self.others(index).filter(|(other, _)| avoided & 1 << other == 0);
        let suited = others.filter_map(|(other, upstream)| {
            let candidate = Candidate {
                is_usable: upstream.is_usable(),
                is_same_operator: upstream.operator == first.operator,
            };
            let suitability = suitability(candidate, !first.is_usable(), self.policy.hedge)?;
            Some((suitability, self.slowness(now, upstream), other))
        });
        suited.min_by_key(|(suitability, slowness, _)| (*suitability, *slowness)).map(|(.., it)| it)
    }

    /// What counts among upstreams that suit equally well.
    fn slowness(&self, now: Instant, upstream: &Upstream) -> Duration {
        match self.policy.order {
            Order::Fastest => upstream.round_trip.estimate(now),
            Order::Ordered | Order::Spread => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_operator_is_asked_if_that_is_wanted_or_needed() {
        let same = Candidate { is_usable: true, is_same_operator: true };
        let other = Candidate { is_usable: true, is_same_operator: false };
        let failed = Candidate { is_usable: false, is_same_operator: true };
        let cases = [
            // candidate, whether the first upstream failed, --hedge, how well it suits
            (same, false, Hedge::Off, Some(0)),
            (same, false, Hedge::Same, Some(0)),
            (same, false, Hedge::Any, Some(0)),
            (same, true, Hedge::Off, Some(0)),
            (other, false, Hedge::Off, None),
            (other, false, Hedge::Same, None),
            (other, false, Hedge::Any, Some(1)),
            (other, true, Hedge::Off, Some(1)),
            (other, true, Hedge::Same, Some(1)),
            (failed, false, Hedge::Any, None),
            (failed, true, Hedge::Any, None),
        ];
        for (candidate, has_failed, hedge, expected) in cases {
            let seen = suitability(candidate, has_failed, hedge);
            assert_eq!(seen, expected, "{candidate:?} {has_failed} {hedge:?}");
        }
    }
}
