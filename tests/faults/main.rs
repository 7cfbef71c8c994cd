//! Every fault of upstreams and clients on real sockets, and what dot-proxy promises to do about it.
//!
//! What is tried is in [`support::faults`], which knows nothing of dot-proxy: the program `faults` tries the
//! same on any forwarder.

use std::io::Write;
use std::sync::Once;
use std::time::Duration;

use support::faults::{answers, clients, connections, handshakes};
use support::forwarder::outcome::Outcome;
use support::forwarder::own::DotProxy;
use support::forwarder::subject::Subject;
use support::namespace::{Namespace, in_namespace, while_interfaces_come_and_go};

type Row = fn(&dyn Subject) -> Result<Outcome, String>;

/// EDE codes (RFC 8914 section 4).
const OTHER: u16 = 0;
const NO_REACHABLE_AUTHORITY: u16 = 22;
const NETWORK_ERROR: u16 = 23;

/// Runs a row; `None` if this machine cannot, which is printed past the capture of the test harness, so
/// that nobody takes it for a pass.
#[track_caller]
fn run(name: &str, row: Row) -> Option<Outcome> {
    judge(name, apart(|| row(&DotProxy)))
}

/// Does it in a network of its own where that may be had, so that nothing on the host disturbs it.
fn apart<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    static TOLD: Once = Once::new();

    match Namespace::new() {
        Ok(namespace) => namespace.enter(inside),
        Err(reason) => {
            TOLD.call_once(|| {
                let line = format!("\non the network of the host: {}\n", reason.trim());
                std::io::stdout().write_all(line.as_bytes()).expect("a standard output");
            });
            inside()
        }
    }
}

#[track_caller]
fn judge(name: &str, result: Result<Outcome, String>) -> Option<Outcome> {
    match result {
        Ok(outcome) => {
            assert!(
                outcome.broken.is_empty(),
                "{:#?}\nanswered {}, SERVFAIL {}, lost {}, worst {:.1?}, {} connections, {:?}\n\
                 EDE {:?}\nlog {:#?}",
                outcome.broken,
                outcome.answered,
                outcome.servfail,
                outcome.lost,
                outcome.worst,
                outcome.connections,
                outcome.notes,
                outcome.errors,
                outcome.lines
            );
            Some(outcome)
        }
        Err(reason) => {
            support::skip::skip(name, &reason);
            None
        }
    }
}

/// Every error came with this Extended DNS Error, and with these words.
#[track_caller]
fn assert_told(outcome: &Outcome, code: u16, words: &[&str]) {
    assert!(!outcome.errors.is_empty(), "an EDE with every SERVFAIL");
    for (seen, text) in &outcome.errors {
        assert_eq!(*seen, code, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text:?}");
    }
}

/// Nothing was held against an upstream.
#[track_caller]
fn assert_no_failure_logged(outcome: &Outcome) {
    let told = outcome.lines.iter().any(|line| line.contains("usable"));
    assert!(!told, "{:#?}", outcome.lines);
}

/// What is wrong is told, but not for every query.
#[track_caller]
fn assert_few_lines(outcome: &Outcome) {
    assert!(outcome.lines.len() <= 12, "{:#?}", outcome.lines);
}

/// Runs a row on a host whose containers come and go.
fn run_while_interfaces_come_and_go(name: &str, row: Row) {
    let pauses = [250, 1_000, 3_000].map(Duration::from_millis);
    in_namespace(name, "", || {
        judge(name, while_interfaces_come_and_go(&pauses, || row(&DotProxy)));
    });
}

#[test]
fn u08_while_interfaces_come_and_go() {
    let row = answers::only_the_first_query;
    run_while_interfaces_come_and_go("u08_while_interfaces_come_and_go", row);
}

#[test]
fn u19_while_interfaces_come_and_go() {
    let row = answers::stops_reading_first;
    run_while_interfaces_come_and_go("u19_while_interfaces_come_and_go", row);
}

macro_rules! rows {
    ($($(#[$attribute:meta])* $test:ident: $row:path $(, $check:expr)?;)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $test() {
            if let Some(_outcome) = run(stringify!($test), $row) {
                $($check(&_outcome);)?
            }
        }
    )*};
}

