//! Upstreams that fail and come back.

use std::time::{Duration, Instant};

use super::promptness::{ANSWERS_WANTED, LAST, LATE_MIN};
use super::upstream::{Health, Outage, Proof, Upstream};
use crate::forwarder::action::{Manner, Stage, UpstreamConnId, UpstreamIndex, UpstreamSet};
use crate::forwarder::{Fact, Forwarder, Outcome};

impl Forwarder {
    pub(crate) fn attempt_failed(
        &mut self,
        now: Instant,
        conn_id: UpstreamConnId,
        stage: Stage,
        detail: Box<str>,
    ) {
        let Some(conn) = self.close_upstream(conn_id, Manner::Abort, "not connected in time")
        else {
            return;
        };
        let open = self.upstreams.list[conn.upstream].open;
        if let Some(open) = open.and_then(|open| self.upstreams.conns.get_mut(open)) {
            // Only a replacement could not be made; the connection it was for still serves.
            open.replacement_failed_at = Some(now);
            return;
        }
        self.fail_upstream(now, conn.upstream, stage, detail);
        self.dispatch(now);
    }

    pub(crate) fn fail_upstream(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        stage: Stage,
        detail: Box<str>,
    ) {
        let pause = self.upstreams.list[index].next_backoff(stage, &mut self.upstreams.random);
        let proof = if stage == Stage::Read { Proof::Answer } else { Proof::Handshake };
        self.fail_until(now, index, stage, detail, now + pause, proof);
    }

    /// Too many of the last queries had no answer in time, and another upstream is usable: what is overdue
    /// goes there now.
    pub(crate) fn fail_if_poor(&mut self, now: Instant, index: UpstreamIndex) {
        let upstream = &mut self.upstreams.list[index];
        let is_poor = upstream.promptness.take_poor() && upstream.is_usable();
        if !is_poor || self.another(index, UpstreamSet::EMPTY).is_none() {
            return;
        }
        let detail = format!(
            "{LATE_MIN} of its last {LAST} queries had no answer in time, each for another name; other \
             upstreams are asked until it has answered {ANSWERS_WANTED} copies in a row"
        );
        let retry_at = now + self.upstreams.list[index].promptness.next_pause(now);
        let proof = Proof::Answers { missing: ANSWERS_WANTED };
        self.fail_until(now, index, Stage::Read, detail.into(), retry_at, proof);
        for conn_id in &self.upstreams.list[index].conns {
            if let Some(conn) = self.upstreams.conns.get_mut(*conn_id) {
                conn.sent.look_again();
            }
        }
    }

    fn fail_until(
        &mut self,
        now: Instant,
        index: UpstreamIndex,
        stage: Stage,
        detail: Box<str>,
        retry_at: Instant,
        proof: Proof,
    ) {
        let upstream = &mut self.upstreams.list[index];
        let name = upstream.name.clone();
        let mut told_now = false;
        let trial = match &mut upstream.health {
            Health::Usable => {
                // One that fails and returns all the time is told of now and then.
                let told = upstream.told_at.is_none_or(|at| now >= at + TOLD_PAUSE);
                upstream.health = Health::Failed(Outage {
                    told,
                    since: now,
                    attempts: 1,
                    is_long: false,
                    told_lasting: told && stage.is_lasting(),
                    stage,
                    detail: detail.clone(),
                    retry_at,
                    proof,
                    trial: None,
                });
                if told {
                    upstream.told_at = Some(now);
                    told_now = true;
                }
                None
            }
            Health::Failed(outage) => {
                if stage.is_lasting() && !outage.told_lasting {
                    // Behind a refused connection, say, a certificate that is wrong.
                    outage.told_lasting = true;
                    outage.told = true;
                    told_now = true;
                }
                outage.attempts += 1;
                outage.is_long |= now >= outage.since + LONG_OUTAGE;
                outage.stage = stage;
                outage.detail.clone_from(&detail);
                outage.retry_at = retry_at;
                outage.proof = outage.proof.max(proof);
                outage.trial.take()
            }
        };
        if told_now {
            let mut detail = detail.into_string();
            detail.push_str(self.hint(stage));
            let fact = Fact::UpstreamFailed { upstream: name, stage, detail: detail.into() };
            self.outbox.log(fact);
        }
        if let Some(trial) = trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        self.summarize(now);
        self.unbind(now, index);
    }

