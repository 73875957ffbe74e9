//! Segments larger than a frame: their payload lies in a chain of frames (see
//! `frame/chain.rs`), of which the segment's own is the first and has the room for
//! headers. What is outstanding stays one segment for all that counts segments.
//!
//! No piece is longer than a frame less that room, so that any of them can become the
//! first of a segment that is cut anew.

use super::connection::{Bits, Connection};
use super::burst::Stop;
use super::send_queue::{Marks, Segment, SendQueue};
use super::types::Env;
use crate::frame::{Frame, MOST_PIECES, Pieces, Pool};
use crate::telemetry::DropReason;
use crate::wire::checksum::{self, Sum};

/// Bytes of payload in the largest segment that frames of this capacity make, and in
/// the largest of one frame.
pub(super) fn limits(frame_capacity: usize, room: usize) -> (usize, usize) {
    let piece = frame_capacity.saturating_sub(room).max(1);
    (piece * MOST_PIECES, piece)
}

impl Segment {
    /// Its payload, piece by piece.
    fn parts<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a [u8]> {
        core::iter::once(pool.bytes(&self.frame)).chain(pool.rest_bytes(&self.frame))
    }

    /// A copy of its payload.
    pub fn to_vec(&self, pool: &Pool) -> Vec<u8> {
        self.parts(pool).flatten().copied().collect()
    }

    /// These frames come behind its own now: takes length and sum anew.
    fn rejoin(&mut self, pool: &mut Pool, rest: Pieces) {
        self.more = rest.iter().map(|f| f.len() as u16).sum();
        pool.link(&self.frame, rest);
        let (mut sum, mut at) = (Sum::ZERO, 0);
        for part in self.parts(pool) {
            sum = Sum::from_u16(sum.add_at(at, checksum::sum(part)).fold());
            at += part.len();
        }
        self.sum = sum.fold();
    }

    /// Cuts `n` bytes off its front; some are left.
    pub fn trim_chain(&mut self, pool: &mut Pool, n: usize) {
        let (mut rest, mut left) = (pool.unlink(&self.frame), n);
        while left >= self.frame.len() && !rest.is_empty() {
            left -= self.frame.len();
            pool.free(core::mem::replace(&mut self.frame, rest.remove(0)));
        }
        self.frame.trim_front(left);
        self.rejoin(pool, rest);
        self.seq = self.seq.wrapping_add(n as u32);
    }

    /// Cuts it in two after `at` bytes and gives the second part, whose first piece
    /// moves to a fresh frame; `None`, and nothing done, where there is none.
    pub fn split_chain(&mut self, pool: &mut Pool, at: usize, room: usize) -> Option<Self> {
        let mut fresh = pool.alloc()?;
        let mut rest = pool.unlink(&self.frame);
        let (mut k, mut from) = (0, at);
        let behind = if from < self.frame.len() {
            move_tail(pool, &mut self.frame, from, &mut fresh, room);
            core::mem::take(&mut rest)
        } else {
            from -= self.frame.len();
            while from >= rest[k].len() {
                from -= rest[k].len();
                k += 1;
            }
            move_tail(pool, &mut rest[k], from, &mut fresh, room);
            rest.drain(k + 1..).collect()
        };
        // A piece that the cut took whole.
        if rest.last().is_some_and(Frame::is_empty)
            && let Some(empty) = rest.pop()
        {
            pool.free(empty);
        }
        self.rejoin(pool, rest);
        let seq = self.seq.wrapping_add(at as u32);
        let mut second = Self { frame: fresh, seq, more: 0, sum: 0, marks: self.marks, sent_at: self.sent_at };
        second.rejoin(pool, behind);
        Some(second)
    }

