//! Network namespaces: networks of a test's own, to be broken as it likes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::server::LIMIT;
use crate::skip::skip;

/// A network namespace. It has no name that could be left behind: it ends with those who use it.
pub struct Namespace {
    link: File,
    /// Keeps it alive until the end of its standard input, and so not longer than this process.
    holder: Child,
}

impl Namespace {
    /// With the loopback interface up and nothing else. The error is why this machine cannot.
    pub fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| missing("unshare", &error))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe");
        if line.is_empty() {
            let output = holder.wait_with_output().expect("a child of ours");
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let link = File::open(format!("/proc/{}/ns/net", holder.id())).expect("the holder lives");
        let namespace = Self { link, holder };
        namespace.enter(|| run("ip", &["link", "set", "lo", "up"], "").map(drop))?;
        Ok(namespace)
    }

    /// Does it inside: sockets, threads and processes that are made there stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        // A thread of its own, because a thread that went in does not come back.
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let network = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(self.link.as_fd(), network)
                        .expect("whoever may make a namespace may go there");
                    inside()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A pair of interfaces of this name, one end where the caller is, the other here; both up, each
    /// with these addresses.
    #[track_caller]
    pub fn connect(&self, interface: &str, near: &[&str], far: &[&str]) {
        let pid = self.holder.id().to_string();
        let peer = ["type", "veth", "peer", "name", interface, "netns", &pid];
        ip(&[&["link", "add", "name", interface], &peer[..]].concat());
        ip(&["link", "set", "dev", interface, "up"]);
        self.enter(|| ip(&["link", "set", "dev", interface, "up"]));
        give_addresses(interface, near);
        self.enter(|| give_addresses(interface, far));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // The holder may have been killed.
        drop(self.holder.wait());
    }
}

/// Runs a test in a namespace of its own with these nft rules, or says why it was skipped.
pub fn in_namespace(name: &str, rules: &str, test: impl FnOnce() + Send) {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(reason) => return skip(name, &reason),
    };
    let loaded = namespace.enter(|| if rules.is_empty() { Ok(()) } else { load(rules) });
    match loaded {
        Ok(()) => namespace.enter(test),
        Err(error) => {
            assert!(!error.contains("syntax error"), "{error}");
            skip(name, &error);
        }
    }
}

/// Does it while pairs of interfaces come and go beside it, as those of containers do, with these pauses
/// in turn.
pub fn while_interfaces_come_and_go<T>(pauses: &[Duration], inside: impl FnOnce() -> T) -> T {
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (number, pause) in pauses.iter().cycle().enumerate() {
                let name = format!("pair{number}");
                let peer = format!("peer{number}");
                ip(&["link", "add", "name", &name, "type", "veth", "peer", "name", &peer]);
                ip(&["link", "set", "dev", &name, "up"]);
                ip(&["link", "set", "dev", &peer, "up"]);
                let over = ended.recv_timeout(*pause) == Err(RecvTimeoutError::Disconnected);
                ip(&["link", "delete", "dev", &name]);
                if over {
                    break;
                }
            }
        });
        let result = inside();
        drop(end);
        result
    })
}

/// Runs `ip` with these arguments.
#[track_caller]
pub fn ip(arguments: &[&str]) {
    if let Err(error) = run("ip", arguments, "") {
        panic!("{error}");
    }
}

/// Runs `ip` once with these lines of arguments, so that no time passes between them.
#[track_caller]
pub fn ip_lines(lines: &str) {
    if let Err(error) = run("ip", &["-batch", "-"], lines) {
        panic!("{error}");
    }
}

/// Has what leaves an interface arrive so much later, or says why this machine cannot.
pub fn delay(interface: &str, time: Duration) -> Result<(), String> {
    let time = format!("{}ms", time.as_millis());
    run("tc", &["qdisc", "add", "dev", interface, "root", "netem", "delay", &time], "").map(drop)
}

/// Adds these rules to those that are there.
#[track_caller]
pub fn nft(rules: &str) {
    if let Err(error) = load(rules) {
        panic!("{error}");
    }
}

/// How many packets the rules with a counter have met.
pub fn counted() -> u64 {
    let rules = run("nft", &["list", "ruleset"], "").expect("rules");
    let words: Vec<_> = rules.split_whitespace().collect();
    let counts = words.windows(2).filter(|pair| pair[0] == "packets");
    counts.map(|pair| pair[1].parse::<u64>().expect("a number")).sum()
}

#[track_caller]
fn give_addresses(interface: &str, addresses: &[&str]) {
    // A pair is connected some time after both of its ends are up, and drops what is sent before.
    let deadline = Instant::now() + LIMIT;
    let is_connected = || {
        let link = run("ip", &["-oneline", "link", "show", "dev", interface], "");
        link.expect("an interface").contains("state UP")
    };
    while !is_connected() {
        assert!(Instant::now() < deadline, "{interface} is not connected");
    }
    for address in addresses {
        // Duplicate address detection would keep an IPv6 address unusable for a second.
        let v6: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        ip(&[&["address", "add", address, "dev", interface], v6].concat());
    }
}

/// The same, or why this machine cannot.
pub fn load(rules: &str) -> Result<(), String> {
    run("nft", &["-f", "-"], rules).map(drop)
}

/// What it prints.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| missing(program, &error))?;
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that failed before it read says so itself.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().expect("a child of ours");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {error}", arguments.join(" ")))
}

fn missing(program: &str, error: &std::io::Error) -> String {
    format!("cannot run {program}, which scripts/install-test-packages installs: {error}")
}
