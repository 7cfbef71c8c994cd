//! `dot-proxy health` in containers, and at addresses other than loopback.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use support::namespace::{in_namespace, ip};
use support::proxy::{program, run};
use support::{Authority, Bed, DotServer, Proxy, RefusedPort, Setup, answers, message, proxy};

/// Has the program be process 1 of a namespace.
const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// What it says from inside the namespaces of a process, with its exit code.
fn health_of(inside: &Inside) -> (Option<i32>, String) {
    health_with(inside, &[])
}

fn health_with(inside: &Inside, flags: &[&str]) -> (Option<i32>, String) {
    let pid = inside.0.as_raw_nonzero().to_string();
    let output = Command::new("nsenter")
        .args(["--target", &pid, "--pid", "--mount", "--net"])
        .arg(program())
        .arg("health")
        .args(flags)
        .output()
        .expect("nsenter starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The program as process 1 of a namespace, by what it is outside. It has become another user, so that the end of who
/// started it is not its own.
struct Inside(Pid);

impl Inside {
    /// The only child of what a proxy was started through.
    fn of(proxy: &Proxy) -> Self {
        let pid = proxy.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("it runs");
        let child = children.split_whitespace().next().and_then(|child| child.parse().ok());
        Self(Pid::from_raw(child.expect("a child")).expect("a number"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).expect("it runs");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It may have ended by itself.
        kill_process(self.0, Signal::KILL).ok();
    }
}

#[test]
fn the_listeners_of_process_1_are_found_in_its_command_line() {
    const NAME: &str = "the_listeners_of_process_1_are_found_in_its_command_line";
    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        for (flags, asked) in [
            (&["--listen", "0.0.0.0:53"][..], "127.0.0.1:53"),
            (&["--listen", "[::]:5353", "--deny", "::1"], "[::1]:5353"),
            (&["--listen", "127.0.0.1:0", "--listen", "127.0.0.9:5300"], "127.0.0.9:5300"),
        ] {
            let args = proxy::arguments(&authority, &[server.address()], flags);
            let proxy = Proxy::start_through(&UNSHARE, &args);
            let inside = Inside::of(&proxy);
            let expected = (Some(0), format!("{asked} answers\n"));
            assert_eq!(health_of(&inside), expected, "{flags:?}");
        }
    });
}

/// Has the program be process 1, and run in a directory with no more flags than to read its file there.
fn start_in(directory: &str, authority: &Authority, server: &DotServer) -> Proxy {
    // Without the address that is added to the command line; the file is relative to the directory.
    let script = format!("cd {directory}; shift 2; exec \"$0\" \"$@\"");
    let wrapper = [&UNSHARE[..], &["sh", "-c", &script]].concat();
    let flags = ["--config", "dot-proxy.conf"];
    Proxy::start_through(&wrapper, &proxy::arguments(authority, &[server.address()], &flags))
}

/// Answers as every server does that follows RFC 6891 section 6.1.3, until the process ends.
fn answer_badvers(listener: &str) {
    let socket = UdpSocket::bind(listener).expect("nobody else is here");
    std::thread::spawn(move || {
        let mut octets = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut octets) {
            let mut answer = answers::bare(&octets[..len], message::NOERROR);
            let upper_rcode = answer.len() - answers::OPT_LEN + 5;
            answer[upper_rcode..upper_rcode + 2].copy_from_slice(&[1, 0]);
            // The client may have left.
            drop(socket.send_to(&answer, client));
        }
    });
}

