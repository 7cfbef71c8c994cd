//! Values with names that do not outlive them.

use slab::Slab;

/// A slab whose names carry a serial number, so that a name kept after its value was removed finds
/// nothing instead of the value that took the place.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    entries: Slab<(u32, T)>,
    next_serial: u32,
}

/// Names one value of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    key: u32,
    serial: u32,
}

impl Id {
    /// The place in the slab: small, dense, and used again once the value was removed.
    pub(crate) fn key(self) -> usize {
        self.key as usize
    }

    /// The serial number, which ascends in the order of insertion until it wraps around.
    pub(crate) fn serial(self) -> u32 {
        self.serial
    }
}

impl<T> Arena<T> {
    /// An arena that takes so many values without growing.
    pub(crate) fn with_capacity(values: usize) -> Self {
        Self { entries: Slab::with_capacity(values), next_serial: 0 }
    }

    /// Octets that an arena takes for so many values.
    pub(crate) const fn octets(values: usize) -> usize {
        // An entry of the slab is a value, or the key of the next free one.
        values * size_of::<Result<(u32, T), usize>>()
    }

    pub(crate) fn insert(&mut self, value: T) -> Id {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let key = self.entries.insert((serial, value));
        Id { key: key as u32, serial }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        match self.entries.get(id.key()) {
            Some((serial, value)) if *serial == id.serial => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.entries.get_mut(id.key()) {
            Some((serial, value)) if *serial == id.serial => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.entries.remove(id.key()).1)
    }

    /// The name of the value in place `key`, for structures that are indexed by key alone.
    pub(crate) fn id_at(&self, key: usize) -> Option<Id> {
        let (serial, _) = self.entries.get(key)?;
        Some(Id { key: key as u32, serial: *serial })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every value, in order of key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &T)> + Clone {
        self.entries
            .iter()
            .map(|(key, (serial, value))| (Id { key: key as u32, serial: *serial }, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut arena = Arena::with_capacity(1);
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));

        let second = arena.insert("second");

        assert_eq!(first.key(), second.key());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.get_mut(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.id_at(second.key()), Some(second));
        assert_eq!(arena.len(), 1);
    }
}
