//! Frames: the chunks of memory that packets live in, from the ring to the
//! socket and back.
//!
//! A [`Frame`] is a token: whoever holds it owns the bytes, and nobody else
//! does. It cannot be copied, so a frame is in one hand at a time. The bytes
//! belong to an [`Arena`]; a [`Pool`] is one worker's share of the arena and
//! keeps the books:
//!
//! ```text
//! free + fill + held + linked + tx = all frames of the pool
//! ```
//!
//! `fill`: the kernel may write a received packet into it (fill ring, RX ring).
//! `held`: a token is out (in a receive batch, a queue, a program's hand).
//! `linked`: behind another frame, whose holder has it too ([chains](MOST_PIECES)).
//! `tx`: given up by its holder while its transmission is still pending.

mod arena;
mod chain;
mod packet;
mod pool;

pub use arena::Arena;
pub use chain::{MOST_PIECES, Pieces};
pub use packet::{BATCH, Batch, Packet};
pub use pool::{Pool, PoolCounts, TxDesc, TxQueue};

use core::num::NonZeroU16;

/// The token of one frame, and the range of bytes in it that counts.
///
/// Dropping a token without giving it to [`Pool::free`] leaks the frame: the
/// pool's books then no longer balance, which every simulated step checks.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is dropped is lost to its pool"]
pub struct Frame {
    index: u32,
    offset: u16,
    len: u16,
    /// Not zero, so that a place for a frame that may be empty is no larger.
    arena: NonZeroU16,
}

impl Frame {
    /// The same token in another place: what a seldom call is given by its address lies
    /// in memory only there, and not on the way of all.
    #[inline(always)]
    pub(crate) fn anew(self) -> Self {
        Self { index: self.index, offset: self.offset, len: self.len, arena: self.arena }
    }

    /// The frame's number in its arena.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the range begins, in bytes from the frame's first.
    pub fn offset(&self) -> usize {
        self.offset.into()
    }

    /// The range's length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// True where the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `n` bytes off the front of the range (at most all of it).
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len.into()) as u16;
        self.offset += n;
        self.len -= n;
    }

    /// Cuts the range to its first `n` bytes (no effect if it is shorter).
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n.min(u16::MAX.into()) as u16);
    }

    /// Sets the range. A range beyond the frame's end is refused by a panic
    /// when the bytes are asked for, never by access to foreign memory.
    pub fn set_range(&mut self, offset: usize, len: usize) {
        self.offset = offset as u16;
        self.len = len as u16;
    }
}
