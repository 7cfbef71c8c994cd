//! Row H7: queries that come back to the one who sent them, in ways that the start cannot see.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::observe::Busy;
use crate::steady::ask_steadily;
use support::message::{A, SERVFAIL};
use support::namespace::{in_namespace, ip};
use support::proxy::arguments;
use support::server::LIMIT;
use support::{Act, Authority, DotServer, Proxy, Query, Response, Setup, UdpClient};

/// SERVFAIL for all, in time, by a program that is otherwise idle.
#[track_caller]
fn assert_fails_without_a_spin(proxy: &Proxy) {
    let busy = Busy::since_now(proxy.pid());
    let asked = ask_steadily(proxy.address(), 20, Duration::from_millis(50), |_| ());
    for one in &asked {
        assert_eq!(one.rcode, SERVFAIL);
        assert!(one.delay < Duration::from_millis(4_500) + LIMIT / 2, "{one:?}");
    }
    busy.assert_low();
}

#[test]
fn h07_own_listener_behind_a_dnat() {
    let rules = "
        table ip loop {
            chain output {
                type nat hook output priority -100;
                ip daddr 10.9.9.9 tcp dport 853 dnat to 127.0.0.1:5300
            }
        }";
    in_namespace("h07_own_listener_behind_a_dnat", rules, || {
        ip(&["route", "add", "10.9.9.9", "dev", "lo"]);
        let upstreams = [SocketAddr::from(([10, 9, 9, 9], 853))];
        let authority = Authority::new();
        let args = arguments(&authority, &upstreams, &["--listen", "127.0.0.1:5300"]);
        let proxy = Proxy::start(&args);
        assert_fails_without_a_spin(&proxy);
        proxy.stop();
    });
}

#[test]
fn h07_own_address_behind_a_wildcard() {
    in_namespace("h07_own_address_behind_a_wildcard", "", || {
        ip(&["address", "add", "10.0.0.1/32", "dev", "lo"]);
        let upstreams = [SocketAddr::from(([10, 0, 0, 1], 5300))];
        let authority = Authority::new();
        let args = arguments(&authority, &upstreams, &["--listen", "0.0.0.0:5300"]);
        let proxy = Proxy::start(&args);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 5300));
        let response = UdpClient::new(loopback).ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, SERVFAIL);
        proxy.stop();
    });
}

/// Says that a test is over, also if it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Between it and itself, a server that asks over UDP what it is asked over TLS.
#[test]
fn h07_loop_of_two() {
    let authority = Authority::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let asks = socket.try_clone().expect("a descriptor");
    let setup = Setup::new(authority.identity("dot.example")).handler(move |query| {
        // Where the buffers are full, the query is lost, as on a network.
        drop(asks.send(query.message));
        Vec::new()
    });
    let server = DotServer::start(setup);
    let proxy = Proxy::before(&authority, &[&server], &["--query-log", "off"]);
    socket.connect(proxy.address()).expect("a loopback address");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    let client = UdpClient::new(proxy.address());

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        scope.spawn(|| {
            let mut octets = [0; 4096];
            while !is_over.load(Relaxed) {
                // It waits for no longer than it takes to look whether all is over.
                if let Ok(len) = socket.recv(&mut octets) {
                    server.perform(Act::Send(octets[..len].to_vec()));
                }
            }
        });
        let response = client.ask(&Query::new("round.example", A).opt(1_232).bytes());
        let response = Response::read(&response);
        let errors = response.opt.map(|opt| opt.errors).unwrap_or_default();
        let text = "the query went round: an upstream leads back to dot-proxy";
        assert_eq!((response.rcode, errors), (SERVFAIL, vec![(0, text.to_owned())]));
        let busy = Busy::since_now(proxy.pid());
        // Whatever still went round would go on. Only time is waited for.
        std::thread::sleep(Duration::from_secs(1));
        busy.assert_low();
        drop(over);
    });
    let count = server.log().queries.len();
    assert_eq!(count, 4, "queries came of one");
    let lines = proxy.stop();
    let told = lines.iter().filter(|line| line.contains("--upstream: queries seem to come back: "));
    assert_eq!(told.count(), 1, "{lines:#?}");
}
