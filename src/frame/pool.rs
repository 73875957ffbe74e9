//! One worker's share of an arena, and its books.

use super::arena::Access;
use super::chain::Link;
use super::packet::Rest;
use super::{Arena, BATCH, Frame, MOST_PIECES};
use crate::arch;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// A transmission was handed to the device and has not completed.
pub(super) const TX_PENDING: u8 = 1;
/// The holder gave the frame up while its transmission was pending.
const RELEASED: u8 = 2;
/// The frame lies in the free list (checked against double release).
const FREE: u8 = 4;
/// The frame is the device's to fill.
const FILL: u8 = 8;
/// Other frames are linked behind it (see chain.rs).
pub(super) const HEAD: u8 = 16;
/// It is linked behind another, whose holder has it too.
pub(super) const LINKED: u8 = 32;

/// What the device is to send: the first `len` bytes of a frame.
///
/// Every descriptor ends in [`Pool::complete`], whether it was sent or not.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a descriptor that is dropped leaves its frame pending for ever"]
pub struct TxDesc {
    pub(super) index: u32,
    pub(super) len: u16,
    /// The packet goes on in the next descriptor.
    pub more: bool,
}

impl TxDesc {
    /// The frame's number in its arena.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Bytes to send, from the frame's first.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len.into()
    }
}

/// What waits for the device, oldest first. The device takes from the front as
/// much as its ring holds.
#[derive(Debug)]
pub struct TxQueue {
    /// A ring of a power of two of places.
    ring: Box<[Option<TxDesc>]>,
    /// Where the oldest is, and where the next goes; they wrap.
    head: usize,
    tail: usize,
    limit: usize,
}

impl TxQueue {
    /// A queue of at most `limit` descriptors.
    pub fn new(limit: usize) -> Self {
        // One more may be put back at the front.
        let places = (limit + 1).next_power_of_two();
        Self { ring: (0..places).map(|_| None).collect(), head: 0, tail: 0, limit }
    }

    /// Descriptors that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.len())
    }

    /// Descriptors that wait.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// True where nothing waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    /// Adds a descriptor.
    ///
    /// # Panics
    /// If there is no [room](Self::room): whoever sends asks first.
    #[inline(always)]
    pub fn push(&mut self, desc: TxDesc) {
        assert!(self.len() < self.limit, "the transmit queue is full");
        let at = self.tail & (self.ring.len() - 1);
        self.ring[at] = Some(desc);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the oldest descriptor.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<TxDesc> {
        if self.is_empty() {
            return None;
        }
        let at = self.head & (self.ring.len() - 1);
        self.head = self.head.wrapping_add(1);
        self.ring[at].take()
    }

    /// Puts the one back that was taken last (the device had no room after all).
    pub fn unpop(&mut self, desc: TxDesc) {
        self.head = self.head.wrapping_sub(1);
        let at = self.head & (self.ring.len() - 1);
        debug_assert!(self.ring[at].is_none(), "put back without having been taken");
        self.ring[at] = Some(desc);
    }

    /// Descriptors of the oldest packet that come behind the one that was taken last.
    pub fn rest_of_packet(&self) -> usize {
        self.iter().take_while(|desc| desc.more).count() + 1
    }

    /// Looks at the waiting descriptors, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &TxDesc> {
        let mask = self.ring.len().wrapping_sub(1);
        (0..self.len()).filter_map(move |i| self.ring[self.head.wrapping_add(i) & mask].as_ref())
    }
}

/// How many frames are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// In the free list.
    pub free: u32,
    /// The device's to fill: in the fill ring or the RX ring.
    pub fill: u32,
    /// Tokens that are out.
    pub held: u32,
    /// Linked behind frames whose tokens are out.
    pub linked: u32,
    /// Given up while their transmission is pending.
    pub tx: u32,
}

