//! One address that clients ask, over UDP and TCP on the same port.

mod bind;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::config::SocketLimits;
use crate::forwarder::DatagramPath;
use crate::host::inherited::Pair;
use crate::host::os_error::{Logged, system_error};
use crate::shell::datagram::{Buffers, Calls, DatagramSocket, Sent};
use bind::Bound;

pub(crate) use bind::{Options, find_calls, log_early, right_to_bind};

/// The two sockets of a listening address, and what is known to wait in them: epoll tells of
/// something new only, so what was left must be remembered.
pub(crate) struct Listener {
    address: SocketAddr,
    udp: DatagramSocket,
    receive_buffer: usize,
    /// The socket for TCP; `None` once no more queries are taken.
    tcp: Option<TcpListener>,
    sharing: Sharing,
    /// Datagrams may wait.
    readable: bool,
    /// Connections may wait.
    acceptable: bool,
    /// Datagrams cannot be sent until the socket is writable.
    blocked: bool,
    logged: Logged,
}

/// Whether other processes may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    No,
    Yes,
    /// The other processes get what comes from now on.
    Left,
}

impl Listener {
    /// Binds `address` for UDP and TCP; port 0 picks one that is free for both. `index` is this
    /// listener's number in [`DatagramPath`]. `calls` are those of [`find_calls`]. The error is one line for the
    /// user.
    pub(crate) fn bind(
        index: u16,
        address: SocketAddr,
        options: Options,
        calls: Calls,
        limits: &SocketLimits,
    ) -> Result<Self, String> {
        let sharing = if options.reuse_port { Sharing::Yes } else { Sharing::No };
        Ok(Self::over(bind::bind(address, options, limits)?, index, sharing, calls))
    }

    /// Serves on sockets that were handed over, as those of [`Self::bind`].
    pub(crate) fn adopt(
        index: u16,
        pair: Pair,
        calls: Calls,
        limits: &SocketLimits,
    ) -> Result<Self, String> {
        // To leave would connect the socket, for the next process, too.
        Ok(Self::over(bind::adopt(pair, limits)?, index, Sharing::No, calls))
    }

    fn over(bound: Bound, index: u16, sharing: Sharing, calls: Calls) -> Self {
        let Bound { address, udp, receive_buffer, tcp } = bound;
        Self {
            address,
            udp: DatagramSocket::new(index, udp, calls),
            receive_buffer,
            tcp: Some(tcp),
            sharing,
            readable: false,
            acceptable: false,
            blocked: false,
            logged: Logged::default(),
        }
    }

    /// The address that is listened on, with its actual port.
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
        // An interest in writing would have the kernel report each datagram that has left as an edge: one
        // more turn of the loop for every answer.
        registry.register(self.udp.source(), udp, Interest::READABLE)?;
        match &mut self.tcp {
            Some(listener) => registry.register(listener, tcp, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// Takes note of an event of the UDP socket.
    pub(crate) fn handle_udp_event(
        &mut self,
        registry: &Registry,
        token: Token,
        writable: bool,
    ) -> io::Result<()> {
        // An error is read like a datagram.
        self.readable = true;
        if self.blocked && writable {
            self.blocked = false;
            registry.reregister(self.udp.source(), token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Takes note of an event of the TCP socket.
    pub(crate) fn handle_tcp_event(&mut self) {
        self.acceptable = true;
    }

    /// Whether datagrams may wait.
    pub(crate) fn is_readable(&self) -> bool {
        // The kernel may have been about to give this socket a datagram when it left.
        self.readable && (self.tcp.is_some() || self.sharing == Sharing::Left)
    }

    /// Whether only this host can connect.
    pub(crate) fn is_for_host(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Whether connections may wait.
    pub(crate) fn is_acceptable(&self) -> bool {
        self.acceptable && self.tcp.is_some()
    }

    /// Whether no datagrams can be sent until the socket is writable.
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
                        // The socket is empty, and epoll tells of the next datagram.
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
            registry.reregister(self.udp.source(), token, both)?;
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
                    // The client at the head is gone; the next one waits.
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
        // The address itself, of all sources, sends nothing, and can be reached.
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

    /// Has the next receive and accept find what waits, whatever events have told.
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

#[cfg(test)]
mod tests {
    use std::net;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::config::Size;

    const BATCH: usize = 8;

    fn bind(index: u16, address: SocketAddr) -> Result<Listener, String> {
        let options = Options { reuse_port: false, freebind: false };
        Listener::bind(index, address, options, Calls::USUAL, &Size::Small.sockets())
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
        // Another program may have the port that was picked, for IPv6 alone.
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
             host: `ip address` shows those it has; --freebind on serves it once it is one"
        );
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
                    Token(0) => listener.handle_udp_event(poll.registry(), token, false).unwrap(),
                    _ => listener.handle_tcp_event(),
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
