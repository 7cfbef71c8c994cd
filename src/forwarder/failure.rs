//! What goes wrong with connections to upstreams: they close, stall or age.

use std::time::{Duration, Instant};

use super::action::{Action, Closed, UpstreamConnId, UpstreamIndex, UpstreamSet};
use super::collections::arena::Id;
use super::collections::sort::sort_by_key;
use super::queries::query::{Origin, Place, Trouble};
use super::upstreams::connection::{
    Arrival, HANDSHAKE_TIMEOUT, Pace, Phase, RETIRED_TIMEOUT, STALL_TIMEOUT, Silence, Turn,
    UpstreamConn,
};
use super::upstreams::in_flight::Found;
use super::upstreams::upstream::{BROKE_READING, BROKE_SENDING};
use super::{Ede, Fact, Forwarder, Manner, Outcome, Stage};

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
    pub(super) fn conn_established(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && let Phase::Connecting { established: established @ false, deadline } =
                &mut conn.phase
        {
            *established = true;
            *deadline = now + HANDSHAKE_TIMEOUT;
        }
    }

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

    /// Closes a connection that is lost and sends what waited on it again. A reused connection may
    /// close freely; one that closes without ever having answered is its upstream's failure.
    pub(super) fn lose(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        loss: Loss,
        manner: Manner,
    ) {
        let Some(conn) = self.close_upstream(conn_id, manner, loss.what) else {
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
                self.note_blame(index)
            }
            // What an answer to one query is worth says nothing about the others.
            None => conn.answers == 0 && was_waiting && !lost_twice && loss.victim.is_none(),
        };
        if is_upstreams_failure && was_open {
            let detail = self.upstreams.list[index].explain(loss.what, broke_number).into();
            self.fail_upstream(now, index, Stage::Read, detail);
        }
        // Who closes again and again may be unable to carry the load, while another upstream is.
        if self.another(index, UpstreamSet::EMPTY).is_some() {
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
            && self.another(index, UpstreamSet::EMPTY).is_some()
        {
            self.fail_upstream(now, index, Stage::Read, "connections fall silent".into());
        }
        self.send_elsewhere(now, conn_id, waiting, arrival, false);
    }

    /// A query that is in flight in this place, too, was answered on another connection to upstream `index`.
    pub(super) fn note_answered_elsewhere(
        &mut self,
        now: Instant,
        place: Place,
        index: UpstreamIndex,
    ) {
        if let Some(conn) = self.upstreams.conns.get_mut(place.conn)
            && conn.upstream == index
            && let Some(silence) = &mut conn.silence
        {
            silence.answered_elsewhere.get_or_insert(now);
        }
    }

    /// It was the connection that fell silent, and not the names that were slow.
    fn learn_silence(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && let Some(silence) = conn.silence.take()
        {
            let upstream = &mut self.upstreams.list[conn.upstream];
            if upstream.query_limit.queries_max(now).is_none() {
                upstream.query_limit.note_silence(now, conn.answers);
            }
            if silence.of_several {
                upstream.silences = upstream.silences.saturating_add(1);
            }
            self.settle_upstream(now, conn_id);
        }
    }

    /// The server works on one query of a connection at a time, for so long on each that those that wait
    /// here would expire. They go to another upstream, or are spread over several connections, as far as
    /// each answers them in time; so do all that follow.
    fn relieve(&mut self, now: Instant, conn_id: UpstreamConnId, each: Duration) {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return;
        };
        if !conn.phase.is_trusted() {
            return;
        }
        conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: true };
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        let upstream = &mut self.upstreams.list[conn.upstream];
        upstream.open.take_if(|open| *open == conn_id);
        upstream.at_once.teach(now, each);
        if !std::mem::replace(&mut upstream.told_in_turn, true) {
            let fact = Fact::UpstreamInTurn { upstream: upstream.name.clone(), each };
            self.outbox.log(fact);
        }
        self.send_elsewhere(now, conn_id, waiting, None, true);
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
                self.another(index, avoided).filter(|_| has_stalled || is_arriving || to_another)
            };
            match self.second_try(now, index, avoided).or_else(turned_away) {
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

    /// The connection takes no new queries and is closed when none waits on it any more.
    pub(super) fn retire(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return;
        };
        conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: false };
        self.upstreams.list[conn.upstream].open.take_if(|open| *open == conn_id);
        self.settle_upstream(now, conn_id);
    }

    /// Frees the place: its answer came.
    pub(super) fn free(&mut self, now: Instant, place: Place) {
        if let Some(conn) = self.upstreams.conns.get_mut(place.conn) {
            conn.note_answer(now);
            conn.in_flight.free(place.id);
            let Turn { took, was_oldest, each } = conn.note_turn(now, place.id);
            if let Some(took) = took {
                let upstream = &mut self.upstreams.list[conn.upstream];
                upstream.round_trip.note(now, took);
                if !was_oldest {
                    upstream.at_once.forget();
                }
            }
            self.settle_upstream(now, place.conn);
            if let Some(each) = each {
                self.relieve(now, place.conn, each);
            }
        }
    }

    /// Gives the place up: its query left by another way.
    pub(super) fn abandon(&mut self, now: Instant, place: Place) {
        if let Some(conn) = self.upstreams.conns.get_mut(place.conn) {
            conn.abandon(now, place.id);
            self.settle_upstream(now, place.conn);
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
            let Some(conn) = self.close_upstream(conn_id, Manner::Abort, why) else {
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
                if conn.next_timeout(self.idle_timeout(conn)).is_none_or(|at| now < at) {
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
                    Phase::Open => self.close_idle(conn_id),
                    Phase::Retired { until, stalled: true }
                        if now < until && conn.silence_known_at().is_some_and(|at| at <= now) =>
                    {
                        self.learn_silence(now, conn_id);
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

    pub(super) fn next_upstream_timeout(&self) -> Option<Instant> {
        let conns = self.upstreams.list.iter().flat_map(|upstream| &upstream.conns);
        conns
            .filter_map(|conn_id| match self.upstreams.conns.get(*conn_id) {
                Some(conn) => {
                    let next = conn.next_timeout(self.idle_timeout(conn));
                    let next = [next, self.next_hedge(conn), Self::next_overdue(conn)];
                    next.into_iter().flatten().min()
                }
                _ => None,
            })
            .min()
    }

    /// How long this connection may idle.
    pub(super) fn idle_timeout(&self, conn: &UpstreamConn) -> Duration {
        let configured = self.limits.upstream_idle_timeout;
        conn.keepalive.map_or(configured, |allowed| allowed.min(configured))
    }

    /// Takes the connection out; nothing more is told about it. What waited on it is the caller's. `why`
    /// is for the log, unless the connection has ended by itself.
    pub(super) fn close_upstream(
        &mut self,
        conn_id: UpstreamConnId,
        manner: Manner,
        why: &'static str,
    ) -> Option<Box<UpstreamConn>> {
        let conn = self.upstreams.conns.close(conn_id)?;
        let upstream = &mut self.upstreams.list[conn.upstream];
        upstream.forget(conn_id);
        if conn.phase.is_trusted() {
            upstream.silences = 0;
            upstream.query_limit.note_close(conn.queries, conn.answers);
        }
        self.outbox.push(Action::Close { conn: conn_id.into(), manner, why: Some(why) });
        Some(conn)
    }

    pub(super) fn close_idle(&mut self, conn_id: UpstreamConnId) {
        if let Some(conn) = self.close_upstream(conn_id, Manner::Orderly, "idle") {
            self.upstreams.list[conn.upstream].note_close(false, conn.answers);
        }
    }

    fn settle_upstream(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return;
        };
        if conn.in_flight.waiting() > 0 {
            return;
        }
        conn.idle_since = now;
        if matches!(conn.phase, Phase::Retired { .. }) && conn.silence_known_at().is_none() {
            self.close_upstream(conn_id, Manner::Orderly, "it took no more queries");
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
