//! How much is served and held at a time: the numbers that `--size` sets, each in its three sizes.
//!
//! `small` is for routers with 16 MB of memory: whatever clients and upstreams do, the process and its
//! sockets stay under 6 MB. `large` is for hosts that serve thousands of clients.

use super::choice::Choice;
use super::numbers::UDP_SIZES;
use super::options::QUERY_TIMEOUT;
use super::presets::{CLOUDFLARE, PRESETS};
use crate::forwarder::{Limits, Rate, UPSTREAMS_MAX as INDEXES_MAX};

/// A set of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For routers.
    Small,
    /// For everyone else.
    Default,
    /// For many clients.
    Large,
}

impl Size {
    /// The word for the size on the command line.
    pub fn word(self) -> &'static str {
        Choice::word(self)
    }

    pub(super) const fn of<T: Copy>(self, sizes: [T; 3]) -> T {
        sizes[self as usize]
    }

    /// Upstreams at most.
    pub fn upstreams_max(self) -> usize {
        self.of(UPSTREAMS_MAX)
    }

    /// Upstreams that are asked, and others that are removed and have connections yet.
    pub fn upstream_indexes_max(self) -> usize {
        2 * self.upstreams_max()
    }

    /// Octets of a table of rates.
    pub fn rate_octets(self) -> usize {
        Rate::table_octets(self.of(RATE_PLACES))
    }

    /// What the sockets get.
    pub fn sockets(self) -> SocketLimits {
        SocketLimits {
            datagram_batch: self.of(DATAGRAM_BATCH),
            datagram_receive_asked: self.of(DATAGRAM_RECEIVE_ASKED),
            datagram_send_asked: self.of(DATAGRAM_SEND_ASKED),
            client_asked: self.of(CLIENT_ASKED),
            backlog: self.of(BACKLOG),
            upstream_receive_asked: self.of(UPSTREAM_RECEIVE_ASKED),
            upstream_send_asked: self.of(UPSTREAM_SEND_ASKED),
            segment_max: self.of(SEGMENT_MAX),
            read_buffer: self.of(READ_BUFFER),
            tls_output_max: self.of(TLS_OUTPUT_MAX),
            handshake_max: self.of(HANDSHAKE_MAX),
            tickets_max: self.of(TICKETS_MAX),
            metrics_conns: self.of(METRICS_CONNS),
            metrics_send_asked: self.of(METRICS_SEND_ASKED),
        }
    }

    /// Connections to so many upstreams.
    pub(super) fn upstream_conns_max(self, upstreams: usize) -> usize {
        (upstreams + self.of(UPSTREAM_CONNS_SPARE)).max(UPSTREAM_CONNS_MIN)
    }
}

/// What the shell holds for its sockets, and what it asks of the kernel, which doubles it for its
/// bookkeeping and counts that too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketLimits {
    /// Datagrams received and sent at a time.
    pub datagram_batch: usize,
    /// Octets asked for datagrams that wait to be received, of each listener.
    pub datagram_receive_asked: usize,
    /// Octets asked for datagrams that wait to be sent, of each listener.
    pub datagram_send_asked: usize,
    /// Octets asked for each direction of a client's connection.
    pub client_asked: usize,
    /// Connections that wait to be accepted, of each listener.
    pub backlog: u16,
    /// Octets asked for what a connection to an upstream receives.
    pub upstream_receive_asked: usize,
    /// Octets asked for what a connection to an upstream sends.
    pub upstream_send_asked: usize,
    /// Octets that the kernel may take in one piece, above the limit of a send buffer.
    pub segment_max: usize,
    /// Octets read from a connection at a time, in a buffer for all.
    pub read_buffer: usize,
    /// Octets encrypted and not yet written, of each connection to an upstream.
    pub tls_output_max: usize,
    /// Octets received in a handshake.
    pub handshake_max: usize,
    /// Session tickets held of each upstream.
    pub tickets_max: usize,
    /// Connections of the metrics server, and as many that wait.
    pub metrics_conns: usize,
    /// Octets asked for what a connection of the metrics server sends.
    pub metrics_send_asked: usize,
}

// All numbers as [small, default, large].

/// Some 40, 900 and 3,600 queries a second with every one of them waiting for its deadline, in 512
/// octets each and as much again for what is known of it.
pub const QUERIES_MAX: [usize; 3] = [192, 4_096, 16_384];

/// Queries over 512 octets are rare (signed or padded ones): room for 1, 16 and 64 of the longest.
pub(super) const QUERY_BYTES_MAX: [usize; 3] = [72 << 10, 1 << 20, 4 << 20];

/// Networks whose rates are told apart, 20 octets each: as many as there are places for queries.
pub(super) const RATE_PLACES: [usize; 3] = [256, 4_096, 16_384];

/// RFC 9210 section 4.2 suggests 150. Behind a small router few ask over TCP, and each costs 50 KB.
pub(super) const CLIENTS_MAX: [usize; 3] = [8, 150, 600];

