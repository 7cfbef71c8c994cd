//! A connection to an upstream on which questions are asked. No step waits: each goes as far as the socket lets it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::failure::Failure;
use crate::forwarder::Ecs;
use crate::forwarder::Stage;
use crate::forwarder::message::edit::{Edns, Family, QueryEdit, append_query};
use crate::forwarder::message::frame::{self, Deframer};
use crate::forwarder::message::{
    self, Opt, ParsedQuery, Rcode, ResponseCheck, check_response, parse_query,
};
use crate::host::network::source::Source;
use crate::tls::TlsStream;

/// What is asked, as a client would ask it.
#[derive(Clone)]
pub(super) struct Question {
    message: Vec<u8>,
    parsed: ParsedQuery,
}

impl Question {
    /// The name servers of the root, which every resolver knows.
    pub(super) fn root() -> Option<Self> {
        Self::new(&[0], 2)
    }

    /// The address of a name that nobody has asked for before, so that the resolver has to ask others.
    pub(super) fn unknown() -> Option<Self> {
        let label = format!("{:016x}", random());
        let mut name = vec![label.len() as u8];
        name.extend_from_slice(label.as_bytes());
        name.extend_from_slice(b"\x07example\x03com\0");
        Self::new(&name, 1)
    }

    fn new(name: &[u8], qtype: u8) -> Option<Self> {
        // RD; one question, of the class IN.
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(name);
        message.extend_from_slice(&[0, qtype, 0, 1]);
        let parsed = parse_query(&message, false).ok()?;
        Some(Self { message, parsed })
    }
}

/// An answer of the upstream.
pub(super) struct Answer {
    /// Which of the questions that were asked together it is for.
    pub(super) question: usize,
    /// From when the questions were sent.
    pub(super) took: Duration,
    pub(super) rcode: Rcode,
    pub(super) opt: Option<Opt>,
    pub(super) message: Vec<u8>,
}

/// Begins to connect from there.
pub(super) fn connect(address: SocketAddr, source: &Source) -> Result<TcpStream, Failure> {
    let failed = |error: io::Error| Failure::of_connect(&error, address);
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    source
        .bind(&SockRef::from(&socket), address)
        .map_err(|detail| Failure::new(Stage::Connect, detail))?;
    socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true)).map_err(failed)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(failed(error))
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Whether the connection to there stands now.
pub(super) fn is_established(tcp: &TcpStream, address: SocketAddr) -> Result<bool, Failure> {
    match tcp.take_error().and_then(|error| error.map_or(tcp.peer_addr().map(drop), Err)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        // It stood: one that never did is refused. What is said on it tells more.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(Failure::of_connect(&error, address)),
    }
}

/// A connection and the TLS on it.
pub(super) struct Conversation {
    tcp: TcpStream,
    pub(super) tls: TlsStream,
    frames: Deframer,
    /// The first octets that were decrypted.
    start: Vec<u8>,
    /// What TLS has not taken yet.
    unsent: Vec<u8>,
    asked: Asked,
    /// Messages that answer nothing.
    unasked: usize,
}

/// The questions that were asked together.
struct Asked {
    first_id: u16,
    at: Instant,
    questions: Vec<Question>,
    /// Which of them are not answered.
    open: Vec<usize>,
}

impl Conversation {
    pub(super) fn new(tcp: TcpStream, tls: TlsStream, now: Instant) -> Self {
        let asked = Asked { first_id: 0, at: now, questions: Vec::new(), open: Vec::new() };
        let (start, unsent) = (Vec::new(), Vec::new());
        Self { tcp, tls, frames: Deframer::default(), start, unsent, asked, unasked: 0 }
    }

    /// Whether the TLS handshake has come to its end.
    pub(super) fn shake_hands(&mut self) -> Result<bool, Failure> {
        self.write()?;
        while self.tls.is_handshaking() {
            let progress = self.tls.receive(&mut self.tcp, READ_AT_ONCE, |_| ())?;
            self.write()?;
            if !progress.more {
                break;
            }
        }
        Ok(!self.tls.is_handshaking())
    }

    /// Asks the questions at once.
    pub(super) fn ask(
        &mut self,
        questions: Vec<Question>,
        (edns, ecs): (Edns, Ecs),
        now: Instant,
    ) -> Result<(), Failure> {
        let first_id = random() as u16;
        for (index, question) in questions.iter().enumerate() {
            let id = first_id.wrapping_add(index as u16);
            let edit = QueryEdit { edns, keepalive: index == 0, ecs, family: Family::Ipv4 };
            frame::append_with(&mut self.unsent, |out| {
                append_query(out, &question.message, &question.parsed, id, edit);
            });
        }
        let open = (0..questions.len()).collect();
        self.asked = Asked { first_id, at: now, questions, open };
        self.write()
    }

