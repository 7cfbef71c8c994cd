//! Clocks of the machine beside the one that measures deadlines: a suspend and a time of day that was set
//! show as changes between them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The clocks as they were when last read.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    suspended: Drift,
    set: Drift,
    /// When the time of day is to be read next.
    time_at: Option<Instant>,
}

/// A change of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockChange {
    /// The machine was suspended. `CLOCK_MONOTONIC`, which measures deadlines, stands still during a
    /// suspend; `CLOCK_BOOTTIME` goes on. After a suspend no connection can be trusted: servers and NATs
    /// have forgotten it without a word.
    Suspended,
    /// The time of day was set: certificates may have become valid, or invalid.
    Set,
}

impl Clocks {
    /// The change since the last call; of two, the one that weighs more.
    ///
    /// To be called in every turn of the loop, before anything is sent on a connection that a suspend has
    /// ended. The time of day is read less often, as each reading costs; see [`Self::poll_wall_clock`].
    pub(crate) fn poll(&mut self, now: Instant) -> Option<ClockChange> {
        let Reading { monotonic, boottime, time } =
            Reading::take(self.time_at.is_none_or(|at| now >= at))?;
        if time.is_some() {
            self.time_at = Some(now + TIME_PAUSE);
        }
        self.compare(time, boottime, monotonic)
    }

    /// The change since the last call, of the time of day in any case. To be called before the time of day
    /// decides about a session or a certificate.
    pub(crate) fn poll_wall_clock(&mut self, now: Instant) -> Option<ClockChange> {
        self.time_at = None;
        self.poll(now)
    }

    /// The change that these readings show. `time` counts from 1970, the others from somewhere.
    fn compare(
        &mut self,
        time: Option<Duration>,
        boottime: Duration,
        monotonic: Duration,
    ) -> Option<ClockChange> {
        let was_suspended = self.suspended.note(boottime, monotonic);
        let was_set = time.is_some_and(|time| self.set.note(time, boottime));
        if was_suspended {
            Some(ClockChange::Suspended)
        } else {
            was_set.then_some(ClockChange::Set)
        }
    }
}

/// How far one clock is ahead of another, in nanoseconds.
#[derive(Debug, Default)]
struct Drift {
    ahead: Option<i128>,
}

impl Drift {
    /// Takes note of two readings, and returns whether the difference has changed since the last two.
    fn note(&mut self, one: Duration, other: Duration) -> bool {
        let ahead = one.as_nanos().cast_signed() - other.as_nanos().cast_signed();
        let before = self.ahead.replace(ahead);
        before.is_some_and(|before| ahead.abs_diff(before) > CHANGE_MIN.as_nanos())
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reading of the time of day")]
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
    /// Reads the clocks. `None`: others had the processor in between, and the readings are not of one
    /// moment. All clocks are read here: a comparison with the loop's own reading would look like a suspend
    /// after a turn that took long.
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

/// A difference that is a change. Smaller ones come from slewing, and from reading one clock after the
/// other. No suspend is this short, and no certificate depends on less.
const CHANGE_MIN: Duration = Duration::from_secs(1);

/// How far apart the readings of one moment may be: far less than a change.
const MOMENT_MAX: Duration = Duration::from_millis(100);

/// The pause between readings of the time of day.
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
        let mut compare =
            |boottime, monotonic| clocks.compare(Some(time(boottime)), boottime, monotonic);
        assert_eq!(
            compare(seconds(1000), seconds(900)),
            None,
            "before the start it does not count"
        );
        assert_eq!(compare(seconds(1020), seconds(920)), None);
        assert_eq!(compare(seconds(1030) + Duration::from_millis(900), seconds(930)), None);
        assert_eq!(compare(seconds(2040), seconds(940)), Some(ClockChange::Suspended));
        assert_eq!(compare(seconds(2050), seconds(950)), None, "once");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a turn that takes long")]
    fn h02_a_long_turn_is_no_suspend() {
        let mut clocks = Clocks::default();
        let turn = Instant::now();
        assert_eq!(clocks.poll(turn), None);
        std::thread::sleep(CHANGE_MIN + MOMENT_MAX);
        assert_eq!(clocks.poll_wall_clock(turn), None, "a connection is made at its end");
        assert_eq!(clocks.poll(Instant::now()), None);
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
        let mut compare = |time, monotonic| clocks.compare(Some(time), monotonic, monotonic);
        assert_eq!(compare(ZERO, seconds(10)), None);
        assert_eq!(compare(seconds(10), seconds(20)), None);
        assert_eq!(compare(seconds(1_700_000_000), seconds(21)), Some(ClockChange::Set));
        assert_eq!(compare(seconds(1_700_000_001), seconds(22)), None, "once");
        assert_eq!(compare(seconds(1_600_000_000), seconds(23)), Some(ClockChange::Set));
    }

    #[test]
    fn readings_without_the_time_of_day_forget_nothing() {
        let mut clocks = Clocks::default();
        let mut compare = |time, monotonic| clocks.compare(time, monotonic, monotonic);
        assert_eq!(compare(Some(seconds(1000)), seconds(10)), None);
        assert_eq!(compare(None, seconds(11)), None);
        assert_eq!(compare(Some(seconds(2001)), seconds(11)), Some(ClockChange::Set));
    }
}
