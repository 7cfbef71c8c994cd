//! What upstreams send: which query it answers, and whether it may be believed.

use std::time::Instant;

use super::action::{UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::loss::{LastFailure, Loss};
use super::message::edit::{self, Edns};
use super::message::record::Header;
use super::message::{self, Rcode, ResponseCheck, ResponseInfo, Stripped};
use super::queries::query::Query;
use super::second_opinion::{HELD_LEN_MAX, is_final};
use super::upstreams::in_flight::Found;
use super::upstreams::tolerance::{self, is_objection};
use super::{Ede, Forwarder, Manner, Notice, Outcome};

impl Forwarder {
    pub(super) fn upstream_stream(&mut self, now: Instant, conn_id: UpstreamConnId, bytes: &[u8]) {
        let Some(mut deframer) = self.upstreams.begin_input(now, conn_id) else {
            return;
        };
        let mut input = bytes;
        while let Some(response) = deframer.next(&mut input) {
            if let Err(loss) = self.response(now, conn_id, response) {
                self.lose(now, conn_id, loss);
                return;
            }
        }
        if let Some(change) = self.upstreams.end_input(conn_id, deframer) {
            self.note_arriving(now, conn_id, change);
        }
    }

    /// One response. `Err`: nothing on this connection can be believed any more.
    fn response(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        response: &[u8],
    ) -> Result<(), Loss> {
        let Some(conn) = self.upstreams.conn(conn_id) else {
            return Ok(());
        };
        let Some(message_id) = message::id(response) else {
            return Err(malformed("malformed answer: it has no header", None));
        };
        let upstream = conn.upstream;
        let (query_id, has_left) = match conn.in_flight.find(message_id) {
            Found::Unanswered(id) => (id, false),
            Found::Abandoned(id) => (id, true),
            Found::Unknown => return self.unmatched(conn_id, response),
        };
        let Some(query) = self.queries.get(query_id) else {
            debug_assert!(has_left, "a waiting ID has a query");
            self.answered_late(now, (conn_id, message_id), upstream);
            return Ok(());
        };
        let mut check =
            message::check_response(response, &query.message, query.parsed.question_end);
        match &mut check {
            ResponseCheck::Malformed(what) if !has_left => {
                return Err(malformed(what, Some(query_id)));
            }
            ResponseCheck::Answer(info) => {
                let private = &self.policy.private_answers;
                info.stripped = private.strips(response, info, &query.message, &query.parsed);
            }
            _ => {}
        }
        if has_left {
            self.deliver_late(now, (conn_id, message_id), query_id, response, &check);
            return Ok(());
        }
        let found = self.found(upstream, response, &check, query);
        let is_telling = query.history.plainer.is_some()
            || matches!(found, Ok((.., Worth::OnlyAnRcode)))
            || matches!(found, Ok((_, rcode, _)) if is_objection(rcode))
            || self.upstreams[upstream].experience.tolerance.wants_proof();
        let sent = if is_telling { query.sendings.on(conn_id) } else { None };
        self.answered(now, (conn_id, message_id), query_id, upstream);
        let (outcome, rcode, worth) = match found {
            Ok(found) => found,
            Err(what) => {
                self.fail_useless(now, query_id, upstream, what);
                return Ok(());
            }
        };
        if let ResponseCheck::Answer(info) = &check
            && info.stripped != Stripped::Nothing
        {
            self.note_stripped(now, upstream, info.stripped);
        }
        if let ResponseCheck::Answer(info) = &check
            && let Some(timeout) = info.opt.and_then(|opt| opt.keepalive_timeout(response))
        {
            self.upstreams.note_keepalive(now, conn_id, timeout, &mut self.outbox);
        }
        let plainer = sent.and_then(|sent| self.plainer(now, query_id, upstream, sent.edns, rcode));
        // What else is known of the query matters to a failure only.
        let query = if is_failure(rcode) { self.queries.get(query_id) } else { None };
        let verdict = verdict(Reply::new(query, rcode, plainer, worth));
        self.follow(now, query_id, upstream, verdict, outcome);
        Ok(())
    }

    /// A response came under an ID that nothing was asked with.
    #[cold]
    fn unmatched(&mut self, conn_id: UpstreamConnId, response: &[u8]) -> Result<(), Loss> {
        self.outbox.counts.unmatched += 1;
        if self.upstreams.note_unmatched(conn_id) {
            return Err(malformed("too many answers to nothing asked", None));
        }
        self.ask_again(conn_id, response);
        Ok(())
    }

    /// A response came to a query that has left this connection by another way. Where the query still waits, it has its
    /// answer sooner so; what is no answer says nothing that the other way will not.
    #[cold]
    fn deliver_late(
        &mut self,
        now: Instant,
        (conn_id, message_id): (UpstreamConnId, u16),
        id: Id,
        response: &[u8],
        check: &ResponseCheck,
    ) {
        let Some(upstream) = self.upstreams.conn(conn_id).map(|conn| conn.upstream) else {
            return;
        };
        self.answered_late(now, (conn_id, message_id), upstream);
        let Some(query) = self.queries.get(id) else {
            return;
        };
        if query.is_orphan() {
            self.finish(now, id, Outcome::Orphaned);
        } else if let ResponseCheck::Answer(info) = check
            && matches!(info.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
            && info.stripped == Stripped::Nothing
            && !edit::has_unasked_signature(info, &query.parsed)
        {
            self.upstreams.note_answer(now, upstream);
            self.conclude(now, id, Outcome::Answer { upstream, response, info });
        }
    }

    /// How a response to this query is delivered, its RCODE, and what it is good for. `Err`: for nothing.
    fn found<'a>(
        &self,
        upstream: UpstreamIndex,
        response: &'a [u8],
        check: &'a ResponseCheck,
        query: &Query,
    ) -> Result<(Outcome<'a>, Rcode, Worth), &'static str> {
        match check {
            ResponseCheck::Malformed(what) => Err(what),
            ResponseCheck::Unreadable => Err("malformed answer: its records cannot be read"),
            ResponseCheck::Answer(info) if edit::has_unasked_signature(info, &query.parsed) => {
                Err("a signed answer to a query that is not signed")
            }
            ResponseCheck::Answer(info) => {
                let rcode = info.rcode;
                if info.stripped == Stripped::Everything {
                    let header = Header::read(response);
                    let truncated = header.is_some_and(|it| it.flags & message::TC != 0);
                    let outcome = Outcome::Stripped { upstream, rcode, truncated };
                    return Ok((outcome, rcode, Worth::OnlyAnRcode));
                }
                let needs_opt = edit::needs_opt(info, &query.parsed);
                let may_hold = || self.queries.has_room_to_hold();
                let worth =
                    if needs_opt { Worth::Untellable } else { worth(response, info, may_hold) };
                Ok((Outcome::Answer { upstream, response, info }, rcode, worth))
            }
            &ResponseCheck::ErrorWithoutQuestion(rcode) => {
                Ok((Outcome::Rcode { upstream, rcode }, rcode, Worth::OnlyAnRcode))
            }
        }
    }

    /// A response had private addresses, and its client does not get all of it.
    #[cold]
    fn note_stripped(&mut self, now: Instant, upstream: UpstreamIndex, stripped: Stripped) {
        self.outbox.counts.stripped += 1;
        if stripped == Stripped::Everything && self.logged.stripped.is_due(now) {
            let upstream = self.upstreams[upstream].name.clone();
            self.outbox.log(Notice::AnswerStripped { upstream });
        }
    }

    /// Does with a response what was found to be done; `outcome` is its delivery.
    fn follow(
        &mut self,
        now: Instant,
        id: Id,
        upstream: UpstreamIndex,
        verdict: Verdict,
        outcome: Outcome<'_>,
    ) {
        match verdict {
            Verdict::Await => {}
            Verdict::Deliver => self.conclude(now, id, outcome),
            Verdict::DeliverHeld => self.deliver_held(now, id),
            Verdict::Hold => self.queries.hold(now, id, outcome.to_held()),
            Verdict::RepeatWith(edns) => {
                let is_asked = self.queries.ask_plainer(id, upstream, edns);
                self.outbox.counts.asked_plainer += u64::from(is_asked);
            }
            Verdict::Fail => {
                self.fail_useless(now, id, upstream, "an RCODE that needs EDNS");
            }
            Verdict::AskAnother => match self.second_opinion(now, id, upstream) {
                Some(other) => {
                    self.queries.hold(now, id, outcome.to_held());
                    self.outbox.counts.retried += 1;
                    self.queries.wait_for(id, other);
                }
                None => self.conclude(now, id, outcome),
            },
        }
    }

    /// Ends the query with SERVFAIL, unless the answer to another copy is still to come.
    fn fail_useless(&mut self, now: Instant, id: Id, upstream: UpstreamIndex, what: &'static str) {
        self.queries.note_failure(id, LastFailure::new(upstream, what, Ede::OTHER));
        if !self.queries.expects_answer(id) {
            self.fail_query(now, id);
        }
    }

    /// The upstream answered a query that was sent with so much of EDNS: with how much less it is asked
    /// once more, if it objected to that. Otherwise the answer may be a lesson.
    fn plainer(
        &mut self,
        now: Instant,
        id: Id,
        index: UpstreamIndex,
        sent: Edns,
        rcode: Rcode,
    ) -> Option<Edns> {
        // What is signed has nothing added, and nothing taken out.
        let query = self.queries.get(id).filter(|query| query.parsed.signature.is_none())?;
        let has_opt = query.parsed.opt.is_some();
        if is_objection(rcode) {
            let may_repeat = !query.is_trial() && query.may_be_sent();
            return tolerance::plainer(sent, has_opt).filter(|_| may_repeat);
        }
        // Where it, or another, had objected to more, the answer may be a lesson.
        let ecs = self.policy.ecs;
        let is_bare =
            || query.parsed.opt.is_none_or(|opt| edit::is_bare(&query.message, &opt, ecs));
        let lesson = tolerance::lesson(sent, rcode, is_bare);
        if let Some(edns) = lesson.filter(|_| query.edns_at(index) == sent) {
            let question = query.message.get(message::HEADER_LEN..query.parsed.question_end);
            let domain = tolerance::domain_hash(question.unwrap_or_default());
            self.upstreams.learn_tolerance(now, index, edns, domain, &mut self.outbox);
        }
        if let Some(edns) = tolerance::proof(sent, rcode, has_opt) {
            self.upstreams.prove_tolerance(index, edns);
        }
        None
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
        self.queries.forget_sending(query, conn_id);
        let is_open = self.upstreams[index].open == Some(conn_id);
        self.upstreams.note_answer(now, index);
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
        let each = self.upstreams.end_sending(now, conn_id, message_id, &mut self.outbox);
        if let Some(each) = each
            && let Some(stalled) = self.upstreams.relieve(now, conn_id, each, &mut self.outbox)
        {
            self.queries.note_stalled(conn_id, &stalled.unanswered);
            self.send_elsewhere(now, conn_id, stalled, true);
        }
        if !self.upstreams.is_something_usable() {
            self.recover(now, index);
        }
    }
}

/// What a response says, and what is known of the query that it answers.
#[derive(Clone, Copy, Debug)]
struct Reply {
    rcode: Rcode,
    /// With how much of EDNS the upstream may be asked once more, having objected to more.
    plainer: Option<Edns>,
    worth: Worth,
    /// The query is a copy by which an upstream proves that it works.
    is_trial: bool,
    /// Another copy of the query may be answered.
    expects_answer: bool,
    /// An answer to another copy is held.
    has_held: bool,
}

impl Reply {
    fn new(query: Option<&Query>, rcode: Rcode, plainer: Option<Edns>, worth: Worth) -> Self {
        Self {
            rcode,
            plainer,
            worth,
            is_trial: query.is_some_and(Query::is_trial),
            expects_answer: query.is_some_and(|query| query.sendings.expects_answer()),
            has_held: query.is_some_and(|query| query.held.is_some()),
        }
    }
}

/// What a response is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// The client has no EDNS, without which its RCODE cannot be told.
    Untellable,
    /// A response without the question, or with records that are held back: only its RCODE can be told.
    OnlyAnRcode,
    /// No failure, or one that is too long to be held, or of too many.
    Delivery,
    /// A failure that no other upstream mends, but a copy that is out may have been answered otherwise.
    Holding,
    /// A failure that another upstream may not have.
    SecondOpinion,
}

/// What is done with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The response is the client's answer.
    Deliver,
    /// The response is no better than the one that is held, which is the client's answer.
    DeliverHeld,
    /// The response is held for a copy that is out.
    Hold,
    /// The response is held if another upstream may be asked, or delivered.
    AskAnother,
    /// The upstream is asked once more, with so much of EDNS.
    RepeatWith(Edns),
    /// Nothing: another copy is out, and something is held or there is nothing to hold.
    Await,
    /// The response is of no use to the client.
    Fail,
}

