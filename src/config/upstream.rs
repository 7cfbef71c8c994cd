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
pub(super) const UPSTREAM_PORT: u16 = 853;

/// RFC 1035 section 2.3.4: 255 octets on the wire.
pub(super) const NAME_LEN_MAX: usize = 253;

/// RFC 1035 section 2.3.4.
pub(super) const LABEL_LEN_MAX: usize = 63;
