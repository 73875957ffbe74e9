//! The hand-over ring: one producer, one consumer, no lock.
//!
//! Each side keeps its own index and a copy of the other's, and looks at the
//! other's line only when its copy says "full" or "empty". Indices run freely
//! and wrap; a slot is `index & mask`.
//!
//! Memory ordering: the producer writes a slot, then stores `tail` with Release;
//! the consumer loads `tail` with Acquire before it reads the slot. The consumer
//! reads a slot, then stores `head` with Release; the producer loads `head` with
//! Acquire before it writes the slot again. Own indices are plain fields.

use super::sync::atomic::{AtomicUsize, Ordering};
use super::sync::{Arc, Cell};
#[cfg(not(loom))]
use core::mem::offset_of;
use core::mem::MaybeUninit;
use crossbeam::utils::CachePadded;

/// A cache line's bytes, for what two threads write to.
pub(super) const LINE: usize = 64;

struct Inner<T> {
    /// The next slot to read; written by the consumer only.
    head: CachePadded<AtomicUsize>,
    /// The next slot to write; written by the producer only.
    tail: CachePadded<AtomicUsize>,
    /// With [`Inner::PAD`] at both ends that nobody uses.
    slots: Box<[Cell<MaybeUninit<T>>]>,
    mask: usize,
}

/// Whoever writes to one index writes to no line with the other, or with what both read.
#[cfg(not(loom))]
const _: () = {
    let (head, tail) = (offset_of!(Inner<u8>, head), offset_of!(Inner<u8>, tail));
    let (slots, mask) = (offset_of!(Inner<u8>, slots), offset_of!(Inner<u8>, mask));
    assert!(head / LINE != tail / LINE && align_of::<Inner<u8>>() >= LINE);
    assert!(head / LINE != slots / LINE && tail / LINE != slots / LINE);
    assert!(head / LINE != mask / LINE && tail / LINE != mask / LINE);
};

impl<T> Inner<T> {
    /// Slots that keep a line's distance to what lies beside them in memory, which may be
    /// another worker's.
    const PAD: usize = if size_of::<T>() == 0 { 0 } else { LINE.div_ceil(size_of::<T>()) };

    #[inline(always)]
    fn slot(&self, index: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[Self::PAD + (index & self.mask)]
    }
}