    /// Adds the answers in the order in which they come; whether all are there. An error says why some are missing.
    pub(super) fn listen(&mut self, answers: &mut Vec<Answer>) -> Result<bool, Failure> {
        self.write()?;
        loop {
            let mut problem = None;
            let Self { tcp, tls, frames, start, asked, unasked, .. } = self;
            let progress = tls.receive(tcp, READ_AT_ONCE, |mut octets| {
                let room = HTTP.len().saturating_sub(start.len()).min(octets.len());
                start.extend_from_slice(&octets[..room]);
                while let Some(message) = frames.next(&mut octets) {
                    match asked.take(message) {
                        Ok(Some(answer)) => answers.push(answer),
                        Ok(None) => *unasked += 1,
                        Err(why) => problem = Some(why),
                    }
                }
            })?;
            if let Some(why) = problem {
                return Err(Failure::of_answer(why));
            }
            if self.unasked > UNASKED_MAX {
                return Err(Failure::of_answer("the server sends answers to what nobody asked"));
            }
            if self.asked.open.is_empty() {
                return Ok(true);
            }
            if self.start == HTTP {
                return Err(Failure::http_in_tls());
            }
            if progress.closed {
                return Err(Failure::of_answer("closed by the server before it answered"));
            }
            if !progress.more {
                return Ok(false);
            }
        }
    }

    /// Writes what waits, as far as that goes. A server that refuses us may have closed by then: what it said is the
    /// better reason.
    fn write(&mut self) -> Result<(), Failure> {
        loop {
            match self.tls.flush(&mut self.tcp) {
                Ok(true) if !self.unsent.is_empty() => {}
                Ok(_) => return Ok(()),
                Err(failure) => {
                    let reason = self.tls.receive(&mut self.tcp, READ_AT_ONCE, |_| ());
                    return Err(reason.err().unwrap_or(failure).into());
                }
            }
            let taken = self.tls.send(&self.unsent);
            if taken == 0 {
                return Err(Failure::new(Stage::Write, "closed"));
            }
            self.unsent.drain(..taken);
        }
    }

    /// Says goodbye, or why not, as far as that goes at once.
    pub(super) fn close(mut self) {
        self.tls.close(&mut self.tcp);
    }
}

impl Asked {
    /// What the message answers; `None`: no question that is open. The error says what is wrong with it.
    fn take(&mut self, message: &[u8]) -> Result<Option<Answer>, &'static str> {
        let id = message::id(message).ok_or("malformed answer: it is shorter than a header")?;
        let index = usize::from(id.wrapping_sub(self.first_id));
        let Some(place) = self.open.iter().position(|open| *open == index) else {
            return Ok(None);
        };
        self.open.swap_remove(place);
        read(message, &self.questions[index], index, self.at).map(Some)
    }
}

/// A message with the ID of a question, as an answer to it, or what is wrong with it.
fn read(
    message: &[u8],
    question: &Question,
    index: usize,
    sent: Instant,
) -> Result<Answer, &'static str> {
    let (rcode, opt) =
        match check_response(message, &question.message, question.parsed.question_end) {
            ResponseCheck::Answer(info) => (info.rcode, info.opt),
            ResponseCheck::ErrorWithoutQuestion(rcode) => (rcode, None),
            ResponseCheck::Malformed(why) => return Err(why),
            ResponseCheck::Unreadable => {
                return Err("malformed answer: its records cannot be read");
            }
        };
    let took = sent.elapsed();
    Ok(Answer { question: index, took, rcode, opt, message: message.to_vec() })
}

/// A connection on which a server is heard in clear text.
pub(super) struct ClearText {
    tcp: TcpStream,
    /// What is left to say.
    request: &'static [u8],
    heard: Vec<u8>,
}

impl ClearText {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, request: b"HEAD / HTTP/1.0\r\n\r\n", heard: Vec::new() }
    }

    /// Whether nothing more is to be expected.
    pub(super) fn is_over(&mut self) -> bool {
        while !self.request.is_empty() {
            match self.tcp.write(self.request) {
                Ok(len) => self.request = &self.request[len..],
                Err(error) => return !is_to_wait(&error),
            }
        }
        let mut octets = [0; HEARD_MAX];
        while self.heard.len() < HEARD_MAX && !self.heard.contains(&b'\n') {
            match self.tcp.read(&mut octets[..HEARD_MAX - self.heard.len()]) {
                Ok(0) => break,
                Ok(len) => self.heard.extend_from_slice(&octets[..len]),
                Err(error) => return !is_to_wait(&error),
            }
        }
        true
    }

    /// The start of the first line, fit for a terminal; `None`: nothing was heard, or TLS.
    pub(super) fn line(&self) -> Option<String> {
        if self.heard.first().is_some_and(|octet| TLS_RECORDS.contains(octet)) {
            return None;
        }
        let line = self.heard.split(|octet| *octet == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line.trim_ascii()).escape_debug().to_string();
        (!line.is_empty()).then_some(line)
    }
}

/// Whether the socket, which is not connected yet or has no more, will say when to go on.
fn is_to_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// Keyed with what the system has of chance.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What records of TLS begin with (RFC 8446 section 5.1).
const TLS_RECORDS: RangeInclusive<u8> = 20..=24;

/// What a web server begins with.
pub(super) const HTTP: &[u8] = b"HTTP/";

/// Octets.
const READ_AT_ONCE: usize = 16_384;

/// Some servers answer late what was asked before and given up.
const UNASKED_MAX: usize = 16;

/// Octets of clear text that are looked at.
const HEARD_MAX: usize = 80;
