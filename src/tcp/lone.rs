//! The most frequent sending by far, of requests and answers: one segment, of one
//! write, with nothing under way. As on the short way in, everything that could ask
//! for more is looked at before anything is done, and no surroundings are built but
//! what is used here.

use super::Config;
use super::connection::{Bits, Connection};
use super::send_queue::Marks;
use super::template::Fields;
use super::timers::{Mode, Timer};
use super::types::State;
use crate::frame::{Pool, TxQueue};
use crate::telemetry::Counters;
use crate::time::Instant;
use crate::wire::tcp::Flags;

impl Connection {
    /// Sends the lone segment that waits, and what ACK is due with it. When the timer
    /// that it starts expires; `None`, with nothing done, where there is more to think
    /// of: trouble, a gap, a FIN, cork, pacing, a window that is too small, or one that
    /// grew and may be stale.
    #[inline(always)]
    pub fn flush_lone(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        tx: &mut TxQueue,
        counters: &mut Counters,
        config: &Config,
    ) -> Option<Instant> {
        if tx.room() == 0 || !self.is_lone_ready(config) {
            return None;
        }
        let timestamp = self.data_timestamp(now);
        let window = self.window_now();
        let h = &mut self.hot;
        let seg = h.send.front_mut()?;
        let flags = Flags::ACK | Flags::PSH;
        let fields = Fields { seq: seg.seq, ack: h.rcv_nxt, flags, window };
        let (len, sum) = (seg.frame.len(), seg.sum);
        let end = seg.seq.wrapping_add(len as u32);
        // The payload lies right behind the headers.
        let end_of_frame = seg.frame.offset() + len;
        let mut out = pool.transmit_and_write(&mut seg.frame, end_of_frame)?;
        self.template.stamp_data(out.buffer(), fields, timestamp, len, sum);
        tx.push(out.written());
        seg.sent_at = now;
        h.send.on_first_sent();
        h.snd_nxt = end;
        if len < usize::from(h.mss) {
            self.cold.small_end = end;
        }
        self.cold.last_sent = now;
        self.ack_left(counters, true);
        let settled = matches!(self.cold.mode, Mode::Hold | Mode::Settle);
        if settled || !self.hot.timers.is_set(Timer::Retransmit) {
            self.set_retransmit(now, config);
        }
        Some(self.hot.timers.get(Timer::Retransmit))
    }

    /// True where there is such a segment, and nothing else.
    #[inline(always)]
    fn is_lone_ready(&self, config: &Config) -> bool {
        let h = &self.hot;
        let Some(seg) = h.send.lone_waiting() else { return false };
        let (len, initial) = (seg.frame.len() as u32, u32::from(config.initial_window) * u32::from(h.mss));
        h.state == State::Established
            && h.bits & !Bits::LONE_MAY == Bits::PATH
            && h.snd_una == h.snd_nxt
            && len <= h.snd_wnd.min(h.mss.into())
            && seg.frame.offset() == self.room()
            && seg.more == 0
            && seg.marks.contains(Marks::PUSH)
            && h.congestion.window <= initial
            && !h.congestion.is_spaced()
            && self.cold.flow.is_none()
    }
}
