//! More TCP clients than are usual, from one address that is not loopback: row C10.

use std::net::SocketAddr;
use std::time::Duration;

use crate::namespace::{in_namespace, ip};
use crate::support::message::{A, NOERROR};
use crate::support::{Act, Authority, DotServer, Proxy, Query, Response, Setup, TcpClient};

/// An address that clients have in common, as behind NAT.
const ADDRESS: &str = "192.168.7.1";

/// A proxy at that address, in front of a server that takes 60 ms for an answer.
fn start(flags: &[&str]) -> (Proxy, DotServer) {
    ip(&["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    let authority = Authority::new();
    let setup = Setup::new(authority.identity("dot.example"));
    let server = DotServer::start(
        setup.handler(|query| vec![Act::After(Duration::from_millis(60), query.answer())]),
    );
    let listen = format!("{ADDRESS}:0");
    let flags = [&["--listen", &listen, "--query-log", "off"], flags].concat();
    (Proxy::before(&authority, &[&server], &flags), server)
}

fn query(n: usize) -> Vec<u8> {
    Query::new(&format!("n{n}.c10.example"), A).bytes()
}

#[track_caller]
fn assert_answered(client: &mut TcpClient) {
    let response = client.try_receive();
    let rcode = response.map(|octets| Response::read(&octets).rcode);
    assert_eq!(rcode.ok(), Some(NOERROR));
}

/// The peer of a connection to the own address is that address.
#[track_caller]
fn assert_not_loopback(client: &TcpClient) {
    let from = client.stream().local_addr().map(|address: SocketAddr| address.ip());
    assert_eq!(from.ok(), ADDRESS.parse().ok());
}

#[test]
fn c10_many_at_once_from_one_address() {
    in_namespace("c10_many_at_once_from_one_address", "", || {
        let (proxy, _server) = start(&[]);
        let mut clients: Vec<_> = (0..150).map(|_| TcpClient::new(proxy.address())).collect();
        assert_not_loopback(&clients[0]);
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&query(n));
        }
        clients.iter_mut().for_each(assert_answered);
        let lines = proxy.stop();
        assert!(!lines.iter().any(|line| line.contains("TCP clients")), "{lines:#?}");
    });
}

/// As with glibc's `use-vc`: a connection for each look-up, closed when that is answered, in more threads
/// than there are places.
#[test]
fn c10_more_threads_than_places() {
    const THREADS: usize = 20;
    const EACH: usize = 5;

    in_namespace("c10_more_threads_than_places", "", || {
        let (proxy, _server) = start(&["--size", "small"]);
        let address = proxy.address();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let mut client = TcpClient::new(address);
                        client.send(&query(thread * EACH + n));
                        assert_answered(&mut client);
                    }
                });
            }
        });
        let lines = proxy.stop();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("TCP clients")).collect();
        assert!(told.iter().any(|line| line.contains("had to wait")), "{lines:#?}");
        // Some may have been idle, too, when the next came.
        assert!(told.len() <= 2, "one line of each kind: {lines:#?}");
        for line in told {
            assert!(line.starts_with("WARN") && line.contains(ADDRESS), "{line}");
            assert!(line.contains("--tcp-clients-max"), "{line}");
        }
    });
}
