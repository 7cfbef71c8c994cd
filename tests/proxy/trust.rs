//! Certificates: what they are good for, and what is told of those that are not.

use std::fs;

use crate::process::assert_refuses;
use support::message::{A, NOERROR, SERVFAIL};
use support::{Authority, DotServer, Identity, Proxy, Query, Response, Setup, UdpClient};

/// Without a name the certificate must have the address itself (RFC 8310 section 8.1).
#[test]
fn an_address_alone_is_the_name() {
    type Spec = fn(std::net::SocketAddr) -> String;
    let cases: [(&str, Spec, _); 4] = [
        ("127.0.0.1", |at| at.to_string(), NOERROR),
        ("127.0.0.1", |at| format!("{}@{}", at.ip(), at.port()), NOERROR),
        ("127.0.0.2", |at| at.to_string(), SERVFAIL),
        ("dot.example", |at| at.to_string(), SERVFAIL),
    ];
    for (name, spec, rcode) in cases {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(authority.identity(name)));
        let ca_file = authority.file().display().to_string();
        let spec = spec(server.address());
        let proxy = Proxy::start(&["--ca-file", &ca_file, "--upstream", &spec]);
        let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, rcode, "{spec} with a certificate for {name}");
        let log = server.log();
        assert_eq!(log.connections[0].server_name, None, "no name is sent");
        if rcode == SERVFAIL {
            assert_eq!(log.application_octets(), 0);
            let start = format!("{}: not usable: certificate", server.address());
            proxy.await_line("line about it", |line| line.contains(&start) && line.contains(name));
        }
    }
}

#[test]
fn the_pin_of_a_certificate_that_a_server_signed_itself_can_be_copied_from_the_log() {
    for identity in [Identity::self_signed_ca("dot.example"), Identity::self_signed("dot.example")]
    {
        let authority = Authority::new();
        let server = DotServer::start(Setup::new(identity));
        let proxy = Proxy::before(&authority, &[&server], &[]);
        let client = UdpClient::new(proxy.address());
        let query = Query::new("secret.example", A).opt(1232).bytes();
        assert_eq!(Response::read(&client.ask(&query)).rcode, SERVFAIL);
        let line = proxy.await_line("line about it", |line| line.contains("not usable"));
        let (_, pin) = line.split_once("write #").expect("what to write");
        let (pin, _) = pin.split_once(' ').expect("what it stands for");

        let upstream = format!("{}#{pin}", server.address());
        let proxy = Proxy::start(&["--upstream", &upstream]);
        let response = UdpClient::new(proxy.address()).ask(&query);
        assert_eq!(Response::read(&response).rcode, NOERROR, "{line}");
    }
}

#[test]
fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let authority = Authority::new();
    let mut setup = Setup::new(authority.identity("dot.example"));
    setup.clients = Some(authority.roots());
    let server = DotServer::start(setup);
    let name = format!("dot-proxy-client-{}.pem", std::process::id());
    let file = std::env::temp_dir().join(name);
    fs::write(&file, authority.client_pem()).expect("a writable directory for temporary files");
    let file = file.display().to_string();
    let query = Query::new("a.example", A).bytes();

    // The built-in roots besides do no harm.
    let flags = ["--client-cert", &file, "--client-key", &file, "--builtin-roots", "on"];
    let proxy = Proxy::before(&authority, &[&server], &flags);
    let response = UdpClient::new(proxy.address()).ask(&query);
    assert_eq!(Response::read(&response).rcode, NOERROR);
    proxy.stop();
    fs::remove_file(&file).expect("it was written");

    let proxy = Proxy::before(&authority, &[&server], &[]);
    let response = UdpClient::new(proxy.address()).ask(&query);
    assert_eq!(Response::read(&response).rcode, SERVFAIL);
    let words = "certificate required; it wants a client certificate";
    proxy
        .await_line("line about it", |line| line.contains(words) && line.contains("--client-cert"));
    proxy.stop();
    assert_refuses(&flags, 2, &["--client-cert", &file, "no such file"]);
}

#[test]
fn a_name_that_is_not_to_be_seen_on_the_way_is_not_sent() {
    let authority = Authority::new();
    let ca_file = authority.file().display().to_string();
    for (with, sent) in [("", Some("dot.example")), (",sni=off", None)] {
        let server = DotServer::start(Setup::new(authority.identity("dot.example")));
        let spec = format!("{}#dot.example{with}", server.address());
        let proxy = Proxy::start(&["--ca-file", &ca_file, "--upstream", &spec]);
        let response = UdpClient::new(proxy.address()).ask(&Query::new("a.example", A).bytes());
        assert_eq!(Response::read(&response).rcode, NOERROR, "{spec}");
        assert_eq!(server.log().connections[0].server_name.as_deref(), sent, "{spec}");
    }
}
