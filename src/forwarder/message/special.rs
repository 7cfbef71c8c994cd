//! Special names: names that have a meaning on this host or network only, or no meaning anywhere.
//!
//! A query for a special name would tell the upstream which private hosts there are and what they look for,
//! and the best answer that could come back is that the name does not exist. The names: RFC 6761 section 6
//! (`localhost`, `invalid`, `test`, private addresses), RFC 6762 section 22.1 (`local`), RFC 7686
//! (`onion`), RFC 8375 (`home.arpa`), RFC 9462 section 6 (`resolver.arpa`), and the reverse zones of
//! RFC 6303 section 4 and RFC 7793. Not among them is `ipv4only.arpa`, whose answer tells a client
//! about the DNS64 of the resolver (RFC 8880 section 7.1).

use super::record::QUESTION_FIXED_LEN;
use super::{
    Class, HEADER_LEN, LocalRecords, LocalResponse, NameDisplay, ParsedQuery, Rcode, Rtype,
};

/// Whether special names are answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecialNames {
    /// Special names are forwarded like all others.
    Forward,
    /// Special names are answered here.
    Local {
        /// Zones whose names are forwarded all the same, as they stand in messages, uncompressed.
        forwarded: Vec<Box<[u8]>>,
    },
}

impl SpecialNames {
    /// Whether any name in `zone` is special: the zone is in a special one, or above one.
    pub fn has_special(zone: &[u8]) -> bool {
        is_special(zone) || ONE_BELOW_EACH_PARENT.into_iter().any(|special| is_in(special, zone))
    }

    /// The name of `zone`, if all names in it are special and it is in no zone that is forwarded.
    pub fn all_of<'a>(&self, zone: &'a [u8]) -> Option<NameDisplay<'a>> {
        match self {
            Self::Local { forwarded } if is_special(zone) => {
                (!forwarded.iter().any(|other| is_in(zone, other))).then_some(NameDisplay(zone))
            }
            _ => None,
        }
    }

    /// How a query that passed all checks is answered here; `None` if it is forwarded.
    ///
    /// A signed query is answered here, too, without a signature: if forwarded, it would tell the name like
    /// any other. Its client sees that no holder of the key answered it.
    pub(crate) fn answer(&self, query: &[u8], parsed: &ParsedQuery) -> Option<Answer> {
        let Self::Local { forwarded } = self else {
            return None;
        };
        // The registrations are for class IN; another class has other names.
        if parsed.qclass != Class::IN {
            return None;
        }
        let name = query.get(HEADER_LEN..parsed.question_end.checked_sub(QUESTION_FIXED_LEN)?)?;
        let zone = Zone::of(name)?;
        let is_apex = zone.start == 0;
        // The parent knows, and can prove, that these are not signed; a validating client that did
        // not learn it would take our answers for forged (RFC 8375 section 4).
        if is_apex && parsed.qtype == Rtype::DS && zone.contents.are_delegated() {
            return None;
        }
        if forwarded.iter().any(|zone| is_in(name, zone)) {
            return None;
        }
        Some(Answer::new(zone, is_apex, parsed.qtype))
    }
}

/// An answer made here.
#[derive(Debug)]
pub(crate) struct Answer {
    rcode: Rcode,
    /// Whether the answer is made here, and so authoritative; else an upstream made it.
    is_ours: bool,
    /// Where the name of the zone starts in the message, if the public DNS may be asked whether there is
    /// one.
    deniable: Option<usize>,
    records: Vec<u8>,
    ancount: u16,
    nscount: u16,
}

