//! Packets and batches of them.

use super::{Frame, Pool};
use arrayvec::ArrayVec;

/// Packets in a batch, at most.
pub const BATCH: usize = 64;

/// The list of the frames behind a packet's first. Packets of one frame pay for a pointer
/// alone; the pool keeps lists that were used, so that others allocate nothing.
#[allow(clippy::box_collection)]
pub type Rest = Box<Vec<Frame>>;

/// A received packet: one frame, or several where it is larger than a frame.
#[derive(Debug)]
#[must_use = "a packet that is dropped loses its frames"]
pub struct Packet {
    /// The first frame; it holds all headers.
    pub head: Frame,
    /// The frames that continue it, in order (jumbo packets only). Who takes them out gives
    /// the list back ([`Pool::keep_list`]), as [`Packet::free`] does.
    pub rest: Option<Rest>,
}

impl Packet {
    /// A packet of one frame.
    pub fn single(head: Frame) -> Self {
        Self { head, rest: None }
    }

    /// Adds a frame that continues it, of any pool.
    #[inline]
    pub fn push(&mut self, frame: Frame, pool: &mut Pool) {
        self.rest.get_or_insert_with(|| pool.take_list()).push(frame);
    }

    /// Bytes in all its frames.
    pub fn len(&self) -> usize {
        self.head.len() + self.rest.iter().flat_map(|r| r.iter()).map(Frame::len).sum::<usize>()
    }

    /// True where it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames it is made of.
    pub fn frames(&self) -> usize {
        1 + self.rest.as_ref().map_or(0, |r| r.len())
    }

    /// Its frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        core::iter::once(&self.head).chain(self.rest.iter().flat_map(|r| r.iter()))
    }

    /// Cuts it to its first `n` bytes; frames that hold none of them go back to
    /// the pool.
    #[inline]
    pub fn truncate(&mut self, n: usize, pool: &mut Pool) {
        if self.rest.is_some() {
            self.truncate_rest(n, pool);
        }
        self.head.truncate(n);
    }

    #[cold]
    fn truncate_rest(&mut self, n: usize, pool: &mut Pool) {
        let Some(mut rest) = self.rest.take() else { return };
        let mut left = n.saturating_sub(self.head.len());
        let mut keep = 0;
        for frame in rest.iter_mut() {
            if left == 0 {
                break;
            }
            frame.truncate(left);
            left -= frame.len();
            keep += 1;
        }
        rest.drain(keep..).for_each(|f| pool.free(f));
        match keep {
            0 => pool.keep_list(rest),
            _ => self.rest = Some(rest),
        }
    }

    /// Gives all its frames back.
    #[inline]
    pub fn free(self, pool: &mut Pool) {
        pool.free(self.head);
        if let Some(rest) = self.rest {
            free_all(rest, pool);
        }
    }
}

#[cold]
fn free_all(mut frames: Rest, pool: &mut Pool) {
    frames.drain(..).for_each(|frame| pool.free(frame));
    pool.keep_list(frames);
}

/// What a device hands over in one burst.
pub type Batch = ArrayVec<Packet, BATCH>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MOST_PIECES;

    /// A packet of so many frames.
    fn packet(pool: &mut Pool, n: usize) -> Packet {
        let mut packet = Packet::single(pool.alloc().unwrap());
        for _ in 1..n {
            let frame = pool.alloc().unwrap();
            packet.push(frame, pool);
        }
        packet
    }

    #[test]
    fn a_list_is_used_again_however_its_packet_ended() {
        let mut pool = Pool::heap(256, 64);
        let first = packet(&mut pool, 3);
        let list: *const Vec<Frame> = &raw const **first.rest.as_ref().unwrap();
        first.free(&mut pool);
        let ends: [fn(Packet, &mut Pool); 2] = [
            Packet::free,
            |mut packet, pool| {
                packet.truncate(0, pool);
                assert_eq!(packet.frames(), 1);
                packet.free(pool);
            },
        ];
        for end in ends {
            let again = packet(&mut pool, MOST_PIECES);
            assert_eq!(&raw const **again.rest.as_ref().unwrap(), list);
            end(again, &mut pool);
            pool.assert_conserved();
            assert_eq!(pool.available(), 256);
        }
        // One that grew by a packet of very many, as none comes from a device, is not kept.
        packet(&mut pool, 200).free(&mut pool);
        let small = packet(&mut pool, 2);
        assert!(small.rest.as_ref().unwrap().capacity() < 200);
        small.free(&mut pool);
    }

    #[test]
    fn no_more_lists_are_kept_than_a_batch_has_packets() {
        let mut pool = Pool::heap(4 * BATCH as u32, 64);
        let many: Vec<_> = (0..BATCH + 10).map(|_| packet(&mut pool, 2)).collect();
        many.into_iter().for_each(|packet| packet.free(&mut pool));
        assert_eq!(pool.lists(), BATCH);
    }
}
