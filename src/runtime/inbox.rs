//! What several workers hand to one, each by a ring of its own, and one count of how often
//! they did.
//!
//! In a turn the worker compares the count alone with what it was, however many the others
//! are: a load of a line that nobody writes to while nothing is handed over. It looks into
//! the rings only where the count has changed, and never writes to it.
//!
//! Memory ordering: who hands something over publishes it in the ring, and only then counts
//! (Release); the worker loads the count (Acquire), and only then empties the rings. A
//! count that it saw shows it what was published before; what it does not find in a ring
//! was published later, and will still be counted. Counting is one atomic step, not a load
//! and a store: it continues what those who counted before have released, so the worker
//! sees what all of them published. The look at the count may miss what is just being
//! counted, and no fence would change that; the next turn sees it. Only a worker that goes
//! to sleep has no next turn: it looks once more between its announcement with a full fence
//! and the sleep (`Worker::sleep`), and who counted looks for the announcement after a full
//! fence (`Sleeper::wake`). One of the two sees the other (see sleep.rs). Checked by loom
//! (below).

use super::ring::{Consumer, LINE, Producer, ring};
use super::sync::Arc;
use super::sync::atomic::{AtomicUsize, Ordering};
use crossbeam::utils::CachePadded;

/// How often something was handed over to one worker: written by all others.
struct Count(CachePadded<AtomicUsize>);

/// No line with anything else, the count of an `Arc` included.
const _: () = assert!(align_of::<Count>() >= LINE && size_of::<Count>().is_multiple_of(LINE));

/// The end of who hands over to one other.
pub(super) struct Outbox<T> {
    ring: Producer<T>,
    count: Arc<Count>,
}

/// The end of who takes what all others hand over.
pub(super) struct Inbox<T> {
    count: Arc<Count>,
    /// The count when everything was taken.
    taken: usize,
    /// By worker; `None` for oneself. All workers' are made by one thread: without the
    /// padding the end of one's would lie in a line with the beginning of another's.
    rings: Vec<Option<CachePadded<Consumer<T>>>>,
    /// Whose ring is looked at first: room that one's used up leaves the others' for later.
    first: usize,
}

/// An inbox for this one of so many workers, and what each other one puts into it.
pub(super) fn inbox<T: Send>(worker: usize, workers: usize, capacity: usize) -> (Inbox<T>, Vec<Option<Outbox<T>>>) {
    let count = Arc::new(Count(CachePadded::new(AtomicUsize::new(0))));
    let ends = |other: usize| {
        if other == worker {
            return (None, None);
        }
        let (tx, rx) = ring(capacity);
        (Some(CachePadded::new(rx)), Some(Outbox { ring: tx, count: count.clone() }))
    };
    let (rings, outboxes) = (0..workers).map(ends).unzip();
    (Inbox { count, taken: 0, rings, first: 0 }, outboxes)
}

impl<T: Send> Outbox<T> {
    /// Puts one value in, or gives it back where there is no room.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.ring.push(value)?;
        self.count.0.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Moves values from the iterator while there is room.
    pub fn push_batch(&mut self, values: &mut impl Iterator<Item = T>) {
        if self.ring.push_batch(values) > 0 {
            self.count.0.fetch_add(1, Ordering::Release);
        }
    }
}

impl<T: Send> Inbox<T> {
    /// Whether something was handed over.
    #[inline(always)]
    pub fn has_work(&self) -> bool {
        self.count.0.load(Ordering::Relaxed) != self.taken
    }

