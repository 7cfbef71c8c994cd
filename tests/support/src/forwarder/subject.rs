//! The forwarder that is tested: how it is started, and what can be seen of it from outside.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use socket2::SockRef;

use crate::lines::Lines;
use crate::server::LIMIT;

/// A forwarder that can be started.
pub trait Subject: Sync {
    /// The command that starts it, or why it cannot be had so.
    fn command(&self, wanted: &Wanted<'_>) -> Result<Command, String>;

    /// Octets of the receive buffer that its UDP sockets have.
    fn receive_buffer(&self) -> usize;
}

/// What a row wants of the forwarder.
pub struct Wanted<'a> {
    pub listen: SocketAddr,
    /// In the order in which they are to be asked, each with the name its certificate must have.
    pub upstreams: &'a [(SocketAddr, &'a str)],
    pub ca_file: &'a Path,
    pub pins: Pins<'a>,
    /// Seconds after which an idle client is closed, if that can be told.
    pub client_idle: Option<u32>,
    /// Seconds after which an idle connection to an upstream is closed, if that can be told.
    pub upstream_idle: Option<u32>,
}

/// The keys that servers must have, as `sha256/` and base64 each; any key will do if there are none.
#[derive(Clone, Copy, Default)]
pub struct Pins<'a> {
    pub any_of: &'a [String],
    /// Names do not count.
    pub alone: bool,
}

impl Pins<'_> {
    /// What dot-proxy wants behind the address of a server of this name.
    pub fn behind(&self, name: &str) -> String {
        let name = if self.alone { &[][..] } else { &[name.to_owned()] };
        [name, self.any_of].concat().join(",")
    }
}

/// A running forwarder; it is killed when dropped.
pub struct Running {
    child: Child,
    address: SocketAddr,
    lines: Arc<Lines>,
}

impl Running {
    /// Starts it and waits until it listens.
    pub fn start(subject: &dyn Subject, wanted: &Wanted<'_>) -> Result<Self, String> {
        Self::start_command(subject.command(wanted)?, wanted.listen)
    }

    /// Starts it with this command and waits until it listens on this address.
    pub fn start_command(mut command: Command, address: SocketAddr) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: what is started may be a script.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| format!("cannot start it: {error}"))?;
        let lines = Arc::<Lines>::default();
        Lines::collect(&lines, child.stdout.take().expect("a pipe"));
        Lines::collect(&lines, child.stderr.take().expect("a pipe"));
        let mut running = Self { child, address, lines };
        running.await_listening()?;
        Ok(running)
    }

    fn await_listening(&mut self) -> Result<(), String> {
        /// Nothing tells when a program that is not ours begins to listen.
        const PAUSE: Duration = Duration::from_millis(10);

        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if self.child.try_wait().is_ok_and(|exit| exit.is_some()) {
                return Err(format!("it ended at its start and said {:#?}", self.lines()));
            }
            if start.elapsed() > LIMIT {
                return Err(format!("it does not listen on {}", self.address));
            }
            self.lines.wait(PAUSE, |_| false);
        }
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and gives all that it wrote to standard output and standard error: what is told
    /// of a query may come after its response.
    pub fn end(&self) -> Vec<String> {
        const AWAITED: Duration = Duration::from_secs(1);

        kill_process_group(Pid::from_child(&self.child), Signal::TERM).ok();
        self.lines.wait(AWAITED, |_| false);
        self.lines()
    }

    /// What it wrote to standard output and standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.all()
    }

    /// The most memory it ever had, in KiB.
    pub fn peak_memory(&self) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// The number of its open files.
    pub fn open_files(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.id())).ok()?.count())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child may have ended by itself.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        drop(self.child.wait());
    }
}

/// A loopback address that nobody else uses, so that every port of it is free.
pub fn own_host() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);

    let process = std::process::id();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 64 + (process >> 8) as u8 % 128, process as u8, count % 253 + 1)
}

/// What a socket gets that asks for as much as dot-proxy.
pub fn granted_receive_buffer() -> usize {
    const ASKED: usize = 1 << 20;

    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let socket = SockRef::from(&socket);
    socket.set_recv_buffer_size(ASKED).expect("a socket");
    socket.recv_buffer_size().expect("a socket")
}
