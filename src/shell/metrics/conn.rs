//! A connection of the metrics server: one request, one response, and its end.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;

use super::http::{self, PLAIN, Refusal, Request, Response, Status};
use crate::forwarder::Network;

/// A connection.
pub(super) struct Conn {
    stream: TcpStream,
    accepted: Instant,
    network: Network,
    phase: Phase,
}

enum Phase {
    /// A part of the request, at most [`REQUEST_MAX`] octets.
    Asking(Vec<u8>),
    /// The response is made, or leaves.
    Answering(Response),
    /// All was written. What still comes is read, up to so many octets, as a close with octets unread would
    /// take the response from the client (RFC 9112 section 9.6).
    Lingering(usize),
}

/// Who gives way before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Has had its response, or is of a network that has most places.
    First,
    Last,
}

/// What follows from what happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// More is to come.
    Await,
    /// The request is to be answered.
    Answer(Result<Request, Refusal>),
    /// The connection is over.
    Close,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, client: SocketAddr, now: Instant) -> Self {
        let network = Network::of(client);
        Self { stream, accepted: now, network, phase: Phase::Asking(Vec::new()) }
    }

    /// Where the client is.
    pub(super) fn network(&self) -> Network {
        self.network
    }

    /// When the connection ends, whatever it is doing.
    pub(super) fn ends_at(&self) -> Instant {
        self.accepted + TIME_MAX
    }

    /// Among whom and from when on the connection may be closed for another that waits. `has_most`: its network has more
    /// than half of the places.
    pub(super) fn gives_way(&self, has_most: bool) -> (Rank, Instant) {
        match self.phase {
            Phase::Lingering(_) => (Rank::First, self.accepted),
            _ if has_most => (Rank::First, self.accepted + TIME_OF_MANY),
            _ => (Rank::Last, self.accepted + TIME_ALONE),
        }
    }

    /// Does what an event allows.
    pub(super) fn handle_event(&mut self, event: &Event) -> Then {
        if matches!(self.phase, Phase::Answering(_)) {
            return if event.is_writable() { self.write() } else { Then::Await };
        }
        self.read()
    }

    /// The response is this.
    pub(super) fn respond(&mut self, response: Response) {
        self.phase = Phase::Answering(response);
    }

    /// Writes what goes of the response.
    pub(super) fn write(&mut self) -> Then {
        let Phase::Answering(response) = &mut self.phase else { return Then::Await };
        while !response.rest().is_empty() {
            match self.stream.write(response.rest()) {
                Ok(0) => return Then::Close,
                Ok(len) => response.note_sent(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Then::Await,
                Err(_) => return Then::Close,
            }
        }
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return Then::Close;
        }
        self.phase = Phase::Lingering(LINGER_MAX);
        self.read()
    }

    /// Ends the connection, and says why if it has not asked.
    pub(super) fn time_out(mut self) {
        if let Phase::Asking(_) = self.phase {
            let line = Status::Timeout.line();
            let mut response = Response::with_room(line.len());
            response.write_str(line).ok();
            response.finish(Status::Timeout, PLAIN, false);
            // It fits in the buffer of the socket, or nobody is there.
            self.stream.write_all(response.rest()).ok();
        }
    }

    /// Reads what there is: of the request, or what is behind it.
    fn read(&mut self) -> Then {
        loop {
            let mut chunk = [0; CHUNK];
            let room = match &self.phase {
                Phase::Asking(request) => REQUEST_MAX - request.len(),
                Phase::Answering(_) => return Then::Await,
                Phase::Lingering(room) => *room,
            };
            let len = match self.stream.read(&mut chunk[..room.min(CHUNK)]) {
                // The end, also of a request that is not whole, or all that is read.
                Ok(0) => return Then::Close,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Then::Await,
                Err(_) => return Then::Close,
            };
            match &mut self.phase {
                Phase::Asking(request) => {
                    request.reserve_exact(len);
                    request.extend_from_slice(&chunk[..len]);
                    let is_full = request.len() == REQUEST_MAX;
                    if let Some(request) = http::parse(request, is_full) {
                        // Its octets make room for those of the response.
                        self.phase = Phase::Answering(Response::default());
                        return Then::Answer(request);
                    }
                }
                Phase::Answering(_) => return Then::Await,
                Phase::Lingering(room) => *room -= len,
            }
        }
    }
}

/// The time of a connection, from its acceptance to its end.
const TIME_MAX: Duration = Duration::from_secs(5);

/// How long a connection may ask, and read its response, while others wait: whoever probes whether the program lives
/// waits no longer for those who do either slowly.
const TIME_ALONE: Duration = Duration::from_secs(1);

/// The same, for one of a network that has more than half of the places. Most ask and read within a turn of the loop.
const TIME_OF_MANY: Duration = Duration::from_millis(10);

/// Octets of a request. Prometheus sends 300.
pub(super) const REQUEST_MAX: usize = 4096;

/// Octets read behind a request before the connection is closed all the same.
const LINGER_MAX: usize = 64 << 10;

/// Octets read at a time.
const CHUNK: usize = 1024;
