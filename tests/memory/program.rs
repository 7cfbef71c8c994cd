//! A program under test whose standard error nobody reads.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use rustix::process::{Pid, Signal, kill_process};

use support::server::LIMIT;

/// A proxy that runs in a process of its own; killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Program {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut program = Self { child, lines, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = program.await_line("listening ");
        let address = line.strip_suffix(" udp tcp").and_then(|address| address.parse().ok());
        program.address = address.expect("an address");
        program
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What follows this in a line on its standard output.
    #[track_caller]
    pub(crate) fn await_line(&mut self, start: &str) -> String {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once(start) {
                        return rest.to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line {start:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended before {start:?}: {:?}", self.child.wait())
                }
            }
        }
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The child may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
