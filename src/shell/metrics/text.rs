//! The metrics in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::http::Response;
use super::{Facts, Reloads, View};
use crate::forwarder::{Counts, Held, Stage};
use crate::host::process::Process;
use crate::shell::upstream::HandshakeCounts;

/// Appends all metrics to `out`, which has room for [`octets_max`].
#[inline(never)]
pub(super) fn write(out: &mut Response, facts: &Facts, view: &View<'_>) {
    let mut text = Text { out };
    queries(&mut text, view);
    for (name, help, count) in COUNTERS {
        text.single(&Family { name, kind: "counter", help }, count(&view.forwarder.counts()));
    }
    let measures = view.forwarder.measures();
    text.single(&HEDGES_WON, measures.hedges_won);
    text.single(&CLIENTS_ACCEPTED, measures.clients_accepted);
    held(&mut text, view.forwarder.held());
    upstreams(&mut text, facts, view);
    process(&mut text, facts, view);
}

/// Octets of all metrics at most, for upstreams with these labels.
pub(super) fn octets_max(labels: &[Box<str>]) -> usize {
    let octets: usize = labels.iter().map(|label| LINE_MAX + label.len()).sum();
    ALL_OTHERS_MAX + UPSTREAM_LINES * octets
}

/// Octets of all metrics at most, for so many upstreams with any labels.
pub(super) fn octets_of_any(upstreams: usize) -> usize {
    ALL_OTHERS_MAX + UPSTREAM_LINES * upstreams * (LINE_MAX + LABEL_MAX)
}

/// A metric with all its labels.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

struct Text<'a> {
    out: &'a mut Response,
}

impl Text<'_> {
    #[inline(never)]
    fn head(&mut self, family: &Family) {
        let Family { name, kind, help } = family;
        // Writing to a response does not fail, here and below.
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn single(&mut self, family: &Family, value: impl Display) {
        self.write_single(family, &value);
    }

    // Once in the program, rather than at each call.
    #[inline(never)]
    fn write_single(&mut self, family: &Family, value: &dyn Display) {
        self.head(family);
        writeln!(self.out, "{} {value}", family.name).ok();
    }

    /// A line of a family; the values of labels are fixed words or [escaped].
    fn line(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        self.write_line(family, labels, &value);
    }

    #[inline(never)]
    fn write_line(&mut self, family: &Family, labels: &[(&str, &str)], value: &dyn Display) {
        write!(self.out, "{}", family.name).ok();
        let mut mark = '{';
        for (name, of) in labels {
            write!(self.out, "{mark}{name}=\"{of}\"").ok();
            mark = ',';
        }
        writeln!(self.out, "}} {value}").ok();
    }
}

fn queries(text: &mut Text<'_>, view: &View<'_>) {
    let measures = view.forwarder.measures();
    text.head(&QUERIES);
    for (transport, how, count) in measures.results() {
        text.line(&QUERIES, &[("transport", transport), ("result", how.word())], count);
    }
    for (family, label, counts) in [
        (&RESPONSES, "rcode", measures.rcodes().collect::<Vec<_>>()),
        (&TYPES, "type", measures.types().collect()),
        (&SERVFAILS, "reason", measures.failures().collect()),
    ] {
        text.head(family);
        for (word, count) in counts {
            text.line(family, &[(label, word)], count);
        }
    }
    text.head(&DURATION);
    let name = DURATION.name;
    for (time, count) in measures.within() {
        let bound = seconds(time);
        writeln!(text.out, "{name}_bucket{{le=\"{bound}\"}} {count}").ok();
    }
    let (count, waited) = measures.waited();
    writeln!(
        text.out,
        "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}",
        seconds(waited)
    )
    .ok();
}

fn held(text: &mut Text<'_>, held: Held) {
    let Held { queries, clients, client_octets, upstream_conns, upstream_octets } = held;
    let all = [queries, clients, client_octets, upstream_conns, upstream_octets];
    for ((now, most), (of_now, of_most)) in all.into_iter().zip(&HELD) {
        text.single(of_now, now);
        text.single(of_most, most);
    }
}

fn upstreams(text: &mut Text<'_>, facts: &Facts, view: &View<'_>) {
    let all = || {
        let states = view.forwarder.upstream_states();
        let targets = view.forwarder.upstreams_asked().map(|it| &view.targets[it.index()]);
        facts.labels.iter().zip(states).zip(targets)
    };
    text.head(&USABLE);
    for ((label, state), _) in all() {
        text.line(&USABLE, &[("upstream", label)], u8::from(state.is_usable));
    }
    text.head(&CONNECTIONS);
    for ((label, state), _) in all() {
        text.line(&CONNECTIONS, &[("upstream", label)], state.conns);
    }
    text.head(&SENT);
    for ((label, state), _) in all() {
        text.line(&SENT, &[("upstream", label)], state.sends);
    }
    text.head(&FAILURES);
    for ((label, state), _) in all() {
        for (stage, count) in Stage::ALL.into_iter().zip(state.failures) {
            text.line(&FAILURES, &[("upstream", label), ("stage", stage.word())], count);
        }
    }
    text.head(&HANDSHAKES);
    for ((label, _), target) in all() {
        let HandshakeCounts { done, failed } = target.handshakes();
        for (result, counts) in [("success", done), ("failure", failed)] {
            for (kind, count) in ["full", "resumed"].into_iter().zip(counts) {
                let labels = [("upstream", &**label), ("kind", kind), ("result", result)];
                text.line(&HANDSHAKES, &labels, count);
            }
        }
    }
    text.head(&CERTIFICATE);
    for ((label, _), target) in all() {
        if let Some(end) = target.certificate_end() {
            text.line(&CERTIFICATE, &[("upstream", label)], end);
        }
    }
}

