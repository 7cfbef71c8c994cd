//! Row H10: signals that are not meant to end the program, that come twice, or are blocked.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use support::message::{A, NOERROR};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{
    Act, Authority, DotServer, Proxy, Query, RefusedPort, Response, Setup, UdpClient, answers,
};

/// A server that answers when it is told to.
struct Held {
    authority: Authority,
    server: DotServer,
}

impl Held {
    fn new() -> Self {
        let authority = Authority::new();
        let setup = Setup::new(authority.identity("dot.example")).handler(|_| Vec::new());
        let server = DotServer::start(setup);
        Self { authority, server }
    }

    fn args(&self) -> Vec<String> {
        arguments(&self.authority, &[self.server.address()], &[])
    }

    /// A client to whom an answer is owed.
    fn ask(&self, proxy: &Proxy) -> UdpClient {
        let client = UdpClient::new(proxy.address());
        let before = self.server.log().queries.len();
        client.send(&Query::new("held.example", A).id(1).bytes());
        self.server.await_log("the query", |log| log.queries.len() > before);
        client
    }

    /// Has the server answer the last query, and the client get that.
    #[track_caller]
    fn assert_answered(&self, client: &UdpClient) {
        let (_, query) = self.server.log().queries.last().expect("a query").clone();
        let answer = answers::answer(&query).expect("a query");
        self.server.perform(Act::Send(answer));
        let response = Response::read(&client.receive());
        assert_eq!((response.id, response.rcode), (1, NOERROR));
    }
}

#[test]
fn h10_what_is_not_meant_to_end_it_does_not() {
    let held = Held::new();
    let mut proxy = Proxy::start(&held.args());
    let signals =
        [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE, Signal::XFSZ, Signal::TTOU];
    for signal in signals {
        let client = held.ask(&proxy);
        // Twice, as one may be kept and the other not.
        proxy.signal(signal);
        proxy.signal(signal);
        held.assert_answered(&client);
    }
    let client = held.ask(&proxy);
    proxy.signal(Signal::TERM);
    held.assert_answered(&client);
    assert_eq!(proxy.await_exit().code(), Some(0));
}

#[test]
fn sigusr1_asks_how_the_service_does_from_the_start_on() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let refused = RefusedPort::reserve();
    // The second one fails, and the level of the log leaves out what nobody asked for.
    let upstreams = [refused.address(), server.address()];
    let args = arguments(&authority, &upstreams, &["--log-level", "error", "--query-log", "off"]);
    let proxy = Proxy::start(&args);
    let client = UdpClient::new(proxy.address());
    for _ in 0..3 {
        client.ask(&Query::new("google.com", A).bytes());
    }
    client.ask(&Query::new("localhost", A).bytes());
    proxy.signal(Signal::USR1);
    let lines = proxy.await_lines("lines of a summary", 3, |line| line.starts_with("dot-proxy: "));
    let [all, first, second] = &lines[..] else { panic!("{lines:#?}") };
    assert!(
        all.starts_with("dot-proxy: up ") && all.contains(" s: 4 queries, 3 answered"),
        "{all}"
    );
    assert!(all.contains(", 0 failed, 1 answered here, "), "{all}");
    let [down, up] = upstreams.map(|address| format!("dot-proxy: {address}#dot.example: "));
    assert!(first.starts_with(&format!("{down}not usable for 0 s: connect: ")), "{first}");
    assert!(first.contains("; 0 connections, 0 queries sent, "), "{first}");
    assert!(second.starts_with(&format!("{up}usable; 1 connection, 3 queries sent, ")), "{second}");
    assert!(second.contains(" ms lately, 0 failures to connect"), "{second}");
    // One that is asked twice before it has started goes on, and answers once.
    let wrapper = ["bash", "-c", "kill -USR1 $$; exec \"$@\"", "bash"];
    let blocked = ["env", "--block-signal=USR1"];
    let proxy = Proxy::start_through(&[&blocked[..], &wrapper].concat(), &args);
    proxy.await_line("a summary", |line| line.starts_with("dot-proxy: up 0 s: 0 queries"));
    assert_eq!(proxy.stop().iter().filter(|line| line.contains("dot-proxy: up ")).count(), 1);
}

