//! Who is served and how much, as it is written on the command line.

use std::mem;
use std::ops::RangeInclusive;

use super::address::network;
use super::options::whole_number;
use super::sizes::{self, Size};
use crate::forwarder::{Access, AccessDenial, Prefix, Rate};

/// What was given, and the defaults of what was not.
pub(super) struct Served {
    /// None, and no subnets: [`Access::LOCAL`].
    allow: Vec<Prefix>,
    allow_subnets: bool,
    deny: Vec<Prefix>,
    pub(super) denial: AccessDenial,
    /// None: what suits who may ask.
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) rate_prefix: [u8; 2],
    rate_exempt: Vec<Prefix>,
}

impl Served {
    /// Nothing was given yet.
    pub(super) fn new() -> Self {
        Self {
            allow: Vec::new(),
            allow_subnets: false,
            deny: Vec::new(),
            // Answers that nobody may have asked for burden whoever the source says.
            denial: AccessDenial::Drop,
            rate_limit: None,
            // What one customer has: an address, or a network for each of many links (RFC 6177).
            rate_prefix: [32, 56],
            rate_exempt: Vec::new(),
        }
    }

    /// Who may ask, and how much.
    pub(super) fn resolve(&mut self, size: Size) -> (Access, Option<Rate>) {
        let access = self.access();
        let rate = self.rate(&access, size);
        (access, rate)
    }

    pub(super) fn allow(&mut self, value: &str) -> Result<(), String> {
        if value.eq_ignore_ascii_case("local") {
            self.allow_subnets = true;
            return Ok(());
        }
        let places = NETWORKS_MAX - self.deny.len();
        add_network(&mut self.allow, value, places, &self.deny, "is denied by --deny")
    }

    pub(super) fn deny(&mut self, value: &str) -> Result<(), String> {
        let places = NETWORKS_MAX - self.allow.len();
        add_network(&mut self.deny, value, places, &self.allow, "is allowed by --allow")
    }

    pub(super) fn add_rate_exempt(&mut self, value: &str) -> Result<(), String> {
        add_network(&mut self.rate_exempt, value, NETWORKS_MAX, &[], "")
    }

    /// How much each network may ask. Clients of the whole internet are limited unless somebody says
    /// otherwise, and then this host and its local networks are not.
    fn rate(&mut self, access: &Access, size: Size) -> Option<Rate> {
        let mut exempt = mem::take(&mut self.rate_exempt);
        let (per_second, burst) = match self.rate_limit {
            Some(RateLimit::Of { per_second, burst }) => (per_second, burst),
            None if access.is_public() => {
                exempt.extend(Access::LOCAL);
                RATE_DEFAULT
            }
            Some(RateLimit::Off) | None => return None,
        };
        let [v4_len, v6_len] = self.rate_prefix;
        let places = size.of(sizes::RATE_PLACES);
        Some(Rate { per_second, burst, v4_len, v6_len, exempt, places })
    }

    /// Who may ask. Loopback is served unless it is denied by name.
    fn access(&mut self) -> Access {
        let is_default = self.allow.is_empty() && !self.allow_subnets;
        let implied = if is_default { &Access::LOCAL[..] } else { &Access::LOOPBACK };
        let named = |prefix: &&Prefix| self.allow.contains(prefix) || self.deny.contains(prefix);
        let implied: Vec<_> = implied.iter().filter(|prefix| !named(prefix)).copied().collect();
        self.allow.extend(implied);
        Access {
            allowed: mem::take(&mut self.allow),
            denied: mem::take(&mut self.deny),
            subnets: self.allow_subnets,
            denial: self.denial,
        }
    }
}

/// How much each network may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateLimit {
    Off,
    Of { per_second: u32, burst: u32 },
}

/// `QPS`, `QPS/BURST` or `off`.
pub(super) fn rate_limit(value: &str) -> Result<RateLimit, String> {
    if value.eq_ignore_ascii_case("off") {
        return Ok(RateLimit::Off);
    }
    let (per_second, burst) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
    let per_second = whole_number(per_second, &RATES, " queries a second")?;
    let Some(burst) = burst else {
        return Ok(RateLimit::Of { per_second, burst: RATE_BURST * per_second });
    };
    let burst = whole_number(burst, &(1..=RATE_BURST * RATES.end()), " queries at once")?;
    if burst < per_second {
        return Err(format!(
            "fewer at once than in a second are not reached; write {per_second}/{per_second} or more"
        ));
    }
    Ok(RateLimit::Of { per_second, burst })
}

