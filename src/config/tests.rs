use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::with_interface_indexes;
use super::choice::Choice;
use super::flags::FLAGS;
use super::options::{LISTENERS_MAX, Options, ZONES_MAX};
use super::presets::PRESETS;
use super::served::NETWORKS_MAX;
use super::sizes::UPSTREAMS_MAX;
use super::upstream::{PINS_MAX, upstreams};
use super::*;
use crate::forwarder::{
    ClientShown, Ecs, Hedge, Order, PrivateAnswers, QueryLogForm, QueryLogStyle, SpecialNames,
};

/// A host with one interface and one user, and stderr in a file.
const HOST: Host = Host {
    interface_index: |name| (name == "eth0").then_some(7),
    user: |name| (name == "dns").then_some(Ids { uid: 100, gid: 101 }),
    group: |name| (name == "mail").then_some(8),
    is_stderr_terminal: false,
    takes_colour: false,
    is_stderr_journal: false,
    inherited: &[],
};

/// The words of a command line; what is between single quotes is one word.
fn words(line: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            1 => words.push(part.into()),
            _ => words.extend(part.split(' ').filter(|word| !word.is_empty()).map(OsString::from)),
        }
    }
    words
}

fn parse_words(line: &str) -> Result<Command, UsageError> {
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
    for row in table.lines().filter(|row| !row.is_empty()) {
        let (typed, expected) = row.split_once("=>").expect("a row has an arrow");
        let error = error(&format!("{before} {typed}")).replace('"', "'");
        assert!(error.contains(expected.trim()), "{typed}: {error}\n  should say: {expected}");
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(before.is_empty() || error.starts_with(&format!("{before} ")), "{error}");
    }
}

/// `table` with a label and a name, each a character longer than one may be, in their places.
fn with_long_names(table: &str) -> String {
    let name = format!("{}aa", "a.".repeat(126));
    table.replace("LABEL", &"a".repeat(64)).replace("LONG-NAME", &name)
}

