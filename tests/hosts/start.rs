//! Rows H5 and H7, as far as the start can tell: what it cannot listen on, and whom it cannot ask.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::Proxy;
use support::namespace::{Namespace, in_namespace, ip};
use support::proxy::{run, run_through};
use support::skip::skip;

/// Nothing on standard output, one line with these words on standard error.
#[track_caller]
pub(crate) fn assert_one_line(
    (code, stdout, stderr): &(Option<i32>, String, String),
    exit: i32,
    words: &[&str],
) {
    assert_eq!(*code, Some(exit), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "one line, not {stderr:?}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
}

#[test]
fn h05_port_taken() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let udp = UdpSocket::bind(any).expect("a free port");
    let tcp = TcpListener::bind(any).expect("a free port");
    for taken in [udp.local_addr(), tcp.local_addr()] {
        let taken = taken.expect("bound").to_string();
        let result = run(&["--listen", &taken]);
        assert_one_line(&result, 1, &[&taken, "in use", "choose another address or port"]);
    }
}

#[test]
fn h05_address_of_another_host() {
    let result = run(&["--listen", "192.0.2.1:5300"]);
    assert_one_line(&result, 1, &["192.0.2.1:5300", "not an address of this host", "ip address"]);
}

#[test]
fn h05_one_of_several_cannot_be_bound() {
    // Nothing is served in part: whoever asks the other address would not learn why it is alone.
    let result = run(&["--listen", "127.0.0.1:0", "--listen", "192.0.2.1:5300"]);
    assert_one_line(&result, 1, &["192.0.2.1:5300", "not an address of this host"]);
}

#[test]
fn h05_no_right_to_bind() {
    const NAME: &str = "h05_no_right_to_bind";

    in_namespace(NAME, "", || {
        let sysctl = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        if let Err(error) = fs::write(sysctl, "1024") {
            return skip(NAME, &format!("{sysctl}: {error}"));
        }
        let program = Copied::new(NAME);
        let remedies = ["root", "cap_net_bind_service", "ip_unprivileged_port_start"];
        for address in ["127.0.0.1:53", "[::1]:853"] {
            let result = run_through(&program.as_nobody(), &["--listen", address]);
            assert_one_line(&result, 1, &[&[address, "denied"], &remedies[..]].concat());
        }
        let metrics = ["--listen", "127.0.0.1:5300", "--metrics", "127.0.0.1:80"];
        let result = run_through(&program.as_nobody(), &metrics);
        assert_one_line(&result, 1, &[&["127.0.0.1:80 for metrics"], &remedies[..]].concat());
        fs::write(sysctl, "6000").expect("it could be written before");
        let result = run_through(&program.as_nobody(), &["--listen", "127.0.0.1:5300"]);
        assert_one_line(&result, 1, &[&["127.0.0.1:5300", "denied"], &remedies[..]].concat());
    });
}

#[test]
fn h05_tentative_address() {
    in_namespace("h05_tentative_address", "", || {
        let others = Namespace::new().expect("a second namespace");
        others.connect("link", &[], &["fd00::9/64"]);

        // A service that starts as the network does: the kernel asks the link for a second or two.
        ip(&["address", "add", "fd00::1/64", "dev", "link"]);
        let proxy = Proxy::start(&["--listen", "[fd00::1]:5300"]);
        proxy.await_line("line about the wait", |line| {
            line.contains("waiting for fd00::1, which is tentative")
        });
        proxy.stop();
        // By the name of its interface, and without a wait once it is there.
        ip(&["address", "add", "fe80::5/64", "dev", "link", "nodad"]);
        let listen = ["--listen", "[fe80::5%link]:5300", "--listen", "[fd00::1]:5300"];
        let proxy = Proxy::start(&listen);
        assert_eq!(proxy.listeners()[0].ip().to_string(), "fe80::5");
        let lines = proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("waiting")), "{lines:#?}");

        ip(&["address", "add", "fd00::9/64", "dev", "link"]);
        let result = run(&["--log-level", "error", "--listen", "[fd00::9]:5300"]);
        assert_one_line(&result, 1, &["[fd00::9]:5300", "duplicate", "another host"]);

        // No upstream can be asked on a link that is down.
        ip(&["link", "set", "dev", "link", "down"]);
        ip(&["address", "add", "fd00::2/64", "dev", "link"]);
        let result = run(&["--log-level", "error", "--listen", "[fd00::2]:5300"]);
        assert_one_line(&result, 1, &["[fd00::2]:5300", "still tentative", "up?"]);
    });
}

