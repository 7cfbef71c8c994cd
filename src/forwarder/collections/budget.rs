//! How many copies of queries may be made.

/// Copies beyond the first of each query, as a part of all queries.
///
/// A token bucket: each query adds its part of a copy, up to a few, and each copy takes one.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Copies that may be made, in hundredths.
    credit: u32,
    percent: u32,
    copies_max: u32,
}

impl Budget {
    /// So many in a hundred queries, and no more than `copies_max` at once.
    pub(crate) fn new(percent: u32, copies_max: u32) -> Self {
        Self { credit: COPY, percent, copies_max }
    }

    /// With all saved up that may be.
    pub(crate) fn saved_up(self) -> Self {
        Self { credit: self.copies_max * COPY, ..self }
    }

    pub(crate) fn note_query(&mut self) {
        self.credit = (self.credit + self.percent).min(self.copies_max * COPY);
    }

    pub(crate) fn allows_one(&self) -> bool {
        self.credit >= COPY
    }

    /// Takes one, if it may be made.
    pub(crate) fn try_take(&mut self) -> bool {
        let allows_one = self.allows_one();
        if allows_one {
            self.credit -= COPY;
        }
        allows_one
    }
}

const COPY: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_to_their_part_of_the_queries() {
        let mut budget = Budget::new(2, 8);
        let mut copies = 0;
        for _ in 0..10_000 {
            budget.note_query();
            copies += u32::from(budget.try_take());
        }
        assert_eq!(copies, 1 + 200);
    }

    #[test]
    fn what_is_saved_up_is_there_at_once() {
        let mut budget = Budget::new(10, 64).saved_up();
        assert_eq!((0..100).filter(|_| budget.try_take()).count(), 64);
    }

    #[test]
    fn a_quiet_time_saves_up_for_a_few_copies_only() {
        let mut budget = Budget::new(5, 8);
        (0..100_000).for_each(|_| budget.note_query());
        for _ in 0..8 {
            assert!(budget.try_take());
        }
        assert!(!budget.try_take());
    }
}
