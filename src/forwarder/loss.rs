//! What goes wrong with upstreams: attempts that fail, connections that close, stall or age.

use std::time::{Duration, Instant};

use super::arena::Id;
use super::query::{Origin, Place, Trouble};
use super::upstream::{
    HANDSHAKE_TIMEOUT, Health, Outage, Phase, RETIRED_TIMEOUT, Upstream, UpstreamConn,
};
use super::{Action, Closed, Conn, ConnId, Ede, Fact, Forwarder, Manner, Outcome, Stage};

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
    pub(super) fn conn_established(&mut self, now: Instant, conn_id: ConnId) {
        if let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0)
            && let Phase::Connecting { established: established @ false, deadline } =
                &mut conn.phase
        {
            *established = true;
            *deadline = now + HANDSHAKE_TIMEOUT;
        }
    }

    /// An upstream connection ended on its own.
    pub(super) fn upstream_closed(&mut self, now: Instant, conn_id: ConnId, how: Closed) {
        let Some(Conn::Upstream(conn)) = self.conns.get(conn_id.0) else {
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
        let what = match how {
            Closed::Eof => "closed before answering",
            Closed::Reset => "connection reset before answering",
            Closed::Failed { stage: Stage::Write, .. } => "connection broke while sending",
            Closed::Failed { .. } => "connection broke before answering",
        };
        self.lose(
            now,
            conn_id,
            Loss { what, code: Ede::NETWORK_ERROR, victim: None },
            Manner::Orderly,
        );
    }

    /// Closes a connection that is lost and sends what waited on it again. A reused connection may
    /// close freely; one that closes without ever having answered is its upstream's failure.
    pub(super) fn lose(&mut self, now: Instant, conn_id: ConnId, loss: Loss, manner: Manner) {
        let Some(conn) = self.close_upstream(conn_id, manner) else {
            return;
        };
        let index = conn.upstream;
        let was_open = matches!(conn.phase, Phase::Open);
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        let mut lost_twice = false;
        let mut lied_twice = false;
        for &id in &waiting {
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            query.remove_place(conn_id);
            query.trouble = Some(Trouble { upstream: index, what: loss.what, code: loss.code });
            let is_victim = loss.victim == Some(id);
            query.bad_answers += u8::from(is_victim);
            lied_twice |= query.bad_answers >= 2;
            if is_victim || loss.victim.is_none() && conn.answers == 0 {
                query.no_answer_sends += 1;
                lost_twice |= query.lost_a_conn;
            }
            query.lost_a_conn = true;
        }
        if was_open {
            self.upstreams[index].note_close(!waiting.is_empty(), conn.answers);
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
                self.fail_query(now, query);
                self.note_blame(index)
            }
            None => conn.answers == 0 && !waiting.is_empty() && !lost_twice,
        };
        if is_upstreams_failure && was_open {
            self.fail_upstream(now, index, Stage::Read, loss.what.into());
        }
        self.requeue(now, waiting);
        self.dispatch(now);
    }

    /// A query was blamed for a lost connection. Whether the upstream is to blame instead: after the
    /// second in a row without an answer in between if another one can take over, after several if
    /// not, as one poisonous name is asked for by a few types at a time.
    fn note_blame(&mut self, index: usize) -> bool {
        let upstream = &mut self.upstreams[index];
        upstream.blames = upstream.blames.saturating_add(1);
        let blames = upstream.blames;
        let others =
            self.upstreams.iter().enumerate().any(|(i, one)| i != index && one.is_usable());
        blames >= if others { 2 } else { BLAMES_MAX }
    }

    /// Nothing was heard on the connection for too long. It takes no new queries, but is not
    /// killed: one slow name on a quiet connection must not cost every other query a handshake.
    /// What waits on it is queued to be sent again elsewhere, and the first answer wins.
    pub(super) fn stall(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        let index = conn.upstream;
        let is_fresh = conn.answers == 0;
        let waiting: Vec<Id> = conn.in_flight.iter().collect();
        if let Phase::Retired { stalled, .. } = &mut conn.phase {
            *stalled = true;
        } else {
            conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: true };
        }
        let was_open = self.upstreams[index].open.take_if(|open| *open == conn_id).is_some();
        if was_open && is_fresh {
            self.fail_upstream(now, index, Stage::Read, "connected, but no answer".into());
        }
        let mut again: Vec<(Instant, Id)> = Vec::new();
        for id in waiting {
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            query.trouble =
                Some(Trouble { upstream: index, what: "no answer", code: Ede::NETWORK_ERROR });
            if query.may_be_sent() && !matches!(query.origin, Origin::Trial { .. }) {
                query.stalled_at = Some(now);
                again.push((query.arrived, id));
            }
        }
        self.queue_again(again);
    }

    /// The connection takes no new queries and is closed when none waits on it any more.
    pub(super) fn retire(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        conn.phase = Phase::Retired { until: now + RETIRED_TIMEOUT, stalled: false };
        self.settle_upstream(now, conn_id);
    }

    /// Frees the place: its answer came.
    pub(super) fn free(&mut self, now: Instant, place: Place) {
        if let Some(Conn::Upstream(conn)) = self.conns.get_mut(place.conn.0) {
            conn.in_flight.free(place.id);
            conn.sent.disarm(usize::from(place.id));
            self.settle_upstream(now, place.conn);
        }
    }

    /// Gives the place up: its query left by another way.
    pub(super) fn abandon(&mut self, now: Instant, place: Place) {
        if let Some(Conn::Upstream(conn)) = self.conns.get_mut(place.conn.0) {
            conn.abandon(place.id);
            self.settle_upstream(now, place.conn);
        }
    }

    /// A failed upstream works again. What brought it back may have brought others back too.
    pub(super) fn recover(&mut self, now: Instant, index: usize) {
        let upstream = &mut self.upstreams[index];
        let Health::Failed(outage) = std::mem::replace(&mut upstream.health, Health::Usable) else {
            return;
        };
        if outage.told {
            let down = now.saturating_duration_since(outage.since);
            let fact = Fact::UpstreamUsable { upstream: upstream.name.clone(), down };
            self.actions.push_back(Action::Log(fact));
        }
        if let Some(trial) = outage.trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        if self.upstreams.iter().all(Upstream::is_usable) {
            self.summary_at = None;
            self.summary_pause = Duration::ZERO;
        }
        self.end_backoffs(now);
    }

    pub(super) fn end_backoffs(&mut self, now: Instant) {
        for upstream in &mut self.upstreams {
            if let Some(outage) = upstream.outage_mut() {
                outage.retry_at = now;
            }
        }
    }

    /// Drops every upstream connection: none can be trusted after a suspend.
    pub(super) fn drop_upstream_conns(&mut self, now: Instant) {
        let conns: Vec<ConnId> =
            self.upstreams.iter().flat_map(|upstream| upstream.conns.iter().copied()).collect();
        let mut waiting = Vec::new();
        for conn_id in conns {
            let Some(conn) = self.close_upstream(conn_id, Manner::Abort) else {
                continue;
            };
            for id in conn.in_flight.iter() {
                if let Some(query) = self.queries.get_mut(id) {
                    query.remove_place(conn_id);
                    if !query.is_sent() {
                        waiting.push(id);
                    }
                }
            }
        }
        self.requeue(now, waiting);
        self.dispatch(now);
    }

    pub(super) fn upstream_timeouts(&mut self, now: Instant) {
        let idle_timeout = self.limits.upstream_idle_timeout;
        for index in 0..self.upstreams.len() {
            for place in (0..self.upstreams[index].conns.len()).rev() {
                let Some(&conn_id) = self.upstreams[index].conns.get(place) else {
                    continue;
                };
                let Some(Conn::Upstream(conn)) = self.conns.get(conn_id.0) else {
                    continue;
                };
                if conn.next_timeout(idle_timeout).is_none_or(|at| now < at) {
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
        let idle_timeout = self.limits.upstream_idle_timeout;
        let conns = self.upstreams.iter().flat_map(|upstream| &upstream.conns);
        conns
            .filter_map(|conn_id| match self.conns.get(conn_id.0) {
                Some(Conn::Upstream(conn)) => conn.next_timeout(idle_timeout),
                _ => None,
            })
            .min()
    }

    /// Takes the connection out; nothing more is told about it. What waited on it is the caller's.
    pub(super) fn close_upstream(
        &mut self,
        conn_id: ConnId,
        manner: Manner,
    ) -> Option<Box<UpstreamConn>> {
        let entry = self.conns.get_mut(conn_id.0)?;
        let Conn::Upstream(conn) = std::mem::replace(entry, Conn::Closing) else {
            debug_assert!(false, "only upstream connections are closed here");
            return None;
        };
        self.upstreams[conn.upstream].forget(conn_id);
        self.actions.push_back(Action::Close { conn: conn_id, manner });
        Some(conn)
    }

    pub(super) fn close_idle(&mut self, conn_id: ConnId) {
        if let Some(conn) = self.close_upstream(conn_id, Manner::Orderly) {
            self.upstreams[conn.upstream].note_close(false, conn.answers);
        }
    }

    fn settle_upstream(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        if conn.in_flight.waiting() > 0 {
            return;
        }
        conn.idle_since = now;
        if matches!(conn.phase, Phase::Retired { .. }) {
            self.close_upstream(conn_id, Manner::Orderly);
        }
    }

    fn attempt_failed(&mut self, now: Instant, conn_id: ConnId, stage: Stage, detail: Box<str>) {
        let Some(conn) = self.close_upstream(conn_id, Manner::Abort) else {
            return;
        };
        let open = self.upstreams[conn.upstream].open;
        if let Some(Conn::Upstream(open)) = open.and_then(|open| self.conns.get_mut(open.0)) {
            // Only a replacement could not be made; the connection it was for still serves.
            open.replacement_failed_at = Some(now);
            return;
        }
        self.fail_upstream(now, conn.upstream, stage, detail);
        self.dispatch(now);
    }

    fn fail_upstream(&mut self, now: Instant, index: usize, stage: Stage, detail: Box<str>) {
        let upstream = &mut self.upstreams[index];
        let retry_at = now + upstream.next_backoff(stage, &mut self.random);
        let name = upstream.name.clone();
        let must_answer = stage == Stage::Read;
        let trial = match &mut upstream.health {
            Health::Usable => {
                // One that fails and returns all the time is told of now and then.
                let told = upstream.told_at.is_none_or(|at| now >= at + TOLD_PAUSE);
                upstream.health = Health::Failed(Outage {
                    told,
                    since: now,
                    attempts: 1,
                    stage,
                    detail: detail.clone(),
                    retry_at,
                    must_answer,
                    trial: None,
                });
                if told {
                    upstream.told_at = Some(now);
                    let fact = Fact::UpstreamFailed { upstream: name, stage, detail };
                    self.actions.push_back(Action::Log(fact));
                }
                None
            }
            Health::Failed(outage) => {
                outage.attempts += 1;
                outage.stage = stage;
                outage.detail = detail;
                outage.retry_at = retry_at;
                outage.must_answer |= must_answer;
                outage.trial.take()
            }
        };
        if let Some(trial) = trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.summarize(now);
    }

    /// Now and then a line for all that is still down, however many fail however often.
    fn summarize(&mut self, now: Instant) {
        let due = *self.summary_at.get_or_insert(now + SUMMARY_PAUSE_MIN);
        if now < due {
            return;
        }
        let failed = self.upstreams.iter().filter_map(|one| Some((&one.name, one.outage()?)));
        let Some((name, outage)) = failed.clone().min_by_key(|(_, outage)| outage.since) else {
            return;
        };
        self.summary_pause = (self.summary_pause * 2).clamp(SUMMARY_PAUSE_MIN, SUMMARY_PAUSE_MAX);
        self.summary_at = Some(now + self.summary_pause);
        self.actions.push_back(Action::Log(Fact::UpstreamStillFailed {
            upstream: name.clone(),
            down: now.saturating_duration_since(outage.since),
            attempts: outage.attempts,
            stage: outage.stage,
            detail: outage.detail.clone(),
            failed: failed.count(),
            of: self.upstreams.len(),
        }));
        for upstream in &mut self.upstreams {
            if let Some(outage) = upstream.outage_mut() {
                outage.told = true;
            }
        }
    }

    /// Queues what has lost its last place, in the order of arrival and before what came later; a
    /// query that was sent often enough fails instead.
    fn requeue(&mut self, now: Instant, queries: Vec<Id>) {
        let mut again = Vec::new();
        for id in queries {
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            if query.is_sent() {
                continue;
            }
            match query.origin {
                Origin::Trial { .. } => self.finish(now, id, Outcome::Orphaned),
                _ if !query.may_be_sent() => self.fail_query(now, id),
                _ => {
                    self.shares.note_queued(id.key());
                    again.push((query.arrived, id));
                }
            }
        }
        self.queue_again(again);
    }

    /// Queues what waits on stalled connections only and is not queued, having been taken out while
    /// nothing was usable.
    pub(super) fn queue_stalled(&mut self) {
        let mut again = Vec::new();
        for conn_id in self.upstreams.iter().flat_map(|upstream| &upstream.conns) {
            let Some(Conn::Upstream(conn)) = self.conns.get(conn_id.0) else {
                continue;
            };
            if !matches!(conn.phase, Phase::Retired { stalled: true, .. }) {
                continue;
            }
            for id in conn.in_flight.iter() {
                if let Some(query) = self.queries.get(id)
                    && query.stalled_at.is_some()
                    && query.may_be_sent()
                    && !self.queue.is_armed(id.key())
                    && query.places[0].is_some_and(|oldest| oldest.conn == *conn_id)
                {
                    again.push((query.arrived, id));
                }
            }
        }
        self.queue_again(again);
    }

    fn queue_again(&mut self, mut queries: Vec<(Instant, Id)>) {
        queries.sort_unstable_by_key(|(arrived, id)| (*arrived, id.serial()));
        let keys: Vec<_> = queries.into_iter().map(|(arrived, id)| (arrived, id.key())).collect();
        self.queue.merge(&keys);
    }
}

/// Queries blamed in a row before it is the upstream, with no other to turn to.
const BLAMES_MAX: u8 = 8;

/// From the first failure to the first line about what is still down; then twice as long each time.
const SUMMARY_PAUSE_MIN: Duration = Duration::from_secs(60);

/// Between two lines that the same upstream failed.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

const SUMMARY_PAUSE_MAX: Duration = Duration::from_secs(3600);
