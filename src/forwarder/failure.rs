//! What goes wrong with connections to upstreams: they close, stall or age.

use std::time::Instant;

use super::action::{Closed, UpstreamConnId, UpstreamIndex, UpstreamSet};
use super::collections::arena::Id;
use super::collections::sort::sort_by_key;
use super::queries::query::{Origin, Trouble};
use super::upstreams::connection::{Arrival, Pace, Phase, RETIRED_TIMEOUT, STALL_TIMEOUT, Silence};
use super::upstreams::in_flight::Found;
use super::upstreams::upstream::{BROKE_READING, BROKE_SENDING};
use super::{Ede, Forwarder, Manner, Outcome, Stage};

/// How a connection was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// In words, for errors.
    pub(super) what: &'static str,
    /// The code of the Extended DNS Error.
    pub(super) code: u16,
    /// The query whose answer was no good; the others are not to blame.
    pub(super) victim: Option<Id>,
}

impl Forwarder {
    /// An upstream connection ended on its own.
    pub(super) fn upstream_closed(&mut self, now: Instant, conn_id: UpstreamConnId, how: Closed) {
        let Some(conn) = self.upstreams.conns.get(conn_id) else {
            return;
        };
        if let Phase::Connecting { established, .. } = conn.phase {
            let (stage, detail) = match how {
                Closed::Failed { stage, detail } => (stage, detail),
                Closed::Eof | Closed::Reset if established => {
                    (Stage::Tls, "closed during the handshake".into())
                }
                Closed::Eof | Closed::Reset => (Stage::Connect, "connection reset".into()),
            };
            self.attempt_failed(now, conn_id, stage, detail);
            return;
        }
        let what = match &how {
            Closed::Eof => "closed before answering",
            Closed::Reset => "connection reset before answering",
            Closed::Failed { stage: Stage::Write, .. } => BROKE_SENDING,
            Closed::Failed { .. } => BROKE_READING,
        };
        if let Closed::Failed { detail, .. } = how {
            self.upstreams.list[conn.upstream].note_broke(detail);
        }
        self.lose(
            now,
            conn_id,
            Loss { what, code: Ede::NETWORK_ERROR, victim: None },
            Manner::Orderly,
        );
    }

    fn attempt_failed(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        stage: Stage,
        detail: Box<str>,
    ) {
        let Some(conn) =
            self.upstreams.close(conn_id, Manner::Abort, "not connected in time", &mut self.outbox)
        else {
            return;
        };
        let open = self.upstreams.list[conn.upstream].open;
        if let Some(open) = open.and_then(|open| self.upstreams.conns.get_mut(open)) {
            // Only a replacement could not be made; the connection it was for still serves.
            open.replacement_failed_at = Some(now);
            return;
        }
        self.fail_upstream(now, conn.upstream, stage, detail);
        self.dispatch(now);
    }

    fn fail_upstream(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        stage: Stage,
        detail: Box<str>,
    ) {
        let trial = self.upstreams.fail(now, index, stage, detail, &mut self.outbox);
        self.leave_failed(now, index, trial);
    }

    fn fail_if_poor(&mut self, now: Instant, index: UpstreamIndex) {
        if self.upstreams.is_poor(index) {
            let trial = self.upstreams.fail_as_poor(now, index, &mut self.outbox);
            self.leave_failed(now, index, trial);
        }
    }

    /// The upstream failed: nothing is sent to it any more.
    fn leave_failed(&mut self, now: Instant, index: UpstreamIndex, trial: Option<Id>) {
        if let Some(trial) = trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.upstreams.summarize(now, &mut self.outbox);
        self.unbind(now, index);
    }

    /// The upstream works again.
    pub(super) fn recover(&mut self, now: Instant, index: UpstreamIndex) {
        let Some(outage) = self.upstreams.recover(now, index, &mut self.outbox) else {
            return;
        };
        if let Some(trial) = outage.trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.queue_stalled();
    }

