//! Stories about the forwarder, each with one rule for a moral, told with times.
//!
//! Servers are healthy unless a story says otherwise: 20 ms to connect, 10 ms to answer. The judge of
//! the simulator listens to all of them: every response is checked, every query must get exactly one
//! before its deadline, and each story ends with a shutdown that must leave nothing behind.

#![expect(clippy::unchecked_time_subtraction, reason = "an underflow fails the story")]

mod answers;
mod attempts;
mod choice;
mod closes;
mod copies;
mod corners;
mod datagrams;
mod dead_ends;
mod experience;
mod half_dead;
mod in_turn;
mod limits;
mod objections;
mod once;
mod places;
mod poison;
mod silence;
#[path = "../sim_support/mod.rs"]
mod sim_support;
mod special;
mod streams;

use std::time::Duration;

use dot_proxy::forwarder::{Closed, Limits};

use sim_support::dns::{self, NOERROR, SERVFAIL};
use sim_support::{
    Ask, Attempt, Do, Response, Server, Step, What, World, default_limits, default_policy,
};

/// Healthy servers, as many as named, and nothing asked yet.
fn world(servers: usize) -> World {
    World::new(default_limits(), (0..servers).map(|_| Server::healthy()).collect(), 1)
}

/// The same, with the first connection to the first server open: one query was answered on it.
fn warm(servers: usize) -> World {
    let mut w = world(servers);
    w.ask("warm.example.");
    w.run_ms(30);
    assert_eq!(w.response("warm.example.").rcode, NOERROR);
    w
}

/// One server, a round trip of this many milliseconds away.
fn distant(round_trip: u64) -> World {
    let mut w = world(1);
    w.servers[0].attempts(Attempt::good(round_trip));
    w.servers[0].replies(move |ask| vec![ask.answer_after(round_trip)]);
    w
}

fn with_limits(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = default_limits();
    change(&mut limits);
    World::new(limits, vec![Server::healthy()], 1)
}

fn end(mut w: World) {
    w.finish();
}

/// What a server says instead of an answer.
type Spoil = fn(&Ask<'_>) -> Vec<u8>;

fn numbered(n: u32) -> String {
    format!("n{n}.example.")
}

fn question(n: u32) -> Vec<u8> {
    dns::query(n as u16, &numbered(n), dns::A, None)
}

fn close_after(milliseconds: u64) -> Step {
    Step::after(milliseconds, Do::Close(Closed::Eof))
}

fn slow_name(ask: &Ask<'_>) -> Vec<Step> {
    vec![ask.answer_after(if ask.name == "slow.example." { 3000 } else { 10 })]
}

/// An answer to another question.
fn wrong_question(ask: &Ask<'_>) -> Vec<u8> {
    let other = dns::query(id_of(ask.message), "other.example.", dns::A, None);
    dns::answer(&other, ask.serial, NOERROR, 0)
}

fn id_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// How many got SERVFAIL.
fn failures(w: &World) -> usize {
    w.oracle.responses.iter().filter(|response| response.rcode == SERVFAIL).count()
}

fn slowest(w: &World) -> Duration {
    w.oracle.responses.iter().map(Response::took).max().unwrap_or_default()
}

/// How often servers saw the query for `name`.
fn copies(w: &World, name: &str) -> usize {
    w.links.iter().flat_map(|link| &link.seen).filter(|seen| seen.name == name).count()
}
