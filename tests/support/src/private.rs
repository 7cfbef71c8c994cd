//! Which records of a response have private addresses, and what of it a client may get, written apart from what
//! dot-proxy does so that the two check each other.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::message::{A, AAAA, HEADER_LEN, OPT, word};
use crate::view::{Record, View, labels};

/// What counts as private, and where that is so.
#[derive(Clone, Debug)]
pub struct Judge {
    pub loopback: bool,
    /// A zone whose names may have private addresses: its labels.
    pub except: Option<Vec<Vec<u8>>>,
}

/// What of a response a client may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// All of it.
    All,
    /// Nothing from this section on, and all in front of it.
    Before(usize),
    /// No records.
    Nothing,
}

impl Judge {
    /// What a client may get of this response to a question for the name in it.
    pub fn allowed(&self, response: &View<'_>) -> Allowed {
        let first = response.records.iter().find(|record| self.is_private(response, record));
        match first.map(|record| record.section) {
            None => Allowed::All,
            Some(section @ 1..) if response.records.iter().any(|it| it.section == 0) => {
                Allowed::Before(section)
            }
            Some(_) => Allowed::Nothing,
        }
    }

    /// Fails unless `sent`, the response as a client got it, is what it may get of `response`, to the octet.
    pub fn judge(&self, response: &View<'_>, sent: &View<'_>) {
        let records = |view: &View<'_>, section: usize| -> Vec<Vec<u8>> {
            let all = view.records.iter().filter(|it| it.section == section && it.rtype != OPT);
            all.map(|record| view.record_octets(record).to_vec()).collect()
        };
        let end = match self.allowed(response) {
            Allowed::All => 3,
            Allowed::Before(section) => section,
            Allowed::Nothing => panic!("a private address is delivered"),
        };
        assert!(!sent.records.iter().any(|record| self.is_private(sent, record)), "it is private");
        assert_eq!(sent.octets[2..4], response.octets[2..4], "flags");
        for section in 0..3 {
            let expected = if section < end { records(response, section) } else { Vec::new() };
            assert_eq!(records(sent, section), expected, "section {section} of {end}");
        }
    }

    fn is_private(&self, response: &View<'_>, record: &Record) -> bool {
        let data = response.data(record);
        let has_private = match record.rtype {
            A => self.is_private_of(data, 4),
            AAAA => self.is_private_of(data, 16),
            SVCB | HTTPS => self.has_private_hint(response, record),
            _ => false,
        };
        let is_excepted = |at: usize| {
            let name = labels(response.octets, at).map(|(name, _)| name);
            name.zip(self.except.as_ref()).is_some_and(|(name, zone)| {
                name.len().checked_sub(zone.len()).is_some_and(|more| {
                    name[more..]
                        .iter()
                        .zip(zone)
                        .all(|(one, other)| one.eq_ignore_ascii_case(other))
                })
            })
        };
        has_private && !(is_excepted(HEADER_LEN) && is_excepted(record.start()))
    }

    /// A hint of `SvcParams`, behind priority and target, or what cannot be read as such.
    fn has_private_hint(&self, response: &View<'_>, record: &Record) -> bool {
        let data = response.data(record);
        let start = record.data_start();
        let within = &response.octets[..start + data.len()];
        let Some((_, end)) = labels(within, start + 2) else { return true };
        let Some(mut params) = within.get(end..) else { return true };
        while !params.is_empty() {
            let (Some(key), Some(len)) = (word(params, 0), word(params, 2)) else { return true };
            let Some(value) = params.get(4..4 + usize::from(len)) else { return true };
            params = &params[4 + value.len()..];
            let size = match key {
                4 => 4,
                6 => 16,
                _ => continue,
            };
            if value.is_empty() || value.chunks(size).any(|hint| self.is_private_of(hint, size)) {
                return true;
            }
        }
        false
    }

    fn is_private_of(&self, address: &[u8], size: usize) -> bool {
        if address.len() != size {
            return true;
        }
        match *address {
            [a, b, c, d] => self.is_private_v4(Ipv4Addr::new(a, b, c, d)),
            _ => <[u8; 16]>::try_from(address).is_ok_and(|v6| self.is_private_v6(v6.into())),
        }
    }

    fn is_private_v4(&self, address: Ipv4Addr) -> bool {
        let is_in = |network: &str| {
            let (first, len) = network.split_once('/').expect("a prefix");
            let first: Ipv4Addr = first.parse().expect("an address");
            let shift = 32 - len.parse::<u32>().expect("a length");
            first.to_bits() >> shift == address.to_bits() >> shift
        };
        PRIVATE_V4.split(' ').any(is_in) || self.loopback && is_in("127.0.0.0/8")
    }

    fn is_private_v6(&self, address: Ipv6Addr) -> bool {
        let bits = address.to_bits();
        let is_in = |network: &str| {
            let (first, len) = network.split_once('/').expect("a prefix");
            let first: Ipv6Addr = first.parse().expect("an address");
            let shift = 128 - len.parse::<u32>().expect("a length");
            first.to_bits() >> shift == bits >> shift
        };
        let within = |lowest: u32| self.is_private_v4(Ipv4Addr::from_bits((bits >> lowest) as u32));
        let is_isatap = [0x5efe, 0x0200_5efe].contains(&((bits >> 32) as u32));
        match address {
            Ipv6Addr::UNSPECIFIED => true,
            Ipv6Addr::LOCALHOST => self.loopback,
            _ if PRIVATE_V6.split(' ').any(is_in) => true,
            _ if is_in("2002::/16") => within(80),
            _ if is_in("::ffff:0:0/96") || is_in("64:ff9b::/96") || is_isatap => within(0),
            // Not those below ::1.0.0.0, which are no IPv4 addresses.
            _ => is_in("::/96") && bits >> 24 != 0 && within(0),
        }
    }
}

pub const SVCB: u16 = 64;
pub const HTTPS: u16 = 65;

/// RFC 1122, RFC 1918, RFC 6598, RFC 3927, RFC 7335.
const PRIVATE_V4: &str =
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 169.254.0.0/16 172.16.0.0/12 192.0.0.0/29 192.168.0.0/16";

/// RFC 4193, RFC 4291, RFC 3879, RFC 8215.
const PRIVATE_V6: &str = "fc00::/7 fe80::/10 fec0::/10 64:ff9b:1::/48";
