//! The real program on hosts and networks that misbehave: few descriptors, a wrong clock, ports that
//! are taken, routes that change.
//!
//! Networks are broken in network namespaces of the tests' own, which need root. What a machine
//! cannot do is skipped with a line that says so, see [`support::skip`].

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "what is offered to the tests need not all be used by these"
)]
mod support;

mod addresses;
mod clock;
mod crowds;
mod descriptors;
mod end;
mod interfaces;
mod loops;
mod many;
mod namespace;
mod network;
mod observe;
mod pause;
mod sandbox;
mod sharing;
mod signals;
mod start;
mod statements;
mod steady;
mod terminal;
