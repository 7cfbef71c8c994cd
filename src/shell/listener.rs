//! One address that clients ask, over UDP and TCP on the same port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Type};

use crate::config::SocketLimits;
use crate::forwarder::DatagramPath;
use crate::host::network::interfaces::{self, Unusable};
use crate::host::os_error::{Logged, system_error};
use crate::shell::datagram::{self, Buffers, Calls, DatagramSocket, Sent};

/// The two sockets of a listening address, and what is known to wait in them: epoll tells of
/// something new only, so what was left must be remembered.
pub(crate) struct Listener {
    address: SocketAddr,
    udp: DatagramSocket,
    receive_buffer: usize,
    /// `None` once no more queries are taken.
    tcp: Option<TcpListener>,
    sharing: Sharing,
    readable: bool,
    acceptable: bool,
    blocked: bool,
    logged: Logged,
}

/// Whether other processes may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    No,
    Yes,
    /// They get what comes from now on.
    Left,
}

impl Listener {
    /// Binds `address` for UDP and TCP; port 0 picks one that is free for both. `index` is this
    /// listener's number in [`DatagramPath`]. With `reuse_port` other processes may do the same. `calls`
    /// are those of [`find_calls`]. The error is one line for the user.
    pub(crate) fn bind(
        index: u16,
        address: SocketAddr,
        reuse_port: bool,
        calls: Calls,
        limits: &SocketLimits,
    ) -> Result<Self, String> {
        let reuse = match (reuse_port, address.port()) {
            (false, _) => Reuse::Never,
            // Else the kernel may pick a port that others share already.
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
            let (udp, receive_buffer) = bind_udp(address, reuse, limits)
                .map_err(|failed| failed.explain(address, "UDP", reuse))?;
            let bound = udp
                .local_addr()
                .map_err(|error| Failed::from(error).explain(address, "UDP", reuse))?;
            match bind_tcp(bound, reuse, limits) {
                // The port that was free for UDP is taken for TCP.
                Err(failed) if failed.error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(failed) => return Err(failed.explain(bound, "TCP", reuse)),
                Ok(tcp) => {
                    return Ok(Self {
                        address: bound,
                        udp: DatagramSocket::new(index, udp, calls),
                        receive_buffer,
                        tcp: Some(tcp),
                        sharing: if reuse_port { Sharing::Yes } else { Sharing::No },
                        readable: false,
                        acceptable: false,
                        blocked: false,
                        logged: Logged::default(),
                    });
                }
            }
        }
    }

