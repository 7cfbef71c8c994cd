//! Connections, by names that outlive them until their sockets are closed.

use std::marker::PhantomData;

use super::arena::{Arena, Id};

/// What a [`ConnTable`] names its connections by.
pub(crate) trait ConnKey: Copy {
    fn new(id: Id) -> Self;

    fn id(self) -> Id;
}

/// The connections of one kind.
///
/// One that was closed here takes no input any more, but its key is kept until the shell has taken the
/// close: no key ever names two sockets.
#[derive(Debug)]
pub(crate) struct ConnTable<K, T> {
    /// `None`: closed here, and its key is kept.
    entries: Arena<Option<Box<T>>>,
    keys: PhantomData<K>,
}

impl<K: ConnKey, T> ConnTable<K, T> {
    /// Takes so many connections without growing.
    pub(crate) fn with_capacity(conns: usize) -> Self {
        Self { entries: Arena::with_capacity(conns), keys: PhantomData }
    }

    /// Octets that it takes for so many connections, beside their own.
    pub(crate) const fn octets(conns: usize) -> usize {
        Arena::<Option<Box<T>>>::octets(conns)
    }

    pub(crate) fn insert(&mut self, conn: T) -> K {
        K::new(self.entries.insert(Some(Box::new(conn))))
    }

    /// The connection; `None` if it was closed.
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.entries.get(key.id())?.as_deref()
    }

    /// The connection; `None` if it was closed.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.entries.get_mut(key.id())?.as_deref_mut()
    }

    /// Takes the connection out, and keeps its key.
    pub(crate) fn close(&mut self, key: K) -> Option<Box<T>> {
        self.entries.get_mut(key.id())?.take()
    }

    /// The socket is closed: the key may name another connection.
    pub(crate) fn free(&mut self, key: K) {
        self.entries.remove(key.id());
    }

    /// The name of the connection in place `key`, for structures that are indexed by key alone.
    pub(crate) fn id_at(&self, key: usize) -> Option<K> {
        self.entries.id_at(key).map(K::new)
    }

    /// Keys that are taken, those of connections that were closed included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every connection, in order of key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> + Clone {
        self.entries.iter().filter_map(|(id, conn)| Some((K::new(id), conn.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ConnKey for Id {
        fn new(id: Id) -> Self {
            id
        }

        fn id(self) -> Id {
            self
        }
    }

    #[test]
    fn a_key_is_kept_until_its_socket_is_closed() {
        let mut table: ConnTable<Id, u8> = ConnTable::with_capacity(2);
        let first = table.insert(1);
        assert_eq!(table.close(first).as_deref(), Some(&1));
        assert_eq!((table.get(first), table.len()), (None, 1));
        assert_eq!(table.close(first), None, "it is closed once");
        let second = table.insert(2);
        assert_ne!(second.key(), first.key());
        table.free(first);
        let third = table.insert(3);
        assert_eq!(third.key(), first.key());
        assert_eq!(table.get(first), None, "the name of the first is not that of the third");
        let live: Vec<u8> = table.iter().map(|(_, conn)| *conn).collect();
        assert_eq!(live, [3, 2]);
    }
}