/// RFC 9210 section 4.2 suggests 25: it takes several addresses to use up the connections.
pub(super) const CLIENTS_PER_ADDRESS_MAX: [usize; 3] = [4, 25, 100];

/// A client that sends more at once waits in its socket, so that one such does not fill the query table.
pub(super) const CLIENT_QUERIES_MAX: [usize; 3] = [64, 256, 1_024];

/// Reading of a client pauses where what it has not taken, with the answers that are to be expected,
/// comes to this: an answer of the greatest length, or 4 or 16.
pub(super) const CLIENT_OUTPUT_MAX: [usize; 3] = [66 << 10, 256 << 10, 1 << 20];

/// Several clients that do not take their answers, each at its own limit. The pauses alone bound neither
/// one client nor all together: where more comes, who takes nothing is closed, or a long answer fails, or
/// who holds more than its share is closed.
pub(super) const CLIENT_BYTES_MAX: [usize; 3] = [132 << 10, 4 << 20, 16 << 20];

/// What the UDP sockets of the clients cannot take at once waits here: 13, 850 or 3,400 answers of 1,232
/// octets.
pub(super) const DATAGRAM_BYTES_MAX: [usize; 3] = [12 << 10, 1 << 20, 4 << 20];

/// Short answers are bounded by their number: as many as queries.
pub(super) const DATAGRAMS_MAX: [usize; 3] = QUERIES_MAX;

/// Queries by datagram of one network that may wait for longer than a second: a quarter of all. Of a
/// resolver in front that is as many a second where its answers take two seconds.
pub(super) const LATE_DATAGRAMS_MAX: [usize; 3] = [48, 1_024, 4_096];

/// All presets together; one of them for a small router.
pub(super) const UPSTREAMS_MAX: [usize; 3] = [4, 16, 16];

/// Connections beyond one for each upstream: for those that are replaced or fell silent, and for a
/// server that answers few queries on each.
const UPSTREAM_CONNS_SPARE: [usize; 3] = [0, 8, 8];

/// One, another that replaces it, and one that fell silent.
const UPSTREAM_CONNS_MIN: usize = 3;

/// What may wait unsent on a connection to an upstream; more stays queued, where a query past its
/// deadline is never written. It is a turn's queries: 30 or 400 of 160 octets.
pub(super) const UPSTREAM_OUTPUT_MAX: [usize; 3] = [4 << 10, 64 << 10, 64 << 10];

/// A query and an answer of the greatest length, 16 of them, or 64.
pub(super) const UPSTREAM_BYTES_MAX: [usize; 3] = [142 << 10, 1 << 20, 4 << 20];

/// A turn's queries or answers fit; what one answer of the greatest length took is given back.
pub(super) const OUTPUT_KEPT: [usize; 3] = [1 << 10, 16 << 10, 16 << 10];

/// A turn answers fewer queries than fill this: 64, 2,000 or 8,000 lines.
pub(super) const QUERY_LOG_MAX: [usize; 3] = [8 << 10, 256 << 10, 1 << 20];

/// Past 64 the cost of the system call itself no longer shows.
const DATAGRAM_BATCH: [usize; 3] = [8, 64, 64];

/// The kernel counts 768 octets or more for a query: a burst of 58, 2,700 or 10,000, if the limit of the
/// system (`net.core.rmem_max`) allows it.
const DATAGRAM_RECEIVE_ASKED: [usize; 3] = [22 << 10, 1 << 20, 4 << 20];

/// Datagrams leave the host at once, or wait here for the network.
const DATAGRAM_SEND_ASKED: [usize; 3] = [8 << 10, 128 << 10, 512 << 10];

/// With the kernel's doubling 16 KiB and 64 KiB: what a client has not read beyond that waits here, where
/// it is bounded for all together.
const CLIENT_ASKED: [usize; 3] = [8 << 10, 32 << 10, 32 << 10];

/// The kernel lowers it to `net.core.somaxconn`. A turn accepts up to 64.
const BACKLOG: [u16; 3] = [4, 256, 1_024];

/// About what is received in a round trip: 1,300 answers of 468 octets a second where it takes 20 ms,
/// and 20,000 or 100,000. Above `net.core.rmem_max`, usually 208 KiB, nothing is granted.
const UPSTREAM_RECEIVE_ASKED: [usize; 3] = [12 << 10, 192 << 10, 1 << 20];

/// Queries of a round trip, which are a third as long as answers.
const UPSTREAM_SEND_ASKED: [usize; 3] = [8 << 10, 128 << 10, 512 << 10];

/// A full TLS record, but for small.
const SEGMENT_MAX: [usize; 3] = [4 << 10, 16 << 10, 16 << 10];

/// A full TLS record. A client's pipelined queries are short; a longer frame comes in pieces.
const READ_BUFFER: [usize; 3] = [4 << 10, 16 << 10, 16 << 10];

