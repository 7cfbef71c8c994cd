//! Metrics and probes over HTTP, while queries are served.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use support::message::{A, RD};
use support::server::LIMIT;
use support::skip::skip;
use support::{Act, Bed, Query, Response};

const METRICS: &[&str] = &["--metrics", "127.0.0.1:0"];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(LIMIT)).expect("a time");
    stream
}

/// All that comes until the end of the connection.
fn read(mut stream: &TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response and its end");
    response
}

/// The response to these octets.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("an open connection");
    read(&stream)
}

/// The status line and the content of a page.
fn page(address: SocketAddr, path: &str) -> (String, String) {
    let response = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let (head, content) = response.split_once("\r\n\r\n").expect("a head");
    let length = format!("\r\nContent-Length: {}\r\n", content.len());
    assert!(head.contains(&length) && head.ends_with("Connection: close"), "{head}");
    assert!(head.contains("\r\nDate: "), "{head}");
    (head.lines().next().unwrap_or_default().to_owned(), content.to_owned())
}

/// The samples of a scrape, by name with labels.
pub(crate) fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let (status, content) = page(address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let samples = content.lines().filter(|line| !line.starts_with('#'));
    let mut all = BTreeMap::new();
    for line in samples {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let before = all.insert(name.to_owned(), value.parse().expect("a number"));
        assert_eq!(before, None, "twice: {line}");
    }
    all
}

