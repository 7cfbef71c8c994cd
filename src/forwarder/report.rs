//! Changes of state that the log tells the person who runs this program.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Edns, Prefix, Stage};

/// A change of state worth a log line; `Display` gives the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A query came that had gone round through upstreams; at most once a minute.
    CameBack,
    /// A client was closed to make room for another, as all places are taken; at most once a minute.
    ClientMadeRoom {
        /// The address of the client that was closed.
        client: IpAddr,
        /// Whether the client was idle; else its network has more than its limit, and others had waited for
        /// long.
        was_idle: bool,
        /// The address of the client that got the place.
        newcomer: IpAddr,
        /// The limit for clients at a time.
        clients_max: usize,
        /// Connections of the closed client's network, if they were more than its limit.
        of_client: Option<usize>,
        /// The limit for connections of one network.
        per_address_max: usize,
    },
    /// A client was refused, as its network has its limit and all places are taken, and others may wait
    /// behind it; at most once a minute.
    ClientRefused {
        /// The address of the client that was refused.
        client: IpAddr,
        /// Connections of the client's network.
        held: usize,
        /// The limit for clients at a time.
        clients_max: usize,
        /// The limit for connections of one network.
        per_address_max: usize,
    },
    /// A client was accepted late, as no other was idle; at most once a minute.
    ClientWaited {
        /// The address of the client that waited.
        client: IpAddr,
        /// The limit for clients at a time.
        clients_max: usize,
        /// The address with most connections, and their number, if it is more than the limit of its network.
        crowd: Option<(IpAddr, usize)>,
        /// The limit for connections of one network.
        per_address_max: usize,
    },
    /// A network asks more than it may; at most once a minute, and for few networks.
    AboveRate {
        /// The network.
        network: Prefix,
        /// Whether it was over TCP.
        over_tcp: bool,
        /// Queries a second that a network may ask.
        per_second: u32,
        /// Queries that a network may ask at once.
        burst: u32,
    },
    /// Queries came from addresses that are not served; at most once a minute.
    SourceRefused {
        /// The last of these addresses.
        source: IpAddr,
        /// Datagrams and connections of such addresses since the last such line.
        count: u64,
        /// Why the last one is not served, in words.
        why: Box<str>,
    },
    /// An upstream became unusable.
    UpstreamFailed {
        /// The upstream's display name.
        upstream: Box<str>,
        /// The phase of the attempt that failed.
        stage: Stage,
        /// The reason, in words.
        detail: Box<str>,
    },
    /// Upstreams are still unusable, this one among them; at most once a minute.
    UpstreamStillFailed {
        /// The upstream's display name.
        upstream: Box<str>,
        /// How long the upstream has been unusable.
        down: Duration,
        /// Attempts that failed in this time.
        attempts: u64,
        /// The phase of the last attempt.
        stage: Stage,
        /// The reason why the last attempt failed, in words.
        detail: Box<str>,
        /// Upstreams that are not usable now.
        failed: usize,
        /// All upstreams.
        of: usize,
    },
    /// An upstream answers queries only with so much of EDNS; once for each upstream.
    UpstreamObjects {
        /// The upstream's display name.
        upstream: Box<str>,
        /// How much of EDNS queries are sent with.
        edns: Edns,
    },
    /// An upstream answers the queries of a connection one at a time, too long after each other; once.
    UpstreamInTurn {
        /// The upstream's display name.
        upstream: Box<str>,
        /// The time from one answer to the next.
        each: Duration,
    },
    /// An upstream can be used again.
    UpstreamUsable {
        /// The upstream's display name.
        upstream: Box<str>,
        /// How long the upstream was unusable.
        down: Duration,
    },
}