    /// Takes what waits, until `put` says that it has no room for more: whether there was
    /// anything.
    pub fn take(&mut self, mut put: impl FnMut(T) -> bool) -> bool {
        let count = self.count.0.load(Ordering::Acquire);
        if count == self.taken {
            return false;
        }
        let (workers, first) = (self.rings.len(), self.first);
        let mut any = false;
        for from in (first..first + workers).map(|from| from % workers) {
            let Some(ring) = &mut self.rings[from] else { continue };
            let mut room = true;
            while room && let Some(value) = ring.take() {
                any = true;
                room = put(value);
            }
            ring.release();
            if !room {
                // What is left, here or in other rings, is for the next turn.
                self.first = (from + 1) % workers;
                return any;
            }
        }
        self.taken = count;
        any
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::runtime::sleep::SleepFlag;
    use loom::sync::Notify;
    use loom::thread;

    /// Workers hand so many values each to one that takes `room` of them in a turn, and
    /// sleeps where nothing waits. A value that is not seen, or slept over, is a deadlock,
    /// which loom reports.
    fn all_arrive(others: usize, each: u32, room: u32, preemptions: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let asleep = Arc::new((SleepFlag::default(), Notify::new()));
            let (mut inbox, outboxes) = inbox::<u32>(others, others + 1, 2);
            let hand_over = |mut outbox: Outbox<u32>| {
                let asleep = asleep.clone();
                thread::spawn(move || {
                    for value in 0..each {
                        assert_eq!(outbox.push(value), Ok(()));
                        if asleep.0.must_wake() {
                            asleep.1.notify();
                        }
                    }
                })
            };
            let threads: Vec<_> = outboxes.into_iter().flatten().map(hand_over).collect();
            let (mut got, all) = (0, others as u32 * each);
            while got < all {
                let before = got;
                let any = inbox.take(|_| {
                    got += 1;
                    got - before < room
                });
                assert_eq!(any, got > before);
                if got == all || any {
                    continue;
                }
                asleep.0.announce();
                if !inbox.has_work() {
                    asleep.1.wait();
                }
                asleep.0.awake();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(!inbox.take(|_| true));
        });
    }

    #[test]
    fn what_one_hands_over_is_neither_lost_nor_slept_over() {
        all_arrive(1, 2, u32::MAX, 3);
    }

    #[test]
    fn what_two_hand_over_is_neither_lost_nor_slept_over() {
        all_arrive(2, 1, u32::MAX, 1);
    }

    #[test]
    fn what_there_was_no_room_for_is_taken_later() {
        all_arrive(1, 2, 1, 2);
        all_arrive(2, 1, 1, 1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_is_heard() {
        const MANY: usize = 100;
        for worker in [0, 1, 63, MANY - 1] {
            let (mut inbox, mut outboxes) = inbox::<usize>(worker, MANY, 4);
            for (other, outbox) in outboxes.iter_mut().enumerate() {
                assert_eq!(outbox.is_none(), other == worker);
                let Some(outbox) = outbox else { continue };
                assert!(!inbox.has_work());
                outbox.push_batch(&mut [other, other + 100].into_iter());
                assert!(inbox.has_work());
                let mut got = Vec::new();
                assert!(inbox.take(|value| {
                    got.push(value);
                    true
                }));
                assert_eq!(got, [other, other + 100]);
                assert!(!inbox.has_work() && !inbox.take(|_| true));
            }
        }
    }

    #[test]
    fn who_fills_the_room_does_not_keep_the_others_out() {
        let (mut inbox, outboxes) = inbox::<usize>(2, 5, 8);
        let mut outboxes: Vec<_> = outboxes.into_iter().flatten().zip([0, 1, 3, 4]).collect();
        for (outbox, other) in &mut outboxes {
            outbox.push_batch(&mut std::iter::repeat_n(*other, 4));
        }
        let mut got = Vec::new();
        while inbox.has_work() {
            let until = got.len() + 2;
            inbox.take(|other| {
                got.push(other);
                got.len() < until
            });
        }
        assert_eq!(got, [[0, 0], [1, 1], [3, 3], [4, 4]].repeat(2).concat());
    }

    #[test]
    fn a_ring_without_room_gives_the_value_back() {
        let (mut inbox, mut outboxes) = inbox::<u32>(0, 2, 2);
        let outbox = outboxes[1].as_mut().unwrap();
        assert_eq!([1, 2, 3].map(|value| outbox.push(value)), [Ok(()), Ok(()), Err(3)]);
        outbox.push_batch(&mut [4].into_iter());
        let mut sum = 0;
        inbox.take(|value| {
            sum += value;
            true
        });
        assert_eq!((sum, outbox.push(5)), (3, Ok(())));
    }
}
