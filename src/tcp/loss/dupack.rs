//! Losses by counting: RFC 6675 with SACK, RFC 6582 (NewReno) without.

use super::{Recovery, Seen};
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::seq;
use crate::wire::tcp::{Flags, Segment};

impl Connection {
    /// RFC 5681, 2: nothing new, something outstanding, the same window, no data.
    /// A peer that has SACK tells more than that.
    pub(in crate::tcp) fn is_duplicate_ack(&self, seg: &Segment) -> bool {
        let h = &self.hot;
        seg.ack == h.snd_una
            && !h.bits.contains(Bits::SACK)
            && h.snd_una != h.snd_nxt
            && seg.payload_len == 0
            && !seg.flags.intersects(Flags::SYN | Flags::FIN)
            && h.snd_wnd > 0
            && u32::from(seg.window) << h.snd_scale == h.snd_wnd
    }

    /// Another segment left the network. The first is the missing one.
    pub(super) fn duplicate_arrives(&mut self, seen: &mut Seen) {
        let h = &mut self.hot;
        h.dup_acks = h.dup_acks.saturating_add(1);
        // Before recovery what arrived lets new data leave, two segments of it
        // (limited transmit, RFC 3042).
        let early = u16::from(h.dup_acks) > self.cold.reordering.degree;
        if h.bits.contains(Bits::LOSS) || early && !h.bits.contains(Bits::RECOVERY) {
            return;
        }
        let mss = u32::from(h.mss);
        // No more of them count than segments were under way when recovery began, less
        // the missing one: else forged ones pull out what they like (RFC 5681, 3.2).
        let end = if h.bits.contains(Bits::RECOVERY) { self.cold.recover } else { h.snd_nxt };
        let most = end.wrapping_sub(h.snd_una).saturating_sub(mss);
        let now = (h.send.sacked() + mss).min(most);
        seen.delivered += now.saturating_sub(h.send.sacked());
        h.send.set_sacked(now.max(h.send.sacked()));
    }

    /// The third duplicate, or an ACK for a part in recovery, which tells that the
    /// next segment is missing too (RFC 6582, 3.2, steps 2 and 3).
    pub(super) fn detect_newreno(&mut self, r: &mut Recovery, advanced: bool) {
        let h = &self.hot;
        if h.bits.contains(Bits::RECOVERY) {
            if advanced {
                r.board.lose_front(&mut self.hot.send);
            }
            return;
        }
        if h.bits.contains(Bits::LOSS) || u16::from(h.dup_acks) != self.cold.reordering.degree.min(255) {
            return;
        }
        // Not for what an earlier recovery sent. `recover` is only valid where it
        // lies in what is outstanding: once passed it stays behind, by more than
        // half the number space in the end.
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        if self.cold.recover.wrapping_sub(h.snd_una) > flight {
            r.board.lose_front(&mut self.hot.send);
        }
    }

    /// RFC 6675, 4, `IsLost`: so many ranges, or more than so many segments' bytes
    /// less one, lie behind it. The highest such number is found from the top in as
    /// many steps; all that is below it and was sent once is lost.
    pub(super) fn detect_dupack(&mut self, r: &mut Recovery) {
        let degree = u32::from(self.cold.reordering.degree);
        let enough = degree.saturating_sub(1) * u32::from(self.hot.mss);
        let (mut bytes, mut below) = (0, None);
        for (n, (left, right)) in r.board.sacked.backwards().take(degree as usize).enumerate() {
            bytes += right.wrapping_sub(left);
            if n as u32 + 1 >= degree || bytes > enough {
                below = Some(left);
                break;
            }
        }
        let Some(below) = below else { return };
        while let Some(i) = r.board.next_fresh(&self.hot.send, self.hot.snd_nxt) {
            if !seq::lt(self.hot.send.get(i).seq, below) {
                break;
            }
            r.board.lose(&mut self.hot.send, i);
        }
    }
}
