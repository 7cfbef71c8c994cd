//! What the RFCs ask of a forwarder to DNS over TLS, on real sockets, each statement by its number, with
//! which the name of its test begins.
//!
//! The checks are in [`support::conformance`], which knows nothing of dot-proxy: the program `conformance`
//! makes the same on any forwarder. What only its own tests can see is in [`INSIDE`].

use std::fs;
use std::path::Path;
use std::process::Command;

use support::conformance::{edns, key_exchange, names, proxying, sanity, tls, transports};
use support::forwarder::outcome::Outcome;
use support::forwarder::own::DotProxy;
use support::forwarder::subject::{Subject, Wanted};

/// Statements that bind every forwarder or are expected of a good one; of the others 38, 62 and 66 are
/// optional, and 67 to 70 are about a cache.
const STATEMENTS: [std::ops::RangeInclusive<u8>; 4] = [1..=37, 39..=61, 63..=65, 71..=72];

/// What cannot be seen from outside, or not all of it: the statement and the tests that check it.
const INSIDE: &[(u8, &[&str])] = &[
    // Every length of a name, with and without compression, and a DNS library as the judge.
    (1, &["generated_queries", "generated_responses", "signed_messages"]),
    // Where a query with SIG(0) waits.
    (9, &["a_sig0_waits_while_its_message_id_is_in_flight_and_holds_up_nobody"]),
    // The whole table, and late answers.
    (
        10,
        &[
            "an_abandoned_id_is_reserved_until_its_late_answer",
            "the_id_of_a_query_that_timed_out_is_reserved_until_its_late_answer",
            "an_upstream_whose_only_connection_has_no_message_id_left_is_connected_to_again",
        ],
    ),
    // Clients that reach the default listener, and another one.
    (
        11,
        &[
            "s11_by_default_nobody_else_reaches_the_listener",
            "s11_strangers_are_not_served",
            "strangers_are_not_answered_and_it_is_said_whose_address_it_was_once_a_minute",
        ],
    ),
    // A connection of an hour.
    (19, &["a_connection_of_an_hour_is_replaced_before_it_is_retired"]),
    // Octets that end neither a message nor a connection, by the clock.
    (
        20,
        &[
            "c01_a_length_and_nothing_more_is_closed_after_10_s_whatever_trickles",
            "c01_an_idle_client_is_closed_after_10_s_and_only_whole_messages_refresh_that",
        ],
    ),
    // Limits per address, which hold where no places are left, and of descriptors.
    (
        23,
        &[
            "c10_one_address_may_have_every_place_that_is_free",
            "c02_an_address_with_more_than_its_share_makes_room_for_others",
            "c02_with_the_table_of_clients_full_the_one_idle_for_longest_makes_room",
            "h01_few_descriptors",
        ],
    ),
    // Ports below 1,024, and the command line.
    (
        28,
        &[
            "s28_the_port_is_853_unless_told_and_never_53",
            "upstream_specifications",
            "bad_upstreams_are_named_with_what_would_be_right",
        ],
    ),
    // Times of a minute and more.
    (
        29,
        &[
            "with_nothing_up_one_attempt_a_second_and_a_quick_servfail",
            "what_another_second_does_not_mend_backs_off_to_a_minute",
            "a_change_of_the_network_ends_the_backoff_of_its_upstream_alone",
            "h03_a_clock_that_is_set_shows_both_ways",
        ],
    ),
    // A certificate counts only on the verified path, not for being sent.
    (
        36,
        &[
            "issuers_on_the_verified_path_may_be_pinned_with_a_name",
            "what_a_server_sends_besides_its_path_is_no_issuer",
        ],
    ),
    // Keys of every kind, an error with both pins in it, and a server without the key it shows.
    (
        37,
        &[
            "openssl_gives_the_same_pins_for_keys_of_every_kind",
            "another_key_gets_no_query_and_its_pin_can_be_copied_from_the_log",
            "a_pinned_key_must_be_proved",
        ],
    ),
    (39, &["the_client_hello_offers_only_new_versions_and_no_early_data"]),
    // A day, and certificates that expire.
    (
        41,
        &[
            "a_ticket_is_used_once_and_by_its_own_connector",
            "a_session_ends_a_day_after_its_full_handshake_however_often_it_is_resumed",
            "an_expired_certificate_is_refused_though_its_session_could_be_resumed",
            "h03_clock_set_while_sessions_are_resumed",
            "sessions_of_pins_alone_end_after_a_day_and_not_with_the_certificate",
        ],
    ),
    // Upstreams have addresses on the command line, and nothing is ever looked up.
    (42, &["s42_nothing_is_looked_up", "bad_upstreams_are_named_with_what_would_be_right"]),
    // Paths that are not loopback, and every size that can be told.
    (
        45,
        &[
            "datagrams_of_1232_octets_at_most_leave_the_host_unless_told_otherwise",
            "udp_size_max_bounds_what_clients_take_over_ipv4_and_ipv6",
        ],
    ),
    // Every length of a name, and all mixes of options.
    (48, &["queries_of_every_length", "padding_of_large_queries"]),
    // Clients with EDNS when places run out, and at the end.
    (
        52,
        &[
            "c02_clients_are_told_their_idle_time_and_to_go_when_places_run_out",
            "h06_answers_owed_at_a_shutdown_tell_tcp_clients_to_go",
        ],
    ),
    // Clients over IPv6.
    (53, &["queries_of_every_length", "families"]),
    (61, &["damaged_messages", "octets_at_random", "chains_of_pointers_are_bounded"]),
    // Zones that are forwarded all the same.
    (64, &["special_names_can_be_forwarded_all_of_them_or_some"]),
];