fn upstream_names(config: &Config) -> Vec<String> {
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
        assert_eq!((limits.clients_max, limits.clients_per_address_max), (clients, per_address));
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
fn special_names() {
    let names = |line: &str| config(line).policy.special_names;
    let except = |zones: &[&[u8]]| SpecialNames::Local {
        forwarded: zones.iter().map(|zone| (*zone).into()).collect(),
    };
    assert_eq!(names("--special-names local"), except(&[]));
    assert_eq!(names("--special-names=forward"), SpecialNames::Forward);
    let forwarded = names("--forward-zone 10.IN-addr.arpa --forward-zone=10.in-addr.arpa.");
    assert_eq!(forwarded, except(&[b"\x0210\x07in-addr\x04arpa\0"]), "one zone");
    let forwarded = names("--forward-zone=0/25_a.10.In-addr.arpa --forward-zone=arpa");
    let below = b"\x060/25_a\x0210\x07in-addr\x04arpa\0";
    assert_eq!(forwarded, except(&[below, b"\x04arpa\0"]));
    let forwarded = names("--forward-zone=home.arpa --special-names=forward");
    assert_eq!(forwarded, SpecialNames::Forward);
    let longest = format!("{}test", "a.".repeat(124));
    let octets = [&b"\x01a".repeat(124)[..], b"\x04test\0"].concat();
    assert_eq!(names(&format!("--forward-zone {longest}")), except(&[&octets]));
}

#[test]
fn bad_forward_zones_are_named_with_what_would_be_right() {
    let table = r"
        .               => is above all names; write --special-names forward
        10.0.0.0/8      => is an address; write the name of its reverse zone, such as 10.in-addr.arpa
        192.168.1.1     => is an address; write the name of its reverse zone
        fd00::/8        => is an address; write the name of its reverse zone, such as d.f.ip6.arpa
        172.16.0.0/12   => such as 172.in-addr.arpa
        192.168.1.77    => such as 1.168.192.in-addr.arpa
        fd00:1::1       => such as 0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa
        example.com     => has no special names in it, and all others are forwarded anyway; leave it out
        128.100.in-addr.arpa => has no special names in it
        ome.arpa        => has no special names in it
        /home.arpa/192.168.1.1 => is dnsmasq's notation of a zone with a server of its own; here its names go to the upstreams: write home.arpa
        bücher.test => is not in its ASCII form (A-labels, xn--...)
        home..arpa      => has an empty label; write a name, such as 10.in-addr.arpa
        .home.arpa      => is in another form than a name; write home.arpa, which stands for all below it
        home.arpa..     => has an empty label
        *.home.arpa     => is in another form than a name; write home.arpa
        a*b.home.arpa   => has something else than letters, digits, hyphens, underscores and slashes
        a\.b           => has something else than
        home.arpa,test  => is 2 in one; write --forward-zone home.arpa --forward-zone test
        LABEL.test      => has a label of more than 63 octets
        LONG-NAME       => is 254 octets long, more than 253";
    assert_errors("--forward-zone", &with_long_names(table));
}

#[test]
fn private_answers() {
    let answers = |line: &str| config(line).policy.private_answers;
    let strip = |loopback, zones: &[&[u8]]| PrivateAnswers::Strip {
        loopback,
        except: zones.iter().map(|zone| (*zone).into()).collect(),
        except_special: false,
    };
    assert_eq!(answers(""), PrivateAnswers::Pass);
    assert_eq!(answers("--private-zone corp.example"), PrivateAnswers::Pass);
    let warnings = |line: &str| config(line).warnings.concat();
    assert!(warnings("--private-zone corp.example").starts_with("--private-zone: changes nothing"));
    assert_eq!(warnings("--private-answers strip --private-zone corp.example"), "");
    assert_eq!(answers("--private-answers strip"), strip(false, &[]));
    assert_eq!(answers("--private-answers=strip-loopback"), strip(true, &[]));
    let forward = config("--special-names forward --private-answers strip").policy;
    let PrivateAnswers::Strip { except_special, .. } = forward.private_answers else { panic!() };
    assert!(except_special, "names here that an upstream is asked for");
    let home = "--private-answers strip --private-zone nas.home.arpa";
    assert_eq!(
        warnings(home),
        "--private-zone nas.home.arpa.: changes nothing, as its names are special and answered here; write \
         --forward-zone nas.home.arpa. in its place"
    );
    assert_eq!(warnings(&format!("{home} --special-names forward")), "");
    assert_eq!(warnings(&format!("{home} --forward-zone home.arpa")), "");
    let zones = "--private-zone Corp.Example. --private-zone corp.example --forward-zone home.arpa";
    let both: [&[u8]; 2] = [b"\x04corp\x07example\0", b"\x04home\x04arpa\0"];
    assert_eq!(answers(&format!("--private-answers strip {zones}")), strip(false, &both));
    let table = r"
        .               => is above all names; write --private-answers pass
        10.0.0.0/8      => is an address; write the name that has it, or one above, such as corp.example
        a..b            => has an empty label; write a name, such as corp.example
        https://corp.example:8443/a/b => is in another form than a name; write corp.example, which
        ||corp.example^ => write corp.example, which stands for all below it
        corp.example:   => write corp.example
        /corp.example/lan/ => is 2 in one; write --private-zone corp.example --private-zone lan
        'corp.example lan' => is 2 in one; write --private-zone corp.example --private-zone lan
        *               => has something else than
        /corp.example/  => is in another form than a name; write corp.example, which";
    assert_errors("--private-zone", table);
    let table = r"
        --private-answers   => --private-answers: the value is missing; give pass, strip or strip-loopback
        --private-answers drop => --private-answers drop: is not known; write pass, strip or strip-loopback
        --private-answers=pass --private-answers=strip => --private-answers strip: is given twice
        --private-zone      => --private-zone: the value is missing; give a name, such as corp.example
        --stop-dns-rebind   => --stop-dns-rebind: unknown flag; write --private-answers strip-loopback, and --private-zone NAME
        --rebind-protection => write --private-answers strip-loopback, and
        --deny-answer-addresses => write --private-answers strip, and
        --bogus-priv    => leave it out, or write --special-names local
        --except-from corp.example => write --private-zone corp.example
        --rebind-localhost-ok => --rebind-localhost-ok: unknown flag; write --private-answers strip
        --rebind-domain-ok corp.example => write --private-zone corp.example
        --private-domain=corp.example => write --private-zone corp.example
        --private-address 10.0.0.0/8 => write --private-answers strip, and --private-zone NAME";
    assert_errors("", table);
}

#[test]
fn presets() {
    let config = config("-u google -u quad9 -u adguard");

    assert_eq!(
        upstream_names(&config),
        [
            "8.8.8.8#dns.google",
            "[2001:4860:4860::8888]#dns.google",
            "8.8.4.4#dns.google",
            "[2001:4860:4860::8844]#dns.google",
            "9.9.9.9#dns.quad9.net",
            "[2620:fe::fe]#dns.quad9.net",
            "149.112.112.112#dns.quad9.net",
            "[2620:fe::9]#dns.quad9.net",
            "94.140.14.14#dns.adguard-dns.com",
            "[2a10:50c0::ad1:ff]#dns.adguard-dns.com",
            "94.140.15.15#dns.adguard-dns.com",
            "[2a10:50c0::ad2:ff]#dns.adguard-dns.com",
        ]
    );
    for preset in &PRESETS {
        for upstream in preset.upstreams() {
            let again = upstreams(&upstream.to_string());
            assert_eq!(again, Ok(vec![upstream]), "the display form is a specification");
        }
    }
}

#[test]
fn upstream_specifications() {
    let longest = format!(
        "1.2.3.4#{}.{}.{}.{}",
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61)
    );
    for (spec, address, name) in [
        ("1.2.3.4#dns.example", "1.2.3.4:853", "dns.example"),
        ("1.2.3.4:8853#dns.example", "1.2.3.4:8853", "dns.example"),
        ("127.0.0.1:1#x", "127.0.0.1:1", "x"),
        ("1.2.3.4:65535#dns.example", "1.2.3.4:65535", "dns.example"),
        ("2001:db8::1#dns.example", "[2001:db8::1]:853", "dns.example"),
        ("[2001:db8::1]#dns.example", "[2001:db8::1]:853", "dns.example"),
        ("[2001:db8::1]:8853#dns.example", "[2001:db8::1]:8853", "dns.example"),
        ("[fe80::1%2]#dns.example", "[fe80::1%2]:853", "dns.example"),
        ("[::ffff:1.2.3.4]#dns.example", "1.2.3.4:853", "dns.example"),
        ("1.2.3.4#DNS.Example.", "1.2.3.4:853", "dns.example"),
        ("1.2.3.4#_dot.dns-1.example", "1.2.3.4:853", "_dot.dns-1.example"),
        ("1.2.3.4#xn--bcher-kva.example", "1.2.3.4:853", "xn--bcher-kva.example"),
        ("1.2.3.4#1.2.3.4", "1.2.3.4:853", "1.2.3.4"),
        ("1.2.3.4#2001:DB8::0:1", "1.2.3.4:853", "2001:db8::1"),
        ("1.2.3.4@853#dns.example", "1.2.3.4:853", "dns.example"),
        ("1.2.3.4@8853#dns.example", "1.2.3.4:8853", "dns.example"),
        ("[2001:db8::1]@853#dns.example", "[2001:db8::1]:853", "dns.example"),
        ("2001:db8::1@8853#dns.example", "[2001:db8::1]:8853", "dns.example"),
        ("1.2.3.4", "1.2.3.4:853", "1.2.3.4"),
        ("1.2.3.4:8853", "1.2.3.4:8853", "1.2.3.4"),
        ("1.2.3.4@8853", "1.2.3.4:8853", "1.2.3.4"),
        ("2001:DB8:0::1", "[2001:db8::1]:853", "2001:db8::1"),
        ("[2001:db8::1]", "[2001:db8::1]:853", "2001:db8::1"),
        ("[2001:db8::1]:8853", "[2001:db8::1]:8853", "2001:db8::1"),
        ("[::ffff:1.2.3.4]", "1.2.3.4:853", "1.2.3.4"),
        ("[fe80::1%2]", "[fe80::1%2]:853", "fe80::1"),
        (&longest, "1.2.3.4:853", &longest[8..]),
    ] {
        let (address, name) = (address.parse().unwrap(), Some(name.into()));
        let upstream = UpstreamSpec { address, name, pins: Box::default(), sni: true };
        assert_eq!(upstreams(spec), Ok(vec![upstream.clone()]), "{spec}");
        assert_eq!(upstreams(&upstream.to_string()), Ok(vec![upstream]), "{spec}");
    }
}

