//! Steady queries through a proxy whose upstream is killed again and again; `scripts/soak` runs it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::message::{self, A, NOERROR, SERVFAIL};
use support::{Query, Response};

const USAGE: &str = "\
usage: soak --proxy PROGRAM --server PROGRAM [--seconds N]
  --proxy PROGRAM     dot-proxy
  --server PROGRAM    dot-server
  --seconds N         how long to ask (600)
Asks 200 queries a second: 100 over UDP, 50 pipelined on a TCP connection, 50 on a connection each.
The server is killed every 5 s and started again on its port. The exit code is 1 if a query was lost.
";

/// A query each, for three clients: 100, 50 and 50 a second.
const UDP_PACE: Duration = Duration::from_millis(10);
const PIPELINED_PACE: Duration = Duration::from_millis(20);
const SINGLE_PACE: Duration = Duration::from_millis(20);

const KILL_PACE: Duration = Duration::from_secs(5);

/// A query has its response 4.5 s after it came; what has none after this was lost.
const LOST_AFTER: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    match parse().and_then(|options| options.map_or(Ok(true), |options| soak(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    proxy: PathBuf,
    server: PathBuf,
    duration: Duration,
}

/// `None`: only help was wanted.
fn parse() -> Result<Option<Options>, String> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{USAGE}");
        return Ok(None);
    }
    let wrong = |error: pico_args::Error| error.to_string();
    let proxy = args.value_from_str("--proxy").map_err(wrong)?;
    let server = args.value_from_str("--server").map_err(wrong)?;
    let seconds: Option<u64> = args.opt_value_from_str("--seconds").map_err(wrong)?;
    if let Some(stray) = args.finish().first() {
        return Err(format!("unknown argument {}; see --help", stray.display()));
    }
    let duration = Duration::from_secs(seconds.unwrap_or(600));
    Ok(Some(Options { proxy, server, duration }))
}

/// Whether nothing was lost.
fn soak(options: &Options) -> Result<bool, String> {
    let directory = std::env::temp_dir().join(format!("dot-proxy-soak-{}", std::process::id()));
    let result = soak_in(&directory, options);
    // The server may not have come so far as to make it.
    drop(fs::remove_dir_all(&directory));
    result.map_err(|error| error.to_string())
}

