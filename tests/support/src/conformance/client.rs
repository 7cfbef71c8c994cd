//! A client that waits for what may never come.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::Query;
use crate::forwarder::asker::PATIENCE;
use crate::forwarder::stage::Stage;
use crate::message::{self, A};

pub struct Client {
    server: SocketAddr,
    socket: UdpSocket,
    next_id: u16,
    /// Once something was lost, the check has failed, and the rest need not take as long.
    patience: Duration,
}

impl Client {
    pub fn new(stage: &Stage) -> Self {
        Self::of(stage.address())
    }

    pub fn of(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.connect(server).expect("a loopback address");
        Self { server, socket, next_id: 1, patience: PATIENCE }
    }

    /// A message ID that no earlier query of this client had.
    fn numbered(&mut self, query: &Query) -> Vec<u8> {
        self.next_id += 1;
        query.clone().id(self.next_id).bytes()
    }

    /// Asks over UDP, under a new ID.
    pub fn ask(&mut self, query: &Query) -> Option<Vec<u8>> {
        let query = self.numbered(query);
        self.exchange(&query)
    }

    /// Asks over a new TCP connection.
    pub fn ask_tcp(&mut self, query: &Query) -> Option<Vec<u8>> {
        let query = self.numbered(query);
        self.exchange_tcp(&query)
    }

    /// Asks over UDP, then over TCP; the second under a name of its own, for there may be a cache.
    pub fn ask_both(
        &mut self,
        name: &str,
        query: impl Fn(&str) -> Query,
    ) -> [(&'static str, Option<Vec<u8>>); 2] {
        [
            ("UDP", self.ask(&query(&format!("u-{name}")))),
            ("TCP", self.ask_tcp(&query(&format!("t-{name}")))),
        ]
    }

    pub fn send(&mut self, octets: &[u8]) {
        // A forwarder that died refuses; that shows as a loss.
        drop(self.socket.send(octets));
    }

    /// Sends these octets and waits for a response with their ID.
    pub fn exchange(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        self.send(octets);
        let id = message::id(octets);
        self.receive(|response| response.len() >= 12 && message::id(response) == id)
    }

    pub fn receive(&mut self, is_it: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + self.patience;
        let mut octets = vec![0; 65_535];
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("a time");
            match self.socket.recv(&mut octets) {
                Ok(n) if is_it(&octets[..n]) => return Some(octets[..n].to_vec()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.patience = Duration::from_secs(1);
                    return None;
                }
                Err(_) => return None,
            }
            if Instant::now() >= end {
                return None;
            }
        }
    }

    pub fn exchange_tcp(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        let response = exchange_on(&mut self.connect()?, octets);
        if response.is_none() {
            self.patience = Duration::from_secs(1);
        }
        response
    }

    pub fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.server).ok()?;
        stream.set_read_timeout(Some(self.patience)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }

    /// Whether anything comes for these octets before a query sent after them is answered, or soon
    /// after that.
    pub fn is_answered(&mut self, octets: &[u8], probe: &str) -> bool {
        const PROBE: u16 = 0x7fff;
        const SOON: Duration = Duration::from_millis(500);

        self.send(octets);
        self.send(&Query::new(probe, A).id(PROBE).bytes());
        let is_probe = |octets: &[u8]| octets.len() >= 12 && message::id(octets) == PROBE;
        match self.receive(|_| true) {
            Some(first) if is_probe(&first) => {
                let patience = std::mem::replace(&mut self.patience, SOON);
                let more = self.receive(|_| true).is_some();
                self.patience = patience;
                more
            }
            Some(_) => true,
            None => false,
        }
    }
}

/// Asks on a connection, and waits for as long as it has patience.
pub fn exchange_on(stream: &mut TcpStream, octets: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(&message::framed(octets)).ok()?;
    receive_on(stream)
}

pub fn receive_on(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut response = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut response).ok()?;
    Some(response)
}
