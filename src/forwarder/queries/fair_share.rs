//! How much of the query table each network holds.

use std::ops::Range;

use crate::forwarder::collections::random::Random;
use crate::forwarder::network::Network;

/// What networks hold of the query table, so that none can keep the others out.
///
/// Networks are hashed with a seed into a fixed number of buckets: a flood of forged addresses cannot make this
/// grow. Those whose clients use streams, on which nobody can forge an address, have buckets of their own. Queries are
/// named by their key. Every operation is O(1), except the one that looks for the heaviest, which looks at
/// all buckets.
#[derive(Debug)]
pub(crate) struct Shares {
    buckets: Box<[Bucket; BUCKETS]>,
    nodes: Vec<Node>,
    /// Queries in buckets of datagrams, but that of this host.
    datagrams: usize,
    seed: u64,
}

/// The bucket that the queries of a network fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketId(u16);

impl BucketId {
    /// The place among those of datagrams of other hosts, below [`Self::REMOTE`]; `None` if it is none of these.
    pub(crate) fn remote(self) -> Option<usize> {
        let place = usize::from(self.0);
        DATAGRAMS.contains(&place).then(|| place - DATAGRAMS.start)
    }

    /// Buckets of datagrams of other hosts.
    pub(crate) const REMOTE: usize = DATAGRAMS.end - DATAGRAMS.start;
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    held: u32,
    /// Those of them that were held for long when they were last looked at.
    late: u32,
    youngest: Option<u32>,
    oldest: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    bucket: Option<BucketId>,
    is_late: bool,
    older: Option<u32>,
    younger: Option<u32>,
}

impl Shares {
    /// For the keys below `keys`, without ever growing.
    pub(crate) fn new(seed: u64, keys: usize) -> Self {
        let buckets = Box::new([Bucket::default(); BUCKETS]);
        Self { buckets, nodes: Vec::with_capacity(keys), datagrams: 0, seed }
    }

    /// Octets that it takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        size_of::<[Bucket; BUCKETS]>() + keys * size_of::<Node>()
    }

    /// The bucket of the queries that clients of this network send by datagram.
    pub(crate) fn of_datagrams(&self, network: Network) -> BucketId {
        if network == Network::LOOPBACK {
            return BucketId(HOST);
        }
        self.bucket(network, DATAGRAMS)
    }

    /// The bucket of the queries that they send on streams.
    pub(crate) fn of_streams(&self, network: Network) -> BucketId {
        self.bucket(network, STREAMS)
    }

    fn bucket(&self, network: Network, buckets: Range<usize>) -> BucketId {
        let hash = Random::new(self.seed ^ network.folded()).next() as usize;
        BucketId((buckets.start + hash % buckets.len()) as u16)
    }

    /// How many queries came by datagram from other hosts.
    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// A query came.
    pub(crate) fn add(&mut self, key: usize, bucket: BucketId) {
        if self.nodes.len() <= key {
            self.nodes.resize(key + 1, Node::default());
        }
        self.datagrams += usize::from(bucket.remote().is_some());
        let entry = &mut self.buckets[usize::from(bucket.0)];
        entry.held += 1;
        let older = entry.youngest.replace(key as u32);
        match older {
            Some(older) => self.nodes[older as usize].younger = Some(key as u32),
            None => entry.oldest = Some(key as u32),
        }
        self.nodes[key] = Node { bucket: Some(bucket), is_late: false, older, younger: None };
    }

    /// A query left.
    pub(crate) fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let Some(bucket) = node.bucket.take() else {
            return;
        };
        let Node { is_late, older, younger, .. } = *node;
        self.datagrams -= usize::from(bucket.remote().is_some());
        let entry = &mut self.buckets[usize::from(bucket.0)];
        entry.held -= 1;
        entry.late -= u32::from(is_late);
        match older {
            Some(older) => self.nodes[older as usize].younger = younger,
            None => entry.oldest = younger,
        }
        match younger {
            Some(younger) => self.nodes[younger as usize].older = older,
            None => entry.youngest = older,
        }
    }

    /// A query has been held for long. Returns the oldest of its network if that has more of these than `max`, unless
    /// it has shown that its address is its own.
    pub(crate) fn note_late(&mut self, key: usize, max: usize) -> Option<usize> {
        let node = self.nodes.get_mut(key)?;
        let bucket = node.bucket.filter(|bucket| bucket.remote().is_some())?;
        let entry = &mut self.buckets[usize::from(bucket.0)];
        entry.late += u32::from(!std::mem::replace(&mut node.is_late, true));
        let oldest = entry.oldest.filter(|_| entry.late as usize > max)?;
        Some(oldest as usize)
    }

    /// With all `places` of these contenders taken: the query that makes room for one of `newcomer`. `None` if it
    /// has to do without.
    ///
    /// The youngest query goes of the network that holds most. If the oldest went, nothing would live long enough to
    /// be answered. But where there are more networks than anybody serves, as with forged addresses, none of which
    /// holds much, the oldest goes of one that has its share, if `may_go` says that it has had its time.
    pub(crate) fn makes_room(
        &self,
        newcomer: BucketId,
        contenders: Contenders,
        places: usize,
        may_go: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let own = self.buckets[usize::from(newcomer.0)];
        let contenders = match contenders {
            Contenders::Datagrams => DATAGRAMS,
            Contenders::All => 0..BUCKETS,
        };
        let held = self.buckets[contenders].iter().filter(|bucket| bucket.held > 0);
        let networks = held.clone().count() + usize::from(own.held == 0);
        let heaviest = held.max_by_key(|bucket| bucket.held)?;
        let is_above = heaviest.held > own.held;
        let share = places / networks;
        if is_above && own.held < share as u32 {
            return heaviest.youngest.map(|key| key as usize);
        }
        let gives = if is_above { heaviest } else { &own };
        let oldest = gives.oldest.filter(|_| networks > NETWORKS_MAX)? as usize;
        may_go(oldest).then_some(oldest)
    }
}

