//! Upstreams that fail and come back.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::blame::{Blame, blame};
use super::promptness::{ANSWERS_WANTED, LAST, LATE_MIN};
use super::upstream::{AnsweredBy, Health, Outage, Proof, Upstream};
use crate::forwarder::action::{Stage, UpstreamIndex, UpstreamSet};
use crate::forwarder::collections::arena::Id;
use crate::forwarder::loss::{LastFailure, Lost, Met};
use crate::forwarder::measures::Reason;
use crate::forwarder::message::opt::Ede;
use crate::forwarder::outbox::Outbox;
use crate::forwarder::report::Notice;

impl Upstreams {
    /// The upstream failed. Returns the copy that it was to answer, if there is one.
    pub(crate) fn fail(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        cause: Cause,
        outbox: &mut Outbox,
    ) -> Option<Id> {
        let Upstream { experience, conns, .. } = &mut self.list[index];
        let answered_by = match cause {
            Cause::Impostor(..) => AnsweredBy::Impostor,
            Cause::At(..) | Cause::Poor => AnsweredBy::Upstream,
        };
        let (at, pause, proof) = match cause {
            Cause::At(stage, detail) | Cause::Impostor(stage, detail) => {
                experience.start_slowly(u64::MAX);
                let proof = if stage == Stage::Read { Proof::Answer } else { Proof::Handshake };
                let at = At { stage, detail, answered_by };
                (at, experience.next_backoff(stage, &mut self.random), proof)
            }
            Cause::Poor => {
                let detail = format!(
                    "{LATE_MIN} of its last {LAST} queries had no answer in time, each for another \
                     name; other upstreams are asked until it has answered {ANSWERS_WANTED} copies in \
                     a row"
                );
                // What is overdue goes to another now.
                for conn in conns {
                    if let Some(conn) = self.conns.get_mut(*conn) {
                        conn.sent.look_again();
                    }
                }
                let proof = Proof::Answers { missing: ANSWERS_WANTED };
                let at = At { stage: Stage::Read, detail: detail.into(), answered_by };
                (at, experience.promptness.next_pause(now), proof)
            }
        };
        self.fail_until(now, index, at, now + pause, proof, outbox)
    }

    /// Whether too many of the last queries had no answer in time, and another upstream is usable.
    pub(crate) fn is_poor(&mut self, index: UpstreamIndex) -> bool {
        let upstream = &mut self.list[index];
        let is_poor = upstream.experience.promptness.take_poor() && upstream.is_usable();
        is_poor && self.another(index, UpstreamSet::EMPTY).is_some()
    }

    fn fail_until(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        At { stage, detail, answered_by }: At,
        retry_at: Instant,
        proof: Proof,
        outbox: &mut Outbox,
    ) -> Option<Id> {
        let upstream = &mut self.list[index];
        let trial = match &mut upstream.health {
            Health::Usable => {
                upstream.health = Health::Failed(Outage {
                    logged: false,
                    since: now,
                    attempts: 1,
                    is_long: false,
                    logged_lasting: false,
                    stage,
                    detail,
                    answered_by,
                    retry_at,
                    proof,
                    trial: None,
                });
                None
            }
            Health::Failed(outage) => {
                outage.attempts += 1;
                outage.is_long |= now >= outage.since + LONG_OUTAGE;
                outage.stage = stage;
                outage.detail = detail;
                outage.answered_by = answered_by;
                outage.retry_at = retry_at;
                outage.proof = outage.proof.max(proof);
                outage.trial.take()
            }
        };
        self.log_failed(now, index, outbox);
        trial
    }

    /// A line for an upstream that failed once more, unless the log has it or had one lately: one that fails and
    /// returns all the time is told of now and then, and one that then stays down when its pause is over.
    fn log_failed(&mut self, now: Instant, index: UpstreamIndex, outbox: &mut Outbox) {
        let Upstream { name, health: Health::Failed(outage), logged_at, .. } =
            &mut self.list[index]
        else {
            return;
        };
        let is_due = !outage.logged && logged_at.is_none_or(|at| now >= at + LOGGED_PAUSE);
        // Behind a refused connection, say, a certificate that is wrong.
        let is_lasting = outage.stage.is_lasting();
        let is_behind = outage.attempts > 1 && is_lasting && !outage.logged_lasting;
        if !is_due && !is_behind {
            return;
        }
        outage.logged = true;
        outage.logged_lasting |= is_lasting;
        *logged_at = Some(now);
        let (upstream, stage, answered_by) = (name.clone(), outage.stage, outage.answered_by);
        let mut detail = outage.detail.to_string();
        detail.push_str(self.hint(stage, answered_by));
        outbox.log(Notice::UpstreamFailed { upstream, stage, detail: detail.into() });
    }

