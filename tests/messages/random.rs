//! Chance that can be repeated.

use domain::base::iana::Rtype;
use domain::base::rdata::UnknownRecordData;

/// Runs `case` with a different seed each time, and tells the seed of one that panics.
pub(crate) fn for_each_case(name: &'static str, count: u64, mut case: impl FnMut(&mut Random)) {
    const SEED: u64 = 0x00d0_7b05;
    let first = match std::env::var("MESSAGES_SEED") {
        Ok(seed) => seed.parse().expect("MESSAGES_SEED is a decimal number"),
        Err(_) => SEED,
    };
    for seed in first..first + count {
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
            eprintln!("{}: replay with MESSAGES_SEED={}", self.name, self.seed);
        }
    }
}

/// xorshift64*
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds in a row must not give similar numbers, and 0 would give nothing but 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    pub(crate) fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub(crate) fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn record_count(&mut self) -> usize {
        match self.below(10) {
            0..5 => 0,
            5..9 => self.below(5),
            _ => self.below(60),
        }
    }

    /// Record data of any type, of those with a meaning here only if `is_odd`.
    pub(crate) fn data(&mut self, is_odd: bool) -> UnknownRecordData<Vec<u8>> {
        let rtype = match self.below(30) {
            0 if is_odd => 41,
            1 if is_odd => 250,
            2 if is_odd => 24,
            3 => self.next() as u16 | 0x100,
            _ => *self.choice(&[1, 28, 16, 48, 65, 24, 65_280]),
        };
        let data = match rtype {
            41 => self.options(),
            24 if is_odd => vec![0; 20],
            24 => vec![1; 20],
            _ => {
                let len = if self.chance(1, 20) { 300 } else { 40 };
                let len = self.below(len);
                self.octets(len)
            }
        };
        UnknownRecordData::from_octets(Rtype::from_int(rtype), data).unwrap()
    }

    /// The data of an OPT record, seldom with an option that overruns it.
    pub(crate) fn options(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        for _ in 0..self.below(3) {
            let len = if self.chance(1, 10) { 700 } else { 20 };
            let len = self.below(len);
            data.extend_from_slice(&(self.below(20) as u16).to_be_bytes());
            data.extend_from_slice(&(len as u16).to_be_bytes());
            data.extend(self.octets(len));
        }
        if self.chance(1, 30) {
            data.truncate(data.len().saturating_sub(1));
        }
        data
    }
}
