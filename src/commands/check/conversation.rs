//! A connection to an upstream on which one thread asks and waits, each time until a deadline.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::failure::Failure;
use super::report::Tenths;
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

/// Connects from there, as long as the deadline lets it.
pub(super) fn connect(
    address: SocketAddr,
    source: &Source,
    deadline: Instant,
) -> Result<TcpStream, Failure> {
    let failed = |error: io::Error| Failure::of_connect(&error, address);
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    source
        .bind(&SockRef::from(&socket), address)
        .map_err(|detail| Failure::new(Stage::Connect, detail))?;
    let connected = time_left(deadline).and_then(|left| {
        socket.connect_timeout(&address.into(), left)?;
        socket.set_tcp_nodelay(true)
    });
    connected.map(|()| socket.into()).map_err(failed)
}

/// A connection and the TLS on it.
pub(super) struct Conversation {
    tcp: TcpStream,
    pub(super) tls: TlsStream,
    frames: Deframer,
    /// The first octets that were decrypted.
    start: Vec<u8>,
    /// Messages that answer nothing.
    unasked: usize,
}

impl Conversation {
    pub(super) fn new(tcp: TcpStream, tls: TlsStream) -> Self {
        Self { tcp, tls, frames: Deframer::default(), start: Vec::new(), unasked: 0 }
    }

    /// The TLS handshake.
    pub(super) fn shake_hands(&mut self, deadline: Instant) -> Result<(), Failure> {
        while self.tls.is_handshaking() {
            self.write(&[], deadline)?;
            let mut io = Timed { tcp: &self.tcp, deadline };
            self.tls.receive(&mut io, READ_AT_ONCE, |_| ())?;
            if self.tls.is_handshaking() && Instant::now() >= deadline {
                let detail = format!("timed out{}", self.tls.advice());
                return Err(Failure::new(Stage::Tls, detail));
            }
        }
        self.write(&[], deadline)
    }

    /// Asks the questions at once, and adds the answers in the order in which they come. An error says why some
    /// are missing.
    pub(super) fn ask(
        &mut self,
        questions: &[&Question],
        edns: Edns,
        ecs: Ecs,
        deadline: Instant,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Failure> {
        let first_id = random() as u16;
        let mut octets = Vec::new();
        for (index, question) in questions.iter().enumerate() {
            let id = first_id.wrapping_add(index as u16);
            let edit = QueryEdit { edns, keepalive: index == 0, ecs, family: Family::Ipv4 };
            frame::append_with(&mut octets, |out| {
                append_query(out, &question.message, &question.parsed, id, edit);
            });
        }
        let sent = Instant::now();
        self.write(&octets, deadline)?;
        let mut open: Vec<_> = (0..questions.len()).collect();
        while !open.is_empty() {
            let mut problem = None;
            let Self { tcp, tls, frames, start, unasked } = self;
            let progress =
                tls.receive(&mut Timed { tcp, deadline }, READ_AT_ONCE, |mut octets| {
                    let room = HTTP.len().saturating_sub(start.len()).min(octets.len());
                    start.extend_from_slice(&octets[..room]);
                    while let Some(message) = frames.next(&mut octets) {
                        let Some(id) = message::id(message) else {
                            problem = Some("malformed answer: it is shorter than a header");
                            continue;
                        };
                        let index = usize::from(id.wrapping_sub(first_id));
                        let Some(place) = open.iter().position(|open| *open == index) else {
                            *unasked += 1;
                            continue;
                        };
                        open.swap_remove(place);
                        match read(message, questions[index], index, sent) {
                            Ok(answer) => answers.push(answer),
                            Err(why) => problem = Some(why),
                        }
                    }
                })?;
            if let Some(why) = problem {
                return Err(Failure::of_answer(why));
            }
            if *unasked > UNASKED_MAX {
                return Err(Failure::of_answer("the server sends answers to what nobody asked"));
            }
            if open.is_empty() {
                break;
            }
            if *start == HTTP {
                return Err(Failure::http_in_tls());
            }
            if progress.closed {
                return Err(Failure::of_answer("closed by the server before it answered"));
            }
            if Instant::now() >= deadline {
                let limit = deadline.saturating_duration_since(sent).as_millis();
                // The nearest, as the deadline was set a moment before.
                let limit = Tenths((limit as u16 + 50) / 100);
                return Err(Failure::of_answer(format!("no answer in {limit} s")));
            }
        }
        Ok(())
    }

    /// Writes all that waits, then the plaintext. A server that refuses us may have closed by then: what it
    /// said is the better reason.
    fn write(&mut self, mut plaintext: &[u8], deadline: Instant) -> Result<(), Failure> {
        loop {
            let mut io = Timed { tcp: &self.tcp, deadline };
            match self.tls.flush(&mut io) {
                Ok(true) => {}
                Ok(false) => return Err(Failure::new(Stage::Write, "timed out")),
                Err(failure) => {
                    let reason = self.tls.receive(&mut io, READ_AT_ONCE, |_| ());
                    return Err(reason.err().unwrap_or(failure).into());
                }
            }
            if plaintext.is_empty() {
                return Ok(());
            }
            let taken = self.tls.send(plaintext);
            if taken == 0 {
                return Err(Failure::new(Stage::Write, "closed"));
            }
            plaintext = &plaintext[taken..];
        }
    }

    /// Says goodbye, or why not, as far as that goes at once.
    pub(super) fn close(mut self) {
        let deadline = Instant::now() + GOODBYE_TIME_MAX;
        self.tls.close(&mut Timed { tcp: &self.tcp, deadline });
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

/// What a server says in clear text to a request of HTTP, or by itself: the start of its first line, fit for a
/// terminal. `None`: nothing.
pub(super) fn said_in_clear(
    address: SocketAddr,
    source: &Source,
    deadline: Instant,
) -> Option<String> {
    let tcp = connect(address, source, deadline).ok()?;
    let mut io = Timed { tcp: &tcp, deadline };
    io.write_all(b"HEAD / HTTP/1.0\r\n\r\n").ok()?;
    let mut heard = Vec::new();
    let mut octets = [0; HEARD_MAX];
    while heard.len() < HEARD_MAX && !heard.contains(&b'\n') {
        match io.read(&mut octets[..HEARD_MAX - heard.len()]) {
            Ok(0) | Err(_) => break,
            Ok(len) => heard.extend_from_slice(&octets[..len]),
        }
    }
    let line = heard.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii()).escape_debug().to_string();
    (!line.is_empty()).then_some(line)
}

/// A socket that is waited for until a deadline.
struct Timed<'a> {
    tcp: &'a TcpStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(time_left(self.deadline)?))?;
        self.tcp.read(out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(time_left(self.deadline)?))?;
        self.tcp.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time until the deadline, never zero; when it has passed, the error of a socket that must be waited for.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::WouldBlock.into()),
        left => Ok(left),
    }
}

/// Keyed with what the system has of chance.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a web server begins with.
pub(super) const HTTP: &[u8] = b"HTTP/";

/// Waits for one read: what a blocking socket has no more of would be waited for.
const READ_AT_ONCE: usize = 1;

/// Some servers answer late what was asked before and given up.
const UNASKED_MAX: usize = 16;

/// Octets of clear text that are looked at.
const HEARD_MAX: usize = 80;

const GOODBYE_TIME_MAX: Duration = Duration::from_millis(100);
