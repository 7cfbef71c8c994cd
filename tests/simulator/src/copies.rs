//! Copies of queries, counted a second time, by which the forwarder is judged.

use std::time::Duration;

use dot_proxy::forwarder::Counts;

/// What copies may be made by now. As little is saved up, that holds in every minute, and not only on the whole.
#[derive(Debug)]
pub(super) struct Copies {
    /// Of what is late, and of what waits on a connection that misses no segments.
    late: Share,
    /// Of these, and of what waits on one that misses some, or whose answers go astray: while there is one, it is not told
    /// which a copy is.
    all: Share,
    /// When a connection last missed segments.
    missed_at: Option<Duration>,
    /// At least so many are left of those of what is held up: of the messages that came in a turn those questions
    /// alone count that are new, and were not all refused.
    surely_left: Share,
    /// When there was none.
    used_up_at: Option<Duration>,
    /// New questions of this turn.
    asked: u64,
    queries: u64,
    failed: u64,
    hedged: u64,
    rescued: u64,
    unmatched: u64,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self {
            late: Share { percent: 2, most: 8 * 100, left: 100 },
            all: Share { percent: 2 + 10, most: (8 + 64) * 100, left: (1 + 64) * 100 },
            surely_left: Share { percent: 10, most: 64 * 100, left: 64 * 100 },
            missed_at: None,
            used_up_at: None,
            asked: 0,
            queries: 0,
            failed: 0,
            hedged: 0,
            rescued: 0,
            unmatched: 0,
        }
    }

    /// The forwarder asked what TCP knows of a connection.
    pub(super) fn note_look(&mut self, at: Duration, is_losing: bool) {
        if is_losing {
            self.missed_at = Some(at);
        }
    }

    /// A query came that repeats none.
    pub(super) fn note_asked(&mut self) {
        self.asked += 1;
    }

    /// What was counted by now; fails if more copies were made than may be.
    pub(super) fn check(&mut self, at: Duration, counts: &Counts) {
        let queries = counts.queries - self.queries;
        let hedged = counts.hedged - self.hedged;
        let rescued = counts.rescued - self.rescued;
        // Each answer that went astray has one query asked again.
        let astray = rescued.min(counts.unmatched - self.unmatched);
        self.unmatched = counts.unmatched;
        let failed = counts.failed - self.failed;
        (self.queries, self.hedged, self.rescued) = (counts.queries, counts.hedged, counts.rescued);
        self.failed = counts.failed;
        self.late.add(queries);
        self.all.add(queries);
        // They count when they come, and not when they are sent: what is above the most is lost at once, and copies
        // that are made before they are sent may have used them.
        let asked = std::mem::take(&mut self.asked).min(queries);
        self.surely_left.add(asked.saturating_sub(failed));
        self.surely_left.end_turn();
        // Copies may have been made before the queries of this turn came.
        let before = 100 + queries * self.surely_left.percent;
        let are_left = self.surely_left.take(rescued) == 0 && self.surely_left.left >= before;
        assert_eq!(self.late.take(hedged), 0, "more copies of late queries: {counts:?}");
        let above = self.all.take(hedged + rescued);
        assert_eq!(above, 0, "more copies of what is held up: {counts:?}");
        if self.missed_at.is_none_or(|missed_at| at > missed_at + QUIET_MAX) {
            let above = self.late.take(rescued - astray);
            assert_eq!(above, 0, "more copies of what waits where nothing is missed: {counts:?}");
        }
        self.late.end_turn();
        self.all.end_turn();
        if !are_left {
            self.used_up_at = Some(at);
        }
    }

    /// Whether another could surely be made of what is held up, all the time since then.
    pub(super) fn were_left_since(&self, since: Duration) -> bool {
        self.used_up_at.is_none_or(|at| at < since)
    }
}

/// So many copies for a hundred queries, saved up to a few; in hundredths.
#[derive(Debug)]
struct Share {
    percent: u64,
    most: u64,
    left: u64,
}

impl Share {
    /// In a turn copies may be made before the queries come: what they add counts in full until its end.
    fn add(&mut self, queries: u64) {
        self.left += queries * self.percent;
    }

    /// Takes so many, as far as there are; returns how many more were to be taken.
    fn take(&mut self, copies: u64) -> u64 {
        let taken = copies.min(self.left / 100);
        self.left -= taken * 100;
        copies - taken
    }

    fn end_turn(&mut self) {
        self.left = self.left.min(self.most);
    }
}

/// A connection on which nothing comes for 5 s is used no more; the process may be stopped for 20 s meanwhile.
const QUIET_MAX: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::ms;

    /// Whether so many copies may be made of 10,000 queries and, a minute later, of a hundred.
    fn may(looks: &[bool], first: (u64, u64), later: (u64, u64)) -> bool {
        let mut copies = Copies::new();
        let mut counts = Counts::default();
        let mut check = |at, queries, (hedged, rescued): (u64, u64)| {
            counts.queries += queries;
            counts.hedged += hedged;
            counts.rescued += rescued;
            for is_losing in looks {
                copies.note_look(ms(at), *is_losing);
            }
            copies.check(ms(at), &counts);
        };
        let checks = || {
            check(0, 10_000, (0, 0));
            check(1, 0, first);
            check(60_000, 0, (0, 0));
            check(60_001, 100, later);
        };
        catch_unwind(AssertUnwindSafe(checks)).is_ok()
    }

    #[test]
    fn no_copy_is_surely_left_for_what_was_lost_or_never_came() {
        let (mut copies, mut counts) = (Copies::new(), Counts::default());
        // When, new questions, messages, those that failed, copies, and whether one is left then.
        let turns = [
            (1, 0, 0, 0, 0, true),
            // What is above the most is lost.
            (2, 100, 100, 0, 63, false),
            (3, 0, 0, 0, 0, true),
            (4, 0, 0, 0, 1, false),
            // Repetitions, and what was refused.
            (5, 0, 20, 0, 0, false),
            (6, 20, 20, 20, 0, false),
            (7, 10, 10, 0, 0, false),
            (8, 0, 0, 0, 0, true),
        ];
        for (at, asked, queries, failed, rescued, is_left) in turns {
            copies.note_look(ms(at), true);
            (0..asked).for_each(|_| copies.note_asked());
            counts.queries += queries;
            counts.failed += failed;
            counts.rescued += rescued;
            copies.check(ms(at), &counts);
            assert_eq!(copies.were_left_since(ms(at)), is_left, "{at}");
        }
    }

    #[test]
    fn copies_are_bounded_in_every_minute() {
        let (misses, misses_none): (&[bool], &[bool]) = (&[true], &[false]);
        assert!(may(&[], (8, 0), (2, 0)) && !may(&[], (9, 0), (0, 0)) && !may(&[], (8, 0), (3, 0)));
        assert!(may(misses, (8, 64), (2, 10)));
        assert!(!may(misses, (0, 73), (0, 0)) && !may(misses, (8, 64), (2, 11)));
        // Where nothing is lost.
        assert!(may(&[], (0, 8), (0, 2)) && !may(&[], (0, 9), (0, 0)) && !may(&[], (4, 5), (0, 0)));
        assert!(may(misses_none, (0, 8), (0, 2)) && !may(misses_none, (0, 9), (0, 0)));
    }
}