    /// The answer with this message ID came.
    pub(super) fn free(&mut self, now: Instant, conn_id: UpstreamConnId, message_id: u16) {
        if let Some(each) = self.upstreams.free(now, conn_id, message_id, &mut self.outbox) {
            let waiting = self.upstreams.relieve(now, conn_id, each, &mut self.outbox);
            if !waiting.is_empty() {
                self.send_elsewhere(now, conn_id, waiting, None, true);
            }
        }
    }

    /// Makes room for another attempt at upstream `index`; false if there is none for now.
    ///
    /// Connections that fell silent make way, but none of which answers may be expected: at the limit,
    /// nothing would live long enough to be answered. Upstreams that have one of those leave room for
    /// one that has none.
    pub(crate) fn make_way(&mut self, now: Instant, index: UpstreamIndex) -> bool {
        let (mut live, mut is_bare, mut others_bare) = (0, false, false);
        for (other, upstream) in self.upstreams.list.indexes().zip(self.upstreams.list.iter()) {
            let of_it = upstream
                .conns
                .iter()
                .filter(|conn_id| !self.upstreams.is_stalled(**conn_id))
                .count();
            live += of_it;
            is_bare |= of_it == 0 && other == index;
            others_bare |= of_it == 0 && other != index;
        }
        let reserved = usize::from(others_bare && !is_bare);
        if live + 1 + reserved > self.limits.upstream_conns_max {
            return false;
        }
        while self.upstreams.conn_ids().count() >= self.limits.upstream_conns_max {
            let Some(stalled) = self.upstreams.oldest_stalled() else {
                debug_assert!(false, "what is not live is stalled");
                return false;
            };
            self.close_early(now, stalled);
        }
        true
    }

    /// Above the limit on what all connections hold, those that hold most are closed, but not this one,
    /// to which something has just been added.
    pub(crate) fn shed_upstream_bytes(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let held = |id: &UpstreamConnId| match self.upstreams.conns.get(*id) {
            Some(conn) => conn.buffer_octets(),
            _ => 0,
        };
        let all: usize = self.upstreams.conn_ids().map(held).sum();
        if all <= self.limits.upstream_bytes_max {
            return;
        }
        let others = self.upstreams.conn_ids().filter(|other| **other != conn_id);
        if let Some(&heaviest) = others.max_by_key(|other| held(other)) {
            self.close_early(now, heaviest);
            self.shed_upstream_bytes(now, conn_id);
        }
    }

    /// Closes a connection that did nothing wrong: its queries are sent again.
    fn close_early(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.close(
            conn_id,
            Manner::Orderly,
            "others need its room",
            &mut self.outbox,
        ) else {
            return;
        };
        self.outbox.counts.made_way += 1;
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        for &id in &waiting {
            if let Some(query) = self.queries.get_mut(id) {
                query.remove_place(conn_id);
            }
        }
        self.requeue(now, waiting);
    }