impl Answer {
    fn new(Zone { start, contents }: Zone, is_apex: bool, qtype: Rtype) -> Self {
        let apex = HEADER_LEN + start;
        let mut answer = Self {
            rcode: Rcode::NOERROR,
            is_ours: true,
            deniable: contents.are_deniable().then_some(apex),
            records: Vec::with_capacity(RECORDS_LEN),
            ancount: 0,
            nscount: 0,
        };
        let asks_for = |rtype| qtype == rtype || qtype == Rtype::ANY;
        match contents {
            Contents::Apex if is_apex => {
                if asks_for(Rtype::SOA) {
                    answer.ancount += answer.soa(apex);
                }
                if asks_for(Rtype::NS) {
                    answer.ancount += answer.record(apex, Rtype::NS, &pointer(apex));
                }
            }
            Contents::Apex | Contents::Nothing | Contents::Secret => answer.rcode = Rcode::NXDOMAIN,
            Contents::Loopback => {
                if asks_for(Rtype::A) {
                    answer.ancount += answer.record(HEADER_LEN, Rtype::A, &LOOPBACK_V4);
                }
                if asks_for(Rtype::AAAA) {
                    answer.ancount += answer.record(HEADER_LEN, Rtype::AAAA, &LOOPBACK_V6);
                }
            }
            Contents::NamesOnly => {}
        }
        if answer.ancount == 0 {
            answer.nscount += answer.soa(apex);
        }
        answer
    }

    /// NXDOMAIN with so many records of the authority section, which are an upstream's.
    pub(crate) fn denial(records: Vec<u8>, nscount: u16) -> Self {
        let rcode = Rcode::NXDOMAIN;
        Self { rcode, is_ours: false, deniable: None, records, ancount: 0, nscount }
    }

    /// The name of the zone in the message that this answers, if the public DNS may be asked whether there
    /// is one.
    pub(crate) fn deniable_zone<'a>(
        &self,
        message: &'a [u8],
        parsed: &ParsedQuery,
    ) -> Option<&'a [u8]> {
        message.get(self.deniable?..parsed.question_end.checked_sub(QUESTION_FIXED_LEN)?)
    }

    pub(crate) fn rcode(&self) -> Rcode {
        self.rcode
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The response to the query that this answers.
    pub(crate) fn response(&self, parsed: &ParsedQuery) -> LocalResponse<'_> {
        let Self { rcode, is_ours, ref records, ancount, nscount, .. } = *self;
        LocalResponse {
            records: LocalRecords { octets: records, ancount, nscount, is_ours },
            ..parsed.local_response(rcode, None)
        }
    }

    /// The SOA record of RFC 6303 section 3, which says how long to remember that there is nothing.
    fn soa(&mut self, apex: usize) -> u16 {
        let mut data = Vec::with_capacity(RECORDS_LEN);
        data.extend_from_slice(&pointer(apex));
        data.extend_from_slice(b"\x06nobody\x07invalid\0");
        for field in SOA_NUMBERS {
            data.extend_from_slice(&field.to_be_bytes());
        }
        self.record(apex, Rtype::SOA, &data)
    }

    /// Appends a record, whose owner's name starts at `owner`, and says that it is one.
    fn record(&mut self, owner: usize, rtype: Rtype, data: &[u8]) -> u16 {
        self.records.extend_from_slice(&pointer(owner));
        self.records.extend_from_slice(&rtype.0.to_be_bytes());
        self.records.extend_from_slice(&Class::IN.0.to_be_bytes());
        self.records.extend_from_slice(&TTL.to_be_bytes());
        self.records.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.records.extend_from_slice(data);
        1
    }
}

/// A compression pointer (RFC 1035 section 4.1.4).
fn pointer(target: usize) -> [u8; 2] {
    (0xc000 | target as u16).to_be_bytes()
}

/// The special zone that a name is in.
#[derive(Clone, Copy, Debug)]
struct Zone {
    /// Where the zone's own name starts in the name.
    start: usize,
    contents: Contents,
}

/// The names and records that a zone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// The zone itself, with SOA and NS, and nothing below it (RFC 6303 section 3).
    Apex,
    /// Every name there is, with the addresses of this host (RFC 6761 section 6.3).
    Loopback,
    /// Every name there is, without any data (RFC 9462 section 6.4).
    NamesOnly,
    /// Not even the zone itself.
    Nothing,
    /// Not even the zone itself, and nobody may be asked whether it exists (RFC 7686 section 2).
    Secret,
}