    /// The address it is bound to, with its actual port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Octets the kernel granted for datagrams that wait, bookkeeping included.
    pub(crate) fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Has events of the UDP socket come as `udp`, of the TCP socket as `tcp`.
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        udp: Token,
        tcp: Token,
    ) -> io::Result<()> {
        // Not for writing: the kernel would report each datagram that has left as an edge, one more
        // turn of the loop for every answer.
        registry.register(&mut self.udp, udp, Interest::READABLE)?;
        match &mut self.tcp {
            Some(listener) => registry.register(listener, tcp, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// An event of the UDP socket.
    pub(crate) fn udp_ready(
        &mut self,
        registry: &Registry,
        token: Token,
        writable: bool,
    ) -> io::Result<()> {
        // An error is read like a datagram.
        self.readable = true;
        if self.blocked && writable {
            self.blocked = false;
            registry.reregister(&mut self.udp, token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// An event of the TCP socket.
    pub(crate) fn tcp_ready(&mut self) {
        self.acceptable = true;
    }

    /// Datagrams may wait.
    pub(crate) fn is_readable(&self) -> bool {
        // The kernel may have been about to give it one when it left.
        self.readable && (self.tcp.is_some() || self.sharing == Sharing::Left)
    }

    /// Connections may wait.
    pub(crate) fn is_acceptable(&self) -> bool {
        self.acceptable && self.tcp.is_some()
    }

    /// Datagrams cannot be sent until the socket is writable.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Receives up to `batches_max` batches; see [`Self::is_readable`] for whether more may wait. Returns
    /// how many datagrams were [ignored](DatagramSocket::receive).
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        buffers: &mut Buffers,
        batches_max: usize,
        mut sink: impl FnMut(DatagramPath, &[u8], bool),
    ) -> usize {
        let (mut errors, mut ignored) = (0, 0);
        for _ in 0..batches_max {
            match self.udp.receive(buffers, &mut sink) {
                Ok(received) => {
                    ignored += received.ignored;
                    if received.count < buffers.batch() {
                        // It is empty, and epoll tells of the next.
                        self.readable = false;
                        return ignored;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return ignored;
                }
                // Reading a socket's pending error clears it; what waits behind it is read next.
                Err(error) => {
                    self.log(now, "UDP: receiving", &error);
                    errors += 1;
                }
            }
        }
        // A socket that gives nothing but errors must not keep the loop busy.
        self.readable = errors < batches_max;
        ignored
    }

    /// Sends a batch of `datagrams`. If the socket takes no more, `token` comes once it does.
    pub(crate) fn send<'a>(
        &mut self,
        now: Instant,
        registry: &Registry,
        token: Token,
        buffers: &mut Buffers,
        datagrams: impl Iterator<Item = (DatagramPath, &'a [u8])>,
    ) -> io::Result<Sent> {
        let sent = self.udp.send(buffers, datagrams);
        if let Some(error) = &sent.last_error {
            self.log(now, "UDP: not sent", error);
        }
        if sent.blocked {
            self.blocked = true;
            // Registering anew reports a socket that has become writable meanwhile, too.
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.reregister(&mut self.udp, token, both)?;
        }
        Ok(sent)
    }

    /// Accepts a connection; `None` when no more wait. An error, which was logged, means that none can be
    /// accepted for now, most likely for want of file descriptors.
    pub(crate) fn accept(&mut self, now: Instant) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        while self.acceptable
            && let Some(tcp) = &self.tcp
        {
            match tcp.accept() {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.acceptable = false,
                    // That client is gone; the next one waits.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        self.log(now, "TCP: new clients wait", &error);
                        return Err(error);
                    }
                },
            }
        }
        Ok(None)
    }

    fn log(&mut self, now: Instant, what: &'static str, error: &io::Error) {
        let level = self.logged.level(now, what, error);
        log::log!(level, "{} {what}: {}", self.address, system_error(error));
    }

    /// Leaves a shared address to the other processes. What has come is still received, and answers
    /// are sent as before: a socket that is merely not read would go on getting its part.
    pub(crate) fn leave(&mut self) {
        if self.sharing != Sharing::Yes {
            return;
        }
        self.sharing = Sharing::Left;
        // Itself, of all sources, sends it nothing, and can be reached.
        let mut source = self.address;
        if source.ip().is_unspecified() {
            source.set_ip(match source {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        if let Err(error) = self.udp.connect(source) {
            log::warn!(
                "{} UDP: this process still gets queries that the others should have, until it ends: {}",
                self.address,
                system_error(&error)
            );
        }
    }

    /// What waits is found by the next receive and accept, whatever events have told.
    pub(crate) fn look_again(&mut self) {
        self.readable = true;
        self.acceptable = true;
    }

    /// Takes no more queries: datagrams are left unread, and the kernel refuses new connections.
    /// Answers are sent as before.
    pub(crate) fn stop(&mut self) {
        self.tcp = None;
    }
}

/// Finds the system calls that there are for UDP. The error is one line for the user.
pub(crate) fn find_calls(address: SocketAddr) -> Result<Calls, String> {
    match new_socket(address, Type::DGRAM, Protocol::UDP) {
        Ok(socket) => Calls::find(socket.as_fd()),
        // As the listener will tell.
        Err(_) => Ok(Calls::USUAL),
    }
}

/// When `SO_REUSEPORT` is set on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    Always,
    Never,
    OnceBound,
}

fn bind_udp(
    address: SocketAddr,
    reuse: Reuse,
    limits: &SocketLimits,
) -> Result<(UdpSocket, usize), Failed> {
    // No SO_REUSEADDR: for UDP it lets a second program take the port and the queries with it.
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(limits.datagram_receive_asked)?;
    socket.set_send_buffer_size(limits.datagram_send_asked)?;
    if let Err(error) = answer_hosts_only(&socket, address) {
        log::debug!("{address} UDP: socket options: {}", system_error(&error));
    }
    if address.ip().is_unspecified() {
        datagram::report_local_address(socket.as_fd(), &address)?;
    }
    bind(&socket, address, reuse)?;
    let granted = socket.recv_buffer_size()?;
    Ok((UdpSocket::from_std(socket.into()), granted))
}

/// Has answers leave in fragments only if their size needs it: whoever forges an ICMP "fragmentation
/// needed" would have all of them do so, and then put in a second fragment of his own. And has the socket
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
    limits: &SocketLimits,
) -> Result<TcpListener, Failed> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // Else the connections of a former run, in TIME_WAIT, hold the port for a minute.
    socket.set_reuse_address(true)?;
    // Inherited by the clients' sockets. The system would let each grow to megabytes, for answers
    // that nobody reads.
    socket.set_send_buffer_size(limits.client_asked)?;
    socket.set_recv_buffer_size(limits.client_asked)?;
    bind(&socket, address, reuse)?;
    socket.listen(limits.backlog.into())?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bind(socket: &socket2::Socket, address: SocketAddr, reuse: Reuse) -> Result<(), Failed> {
    if reuse == Reuse::Always {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into()).map_err(|error| Failed { by_bind: true, error })?;
    if reuse == Reuse::OnceBound {
        socket.set_reuse_port(true)?;
    }
    Ok(())
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
    // Nothing is sent by that.
    let connected = new_socket(address, Type::DGRAM, Protocol::UDP)
        .and_then(|socket| socket.connect(&address.into()));
    connected.is_err_and(|error| is_access(&error))
}

/// EACCES, not EPERM, which is the same kind to the standard library.
fn is_access(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ACCESS)
}

/// What kept a socket from listening.
#[derive(Debug)]
struct Failed {
    /// bind(2) said it; else another call did.
    by_bind: bool,
    error: io::Error,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { by_bind: false, error }
    }
}

impl Failed {
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

fn unprivileged_from() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// One line: the address, the cause, the remedy.
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
            "; run as root, give the binary CAP_NET_BIND_SERVICE, or set \
             net.ipv4.ip_unprivileged_port_start"
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
            "; another program has it, likely systemd-resolved: choose another address of this host \
             with --listen, or free it by DNSStubListener=no in /etc/systemd/resolved.conf (`ss \
             -tulpn` shows who has it)"
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
            None => "; not an address of this host: `ip address` shows those it has",
        },
        _ => "",
    };
    format!("cannot listen on {address} {transport}: {}{remedy}", system_error(error))
}

