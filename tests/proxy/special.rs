//! Names that are answered here: an upstream does not hear of them.

use support::message::{A, NXDOMAIN, QR, RA, RD, id};
use support::{Act, Bed, Query, Response};

const PTR: u16 = 12;
const SVCB: u16 = 64;
const AA: u16 = 0x0400;
const AD: u16 = 0x0020;

/// Asks over both transports and gives the one answer.
#[track_caller]
fn ask(bed: &Bed, query: &Query) -> Response {
    let response = bed.udp().ask(&query.bytes());
    assert_eq!(bed.tcp().ask(&query.bytes()), response, "another answer over TCP than over UDP");
    Response::read(&response)
}

/// RCODE, answer and authority records of an answer that is ours.
#[track_caller]
fn ours(bed: &Bed, name: &str, qtype: u16) -> (u16, usize, usize) {
    let response = ask(bed, &Query::new(name, qtype).flags(RD | AD).opt(1232));
    assert_eq!(response.flags & !0x000f, QR | AA | RD | RA, "{name}: {:04x}", response.flags);
    assert_eq!(response.question, Some((name.to_owned(), qtype, 1)));
    assert!(response.opt.is_some(), "{name}: OPT answers OPT");
    assert_eq!(response.additionals, 0, "{name}");
    (response.rcode, response.answers, response.authorities)
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

#[test]
fn special_names_are_forwarded_if_the_user_says_so() {
    let bed = Bed::with_args(&["--special-names", "forward"], |setup| setup);
    for name in ["localhost", "a.test", "1.10.in-addr.arpa", "_dns.resolver.arpa"] {
        bed.udp().ask(&Query::new(name, A).bytes());
        assert_eq!(bed.server.log().queries_for(name), 1, "{name}");
    }

    let args = ["--forward-zone", "168.192.IN-ADDR.arpa.", "--forward-zone=lan.home.arpa"];
    let bed = Bed::with_args(&args, |setup| setup);
    let forwarded = ["168.192.in-addr.arpa", "1.1.168.192.in-addr.arpa", "nas.lan.home.arpa"];
    for name in forwarded {
        bed.udp().ask(&Query::new(name, PTR).bytes());
        assert_eq!(bed.server.log().queries_for(name), 1, "{name}");
    }
    assert_eq!(ours(&bed, "1.10.in-addr.arpa", PTR), (NXDOMAIN, 0, 1));
    assert_eq!(ours(&bed, "nas.home.arpa", A), (NXDOMAIN, 0, 1));
    assert_eq!(bed.server.log().queries.len(), forwarded.len());
}

#[test]
fn local_answers_are_in_the_query_log() {
    let bed = Bed::start();
    bed.udp().ask(&Query::new("1.1.168.192.in-addr.arpa", PTR).bytes());
    bed.tcp().ask(&Query::new("Www.LocalHost", A).bytes());
    let lines = bed.proxy.await_lines("LOCAL lines", 2, |line| line.starts_with("LOCAL "));
    assert_eq!(lines[0], "LOCAL 1.1.168.192.in-addr.arpa. PTR NXDOMAIN udp 127.0.0.1");
    assert_eq!(lines[1], "LOCAL Www.LocalHost. A NOERROR tcp 127.0.0.1");
}

/// A validating client gets what the root says of the zone, with its own question. Of names below it, and
/// of those that nobody may be asked about, no server hears.
#[test]
fn with_do_set_the_proof_is_that_of_the_zone() {
    const DO: u16 = 0x8000;

    fn record(owner: &[u8], rtype: u8, data: &[u8]) -> Vec<u8> {
        let fixed = [0, rtype, 0, 1, 0, 0, 0x0e, 0x10, 0, data.len() as u8];
        [owner, &fixed, data].concat()
    }

    /// SOA and NSEC of the root, and what stands for their signatures; the name of the master server is
    /// below the zone, compressed or not.
    fn proof(zone: &[u8]) -> Vec<u8> {
        let soa = [b"\x01a", zone, b"\x01b\0", &[0; 18], &[0x0e, 0x10]].concat();
        let signature = [&[9; 18][..], b"\0", &[7; 64]].concat();
        let nsec = record(b"\x05loans\0", 47, b"\x06locker\0\0\x01\x40");
        let signed = record(b"\x05loans\0", 46, &signature);
        [record(b"\0", 6, &soa), record(b"\0", 46, &signature), nsec, signed].concat()
    }

    let bed = Bed::with(|setup| {
        setup.handler(|query| {
            let mut answer = query.message[..12 + 7 + 4].to_vec();
            answer[2..4].copy_from_slice(&0x81a3_u16.to_be_bytes());
            answer[6..12].copy_from_slice(&[0, 0, 0, 4, 0, 1]);
            answer.extend(proof(b"\xc0\x0c"));
            answer.extend(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
            vec![Act::Send(answer)]
        })
    });
    for (name, flags) in [("Printer.loCAL", RD), ("local", RD | 0x0010), ("a.b.local", RD)] {
        let query = Query::new(name, SVCB).flags(flags).opt(1232).edns_flags(DO);
        let response = bed.udp().ask(&query.bytes());
        let flags = (QR | RA | NXDOMAIN | flags).to_be_bytes();
        let header = [&[0x12, 0x34], &flags[..], &[0, 1, 0, 0, 0, 4, 0, 1]].concat();
        let bytes = query.bytes();
        let question = &bytes[12..bytes.len() - 11];
        let expected = [&header, question, &proof(b"\x05local\0")].concat();
        let (records, opt) = response.split_at(response.len() - 11);
        assert_eq!(without_ttls(records), without_ttls(&expected), "{name}");
        assert_eq!(opt, b"\0\0\x29\x10\0\0\0\x80\0\0\0", "{name}");
    }
    for name in ["a.onion", "a.localhost", "_dns.resolver.arpa"] {
        let query = Query::new(name, SVCB).opt(1232).edns_flags(DO);
        assert_eq!(Response::read(&bed.tcp().ask(&query.bytes())).flags & AA, AA, "{name}");
    }
    // Without DO all is as ever.
    assert_eq!(ours(&bed, "printer.local", A), (NXDOMAIN, 0, 1));
    let log = bed.server.log();
    assert_eq!((log.queries.len(), log.queries_for("local")), (1, 1));
}

/// The last octet of every TTL, which is of 3,600 seconds and may be some seconds old, made 0.
fn without_ttls(octets: &[u8]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    for at in 0..octets.len().saturating_sub(4) {
        if octets[at..at + 3] == [0, 0, 0x0e] {
            octets[at + 3] = 0;
        }
    }
    octets
}
