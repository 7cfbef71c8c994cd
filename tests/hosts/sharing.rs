//! Several processes on one port (`--reuse-port`): the kernel divides clients among them, and one that
//! ends takes no query with it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use crate::observe::await_stop;
use crate::start::{Copied, assert_one_line};
use support::message::{A, NOERROR};
use support::namespace::in_namespace;
use support::proxy::{run, run_through};
use support::skip::skip;
use support::{Act, Authority, DotServer, Proxy, Query, Response, Setup, TcpClient, UdpClient};

/// Clients: all of so many go to the same process once in 10^19 runs.
const CLIENTS: usize = 64;

fn share(authority: &Authority, server: &DotServer, address: SocketAddr) -> Proxy {
    let flags = ["--listen", &address.to_string(), "--reuse-port", "on"];
    Proxy::before(authority, &[server], &flags)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn query(kind: &str, n: usize) -> Vec<u8> {
    Query::new(&format!("{kind}{n}.example"), A).bytes()
}

/// Has so many clients ask once each, over UDP and over TCP.
#[track_caller]
fn ask_from_many(server: SocketAddr, kind: &str) {
    let udp: Vec<_> = (0..CLIENTS).map(|_| UdpClient::new(server)).collect();
    for (n, client) in udp.iter().enumerate() {
        client.send(&query(&format!("{kind}-udp"), n));
    }
    for client in &udp {
        assert_eq!(Response::read(&client.receive()).rcode, NOERROR);
    }
    for n in 0..CLIENTS {
        let response = TcpClient::new(server).ask(&query(&format!("{kind}-tcp"), n));
        assert_eq!(Response::read(&response).rcode, NOERROR);
    }
}

/// How many successes a query log has for names that begin so.
fn successes(log: &[String], kind: &str) -> usize {
    let beginning = format!("SUCCESS {kind}");
    log.iter().filter(|line| line.starts_with(&beginning)).count()
}

#[test]
fn clients_are_divided_among_those_who_share_a_port() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    for (listen, asked) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2"),
        ("[::1]", "[::1]"),
        ("[::]", "[::1]"),
    ] {
        let first = share(&authority, &server, address(&format!("{listen}:0")));
        let second = share(&authority, &server, first.address());
        assert_eq!(first.address(), second.address());

        ask_from_many(address(&format!("{asked}:{}", first.address().port())), "n");

        let logs = [first.stop(), second.stop()];
        for transport in ["n-udp", "n-tcp"] {
            let counts = logs.each_ref().map(|log| successes(log, transport));
            assert!(!counts.contains(&0), "{listen} {transport}: {counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), CLIENTS, "{listen} {transport}: {counts:?}");
        }
    }
}

#[test]
fn h06_one_of_two_on_a_port_ends() {
    for (listen, asked) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2"),
        ("[::1]", "[::1]"),
        ("[::]", "[::1]"),
    ] {
        let authority = Authority::new();
        // So late that the one that ends is there while others are asked.
        let server =
            DotServer::start(Setup::new(authority.identity("dot.example")).handler(|query| {
                let is_held = query.name.starts_with("held");
                let delay = Duration::from_secs(u64::from(is_held));
                vec![Act::After(delay, query.answer())]
            }));
        let first = share(&authority, &server, address(&format!("{listen}:0")));
        let second = share(&authority, &server, first.address());
        let asked = address(&format!("{asked}:{}", first.address().port()));

        // What the first has of it waits in its sockets when the signal comes.
        first.signal(Signal::STOP);
        await_stop(first.pid());
        let udp: Vec<_> = (0..CLIENTS).map(|_| UdpClient::new(asked)).collect();
        let mut tcp: Vec<_> = (0..CLIENTS).map(|_| TcpClient::new(asked)).collect();
        for (n, client) in udp.iter().enumerate() {
            client.send(&query("held-udp", n));
        }
        for (n, client) in tcp.iter_mut().enumerate() {
            client.send(&query("held-tcp", n));
        }
        first.signal(Signal::TERM);
        first.signal(Signal::CONT);
        server.await_log("all that was sent before", |log| log.queries.len() == 2 * CLIENTS);

        // The second process is not gone, and gets nothing any more.
        ask_from_many(asked, "later");
        for client in &udp {
            assert_eq!(Response::read(&client.receive()).rcode, NOERROR, "{listen}");
        }
        for client in &mut tcp {
            assert_eq!(Response::read(&client.receive()).rcode, NOERROR, "{listen}");
        }
        drop(tcp);
        let log = first.stopped();

        // Another takes its place beside the one that went on.
        let third = share(&authority, &server, second.address());
        ask_from_many(asked, "at-last");
        let logs = [log, second.stop(), third.stop()];
        let counts = |kind: &str| logs.each_ref().map(|log| successes(log, kind));
        for kind in ["held-udp", "held-tcp"] {
            assert!(counts(kind)[0] > 0 && counts(kind)[1] > 0, "{listen} {kind}: {logs:#?}");
        }
        assert_eq!(counts("later"), [0, 2 * CLIENTS, 0], "{listen}: {logs:#?}");
        for kind in ["at-last-udp", "at-last-tcp"] {
            assert!(counts(kind)[1] > 0 && counts(kind)[2] > 0, "{listen} {kind}: {logs:#?}");
        }
    }
}

#[test]
fn h05_port_not_shared() {
    let sharing = Proxy::start(&["--reuse-port", "on"]);
    let alone = Proxy::start::<&str>(&[]);
    for (taken, flags, words) in [
        (sharing.address(), &[][..], ["another program", "choose another address or port"]),
        (sharing.address(), &["--reuse-port", "off"], ["another program", "choose another"]),
        (alone.address(), &["--reuse-port", "on"], ["all on one address", "the same user"]),
    ] {
        let taken = taken.to_string();
        let result = run(&[&["--listen", &taken], flags].concat());
        assert_one_line(&result, 1, &[&[&*taken, "UDP", "in use"], &words[..]].concat());
    }
}

#[test]
fn h05_port_shared_with_another_user() {
    const NAME: &str = "h05_port_shared_with_another_user";

    if !geteuid().is_root() {
        return skip(NAME, "only root can start a process as another user");
    }
    let sharing = Proxy::start(&["--reuse-port", "on"]);
    let taken = sharing.address().to_string();
    let program = Copied::new(NAME);
    let result = run_through(&program.as_nobody(), &["--listen", &taken, "--reuse-port", "on"]);
    assert_one_line(&result, 1, &[&taken, "UDP", "in use", "the same user"]);
}

#[test]
fn port_zero_is_nobody_elses() {
    const NAME: &str = "port_zero_is_nobody_elses";

    in_namespace(NAME, "", || {
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        if let Err(error) = fs::write(range, "40000 40001") {
            return skip(NAME, &format!("{range}: {error}"));
        }
        let flags = ["--listen", "127.0.0.1:0", "--reuse-port", "on"];
        let two = [(); 2].map(|()| Proxy::start(&flags));
        assert_ne!(two[0].address(), two[1].address());
        assert_one_line(&run(&flags), 1, &["127.0.0.1:0", "in use", "no port is free"]);
    });
}
