//! Chance that depends on a seed and on nothing else.

use std::time::Duration;

/// Xoshiro256++ (Blackman and Vigna), its state filled by `SplitMix64`.
#[derive(Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mixed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state }
    }

    /// Another sequence, which does not depend on how much is taken of this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// The same for what indexes and counts.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// From `low` up to and including `high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.index(high - low + 1)
    }

    /// True `per_mille` times out of 1,000.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// From 0 up to and including `most`, to the microsecond.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        *self.choice(choices)
    }

    pub fn choice<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    pub fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }
}

/// Runs `case` with so many seeds, and tells the seed of one that panics; with `CASE_SEED=n` it runs that
/// one alone.
pub fn for_each_case(name: &'static str, count: u64, mut case: impl FnMut(&mut Random)) {
    let one = std::env::var("CASE_SEED").ok();
    let one = one.map(|seed| seed.parse().expect("CASE_SEED is a decimal number"));
    for seed in one.map_or(0..count, |seed: u64| seed..seed + 1) {
        let _told = ToldIfPanicking { name, seed };
        case(&mut Random::new(seed));
    }
}

struct ToldIfPanicking {
    name: &'static str,
    seed: u64,
}

impl Drop for ToldIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: replay with CASE_SEED={}", self.name, self.seed);
        }
    }
}
