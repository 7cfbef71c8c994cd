//! Deadlines of many things that share one duration.

use std::time::{Duration, Instant};

/// A queue of keys in the order in which they started to wait.
///
/// Start times are stored, not deadlines: the duration is an argument of [`Self::next`] and
/// [`Self::pop`], so it may change without reordering. Keys are small and dense (the places of an
/// arena, message IDs); links lie in a vector indexed by them. Every operation is O(1).
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    /// A ring: behind the [`HEAD`] comes the oldest, before it the youngest. The node of a key is at
    /// `key + 1`.
    nodes: Vec<Node>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// `None`: not armed, or the head.
    start: Option<Instant>,
    older: u32,
    younger: u32,
}

impl Timeouts {
    /// A queue for the keys below `keys` that never grows.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        Self { nodes: Vec::with_capacity(keys + 1), len: 0 }
    }

    /// Octets that a queue takes for so many keys.
    pub(crate) const fn octets(keys: usize) -> usize {
        (keys + 1) * size_of::<Node>()
    }

    /// Lets `key` wait from now on, behind all others, even if it waits already.
    pub(crate) fn arm(&mut self, key: usize, now: Instant) {
        self.disarm(key);
        let place = key + 1;
        if self.nodes.len() <= place {
            // A head by itself is an empty ring.
            self.nodes.resize(place + 1, Node::default());
        }
        let older = std::mem::replace(&mut self.nodes[HEAD as usize].older, place as u32);
        self.nodes[older as usize].younger = place as u32;
        self.nodes[place] = Node { start: Some(now), older, younger: HEAD };
        self.len += 1;
    }

    /// Lets `key` wait no longer; returns since when it did.
    pub(crate) fn disarm(&mut self, key: usize) -> Option<Instant> {
        let node = self.nodes.get_mut(key + 1)?;
        let start = node.start.take()?;
        let Node { older, younger, .. } = *node;
        self.nodes[older as usize].younger = younger;
        self.nodes[younger as usize].older = older;
        self.len -= 1;
        Some(start)
    }

    pub(crate) fn is_armed(&self, key: usize) -> bool {
        self.start(key).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Since when `key` has waited.
    pub(crate) fn start(&self, key: usize) -> Option<Instant> {
        self.nodes.get(key + 1)?.start
    }

    /// The key that began to wait next after `key`, which waits.
    pub(crate) fn younger(&self, key: usize) -> Option<usize> {
        key_at(self.nodes.get(key + 1)?.younger)
    }

    /// The key that waits longest, and since when.
    pub(crate) fn oldest(&self) -> Option<(usize, Instant)> {
        let key = key_at(self.nodes.first()?.younger)?;
        Some((key, self.start(key)?))
    }

    /// Since when the key waits that began last.
    pub(crate) fn youngest(&self) -> Option<Instant> {
        self.start(key_at(self.nodes.first()?.older)?)
    }

    pub(crate) fn is_oldest(&self, key: usize) -> bool {
        self.nodes.first().is_some_and(|head| key_at(head.younger) == Some(key))
    }

    /// When the next one has waited for `after`.
    pub(crate) fn next(&self, after: Duration) -> Option<Instant> {
        self.oldest().map(|(_, start)| start + after)
    }

    /// Removes and returns the oldest key if it has waited for `after`.
    pub(crate) fn pop(&mut self, now: Instant, after: Duration) -> Option<usize> {
        let (key, start) = self.oldest()?;
        if now < start + after {
            return None;
        }
        self.disarm(key);
        Some(key)
    }
}

/// The key of a node; the head has none.
fn key_at(place: u32) -> Option<usize> {
    (place as usize).checked_sub(1)
}

/// The node between the youngest and the oldest.
const HEAD: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::{Random, base};

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
            let mut now = base();
            let mut timeouts = Timeouts::default();
            let mut model: Vec<(Instant, usize)> = Vec::new();
            for _ in 0..500 {
                let key = random.below(20) as usize;
                match random.below(4) {
                    0 | 1 => {
                        model.retain(|&(_, other)| other != key);
                        model.push((now, key));
                        timeouts.arm(key, now);
                    }
                    2 => {
                        model.retain(|&(_, other)| other != key);
                        timeouts.disarm(key);
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