/// One worker's frames.
#[derive(Debug)]
pub struct Pool {
    pub(super) arena: Access,
    pub(super) first: u32,
    count: u32,
    free: Vec<u32>,
    pub(super) state: Vec<u8>,
    /// By slot; empty until the first chain.
    pub(super) links: Box<[Link]>,
    fill: u32,
    pub(super) held: u32,
    pub(super) linked: u32,
    tx: u32,
    /// Frames of other pools that ended here, to be carried home.
    foreign: Vec<Frame>,
    /// Empty lists for packets of several frames, [`BATCH`] at most.
    lists: Vec<Rest>,
}

impl Pool {
    /// The pool of frames `first .. first + count` of the arena.
    ///
    /// # Panics
    /// If the range is not in the arena. Two pools over one range would break
    /// the arena's promise; the runtime cuts the arena once, at start.
    pub fn new(arena: Arc<Arena>, first: u32, count: u32) -> Self {
        assert!(first + count <= arena.count());
        Self {
            arena: Access::new(arena),
            first,
            count,
            free: (first..first + count).rev().collect(),
            state: vec![FREE; count as usize],
            links: Box::default(),
            fill: 0,
            held: 0,
            linked: 0,
            tx: 0,
            foreign: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// A pool of its own, on the heap (simulation, tests).
    pub fn heap(count: u32, capacity: u16) -> Self {
        Self::new(Arena::heap(count, capacity), 0, count)
    }

    /// The memory behind the frames.
    pub fn arena(&self) -> &Arc<Arena> {
        self.arena.arena()
    }

    /// Bytes in each frame.
    #[inline]
    pub fn frame_capacity(&self) -> usize {
        self.arena.capacity()
    }

    /// Frames in this pool.
    pub fn capacity(&self) -> u32 {
        self.count
    }

    /// Frames in the free list.
    pub fn available(&self) -> u32 {
        self.free.len() as u32
    }

    /// How many frames are where.
    pub fn counts(&self) -> PoolCounts {
        PoolCounts {
            free: self.free.len() as u32,
            fill: self.fill,
            held: self.held,
            linked: self.linked,
            tx: self.tx,
        }
    }

    /// Checks the books.
    ///
    /// # Panics
    /// If a frame is missing, or in two places.
    pub fn assert_conserved(&self) {
        let c = self.counts();
        let all = c.free + c.fill + c.held + c.linked + c.tx;
        assert_eq!(all, self.count, "frames are missing: {c:?}");
        let flagged = |bit| self.state.iter().filter(|s| *s & bit != 0).count() as u32;
        assert_eq!(flagged(FREE), c.free, "the free list and the books differ");
        assert_eq!(flagged(FILL), c.fill, "the fill ring and the books differ");
        assert_eq!(flagged(LINKED), c.linked, "chains and the books differ");
        assert_eq!(flagged(RELEASED), c.tx, "pending transmissions and the books differ");
    }

    #[inline]
    pub(super) fn slot(&self, index: u32) -> Option<usize> {
        let slot = index.wrapping_sub(self.first);
        (slot < self.count).then_some(slot as usize)
    }

    /// A free frame with an empty range at its start, if there is one.
    #[inline(always)]
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        let slot = (index - self.first) as usize;
        debug_assert_eq!(self.state[slot], FREE);
        self.state[slot] = 0;
        self.held += 1;
        Some(self.arena.mint(index, 0, 0))
    }

    /// Takes a frame back, and what is linked behind it. Where its transmission is pending it becomes free
    /// when that completes; where it belongs to another pool it waits to be
    /// carried home ([`Pool::take_foreign`]).
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        assert!(self.arena.owns(&frame), "a frame of another arena");
        // There are as many states as frames: one comparison tells ours from others'.
        let Some(state) = self.state.get_mut(frame.index.wrapping_sub(self.first) as usize) else {
            return self.free_foreign(frame);
        };
        if *state & (TX_PENDING | HEAD) != 0 {
            if *state & HEAD != 0 {
                return self.free_chain(frame);
            }
            self.held -= 1;
            *state |= RELEASED;
            self.tx += 1;
        } else {
            self.held -= 1;
            *state = FREE;
            // There is room for all: said here, so that no call to grow it is
            // compiled into the way of every frame.
            assert!(self.free.len() < self.free.capacity(), "more frames than there are");
            self.free.push(frame.index);
        }
    }