fn process(text: &mut Text<'_>, facts: &Facts, view: &View<'_>) {
    text.single(&READY, u8::from(view.is_serving));
    text.single(&MEMORY_BOUND, facts.octets_max);
    let Reloads { done, failed, has_last_failed, read_at } = facts.reloads;
    text.single(&LAST_RELOAD, u8::from(!has_last_failed));
    text.single(&READ_AT, seconds(read_at));
    text.head(&RELOADS);
    for (result, count) in [("success", done), ("failure", failed)] {
        text.line(&RELOADS, &[("result", result)], count);
    }
    text.head(&BUILD);
    text.line(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let process = &facts.process;
    text.single(&PROCESSOR_TIME, seconds(Process::processor_time()));
    text.single(&START, seconds(process.started()));
    if let Some([all, resident]) = process.memory() {
        text.single(&RESIDENT, resident);
        text.single(&VIRTUAL, all);
    }
    text.single(&FILES, process.files() + view.files);
    if let Some(most) = process.files_max() {
        text.single(&FILES_MAX, most);
    }
}

/// A value of a label with what would end it escaped.
pub(super) fn escaped(value: &str) -> Box<str> {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

/// A time in the base unit, to the microsecond.
fn seconds(time: Duration) -> Seconds {
    Seconds(time)
}

/// Written without a floating-point number, as nothing else in the program needs what writes one.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())?;
        let (mut fraction, mut digits) = (self.0.subsec_micros(), 6);
        if fraction == 0 {
            return Ok(());
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, ".{fraction:0digits$}")
    }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "counter", help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "gauge", help }
}

const QUERIES: Family = counter(
    "dot_proxy_queries_total",
    "Queries that ended, by transport and result: upstream's answer, answer made here, SERVFAIL made here, \
     TC alone, or none as the client was gone.",
);
const RESPONSES: Family = counter("dot_proxy_responses_total", "Responses by RCODE.");
const TYPES: Family = counter("dot_proxy_query_types_total", "Queries that ended, by type.");
const SERVFAILS: Family =
    counter("dot_proxy_servfail_total", "SERVFAIL responses made here, by reason.");
const DURATION: Family = Family {
    name: "dot_proxy_response_duration_seconds",
    kind: "histogram",
    help: "Time from a query that was forwarded to its response.",
};
const HEDGES_WON: Family =
    counter("dot_proxy_hedges_won_total", "Copies of late queries that were answered first.");
const CLIENTS_ACCEPTED: Family = counter(
    "dot_proxy_tcp_clients_accepted_total",
    "TCP connections of clients that were accepted.",
);

type Counter = (&'static str, &'static str, fn(&Counts) -> u64);

const COUNTERS: [Counter; 17] = [
    ("dot_proxy_resends_total", "Times a query was sent once more.", |it| it.resent),
    ("dot_proxy_hedges_total", "Copies sent as an answer was late.", |it| it.hedged),
    (
        "dot_proxy_rescues_total",
        "Copies sent as a connection brought nothing or an answer another ID.",
        |it| it.rescued,
    ),
    (
        "dot_proxy_second_opinions_total",
        "Queries asked of another operator after SERVFAIL or REFUSED.",
        |it| it.retried,
    ),
    (
        "dot_proxy_plainer_repeats_total",
        "Queries repeated with less of EDNS, as an upstream objected.",
        |it| it.asked_plainer,
    ),
    ("dot_proxy_private_answers_total", "Answers whose private addresses were taken out.", |it| {
        it.stripped
    }),
    (
        "dot_proxy_unmatched_answers_total",
        "Answers of upstreams that belonged to no query.",
        |it| it.unmatched,
    ),
    ("dot_proxy_loops_total", "Queries that had gone round through upstreams.", |it| it.came_back),
    (
        "dot_proxy_retransmissions_dropped_total",
        "Retransmissions beyond those that are answered.",
        |it| it.repeated,
    ),
    ("dot_proxy_messages_dropped_total", "Messages of clients that were no queries.", |it| {
        it.dropped
    }),
    (
        "dot_proxy_datagrams_ignored_total",
        "Datagrams that came from nobody or were for many hosts.",
        |it| it.ignored,
    ),
    ("dot_proxy_datagrams_dropped_total", "Responses by datagram that could not be sent.", |it| {
        it.datagrams_dropped
    }),
    (
        "dot_proxy_refused_total",
        "Datagrams and connections from addresses that are not served.",
        |it| it.refused,
    ),
    ("dot_proxy_rate_limited_total", "Datagrams above --rate-limit.", |it| it.above_rate),
    (
        "dot_proxy_tcp_clients_refused_total",
        "TCP connections refused as all places were taken.",
        |it| it.crowded_out,
    ),
    (
        "dot_proxy_tcp_clients_evicted_total",
        "TCP connections closed to make room for others.",
        |it| it.made_room,
    ),
    (
        "dot_proxy_tcp_clients_shed_total",
        "TCP connections closed as clients held too many octets.",
        |it| it.shed,
    ),
];

