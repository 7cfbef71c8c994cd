use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::choice::Choice;
use super::options::{LISTENERS_MAX, ZONES_MAX};
use super::served::NETWORKS_MAX;
use super::sizes::UPSTREAMS_MAX;
use super::*;
use crate::forwarder::{ClientShown, Ecs, Hedge, Order, QueryLogForm, QueryLogStyle, SpecialNames};

/// A host with one interface and one user, and stderr in a file.
pub(super) const HOST: Host = Host {
    interface_index: |name| (name == "eth0").then_some(7),
    user: |name| (name == "dns").then_some(Ids { uid: 100, gid: 101 }),
    group: |name| (name == "mail").then_some(8),
    is_stderr_terminal: false,
    takes_colour: false,
    is_stderr_journal: false,
    inherited: &[],
};

/// The words of a command line; what is between single quotes is one word.
pub(super) fn words(line: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            1 => words.push(part.into()),
            _ => words.extend(part.split(' ').filter(|word| !word.is_empty()).map(OsString::from)),
        }
    }
    words
}

pub(super) fn parse_words(line: &str) -> Result<Command, UsageError> {
    parse(words(line), HOST)
}

#[track_caller]
pub(super) fn config(line: &str) -> Config {
    match parse_words(line) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
pub(super) fn error(line: &str) -> String {
    match parse_words(line) {
        Err(error) => error.to_string(),
        Ok(command) => panic!("{line}: {command:?}"),
    }
}

/// Each row of `table` is a command line, behind `before`, and what the error says of it, written as
/// `line => error`. A double quote in the error is a single one here.
#[track_caller]
pub(super) fn assert_errors(before: &str, table: &str) {
    for row in table.lines().filter(|row| !row.trim().is_empty()) {
        let (typed, expected) = row.split_once("=>").expect("a row has an arrow");
        let error = error(&format!("{before} {typed}")).replace('"', "'");
        assert!(error.contains(expected.trim()), "{typed}: {error}\n  should say: {expected}");
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(before.is_empty() || error.starts_with(&format!("{before} ")), "{error}");
    }
}

/// `table` with a label and a name, each a character longer than one may be, in their places.
pub(super) fn with_long_names(table: &str) -> String {
    let name = format!("{}aa", "a.".repeat(126));
    table.replace("LABEL", &"a".repeat(64)).replace("LONG-NAME", &name)
}

pub(super) fn upstream_names(config: &Config) -> Vec<String> {
    config.upstreams.iter().map(UpstreamSpec::to_string).collect()
}

#[test]
fn defaults() {
    let config = config("");

    assert_eq!(config.listen, ["127.0.0.1:5300".parse().unwrap()]);
    assert_eq!(
        upstream_names(&config),
        [
            "1.1.1.1#cloudflare-dns.com",
            "[2606:4700:4700::1111]#cloudflare-dns.com",
            "1.0.0.1#cloudflare-dns.com",
            "[2606:4700:4700::1001]#cloudflare-dns.com",
        ]
    );
    assert_eq!(config.files, Files { builtin_roots: true, ..Files::default() });
    assert_eq!(config.limits.query_timeout, Duration::from_millis(4_500));
    assert_eq!(config.limits.client_queries_max, 256);
    assert_eq!(config.limits.client_bytes_max, 4 << 20);
    assert_eq!(config.policy.special_names, SpecialNames::Local { forwarded: vec![] });
}

#[test]
fn limits_are_printed_only_when_asked_for() {
    for line in ["--print-limits", "-u quad9 --print-limits --size small"] {
        assert!(matches!(parse_words(line), Ok(Command::PrintLimits(_))), "{line}");
    }
    let table = "
        --print-limits=yes => --print-limits: takes no value; write --print-limits alone
        --print-limit => --print-limit: unknown flag; did you mean --print-limits?
        --print-limits --size tiny => --size tiny: is not known";
    assert_errors("", table);
}

#[test]
fn repeatable_flags_keep_their_order_in_every_spelling() {
    let config = config(
        "--upstream=1.1.1.1#a -l 127.0.0.1:1 --upstream 1.1.1.2#b --listen=127.0.0.1:2 -u=1.1.1.3#c -u 1.1.1.4#d --listen 127.0.0.1:3 -l=[::1]:4",
    );

    assert_eq!(upstream_names(&config), ["1.1.1.1#a", "1.1.1.2#b", "1.1.1.3#c", "1.1.1.4#d"]);
    let ports: Vec<_> = config.listen.iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [1, 2, 3, 4]);
}