/// What rustls holds of unsent ciphertext by default: four full records; a turn's queries, for small.
const TLS_OUTPUT_MAX: [usize; 3] = [4 << 10, 64 << 10, 64 << 10];

/// Certificate chains of public resolvers have 2 to 6 KiB.
const HANDSHAKE_MAX: [usize; 3] = [9 << 10, 32 << 10, 32 << 10];

/// Servers send two to four at a time, and one is used up by each connection.
const TICKETS_MAX: [usize; 3] = [1, 8, 8];

/// A Prometheus or two, the probes of an orchestrator, and somebody who looks.
const METRICS_CONNS: [usize; 3] = [2, 8, 8];

/// All metrics at once, or in two or three pieces.
const METRICS_SEND_ASKED: [usize; 3] = [8 << 10, 16 << 10, 16 << 10];

const _: () = {
    const FRAME_LEN_MAX: usize = Limits::FRAME_LEN_MAX;
    let mut size = 0;
    while size < QUERIES_MAX.len() {
        // Every waiting query may be in flight on one connection, and IDs have 16 bits.
        assert!(QUERIES_MAX[size] <= 1 << 16);
        assert!(CLIENT_QUERIES_MAX[size] < QUERIES_MAX[size]);
        assert!(CLIENTS_PER_ADDRESS_MAX[size] < CLIENTS_MAX[size]);
        assert!(QUERY_BYTES_MAX[size] >= FRAME_LEN_MAX);
        assert!(CLIENT_OUTPUT_MAX[size] >= FRAME_LEN_MAX);
        assert!(CLIENT_BYTES_MAX[size] >= CLIENT_OUTPUT_MAX[size] + FRAME_LEN_MAX);
        assert!(DATAGRAM_BYTES_MAX[size] >= *UDP_SIZES.end() as usize);
        assert!(UPSTREAMS_MAX[size] >= CLOUDFLARE.addresses.len());
        // A reload that changes them all is done while the last of the others are in use.
        assert!(2 * UPSTREAMS_MAX[size] <= INDEXES_MAX);
        // One connection may always have what it needs.
        let output = UPSTREAM_OUTPUT_MAX[size] + FRAME_LEN_MAX;
        assert!(UPSTREAM_BYTES_MAX[size] >= FRAME_LEN_MAX + output * 9 / 8 + OUTPUT_KEPT[size]);
        size += 1;
    }
    assert!(UPSTREAMS_MAX[Size::Default as usize] >= PRESETS.len() * CLOUDFLARE.addresses.len());
    assert!(QUERY_TIMEOUT.as_millis() < 5_000);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, error};

    #[test]
    fn sizes() {
        for (word, size, queries, clients, per_address, query_bytes) in [
            ("small", Size::Small, 192, 8, 4, 72 << 10),
            ("default", Size::Default, 4_096, 150, 25, 1 << 20),
            ("large", Size::Large, 16_384, 600, 100, 4 << 20),
        ] {
            let config = config(&format!("--size {word}"));
            assert_eq!((config.size, config.size.word()), (size, word));
            assert_eq!(config.sockets, size.sockets());
            let limits = &config.limits;
            assert_eq!((limits.queries_max, limits.query_bytes_max), (queries, query_bytes));
            assert_eq!(
                (limits.clients_max, limits.clients_per_address_max),
                (clients, per_address)
            );
        }
        assert_eq!(config("").size, Size::Default);
        // A flag of its own counts more, wherever it stands.
        let config = config("--tcp-clients-max=100 --size=small");
        assert_eq!(config.limits.clients_max, 100);
        assert_eq!(config.limits.clients_per_address_max, 4);
    }

    #[test]
    fn a_small_one_takes_four_upstreams() {
        let four = "-u 10.0.0.1#x -u 10.0.0.2#x -u 10.0.0.3#x -u 10.0.0.4#x";
        for (line, count) in [
            (format!("{four} --size=small"), 4),
            ("--size=small -u quad9".to_owned(), 4),
            (format!("{four} -u quad9"), 8),
        ] {
            assert_eq!(config(&line).upstreams.len(), count);
        }
        for more in ["--size=small -u 10.0.0.5#x", "-u 10.0.0.5#x --size=small"] {
            assert_eq!(
                error(&format!("{four} {more}")),
                "--upstream 10.0.0.5#x: is one upstream too many for --size small; give at most 4, or \
                 another size"
            );
        }
    }

    #[test]
    fn connections_to_upstreams_are_a_few_more_than_upstreams() {
        for (size, upstreams, conns) in [
            (Size::Small, 1, 3),
            (Size::Small, 2, 3),
            (Size::Small, 4, 4),
            (Size::Default, 1, 9),
            (Size::Default, 16, 24),
        ] {
            assert_eq!(size.upstream_conns_max(upstreams), conns);
        }
    }
}
