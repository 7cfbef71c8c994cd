//! What goes wrong with connections to upstreams: they close, stall or age.

use std::time::{Duration, Instant};

use super::action::{Closed, UpstreamConnId, UpstreamIndex, UpstreamSet};
use super::collections::arena::Id;
use super::collections::sort::sort_by_key;
use super::dispatch::TRIES_IN_VAIN_MAX;
use super::loss::{LastFailure, Loss};
use super::queries::query::Origin;
use super::queries::waiting::Next;
use super::upstreams::Stalled;
use super::upstreams::connection::{Arrival, Phase};
use super::upstreams::in_flight::Found;
use super::upstreams::upstream::{BROKE_READING, BROKE_SENDING};
use super::{Ede, Forwarder, Manner, Outcome, Stage};

impl Forwarder {
    /// An upstream connection ended on its own.
    pub(super) fn upstream_closed(&mut self, now: Instant, conn_id: UpstreamConnId, how: Closed) {
        let Some(conn) = self.upstreams.conn(conn_id) else {
            return;
        };
        if let Phase::Connecting { established, .. } = conn.phase {
            let (stage, detail) = match how {
                Closed::Failed { stage, detail } => (stage, detail),
                Closed::Eof | Closed::Reset if established.is_some() => {
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
        let index = conn.upstream;
        if let Closed::Failed { detail, .. } = how {
            self.upstreams[index].note_broke(detail);
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
        let open = self.upstreams[conn.upstream].open;
        if let Some(open) = open.and_then(|open| self.upstreams.conn_mut(open)) {
            // Only a replacement could not be made; the connection it was for still serves.
            open.replacement_failed_at = Some(now);
            return;
        }
        self.fail_upstream(now, conn.upstream, stage, detail);
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
        self.redirect(now, index);
    }

    /// What waits for this upstream's connection, and for no answer beside it, waits as long as what goes to
    /// anyone does: then any other may take it, unless it is to be asked here and nowhere else.
    pub(super) fn end_patience(&mut self, now: Instant, index: UpstreamIndex) {
        let Some(at) = self.upstreams[index].patience_ends_at() else {
            return;
        };
        if self.upstreams.another(index, UpstreamSet::EMPTY).is_none() {
            return;
        }
        if now < at {
            self.queries.look_again(at);
            return;
        }
        let mut again = Vec::new();
        let mut in_vain = 0;
        while let Some(id) = self.queries.first_waiting(Next::Only(index))
            && let Some(query) = self.queries.get(id)
        {
            if in_vain >= TRIES_IN_VAIN_MAX {
                // Queries behind these may go elsewhere.
                self.queries.look_again(now + LOOK_PAUSE);
                break;
            }
            let stays = query.is_trial()
                || query.held.is_some()
                || query.sendings.expects_answer()
                || query.history.plainer.is_some_and(|(at, _)| at == index);
            let avoided = query.history.avoided;
            let other = self.upstreams.another(index, avoided).filter(|_| !stays);
            match other {
                None => {
                    self.queries.wait_for(id, index);
                    in_vain += 1;
                }
                Some(other) if !avoided.is_empty() => self.queries.wait_for(id, other),
                Some(_) => {
                    self.queries.stop_waiting(id);
                    again.push(id);
                }
            }
        }
        self.queries.wait_again(again);
    }

    /// The upstream works again.
    pub(super) fn recover(&mut self, now: Instant, index: UpstreamIndex) {
        let Some(outage) = self.upstreams.recover(now, index, &mut self.outbox) else {
            return;
        };
        if let Some(trial) = outage.trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.queries.end_later();
    }

    /// The answer with this message ID came.
    pub(super) fn end_sending(&mut self, now: Instant, conn_id: UpstreamConnId, message_id: u16) {
        if let Some(each) = self.upstreams.end_sending(now, conn_id, message_id, &mut self.outbox) {
            let unanswered = self.upstreams.relieve(now, conn_id, each, &mut self.outbox);
            if !unanswered.is_empty() {
                self.send_elsewhere(now, conn_id, unanswered, None, true);
            }
        }
    }

    /// Makes room for another attempt at upstream `index`; false if there is none for now.
    ///
    /// Connections that fell silent make way, but none of which answers may be expected: at the limit,
    /// nothing would live long enough to be answered. Upstreams that have one of those leave room for
    /// one that has none.
    pub(super) fn evict_stalled(&mut self, now: Instant, index: UpstreamIndex) -> bool {
        let (mut live, mut is_bare, mut others_bare) = (0, false, false);
        for (other, upstream) in self.upstreams.indexes().zip(self.upstreams.iter()) {
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
            self.evict(now, stalled);
        }
        true
    }

    /// Closes connections to upstreams until all hold no more than they may, those that hold most first.
    /// True if it closed one.
    pub(super) fn shed_upstreams(&mut self, now: Instant) -> bool {
        let mut has_shed = false;
        while let Some(heaviest) = self.upstreams.above_limit() {
            self.evict(now, heaviest);
            has_shed = true;
        }
        has_shed
    }

    /// Closes a connection that did nothing wrong: its queries are sent again.
    fn evict(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.close(
            conn_id,
            Manner::Orderly,
            "others need its room",
            &mut self.outbox,
        ) else {
            return;
        };
        self.outbox.counts.made_way += 1;
        let unanswered: Vec<Id> = conn.in_flight.iter().collect();
        for &id in &unanswered {
            if let Some(query) = self.queries.get_mut(id) {
                query.sendings.remove(conn_id);
            }
        }
        self.resend(now, unanswered);
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
        let Some(lost) = self.upstreams.lose(now, conn_id, loss, manner, &mut self.outbox) else {
            return;
        };
        let met = self.queries.note_lost(&lost);
        let (culprit, failure) = self.upstreams.judge(now, &lost, met);
        let suspect = match lost.unanswered[..] {
            [only] if lost.was_mute() => Some(only),
            _ => None,
        };
        let index = lost.failure.upstream;
        let mut unanswered = lost.unanswered;
        if let Some(query) = culprit {
            unanswered.retain(|id| *id != query);
            if !self.try_elsewhere(query, index) {
                self.fail_query(now, query);
            }
        }
        if let Some(detail) = failure {
            self.fail_upstream(now, index, Stage::Read, detail);
        }
        // A server that closes again and again may be unable to carry the load, while another upstream is.
        if self.upstreams.another(index, UpstreamSet::EMPTY).is_some() {
            unanswered
                .retain(|id| !self.queries.has_lost_enough(*id) || !self.try_elsewhere(*id, index));
        }
        self.resend(now, unanswered);
        if let Some(id) = suspect {
            self.queries.let_others_pass(now, id);
        }
    }

    /// Nothing was answered on the connection for too long. It takes no new queries, but is not
    /// killed: one slow name on a quiet connection must not cost every other query a handshake.
    /// What waits on it is queued to be sent again elsewhere, and the first answer wins; but an answer
    /// that is arriving is waited for. Asked for again, it would take from a slow path what it needs
    /// itself, or trickle on the next connection and hold that up too.
    pub(super) fn stall(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let was_first = |id, upstream| {
            let first = self.queries.get(id).and_then(|query| query.history.first);
            first.is_some_and(|(first, _)| first == upstream)
        };
        let Some(stalled) = self.upstreams.stall(now, conn_id, was_first) else {
            return;
        };
        let Stalled { upstream, unanswered, arrival, failure } = stalled;
        for id in &unanswered {
            self.queries.set_stalled(*id, conn_id, true);
        }
        if let Some(detail) = failure {
            self.fail_upstream(now, upstream, Stage::Read, detail.into());
        }
        self.send_elsewhere(now, conn_id, unanswered, arrival, false);
    }

    /// Has what waits on a stalled connection sent again, but for an answer that is arriving: to another
    /// upstream if it did not stall the first time, or if that is wanted.
    fn send_elsewhere(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        unanswered: Vec<Id>,
        arrival: Option<Arrival>,
        to_another: bool,
    ) {
        let Some(conn) = self.upstreams.conn(conn_id) else {
            return;
        };
        let index = conn.upstream;
        let mut again = Vec::new();
        for id in unanswered {
            let is_arriving = arrival.is_some_and(|arrival| arrival.query == id);
            self.queries.set_stalled(id, conn_id, true);
            let Some(query) = self.queries.get_mut(id) else {
                continue;
            };
            query.history.last_failure = Some(LastFailure {
                upstream: index,
                what: "no answer",
                code: Ede::NETWORK_ERROR,
                broke_number: 0,
            });
            if query.sendings.expects_answer() || !query.may_be_sent() || query.is_trial() {
                continue;
            }
            let has_stalled = std::mem::replace(&mut query.history.has_stalled, true);
            query.history.stalled_at = Some(now);
            let avoided = query.history.avoided;
            let turned_away = || {
                self.upstreams
                    .another(index, avoided)
                    .filter(|_| has_stalled || is_arriving || to_another)
            };
            match self.upstreams.second_try(now, index, avoided).or_else(turned_away) {
                Some(other) => self.queries.wait_for(id, other),
                None if is_arriving => {}
                None => again.push(id),
            }
        }
        if let Some(arrival) = arrival {
            self.queries.set_stalled(arrival.query, conn_id, false);
        }
        if let Some(conn) = self.upstreams.conn_mut(conn_id) {
            conn.arriving = arrival.map(|arrival| arrival.id);
        }
        self.queries.wait_again(again);
    }

    /// The answer that was arriving when the connection stalled has ceased to.
    fn give_up_arriving(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conn_mut(conn_id)
            && let Some(id) = conn.arriving.take()
            && let Found::Unanswered(query) = conn.in_flight.find(id)
        {
            self.queries.set_stalled(query, conn_id, true);
            self.resend(now, vec![query]);
        }
    }

    /// Drops connections that cannot be trusted any more, which is nobody's fault.
    pub(super) fn drop_upstream_conns(
        &mut self,
        now: Instant,
        conns: Vec<UpstreamConnId>,
        why: &'static str,
    ) {
        let mut unanswered = Vec::new();
        for conn_id in conns {
            let Some(conn) = self.upstreams.close(conn_id, Manner::Abort, why, &mut self.outbox)
            else {
                continue;
            };
            for id in conn.in_flight.iter() {
                if let Some(query) = self.queries.get_mut(id) {
                    query.sendings.remove(conn_id);
                    unanswered.push(id);
                }
            }
        }
        // Some were on two of them.
        sort_by_key(&mut unanswered, |id| id.serial());
        unanswered.dedup();
        self.resend(now, unanswered);
    }

    pub(super) fn upstream_timeouts(&mut self, now: Instant) {
        for index in self.upstreams.indexes() {
            self.fail_if_poor(now, index);
            for place in (0..self.upstreams[index].conns.len()).rev() {
                let Some(&conn_id) = self.upstreams[index].conns.get(place) else {
                    continue;
                };
                self.hedge(now, conn_id);
                self.overdue(now, conn_id);
                let Some(conn) = self.upstreams.conn(conn_id) else {
                    continue;
                };
                if conn.next_timeout(self.upstreams.idle_timeout(conn)).is_none_or(|at| now < at) {
                    continue;
                }
                match conn.phase {
                    Phase::Connecting { established: None, .. } => {
                        let detail = "timed out".into();
                        self.attempt_failed(now, conn_id, Stage::Connect, detail);
                    }
                    Phase::Connecting { established: Some(advice), .. } => {
                        let detail = format!("timed out{advice}").into();
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

    /// Has queries that lost a sending sent again, where no answer is expected any more; a query that was
    /// sent often enough fails instead.
    pub(super) fn resend(&mut self, now: Instant, queries: Vec<Id>) {
        let mut again = Vec::new();
        for id in queries {
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            match query.origin {
                _ if !query.may_be_sent() => self.end_sends(now, id),
                _ if query.sendings.expects_answer() => {}
                Origin::Trial { .. } => self.finish(now, id, Outcome::Orphaned),
                _ if query.held.is_some() => self.deliver_held(now, id),
                // A query that waits for one upstream does so for a reason.
                _ if self.is_turned_away(id) => {}
                _ => again.push(id),
            }
        }
        self.queries.wait_again(again);
    }

    /// The query may not be sent once more: it fails, unless it is in flight.
    pub(super) fn end_sends(&mut self, now: Instant, id: Id) {
        self.queries.stop_waiting(id);
        match self.queries.get(id) {
            Some(query) if query.is_sent() => {}
            Some(query) if query.is_trial() => self.finish(now, id, Outcome::Orphaned),
            _ => self.fail_query(now, id),
        }
    }

    /// Whether the query waits for a certain upstream, as it brings down others, or is asked there in another
    /// way.
    fn is_turned_away(&self, id: Id) -> bool {
        let Some(query) = self.queries.get(id) else {
            return false;
        };
        let Next::Only(upstream) = self.queries.next(id) else {
            return false;
        };
        let is_asked_otherwise = query.history.plainer.is_some_and(|(at, _)| at == upstream);
        !query.history.avoided.is_empty() || is_asked_otherwise
    }
}

/// Between looks at what waits for an upstream that cannot be connected to, where some of it has to stay.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
