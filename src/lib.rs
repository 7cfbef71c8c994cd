//! A forwarder: plain DNS over UDP and TCP comes in, DNS over TLS (RFC 7858) goes out.
//!
//! One thread, one event loop. The *core*, [`forwarder`], decides everything that happens to a
//! query; it has no sockets and no clock, so that a simulator can judge it. The *shell* around it
//! moves octets and tells it facts.
//!
//! ```text
//!   clients                        the shell                              upstreams
//!            ┌──────────────────────────────────────────────────────┐
//!   UDP ─────┤ listener, datagram ─┐                 ┌─ socket, tls ├───── TLS
//!   TCP ─────┤ listener, socket ───┤     reactor     ├─ socket, tls ├───── TLS
//!            └─────────────────────┼────────┬────────┼──────────────┘
//!                         handle_* │        │        │ poll_action, output, datagrams
//!            ┌─────────────────────▼────────▼────────▼──────────────┐
//!            │ forwarder: intake → queue → dispatch → response, exit │
//!            │            client, upstream, loss, query, in_flight   │
//!            └──────────────────────────────────────────────────────┘
//! ```
//!
//! - [`config`]: the command line, every default and limit.
//! - [`reactor`]: the loop, and the one place that reads the clock; `listener` binds and accepts,
//!   `socket` reads and writes connections, in bursts (`burst`) and bounded segments (`outgoing`).
//! - [`datagram`]: UDP in batches, answered from the address that was asked; the one unsafe module.
//! - [`tls`]: rustls over any reader and writer, and whom it trusts; [`pin`]: keys that are trusted.
//! - `descriptors`: open files, and for whom they are; [`memory`]: how much of it is used at most.
//! - `clocks`: suspends, and a time of day that was set.
//! - [`signals`]: termination as an event; `network`: changes of routes and addresses as events;
//!   `interfaces`: their indexes, and addresses that cannot be used yet.
//! - [`stderr`]: log and query log, written only as far as they go at once.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod config;
pub mod forwarder;
pub mod host;
pub mod memory;
pub mod shell;
pub mod tls;
