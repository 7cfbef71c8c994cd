//! Who is served and how much, as it is written on the command line.

use std::mem;
use std::ops::RangeInclusive;

use super::Host;
use super::address::network;
use super::numbers::whole_number;
use super::sizes::{self, Size};
use super::suggest;
use crate::forwarder::{Access, AccessDenial, Prefix, Rate, shown_prefixes};

/// What was given, and the defaults of what was not.
pub(super) struct Served {
    host: Host,
    /// None, and no subnets: [`Access::LOCAL`].
    allow: Vec<Prefix>,
    /// [`Access::LOCAL`] besides what was given.
    allow_default: bool,
    allow_subnets: bool,
    deny: Vec<Prefix>,
    pub(super) denial: AccessDenial,
    /// None: what suits who may ask.
    pub(super) rate_limit: Option<RateLimit>,
    /// None: [`RATE_PREFIX_DEFAULT`].
    pub(super) rate_prefix: Option<[u8; 2]>,
    rate_exempt: Vec<Prefix>,
}

impl Served {
    /// Nothing was given yet.
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            allow: Vec::new(),
            allow_default: false,
            allow_subnets: false,
            deny: Vec::new(),
            // Answers that nobody may have asked for burden whoever the source says.
            denial: AccessDenial::Drop,
            rate_limit: None,
            rate_prefix: None,
            rate_exempt: Vec::new(),
        }
    }

    /// Who may ask, and how much, and what of that was surely meant otherwise. `is_public`: others than this host
    /// can ask.
    pub(super) fn resolve(
        &mut self,
        size: Size,
        is_public: bool,
    ) -> (Access, Option<Rate>, Vec<String>) {
        let mut warnings = Vec::new();
        if !is_public && let Some(flag) = self.needs_others() {
            warnings.push(format!(
                "{flag}: changes nothing, as every --listen address is a loopback one, which only this \
                 host reaches; give --listen with another address of this host as well"
            ));
        }
        let mut access = self.access();
        let exempt = shown_prefixes(&self.rate_exempt);
        let rate = self.rate(&access, size);
        // What the log says of who is served is not to name them.
        let idle = without_idle_denials(&mut access);
        if is_public {
            warnings.extend(idle);
            warnings.extend(self.openness(&access, rate.as_ref()));
        }
        if rate.is_none() {
            let flag = match self.rate_prefix.filter(|lengths| *lengths != RATE_PREFIX_DEFAULT) {
                _ if !exempt.is_empty() => format!("--rate-exempt {exempt}"),
                Some([v4, v6]) => format!("--rate-prefix {v4}/{v6}"),
                None => return (access, rate, warnings),
            };
            let why = match self.rate_limit {
                Some(_) => "with --rate-limit off; leave one of them out",
                None => "as there is no limit; give --rate-limit, such as 100/500, as well",
            };
            let comma = if self.rate_limit.is_some() { "" } else { "," };
            warnings.push(format!("{flag}: changes nothing{comma} {why}"));
        }
        (access, rate, warnings)
    }

    /// What is to be said if most of the internet is served.
    fn openness(&self, access: &Access, rate: Option<&Rate>) -> Option<String> {
        let networks = access.open_networks();
        if networks.is_empty() {
            return None;
        }
        let networks = shown_prefixes(&networks);
        Some(match (self.rate_limit, rate) {
            (None, Some(Rate { per_second, burst, .. })) => format!(
                "--allow {networks} without --rate-limit: an open resolver is a tool for attacks on others; \
                 each network may ask {per_second}/{burst}, unless --rate-limit says how much"
            ),
            (_, None) => format!(
                "--allow {networks} with --rate-limit off: an open resolver without a limit is a tool for \
                 attacks on others"
            ),
            _ => return None,
        })
    }

    /// The first network that was given of which none but others than this host can be.
    fn needs_others(&self) -> Option<String> {
        let flags = [("allow", &self.allow), ("deny", &self.deny)];
        let is_other =
            |prefix: &&Prefix| !Access::LOOPBACK.iter().any(|loopback| prefix.is_within(loopback));
        let mut others = flags.into_iter().flat_map(|(flag, networks)| {
            networks.iter().filter(is_other).map(move |network| format!("--{flag} {network}"))
        });
        others.next().or(self.allow_subnets.then(|| "--allow local".into()))
    }

    pub(super) fn allow(&mut self, value: &str) -> Result<(), String> {
        if value.eq_ignore_ascii_case(LOCAL) {
            self.allow_subnets = true;
            return Ok(());
        }
        if value.eq_ignore_ascii_case(DEFAULT) {
            self.allow_default = true;
            return Ok(());
        }
        let network = self.network("--allow", value)?;
        let places = NETWORKS_MAX - self.deny.len();
        add_network(&mut self.allow, network, places, &self.deny, "is denied by --deny")
    }

    pub(super) fn deny(&mut self, value: &str) -> Result<(), String> {
        let network = self.network("--deny", value)?;
        let places = NETWORKS_MAX - self.allow.len();
        add_network(&mut self.deny, network, places, &self.allow, "is allowed by --allow")
    }

    pub(super) fn add_rate_exempt(&mut self, value: &str) -> Result<(), String> {
        let network = self.network("--rate-exempt", value)?;
        add_network(&mut self.rate_exempt, network, NETWORKS_MAX, &[], "")
    }

    fn network(&self, flag: &str, value: &str) -> Result<Prefix, String> {
        network(value).map_err(|problem| {
            let is_interface = (self.host.interface_index)(value).is_some();
            suggest::network(flag, value, is_interface).unwrap_or(problem)
        })
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
        let [v4_len, v6_len] = self.rate_prefix.unwrap_or(RATE_PREFIX_DEFAULT);
        let places = size.of(sizes::RATE_PLACES);
        Some(Rate { per_second, burst, v4_len, v6_len, exempt, places })
    }

    /// Who may ask. Loopback is served unless it is denied by name.
    fn access(&mut self) -> Access {
        let is_default = self.allow_default || self.allow.is_empty() && !self.allow_subnets;
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

/// Removes the networks that are denied, and whose addresses would not be served anyway, or are all the same.
/// What is to be said of them, if there are any: a line for each reason. That this host is served all the same
/// surprises nobody.
fn without_idle_denials(access: &mut Access) -> Vec<String> {
    let idle: Vec<_> =
        access.denied.iter().filter(|denied| !access.needs_denial_of(denied)).copied().collect();
    access.denied.retain(|denied| !idle.contains(denied));
    let served_in = |denied: &[Prefix]| -> Vec<Prefix> {
        let is_in = |prefix: &&Prefix| denied.iter().any(|denied| prefix.is_within(denied));
        access.allowed.iter().filter(is_in).copied().collect()
    };
    let (wider, needless): (Vec<_>, Vec<_>) =
        idle.into_iter().partition(|denied| !served_in(&[*denied]).is_empty());
    let is_loopback =
        |prefix: &Prefix| Access::LOOPBACK.iter().any(|loopback| prefix.is_within(loopback));
    let (of_host, wider): (Vec<_>, Vec<_>) =
        wider.into_iter().partition(|denied| served_in(&[*denied]).iter().all(is_loopback));
    drop(of_host);
    let mut lines = Vec::new();
    if !wider.is_empty() {
        lines.push(format!(
            "--deny {}: takes nothing away: write --allow with what is to be served in its place, as smaller \
             networks in it are served all the same: {}",
            shown_prefixes(&wider),
            shown_prefixes(&served_in(&wider))
        ));
    }
    if !needless.is_empty() {
        lines.push(format!(
            "--deny {}: takes nothing away: nobody in it would be served anyway",
            shown_prefixes(&needless)
        ));
    }
    lines
}

/// `QPS`, `QPS/BURST` or `off`.
pub(super) fn rate_limit(value: &str) -> Result<RateLimit, String> {
    read_rate_limit(value).map_err(|problem| suggest::rate_limit(value).unwrap_or(problem))
}

pub(super) fn read_rate_limit(value: &str) -> Result<RateLimit, String> {
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
        return Err(format!("BURST must be at least QPS; write {per_second}/{per_second} or more"));
    }
    Ok(RateLimit::Of { per_second, burst })
}

