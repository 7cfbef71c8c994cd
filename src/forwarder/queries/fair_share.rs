//! How much of the query table each client holds.

use std::net::IpAddr;

use crate::forwarder::collections::random::Random;

/// What clients hold of the query table, so that one client cannot keep the others out.
///
/// A client here is its IPv4 address or IPv6 /64, hashed with a seed into a fixed number of
/// buckets: a flood of spoofed addresses cannot make this grow. Queries are named by their key.
/// Every operation is O(1), except the one that looks for the heaviest, which looks at all buckets.
#[derive(Debug)]
pub(crate) struct Shares {
    buckets: Box<[Bucket; BUCKETS]>,
    nodes: Vec<Node>,
    /// Buckets that hold a query.
    active: usize,
    seed: u64,
}

/// The bucket that a client falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketId(u8);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    held: usize,
    youngest: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    bucket: Option<BucketId>,
    older: Option<u32>,
    younger: Option<u32>,
}

impl Shares {
    /// For the keys below `keys`, without ever growing.
    pub(crate) fn new(seed: u64, keys: usize) -> Self {
        let buckets = Box::new([Bucket::default(); BUCKETS]);
        Self { buckets, nodes: Vec::with_capacity(keys), active: 0, seed }
    }

    /// Octets that it takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        size_of::<[Bucket; BUCKETS]>() + keys * size_of::<Node>()
    }

    pub(crate) fn bucket(&self, client: IpAddr) -> BucketId {
        let network = match client.to_canonical() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        BucketId(Random::new(self.seed ^ network).next() as u8)
    }

    /// A query came.
    pub(crate) fn add(&mut self, key: usize, bucket: BucketId) {
        let entry = &mut self.buckets[usize::from(bucket.0)];
        if entry.held == 0 {
            self.active += 1;
        }
        entry.held += 1;
        if self.nodes.len() <= key {
            self.nodes.resize(key + 1, Node::default());
        }
        let older = entry.youngest.replace(key as u32);
        self.nodes[key] = Node { bucket: Some(bucket), older, younger: None };
        if let Some(older) = older {
            self.nodes[older as usize].younger = Some(key as u32);
        }
    }

    /// A query left.
    pub(crate) fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let Some(bucket) = node.bucket.take() else {
            return;
        };
        let Node { older, younger, .. } = *node;
        if let Some(older) = older {
            self.nodes[older as usize].younger = younger;
        }
        let entry = &mut self.buckets[usize::from(bucket.0)];
        match younger {
            Some(younger) => self.nodes[younger as usize].older = older,
            None => entry.youngest = older,
        }
        entry.held -= 1;
        if entry.held == 0 {
            self.active -= 1;
        }
    }

    /// With the table full: the query that makes room for one of `newcomer`. `None` if the newcomer
    /// holds its share already.
    ///
    /// The youngest query goes of the client that holds most. If the oldest went, nothing would live long enough
    /// to be answered.
    pub(crate) fn heaviest(&self, newcomer: BucketId, table_len: usize) -> Option<usize> {
        let own = self.buckets[usize::from(newcomer.0)].held;
        let clients = self.active + usize::from(own == 0);
        if own + 1 > table_len / clients {
            return None;
        }
        let heaviest = self.buckets.iter().max_by_key(|bucket| bucket.held)?;
        if heaviest.held <= own {
            return None;
        }
        heaviest.youngest.map(|key| key as usize)
    }
}

/// So few that the heaviest is found at a glance, so many that a flooding client seldom shares one
/// with another.
const BUCKETS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_gives_up_its_youngest_query() {
        let mut shares = Shares::new(7, 8);
        let (flood, other) = (BucketId(1), BucketId(2));
        for key in 0..8 {
            shares.add(key, flood);
        }
        assert_eq!(shares.heaviest(other, 8), Some(7));
        shares.remove(7);
        assert_eq!(shares.heaviest(other, 8), Some(6));
        shares.remove(5);
        assert_eq!(shares.heaviest(other, 8), Some(6));
        shares.remove(6);
        assert_eq!(shares.heaviest(other, 8), Some(4));
        shares.add(5, flood);
        assert_eq!(shares.heaviest(other, 8), Some(5));
    }

    #[test]
    fn who_holds_its_share_gets_no_more() {
        let mut shares = Shares::new(7, 8);
        let (one, other) = (BucketId(1), BucketId(2));
        for key in 0..4 {
            shares.add(key, one);
        }
        for key in 4..8 {
            shares.add(key, other);
        }
        assert_eq!(shares.heaviest(one, 8), None);
        assert_eq!(shares.heaviest(other, 8), None);
        // A third client has a share of two.
        assert!(shares.heaviest(BucketId(3), 8).is_some());
        for key in 0..8 {
            shares.remove(key);
        }
        assert_eq!(shares.active, 0);
        assert_eq!(shares.heaviest(one, 8), None);
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        let shares = Shares::new(7, 8);
        let bucket = |text: &str| shares.bucket(text.parse().unwrap());
        assert_eq!(bucket("fd00::1"), bucket("fd00::ffff:1"));
        assert_eq!(bucket("192.168.0.1"), bucket("::ffff:192.168.0.1"));
        let distinct: std::collections::HashSet<u8> =
            (0..64).map(|last| bucket(&format!("10.0.0.{last}")).0).collect();
        assert!(distinct.len() > 40, "{}", distinct.len());
    }
}