#[test]
fn interfaces_are_known_by_their_indexes() {
    for (typed, indexed) in [
        ("[fe80::1%eth0]:8853#x", "[fe80::1%7]:8853#x"),
        ("fe80::1%eth0#x", "fe80::1%7#x"),
        ("fe80::1%eth0@8853#x", "fe80::1%7@8853#x"),
        ("[fe80::1%eth0],[fe80::2%eth0]", "[fe80::1%7],[fe80::2%7]"),
        ("fe80::1%eth0,fe80::2%2 x", "fe80::1%7,fe80::2%2 x"),
        ("[fe80::1%eth1]:53", "[fe80::1%eth1]:53"),
        ("[fe80::1%eth0", "[fe80::1%7"),
        ("fe80::1%", "fe80::1%"),
        ("host%eth0", "host%eth0"),
        ("1.2.3.4%eth0", "1.2.3.4%eth0"),
        ("%eth0", "%eth0"),
    ] {
        assert_eq!(with_interface_indexes(typed, HOST.interface_index), indexed);
    }
    let config = config("-u fe80::1%eth0@8853#x -l [fe80::1%eth0]");
    assert_eq!(upstream_names(&config), ["[fe80::1%7]:8853#x"]);
    assert_eq!(config.listen, ["[fe80::1%7]:53".parse().unwrap()]);
}

