//! Upstream connections: reuse, loss, resumption, and other upstreams instead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use support::answers;
use support::message::{A, NOERROR, SERVFAIL};
use support::proxy;
use support::server::LIMIT;
use support::{
    Act, Authority, Bed, DotServer, End, Greeting, Proxy, Query, RefusedPort, Response, Setup,
    UdpClient,
};

/// A client gets an answer, if only SERVFAIL, this long after it asked; the rest is for a slow machine.
const DEADLINE: Duration = Duration::from_millis(4_500);

/// EDE codes (RFC 8914 section 4).
const NO_REACHABLE_AUTHORITY: u16 = 22;
const NETWORK_ERROR: u16 = 23;

#[track_caller]
fn assert_answered(client: &UdpClient, name: &str) {
    let response = Response::read(&client.ask(&Query::new(name, A).bytes()));
    assert_eq!((response.rcode, response.answers), (NOERROR, 1), "{name}");
}

/// SERVFAIL with one EDE: its code and text.
#[track_caller]
fn ask_in_vain(client: &UdpClient, name: &str) -> (u16, String) {
    let start = Instant::now();
    let response = Response::read(&client.ask(&Query::new(name, A).opt(1232).bytes()));
    // A response that nothing triggered but the deadline may be late by what the machine is slow.
    assert!(start.elapsed() < DEADLINE + LIMIT / 2, "{:?}", start.elapsed());
    assert_eq!(response.rcode, SERVFAIL, "{name}");
    let mut errors = response.opt.expect("OPT answers OPT").errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn the_log_says_why_a_connection_was_closed() {
    let flags = ["--log-level", "debug", "--upstream-idle-timeout", "1"];
    let whoever: fn(End) -> Bed = |end| {
        let flags = ["--log-level", "debug"];
        Bed::with_args(&flags, |setup| {
            setup.handler(move |query| [query.answer(), vec![Act::End(end)]].concat())
        })
    };
    for (bed, expected) in [
        (Bed::with_args(&flags, |setup| setup), "closed here: idle"),
        (whoever(End::Notify), "closed by the server"),
        (whoever(End::Reset), "read: connection reset by peer"),
    ] {
        assert_answered(&bed.udp(), "a.example");
        let expected = format!("{}#dot.example: {expected}", bed.server.address());
        bed.proxy.await_line("line about the close", |line| line.ends_with(&expected));
        let closes = |line: &String| line.contains(": closed") || line.contains(": read: ");
        let lines = bed.proxy.stop();
        assert_eq!(lines.iter().filter(|line| closes(line)).count(), 1, "{lines:#?}");
    }
}

#[test]
fn server_that_closes_after_every_answer_costs_no_query() {
    for end in [End::Notify, End::Fin, End::Reset] {
        let bed = Bed::with(|setup| {
            setup.handler(move |query| [query.answer(), vec![Act::End(end)]].concat())
        });
        let client = bed.udp();
        for n in 0..50 {
            assert_answered(&client, &format!("n{n}.example"));
        }
        let log = bed.server.log();
        let finished = log.handshakes().count();
        assert!(finished >= 50, "{end:?}: a connection for each query, not {finished}");
        assert!(log.handshakes().skip(1).all(|handshake| handshake.resumed), "{end:?}: {log:#?}");
        drop(log);
        let lines = bed.proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("usable")), "{end:?}: {lines:#?}");
    }
}

#[test]
fn server_that_closes_an_idle_connection_costs_no_query() {
    for end in [End::Notify, End::Fin, End::Reset] {
        let bed =
            Bed::with(|setup| Setup { idle: Some((Duration::from_millis(50), end)), ..setup });
        let client = bed.udp();
        for n in 0..5 {
            assert_answered(&client, &format!("n{n}.example"));
            if end != End::Reset {
                // The proxy closes its side at once, though it has nothing to send.
                bed.server.await_log("the proxy's close", |log| {
                    log.connections.last().is_some_and(|last| last.ended.is_some())
                });
            }
        }
        let lines = bed.proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("usable")), "{end:?}: {lines:#?}");
    }
}

