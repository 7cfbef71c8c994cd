//! Servers that work on one query of a connection at a time, in the order in which they came.

use std::time::{Duration, Instant};

use super::round_trip::STALL_MIN;

/// How the answers on a connection follow each other.
///
/// One that works on all queries at once answers in the order of what they take, and a slow name holds up
/// no other. Where each answer is to the oldest query, comes some time after the one before, and took
/// longer the more there were before it, until queries are overdue, the server takes them in turn.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Answers in a row, each to the oldest query, which waited already when the one before came.
    run: u32,
    /// When the first of them came, and what it took, if that is known.
    first: (Instant, Option<Duration>),
    last: Instant,
}

impl Turns {
    pub(crate) fn new(now: Instant) -> Self {
        Self { run: 0, first: (now, None), last: now }
    }

    /// An answer came to a query sent then, so long ago, the oldest or another; the oldest that waits now
    /// was sent at the time that `oldest` gives. Returns how long the server works on a query, if it is seen
    /// now that it works on one at a time and that this is too long for those that wait.
    #[inline]
    pub(crate) fn note(
        &mut self,
        now: Instant,
        sent_at: Instant,
        took: Duration,
        was_oldest: bool,
        oldest: impl FnOnce() -> Option<Instant>,
    ) -> Option<Duration> {
        if !was_oldest {
            self.run = 0;
            return None;
        }
        if self.run > 0 && sent_at <= self.last {
            let last = self.go_on(now);
            // As a rule: this is asked of every answer.
            if took < STALL_MIN {
                return None;
            }
            return self.each(now, Some(took), last, oldest());
        }
        self.run = 1;
        self.first = (now, Some(took));
        self.last = now;
        None
    }

    /// The same for an answer to a query that was given up, or whose time does not count here. What it took
    /// is not known, but whoever waits behind many of them waits for too long.
    pub(crate) fn note_late(
        &mut self,
        now: Instant,
        oldest: impl FnOnce() -> Option<Instant>,
    ) -> Option<Duration> {
        if self.run > 0 {
            let last = self.go_on(now);
            return self.each(now, None, last, oldest());
        }
        self.run = 1;
        self.first = (now, None);
        self.last = now;
        None
    }

    /// Nobody waits any more.
    pub(crate) fn end(&mut self) {
        self.run = 0;
    }

    /// Another answer in turn; returns when the one before it came.
    fn go_on(&mut self, now: Instant) -> Instant {
        self.run = self.run.saturating_add(1);
        std::mem::replace(&mut self.last, now)
    }

    /// How long the server works on each, if that is why the oldest waits for so long; the answer before this one
    /// came at `last`.
    fn each(
        &self,
        now: Instant,
        took: Option<Duration>,
        last: Instant,
        oldest: Option<Instant>,
    ) -> Option<Duration> {
        // What waits now was sent no sooner than what was answered.
        if self.run < RUN_MIN || now < oldest? + STALL_MIN {
            return None;
        }
        let (first_at, first_took) = self.first;
        let each = now.saturating_duration_since(first_at) / (self.run - 1);
        let has_grown = match (first_took, took) {
            (Some(first_took), Some(took)) => took >= 2 * first_took,
            _ => true,
        };
        let is_in_turn = now.saturating_duration_since(last) >= each / 2;
        (has_grown && is_in_turn && each >= EACH_MIN).then_some(each)
    }
}

/// How many queries may be in flight at a time on a connection to an upstream that works on one at a time:
/// as many as it answers well before they are overdue.
#[derive(Debug, Default)]
pub(crate) struct AtOnce {
    taught: Option<(usize, Instant)>,
}

impl AtOnce {
    pub(crate) fn is_unknown(&self) -> bool {
        self.taught.is_none()
    }

    pub(crate) fn max(&self, now: Instant) -> Option<usize> {
        let (max, taught_at) = self.taught?;
        (now < taught_at + KEPT_FOR).then_some(max)
    }

    /// It works so long on each.
    pub(crate) fn teach(&mut self, now: Instant, each: Duration) {
        let max = (ANSWERED_WITHIN.as_micros() / each.as_micros().max(1)).max(1);
        self.taught = Some((usize::try_from(max).unwrap_or(usize::MAX), now));
    }

    /// It does not work on one at a time, or may not any more.
    pub(crate) fn forget(&mut self) {
        self.taught = None;
    }
}

/// Two may be in order by chance.
const RUN_MIN: u32 = 3;

