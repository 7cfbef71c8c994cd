//! What upstreams send: which query it answers, and whether it may be believed.

use std::time::Instant;

use super::arena::Id;
use super::in_flight::Found;
use super::loss::Loss;
use super::message::{self, ResponseCheck};
use super::query::{Place, Trouble};
use super::upstream_conn::Phase;
use super::{Conn, ConnId, Ede, Forwarder, Manner, Outcome};

impl Forwarder {
    pub(super) fn upstream_stream(&mut self, now: Instant, conn_id: ConnId, bytes: &[u8]) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return;
        };
        conn.note_received(now);
        let mut deframer = std::mem::take(&mut conn.deframer);
        let mut input = bytes;
        while let Some(response) = deframer.next(&mut input) {
            if let Err(loss) = self.response(now, conn_id, response) {
                self.lose(now, conn_id, loss, Manner::Abort);
                return;
            }
        }
        // A retired connection was closed with its last answer, and what follows that is nobody's.
        if let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) {
            conn.deframer = deframer;
            self.send_bound(now, conn_id);
        }
        self.dispatch(now);
    }

    /// One response. `Err`: nothing on this connection can be believed any more.
    fn response(&mut self, now: Instant, conn_id: ConnId, response: &[u8]) -> Result<(), Loss> {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(conn_id.0) else {
            return Ok(());
        };
        let Some(id) = message::id(response) else {
            return Err(malformed("malformed answer: it has no header", None));
        };
        let place = Place { conn: conn_id, id };
        let query_id = match conn.in_flight.find(id) {
            Found::Waiting(id) => id,
            Found::Abandoned => {
                // Late, but an answer.
                self.answered(now, place);
                return Ok(());
            }
            Found::Unknown => {
                self.counts.unmatched += 1;
                conn.unmatched += 1;
                if conn.unmatched >= UNMATCHED_MAX {
                    return Err(malformed("too many answers to nothing asked", None));
                }
                return Ok(());
            }
        };
        let Some(query) = self.queries.get(query_id) else {
            debug_assert!(false, "a waiting ID has a query");
            self.free(now, place);
            return Ok(());
        };
        let upstream = conn.upstream;
        match message::check_response(response, &query.message, query.parsed.question_end) {
            ResponseCheck::Malformed(what) => {
                return Err(malformed(what, Some(query_id)));
            }
            ResponseCheck::Answer(info) => {
                self.forget_place(place, query_id);
                self.answered(now, place);
                if !self.keep(now, query_id, upstream, response, &info) {
                    self.finish(now, query_id, Outcome::Answer { upstream, response, info });
                }
            }
            ResponseCheck::ErrorWithoutQuestion(rcode) => {
                self.forget_place(place, query_id);
                self.answered(now, place);
                if self.has_better(now, query_id, rcode) {
                    return Ok(());
                }
                self.finish(now, query_id, Outcome::Rcode { upstream, rcode });
            }
            ResponseCheck::Unreadable => {
                self.forget_place(place, query_id);
                self.answered(now, place);
                if let Some(query) = self.queries.get_mut(query_id) {
                    query.trouble = Some(Trouble {
                        upstream,
                        what: "malformed answer: its records cannot be read",
                        code: Ede::OTHER,
                    });
                }
                self.fail_query(now, query_id);
            }
        }
        Ok(())
    }

    fn forget_place(&mut self, place: Place, query: Id) {
        if let Some(query) = self.queries.get_mut(query) {
            query.remove_place(place.conn);
        }
    }

    /// The upstream works, and this connection to it.
    fn answered(&mut self, now: Instant, place: Place) {
        let Some(Conn::Upstream(conn)) = self.conns.get_mut(place.conn.0) else {
            return;
        };
        conn.answers += 1;
        conn.unmatched = 0;
        let is_open = matches!(conn.phase, Phase::Open);
        let index = conn.upstream;
        self.upstreams[index].note_answer(self.limits.queries_max);
        self.free(now, place);
        // A late answer on a retired connection proves little, but with nothing usable it is the best.
        if !self.upstreams[index].is_usable() && (is_open || !self.is_something_usable()) {
            self.recover(now, index);
        }
    }
}

fn malformed(what: &'static str, victim: Option<Id>) -> Loss {
    Loss { what, code: Ede::OTHER, victim }
}

/// A duplicate now and then is harmless; a stream of them is not a DNS server.
const UNMATCHED_MAX: u8 = 64;