    /// Copies as much of `data` to its end as there are frames for, which are taken
    /// while more than `reserve` are free. Returns the number of bytes. It was not sent.
    pub fn extend(&mut self, pool: &mut Pool, data: &[u8], room: usize, reserve: u32) -> usize {
        let piece = limits(pool.frame_capacity(), room).1;
        let (before, mut rest) = (self.len() as usize, pool.unlink(&self.frame));
        let (mut done, part) = fill(pool, rest.last_mut().unwrap_or(&mut self.frame), data, piece);
        let mut sum = Sum::from_u16(self.sum).add_at(before, part);
        while done < data.len() && rest.len() + 2 <= MOST_PIECES && pool.available() > reserve {
            let Some(mut frame) = pool.alloc() else { break };
            let (n, part) = fill(pool, &mut frame, &data[done..], piece);
            sum = Sum::from_u16(sum.fold()).add_at(before + done, part);
            done += n;
            rest.push(frame);
        }
        self.more = rest.iter().map(|f| f.len() as u16).sum();
        pool.link(&self.frame, rest);
        self.sum = sum.fold();
        done
    }

    /// Sends its chain, with headers by `write`: in place, or as a copy where the
    /// payload lies wrong or an earlier transmission is pending.
    pub fn transmit_chain(
        &mut self,
        env: &mut Env,
        room: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Stop> {
        let in_place = self.frame.offset() == room && !env.pool.is_chain_pending(&self.frame);
        let total = room + self.len() as usize;
        let pieces = match in_place {
            true => env.pool.pieces(&self.frame),
            false => total.div_ceil(env.pool.frame_capacity()),
        };
        if env.tx.room() < pieces {
            env.counters.drop(DropReason::TransmitQueueFull);
            return Err(Stop::Full);
        }
        if in_place {
            write(env.pool.buffer_mut(&mut self.frame));
            env.pool.transmit_chain(&self.frame, room + self.frame.len(), env.tx);
            return Ok(());
        }
        if (env.pool.available() as usize) < pieces {
            env.counters.drop(DropReason::PoolExhausted);
            return Err(Stop::Full);
        }
        let mut frames: Pieces = core::iter::from_fn(|| env.pool.alloc()).take(pieces).collect();
        let (mut i, mut at) = (0, room);
        for mut part in self.parts(env.pool) {
            while !part.is_empty() {
                let n = part.len().min(env.pool.frame_capacity() - at);
                let buffer = env.pool.buffer_mut(&mut frames[i]);
                buffer[at..at + n].copy_from_slice(&part[..n]);
                part = &part[n..];
                at += n;
                frames[i].set_range(0, at);
                if at == env.pool.frame_capacity() {
                    (i, at) = (i + 1, 0);
                }
            }
        }
        let mut head = frames.remove(0);
        write(env.pool.buffer_mut(&mut head));
        env.pool.link(&head, frames);
        env.pool.transmit_chain(&head, head.len(), env.tx);
        env.pool.free(head);
        env.counters.tx_copied_bytes += u64::from(self.len());
        Ok(())
    }
}

/// Moves what lies in `piece` from byte `at` on behind `room` in `fresh`.
fn move_tail(pool: &Pool, piece: &mut Frame, at: usize, fresh: &mut Frame, room: usize) {
    let tail = &pool.bytes(piece)[at..];
    pool.buffer_mut(fresh)[room..room + tail.len()].copy_from_slice(tail);
    fresh.set_range(room, tail.len());
    piece.truncate(at);
}

/// Fills a piece up to `most` bytes. Returns how many were taken, and their sum.
fn fill(pool: &Pool, frame: &mut Frame, data: &[u8], most: usize) -> (usize, Sum) {
    let (from, have) = (frame.offset(), frame.len());
    let n = data.len().min(most.min(pool.frame_capacity() - from).saturating_sub(have));
    let sum = checksum::copy_and_sum(&mut pool.buffer_mut(frame)[from + have..], &data[..n]);
    frame.set_range(from, have + n);
    (n, sum)
}

impl SendQueue {
    /// As [`SendQueue::append`] where a segment may be of several frames.
    fn append_chain(&mut self, pool: &mut Pool, data: &[u8], room: usize, mss: usize, reserve: u32) -> usize {
        let tail = match self.has_unsent() {
            true => self.last_mut(),
            false => None,
        };
        let Some(tail) = tail else { return 0 };
        let have = tail.len() as usize;
        if have >= mss || tail.frame.offset() != room || tail.marks.contains(Marks::RECORD) {
            return 0;
        }
        tail.extend(pool, &data[..data.len().min(mss - have)], room, reserve)
    }
}

impl Connection {
    /// As [`queue_pieces`](Self::queue_pieces) where a segment may be of several frames.
    #[inline(never)]
    pub(super) fn queue_chains(&mut self, env: &mut Env, data: &[u8], mut done: usize) -> usize {
        let (room, mss, piece) = (self.room(), usize::from(self.hot.mss), usize::from(self.hot.send.piece));
        let (begun, reserve) = (done, env.config.send_reserve());
        while done < data.len() {
            let mut n = self.hot.send.append_chain(env.pool, &data[done..], room, mss, reserve);
            if n == 0 {
                if env.pool.available() <= reserve {
                    self.hot.bits |= Bits::STARVED;
                    break;
                }
                let Some(frame) = env.pool.alloc() else { break };
                n = (data.len() - done).min(piece);
                let end = self.hot.snd_end;
                self.hot.send.push_copy(env.pool, frame, end, &data[done..done + n], room, Marks::empty());
            }
            done += n;
            self.hot.snd_end = self.hot.snd_end.wrapping_add(n as u32);
        }
        if done > begun {
            self.hot.send.push_mark();
            env.counters.tx_copied_bytes += (done - begun) as u64;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::TxQueue;
    use crate::rng::Rng;
    use crate::time::Instant;

    const ROOM: usize = 66;
    const FRAME: u16 = 512;
    const PIECE: usize = FRAME as usize - ROOM;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 7 % 251) as u8).collect()
    }

