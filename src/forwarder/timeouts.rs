//! Deadlines of many things that share one duration.

use std::time::{Duration, Instant};

/// A queue of keys in the order in which they started to wait.
///
/// Start times are stored, not deadlines: the duration is an argument of [`Self::next`] and
/// [`Self::pop`], so it may change without reordering. Keys are small and dense (the places of an
/// arena, message IDs); links lie in a vector indexed by them. Every operation is O(1), except
/// [`Self::merge`], which is one pass.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    nodes: Vec<Node>,
    ends: Option<Ends>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    youngest: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// `None`: not armed.
    start: Option<Instant>,
    older: Option<u32>,
    younger: Option<u32>,
}

impl Timeouts {
    /// Starts to wait now, behind all others; starts over if `key` waits already.
    pub(super) fn arm(&mut self, key: usize, now: Instant) {
        self.disarm(key);
        let older = self.ends.map(|ends| ends.youngest);
        self.link(key, now, older, None);
    }

    /// Lets keys wait since the times given, which must ascend, among others that may have started
    /// before and after. Of equal times these come first: they go back to where they were taken from.
    pub(super) fn merge(&mut self, keys: &[(Instant, usize)]) {
        for &(_, key) in keys {
            self.disarm(key);
        }
        let mut older = None;
        let mut younger = self.ends.map(|ends| ends.oldest);
        for &(start, key) in keys {
            while let Some(other) = younger
                && self.nodes[other as usize].start.is_some_and(|at| at < start)
            {
                older = Some(other);
                younger = self.nodes[other as usize].younger;
            }
            self.link(key, start, older, younger);
            older = Some(key as u32);
        }
    }

    /// Stops waiting, if it does.
    pub(super) fn disarm(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        if node.start.take().is_none() {
            return;
        }
        self.len -= 1;
        let Node { older, younger, .. } = *node;
        match (older, younger) {
            (None, None) => self.ends = None,
            (Some(older), None) => {
                self.nodes[older as usize].younger = None;
                self.set_ends(None, Some(older));
            }
            (None, Some(younger)) => {
                self.nodes[younger as usize].older = None;
                self.set_ends(Some(younger), None);
            }
            (Some(older), Some(younger)) => {
                self.nodes[older as usize].younger = Some(younger);
                self.nodes[younger as usize].older = Some(older);
            }
        }
    }

    pub(super) fn is_armed(&self, key: usize) -> bool {
        self.nodes.get(key).is_some_and(|node| node.start.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Since when `key` has waited.
    pub(super) fn start(&self, key: usize) -> Option<Instant> {
        self.nodes.get(key)?.start
    }

    /// What began to wait next after `key`, which waits.
    pub(super) fn younger(&self, key: usize) -> Option<usize> {
        self.nodes.get(key)?.younger.map(|key| key as usize)
    }

    /// What waits longest, and since when.
    pub(super) fn oldest(&self) -> Option<(usize, Instant)> {
        let key = self.ends?.oldest as usize;
        Some((key, self.nodes[key].start?))
    }

    /// When the next one has waited for `after`.
    pub(super) fn next(&self, after: Duration) -> Option<Instant> {
        self.oldest().map(|(_, start)| start + after)
    }

    /// Removes and returns one that has waited for `after`.
    pub(super) fn pop(&mut self, now: Instant, after: Duration) -> Option<usize> {
        let (key, start) = self.oldest()?;
        if now < start + after {
            return None;
        }
        self.disarm(key);
        Some(key)
    }

    fn link(&mut self, key: usize, start: Instant, older: Option<u32>, younger: Option<u32>) {
        debug_assert!(!self.is_armed(key), "{key} is linked once");
        if self.nodes.len() <= key {
            self.nodes.resize(key + 1, Node::default());
        }
        self.nodes[key] = Node { start: Some(start), older, younger };
        self.len += 1;
        let key = key as u32;
        match older {
            Some(older) => self.nodes[older as usize].younger = Some(key),
            None => self.set_ends(Some(key), None),
        }
        match younger {
            Some(younger) => self.nodes[younger as usize].older = Some(key),
            None => self.set_ends(None, Some(key)),
        }
    }

    fn set_ends(&mut self, oldest: Option<u32>, youngest: Option<u32>) {
        let Some(only) = oldest.or(youngest) else {
            return;
        };
        let ends = self.ends.get_or_insert(Ends { oldest: only, youngest: only });
        ends.oldest = oldest.unwrap_or(ends.oldest);
        ends.youngest = youngest.unwrap_or(ends.youngest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Random, base};
    use super::*;

    #[test]
    fn pops_in_order_of_start_and_not_before_time() {
        let t0 = base();
        let second = Duration::from_secs(1);
        let mut timeouts = Timeouts::default();
        timeouts.arm(7, t0);
        timeouts.arm(3, t0 + second);
        timeouts.arm(7, t0 + 2 * second);

        assert_eq!(timeouts.next(second), Some(t0 + 2 * second));
        assert_eq!(timeouts.pop(t0 + second, second), None);
        assert_eq!(timeouts.pop(t0 + 9 * second, second), Some(3));
        assert_eq!(timeouts.pop(t0 + 9 * second, second), Some(7));
        assert_eq!(timeouts.pop(t0 + 9 * second, second), None);
    }

    #[test]
    fn the_duration_may_change_while_keys_wait() {
        let t0 = base();
        let mut timeouts = Timeouts::default();
        timeouts.arm(0, t0);

        assert_eq!(timeouts.pop(t0 + Duration::from_secs(2), Duration::from_secs(4)), None);
        assert_eq!(timeouts.pop(t0 + Duration::from_secs(2), Duration::from_secs(1)), Some(0));
    }

    /// Random operations, against a vector that is sorted after each.
    #[test]
    fn behaves_like_a_sorted_vector() {
        for seed in 0..64 {
            let mut random = Random::new(seed);
            let first = base();
            let mut now = first;
            let mut timeouts = Timeouts::default();
            let mut model: Vec<(Instant, usize)> = Vec::new();
            for _ in 0..500 {
                let key = random.below(20) as usize;
                match random.below(5) {
                    0 | 1 => {
                        model.retain(|&(_, other)| other != key);
                        model.push((now, key));
                        timeouts.arm(key, now);
                    }
                    2 => {
                        model.retain(|&(_, other)| other != key);
                        timeouts.disarm(key);
                    }
                    3 => {
                        let mut keys = [key, (key + 7) % 20, (key + 13) % 20];
                        keys.rotate_left(random.below(3) as usize);
                        let starts = [first, first + (now - first) / 2, first + (now - first) / 2];
                        model.retain(|(_, other)| !keys.contains(other));
                        let back: Vec<_> = starts.into_iter().zip(keys).collect();
                        for (at, key) in back.iter().rev() {
                            let place = model.partition_point(|(other, _)| other < at);
                            model.insert(place, (*at, *key));
                        }
                        timeouts.merge(&back);
                    }
                    _ => {
                        now += Duration::from_millis(random.below(10));
                        let after = Duration::from_millis(random.below(30));
                        let expected = match model.first() {
                            Some(&(start, key)) if start + after <= now => {
                                model.remove(0);
                                Some(key)
                            }
                            _ => None,
                        };
                        assert_eq!(timeouts.pop(now, after), expected, "seed {seed}");
                    }
                }
                assert_eq!(
                    timeouts.oldest(),
                    model.first().map(|&(start, key)| (key, start)),
                    "seed {seed}"
                );
                assert_eq!(timeouts.is_armed(key), model.iter().any(|&(_, other)| other == key));
                assert_eq!(timeouts.is_empty(), model.is_empty());
            }
        }
    }
}