/// What is done with a response.
fn verdict(reply: Reply) -> Verdict {
    if let Some(edns) = reply.plainer {
        return Verdict::RepeatWith(edns);
    }
    if reply.worth == Worth::Untellable {
        return Verdict::Fail;
    }
    if !is_failure(reply.rcode) || reply.is_trial {
        return Verdict::Deliver;
    }
    match (reply.worth, reply.expects_answer, reply.has_held) {
        (_, true, true) | (Worth::OnlyAnRcode, true, false) => Verdict::Await,
        (_, false, true) => Verdict::DeliverHeld,
        (Worth::Holding | Worth::SecondOpinion, true, false) => Verdict::Hold,
        (Worth::SecondOpinion, false, false) => Verdict::AskAnother,
        _ => Verdict::Deliver,
    }
}

/// What an answer is good for; `may_hold` tells whether one more may be held.
fn worth(response: &[u8], info: &ResponseInfo, may_hold: impl FnOnce() -> bool) -> Worth {
    if !is_failure(info.rcode) || response.len() > HELD_LEN_MAX || !may_hold() {
        Worth::Delivery
    } else if is_final(response, info) {
        Worth::Holding
    } else {
        Worth::SecondOpinion
    }
}

/// Whether another upstream may have a better answer.
fn is_failure(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED)
}