fn soak_in(directory: &Path, options: &Options) -> io::Result<bool> {
    let (mut server, upstream) = start_server(&options.server, free_address()?, directory)?;
    let (mut proxy, address) = start_proxy(&options.proxy, upstream, directory)?;
    let stderr = proxy.child.stderr.take().expect("a pipe");
    let logger =
        std::thread::spawn(|| BufReader::new(stderr).lines().map_while(Result::ok).collect());
    let pid = Pid::from_child(&proxy.child);

    let [udp, pipelined, single] = [(); 3].map(|()| Tally::default());
    let is_over = AtomicBool::new(false);
    let mut kills = 0;
    let mut uses = Vec::new();
    std::thread::scope(|scope| -> io::Result<()> {
        // However this ends, the clients end.
        let _over = SetOnDrop(&is_over);
        scope.spawn(|| ask_over_udp(address, &udp, &is_over));
        scope.spawn(|| ask_pipelined(address, &pipelined, &is_over));
        scope.spawn(|| ask_one_by_one(address, &single, &is_over));

        let start = Instant::now();
        // After a minute everything there is was in use.
        let settled = start + Duration::from_secs(60).min(options.duration / 2);
        let mut kill_at = start + KILL_PACE;
        while start.elapsed() < options.duration {
            let now = Instant::now();
            if uses.is_empty() && now >= settled {
                uses.push(Use::of(pid)?);
            }
            if now >= kill_at {
                server.child.kill()?;
                server.child.wait()?;
                (server, _) = start_server(&options.server, upstream, directory)?;
                kill_at += KILL_PACE;
                kills += 1;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        uses.push(Use::of(pid)?);
        Ok(())
    })?;

    kill_process(pid, Signal::TERM)?;
    let status = proxy.child.wait()?;
    let lines: Vec<String> = logger.join().expect("a thread that only reads");

    println!("{:<11}{}", "", Tally::HEADINGS);
    for (name, tally) in [("UDP", &udp), ("pipelined", &pipelined), ("single", &single)] {
        println!("{name:<11}{}", tally.row());
    }
    println!("upstream killed {kills} times in {} s", options.duration.as_secs());
    for (when, usage) in ["settled", "at the end"].iter().zip(&uses) {
        println!("{when}: {} descriptors, {} KiB resident", usage.descriptors, usage.resident_kib);
    }
    println!("log: {} lines", lines.len());
    let (first, rest) = lines.split_at(lines.len().min(20));
    for line in first {
        println!("    {line}");
    }
    if !rest.is_empty() {
        println!("    and {} more", rest.len());
    }
    println!("the proxy ended with {status}");
    let is_good = [&udp, &pipelined, &single].iter().all(|tally| tally.is_good());
    Ok(is_good && status.success())
}

/// Below the ports that the kernel gives away by itself: while the server is down, one of those could go
/// to the very connection that is made to it.
fn free_address() -> io::Result<SocketAddr> {
    (8_853..32_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| io::Error::other("no free port"))
}

/// A child that does not outlive its use.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start_server(
    program: &Path,
    address: SocketAddr,
    directory: &Path,
) -> io::Result<(Running, SocketAddr)> {
    let mut command = Command::new(program);
    command.args(["--listen", &address.to_string()]);
    command.arg("--identity").arg(directory).arg("--ca-out").arg(directory.join("ca.pem"));
    start(command)
}

fn start_proxy(
    program: &Path,
    upstream: SocketAddr,
    directory: &Path,
) -> io::Result<(Running, SocketAddr)> {
    let mut command = Command::new(program);
    command.args(["--listen", "127.0.0.1:0", "--query-log", "off"]);
    command.args(["--upstream", &format!("{upstream}#dot.example")]);
    command.arg("--ca-file").arg(directory.join("ca.pem")).stderr(Stdio::piped());
    if !geteuid().is_root() {
        // Its descriptors are counted, which takes root where there is a sandbox.
        command.args(["--sandbox", "off"]);
    }
    start(command)
}

/// Starts a program that prints `listening ADDRESS` first, with or without more behind it.
fn start(mut command: Command) -> io::Result<(Running, SocketAddr)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut running = Running { child };
    let mut line = String::new();
    let stdout: ChildStdout = running.child.stdout.take().expect("a pipe");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line)?;
    // The server prints no more than a pipe holds.
    running.child.stdout = Some(stdout.into_inner());
    let mut words = line.split_whitespace();
    match (words.next(), words.next().map(str::parse)) {
        (Some("listening"), Some(Ok(address))) => Ok((running, address)),
        _ => Err(io::Error::other(format!("{command:?} does not start: {line:?}"))),
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a process uses.
struct Use {
    descriptors: usize,
    resident_kib: u64,
}

impl Use {
    /// The least of a second, as clients come and go.
    fn of(pid: Pid) -> io::Result<Self> {
        let mut least = Self { descriptors: usize::MAX, resident_kib: u64::MAX };
        for _ in 0..20 {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
            let resident_kib = kib.ok_or_else(|| io::Error::other("no VmRSS"))?;
            least.descriptors = least.descriptors.min(descriptors);
            least.resident_kib = least.resident_kib.min(resident_kib);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(least)
    }
}

/// The queries of a client and what became of them.
#[derive(Default)]
struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    asked: u64,
    /// By ID.
    waiting: HashMap<u16, Instant>,
    noerror: u64,
    servfail: u64,
    other: u64,
    lost: u64,
    /// Responses that nobody waits for.
    stray: u64,
    worst: Duration,
}

impl Tally {
    const HEADINGS: &'static str =
        "queries   NOERROR  SERVFAIL     other      lost     stray  worst delay";

    /// The next query, which is waited for from now on.
    fn next_query(&self, client: &str) -> (u16, Vec<u8>) {
        let mut counts = self.0.lock().expect("no panic");
        let number = counts.asked;
        let id = number as u16;
        counts.asked += 1;
        if counts.waiting.insert(id, Instant::now()).is_some() {
            counts.lost += 1;
        }
        (id, Query::new(&format!("n{number}.{client}.example"), A).id(id).bytes())
    }

    fn take_response(&self, octets: &[u8]) {
        let response = Response::read(octets);
        let mut counts = self.0.lock().expect("no panic");
        let Some(sent) = counts.waiting.remove(&response.id) else {
            counts.stray += 1;
            return;
        };
        counts.worst = counts.worst.max(sent.elapsed());
        match response.rcode {
            NOERROR => counts.noerror += 1,
            SERVFAIL => counts.servfail += 1,
            _ => counts.other += 1,
        }
    }

    /// Counts a query that will never have a response.
    fn give_up(&self, id: u16) {
        let mut counts = self.0.lock().expect("no panic");
        if counts.waiting.remove(&id).is_some() {
            counts.lost += 1;
        }
    }

    fn give_up_all(&self) {
        let mut counts = self.0.lock().expect("no panic");
        counts.lost += counts.waiting.drain().count() as u64;
    }

    fn is_waiting(&self) -> bool {
        !self.0.lock().expect("no panic").waiting.is_empty()
    }

    fn row(&self) -> String {
        let counts = self.0.lock().expect("no panic");
        let Counts { asked, noerror, servfail, other, lost, stray, worst, .. } = &*counts;
        let worst = worst.as_millis();
        format!(
            "{asked:>7}{noerror:>10}{servfail:>10}{other:>10}{lost:>10}{stray:>10}{worst:>10} ms"
        )
    }

    fn is_good(&self) -> bool {
        let counts = self.0.lock().expect("no panic");
        counts.asked > 0 && counts.lost == 0 && counts.stray == 0
    }
}

/// Calls it once each `pace` until that is over.
fn steadily(pace: Duration, is_over: &AtomicBool, mut ask: impl FnMut()) {
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += pace;
        ask();
    }
}