    /// A queue with these bytes in segments of so many.
    fn queue(pool: &mut Pool, data: &[u8], mss: usize) -> SendQueue {
        let mut q = SendQueue::default();
        let mut done = 0;
        while done < data.len() {
            let mut n = q.append_chain(pool, &data[done..], ROOM, mss, 0);
            if n == 0 {
                let frame = pool.alloc().unwrap();
                n = PIECE.min(data.len() - done).min(mss);
                q.push_copy(pool, frame, done as u32, &data[done..done + n], ROOM, Marks::empty());
            }
            done += n;
        }
        q
    }

    /// All of it, in order, each sum right.
    fn content(q: &SendQueue, pool: &Pool) -> Vec<u8> {
        let mut all = Vec::new();
        for i in 0..q.frames() {
            let seg = q.get(i);
            let part = seg.to_vec(pool);
            assert_eq!(part.len(), seg.len() as usize);
            assert_eq!(seg.sum % 0xffff, checksum::sum(&part).fold() % 0xffff);
            all.extend(part);
        }
        pool.assert_conserved();
        all
    }

    #[test]
    fn a_large_segment_is_a_chain_filled_by_writes_of_any_size() {
        for step in [1, 100, PIECE, 2000] {
            let mut pool = Pool::heap(32, FRAME);
            let data = bytes(3000);
            let mut q = SendQueue::default();
            for (n, part) in data.chunks(step).enumerate() {
                let mut done = q.append_chain(&mut pool, part, ROOM, 1999, 0);
                while done < part.len() {
                    let frame = pool.alloc().unwrap();
                    let k = PIECE.min(part.len() - done);
                    q.push_copy(&pool, frame, (n * step + done) as u32, &part[done..done + k], ROOM, Marks::empty());
                    done += k;
                    done += q.append_chain(&mut pool, &part[done..], ROOM, 1999, 0);
                }
            }
            assert_eq!(content(&q, &pool), data);
            assert_eq!((q.get(0).len(), q.get(1).len(), q.frames()), (1999, 1001, 2), "in steps of {step}");
            assert_eq!(pool.pieces(&q.get(0).frame), 1999usize.div_ceil(PIECE));
            q.clear(&mut pool);
            assert_eq!(pool.available(), 32);
        }
    }

