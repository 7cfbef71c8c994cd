//! How often which time was seen, to within a percent.

use std::time::Duration;

/// Counts in buckets, each at most 1/64 wider than the last.
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    pub fn add(&mut self, time: Duration) {
        self.counts[bucket(time.as_nanos() as u64)] += 1;
        self.total += 1;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds what the other counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The time that so many thousandths of what was added did not exceed; `None` if nothing was added.
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        self.quantile_among(self.total, thousandths)
    }

    /// The same of `total`, of which those that were not added are longer than any; `None` where the time is
    /// one of them.
    pub fn quantile_among(&self, total: u64, thousandths: u64) -> Option<Duration> {
        let wanted = (total * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        found.map(|bucket| Duration::from_nanos(middle(bucket)))
    }
}

/// The highest bit says which row of buckets, the next ones which of the row.
fn bucket(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(STEP_BITS + 1);
    ((shift as usize) << STEP_BITS) + (nanoseconds >> shift) as usize
}

/// The time in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let row = (bucket >> STEP_BITS).saturating_sub(1);
    let first = (bucket - (row << STEP_BITS)) as u64;
    (first << row) + ((1 << row) >> 1)
}

const STEP_BITS: u32 = 6;
const BUCKETS: usize = (u64::BITS as usize - STEP_BITS as usize + 1) << STEP_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_what_is_in_it() {
        let samples = (0..63).flat_map(|n| [1_u64 << n, (1 << n) + (1 << n) / 3, (1 << n) * 2 - 1]);
        for sample in samples.chain(0..3000) {
            let near = middle(bucket(sample));
            assert!(near.abs_diff(sample) <= sample / 64, "{near} for {sample}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(500), None);
        for n in 1..=50 {
            histogram.add(Duration::from_nanos(n));
        }
        assert_eq!(histogram.quantile(500), Some(Duration::from_nanos(25)));
        assert_eq!(histogram.quantile(990), Some(Duration::from_nanos(50)));
        assert_eq!(histogram.quantile(0), Some(Duration::from_nanos(1)));
        assert_eq!(histogram.quantile_among(100, 500), Some(Duration::from_nanos(50)));
        assert_eq!(histogram.quantile_among(100, 510), None);

        let mut both = Histogram::new();
        both.add(Duration::from_nanos(60));
        both.merge(&histogram);
        assert_eq!((both.total(), both.quantile(1000)), (51, Some(Duration::from_nanos(60))));
    }
}
