//! How much of the query table each network holds.

use std::ops::Range;
use std::time::Instant;

use crate::forwarder::collections::boxed::boxed;
use crate::forwarder::network::Network;

/// What networks hold of the query table, so that none can keep the others out.
///
/// Networks are hashed with a seed into a fixed number of buckets: a flood of forged addresses cannot make this
/// grow. Those whose addresses nobody can forge, on streams and on this host, have buckets of their own. Queries are
/// named by their key. Every operation is O(1), except those that look for the heaviest and for the one whose turn
/// is next, which look at all buckets.
#[derive(Debug)]
pub(crate) struct Shares {
    buckets: Box<[Bucket; BUCKETS]>,
    nodes: Vec<Node>,
    /// Queries in buckets of datagrams of other hosts.
    datagrams: usize,
    /// The bucket whose turn is next where few queries may be sent.
    turn: usize,
    seed: u64,
}

/// The bucket that the queries of a network fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketId(u16);

impl BucketId {
    /// The place among those of datagrams of other hosts, below [`Self::REMOTE`]; `None` if it is none of these.
    pub(crate) fn remote(self) -> Option<usize> {
        let place = usize::from(self.0).wrapping_sub(DATAGRAMS.start);
        (place < Self::REMOTE).then_some(place)
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
        Self {
            buckets: boxed(Bucket::default()),
            nodes: Vec::with_capacity(keys),
            datagrams: 0,
            turn: 0,
            seed,
        }
    }

    /// Octets that it takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        size_of::<[Bucket; BUCKETS]>() + keys * size_of::<Node>()
    }

    /// The bucket of the queries that clients of this network send by datagram.
    pub(crate) fn of_datagrams(&self, network: Network) -> BucketId {
        self.of(network, DATAGRAMS)
    }

    /// The bucket of the queries that they send on streams.
    pub(crate) fn of_streams(&self, network: Network) -> BucketId {
        self.of(network, STREAMS)
    }

    /// One of these buckets, or of those of this host.
    fn of(&self, network: Network, buckets: Range<usize>) -> BucketId {
        let buckets = if network.is_loopback() { HOST } else { buckets };
        let place = network.hash(self.seed) % buckets.len() as u64;
        BucketId((buckets.start + place as usize) as u16)
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

    /// Of the networks with a query that waits, as `waits` tells, the one whose turn it is: a query of it. Looks at
    /// the ends of each network's list only.
    pub(crate) fn in_turn(&mut self, waits: impl Fn(usize) -> bool) -> Option<usize> {
        for place in (self.turn..BUCKETS).chain(0..self.turn) {
            let Bucket { oldest, youngest, .. } = self.buckets[place];
            let found = [oldest, youngest].into_iter().flatten().find(|key| waits(*key as usize));
            if let Some(key) = found {
                self.turn = (place + 1) % BUCKETS;
                return Some(key as usize);
            }
        }
        None
    }

    /// Whether two queries are of one network.
    pub(crate) fn are_of_one(&self, key: usize, other: usize) -> bool {
        let bucket = |key: usize| self.nodes.get(key).and_then(|node| node.bucket);
        bucket(key) == bucket(other)
    }

    /// With all `places` of these contenders taken: the query that makes room for one of `newcomer`. `None` if it
    /// has to do without.
    ///
    /// The youngest query goes of the network that holds most. If the oldest went, nothing would live long enough to
    /// be answered. But where there are more networks than anybody serves, as with forged addresses, none of which
    /// holds much, the oldest goes, if it has had its time: `since` tells when it came.
    pub(crate) fn makes_room(
        &self,
        newcomer: BucketId,
        contenders: Contenders,
        places: usize,
        has_had_its_time: impl Fn(Instant) -> bool,
        since: impl Fn(usize) -> Option<Instant>,
    ) -> Option<usize> {
        let own = self.buckets[usize::from(newcomer.0)];
        let contenders = match contenders {
            Contenders::Datagrams => DATAGRAMS,
            Contenders::All => 0..BUCKETS,
        };
        let held = self.buckets[contenders].iter().filter(|bucket| bucket.held > 0);
        let networks = held.clone().count() + usize::from(own.held == 0);
        let heaviest = held.clone().max_by_key(|bucket| bucket.held)?;
        let share = (places / networks) as u32;
        if networks > networks_max(places) && heaviest.held <= MUCH * (share + 1) {
            let oldest = held.filter_map(|bucket| {
                let key = bucket.oldest? as usize;
                Some((since(key)?, key))
            });
            return oldest.min().filter(|(since, _)| has_had_its_time(*since)).map(|(_, key)| key);
        }
        let gives = heaviest.held > own.held && own.held < share;
        heaviest.youngest.filter(|_| gives).map(|key| key as usize)
    }
}

/// Whose queries are compared with those of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contenders {
    /// Those that came by datagram from other hosts.
    Datagrams,
    All,
}

/// So few that the heaviest is found at a glance, so many that a flooding client seldom shares one
/// with another.
const DATAGRAMS: Range<usize> = 0..256;
const STREAMS: Range<usize> = 256..384;
/// So few that accounts of this host, which have all of 127.0.0.0/8 to ask from, cannot pass for so many networks
/// that nobody else has a share; so many that one address seldom shares one with a flood.
const HOST: Range<usize> = STREAMS.end..BUCKETS;
const BUCKETS: usize = 400;

/// What a network holds is much, if it is so many times its share.
const MUCH: u32 = 4;

