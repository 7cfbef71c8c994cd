//! Which network a client is in.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What counts as one client wherever something is shared out: places for queries and for connections, and answers
/// that come late.
///
/// An IPv4 address is one. Of IPv6 it is the /56 that a provider gives to a customer, of which one host may take as
/// many addresses as it likes (RFC 8981), but a link-local address by itself, with the interface that it is on, since
/// all neighbours are in one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    /// The first address of the network, IPv4 mapped to IPv6.
    first: u128,
    /// The index of the interface that a link-local address is on, or 0.
    interface: u32,
}

impl Network {
    /// All of loopback as one: what runs on this host.
    pub(crate) const HOST: Self = Self { first: u128::MAX, interface: 0 };

    /// Whether it is an address of loopback.
    pub(crate) fn is_loopback(self) -> bool {
        self.first == Ipv6Addr::LOCALHOST.to_bits() || self.first >> 24 == V4_LOOPBACK
    }

    /// The network, with all of loopback as one.
    pub(crate) fn with_one_host(self) -> Self {
        if self.is_loopback() { Self::HOST } else { self }
    }

    /// The network of a client.
    pub(crate) fn of(client: SocketAddr) -> Self {
        match (client.ip().to_canonical(), client) {
            (IpAddr::V6(v6 @ Ipv6Addr::LOCALHOST), _) => Self { first: v6.to_bits(), interface: 0 },
            (IpAddr::V4(v4), _) => Self { first: v4.to_ipv6_mapped().to_bits(), interface: 0 },
            (IpAddr::V6(v6), SocketAddr::V6(client)) if v6.is_unicast_link_local() => {
                Self { first: v6.to_bits(), interface: client.scope_id() }
            }
            (IpAddr::V6(v6), _) => Self { first: v6.to_bits() & V6_MASK, interface: 0 },
        }
    }

    /// A hash of it that nobody foretells who does not know `seed`. A host chooses the lower half of its link-local
    /// address: with the halves put together before they are stirred, it could choose whose bucket it shares.
    pub(crate) fn hash(self, seed: u64) -> u64 {
        let upper = (self.first >> 64) as u64 ^ seed;
        let lower = self.first as u64 ^ u64::from(self.interface) << 32 ^ seed.rotate_left(32);
        // Every bit of the product's halves depends on both, and on the seed.
        let product = u128::from(upper) * u128::from(lower);
        (product >> 64) as u64 ^ product as u64
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = Ipv6Addr::from_bits(self.first);
        match first.to_canonical() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => write!(f, "{v6}%{}", self.interface),
            _ if *self == Self::HOST => f.write_str("this host"),
            IpAddr::V6(v6) if !self.is_loopback() => write!(f, "{v6}/{V6_LEN}"),
            ip => write!(f, "{ip}"),
        }
    }
}

/// Bits that say which network an IPv6 address is in.
const V6_LEN: u32 = 56;

/// The first bits of 127.0.0.0/8, mapped.
const V4_LOOPBACK: u128 = 0x00ff_ff7f;

const V6_MASK: u128 = u128::MAX << (128 - V6_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::random::Random;

    fn network(client: &str) -> Network {
        Network::of(client.parse().unwrap())
    }

    #[test]
    fn what_is_one_network() {
        for (client, shown) in [
            ("192.0.2.1:53", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:53", "192.0.2.1"),
            ("192.0.2.2:53", "192.0.2.2"),
            ("[2001:db8:0:ff::1]:53", "2001:db8::/56"),
            ("[2001:db8:0:100::1]:53", "2001:db8:0:100::/56"),
            ("[fd00::1]:53", "fd00::/56"),
            ("[fe80::1%2]:53", "fe80::1%2"),
            ("[fe80::1%3]:53", "fe80::1%3"),
            ("[fe80::2%3]:53", "fe80::2%3"),
            ("127.0.0.1:53", "127.0.0.1"),
            ("[::ffff:127.9.9.9]:53", "127.9.9.9"),
            ("[::1]:53", "::1"),
        ] {
            assert_eq!(network(client).to_string(), shown, "{client}");
        }
        assert_eq!(network("[2001:db8::1]:53"), network("[2001:db8:0:ff:1::]:1024"));
        for (client, is_loopback) in
            [("127.9.9.9:53", true), ("[::1]:53", true), ("[::2]:53", false)]
        {
            assert_eq!(network(client).is_loopback(), is_loopback, "{client}");
            let one_host = network(client).with_one_host();
            assert_eq!(one_host == Network::HOST, is_loopback, "{client}");
        }
        assert_ne!(network("[fe80::1%2]:53"), network("[fe80::1%3]:53"));
        assert_eq!(Network::HOST.to_string(), "this host");
    }

    #[test]
    fn nobody_chooses_whose_bucket_it_shares() {
        // Put together, their halves are the same.
        let (one, other) = (network("192.168.1.5:53"), network("[fe80::fe80:fffd:c0a8:105%2]:53"));
        let folded =
            |it: Network| (it.first >> 64) as u64 ^ it.first as u64 ^ u64::from(it.interface) << 32;
        assert_eq!(folded(one), folded(other));
        let buckets =
            |it: Network| (0..64).map(|n| it.hash(Random::new(n).next()) % 256).collect::<Vec<_>>();
        let same =
            buckets(one).iter().zip(buckets(other)).filter(|(one, other)| **one == *other).count();
        assert!(same < 8, "in one bucket with {same} of 64 seeds");
        assert_ne!(network("[fe80::1%2]:53").hash(7), network("[fe80::1%3]:53").hash(7));
    }
}