/// The program without its sandbox, which would hide what the program itself tries.
struct Unconfined;

impl Subject for Unconfined {
    fn command(&self, wanted: &Wanted<'_>) -> Result<Command, String> {
        let mut command = DotProxy.command(wanted)?;
        command.args(["--sandbox", "off"]);
        Ok(command)
    }

    fn receive_buffer(&self) -> usize {
        DotProxy.receive_buffer()
    }
}

/// Makes a check, which applies to the program of this repository whatever it says of others. What a part
/// of it lacked here is printed past the capture of the test harness, so that nobody takes it for a pass.
#[track_caller]
fn check(name: &str, run: fn(&dyn Subject) -> Result<Outcome, String>) {
    match run(&Unconfined) {
        Ok(outcome) => {
            assert!(
                outcome.broken.is_empty(),
                "{:#?}\nEDE {:?}\nlog {:#?}",
                outcome.broken,
                outcome.errors,
                outcome.lines
            );
            for note in &outcome.notes {
                support::skip::skip(name, note);
            }
        }
        Err(reason) => panic!("{reason}"),
    }
}

macro_rules! tests {
    ($($(#[$attribute:meta])* $test:ident: $number:literal, $what:literal, $run:path;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                check(stringify!($test), $run);
            }
        )*

        /// The numbers of the statements, and the names of their tests.
        const CHECKED: &[(&str, &str)] = &[$(($number, stringify!($test))),*];
    };
}

support::statements!(tests);

#[test]
fn every_statement_is_checked() {
    let number = |words: &str| words.split(' ').next().and_then(|word| word.parse::<u8>().ok());
    for (words, test) in CHECKED {
        let number = number(words).expect("a number in front");
        assert!(test.starts_with(&format!("s{number:02}_")), "{test} is not named for {number}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let planted = root.join("tests/planted/statements.txt");
    let planted = fs::read_to_string(planted).expect("a file of the repository");
    let inside = INSIDE.iter().flat_map(|(_, tests)| *tests).copied();
    let tests: Vec<_> = CHECKED.iter().map(|(_, test)| *test).chain(inside).collect();
    for statement in STATEMENTS.into_iter().flatten() {
        let prefix = format!("s{statement:02}_");
        let is_named = tests.iter().any(|test| test.starts_with(&prefix));
        assert!(is_named, "{statement}: no test {prefix}...");
        let is_planted = planted.contains(&format!("\ns{statement:02}: "));
        assert!(is_planted, "{statement}: no bug in tests/planted/statements.txt");
    }

    let mut sources = String::new();
    read(&root.join("src"), &mut sources);
    read(&root.join("tests"), &mut sources);
    for (statement, tests) in INSIDE {
        for test in *tests {
            let is_there = sources.contains(&format!("#[test]\n    fn {test}()"))
                || sources.contains(&format!("#[test]\nfn {test}()"));
            assert!(is_there, "{statement}: there is no test {test}");
        }
    }
}

/// Appends all Rust sources below a directory.
fn read(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                read(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}
