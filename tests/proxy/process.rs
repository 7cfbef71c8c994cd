//! The program as a process: its start, its end, its standard error.

use std::io::Read;

use rustix::process::Signal;

use support::message::{A, NOERROR};
use support::{
    Authority, Bed, DotServer, Proxy, Query, Response, Setup, TcpClient, UdpClient, proxy,
};

#[test]
fn termination_when_idle_ends_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bed = Bed::start();
        let response = bed.udp().ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
        bed.proxy.signal(signal);
        assert_eq!(bed.proxy.await_exit().code(), Some(0), "{signal:?}");
        bed.server.await_log("the goodbye", |log| log.connections[0].ended.is_some());
    }
}

#[test]
fn termination_before_the_first_query_ends_with_success() {
    let mut bed = Bed::start();
    bed.proxy.signal(Signal::TERM);
    assert_eq!(bed.proxy.await_exit().code(), Some(0));
    assert_eq!(bed.server.log().connections.len(), 0);
}

#[test]
fn port_zero_is_the_same_port_for_udp_and_tcp() {
    let args = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--listen", "[::1]:0"];
    let bed = Bed::with_args(&args, |setup| setup);
    assert_eq!(bed.proxy.listeners().len(), 3);
    for &listener in bed.proxy.listeners() {
        assert_ne!(listener.port(), 0);
        let query = Query::new("a.example", A).bytes();
        assert_eq!(Response::read(&UdpClient::new(listener).ask(&query)).rcode, NOERROR);
        assert_eq!(Response::read(&TcpClient::new(listener).ask(&query)).rcode, NOERROR);
    }
}

/// Runs it, and expects this exit code, nothing on standard output and one line with these words.
#[track_caller]
pub(crate) fn assert_refuses(args: &[&str], code: i32, words: &[&str]) {
    let (exit, stdout, stderr) = proxy::run(args);
    assert_eq!(exit, Some(code), "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: one line, not {stderr:?}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: {word:?} is not in {stderr:?}");
    }
}

#[test]
fn unusable_ca_file_is_an_error_at_the_start() {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let name = |what: &str| format!("{directory}/proxy-test-{}-{what}", std::process::id());
    let (missing, empty, text) = (name("missing"), name("empty"), name("text"));
    std::fs::write(&empty, "").expect("a writable directory");
    std::fs::write(&text, "no certificate at all\n").expect("a writable directory");
    for (file, word) in [(&missing, "cannot be read"), (&empty, "empty"), (&text, "no certificate")]
    {
        assert_refuses(&["--upstream=192.0.2.1#a", "--ca-file", file], 2, &[file, word]);
    }
    assert_refuses(&["--upstream=192.0.2.1#a", "--ca-file", directory], 2, &[directory]);
    let trusted = name("trusted");
    let root = Authority::new().pem();
    let both = root.clone() + &root.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    std::fs::write(&trusted, both).expect("a writable directory");
    let words = [&trusted, "1 of 2 certificates cannot be read"];
    assert_refuses(&["--upstream=192.0.2.1#a", "--ca-file", &trusted], 2, &words);
    for file in [empty, text, trusted] {
        std::fs::remove_file(file).expect("it was just read");
    }
}

/// Asks often enough that the query log is longer than a pipe holds (64 KiB).
fn fill_query_log(proxy: &Proxy) {
    let client = UdpClient::new(proxy.address());
    let long = format!("{0}.{0}.{0}", "long".repeat(15));
    for n in 0..600 {
        let response = client.ask(&Query::new(&format!("n{n}.{long}.example"), A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR);
    }
}

#[test]
fn closed_standard_error_does_not_stop_it() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let args = proxy::arguments(&authority, &[server.address()], &["--log-level", "trace"]);
    let mut proxy = Proxy::start_with_stderr(&args, writer);
    drop(reader);
    fill_query_log(&proxy);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.await_exit().code(), Some(0));
}

#[test]
fn standard_error_closed_from_the_start_does_not_stop_it() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let args = proxy::arguments(&authority, &[server.address()], &["--log-level", "trace"]);
    let mut proxy = Proxy::start_with_stderr(&args, writer);
    fill_query_log(&proxy);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.await_exit().code(), Some(0));
}

#[test]
fn unread_standard_error_does_not_stop_it() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let args = proxy::arguments(&authority, &[server.address()], &[]);
    let mut proxy = Proxy::start_with_stderr(&args, writer);
    fill_query_log(&proxy);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.await_exit().code(), Some(0));

    // What the pipe held are whole lines: one that does not fit is left out, not cut.
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("text");
    assert!(log.ends_with('\n'));
    let count = log.lines().filter(|line| line.starts_with("SUCCESS ")).count();
    assert!((100..600).contains(&count), "{count} lines");
    for line in log.lines().filter(|line| line.starts_with("SUCCESS ")) {
        assert!(line.ends_with("#dot.example"), "a cut line: {line:?}");
    }
}