    #[test]
    fn chains_are_cut_trimmed_and_joined_anywhere_and_nothing_is_lost() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut pool = Pool::heap(64, FRAME);
            let mss = 600 + rng.below(2000) as usize;
            let mut data = bytes(4000 + rng.below(3000) as usize);
            let mut q = queue(&mut pool, &data, mss);
            for _ in 0..20 {
                let i = rng.below(q.frames() as u32) as usize;
                let len = q.get(i).len();
                match rng.below(3) {
                    0 if len > 1 => {
                        let at = 1 + rng.below(len - 1) as usize;
                        assert!(q.split(&mut pool, i, at, ROOM) || pool.available() == 0);
                    }
                    1 => q.recut(&mut pool, ROOM, 1 + rng.below(3000) as usize, 1 + rng.below(3000) as usize, 3),
                    _ => {
                        let n = 1 + rng.below(200) as usize;
                        if data.len() > n && q.get(0).len() as usize > n {
                            SendQueue::trim_front(&mut pool, q.get_mut(0), n);
                            data.drain(..n);
                        }
                    }
                }
                assert_eq!(content(&q, &pool), data, "seed {seed}");
                for i in 0..q.frames() {
                    let seg = q.get(i);
                    let longest = seg.parts(&pool).map(<[u8]>::len).max().unwrap();
                    assert!(longest <= PIECE, "a piece of {longest} bytes cannot become a first one");
                }
            }
            q.clear(&mut pool);
            pool.assert_conserved();
            assert_eq!(pool.available(), 64);
        }
    }

    #[test]
    fn an_acknowledgment_frees_whole_chains_and_trims_the_one_it_ends_in() {
        let mut pool = Pool::heap(32, FRAME);
        let data = bytes(5000);
        let mut q = queue(&mut pool, &data, 2000);
        for _ in 0..3 {
            q.get_mut(q.sent() as usize).sent_at = Instant::from_nanos(5);
            q.on_first_sent();
        }
        // To the end of the first frame, which is not the end of the segment.
        assert_eq!(q.acknowledge(&mut pool, PIECE as u32), None);
        assert_eq!(content(&q, &pool), data[PIECE..]);
        assert!(q.acknowledge(&mut pool, 2500).is_some());
        assert_eq!(content(&q, &pool), data[2500..]);
        assert_eq!((q.frames(), q.sent()), (2, 2));
        q.acknowledge(&mut pool, 5000);
        assert_eq!(pool.available(), 32);
        // One alone: the short way must not take a part for the whole.
        let mut q = queue(&mut pool, &data[..1500], 2000);
        q.on_first_sent();
        q.acknowledge(&mut pool, PIECE as u32);
        assert_eq!(content(&q, &pool), data[PIECE..1500]);
        q.clear(&mut pool);
    }

    #[test]
    fn a_chain_leaves_whole_or_not_at_all_and_as_a_copy_while_it_is_pending() {
        let (mut pool, data) = (Pool::heap(12, FRAME), bytes(1500));
        let mut q = queue(&mut pool, &data, 2000);
        let (mut counters, config) = (crate::telemetry::Counters::default(), crate::tcp::Config::default());
        let mut rng = Rng::new(1);
        let mut tx = TxQueue::new(8);
        let mut send = |pool: &mut Pool, tx: &mut TxQueue, q: &mut SendQueue| {
            let mut env = Env {
                now: Instant::ZERO,
                config: &config,
                pool,
                tx,
                counters: &mut counters,
                rng: &mut rng,
            };
            q.get_mut(0).transmit_chain(&mut env, ROOM, |head| head[..ROOM].fill(9))
        };
        // As it lies: four pieces.
        send(&mut pool, &mut tx, &mut q).unwrap();
        assert_eq!((tx.len(), pool.available()), (4, 8));
        // Again while the first is pending: a copy, which fits in four frames too.
        send(&mut pool, &mut tx, &mut q).unwrap();
        assert_eq!((tx.len(), pool.available()), (8, 4));
        // The queue is full: nothing of it.
        assert!(send(&mut pool, &mut tx, &mut q).is_err());
        assert_eq!((tx.len(), pool.available()), (8, 4));
        pool.assert_conserved();
        let mut sent = Vec::new();
        while let Some(desc) = tx.pop() {
            sent.extend_from_slice(pool.tx_bytes(&desc));
            if !desc.more {
                assert_eq!(sent[ROOM..], data, "headers and payload");
                assert_eq!(sent[..ROOM], [9; ROOM]);
                sent.clear();
            }
            pool.complete(desc.index());
        }
        q.clear(&mut pool);
        pool.assert_conserved();
        assert_eq!(pool.available(), 12);
    }
}
