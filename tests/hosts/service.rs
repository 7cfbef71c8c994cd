//! The service manager: what it is told, and sockets that it hands over. Each test is one itself.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::Signal;

use crate::start::assert_one_line;
use support::message::{A, NOERROR};
use support::proxy::{arguments, run_through};
use support::{Authority, DotServer, Proxy, Query, Response, Setup, TcpClient, UdpClient};

const LIMIT: Duration = Duration::from_secs(30);

/// What the manager hears next, but for signs of life.
#[track_caller]
fn heard(manager: &UnixDatagram) -> String {
    loop {
        let mut buffer = [0; 1024];
        let len = manager.recv(&mut buffer).expect("something is said");
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

#[test]
fn the_manager_is_told_what_becomes_of_the_service() {
    let name = format!("dot-proxy-service-{}", std::process::id());
    let path = std::env::temp_dir().join(&name);
    std::fs::remove_file(&path).ok();
    let hidden = UnixAddress::from_abstract_name(&name).expect("a short name");
    for (manager, address) in [
        (UnixDatagram::bind(&path).expect("a new file"), path.display().to_string()),
        (UnixDatagram::bind_addr(&hidden).expect("a new name"), format!("@{name}")),
    ] {
        manager.set_read_timeout(Some(LIMIT)).expect("a socket");
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let args = arguments(&authority, &[server.address()], &["--query-log", "off"]);
        let variable = format!("NOTIFY_SOCKET={address}");
        let proxy = Proxy::start_through(&["env", &variable, "WATCHDOG_USEC=200000"], &args);
        assert_eq!(heard(&manager), "READY=1\nSTATUS=1 of 1 upstreams usable");
        let client = UdpClient::new(proxy.address());
        let response = client.ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
        drop(server);
        // With a sign of life it is told how many were asked.
        let words = "STATUS=1 of 1 upstreams usable; 1 query, 1 answered, 0 failed";
        assert_eq!(heard(&manager), words);
        client.ask(&Query::new("b.example", A).bytes());
        let status = loop {
            let status = heard(&manager);
            if !status.starts_with("STATUS=1 of 1") {
                break status;
            }
        };
        let words = "STATUS=0 of 1 upstreams usable; 2 queries, 1 answered, ";
        assert!(status.starts_with(words), "{status}");
        assert!(status.contains(" failed; 127.0.0.1 answers, and nothing listens"), "{status}");
        assert!(status.contains("; not usable: 127.0.0.1:"), "{status}");
        assert!(status.contains("connect: "), "{status}");
        // What is asked for comes at once.
        proxy.signal(Signal::USR1);
        proxy.await_line("a summary", |line| line.starts_with("dot-proxy: up "));
        // Signs of life go on in the sandbox, while nothing happens.
        let mut signs = 0;
        while signs < 3 {
            let mut buffer = [0; 1024];
            let len = manager.recv(&mut buffer).expect("a sign of life");
            signs += u32::from(&buffer[..len] == b"WATCHDOG=1");
        }
        proxy.signal(Signal::TERM);
        let mut heard = std::iter::from_fn(|| Some(heard(&manager)));
        assert!(heard.any(|text| text.starts_with("STOPPING=1\n")));
        let lines = proxy.stopped();
        assert!(lines.iter().any(|line| line.contains("sandbox: ")), "{lines:#?}");
    }
    std::fs::remove_file(&path).expect("a file of ours");
}

#[test]
fn a_manager_that_is_not_there_is_a_warning() {
    let proxy = Proxy::start_through(&["env", "NOTIFY_SOCKET=/no/such/socket"], &[] as &[&str]);
    let lines = proxy.stop();
    let is_it = |line: &&String| line.starts_with("WARN") && line.contains("NOTIFY_SOCKET=/no/");
    assert_eq!(lines.iter().filter(is_it).count(), 1, "{lines:#?}");
}

/// A shell that gives these sockets to what it becomes, as systemd does. Descriptors far from those that it gives them.
struct HandedOver {
    sockets: Vec<OwnedFd>,
    script: String,
}

impl HandedOver {
    fn new(sockets: &[&dyn AsFd]) -> Self {
        let duplicate = |socket: &&dyn AsFd| {
            let own = fcntl_dupfd_cloexec(socket.as_fd(), 100).expect("a free descriptor");
            fcntl_setfd(&own, FdFlags::empty()).expect("a descriptor");
            own
        };
        let sockets: Vec<_> = sockets.iter().map(duplicate).collect();
        let moves = (3..).zip(&sockets);
        let moves: Vec<_> = moves.map(|(to, from)| format!("{to}<&{}", from.as_raw_fd())).collect();
        let moves = moves.join(" ");
        let count = sockets.len();
        let script = format!("exec {moves}; LISTEN_PID=$$ LISTEN_FDS={count} exec \"$@\"");
        Self { sockets, script }
    }

    fn wrapper(&self) -> [&str; 4] {
        assert!(!self.sockets.is_empty());
        ["bash", "-c", &self.script, "bash"]
    }
}

/// Sockets of one address.
fn pair() -> (SocketAddr, UdpSocket, TcpListener) {
    // Another program may have the port that was picked, for UDP only.
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("bound");
        if let Ok(udp) = UdpSocket::bind(address) {
            return (address, udp, tcp);
        }
    }
}

#[test]
fn sockets_that_are_handed_over_are_served() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let (address, udp, tcp) = pair();
    // Who asks before the service is there waits.
    let early = UdpClient::new(address);
    early.send(&Query::new("early.example", A).bytes());
    let handed_over = HandedOver::new(&[&tcp, &udp]);
    // A listener of the command line is added; the address of a socket that was handed over is served already.
    let listen = ["--listen", "127.0.0.1:0", "--listen", &address.to_string()];
    let args = arguments(&authority, &[server.address()], &listen);
    let proxy = Proxy::start_through(&handed_over.wrapper(), &args);
    assert_eq!(proxy.listeners().len(), 2, "{:?}", proxy.listeners());
    assert_eq!(proxy.address(), address);
    assert_eq!(Response::read(&early.receive()).rcode, NOERROR);
    for listener in proxy.listeners() {
        let query = Query::new("a.example", A).bytes();
        assert_eq!(Response::read(&UdpClient::new(*listener).ask(&query)).rcode, NOERROR);
        assert_eq!(Response::read(&TcpClient::new(*listener).ask(&query)).rcode, NOERROR);
    }
    for socket in &handed_over.sockets {
        assert!(fcntl_getfl(socket).expect("a descriptor").contains(OFlags::NONBLOCK));
    }
    proxy.stop();
    // They are their owner's: what is asked between two processes waits for the next.
    early.send(&Query::new("late.example", A).bytes());
    let args = arguments(&authority, &[server.address()], &["--listen", &address.to_string()]);
    let proxy = Proxy::start_through(&handed_over.wrapper(), &args);
    assert_eq!(Response::read(&early.receive()).rcode, NOERROR);
    proxy.stop();
}

