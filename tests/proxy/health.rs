//! `dot-proxy health`: who is asked, what counts as an answer, and what is said where there is none.

use std::net::{SocketAddr, UdpSocket};

use crate::process::assert_refuses;
use support::message::{A, FORMERR, NOERROR, REFUSED};
use support::{
    Authority, Bed, DotServer, Proxy, Query, RefusedPort, Response, Setup, answers, proxy,
};

#[track_caller]
fn assert_healthy(args: &[&str], said: &str) {
    let (code, stdout, stderr) = proxy::run(&[&["health"], args].concat());
    assert_eq!((code, &*stderr), (Some(0), ""), "{args:?}: {stdout}");
    assert_eq!(stdout, format!("{said}\n"), "{args:?}");
}

#[track_caller]
fn assert_unhealthy(args: &[&str], words: &[&str]) {
    assert_refuses(&[&["health"], args].concat(), 1, words);
}

#[test]
fn this_host_is_answered_under_every_flag_without_a_query_or_a_line() {
    for flags in [
        &[][..],
        &["--allow", "10.0.0.0/8"],
        &["--deny", "127.0.0.0/8", "--deny", "::1"],
        &["--deny", "127.0.0.0/8", "--deny", "::1", "--refuse-denied", "refused"],
        &["--rate-limit", "1/1"],
        &["--special-names", "forward", "--ecs", "pass", "--hedge", "any"],
        &["--size", "small", "--wait-limit", "1", "--udp-size-max", "512"],
        &["--listen", "0.0.0.0:0", "--listen", "[::]:0"],
    ] {
        let bed = Bed::with_args(flags, |setup| setup);
        for listener in bed.proxy.listeners() {
            let asked = match listener.to_string() {
                wildcard if wildcard.starts_with("0.0.0.0:") => {
                    wildcard.replace("0.0.0.0", "127.0.0.1")
                }
                wildcard => wildcard.replace("[::]", "[::1]"),
            };
            // More often than a rate of one a second allows.
            for _ in 0..5 {
                assert_healthy(&["--listen", &listener.to_string()], &format!("{asked} answers"));
            }
        }
        let lines = bed.proxy.stop();
        let noted = |line: &&String| {
            ["LOCAL", "FAILURE", "SUCCESS", "BADVERS", "not served"]
                .iter()
                .any(|it| line.contains(it))
        };
        assert_eq!(lines.iter().find(noted), None, "{flags:?}");
        assert_eq!(bed.server.log().connections.len(), 0, "{flags:?}");
    }
}

/// A server of another kind at a free port, which answers a datagram so.
fn answering(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    // Ends with the process.
    std::thread::spawn(move || {
        let mut octets = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut octets) {
            // The client may have left.
            drop(socket.send_to(&answer(&octets[..len]), client));
        }
    });
    address
}

#[test]
fn another_server_is_told_from_the_program() {
    let other = |answer: fn(&[u8]) -> Vec<u8>, seen: &str| {
        let address = answering(answer).to_string();
        let words = [&address, " does not answer as dot-proxy does: ", seen];
        assert_unhealthy(&["--listen", &address], &words);
    };
    other(|query| answers::bare(query, REFUSED), "REFUSED");
    other(|query| answers::bare(query, NOERROR), "NOERROR");
    other(|query| answers::objection(query, FORMERR, false), "FORMERR");
    other(|query| extended(query, [2, 0]), "RCODE32");
    other(plain_badvers, "BADVERS there, not that of dot-proxy");
    other(|query| with_error(plain_badvers(query), b"EDNS 0"), "BADVERS there, not");
    other(|query| with_error(answers::bare(query, REFUSED), b"dot-proxy"), "REFUSED");
    other(query_with_qr, "NOERROR");
    other(|query| query_with_qr(&query[..query.len() - 1]), "cannot be read");
    other(
        |query| {
            let mut answer = badvers(query);
            answer[14] ^= 1;
            answer
        },
        "another question",
    );
    let right = answering(badvers).to_string();
    assert_healthy(&["--listen", &right], &format!("{right} answers"));
    // One that is right is enough.
    let wrong = answering(|query| answers::bare(query, REFUSED)).to_string();
    assert_healthy(&["--listen", &wrong, "--listen", &right], &format!("{right} answers"));
}

