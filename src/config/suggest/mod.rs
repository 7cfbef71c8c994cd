//! What was likely meant: for forms that other programs take, the form that is right here, with the
//! values that were typed.

mod foreign;
mod networks;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use log::LevelFilter;

use self::foreign::foreign;
pub(super) use self::networks::{network, verb};
use super::Host;
use super::address::{address, with_port};
use super::choice::Choice;
use super::flags::{self, FLAGS, Flag};
use super::options::{LISTEN_PORT, Options};
use super::presets::{PRESETS, Preset};
use super::served::{RATE_BURST, RATES, read_rate_limit};
use super::subcommand;
use super::upstream::{
    UPSTREAM_EXAMPLE, UPSTREAM_PORT, certificate_name, named, read, without_853,
};

/// What to write in place of a flag that there is not: one of another program, one of these written
/// otherwise, or one with a slip of the pen. `value` is what follows it.
pub(super) fn flag(arg: &str, value: Option<&str>) -> Option<String> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (arg, value),
    };
    if let Some((name, value)) = arg.split_once(' ')
        && flags::find(name).is_some()
    {
        return Some(format!(
            "write {name} and {} as two words, not in one pair of quotes",
            shown(value)
        ));
    }
    // Some programs have long flags with one dash.
    if let Some((long, _)) = flags::find(&format!("-{name}")) {
        return Some(format!("write {long}"));
    }
    if let Some(remedy) = foreign(name, value) {
        return Some(remedy);
    }
    if !name.starts_with("--")
        && let Some((short, value)) = arg.split_at_checked(2)
        && !value.is_empty()
    {
        if flags::find(short).is_some_and(|(_, flag)| flag.value.is_some()) {
            return Some(format!("write {short} {}", shown(value)));
        }
        // Of other words no flag of one letter is the beginning.
        let is_again = value.chars().all(|letter| short.ends_with(letter));
        if (is_again || value.starts_with(|first: char| first.is_ascii_digit()))
            && let Some(remedy) = foreign(short, Some(value))
        {
            return Some(remedy);
        }
    }
    let longs = || FLAGS.iter().map(Flag::long);
    if let Some(word) = name.strip_prefix("--no-")
        && let Some((switch, Flag { value: Some(value), .. })) = flags::find(&format!("--{word}"))
        && value.has_word("off")
    {
        return Some(format!("write {switch} off"));
    }
    let long = nearest(name, longs()).or_else(|| only_with(name, longs()))?;
    Some(format!("did you mean {long}?"))
}

/// The only flag that `name` is a part of, at its beginning or its end.
fn only_with<'a>(name: &str, longs: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = name.strip_prefix("--").filter(|word| !word.is_empty())?;
    let mut with = longs.filter(|long| {
        let parts = long.trim_start_matches('-');
        let rest = parts.strip_prefix(word).map(|rest| rest.starts_with('-'));
        rest == Some(true) || parts.strip_suffix(word).is_some_and(|rest| rest.ends_with('-'))
    });
    with.next().filter(|_| with.next().is_none())
}

/// What to do about an argument that belongs to no flag.
/// `behind` is what follows it, and `likely` are the flags it may be for, the likeliest first.
pub(super) fn stray(arg: &str, behind: Option<&str>, likely: &[&str]) -> String {
    let (word, value) = arg
        .split_once('=')
        .or(arg.split_once(": "))
        .map_or((arg, None), |(word, value)| (word, Some(value)));
    if subcommand::words().any(|word| word == arg) {
        return "give one subcommand".into();
    }
    // Programs that typeset text make one long dash of two.
    let long = format!("--{}", word.trim_start_matches(['\u{2013}', '\u{2014}']));
    if let Some((long, _)) = flags::find(&long) {
        let value = value.map_or(String::new(), |value| format!(" {}", shown(value)));
        return format!("flags begin with two hyphens: write {long}{value}");
    }
    // A line of another program's file of settings.
    if let Some(remedy) = foreign(long.trim_end_matches(':'), value.or(behind)) {
        return remedy;
    }
    if is_path(arg) && likely.last() == Some(&UPSTREAM) {
        return format!("a file of flags follows its own: write --config {}", shown(arg));
    }
    if let Some(subcommand) = nearest(word, subcommand::words()) {
        return format!("did you mean {subcommand}?");
    }
    format!("every value follows its flag, such as {}", flag_for(arg, likely))
}

