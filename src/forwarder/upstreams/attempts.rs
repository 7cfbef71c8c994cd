//! Attempts to connect to upstreams: when one is made, and which is given up.

use std::time::Instant;

use super::connection::{HANDSHAKE_TIMEOUT, Phase, UpstreamConn};
use super::experience::Allowance;
use super::quiet::QUIET_CONNS_MAX;
use super::{Upstream, Upstreams};
use crate::forwarder::action::{Action, UpstreamConnId, UpstreamIndex, UpstreamSet};
use crate::forwarder::limits::Order;
use crate::forwarder::outbox::Outbox;

impl Upstreams {
    /// Whether an attempt is to be made: while none is under way, or with connections that carry few queries
    /// each, as many as `queued` ones need.
    pub(crate) fn wants_attempt(&self, now: Instant, index: UpstreamIndex, queued: usize) -> bool {
        let upstream = &self.list[index];
        if !self.list.is_asked(index) {
            return false;
        }
        let attempts = upstream.attempts.len();
        let allowance = upstream.experience.allowance(now);
        let each = allowance.and_then(Allowance::each);
        let open = upstream.open.and_then(|open| self.conns.get(open));
        let has_failed = open.is_some_and(|open| open.has_failed_replacement(now));
        let Some((allowance, queries_max)) = allowance.zip(each) else {
            let is_in_vain = has_failed && open.is_some_and(|open| open.quiet.is_some());
            return attempts == 0 && !is_in_vain && self.conns_of_use(upstream) < QUIET_CONNS_MAX;
        };
        if attempts > 0
            && allowance.queries.is_none()
            && self.another(index, UpstreamSet::EMPTY).is_some()
        {
            // Another connection gets the rest.
            return false;
        }
        if has_failed {
            return false;
        }
        let is_of_use = |conn: &&UpstreamConnId| match self.conns.get(**conn) {
            Some(conn) => !matches!(conn.phase, Phase::Retired { stalled: true, .. }),
            _ => false,
        };
        upstream.conns.iter().filter(is_of_use).count() < LIMITED_CONNS_MAX
            && (attempts == 0 || queries_max.saturating_mul(attempts as u64) < queued as u64)
    }

    pub(crate) fn start_attempt(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        outbox: &mut Outbox,
    ) {
        let conn = UpstreamConn::new(index, now, &self.limits, &mut self.random);
        let conn = self.conns.insert(conn);
        let upstream = &mut self.list[index];
        upstream.conns.push(conn);
        upstream.attempts.push(conn);
        upstream.attempted_at = Some(now);
        outbox.counts.connects += 1;
        outbox.push(Action::Connect { conn, upstream: index });
    }

    /// TCP stands. Returns the connection of the same operator that was there first, if this one is not needed any
    /// more: nothing waits for its upstream alone, which `is_awaited` tells, and there was no other reason for it.
    pub(crate) fn note_established(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        is_awaited: impl FnOnce(UpstreamIndex) -> bool,
    ) -> Option<UpstreamConnId> {
        if let Some(conn) = self.conns.get_mut(conn_id)
            && let Phase::Connecting { .. } = conn.phase
        {
            // No other time is noted of an attempt before.
            let took = now.saturating_duration_since(conn.opened_at);
            self.list[conn.upstream].experience.round_trip.note_connect(took);
            conn.phase = Phase::Handshaking { until: now + HANDSHAKE_TIMEOUT, advice: "" };
        }
        let UpstreamConn { upstream: index, opened_at: attempted_at, .. } =
            *self.conns.get(conn_id)?;
        let first = self.overtaken_by(now, index, attempted_at).filter(|_| !is_awaited(index))?;
        self.list[index].passed_over_for = Some(first);
        Some(first)
    }

    /// The connection of another upstream of the same operator that queries wait for, or are sent on, as this one was
    /// slow to connect: it came after this attempt was made. Beside one that was there before, an attempt is made for
    /// copies, or for want of a better one: whatever is answered meanwhile, the next may need it.
    fn overtaken_by(
        &self,
        now: Instant,
        index: UpstreamIndex,
        attempted_at: Instant,
    ) -> Option<UpstreamConnId> {
        let upstream = &self.list[index];
        if self.order != Order::Ordered || !upstream.is_usable() || upstream.open.is_some() {
            return None;
        }
        let others = self.list.others(index).filter(|(_, it)| it.operator == upstream.operator);
        let conns = others.flat_map(|(_, it)| it.conns.iter().copied());
        let is_later = |conn: &UpstreamConn| conn.opened_at >= attempted_at;
        let mut conns = conns.filter(|id| self.conns.get(*id).is_some_and(is_later));
        conns.find(|id| self.serves_instead(now, *id))
    }

