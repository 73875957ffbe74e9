//! The most frequent sending by far, of requests and answers: one segment, of one
//! write, with nothing under way. Some 190 instructions a round trip less than the general way.

use super::connection::{Bits, Connection};
use super::send_queue::Marks;
use super::template::Fields;
use super::timers::{Mode, Timer};
use super::types::{Env, State};
use crate::wire::tcp::Flags;

impl Connection {
    /// Sends the lone segment that waits, and what ACK is due with it. False, with
    /// nothing done, where there is more to think of: trouble, a gap, a FIN, cork,
    /// pacing, a window that is too small, or one that grew and may be stale.
    #[inline(always)]
    pub(super) fn flush_lone(&mut self, env: &mut Env) -> bool {
        let h = &self.hot;
        let plain = h.state == State::Established
            && h.bits.difference(Bits::LONE).is_empty()
            && h.bits.contains(Bits::PATH)
            && h.snd_una == h.snd_nxt
            && !h.congestion.is_spaced()
            && h.congestion.window <= u32::from(env.config.initial_window) * u32::from(h.mss);
        if !plain || self.cold.flow.is_some() || env.tx.room() == 0 {
            return false;
        }
        let (room, timestamp) = (self.room(), self.data_timestamp(env.now));
        let (most, usable) = (usize::from(self.hot.mss), self.hot.snd_wnd as usize);
        let fits = |len: usize| len <= most && len <= usable;
        let Some(seg) = self.hot.send.lone_unsent() else { return false };
        let ready = fits(seg.frame.len()) && seg.frame.offset() == room;
        if !ready || !seg.marks.contains(Marks::PUSH) {
            return false;
        }
        self.send_lone(env, room, timestamp)
    }

    #[inline(always)]
    fn send_lone(&mut self, env: &mut Env, room: usize, timestamp: Option<(u32, u32)>) -> bool {
        let window = self.window();
        let h = &mut self.hot;
        let Some(seg) = h.send.lone_unsent() else { return false };
        let flags = Flags::ACK | Flags::PSH;
        let fields = Fields { seq: seg.seq, ack: h.rcv_nxt, flags, window };
        let (len, sum, template) = (seg.frame.len(), seg.sum, &self.template);
        let Some(mut out) = env.pool.transmit_and_write(&mut seg.frame, room + len) else {
            return false;
        };
        template.stamp_data(out.buffer(), fields, timestamp, len, sum);
        env.tx.push(out.written());
        seg.sent_at = env.now;
        h.send.on_first_sent();
        h.snd_nxt = h.snd_nxt.wrapping_add(len as u32);
        self.cold.small_end = h.snd_nxt;
        self.cold.last_sent = env.now;
        self.ack_left(env, true);
        let settled = matches!(self.cold.mode, Mode::Hold | Mode::Settle);
        if settled || !self.hot.timers.is_set(Timer::Retransmit) {
            self.set_retransmit(env);
        }
        true
    }
}