/// Whether this can hardly be anything but a file of flags.
fn is_path(arg: &str) -> bool {
    arg.starts_with(['/', '.'])
        || arg.strip_suffix("conf").is_some_and(|stem| stem.ends_with('.'))
        || arg.contains('/')
            && arg.starts_with(char::is_alphabetic)
            && !arg.contains(['#', ':', ','])
}

/// A flag with the value that was likely meant for it.
fn flag_for(arg: &str, likely: &[&str]) -> String {
    if arg.parse::<u16>().is_ok() {
        return format!("--listen 127.0.0.1:{arg}");
    }
    let is_preset = Preset::of(arg).is_some();
    if let Some(flag) = likely.iter().find(|flag| !is_preset && is_taken(flag, arg)) {
        return format!("{flag} {}", shown(arg));
    }
    if likely.last() != Some(&UPSTREAM) {
        return "--listen 127.0.0.1".into();
    }
    let right = match right_upstream(arg) {
        _ if read(arg).is_ok() => arg.into(),
        Some((_, right)) => right,
        None => UPSTREAM_EXAMPLE.into(),
    };
    format!("--upstream {right}")
}

/// What is wrong with a value of a flag, on a host of which nothing is known.
fn refused(flag: &str, value: &str) -> Option<String> {
    let (_, Flag { value: Some(known), .. }) = flags::find(flag)? else { return None };
    (known.set)(&mut Options::new(Host::default()), value).err()
}

fn is_taken(flag: &str, value: &str) -> bool {
    refused(flag, value).is_none()
}

/// `flag` with a value that it takes, made of one that another program takes, or what is wrong with that: nothing is
/// suggested that would be refused.
fn taken(flag: &str, value: &str) -> Result<String, String> {
    // Users and interfaces are known to the host alone.
    let is_of_host = flag == "--user" || value.contains('%');
    let Some(problem) = refused(flag, value).filter(|_| !is_of_host) else {
        return Ok(format!("{flag} {}", shown(value)));
    };
    let right = problem.rsplit_once("write ").map_or("", |(_, right)| right);
    let first = right.split(", ").next().unwrap_or(right);
    if right.starts_with("--") {
        Ok(right.into())
    } else if !first.is_empty() && is_taken(flag, first) {
        Ok(format!("{flag} {first}"))
    } else {
        Err(problem)
    }
}

/// What is wrong with an upstream that is not written as here, and how it is written here.
pub(super) fn upstream(spec: &str) -> Option<String> {
    let list = parts(spec);
    // What follows a comma may also be a pin, or a name that was forgotten.
    let is_preset = |word: &&str| Preset::of(word).is_some();
    if list.len() > 1
        && (list.iter().all(|part| read(part).is_ok())
            || list.first().is_some_and(is_preset) && !spec.contains(['#', '/', '=']))
    {
        return Some(repeated("--upstream", &list));
    }
    if spec.starts_with('/') {
        return Some(format!(
            "is dnsmasq's notation of a zone with a server of its own; upstreams here are asked for all \
             names: write IP[:PORT]#NAME, such as {UPSTREAM_EXAMPLE}"
        ));
    }
    let right = right_upstream(spec);
    let Some((scheme, _)) = spec.split_once("://") else {
        let (what, right) = right?;
        return Some(format!("{what}; write {right}"));
    };
    let what = match scheme {
        "https" | "h3" => "is a URL of DNS over HTTPS, and this is for DNS over TLS",
        "quic" | "doq" => "is a URL of DNS over QUIC, and this is for DNS over TLS",
        "sdns" => "is a DNS stamp",
        _ => "is a URL",
    };
    Some(match right {
        Some((_, right)) => format!("{what}; write {right}"),
        None => format!("{what}; write IP[:PORT]#NAME, such as {UPSTREAM_EXAMPLE}"),
    })
}