    /// Finds who is to blame for a lost connection. Returns the query that fails alone, if one does, and why
    /// the upstream failed, if it did.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        lost: &Lost,
        met: Met,
    ) -> (Option<Id>, Option<Box<str>>) {
        let index = lost.failure.upstream;
        let (culprit, has_failed) = match blame(lost, met) {
            Blame::Nobody => (None, false),
            Blame::Upstream => (None, true),
            Blame::Unclear => (None, self.note_blame(now, index)),
            Blame::Query(query) => {
                // What it brought down says nothing about its server, unless all it does is to bring queries down.
                self.list[index].experience.losses_in_a_row = 0;
                (Some(query), self.note_blame(now, index) && lost.was_open)
            }
        };
        let explain =
            || self.list[index].explain(lost.failure.what, lost.failure.broke_number).into();
        (culprit, has_failed.then(explain))
    }

    /// Why a query fails that last failed so, if it did: as it is counted, the code of the Extended DNS Error,
    /// and words.
    pub(crate) fn explain(
        &self,
        failure: Option<LastFailure>,
        is_sent: bool,
    ) -> (Reason, u16, String) {
        // With nothing usable, the first upstream in order speaks for all.
        match (failure, self.outage()) {
            (Some(failure), outage) if is_sent || outage.is_none() => {
                let upstream = &self.list[failure.upstream];
                let why = upstream.explain(failure.what, failure.broke_number);
                (failure.reason(), failure.code, format!("{}: {why}", upstream.name))
            }
            (_, Some((name, outage, _))) => {
                let code = match outage.stage {
                    Stage::Connect | Stage::Negotiation | Stage::Tls => Ede::NO_REACHABLE_AUTHORITY,
                    Stage::Certificate => Ede::OTHER,
                    Stage::Read | Stage::Write => Ede::NETWORK_ERROR,
                };
                let Outage { stage, detail, answered_by, .. } = outage;
                let (heading, hint) = self.words(*stage, *answered_by);
                let words = format!("{heading}{name}: {stage}: {detail}{hint}");
                (Reason::Stage(outage.stage), code, words)
            }
            (_, None) => (Reason::Waiting, Ede::NO_REACHABLE_AUTHORITY, self.explain_waiting()),
        }
    }

    /// Why a query was never sent, although nothing failed yet.
    fn explain_waiting(&self) -> String {
        match self.list.iter().find(|upstream| upstream.is_usable()) {
            Some(Upstream { name, open: Some(_), .. }) => {
                format!("{name}: takes no more queries at the moment")
            }
            Some(upstream) => match self.handshake_advice(upstream) {
                Some(advice) => {
                    format!("{}: TLS handshake not finished in time{advice}", upstream.name)
                }
                None => format!("{}: not connected in time", upstream.name),
            },
            None => "no upstream is usable".to_owned(),
        }
    }

    /// A query was blamed for a lost connection, or might have been. Whether the upstream is to blame
    /// instead: after the second in a row without an answer in between if another one can take over, after
    /// several if not, as one poisonous name is asked for by a few types at a time.
    fn note_blame(&mut self, now: Instant, index: UpstreamIndex) -> bool {
        let upstream = &mut self.list[index];
        upstream.experience.blamed_in_a_row = upstream.experience.blamed_in_a_row.saturating_add(1);
        let blamed_in_a_row = upstream.experience.blamed_in_a_row;
        !upstream.experience.is_answering(now)
            && blamed_in_a_row
                >= if self.another(index, UpstreamSet::EMPTY).is_some() { 2 } else { BLAMES_MAX }
    }

    /// Now and then a line for all that is still down, however many fail however often.
    pub(crate) fn summarize(&mut self, now: Instant, outbox: &mut Outbox) {
        let due = *self.summary_at.get_or_insert(now + SUMMARY_PAUSE_MIN);
        if now < due {
            return;
        }
        let failed = self.list.iter().filter_map(|one| Some((&one.name, one.outage()?)));
        let told = failed.clone().filter(|(_, outage)| outage.logged);
        let Some((name, outage)) = told.min_by_key(|(_, outage)| outage.since) else {
            return;
        };
        self.summary_pause = (self.summary_pause * 2).clamp(SUMMARY_PAUSE_MIN, SUMMARY_PAUSE_MAX);
        self.summary_at = Some(now + self.summary_pause);
        outbox.log(Notice::UpstreamStillFailed {
            upstream: name.clone(),
            down: now.saturating_duration_since(outage.since),
            attempts: outage.attempts,
            stage: outage.stage,
            detail: format!("{}{}", outage.detail, self.hint(outage.stage, outage.answered_by))
                .into(),
            failed: failed.count(),
            of: self.list.len(),
        });
    }

    /// What failed may work now: but one that answered too few in time did so for reasons of its own.
    pub(crate) fn end_backoffs(&mut self, now: Instant) {
        for upstream in self.list.every_mut() {
            if upstream.outage().is_some_and(|outage| !outage.proof.is_poor()) {
                upstream.end_backoff(now);
            }
        }
    }

    /// A copy of a query is sent to an upstream that failed, which must answer it.
    pub(crate) fn note_trial_sent(&mut self, index: UpstreamIndex, trial: Id) {
        if let Some(outage) = self.list[index].outage_mut() {
            outage.trial = Some(trial);
        }
    }

    /// The copy of a query that a failed upstream must answer has ended. True if that was the last that it had to
    /// answer in time, and it works again.
    pub(crate) fn end_trial(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        trial: Id,
        is_answered: bool,
        outbox: &mut Outbox,
    ) -> bool {
        let Some(outage) = self.list[index].outage_mut() else {
            return false;
        };
        outage.trial.take_if(|other| *other == trial);
        match &mut outage.proof {
            Proof::Answers { missing } if is_answered => {
                *missing = missing.saturating_sub(1);
                *missing == 0 && self.recover(now, index, outbox).is_some()
            }
            _ => false,
        }
    }

    /// The copy of a query was not answered in time by an upstream that must answer some: it begins anew.
    pub(crate) fn fail_trial(&mut self, now: Instant, index: UpstreamIndex, outbox: &mut Outbox) {
        let Upstream { health, experience, .. } = &mut self.list[index];
        if let Health::Failed(outage) = health {
            outage.proof = Proof::Answers { missing: ANSWERS_WANTED };
            outage.attempts += 1;
            outage.retry_at = now + experience.promptness.next_pause(now);
            self.log_failed(now, index, outbox);
            self.summarize(now, outbox);
        }
    }

    /// A failed upstream works again. What brought it back may have brought others back too. Returns its
    /// outage.
    pub(crate) fn recover(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        outbox: &mut Outbox,
    ) -> Option<Outage> {
        let upstream = &mut self.list[index];
        let Health::Failed(outage) = std::mem::replace(&mut upstream.health, Health::Usable) else {
            return None;
        };
        upstream.experience.promptness.forget();
        if outage.logged {
            let down = now.saturating_duration_since(outage.since);
            outbox.log(Notice::UpstreamUsable { upstream: upstream.name.clone(), down });
        }
        if self.list.iter().all(Upstream::is_usable) {
            self.summary_at = None;
            self.summary_pause = Duration::ZERO;
        }
        self.end_backoffs(now);
        Some(outage)
    }
}

/// Why an upstream failed.
#[derive(Debug)]
pub(crate) enum Cause {
    /// An attempt failed in this phase, or a connection did in a way that is its upstream's failure.
    At(Stage, Box<str>),
    /// An attempt failed in this phase, as somebody else answered.
    Impostor(Stage, Box<str>),
    /// The upstream answers too few in time.
    Poor,
}

/// Where and why an attempt failed.
struct At {
    stage: Stage,
    detail: Box<str>,
    answered_by: AnsweredBy,
}

/// A server that restarts is back by then: until then queries wait for their whole time.
const LONG_OUTAGE: Duration = Duration::from_secs(3);

/// Queries blamed in a row before it is the upstream, with no other to turn to.
const BLAMES_MAX: u8 = 8;

/// From the first failure to the first line about what is still down; then twice as long each time.
const SUMMARY_PAUSE_MIN: Duration = Duration::from_secs(60);

/// Between two lines that the same upstream failed.
const LOGGED_PAUSE: Duration = Duration::from_secs(60);

const SUMMARY_PAUSE_MAX: Duration = Duration::from_secs(3600);
