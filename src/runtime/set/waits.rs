//! For whom what is in a set has been opened: a worker's own sockets are found by that
//! worker's waits alone, until another's first wait has them made any thread's.

use crate::errno::Result;
use crate::runtime::descriptors::Owner;
use crate::runtime::sync::atomic::{AtomicU32, Ordering};

const NOBODY: u32 = u32::MAX;
const ANYBODY: u32 = u32::MAX - 1;
/// An opening is under way, or failed while another was: with this goes its number.
const OPENING: u32 = 1 << 31;
const NUMBERS: u32 = (1 << 30) - 1;

/// Who waits on a set: nobody yet, one worker's program, or whoever likes. What others'
/// waits are to find is no worker's own any more.
pub(super) struct Waits {
    now: AtomicU32,
    opened: AtomicU32,
}

/// The worker's program, as a state. Those have 24 bits.
fn waiter(owner: Option<Owner>) -> u32 {
    owner.map_or(ANYBODY, |o| u32::from(o.runtime) << 8 | u32::from(o.worker))
}

impl Waits {
    pub fn new() -> Self {
        Self { now: AtomicU32::new(NOBODY), opened: AtomicU32::new(0) }
    }

    /// True where another than this worker's program waits, or is about to.
    pub fn is_for_others(&self, owner: Owner) -> bool {
        let now = self.now.load(Ordering::SeqCst);
        now != NOBODY && now != waiter(Some(owner))
    }

    /// True where this one's wait finds everything: one load and a comparison.
    #[inline]
    pub fn is_open_to(&self, owner: Option<Owner>) -> bool {
        let now = self.now.load(Ordering::Relaxed);
        now == ANYBODY || now == waiter(owner)
    }

    /// Enters a worker's own part of the set by `enter`; `None` where others wait, who
    /// would not find it there.
    ///
    /// Who begins to wait meanwhile either finds that part, and has it opened on this
    /// worker behind what this worker does now, or is seen here: its look at the parts,
    /// under a claim, comes after its note, and `enter`, under the same one, before this
    /// look.
    pub fn enter_own<T>(&self, owner: Owner, enter: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
        if self.is_for_others(owner) {
            return Ok(None);
        }
        let entered = enter()?;
        Ok(entered.filter(|_| !self.is_for_others(owner)))
    }

    /// Opens it to one more by `open`, which is given the worker whose own sockets
    /// may stay so. From before it on what comes in is for all.
    ///
    /// Where that fails those who waited before still do, and nobody else: what was is
    /// put back, unless another opening began meanwhile. That one may rely on what
    /// comes in since this one began, so the state stays a number, which is for all and
    /// which the next to wait opens again. One number follows the other, so none is
    /// taken for another's.
    #[cold]
    pub fn open_to(&self, owner: Option<Owner>, open: impl FnOnce(Option<Owner>) -> Result<()>) -> Result<()> {
        let mine = OPENING | self.opened.fetch_add(1, Ordering::Relaxed) & NUMBERS;
        let before = self.now.swap(mine, Ordering::SeqCst);
        let me = waiter(owner);
        let alone = before == NOBODY || before == me;
        let done = open(owner.filter(|_| alone));
        let after = match done {
            Err(_) => before,
            Ok(()) if alone => me,
            Ok(()) => ANYBODY,
        };
        let _ = self.now.compare_exchange(mine, after, Ordering::SeqCst, Ordering::SeqCst);
        done
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::errno::Errno;

    const ONE: Owner = Owner { runtime: 1, worker: 1 };
    const TWO: Owner = Owner { runtime: 1, worker: 2 };

    #[test]
    fn what_comes_in_is_for_those_who_wait_and_an_opening_that_fails_is_undone() {
        let waits = Waits::new();
        let open = |owner, keeps, result| {
            waits.open_to(owner, |own| {
                assert_eq!(own, keeps);
                assert!(waits.is_for_others(TWO), "at once");
                result
            })
        };
        assert_eq!(open(None, None, Err(Errno::ENOMEM)), Err(Errno::ENOMEM));
        assert!(!waits.is_for_others(ONE) && !waits.is_open_to(None) && !waits.is_open_to(Some(ONE)));
        open(Some(ONE), Some(ONE), Ok(())).unwrap();
        assert!(!waits.is_for_others(ONE) && waits.is_for_others(TWO));
        assert_eq!(open(None, None, Err(Errno::ENOMEM)), Err(Errno::ENOMEM));
        assert!(waits.is_open_to(Some(ONE)) && !waits.is_open_to(None) && !waits.is_for_others(ONE));
        open(Some(TWO), None, Ok(())).unwrap();
        assert!(waits.is_open_to(None) && waits.is_for_others(ONE) && waits.is_for_others(TWO));
    }

    #[test]
    fn an_opening_that_fails_leaves_what_another_relies_on() {
        // The second begins and is done while the first is under way.
        for second in [Ok(()), Err(Errno::ENOMEM)] {
            let waits = Waits::new();
            let first = waits.open_to(None, |_| {
                assert!(!waits.is_open_to(None), "it is not done yet");
                assert_eq!(waits.open_to(None, |_| second), second);
                Err(Errno::EIO)
            });
            assert_eq!(first, Err(Errno::EIO));
            assert_eq!((waits.is_open_to(None), waits.is_for_others(ONE)), (second.is_ok(), second.is_ok()));
        }
        // One that fails takes nothing from one that is done after it.
        let waits = Waits::new();
        let inner = core::cell::Cell::new(Ok(()));
        waits.open_to(None, |_| {
            inner.set(waits.open_to(Some(ONE), |own| {
                assert_eq!(own, None, "the first's wait is to find it");
                Err(Errno::ENOMEM)
            }));
            Ok(())
        }).unwrap();
        assert_eq!(inner.get(), Err(Errno::ENOMEM));
        assert!(waits.is_for_others(ONE) && waits.is_open_to(None), "the first waits");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::runtime::claim::Claim;
    use loom::sync::Arc;

    /// A socket comes into its worker's own part while a thread begins to wait: it stays
    /// out, or the wait finds the part.
    #[test]
    fn an_own_socket_does_not_come_in_behind_the_back_of_who_begins_to_wait() {
        loom::model(|| {
            let shared = Arc::new((Waits::new(), Claim::new(false)));
            let waiter = {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    let mut found = false;
                    let opened = shared.0.open_to(None, |_| {
                        found = *shared.1.hold();
                        Ok(())
                    });
                    opened.map(|()| found)
                })
            };
            let one = Owner { runtime: 1, worker: 1 };
            let entered = shared.0.enter_own(one, || {
                *shared.1.hold() = true;
                Ok(Some(()))
            });
            let found = waiter.join().unwrap().unwrap();
            assert!(entered == Ok(None) || found);
        });
    }
}
