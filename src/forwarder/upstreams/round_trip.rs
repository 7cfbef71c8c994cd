//! How long an upstream takes to answer.

use std::time::{Duration, Instant};

use super::quiet::Tolerated;
use super::upstream::ATTEMPT_SLOW;

/// The time from a query to its answer.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    /// The smoothed time in nanoseconds, and when it was last measured.
    smoothed: Option<(u64, Instant)>,
    /// The time that three answers in four take at most, in nanoseconds: a name that is slow now and then does not
    /// change what is usual.
    usual: Option<u64>,
    /// What the last TCP connection took to stand.
    connect: Option<Duration>,
    /// What follows from these.
    derived: Derived,
}

/// What follows from the usual time: it is worked out anew only when that has changed by a sixth, as it is read for
/// every query.
#[derive(Debug)]
struct Derived {
    /// The usual time that it follows from, in nanoseconds.
    usual: u64,
    stall_after: Duration,
    tolerated: Tolerated,
}

impl Derived {
    fn of(usual: Duration, connect: Duration) -> Self {
        Self {
            usual: usual.as_nanos() as u64,
            stall_after: (3 * usual).clamp(STALL_MIN, STALL_MAX),
            tolerated: Tolerated::of(usual, connect),
        }
    }
}

impl Default for Derived {
    fn default() -> Self {
        Self::of(Duration::ZERO, Duration::ZERO)
    }
}

impl RoundTrip {
    /// An answer took this long, or its query has waited this long in vain. It weighs an eighth, as in
    /// RFC 6298 section 2, and more the less is known of late.
    pub(crate) fn note(&mut self, now: Instant, sample: Duration) {
        let sample = sample.as_nanos() as u64;
        let smoothed = self.smoothed.map_or(sample, |(smoothed, at)| {
            // As a rule: this is done for every answer.
            if now < at + KNOWN_FOR / 8 {
                return smoothed - smoothed / 8 + sample / 8;
            }
            let age = now.saturating_duration_since(at).min(KNOWN_FOR);
            let (weight, whole) = (age.as_secs(), KNOWN_FOR.as_secs());
            // Seconds times some hundreds: no u64 is too small for that.
            (smoothed * (whole - weight) + sample * weight) / whole
        });
        self.smoothed = Some((smoothed, now));
    }

    /// An answer took this long.
    pub(crate) fn note_answer(&mut self, now: Instant, took: Duration) {
        self.note(now, took);
        let nanos = took.as_nanos() as u64;
        self.usual = Some(match self.usual {
            Some(usual) if nanos > usual => usual + 3 * (usual / USUAL_STEPS),
            Some(usual) => usual - usual / USUAL_STEPS,
            None => nanos,
        });
        let usual = self.usual.unwrap_or_default();
        if usual.abs_diff(self.derived.usual) > self.derived.usual / 6 {
            self.derive();
        }
    }

    fn derive(&mut self) {
        self.derived = Derived::of(self.usual(), self.connect.unwrap_or_default());
    }

    /// A TCP connection took this long to stand.
    pub(crate) fn note_connect(&mut self, took: Duration) {
        self.connect = Some(took);
        self.derive();
    }

    /// An attempt that takes longer than this is slow.
    pub(crate) fn connect_slow_after(&self) -> Duration {
        ATTEMPT_SLOW.max(3 * self.connect.unwrap_or_default())
    }

    /// What an answer takes as a rule; before the first, what a round trip does.
    pub(crate) fn usual(&self) -> Duration {
        let usual = self.usual.map(Duration::from_nanos);
        usual.or(self.connect).unwrap_or_default()
    }

    /// How long nothing comes on a connection before that says something.
    pub(crate) fn tolerated(&self) -> Tolerated {
        self.derived.tolerated
    }

