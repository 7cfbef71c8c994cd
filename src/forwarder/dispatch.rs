//! From waiting queries to connections: which upstream gets the queries, and when one is tried again.

use std::time::Instant;

use super::action::{RouteIndex, UpstreamConnId, UpstreamIndex, UpstreamSet};
use super::collections::arena::Id;
use super::limits::Service;
use super::queries::TRIES_IN_VAIN_MAX;
use super::queries::query::Sending;
use super::queries::waiting::Next;
use super::upstreams::choice::Ask;
use super::upstreams::connection::Over;
use super::upstreams::upstream::Upstream;
use super::upstreams::{Outgoing, Place, Sent};
use super::{Forwarder, Order, Part};

impl Forwarder {
    /// Sends what waits, connecting to upstreams if need be. True if it came upon a connection that had
    /// stalled, and is to be called again.
    pub(super) fn dispatch(&mut self, now: Instant) -> bool {
        self.queries.forget_look();
        // Most often nothing does: an answer came, or a message that is none of a client's.
        if !self.queries.waits() {
            return false;
        }
        for index in self.queries.awaited().iter() {
            if !self.upstreams.is_asked(index) {
                self.turn_away(now, index);
                continue;
            }
            if self.dispatch_to(now, Next::Only(index), UpstreamSet::only(index)) {
                return true;
            }
        }
        for route in RouteIndex::every() {
            if self.dispatch_to(now, Next::Anyone(route), self.upstreams.of_route(route)) {
                return true;
            }
        }
        false
    }

    /// Sends what waits for `next` to one of `among`, likewise.
    fn dispatch_to(&mut self, now: Instant, next: Next, among: UpstreamSet) -> bool {
        let mut tried = UpstreamSet::EMPTY;
        while self.queries.waiting(next) > 0 {
            self.upstreams.rank(now);
            let queued = self.queries.waiting(next);
            match self.upstreams.choose(now, among, tried, queued) {
                Ask::Send(conn) => {
                    if self.send_waiting(now, next, conn) == 0 {
                        return false;
                    }
                }
                Ask::Leave(conn, Over::Idle) => self.upstreams.close_idle(conn, &mut self.outbox),
                Ask::Leave(conn, Over::Spent) => {
                    self.upstreams.retire(now, conn, &mut self.outbox);
                }
                Ask::Leave(conn, Over::Stalled) => {
                    self.stall(now, conn);
                    return true;
                }
                Ask::Connect(index) => {
                    self.connect(now, index);
                    tried.insert(index);
                }
                Ask::Replace(index) => {
                    self.replace(now, index);
                    tried.insert(index);
                }
                Ask::Wait(until) => {
                    if let Some(at) = until {
                        self.queries.look_again(at);
                    }
                    if let Next::Only(index) = next
                        && let Some(at) = self.upstreams.only_patience_ends_at(now, index)
                    {
                        let another = |avoided| self.upstreams.another(index, avoided);
                        self.queries.end_patience(now, at, index, another);
                    }
                    return false;
                }
            }
        }
        false
    }

    /// A query came: failed upstreams that would be preferred to the working one are tried again
    /// beside the traffic, once their backoff has ended. The query itself does not wait for them.
    pub(super) fn probe_preferred(&mut self, now: Instant, cause: Id) {
        let Some(working) = self.upstreams.iter().position(Upstream::is_usable) else {
            return;
        };
        let preferred = match self.policy.order {
            Order::Ordered => working,
            Order::Fastest | Order::Spread => self.upstreams.len(),
        };
        for index in self.upstreams.indexes().take(preferred) {
            self.probe_failed(now, index, cause);
        }
    }

    /// Tries an upstream again if it failed and its backoff has ended: with a connection to it, or a copy of
    /// this query if it has to prove that it answers.
    pub(super) fn probe_failed(&mut self, now: Instant, index: UpstreamIndex, cause: Id) {
        let upstream = &self.upstreams[index];
        let Some(outage) = upstream.outage().filter(|outage| outage.retry_at <= now) else {
            return;
        };
        let wants_trial = outage.proof.wants_trial() && outage.trial.is_none();
        let is_connected = upstream.open.is_some();
        if !is_connected && !upstream.attempts.is_empty() {
            return;
        }
        if wants_trial && let Some(trial) = self.queries.copy_for_trial(now, index, cause) {
            self.upstreams.note_trial_sent(index, trial);
        }
        if !is_connected {
            self.connect(now, index);
        }
    }

    /// Starts an attempt, unless one is under way; with connections that carry few queries each, as
    /// many as what waits needs. Returns whether it did.
    pub(super) fn connect(&mut self, now: Instant, index: UpstreamIndex) -> bool {
        let mut has_started = false;
        if self.service == Service::Ending && self.queries.is_empty() {
            return has_started;
        }
        // To make way may end what it was wanted for.
        while self.wants_attempt(now, index) {
            match self.upstreams.place_for_attempt(index) {
                Place::Free => {
                    self.upstreams.start_attempt(now, index, &mut self.outbox);
                    has_started = true;
                }
                Place::Of(stalled) => self.evict(now, stalled),
                Place::Nowhere => break,
            }
        }
        has_started
    }