// SAFETY: a slot is reached by the producer while it is outside of head..tail and
// by the consumer while it is inside, and the indices' orderings (above) separate
// the two; so the ring only moves values of T from one thread to another.
unsafe impl<T: Send> Sync for Inner<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Inner<T> {}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        let (mut head, tail) =
            (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: head..tail were written and not read; both sides are gone.
            self.slot(head).with_mut(|p| unsafe { (*p).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that puts values in. One thread at a time has it.
pub struct Producer<T> {
    inner: Arc<Inner<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that takes values out. One thread at a time has it.
pub struct Consumer<T> {
    inner: Arc<Inner<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring of at least `capacity` values (rounded up to a power of two).
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let inner = Arc::new(Inner {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        slots: (0..capacity + 2 * Inner::<T>::PAD).map(|_| Cell::new(MaybeUninit::uninit())).collect(),
        mask: capacity - 1,
    });
    (
        Producer { inner: inner.clone(), tail: 0, head_seen: 0 },
        Consumer { inner, head: 0, tail_seen: 0 },
    )
}

impl<T: Send> Producer<T> {
    /// Values that the ring holds, at most.
    pub fn capacity(&self) -> usize {
        self.inner.mask + 1
    }

    /// Slots that are free now (the consumer may be freeing more).
    #[inline]
    pub fn room(&mut self) -> usize {
        self.head_seen = self.inner.head.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    /// Values not yet taken.
    pub fn len(&mut self) -> usize {
        self.capacity() - self.room()
    }

    /// True where the consumer has taken everything.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// Puts one value in, or gives it back where the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.stage(value)?;
        self.publish();
        Ok(())
    }

    /// Writes one value that the consumer sees only after [`Producer::publish`].
    #[inline]
    pub fn stage(&mut self, value: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head_seen) == self.capacity() && self.room() == 0 {
            return Err(value);
        }
        self.inner.slot(self.tail).with_mut(|p| {
            // SAFETY: the slot is outside of head..tail, so it is the producer's.
            unsafe { (*p).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Shows the consumer everything staged: one store for the batch.
    #[inline]
    pub fn publish(&mut self) {
        self.inner.tail.store(self.tail, Ordering::Release);
    }

    /// Moves values from the iterator into the ring while there is room; says how many.
    pub fn push_batch(&mut self, values: &mut impl Iterator<Item = T>) -> usize {
        let room = self.room();
        let mut n = 0;
        while n < room {
            let Some(value) = values.next() else { break };
            let staged = self.stage(value).is_ok();
            debug_assert!(staged, "there was room");
            n += 1;
        }
        self.publish();
        n
    }
}

impl<T: Send> Consumer<T> {
    /// Values that wait now (the producer may be adding more).
    #[inline]
    pub fn len(&mut self) -> usize {
        self.tail_seen = self.inner.tail.load(Ordering::Acquire);
        self.tail_seen.wrapping_sub(self.head)
    }

    /// True where nothing waits.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.tail_seen == self.head && self.len() == 0
    }

    /// The oldest value, left where it is.
    #[inline]
    pub fn peek(&mut self) -> Option<&mut T> {
        if self.is_empty() {
            return None;
        }
        self.inner.slot(self.head).with_mut(|p| {
            // SAFETY: the slot is inside head..tail, so it is initialised and the
            // consumer's; the borrow of `self` keeps it from being popped.
            Some(unsafe { (*p).assume_init_mut() })
        })
    }

    /// Takes the oldest value.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let value = self.take()?;
        self.release();
        Some(value)
    }

    /// Takes the oldest value; its slot is free only after [`Consumer::release`].
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let value = self.inner.slot(self.head).with(|p| {
            // SAFETY: the slot is inside head..tail; after this `head` moves on, so
            // the value is read out once.
            unsafe { (*p).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// Gives the producer the slots of everything taken: one store for the batch.
    #[inline]
    pub fn release(&mut self) {
        self.inner.head.store(self.head, Ordering::Release);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // Staged values become the ring's, which drops them.
        self.inner.tail.store(self.tail, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Values that were taken are not the ring's any more.
        self.inner.head.store(self.head, Ordering::Release);
    }
}

impl<T> core::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> core::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn values_arrive_once_and_in_order() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<Box<u32>>(2);
            let producer = thread::spawn(move || {
                for i in 0..3u32 {
                    let mut value = Box::new(i);
                    while let Err(back) = tx.push(value) {
                        value = back;
                        thread::yield_now();
                    }
                }
            });
            for i in 0..3u32 {
                let value = loop {
                    if let Some(value) = rx.pop() {
                        break value;
                    }
                    thread::yield_now();
                };
                assert_eq!(*value, i);
            }
            assert!(rx.pop().is_none());
            producer.join().unwrap();
        });
    }

    #[test]
    fn a_staged_batch_appears_at_once_and_slots_are_not_reused_before_release() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<u32>(2);
            let producer = thread::spawn(move || {
                tx.stage(1).unwrap();
                tx.stage(2).unwrap();
                tx.publish();
                let mut value = 3;
                while let Err(back) = tx.push(value) {
                    value = back;
                    thread::yield_now();
                }
            });
            while rx.is_empty() {
                thread::yield_now();
            }
            assert!(rx.len() == 2);
            assert_eq!((rx.take(), rx.take()), (Some(1), Some(2)));
            rx.release();
            while rx.is_empty() {
                thread::yield_now();
            }
            assert_eq!(rx.pop(), Some(3));
            producer.join().unwrap();
        });
    }

    #[test]
    fn what_was_not_taken_is_dropped_with_the_ring() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<Arc<()>>(4);
            let value = Arc::new(());
            let copies = [value.clone(), value.clone()];
            let producer = thread::spawn(move || {
                for copy in copies {
                    tx.push(copy).unwrap();
                }
            });
            drop(rx.pop());
            drop(rx);
            producer.join().unwrap();
            assert_eq!(Arc::strong_count(&value), 1);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_value_back() {
        let (mut tx, mut rx) = ring(3);
        assert_eq!(tx.capacity(), 4);
        let mut values = 0..10;
        assert_eq!(tx.push_batch(&mut values), 4);
        assert_eq!(tx.push(99), Err(99));
        assert_eq!(rx.peek(), Some(&mut 0));
        assert_eq!(rx.pop(), Some(0));
        assert_eq!(tx.push_batch(&mut values), 1);
        assert_eq!(tx.room(), 0);
        for i in 1..5 {
            assert_eq!(rx.take(), Some(i));
        }
        assert_eq!(tx.room(), 0, "taken slots are not free before their release");
        rx.release();
        assert!(tx.is_empty());
        assert_eq!(rx.pop(), None);
    }

    #[test]
    fn values_left_in_the_ring_are_dropped_once() {
        let value = std::sync::Arc::new(());
        let (mut tx, mut rx) = ring(4);
        for _ in 0..3 {
            tx.push(value.clone()).unwrap();
        }
        tx.stage(value.clone()).unwrap();
        drop(rx.take());
        drop(tx);
        drop(rx);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads_pass_a_million_values() {
        let (mut tx, mut rx) = ring::<u64>(64);
        let producer = std::thread::spawn(move || {
            let mut values = 0..1_000_000u64;
            while values.start < values.end {
                if tx.push_batch(&mut values) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 1_000_000 {
            let mut any = false;
            while let Some(value) = rx.take() {
                assert_eq!(value, next);
                next += 1;
                any = true;
            }
            rx.release();
            if !any {
                std::thread::yield_now();
            }
        }
        producer.join().unwrap();
    }
}
