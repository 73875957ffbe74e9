//! The scoreboard beside a plain list of segments, and the bounds on its work.

use super::{Board, Seen};
use crate::frame::Pool;
use crate::rng::Rng;
use crate::tcp::send_queue::{Marks, SendQueue};
use crate::time::Instant;
use proptest::prelude::*;

const ROOM: usize = 66;

/// A segment in the plain list.
#[derive(Clone, Copy, Debug, Default)]
struct Plain {
    seq: u32,
    len: u32,
    sacked: bool,
    lost: bool,
    resent: bool,
}

/// The queue, its board, and the plain list that has to agree.
struct Bed {
    pool: Pool,
    queue: SendQueue,
    board: Board,
    plain: Vec<Plain>,
    una: u32,
    nxt: u32,
    now: u64,
}

impl Bed {
    fn new(base: u32, sizes: &[u32]) -> Self {
        let mut pool = Pool::heap(sizes.len() as u32 + 8, 256);
        let (mut queue, mut plain, mut seq) = (SendQueue::default(), Vec::new(), base);
        for (i, &len) in sizes.iter().enumerate() {
            let frame = pool.alloc().unwrap();
            queue.push_copy(&pool, frame, seq, &vec![7; len as usize], ROOM, Marks::empty());
            queue.get_mut(i).sent_at = Instant::from_nanos(i as u64);
            queue.on_first_sent();
            plain.push(Plain { seq, len, ..Plain::default() });
            seq = seq.wrapping_add(len);
        }
        let now = sizes.len() as u64;
        Self { pool, queue, board: Board::new(base), plain, una: base, nxt: seq, now }
    }

    fn rel(&self, n: u32) -> u32 {
        n.wrapping_sub(self.una)
    }

    fn tag(&mut self, left: u32, right: u32) -> u32 {
        let mut seen = Seen::nothing(Instant::from_nanos(self.now), self.board.fack, self.board.fack);
        let (l, r) = (self.una.wrapping_add(left), self.una.wrapping_add(right));
        self.board.tag(&mut self.queue, l, r, &mut seen);
        let mut fresh = 0;
        for i in 0..self.plain.len() {
            let at = self.rel(self.plain[i].seq);
            let p = &mut self.plain[i];
            if at >= left && at + p.len <= right && !p.sacked {
                (p.sacked, p.lost) = (true, false);
                fresh += p.len;
            }
        }
        assert_eq!(seen.delivered, fresh);
        fresh
    }

    fn acknowledge(&mut self, bytes: u32) {
        let una = self.una.wrapping_add(bytes);
        let mut seen = Seen::nothing(Instant::from_nanos(self.now), self.board.fack, self.board.fack);
        self.queue.acknowledge_booked(&mut self.pool, una, &mut self.board, &mut seen);
        self.board.pass(&mut self.queue, una, true);
        let mut fresh = 0;
        while let Some(first) = self.plain.first_mut() {
            let have = una.wrapping_sub(first.seq);
            if have as i32 <= 0 {
                break;
            }
            let n = have.min(first.len);
            fresh += if first.sacked { 0 } else { n };
            first.seq = first.seq.wrapping_add(n);
            first.len -= n;
            if first.len == 0 {
                self.plain.remove(0);
            }
        }
        self.una = una;
        assert_eq!(seen.delivered, fresh);
    }

    fn lose(&mut self, i: usize) {
        self.board.lose(&mut self.queue, i);
        self.plain[i].lost |= !self.plain[i].sacked;
    }

    fn resend(&mut self, i: usize) {
        if self.plain[i].sacked {
            return;
        }
        self.now += 1;
        self.board.on_resent(&mut self.queue, i, Instant::from_nanos(self.now));
        // What is over is thrown away here, and nowhere else.
        assert!(self.board.resent.len() <= 2 * self.queue.sent() as usize + 17);
        (self.plain[i].lost, self.plain[i].resent) = (false, true);
    }

    /// Every figure by a walk of the plain list.
    fn check(&self) {
        let sum = |f: fn(&Plain) -> bool| -> (u32, u32) {
            let found = self.plain.iter().filter(|p| f(p));
            found.fold((0, 0), |(n, bytes), p| (n + 1, bytes + p.len))
        };
        let (b, q) = (&self.board, &self.queue);
        assert_eq!((b.sacked_segments, q.sacked()), sum(|p| p.sacked));
        assert_eq!((b.lost_segments, q.lost()), sum(|p| p.lost));
        assert_eq!(b.retransmitted, sum(|p| p.resent && !p.lost && !p.sacked).0);
        assert_eq!(b.first_lost(q), self.plain.iter().position(|p| p.lost));
        for (i, p) in self.plain.iter().enumerate() {
            let s = q.get(i);
            assert_eq!((s.seq, s.len()), (p.seq, p.len));
            assert_eq!(s.marks.contains(Marks::SACKED), p.sacked);
            assert_eq!(s.marks.contains(Marks::LOST), p.lost);
        }
        let live = b.resent.iter().filter(|r| Board::entry(q, r).is_some()).count();
        assert_eq!(live as u32, b.retransmitted, "each has its entry");
    }

