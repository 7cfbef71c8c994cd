//! The byte-level view of messages and what is edited in them, on generated and on damaged messages,
//! against the `domain` crate.
//!
//! Every case has a seed of its own, which a failure prints; `CASE_SEED=n` runs that one alone.
#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod edited;
mod generate;
mod judged;
mod plan;
mod view;