/// What is held, and its bound, in the order of [`Held`].
const HELD: [(Family, Family); 5] = [
    (
        gauge("dot_proxy_queries_held", "Queries without an answer."),
        gauge("dot_proxy_queries_held_limit", "Bound of dot_proxy_queries_held."),
    ),
    (
        gauge("dot_proxy_tcp_clients", "TCP connections of clients."),
        gauge("dot_proxy_tcp_clients_limit", "Bound of dot_proxy_tcp_clients."),
    ),
    (
        gauge("dot_proxy_tcp_clients_held_bytes", "Octets held for TCP clients."),
        gauge(
            "dot_proxy_tcp_clients_held_limit_bytes",
            "Bound of dot_proxy_tcp_clients_held_bytes.",
        ),
    ),
    (
        gauge("dot_proxy_connections_held", "Connections to all upstreams, attempts included."),
        gauge("dot_proxy_connections_held_limit", "Bound of dot_proxy_connections_held."),
    ),
    (
        gauge("dot_proxy_upstreams_held_bytes", "Octets held for connections to upstreams."),
        gauge("dot_proxy_upstreams_held_limit_bytes", "Bound of dot_proxy_upstreams_held_bytes."),
    ),
];

const USABLE: Family =
    gauge("dot_proxy_upstream_usable", "Whether queries are sent to the upstream.");
const CONNECTIONS: Family =
    gauge("dot_proxy_upstream_connections", "Connections to the upstream that stand.");
const SENT: Family =
    counter("dot_proxy_upstream_queries_total", "Queries sent to the upstream, copies included.");
const FAILURES: Family = counter(
    "dot_proxy_upstream_failures_total",
    "Attempts to connect to the upstream that failed, by stage.",
);
const HANDSHAKES: Family = counter(
    "dot_proxy_upstream_handshakes_total",
    "TLS handshakes that ended, by kind and result; one that failed is resumed if that was tried.",
);
const CERTIFICATE: Family = gauge(
    "dot_proxy_upstream_certificate_expiry_timestamp_seconds",
    "When the certificate of the last full handshake ends.",
);

const READY: Family = gauge("dot_proxy_ready", "Whether /readyz says 200: 0 from SIGTERM on.");
const MEMORY_BOUND: Family = gauge(
    "dot_proxy_memory_bound_bytes",
    "Memory of the process at most, as --print-limits adds it up.",
);
const LAST_RELOAD: Family = gauge(
    "dot_proxy_config_last_reload_successful",
    "Whether the configuration could be read the last time.",
);
const READ_AT: Family = gauge(
    "dot_proxy_config_last_reload_success_timestamp_seconds",
    "When the configuration was read without an error, at the start or later.",
);
const RELOADS: Family =
    counter("dot_proxy_config_reloads_total", "Times the configuration was read again, by result.");
const BUILD: Family = gauge("dot_proxy_build_info", "The version that runs.");

const PROCESSOR_TIME: Family =
    counter("process_cpu_seconds_total", "Processor time, of user and system.");
const START: Family = gauge("process_start_time_seconds", "When the process began to serve.");
const RESIDENT: Family = gauge("process_resident_memory_bytes", "Memory that is resident.");
const VIRTUAL: Family = gauge("process_virtual_memory_bytes", "Memory that has addresses.");
const FILES: Family = gauge("process_open_fds", "Open file descriptors.");
const FILES_MAX: Family = gauge("process_max_fds", "File descriptors that may be open.");

/// Lines that there are for each upstream.
const UPSTREAM_LINES: usize = 4 + Stage::ALL.len() + 4;

/// Octets of such a line without the label of its upstream: the longest name, other labels, a number.
const LINE_MAX: usize = 128;

/// Octets of the label of an upstream: an IPv6 address with an interface and a port, a name, and a number.
pub(super) const LABEL_MAX: usize = 64 + 254 + 8;

/// Octets of all lines that are not about one upstream, with the longest numbers.
const ALL_OTHERS_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        for (value, expected) in
            [("9.9.9.9#dns.quad9.net", "9.9.9.9#dns.quad9.net"), ("a\"b\\c\nd", "a\\\"b\\\\c\\nd")]
        {
            assert_eq!(&*escaped(value), expected);
        }
    }

    #[test]
    fn times_are_written_in_seconds() {
        for (micros, expected) in [
            (0, "0"),
            (1_000, "0.001"),
            (2_500, "0.0025"),
            (100_000, "0.1"),
            (5_000_000, "5"),
            (12_345_678, "12.345678"),
            (u64::MAX / 1_000_000 * 1_000_000, "18446744073709"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)).to_string(), expected);
        }
    }
}