/// An upstream in another form, as it is written here, behind what is wrong with it: its address, its name
/// and its port, whatever stands between them and in whatever order, or the one of these that there is.
fn right_upstream(spec: &str) -> Option<(&'static str, String)> {
    let (scheme, bare) = match spec.split_once("://") {
        Some((scheme, rest)) => (scheme, rest.split(['/', '?']).next().unwrap_or_default()),
        None => ("", spec),
    };
    let (place, auth) = bare.split_once('#').unwrap_or((bare, ""));
    let is_name_or_pin =
        |auth: &str| auth.contains([',', '/', '=']) || certificate_name(auth).is_ok();
    if scheme.is_empty()
        && address(place, UPSTREAM_PORT).is_ok()
        && (place == bare || is_name_or_pin(auth))
    {
        // The form is right; something else is not.
        return None;
    }
    let with_hash = bare.replacen([',', ' '], "#", 1);
    if with_hash != bare && read(&with_hash).is_ok() {
        return Some((OTHER_FORM, shown(&with_hash.replace(' ', ""))));
    }
    let Pieces { ip, name, port } = Pieces::of(bare)?;
    let has_port = port.is_some();
    // The port of DNS over HTTPS says nothing about that of DNS over TLS.
    let over_https = scheme == "https" || scheme == "h3";
    let port = port.filter(|port| ![0, 53].contains(port) && !over_https).unwrap_or(UPSTREAM_PORT);
    let (what, right) = match (ip.map(|ip| with_port(ip, port)), name) {
        // A word without a dot may be anything, unless it stands at a #.
        (Some(address), Some(name)) if name.contains('.') || bare.contains('#') => {
            (OTHER_FORM, format!("{}#{name}", without_853(address)))
        }
        (Some(address), None) if has_port || !scheme.is_empty() => (OTHER_FORM, named(address)),
        (None, Some(name)) => {
            if let Some(preset) = Preset::of(&name) {
                ("is a preset with more beside it", preset.word.into())
            } else if let Some(preset) = PRESETS.iter().find(|preset| preset.name == &*name) {
                (NO_ADDRESS, preset.word.into())
            } else if name.contains('.') {
                let port = if port == UPSTREAM_PORT { String::new() } else { format!(":{port}") };
                (NO_ADDRESS, format!("ADDRESS{port}#{name}, with its address"))
            } else {
                return None;
            }
        }
        _ => return None,
    };
    // A preset in capital letters is like any other word with a slip of the pen.
    (!spec.eq_ignore_ascii_case(&right)).then_some((what, right))
}

/// The pieces of an upstream, in whatever order they were written.
#[derive(Default)]
struct Pieces {
    ip: Option<SocketAddr>,
    name: Option<Box<str>>,
    port: Option<u16>,
}

impl Pieces {
    /// None if there are two of a kind, or something else is among them.
    fn of(spec: &str) -> Option<Self> {
        let mut all = Self::default();
        let pieces = spec.split(['#', '@', ',', ';', ' ', '~', '|']).flat_map(colon_parts);
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let is_twice = if let Ok(address) = address(piece, 0) {
                let port = Some(address.port()).filter(|port| *port != 0);
                all.ip.replace(address).is_some()
                    || port.is_some_and(|port| all.port.replace(port).is_some())
            } else if let Ok(number) = piece.parse::<u16>() {
                all.port.replace(number).is_some()
            } else if piece.parse::<IpAddr>().is_ok() {
                // An address that lacks an interface, or may be read in two ways.
                return None;
            } else {
                all.name.replace(certificate_name(piece).ok()?).is_some()
            };
            if is_twice {
                return None;
            }
        }
        Some(all)
    }
}

/// What a value by itself is likely for.
pub(super) const UPSTREAM: &str = "--upstream";

const OTHER_FORM: &str = "is in another form than IP[:PORT]#NAME";
const NO_ADDRESS: &str = "has no IP address (upstreams are not looked up by name)";

/// What stands between colons that are not an IPv6 address's own.
fn colon_parts(piece: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = piece;
    while address(rest, UPSTREAM_PORT).is_err()
        && rest.parse::<IpAddr>().is_err()
        && let Some((before, part)) = rest.rsplit_once(':')
        // An IPv6 address that lacks brackets has an error of its own.
        && (before.parse::<Ipv6Addr>().is_err() || part.parse::<u16>().is_err())
    {
        parts.push(part);
        rest = before;
    }
    parts.push(rest);
    parts
}

