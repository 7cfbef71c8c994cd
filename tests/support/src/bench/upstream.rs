//! A DoT server that answers everything: the answers to all that one read brought leave in one write.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::server::ServerConfig;
use rustls::{ServerConnection, SupportedProtocolVersion};
use slab::Slab;
use socket2::SockRef;

use super::delay::Delay;
use super::frames::Frames;
use super::queries;
use super::tls::{self, READ_MAX, Ready};
use crate::{Identity, key_exchange};

pub struct Upstream {
    poll: Poll,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    connections: Slab<Connection>,
    /// How many connections came, which tells one from another with the same key.
    accepted: u64,
    delay: Delay,
    /// Answers that are not due, the first to be sent on top.
    late: BinaryHeap<Reverse<Late>>,
    /// How many answers were put off, which keeps those that are due at once in order.
    put_off: u64,
    counts: Arc<Counts>,
    buffer: Box<[u8]>,
}

/// What was seen so far.
#[derive(Default)]
pub struct Counts {
    pub queries: AtomicU64,
    pub connections: AtomicU64,
}

struct Connection {
    number: u64,
    socket: TcpStream,
    tls: ServerConnection,
    frames: Frames,
}

/// Answers that leave together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    order: u64,
    key: usize,
    number: u64,
    answers: Vec<u8>,
}

impl Upstream {
    /// Listens, and answers everything after a delay. `version`: the only TLS version it has, or `None`
    /// for 1.2 and 1.3.
    pub fn bind(
        listen: SocketAddr,
        identity: Identity,
        version: Option<&'static SupportedProtocolVersion>,
        delay: Delay,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let provider = Arc::new(key_exchange::hybrid());
        let versions = version.map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate], identity.key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"dot".to_vec()];
        Ok(Self {
            poll,
            listener,
            config: Arc::new(config),
            connections: Slab::new(),
            accepted: 0,
            delay,
            late: BinaryHeap::new(),
            put_off: 0,
            counts: Arc::default(),
            buffer: vec![0; READ_MAX].into(),
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Serves; returns only if the system refuses something.
    pub fn run(mut self) -> io::Error {
        let mut events = Events::with_capacity(256);
        loop {
            if let Err(error) = self.turn(&mut events) {
                return error;
            }
        }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let next = self.late.peek();
        let due = next.map(|Reverse(late)| late.due.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, due) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &*events {
            if event.token() == LISTENER {
                self.accept()?;
            } else {
                self.serve(event.token().0, event.is_writable());
            }
        }
        self.send_late();
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // What ended before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            SockRef::from(&socket).set_tcp_nodelay(true)?;
            let mut tls =
                ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
            tls.set_buffer_limit(None);
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(entry.key()), interest)?;
            self.accepted += 1;
            entry.insert(Connection {
                number: self.accepted,
                socket,
                tls,
                frames: Frames::default(),
            });
            self.counts.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn serve(&mut self, key: usize, is_writable: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Connection { number, socket, tls, frames } = connection;
        let delay = self.delay;
        // Where all answers take the same time, those to what one read brought leave together.
        let mut groups: Vec<(Duration, Vec<u8>)> = Vec::new();
        let mut count = 0;
        let mut ready = tls::receive(tls, socket, &mut self.buffer, |octets| {
            frames.receive(octets, |frame| {
                if groups.is_empty() || delay == Delay::Spread {
                    groups.push((delay.of(frame), Vec::new()));
                }
                let Some((_, answers)) = groups.last_mut() else { return };
                count += u64::from(queries::answer(frame, answers));
            });
        });
        self.counts.queries.fetch_add(count, Ordering::Relaxed);
        for (delay, answers) in groups {
            if delay.is_zero() {
                io::Write::write_all(&mut tls.writer(), &answers).expect("memory takes everything");
            } else {
                let (due, order, number) = (Instant::now() + delay, self.put_off, *number);
                self.late.push(Reverse(Late { due, order, key, number, answers }));
                self.put_off += 1;
            }
        }
        if is_writable || tls.wants_write() {
            ready = ready.and_then(|ready| tls::flush(tls, socket).map(|()| ready));
        }
        // The load sees what that cost: queries that are not answered.
        if !matches!(ready, Ok(Ready::Open)) {
            self.connections.remove(key);
        }
    }

    fn send_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse(late)| late.due <= now)
            && let Some(Reverse(Late { key, number, answers, .. })) = self.late.pop()
        {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.number != number {
                continue;
            }
            let Connection { socket, tls, .. } = connection;
            io::Write::write_all(&mut tls.writer(), &answers).expect("memory takes everything");
            if tls::flush(tls, socket).is_err() {
                self.connections.remove(key);
            }
        }
    }
}

const LISTENER: Token = Token(usize::MAX - 1);
