//! Upstreams as they are written on the command line: `IP[:PORT]#NAME,PIN` or a preset.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address::{address, with_port};
use super::choice::Choice;
use super::presets::{PRESETS, Preset, preset_names};
use super::suggest::{self, nearest, shown};
use crate::tls::pin::Pin;

/// A DNS-over-TLS server and how it is known: by a name, by pins, or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Where it is.
    pub address: SocketAddr,
    /// The name its certificate must have: a DNS name in lower case without the final dot, or an IP
    /// address.
    pub name: Option<Box<str>>,
    /// The keys of which it must have one, if there are any.
    pub pins: Box<[Pin]>,
    /// Whether it is told the name in the clear.
    pub sni: bool,
}

impl UpstreamSpec {
    /// All of it, as it is written on the command line.
    pub fn written(&self) -> String {
        let pins = self.pins.iter().map(Pin::to_string);
        let sni = (!self.sni).then(|| "sni=off".to_owned());
        let auth: Vec<_> =
            self.name.as_deref().map(str::to_owned).into_iter().chain(pins).chain(sni).collect();
        format!("{}#{}", without_853(self.address), auth.join(","))
    }

    /// Whether both are one operator's: they have the name in common, or a key that only its owner can use.
    pub fn has_operator_of(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (None, None) => self.pins.first() == other.pins.first(),
            (name, others) => name == others,
        }
    }
}

/// `1.1.1.1#cloudflare-dns.com`, with the port if it is not 853. Without a name it is
/// `1.1.1.1#sha256/ungWv48Bz+pB...`, the beginning of its first pin. An upstream whose name is its
/// address is `1.1.1.1`.
impl UpstreamSpec {
    /// The address, with the name if there is one: what of it stays when keys are changed.
    pub fn without_pins(&self) -> String {
        match &self.name {
            Some(_) => self.to_string(),
            None => without_853(self.address),
        }
    }
}

impl fmt::Display for UpstreamSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = without_853(self.address);
        match (&self.name, self.pins.first()) {
            (Some(name), _) if **name == *self.address.ip().to_string() => f.write_str(&address),
            (Some(name), _) => write!(f, "{address}#{name}"),
            (None, Some(pin)) => write!(f, "{address}#{}", pin.shortened()),
            (None, None) => f.write_str(&address),
        }
    }
}

/// The upstreams of one `--upstream`: those of a preset, or one.
pub(super) fn upstreams(spec: &str) -> Result<Vec<UpstreamSpec>, String> {
    read(spec).map_err(|problem| suggest::upstream(spec).unwrap_or(problem))
}

/// Reads the upstreams of one `--upstream`. What is wrong is not compared with the forms of other programs.
pub(super) fn read(spec: &str) -> Result<Vec<UpstreamSpec>, String> {
    // Behind an address or a preset alone it can mean one thing only.
    if let Some((before, last)) = spec.rsplit_once(',').filter(|_| !spec.contains('#'))
        && let Some(sni) = sni(last)
    {
        let sni = sni?;
        let upstreams = read(before.trim_end())?.into_iter();
        return Ok(upstreams.map(|upstream| UpstreamSpec { sni, ..upstream }).collect());
    }
    if let Some(preset) = Preset::of(spec) {
        return Ok(preset.upstreams().collect());
    }
    let form = if spec.matches(':').count() > 1 {
        format!("write [IPv6]:PORT#NAME, such as {UPSTREAM_EXAMPLE_V6}")
    } else {
        format!("write IP[:PORT]#NAME, such as {UPSTREAM_EXAMPLE}")
    };
    if let Some((word, _)) = spec.split_once(['#', ','])
        && let Some(preset) = Preset::of(word)
    {
        let (ip, name) = (preset.addresses[0], preset.name);
        return Err(format!(
            "is a preset with more behind it, and presets take neither names nor pins; write an \
             address, such as {ip}#{name},{PIN_FORM}"
        ));
    }
    let (place, auth) = match spec.split_once('#') {
        Some((place, auth)) => (place, Some(auth)),
        None => (spec, None),
    };
    if auth.is_some() && place.rsplit_once([':', '@']).map_or(place, |(ip, _)| ip).is_empty() {
        return Err(format!("has no IP address before #; {form}"));
    }
    let address = address(place, UPSTREAM_PORT).map_err(|problem| {
        if auth.is_some() || spec.contains(['.', ':', '%', '@']) {
            return format!("{problem}; {form}");
        }
        let remedy = match nearest(spec, PRESETS.iter().map(|preset| preset.word)) {
            Some(known) => format!("did you mean {known}?"),
            None => form.clone(),
        };
        format!("is not a preset ({}); {remedy}", preset_names())
    })?;
    match address.port() {
        // RFC 7858 section 3.1: never DNS over TLS on port 53.
        53 => {
            let address = with_port(address, UPSTREAM_PORT);
            let right = match auth {
                Some(auth) => format!("{}#{}", without_853(address), shown(auth)),
                None => named(address),
            };
            return Err(format!(
                "port 53 is for plain DNS; leave the port out for 853: write {right}"
            ));
        }
        0 => return Err("port 0 is nowhere; leave the port out for 853".into()),
        _ => {}
    }
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
        return Err(format!("{ip} is not the address of one server; {form}"));
    }
    Ok(vec![match auth {
        Some(auth) => known_by(auth, address)?,
        // The certificate must have the address (RFC 8310 section 8.1).
        None => UpstreamSpec {
            address,
            name: Some(ip.to_string().into()),
            pins: Box::default(),
            sni: true,
        },
    }])
}

