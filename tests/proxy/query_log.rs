//! The line for each query on standard error.

use support::message::{A, AXFR, RD, TXT};
use support::{Authority, Bed, Json, Proxy, Query, RefusedPort, UdpClient, proxy};

/// The line with its number of milliseconds, which it must have, as `N`.
#[track_caller]
fn timeless(line: &str) -> String {
    let (before, after) = line.split_once(" ms ").expect("a time");
    let (before, time) = before.rsplit_once(' ').expect("a number");
    let time: u64 = time.parse().expect("a number of milliseconds");
    assert!(time < 60_000, "{line}");
    format!("{before} N ms {after}")
}

#[test]
fn delivered_responses_are_successes() {
    let bed = Bed::with(|setup| {
        setup.handler(|query| {
            let mut answer = query.answer();
            if let [support::Act::Send(message)] = &mut answer[..]
                && query.name == "fail.example"
            {
                message[3] |= 2;
            }
            answer
        })
    });
    let (udp, mut tcp) = (bed.udp(), bed.tcp());
    udp.ask(&Query::new("google.com", A).opt(1232).bytes());
    tcp.ask(&Query::new("google.com", A).bytes());
    udp.ask(&Query::new("nx.example", A).bytes());
    let cut = udp.ask(&Query::new("size-3000.example", TXT).bytes());
    let cut_with_opt = udp.ask(&Query::new("size-5000.example", TXT).opt(1232).bytes());
    tcp.ask(&Query::new("size-3000.example", TXT).bytes());
    udp.ask(&Query::new("fail.example", 65_280).class(3).bytes());
    udp.ask(&Query::new("", 2).bytes());

    let via = format!("via {}#dot.example", bed.server.address());
    let lines =
        bed.proxy.await_lines("lines of the query log", 8, |line| line.starts_with("SUCCESS "));
    let lines: Vec<_> = lines.iter().map(|line| timeless(line)).collect();
    assert_eq!(
        lines[0],
        format!("SUCCESS google.com. A NOERROR 1 answer 55 B N ms udp 127.0.0.1 {via}")
    );
    assert_eq!(
        lines[1],
        format!("SUCCESS google.com. A NOERROR 1 answer 44 B N ms tcp 127.0.0.1 {via}")
    );
    assert!(lines[2].starts_with("SUCCESS nx.example. A NXDOMAIN 0 answers "), "{}", lines[2]);
    // What was sent, not what came.
    assert_eq!((cut[7], cut.len()), (1, 285));
    let start = "SUCCESS size-3000.example. TXT NOERROR truncated 1 answer 285 B N ms udp ";
    assert!(lines[3].starts_with(start), "{}", lines[3]);
    let len = cut_with_opt.len();
    let start = "SUCCESS size-5000.example. TXT NOERROR truncated 0 answers";
    assert!(lines[4].starts_with(&format!("{start} {len} B N ms udp ")), "{}", lines[4]);
    let start = "SUCCESS size-3000.example. TXT NOERROR 12 answers 3000 B N ms tcp ";
    assert!(lines[5].starts_with(start), "{}", lines[5]);
    assert!(lines[6].starts_with("SUCCESS fail.example. CH TYPE65280 SERVFAIL 0 "), "{}", lines[6]);
    assert!(lines[7].starts_with("SUCCESS . NS NOERROR 0 answers "), "{}", lines[7]);
}

#[test]
fn servfail_made_here_is_a_failure_with_its_cause() {
    let authority = Authority::new();
    let refused = RefusedPort::reserve();
    let proxy = Proxy::start(&proxy::arguments(&authority, &[refused.address()], &[]));
    UdpClient::new(proxy.address()).ask(&Query::new("google.com", A).bytes());
    let line = proxy.await_line("FAILURE line", |line| line.starts_with("FAILURE "));
    let line = timeless(&line);
    let start = "FAILURE google.com. A SERVFAIL N ms udp 127.0.0.1: ";
    assert!(line.starts_with(start), "{line}");
    let name = format!("{}#dot.example", refused.address());
    assert!(line.contains(&name) && line.ends_with("connection refused"), "{line}");
}

#[test]
fn other_answers_made_here_are_local() {
    let bed = Bed::start();
    let udp = bed.udp();
    udp.ask(&Query::new("example.com", AXFR).bytes());
    bed.tcp().ask(&Query::new("example.com", A).opt(1232).edns_version(1).bytes());
    udp.ask(&Query::new("example.com", A).flags(4 << 11 | RD).bytes());
    // Longer than the receive buffer.
    udp.ask(&Query::new("example.com", A).opt(1232).option(65_001, &[0; 5_000]).bytes());
    let lines = bed.proxy.await_lines("LOCAL lines", 4, |line| line.starts_with("LOCAL "));
    assert_eq!(lines[0], "LOCAL example.com. AXFR REFUSED udp 127.0.0.1: zone transfer");
    assert_eq!(lines[1], "LOCAL example.com. A BADVERS tcp 127.0.0.1: unknown EDNS version");
    assert!(lines[2].ends_with(" NOTIMP udp 127.0.0.1: unknown opcode"), "{}", lines[2]);
    assert_eq!(lines[3], "LOCAL example.com. A NOERROR truncated udp 127.0.0.1: too long a query");
}