/// Process 1 goes on with what it read at its start.
#[test]
fn where_process_1_listens_is_not_read_in_its_file() {
    const NAME: &str = "where_process_1_listens_is_not_read_in_its_file";

    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let directory = format!("{}/{NAME}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        fs::create_dir_all(&directory).expect("a writable directory");
        let file = format!("{directory}/dot-proxy.conf");
        // Others listen here, too, also where it does if it is told nothing.
        let silent = UdpSocket::bind("127.0.0.1:53").expect("nobody else is here");
        answer_badvers("[::1]:53");
        let other = UdpSocket::bind("[::1]:123").expect("nobody else is here");
        other.connect("[::1]:124").expect("an address of this host");
        for listener in ["127.0.0.1:5353", "[::1]:5354", "0.0.0.0:5355", "[::]:5356"] {
            fs::write(&file, format!("listen {listener}\n")).expect("a writable directory");
            let proxy = start_in(&directory, &authority, &server);
            let inside = Inside::of(&proxy);
            let asked = listener.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
            let expected = (Some(0), format!("{asked} answers\n"));
            assert_eq!(health_of(&inside), expected, "as it was read");
            fs::write(&file, "listen 127.0.0.1:5999\n").expect("a writable directory");
            assert_eq!(health_of(&inside), expected, "edited");
            fs::write(&file, "lisen 127.0.0.1:5999\n").expect("a writable directory");
            assert_eq!(health_of(&inside), expected, "wrong");
            fs::remove_file(&file).expect("a writable directory");
            assert_eq!(health_of(&inside), expected, "gone");
            inside.signal(Signal::STOP);
            let (code, said) = health_of(&inside);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("did not answer") && said.contains(&asked), "{said}");
        }
        drop((silent, other));
    });
}

/// The kernel's table of sockets leaves out which interface an address is of.
#[test]
fn an_address_of_one_interface_is_asked_there() {
    const NAME: &str = "an_address_of_one_interface_is_asked_there";

    in_namespace(NAME, "", || {
        ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"]);
        for interface in ["near", "far"] {
            ip(&["link", "set", interface, "up"]);
            ip(&["address", "add", "fe80::1/64", "dev", interface, "nodad"]);
        }
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let directory = format!("{}/{NAME}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        fs::create_dir_all(&directory).expect("a writable directory");
        fs::write(format!("{directory}/dot-proxy.conf"), "listen [fe80::1%far]:5300\n")
            .expect("a writable directory");
        let proxy = start_in(&directory, &authority, &server);
        let expected = (Some(0), format!("{} answers\n", proxy.address()));
        assert!(expected.1.starts_with("[fe80::1%"), "{expected:?}");
        let inside = Inside::of(&proxy);
        assert_eq!(health_of(&inside), expected, "in the file");
        let unknown = ["--listen", "[fd00::9]:5300"];
        let flags = [&unknown[..], &["--listen", "[fe80::1%far]:5300"]].concat();
        assert_eq!(health_with(&inside, &flags), expected, "in the flags");
    });
}

/// A port that the system chose is found, too.
#[test]
fn a_port_that_process_1_did_not_choose_is_found() {
    in_namespace("a_port_that_process_1_did_not_choose_is_found", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let args = proxy::arguments(&authority, &[server.address()], &[]);
        let proxy = Proxy::start_through(&UNSHARE, &args);
        let expected = (Some(0), format!("{} answers\n", proxy.address()));
        assert_eq!(health_of(&Inside::of(&proxy)), expected);
    });
}

/// Over UDP any of the processes of a port answers, so each is asked at its own port of metrics.
#[test]
fn processes_that_share_a_port_are_asked_one_by_one() {
    const NAME: &str = "processes_that_share_a_port_are_asked_one_by_one";
    const ASKED: u8 = 5;

    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let start = |metrics| {
            let flags = ["--listen", "127.0.0.1:53", "--reuse-port", "on", "--metrics", metrics];
            let args = proxy::arguments(&authority, &[server.address()], &flags);
            Proxy::start_through(&UNSHARE, &args)
        };
        let (stopped, running) = (start("127.0.0.1:9153"), start("0.0.0.0:9154"));
        let (stopped, running) = (Inside::of(&stopped), Inside::of(&running));
        let healthy = |metrics| (Some(0), format!("http://{metrics}/healthz says 200 OK\n"));
        assert_eq!(health_of(&stopped), healthy("127.0.0.1:9153"));
        stopped.signal(Signal::STOP);
        for _ in 0..ASKED {
            assert_eq!(health_of(&running), healthy("127.0.0.1:9154"));
            let (code, said) = health_of(&stopped);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("http://127.0.0.1:9153/healthz did not answer"), "{said}");
        }
        stopped.signal(Signal::CONT);
        assert_eq!(health_of(&stopped), healthy("127.0.0.1:9153"));
    });
}

