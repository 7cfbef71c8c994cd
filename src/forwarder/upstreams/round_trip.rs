//! How long an upstream takes to answer.

use std::time::{Duration, Instant};

/// The smoothed time from a query to its answer.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    /// And when it was last measured.
    smoothed: Option<(Duration, Instant)>,
}

impl RoundTrip {
    /// An answer took this long, or its query has waited this long in vain. It weighs an eighth, as in
    /// RFC 6298 section 2, and more the less is known of late.
    pub(crate) fn note(&mut self, now: Instant, sample: Duration) {
        let smoothed = self.smoothed.map_or(sample, |(smoothed, at)| {
            let age = now.saturating_duration_since(at);
            let weight = age.clamp(KNOWN_FOR / 8, KNOWN_FOR).as_millis() as u64;
            let whole = KNOWN_FOR.as_millis() as u64;
            // For every answer, and several times as fast as arithmetic with durations.
            let part = |of: Duration, weight| {
                Duration::from_nanos((of.as_nanos() as u64).saturating_mul(weight) / whole)
            };
            part(smoothed, whole - weight) + part(sample, weight)
        });
        self.smoothed = Some((smoothed, now));
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(smoothed, _)| smoothed)
    }

    /// For comparing upstreams: the longer ago it was measured the less of it counts, down to nothing,
    /// so that one that was slow once is asked again.
    pub(crate) fn estimate(&self, now: Instant) -> Duration {
        let Some((smoothed, at)) = self.smoothed else {
            return Duration::ZERO;
        };
        let left = KNOWN_FOR.saturating_sub(now.saturating_duration_since(at));
        smoothed * left.as_secs() as u32 / KNOWN_FOR.as_secs() as u32
    }

    /// An answer that is not there after this long is late.
    pub(crate) fn late_after(&self) -> Duration {
        self.smoothed().map_or(LATE_MIN, |smoothed| LATE_MIN.max(3 * smoothed))
    }
}

/// What was measured longer ago says nothing. One query in this time pays for finding out.
const KNOWN_FOR: Duration = Duration::from_secs(300);

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
