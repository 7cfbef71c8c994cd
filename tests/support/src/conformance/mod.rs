//! The statements that can be checked from outside, in their order: a test's name, the number, what is
//! asked, and the check. A number with a word behind it is a part of a statement.

pub mod client;
pub mod edns;
pub mod hello;
pub mod key_exchange;
pub mod names;
pub mod proxying;
pub mod sanity;
pub mod tls;
pub mod transports;

use crate::forwarder::runner::Row;

/// Hands the list to a macro, where the modules of the checks are in scope.
#[macro_export]
macro_rules! statements {
    ($each:ident) => {
        $each! {
            s01_transparency: "1", "queries and answers are passed on unchanged", proxying::transparency;
            s02_flags: "2", "unknown header flags are ignored", proxying::flags;
            s03_compression: "3", "messages with and without compression", proxying::compression;
            s04_types_and_classes: "4", "every type and class", proxying::types;
            s05_truncation: "5", "TC when truncated, never cleared, not at 512 octets for more", proxying::truncation;
            s06_tcp_first: "6", "TCP at the same port, and first", proxying::tcp_first;
            s07_edns_queries: "7", "queries with OPT are not dropped, and keep DO", proxying::edns_queries;
            s08_four_kilobytes: "8", "4,096 octets over UDP to who takes them", proxying::four_kilobytes;
            s09_tsig: "9 TSIG", "TSIG and TKEY pass unchanged", proxying::tsig_queries;
            s09_sig0: "9 SIG(0)", "SIG(0) passes with its ID", proxying::sig0_queries;
            s10_message_ids: "10", "an ID is not used twice at a time", proxying::message_ids;
            s12_dropped: "12", "responses and fragments are dropped, a bad answer has a second try", proxying::what_is_dropped;
            s13_same_way_back: "13", "an answer goes the way its query came", transports::same_way_back;
            s14_matching: "14", "answers are matched by ID and question", transports::matching;
            s15_any_order: "15", "answers in any order", transports::any_order;
            s16_pipelining: "16", "pipelined queries are answered as they are ready", transports::pipelining;
            s17_reuse: "17", "a connection is used for many queries", transports::reuse;
            s18_no_waiting: "18", "a query does not wait for an answer to another", transports::no_waiting;
            s19_one_connection: "19", "one connection per upstream under load", transports::one_connection;
            s20_idle: "20", "idle connections are closed, octets are no activity", transports::idle;
            s21_retry: "21", "queries of a lost connection are sent again; half-close", transports::retry;
            s22_segmentation: "22", "frames split or coalesced at any octet", transports::segmentation;
            s23_many_clients: "23", "200 idle connections do not shut others out", transports::many_clients;
            s24_any_transport: "24", "no transport is refused for another", transports::any_transport;
            s25_closes: "25", "clients are ended by FIN when idle, upstreams connected to again", transports::closes;
            s26_no_early_data: "26", "no early data", tls::no_early_data;
            s27_never_in_clear: "27", "no clear text to the upstream, whatever it does", tls::never_in_clear;
            s29_backoff: "29", "attempts to connect are few while all is down", tls::backoff;
            s30_abrupt_closes: "30", "closes of all kinds under load cost no query", transports::abrupt_closes;
            s31_resumption: "31", "sessions are resumed", tls::resumption;
            s32_close_notify: "32", "close_notify is sent; a message cut off is none", transports::close_notify;
            s33_strict: "33", "no fall-back from Strict", tls::strict;
            s34_unauthenticated: "34", "no query to who is not authenticated", tls::unauthenticated;
            s35_certificate_names: "35", "names of certificates are those of RFC 9525", tls::certificate_names;
            s36_name_and_pins: "36", "a name and a pin must both be right", tls::name_and_pins;
            s37_pins: "37", "pins are SHA-256 of keys; spare ones; a mismatch is told", tls::pins;
            s39_versions_and_suites: "39", "TLS 1.2 and 1.3, no compression, no weak suites", tls::versions_and_suites;
            s40_name_and_protocol: "40", "SNI and ALPN dot; another protocol is refused", tls::name_and_protocol;
            s41_tickets: "41", "a ticket is used once", tls::tickets;
            s43_one_opt_or_none: "43", "OPT to who sent one and nobody else; servers that object to it", edns::one_opt_or_none;
            s44_malformed_opt: "44", "FORMERR for malformed OPT, BADVERS for other versions", edns::malformed_opt;
            s45_payload_sizes: "45", "payload sizes, each way", edns::payload_sizes;
            s46_nothing_carried_over: "46", "nothing of one client's OPT for another", edns::nothing_carried_over;
            s47_no_padding_in_clear: "47", "padding stays within TLS", edns::no_padding_in_clear;
            s48_padding: "48", "queries are padded to 128 octets", edns::padding;
            s49_padding_last: "49", "padding is the last option", edns::padding_last;
            s50_keepalive_upstream: "50", "an empty keepalive in a connection's first query", edns::keepalive_upstream;
            s51_keepalive_obeyed: "51", "the TIMEOUT of a server is obeyed", edns::keepalive_obeyed;
            s52_keepalive_hop_by_hop: "52 hop", "keepalive is not passed on, nor sent over UDP", edns::keepalive_hop_by_hop;
            s52_keepalive_told: "52 told", "TCP clients are told their true idle timeout", edns::keepalive_told;
            s53_client_subnet: "53", "SOURCE 0 upstream, and no client subnet passes", edns::client_subnet;
            s54_cookies: "54", "cookies pass in neither direction", edns::cookies;
            s55_extended_errors: "55", "EDE to who sent OPT; the upstream's passes", edns::extended_errors;
            s56_unknown_things: "56", "every unknown thing gets the answer due", edns::unknown_things;
            s57_dnssec_bits: "57", "DO, CD, AD upstream; the header of answers as it came", edns::dnssec_bits;
            s58_local_answers: "58", "FORMERR for two questions; what local answers copy", sanity::local_answers;
            s59_only_responses: "59", "an answer has QR=1 and opcode QUERY", sanity::only_responses;
            s60_spelling: "60", "names in any spelling, and the client's own back", sanity::spelling;
            s61_garbage: "61", "garbage from both sides", sanity::garbage;
            s63_special_names: "63", "localhost, invalid, test, onion, local, home.arpa", names::special;
            s64_reverse_zones: "64", "reverse zones of private addresses", names::reverse;
            s65_resolver: "65", "resolver.arpa", names::resolver;
            s71_hybrid: "71", "X25519MLKEM768 is offered, and used where the server has it", key_exchange::hybrid;
            s72_key_shares: "72", "shares are of groups offered, in their order; any common group will do", key_exchange::shares;
        }
    };
}

macro_rules! rows {
    ($($(#[$attribute:meta])* $test:ident: $number:literal, $what:literal, $run:path;)*) => {
        /// The statements with their checks.
        pub const ROWS: &[Row] = &[$(Row { name: $number, what: $what, run: $run }),*];
    };
}

statements!(rows);
