//! Queries: what clients asked and is not answered yet.

pub(crate) mod fair_share;
pub(crate) mod query;
pub(crate) mod retransmissions;

use super::collections::arena::{Arena, Id};
use super::collections::timeouts::Timeouts;
use super::limits::Limits;
use fair_share::Shares;
use query::{Messages, Query};
use retransmissions::Joinable;

/// All queries, and what is known of them by key.
#[derive(Debug)]
pub(crate) struct Queries {
    table: Arena<Query>,
    pub(crate) messages: Messages,
    /// Responses owed to clients: one for each query, and one for each retransmission that joined.
    pub(crate) owed: usize,
    /// All queries, by key.
    pub(crate) by_arrival: Timeouts,
    /// Keys of queries that are to be sent, oldest first.
    pub(crate) queue: Timeouts,
    /// Keys of queries with an answer that is kept while a better one may come.
    pub(crate) kept: Timeouts,
    /// What clients hold of the table.
    pub(crate) shares: Shares,
    /// What retransmissions join.
    pub(crate) joinable: Joinable,
}

impl Queries {
    pub(crate) fn new(limits: &Limits, seed: u64) -> Self {
        let queries_max = limits.queries_max;
        Self {
            table: Arena::with_capacity(queries_max),
            messages: Messages::new(queries_max, limits.query_bytes_max),
            owed: 0,
            by_arrival: Timeouts::with_capacity(queries_max),
            queue: Timeouts::with_capacity(queries_max),
            kept: Timeouts::with_capacity(queries_max),
            shares: Shares::new(seed, queries_max),
            joinable: Joinable::new(seed, queries_max),
        }
    }

    pub(crate) fn insert(&mut self, query: Query) -> Id {
        self.table.insert(query)
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Query> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut Query> {
        self.table.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<Query> {
        self.table.remove(id)
    }

    /// A copy of the message of a query; `None` if there is no room for a long one.
    pub(crate) fn store_copy(&mut self, id: Id) -> Option<Vec<u8>> {
        self.messages.store(&self.table.get(id)?.message)
    }

    /// The query of this key.
    pub(crate) fn id_at(&self, key: usize) -> Option<Id> {
        self.table.id_at(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Every query, in order of key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &Query)> {
        self.table.iter()
    }
}
