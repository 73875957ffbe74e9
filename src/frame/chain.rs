//! Chains: packets to be sent that are larger than a frame.
//!
//! A chain is a frame with others linked behind it in the pool. Its holder has one
//! token, the first frame's, as of any other packet; the pool keeps the others, and
//! gives them back with it. So whoever keeps, passes on or frees frames need not know
//! that some are chains. (A received packet of several frames is a
//! [`Packet`](super::Packet), all of whose tokens are out.)

use super::pool::{HEAD, LINKED, Pool, TX_PENDING};
use super::{Frame, TxDesc, TxQueue};
use arrayvec::ArrayVec;

/// Frames of a packet, at most: what Linux takes in one packet of several buffers
/// (MAX_SKB_FRAGS and the linear part); 64 KiB, as a virtual interface hands over, fit in as many.
pub const MOST_PIECES: usize = 18;

/// No frame follows.
const END: u32 = u32::MAX;

/// What the pool knows of a frame in a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The slot of the frame behind it.
    next: u32,
    /// Bytes of payload in it, from its first on; of the chain's first frame its
    /// holder knows.
    len: u16,
}

/// The frames of a chain behind the first, taken out of it.
pub type Pieces = ArrayVec<Frame, MOST_PIECES>;

impl Pool {
    /// True where frames are linked behind this one.
    #[inline]
    pub fn is_chained(&self, head: &Frame) -> bool {
        self.slot(head.index).is_some_and(|slot| self.state[slot] & HEAD != 0)
    }

    /// Links frames behind this one, in place of what was linked there. Their ranges
    /// begin at their first byte.
    ///
    /// # Panics
    /// If it has a chain already, or one of them is no frame of this pool, is in a
    /// chain, or begins elsewhere.
    pub fn link(&mut self, head: &Frame, rest: Pieces) {
        if rest.is_empty() {
            return;
        }
        assert!(rest.len() < MOST_PIECES, "a chain of too many frames");
        if self.links.is_empty() {
            // The first chain of this pool; most pools never have one.
            self.links = vec![Link { next: END, len: 0 }; self.capacity() as usize].into();
        }
        let mut last = self.slot(head.index).expect("only home frames are linked");
        assert_eq!(self.state[last] & (HEAD | LINKED), 0, "it is in a chain");
        self.state[last] |= HEAD;
        for frame in rest {
            let slot = self.slot(frame.index).expect("only home frames are linked");
            assert_eq!(self.state[slot] & (HEAD | LINKED), 0, "it is in a chain");
            assert!(self.arena.owns(&frame) && frame.offset == 0 && frame.len > 0);
            self.state[slot] |= LINKED;
            self.links[last].next = slot as u32;
            self.links[slot] = Link { next: END, len: frame.len };
            self.held -= 1;
            self.linked += 1;
            last = slot;
        }
    }

    /// Takes the frames behind this one out of its chain.
    pub fn unlink(&mut self, head: &Frame) -> Pieces {
        let mut rest = Pieces::new();
        let Some(first) = self.slot(head.index).filter(|slot| self.state[*slot] & HEAD != 0) else {
            return rest;
        };
        self.state[first] &= !HEAD;
        let mut next = self.links[first].next;
        while next != END {
            let slot = next as usize;
            debug_assert!(self.state[slot] & LINKED != 0);
            self.state[slot] &= !LINKED;
            self.linked -= 1;
            self.held += 1;
            rest.push(self.arena.mint(self.first + next, 0, self.links[slot].len));
            next = self.links[slot].next;
        }
        rest
    }