    /// As [`Pool::free`], without a call where there is no more to do than to put it on the
    /// free list: some 15 instructions.
    #[inline(always)]
    pub fn free_at_once(&mut self, frame: Frame) {
        if !self.put_back(&frame) {
            self.free(frame.anew());
        }
    }

    /// Puts a frame on the free list; false, and nothing done, where there is more to do.
    #[inline(always)]
    fn put_back(&mut self, frame: &Frame) -> bool {
        let Some(state) = self.state.get_mut(frame.index.wrapping_sub(self.first) as usize) else { return false };
        let more = *state & (TX_PENDING | HEAD) != 0 || !self.arena.owns(frame);
        if more || self.free.len() >= self.free.capacity() {
            return false;
        }
        // At once, so that no call to grow it is compiled into the way of every frame.
        self.free.push(frame.index);
        *state = FREE;
        self.held -= 1;
        true
    }

    #[cold]
    #[inline(never)]
    fn free_foreign(&mut self, frame: Frame) {
        self.foreign.push(frame);
    }

    /// Copies the frame's bytes, at most [`arch::SHORT_COPY`], to all of `to`, and takes it
    /// back, as [`Pool::free`] does, but without a call: some 35 instructions for 64 bytes.
    /// Where there is more to do than to put it on the free list it is given back, and
    /// nothing done.
    ///
    /// # Panics
    /// If `to` is of another length.
    #[inline(always)]
    pub fn free_copied(&mut self, frame: Frame, to: &mut [u8]) -> Option<Frame> {
        if !self.put_back(&frame) {
            return Some(frame);
        }
        // The books first, since then nothing is read twice that these writes might have
        // changed. Nobody takes it before this returns.
        arch::copy_short(to, self.arena.bytes(&frame));
        None
    }

    /// As [`Pool::free`], without a call. Where there is more to do than to put it on the
    /// free list it is left, and nothing done.
    #[inline(always)]
    pub fn free_idle(&mut self, frame: &mut Option<Frame>) {
        // The token ends, as its pieces are all plain data.
        if frame.as_ref().is_some_and(|frame| self.put_back(frame)) {
            *frame = None;
        }
    }

    /// The first `len` bytes from the beginning of a frame's range, where it is one of this
    /// pool's, no transmission of it is pending, nothing is linked behind it, and they lie
    /// in it.
    #[inline(always)]
    pub fn idle_bytes<'a>(&'a self, frame: &'a Frame, len: u16) -> Option<&'a [u8]> {
        let state = self.state.get(frame.index.wrapping_sub(self.first) as usize)?;
        if state & (TX_PENDING | HEAD) != 0 { None } else { self.arena.front(frame, len) }
    }

    /// An empty list for the frames of a packet.
    pub(super) fn take_list(&mut self) -> Rest {
        self.lists.pop().unwrap_or_else(|| Box::new(Vec::with_capacity(MOST_PIECES)))
    }

    /// Takes an empty list back, unless a packet of very many made it large.
    pub fn keep_list(&mut self, list: Rest) {
        debug_assert!(list.is_empty(), "frames are lost with it");
        if self.lists.len() < BATCH && list.capacity() <= 2 * MOST_PIECES {
            self.lists.push(list);
        }
    }

    /// Lists that are kept.
    #[cfg(test)]
    pub(super) fn lists(&self) -> usize {
        self.lists.len()
    }

    /// Frames of other pools that ended here since the last call.
    pub fn take_foreign(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.foreign.drain(..)
    }

