//! What was likely meant: for forms that other programs take, the form that is right here, with the
//! values that were typed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use log::LevelFilter;

use super::address::{address, with_port};
use super::flags::{self, FLAGS, Flag};
use super::options::{Choice, LISTEN_DEFAULT, LISTEN_PORT, QueryLog};
use super::presets::{PRESETS, Preset};
use super::upstream::{
    UPSTREAM_EXAMPLE, UPSTREAM_PORT, certificate_name, named, read, without_853,
};

/// What to write in place of a flag that there is not: one of another program, one of these written
/// otherwise, or one with a slip of the pen. `value` is what follows it, `listen` the listener before
/// it on the command line.
pub(super) fn flag(arg: &str, value: Option<&str>, listen: Option<IpAddr>) -> Option<String> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (arg, value),
    };
    // Some programs have long flags with one dash.
    if let Some((long, _)) = flags::find(&format!("-{name}")) {
        return Some(format!("write {long}"));
    }
    let foreign =
        |name: &str| FOREIGN.into_iter().find(|(names, _)| names.contains(&name)).map(|row| row.1);
    if let Some(remedy) = foreign(name) {
        return Some(remedy.words(value, listen));
    }
    if !name.starts_with("--")
        && let Some((short, value)) = arg.split_at_checked(2)
        && !value.is_empty()
    {
        if flags::find(short).is_some_and(|(_, flag)| flag.value.is_some()) {
            return Some(format!("write {short} {}", shown(value)));
        }
        if let Some(remedy) = foreign(short) {
            return Some(remedy.words(Some(value), listen));
        }
    }
    let long = nearest(name, FLAGS.iter().map(Flag::long))?;
    Some(format!("did you mean {long}?"))
}

