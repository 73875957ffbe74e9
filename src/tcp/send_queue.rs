//! What was written and is not acknowledged: one frame for each segment, the
//! payload behind room for the headers, its sum taken when it was copied.
//!
//! Each segment carries its marks. Loss recovery's scoreboard sets them and keeps
//! their books; output sends what is marked.

use super::few::Few;
use super::loss::{Board, Seen};
use super::seq;
use crate::frame::{Frame, Pool};
use crate::time::Instant;
use crate::wire::checksum::{self, Sum};

bitflags::bitflags! {
    /// What is known of a segment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Marks: u8 {
        /// Taken for lost, and not sent again since.
        const LOST = 1;
        /// Sent more than once: its round trip cannot be told (Karn).
        const RETRANSMITTED = 2;
        /// The last of a write: PSH (MUST-61).
        const PUSH = 4;
        /// The peer has it, and has said so by SACK.
        const SACKED = 8;
        /// A record ends here (MSG_EOR): nothing is joined to it.
        const RECORD = 16;
        /// The last of several that left together (see burst.rs).
        const TRAIN = 32;
        /// Any of the marks that loss recovery keeps books of.
        const BOOKED = 1 | 2 | 8;
    }
}

/// A segment's payload.
#[derive(Debug)]
pub(super) struct Segment {
    /// The range is the payload, or the beginning of it.
    pub frame: Frame,
    pub seq: u32,
    /// Bytes of the payload in frames that are linked behind it (see jumbo.rs).
    pub more: u16,
    /// Folded sum of the payload.
    pub sum: u16,
    pub marks: Marks,
    /// When it was last sent.
    pub sent_at: Instant,
}

impl Segment {
    #[inline]
    pub fn len(&self) -> u32 {
        self.frame.len() as u32 + u32::from(self.more)
    }

    #[inline]
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len())
    }
}

/// The queue. In front the segments that were sent, behind them the others.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    segments: Few<Segment>,
    /// Segments that were sent at least once.
    sent: u32,
    /// Bytes marked lost.
    lost: u32,
    /// Bytes that the peer has beyond the cumulative number; with a peer that
    /// has no SACK, bytes that duplicate ACKs stand for.
    sacked: u32,
    /// Bytes in a segment of one frame, at most; a full one may be of several.
    pub piece: u16,
}

const _: () = assert!(size_of::<Segment>() == 32);

impl SendQueue {
    /// Frames in the queue.
    pub fn frames(&self) -> usize {
        self.segments.len()
    }

    /// Segments that were sent at least once.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Bytes marked lost and not sent again since.
    #[inline]
    pub fn lost(&self) -> u32 {
        self.lost
    }

    pub fn set_lost(&mut self, bytes: u32) {
        self.lost = bytes;
    }

    /// Bytes that left the network and are not acknowledged.
    #[inline]
    pub fn sacked(&self) -> u32 {
        self.sacked
    }

    pub fn set_sacked(&mut self, bytes: u32) {
        self.sacked = bytes;
    }

    /// The index of the first segment that begins at `seq` or behind it.
    pub fn index_of(&self, seq: u32) -> usize {
        self.segments.partition_point(|s| seq::lt(s.seq, seq))
    }

    /// The oldest segment, to change it.
    #[inline(always)]
    pub fn front_mut(&mut self) -> Option<&mut Segment> {
        self.segments.front_mut()
    }

    /// The only segment, if it was never sent.
    #[inline(always)]
    pub fn lone_waiting(&self) -> Option<&Segment> {
        if self.sent == 0 { self.segments.only() } else { None }
    }

    /// The only segment, if it was sent.
    #[inline(always)]
    pub fn lone_sent(&self) -> Option<&Segment> {
        if self.sent == 1 { self.segments.only() } else { None }
    }

    /// Takes the only segment, which was sent and is acknowledged.
    #[inline(always)]
    pub fn take_lone_sent(&mut self) -> Option<Segment> {
        let only = self.segments.take_only();
        self.sent = 0;
        only
    }