#[test]
fn half_of_a_service_is_a_wrong_start() {
    let (address, udp, tcp) = pair();
    let file = std::fs::File::open("/dev/null").expect("it is everywhere");
    let connected = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    connected.connect(address).expect("an address of this host");
    let text = address.to_string();
    for (sockets, words) in [
        (&[&udp as &dyn AsFd][..], &[&*text, "no TCP socket", "ListenStream="][..]),
        (&[&tcp as &dyn AsFd], &[&*text, "no UDP socket", "ListenDatagram="]),
        (&[&udp, &tcp, &file], &["socket 3 of 3", "is not for UDP or TCP"]),
        (&[&connected, &tcp], &["socket 1 of 2", "one client alone"]),
    ] {
        let handed_over = HandedOver::new(sockets);
        let words = [&["LISTEN_FDS: "][..], words].concat();
        let result = run_through(&handed_over.wrapper(), &[] as &[&str]);
        assert_one_line(&result, 2, &words);
    }
}

#[test]
fn a_start_without_a_terminal_says_who_is_asked_and_how_that_is_verified() {
    let lines = Proxy::start(&["--upstream", "192.0.2.1#dot.example"]).stop();
    let is_it = |line: &String| {
        line.contains("asking 192.0.2.1#dot.example; checking that a certificate proves the name")
    };
    assert!(lines.iter().any(is_it), "{lines:#?}");
}

#[test]
fn more_sockets_than_there_can_be_are_a_wrong_start() {
    let of_first = "a descriptor from 0 to 1024 was expected";
    for (sockets, first, expected) in [
        ("1000000000", "", "LISTEN_FDS: is 1000000000; at most 1024 sockets"),
        ("1000000000", "-999999999", "LISTEN_FDS: is 1000000000; at most 1024 sockets"),
        ("2", "2147483647", &format!("LISTEN_FDS_FIRST_FD: is 2147483647; {of_first}")),
        ("2", "-1", &format!("LISTEN_FDS_FIRST_FD: is -1; {of_first}")),
    ] {
        let variables = format!("LISTEN_PID=$$ LISTEN_FDS={sockets} LISTEN_FDS_FIRST_FD={first}");
        let wrapper = ["bash", "-c", &format!("{variables} exec \"$@\""), "bash"];
        assert_one_line(&run_through(&wrapper, &[] as &[&str]), 2, &[expected]);
    }
}

#[test]
fn what_was_handed_over_to_another_process_or_is_no_number_is_left_alone() {
    let (_, udp, tcp) = pair();
    let handed_over = HandedOver::new(&[&tcp, &udp]);
    for variables in [
        "LISTEN_PID=1 LISTEN_FDS=2",
        "LISTEN_FDS=2",
        "LISTEN_PID= LISTEN_FDS=2",
        "LISTEN_PID=1 LISTEN_FDS=1000000000",
        "LISTEN_FDS=1000000000",
        "LISTEN_PID=$$ LISTEN_FDS=two",
        "LISTEN_PID=$$ LISTEN_FDS=-1",
    ] {
        let (moves, _) = handed_over.script.split_once("; ").expect("two commands");
        let script = format!("{moves}; {variables} exec \"$@\"");
        let proxy = Proxy::start_through(&["bash", "-c", &script, "bash"], &[] as &[&str]);
        assert_eq!(proxy.listeners().len(), 1, "{variables}");
        let taken = proxy.address();
        assert!(
            ![&tcp.local_addr(), &udp.local_addr()]
                .iter()
                .any(|it| it.as_ref().ok() == Some(&taken))
        );
        proxy.stop();
    }
}

#[test]
fn lines_have_the_form_that_was_asked_for() {
    let proxy = Proxy::start(&["--log-format", "journald"]);
    assert!(proxy.stop().iter().all(|line| line.starts_with("<6>INFO ")));
    let lines = Proxy::start(&["--log-format", "json"]).stop();
    let is_object = |line: &String| {
        line.starts_with("{\"time\":\"")
            && line.contains(",\"level\":\"info\",")
            && line.ends_with("\"}")
    };
    assert!(!lines.is_empty() && lines.iter().all(is_object), "{lines:#?}");
}
