//! Queries that a retransmission may join.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use crate::forwarder::DatagramPath;
use crate::forwarder::collections::arena::Id;

/// Queries that came by datagram, by the fingerprint of who sent them and of their message ID.
///
/// The last of several with one fingerprint is known: who looks one up must compare.
#[derive(Debug)]
pub(crate) struct Retransmissions {
    seed: u64,
    queries: HashMap<u64, Id, BuildHasherDefault<Fingerprinted>>,
}

impl Retransmissions {
    /// For at most so many queries at a time, without ever growing.
    pub(crate) fn new(seed: u64, queries_max: usize) -> Self {
        // Twice as many: where removed ones take up the room, a table that is half full makes it free
        // again, and one that is fuller would grow.
        let hasher = BuildHasherDefault::default();
        Self { seed, queries: HashMap::with_capacity_and_hasher(2 * queries_max, hasher) }
    }

    /// Octets that it takes for so many queries.
    pub(crate) const fn octets(queries_max: usize) -> usize {
        // Seven eighths of a power of two are used, each with an octet of its own.
        let places = (2 * queries_max * 8 / 7 + 1).next_power_of_two();
        places * (size_of::<(u64, Id)>() + 1) + GROUP
    }

    /// Seeded, so that nobody can prepare collisions.
    pub(crate) fn fingerprint(&self, path: &DatagramPath, id: u16) -> u64 {
        // In few pieces, as each costs, of whole words: the hash takes one at a time.
        let port_and_id = u128::from(path.client.port()) << 16 | u128::from(id);
        let seeded = u128::from(self.seed) << 64 | port_and_id;
        let mut hasher = DefaultHasher::new();
        match path.client.ip() {
            IpAddr::V4(ip) => hasher.write_u128(seeded | u128::from(ip.to_bits()) << 32),
            IpAddr::V6(ip) => {
                hasher.write_u128(seeded);
                hasher.write(&ip.octets());
            }
        }
        hasher.finish()
    }

    pub(crate) fn add(&mut self, fingerprint: u64, query: Id) {
        self.queries.insert(fingerprint, query);
    }

    pub(crate) fn find(&self, fingerprint: u64) -> Option<Id> {
        self.queries.get(&fingerprint).copied()
    }

    /// Forgets the query, unless another one took its place.
    pub(crate) fn remove(&mut self, fingerprint: u64, query: Id) {
        if let Entry::Occupied(entry) = self.queries.entry(fingerprint)
            && *entry.get() == query
        {
            entry.remove();
        }
    }
}

/// Takes a fingerprint as it is: hashing the hash would gain nothing.
#[derive(Debug, Default)]
struct Fingerprinted(u64);

impl Hasher for Fingerprinted {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        debug_assert!(octets.is_empty(), "the keys are u64");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// Octets of its own that the table looks at together, once more at its end.
const GROUP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::arena::Arena;

    #[test]
    fn fingerprints_tell_seeds_clients_and_message_ids_apart() {
        let of = |seed, client: &str, id| {
            let client = client.parse().unwrap();
            let path = DatagramPath { listener: 0, client, local: None, interface: 0 };
            Retransmissions::new(seed, 1).fingerprint(&path, id)
        };
        let base = of(1, "10.0.0.1:53", 7);
        assert_eq!(base, of(1, "10.0.0.1:53", 7));
        let others = [
            of(2, "10.0.0.1:53", 7),
            of(1, "10.0.0.2:53", 7),
            of(1, "10.0.0.1:54", 7),
            of(1, "10.0.0.1:53", 8),
            of(1, "[fd00::1]:53", 7),
            of(1, "[fd00::1]:54", 7),
            of(1, "[fd00::2]:53", 7),
        ];
        let distinct: std::collections::HashSet<u64> = others.into_iter().chain([base]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
    }

    #[test]
    fn who_took_the_place_keeps_it() {
        let mut arena = Arena::with_capacity(2);
        let [first, second] = [(); 2].map(|()| arena.insert(()));
        let mut joinable = Retransmissions::new(1, 2);
        joinable.add(7, first);
        joinable.add(7, second);
        joinable.remove(7, first);
        assert_eq!(joinable.find(7), Some(second));
        joinable.remove(7, second);
        assert_eq!(joinable.find(7), None);
    }
}