#[test]
fn queries_are_counted_by_what_they_were_and_what_became_of_them() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let before = scrape(metrics);
    assert!(before.values().all(|value| *value >= 0.0));
    bed.udp().ask(&Query::new("one.example", A).flags(RD).bytes());
    bed.tcp().ask(&Query::new("two.example", 28).flags(RD).bytes());
    bed.udp().ask(&Query::new("nx.example", 257).flags(RD).bytes());
    bed.udp().ask(&Query::new("localhost", A).flags(RD).bytes());
    let after = scrape(metrics);
    let server = bed.server.address();
    let up = |name: &str| format!("{name}{{upstream=\"{server}#dot.example\"}}");
    let handshake = |kind| {
        let name = "dot_proxy_upstream_handshakes_total";
        format!("{name}{{upstream=\"{server}#dot.example\",kind=\"{kind}\",result=\"success\"}}")
    };
    for (name, expected) in [
        ("dot_proxy_queries_total{transport=\"udp\",result=\"upstream\"}", 2.0),
        ("dot_proxy_queries_total{transport=\"tcp\",result=\"upstream\"}", 1.0),
        ("dot_proxy_queries_total{transport=\"udp\",result=\"local\"}", 1.0),
        ("dot_proxy_responses_total{rcode=\"NOERROR\"}", 3.0),
        ("dot_proxy_responses_total{rcode=\"NXDOMAIN\"}", 1.0),
        ("dot_proxy_query_types_total{type=\"A\"}", 2.0),
        ("dot_proxy_query_types_total{type=\"AAAA\"}", 1.0),
        ("dot_proxy_query_types_total{type=\"other\"}", 1.0),
        ("dot_proxy_response_duration_seconds_count", 3.0),
        ("dot_proxy_response_duration_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("dot_proxy_tcp_clients_accepted_total", 1.0),
        (&up("dot_proxy_upstream_usable"), 1.0),
        (&up("dot_proxy_upstream_connections"), 1.0),
        (&up("dot_proxy_upstream_queries_total"), 3.0),
        (&handshake("full"), 1.0),
        (&handshake("resumed"), 0.0),
        ("dot_proxy_ready", 1.0),
    ] {
        assert_eq!(after.get(name), Some(&expected), "{name}: {after:#?}");
        assert!(before[name] <= expected, "{name}");
    }
    assert!(after["process_resident_memory_bytes"] > 1e6, "{after:#?}");
    assert!(after["process_resident_memory_bytes"] < after["process_virtual_memory_bytes"]);
    assert!(after["process_open_fds"] > 5.0 && after["dot_proxy_memory_bound_bytes"] > 1e7);
    assert!(after["process_start_time_seconds"] > 1.7e9);
    // The certificate of the test ends some day.
    assert!(after[&up("dot_proxy_upstream_certificate_expiry_timestamp_seconds")] > 1.7e9);
    let (_, text) = page(metrics, "/metrics");
    for secret in ["one.example", "127.0.0.1\"", "localhost"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[test]
fn wrong_http_has_its_status_and_the_next_is_answered() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let long = "x".repeat(5_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        ("GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}", "400 Bad Request"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=b",
            "405 Method Not Allowed",
        ),
        ("GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n", "505 HTTP Version Not Supported"),
        (&format!("GET /{long} HTTP/1.1\r\n"), "414 URI Too Long"),
        (
            &format!("GET /metrics HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"),
            "431 Request Header Fields Too Large",
        ),
    ] {
        let response = exchange(metrics, request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {response}");
        let allows = response.contains("\r\nAllow: GET, HEAD\r\n");
        assert_eq!(allows, status.starts_with("405"), "{response}");
    }
    // Of several requests on a connection the first is answered.
    let two = "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let response = exchange(metrics, two);
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
    assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
    assert_eq!(page(metrics, "/healthz"), ("HTTP/1.1 200 OK".to_owned(), "200 OK\n".to_owned()));
}

#[test]
fn slow_and_silent_clients_hold_up_nobody_and_have_their_end() {
    // Nine that say little or nothing, one more than there are places.
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let start = Instant::now();
    let slow: Vec<_> = (0..9)
        .map(|index| {
            let mut stream = connect(metrics);
            if index % 2 == 0 {
                stream.write_all(b"GET /metr").expect("an open connection");
            }
            stream
        })
        .collect();
    bed.udp().ask(&Query::new("google.com", A).flags(RD).bytes());
    // Those that have not asked after a second make room.
    assert_eq!(page(metrics, "/healthz").0, "HTTP/1.1 200 OK");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let told = slow.iter().filter(|stream| {
        let mut response = String::new();
        let mut stream = *stream;
        // One that made room may be reset.
        stream.read_to_string(&mut response).is_ok_and(|_| response.starts_with("HTTP/1.1 408 "))
    });
    assert!(told.count() >= 6, "who had the time was not told of its end");
}

/// A client at this address that asks for all metrics and reads nothing; `None` if it is kept waiting.
fn unread(metrics: SocketAddr, source: [u8; 4]) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The least that the kernel has, so that the response does not fit.
    socket.set_recv_buffer_size(1).expect("a size");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of loopback");
    socket.connect_timeout(&metrics.into(), Duration::from_millis(100)).ok()?;
    socket.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    Some(socket)
}

#[test]
fn who_does_not_read_takes_no_probe_from_others() {
    // So many upstreams that the response is longer than what a socket takes to send.
    let upstreams = (1..16).map(|index| format!("--upstream=127.0.0.{index}:1#dot.example"));
    let upstreams: Vec<_> = upstreams.collect();
    let flags: Vec<_> = METRICS.iter().copied().chain(upstreams.iter().map(|it| &**it)).collect();
    let bed = Bed::with_args(&flags, |setup| setup);
    let metrics = bed.proxy.metrics();
    for many_hosts in [false, true] {
        // Twice as many as there are places; more come whenever some were closed.
        let mut held = Vec::new();
        for _ in 0..5 {
            for index in 0..if many_hosts { 8 } else { 16 } {
                let source = [127, 0, 0, if many_hosts { index + 3 } else { 2 }];
                held.extend(unread(metrics, source));
            }
            let start = Instant::now();
            assert_eq!(page(metrics, "/healthz").0, "HTTP/1.1 200 OK");
            // Otherwise they have their places for five.
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        }
    }
}

/// A client that does not close keeps its place until somebody wants it.
#[test]
fn who_has_its_response_makes_room_at_once() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let served: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect(metrics);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is open");
            assert!(read(&stream).starts_with("HTTP/1.1 200 OK"));
            stream
        })
        .collect();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(page(metrics, "/healthz").0, "HTTP/1.1 200 OK");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(served);
}