/// Whether systemd-resolved listens on this address, or on one that this stands for.
fn is_resolved_in(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if matches!(v4.octets(), [0, 0, 0, 0] | [127, 0, 0, 53 | 54]))
}

/// A free ephemeral port is taken for the other transport rarely: 16 times in a row, never.
const PORT_TRIES: usize = 16;

#[cfg(test)]
mod tests {
    use std::net;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::config::Size;

    const BATCH: usize = 8;

    fn bind(index: u16, address: SocketAddr) -> Result<Listener, String> {
        Listener::bind(index, address, false, Calls::USUAL, &Size::Small.sockets())
    }

    #[test]
    fn port_0_is_one_port_for_both() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let address: SocketAddr = address.parse().unwrap();

            let listener = bind(0, address).unwrap();

            let tcp = listener.tcp.as_ref().unwrap().local_addr().unwrap();
            assert_ne!(tcp.port(), 0);
            assert_eq!(listener.udp.local_addr().unwrap(), tcp);
            assert_eq!(listener.address(), tcp);
            assert!(listener.receive_buffer() > 0);
        }
    }

    #[test]
    fn the_wildcards_of_both_families_share_a_port() {
        // Another program may have the port that was picked, for IPv6 only.
        let shared = (0..16).any(|_| {
            let v4 = bind(0, "0.0.0.0:0".parse().unwrap()).unwrap();
            let v6 = format!("[::]:{}", v4.address().port()).parse().unwrap();
            bind(1, v6).is_ok_and(|listener| listener.address() == v6)
        });

        assert!(shared);
    }

    #[test]
    fn a_taken_port_is_named_with_its_transport() {
        let udp = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = udp.local_addr().unwrap();
        let error = bind(0, taken).err().unwrap();
        let expected = format!(
            "cannot listen on {taken} UDP: address in use; another program, or another --listen, \
             has it (`ss -tulpn` shows who): choose another address or port with --listen"
        );
        assert_eq!(error, expected);

        // Another program may have the port that was picked, for UDP only.
        let named = (0..16).any(|_| {
            let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let taken = tcp.local_addr().unwrap();
            let error = bind(0, taken).err().unwrap();
            error.starts_with(&format!("cannot listen on {taken} TCP: address in use; another"))
        });
        assert!(named);
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        // TEST-NET-3 (RFC 5737), which no host has.
        let error = bind(0, "203.0.113.7:5300".parse().unwrap()).err().unwrap();

        assert_eq!(
            error,
            "cannot listen on 203.0.113.7:5300 UDP: address not available; not an address of this \
             host: `ip address` shows those it has"
        );
    }

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
                "CAP_NET_BIND_SERVICE, or set net.ipv4.ip_un",
            ),
            ("[::1]:1023", access, true, 1024, None, "CAP_NET_BIND_SERVICE"),
            ("127.0.0.1:1999", access, true, 2000, None, "CAP_NET_BIND_SERVICE"),
            ("127.0.0.1:53", access, true, 53, None, "a sandbox or a security module"),
            ("127.0.0.1:5300", access, true, 1024, None, "a sandbox or a security module"),
            ("127.0.0.1:53", access, false, 1024, None, "a sandbox or a security module"),
            ("127.0.0.1:53", Errno::PERM, true, 1024, None, "a sandbox or a security module"),
            ("127.0.0.53:53", in_use, true, 1024, None, "systemd-resolved"),
            ("127.0.0.54:53", in_use, true, 1024, None, "systemd-resolved"),
            ("0.0.0.0:53", in_use, true, 1024, None, "systemd-resolved"),
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

    #[test]
    fn what_a_bound_left_is_remembered() {
        let mut poll = Poll::new().unwrap();
        let mut listener = bind(0, "127.0.0.1:0".parse().unwrap()).unwrap();
        listener.register(poll.registry(), Token(0), Token(1)).unwrap();
        let client = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let count = BATCH + 1;
        for _ in 0..count {
            client.send_to(b"query", listener.address()).unwrap();
        }
        let streams: Vec<_> =
            (0..3).map(|_| net::TcpStream::connect(listener.address()).unwrap()).collect();
        while !listener.is_readable() || !listener.is_acceptable() {
            for token in wait(&mut poll) {
                match token {
                    Token(0) => listener.udp_ready(poll.registry(), token, false).unwrap(),
                    _ => listener.tcp_ready(),
                }
            }
        }
        let mut buffers = Buffers::new(BATCH);
        let mut received = 0;

        let now = Instant::now();
        listener.receive(now, &mut buffers, 1, |_, _, _| received += 1);
        assert_eq!((received, listener.is_readable()), (BATCH, true));
        listener.receive(now, &mut buffers, 2, |_, _, _| received += 1);
        assert_eq!((received, listener.is_readable()), (count, false));

        for _ in &streams {
            assert!(listener.accept(Instant::now()).unwrap().is_some());
            assert!(listener.is_acceptable());
        }
        assert!(listener.accept(Instant::now()).unwrap().is_none());
        assert!(!listener.is_acceptable());
    }

    #[test]
    fn one_that_was_stopped_takes_nothing() {
        let mut listener = bind(0, "127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = net::TcpStream::connect(listener.address()).unwrap();

        listener.look_again();
        listener.stop();

        assert!(!listener.is_readable());
        assert!(!listener.is_acceptable());
        assert!(listener.accept(Instant::now()).unwrap().is_none());
    }

    fn wait(poll: &mut Poll) -> Vec<Token> {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        assert!(!events.is_empty(), "no event came");
        events.iter().map(mio::event::Event::token).collect()
    }
}
