//! Who is served.

use std::net::{IpAddr, Ipv6Addr};

/// Whether a source address is on this host or its local networks: loopback, private (RFC 1918),
/// link-local or unique local. Everybody else would make this an open resolver (RFC 5625
/// section 6.2), which floods third parties with answers they never asked for.
pub(super) fn is_local(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6 == Ipv6Addr::LOCALHOST || v6.is_unicast_link_local() || v6.is_unique_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "100.64.0.1",
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
