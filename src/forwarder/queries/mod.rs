//! Queries: what clients asked and is not answered yet.

pub(crate) mod fair_share;
pub(crate) mod query;
pub(crate) mod retransmissions;
