//! Two network namespaces and a path between them that loses packets.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::bench::upstreams::PORT;
use crate::namespace::{self, Namespace, counted, ip};

/// Thousandths of the packets that are lost on the way in, on each side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Loss(u32);

impl Loss {
    pub const NONE: Self = Self(0);

    pub const fn per_mille(share: u32) -> Self {
        Self(share)
    }

    /// Reads a percentage.
    pub fn parse(word: &str) -> Result<Self, String> {
        let (whole, tenths) = word.split_once('.').unwrap_or((word, "0"));
        let per_mille = || {
            Some(
                whole.parse::<u32>().ok()?.checked_mul(10)? + u32::from(tenths.parse::<u8>().ok()?),
            )
        };
        per_mille().filter(|share| *share <= 500 && tenths.len() == 1).map(Self).ok_or_else(|| {
            format!("--loss {word}: give a percentage from 0 to 50, such as 1 or 0.5")
        })
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10.0
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// What is between a forwarder and its upstream.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub loss: Loss,
    /// How long a packet takes, in each direction.
    pub way: Duration,
    /// How senders slow down; `None`: as they do on this machine.
    pub congestion: Option<&'a str>,
}

/// The near side is the forwarder's, with all of its clients; the far side is the upstream's.
pub struct Network {
    near: Namespace,
    far: Namespace,
}

impl Network {
    /// The error is why this machine cannot.
    pub fn new(path: Path<'_>) -> Result<Self, String> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let (near_address, far_address) = (format!("{NEAR}/24"), format!("{}/24", UPSTREAM.ip()));
        near.enter(|| far.connect(INTERFACE, &[&near_address], &[&far_address]));
        let network = Self { near, far };
        let rules = format!(
            "table ip path {{\n chain in {{\n type filter hook input priority 0\n \
             iifname \"{INTERFACE}\" numgen random mod 1000 < {} counter drop\n }}\n}}\n",
            path.loss.0
        );
        for side in [&network.near, &network.far] {
            side.enter(|| {
                // What is lost are packets as they are on a wire, not those that the kernel cuts up later.
                ip(&["link", "set", "dev", INTERFACE, "gso_max_segs", "1"]);
                if !path.way.is_zero() {
                    namespace::delay(INTERFACE, path.way)?;
                }
                if let Some(name) = path.congestion {
                    fs::write(CONGESTION, name).map_err(|error| {
                        let allowed = "net.ipv4.tcp_allowed_congestion_control";
                        format!("{name} is none of {allowed}, or not there: {error}")
                    })?;
                }
                if path.loss == Loss::NONE { Ok(()) } else { namespace::load(&rules) }
            })?;
        }
        Ok(network)
    }

    pub fn near<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        self.near.enter(inside)
    }

    pub fn far<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        self.far.enter(inside)
    }

    /// How many packets were lost so far.
    pub fn lost(&self) -> u64 {
        self.near.enter(counted) + self.far.enter(counted)
    }
}

/// The rules by which senders on this machine slow down, which new namespaces inherit.
pub fn congestion_control() -> String {
    fs::read_to_string(CONGESTION).map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const INTERFACE: &str = "path";
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 1);
pub const UPSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 53, 0, 2)), PORT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_to_a_tenth_of_a_percent() {
        for (word, share) in [("0", 0), ("1", 10), ("0.5", 5), ("50", 500)] {
            assert!(Loss::parse(word) == Ok(Loss(share)), "{word}");
        }
        for word in ["", "-1", "51", "50.1", "1.25", "1.", "4294967296", "429496730"] {
            assert!(Loss::parse(word).is_err(), "{word}");
        }
    }
}