/// The right answer.
fn badvers(query: &[u8]) -> Vec<u8> {
    with_error(plain_badvers(query), b"dot-proxy")
}

/// What every server says that follows RFC 6891 section 6.1.3.
fn plain_badvers(query: &[u8]) -> Vec<u8> {
    extended(query, [1, 0])
}

/// The same answer with an Extended DNS Error in its OPT record (RFC 8914 section 2), code 0.
fn with_error(mut answer: Vec<u8>, text: &[u8]) -> Vec<u8> {
    let len = text.len() as u8 + 2;
    let rdlen = answer.len() - 1;
    answer[rdlen] = len + 4;
    answer.extend_from_slice(&[0, 15, 0, len, 0, 0]);
    answer.extend_from_slice(text);
    answer
}

/// An answer whose OPT record has these upper bits of the RCODE and this version.
fn extended(query: &[u8], octets: [u8; 2]) -> Vec<u8> {
    let mut answer = answers::bare(query, NOERROR);
    let upper = answer.len() - answers::OPT_LEN + 5;
    answer[upper..upper + 2].copy_from_slice(&octets);
    answer
}

fn query_with_qr(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

#[test]
fn what_is_no_answer_to_the_query_is_silence() {
    let repeats = answering(<[u8]>::to_vec).to_string();
    assert_unhealthy(&["--listen", &repeats], &[&repeats, "did not answer"]);
    let confused = answering(|query| {
        let mut answer = badvers(query);
        answer[0] ^= 1;
        answer
    });
    assert_unhealthy(&["--listen", &confused.to_string()], &["did not answer", "firewall"]);
}

#[test]
fn where_nothing_listens_is_no_health() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound").to_string();
    assert_unhealthy(&["--listen", &address], &[&address, "did not answer"]);
    drop(socket);
    assert_unhealthy(&["--listen", &address], &["nothing listens on", &address, "UDP"]);
    assert_unhealthy(&["--listen", "127.0.0.1:0"], &["give --listen ADDR:PORT"]);
}

#[test]
fn deep_asks_an_upstream() {
    let bed = Bed::start();
    let listener = bed.proxy.address().to_string();
    let said = format!("{listener} answers, and so does an upstream");
    assert_healthy(&["--deep", "--listen", &listener], &said);
    let asked = bed.server.log().queries.len();
    assert_eq!(asked, 1);
    bed.proxy.await_line("the query", |line| line.starts_with("SUCCESS . NS "));

    // An error comes at once where no certificate is right.
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("other.example")));
    let proxy = Proxy::before(&authority, &[&server], &[]);
    let listener = proxy.address().to_string();
    let words =
        ["answers, but a query for . NS got SERVFAIL: ", "the certificate is for other.example"];
    assert_unhealthy(&["--listen", &listener, "--deep"], &words);
    assert_healthy(&["--listen", &listener], &format!("{listener} answers"));

    let refused = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[refused.address()], &[]));
    let listener = proxy.address().to_string();
    let words = [&listener, "answers, but no upstream answered in 900ms"];
    assert_unhealthy(&["--listen", &listener, "--deep"], &words);
    assert_healthy(&["--listen", &listener], &format!("{listener} answers"));
}

/// The exemption is for one question alone.
#[test]
fn who_is_denied_gets_no_answer_to_another_question() {
    let flags = ["--deny", "127.0.0.0/8", "--refuse-denied", "refused"];
    let bed = Bed::with_args(&flags, |setup| setup);
    let udp = bed.udp();
    let response = udp.ask(&Query::new("a.example", A).opt(1232).bytes());
    assert_eq!(Response::read(&response).rcode, REFUSED);
    assert_eq!(bed.server.log().queries.len(), 0);
}