/// The lengths of prefixes, `V4/V6`.
pub(super) fn rate_prefix(value: &str) -> Result<[u8; 2], String> {
    let read = |value: &str, most: u8| value.parse().ok().filter(|len| (1..=most).contains(len));
    let both = |a: &str, b: &str| Some([read(a, 32)?, read(b, 128)?]);
    value.split_once('/').and_then(|(v4, v6)| both(v4, v6)).ok_or_else(|| {
        let numbers: Vec<_> =
            value.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        let meant = match numbers[..] {
            [v4, v6] => both(v4, v6).or(both(v6, v4)),
            // As many bits as no IPv4 address has are of an IPv6 address.
            [one] => both(one, "56").or(both("32", one)),
            _ => None,
        };
        let [v4, v6] = meant.unwrap_or(RATE_PREFIX_DEFAULT);
        format!(
            "is no pair of prefix lengths, of IPv4 up to 32 and of IPv6 up to 128; write {v4}/{v6}"
        )
    })
}

/// Adds a network to `networks`, which may have so many. `others` says `otherwise`.
fn add_network(
    networks: &mut Vec<Prefix>,
    network: Prefix,
    places: usize,
    others: &[Prefix],
    otherwise: &str,
) -> Result<(), String> {
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

/// What stands for [`Access::LOCAL`].
const DEFAULT: &str = "default";

/// What stands for the networks of this host's interfaces.
const LOCAL: &str = "local";

/// What one customer has: an address, or a network for each of many links (RFC 6177).
pub(super) const RATE_PREFIX_DEFAULT: [u8; 2] = [32, 56];

/// Queries a second.
pub(super) const RATES: RangeInclusive<u32> = 1..=1_000_000;

/// Seconds' worth of queries at once: a page's names, or what a resolver behind it missed.
pub(super) const RATE_BURST: u32 = 5;

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
            ("--allow 127.0.0.1", "this host alone: 127.0.0.1/32, 127.0.0.0/8, ::1/128"),
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
            (
                "--allow default --allow 203.0.113.0/24",
                "loopback, private, shared (100.64.0.0/10), link-local and unique-local addresses, 203.0.113.0/24",
            ),
            (
                "--allow 10.99.0.2 --deny 10.0.0.0/8 --allow Default",
                "10.99.0.2/32, 127.0.0.0/8, ::1/128, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, fc00::/7 \
                 and 1 more, but not 10.0.0.0/8",
            ),
            // Loopback is denied by name, as all that is served by default.
            ("--allow 0.0.0.0/0 --deny 127.0.0.0/8", "0.0.0.0/0, ::1/128, but not 127.0.0.0/8"),
            ("--allow 10.0.0.0/8 --deny ::1", "10.0.0.0/8, 127.0.0.0/8, but not ::1/128"),
            // Nobody is denied who would be served otherwise.
            ("--allow ::1 --deny ::/0", "this host alone: ::1/128, 127.0.0.0/8"),
            (
                "--allow 10.0.0.0/8 --deny 10.1.0.0/16 --deny 10.1.1.0/24 --deny 0.0.0.0/0",
                "10.0.0.0/8, 127.0.0.0/8, ::1/128, but not 10.1.0.0/16",
            ),
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
            10.0.0.0/8x     => is not a number up to 32; write 10.0.0.0/8
            10.0.0.0        => begins a network; write 10.0.0.0/8, or 10.0.0.0/32 for this address alone
            172.16.0.0      => begins a network; write 172.16.0.0/12, or 172.16.0.0/32 for this address alone
            192.0.2.0       => write 192.0.2.0/24, or
            100.0.0.0       => write 100.0.0.0/8, or
            0.0.0.0         => write 0.0.0.0/0, or 0.0.0.0/32 for
            fd00::          => write fd00::/16, or fd00::/128 for
            fc00::          => write fc00::/7, or
            2001:db8:1::    => write 2001:db8:1::/48, or
            2001:db8::      => write 2001:db8::/32, or
            ::              => write ::/0, or
            ::ffff:10.0.0.0/8 => is an IPv4 address in the form of IPv6, with a length of IPv4; write 10.0.0.0/8
            ::ffff:10.1.2.3/24 => with a length of IPv4; write 10.1.2.0/24
            ::ffff:10.1.2.3/64 => with a length of IPv4; write 10.1.2.3/32
            ::ffff:10.0.0.0 => begins a network; write 10.0.0.0/8, or
            '192.168.1.1 24' => is in another form than CIDR; write 192.168.1.0/24
            '10.1.2.3 255.255.0.0' => write 10.1.0.0/16
            '10.0.0.0 mask 255.0.0.0' => write 10.0.0.0/8
            '10.1.0.0 0.0.255.255' => write 10.1.0.0/16
            '10.0.0.1 53'   => is no network; write CIDR
            10.0.0.0/255.0.0.0 => is in another form than CIDR; write 10.0.0.0/8
            10.1.2.3/255.255.0.0 => write 10.1.0.0/16
            10.0.0.0/0.255.255.255 => write 10.0.0.0/8
            10.0.0.0/255.0.255.0 => the prefix length "255.0.255.0" is not a number up to 32
            fd00::/255.0.0.0 => the prefix length "255.0.0.0" is not a number up to 128
            10/8            => is in another form than CIDR; write 10.0.0.0/8
            10.1/16         => write 10.1.0.0/16
            192.168.        => write 192.168.0.0/16
            192.168.7.*     => write 192.168.7.0/24
            10.*.*.*        => write 10.0.0.0/8
            10.*.7.*        => is no network; write CIDR, such as 192.168.0.0/16 or fd00::/8
            1000/8          => is no network; write CIDR
            [fd00::]/64     => is in another form than CIDR; write fd00::/64
            [fd00::1]       => write fd00::1/128
            [fd00::1]:53    => write fd00::1/128
            fe80::1%eth0    => write fe80::1/128
            10.0.0.1:53     => write 10.0.0.1/32
            10.0.0.1:dns    => is no network; write CIDR
            ' 10.0.0.0/8'   => write 10.0.0.0/8
            '10.0.0.0 /8'   => write 10.0.0.0/8
            lo0:1           => is no network; write CIDR
            nowhere         => is no network; write CIDR
            10.0.0.9-10.0.0.1 => is no network; write CIDR"#;
        for flag in ["--allow", "--deny"] {
            assert_errors(flag, &table.replace('"', "'"));
            let several = "
                10.0.0.0/8,192.168.0.0/16 => is 2 in one; write FLAG 10.0.0.0/8 FLAG 192.168.0.0/16
                '10.0.0.1 fd00::/8; 10/8' => is 3 in one; write FLAG 10.0.0.1/32 FLAG fd00::/8 FLAG 10.0.0.0/8
                10.0.0.1,nowhere => is no network; write CIDR
                10.0.0.1-10.0.0.2 => is 2 in one; write FLAG 10.0.0.1/32 FLAG 10.0.0.2/32
                '10.0.0.1 - 10.0.0.9' => is 4 in one; write FLAG 10.0.0.1/32 FLAG 10.0.0.2/31 FLAG 10.0.0.4/30 FLAG 10.0.0.8/31
                10.0.0.1-254 => is a range; write the network around it, 10.0.0.0/24
                10.0.0.0-10.0.0.255 => is in another form than CIDR; write 10.0.0.0/24
                '10.1 10.2' => is 2 in one; write FLAG 10.1.0.0/16 FLAG 10.2.0.0/16
                '{ 10/8; fd00::/8; }' => is 2 in one; write FLAG 10.0.0.0/8 FLAG fd00::/8
                '10.1.2.3 255.255.0.0, 10.2.2.3 255.255.0.0' => is 2 in one; write FLAG 10.1.0.0/16 FLAG 10.2.0.0/16
                fd00::-fd00::ffff => is in another form than CIDR; write fd00::/112";
            assert_errors(flag, &several.replace("FLAG", flag));
        }
    }

    #[test]
    fn networks_are_not_the_same_to_each_flag() {
        assert_errors(
            "",
            "
            --allow 10.0.0.0/8 --deny 10.0.0.0/8 => --deny 10.0.0.0/8: is allowed by --allow 10.0.0.0/8; give only one of them
            --deny ::1 --allow ::1/128 => --allow ::1/128: is denied by --deny ::1/128; give only one of them
            --deny local    => --deny local: is for --allow; write the networks of this host's interfaces, which `ip address` shows
        --rate-exempt local => is for --allow; write
        --allow 10.0.0.0/0.0.0.0 => write 0.0.0.0/0
        --allow 0.0.0.0-255.255.255.255 => is in another form than CIDR; write 0.0.0.0/0
        --deny 0.0.0.0-255.255.255.255 => is everybody; write --allow with what is to be served
        --allow '10.0.0.0/8 allow' => is in another form than CIDR; write 10.0.0.0/8
        --allow '10.0.0.0/8 deny' => --allow 10.0.0.0/8 deny: write --deny 10.0.0.0/8
        --deny '10.0.0.0/8 refuse_non_local' => is in another form than CIDR; write 10.0.0.0/8
        --allow '10.0.0.0/8; !10.1/16' => is 2 in one; write --allow 10.0.0.0/8 --deny 10.1.0.0/16
        --allow any     => --allow any: is everybody; write --allow 0.0.0.0/0 --allow ::/0
        --allow ALL     => write --allow 0.0.0.0/0 --allow ::/0
        --allow '*'     => write --allow 0.0.0.0/0 --allow ::/0
        --rate-exempt all => write --rate-exempt 0.0.0.0/0 --rate-exempt ::/0
        --deny any      => --deny any: is everybody; write --allow with what is to be served, and nobody else is, loopback aside
        --allow eth0    => --allow eth0: is an interface; write --allow local for the networks of all interfaces, or that of eth0, which `ip address` shows
        --deny eth0     => --deny eth0: is an interface; write its network, which `ip address` shows
        --allow 10.0.0.0/8,local => is 2 in one; write --allow 10.0.0.0/8 --allow local
        --deny 10.0.0.0/8,local => is for --allow; write the networks
        --allow localnets => --allow localnets: is local here; write --allow local
            --allow         => --allow: the value is missing; give a network, such as 192.168.0.0/16, or local
            --deny          => --deny: the value is missing; give a network, such as 192.168.0.0/16
            --refuse-denied yes => --refuse-denied yes: is not known; write drop or refused",
        );
        let networks = |flag: &str, count: usize| -> String {
            let networks = (0..count).map(|number| format!("{flag} fd00::1:{number}"));
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
            ("--allow 10.1.0.0/16 --allow fd00::/8 --allow fe80::/64", None),
            // Neighbours of a host in a provider's network are strangers.
            ("--allow local", Some("100/500 32/56 4096 9")),
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
    }

    #[test]
    fn bad_rates_are_named_with_what_would_be_right() {
        let table = "
            --rate-limit 0      => --rate-limit 0: is out of range: 1 to 1000000 queries a second; write off for no limit
        --rate-limit 00     => write off for no limit
        --rate-limit none   => --rate-limit none: is not known; write off for no limit
        --rate-limit Unlimited => write off for no limit
        --rate-limit 100/s  => --rate-limit 100/s: is in another form than QPS[/BURST]; write 100
        --rate-limit 100qps => write 100
        --rate-limit '100 q/s' => write 100
        --rate-limit 20/second => write 20
        --rate-limit 0/s    => is out of range: 1 to 1000000 queries a second
        --rate-limit 60/min => is a rate of another time than a second; write 1
        --rate-limit 100/minute => write 2
        --rate-limit '5000 per hour' => write 2
        --rate-limit 5000000qps => --rate-limit 5000000qps: is out of range: 1 to 1000000 queries a second
        --rate-limit 99999999999qps => is out of range: 1 to 1000000 queries a second
        --rate-limit 10:99999999 => is out of range: 1 to 5000000 queries at once
        --rate-limit 50:10  => BURST must be at least QPS; write 50/50 or more
        --rate-limit 1,500  => may be read in two ways; write 1500, or 1/500 with a burst
        --rate-limit 10:50  => is in another form than QPS[/BURST]; write 10/50
        --rate-limit 10,50  => write 10/50
            --rate-limit 1000001 => --rate-limit 1000001: is out of range: 1 to 1000000 queries a second
            --rate-limit 100/   => --rate-limit 100/: has no BURST behind the slash; write 100 or 100/500
            --rate-limit 1000001/ => --rate-limit 1000001/: is out of range: 1 to 1000000 queries a second
            --rate-limit 0/     => --rate-limit 0/: is out of range: 1 to 1000000 queries a second
            --rate-limit 10/    => has no BURST behind the slash; write 10 or 10/50
            --rate-limit 10/5   => --rate-limit 10/5: BURST must be at least QPS; write 10/10 or more
            --rate-limit 10/0   => --rate-limit 10/0: is out of range: 1 to 5000000 queries at once
            --rate-limit 10/x   => --rate-limit 10/x: is not a number of queries at once; write a whole number from 1
                --rate-limit ten    => --rate-limit ten: is not a number of queries a second; write a whole number from 1
            --rate-limit        => --rate-limit: the value is missing; give QPS[/BURST], such as 100/500, or off
            --rate-limit 1 --rate-limit 2 => --rate-limit 2: is given twice
            --rate-prefix 24    => --rate-prefix 24: is no pair of prefix lengths, of IPv4 up to 32 and of IPv6 up to 128; write 24/56
        --rate-prefix /24   => write 24/56
        --rate-prefix 64    => write 32/64
        --rate-prefix 24,48 => write 24/48
        --rate-prefix 24:   => write 24/56
        --rate-prefix 56/24 => write 24/56
        --rate-prefix x     => write 32/56
            --rate-prefix 33/56 => --rate-prefix 33/56: is no pair of prefix lengths
            --rate-prefix 0/56  => --rate-prefix 0/56: is no pair of prefix lengths
            --rate-prefix 32/129 => --rate-prefix 32/129: is no pair of prefix lengths
            --rate-exempt 10.0.0.1/8 => --rate-exempt 10.0.0.1/8: is an address of that network; write 10.0.0.0/8";
        assert_errors("", table);
    }

    #[test]
    fn what_changes_nothing_is_warned_of() {
        for (line, expected) in [
            ("", ""),
            ("-l 0.0.0.0:53", ""),
            ("-l 0.0.0.0:53 --deny 10.0.0.0/8 --deny 192.168.7.0/24", ""),
            ("-l 0.0.0.0:53 --allow 127.0.0.0/8 --deny 0.0.0.0/0", ""),
            ("-l 0.0.0.0:53 --allow 2001:db8::/32 --allow 64.0.0.0/2", ""),
            ("-l 0.0.0.0:53 --allow 2000::/3 --deny 2000::/4 --deny 3000::/5", ""),
            ("-l 0.0.0.0:53 --allow 10.0.0.0/8 --deny 127.0.0.0/8 --deny ::1", ""),
            ("-l 0.0.0.0:53 --allow 0.0.0.0/0 --rate-limit 100", ""),
            ("-l 0.0.0.0:53 --allow local --deny 0.0.0.0/0", ""),
            ("--rate-limit 100 --rate-prefix 24/56 --rate-exempt 127.0.0.0/8", ""),
            ("--deny 127.0.0.2", ""),
            ("--allow ::1 --deny 127.0.0.0/8", ""),
            ("--allow 0.0.0.0/0 --rate-limit off", "--allow 0.0.0.0/0: changes nothing, as every"),
            (
                "--allow 127.0.0.0/8 --allow local",
                "--allow local: changes nothing, as every --listen",
            ),
            (
                "-l [::1]:53 --deny 10.0.0.0/8",
                "--deny 10.0.0.0/8: changes nothing, as every --listen address is a loopback one",
            ),
            (
                "-l 0.0.0.0:53 --allow ::/0 --rate-limit off",
                "--allow ::/0 with --rate-limit off: an open resolver without a limit is a tool",
            ),
            (
                "-l 127.0.0.1 -l 10.0.0.1:53 --deny 0.0.0.0/0",
                "--deny 0.0.0.0/0: takes nothing away: write --allow with what is to be served in its place, \
                 as smaller networks in it are served all the same: 127.0.0.0/8, 10.0.0.0/8,",
            ),
            (
                "-l 0.0.0.0:53 --allow 10.1.0.0/16 --deny 10.0.0.0/8 --deny 9.0.0.0/8 --allow 9.1.0.0/16",
                "--deny 10.0.0.0/8, 9.0.0.0/8: takes nothing away: write --allow with what is to be served in \
                 its place, as smaller networks in it are served all the same: 10.1.0.0/16, 9.1.0.0/16",
            ),
            (
                "-l 0.0.0.0:53 --allow 10.1.0.0/16 --deny 11.0.0.0/8",
                "--deny 11.0.0.0/8: takes nothing away: nobody in it would be served anyway",
            ),
            (
                "--rate-exempt 10.0.0.1 --rate-prefix 24/48",
                "--rate-exempt 10.0.0.1/32: changes nothing, as there is no limit; give --rate-limit, such",
            ),
            (
                "--rate-prefix 24/48 --rate-limit off",
                "--rate-prefix 24/48: changes nothing with --rate-limit off; leave one of them out",
            ),
        ] {
            let warnings = config(line).warnings;
            assert_eq!(warnings.len(), usize::from(!expected.is_empty()), "{line}: {warnings:?}");
            assert!(warnings.concat().starts_with(expected), "{line}: {warnings:?}");
        }
    }

    #[test]
    fn an_open_resolver_is_warned_of_however_it_is_written() {
        for (line, expected) in [
            (
                "-l 0.0.0.0:53 --allow 0.0.0.0/0",
                "--allow 0.0.0.0/0 without --rate-limit: an open resolver is a tool for attacks on others; each \
                 network may ask 100/500, unless",
            ),
            ("-l 0.0.0.0:53 --allow 2000::/3", "--allow 2000::/3 without --rate-limit: an open"),
            (
                "-l 0.0.0.0:53 --allow 0.0.0.0/1 --allow 128.0.0.0/1 --allow 10.0.0.0/8 --rate-limit off",
                "--allow 0.0.0.0/1, 128.0.0.0/1 with --rate-limit off: an open resolver without",
            ),
        ] {
            let warnings = config(line).warnings;
            assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
            assert!(warnings[0].starts_with(expected), "{line}: {warnings:?}");
        }
    }

    #[test]
    fn denials_that_take_nothing_away_have_a_line_for_each_reason() {
        let public = "-l 0.0.0.0:53 ";
        let two = "--allow 10.1.0.0/16 --deny 10.0.0.0/8 --deny 11.0.0.0/8";
        let warnings = config(&format!("{public}{two}")).warnings;
        let begins = |warning: &String, with: &str| warning.starts_with(with);
        assert!(
            warnings.len() == 2
                && begins(&warnings[0], "--deny 10.0.0.0/8: takes nothing away: write --allow")
                && begins(&warnings[1], "--deny 11.0.0.0/8: takes nothing away: nobody in it"),
            "{warnings:?}"
        );
        let many: String =
            (0..900).map(|n| ["--deny fd00::1:", &n.to_string(), " "].concat()).collect();
        let warnings = config(&format!("{public}{many} --allow 10.0.0.0/8")).warnings.concat();
        assert!(warnings.contains(" and 892 more: takes nothing away"), "{warnings}");
    }
}
