//! What the clocks of the machine say beside the time that the loop counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Notices from one look to the next what happened to the clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    suspended: Drift,
    set: Drift,
    /// The next look at the time of day.
    time_at: Option<Instant>,
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
    ///
    /// The loop looks in every turn, before anything is sent on a connection that a suspend has ended.
    /// The time of day is looked at less often, as each look costs; see [`Self::look_closely`].
    pub(crate) fn look(&mut self, now: Instant) -> Option<Happened> {
        let Reading { monotonic, boottime, time } =
            Reading::take(self.time_at.is_none_or(|at| now >= at))?;
        if time.is_some() {
            self.time_at = Some(now + TIME_PAUSE);
        }
        self.compare(time, boottime, monotonic)
    }

    /// The same, at the time of day in any case: before it decides about a session or a certificate.
    pub(crate) fn look_closely(&mut self, now: Instant) -> Option<Happened> {
        self.time_at = None;
        self.look(now)
    }

    /// `time` counts from 1970, the others from somewhere.
    fn compare(
        &mut self,
        time: Option<Duration>,
        boottime: Duration,
        monotonic: Duration,
    ) -> Option<Happened> {
        let was_suspended = self.suspended.note(boottime, monotonic);
        let was_set = time.is_some_and(|time| self.set.note(time, boottime));
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
fn time_of_day() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the clocks said at one moment.
struct Reading {
    monotonic: Duration,
    boottime: Duration,
    time: Option<Duration>,
}

impl Reading {
    /// `None`: others had the processor meanwhile, and it was more than one moment. What the loop's own
    /// reading is old by, when it has worked for long in a turn, would look like a suspend.
    fn take(with_time: bool) -> Option<Self> {
        let since = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        let before = since(ClockId::Monotonic);
        let time = with_time.then(time_of_day);
        let boottime = since(ClockId::Boottime);
        let monotonic = since(ClockId::Monotonic);
        is_one_moment(before, monotonic).then_some(Self { monotonic, boottime, time })
    }
}

fn is_one_moment(before: Duration, after: Duration) -> bool {
    after.saturating_sub(before) < MOMENT_MAX
}

/// The clocks are read one after the other, and are slewed. No suspend is this short, and no certificate
/// depends on less.
const CHANGE_MIN: Duration = Duration::from_secs(1);

/// Far less than a change.
const MOMENT_MAX: Duration = Duration::from_millis(100);

/// Between looks at the time of day.
const TIME_PAUSE: Duration = Duration::from_millis(100);

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
        let mut look =
            |boottime, monotonic| clocks.compare(Some(time(boottime)), boottime, monotonic);
        assert_eq!(look(seconds(1000), seconds(900)), None, "before the start it does not count");
        assert_eq!(look(seconds(1020), seconds(920)), None);
        assert_eq!(look(seconds(1030) + Duration::from_millis(900), seconds(930)), None);
        assert_eq!(look(seconds(2040), seconds(940)), Some(Happened::Suspended));
        assert_eq!(look(seconds(2050), seconds(950)), None, "once");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a turn that takes long")]
    fn h02_a_long_turn_is_no_suspend() {
        let mut clocks = Clocks::default();
        let turn = Instant::now();
        assert_eq!(clocks.look(turn), None);
        std::thread::sleep(CHANGE_MIN + MOMENT_MAX);
        assert_eq!(clocks.look_closely(turn), None, "a connection is made at its end");
        assert_eq!(clocks.look(Instant::now()), None);
    }

    #[test]
    fn h02_clocks_between_which_others_had_the_processor_are_not_compared() {
        for (between, expected) in [(0, true), (99, true), (100, false), (5_000, false)] {
            let after = seconds(7) + Duration::from_millis(between);
            assert_eq!(is_one_moment(seconds(7), after), expected, "{between} ms");
        }
    }

    #[test]
    fn h03_a_clock_that_is_set_shows_both_ways() {
        let mut clocks = Clocks::default();
        let mut look = |time, monotonic| clocks.compare(Some(time), monotonic, monotonic);
        assert_eq!(look(ZERO, seconds(10)), None);
        assert_eq!(look(seconds(10), seconds(20)), None);
        assert_eq!(look(seconds(1_700_000_000), seconds(21)), Some(Happened::Set));
        assert_eq!(look(seconds(1_700_000_001), seconds(22)), None, "once");
        assert_eq!(look(seconds(1_600_000_000), seconds(23)), Some(Happened::Set));
    }

    #[test]
    fn looks_without_the_time_of_day_forget_nothing() {
        let mut clocks = Clocks::default();
        let mut look = |time, monotonic| clocks.compare(time, monotonic, monotonic);
        assert_eq!(look(Some(seconds(1000)), seconds(10)), None);
        assert_eq!(look(None, seconds(11)), None);
        assert_eq!(look(Some(seconds(2001)), seconds(11)), Some(Happened::Set));
    }
}
