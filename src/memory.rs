//! How much memory the program takes at most: the sums that `--print-limits` shows.
//!
//! Everything that grows is bounded, and the bounds are added up: for the process, which has heap, stack and
//! the program itself, and for the kernel, which has mostly socket buffers. No run comes near the sums: no
//! server makes every connection take all it may while every client does the same.

use std::fmt;

use crate::config::Config;
use crate::forwarder::{MemoryBound, PrivateAnswers, Rate, SpecialNames, Term, memory_bound};
use crate::host::network;
use crate::shell::datagram::Buffers;
use crate::shell::metrics::{self, MetricsServer};
use crate::shell::{sockets, stream, upstream};
use crate::tls;

/// The most memory that the program takes.
#[derive(Clone, Debug)]
pub struct Bound {
    heading: String,
    /// Octets that are allocated, which are a part of those of the process.
    pub allocated: usize,
    /// Terms of the process.
    pub process: Vec<Term>,
    /// Terms of the kernel.
    pub kernel: Vec<Term>,
}

impl Bound {
    /// With this configuration, of a program whose file and libraries have so many octets.
    pub fn of(config: &Config, program: usize) -> Self {
        let upstreams = config.upstreams.len();
        let (mut heap, kept) = heap(config);
        let allocated = sum(&heap);
        heap.push(Term::new("gaps between allocations", 1, (allocated - kept) / GAPS_PART));
        let mut process =
            vec![Term::new("program and libraries", 1, program), Term::new("stack", 1, STACK)];
        process.extend(heap);
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let listeners = config.listeners().len();
        let heading = format!(
            "size {}, {upstreams} upstream{}, {listeners} listener{}",
            config.size.word(),
            plural(upstreams),
            plural(listeners)
        );
        let kernel = kernel(config, sum(&process));
        Self { heading, allocated, process, kernel }
    }

    /// Octets of the process.
    pub fn process_sum(&self) -> usize {
        sum(&self.process)
    }

    /// Octets of the kernel.
    pub fn kernel_sum(&self) -> usize {
        sum(&self.kernel)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, in octets at most", self.heading)?;
        for (name, terms) in [("process", &self.process), ("kernel", &self.kernel)] {
            writeln!(f)?;
            for term in terms.iter().filter(|term| term.sum() > 0) {
                let Term { what, times, octets } = term;
                let (times, octets) = (grouped(*times), grouped(*octets));
                writeln!(f, "{what:<34} {times:>6} x {octets:>10} = {:>11}", grouped(term.sum()))?;
            }
            writeln!(f, "{name:<34} {:>33}", grouped(sum(terms)))?;
        }
        writeln!(f)?;
        writeln!(f, "{:<34} {:>33}", "both", grouped(self.process_sum() + self.kernel_sum()))
    }
}

fn sum(terms: &[Term]) -> usize {
    terms.iter().map(Term::sum).sum()
}

/// Terms of what is allocated, and the octets that are allocated from the start and stay.
fn heap(config: &Config) -> (Vec<Term>, usize) {
    let (limits, sockets) = (&config.limits, &config.sockets);
    let reads_again = config.file.is_some();
    // Those that are removed have their indexes until their last connection ends.
    let upstreams =
        if reads_again { config.size.upstream_indexes_max() } else { config.upstreams.len() };
    let asked = if reads_again { config.size.upstreams_max() } else { upstreams };
    let conns = limits.upstream_conns_max;
    let tls_limits = upstream::tls_limits(sockets);
    let MemoryBound { mut terms, kept, in_hand } = memory_bound(limits, upstreams);
    let datagrams = Term::new("datagram received", sockets.datagram_batch, Buffers::OCTETS_EACH);
    let rest = REST + zone_octets(config) + config.policy.access.octets();
    let rates = config.policy.rate.as_ref().map_or(0, Rate::octets);
    // A new table is made while the one before is there.
    let rates = if reads_again { 2 * rates.max(config.size.rate_octets()) } else { rates };
    let kept = kept + datagrams.sum() + sockets.read_buffer + rates + rest;
    // One thing is done at a time: TLS is read first, its content after that.
    let in_hand =
        tls::bound::message_octets(&tls_limits).max(in_hand + tls::bound::PLAINTEXT_OCTETS);
    terms.extend([
        Term::new("TLS connection", conns, tls::bound::connection_octets(&tls_limits)),
        Term::new("TLS session", asked, tls::bound::session_octets(&tls_limits)),
        Term::new("work in hand", 1, in_hand),
        Term::new("socket", 2 * (limits.clients_max + conns), sockets::OCTETS_EACH),
        datagrams,
        Term::new("rates of networks", 1, rates),
        Term::new("read buffer", 1, sockets.read_buffer),
        Term::new("all the rest", 1, rest),
    ]);
    // The octets of the files, and the certificates in them. Without a file, the start fails.
    let has_files = config.files.paths().next().is_some();
    if has_files || reads_again {
        // With those that are read again, and those that connections still have.
        terms.push(Term::new("files of certificates", 4, config.files.octets_again_max()));
    }
    if config.metrics.is_some() {
        let others = if reads_again { asked } else { 0 };
        let each = MetricsServer::octets(&config.upstreams, others);
        terms.push(Term::new("connection for metrics", sockets.metrics_conns, each));
    }
    if config.files.client.is_some() {
        let octets = tls::bound::client_certificate_octets(&tls_limits);
        terms.push(Term::new("client certificate", conns, octets));
    }
    if reads_again || has_files {
        let connectors = upstreams * tls::bound::CONNECTOR_OCTETS;
        terms.push(Term::new("trust, read again", 1, tls::bound::ROOTS_OCTETS + connectors));
    }
    if reads_again {
        // The text, its values, and what comes of them beside what was there.
        let read = Config::READ_OCTETS + rest + limits.query_log_max;
        terms.push(Term::new("configuration, read again", 1, read));
    }
    (terms, kept)
}