    /// Closes a connection that is lost and sends what waited on it again. A reused connection may
    /// close freely; one that closes without ever having answered is its upstream's failure.
    pub(super) fn lose(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        loss: Loss,
        manner: Manner,
    ) {
        let Some(conn) = self.upstreams.close(conn_id, manner, loss.what, &mut self.outbox) else {
            return;
        };
        let index = conn.upstream;
        let broke_number = self.upstreams.list[index].broke_number;
        let was_open = matches!(conn.phase, Phase::Open);
        let mut waiting: Vec<Id> = conn.in_flight.iter().collect();
        let was_waiting = !waiting.is_empty();
        let mut lost_twice = false;
        let mut lied_twice = false;
        for &id in &waiting {
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            query.remove_place(conn_id);
            query.trouble =
                Some(Trouble { upstream: index, what: loss.what, code: loss.code, broke_number });
            let is_victim = loss.victim == Some(id);
            query.bad_answers += u8::from(is_victim);
            lied_twice |= query.bad_answers >= 2;
            if is_victim || loss.victim.is_none() && conn.answers == 0 {
                query.no_answer_sends += 1;
                lost_twice |= query.losses > 0;
            }
            query.losses = query.losses.saturating_add(1);
        }
        if was_open {
            self.upstreams.list[index].note_close(was_waiting, conn.answers);
        }
        // A query that was alone on a connection that closed without any answer, and had lost one
        // before, or whose answer was bad twice (RFC 5625 section 6.3), fails alone. That is not the
        // upstream's failure, unless all it does is to bring queries down.
        let poisonous = match (loss.victim, &waiting[..]) {
            (Some(victim), _) => Some(victim).filter(|_| lied_twice),
            (None, [only]) => Some(*only).filter(|_| lost_twice && was_open),
            (None, _) => None,
        };
        let is_upstreams_failure = match poisonous {
            Some(query) => {
                waiting.retain(|id| *id != query);
                if !self.try_elsewhere(now, query, index) {
                    self.fail_query(now, query);
                }
                self.upstreams.note_blame(index)
            }
            // What an answer to one query is worth says nothing about the others.
            None => conn.answers == 0 && was_waiting && !lost_twice && loss.victim.is_none(),
        };
        if is_upstreams_failure && was_open {
            let detail = self.upstreams.list[index].explain(loss.what, broke_number).into();
            self.fail_upstream(now, index, Stage::Read, detail);
        }
        // Who closes again and again may be unable to carry the load, while another upstream is.
        if self.upstreams.another(index, UpstreamSet::EMPTY).is_some() {
            waiting.retain(|id| !self.has_lost_enough(*id) || !self.try_elsewhere(now, *id, index));
        }
        self.requeue(now, waiting);
        self.dispatch(now);
    }

    fn has_lost_enough(&self, id: Id) -> bool {
        self.queries.get(id).is_some_and(|query| query.losses >= LOSSES_MAX)
    }