/// What the page says is what the process knows of its upstreams, and at first it knows nothing.
#[test]
fn a_process_that_is_asked_at_its_metrics_asks_an_upstream_too() {
    const NAME: &str = "a_process_that_is_asked_at_its_metrics_asks_an_upstream_too";

    in_namespace(NAME, "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let refused = RefusedPort::reserve();
        let flags = ["--reuse-port", "on", "--metrics", "127.0.0.1:9153"];
        let listener = "127.0.0.1:5300";
        let flags = [&["--listen", listener][..], &flags].concat();
        for (upstream, code, said) in [
            (server.address(), 0, "127.0.0.1:5300 answers, and so does an upstream\n"),
            (refused.address(), 1, "127.0.0.1:5300 answers, but no upstream answered in 900ms"),
        ] {
            let args = proxy::arguments(&authority, &[upstream], &flags);
            let proxy = Proxy::start_through(&UNSHARE, &args);
            let inside = Inside::of(&proxy);
            let (found, words) = health_with(&inside, &["--deep"]);
            assert!(found == Some(code) && words.contains(said), "{found:?}: {words}");
            let expected = "http://127.0.0.1:9153/healthz says 200 OK\n".to_owned();
            assert_eq!(health_of(&inside), (Some(0), expected));
            inside.signal(Signal::STOP);
            let (code, said) = health_with(&inside, &["--deep"]);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("http://127.0.0.1:9153/healthz did not answer"), "{said}");
        }
    });
}

#[test]
fn who_was_not_told_where_to_listen_is_found() {
    in_namespace("who_was_not_told_where_to_listen_is_found", "", || {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let (code, _, stderr) = run(&["health"]);
        assert_eq!(code, Some(1), "{stderr}");
        let words = "nothing listens on 127.0.0.1:53 or 127.0.0.1:5300, UDP: ";
        assert!(stderr.contains(words), "{stderr}");
        for listener in ["127.0.0.1:5300", "127.0.0.1:53"] {
            let flags = ["--listen", listener];
            let proxy = Proxy::start(&proxy::arguments(&authority, &[server.address()], &flags));
            let (code, stdout, stderr) = run(&["health"]);
            assert_eq!((code, stdout), (Some(0), format!("{listener} answers\n")), "{stderr}");
            drop(proxy);
        }
    });
}

#[test]
fn an_address_of_this_host_is_asked_from_loopback() {
    const NAME: &str = "an_address_of_this_host_is_asked_from_loopback";

    in_namespace(NAME, "", || {
        ip(&["address", "add", "10.1.2.3/8", "dev", "lo"]);
        ip(&["address", "add", "fd00::3/64", "dev", "lo", "nodad"]);
        let deny = ["--deny", "10.0.0.0/8", "--deny", "fd00::/8"];
        for listener in ["10.1.2.3:5300", "[fd00::3]:5300", "0.0.0.0:5300", "[::]:5300"] {
            let flags = [&["--listen", listener][..], &deny].concat();
            let bed = Bed::with_args(&flags, |setup| setup);
            for asked in ["10.1.2.3:5300", "[fd00::3]:5300"] {
                if asked.starts_with('[') == listener.starts_with('[') {
                    let (code, said, error) = run(&["health", "--listen", asked]);
                    let expected = (Some(0), format!("{asked} answers\n"));
                    assert_eq!((code, said), expected, "{listener}: {error}");
                }
            }
            drop(bed);
        }
    });
}