/// Whose queries are compared with those of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contenders {
    /// Those that came by datagram from other hosts.
    Datagrams,
    All,
}

/// The bucket of datagrams of this host.
const HOST: u16 = 0;

/// So few that the heaviest is found at a glance, so many that a flooding client seldom shares one
/// with another.
const DATAGRAMS: Range<usize> = 1..256;
const STREAMS: Range<usize> = 256..BUCKETS;
const BUCKETS: usize = 384;

/// Networks with queries in a full table, above which most addresses are taken for forged.
const NETWORKS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn network(client: &str) -> Network {
        Network::of(client.parse().unwrap())
    }

    #[test]
    fn the_heaviest_gives_up_its_youngest_query() {
        let mut shares = Shares::new(7, 8);
        let (flood, other) = (BucketId(1), BucketId(2));
        let makes_room = |shares: &Shares| shares.makes_room(other, Contenders::All, 8, |_| true);
        for key in 0..8 {
            shares.add(key, flood);
        }
        assert_eq!(makes_room(&shares), Some(7));
        shares.remove(7);
        assert_eq!(makes_room(&shares), Some(6));
        shares.remove(5);
        assert_eq!(makes_room(&shares), Some(6));
        shares.remove(6);
        assert_eq!(makes_room(&shares), Some(4));
        shares.add(5, flood);
        assert_eq!(makes_room(&shares), Some(5));
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
        assert_eq!(shares.makes_room(one, Contenders::All, 8, |_| true), None);
        assert_eq!(shares.makes_room(other, Contenders::All, 8, |_| true), None);
        // A third network has a share of two.
        assert!(shares.makes_room(BucketId(3), Contenders::All, 8, |_| true).is_some());
        for key in 0..8 {
            shares.remove(key);
        }
        assert_eq!(shares.makes_room(one, Contenders::All, 8, |_| true), None);
        assert_eq!(shares.datagrams(), 0);
    }

    #[test]
    fn where_networks_are_too_many_who_has_its_share_gives_up_what_had_its_time() {
        // Buckets that hold two queries each, of four and of two hundred places for each; who asks, which queries have
        // had their time, and which goes.
        for (buckets, each, newcomer, had_time, goes) in [
            (NETWORKS_MAX, 2, BucketId(1), true, None),
            (NETWORKS_MAX + 1, 2, BucketId(1), false, None),
            (NETWORKS_MAX + 1, 2, BucketId(1), true, Some(0)),
            (NETWORKS_MAX + 1, 2, BucketId(3), true, Some(4)),
            // There are more networks than places: a new one has no share.
            (NETWORKS_MAX + 1, 1, BucketId(200), false, None),
            (NETWORKS_MAX + 1, 1, BucketId(200), true, Some(NETWORKS_MAX)),
        ] {
            let mut shares = Shares::new(7, 2 * BUCKETS);
            for key in 0..buckets * each {
                shares.add(key, BucketId((1 + key / each) as u16));
            }
            let found =
                shares.makes_room(newcomer, Contenders::Datagrams, buckets * each, |_| had_time);
            assert_eq!(found, goes, "{buckets} with {each} each, {newcomer:?}, {had_time}");
        }
    }

    #[test]
    fn datagrams_contend_among_themselves_or_with_all() {
        let mut shares = Shares::new(7, 64);
        let (stream, datagram) = (BucketId(300), BucketId(9));
        for key in 0..12 {
            shares.add(key, stream);
        }
        for key in 12..16 {
            shares.add(key, datagram);
        }
        assert_eq!(shares.datagrams(), 4);
        let makes_room = |newcomer, contenders, places| {
            shares.makes_room(BucketId(newcomer), contenders, places, |_| true)
        };
        assert_eq!(makes_room(8, Contenders::Datagrams, 4), Some(15));
        for newcomer in [8, 301, HOST] {
            assert_eq!(makes_room(newcomer, Contenders::All, 16), Some(11));
        }
    }

    #[test]
    fn too_many_that_are_late_are_told_of_oldest_first_but_not_of_this_host_or_on_streams() {
        let mut shares = Shares::new(7, 8);
        let (one, other) = (BucketId(1), BucketId(2));
        for (key, bucket) in [one, other, one, one, one].into_iter().enumerate() {
            shares.add(key, bucket);
        }
        let late = [0, 0, 1, 2, 3].map(|key| shares.note_late(key, 2));
        assert_eq!(late, [None, None, None, None, Some(0)]);
        shares.remove(0);
        assert_eq!(shares.note_late(4, 2), Some(2));
        shares.remove(2);
        shares.remove(3);
        shares.add(2, one);
        assert_eq!(shares.note_late(2, 2), None);
        for bucket in [BucketId(HOST), BucketId(300)] {
            let mut shares = Shares::new(7, 8);
            (0..8).for_each(|key| shares.add(key, bucket));
            assert!((0..8).all(|key| shares.note_late(key, 2).is_none()));
        }
    }

    #[test]
    fn networks_and_transports_have_buckets_of_their_own() {
        let shares = Shares::new(7, 8);
        let bucket = |client| shares.of_datagrams(network(client));
        assert_eq!(bucket("[fd00::1]:53"), bucket("[fd00::ffff:1]:53"));
        assert_eq!(bucket("192.168.0.1:53"), bucket("[::ffff:192.168.0.1]:1024"));
        assert_eq!(bucket("127.0.0.1:53"), BucketId(HOST));
        assert_eq!(bucket("127.0.0.1:53").remote(), None);
        let mut distinct: Vec<usize> = (0..64_u8)
            .filter_map(|last| {
                let client = SocketAddr::from(([10, 0, 0, last], 53));
                shares.of_datagrams(Network::of(client)).remote()
            })
            .collect();
        assert_eq!(distinct.len(), 64);
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 40, "{}", distinct.len());
        let stream = shares.of_streams(network("192.168.0.1:53"));
        assert!(STREAMS.contains(&usize::from(stream.0)) && stream.remote().is_none());
    }
}
