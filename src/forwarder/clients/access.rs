//! The addresses that are served.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use crate::forwarder::report::OnceAMinute;

/// Whether a source address is on this host or its local networks: loopback, private (RFC 1918), shared
/// (RFC 6598), link-local or unique local. Everybody else would make this an open resolver (RFC 5625
/// section 6.2), which floods third parties with answers they never asked for.
pub fn is_local(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V4(v4) => {
            // Between a provider and its customers, and in virtual private networks; not routed beyond.
            let is_shared = matches!(v4.octets(), [100, 64..=127, ..]);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => {
            v6 == Ipv6Addr::LOCALHOST || v6.is_unicast_link_local() || v6.is_unique_local()
        }
    }
}

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forwarder::tests::base;

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
        for address in served {
            assert!(is_local(address.parse().unwrap()), "{address}");
        }
        for address in refused {
            assert!(!is_local(address.parse().unwrap()), "{address}");
        }
    }
}
