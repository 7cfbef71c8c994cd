//! What is forwarded differs from what came in by its ID and its OPT record only (RFC 5625 section 3).

use support::answers;
use support::message::{self, A, QR, RD, TXT};
use support::{Act, Bed, Query};

/// Queries that a forwarder might be tempted to change, or to understand.
fn odd_queries() -> Vec<(String, Vec<u8>)> {
    let mut queries = vec![
        ("spelling".to_owned(), Query::new("wWw.ExAmPlE", A).bytes()),
        ("the root".to_owned(), Query::new("", 2).bytes()),
        ("TYPE65280".to_owned(), Query::new("example.com", 65_280).bytes()),
        ("TYPE0".to_owned(), Query::new("example.com", 0).bytes()),
        ("TYPE65535".to_owned(), Query::new("example.com", 65_535).bytes()),
        ("ANY".to_owned(), Query::new("example.com", 255).bytes()),
        ("TKEY".to_owned(), Query::new("example.com", 249).bytes()),
        ("octets that are no text".to_owned(), {
            Query::new("", A).labels(&[b"\0\x1b[\xff", b"a.b", b"\\ \"", b"example"]).bytes()
        }),
        ("the longest name".to_owned(), {
            Query::new("", A).labels(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 61]]).bytes()
        }),
        ("OPT".to_owned(), Query::new("example.com", A).opt(1232).bytes()),
        (
            "OPT with DO".to_owned(),
            Query::new("example.com", A).opt(4096).edns_flags(0x8000).bytes(),
        ),
        ("OPT with reserved flags".to_owned(), {
            Query::new("example.com", A).opt(1232).edns_flags(0x7fff).bytes()
        }),
        ("unknown EDNS options".to_owned(), {
            let query = Query::new("example.com", A).opt(1232);
            query.option(65_001, b"\0\x01\x02").option(65_534, b"").option(3, b"").bytes()
        }),
    ];
    for class in [3, 4, 254, 255, 65_535] {
        let query = Query::new("version.bind", TXT).class(class).bytes();
        queries.push((format!("class {class}"), query));
    }
    // Every flag but QR, and the RCODE bits, which mean nothing in a query.
    for flag in [0, 0x0400, 0x0200, RD, 0x0080, 0x0040, 0x0020, 0x0010, 0x000f, 0x07ff] {
        let query = Query::new("example.com", A).flags(flag).bytes();
        queries.push((format!("flags {flag:04x}"), query));
    }
    queries
}

#[test]
fn queries_and_their_answers_pass_unchanged_but_for_id_and_opt() {
    let bed = Bed::start();
    let (udp, mut tcp) = (bed.udp(), bed.tcp());
    for (name, query) in odd_queries() {
        let seen_before = bed.server.log().queries.len();
        for response in [udp.ask(&query), tcp.ask(&query)] {
            let expected = answers::at_client(answers::answer(&query).expect("a query"));
            assert_eq!(response, expected, "{name}: the answer was changed");
        }
        let log = bed.server.log();
        assert_eq!(log.queries.len(), seen_before + 2, "{name}: asked once for each");
        for (_, seen) in &log.queries[seen_before..] {
            // Behind the counts, but for that of additional records, and up to the options.
            let kept = query.len().min(message::question_end(&query).expect("readable") + 9);
            assert_eq!(seen[2..10], query[2..10], "{name}: the query was changed");
            assert_eq!(seen[12..kept], query[12..kept], "{name}: the query was changed");
            assert_eq!(seen[10..12], [0, 1], "{name}: one OPT record");
            assert_eq!(seen.len() % 128, 0, "{name}: padded");
        }
    }
}

/// Responses that a forwarder might be tempted to mend.
fn odd_responses(query: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let flags = |flags: u16| {
        let mut response = answers::answer(query).expect("a query");
        response[2..4].copy_from_slice(&(QR | flags).to_be_bytes());
        response
    };
    let unknown_class = {
        let mut record = message::record(A, &[192, 0, 2, 1]);
        record[4..6].copy_from_slice(&0xfffe_u16.to_be_bytes());
        record
    };
    let uncompressed = {
        let name = message::wire_name("A.EXAMPLE");
        [&name[..], &message::record(A, &[192, 0, 2, 1])[2..]].concat()
    };
    let records = |rcode, records: &[Vec<u8>]| answers::assemble(query, rcode, records, records);
    vec![
        ("no flags at all", flags(0)),
        ("every flag but TC", flags(0x05f0)),
        ("RCODE 2 with records", flags(2)),
        ("RCODE 11", flags(11)),
        ("RCODE 15", flags(15)),
        ("an unknown type", records(0, &[message::record(65_280, b"\xc0\x0c?")])),
        ("a type without data", records(0, &[message::record(65_280, b"")])),
        ("an unknown class", records(0, &[unknown_class])),
        ("a name that is not compressed", records(0, &[uncompressed])),
        ("no records", records(0, &[])),
    ]
}

#[test]
fn answers_pass_unchanged_but_for_the_id() {
    let query = Query::new("a.example", A).id(0x4d2).bytes();
    let count = odd_responses(&query).len();
    for number in 0..count {
        let bed = Bed::with(move |setup| {
            setup.handler(move |query| {
                vec![Act::Send(odd_responses(query.message).swap_remove(number).1)]
            })
        });
        let (name, expected) = odd_responses(&query).swap_remove(number);
        assert_eq!(bed.udp().ask(&query), expected, "{name}, over UDP");
        assert_eq!(bed.tcp().ask(&query), expected, "{name}, over TCP");
    }
}

#[test]
fn ids_towards_the_upstream_are_unique_in_flight() {
    // The same ID from many sockets, all in flight at once.
    let mut held = Vec::new();
    let bed = Bed::with(move |setup| {
        setup.handler(move |query| {
            held.push(query.answer());
            if held.len() == 50 { held.drain(..).flatten().collect() } else { Vec::new() }
        })
    });
    let clients: Vec<_> = (0..50).map(|_| bed.udp()).collect();
    for (n, client) in clients.iter().enumerate() {
        client.send(&Query::new(&format!("n{n}.example"), A).id(5).bytes());
    }
    for (n, client) in clients.iter().enumerate() {
        let response = client.receive();
        assert_eq!(message::id(&response), 5);
        assert_eq!(message::question(&response), Some((format!("n{n}.example"), A, 1)));
    }
    let log = bed.server.log();
    let mut ids: Vec<_> = log.queries.iter().map(|(_, query)| message::id(query)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50, "{ids:?}");
}
