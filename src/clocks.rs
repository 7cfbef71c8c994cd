//! What the clocks of the machine say beside the time that the loop counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Notices from one look to the next what happened to the clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    suspended: Drift,
    set: Drift,
}

/// Something that happened to the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// The machine was suspended. `CLOCK_MONOTONIC`, which measures deadlines, stands still meanwhile;
    /// `CLOCK_BOOTTIME` goes on. After that no connection can be trusted: servers and NATs have
    /// forgotten it, and nobody told us.
    Suspended,
    /// The time of day was set: certificates may have become valid, or invalid.
    Set,
}

impl Clocks {
    /// What happened since the last look; of both, the one that weighs more.
    pub(crate) fn look(&mut self) -> Option<Happened> {
        self.compare(now(), since_start(ClockId::Boottime), since_start(ClockId::Monotonic))
    }

    /// `time` counts from 1970, the others from the start of the machine.
    fn compare(
        &mut self,
        time: Duration,
        boottime: Duration,
        monotonic: Duration,
    ) -> Option<Happened> {
        let was_suspended = self.suspended.note(boottime, monotonic);
        let was_set = self.set.note(time, boottime);
        if was_suspended { Some(Happened::Suspended) } else { was_set.then_some(Happened::Set) }
    }
}

/// How far one clock is ahead of another, in nanoseconds.
#[derive(Debug, Default)]
struct Drift {
    ahead: Option<i128>,
}

impl Drift {
    /// Whether that has changed.
    fn note(&mut self, one: Duration, other: Duration) -> bool {
        let ahead = one.as_nanos().cast_signed() - other.as_nanos().cast_signed();
        let before = self.ahead.replace(ahead);
        before.is_some_and(|before| ahead.abs_diff(before) > CHANGE_MIN.as_nanos())
    }
}

#[expect(clippy::disallowed_methods, reason = "the one look at the time of day")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn since_start(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// The clocks are read one after the other, with anything in between, and are slewed. No suspend is
/// this short, and no certificate depends on less.
const CHANGE_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn h02_a_suspend_shows_between_the_clocks() {
        let mut clocks = Clocks::default();
        let time = |boottime| seconds(1_700_000_000) + boottime;
        let mut look = |boottime, monotonic| clocks.compare(time(boottime), boottime, monotonic);
        assert_eq!(look(seconds(1000), seconds(900)), None, "before the start it does not count");
        assert_eq!(look(seconds(1020), seconds(920)), None);
        assert_eq!(look(seconds(1030) + Duration::from_millis(900), seconds(930)), None);
        assert_eq!(look(seconds(2040), seconds(940)), Some(Happened::Suspended));
        assert_eq!(look(seconds(2050), seconds(950)), None, "once");
    }

    #[test]
    fn h03_a_clock_that_is_set_shows_both_ways() {
        let mut clocks = Clocks::default();
        let mut look = |time, monotonic| clocks.compare(time, monotonic, monotonic);
        assert_eq!(look(ZERO, seconds(10)), None);
        assert_eq!(look(seconds(10), seconds(20)), None);
        assert_eq!(look(seconds(1_700_000_000), seconds(21)), Some(Happened::Set));
        assert_eq!(look(seconds(1_700_000_001), seconds(22)), None, "once");
        assert_eq!(look(seconds(1_600_000_000), seconds(23)), Some(Happened::Set));
    }
}
