//! Private addresses in answers (DNS rebinding): a name of anybody's that has the address of a host here lets a
//! page of theirs reach it, past what a browser keeps apart by name.
//!
//! Whatever section a record is in, and whatever its class, as some stubs look at neither. Address hints of HTTPS
//! and SVCB records (RFC 9460 section 7.3) count as addresses. What cannot be read, such as an A record of three
//! octets, counts as private: others may read it in another way. Where only records beside the answers have such
//! addresses, such as those of mail servers, the answers are as good without them.

use super::opt::Options;
use super::record::{Header, QUESTION_FIXED_LEN, RecordStart, expanded_name, name_end};
use super::special::{is_in, is_special};
use super::{
    Class, Ede, HEADER_LEN, LocalRecords, LocalResponse, ParsedQuery, Rcode, ResponseInfo, Rtype,
};

/// What becomes of answers with private addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateAnswers {
    /// They pass.
    Pass,
    /// Clients get an answer without records.
    Strip {
        /// Whether loopback addresses are private: 127.0.0.0/8 and `::1`, which some use for blocked names.
        loopback: bool,
        /// Zones whose addresses pass all the same, as they stand in messages, uncompressed.
        except: Vec<Box<[u8]>>,
        /// Whether those of special names do, too: an upstream has them where it is asked for them.
        except_special: bool,
    },
}

impl PrivateAnswers {
    /// What of this response is not for the client of `query`. Whoever signs a query can tell what answers it.
    ///
    /// An address passes where both the name asked for and the name that has it are in excepted zones: a name there
    /// may lead to one of somebody else's (CNAME), and one of somebody else's to a name there.
    #[inline]
    pub fn strips(
        &self,
        response: &[u8],
        info: &ResponseInfo,
        query: &[u8],
        parsed: &ParsedQuery,
    ) -> Stripped {
        match self {
            Self::Strip { loopback, except, except_special } if parsed.signature.is_none() => {
                let is_excepted = |name: &[u8]| {
                    except.iter().any(|zone| is_in(name, zone))
                        || *except_special && is_special(name)
                };
                let end = parsed.question_end.saturating_sub(QUESTION_FIXED_LEN);
                let asked = query.get(HEADER_LEN..end).unwrap_or_default();
                let passes =
                    |owner| is_excepted(asked) && is_excepted(&expanded_name(response, owner));
                stripped(response, info.question_end, *loopback, passes)
            }
            _ => Stripped::Nothing,
        }
    }
}

/// What of a response its client does not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stripped {
    /// The client gets all of it.
    #[default]
    Nothing,
    /// The client gets no records behind the answers, or none behind the authority section: a proof that there is
    /// no other answer may be in it (RFC 4035 section 3.1.3.3).
    Beside {
        /// Octets up to the end of what it gets.
        end: usize,
        /// Whether it gets the authority section.
        with_authority: bool,
    },
    /// The client gets no records.
    Everything,
}

/// The answer in place of one with private addresses. It says how long to remember that there is none (RFC 2308
/// section 5), which is not for long: an operator who excepts the zone waits for it.
pub(crate) fn without_records(
    parsed: &ParsedQuery,
    rcode: Rcode,
    truncated: bool,
) -> LocalResponse<'static> {
    let is_remembered =
        parsed.qclass == Class::IN && matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
    let records = if is_remembered { SOA } else { LocalRecords::default() };
    LocalResponse { truncated, records, ..parsed.local_response(rcode, Some(STRIPPED)) }
}

const STRIPPED: Ede<'static> = Ede {
    code: Ede::FILTERED,
    text: "the answer has a private address (--private-answers, --private-zone)",
};

/// A record whose owner is the name asked for, as its zone is not known, and whose TTL and MINIMUM are a minute.
const SOA: LocalRecords<'static> = LocalRecords {
    octets: b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x26\xc0\x0c\x06nobody\x07invalid\0\
        \0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\0\x3c",
    ancount: 0,
    nscount: 1,
    is_ours: false,
};

