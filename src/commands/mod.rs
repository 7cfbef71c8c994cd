//! Subcommands that serve nobody: each asks something, waits for the answer with a deadline, and ends.
//!
//! - [`check`]: how each upstream is, and what is wrong with those that are not usable.
//! - [`check_config`]: what of a configuration does not fit this host.
//! - [`health`]: whether the program that runs here answers.
#![allow(
    clippy::disallowed_methods,
    reason = "nobody is kept waiting here, so there is no reactor to read the clock"
)]

pub mod check;
pub mod check_config;
pub mod health;
