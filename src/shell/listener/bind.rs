//! Binding the sockets of a listening address, and what to do if that fails.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use mio::net::{TcpListener, UdpSocket};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockRef, Type};

use crate::config::SocketLimits;
use crate::host::inherited::Pair;
use crate::host::network::interfaces::{self, Unusable};
use crate::host::network::source;
use crate::host::os_error::system_error;
use crate::shell::datagram::{self, Calls};

/// How an address is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Other processes may listen there, too.
    pub(crate) reuse_port: bool,
    /// The host need not have the address yet.
    pub(crate) freebind: bool,
}

/// The sockets of a listening address.
pub(super) struct Bound {
    /// The address with its actual port.
    pub(super) address: SocketAddr,
    pub(super) udp: UdpSocket,
    /// Octets the kernel granted for datagrams that wait, bookkeeping included.
    pub(super) receive_buffer: usize,
    pub(super) tcp: TcpListener,
}

/// Binds `address` for UDP and TCP, as [`Listener::bind`](super::Listener::bind) says.
pub(super) fn bind(
    address: SocketAddr,
    Options { reuse_port, freebind }: Options,
    limits: &SocketLimits,
) -> Result<Bound, String> {
    let reuse = match (reuse_port, address.port()) {
        (false, _) => Reuse::Never,
        // The kernel might pick a port that others share already.
        (true, 0) => Reuse::OnceBound,
        (true, _) => Reuse::Always,
    };
    if is_broadcast(address) {
        return Err(format!(
            "cannot listen on {address}: the broadcast address of a network, not an address of this \
             host: `ip address` shows those it has"
        ));
    }
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let (udp, receive_buffer, is_early) = bind_udp(address, reuse, freebind, limits)
            .map_err(|failed| failed.explain(address, "UDP", reuse))?;
        let bound =
            udp.local_addr().map_err(|error| Failed::from(error).explain(address, "UDP", reuse))?;
        match bind_tcp(bound, reuse, freebind, limits) {
            // The port that was free for UDP is taken for TCP.
            Err(failed) if failed.error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(failed) => return Err(failed.explain(bound, "TCP", reuse)),
            Ok(tcp) => {
                if is_early {
                    log_early(bound);
                }
                return Ok(Bound { address: bound, udp, receive_buffer, tcp });
            }
        }
    }
}

/// Gives sockets that were handed over the options of those that are bound here. Their owner goes on having them: what
/// is left unread at the end waits for the next process.
pub(super) fn adopt(pair: Pair, limits: &SocketLimits) -> Result<Bound, String> {
    let Pair { address, udp, tcp } = pair;
    let prepare = || {
        let (udp, tcp) = (SockRef::from(&udp), SockRef::from(&tcp));
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let granted = prepare_udp(&udp, address, limits)?;
        set_client_buffers(&tcp, limits)?;
        // The queue of a socket that listens is as long as the last call says.
        tcp.listen(limits.backlog.into())?;
        Ok(granted)
    };
    let receive_buffer = prepare().map_err(|error: io::Error| {
        format!(
            "LISTEN_FDS: {address}: the sockets that were handed over cannot be served: {}",
            system_error(&error)
        )
    })?;
    let (udp, tcp) = (UdpSocket::from_std(udp), TcpListener::from_std(tcp));
    Ok(Bound { address, udp, receive_buffer, tcp })
}

/// Finds the system calls that there are for UDP. The error is one line for the user.
pub(crate) fn find_calls(address: SocketAddr) -> Result<Calls, String> {
    match new_socket(address, Type::DGRAM, Protocol::UDP) {
        Ok(socket) => Calls::find(socket.as_fd()),
        // The listener will fail likewise, and say why.
        Err(_) => Ok(Calls::USUAL),
    }
}

/// When `SO_REUSEPORT` is set on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    /// Before it is bound.
    Always,
    Never,
    /// After it is bound.
    OnceBound,
}

fn bind_udp(
    address: SocketAddr,
    reuse: Reuse,
    freebind: bool,
    limits: &SocketLimits,
) -> Result<(UdpSocket, usize, bool), Failed> {
    // SO_REUSEADDR is not set: for UDP it lets a second program take the port and the queries with it.
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    let granted = prepare_udp(&socket, address, limits)?;
    let is_early = bind_socket(&socket, address, reuse, freebind)?;
    Ok((UdpSocket::from_std(socket.into()), granted, is_early))
}