fn ask_over_udp(proxy: SocketAddr, tally: &Tally, is_over: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(proxy).expect("a loopback address");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
    let is_sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut octets = [0; 4096];
            let mut last_sent = Instant::now();
            loop {
                // An error of the socket is what became of a query that is then found lost.
                if let Ok(len) = socket.recv(&mut octets) {
                    tally.take_response(&octets[..len]);
                }
                if !is_sent.load(Ordering::Relaxed) {
                    last_sent = Instant::now();
                } else if !tally.is_waiting() || last_sent.elapsed() > LOST_AFTER {
                    return tally.give_up_all();
                }
            }
        });
        let _sent = SetOnDrop(&is_sent);
        steadily(UDP_PACE, is_over, || {
            let (id, query) = tally.next_query("udp");
            if socket.send(&query).is_err() {
                tally.give_up(id);
            }
        });
    });
}

/// On one connection at a time, without waiting for responses.
fn ask_pipelined(proxy: SocketAddr, tally: &Tally, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(proxy).expect("the proxy listens");
        stream.set_read_timeout(Some(LOST_AFTER)).expect("a time");
        let is_closed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _closed = SetOnDrop(&is_closed);
                while let Ok(octets) = read_message(&stream) {
                    tally.take_response(&octets);
                }
            });
            let end = AtomicBool::new(false);
            steadily(PIPELINED_PACE, &end, || {
                let (id, query) = tally.next_query("pipelined");
                if (&stream).write_all(&message::framed(&query)).is_err() {
                    tally.give_up(id);
                }
                let is_done = is_over.load(Ordering::Relaxed) || is_closed.load(Ordering::Relaxed);
                end.store(is_done, Ordering::Relaxed);
            });
            // What is owed comes yet, then the end. An error: it came already.
            drop(stream.shutdown(Shutdown::Write));
        });
        tally.give_up_all();
    }
}

/// Each on a connection of its own.
fn ask_one_by_one(proxy: SocketAddr, tally: &Tally, is_over: &AtomicBool) {
    std::thread::scope(|scope| {
        steadily(SINGLE_PACE, is_over, || {
            let (id, query) = tally.next_query("single");
            scope.spawn(move || match ask_once(proxy, &query) {
                Ok(octets) => tally.take_response(&octets),
                Err(_) => tally.give_up(id),
            });
        });
    });
}

fn ask_once(proxy: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(LOST_AFTER))?;
    stream.write_all(&message::framed(query))?;
    read_message(&stream)
}

fn read_message(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut octets = vec![0; u16::from_be_bytes(length).into()];
    match stream.read_exact(&mut octets) {
        Ok(()) => Ok(octets),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    }
}
