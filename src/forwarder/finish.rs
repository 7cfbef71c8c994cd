//! A query's way out.

use std::time::{Duration, Instant};

use super::accept::SPECIAL_NAME;
use super::action::{ClientId, UpstreamIndex};
use super::clients::eviction::GivenUp;
use super::collections::arena::Id;
use super::limits::Service;
use super::loss::{LastFailure, NO_ANSWER_IN_TIME};
use super::measures::{Answered, Reason};
use super::message::edit::{self, Ecs, RcodeNeedsOpt, ResponseEdit};
use super::message::frame;
use super::message::private;
use super::message::special::Answer;
use super::message::{self, LOCAL_LEN_MAX, LocalResponse, Rcode, ResponseInfo};
use super::network::Network;
use super::queries::query::{HeldAnswer, Origin, Query};
use super::query_log::Sent;
use super::{DatagramPath, Ede, Forwarder, Manner, Notice, Outbox, Part, ResponseSize, Source};

/// How a query leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'a> {
    /// With an upstream's response.
    Answer { upstream: UpstreamIndex, response: &'a [u8], info: &'a ResponseInfo },
    /// With SERVFAIL made here.
    Failed(Ede<'a>, Reason),
    /// Without a response: its client is gone, or it had none.
    Orphaned,
    /// With TC, so that its client asks again over TCP, where nobody can ask in the name of another; and why.
    Truncated(&'static str),
    /// With what there is to say of a special name.
    Special(&'a Answer),
    /// With a response made here of an upstream's RCODE, which is all it said.
    Rcode { upstream: UpstreamIndex, rcode: Rcode },
    /// With a response made here of an upstream's RCODE and TC, as its records have private addresses.
    Stripped { upstream: UpstreamIndex, rcode: Rcode, truncated: bool },
}

impl Outcome<'_> {
    /// The answer, to be held while a better one may come.
    pub(super) fn to_held(self) -> Option<HeldAnswer> {
        let Self::Answer { upstream, response, info } = self else {
            return None;
        };
        Some(HeldAnswer { upstream, response: response.to_vec(), info: *info })
    }

    /// The upstream that answered.
    fn upstream(&self) -> Option<UpstreamIndex> {
        match self {
            Self::Answer { upstream, .. }
            | Self::Rcode { upstream, .. }
            | Self::Stripped { upstream, .. } => Some(*upstream),
            Self::Failed(..) | Self::Orphaned | Self::Truncated(_) | Self::Special(_) => None,
        }
    }
}

impl Forwarder {
    /// Ends the query with a response, for which other clients make room, or with a failure if it is a
    /// long one that its client has no room for.
    pub(super) fn conclude(&mut self, now: Instant, id: Id, mut outcome: Outcome<'_>) {
        if let Some(query) = self.queries.get(id)
            && let Origin::Stream { client, .. } = query.origin
        {
            while self.clients.is_connected(client) {
                let len_max = response_len_max(&outcome, frame::FRAME_LEN_MAX);
                // The failure of a short one would save next to nothing.
                let is_long = len_max > LOCAL_LEN_MAX;
                let may_fail = is_long && matches!(outcome, Outcome::Answer { .. });
                let reader = may_fail.then_some(client);
                let coming = frame::LENGTH_LEN + len_max;
                match self.clients.above_limit(now, coming, reader) {
                    None => break,
                    Some(GivenUp::Client(client)) => {
                        self.outbox.counts.shed += 1;
                        self.close_client(now, client, Manner::Abort);
                    }
                    Some(GivenUp::Answer) => {
                        let ede = Ede { code: Ede::OTHER, text: UNREAD };
                        outcome = Outcome::Failed(ede, Reason::Full);
                    }
                }
            }
        }
        self.finish(now, id, outcome);
    }

    /// The one exit: every accepted query leaves through here, once.
    pub(super) fn finish(&mut self, now: Instant, id: Id, outcome: Outcome<'_>) {
        let Some(query) = self.queries.remove(id) else {
            return;
        };
        self.entered.enter(Part::Finish);
        if query.is_sent() {
            self.leave_sendings(now, &query, outcome.upstream());
        }
        if query.history.hedged {
            self.count_hedge(&query, &outcome);
        }
        let ecs = self.policy.ecs;
        match query.origin {
            Origin::Datagram { path, responses, .. } => {
                let size =
                    ResponseSize::by_datagram(&path, query.parsed.opt, self.limits.udp_size_max);
                let is_late = now > query.arrived + PROMPT;
                let bucket = if is_late { self.late_bucket(path, &outcome) } else { None };
                if let Some(bucket) = bucket {
                    self.respond_late(now, bucket, &query, (path, responses), &outcome, size);
                } else {
                    for _ in 0..responses {
                        let len_max = response_len_max(&outcome, size.limit);
                        let mut sent = Sent::default();
                        if !matches!(outcome, Outcome::Orphaned) {
                            self.outbox.respond(path, len_max, |out| {
                                sent = write_response(out, &query, &outcome, size, ecs, None);
                            });
                        }
                        self.note(now, Source::Datagram(path), &query, &outcome, sent);
                    }
                }
            }
            Origin::Stream { client, index } => {
                let keepalive = self.clients.keepalive(query.parsed.opt, &query.message);
                let len_max = response_len_max(&outcome, frame::FRAME_LEN_MAX);
                let mut sent = Sent::default();
                if !matches!(outcome, Outcome::Orphaned) {
                    let write = |out: &mut Vec<u8>, size| {
                        sent = write_response(out, &query, &outcome, size, ecs, keepalive);
                    };
                    self.clients.respond(now, client, len_max, &mut self.outbox, write);
                }
                self.note(now, Source::Stream(client), &query, &outcome, sent);
                if let Some(moved) =
                    self.clients.no_longer_owe(now, client, index, &mut self.outbox)
                {
                    self.queries.note_owed(moved, client, index);
                }
            }
            Origin::Orphan => {}
            Origin::Denial { zone } => self.denials.note(now, zone, &outcome),
            Origin::Trial { upstream, .. } => {
                let is_answered = outcome.upstream().is_some();
                if self.upstreams.end_trial(now, upstream, id, is_answered, &mut self.outbox) {
                    self.queries.end_later();
                }
            }
        }
        self.queries.release(query.message);
        self.entered.leave(Part::Finish);
    }

    /// The bucket of a client whose late responses, if there are any, are spread over time: of one of another host.
    #[cold]
    fn late_bucket(&self, path: DatagramPath, outcome: &Outcome<'_>) -> Option<usize> {
        let bucket = self.queries.bucket_of_datagrams(Network::of(path.client));
        bucket.remote().filter(|_| !matches!(outcome, Outcome::Orphaned))
    }

    /// Responds by datagram to a query that is late, so many times, each as soon as its network may get it. Where too
    /// much waits, TC is all that is said, and then nothing.
    #[cold]
    fn respond_late(
        &mut self,
        now: Instant,
        bucket: usize,
        query: &Query,
        (path, responses): (DatagramPath, u8),
        outcome: &Outcome<'_>,
        size: ResponseSize,
    ) {
        let ecs = self.policy.ecs;
        let write = |outcome: &Outcome<'_>| {
            let mut message = Vec::with_capacity(response_len_max(outcome, size.limit));
            let sent = write_response(&mut message, query, outcome, size, ecs, None);
            (message, sent)
        };
        let (message, sent) = write(outcome);
        let late_answers = &mut self.outbox.late_answers;
        let at_once = (0..responses).take_while(|_| late_answers.take(now, bucket)).count() as u8;
        for _ in 0..at_once {
            self.outbox.respond(path, message.len(), |out| out.extend_from_slice(&message));
            self.note(now, Source::Datagram(path), query, outcome, sent);
        }
        let waiting = responses - at_once;
        if waiting == 0 {
            return;
        }
        let late_answers = &mut self.outbox.late_answers;
        let mut dropped = 0;
        let is_whole = late_answers.has_room(bucket, message.len(), &mut dropped);
        let cut = Outcome::Truncated("too many late answers");
        let outcome = if is_whole { outcome } else { &cut };
        let (message, sent) = if is_whole { (message, sent) } else { write(outcome) };
        if is_whole || late_answers.has_room_for_short(bucket, message.len(), &mut dropped) {
            late_answers.push(now, bucket, path, message.into_boxed_slice(), waiting);
        } else {
            dropped += u64::from(waiting);
        }
        self.outbox.counts.datagrams_dropped += dropped;
        for _ in 0..waiting {
            self.note(now, Source::Datagram(path), query, outcome, sent);
        }
    }

    /// Gives up the message IDs that a query still has when it ends.
    #[cold]
    fn leave_sendings(&mut self, now: Instant, query: &Query, answered_by: Option<UpstreamIndex>) {
        // Another has not answered although there is an answer, or nobody has. Only where it was sent first: what
        // others leave unanswered is no fair sample.
        let says_something = answered_by.is_some() || now >= self.queries.expires_at(query);
        if says_something
            && !query.is_trial()
            && let Some(first) = query.history.first.filter(|(it, _)| answered_by != Some(*it))
        {
            let sendings = query.sendings.iter().map(|sending| (sending.conn, sending.id));
            let name = || query.name_hash();
            self.upstreams.note_overdue(now, first, sendings, name, answered_by.is_some());
        }
        for sending in query.sendings.iter() {
            if let Some(index) = answered_by {
                self.upstreams.note_answered_elsewhere(now, sending.conn, index);
            }
            self.upstreams.abandon(now, sending.conn, sending.id, &mut self.outbox);
        }
    }

    /// Counts a copy that was answered before what was sent first.
    #[cold]
    fn count_hedge(&mut self, query: &Query, outcome: &Outcome<'_>) {
        let first = query.history.first;
        if outcome.upstream().is_some_and(|by| first.is_some_and(|(first, _)| first != by)) {
            self.outbox.measures.hedges_won += 1;
        }
    }

    /// Counts a query that left.
    #[inline]
    fn count(&mut self, now: Instant, source: Source, query: &Query, outcome: &Outcome<'_>) {
        let Outbox { counts, measures, .. } = &mut self.outbox;
        counts.owed -= 1;
        if let Outcome::Answer { info, .. } = outcome {
            counts.answered += 1;
            if measures.is_on() {
                let over_tcp = matches!(source, Source::Stream(_));
                measures.note(over_tcp, query.parsed.qtype, Answered::Upstream, info.rcode);
                measures.note_time(now.saturating_duration_since(query.arrived));
            }
        } else {
            self.count_unanswered(now, source, query, outcome);
        }
    }

    /// Counts a query that left without an upstream's response.
    #[cold]
    fn count_unanswered(
        &mut self,
        now: Instant,
        source: Source,
        query: &Query,
        outcome: &Outcome<'_>,
    ) {
        let Outbox { counts, measures, .. } = &mut self.outbox;
        let (count, how, rcode) = match outcome {
            Outcome::Orphaned => (&mut counts.orphaned, Answered::Gone, Rcode::NOERROR),
            Outcome::Answer { .. } => return,
            Outcome::Truncated(_) => (&mut counts.cut_short, Answered::CutShort, Rcode::NOERROR),
            Outcome::Failed(_, reason) => {
                measures.note_failure(*reason);
                (&mut counts.failed, Answered::Failed, Rcode::SERVFAIL)
            }
            Outcome::Rcode { rcode: Rcode::SERVFAIL, .. }
            | Outcome::Stripped { rcode: Rcode::SERVFAIL, .. } => {
                measures.note_failure(Reason::Upstream);
                (&mut counts.failed, Answered::Failed, Rcode::SERVFAIL)
            }
            Outcome::Rcode { rcode, .. } | Outcome::Stripped { rcode, .. } => {
                (&mut counts.local, Answered::Here, *rcode)
            }
            Outcome::Special(answer) => (&mut counts.local, Answered::Here, answer.rcode()),
        };
        *count += 1;
        measures.note(matches!(source, Source::Stream(_)), query.parsed.qtype, how, rcode);
        if how != Answered::Gone {
            measures.note_time(now.saturating_duration_since(query.arrived));
        }
    }

    /// Counts and logs a query that left.
    fn note(
        &mut self,
        now: Instant,
        source: Source,
        query: &Query,
        outcome: &Outcome<'_>,
        sent: Sent,
    ) {
        self.count(now, source, query, outcome);
        let question_end = query.parsed.question_end;
        let asked = source.asked(&self.clients, &self.outbox, &query.message, question_end);
        let Some(asked) = asked else {
            return;
        };
        let took = now.saturating_duration_since(query.arrived);
        let log = &mut self.outbox.query_log;
        match outcome {
            Outcome::Orphaned => {}
            Outcome::Answer { upstream, info, .. } => {
                log.success(asked, info.rcode, sent, took, &self.upstreams[*upstream].name);
            }
            Outcome::Failed(ede, _) => log.failure(asked, took, ede.text),
            Outcome::Rcode { rcode: Rcode::SERVFAIL, upstream } => {
                let name = &self.upstreams[*upstream].name;
                log.failure(asked, took, &format!("{name}: SERVFAIL without a question"));
            }
            Outcome::Stripped { rcode, upstream, .. } => {
                let name = &self.upstreams[*upstream].name;
                if *rcode == Rcode::SERVFAIL {
                    log.failure(asked, took, &format!("{name}: SERVFAIL with a private address"));
                } else {
                    log.instead(asked, *rcode, sent.truncated, "private address", name);
                }
            }
            Outcome::Rcode { rcode, upstream } => {
                let name = &self.upstreams[*upstream].name;
                log.instead(asked, *rcode, sent.truncated, "no question in the answer", name);
            }
            Outcome::Special(answer) => {
                log.local(asked, answer.rcode(), sent.truncated, SPECIAL_NAME);
            }
            Outcome::Truncated(why) => log.local(asked, Rcode::NOERROR, sent.truncated, why),
        }
    }

    /// Too many queries that came by datagram from the network of this one wait for long.
    pub(super) fn cut_short(&mut self, now: Instant, id: Id) {
        if let Some(query) = self.queries.get(id)
            && let Origin::Datagram { path, .. } = query.origin
            && self.logged.wait_limit.is_due(now)
        {
            let network = Network::of(path.client).to_string().into();
            let limit = self.limits.late_datagrams_max;
            self.outbox.log(Notice::WaitLimit { network, limit });
        }
        self.finish(now, id, Outcome::Truncated("--wait-limit"));
    }

    /// Closes clients until all hold no more than they may with `coming` octets more.
    pub(super) fn shed_clients(&mut self, now: Instant, coming: usize) {
        while let Some(GivenUp::Client(client)) = self.clients.above_limit(now, coming, None) {
            self.outbox.counts.shed += 1;
            self.close_client(now, client, Manner::Abort);
        }
    }

    /// Closes a client. What it was owed ends without a response.
    pub(super) fn close_client(&mut self, now: Instant, client: ClientId, manner: Manner) {
        let owed = self.clients.close(client, manner, &mut self.outbox);
        self.orphan(now, owed);
    }

    /// The client of these queries is gone, without their responses.
    pub(super) fn orphan(&mut self, now: Instant, owed: Vec<Id>) {
        for id in owed {
            let is_ending = self.service == Service::Ending;
            let qtype = self.queries.get(id).map(|query| query.parsed.qtype);
            let Some(sendings) = (!is_ending).then(|| self.queries.orphan(id)).flatten() else {
                self.finish(now, id, Outcome::Orphaned);
                continue;
            };
            self.outbox.counts.owed -= 1;
            self.outbox.counts.orphaned += 1;
            if let Some(qtype) = qtype {
                self.outbox.measures.note(true, qtype, Answered::Gone, Rcode::NOERROR);
            }
            for sending in sendings.iter() {
                self.upstreams.abandon(now, sending.conn, sending.id, &mut self.outbox);
            }
        }
    }

    /// The query's time is over.
    pub(super) fn expire(&mut self, now: Instant, id: Id) {
        if let Some(query) = self.queries.get(id)
            && let Some(sending) = query.sendings.oldest()
            && let Some(conn) = self.upstreams.conn(sending.conn)
        {
            let failure = LastFailure::new(conn.upstream, NO_ANSWER_IN_TIME, Ede::NETWORK_ERROR);
            self.queries.note_failure(id, failure);
        }
        self.fail_query(now, id);
    }

    /// Ends the query with SERVFAIL, saying what went wrong.
    pub(super) fn fail_query(&mut self, now: Instant, id: Id) {
        let Some(query) = self.queries.get(id) else {
            return;
        };
        if query.held.is_some() {
            self.deliver_held(now, id);
            return;
        }
        let failure = query.history.last_failure;
        let (reason, code, text) = self.upstreams.explain(failure, query.is_sent());
        self.fail(now, id, Ede { code, text: &text }, reason);
    }

    /// Ends the query with SERVFAIL, or with what there is to say here of a special name.
    pub(super) fn fail(&mut self, now: Instant, id: Id, ede: Ede<'_>, reason: Reason) {
        let special = self.queries.get(id).filter(|query| query.is_special);
        let ours = special
            .and_then(|query| self.policy.special_names.answer(&query.message, &query.parsed));
        let outcome = ours.as_ref().map_or(Outcome::Failed(ede, reason), Outcome::Special);
        self.conclude(now, id, outcome);
    }

    /// At the end, with every client answered and none that may still ask, nobody is asked any more. Queries
    /// that are left are nobody's: proofs that would be kept for later, and queries whose clients are gone.
    pub(super) fn close_upstreams_if_done(&mut self, now: Instant) {
        let Service::Ending = self.service else {
            return;
        };
        if self.outbox.counts.owed > 0 || self.clients.may_ask() {
            return;
        }
        for id in self.queries.ids() {
            self.finish(now, id, Outcome::Orphaned);
        }
        self.upstreams.close_all("the program is ending", &mut self.outbox);
    }
}

