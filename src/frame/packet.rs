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

    /// Gives all its frames back.
    pub fn free(self, pool: &mut Pool) {
        pool.free(self.head);
        for frame in self.rest.into_iter().flat_map(|r| r.into_iter()) {
            pool.free(frame);
        }
    }
}

/// What a device hands over in one burst.
pub type Batch = ArrayVec<Packet, BATCH>;
