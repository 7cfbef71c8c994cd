//! Terminals: what is on them, and row H12: those that nobody reads, of the program's user and of another.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fchmod, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, write};
use rustix::process::{Signal, geteuid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::start::Copied;
use support::message::{A, NOERROR};
use support::proxy::arguments;
use support::server::LIMIT;
use support::skip::skip;
use support::{Authority, DotServer, Proxy, Query, Response, Setup, UdpClient};

/// More lines than a terminal and a pipe hold, of 200 octets at least.
const QUERIES: usize = 1_500;

/// A terminal that only its user may open, and the side that is to be written to.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).expect("a terminal");
    unlockpt(&terminal).expect("a terminal");
    let peer = ioctl_tiocgptpeer(&terminal, flags).expect("a terminal");
    fchmod(&peer, Mode::RUSR | Mode::WUSR).expect("our terminal");
    (terminal, peer)
}

/// Writes to it until it takes no more.
fn fill(peer: &OwnedFd) {
    // What was written moves on to the reader's side, a moment later, until that is full as well.
    const MOMENT: Duration = Duration::from_millis(100);

    let flags = fcntl_getfl(peer).expect("our terminal");
    fcntl_setfl(peer, flags | OFlags::NONBLOCK).expect("our terminal");
    let mut taken_at = Instant::now();
    while taken_at.elapsed() < MOMENT {
        match write(peer, b".") {
            Ok(_) => taken_at = Instant::now(),
            Err(Errno::AGAIN) => std::thread::sleep(MOMENT / 10),
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(peer, flags).expect("our terminal");
}

#[track_caller]
fn assert_answers(address: SocketAddr, queries: usize) {
    let client = UdpClient::new(address);
    let long = format!("{0}.{0}.{0}", "long".repeat(15));
    for n in 0..queries {
        let response = client.ask(&Query::new(&format!("n{n}.{long}.example"), A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
    }
}

#[test]
fn h12_an_unread_terminal_of_another_user_stops_nothing() {
    const NAME: &str = "h12_an_unread_terminal_of_another_user_stops_nothing";

    if !geteuid().is_root() {
        return skip(NAME, "only root can start a process as another user");
    }
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let program = Copied::new(NAME);
    let (_terminal, peer) = terminal();
    let args = arguments(&authority, &[server.address()], &[]);
    let mut proxy = Proxy::start_through_with_stderr(&program.as_nobody(), &args, peer);
    assert_answers(proxy.address(), QUERIES);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.await_exit().code(), Some(0));
}

/// What comes to a terminal until `is_all` of it is there, without the carriage returns that it adds.
#[track_caller]
fn screen(terminal: OwnedFd, is_all: impl Fn(&str) -> bool) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut terminal = File::from(terminal);
        let mut buffer = [0; 4096];
        // The read fails once no one has the other side.
        while let Ok(len @ 1..) = terminal.read(&mut buffer)
            && sender.send(buffer[..len].to_vec()).is_ok()
        {}
    });
    let mut octets = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&octets).replace('\r', "");
        if is_all(&text) {
            return text;
        }
        let more = receiver.recv_timeout(LIMIT);
        octets.extend(more.unwrap_or_else(|_| panic!("this is all: {text}")));
    }
}

#[test]
fn the_query_log_has_columns_and_colours_on_a_terminal_that_takes_them() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let plain = "SUCCESS A     NOERROR ";
    for (variables, args, is_coloured, columns) in [
        (
            &["env", "TERM=xterm", "--unset=NO_COLOR"][..],
            &["--query-log", "auto"][..],
            true,
            "\u{1b}[32mSUCCESS\u{1b}[0m A     NOERROR ",
        ),
        (&["env", "TERM=xterm", "NO_COLOR=1"], &["--query-log", "auto"], false, plain),
        (&["env", "TERM=dumb", "--unset=NO_COLOR"], &["--query-log", "on"], false, plain),
        (
            &["env", "TERM=xterm", "--unset=NO_COLOR"],
            &["--query-log", "on", "--log-format", "json"],
            false,
            " A NOERROR ",
        ),
    ] {
        let (terminal, peer) = terminal();
        let args = arguments(&authority, &[server.address()], args);
        let proxy = Proxy::start_through_with_stderr(variables, &args, peer);
        assert_answers(proxy.address(), 1);
        let is_line = |text: &str| text.split_once(" via ").is_some_and(|it| it.1.contains('\n'));
        let text = screen(terminal, is_line);
        assert!(text.contains(columns), "{text}");
        assert_eq!(text.contains('\u{1b}'), is_coloured, "{text}");
    }
}

#[test]
fn the_start_is_told_in_plain_words_on_a_terminal() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    for (variables, bold, plain) in [
        (["env", "TERM=xterm", "--unset=NO_COLOR"], "\u{1b}[1m", "\u{1b}[0m"),
        (["env", "TERM=xterm", "NO_COLOR=1"], "", ""),
    ] {
        let (terminal, peer) = terminal();
        let args = arguments(&authority, &[server.address()], &["--metrics", "127.0.0.1:0"]);
        let proxy = Proxy::start_through_with_stderr(&variables, &args, peer);
        let text = screen(terminal, |text| text.contains(" example.com\n"));
        let (address, metrics) = (proxy.address(), proxy.metrics());
        for (what, words) in [
            ("listens on", format!("{address}, over UDP and TCP")),
            ("asks      ", format!("{}#dot.example", server.address())),
            ("checks    ", "that a certificate proves the name behind #".to_owned()),
            ("serves    ", "this host".to_owned()),
            ("metrics   ", format!("http://{metrics}/metrics")),
            ("try       ", format!("dig @127.0.0.1 -p {} example.com", address.port())),
        ] {
            assert!(text.contains(&format!("\n  {bold}{what} {plain}{words}")), "{what}: {text}");
        }
        assert!(!text.contains("listening on"), "{text}");
    }
    // Where stdout is the same terminal, what is there for programs is left out.
    let (terminal, peer) = terminal();
    let _running = Running(
        // A signal that waits from before the start has a summary follow the start.
        Command::new("env")
            .args(["--block-signal=USR1", "bash", "-c", "kill -USR1 $$; exec \"$@\"", "bash"])
            .args([env!("CARGO_BIN_EXE_dot-proxy"), "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(peer.try_clone().expect("a descriptor"))
            .stderr(peer)
            .spawn()
            .expect("the program starts"),
    );
    let text = screen(terminal, |text| text.contains("dot-proxy: up "));
    assert!(text.contains("listens on") && !text.contains("\nlistening "), "{text}");
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The child may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn h12_a_terminal_that_is_full_at_the_start_stops_nothing() {
    const NAME: &str = "h12_a_terminal_that_is_full_at_the_start_stops_nothing";

    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let program = Copied::new(NAME);
    let (own, shifted) = (vec![env!("CARGO_BIN_EXE_dot-proxy")], vec!["dot-proxy"]);
    let commands = if geteuid().is_root() {
        vec![own, [program.as_nobody(), shifted].concat()]
    } else {
        vec![own]
    };
    for command in commands {
        let (_terminal, peer) = terminal();
        fill(&peer);
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        drop(taken);
        let listen = ["--listen", &address.to_string()];
        let mut command = command.iter();
        let _running = Running(
            Command::new(command.next().expect("a program"))
                .args(command)
                .args(arguments(&authority, &[server.address()], &listen))
                .stdin(Stdio::null())
                .stdout(peer.try_clone().expect("a descriptor"))
                .stderr(peer)
                .spawn()
                .expect("the program starts"),
        );
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < LIMIT, "it does not listen");
        }
        assert_answers(address, 1);
    }
}
