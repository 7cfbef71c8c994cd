//! The programs of the benchmark: a DoT server that answers everything, a forwarder that does nothing
//! but forward, and who asks.
//!
//! They do as little as their work allows, as each is held against a forwarder that has to share the
//! machine with them. None of them is of use for anything else: they trust whoever sends to them.

pub mod bare_loop;
pub mod cases;
pub mod compare;
pub mod cpu;
mod datagrams;
pub mod delay;
pub mod flood;
pub mod forwarders;
mod frames;
pub mod histogram;
pub mod load;
pub mod machine;
pub mod measure;
pub mod paths;
pub mod programs;
pub mod queries;
pub mod start;
pub mod table;
pub mod targets;
mod tls;
pub mod upstream;
pub mod upstreams;
