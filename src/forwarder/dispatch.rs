//! From waiting queries to connections: which upstream gets the queries, and when one is tried again.

use std::time::Instant;

use super::action::{Action, UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::limits::Service;
use super::message::Signature;
use super::message::edit::{self, Edns, QueryEdit};
use super::message::frame;
use super::queries::query::{Origin, Query, SENDS_MAX, Sending};
use super::upstreams::LARGE;
use super::upstreams::connection::Phase;
use super::upstreams::upstream::Upstream;
use super::{Forwarder, Order, Part};

impl Forwarder {
    /// Sends what waits to usable upstreams, connecting to them if need be. While an attempt takes
    /// long, the next upstreams are asked too: whichever is open first gets the queries. With nothing
    /// usable all are tried, each at its pace. True if it came upon a connection that had stalled, and is to
    /// be called again.
    pub(super) fn dispatch(&mut self, now: Instant) -> bool {
        match self.try_dispatch(now) {
            Ok(()) => false,
            Err(Stale(conn)) => {
                self.stall(now, conn);
                true
            }
        }
    }

    fn try_dispatch(&mut self, now: Instant) -> Result<(), Stale> {
        self.queries.forget_look();
        for index in self.queries.awaited().iter() {
            self.dispatch_only(now, index)?;
        }
        if self.queries.waiting() == 0 {
            return Ok(());
        }
        let mut result = Ok(true);
        while self.queries.waiting() > 0 && result == Ok(true) {
            let ranking = self.upstreams.rank(now);
            result = self.dispatch_by(now, &ranking);
            self.upstreams.keep_ranking(ranking);
        }
        result.map(|_| ())
    }

    /// Sends what waits for this upstream, connecting to it if need be.
    fn dispatch_only(&mut self, now: Instant, index: UpstreamIndex) -> Result<(), Stale> {
        let mut last = None;
        while let Some(conn) = self.open_conn(now, index)?
            && last.replace(conn) != Some(conn)
        {
            self.send_only(now, index, conn);
        }
        let open = self.upstreams[index].open;
        if self.queries.waiting_for(index) > 0
            && open.is_none_or(|open| self.upstreams.is_busy(now, open))
        {
            self.connect(now, index);
            self.end_patience(now, index);
        }
        Ok(())
    }

    /// Sends what waits for this upstream on its connection, as much as goes.
    fn send_only(&mut self, now: Instant, index: UpstreamIndex, conn_id: UpstreamConnId) {
        let mut in_vain = 0;
        while in_vain < TRIES_IN_VAIN_MAX
            && let Some(id) = self.queries.first_waiting_for(index)
            && self.upstreams.takes_more(now, conn_id)
        {
            match self.send(now, id, conn_id) {
                Placed::Sent | Placed::Expired | Placed::NotAgain => {}
                Placed::NoId => {
                    // Those behind it may have message IDs.
                    self.queries.wait_for(id, index);
                    if self.needs_own_id(id) {
                        self.replace_for_own_id(now, id, conn_id);
                    }
                    in_vain += 1;
                }
            }
        }
    }

    /// True if something was sent and the rest is to be looked at anew.
    fn dispatch_by(&mut self, now: Instant, ranking: &[UpstreamIndex]) -> Result<bool, Stale> {
        let is_ordered = self.policy.order == Order::Ordered;
        let sends_max = if self.policy.order == Order::Spread { 1 } else { usize::MAX };
        // A connection to one that is preferred is being made.
        let mut is_waiting = false;
        for &index in ranking {
            if self.upstreams.is_something_usable() && !self.upstreams[index].is_usable() {
                continue;
            }
            if let Some(conn) = self.open_conn(now, index)? {
                let sent = self.send_waiting(now, conn, sends_max);
                if self.queries.waiting() == 0 {
                    return Ok(false);
                }
                let is_busy = self.upstreams.is_busy(now, conn);
                if sent == sends_max || is_busy && sent > 0 {
                    return Ok(true);
                }
                if self.upstreams[index].open == Some(conn) && !is_busy {
                    if is_ordered && self.upstreams.has_free_ids(conn) {
                        return Ok(false);
                    }
                    continue;
                }
                // It takes no more than it was sent: the rest needs another.
            }
            let something_usable = self.upstreams.is_something_usable();
            if something_usable && !self.upstreams[index].is_usable() || is_waiting {
                continue;
            }
            let wait_until = if something_usable {
                self.connect(now, index);
                if self.policy.order == Order::Spread
                    && let Some(at) = self.upstreams[index].attempt_is_slow_at()
                    && now < at
                {
                    // Its connection would be of no use if queries did not wait for it at all.
                    self.queries.look_again(at);
                    return Ok(false);
                }
                let upstream = &self.upstreams[index];
                // What it cannot answer in time another one can.
                let overflows = upstream.at_once.max(now).is_some();
                upstream.patience_ends_at().filter(|at| now < *at && !overflows)
            } else {
                self.retry(now, index)
            };
            if let Some(at) = wait_until {
                self.queries.look_again(at);
            }
            if something_usable && wait_until.is_some() {
                if is_ordered {
                    return Ok(false);
                }
                // The others serve meanwhile, those that are connected.
                is_waiting = true;
            }
        }
        Ok(false)
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
        if wants_trial {
            self.add_trial(now, index, cause);
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
        while self.wants_attempt(now, index) && self.evict_stalled(now, index) {
            // To make way may have ended what it was wanted for.
            if self.wants_attempt(now, index) {
                self.upstreams.start_attempt(now, index, &mut self.outbox);
                has_started = true;
            }
        }
        has_started
    }

    fn wants_attempt(&self, now: Instant, index: UpstreamIndex) -> bool {
        let waiting = self.queries.waiting() + self.queries.waiting_for(index);
        self.upstreams.wants_attempt(now, index, waiting)
    }

    /// Connects to an upstream that has a connection which serves, unless that was done lately.
    fn replace(&mut self, now: Instant, index: UpstreamIndex) {
        if self.upstreams[index].replacements.allow_one(now) && self.connect(now, index) {
            self.upstreams[index].replacements.note(now);
        }
    }

    /// Sends a query that waits, unless its time is over or it was sent often enough.
    fn send(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) -> Placed {
        self.entered.enter(Part::Send);
        let placed = self.place(now, id, conn_id);
        self.entered.leave(Part::Send);
        match placed {
            Placed::Expired => self.expire(now, id),
            Placed::NotAgain => self.end_sends(now, id),
            Placed::Sent | Placed::NoId => {}
        }
        placed
    }

    /// Writes the query to the connection, with a message ID of its own there.
    fn place(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) -> Placed {
        let Some(query) = self.queries.get_mut(id) else {
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
        let Some((conn, upstream)) = self.upstreams.with_upstream(conn_id) else {
            return Placed::NoId;
        };
        let message_id = if query.parsed.signature == Some(Signature::Sig0) {
            // The signature covers it (RFC 2931 section 3.1).
            let own = query.parsed.id;
            conn.in_flight.take_exact(own, id).then_some(own)
        } else {
            conn.in_flight.take(id)
        };
        let Some(message_id) = message_id else {
            return Placed::NoId;
        };
        // A copy sent after a stall does not arm the stall deadline of a newer connection, whose
        // handshake just proved the path; but one that fills its window would hold up all others.
        let is_proven = query.history.stalled_at.is_some_and(|at| conn.opened_at >= at);
        let index = conn.upstream;
        if !is_proven || upstream.in_flight_max.is_some_and(|max| conn.in_flight.waiting() >= max) {
            conn.note_sent(now, message_id);
        }
        let is_unsigned = query.parsed.signature.is_none();
        let edns = query.edns_at(index).max(upstream.tolerance.edns(now));
        let edit = QueryEdit {
            edns,
            keepalive: is_unsigned && !conn.asked_keepalive,
            ecs: self.policy.ecs,
            family: query.family,
        };
        conn.asked_keepalive |= is_unsigned && edns == Edns::Ours;
        conn.queries += 1;
        let is_spent = conn.is_spent(upstream.allowance(now));
        let most = frame::LENGTH_LEN + query.message.len() + edit::QUERY_GROWTH_MAX;
        frame::append_with(conn.output.buffer(most), |out| {
            edit::append_query(out, &query.message, &query.parsed, message_id, edit);
        });
        let is_large = conn.output.len() > self.limits.upstream_output_max.max(LARGE);
        let transmit = !conn.transmitting;
        conn.transmitting = true;
        let sending = Sending { conn: conn_id, id: message_id, edns, stalled: false };
        let older = query.add_sending(sending);
        if query.history.first.is_none() {
            query.history.first = Some((index, upstream.promptness.note_sent()));
        }
        upstream.sends += 1;
        if query.history.sends > 1 {
            self.outbox.counts.resent += 1;
        }
        self.queries.note_sent(id);
        if transmit {
            self.outbox.push(Action::Transmit(conn_id.into()));
        }
        if let Some(older) = older {
            self.upstreams.abandon(now, older.conn, older.id, &mut self.outbox);
        }
        if is_spent {
            self.upstreams.retire(now, conn_id, &mut self.outbox);
        }
        if is_large {
            self.upstreams.note_large(conn_id);
        }
        Placed::Sent
    }

    /// The connection of an upstream that takes new queries. One whose idle or stall deadline has
    /// passed takes none even if its timer has not run yet: a stopped and continued process must not
    /// send on a stale connection first. `Err`: it has stalled.
    fn open_conn(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
    ) -> Result<Option<UpstreamConnId>, Stale> {
        let allowance = self.upstreams[index].allowance(now);
        if allowance.is_some_and(|allowance| allowance.at_once.is_some()) {
            self.upstreams.turn_to_spare(now, index);
        }
        let open = self.upstreams[index].open;
        let Some((conn_id, conn)) = open.and_then(|id| Some((id, self.upstreams.conn(id)?))) else {
            return Ok(None);
        };
        if conn.idles_out_at(self.upstreams.idle_timeout(conn)).is_some_and(|at| at <= now) {
            self.upstreams.close_idle(conn_id, &mut self.outbox);
            return Ok(None);
        }
        if conn.stalls_at().is_some_and(|at| at <= now) {
            return Err(Stale(conn_id));
        }
        // Behind what was given up nobody waits.
        let is_blocked = conn.in_flight.waiting() == 0 && conn.is_busy(allowance);
        if conn.is_spent(allowance) || is_blocked {
            self.upstreams.retire(now, conn_id, &mut self.outbox);
            return Ok(None);
        }
        if conn.is_nearly_spent(allowance) || conn.needs_replacement(now) {
            self.connect(now, index);
        } else if conn.wants_replacement(now) {
            self.replace(now, index);
        }
        Ok(Some(conn_id))
    }

    /// Sends at most `sends_max` of the queries that wait for whichever upstream takes them; returns how many.
    fn send_waiting(&mut self, now: Instant, conn_id: UpstreamConnId, sends_max: usize) -> usize {
        let mut sends = 0;
        while sends < sends_max
            && let Some(id) = self.queries.first_waiting()
            && self.upstreams.takes_more(now, conn_id)
        {
            match self.send(now, id, conn_id) {
                Placed::Sent => sends += 1,
                Placed::Expired | Placed::NotAgain => {}
                // Nobody else waits for the one ID that it can be sent with.
                Placed::NoId if self.needs_own_id(id) => {
                    self.wait_for_own_id(now, id, conn_id);
                    sends += 1;
                }
                Placed::NoId => break,
            }
        }
        sends
    }

    fn needs_own_id(&self, id: Id) -> bool {
        let signature = self.queries.get(id).and_then(|query| query.parsed.signature);
        signature == Some(Signature::Sig0)
    }

    fn wait_for_own_id(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conn(conn_id) {
            self.queries.wait_for(id, conn.upstream);
            self.replace_for_own_id(now, id, conn_id);
        }
    }

    /// The one message ID that the query can be sent with is not to be had on this connection. Where it may
    /// never be, another connection is made, now or when that may be done again.
    fn replace_for_own_id(&mut self, now: Instant, id: Id, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conn(conn_id)
            && let Some(query) = self.queries.get(id)
            && conn.in_flight.is_lost(query.parsed.id)
        {
            let index = conn.upstream;
            self.replace(now, index);
            if let Some(at) = self.upstreams[index].replacements.next().filter(|at| now < *at) {
                self.queries.look_again(at);
            }
        }
    }

    /// With nothing usable: tries a failed upstream again if its pause is over, else tells when.
    fn retry(&mut self, now: Instant, index: UpstreamIndex) -> Option<Instant> {
        let upstream = &self.upstreams[index];
        if !upstream.attempts.is_empty() {
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
    fn add_trial(&mut self, now: Instant, index: UpstreamIndex, cause: Id) -> Option<Id> {
        let query = self.queries.get(cause)?;
        if query.is_sent_once()
            // It is still to be sent itself.
            || query.history.sends + 1 >= SENDS_MAX
            || self.queries.is_full()
        {
            return None;
        }
        let (parsed, family) = (query.parsed, query.family);
        let message = self.queries.store_copy(cause)?;
        // The upstreams see one copy more of it.
        if let Some(cause) = self.queries.get_mut(cause) {
            cause.history.sends += 1;
        }
        let trial =
            Query::new(Origin::Trial { upstream: index, cause }, message, parsed, family, now);
        let trial = self.queries.insert(now, trial);
        self.queries.wait_for(trial, index);
        self.upstreams[index].outage_mut()?.trial = Some(trial);
        Some(trial)
    }

    /// The connection is usable now: whatever waits may be sent on it.
    pub(super) fn conn_opened(&mut self, now: Instant, conn_id: UpstreamConnId) {
        let Some(conn) = self.upstreams.conn_mut(conn_id) else {
            return;
        };
        if !matches!(conn.phase, Phase::Connecting { .. }) {
            return;
        }
        conn.phase = Phase::Open;
        conn.opened_at = now;
        conn.last_received = now;
        conn.last_answer = now;
        conn.idle_since = now;
        let index = conn.upstream;
        let upstream = &mut self.upstreams[index];
        upstream.attempts.retain(|attempt| *attempt != conn_id);
        if let Some(old) = upstream.open.replace(conn_id)
            && !self.upstreams.serves_beside(now, old)
        {
            self.upstreams.retire(now, old, &mut self.outbox);
        }
        if self.upstreams[index].outage().is_some_and(|outage| !outage.proof.wants_trial()) {
            self.recover(now, index);
        }
        self.queries.end_later();
    }
}

/// What became of a query that was to be sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Sent,
    /// The connection has no message ID for it.
    NoId,
    /// Its time is over.
    Expired,
    /// It may not be sent once more.
    NotAgain,
}

/// A connection that has stalled, which its timer has not told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stale(UpstreamConnId);

/// A client can have all its queries wait for one message ID, and each event looks at a few only.
pub(super) const TRIES_IN_VAIN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use crate::forwarder::UpstreamIndex;
    use crate::forwarder::queries::query::{NO_ANSWER_SENDS_MAX, SENDS_MAX};
    use crate::forwarder::tests::{base, forwarder, query};

    #[test]
    fn what_was_sent_often_enough_is_not_sent_again_even_if_it_waits() {
        for (sends, unanswered) in [(SENDS_MAX, 0), (NO_ANSWER_SENDS_MAX, NO_ANSWER_SENDS_MAX)] {
            let now = base();
            let mut forwarder = forwarder();
            let id = query(&mut forwarder, now);
            if let Some(query) = forwarder.queries.get_mut(id) {
                (query.history.sends, query.history.unanswered) = (sends, unanswered);
            }
            let conn = forwarder.upstreams[UpstreamIndex::new(0)].attempts[0];
            forwarder.handle_connected(now, conn);
            assert_eq!(forwarder.output(conn.into()), b"");
            let counts = forwarder.counts();
            assert_eq!((counts.failed, counts.owed, counts.queries_held), (1, 0, 0));
        }
    }
}
