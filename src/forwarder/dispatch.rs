//! From the queue to connections: which upstream gets the queries, and when one is tried again.

use std::time::{Duration, Instant};

use super::arena::Id;
use super::query::{Origin, Place, Query};
use super::upstream::{PATIENCE, Phase, Upstream, UpstreamConn};
use super::{Action, Conn, ConnId, Forwarder, frame};

impl Forwarder {
    /// Sends what is queued to the first usable upstream, connecting to it if need be. While an
    /// attempt takes long, the next upstreams are asked too: whichever is open first gets the
    /// queries. With nothing usable all are tried, each at its pace.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.dispatch_at = None;
        if self.queue.is_empty() {
            return;
        }
        for index in 0..self.upstreams.len() {
            if self.is_something_usable() && !self.upstreams[index].is_usable() {
                continue;
            }
            if let Some(conn) = self.open_conn(now, index) {
                if self.send_queued(now, conn) {
                    return;
                }
                continue;
            }
            // It may just have been found to be stalled, and its upstream to have failed.
            let something_usable = self.is_something_usable();
            if something_usable && !self.upstreams[index].is_usable() {
                continue;
            }
            let wait_until = if something_usable {
                self.connect(now, index);
                self.upstreams[index].patience_ends_at().filter(|at| now < *at)
            } else {
                self.retry(now, index)
            };
            self.dispatch_at = match (self.dispatch_at, wait_until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if something_usable && wait_until.is_some() {
                return;
            }
        }
    }

    /// How long a query may stay queued, if that is less than its whole time: with nothing up, long
    /// enough to see one attempt; a quick SERVFAIL protects the resolver in front of us. Where another
    /// attempt mends nothing, as with certificates, no longer than an attempt is under way.
    pub(super) fn queue_timeout(&self) -> Option<Duration> {
        let mut only_lasting = true;
        for upstream in &self.upstreams {
            let outage = upstream.outage()?;
            if !outage.stage.is_lasting() {
                only_lasting = false;
                if outage.attempts < 2 {
                    return None;
                }
            }
        }
        let no_attempt = self.upstreams.iter().all(|upstream| upstream.attempt.is_none());
        Some(if only_lasting && no_attempt { Duration::ZERO } else { PATIENCE })
    }

    /// A query came: failed upstreams that would be preferred to the working one are tried again
    /// beside the traffic, once their backoff has ended. The query itself does not wait for them.
    pub(super) fn revive(&mut self, now: Instant, cause: Id) {
        let Some(working) = self.upstreams.iter().position(Upstream::is_usable) else {
            return;
        };
        for index in 0..working {
            let conn = self.open_conn(now, index);
            let Some(outage) = self.upstreams[index].outage() else {
                continue;
            };
            let wants_trial = outage.must_answer && outage.trial.is_none();
            if let Some(conn) = conn {
                if wants_trial && let Some(trial) = self.add_trial(now, index, cause) {
                    self.send(now, trial, conn);
                }
            } else if outage.retry_at <= now && self.upstreams[index].attempt.is_none() {
                if wants_trial {
                    self.add_trial(now, index, cause);
                }
                self.connect(now, index);
            }
        }
    }

    pub(super) fn is_something_usable(&self) -> bool {
        self.upstreams.iter().any(Upstream::is_usable)
    }

    /// Starts an attempt, unless one is under way.
    pub(super) fn connect(&mut self, now: Instant, index: usize) {
        if self.upstreams[index].attempt.is_some() || self.shutting_down && self.queries.is_empty()
        {
            return;
        }
        // As many again as may wait: queries that are given up keep their IDs, and those that take
        // their place need new ones.
        let ids_max = (2 * self.limits.queries_max).min(usize::from(u16::MAX) + 1);
        let conn = UpstreamConn::new(index, now, ids_max, &mut self.random);
        let conn = ConnId(self.conns.insert(Conn::Upstream(Box::new(conn))));
        let upstream = &mut self.upstreams[index];
        upstream.conns.push(conn);
        upstream.attempt = Some(conn);
        upstream.attempted_at = Some(now);
        self.counts.connects += 1;
        self.actions.push_back(Action::Connect { conn, upstream: index });
    }

