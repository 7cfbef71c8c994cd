//! Row H6: the end, when a signal asks for it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::observe::await_stop;
use support::message::{self, A, NOERROR};
use support::{Act, Bed, Query, Response, TcpClient, UdpClient, answers};

#[test]
fn h06_sigterm_under_load() {
    // More datagrams and new connections than a turn of the loop takes (256 and 64), but no more than
    // the kernel holds; few enough for each client that its own buffer holds the answers.
    const CLIENTS: usize = 5;
    const DATAGRAMS: u16 = 80;
    const CONNECTIONS: usize = 80;
    const PIPELINED: u16 = 5;

    // Slow enough that something is on its way at any moment.
    let mut bed = Bed::with(|setup| {
        setup.handler(|query| vec![Act::After(Duration::from_millis(300), query.answer())])
    });
    let ask = |kind: &str, n: u16| Query::new(&format!("{kind}{n}.example"), A).id(n).bytes();
    let udp: Vec<_> = (0..CLIENTS).map(|_| bed.udp()).collect();
    let mut known = bed.tcp();
    let early = bed.udp();
    for n in 0..DATAGRAMS {
        early.send(&ask("early", n));
    }
    known.send(&ask("known", 0));
    bed.server.await_log("a query on its way", |log| log.queries_for("known0.example") > 0);

    // While it is stopped, the rest waits in the kernel: datagrams, new connections, and more on a
    // connection that is known. All of it was there before the signal.
    bed.proxy.signal(Signal::STOP);
    await_stop(bed.proxy.pid());
    for n in 0..DATAGRAMS {
        for client in &udp {
            client.send(&ask("udp", n));
        }
    }
    known.send(&ask("known", 1));
    let mut new: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = TcpClient::new(bed.proxy.address());
            let queries = (0..PIPELINED).flat_map(|n| message::framed(&ask("new", n)));
            client.send_raw(&queries.collect::<Vec<_>>());
            client
        })
        .collect();
    bed.proxy.signal(Signal::TERM);
    let start = Instant::now();
    bed.proxy.signal(Signal::CONT);

    assert_each_once(DATAGRAMS, || early.receive());
    for client in &udp {
        assert_each_once(DATAGRAMS, || client.receive());
    }
    assert_each_once(2, || known.receive());
    known.await_end();
    for client in &mut new {
        assert_each_once(PIPELINED, || client.receive());
        client.await_end();
    }
    assert_eq!(bed.proxy.await_exit().code(), Some(0), "{:#?}", bed.proxy.lines());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(udp.iter().all(UdpClient::is_quiet) && early.is_quiet(), "a second response");
}

/// So many responses come, one for each ID.
#[track_caller]
fn assert_each_once(count: u16, mut receive: impl FnMut() -> Vec<u8>) {
    let mut seen = vec![false; count.into()];
    for _ in 0..count {
        let response = Response::read(&receive());
        assert_eq!(response.rcode, NOERROR, "{response:?}");
        let before = std::mem::replace(&mut seen[usize::from(response.id)], true);
        assert!(!before, "a second response: {response:?}");
    }
}

#[test]
fn h06_nothing_owed_ends_at_once() {
    const TRIES: usize = 5;

    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let mut bed = Bed::start();
        // Connections on both sides, but nothing on them.
        let mut idle = bed.tcp();
        let response = idle.ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
        let start = Instant::now();
        bed.proxy.signal(Signal::TERM);
        assert_eq!(bed.proxy.await_exit().code(), Some(0));
        best = best.min(start.elapsed());
        idle.await_end();
        bed.server.await_log("the goodbye", |log| log.connections[0].ended.is_some());
        if best < Duration::from_millis(100) {
            return;
        }
    }
    // One that waited for something would do so every time; a busy machine is slow now and then.
    panic!("{best:?} at best");
}

#[test]
fn h06_what_is_owed_is_answered() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bed = Bed::with(|setup| setup.handler(|_| Vec::new()));
        let (udp, mut tcp) = (bed.udp(), bed.tcp());
        udp.send(&Query::new("udp.example", A).id(1).bytes());
        tcp.send(&Query::new("tcp.example", A).id(2).bytes());
        bed.server.await_log("both queries", |log| log.queries.len() == 2);

        bed.proxy.signal(signal);
        let queries = bed.server.log().queries.clone();
        for (_, query) in &queries {
            let answer = answers::answer(query).expect("a query");
            bed.server.perform(Act::After(Duration::from_millis(200), vec![Act::Send(answer)]));
        }
        for (id, response) in [(1, udp.receive()), (2, tcp.receive())] {
            let response = Response::read(&response);
            assert_eq!((response.id, response.rcode), (id, NOERROR), "{signal:?}");
        }
        tcp.await_end();
        assert_eq!(bed.proxy.await_exit().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn h06_second_signal_ends_at_once() {
    let mut bed = Bed::with(|setup| setup.handler(|_| Vec::new()));
    let client = bed.udp();
    client.send(&Query::new("held.example", A).bytes());
    bed.server.await_log("the query", |log| log.queries.len() == 1);
    // Two kinds, as two of a kind may become one.
    bed.proxy.signal(Signal::TERM);
    bed.proxy.signal(Signal::INT);
    // Not 0, as whoever is owed an answer gets none.
    assert_eq!(bed.proxy.await_exit().code(), Some(1));
    assert!(client.is_quiet(), "it did not wait for the query's deadline");
}

#[test]
fn h06_what_a_client_has_pipelined_is_answered() {
    const QUERIES: u16 = 200;

    let mut bed = Bed::with(|setup| {
        setup.handler(|query| vec![Act::After(Duration::from_millis(300), query.answer())])
    });
    let mut client = bed.tcp();
    let ask = |n: u16| Query::new(&format!("n{n}.example"), A).id(n).bytes();
    client.send_raw(&(0..QUERIES).flat_map(|n| message::framed(&ask(n))).collect::<Vec<_>>());
    bed.server.await_log("the first query", |log| log.queries_for("n0.example") > 0);
    bed.proxy.signal(Signal::TERM);
    let mut answered: Vec<_> = (0..QUERIES).map(|_| Response::read(&client.receive()).id).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..QUERIES).collect::<Vec<_>>());
    drop(client);
    assert!(bed.proxy.await_exit().success());
}