impl Contents {
    /// Whether the public DNS has the zone, too.
    fn are_delegated(self) -> bool {
        match self {
            Self::Apex | Self::NamesOnly => true,
            Self::Loopback | Self::Nothing | Self::Secret => false,
        }
    }

    /// Whether the public DNS may be asked for the zone itself: only where no name of it exists here, since the
    /// proof that a zone does not exist is about all of its names.
    fn are_deniable(self) -> bool {
        match self {
            Self::Apex | Self::Nothing => true,
            Self::Loopback | Self::NamesOnly | Self::Secret => false,
        }
    }
}

impl Zone {
    /// The special zone that `name` is in. Most names are not special, which takes no more than a look at their
    /// last label, however many zones there are.
    fn of(name: &[u8]) -> Option<Self> {
        let (start, last) = labels(name).last()?;
        let is = |label: &[u8]| last.eq_ignore_ascii_case(label);
        if is(b"arpa") {
            Self::in_arpa(name)
        } else if is(b"localhost") {
            Some(Self { start, contents: Contents::Loopback })
        } else if is(b"local") || is(b"test") || is(b"invalid") {
            Some(Self { start, contents: Contents::Nothing })
        } else if is(b"onion") {
            Some(Self { start, contents: Contents::Secret })
        } else {
            None
        }
    }

    /// The special zone of a name that ends in `arpa`.
    fn in_arpa(name: &[u8]) -> Option<Self> {
        let mut labels: Vec<_> = labels(name).collect();
        // The last label comes first.
        labels.reverse();
        let label = |index: usize| labels.get(index).map_or(&[][..], |(_, label)| *label);
        let is = |second: &[u8]| label(1).eq_ignore_ascii_case(second);
        let zone =
            |count: usize, contents| Some(Self { start: labels.get(count - 1)?.0, contents });
        if is(b"in-addr") {
            let octets = std::array::from_fn(|index| octet(label(2 + index)));
            zone(2 + private_v4(octets)?, Contents::Apex)
        } else if is(b"ip6") {
            let nibbles = std::array::from_fn(|index| nibble(label(2 + index)));
            zone(2 + private_v6(nibbles)?, Contents::Apex)
        } else if is(b"home") {
            zone(2, Contents::Apex)
        } else if is(b"resolver") {
            zone(2, Contents::NamesOnly)
        } else {
            None
        }
    }
}

/// How many octets name the zone of an IPv4 address that is nobody's in particular, of which the
/// first ones are known (RFC 6303 sections 4.1 and 4.2, RFC 7793).
fn private_v4(octets: [Option<u8>; 4]) -> Option<usize> {
    match octets.map(|octet| octet.map_or(-1, i16::from)) {
        [0 | 10 | 127, ..] => Some(1),
        [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(2),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(3),
        [255, 255, 255, 255] => Some(4),
        _ => None,
    }
}

/// How many hexadecimal digits name the zone of an IPv6 address that is nobody's in particular, of which the
/// first ones are known (RFC 6303 sections 4.3 to 4.6).
fn private_v6(nibbles: [Option<u8>; 32]) -> Option<usize> {
    match nibbles.map(|nibble| nibble.map_or(-1, i16::from)) {
        [0xf, 0xd, ..] => Some(2),
        [0xf, 0xe, 0x8..=0xb, ..] => Some(3),
        [2, 0, 0, 1, 0, 0xd, 0xb, 8, ..] => Some(8),
        [most @ .., 0 | 1] if most == [0; 31] => Some(32),
        _ => None,
    }
}

/// A label that is a number up to 255 as reverse names have it: `010` is another name than `10`.
fn octet(label: &[u8]) -> Option<u8> {
    match label {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => label.iter().try_fold(0_u8, |number, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            number.checked_mul(10)?.checked_add(digit)
        }),
        _ => None,
    }
}