/// What is wrong with a listener that is not written as here, and how it is written here.
pub(super) fn listener(value: &str) -> Option<String> {
    if LevelFilter::read(value).is_ok() {
        return Some(format!(
            "is a level of the log, and this flag is for listeners; write --log-level {value}"
        ));
    }
    let list = parts(value);
    if list.len() > 1 && list.iter().all(|part| address(part, 0).is_ok()) {
        return Some(repeated("--listen", &list));
    }
    let bare = value.split_once("://").map_or(value, |(_, bare)| bare);
    let bare = bare.split_once('/').map_or(bare, |(bare, _)| bare);
    if bare.parse::<u16>().is_ok() {
        return Some(format!(
            "is a port without an address; write 127.0.0.1:{bare}, or 0.0.0.0:{bare} for all \
             addresses"
        ));
    }
    // Brackets are for IPv6.
    let is_v4 = |text: &String| address(text, 0).is_ok_and(|address| address.is_ipv4());
    let without = Some(bare.replace(['[', ']'], "")).filter(is_v4);
    let form = without.unwrap_or_else(|| bare.replace(['#', ' '], "@"));
    if let Ok(address) = address(&form, LISTEN_PORT) {
        return Some(format!(
            "is in another form than ADDR[:PORT], which serves UDP and TCP; write {address}"
        ));
    }
    let (host, port) =
        value.rsplit_once(':').map_or((value, None), |(host, port)| (host, Some(port)));
    let port = match port {
        Some(port) => port.parse::<u16>().ok()?,
        None => LISTEN_PORT,
    };
    match host {
        "" | "*" => Some(format!(
            "has no IP address; 0.0.0.0 and [::] stand for all addresses: write 0.0.0.0:{port} or \
             127.0.0.1:{port}"
        )),
        _ if host.eq_ignore_ascii_case("localhost") => Some(format!(
            "{} is not an IP address (names are not looked up); write 127.0.0.1:{port} or \
             [::1]:{port}",
            shown(value)
        )),
        _ => None,
    }
}

/// What is wrong with a limit that is not written as here, and how it is written here.
pub(super) fn rate_limit(value: &str) -> Option<String> {
    let word = value.to_ascii_lowercase();
    if ["none", "no", "never", "unlimited", "disabled", "false"].contains(&&*word) {
        return Some("is not known; write off for no limit".into());
    }
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, rest) = word.split_at(end);
    let bare = rest.trim_start_matches(['/', ' ']).trim_start_matches("per ").trim();
    if number.bytes().all(|digit| digit == b'0') {
        let (min, max) = (RATES.start(), RATES.end());
        return (!number.is_empty() && rest.is_empty()).then(|| {
            format!("is out of range: {min} to {max} queries a second; write off for no limit")
        });
    }
    let seconds = match bare {
        "s" | "sec" | "second" | "seconds" | "qps" | "q/s" | "rps" | "r/s" => 1,
        "m" | "min" | "minute" | "minutes" | "qpm" | "rpm" => 60,
        "h" | "hour" | "hours" => 3_600,
        _ => 0,
    };
    let burst = bare.trim_start_matches([':', ',', ';', ' ']);
    let is_burst = !burst.is_empty() && burst.bytes().all(|digit| digit.is_ascii_digit());
    let right = if let Some(count) = number.parse::<u64>().ok().filter(|_| seconds > 0) {
        count.div_ceil(seconds).to_string()
    } else if bare.is_empty() && rest.contains('/') {
        let number = number.parse::<u32>().ok().filter(|number| RATES.contains(number))?;
        let burst = RATE_BURST * number;
        return Some(format!("has no BURST behind the slash; write {number} or {number}/{burst}"));
    } else if is_burst && rest.starts_with('/') {
        return None;
    } else if is_burst && rest.len() == 4 && rest.starts_with(',') {
        let whole = [number, burst].concat();
        return Some(format!(
            "may be read in two ways; write {whole}, or {number}/{burst} with a burst"
        ));
    } else if is_burst {
        format!("{number}/{burst}")
    } else {
        return None;
    };
    // What is out of range in the right form, too, is to have that said.
    Some(match read_rate_limit(&right) {
        Ok(_) if seconds > 1 => format!("is a rate of another time than a second; write {right}"),
        Ok(_) => format!("is in another form than QPS[/BURST]; write {right}"),
        Err(problem) => problem,
    })
}

