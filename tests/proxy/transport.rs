//! Queries over UDP and TCP find their way back to the client that sent them.

use std::collections::BTreeSet;
use std::time::Instant;

use rustix::process::Signal;
use socket2::SockRef;

use support::answers;
use support::message::{self, A, NOERROR, QR, RD};
use support::server::LIMIT;
use support::{Act, Bed, DotServer, Proxy, Query, Response, Setup, TcpClient, UdpClient, proxy};

/// TIMEOUT of edns-tcp-keepalive, if the response has one.
fn keepalive(response: &[u8]) -> Option<u16> {
    let read = Response::read(response);
    assert_eq!(read.rcode, NOERROR);
    read.opt?.keepalive
}

/// RFC 7828 section 3.3. A client that is sent 0 is to go once it has its answers.
#[test]
fn tcp_clients_are_told_how_long_they_may_idle_and_to_go_when_places_run_out() {
    let flags = ["--tcp-clients-max", "4", "--client-idle-timeout", "40"];
    let bed = Bed::with_args(&flags, |setup| setup);
    let plain = Query::new("plain.example", A).bytes();
    let silent = Query::new("silent.example", A).opt(1232).bytes();
    let asking = Query::new("asking.example", A).opt(1232).option(11, b"").bytes();
    let local = Query::new("a.test", A).opt(1232).option(11, b"").bytes();
    let told_locally = |client: &mut TcpClient| {
        let opt = Response::read(&client.ask(&local)).opt;
        opt.and_then(|opt| opt.keepalive)
    };
    let mut first = bed.tcp();
    assert_eq!(keepalive(&first.ask(&plain)), None);
    assert_eq!(keepalive(&first.ask(&silent)), None);
    assert_eq!(keepalive(&first.ask(&asking)), Some(400));
    assert_eq!(told_locally(&mut first), Some(400));
    assert_eq!(keepalive(&bed.udp().ask(&asking)), None);

    // With three of four places taken the time falls; then none is left.
    let mut others = [bed.tcp(), bed.tcp()];
    for client in &mut others {
        assert_eq!(keepalive(&client.ask(&silent)), None);
    }
    assert_eq!(keepalive(&first.ask(&asking)), Some(220));
    let mut last = bed.tcp();
    assert_eq!(keepalive(&last.ask(&silent)), Some(0));
    for client in [&mut first, &mut last] {
        assert_eq!(keepalive(&client.ask(&plain)), None);
        assert_eq!(keepalive(&client.ask(&asking)), Some(0));
        assert_eq!(told_locally(client), Some(0));
    }
    assert_eq!(keepalive(&bed.udp().ask(&asking)), None);
    // It did as it was told, and the others may stay.
    drop(last);
    let [idle, other] = &mut others;
    idle.ask(&asking);
    let start = Instant::now();
    while keepalive(&first.ask(&asking)) != Some(220) {
        assert!(start.elapsed() < LIMIT, "the place of who went is not free");
    }
    assert_eq!(keepalive(&other.ask(&silent)), None);
    // Who is idle for longest makes room without a word.
    let mut newcomers = [bed.tcp(), bed.tcp()];
    for client in &mut newcomers {
        assert_eq!(Response::read(&client.ask(&plain)).rcode, NOERROR);
    }
    idle.await_end();
}

#[test]
fn tcp_clients_that_are_owed_answers_at_the_end_are_told_to_go() {
    let mut bed = Bed::with(|setup| setup.handler(|_| Vec::new()));
    let (mut owed, mut idle) = (bed.tcp(), bed.tcp());
    owed.send(&Query::new("plain.example", A).id(1).bytes());
    owed.send(&Query::new("edns.example", A).id(2).opt(1232).bytes());
    bed.server.await_log("both queries", |log| log.queries.len() == 2);
    bed.proxy.signal(Signal::TERM);
    // Who is owed nothing goes at once, without a word.
    idle.await_end();
    let queries: Vec<_> = bed.server.log().queries.iter().map(|(_, query)| query.clone()).collect();
    for query in &queries {
        let answer = answers::answer(query).expect("a query");
        bed.server.perform(Act::Send(answer));
    }
    let mut told: Vec<_> = (0..2)
        .map(|_| owed.receive())
        .map(|response| (message::id(&response), keepalive(&response)))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(1, None), (2, Some(0))]);
    owed.await_end();
    assert_eq!(bed.proxy.await_exit().code(), Some(0));
}

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
