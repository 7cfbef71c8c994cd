//! Presets: public resolvers by one word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::suggest::words;
use super::upstream::{UPSTREAM_PORT, UpstreamSpec};

/// A public resolver by one word.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) word: &'static str,
    /// IPv4 and IPv6 in turn: where one family leads nowhere, the next address is of the other (RFC 8305 section 4).
    pub(super) addresses: [IpAddr; 4],
    pub(super) name: &'static str,
}

impl Preset {
    /// The preset of this word.
    pub(super) fn of(word: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.word == word)
    }

    /// The preset that has an upstream at this address.
    pub(super) fn at(ip: IpAddr) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.addresses.contains(&ip))
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = UpstreamSpec> {
        self.addresses.into_iter().map(|ip| UpstreamSpec {
            address: SocketAddr::new(ip, UPSTREAM_PORT),
            name: Some(self.name.into()),
            pins: Box::default(),
            sni: true,
        })
    }
}

/// The words of all presets: "cloudflare, google, quad9 or adguard".
pub(super) fn preset_names() -> String {
    words(PRESETS.iter().map(|preset| preset.word))
}

pub(super) static PRESETS: [Preset; 4] = [
    CLOUDFLARE,
    Preset {
        word: "google",
        addresses: [
            v4(8, 8, 8, 8),
            v6(0x2001_4860_4860_0000_0000_0000_0000_8888),
            v4(8, 8, 4, 4),
            v6(0x2001_4860_4860_0000_0000_0000_0000_8844),
        ],
        name: "dns.google",
    },
    Preset {
        word: "quad9",
        addresses: [
            v4(9, 9, 9, 9),
            v6(0x2620_00fe_0000_0000_0000_0000_0000_00fe),
            v4(149, 112, 112, 112),
            v6(0x2620_00fe_0000_0000_0000_0000_0000_0009),
        ],
        name: "dns.quad9.net",
    },
    Preset {
        word: "adguard",
        addresses: [
            v4(94, 140, 14, 14),
            v6(0x2a10_50c0_0000_0000_0000_0000_0ad1_00ff),
            v4(94, 140, 15, 15),
            v6(0x2a10_50c0_0000_0000_0000_0000_0ad2_00ff),
        ],
        name: "dns.adguard-dns.com",
    },
];

pub(super) const CLOUDFLARE: Preset = Preset {
    word: "cloudflare",
    addresses: [
        v4(1, 1, 1, 1),
        v6(0x2606_4700_4700_0000_0000_0000_0000_1111),
        v4(1, 0, 0, 1),
        v6(0x2606_4700_4700_0000_0000_0000_0000_1001),
    ],
    name: "cloudflare-dns.com",
};

pub(super) const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, upstream_names};
    use crate::config::upstream::upstreams;

    #[test]
    fn presets() {
        let config = config("-u google -u quad9 -u adguard");

        assert_eq!(
            upstream_names(&config),
            [
                "8.8.8.8#dns.google",
                "[2001:4860:4860::8888]#dns.google",
                "8.8.4.4#dns.google",
                "[2001:4860:4860::8844]#dns.google",
                "9.9.9.9#dns.quad9.net",
                "[2620:fe::fe]#dns.quad9.net",
                "149.112.112.112#dns.quad9.net",
                "[2620:fe::9]#dns.quad9.net",
                "94.140.14.14#dns.adguard-dns.com",
                "[2a10:50c0::ad1:ff]#dns.adguard-dns.com",
                "94.140.15.15#dns.adguard-dns.com",
                "[2a10:50c0::ad2:ff]#dns.adguard-dns.com",
            ]
        );
        for preset in &PRESETS {
            for upstream in preset.upstreams() {
                let again = upstreams(&upstream.to_string());
                assert_eq!(again, Ok(vec![upstream]), "the display form is a specification");
            }
        }
    }
}
