//! The addresses that are served.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::forwarder::collections::sort::sort_by_key;
use crate::forwarder::report::OnceAMinute;

/// The addresses of a network: those that begin with the same bits.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The first address, as IPv6 has it: that of an IPv4 address is its mapped one (RFC 4291 section
    /// 2.5.5.2).
    first: u128,
    /// How many bits of it all addresses have.
    len: u8,
}

impl Prefix {
    /// The network of this address, whose prefix has so many bits. `None`: an address has fewer bits.
    pub fn of(address: IpAddr, len: u8) -> Option<Self> {
        let (len, most) = if address.is_ipv4() { (len.checked_add(96)?, 128) } else { (len, 128) };
        let first = key(address) & !u128::MAX.checked_shr(len.into()).unwrap_or_default();
        (len <= most).then_some(Self { first, len })
    }

    const fn v4(a: u8, b: u8, len: u8) -> Self {
        let first = Ipv4Addr::new(a, b, 0, 0).to_ipv6_mapped().to_bits();
        Self { first, len: 96 + len }
    }

    const fn v6(first: u16, len: u8) -> Self {
        Self { first: (first as u128) << 112, len }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        Ipv6Addr::from_bits(self.first).to_canonical()
    }

    /// Whether all of its addresses are in `other`, too.
    pub fn is_within(&self, other: &Self) -> bool {
        other.len <= self.len && other.contains(self.first)
    }

    /// Whether these are all addresses of their family.
    pub fn is_everybody(&self) -> bool {
        *self == Self { first: 0, len: 0 } || *self == Self::v4(0, 0, 0)
    }

    fn last(&self) -> u128 {
        self.first | u128::MAX.checked_shr(self.len.into()).unwrap_or_default()
    }

    /// Whether the address of this key is one of them. No IPv4 address is one of an IPv6 network.
    fn contains(&self, key: u128) -> bool {
        let is_of_family = is_mapped(self.first) || !is_mapped(key);
        is_of_family && (self.first..=self.last()).contains(&key)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first();
        let len = if first.is_ipv4() { self.len - 96 } else { self.len };
        write!(f, "{first}/{len}")
    }
}

/// The number of an address among all of both families.
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn is_mapped(key: u128) -> bool {
    key >> 32 == 0xffff
}

/// A set of addresses. A look-up takes few steps, however many prefixes there are.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// Keys at which ranges in the set begin and end, in turn.
    bounds: Vec<u128>,
}

impl Ranges {
    /// An address is in the set if the longest of these prefixes that it is in says so. Of two that are alike
    /// the one that says no counts.
    pub(crate) fn new(prefixes: &[(Prefix, bool)]) -> Self {
        let is_in = |key: u128| {
            let around = prefixes.iter().filter(|(prefix, _)| prefix.contains(key));
            around
                .max_by_key(|(prefix, is_in)| (prefix.len, !is_in))
                .is_some_and(|(_, is_in)| *is_in)
        };
        // All of IPv4 lies within IPv6 networks of which it is no part.
        let all_v4 = Prefix::v4(0, 0, 0);
        let around = prefixes.iter().map(|(prefix, _)| prefix).chain([&all_v4]);
        let mut bounds: Vec<u128> = Vec::with_capacity(2 * prefixes.len() + 2);
        bounds.extend(
            around.flat_map(|prefix| [Some(prefix.first), prefix.last().checked_add(1)]).flatten(),
        );
        sort_by_key(&mut bounds, |bound| *bound);
        let mut was_in = false;
        bounds.retain(|bound| {
            let before = std::mem::replace(&mut was_in, is_in(*bound));
            before != was_in
        });
        Self { bounds }
    }

