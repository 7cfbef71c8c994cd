//! What is said while no upstream is usable.

use std::net::SocketAddr;

use support::message::{A, NOERROR, SERVFAIL};
use support::{
    Authority, DotServer, Greeting, Proxy, Query, RefusedPort, Response, Setup, UdpClient,
};

#[test]
fn that_nothing_works_is_said_once_with_what_to_do_and_that_it_does_again() {
    let authority = Authority::new();
    let refused = RefusedPort::reserve();
    let address = refused.address();
    let proxy = Proxy::start(&support::proxy::arguments(&authority, &[address], &[]));
    let client = UdpClient::new(proxy.address());
    let query = Query::new("a.example", A).bytes();
    for _ in 0..5 {
        assert_eq!(Response::read(&client.ask(&query)).rcode, SERVFAIL);
    }
    let start = format!(
        "ERROR [dot_proxy::shell::status] queries get SERVFAIL, as no upstream works: {address}#dot.example: connect: \
         127.0.0.1 answers, and nothing listens on port {}",
        address.port()
    );
    proxy.await_line("what to do", |line| line.starts_with(&start));
    let server = refused.open(Setup::new(authority.identity("dot.example")));
    while Response::read(&client.ask(&query)).rcode != NOERROR {}
    let again = "INFO  [dot_proxy::shell::status] queries are answered again";
    proxy.await_line("that it works", |line| line == again);
    // However often it fails after that, it is told of once a minute.
    drop(server);
    while Response::read(&client.ask(&query)).rcode == NOERROR {}
    let lines = proxy.stop();
    assert_eq!(lines.iter().filter(|line| line.starts_with("ERROR ")).count(), 1, "{lines:#?}");
}

/// The answer to a query, and what the log says of it, where these servers are asked by these names.
fn ask(authority: &Authority, servers: &[(SocketAddr, &str)]) -> (String, Vec<String>) {
    let ca_file = authority.file().display().to_string();
    let upstreams = servers.iter().map(|(address, name)| format!("--upstream={address}#{name}"));
    let args: Vec<_> = ["--ca-file".into(), ca_file].into_iter().chain(upstreams).collect();
    let proxy = Proxy::start(&args);
    let client = UdpClient::new(proxy.address());
    let query = Query::new("a.example", A).opt(1232).bytes();
    let mut response = client.ask(&query);
    assert_eq!(Response::read(&response).rcode, SERVFAIL);
    // By now all of them have failed.
    proxy.await_line("what to do", |line| line.contains("no upstream works"));
    response = client.ask(&query);
    (String::from_utf8_lossy(&response).into_owned(), proxy.stop())
}

#[test]
fn what_is_to_be_written_for_another_name_or_key_is_said() {
    let authority = Authority::new();
    let server = DotServer::start(Setup::new(authority.identity("dot.example")));
    let address = server.address();
    let stranger = format!("dot.example,{}", authority.identity("dot.example").pin());
    for (name, words) in [
        (
            "wrong.example",
            format!("; if that is the server you mean, write --upstream {address}#dot.example; "),
        ),
        (&*stranger, "; if the key was changed on purpose, write sha256/".into()),
    ] {
        let (_, lines) = ask(&authority, &[(address, name)]);
        let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("ERROR ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(&words), "{name}: {lines:#?}");
    }
}

#[test]
fn several_operators_that_fail_alike_look_like_a_captive_portal() {
    let authority = Authority::new();
    let http = || Greeting::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let tls = |_| Greeting::Tls;
    for (has_tls, second, is_portal) in [
        (true, "two.example", true),
        (false, "two.example", true),
        // One operator with two servers.
        (true, "one.example", false),
        (false, "one.example", false),
    ] {
        let start = || {
            let setup = Setup::new(authority.identity("portal.example"));
            DotServer::start(if has_tls {
                setup.greeting(tls)
            } else {
                setup.greeting(move |_| http())
            })
        };
        let servers = [start(), start()];
        let named = [(servers[0].address(), "one.example"), (servers[1].address(), second)];
        let (response, lines) = ask(&authority, &named);
        assert_eq!(
            response.contains("captive portal? Open an http:// page"),
            is_portal,
            "{response}"
        );
        for level in ["WARN ", "ERROR"] {
            let mut told = lines.iter().filter(|line| line.starts_with(level));
            let is_told = told.any(|line| line.contains("captive portal"));
            assert_eq!(is_told, is_portal, "{has_tls} {second} {level}: {lines:#?}");
        }
    }
}