    /// What several upstreams have in common that failed in this phase.
    pub(crate) fn hint(&self, stage: Stage) -> &'static str {
        let alike = self.upstreams.list.iter().filter_map(Upstream::outage);
        hint(stage, alike.filter(|outage| outage.stage == stage).count())
    }

    /// The copy of a query was answered in time by an upstream that must answer some, or not.
    pub(crate) fn note_trial(&mut self, now: Instant, index: UpstreamIndex, is_answered: bool) {
        let upstream = &mut self.upstreams.list[index];
        let Health::Failed(outage) = &mut upstream.health else {
            return;
        };
        let Proof::Answers { missing } = &mut outage.proof else {
            return;
        };
        if is_answered {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.recover(now, index);
            }
        } else {
            *missing = ANSWERS_WANTED;
            outage.attempts += 1;
            outage.retry_at = now + upstream.promptness.next_pause(now);
            self.summarize(now);
        }
    }

    /// A query was blamed for a lost connection. Whether the upstream is to blame instead: after the
    /// second in a row without an answer in between if another one can take over, after several if
    /// not, as one poisonous name is asked for by a few types at a time.
    pub(crate) fn note_blame(&mut self, index: UpstreamIndex) -> bool {
        let upstream = &mut self.upstreams.list[index];
        upstream.blames = upstream.blames.saturating_add(1);
        let blames = upstream.blames;
        blames >= if self.another(index, UpstreamSet::EMPTY).is_some() { 2 } else { BLAMES_MAX }
    }

    /// A failed upstream works again. What brought it back may have brought others back too.
    pub(crate) fn recover(&mut self, now: Instant, index: UpstreamIndex) {
        let upstream = &mut self.upstreams.list[index];
        let Health::Failed(outage) = std::mem::replace(&mut upstream.health, Health::Usable) else {
            return;
        };
        upstream.promptness.forget();
        if outage.told {
            let down = now.saturating_duration_since(outage.since);
            let fact = Fact::UpstreamUsable { upstream: upstream.name.clone(), down };
            self.outbox.log(fact);
        }
        if let Some(trial) = outage.trial {
            self.finish(now, trial, Outcome::Orphaned);
        }
        if self.upstreams.list.iter().all(Upstream::is_usable) {
            self.upstreams.summary_at = None;
            self.upstreams.summary_pause = Duration::ZERO;
        }
        self.end_backoffs(now);
        self.queue_stalled();
    }

    /// Now and then a line for all that is still down, however many fail however often.
    fn summarize(&mut self, now: Instant) {
        let due = *self.upstreams.summary_at.get_or_insert(now + SUMMARY_PAUSE_MIN);
        if now < due {
            return;
        }
        let failed = self.upstreams.list.iter().filter_map(|one| Some((&one.name, one.outage()?)));
        let Some((name, outage)) = failed.clone().min_by_key(|(_, outage)| outage.since) else {
            return;
        };
        self.upstreams.summary_pause =
            (self.upstreams.summary_pause * 2).clamp(SUMMARY_PAUSE_MIN, SUMMARY_PAUSE_MAX);
        self.upstreams.summary_at = Some(now + self.upstreams.summary_pause);
        self.outbox.log(Fact::UpstreamStillFailed {
            upstream: name.clone(),
            down: now.saturating_duration_since(outage.since),
            attempts: outage.attempts,
            stage: outage.stage,
            detail: format!("{}{}", outage.detail, self.hint(outage.stage)).into(),
            failed: failed.count(),
            of: self.upstreams.list.len(),
        });
        for upstream in self.upstreams.list.iter_mut() {
            if let Some(outage) = upstream.outage_mut() {
                outage.told = true;
            }
        }
    }

    /// What failed may work now: but one that answered too few in time did so for reasons of its own.
    pub(crate) fn end_backoffs(&mut self, now: Instant) {
        for upstream in self.upstreams.list.iter_mut() {
            if upstream.outage().is_some_and(|outage| !outage.proof.is_poor()) {
                upstream.end_backoff(now);
            }
        }
    }
}

/// What so many addresses that fail in the same phase have in common. One server may be no DNS server;
/// that several are none at once, or speak an old TLS, is what a network looks like that answers for all.
fn hint(stage: Stage, alike: usize) -> &'static str {
    match (stage, alike) {
        (Stage::Negotiation, 2..) => {
            "; other upstreams fail in the same way: something in between may intercept TLS"
        }
        _ => "",
    }
}

/// A server that restarts is back by then: until then queries wait for their whole time.
const LONG_OUTAGE: Duration = Duration::from_secs(3);

/// Queries blamed in a row before it is the upstream, with no other to turn to.
const BLAMES_MAX: u8 = 8;

/// From the first failure to the first line about what is still down; then twice as long each time.
const SUMMARY_PAUSE_MIN: Duration = Duration::from_secs(60);

/// Between two lines that the same upstream failed.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

const SUMMARY_PAUSE_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_that_are_no_dns_servers_at_once_look_like_interception() {
        for (stage, alike, is_told) in [
            (Stage::Negotiation, 1, false),
            (Stage::Negotiation, 2, true),
            (Stage::Negotiation, 4, true),
            // A server that is down, or a clock that is wrong, is more likely.
            (Stage::Connect, 4, false),
            (Stage::Tls, 4, false),
            (Stage::Certificate, 4, false),
            (Stage::Read, 4, false),
        ] {
            assert_eq!(!hint(stage, alike).is_empty(), is_told, "{stage}, {alike}");
        }
    }
}
