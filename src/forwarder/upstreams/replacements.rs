//! How often connections are replaced that still serve.

use std::time::{Duration, Instant};

/// When an upstream's connection was last replaced, and how long the next one serves at least: twice as
/// long each time that this is soon again, or clients could have a handshake made for every few queries.
#[derive(Debug, Default)]
pub(crate) struct Replacements {
    last: Option<(Instant, Duration)>,
}

impl Replacements {
    /// Whether another may be made by now.
    pub(crate) fn allow_one(&self, now: Instant) -> bool {
        self.next().is_none_or(|at| now >= at)
    }

    /// From when on another may be made, if one was.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.last.map(|(at, pause)| at + pause)
    }

    /// One is made.
    pub(crate) fn note(&mut self, now: Instant) {
        let soon = self.last.filter(|(at, pause)| now < *at + SOON * *pause);
        let pause = soon.map_or(PAUSE_MIN, |(_, pause)| (2 * pause).min(PAUSE_MAX));
        self.last = Some((now, pause));
    }
}

pub(crate) const PAUSE_MIN: Duration = Duration::from_secs(2);

const PAUSE_MAX: Duration = Duration::from_secs(64);

/// Within so many pauses it is soon again; after that all is well.
const SOON: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn the_pause_doubles_while_replacements_follow_each_other_and_no_longer() {
        let t0 = base();
        let mut replacements = Replacements::default();
        assert!(replacements.allow_one(t0));
        // When each is made, in seconds, and how long none follows.
        let made = [(0, 2), (2, 4), (6, 8), (14, 16), (77, 32), (205, 2), (213, 2), (220, 4)];
        for (at, pause) in made {
            let at = t0 + Duration::from_secs(at);
            assert!(replacements.allow_one(at));
            replacements.note(at);
            let pause = Duration::from_secs(pause);
            assert!(!replacements.allow_one(at + pause * 99 / 100), "{pause:?}");
            assert!(replacements.allow_one(at + pause), "{pause:?}");
        }
    }

    #[test]
    fn the_pause_has_an_end() {
        let mut now = base();
        let mut replacements = Replacements::default();
        for _ in 0..20 {
            replacements.note(now);
            now += PAUSE_MAX;
        }
        assert!(replacements.allow_one(now));
    }
}
