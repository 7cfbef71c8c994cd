//! Changes of state that the log tells the person who runs this program.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Edns, Prefix, Stage};

/// A change of state worth a log line; `Display` gives the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An answer had a private address, and its records were held back; at most once a minute.
    AnswerStripped {
        /// The upstream's display name.
        upstream: Box<str>,
    },
    /// A query came that had gone round through upstreams; at most once a minute.
    CameBack,
    /// A client was closed to make room for another, as all places are taken; at most once a minute.
    ClientMadeRoom {
        /// The address of the client that was closed.
        client: IpAddr,
        /// How many answers it was owed; `None` if it was idle.
        owed: Option<usize>,
        /// The address of the client that got the place.
        newcomer: IpAddr,
        /// The limit for clients at a time.
        clients_max: usize,
        /// The closed client's network, if that is why.
        crowd: Option<Crowd>,
    },
    /// A client was refused, as all places are taken and no other network has more, and others may wait behind it;
    /// at most once a minute.
    ClientRefused {
        /// The address of the client that was refused.
        client: IpAddr,
        /// The limit for clients at a time.
        clients_max: usize,
        /// The client's network.
        crowd: Crowd,
    },
    /// A client was accepted late, as no other was idle; at most once a minute.
    ClientWaited {
        /// The address of the client that waited.
        client: IpAddr,
        /// The limit for clients at a time.
        clients_max: usize,
        /// The network with most connections, if it has several.
        crowd: Option<Crowd>,
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
        /// Networks that began to ask more over UDP meanwhile, without a line of their own.
        others: u32,
    },
    /// A network that asked more than it may does so no more.
    WithinRate {
        /// The network.
        network: Prefix,
        /// Datagrams above the rate.
        above: u64,
    },
    /// Queries failed as there was no place for them; at most once a minute.
    TableFull {
        /// What there are too many of, in words.
        what: &'static str,
        /// The limit for queries at a time.
        queries_max: usize,
    },
    /// Too many queries of a network waited for long; at most once a minute.
    WaitLimit {
        /// The network.
        network: Box<str>,
        /// How many may wait for longer than a second.
        limit: usize,
    },
    /// Queries came from addresses that are not served; at most once a minute.
    SourceRefused {
        /// The last of these addresses.
        source: IpAddr,
        /// Datagrams and connections of such addresses since the last such line.
        count: u64,
        /// What would serve the last one, in words.
        remedy: Box<str>,
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
            | Self::AnswerStripped { .. }
            | Self::CameBack
            | Self::ClientMadeRoom { .. }
            | Self::ClientRefused { .. }
            | Self::ClientWaited { .. }
            | Self::SourceRefused { .. }
            | Self::TableFull { .. }
            | Self::WaitLimit { .. }
            | Self::WithinRate { .. }
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
            | Self::SourceRefused { .. }
            | Self::WaitLimit { .. }
            | Self::WithinRate { .. } => self.write_of_client(f),
            // Not for whom nor of which name: the query log is there for those who want to know.
            Self::AnswerStripped { upstream } => write!(
                f,
                "{upstream}: an answer had a private address, and its client got no records \
                 (--private-answers); --query-log on shows of which name, --private-zone lets it pass"
            ),
            Self::CameBack => f.write_str(
                "--upstream: queries seem to come back: behind a server that ends its TLS, an upstream leads to this \
                 program again; such queries get SERVFAIL once they have gone round",
            ),
            Self::TableFull { what, queries_max } => write!(
                f,
                "{what}, and some get SERVFAIL: all {queries_max} places are taken (--size small, default or \
                 large); --rate-limit lets each network ask less"
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
            Self::ClientMadeRoom { client, owed, newcomer, clients_max, crowd } => {
                match owed {
                    None => write!(f, "TCP clients: an idle connection of {client} was closed for"),
                    Some(owed) => write!(
                        f,
                        "TCP clients: a connection of {client} was closed, with {owed} queries unanswered, in \
                         favour of"
                    ),
                }?;
                write!(f, " {newcomer}: all {clients_max} places are taken (--tcp-clients-max)")?;
                write_crowd(f, crowd.as_ref())?;
                match (owed, crowd) {
                    (None, Some(_)) => f.write_str(" (--tcp-clients-per-address-max)"),
                    _ => Ok(()),
                }
            }
            Self::ClientRefused { client, clients_max, crowd } => {
                write!(
                    f,
                    "TCP clients: {client} was refused: all {clients_max} places are taken \
                     (--tcp-clients-max)"
                )?;
                write_crowd(f, Some(crowd))?;
                f.write_str(", and others may wait")
            }
            Self::ClientWaited { client, clients_max, crowd } => {
                write!(
                    f,
                    "TCP clients: {client} had to wait: all {clients_max} places were taken by clients that wait \
                     for answers or have just connected"
                )?;
                write_crowd(f, crowd.as_ref())?;
                f.write_str("; a higher --tcp-clients-max gives more places")
            }
            _ => self.write_of_network(f),
        }
    }

    /// Writes that a network, or an address that is not served, asked too much.
    fn write_of_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveRate { network, over_tcp, per_second, burst, others } => {
                let (transport, what) = if *over_tcp {
                    ("TCP", "they are read no faster")
                } else {
                    ("UDP", "every second one above that gets TC, the others nothing")
                };
                write!(
                    f,
                    "{network} asks more over {transport} than {per_second} queries a second, {burst} at once \
                     (--rate-limit): {what}"
                )?;
                match others {
                    0 => Ok(()),
                    _ => write!(f, "; so did {others} more networks"),
                }
            }
            Self::WithinRate { network, above } => {
                write!(f, "{network} is within --rate-limit again")?;
                match above {
                    0 => Ok(()),
                    _ => write!(f, ": {above} datagrams were above it"),
                }
            }
            Self::WaitLimit { network, limit } => write!(
                f,
                "{network}: more than {limit} queries over UDP wait for longer than a second \
                 (--wait-limit); the oldest get TC, so that they are asked again over TCP: an upstream is slow, or \
                 somebody asks slow names in the name of others"
            ),
            // What they get depends on their transport and on --refuse-denied.
            Self::SourceRefused { source, count, remedy } => {
                match count {
                    1 => write!(f, "a query from {source} was not served"),
                    _ => write!(f, "{count} queries were not served, the last from {source}"),
                }?;
                write!(f, ": {remedy}")
            }
            _ => Ok(()),
        }
    }
}

