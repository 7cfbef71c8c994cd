//! What was likely meant: for forms that other programs take, the form that is right here, with the
//! values that were typed.

mod foreign;
mod networks;
mod upstreams;

use std::net::{IpAddr, Ipv6Addr};

use log::LevelFilter;

use self::foreign::foreign;
pub(super) use self::networks::{network, verb};
use self::upstreams::right_upstream;
pub(super) use self::upstreams::upstream;
use super::Host;
use super::address::address;
use super::choice::Choice;
use super::flags::{self, FLAGS, Flag};
use super::options::{LISTEN_PORT, Options};
use super::presets::Preset;
use super::served::{RATE_BURST, RATES, read_rate_limit};
use super::subcommand;
use super::upstream::{UPSTREAM_EXAMPLE, read};

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

/// What a value by itself is likely for.
pub(super) const UPSTREAM: &str = "--upstream";

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
