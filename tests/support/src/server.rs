//! A DoT server that does what a test tells it to, and writes down what it saw.
//!
//! One thread serves all connections of a server. What it does is data (`Setup`, `Greeting`, `Act`,
//! `End`) and closures that keep their state between queries, so a new way to misbehave is a new
//! closure in a test, or a new variant in [`behaviour`].

pub mod behaviour;
mod connection;
pub mod log;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::server::ServerConfig;
use socket2::SockRef;

use super::authority::Identity;
use behaviour::{Act, Setup};
use connection::Connection;
use log::{ConnectionLog, Log, SharedLog};

/// How long a test waits for an event before it fails. Nothing takes this long, however slow the machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A running server; it stops and closes everything when dropped.
pub struct DotServer {
    address: SocketAddr,
    log: Arc<SharedLog>,
    commands: Arc<Mutex<Vec<Command>>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl DotServer {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(setup: Setup) -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address"), setup)
            .expect("a free port of 127.0.0.1")
    }

    /// Listens where it is told.
    pub fn start_on(address: SocketAddr, setup: Setup) -> io::Result<Self> {
        Self::serve(TcpListener::bind(address)?, setup)
    }

    fn serve(listener: TcpListener, setup: Setup) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        if let Some(octets) = setup.receive_buffer {
            // What it accepts inherits this.
            SockRef::from(&listener).set_recv_buffer_size(octets)?;
        }
        let address = listener.local_addr()?;
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let log = Arc::<SharedLog>::default();
        let commands = Arc::<Mutex<Vec<Command>>>::default();
        let mut server = Loop {
            listener,
            woken,
            commands: Arc::clone(&commands),
            log: Arc::clone(&log),
            config: setup.tls_config(&setup.identity),
            setup,
            connections: BTreeMap::new(),
            accepted: 0,
        };
        let thread = std::thread::Builder::new()
            .name("dot-server".to_owned())
            .spawn(move || server.run())?;
        Ok(Self { address, log, commands, wake, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was seen so far.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock()
    }

    /// Waits until the log shows `what`.
    #[track_caller]
    pub fn await_log(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        self.log.wait(what, condition);
    }

    /// Does this on every connection there is now.
    pub fn perform(&self, act: Act) {
        self.command(Command::Perform(act));
    }

    /// Shows another certificate from the next connection on, and knows no ticket any more.
    pub fn replace_identity(&self, identity: Identity) {
        self.command(Command::Identity(identity));
    }

    fn command(&self, command: Command) {
        self.commands.lock().expect("the server has not panicked").push(command);
        (&self.wake).write_all(&[1]).expect("the server runs");
    }
}

impl Drop for DotServer {
    fn drop(&mut self) {
        // The end of the stream is the signal to stop.
        drop(self.wake.shutdown(Shutdown::Both));
        let result = self.thread.take().expect("dropped once").join();
        assert!(result.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

/// A port at which connections are refused, until a server opens there.
pub struct RefusedPort {
    socket: socket2::Socket,
    address: SocketAddr,
}

impl RefusedPort {
    pub fn reserve() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        // Bound but not listening: the port is ours and refuses.
        socket.bind(&address.into()).expect("a free port");
        let address = socket.local_addr().expect("bound").as_socket().expect("an IP address");
        Self { socket, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a server at this port.
    pub fn open(self, setup: Setup) -> DotServer {
        self.socket.listen(128).expect("a bound socket");
        DotServer::serve(self.socket.into(), setup).expect("a listening socket")
    }
}

/// A port that answers no connection attempt, as if all that is sent there got lost.
pub struct BlackHole {
    _listener: socket2::Socket,
    /// Connections that fill the backlog; the kernel drops what comes after them.
    _filling: Vec<TcpStream>,
    address: SocketAddr,
}

impl BlackHole {
    /// `None` where the kernel still takes connections when the backlog should be full.
    pub fn reserve() -> Option<Self> {
        const WAIT: Duration = Duration::from_millis(200);
        const FILLING_MAX: usize = 8;

        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("a bound socket");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let mut filling = Vec::new();
        while filling.len() < FILLING_MAX {
            match TcpStream::connect_timeout(&address, WAIT) {
                Ok(stream) => filling.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Some(Self { _listener: listener, _filling: filling, address });
                }
                Err(_) => break,
            }
        }
        None
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

enum Command {
    Identity(Identity),
    Perform(Act),
}

/// What the server's thread owns.
struct Loop {
    listener: TcpListener,
    /// One octet for each command.
    woken: UnixStream,
    commands: Arc<Mutex<Vec<Command>>>,
    log: Arc<SharedLog>,
    setup: Setup,
    config: Arc<ServerConfig>,
    /// By number.
    connections: BTreeMap<usize, Connection>,
    accepted: usize,
}

impl Loop {
    fn run(&mut self) {
        loop {
            self.perform_due();
            let (woken, accepting, ready) = self.poll();
            if woken && !self.obey() {
                return;
            }
            if accepting {
                self.accept();
            }
            for number in ready {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.serve(&self.config, &mut self.setup, &self.log);
                }
            }
            self.connections.retain(|_, connection| !connection.is_over());
        }
    }

    /// Waits for an event or the next delayed act: was it a command, a new connection, which others?
    fn poll(&self) -> (bool, bool, Vec<usize>) {
        let mut fds = vec![
            PollFd::new(&self.woken, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        let mut numbers = Vec::new();
        for (&number, connection) in &self.connections {
            let interest = connection.interest();
            if !interest.is_empty() {
                fds.push(PollFd::new(connection.socket(), interest));
                numbers.push(number);
            }
        }
        let idle = self.setup.idle.map(|(idle, _)| idle);
        let next =
            self.connections.values().filter_map(|connection| connection.next_due(idle)).min();
        let wait = next.map(|at| {
            // A little late rather than a little early, which would spin.
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(wait).expect("a short time")
        });
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return (false, false, Vec::new()),
            Err(error) => panic!("poll(2) of open sockets: {error}"),
        }

        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = fds[2..].iter().zip(numbers).filter(|(fd, _)| is_ready(fd));
        (is_ready(&fds[0]), is_ready(&fds[1]), ready.map(|(_, number)| number).collect())
    }

    /// False when it is time to stop.
    fn obey(&mut self) -> bool {
        let mut octets = [0; 64];
        if matches!(self.woken.read(&mut octets), Ok(0)) {
            return false;
        }
        let commands = std::mem::take(&mut *self.commands.lock().expect("no panic"));
        for command in commands {
            match command {
                Command::Identity(identity) => self.config = self.setup.tls_config(&identity),
                Command::Perform(act) => {
                    for connection in self.connections.values_mut() {
                        connection.perform(&self.setup, act.clone());
                        connection.write(&self.setup);
                    }
                }
            }
        }
        true
    }

    fn accept(&mut self) {
        while let Ok((socket, peer)) = self.listener.accept() {
            let number = self.accepted;
            self.accepted += 1;
            // A socket that the other side has reset meanwhile may refuse these; reading tells.
            drop(socket.set_nonblocking(true));
            drop(socket.set_nodelay(true));
            let greeting = (self.setup.greeting)(number);
            let connection = Connection::new(number, socket, greeting, &self.setup);
            let peer = Some(peer);
            let connection_log = ConnectionLog { peer, ..ConnectionLog::default() };
            self.log.record(|log| log.connections.push(connection_log));
            self.connections.insert(number, connection);
        }
    }

    fn perform_due(&mut self) {
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            connection.perform_due(now, &self.setup, &self.log);
        }
        self.connections.retain(|_, connection| !connection.is_over());
    }
}