    /// Whether a connection to another upstream of its operator, one of `among`, serves in the place of this one.
    pub(crate) fn is_passed_over(
        &self,
        now: Instant,
        upstream: &Upstream,
        among: UpstreamSet,
    ) -> bool {
        upstream.passed_over_for.is_some_and(|id| {
            self.serves_instead(now, id)
                && self.conns.get(id).is_some_and(|conn| among.contains(conn.upstream))
        })
    }

    /// Whether queries go to this connection, or soon will, so that none to another address of its operator is needed.
    /// Both that an attempt is given up for it and that none is made ask this, or one is made and given up for ever.
    fn serves_instead(&self, now: Instant, conn_id: UpstreamConnId) -> bool {
        self.conns.get(conn_id).is_some_and(|conn| {
            let upstream = &self.list[conn.upstream];
            let is_there = match conn.phase {
                Phase::Open => conn.quiet.is_none(),
                // One that is slow may never be done.
                Phase::Handshaking { .. } => {
                    now < conn.opened_at + upstream.experience.round_trip.connect_slow_after()
                }
                Phase::Connecting { .. } | Phase::Retired { .. } => false,
            };
            is_there && upstream.is_usable()
        })
    }

    pub(crate) fn note_handshake(&mut self, conn_id: UpstreamConnId, advice: &'static str) {
        if let Some(conn) = self.conns.get_mut(conn_id)
            && let Phase::Handshaking { advice: added, .. } = &mut conn.phase
        {
            *added = advice;
        }
    }

    /// A connection is made to replace one that serves.
    pub(crate) fn note_replacement(&mut self, now: Instant, index: UpstreamIndex) {
        self.list[index].experience.replacements.note(now);
    }

    /// What there is to say about a handshake with this upstream that goes on for too long; `None` if there is
    /// no handshake.
    pub(crate) fn handshake_advice(&self, upstream: &Upstream) -> Option<&'static str> {
        let attempts = upstream.attempts.iter().filter_map(|conn_id| self.conns.get(*conn_id));
        let mut advice = attempts.filter_map(|conn| match conn.phase {
            Phase::Handshaking { advice, .. } => Some(advice),
            _ => None,
        });
        advice.next()
    }

    /// Whether another attempt at upstream `index` has a place.
    ///
    /// Connections that fell silent make way, and those to upstreams that are asked no more, but none else of which
    /// answers may be expected: at the limit, nothing would live long enough to be answered. Upstreams that have one of those leave room for
    /// one that has none.
    pub(crate) fn place_for_attempt(&self, index: UpstreamIndex) -> Place {
        let (mut live, mut is_bare, mut others_bare) = (0, false, false);
        for (other, upstream) in self.list.places().zip(self.list.every()) {
            let is_live = |conn: &&UpstreamConnId| self.makes_way_until(**conn).is_none();
            let of_it = upstream.conns.iter().filter(is_live).count();
            live += of_it;
            is_bare |= of_it == 0 && other == index;
            others_bare |= of_it == 0 && other != index && self.list.is_asked(other);
        }
        let reserved = usize::from(others_bare && !is_bare);
        let max = self.limits.upstream_conns_max;
        if live + 1 + reserved > max {
            return Place::Nowhere;
        }
        if self.conn_ids().count() < max {
            return Place::Free;
        }
        let others = self
            .conn_ids()
            .filter_map(|conn| Some((self.makes_way_until(*conn)?, conn.serial(), *conn)));
        let oldest = others.min();
        debug_assert!(oldest.is_some(), "what is not live makes way");
        oldest.map_or(Place::Nowhere, |(.., oldest)| Place::Of(oldest))
    }

    /// When a connection ends that makes way for others.
    fn makes_way_until(&self, conn_id: UpstreamConnId) -> Option<Instant> {
        let conn = self.conns.get(conn_id)?;
        match conn.phase {
            Phase::Retired { until, stalled } if stalled || !self.is_asked(conn.upstream) => {
                Some(until)
            }
            _ => None,
        }
    }
}

/// Where another connection has its place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Free,
    /// In the place of this one, which has stalled.
    Of(UpstreamConnId),
    Nowhere,
}

/// Connections at a time to an upstream that answers few queries on each.
const LIMITED_CONNS_MAX: usize = 8;