    /// The newest segment.
    pub fn last_mut(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    /// Everything that was written is acknowledged.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    #[inline]
    pub fn has_unsent(&self) -> bool {
        (self.sent as usize) < self.segments.len()
    }

    /// Segments that were never sent.
    #[inline]
    pub fn unsent_segments(&self) -> usize {
        self.segments.len() - self.sent as usize
    }

    /// Those, in order.
    #[inline(always)]
    pub fn unsent(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.segments.tail_mut(self.sent as usize)
    }

    /// The index of the first segment that was never sent.
    #[inline]
    pub fn first_unsent(&self) -> Option<usize> {
        self.has_unsent().then_some(self.sent as usize)
    }

    #[inline]
    pub fn get(&self, i: usize) -> &Segment {
        self.segments.get(i).expect("a segment of the queue")
    }

    #[inline]
    pub fn get_mut(&mut self, i: usize) -> &mut Segment {
        self.segments.get_mut(i).expect("a segment of the queue")
    }

    #[inline]
    pub fn is_last(&self, i: usize) -> bool {
        i + 1 == self.segments.len()
    }

    /// The oldest segment.
    pub fn front(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// The first segment was sent with the SYN, then.
    pub fn sent_with_syn(&mut self, at: Instant) {
        if let Some(i) = self.first_unsent() {
            self.get_mut(i).sent_at = at;
            self.on_first_sent();
        }
    }

    /// Copies as much of `data` to the last segment's end as makes it `mss`
    /// bytes long, if that was not sent. Returns the number of bytes.
    #[inline]
    pub fn append(&mut self, pool: &Pool, data: &[u8], room: usize, mss: usize) -> usize {
        if !self.has_unsent() {
            return 0;
        }
        let Some(tail) = self.segments.back_mut() else { return 0 };
        let have = tail.frame.len();
        let odd = tail.more > 0 || tail.frame.offset() != room;
        if have >= mss || odd || tail.marks.contains(Marks::RECORD) {
            return 0;
        }
        let n = data.len().min(mss - have);
        let buf = pool.buffer_mut(&mut tail.frame);
        let sum = checksum::copy_and_sum(&mut buf[room + have..room + have + n], &data[..n]);
        tail.sum = Sum::from_u16(tail.sum).add_at(have, sum).fold();
        tail.frame.set_range(room, have + n);
        n
    }

    /// Adds a segment of `data` in this frame.
    #[inline(always)]
    pub fn push_copy(
        &mut self,
        pool: &Pool,
        mut frame: Frame,
        seq: u32,
        data: &[u8],
        room: usize,
        marks: Marks,
    ) {
        let buf = pool.buffer_mut(&mut frame);
        let sum = checksum::copy_and_sum(&mut buf[room..room + data.len()], data).fold();
        frame.set_range(room, data.len());
        self.push(frame, seq, sum, marks);
    }

    /// Adds a segment of a few bytes of `data` to an empty queue, without a call.
    #[inline(always)]
    pub fn push_lone(&mut self, pool: &Pool, mut frame: Frame, seq: u32, data: &[u8], room: usize) {
        debug_assert!(self.is_empty());
        let buf = pool.buffer_mut(&mut frame);
        let sum = checksum::copy_and_sum_short(&mut buf[room..room + data.len()], data).fold();
        frame.set_range(room, data.len());
        let segment = Segment { frame, seq, more: 0, sum, marks: Marks::PUSH, sent_at: Instant::ZERO };
        self.segments.put_lone(segment);
    }

    /// Adds a segment of the bytes in this frame's range to an empty queue, without a call.
    #[inline(always)]
    pub fn push_lone_frame(&mut self, frame: Frame, seq: u32, sum: u16) {
        debug_assert!(self.is_empty());
        let segment = Segment { frame, seq, more: 0, sum, marks: Marks::PUSH, sent_at: Instant::ZERO };
        self.segments.put_lone(segment);
    }

    /// Adds a segment of the payload in this frame's range.
    #[inline(always)]
    pub fn push(&mut self, frame: Frame, seq: u32, sum: u16, marks: Marks) {
        if let Some(place) = self.segments.vacancy() {
            *place = Some(Segment { frame, seq, more: 0, sum, marks, sent_at: Instant::ZERO });
        } else {
            self.push_behind(frame, seq, sum, marks);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, frame: Frame, seq: u32, sum: u16, marks: Marks) {
        let segment = Segment { frame, seq, more: 0, sum, marks, sent_at: Instant::ZERO };
        self.segments.push_behind(segment);
    }

    /// The last write ends here.
    #[inline]
    pub fn push_mark(&mut self) {
        if let Some(tail) = self.segments.back_mut() {
            tail.marks |= Marks::PUSH;
        }
    }

    /// The last write ends a record, if some of it was not sent.
    #[cold]
    pub fn record_mark(&mut self) {
        if self.has_unsent()
            && let Some(tail) = self.segments.back_mut()
        {
            tail.marks |= Marks::RECORD;
        }
    }

    /// Notes that the first segment that was never sent has left.
    #[inline]
    pub fn on_first_sent(&mut self) {
        self.sent += 1;
    }

    /// The only segment, which was never sent, has left.
    #[inline(always)]
    pub fn on_lone_sent(&mut self) {
        debug_assert!(self.lone_waiting().is_some());
        self.sent = 1;
    }

    /// So many more have left.
    #[inline]
    pub fn on_sent(&mut self, segments: u32) {
        self.sent += segments;
    }

    /// Everything before `una` is acknowledged: its frames go back. Returns when
    /// the last of the segments was sent, which tells its round trip time. Only
    /// while no segment has a mark that loss recovery keeps books of.
    #[inline(always)]
    pub fn acknowledge(&mut self, pool: &mut Pool, una: u32) -> Option<Instant> {
        // One whole segment: no loop.
        if self.lone_sent().is_some_and(|only| una == only.end())
            && let Some(done) = self.take_lone_sent()
        {
            debug_assert!(!done.marks.intersects(Marks::BOOKED));
            pool.free(done.frame);
            return Some(done.sent_at);
        }
        self.acknowledge_any(pool, una)
    }

    #[inline(never)]
    fn acknowledge_any(&mut self, pool: &mut Pool, una: u32) -> Option<Instant> {
        let mut sent_at = None;
        while let Some(front) = self.segments.front_mut() {
            let have = una.wrapping_sub(front.seq);
            if (have as i32) <= 0 || self.sent == 0 {
                break;
            }
            debug_assert!(!front.marks.intersects(Marks::BOOKED));
            if have < front.len() {
                Self::trim_front(pool, front, have as usize);
                break;
            }
            let Some(done) = self.segments.pop_front() else { break };
            self.sent -= 1;
            sent_at = Some(done.sent_at);
            pool.free(done.frame);
        }
        sent_at
    }

    /// The same while there are marks. What was not known to be there yet is
    /// noted in `seen`.
    #[inline(never)]
    pub fn acknowledge_booked(
        &mut self,
        pool: &mut Pool,
        una: u32,
        board: &mut Board,
        seen: &mut Seen,
    ) {
        let mut repeated = false;
        while let Some(front) = self.segments.front_mut() {
            let have = una.wrapping_sub(front.seq);
            if (have as i32) <= 0 || self.sent == 0 {
                break;
            }
            if have < front.len() {
                if !front.marks.contains(Marks::SACKED) {
                    seen.delivered += have;
                }
                Self::trim_front(pool, front, have as usize);
                break;
            }
            let Some(done) = self.segments.pop_front() else { break };
            self.sent -= 1;
            board.gone(&done);
            repeated |= done.marks.contains(Marks::RETRANSMITTED);
            seen.sent_at = Some(done.sent_at);
            if !done.marks.contains(Marks::SACKED) {
                seen.add(&done, false);
            } else {
                // It was measured when the block came.
                seen.sent_at = None;
            }
            pool.free(done.frame);
        }
        if repeated {
            seen.sent_at = None;
        }
    }

    #[cold]
    pub(super) fn trim_front(pool: &mut Pool, seg: &mut Segment, n: usize) {
        if seg.more > 0 {
            return seg.trim_chain(pool, n);
        }
        let (gone, rest) = pool.bytes(&seg.frame).split_at(n);
        // The shorter part is read.
        let sum = if gone.len() < rest.len() {
            Sum::ZERO.add_at(n, Sum::from_u16(seg.sum).sub_at(0, checksum::sum(gone)))
        } else {
            checksum::sum(rest)
        };
        seg.sum = sum.fold();
        seg.frame.trim_front(n);
        seg.seq = seg.seq.wrapping_add(n as u32);
    }

    /// Adds the next segment to the end of segment `i`, if it fits there and
    /// neither waits in the device. True where it did.
    #[cold]
    pub fn merge(&mut self, pool: &mut Pool, i: usize, mss: usize) -> bool {
        let (Some(a), Some(b)) = (self.segments.get(i), self.segments.get(i + 1)) else {
            return false;
        };
        let (n, more, offset) = (a.frame.len(), b.frame.len(), a.frame.offset());
        let single = a.more == 0 && b.more == 0;
        // What was received lies anywhere in its frame, but is copied behind the headers.
        let most = mss.min(self.piece.into());
        let fits = single && n + more <= most && offset + n + more <= pool.arena().capacity();
        if !fits || a.marks.contains(Marks::RECORD) || pool.is_pending(&a.frame) {
            return false;
        }
        let Some(second) = self.segments.remove(i + 1) else { return false };
        let Some(first) = self.segments.get_mut(i) else { return false };
        let buf = pool.buffer_mut(&mut first.frame);
        buf[offset + n..offset + n + more].copy_from_slice(pool.bytes(&second.frame));
        first.frame.set_range(offset, n + more);
        first.sum = Sum::from_u16(first.sum).add_at(n, Sum::from_u16(second.sum)).fold();
        first.marks |= second.marks & (Marks::PUSH | Marks::RETRANSMITTED | Marks::RECORD | Marks::TRAIN);
        if i + 1 < self.sent as usize {
            self.sent -= 1;
        }
        pool.free(second.frame);
        true
    }

    /// Cuts segment `i` in two after `at` bytes. The second part moves to a
    /// fresh frame, as every transmission begins at its frame's first byte;
    /// the bytes of the first stay where they are, pending or not. False where
    /// the pool is empty.
    #[cold]
    pub fn split(&mut self, pool: &mut Pool, i: usize, at: usize, room: usize) -> bool {
        let seg = self.segments.get_mut(i).expect("a segment of the queue");
        debug_assert!(at > 0 && at < seg.len() as usize);
        if seg.more > 0 {
            let Some(second) = seg.split_chain(pool, at, room) else { return false };
            self.insert_second(i, second);
            return true;
        }
        let Some(mut fresh) = pool.alloc() else { return false };
        let bytes = &pool.bytes(&seg.frame)[at..];
        let n = bytes.len();
        let sum = checksum::copy_and_sum(&mut pool.buffer_mut(&mut fresh)[room..room + n], bytes);
        fresh.set_range(room, n);
        let second = Segment {
            frame: fresh,
            seq: seg.seq.wrapping_add(at as u32),
            more: 0,
            sum: sum.fold(),
            marks: seg.marks,
            sent_at: seg.sent_at,
        };
        seg.frame.truncate(at);
        seg.sum = Sum::from_u16(seg.sum).sub_at(at, sum).fold();
        self.insert_second(i, second);
        true
    }

    /// Segment `i` was cut in two: the second part goes behind it.
    fn insert_second(&mut self, i: usize, second: Segment) {
        self.get_mut(i).marks -= Marks::PUSH | Marks::RECORD | Marks::TRAIN;
        if i < self.sent as usize {
            self.sent += 1;
        }
        self.segments.insert(i + 1, second);
    }

    /// Bytes in front that were never sent, up to the end of a record or `most`.
    #[cold]
    pub fn unsent_in_a_row(&self, most: usize) -> usize {
        let mut bytes = 0;
        for seg in self.segments.iter().skip(self.sent as usize) {
            bytes += seg.len() as usize;
            if bytes >= most || seg.marks.contains(Marks::RECORD) {
                break;
            }
        }
        bytes
    }

    /// Cuts what was never sent anew, the first segment `first` bytes long and the
    /// others `mss`, in as many segments as `most`. What is behind stays as it is, and
    /// so do records.
    #[cold]
    pub fn recut(&mut self, pool: &mut Pool, room: usize, first: usize, mss: usize, most: usize) {
        let mut want = first;
        let begin = self.sent as usize;
        for i in begin..begin + most {
            while self.pull(pool, i, room, want) {}
            let Some(seg) = self.segments.get(i) else { return };
            if seg.len() as usize > want && !self.split(pool, i, want, room) {
                return;
            }
            want = mss;
        }
    }

    /// Moves bytes from the front of the next segment to the end of unsent segment
    /// `i`, until that is `want` bytes long. True where more of them may follow.
    fn pull(&mut self, pool: &mut Pool, i: usize, room: usize, want: usize) -> bool {
        let Some(a) = self.segments.get(i) else { return false };
        let have = a.len() as usize;
        if have >= want || a.marks.contains(Marks::RECORD) || i + 1 >= self.segments.len() {
            return false;
        }
        let Some(mut b) = self.segments.remove(i + 1) else { return false };
        if room + want > pool.arena().capacity() || b.more > 0 || self.get(i).more > 0 {
            return self.pull_chain(pool, i, b, room, want - have);
        }
        let n = b.frame.len().min(want - have);
        let Some(a) = self.segments.get_mut(i) else { return false };
        move_to(pool, &mut a.frame, room);
        let buf = pool.buffer_mut(&mut a.frame);
        let more = &pool.bytes(&b.frame)[..n];
        let sum = checksum::copy_and_sum(&mut buf[room + have..room + have + n], more);
        a.frame.set_range(room, have + n);
        a.sum = Sum::from_u16(a.sum).add_at(have, sum).fold();
        if n == b.frame.len() {
            a.marks |= b.marks & (Marks::PUSH | Marks::RECORD);
            pool.free(b.frame);
        } else {
            Self::trim_front(pool, &mut b, n);
            move_to(pool, &mut b.frame, room);
            self.segments.insert(i + 1, b);
        }
        true
    }

    /// The same for segments of several frames, where `want` bytes are missing: as far
    /// as there are frames. `b` is the next segment, taken out.
    fn pull_chain(&mut self, pool: &mut Pool, i: usize, mut b: Segment, room: usize, want: usize) -> bool {
        let mut bytes = b.to_vec(pool);
        bytes.truncate(want);
        let a = self.get_mut(i);
        move_to(pool, &mut a.frame, room);
        let n = a.extend(pool, &bytes, room, 0);
        if n == b.len() as usize {
            a.marks |= b.marks & (Marks::PUSH | Marks::RECORD);
            pool.free(b.frame);
        } else {
            if n > 0 {
                Self::trim_front(pool, &mut b, n);
                move_to(pool, &mut b.frame, room);
            }
            self.segments.insert(i + 1, b);
        }
        n > 0
    }

    /// Gives all frames back.
    #[inline]
    pub fn clear(&mut self, pool: &mut Pool) {
        if !self.segments.is_empty() {
            self.clear_segments(pool);
        }
        (self.sent, self.lost, self.sacked) = (0, 0, 0);
    }

    #[inline(never)]
    fn clear_segments(&mut self, pool: &mut Pool) {
        self.segments.drain().for_each(|seg| pool.free(seg.frame));
    }

    /// Gives memory back that a burst left behind.
    pub fn trim(&mut self) {
        self.segments.trim();
    }
}

/// The payload begins at `room`. No transmission of the frame is pending.
fn move_to(pool: &Pool, frame: &mut Frame, room: usize) {
    let (from, len) = (frame.offset(), frame.len());
    if from != room {
        pool.buffer_mut(frame).copy_within(from..from + len, room);
        frame.set_range(room, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 66;

    fn queue(pool: &mut Pool, sizes: &[usize]) -> SendQueue {
        let piece = (pool.arena().capacity() - ROOM) as u16;
        let mut q = SendQueue { piece, ..SendQueue::default() };
        let mut seq = u32::MAX - 99;
        for &n in sizes {
            let data: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let frame = pool.alloc().unwrap();
            q.push_copy(pool, frame, seq, &data, ROOM, Marks::empty());
            seq = seq.wrapping_add(n as u32);
        }
        q
    }

    /// The next segment leaves for the first time.
    fn leave(q: &mut SendQueue, now: Instant) {
        let i = q.first_unsent().unwrap();
        q.get_mut(i).sent_at = now;
        q.on_first_sent();
    }

    fn seen() -> Seen {
        Seen::nothing(Instant::from_nanos(100), 0, 0)
    }

    fn sums_are_right(q: &SendQueue, pool: &Pool) {
        for s in q.segments.iter() {
            let sum = checksum::sum(pool.bytes(&s.frame)).fold();
            // What was taken away from may be all ones instead of zero.
            assert_eq!(s.sum % 0xffff, sum % 0xffff);
        }
    }

    #[test]
    fn sums_follow_the_bytes_wherever_a_segment_is_cut() {
        for zeros in [false, true] {
            for cut in 1..36 {
                let mut pool = Pool::heap(4, 2048);
                let mut q = queue(&mut pool, &[40, 33]);
                if zeros {
                    for seg in q.segments.iter_mut() {
                        pool.bytes_mut(&mut seg.frame).fill(0);
                        seg.sum = 0;
                    }
                }
                assert!(q.split(&mut pool, 0, cut, ROOM));
                sums_are_right(&q, &pool);
                assert!(q.merge(&mut pool, 1, 2000));
                sums_are_right(&q, &pool);
                SendQueue::trim_front(&mut pool, q.get_mut(1), cut);
                sums_are_right(&q, &pool);
                q.recut(&mut pool, ROOM, cut, 30, 2);
                sums_are_right(&q, &pool);
                q.clear(&mut pool);
            }
        }
    }

    #[test]
    fn small_writes_fill_the_last_segment_until_it_leaves() {
        let mut pool = Pool::heap(4, 2048);
        let mut q = queue(&mut pool, &[5]);
        assert_eq!(q.append(&pool, &[7; 10], ROOM, 1000), 10);
        assert_eq!(q.append(&pool, &[9; 2000], ROOM, 1000), 985);
        assert_eq!(q.append(&pool, &[9; 20], ROOM, 1000), 0);
        sums_are_right(&q, &pool);
        let mut q2 = queue(&mut pool, &[5]);
        leave(&mut q2, Instant::ZERO);
        assert_eq!(q2.append(&pool, &[7; 10], ROOM, 1000), 0);
        q.clear(&mut pool);
        q2.clear(&mut pool);
        pool.assert_conserved();
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn nothing_is_joined_to_the_end_of_a_record() {
        let mut pool = Pool::heap(6, 2048);
        let mut q = queue(&mut pool, &[5]);
        q.record_mark();
        assert_eq!(q.append(&pool, &[7; 10], ROOM, 1000), 0);
        // Cut in two, the second part ends it.
        assert!(q.split(&mut pool, 0, 3, ROOM));
        assert!(!q.get(0).marks.contains(Marks::RECORD));
        assert!(q.get(1).marks.contains(Marks::RECORD));
        assert_eq!(q.append(&pool, &[7; 10], ROOM, 1000), 0);
        for _ in 0..2 {
            leave(&mut q, Instant::ZERO);
        }
        // Sent again, it takes in what came before it, and not what comes after.
        let frame = pool.alloc().unwrap();
        let seq = q.get(1).end();
        q.push_copy(&pool, frame, seq, &[1; 4], ROOM, Marks::empty());
        leave(&mut q, Instant::ZERO);
        assert!(q.merge(&mut pool, 0, 1000));
        assert!(!q.merge(&mut pool, 0, 1000));
        assert_eq!((q.get(0).len(), q.get(1).len()), (5, 4));
        q.clear(&mut pool);
        pool.assert_conserved();
    }

    #[test]
    fn acknowledgment_frees_whole_segments_and_trims_a_part() {
        let mut pool = Pool::heap(4, 2048);
        let mut q = queue(&mut pool, &[100, 101, 50]);
        for i in 0..3 {
            leave(&mut q, Instant::from_nanos(i));
        }
        assert_eq!(q.acknowledge(&mut pool, u32::MAX - 99), None);
        // The first whole, and 51 (an odd number) of the second.
        assert_eq!(q.acknowledge(&mut pool, 51), Some(Instant::ZERO));
        assert_eq!((q.frames(), q.sent()), (2, 2));
        assert_eq!((q.get(0).seq, q.get(0).len()), (51, 50));
        sums_are_right(&q, &pool);
        let mut board = Board::new(51);
        board.lose(&mut q, 0);
        board.lose(&mut q, 1);
        assert_eq!((q.lost(), board.lost_segments), (100, 2));
        board.on_resent(&mut q, 0, Instant::ZERO);
        assert_eq!((q.lost(), board.first_lost(&q)), (50, Some(1)));
        // The first of them was sent again: the last may have waited for it.
        let mut seen = seen();
        q.acknowledge_booked(&mut pool, 151, &mut board, &mut seen);
        board.pass(&mut q, 151, true);
        assert_eq!((seen.sent_at, seen.delivered), (None, 100));
        assert_eq!((q.lost(), q.frames(), pool.available()), (0, 0, 4));
        assert!(board.is_clear());
    }

    #[test]
    fn a_cut_keeps_bytes_sums_and_marks() {
        let mut pool = Pool::heap(4, 2048);
        let mut q = queue(&mut pool, &[100, 100]);
        q.push_mark();
        leave(&mut q, Instant::ZERO);
        let mut board = Board::new(u32::MAX - 99);
        board.lose(&mut q, 0);
        assert!(q.split(&mut pool, 0, 33, ROOM));
        board.on_split(&q, 0);
        assert!(q.split(&mut pool, 2, 1, ROOM));
        assert_eq!((q.frames(), q.sent(), q.lost(), board.lost_segments), (4, 2, 100, 2));
        let lens: Vec<u32> = q.segments.iter().map(Segment::len).collect();
        assert_eq!(lens, [33, 67, 1, 99]);
        assert!(q.segments.iter().zip(q.segments.iter().skip(1)).all(|(a, b)| a.end() == b.seq));
        assert!(q.get(3).marks.contains(Marks::PUSH) && !q.get(2).marks.contains(Marks::PUSH));
        sums_are_right(&q, &pool);
        assert!(!q.split(&mut pool, 1, 5, ROOM), "the pool is empty");
        q.clear(&mut pool);
        pool.assert_conserved();
    }

    #[test]
    fn small_neighbours_become_one_where_they_fit() {
        let mut pool = Pool::heap(4, 2048);
        let mut q = queue(&mut pool, &[1, 98, 5, 100]);
        for _ in 0..3 {
            leave(&mut q, Instant::ZERO);
        }
        let bytes = |q: &SendQueue, pool: &Pool, i| pool.bytes(&q.get(i).frame).to_vec();
        let expected = [bytes(&q, &pool, 0), bytes(&q, &pool, 1)].concat();
        assert!(q.merge(&mut pool, 0, 100) && !q.merge(&mut pool, 0, 100));
        assert_eq!((q.frames(), q.sent(), pool.available()), (3, 2, 1));
        assert_eq!(bytes(&q, &pool, 0), expected);
        sums_are_right(&q, &pool);
        // Not into a frame that the device still reads.
        let desc = pool.transmit(&q.get(0).frame, ROOM + 99);
        assert!(!q.merge(&mut pool, 0, 1000));
        pool.complete(desc.index());
        assert!(q.merge(&mut pool, 0, 1000));
        q.clear(&mut pool);
        pool.assert_conserved();
    }

    #[test]
    fn neighbours_become_no_more_than_fits_behind_headers() {
        let mut pool = Pool::heap(4, 2048);
        let mut q = queue(&mut pool, &[]);
        let mut seq = 0;
        for len in [1000, 2048 - ROOM - 1000, 1] {
            // As the later frames of a received packet, without room before.
            let mut frame = pool.alloc().unwrap();
            frame.set_range(0, len);
            q.push(frame, seq, checksum::sum(&vec![0; len]).fold(), Marks::empty());
            seq += len as u32;
            leave(&mut q, Instant::ZERO);
        }
        assert!(q.merge(&mut pool, 0, 9000) && !q.merge(&mut pool, 0, 9000), "there is room for one byte, but not with headers");
        q.clear(&mut pool);
        pool.assert_conserved();
    }

    #[test]
    fn what_was_not_sent_is_cut_anew() {
        let mut pool = Pool::heap(12, 2048);
        let mut q = queue(&mut pool, &[100; 9]);
        q.push_mark();
        leave(&mut q, Instant::ZERO);
        let bytes = |q: &SendQueue, pool: &Pool| {
            q.segments.iter().flat_map(|s| pool.bytes(&s.frame).to_vec()).collect::<Vec<u8>>()
        };
        let lens = |q: &SendQueue| q.segments.iter().map(Segment::len).collect::<Vec<u32>>();
        let whole = bytes(&q, &pool);
        assert_eq!((q.unsent_in_a_row(250), q.unsent_in_a_row(5000)), (300, 800));
        q.recut(&mut pool, ROOM, 251, 100, 3);
        assert_eq!(lens(&q), [100, 251, 100, 100, 49, 100, 100, 100]);
        q.recut(&mut pool, ROOM, 30, 120, 64);
        assert_eq!(lens(&q), [100, 30, 120, 120, 120, 120, 120, 120, 50]);
        assert!(q.segments.iter().zip(q.segments.iter().skip(1)).all(|(a, b)| a.end() == b.seq));
        assert!(q.get(8).marks.contains(Marks::PUSH) && !q.get(7).marks.contains(Marks::PUSH));
        assert_eq!((bytes(&q, &pool), q.sent()), (whole.clone(), 1));
        sums_are_right(&q, &pool);
        // A record's end stays one.
        q.record_mark();
        let frame = pool.alloc().unwrap();
        let seq = q.get(8).end();
        q.push_copy(&pool, frame, seq, &[1; 40], ROOM, Marks::empty());
        assert_eq!(q.unsent_in_a_row(5000), 800);
        q.recut(&mut pool, ROOM, 1900, 1900, 64);
        assert_eq!(lens(&q), [100, 800, 40]);
        q.recut(&mut pool, ROOM, 5000, 5000, 64);
        assert_eq!(lens(&q), [100, 800, 40]);
        assert_eq!(bytes(&q, &pool)[..900], whole[..]);
        sums_are_right(&q, &pool);
        // Joined by twos as well, what was not sent is not counted as sent.
        q.record_mark();
        assert!(q.get(2).marks.contains(Marks::RECORD) && !q.merge(&mut pool, 1, 1900));
        q.get_mut(1).marks -= Marks::RECORD;
        assert!(q.merge(&mut pool, 1, 1900));
        assert_eq!((q.sent(), q.frames()), (1, 2));
        q.clear(&mut pool);
        pool.assert_conserved();
    }
}