impl Notice {
    /// The level of the log line.
    pub fn level(&self) -> log::Level {
        match self {
            Self::AboveRate { .. }
            | Self::CameBack
            | Self::ClientMadeRoom { .. }
            | Self::ClientRefused { .. }
            | Self::ClientWaited { .. }
            | Self::SourceRefused { .. }
            | Self::UpstreamFailed { .. }
            | Self::UpstreamStillFailed { .. } => log::Level::Warn,
            Self::UpstreamInTurn { .. }
            | Self::UpstreamUsable { .. }
            | Self::UpstreamObjects { .. } => log::Level::Info,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveRate { .. }
            | Self::ClientMadeRoom { .. }
            | Self::ClientRefused { .. }
            | Self::ClientWaited { .. }
            | Self::SourceRefused { .. } => self.write_of_client(f),
            Self::CameBack => f.write_str(
                "--upstream: queries come back: behind a server that ends its TLS, an upstream leads to this \
                 program again; such queries get SERVFAIL once they have gone round",
            ),
            Self::UpstreamFailed { upstream, stage, detail } => {
                write!(f, "{upstream}: not usable: {stage}: {detail}")
            }
            Self::UpstreamStillFailed { upstream, down, attempts, stage, detail, failed, of } => {
                write!(
                    f,
                    "{upstream}: still not usable after {} s and {attempts} attempts, the last: \
                 {stage}: {detail} ({failed} of {of} upstreams not usable)",
                    down.as_secs(),
                )
            }
            Self::UpstreamObjects { upstream, edns: Edns::Absent } => write!(
                f,
                "{upstream}: does not understand EDNS: it answers errors to queries with an OPT record; for \
                 the next hour it gets queries without OPT, so without padding and DNSSEC"
            ),
            Self::UpstreamObjects { upstream, .. } => write!(
                f,
                "{upstream}: answers errors to queries with padding, keepalive or an empty client subnet; \
                 for the next hour it gets queries as clients send them, so that their length tells more \
                 about the name"
            ),
            Self::UpstreamInTurn { upstream, each } => write!(
                f,
                "{upstream}: answers the queries of a connection one at a time, {} ms apart; a connection \
                 gets as many as it answers within a second, the rest goes to more connections or to \
                 another upstream",
                each.as_millis()
            ),
            Self::UpstreamUsable { upstream, down } => {
                write!(
                    f,
                    "{upstream}: usable again after {}.{} s",
                    down.as_secs(),
                    down.subsec_millis() / 100
                )
            }
        }
    }
}

impl Notice {
    /// Writes what became of a client.
    fn write_of_client(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientMadeRoom {
                client,
                was_idle,
                newcomer,
                clients_max,
                of_client,
                per_address_max,
            } => {
                let (which, why) =
                    if *was_idle { ("an idle", "for") } else { ("a", "in favour of") };
                write!(
                    f,
                    "TCP clients: {which} connection of {client} was closed {why} {newcomer}: all \
                     {clients_max} places are taken (--tcp-clients-max)"
                )?;
                write_crowd(f, of_client.map(|held| (*client, held)), *per_address_max)
            }
            Self::ClientRefused { client, held, clients_max, per_address_max } => write!(
                f,
                "TCP clients: {client} was refused: all {clients_max} places are taken (--tcp-clients-max), \
                 {held} of them by {client}; an address should have {per_address_max} at most while others \
                 may wait (--tcp-clients-per-address-max)"
            ),
            Self::ClientWaited { client, clients_max, crowd, per_address_max } => {
                let flag = if crowd.is_some() { " (--tcp-clients-max)" } else { "" };
                write!(
                    f,
                    "TCP clients: {client} had to wait: all {clients_max} places{flag} were taken by \
                     clients that wait for answers or have just connected"
                )?;
                match crowd {
                    Some(_) => write_crowd(f, *crowd, *per_address_max),
                    None => f.write_str("; a higher --tcp-clients-max gives more places"),
                }
            }
            Self::AboveRate { network, over_tcp, per_second, burst } => {
                let (transport, what) = if *over_tcp {
                    ("TCP", "they are read no faster")
                } else {
                    ("UDP", "every second one above that gets TC, the others nothing")
                };
                write!(
                    f,
                    "{network} asks more over {transport} than {per_second} queries a second, {burst} at once \
                     (--rate-limit): {what}"
                )
            }
            // What they get depends on their transport and on --refuse-denied.
            Self::SourceRefused { source, count, why } => {
                match count {
                    1 => write!(f, "a query from {source} was not served"),
                    _ => write!(f, "{count} queries were not served, the last from {source}"),
                }?;
                write!(
                    f,
                    ": {why}; a client that asks a --listen address in a network that is served sends from \
                     its own address there, and this host itself can ask 127.0.0.1 (Docker's port \
                     publishing may replace the source)"
                )
            }
            _ => Ok(()),
        }
    }
}