/// Responses that take no longer than this leave at once, however many there are: so that most of what an upstream
/// has at hand or can resolve does.
const PROMPT: Duration = Duration::from_millis(400);

const UNREAD: &str = "too many answers wait to be read";

/// Octets of a response at most.
fn response_len_max(outcome: &Outcome<'_>, limit: usize) -> usize {
    match outcome {
        Outcome::Answer { response, .. } => {
            // Or what is said instead of it.
            (response.len().min(limit) + edit::RESPONSE_GROWTH_MAX).max(LOCAL_LEN_MAX)
        }
        Outcome::Special(answer) => answer.len() + LOCAL_LEN_MAX,
        Outcome::Failed(..)
        | Outcome::Orphaned
        | Outcome::Truncated(_)
        | Outcome::Rcode { .. }
        | Outcome::Stripped { .. } => LOCAL_LEN_MAX,
    }
}

/// Appends the response; tells what the query log has to say of it.
fn write_response(
    out: &mut Vec<u8>,
    query: &Query,
    outcome: &Outcome<'_>,
    size: ResponseSize,
    ecs: Ecs,
    keepalive: Option<u16>,
) -> Sent {
    let ResponseSize { limit, udp_size } = size;
    let parsed = &query.parsed;
    let start = out.len();
    let local = match outcome {
        Outcome::Answer { response, info, .. } => {
            let edit = ResponseEdit { limit, udp_size, keepalive, ecs };
            match edit::append_response(out, response, info, &query.message, parsed, edit) {
                Ok(()) => return Sent::of(&out[start..]),
                Err(RcodeNeedsOpt) => parsed.local_response(Rcode::SERVFAIL, None),
            }
        }
        Outcome::Failed(ede, _) => parsed.local_response(Rcode::SERVFAIL, Some(*ede)),
        Outcome::Rcode { rcode, .. } => parsed.local_response(*rcode, None),
        Outcome::Stripped { rcode, truncated, .. } => {
            private::without_records(parsed, *rcode, *truncated)
        }
        Outcome::Special(answer) => answer.response(parsed),
        Outcome::Truncated(_) => {
            LocalResponse { truncated: true, ..parsed.local_response(Rcode::NOERROR, None) }
        }
        Outcome::Orphaned => return Sent::default(),
    };
    let local = LocalResponse { keepalive, ..local };
    message::local_response(out, &query.message, &local, udp_size, limit);
    message::set_id(&mut out[start..], parsed.id);
    Sent::of(&out[start..])
}
