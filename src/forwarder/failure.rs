//! What goes wrong with connections to upstreams: they close, stall or age.

use std::time::Instant;

use super::action::{Closed, UpstreamConnId, UpstreamIndex, UpstreamSet};
use super::collections::arena::Id;
use super::collections::sort::sort_by_key;
use super::loss::Loss;
use super::queries::Fate;
use super::queries::waiting::Next;
use super::upstreams::health::Cause;
use super::upstreams::{Arriving, Due, Ended, Stalled};
use super::{Forwarder, Manner, Outcome, Stage};

impl Forwarder {
    /// An upstream connection ended on its own, or an attempt took too long.
    pub(super) fn upstream_closed(&mut self, now: Instant, conn_id: UpstreamConnId, how: Closed) {
        match self.upstreams.end(now, conn_id, how, &mut self.outbox) {
            Ended::Nothing => {}
            Ended::Attempt(index, cause) => self.fail_upstream(now, index, cause),
            Ended::Lost(what) => {
                self.lose(now, conn_id, Loss::of(what));
            }
        }
    }

    /// The upstream failed: nothing is sent to it any more, and what waits for it goes another way.
    fn fail_upstream(&mut self, now: Instant, index: UpstreamIndex, cause: Cause) {
        if !self.upstreams.is_asked(index) {
            return;
        }
        if let Some(trial) = self.upstreams.fail(now, index, cause, &mut self.outbox) {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.upstreams.summarize(now, &mut self.outbox);
        let mut again = Vec::new();
        while let Some(id) = self.queries.first_waiting(Next::Only(index), false) {
            self.queries.stop_waiting(id);
            let Some(query) = self.queries.get(id).filter(|query| !query.sendings.expects_answer())
            else {
                continue;
            };
            let is_sent = query.is_sent();
            if query.held.is_some() {
                self.fail_query(now, id);
            } else if !self.upstreams.is_something_usable() {
                again.push(id);
            } else if !self.try_elsewhere(id, index) {
                if is_sent { again.push(id) } else { self.fail_query(now, id) }
            }
        }
        self.resend(now, again);
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

    /// Closes a connection that did nothing wrong.
    pub(super) fn evict(&mut self, now: Instant, conn_id: UpstreamConnId) {
        self.outbox.counts.made_way += 1;
        self.drop_upstream_conns(now, vec![conn_id], Manner::Orderly, "others need its room");
    }

    /// Drops connections, which is nobody's fault: their queries are sent again.
    pub(super) fn drop_upstream_conns(
        &mut self,
        now: Instant,
        conns: Vec<UpstreamConnId>,
        manner: Manner,
        why: &'static str,
    ) {
        let mut unanswered = Vec::new();
        for conn_id in conns {
            if let Some(conn) = self.upstreams.close(conn_id, manner, why, &mut self.outbox) {
                unanswered.extend(conn.in_flight.iter());
                conn.in_flight.iter().for_each(|id| self.queries.forget_sending(id, conn_id));
            }
        }
        // Some were on two of them.
        sort_by_key(&mut unanswered, |id| id.serial());
        unanswered.dedup();
        self.resend(now, unanswered);
    }

    /// Closes a connection that is lost and sends what waited on it again.
    pub(super) fn lose(&mut self, now: Instant, conn_id: UpstreamConnId, loss: Loss) {
        let Some(lost) = self.upstreams.lose(now, conn_id, loss, &mut self.outbox) else {
            return;
        };
        let met = self.queries.note_lost(&lost);
        let (culprit, failure) = self.upstreams.judge(now, &lost, met);
        let suspect = lost.suspect();
        let index = lost.failure.upstream;
        let mut unanswered = lost.unanswered;
        if let Some(query) = culprit {
            unanswered.retain(|id| *id != query);
            if !self.try_elsewhere(query, index) {
                self.fail_query(now, query);
            }
        }
        if let Some(detail) = failure {
            self.fail_upstream(now, index, Cause::At(Stage::Read, detail));
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
        let was_first = |id, upstream| self.queries.was_first_at(id, upstream);
        let Some(mut stalled) = self.upstreams.stall(now, conn_id, was_first) else {
            return;
        };
        self.queries.note_stalled(conn_id, &stalled.unanswered);
        if let Some(detail) = stalled.failure.take() {
            self.fail_upstream(now, stalled.upstream, Cause::At(Stage::Read, detail.into()));
        }
        self.send_elsewhere(now, conn_id, stalled, false);
    }

    /// Has what waits on a stalled connection sent again, but for an answer that is arriving: to another
    /// upstream if it did not stall the first time, or if that is wanted.
    pub(super) fn send_elsewhere(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        stalled: Stalled,
        to_another: bool,
    ) {
        if self.upstreams.conn(conn_id).is_none() {
            return;
        }
        let index = stalled.upstream;
        let mut again = Vec::new();
        for id in stalled.unanswered {
            let is_arriving = stalled.arriving == Some(id);
            let Some((avoided, has_stalled)) = self.queries.leave_stalled(now, id, index) else {
                continue;
            };
            let turns_away = has_stalled || is_arriving || to_another;
            let turned_away = || self.upstreams.another(index, avoided).filter(|_| turns_away);
            match self.upstreams.second_try(now, index, avoided).or_else(turned_away) {
                Some(other) => self.queries.wait_for(id, other),
                None if is_arriving => {}
                None => again.push(id),
            }
        }
        if let Some(id) = stalled.arriving {
            self.queries.set_stalled(id, conn_id, false);
        }
        self.queries.wait_again(again);
    }

    /// On a stalled connection another answer arrives than did before, or none any more: what ceased to arrive is
    /// sent again like all others.
    pub(super) fn note_arriving(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        change: Arriving,
    ) {
        if let Some(query) = change.begun {
            self.queries.set_stalled(query, conn_id, false);
        }
        if let Some(query) = change.ceased {
            self.queries.set_stalled(query, conn_id, true);
            self.resend(now, vec![query]);
        }
    }

    pub(super) fn upstream_timeouts(&mut self, now: Instant) {
        for index in self.upstreams.places() {
            if self.upstreams.is_poor(index) {
                self.fail_upstream(now, index, Cause::Poor);
            }
            for place in (0..self.upstreams[index].conns.len()).rev() {
                let Some(&conn_id) = self.upstreams[index].conns.get(place) else {
                    continue;
                };
                self.look(now, conn_id);
                self.hedge(now, conn_id);
                self.overdue(now, conn_id);
                match self.upstreams.due(now, conn_id) {
                    None => {}
                    Some(Due::Attempt(how)) => self.upstream_closed(now, conn_id, how),
                    Some(Due::Shown) => {
                        self.upstreams.note_shown(conn_id);
                        self.rescue(now, conn_id);
                    }
                    Some(Due::Stalled) => self.stall(now, conn_id),
                    Some(Due::Idle) => self.upstreams.close_idle(conn_id, &mut self.outbox),
                    Some(Due::Silence) => {
                        self.upstreams.learn_silence(now, conn_id, &mut self.outbox);
                    }
                    Some(Due::Arrival) => {
                        let ceased = self.upstreams.give_up_arriving(conn_id);
                        self.note_arriving(now, conn_id, Arriving { begun: None, ceased });
                    }
                    Some(Due::End) => {
                        self.lose(now, conn_id, Loss::of("no answer"));
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
            match self.queries.fate(id) {
                Fate::Stays => {}
                Fate::Fails => self.fail_query(now, id),
                Fate::Again => again.push(id),
            }
        }
        self.queries.wait_again(again);
    }

    /// Turns to an upstream that this query has not brought down, if no copy is out already. False if
    /// there is none, or it was sent often enough.
    fn try_elsewhere(&mut self, id: Id, index: UpstreamIndex) -> bool {
        let Some(query) = self.queries.avoid(id, index) else {
            return false;
        };
        let may_turn = !query.is_trial() && query.may_be_sent();
        let avoided = query.history.avoided;
        if query.sendings.expects_answer() {
            return true;
        }
        let Some(other) = self.upstreams.another(index, avoided).filter(|_| may_turn) else {
            return false;
        };
        self.queries.turn_to(id, other);
        true
    }
}
