//! Queries over UDP and requests over HTTP that wait for their answer until a deadline.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::place::{is_here, loopback};
use crate::forwarder::message::HEADER_LEN;

/// What came of a query.
#[derive(Debug)]
pub(super) enum Outcome {
    /// No answer in time.
    Silence,
    /// An answer, and what is wrong with it.
    Wrong(String),
    /// The system says that it cannot be asked.
    Failed(io::Error),
}

/// What came of a query to each listener that was asked.
pub(super) type Outcomes = Vec<(SocketAddr, Outcome)>;

/// A listener that was asked.
struct Asked {
    address: SocketAddr,
    /// One on which an answer may come.
    socket: Option<UdpSocket>,
    /// When the query is sent again.
    again: Instant,
    outcome: Outcome,
}

impl Asked {
    fn new(address: SocketAddr) -> Self {
        let (socket, outcome) = match connect(address) {
            Ok(socket) => (Some(socket), Outcome::Silence),
            Err(error) => (None, Outcome::Failed(error)),
        };
        Self { address, socket, again: Instant::now(), outcome }
    }

    /// Sends the query if it is time for that, and reads what came: the answer that is right, if there is one.
    fn turn(&mut self, query: &[u8], judge: Judge) -> Option<Vec<u8>> {
        let socket = self.socket.as_ref()?;
        let now = Instant::now();
        let mut octets = [0; 4096];
        let mut reads = 0..READS_MAX;
        let ended = loop {
            if now >= self.again {
                self.again = now + PAUSE;
                if let Err(error) = socket.send(query) {
                    break Outcome::Failed(error);
                }
            }
            reads.next()?;
            match socket.recv(&mut octets) {
                Ok(len) if is_answer(&octets[..len], query) => match judge(&octets[..len], query) {
                    Ok(()) => return Some(octets[..len].to_vec()),
                    Err(problem) => break Outcome::Wrong(problem),
                },
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => break Outcome::Failed(error),
            }
        };
        self.socket = None;
        self.outcome = ended;
        None
    }
}

/// What is wrong with an answer to a query.
pub(super) type Judge = fn(answer: &[u8], query: &[u8]) -> Result<(), String>;

/// Asks one listener after the other, the next when one did not answer at once, until the answer of one is right; else
/// what came of each.
pub(super) fn ask(
    listeners: &[SocketAddr],
    query: &[u8],
    deadline: Instant,
    judge: Judge,
) -> Result<(SocketAddr, Vec<u8>), Outcomes> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut next = listeners.iter();
    while Instant::now() < deadline {
        asked.extend(next.next().map(|address| Asked::new(*address)));
        for one in &mut asked {
            if let Some(answer) = one.turn(query, judge) {
                return Ok((one.address, answer));
            }
        }
        let sockets = asked.iter().filter_map(|one| one.socket.as_ref());
        let mut awaited: Vec<_> =
            sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        if !awaited.is_empty() {
            // A signal may end it, and then there is nothing to read.
            poll(&mut awaited, Some(&TURN)).ok();
        } else if next.len() == 0 {
            break;
        }
    }
    Err(asked.into_iter().map(|one| (one.address, one.outcome)).collect())
}

/// A socket that hears of `target` alone. Of this host it asks from loopback, since that alone is answered whoever
/// else is served; but an address of one interface has no way back to there.
fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let from = |ip: IpAddr| {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(target)?;
        Ok(socket)
    };
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let is_of_interface = matches!(target, SocketAddr::V6(v6) if v6.scope_id() != 0);
    if is_here(target) && !is_of_interface {
        from(loopback(any)).or_else(|_| from(any))
    } else {
        from(any)
    }
}

/// Whether it has the ID of the query, and QR set.
fn is_answer(message: &[u8], query: &[u8]) -> bool {
    message.len() >= HEADER_LEN && message[..2] == query[..2] && message[2] & 0x80 != 0
}

/// A query for the name servers of the root with this EDNS version.
pub(super) fn query(edns_version: u8) -> Vec<u8> {
    // Keyed with what the system has of chance.
    let id = RandomState::new().build_hasher().finish() as u16;
    let mut query = id.to_be_bytes().to_vec();
    // RD; one question, one additional record.
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    // The root; NS, IN.
    query.extend_from_slice(&[0, 0, 2, 0, 1]);
    // OPT: the root, type 41, 1,232 octets, RCODE 0, version, no flags, no options.
    query.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, edns_version, 0, 0, 0, 0]);
    query
}

/// Where the question of [`query`] ends.
pub(super) const QUESTION_END: usize = HEADER_LEN + 5;

/// Asks for a page over HTTP, and gives the code and the words of its status, such as `200 OK`.
pub(super) fn get(server: SocketAddr, path: &str, deadline: Instant) -> Result<String, Outcome> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silence,
        _ => Outcome::Failed(error),
    };
    let left = || deadline.saturating_duration_since(Instant::now()).max(LEAST);
    let mut stream = TcpStream::connect_timeout(&server, left()).map_err(failed)?;
    stream.set_write_timeout(Some(left())).map_err(failed)?;
    // It has room in the socket at once.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut octets = [0; 256];
    let mut len = 0;
    while len < octets.len() && !octets[..len].contains(&b'\n') && Instant::now() < deadline {
        stream.set_read_timeout(Some(left())).map_err(failed)?;
        match stream.read(&mut octets[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let text = String::from_utf8_lossy(&octets[..len]);
    match text.split_once("\r\n").and_then(|(line, _)| line.strip_prefix("HTTP/1.1 ")) {
        Some(status) => Ok(status.escape_debug().to_string()),
        None if Instant::now() >= deadline => Err(Outcome::Silence),
        None => Err(Outcome::Wrong("what it says is not HTTP/1.1".into())),
    }
}

/// A datagram may be lost in a full buffer.
const PAUSE: Duration = Duration::from_millis(250);

/// Datagrams that are read before the other listeners, and the time, are looked at.
const READS_MAX: usize = 64;

/// How long one listener has to answer before the next is asked, too: short enough for the last of 32.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// A timeout of none would be one without end.
const LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_without_a_pause_does_not_hold_the_turn() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut asked = Asked::new(peer.local_addr().unwrap());
        let own = asked.socket.as_ref().unwrap().local_addr().unwrap();
        let query = query(1);
        for _ in 0..READS_MAX {
            peer.send_to(&query, own).unwrap();
        }
        let mut answer = query.clone();
        answer[2] |= 0x80;
        peer.send_to(&answer, own).unwrap();
        assert_eq!(asked.turn(&query, |_, _| Ok(())), None);
        assert_eq!(asked.turn(&query, |_, _| Ok(())), Some(answer));
    }

    #[test]
    fn an_answer_has_the_id_and_qr() {
        let query = query(0);
        let mut answer = query.clone();
        answer[2..4].copy_from_slice(&[0x81, 0x85]);
        assert!(is_answer(&answer, &query) && !is_answer(&query, &query));
        assert!(!is_answer(&answer[..HEADER_LEN - 1], &query));
        answer[0] ^= 1;
        assert!(!is_answer(&answer, &query));
    }
}
