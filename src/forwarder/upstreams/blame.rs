//! Whose fault the end of a connection is.

use crate::forwarder::collections::arena::Id;

/// How a connection to an upstream ended, or ceased to be of use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// The connection was closed for what came on it as the answer to this query; so many were no good by now.
    BadAnswer { query: Id, bad_answers: u8 },
    /// The connection closed or broke.
    Lost {
        /// The connection took new queries until then.
        was_open: bool,
        /// How many queries were answered on it.
        answers: u64,
        /// The queries that had no answer yet.
        unanswered: &'a [Id],
        /// One of these had lost another connection to this upstream before.
        has_lost_before: bool,
        /// One of these lost every connection that was lost in a row.
        was_on_all: bool,
        /// The upstream answered something lately.
        is_answering: bool,
    },
    /// Nothing was answered on it for too long.
    Silent {
        /// The connection took new queries until then.
        was_open: bool,
        /// How many queries were answered on it.
        answers: u64,
        /// How many queries without an answer were sent to this upstream first: copies of what
        /// another one left unanswered are no fair sample.
        own: usize,
        /// An answer is arriving as fast as the path lets it.
        is_slow: bool,
        /// Several queries met silence on an earlier connection, too, and nothing else was heard since.
        was_silent_before: bool,
        /// Another upstream is usable.
        has_another: bool,
    },
}

/// Whose fault the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Servers may close connections, and names may be slow.
    Nobody,
    /// This query fails alone.
    Query(Id),
    /// The upstream has failed.
    Upstream,
    /// The only query may be as bad as others before it, or the upstream fails them all.
    Unclear,
}

/// Whose fault it is that a connection ended so.
///
/// A query that was alone on a connection that closed without any answer, and lost all before it, or whose
/// answer was bad twice (RFC 5625 section 6.3), fails alone. A server that closes its connections with others
/// on them does so whatever it is asked. What an answer to one query is worth says nothing about the others.
pub(crate) fn blame(end: &End<'_>) -> Blame {
    match *end {
        End::BadAnswer { query, bad_answers: 2.. } => Blame::Query(query),
        End::Lost {
            was_open: true,
            answers: 0,
            unanswered: [only],
            has_lost_before: true,
            was_on_all: true,
            ..
        } => Blame::Query(*only),
        End::Lost {
            was_open: true,
            answers: 0,
            unanswered: [_, ..],
            has_lost_before: false,
            is_answering: false,
            ..
        }
        | End::Silent { was_open: true, answers: 0, own: 1.., is_slow: false, .. }
        | End::Silent {
            was_open: true,
            answers: 1..,
            own: SILENCE_MIN..,
            is_slow: false,
            was_silent_before: true,
            has_another: true,
        } => Blame::Upstream,
        End::Lost { was_open: true, answers: 0, unanswered: [_], .. } => Blame::Unclear,
        End::BadAnswer { .. } | End::Lost { .. } | End::Silent { .. } => Blame::Nobody,
    }
}

/// Queries that wait on a connection without a sign of life.
pub(super) const SILENCE_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::arena::Arena;

    #[test]
    fn whose_fault_a_bad_answer_is() {
        let [query] = ids();
        let of = |bad_answers| blame(&End::BadAnswer { query, bad_answers });
        assert_eq!([1, 2, 3].map(of), [Blame::Nobody, Blame::Query(query), Blame::Query(query)]);
    }

    #[test]
    fn whose_fault_a_lost_connection_is() {
        let two: [Id; 2] = ids();
        let [one, none] = [&two[..1], &[][..]];
        // Whether it was open, how many were answered, who waited, whether one had lost another before, and
        // all that were lost, and whether the upstream answers.
        let cases = [
            (true, 0, one, [false, true], false, Blame::Upstream),
            (true, 0, one, [false, false], false, Blame::Upstream),
            (true, 0, &two[..], [false, false], false, Blame::Upstream),
            (true, 0, none, [false, false], false, Blame::Nobody),
            // Other queries were answered a moment ago, ...
            (true, 0, &two[..], [false, false], true, Blame::Nobody),
            // ... so it is one of these, which are told apart when they are alone.
            (true, 0, one, [false, true], true, Blame::Unclear),
            // The query may be what brings connections down, ...
            (true, 0, one, [true, true], false, Blame::Query(two[0])),
            (true, 0, one, [true, true], true, Blame::Query(two[0])),
            // ... but which of several is not known, ...
            (true, 0, &two[..], [true, true], false, Blame::Nobody),
            // ... and others were lost without it.
            (true, 0, one, [true, false], false, Blame::Unclear),
            // A connection that was of use may close freely, ...
            (true, 1, one, [false, true], false, Blame::Nobody),
            (true, 1, one, [true, true], false, Blame::Nobody),
            // ... and so may one that took no more queries.
            (false, 0, one, [false, true], false, Blame::Nobody),
            (false, 0, one, [true, true], false, Blame::Nobody),
        ];
        for (was_open, answers, unanswered, losses, is_answering, expected) in cases {
            let [has_lost_before, was_on_all] = losses;
            let end = End::Lost {
                was_open,
                answers,
                unanswered,
                has_lost_before,
                was_on_all,
                is_answering,
            };
            assert_eq!(blame(&end), expected, "{end:?}");
        }
    }

    #[test]
    fn whose_fault_silence_is() {
        const SOME: usize = SILENCE_MIN - 1;
        // Whether it was open, how many were answered, how many of its own wait, whether an answer is
        // arriving, whether an earlier one was silent, whether there is another upstream.
        let cases = [
            (true, 0, 1, false, false, false, Blame::Upstream),
            (true, 0, SILENCE_MIN, false, true, true, Blame::Upstream),
            // Copies of what another left unanswered, an answer on its way, a connection given up before.
            (true, 0, 0, false, true, true, Blame::Nobody),
            (true, 0, 1, true, false, false, Blame::Nobody),
            (false, 0, 1, false, false, false, Blame::Nobody),
            // One that was of use: not for a few names, nor the first time, nor for want of a better one.
            (true, 1, SILENCE_MIN, false, true, true, Blame::Upstream),
            (true, 1, SOME, false, true, true, Blame::Nobody),
            (true, 1, SILENCE_MIN, false, false, true, Blame::Nobody),
            (true, 1, SILENCE_MIN, false, true, false, Blame::Nobody),
            (true, 1, SILENCE_MIN, true, true, true, Blame::Nobody),
            (false, 1, SILENCE_MIN, false, true, true, Blame::Nobody),
        ];
        for (was_open, answers, own, is_slow, was_silent_before, has_another, expected) in cases {
            let end =
                End::Silent { was_open, answers, own, is_slow, was_silent_before, has_another };
            assert_eq!(blame(&end), expected, "{end:?}");
        }
    }

    fn ids<const N: usize>() -> [Id; N] {
        let mut arena = Arena::with_capacity(N);
        [(); N].map(|()| arena.insert(()))
    }
}
