//! What was sent on a connection and when.

use std::time::{Duration, Instant};

use crate::forwarder::collections::timeouts::Timeouts;

/// When the queries in flight were sent, by message ID, the oldest first; and which of them have
/// been looked at for being late, and for being overdue.
///
/// IDs out of the ordinary are not among them: such a query has a SIG(0), so that no copy of it may go out,
/// and it is over with its own time.
#[derive(Debug)]
pub(crate) struct Sends {
    waiting: Timeouts,
    ids_max: usize,
    /// The oldest that was not looked at for being late; all younger ones were not either.
    next_late: Option<u16>,
    /// The same for being overdue.
    next_overdue: Option<u16>,
    /// The oldest that no answer has passed: it was sent after all that were answered.
    expected: Option<u16>,
}

impl Sends {
    /// For IDs below `ids_max`.
    pub(crate) fn new(ids_max: usize) -> Self {
        let waiting = Timeouts::with_capacity(ids_max);
        Self { waiting, ids_max, next_late: None, next_overdue: None, expected: None }
    }

    /// Octets that it takes at most.
    pub(crate) const fn octets(ids_max: usize) -> usize {
        Timeouts::octets(ids_max)
    }

    pub(crate) fn arm(&mut self, id: u16, now: Instant) {
        if usize::from(id) >= self.ids_max {
            return;
        }
        debug_assert!(self.start(id).is_none(), "an ID that waits is not taken again");
        self.waiting.arm(id.into(), now);
        self.next_late.get_or_insert(id);
        self.next_overdue.get_or_insert(id);
        self.expected.get_or_insert(id);
    }

    /// Takes it out, as its answer came, which has passed all that were sent before; returns when it was sent.
    pub(crate) fn take_answered(&mut self, id: u16) -> Option<Instant> {
        let passed = self.expected.and_then(|expected| self.start(expected));
        if passed.is_some_and(|passed| self.start(id).is_some_and(|start| passed <= start)) {
            self.expected = Some(id);
        }
        self.disarm(id)
    }

    /// Takes it out; returns when it was sent.
    pub(crate) fn disarm(&mut self, id: u16) -> Option<Instant> {
        let younger = self.younger(id);
        let start = self.waiting.disarm(id.into())?;
        if self.next_late == Some(id) {
            self.next_late = younger;
        }
        if self.next_overdue == Some(id) {
            self.next_overdue = younger;
        }
        if self.expected == Some(id) {
            self.expected = younger;
        }
        Some(start)
    }

    pub(crate) fn is_oldest(&self, id: u16) -> bool {
        self.waiting.is_oldest(id.into())
    }

    /// When it was sent.
    pub(crate) fn start(&self, id: u16) -> Option<Instant> {
        self.waiting.start(id.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<(u16, Instant)> {
        self.waiting.oldest().map(|(id, start)| (id as u16, start))
    }

    /// When the youngest was sent.
    pub(crate) fn youngest(&self) -> Option<Instant> {
        self.waiting.youngest()
    }

    /// Those that wait, the oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u16> {
        self.onward(self.oldest().map(|(id, _)| id))
    }

    /// When those that no answer has passed were sent, the oldest first.
    pub(crate) fn expected(&self) -> impl Iterator<Item = Instant> {
        self.onward(self.expected).map_while(|id| self.start(id))
    }

    fn onward(&self, first: Option<u16>) -> impl Iterator<Item = u16> {
        std::iter::successors(first, |id| self.younger(*id))
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
        self.next_late = self.younger(id);
        Some(id)
    }

    /// When the next one is overdue, among those that were not looked at: it has waited for `after`.
    pub(crate) fn next_overdue(&self, after: Duration) -> Option<Instant> {
        Some(self.start(self.next_overdue?)? + after)
    }

    /// One that is overdue, each once.
    pub(crate) fn pop_overdue(&mut self, now: Instant, after: Duration) -> Option<u16> {
        let id = self.next_overdue?;
        if now < self.next_overdue(after)? {
            return None;
        }
        self.next_overdue = self.younger(id);
        Some(id)
    }

    /// All that are overdue are looked at once more.
    pub(crate) fn look_again(&mut self) {
        self.next_overdue = self.oldest().map(|(id, _)| id);
    }

    /// The one that was sent next.
    pub(crate) fn younger(&self, id: u16) -> Option<u16> {
        self.waiting.younger(id.into()).map(|id| id as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    const LATE: Duration = Duration::from_secs(1);
    const OVERDUE_AFTER: Duration = Duration::from_millis(1500);

    #[test]
    fn an_answer_passes_what_was_sent_before() {
        let t0 = base();
        let at = |n: u32| t0 + n * LATE;
        let mut sends = Sends::new(8);
        let expected = |sends: &Sends| sends.expected().collect::<Vec<_>>();
        assert!(expected(&sends).is_empty());
        for (n, id) in (0..).zip([3, 1, 4, 5, 6]) {
            sends.arm(id, at(n));
        }
        assert_eq!(expected(&sends), [0, 1, 2, 3, 4].map(at));
        // One is given up, which passes none.
        sends.disarm(1);
        assert_eq!(expected(&sends), [0, 2, 3, 4].map(at));
        sends.take_answered(4);
        assert_eq!(expected(&sends), [3, 4].map(at), "the oldest has a slow name");
        sends.arm(7, at(5));
        assert_eq!(expected(&sends), [3, 4, 5].map(at));
        sends.take_answered(3);
        assert_eq!(expected(&sends), [3, 4, 5].map(at), "its answer came late");
        sends.take_answered(7);
        assert!(expected(&sends).is_empty());
    }

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
        assert_eq!(sends.pop_overdue(t0 + LATE, OVERDUE_AFTER), None);
        assert_eq!(sends.next_overdue(OVERDUE_AFTER), Some(t0 + OVERDUE_AFTER));
        sends.disarm(2);
        let overdue = |sends: &mut Sends| {
            std::iter::from_fn(|| sends.pop_overdue(t0 + OVERDUE_AFTER, OVERDUE_AFTER))
                .collect::<Vec<_>>()
        };
        assert_eq!(overdue(&mut sends), [5, 7]);
        assert_eq!((overdue(&mut sends), sends.next_overdue(OVERDUE_AFTER)), (vec![], None));
        assert_eq!(sends.pop_late(t0 + LATE, LATE), Some(7), "the one does not touch the other");
        sends.look_again();
        assert_eq!(overdue(&mut sends), [5, 7]);
    }

    #[test]
    fn ids_out_of_the_ordinary_have_no_part_in_it() {
        let t0 = base();
        let mut sends = Sends::new(8);
        for id in [7, 8, u16::MAX] {
            sends.arm(id, t0);
        }
        assert_eq!([8, u16::MAX].map(|id| (sends.start(id), sends.disarm(id))), [(None, None); 2]);
        assert_eq!(sends.disarm(7), Some(t0));
        assert!(sends.is_empty());
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