    /// The cursor goes to the first that was sent once and is under way.
    fn check_cursor(&mut self) {
        let fresh = self.plain.iter().position(|p| !p.sacked && !p.lost && !p.resent);
        assert_eq!(self.board.next_fresh(&self.queue, self.nxt), fresh);
    }

    fn total(&self) -> u32 {
        self.plain.iter().map(|p| p.len).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_scoreboard_is_what_a_walk_of_the_queue_says(
        base in any::<u32>(),
        sizes in prop::collection::vec(1u32..40, 1..60),
        steps in prop::collection::vec((0u8..8, any::<u32>(), any::<u32>()), 1..120),
    ) {
        let mut bed = Bed::new(base, &sizes);
        for (what, a, b) in steps {
            let (n, total) = (bed.plain.len(), bed.total());
            if n == 0 {
                break;
            }
            let i = a as usize % n;
            match what {
                0..=2 => {
                    let left = a % total;
                    bed.tag(left, (left + 1 + b % 200).min(total));
                }
                3 => bed.lose(i),
                4 | 5 => {
                    if let Some(i) = bed.board.first_lost(&bed.queue) {
                        bed.resend(i);
                    } else {
                        bed.resend(i);
                    }
                }
                6 => bed.acknowledge(a % (total / 4 + 1)),
                _ if b % 5 == 0 => {
                    bed.board.nothing_lost(&mut bed.queue);
                    bed.plain.iter_mut().for_each(|p| p.lost = false);
                }
                _ if b % 5 == 1 => {
                    bed.board.reneged(&mut bed.queue);
                    bed.plain.iter_mut().for_each(|p| p.sacked = false);
                }
                _ => bed.check_cursor(),
            }
            bed.check();
        }
        bed.queue.clear(&mut bed.pool);
        bed.pool.assert_conserved();
    }
}

#[test]
fn a_block_that_is_known_costs_one_step_however_much_it_covers() {
    // CVE-2019-11478: the same blocks again and again, over a long queue.
    let mut bed = Bed::new(u32::MAX - 5000, &[10; 4000]);
    bed.tag(10, 39_990);
    let before = bed.board.steps;
    for _ in 0..10_000 {
        assert_eq!(bed.tag_again(10, 39_990), 0);
        assert_eq!(bed.tag_again(1, 39_999), 0);
    }
    // Two ends that no block covers whole, looked for each time.
    assert!(bed.board.steps - before <= 4 * 10_000, "{}", bed.board.steps - before);
    bed.queue.clear(&mut bed.pool);
}

#[test]
fn no_order_of_blocks_makes_it_walk_and_none_cuts_a_segment() {
    // CVE-2019-11477: every second segment, then parts of each, then all of it.
    let mut bed = Bed::new(0, &[10; 4000]);
    for i in (0..4000).step_by(2) {
        bed.tag_again(i * 10, i * 10 + 10);
    }
    let mut rng = Rng::new(3);
    let before = bed.board.steps;
    for _ in 0..20_000 {
        let i = rng.below(3999);
        bed.tag_again(i * 10 + 1, i * 10 + 19);
    }
    assert!(bed.board.steps - before <= 4 * 20_000, "{}", bed.board.steps - before);
    assert_eq!((bed.queue.frames(), bed.board.sacked_segments), (4000, 2000));
    // What joins all ranges costs what they cost, once.
    let before = bed.board.steps;
    for _ in 0..1000 {
        bed.tag_again(0, 40_000);
    }
    assert!(bed.board.steps - before <= 2 * 4000 + 2 * 1000);
    assert_eq!(bed.board.sacked.len(), 1);
    bed.queue.clear(&mut bed.pool);
}

impl Bed {
    /// Without the plain list, whose walk would be the slow part.
    fn tag_again(&mut self, left: u32, right: u32) -> u32 {
        let mut seen = Seen::nothing(Instant::from_nanos(self.now), self.board.fack, self.board.fack);
        let (l, r) = (self.una.wrapping_add(left), self.una.wrapping_add(right));
        self.board.tag(&mut self.queue, l, r, &mut seen);
        seen.delivered
    }
}
