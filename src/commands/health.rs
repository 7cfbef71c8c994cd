//! Whether the program that runs here answers.
//!
//! The question has EDNS version 1, which is answered with BADVERS by the program itself, to this host whatever
//! its flags say, and without a line in the query log. So the answer does not depend on upstreams, and an outage
//! of theirs does not have containers restarted in which all is well. [`Health::deep`] asks for the name servers
//! of the root as well, a question that every resolver has the answer to.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{self, Health, Host};
use crate::forwarder::message::{HEADER_LEN, Rcode, ResponseCheck, check_response};
use crate::host::os_error::system_error;

/// Asks, and gives a line that says what answered. The error is one line, with what to do.
pub fn run(health: &Health, host: Host) -> Result<String, String> {
    let mut target = Target::of(health, host)?;
    let deadline = Instant::now() + TIME_MAX;
    let mut answered = target.ask(deadline);
    if target.is_guess
        && answered.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        target.address = config::LISTEN_DEFAULT;
        answered = target.ask(deadline);
    }
    let socket = match answered {
        Ok(Some(socket)) => socket,
        Ok(None) => return Err(target.silence()),
        Err(error) => return Err(target.failure(&error)),
    };
    if !health.deep {
        return Ok(format!("{target} answers"));
    }
    let query = query(0);
    match ask(&socket, &query, deadline) {
        Ok(Some(answer)) => match problem(&answer, &query) {
            None => Ok(format!("{target} answers, and so does an upstream")),
            Some(problem) => Err(format!("{target} answers, but {problem}")),
        },
        Ok(None) => Err(format!(
            "{target} answers, but no upstream answered in {TIME_MAX:?}; its log says why, if they fail"
        )),
        Err(error) => Err(target.failure(&error)),
    }
}

/// Where to ask, and where that is known from.
struct Target {
    address: SocketAddr,
    is_guess: bool,
}

impl Target {
    fn of(health: &Health, host: Host) -> Result<Self, String> {
        if !health.listen.is_empty() {
            return Self::among(&health.listen, false);
        }
        match listeners_of_process_1(host) {
            Some(listeners) => Self::among(&listeners, false),
            None => Self::among(&[DEFAULT], true),
        }
    }

    /// The first listener that can be asked, at an address of this host if there is one.
    fn among(listeners: &[SocketAddr], is_guess: bool) -> Result<Self, String> {
        let known = || listeners.iter().copied().filter(|listener| listener.port() != 0);
        let mut here = known().map(reachable).filter(|address| is_here(address.ip()));
        match here.next().or_else(|| known().next()) {
            Some(address) => Ok(Self { address, is_guess }),
            None => Err("it serves a port that the system chose; give --listen ADDR:PORT with the one that it \
                         printed at its start"
                .into()),
        }
    }

    /// A socket on which an answer came; `None` if none came until `deadline`.
    fn ask(&self, deadline: Instant) -> io::Result<Option<UdpSocket>> {
        let socket = connect(self.address)?;
        Ok(ask(&socket, &query(1), deadline)?.map(|_| socket))
    }

    /// What is said if nothing came back.
    fn silence(&self) -> String {
        let elsewhere = if self.is_guess { ELSEWHERE } else { "" };
        format!(
            "{self} did not answer in {TIME_MAX:?}: what listens there hangs, is not dot-proxy, or is kept from \
             answering by a firewall{elsewhere}"
        )
    }

    /// What is said of an error of the socket.
    fn failure(&self, error: &io::Error) -> String {
        let elsewhere = if self.is_guess { ELSEWHERE } else { "" };
        match error.kind() {
            ErrorKind::ConnectionRefused => {
                let first = if self.is_guess { format!("{DEFAULT} or ") } else { String::new() };
                format!(
                    "nothing listens on {first}{self}, UDP: start it, its log says why it ended{elsewhere}"
                )
            }
            _ => format!("cannot ask {self}: {}{elsewhere}", system_error(error)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The listeners of the program that a container was started for; `None` if process 1 is not this program. Its
/// command line can be read by everybody, unlike all else of it.
fn listeners_of_process_1(host: Host) -> Option<Vec<SocketAddr>> {
    let words = fs::read("/proc/1/cmdline").ok()?;
    // Process 1 has understood it. What is wrong is in its configuration, since it started: it goes on with what it
    // read then, and must not count as unhealthy for that.
    config::listeners(arguments(&words)?, host).ok()?
}

/// The arguments of this program in a command line as the kernel shows it. In front of it may be an init program
/// with flags of its own.
fn arguments(cmdline: &[u8]) -> Option<Vec<OsString>> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    let mut words = cmdline.split(|octet| *octet == 0).map(|word| OsString::from_vec(word.into()));
    words.find(|word| Path::new(word).file_name().is_some_and(|name| name == PROGRAM))?;
    Some(words.collect())
}

/// An address that leads to the listener: one on all addresses is on loopback, too.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(loopback(listener.ip()));
    }
    listener
}

fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Whether this host has the address.
fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// A socket that hears of `target` alone. Of this host it asks from loopback, since that alone is answered whoever
/// else is served.
fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let from = |ip: IpAddr| {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.connect(target)?;
        Ok(socket)
    };
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    if is_here(target.ip()) { from(loopback(any)).or_else(|_| from(any)) } else { from(any) }
}