/// Sets the options of a socket for UDP. Returns how many octets the kernel granted for datagrams that wait.
fn prepare_udp(
    socket: &socket2::Socket,
    address: SocketAddr,
    limits: &SocketLimits,
) -> io::Result<usize> {
    socket.set_recv_buffer_size(limits.datagram_receive_asked)?;
    socket.set_send_buffer_size(limits.datagram_send_asked)?;
    if let Err(error) = answer_hosts_only(socket, address) {
        log::debug!("{address} UDP: socket options: {}", system_error(&error));
    }
    if address.ip().is_unspecified() {
        datagram::report_local_address(socket.as_fd(), &address)?;
    }
    socket.recv_buffer_size()
}

/// Has answers leave in fragments only if their size needs it: whoever forges an ICMP "fragmentation
/// needed" would have all of them do so, and then put in a second fragment of his own. Also has the socket
/// get no datagrams to groups that other programs have joined.
fn answer_hosts_only(socket: &socket2::Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => {
            sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT)?;
            socket.set_multicast_all_v4(false)
        }
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::OMIT)?;
            socket.set_multicast_all_v6(false)
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    reuse: Reuse,
    freebind: bool,
    limits: &SocketLimits,
) -> Result<TcpListener, Failed> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // Connections of a former run, in TIME_WAIT, would hold the port for a minute.
    socket.set_reuse_address(true)?;
    set_client_buffers(&socket, limits)?;
    bind_socket(&socket, address, reuse, freebind)?;
    socket.listen(limits.backlog.into())?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The sockets of clients inherit the sizes of buffers. The system would let each grow to megabytes, for answers
/// that nobody reads.
fn set_client_buffers(socket: &socket2::Socket, limits: &SocketLimits) -> io::Result<()> {
    socket.set_send_buffer_size(limits.client_asked)?;
    socket.set_recv_buffer_size(limits.client_asked)
}

/// Returns whether the host does not have the address yet.
fn bind_socket(
    socket: &socket2::Socket,
    address: SocketAddr,
    reuse: Reuse,
    freebind: bool,
) -> Result<bool, Failed> {
    if reuse == Reuse::Always {
        socket.set_reuse_port(true)?;
    }
    let is_early = source::bind(&SockRef::from(socket), address, freebind)
        .map_err(|error| Failed { by_bind: true, error })?;
    if reuse == Reuse::OnceBound {
        socket.set_reuse_port(true)?;
    }
    Ok(is_early)
}

/// Says that an address is bound that may be a slip of the pen.
pub(crate) fn log_early(address: SocketAddr) {
    log::warn!(
        "{address}: not an address of this host now, and served once it is (--freebind); `ip address` shows those it \
         has"
    );
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // One address family per socket, whatever net.ipv6.bindv6only says: `[::]` beside `0.0.0.0`
        // must bind, and no client may appear as ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether this is the broadcast address of a network of this host: it can be bound, and UDP queries
/// that are sent to it arrive, but no connection does, and no answer can leave from it.
fn is_broadcast(address: SocketAddr) -> bool {
    if !address.is_ipv4() || address.ip().is_unspecified() {
        return false;
    }
    // To connect a datagram socket sends nothing.
    let connected = new_socket(address, Type::DGRAM, Protocol::UDP)
        .and_then(|socket| socket.connect(&address.into()));
    connected.is_err_and(|error| is_access(&error))
}

/// Whether an error is EACCES, not EPERM, which is the same kind to the standard library.
fn is_access(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ACCESS)
}

/// What kept a socket from listening.
#[derive(Debug)]
struct Failed {
    /// The error came from bind(2), not from another call.
    by_bind: bool,
    error: io::Error,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { by_bind: false, error }
    }
}

impl Failed {
    /// The error in one line, with what of this host explains it.
    fn explain(&self, address: SocketAddr, transport: &str, reuse: Reuse) -> String {
        let host = Host {
            unprivileged_from: unprivileged_from(),
            unusable: interfaces::unusable(address),
        };
        explain(address, transport, reuse, self, host)
    }
}

/// What of the host decides why an address cannot be listened on.
#[derive(Clone, Copy, Debug)]
struct Host {
    /// The first port that everyone may bind.
    unprivileged_from: u16,
    unusable: Option<Unusable>,
}