/// What is wrong with a zone that is not written as here, and how it is written here behind `flag`: with a wildcard, a
/// scheme, quotes, the marks of filter lists, or several in one.
pub(super) fn zone(flag: &str, value: &str) -> Option<String> {
    let bare = value.split_once("://").map_or(value, |(_, bare)| bare);
    let (is_dnsmasq, is_url) = (value.starts_with('/'), bare != value);
    let is_split = |c: char| ",; \"'".contains(c) || c == '/' && is_dnsmasq;
    let parts: Vec<_> = bare.split(is_split).filter(|part| !part.is_empty()).collect();
    // Behind dnsmasq's zones stands the server that is asked for them.
    let has_server =
        is_dnsmasq && parts.last().is_some_and(|last| last.starts_with('#') || is_address(last));
    let zones: Vec<_> = parts
        .iter()
        .take(parts.len() - usize::from(has_server))
        .map(|part| if is_url { part.split(['/', ':']).next().unwrap_or(part) } else { part })
        .map(|part| {
            part.trim_start_matches(['*', '.', '|', '@', '+', '~'])
                .trim_end_matches(['^', '/', ':'])
        })
        .collect();
    let is_right = |zone: &&str| super::zone::zone(zone, "", "").is_ok() && !is_address(zone);
    if zones[..] == [value] || zones.is_empty() || !zones.iter().all(is_right) {
        return None;
    }
    Some(match zones[..] {
        [one] if has_server => format!(
            "is dnsmasq's notation of a zone with a server of its own; here its names go to the upstreams: write \
             {}",
            shown(one)
        ),
        [one] => format!(
            "is in another form than a name; write {}, which stands for all below it",
            shown(one)
        ),
        _ => repeated(flag, &zones),
    })
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || address(text, 0).is_ok()
}

/// The reverse zone of an address or a network, or one above it: whole octets or hexadecimal digits.
/// Without a length it is that of a usual network, 24 or 64 bits.
pub(super) fn reverse_zone(text: &str) -> Option<String> {
    let (ip, len) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
    let ip = ip.parse::<IpAddr>().ok()?;
    let len = len.and_then(|len| len.parse::<usize>().ok());
    let mut labels: Vec<String> = match ip {
        IpAddr::V4(v4) => {
            let octets = v4.octets().map(|octet| octet.to_string());
            octets.into_iter().take(len.unwrap_or(24) / 8).collect()
        }
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", v6.to_bits());
            digits.chars().take(len.unwrap_or(64) / 4).map(String::from).collect()
        }
    };
    labels.reverse();
    labels.push(if ip.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" }.into());
    Some(labels.join("."))
}

/// What stands between commas, semicolons and spaces.
fn parts(value: &str) -> Vec<&str> {
    value.split([',', ';', ' ']).filter(|part| !part.is_empty()).collect()
}

fn repeated(flag: &str, list: &[&str]) -> String {
    let flags: Vec<_> =
        list.iter().take(REPEATED_MAX).map(|part| format!("{flag} {}", shown(part))).collect();
    let more = if list.len() > REPEATED_MAX { " ..." } else { "" };
    format!("is {} in one; write {}{more}", list.len(), flags.join(" "))
}

/// An address with its port as unbound and stubby write it, `ADDRESS@PORT`, as it is written here.
pub(super) fn with_colon(text: &str) -> Option<String> {
    let (ip, port) = text.rsplit_once('@')?;
    Some(match ip.split('%').next()?.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{ip}]:{port}"),
        Err(_) => format!("{ip}:{port}"),
    })
}

/// Several flags that are to be written, as a file has them: a line each.
fn in_lines(text: &str) -> Option<String> {
    let (before, list) = text.rsplit_once("write --")?;
    let pairs: Vec<_> = list.split(" --").collect();
    let is_pair = |pair: &&str| {
        let (flag, value) = pair.split_once(' ').unwrap_or_default();
        flags::find(&format!("--{flag}")).is_some() && !value.trim_end_matches(" ...").contains(' ')
    };
    match pairs[..] {
        _ if !pairs.iter().all(is_pair) => None,
        [] | [_] => None,
        [first, second] => Some(format!("{before}write two lines: {first} and {second}")),
        _ => Some(format!("{before}write a line for each: {}", pairs.join(", "))),
    }
}