/// An upstream at this address, by the name that its certificate has if that is known.
pub(super) fn named(address: SocketAddr) -> String {
    let name = Preset::at(address.ip()).map_or("NAME", |preset| preset.name);
    format!("{}#{name}", without_853(address))
}

/// An address with its port, unless that is the usual one.
pub(super) fn without_853(address: SocketAddr) -> String {
    let text = address.to_string();
    match address.port() {
        UPSTREAM_PORT => text.strip_suffix(":853").unwrap_or(&text).into(),
        _ => text,
    }
}

/// The upstream at this address with what stands behind its #: a name and any number of pins, in any
/// order, but not nothing.
fn known_by(auth: &str, address: SocketAddr) -> Result<UpstreamSpec, String> {
    let (mut name, mut pins, mut sni) = (None, Vec::new(), true);
    for part in auth.split(',').map(str::trim) {
        if part.is_empty() && auth.contains(',') {
            return Err(format!("has a comma with nothing beside it; write NAME,{PIN_FORM}"));
        }
        if let Some(is_told) = self::sni(part) {
            sni = is_told?;
            continue;
        }
        let is_odd = !part.starts_with("sha256/") && part.contains(['=', ';', ' ']);
        if is_odd && part.to_ascii_lowercase().contains("sni") {
            let name = part.split(['=', ';', ' ']).next().unwrap_or_default();
            let name = if name.eq_ignore_ascii_case("sni") { "NAME" } else { name };
            return Err(format!("{} is not known; write {},sni=off", shown(part), shown(name)));
        }
        // No name has these.
        if part.contains(['/', '=']) {
            let pin = part.parse().map_err(|problem| {
                let right = pin_within(part).map_or(PIN_FORM.into(), |pin| pin.to_string());
                format!("the pin {} {problem}; write {right}", shown(part))
            })?;
            if pins.contains(&pin) {
                return Err(format!("the pin {pin} is given twice; give each pin once"));
            }
            if pins.len() == PINS_MAX {
                return Err(format!("{pin} is one pin too many; give at most {PINS_MAX}"));
            }
            pins.push(pin);
            continue;
        }
        let new = certificate_name(part).map_err(|problem| {
            format!("the name {problem}; write it as in the server's certificate")
        })?;
        if let Some(name) = name {
            return Err(format!("has two names, {name} and {new}; give one of them"));
        }
        name = Some(new);
    }
    if name.is_none() && pins.is_empty() {
        return Err("has neither name nor pin; write NAME,sni=off".into());
    }
    Ok(UpstreamSpec { address, name, pins: pins.into(), sni })
}

/// Whether the server is told its name, if that is what this part is about.
fn sni(part: &str) -> Option<Result<bool, String>> {
    let part = part.trim().to_ascii_lowercase();
    let value = part.strip_prefix("sni=")?;
    Some(bool::read(value).map_err(|problem| format!("sni={} {problem}", shown(value))))
}

/// A name as certificates have it: a DNS name or an IP address (RFC 8310 section 8.1).
pub(super) fn certificate_name(text: &str) -> Result<Box<str>, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string().into());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("after # is empty".into());
    }
    if !name.is_ascii() {
        return Err(format!("{} is not in its ASCII form (A-labels, xn--...)", shown(name)));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(format!("is {} octets long, more than {NAME_LEN_MAX}", name.len()));
    }
    for label in name.split('.') {
        let problem = if label.is_empty() {
            "has an empty label"
        } else if label.len() > LABEL_LEN_MAX {
            "has a label of more than 63 octets"
        } else if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            "has something else than letters, digits, hyphens and underscores"
        } else if label.starts_with('-') || label.ends_with('-') {
            "has a label that begins or ends with a hyphen"
        } else {
            continue;
        };
        return Err(format!("{} {problem}", shown(name)));
    }
    // 1.2.3 and 1.0x7f are spellings of IP addresses to many programs, and names to none.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(format!("{} ends in a number and is not an IP address", shown(name)));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// The pin in the notation of another program, such as `pin-sha256="BASE64"` or BASE64 alone.
fn pin_within(text: &str) -> Option<Pin> {
    let quoted = text.trim_end_matches(['"', '\'']);
    let (_, base64) = quoted.split_at_checked(quoted.len().checked_sub(Pin::BASE64_LEN)?)?;
    format!("sha256/{base64}")
        .parse()
        .ok()
        .filter(|_| !text.contains("sha1") && !text.contains("512"))
}

pub(super) const UPSTREAM_EXAMPLE: &str = "1.1.1.1#cloudflare-dns.com";

const UPSTREAM_EXAMPLE_V6: &str = "[2606:4700:4700::1111]#cloudflare-dns.com";

const PIN_FORM: &str = "sha256/BASE64";

/// The key in use, the next one and some to spare; an error names them all.
pub(super) const PINS_MAX: usize = 8;

/// RFC 7858 section 3.1.
pub const UPSTREAM_PORT: u16 = 853;

/// RFC 1035 section 2.3.4: 255 octets on the wire.
pub(super) const NAME_LEN_MAX: usize = 253;

/// RFC 1035 section 2.3.4.
pub(super) const LABEL_LEN_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{assert_errors, config, error, with_long_names};

    const PINS: [&str; 2] = [
        "sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ];

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
        let many: Vec<_> =
            (0..=PINS_MAX).map(|n| PINS[1].replacen('A', &n.to_string(), 1)).collect();
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
            (
                &named,
                &"1.2.3.4#x".into(),
                "1.2.3.4#x is given twice; give each upstream once, with",
            ),
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
            256.2.3.4        => 256.2.3.4 is not an IP address: each of its numbers is at most 255; write IP[:PORT]#NAME
            01.2.3.4         => 01.2.3.4 is not an IP address: its numbers have no zeros before them; write IP
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
}