/// The first port that everyone may bind.
fn unprivileged_from() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// The error in one line: the address, the cause, the remedy.
fn explain(
    address: SocketAddr,
    transport: &str,
    reuse: Reuse,
    failed: &Failed,
    host: Host,
) -> String {
    let Failed { by_bind, error } = failed;
    let remedy = match (error.kind(), address.port()) {
        (io::ErrorKind::PermissionDenied, port)
            if *by_bind && is_access(error) && (1..host.unprivileged_from).contains(&port) =>
        {
            RIGHT_TO_BIND
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "; a sandbox or a security module of this host forbids it"
        }
        (io::ErrorKind::AddrInUse, 0) => "; no port is free: `ss -ulpn` shows who has them",
        (io::ErrorKind::AddrInUse, _) if reuse == Reuse::Always => {
            "; who has it does not share it with this process: all on one address need \
             --reuse-port on and the same user (`ss -tulpne` shows program and uid)"
        }
        (io::ErrorKind::AddrInUse, 53) if is_resolved_in(address.ip()) => {
            "; `ss -tulpn` shows who has it: choose another address with --listen; if it is systemd-resolved, \
             DNSStubListener=no in /etc/systemd/resolved.conf frees it"
        }
        (io::ErrorKind::AddrInUse, _) => {
            "; another program, or another --listen, has it (`ss -tulpn` shows who): choose another \
             address or port with --listen"
        }
        (io::ErrorKind::AddrNotAvailable, _) => match host.unusable {
            Some(Unusable::Duplicate) => {
                "; duplicate address detection found it on another host: give this host another"
            }
            Some(Unusable::Tentative) => {
                "; it is still tentative (duplicate address detection): is its interface up?"
            }
            None => {
                "; not an address of this host: `ip address` shows those it has; --freebind on serves it once it is one"
            }
        },
        _ => "",
    };
    format!("cannot listen on {address} {transport}: {}{remedy}", system_error(error))
}

/// What to do about an error of bind(2) for this port that may be one of rights, or nothing.
pub(crate) fn right_to_bind(port: u16, error: &io::Error) -> &'static str {
    let is_reserved = (1..unprivileged_from()).contains(&port);
    if is_access(error) && is_reserved { RIGHT_TO_BIND } else { "" }
}

const RIGHT_TO_BIND: &str = "; run as root (in a container, `docker run --user 0`), `sudo setcap \
                             cap_net_bind_service=+ep` the binary, or set net.ipv4.ip_unprivileged_port_start=53";

/// Whether systemd-resolved listens on this address, or on one that this stands for.
fn is_resolved_in(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if matches!(v4.octets(), [0, 0, 0, 0] | [127, 0, 0, 53 | 54]))
}

/// Ports tried before giving up. A free ephemeral port is taken for the other transport rarely: 16 times in
/// a row, never.
const PORT_TRIES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLVED: &str =
        "shows who has it: choose another address with --listen; if it is systemd-resolved, ";

    #[test]
    fn causes_have_their_remedies() {
        let (access, in_use, absent) = (Errno::ACCESS, Errno::ADDRINUSE, Errno::ADDRNOTAVAIL);
        for (address, errno, by_bind, unprivileged_from, unusable, expected) in [
            (
                "127.0.0.1:53",
                access,
                true,
                1024,
                None,
                "cap_net_bind_service=+ep` the binary, or set net.ipv4.ip_unprivileged_port_start=53",
            ),
            ("[::1]:1023", access, true, 1024, None, "cap_net_bind_service"),
            ("127.0.0.1:1999", access, true, 2000, None, "cap_net_bind_service"),
            ("127.0.0.1:53", access, true, 53, None, "a sandbox or a security module"),
            ("127.0.0.1:5300", access, true, 1024, None, "a sandbox or a security module"),
            ("127.0.0.1:53", access, false, 1024, None, "a sandbox or a security module"),
            ("127.0.0.1:53", Errno::PERM, true, 1024, None, "a sandbox or a security module"),
            ("127.0.0.53:53", in_use, true, 1024, None, RESOLVED),
            ("127.0.0.54:53", in_use, true, 1024, None, RESOLVED),
            ("0.0.0.0:53", in_use, true, 1024, None, RESOLVED),
            ("127.0.0.1:53", in_use, true, 1024, None, "has it (`ss -tulpn` shows who)"),
            ("192.168.1.2:53", in_use, true, 1024, None, "has it (`ss -tulpn` shows who)"),
            ("[::]:53", in_use, true, 1024, None, "has it (`ss -tulpn` shows who)"),
            ("0.0.0.0:5300", in_use, true, 1024, None, "has it (`ss -tulpn` shows who)"),
            ("[fd00::1]:53", absent, true, 1024, None, "not an address of this host"),
            ("[fd00::1]:53", absent, true, 1024, Some(Unusable::Tentative), "still tentative"),
            ("[fd00::1]:53", absent, true, 1024, Some(Unusable::Duplicate), "on another host"),
        ] {
            let failed = Failed { by_bind, error: errno.into() };
            let host = Host { unprivileged_from, unusable };
            let line = explain(address.parse().unwrap(), "UDP", Reuse::Never, &failed, host);
            let start = format!("cannot listen on {address} UDP: ");
            assert!(line.starts_with(&start) && line.contains(expected), "{line}: {expected}");
        }
    }
}
