//! How much memory the forwarder takes at most.

use std::time::Instant;

use super::action::Action;
use super::clients::Clients;
use super::clients::client::{Client, QUERIES_KEPT};
use super::clients::response_size::UDP_SIZE_MAX;
use super::collections::arena::{Arena, Id};
use super::collections::output::StreamOutput;
use super::datagrams::DatagramOutput;
use super::denial::Denials;
use super::late_answers::LateAnswers;
use super::limits::Limits;
use super::message::frame::{FRAME_LEN_MAX, GROWTH_MIN, KEPT_CAPACITY_MAX};
use super::queries::Queries;
use super::queries::held_max;
use super::queries::query::{HeldAnswer, Messages, Query};
use super::second_opinion::HELD_LEN_MAX;
use super::upstreams::Upstreams;
use super::upstreams::connection::UpstreamConn;
use super::upstreams::upstream::Upstream;

/// Something that takes memory: so many of it, of so many octets each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// In a few words.
    pub what: &'static str,
    /// How many there are at most.
    pub times: usize,
    /// How large each is at most.
    pub octets: usize,
}

impl Term {
    /// A term.
    pub fn new(what: &'static str, times: usize, octets: usize) -> Self {
        Self { what, times, octets }
    }

    /// All of them together.
    pub fn sum(&self) -> usize {
        self.times * self.octets
    }
}

/// What a forwarder allocates at most.
#[derive(Clone, Debug)]
pub struct MemoryBound {
    /// What it holds.
    pub terms: Vec<Term>,
    /// How much of that it has from the start and keeps.
    pub kept: usize,
    /// What it allocates besides while it handles an event.
    pub in_hand: usize,
}

/// What the forwarder allocates at most with these limits and so many upstreams, in terms of the sizes of
/// its own structures.
///
/// Tables have their full size from the start; what grows beside them is bounded by `limits`, with what
/// growing itself takes.
pub fn memory_bound(limits: &Limits, upstreams: usize) -> MemoryBound {
    let queries = limits.queries_max;
    let query = Arena::<Query>::octets(1) + Messages::OCTETS_EACH;
    // The lists of what clients are owed are at least a quarter full.
    let owed = 4 * queries * size_of::<Id>() + limits.clients_max * QUERIES_KEPT * size_of::<Id>();
    let kept_tables = Queries::octets(queries);
    let tables = kept_tables + owed;

    let conns = limits.client_keys_max() + limits.upstream_keys_max();
    // What a turn has to do: up to four things for each connection, and a few lines for each upstream.
    let actions = (4 * conns + 8 * upstreams + 16).next_power_of_two() * size_of::<Action>();
    let kept_connections = Upstreams::octets(limits) + Clients::octets(limits);
    let connections = kept_connections + actions;
    let idle = KEPT_CAPACITY_MAX + GROWTH_MIN + StreamOutput::octets(0, limits.output_kept);
    let client = size_of::<Client>() + idle;
    let held = StreamOutput::octets(limits.client_bytes_max, 0);
    let upstream_conn = size_of::<UpstreamConn>()
        + UpstreamConn::table_octets(limits)
        + idle
        + StreamOutput::octets(limits.upstream_output_max, 0);
    let datagrams = DatagramOutput::octets(
        limits.datagram_bytes_max,
        limits.datagrams_max,
        UDP_SIZE_MAX.into(),
    );
    let late_answers =
        LateAnswers::octets(limits.late_answers_max(), limits.late_answer_bytes_max());
    let query_log = if limits.query_log.is_some() { limits.query_log_max } else { 0 };
    let terms = vec![
        Term::new("query", queries, query),
        Term::new("tables of queries", 1, tables),
        Term::new("queries over 512 octets", 1, limits.query_bytes_max),
        Term::new(
            "answer kept for a better one",
            held_max(queries),
            size_of::<HeldAnswer>() + HELD_LEN_MAX,
        ),
        Term::new("tables of connections", 1, connections),
        Term::new("client", limits.clients_max, client),
        Term::new("what clients hold", 1, held),
        Term::new("upstream", upstreams, size_of::<Upstream>() + WORDS),
        Term::new("connection to an upstream", limits.upstream_conns_max, upstream_conn),
        Term::new("what upstreams hold", 1, limits.upstream_bytes_max),
        Term::new("answers by datagram", 1, datagrams),
        Term::new("late answers by datagram", 1, late_answers),
        Term::new("proofs about special zones", 1, Denials::OCTETS),
        Term::new("query log", 1, query_log),
    ];

    // The queries that a connection loses: as they are taken from it and from those bound for its
    // upstream, sorted and queued, in lists that double.
    let lost = queries * (4 * size_of::<Id>() + 3 * size_of::<(Instant, Id)>());
    // The message that is looked at, and a buffer that is moved to a larger one.
    let in_hand = FRAME_LEN_MAX + held.max(2 * FRAME_LEN_MAX) + lost;
    let kept = Arena::<Query>::octets(queries) + kept_tables + kept_connections;
    MemoryBound { terms, kept, in_hand }
}

/// Names and reasons in words, some of them twice: a certificate that is for other names than ours is told
/// with four of them.
const WORDS: usize = 4 * 1024;
