//! Header prediction: the short way of the segments that nearly all are. In order,
//! and with data, or the acknowledgment of the one segment under way, or both: a
//! request, an answer, bulk data. Everything that could want more is asked before
//! anything is done, so that what is done has no branches, calls nothing and needs
//! no surroundings but the frames.

use super::Config;
use super::connection::{Bits, Connection, Watch};
use super::input::Plain;
use super::seq;
use super::timers::Timer;
use super::types::State;
use crate::frame::{Frame, Pool};
use crate::telemetry::Counters;
use crate::time::Instant;

impl Connection {
    /// True where the segment can take the short way: [`input_quick`](Self::input_quick).
    /// The pool is not low. Some 60 instructions with what it reads.
    #[inline(always)]
    pub fn is_quick(&self, seg: &Plain) -> bool {
        let h = &self.hot;
        let left = h.rcv_edge.wrapping_sub(seg.seq) as i32;
        h.state == State::Established
            && !h.bits.intersects(Bits::SLOW)
            && seg.seq == h.rcv_nxt
            && self.is_time_expected(seg)
            && left >= seg.len as i32
            && seg.window > 0
            && h.snd_wnd > 0
            && seq::le(h.snd_wl1, seg.seq)
            && seq::lt(seg.seq.wrapping_add(seg.len), self.hot.tune_at)
            // Nothing new, or all that is under way.
            && (if seg.ack == h.snd_una { seg.len > 0 } else { seg.ack == h.snd_nxt && self.is_lone_under_way() })
    }

    /// One segment is under way and nothing waits behind it; its acknowledgment wakes
    /// no writer, and is nothing to congestion control: it did not fill the window.
    #[inline(always)]
    fn is_lone_under_way(&self) -> bool {
        let h = &self.hot;
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        let least = flight.saturating_add(flight.max(2 * u32::from(h.mss)));
        h.send.lone_sent().is_some()
            && least <= self.warm.congestion.window
            && !self.warm.congestion.wants_all()
            && !self.warm.watch.contains(Watch::FLOW)
            && !self.was_full(flight)
    }

    /// Takes a segment that [`is_quick`](Self::is_quick); the frame's range is its
    /// payload, if it has any.
    #[inline(always)]
    pub fn input_quick(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        counters: &mut Counters,
        config: &Config,
        seg: &Plain,
        payload: Frame,
    ) {
        if seg.len == 0 {
            // Before the one that it acknowledges: all ways give frames back in one order.
            pool.free(payload.anew());
            return self.acknowledge_quick(now, pool, seg);
        }
        self.acknowledge_quick(now, pool, seg);
        self.note_in_order(seg.len);
        self.recv.push(pool, counters, config, payload);
    }

    /// What it says of our data, and of the window.
    #[inline(always)]
    fn acknowledge_quick(&mut self, now: Instant, pool: &mut Pool, seg: &Plain) {
        if seg.ack != self.hot.snd_una {
            self.lone_acknowledged(now, pool, seg.ack);
        }
        let h = &mut self.hot;
        self.warm.last_recv = now;
        if let Some((value, _)) = seg.timestamp
            && seq::le(seg.seq, h.last_ack)
        {
            h.ts_recent = value;
        }
        (h.snd_wl1, h.snd_wl2) = (seg.seq, seg.ack);
        h.snd_wnd = u32::from(seg.window) << h.snd_scale;
        self.warm.max_wnd = self.warm.max_wnd.max(h.snd_wnd);
    }

    /// True where `len` bytes from `seq` on go on where the stream ends now, behind a
    /// segment that took the short way just before and said the same: they can be taken
    /// by [`input_more`](Self::input_more).
    #[inline(always)]
    pub fn goes_on(&self, seq: u32, len: u32) -> bool {
        let left = self.hot.rcv_edge.wrapping_sub(seq) as i32;
        seq == self.hot.rcv_nxt && left >= len as i32 && seq::lt(seq.wrapping_add(len), self.hot.tune_at)
    }

    /// Takes the payload of a segment that [`goes_on`](Self::goes_on). Its acknowledgment,
    /// its window and its timestamp were taken with the one before.
    #[inline(always)]
    pub fn input_more(&mut self, pool: &mut Pool, counters: &mut Counters, config: &Config, seq: u32, payload: Frame) {
        self.hot.snd_wl1 = seq;
        self.note_in_order(payload.len() as u32);
        self.recv.push(pool, counters, config, payload);
    }

    /// The only segment was acknowledged, and so is everything.
    #[inline(always)]
    fn lone_acknowledged(&mut self, now: Instant, pool: &mut Pool, ack: u32) {
        let h = &mut self.hot;
        let bytes = ack.wrapping_sub(h.snd_una);
        if let Some(done) = h.send.take_lone_sent() {
            debug_assert_eq!(done.end(), ack);
            pool.free_at_once(done.frame);
            if seq::ge(ack, self.warm.rtt_seq) {
                self.warm.rtt_seq = ack;
                self.warm.rtt.sample(now.since(done.sent_at));
                self.warm.min_rtt.sample(now.since(done.sent_at), now);
                h.backoff = 0;
            }
        }
        h.snd_una = ack;
        (h.dup_acks, h.retries) = (0, 0);
        if bytes >= h.mss.into() {
            self.cold.acked_mss = h.mss;
        }
        self.warm.watch -= Watch::STALLED;
        self.warm.bytes_acked += u64::from(bytes);
        self.warm.timers.stop(Timer::Retransmit);
    }
}
