//! How many connections each network has.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, Ipv6Addr};

/// Connections of clients, counted by network.
#[derive(Debug)]
pub(super) struct Networks {
    counts: HashMap<IpAddr, usize, BuildHasherDefault<DefaultHasher>>,
    per_address_max: usize,
    /// Networks with more than that.
    crowds: usize,
}

impl Networks {
    /// For so many clients, without ever growing.
    pub(super) fn new(clients_max: usize, per_address_max: usize) -> Self {
        // Twice as many: where removed ones take up the room, a table that is half full makes it free
        // again, and one that is fuller would grow.
        let hasher = BuildHasherDefault::default();
        let counts = HashMap::with_capacity_and_hasher(2 * clients_max, hasher);
        Self { counts, per_address_max, crowds: 0 }
    }

    /// Octets that it takes for so many clients.
    pub(super) const fn octets(clients_max: usize) -> usize {
        let places = (2 * clients_max * 8 / 7 + 1).next_power_of_two();
        places * (size_of::<(IpAddr, usize)>() + 1) + 16
    }

    /// A client connected.
    pub(super) fn add(&mut self, address: IpAddr) {
        let count = self.counts.entry(network(address)).or_default();
        *count += 1;
        let was_above = is_above(address, *count - 1, self.per_address_max);
        self.crowds += usize::from(is_above(address, *count, self.per_address_max) && !was_above);
    }

    /// A client is gone.
    pub(super) fn remove(&mut self, address: IpAddr) {
        let network = network(address);
        let Some(count) = self.counts.get_mut(&network) else {
            return;
        };
        *count -= 1;
        let is_above_now = is_above(address, *count, self.per_address_max);
        self.crowds -=
            usize::from(is_above(address, *count + 1, self.per_address_max) && !is_above_now);
        if *count == 0 {
            self.counts.remove(&network);
        }
    }

    /// How many connections the network of this address has.
    pub(super) fn count(&self, address: IpAddr) -> usize {
        self.counts.get(&network(address)).copied().unwrap_or_default()
    }

    /// Whether some network has more than its limit.
    pub(super) fn has_crowds(&self) -> bool {
        self.crowds > 0
    }
}

/// Whether so many connections are more than this address should have while there are no places left.
pub(super) fn is_above(address: IpAddr, held: usize, limit: usize) -> bool {
    held > limit && !address.to_canonical().is_loopback()
}

/// What counts as one network: an IPv4 address, or the /64 of an IPv6 address, of which one host may have
/// as many as it likes (RFC 8981).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}
