//! Addresses as they are written on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::suggest::{self, shown};
use crate::forwarder::{Access, Prefix};

/// An IP address with or without a port, or what is wrong with it. The port may follow an @, as
/// unbound and stubby write it. An interface is written as its index.
pub(super) fn address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let with_colon = suggest::with_colon(text);
    let text = with_colon.as_deref().unwrap_or(text);
    let interface = interface(text);
    if let Some(name) = interface.filter(|interface| interface.parse::<u32>().is_err()) {
        let name = shown(name);
        return Err(format!("there is no interface {name} (`ip link` shows those there are)"));
    }
    let bracketed = interface.filter(|_| !text.starts_with('[')).map(|_| format!("[{text}]"));
    let text = bracketed.as_deref().unwrap_or(text);
    let address = if let Ok(address) = text.parse::<SocketAddr>() {
        address
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        // `::1:5300` is an address, but hardly the one that was meant.
        if let Some((ip, port)) = text.rsplit_once(':')
            && ip.parse::<Ipv6Addr>().is_ok()
            && port.parse::<u16>().is_ok()
        {
            return Err(format!("may be read with and without a port: [{ip}]:{port} or [{text}]"));
        }
        SocketAddr::new(ip, default_port)
    } else if text.ends_with(']')
        && let Ok(address) = format!("{text}:{default_port}").parse::<SocketAddr>()
    {
        address
    } else {
        return Err(address_problem(text));
    };

    let SocketAddr::V6(v6) = address else {
        return Ok(address);
    };
    if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 {
        return Err(format!(
            "a link-local address needs its interface (see `ip link`): [{}%INTERFACE]:{}",
            v6.ip(),
            v6.port()
        ));
    }
    // Sockets for IPv6 take IPv6 only.
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => Ok(SocketAddr::new(v4.into(), v6.port())),
        None => Ok(address),
    }
}

/// A network, or an address that stands for itself alone, or what is wrong with it.
pub(super) fn network(text: &str) -> Result<Prefix, String> {
    let (ip, len) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return Err("is no network; write CIDR, such as 192.168.0.0/16 or fd00::/8".into());
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if let Some(begun) = network_begun(ip).filter(|_| len.is_none()) {
        return Err(format!(
            "begins a network; write {begun}, or {ip}/{most} for this address alone"
        ));
    }
    let bits = len.map_or(Ok(most), str::parse);
    let Some(prefix) = bits.clone().ok().and_then(|bits| Prefix::of(ip, bits)) else {
        let len = len.unwrap_or_default();
        let digits = len.trim_end_matches(|c: char| !c.is_ascii_digit());
        let right = match digits.parse().ok().and_then(|bits| Prefix::of(ip, bits)) {
            Some(prefix) if digits != len => format!("; write {prefix}"),
            _ if !len.is_empty() && digits == len => {
                format!("; write {ip}/{most} for this address")
            }
            _ => String::new(),
        };
        return Err(format!(
            "the prefix length \"{}\" is not a number up to {most}{right}",
            shown(len)
        ));
    };
    if let IpAddr::V4(v4) = ip.to_canonical()
        && let Ok(bits @ ..96) = bits
        && ip.is_ipv6()
        && let Some(right) = Prefix::of(v4.into(), bits.min(32))
    {
        return Err(format!(
            "is an IPv4 address in the form of IPv6, with a length of IPv4; write {right}"
        ));
    }
    if prefix.first() != ip.to_canonical() {
        return Err(format!("is an address of that network; write {prefix}"));
    }
    Ok(prefix)
}

/// The network that an address likely stands for if it has no prefix length: its last octet, or its last 64 bits, are
/// zero, as they are of hardly any host.
pub(super) fn network_begun(ip: IpAddr) -> Option<Prefix> {
    let ip = ip.to_canonical();
    let octets = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    // Networks of IPv6 are written by groups of 16 bits.
    let (step, host) = if ip.is_ipv4() { (1, 1) } else { (2, 8) };
    let used = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    let local = Access::LOCAL
        .into_iter()
        .find(|local| local.first() == ip && *local != Access::LOOPBACK[1]);
    let by_zeros = || Prefix::of(ip, 8 * used.next_multiple_of(step) as u8);
    (used + host <= octets.len()).then(|| local.or_else(by_zeros)).flatten()
}

/// An address with its interface, if it has one, and with another port.
pub(super) fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// `text` with the index of each interface in place of its name, `fe80::1%2` for `fe80::1%eth0`. A name
/// that `index_of` does not know stays.
pub(super) fn with_interface_indexes(text: &str, index_of: fn(&str) -> Option<u32>) -> String {
    let mut pieces = text.split('%');
    let mut indexed = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let ip = indexed.rsplit(|c: char| !c.is_ascii_hexdigit() && !":.".contains(c)).next();
        let ip = ip.filter(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let end = match ip {
            Some(ip) if indexed.ends_with(&format!("[{ip}")) => piece.find(']'),
            Some(_) => piece.find(['@', '#', ',', ';', ' ']),
            None => None,
        };
        let (name, rest) = piece.split_at(end.unwrap_or(piece.len()));
        let index = ip.filter(|_| name.parse::<u32>().is_err()).and_then(|_| index_of(name));
        indexed = match index {
            Some(index) => format!("{indexed}%{index}{rest}"),
            None => format!("{indexed}%{piece}"),
        };
    }
    indexed
}

/// The interface of an IPv6 address, with or without brackets.
fn interface(text: &str) -> Option<&str> {
    let (ip, rest) = text.split_once('%')?;
    let (ip, interface) = match ip.strip_prefix('[') {
        Some(ip) => (ip, rest.split_once(']')?.0),
        None => (ip, rest),
    };
    ip.parse::<Ipv6Addr>().is_ok().then_some(interface)
}

/// Says why `text` is no address.
pub(super) fn address_problem(text: &str) -> String {
    if text.starts_with('[') && !text.contains(']') {
        return format!("the bracket of {} is not closed", shown(text));
    }
    let is_v4 = |c: char| c.is_ascii_digit() || c == '.';
    if text.split('.').count() == 4 && text.chars().all(is_v4) {
        let has_zero = |number: &str| number.len() > 1 && number.starts_with('0');
        let why = if text.split('.').any(has_zero) {
            "its numbers have no zeros before them"
        } else {
            "each of its numbers is at most 255"
        };
        return format!("{} is not an IP address: {why}", shown(text));
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .and_then(|host| host.split('%').next());
        if host.parse::<Ipv6Addr>().is_ok() {
            return format!("an IPv6 address with a port needs brackets: [{host}]:{}", shown(port));
        }
        if host.parse::<Ipv4Addr>().is_ok() || bare.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
        {
            return format!("the port \"{}\" is not a number up to 65535", shown(port));
        }
        if host.is_empty() || host == "*" {
            return "has no IP address; 0.0.0.0 and [::] stand for all addresses".into();
        }
    }
    format!("{} is not an IP address (names are not looked up)", shown(text))
}

/// Whether two listeners would fight over a port.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a == b || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && same_ip
}

/// Whether what is sent to `upstream` surely arrives at `listener`.
pub(super) fn reaches(upstream: SocketAddr, listener: SocketAddr) -> bool {
    overlap(upstream, listener) && (upstream == listener || upstream.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{HOST, assert_errors, config, error, upstream_names};

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
            assert_eq!(
                config(&format!("-l {value}")).listen,
                [address.parse().unwrap()],
                "{value}"
            );
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
            [127.0.0.1]:53   => is in another form than ADDR[:PORT]
            [::1             => the bracket of [::1 is not closed
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
}
