//! Where queries wait to be sent.

use std::time::Instant;

use crate::forwarder::action::{ROUTES_MAX, RouteIndex, UPSTREAMS_MAX, UpstreamIndex, UpstreamSet};

/// To whom a query goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// To nobody: an answer is expected, or it may not be sent.
    Nowhere,
    /// To any upstream of its route, whichever takes it first.
    Anyone(RouteIndex),
    /// To this upstream.
    Only(UpstreamIndex),
    /// To nobody until an upstream can be used: it waits for an answer on a stalled connection.
    Later,
}

impl Next {
    /// The number of the list of those that wait for the same.
    fn list(self) -> Option<usize> {
        match self {
            Self::Nowhere => None,
            Self::Later => Some(0),
            Self::Anyone(route) => Some(1 + route.index()),
            Self::Only(upstream) => Some(FIRST_ONLY + upstream.index()),
        }
    }

    fn of_list(list: usize) -> Self {
        match list {
            0 => Self::Later,
            1..FIRST_ONLY => Self::Anyone(RouteIndex::new(list - 1)),
            list => Self::Only(UpstreamIndex::new(list - FIRST_ONLY)),
        }
    }
}

/// A list of queries for each destination, those that wait longest first, and a place in at most one of
/// them for each query. Queries are named by their key. Every operation is O(1), except [`Self::merge`],
/// which is one pass.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Rings. The first nodes are their heads: behind each comes the oldest, before it the youngest. The node
    /// of a key is at `LISTS + key`.
    nodes: Vec<Node>,
    lens: [u32; LISTS],
    /// Upstreams whose lists are not empty.
    awaited: UpstreamSet,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Since when the query waits. `None`: it does not, or the node is a head.
    since: Option<Instant>,
    older: u32,
    younger: u32,
    list: u8,
}

impl Waiting {
    /// For the keys below `keys`, without ever growing.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let mut nodes = Vec::with_capacity(LISTS + keys);
        let heads = 0..LISTS as u32;
        nodes.extend(heads.map(|head| Node { older: head, younger: head, ..Node::default() }));
        Self { nodes, lens: [0; LISTS], awaited: UpstreamSet::EMPTY }
    }

    /// Octets that it takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        (LISTS + keys) * size_of::<Node>()
    }

    /// To whom this query goes next.
    pub(crate) fn next(&self, key: usize) -> Next {
        match self.nodes.get(LISTS + key) {
            Some(Node { since: Some(_), list, .. }) => Next::of_list(usize::from(*list)),
            _ => Next::Nowhere,
        }
    }

    /// Has a query wait that does not, behind all others.
    #[inline]
    pub(crate) fn add(&mut self, key: usize, next: Next, since: Instant) {
        if let Some(list) = next.list() {
            self.link(key, list, since, self.nodes[list].older);
        }
    }

    /// Has a query wait behind all others, and nowhere else.
    pub(crate) fn push(&mut self, key: usize, next: Next, since: Instant) {
        self.remove(key);
        self.add(key, next, since);
    }

    /// Has queries wait, and nowhere else, which have waited since the times given, which must ascend, among
    /// others that may have waited for longer or not. Of equal times these come first.
    pub(crate) fn merge(&mut self, keys: &[(Instant, usize)], next: Next) {
        for &(_, key) in keys {
            self.remove(key);
        }
        let Some(list) = next.list() else {
            return;
        };
        let mut older = list as u32;
        for &(since, key) in keys {
            let behind = |older: u32| self.nodes[older as usize].younger;
            while self.nodes[behind(older) as usize].since.is_some_and(|at| at < since) {
                older = behind(older);
            }
            self.link(key, list, since, older);
            older = (LISTS + key) as u32;
        }
    }

    /// The query waits no longer, if it did.
    #[inline]
    pub(crate) fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(LISTS + key) else {
            return;
        };
        if node.since.take().is_none() {
            return;
        }
        let Node { older, younger, list, .. } = *node;
        self.nodes[older as usize].younger = younger;
        self.nodes[younger as usize].older = older;
        let list = usize::from(list);
        self.lens[list] -= 1;
        if list >= FIRST_ONLY && self.lens[list] == 0 {
            self.awaited.remove(UpstreamIndex::new(list - FIRST_ONLY));
        }
    }

    /// What waits longest for this, and since when.
    pub(crate) fn oldest(&self, next: Next) -> Option<(usize, Instant)> {
        let oldest = self.nodes[next.list()?].younger as usize;
        Some((oldest.checked_sub(LISTS)?, self.nodes[oldest].since?))
    }

    /// How many wait for this.
    pub(crate) fn len(&self, next: Next) -> usize {
        next.list().map_or(0, |list| self.lens[list] as usize)
    }

    /// Upstreams that something waits for.
    pub(crate) fn awaited(&self) -> UpstreamSet {
        self.awaited
    }

    /// Puts `key`, which does not wait, right behind the node `older`.
    #[inline]
    fn link(&mut self, key: usize, list: usize, since: Instant, older: u32) {
        debug_assert_eq!(self.next(key), Next::Nowhere, "{key} waits for one thing");
        let place = LISTS + key;
        if self.nodes.len() <= place {
            self.nodes.resize(place + 1, Node::default());
        }
        let younger = std::mem::replace(&mut self.nodes[older as usize].younger, place as u32);
        self.nodes[younger as usize].older = place as u32;
        self.nodes[place] = Node { since: Some(since), older, younger, list: list as u8 };
        self.lens[list] += 1;
        if list >= FIRST_ONLY {
            self.awaited.insert(UpstreamIndex::new(list - FIRST_ONLY));
        }
    }
}

