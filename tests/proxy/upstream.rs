//! What is told of connections to upstreams that end or are never made.

use support::message::{A, NOERROR, SERVFAIL};
use support::proxy;
use support::{Act, Authority, Bed, End, Proxy, Query, RefusedPort, Response, UdpClient};

/// EDE code (RFC 8914 section 4).
const NO_REACHABLE_AUTHORITY: u16 = 22;

#[track_caller]
fn assert_answered(client: &UdpClient, name: &str) {
    let response = Response::read(&client.ask(&Query::new(name, A).bytes()));
    assert_eq!((response.rcode, response.answers), (NOERROR, 1), "{name}");
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
fn nothing_listening_is_told_to_clients_and_logged_once() {
    let authority = Authority::new();
    let refused = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[refused.address()], &[]));
    let client = UdpClient::new(proxy.address());
    let name = format!("{}#dot.example", refused.address());
    for n in 0..3 {
        let query = Query::new(&format!("n{n}.example"), A).opt(1232);
        let response = Response::read(&client.ask(&query.bytes()));
        assert_eq!(response.rcode, SERVFAIL);
        let errors = response.opt.expect("OPT answers OPT").errors;
        let [(code, text)] = &errors[..] else { panic!("one EDE, not {errors:?}") };
        assert_eq!(*code, NO_REACHABLE_AUTHORITY, "{text}");
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
