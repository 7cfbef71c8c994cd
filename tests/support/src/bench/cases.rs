//! What the forwarders are asked.

use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::bench::load::Pace::{self, InFlight, Rate};
use crate::bench::load::Transport::{self, Tcp, Udp};

/// A load, and the upstream behind the forwarder.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub transport: Transport,
    pub clients: u16,
    pub pace: Pace,
    pub upstream: Kind,
    pub forwarders: Forwarders,
    /// Tried in quick mode, too.
    pub quick: bool,
}

/// The forwarders that a case is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Forwarders {
    All,
    /// One process of dot-proxy, and two that share a port.
    OneAndTwo,
}

/// An upstream by what it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub version: &'static SupportedProtocolVersion,
    pub delay: Duration,
}

impl Case {
    /// With a fixed number of queries in flight and an upstream that answers at once, the forwarder or
    /// the load has all it can do.
    pub fn saturates(&self) -> bool {
        matches!(self.pace, InFlight(_)) && self.upstream.delay.is_zero()
    }

    /// dnsperf can ask the same.
    pub fn has_check(&self) -> bool {
        matches!(self.pace, Rate(_)) && self.upstream == QUICK
    }
}

const QUICK: Kind = Kind { version: &TLS13, delay: Duration::ZERO };
const OLD: Kind = Kind { version: &TLS12, delay: Duration::ZERO };
const SLOW: Kind = Kind { version: &TLS13, delay: Duration::from_millis(20) };
const SLOWER: Kind = Kind { version: &TLS13, delay: Duration::from_millis(200) };

/// What most cases are variations of.
const BASE: Case = Case {
    name: "",
    what: "",
    transport: Udp,
    clients: 8,
    pace: InFlight(IN_FLIGHT),
    upstream: QUICK,
    forwarders: Forwarders::All,
    quick: false,
};

/// Enough that nobody runs out of queries, little enough that they fit into the receive buffer of a
/// socket for which nothing was set.
const IN_FLIGHT: u32 = 200;

pub const CASES: &[Case] = &[
    Case {
        name: "udp-1k",
        what: "UDP, 1,000 queries a second",
        pace: Rate(1_000),
        quick: true,
        ..BASE
    },
    Case { name: "udp-10k", what: "UDP, 10,000 queries a second", pace: Rate(10_000), ..BASE },
    Case { name: "udp-max", what: "UDP, 200 in flight, TLS 1.3", quick: true, ..BASE },
    Case {
        name: "tcp-1k",
        what: "8 TCP clients, 1,000 queries a second",
        transport: Tcp,
        pace: Rate(1_000),
        ..BASE
    },
    Case {
        name: "tcp-10k",
        what: "8 TCP clients, 10,000 queries a second",
        transport: Tcp,
        pace: Rate(10_000),
        ..BASE
    },
    Case {
        name: "tcp-max",
        what: "8 TCP clients, 200 in flight, TLS 1.3",
        transport: Tcp,
        quick: true,
        ..BASE
    },
    Case {
        name: "tcp-150",
        what: "150 TCP clients, 300 in flight",
        transport: Tcp,
        clients: 150,
        pace: InFlight(300),
        ..BASE
    },
    Case {
        name: "udp-4000",
        what: "UDP, 4,000 in flight, the upstream answers after 200 ms",
        pace: InFlight(4_000),
        upstream: SLOWER,
        ..BASE
    },
    Case {
        name: "udp-slow",
        what: "UDP, 5,000 queries a second, the upstream answers after 20 ms",
        pace: Rate(5_000),
        upstream: SLOW,
        ..BASE
    },
    Case { name: "udp-tls1.2", what: "UDP, 200 in flight, TLS 1.2", upstream: OLD, ..BASE },
    Case {
        name: "udp-two",
        what: "64 UDP clients, 400 in flight, one process against two",
        clients: 64,
        pace: InFlight(400),
        forwarders: Forwarders::OneAndTwo,
        ..BASE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (n, case) in CASES.iter().enumerate() {
            assert!(CASES[..n].iter().all(|other| other.name != case.name), "{}", case.name);
            assert!(!case.what.is_empty(), "{}", case.name);
        }
    }
}
