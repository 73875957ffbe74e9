//! What an acknowledgment moves: the send queue, the round trip time, the
//! windows.

use super::congestion;
use super::connection::{Bits, Connection};
use super::seq;
use super::timers::{Mode, Timer};
use super::types::{Disposition, Env, Events};
use crate::time::{Duration, Instant};

impl Connection {
    /// SND.UNA < SEG.ACK <= SND.NXT: new data is acknowledged.
    #[inline(always)]
    pub(super) fn acknowledged(
        &mut self,
        env: &mut Env,
        ack: u32,
        timestamp: Option<(u32, u32)>,
    ) -> Disposition {
        let queued = self.queued();
        let h = &mut self.hot;
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        let bytes = ack.wrapping_sub(h.snd_una);
        let sent_at = h.send.acknowledge(env.pool, ack);
        h.snd_una = ack;
        (h.dup_acks, h.retries) = (0, 0);
        self.cold.stalled = Instant::NEVER;
        self.cold.bytes_acked += u64::from(bytes);
        self.measure(env, ack, timestamp, sent_at);
        let flush = if self.hot.bits.intersects(Bits::RECOVERY | Bits::LOSS) {
            self.acknowledged_in_recovery(ack, bytes, flight)
        } else {
            self.open_window(bytes, flight);
            self.hot.send.has_unsent()
        };
        // RFC 6298, 5.2 and 5.3.
        if self.hot.snd_una == self.hot.snd_nxt {
            self.hot.timers.stop(Timer::Retransmit);
        } else {
            self.set_retransmit(env);
        }
        let mut events = Events::empty();
        // Above two thirds of the buffer before, and not any more.
        let was_full = u64::from(queued) * 3 > u64::from(self.hot.snd_buf) * 2;
        events.set(Events::WRITABLE, was_full && self.writable());
        Disposition { events, flush: flush || self.owes_fin() }
    }

    /// Lets the congestion window grow, if it was what held the sender back.
    #[inline]
    pub(super) fn open_window(&mut self, bytes: u32, flight: u32) {
        let h = &mut self.hot;
        let mss = u32::from(h.mss);
        let window = h.congestion.window;
        let window_limited = if window < h.congestion.threshold {
            flight.saturating_mul(2) > window
        } else {
            flight.saturating_add(2 * mss) > window
        };
        h.congestion.on_ack(&congestion::Ack { bytes, mss, window_limited });
    }

    /// A round trip time from this ACK: one a round trip is enough (RFC 7323,
    /// 4.2). By our own note where the segment was sent once (Karn), else by the
    /// echoed timestamp.
    #[inline]
    fn measure(
        &mut self,
        env: &Env,
        ack: u32,
        timestamp: Option<(u32, u32)>,
        sent_at: Option<Instant>,
    ) {
        if seq::lt(ack, self.hot.rtt_seq) {
            return;
        }
        let took = match sent_at {
            Some(at) => env.now.since(at),
            None => match self.echoed(env, timestamp.map(|t| t.1)) {
                Some(took) => took,
                None => return,
            },
        };
        self.hot.rtt.sample(took);
        self.hot.rtt_seq = self.hot.snd_nxt;
        // The backed-off RTO lasts until something was measured (Karn; RFC 6298, 5).
        self.hot.backoff = 0;
    }

    /// How long ago the echoed timestamp was ours.
    pub(super) fn echoed(&self, env: &Env, echo: Option<u32>) -> Option<Duration> {
        if !self.hot.bits.contains(Bits::TIMESTAMPS) {
            return None;
        }
        let ms = self.ts_now(env.now).wrapping_sub(echo?);
        (ms < 1 << 30).then(|| Duration::from_millis(ms.into()))
    }

    /// The peer's window, if this segment is newer than the one it was last
    /// taken from (SND.WL1, SND.WL2). True where something may leave now.
    #[inline]
    pub(super) fn take_window(&mut self, seq: u32, ack: u32, window: u16) -> bool {
        let h = &mut self.hot;
        let newer = seq::lt(h.snd_wl1, seq) || h.snd_wl1 == seq && seq::le(h.snd_wl2, ack);
        if !newer {
            return false;
        }
        (h.snd_wl1, h.snd_wl2) = (seq, ack);
        let window = u32::from(window) << h.snd_scale;
        let old = h.snd_wnd;
        if old == window {
            if window == 0 && !h.bits.contains(Bits::ORPHAN) {
                // The peer lives, and its window may stay shut (MUST-37), but not
                // for ever once the program is gone (RFC 6429, 4).
                h.retries = 0;
            }
            return false;
        }
        h.snd_wnd = window;
        h.max_wnd = h.max_wnd.max(window);
        if old == 0 || window == 0 {
            self.window_turned(window);
        }
        window > old && (self.hot.send.has_unsent() || self.owes_fin() || self.hot.send.lost() > 0)
    }

    /// The window shut, or opened again.
    #[cold]
    fn window_turned(&mut self, window: u32) {
        let h = &mut self.hot;
        if !h.bits.contains(Bits::ORPHAN) {
            h.retries = 0;
            self.cold.stalled = Instant::NEVER;
        }
        if window == 0 {
            if self.cold.mode == Mode::Retransmit {
                self.cold.mode = Mode::Persist;
            }
            return;
        }
        // The probe met a shut window: it goes again, without waiting.
        h.backoff = 0;
        h.timers.stop(Timer::Retransmit);
        self.outstanding_is_lost();
    }

    /// All that is outstanding is to be sent again.
    pub(super) fn outstanding_is_lost(&mut self) {
        let h = &mut self.hot;
        h.send.mark_all_lost();
        let fin_out = h.bits.contains(Bits::FIN_SENT) && seq::le(h.snd_una, h.snd_end);
        h.bits.set(Bits::FIN_LOST, fin_out);
    }
}
