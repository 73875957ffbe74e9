//! Frames that a C program holds. C has no move: what it holds is a struct with
//! a number, and the frame itself stays in this table, at its own index. A
//! number is good once, so a frame that is sent twice, given back twice or made
//! up is refused, on whatever thread.

use crate::errno::{Errno, Result};
use crate::frame::Frame;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// Why the program holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To read (`rr_zc_recv`).
    Read,
    /// To write and send (`rr_zc_alloc`).
    Write,
}

/// A frame, and who may do what with it.
#[derive(Debug)]
pub(super) struct Loan<S> {
    /// The socket it was lent by.
    pub socket: S,
    /// What for.
    pub purpose: Purpose,
    /// The frame.
    pub frame: Frame,
}

/// The place of one frame.
struct Slot<S> {
    /// The number of the loan, or 0: there is none, or somebody has it in hand.
    id: AtomicU64,
    /// How often it was lent. Like `loan`, of whoever has the slot in hand.
    times: UnsafeCell<u32>,
    loan: UnsafeCell<Option<Loan<S>>>,
}

/// Loans by number, for the frames of one arena.
pub(super) struct Lent<S> {
    slots: OnceLock<Box<[Slot<S>]>>,
    count: usize,
}

// SAFETY: a slot's cells are touched only by whoever has it in hand: `put` holds
// the frame's token, of which there is one; `take` won the exchange of the
// slot's number for 0, which the storing of the number (Release) precedes.
unsafe impl<S: Send> Sync for Lent<S> {}

impl<S: Copy + PartialEq> Lent<S> {
    /// Nothing lent, of an arena of so many frames.
    pub(super) const fn new(count: usize) -> Self {
        Self { slots: OnceLock::new(), count }
    }

    /// Frames of the arena that it was made for.
    pub(super) fn frames(&self) -> usize {
        self.count
    }

    fn slots(&self) -> &[Slot<S>] {
        let empty = || Slot {
            id: AtomicU64::new(0),
            times: UnsafeCell::new(0),
            loan: UnsafeCell::new(None),
        };
        self.slots.get_or_init(|| (0..self.count).map(|_| empty()).collect())
    }

    /// Keeps a frame; gives the number it is known by (never 0).
    ///
    /// # Panics
    /// If the frame is beyond the arena that the table was made for.
    pub(super) fn put(&self, loan: Loan<S>) -> u64 {
        let index = loan.frame.index();
        let slot = &self.slots()[index as usize];
        debug_assert_eq!(slot.id.load(Ordering::Relaxed), 0, "a frame in two hands");
        // SAFETY: we hold the frame's token, so the slot is in our hand.
        let id = unsafe {
            *slot.times.get() = (*slot.times.get()).wrapping_add(1).max(1);
            *slot.loan.get() = Some(loan);
            u64::from(*slot.times.get()) << 32 | u64::from(index)
        };
        slot.id.store(id, Ordering::Release);
        id
    }

    /// Takes a frame out.
    ///
    /// # Errors
    /// EINVAL where there is no such loan, of this socket and for this purpose
    /// where they are named.
    pub(super) fn take(
        &self,
        id: u64,
        socket: Option<S>,
        purpose: Option<Purpose>,
    ) -> Result<Loan<S>> {
        let slots = self.slots.get().ok_or(Errno::EINVAL)?;
        let slot = slots.get(id as u32 as usize).filter(|_| id != 0).ok_or(Errno::EINVAL)?;
        let won = slot.id.compare_exchange(id, 0, Ordering::Acquire, Ordering::Relaxed);
        won.map_err(|_| Errno::EINVAL)?;
        // SAFETY: the exchange put the slot in our hand.
        let place = unsafe { &mut *slot.loan.get() };
        let fits = |l: &mut Loan<S>| {
            socket.is_none_or(|s| s == l.socket) && purpose.is_none_or(|p| p == l.purpose)
        };
        let loan = place.take_if(fits);
        loan.ok_or_else(|| {
            slot.id.store(id, Ordering::Release);
            Errno::EINVAL
        })
    }

    /// Puts a frame back that was just taken, under the number it had.
    pub(super) fn untake(&self, id: u64, loan: Loan<S>) {
        let slot = &self.slots()[loan.frame.index() as usize];
        debug_assert_eq!(id as u32, loan.frame.index());
        // SAFETY: as in `put`.
        unsafe { *slot.loan.get() = Some(loan) };
        slot.id.store(id, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pool;

    #[test]
    fn a_number_is_good_once_and_for_its_socket_only() {
        let mut pool = Pool::heap(2, 64);
        let lent = Lent::new(2);
        assert_eq!(lent.take(0, Some(7), None).err(), Some(Errno::EINVAL), "before any");
        let loan = Loan { socket: 7, purpose: Purpose::Read, frame: pool.alloc().unwrap() };
        let id = lent.put(loan);
        assert_eq!(lent.take(id, Some(8), None).err(), Some(Errno::EINVAL), "another socket's");
        assert_eq!(lent.take(id, Some(7), Some(Purpose::Write)).err(), Some(Errno::EINVAL));
        assert_eq!(lent.take(id + 1, Some(7), None).err(), Some(Errno::EINVAL), "made up");
        assert_eq!(lent.take(u64::MAX, Some(7), None).err(), Some(Errno::EINVAL), "made up");
        assert_eq!(lent.take(0, Some(7), None).err(), Some(Errno::EINVAL), "zeroed");
        let loan = lent.take(id, Some(7), Some(Purpose::Read)).unwrap();
        assert_eq!(lent.take(id, Some(7), None).err(), Some(Errno::EINVAL), "twice");
        lent.untake(id, loan);
        let loan = lent.take(id, None, None).unwrap();
        let again = lent.put(loan);
        assert_ne!(again, id);
        assert_eq!(lent.take(id, Some(7), None).err(), Some(Errno::EINVAL), "an old number");
        pool.free(lent.take(again, Some(7), None).unwrap().frame);
        pool.assert_conserved();
    }

    #[test]
    fn one_of_several_threads_gets_it() {
        let mut pool = Pool::heap(1, 64);
        let lent = Lent::new(1);
        let mut frame = pool.alloc().unwrap();
        for _ in 0..2000 {
            let id = lent.put(Loan { socket: 1, purpose: Purpose::Write, frame });
            let got: Vec<_> = std::thread::scope(|s| {
                let ask = || lent.take(id, Some(1), None).ok();
                let threads = [s.spawn(ask), s.spawn(ask)];
                threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
            });
            let [loan] = <[_; 1]>::try_from(got).unwrap();
            frame = loan.frame;
        }
        pool.free(frame);
    }
}