    /// True where [`Pool::take_foreign`] has any.
    #[inline]
    pub fn has_foreign(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// True where the frame is one of this pool's.
    pub fn is_home(&self, frame: &Frame) -> bool {
        self.slot(frame.index).is_some()
    }

    /// Names the first `len` bytes of the frame for transmission. The holder
    /// keeps the token (to send it again after a loss), but may not write to the
    /// frame or name it again before the transmission completes.
    ///
    /// # Panics
    /// If it is pending already, foreign, or `len` is zero or too large.
    #[inline]
    pub fn transmit(&mut self, frame: &Frame, len: usize) -> TxDesc {
        assert!(len > 0 && len <= self.arena.capacity(), "a transmission of {len} bytes");
        let slot = self.slot(frame.index).expect("only home frames are sent");
        assert_eq!(self.state[slot] & TX_PENDING, 0, "sent while pending");
        self.state[slot] |= TX_PENDING;
        TxDesc { index: frame.index, len: len as u16, more: false }
    }

    /// Has the front of a frame written, and hands its first `len` bytes to `tx`, which
    /// has room. The holder keeps the token, as with [`Pool::transmit`]. False, and
    /// nothing done, where it is pending already or foreign.
    ///
    /// # Panics
    /// If `len` is zero or too large, or `tx` is full.
    #[inline(always)]
    pub fn transmit_written(
        &mut self,
        frame: &mut Frame,
        len: usize,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        assert!(len > 0 && len <= self.arena.capacity(), "a transmission of {len} bytes");
        let Some(state) = self.state.get_mut(frame.index.wrapping_sub(self.first) as usize) else {
            return false;
        };
        if *state & TX_PENDING != 0 {
            return false;
        }
        *state |= TX_PENDING;
        write(self.arena.buffer_mut(frame));
        tx.push(TxDesc { index: frame.index, len: len as u16, more: false });
        true
    }

    /// As [`Pool::transmit`], and gives the frame up at once: it is free when
    /// the transmission completes.
    #[inline]
    pub fn transmit_and_free(&mut self, frame: Frame, len: usize) -> TxDesc {
        let desc = self.transmit(&frame, len);
        self.free(frame);
        desc
    }

    /// Takes a free frame, has it written, and names its first `len` bytes for
    /// transmission: it is free again when that completes. `None`, and nothing done,
    /// where none is free.
    ///
    /// # Panics
    /// If `len` is zero or too large.
    #[inline(always)]
    pub fn transmit_new(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Option<TxDesc> {
        assert!(len > 0 && len <= self.arena.capacity(), "a transmission of {len} bytes");
        let index = self.free.pop()?;
        let slot = (index - self.first) as usize;
        debug_assert_eq!(self.state[slot], FREE);
        write(self.arena.buffer_mut(&mut self.arena.mint(index, 0, 0)));
        self.state[slot] = TX_PENDING | RELEASED;
        self.tx += 1;
        Some(TxDesc { index, len: len as u16, more: false })
    }

    /// True while the frame's transmission is pending.
    #[inline]
    pub fn is_pending(&self, frame: &Frame) -> bool {
        self.slot(frame.index).is_some_and(|s| self.state[s] & TX_PENDING != 0)
    }

    /// A transmission is over (the device's completion ring said so).
    #[inline]
    pub fn complete(&mut self, index: u32) {
        let Some(slot) = self.slot(index) else {
            debug_assert!(false, "a completion of a foreign frame");
            return;
        };
        let state = &mut self.state[slot];
        debug_assert!(*state & TX_PENDING != 0, "a completion that nobody awaits");
        if *state & RELEASED != 0 {
            *state = FREE;
            self.tx -= 1;
            self.free.push(index);
        } else {
            *state &= !TX_PENDING;
        }
    }

    /// Ends a descriptor that the device could not take.
    pub fn cancel(&mut self, desc: TxDesc) {
        self.complete(desc.index);
    }

    /// Takes up to `max` free frames for the device to fill.
    pub fn take_for_fill<const N: usize>(&mut self, max: usize) -> ArrayVec<u32, N> {
        let mut taken = ArrayVec::new();
        while taken.len() < max.min(N) {
            let Some(index) = self.free.pop() else { break };
            self.state[(index - self.first) as usize] = FILL;
            self.fill += 1;
            taken.push(index);
        }
        taken
    }

    /// Frames that were taken for filling and did not get into the ring.
    pub fn untake_fill(&mut self, index: u32) {
        let slot = self.slot(index).expect("a fill of a foreign frame");
        debug_assert_eq!(self.state[slot], FILL);
        self.state[slot] = FREE;
        self.fill -= 1;
        self.free.push(index);
    }

    /// The device filled a frame: `len` bytes at `offset`. `None` (and a debug
    /// assertion) if the frame was not the device's to fill.
    #[inline]
    pub fn filled(&mut self, index: u32, offset: usize, len: usize) -> Option<Frame> {
        let slot = self.slot(index)?;
        debug_assert_eq!(self.state[slot], FILL, "filled, but not ours to be filled");
        if self.state[slot] != FILL || offset + len > self.arena.capacity() {
            return None;
        }
        self.state[slot] = 0;
        self.fill -= 1;
        self.held += 1;
        Some(self.arena.mint(index, offset as u16, len as u16))
    }

    /// The bytes of the frame's range.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.arena.bytes(frame)
    }

    /// The bytes of the frame's range, to write.
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        debug_assert!(!self.is_pending(frame), "written to while its transmission is pending");
        self.arena.bytes_mut(frame)
    }