/// What does here what a flag does elsewhere.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// The flag of this name, with the same value.
    Is(&'static str),
    /// A port, which stands behind the address here.
    Port,
    /// What these words say.
    Says(&'static str),
    /// A redirection of standard error, or the flag that the value is for.
    Stderr,
}

impl Remedy {
    fn words(self, value: Option<&str>, listen: Option<IpAddr>) -> String {
        match self {
            Self::Is(flag) => match value {
                Some(value) => format!("write {flag} {}", shown(value)),
                None => format!("write {flag}"),
            },
            Self::Port => {
                let port = value.and_then(|value| value.parse::<u16>().ok());
                let listen = listen.unwrap_or(LISTEN_DEFAULT.ip());
                let address = SocketAddr::new(listen, port.unwrap_or_default()).to_string();
                let address = match port {
                    Some(_) => address,
                    None => address.replacen(":0", ":PORT", 1),
                };
                format!("the port stands behind the address: write --listen {address}")
            }
            Self::Says(words) => words.into(),
            Self::Stderr => {
                if let Some(word) = value.filter(|word| QueryLog::read(word).is_ok()) {
                    return format!("write --query-log {word}");
                }
                if let Some(word) = value.filter(|word| LevelFilter::read(word).is_ok()) {
                    return format!("write --log-level {word}");
                }
                let file = value.map_or("FILE".into(), shown);
                format!("lines go to stderr: write 2>>{file} at the end")
            }
        }
    }
}

/// Flags of other programs.
const FOREIGN: [(&[&str], Remedy); 13] = [
    (&["-p", "--port"], Remedy::Port),
    (&["--address", "--bind", "--listen-address"], Remedy::Is("--listen")),
    (&["--dns", "--forward", "--forwarder", "--resolver", "--server"], Remedy::Is("--upstream")),
    (
        &[
            "--ca",
            "--ca-bundle",
            "--ca-cert",
            "--ca-certificate",
            "--cacert",
            "--tls-ca",
            "--tls-ca-file",
            "--tls-cert-bundle",
        ],
        Remedy::Is("--ca-file"),
    ),
    (
        &["--insecure", "--no-tls-verify", "--no-verify", "--skip-verify", "--tls-insecure", "-k"],
        Remedy::Says(
            "verification cannot be turned off: write --ca-file FILE for your own CA, or the \
             server's pin in place of its name, --upstream IP#sha256/BASE64",
        ),
    ),
    (
        &["--pin", "--pins", "--pinset", "--tls-pin", "--tls-pinset"],
        Remedy::Says(
            "a pin stands behind the address: write --upstream IP#NAME,sha256/BASE64, or \
             IP#sha256/BASE64 without a name",
        ),
    ),
    (&["-v"], Remedy::Says("write --log-level debug to see more, or -V for the version")),
    (
        &["--debug", "--verbose"],
        Remedy::Says("write --log-level debug, and --query-log on for a line per query"),
    ),
    (&["-q", "--quiet", "--silent"], Remedy::Says("write --log-level error --query-log off")),
    (
        &["-c", "-C", "--conf", "--conf-file", "--config", "--config-file"],
        Remedy::Says("there is no file of settings: write them as flags, which --help lists"),
    ),
    (
        &["--cache", "--cache-size", "--no-cache"],
        Remedy::Says("there is no cache: leave it out, every query is forwarded"),
    ),
    (&["--log", "--log-file", "--logfile"], Remedy::Stderr),
    (
        &["--background", "--daemon", "--daemonize"],
        Remedy::Says(
            "it stays in the foreground: leave it out, and have a service manager start it",
        ),
    ),
];

/// What to write in place of an argument that belongs to no flag.
pub(super) fn stray(arg: &str) -> String {
    if arg.parse::<u16>().is_ok() {
        return format!("--listen 127.0.0.1:{arg}");
    }
    let upstream = if read(arg).is_ok() { Some(arg.into()) } else { right_upstream(arg) };
    format!("--upstream {}", upstream.unwrap_or_else(|| UPSTREAM_EXAMPLE.into()))
}

/// What is wrong with an upstream that is not written as here, and how it is written here.
pub(super) fn upstream(spec: &str) -> Option<String> {
    let tight = tight(spec);
    if tight != spec && read(&tight).is_ok() {
        return Some(format!("has spaces in it; write {tight}"));
    }
    let spec = &*tight;
    if let Some((scheme, _)) = spec.split_once("://") {
        let what = match scheme {
            "https" | "h3" => "is a URL of DNS over HTTPS, and this is for DNS over TLS",
            "quic" | "doq" => "is a URL of DNS over QUIC, and this is for DNS over TLS",
            "sdns" => "is a DNS stamp",
            _ => "is a URL",
        };
        let bare = spec.split_once("://").map_or(spec, |(_, bare)| bare);
        let right = right_upstream(spec)
            .or_else(|| rearranged(bare))
            .unwrap_or_else(|| format!("IP[:PORT]#NAME, such as {UPSTREAM_EXAMPLE}"));
        return Some(format!("{what}; write {right}"));
    }
    let list = parts(spec);
    // What follows a comma may also be a pin, or a name that was forgotten.
    let is_preset = |word: &&str| Preset::of(word).is_some();
    if list.len() > 1
        && (list.iter().all(|part| read(part).is_ok())
            || list.first().is_some_and(is_preset) && !spec.contains(['#', '/', '=']))
    {
        return Some(repeated("upstream", &list));
    }
    if let Some((place, auth)) = spec.split_once([',', ' '])
        && let right = format!("{place}#{}", auth.trim_start())
        && read(&right).is_ok()
    {
        let comma = if spec.contains(',') { "comma" } else { "space" };
        return Some(format!("has a {comma} in place of #; write {}", shown(&right)));
    }
    if let Some(problem) = preset_with_port(spec) {
        return Some(problem);
    }
    let another_form =
        |right: String| format!("is in another form than IP[:PORT]#NAME; write {right}");
    let Some((place, auth)) = spec.split_once('#') else {
        if address(spec, UPSTREAM_PORT).is_ok() {
            return None;
        }
        if let Some(right) = rearranged(spec) {
            return Some(another_form(right));
        }
        let right = right_upstream(spec)?;
        return Some(format!(
            "has no IP address (upstreams are not looked up by name); write {right}"
        ));
    };
    if let Ok(address) = address(place, UPSTREAM_PORT) {
        if let Ok(port) = auth.parse::<u16>() {
            let right = named(with_port(address, port));
            return Some(format!("has a port in place of the name; write {right}"));
        }
        if let Some((name, port)) = auth.rsplit_once([':', '@'])
            && let (Ok(_), Ok(port)) = (certificate_name(name), port.parse())
        {
            let right = without_853(with_port(address, port));
            return Some(format!("has the port behind the name; write {right}#{name}"));
        }
        // What is wrong with a list of pins is said elsewhere.
        let is_bad = !auth.contains(',') && certificate_name(auth).is_err();
        return is_bad.then(|| rearranged(spec))?.map(another_form);
    }
    let right = rearranged(spec)?;
    Some(match certificate_name(place) {
        Ok(_) => format!("has the name in front of the address; write {right}"),
        Err(_) => another_form(right),
    })
}

/// An address, a name and maybe a port, whatever stands between them and in whatever order, as they are
/// written here.
fn rearranged(spec: &str) -> Option<String> {
    let (mut ip, mut name, mut port) = (None, None, None);
    let pieces = spec.split(['#', '@', ',', ';', ' ', '/', '|']).filter(|piece| !piece.is_empty());
    for part in pieces.flat_map(colon_parts) {
        let is_twice = if let Ok(address) = address(part, UPSTREAM_PORT) {
            let other = (address.port() != UPSTREAM_PORT).then(|| address.port());
            ip.replace(address).is_some() || other.is_some_and(|it| port.replace(it).is_some())
        } else if let Some(v4) = bracketed(part).and_then(|ip| ip.parse().ok()) {
            ip.replace(SocketAddr::new(IpAddr::V4(v4), UPSTREAM_PORT)).is_some()
        } else if let Ok(number) = part.parse::<u16>() {
            port.replace(number).is_some()
        } else if part.parse::<IpAddr>().is_ok() {
            // It lacks an interface, or may be read in two ways.
            return None;
        } else {
            name.replace(certificate_name(part).ok()?).is_some()
        };
        if is_twice {
            return None;
        }
    }
    if let (None, Some(address), Some(port), false) = (&name, ip, port, spec.contains('/')) {
        return Some(named(with_port(address, port)));
    }
    // A word without a dot may be anything, unless it stands at a #.
    let name = name.filter(|name| name.contains('.') || spec.contains('#'))?;
    let mut right = ip?;
    right.set_port(port.filter(|port| ![0, 53].contains(port)).unwrap_or(UPSTREAM_PORT));
    Some(format!("{}#{name}", without_853(right)))
}

/// What is wrong with a preset that has a port.
fn preset_with_port(spec: &str) -> Option<String> {
    let (word, port) = spec.rsplit_once([':', '@'])?;
    let port = port.parse().ok()?;
    let preset = PRESETS.iter().find(|preset| preset.word.eq_ignore_ascii_case(word))?;
    let one = without_853(SocketAddr::new(preset.addresses[0], port));
    let alternative = match port {
        0 | 53 | UPSTREAM_PORT => String::new(),
        _ => format!(", or {one}#{} for one of its addresses", preset.name),
    };
    let word = preset.word;
    Some(format!("is a preset with a port, and presets take none; write {word}{alternative}"))
}

/// What stands between colons that are not an IPv6 address's own.
fn colon_parts(piece: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = piece;
    while address(rest, UPSTREAM_PORT).is_err()
        && rest.parse::<IpAddr>().is_err()
        && bracketed(rest).is_none()
        && let Some((before, part)) = rest.rsplit_once(':')
        // That it needs brackets is said elsewhere.
        && (before.parse::<Ipv6Addr>().is_err() || part.parse::<u16>().is_err())
    {
        parts.push(part);
        rest = before;
    }
    parts.push(rest);
    parts
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// The same without spaces around what separates the parts of an upstream, and at the ends.
fn tight(spec: &str) -> String {
    let mut tight = spec.split_whitespace().collect::<Vec<_>>().join(" ");
    for separator in ["#", ",", ";", "@", ":"] {
        let parts: Vec<_> = tight.split(separator).map(str::trim).collect();
        tight = parts.join(separator);
    }
    tight
}

/// How an upstream is written of which a name or an address can be told: one in a URL, a name alone.
fn right_upstream(spec: &str) -> Option<String> {
    let bare = spec.split_once("://").map_or(spec, |(_, rest)| rest);
    let bare = bare.split(['/', '?']).next().unwrap_or_default();
    if bare.is_empty() || spec.starts_with("sdns:") {
        return None;
    }
    if bare != spec && bare.contains('#') && read(bare).is_ok() {
        return Some(bare.into());
    }
    // The port of DNS over HTTPS says nothing about that of DNS over TLS.
    let over_https = spec.starts_with("https:") || spec.starts_with("h3:");
    if let Ok(address) = address(bare, UPSTREAM_PORT) {
        let port = if over_https || address.port() == 53 { UPSTREAM_PORT } else { address.port() };
        return Some(named(with_port(address, port)));
    }
    if let Some(preset) = Preset::of(bare) {
        return Some(preset.word.into());
    }
    let (host, port) = match bare.rsplit_once([':', '@']) {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok()?)),
        None => (bare, None),
    };
    let name = certificate_name(host).ok().filter(|name| name.contains('.'))?;
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == &*name) {
        let (word, ip) = (preset.word, preset.addresses[0]);
        return Some(format!("{word}, or {ip}#{name} for one of its addresses"));
    }
    let port = port.filter(|port| ![53, UPSTREAM_PORT].contains(port) && !over_https);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("ADDRESS{port}#{name}, with its address"))
}