#[test]
fn h10_a_request_that_comes_twice_is_one() {
    for signals in [
        [Signal::TERM, Signal::TERM],
        [Signal::INT, Signal::INT],
        // systemd's SendSIGHUP=, at the end of a session.
        [Signal::TERM, Signal::HUP],
    ] {
        let held = Held::new();
        let is_one = || {
            let mut proxy = Proxy::start(&held.args());
            let client = held.ask(&proxy);
            let start = Instant::now();
            proxy.signal(signals[0]);
            // Two that wait are one to the kernel, so the second comes when the first was taken.
            await_no_listener(&proxy);
            proxy.signal(signals[1]);
            let is_in_time = start.elapsed() < Duration::from_secs(1);
            if is_in_time {
                held.assert_answered(&client);
                assert_eq!(proxy.await_exit().code(), Some(0), "{signals:?}");
            }
            is_in_time
        };
        // A busy machine is slow now and then.
        assert!((0..5).any(|_| is_one()), "never two within a second");
    }
}

/// Waits until the proxy takes no more connections, as its shutdown begins with that.
#[track_caller]
fn await_no_listener(proxy: &Proxy) {
    let start = Instant::now();
    while std::net::TcpStream::connect(proxy.address()).is_ok() {
        assert!(start.elapsed() < LIMIT, "it goes on listening");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn h10_the_same_request_after_a_second_ends_at_once() {
    let held = Held::new();
    let mut proxy = Proxy::start(&held.args());
    let client = held.ask(&proxy);
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    await_no_listener(&proxy);
    let words = "INFO  [dot_proxy::shell::reactor::end] ending once what is under way is answered (1), within 5 s; another";
    proxy.await_line("that it ends", |line| line.starts_with(words));
    std::thread::sleep(Duration::from_millis(1_100).saturating_sub(start.elapsed()));
    // The proxy's loop may be late on a busy machine, but not by as much as the query has left.
    for _ in 0..50 {
        proxy.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(proxy.await_exit().code(), Some(1));
    assert!(client.is_quiet(), "it did not wait for the query's deadline");
}

#[test]
fn h10_blocked_signals_end_it_all_the_same() {
    for signal in [Signal::TERM, Signal::INT] {
        let held = Held::new();
        let wrapper = ["env", "--block-signal"];
        let mut proxy = Proxy::start_through(&wrapper, &held.args());
        let client = held.ask(&proxy);
        proxy.signal(signal);
        held.assert_answered(&client);
        assert_eq!(proxy.await_exit().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn h10_a_hangup_at_a_terminal_is_a_request_to_end_unless_ignored() {
    // Said for both, as the tests may run under nohup themselves.
    for (wrapper, ends) in
        [(&["env", "--default-signal=HUP"][..], true), (&["env", "--ignore-signal=HUP"][..], false)]
    {
        let held = Held::new();
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        unlockpt(&terminal).expect("a terminal");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let peer = ioctl_tiocgptpeer(&terminal, flags).expect("a terminal");
        let mut proxy = Proxy::start_through_with_stderr(wrapper, &held.args(), peer);
        let client = held.ask(&proxy);
        proxy.signal(Signal::HUP);
        if ends {
            await_no_listener(&proxy);
            held.assert_answered(&client);
        } else {
            held.assert_answered(&client);
            let client = held.ask(&proxy);
            held.assert_answered(&client);
            proxy.signal(Signal::TERM);
        }
        assert_eq!(proxy.await_exit().code(), Some(0), "{wrapper:?}");
    }
}

#[test]
fn h10_a_log_file_of_the_greatest_length_costs_lines_only() {
    const LENGTH_MAX: u64 = 4_096;

    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let args = arguments(&authority, &[server.address()], &[]);
    let path = std::env::temp_dir().join(format!("dot-proxy-h10-{}", std::process::id()));
    let file = File::create(&path).expect("a writable directory");
    let limit = format!("--fsize={LENGTH_MAX}");
    let mut proxy = Proxy::start_through_with_stderr(&["prlimit", &limit], &args, file);
    let client = UdpClient::new(proxy.address());
    let mut asked_at_limit = 0;
    for n in 0.. {
        let query = Query::new(&format!("n{n}.example"), A).bytes();
        assert_eq!(Response::read(&client.ask(&query)).rcode, NOERROR);
        asked_at_limit += u32::from(fs::metadata(&path).expect("our file").len() == LENGTH_MAX);
        if asked_at_limit == 10 {
            break;
        }
    }
    fs::remove_file(&path).expect("our file");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.await_exit().code(), Some(0));
}
