//! What is forwarded differs from what came in by its ID and its OPT record only (RFC 5625 section 3).

use support::answers;
use support::message::{self, A, QR};
use support::{Act, Bed, Query};

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
