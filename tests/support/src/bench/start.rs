//! From the start of a forwarder to its first answer.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::bench::cases::CASES;
use crate::bench::cpu;
use crate::bench::forwarders::Forwarder;
use crate::bench::measure::Bench;
use crate::bench::queries::{Queries, Verdict, judge};
use crate::forwarder::subject;

/// Times of one start, in milliseconds.
pub struct Start {
    /// CPU time until it listens, if it says when.
    pub listening: Option<f64>,
    /// CPU time until the first query is answered, with the TLS handshake.
    pub answered: f64,
    /// The same by the clock.
    pub wall: f64,
    /// CPU time for a query over the open connection.
    pub query: f64,
    /// Resident memory after that.
    pub idle_kib: f64,
}

impl Start {
    /// CPU time of all but the handshake.
    pub fn own(&self) -> Option<f64> {
        self.listening.map(|listening| listening + self.query)
    }

    pub fn handshake(&self) -> Option<f64> {
        self.own().map(|own| self.answered - own)
    }
}

impl Bench<'_> {
    pub fn start(&mut self, forwarder: &Forwarder) -> Result<Start, String> {
        let upstream = self.upstreams.of(CASES[0].upstream)?;
        let listen = SocketAddr::from((subject::own_host(), PORT));
        let mut command = forwarder.command(listen, &upstream.destination())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let begin = Instant::now();
        let child = self.cores.on(self.cores.forwarder, || {
            command.spawn().map_err(|error| format!("{}: {error}", forwarder.name))
        })?;
        let mut child = Killed(child);
        self.cores.on(self.cores.load, || {
            timed(&mut child.0, forwarder.tells(), listen, begin)
                .map_err(|error| format!("{}: {error}", forwarder.name))
        })
    }
}

fn timed(child: &mut Child, tells: bool, address: SocketAddr, begin: Instant) -> io::Result<Start> {
    let pid = child.id();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let mut listening = None;
    if tells {
        let stdout = child.stdout.take().expect("a pipe");
        if BufReader::new(stdout).read_line(&mut String::new())? == 0 {
            return Err(io::Error::other("it ended at its start"));
        }
        listening = Some(used_at_rest(pid)?);
    }
    let asker = Asker::new(address)?;
    while !asker.ask(if tells { PATIENCE } else { AGAIN })? {
        if begin.elapsed() > PATIENCE || child.try_wait()?.is_some() {
            return Err(io::Error::other("it does not answer"));
        }
    }
    let wall = begin.elapsed();
    let answered = used_at_rest(pid)?;
    for _ in 0..WARM {
        if !asker.ask(PATIENCE)? {
            return Err(io::Error::other("it no longer answers"));
        }
    }
    let warm = used_at_rest(pid)?.saturating_sub(answered);
    Ok(Start {
        listening: listening.map(milliseconds),
        answered: milliseconds(answered),
        wall: milliseconds(wall),
        query: milliseconds(warm) / f64::from(WARM),
        idle_kib: resident_kib(pid).ok_or_else(|| io::Error::other("no VmRSS"))?,
    })
}

/// Asks one query at a time.
struct Asker {
    socket: UdpSocket,
    queries: Queries,
    next: std::cell::Cell<u16>,
}

impl Asker {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        let queries = Queries::new(std::process::id(), false);
        Ok(Self { socket, queries, next: 0.into() })
    }

    /// Whether a query is answered in that time.
    fn ask(&self, time: Duration) -> io::Result<bool> {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = self.queries.message().to_vec();
        Queries::set(&mut message, id, id.into());
        self.socket.set_read_timeout(Some(time))?;
        let mut buffer = [0; 2048];
        let mut receive = || -> io::Result<bool> {
            self.socket.send(&message)?;
            loop {
                let len = self.socket.recv(&mut buffer)?;
                if judge(&buffer[..len], id.into()) != Verdict::Wrong {
                    return Ok(judge(&buffer[..len], id.into()) == Verdict::Answered);
                }
            }
        };
        match receive() {
            // The forwarder does not listen yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            result => result,
        }
    }
}

/// The CPU time of a process once all its threads wait: before that the last stretch is not counted.
fn used_at_rest(pid: u32) -> io::Result<Duration> {
    let waits = || -> io::Result<bool> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            // The state comes behind the name, which may hold anything.
            let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if state.is_some_and(|state| state == 'R') {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let begin = Instant::now();
    while !waits()? && begin.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    cpu::of_process(pid)
}

fn resident_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The child may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The port, free as the address is this program's alone.
const PORT: u16 = 5300;

/// Nothing takes that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a forwarder that does not say that it listens is asked, until it answers.
const AGAIN: Duration = Duration::from_millis(4);

/// Queries over the open connection.
const WARM: u16 = 200;
