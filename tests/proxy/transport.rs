//! Queries over UDP and TCP find their way back to the client that sent them.

use std::collections::BTreeSet;

use socket2::SockRef;

use support::message::{A, NOERROR, QR, RD};
use support::{Bed, DotServer, Proxy, Query, Response, Setup, UdpClient, proxy};

/// A read ends at urgent data (RFC 9293 section 3.8.5), with more octets behind it.
#[test]
fn tcp_query_behind_urgent_data_is_answered() {
    let bed = Bed::start();
    for _ in 0..50 {
        let mut client = bed.tcp();
        client.send(&Query::new("before.example", A).id(1).bytes());
        SockRef::from(client.stream()).send_out_of_band(b"!").expect("an open connection");
        client.send(&Query::new("behind.example", A).id(2).bytes());
        let ids = BTreeSet::from([(); 2].map(|()| Response::read(&client.receive()).id));
        assert_eq!(ids, BTreeSet::from([1, 2]));
    }
}

#[test]
fn query_over_tcp_may_be_long() {
    let bed = Bed::start();
    let query = Query::new("long.example", A).opt(1232).option(65_001, &vec![7; 60_000]).bytes();
    let response = Response::read(&bed.tcp().ask(&query));
    assert_eq!((response.rcode, response.answers), (NOERROR, 1));
    let sent = bed.server.log().queries[0].1.clone();
    let options = query.len() - 60_000 - 4;
    assert_eq!(sent.len() % 128, 0);
    assert_eq!(sent[options..query.len()], query[options..], "the option passes");
}

#[test]
fn ipv6_upstream_answers() {
    let authority = support::Authority::new();
    let setup = Setup::new(authority.identity("dot.example"));
    let server = DotServer::start_on("[::1]:0".parse().expect("an address"), setup)
        .expect("a free port of ::1");
    let proxy = Proxy::start(&proxy::arguments(&authority, &[server.address()], &[]));
    let query = Query::new("google.com", A).flags(RD).bytes();
    assert_eq!(Response::read(&UdpClient::new(proxy.address()).ask(&query)).answers, 1);
}

#[test]
fn wildcard_listener_answers_from_the_address_that_was_asked() {
    let bed = Bed::with_args(&["--listen", "0.0.0.0:0"], |setup| setup);
    for host in ["127.0.0.2", "127.0.0.1", "127.8.9.10"] {
        // The client's socket is connected, so that an answer from another address is lost.
        let address = format!("{host}:{}", bed.proxy.address().port());
        let client = UdpClient::new(address.parse().expect("an address"));
        assert_eq!(Response::read(&client.ask(&Query::new("google.com", A).bytes())).answers, 1);
    }
}

#[test]
fn frames_that_are_no_queries_end_the_connection_after_the_answers() {
    let bed = Bed::start();
    let response = Query::new("response.example", A).flags(QR | RD).bytes();
    for bad in [&response[..], &[0; 11], &[]] {
        let mut client = bed.tcp();
        client.send(&Query::new("good.example", A).id(77).bytes());
        client.send(bad);
        assert_eq!(Response::read(&client.receive()).id, 77);
        client.await_end();
    }
}
