//! What dot-proxy is to be, and whether it is.

use std::fmt::Write as _;

use crate::bench::compare::{CaseResults, Results, Row, median};
use crate::bench::forwarders::Forwarder;
use crate::bench::measure::Sample;
use crate::bench::start::Start;
use crate::bench::table::{number, percent, time};

/// One target: what is wanted and seen, and whether that is enough; `None` if it cannot be said.
struct Target {
    what: String,
    seen: String,
    met: Option<bool>,
}

pub fn report(results: &Results) -> String {
    let mut targets = Vec::new();
    for (name, most) in [("udp-max", UDP_OF_BARE_MAX), ("tcp-max", TCP_OF_BARE_MAX)] {
        if let Some((case, ours)) = ours(results, name) {
            targets.push(of_bare_loop(case, ours, most));
        }
    }
    if let Some((case, ours)) = ours(results, "udp-max") {
        targets.push(of_best_peer(case, ours, OF_PEER_MAX));
    }
    for name in ["udp-1k", "tcp-1k"] {
        if let Some((case, ours)) = ours(results, name) {
            targets.push(of_best_peer(case, ours, 1.0));
            targets.push(latency(case, ours, "median", |sample| sample.median));
            targets.push(latency(case, ours, "99 %", |sample| sample.p99));
        }
    }
    for name in ["udp-max", "tcp-max"] {
        if let Some((case, ours)) = ours(results, name) {
            targets.push(throughput(case, ours, "CPU second", |sample| 1e6 / sample.cpu));
            let mut target = throughput(case, ours, "second", |sample| sample.rate);
            let busy = ours.median(|sample| sample.busy);
            if busy.is_none_or(|busy| busy < BUSY_MIN) {
                write!(target.seen, "; its core was only {} busy", percent(busy)).expect("memory");
                target.met = None;
            }
            targets.push(target);
        }
    }
    targets.extend(size(results));
    let mut text = String::from("\n");
    for Target { what, seen, met } in targets {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not judged",
        };
        writeln!(text, "{verdict}: {what}: {seen}").expect("memory");
    }
    text
}

fn ours<'a>(results: &'a Results, name: &str) -> Option<(&'a CaseResults, &'a Row)> {
    let case = results.cases.iter().find(|case| case.case.name == name)?;
    Some((case, case.find(Forwarder::is_ours)?))
}

fn of_bare_loop(case: &CaseResults, ours: &Row, most: f64) -> Target {
    let bare = case.find(Forwarder::is_bare_loop).and_then(Row::cpu);
    let ratio = ours.cpu().zip(bare).map(|(ours, bare)| ours / bare);
    Target {
        what: format!("{}, at most {most} times the CPU time of the bare loop", case.case.name),
        seen: format!(
            "{} µs against {} µs, {} times",
            number(ours.cpu()),
            number(bare),
            number(ratio)
        ),
        met: ratio.map(|ratio| ratio <= most),
    }
}

fn of_best_peer(case: &CaseResults, ours: &Row, most: f64) -> Target {
    let peer = case.best_peer(Row::cpu);
    let ratio = ours.cpu().zip(peer).map(|(ours, (_, peer))| ours / peer);
    Target {
        what: format!("{}, at most {most} times the CPU time of the best peer", case.case.name),
        seen: format!("{} µs against {}, {} times", number(ours.cpu()), named(peer), number(ratio)),
        met: ratio.map(|ratio| ratio <= most),
    }
}

fn latency(case: &CaseResults, ours: &Row, name: &str, of: fn(&Sample) -> f64) -> Target {
    let peer = case.best_peer(|row| row.median(of));
    let seen = ours.median(of);
    let named =
        peer.map_or("-".to_owned(), |(name, value)| format!("{name} with {}", time(Some(value))));
    Target {
        what: format!("{}, a latency ({name}) below every peer's", case.case.name),
        seen: format!("{} against {named}", time(seen)),
        met: seen.zip(peer).map(|(seen, (_, peer))| seen < peer),
    }
}

fn throughput(case: &CaseResults, ours: &Row, per: &str, of: fn(&Sample) -> f64) -> Target {
    let seen = ours.median(of);
    // The most is the least below zero.
    let peer = case.best_peer(|row| Some(-row.median(of)?)).map(|(name, value)| (name, -value));
    let ratio = seen.zip(peer).map(|(seen, (_, peer))| seen / peer);
    let named =
        peer.map_or("-".to_owned(), |(name, value)| format!("{name} with {}", number(Some(value))));
    Target {
        what: format!(
            "{}, at least {THROUGHPUT_MIN} times the queries per {per} of the best peer",
            case.case.name
        ),
        seen: format!("{} against {named}, {} times", number(seen), number(ratio)),
        met: ratio.map(|ratio| ratio >= THROUGHPUT_MIN),
    }
}

/// Memory, the binary and the start: of the static binary if there is one.
fn size(results: &Results) -> Vec<Target> {
    let is_static = |forwarder: &Forwarder| forwarder.name == "static";
    let found = results.starts.iter().find(|(forwarder, _)| is_static(forwarder));
    let found = found.or_else(|| results.starts.iter().find(|(forwarder, _)| forwarder.is_ours()));
    let Some((forwarder, starts)) = found else { return Vec::new() };
    let idle = median(starts.iter().map(|start| start.idle_kib).collect());
    let own = median(starts.iter().filter_map(Start::own).collect());
    let size = results.static_binary;
    let name = &forwarder.name;
    vec![
        Target {
            what: format!("{name}, at most {IDLE_KIB_MAX} KiB resident when idle"),
            seen: format!("{} KiB", number(idle)),
            met: idle.map(|idle| idle <= IDLE_KIB_MAX),
        },
        Target {
            what: format!(
                "{name}, at most {START_MAX} ms of CPU time to the first answer, the handshake excluded"
            ),
            seen: format!("{} ms", number(own)),
            met: own.map(|own| own <= START_MAX),
        },
        Target {
            what: format!("a static binary of at most {BINARY_MAX} octets"),
            seen: size.map_or("not built".to_owned(), |size| size.to_string()),
            met: size.map(|size| size <= BINARY_MAX),
        },
    ]
}

fn named(peer: Option<(&str, f64)>) -> String {
    peer.map_or("-".to_owned(), |(name, value)| format!("{name} with {} µs", number(Some(value))))
}

const UDP_OF_BARE_MAX: f64 = 1.4;
const TCP_OF_BARE_MAX: f64 = 1.6;
const OF_PEER_MAX: f64 = 0.2;
const THROUGHPUT_MIN: f64 = 4.0;
/// With less of its core used, the load is what limits a forwarder.
const BUSY_MIN: f64 = 0.9;
const IDLE_KIB_MAX: f64 = 4096.0;
const START_MAX: f64 = 5.0;
const BINARY_MAX: u64 = 3 << 20;
