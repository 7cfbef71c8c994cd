//! The real program as a child of the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal, kill_process};

use super::authority::Authority;
use super::lines::Lines;
use super::server::{DotServer, LIMIT};

/// A running proxy; it is killed when dropped.
pub struct Proxy {
    child: Child,
    listeners: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
    stdout: Receiver<String>,
    stderr: Arc<Lines>,
}

impl Proxy {
    /// Starts it with these arguments, on a free port of 127.0.0.1 unless they say where to listen.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        Self::start_through(&[], args)
    }

    /// Starts it through another program, given with its arguments: one that changes what it is
    /// given to run in, and then becomes what is named behind it.
    #[track_caller]
    pub fn start_through<S: AsRef<OsStr>>(wrapper: &[&str], args: &[S]) -> Self {
        Self::start_through_with_stderr(wrapper, args, Stdio::piped())
    }

    /// Starts it with these arguments, listening where it does if nobody tells it.
    #[track_caller]
    pub fn start_where_it_likes<S: AsRef<OsStr>>(args: &[S]) -> Self {
        let mut command = Command::new(program());
        command.args(args).stderr(Stdio::piped());
        Self::spawn(command, args)
    }

    /// Starts it with a standard error of the test's own.
    #[track_caller]
    pub fn start_with_stderr<S: AsRef<OsStr>>(args: &[S], stderr: impl Into<Stdio>) -> Self {
        Self::start_through_with_stderr(&[], args, stderr)
    }

    /// Starts it through another program, as in [`Self::start_through`], with a standard error of the
    /// test's own.
    #[track_caller]
    pub fn start_through_with_stderr<S: AsRef<OsStr>>(
        wrapper: &[&str],
        args: &[S],
        stderr: impl Into<Stdio>,
    ) -> Self {
        let mut command = through(wrapper, args);
        command.stderr(stderr);
        Self::spawn(command, args)
    }

    /// Starts it with these servers as upstreams, each as dot.example, and the authority trusted. The
    /// query log is on.
    #[track_caller]
    pub fn before(authority: &Authority, servers: &[&DotServer], more: &[&str]) -> Self {
        let upstreams: Vec<_> = servers.iter().map(|server| server.address()).collect();
        Self::start(&arguments(authority, &upstreams, more))
    }

    #[track_caller]
    fn spawn<S: AsRef<OsStr>>(mut command: Command, args: &[S]) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::default();
        if let Some(pipe) = child.stderr.take() {
            Lines::collect(&stderr, pipe);
        }
        let listeners = Vec::with_capacity(listen_count(args));
        let mut proxy = Self { child, listeners, metrics: None, stdout: receiver, stderr };
        proxy.await_listening(args);
        proxy
    }

    #[track_caller]
    fn await_listening<S: AsRef<OsStr>>(&mut self, args: &[S]) {
        for _ in 0..listen_count(args) {
            let Ok(line) = self.stdout.recv_timeout(LIMIT) else {
                panic!(
                    "no line for a listener on standard output; standard error: {:#?}",
                    self.lines()
                );
            };
            let address = line
                .strip_prefix("listening ")
                .and_then(|rest| rest.strip_suffix(" udp tcp"))
                .and_then(|address| address.parse().ok());
            let Some(address) = address else { panic!("not a line for a listener: {line:?}") };
            self.listeners.push(address);
        }
        if args.iter().any(|arg| arg.as_ref() == "--metrics") {
            let line = self.stdout.recv_timeout(LIMIT).unwrap_or_default();
            let address = line
                .strip_prefix("metrics ")
                .and_then(|rest| rest.strip_suffix(" tcp")?.parse().ok());
            assert!(address.is_some(), "not a line for metrics: {line:?}");
            self.metrics = address;
        }
    }

    /// Where it listens; the first place, if there are several.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// Where its metrics are.
    #[track_caller]
    pub fn metrics(&self) -> SocketAddr {
        self.metrics.expect("it was started with --metrics")
    }

    pub fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// What it wrote to standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Waits for a line on standard error.
    #[track_caller]
    pub fn await_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.await_lines(what, 1, is_it).swap_remove(0)
    }

    /// Waits for so many lines on standard error, and gives all there are.
    #[track_caller]
    pub fn await_lines(
        &self,
        what: &str,
        count: usize,
        is_it: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let found = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| is_it(line)).cloned().collect()
        };
        self.stderr.wait(LIMIT, |lines| found(lines).len() >= count);
        let lines = found(&self.lines());
        assert!(lines.len() >= count, "no {what} on standard error: {:#?}", self.lines());
        lines
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the proxy runs");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn await_exit(&mut self) -> ExitStatus {
        // The proxy's standard output ends with it.
        loop {
            match self.stdout.recv_timeout(LIMIT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the proxy does not end; standard error: {:#?}", self.lines())
                }
            }
        }
        self.child.wait().expect("a child of ours")
    }

    /// Asks it to end, and gives all that it wrote to standard error.
    #[track_caller]
    pub fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        self.stopped()
    }

    /// The same when it was asked already.
    #[track_caller]
    pub fn stopped(mut self) -> Vec<String> {
        let status = self.await_exit();
        assert_eq!(status.code(), Some(0), "{status}; standard error: {:#?}", self.lines());
        self.stderr.wait(LIMIT, |_| false);
        self.lines()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The proxy may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A run that is expected to fail: its exit code, standard output and standard error.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> (Option<i32>, String, String) {
    run_through(&[], args)
}

/// The same through another program, as in [`Proxy::start_through`].
#[track_caller]
pub fn run_through<S: AsRef<OsStr>>(wrapper: &[&str], args: &[S]) -> (Option<i32>, String, String) {
    let mut command = through(wrapper, args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let (sender, receiver) = mpsc::channel();
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    std::thread::spawn(move || {
        let (mut out, mut err) = (String::new(), String::new());
        let read = stdout.read_to_string(&mut out).and_then(|_| stderr.read_to_string(&mut err));
        // The test may have given up.
        drop(sender.send(read.map(|_| (out, err))));
    });
    let Ok(output) = receiver.recv_timeout(LIMIT) else {
        drop(child.kill());
        drop(child.wait());
        panic!("the program goes on running");
    };
    let (out, err) = output.expect("text");
    (child.wait().expect("a child of ours").code(), out, err)
}

/// The arguments for these upstreams, each as dot.example, the authority trusted, the query log on.
pub fn arguments(authority: &Authority, upstreams: &[SocketAddr], more: &[&str]) -> Vec<String> {
    let mut args = vec!["--ca-file".to_owned(), authority.file().display().to_string()];
    for upstream in upstreams {
        args.extend(["--upstream".to_owned(), format!("{upstream}#dot.example")]);
    }
    if !more.contains(&"--query-log") {
        args.extend(["--query-log".to_owned(), "on".to_owned()]);
    }
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    args
}

fn through<S: AsRef<OsStr>>(wrapper: &[&str], args: &[S]) -> Command {
    let mut command = match wrapper {
        [] => Command::new(program()),
        [wrapper, arguments @ ..] => {
            let mut command = Command::new(wrapper);
            command.args(arguments).arg(program());
            command
        }
    };
    let is_told =
        args.iter().any(|arg| ["--listen", "check", "health"].iter().any(|it| arg.as_ref() == *it));
    if !is_told {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(args);
    command
}

fn listen_count<S: AsRef<OsStr>>(args: &[S]) -> usize {
    args.iter().filter(|arg| arg.as_ref() == "--listen").count().max(1)
}

/// The program, which cargo builds beside the directory of the tests that it builds.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

    PROGRAM.get_or_init(|| {
        let mut directory = std::env::current_exe().expect("this program");
        directory.pop();
        if directory.ends_with("deps") {
            directory.pop();
        }
        directory.join("dot-proxy")
    })
}
