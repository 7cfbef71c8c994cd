//! Sorting in little code.

/// Sorts by what `key` makes of the elements; elements with equal keys come in any order.
///
/// For each type and key, the standard library's sort takes 7 KB of the program, for speed with much
/// that is far from sorted. What is sorted here is a few upstreams, or seldom. Shell's method needs no
/// memory, and is an insertion sort for up to four elements.
pub(crate) fn sort_by_key<T, K: Ord>(elements: &mut [T], key: impl Fn(&T) -> K) {
    let mut gap = elements.len();
    while gap > 1 {
        gap = (gap * 5 / 11).max(1);
        for end in gap..elements.len() {
            let mut at = end;
            while at >= gap && key(&elements[at]) < key(&elements[at - gap]) {
                elements.swap(at, at - gap);
                at -= gap;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::collections::random::Random;

    #[test]
    fn every_length_is_sorted_like_the_standard_library_does() {
        let mut random = Random::new(1);
        for len in (0..70).chain([1_000, 16_384]) {
            for different in [1, 3, u64::MAX] {
                let mut elements: Vec<u64> = (0..len).map(|_| random.next() % different).collect();
                let mut expected = elements.clone();
                expected.sort_unstable_by_key(|&element| !element);
                sort_by_key(&mut elements, |&element| !element);
                assert_eq!(elements, expected);
            }
        }
    }

    #[test]
    fn what_is_sorted_either_way_takes_few_comparisons() {
        for descends in [false, true] {
            let mut elements: Vec<usize> = (0..16_384).collect();
            if descends {
                elements.reverse();
            }
            let keys = std::cell::Cell::new(0);
            sort_by_key(&mut elements, |&element| {
                keys.set(keys.get() + 1);
                element
            });
            assert!(elements.is_sorted());
            assert!(keys.get() < 60 * elements.len(), "{}", keys.get());
        }
    }
}