/// Who is faster is fast enough.
const EACH_MIN: Duration = Duration::from_millis(10);

const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Servers are mended, and routes lead to others.
const KEPT_FOR: Duration = Duration::from_secs(600);

const _: () = assert!(ANSWERED_WITHIN.as_millis() < STALL_MIN.as_millis());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    /// Sent and answered at these milliseconds, in order of the answers: what is seen first.
    fn seen(queries: &[(u64, u64)]) -> Option<u64> {
        let t0 = base();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut turns = Turns::new(t0);
        let mut waiting: Vec<u64> = queries.iter().map(|(sent, _)| *sent).collect();
        queries.iter().find_map(|&(sent, answered)| {
            // What is sent later does not wait yet.
            let oldest = waiting.iter().copied().min()?;
            let place = waiting.iter().position(|other| *other == sent)?;
            waiting.swap_remove(place);
            let next = waiting.iter().copied().filter(|sent| *sent <= answered).min();
            let took = Duration::from_millis(answered - sent);
            let was_oldest = sent == oldest;
            let each = turns.note(at(answered), at(sent), took, was_oldest, || next.map(at));
            each.map(|each| each.as_millis() as u64)
        })
    }

    #[test]
    fn who_takes_queries_in_turn_is_told_from_who_does_not() {
        type Case<'a> = (&'a str, &'a [(u64, u64)], Option<u64>);

        let burst = |each: u64| (1..=40).map(move |n| (0, n * each)).collect::<Vec<_>>();
        let mixed = (1..=40).map(|n| (0, n / 2 * 300 + n)).collect::<Vec<_>>();
        let steady = (0..60).map(|n| (n * 100, (n + 1) * 150)).collect::<Vec<_>>();
        let all_slow = (0..60).map(|n| (n * 25, 2000 + n * 25)).collect::<Vec<_>>();
        let outage = (0..30).map(|n| (n * 100, 3000)).collect::<Vec<_>>();
        let held_up = [&[(0, 10), (0, 2000)][..], &[(0, 2001); 38]].concat();
        let cases: [Case<'_>; 11] = [
            ("a burst, 150 ms each", &burst(150), Some(150)),
            ("a burst, a second each", &burst(1000), Some(1000)),
            ("more than it can, every 100 ms", &steady, Some(150)),
            ("cached ones between", &mixed, Some(150)),
            ("a burst that it masters", &burst(30), None),
            ("as fast as can be", &burst(1), None),
            ("2 s for each, all at once", &all_slow, None),
            ("all at once after an outage", &outage, None),
            ("all behind a slow one", &held_up, None),
            ("a slow one, passed by others", &[(0, 3000), (1, 10), (2, 20), (3, 30)], None),
            ("one after the other", &[(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000)], None),
        ];
        for (what, queries, expected) in cases {
            let mut queries = queries.to_vec();
            queries.sort_by_key(|(_, answered)| *answered);
            let each = seen(&queries);
            let is_right = match (each, expected) {
                (Some(each), Some(expected)) => each.abs_diff(expected) <= expected / 5,
                (each, expected) => each == expected,
            };
            assert!(is_right, "{what}: {each:?}");
        }
    }

    #[test]
    fn behind_what_has_expired_nobody_waits() {
        let t0 = base();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut turns = Turns::new(t0);
        // Sent a second ago at the first of them.
        let each: Vec<_> =
            (1..8).map(|n| turns.note_late(at(n * 150), || t0.checked_sub(at(850) - t0))).collect();
        assert_eq!(each[..4], [None; 4]);
        assert_eq!(each[4], Some(Duration::from_millis(150)), "{each:?}");
        // An answer passed another: it is not in turn.
        assert_eq!(turns.note(at(1200), at(1100), at(100) - t0, false, || None), None);
        assert_eq!(turns.note_late(at(1350), || t0.checked_sub(Duration::from_secs(3))), None);
    }

    #[test]
    fn as_many_at_once_as_are_answered_in_a_second_and_one_at_least() {
        let t0 = base();
        let mut at_once = AtOnce::default();
        assert_eq!(at_once.max(t0), None);
        for (each, max) in [(10, 100), (150, 6), (400, 2), (3000, 1)] {
            at_once.teach(t0, Duration::from_millis(each));
            assert_eq!(at_once.max(t0), Some(max), "{each} ms");
        }
        assert_eq!(at_once.max(t0 + KEPT_FOR), None);
        at_once.forget();
        assert_eq!(at_once.max(t0), None);
    }
}
