//! The programs of the benchmark: a DoT server that answers everything, a forwarder that does nothing
//! but forward, and who asks.
//!
//! They do as little as their work allows, as each is held against a forwarder that has to share the
//! machine with them. None of them is of use for anything else: they trust whoever sends to them.

pub(crate) mod bare_loop;
pub(crate) mod cpu;
mod datagrams;
mod frames;
pub(crate) mod histogram;
pub(crate) mod load;
pub(crate) mod queries;
mod tls;
pub(crate) mod upstream;
