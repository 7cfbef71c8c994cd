//! The message IDs of one upstream connection.

use std::collections::VecDeque;

use crate::forwarder::collections::arena::Id;

/// The query that each message ID of a connection stands for.
///
/// An ID whose query left by another way stays reserved until its late answer comes or the
/// connection closes: freed earlier, it would deliver that answer to a stranger or cost the
/// connection (RFC 7766 section 6.2.1). IDs need no randomness inside an authenticated stream;
/// the one free for longest is taken first, and a few never used ones before a fresh one of those,
/// so that a duplicate answer finds no new query for a while.
#[derive(Debug)]
pub(crate) struct InFlight {
    slots: Vec<Found>,
    /// IDs from `ids_max` up, taken because a SIG(0) signs them; few, so looked through.
    high: Vec<(u16, Found)>,
    free: VecDeque<u16>,
    unanswered: usize,
    abandoned: usize,
    ids_max: usize,
}

/// What a message ID stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The ID of a query that left by another way.
    Abandoned(Id),
    /// Nothing was asked with it, or that was answered: it is free.
    Unknown,
    Unanswered(Id),
}

/// A freed ID rests while this many others are taken.
const FREE_MIN: usize = 64;

/// Nobody sends SIG(0) today. A client that signs thousands of queries under high IDs must not have a
/// place for each.
const HIGH_MAX: usize = 16;

impl InFlight {
    /// `ids_max`, at most 65,536, bounds unanswered and abandoned IDs together.
    pub(crate) fn new(ids_max: usize) -> Self {
        Self {
            slots: Vec::with_capacity(ids_max),
            high: Vec::new(),
            free: VecDeque::with_capacity(ids_max),
            unanswered: 0,
            abandoned: 0,
            ids_max,
        }
    }

    /// Octets that it takes at most.
    pub(crate) const fn octets(ids_max: usize) -> usize {
        ids_max * (size_of::<Found>() + size_of::<u16>()) + HIGH_MAX * size_of::<(u16, Found)>()
    }

    /// Takes an ID; `None` if all are in flight or abandoned.
    pub(crate) fn take(&mut self, query: Id) -> Option<u16> {
        let id = if self.free.len() < FREE_MIN && self.slots.len() < self.ids_max {
            self.slots.push(Found::Unknown);
            (self.slots.len() - 1) as u16
        } else {
            self.free.pop_front()?
        };
        self.slots[usize::from(id)] = Found::Unanswered(query);
        self.unanswered += 1;
        Some(id)
    }

    /// Takes this ID; false while it is in flight or abandoned, or while too many are that are out of
    /// the ordinary.
    pub(crate) fn take_exact(&mut self, id: u16, query: Id) -> bool {
        let place = usize::from(id);
        if place >= self.ids_max {
            if self.high.len() == HIGH_MAX || self.high_place(id).is_some() {
                return false;
            }
            self.high.reserve_exact(HIGH_MAX - self.high.len());
            self.high.push((id, Found::Unanswered(query)));
        } else {
            for skipped in self.slots.len()..=place {
                self.slots.push(Found::Unknown);
                self.free.push_back(skipped as u16);
            }
            if self.slots[place] != Found::Unknown {
                return false;
            }
            self.free.retain(|other| *other != id);
            self.slots[place] = Found::Unanswered(query);
        }
        self.unanswered += 1;
        true
    }

    fn slot(&self, id: u16) -> Option<&Found> {
        self.slots.get(usize::from(id)).or_else(|| Some(&self.high[self.high_place(id)?].1))
    }

    fn slot_mut(&mut self, id: u16) -> Option<&mut Found> {
        let high = self.high_place(id);
        self.slots.get_mut(usize::from(id)).or_else(|| Some(&mut self.high[high?].1))
    }

    fn high_place(&self, id: u16) -> Option<usize> {
        self.high.iter().position(|(other, _)| *other == id)
    }

    pub(crate) fn find(&self, id: u16) -> Found {
        self.slot(id).copied().unwrap_or(Found::Unknown)
    }

    /// The query that waits for an answer with this ID.
    pub(crate) fn query(&self, id: u16) -> Option<Id> {
        match self.find(id) {
            Found::Unanswered(query) => Some(query),
            Found::Abandoned(_) | Found::Unknown => None,
        }
    }

    /// Whether this ID, which is not to be had, may never be: it was given up, or all of those out of the
    /// ordinary were.
    pub(crate) fn is_lost(&self, id: u16) -> bool {
        let is_abandoned = |slot: &Found| matches!(slot, Found::Abandoned(_));
        match self.slot(id) {
            Some(slot) => is_abandoned(slot),
            None => self.high.iter().all(|(_, slot)| is_abandoned(slot)),
        }
    }

    /// The answer came: the ID is free.
    pub(crate) fn free(&mut self, id: u16) {
        match self.find(id) {
            Found::Unanswered(_) => self.unanswered -= 1,
            Found::Abandoned(_) => self.abandoned -= 1,
            Found::Unknown => return,
        }
        if let Some(slot) = self.slots.get_mut(usize::from(id)) {
            *slot = Found::Unknown;
            self.free.push_back(id);
        } else if let Some(high) = self.high_place(id) {
            self.high.swap_remove(high);
        }
    }