#[test]
fn h05_no_ipv6_here() {
    const NAME: &str = "h05_no_ipv6_here";

    in_namespace(NAME, "", || {
        let sysctl = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
        if let Err(error) = fs::write(sysctl, "1") {
            return skip(NAME, &format!("{sysctl}: {error}"));
        }
        let result = run(&["--listen", "[::1]:5300"]);
        assert_one_line(&result, 1, &["[::1]:5300", "not an address of this host"]);
    });
}

#[test]
fn h07_own_listener_is_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["127.0.0.1:8530"], "127.0.0.1:8530"),
        (&["[::1]:8530"], "[::1]:8530"),
        (&["0.0.0.0:8530"], "127.0.0.1:8530"),
        (&["0.0.0.0:8530"], "127.9.9.9:8530"),
        (&["[::]:8530"], "[::1]:8530"),
        (&["127.0.0.1:5300", "0.0.0.0:853"], "127.0.0.1"),
    ];
    for (listeners, upstream) in cases {
        let mut args = vec!["--upstream".to_owned(), format!("{upstream}#dot.example")];
        for listener in listeners {
            args.extend(["--listen".to_owned(), (*listener).to_owned()]);
        }
        let words = ["--upstream", upstream, "own listener", listeners[listeners.len() - 1]];
        assert_one_line(&run(&args), 2, &words);
    }
}

/// The program where everybody may run it, for the test of this name.
pub(crate) struct Copied(String);

impl Copied {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        let copied = Self(path.display().to_string());
        // Not by this process: a child that another thread starts would have the copy open for writing until it
        // runs its own program, and nobody could run the copy so long (ETXTBSY).
        let status = Command::new("cp").args([env!("CARGO_BIN_EXE_dot-proxy"), &copied.0]).status();
        assert!(status.is_ok_and(|status| status.success()), "cp cannot write {}", copied.0);
        fs::set_permissions(&copied.0, fs::Permissions::from_mode(0o755)).expect("our file");
        copied
    }

    /// A command that runs it as user 65534, with the arguments behind the first one that follows.
    pub(crate) fn as_nobody(&self) -> Vec<&str> {
        let user =
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
        self.through(&user)
    }

    /// The same through any other command.
    pub(crate) fn through<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        // The program that would follow is the argument of another, that does not look at it.
        let shell = ["sh", "-c", "path=$0; shift; exec \"$path\" \"$@\"", &self.0];
        [command, &shell[..]].concat()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        drop(fs::remove_file(&self.0));
    }
}

#[test]
fn h01_no_descriptor_for_tcp_clients() {
    let args = ["--listen", "127.0.0.1:0", "--upstream", "127.0.0.2#dot.example"];
    let result = run_through(&["prlimit", "--nofile=16"], &args);
    assert_one_line(&result, 1, &["16 open files", "TCP clients", "ulimit -n", "or more"]);
}

/// Warnings come once it has bound its ports.
#[test]
fn h05_what_fails_says_that_alone() {
    let nowhere = ["--listen", "192.0.2.1:5300"];
    for wrapper in [["prlimit", "--nofile=60"], ["env", "NOTIFY_SOCKET=/no/such/socket"]] {
        assert_one_line(&run_through(&wrapper, &nowhere), 1, &["192.0.2.1:5300"]);
    }
}

#[test]
fn h01_no_descriptor_at_all() {
    // The loader takes the place of standard input for a moment, the program for as long as it runs.
    let wrapper = ["bash", "-c", "exec prlimit --nofile=3 \"$@\" <&-", "bash"];
    let result = run_through(&wrapper, &["--ca-file", "/etc/passwd"]);
    assert_one_line(&result, 1, &["3 open files", "TCP clients", "ulimit -n"]);
    let result = run_through(&wrapper, &["--config", "/etc/passwd"]);
    assert_one_line(&result, 1, &["--config /etc/passwd", "too many open files"]);
    // What is wrong with any limit.
    let result = run_through(&wrapper, &["--no-such-flag"]);
    assert_one_line(&result, 2, &["--no-such-flag: unknown flag"]);
}
