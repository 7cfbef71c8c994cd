//! A forwarder of plain DNS to DNS over TLS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod config;
pub mod datagram;
pub mod forwarder;
mod listener;
pub mod reactor;
pub mod signals;
mod socket;
pub mod stderr;
pub mod tls;
mod words;