    /// Whether an address is in the set.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let key = key(address);
        self.bounds.partition_point(|bound| *bound <= key) % 2 == 1
    }

    /// How many addresses of `network` are in the set.
    fn addresses_in(&self, network: &Prefix) -> u128 {
        let ranges = self.bounds.chunks(2).map(|range| (range[0], range.get(1)));
        ranges
            .map(|(first, end)| {
                let last = end.map_or(u128::MAX, |end| end - 1).min(network.last());
                last.checked_sub(first.max(network.first)).map_or(0, |more| more + 1)
            })
            .sum()
    }

    /// Octets that it takes for so many prefixes.
    pub(crate) const fn octets(prefixes: usize) -> usize {
        (2 * prefixes + 2) * size_of::<u128>()
    }
}

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Networks whose addresses are served, but for those in a longer prefix of the other kind.
    pub allowed: Vec<Prefix>,
    /// Networks whose addresses are not served. Of two prefixes that are alike this one counts.
    pub denied: Vec<Prefix>,
    /// Whether the subnets of this host's interfaces are served, too.
    pub subnets: bool,
    /// What a datagram from an address that is not served gets.
    pub denial: AccessDenial,
}

/// What a query by datagram gets that comes from an address that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDenial {
    /// Nothing.
    Drop,
    /// REFUSED, which is not much longer than the query.
    Refused,
}

impl Access {
    /// Loopback addresses, which are served unless they are denied by name.
    pub const LOOPBACK: [Prefix; 2] = [Prefix::v4(127, 0, 8), Prefix { first: 1, len: 128 }];

    /// This host and its local networks: loopback, private (RFC 1918), shared (RFC 6598), link-local and
    /// unique local. To serve everybody else would make this an open resolver (RFC 5625 section 6.2), which
    /// floods third parties with answers they never asked for.
    pub const LOCAL: [Prefix; 9] = [
        Self::LOOPBACK[0],
        Self::LOOPBACK[1],
        Prefix::v4(10, 0, 8),
        // Between a provider and its customers, and in virtual private networks; not routed beyond.
        Prefix::v4(100, 64, 10),
        Prefix::v4(169, 254, 16),
        Prefix::v4(172, 16, 12),
        Prefix::v4(192, 168, 16),
        Prefix::v6(0xfc00, 7),
        Prefix::v6(0xfe80, 10),
    ];

    /// Whether others than this host and its local networks may be served: the networks of interfaces may be
    /// any, such as those of a provider's customers.
    pub fn is_public(&self) -> bool {
        let is_local = |prefix: &Prefix| Self::LOCAL.iter().any(|local| prefix.is_within(local));
        self.subnets || !self.allowed.iter().all(is_local)
    }

    /// The networks that are not local, if they make this an open resolver: half of all IPv4 addresses is served, or
    /// half of the IPv6 addresses that are given out (`2000::/3`), whatever the prefixes are that come to it.
    pub fn open_networks(&self) -> Vec<Prefix> {
        let served = self.served(&[]);
        let is_open = [Prefix::v4(0, 0, 0), Prefix::v6(0x2000, 3)].iter().any(|all| {
            let half = 1 << (127 - all.len);
            served.addresses_in(all) >= half
        });
        let is_local = |prefix: &Prefix| Self::LOCAL.iter().any(|local| prefix.is_within(local));
        let public = self.allowed.iter().filter(|prefix| is_open && !is_local(prefix));
        public.copied().collect()
    }

    /// Whether nobody but this host is served.
    fn is_for_this_host(&self) -> bool {
        let is_loopback =
            |prefix: &Prefix| Self::LOOPBACK.iter().any(|loopback| prefix.is_within(loopback));
        !self.subnets && self.allowed.iter().all(is_loopback)
    }

    /// Whether the default networks are served, but for those that are denied, and perhaps others besides.
    pub fn is_default(&self) -> bool {
        let is_known = |local| self.allowed.contains(local) || self.denied.contains(local);
        !self.subnets && Self::LOCAL.iter().all(is_known)
    }