#[test]
fn who_asks_slowly_makes_room_for_nobody_who_is_not_there() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect(metrics);
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").expect("an open connection");
            stream
        })
        .collect();
    // Longer than one has to ask while others wait.
    let mut first = &slow[0];
    first.set_read_timeout(Some(Duration::from_millis(1_500))).expect("a time");
    let kind = first.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::WouldBlock), "it was closed");
    first.set_read_timeout(Some(LIMIT)).expect("a time");
    for mut stream in &slow {
        stream.write_all(b"Host: x\r\n\r\n").expect("an open connection");
        assert!(read(stream).starts_with("HTTP/1.1 200 OK"));
    }
}

#[test]
fn a_thousand_scrapes_take_no_query_from_anybody() {
    let bed = Bed::with_args(METRICS, |setup| {
        setup.handler(|query| vec![Act::After(Duration::from_millis(20), query.answer())])
    });
    let metrics = bed.proxy.metrics();
    let scrapes = std::thread::spawn(move || {
        for turn in 0..1_000 {
            if turn % 10 == 0 {
                // Some go away before they have read it all.
                let mut stream = connect(metrics);
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    .expect("a connection");
                stream.shutdown(Shutdown::Both).expect("a connection");
            } else {
                assert_eq!(page(metrics, "/metrics").0, "HTTP/1.1 200 OK");
            }
        }
    });
    let client = bed.udp();
    let mut asked = 0_u16;
    while !scrapes.is_finished() || asked < 200 {
        for number in 0..20 {
            let name = format!("load{}.example", asked + number);
            client.send(&Query::new(&name, A).id(asked + number).flags(RD).bytes());
        }
        for _ in 0..20 {
            assert_eq!(Response::read(&client.receive()).answers, 1);
        }
        asked += 20;
    }
    scrapes.join().expect("every scrape had its answer");
    let all = scrape(metrics);
    let answered = all.get("dot_proxy_queries_total{transport=\"udp\",result=\"upstream\"}");
    assert_eq!(answered, Some(&f64::from(asked)));
    assert_eq!(all.get("dot_proxy_datagrams_dropped_total"), Some(&0.0));
}