/// Writes which address has so many of the places, if they are more than one address should have.
fn write_crowd(
    f: &mut fmt::Formatter<'_>,
    crowd: Option<(IpAddr, usize)>,
    per_address_max: usize,
) -> fmt::Result {
    let Some((client, held)) = crowd else {
        return Ok(());
    };
    write!(
        f,
        ", {held} of them by {client}; an address should have {per_address_max} at most \
         (--tcp-clients-per-address-max)"
    )
}

/// Keeps log lines of one kind a minute apart, since clients could cause them at any rate.
#[derive(Debug, Default)]
pub(super) struct OnceAMinute {
    logged_at: Option<Instant>,
}

impl OnceAMinute {
    /// Whether a line may be written now; if it may, it counts as written.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.logged_at.is_none_or(|at| at + MINUTE <= now);
        if is_due {
            self.logged_at = Some(now);
        }
        is_due
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Counts of what happened so far, and of what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that call for a response, retransmissions included: the sum of the answered, failed, local,
    /// orphaned and owed ones.
    pub queries: u64,
    /// Messages answered with an upstream's response.
    pub answered: u64,
    /// Messages answered with a SERVFAIL made here.
    pub failed: u64,
    /// Messages answered with another response made here.
    pub local: u64,
    /// Messages without a response, as their client went away.
    pub orphaned: u64,
    /// Datagrams that were not for this host alone, or came from nobody: port 0, many hosts, a listener.
    pub ignored: u64,
    /// Messages dropped: QR=1 or under 12 octets (RFC 5625 section 6.3).
    pub dropped: u64,
    /// Retransmissions dropped, as more of one query came than are answered.
    pub repeated: u64,
    /// Client connections closed because clients held too many octets.
    pub shed: u64,
    /// Client connections refused because there were too many, in all and of their network.
    pub crowded_out: u64,
    /// Client connections closed to make room for others: idle ones, and ones of a network with too many.
    pub made_room: u64,
    /// Datagrams and connections from addresses that are not served.
    pub refused: u64,
    /// Queries that had gone round through upstreams.
    pub came_back: u64,
    /// Datagrams from networks that had asked more than they may.
    pub above_rate: u64,
    /// Datagrams to clients that could not be sent, or found the buffer full.
    pub datagrams_dropped: u64,
    /// Responses of an upstream that belonged to no query.
    pub unmatched: u64,
    /// Connections to upstreams attempted.
    pub connects: u64,
    /// Queries sent again after the first time.
    pub resent: u64,
    /// Copies sent because an answer was late.
    pub hedged: u64,
    /// Queries asked again with less of EDNS, as an upstream objected to it.
    pub asked_plainer: u64,
    /// Responses of upstreams whose records were held back, as they had private addresses.
    pub stripped: u64,
    /// Queries asked of another operator because of SERVFAIL or REFUSED.
    pub retried: u64,
    /// Connections to upstreams closed to make room for others.
    pub made_way: u64,
    /// Held now: responses owed to clients.
    pub owed: usize,
    /// Held now: places in the query table.
    pub queries_held: usize,
    /// Held now: connections, clients and upstreams, including those not yet closed by the shell.
    pub conns_held: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn lines_of_a_kind_are_a_minute_apart() {
        let t0 = base();
        let mut limit = OnceAMinute::default();
        let due = [0, 1, 59, 60, 61, 119, 121].map(|s| limit.is_due(t0 + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn lines_about_clients_name_them_and_the_flags() {
        let (client, newcomer) = ([10, 0, 0, 9].into(), [10, 0, 0, 1].into());
        let (clients_max, per_address_max) = (150, 25);
        let line = |was_idle, of_client| {
            Notice::ClientMadeRoom {
                client,
                was_idle,
                newcomer,
                clients_max,
                of_client,
                per_address_max,
            }
            .to_string()
        };
        assert_eq!(
            line(true, None),
            "TCP clients: an idle connection of 10.0.0.9 was closed for 10.0.0.1: all 150 places are taken \
             (--tcp-clients-max)"
        );
        assert_eq!(
            line(true, Some(90)),
            "TCP clients: an idle connection of 10.0.0.9 was closed for 10.0.0.1: all 150 places are taken \
             (--tcp-clients-max), 90 of them by 10.0.0.9; an address should have 25 at most \
             (--tcp-clients-per-address-max)"
        );
        assert_eq!(
            line(false, Some(90)),
            "TCP clients: a connection of 10.0.0.9 was closed in favour of 10.0.0.1: all 150 places are taken \
             (--tcp-clients-max), 90 of them by 10.0.0.9; an address should have 25 at most \
             (--tcp-clients-per-address-max)"
        );
        assert_eq!(
            Notice::ClientRefused { client, held: 90, clients_max, per_address_max }.to_string(),
            "TCP clients: 10.0.0.9 was refused: all 150 places are taken (--tcp-clients-max), 90 of them \
             by 10.0.0.9; an address should have 25 at most while others may wait \
             (--tcp-clients-per-address-max)"
        );
        let waited = |crowd| {
            Notice::ClientWaited { client: newcomer, clients_max, crowd, per_address_max }
                .to_string()
        };
        assert_eq!(
            waited(None),
            "TCP clients: 10.0.0.1 had to wait: all 150 places were taken by clients that wait for \
             answers or have just connected; a higher --tcp-clients-max gives more places"
        );
        assert_eq!(
            waited(Some((client, 90))),
            "TCP clients: 10.0.0.1 had to wait: all 150 places (--tcp-clients-max) were taken by clients \
             that wait for answers or have just connected, 90 of them by 10.0.0.9; an address \
             should have 25 at most (--tcp-clients-per-address-max)"
        );
    }

    #[test]
    fn queries_that_come_back_have_a_flag_named() {
        let line = Notice::CameBack.to_string();
        assert!(line.starts_with("--upstream: queries come back: "), "{line}");
    }

    #[test]
    fn who_is_not_served_is_named() {
        let line = |source: &str, count| {
            let (source, why) = (source.parse().unwrap(), "served are 10.0.0.0/8".into());
            Notice::SourceRefused { source, count, why }.to_string()
        };
        let first = line("203.0.113.7", 1);
        assert!(
            first.starts_with(
                "a query from 203.0.113.7 was not served: served are 10.0.0.0/8; a client"
            ),
            "{first}"
        );
        let more = line("2001:db8::1", 17);
        assert!(
            more.starts_with("17 queries were not served, the last from 2001:db8::1: "),
            "{more}"
        );
        for line in [first, more] {
            assert!(["--listen", "127.0.0.1"].map(|it| line.contains(it)) == [true; 2], "{line}");
        }
    }

    #[test]
    fn lines_name_upstream_phase_and_cause() {
        let upstream: Box<str> = "192.0.2.1#dot.example".into();
        let detail: Box<str> = "connection refused".into();
        let failed = Notice::UpstreamFailed {
            upstream: upstream.clone(),
            stage: Stage::Connect,
            detail: detail.clone(),
        };
        assert_eq!(
            failed.to_string(),
            "192.0.2.1#dot.example: not usable: connect: connection refused"
        );
        let down = Duration::from_millis(61_234);
        let still = Notice::UpstreamStillFailed {
            upstream: upstream.clone(),
            down,
            attempts: 7,
            stage: Stage::Connect,
            detail,
            failed: 2,
            of: 4,
        };
        assert_eq!(
            still.to_string(),
            "192.0.2.1#dot.example: still not usable after 61 s and 7 attempts, the last: connect: \
             connection refused (2 of 4 upstreams not usable)"
        );
        let usable = Notice::UpstreamUsable { upstream, down };
        assert_eq!(usable.to_string(), "192.0.2.1#dot.example: usable again after 61.2 s");
    }
}