#[test]
fn sessions_are_resumed_with_tls_1_2_as_well() {
    let bed = Bed::with(|setup| {
        static VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
        Setup { versions: VERSIONS, ..setup }
            .handler(|query| [query.answer(), vec![Act::End(End::Notify)]].concat())
    });
    let client = bed.udp();
    for n in 0..3 {
        assert_answered(&client, &format!("n{n}.example"));
    }
    let log = bed.server.log();
    assert!(log.handshakes().all(|h| h.version == rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(log.handshakes().map(|h| h.resumed).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn unanswered_query_fails_alone_and_its_late_answer_goes_to_nobody() {
    // "late" is answered when "next" has come on the same connection.
    let mut held = HashMap::new();
    let bed = Bed::with(move |setup| {
        setup.handler(move |query| match query.name.as_str() {
            "late.example" => {
                held.insert(query.connection, query.answer());
                Vec::new()
            }
            "next.example" => {
                let late = held.remove(&query.connection).unwrap_or_default();
                [late, query.answer()].concat()
            }
            _ => query.answer(),
        })
    });
    let (victim, sibling) = (bed.udp(), bed.udp());
    victim.send(&Query::new("late.example", A).opt(1232).id(1).bytes());
    bed.server.await_log("the query", |log| log.queries_for("late.example") > 0);
    assert_answered(&sibling, "sibling.example");

    let response = Response::read(&victim.receive());
    assert_eq!((response.id, response.rcode), (1, SERVFAIL));
    let (code, _) = &response.opt.expect("OPT answers OPT").errors[0];
    assert_eq!(*code, NETWORK_ERROR);

    assert_answered(&sibling, "next.example");
    assert_answered(&victim, "other.example");
    assert!(victim.is_quiet(), "a second response");
    assert!(sibling.is_quiet(), "a second response");
}

/// RFC 8945 sections 5.2 and 5.3. Nothing is wrong with the connection.
#[test]
fn a_signature_out_of_place_or_not_asked_for_is_no_answer() {
    const TSIG: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x04xxxx";

    for (before_opt, behind_opt) in [(1, 0), (0, 1), (0, 2), (1, 1)] {
        let bed = Bed::with(|setup| {
            setup.handler(move |query| {
                let mut answer = answers::answer(query.message).expect("a query");
                if query.name == "signed.example" {
                    let opt = answer.split_off(answer.len() - answers::OPT_LEN);
                    answer.extend([TSIG.repeat(before_opt), opt, TSIG.repeat(behind_opt)].concat());
                    answer[11] += (before_opt + behind_opt) as u8;
                }
                vec![Act::Send(answer)]
            })
        });
        let client = bed.udp();
        for with_opt in [false, true] {
            let query = Query::new("signed.example", A);
            let query = if with_opt { query.opt(1232) } else { query };
            let response = Response::read(&client.ask(&query.bytes()));
            assert_eq!((response.rcode, response.answers), (SERVFAIL, 0));
            assert_eq!((response.additionals, response.opt.is_some()), (0, with_opt));
        }
        assert_answered(&client, "unsigned.example");
        assert_eq!(bed.server.log().connections.len(), 1);
    }
}

#[test]
fn nothing_listening_is_told_inside_the_deadline_and_logged_once() {
    let authority = Authority::new();
    let refused = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[refused.address()], &[]));
    let client = UdpClient::new(proxy.address());
    let name = format!("{}#dot.example", refused.address());
    for n in 0..3 {
        let (code, text) = ask_in_vain(&client, &format!("n{n}.example"));
        assert_eq!(code, NO_REACHABLE_AUTHORITY, "{text}");
        assert!(text.contains(&name) && text.contains("refused"), "{text}");
    }
    let plain = Response::read(&client.ask(&Query::new("plain.example", A).bytes()));
    assert_eq!(plain.rcode, SERVFAIL);
    assert!(plain.opt.is_none(), "no OPT for a client without");

    let lines = proxy.stop();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("not usable")).collect();
    let [told] = &told[..] else { panic!("one line, not {told:#?}") };
    assert!(told.contains(&name) && told.contains("connect: connection refused"), "{told}");
}

/// A server that answers a little later than at once, so that asking it paces a loop.
fn pacing(authority: &Authority) -> Setup {
    Setup::new(authority.identity("dot.example"))
        .handler(|query| vec![Act::After(Duration::from_millis(20), query.answer())])
}

#[test]
fn refused_upstream_hands_its_queries_on_and_gets_them_back() {
    let authority = Authority::new();
    let first = RefusedPort::reserve();
    let second = DotServer::start(pacing(&authority));
    let upstreams = [first.address(), second.address()];
    let proxy = Proxy::start(&proxy::arguments(&authority, &upstreams, &[]));
    let client = UdpClient::new(proxy.address());
    for n in 0..10 {
        assert_answered(&client, &format!("n{n}.example"));
    }
    assert_eq!(second.log().queries.len(), 10);
    let name = format!("{}#dot.example", first.address());
    proxy.await_line("line about the first", |line| {
        line.contains(&name) && line.contains("not usable")
    });

    let first = first.open(Setup::new(authority.identity("dot.example")));
    let start = Instant::now();
    while first.log().queries_for("back.example") == 0 {
        assert!(start.elapsed() < LIMIT, "the first upstream gets nothing: {:#?}", proxy.lines());
        assert_answered(&client, "back.example");
    }
    proxy.await_line("line about the return", |line| {
        line.contains(&name) && line.contains("usable again")
    });
}

#[test]
fn upstream_that_fails_at_tls_hands_its_queries_on() {
    let greetings = [
        Greeting::Raw(b"220 mail.example ESMTP\r\n".to_vec()),
        Greeting::Raw(b"HTTP/1.0 400 Bad Request\r\n\r\n".to_vec()),
        Greeting::Raw(Vec::new()),
        Greeting::Reset,
        Greeting::Mute,
    ];
    for greeting in greetings {
        let authority = Authority::new();
        let shown = format!("{greeting:?}");
        let setup = Setup::new(authority.identity("dot.example"));
        let first = DotServer::start(setup.greeting(move |_| greeting.clone()));
        let second = DotServer::start(Setup::new(authority.identity("dot.example")));
        let proxy = Proxy::before(&authority, &[&first, &second], &[]);
        let client = UdpClient::new(proxy.address());
        for n in 0..5 {
            assert_answered(&client, &format!("n{n}.example"));
        }
        assert_eq!(second.log().queries.len(), 5, "{shown}");
        let log = first.log();
        assert_eq!(log.application_octets(), 0, "{shown}");
        let clear = |octet: Option<u8>| octet.is_some_and(|octet| octet != 22);
        assert!(!log.connections.iter().any(|c| clear(c.first_octet)), "{shown}: clear text");
    }
}

#[test]
fn working_upstream_in_first_place_gets_every_query() {
    let authority = Authority::new();
    let first = DotServer::start(Setup::new(authority.identity("dot.example")));
    let second = DotServer::start(Setup::new(authority.identity("dot.example")));
    let proxy = Proxy::before(&authority, &[&first, &second], &[]);
    let client = UdpClient::new(proxy.address());
    for n in 0..20 {
        assert_answered(&client, &format!("n{n}.example"));
    }
    assert_eq!(first.log().queries.len(), 20);
    assert_eq!(second.log().connections.len(), 0);
}

#[test]
fn upstream_that_comes_back_is_used_without_a_restart() {
    let authority = Authority::new();
    let port = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[port.address()], &[]));
    let client = UdpClient::new(proxy.address());
    ask_in_vain(&client, "down.example");
    let server = port.open(Setup::new(authority.identity("dot.example")));
    let start = Instant::now();
    loop {
        // Queries wait for the next attempt, which paces this loop.
        let response = Response::read(&client.ask(&Query::new("up.example", A).bytes()));
        if response.rcode == NOERROR {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{:#?}", proxy.lines());
    }
    assert!(server.log().queries_for("up.example") > 0);
}