/// What is said of flags, as they are written in a file: without their dashes, and a line each.
pub(super) fn without_dashes(text: &str) -> String {
    let text = in_lines(text).unwrap_or_else(|| text.to_owned());
    let word = |word: &str| {
        let (bracket, flag) = word.strip_prefix('(').map_or(("", word), |flag| ("(", flag));
        let name = flag.trim_end_matches([',', ';', ':', '.', '?', ')']);
        match flag.strip_prefix("--") {
            Some(bare) if flags::find(name).is_some_and(|(_, flag)| flag.value.is_some()) => {
                format!("{bracket}{bare}")
            }
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The beginning of `text`, without anything that could play tricks on a terminal or break the line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown += "...";
    }
    shown
}

/// `a, b or c`
pub(super) fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The word that was likely meant by `text`, if one is close enough.
pub(super) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    words
        .map(|word| (edits(&text, word), word))
        .filter(|(edits, word)| *edits <= (word.len() / 3).min(EDITS_MAX))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// How many octets to change, insert, remove, or exchange with the next one to make `a` into `b`.
pub(super) fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // The row of the octets of `a` so far, and the two above it.
    let mut rows = [vec![0; b.len() + 1], vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>()];
    for i in 0..a.len() {
        rows.rotate_left(1);
        rows[2][0] = i + 1;
        for j in 0..b.len() {
            let change = rows[1][j] + usize::from(a[i] != b[j]);
            let mut least = change.min(rows[2][j] + 1).min(rows[1][j + 1] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(rows[0][j - 1] + 1);
            }
            rows[2][j + 1] = least;
        }
    }
    rows[2][b.len()]
}

/// Parts of a list that an error repeats: errors are lines a person reads.
const REPEATED_MAX: usize = 4;

/// Edits that a slip of the pen takes: two letters changed places, one hyphen too many. A word that is farther
/// away is another word.
const EDITS_MAX: usize = 2;

