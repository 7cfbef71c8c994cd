//! Messages of clients that are not forwarded: each gets the answer it is due, or none.

use support::message::{self, A, AXFR, FORMERR, QR, RD, REFUSED};
use support::{Bed, Query, Response};

/// Asks over both transports and gives the one answer.
#[track_caller]
fn ask(bed: &Bed, query: &[u8]) -> Vec<u8> {
    let response = bed.udp().ask(query);
    assert_eq!(bed.tcp().ask(query), response, "another answer over TCP than over UDP");
    response
}

/// The header alone.
fn header_only(id: u16, flags: u16) -> Vec<u8> {
    message::header(id, flags, [0; 4])
}

fn without_ra(response: &[u8]) -> Vec<u8> {
    // RA says what the server offers; in an answer that has no question it may be either.
    let mut response = response.to_vec();
    response[3] &= 0x7f;
    response
}

#[test]
fn frames_that_are_no_queries_end_the_connection_after_the_answers() {
    let bed = Bed::start();
    let response = Query::new("response.example", A).flags(QR | RD).bytes();
    for bad in [&response[..], &[0; 11], &[]] {
        let mut client = bed.tcp();
        client.send(&Query::new("good.example", A).id(77).bytes());
        client.send(bad);
        assert_eq!(Response::read(&client.receive()).id, 77);
        client.await_end();
    }
}

#[test]
fn unreadable_question_is_a_format_error() {
    let bed = Bed::start();
    let head = message::header(9, RD, [1, 0, 0, 0]);
    let questions: [&[u8]; 7] = [
        b"",
        b"\x05ab",
        b"\x01a\0\0\x01\0",
        // Pointers: to the header, to itself, ahead.
        b"\xc0\0\0\x01\0\x01",
        b"\xc0\x0c\0\x01\0\x01",
        b"\xc0\x20\0\x01\0\x01",
        // A label type that does not exist.
        b"\x40a\0\0\x01\0\x01",
    ];
    for question in questions {
        let response = ask(&bed, &[&head, question].concat());
        assert_eq!(without_ra(&response), header_only(9, QR | RD | FORMERR), "{question:02x?}");
    }
    let long = Query::new("", A).labels(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 62]]);
    let response = ask(&bed, &long.id(9).bytes());
    assert_eq!(without_ra(&response), header_only(9, QR | RD | FORMERR), "256 octets");
    assert_eq!(bed.server.log().queries.len(), 0);
}

#[test]
fn malformed_records_are_a_format_error_with_the_question() {
    let bed = Bed::start();
    let plain = Query::new("a.example", A).bytes();
    let with_opt = Query::new("a.example", A).opt(1232).bytes();
    let opt = &with_opt[plain.len()..];
    let counted = |additional: u8, rest: &[u8]| {
        let mut message = [&plain, rest].concat();
        message[11] = additional;
        message
    };
    let long_owner = [b"\x01a", opt].concat();
    let overrunning = {
        let mut message = Query::new("a.example", A).opt(1232).option(65_001, b"abc").bytes();
        let at = message.len() - 4;
        // The option says that it has four octets.
        message[at] = 4;
        message
    };
    let in_answer = {
        let mut message = with_opt.clone();
        (message[7], message[11]) = (1, 0);
        message
    };
    let cases = [
        ("two OPT records", counted(2, &[opt, opt].concat())),
        ("an owner of OPT that is not the root", counted(1, &long_owner)),
        ("OPT in the answer section", in_answer),
        ("an option longer than OPT", overrunning),
        ("a record that is not there", counted(2, opt)),
        ("octets after the last record", [&with_opt[..], b"\0"].concat()),
        ("octets after the question", [&plain[..], b"trailing"].concat()),
    ];
    for (name, query) in cases {
        let response = Response::read(&ask(&bed, &query));
        assert_eq!((response.id, response.rcode), (0x1234, FORMERR), "{name}");
        assert_eq!(response.question, Some(("a.example".to_owned(), A, 1)), "{name}");
        assert_eq!((response.answers, response.authorities), (0, 0), "{name}");
    }
    assert_eq!(bed.server.log().queries.len(), 0);
}

#[test]
fn zone_transfers_are_refused() {
    const IXFR: u16 = 251;
    const NOT_SUPPORTED: u16 = 21;

    let bed = Bed::start();
    for qtype in [AXFR, IXFR] {
        let plain = Response::read(&ask(&bed, &Query::new("a.example", qtype).bytes()));
        assert_eq!(plain.rcode, REFUSED);
        assert_eq!(plain.question, Some(("a.example".to_owned(), qtype, 1)));
        assert!(plain.opt.is_none());

        let query = Query::new("a.example", qtype).opt(1232).bytes();
        let response = Response::read(&ask(&bed, &query));
        assert_eq!(response.rcode, REFUSED);
        let errors = response.opt.expect("OPT answers OPT").errors;
        assert_eq!(errors.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [NOT_SUPPORTED]);
    }
    assert_eq!(bed.server.log().queries.len(), 0);
}