    fn wants_attempt(&self, now: Instant, index: UpstreamIndex) -> bool {
        let waiting = |next| self.queries.waiting(next);
        let routes =
            RouteIndex::every().filter(|route| self.upstreams.of_route(*route).contains(index));
        let queued =
            waiting(Next::Only(index)) + routes.map(Next::Anyone).map(waiting).sum::<usize>();
        self.upstreams.wants_attempt(now, index, queued)
    }

    /// Connects to an upstream that has a connection which serves, unless that was done lately.
    fn replace(&mut self, now: Instant, index: UpstreamIndex) {
        if self.upstreams[index].experience.replacements.allow_one(now) && self.connect(now, index)
        {
            self.upstreams.note_replacement(now, index);
        }
    }

    /// Sends a query that waits, unless its time is over or it was sent often enough.
    fn send(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) -> Placed {
        self.entered.enter(Part::Send);
        let placed = self.place(now, id, conn_id);
        self.entered.leave(Part::Send);
        match placed {
            Placed::Expired => self.expire(now, id),
            Placed::NotAgain => self.resend(now, vec![id]),
            Placed::There => self.queries.stop_waiting(id),
            Placed::Sent | Placed::NoId => {}
        }
        placed
    }

    /// Writes the query to the connection, with a message ID of its own there.
    fn place(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) -> Placed {
        let Some(query) = self.queries.get(id) else {
            debug_assert!(false, "what waits is a query");
            return Placed::Expired;
        };
        // One that has just come has its whole time.
        if now != query.arrived && now >= query.arrived + self.limits.query_timeout {
            return Placed::Expired;
        }
        if !query.may_be_sent() {
            return Placed::NotAgain;
        }
        if query.history.sends > 0
            && !query.history.has_gone_astray
            && query.sendings.on(conn_id).is_some()
        {
            return Placed::There;
        }
        let outgoing = Outgoing {
            query: id,
            message: &query.message,
            parsed: &query.parsed,
            family: query.family,
            ecs: self.policy.ecs,
            plainer: query.history.plainer,
            stalled_at: query.history.stalled_at,
            is_first: query.history.first.is_none(),
        };
        let Some(sent) = self.upstreams.send(now, conn_id, &outgoing, &mut self.outbox) else {
            return Placed::NoId;
        };
        self.outbox.counts.resent += u64::from(query.history.sends > 0);
        let Sent { message_id, edns, first } = sent;
        let sending = Sending { conn: conn_id, id: message_id, edns, stalled: false };
        if let Some(older) = self.queries.note_sent(id, sending, first) {
            self.upstreams.abandon(now, older.conn, older.id, &mut self.outbox);
        }
        Placed::Sent
    }

    /// Sends what waits for `next` on a connection that takes one at least; returns how many wait there no
    /// longer.
    fn send_waiting(&mut self, now: Instant, next: Next, conn_id: UpstreamConnId) -> usize {
        let (mut gone, mut in_vain) = (0, 0);
        let gone_max = if self.policy.order == Order::Spread { 1 } else { usize::MAX };
        let is_starting = self.upstreams.is_starting(conn_id);
        while let Some(id) = self.queries.first_waiting(next, is_starting) {
            match self.send(now, id, conn_id) {
                Placed::Sent | Placed::There | Placed::Expired | Placed::NotAgain => gone += 1,
                Placed::NoId => {
                    // No other query waits for the one ID that it can be sent with.
                    self.wait_for_own_id(now, id, conn_id);
                    gone += usize::from(self.queries.next(id) != next);
                    in_vain += 1;
                }
            }
            if gone >= gone_max
                || in_vain >= TRIES_IN_VAIN_MAX
                || self.queries.waiting(next) == 0
                || !self.upstreams.takes_more(now, conn_id)
            {
                break;
            }
        }
        gone
    }

    /// The one message ID that the query can be sent with is not to be had on this connection: it waits
    /// behind others, which may have theirs. Where it may never be, another connection is made, now or when
    /// that may be done again.
    fn wait_for_own_id(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conn(conn_id)
            && let Some(query) = self.queries.get(id)
        {
            let index = conn.upstream;
            let is_lost = conn.in_flight.is_lost(query.parsed.id);
            self.queries.wait_for(id, index);
            if is_lost {
                self.replace(now, index);
                if let Some(at) =
                    self.upstreams[index].experience.replacements.next().filter(|at| now < *at)
                {
                    self.queries.look_again(at);
                }
            }
        }
    }
}

/// What became of a query that was to be sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Sent,
    /// The query is in flight on this connection, which was quiet when a copy was to go elsewhere.
    There,
    /// The connection has no message ID for it.
    NoId,
    /// The query's time is over.
    Expired,
    /// The query may not be sent once more.
    NotAgain,
}