const PINS: [&str; 2] = [
    "sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

#[test]
fn upstreams_with_pins() {
    let [a, b] = PINS;
    for (auth, name, pins, shown) in [
        (a.to_owned(), None, &[a][..], "1.2.3.4#sha256/ungWv48Bz+pB..."),
        (format!("{a},{b}"), None, &[a, b], "1.2.3.4#sha256/ungWv48Bz+pB..."),
        (format!("{b},{a}"), None, &[b, a], "1.2.3.4#sha256/AAAAAAAAAAAA..."),
        (format!("dns.example,{a}"), Some("dns.example"), &[a], "1.2.3.4#dns.example"),
        (format!("{a},DNS.example.,{b}"), Some("dns.example"), &[a, b], "1.2.3.4#dns.example"),
        (format!("{b},2001:DB8::1"), Some("2001:db8::1"), &[b], "1.2.3.4#2001:db8::1"),
    ] {
        let upstream = upstreams(&format!("1.2.3.4#{auth}")).unwrap().pop().unwrap();
        assert_eq!(upstream.name.as_deref(), name, "{auth}");
        assert_eq!(upstream.pins.iter().map(ToString::to_string).collect::<Vec<_>>(), pins);
        assert_eq!(upstream.to_string(), shown);
    }
    let many: Vec<_> = (0..=PINS_MAX).map(|n| PINS[1].replacen('A', &n.to_string(), 1)).collect();
    let spec = format!("1.2.3.4#{}", many[..PINS_MAX].join(","));
    assert_eq!(upstreams(&spec).unwrap()[0].pins.len(), PINS_MAX);
    let error = error(&format!("-u 1.2.3.4#{}", many.join(",")));
    assert!(error.ends_with(&format!("{} is one pin too many; give at most 8", many[8])));
}

#[test]
fn bad_pins_are_named_with_what_would_be_right() {
    let table = r"
        1.2.3.4,PIN      => is in another form than IP[:PORT]#NAME; write 1.2.3.4#PIN
        1.2.3.4:853,a    => is in another form than IP[:PORT]#NAME; write 1.2.3.4:853#a
        1.2.3.4#sha1/x   => the pin sha1/x does not begin with sha256/, the only hash taken; write sha256/BASE64
        1.2.3.4#sha256/x => the pin sha256/x has 1 characters behind sha256/; copy all 44, the last is =; write sha256/BASE64
        1.2.3.4#PINx     => has 45 characters behind sha256/
        1.2.3.4#a,PINx,b => has 45 characters behind sha256/
        1.2.3.4#a,ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0= => does not begin with sha256/
        1.2.3.4#sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0= => does not begin with sha256/, the only hash taken; write PIN
        1.2.3.4#sha1/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0= => the only hash taken; write sha256/BASE64
        1.2.3.4#PIN,PIN  => the pin PIN is given twice; give each pin once
        1.2.3.4#a,PIN,PIN => is given twice; give each pin once
        1.2.3.4#a,b      => has two names, a and b; give one of them
        1.2.3.4#a,PIN,A. => has two names, a and a; give one of them
        1.2.3.4#a,       => has a comma with nothing beside it; write NAME,sha256/BASE64
        1.2.3.4#,PIN     => has a comma with nothing beside it
        1.2.3.4#a,,PIN   => has a comma with nothing beside it
        1.2.3.4#a;PIN    => the pin a;PIN does not begin with sha256/
        1.2.3.4#*.a,PIN  => the name *.a has something else than letters
        quad9#PIN        => is a preset with more behind it, and presets take neither names nor pins; write an address, such as 9.9.9.9#dns.quad9.net,sha256/BASE64
        quad9,PIN        => presets take neither names nor pins; write an address, such as 9.9.9.9#
        cloudflare#x     => presets take neither names nor pins; write an address, such as 1.1.1.1#";
    assert_errors("--upstream", &table.replace("PIN", PINS[0]));
}

#[test]
fn upstreams_that_are_not_told_their_names() {
    let spec = |typed: &str| {
        let upstreams = upstreams(typed).unwrap();
        let first = &upstreams[0];
        (upstreams.len(), first.to_string(), upstreams.iter().all(|upstream| upstream.sni))
    };
    for (typed, count, shown, sni) in [
        ("1.1.1.1#a.b,sni=off", 1, "1.1.1.1#a.b", false),
        ("1.1.1.1#a.b,SNI=on", 1, "1.1.1.1#a.b", true),
        ("1.1.1.1#a.b ,sni=off", 1, "1.1.1.1#a.b", false),
        ("1.1.1.1#a.b, sni=off", 1, "1.1.1.1#a.b", false),
        ("1.1.1.1,sni=off", 1, "1.1.1.1", false),
        ("[::1]:8853 , sni=off", 1, "[::1]:8853", false),
        ("quad9,sni=off", 4, "9.9.9.9#dns.quad9.net", false),
        ("quad9,sni=on", 4, "9.9.9.9#dns.quad9.net", true),
    ] {
        assert_eq!(spec(typed), (count, shown.to_owned(), sni), "{typed}");
    }
    let table = "
        quad9,sni=no           => sni=no is not known; write on or off
        quadd9,sni=off         => is not a preset (cloudflare, google, quad9 or adguard); did you mean quad9?
        1.1.1.1#a.b;sni=off    => a.b;sni=off is not known; write a.b,sni=off
        '1.1.1.1#a.b sni=off'  => a.b sni=off is not known; write a.b,sni=off
        '1.1.1.1#a.b,sni = off' => sni = off is not known; write NAME,sni=off
        1.1.1.1#sni=off        => has neither name nor pin; write NAME,sni=off";
    assert_errors("--upstream", table);
}

#[test]
fn upstreams_that_the_log_could_not_tell_apart_are_one() {
    let [a, b] = PINS.map(|pin| format!("1.2.3.4#{pin}"));
    let both = format!("{a},{}", PINS[1]);
    let named = format!("1.2.3.4#x,{}", PINS[0]);
    for (first, second, expected) in [
        (&a, &a, "1.2.3.4#sha256/ungWv48Bz+pB... is given twice; give each upstream once"),
        (&a, &both, "is given twice; give each upstream once, with all its pins"),
        (&both, &a, "is given twice; give each upstream once, with all its pins"),
        (&named, &"1.2.3.4#x".into(), "1.2.3.4#x is given twice; give each upstream once, with"),
    ] {
        let error = error(&format!("-u {first} -u {second}"));
        assert!(error.contains(expected), "{error}\n  should say: {expected}");
    }
    assert_eq!(config(&format!("-u {a} -u {b} -u {named}")).upstreams.len(), 3);
}

#[test]
fn an_upstream_shows_its_port_if_it_is_not_853() {
    for (spec, shown) in [
        ("127.0.0.1:8853#x", "127.0.0.1:8853#x"),
        ("127.0.0.1:10853#x", "127.0.0.1:10853#x"),
        ("127.0.0.1:853#x", "127.0.0.1#x"),
        ("[::1]:853#x", "[::1]#x"),
        ("[::1]:8853#x", "[::1]:8853#x"),
        // What is its own name is not said twice.
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4#1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("[2001:db8::1]:8853", "[2001:db8::1]:8853"),
        ("[fe80::1%2]:8853", "[fe80::1%2]:8853"),
        ("1.2.3.4#1.2.3.5", "1.2.3.4#1.2.3.5"),
    ] {
        assert_eq!(upstreams(spec).unwrap()[0].to_string(), shown);
    }
}

#[test]
fn bad_upstreams_are_named_with_what_would_be_right() {
    let table = r"
        256.2.3.4        => 256.2.3.4 is not an IP address (names are not looked up); write IP[:PORT]#NAME
        2001:db8::1:853  => may be read with and without a port: [2001:db8::1]:853 or [2001:db8::1:853]
        dns.example#x    => dns.example is not an IP address (names are not looked up)
        localhost:853#x  => localhost:853 is not an IP address (names are not looked up)
        quad             => a preset (cloudflare, google, quad9 or adguard); did you mean quad9?
        Cloudflare       => did you mean cloudflare?
        nextdns          => a preset (cloudflare, google, quad9 or adguard); write IP[:PORT]#NAME
        1.2.3.4:53#x     => port 53 is for plain DNS; leave the port out for 853
        [2001:db8::1]:53#x => port 53 is for plain DNS
        1.2.3.4:0#x      => port 0 is nowhere; leave the port out for 853
        1.2.3.4:65536#x  => the port '65536' is not a number up to 65535
        1.2.3.4:dns#x    => the port 'dns' is not a number
        1.2.3.4:#x       => is in another form than IP[:PORT]#NAME; write 1.2.3.4#x
        [2001:db8::1]:x#x => the port 'x' is not a number
        2001:db8::1:853#x => without a port: [2001:db8::1]:853 or [2001:db8::1:853]
        1:2:3:4:5:6:7:8:853#x => with a port needs brackets: [1:2:3:4:5:6:7:8]:853
        2001:db8::1:99999#x => with a port needs brackets: [2001:db8::1]:99999
        [fe80::1]#x      => needs its interface (see `ip link`): [fe80::1%INTERFACE]:853
        0.0.0.0#x        => 0.0.0.0 is not the address of one server
        [::]#x           => :: is not the address of one server
        224.0.0.1#x      => 224.0.0.1 is not the address of one server
        255.255.255.255#x => 255.255.255.255 is not the address of one server
        #x               => #x: has no IP address before #; write IP[:PORT]#NAME
        :853#x           => :853#x: has no IP address before #; write IP[:PORT]#NAME
        [fe80::1%no-such]#x => there is no interface no-such (`ip link` shows those there are)
        [fe80::1%no-such] => there is no interface no-such
        [fe80::1%2]:x#x  => the port 'x' is not a number
        1.2.3.4#         => the name after # is empty; write it as in the server's certificate
        1.2.3.4#.        => the name after # is empty
        1.2.3.4#a..b     => a..b has an empty label
        1.2.3.4#a.b..    => a.b. has an empty label
        1.2.3.4#.example => has an empty label
        1.2.3.4#bücher.example => is not in its ASCII form (A-labels, xn--...)
        1.2.3.4#*.example => has something else than letters, digits, hyphens and underscores
        1.2.3.4#[::1]    => has something else than
        1.2.3.4#x#y      => has something else than
        1.2.3.4#-a.b     => begins or ends with a hyphen
        1.2.3.4#a-.b     => begins or ends with a hyphen
        1.2.3.4#dns.123  => ends in a number and is not an IP address
        1.2.3.4#dns.0x7F => ends in a number and is not an IP address
        1.2.3.4#1.2.3    => ends in a number and is not an IP address
        '1.2.3.4#a b'    => has something else than
        1.2.3.4#LABEL.example => has a label of more than 63 octets
        1.2.3.4#LONG-NAME => is 254 octets long, more than 253";
    assert_errors("--upstream", &with_long_names(table));
}

#[test]
fn listeners() {
    for (value, address) in [
        ("127.0.0.1", "127.0.0.1:53"),
        ("127.0.0.1:5300", "127.0.0.1:5300"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:53", "0.0.0.0:53"),
        ("::", "[::]:53"),
        ("::1", "[::1]:53"),
        ("[::1]", "[::1]:53"),
        ("[::1]:5300", "[::1]:5300"),
        ("2001:db8:1:2:3:4:5:6", "[2001:db8:1:2:3:4:5:6]:53"),
        ("fd00::ad1:ff", "[fd00::ad1:ff]:53"),
        ("[fe80::1%2]:5300", "[fe80::1%2]:5300"),
        ("fe80::1%2", "[fe80::1%2]:53"),
        ("[fe80::1%eth0]:5300", "[fe80::1%7]:5300"),
        ("[fe80::1%eth0]", "[fe80::1%7]:53"),
        ("fe80::1%eth0@5300", "[fe80::1%7]:5300"),
        ("127.0.0.1@5300", "127.0.0.1:5300"),
        ("::1@5300", "[::1]:5300"),
    ] {
        assert_eq!(config(&format!("-l {value}")).listen, [address.parse().unwrap()], "{value}");
    }
}

#[test]
fn bad_listeners_are_named_with_what_would_be_right() {
    let table = r"
        localhost        => localhost is not an IP address (names are not looked up); write 127.0.0.1:53
        host             => host is not an IP address (names are not looked up); write ADDR
        localhost:53     => localhost:53 is not an IP address
        :5300            => has no IP address; 0.0.0.0 and [::] stand for all addresses
        *:53             => 0.0.0.0 and [::] stand for all addresses
        127.0.0.1:65536  => the port '65536' is not a number up to 65535
        127.0.0.1:-1     => the port '-1' is not a number
        127.0.0.1:53x    => the port '53x' is not a number
        [::1]:65536      => the port '65536' is not a number
        ::1:5300         => may be read with and without a port: [::1]:5300 or [::1:5300]
        1:2:3:4:5:6:7:8:53 => with a port needs brackets: [1:2:3:4:5:6:7:8]:53
        [127.0.0.1]:53   => is not an IP address
        [::1             => is not an IP address
        256.0.0.1        => is not an IP address
        [fe80::1%no-such]:53 => there is no interface no-such (`ip link` shows those there are); write ADDR
        [fe80::1%no-such] => there is no interface no-such
        fe80::1%no-such  => there is no interface no-such
        fe80::1%         => there is no interface  (`ip link`
        host%2           => host%2 is not an IP address
        [fe80::1%2]:65536 => the port '65536' is not a number
        fe80::1          => needs its interface (see `ip link`): [fe80::1%INTERFACE]:53
        224.0.0.251:5353 => is a multicast address; write an address of this machine
        ff02::fb         => is a multicast address
        255.255.255.255  => is the broadcast address; write an address of this machine
        [::ffff:255.255.255.255]:53 => is the broadcast address";
    assert_errors("--listen", table);
    let tricks = error("--listen 127.0.0.1\n::1\u{1b}[2J");
    assert_eq!(
        tricks,
        "--listen 127.0.0.1\\n::1\\u{1b}[2J: 127.0.0.1\\n::1\\u{1b}[2J is not an IP address (names \
         are not looked up); write ADDR[:PORT], such as 127.0.0.1:5300 or [::1]:5300"
    );
}

#[test]
fn the_same_listener_twice_is_one() {
    for again in ["0.0.0.0", "0.0.0.0:53", "[::ffff:0.0.0.0]:53"] {
        let listen = config(&format!("-l 0.0.0.0:53 -l {again} -l [::]:53")).listen;
        assert_eq!(listen, ["0.0.0.0:53".parse().unwrap(), "[::]:53".parse().unwrap()]);
    }
    assert_eq!(config("-l 127.0.0.1:0 -l 127.0.0.1:0").listen.len(), 2);
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

    for (line, is_stderr_terminal, takes_colour, form, client) in [
        ("", true, true, Columns, ClientShown::Full),
        ("--query-log on", true, true, Columns, ClientShown::Full),
        ("--log-format plain", true, true, Columns, ClientShown::Full),
        ("", true, false, Words, ClientShown::Full),
        ("--query-log on", false, true, Words, ClientShown::Full),
        ("--log-format json", true, true, Words, ClientShown::Full),
        ("--query-log json", true, true, Json, ClientShown::Full),
        ("--query-log json --query-log-client prefix", false, false, Json, ClientShown::Prefix),
        ("--query-log-client=off", true, false, Words, ClientShown::Off),
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
fn subcommands_know_their_flags() {
    let table = r"
        helth               => helth: stray argument; did you mean health, the first word behind dot-proxy?
        -u quad9 health     => -u: changes nothing for health, which takes --listen and --deep
        --healthcheck       => --healthcheck: unknown flag; to ask whether it answers, write dot-proxy health
        --deep              => --deep: unknown flag; it belongs to health, the first word behind dot-proxy
        health --upstream quad9 => --upstream: changes nothing for health, which takes --listen and --deep
        health --listen localhost => --listen localhost: localhost is not an IP address
        health --deep=on    => --deep: unknown flag
        --json              => --json: unknown flag; it belongs to check, the first word behind dot-proxy
        --test              => --test: unknown flag; to try the upstreams, write dot-proxy check and the flags behind it
        check-config --json => --json: unknown flag; it belongs to check
        check --json=on     => --json: unknown flag; it belongs to check
        check --deep        => --deep: unknown flag; it belongs to health
        health check        => check: stray argument; give one subcommand
        --listen check      => --listen check: check is not an IP address
        --bogus x check     => --bogus: unknown flag
        google check        => google: stray argument";
    assert_errors("", table);
}

#[test]
fn a_subcommand_may_stand_behind_flags_of_an_image() {
    for line in [
        "check -l 0.0.0.0 -u quad9 --json",
        "-l 0.0.0.0 check -u quad9 --json",
        "--listen=0.0.0.0 -u quad9 check --json",
        "--json -u quad9 -l 0.0.0.0 check",
    ] {
        let Ok(Command::Check(config, Form::Json)) = parse_words(line) else { panic!("{line}") };
        assert_eq!(config.upstreams.len(), 4, "{line}");
        assert!(config.listen[0].ip().is_unspecified(), "{line}");
    }
    for (line, listeners) in [("-l 0.0.0.0 health", 1), ("health -l ::1 -l ::2", 2)] {
        let Ok(Command::Health(health)) = parse_words(line) else { panic!("{line}") };
        assert_eq!(health.listen.len(), listeners, "{line}");
    }
    assert!(matches!(parse_words("-l 0.0.0.0 check-config"), Ok(Command::CheckConfig(_))));
    assert!(matches!(parse_words("-l 0.0.0.0 version"), Ok(Command::Version)));
    assert!(matches!(parse_words("--print-limits check-config"), Ok(Command::PrintLimits(_))));
}

#[test]
fn check_takes_the_flags_of_a_run_and_asks_whom_a_run_would_ask() {
    let Ok(Command::Run(run)) = parse_words("") else { panic!("no arguments are fine") };
    for (line, expected) in [
        ("check", Form::Words),
        ("check --json", Form::Json),
        ("check --json --listen 192.0.2.1 --size small --json", Form::Json),
    ] {
        let Ok(Command::Check(config, form)) = parse_words(line) else { panic!("{line}") };
        assert_eq!((&config.upstreams, form), (&run.upstreams, expected), "{line}");
    }
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
fn neighbours_of_a_listener_are_not_the_listener() {
    for line in [
        "-l 127.0.0.1:853 -u 127.0.0.2#x",
        "-l 127.0.0.1:853 -u 127.0.0.1:8853#x",
        "-l [::]:853 -u 127.0.0.1#x",
        "-l 0.0.0.0:853 -u 1.1.1.1#x",
        "-l 0.0.0.0:53 -l [::]:53",
        "-l 127.0.0.1:0 -l 127.0.0.1:0",
        "-u 1.1.1.1#a -u 1.1.1.1#b",
    ] {
        config(line);
    }
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

#[test]
fn a_flag_has_no_default_but_the_one_that_help_shows() {
    // What is given where the default depends on other flags, and is told in words.
    let in_words = [
        ("--allow", ""),
        ("--rate-limit", "off"),
        ("--wait-limit", "1024"),
        ("--hedge", "same"),
        ("--user", ""),
        ("--builtin-roots", "on"),
        ("--log-format", "plain"),
        ("--udp-size-max", ""),
        ("--tcp-clients-max", "150"),
        ("--tcp-clients-per-address-max", "25"),
    ];
    // But for what was given.
    let shown = |line: &str| format!("{:?}", Config { flags: "".into(), ..config(line) });
    let without = shown("");
    for flag in &FLAGS {
        let default = (flag.default)(&Options::new(HOST));
        let given = in_words.iter().find(|(name, _)| *name == flag.long());
        let given = given.map_or(&*default, |(_, value)| {
            assert!(default.starts_with(value), "{default}");
            value
        });
        if !given.is_empty() {
            assert_eq!(shown(&format!("{} {given}", flag.long())), without, "{}", flag.long());
        }
    }
}

#[test]
fn usage_fits_in_a_terminal() {
    let usage = usage();
    for word in PRESETS.iter().map(|preset| preset.word).chain(FLAGS.iter().map(Flag::long)) {
        assert!(usage.contains(word), "{word}");
    }
    for line in usage.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn users_by_name_and_by_number() {
    for (typed, expected) in [
        ("", None),
        ("--user dns", Some((100, 101))),
        ("--user dns:7", Some((100, 7))),
        ("--user dns:", Some((100, 101))),
        ("--user 7:", Some((7, 7))),
        ("--user dns:mail", Some((100, 8))),
        ("--user 7:mail", Some((7, 8))),
        ("--user 65534", Some((65_534, 65_534))),
        ("--user 1000:0", Some((1000, 0))),
        ("--user root", Some((0, 0))),
        ("--user 0", Some((0, 0))),
        ("--user 4294967294", Some((u32::MAX - 1, u32::MAX - 1))),
    ] {
        let expected = expected.map(|(uid, gid)| Ids { uid, gid });
        assert_eq!(config(typed).user, expected, "{typed}");
    }
    assert_errors(
        "--user",
        "\
nobody => nobody: is not in /etc/passwd; give UID:GID, such as 65534:65534
DNS => is not in /etc/passwd; did you mean dns?
DNS:mail => did you mean dns:mail?
dns.mail => dns.mail: is in another form than USER[:GROUP]; write dns:mail
65534.65534 => write 65534:65534
'dns mail' => write dns:mail
nobody.nogroup => is not in /etc/passwd; give UID:GID
dns:dns => dns:dns: dns is a user and no group; write dns:101 for the group of that user
7:x => 7:x: the group is not in /etc/group; write 7:GID, or 7 for its own group
:7 => has no user before the colon; write USER:GROUP
4294967295 => 4294967295: is out of range: 0 to 4294967294
7:99999999999 => is out of range: 0 to 4294967294
0:7 => 0:7: is root with another group; write root, or another user
root:7 => is root with another group
-1 => is not in /etc/passwd
dns --user dns => --user dns: is given twice; give this flag once
",
    );
}