rows! {
    u01_fin_after_every_answer: connections::fin_after_every_answer, assert_no_failure_logged;
    u02_fin_after_idle: connections::fin_after_idle, assert_no_failure_logged;
    u03_rst_on_second_query: connections::rst_on_second_query, assert_no_failure_logged;
    u04_forgotten_connection: connections::forgotten_connection;
    u05_never_speaks_tls: handshakes::never_speaks_tls, assert_few_lines;
    u05_never_speaks_tls_alone: handshakes::never_speaks_tls_alone, |outcome: &Outcome| {
        assert_told(outcome, NO_REACHABLE_AUTHORITY, &["#dot.example"]);
        assert_few_lines(outcome);
    };
    u06_handshake_of_three_seconds: handshakes::slow_handshake, |outcome: &Outcome| {
        assert_eq!(outcome.servfail, 0, "the deadline is later than the end of the handshake");
        assert_eq!(outcome.connections, 1);
    };
    u07_never_answers: answers::never_answers, assert_few_lines;
    u07_never_answers_alone: answers::never_answers_alone, |outcome: &Outcome| {
        assert_told(outcome, NETWORK_ERROR, &["#dot.example"]);
        assert_few_lines(outcome);
    };
    u08_answers_only_the_first_query: answers::only_the_first_query;
    u09_reverse_order_and_one_slow_name: answers::reverse_order, |outcome: &Outcome| {
        assert_eq!(outcome.connections, 1, "nothing stalls");
    };
    u10_bad_answers: answers::bad_answers;
    u11_single_octets_and_many_messages: answers::single_octets;
    u12_largest_answer: answers::largest_answer;
    u13_never_a_clean_close: connections::never_a_clean_close, assert_no_failure_logged;
    u13_close_never_returned: connections::close_never_returned, assert_no_failure_logged;
    u14_bad_certificates: handshakes::bad_certificates, |outcome: &Outcome| {
        assert_told(outcome, OTHER, &["certificate", "#dot.example"]);
        let told = outcome.lines.iter().filter(|line| {
            line.contains("not usable") && line.contains("certificate")
        });
        assert!(told.count() >= 7, "{:#?}", outcome.lines);
    };
    u14_wrong_keys: handshakes::wrong_keys, |outcome: &Outcome| {
        assert_told(outcome, OTHER, &["certificate", "the server's key is sha256/"]);
        let told = outcome.lines.iter().filter(|line| {
            line.contains("not usable") && line.contains("certificate") && line.contains("expected")
        });
        assert_eq!(told.count(), 2, "{:#?}", outcome.lines);
    };
    u15_ticket_key_changed: connections::ticket_key_changed, |outcome: &Outcome| {
        assert_no_failure_logged(outcome);
        assert_eq!(outcome.notes, ["3 full handshakes, 27 resumed"]);
    };
    u16_keepalive_zero: connections::keepalive_zero, assert_no_failure_logged;
    u16_keepalive_one_second: connections::keepalive_one_second, assert_no_failure_logged;
    u17_syn_black_hole: handshakes::black_hole, assert_few_lines;
    u17_connection_refused: handshakes::refused, assert_few_lines;
    u17_network_unreachable: handshakes::unreachable, assert_few_lines;
    u18_half_servfail: answers::half_servfail;
    u18_half_servfail_second_operator: answers::half_servfail_second_operator;
    u19_stops_reading: answers::stops_reading_first;
    u19_stops_reading_alone: answers::stops_reading_alone;
    u20_outage: connections::outage;
    u21_cold_burst: handshakes::cold_burst, |outcome: &Outcome| {
        assert_eq!(outcome.connections, 1, "one attempt");
    };
    u22_close_every_twenty: connections::close_every_twenty, assert_no_failure_logged;
    u23_closes_on_one_query: answers::closes_on_one_query, assert_no_failure_logged;
    u24_one_percent_never_answered: answers::one_percent_never, |outcome: &Outcome| {
        assert_told(outcome, NETWORK_ERROR, &["#dot.example"]);
    };
    u25_trickling_answer: answers::trickling_answer;
    u25_unmatched_answers: answers::unmatched_answers;
    u25_large_answer_on_a_slow_path: answers::large_on_slow_path, assert_no_failure_logged;
    u26_half_the_names: answers::half_dead, assert_few_lines;
    u26_half_the_names_other_operator: answers::half_dead_other_operator, |outcome: &Outcome| {
        assert_few_lines(outcome);
        let told = outcome.lines.iter().find(|line| line.contains("not usable"));
        let told = told.expect("a line");
        assert!(told.contains("of its last 20 queries had no answer in time"), "{told}");
    };
    u26_late_other_operator: answers::late_other_operator, assert_few_lines;
    u27_one_query_at_a_time: answers::one_at_a_time_first, assert_few_lines;
    u27_one_query_at_a_time_alone: answers::one_at_a_time, assert_few_lines;
    u28_objections_to_what_is_added: answers::objections, |outcome: &Outcome| {
        // Each of 16 servers: once, and those that know no OPT record once more at most.
        let about = |what| outcome.lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(about("answers errors to queries with padding"), 12, "{:#?}", outcome.lines);
        assert_eq!(about("does not understand EDNS"), 4, "{:#?}", outcome.lines);
        assert_no_failure_logged(outcome);
    };
    c1_one_octet_at_a_time: clients::one_octet_at_a_time;
    c2_idle_connections: clients::idle_connections;
    c3_early_close: clients::early_close;
    c4_never_reads: clients::never_reads;
    c5_thousand_in_one_write: clients::thousand_in_one_write;
    c6_flood: clients::flood;
    c7_burst: clients::burst;
    c8_malformed_queries: clients::malformed_queries;
    c9_retransmissions: clients::retransmissions;
    c11_resets: clients::resets, assert_no_failure_logged;
}