    /// The query left by another way: the ID stays reserved.
    pub(crate) fn abandon(&mut self, id: u16) {
        if let Some(slot) = self.slot_mut(id)
            && let Found::Unanswered(query) = *slot
        {
            *slot = Found::Abandoned(query);
            self.unanswered -= 1;
            self.abandoned += 1;
        }
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// IDs that wait or are abandoned.
    pub(crate) fn taken(&self) -> usize {
        self.unanswered + self.abandoned
    }

    /// An upstream that never answers some queries must not eat the table: with an eighth of the
    /// IDs abandoned, a quarter of what may wait at a time, the connection wants to be replaced.
    pub(crate) fn is_worn(&self) -> bool {
        self.abandoned * 8 >= self.ids_max
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.ids_max
    }

    /// There will soon be too few for what may wait at a time, which is half of all: early enough for another
    /// connection to be made, however fast IDs are given up.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.abandoned * 8 >= self.ids_max * 3
    }

    /// Every query without an answer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Id> {
        let high = self.high.iter().map(|(_, slot)| slot);
        self.slots.iter().chain(high).filter_map(|slot| match slot {
            Found::Unanswered(query) => Some(*query),
            Found::Abandoned(_) | Found::Unknown => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::forwarder::collections::arena::Arena;

    #[test]
    fn an_abandoned_id_is_reserved_until_its_late_answer() {
        let query = query();
        let mut table = InFlight::new(4);
        let ids: Vec<u16> = (0..4).filter_map(|_| table.take(query)).collect();
        assert_eq!(ids.len(), 4);

        table.abandon(ids[2]);

        assert_eq!(table.take(query), None);
        assert_eq!(table.find(ids[2]), Found::Abandoned(query));
        assert_eq!(table.unanswered(), 3);
        assert!(table.is_worn());
        table.free(ids[2]);
        assert_eq!(table.find(ids[2]), Found::Unknown);
        assert!(!table.is_worn());
        assert_eq!(table.take(query), Some(ids[2]));
    }

    #[test]
    fn the_id_free_for_longest_is_taken_first() {
        let query = query();
        let mut table = InFlight::new(3);
        for _ in 0..3 {
            table.take(query);
        }
        for id in [1, 2, 0] {
            table.free(id);
        }
        assert_eq!([(); 3].map(|()| table.take(query)), [Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn a_freed_id_rests_while_others_are_taken() {
        let query = query();
        let mut table = InFlight::new(4096);
        let mut recent = Vec::new();
        for _ in 0..1000 {
            let Some(id) = table.take(query) else { panic!("the table is not full") };
            recent.push(id);
            table.free(id);
        }
        for window in recent.windows(FREE_MIN) {
            assert_eq!(window.iter().collect::<HashSet<_>>().len(), FREE_MIN);
        }
        assert!(table.slots.len() <= FREE_MIN + 1);
    }

    #[test]
    fn freeing_or_abandoning_what_does_not_wait_changes_nothing() {
        let query = query();
        let mut table = InFlight::new(4);
        let Some(id) = table.take(query) else { panic!("the table is not full") };
        table.free(id);
        table.free(id);
        table.abandon(id);
        table.abandon(9);
        assert_eq!((table.unanswered(), table.is_worn(), table.free.len()), (0, false, 1));
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn a_certain_id_is_taken_once_and_no_other_way() {
        let query = query();
        let mut table = InFlight::new(4);
        for id in [2, 60_000] {
            assert!(table.take_exact(id, query));
            assert!(!table.take_exact(id, query));
            assert_eq!(table.find(id), Found::Unanswered(query));
        }
        let others: Vec<u16> = (0..4).filter_map(|_| table.take(query)).collect();
        assert_eq!(others, [3, 0, 1], "the others, and no fourth");
        assert_eq!((table.unanswered(), table.iter().count()), (5, 5));
        for id in [2, 60_000] {
            table.abandon(id);
            assert!(!table.take_exact(id, query), "reserved for its late answer");
            assert_eq!(table.find(id), Found::Abandoned(query));
            table.free(id);
            assert_eq!(table.find(id), Found::Unknown);
            assert!(table.take_exact(id, query));
            table.free(id);
        }
        assert_eq!(table.unanswered(), 3);
    }

    #[test]
    fn ids_out_of_the_ordinary_are_few() {
        let query = query();
        let mut table = InFlight::new(4);
        let (first, last) = (1000, 1000 + HIGH_MAX as u16);
        for id in first..last {
            assert!(table.take_exact(id, query));
        }
        assert!(!table.take_exact(last, query));
        assert!(table.take_exact(3, query));
        table.abandon(first);
        assert!(!table.take_exact(last, query), "reserved for its late answer");
        assert_eq!([first, first + 1, last].map(|id| table.is_lost(id)), [true, false, false]);
        (first..last).for_each(|id| table.abandon(id));
        assert!(table.is_lost(last));
        table.free(first);
        assert!(table.take_exact(last, query));
        assert_eq!(table.find(last), Found::Unanswered(query));
    }

    fn query() -> Id {
        Arena::with_capacity(1).insert(())
    }
}