/// What is wrong with a listener that is not written as here, and how it is written here.
pub(super) fn listener(value: &str) -> Option<String> {
    if value.parse::<u16>().is_ok() {
        return Some(format!(
            "is a port without an address; write 127.0.0.1:{value}, or 0.0.0.0:{value} for all \
             addresses"
        ));
    }
    if let Some((_, bare)) = value.split_once("://") {
        let bare = bare.trim_end_matches('/');
        return Some(format!("is a URL; write {}", listener_in(bare)?));
    }
    let list = parts(value);
    if list.len() > 1 && list.iter().all(|part| address(part, 0).is_ok()) {
        return Some(repeated("listen", &list));
    }
    if let Some((bare, after)) = value.rsplit_once('/') {
        let right = listener_in(bare)?;
        return Some(match after {
            "udp" | "tcp" => format!("both UDP and TCP are served; write {right}"),
            _ => format!("is a network; write an address of this machine, such as {right}"),
        });
    }
    if let Some((bare, port)) = value.rsplit_once(['#', ' '])
        && let (Ok(address), Ok(port)) = (address(bare, 0), port.parse())
    {
        let right = with_port(address, port);
        return Some(format!("has something else than a colon before the port; write {right}"));
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

fn listener_in(bare: &str) -> Option<String> {
    match address(bare, LISTEN_PORT) {
        Ok(address) => Some(address.to_string()),
        Err(_) => bare.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}")),
    }
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

/// The zones in dnsmasq's notation, `/zone/zone/server`.
pub(super) fn dnsmasq_zones(value: &str) -> Option<Vec<&str>> {
    let (zones, _server) = value.strip_prefix('/')?.rsplit_once('/')?;
    Some(zones.split('/').filter(|zone| !zone.is_empty()).collect())
}

/// What stands between commas, semicolons and spaces.
fn parts(value: &str) -> Vec<&str> {
    value.split([',', ';', ' ']).filter(|part| !part.is_empty()).collect()
}

fn repeated(flag: &str, list: &[&str]) -> String {
    let flags: Vec<_> =
        list.iter().take(REPEATED_MAX).map(|part| format!("--{flag} {}", shown(part))).collect();
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

/// How many octets to change, insert or remove to make `a` into `b` (Levenshtein).
pub(super) fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Of a list, so many are repeated: errors are lines a person reads.
const REPEATED_MAX: usize = 4;

/// Of a slip of the pen: two letters changed places, one hyphen too many. A word that is farther away is
/// another word.
const EDITS_MAX: usize = 2;

/// Characters of an argument that an error repeats: errors are lines a person reads.
pub(super) const SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::assert_errors;

    #[test]
    fn the_line_shows_the_right_form_with_the_values_that_were_typed() {
        let table = r"
        -u tls://9.9.9.9                  => is a URL; write 9.9.9.9#dns.quad9.net
        -u tls://9.9.9.9:8853             => is a URL; write 9.9.9.9:8853#dns.quad9.net
        -u tls://[2620:fe::fe]            => is a URL; write [2620:fe::fe]#dns.quad9.net
        -u tls://10.0.0.1:8853            => is a URL; write 10.0.0.1:8853#NAME
        -u tls://10.0.0.1@8853#dot.example => is a URL; write 10.0.0.1@8853#dot.example
        -u udp://1.1.1.1:53               => is a URL; write 1.1.1.1#cloudflare-dns.com
        -u tls://dns.quad9.net            => is a URL; write quad9, or 9.9.9.9#dns.quad9.net for one of
        -u https://dns.quad9.net/dns-query => DNS over HTTPS, and this is for DNS over TLS; write quad9, or
        -u https://dns.google:443/dns-query => and this is for DNS over TLS; write google, or 8.8.8.8#dns.google
        -u https://1.1.1.1/dns-query      => and this is for DNS over TLS; write 1.1.1.1#cloudflare-dns.com
        -u https://dot.example:8443/q?a   => write ADDRESS#dot.example, with its address
        -u quic://dns.adguard-dns.com     => is a URL of DNS over QUIC, and this is for DNS over TLS; write adguard
        -u tls://dot.example:8853/        => is a URL; write ADDRESS:8853#dot.example, with its address
        -u tls://                         => is a URL; write IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com
        -u tls://quad9                    => is a URL; write quad9
        -u https://a/b                    => write IP[:PORT]#NAME
        -u sdns://AgcAAAAAAAAABzEuMC4wLjE => is a DNS stamp; write IP[:PORT]#NAME, such as 1.1.1.1#cloudflare-dns.com
        -u dns.quad9.net                  => has no IP address (upstreams are not looked up by name); write quad9, or 9.9.9.9#dns.quad9.net for one of its addresses
        -u DNS.Quad9.net.:853             => by name); write quad9, or
        -u dns.quad9.net@853              => by name); write quad9, or
        -u dot.example                    => by name); write ADDRESS#dot.example, with its address
        -u dot.example:8853               => by name); write ADDRESS:8853#dot.example, with its address
        -u dot.example:53                 => by name); write ADDRESS#dot.example, with its address
        -u dns.quad9.net#9.9.9.9          => has the name in front of the address; write 9.9.9.9#dns.quad9.net
        -u dot.example#10.0.0.1:8853      => the name in front of the address; write 10.0.0.1:8853#dot.example
        -u cloudflare,google              => is 2 in one; write --upstream cloudflare --upstream google
        -u cloudflare,nextdns             => is 2 in one; write --upstream cloudflare --upstream nextdns
        -u 'quad9 google'                 => is 2 in one; write --upstream quad9 --upstream google
        -u '1.1.1.1, 1.0.0.1'             => is 2 in one; write --upstream 1.1.1.1 --upstream 1.0.0.1
        -u 1.1.1.1#a;1.0.0.1#b            => is 2 in one; write --upstream 1.1.1.1#a --upstream 1.0.0.1#b
        -u 1.1.1.1#a,1.0.0.1              => is 2 in one; write --upstream 1.1.1.1#a --upstream 1.0.0.1
        -u quad9,quad9,quad9,quad9,quad9  => is 5 in one; write --upstream quad9 --upstream quad9 --upstream quad9 --upstream quad9 ...
        -u '1.1.1.1 dot.example'          => has a space in place of #; write 1.1.1.1#dot.example
        -u 1.1.1.1,dot.example            => has a comma in place of #; write 1.1.1.1#dot.example
        -u 1.1.1.1#dot.example:853        => has the port behind the name; write 1.1.1.1#dot.example
        -u 1.1.1.1#dot.example:8853       => has the port behind the name; write 1.1.1.1:8853#dot.example
        -u [::1]#dot.example@8853         => has the port behind the name; write [::1]:8853#dot.example
        -u 1.1.1.1#853                    => has a port in place of the name; write 1.1.1.1#cloudflare-dns.com
        -u 10.0.0.1#8853                  => has a port in place of the name; write 10.0.0.1:8853#NAME
        -u 1.1.1.1:53                     => port 53 is for plain DNS; leave the port out for 853: write 1.1.1.1#cloudflare-dns.com
        -u 10.0.0.1@53                    => leave the port out for 853: write 10.0.0.1#NAME
        -u [::1]:53#dot.example           => leave the port out for 853: write [::1]#dot.example
        -u [fe80::1%2]:53#dot.example     => leave the port out for 853: write [fe80::1%2]#dot.example
        -u fe80::1%2#8853                 => has a port in place of the name; write [fe80::1%2]:8853#NAME
        -u fe80::1%2#dot.example:8853     => has the port behind the name; write [fe80::1%2]:8853#dot.example
        -u tls://[fe80::1%2]:853          => is a URL; write [fe80::1%2]#NAME
        -u '1.1.1.1 #a.b'                 => has spaces in it; write 1.1.1.1#a.b
        -u '1.1.1.1# a.b '                => has spaces in it; write 1.1.1.1#a.b
        -u ' quad9'                       => has spaces in it; write quad9
        -u '1.1.1.1 : 8853 # a.b'         => has spaces in it; write 1.1.1.1:8853#a.b
        -u '1.1.1.1,  a.b'                => has a comma in place of #; write 1.1.1.1#a.b
        -u '1.1.1.1   a.b'                => has a space in place of #; write 1.1.1.1#a.b
        -u '1.1.1.1 8853 a.b'             => is in another form than IP[:PORT]#NAME; write 1.1.1.1:8853#a.b
        -u 1.1.1.1@cloudflare-dns.com     => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        -u 1.1.1.1:dns.x                  => than IP[:PORT]#NAME; write 1.1.1.1#dns.x
        -u cloudflare-dns.com@1.1.1.1     => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        -u dot.example@10.0.0.1:8853      => than IP[:PORT]#NAME; write 10.0.0.1:8853#dot.example
        -u 1.1.1.1:853:cloudflare-dns.com => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        -u 1.1.1.1:53:cloudflare-dns.com  => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        -u [1.1.1.1]:853#a.b              => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        -u [1.1.1.1]#a                    => than IP[:PORT]#NAME; write 1.1.1.1#a
        -u [::1]:8853:dot.example         => than IP[:PORT]#NAME; write [::1]:8853#dot.example
        -u 1.1.1.1##a.b                   => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        -u 1.1.1.1#a.b@                   => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        -u 1.1.1.1/a.b                    => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        -u 1.1.1.1|a.b                    => than IP[:PORT]#NAME; write 1.1.1.1#a.b
        -u tls://1.1.1.1:8853:a.b         => is a URL; write 1.1.1.1:8853#a.b
        -u tls://1.1.1.1#a.b:8853         => is a URL; write 1.1.1.1:8853#a.b
        -u '10.0.0.1 8853'                => than IP[:PORT]#NAME; write 10.0.0.1:8853#NAME
        -u [1.1.1.1]:853                  => than IP[:PORT]#NAME; write 1.1.1.1#cloudflare-dns.com
        -u dot.example:853#8.8.8.8        => than IP[:PORT]#NAME; write 8.8.8.8#dot.example
        -u dot.example@::1                => than IP[:PORT]#NAME; write [::1]#dot.example
        -u 2620:fe::fe@dns.quad9.net      => than IP[:PORT]#NAME; write [2620:fe::fe]#dns.quad9.net
        -u 1.1.1.1@a.b@c.d                => is not an IP address
        -u 1.1.1.1:dns                    => the port 'dns' is not a number
        -u cloudflare:853                 => is a preset with a port, and presets take none; write cloudflare
        -u quad9@8853                     => presets take none; write quad9, or 9.9.9.9:8853#dns.quad9.net for one of
        -u 2620:fe::x#dns.quad9.net       => write [IPv6]:PORT#NAME, such as [2606:4700:4700::1111]#cloudflare-dns.com
        -u 1.1.1.1@dns#x                  => the port 'dns' is not a number
        -l 53                             => is a port without an address; write 127.0.0.1:53, or 0.0.0.0:53 for all addresses
        -l 5300                           => write 127.0.0.1:5300, or 0.0.0.0:5300
        -l :5300                          => stand for all addresses: write 0.0.0.0:5300 or 127.0.0.1:5300
        -l *:53                           => stand for all addresses: write 0.0.0.0:53 or 127.0.0.1:53
        -l *                              => stand for all addresses: write 0.0.0.0:53 or 127.0.0.1:53
        -l localhost                      => (names are not looked up); write 127.0.0.1:53 or [::1]:53
        -l LocalHost:5300                 => (names are not looked up); write 127.0.0.1:5300 or [::1]:5300
        -l udp://127.0.0.1:5300           => is a URL; write 127.0.0.1:5300
        -l tcp://[::1]/                   => is a URL; write [::1]:53
        -l 0.0.0.0:53/udp                 => both UDP and TCP are served; write 0.0.0.0:53
        -l 53/tcp                         => both UDP and TCP are served; write 127.0.0.1:53
        -l 192.168.1.1/24                 => is a network; write an address of this machine, such as 192.168.1.1:53
        -l [fe80::1%2]#5300               => than a colon before the port; write [fe80::1%2]:5300
        -l 127.0.0.1#5300                 => than a colon before the port; write 127.0.0.1:5300
        -l '127.0.0.1 5300'               => than a colon before the port; write 127.0.0.1:5300
        -l 127.0.0.1,[::1]:53             => is 2 in one; write --listen 127.0.0.1 --listen [::1]:53
        -p 53                             => -p: unknown flag; the port stands behind the address: write --listen 127.0.0.1:53
        --port=5353                       => --port: unknown flag; the port stands behind the address: write --listen 127.0.0.1:5353
        -p53                              => write --listen 127.0.0.1:53
        -l 0.0.0.0 -p 53                  => write --listen 0.0.0.0:53
        -l :: --port 53                   => write --listen [::]:53
        --port                            => write --listen 127.0.0.1:PORT
        -l ::1 -p dns                     => write --listen [::1]:PORT
        -v                                => -v: unknown flag; write --log-level debug to see more, or -V for the version
        -vvv                              => write --log-level debug
        --verbose                         => --verbose: unknown flag; write --log-level debug, and --query-log on for a line per query
        --debug -u quad9                  => write --log-level debug
        -q                                => write --log-level error --query-log off
        --config /etc/dot-proxy.conf      => --config: unknown flag; there is no file of settings: write them as flags, which --help lists
        -c x                              => there is no file of settings
        --cache 1000                      => --cache: unknown flag; there is no cache: leave it out, every query is forwarded
        --cache-size=1000                 => there is no cache
        --log-file /var/log/dns           => --log-file: unknown flag; lines go to stderr: write 2>>/var/log/dns at the end
        --log off                         => --log: unknown flag; write --query-log off
        --log=debug                       => --log: unknown flag; write --log-level debug
        --insecure                        => verification cannot be turned off: write --ca-file FILE for your own CA, or the server's pin
        --no-verify                       => verification cannot be turned off
        --pin sha256/x                    => a pin stands behind the address: write --upstream IP#NAME,sha256/BASE64
        --tls-ca /etc/ca.pem              => --tls-ca: unknown flag; write --ca-file /etc/ca.pem
        --log-file                        => write 2>>FILE at the end
        --server 1.1.1.1#x                => --server: unknown flag; write --upstream 1.1.1.1#x
        --bind=127.0.0.1                  => write --listen 127.0.0.1
        --cacert                          => write --ca-file
        -uquad9                           => -uquad9: unknown flag; write -u quad9
        -l127.0.0.1:53                    => write -l 127.0.0.1:53
        -upstream quad9                   => -upstream: unknown flag; write --upstream
        -hx                               => -hx: unknown flag; --help lists the flags
        --nonesuch                        => unknown flag; --help lists the flags
        --timeout 5                       => unknown flag; --help lists the flags
        --client-timeout 5                => unknown flag; --help lists the flags
        --listne ::1                      => unknown flag; did you mean --listen?
        --tcp-client-max 5                => unknown flag; did you mean --tcp-clients-max?
        tls://9.9.9.9                     => every value follows its flag, such as --upstream 9.9.9.9#dns.quad9.net
        1.1.1.1                           => every value follows its flag, such as --upstream 1.1.1.1
        53                                => every value follows its flag, such as --listen 127.0.0.1:53";
        assert_errors("", table);
    }
    #[test]
    fn flags_that_are_suggested_are_flags() {
        for (_, remedy) in FOREIGN {
            let words = remedy.words(Some("VALUE"), None);
            let names = words.split([' ', ',', ':']).filter(|word| word.starts_with('-'));
            for name in names {
                assert!(flags::find(name).is_some(), "{name} in {words:?}");
            }
        }
    }
}
