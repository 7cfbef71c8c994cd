//! Stories about the forwarder, each with one rule for a moral, told with times.
//!
//! Servers are healthy unless a story says otherwise: 20 ms to connect, 10 ms to answer. The judge of
//! the simulator listens to all of them: every response is checked, every query must get exactly one
//! before its deadline, and each story ends with a shutdown that must leave nothing behind.

#![expect(clippy::unchecked_time_subtraction, reason = "an underflow fails the story")]

mod client_access;
mod client_limits;
mod client_tcp;
mod client_udp;
mod interactions;
mod private_answers;
mod query_hedge;
mod query_poison;
mod query_second_opinion;
mod query_signed;
mod shutdown;
mod special_names;
mod upstream_answers;
mod upstream_attempts;
mod upstream_choice;
mod upstream_closes;
mod upstream_edns;
mod upstream_limits;
mod upstream_quiet;
mod upstream_reload;
mod upstream_stalls;

use std::time::Duration;

use dot_proxy::forwarder::{Closed, Limits, Policy};

use simulator::dns::{self, NOERROR, SERVFAIL};
use simulator::{Ask, Attempt, Do, Response, Server, Step, World, default_limits, default_policy};

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

/// An answer that says for how long the connection may idle, in units of 100 ms (RFC 7828).
fn allowing(ask: &Ask<'_>, units: u16) -> Vec<Step> {
    let answer = dns::answer_with_option(ask.message, ask.serial, 11, &units.to_be_bytes());
    vec![Step::after(10, Do::Answer(answer))]
}

/// A query with this message ID and a SIG(0) (RFC 2931), which covers the ID.
fn ask_with_sig0(w: &mut World, name: &str, id: u16) {
    let mut message = dns::query(id, name, dns::A, None);
    message[11] = 1;
    // SIG (24) of class ANY, type covered 0, with as many octets as its fields have.
    message.extend([0, 0, 24, 0, 255, 0, 0, 0, 0, 0, 19]);
    message.extend([0; 19]);
    let path = w.next_path();
    w.datagram(path, message);
}

/// A query with an option of `len` octets in its OPT record.
fn long_question(id: u16, name: &str, len: u16) -> Vec<u8> {
    let mut message = dns::query(id, name, dns::A, None);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    message.extend((len + 4).to_be_bytes());
    message.extend([0xfd, 0xe9]);
    message.extend(len.to_be_bytes());
    message.resize(message.len() + usize::from(len), 0);
    message
}

/// Servers of these operators.
fn world_of(policy: Policy, operators: &[usize]) -> World {
    let servers = operators.iter().map(|_| Server::healthy()).collect();
    World::with_policy(default_limits(), policy, servers, operators, 1)
}