    /// Writes the query to the connection, with a message ID of its own there. False if the
    /// connection has none left.
    pub(super) fn send(&mut self, now: Instant, id: Id, conn_id: ConnId) -> bool {
        let Some(query) = self.queries.get_mut(id) else {
            return true;
        };
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return false;
        };
        let Some(message_id) = conn.in_flight.take(id) else {
            return false;
        };
        // A copy sent after a stall does not arm the stall deadline of a newer connection, whose
        // handshake just proved the path; but alone in its window it would hold up all others.
        let is_proven = query.stalled_at.is_some_and(|at| conn.opened_at >= at);
        let in_window = self.upstreams[conn.upstream].window.is_some();
        if !is_proven || in_window {
            conn.note_sent(now, message_id);
        }
        query.stalled_at = None;
        frame::append_with(conn.output.buffer(), |out| {
            out.extend_from_slice(&message_id.to_be_bytes());
            out.extend_from_slice(&query.message[size_of::<u16>()..]);
        });
        let transmit = !conn.transmitting;
        conn.transmitting = true;
        let older = query.add_place(Place { conn: conn_id, id: message_id });
        self.shares.note_sent(id.key());
        if query.sends > 1 {
            self.counts.resent += 1;
        }
        if transmit {
            self.actions.push_back(Action::Transmit(conn_id));
        }
        if let Some(older) = older {
            self.abandon(now, older);
        }
        true
    }

    /// The connection of an upstream that takes new queries. One whose idle or stall deadline has
    /// passed takes none even if its timer has not run yet: a stopped and continued process must not
    /// send on a stale connection first.
    fn open_conn(&mut self, now: Instant, index: usize) -> Option<ConnId> {
        let conn_id = self.upstreams[index].open?;
        let Some(Conn::Upstream(conn)) = self.conns.get(conn_id.0) else {
            return None;
        };
        if conn.idles_out_at(self.limits.upstream_idle_timeout).is_some_and(|at| at <= now) {
            self.close_idle(conn_id);
            return None;
        }
        if conn.stalls_at().is_some_and(|at| at <= now) {
            self.stall(now, conn_id);
            return None;
        }
        if conn.wants_replacement(now) {
            self.connect(now, index);
        }
        Some(conn_id)
    }

    /// False if the connection has no message ID left: until it is replaced, others serve.
    fn send_queued(&mut self, now: Instant, conn_id: ConnId) -> bool {
        while let Some((key, _)) = self.queue.oldest() {
            let Some(Conn::Upstream(conn)) = self.conns.get(conn_id.0) else {
                return true;
            };
            let window = self.upstreams[conn.upstream].window.unwrap_or(usize::MAX);
            if !conn.has_room() || conn.in_flight.waiting() >= window {
                return true;
            }
            let Some(id) = self.queries.id_at(key) else {
                debug_assert!(false, "a key in the queue names a query");
                self.queue.disarm(key);
                continue;
            };
            if self.queries.get(id).is_some_and(|query| now >= self.expires_at(query)) {
                self.expire(now, id);
                continue;
            }
            if !self.send(now, id, conn_id) {
                return false;
            }
            self.queue.disarm(key);
        }
        true
    }

    fn expires_at(&self, query: &Query) -> Instant {
        query.arrived + self.limits.query_timeout
    }

    /// With nothing usable: tries a failed upstream again if its pause is over, else tells when.
    fn retry(&mut self, now: Instant, index: usize) -> Option<Instant> {
        let upstream = &self.upstreams[index];
        if upstream.attempt.is_some() {
            return None;
        }
        let retry_at = upstream.retry_with_nothing_up_at(upstream.outage()?);
        if now < retry_at {
            return Some(retry_at);
        }
        self.connect(now, index);
        None
    }

    /// Copies a query for an upstream that has to prove that it answers.
    fn add_trial(&mut self, now: Instant, index: usize, cause: Id) -> Option<Id> {
        let query = self.queries.get(cause)?;
        if query.is_sent_once() || self.queries.len() >= self.limits.queries_max {
            return None;
        }
        let (message, parsed) = (self.messages.store(&query.message)?, query.parsed);
        // The upstreams see one copy more of it.
        if let Some(cause) = self.queries.get_mut(cause) {
            cause.sends += 1;
        }
        let trial = Query::new(Origin::Trial { upstream: index }, message, parsed, now);
        let trial = self.queries.insert(trial);
        self.by_arrival.arm(trial.key(), now);
        self.upstreams[index].outage_mut()?.trial = Some(trial);
        Some(trial)
    }

    /// The connection is usable now: whatever waits may be sent on it.
    pub(super) fn conn_opened(&mut self, now: Instant, conn_id: ConnId) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        if !matches!(conn.phase, Phase::Connecting { .. }) {
            return;
        }
        conn.phase = Phase::Open;
        conn.opened_at = now;
        conn.last_received = now;
        conn.idle_since = now;
        let index = conn.upstream;
        let upstream = &mut self.upstreams[index];
        upstream.attempt = None;
        if let Some(old) = upstream.open.replace(conn_id) {
            self.retire(now, old);
        }
        match self.upstreams[index].outage() {
            Some(outage) if outage.must_answer => {
                if let Some(trial) = outage.trial {
                    self.send(now, trial, conn_id);
                }
            }
            Some(_) => self.recover(now, index),
            None => {}
        }
        self.queue_stalled();
        self.dispatch(now);
    }
}