    /// The slots of the frames behind this one, and their lengths.
    fn behind(&self, head: &Frame) -> impl Iterator<Item = (usize, u16)> + '_ {
        let first = self.slot(head.index).filter(|slot| self.state[*slot] & HEAD != 0);
        let mut next = first.map_or(END, |slot| self.links[slot].next);
        core::iter::from_fn(move || {
            let slot = (next != END).then_some(next as usize)?;
            let link = self.links[slot];
            next = link.next;
            Some((slot, link.len))
        })
    }

    /// Frames of the chain, the first included; 1 where nothing is linked.
    pub fn pieces(&self, head: &Frame) -> usize {
        1 + self.behind(head).count()
    }

    /// The bytes of the frames behind this one, in order.
    pub fn rest_bytes<'a>(&'a self, head: &Frame) -> impl Iterator<Item = &'a [u8]> {
        self.behind(head).map(|(slot, len)| self.arena.linked_bytes(self.first + slot as u32, len))
    }

    /// True while a transmission of any of its frames is pending.
    pub fn is_chain_pending(&self, head: &Frame) -> bool {
        self.is_pending(head) || self.behind(head).any(|(slot, _)| self.state[slot] & TX_PENDING != 0)
    }

    /// Names a whole chain for transmission: the first `len` bytes of its first frame,
    /// and all of the others. As with [`Pool::transmit`] the holder keeps it.
    ///
    /// # Panics
    /// If any of it is pending, or `tx` has not room for as many as its
    /// [`pieces`](Self::pieces).
    pub fn transmit_chain(&mut self, head: &Frame, len: usize, tx: &mut TxQueue) {
        let mut last = self.transmit(head, len);
        let first = self.slot(head.index).filter(|slot| self.state[*slot] & HEAD != 0);
        let mut next = first.map_or(END, |slot| self.links[slot].next);
        while next != END {
            let (slot, link) = (next as usize, self.links[next as usize]);
            assert_eq!(self.state[slot] & TX_PENDING, 0, "sent while pending");
            self.state[slot] |= TX_PENDING;
            last.more = true;
            tx.push(last);
            last = TxDesc { index: self.first + next, len: link.len, more: false };
            next = link.next;
        }
        tx.push(last);
    }

    /// Frees a chain: each of its frames by itself.
    #[cold]
    #[inline(never)]
    pub(super) fn free_chain(&mut self, head: Frame) {
        for frame in self.unlink(&head) {
            self.free(frame);
        }
        self.free(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of `n` frames of `each` bytes, frame i filled with i.
    fn chain(pool: &mut Pool, n: usize, each: usize) -> Frame {
        let mut make = |i: usize| {
            let mut frame = pool.alloc().unwrap();
            frame.set_range(0, each);
            pool.bytes_mut(&mut frame).fill(i as u8);
            frame
        };
        let head = make(0);
        let rest = (1..n).map(make).collect();
        pool.link(&head, rest);
        pool.assert_conserved();
        head
    }

    #[test]
    fn a_chain_is_one_token_and_gives_all_its_frames_back() {
        let mut pool = Pool::heap(8, 128);
        let head = chain(&mut pool, 3, 100);
        assert!(pool.is_chained(&head));
        assert_eq!((pool.pieces(&head), pool.counts().held, pool.counts().linked), (3, 1, 2));
        let parts: Vec<_> = pool.rest_bytes(&head).map(|b| (b.len(), b[0])).collect();
        assert_eq!(parts, [(100, 1), (100, 2)]);
        pool.free(head);
        pool.assert_conserved();
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn every_piece_is_counted_until_its_own_completion() {
        let mut pool = Pool::heap(8, 128);
        let mut tx = TxQueue::new(8);
        let head = chain(&mut pool, 3, 100);
        pool.transmit_chain(&head, 60, &mut tx);
        let sent: Vec<_> = core::iter::from_fn(|| tx.pop()).collect();
        assert_eq!(sent.iter().map(|d| (d.len(), d.more)).collect::<Vec<_>>(), [(60, true), (100, true), (100, false)]);
        // The head alone has completed: the chain is not idle.
        pool.complete(sent[0].index());
        assert!(!pool.is_pending(&head) && pool.is_chain_pending(&head));
        pool.free(head);
        assert_eq!((pool.counts().tx, pool.available()), (2, 6));
        pool.assert_conserved();
        for desc in &sent[1..] {
            pool.complete(desc.index());
        }
        pool.assert_conserved();
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn a_chain_comes_apart_and_together_again() {
        let mut pool = Pool::heap(8, 128);
        let head = chain(&mut pool, 4, 10);
        let mut rest = pool.unlink(&head);
        assert_eq!((pool.pieces(&head), pool.counts().held), (1, 4));
        let gone = rest.remove(1);
        pool.free(gone);
        pool.link(&head, rest);
        assert_eq!(pool.rest_bytes(&head).map(|b| b[0]).collect::<Vec<_>>(), [1, 3]);
        pool.free(head);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    #[should_panic(expected = "in a chain")]
    fn a_frame_is_in_one_chain_at_a_time() {
        let mut pool = Pool::heap(8, 128);
        let head = chain(&mut pool, 2, 10);
        let more = chain(&mut pool, 2, 10);
        pool.link(&head, [more].into_iter().collect());
    }
}