    /// A connection on which no answer comes for so long has stalled: three times the usual, within bounds that a
    /// resolver which recurses, and a stub that gives up, allow.
    pub(crate) fn stall_after(&self) -> Duration {
        self.derived.stall_after
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(smoothed, _)| Duration::from_nanos(smoothed))
    }

    /// For comparing upstreams: the longer ago it was measured the less of it counts, down to nothing,
    /// so that one that was slow once is asked again.
    pub(crate) fn estimate(&self, now: Instant) -> Duration {
        let Some((smoothed, at)) = self.smoothed else {
            return Duration::ZERO;
        };
        let left = KNOWN_FOR.saturating_sub(now.saturating_duration_since(at));
        Duration::from_nanos(smoothed) * left.as_secs() as u32 / KNOWN_FOR.as_secs() as u32
    }

    /// An answer that is not there after this long is late.
    pub(crate) fn late_after(&self) -> Duration {
        let known = self.smoothed().or(self.connect).unwrap_or_default();
        LATE_MIN.max(3 * known)
    }
}

/// What was measured longer ago says nothing. One query in this time pays for finding out.
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// One answer moves the usual time by one part in so many, or three.
const USUAL_STEPS: u64 = 32;

/// Long enough for a resolver that recurses, short enough that the first victim of a forgotten
/// connection is answered by another one before its stub gives up.
pub(crate) const STALL_MIN: Duration = Duration::from_millis(1500);

/// So that what is sent again is answered within the time of the query, also by way of a satellite.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(3);

/// Names that are not in the resolver's cache take it this long on an ordinary day.
const LATE_MIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::base;

    #[test]
    fn an_estimate_is_smoothed_and_fades() {
        let t0 = base();
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.estimate(t0), Duration::ZERO);
        round_trip.note(t0, Duration::from_millis(80));
        round_trip.note(t0, Duration::from_millis(160));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(90)));
        assert_eq!(round_trip.estimate(t0), Duration::from_millis(90));
        assert_eq!(round_trip.estimate(t0 + KNOWN_FOR / 2), Duration::from_millis(45));
        assert_eq!(round_trip.estimate(t0 + 2 * KNOWN_FOR), Duration::ZERO);
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(90)), "does not fade");
    }

    #[test]
    fn what_was_measured_long_ago_counts_little() {
        let t0 = base();
        let mut round_trip = RoundTrip::default();
        round_trip.note(t0, Duration::from_millis(100));
        round_trip.note(t0 + KNOWN_FOR / 2, Duration::from_millis(20));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(60)));
        round_trip.note(t0 + 2 * KNOWN_FOR, Duration::from_millis(30));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(30)));
    }

    #[test]
    fn the_usual_time_follows_most_answers_and_not_the_slow_ones() {
        let t0 = base();
        let mut round_trip = RoundTrip::default();
        round_trip.note_connect(Duration::from_millis(600));
        assert_eq!(round_trip.usual(), Duration::from_millis(600), "one round trip at least");
        // One in ten is slow.
        for n in 0..1000 {
            let took = if n % 10 == 3 { 900 } else { 20 + n % 7 };
            round_trip.note_answer(t0, Duration::from_millis(took));
        }
        let usual = round_trip.usual().as_millis();
        assert!((20..40).contains(&usual), "{usual} ms");
        for _ in 0..100 {
            round_trip.note_answer(t0, Duration::from_millis(300));
        }
        let usual = round_trip.usual().as_millis();
        assert!((280..340).contains(&usual), "{usual} ms");
    }

    #[test]
    fn a_connection_stalls_after_three_times_the_usual_within_bounds() {
        for (usual, stall) in [(0, 1500), (20, 1500), (600, 1800), (1500, 3000)] {
            let mut round_trip = RoundTrip::default();
            round_trip.note_answer(base(), Duration::from_millis(usual));
            assert_eq!(round_trip.stall_after(), Duration::from_millis(stall), "{usual} ms");
        }
    }

    #[test]
    fn late_is_three_times_the_usual_and_never_soon() {
        let t0 = base();
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.late_after(), LATE_MIN);
        round_trip.note(t0, Duration::from_millis(10));
        assert_eq!(round_trip.late_after(), LATE_MIN);
        round_trip.note(t0, Duration::from_millis(1610));
        assert_eq!(round_trip.late_after(), Duration::from_millis(630));
    }
}
