//! What was sent on a connection and when.

use std::time::{Duration, Instant};

use super::timeouts::Timeouts;

/// When the queries in flight were sent, by message ID, the oldest first; and which of them have
/// been looked at for being late.
#[derive(Debug, Default)]
pub(super) struct Sends {
    waiting: Timeouts,
    /// The oldest that was not looked at; all younger ones were not either.
    next: Option<u16>,
}

impl Sends {
    pub(super) fn arm(&mut self, id: u16, now: Instant) {
        self.disarm(id);
        self.waiting.arm(usize::from(id), now);
        self.next.get_or_insert(id);
    }

    /// Takes it out; returns when it was sent.
    pub(super) fn disarm(&mut self, id: u16) -> Option<Instant> {
        let start = self.waiting.start(usize::from(id))?;
        if self.next == Some(id) {
            self.next = self.younger(id);
        }
        self.waiting.disarm(usize::from(id));
        Some(start)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn oldest(&self) -> Option<(u16, Instant)> {
        self.waiting.oldest().map(|(id, start)| (id as u16, start))
    }

    /// When the next one has waited for `after`, among those that were not looked at.
    pub(super) fn next_late(&self, after: Duration) -> Option<Instant> {
        self.waiting.start(usize::from(self.next?)).map(|start| start + after)
    }

    /// One that has waited for `after`, each once.
    pub(super) fn pop_late(&mut self, now: Instant, after: Duration) -> Option<u16> {
        let id = self.next?;
        if now < self.next_late(after)? {
            return None;
        }
        self.next = self.younger(id);
        Some(id)
    }

    fn younger(&self, id: u16) -> Option<u16> {
        self.waiting.younger(usize::from(id)).map(|id| id as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    const LATE: Duration = Duration::from_secs(1);

    #[test]
    fn each_late_one_is_given_once_in_order() {
        let t0 = base();
        let mut sends = Sends::default();
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
    fn what_is_answered_is_not_late() {
        let t0 = base();
        let mut sends = Sends::default();
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