#[test]
fn readiness_ends_with_sigterm_and_service_after_the_drain() {
    let mut bed = Bed::with_args(&["--metrics", "127.0.0.1:0", "--drain", "3600"], |setup| setup);
    let metrics = bed.proxy.metrics();
    for path in ["/readyz", "/readyz?upstream=1", "/healthz"] {
        assert_eq!(page(metrics, path).0, "HTTP/1.1 200 OK", "{path}");
    }
    let signalled = Instant::now();
    bed.proxy.signal(Signal::TERM);
    bed.proxy
        .await_line("the beginning of the drain", |line| line.contains("serving on for 3600 s"));
    assert_eq!(page(metrics, "/readyz").0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(page(metrics, "/healthz").0, "HTTP/1.1 200 OK");
    let query = Query::new("google.com", A).flags(RD).bytes();
    assert_eq!(Response::read(&bed.udp().ask(&query)).answers, 1);
    assert_eq!(Response::read(&bed.tcp().ask(&query)).answers, 1);
    // The same within a second is the same request, but not after it.
    while signalled.elapsed() < Duration::from_millis(1_100) {
        assert_eq!(page(metrics, "/readyz").0, "HTTP/1.1 503 Service Unavailable");
    }
    bed.proxy.signal(Signal::TERM);
    assert_eq!(bed.proxy.await_exit().code(), Some(0), "{:#?}", bed.proxy.lines());
}

#[test]
fn the_drain_ends_by_itself() {
    let mut bed = Bed::with_args(&["--drain", "1"], |setup| setup);
    bed.proxy.signal(Signal::TERM);
    let signalled = Instant::now();
    bed.proxy.await_line("the beginning of the drain", |line| line.contains("serving on for 1 s"));
    let query = Query::new("google.com", A).flags(RD).bytes();
    assert_eq!(Response::read(&bed.udp().ask(&query)).answers, 1);
    assert_eq!(bed.proxy.await_exit().code(), Some(0), "{:#?}", bed.proxy.lines());
    assert!(signalled.elapsed() >= Duration::from_millis(900), "{:?}", signalled.elapsed());
}

#[test]
fn an_upstream_that_is_down_shows_only_where_it_is_asked_for() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    let metrics = bed.proxy.metrics();
    let Bed { proxy, server, .. } = bed;
    let query = Query::new("google.com", A).flags(RD).bytes();
    let client = support::UdpClient::new(proxy.address());
    let address = server.address();
    drop(server);
    client.ask(&query);
    proxy.await_line("a line about the failure", |line| line.contains("not usable"));
    assert_eq!(page(metrics, "/readyz").0, "HTTP/1.1 200 OK");
    assert_eq!(page(metrics, "/readyz?upstream=1").0, "HTTP/1.1 503 Service Unavailable");
    let all = scrape(metrics);
    let usable = format!("dot_proxy_upstream_usable{{upstream=\"{address}#dot.example\"}}");
    assert_eq!(all.get(&usable), Some(&0.0));
    let failed = "dot_proxy_queries_total{transport=\"udp\",result=\"servfail\"}";
    assert_eq!(all.get(failed), Some(&1.0));
    assert_eq!(all.get("dot_proxy_servfail_total{reason=\"connect\"}"), Some(&1.0));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    bed.udp().ask(&Query::new("google.com", A).flags(RD).bytes());
    let (_, text) = page(bed.proxy.metrics(), "/metrics");
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        skip("promtool_finds_nothing_to_say", "no promtool here; Debian's prometheus has it");
        return;
    };
    let mut stdin = check.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = check.wait_with_output().expect("its end");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn alerts_and_dashboard_use_names_that_exist() {
    let bed = Bed::with_args(METRICS, |setup| setup);
    bed.udp().ask(&Query::new("google.com", A).flags(RD).bytes());
    let samples = scrape(bed.proxy.metrics());
    let mut names = BTreeSet::new();
    // Prometheus adds these to every sample.
    let mut labels = BTreeSet::from(["instance", "job"]);
    for sample in samples.keys() {
        let (name, rest) = sample.split_once('{').unwrap_or((sample, ""));
        names.insert(name);
        labels.extend(rest.split(',').filter_map(|label| Some(label.split_once('=')?.0)));
    }
    for (file, text) in [
        ("alerts.yaml", include_str!("../../scripts/prometheus/alerts.yaml")),
        ("dashboard.json", include_str!("../../scripts/prometheus/dashboard.json")),
    ] {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c| !is_part(c));
        let used: BTreeSet<_> = words
            .filter(|word| word.starts_with("dot_proxy_") || word.starts_with("process_"))
            .collect();
        assert!(used.len() > 8, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&names).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        for (at, _) in text.match_indices("{{") {
            let rest = text[at + 2..].trim_start();
            let rest = rest.strip_prefix("$labels.").unwrap_or(rest);
            let label = rest.split(|c| !is_part(c)).next().unwrap_or_default();
            assert!(labels.contains(label), "{file}: {label}");
        }
        for (at, _) in text.match_indices("by (") {
            let list = text[at + 4..].split(')').next().unwrap_or_default();
            for label in list.split(',').map(str::trim) {
                assert!(labels.contains(label), "{file}: {label}");
            }
        }
    }
}
