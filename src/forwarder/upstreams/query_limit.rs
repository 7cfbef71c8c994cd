//! How many queries a connection to an upstream carries, where experience says that there is an end.

use std::time::{Duration, Instant};

/// Some servers answer the first queries of a connection, of some only the very first, and are deaf
/// from then on. It is learned after how many.
///
/// The limit is taught by two connections in a row that fell silent after the same number of answers. After the first
/// that is suspected, as its server took what was sent, and answered none of several but on another connection, the next
/// ones carry no more for a while, so that what waited on the first is not lost on the second, too. Names that were slow
/// look the same, once.
/// Ten minutes later a connection may carry any number again, and if the server is as it was, one more that
/// falls silent teaches the limit anew.
#[derive(Debug, Default)]
pub(crate) struct QueryLimit {
    /// Answers of the last connection that fell silent, unless one has answered more since.
    silent_after: Option<u64>,
    /// The most queries a connection is to carry, and since when that is known.
    limit: Option<(u64, Instant)>,
    /// Answers of a connection that is suspected, and since when.
    suspected: Option<(u64, Instant)>,
    /// A connection that was suspected gave answers again.
    was_wrong: bool,
}

impl QueryLimit {
    pub(crate) fn is_unknown(&self) -> bool {
        self.limit.is_none() && self.suspected.is_none()
    }

    /// The most queries a connection is to carry.
    pub(crate) fn queries_max(&self, now: Instant) -> Option<u64> {
        let limit = self.limit.filter(|(_, since)| now < *since + KEPT_FOR);
        let suspected = self.suspected.filter(|(_, since)| now < *since + SUSPECTED_FOR);
        limit.into_iter().chain(suspected).map(|(queries, _)| queries).min()
    }

    /// A connection gives none of several answers that are due after so many, although its server took what was sent,
    /// and gave one of them on another connection. Where that was wrong before, as the server pauses now and then, it has
    /// to be silent `for_long`.
    pub(crate) fn suspect(&mut self, now: Instant, answers: u64, for_long: bool) {
        if (1..=FEW).contains(&answers) && (for_long || !self.was_wrong) {
            self.suspected = Some((answers, now));
        }
    }

    /// The connection that was suspected gives answers: its names were slow.
    pub(crate) fn trust(&mut self, answers: u64) {
        let was_suspected = self.suspected.take_if(|(suspected, _)| *suspected == answers);
        self.was_wrong |= was_suspected.is_some();
    }

    /// A connection fell silent after so many answers, at least one.
    pub(crate) fn note_silence(&mut self, now: Instant, answers: u64) {
        if self.silent_after.replace(answers) == Some(answers) {
            self.limit = Some((answers, now));
            self.suspected = None;
            self.was_wrong = false;
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

/// By then a server that is deaf after the first queries has been met again, if there are many.
const SUSPECTED_FOR: Duration = Duration::from_secs(10);

/// A server that has answered more on a connection has no such habit: it was something else, which a handshake for
/// every few queries does not mend.
const FEW: u64 = 16;

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
    fn after_one_that_is_suspected_the_next_carry_no_more_for_a_while() {
        let t0 = base();
        let mut limit = QueryLimit::default();
        assert!(limit.is_unknown());
        limit.suspect(t0, 3, false);
        assert_eq!((limit.is_unknown(), limit.queries_max(t0)), (false, Some(3)));
        limit.trust(2);
        assert_eq!(limit.queries_max(t0), Some(3), "another one");
        limit.trust(3);
        assert_eq!((limit.is_unknown(), limit.queries_max(t0)), (true, None));
        limit.suspect(t0, 3, false);
        assert_eq!(limit.queries_max(t0), None, "it was wrong before");
        limit.suspect(t0, 3, true);
        assert_eq!(limit.queries_max(t0 + SUSPECTED_FOR), None);
        limit.note_silence(t0, 3);
        assert_eq!(limit.queries_max(t0), Some(3));
        assert_eq!(limit.queries_max(t0 + SUSPECTED_FOR), None, "its names may have been slow");
        limit.note_silence(t0 + SUSPECTED_FOR, 3);
        assert_eq!(limit.queries_max(t0 + SUSPECTED_FOR), Some(3), "it was the second");
        limit.suspect(t0, 2, true);
        assert_eq!(limit.queries_max(t0), Some(2), "the least counts");
        for answers in [0, FEW + 1] {
            limit.forget();
            limit.suspect(t0, answers, true);
            assert!(limit.is_unknown(), "{answers}");
        }
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
