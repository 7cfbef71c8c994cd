//! What upstreams send: which query it answers, and whether it may be believed.

use std::time::{Duration, Instant};

use super::action::{UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::failure::Loss;
use super::message::edit::{self, Edns};
use super::message::{self, Rcode, ResponseCheck, ResponseInfo};
use super::queries::query::{Place, Query, Trouble};
use super::upstreams::LARGE;
use super::upstreams::connection::Phase;
use super::upstreams::in_flight::Found;
use super::upstreams::tolerance::{self, is_objection};
use super::{Ede, Fact, Forwarder, Manner, Outcome};

impl Forwarder {
    pub(super) fn upstream_stream(&mut self, now: Instant, conn_id: UpstreamConnId, bytes: &[u8]) {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
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
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id) {
            let is_large = deframer.partial_len() > LARGE;
            conn.deframer = deframer;
            if conn.arriving.is_some() {
                self.note_arriving(now, conn_id);
            }
            if is_large {
                self.shed_upstream_bytes(now, conn_id);
            }
        }
        self.dispatch(now);
    }

    /// Octets came of the answer that was on its way when the connection stalled. They may say that it
    /// is another than was thought: then the query is sent again like all others.
    fn note_arriving(&mut self, now: Instant, conn_id: UpstreamConnId) {
        if let Some(conn) = self.upstreams.conns.get_mut(conn_id)
            && let Some((id, ..)) = conn.deframer.begun()
            && let Some(other) = conn.arriving.replace(id).filter(|other| *other != id)
            && let Found::Waiting(query) = conn.in_flight.find(other)
        {
            self.requeue(now, vec![query]);
        }
    }

    /// One response. `Err`: nothing on this connection can be believed any more.
    fn response(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        response: &[u8],
    ) -> Result<(), Loss> {
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return Ok(());
        };
        let Some(id) = message::id(response) else {
            return Err(malformed("malformed answer: it has no header", None));
        };
        let place = Place { conn: conn_id, id };
        let query_id = match conn.in_flight.find(id) {
            Found::Waiting(id) => id,
            Found::Abandoned(id) => {
                let upstream = conn.upstream;
                self.answered_late(now, place, upstream);
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
            self.free(now, place.conn, place.id);
            return Ok(());
        };
        let upstream = conn.upstream;
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
                    || query.plainer.is_some()
                    || self.upstreams.list[upstream].tolerance.wants_proof();
                let sent = is_telling.then(|| query.edns_on(conn_id));
                self.forget_place(place, query_id);
                self.answered(now, place, upstream);
                self.note_keepalive(now, conn_id, response, info);
                if let Some(sent) = sent
                    && self.try_plainer(now, query_id, upstream, sent, info.rcode)
                {
                    return Ok(());
                }
                if needs_opt {
                    self.fail_useless(now, query_id, upstream, "an RCODE that needs EDNS");
                } else if !self.keep(now, query_id, upstream, response, info) {
                    self.finish(now, query_id, Outcome::Answer { upstream, response, info });
                }
            }
            &ResponseCheck::ErrorWithoutQuestion(rcode) => {
                let sent = query.edns_on(conn_id);
                self.forget_place(place, query_id);
                self.answered(now, place, upstream);
                if self.try_plainer(now, query_id, upstream, sent, rcode)
                    || self.has_better(now, query_id, rcode)
                {
                    return Ok(());
                }
                self.finish(now, query_id, Outcome::Rcode { upstream, rcode });
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
        place: Place,
        upstream: UpstreamIndex,
        id: Id,
        what: &'static str,
    ) {
        self.forget_place(place, id);
        self.answered(now, place, upstream);
        self.fail_useless(now, id, upstream, what);
    }

    /// Ends the query with SERVFAIL, unless the answer to another copy is still to come.
    fn fail_useless(&mut self, now: Instant, id: Id, upstream: UpstreamIndex, what: &'static str) {
        if let Some(query) = self.queries.get_mut(id) {
            query.trouble = Some(Trouble { upstream, what, code: Ede::OTHER, broke_number: 0 });
        }
        if !self.is_out(id) {
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
        let Some(conn) = self.upstreams.conns.get_mut(conn_id) else {
            return;
        };
        let timeout = u32::from(timeout) * KEEPALIVE_UNIT;
        // It counts at the server, from when it sent the answer to when the next query is there.
        let round_trip =
            self.upstreams.list[conn.upstream].round_trip.smoothed().unwrap_or_default();
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
            return self.ask_plainer(now, id, index, sent);
        }
        self.note_tolerance(now, id, index, sent, rcode);
        false
    }

    /// The upstream objected to a query that was sent with so much of EDNS. True: it is asked once more,
    /// with less.
    fn ask_plainer(&mut self, now: Instant, id: Id, index: UpstreamIndex, sent: Edns) -> bool {
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
        query.plainer = Some((index, edns));
        // Another copy may be answered otherwise.
        if !self.is_out(id) {
            self.outbox.counts.asked_plainer += 1;
            self.bind(now, id, index);
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
        let upstream = &mut self.upstreams.list[index];
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

    fn forget_place(&mut self, place: Place, query: Id) {
        if let Some(query) = self.queries.get_mut(query) {
            query.remove_place(place.conn);
        }
    }

    /// The upstream works, and this connection to it.
    fn answered(&mut self, now: Instant, place: Place, index: UpstreamIndex) {
        let upstream = &mut self.upstreams.list[index];
        let is_open = upstream.open == Some(place.conn);
        upstream.note_answer(self.limits.queries_max);
        self.answered_late(now, place, index);
        // One on a retired connection proves little.
        let outage = self.upstreams.list[index].outage().filter(|_| is_open);
        if outage.is_some_and(|outage| !outage.proof.is_poor()) {
            self.recover(now, index);
        }
    }

    /// The query has left by another way: the connection is alive, which says little about whether its
    /// upstream answers in time. With nothing usable it is the best there is.
    fn answered_late(&mut self, now: Instant, place: Place, index: UpstreamIndex) {
        self.free(now, place.conn, place.id);
        if !self.upstreams.list[index].is_usable() && !self.upstreams.is_something_usable() {
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
