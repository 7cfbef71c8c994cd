//! DNS clients for tests: whole messages in, whole messages out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};

use super::message;
use super::server::LIMIT;

/// A client with one UDP socket.
pub struct UdpClient {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UdpClient {
    pub fn new(server: SocketAddr) -> Self {
        let local: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::LOCALHOST, 0).into()
        } else {
            (Ipv6Addr::LOCALHOST, 0).into()
        };
        let socket = UdpSocket::bind(local).expect("a free port");
        socket.set_read_timeout(Some(LIMIT)).expect("a time");
        // The kernel then drops what comes from any other address.
        socket.connect(server).expect("a loopback address");
        Self { socket, server }
    }

    pub fn send(&self, query: &[u8]) {
        self.socket.send(query).expect("room for a datagram");
    }

    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        let mut octets = vec![0; 65_535];
        loop {
            match self.socket.recv(&mut octets) {
                Ok(n) => return octets[..n].to_vec(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no datagram from {}: {error}", self.server),
            }
        }
    }

    /// Sends and receives.
    #[track_caller]
    pub fn ask(&self, query: &[u8]) -> Vec<u8> {
        self.send(query);
        self.receive()
    }

    /// Whether there is nothing to receive at this moment.
    pub fn is_quiet(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let result = self.socket.recv(&mut [0; 16]);
        self.socket.set_nonblocking(false).expect("a socket");
        matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// A client with one TCP connection.
pub struct TcpClient {
    stream: TcpStream,
}

impl TcpClient {
    #[track_caller]
    pub fn new(server: SocketAddr) -> Self {
        Self::of(TcpStream::connect(server).expect("a listener"))
    }

    /// On a connection that stands.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).expect("a time");
        stream.set_nodelay(true).expect("a socket");
        Self { stream }
    }

    pub fn send(&mut self, query: &[u8]) {
        self.send_raw(&message::framed(query));
    }

    /// Sends octets as they are.
    pub fn send_raw(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("an open connection");
    }

    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        match self.try_receive() {
            Ok(response) => response,
            Err(error) => panic!("no response over TCP: {error}"),
        }
    }

    /// The next response, or the reason why there is none.
    pub fn try_receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let mut response = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut response)?;
        Ok(response)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends and receives.
    #[track_caller]
    pub fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        self.send(query);
        self.receive()
    }

    /// Says that no more queries follow.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Waits for the proxy's end of the connection; nothing else may come.
    #[track_caller]
    pub fn await_end(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            panic!("not a clean end of the connection: {error}");
        }
        assert!(rest.is_empty(), "{} octets came where the connection should end", rest.len());
    }
}