    /// The whole frame, to write.
    #[inline]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        debug_assert!(!self.is_pending(frame), "written to while its transmission is pending");
        self.arena.buffer_mut(frame)
    }

    /// The bytes a descriptor names, for a device that copies.
    pub fn tx_bytes(&self, desc: &TxDesc) -> &[u8] {
        self.arena.tx_bytes(desc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_given_up_while_pending_is_free_only_after_completion() {
        let mut pool = Pool::heap(2, 128);
        let frame = pool.alloc().unwrap();
        let desc = pool.transmit_and_free(frame, 60);
        assert_eq!(pool.counts(), PoolCounts { free: 1, fill: 0, held: 0, linked: 0, tx: 1 });
        pool.assert_conserved();
        pool.complete(desc.index());
        assert_eq!(pool.available(), 2);
        pool.assert_conserved();
    }

    #[test]
    fn a_new_frame_is_written_and_sent_at_once() {
        let mut pool = Pool::heap(1, 128);
        let desc = pool.transmit_new(3, |buffer| buffer[..4].copy_from_slice(b"abcd")).unwrap();
        assert_eq!(pool.tx_bytes(&desc), b"abc");
        assert_eq!(pool.counts(), PoolCounts { free: 0, fill: 0, held: 0, linked: 0, tx: 1 });
        pool.assert_conserved();
        assert!(pool.transmit_new(3, |_| panic!("there is none")).is_none());
        pool.complete(desc.index());
        assert_eq!(pool.available(), 1);
        pool.assert_conserved();
    }

    #[test]
    fn what_is_written_on_leaving_leaves_once() {
        let (arena, mut tx) = (Arena::heap(4, 128), TxQueue::new(4));
        let mut one = Pool::new(arena.clone(), 0, 2);
        let mut two = Pool::new(arena, 2, 2);
        let mut frame = one.alloc().unwrap();
        assert!(one.transmit_written(&mut frame, 3, &mut tx, |buffer| buffer[..4].copy_from_slice(b"abcd")));
        assert!(!one.transmit_written(&mut frame, 3, &mut tx, |_| panic!("it is pending")));
        assert!(!two.transmit_written(&mut frame, 3, &mut tx, |_| panic!("it is another's")));
        let desc = tx.pop().unwrap();
        assert!(tx.is_empty() && one.is_pending(&frame));
        assert_eq!(one.tx_bytes(&desc), b"abc");
        one.complete(desc.index());
        one.free(frame);
        one.assert_conserved();
        two.assert_conserved();
    }

    #[test]
    fn a_frame_kept_for_retransmission_can_be_sent_again_after_completion() {
        let mut pool = Pool::heap(1, 128);
        let frame = pool.alloc().unwrap();
        let desc = pool.transmit(&frame, 60);
        assert!(pool.is_pending(&frame));
        pool.complete(desc.index());
        assert!(!pool.is_pending(&frame));
        let desc = pool.transmit(&frame, 61);
        pool.cancel(desc);
        pool.free(frame);
        pool.assert_conserved();
        assert_eq!(pool.available(), 1);
    }

    #[test]
    #[should_panic(expected = "sent while pending")]
    fn a_pending_frame_is_not_sent_again() {
        let mut pool = Pool::heap(1, 128);
        let frame = pool.alloc().unwrap();
        let _desc = pool.transmit(&frame, 60);
        let _again = pool.transmit(&frame, 60);
    }

    #[test]
    fn a_frame_is_copied_and_freed_at_once_where_nothing_else_is_to_be_done() {
        let arena = Arena::heap(4, 128);
        let (mut one, mut two) = (Pool::new(arena.clone(), 0, 2), Pool::new(arena, 2, 2));
        let frame = |pool: &mut Pool| {
            let mut frame = pool.alloc().unwrap();
            frame.set_range(1, 3);
            pool.bytes_mut(&mut frame).copy_from_slice(b"abc");
            frame
        };
        let mut to = [0; 3];
        let plain = frame(&mut one);
        assert_eq!((one.free_copied(plain, &mut to), &to), (None, b"abc"));
        assert_eq!(one.available(), 2);
        // Being transmitted, and another pool's.
        let mut to = [0; 3];
        let pending = frame(&mut one);
        let desc = one.transmit(&pending, 4);
        let pending = one.free_copied(pending, &mut to).unwrap();
        let foreign = frame(&mut two);
        let foreign = one.free_copied(foreign, &mut to).unwrap();
        assert_eq!(to, [0; 3]);
        one.complete(desc.index());
        assert_eq!((one.free_copied(pending, &mut to), two.free_copied(foreign, &mut to)), (None, None));
        one.assert_conserved();
        two.assert_conserved();
        assert_eq!((one.available(), two.available()), (2, 2));
    }

    #[test]
    fn fill_and_receive_keep_the_books() {
        let mut pool = Pool::heap(4, 128);
        let taken = pool.take_for_fill::<8>(8);
        assert_eq!(taken.len(), 4);
        assert!(pool.alloc().is_none());
        let frame = pool.filled(taken[0], 0, 100).unwrap();
        pool.untake_fill(taken[1]);
        pool.assert_conserved();
        assert_eq!(pool.bytes(&frame).len(), 100);
        pool.free(frame);
        assert_eq!(pool.counts(), PoolCounts { free: 2, fill: 2, held: 0, linked: 0, tx: 0 });
    }

    #[test]
    fn a_foreign_frame_waits_to_be_carried_home() {
        let arena = Arena::heap(4, 128);
        let mut one = Pool::new(arena.clone(), 0, 2);
        let mut two = Pool::new(arena, 2, 2);
        let frame = one.alloc().unwrap();
        two.free(frame);
        two.assert_conserved();
        let home: Vec<_> = two.take_foreign().collect();
        for frame in home {
            assert!(one.is_home(&frame));
            one.free(frame);
        }
        one.assert_conserved();
        assert_eq!(one.available(), 2);
    }

    #[test]
    #[should_panic(expected = "another arena")]
    fn a_frame_of_another_arena_is_refused() {
        let mut one = Pool::heap(1, 64);
        let two = Pool::heap(1, 64);
        let frame = one.alloc().unwrap();
        let _bytes = two.bytes(&frame);
    }
}
