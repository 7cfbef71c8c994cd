//! Addresses as they are written on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::words::shown;

/// An IP address with or without a port, or what is wrong with it.
pub(super) fn address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
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
            "a link-local address needs the index of its interface (see `ip link`): [{}%INDEX]:{}",
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

/// Says why `text` is no address.
pub(super) fn address_problem(text: &str) -> String {
    if let Some((ip, interface)) = text.split_once('%') {
        let (ip, in_brackets) = ip.strip_prefix('[').map_or((ip, false), |ip| (ip, true));
        let interface = interface.split(']').next().unwrap_or_default();
        if ip.parse::<Ipv6Addr>().is_ok() && !(in_brackets && interface.parse::<u32>().is_ok()) {
            return format!(
                "an interface is given by its index (see `ip link`), in brackets: [{ip}%INDEX]:PORT"
            );
        }
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