/// The list of those that wait for the first upstream.
const FIRST_ONLY: usize = 1 + ROUTES_MAX;

const LISTS: usize = FIRST_ONLY + UPSTREAMS_MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forwarder::tests::{Random, base};

    const KEYS: usize = 12;

    /// What waits, as plain lists.
    type Model = Vec<(Next, Vec<(Instant, usize)>)>;

    fn list(model: &mut Model, next: Next) -> &mut Vec<(Instant, usize)> {
        let at = model.iter().position(|(other, _)| *other == next).unwrap();
        &mut model[at].1
    }

    fn drop_key(model: &mut Model, key: usize) {
        for (_, keys) in model {
            keys.retain(|(_, other)| *other != key);
        }
    }

    #[test]
    fn it_agrees_with_plain_lists() {
        let base = base();
        let all = [
            Next::Later,
            Next::Anyone(RouteIndex::ALL),
            Next::Only(UpstreamIndex::new(0)),
            Next::Only(UpstreamIndex::new(15)),
        ];
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut waiting = Waiting::with_capacity(KEYS);
            let mut model: Model = all.iter().map(|next| (*next, Vec::new())).collect();
            for _ in 0..100 {
                let key = random.below(KEYS as u64) as usize;
                let next = all[random.below(4) as usize];
                let since = base + Duration::from_millis(random.below(50));
                match random.below(4) {
                    0 => {
                        waiting.remove(key);
                        drop_key(&mut model, key);
                    }
                    1 => {
                        let others = (0..KEYS).filter(|other| (other + key).is_multiple_of(3));
                        let mut merged: Vec<_> = others.map(|other| (since, other)).collect();
                        for (at, other) in &mut merged {
                            *at += Duration::from_millis(*other as u64);
                        }
                        waiting.merge(&merged, next);
                        for (_, other) in &merged {
                            drop_key(&mut model, *other);
                        }
                        let keys = list(&mut model, next);
                        let mut at = 0;
                        for one in merged {
                            at += keys[at..].iter().take_while(|other| other.0 < one.0).count();
                            keys.insert(at, one);
                            at += 1;
                        }
                    }
                    _ => {
                        waiting.push(key, next, since);
                        drop_key(&mut model, key);
                        list(&mut model, next).push((since, key));
                    }
                }
                for (next, keys) in &model {
                    assert_eq!(waiting.len(*next), keys.len(), "seed {seed}");
                    let first = keys.first().map(|(since, key)| (*key, *since));
                    assert_eq!(waiting.oldest(*next), first, "seed {seed}");
                    for (_, key) in keys {
                        assert_eq!(waiting.next(*key), *next, "seed {seed}");
                    }
                    if let Next::Only(upstream) = next {
                        assert_eq!(waiting.awaited().contains(*upstream), !keys.is_empty());
                    }
                }
            }
            for (next, keys) in model {
                for (since, key) in keys {
                    assert_eq!(waiting.oldest(next), Some((key, since)), "seed {seed}");
                    waiting.remove(key);
                    assert_eq!(waiting.next(key), Next::Nowhere);
                }
            }
        }
    }
}
