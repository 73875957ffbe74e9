//! Exclusive use of one side of a socket's rings by one thread at a time.
//!
//! A claim lasts for a copy, never for a sleep, so whoever finds it taken yields
//! until it is free; there is nothing to sleep on and no system call but
//! `sched_yield`, and that only where two threads use one socket at one moment.
//!
//! Memory ordering: taking is an Acquire exchange, giving back a Release store,
//! so that what one holder did is seen by the next.

use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::Cell;

/// A value for one thread at a time.
#[derive(Debug)]
pub struct Claim<T> {
    taken: AtomicBool,
    value: Cell<T>,
}

// SAFETY: the value is reached by the holder of the claim alone, of which there
// is one; so it only moves between threads.
unsafe impl<T: Send> Sync for Claim<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Claim<T> {}

/// The claim, held. Dropping it gives it back.
#[derive(Debug)]
pub struct Held<'a, T>(&'a Claim<T>);

impl<T> Claim<T> {
    /// A value that nobody holds.
    pub fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: Cell::new(value) }
    }

    /// Takes the claim if it is free.
    #[inline]
    pub fn try_hold(&self) -> Option<Held<'_, T>> {
        let won =
            self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Not `then_some`: a `Held` that is made is one that gives back.
        won.then(|| Held(self))
    }

    /// Takes the claim, yielding while another thread has it.
    #[inline]
    pub fn hold(&self) -> Held<'_, T> {
        loop {
            if let Some(held) = self.try_hold() {
                return held;
            }
            wait();
        }
    }
}

#[cold]
fn wait() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}

impl<T> core::ops::Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the one holder; the borrow ends before it is dropped.
        self.0.value.with(|value| unsafe { &*value })
    }
}

impl<T> core::ops::DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the one holder, exclusively borrowed.
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn one_holder_at_a_time_sees_what_the_last_did() {
        loom::model(|| {
            let claim = Arc::new(Claim::new(0u32));
            let other = {
                let claim = claim.clone();
                loom::thread::spawn(move || *claim.hold() += 1)
            };
            *claim.hold() += 1;
            other.join().unwrap();
            assert_eq!(*claim.hold(), 2);
        });
    }
}
