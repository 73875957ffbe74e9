//! The scoreboard (RFC 2018, 6675): which segments of the send queue the peer
//! has, which are taken for lost, which were sent again.
//!
//! A block costs O(log n) and as much as it tells that was not known: ranges that
//! are known are passed by in one step. A segment counts only when it is covered
//! whole; no block ever cuts a segment in two, so that a peer cannot make the
//! queue longer than it was (CVE-2019-11477, -11478).

use super::runs::Runs;
use super::seen::Seen;
use crate::tcp::send_queue::{Marks, Segment, SendQueue};
use crate::tcp::seq;
use crate::time::Instant;
use std::collections::VecDeque;

/// A segment that was sent again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct Resent {
    pub at: Instant,
    pub seq: u32,
}

/// What is known about the segments that were sent.
#[derive(Debug, Default)]
pub(in crate::tcp) struct Board {
    /// What the peer has beyond the cumulative number.
    pub sacked: Runs,
    /// What is taken for lost and was not sent again since.
    pub lost: Runs,
    /// What was sent again, in the order of time. Entries of segments that are
    /// no longer under way by that transmission are passed by.
    pub resent: VecDeque<Resent>,
    /// Segments that the peer has beyond the cumulative number.
    pub sacked_segments: u32,
    /// Segments taken for lost and not sent again since.
    pub lost_segments: u32,
    /// Segments under way that were sent more than once.
    pub retransmitted: u32,
    /// After the last byte that the peer is known to have.
    pub fack: u32,
    /// Before this number nothing is under way that was sent only once.
    pub cursor: u32,
    /// Segments and ranges looked at: what the tests of bounds count.
    #[cfg(test)]
    pub steps: u64,
}

/// A transmission other than the first is under way.
fn is_resent(marks: Marks) -> bool {
    marks & (Marks::RETRANSMITTED | Marks::LOST | Marks::SACKED) == Marks::RETRANSMITTED
}

impl Board {
    /// Of a connection all of whose segments under way were sent once.
    pub fn new(una: u32) -> Self {
        Self { fack: una, cursor: una, ..Self::default() }
    }

    /// True where nothing has to be remembered.
    pub fn is_clear(&self) -> bool {
        self.sacked.is_empty() && self.lost.is_empty() && self.retransmitted == 0
    }