#[test]
fn objects_have_names_that_are_escaped_and_the_time() {
    let args = ["--query-log", "json", "--query-log-client", "prefix"];
    let bed = Bed::with_args(&args, |setup| setup);
    let (udp, mut tcp) = (bed.udp(), bed.tcp());
    udp.ask(&Query::new("google.com", A).opt(1232).bytes());
    udp.ask(&Query::new("a\"b\\c\u{1b}\n}.example", A).bytes());
    tcp.ask(&Query::new("example.com", AXFR).bytes());
    let lines = bed.proxy.await_lines("objects", 3, |line| line.starts_with('{'));
    let objects: Vec<_> = lines.iter().map(|line| Json::read(line)).collect();
    for (object, members) in objects.iter().zip([
        &[
            ("result", "success"),
            ("name", "google.com."),
            ("class", "IN"),
            ("type", "A"),
            ("rcode", "NOERROR"),
            ("transport", "udp"),
            ("client", "127.0.0.0/24"),
            ("upstream", &format!("{}#dot.example", bed.server.address())),
        ][..],
        &[("result", "success"), ("name", "a\\\"b\\\\c\\027\\010}.example.")],
        &[("result", "local"), ("type", "AXFR"), ("rcode", "REFUSED"), ("transport", "tcp")],
    ]) {
        for (key, value) in members {
            assert_eq!(object[*key].text(), *value, "{key}: {object:?}");
        }
        // 2026-11-28T14:38:36.123Z
        let time = object["time"].text();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        let is_success = object["result"].text() == "success";
        assert_eq!(object.keys().contains(&"duration_ms"), is_success);
    }
    assert_eq!(objects[0]["truncated"], Json::Bool(false));
    let numbers = ["answers", "octets"].map(|key| objects[0][key].number().to_string());
    assert_eq!(numbers, ["1", "55"]);
    // The log itself is as ever.
    assert!(bed.proxy.stop().iter().any(|line| line.starts_with("INFO  [")));
}

#[test]
fn no_client_is_shown_where_that_is_off() {
    let bed = Bed::with_args(&["--query-log-client", "off"], |setup| setup);
    bed.udp().ask(&Query::new("google.com", A).bytes());
    let line = bed.proxy.await_line("a line", |line| line.starts_with("SUCCESS "));
    assert!(line.contains(" ms udp - via "), "{line}");
}

#[test]
fn query_log_is_off_when_told_or_when_nobody_watches() {
    for setting in ["off", "auto"] {
        let bed = Bed::with_args(&["--query-log", setting], |setup| setup);
        let udp = bed.udp();
        udp.ask(&Query::new("secret.example", A).bytes());
        udp.ask(&Query::new("secret.example", AXFR).bytes());
        let lines = bed.proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("secret")), "{setting}: {lines:#?}");
    }
}

#[test]
fn query_log_does_not_depend_on_the_log_level() {
    let bed = Bed::with_args(&["--log-level", "error"], |setup| setup);
    bed.udp().ask(&Query::new("a.example", A).bytes());
    let lines = bed.proxy.stop();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("SUCCESS a.example. A NOERROR "), "{}", lines[0]);
}

#[test]
fn log_tells_the_first_connection_but_not_the_next() {
    let bed = Bed::with(|setup| {
        setup.handler(|query| {
            [query.answer(), vec![support::Act::End(support::End::Notify)]].concat()
        })
    });
    let udp = bed.udp();
    for n in 0..5 {
        udp.ask(&Query::new(&format!("n{n}.example"), A).bytes());
    }
    let upstream = format!("{}#dot.example", bed.server.address());
    let lines = bed.proxy.stop();
    let about: Vec<_> = lines
        .iter()
        .filter(|line| !line.starts_with("SUCCESS ") && line.contains(&upstream))
        .filter(|line| !line.contains("] asking "))
        .collect();
    let [first] = &about[..] else { panic!("one line about it: {lines:#?}") };
    assert!(first.contains("TLS 1.3") && first.contains("full"), "{first}");
}

#[test]
fn log_tells_where_the_proxy_listens() {
    let bed = Bed::start();
    let listener = bed.proxy.address().to_string();
    let lines = bed.proxy.stop();
    let about = |line: &&String| line.contains("listening") && line.contains(&listener);
    assert_eq!(lines.iter().filter(about).count(), 1, "{lines:#?}");
}