    /// Nothing was answered on the connection for too long. It takes no new queries, but is not
    /// killed: one slow name on a quiet connection must not cost every other query a handshake.
    /// What waits on it is queued to be sent again elsewhere, and the first answer wins; but an answer
    /// that is arriving is waited for. Asked for again, it would take from a slow path what it needs
    /// itself, or trickle on the next connection and hold that up too.
    pub(super) fn stall(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return;
        };
        let index = conn.upstream;
        let answers = conn.answers;
        let arrival = conn.arrival(now).filter(|arrival| arrival.pace != Pace::Broken);
        let is_slow = arrival.is_some_and(|arrival| arrival.pace == Pace::Steady);
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        // Copies of what another left unanswered are no fair sample.
        let was_first = |id: &&Id| {
            let first = self.queries.get(**id).and_then(|query| query.first);
            first.is_some_and(|(first, _)| first == index)
        };
        let own = waiting.iter().filter(was_first).count();
        if let Phase::Retired { stalled, .. } = &mut conn.phase {
            *stalled = true;
        } else {
            conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: true };
        }
        let of_several = own >= SILENCE_MIN;
        if answers > 0 && !is_slow {
            conn.silence = Some(Silence { of_several, answered_elsewhere: None });
        }
        let upstream = &mut self.upstreams.list[index];
        if conn.silence.is_some() && upstream.query_limit.queries_max(now).is_some() {
            upstream.query_limit.note_silence(now, answers);
        }
        upstream.round_trip.note(now, STALL_TIMEOUT);
        let is_silent_again = of_several && upstream.silences > 0;
        let was_open = self.upstreams.list[index].open.take_if(|open| *open == conn_id).is_some();
        self.upstreams.list[index].is_silent = true;
        if was_open && answers == 0 && own > 0 && !is_slow {
            self.fail_upstream(now, index, Stage::Read, "connected, but no answer".into());
        } else if was_open
            && is_silent_again
            && !is_slow
            && self.upstreams.another(index, UpstreamSet::EMPTY).is_some()
        {
            self.fail_upstream(now, index, Stage::Read, "connections fall silent".into());
        }
        self.send_elsewhere(now, conn_id, waiting, arrival, false);
    }

    /// Has what waits on a stalled connection sent again, but for an answer that is arriving: to another
    /// upstream if it did not stall the first time, or if that is wanted.
    fn send_elsewhere(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        waiting: Vec<Id>,
        arrival: Option<Arrival>,
        to_another: bool,
    ) {
        let Some(conn) = self.upstreams.conns.get(conn_id) else {
            return;
        };
        let index = conn.upstream;
        let mut again: Vec<(Instant, Id)> = Vec::new();
        for id in waiting {
            let is_arriving = arrival.is_some_and(|arrival| arrival.query == id);
            let is_out = self.is_out(id);
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            query.trouble = Some(Trouble {
                upstream: index,
                what: "no answer",
                code: Ede::NETWORK_ERROR,
                broke_number: 0,
            });
            if is_out || !query.may_be_sent() || query.is_trial() {
                continue;
            }
            let has_stalled = std::mem::replace(&mut query.has_stalled, true);
            query.stalled_at = Some(now);
            let (arrived, avoided) = (query.arrived, query.avoided);
            let turned_away = || {
                self.upstreams
                    .another(index, avoided)
                    .filter(|_| has_stalled || is_arriving || to_another)
            };
            match self.upstreams.second_try(now, index, avoided).or_else(turned_away) {
                Some(other) => self.bind(now, id, other),
                None if is_arriving => {}
                None => again.push((arrived, id)),
            }
        }
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id) {
            conn.arriving = arrival.map(|arrival| arrival.id);
        }
        self.queue_again(again);
    }

    /// The answer that was arriving when the connection stalled has ceased to.
    fn give_up_arriving(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && let Some(id) = conn.arriving.take()
            && let Found::Waiting(query) = conn.in_flight.find(id)
        {
            self.requeue(now, vec![query]);
        }
    }

    /// Drops connections that cannot be trusted any more, which is nobody's fault.
    pub(super) fn drop_upstream_conns(
        &mut self,
        now: Instant,
        conns: Vec<UpstreamConnId>,
        why: &'static str,
    ) {
        let mut waiting = Vec::new();
        for conn_id in conns {
            let Some(conn) = self.upstreams.close(conn_id, Manner::Abort, why, &mut self.outbox)
            else {
                continue;
            };
            for id in conn.in_flight.iter() {
                if let Some(query) = self.queries.get_mut(id) {
                    query.remove_place(conn_id);
                    waiting.push(id);
                }
            }
        }
        // Some were on two of them.
        sort_by_key(&mut waiting, |id| id.serial());
        waiting.dedup();
        self.requeue(now, waiting);
        self.dispatch(now);
    }

    pub(super) fn upstream_timeouts(&mut self, now: Instant) {
        for index in self.upstreams.list.indexes() {
            self.fail_if_poor(now, index);
            for place in (0..self.upstreams.list[index].conns.len()).rev() {
                let Some(&conn_id) = self.upstreams.list[index].conns.get(place) else {
                    continue;
                };
                self.hedge(now, conn_id);
                self.overdue(now, conn_id);
                let Some(conn) = self.upstreams.conns.get(conn_id) else {
                    continue;
                };
                if conn.next_timeout(self.upstreams.idle_timeout(conn)).is_none_or(|at| now < at) {
                    continue;
                }
                match conn.phase {
                    Phase::Connecting { established: false, .. } => {
                        let detail = "timed out".into();
                        self.attempt_failed(now, conn_id, Stage::Connect, detail);
                    }
                    Phase::Connecting { established: true, .. } => {
                        let detail = "timed out".into();
                        self.attempt_failed(now, conn_id, Stage::Tls, detail);
                    }
                    Phase::Open if conn.stalls_at().is_some() => self.stall(now, conn_id),
                    Phase::Open => self.upstreams.close_idle(conn_id, &mut self.outbox),
                    Phase::Retired { until, stalled: true }
                        if now < until && conn.silence_known_at().is_some_and(|at| at <= now) =>
                    {
                        self.upstreams.learn_silence(now, conn_id, &mut self.outbox);
                    }
                    Phase::Retired { until, stalled: true } if now < until => {
                        self.give_up_arriving(now, conn_id);
                    }
                    Phase::Retired { until, .. } if now < until => self.stall(now, conn_id),
                    Phase::Retired { .. } => {
                        let loss =
                            Loss { what: "no answer", code: Ede::NETWORK_ERROR, victim: None };
                        self.lose(now, conn_id, loss, Manner::Orderly);
                    }
                }
            }
        }
    }

    /// Whether an answer to this query may still be expected: a copy on a stalled connection is no more
    /// than a hope, unless its answer was arriving.
    pub(super) fn is_out(&self, id: Id) -> bool {
        let places = self.queries.get(id).map(|query| query.places);
        places.into_iter().flatten().flatten().any(|place| {
            matches!(
                self.upstreams.conns.get(place.conn),
                Some(conn)
                    if conn.phase.is_trusted() || conn.arriving == Some(place.id)
            )
        })
    }

    /// Queues what has lost its last place, in the order of arrival and before what came later; a
    /// query that was sent often enough fails instead.
    pub(super) fn requeue(&mut self, now: Instant, queries: Vec<Id>) {
        let mut again = Vec::new();
        for id in queries {
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            if self.is_out(id) {
                continue;
            }
            let is_sent = query.is_sent();
            match query.origin {
                _ if is_sent && !query.may_be_sent() => {}
                Origin::Trial { .. } => self.finish(now, id, Outcome::Orphaned),
                _ if query.kept.is_some() => self.deliver_kept(now, id),
                _ if !query.may_be_sent() => self.fail_query(now, id),
                _ => {
                    again.push((query.arrived, id));
                    if !is_sent {
                        self.queries.shares.note_queued(id.key());
                    }
                }
            }
        }
        self.queue_again(again);
    }

    /// Queues what waits on stalled connections only and is not queued, having been taken out while
    /// nothing was usable.
    pub(super) fn queue_stalled(&mut self) {
        let mut again = Vec::new();
        for conn_id in self.upstreams.list.iter().flat_map(|upstream| &upstream.conns) {
            let Some(conn) = self.upstreams.conns.get(*conn_id) else {
                continue;
            };
            if !matches!(conn.phase, Phase::Retired { stalled: true, .. }) {
                continue;
            }
            for id in conn.in_flight.iter() {
                if let Some(query) = self.queries.get(id)
                    && query.may_be_sent()
                    && !query.is_trial()
                    && !self.is_out(id)
                    && !self.queries.queue.is_armed(id.key())
                    && query.places[0].is_some_and(|oldest| oldest.conn == *conn_id)
                {
                    again.push((query.arrived, id));
                }
            }
        }
        self.queue_again(again);
    }

    fn queue_again(&mut self, mut queries: Vec<(Instant, Id)>) {
        // What was done about others may have ended some.
        queries.retain(|(_, id)| self.queries.get(*id).is_some());
        sort_by_key(&mut queries, |(arrived, id)| (*arrived, id.serial()));
        let keys: Vec<_> = queries.into_iter().map(|(arrived, id)| (arrived, id.key())).collect();
        self.queries.queue.merge(&keys);
    }
}

/// Connections that a query loses to one upstream before it turns to another.
const LOSSES_MAX: u8 = 2;

/// Queries that wait on a connection without a sign of life.
const SILENCE_MIN: usize = 4;
