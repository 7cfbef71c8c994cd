//! Upstreams as other programs write them, with the form that is right here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::super::address::{address, with_port};
use super::super::presets::{PRESETS, Preset};
use super::super::upstream::{
    UPSTREAM_EXAMPLE, UPSTREAM_PORT, certificate_name, named, read, without_853,
};
use super::{parts, repeated, shown};

/// What is wrong with an upstream that is not written as here, and how it is written here.
pub(in crate::config) fn upstream(spec: &str) -> Option<String> {
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
pub(super) fn right_upstream(spec: &str) -> Option<(&'static str, String)> {
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
}
