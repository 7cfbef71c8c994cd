//! Where every query is, as debug builds assert between two events: a query that is nowhere would be answered
//! by nothing but the end of its time.

use super::Forwarder;
use super::collections::arena::Id;
use super::queries::query::{Origin, Query};
use super::queries::waiting::Next;

/// What a query that is not finished counts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    /// It waits to be sent, or for something to be usable.
    Waits,
    /// An answer is expected on a connection that is there.
    InFlight,
    /// A held answer is delivered if no better one comes.
    Holds,
    /// The proof about its special zone was asked for.
    AwaitsProof,
    /// It may not be sent again, and is in flight on a connection that stalled.
    Hopes,
    /// Its client is gone, and a late answer or its time ends it.
    Orphaned,
    /// On nothing.
    Lost,
}

impl Forwarder {
    /// Every query is somewhere.
    pub(super) fn assert_whereabouts(&self) {
        for id in self.queries.ids() {
            let Some(query) = self.queries.get(id) else {
                continue;
            };
            for sending in query.sendings.iter() {
                let conn = self.upstreams.conn(sending.conn);
                let is_known =
                    conn.is_some_and(|conn| conn.in_flight.query(sending.id) == Some(id));
                assert!(is_known, "{sending:?} is not known there: {query:?}");
            }
            let whereabouts = self.whereabouts(id, query);
            assert_ne!(whereabouts, Whereabouts::Lost, "{query:?}");
        }
    }

    fn whereabouts(&self, id: Id, query: &Query) -> Whereabouts {
        if query.is_orphan() {
            return Whereabouts::Orphaned;
        }
        if let Origin::Trial { upstream, .. } = query.origin
            && self.upstreams[upstream].outage().is_none_or(|outage| outage.trial != Some(id))
        {
            return Whereabouts::Lost;
        }
        if self.queries.next(id) != Next::Nowhere {
            Whereabouts::Waits
        } else if query.sendings.expects_answer() {
            Whereabouts::InFlight
        } else if query.held.is_some() {
            Whereabouts::Holds
        } else if query.is_special && self.denials.is_awaited_by(id) {
            Whereabouts::AwaitsProof
        } else if query.is_sent() && (query.is_trial() || !query.may_be_sent()) {
            Whereabouts::Hopes
        } else {
            Whereabouts::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::forwarder::tests::{base, forwarder, query};

    #[test]
    #[should_panic(expected = "Lost")]
    fn a_query_that_is_nowhere_is_found() {
        let mut forwarder = forwarder();
        let id = query(&mut forwarder, base());
        forwarder.queries.stop_waiting(id);
        forwarder.assert_whereabouts();
    }
}
