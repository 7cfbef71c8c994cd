//! What is known of an upstream by experience.

use std::time::{Duration, Instant};

use super::promptness::Promptness;
use super::query_limit::QueryLimit;
use super::quiet::SPARE_FOR;
use super::replacements::Replacements;
use super::round_trip::RoundTrip;
use super::tolerance::Tolerance;
use super::turns::AtOnce;
use super::upstream::NOTHING_UP_PAUSE;
use crate::forwarder::action::Stage;
use crate::forwarder::collections::random::Random;

/// What an upstream did so far, as far as it says what it will do.
#[derive(Debug)]
pub(crate) struct Experience {
    /// When it last answered a query.
    answered_at: Option<Instant>,
    /// The pause after the next failure.
    backoff: Duration,
    /// Connections in a row that closed with queries waiting, each after a few answers at most.
    pub(crate) losses_in_a_row: u8,
    /// Queries found to bring connections down since the last answer.
    pub(crate) blamed_in_a_row: u8,
    /// Queries in flight allowed, until it has answered some, after a failure or a connection that closed
    /// with queries waiting.
    pub(crate) in_flight_max: Option<usize>,
    pub(crate) round_trip: RoundTrip,
    /// Whether it answers in time.
    pub(crate) promptness: Promptness,
    /// A connection stalled, and nothing was heard of it since.
    pub(crate) stalled_since_answer: bool,
    /// One of its connections was quiet.
    pub(crate) has_been_quiet: bool,
    /// When one was last as segments were lost.
    pub(crate) lossy_at: Option<Instant>,
    /// Connections in a row on which several queries met silence.
    pub(crate) silent_in_a_row: u8,
    pub(crate) replacements: Replacements,
    /// How many queries a connection carries.
    pub(crate) query_limit: QueryLimit,
    /// How many at a time.
    pub(crate) at_once: AtOnce,
    pub(crate) tolerance: Tolerance,
}

/// What a connection carries; nothing is known where there is no number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Queries in all.
    pub(crate) queries: Option<u64>,
    /// Queries at a time.
    pub(crate) at_once: Option<usize>,
}

impl Allowance {
    /// Queries that one more connection would get.
    pub(crate) fn each(self) -> Option<u64> {
        let at_once = self.at_once.map(|at_once| at_once as u64);
        self.queries.into_iter().chain(at_once).min()
    }
}

impl Experience {
    pub(crate) fn new() -> Self {
        Self {
            answered_at: None,
            backoff: BACKOFF_MIN,
            losses_in_a_row: 0,
            blamed_in_a_row: 0,
            in_flight_max: None,
            round_trip: RoundTrip::default(),
            promptness: Promptness::default(),
            stalled_since_answer: false,
            has_been_quiet: false,
            lossy_at: None,
            silent_in_a_row: 0,
            replacements: Replacements::default(),
            query_limit: QueryLimit::default(),
            at_once: AtOnce::default(),
            tolerance: Tolerance::default(),
        }
    }

    /// What a connection may carry, by experience.
    pub(crate) fn allowance(&self, now: Instant) -> Option<Allowance> {
        if self.query_limit.is_unknown() && self.at_once.is_unknown() {
            return None;
        }
        let (queries, at_once) = (self.query_limit.queries_max(now), self.at_once.max(now));
        Some(Allowance { queries, at_once })
    }

    /// The pause before the next attempt, longer each time.
    pub(crate) fn next_backoff(&mut self, stage: Stage, random: &mut Random) -> Duration {
        let max = if stage.is_lasting() { BACKOFF_LASTING_MAX } else { BACKOFF_MAX };
        let pause = self.backoff.min(max);
        self.backoff = (pause * 2).min(max);
        random.jitter(pause, BACKOFF_JITTER)
    }

    /// It answered a query: what went wrong before is forgotten.
    pub(crate) fn note_answer(&mut self, now: Instant, queries_max: usize) {
        self.answered_at = Some(now);
        self.backoff = BACKOFF_MIN;
        self.stalled_since_answer = false;
        self.blamed_in_a_row = 0;
        self.in_flight_max =
            self.in_flight_max.map(|max| max.saturating_mul(2)).filter(|max| *max < queries_max);
    }

    /// Whether another connection is to stand ready, as one waited for lost segments lately.
    pub(crate) fn wants_spare(&self, now: Instant) -> bool {
        self.lossy_at.is_some_and(|at| now < at + SPARE_FOR)
    }

    /// Whether a query was answered since then.
    pub(crate) fn has_answered_since(&self, then: Instant) -> bool {
        self.answered_at.is_some_and(|at| then < at)
    }

