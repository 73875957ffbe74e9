//! Frames that a C program holds. C has no move: what it holds is a struct with
//! a number, and the frame itself stays in this table, at its own index. A
//! number is good once, so a frame that is sent twice, given back twice or made
//! up is refused, on whatever thread.

use crate::errno::{Errno, Result};
use crate::frame::Frame;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// A frame, and who may do what with it.
#[derive(Debug)]
pub(super) struct Loan<S> {
    /// The socket it was lent by.
    pub socket: S,
    /// The frame.
    pub frame: Frame,
}

/// The place of one frame.
struct Slot<S> {
    /// The number of the loan, or 0: there is none, or somebody has it in hand.
    id: AtomicU64,
    /// How often it was lent. Like what follows, of whoever has the slot in hand.
    times: UnsafeCell<u32>,
    socket: UnsafeCell<Option<S>>,
    frame: UnsafeCell<Option<Frame>>,
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

    /// The places, made with the first loan.
    fn places(&self) -> Places<'_, S> {
        let empty = || Slot {
            id: AtomicU64::new(0),
            times: UnsafeCell::new(0),
            socket: UnsafeCell::new(None),
            frame: UnsafeCell::new(None),
        };
        Places(self.slots.get_or_init(|| (0..self.count).map(|_| empty()).collect()))
    }

    /// The places, if they are made, and for as many frames.
    #[inline(always)]
    pub(super) fn made(&self, frames: usize) -> Option<Places<'_, S>> {
        self.slots.get().filter(|slots| slots.len() >= frames).map(|slots| Places(slots))
    }

    /// Keeps a frame; gives the number it is known by (never 0).
    ///
    /// # Panics
    /// If the frame is beyond the arena that the table was made for.
    pub(super) fn put(&self, loan: Loan<S>) -> u64 {
        self.places().put(loan)
    }

    /// Takes a frame out.
    ///
    /// # Errors
    /// EINVAL where there is no such loan, of this socket where one is named.
    pub(super) fn take(&self, id: u64, socket: Option<S>) -> Result<Loan<S>> {
        self.made(0).and_then(|places| places.take(id, socket)).ok_or(Errno::EINVAL)
    }

    /// Puts a frame back that was just taken, under the number it had.
    pub(super) fn untake(&self, id: u64, loan: Loan<S>) {
        self.places().untake(id, loan);
    }
}

/// The places of frames that are lent.
#[derive(Clone, Copy)]
pub(super) struct Places<'a, S>(&'a [Slot<S>]);

impl<'a, S: Copy + PartialEq> Places<'a, S> {
    /// As [`Lent::put`], without a call.
    #[inline(always)]
    pub(super) fn put(self, loan: Loan<S>) -> u64 {
        let index = loan.frame.index();
        let slot = &self.0[index as usize];
        debug_assert_eq!(slot.id.load(Ordering::Relaxed), 0, "a frame in two hands");
        // SAFETY: we hold the frame's token, so the slot is in our hand.
        let id = unsafe {
            *slot.times.get() = (*slot.times.get()).wrapping_add(1).max(1);
            *slot.socket.get() = Some(loan.socket);
            *slot.frame.get() = Some(loan.frame);
            u64::from(*slot.times.get()) << 32 | u64::from(index)
        };
        slot.id.store(id, Ordering::Release);
        id
    }

    /// As [`Lent::take`].
    fn take(self, id: u64, socket: Option<S>) -> Option<Loan<S>> {
        let slot = self.seize(id)?;
        // SAFETY: the slot is in our hand.
        let (by, place) = unsafe { (*slot.socket.get(), &mut *slot.frame.get()) };
        let by = by.filter(|by| socket.is_none_or(|s| s == *by));
        let loan = by.zip(place.take_if(|_| by.is_some())).map(|(socket, frame)| Loan { socket, frame });
        if loan.is_none() {
            slot.id.store(id, Ordering::Release);
        }
        loan
    }

    /// Has `f` take a frame of this socket's from where it lies, or leave it there: true
    /// where it took it.
    #[inline(always)]
    pub(super) fn take_by(self, id: u64, socket: S, f: impl FnOnce(&mut Option<Frame>)) -> bool {
        let Some(slot) = self.seize(id) else { return false };
        // SAFETY: the slot is in our hand.
        let (by, place) = unsafe { (*slot.socket.get(), &mut *slot.frame.get()) };
        if by == Some(socket) {
            f(place);
        }
        let taken = place.is_none();
        if !taken {
            slot.id.store(id, Ordering::Release);
        }
        taken
    }

    /// Takes the slot of a loan into our hand.
    #[inline(always)]
    fn seize(self, id: u64) -> Option<&'a Slot<S>> {
        let slot = self.0.get(id as u32 as usize).filter(|_| id != 0)?;
        slot.id.compare_exchange(id, 0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(slot)
    }

    /// As [`Lent::untake`].
    fn untake(self, id: u64, loan: Loan<S>) {
        let slot = &self.0[loan.frame.index() as usize];
        debug_assert_eq!(id as u32, loan.frame.index());
        // SAFETY: as in `put`.
        unsafe { *slot.frame.get() = Some(loan.frame) };
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
        assert_eq!(lent.take(0, Some(7)).err(), Some(Errno::EINVAL), "before any");
        let loan = Loan { socket: 7, frame: pool.alloc().unwrap() };
        let id = lent.put(loan);
        assert_eq!(lent.take(id, Some(8)).err(), Some(Errno::EINVAL), "another socket's");
        assert_eq!(lent.take(id + 1, Some(7)).err(), Some(Errno::EINVAL), "made up");
        assert_eq!(lent.take(u64::MAX, Some(7)).err(), Some(Errno::EINVAL), "made up");
        assert_eq!(lent.take(0, Some(7)).err(), Some(Errno::EINVAL), "zeroed");
        let loan = lent.take(id, Some(7)).unwrap();
        assert_eq!(lent.take(id, Some(7)).err(), Some(Errno::EINVAL), "twice");
        lent.untake(id, loan);
        let left = lent.made(2).unwrap().take_by(id, 7, |frame| assert!(frame.is_some()));
        let foreign = lent.made(2).unwrap().take_by(id, 8, |_| panic!("another socket's"));
        assert!(!left && !foreign && lent.made(3).is_none());
        let mut taken = None;
        assert!(lent.made(2).unwrap().take_by(id, 7, |frame| taken = frame.take()));
        assert!(!lent.made(2).unwrap().take_by(id, 7, |_| panic!("twice")));
        lent.untake(id, Loan { socket: 7, frame: taken.unwrap() });
        let loan = lent.take(id, None).unwrap();
        let again = lent.put(loan);
        assert_ne!(again, id);
        assert_eq!(lent.take(id, Some(7)).err(), Some(Errno::EINVAL), "an old number");
        pool.free(lent.take(again, Some(7)).unwrap().frame);
        pool.assert_conserved();
    }

    #[test]
    fn one_of_several_threads_gets_it() {
        let mut pool = Pool::heap(1, 64);
        let lent = Lent::new(1);
        let mut frame = pool.alloc().unwrap();
        for _ in 0..2000 {
            let id = lent.put(Loan { socket: 1, frame });
            let got: Vec<_> = std::thread::scope(|s| {
                let ask = || lent.take(id, Some(1)).ok();
                let threads = [s.spawn(ask), s.spawn(ask)];
                threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
            });
            let [loan] = <[_; 1]>::try_from(got).unwrap();
            frame = loan.frame;
        }
        pool.free(frame);
    }
}
