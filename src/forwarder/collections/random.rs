//! Small random numbers, from a seed.

use std::time::Duration;

/// splitmix64: for jitter, where nobody gains by guessing.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which must not be 0; the bias does not matter for small bounds.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `duration`, up to `percent` longer or shorter.
    pub(crate) fn jitter(&mut self, duration: Duration, percent: u32) -> Duration {
        let permille = u64::from(percent) * 10;
        let factor = 1000 - permille + self.below(2 * permille + 1);
        Duration::from_micros(duration.as_micros() as u64 * factor / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds_and_differs() {
        let mut random = Random::new(1);
        let base = Duration::from_secs(1);
        let all: Vec<Duration> = (0..1000).map(|_| random.jitter(base, 25)).collect();
        assert!(all.iter().all(|d| (750..=1250).contains(&d.as_millis())));
        assert!(all.iter().any(|d| d.as_millis() < 800));
        assert!(all.iter().any(|d| d.as_millis() > 1200));
    }
}
