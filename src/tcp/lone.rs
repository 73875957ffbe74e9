//! The most frequent sending by far, of requests and answers: one segment, of one
//! write, with nothing under way. As on the short way in, everything that could ask
//! for more is looked at before anything is done, and no surroundings are built but
//! what is used here.

use super::Config;
use super::connection::{Bits, Connection, Watch};
use super::send_queue::Marks;
use super::template::{Fields, Template};
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
        if self.hot.bits.contains(Bits::TIMESTAMPS) && self.template.is_plain() {
            self.flush_lone_as::<true>(now, pool, tx, counters, config)
        } else {
            self.flush_lone_other(now, pool, tx, counters, config)
        }
    }

    /// Without timestamps, over IPv6, or without Ethernet.
    #[inline(never)]
    fn flush_lone_other(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        tx: &mut TxQueue,
        counters: &mut Counters,
        config: &Config,
    ) -> Option<Instant> {
        self.flush_lone_as::<false>(now, pool, tx, counters, config)
    }

    /// `PLAIN`: with timestamps, over IPv4 and Ethernet, whose headers have one length.
    #[inline(always)]
    fn flush_lone_as<const PLAIN: bool>(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        tx: &mut TxQueue,
        counters: &mut Counters,
        config: &Config,
    ) -> Option<Instant> {
        let room = if PLAIN { Template::PLAIN } else { self.room() };
        if tx.room() == 0 || !self.is_lone_ready(config, room) {
            return None;
        }
        let window = self.window_now();
        let (value, echo, timestamp) = (self.ts_now(now), self.hot.ts_recent, self.data_timestamp(now));
        let h = &mut self.hot;
        let seg = h.send.front_mut()?;
        let flags = Flags::ACK | Flags::PSH;
        let (seq, ack) = (seg.seq, h.rcv_nxt);
        let (len, sum) = (seg.frame.len(), seg.sum);
        let stamp = |head: &mut [u8]| {
            let fields = Fields { seq, ack, flags, window };
            match PLAIN {
                true => self.template.stamp_plain(head, fields, (value, echo), len, sum),
                false => self.template.stamp_data(head, fields, timestamp, len, sum),
            }
        };
        // The payload lies right behind the headers.
        if !pool.transmit_written(&mut seg.frame, room + len, tx, stamp) {
            return None;
        }
        let end = seq.wrapping_add(len as u32);
        seg.sent_at = now;
        h.send.on_lone_sent();
        h.snd_nxt = end;
        if len < usize::from(h.mss) {
            self.warm.small_end = end;
        }
        self.warm.last_sent = now;
        self.ack_left(counters, true);
        let settled = matches!(self.warm.mode, Mode::Hold | Mode::Settle);
        if settled || !self.warm.timers.is_set(Timer::Retransmit) {
            self.set_lone_timer(now, config);
        }
        Some(self.warm.timers.get(Timer::Retransmit))
    }

    /// As [`set_retransmit`](Self::set_retransmit), of which most is settled where a lone
    /// segment left: the peer has a window, nothing is in trouble, and so the tail is
    /// probed for. Some 25 instructions instead of 50.
    #[inline(always)]
    fn set_lone_timer(&mut self, now: Instant, config: &Config) {
        let (h, w) = (&self.hot, &mut self.warm);
        let bounded = w.watch.contains(Watch::USER_TIMEOUT);
        if !h.bits.contains(Bits::TAIL) || h.backoff != 0 || !w.rtt.is_measured() || bounded {
            return self.set_any_timer(now, config);
        }
        debug_assert!(h.snd_wnd > 0 && h.send.sent() == 1);
        w.timers.set(Timer::Retransmit, now + w.rtt.rto(0, config).min(w.rtt.lone_probe(config)));
        w.mode = Mode::Probe;
    }

    #[inline(never)]
    fn set_any_timer(&mut self, now: Instant, config: &Config) {
        self.set_retransmit(now, config);
    }

    /// True where there is such a segment, and nothing else, behind so much room.
    #[inline(always)]
    fn is_lone_ready(&self, config: &Config, room: usize) -> bool {
        let h = &self.hot;
        let Some(seg) = h.send.lone_waiting() else { return false };
        let (len, initial) = (seg.frame.len() as u32, u32::from(config.initial_window) * u32::from(h.mss));
        h.state == State::Established
            && h.bits & !Bits::LONE_MAY == Bits::PATH
            && h.snd_una == h.snd_nxt
            && len <= h.snd_wnd.min(h.mss.into())
            && seg.frame.offset() == room
            && seg.more == 0
            && seg.marks.contains(Marks::PUSH)
            && self.warm.congestion.window <= initial
            && !self.warm.congestion.is_spaced()
            && !self.warm.watch.contains(Watch::FLOW)
    }
}
