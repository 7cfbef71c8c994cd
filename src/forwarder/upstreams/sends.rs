//! What was sent on a connection and when.

use std::time::{Duration, Instant};

use super::in_flight::HIGH_MAX;
use crate::forwarder::collections::timeouts::Timeouts;

/// When the queries in flight were sent, by message ID, the oldest first; and which of them have
/// been looked at for being late, and for being overdue.
#[derive(Debug)]
pub(crate) struct Sends {
    /// By message ID; IDs from `ids_max` up have the places behind that.
    waiting: Timeouts,
    ids_max: usize,
    /// Those IDs, each in its place while it waits.
    high: Vec<Option<u16>>,
    /// The oldest that was not looked at for being late; all younger ones were not either.
    next_late: Option<u16>,
    /// The same for being overdue.
    next_overdue: Option<u16>,
}

impl Sends {
    /// IDs are below `ids_max`, a few excepted.
    pub(crate) fn new(ids_max: usize) -> Self {
        let waiting = Timeouts::with_capacity(ids_max + HIGH_MAX);
        Self { waiting, ids_max, high: Vec::new(), next_late: None, next_overdue: None }
    }

    /// Octets that it takes at most.
    pub(crate) const fn octets(ids_max: usize) -> usize {
        Timeouts::octets(ids_max + HIGH_MAX) + HIGH_MAX * size_of::<Option<u16>>()
    }

    pub(crate) fn arm(&mut self, id: u16, now: Instant) {
        self.disarm(id);
        let place =
            if usize::from(id) < self.ids_max { usize::from(id) } else { self.take_high(id) };
        self.waiting.arm(place, now);
        self.next_late.get_or_insert(id);
        self.next_overdue.get_or_insert(id);
    }

    /// Takes it out; returns when it was sent.
    pub(crate) fn disarm(&mut self, id: u16) -> Option<Instant> {
        let place = self.place(id)?;
        let start = self.waiting.start(place)?;
        if self.next_late == Some(id) {
            self.next_late = self.younger(place);
        }
        if self.next_overdue == Some(id) {
            self.next_overdue = self.younger(place);
        }
        self.waiting.disarm(place);
        if place >= self.ids_max {
            self.high[place - self.ids_max] = None;
        }
        Some(start)
    }

    pub(crate) fn is_oldest(&self, id: u16) -> bool {
        self.place(id).is_some_and(|place| self.waiting.is_oldest(place))
    }

    /// When it was sent.
    pub(crate) fn start(&self, id: u16) -> Option<Instant> {
        self.waiting.start(self.place(id)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<(u16, Instant)> {
        self.waiting.oldest().map(|(place, start)| (self.id(place), start))
    }

    /// When the next one is late, among those that were not looked at.
    pub(crate) fn next_late(&self, after: Duration) -> Option<Instant> {
        Some(self.start(self.next_late?)? + after)
    }

    /// One that has waited for `after`, each once.
    pub(crate) fn pop_late(&mut self, now: Instant, after: Duration) -> Option<u16> {
        let id = self.next_late?;
        if now < self.next_late(after)? {
            return None;
        }
        self.next_late = self.younger(self.place(id)?);
        Some(id)
    }

    /// When the next one is overdue, among those that were not looked at.
    pub(crate) fn next_overdue(&self) -> Option<Instant> {
        Some(self.start(self.next_overdue?)? + OVERDUE_AFTER)
    }

    /// One that is overdue, each once.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<u16> {
        let id = self.next_overdue?;
        if now < self.next_overdue()? {
            return None;
        }
        self.next_overdue = self.younger(self.place(id)?);
        Some(id)
    }

    /// All that are overdue are looked at once more.
    pub(crate) fn look_again(&mut self) {
        self.next_overdue = self.oldest().map(|(id, _)| id);
    }

    fn younger(&self, place: usize) -> Option<u16> {
        self.waiting.younger(place).map(|place| self.id(place))
    }

    fn place(&self, id: u16) -> Option<usize> {
        if usize::from(id) < self.ids_max {
            return Some(usize::from(id));
        }
        let high = self.high.iter().position(|other| *other == Some(id));
        high.map(|high| self.ids_max + high)
    }

    fn id(&self, place: usize) -> u16 {
        if place < self.ids_max {
            return place as u16;
        }
        self.high[place - self.ids_max].unwrap_or_default()
    }

    fn take_high(&mut self, id: u16) -> usize {
        let high = self.high.iter().position(Option::is_none).unwrap_or_else(|| {
            self.high.reserve_exact(HIGH_MAX - self.high.len().min(HIGH_MAX));
            self.high.push(None);
            self.high.len() - 1
        });
        self.high[high] = Some(id);
        self.ids_max + high
    }
}

/// As long as a resolver that recurses takes on a bad day: what was lost is to be asked again before its
/// stub gives up.
pub(crate) const OVERDUE_AFTER: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    const LATE: Duration = Duration::from_secs(1);

