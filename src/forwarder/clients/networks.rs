//! How many connections each address and each network has.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash};
use std::net::{IpAddr, SocketAddr};

use crate::forwarder::network::Network;

/// Connections of clients, counted by address and by network.
#[derive(Debug)]
pub(super) struct Networks {
    by_address: Counts<IpAddr>,
    by_network: Counts<Network>,
    clients_max: usize,
    per_address_max: usize,
    /// Networks of other hosts of which one may have to give way.
    crowds: usize,
}

/// What a client's address and network have of all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) network: Network,
    pub(super) of_network: usize,
    pub(super) of_address: usize,
}

impl Networks {
    /// For so many clients, without ever growing.
    pub(super) fn new(clients_max: usize, per_address_max: usize) -> Self {
        Self {
            by_address: Counts::new(clients_max),
            by_network: Counts::new(clients_max),
            clients_max,
            per_address_max,
            crowds: 0,
        }
    }

    /// Octets that it takes for so many clients.
    pub(super) const fn octets(clients_max: usize) -> usize {
        Counts::<IpAddr>::octets(clients_max) + Counts::<Network>::octets(clients_max)
    }

    /// A client connected.
    pub(super) fn add(&mut self, peer: SocketAddr) {
        let network = Network::of(peer).with_one_host();
        self.by_address.add(peer.ip().to_canonical());
        let held = self.by_network.add(network);
        self.crowds += usize::from(self.is_crowd(network, held));
        self.crowds -= usize::from(self.is_crowd(network, held - 1));
    }

    /// A client is gone.
    pub(super) fn remove(&mut self, peer: SocketAddr) {
        let network = Network::of(peer).with_one_host();
        self.by_address.remove(peer.ip().to_canonical());
        let held = self.by_network.remove(network);
        self.crowds += usize::from(self.is_crowd(network, held));
        self.crowds -= usize::from(self.is_crowd(network, held + 1));
    }

    pub(super) fn holding(&self, peer: SocketAddr) -> Holding {
        let network = Network::of(peer).with_one_host();
        Holding {
            network,
            of_network: self.by_network.count(network),
            of_address: self.by_address.count(peer.ip().to_canonical()),
        }
    }

    /// Whether there may be a network that has to give way to a newcomer, or, if that can only be of this host, to one
    /// of this host, which has nine tenths of the places and takes no more from others.
    pub(super) fn has_crowds(&self, newcomer_is_of_host: bool) -> bool {
        let of_host = self.by_network.count(Network::HOST);
        let weight_of_host = |held| weight(self.clients_max, Network::HOST, held);
        if newcomer_is_of_host {
            self.crowds > 0 && weight_of_host(of_host + 1) == 0
        } else {
            self.crowds > 0 || weight_of_host(of_host) > 1
        }
    }

    /// With two, a network of others gives one to a network that has none.
    fn is_crowd(&self, network: Network, held: usize) -> bool {
        network != Network::HOST && weight(self.clients_max, network, held) > 1
    }

    /// Whether the address or the network has more than it should have while there are no places left: an address
    /// has its limit, a network half of all.
    pub(super) fn is_above(&self, holding: &Holding) -> bool {
        if holding.network == Network::HOST {
            return self.weight(holding) > 0;
        }
        holding.of_address > self.per_address_max || holding.of_network > self.clients_max / 2
    }

    /// Connections of its network that count when it is compared with others.
    pub(super) fn weight(&self, holding: &Holding) -> usize {
        weight(self.clients_max, holding.network, holding.of_network)
    }
}

/// Of this host's own connections only those count that are more than nine tenths of all: the others are left to
/// the network, and it cannot take more from this host.
fn weight(clients_max: usize, network: Network, held: usize) -> usize {
    let own = clients_max - (clients_max / 10).max(1);
    if network == Network::HOST { held.saturating_sub(own) } else { held }
}

impl Holding {
    /// The same with one connection more.
    pub(super) fn with_one_more(self) -> Self {
        Self { of_network: self.of_network + 1, of_address: self.of_address + 1, ..self }
    }
}

/// Counts by key, in a table that does not grow.
#[derive(Debug)]
struct Counts<K>(HashMap<K, usize, BuildHasherDefault<DefaultHasher>>);