/// Zones that are forwarded although special, or have private addresses, as configured and as the forwarder has
/// them.
fn zone_octets(config: &Config) -> usize {
    let forwarded: &[_] = match &config.policy.special_names {
        SpecialNames::Local { forwarded } => forwarded,
        SpecialNames::Forward => &[],
    };
    let private: &[_] = match &config.policy.private_answers {
        PrivateAnswers::Strip { except, .. } => except,
        PrivateAnswers::Pass => &[],
    };
    let zones = forwarded.iter().chain(private);
    2 * zones.map(|zone| size_of::<Box<[u8]>>() + zone.len()).sum::<usize>()
}

fn kernel(config: &Config, process: usize) -> Vec<Term> {
    let sockets = &config.sockets;
    let listeners = config.listeners().len();
    // An entry of eight octets for each page, and half-empty pages at the end of each table.
    let tables = process / PAGE * 8;
    let last = sockets.segment_max + stream::SEGMENT_BOOKKEEPING;
    let client = SOCKET + DOUBLED * 2 * sockets.client_asked + last;
    let waiting = SOCKET + DOUBLED * sockets.client_asked;
    let upstream =
        SOCKET + DOUBLED * (sockets.upstream_receive_asked + sockets.upstream_send_asked) + last;
    // A TCP socket listens beside the one for datagrams.
    let listener =
        2 * SOCKET + DOUBLED * (sockets.datagram_receive_asked + sockets.datagram_send_asked);
    let network = network::LOOKERS * SOCKET + DOUBLED * network::RECEIVE_ASKED;
    let metrics = config.metrics.map_or(0, |_| sockets.metrics_conns);
    // As many wait to be accepted, and one more, and there is the listener.
    let waiting_metrics = config.metrics.map_or(0, |_| usize::from(metrics::backlog(sockets)) + 2);
    vec![
        Term::new("listener", listeners, listener),
        // The kernel takes one more than it is told.
        Term::new(
            "client not yet accepted",
            listeners * (usize::from(sockets.backlog) + 1),
            waiting,
        ),
        Term::new("client", config.limits.clients_max, client),
        Term::new("connection to an upstream", config.limits.upstream_conns_max, upstream),
        Term::new(
            "connection for metrics",
            metrics,
            SOCKET + DOUBLED * (sockets.metrics_send_asked + metrics::RECEIVE_ASKED) + last,
        ),
        Term::new(
            "connection for metrics that waits",
            waiting_metrics,
            SOCKET + DOUBLED * metrics::RECEIVE_ASKED,
        ),
        Term::new("page tables and others", 1, network + OTHERS + tables),
    ]
}

/// `1,234,567`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Octets of the stack. The deepest calls are in a handshake.
pub const STACK: usize = 64 * 1024;

/// Octets of configuration, root certificates, log lines, and tables of rustls and the standard library.
const REST: usize = 40 * 1024;

/// The part of what comes and goes that the allocator of the GNU C library cannot use again or has not given
/// back: measured where much comes and goes.
const GAPS_PART: usize = 4;

/// The kernel doubles the octets that it is asked for.
const DOUBLED: usize = 2;

/// Octets of a TCP socket with its inode, its descriptor and its entry in the epoll instance: 3.9 KB are
/// counted for each.
const SOCKET: usize = 4_096;

const PAGE: usize = 4096;

/// Octets that the kernel keeps for a process and its files: 74 KB are counted for an idle process.
const OTHERS: usize = 80 * 1024;

#[cfg(test)]
mod tests {
    use crate::config::{self, Command, Host};

    use super::*;

