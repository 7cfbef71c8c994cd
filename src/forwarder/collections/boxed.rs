//! Arrays on the heap.

use std::fmt::Debug;

/// An array of copies, made where it stays: [`Box::new`] would make it on the stack, of which there is little.
pub(crate) fn boxed<T: Clone + Debug, const N: usize>(value: T) -> Box<[T; N]> {
    vec![value; N].try_into().expect("there are N")
}