/// Characters of an argument that an error repeats: errors are lines a person reads.
pub(super) const SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use crate::config::tests::assert_errors;

    #[test]
    fn upstreams_in_other_forms_are_shown_in_the_right_one() {
        let table = r"
        tls://9.9.9.9                  => is a URL; write 9.9.9.9#dns.quad9.net
        tls://[2620:fe::fe]:8853       => is a URL; write [2620:fe::fe]:8853#dns.quad9.net
        tls://10.0.0.1@8853#dot.example => is a URL; write 10.0.0.1:8853#dot.example
        udp://1.1.1.1:53               => is a URL; write 1.1.1.1#cloudflare-dns.com
        tls://dns.quad9.net            => is a URL; write quad9
        https://dns.google:443/dns-query => DNS over HTTPS, and this is for DNS over TLS; write google
        https://1.1.1.1/dns-query      => and this is for DNS over TLS; write 1.1.1.1#cloudflare-dns.com
        https://dot.example:8443/q?a   => write ADDRESS#dot.example, with its address
        quic://dns.adguard-dns.com     => is a URL of DNS over QUIC, and this is for DNS over TLS; write adguard
        tls://dot.example:8853/        => is a URL; write ADDRESS:8853#dot.example, with its address
        tls://                         => is a URL; write IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com
        tls://quad9                    => is a URL; write quad9
        https://a/b                    => write IP[:PORT]#NAME
        sdns://AgcAAAAAAAAABzEuMC4wLjE => is a DNS stamp; write IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com
        DNS.Quad9.net.:853             => has no IP address (upstreams are not looked up by name); write quad9
        dot.example                    => by name); write ADDRESS#dot.example, with its address
        dot.example:8853               => by name); write ADDRESS:8853#dot.example, with its address
        dot.example@53                 => by name); write ADDRESS#dot.example, with its address
        dot.example#10.0.0.1:8853      => than IP[:PORT]#NAME; write 10.0.0.1:8853#dot.example
        cloudflare,nextdns             => is 2 in one; write --upstream cloudflare --upstream nextdns
        'quad9 google'                 => is 2 in one; write --upstream quad9 --upstream google
        1.1.1.1#a;1.0.0.1              => is 2 in one; write --upstream 1.1.1.1#a --upstream 1.0.0.1
        quad9,quad9,quad9,quad9,quad9  => is 5 in one; write --upstream quad9 --upstream quad9 --upstream quad9 --upstream quad9 ...
        1.1.1.1,dot.example            => than IP[:PORT]#NAME; write 1.1.1.1#dot.example
        1.1.1.1#dot.example:8853       => than IP[:PORT]#NAME; write 1.1.1.1:8853#dot.example
        [::1]#dot.example@8853         => than IP[:PORT]#NAME; write [::1]:8853#dot.example
        1.1.1.1#853                    => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        10.0.0.1#8853                  => than IP[:PORT]#NAME; write 10.0.0.1:8853#NAME
        1.1.1.1:53                     => port 53 is for plain DNS; leave the port out for 853: write 1.1.1.1#cloudflare-dns.com
        10.0.0.1@53                    => leave the port out for 853: write 10.0.0.1#NAME
        [fe80::1%2]:53#dot.example     => leave the port out for 853: write [fe80::1%2]#dot.example
        fe80::1%2#8853                 => than IP[:PORT]#NAME; write [fe80::1%2]:8853#NAME
        ' quad9'                       => is a preset with more beside it; write quad9
        '1.1.1.1 : 8853 # a.b'         => than IP[:PORT]#NAME; write 1.1.1.1:8853#a.b
        '1.1.1.1,  a.b'                => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        '1.1.1.1 8853 a.b'             => than IP[:PORT]#NAME; write 1.1.1.1:8853#a.b
        cloudflare-dns.com@1.1.1.1     => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        1.1.1.1:53:cloudflare-dns.com  => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        [::1]:8853:dot.example         => than IP[:PORT]#NAME; write [::1]:8853#dot.example
        2620:fe::fe@dns.quad9.net      => than IP[:PORT]#NAME; write [2620:fe::fe]#dns.quad9.net
        8.8.8.8~dns.google             => than IP[:PORT]#NAME; write 8.8.8.8#dns.google
        9.9.9.9|dns.quad9.net          => than IP[:PORT]#NAME; write 9.9.9.9#dns.quad9.net
        /example.com/10.0.0.1          => is dnsmasq's notation of a zone with a server of its own; upstreams here are asked for all names
        1.1.1.1##a.b                   => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        '10.0.0.1 8853'                => than IP[:PORT]#NAME; write 10.0.0.1:8853#NAME
        1.1.1.1@a.b@c.d                => is not an IP address
        1.1.1.1:dns                    => the port 'dns' is not a number
        cloudflare:853                 => is a preset with more beside it; write cloudflare
        [2620:fe::fe#dns.quad9.net     => the bracket of [2620:fe::fe is not closed; write [IPv6]:PORT#NAME, such
        2620:fe::x#dns.quad9.net       => write [IPv6]:PORT#NAME, such as [2606:4700:4700::1111]#cloudflare-dns.com";
        assert_errors("--upstream", table);
    }

    #[test]
    fn listeners_in_other_forms_are_shown_in_the_right_one() {
        let table = r"
        5300                           => is a port without an address; write 127.0.0.1:5300, or 0.0.0.0:5300 for all addresses
        53/tcp                         => write 127.0.0.1:53, or 0.0.0.0:53
        :5300                          => stand for all addresses: write 0.0.0.0:5300 or 127.0.0.1:5300
        *                              => stand for all addresses: write 0.0.0.0:53 or 127.0.0.1:53
        LocalHost:5300                 => (names are not looked up); write 127.0.0.1:5300 or [::1]:5300
        udp://127.0.0.1:5300           => than ADDR[:PORT], which serves UDP and TCP; write 127.0.0.1:5300
        tcp://[::1]/                   => which serves UDP and TCP; write [::1]:53
        192.168.1.1/24                 => which serves UDP and TCP; write 192.168.1.1:53
        [fe80::1%2]#5300               => which serves UDP and TCP; write [fe80::1%2]:5300
        '127.0.0.1 5300'               => which serves UDP and TCP; write 127.0.0.1:5300
        [127.0.0.1]:53                 => which serves UDP and TCP; write 127.0.0.1:53
        [::1                           => the bracket of [::1 is not closed; write ADDR[:PORT], such as 127.0.0.1:5300 or [::1]:5300
        300.1.1.1                      => 300.1.1.1 is not an IP address: each of its numbers is at most 255; write ADDR
        127.0.0.1,[::1]:53             => is 2 in one; write --listen 127.0.0.1 --listen [::1]:53";
        assert_errors("--listen", table);
    }
}
