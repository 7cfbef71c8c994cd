//! The real program on hosts and networks that misbehave: few descriptors, a wrong clock, ports that
//! are taken, routes that change.
//!
//! Networks are broken in network namespaces of the tests' own, which need root. What a machine
//! cannot do is skipped with a line that says so, see [`support::skip`].

mod access;
mod addresses;
mod clock;
mod container;
mod crowds;
mod descriptors;
mod end;
mod floods;
mod health;
mod interfaces;
mod loops;
mod many;
mod network;
mod observe;
mod pause;
mod restarts;
mod rights;
mod sandbox;
mod service;
mod sharing;
mod signals;
mod start;
mod statements;
mod steady;
mod terminal;