#[test]
fn a_flag_that_begins_like_another_is_not_the_other() {
    let config = config("--upstream-idle-timeout=7 --upstream=1.1.1.1#a");

    assert_eq!(config.limits.upstream_idle_timeout, Duration::from_secs(7));
    assert_eq!(upstream_names(&config), ["1.1.1.1#a"]);
}

#[test]
fn sources_are_one_of_a_kind_and_what_they_leave_open_is_told() {
    let source = |line: &str| config(line).upstream_source;
    assert!(source("").is_any());
    let all = "--upstream-source 192.0.2.7 --upstream-source [2001:db8::7] --upstream-source eth0";
    let [v4, v6] = ["192.0.2.7", "2001:db8::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let Source { v4: own_v4, v6: own_v6, interface } = source(all);
    assert_eq!([own_v4.map(IpAddr::from), own_v6.map(IpAddr::from)], [Some(v4), Some(v6)]);
    assert_eq!(interface.as_deref(), Some("eth0"));
    for (line, expected) in [
        (all, ""),
        // Cloudflare has addresses of both families.
        ("--upstream-source 192.0.2.7", "--upstream-source 192.0.2.7: upstreams with IPv6 are "),
        ("--upstream-source 2001:db8::7", "--upstream-source 2001:db8::7: upstreams with IPv4 "),
        ("--upstream-source 192.0.2.7 -u 9.9.9.9#x", ""),
        ("--upstream-source 192.0.2.7 --upstream-source eth0", ""),
        ("--upstream-source tun7", "--upstream-source tun7: there is no such interface now"),
    ] {
        let warnings = config(line).warnings;
        assert_eq!(warnings.is_empty(), expected.is_empty(), "{line}: {warnings:?}");
        assert!(warnings.concat().starts_with(expected), "{line}: {warnings:?}");
    }
    let table = r"
        0.0.0.0       => --upstream-source 0.0.0.0: is no address of one host; write an address of this host
        fe80::1       => --upstream-source fe80::1: is a link-local address; write the interface
        192.168.1     => --upstream-source 192.168.1: is neither an address nor an interface; write
        fe80::1%eth0  => --upstream-source fe80::1%eth0: is neither an address nor an interface
        ::1 --upstream-source ::2 => --upstream-source ::2: is one too many, as ::1 is an IPv6 address, too
        a --upstream-source b => --upstream-source b: is one too many, as a is an interface, too";
    assert_errors("--upstream-source", table);
}

#[test]
fn flags_that_take_one_value() {
    let config = config(
        "--ca-file roots.pem --query-log=on --log-level trace --upstream-idle-timeout 1 \
         --client-idle-timeout=3600 --tcp-clients-per-address-max=400 --udp-size-max=512 \
         --reuse-port on --tcp-clients-max 10000",
    );

    assert_eq!(config.files.roots, [PathBuf::from("roots.pem")]);
    assert!(!config.files.builtin_roots);
    assert!(config.limits.query_log.is_some());
    assert!(config.reuse_port);
    assert_eq!(config.log_level, LevelFilter::Trace);
    assert_eq!(config.limits.upstream_idle_timeout, Duration::from_secs(1));
    assert_eq!(config.limits.client_idle_timeout, Duration::from_secs(3600));
    assert_eq!(config.limits.udp_size_max, Some(512));
    assert_eq!(config.limits.clients_max, 10_000);
    assert_eq!(config.limits.clients_per_address_max, 400);
}

#[test]
fn the_query_log_is_on_by_default_where_somebody_reads_it() {
    let is_on = |line: &str, is_stderr_terminal| match parse(
        words(line),
        Host { is_stderr_terminal, ..HOST },
    ) {
        Ok(Command::Run(config) | Command::PrintLimits(config)) => {
            config.limits.query_log.is_some()
        }
        other => panic!("{line}: {other:?}"),
    };
    for (line, on_terminal, elsewhere) in [
        ("", true, false),
        ("--query-log auto", true, false),
        ("--query-log=on", true, true),
        ("--query-log=off", false, false),
        // Limits are the same wherever they are printed.
        ("--print-limits", true, true),
        ("--print-limits --query-log=off", false, false),
    ] {
        assert_eq!((is_on(line, true), is_on(line, false)), (on_terminal, elsewhere), "{line}");
    }
}

#[test]
fn the_query_log_has_the_form_that_suits_its_reader() {
    use QueryLogForm::{Columns, Json, Words};

    const COLOURED: QueryLogForm = Columns { coloured: true };
    const PLAIN: QueryLogForm = Columns { coloured: false };

    for (line, is_stderr_terminal, takes_colour, form, client) in [
        ("", true, true, COLOURED, ClientShown::Full),
        ("--query-log on", true, true, COLOURED, ClientShown::Full),
        ("--log-format plain", true, true, COLOURED, ClientShown::Full),
        ("", true, false, PLAIN, ClientShown::Full),
        ("--query-log on", false, true, Words, ClientShown::Full),
        ("--log-format json", true, true, Words, ClientShown::Full),
        ("--query-log json", true, true, Json, ClientShown::Full),
        ("--query-log json --query-log-client prefix", false, false, Json, ClientShown::Prefix),
        ("--query-log-client=off", true, false, PLAIN, ClientShown::Off),
    ] {
        let Ok(Command::Run(config)) =
            parse(words(line), Host { is_stderr_terminal, takes_colour, ..HOST })
        else {
            panic!("{line}");
        };
        assert_eq!(config.limits.query_log, Some(QueryLogStyle { form, client }), "{line}");
    }
}

#[test]
fn policies() {
    let policy = |line: &str| config(line).policy;
    let default = policy("");
    assert_eq!((default.order, default.hedge), (Order::Ordered, Hedge::Same));
    assert_eq!((default.retry_servfail, default.ecs), (true, Ecs::Strip));
    for (word, order) in [("fastest", Order::Fastest), ("spread", Order::Spread)] {
        let policy = policy(&format!("--upstream-policy {word}"));
        assert_eq!((policy.order, policy.hedge), (order, Hedge::Any), "all see names anyway");
    }
    for (word, hedge) in [("off", Hedge::Off), ("same", Hedge::Same), ("any", Hedge::Any)] {
        assert_eq!(policy(&format!("--hedge {word}")).hedge, hedge);
        assert_eq!(policy(&format!("--upstream-policy=spread --hedge {word}")).hedge, hedge);
    }
    assert!(!policy("--retry-servfail off").retry_servfail);
    assert_eq!(policy("--ecs pass").ecs, Ecs::Pass);
    assert_eq!(config("").limits.udp_size_max, None);
    assert_eq!(config("--udp-size-max 1400").limits.udp_size_max, Some(1400));
}

#[test]
fn fewer_clients_than_the_default_per_address_are_no_error() {
    assert_eq!(config("--tcp-clients-max 20").limits.clients_max, 20);
    for (typed, limit) in [
        ("", 1024),
        ("--size small", 48),
        ("--size large --wait-limit 7", 7),
        ("--wait-limit OFF", usize::MAX),
    ] {
        assert_eq!(config(typed).limits.late_datagrams_max, limit, "{typed}");
        assert_eq!(config(typed).warnings, [""; 0], "{typed}");
    }
    assert_eq!(config("--wait-limit 143 --size small").warnings, [""; 0]);
    assert_eq!(
        config("--wait-limit 144 --size small").warnings,
        [
            "--wait-limit 144: is never reached, as --size small has places for 144 queries over UDP; write less, such \
          as 48, or off"
        ]
    );
    let both = config("--tcp-clients-max 20 --tcp-clients-per-address-max 20");
    assert_eq!(both.limits.clients_per_address_max, 20);
}

#[test]
fn words_of_choices() {
    for (word, level) in LevelFilter::WORDS {
        assert_eq!(config(&format!("--log-level {word}")).log_level, *level);
        assert_eq!(config(&format!("--log-level {}", word.to_uppercase())).log_level, *level);
    }
}

#[test]
fn files_that_do_not_go_together_are_named() {
    let table = r"
        --builtin-roots off => --builtin-roots off: leaves no root to trust; give --ca-file FILE as well
        --client-cert c.pem => --client-cert c.pem: needs --client-key FILE as well
        --client-key c.key  => --client-key c.key: needs --client-cert FILE as well
        -u 1.1.1.1#a,SNI=no => -u 1.1.1.1#a,SNI=no: sni=no is not known; write on or off
        -u 1.1.1.1#sni=off  => -u 1.1.1.1#sni=off: has neither name nor pin; write NAME,sni=off";
    assert_errors("", table);
}

#[test]
fn nothing_is_read_from_standard_input() {
    let table = "
        --config - => --config -: nothing is read from standard input; write it to a file and give its name
        --ca-file - -u quad9 => --ca-file -: nothing is read from standard input; write it to a file
        --upstream - => --upstream: the value is missing; give IP[:PORT]#NAME";
    assert_errors("", table);
}

#[test]
fn a_value_in_quotes_is_one_that_a_file_would_have_without_them() {
    assert_eq!(
        error("--ca-file \"x\" -u quad9"),
        r#"--ca-file \"x\": has quotes around it; leave them out"#
    );
}

#[test]
fn bad_command_lines_are_named_with_what_would_be_right() {
    let table = r"
        --bogus             => --bogus: unknown flag; --help lists the flags
        -x                  => -x: unknown flag; --help lists the flags
        --upstrem quad9     => --upstrem: unknown flag; did you mean --upstream?
        --Listen=::1        => --Listen: unknown flag; did you mean --listen?
        --log_level info    => --log_level: unknown flag; did you mean --log-level?
        --versoin           => --versoin: unknown flag; did you mean --version?
        --help=me           => --help: takes no value; write --help alone
        -V=1                => -V: takes no value; write -V alone
        quad9               => quad9: stray argument; every value follows its flag, such as --upstream quad9
        start               => start: stray argument; it serves without that word: leave it out
        -u quad9 google     => google: stray argument
        --                  => --: stray argument
        -                   => -: stray argument
        --listen            => --listen: the value is missing; give ADDR[:PORT]
        -l                  => -l: the value is missing; give ADDR[:PORT]
        --listen=           => --listen: the value is missing; give ADDR[:PORT]
        --listen -u quad9   => --listen: the value is missing; give ADDR[:PORT]
        -u                  => -u: the value is missing; give IP[:PORT]#NAME
        --ca-file --query-log on => --ca-file: the value is missing; give a file
        --query-log         => --query-log: the value is missing; give on, off, auto or json
        --log-level         => --log-level: the value is missing; give error, warn, info, debug or trace
        --query-log yes     => --query-log yes: is not known; write on, off, auto or json
        --log-level=off     => --log-level off: is not known; write error, warn, info, debug or trace
        --upstream-idle-timeout 0 => --upstream-idle-timeout 0: is out of range: 1 to 3600 seconds
        --upstream-idle-timeout 3601 => --upstream-idle-timeout 3601: is out of range: 1 to 3600 seconds
        --client-idle-timeout 99999999999999999999 => is out of range: 1 to 3600 seconds
        --client-idle-timeout -1 => --client-idle-timeout -1: is not a number of seconds; write a whole number from 1 to 3600
        --client-idle-timeout -x => --client-idle-timeout: the value is missing
        --client-idle-timeout 10s => --client-idle-timeout 10s: is not a number of seconds
        --client-idle-timeout=-1 => --client-idle-timeout -1: is not a number of seconds
        --client-idle-timeout 1.5 => --client-idle-timeout 1.5: is not a number of seconds
        --special-names     => --special-names: the value is missing; give local or forward
        --special-names off => --special-names off: is not known; write local or forward
        --special-names=local --special-names=local => --special-names local: is given twice
        --forward-zone      => --forward-zone: the value is missing; give a name, such as 10.in-addr.arpa
        --forward-zones a   => --forward-zones: unknown flag; did you mean --forward-zone?
        --client-key a --client-key b => --client-key b: is given twice; give this flag once
        --query-log=on --query-log=on => --query-log on: is given twice
        --upstream-idle-timeout=1 --upstream-idle-timeout=1 => --upstream-idle-timeout 1: is given twice
        --upstream-policy fast => --upstream-policy fast: is not known; write ordered, fastest or spread
        --hedge on => --hedge on: is not known; write off, same or any
        --reuse-port        => --reuse-port: the value is missing; give on or off
        --reuse-port 1      => --reuse-port 1: is not known; write on or off
        --retry-servfail yes => --retry-servfail yes: is not known; write on or off
        --ecs drop => --ecs drop: is not known; write strip or pass
        --upstream-policy => --upstream-policy: the value is missing; give ordered, fastest or spread
        --udp-size-max 511 => --udp-size-max 511: is out of range: 512 to 4096
        --udp-size-max 70000 => --udp-size-max 70000: is out of range: 512 to 4096
        --wait-limit 0      => --wait-limit 0: is out of range: 1 to 16384, or off
        --wait-limit none   => is not a number; write a whole number from 1 to 16384, or off
        --tcp-clients-max 0 => --tcp-clients-max 0: is out of range: 1 to 10000
        --tcp-clients-max 10001 => --tcp-clients-max 10001: is out of range: 1 to 10000
        --tcp-clients-per-address-max 0 => --tcp-clients-per-address-max 0: is out of range
        --tcp-clients-max many => is not a number; write a whole number from 1 to 10000
        --tcp-clients-max -1 => --tcp-clients-max -1: is not a number
        --tcp-clients-max   => --tcp-clients-max: the value is missing; give a whole number
        --tcp-clients-per-address-max 151 => 151: is more than all may have; raise --tcp-clients-max, which is 150, as well
        --tcp-clients-max 30 --tcp-clients-per-address-max=31 => raise --tcp-clients-max, which is 30
        -u quad9 -u quad9   => -u quad9: 9.9.9.9#dns.quad9.net is given twice; give each upstream once
        -u 1.1.1.1 -u 1.1.1.1#1.1.1.1 => 1.1.1.1 is given twice; give each upstream once
        -u quad9 -u 9.9.9.9:853#DNS.quad9.net. => 9.9.9.9#dns.quad9.net is given twice
        -l 0.0.0.0:53 -l 127.0.0.1:53 => is served by --listen 0.0.0.0:53 already; give only one of them
        -l [::1]:53 -l [::]:53 => overlaps with --listen [::1]:53; give only one of them
        -u 127.0.0.1:5300#x => --upstream 127.0.0.1:5300#x: is this program's own listener (--listen 127.0.0.1:5300)
        -u [::1]#x -l [::1]:853 => --upstream [::1]#x: is this program's own listener (--listen [::1]:853)
        -u 127.0.0.2#x -l 0.0.0.0:853 => own listener (--listen 0.0.0.0:853)
        ''                  => '': stray argument
        --listen ''         => --listen: the value is missing; give ADDR[:PORT]";
    assert_errors("", table);
}

#[test]
fn lists_are_bounded() {
    for (flag, max) in [
        ("--upstream=10.0.0.N#x ", Size::Large.of(UPSTREAMS_MAX)),
        ("--listen=127.0.0.N:53 ", LISTENERS_MAX),
        ("--forward-zone=N.10.in-addr.arpa ", ZONES_MAX),
        ("--private-zone=N.example ", ZONES_MAX),
        ("--allow=fd00::1:N ", NETWORKS_MAX),
        ("--deny=fd00::1:N ", NETWORKS_MAX),
        ("--rate-exempt=fd00::1:N ", NETWORKS_MAX),
    ] {
        let line = |count: usize| -> String {
            (0..count).map(|number| flag.replace('N', &number.to_string())).collect()
        };
        config(&line(max));
        assert!(error(&line(max + 1)).contains(&format!("too many; give at most {max}")));
    }
}

#[test]
fn errors_stay_short_whatever_the_arguments() {
    let long = "ü\0".repeat(5_000);
    for line in [
        "--upstream LONG",
        "--upstream LONG#x",
        "--upstream 1.2.3.4:LONG#x",
        "--upstream 1.2.3.4#LONG",
        "--upstream 1.2.3.4,LONG",
        "--upstream 1.2.3.4#LONG/LONG",
        "--upstream 1.2.3.4#LIST",
        "--listen [::1]:LONG",
        "--query-log LONG",
        "--forward-zone LONG",
        "--forward-zone NAME",
        "--private-zone LONG",
        "--private-zone NAME",
        "--LONG",
        "LONG",
    ] {
        let [list, name] = ["a,", "a."].map(|part| part.repeat(5_000));
        let error =
            error(&line.replace("LONG", &long).replace("LIST", &list).replace("NAME", &name));
        assert!(error.len() < 2_000, "{} octets: {error}", error.len());
    }
}

#[test]
fn values_must_be_utf8() {
    let not_utf8 = |text: &[u8]| OsString::from_vec(text.to_vec());
    for (args, expected) in [
        (
            vec!["--ca-file".into(), not_utf8(b"\xff.pem")],
            "--ca-file: the value is not UTF-8; give a file",
        ),
        (vec![not_utf8(b"--ca-file=\xff.pem")], "--ca-file: the value is not UTF-8; give a file"),
        (vec![not_utf8(b"--\xff")], "--\u{fffd}: unknown flag"),
        (vec![not_utf8(b"\xff")], "\u{fffd}: stray argument"),
    ] {
        let error = parse(args, HOST).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n  should say: {expected}");
    }
}

#[test]
fn help_and_version_win_wherever_they_stand() {
    let helps = ["-h", "--help", "--bogus -h", "-V --help", "-u -h", "--print-limits --help"];
    for line in helps.into_iter().chain(["help", "help -u quad9", "health --help"]) {
        assert!(matches!(parse_words(line), Ok(Command::Help(_))), "{line}");
    }
    for line in ["-V", "--version", "x -V", "-u --version", "version", "health -V"] {
        assert!(matches!(parse_words(line), Ok(Command::Version)), "{line}");
    }
}