    /// Whether somebody would be served if this network were not denied, as far as that is known before there
    /// are subnets.
    pub fn needs_denial_of(&self, denied: &Prefix) -> bool {
        let around = |prefixes: &[Prefix]| {
            let wider = prefixes.iter().filter(|it| *it != denied && denied.is_within(it));
            wider.map(|it| it.len).max()
        };
        self.subnets
            // Loopback is served unless it is denied by name, whatever is allowed.
            || Self::LOOPBACK.contains(denied)
            || self.is_default() && Self::LOCAL.contains(denied)
            || around(&self.allowed) > around(&self.denied)
    }

    /// What serves an address that is not served.
    pub(crate) fn remedy(&self, source: IpAddr) -> String {
        // Of IPv6 a host has many addresses, and others tomorrow (RFC 8981).
        let source = source.to_canonical();
        let around = Prefix::of(source, if source.is_ipv4() { 32 } else { 64 });
        let own = around.map(|prefix| prefix.to_string()).unwrap_or_default();
        // Without it the others would not be served any more.
        let besides = if self.is_default() { "--allow default with " } else { "" };
        let denied = self.denied.iter().filter(|prefix| prefix.contains(key(source)));
        if let Some(denied) = denied.max_by_key(|prefix| prefix.len) {
            let is_smaller = around.is_some_and(|around| around.len > denied.len);
            let remedy = if is_smaller {
                format!("; {besides}--allow {own} serves it")
            } else {
                String::new()
            };
            return format!("it is in --deny {denied}{remedy}");
        }
        let local = if self.subnets { "" } else { " or --allow local" };
        format!("give {besides}--allow {own}{local}")
    }

    /// Subnets of interfaces that are served at most.
    pub const SUBNETS_MAX: usize = 256;

    /// The addresses that are served, with these subnets.
    pub(crate) fn served(&self, subnets: &[Prefix]) -> Ranges {
        let allowed = self.allowed.iter().chain(subnets).map(|prefix| (*prefix, true));
        let denied = self.denied.iter().map(|prefix| (*prefix, false));
        let prefixes: Vec<_> = allowed.chain(denied).collect();
        Ranges::new(&prefixes)
    }

    fn prefixes_max(&self) -> usize {
        let subnets = if self.subnets { Self::SUBNETS_MAX } else { 0 };
        self.allowed.len() + self.denied.len() + subnets
    }

    /// Octets that it takes beyond what a few prefixes do, with the look-up, and with another one while that is
    /// made.
    pub fn octets(&self) -> usize {
        let prefixes = self.prefixes_max().saturating_sub(Self::LOCAL.len());
        // As they were configured, as the forwarder has them, and as a look-up is made of them.
        prefixes * (2 * size_of::<Prefix>() + size_of::<(Prefix, bool)>())
            + 2 * Ranges::octets(prefixes)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_for_this_host() {
            f.write_str("this host alone: ")?;
        }
        if Self::LOCAL.iter().all(|local| self.allowed.contains(local)) {
            f.write_str(
                "loopback, private, shared (100.64.0.0/10), link-local and unique-local addresses",
            )?;
            let others = self.allowed.iter().filter(|prefix| !Self::LOCAL.contains(prefix));
            let others: Vec<_> = others.copied().collect();
            if !others.is_empty() {
                write!(f, ", {}", shown_prefixes(&others))?;
            }
        } else {
            f.write_str(&shown_prefixes(&self.allowed))?;
        }
        if self.subnets {
            f.write_str(", the networks of this host's interfaces")?;
        }
        if !self.denied.is_empty() {
            write!(f, ", but not {}", shown_prefixes(&self.denied))?;
        }
        Ok(())
    }
}

/// The first of these prefixes, and how many more there are.
pub fn shown_prefixes(prefixes: &[Prefix]) -> String {
    let shown: Vec<_> = prefixes.iter().take(SHOWN_MAX).map(Prefix::to_string).collect();
    match prefixes.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Prefixes that a line of the log shows.
const SHOWN_MAX: usize = 8;

/// Sources that are not served, for the log: whoever floods makes no more lines than others.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    unlogged: u64,
    logged: OnceAMinute,
}