    #[test]
    fn each_late_one_is_given_once_in_order() {
        let t0 = base();
        let mut sends = Sends::new(8);
        sends.arm(3, t0);
        sends.arm(1, t0 + LATE);
        assert_eq!(sends.next_late(LATE), Some(t0 + LATE));
        assert_eq!(sends.pop_late(t0, LATE), None);
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(3));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), None);
        assert_eq!(sends.next_late(LATE), Some(t0 + 2 * LATE));
        assert_eq!(sends.oldest(), Some((3, t0)), "it still waits");
        assert_eq!(sends.pop_late(t0 + 2 * LATE, LATE), Some(1));
        sends.arm(7, t0 + 2 * LATE);
        assert_eq!(sends.next_late(LATE), Some(t0 + 3 * LATE));
    }

    #[test]
    fn what_was_late_is_overdue_later() {
        let t0 = base();
        let mut sends = Sends::new(8);
        for id in [5, 2, 7] {
            sends.arm(id, t0);
        }
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(5));
        assert_eq!(sends.pop_overdue(t0 + LATE), None);
        assert_eq!(sends.next_overdue(), Some(t0 + OVERDUE_AFTER));
        sends.disarm(2);
        let overdue = |sends: &mut Sends| {
            std::iter::from_fn(|| sends.pop_overdue(t0 + OVERDUE_AFTER)).collect::<Vec<_>>()
        };
        assert_eq!(overdue(&mut sends), [5, 7]);
        assert_eq!((overdue(&mut sends), sends.next_overdue()), (vec![], None));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(7), "the one does not touch the other");
        sends.look_again();
        assert_eq!(overdue(&mut sends), [5, 7]);
    }

    #[test]
    fn high_ids_are_told_apart() {
        let t0 = base();
        let mut sends = Sends::new(8);
        for (n, id) in (0..).zip([60_000, 3, 8, u16::MAX]) {
            sends.arm(id, t0 + n * LATE);
        }
        assert_eq!(sends.oldest(), Some((60_000, t0)));
        assert_eq!(sends.pop_late(t0 + 3 * LATE, LATE), Some(60_000));
        assert_eq!(sends.disarm(60_000), Some(t0));
        assert_eq!(sends.disarm(60_000), None);
        sends.arm(9, t0 + 4 * LATE);
        let late: Vec<_> = std::iter::from_fn(|| sends.pop_late(t0 + 9 * LATE, LATE)).collect();
        assert_eq!(late, [3, 8, u16::MAX, 9]);
        assert_eq!(sends.oldest(), Some((3, t0 + LATE)));
    }

    #[test]
    fn what_is_answered_is_not_late() {
        let t0 = base();
        let mut sends = Sends::new(8);
        for id in 0..4 {
            sends.arm(id, t0);
        }
        assert_eq!(sends.disarm(0), Some(t0));
        assert_eq!(sends.disarm(2), Some(t0));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(1));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(3));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), None);
        assert_eq!(sends.disarm(0), None);
        sends.disarm(1);
        sends.disarm(3);
        assert!(sends.is_empty());
        assert_eq!(sends.next_late(LATE), None);
    }
}
