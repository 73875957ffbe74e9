//! Where there are many connections: what a batch will need is asked for before it is
//! worked off. A connection that was quiet for a while is in none of the caches, and
//! its six lines come from memory one behind the other if they are first
//! touched as they are needed; a batch's all at once take little longer than one.

use super::{NONE, Slot, Table, WAITING};
use crate::arch;
use crate::frame::{BATCH, Batch, Pool};
use crate::stack::quick;
use arrayvec::ArrayVec;
use core::ops::Range;

/// As many connections stay in the second cache, or nearly so.
const AT_HAND: usize = 512;

/// The slots of the connections that a batch's packets are for, its last one first, as
/// far as a look at the headers says, or `NONE`. They are found by seven bits of the hash:
/// one of a dozen is another's, which is seen when the packet's turn comes.
pub(super) type Ahead = ArrayVec<u32, BATCH>;

impl Table {
    /// True where looking ahead is worth its 150 instructions a packet.
    #[inline(always)]
    pub(crate) fn is_spread(&self) -> bool {
        self.live > AT_HAND
    }

    /// Finds the connections of a batch that is taken from its end, and asks for their
    /// lines. Nothing of them is read here, so no packet waits for the one before.
    #[inline(never)]
    pub(crate) fn look_ahead(&mut self, pool: &Pool, batch: &Batch) {
        for packet in batch.iter().rev() {
            let mut ahead = NONE;
            if let Some((local, remote, ports)) = quick::flow(pool.bytes(&packet.head)) {
                let hash = self.keyed.flow_v4(local, remote, ports);
                for &id in self.flows.iter_hash(hash).filter(|&id| id & WAITING == 0) {
                    arch::prefetch_front(&self.slots[id as usize], Slot::WARM);
                    ahead = id;
                }
            }
            self.ahead.push(ahead);
        }
    }

    /// The next packet is the one that leaves so many in the batch: its connection,
    /// where it was found ahead, is looked at first.
    #[inline(never)]
    pub(in crate::stack) fn expect(&mut self, left: usize) {
        if let Some(&id) = self.ahead.get(self.ahead.len().wrapping_sub(left + 1)) {
            self.last_found = id;
        }
    }

    /// Where the connection of a slot lies, and how much of that is asked for: for a tool
    /// that watches what is touched (`scripts/counts lines`).
    pub(crate) fn place(&self, id: u32) -> (Range<usize>, usize) {
        let slot = &self.slots[id as usize];
        let begin = core::ptr::from_ref(slot).addr();
        (begin..begin + size_of::<Slot>(), Slot::WARM)
    }

    /// The connections that were found, as [`Table::expect`] takes them.
    #[cfg(test)]
    pub(crate) fn found_ahead(&self) -> &[u32] {
        &self.ahead
    }

    /// The batch is worked off.
    pub(crate) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }
}
