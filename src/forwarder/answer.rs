//! What upstreams send: which query it answers, and whether it may be believed.

use std::time::{Duration, Instant};

use super::action::{UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::failure::Loss;
use super::message::edit::{self, Edns};
use super::message::{self, Rcode, ResponseCheck, ResponseInfo};
use super::queries::query::{LastFailure, Query};
use super::upstreams::LARGE;
use super::upstreams::connection::Phase;
use super::upstreams::in_flight::Found;
use super::upstreams::tolerance::{self, is_objection};
use super::{Ede, Fact, Forwarder, Manner, Outcome};

impl Forwarder {
    pub(super) fn upstream_stream(&mut self, now: Instant, conn_id: UpstreamConnId, bytes: &[u8]) {
        let Some(conn) = self.upstreams.conn_mut(conn_id) else {
            return;
        };
        conn.last_received = now;
        let mut deframer = std::mem::take(&mut conn.deframer);
        let mut input = bytes;
        while let Some(response) = deframer.next(&mut input) {
            if let Err(loss) = self.response(now, conn_id, response) {
                self.lose(now, conn_id, loss, Manner::Abort);
                return;
            }
        }
        // A retired connection was closed with its last answer, and what follows that is nobody's.
        if let Some(conn) = self.upstreams.conn_mut(conn_id) {
            let is_large = deframer.partial_len() > LARGE;
            conn.deframer = deframer;
            if conn.arriving.is_some() {
                self.note_arriving(now, conn_id);
            }
            if is_large {
                self.upstreams.note_large(conn_id);
            }
        }
    }

    /// Octets came of the answer that was on its way when the connection stalled. They may say that it
    /// is another than was thought: then the query is sent again like all others.
    fn note_arriving(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conn_mut(conn_id)
            && let Some((id, ..)) = conn.deframer.begun()
            && let Some(other) = conn.arriving.replace(id).filter(|other| *other != id)
        {
            let (arrives, ceased) = (conn.in_flight.find(id), conn.in_flight.find(other));
            if let Found::Waiting(query) = arrives {
                self.queries.set_stalled(query, conn_id, false);
            }
            if let Found::Waiting(query) = ceased {
                self.queries.set_stalled(query, conn_id, true);
                self.resend(now, vec![query]);
            }
        }
    }

    /// One response. `Err`: nothing on this connection can be believed any more.
    fn response(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        response: &[u8],
    ) -> Result<(), Loss> {
        let Some(conn) = self.upstreams.conn_mut(conn_id) else {
            return Ok(());
        };
        let Some(message_id) = message::id(response) else {
            return Err(malformed("malformed answer: it has no header", None));
        };
        let query_id = match conn.in_flight.find(message_id) {
            Found::Waiting(id) => id,
            Found::Abandoned(id) => {
                let upstream = conn.upstream;
                self.answered_late(now, (conn_id, message_id), upstream);
                if self.queries.get(id).is_some_and(Query::is_orphan) {
                    self.finish(now, id, Outcome::Orphaned);
                }
                return Ok(());
            }
            Found::Unknown => {
                self.outbox.counts.unmatched += 1;
                conn.unmatched += 1;
                if conn.unmatched >= UNMATCHED_MAX {
                    return Err(malformed("too many answers to nothing asked", None));
                }
                return Ok(());
            }
        };
        let Some(query) = self.queries.get(query_id) else {
            debug_assert!(false, "a waiting ID has a query");
            self.free(now, conn_id, message_id);
            return Ok(());
        };
        let upstream = conn.upstream;
        let place = (conn_id, message_id);
        match &message::check_response(response, &query.message, query.parsed.question_end) {
            ResponseCheck::Malformed(what) => {
                return Err(malformed(what, Some(query_id)));
            }
            ResponseCheck::Answer(info) if edit::has_unasked_signature(info, &query.parsed) => {
                let what = "a signed answer to a query that is not signed";
                self.useless_answer(now, place, upstream, query_id, what);
            }
            ResponseCheck::Answer(info) => {
                let needs_opt = edit::needs_opt(info, &query.parsed);
                let is_telling = is_objection(info.rcode)
                    || query.history.plainer.is_some()
                    || self.upstreams[upstream].tolerance.wants_proof();
                let sent = if is_telling { query.sendings.on(conn_id) } else { None };
                self.answered(now, place, query_id, upstream);
                self.note_keepalive(now, conn_id, response, info);
                if let Some(sent) = sent
                    && self.try_plainer(now, query_id, upstream, sent.edns, info.rcode)
                {
                    return Ok(());
                }
                if needs_opt {
                    self.fail_useless(now, query_id, upstream, "an RCODE that needs EDNS");
                } else if !self.hold(now, query_id, upstream, response, info) {
                    self.conclude(now, query_id, Outcome::Answer { upstream, response, info });
                }
            }
            &ResponseCheck::ErrorWithoutQuestion(rcode) => {
                let sent = query.sendings.on(conn_id);
                self.answered(now, place, query_id, upstream);
                let is_asked_again = sent.is_some_and(|sent| {
                    self.try_plainer(now, query_id, upstream, sent.edns, rcode)
                });
                if is_asked_again || self.has_better(now, query_id, rcode) {
                    return Ok(());
                }
                self.conclude(now, query_id, Outcome::Rcode { upstream, rcode });
            }
            ResponseCheck::Unreadable => {
                let what = "malformed answer: its records cannot be read";
                self.useless_answer(now, place, upstream, query_id, what);
            }
        }
        Ok(())
    }

    /// The upstream works, but what it says is of no use to the client.
    fn useless_answer(
        &mut self,
        now: Instant,
        place: (UpstreamConnId, u16),
        upstream: UpstreamIndex,
        id: Id,
        what: &'static str,
    ) {
        self.answered(now, place, id, upstream);
        self.fail_useless(now, id, upstream, what);
    }

    /// Ends the query with SERVFAIL, unless the answer to another copy is still to come.
    fn fail_useless(&mut self, now: Instant, id: Id, upstream: UpstreamIndex, what: &'static str) {
        if let Some(query) = self.queries.get_mut(id) {
            let failure = LastFailure { upstream, what, code: Ede::OTHER, broke_number: 0 };
            query.history.last_failure = Some(failure);
        }
        if !self.queries.expects_answer(id) {
            self.fail_query(now, id);
        }
    }

    /// How long the server lets the connection idle; nothing, if it wants no more queries on it.
    fn note_keepalive(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        response: &[u8],
        info: &ResponseInfo,
    ) {
        let Some(timeout) = info.opt.and_then(|opt| opt.keepalive_timeout(response)) else {
            return;
        };
        let Some((conn, upstream)) = self.upstreams.with_upstream(conn_id) else {
            return;
        };
        let timeout = u32::from(timeout) * KEEPALIVE_UNIT;
        // It counts at the server, from when it sent the answer to when the next query is there.
        let round_trip = upstream.round_trip.smoothed().unwrap_or_default();
        let on_the_way = KEEPALIVE_MARGIN.max(2 * round_trip);
        conn.keepalive = Some(timeout.saturating_sub(on_the_way));
        if timeout <= KEEPALIVE_NONE && matches!(conn.phase, Phase::Open) {
            self.upstreams.retire(now, conn_id, &mut self.outbox);
        }
    }

    /// The upstream answered a query that was sent with so much of EDNS. True: it objected to that, and is
    /// asked once more.
    fn try_plainer(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
        sent: Edns,
        rcode: Rcode,
    ) -> bool {
        if is_objection(rcode) {
            return self.ask_plainer(id, index, sent);
        }
        self.note_tolerance(now, id, index, sent, rcode);
        false
    }

    /// The upstream objected to a query that was sent with so much of EDNS. True: it is asked once more,
    /// with less.
    fn ask_plainer(&mut self, id: Id, index: UpstreamIndex, sent: Edns) -> bool {
        let Some(query) = self.queries.get_mut(id) else {
            return false;
        };
        // What is signed had nothing added, and cannot be changed.
        if query.parsed.signature.is_some() || query.is_trial() || !query.may_be_sent() {
            return false;
        }
        let Some(edns) = tolerance::plainer(sent, query.parsed.opt.is_some()) else {
            return false;
        };
        query.history.plainer = Some((index, edns));
        // Another copy may be answered otherwise.
        if !self.queries.expects_answer(id) {
            self.outbox.counts.asked_plainer += 1;
            self.queries.wait_for(id, index);
        }
        true
    }

    /// The upstream answered a query that was sent with so much of EDNS. Where it, or another, had objected
    /// to more, that may be a lesson.
    fn note_tolerance(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
        sent: Edns,
        rcode: Rcode,
    ) {
        let Some(query) = self.queries.get(id) else {
            return;
        };
        // What is signed has nothing added, and nothing taken out.
        if query.parsed.signature.is_some() {
            return;
        }
        let ecs = self.policy.ecs;
        let is_bare =
            || query.parsed.opt.is_none_or(|opt| edit::is_bare(&query.message, &opt, ecs));
        let upstream = &mut self.upstreams[index];
        if query.edns_at(index) == sent
            && let Some(edns) = tolerance::lesson(sent, rcode, is_bare)
        {
            let question = query.message.get(message::HEADER_LEN..query.parsed.question_end);
            let domain = tolerance::domain_hash(question.unwrap_or_default());
            if upstream.tolerance.learn(now, edns, domain) {
                let fact = Fact::UpstreamObjects { upstream: upstream.name.clone(), edns };
                self.outbox.log(fact);
            }
        }
        if let Some(edns) = tolerance::proof(sent, rcode, query.parsed.opt.is_some()) {
            upstream.tolerance.prove(edns);
        }
    }

    /// An answer came to a query on this connection with this message ID: the upstream works, and this
    /// connection to it.
    fn answered(
        &mut self,
        now: Instant,
        (conn_id, message_id): (UpstreamConnId, u16),
        query: Id,
        index: UpstreamIndex,
    ) {
        if let Some(query) = self.queries.get_mut(query) {
            query.sendings.remove(conn_id);
        }
        let upstream = &mut self.upstreams[index];
        let is_open = upstream.open == Some(conn_id);
        upstream.note_answer(self.limits.queries_max);
        self.answered_late(now, (conn_id, message_id), index);
        // One on a retired connection proves little.
        let outage = self.upstreams[index].outage().filter(|_| is_open);
        if outage.is_some_and(|outage| !outage.proof.is_poor()) {
            self.recover(now, index);
        }
    }

    /// The query has left by another way: the connection is alive, which says little about whether its
    /// upstream answers in time. With nothing usable it is the best there is.
    fn answered_late(
        &mut self,
        now: Instant,
        (conn_id, message_id): (UpstreamConnId, u16),
        index: UpstreamIndex,
    ) {
        self.free(now, conn_id, message_id);
        let is_usable = self.upstreams[index].is_usable();
        if !is_usable && !self.upstreams.is_something_usable() {
            self.recover(now, index);
        }
    }
}

fn malformed(what: &'static str, victim: Option<Id>) -> Loss {
    Loss { what, code: Ede::OTHER, victim }
}

/// RFC 7828 section 3.1.
const KEEPALIVE_UNIT: Duration = Duration::from_millis(100);

/// A connection that must be used again so soon is of no use.
const KEEPALIVE_NONE: Duration = Duration::from_millis(400);

/// For what neither side knows of the way between them.
const KEEPALIVE_MARGIN: Duration = Duration::from_millis(200);

/// A duplicate now and then is harmless; a stream of them is not a DNS server.
const UNMATCHED_MAX: u8 = 64;