    #[inline]
    fn step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }

    fn count(&self, queue: &mut SendQueue) {
        queue.set_sacked(self.sacked.bytes());
        queue.set_lost(self.lost.bytes());
    }

    /// The peer has `left..right`, which lies in what is outstanding.
    pub fn tag(&mut self, queue: &mut SendQueue, left: u32, right: u32, seen: &mut Seen) {
        let mut at = left;
        while let Some((from, to)) = self.sacked.gap(at, right) {
            at = to;
            self.step();
            let (mut i, mut first) = (queue.index_of(from), None);
            let mut end = from;
            while i < queue.sent() as usize {
                let seg = queue.get(i);
                if seq::gt(seg.end(), to) {
                    break;
                }
                first = first.or(Some(seg.seq));
                end = seg.end();
                seen.add(seg, true);
                self.tag_one(queue, i);
                i += 1;
            }
            if let Some(first) = first {
                self.sacked.insert(first, end);
                self.lost.remove(first, end);
                self.fack = seq::max(self.fack, end);
            }
        }
        self.count(queue);
    }

    fn tag_one(&mut self, queue: &mut SendQueue, i: usize) {
        self.step();
        let seg = queue.get_mut(i);
        if is_resent(seg.marks) {
            self.retransmitted -= 1;
        }
        if seg.marks.contains(Marks::LOST) {
            self.lost_segments -= 1;
        }
        seg.marks = (seg.marks - Marks::LOST) | Marks::SACKED;
        self.sacked_segments += 1;
    }

    /// Segment `i` is taken for lost.
    pub fn lose(&mut self, queue: &mut SendQueue, i: usize) {
        self.step();
        let seg = queue.get_mut(i);
        if seg.marks.intersects(Marks::LOST | Marks::SACKED) {
            return;
        }
        if is_resent(seg.marks) {
            self.retransmitted -= 1;
        }
        seg.marks |= Marks::LOST;
        self.lost_segments += 1;
        let (first, end) = (seg.seq, seg.end());
        self.lost.insert(first, end);
        self.count_lost(queue);
    }

    /// The oldest segment is taken for lost.
    pub fn lose_front(&mut self, queue: &mut SendQueue) {
        if queue.sent() > 0 {
            self.lose(queue, 0);
        }
    }

    /// What lies before `una` is acknowledged; the segment left the queue, or
    /// what is left of it is its front.
    pub fn gone(&mut self, seg: &Segment) {
        self.step();
        if is_resent(seg.marks) {
            self.retransmitted -= 1;
        }
        self.lost_segments -= u32::from(seg.marks.contains(Marks::LOST));
        self.sacked_segments -= u32::from(seg.marks.contains(Marks::SACKED));
    }

    /// The cumulative number is `una` now.
    pub fn pass(&mut self, queue: &mut SendQueue, una: u32, sack: bool) {
        self.sacked.pass(una);
        self.lost.pass(una);
        self.fack = seq::max(self.fack, una);
        self.cursor = seq::max(self.cursor, una);
        queue.set_lost(self.lost.bytes());
        if sack {
            queue.set_sacked(self.sacked.bytes());
        }
    }

    /// The index of the first segment taken for lost.
    pub fn first_lost(&self, queue: &SendQueue) -> Option<usize> {
        self.lost.first().map(|(at, _)| queue.index_of(at))
    }

    /// Segment `i`, which was sent before, leaves again.
    pub fn on_resent(&mut self, queue: &mut SendQueue, i: usize, now: Instant) {
        let seg = queue.get_mut(i);
        if seg.marks.contains(Marks::LOST) {
            self.lost_segments -= 1;
            self.lost.remove(seg.seq, seg.seq.wrapping_add(seg.len()));
        }
        if !is_resent(seg.marks) {
            self.retransmitted += 1;
        }
        seg.marks = (seg.marks - Marks::LOST) | Marks::RETRANSMITTED;
        seg.sent_at = now;
        let entry = Resent { at: now, seq: seg.seq };
        self.count_lost(queue);
        // Each segment under way has one entry that counts: beyond twice their
        // number the others are thrown out, at a cost that they have paid for.
        if self.resent.len() >= 2 * queue.sent() as usize + 16 {
            self.resent.retain(|r| Self::entry(queue, r).is_some());
        }
        self.resent.push_back(entry);
    }

    fn count_lost(&self, queue: &mut SendQueue) {
        queue.set_lost(self.lost.bytes());
    }

    /// The segment that the entry is about, if it is under way by that
    /// transmission.
    pub fn entry(queue: &SendQueue, r: &Resent) -> Option<usize> {
        let i = queue.index_of(r.seq);
        let seg = (i < queue.sent() as usize).then(|| queue.get(i))?;
        // The front may have lost its beginning since.
        let same = seg.seq == r.seq || i == 0 && seq::lt(r.seq, seg.seq);
        (same && seg.sent_at == r.at && is_resent(seg.marks)).then_some(i)
    }

    /// Segment `i` was cut in two.
    pub fn on_split(&mut self, queue: &SendQueue, i: usize) {
        let marks = queue.get(i).marks;
        self.lost_segments += u32::from(marks.contains(Marks::LOST));
        self.retransmitted += u32::from(is_resent(marks));
    }

    /// Segment `i` and the one behind it, both lost, became one.
    pub fn on_merged(&mut self) {
        self.lost_segments -= 1;
    }

    /// The next segment under way that was sent only once, from the cursor on.
    pub fn next_fresh(&mut self, queue: &SendQueue, nxt: u32) -> Option<usize> {
        while let Some((from, to)) = self.sacked.gap(self.cursor, nxt) {
            self.cursor = from;
            let mut i = queue.index_of(from);
            while i < queue.sent() as usize && seq::lt(queue.get(i).seq, to) {
                self.step();
                if !queue.get(i).marks.intersects(Marks::LOST | Marks::RETRANSMITTED) {
                    return Some(i);
                }
                self.cursor = queue.get(i).end();
                i += 1;
            }
            if seq::le(self.cursor, from) {
                // Nothing begins here: a FIN, or the tail of a segment.
                self.cursor = to;
            }
        }
        None
    }

    /// Nothing is lost after all (a spurious time-out, or a path that reordered).
    /// A walk of the queue, once an episode.
    pub fn nothing_lost(&mut self, queue: &mut SendQueue) {
        self.lost.clear();
        self.lost_segments = 0;
        self.unmark(queue, Marks::LOST);
    }

    /// The peer threw away what it had (RFC 2018, 8). A walk of the queue, at
    /// most once a time-out.
    pub fn reneged(&mut self, queue: &mut SendQueue) {
        self.sacked.clear();
        self.sacked_segments = 0;
        self.unmark(queue, Marks::SACKED);
        self.fack = self.cursor;
        queue.set_sacked(0);
    }

    /// Takes a mark off all segments; what was sent again is under way again.
    fn unmark(&mut self, queue: &mut SendQueue, mark: Marks) {
        let mut again = Vec::new();
        for i in 0..queue.sent() as usize {
            let seg = queue.get_mut(i);
            seg.marks -= mark;
            if is_resent(seg.marks) {
                again.push(Resent { at: seg.sent_at, seq: seg.seq });
            }
        }
        again.sort_by_key(|r| r.at);
        self.retransmitted = again.len() as u32;
        self.resent = again.into();
        self.cursor = queue.front().map_or(self.fack, |s| s.seq);
        self.count_lost(queue);
    }
}
