//! Sockets that whoever started the process has bound for it: `sd_listen_fds(3)`, socket activation.
//!
//! They come as descriptors of any kind, in any order. DNS takes UDP and TCP on one address, so that they are
//! put together in pairs, and whatever is left over is an error: half a service is hard to notice.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;
use socket2::SockRef;

use super::os_error::system_error;

/// The two sockets of an address.
#[derive(Debug)]
pub struct Pair {
    /// The address that both are bound to.
    pub address: SocketAddr,
    /// The socket for UDP.
    pub udp: UdpSocket,
    /// The socket for TCP, which listens.
    pub tcp: TcpListener,
}

/// Takes the sockets over that are for this process, with close-on-exec set, in the order in which the UDP ones were handed over. The
/// error is one line for the user.
pub fn take() -> Result<Vec<Pair>, String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    // What is meant for another process, which left it in the environment, is none of ours.
    if number(&variable("LISTEN_PID")) != Some(i64::from(std::process::id())) {
        return Ok(Vec::new());
    }
    if let Some(sockets) = number(&variable("LISTEN_FDS"))
        && sockets > SOCKETS_MAX
    {
        return Err(format!(
            "LISTEN_FDS: is {sockets}; at most {SOCKETS_MAX} sockets are taken over"
        ));
    }
    if let Some(first) = number(&variable("LISTEN_FDS_FIRST_FD"))
        && !(0..=SOCKETS_MAX).contains(&first)
    {
        return Err(format!(
            "LISTEN_FDS_FIRST_FD: is {first}; a descriptor from 0 to {SOCKETS_MAX} was expected"
        ));
    }
    let mut given = ListenFd::from_env();
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for index in 0..given.len() {
        let wrong = |what: &str| {
            format!(
                "LISTEN_FDS: socket {} of {} {what}; give a UDP and a TCP socket for each address \
                 (ListenDatagram= and ListenStream=), and no others",
                index + 1,
                given.len()
            )
        };
        let no_socket = wrong("is not for UDP or TCP");
        let no_listener = wrong("is a TCP connection, as Accept=yes has it, or does not listen");
        let no_server = wrong("is a UDP socket that one client alone can send to");
        if let Ok(Some(socket)) = given.take_udp_socket(index) {
            if socket.peer_addr().is_ok() {
                return Err(no_server);
            }
            udp.push(named(socket, UdpSocket::local_addr)?);
        } else if let Ok(Some(socket)) = given.take_tcp_listener(index) {
            if !SockRef::from(&socket).is_listener().unwrap_or(false) {
                return Err(no_listener);
            }
            tcp.push(named(socket, TcpListener::local_addr)?);
        } else {
            return Err(no_socket);
        }
    }
    pairs(udp, tcp)
}

/// A socket with its address, if it takes one address family alone.
fn named<S: std::os::fd::AsFd>(
    socket: S,
    address: impl Fn(&S) -> std::io::Result<SocketAddr>,
) -> Result<(SocketAddr, S), String> {
    let address = address(&socket).map_err(|error| {
        format!("LISTEN_FDS: a socket has no address: {}", system_error(&error))
    })?;
    // Clients would appear as ::ffff:a.b.c.d, and get what is for IPv6.
    if let SocketAddr::V6(v6) = address
        && takes_ipv4(*v6.ip())
        && !SockRef::from(&socket).only_v6().unwrap_or(false)
    {
        return Err(format!(
            "LISTEN_FDS: {address} takes IPv4 as well; write BindIPv6Only=ipv6-only into the socket unit, and \
             0.0.0.0 besides if IPv4 is to be served"
        ));
    }
    Ok((address, socket))
}

/// Whether a socket with this address is for IPv4, too, unless it is told otherwise.
fn takes_ipv4(ip: Ipv6Addr) -> bool {
    ip.is_unspecified() || ip.to_ipv4_mapped().is_some()
}

fn pairs(
    udp: Vec<(SocketAddr, UdpSocket)>,
    mut tcp: Vec<(SocketAddr, TcpListener)>,
) -> Result<Vec<Pair>, String> {
    let half = |address: SocketAddr, missing: &str, directive: &str| {
        format!(
            "LISTEN_FDS: {address} has no {missing} socket, and DNS takes both; write \
             {directive}={address} into the socket unit"
        )
    };
    let mut pairs: Vec<Pair> = Vec::new();
    for (address, udp) in udp {
        match tcp.iter().position(|(other, _)| *other == address) {
            Some(index) => {
                let (_, tcp) = tcp.swap_remove(index);
                pairs.push(Pair { address, udp, tcp });
            }
            None if pairs.iter().any(|pair| pair.address == address) => {
                return Err(format!(
                    "LISTEN_FDS: {address} is given twice; give each address once"
                ));
            }
            None => return Err(half(address, "TCP", "ListenStream")),
        }
    }
    match tcp.first() {
        Some((address, _)) => Err(half(*address, "UDP", "ListenDatagram")),
        None => Ok(pairs),
    }
}

/// As many descriptors as a process usually may have.
const SOCKETS_MAX: i64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (SocketAddr, UdpSocket, TcpListener) {
        // Another program may have the port that was picked, for UDP only.
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp.local_addr().unwrap();
            if let Ok(udp) = UdpSocket::bind(address) {
                return (address, udp, tcp);
            }
        }
    }

    #[test]
    fn sockets_are_put_together_by_their_address() {
        let ((a, udp_a, tcp_a), (b, udp_b, tcp_b)) = (both(), both());
        let pairs = pairs(vec![(a, udp_a), (b, udp_b)], vec![(b, tcp_b), (a, tcp_a)]).unwrap();
        assert_eq!(pairs.iter().map(|pair| pair.address).collect::<Vec<_>>(), [a, b]);
        for Pair { address, udp, tcp } in pairs {
            assert_eq!([udp.local_addr().unwrap(), tcp.local_addr().unwrap()], [address; 2]);
        }
    }

    #[test]
    fn a_missing_half_is_named_with_what_brings_it() {
        let (address, udp, tcp) = both();
        let line = pairs(vec![(address, udp)], Vec::new()).unwrap_err();
        assert!(line.contains("no TCP socket"), "{line}");
        assert!(line.contains(&format!("ListenStream={address} ")), "{line}");
        let line = pairs(Vec::new(), vec![(address, tcp)]).unwrap_err();
        assert!(line.contains("no UDP socket"), "{line}");
        assert!(line.contains(&format!("ListenDatagram={address} ")), "{line}");
    }

    #[test]
    fn sockets_of_both_families_are_refused() {
        use socket2::{Domain, Socket, Type};

        for (only_v6, is_refused) in [(false, true), (true, false)] {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(only_v6).unwrap();
            socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            let line = named(UdpSocket::from(socket), UdpSocket::local_addr).err();
            assert_eq!(line.is_some(), is_refused, "{line:?}");
            assert!(line.is_none_or(|line| line.contains("BindIPv6Only=ipv6-only")));
        }
        // No client over IPv4 reaches it.
        let one = UdpSocket::bind("[::1]:0").unwrap();
        assert!(named(one, UdpSocket::local_addr).is_ok());
    }

    #[test]
    fn nothing_is_taken_where_nothing_was_given() {
        assert!(take().unwrap().is_empty());
    }
}
