//! The upstreams of the cases, each a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustls::ProtocolVersion;

use crate::bench::cases::Kind;
use crate::bench::forwarders::{Destination, NAME};
use crate::bench::machine::Cores;
use crate::forwarder::subject;

/// The upstreams that were needed so far.
pub struct Upstreams<'a> {
    cores: &'a Cores,
    directory: &'a Path,
    running: Vec<(Kind, Upstream)>,
}

/// A running upstream; it is killed when dropped.
pub struct Upstream {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    ca_file: PathBuf,
}

/// What an upstream saw.
#[derive(Clone, Copy)]
pub struct Seen {
    pub queries: u64,
    pub connections: u64,
}

impl<'a> Upstreams<'a> {
    pub fn new(cores: &'a Cores, directory: &'a Path) -> Self {
        Self { cores, directory, running: Vec::new() }
    }

    /// The one of this kind.
    pub fn of(&mut self, kind: Kind) -> Result<&mut Upstream, String> {
        let found = self.running.iter().position(|(other, _)| *other == kind);
        let place = found.unwrap_or(self.running.len());
        if found.is_none() {
            let ca_file = self.directory.join(format!("ca-{place}.pem"));
            let upstream = self
                .cores
                .on(self.cores.upstream, || Upstream::of_kind(kind, ca_file))
                .map_err(|error| format!("the upstream: {error}"))?;
            self.running.push((kind, upstream));
        }
        Ok(&mut self.running[place].1)
    }
}

impl Upstream {
    fn of_kind(kind: Kind, ca_file: PathBuf) -> Result<Self, String> {
        let version = match kind.version.version {
            ProtocolVersion::TLSv1_2 => "1.2",
            _ => "1.3",
        };
        let listen = SocketAddr::from((subject::own_host(), PORT));
        let delay = kind.delay.as_millis().to_string();
        Self::start(listen, ca_file, &["--tls", version, "--delay-ms", &delay])
    }

    /// Starts one that listens there, with more arguments of `bench upstream`.
    pub fn start(listen: SocketAddr, ca_file: PathBuf, more: &[&str]) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(own)
            .args(["upstream", "--end-with-stdin", "--name", NAME])
            .args(["--listen", &listen.to_string()])
            .args(more)
            .arg("--ca-out")
            .arg(&ca_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut upstream = Self { child, stdin, stdout, address: listen, ca_file };
        let line = upstream.line()?;
        if !line.starts_with("listening ") {
            return Err(format!("it said {line:?} and not where it listens"));
        }
        // How to start a forwarder by hand.
        upstream.line()?;
        Ok(upstream)
    }

    pub fn destination(&self) -> Destination<'_> {
        Destination { address: self.address, ca_file: &self.ca_file }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many queries it saw so far.
    pub fn queries(&mut self) -> Result<u64, String> {
        self.counts().map(|seen| seen.queries)
    }

    /// What it saw so far.
    pub fn counts(&mut self) -> Result<Seen, String> {
        self.stdin.write_all(b"\n").map_err(|error| format!("the upstream: {error}"))?;
        let line = self.line()?;
        let number = |name: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let seen = number("queries")
            .zip(number("connections"))
            .map(|(queries, connections)| Seen { queries, connections });
        seen.ok_or_else(|| format!("the upstream said {line:?} and not what it saw"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err("the upstream ended".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the upstream: {error}")),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // The child may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The port, free as the address is this program's alone.
pub const PORT: u16 = 8853;
