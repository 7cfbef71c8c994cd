//! From where this host's sockets leave, where it has several ways out, and from where they may listen.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use socket2::SockRef;

use crate::host::os_error::system_error;

/// Where connections to upstreams leave from; the default leaves that to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The address towards those with IPv4.
    pub v4: Option<Ipv4Addr>,
    /// The address towards those with IPv6.
    pub v6: Option<Ipv6Addr>,
    /// The interface, whatever routes say.
    pub interface: Option<Box<str>>,
}

impl Source {
    /// Whether the system chooses.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether sockets are bound to an address of it.
    pub fn has_address(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    /// The addresses that this host does not have, a line each.
    pub fn missing(&self) -> Vec<String> {
        let all = [self.v4.map(IpAddr::from), self.v6.map(IpAddr::from)];
        let is_missing = |ip: &IpAddr| {
            UdpSocket::bind((*ip, 0))
                .is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
        };
        let missing = all.into_iter().flatten().filter(is_missing);
        missing
            .map(|ip| {
                format!(
                    "--upstream-source {ip}: is no address of this host now; upstreams are connected to once it is"
                )
            })
            .collect()
    }

    /// The address from which others with an address like `to` are connected to.
    fn address(&self, to: SocketAddr) -> Option<IpAddr> {
        if to.is_ipv4() { self.v4.map(Into::into) } else { self.v6.map(Into::into) }
    }

    /// Has a new socket leave from there that is to be connected to `to`. The error is words for the log.
    pub fn bind(&self, socket: &SockRef<'_>, to: SocketAddr) -> Result<(), String> {
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
                let why = match Errno::from_io_error(&error) {
                    Some(Errno::NODEV) => "no such interface now",
                    Some(Errno::PERM) => {
                        "not permitted: it takes Linux 5.7, or the capability CAP_NET_RAW"
                    }
                    _ => "",
                };
                explained(interface, why, &error)
            })?;
        }
        let Some(address) = self.address(to) else { return Ok(()) };
        socket.bind(&SocketAddr::new(address, 0).into()).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::AddrNotAvailable => "not an address of this host now",
                _ => "",
            };
            explained(&address, why, &error)
        })
    }

    /// The same for a socket that only looks which way there is, and may be there before the address is.
    pub(super) fn look_from(&self, socket: &SockRef<'_>, family: SocketAddr) -> Result<(), String> {
        if let Some(address) = self.address(family) {
            // Without it, no way is known until the next start.
            allow_early(socket, SocketAddr::new(address, 0)).ok();
        }
        self.bind(socket, family)
    }
}

fn explained(source: &dyn fmt::Display, why: &str, error: &io::Error) -> String {
    let why = if why.is_empty() { &*system_error(error) } else { why };
    format!("--upstream-source {source}: {why}")
}

/// Has a socket bind this address although the host may not have it yet (ip(7), `IP_FREEBIND`).
pub(crate) fn allow_early(socket: &SockRef<'_>, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) }
}

/// Binds a socket; where `may_be_early`, also to an address that the host does not have yet. Returns whether it is
/// one.
pub(crate) fn bind(
    socket: &SockRef<'_>,
    address: SocketAddr,
    may_be_early: bool,
) -> io::Result<bool> {
    match socket.bind(&address.into()) {
        Err(error) if may_be_early && error.kind() == io::ErrorKind::AddrNotAvailable => {
            allow_early(socket, address)?;
            socket.bind(&address.into())?;
            Ok(true)
        }
        bound => bound.map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// An address of nobody (RFC 5737).
    const NOBODYS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

    fn socket() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    #[test]
    fn a_connection_leaves_from_where_it_is_to() {
        let to = "127.0.0.1:853".parse().unwrap();
        let source = Source { v4: Some(Ipv4Addr::new(127, 0, 0, 9)), ..Source::default() };
        let bound = socket();
        source.bind(&SockRef::from(&bound), to).unwrap();
        let local = bound.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(local.ip(), Ipv4Addr::new(127, 0, 0, 9));
        // Of the other family nothing is said.
        let source = Source { v6: Some(Ipv6Addr::LOCALHOST), ..Source::default() };
        source.bind(&SockRef::from(&socket()), to).unwrap();
    }

    #[test]
    fn what_is_not_there_is_named() {
        let to = "127.0.0.1:853".parse().unwrap();
        for (source, expected) in [
            (
                Source { v4: Some(NOBODYS), ..Source::default() },
                "--upstream-source 192.0.2.77: not an address of this host now",
            ),
            (
                Source { interface: Some("nosuch0".into()), ..Source::default() },
                "--upstream-source nosuch0: no such interface now",
            ),
        ] {
            let problem = source.bind(&SockRef::from(&socket()), to).unwrap_err();
            assert_eq!(problem, expected);
        }
        let source = Source {
            v4: Some(NOBODYS),
            v6: Some(Ipv6Addr::LOCALHOST),
            interface: Some("nosuch0".into()),
        };
        let missing = source.missing();
        let expected = "--upstream-source 192.0.2.77: is no address of this host now; ";
        assert!(missing.len() == 1 && missing[0].starts_with(expected), "{missing:?}");
    }

    #[test]
    fn an_address_may_be_bound_before_it_is_there() {
        let address = SocketAddr::from((NOBODYS, 0));
        assert!(bind(&SockRef::from(&socket()), address, false).is_err());
        assert!(bind(&SockRef::from(&socket()), address, true).unwrap());
        assert!(!bind(&SockRef::from(&socket()), "127.0.0.1:0".parse().unwrap(), true).unwrap());
    }
}