/// What of a response with private addresses is not for its client, but for those whose owner at this place
/// `passes`. Its records can be read.
fn stripped(
    response: &[u8],
    question_end: usize,
    loopback: bool,
    passes: impl Fn(usize) -> bool,
) -> Stripped {
    let Some(header) = Header::read(response) else {
        return Stripped::Everything;
    };
    let records = [header.ancount, header.nscount, header.arcount];
    let mut at = question_end;
    let authority =
        usize::from(header.ancount)..usize::from(header.ancount) + usize::from(header.nscount);
    let (mut answers_end, mut authority_end) = (question_end, question_end);
    for number in 0..records.into_iter().map(usize::from).sum() {
        let Some(record) = RecordStart::read(response, at) else {
            return Stripped::Everything;
        };
        let owner = at;
        at = record.end();
        if number < authority.start {
            answers_end = at;
        }
        if number < authority.end {
            authority_end = at;
        }
        let rdata = record.rdata(response).unwrap_or_default();
        let is_private = match Rtype(record.rtype) {
            Rtype::A => is_private(rdata, loopback, 4),
            Rtype::AAAA => is_private(rdata, loopback, 16),
            Rtype::SVCB | Rtype::HTTPS => has_private_hint(response, &record, loopback),
            _ => false,
        };
        if is_private && !passes(owner) {
            // Without answers there is nothing to be kept.
            return if number < authority.start || answers_end == question_end {
                Stripped::Everything
            } else if number < authority.end {
                Stripped::Beside { end: answers_end, with_authority: false }
            } else {
                Stripped::Beside { end: authority_end, with_authority: true }
            };
        }
    }
    Stripped::Nothing
}

/// Whether an SVCB or HTTPS record has a private address hint: priority, target, and parameters that are written
/// like EDNS options (RFC 9460 section 2.2).
fn has_private_hint(response: &[u8], record: &RecordStart, loopback: bool) -> bool {
    let rdata = response.get(..record.end()).unwrap_or_default();
    let target = record.rdata_start + PRIORITY_LEN;
    let Some(params) = name_end(rdata, target).and_then(|end| rdata.get(end..)) else {
        return true;
    };
    let params = Options::new(params);
    let hints = |(key, hints): (u16, &[u8])| {
        let len = match key {
            IPV4HINT => 4,
            IPV6HINT => 16,
            _ => return false,
        };
        hints.is_empty() || hints.chunks(len).any(|hint| is_private(hint, loopback, len))
    };
    !params.clone().are_whole() || params.into_iter().any(hints)
}

/// Whether these octets are a private address, or no address of so many octets.
fn is_private(octets: &[u8], loopback: bool, len: usize) -> bool {
    octets.len() != len
        || match *octets {
            [a, b, c, d] => is_private_v4([a, b, c, d], loopback),
            // The unspecified address reaches this host, as 0.0.0.0 does.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last @ 0..=1] => last == 0 || loopback,
            // Unique-local (RFC 4193), link-local, what was site-local (RFC 3879), and a network's own NAT64 (RFC 8215).
            [0xfc..=0xfd, ..] | [0xfe, 0x80..=0xff, ..] | [0, 0x64, 0xff, 0x9b, 0, 1, ..] => true,
            // Packets to these go to the IPv4 address within: IPv4-mapped (RFC 4291 section 2.5.5.2), the prefix of
            // NAT64 (RFC 6052 section 2.1), 6to4 (RFC 3056), ISATAP (RFC 5214), and IPv4-compatible (RFC 4291). In
            // Teredo addresses (RFC 4380) it is the outside of a translator.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
            | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
            | [0x20, 0x02, a, b, c, d, ..]
            | [_, _, _, _, _, _, _, _, 0 | 2, 0, 0x5e, 0xfe, a, b, c, d]
            | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a @ 1..=255, b, c, d] => {
                is_private_v4([a, b, c, d], loopback)
            }
            _ => false,
        }
}