/// Asks again and again until an answer comes; `None` if none came until `deadline`.
fn ask(socket: &UdpSocket, query: &[u8], deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut next = Instant::now();
    let mut octets = [0; 4096];
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Ok(None);
        }
        if now >= next {
            socket.send(query)?;
            next = now + PAUSE;
        }
        socket.set_read_timeout(Some(next.min(deadline) - now))?;
        match socket.recv(&mut octets) {
            Ok(len) if is_answer(&octets[..len], query) => return Ok(Some(octets[..len].to_vec())),
            Ok(_) => {}
            Err(error) if is_to_be_waited_for(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_to_be_waited_for(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether it has the ID of the query, and QR set.
fn is_answer(message: &[u8], query: &[u8]) -> bool {
    message.len() >= HEADER_LEN && message[..2] == query[..2] && message[2] & 0x80 != 0
}

/// What keeps the answer to the deep question from being one, in words.
fn problem(answer: &[u8], query: &[u8]) -> Option<String> {
    let ResponseCheck::Answer(info) = check_response(answer, query, QUESTION_END) else {
        return Some("the answer to a query for . NS cannot be read".into());
    };
    if info.rcode == Rcode::NOERROR {
        let is_truncated = answer[2] & 0x02 != 0;
        return is_truncated.then(|| {
            "it limits the rate of this host: leave 127.0.0.0/8 and ::1 out with --rate-exempt"
                .into()
        });
    }
    let rcode = info.rcode;
    let text = info.opt.and_then(|opt| opt.ede_texts(answer).next());
    let because = text.map_or(String::new(), |text| format!(": {}", text.escape_debug()));
    Some(format!("a query for . NS got {rcode}{because}"))
}

/// A query for the name servers of the root with this EDNS version.
fn query(edns_version: u8) -> Vec<u8> {
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
const QUESTION_END: usize = HEADER_LEN + 5;

/// The name of this program's file, in the image and in packages.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// Where a resolver is asked if nothing else is known; then [`config::LISTEN_DEFAULT`], where it listens if it is not
/// told where.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

const ELSEWHERE: &str = "; if it listens elsewhere, give --listen ADDR:PORT";

/// Whoever asks for health has a limit of a second or more.
const TIME_MAX: Duration = Duration::from_millis(900);

/// A datagram may be lost in a full buffer.
const PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_behind_the_program_wherever_it_is() {
        for (cmdline, expected) in [
            ("/dot-proxy\0--listen\x000.0.0.0:53\0", Some(&["--listen", "0.0.0.0:53"][..])),
            ("dot-proxy\0", Some(&[])),
            ("/sbin/docker-init\0--\0/dot-proxy\0-l\0[::]:53\0", Some(&["-l", "[::]:53"])),
            ("/usr/lib/systemd/systemd\0--system\0", None),
            ("sh\0-c\0/dot-proxy --listen 1.2.3.4\0", None),
            ("", None),
        ] {
            let expected = expected.map(|args| args.iter().map(OsString::from).collect::<Vec<_>>());
            assert_eq!(arguments(cmdline.as_bytes()), expected, "{cmdline:?}");
        }
    }

    #[test]
    fn the_first_listener_that_can_be_asked_is_asked() {
        for (listeners, asked) in [
            (&["0.0.0.0:53"][..], Some("127.0.0.1:53")),
            (&["[::]:5300"], Some("[::1]:5300")),
            (&["127.0.0.1:0", "127.0.0.2:53"], Some("127.0.0.2:53")),
            // One whose interface is not there yet.
            (&["192.0.2.1:53", "127.0.0.1:53"], Some("127.0.0.1:53")),
            (&["192.0.2.1:53"], Some("192.0.2.1:53")),
            (&["127.0.0.1:0"], None),
        ] {
            let parsed: Vec<SocketAddr> = listeners.iter().map(|it| it.parse().unwrap()).collect();
            let target = Target::among(&parsed, false).ok().map(|target| target.to_string());
            assert_eq!(target.as_deref(), asked, "{listeners:?}");
        }
    }

    #[test]
    fn what_the_deep_answer_says_is_told() {
        let query = query(0);
        let answer = |flags: [u8; 2]| {
            let mut answer = query.clone();
            answer[2..4].copy_from_slice(&flags);
            answer
        };
        assert_eq!(problem(&answer([0x81, 0x80]), &query), None);
        let said = |flags| problem(&answer(flags), &query).unwrap_or_default();
        assert!(said([0x81, 0x82]).contains("SERVFAIL"));
        assert!(said([0x81, 0x85]).contains("REFUSED"));
        assert!(said([0x83, 0x80]).contains("--rate-exempt"));
        assert!(is_answer(&answer([0x81, 0x85]), &query) && !is_answer(&query, &query));
    }
}
