//! Bytes that a thread has allocated and not freed: what is left after a run was
//! forgotten by somebody.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: i64) {
    // At a thread's end there is nobody left to count for.
    let _ = LIVE.try_with(|live| live.set(live.get() + sign * bytes as i64));
}

/// Bytes that this thread has allocated, less those that it has freed.
pub fn live() -> i64 {
    LIVE.with(Cell::get)
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates
// nothing, as the cell is made at compile time and needs no drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[test]
fn what_is_forgotten_is_seen() {
    let before = live();
    let kept = vec![0u8; 1000];
    assert_eq!(live(), before + 1000);
    drop(kept);
    assert_eq!(live(), before);
}
