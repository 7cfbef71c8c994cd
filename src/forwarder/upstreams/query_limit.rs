//! How many queries a connection to an upstream carries, where experience says that there is an end.

use std::time::{Duration, Instant};

/// Some servers answer the first queries of a connection, of some only the very first, and are deaf
/// from then on. It is learned after how many.
///
/// The limit is taught by two connections in a row that fell silent after the same number of answers. Ten
/// minutes later a connection may carry any number again, and if the server is as it was, one more that
/// falls silent teaches the limit anew.
#[derive(Debug, Default)]
pub(crate) struct QueryLimit {
    /// Answers of the last connection that fell silent, unless one has answered more since.
    silent_after: Option<u64>,
    /// The most queries a connection is to carry, and since when that is known.
    limit: Option<(u64, Instant)>,
}

impl QueryLimit {
    pub(crate) fn is_unknown(&self) -> bool {
        self.limit.is_none()
    }

    /// The most queries a connection is to carry.
    pub(crate) fn queries_max(&self, now: Instant) -> Option<u64> {
        let (queries, since) = self.limit?;
        (now < since + KEPT_FOR).then_some(queries)
    }

    /// A connection fell silent after so many answers, at least one.
    pub(crate) fn note_silence(&mut self, now: Instant, answers: u64) {
        if self.silent_after.replace(answers) == Some(answers) {
            self.limit = Some((answers, now));
        }
    }

    /// A connection was closed that had not fallen silent: one that answered more is to no server of this
    /// kind.
    pub(crate) fn note_close(&mut self, answers: u64) {
        self.silent_after.take_if(|silent_after| answers > *silent_after);
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Servers are mended, and routes lead to others.
const KEPT_FOR: Duration = Duration::from_secs(600);

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
        limit.note_close(3);
        assert_eq!(limit.queries_max(t0 + KEPT_FOR), None);
        limit.note_silence(t0 + KEPT_FOR, 3);
        assert_eq!(limit.queries_max(t0 + KEPT_FOR), Some(3), "one more is enough");
    }

    #[test]
    fn a_connection_that_answered_more_in_between_breaks_the_row() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        limit.note_silence(t0, 3);
        limit.note_close(3);
        limit.note_close(100);
        limit.note_silence(t0, 3);
        assert_eq!(limit.queries_max(t0), None);
    }
}
