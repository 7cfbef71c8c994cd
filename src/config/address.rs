//! Addresses as they are written on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::suggest;
use super::words::shown;
use crate::host::network::interfaces::index;

/// An IP address with or without a port, or what is wrong with it. The port may follow an @, as
/// unbound and stubby write it.
pub(super) fn address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let with_colon = suggest::with_colon(text);
    let text = with_colon.as_deref().unwrap_or(text);
    let with_index = with_interface_index(text)?;
    let text = with_index.as_deref().unwrap_or(text);
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

/// The same with the index of an interface in place of its name, and in brackets; `None` where there is
/// no interface.
fn with_interface_index(text: &str) -> Result<Option<String>, String> {
    let Some((ip, rest)) = text.split_once('%') else {
        return Ok(None);
    };
    let (ip, interface, port) = match ip.strip_prefix('[') {
        Some(ip) => match rest.split_once(']') {
            Some((interface, port)) => (ip, interface, port),
            None => return Ok(None),
        },
        None => (ip, rest, ""),
    };
    if ip.parse::<Ipv6Addr>().is_err() {
        return Ok(None);
    }
    let index = match interface.parse::<u32>() {
        Ok(index) => index,
        Err(_) => index(interface).ok_or_else(|| {
            format!("there is no interface {} (`ip link` shows those there are)", shown(interface))
        })?,
    };
    Ok(Some(format!("[{ip}%{index}]{port}")))
}

/// Says why `text` is no address.
pub(super) fn address_problem(text: &str) -> String {
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
