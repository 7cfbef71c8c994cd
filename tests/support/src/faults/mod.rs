//! Every fault of upstreams and clients on real sockets, as rows in their order.

pub mod answers;
pub mod clients;
pub mod connections;
pub mod handshakes;

use crate::forwarder::runner::Row;

macro_rules! rows {
    ($($name:literal, $what:literal, $run:path;)*) => {
        &[$(Row { name: $name, what: $what, run: $run }),*]
    };
}

pub const ROWS: &[Row] = rows! {
    "U1", "FIN after every answer", connections::fin_after_every_answer;
    "U2", "FIN after 1.5 s idle", connections::fin_after_idle;
    "U3", "RST on the second query of a connection", connections::rst_on_second_query;
    "U4", "connection silently forgotten", connections::forgotten_connection;
    "U5", "accepts TCP, never speaks TLS", handshakes::never_speaks_tls;
    "U5 alone", "the same without another upstream", handshakes::never_speaks_tls_alone;
    "U6", "handshake takes 3 s", handshakes::slow_handshake;
    "U7", "handshake fine, never answers", answers::never_answers;
    "U7 alone", "the same without another upstream", answers::never_answers_alone;
    "U8", "answers only the first query of a connection", answers::only_the_first_query;
    "U9", "answers in reverse order, one name slow", answers::reverse_order;
    "U10", "duplicate, late, unknown, wrong answers", answers::bad_answers;
    "U11", "single octets, many messages in a record", answers::single_octets;
    "U12", "65,535-octet answer", answers::largest_answer;
    "U13", "never a clean close", connections::never_a_clean_close;
    "U14", "seven bad certificates", handshakes::bad_certificates;
    "U14 key", "two keys that are not those pinned", handshakes::wrong_keys;
    "U15", "session-ticket key changed", connections::ticket_key_changed;
    "U16", "keepalive TIMEOUT 0", connections::keepalive_zero;
    "U16 1 s", "keepalive TIMEOUT of 1 s", connections::keepalive_one_second;
    "U17 hole", "SYN black hole", handshakes::black_hole;
    "U17 refused", "connection refused", handshakes::refused;
    "U17 no route", "network unreachable", handshakes::unreachable;
    "U18", "half the answers are SERVFAIL", answers::half_servfail;
    "U18 other", "the same with another operator", answers::half_servfail_second_operator;
    "U19", "stops reading", answers::stops_reading_first;
    "U19 alone", "the same without another upstream", answers::stops_reading_alone;
    "U20", "everything unreachable for 30 s, then back", connections::outage;
    "U21", "500 queries at once, cold", handshakes::cold_burst;
    "U22", "closes every 20 queries under load", connections::close_every_twenty;
    "U23", "closes whenever it sees one query", answers::closes_on_one_query;
    "U24", "never answers 1 % of the queries", answers::one_percent_never;
    "U28", "FORMERR or NOTIMP to an option, or to OPT", answers::objections;
    "U25", "an answer arrives at an octet in 0.7 s", answers::trickling_answer;
    "U25 unmatched", "answers to nothing asked, one in 0.7 s", answers::unmatched_answers;
    "U25 large", "64,000-octet answer at 20 KB a second", answers::large_on_slow_path;
    "U26", "answers half of the names", answers::half_dead;
    "U26 other", "the same with another operator", answers::half_dead_other_operator;
    "U26 late", "nine in ten answers 6 s late, another operator", answers::late_other_operator;
    "U27", "one query of a connection at a time", answers::one_at_a_time_first;
    "U27 alone", "the same without another upstream", answers::one_at_a_time;
    "C1", "one octet at a time; a length and nothing more", clients::one_octet_at_a_time;
    "C2", "1,000 idle TCP connections", clients::idle_connections;
    "C3", "half-closes, closes with queries in flight", clients::early_close;
    "C4", "never reads its answers", clients::never_reads;
    "C5", "1,000 queries in one write", clients::thousand_in_one_write;
    "C6", "UDP flood above the table", clients::flood;
    "C7", "a burst of 80 % of the receive buffer", clients::burst;
    "C8", "malformed queries", clients::malformed_queries;
    "C9", "retransmissions, the same ID from many", clients::retransmissions;
    "C11", "resets with queries in flight, 25 a second", clients::resets;
};
