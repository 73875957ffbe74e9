//! Packets and batches of them.

use super::{Frame, Pool};
use arrayvec::ArrayVec;

/// Packets in a batch, at most.
pub const BATCH: usize = 64;

/// A received packet: one frame, or several where it is larger than a frame.
#[derive(Debug)]
#[must_use = "a packet that is dropped loses its frames"]
pub struct Packet {
    /// The first frame; it holds all headers.
    pub head: Frame,
    /// The frames that continue it, in order (jumbo packets only).
    pub rest: Option<Box<Vec<Frame>>>,
}

impl Packet {
    /// A packet of one frame.
    pub fn single(head: Frame) -> Self {
        Self { head, rest: None }
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
        if keep > 0 {
            self.rest = Some(rest);
        }
    }

    /// Gives all its frames back.
    #[inline]
    pub fn free(self, pool: &mut Pool) {
        pool.free(self.head);
        if let Some(rest) = self.rest {
            free_all(*rest, pool);
        }
    }
}

#[cold]
fn free_all(frames: Vec<Frame>, pool: &mut Pool) {
    for frame in frames {
        pool.free(frame);
    }
}

/// What a device hands over in one burst.
pub type Batch = ArrayVec<Packet, BATCH>;
