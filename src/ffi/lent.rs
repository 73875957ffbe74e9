//! Frames that a C program holds. C has no move: what it holds is a struct with
//! a number, and the frame itself stays in this table. A number is good once,
//! so a frame that is sent twice, given back twice or made up is refused.

use crate::errno::{Errno, Result};
use crate::frame::Frame;

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

/// Loans by number.
#[derive(Debug)]
pub(super) struct Lent<S> {
    slots: Vec<(u32, Option<Loan<S>>)>,
    free: Vec<u32>,
}

impl<S: Copy + PartialEq> Lent<S> {
    /// Nothing lent.
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Frames that are out.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps a frame; gives the number it is known by (never 0).
    pub(super) fn put(&mut self, loan: Loan<S>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((1, None));
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(loan);
        u64::from(slot.0) << 32 | u64::from(index)
    }

    /// Takes a frame out.
    ///
    /// # Errors
    /// EINVAL where there is no such loan, of this socket and for this purpose
    /// where they are named.
    pub(super) fn take(
        &mut self,
        id: u64,
        socket: Option<S>,
        purpose: Option<Purpose>,
    ) -> Result<Loan<S>> {
        let slot = self.slots.get_mut(id as u32 as usize).ok_or(Errno::EINVAL)?;
        let fits = |l: &mut Loan<S>| {
            socket.is_none_or(|s| s == l.socket) && purpose.is_none_or(|p| p == l.purpose)
        };
        if u64::from(slot.0) != id >> 32 {
            return Err(Errno::EINVAL);
        }
        let loan = slot.1.take_if(fits).ok_or(Errno::EINVAL)?;
        slot.0 = slot.0.wrapping_add(1).max(1);
        self.free.push(id as u32);
        Ok(loan)
    }

    /// Puts a frame back that was just taken, under the number it had.
    pub(super) fn untake(&mut self, id: u64, loan: Loan<S>) {
        let index = id as u32;
        debug_assert_eq!(self.free.last(), Some(&index));
        self.free.pop();
        self.slots[index as usize] = ((id >> 32) as u32, Some(loan));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pool;

    #[test]
    fn a_number_is_good_once_and_for_its_socket_only() {
        let mut pool = Pool::heap(2, 64);
        let mut lent = Lent::new();
        let loan = Loan { socket: 7, purpose: Purpose::Read, frame: pool.alloc().unwrap() };
        let id = lent.put(loan);
        assert_eq!(lent.take(id, Some(8), None).err(), Some(Errno::EINVAL), "another socket's");
        assert_eq!(lent.take(id, Some(7), Some(Purpose::Write)).err(), Some(Errno::EINVAL));
        assert_eq!(lent.take(id + 1, Some(7), None).err(), Some(Errno::EINVAL), "made up");
        assert_eq!(lent.take(0, Some(7), None).err(), Some(Errno::EINVAL), "zeroed");
        let loan = lent.take(id, Some(7), Some(Purpose::Read)).unwrap();
        assert_eq!(lent.take(id, Some(7), None).err(), Some(Errno::EINVAL), "twice");
        lent.untake(id, loan);
        assert_eq!(lent.len(), 1);
        let loan = lent.take(id, Some(7), None).unwrap();
        let again = lent.put(loan);
        assert_ne!(again, id);
        assert_eq!(lent.take(id, Some(7), None).err(), Some(Errno::EINVAL), "an old number");
        pool.free(lent.take(again, Some(7), None).unwrap().frame);
        assert_eq!(lent.len(), 0);
        pool.assert_conserved();
    }
}
