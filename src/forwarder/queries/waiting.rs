//! Where queries wait to be sent.

use std::time::Instant;

use crate::forwarder::action::{UPSTREAMS_MAX, UpstreamIndex, UpstreamSet};

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

/// Upstreams that a query may go to. There is one route, of all upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteIndex(u8);

impl RouteIndex {
    pub(crate) const ALL: Self = Self(0);
}

impl Next {
    /// The number of the list of those that wait for the same.
    fn list(self) -> Option<usize> {
        match self {
            Self::Nowhere => None,
            Self::Later => Some(0),
            Self::Anyone(route) => Some(1 + usize::from(route.0)),
            Self::Only(upstream) => Some(1 + ROUTES_MAX + upstream.index()),
        }
    }

    fn of_list(list: u8) -> Self {
        match usize::from(list) {
            0 => Self::Later,
            list if list <= ROUTES_MAX => Self::Anyone(RouteIndex(list as u8 - 1)),
            list => Self::Only(UpstreamIndex::new(list - 1 - ROUTES_MAX)),
        }
    }
}

/// A list of queries for each destination, those that wait longest first, and a place in at most one of
/// them for each query. Queries are named by their key. Every operation is O(1), except [`Self::merge`],
/// which is one pass.
#[derive(Debug)]
pub(crate) struct Waiting {
    nodes: Vec<Node>,
    lists: [List; LISTS],
    /// Upstreams whose lists are not empty.
    awaited: UpstreamSet,
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    oldest: Option<u32>,
    youngest: Option<u32>,
    len: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Since when the query waits, if it does.
    since: Option<Instant>,
    older: Option<u32>,
    younger: Option<u32>,
    list: u8,
}

impl Waiting {
    /// For the keys below `keys`, without ever growing.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let lists = [List::default(); LISTS];
        Self { nodes: Vec::with_capacity(keys), lists, awaited: UpstreamSet::EMPTY }
    }

    /// Octets that it takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        keys * size_of::<Node>()
    }

    /// To whom this query goes next.
    pub(crate) fn next(&self, key: usize) -> Next {
        match self.nodes.get(key) {
            Some(Node { since: Some(_), list, .. }) => Next::of_list(*list),
            _ => Next::Nowhere,
        }
    }

    /// Has a query wait behind all others, and nowhere else.
    pub(crate) fn push(&mut self, key: usize, next: Next, since: Instant) {
        self.remove(key);
        if let Some(list) = next.list() {
            self.link(key, list, since, self.lists[list].youngest);
        }
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
        let mut older = None;
        for &(since, key) in keys {
            while let Some(next) = self.behind(list, older)
                && self.nodes[next as usize].since.is_some_and(|at| at < since)
            {
                older = Some(next);
            }
            self.link(key, list, since, older);
            older = Some(key as u32);
        }
    }

    /// The query waits no longer, if it did.
    pub(crate) fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        if node.since.take().is_none() {
            return;
        }
        let Node { older, younger, list, .. } = *node;
        let ends = &mut self.lists[usize::from(list)];
        ends.len -= 1;
        match older {
            Some(older) => self.nodes[older as usize].younger = younger,
            None => ends.oldest = younger,
        }
        match younger {
            Some(younger) => self.nodes[younger as usize].older = older,
            None => ends.youngest = older,
        }
        if ends.len == 0
            && let Next::Only(upstream) = Next::of_list(list)
        {
            self.awaited.remove(upstream);
        }
    }

    /// What waits longest for this, and since when.
    pub(crate) fn oldest(&self, next: Next) -> Option<(usize, Instant)> {
        let key = self.lists[next.list()?].oldest? as usize;
        Some((key, self.nodes[key].since?))
    }

    /// How many wait for this.
    pub(crate) fn len(&self, next: Next) -> usize {
        next.list().map_or(0, |list| self.lists[list].len as usize)
    }

    /// Upstreams that something waits for.
    pub(crate) fn awaited(&self) -> UpstreamSet {
        self.awaited
    }

    fn behind(&self, list: usize, older: Option<u32>) -> Option<u32> {
        match older {
            Some(older) => self.nodes[older as usize].younger,
            None => self.lists[list].oldest,
        }
    }

    /// Puts `key`, which does not wait, right behind `older`, or at the front.
    fn link(&mut self, key: usize, list: usize, since: Instant, older: Option<u32>) {
        debug_assert_eq!(self.next(key), Next::Nowhere, "{key} waits for one thing");
        if self.nodes.len() <= key {
            self.nodes.resize(key + 1, Node::default());
        }
        let younger = self.behind(list, older);
        self.nodes[key] = Node { since: Some(since), older, younger, list: list as u8 };
        let ends = &mut self.lists[list];
        ends.len += 1;
        match older {
            Some(older) => self.nodes[older as usize].younger = Some(key as u32),
            None => ends.oldest = Some(key as u32),
        }
        match younger {
            Some(younger) => self.nodes[younger as usize].older = Some(key as u32),
            None => ends.youngest = Some(key as u32),
        }
        if let Next::Only(upstream) = Next::of_list(list as u8) {
            self.awaited.insert(upstream);
        }
    }
}

const ROUTES_MAX: usize = 1;

const LISTS: usize = 1 + ROUTES_MAX + UPSTREAMS_MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forwarder::tests::{Random, base};

    const KEYS: usize = 12;

    /// The same, as plain lists.
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
                        let others = (0..KEYS).filter(|other| (other + key) % 3 == 0);
                        let mut merged: Vec<_> = others.map(|other| (since, other)).collect();
                        for (at, other) in &mut merged {
                            *at += Duration::from_millis(*other as u64);
                        }
                        waiting.merge(&merged, next);
                        merged.iter().for_each(|(_, other)| drop_key(&mut model, *other));
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
