//! A client with one UDP socket that asks at given times and writes down what it got, and when.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::SockRef;

use crate::Query;
use crate::message::{self, A, NOERROR, NXDOMAIN, QR, TC};

/// A query without a response after this long is lost. Stub resolvers ask again after 5 s, and give up
/// after a second time: it is twice what any forwarder's client waits, so that slow is told from lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Asker {
    socket: UdpSocket,
    start: Instant,
    queries: Vec<Asked>,
    /// By message ID, the place in `queries`.
    waiting: HashMap<u16, usize>,
    next_id: u16,
    /// Responses that nobody was waiting for.
    strays: usize,
    /// Room for any datagram.
    buffer: Vec<u8>,
}

pub struct Asked {
    pub name: String,
    /// When it was sent, from the asker's start.
    pub at: Duration,
    pub reply: Option<Reply>,
    qtype: u16,
}

pub struct Reply {
    pub delay: Duration,
    pub octets: Vec<u8>,
}

impl Asked {
    pub fn is_answered(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.is_answer(self.qtype))
    }

    /// Whether a response came that is an error.
    pub fn is_failed(&self) -> bool {
        self.reply.is_some() && !self.is_answered()
    }

    pub fn delay(&self) -> Option<Duration> {
        self.reply.as_ref().map(|reply| reply.delay)
    }
}

impl Reply {
    pub fn rcode(&self) -> u16 {
        message::flags(&self.octets) & 15
    }

    fn is_answer(&self, qtype: u16) -> bool {
        let has_records = self.octets[6..8] != [0, 0];
        let truncated = message::flags(&self.octets) & TC != 0;
        match self.rcode() {
            NOERROR => has_records || truncated || qtype != A,
            NXDOMAIN => true,
            _ => false,
        }
    }
}

impl Asker {
    pub fn new(server: SocketAddr) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, server)
    }

    /// One with an address of its own.
    pub fn from(host: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((IpAddr::from(host), 0)).expect("a free port");
        socket.connect(server).expect("a loopback address");
        socket.set_nonblocking(true).expect("a socket");
        // The buffer is as large as the kernel gives: what is measured is not to be lost here.
        SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a socket");
        Self {
            socket,
            start: Instant::now(),
            queries: Vec::new(),
            waiting: HashMap::new(),
            next_id: 1,
            strays: 0,
            buffer: vec![0; 65_535],
        }
    }

    pub fn queries(&self) -> &[Asked] {
        &self.queries
    }

    pub fn strays(&self) -> usize {
        self.strays
    }

    /// Sends a query for the address of this name, with EDNS.
    pub fn send(&mut self, name: &str) {
        self.send_query(name, A, |query| query.opt(1232));
    }

    /// Sends a query that was changed.
    pub fn send_query(&mut self, name: &str, qtype: u16, change: impl FnOnce(Query) -> Query) {
        while self.waiting.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.waiting.insert(id, self.queries.len());
        let (name, at) = (name.to_owned(), self.start.elapsed());
        let query = change(Query::new(&name, qtype)).id(id).bytes();
        self.queries.push(Asked { name, at, reply: None, qtype });
        // A forwarder that died refuses; that shows as a loss.
        drop(self.socket.send(&query));
    }

    /// Sends a query and waits for its response.
    pub fn ask(&mut self, name: &str) -> &Asked {
        self.send(name);
        self.finish();
        self.queries.last().expect("just sent")
    }

    /// Asks one after the other, each when the one before is answered or lost, but no longer than a
    /// minute: a forwarder that loses many is not waited for.
    pub fn ask_each(&mut self, names: impl IntoIterator<Item = String>) {
        const LONGEST: Duration = Duration::from_secs(60);

        let start = Instant::now();
        for name in names {
            if start.elapsed() < LONGEST {
                self.ask(&name);
            }
        }
    }

    /// Asks at a steady pace, whatever becomes of it.
    pub fn ask_steadily(&mut self, every: Duration, names: impl IntoIterator<Item = String>) {
        let start = Instant::now();
        for (n, name) in names.into_iter().enumerate() {
            self.receive_until(start + every * n as u32, false);
            self.send(&name);
        }
    }

    /// Waits for what is missing, each for as long as its patience lasts.
    pub fn finish(&mut self) {
        if let Some(last) = self.queries.last() {
            self.receive_until(self.start + last.at + PATIENCE, true);
        }
        self.waiting.clear();
    }

    /// Receives for this long, even if nothing is missing.
    pub fn listen(&mut self, time: Duration) {
        self.receive_until(Instant::now() + time, false);
    }

    /// Receives until then, or until nothing is missing.
    fn receive_until(&mut self, until: Instant, or_complete: bool) {
        loop {
            self.receive();
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() || (or_complete && self.waiting.is_empty()) {
                return;
            }
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            let wait = Timespec::try_from(wait).expect("a short time");
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("poll(2) of an open socket: {error}"),
            }
        }
    }

    fn receive(&mut self) {
        // Taken out for as long as the asker itself is changed.
        let mut octets = std::mem::take(&mut self.buffer);
        loop {
            match self.socket.recv(&mut octets) {
                Ok(n) => self.take(&octets[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The port of a forwarder that died; the next query tells again.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("a datagram cannot be received: {error}"),
            }
        }
        self.buffer = octets;
    }

    fn take(&mut self, octets: &[u8]) {
        let expected = (octets.len() >= 12 && message::flags(octets) & QR != 0)
            .then(|| self.waiting.get(&message::id(octets)).copied())
            .flatten();
        let asked = expected.map(|n| &mut self.queries[n]).filter(|asked| {
            // An error may come without the question.
            octets[4..6] == [0, 0]
                || message::question(octets).is_some_and(|(name, qtype, qclass)| {
                    (name.as_str(), qtype, qclass) == (asked.name.as_str(), asked.qtype, 1)
                })
        });
        let Some(asked) = asked else {
            self.strays += 1;
            return;
        };
        let delay = self.start.elapsed().saturating_sub(asked.at);
        asked.reply = Some(Reply { delay, octets: octets.to_vec() });
        self.waiting.remove(&message::id(octets));
    }
}
