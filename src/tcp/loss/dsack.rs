//! D-SACK (RFC 2883): duplicates that came in are reported, reports are read.

use super::{Recovery, Seen};
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::send_queue::Marks;
use crate::tcp::seq;
use crate::tcp::types::Env;
use crate::wire::tcp::SackBlock;

/// The block that reports a duplicate, if the first does: it is acknowledged
/// already, or lies in the second (RFC 2883, 4).
pub(super) fn duplicate(blocks: &[SackBlock], ack: u32) -> Option<SackBlock> {
    let first = *blocks.first()?;
    let known = seq::le(first.right, ack) && seq::lt(first.left, ack);
    let inside = blocks.get(1).is_some_and(|second| {
        seq::ge(first.left, second.left) && seq::le(first.right, second.right)
    });
    (known || inside).then_some(first)
}

impl Connection {
    /// `left..right` came in a second time: the next ACK says so.
    #[cold]
    pub(in crate::tcp) fn note_duplicate(&mut self, env: &Env, left: u32, right: u32) {
        if !env.config.dsack || !self.hot.bits.contains(Bits::SACK) || !seq::lt(left, right) {
            return;
        }
        let c = &mut self.cold;
        let goes_on = self.hot.bits.contains(Bits::DSACK) && c.dsack.right == left;
        let left = if goes_on { c.dsack.left } else { left };
        c.dsack = SackBlock { left, right };
        self.hot.bits |= Bits::DSACK;
    }

    /// The report that is due.
    pub(in crate::tcp) fn dsack_due(&self) -> Option<SackBlock> {
        self.hot.bits.contains(Bits::DSACK).then_some(self.cold.dsack)
    }

    /// The peer reports a duplicate.
    pub(super) fn duplicate_reported(
        &mut self,
        env: &mut Env,
        r: &mut Recovery,
        block: SackBlock,
        seen: &mut Seen,
    ) {
        let h = &self.hot;
        let oldest = h.snd_una.wrapping_sub(self.warm.max_wnd.max(h.snd_buf));
        let absurd = seq::ge(block.left, block.right)
            || seq::lt(block.left, oldest)
            || seq::gt(block.right, h.snd_nxt);
        if absurd {
            env.counters.tcp_sack_discarded += 1;
            return;
        }
        env.counters.tcp_dsack_in += 1;
        let len = block.right.wrapping_sub(block.left);
        seen.duplicates = len.div_ceil(u32::from(h.mss).max(1));
        self.cold.dsack_dups = self.cold.dsack_dups.saturating_add(seen.duplicates);
        seen.probe_duplicate = r.tail.is_some_and(|t| t.resent && t.end == block.right);
        // Of what is still in the queue it is known whether it went again.
        let (queue, una) = (&h.send, h.snd_una);
        let once = seq::gt(block.right, una) && {
            let i = queue.index_of(block.right).saturating_sub(1).min(queue.frames().saturating_sub(1));
            queue.frames() > 0 && !queue.get(i).marks.contains(Marks::RETRANSMITTED)
        };
        if !once {
            r.undo.duplicates(block.right, seen.duplicates);
        }
    }
}
