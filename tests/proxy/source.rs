//! Where connections to upstreams leave from, and addresses that come late.

use std::net::Ipv4Addr;

use support::message::{A, NOERROR, SERVFAIL};
use support::proxy::run;
use support::{Bed, Proxy, Query, Response};

#[test]
fn connections_leave_from_the_address_or_the_interface_that_is_given() {
    for (source, expected) in
        [("127.0.0.9", Ipv4Addr::new(127, 0, 0, 9)), ("lo", Ipv4Addr::LOCALHOST)]
    {
        // In the sandbox, as ever.
        let bed = Bed::with_args(&["--upstream-source", source], |setup| setup);
        let response = bed.udp().ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR, "{source}");
        let upstream = format!("{}#dot.example", bed.server.address());
        let ca_file = bed.authority.file().display().to_string();
        let args = ["--ca-file", &ca_file, "--upstream", &upstream, "--upstream-source", source];
        let (code, stdout, stderr) = run(&[&["check"][..], &args].concat());
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let log = bed.server.log();
        let peers = log.connections.iter().map(|connection| connection.peer.expect("a peer").ip());
        let peers: Vec<_> = peers.collect();
        assert!(peers.len() > 1 && peers.iter().all(|peer| *peer == expected), "{peers:?}");
        drop(log);
        let lines = bed.proxy.stop();
        assert!(!lines.iter().any(|line| line.starts_with("WARN")), "{lines:#?}");
    }
}

#[test]
fn a_source_that_is_not_there_is_named() {
    for (source, words) in [
        ("192.0.2.77", "connect: --upstream-source 192.0.2.77: not an address of this host now"),
        ("nosuch0", "connect: --upstream-source nosuch0: no such interface now"),
    ] {
        let bed = Bed::with_args(&["--upstream-source", source], |setup| setup);
        let response = bed.udp().ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, SERVFAIL, "{source}");
        bed.proxy.await_line("why", |line| line.starts_with("FAILURE ") && line.contains(words));
        assert!(bed.server.log().connections.is_empty(), "it left from elsewhere");
    }
}

#[test]
fn an_address_that_the_host_does_not_have_is_an_error_or_a_warning() {
    for (flag, address) in [("--listen", "192.0.2.77:5300"), ("--metrics", "192.0.2.77:9153")] {
        let (code, _, stderr) = run(&[flag, address]);
        assert_eq!(code, Some(1), "{stderr}");
        let words = format!("cannot listen on {address}");
        assert!(stderr.contains(&words) && stderr.contains("address not available"), "{stderr}");
        let proxy = Proxy::start(&[flag, address, "--freebind", "on"]);
        let line = proxy.await_line("a warning", |line| line.starts_with("WARN"));
        let words = format!("{address}: not an address of this host now, and served once it is");
        assert!(line.contains(&words), "{line}");
        assert_eq!(proxy.stop().iter().filter(|line| line.contains("--freebind")).count(), 1);
    }
}