fn malformed(what: &'static str, victim: Option<Id>) -> Loss {
    Loss { what, code: Ede::OTHER, victim, manner: Manner::Abort }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_with_a_failure() {
        // What it is good for, whether another copy is out, whether an answer is held.
        let cases = [
            (Worth::SecondOpinion, false, false, Verdict::AskAnother),
            (Worth::Holding, false, false, Verdict::Deliver),
            (Worth::Delivery, false, false, Verdict::Deliver),
            (Worth::OnlyAnRcode, false, false, Verdict::Deliver),
            // The copy that is out may be answered otherwise.
            (Worth::SecondOpinion, true, false, Verdict::Hold),
            (Worth::Holding, true, false, Verdict::Hold),
            (Worth::Delivery, true, false, Verdict::Deliver),
            (Worth::OnlyAnRcode, true, false, Verdict::Await),
            // The first failure is as good as the second.
            (Worth::SecondOpinion, true, true, Verdict::Await),
            (Worth::OnlyAnRcode, true, true, Verdict::Await),
            (Worth::SecondOpinion, false, true, Verdict::DeliverHeld),
            (Worth::Delivery, false, true, Verdict::DeliverHeld),
            (Worth::OnlyAnRcode, false, true, Verdict::DeliverHeld),
        ];
        for (worth, expects_answer, has_held, expected) in cases {
            for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
                let reply = Reply { rcode, worth, expects_answer, has_held, ..answer() };
                assert_eq!(verdict(reply), expected, "{reply:?}");
                // A trial is answered, whatever the answer.
                let trial = Reply { is_trial: true, ..reply };
                assert_eq!(verdict(trial), Verdict::Deliver, "{trial:?}");
            }
            // Any other answer is better than those.
            let other = Reply { worth, expects_answer, has_held, ..answer() };
            assert_eq!(verdict(other), Verdict::Deliver, "{other:?}");
        }
    }

    #[test]
    fn an_objection_comes_before_all_else_and_what_cannot_be_told_is_no_answer() {
        for (rcode, worth) in [
            (Rcode::FORMERR, Worth::OnlyAnRcode),
            (Rcode::NOTIMP, Worth::Delivery),
            (Rcode::SERVFAIL, Worth::SecondOpinion),
        ] {
            let objection = Reply { rcode, worth, plainer: Some(Edns::Absent), ..answer() };
            assert_eq!(verdict(objection), Verdict::RepeatWith(Edns::Absent));
            let untellable = Reply { rcode, worth: Worth::Untellable, ..answer() };
            assert_eq!(verdict(untellable), Verdict::Fail);
        }
    }

    /// An ordinary answer.
    fn answer() -> Reply {
        Reply {
            rcode: Rcode::NOERROR,
            plainer: None,
            worth: Worth::Delivery,
            is_trial: false,
            expects_answer: false,
            has_held: false,
        }
    }
}