/// What one network has of the places for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// The network.
    pub network: Box<str>,
    /// Its connections.
    pub held: usize,
}

/// Writes which network has so many of the places.
fn write_crowd(f: &mut fmt::Formatter<'_>, crowd: Option<&Crowd>) -> fmt::Result {
    match crowd {
        Some(Crowd { network, held }) => write!(f, ", {held} of them by {network}"),
        None => Ok(()),
    }
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

    /// Whether a line was written within the last minute.
    pub(super) fn was_lately(&self, now: Instant) -> bool {
        self.logged_at.is_some_and(|at| now < at + MINUTE)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Counts of what happened so far, and of what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that call for a response, retransmissions included: the sum of the answered, failed, local, cut
    /// short, orphaned and owed ones.
    pub queries: u64,
    /// Messages answered with an upstream's response.
    pub answered: u64,
    /// Messages answered with a SERVFAIL made here.
    pub failed: u64,
    /// Messages answered with another response made here.
    pub local: u64,
    /// Messages answered with TC, as many of their network had waited for long.
    pub cut_short: u64,
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
    /// Copies sent because the connection of a query was quiet, or an answer to it came under another ID.
    pub rescued: u64,
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
    /// Held now: late responses by datagram that wait to be sent.
    pub answers_held: usize,
    /// Held now: places in the query table.
    pub queries_held: usize,
    /// Held now: connections, clients and upstreams, including those not yet closed by the shell.
    pub conns_held: usize,
}

/// How it stands with an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamState<'a> {
    /// The display name.
    pub shown: &'a str,
    /// Whether queries are sent to it.
    pub is_usable: bool,
    /// Its connections that stand.
    pub conns: usize,
    /// Queries ever sent to it, copies included.
    pub sends: u64,
    /// Attempts to connect that ever failed, by [`Stage`].
    pub failures: &'a [u64; Stage::ALL.len()],
    /// How long it takes to answer lately, if it has answered.
    pub took: Option<Duration>,
    /// Since when it is not usable, and the phase and the reason of the last failure.
    pub outage: Option<(Instant, Stage, &'a str)>,
}

/// What is held now of what is bounded, each with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Queries without an answer.
    pub queries: (usize, usize),
    /// Connections of clients.
    pub clients: (usize, usize),
    /// Octets of clients: what they sent in part, and what they have not taken.
    pub client_octets: (usize, usize),
    /// Connections to upstreams, those being made included.
    pub upstream_conns: (usize, usize),
    /// Octets of connections to upstreams: what came in part, and what is not written yet.
    pub upstream_octets: (usize, usize),
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
        let clients_max = 150;
        let crowd = || Crowd { network: "10.0.0.9".into(), held: 90 };
        let room = |owed, crowd| {
            Notice::ClientMadeRoom { client, owed, newcomer, clients_max, crowd }.to_string()
        };
        assert_eq!(
            room(None, None),
            "TCP clients: an idle connection of 10.0.0.9 was closed for 10.0.0.1: all 150 places are taken \
             (--tcp-clients-max)"
        );
        assert_eq!(
            room(None, Some(crowd())),
            "TCP clients: an idle connection of 10.0.0.9 was closed for 10.0.0.1: all 150 places are taken \
             (--tcp-clients-max), 90 of them by 10.0.0.9 (--tcp-clients-per-address-max)"
        );
        assert_eq!(
            room(Some(7), Some(crowd())),
            "TCP clients: a connection of 10.0.0.9 was closed, with 7 queries unanswered, in favour of 10.0.0.1: \
             all 150 places are taken (--tcp-clients-max), 90 of them by 10.0.0.9"
        );
        assert_eq!(
            Notice::ClientRefused { client, clients_max, crowd: crowd() }.to_string(),
            "TCP clients: 10.0.0.9 was refused: all 150 places are taken (--tcp-clients-max), 90 of them \
             by 10.0.0.9, and others may wait"
        );
        let waited =
            |crowd| Notice::ClientWaited { client: newcomer, clients_max, crowd }.to_string();
        assert_eq!(
            waited(None),
            "TCP clients: 10.0.0.1 had to wait: all 150 places were taken by clients that wait for \
             answers or have just connected; a higher --tcp-clients-max gives more places"
        );
        assert_eq!(
            waited(Some(crowd())),
            "TCP clients: 10.0.0.1 had to wait: all 150 places were taken by clients that wait for answers or \
             have just connected, 90 of them by 10.0.0.9; a higher --tcp-clients-max gives more places"
        );
    }

    #[test]
    fn queries_that_come_back_have_a_flag_named() {
        let line = Notice::CameBack.to_string();
        assert!(line.starts_with("--upstream: queries seem to come back: "), "{line}");
    }

    #[test]
    fn who_is_not_served_is_named_in_a_line_that_a_terminal_shows() {
        let access = crate::forwarder::tests::config().policy.access;
        let line = |source: &str, count| {
            let source = source.parse().unwrap();
            let remedy = access.remedy(source).into();
            Notice::SourceRefused { source, count, remedy }.to_string()
        };
        assert_eq!(
            line("203.0.113.7", 1),
            "a query from 203.0.113.7 was not served: give --allow default with --allow 203.0.113.7/32 or --allow \
             local"
        );
        let more = line("2001:db8::1", 17);
        let start =
            "17 queries were not served, the last from 2001:db8::1: give --allow default with ";
        assert!(more.starts_with(start), "{more}");
        let longest = line("203.113.113.117", 1_000_000);
        assert!("WARN  [dot_proxy::shell::reactor] ".len() + longest.len() < 180, "{longest}");
    }

    #[test]
    fn a_full_table_is_said_with_what_to_do() {
        let line = Notice::TableFull { what: "too many", queries_max: 192 }.to_string();
        for word in ["too many, and some get SERVFAIL", "all 192", "--size", "--rate-limit"] {
            assert!(line.contains(word), "{line}");
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
