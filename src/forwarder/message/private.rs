//! Private addresses in answers (DNS rebinding): a name of anybody's that has the address of a host here lets a
//! page of theirs reach it, past what a browser keeps apart by name.
//!
//! Whatever section a record is in, and whatever its class, as some stubs look at neither. Address hints of HTTPS
//! and SVCB records (RFC 9460 section 7.3) count as addresses. What cannot be read, such as an A record of three
//! octets, counts as private: others may read it in another way.

use super::opt::Options;
use super::record::{Header, QUESTION_FIXED_LEN, RecordStart, name_end};
use super::special::is_in;
use super::{Ede, HEADER_LEN, ParsedQuery, ResponseInfo, Rtype};

/// What becomes of answers with private addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateAnswers {
    /// They pass.
    Pass,
    /// Clients get an answer without records.
    Strip {
        /// Whether loopback addresses are private: 127.0.0.0/8 and `::1`, which some use for blocked names.
        loopback: bool,
        /// Zones whose answers pass all the same, as they stand in messages, uncompressed.
        except: Vec<Box<[u8]>>,
    },
}

impl PrivateAnswers {
    /// Whether the records of this response are not for the client of `query`. Signed messages pass.
    #[inline]
    pub fn strips(
        &self,
        response: &[u8],
        info: &ResponseInfo,
        query: &[u8],
        parsed: &ParsedQuery,
    ) -> bool {
        match self {
            Self::Pass => false,
            Self::Strip { loopback, except } => {
                let is_signed = info.signature.is_some() || parsed.signature.is_some();
                !is_signed
                    && has_private_address(response, info.question_end, *loopback)
                    && !is_in_any(except, query, parsed)
            }
        }
    }
}

/// The explanation of such an answer.
pub(crate) const STRIPPED: Ede<'static> = Ede {
    code: Ede::FILTERED,
    text: "the answer has a private address (--private-answers, --private-zone)",
};

fn is_in_any(zones: &[Box<[u8]>], query: &[u8], parsed: &ParsedQuery) -> bool {
    let end = parsed.question_end.saturating_sub(QUESTION_FIXED_LEN);
    let name = query.get(HEADER_LEN..end).unwrap_or_default();
    zones.iter().any(|zone| is_in(name, zone))
}

/// Whether any record of a response has a private address. Its records can be read.
fn has_private_address(response: &[u8], question_end: usize, loopback: bool) -> bool {
    let Some(header) = Header::read(response) else {
        return true;
    };
    let records = [header.ancount, header.nscount, header.arcount];
    let mut at = question_end;
    for _ in 0..records.into_iter().map(usize::from).sum() {
        let Some(record) = RecordStart::read(response, at) else {
            return true;
        };
        at = record.end();
        let rdata = record.rdata(response).unwrap_or_default();
        let is_private = match Rtype(record.rtype) {
            Rtype::A => is_private(rdata, loopback, 4),
            Rtype::AAAA => is_private(rdata, loopback, 16),
            Rtype::SVCB | Rtype::HTTPS => has_private_hint(response, &record, loopback),
            _ => false,
        };
        if is_private {
            return true;
        }
    }
    false
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
            [a, b, _, _] => is_private_v4(a, b, loopback),
            // IPv4-mapped (RFC 4291 section 2.5.5.2), and the prefix of NAT64 (RFC 6052 section 2.1).
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, _, _]
            | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, _, _] => {
                is_private_v4(a, b, loopback)
            }
            // The unspecified address reaches this host, as 0.0.0.0 does.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last @ 0..=1] => last == 0 || loopback,
            // Unique-local (RFC 4193) and link-local.
            [0xfc..=0xfd, ..] | [0xfe, 0x80..=0xbf, ..] => true,
            _ => false,
        }
}

/// By its first two octets: "this host" (RFC 1122 section 3.2.1.3), RFC 1918, shared (RFC 6598), link-local.
fn is_private_v4(a: u8, b: u8, loopback: bool) -> bool {
    match (a, b) {
        (127, _) => loopback,
        (0 | 10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) | (169, 254) => true,
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

    use super::*;
    use crate::forwarder::message::{ResponseCheck, check_response, parse_query};

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
            (
                "::2 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::10.0.0.1 fbff::1 fe00::1 fec0::1",
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
                assert_eq!(found, *expected, "{kind:x?} {data:x?} in section {section}");
            }
        }
    }

    #[test]
    fn what_passes() {
        let private = response([1, 0, 0], &record(b"\0\x01\0\x01", &[10, 0, 0, 1]));
        let local = response([1, 0, 0], &record(b"\0\x01\0\x01", &[127, 0, 0, 1]));
        assert!(!strips(&PrivateAnswers::Pass, &private));
        assert!(!strips(&strip(false, &[]), &local) && strips(&strip(true, &[]), &local));
        assert!(!strips(&strip(true, &[]), &response([0, 0, 0], b"")));
        for (zone, expected) in [
            (&b"\x07example\x03com\0"[..], false),
            (b"\x03com\0", false),
            (b"\x04mple\x03com\0", true),
            (b"\x01a\x07example\x03com\0", true),
            (b"\x03org\0", true),
        ] {
            let policy = strip(false, &[b"\x03net\0", zone]);
            assert_eq!(strips(&policy, &private), expected, "{zone:x?}");
        }
        // A signed response, or one to a signed query.
        let tsig = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        let signed = [private.clone(), tsig.to_vec()].concat();
        let with = |message: &[u8]| {
            let mut message = message.to_vec();
            message[11] = 1;
            message
        };
        assert!(!strips(&strip(true, &[]), &with(&signed)));
        let query = with(&[&query()[..], tsig].concat());
        let info = info(&private);
        let parsed = parse_query(&query, false).unwrap();
        assert!(!strip(true, &[]).strips(&private, &info, &query, &parsed));
    }

    fn strip(loopback: bool, except: &[&[u8]]) -> PrivateAnswers {
        PrivateAnswers::Strip {
            loopback,
            except: except.iter().map(|zone| (*zone).into()).collect(),
        }
    }

    fn strips(policy: &PrivateAnswers, response: &[u8]) -> bool {
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
