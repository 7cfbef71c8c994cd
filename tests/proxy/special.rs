//! Names that are answered here: an upstream does not hear of them.

use support::message::{A, RD, id};
use support::{Bed, Query, Response};

const PTR: u16 = 12;

/// Asks over both transports and gives the one answer.
#[track_caller]
fn ask(bed: &Bed, query: &Query) -> Response {
    let response = bed.udp().ask(&query.bytes());
    assert_eq!(bed.tcp().ask(&query.bytes()), response, "another answer over TCP than over UDP");
    Response::read(&response)
}

#[test]
fn the_octets_of_an_answer() {
    let bed = Bed::start();
    let query = Query::new("1.1.168.192.in-ADDR.arpa", PTR).flags(RD | 0x0010).bytes();
    let soa = b"\xc0\x10\0\x06\0\x01\0\0\x2a\x30\0\x26\xc0\x10\x06nobody\x07invalid\0\
        \0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\x2a\x30";
    let header = b"\x12\x34\x85\x93\0\x01\0\0\0\x01\0\0";
    assert_eq!(bed.udp().ask(&query), [&header[..], &query[12..], soa].concat());

    let query = Query::new("Db.LocalHost", A).flags(0).bytes();
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\x2a\x30\0\x04\x7f\0\0\x01";
    let header = b"\x12\x34\x84\x80\0\x01\0\x01\0\0\0\0";
    assert_eq!(bed.udp().ask(&query), [&header[..], &query[12..], record].concat());
}

#[test]
fn what_is_malformed_is_refused_before_its_name_is_looked_at() {
    let bed = Bed::start();
    let transfer = ask(&bed, &Query::new("localhost", 252));
    assert_eq!((transfer.rcode, transfer.answers), (5, 0));
    let version = ask(&bed, &Query::new("localhost", A).opt(1232).edns_version(1));
    assert_eq!((version.rcode, version.answers), (16, 0));
    let trailing = [&Query::new("localhost", A).bytes()[..], b"x"].concat();
    let response = Response::read(&bed.udp().ask(&trailing));
    assert_eq!((response.rcode, response.answers), (1, 0));
    assert_eq!(bed.server.log().queries.len(), 0);
}

#[test]
fn a_signed_query_does_not_tell_its_name_either() {
    let bed = Bed::start();
    let mut query = Query::new("1.1.10.in-addr.arpa", PTR).bytes();
    query[11] = 1;
    query.extend(b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x");
    let response = bed.udp().ask(&query);
    assert_eq!((id(&response), response[3] & 0x0f), (0x1234, 3));
    assert_eq!(response[10..12], [0, 0], "nothing is signed here");
    assert_eq!(bed.server.log().queries.len(), 0);
}
