//! What is told of connections to upstreams that end or are never made.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use support::conformance::hello::Hello;
use support::message::{A, NOERROR, SERVFAIL};
use support::proxy;
use support::{Act, Authority, Bed, End, Proxy, Query, RefusedPort, Response, UdpClient};

/// EDE code (RFC 8914 section 4).
const NO_REACHABLE_AUTHORITY: u16 = 22;

#[track_caller]
fn assert_answered(client: &UdpClient, name: &str) {
    let response = Response::read(&client.ask(&Query::new(name, A).bytes()));
    assert_eq!((response.rcode, response.answers), (NOERROR, 1), "{name}");
}

#[test]
fn the_log_says_why_a_connection_was_closed() {
    let flags = ["--log-level", "debug", "--upstream-idle-timeout", "1"];
    let whoever: fn(End) -> Bed = |end| {
        let flags = ["--log-level", "debug"];
        Bed::with_args(&flags, |setup| {
            setup.handler(move |query| [query.answer(), vec![Act::End(end)]].concat())
        })
    };
    for (bed, expected) in [
        (Bed::with_args(&flags, |setup| setup), "closed here: idle"),
        (whoever(End::Notify), "closed by the server"),
        (whoever(End::Reset), "read: connection reset by peer"),
    ] {
        assert_answered(&bed.udp(), "a.example");
        let expected = format!("{}#dot.example: {expected}", bed.server.address());
        bed.proxy.await_line("line about the close", |line| line.ends_with(&expected));
        let closes = |line: &String| line.contains(": closed") || line.contains(": read: ");
        let lines = bed.proxy.stop();
        assert_eq!(lines.iter().filter(|line| closes(line)).count(), 1, "{lines:#?}");
    }
}

#[test]
fn nothing_listening_is_told_to_clients_and_logged_once() {
    let authority = Authority::new();
    let refused = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[refused.address()], &[]));
    let client = UdpClient::new(proxy.address());
    let name = format!("{}#dot.example", refused.address());
    for n in 0..3 {
        let query = Query::new(&format!("n{n}.example"), A).opt(1232);
        let response = Response::read(&client.ask(&query.bytes()));
        assert_eq!(response.rcode, SERVFAIL);
        let errors = response.opt.expect("OPT answers OPT").errors;
        let [(code, text)] = &errors[..] else { panic!("one EDE, not {errors:?}") };
        assert_eq!(*code, NO_REACHABLE_AUTHORITY, "{text}");
        assert!(text.contains(&name) && text.contains("refused"), "{text}");
    }
    let plain = Response::read(&client.ask(&Query::new("plain.example", A).bytes()));
    assert_eq!(plain.rcode, SERVFAIL);
    assert!(plain.opt.is_none(), "no OPT for a client without");

    let lines = proxy.stop();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("not usable")).collect();
    let [told] = &told[..] else { panic!("one line, not {told:#?}") };
    assert!(told.contains(&name) && told.contains("connect: connection refused"), "{told}");
}

#[test]
fn a_long_hello_that_is_reset_is_as_long_again_and_the_flag_is_named() {
    let words = "connection reset by peer";
    asks_through(Fate::Reset, 2, words, words);
}

#[test]
fn a_long_hello_that_ends_in_a_close_is_as_long_again_and_the_flag_is_named() {
    let words = "closed by the server";
    asks_through(Fate::Closed, 2, words, words);
}

#[test]
fn a_long_hello_that_nothing_answers_is_as_long_again_and_the_flag_is_named() {
    asks_through(Fate::Lost, 1, "TLS handshake not finished in time", "TLS handshake: timed out");
}

/// Asks so many queries, and sees these words in the error for clients and in the log, with the flag that helps
/// only where it would.
fn asks_through(fate: Fate, count: usize, in_error: &str, in_log: &str) {
    const HYBRID: u16 = 0x11ec;

    let authority = Authority::new();
    let path = Middlebox::start(fate);
    let ask = |flags: &[&str], count: usize| {
        let proxy = Proxy::start(&proxy::arguments(&authority, &[path.address], flags));
        let client = UdpClient::new(proxy.address());
        let texts: Vec<_> = (0..count)
            .map(|n| {
                let query = Query::new(&format!("n{n}.example"), A).opt(1232);
                let opt = Response::read(&client.ask(&query.bytes())).opt;
                opt.expect("OPT answers OPT").errors.remove(0).1
            })
            .collect();
        let line = proxy.await_line("line about the upstream", |line| line.contains(in_log));
        proxy.stop();
        (texts, line, path.hellos())
    };
    let (texts, line, hellos) = ask(&[], count);
    let [advice, flag] = [
        "nothing answered the ClientHello: this may not be a DNS-over-TLS port",
        "--key-exchange classic",
    ];
    for text in texts.iter().chain([&line]) {
        assert!(text.contains(advice) && text.contains(flag), "{text}");
    }
    for text in &texts {
        assert!(text.contains(in_error), "{text}");
    }
    assert!(!hellos.is_empty());
    for hello in hellos {
        let hello = Hello::read(&hello).expect("a ClientHello");
        assert_eq!(hello.groups().expect("groups")[0], HYBRID);
        assert_eq!(hello.shares().expect("shares")[0], (HYBRID, 1_216));
    }

    let (texts, line, hellos) = ask(&["--key-exchange", "classic"], 1);
    for text in texts.iter().chain([&line]) {
        assert!(!text.contains("--key-exchange"), "{text}");
    }
    for hello in hellos {
        let hello = Hello::read(&hello).expect("a ClientHello");
        assert!(!hello.groups().expect("groups").contains(&HYBRID));
    }
}

/// What becomes of a connection whose `ClientHello` has come.
#[derive(Clone, Copy)]
enum Fate {
    Reset,
    Closed,
    /// Nothing comes back, and the connection stays.
    Lost,
}

/// Something in between that takes a `ClientHello` of two segments for an attack.
struct Middlebox {
    address: SocketAddr,
    hellos: mpsc::Receiver<Vec<u8>>,
}

impl Middlebox {
    fn start(fate: Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, hellos) = mpsc::channel();
        thread::spawn(move || {
            let mut lost = Vec::new();
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let mut hello = vec![0; 5];
                if socket.read_exact(&mut hello).is_err() {
                    continue;
                }
                let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
                if socket.read_exact(&mut rest).is_err() {
                    continue;
                }
                hello.extend(rest);
                if matches!(fate, Fate::Reset) {
                    let linger = Some(Duration::ZERO);
                    SockRef::from(&socket).set_linger(linger).expect("a socket");
                }
                if matches!(fate, Fate::Lost) {
                    lost.push(socket);
                }
                if sender.send(hello).is_err() {
                    return;
                }
            }
        });
        Self { address, hellos }
    }

    /// Those that came since the last call.
    fn hellos(&self) -> Vec<Vec<u8>> {
        self.hellos.try_iter().collect()
    }
}
