//! Data that came ahead of a gap, in order of sequence numbers: insertion is
//! O(log n) whatever comes, bytes are kept once, and both their number and the
//! memory that they pin are bounded. Where the bound is reached, what lies
//! farthest ahead goes: the peer sends it last (CVE-2018-5390).

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
    /// The same, and a piece farther ahead had to go.
    Pruned,
    /// The bound on segments is reached.
    Full,
}

/// Ranges whose order of growth is remembered.
const RECENT: usize = 16;

/// What the queue may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Pieces, and so frames.
    pub pieces: usize,
    /// Bytes that are joined to the piece in front of them by copying, rather than
    /// that they pin a frame of their own.
    pub small: usize,
}

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
    /// Pieces and ranges that were looked at.
    #[cfg(test)]
    pub steps: u64,
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
    pub fn insert(&mut self, pool: &mut Pool, mut at: u32, mut frame: Frame, limits: Limits) -> Insert {
        self.step();
        let mut end = at.wrapping_add(frame.len() as u32);
        // What lies before: cut the front off where it overlaps.
        if let Some((s, f)) = self.pieces.range(..=Seq(at)).next_back() {
            let over = seq::distance(at, s.0.wrapping_add(f.len() as u32));
            frame.trim_front(over as usize);
            at = at.wrapping_add(over.min(seq::distance(at, end)));
        }
        // What lies behind: swallow what is covered whole, stop before the rest.
        while let Some((&s, f)) = self.pieces.range(Seq(at)..).next() {
            #[cfg(test)]
            {
                self.steps += 1;
            }
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
        if frame.len() <= limits.small && self.append(pool, at, &frame) {
            pool.free(frame);
            self.join(at, end);
            return Insert::Kept;
        }
        let full = self.pieces.len() >= limits.pieces;
        if full && !self.prune(pool, at) {
            pool.free(frame);
            return Insert::Full;
        }
        self.pieces.insert(Seq(at), frame);
        self.join(at, end);
        if full { Insert::Pruned } else { Insert::Kept }
    }

    /// Copies a small frame to the end of the piece that ends where it begins, if
    /// there is one with room.
    fn append(&mut self, pool: &Pool, at: u32, frame: &Frame) -> bool {
        let Some((s, tail)) = self.pieces.range_mut(..Seq(at)).next_back() else { return false };
        let (from, len) = (tail.offset(), tail.len());
        let end = from + len;
        if s.0.wrapping_add(len as u32) != at || end + frame.len() > pool.arena().capacity() {
            return false;
        }
        pool.buffer_mut(tail)[end..end + frame.len()].copy_from_slice(pool.bytes(frame));
        tail.set_range(from, len + frame.len());
        true
    }

    /// Gives up the piece farthest ahead, if it is farther than `at`. The peer was
    /// told of it and will send it again (RFC 2018, 8).
    fn prune(&mut self, pool: &mut Pool, at: u32) -> bool {
        self.step();
        let Some((&s, _)) = self.pieces.last_key_value().filter(|(s, _)| seq::gt(s.0, at)) else {
            return false;
        };
        if let Some(frame) = self.pieces.remove(&s) {
            pool.free(frame);
        }
        if let Some((&left, _)) = self.ranges.last_key_value() {
            if left == s {
                self.ranges.remove(&left);
            } else {
                self.ranges.insert(left, s.0);
            }
        }
        let (mut at, mut untold, before) = (0, 0, self.untold);
        self.recent.retain(|r| {
            let kept = seq::lt(*r, s.0);
            untold += usize::from(kept && at < before);
            at += 1;
            kept
        });
        self.untold = untold;
        true
    }

    #[inline]
    fn step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
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
            self.step();
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

    /// As many of them as fit in one segment (RFC 2018, 4).
    #[cfg(any(test, fuzzing))]
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
            self.queue.insert(&mut self.pool, at, frame, Limits { pieces: 8, small: 0 })
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
    fn the_piece_farthest_ahead_goes_first_and_the_peer_is_not_told_of_it_any_more() {
        let mut bed = Bed::new(u32::MAX - 100);
        bed.put(1, 3);
        for i in 1..8 {
            assert_eq!(bed.put(i * 20, i * 20 + 10), Insert::Kept);
        }
        // Part of a range, and then all of it.
        assert_eq!(bed.put(10, 12), Insert::Pruned);
        assert!(bed.blocks().iter().all(|b| b.1 <= 130), "{:?}", bed.blocks());
        assert_eq!(bed.put(130, 135), Insert::Full);
        assert_eq!(bed.put(110, 120), Insert::Pruned);
        assert_eq!(bed.blocks()[0], (100, 120));
        assert_eq!(bed.put(90, 100), Insert::Pruned);
        assert_eq!(bed.blocks()[0], (80, 110));
        assert_eq!(bed.drain(1), 3);
        bed.queue.clear(&mut bed.pool);
        bed.pool.assert_conserved();
    }

    #[test]
    fn small_pieces_in_a_row_share_a_frame() {
        let mut bed = Bed::new(7);
        let limits = Limits { pieces: 8, small: 64 };
        let put = |bed: &mut Bed, from: u32, to: u32| {
            let mut frame = bed.pool.alloc().unwrap();
            let bytes: Vec<u8> = (from..to).map(|i| i as u8).collect();
            bed.pool.buffer_mut(&mut frame)[5..5 + bytes.len()].copy_from_slice(&bytes);
            frame.set_range(5, bytes.len());
            bed.queue.insert(&mut bed.pool, 7 + from, frame, limits)
        };
        for i in 0..1000 {
            assert_eq!(put(&mut bed, 10 + i * 4, 14 + i * 4), Insert::Kept);
        }
        assert!(bed.queue.frames() <= 2, "{} frames", bed.queue.frames());
        assert_eq!(bed.blocks(), [(10, 4010)]);
        assert_eq!(put(&mut bed, 100, 160), Insert::Duplicate);
        assert_eq!(bed.drain(10), 4010);
        assert!(bed.queue.is_empty());
        assert_eq!(bed.pool.available(), 64);
    }

    /// CVE-2018-5390: segments of one byte, each with a gap before it, in the
    /// order that costs most; then ones that cover many of them.
    #[test]
    fn tiny_segments_in_any_order_cost_a_few_steps_each() {
        for order in 0..3 {
            let mut pool = Pool::heap(1100, 64);
            let mut queue = Assembler::default();
            let mut rng = crate::rng::Rng::new(order);
            let limits = Limits { pieces: 1000, small: 16 };
            let count = 20_000u64;
            for i in 0..count as u32 {
                let at = match order {
                    0 => 2 * i + 1,
                    1 => 2 * (count as u32 - i) + 1,
                    _ => 2 * rng.below(count as u32) + 1,
                };
                let mut frame = pool.alloc().expect("the bound leaves frames free");
                frame.set_range(0, 1);
                queue.insert(&mut pool, at, frame, limits);
                let _ = queue.blocks();
            }
            assert_eq!(queue.frames(), 1000);
            assert!(queue.steps <= 5 * count, "{} steps for {count} segments", queue.steps);
            // Nearest first: what is kept is the front.
            let farthest = queue.pieces.last_key_value().unwrap().0.0;
            assert!(order == 2 || farthest <= 2001, "{farthest}");
            let (before, mut wide) = (queue.steps, pool.alloc().unwrap());
            wide.set_range(0, 60);
            queue.insert(&mut pool, 100, wide, limits);
            assert!(queue.steps - before <= 70, "by what it covers, not by what there is");
            queue.clear(&mut pool);
            pool.assert_conserved();
        }
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