    fn bound(line: &[&str], program: usize) -> Bound {
        let arguments = line.iter().chain(&["--print-limits"]).map(Into::into).collect();
        match config::parse(arguments, Host::default()) {
            Ok(Command::PrintLimits(config)) => Bound::of(&config, program),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    /// For routers with 16 MB. The static program has 2.65 MB, and 2.78 MB with its variables.
    #[test]
    fn a_small_one_stays_under_5_8_mb() {
        let bound = bound(&["--size=small"], 2_780_000);
        let both = bound.process_sum() + bound.kernel_sum();
        assert!(both < 5_800_000, "{bound}");
    }

    #[test]
    fn a_small_one_with_metrics_stays_under_6_mb() {
        let both = |line: &[&str]| {
            let bound = bound(line, 2_780_000);
            bound.process_sum() + bound.kernel_sum()
        };
        let with_metrics = both(&["--size=small", "--metrics=127.0.0.1:9153"]);
        assert!(with_metrics < 6_000_000, "{with_metrics}");
        // With its two connections, and as many that wait.
        assert!(with_metrics - both(&["--size=small"]) < 200_000, "{with_metrics}");
    }

    #[test]
    fn the_terms_add_up_as_printed() {
        for line in [&[][..], &["--size=small"], &["--size=large", "-l", "127.0.0.1", "-l", "::1"]]
        {
            let text = bound(line, 1_000).to_string();
            let numbers = |line: &str| -> Vec<usize> {
                let words = line.split_whitespace().map(|word| word.replace(',', ""));
                words.filter_map(|word| word.parse().ok()).collect()
            };
            let (mut sum, mut sums) = (0, Vec::new());
            for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
                assert!(line.chars().count() <= 70, "{line}");
                if line.contains(" = ") {
                    let numbers = numbers(&line[34..]);
                    let [times, octets, product] = numbers[..] else { panic!("{line}") };
                    assert_eq!(times * octets, product, "{line}");
                    sum += product;
                } else if line.starts_with("both") {
                    assert_eq!(numbers(line), [sums.iter().sum::<usize>()]);
                } else {
                    assert_eq!(numbers(line), [sum], "{line}");
                    sums.push(std::mem::take(&mut sum));
                }
            }
            assert_eq!(sums.len(), 2, "{text}");
        }
    }

    #[test]
    fn flags_count() {
        let sums = |line: &[&str]| {
            let bound = bound(line, 0);
            (bound.process_sum(), bound.kernel_sum())
        };
        let (process, kernel) = sums(&["--query-log=on"]);
        assert_eq!(sums(&[]), (process, kernel), "it may be on");
        assert!(sums(&["--query-log=off"]).0 + 250_000 < process);
        for more in [
            &["--tcp-clients-max=151"][..],
            &["--listen=127.0.0.1", "--listen=127.0.0.2"],
            &["--metrics=127.0.0.1:9153"],
            &["--upstream=quad9", "--upstream=9.9.9.10#x"],
        ] {
            let (more_process, more_kernel) = sums(more);
            assert!(more_kernel > kernel, "{more:?}");
            assert!(more_process > process || more[0].starts_with("--listen"), "{more:?}");
        }
        assert!(sums(&["--forward-zone=10.in-addr.arpa"]).0 > process);
        assert!(sums(&["--private-answers=strip", "--private-zone=corp.example"]).0 > process);
        assert!(sums(&["--allow=local"]).0 > process + 256 * 64);
        assert!(sums(&["--rate-limit=10"]).0 > process + 4_096 * 16);
        assert!(bound(&[], 1).process_sum() > process);
    }

    /// What a configuration may have when it is read again counts from the start.
    #[test]
    fn what_is_read_again_counts() {
        let path = std::env::temp_dir().join(format!("dot-proxy-memory-{}", std::process::id()));
        let of_file = |lines: &str, more: &[&str]| {
            std::fs::write(&path, lines).unwrap();
            let file = format!("--config={}", path.display());
            bound(&[&[&*file], more].concat(), 0)
        };
        let metrics = ["--metrics=127.0.0.1:9153"];
        let one = of_file("upstream 1.1.1.1#x\n", &metrics);
        let name = "a.".repeat(126);
        let many = |n: usize| format!("upstream 192.0.2.{n}#{name}\n");
        let many: String = (1..17).map(many).collect::<String>() + "rate-limit 5\n";
        let most = of_file(&many, &metrics);
        let term = |bound: &Bound, what: &str| {
            bound.process.iter().filter(|term| term.what == what).map(Term::sum).sum::<usize>()
        };
        for what in [
            "upstream",
            "TLS session",
            "rates of networks",
            "files of certificates",
            "connection for metrics",
            "trust, read again",
            "configuration, read again",
        ] {
            assert!(term(&one, what) > 0, "{what}");
            // What few values take is in other terms.
            assert!(term(&one, what) + 64 >= term(&most, what), "{what}");
        }
        assert!(term(&bound(&[], 0), "upstream") < term(&one, "upstream"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_heading_says_what_it_is_for() {
        let heading = |line: &[&str]| bound(line, 0).to_string().lines().next().map(String::from);
        assert_eq!(
            heading(&["--size=small", "-u=1.1.1.1#x"]).as_deref(),
            Some("size small, 1 upstream, 1 listener, in octets at most")
        );
    }

    #[test]
    fn digits_are_grouped() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (65_537, "65,537"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
