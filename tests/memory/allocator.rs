//! An allocator that counts.
#![allow(unsafe_code, reason = "an allocator is a promise to the compiler")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The allocator of the system, with a count of what is allocated now, and of the most there ever was.
pub(crate) struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Octets allocated now.
pub(crate) fn allocated() -> usize {
    NOW.load(Ordering::Relaxed)
}

/// The most octets that were allocated at a time since the last call of [`forget_most`].
pub(crate) fn most_allocated() -> usize {
    MOST.load(Ordering::Relaxed)
}

/// Counts the most from now on.
pub(crate) fn forget_most() {
    MOST.store(allocated(), Ordering::Relaxed);
}

fn note_more(octets: usize) {
    let now = NOW.fetch_add(octets, Ordering::Relaxed) + octets;
    MOST.fetch_max(now, Ordering::Relaxed);
}

fn note_less(octets: usize) {
    NOW.fetch_sub(octets, Ordering::Relaxed);
}

// SAFETY: every call is passed on unchanged to the allocator of the system, which keeps the promises of
// the trait; what is done besides touches two counters and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_more(layout.size());
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_more(layout.size());
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while one is copied to the other.
        note_more(size);
        // SAFETY: the caller keeps the promises of `realloc`.
        let new = unsafe { System.realloc(old, layout, size) };
        note_less(layout.size());
        new
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        note_less(layout.size());
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(old, layout) }
    }
}
