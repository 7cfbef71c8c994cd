//! Which connection to an upstream serves, and what each is good for.

use std::time::Instant;

use super::connection::{Condition, Over, Phase, UpstreamConn};
use super::experience::Allowance;
use super::{Upstream, Upstreams};
use crate::forwarder::action::UpstreamConnId;

impl Upstreams {
    /// The connection for new queries: another one that is open, where the last is busy or there is none.
    pub(crate) fn serving(
        &self,
        now: Instant,
        upstream: &Upstream,
        allowance: Option<Allowance>,
    ) -> Option<UpstreamConnId> {
        let open = upstream.open;
        let is_limited = allowance.is_some_and(|allowance| allowance.at_once.is_some());
        if !upstream.experience.has_been_quiet && !is_limited {
            return open;
        }
        let is_quiet = open.and_then(|id| self.conns.get(id)).is_none_or(|it| it.quiet.is_some());
        if let Some(rested) = self.rested(now, upstream) {
            return Some(rested);
        }
        let has_answered =
            |id: &UpstreamConnId| self.conns.get(*id).is_some_and(|conn| conn.answers > 0);
        if !is_limited && !is_quiet && open.as_ref().is_some_and(has_answered) {
            return open;
        }
        // One that was made beside a quiet one may be worse than that when it speaks again.
        let all = || open.iter().chain(&upstream.conns).filter(|id| self.takes_more(now, **id));
        all().find(|id| has_answered(id)).or_else(|| all().next()).copied().or(open)
    }

    /// Of two connections the one that stood ready for so long that it would idle out: what is sent on it keeps it.
    fn rested(&self, now: Instant, upstream: &Upstream) -> Option<UpstreamConnId> {
        if !upstream.experience.wants_spare(now) || self.conns_of_use(upstream) != 2 {
            return None;
        }
        let has_rested = |id: &UpstreamConnId| {
            self.conns.get(*id).is_some_and(|conn| {
                let after = self.idle_timeout(conn) / 2;
                conn.idles_out_at(after).is_some_and(|at| at <= now)
            })
        };
        let mut others = upstream.conns.iter().copied().filter(|id| Some(*id) != upstream.open);
        others.find(|id| has_rested(id) && self.takes_more(now, *id))
    }

    /// Whether this connection serves on, and the new one was made to stand ready.
    pub(super) fn serves_before(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        self.serves_beside(now, conn_id) && self.takes_more(now, conn_id)
    }

    /// Whether the new connection was made because this one is busy or quiet, or to stand ready, and not to replace
    /// it.
    pub(super) fn serves_beside(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        self.conns.get(conn_id).is_some_and(|conn| {
            let is_spare = self.list[conn.upstream].experience.wants_spare(now);
            let is_beside = is_spare || conn.quiet.is_some() || self.is_busy(now, conn_id);
            is_beside && !conn.wants_replacement(now)
        })
    }

    /// Whether the connection takes no more until something is answered, as its server works on one query
    /// at a time.
    pub(crate) fn is_busy(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        match self.conns.get(conn_id) {
            Some(conn) => conn.is_busy(self.list[conn.upstream].experience.allowance(now)),
            _ => false,
        }
    }

    /// Whether the upstream has failed, and gets few queries at a time until it has answered one.
    pub(crate) fn is_starting(&self, conn_id: UpstreamConnId) -> bool {
        self.conns.get(conn_id).is_some_and(|conn| {
            let upstream = &self.list[conn.upstream];
            upstream.experience.in_flight_max.is_some() && !upstream.is_usable()
        })
    }

    /// Whether the connection takes another query at the moment.
    pub(crate) fn takes_more(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        let Some(conn) = self.conns.get(conn_id) else {
            return false;
        };
        let allowance = self.list[conn.upstream].experience.allowance(now);
        matches!(conn.phase, Phase::Open)
            && self.condition(now, conn, allowance) == Condition::Takes
    }

    /// What this open connection is good for.
    pub(crate) fn condition(
        &self,
        now: Instant,
        conn: &UpstreamConn,
        allowance: Option<Allowance>,
    ) -> Condition {
        if conn.idles_out_at(self.idle_timeout(conn)).is_some_and(|at| at <= now) {
            Condition::Over(Over::Idle)
        } else if conn.stalls_at(self.patience(conn).stall).is_some_and(|at| at <= now) {
            Condition::Over(Over::Stalled)
        } else if conn.quiet.is_some() {
            Condition::Quiet
        } else if conn.is_spent(allowance)
            || conn.in_flight.unanswered() == 0 && conn.is_busy(allowance)
        {
            Condition::Over(Over::Spent)
        } else {
            self.capacity(conn, allowance)
        }
    }

    /// What this open connection is good for, quiet or not.
    pub(crate) fn capacity(&self, conn: &UpstreamConn, allowance: Option<Allowance>) -> Condition {
        let max = self.list[conn.upstream].experience.in_flight_max;
        if conn.is_busy(allowance) || conn.is_spent(allowance) {
            Condition::Busy
        } else if !conn.has_room(&self.limits) {
            Condition::Full
        } else if max.is_some_and(|max| conn.in_flight.unanswered() >= max) {
            Condition::Starting
        } else if !conn.in_flight.has_free() {
            Condition::NoIds
        } else {
            Condition::Takes
        }
    }
}