/// Networks with queries in so many places, all of which are taken, above which most addresses are taken for forged.
fn networks_max(places: usize) -> usize {
    (places / 8).clamp(16, 128)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::forwarder::tests::base;

    fn network(client: &str) -> Network {
        Network::of(client.parse().unwrap())
    }

    #[test]
    fn the_heaviest_gives_up_its_youngest_query() {
        let mut shares = Shares::new(7, 8);
        let (flood, other) = (BucketId(1), BucketId(2));
        let makes_room =
            |shares: &Shares| shares.makes_room(other, Contenders::All, 8, |_| true, |_| None);
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
    fn this_host_is_never_more_networks_than_it_has_buckets() {
        let mut shares = Shares::new(7, 4096);
        for n in 0..4096_u32 {
            let [_, _, upper, lower] = n.to_be_bytes();
            let client = SocketAddr::from(([127, 1, upper, lower], 40_000));
            let own = Network::of(client);
            let bucket = if n % 2 == 0 { shares.of_datagrams(own) } else { shares.of_streams(own) };
            shares.add(n as usize, bucket);
        }
        let other = network("10.0.0.1:53");
        for newcomer in [shares.of_datagrams(other), shares.of_streams(other)] {
            let room = shares.makes_room(newcomer, Contenders::All, 4096, |_| false, |_| None);
            assert!(room.is_some(), "a place for {newcomer:?}");
        }
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
        assert_eq!(shares.makes_room(one, Contenders::All, 8, |_| true, |_| None), None);
        assert_eq!(shares.makes_room(other, Contenders::All, 8, |_| true, |_| None), None);
        // A third network has a share of two.
        assert!(shares.makes_room(BucketId(3), Contenders::All, 8, |_| true, |_| None).is_some());
        for key in 0..8 {
            shares.remove(key);
        }
        assert_eq!(shares.makes_room(one, Contenders::All, 8, |_| true, |_| None), None);
        assert_eq!(shares.datagrams(), 0);
    }

    #[test]
    fn where_networks_are_too_many_the_oldest_goes_that_had_its_time() {
        let base = base();
        let at = |key: usize| base + Duration::from_millis(key as u64);
        // How many buckets hold how many queries each, all of them as many as there are places, and came in this
        // order; who asks; when what had its time had come; which query goes.
        for (buckets, each, newcomer, had_its_time, goes) in [
            (36, 8, 1, 1000, None),
            (37, 8, 1, 1000, Some(0)),
            (37, 8, 3, 1, Some(0)),
            (37, 8, 3, 0, None),
            (128, 8, 1, 1000, None),
            (129, 8, 1, 1000, Some(0)),
            // There are as many networks as places: a new one has no share.
            (144, 1, 200, 1000, Some(0)),
            (144, 1, 7, 1000, Some(0)),
        ] {
            let mut shares = Shares::new(7, 2 * BUCKETS);
            for key in 0..buckets * each {
                shares.add(key, BucketId((1 + key / each) as u16));
            }
            let places = if each == 8 && buckets < 100 { 288 } else { buckets * each };
            let found = shares.makes_room(
                BucketId(newcomer),
                Contenders::Datagrams,
                places,
                |since| since < at(had_its_time),
                |key| Some(at(key)),
            );
            assert_eq!(found, goes, "{buckets} with {each} each, {newcomer}, {had_its_time}");
        }
        // Where one holds much, it gives up its youngest all the same.
        let mut shares = Shares::new(7, 2 * BUCKETS);
        for key in 0..200 {
            shares.add(key, BucketId((1 + key) as u16));
        }
        for key in 200..400 {
            shares.add(key, BucketId(255));
        }
        let makes_room = |newcomer| {
            let contenders = Contenders::Datagrams;
            shares.makes_room(BucketId(newcomer), contenders, 400, |_| true, |key| Some(at(key)))
        };
        assert_eq!([254, 255, 1].map(makes_room), [Some(399), None, None]);
    }

    #[test]
    fn networks_are_served_in_turn() {
        let mut shares = Shares::new(7, 16);
        for key in 0..8 {
            shares.add(key, BucketId(5));
        }
        shares.add(8, BucketId(2));
        shares.add(9, BucketId(300));
        let mut waiting: Vec<usize> = (4..10).collect();
        let mut served = Vec::new();
        while let Some(key) = shares.in_turn(|key| waiting.contains(&key)) {
            waiting.retain(|other| *other != key);
            shares.remove(key);
            served.push(key);
        }
        assert_eq!(served, [8, 7, 9, 6, 5, 4]);
        assert!(shares.are_of_one(0, 3) && !shares.are_of_one(0, 9));
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
            shares.makes_room(BucketId(newcomer), contenders, places, |_| true, |_| None)
        };
        assert_eq!(makes_room(8, Contenders::Datagrams, 4), Some(15));
        for newcomer in [8, 301] {
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
        let mut shares = Shares::new(7, 8);
        (0..8).for_each(|key| shares.add(key, BucketId(300)));
        assert!((0..8).all(|key| shares.note_late(key, 2).is_none()));
    }

    #[test]
    fn networks_and_transports_have_buckets_of_their_own() {
        let shares = Shares::new(7, 8);
        let bucket = |client| shares.of_datagrams(network(client));
        assert_eq!(bucket("[fd00::1]:53"), bucket("[fd00::ffff:1]:53"));
        assert_eq!(bucket("192.168.0.1:53"), bucket("[::ffff:192.168.0.1]:1024"));
        assert_eq!(bucket("127.0.0.1:53").remote(), None);
        assert_ne!(bucket("127.0.0.1:53"), bucket("127.0.0.2:53"));
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
