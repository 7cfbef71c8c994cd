//! A simulated network around the real forwarder, for scripted stories and for the seeded simulator.
//!
//! The cut lies below connection reuse: the simulator is the shell. It executes actions, moves octets
//! in pieces of any size and tells events; all decisions about upstreams and clients are the
//! forwarder's. Time is virtual, and a run depends on its seed alone.
#![allow(missing_docs, reason = "most names say all that there is to say to a test")]

mod client;
mod copies;
pub mod dns;
mod events;
pub mod fuzz;
mod oracle;
mod outputs;
mod path;
mod rates;
mod server;
pub mod special;
mod story;
mod ways_round;
mod world;

use std::time::Duration;

use dot_proxy::config::{self, Command, Config, Host};
use dot_proxy::forwarder::{Limits, Policy};

pub use client::State;
pub use oracle::{Response, To};
pub use path::Manner;
pub use server::{Ask, Attempt, Direction, Do, Link, Seen, Server, Step};
pub use story::path_from;
pub use support::Random;
pub use world::{Roughness, What, World};

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What is done for a user who says nothing about it.
pub fn default_policy() -> Policy {
    default_config().policy
}

/// The limits a user gets who sets none.
pub fn default_limits() -> Limits {
    default_config().limits
}

fn default_config() -> Config {
    match config::parse(Vec::new(), Host::default()) {
        Ok(Command::Run(config)) => *config,
        other => panic!("no arguments are fine: {other:?}"),
    }
}
