//! Clients over UDP, and the query log.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dot_proxy::forwarder::{Notice, QueryLogStyle};

use crate::{copies, end, failures, numbered, warm, with_limits, world};
use simulator::dns::{Edns, FORMERR, NOERROR, NOTIMP, REFUSED};
use simulator::{What, dns, path_from};

#[test]
fn c08_every_malformed_query_gets_what_is_due() {
    let plain = || dns::query(1, "a.example.", dns::A, None);
    let edns = |size| dns::query(1, "a.example.", dns::A, Some(Edns { size, dnssec_ok: true }));
    let edit = |mut message: Vec<u8>, at: usize, value: u8| {
        message[at] = value;
        message
    };
    let two_opts = || {
        let mut message = edns(1232);
        let opt = message[message.len() - 11..].to_vec();
        message.extend(opt);
        edit(message, 11, 2)
    };
    let version = |message: Vec<u8>| {
        let at = message.len() - 5;
        edit(message, at, 1)
    };
    let cases: [(&str, Vec<u8>, Option<u8>); 12] = [
        ("QR=1", edit(plain(), 2, 0x81), None),
        ("11 octets", plain()[..11].to_vec(), None),
        ("empty", Vec::new(), None),
        ("opcode 4", edit(plain(), 2, 0x21), Some(NOTIMP)),
        ("QDCOUNT 0", edit(plain(), 5, 0), Some(FORMERR)),
        ("QDCOUNT 2", edit(plain(), 5, 2), Some(FORMERR)),
        ("cut in the name", plain()[..15].to_vec(), Some(FORMERR)),
        ("octets behind", [plain(), vec![0]].concat(), Some(FORMERR)),
        ("two OPTs", two_opts(), Some(FORMERR)),
        ("EDNS version 1", version(edns(1232)), Some(NOERROR)),
        ("AXFR", dns::query(1, "a.example.", 252, None), Some(REFUSED)),
        ("a compression pointer", edit(plain(), 12, 0xc0), Some(FORMERR)),
    ];
    for (what, message, rcode) in cases {
        let mut w = world(1);
        let path = w.next_path();
        w.datagram(path, message);
        w.run_ms(10);
        let answered: Vec<_> = w.oracle.responses.iter().map(|response| response.rcode).collect();
        assert_eq!(answered, Vec::from_iter(rcode), "{what}");
        assert!(w.links.is_empty(), "{what}: nothing of it goes upstream");
        end(w);
    }
}

#[test]
fn a_datagram_that_was_cut_is_answered_with_tc() {
    let mut w = world(1);
    let path = w.next_path();
    let mut message = dns::query(1, "a.example.", dns::A, None);
    message[11] = 1;
    message.resize(4096, 0);
    w.schedule(Duration::ZERO, What::Datagram { path, message, cut: true });
    w.run_ms(10);
    let response = w.response("a.example.");
    assert!(response.truncated && response.rcode == NOERROR, "{response:?}");
    end(w);
}

/// A burst of as many as four fifths of 1 MiB of receive buffer hold, at 832 octets of bookkeeping each, in one
/// turn of the shell.
#[test]
fn c07_a_burst_is_answered_whole() {
    let mut w = warm(1);
    for n in 0..1008 {
        w.ask(&numbered(n));
    }
    w.run_ms(100);
    assert_eq!((failures(&w), w.oracle.responses.len()), (0, 1009));
    assert_eq!(w.links.len(), 1);
    end(w);
}

#[test]
fn c09_retransmission_joins() {
    let mut w = warm(1);
    w.servers[0].replies(|ask| vec![ask.answer_after(1000)]);
    let path = w.ask("a.example.");
    w.run_ms(100);
    let message = dns::query(2, "a.example.", dns::A, None);
    for _ in 0..3 {
        w.datagram(path, message.clone());
        w.run_ms(100);
    }
    assert_eq!(w.forwarder.counts().queries_held, 1);
    w.run_ms(1000);
    let responses = w.oracle.responses.iter().filter(|response| response.name == "a.example.");
    assert_eq!(responses.count(), 4, "one for each datagram");
    assert_eq!(copies(&w, "a.example."), 1);
    end(w);
}

#[test]
fn c09_the_same_id_from_many_sockets_is_many_queries() {
    let mut w = warm(1);
    let message = dns::query(7, "a.example.", dns::A, None);
    for _ in 0..20 {
        let path = w.next_path();
        w.datagram(path, message.clone());
    }
    w.run_ms(100);
    assert_eq!(w.oracle.responses.len(), 21);
    assert_eq!(copies(&w, "a.example."), 20);
    end(w);
}

#[test]
fn one_socket_may_ask_two_things_with_one_id() {
    let mut w = warm(1);
    let path = w.next_path();
    for name in ["a.example.", "b.example."] {
        w.datagram(path, dns::query(7, name, dns::A, None));
    }
    w.run_ms(100);
    assert_eq!(w.response("a.example.").rcode, NOERROR);
    assert_eq!(w.response("b.example.").rcode, NOERROR);
    end(w);
}

#[test]
fn strangers_are_not_answered_and_it_is_said_whose_address_it_was_once_a_minute() {
    let mut w = world(1);
    let path = path_from(SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 1000)));
    for _ in 0..5 {
        w.datagram(path, dns::query(1, "a.example.", dns::A, None));
    }
    w.run_ms(5000);
    assert_eq!(w.oracle.responses.len(), 0);
    assert_eq!(w.forwarder.counts().refused, 5);
    let told = |w: &simulator::World| -> Vec<_> {
        let notices = w.notices.iter().map(|(_, notice)| match notice {
            Notice::SourceRefused { source, count, .. } => (source.to_string(), *count),
            other => panic!("{other:?}"),
        });
        notices.collect()
    };
    assert_eq!(told(&w), [("198.51.100.1".to_owned(), 1)]);
    w.run_ms(60_000);
    let next = path_from(SocketAddr::from((Ipv4Addr::new(198, 51, 100, 2), 1000)));
    w.datagram(next, dns::query(1, "a.example.", dns::A, None));
    w.run_ms(10);
    assert_eq!(told(&w)[1..], [("198.51.100.2".to_owned(), 5)]);
    assert!(w.links.is_empty());
    end(w);
}

#[test]
fn the_clients_spelling_reaches_the_server_and_comes_back() {
    let mut w = world(1);
    w.ask("MiXeD.eXaMpLe.");
    w.run_ms(100);
    assert_eq!(w.links[0].names(), ["MiXeD.eXaMpLe."]);
    assert_eq!(w.response("MiXeD.eXaMpLe.").rcode, NOERROR);
    end(w);
}

#[test]
fn the_query_log_has_a_line_for_every_response() {
    let mut w = with_limits(|limits| limits.query_log = Some(QueryLogStyle::default()));
    w.servers[0].replies(|ask| match ask.name {
        "lost.example." => Vec::new(),
        _ => vec![ask.answer_after(10)],
    });
    for name in ["a.example.", "evil\u{1b}[2J\n.example.", "lost.example."] {
        w.ask(name);
    }
    let path = w.next_path();
    w.datagram(path, dns::query(1, "zone.example.", 252, None));
    w.run_ms(5000);
    assert!(w.query_log[0].ends_with(": zone transfer"), "{}", w.query_log[0]);
    let words: Vec<_> = w.query_log.iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["LOCAL", "SUCCESS", "SUCCESS", "FAILURE"].map(Some), "{:?}", w.query_log);
    assert!(w.query_log[1].starts_with("SUCCESS a.example. A NOERROR 1 answer "));
    end(w);
}
