//! Data that came ahead of a gap, in order of sequence numbers: insertion is
//! O(log n), bytes are kept once, and their number is bounded.

use super::seq::{self, Seq};
use crate::frame::{Frame, Pool};
use crate::wire::tcp::SackBlock;
use arrayvec::ArrayVec;
use std::collections::BTreeMap;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    /// All or a part of it was kept.
    Kept,
    /// Every byte was there already.
    Duplicate,
    /// The bound on segments is reached.
    Full,
}

/// Ranges whose order of growth is remembered.
const RECENT: usize = 16;

/// The queue of one connection, there only while there is a gap.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Pieces by first sequence number; they do not overlap.
    pieces: BTreeMap<Seq, Frame>,
    /// Contiguous ranges: first sequence number to the one after the last.
    ranges: BTreeMap<Seq, u32>,
    /// A sequence number in each of the ranges that grew last, newest first
    /// (RFC 2018, 4).
    recent: ArrayVec<u32, RECENT>,
    /// How many of them, from the front, no ACK has told yet.
    untold: usize,
    /// The peer's FIN, ahead of a gap.
    pub fin: Option<u32>,
}

impl Assembler {
    /// Frames kept.
    pub fn frames(&self) -> usize {
        self.pieces.len()
    }

    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.fin.is_none()
    }

    /// Keeps what is new of the frame's bytes, the first of which has number
    /// `at`. The frame is kept or freed.
    pub fn insert(&mut self, pool: &mut Pool, mut at: u32, mut frame: Frame, limit: usize) -> Insert {
        let mut end = at.wrapping_add(frame.len() as u32);
        // What lies before: cut the front off where it overlaps.
        if let Some((s, f)) = self.pieces.range(..=Seq(at)).next_back() {
            let over = seq::distance(at, s.0.wrapping_add(f.len() as u32));
            frame.trim_front(over as usize);
            at = at.wrapping_add(over.min(seq::distance(at, end)));
        }
        // What lies behind: swallow what is covered whole, stop before the rest.
        while let Some((&s, f)) = self.pieces.range(Seq(at)..).next() {
            if !seq::lt(s.0, end) {
                break;
            }
            if seq::gt(s.0.wrapping_add(f.len() as u32), end) {
                end = s.0;
                frame.truncate(seq::distance(at, end) as usize);
                break;
            }
            if let Some(old) = self.pieces.remove(&s) {
                pool.free(old);
            }
        }
        if frame.is_empty() {
            pool.free(frame);
            return Insert::Duplicate;
        }
        if self.pieces.len() >= limit {
            pool.free(frame);
            return Insert::Full;
        }
        self.pieces.insert(Seq(at), frame);
        self.join(at, end);
        Insert::Kept
    }

    /// The first part of `left..right` that is here already. Its range comes first
    /// among the recent ones: the block behind a D-SACK is the one that it lies in
    /// (RFC 2883, 4).
    pub fn known(&mut self, left: u32, right: u32) -> Option<(u32, u32)> {
        let before = self.ranges.range(..=Seq(left)).next_back().filter(|(_, e)| seq::gt(**e, left));
        let (&s, &e) = before.or_else(|| self.ranges.range(Seq(left)..).next())?;
        if !seq::lt(s.0, right) {
            return None;
        }
        self.renew(s.0, e);
        Some((seq::max(left, s.0), if seq::lt(e, right) { e } else { right }))
    }

    /// Adds `left..right` to the ranges, and puts its range first among the
    /// recent ones.
    fn join(&mut self, mut left: u32, mut right: u32) {
        if let Some((&s, &e)) = self.ranges.range(..=Seq(left)).next_back()
            && seq::ge(e, left)
        {
            left = s.0;
            right = seq::max(right, e);
        }
        while let Some((&s, &e)) = self.ranges.range(Seq(left)..).next() {
            if seq::gt(s.0, right) {
                break;
            }
            right = seq::max(right, e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(Seq(left), right);
        self.renew(left, right);
    }

    /// The range `left..right` comes first, and is to be told.
    fn renew(&mut self, left: u32, right: u32) {
        let (mut at, mut untold, before) = (0, 0, self.untold);
        self.recent.retain(|r| {
            let other = seq::lt(*r, left) || seq::ge(*r, right);
            untold += usize::from(other && at < before);
            at += 1;
            other
        });
        if self.recent.is_full() {
            self.recent.pop();
        }
        self.recent.insert(0, left);
        self.untold = (untold + 1).min(RECENT);
    }

    /// Takes the frame that goes on at `next`, if it is there; what lies before
    /// `next` is freed.
    pub fn take(&mut self, pool: &mut Pool, next: u32) -> Option<Frame> {
        loop {
            let (&s, _) = self.pieces.first_key_value()?;
            if seq::gt(s.0, next) {
                return None;
            }
            let (_, mut frame) = self.pieces.pop_first()?;
            let end = s.0.wrapping_add(frame.len() as u32);
            self.forget(end);
            frame.trim_front(seq::distance(s.0, next) as usize);
            if !frame.is_empty() {
                return Some(frame);
            }
            pool.free(frame);
        }
    }

    /// The ranges up to `end` are no longer ahead of a gap.
    fn forget(&mut self, end: u32) {
        while let Some((&s, &e)) = self.ranges.first_key_value() {
            if seq::ge(s.0, end) {
                break;
            }
            self.ranges.remove(&s);
            if seq::gt(e, end) {
                self.ranges.insert(Seq(end), e);
                for r in &mut self.recent {
                    *r = seq::max(*r, end);
                }
                break;
            }
            self.recent.retain(|r| seq::ge(*r, e));
        }
    }

    /// The blocks to announce: first the range that grew last (RFC 2018, 4).
    pub fn blocks(&self) -> ArrayVec<SackBlock, 4> {
        self.recent_blocks().into_iter().take(4).collect()
    }

    /// The ranges that grew last, the last first.
    pub fn recent_blocks(&self) -> ArrayVec<SackBlock, RECENT> {
        let mut blocks = ArrayVec::new();
        for r in &self.recent {
            if let Some((&s, &e)) = self.ranges.range(..=Seq(*r)).next_back()
                && seq::lt(*r, e)
            {
                let block = SackBlock { left: s.0, right: e };
                if !blocks.contains(&block) {
                    blocks.push(block);
                }
            }
        }
        blocks
    }

    /// How many of [`Self::recent_blocks`] no ACK has told yet. From now on they
    /// count as told.
    pub fn tell(&mut self) -> usize {
        core::mem::take(&mut self.untold).min(self.recent.len())
    }

    /// Gives all frames back.
    pub fn clear(&mut self, pool: &mut Pool) {
        while let Some((_, frame)) = self.pieces.pop_first() {
            pool.free(frame);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        pool: Pool,
        queue: Assembler,
        base: u32,
    }

    impl Bed {
        fn new(base: u32) -> Self {
            Self { pool: Pool::heap(64, 2048), queue: Assembler::default(), base }
        }

        /// Bytes `from..to`, each of which is its own number's low byte.
        fn put(&mut self, from: u32, to: u32) -> Insert {
            let mut frame = self.pool.alloc().unwrap();
            let bytes: Vec<u8> = (from..to).map(|i| i as u8).collect();
            self.pool.buffer_mut(&mut frame)[5..5 + bytes.len()].copy_from_slice(&bytes);
            frame.set_range(5, bytes.len());
            let at = self.base.wrapping_add(from);
            self.queue.insert(&mut self.pool, at, frame, 8)
        }

        /// Takes all that goes on at `next` and checks it; returns the end.
        fn drain(&mut self, mut next: u32) -> u32 {
            let (pool, base) = (&mut self.pool, self.base);
            while let Some(frame) = self.queue.take(pool, base.wrapping_add(next)) {
                for &b in pool.bytes(&frame) {
                    assert_eq!(b, next as u8);
                    next += 1;
                }
                pool.free(frame);
            }
            next
        }

        fn blocks(&self) -> Vec<(u32, u32)> {
            let rel = |n: u32| n.wrapping_sub(self.base);
            self.queue.blocks().iter().map(|b| (rel(b.left), rel(b.right))).collect()
        }
    }

    #[test]
    fn gaps_close_and_overlaps_are_trimmed_across_the_wrap() {
        let mut bed = Bed::new(u32::MAX - 250);
        assert_eq!(bed.put(100, 200), Insert::Kept);
        assert_eq!(bed.put(300, 400), Insert::Kept);
        assert_eq!(bed.put(120, 180), Insert::Duplicate);
        assert_eq!(bed.put(100, 200), Insert::Duplicate);
        assert_eq!(bed.put(150, 250), Insert::Kept);
        assert_eq!(bed.blocks(), [(100, 250), (300, 400)]);
        assert_eq!(bed.put(50, 120), Insert::Kept);
        assert_eq!(bed.put(240, 450), Insert::Kept);
        assert_eq!(bed.blocks(), [(50, 450)]);
        assert_eq!(bed.drain(10), 10);
        assert_eq!(bed.drain(60), 450);
        assert!(bed.queue.is_empty() && bed.blocks().is_empty());
        bed.pool.assert_conserved();
        assert_eq!(bed.pool.available(), 64);
    }

    #[test]
    fn the_newest_range_is_announced_first_and_at_most_four() {
        let mut bed = Bed::new(0);
        for i in [1, 3, 5, 7, 9] {
            bed.put(i * 100, i * 100 + 50);
        }
        assert_eq!(bed.blocks(), [(900, 950), (700, 750), (500, 550), (300, 350)]);
        bed.put(350, 360);
        assert_eq!(bed.blocks(), [(300, 360), (900, 950), (700, 750), (500, 550)]);
        // A range that was pushed out of the list is still known whole.
        bed.put(150, 160);
        assert_eq!(bed.blocks()[0], (100, 160));
        assert_eq!(bed.drain(100), 160);
        assert_eq!(bed.blocks(), [(300, 360), (900, 950), (700, 750), (500, 550)]);
        bed.queue.clear(&mut bed.pool);
        assert_eq!(bed.pool.available(), 64);
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let mut bed = Bed::new(0);
        for i in 0..8 {
            assert_eq!(bed.put(i * 10 + 1, i * 10 + 5), Insert::Kept);
        }
        assert_eq!(bed.put(200, 210), Insert::Full);
        bed.queue.clear(&mut bed.pool);
        bed.pool.assert_conserved();
    }

    #[test]
    fn any_order_of_any_pieces_gives_the_stream() {
        let mut rng = crate::rng::Rng::new(42);
        for round in 0..300u32 {
            let mut bed = Bed::new(round.wrapping_mul(0x1357_9bdf));
            let mut covered = [false; 400];
            let mut next = 0;
            for _ in 0..40 {
                let from = rng.below(380).max(next);
                let to = (from + 1 + rng.below(60)).min(400);
                if bed.put(from, to) != Insert::Full {
                    covered[from as usize..to as usize].fill(true);
                }
                for (left, right) in bed.blocks() {
                    assert!(covered[left as usize..right as usize].iter().all(|c| *c));
                }
                next = bed.drain(next);
            }
            bed.queue.clear(&mut bed.pool);
            bed.pool.assert_conserved();
            assert_eq!(bed.pool.available(), 64);
        }
    }
}
