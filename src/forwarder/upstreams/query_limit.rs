//! How many queries a connection to an upstream carries, where experience says that there is an end.

use std::time::{Duration, Instant};

/// Some servers answer the first queries of a connection, of some only the very first, and are deaf
/// from then on. It is learned after how many.
///
/// The limit is taught by two connections in a row that fell silent after the same number of answers.
/// It doubles after connections that were filled and answered everything: one at first, twice as many
/// each time that the same limit is taught again, since every wrong try costs queries a stall.
#[derive(Debug, Default)]
pub(crate) struct QueryLimit {
    /// Answers of the last connection that fell silent.
    silent_after: Option<u64>,
    limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    queries: u64,
    taught: u64,
    taught_at: Instant,
    /// Connections filled and answered since the limit changed.
    filled: u32,
    /// How many of them double it.
    filled_min: u32,
}

impl QueryLimit {
    pub(crate) fn is_unknown(&self) -> bool {
        self.limit.is_none()
    }

    /// The most queries a connection is to carry.
    pub(crate) fn queries_max(&self, now: Instant) -> Option<u64> {
        let limit = self.limit?;
        (now < limit.taught_at + KEPT_FOR).then_some(limit.queries)
    }

    /// A connection fell silent after so many answers, at least one.
    pub(crate) fn note_silence(&mut self, now: Instant, answers: u64) {
        if self.silent_after.replace(answers) != Some(answers) {
            return;
        }
        let earlier = self.limit.filter(|limit| now < limit.taught_at + KEPT_FOR);
        let filled_min = match earlier {
            Some(limit) if limit.taught == answers => (limit.filled_min * 2).min(FILLED_MAX),
            _ => 1,
        };
        self.limit = Some(Limit {
            queries: answers,
            taught: answers,
            taught_at: now,
            filled: 0,
            filled_min,
        });
    }

    /// A connection was closed that had not fallen silent.
    pub(crate) fn note_close(&mut self, queries: u64, answers: u64) {
        let Some(limit) = &mut self.limit else {
            // Without a limit, one that answered more is no server of this kind.
            self.silent_after.take_if(|silent_after| answers > *silent_after);
            return;
        };
        if queries >= limit.queries && answers >= limit.queries {
            limit.filled += 1;
            // One that answered more than was taught disproves it.
            if limit.filled >= limit.filled_min || limit.queries > limit.taught {
                limit.queries = limit.queries.saturating_mul(2);
                limit.filled = 0;
            }
        }
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Servers are mended, and routes lead to others.
const KEPT_FOR: Duration = Duration::from_secs(600);

const FILLED_MAX: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn two_in_a_row_teach_it_and_ten_minutes_forget_it() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        limit.note_silence(t0, 50);
        limit.note_silence(t0, 3);
        assert_eq!(limit.queries_max(t0), None);
        limit.note_silence(t0, 3);
        assert_eq!(limit.queries_max(t0), Some(3));
        assert_eq!(limit.queries_max(t0 + KEPT_FOR), None);
    }

    #[test]
    fn a_connection_that_answered_more_in_between_breaks_the_row() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        limit.note_silence(t0, 3);
        limit.note_close(3, 3);
        limit.note_close(100, 100);
        limit.note_silence(t0, 3);
        assert_eq!(limit.queries_max(t0), None);
    }

    #[test]
    fn it_doubles_ever_more_reluctantly() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        limit.note_silence(t0, 1);
        for reluctance in [1, 2, 4, 8] {
            limit.note_silence(t0, 1);
            for _ in 0..reluctance {
                assert_eq!(limit.queries_max(t0), Some(1));
                limit.note_close(1, 1);
            }
            assert_eq!(limit.queries_max(t0), Some(2), "after {reluctance}");
        }
        (0..8).for_each(|_| limit.note_close(2, 2));
        assert_eq!(limit.queries_max(t0), Some(4));
    }

    #[test]
    fn a_connection_filled_under_an_older_limit_says_nothing_about_a_higher_one() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        limit.note_silence(t0, 1);
        limit.note_silence(t0, 1);
        limit.note_close(1, 1);
        limit.note_close(1, 1);
        assert_eq!(limit.queries_max(t0), Some(2));
    }
}
