//! Connections to upstreams that are lost: what is known of one, whoever knows it.

use super::Ede;
use super::action::{Manner, UpstreamConnId, UpstreamIndex};
use super::collections::arena::Id;
use super::measures::Reason;

/// How a connection was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// In words, for errors.
    pub(super) what: &'static str,
    /// The code of the Extended DNS Error.
    pub(super) code: u16,
    /// The query whose answer was no good; the others are not to blame.
    pub(super) victim: Option<Id>,
    pub(super) manner: Manner,
}

impl Loss {
    /// The connection was lost, and no answer on it is to blame.
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, code: Ede::NETWORK_ERROR, victim: None, manner: Manner::Orderly }
    }
}

/// A connection that was lost.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) conn: UpstreamConnId,
    pub(super) failure: LastFailure,
    /// The query whose answer was no good.
    pub(super) victim: Option<Id>,
    /// The queries that had no answer yet.
    pub(super) unanswered: Vec<Id>,
    /// How many queries were answered on it.
    pub(super) answers: u64,
    /// The connection took new queries until then.
    pub(super) was_open: bool,
    /// How many connections to the upstream were lost in a row, each with queries waiting.
    pub(super) in_a_row: u8,
    /// The upstream answered something lately.
    pub(super) is_answering: bool,
}

impl Lost {
    /// Nothing was ever answered on the connection, well or badly.
    pub(super) fn was_mute(&self) -> bool {
        self.answers == 0 && self.victim.is_none()
    }

    /// The query that may have brought the connection down.
    pub(super) fn suspect(&self) -> Option<Id> {
        match self.unanswered[..] {
            [only] if self.was_mute() => Some(only),
            _ => None,
        }
    }
}

/// What the queries on a connection that was lost had met before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Met {
    /// The most connections to this upstream that one of them had lost.
    pub(super) losses: u8,
    /// The answers to the victim that were no good, this one included.
    pub(super) bad_answers: u8,
}

/// Why a query may end without an upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastFailure {
    pub(super) upstream: UpstreamIndex,
    pub(super) what: &'static str,
    /// The code of the Extended DNS Error.
    pub(super) code: u16,
    /// The number of the upstream's reason, if a connection broke.
    pub(super) broke_number: u32,
}

impl LastFailure {
    /// Without a reason of the upstream.
    pub(super) fn new(upstream: UpstreamIndex, what: &'static str, code: u16) -> Self {
        Self { upstream, what, code, broke_number: 0 }
    }

    /// The same as a few are counted.
    pub(super) fn reason(&self) -> Reason {
        match (self.what, self.code) {
            (NO_ANSWER | NO_ANSWER_IN_TIME, _) => Reason::Timeout,
            (_, Ede::OTHER) => Reason::BadAnswer,
            _ => Reason::Lost,
        }
    }
}

/// The connection fell silent.
pub(super) const NO_ANSWER: &str = "no answer";

/// The query's time is over.
pub(super) const NO_ANSWER_IN_TIME: &str = "no answer in time";