impl<K: Copy + Eq + Hash> Counts<K> {
    fn new(keys: usize) -> Self {
        // Twice as many: where removed ones take up the room, a table that is half full makes it free
        // again, and one that is fuller would grow.
        Self(HashMap::with_capacity_and_hasher(2 * keys, BuildHasherDefault::default()))
    }

    const fn octets(keys: usize) -> usize {
        let places = (2 * keys * 8 / 7 + 1).next_power_of_two();
        places * (size_of::<(K, usize)>() + 1) + 16
    }

    fn count(&self, key: K) -> usize {
        self.0.get(&key).copied().unwrap_or_default()
    }

    /// Counts one more; returns how many there are.
    fn add(&mut self, key: K) -> usize {
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count
    }

    /// Counts one less; returns how many there are.
    fn remove(&mut self, key: K) -> usize {
        let left = self.count(key) - 1;
        if left == 0 {
            self.0.remove(&key);
        } else {
            self.0.insert(key, left);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_and_what_is_too_much() {
        // Of 20 places, with 3 for an address; whose connections there are; whether there are crowds; of whom is
        // asked, what its network's connections count, and whether they are too many.
        type Case<'a> = (&'a [(&'a str, usize)], bool, &'a str, usize, bool);
        let cases: [Case<'_>; 14] = [
            (&[], false, "10.0.0.1:1", 0, false),
            (&[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], false, "10.0.0.1:1", 1, false),
            (&[("10.0.0.1:1", 2)], true, "[::ffff:10.0.0.1]:2", 2, false),
            (&[("10.0.0.1:1", 3)], true, "10.0.0.1:1", 3, false),
            (&[("10.0.0.1:1", 4)], true, "10.0.0.1:1", 4, true),
            // A network has half of all, and each of its addresses its limit.
            (&[("[fd00::1]:1", 3), ("[fd00::2]:1", 3)], true, "[fd00::2]:1", 6, false),
            (&[("[fd00::1]:1", 4), ("[fd00::2]:1", 3)], true, "[fd00::1]:1", 7, true),
            (&[("[fd00::1]:1", 4), ("[fd00::2]:1", 3)], true, "[fd00::2]:1", 7, false),
            (
                &[("[fd00::1]:1", 3), ("[fd00::2]:1", 3), ("[fd00::3]:1", 3), ("[fd00::4]:1", 2)],
                true,
                "[fd00::4]:1",
                11,
                true,
            ),
            (&[("[fe80::1%2]:1", 1), ("[fe80::1%3]:1", 1)], false, "[fe80::1%2]:1", 1, false),
            // This host has nine tenths.
            (&[("127.0.0.1:1", 18)], false, "127.0.0.1:1", 0, false),
            (&[("127.0.0.1:1", 9), ("[::1]:1", 10)], false, "127.0.0.1:1", 1, true),
            (&[("127.0.0.1:1", 10), ("[::1]:1", 10)], true, "[::1]:1", 2, true),
            (&[("127.0.0.1:1", 18), ("10.0.0.1:1", 2)], true, "10.0.0.1:1", 2, false),
        ];
        for (connected, crowds, asked, weight, is_above) in cases {
            let mut networks = Networks::new(20, 3);
            let peers = || {
                let each = connected.iter().map(|(peer, count)| (peer.parse().unwrap(), *count));
                each.flat_map(|(peer, count)| std::iter::repeat_n(peer, count))
            };
            peers().for_each(|peer| networks.add(peer));
            assert_eq!(networks.has_crowds(false), crowds, "{connected:?}");
            let are_others =
                connected.iter().any(|(peer, _)| peer.contains("10.") || peer.contains("fd"));
            // Above nine tenths, who connects from this host has no place of others to hope for.
            let has_its_own = networks.by_network.count(Network::HOST) < 18;
            let is_judged = crowds && are_others && has_its_own;
            assert_eq!(networks.has_crowds(true), is_judged, "{connected:?}");
            let holding = networks.holding(asked.parse().unwrap());
            let found = (networks.weight(&holding), networks.is_above(&holding));
            assert_eq!(found, (weight, is_above), "{connected:?}, {asked}");
            peers().for_each(|peer| networks.remove(peer));
            assert!(!networks.has_crowds(false), "{connected:?}");
            assert_eq!(networks.by_address.0.len() + networks.by_network.0.len(), 0);
        }
    }
}
