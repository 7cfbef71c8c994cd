//! Whose fault the end of a connection is.

use crate::forwarder::collections::arena::Id;
use crate::forwarder::loss::{Lost, Met};

/// Whose fault the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Servers may close connections.
    Nobody,
    /// This query fails alone.
    Query(Id),
    /// The upstream has failed.
    Upstream,
    /// The only query may be as bad as others before it, or the upstream fails them all.
    Unclear,
}

/// Whose fault it is that a connection was lost.
///
/// A query that was alone on a connection that closed without any answer, and lost all before it, or whose
/// answer was bad twice (RFC 5625 section 6.3), fails alone. A server that closes its connections with others
/// on them does so whatever it is asked. What an answer to one query is worth says nothing about the others.
pub(super) fn blame(lost: &Lost, met: Met) -> Blame {
    match (lost.victim, &lost.unanswered[..]) {
        (Some(query), _) if met.bad_answers >= 2 => Blame::Query(query),
        (Some(_), _) | (None, []) => Blame::Nobody,
        _ if !lost.was_open || lost.answers > 0 => Blame::Nobody,
        (None, [only]) if met.losses > 0 && met.losses.saturating_add(1) >= lost.in_a_row => {
            Blame::Query(*only)
        }
        _ if met.losses == 0 && !lost.is_answering => Blame::Upstream,
        (None, [_]) => Blame::Unclear,
        _ => Blame::Nobody,
    }
}

/// The silence of a connection that took new queries, and on which no answer arrives in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silent {
    /// How many queries were answered on the connection.
    pub(super) answers: u64,
    /// How many queries without an answer were sent to this upstream first: copies of what another one left
    /// unanswered are no fair sample.
    pub(super) own: usize,
    /// The upstream has answered on another connection since this one was made, or on one that is open.
    pub(super) answers_elsewhere: bool,
    /// Several queries met silence on an earlier connection, too, and nothing else was heard since.
    pub(super) was_silent_before: bool,
    /// Another upstream is usable.
    pub(super) has_another: bool,
}

/// Whether the upstream has failed that is so silent. Names may be slow.
pub(super) fn is_deaf(silent: Silent) -> bool {
    match silent.answers {
        0 => silent.own > 0 && !silent.answers_elsewhere,
        _ => silent.own >= SILENCE_MIN && silent.was_silent_before && silent.has_another,
    }
}

/// Queries that wait on a connection without a sign of life.
pub(super) const SILENCE_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::UpstreamIndex;
    use crate::forwarder::collections::arena::Arena;
    use crate::forwarder::collections::conn_table::ConnTable;
    use crate::forwarder::loss::LastFailure;

    #[test]
    fn whose_fault_a_bad_answer_is() {
        let (lost, [query, _]) = lost();
        let lost = Lost { victim: Some(query), ..lost };
        let of = |bad_answers| blame(&lost, Met { losses: 0, bad_answers });
        assert_eq!([1, 2, 3].map(of), [Blame::Nobody, Blame::Query(query), Blame::Query(query)]);
    }

    #[test]
    fn whose_fault_a_lost_connection_is() {
        let (all, two) = lost();
        // Whether it was open, how many were answered, how many waited, how many connections one of these had
        // lost before, how many were lost in a row, and whether the upstream answers.
        let cases = [
            (true, 0, 1, (0, 1), false, Blame::Upstream),
            (true, 0, 1, (0, 2), false, Blame::Upstream),
            (true, 0, 2, (0, 2), false, Blame::Upstream),
            (true, 0, 0, (0, 0), false, Blame::Nobody),
            // Other queries were answered a moment ago, ...
            (true, 0, 2, (0, 2), true, Blame::Nobody),
            // ... so it is one of these, which are told apart when they are alone.
            (true, 0, 1, (0, 1), true, Blame::Unclear),
            // The query may be what brings connections down, ...
            (true, 0, 1, (1, 2), false, Blame::Query(two[0])),
            (true, 0, 1, (1, 2), true, Blame::Query(two[0])),
            // ... but which of several is not known, ...
            (true, 0, 2, (1, 2), false, Blame::Nobody),
            // ... and others were lost without it.
            (true, 0, 1, (1, 3), false, Blame::Unclear),
            // A connection that was of use may close freely, ...
            (true, 1, 1, (0, 1), false, Blame::Nobody),
            (true, 1, 1, (1, 2), false, Blame::Nobody),
            // ... and so may one that took no more queries.
            (false, 0, 1, (0, 0), false, Blame::Nobody),
            (false, 0, 1, (1, 1), false, Blame::Nobody),
        ];
        for (was_open, answers, waited, (losses, in_a_row), is_answering, expected) in cases {
            let unanswered = two[..waited].to_vec();
            let lost =
                Lost { unanswered, answers, was_open, in_a_row, is_answering, ..all.clone() };
            let met = Met { losses, bad_answers: 0 };
            assert_eq!(blame(&lost, met), expected, "{lost:?} {met:?}");
        }
    }

    #[test]
    fn whose_fault_silence_is() {
        const SOME: usize = SILENCE_MIN - 1;
        // How many were answered, how many of its own wait, whether an earlier one was silent, whether there is
        // another upstream.
        let cases = [
            (0, 1, false, false, true),
            (0, SILENCE_MIN, true, true, true),
            // Copies of what another left unanswered.
            (0, 0, true, true, false),
            // One that was of use: not for a few names, nor the first time, nor for want of a better one.
            (1, SILENCE_MIN, true, true, true),
            (1, SOME, true, true, false),
            (1, SILENCE_MIN, false, true, false),
            (1, SILENCE_MIN, true, false, false),
        ];
        for (answers, own, was_silent_before, has_another, expected) in cases {
            let silent =
                Silent { answers, own, answers_elsewhere: false, was_silent_before, has_another };
            assert_eq!(is_deaf(silent), expected, "{silent:?}");
            let elsewhere = Silent { answers_elsewhere: true, ..silent };
            assert_eq!(is_deaf(elsewhere), expected && answers > 0, "{elsewhere:?}");
        }
    }

    /// A connection that was lost, and two queries.
    fn lost() -> (Lost, [Id; 2]) {
        let mut arena = Arena::with_capacity(2);
        let upstream = UpstreamIndex::new(0);
        let lost = Lost {
            conn: ConnTable::with_capacity(1).insert(()),
            failure: LastFailure { upstream, what: "", code: 0, broke_number: 0 },
            victim: None,
            unanswered: Vec::new(),
            answers: 0,
            was_open: true,
            in_a_row: 0,
            is_answering: false,
        };
        (lost, [(); 2].map(|()| arena.insert(())))
    }
}