/// The lengths of prefixes, `V4/V6`.
pub(super) fn rate_prefix(value: &str) -> Result<[u8; 2], String> {
    let read = |value: &str, most: u8| value.parse().ok().filter(|len| (1..=most).contains(len));
    let both = value.split_once('/').and_then(|(v4, v6)| Some([read(v4, 32)?, read(v6, 128)?]));
    both.ok_or_else(|| {
        "is no pair of prefix lengths, of IPv4 up to 32 and of IPv6 up to 128; write 32/56".into()
    })
}

/// Adds the network of `value` to `networks`, which may have so many. `others` says `otherwise`.
fn add_network(
    networks: &mut Vec<Prefix>,
    value: &str,
    places: usize,
    others: &[Prefix],
    otherwise: &str,
) -> Result<(), String> {
    let network = network(value)?;
    if others.contains(&network) {
        return Err(format!("{otherwise} {network}; give only one of them"));
    }
    if networks.contains(&network) {
        return Ok(());
    }
    if networks.len() == places {
        let together = if otherwise.is_empty() { "" } else { ", of --allow and --deny together" };
        return Err(format!("is one network too many; give at most {NETWORKS_MAX}{together}"));
    }
    networks.push(network);
    Ok(())
}

/// Networks that are allowed or denied. A look-up takes hardly longer with many, and 1,000 take 200 KB.
pub(super) const NETWORKS_MAX: usize = 1_000;

/// Queries a second.
const RATES: RangeInclusive<u32> = 1..=1_000_000;

/// Seconds' worth of queries at once: a page's names, or what a resolver behind it missed.
const RATE_BURST: u32 = 5;

