//! Sleeping and being woken without a lost wake-up, and without a system call
//! where nobody sleeps.
//!
//! The sleeper: set the flag, full fence, look at every source once more, sleep
//! only if all are empty. The waker: put the work where the sleeper will look,
//! full fence, read the flag, write the eventfd only if it is set.
//!
//! Memory ordering: this is the store-then-load pattern on both sides, for which
//! Release and Acquire are not enough; the two SeqCst fences make it impossible
//! that the waker misses the flag *and* the sleeper misses the work. Checked by
//! loom (below).

use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use super::sys::EventFd;
use crossbeam::utils::CachePadded;
use std::os::fd::RawFd;

/// The flag of one sleeper.
#[derive(Debug)]
pub struct SleepFlag(CachePadded<AtomicBool>);

impl Default for SleepFlag {
    fn default() -> Self {
        Self(CachePadded::new(AtomicBool::new(false)))
    }
}

impl SleepFlag {
    /// The sleeper's first step. Look at every source after it.
    pub fn announce(&self) {
        self.0.store(true, Ordering::Release); // what was said before is seen by `take`
        fence(Ordering::SeqCst); // pairs with the one in `must_wake`
    }

    /// Takes the flag down: whether it was up.
    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    /// The sleeper is awake (or found work after all).
    pub fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// The waker's question, after it has put the work in place: true where the
    /// sleeper must be woken, and then to exactly one of several wakers.
    #[inline]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with the one in `announce`
        // Only a set flag is written to by the waker: between two awake sides
        // its line stays shared.
        self.0.load(Ordering::Relaxed)
            && self.0.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the sleeper announced itself. For statistics and tests.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Several sleepers behind one flag. A waker wakes one of them, and takes the flag down
/// with that; who leaves puts it up again for those who stay.
#[derive(Debug)]
pub struct Sleepers {
    flag: SleepFlag,
    count: AtomicUsize,
}

impl Default for Sleepers {
    fn default() -> Self {
        Self { flag: SleepFlag::default(), count: AtomicUsize::new(0) }
    }
}

impl Sleepers {
    /// Before a sleep. Look at every source after it.
    pub fn enter(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.flag.announce();
    }

    /// After it: true where others sleep on. What came meanwhile may have found the flag
    /// down: the caller looks at every source for them, and wakes one.
    pub fn leave(&self) -> bool {
        // Who entered since the count said that nobody is left has put the flag up, and
        // may have found nothing: whoever takes that flag down looks at the count again,
        // by an exchange, which reads the latest.
        let alone = self.count.fetch_sub(1, Ordering::SeqCst) == 1;
        if alone && (!self.flag.take() || self.count.fetch_add(0, Ordering::SeqCst) == 0) {
            return false;
        }
        self.flag.announce();
        true
    }

    /// Whether anybody sleeps, or is about to.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// See [`SleepFlag::must_wake`].
    #[inline]
    pub fn must_wake(&self) -> bool {
        self.flag.must_wake()
    }
}

/// A thread that can sleep until somebody wakes it.
#[derive(Debug)]
pub struct Sleeper {
    flag: SleepFlag,
    event: EventFd,
}

impl Sleeper {
    /// A sleeper with an eventfd of its own.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { flag: SleepFlag::default(), event: EventFd::new()? })
    }

    /// The descriptor to poll while asleep.
    pub fn fd(&self) -> RawFd {
        self.event.fd()
    }

    /// See [`SleepFlag::announce`].
    pub fn announce(&self) {
        self.flag.announce();
    }

    /// Awake again: takes the flag down and empties the eventfd if it was written.
    pub fn awake(&self, written: bool) {
        self.flag.awake();
        if written {
            self.event.drain();
        }
    }

    /// Wakes the sleeper if it sleeps: after the work is in place.
    #[inline]
    pub fn wake(&self) {
        if self.flag.must_wake() {
            self.event.signal();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::runtime::ring::ring;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    /// Sleeper and waker with a `Notify` in the place of the eventfd: it stays set
    /// until the sleeper takes it. A lost wake-up is a deadlock, which loom reports.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((SleepFlag::default(), Notify::new()));
            let (mut tx, mut rx) = ring::<u32>(2);
            let waker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for i in 0..2 {
                        tx.push(i).unwrap();
                        if shared.0.must_wake() {
                            shared.1.notify();
                        }
                    }
                })
            };
            let mut got = 0;
            while got < 2 {
                if rx.pop().is_some() {
                    got += 1;
                    continue;
                }
                shared.0.announce();
                if rx.is_empty() {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            waker.join().unwrap();
        });
    }

    /// An eventfd in an edge-triggered set of the kernel's: one who waits, or comes to
    /// wait, gets a write.
    struct Event {
        written: loom::sync::Mutex<bool>,
        changed: loom::sync::Condvar,
    }

    impl Event {
        fn write(&self) {
            *self.written.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut written = self.written.lock().unwrap();
            while !*written {
                written = self.changed.wait(written).unwrap();
            }
            *written = false;
        }
    }

    /// One leaves by itself, as at the end of its time, while another comes and
    /// sleeps. Whoever is forgotten is a deadlock, which loom reports.
    #[test]
    fn who_leaves_takes_no_wake_up_from_who_comes() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let event = Event { written: loom::sync::Mutex::new(false), changed: loom::sync::Condvar::new() };
            let shared = Arc::new((Sleepers::default(), event, AtomicUsize::new(0)));
            let leaver = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (sleepers, event, work) = &*shared;
                    sleepers.enter();
                    if sleepers.leave() && work.load(Ordering::Relaxed) > 0 && sleepers.must_wake() {
                        event.write();
                    }
                })
            };
            let waker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (sleepers, event, work) = &*shared;
                    work.store(1, Ordering::Relaxed);
                    if sleepers.must_wake() {
                        event.write();
                    }
                })
            };
            let (sleepers, event, work) = &*shared;
            while work.load(Ordering::Relaxed) == 0 {
                sleepers.enter();
                if work.load(Ordering::Relaxed) == 0 {
                    event.wait();
                }
                sleepers.leave();
            }
            leaver.join().unwrap();
            waker.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::runtime::ring::ring;
    use crate::runtime::sys;
    use std::sync::Arc;

    #[test]
    fn an_awake_side_gets_no_eventfd_write() {
        let sleeper = Sleeper::new().unwrap();
        sleeper.wake();
        assert!(!sys::poll_one(sleeper.fd(), Some(0)).unwrap());
        sleeper.announce();
        sleeper.wake();
        sleeper.wake();
        assert!(sys::poll_one(sleeper.fd(), Some(0)).unwrap());
        sleeper.awake(true);
        assert!(!sys::poll_one(sleeper.fd(), Some(0)).unwrap());
    }

    #[test]
    fn a_sleeping_consumer_gets_everything() {
        let sleeper = Arc::new(Sleeper::new().unwrap());
        let (mut tx, mut rx) = ring::<u32>(8);
        let waker = sleeper.clone();
        let producer = std::thread::spawn(move || {
            for i in 0..20_000 {
                while tx.push(i).is_err() {
                    std::thread::yield_now();
                }
                waker.wake();
            }
        });
        let mut next = 0;
        while next < 20_000 {
            match rx.pop() {
                Some(value) => {
                    assert_eq!(value, next);
                    next += 1;
                }
                None => {
                    sleeper.announce();
                    let written = rx.is_empty()
                        && sys::poll_one(sleeper.fd(), Some(10_000_000_000)).unwrap();
                    assert!(written || !rx.is_empty(), "a lost wake-up");
                    sleeper.awake(written);
                }
            }
        }
        producer.join().unwrap();
    }
}