    /// Whether a query was answered lately: connections that it closes then say more about what it was asked.
    pub(crate) fn is_answering(&self, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now < at + LATELY)
    }

    /// It may have been too much for the server: the next connection starts with few queries at a time, and
    /// with no more than `answers`, but with one at least.
    pub(crate) fn start_slowly(&mut self, answers: u64) {
        let most = usize::try_from(answers).unwrap_or(usize::MAX).clamp(1, SLOW_START);
        self.in_flight_max = Some(self.in_flight_max.map_or(most, |max| max.min(most)));
    }

    /// A connection closed after this many answers, with queries waiting on it or without.
    ///
    /// After two in a row that did with queries waiting, the next carries no more at a time than the
    /// last one answered, and at least one. A query that brings connections down is then soon alone
    /// on one, while a server that closes every twenty answers costs no time.
    pub(crate) fn note_close(&mut self, lossy: bool, answers: u64) {
        if lossy {
            self.start_slowly(if self.losses_in_a_row > 0 { answers } else { u64::MAX });
        }
        self.losses_in_a_row = match (lossy, answers) {
            (false, _) => 0,
            (true, MANY_ANSWERS..) => 1,
            (true, _) => self.losses_in_a_row.saturating_add(1),
        };
    }

    /// What was learned of the server or of the way to it may hold no longer.
    pub(crate) fn forget(&mut self) {
        self.backoff = BACKOFF_MIN;
        self.answered_at = None;
        self.losses_in_a_row = 0;
        self.in_flight_max = None;
        self.stalled_since_answer = false;
        self.has_been_quiet = false;
        self.lossy_at = None;
        self.silent_in_a_row = 0;
        self.blamed_in_a_row = 0;
        self.replacements = Replacements::default();
        self.query_limit.forget();
        self.at_once.forget();
        self.promptness.forget();
        self.tolerance.forget();
        self.round_trip = RoundTrip::default();
    }
}

/// Queries that the weakest server takes at a time.
const SLOW_START: usize = 16;

/// A server that answers so many queries of a connection has no habit of closing it.
const MANY_ANSWERS: u64 = 16;

/// Longer than a poisonous query among others takes to be found, and no longer than clients wait.
const LATELY: Duration = Duration::from_secs(2);

const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// A returned upstream is noticed within this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A certificate or a configuration is not mended within seconds, and each attempt costs a
/// handshake.
const BACKOFF_LASTING_MAX: Duration = Duration::from_secs(60);

/// Percent.
const BACKOFF_JITTER: u32 = 25;

const _: () = {
    assert!(BACKOFF_MIN.as_millis() < NOTHING_UP_PAUSE.as_millis());
    assert!(BACKOFF_MAX.as_millis() < BACKOFF_LASTING_MAX.as_millis());
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn the_pause_after_a_failure_doubles_up_to_what_the_cause_allows() {
        // What fails, in turn, and the pause after it in milliseconds, without jitter.
        let cases: [&[(Stage, u64)]; 3] = [
            &[
                (Stage::Connect, 250),
                (Stage::Tls, 500),
                (Stage::Read, 1000),
                (Stage::Connect, 2000),
                (Stage::Connect, 4000),
                (Stage::Connect, 5000),
                (Stage::Connect, 5000),
            ],
            &[
                (Stage::Certificate, 250),
                (Stage::Certificate, 500),
                (Stage::Certificate, 1000),
                (Stage::Certificate, 2000),
                (Stage::Certificate, 4000),
                (Stage::Certificate, 8000),
                (Stage::Certificate, 16_000),
                (Stage::Certificate, 32_000),
                (Stage::Certificate, 60_000),
                (Stage::Certificate, 60_000),
            ],
            &[
                (Stage::Certificate, 250),
                (Stage::Certificate, 500),
                (Stage::Certificate, 1000),
                (Stage::Certificate, 2000),
                (Stage::Certificate, 4000),
                (Stage::Certificate, 8000),
                // It is a certificate no longer.
                (Stage::Connect, 5000),
            ],
        ];
        for case in cases {
            let (mut experience, mut random) = (Experience::new(), Random::new(1));
            for &(stage, expected) in case {
                let pause = experience.next_backoff(stage, &mut random).as_millis() as u64;
                assert!(
                    (expected * 3 / 4..=expected * 5 / 4).contains(&pause),
                    "{case:?}: {pause}"
                );
            }
            experience.note_answer(base(), 1);
            assert!(experience.next_backoff(Stage::Connect, &mut random) < 2 * BACKOFF_MIN);
        }
    }
}