/// "This host" (RFC 1122 section 3.2.1.3), RFC 1918, shared (RFC 6598), link-local, and behind a translator
/// (RFC 7335).
fn is_private_v4(octets: [u8; 4], loopback: bool) -> bool {
    match octets {
        [127, ..] => loopback,
        [0 | 10, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [192, 0, 0, 0..=7] => true,
        _ => false,
    }
}

/// Octets of an SVCB record in front of its target.
const PRIORITY_LEN: usize = 2;

/// Keys of parameters (RFC 9460 section 14.3.2).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::Stripped::{Everything, Nothing};
    use super::*;
    use crate::forwarder::message::{ResponseCheck, check_response, local_response, parse_query};

    #[test]
    fn private_addresses() {
        // Below and above each range; whether it is private, and whether with loopback.
        let table = [
            (
                "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255",
                true,
                true,
            ),
            (
                "169.254.0.0 169.254.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
                true,
                true,
            ),
            ("192.0.0.0 192.0.0.7 ::ffff:192.0.0.1 64:ff9b::192.0.0.7", true, true),
            // Of ipv4only.arpa, and so of its answer behind NAT64.
            ("192.0.0.8 192.0.0.170 64:ff9b::192.0.0.171 191.255.255.255 192.0.1.0", false, false),
            ("127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::127.9.9.9", false, true),
            (
                "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.0.0.1 128.0.0.1",
                false,
                false,
            ),
            (
                "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0",
                false,
                false,
            ),
            (
                ":: ::ffff:10.0.0.1 ::ffff:0.0.0.0 64:ff9b::192.168.1.1 fc00:: fdff::1 fe80::1 febf::1",
                true,
                true,
            ),
            ("64:ff9b:1:: 64:ff9b:1:ffff::8.8.8.8 fec0:: feff::1", true, true),
            // By way of IPv4.
            ("2002:a00:1:: 2002:c0a8:101::7 ::10.0.0.1 ::192.168.1.1", true, true),
            ("2001:db8::5efe:10.0.0.1 2001:db8::200:5efe:192.168.1.1", true, true),
            ("2002:7f00:1:: ::127.0.0.1 2001:db8::5efe:127.0.0.1", false, true),
            (
                "2002:808:808:: ::8.8.8.8 2001:db8::5efe:8.8.8.8 2001:db8::1:5efe:10.0.0.1",
                false,
                false,
            ),
            (
                "::2 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:2::10.0.0.1 fbff::1 fe00::1 fe7f::1",
                false,
                false,
            ),
            ("2606:4700::1111 1::ffff:10.0.0.1 ff02::1 255.255.255.255", false, false),
        ];
        for (addresses, alone, with_loopback) in table {
            for address in addresses.split(' ') {
                let octets = match address.parse().unwrap() {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                let found = [false, true].map(|it| is_private(&octets, it, octets.len()));
                assert_eq!(found, [alone, with_loopback], "{address}");
            }
        }
    }

    #[test]
    fn records_with_private_addresses() {
        const A: &[u8] = b"\0\x01\0\x01";
        const AAAA: &[u8] = b"\0\x1c\0\x01";
        const HTTPS: &[u8] = b"\0\x41\0\x01";
        const SVCB: &[u8] = b"\0\x40\0\x01";
        // Type and class, data, and whether it is stripped.
        let cases: &[(&[u8], &[u8], bool)] = &[
            (A, &[10, 0, 0, 1], true),
            (A, &[8, 8, 8, 8], false),
            // Another class; another type.
            (b"\0\x01\0\xfe", &[10, 0, 0, 1], true),
            (b"\0\x10\0\x01", &[10, 0, 0, 1], false),
            (b"\x01\x01\0\x01", &[10, 0, 0, 1], false),
            // Of another length.
            (A, &[], true),
            (A, &[8, 8, 8], true),
            (A, &[8, 8, 8, 8, 8], true),
            (A, &[1; 16], true),
            (AAAA, &[1; 4], true),
            (AAAA, &[0x20; 16], false),
            (AAAA, &[0xfd; 16], true),
            // Priority, target, and then parameters: none, ALPN, addresses, several, ones that overrun.
            (HTTPS, b"\0\x01\0", false),
            (HTTPS, b"\0\0\xc0\x0c", false),
            (HTTPS, b"\0\x01\0\0\x01\0\x04\x0a\0\0\x01", false),
            (HTTPS, b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01", true),
            (SVCB, b"\0\x01\x01a\0\0\x01\0\0\0\x04\0\x08\x08\x08\x08\x08\x0a\0\0\x01", true),
            (SVCB, b"\0\x01\0\0\x04\0\x04\x08\x08\x08\x08", false),
            (SVCB, b"\0\x01\0\0\x06\0\x10\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", true),
            (SVCB, b"\0\x01\0\0\x06\0\x10\x20\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", false),
            // An alias with a hint; keys out of order; an IPv4-mapped address.
            (HTTPS, b"\0\0\0\0\x04\0\x04\x0a\0\0\x01", true),
            (HTTPS, b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01\0\x01\0\0", true),
            (SVCB, b"\0\x01\0\0\x06\0\x10\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01", true),
            (SVCB, b"\0\x01\0\0\x06\0\x10\0\0\0\0\0\0\0\0\0\0\xff\xff\x08\0\0\x01", false),
            (HTTPS, b"\0\x01\0\0\x04\0\x05\x08\x08\x08\x08\x08", true),
            (HTTPS, b"\0\x01\0\0\x04\0\0", true),
            (HTTPS, b"\0\x01\0\0\x04\0\x04\x08\x08\x08", true),
            (HTTPS, b"\0\x01\0\0\x04", true),
            (HTTPS, b"\0\x01\x05a", true),
            (HTTPS, b"\0", true),
            (HTTPS, b"", true),
        ];
        let public = record(A, &[8, 8, 8, 8]);
        for (kind, data, expected) in cases {
            for section in 0..3 {
                let mut counts = [0; 3];
                counts[section] = 2;
                let records = [public.clone(), record(kind, data)].concat();
                let found = strips(&strip(false, &[]), &response(counts, &records));
                let stripped = if *expected { Everything } else { Nothing };
                assert_eq!(found, stripped, "{kind:x?} {data:x?} in section {section}");
            }
        }
        // A hint that follows an owner by pointer, where an address without one is beside it.
        let hint = record(SVCB, b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01");
        let records = [record(A, &[8, 8, 8, 8]), hint].concat();
        assert_eq!(strips(&strip(false, &[]), &response([2, 0, 0], &records)), Everything);
    }

    #[test]
    fn records_beside_the_answers() {
        type Case<'a> = ([u8; 3], &'a [&'a Vec<u8>], Stripped);
        let mx = record(b"\0\x0f\0\x01", b"\0\x05\xc0\x0c");
        let private = record(b"\0\x01\0\x01", &[10, 0, 0, 1]);
        let end = |records| query().len() + records * mx.len();
        let beside =
            |records, with_authority| Stripped::Beside { end: end(records), with_authority };
        let cases: [Case<'_>; 8] = [
            ([1, 0, 1], &[&mx, &private], beside(1, true)),
            ([1, 1, 0], &[&mx, &private], beside(1, false)),
            ([1, 1, 1], &[&mx, &mx, &private], beside(2, true)),
            ([1, 2, 1], &[&mx, &mx, &private, &mx], beside(1, false)),
            ([1, 1, 0], &[&private, &mx], Everything),
            ([2, 0, 0], &[&mx, &private], Everything),
            ([0, 1, 1], &[&mx, &private], Everything),
            ([1, 1, 0], &[&mx, &mx], Nothing),
        ];
        for (counts, records, expected) in cases {
            let octets: Vec<u8> =
                records.iter().flat_map(|record| record.iter().copied()).collect();
            let response = response(counts, &octets);
            let found = strips(&strip(false, &[]), &response);
            assert_eq!(found, expected, "{counts:?} {records:x?}");
        }
    }

    /// RFC 2308 section 5, and the flags and DO of a client that validates.
    #[test]
    fn an_answer_without_records_is_remembered_for_a_minute() {
        let mut query = [&query()[..], b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"].concat();
        (query[3], query[11]) = (0x20, 1);
        let soa = b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x26\xc0\x0c\x06nobody\x07invalid\0";
        let numbers = [1_u32, 3_600, 1_200, 604_800, 60].map(u32::to_be_bytes).concat();
        let opt = b"\0\0\x29\x02\0\0\0\x80\0";
        for (rcode, class, truncated, flags, nscount) in [
            (Rcode::NOERROR, 1, false, [0x81, 0x80], 1),
            (Rcode::NOERROR, 1, true, [0x83, 0x80], 1),
            (Rcode::NXDOMAIN, 1, false, [0x81, 0x83], 1),
            (Rcode::NOERROR, 3, false, [0x81, 0x80], 0),
            (Rcode::SERVFAIL, 1, false, [0x81, 0x82], 0),
        ] {
            let question_end = 29;
            query[question_end - 1] = class;
            let parsed = parse_query(&query, false).unwrap();
            let mut out = Vec::new();
            let response = without_records(&parsed, rcode, truncated);
            local_response(&mut out, &query, &response, 512, 512);
            let header = [&[0, 7], &flags[..], &[0, 1, 0, 0, 0, nscount, 0, 1]].concat();
            let records = if nscount == 1 { [&soa[..], &numbers].concat() } else { Vec::new() };
            let start = [&header, &query[HEADER_LEN..question_end], &records, opt].concat();
            assert!(out.starts_with(&start), "{rcode}: {out:x?}");
            assert_eq!(out[start.len() + 2..][..6], [0, 15, 0, 70, 0, 17], "EDE");
        }
    }

    #[test]
    fn what_passes() {
        let private = response([1, 0, 0], &record(b"\0\x01\0\x01", &[10, 0, 0, 1]));
        let local = response([1, 0, 0], &record(b"\0\x01\0\x01", &[127, 0, 0, 1]));
        assert_eq!(strips(&PrivateAnswers::Pass, &private), Nothing);
        assert_eq!(strips(&strip(false, &[]), &local), Nothing);
        assert_eq!(strips(&strip(true, &[]), &local), Everything);
        assert_eq!(strips(&strip(true, &[]), &response([0, 0, 0], b"")), Nothing);
        for (zone, expected) in [
            (&b"\x07example\x03com\0"[..], Nothing),
            (b"\x03com\0", Nothing),
            (b"\x04mple\x03com\0", Everything),
            (b"\x01a\x07example\x03com\0", Everything),
            (b"\x03org\0", Everything),
        ] {
            let policy = strip(false, &[b"\x03net\0", zone]);
            assert_eq!(strips(&policy, &private), expected, "{zone:x?}");
        }
        // The answer to a signed query. That alone a response is signed says nothing: it may be one to TKEY.
        let tsig = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        let signed = |message: &[u8]| {
            let mut message = [message, tsig].concat();
            message[11] = 1;
            message
        };
        assert_eq!(strips(&strip(true, &[]), &signed(&private)), Everything);
        let query = signed(&query());
        let info = info(&private);
        let parsed = parse_query(&query, false).unwrap();
        assert_eq!(strip(true, &[]).strips(&private, &info, &query, &parsed), Nothing);
    }

    #[test]
    fn an_exception_is_for_the_name_asked_for_and_the_one_that_has_the_address() {
        let cname = record(b"\0\x05\0\x01", b"\x01a\x07example\x03org\0");
        let target = (query().len() + 12) as u8;
        // Of the target: by pointer, within its labels, and spelled out.
        for owner in [
            vec![0xc0, target],
            vec![0xc0, target + 2],
            b"\x01A\x07exaMple\x03org\0".to_vec(),
            vec![1, b'b', 0xc0, target],
        ] {
            let mut address = record(b"\0\x01\0\x01", &[10, 0, 0, 1]);
            address.splice(..2, owner.iter().copied());
            let response = response([2, 0, 0], &[&cname[..], &address].concat());
            let (com, org) = (&b"\x07example\x03com\0"[..], &b"\x07example\x03org\0"[..]);
            for (except, expected) in [
                (&[com][..], Everything),
                (&[org], Everything),
                (&[com, org], Nothing),
                (&[com, b"\x01c\x07example\x03org\0"], Everything),
            ] {
                assert_eq!(strips(&strip(false, except), &response), expected, "{owner:x?}");
            }
        }
    }

    #[test]
    fn names_that_are_special_pass_where_upstreams_are_asked_for_them() {
        let address = record(b"\0\x01\0\x01", &[10, 0, 0, 1]);
        let mut query = query();
        query.splice(HEADER_LEN..query.len() - 4, *b"\x03nas\x04home\x04aRpa\0");
        let mut response = [query.clone(), address].concat();
        (response[2], response[7]) = (0x81, 1);
        let parsed = parse_query(&query, false).unwrap();
        let ResponseCheck::Answer(info) = check_response(&response, &query, query.len()) else {
            panic!("{response:x?}")
        };
        for (except_special, expected) in [(true, Nothing), (false, Everything)] {
            let policy = PrivateAnswers::Strip { loopback: false, except: vec![], except_special };
            assert_eq!(policy.strips(&response, &info, &query, &parsed), expected);
        }
    }

    fn strip(loopback: bool, except: &[&[u8]]) -> PrivateAnswers {
        let except = except.iter().map(|zone| (*zone).into()).collect();
        PrivateAnswers::Strip { loopback, except, except_special: false }
    }

    fn strips(policy: &PrivateAnswers, response: &[u8]) -> Stripped {
        let query = query();
        let parsed = parse_query(&query, false).unwrap();
        policy.strips(response, &info(response), &query, &parsed)
    }

    fn info(response: &[u8]) -> ResponseInfo {
        match check_response(response, &query(), 29) {
            ResponseCheck::Answer(info) => info,
            check => panic!("{check:?} {response:x?}"),
        }
    }

    fn query() -> Vec<u8> {
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07eXample\x03com\0\0\x01\0\x01".to_vec()
    }

    fn response(counts: [u8; 3], records: &[u8]) -> Vec<u8> {
        let mut response = [query(), records.to_vec()].concat();
        response[2] |= 0x80;
        for (section, count) in counts.into_iter().enumerate() {
            response[7 + 2 * section] = count;
        }
        response
    }

    /// A record of the name asked for.
    fn record(kind: &[u8], data: &[u8]) -> Vec<u8> {
        [b"\xc0\x0c", kind, &[0, 0, 0, 60, 0, data.len() as u8], data].concat()
    }
}