impl Strangers {
    /// One more asked. How many did since a line was written, if one is due.
    pub(crate) fn note(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        self.logged.is_due(now).then(|| std::mem::take(&mut self.unlogged))
    }
}

/// How many REFUSED leave: each goes to an address that may be forged.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// When as many as at once may leave again.
    full_at: Option<Instant>,
}

impl Refusals {
    /// Takes one, if it may leave.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.unwrap_or(now).max(now) + REFUSAL_INTERVAL;
        let may_leave = full_at <= now + REFUSAL_INTERVAL * REFUSALS_MAX;
        if may_leave {
            self.full_at = Some(full_at);
        }
        may_leave
    }
}

/// REFUSED that leave at once after a pause, and in a second: a client that is told asks no more.
pub(crate) const REFUSALS_MAX: u32 = 100;

const REFUSAL_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::{Random, base};

    #[test]
    fn strangers_are_told_of_once_a_minute_and_counted_meanwhile() {
        let mut strangers = Strangers::default();
        let start = base();
        let due: Vec<_> = [0, 1, 59_999, 60_000, 60_001, 500_000]
            .into_iter()
            .filter_map(|ms| Some((ms, strangers.note(start + Duration::from_millis(ms))?)))
            .collect();
        assert_eq!(due, [(0, 1), (60_000, 3), (500_000, 2)]);
    }

    #[test]
    fn so_many_are_refused_in_a_second_and_the_others_get_nothing() {
        let mut refusals = Refusals::default();
        let start = base();
        let taken = [(0, 150), (5, 10), (10, 10), (1010, 150), (60_000, 150)].map(|(ms, count)| {
            let now = start + Duration::from_millis(ms);
            (0..count).filter(|_| refusals.try_take(now)).count()
        });
        assert_eq!(taken, [100, 0, 1, 100, 100]);
    }

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::of(address.parse().unwrap(), len.parse().unwrap()).unwrap()
    }

    fn prefixes(text: &str) -> Vec<Prefix> {
        text.split_whitespace().map(prefix).collect()
    }

    fn access(allowed: &str, denied: &str) -> Access {
        let (allowed, denied) = (prefixes(allowed), prefixes(denied));
        Access { allowed, denied, subnets: false, denial: AccessDenial::Drop }
    }

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "::/0",
            "2000::/3",
            "fd00::1/128",
            "::/96",
            "255.255.255.255/32",
            "ffff::/16",
        ] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(prefix("::ffff:10.1.2.3/104").to_string(), "10.0.0.0/8");
        for (address, len) in [("10.0.0.0", 33), ("10.0.0.0", 255), ("::", 129)] {
            assert_eq!(Prefix::of(address.parse().unwrap(), len), None);
        }
        let everybody = ["0.0.0.0/0", "::/0", "::/1", "10.0.0.0/8", "::ffff:0.0.0.0/96"];
        let everybody = everybody.map(|text| prefix(text).is_everybody());
        assert_eq!(everybody, [true, true, false, false, true]);
    }

    #[test]
    fn the_longest_prefix_counts() {
        // What is allowed, what is denied, who is served, and who is not.
        for (allowed, denied, served, refused) in [
            ("", "", "", "0.0.0.0 :: 127.0.0.1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (
                "10.0.0.0/8",
                "",
                "10.0.0.0 10.255.255.255 ::ffff:10.1.2.3",
                "9.255.255.255 11.0.0.0 ::a00:1",
            ),
            ("::ffff:10.0.0.0/104", "", "10.0.0.1 ::ffff:10.0.0.1", "11.0.0.0"),
            (
                "10.0.0.0/8 10.1.1.0/24",
                "10.1.0.0/16",
                "10.0.0.1 10.1.1.1 10.2.0.0",
                "10.1.0.255 10.1.2.0",
            ),
            ("10.1.1.1/32", "10.0.0.0/8 10.0.0.0/8", "10.1.1.1", "10.1.1.0 10.1.1.2"),
            ("10.0.0.0/9 10.128.0.0/9", "", "10.0.0.1 10.127.255.255 10.128.0.0", "11.0.0.0"),
            ("10.0.0.0/8", "10.0.0.0/8", "", "10.0.0.1"),
            // All addresses of one family are none of the other.
            (
                "::/0",
                "",
                ":: ::fffe:ffff:ffff ::1:0:0:0 ffff::1",
                "0.0.0.0 8.8.8.8 255.255.255.255",
            ),
            (
                "0.0.0.0/0",
                "",
                "0.0.0.0 255.255.255.255 ::ffff:1.2.3.4",
                ":: ::fffe:ffff:ffff ::1:0:0:0",
            ),
            ("0.0.0.0/0", "::/0", "8.8.8.8", "2001:db8::1"),
            (
                "::/0 0.0.0.0/0",
                "8.8.8.0/24 2001:db8::/32",
                "8.8.9.0 2001:db9::",
                "8.8.8.8 2001:db8::1",
            ),
            (
                "::/0",
                "ff00::/8",
                "feff:ffff:: fe80::1",
                "ff02::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let ranges = access(allowed, denied).served(&[]);
            for (addresses, is_served) in [(served, true), (refused, false)] {
                for address in addresses.split_whitespace() {
                    let found = ranges.contains(address.parse().unwrap());
                    assert_eq!(found, is_served, "{allowed:?} without {denied:?}: {address}");
                }
            }
        }
    }

    #[test]
    fn a_look_up_says_what_the_prefixes_say_one_by_one() {
        let mut random = Random::new(1);
        for _ in 0..100 {
            let rules: Vec<(Prefix, bool)> = (0..random.next() % 40)
                .map(|_| {
                    let bits = random.next();
                    let prefix = if bits & 1 == 0 {
                        let address = Ipv4Addr::from_bits((random.next() as u32) & 0xff0f_0003);
                        Prefix::of(address.into(), (bits >> 1) as u8 % 33)
                    } else {
                        let address =
                            Ipv6Addr::from_bits(u128::from(random.next() & 0xf0ff_ffff_0003));
                        Prefix::of(address.into(), (bits >> 1) as u8 % 129)
                    };
                    (prefix.unwrap(), bits >> 20 & 1 == 0)
                })
                .collect();
            let ranges = Ranges::new(&rules);
            let bounds = rules.iter().flat_map(|(prefix, _)| [prefix.first, prefix.last()]);
            for key in bounds.flat_map(|key| [key.wrapping_sub(1), key, key.wrapping_add(1)]) {
                let address = Ipv6Addr::from_bits(key);
                let around = rules.iter().filter(|(prefix, _)| {
                    let of_network = Prefix::of(address.into(), prefix.len).unwrap();
                    of_network == *prefix
                        && address.to_canonical().is_ipv4() == prefix.first().is_ipv4()
                });
                let longest = around.clone().map(|(prefix, _)| prefix.len).max();
                let all = around.filter(|(prefix, _)| Some(prefix.len) == longest);
                let expected = longest.is_some() && all.clone().all(|(_, is_in)| *is_in);
                assert_eq!(ranges.contains(address.into()), expected, "{address}: {rules:?}");
            }
        }
    }

    #[test]
    fn who_is_served_is_said() {
        let text = access("127.0.0.0/8 ::1/128 10.0.0.0/8", "").to_string();
        assert_eq!(text, "127.0.0.0/8, ::1/128, 10.0.0.0/8");
        let local = Access { allowed: Access::LOCAL.into(), ..access("", "10.1.0.0/16") };
        assert_eq!(
            local.to_string(),
            "loopback, private, shared (100.64.0.0/10), link-local and unique-local addresses, but not \
             10.1.0.0/16"
        );
        let many = (0..20).map(|n| Prefix::v4(10, n, 16)).collect();
        let many = Access { allowed: many, subnets: true, ..access("", "") }.to_string();
        let expected = "10.7.0.0/16 and 12 more, the networks of this host's interfaces";
        assert!(many.ends_with(expected), "{many}");
    }

    #[test]
    fn what_serves_a_source_is_said() {
        let local =
            Access { allowed: Access::LOCAL.into(), ..access("", "10.1.0.0/16 10.0.0.0/8") };
        let own = access("127.0.0.0/8 ::1/128 10.0.0.0/8", "10.1.0.0/16");
        let subnets = Access { subnets: true, ..own.clone() };
        let few = access("10.0.0.0/8", "10.2.3.4/32 2001:db8::/64");
        let v6 = "2001:db8:1234:5678:9abc:def0:1234:5678";
        for (access, source, expected) in [
            (&local, "8.8.8.8", "give --allow default with --allow 8.8.8.8/32 or --allow local"),
            (
                &local,
                "::ffff:10.1.2.3",
                "it is in --deny 10.1.0.0/16; --allow default with --allow 10.1.2.3/32 serves it",
            ),
            (&own, "10.1.2.3", "it is in --deny 10.1.0.0/16; --allow 10.1.2.3/32 serves it"),
            (&few, "10.2.3.4", "it is in --deny 10.2.3.4/32"),
            (&few, "2001:db8::7", "it is in --deny 2001:db8::/64"),
            (&own, v6, "give --allow 2001:db8:1234:5678::/64 or --allow local"),
            (&subnets, "8.8.8.8", "give --allow 8.8.8.8/32"),
        ] {
            assert_eq!(access.remedy(source.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_denial_that_takes_nothing_away_is_known() {
        for (allowed, denied, asked, needs) in [
            ("10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", true),
            ("10.0.0.0/8", "11.0.0.0/8", "11.0.0.0/8", false),
            ("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", false),
            ("10.1.0.0/16", "0.0.0.0/0", "0.0.0.0/0", false),
            ("0.0.0.0/0", "::/0", "::/0", false),
            ("0.0.0.0/0 10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", true),
            ("0.0.0.0/0", "10.0.0.0/8 10.1.0.0/16", "10.1.0.0/16", false),
            ("0.0.0.0/0", "10.0.0.0/8 10.1.0.0/16", "10.0.0.0/8", true),
            ("0.0.0.0/0 10.1.0.0/24", "10.0.0.0/8 10.1.0.0/16", "10.1.0.0/16", false),
        ] {
            let access = access(allowed, denied);
            assert_eq!(
                access.needs_denial_of(&prefix(asked)),
                needs,
                "{allowed}; {denied}; {asked}"
            );
        }
        let [local] = prefixes("10.0.0.0/8")[..] else { unreachable!() };
        let rest = Access::LOCAL.into_iter().filter(|prefix| *prefix != local).collect();
        let without = Access { allowed: rest, ..access("", "10.0.0.0/8") };
        assert!(without.is_default() && without.needs_denial_of(&local));
        let subnets = Access { subnets: true, ..access("10.1.0.0/16", "10.0.0.0/8") };
        assert!(!subnets.is_default() && subnets.needs_denial_of(&local));
    }

    #[test]
    fn local_networks_are_served_and_others_are_not() {
        let served = [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.0",
            "100.127.255.255",
            "::ffff:100.64.0.1",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "::ffff:192.168.1.1",
        ];
        let refused = [
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.169.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "2001:db8::1",
            "::",
            "ff02::1",
            "::ffff:8.8.8.8",
        ];
        let local = Access { allowed: Access::LOCAL.into(), ..access("", "") }.served(&[]);
        for address in served {
            assert!(local.contains(address.parse().unwrap()), "{address}");
        }
        for address in refused {
            assert!(!local.contains(address.parse().unwrap()), "{address}");
        }
    }
}