/// What a public network may ask, a second and at once, if nobody says: more than a household does, and for
/// attacks on others next to nothing.
const RATE_DEFAULT: (u32, u32) = (100, RATE_BURST * 100);

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_errors, config, error};
    use super::*;

    #[test]
    fn who_may_ask() {
        let access = |line: &str| config(line).policy.access;
        let shown = |line: &str| access(line).to_string();
        let local = Access {
            allowed: Access::LOCAL.into(),
            denied: Vec::new(),
            subnets: false,
            denial: AccessDenial::Drop,
        };
        assert_eq!(access(""), local);
        let refused = access("--refuse-denied refused");
        assert_eq!(refused, Access { denial: AccessDenial::Refused, ..local.clone() });
        let subnets = access("--allow local --allow=LOCAL");
        assert_eq!(
            subnets,
            Access { allowed: Access::LOOPBACK.into(), subnets: true, ..local.clone() }
        );
        let denied = access("--deny 10.1.0.0/16");
        assert_eq!(denied, Access { denied: denied.denied.clone(), ..local });
        for (line, expected) in [
            ("--allow 10.0.0.0/8", "10.0.0.0/8, 127.0.0.0/8, ::1/128"),
            (
                "--allow=192.0.2.7 --allow 2001:DB8::1",
                "192.0.2.7/32, 2001:db8::1/128, 127.0.0.0/8, ::1/128",
            ),
            ("--allow ::ffff:10.0.0.0/104 --allow 10.0.0.0/8", "10.0.0.0/8, 127.0.0.0/8, ::1/128"),
            (
                "--deny 10.0.0.1 --deny 10.0.0.1/32 --allow 10.0.0.0/8",
                "10.0.0.0/8, 127.0.0.0/8, ::1/128, but not 10.0.0.1/32",
            ),
            (
                "--allow 10.0.0.0/8 --allow local",
                "10.0.0.0/8, 127.0.0.0/8, ::1/128, the networks of this host's interfaces",
            ),
            // Loopback is denied by name, as all that is served by default.
            ("--allow 0.0.0.0/0 --deny 127.0.0.0/8", "0.0.0.0/0, ::1/128, but not 127.0.0.0/8"),
            ("--allow ::1 --deny ::/0", "::1/128, 127.0.0.0/8, but not ::/0"),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
        let without = shown("--deny 10.0.0.0/8");
        assert!(
            !without.contains("loopback") && without.ends_with("but not 10.0.0.0/8"),
            "{without}"
        );
    }

    #[test]
    fn bad_networks_are_named_with_what_would_be_right() {
        let table = r#"
            10.0.0.1/8      => is an address of that network; write 10.0.0.0/8
            ::ffff:10.0.0.1/104 => is an address of that network; write 10.0.0.0/8
            2001:db8::1/32  => is an address of that network; write 2001:db8::/32
            10.0.0.0/33     => the prefix length "33" is not a number up to 32; write 10.0.0.0/32 for this address
            fd00::/129      => the prefix length "129" is not a number up to 128; write fd00::/128 for this address
            10.0.0.0/       => the prefix length "" is not a number up to 32
            10.0.0.0/-1     => the prefix length "-1" is not a number up to 32
            10.0.0.0/255.0.0.0 => the prefix length "255.0.0.0" is not a number up to 32
            10/8            => is no network; write CIDR, such as 192.168.0.0/16 or fd00::/8
            any             => is no network; write CIDR
            fe80::1%eth0    => is no network; write CIDR
            10.0.0.1:53     => is no network; write CIDR"#;
        for flag in ["--allow", "--deny"] {
            assert_errors(flag, &table.replace('"', "'"));
        }
        assert_errors(
            "",
            "
            --allow 10.0.0.0/8 --deny 10.0.0.0/8 => --deny 10.0.0.0/8: is allowed by --allow 10.0.0.0/8; give only one of them
            --deny ::1 --allow ::1/128 => --allow ::1/128: is denied by --deny ::1/128; give only one of them
            --deny local    => --deny local: is no network; write CIDR
            --allow         => --allow: the value is missing; give a network, such as 192.168.0.0/16, or local
            --deny          => --deny: the value is missing; give a network, such as 192.168.0.0/16
            --refuse-denied yes => --refuse-denied yes: is not known; write drop or refused",
        );
        let networks = |flag: &str, count: usize| -> String {
            let networks = (0..count).map(|number| format!("{flag} fd00::{number}"));
            networks.collect::<Vec<_>>().join(" ")
        };
        let both = networks("--allow", NETWORKS_MAX - 1) + " --deny 10.0.0.1 ";
        config(&format!("{both} --deny 10.0.0.1"));
        let error = error(&(both + "--deny 10.0.0.2"));
        let expected = "--deny 10.0.0.2: is one network too many; give at most 1000, of --allow and --deny together";
        assert_eq!(error, expected);
    }

    #[test]
    fn how_much_they_may_ask() {
        let shown = |line: &str| {
            let rate = config(line).policy.rate?;
            let Rate { per_second, burst, v4_len, v6_len, exempt, places } = rate;
            Some(format!("{per_second}/{burst} {v4_len}/{v6_len} {places} {}", exempt.len()))
        };
        for (line, expected) in [
            ("", None),
            ("--allow 10.1.0.0/16 --allow fd00::/8 --allow fe80::/64 --allow local", None),
            ("--rate-exempt 10.0.0.1", None),
            ("--rate-limit 20", Some("20/100 32/56 4096 0")),
            ("--rate-limit 20/20 --size small", Some("20/20 32/56 256 0")),
            (
                "--rate-limit=1000000/5000000 --rate-prefix 24/48 --size=large",
                Some("1000000/5000000 24/48 16384 0"),
            ),
            (
                "--rate-limit 1 --rate-exempt 10.0.0.1 --rate-exempt 10.0.0.1",
                Some("1/5 32/56 4096 1"),
            ),
            // Of the whole internet, or a part of it.
            ("--allow 0.0.0.0/0", Some("100/500 32/56 4096 9")),
            (
                "--allow 10.0.0.0/8 --allow 2001:db8::/32 --rate-exempt 10.0.0.1",
                Some("100/500 32/56 4096 10"),
            ),
            ("--allow 172.0.0.0/8", Some("100/500 32/56 4096 9")),
            ("--allow ::/0 --rate-limit 7", Some("7/35 32/56 4096 0")),
            ("--allow ::/0 --rate-limit OFF", None),
        ] {
            assert_eq!(shown(line).as_deref(), expected, "{line}");
        }
        let table = "
            --rate-limit 0      => --rate-limit 0: is out of range: 1 to 1000000 queries a second
            --rate-limit 1000001 => --rate-limit 1000001: is out of range: 1 to 1000000 queries a second
            --rate-limit 10/5   => --rate-limit 10/5: fewer at once than in a second are not reached; write 10/10 or more
            --rate-limit 10/0   => --rate-limit 10/0: is out of range: 1 to 5000000 queries at once
            --rate-limit 10/x   => --rate-limit 10/x: is not a number of queries at once; write a whole number from 1
            --rate-limit 10/s   => is not a number of queries at once
            --rate-limit ten    => --rate-limit ten: is not a number of queries a second; write a whole number from 1
            --rate-limit        => --rate-limit: the value is missing; give QPS[/BURST], such as 100/500, or off
            --rate-limit 1 --rate-limit 2 => --rate-limit 2: is given twice
            --rate-prefix 24    => --rate-prefix 24: is no pair of prefix lengths, of IPv4 up to 32 and of IPv6 up to 128; write 32/56
            --rate-prefix 33/56 => --rate-prefix 33/56: is no pair of prefix lengths
            --rate-prefix 0/56  => --rate-prefix 0/56: is no pair of prefix lengths
            --rate-prefix 32/129 => --rate-prefix 32/129: is no pair of prefix lengths
            --rate-exempt 10.0.0.1/8 => --rate-exempt 10.0.0.1/8: is an address of that network; write 10.0.0.0/8
            --rate-exempt all   => --rate-exempt all: is no network; write CIDR";
        assert_errors("", table);
    }
}