/// A label that is a hexadecimal digit.
fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else {
        return None;
    };
    char::from(*digit).to_digit(16).map(|digit| digit as u8)
}

/// The labels of an uncompressed name, and where they start.
fn labels(name: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let start = name.len() - rest.len();
        let (&len @ 1.., tail) = rest.split_first()? else {
            return None;
        };
        let (label, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        Some((start, label))
    })
}

/// Whether this is the name of a special zone, or below one.
pub(crate) fn is_special(name: &[u8]) -> bool {
    Zone::of(name).is_some()
}

/// Whether `name` is the name of `zone`, or below it.
pub(crate) fn is_in(name: &[u8], zone: &[u8]) -> bool {
    // No length octet is a letter, so labels of other lengths do not compare equal; but what is equal
    // may begin in the middle of a label.
    name.len().checked_sub(zone.len()).is_some_and(|start| {
        name[start..].eq_ignore_ascii_case(zone) && labels(name).any(|(at, _)| at == start)
    })
}

const LOOPBACK_V4: [u8; 4] = [127, 0, 0, 1];
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Serial number, refresh, retry, expire, and how long "there is nothing" is remembered.
const SOA_NUMBERS: [u32; 5] = [1, 3_600, 1_200, 604_800, TTL];

/// Three hours (RFC 6303 section 3), in seconds.
const TTL: u32 = 10_800;

/// Zones that the public DNS may be asked for: the reverse ones of 9 and 16 and 64 IPv4 networks and of 8
/// IPv6 ones, `home.arpa`, `local`, `test` and `invalid`.
pub(crate) const ZONES_MAX: usize = 9 + 16 + 64 + 8 + 4;

/// Octets of the longest records: SOA and NS.
const RECORDS_LEN: usize = 64;

