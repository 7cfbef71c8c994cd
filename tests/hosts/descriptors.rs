//! Row H1: few file descriptors.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, geteuid, prlimit};

use crate::observe::{Busy, descriptors};
use crate::steady::{ask_steadily, assert_all_answered};
use support::message::{A, NOERROR};
use support::proxy::arguments;
use support::{
    Act, Authority, Bed, DotServer, End, Proxy, Query, Response, Setup, TcpClient, UdpClient,
};

const LIMIT_32: [&str; 2] = ["prlimit", "--nofile=32"];

/// Answers each query and ends the connection, so that the next needs a new one.
fn ends_after_each(setup: Setup) -> Setup {
    setup.handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat())
}

#[track_caller]
fn assert_answered(response: &[u8]) {
    assert_eq!(Response::read(response).rcode, NOERROR);
}

#[test]
fn h01_few_descriptors() {
    let authority = Authority::new();
    let setup = ends_after_each(Setup::new(authority.identity("dot.example")));
    let server = DotServer::start(setup);
    let args = arguments(&authority, &[server.address()], &[]);
    let proxy = Proxy::start_through(&LIMIT_32, &args);
    proxy.await_line("warning", |line| {
        line.contains("TCP clients at a time") && line.contains("32 open files")
    });

    // More than it has descriptors for. The kernel takes those that it cannot.
    let mut clients: Vec<_> = (0..60).map(|_| TcpClient::new(proxy.address())).collect();
    let busy = Busy::since_now(proxy.pid());
    let asked = ask_steadily(proxy.address(), 20, Duration::from_millis(50), |_| ());
    assert_all_answered(&asked);
    assert!(server.log().connections.len() >= 20, "{:?}", server.log());
    busy.assert_low();

    // The idle ones made room for the last.
    let last = clients.last_mut().expect("clients");
    assert_answered(&last.ask(&Query::new("last.example", A).bytes()));
    let lines = proxy.stop();
    assert!(!lines.iter().any(|line| line.contains("new clients wait")), "{lines:#?}");
}

#[test]
fn h01_few_descriptors_and_no_idle_client() {
    let authority = Authority::new();
    let setup = ends_after_each(Setup::new(authority.identity("dot.example")));
    let server = DotServer::start(setup);
    let args = arguments(&authority, &[server.address()], &[]);
    let proxy = Proxy::start_through(&LIMIT_32, &args);

    // Half a length each: none of them is idle.
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = TcpClient::new(proxy.address());
            client.send_raw(&[0]);
            client
        })
        .collect();
    let busy = Busy::since_now(proxy.pid());
    assert_all_answered(&ask_steadily(proxy.address(), 20, Duration::from_millis(50), |_| ()));
    busy.assert_low();
    drop(clients);
    let lines = proxy.stop();
    assert!(!lines.iter().any(|line| line.contains("new clients wait")), "{lines:#?}");
}

#[test]
fn h01_no_descriptor_left() {
    // Its descriptors are looked at, and its limit is lowered: by root for what is root's, by another user for
    // what is in no sandbox.
    let args = if geteuid().is_root() { ["--user", "root"] } else { ["--sandbox", "off"] };
    let bed = Bed::with_args(&args, |setup| setup);
    let proxy = bed.proxy.address();
    let mut held = TcpClient::new(proxy);
    assert_answered(&held.ask(&Query::new("first.example", A).bytes()));
    // None is free below the limit now, though those above it stay open.
    let open = descriptors(bed.proxy.pid());
    let unused = (0..1024).find(|number| !open.contains(number));
    prlimit(Some(bed.proxy.pid()), Resource::Nofile, Rlimit { current: unused, maximum: unused })
        .expect("a limit may be lowered");

    let mut waiting = TcpClient::new(proxy);
    waiting.send(&Query::new("waiting.example", A).bytes());
    bed.proxy.await_line("warning", |line| line.contains("new clients wait"));
    let busy = Busy::since_now(bed.proxy.pid());
    assert_all_answered(&ask_steadily(proxy, 20, Duration::from_millis(50), |_| ()));
    busy.assert_low();
    assert_eq!(bed.server.log().queries_for("waiting.example"), 0);

    drop(held);
    assert_answered(&waiting.receive());
    assert_answered(&UdpClient::new(proxy).ask(&Query::new("after.example", A).bytes()));
    let lines = bed.proxy.stop();
    let told = lines.iter().filter(|line| line.contains("new clients wait")).count();
    assert_eq!(told, 1, "{lines:#?}");
}
