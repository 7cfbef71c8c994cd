//! A forwarder: plain DNS over UDP and TCP comes in, DNS over TLS (RFC 7858) goes out.
//!
//! The program is one thread with one event loop. The *core*, [`forwarder`], decides everything that happens
//! to a query. It has no sockets and no clock, so that a simulator can judge it. The *shell* around the core
//! moves octets and tells the core events.
//!
//! ```text
//!   clients                                                                  upstreams
//!          ┌───────────────────────────── shell ──────────────────────────────┐
//!   UDP ───┤ listener, datagram ─┐           reactor           ┌─ upstream ───├─── TLS
//!   TCP ───┤ listener, client ───┤                             │  stream, tls ├─── TLS
//!          └─────────────────────┼─────────────────────────────┼──────────────┘
//!                       handle_* │   poll_*, output, datagrams │
//!          ┌─────────────────────▼───── forwarder ─────────────▲──────────────┐
//!          │  clients ── accept ──▶ queries ── dispatch, hedge ──▶ upstreams  │
//!          │  clients ◀─ finish ── queries ◀─ answer, failure ─── upstreams   │
//!          └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The shell calls `handle_*` for each thing that happened. Once in a turn of its loop it does what
//! [`poll_action`](forwarder::Forwarder::poll_action) asks for and sends what is to be sent. The core never
//! calls out.
//!
//! - [`config`]: the command line; every default and limit with its reason.
//! - [`commands`]: subcommands that serve nobody, and may wait: `check` and `health`.
//! - [`forwarder`]: the core. `accept` makes a query of a client's message, or answers the message; `dispatch`
//!   sends waiting queries to upstreams; `hedge` sends copies of late ones; `answer` judges responses;
//!   `second_opinion` asks another operator after SERVFAIL and REFUSED; `failure` does what follows
//!   for queries from a connection that closed or fell silent, a `loss`; `finish` is the only way out for a query; `denial` holds proofs about special names; `report` and
//!   `query_log` are what the log says; `outbox` holds what the shell is to do; `limits` and `bound` are what is
//!   held, and how much memory that takes.
//!   - `clients`: who is served, how many connections, how much each may hold, how large a response may be.
//!   - `queries`: queries without an answer, whose share of the table they take, and their retransmissions.
//!   - `upstreams`: servers, connections to them, message IDs in flight, failures and speed.
//!   - `message`: DNS messages as octets: what is read of them, changed in them, and answered here.
//!   - `collections`: arenas, timers, budgets and buffers that know nothing of DNS.
//! - [`shell`]: the `reactor`, which is the event loop and the one place that reads the clock; `listener`;
//!   sockets of a `client` and to an `upstream`; `reload`, which reads files again, and
//!   `changes`, what that makes other; and what both do with a `stream`; `datagram`, UDP in batches,
//!   and `path`, what TCP knows of a connection, the two unsafe files.
//! - [`tls`]: rustls over any reader and writer; whom it trusts, by roots, names and pins; whom it says we are;
//!   session tickets.
//! - [`host`]: signals, clocks that are set or stood still, changes of the network, open files, the rights that
//!   are given up and the sandbox that is entered before anybody is served, and a standard error output that
//!   never blocks.
//! - [`memory`]: how much memory all of that takes at most.
//!
//! `tests/layering.rs` has the table of which part may use which.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod commands;
pub mod config;
pub mod forwarder;
pub mod host;
pub mod memory;
pub mod shell;
pub mod tls;