/// For each zone above special zones, one of the special zones below it. Special zones of a single label, which
/// only the root is above, are left out.
const ONE_BELOW_EACH_PARENT: [&[u8]; 13] = [
    b"\x0264\x03100\x07in-addr\x04arpa\0",
    b"\x03254\x03169\x07in-addr\x04arpa\0",
    b"\x0216\x03172\x07in-addr\x04arpa\0",
    b"\x03168\x03192\x07in-addr\x04arpa\0",
    b"\x012\x010\x03192\x07in-addr\x04arpa\0",
    b"\x03100\x0251\x03198\x07in-addr\x04arpa\0",
    b"\x03113\x010\x03203\x07in-addr\x04arpa\0",
    b"\x03255\x03255\x03255\x03255\x07in-addr\x04arpa\0",
    b"\x01d\x01f\x03ip6\x04arpa\0",
    b"\x018\x01e\x01f\x03ip6\x04arpa\0",
    b"\x018\x01b\x01d\x010\x011\x010\x010\x012\x03ip6\x04arpa\0",
    b"\x011\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\
      \x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x03ip6\x04arpa\0",
    b"\x04home\x04arpa\0",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::message;

    /// The answer that is due for a name, by type.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Due {
        /// RCODE, answer and authority records.
        Here(Rcode, u16, u16),
        Upstream,
    }

    const NXDOMAIN: Due = Due::Here(Rcode::NXDOMAIN, 0, 1);
    const NODATA: Due = Due::Here(Rcode::NOERROR, 0, 1);
    const ONE: Due = Due::Here(Rcode::NOERROR, 1, 0);
    const TWO: Due = Due::Here(Rcode::NOERROR, 2, 0);

    /// TKEY, PTR and an unknown one among them.
    const TYPES: [u16; 12] = [1, 2, 5, 6, 12, 16, 28, 43, 65, 249, 255, 65_280];

    /// The answer that is due for each of `TYPES`: `otherwise`, except for the special ones.
    fn by_type(otherwise: Due, special: &[(u16, Due)]) -> [Due; 12] {
        TYPES.map(|qtype| {
            special.iter().find(|(other, _)| *other == qtype).map_or(otherwise, |(_, due)| *due)
        })
    }

    /// Every reverse zone (RFC 6303 section 4, RFC 7793), and the other one that is like them.
    fn zones_with_an_apex() -> Vec<String> {
        let zeros = "0.".repeat(31);
        let v4 = "0 10 127 254.169 168.192 2.0.192 100.51.198 113.0.203 255.255.255.255".split(' ');
        let v6 = "d.f 8.e.f 9.e.f a.e.f b.e.f 8.b.d.0.1.0.0.2".split(' ');
        let mut zones: Vec<_> = v4.map(|zone| format!("{zone}.in-addr.arpa")).collect();
        zones.extend((16..=31).map(|octet| format!("{octet}.172.in-addr.arpa")));
        zones.extend((64..=127).map(|octet| format!("{octet}.100.in-addr.arpa")));
        zones.extend(v6.map(|zone| format!("{zone}.ip6.arpa")));
        zones.extend(["0", "1"].map(|digit| format!("{digit}.{zeros}ip6.arpa")));
        zones.push("home.arpa".into());
        assert_eq!(zones.len(), 9 + 16 + 64 + 6 + 2 + 1);
        assert_eq!(zones.len() + ["local", "test", "invalid"].len(), ZONES_MAX);
        zones
    }

    fn wire(name: &str) -> Vec<u8> {
        let mut octets = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            octets.push(label.len() as u8);
            octets.extend(label.bytes());
        }
        octets.push(0);
        octets
    }

    fn query_of(name: &[u8], qtype: u16, qclass: u16) -> Vec<u8> {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header, name, &qtype.to_be_bytes(), &qclass.to_be_bytes()].concat()
    }

    fn local() -> SpecialNames {
        SpecialNames::Local { forwarded: Vec::new() }
    }

    fn except(zones: &[&str]) -> SpecialNames {
        SpecialNames::Local { forwarded: zones.iter().map(|zone| wire(zone).into()).collect() }
    }

    fn due_for(names: &SpecialNames, query: &[u8]) -> Due {
        let parsed = message::parse_query(query, false).unwrap();
        match names.answer(query, &parsed) {
            None => Due::Upstream,
            Some(Answer { rcode, ancount, nscount, .. }) => Due::Here(rcode, ancount, nscount),
        }
    }

    #[track_caller]
    fn check(name: &str, expected: [Due; 12]) {
        for spelling in [name.to_owned(), name.to_ascii_uppercase()] {
            let found = TYPES.map(|qtype| due_for(&local(), &query_of(&wire(&spelling), qtype, 1)));
            assert_eq!(found, expected, "{spelling}");
        }
    }

    /// `zone` with labels before it, one of them the longest and the last name as long as names get.
    fn names_below(zone: &str) -> Vec<String> {
        let mut longest = zone.to_owned();
        while let room = 253 - longest.len()
            && room >= 2
        {
            // No octet may be left over that no label has.
            let len = if room == 65 { 62 } else { (room - 1).min(63) };
            longest = format!("{}.{longest}", "x".repeat(len));
        }
        assert_eq!(wire(&longest).len(), 255);
        let mut most_labels = zone.to_owned();
        while most_labels.len() + 2 <= 253 {
            most_labels = format!("1.{most_labels}");
        }
        let few = ["0", "a", "com", "local", "arpa", "_dns", "1.2", "home.arpa"];
        few.iter().map(|label| format!("{label}.{zone}")).chain([longest, most_labels]).collect()
    }

    #[test]
    fn zones_with_special_names_are_special_or_below_or_above() {
        for zone in ONE_BELOW_EACH_PARENT {
            assert_eq!(Zone::of(zone).map(|zone| zone.start), Some(0), "{zone:?}");
        }
        let others = ["localhost", "invalid", "test", "onion", "local", "resolver.arpa"];
        for zone in zones_with_an_apex().iter().map(String::as_str).chain(others) {
            assert!(SpecialNames::has_special(&wire(&format!("a.{zone}"))), "below {zone}");
            let parents = zone.match_indices('.').map(|(dot, _)| &zone[dot + 1..]);
            for above in [zone].into_iter().chain(parents) {
                assert!(SpecialNames::has_special(&wire(above)), "{above} of {zone}");
            }
        }
        for zone in ["com", "lan", "1.in-addr.arpa", "63.100.in-addr.arpa", "a.arpa", "3.ip6.arpa"]
        {
            assert!(!SpecialNames::has_special(&wire(zone)), "{zone}");
        }
    }

    #[test]
    fn zones_with_an_apex_have_nothing_below_it() {
        let apex = by_type(NODATA, &[(2, ONE), (6, ONE), (43, Due::Upstream), (255, TWO)]);
        for zone in zones_with_an_apex() {
            check(&zone, apex);
            for name in names_below(&zone) {
                check(&name, [NXDOMAIN; 12]);
            }
        }
    }

    #[test]
    fn names_that_never_exist() {
        for zone in ["invalid", "test", "onion", "local"] {
            check(zone, [NXDOMAIN; 12]);
            for name in names_below(zone) {
                check(&name, [NXDOMAIN; 12]);
            }
        }
    }

    #[test]
    fn names_of_this_host() {
        for name in names_below("localhost").into_iter().chain(["localhost".into()]) {
            check(&name, by_type(NODATA, &[(1, ONE), (28, ONE), (255, TWO)]));
        }
    }

    #[test]
    fn names_without_data() {
        check("resolver.arpa", by_type(NODATA, &[(43, Due::Upstream)]));
        for name in names_below("resolver.arpa").into_iter().chain(["_dns.resolver.arpa".into()]) {
            check(&name, [NODATA; 12]);
        }
    }

    #[test]
    fn names_that_are_not_special() {
        let names = "
            . arpa in-addr.arpa ip6.arpa com example example.com www.example internal a.internal alt
            ipv4only.arpa a.ipv4only.arpa service.arpa local.arpa localhost.arpa e164.arpa
            notlocal a.notlocal localx xlocalhost localhost.com localhos locallocal test.com tests
            test.example invalid.net onion.com onions local.example.com home home.arpa.com
            xhome.arpa homes.arpa resolver xresolver.arpa in-addr ip6
            10.in-addr 10.in-addr.com 10.in-addr.arpa.com in-addr.arpa.com 10.xin-addr.arpa
            1.in-addr.arpa 9.in-addr.arpa 11.in-addr.arpa 010.in-addr.arpa 00.in-addr.arpa
            1010.in-addr.arpa 266.in-addr.arpa 383.in-addr.arpa x.in-addr.arpa 1x.in-addr.arpa
            -10.in-addr.arpa +10.in-addr.arpa 128.in-addr.arpa 126.in-addr.arpa
            100.in-addr.arpa 63.100.in-addr.arpa 128.100.in-addr.arpa 064.100.in-addr.arpa
            169.in-addr.arpa 253.169.in-addr.arpa 255.169.in-addr.arpa 169.254.in-addr.arpa
            172.in-addr.arpa 15.172.in-addr.arpa 32.172.in-addr.arpa 1.172.in-addr.arpa
            192.in-addr.arpa 0.192.in-addr.arpa 167.192.in-addr.arpa 169.192.in-addr.arpa
            192.168.in-addr.arpa 1.0.192.in-addr.arpa 3.0.192.in-addr.arpa 2.1.192.in-addr.arpa
            x.168.193.in-addr.arpa 51.198.in-addr.arpa 101.51.198.in-addr.arpa
            100.52.198.in-addr.arpa 112.0.203.in-addr.arpa 113.1.203.in-addr.arpa
            255.in-addr.arpa 255.255.in-addr.arpa 255.255.255.in-addr.arpa
            254.255.255.255.in-addr.arpa 255.255.255.254.in-addr.arpa 4.4.8.8.in-addr.arpa
            f.ip6.arpa c.f.ip6.arpa e.f.ip6.arpa 7.e.f.ip6.arpa c.e.f.ip6.arpa f.e.f.ip6.arpa
            g.e.f.ip6.arpa fd.ip6.arpa df.ip6.arpa 10.in-addr.ip6.arpa 10.ip6.arpa
            b.d.0.1.0.0.2.ip6.arpa 9.b.d.0.1.0.0.2.ip6.arpa 8.b.d.1.1.0.0.2.ip6.arpa
            8.d.b.0.1.0.0.2.ip6.arpa 08.b.d.0.1.0.0.2.ip6.arpa 0.ip6.arpa 1.ip6.arpa";
        let zeros = |count| "0.".repeat(count);
        let near_loopback = [
            format!("{}ip6.arpa", zeros(31)),
            format!("2.{}ip6.arpa", zeros(31)),
            format!("1.1.{}ip6.arpa", zeros(30)),
            format!("1.{}1.ip6.arpa", zeros(30)),
            format!("1.{}ip6.arpa", zeros(30)),
        ];
        let names = names.split_ascii_whitespace().map(str::to_owned).chain(near_loopback);
        for name in names {
            check(&name, [Due::Upstream; 12]);
        }
    }

    #[test]
    fn what_only_looks_like_a_label() {
        // A dot or a length octet inside a label is an octet like any other.
        let cases: [&[u8]; 6] = [
            b"\x0a10.in-addr\x04arpa\0",
            b"\x07a.local\0",
            b"\x06x\x04test\0",
            b"\x09home.arpa\0",
            b"\x0210\x0cin-addr.arpa\0",
            b"\x02\xc0\x0c\0",
        ];
        for name in cases {
            assert_eq!(due_for(&local(), &query_of(name, 1, 1)), Due::Upstream, "{name:x?}");
        }
        assert_eq!(due_for(&local(), &query_of(b"\x03\0.\xff\x05lOcAl\0", 1, 1)), NXDOMAIN);
    }

    #[test]
    fn other_classes_are_forwarded() {
        for name in ["localhost", "test", "a.10.in-addr.arpa", "resolver.arpa"] {
            for class in [0, 2, 3, 4, 254, 255, 65_535] {
                assert_eq!(due_for(&local(), &query_of(&wire(name), 1, class)), Due::Upstream);
            }
        }
    }

    #[test]
    fn forwarded_zones() {
        let a = |names: &SpecialNames, name: &str| due_for(names, &query_of(&wire(name), 1, 1));
        let zones = ["10.in-addr.arpa", "1.168.192.in-addr.arpa", "a.local", "com"];
        let names = except(&zones);
        for name in ["10.in-addr.arpa", "x.10.In-Addr.ARPA", "2.1.168.192.in-addr.arpa", "A.lOcal"]
        {
            assert_eq!(a(&names, name), Due::Upstream, "{name}");
        }
        let others = "
            110.168.192.in-addr.arpa 168.192.in-addr.arpa 11.168.192.in-addr.arpa local ba.local
            b.local a.test 127.in-addr.arpa";
        for name in others.split_ascii_whitespace() {
            assert!(matches!(a(&names, name), Due::Here(..)), "{name}");
        }
        // One that is above special names.
        assert_eq!(a(&except(&["172.in-addr.arpa"]), "1.16.172.in-addr.arpa"), Due::Upstream);
        assert_eq!(a(&except(&["arpa"]), "home.arpa"), Due::Upstream);
        // The octets of a.local from the middle of a label on.
        assert_eq!(due_for(&names, &query_of(b"\x03x\x01a\x05local\0", 1, 1)), NXDOMAIN);
        assert_eq!(due_for(&names, &query_of(b"\x01x\x01a\x05local\0", 1, 1)), Due::Upstream);
        assert_eq!(a(&SpecialNames::Forward, "a.local"), Due::Upstream);
    }

    #[test]
    fn responses() {
        // Name, type, RCODE, ANCOUNT and NSCOUNT, records.
        type Case<'a> = (&'a str, u16, u8, [u8; 2], Vec<u8>);
        let soa = |apex: u8| {
            let times = b"\0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\x2a\x30";
            let data = [&[0xc0, apex], &b"\x06nobody\x07invalid\0"[..], times].concat();
            [&[0xc0, apex], &b"\0\x06\0\x01\0\0\x2a\x30\0\x26"[..], &data].concat()
        };
        let a = b"\xc0\x0c\0\x01\0\x01\0\0\x2a\x30\0\x04\x7f\0\0\x01".to_vec();
        let aaaa_data = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let aaaa = [&b"\xc0\x0c\0\x1c\0\x01\0\0\x2a\x30\0\x10"[..], &aaaa_data].concat();
        let ns = b"\xc0\x0c\0\x02\0\x01\0\0\x2a\x30\0\x02\xc0\x0c".to_vec();
        let cases: [Case<'_>; 7] = [
            ("wWw.LocalHost", 1, 0, [1, 0], a.clone()),
            ("wWw.LocalHost", 28, 0, [1, 0], aaaa.clone()),
            ("localhost", 255, 0, [2, 0], [a, aaaa].concat()),
            ("a.b.Onion", 1, 3, [0, 1], soa(16)),
            ("1.2.10.in-addr.arpa", 12, 3, [0, 1], soa(16)),
            ("10.in-addr.arpa", 255, 0, [2, 0], [soa(12), ns].concat()),
            ("_dns.resolver.arpa", 64, 0, [0, 1], soa(17)),
        ];
        // DO is copied, AD and the unknown bit are not.
        let opt = b"\0\0\x29\x10\0\0\0\x80\0\0\x04\xfd\xe9\0\0";
        for (name, qtype, rcode, [ancount, nscount], records) in cases {
            for (rd_cd, with_opt) in [(0x0100, true), (0x0010, true), (0, false)] {
                let mut query = query_of(&wire(name), qtype, 1);
                let question = query[12..].to_vec();
                query[2..4].copy_from_slice(&(rd_cd | 0x0660_u16).to_be_bytes());
                let mut ours: &[u8] = &[];
                if with_opt {
                    query[11] = 1;
                    query.extend(opt);
                    ours = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";
                }
                let parsed = message::parse_query(&query, false).unwrap();
                let answer = local().answer(&query, &parsed).unwrap();
                let mut out = Vec::new();
                message::local_response(&mut out, &query, &answer.response(&parsed), 1_232, 512);
                // QR, AA and RA.
                let [high, low] = (0x8480 | rd_cd | u16::from(rcode)).to_be_bytes();
                let header = [0x12, 0x34, high, low, 0, 1, 0, ancount, 0, nscount, 0];
                let expected =
                    [&header[..], &[u8::from(with_opt)], &question[..], &records, ours].concat();
                assert_eq!(out, expected, "{name}");
            }
        }
    }

    #[test]
    fn the_longest_response_fits_in_any_datagram() {
        for zone in ["10.in-addr.arpa", "localhost", "resolver.arpa", "test"] {
            for name in names_below(zone) {
                let mut query = query_of(&wire(&name), 255, 1);
                query[11] = 1;
                query.extend(b"\0\0\x29\x02\0\0\0\0\0\0\0");
                let parsed = message::parse_query(&query, false).unwrap();
                let answer = local().answer(&query, &parsed).unwrap();
                assert!(answer.records.len() <= RECORDS_LEN);
                let mut out = Vec::new();
                message::local_response(&mut out, &query, &answer.response(&parsed), 512, 512);
                assert_eq!(out.len(), query.len() + answer.records.len());
                assert!(out.len() <= 512);
            }
        }
    }

    #[test]
    fn a_signed_query_is_answered_all_the_same() {
        let tsig = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x01x";
        let mut query = query_of(&wire("1.10.in-addr.arpa"), 12, 1);
        query[11] = 1;
        query.extend(tsig);
        assert_eq!(due_for(&local(), &query), NXDOMAIN);
    }
}
